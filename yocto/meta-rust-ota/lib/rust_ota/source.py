"""Where the source is, and whether the compiler of this build is new enough for it."""

import re

from rust_ota import VariableError


def uris(src_uri, checkout, parts, version, exists):
    """SRC_URI of a recipe: the release that `src_uri` names, or `parts` of the `checkout`. `exists` is os.path.exists."""
    if src_uri:
        return src_uri
    for part in parts.split():
        if not exists("%s/%s" % (checkout, part)):
            raise VariableError(
                "RUST_OTA_SRC_URI",
                "is not set, and this layer does not lie in a checkout of rust-ota (there is no %s/%s). "
                "Set it to the source tarball of release %s, or RUST_OTA_CHECKOUT to a checkout" % (checkout, part, version),
            )
    return " ".join("file://%s;subdir=rust-ota-%s" % (part, version) for part in parts.split())


def _numbers(version):
    """1.97.1% as (1, 97, 1); None where it does not begin with two numbers."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return tuple(int(number or 0) for number in found.groups()) if found else None


def rust_problem(version, oldest):
    """What to say if the Rust of this build, `version`, is older than `oldest`. A version nobody names is not judged."""
    has, needs = _numbers(version), _numbers(oldest)
    if has is None or has >= needs:
        return None
    return (
        "needs Rust %s or later, and RUSTVERSION of this build is %s. Add a layer with a newer Rust; "
        "for scarthgap docs/yocto.md of rust-ota says which" % (oldest, version)
    )

#!/usr/bin/env bash
# python-zstandard 0.25.0: of a file of several frames some of its readers give all, and others the first one and no error.
#
# A .zst file may be frames one after the other: pzstd writes such files, `cat a.zst b.zst` makes one, and images that a device
# fetches in parts have them. `decompress`, `decompressobj` and `read_to_iter` end with the first frame and say nothing of the
# rest; `stream_reader`, `copy_stream` and `open` go on. So the same file has two lengths in one program, by the call that was
# chosen, and the shorter one looks like success. Only `decompress(..., allow_extra_data=False)` reports it, as an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip --quiet --disable-pip-version-check install zstandard==0.25.0
venv/bin/python - <<'PYTHON'
import io

import zstandard

frames = b"".join(zstandard.ZstdCompressor().compress(letter * 1000) for letter in (b"a", b"b", b"c"))
decoder = zstandard.ZstdDecompressor()


def copied():
    out = io.BytesIO()
    decoder.copy_stream(io.BytesIO(frames), out)
    return out.getvalue()


lengths = {
    "decompress": len(decoder.decompress(frames)),
    "decompressobj": len(decoder.decompressobj().decompress(frames)),
    "read_to_iter": len(b"".join(decoder.read_to_iter(io.BytesIO(frames)))),
    "stream_reader": len(decoder.stream_reader(io.BytesIO(frames)).read()),
    "copy_stream": len(copied()),
    "open": len(zstandard.open(io.BytesIO(frames), "rb").read()),
}
for name, length in lengths.items():
    print(f"{name}: {length} of 3000 bytes")
assert lengths == {
    "decompress": 1000,
    "decompressobj": 1000,
    "read_to_iter": 1000,
    "stream_reader": 3000,
    "copy_stream": 3000,
    "open": 3000,
}, "it was another answer"
PYTHON

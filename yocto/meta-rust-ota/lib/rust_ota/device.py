"""What a device is told: its configuration, its type, where its boot environment and its partitions are."""

import json
import re

from rust_ota import VariableError


def device_type(name):
    """The content of the file device_type."""
    if not name:
        raise VariableError("MENDER_DEVICE_TYPE", "is empty: an artifact could not say which devices it fits")
    if re.search(r"\s", name):
        raise VariableError("MENDER_DEVICE_TYPE", "%r has a blank: a device has one type" % name)
    return "device_type=%s\n" % name


# What mender.conf is made of.
CONFIGURES = (
    "MENDER_ARTIFACT_VERIFY_KEY",
    "MENDER_INVENTORY_POLL_INTERVAL_SECONDS",
    "MENDER_RETRY_POLL_INTERVAL_SECONDS",
    "MENDER_ROOTFS_PART_A",
    "MENDER_ROOTFS_PART_B",
    "MENDER_SERVER_URL",
    "MENDER_TENANT_TOKEN",
    "MENDER_UPDATE_POLL_INTERVAL_SECONDS",
)


def _seconds(values, variable):
    text = values.get(variable)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]+", text):
        raise VariableError(variable, "%r is not a number of seconds" % text)
    return int(text)


def configuration(values, own=None):
    """mender.conf as a text. `values` are the variables by name; `own` is a mender.conf of the board, whose keys win."""
    keys = {
        "ServerURL": values.get("MENDER_SERVER_URL"),
        "TenantToken": values.get("MENDER_TENANT_TOKEN"),
        "RootfsPartA": values.get("MENDER_ROOTFS_PART_A"),
        "RootfsPartB": values.get("MENDER_ROOTFS_PART_B"),
        "UpdatePollIntervalSeconds": _seconds(values, "MENDER_UPDATE_POLL_INTERVAL_SECONDS"),
        "InventoryPollIntervalSeconds": _seconds(values, "MENDER_INVENTORY_POLL_INTERVAL_SECONDS"),
        "RetryPollIntervalSeconds": _seconds(values, "MENDER_RETRY_POLL_INTERVAL_SECONDS"),
    }
    if values.get("MENDER_ARTIFACT_VERIFY_KEY"):
        keys["ArtifactVerifyKey"] = "/etc/mender/artifact-verify-key.pem"
    slots = keys["RootfsPartA"], keys["RootfsPartB"]
    for variable, slot in zip(("MENDER_ROOTFS_PART_A", "MENDER_ROOTFS_PART_B"), slots):
        if not slot:
            raise VariableError(variable, "is empty: the client would have no slot to write to")
    if slots[0] == slots[1]:
        raise VariableError("MENDER_ROOTFS_PART_B", "is %s, as MENDER_ROOTFS_PART_A is" % slots[1])
    if own:
        try:
            board = json.loads(own)
        except ValueError as error:
            raise VariableError("mender.conf", "is not JSON: %s" % error) from error
        if not isinstance(board, dict):
            raise VariableError("mender.conf", "is not one JSON object")
        keys.update(board)
    return json.dumps({key: value for key, value in keys.items() if value not in (None, "")}, indent=2) + "\n"


def artifact(values):
    """Checks what an artifact is made from; returns what there is to warn of."""
    name = values.get("MENDER_ARTIFACT_NAME") or ""
    if not name:
        raise VariableError("MENDER_ARTIFACT_NAME", "is not set. It names the release, and each one needs another")
    if re.search(r"\s", name):
        raise VariableError("MENDER_ARTIFACT_NAME", "%r has a blank" % name)
    types = (values.get("MENDER_DEVICE_TYPES_COMPATIBLE") or "").split()
    if not types:
        raise VariableError("MENDER_DEVICE_TYPES_COMPATIBLE", "is empty: the artifact would fit no device")
    own = values.get("MENDER_DEVICE_TYPE")
    if own not in types:
        raise VariableError(
            "MENDER_DEVICE_TYPES_COMPATIBLE",
            "%s does not have MENDER_DEVICE_TYPE, %s: the device would refuse its own update" % (" ".join(types), own),
        )
    signs, verifies = values.get("MENDER_ARTIFACT_SIGNING_KEY"), values.get("MENDER_ARTIFACT_VERIFY_KEY")
    if verifies and not signs:
        return ["MENDER_ARTIFACT_SIGNING_KEY is not set and MENDER_ARTIFACT_VERIFY_KEY is: sign the artifact before it is "
                "deployed (rust-ota-artifact sign), or the device refuses it"]
    if signs and not verifies:
        raise VariableError(
            "MENDER_ARTIFACT_VERIFY_KEY",
            "is not set and MENDER_ARTIFACT_SIGNING_KEY is: the device would install what nobody signed. "
            "Set it to the public key",
        )
    return []


def artifact_arguments(values, bootstrap=False):
    """The arguments of rust-ota-artifact that the variables stand for."""
    end = "_BOOTSTRAP" if bootstrap else ""

    def words(variable):
        found = (values.get(variable) or "").split()
        return found + (values.get(variable + end) or "").split() if bootstrap else found

    arguments = []
    for compatible in (values.get("MENDER_DEVICE_TYPES_COMPATIBLE") or "").split():
        arguments += ["--compatible-types", compatible]
    if values.get("MENDER_ARTIFACT_SIGNING_KEY"):
        arguments += ["--key", values["MENDER_ARTIFACT_SIGNING_KEY"]]
    named = (values.get("MENDER_ARTIFACT_NAME_DEPENDS" + end) or values.get("MENDER_ARTIFACT_NAME_DEPENDS") or "").split()
    for depended in named:
        arguments += ["--artifact-name-depends", depended]
    for option, variable in (("--provides", "MENDER_ARTIFACT_PROVIDES"), ("--depends", "MENDER_ARTIFACT_DEPENDS")):
        for pair in words(variable):
            if not re.fullmatch(r"[^:]+:.+", pair):
                raise VariableError(variable, "%r is not KEY:VALUE" % pair)
            arguments += [option, pair]
    for option, variable in (
        ("--provides-group", "MENDER_ARTIFACT_PROVIDES_GROUP"),
        ("--depends-groups", "MENDER_ARTIFACT_DEPENDS_GROUPS"),
    ):
        for group in words(variable):
            arguments += [option, group]
    return arguments


def boot_settings(values, bootloader):
    """The first lines of board.cmd or board.cfg: what the partitions already say, so that the board cannot say otherwise."""
    numbers = {}
    for slot in "AB":
        variable = "MENDER_ROOTFS_PART_%s_NUMBER" % slot
        text = values.get(variable) or ""
        if not re.fullmatch(r"[1-9][0-9]?", text):
            raise VariableError(variable, "%r is not the number of a partition" % text)
        numbers[slot.lower()] = int(text)
    if numbers["a"] == numbers["b"]:
        raise VariableError("MENDER_ROOTFS_PART_B_NUMBER", "is %d, as MENDER_ROOTFS_PART_A_NUMBER is" % numbers["b"])
    lines = []
    for slot, number in numbers.items():
        if bootloader == "grub":
            lines.append("set rota_part_%s=%d" % (slot, number))
        else:
            lines += ["rota_part_%s=%d" % (slot, number), "rota_part_%s_hex=%x" % (slot, number)]
            # Only a GPT has the names that boot.cmd goes by itself; GRUB asks for the partition's UUID.
            if values.get("RUST_OTA_PARTITION_TABLE") == "msdos":
                lines.append("rota_root_%s=%s" % (slot, values["MENDER_ROOTFS_PART_" + slot.upper()]))
    return "\n".join(lines) + "\n"


def environment(values):
    """The lines of fw_env.config, the size of one copy in bytes, and the options of mkenvimage."""
    kind = values.get("RUST_OTA_UBOOT_ENV")
    if kind not in ("file", "native"):
        raise VariableError("RUST_OTA_UBOOT_ENV", "%r is neither file nor native" % kind)
    name = "RUST_OTA_FW_ENV_CONFIG"
    lines = [line.split() for line in (values.get(name) or "").replace("\\n", "\n").splitlines() if line.strip()]
    if not lines:
        raise VariableError(name, "is not set: with RUST_OTA_UBOOT_ENV=native only the board knows where U-Boot saves")
    if len(lines) > 2:
        raise VariableError(name, "has %d lines: an environment has one copy or two" % len(lines))
    copies = []
    for words in lines:
        try:
            device, offset, size = words[0], int(words[1], 0), int(words[2], 0)
        except (IndexError, ValueError) as error:
            raise VariableError(name, "%r is not DEVICE OFFSET SIZE" % " ".join(words)) from error
        copies.append((device, offset, size))
    if len({size for _, _, size in copies}) > 1:
        raise VariableError(name, "the copies differ in size, and U-Boot has one CONFIG_ENV_SIZE")
    if len(copies) == 2 and copies[0][0] == copies[1][0] and abs(copies[0][1] - copies[1][1]) < copies[0][2]:
        raise VariableError(name, "the copies overlap")
    size = copies[0][2]
    if kind == "file" and (len(copies), size) != (1, 512):
        raise VariableError(name, "with RUST_OTA_UBOOT_ENV=file there is one copy of 0x200 bytes")
    text = "".join(" ".join(words) + "\n" for words in lines)
    return text, size, ["-r"] if len(copies) == 2 else []


def script_goes_to_artifact(name):
    """Whether the state script `name` belongs into the artifact; else it belongs onto the device."""
    found = re.fullmatch(r"([A-Z][A-Za-z]*)_(Enter|Leave|Error)_([0-9]{2})(_.*)?", name)
    state = found.group(1) if found else None
    on_artifact = ("ArtifactInstall", "ArtifactReboot", "ArtifactCommit", "ArtifactRollback", "ArtifactRollbackReboot",
                   "ArtifactFailure")
    if state in on_artifact:
        return True
    if state in ("Idle", "Sync", "Download"):
        return False
    raise VariableError(
        "MENDER_STATE_SCRIPTS", "%s is no name of a state script: STATE_ACTION_NUMBER, as ArtifactInstall_Enter_10" % name
    )

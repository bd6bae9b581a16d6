"""Which variables there are: those of meta-mender that mean the same here, and those that mean nothing here."""

import difflib
import re

# What this layer reads.
USED = frozenset(
    """
    MENDER_ARTIFACT_DEPENDS
    MENDER_ARTIFACT_DEPENDS_BOOTSTRAP
    MENDER_ARTIFACT_DEPENDS_GROUPS
    MENDER_ARTIFACT_DEPENDS_GROUPS_BOOTSTRAP
    MENDER_ARTIFACT_EXTRA_ARGS
    MENDER_ARTIFACT_NAME
    MENDER_ARTIFACT_NAME_BOOTSTRAP
    MENDER_ARTIFACT_NAME_DEPENDS
    MENDER_ARTIFACT_NAME_DEPENDS_BOOTSTRAP
    MENDER_ARTIFACT_PROVIDES
    MENDER_ARTIFACT_PROVIDES_BOOTSTRAP
    MENDER_ARTIFACT_PROVIDES_GROUP
    MENDER_ARTIFACT_PROVIDES_GROUP_BOOTSTRAP
    MENDER_ARTIFACT_SIGNING_KEY
    MENDER_ARTIFACT_VERIFY_KEY
    MENDER_BOOT_PART
    MENDER_BOOT_PART_FSTAB_OPTS
    MENDER_BOOT_PART_LABEL
    MENDER_BOOT_PART_MOUNT_LOCATION
    MENDER_BOOT_PART_NUMBER
    MENDER_BOOT_PART_SIZE_MB
    MENDER_CALC_ROOTFS_SIZE
    MENDER_DATA_PART
    MENDER_DATA_PART_FSOPTS
    MENDER_DATA_PART_FSTAB_OPTS
    MENDER_DATA_PART_LABEL
    MENDER_DATA_PART_NUMBER
    MENDER_DATA_PART_SIZE_MB
    MENDER_DEVICE_TYPE
    MENDER_DEVICE_TYPES_COMPATIBLE
    MENDER_IMAGE_BOOTLOADER_BOOTSECTOR_OFFSET
    MENDER_IMAGE_BOOTLOADER_FILE
    MENDER_INVENTORY_POLL_INTERVAL_SECONDS
    MENDER_PARTITIONING_OVERHEAD_KB
    MENDER_PARTITION_ALIGNMENT
    MENDER_RESERVED_SPACE_BOOTLOADER_DATA
    MENDER_RETRY_POLL_INTERVAL_SECONDS
    MENDER_ROOTFS_PART_A
    MENDER_ROOTFS_PART_A_NUMBER
    MENDER_ROOTFS_PART_B
    MENDER_ROOTFS_PART_B_NUMBER
    MENDER_SERVER_URL
    MENDER_STATE_SCRIPTS
    MENDER_STATE_SCRIPTS_DIR
    MENDER_STORAGE_DEVICE
    MENDER_STORAGE_DEVICE_BASE
    MENDER_STORAGE_PEB_SIZE
    MENDER_STORAGE_TOTAL_SIZE_MB
    MENDER_TENANT_TOKEN
    MENDER_UPDATE_POLL_INTERVAL_SECONDS
    """.split()
)

# The ones that only this layer has.
OWN = frozenset(
    """
    RUST_OTA_BOOTLOADER
    RUST_OTA_FW_ENV_CONFIG
    RUST_OTA_PARTITION_TABLE
    RUST_OTA_UBOOT_ENV
    """.split()
)

_BOOTLOADER = "RUST_OTA_BOOTLOADER and the boot logic of this layer take its place"
_NO_FLASH = "this layer lays out no raw flash"
_PARTITIONS = "this layer makes boot, two slots and data; write a wks file of your own for more"

# What meta-mender knows and this layer does nothing with: the pattern of a name, and what to do instead.
WITHOUT_EFFECT = (
    (r"MENDER_FEATURES(_ENABLE|_DISABLE)?", "set RUST_OTA_BOOTLOADER and IMAGE_FSTYPES"),
    (r"MENDER_(EXTRA_PARTS|SWAP_PART)(_.*)?", _PARTITIONS),
    (r"MENDER_UBOOT_.*|MENDER_SPL_OFFSET_KB|MENDER_EFI_LOADER|MENDER_MBR_BOOTLOADER_.*", _BOOTLOADER),
    (r"MENDER_(UBI|MTD|IS_ON_MTDID|FLASH|NAND|MAXIMUM_LEB|MOCK_SERVER).*", _NO_FLASH),
    (r"MENDER_DATA_PART_FSTYPE(_TO_GEN)?|MENDER_BOOT_PART_(FSTYPE(_TO_GEN)?|FSOPTS)",
     "the data partition is ext4, the boot partition FAT"),
    (r"MENDER_(BOOT|DATA)_PART_FSTAB_ENTRY", "fstab is made of the names and options of the partitions"),
    (r"MENDER_ROOTFS_PART_[AB]_NAME", "the partitions are named rootfs-a and rootfs-b"),
    (r"MENDER_(PERSISTENT_)?CONFIGURATION_VARS", "put a mender.conf into rust-ota-conf"),
    (r"MENDER_(DTB_NAME|KERNEL_IMAGETYPE)_FORCE", "say it in board.cmd or board.cfg"),
    (r"MENDER_CONNECT_.*", "it belongs to mender-connect, which has its own recipe"),
    (r"MENDER_STATE_SCRIPTS_VERSION", "it is always 3"),
    (r"MENDER_MACHINE|MENDER_DEMO_HOST_IP_ADDRESS|MENDER_CI_LOGLEVEL", "nothing here needs it"),
    (r"MENDER_ARTIFACT_CAPSULE_.*|MENDER_DEVICE_TIER|MENDER_DOCKER_DATA_ROOT|MENDER_UPDATE_CONTROL_MAP_.*",
     "put it into the mender.conf of rust-ota-conf if the client is to know it"),
    (r"MENDER_IMAGE_ROOTFS_(MAX)?SIZE", "set IMAGE_ROOTFS_SIZE"),
)

# What was renamed before this layer was written: an image would silently be laid out another way.
GONE = {
    "MENDER_PARTITION_ALIGNMENT_KB": "MENDER_PARTITION_ALIGNMENT, in bytes",
    "MENDER_PARTITION_ALIGNMENT_MB": "MENDER_PARTITION_ALIGNMENT, in bytes",
    "MENDER_STORAGE_RESERVED_RAW_SPACE": "MENDER_RESERVED_SPACE_BOOTLOADER_DATA",
    "MENDER_DATA_PART_DIR": "a recipe that installs into /data",
}


def nearest(name):
    """The known name that looks most like `name`, if one does."""
    close = difflib.get_close_matches(name, sorted(USED), n=1, cutoff=0.8)
    return close[0] if close else None


def _without_effect(name):
    for pattern, instead in WITHOUT_EFFECT:
        if re.fullmatch(pattern, name):
            return instead
    return None


def warnings(names):
    """What to say about the variables `names`, one sentence each."""
    said = []
    for name in sorted(set(names)):
        # Where meta-mender is present as well, what it sets itself is no mistake; the same name without its end is.
        base = name[: -len("_DEFAULT")] if name.endswith("_DEFAULT") else name
        if not re.fullmatch(r"MENDER_[A-Z0-9_]+", name) or base in USED:
            continue
        instead = GONE.get(base)
        if instead:
            said.append("%s is no longer read: use %s" % (name, instead))
            continue
        instead = _without_effect(base)
        if instead:
            said.append("%s has no effect in meta-rust-ota: %s" % (name, instead))
            continue
        close = nearest(base)
        hint = "did you mean %s?" % close if close else "no known name is like it"
        said.append("%s is not a variable of meta-rust-ota: %s" % (name, hint))
    return said

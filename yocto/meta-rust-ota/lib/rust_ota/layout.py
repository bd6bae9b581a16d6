"""How the disk is laid out. Sizes are as meta-mender computes them, so that an update fits a device that it partitioned."""

import math
import re

from rust_ota import VariableError

MIB = 1024 * 1024
SECTOR = 512
# Where the first partition may begin behind a partition table: a GPT takes 34 sectors, an MBR one.
FIRST_SECTOR = {"gpt": 34, "msdos": 1}
# What wic reserves on a disk of so many KiB; smaller alignments it refuses.
SMALLEST_ALIGNMENT = 1024


def _number(values, variable, smallest=0):
    text = (values.get(variable) or "").strip()
    if not re.fullmatch(r"[0-9]+", text):
        raise VariableError(variable, "%r is not a number" % text)
    if int(text) < smallest:
        raise VariableError(variable, "%s is too small, the smallest is %d" % (text, smallest))
    return int(text)


def partition_base(device):
    """/dev/sda as it is, /dev/mmcblk0 as /dev/mmcblk0p: Linux puts a p between two numbers."""
    return device + "p" if device[-1:].isdigit() else device


def slot_kib(values):
    """The size of one slot in KiB."""
    alignment = _number(values, "MENDER_PARTITION_ALIGNMENT", SMALLEST_ALIGNMENT)
    if alignment % 1024:
        raise VariableError("MENDER_PARTITION_ALIGNMENT", "%d is not a multiple of 1024 bytes" % alignment)
    total = _number(values, "MENDER_STORAGE_TOTAL_SIZE_MB", 1) * MIB
    boot = _number(values, "MENDER_BOOT_PART_SIZE_MB") * MIB
    data = _number(values, "MENDER_DATA_PART_SIZE_MB", 1) * MIB
    reserved = _number(values, "MENDER_RESERVED_SPACE_BOOTLOADER_DATA")
    overhead = _number(values, "MENDER_PARTITIONING_OVERHEAD_KB") * 1024
    taken = sum(math.ceil(size / alignment) * alignment for size in (boot, data)) + overhead + reserved
    slot = (total - taken) // 2 // alignment * alignment
    if slot <= 0:
        raise VariableError(
            "MENDER_STORAGE_TOTAL_SIZE_MB",
            "%d MiB leave no room for two slots: MENDER_BOOT_PART_SIZE_MB (%d), MENDER_DATA_PART_SIZE_MB (%d), "
            "alignment and reserved space take %d MiB"
            % (total // MIB, boot // MIB, data // MIB, math.ceil(taken / MIB)),
        )
    return slot // 1024


def check_image(image_bytes, values):
    """Whether an image of the root file system fits its slot."""
    slot = _number(values, "MENDER_CALC_ROOTFS_SIZE") * 1024
    if image_bytes > slot:
        raise VariableError(
            "MENDER_STORAGE_TOTAL_SIZE_MB",
            "the root file system has %d KiB and its slot %d KiB. If the storage of the device is larger, raise it; else "
            "take something out of the image, or lower IMAGE_OVERHEAD_FACTOR or IMAGE_ROOTFS_EXTRA_SPACE"
            % (math.ceil(image_bytes / 1024), slot // 1024),
        )


def kickstart(values):
    """The lines of the wks file. Every part is copied as it is: a label would change the bytes the artifact speaks of."""
    table = values.get("RUST_OTA_PARTITION_TABLE")
    if table not in FIRST_SECTOR:
        raise VariableError("RUST_OTA_PARTITION_TABLE", "%r is neither gpt nor msdos" % table)
    slot = slot_kib(values)
    align = _number(values, "MENDER_PARTITION_ALIGNMENT") // 1024
    boot_mib = _number(values, "MENDER_BOOT_PART_SIZE_MB")
    images = values["RUST_OTA_IMAGE_BASE"]
    numbers = [
        ("MENDER_ROOTFS_PART_A_NUMBER", 1 + bool(boot_mib)),
        ("MENDER_ROOTFS_PART_B_NUMBER", 2 + bool(boot_mib)),
        ("MENDER_DATA_PART_NUMBER", 3 + bool(boot_mib)),
    ]
    for variable, real in numbers:
        if _number(values, variable) != real:
            raise VariableError(
                variable, "is %s, and the partition is number %d on the disk of this layer" % (values[variable], real)
            )
    lines = []
    loader = values.get("MENDER_IMAGE_BOOTLOADER_FILE")
    if loader:
        sector = _number(values, "MENDER_IMAGE_BOOTLOADER_BOOTSECTOR_OFFSET")
        if sector < FIRST_SECTOR[table]:
            raise VariableError(
                "MENDER_IMAGE_BOOTLOADER_BOOTSECTOR_OFFSET",
                "sector %d lies in the partition table: with RUST_OTA_PARTITION_TABLE=%s the first free one is %d"
                % (sector, table, FIRST_SECTOR[table]),
            )
        if sector * SECTOR >= align * 1024 + _number(values, "MENDER_RESERVED_SPACE_BOOTLOADER_DATA"):
            raise VariableError(
                "MENDER_IMAGE_BOOTLOADER_BOOTSECTOR_OFFSET",
                "sector %d lies behind the begin of the first partition; MENDER_RESERVED_SPACE_BOOTLOADER_DATA makes room"
                % sector,
            )
        lines.append(
            'part --source rawcopy --sourceparams="file=%s" --no-table --offset %ds' % (loader, sector)
        )

    def part(image, name, kib, more):
        first = not any("--part-name" in line or "--fixed-size" in line for line in lines)
        reserved = math.ceil(_number(values, "MENDER_RESERVED_SPACE_BOOTLOADER_DATA") / 1024)
        place = "--offset %dK" % (math.ceil((align + reserved) / align) * align) if first and reserved else "--align %d" % align
        named = " --part-name %s" % name if table == "gpt" else ""
        lines.append(
            'part --source rawcopy --sourceparams="file=%s.%s" %s --fixed-size %dK%s%s'
            % (images, image, place, kib, named, more)
        )

    if boot_mib:
        kind = "--part-type C12A7328-F81F-11D2-BA4B-00A0C93EC93B" if table == "gpt" else "--system-id 0x0c"
        part("bootimg", "boot", boot_mib * 1024, " --fstype vfat %s --active" % kind)
    root = values["RUST_OTA_ROOTFS_TYPE"]
    for name in "rootfs-a", "rootfs-b":
        part(root, name, slot, " --fstype ext4")
    part("dataimg", "data", _number(values, "MENDER_DATA_PART_SIZE_MB", 1) * 1024, " --fstype ext4")
    lines.append("bootloader --ptable %s" % table)
    return "\n".join(lines) + "\n"


def fstab(values):
    """The lines of fstab for the boot and the data partition."""
    lines = []

    def line(device, place, options, check):
        lines.append("%-24s %-16s %-8s %-24s 0 %d" % (device, place, "auto", options, check))

    if _number(values, "MENDER_BOOT_PART_SIZE_MB"):
        line(values["MENDER_BOOT_PART"], values["MENDER_BOOT_PART_MOUNT_LOCATION"],
             values["MENDER_BOOT_PART_FSTAB_OPTS"], 2)
    line(values["MENDER_DATA_PART"], "/data", values["MENDER_DATA_PART_FSTAB_OPTS"], 2)
    return "\n".join(lines) + "\n"

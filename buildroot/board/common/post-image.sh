#!/bin/sh
# Makes what is delivered, beside the root file system: DEVICE-NAME.mender, an update artifact, and disk.img, a disk with the
# boot partition, the root file system in both slots, and the data partition.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/settings.sh"
"$here/../../support/check-config" "$BR2_CONFIG"

boot=$HOST_DIR/share/rust-ota/boot
root=$BINARIES_DIR/rootfs.ext4
work=$BUILD_DIR/rust-ota-image
name=$(value BR2_RUST_OTA_ARTIFACT_NAME)
device=$(value BR2_RUST_OTA_DEVICE_TYPE)
settings=$(value BR2_RUST_OTA_BOARD_SETTINGS)
PATH=$HOST_DIR/bin:$HOST_DIR/sbin:$PATH

size=$(stat -L -c %s "$root")
slot=$(value BR2_RUST_OTA_SLOT_SIZE_MIB)
if [ "$size" -gt $((slot * 1024 * 1024)) ]; then
    echo "rust-ota: BR2_RUST_OTA_SLOT_SIZE_MIB=$slot is less than the root file system with its $size bytes" >&2
    exit 1
fi

rm -rf "$work"
mkdir -p "$work/data/mender" "$work/boot"

# ---- The artifacts ----

set --
if is_on BR2_RUST_OTA_SIGN; then
    set -- -k "$(value BR2_RUST_OTA_SIGNING_KEY)"
fi
artifact=$BINARIES_DIR/$device-$name.mender
rust-ota-artifact write rootfs-image -n "$name" -t "$device" -f "$root" \
    --compression "$(value BR2_RUST_OTA_COMPRESSION)" -o "$artifact" "$@"

# So that the first start knows what is installed: an update for what provides this then fits.
checksum=$(sha256sum "$root" | cut -d ' ' -f 1)
rust-ota-artifact write bootstrap-artifact -n "$name" -t "$device" --provides "rootfs-image.version:$name" \
    --provides "rootfs-image.checksum:$checksum" --clears-provides 'rootfs-image.*' \
    -o "$work/data/mender/bootstrap.mender" "$@"
if is_on BR2_RUST_OTA_SIGN; then
    # A key that does not belong to that of the image would make a device that refuses every update.
    for made in "$artifact" "$work/data/mender/bootstrap.mender"; do
        if ! rust-ota-artifact validate -k "$(value BR2_RUST_OTA_VERIFY_KEY)" "$made"; then
            rm -f "$artifact"
            echo "rust-ota: BR2_RUST_OTA_VERIFY_KEY is not the public key of BR2_RUST_OTA_SIGNING_KEY" >&2
            exit 1
        fi
    done
fi

# ---- The data partition ----

echo "device_type=$device" >"$work/data/mender/device_type"
mke2fs -q -F -t ext4 -L data -E root_owner=0:0 -d "$work/data" "$work/data.ext4" "$(value BR2_RUST_OTA_DATA_SIZE_MIB)M"

# ---- The boot partition ----

if is_on BR2_PACKAGE_RUST_OTA_UBOOT; then
    cat "$settings" "$boot/u-boot/boot.cmd" >"$work/all.cmd"
    mkimage -A "$(value BR2_RUST_OTA_UBOOT_ARCH)" -T script -C none -n rust-ota -d "$work/all.cmd" \
        "$work/boot/boot.scr" >/dev/null
    mkenvimage -s 0x200 -o "$work/boot/uboot.env" "$boot/u-boot/state.env"
else
    # GRUB itself is where Buildroot's package puts it.
    if [ ! -d "$BINARIES_DIR/efi-part/EFI/BOOT" ]; then
        echo "rust-ota: there is no $BINARIES_DIR/efi-part/EFI/BOOT: BR2_PACKAGE_RUST_OTA_GRUB needs BR2_TARGET_GRUB2 for EFI" >&2
        exit 1
    fi
    cp -R "$BINARIES_DIR/efi-part/EFI" "$work/boot/EFI"
    cp "$boot/grub/grub.cfg" "$work/boot/EFI/BOOT/grub.cfg"
    cp "$settings" "$work/boot/EFI/BOOT/board.cfg"
    "$boot/grub/make-environment" "$work/boot/grub-mender-grubenv" 2
fi
# One sector per cluster: each write of the boot logic is then one of a sector.
truncate -s "$(value BR2_RUST_OTA_BOOT_SIZE_MIB)M" "$work/boot.vfat"
mkfs.vfat -s 1 -n BOOT "$work/boot.vfat" >/dev/null
mcopy -s -i "$work/boot.vfat" "$work/boot/"* ::

# ---- The disk ----

cp -L "$root" "$work/rootfs.ext4"
truncate -s "${slot}M" "$work/rootfs.ext4"
sed -e "s/@SLOT@/$slot/" "$here/genimage.cfg.in" >"$work/genimage.cfg"
mkdir "$work/empty"
genimage --rootpath "$work/empty" --tmppath "$work/tmp" --inputpath "$work" --outputpath "$BINARIES_DIR" \
    --config "$work/genimage.cfg"
rm -rf "$work"
echo "rust-ota: $artifact, $BINARIES_DIR/disk.img"

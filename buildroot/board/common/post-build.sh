#!/bin/sh
# Makes the root file system one of a device with two slots: configuration of the client, mount points, /etc/fstab. The
# root file system stays read-only; what outlives an update is on the data partition.
set -eu

target=$1
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/settings.sh"
"$here/../../support/check-config" "$BR2_CONFIG"

mkdir -p "$target/etc/mender" "$target/data" "$target$(boot_folder)"

# Members of the JSON object.
members="\"RootfsPartA\": \"$(partition 2)\",
  \"RootfsPartB\": \"$(partition 3)\""
if [ -n "$(value BR2_RUST_OTA_SERVER_URL)" ]; then
    members="$members,
  \"ServerURL\": \"$(value BR2_RUST_OTA_SERVER_URL)\""
else
    # A daemon without a server has nothing to do.
    rm -f "$target/etc/init.d/S90rust-ota"
fi
if is_on BR2_PACKAGE_RUST_OTA_UBOOT; then
    bootloader=uboot
    # The file of the script's own environment, one sector (boot/u-boot/README.md).
    echo "/boot/uboot/uboot.env 0x0 0x200" >"$target/etc/fw_env.config"
else
    bootloader=grub
fi
if is_on BR2_RUST_OTA_SIGN; then
    members="$members,
  \"ArtifactVerifyKey\": \"/etc/mender/artifact-verify-key.pem\""
    cp "$(value BR2_RUST_OTA_VERIFY_KEY)" "$target/etc/mender/artifact-verify-key.pem"
    rota="\"Bootloader\": \"$bootloader\""
else
    rota="\"Bootloader\": \"$bootloader\", \"DangerAcceptUnsigned\": true"
fi
cat >"$target/etc/mender/mender.conf" <<END
{
  $members,
  "RustOta": {$rota}
}
END
echo "artifact_name=$(value BR2_RUST_OTA_ARTIFACT_NAME)" >"$target/etc/mender/artifact_info"

# A board's own folder there would be lost under the link.
if [ -d "$target/var/lib/mender" ] && [ ! -L "$target/var/lib/mender" ]; then
    rmdir "$target/var/lib/mender"
fi
mkdir -p "$target/var/lib"
ln -sfn /data/mender "$target/var/lib/mender"

# This script runs again at each build.
fstab=$target/etc/fstab
touch "$fstab"
sed -i '/# rust-ota$/d' "$fstab"
cat >>"$fstab" <<END
$(partition 1) $(boot_folder) vfat defaults,sync 0 0 # rust-ota
$(partition 4) /data ext4 defaults 0 2 # rust-ota
END

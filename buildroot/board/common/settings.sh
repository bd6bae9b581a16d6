# Sourced by post-build.sh and post-image.sh: reads Buildroot's configuration.
# shellcheck shell=sh

: "${BR2_CONFIG:?is set by Buildroot}"

is_on() {
    grep -q "^$1=y$" "$BR2_CONFIG"
}

# The value without its quotes, with the path of this external tree; empty when it is not set.
value() {
    sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" "$BR2_CONFIG" |
        sed "s,\$(BR2_EXTERNAL_RUST_OTA_PATH),${BR2_EXTERNAL_RUST_OTA_PATH-},"
}

# Partition number $1 of the device's disk, as Linux names it.
partition() {
    disk=$(value BR2_RUST_OTA_DISK)
    case $disk in
    *[0-9]) echo "${disk}p$1" ;;
    *) echo "$disk$1" ;;
    esac
}

# Where Linux mounts the boot partition.
boot_folder() {
    if is_on BR2_PACKAGE_RUST_OTA_UBOOT; then echo /boot/uboot; else echo /boot/efi; fi
}

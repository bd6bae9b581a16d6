# Updates for every image of a build: INHERIT += "rust-ota" in local.conf or in the distribution.
#
# By itself the layer changes nothing. This class sets the variables, adds the artifact (`mender`) to what images are made
# into, chooses the boot logic, and warns of variables that nobody reads.

require conf/rust-ota-variables.inc

IMAGE_CLASSES += "rust-ota-image"
IMAGE_FSTYPES += "mender"

OVERRIDES .= "${@{'u-boot': ':rust-ota-uboot', 'grub': ':rust-ota-grub'}.get(d.getVar('RUST_OTA_BOOTLOADER'), '')}"

# What grub.cfg calls and a plain grub-efi does not have.
GRUB_BUILDIN:append:rust-ota-grub = " regexp probe echo sleep reboot true terminal"

addhandler rust_ota_warn_of_variables
rust_ota_warn_of_variables[eventmask] = "bb.event.ParseCompleted"
python rust_ota_warn_of_variables() {
    names = {key.split(":")[0] for key in e.data.keys() if key.startswith("MENDER_")}
    for sentence in rust_ota.variables.warnings(names):
        bb.warn(sentence)
    bootloader = e.data.getVar("RUST_OTA_BOOTLOADER")
    if bootloader not in ("", "u-boot", "grub"):
        bb.warn("RUST_OTA_BOOTLOADER: %r is neither u-boot nor grub: no boot logic is built" % bootloader)
}

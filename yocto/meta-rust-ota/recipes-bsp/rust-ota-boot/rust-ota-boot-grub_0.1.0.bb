SUMMARY = "Boot logic of rust-ota for GRUB"
DESCRIPTION = "The configuration that GRUB runs, the settings of the board, and the first boot environment in two copies."
SECTION = "bootloaders"

require conf/rust-ota-variables.inc
require recipes-core/rust-ota/rust-ota-source.inc
RUST_OTA_PARTS = "LICENSE boot"

# A board replaces board.cfg by a file of its own in files/MACHINE, or by a bbappend.
SRC_URI += "file://board.cfg"

inherit deploy nopackages

PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"
B = "${WORKDIR}/build"

RUST_OTA_SETTINGS = ""

python () {
    try:
        d.setVar("RUST_OTA_SETTINGS", rust_ota.device.boot_settings(rust_ota_values(d), "grub"))
    except rust_ota.VariableError as error:
        raise bb.parse.SkipRecipe(str(error))
}

do_compile[dirs] = "${B}"
do_compile[cleandirs] = "${B}"
do_compile() {
    printf '%s' "${RUST_OTA_SETTINGS}" > board.cfg
    cat ${UNPACKDIR}/board.cfg >> board.cfg
    sh ${S}/boot/grub/make-environment grub-mender-grubenv ${MENDER_ROOTFS_PART_A_NUMBER}
}

do_configure[noexec] = "1"
do_install[noexec] = "1"

do_deploy() {
    install -d ${DEPLOYDIR}/rust-ota-grub
    install -m 0644 ${S}/boot/grub/grub.cfg ${B}/board.cfg ${DEPLOYDIR}/rust-ota-grub
    cp -r ${B}/grub-mender-grubenv ${DEPLOYDIR}/rust-ota-grub
}
addtask deploy after do_compile before do_build

CVE_PRODUCT = "rust-ota"

SUMMARY = "Boot logic of rust-ota for U-Boot"
DESCRIPTION = "A script that U-Boot runs, the first boot environment, and fw_env.config for Linux. U-Boot is not patched."
SECTION = "bootloaders"

DEPENDS = "dtc-native u-boot-tools-native"

require conf/rust-ota-variables.inc
require recipes-core/rust-ota/rust-ota-source.inc
RUST_OTA_PARTS = "LICENSE boot"

# A board replaces board.cmd by a file of its own in files/MACHINE, or by a bbappend.
SRC_URI += "file://board.cmd"

inherit deploy kernel-arch

PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"
B = "${WORKDIR}/build"

# What the recipe of U-Boot deploys as the environment that is compiled in; only for "native".
RUST_OTA_UBOOT_INITIAL_ENV ?= "u-boot-initial-env-${MACHINE}"

RUST_OTA_SETTINGS = ""
RUST_OTA_FW_ENV = ""
RUST_OTA_ENV_SIZE = ""
RUST_OTA_MKENVIMAGE = ""

python () {
    try:
        values = rust_ota_values(d)
        text, size, options = rust_ota.device.environment(values)
        settings = "rota_env=%s\n" % values["RUST_OTA_UBOOT_ENV"] + rust_ota.device.boot_settings(values, "u-boot")
    except rust_ota.VariableError as error:
        raise bb.parse.SkipRecipe(str(error))
    d.setVar("RUST_OTA_SETTINGS", settings)
    d.setVar("RUST_OTA_FW_ENV", text)
    d.setVar("RUST_OTA_ENV_SIZE", str(size))
    d.setVar("RUST_OTA_MKENVIMAGE", " ".join(options))
    # What U-Boot itself would start with is the first part of its environment when it keeps it.
    if values["RUST_OTA_UBOOT_ENV"] == "native":
        d.appendVarFlag("do_compile", "depends", " virtual/bootloader:do_deploy")
}

do_compile[dirs] = "${B}"
do_compile() {
    printf '%s' "${RUST_OTA_SETTINGS}" > settings.cmd
    cat settings.cmd ${UNPACKDIR}/board.cmd ${S}/boot/u-boot/boot.cmd > all.cmd
    uboot-mkimage -A ${UBOOT_ARCH} -T script -C none -n rust-ota -d all.cmd boot.scr

    sed -e 's/^mender_boot_part=.*/mender_boot_part=${MENDER_ROOTFS_PART_A_NUMBER}/' \
        -e "s/^mender_boot_part_hex=.*/mender_boot_part_hex=$(printf %x ${MENDER_ROOTFS_PART_A_NUMBER})/" \
        ${S}/boot/u-boot/state.env > state.env
    if [ "${RUST_OTA_UBOOT_ENV}" = native ]; then
        if [ ! -e "${DEPLOY_DIR_IMAGE}/${RUST_OTA_UBOOT_INITIAL_ENV}" ]; then
            bbfatal "RUST_OTA_UBOOT_INITIAL_ENV: there is no ${RUST_OTA_UBOOT_INITIAL_ENV} in ${DEPLOY_DIR_IMAGE}"
        fi
        cat "${DEPLOY_DIR_IMAGE}/${RUST_OTA_UBOOT_INITIAL_ENV}" state.env > env.txt
    else
        cp state.env env.txt
    fi
    uboot-mkenvimage ${RUST_OTA_MKENVIMAGE} -s ${RUST_OTA_ENV_SIZE} -o uboot.env env.txt
    printf '%s' "${RUST_OTA_FW_ENV}" > fw_env.config
}

do_install() {
    install -d ${D}${sysconfdir}
    install -m 0644 ${B}/fw_env.config ${D}${sysconfdir}/fw_env.config
}

do_deploy() {
    install -m 0644 ${B}/boot.scr ${B}/uboot.env ${DEPLOYDIR}
}
addtask deploy after do_install before do_build

do_configure[noexec] = "1"

RPROVIDES:${PN} += "u-boot-default-env"
# The package of a board's U-Boot that has the same file.
RCONFLICTS:${PN} += "u-boot-env"

CVE_PRODUCT = "rust-ota"

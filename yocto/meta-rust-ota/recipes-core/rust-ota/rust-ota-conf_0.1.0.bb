SUMMARY = "What a device tells its update client: configuration, device type, key, identity"
DESCRIPTION = "mender.conf of the MENDER_ variables, device type, key and identity program: the package that a board replaces."
SECTION = "admin"

require conf/rust-ota-variables.inc
require rust-ota-source.inc
RUST_OTA_PARTS = "LICENSE daemon/support"

# The keys of a board's own mender.conf win over those of the variables.
RUST_OTA_BOARD_CONF ?= ""
SRC_URI += "\
    ${@'file://' + d.getVar('RUST_OTA_BOARD_CONF') if d.getVar('RUST_OTA_BOARD_CONF') else ''} \
    ${@'file://' + d.getVar('MENDER_ARTIFACT_VERIFY_KEY') if d.getVar('MENDER_ARTIFACT_VERIFY_KEY') else ''} \
"

PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"

RUST_OTA_CONFIGURATION = ""
RUST_OTA_DEVICE_TYPE_FILE = ""

python () {
    import json
    try:
        key = d.getVar("MENDER_ARTIFACT_VERIFY_KEY")
        if key and not os.path.isabs(key):
            raise rust_ota.VariableError("MENDER_ARTIFACT_VERIFY_KEY", "%s is not an absolute path" % key)
        if key and not os.path.isfile(key):
            raise rust_ota.VariableError("MENDER_ARTIFACT_VERIFY_KEY", "there is no file %s" % key)
        values = {name: d.getVar(name) for name in rust_ota.device.CONFIGURES}
        # Only to be checked: the board's own keys are merged when its file is there.
        rust_ota.device.configuration(values)
        d.setVar("RUST_OTA_CONFIGURATION", json.dumps(values))
        d.setVar("RUST_OTA_DEVICE_TYPE_FILE", rust_ota.device.device_type(d.getVar("MENDER_DEVICE_TYPE")))
    except rust_ota.VariableError as error:
        raise bb.parse.SkipRecipe(str(error))
}

python do_compile() {
    import json
    own = None
    board = d.getVar("RUST_OTA_BOARD_CONF")
    if board:
        with open(os.path.join(d.getVar("UNPACKDIR"), board.lstrip("/")), encoding="utf-8") as file:
            own = file.read()
    try:
        text = rust_ota.device.configuration(json.loads(d.getVar("RUST_OTA_CONFIGURATION")), own)
    except rust_ota.VariableError as error:
        bb.fatal(str(error))
    for name, content in ("mender.conf", text), ("device_type", d.getVar("RUST_OTA_DEVICE_TYPE_FILE")):
        with open(os.path.join(d.getVar("B"), name), "w", encoding="utf-8") as file:
            file.write(content)
}

do_configure[noexec] = "1"
do_compile[dirs] = "${B}"
B = "${WORKDIR}/build"

do_install() {
    install -d ${D}${sysconfdir}/mender ${D}${datadir}/mender/identity ${D}/data/mender ${D}${localstatedir}/lib
    # It may hold a token.
    install -m 0600 ${B}/mender.conf ${D}${sysconfdir}/mender/mender.conf
    install -m 0755 ${S}/daemon/support/mender-device-identity ${D}${datadir}/mender/identity
    if [ -n "${MENDER_ARTIFACT_VERIFY_KEY}" ]; then
        install -m 0644 ${UNPACKDIR}${MENDER_ARTIFACT_VERIFY_KEY} ${D}${sysconfdir}/mender/artifact-verify-key.pem
    fi
    # On the data partition, which both slots share.
    chmod 0700 ${D}/data/mender
    install -m 0444 ${B}/device_type ${D}/data/mender/device_type
    ln -s /data/mender ${D}${localstatedir}/lib/mender
}

FILES:${PN} += "${datadir}/mender /data"
CONFFILES:${PN} = "${sysconfdir}/mender/mender.conf"

# The client itself speaks to both bootloaders. What lies beside it for one of them, and tools for people.
RDEPENDS:${PN} += "${@'rust-ota-boot-uboot' if d.getVar('RUST_OTA_BOOTLOADER') == 'u-boot' else ''}"
RRECOMMENDS:${PN} += "${@{'u-boot': 'libubootenv-bin', 'grub': 'grub-editenv'}.get(d.getVar('RUST_OTA_BOOTLOADER'), '')}"

CVE_PRODUCT = "rust-ota"

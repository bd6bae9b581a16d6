SUMMARY = "Over-the-air updates of a device with two root file systems"
DESCRIPTION = "Command line and daemon in one program: signed artifacts, one trial, a way back. A drop-in for the Mender client."
SECTION = "admin"

inherit rust-ota-cargo systemd update-rc.d

SRC_URI += "\
    file://rust-ota.init \
    file://rust-ota-keep-running \
"

RUST_OTA_SMALL = "1"
CARGO_BUILD_FLAGS:append = " --no-default-features"

PACKAGECONFIG ??= "gzip xz zstd rsa-ecdsa"
PACKAGECONFIG[gzip] = "--features gzip"
PACKAGECONFIG[xz] = "--features xz"
PACKAGECONFIG[zstd] = "--features zstd,,zstd"
PACKAGECONFIG[rsa-ecdsa] = "--features rsa-ecdsa"
PACKAGECONFIG[dbus] = "--features dbus,,,dbus"

SYSTEMD_SERVICE:${PN} = "rust-ota.service"
SYSTEMD_AUTO_ENABLE ??= "enable"
INITSCRIPT_NAME = "rust-ota"
INITSCRIPT_PARAMS = "defaults 95 5"

do_install:append() {
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -d ${D}${systemd_system_unitdir}
        install -m 0644 ${S}/daemon/rust-ota.service ${S}/daemon/rust-ota-failed.service ${D}${systemd_system_unitdir}
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -d ${D}${sysconfdir}/init.d ${D}${libexecdir}
        install -m 0755 ${UNPACKDIR}/rust-ota.init ${D}${sysconfdir}/init.d/rust-ota
        install -m 0755 ${UNPACKDIR}/rust-ota-keep-running ${D}${libexecdir}
        sed -i -e 's,@libexecdir@,${libexecdir},g' ${D}${sysconfdir}/init.d/rust-ota
    fi
    if ${@bb.utils.contains('PACKAGECONFIG', 'dbus', 'true', 'false', d)}; then
        install -d ${D}${datadir}/dbus-1/system.d
        install -m 0644 ${S}/daemon/dbus/*.conf ${D}${datadir}/dbus-1/system.d
    fi
}

FILES:${PN} += "${systemd_system_unitdir} ${datadir}/dbus-1"

RDEPENDS:${PN} += "rust-ota-conf"
RRECOMMENDS:${PN} += "ca-certificates"
# Two clients would write to the same slot.
RCONFLICTS:${PN} += "mender-client mender-update mender-auth"

CVE_PRODUCT = "rust-ota"

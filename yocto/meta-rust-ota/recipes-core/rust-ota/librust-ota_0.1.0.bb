SUMMARY = "The update client as a C library"
DESCRIPTION = "For firmware that brings its own transport or its own daemon: installs, commits and rolls back as rust-ota does."
SECTION = "libs"

# Not the class cargo_c: its cargo-c-native takes long to build, and it makes no static library.
inherit rust-ota-cargo

SRC_URI += "file://rust_ota.pc.in"

RUST_OTA_PACKAGE = "rust-ota-ffi"
RUST_OTA_SMALL = "1"
CARGO_BUILD_FLAGS:append = " --no-default-features"

PACKAGECONFIG ??= "gzip xz zstd rsa-ecdsa"
PACKAGECONFIG[gzip] = "--features gzip"
PACKAGECONFIG[xz] = "--features xz"
PACKAGECONFIG[zstd] = "--features zstd,,zstd"
PACKAGECONFIG[rsa-ecdsa] = "--features rsa-ecdsa"

# The name that crates/ffi/build.rs gives the library.
RUST_OTA_SONAME = "librust_ota.so.0"

do_install() {
    install -d ${D}${libdir}/pkgconfig ${D}${includedir}
    built=${B}/target/${CARGO_TARGET_SUBDIR}
    install -m 0755 "$built/librust_ota.so" ${D}${libdir}/librust_ota.so.${PV}
    ln -s librust_ota.so.${PV} ${D}${libdir}/${RUST_OTA_SONAME}
    ln -s ${RUST_OTA_SONAME} ${D}${libdir}/librust_ota.so
    install -m 0644 "$built/librust_ota.a" ${D}${libdir}
    install -m 0644 ${S}/crates/ffi/include/rust_ota.h ${D}${includedir}
    sed -e 's,@prefix@,${prefix},' -e 's,@libdir@,${libdir},' -e 's,@includedir@,${includedir},' -e 's,@version@,${PV},' \
        ${UNPACKDIR}/rust_ota.pc.in > ${D}${libdir}/pkgconfig/rust_ota.pc
}

CVE_PRODUCT = "rust-ota"

# Options that boot.cmd needs, and nothing else: no patch. Only where this layer's boot logic was chosen.
FILESEXTRAPATHS:prepend:rust-ota-uboot := "${THISDIR}/files:"

SRC_URI:append:rust-ota-uboot = " file://rust-ota.cfg file://rust-ota-${RUST_OTA_UBOOT_ENV}.cfg"

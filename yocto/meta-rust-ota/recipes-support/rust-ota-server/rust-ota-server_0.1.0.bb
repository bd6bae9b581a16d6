SUMMARY = "An update server in one process"
DESCRIPTION = "Serves devices and answers the management API of a Mender-compatible server; also asks one."
SECTION = "net"

inherit rust-ota-cargo

DEPENDS += "zstd"

CVE_PRODUCT = "rust-ota"

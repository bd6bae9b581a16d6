SUMMARY = "Writes, reads, checks and signs update artifacts"
DESCRIPTION = "The host tool of rust-ota: makes artifacts of format 3 of an image, a file, a directory or a script."
SECTION = "devel"

inherit rust-ota-cargo

DEPENDS += "zstd"

CVE_PRODUCT = "rust-ota"

BBCLASSEXTEND = "native nativesdk"

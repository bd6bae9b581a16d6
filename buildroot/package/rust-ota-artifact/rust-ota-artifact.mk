################################################################################
#
# rust-ota-artifact
#
################################################################################

RUST_OTA_ARTIFACT_VERSION = $(RUST_OTA_VERSION)
RUST_OTA_ARTIFACT_SITE = $(RUST_OTA_SITE)
RUST_OTA_ARTIFACT_SITE_METHOD = $(RUST_OTA_SITE_METHOD)
RUST_OTA_ARTIFACT_SOURCE = $(RUST_OTA_SOURCE)
RUST_OTA_ARTIFACT_DL_SUBDIR = rust-ota
RUST_OTA_ARTIFACT_LICENSE = Apache-2.0
RUST_OTA_ARTIFACT_LICENSE_FILES = LICENSE
HOST_RUST_OTA_ARTIFACT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = $(RUST_OTA_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS)
HOST_RUST_OTA_ARTIFACT_PRE_CONFIGURE_HOOKS += RUST_OTA_VENDOR

define HOST_RUST_OTA_ARTIFACT_BUILD_CMDS
	cd $(@D) && \
	$(HOST_MAKE_ENV) \
		$(HOST_CONFIGURE_OPTS) \
		$(HOST_PKG_CARGO_ENV) \
		cargo build --offline --locked --release --package rust-ota-artifact
endef

# The scripts of the bootloaders go into images, not into root file systems.
define HOST_RUST_OTA_ARTIFACT_INSTALL_CMDS
	$(INSTALL) -D -m 0755 $(@D)/target/release/rust-ota-artifact \
		$(HOST_DIR)/bin/rust-ota-artifact
	mkdir -p $(HOST_DIR)/share/rust-ota
	rm -rf $(HOST_DIR)/share/rust-ota/boot
	cp -R $(@D)/boot $(HOST_DIR)/share/rust-ota/boot
endef

$(eval $(host-cargo-package))

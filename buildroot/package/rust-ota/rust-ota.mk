################################################################################
#
# rust-ota
#
################################################################################

# Version, site and source are in external.mk.
RUST_OTA_LICENSE = Apache-2.0
RUST_OTA_LICENSE_FILES = LICENSE
RUST_OTA_PRE_CONFIGURE_HOOKS += RUST_OTA_VENDOR

RUST_OTA_FEATURES = doctor \
	$(if $(BR2_PACKAGE_RUST_OTA_GZIP),gzip) \
	$(if $(BR2_PACKAGE_RUST_OTA_XZ),xz) \
	$(if $(BR2_PACKAGE_RUST_OTA_ZSTD),zstd) \
	$(if $(BR2_PACKAGE_RUST_OTA_RSA_ECDSA),rsa-ecdsa) \
	$(if $(BR2_PACKAGE_RUST_OTA_DBUS),dbus)

define RUST_OTA_BUILD_CMDS
	cd $(@D) && \
	$(TARGET_MAKE_ENV) \
		$(TARGET_CONFIGURE_OPTS) \
		$(PKG_CARGO_ENV) \
		$(RUST_OTA_PROFILE_ENV) \
		cargo build $(RUST_OTA_BUILD_OPTS) --package rust-ota \
			--no-default-features --features "$(strip $(RUST_OTA_FEATURES))"
endef

define RUST_OTA_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(RUST_OTA_BUILT)/rust-ota \
		$(TARGET_DIR)/usr/bin/rust-ota
	$(INSTALL) -D -m 0755 $(@D)/daemon/support/mender-device-identity \
		$(TARGET_DIR)/usr/share/mender/identity/mender-device-identity
	mkdir -p $(TARGET_DIR)/usr/share/mender/inventory \
		$(TARGET_DIR)/etc/mender/scripts
	printf 3 > $(TARGET_DIR)/etc/mender/scripts/version
endef

ifeq ($(BR2_PACKAGE_RUST_OTA_DBUS),y)
define RUST_OTA_INSTALL_DBUS
	$(foreach f,$(wildcard $(@D)/daemon/dbus/*.conf), \
		$(INSTALL) -D -m 0644 $(f) \
			$(TARGET_DIR)/usr/share/dbus-1/system.d/$(notdir $(f))
	)
endef
RUST_OTA_POST_INSTALL_TARGET_HOOKS += RUST_OTA_INSTALL_DBUS
endif

define RUST_OTA_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/daemon/rust-ota.service \
		$(TARGET_DIR)/usr/lib/systemd/system/rust-ota.service
	$(INSTALL) -D -m 0644 $(@D)/daemon/rust-ota-failed.service \
		$(TARGET_DIR)/usr/lib/systemd/system/rust-ota-failed.service
endef

define RUST_OTA_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/daemon/init/supervise \
		$(TARGET_DIR)/usr/libexec/rust-ota/supervise
	$(INSTALL) -D -m 0755 $(@D)/daemon/init/rust-ota.sysv \
		$(TARGET_DIR)/etc/init.d/S90rust-ota
endef

define RUST_OTA_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/daemon/init/supervise \
		$(TARGET_DIR)/usr/libexec/rust-ota/supervise
	$(INSTALL) -D -m 0755 $(@D)/daemon/init/rust-ota.openrc \
		$(TARGET_DIR)/etc/init.d/rust-ota
endef

$(eval $(cargo-package))

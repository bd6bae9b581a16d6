################################################################################
#
# librust-ota
#
################################################################################

LIBRUST_OTA_VERSION = $(RUST_OTA_VERSION)
LIBRUST_OTA_SITE = $(RUST_OTA_SITE)
LIBRUST_OTA_SITE_METHOD = $(RUST_OTA_SITE_METHOD)
LIBRUST_OTA_SOURCE = $(RUST_OTA_SOURCE)
LIBRUST_OTA_DL_SUBDIR = rust-ota
LIBRUST_OTA_LICENSE = Apache-2.0
LIBRUST_OTA_LICENSE_FILES = LICENSE
LIBRUST_OTA_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = $(RUST_OTA_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS)
LIBRUST_OTA_PRE_CONFIGURE_HOOKS += RUST_OTA_VENDOR
LIBRUST_OTA_INSTALL_STAGING = YES
LIBRUST_OTA_SONAME = librust_ota.so.0

# Buildroot has no cargo-c: what it would make is made here.
define LIBRUST_OTA_BUILD_CMDS
	cd $(@D) && \
	$(TARGET_MAKE_ENV) \
		$(TARGET_CONFIGURE_OPTS) \
		$(PKG_CARGO_ENV) \
		$(RUST_OTA_PROFILE_ENV) \
		cargo rustc $(RUST_OTA_BUILD_OPTS) --package rust-ota-ffi --lib \
			--crate-type cdylib -- \
			-C link-arg=-Wl,-soname,$(LIBRUST_OTA_SONAME)
	printf '%s\n' \
		'prefix=/usr' \
		'libdir=$${prefix}/lib' \
		'includedir=$${prefix}/include' \
		'Name: rust_ota' \
		'Description: Over-the-air updates' \
		'Version: $(LIBRUST_OTA_VERSION)' \
		'Libs: -L$${libdir} -lrust_ota' \
		'Cflags: -I$${includedir}' > $(@D)/rust_ota.pc
endef

define LIBRUST_OTA_INSTALL_LIBRARY
	$(INSTALL) -D -m 0755 $(@D)/$(RUST_OTA_BUILT)/librust_ota.so \
		$(1)/usr/lib/librust_ota.so.$(LIBRUST_OTA_VERSION)
	ln -sf librust_ota.so.$(LIBRUST_OTA_VERSION) $(1)/usr/lib/$(LIBRUST_OTA_SONAME)
	ln -sf $(LIBRUST_OTA_SONAME) $(1)/usr/lib/librust_ota.so
endef

define LIBRUST_OTA_INSTALL_STAGING_CMDS
	$(call LIBRUST_OTA_INSTALL_LIBRARY,$(STAGING_DIR))
	$(INSTALL) -D -m 0644 $(@D)/crates/ffi/include/rust_ota.h \
		$(STAGING_DIR)/usr/include/rust_ota.h
	$(INSTALL) -D -m 0644 $(@D)/rust_ota.pc \
		$(STAGING_DIR)/usr/lib/pkgconfig/rust_ota.pc
endef

define LIBRUST_OTA_INSTALL_TARGET_CMDS
	$(call LIBRUST_OTA_INSTALL_LIBRARY,$(TARGET_DIR))
endef

$(eval $(cargo-package))

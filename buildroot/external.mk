################################################################################
#
# rust-ota: what its packages have in common
#
################################################################################

RUST_OTA_VERSION = 0.1.0
RUST_OTA_TARBALL_SITE = $(call qstrip,$(BR2_RUST_OTA_SITE))

ifeq ($(RUST_OTA_TARBALL_SITE),)
RUST_OTA_SITE = $(BR2_EXTERNAL_RUST_OTA_PATH)/..
RUST_OTA_SITE_METHOD = local
else
RUST_OTA_SITE = $(RUST_OTA_TARBALL_SITE)
endif
RUST_OTA_SOURCE = rust-ota-$(RUST_OTA_VERSION).tar.xz

# What a checkout holds beside the source.
RUST_OTA_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude=/target --exclude=/fuzz/target

# Neither a local source nor an override is vendored by Buildroot. The tarball is already.
define RUST_OTA_VENDOR
	cd $(@D) && test -d VENDOR || { \
		mkdir -p .cargo $(BR_CARGO_HOME) && \
		$(HOST_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) \
		flock $(BR_CARGO_HOME)/.br-lock \
		cargo vendor --locked VENDOR > $(@D)/vendor.toml && \
		cat $(@D)/vendor.toml >> .cargo/config.toml; \
	}
endef

# Not --release, whose optimisation Buildroot sets: this profile is small, and fast where it counts. Buildroot strips.
RUST_OTA_PROFILE_ENV = \
	CARGO_PROFILE_RELEASE_LTO=fat \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
	CARGO_PROFILE_DIST_STRIP=false
RUST_OTA_BUILD_OPTS = --offline --locked --profile dist
RUST_OTA_BUILT = target/$(RUSTC_TARGET_NAME)/dist

# The oldest compiler that builds it. Buildroot has had it since 2025.05.
RUST_OTA_OLDEST_RUST = 1.85
ifeq ($(BR_BUILDING),y)
ifneq ($(BR2_PACKAGE_RUST_OTA)$(BR2_PACKAGE_LIBRUST_OTA)$(BR2_PACKAGE_HOST_RUST_OTA_ARTIFACT),)
ifneq ($(RUST_BIN_VERSION),)
ifneq ($(shell printf '%s\n' $(RUST_OTA_OLDEST_RUST) $(RUST_BIN_VERSION) | sort -V | head -n 1),$(RUST_OTA_OLDEST_RUST))
$(error rust-ota needs Rust $(RUST_OTA_OLDEST_RUST), and this Buildroot has $(RUST_BIN_VERSION): take Buildroot 2025.05 or later)
endif
endif
RUST_OTA_WRONG := $(shell BR2_EXTERNAL_RUST_OTA_PATH=$(BR2_EXTERNAL_RUST_OTA_PATH) \
	$(BR2_EXTERNAL_RUST_OTA_PATH)/support/check-config $(BR2_CONFIG) 2>&1 | sed '$$!s/$$/;/')
ifneq ($(RUST_OTA_WRONG),)
$(error $(RUST_OTA_WRONG))
endif
endif
endif

include $(sort $(wildcard $(BR2_EXTERNAL_RUST_OTA_PATH)/package/*/*.mk))

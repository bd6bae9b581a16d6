# A program of the workspace: which package, which features, and whether this build has a compiler that is new enough.

inherit cargo pkgconfig

require recipes-core/rust-ota/rust-ota-source.inc
require recipes-core/rust-ota/rust-ota-crates.inc

# All of the workspace: cargo reads every manifest that Cargo.toml names.
RUST_OTA_PARTS = "Cargo.toml Cargo.lock LICENSE boot crates daemon server tests tools xtask"

# The package of the workspace. Without it cargo would build the tests and tasks of the project as well.
RUST_OTA_PACKAGE ?= "${BPN}"
# Features by PACKAGECONFIG. Releases from 5.1 add its arguments themselves; the same feature twice is one.
CARGO_BUILD_FLAGS:append = " --package ${RUST_OTA_PACKAGE} ${PACKAGECONFIG_CONFARGS}"

# Decompress with the libzstd of the distribution, as releases from 6.1 want it of every recipe: one library to keep up to date.
export ZSTD_SYS_USE_PKG_CONFIG = "1"

# Small, but for the loops that are hot: what Cargo.toml says of the profile that ships, for the one that these classes build.
# Stripping is left to them.
RUST_OTA_SMALL ?= "0"
do_configure:append() {
    if [ "${RUST_OTA_SMALL}" = 1 ]; then
        for config in ${CARGO_HOME}/config.toml ${CARGO_HOME}/config; do
            if [ -e "$config" ]; then
                echo >> "$config"
                sed -n '/^\[profile\.dist/,/^$/p' ${S}/Cargo.toml \
                    | sed -e 's/^\[profile\.dist/[profile.release/' -e '/^inherits/d' -e '/^strip/d' >> "$config"
                break
            fi
        done
    fi
}

python () {
    # Skipped, not failed: a build that does not want this recipe goes on, one that does is told why.
    version = d.getVar("PREFERRED_VERSION_rust-native") or d.getVar("RUSTVERSION")
    problem = rust_ota.source.rust_problem(version, d.getVar("RUST_OTA_OLDEST_RUST"))
    if problem:
        raise bb.parse.SkipRecipe(problem)
}

//! What the members of an artifact are called, for whoever reads and whoever writes them.
//!
//! ```text
//! version  manifest  manifest.sig  header.tar[.gz]                       data/0000.tar[.gz]
//!                                    header-info                           one member for each file, which
//!                                    scripts/...                           the manifest calls data/0000/...
//!                                    headers/0000/type-info
//!                                    headers/0000/meta-data
//! ```

pub(crate) const VERSION: &str = "version";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const SIGNATURE: &str = "manifest.sig";
/// With the suffix of its compression behind it.
pub(crate) const HEADER: &str = "header.tar";
/// With the suffix of its compression behind it.
pub(crate) const DATA: &str = "data/0000.tar";

pub(crate) const HEADER_INFO: &str = "header-info";
pub(crate) const TYPE_INFO: &str = "headers/0000/type-info";
pub(crate) const META_DATA: &str = "headers/0000/meta-data";

const SCRIPTS: &str = "scripts/";
const FILES: &str = "data/0000/";

/// The member that holds the state script `name`.
pub(crate) fn of_script(name: &str) -> String {
    format!("{SCRIPTS}{name}")
}

/// The state script that `member` holds.
pub(crate) fn script(member: &str) -> Option<&str> {
    member.strip_prefix(SCRIPTS)
}

/// What the manifest calls the payload file `name`.
pub(crate) fn of_file(name: &str) -> String {
    format!("{FILES}{name}")
}

/// The payload file that the manifest calls `member`.
pub(crate) fn file(member: &str) -> Option<&str> {
    member.strip_prefix(FILES)
}

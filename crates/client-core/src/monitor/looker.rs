//! The seam to the device: facts, about which nothing is decided there.

use std::fmt;

use super::{LogSource, Position, Scan};

/// Looks at the device.
///
/// # Contract
/// Each look is one attempt with a deadline, takes memory that does not depend on what is looked at, and changes nothing. It
/// ends soon when the process is asked to stop; what it says then does not count.
pub trait Looker {
    /// The state of a unit in the word of the service manager, `active` among others.
    ///
    /// # Errors
    /// When it cannot be learned.
    fn service(&mut self, unit: &str) -> Result<String, Unseen>;

    /// Gives `scan` the lines of the log of the check `check` that came behind `from`, or none and the end of the log where `from` is `None`. Returns up to
    /// where it read; `None` where there is no log yet. A position may be of another log than this one.
    ///
    /// # Errors
    /// When the log is there and cannot be read.
    fn log(
        &mut self,
        check: &str,
        source: &LogSource,
        from: Option<&Position>,
        scan: &mut Scan<'_>,
    ) -> Result<Option<Position>, Unseen>;

    /// How full the file system at `path` is, in percent of what users may take, rounded up.
    ///
    /// # Errors
    /// When it cannot be learned.
    fn used_percent(&mut self, path: &str) -> Result<u32, Unseen>;

    /// When the first of the certificates in `file` ends, in seconds since 1970.
    ///
    /// # Errors
    /// When there is none that can be read.
    fn certificate_end(&mut self, file: &str) -> Result<u64, Unseen>;

    /// What tells this start of the kernel from every other one.
    ///
    /// # Errors
    /// When the kernel does not say.
    fn boot_id(&mut self) -> Result<String, Unseen>;
}

/// Why something could not be looked at, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen(pub String);

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unseen {}

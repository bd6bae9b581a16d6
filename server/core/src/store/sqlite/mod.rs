//! The fleet in one file of SQLite, beside the process that serves it.

use std::path::Path;
use std::sync::Arc;

use super::{Store, StoreError};

/// Opens or makes the fleet in a data folder. A folder of an older server is imported once.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open(_folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::NoFolder)
}

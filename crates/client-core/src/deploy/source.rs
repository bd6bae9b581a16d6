//! Where the bytes of an artifact come from, as far as the sequence has to know.

use std::error::Error;
use std::{fmt, io};

/// Deepest chain of causes that is searched.
const CAUSES_MAX: usize = 16;

/// In an error of a source: what is there is no longer what was being read. The bytes here have no rest, and a new
/// beginning may have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceChanged {
    /// The address asked, without its query.
    pub url: String,
    /// What shows it.
    pub reason: String,
}

impl fmt::Display for SourceChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what {} offers changed during the transfer: {}", self.url, self.reason)
    }
}

impl Error for SourceChanged {}

/// The error of type `E` in the chain of causes of `error`, itself included.
pub fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    for _ in 0..CAUSES_MAX {
        let error = current?;
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The source of an `io::Error` is that of what it holds: what it holds would be passed over.
        current = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

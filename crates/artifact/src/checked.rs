//! Bytes with a promised SHA-256. Each byte is hashed exactly once, as it passes.

use crate::error::ArtifactError;
use sha2::{Digest, Sha256};

/// The digest of an entry as it grows, and what it has to become.
pub(crate) struct Checked {
    entry: String,
    expected: [u8; 32],
    hasher: Sha256,
}

impl Checked {
    pub(crate) fn new(entry: String, expected: [u8; 32]) -> Checked {
        Checked { entry, expected, hasher: Sha256::new() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The digest of what has passed so far.
    pub(crate) fn running(&self) -> [u8; 32] {
        self.hasher.clone().finalize().into()
    }

    pub(crate) fn expected(&self) -> [u8; 32] {
        self.expected
    }

    /// Nothing more will pass: it has to be the promised digest now.
    pub(crate) fn finish(&self) -> Result<(), ArtifactError> {
        let actual = self.running();
        match actual == self.expected {
            true => Ok(()),
            false => Err(ArtifactError::ChecksumMismatch {
                entry: self.entry.clone(),
                expected: self.expected,
                actual,
            }),
        }
    }
}

/// For entries that are in memory as a whole.
pub(crate) fn check(entry: &str, expected: [u8; 32], bytes: &[u8]) -> Result<(), ArtifactError> {
    let mut checked = Checked::new(entry.to_owned(), expected);
    checked.update(bytes);
    checked.finish()
}

/// The digest of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_pieces_have_the_digest_of_the_whole_and_another_digest_is_an_error() {
        let expected = sha256(b"abc");
        let mut checked = Checked::new("x".to_owned(), expected);
        checked.update(b"a");
        assert!(
            matches!(checked.finish(), Err(ArtifactError::ChecksumMismatch { entry, .. }) if entry == "x")
        );
        checked.update(b"bc");
        checked.finish().unwrap();
        assert!(check("x", expected, b"abd").is_err());
    }
}

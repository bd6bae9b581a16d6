//! Bytes with a promised SHA-256. Each byte is hashed exactly once, as it passes.

use crate::error::ArtifactError;
use crate::sha256::Sha256;
use sha2::Digest;

/// The digest of an entry as it grows, and what it has to become.
pub(crate) struct Checked {
    entry: String,
    expected: Sha256,
    hasher: sha2::Sha256,
}

impl Checked {
    pub(crate) fn new(entry: String, expected: Sha256) -> Checked {
        Checked { entry, expected, hasher: sha2::Sha256::new() }
    }

    /// As if the bytes that `hasher` has seen had passed here.
    pub(crate) fn go_on(&mut self, hasher: sha2::Sha256) {
        self.hasher = hasher;
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The digest of what has passed so far.
    pub(crate) fn running(&self) -> Sha256 {
        Sha256::from(<[u8; 32]>::from(self.hasher.clone().finalize()))
    }

    pub(crate) fn expected(&self) -> Sha256 {
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
pub(crate) fn check(entry: &str, expected: Sha256, bytes: &[u8]) -> Result<(), ArtifactError> {
    let mut checked = Checked::new(entry.to_owned(), expected);
    checked.update(bytes);
    checked.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_pieces_have_the_digest_of_the_whole_and_another_digest_is_an_error() {
        let expected = Sha256::of(b"abc");
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

//! Why a key cannot be used.

use std::fmt;

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// No PEM block of the kind that was looked for.
    NotPem {
        /// The labels that would do.
        expected: &'static str,
    },
    /// The block does not hold what its label says.
    Malformed,
    /// A kind or size of key that is not supported.
    Unsupported {
        /// What it is.
        found: String,
    },
    /// The private key is encrypted, and no passphrase is given.
    Encrypted,
    /// The private key is encrypted in the old way of OpenSSL (`Proc-Type: 4,ENCRYPTED`), which is weak.
    EncryptedTraditionally,
    /// The passphrase does not open the private key.
    WrongPassphrase,
    /// Signing failed, or the system has no randomness.
    CannotSign,
}

impl std::error::Error for KeyError {}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::NotPem { expected } => write!(f, "no PEM block {expected}"),
            KeyError::Malformed => write!(f, "malformed key"),
            KeyError::Unsupported { found } => write!(f, "{found} is not supported"),
            KeyError::Encrypted => write!(f, "the private key is encrypted, and there is no passphrase"),
            KeyError::EncryptedTraditionally => write!(
                f,
                "the private key is encrypted in the old way of OpenSSL; convert it with `openssl pkcs8 -topk8`"
            ),
            KeyError::WrongPassphrase => write!(f, "the passphrase does not open the private key"),
            KeyError::CannotSign => write!(f, "cannot sign with this key"),
        }
    }
}

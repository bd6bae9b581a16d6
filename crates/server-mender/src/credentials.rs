//! The seam to what names the device: its identity, and the key that proves it.

use std::fmt;

/// What names the device to the server: its identity, and the key that proves it.
pub trait Credentials: Send {
    /// The identity as the compact JSON text of one object with sorted keys: the `id_data` of a request.
    ///
    /// # Errors
    /// When the identity cannot be learned.
    fn id_data(&mut self) -> Result<String, CredentialsError>;

    /// The public key, as SubjectPublicKeyInfo in PEM: block type `PUBLIC KEY`, lines of 64, a final newline.
    fn public_key_pem(&self) -> String;

    /// The signature over `message`: PKCS#1 v1.5 with SHA-256 (RSA), SHA-256 and DER (ECDSA), pure (Ed25519).
    ///
    /// # Errors
    /// When the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CredentialsError>;
}

/// Why the device cannot say who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// What names the device could not be learned.
    Identity {
        /// Why not.
        reason: String,
    },
    /// The device key could not be used.
    Key {
        /// Why not.
        reason: String,
    },
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialsError::Identity { reason } => write!(f, "cannot learn the identity: {reason}"),
            CredentialsError::Key { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for CredentialsError {}

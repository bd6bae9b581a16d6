//! Who the device of the tests is, and how the server knows it.

use server_mender::{Credentials, CredentialsError};

/// The device of the tests. Its signatures can be checked by [`ServerModel`](super::ServerModel) alone and protect nothing.
#[derive(Debug, Clone)]
pub struct TestCredentials {
    /// What it says it is.
    pub id_data: Result<String, String>,
}

impl Default for TestCredentials {
    fn default() -> TestCredentials {
        TestCredentials { id_data: Ok("{\"mac\":\"02:00:00:00:00:01\"}".to_owned()) }
    }
}

/// The public key of [`TestCredentials`].
pub const TEST_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";

impl Credentials for TestCredentials {
    fn id_data(&mut self) -> Result<String, CredentialsError> {
        self.id_data.clone().map_err(|reason| CredentialsError::Identity { reason })
    }

    fn public_key_pem(&self) -> String {
        TEST_PUBLIC_KEY.to_owned()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CredentialsError> {
        Ok(test_signature(message))
    }
}

/// FNV-1a, as a stand-in for a signature.
fn test_signature(message: &[u8]) -> Vec<u8> {
    let hash = message.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    hash.to_be_bytes().to_vec()
}

pub(super) fn verify_test_signature(body: &[u8], signature: &[u8], key: &str) -> bool {
    key == TEST_PUBLIC_KEY && signature == test_signature(body)
}

//! What names this device to a server: what its identity program says, and its key.

use std::path::PathBuf;
use std::sync::Arc;

use client_core::artifact::Signer;
use client_core::clock::Clock;
use client_core::server::{Attribute, AttributeValue};
use linux::identity;
use linux::key_values::RunLimits;
use serde_json::{Map, Value};
use server_mender::{Credentials, CredentialsError};

/// The identity and the key of this device.
pub struct DeviceCredentials {
    signer: Signer,
    program: PathBuf,
    limits: RunLimits,
    clock: Arc<dyn Clock>,
}

impl DeviceCredentials {
    /// `program` prints the identity; it runs for every authentication, as network interfaces come and go.
    pub(crate) fn new(signer: Signer, program: PathBuf, clock: Arc<dyn Clock>) -> DeviceCredentials {
        DeviceCredentials { signer, program, limits: RunLimits::default(), clock }
    }
}

impl Credentials for DeviceCredentials {
    fn id_data(&mut self) -> Result<String, CredentialsError> {
        let identity = identity::ask(&self.program, self.limits, &*self.clock);
        match identity {
            Ok(attributes) => Ok(canonical(attributes)),
            Err(error) => Err(CredentialsError::Identity { reason: error.to_string() }),
        }
    }

    fn public_key_pem(&self) -> String {
        self.signer.public_pem()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CredentialsError> {
        let signed = self.signer.sign_message(message);
        signed.map_err(|error| CredentialsError::Key { reason: error.to_string() })
    }
}

/// One compact JSON object with sorted names. Servers tell devices apart by it.
fn canonical(attributes: Vec<Attribute>) -> String {
    // The map of serde_json keeps its keys sorted bytewise.
    let object: Map<String, Value> = attributes
        .into_iter()
        .map(|attribute| {
            let value = match attribute.value {
                AttributeValue::One(text) => Value::String(text),
                AttributeValue::Many(texts) => texts.into_iter().map(Value::String).collect(),
            };
            (attribute.name, value)
        })
        .collect();
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {

    use linux::clock::LinuxClock;

    use super::*;

    fn id_data_of(body: &str) -> Result<String, CredentialsError> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("mender-device-identity");
        testkit::programs::place_script(&program, body);
        let pair = Signer::generate_ed25519(&[1; 32]);
        let signer = Signer::from_pem(pair.private.as_bytes()).unwrap();
        DeviceCredentials::new(signer, program, Arc::new(LinuxClock::new())).id_data()
    }

    #[test]
    fn an_identity_is_canonical_json() {
        let check = |body: &str, expected: &str| assert_eq!(id_data_of(body).unwrap(), expected);
        check("echo mac=02:12:61:13:6c:42", r#"{"mac":"02:12:61:13:6c:42"}"#);
        check("echo b=1; echo a='<&>'; echo b=2; echo B=x", r#"{"B":"x","a":"<&>","b":["1","2"]}"#);
        check(r#"echo 'q="\'; echo ü=ö"#, r#"{"q":"\"\\","ü":"ö"}"#);
    }

    #[test]
    fn an_identity_that_cannot_be_learned_says_why() {
        let error = id_data_of("exit 1").unwrap_err().to_string();
        assert!(error.starts_with("cannot learn the identity: "), "{error}");
    }
}

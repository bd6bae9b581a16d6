//! What names a device: a JSON object, brought to one form, whatever client wrote it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::id;
use super::json::{in_one_way, is_value};

/// Most keys an identity may have.
const KEYS: usize = 100;
/// Longest key or value.
const TEXT_CHARS: usize = 4096;
/// All of it, as compact JSON. Anybody may send one, and it is kept until a person has decided.
const BYTES: usize = 8 * 1024;

/// What is wrong with the identity a device sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    /// Not a JSON object with at least one key.
    NotAnObject,
    /// The value of a key is neither a value nor a list of one kind of values. Whatever lies deeper could not be read again.
    Nested,
    /// More or longer than the limits allow.
    TooLarge,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::NotAnObject => f.write_str("it is no JSON object with at least one key"),
            IdentityError::Nested => f.write_str(
                "each value has to be a text, a number, true or false, or a list of one kind of these: one is null, an object, or a \
                 list of anything else",
            ),
            IdentityError::TooLarge => write!(
                f,
                "it is too large: {KEYS} keys, {TEXT_CHARS} characters of a key or a value, and {BYTES} bytes are the most"
            ),
        }
    }
}

/// An identity in its one form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// The attributes, sorted.
    pub(crate) attributes: BTreeMap<String, Value>,
    /// SHA-256 of the attributes as compact JSON with sorted keys.
    pub(crate) sha256: String,
    /// How long that JSON is.
    pub(crate) bytes: usize,
}

impl Identity {
    /// Reads the text of `id_data`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(id_data: &str) -> Result<Identity, IdentityError> {
        let attributes = serde_json::from_str(id_data).map_err(|_| IdentityError::NotAnObject)?;
        Identity::new(attributes)
    }

    /// The identity with these attributes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(attributes: BTreeMap<String, Value>) -> Result<Identity, IdentityError> {
        if attributes.is_empty() {
            return Err(IdentityError::NotAnObject);
        }
        let too_long = |text: &str| text.chars().count() > TEXT_CHARS;
        let value_too_long = |value: &Value| too_long(&value.to_string());
        if attributes.len() > KEYS
            || attributes.iter().any(|(key, value)| too_long(key) || value_too_long(value))
        {
            return Err(IdentityError::TooLarge);
        }
        if !attributes.values().all(is_value) {
            return Err(IdentityError::Nested);
        }
        let canonical = serde_json::to_string(&attributes).map_err(|_| IdentityError::NotAnObject)?;
        if canonical.len() > BYTES {
            return Err(IdentityError::TooLarge);
        }
        // Whose it is, is said by what was sent; what it is found by is written in one way.
        let attributes = attributes.into_iter().map(|(key, value)| (key, in_one_way(value))).collect();
        Ok(Identity { sha256: id::sha256_hex(canonical.as_bytes()), bytes: canonical.len(), attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Identity, IdentityError, Value};

    #[test]
    fn two_encodings_of_one_identity_are_one_device() {
        let old = Identity::parse("{\"sn\":\"A\\u003cB\\u003e\\u0026\",\"mac\":\"x\"}\n").unwrap();
        let new = Identity::parse("{ \"mac\": \"x\", \"sn\": \"A<B>&\" }").unwrap();
        assert_eq!(old, new);
        assert_ne!(old.sha256, Identity::parse("{\"mac\":\"y\",\"sn\":\"A<B>&\"}").unwrap().sha256);
    }

    #[test]
    fn a_number_is_found_by_its_value_and_names_a_device_by_its_text() {
        let [one, other] = ["10.0", "10"].map(|text| Identity::parse(&format!("{{\"n\":{text}}}")).unwrap());
        assert_eq!((&one.attributes, one.bytes), (&other.attributes, 10));
        assert_ne!(one.sha256, other.sha256);
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for text in ["", "{}", "[]", "\"mac\"", "{\"mac\"", "null"] {
            assert_eq!(Identity::parse(text), Err(IdentityError::NotAnObject));
        }
        for nested in ["null", "{}", "[[1]]", "[1,\"a\"]", "[null]"] {
            let text = format!("{{\"mac\":{nested}}}");
            assert_eq!(Identity::parse(&text), Err(IdentityError::Nested), "{nested}");
        }
        assert!(Identity::parse("{\"mac\":[\"a\",\"b\"],\"slot\":1,\"spare\":false}").is_ok());
        let long = format!("{{\"mac\":\"{}\"}}", "x".repeat(5000));
        assert_eq!(Identity::parse(&long), Err(IdentityError::TooLarge));
        let many: BTreeMap<_, _> = (0..9).map(|n| (n.to_string(), Value::from("x".repeat(1000)))).collect();
        assert_eq!(Identity::new(many).unwrap_err(), IdentityError::TooLarge, "each is short, all are not");
    }
}

//! What the signed header of an artifact says about its delta, in the meta-data of the payload: known, and to be believed,
//! before the first byte of the file.

use std::fmt;

use artifact::Sha256;
use serde_json::{Value, json};

use crate::head::Image;

/// The key under which the meta-data has what this project adds to it.
const KEY: &str = "rust_ota";
const VERSION: u64 = 1;

/// The signed half of what a delta says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// The old image: what the running slot has to hold.
    pub source: Image,
    /// The new image: what the other slot has to hold in the end.
    pub target: Image,
    /// What applying allocates at most: [`Head::memory_bytes`](crate::Head::memory_bytes).
    pub memory_bytes: u64,
    /// Length of the file.
    pub transfer_bytes: u64,
    /// Bytes of the new image that differ from the old one's at the same place. For people and gates; nothing rests on it.
    pub changed_bytes: u64,
}

/// The meta-data says nothing about a delta that could be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedError {
    /// There is nothing about one.
    Missing,
    /// It is of a version that is not known.
    Version,
    /// A field is missing, or is something else than it has to be.
    Field(&'static str),
}

impl fmt::Display for SignedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignedError::Missing => f.write_str("the artifact's meta-data says nothing about a delta"),
            SignedError::Version => {
                f.write_str("the artifact's meta-data is about a version of delta that is not known")
            }
            SignedError::Field(name) => {
                write!(f, "the artifact's meta-data is wrong about the delta: {name:?}")
            }
        }
    }
}

impl std::error::Error for SignedError {}

impl Signed {
    /// Reads the meta-data of a payload. Keys that are not known are left alone: later versions may add some.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(meta_data: &str) -> Result<Signed, SignedError> {
        let value: Value = serde_json::from_str(meta_data).map_err(|_| SignedError::Missing)?;
        let value =
            value.get(KEY).filter(|value| value.get("delta").is_some()).ok_or(SignedError::Missing)?;
        if value.get("delta").and_then(Value::as_u64) != Some(VERSION) {
            return Err(SignedError::Version);
        }
        let number = |name| value.get(name).and_then(Value::as_u64).ok_or(SignedError::Field(name));
        Ok(Signed {
            source: image(value, "source")?,
            target: image(value, "target")?,
            memory_bytes: number("memory_bytes")?,
            transfer_bytes: number("transfer_bytes")?,
            changed_bytes: number("changed_bytes")?,
        })
    }

    /// The same as meta-data.
    pub fn meta_data(&self) -> String {
        let image = |image: &Image| json!({ "sha256": image.sha256.to_string(), "bytes": image.bytes });
        json!({ KEY: {
            "delta": VERSION,
            "source": image(&self.source),
            "target": image(&self.target),
            "memory_bytes": self.memory_bytes,
            "transfer_bytes": self.transfer_bytes,
            "changed_bytes": self.changed_bytes,
        } })
        .to_string()
    }
}

fn image(value: &Value, name: &'static str) -> Result<Image, SignedError> {
    let value = value.get(name);
    let bytes = value.and_then(|value| value.get("bytes")).and_then(Value::as_u64);
    let sha256 = value.and_then(|value| value.get("sha256")).and_then(Value::as_str);
    let sha256 = sha256.and_then(|text| text.parse::<Sha256>().ok());
    match (bytes, sha256) {
        (Some(bytes), Some(sha256)) => Ok(Image { bytes, sha256 }),
        _ => Err(SignedError::Field(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meta_data_comes_back_and_each_field_is_needed() {
        let image = |byte, bytes| Image { bytes, sha256: Sha256::from([byte; 32]) };
        let signed = Signed {
            source: image(1, 10),
            target: image(2, 20),
            memory_bytes: 3,
            transfer_bytes: 4,
            changed_bytes: 5,
        };
        let text = signed.meta_data();
        assert_eq!(Signed::parse(&text), Ok(signed));
        for key in ["source", "target", "memory_bytes", "transfer_bytes", "changed_bytes"] {
            let without = text.replace(key, "other");
            assert_eq!(Signed::parse(&without), Err(SignedError::Field(key)));
        }
        assert_eq!(Signed::parse(&text.replace("\"delta\":1", "\"delta\":2")), Err(SignedError::Version));
        for nothing in ["", "[]", "{}", r#"{"rust_ota":3}"#, r#"{"rust_ota":{"frames":1}}"#] {
            assert_eq!(Signed::parse(nothing), Err(SignedError::Missing), "{nothing}");
        }
    }
}

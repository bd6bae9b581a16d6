//! Random identifiers: UUIDs of version 4, and secrets.

use ring::rand::{SecureRandom, SystemRandom};

/// The system has no random numbers to give; nothing can be issued then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRandomness;

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A new UUID of version 4.
pub(crate) fn uuid() -> Result<String, NoRandomness> {
    let mut bytes = random::<16>()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Ok(written(&bytes))
}

/// A UUID of whoever makes its own numbers: version 8 (RFC 9562, section 5.8).
pub(crate) fn custom_uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    written(&bytes)
}

/// Whether `text` is written as a UUID of whatever version.
pub(crate) fn has_uuid_form(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A UUID for whoever has this name, the same each time: of the name's SHA-256.
pub(crate) fn uuid_of_name(name: &str) -> String {
    let digest = sha256(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    custom_uuid(bytes)
}

fn written(bytes: &[u8; 16]) -> String {
    let hex = hex(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Whether `text` has the form of [`uuid`]'s ids.
pub(crate) fn is_uuid(text: &str) -> bool {
    let is_one = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        14 => byte == b'4',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_one)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    artifact::Hex(bytes).to_string()
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    digest
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_has_its_version_and_its_length() {
        let id = super::uuid().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(super::is_uuid(&id), "{id}");
        for other in
            ["", "release-2", &id[1..], &id.replace('-', "_"), &format!("{id}x"), &id.replace("-4", "-1")]
        {
            assert!(!super::is_uuid(other), "{other}");
        }
        assert!(super::has_uuid_form(&id) && super::has_uuid_form(&id.to_uppercase()));
    }

    #[test]
    fn what_is_written_otherwise_is_no_uuid() {
        let id = super::uuid_of_name("ada");
        assert!(
            super::has_uuid_form(&id) && id == super::uuid_of_name("ada") && id != super::uuid_of_name("bob")
        );
        for text in ["", "foo", &id[1..], &id.replace('-', ""), &format!("{id}-"), &id.replace('8', "g")] {
            assert!(!super::has_uuid_form(text), "{text}");
        }
    }
}

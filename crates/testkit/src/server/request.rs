//! What a request to the device API means.

use super::{Endpoint, STORAGE, V1};
use crate::transport::Sent;

/// What a request is about.
pub(super) fn endpoint(sent: &Sent) -> Option<Endpoint> {
    let path = sent.path();
    if sent.url.starts_with(STORAGE) {
        return Some(Endpoint::Artifact);
    }
    match (sent.method, path) {
        ("POST", "/api/devices/v1/authentication/auth_requests") => Some(Endpoint::Auth),
        ("PUT" | "PATCH", "/api/devices/v1/inventory/device/attributes") => Some(Endpoint::Inventory),
        (_, "/api/devices/v2/deployments/device/deployments/next") => Some(Endpoint::Next),
        _ => match path.strip_prefix(V1)?.split_once('/') {
            None if path.ends_with("/next") => Some(Endpoint::Next),
            Some((_, "status")) if sent.method == "PUT" => Some(Endpoint::Status),
            Some((_, "log")) if sent.method == "PUT" => Some(Endpoint::Log),
            Some(_) | None => None,
        },
    }
}

/// A parameter of the query, decoded.
pub(super) fn query(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    decoded(value)
}

/// A component of an address without its percent signs.
pub(super) fn decoded(component: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = component.bytes();
    while let Some(byte) = rest.next() {
        assert!(byte != b'+', "a space is %20");
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Standard base64 with padding.
pub(super) fn unbase64(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if text.is_empty() || text.len() % 4 != 0 {
        return None;
    }
    let digits = text.trim_end_matches('=');
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits.bytes() {
        let value = LETTERS.iter().position(|letter| *letter == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (text.len() - digits.len() < 3).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_its_padding_only() {
        assert_eq!(unbase64("YWJj"), Some(b"abc".to_vec()));
        assert_eq!(unbase64("YWI="), Some(b"ab".to_vec()));
        assert_eq!(unbase64("YQ=="), Some(b"a".to_vec()));
        for text in ["", "YQ", "YQ=", "Y===", "YW-j", "YQ==\n"] {
            assert_eq!(unbase64(text), None, "{text}");
        }
    }
}

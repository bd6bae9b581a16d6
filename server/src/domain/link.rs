//! Download links that carry their own permission: an expiry and an HMAC over path and expiry.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::time::Timestamp;

/// Why a link does not open anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// It was not made here, or was changed.
    Forged,
    /// It is too old.
    Expired,
}

/// Makes and checks links.
pub(crate) struct LinkKey {
    key: hmac::Key,
}

impl LinkKey {
    /// The key from these bytes.
    pub(crate) fn new(secret: &[u8]) -> LinkKey {
        LinkKey { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// `path` with what opens it until `expire`.
    pub(crate) fn sign(&self, path: &str, expire: Timestamp) -> String {
        let seconds = expire.seconds();
        let tag = hmac::sign(&self.key, text(path, seconds).as_bytes());
        format!("{path}?expire={seconds}&signature={}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Whether `query` opens `path` at `now`.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check(&self, path: &str, query: &str, now: Timestamp) -> Result<(), LinkError> {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let expire = value("expire").and_then(|text| text.parse().ok()).ok_or(LinkError::Forged)?;
        let tag = value("signature").and_then(|tag| URL_SAFE_NO_PAD.decode(tag).ok());
        hmac::verify(&self.key, text(path, expire).as_bytes(), &tag.ok_or(LinkError::Forged)?)
            .map_err(|_| LinkError::Forged)?;
        if expire <= now.seconds() { Err(LinkError::Expired) } else { Ok(()) }
    }
}

fn text(path: &str, expire: u64) -> String {
    format!("GET\n{path}\nexpire={expire}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_its_path_until_it_expires() {
        let key = LinkKey::new(b"secret");
        let link = key.sign("/download/a", Timestamp(60_000));
        let query = link.split_once('?').unwrap().1;
        assert_eq!(key.check("/download/a", query, Timestamp(59_999)), Ok(()));
        assert_eq!(key.check("/download/a", query, Timestamp(60_000)), Err(LinkError::Expired));
        assert_eq!(key.check("/download/b", query, Timestamp(0)), Err(LinkError::Forged));
        let longer = query.replace("expire=60", "expire=61");
        assert_eq!(key.check("/download/a", &longer, Timestamp(0)), Err(LinkError::Forged));
        assert_eq!(LinkKey::new(b"x").check("/download/a", query, Timestamp(0)), Err(LinkError::Forged));
        assert_eq!(key.check("/download/a", "", Timestamp(0)), Err(LinkError::Forged));
    }
}

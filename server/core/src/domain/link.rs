//! Download links that carry their own permission: whom they are for, an expiry, and an HMAC over path, holder and expiry.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::model::time::Timestamp;

/// Why a link does not open anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// It was not made here, or was changed.
    Forged,
    /// It is too old.
    Expired,
}

/// Whom a link is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A person: whoever has it.
    Anybody,
    /// A device, as long as this set speaks for it.
    Device {
        /// The device.
        device: String,
        /// Its set.
        auth_set: String,
        /// The serial number of the set.
        serial: u64,
    },
}

impl Holder {
    /// As in the link: ids are UUIDs, which have no dots.
    fn text(&self) -> String {
        match self {
            Holder::Anybody => String::new(),
            Holder::Device { device, auth_set, serial } => format!("{device}.{auth_set}.{serial}"),
        }
    }

    fn parse(text: &str) -> Option<Holder> {
        let mut parts = text.split('.');
        let mut part = || parts.next().map(str::to_owned);
        let (device, auth_set) = (part()?, part()?);
        let serial = part()?.parse().ok()?;
        part().is_none().then_some(Holder::Device { device, auth_set, serial })
    }
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

    /// `path` with what opens it for `holder` until `expire`.
    pub(crate) fn sign(&self, path: &str, holder: &Holder, expire: Timestamp) -> String {
        let seconds = expire.seconds();
        let holder = holder.text();
        let tag = hmac::sign(&self.key, text(path, &holder, seconds).as_bytes());
        let own = if holder.is_empty() { String::new() } else { format!("&for={holder}") };
        format!("{path}?expire={seconds}{own}&signature={}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Whom `query` opens `path` for at `now`.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check(&self, path: &str, query: &str, now: Timestamp) -> Result<Holder, LinkError> {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let expire = value("expire").and_then(|text| text.parse().ok()).ok_or(LinkError::Forged)?;
        let own = value("for").unwrap_or_default();
        let tag = value("signature").and_then(|tag| URL_SAFE_NO_PAD.decode(tag).ok());
        hmac::verify(&self.key, text(path, own, expire).as_bytes(), &tag.ok_or(LinkError::Forged)?)
            .map_err(|_| LinkError::Forged)?;
        if expire <= now.seconds() {
            return Err(LinkError::Expired);
        }
        match own {
            "" => Ok(Holder::Anybody),
            own => Holder::parse(own).ok_or(LinkError::Forged),
        }
    }
}

/// The links of a person are as those of older servers.
fn text(path: &str, holder: &str, expire: u64) -> String {
    match holder {
        "" => format!("GET\n{path}\nexpire={expire}\n"),
        holder => format!("GET\n{path}\nexpire={expire}\nfor={holder}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Holder {
        Holder::Device { device: "d".to_owned(), auth_set: "s".to_owned(), serial: 7 }
    }

    fn check(query: &str, seconds: u64) -> Result<Holder, LinkError> {
        LinkKey::new(b"secret").check("/download/a", query, Timestamp(seconds * 1000))
    }

    #[test]
    fn a_link_opens_its_path_until_it_expires() {
        let key = LinkKey::new(b"secret");
        for holder in [Holder::Anybody, device()] {
            let link = key.sign("/download/a", &holder, Timestamp(60_000));
            let query = link.split_once('?').unwrap().1;
            assert_eq!(check(query, 59), Ok(holder));
            assert_eq!(check(query, 60), Err(LinkError::Expired));
            assert_eq!(key.check("/download/b", query, Timestamp(0)), Err(LinkError::Forged));
            let other = LinkKey::new(b"x").check("/download/a", query, Timestamp(0));
            assert_eq!(other, Err(LinkError::Forged));
        }
    }

    #[test]
    fn a_link_that_was_changed_opens_nothing() {
        let link = LinkKey::new(b"secret").sign("/download/a", &device(), Timestamp(60_000));
        let query = link.split_once('?').unwrap().1;
        for (what, with) in [
            ("expire=60", "expire=61"),
            ("for=d", "for=e"),
            ("&for=d.s.7", ""),
            ("&for=d.s.7", "&for="),
            (".7&", ".8&"),
            ("expire", "for=&expire"),
            ("signature=", "signature=A"),
            ("signature", "no"),
        ] {
            let changed = query.replace(what, with);
            assert_ne!(changed, query);
            assert_eq!(check(&changed, 0), Err(LinkError::Forged), "{changed}");
        }
        assert_eq!(check("", 0), Err(LinkError::Forged));
    }
}

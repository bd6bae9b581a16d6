//! What a certificate says of itself (RFC 5280, section 4), as far as it decides whether a certificate that was given by
//! hand is the right one, and why another one is refused. Trusts nothing and verifies no signature.

use std::net::IpAddr;

/// `id-at-commonName`.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// `id-ce-subjectAltName`.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// `id-ce-basicConstraints`.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// `secp521r1`.
const P521: &[u8] = &[0x2b, 0x81, 4, 0, 0x23];

const OID: u8 = 6;
const BOOLEAN: u8 = 1;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]` and `[3]` of a certificate: its version and its extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `dNSName` and `iPAddress` among the alternative names.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// The time in which a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    /// Its beginning.
    pub not_before: u64,
    /// Its end.
    pub not_after: u64,
}

impl Dates {
    /// Those of the certificate `der`; `None` when it is none.
    pub(crate) fn of(der: &[u8]) -> Option<Dates> {
        let Facts { not_before, not_after, .. } = Facts::of(der)?;
        Some(Dates { not_before, not_after })
    }
}

/// What a certificate says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// 1, 2 or 3.
    pub version: u8,
    /// Seconds since 1970 between which it is good.
    pub not_before: u64,
    pub not_after: u64,
    /// Whether it may vouch for others, where it says.
    pub authority: Option<bool>,
    /// The common names of its subject.
    pub common_names: Vec<String>,
    /// The names of hosts among its alternative names, as written.
    pub hosts: Vec<String>,
    /// The addresses among them.
    pub addresses: Vec<IpAddr>,
    /// Its key is on the curve P-521.
    pub is_p521: bool,
}

impl Facts {
    /// Reads the certificate `der`; `None` when it is none.
    pub(crate) fn of(der: &[u8]) -> Option<Facts> {
        let mut body = Der(der).take(SEQUENCE)?.take(SEQUENCE)?;
        let mut facts = Facts { version: 1, ..Facts::default() };
        if body.0.first() == Some(&VERSION) {
            facts.version = body.take(VERSION)?.next()?.1.0.last()?.checked_add(1)?;
        }
        // Serial number, algorithm of the signature, issuer.
        for _ in 0..3 {
            body.next()?;
        }
        let mut validity = body.take(SEQUENCE)?;
        facts.not_before = time(validity.next()?)?;
        facts.not_after = time(validity.next()?)?;
        let mut subject = body.take(SEQUENCE)?;
        while let Some((_, mut set)) = subject.next() {
            while let Some((_, mut attribute)) = set.next() {
                if attribute.next()?.1.0 == COMMON_NAME {
                    facts.common_names.push(attribute.next()?.1.text());
                }
            }
        }
        let mut algorithm = body.take(SEQUENCE)?.take(SEQUENCE)?;
        algorithm.next()?;
        facts.is_p521 = algorithm.next().is_some_and(|(tag, curve)| tag == OID && curve.0 == P521);
        while let Some((tag, mut wrapped)) = body.next() {
            if tag == EXTENSIONS {
                let mut extensions = wrapped.take(SEQUENCE)?;
                while let Some((_, extension)) = extensions.next() {
                    facts.learn(extension)?;
                }
            }
        }
        Some(facts)
    }

    fn learn(&mut self, mut extension: Der<'_>) -> Option<()> {
        let name = extension.take(OID)?.0;
        let (mut tag, mut value) = extension.next()?;
        if tag == BOOLEAN {
            // Whether it is critical.
            (tag, value) = extension.next()?;
        }
        if tag != 4 {
            return None;
        }
        if name == BASIC_CONSTRAINTS {
            let authority = value.take(SEQUENCE)?.next();
            self.authority = Some(authority.is_some_and(|(tag, value)| tag == BOOLEAN && value.0 != [0]));
        }
        if name == ALTERNATIVE_NAMES {
            let mut names = value.take(SEQUENCE)?;
            while let Some((tag, value)) = names.next() {
                match tag {
                    DNS_NAME => self.hosts.push(value.text()),
                    IP_ADDRESS => self.addresses.extend(address(value.0)),
                    // Mail, directories and whatever else is no server.
                    _ => {}
                }
            }
        }
        Some(())
    }

    /// Whether it has any name that a server is looked for by.
    pub(crate) fn has_alternative_names(&self) -> bool {
        !self.hosts.is_empty() || !self.addresses.is_empty()
    }

    /// Whether `host` is one of its names in the manner of OpenSSL and older: an address may be written as a name, and
    /// without any alternative name the common name counts. No wildcards.
    pub(crate) fn names_loosely(&self, host: &str) -> bool {
        let names = if self.has_alternative_names() { &self.hosts } else { &self.common_names };
        let address: Option<IpAddr> = host.parse().ok();
        let is_host = |name: &String| match address {
            Some(address) => name.parse() == Ok(address),
            None => name.trim_end_matches('.').eq_ignore_ascii_case(host.trim_end_matches('.')),
        };
        names.iter().any(is_host) || address.is_some_and(|address| self.addresses.contains(&address))
    }

    /// Whether an address stands where only the name of a host may stand.
    pub(crate) fn has_address_as_name(&self) -> bool {
        self.hosts.iter().any(|host| host.parse::<IpAddr>().is_ok())
    }

    /// The names that count, for a person.
    pub(crate) fn shown_names(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let hosts = if self.has_alternative_names() { &self.hosts } else { &self.common_names };
        let names: Vec<String> = hosts.iter().cloned().chain(addresses).take(5).collect();
        names.join(", ").escape_default().to_string()
    }
}

/// Elements one behind the other (X.690, definite lengths only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, Der<'a>)> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, Der(content)))
    }

    /// The content of the next element, which has to be a `tag`.
    fn take(&mut self, tag: u8) -> Option<Der<'a>> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    fn text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Seconds since 1970 of a `UTCTime` or `GeneralizedTime` in the only form that certificates may have.
fn time((tag, text): (u8, Der<'_>)) -> Option<u64> {
    let digits = text.0.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let pairs: Vec<u64> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, d| sum * 10 + u64::from(d - b'0'))).collect();
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) if pairs[0] < 50 => (2000 + pairs[0], &pairs[1..]),
        (UTC_TIME, 12) => (1900 + pairs[0], &pairs[1..]),
        (GENERALIZED_TIME, 14) => (pairs[0] * 100 + pairs[1], &pairs[2..]),
        _ => return None,
    };
    let &[month @ 1..=12, day @ 1..=31, hour, minute, second] = rest else { return None };
    // Days to a date after Howard Hinnant's `days_from_civil`; a year begins with March.
    let year = year - u64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + of_year;
    // Before 1970 is as good as 1970: nobody has such a time.
    Some(days.saturating_sub(719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let check =
            |tag, text: &str, expected| assert_eq!(time((tag, Der(text.as_bytes()))), expected, "{text}");
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "000229235959Z", Some(951_868_799));
        check(GENERALIZED_TIME, "21000301000000Z", Some(4_107_542_400));
        check(GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799));
        check(GENERALIZED_TIME, "00010101000000Z", Some(0));
        for text in ["", "Z", "700101000000", "7001010000Z", "701301000000Z", "70010100000xZ"] {
            check(UTC_TIME, text, None);
            check(GENERALIZED_TIME, text, None);
        }
    }

    #[test]
    fn nothing_that_is_cut_or_changed_makes_a_panic() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let path = crate::test_support::tls_file("server.pem");
        let der = CertificateDer::from_pem_file(path).unwrap();
        let facts = Facts::of(&der).unwrap();
        assert_eq!((facts.version, facts.authority, facts.is_p521), (3, None, false));
        assert_eq!(
            (&*facts.hosts, &*facts.common_names),
            (&["localhost".to_owned()][..], &["localhost".to_owned()][..])
        );
        assert_eq!(facts.addresses, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((facts.not_before, facts.not_after), (1_704_067_200, 4_733_510_400));
        for at in 0..der.len() {
            assert_eq!(Facts::of(&der[..at]), None);
            for byte in [0, 1, 0x7f, 0x80, 0x83, 0xff] {
                let mut changed = der.to_vec();
                changed[at] = byte;
                let _ = Facts::of(&changed);
            }
        }
    }

    #[test]
    fn a_name_counts_as_it_is_written_and_the_common_name_only_without_others() {
        let facts = |common: &str, hosts: &[&str]| Facts {
            common_names: vec![common.to_owned()],
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..Facts::default()
        };
        let check = |facts: Facts, host, expected| {
            assert_eq!(facts.names_loosely(host), expected, "{facts:?} {host}")
        };
        check(facts("Server.lan", &[]), "server.lan", true);
        check(facts("server.lan", &["other.lan"]), "server.lan", false);
        check(facts("x", &["192.0.2.1"]), "192.0.2.1", true);
        check(facts("2001:db8::1", &[]), "2001:DB8:0::1", true);
        check(facts("x", &["192.0.2.1"]), "192.0.2.10", false);
        check(facts("*.lan", &[]), "a.lan", false);
        check(facts("", &[]), "", true);
    }
}

//! The few things that have to be known about an address: what of it may be shown, and whether another one is the
//! same place. Everything else about addresses is the transport's.

use crate::text::printable;

/// Longest address that is followed: servers bound theirs at 8 KiB as well.
pub(super) const URL_BYTES_MAX: usize = 8 * 1024;

/// What decides whether a secret may go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) https: bool,
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// From the scheme to the end of the port.
    pub(super) origin: &'a str,
    /// Path and query; empty or with a leading `/` or `?`.
    pub(super) path: &'a str,
}

/// Takes an address apart; `None` when it is not one that can be asked for.
pub(super) fn parts(url: &str) -> Option<Parts<'_>> {
    // A backslash is a slash to some readers, and no character of an address (RFC 3986).
    let acceptable = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if url.len() > URL_BYTES_MAX || !url.bytes().all(acceptable) {
        return None;
    }
    let (scheme, rest) = url.split_once("://")?;
    let https = scheme.eq_ignore_ascii_case("https");
    if !https && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let length = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(length);
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (place, if https { 443 } else { 80 }),
    };
    let origin = &url[..scheme.len() + 3 + length];
    (!host.is_empty()).then_some(Parts { https, host, port, origin, path })
}

/// Why [`parts`] takes nothing of `url` apart, and what to do.
pub(super) fn problem(url: &str) -> String {
    if url.len() > URL_BYTES_MAX {
        return format!("it is longer than {URL_BYTES_MAX} bytes");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return "it has to begin with http:// or https://".to_owned();
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return format!("{}:// is neither http:// nor https://", printable(scheme));
    }
    if let Some(odd) = rest.chars().find(|found| !found.is_ascii_graphic() || *found == '\\') {
        let encoded: String = odd.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        return match odd {
            ' ' => format!("it has a blank in it; write {encoded} for it"),
            odd => format!("it has the character {odd:?} in it; write {encoded} for it"),
        };
    }
    match rest.split(['/', '?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default() {
        "" => "there is no host in it".to_owned(),
        place if place.starts_with(':') => "there is no host in it".to_owned(),
        _ => "its port is no number from 0 to 65535".to_owned(),
    }
}

/// The address that `location` means in an answer from `base`.
pub(super) fn resolve(base: &str, location: &str) -> Option<String> {
    let location = location.trim();
    let location = location.split('#').next().unwrap_or_default();
    let from = parts(base)?;
    let head = &location[..location.find(['/', '?']).unwrap_or(location.len())];
    let target = if head.ends_with(':') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", if from.https { "https" } else { "http" })
    } else if location.starts_with('/') {
        format!("{}{location}", from.origin)
    } else {
        let path = from.path.split(['?', '#']).next().unwrap_or_default();
        let kept = if location.starts_with('?') { path } else { &path[..path.rfind('/').unwrap_or(0)] };
        let slash = if location.starts_with('?') { "" } else { "/" };
        format!("{}{kept}{slash}{location}", from.origin)
    };
    parts(&target)?;
    Some(target)
}

/// Whether what may be told to `from` may be told to `to`: the same host and port, or the same host encrypted.
pub(super) fn same_place(from: &str, to: &str) -> bool {
    let (Some(from), Some(to)) = (parts(from), parts(to)) else { return false };
    let same_host = from.host.eq_ignore_ascii_case(to.host);
    same_host && (from.https == to.https && from.port == to.port || !from.https && to.https)
}

/// Whether `to` is of the same origin as `from`: the same scheme, host and port.
pub(super) fn same_origin(from: &str, to: &str) -> bool {
    let (Some(from), Some(to)) = (parts(from), parts(to)) else { return false };
    from.https == to.https && from.port == to.port && from.host.eq_ignore_ascii_case(to.host)
}

/// Whether `url` is an address that can be asked for.
pub fn is_address(url: &str) -> bool {
    parts(url).is_some()
}

/// An address without the parts that may hold secrets.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// A configured server as the beginning of every address: with a scheme, without a `/` at the end.
pub fn server(configured: &str) -> String {
    let bare = configured.trim();
    let (scheme, rest) = bare.split_once("://").unwrap_or(("https", bare));
    format!("{scheme}://{}", rest.trim_end_matches('/'))
}

/// Why a configured server cannot be asked for; `None` when it can be.
pub fn address_problem(configured: &str) -> Option<String> {
    let url = server(configured);
    match parts(&url) {
        Some(_) => None,
        None => Some(problem(&url)),
    }
}

/// `text` as one component of a path or a query (RFC 3986, 2.3: everything that is not unreserved is encoded).
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let check = |url, expected| assert_eq!(shown(url), expected);
        check("https://u:p@host:1/a?sig=x#y", "https://host:1/a");
        check("https://host/a@b", "https://host/a@b");
        check("https://host?x", "https://host");
        check("https://a@b@host/", "https://host/");
    }

    #[test]
    fn a_server_is_written_in_one_way() {
        let check = |configured, expected| assert_eq!(server(configured), expected);
        check("https://host//", "https://host");
        check(" host:8080/ ", "https://host:8080");
        check("http://host/base/", "http://host/base");
    }

    #[test]
    fn only_the_same_place_or_the_same_place_encrypted_is_trusted() {
        let check = |to, expected| assert_eq!(same_place("http://Host:80/x", to), expected, "{to}");
        check("http://host/y", true);
        check("https://host/y", true);
        check("http://host:81/y", false);
        check("http://host.evil/y", false);
        check("http://evil@host/y", true);
        check("http://host@evil/y", false);
        check("ftp://host/y", false);
        assert!(!same_place("https://host/", "http://host/"));
        assert!(!same_place("https://host/", "https://host:444/"));
        assert!(same_place("https://[::1]/", "https://[::1]:443/"));
    }

    #[test]
    fn a_location_is_resolved_as_browsers_do() {
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(resolve("http://host:8/a/b?c", location).as_deref(), expected, "{location}");
        };
        check("/x", Some("http://host:8/x"));
        check("x?y", Some("http://host:8/a/x?y"));
        check("?y", Some("http://host:8/a/b?y"));
        check("//other/x", Some("http://other/x"));
        check("https://other/x#f", Some("https://other/x"));
        check("x?to=https://other", Some("http://host:8/a/x?to=https://other"));
        check("file:///etc/passwd", None);
        check("http://", None);
        check("/a b", None);
        check("/a\\b", None);
        check("/ä", None);
        check(&format!("/{}", "x".repeat(URL_BYTES_MAX)), None);
    }

    #[test]
    fn what_is_no_address_says_why() {
        let check = |url: &str, expected: &str| {
            assert_eq!(parts(url), None, "{url}");
            assert!(problem(url).contains(expected), "{url}: {}", problem(url));
        };
        check("http://h/my file.mender", "a blank in it; write %20");
        check("http://h/m\u{fc}", "'\u{fc}' in it; write %C3%BC");
        check("http://h/a\r\nb", "'\\r' in it; write %0D");
        check("http://h\\a", "write %5C");
        check("h/a", "begin with http://");
        check("ftp://h/a", "ftp:// is neither");
        check("https:///a", "no host");
        check("https://u@:80/a", "no host");
        check("http://h:123456/a", "port");
        check(&format!("http://h/{}", "x".repeat(URL_BYTES_MAX)), "longer");
        assert!(parts("HTTP://h/a").is_some() && parts("HttpS://h/a").is_some());
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(encode("a b/ü&=~"), "a%20b%2F%C3%BC%26%3D~");
    }
}

//! Which proxy leads to an address, as `http_proxy`, `https_proxy` and `no_proxy` say.
//!
//! Only proxies that are spoken to in plain HTTP are known. Nothing here opens a connection.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host, without the brackets of an IPv6 address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, if it wants one.
    pub authorization: Option<String>,
}

/// What the environment says about proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyRules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    bypass: Vec<Bypass>,
}

/// A proxy address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyError {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with it. Without its value, which may hold a password.
    pub reason: &'static str,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment variable {}: {}", self.variable, self.reason)
    }
}

impl std::error::Error for ProxyError {}

/// One entry of `no_proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bypass {
    hosts: Hosts,
    /// Every port, if there is none.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// This name and no other.
    Name(String),
    /// Every name that ends so; with the dot.
    Suffix(String),
    /// Every address that begins with these bits.
    Net(IpAddr, u8),
}

impl ProxyRules {
    /// Reads the variables with `environment`. Lower case wins over upper case.
    ///
    /// # Errors
    /// When a proxy address makes no sense. Entries of `no_proxy` that make none match nothing.
    pub fn from_environment(environment: impl Fn(&str) -> Option<String>) -> Result<ProxyRules, ProxyError> {
        let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        // In a program that a web server runs, HTTP_PROXY is a header of the request: anyone can set it.
        let upper_http = || set("HTTP_PROXY").filter(|_| environment("REQUEST_METHOD").is_none());
        let proxy = |variable, value: Option<String>| {
            value
                .map(|value| parse_proxy(&value))
                .transpose()
                .map_err(|reason| ProxyError { variable, reason })
        };
        let bypass = set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default();
        Ok(ProxyRules {
            http: proxy("http_proxy", set("http_proxy").or_else(upper_http))?,
            https: proxy("https_proxy", set("https_proxy").or_else(|| set("HTTPS_PROXY")))?,
            bypass: bypass
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|entry| !entry.is_empty())
                .map(parse_bypass)
                .collect(),
        })
    }

    /// The proxy on the way to `host`, which has no brackets.
    pub fn proxy_for(&self, https: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let bypassed = self.bypass.iter().any(|entry| {
            entry.port.is_none_or(|only| only == port)
                && match &entry.hosts {
                    Hosts::All => true,
                    Hosts::Name(name) => *name == host,
                    Hosts::Suffix(suffix) => host.ends_with(suffix),
                    Hosts::Net(net, bits) => address.is_some_and(|address| begins_with(address, *net, *bits)),
                }
        });
        (!bypassed).then_some(proxy)
    }
}

/// `[http://][user[:password]@]host[:port][/]`
fn parse_proxy(text: &str) -> Result<Proxy, &'static str> {
    let rest = match text.trim().split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return Err("only proxies of the kind http:// are known"),
        None => text.trim(),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let (host, port) = split_port(place).ok_or("there is no valid host and port in it")?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("there is no valid host and port in it");
    }
    let authorization = match user {
        Some(user) => {
            // "user" alone means an empty password (RFC 7617 wants the colon).
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut pair =
                percent_decoded(name).ok_or("a percent sign in it is not followed by two digits")?;
            pair.push(b':');
            pair.extend(
                percent_decoded(password).ok_or("a percent sign in it is not followed by two digits")?,
            );
            Some(format!("Basic {}", STANDARD.encode(pair)))
        }
        None => None,
    };
    Ok(Proxy { host: host.to_owned(), port: port.unwrap_or(80), authorization })
}

fn parse_bypass(entry: &str) -> Bypass {
    let entry = entry.to_ascii_lowercase();
    if let Some((net, bits)) = entry.split_once('/').and_then(|(net, bits)| {
        let (net, bits): (IpAddr, u8) = (net.parse().ok()?, bits.parse().ok()?);
        (bits <= address_bits(net)).then_some((net, bits))
    }) {
        return Bypass { hosts: Hosts::Net(net, bits), port: None };
    }
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Bypass { hosts: Hosts::Net(address, address_bits(address)), port: None };
    }
    let (host, port) = split_port(&entry).unwrap_or((&entry, None));
    let hosts = if host == "*" {
        Hosts::All
    } else if let Ok(address) = host.parse::<IpAddr>() {
        Hosts::Net(address, address_bits(address))
    } else if let Some(suffix) = host.strip_prefix('*').unwrap_or(host).strip_prefix('.') {
        Hosts::Suffix(format!(".{suffix}"))
    } else {
        Hosts::Name(host.trim_end_matches('.').to_owned())
    };
    Bypass { hosts, port }
}

/// Host and port of `host`, `host:port`, `[v6]` and `[v6]:port`; the brackets are dropped.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((text, None)),
    }
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn begins_with(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let shift = |width: u8| u32::from(width.saturating_sub(bits));
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            (address.to_bits() ^ net.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            (address.to_bits() ^ net.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(variables: &[(&str, &str)]) -> Result<ProxyRules, String> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        };
        ProxyRules::from_environment(environment).map_err(|error| error.to_string())
    }

    fn host_for(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let (scheme, place) = url.split_once("://").unwrap();
        let https = scheme == "https";
        let (host, port) = split_port(place).unwrap();
        let port = port.unwrap_or(if https { 443 } else { 80 });
        rules(variables).unwrap().proxy_for(https, host, port).map(|proxy| proxy.host.clone())
    }

    #[test]
    fn each_scheme_has_its_variable_and_lower_case_wins() {
        let check = |variables: &[(&str, &str)], url, expected: Option<&str>| {
            assert_eq!(host_for(variables, url).as_deref(), expected, "{variables:?} {url}");
        };
        check(&[], "http://a", None);
        check(&[("http_proxy", "p")], "http://a", Some("p"));
        check(&[("http_proxy", "p")], "https://a", None);
        check(&[("HTTPS_PROXY", "q")], "https://a", Some("q"));
        check(&[("http_proxy", "p"), ("HTTP_PROXY", "P")], "http://a", Some("p"));
        check(&[("http_proxy", ""), ("HTTP_PROXY", "P")], "http://a", Some("P"));
        check(&[("HTTP_PROXY", "P"), ("REQUEST_METHOD", "GET")], "http://a", None);
        check(&[("http_proxy", "p"), ("REQUEST_METHOD", "GET")], "http://a", Some("p"));
    }

    #[test]
    fn a_proxy_address_may_have_every_part_or_the_host_alone() {
        let check = |text: &str, host: &str, port: u16, authorization: Option<&str>| {
            let expected =
                Proxy { host: host.into(), port, authorization: authorization.map(|text| text.into()) };
            assert_eq!(parse_proxy(text), Ok(expected), "{text}");
        };
        check("proxy", "proxy", 80, None);
        check("http://proxy:3128/", "proxy", 3128, None);
        check("HTTP://[::1]:3128", "::1", 3128, None);
        check("http://user:pass@proxy:1", "proxy", 1, Some("Basic dXNlcjpwYXNz"));
        check("http://us%40er:p%3Ass@proxy", "proxy", 80, Some("Basic dXNAZXI6cDpzcw=="));
        check("http://user@proxy", "proxy", 80, Some("Basic dXNlcjo="));
        for wrong in ["https://proxy", "socks5://proxy", "http://", "http://proxy:99999", "http://a%zz@proxy"]
        {
            assert!(parse_proxy(wrong).is_err(), "{wrong}");
        }
        let error = rules(&[("https_proxy", "socks5://user:secret@proxy")]).unwrap_err();
        assert!(error.contains("https_proxy") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn what_no_proxy_lists_is_reached_directly() {
        let check = |no_proxy: &str, url: &str, direct: bool| {
            let variables = [("http_proxy", "p"), ("no_proxy", no_proxy)];
            assert_eq!(host_for(&variables, url).is_none(), direct, "{no_proxy} {url}");
        };
        check("a.example", "http://a.example", true);
        check("a.example", "http://A.Example.", true);
        check("a.example", "http://b.a.example", false);
        check("a.example", "http://aa.example", false);
        check(".example", "http://a.example", true);
        check("*.example", "http://a.b.example", true);
        check(".example", "http://example", false);
        check(".longer.example", "http://x", false);
        check("x, a.example  b", "http://b", true);
        check("x,,a", "http://a", true);
        check("*", "http://anything", true);
        check("a:8080", "http://a:8080", true);
        check("a:8080", "http://a", false);
        check("10.0.0.0/8", "http://10.1.2.3", true);
        check("10.0.0.0/8", "http://11.1.2.3", false);
        check("10.0.0.0/33", "http://10.0.0.0", false);
        check("0.0.0.0/0", "http://10.1.2.3", true);
        check("0.0.0.0/0", "http://[::1]", false);
        check("10.1.2.3", "http://10.1.2.3:99", true);
        check("10.1.2.3:80", "http://10.1.2.3:99", false);
        check("fd00::/8", "http://[fd12::1]", true);
        check("::1", "http://[::1]", true);
        check("[::1]:80", "http://[::1]:80", true);
        check("[::1]:80", "http://[::1]:81", false);
    }
}

//! Which addresses are of the public network, and which hosts have one that everybody knows without asking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose an address is: whoever has an IPv6 address has at least 2^64 of them, so those are one.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Says whether an address is one of the public network. Whoever may make a webhook could otherwise let the server ask
/// what only the server reaches.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_odd = match (a, b, c) {
        // "This" network, shared addresses (RFC 6598), protocol assignments, benchmarks, multicast and what is reserved.
        (0 | 224.., _, _) | (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _) => true,
        _ => false,
    };
    !(is_odd
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let Some(v4) = address.to_ipv4() {
        return is_public_v4(v4);
    }
    let [first, second, .., high, low] = segments;
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match first {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) have another address in them.
        0x0064 if second == 0xff9b => v4(high, low),
        0x2002 => v4(second, segments.get(2).copied().unwrap_or_default()),
        // What was given out to be reached from everywhere, but for documentation and protocols (2001::/23).
        0x2000..=0x3fff => !(first == 0x2001 && (second < 0x0200 || second == 0x0db8)) && first != 0x3fff,
        _ => false,
    }
}

/// Says whether a host is known not to be on the public network without asking for its address: an address of another network, or
/// this machine by its name. What resolvers take for an address and is none in the usual form is none of the public network either.
pub(crate) fn is_inside(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return !is_public(address);
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    last == "localhost" || is_number(last) || last.starts_with("0x") || host.starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_one_person_are_one() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2a00:1450:4001:1::1"), network("2a00:1450:4001:1:ffff::2"));
        assert_ne!(network("2a00:1450:4001:1::1"), network("2a00:1450:4001:2::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    #[test]
    fn only_addresses_of_the_public_network_are_asked() {
        for address in
            ["8.8.8.8", "193.99.144.80", "2a00:1450:4001::1", "64:ff9b::808:808", "2002:808:808::1"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn hosts_that_need_no_question_are_known() {
        for host in [
            "127.0.0.1",
            "10.0.0.1",
            "[::1]",
            "[fe80::1%25eth0]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "127.0.0.1.",
            "8.8.8.0x8",
        ] {
            assert!(is_inside(host), "{host}");
        }
        for host in [
            "8.8.8.8",
            "[2a00:1450:4001::1]",
            "example.com",
            "localhost.example.com",
            "10.example",
            "0xa.example",
        ] {
            assert!(!is_inside(host), "{host}");
        }
    }
}

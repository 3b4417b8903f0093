//! `NO_PROXY`: the hosts that are reached without the proxy, read as curl does.

use std::net::IpAddr;

/// Returns whether a list leaves a host out.
///
/// `*` alone is every host. Names (`example.org`, `.example.org`) mean the host and all below it, whatever the case;
/// addresses mean themselves, with `/bits` their network. Commas part them, blanks too. Ports are no part of an item.
/// Other than in curl, `/0` is every address of the family, and IPv6 addresses may stand in brackets.
pub(super) fn exempts(list: &str, host: &str) -> bool {
    if list == "*" {
        return true;
    }
    let address: Option<IpAddr> = host.parse().ok();
    let items = list.split([',', ' ', '\t']).filter(|item| !item.is_empty());
    items.into_iter().any(|item| match address {
        Some(address) => holds(item, address),
        None => is_below(host, item),
    })
}

fn is_below(host: &str, item: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
    let item = item.strip_suffix('.').unwrap_or(item);
    let item = item.strip_prefix('.').unwrap_or(item).as_bytes();
    let Some(above) = host.len().checked_sub(item.len()) else { return false };
    !item.is_empty() && host[above..].eq_ignore_ascii_case(item) && (above == 0 || host[above - 1] == b'.')
}

fn holds(item: &str, address: IpAddr) -> bool {
    let (network, bits) = match item.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().ok()),
        None => (item, Some(128)),
    };
    let network = network.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(network);
    let same = match (network.parse(), address) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
        (Ok(IpAddr::V6(network)), IpAddr::V6(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
        _ => return false,
    };
    let all = if address.is_ipv4() { 32 } else { 128 };
    match bits {
        Some(bits) if item.contains('/') => bits <= all && same >= bits,
        Some(_) => same == all,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each of these was asked of curl 7.88, too.
    #[test]
    fn leaves_out_what_curl_leaves_out() {
        for (list, host, exempt) in [
            ("*", "example.org", true),
            ("*", "::1", true),
            ("*,x", "example.org", false),
            ("example.org", "example.org", true),
            ("example.org", "EXAMPLE.org", true),
            ("example.org", "www.example.org", true),
            ("example.org", "nonexample.org", false),
            ("example.org", "example.org.evil", false),
            (".example.org", "example.org", true),
            (".example.org", "www.example.org", true),
            (".example.org", "wwwexample.org", false),
            ("example.org.", "www.example.org", true),
            ("example.org", "www.example.org.", true),
            ("*.example.org", "www.example.org", false),
            ("a,example.org", "example.org", true),
            ("a, example.org", "example.org", true),
            ("a,,example.org", "example.org", true),
            (" example.org ", "example.org", true),
            ("example.org:21", "example.org", false),
            ("www.example.org", "example.org", false),
            (".", "example.org", false),
            ("", "example.org", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.1", "127.0.0.1", false),
            (".0.0.1", "127.0.0.1", false),
            ("127.0.0.0/8", "127.9.9.9", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("192.168.1.0/25", "192.168.1.127", true),
            ("192.168.1.0/25", "192.168.1.128", false),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("::1", "::1", true),
            ("fe80::/10", "2001::1", false),
            ("127.0.0.0/8", "localhost", false),
            ("localhost", "127.0.0.1", false),
        ] {
            assert_eq!(exempts(list, host), exempt, "NO_PROXY={list:?} {host}");
        }
    }

    #[test]
    fn reads_more_than_curl() {
        // curl 7.88 compares the letters of IPv6 addresses, against its own manual.
        assert!(exempts("0:0::1", "::1"));
        assert!(exempts("fe80::/10", "fe80::17"));
        assert!(exempts("[::1]", "::1"));
        assert!(exempts("0.0.0.0/0", "10.1.2.3"));
        assert!(!exempts("0.0.0.0/x", "0.0.0.0"));
    }

    proptest! {
        #[test]
        fn a_name_and_those_below_it_and_no_others(name in "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}", more in "[a-z0-9-]{1,8}") {
            prop_assert!(exempts(&name, &name));
            let (below, beside, list) = (format!("{more}.{name}"), format!("{more}{name}"), format!("x,.{name}"));
            prop_assert!(exempts(&list, &below));
            prop_assert!(!exempts(&name, &beside));
            prop_assert!(!exempts(&below, &name));
        }

        #[test]
        fn any_list_is_read(list in ".{0,40}", host in ".{0,40}") {
            let _ = exempts(&list, &host);
        }

        #[test]
        fn a_network_holds_what_shares_its_bits(network: u32, address: u32, bits in 0u32..=32) {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            let [from, asked] = [network, address].map(std::net::Ipv4Addr::from);
            let held = exempts(&format!("{from}/{bits}"), &asked.to_string());
            prop_assert_eq!(held, network & mask == address & mask);
        }
    }
}

//! An address with its network: text form, membership, and the addresses nobody may have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::model::IfAddr;
use crate::text::{ValueError, show};

impl IfAddr {
    /// Bits of an address of this family: 32 or 128.
    pub const fn family_bits(&self) -> u8 {
        bits_of(self.addr)
    }

    /// The first address of the network.
    pub fn network(&self) -> IpAddr {
        prefix(self.addr, self.prefix_len)
    }

    /// The network's broadcast address; `None` for IPv6 and for /31 and /32, which have none.
    ///
    /// Source: RFC 922 section 7, RFC 3021 section 2.1.
    pub fn broadcast(&self) -> Option<IpAddr> {
        match self.addr {
            IpAddr::V4(addr) if self.prefix_len <= 30 => {
                let host = u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
                Some(Ipv4Addr::from_bits(addr.to_bits() | host).into())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// Whether `ip` lies in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.addr.is_ipv4() && prefix(ip, self.prefix_len) == self.network()
    }

    /// Why no host of the network may have `ip` (which lies in it); `None`: it may.
    ///
    /// Source: RFC 1122 section 3.2.1.3; IPv6: RFC 4291 section 2.6.1 (and RFC 6164 section 5 for /127).
    pub(crate) fn reserved(&self, ip: IpAddr) -> Option<&'static str> {
        let point_to_point = self.prefix_len + 1 >= self.family_bits();
        if Some(ip) == self.broadcast() {
            Some("the broadcast address")
        } else if ip == self.network() && !point_to_point {
            Some(if ip.is_ipv4() { "the network address" } else { "the subnet-router anycast address" })
        } else {
            None
        }
    }
}

/// Bits of an address of the family of `ip`.
pub(crate) const fn bits_of(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `ip` with all but its first `len` bits cleared.
pub(crate) fn prefix(ip: IpAddr, len: u8) -> IpAddr {
    let shift = u32::from(bits_of(ip).saturating_sub(len));
    match ip {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(shift).unwrap_or(0)).into(),
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(shift).unwrap_or(0)).into()
        }
    }
}

/// The class of addresses that no VIP, DIP or real server may be from; `None`: an ordinary one.
pub(crate) fn special(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

/// `192.168.150.11/24`
impl fmt::Display for IfAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

/// Reads `ADDRESS/LENGTH`.
impl FromStr for IfAddr {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((addr, len)) = text.split_once('/') else {
            return Err(ValueError(format!(
                "{} has no prefix length: write ADDRESS/LENGTH, such as \"192.168.150.11/24\"",
                show(text)
            )));
        };
        let addr = parse_ip(addr)?;
        let max = bits_of(addr);
        let digits = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
        match len.parse::<u8>() {
            Ok(prefix_len) if digits && prefix_len <= max => Ok(Self { addr, prefix_len }),
            _ => Err(ValueError(format!("{}: the prefix length is not 0 to {max}", show(text)))),
        }
    }
}

/// Reads an address of either family.
pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| ValueError(format!("{} is not an IPv4 or IPv6 address", show(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IfAddr {
        text.parse().unwrap()
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn text_reads_back_and_faults_are_named() {
        for text in ["192.168.150.11/24", "fd00::11/64", "10.0.0.1/0", "::1/128", "10.0.0.1/32"] {
            assert_eq!(net(text).to_string(), text);
        }
        let err = |text: &str| text.parse::<IfAddr>().map_err(|e| e.to_string()).unwrap_err();
        assert_eq!(
            err("10.0.0.1"),
            "\"10.0.0.1\" has no prefix length: write ADDRESS/LENGTH, such as \"192.168.150.11/24\""
        );
        assert_eq!(err("10.0.0.256/8"), "\"10.0.0.256\" is not an IPv4 or IPv6 address");
        for text in ["10.0.0.1/33", "10.0.0.1/", "10.0.0.1/+8", "10.0.0.1/0008", "10.0.0.1/300"] {
            assert_eq!(err(text), format!("\"{text}\": the prefix length is not 0 to 32"));
        }
        assert_eq!(err("fd00::1/129"), "\"fd00::1/129\": the prefix length is not 0 to 128");
    }

    #[test]
    fn membership_follows_the_prefix_and_the_family() {
        assert!(net("192.168.150.11/24").contains(ip("192.168.150.255")));
        assert!(!net("192.168.150.11/24").contains(ip("192.168.151.1")));
        assert!(net("10.0.0.1/0").contains(ip("203.0.113.1")));
        assert!(!net("10.0.0.1/0").contains(ip("fd00::1")));
        assert!(net("10.0.0.1/32").contains(ip("10.0.0.1")) && !net("10.0.0.1/32").contains(ip("10.0.0.0")));
        assert!(
            net("fd00::11/64").contains(ip("fd00::ffff:0:0:1"))
                && !net("fd00::11/64").contains(ip("fd00:0:0:1::1"))
        );
    }

    #[test]
    fn reserved_addresses_are_those_of_the_rfcs() {
        let why = |n: &str, a: &str| net(n).reserved(ip(a));
        assert_eq!(why("10.0.0.1/24", "10.0.0.0"), Some("the network address"));
        assert_eq!(why("10.0.0.1/24", "10.0.0.255"), Some("the broadcast address"));
        assert_eq!(why("10.0.0.1/24", "10.0.0.254"), None);
        assert_eq!((why("10.0.0.0/31", "10.0.0.0"), why("10.0.0.0/31", "10.0.0.1")), (None, None));
        assert_eq!(why("10.0.0.0/32", "10.0.0.0"), None);
        assert_eq!(why("10.0.0.1/30", "10.0.0.3"), Some("the broadcast address"));
        assert_eq!(why("fd00::1/64", "fd00::"), Some("the subnet-router anycast address"));
        assert_eq!(
            (why("fd00::/127", "fd00::"), why("fd00::1/64", "fd00::ffff:ffff:ffff:ffff")),
            (None, None)
        );
    }

    #[test]
    fn special_addresses_have_names() {
        assert_eq!(special(ip("0.0.0.0")), Some("the unspecified address"));
        assert_eq!(special(ip("255.255.255.255")), Some("the broadcast address"));
        assert_eq!(special(ip("127.1.2.3")), Some("a loopback address"));
        assert_eq!(special(ip("224.0.0.1")), Some("a multicast address"));
        assert_eq!(special(ip("ff02::1")), Some("a multicast address"));
        assert_eq!(special(ip("::ffff:10.0.0.1")), Some("an IPv4-mapped address"));
        assert_eq!(special(ip("192.0.2.1")), None);
    }
}

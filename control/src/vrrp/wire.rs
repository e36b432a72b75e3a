//! Adverts on the wire: VRRP 2 (RFC 3768) and 3 (RFC 9568).
//!
//! [`parse`] takes any bytes and never panics; what it gives has passed the checks that need no configuration: type,
//! length, checksum. Those that do are [`super::instance`]'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_config::VrrpVersion;
use lb_dataplane::channel::PROTOCOL_VRRP;
use lb_dataplane::wire::checksum;

/// Bytes before the addresses.
const HEAD: usize = 8;
/// Bytes of authentication data behind the addresses of version 2.
const AUTH: usize = 8;
/// Type 1: advertisement, the only one there is.
const ADVERTISEMENT: u8 = 1;
/// Authentication type "simple text password". Source: RFC 2338 section 5.3.6.
pub const AUTH_PASS: u8 = 1;

/// An advert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Version.
    pub version: VrrpVersion,
    /// Number of the virtual router.
    pub vrid: u8,
    /// Priority; 0: the master is about to end.
    pub priority: u8,
    /// Time between adverts: seconds in version 2, centiseconds in version 3.
    pub interval: u16,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Authentication type and data of version 2, else zeros.
    pub auth: (u8, [u8; AUTH]),
}

/// Why an advert is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than it says, or than any advert.
    #[error("length")]
    Length,
    /// Neither version 2 nor 3.
    #[error("version")]
    Version,
    /// No advertisement.
    #[error("type")]
    Kind,
    /// Wrong checksum.
    #[error("checksum")]
    Checksum,
}

/// Sum of the pseudo header of an advert of `len` bytes.
fn pseudo(src: IpAddr, dst: IpAddr, len: usize) -> u64 {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_VRRP, len)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_VRRP, len)
        }
        _ => 0,
    }
}

/// Reads the advert at the front of `payload`, an IP packet's; gives what is behind it too.
///
/// With version 3 over IPv4 a checksum with or without pseudo header passes: RFC 9568 section 5.2.8 and keepalived's
/// default differ.
pub fn parse(payload: &[u8], src: IpAddr, dst: IpAddr) -> Result<(Advert, &[u8]), WireError> {
    let head = payload.first_chunk::<HEAD>().ok_or(WireError::Length)?;
    let version = match head[0] >> 4 {
        2 if src.is_ipv4() => VrrpVersion::V2,
        3 => VrrpVersion::V3,
        _ => return Err(WireError::Version),
    };
    if head[0] & 15 != ADVERTISEMENT {
        return Err(WireError::Kind);
    }
    let one = if src.is_ipv4() { 4 } else { 16 };
    let end = HEAD + usize::from(head[3]) * one;
    let tail = if version == VrrpVersion::V2 { AUTH } else { 0 };
    let message = payload.get(..end + tail).ok_or(WireError::Length)?;
    let rest = payload.get(end + tail..).ok_or(WireError::Length)?;
    let sum = checksum::add(0, message);
    let plain = checksum::is_valid(sum);
    let with_pseudo = checksum::is_valid(sum + pseudo(src, dst, message.len()));
    let valid = match (version, src) {
        (VrrpVersion::V2, _) => plain,
        (VrrpVersion::V3, IpAddr::V4(_)) => plain || with_pseudo,
        (VrrpVersion::V3, IpAddr::V6(_)) => with_pseudo,
    };
    if !valid {
        return Err(WireError::Checksum);
    }
    let list = message.get(HEAD..end).ok_or(WireError::Length)?;
    let addresses = match src {
        IpAddr::V4(_) => list.as_chunks::<4>().0.iter().map(|ip| IpAddr::V4(Ipv4Addr::from(*ip))).collect(),
        IpAddr::V6(_) => list.as_chunks::<16>().0.iter().map(|ip| IpAddr::V6(Ipv6Addr::from(*ip))).collect(),
    };
    let auth = message.get(end..).and_then(|tail| tail.first_chunk::<AUTH>()).copied().unwrap_or_default();
    let (interval, kind) = match version {
        VrrpVersion::V2 => (u16::from(head[5]), head[4]),
        VrrpVersion::V3 => (u16::from_be_bytes([head[4] & 15, head[5]]), 0),
    };
    let advert =
        Advert { version, vrid: head[1], priority: head[2], interval, addresses, auth: (kind, auth) };
    Ok((advert, rest))
}

impl Advert {
    /// The advert as the payload of an IP packet. `plain`: the checksum of version 3 over IPv4 has no pseudo header.
    pub fn emit(&self, src: IpAddr, dst: IpAddr, plain: bool) -> Vec<u8> {
        let [high, low] = self.interval.to_be_bytes();
        let (kind, time) = match self.version {
            VrrpVersion::V2 => (self.auth.0, low),
            VrrpVersion::V3 => (high & 15, low),
        };
        let first = self.version.number() << 4 | ADVERTISEMENT;
        let mut bytes = vec![first, self.vrid, self.priority, self.addresses.len() as u8, kind, time, 0, 0];
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        if self.version == VrrpVersion::V2 {
            bytes.extend(self.auth.1);
        }
        let over = match (self.version, src) {
            (VrrpVersion::V2, _) => 0,
            (VrrpVersion::V3, IpAddr::V4(_)) if plain => 0,
            (VrrpVersion::V3, _) => pseudo(src, dst, bytes.len()),
        };
        let sum = checksum::finish(checksum::add(over, &bytes)).to_be_bytes();
        if let Some(place) = bytes.get_mut(6..8) {
            place.copy_from_slice(&sum);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SRC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 150, 11));
    const DST: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn sample() -> Advert {
        Advert {
            version: VrrpVersion::V2,
            vrid: 51,
            priority: 100,
            interval: 1,
            addresses: vec!["192.168.150.100".parse().unwrap()],
            auth: (AUTH_PASS, *b"1111\0\0\0\0"),
        }
    }

    #[test]
    fn version_2_is_written_as_rfc_3768_draws_it() {
        // 2133+6401+0101+c0a8+9664+3131+3131 = 23fa3 -> 3fa5 -> ~ c05a
        let bytes = hex("21 33 64 01 01 01 c05a c0a89664 31313131 00000000");
        assert_eq!(sample().emit(SRC, DST, false), bytes);
        assert_eq!(parse(&bytes, SRC, DST), Ok((sample(), &[][..])));
    }

    #[test]
    fn version_3_has_centiseconds_and_either_checksum_over_ipv4() {
        let advert = Advert { version: VrrpVersion::V3, interval: 100, auth: Default::default(), ..sample() };
        let plain = advert.emit(SRC, DST, true);
        // 3133+6401+0064+c0a8+9664 = 1eca4 -> eca5 -> ~ 135a
        assert_eq!(plain, hex("31 33 64 01 0064 135a c0a89664"));
        let summed = advert.emit(SRC, DST, false);
        // and c0a8+960b+e000+0012+0070+000c more
        assert_eq!(summed, hex("31 33 64 01 0064 dc16 c0a89664"));
        for bytes in [plain, summed] {
            assert_eq!(parse(&bytes, SRC, DST), Ok((advert.clone(), &[][..])));
        }
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        let good = sample().emit(SRC, DST, false);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            parse(&bytes, SRC, DST).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 0x41), WireError::Version);
        assert_eq!(with(0, 0x22), WireError::Kind);
        assert_eq!(with(2, 101), WireError::Checksum);
        assert_eq!(with(3, 2), WireError::Length);
        assert_eq!(parse(&good[..7], SRC, DST).map(|_| ()), Err(WireError::Length));
        assert_eq!(parse(&good[..19], SRC, DST).map(|_| ()), Err(WireError::Length));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), six: bool) {
            let (src, dst) = if six {
                ("fe80::1".parse().unwrap(), "ff02::12".parse().unwrap())
            } else {
                (SRC, DST)
            };
            let _ = parse(&bytes, src, dst);
        }

        #[test]
        fn what_is_written_reads_back(
            three: bool, six: bool, plain: bool, vrid in 1..=255u8, priority: u8, interval in 1..=255u16,
            hosts in proptest::collection::vec(any::<u128>(), 0..20),
        ) {
            let six = six && three;
            let (src, dst): (IpAddr, IpAddr) = if six {
                ("fe80::1".parse().unwrap(), "ff02::12".parse().unwrap())
            } else {
                (SRC, DST)
            };
            let version = if three { VrrpVersion::V3 } else { VrrpVersion::V2 };
            let address = |host: &u128| match six {
                true => IpAddr::V6(Ipv6Addr::from_bits(*host)),
                false => IpAddr::V4(Ipv4Addr::from_bits(*host as u32)),
            };
            let auth = if three { Default::default() } else { (1, *b"password") };
            let addresses = hosts.iter().map(address).collect();
            let advert = Advert { version, vrid, priority, interval, addresses, auth };
            let mut bytes = advert.emit(src, dst, plain);
            bytes.extend([1, 2, 3]);
            prop_assert_eq!(parse(&bytes, src, dst), Ok((advert, &[1, 2, 3][..])));
        }
    }
}

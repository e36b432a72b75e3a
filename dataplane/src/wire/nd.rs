//! Neighbour discovery (RFC 4861): solicitations and advertisements. Router discovery and redirects are not acted on.

use std::net::Ipv6Addr;

use super::icmp::{is_sum_valid6, seal};
use super::ipv6::solicited_node;
use super::{Ip, Mac, PROTOCOL_ICMP6, checksum};
use crate::DropReason;

/// RFC 4861 section 4.1: router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// RFC 4861 section 4.3: neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// RFC 4861 section 4.4: neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;

/// Hop limit of every message: a router would have taken one off (RFC 4861 section 7.1).
pub const HOP_LIMIT: u8 = 255;

/// Length of a message without options, bytes.
const FIXED_LEN: usize = 24;
/// Length of a message with one link-layer address option, bytes.
pub const LEN: usize = FIXED_LEN + 8;

/// RFC 4861 section 4.6.1: source link-layer address.
const SOURCE_LLA: u8 = 1;
/// RFC 4861 section 4.6.1: target link-layer address.
const TARGET_LLA: u8 = 2;

/// The flags of an advertisement, in its fifth byte.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Who has `target`?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicit {
    /// Address that asks; unspecified during duplicate address detection.
    pub src: Ipv6Addr,
    /// Address that the message was sent to.
    pub dst: Ipv6Addr,
    /// Address that is asked for.
    pub target: Ipv6Addr,
    /// Station that asks.
    pub source_lla: Option<Mac>,
}

/// `target` is at `target_lla`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Address that answers.
    pub src: Ipv6Addr,
    /// Address that the message was sent to.
    pub dst: Ipv6Addr,
    /// Address that is advertised.
    pub target: Ipv6Addr,
    /// Its station; may be left out in the answer to a unicast solicitation.
    pub target_lla: Option<Mac>,
    /// The sender is a router.
    pub router: bool,
    /// The message answers a solicitation.
    pub solicited: bool,
    /// `target_lla` replaces one that is known.
    pub overrides: bool,
}

/// A message of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nd {
    /// Neighbour solicitation.
    Solicit(Solicit),
    /// Neighbour advertisement.
    Advert(Advert),
}

/// The Ethernet address in the first option of type `wanted`; options of other types are skipped.
///
/// Errors: [`DropReason::NdMalformed`] when an option has length 0 or is cut short (RFC 4861 section 4.6).
fn link_layer_address(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, DropReason> {
    let mut found = None;
    while let [kind, words, ..] = *options {
        let (option, rest) = match usize::from(words) {
            0 => return Err(DropReason::NdMalformed),
            words => options.split_at_checked(words * 8).ok_or(DropReason::NdMalformed)?,
        };
        if kind == wanted && found.is_none() {
            found = option.get(2..).and_then(|address| address.first_chunk::<6>()).copied();
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(DropReason::NdMalformed) }
}

/// Reads the solicitation or advertisement that fills `payload`, with the checks of RFC 4861 sections 7.1.1 and 7.1.2.
///
/// Errors: [`DropReason::NdMalformed`], [`DropReason::IcmpChecksum`].
pub fn parse(ip: &Ip<Ipv6Addr>, payload: &[u8]) -> Result<Nd, DropReason> {
    let (fixed, options) = payload.split_first_chunk::<FIXED_LEN>().ok_or(DropReason::NdMalformed)?;
    let mut target = [0; 16];
    target.copy_from_slice(&fixed[8..]);
    let target = Ipv6Addr::from(target);
    if ip.ttl != HOP_LIMIT || fixed[1] != 0 || target.is_multicast() {
        return Err(DropReason::NdMalformed);
    }
    if !is_sum_valid6(ip, payload) {
        return Err(DropReason::IcmpChecksum);
    }
    match fixed[0] {
        SOLICITATION => {
            let source_lla = link_layer_address(options, SOURCE_LLA)?;
            let is_probe = ip.src.is_unspecified();
            if is_probe && (source_lla.is_some() || ip.dst != solicited_node(target)) {
                return Err(DropReason::NdMalformed);
            }
            Ok(Nd::Solicit(Solicit { src: ip.src, dst: ip.dst, target, source_lla }))
        }
        ADVERTISEMENT => {
            let target_lla = link_layer_address(options, TARGET_LLA)?;
            let [router, solicited, overrides] =
                [ROUTER, SOLICITED, OVERRIDE].map(|flag| fixed[4] & flag != 0);
            if solicited && ip.dst.is_multicast() || ip.src.is_unspecified() {
                return Err(DropReason::NdMalformed);
            }
            Ok(Nd::Advert(Advert {
                src: ip.src,
                dst: ip.dst,
                target,
                target_lla,
                router,
                solicited,
                overrides,
            }))
        }
        _ => Err(DropReason::NdMalformed),
    }
}

/// Writes a message and its checksum to the front of `payload`; `None`: less than [`LEN`] bytes of room.
pub fn emit(payload: &mut [u8], nd: &Nd) -> Option<usize> {
    let (src, dst, target, kind, flags, option, address) = match nd {
        Nd::Solicit(s) => (s.src, s.dst, s.target, SOLICITATION, 0, SOURCE_LLA, s.source_lla),
        Nd::Advert(a) => {
            let flag = |set: bool, bit: u8| if set { bit } else { 0 };
            let flags = flag(a.router, ROUTER) | flag(a.solicited, SOLICITED) | flag(a.overrides, OVERRIDE);
            (a.src, a.dst, a.target, ADVERTISEMENT, flags, TARGET_LLA, a.target_lla)
        }
    };
    let buffer = payload.first_chunk_mut::<LEN>()?;
    buffer.fill(0);
    buffer[0] = kind;
    buffer[4] = flags;
    buffer[8..24].copy_from_slice(&target.octets());
    let len = match address {
        Some(mac) => {
            buffer[24] = option;
            buffer[25] = 1;
            buffer[26..].copy_from_slice(&mac);
            LEN
        }
        None => FIXED_LEN,
    };
    let pseudo = checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_ICMP6, len);
    seal(&mut buffer[..len], pseudo).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0x100);
    const ASKER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 2);
    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn solicit() -> Solicit {
        Solicit { src: ASKER, dst: solicited_node(TARGET), target: TARGET, source_lla: Some(MAC) }
    }

    fn advert() -> Advert {
        let (router, solicited, overrides) = (false, true, true);
        Advert {
            src: TARGET,
            dst: ASKER,
            target: TARGET,
            target_lla: Some(MAC),
            router,
            solicited,
            overrides,
        }
    }

    fn ip(src: Ipv6Addr, dst: Ipv6Addr, payload: &[u8]) -> Ip<Ipv6Addr> {
        Ip { src, dst, protocol: 58, ttl: 255, ip_len: 40 + payload.len() as u16, header_len: 40, df: true }
    }

    /// Emits, lets `change` act on header and message, seals again and parses.
    fn after(nd: Nd, change: impl Fn(&mut Ip<Ipv6Addr>, &mut Vec<u8>)) -> Result<Nd, DropReason> {
        let mut bytes = [0; LEN];
        let len = emit(&mut bytes, &nd).unwrap();
        let mut payload = bytes[..len].to_vec();
        let (src, dst) = match nd {
            Nd::Solicit(s) => (s.src, s.dst),
            Nd::Advert(a) => (a.src, a.dst),
        };
        let mut header = ip(src, dst, &payload);
        change(&mut header, &mut payload);
        let (src, dst) = (header.src.octets(), header.dst.octets());
        let pseudo = checksum::pseudo_header(&src, &dst, PROTOCOL_ICMP6, payload.len());
        seal(&mut payload, pseudo);
        parse(&header, &payload)
    }

    const MALFORMED: Result<Nd, DropReason> = Err(DropReason::NdMalformed);

    #[test]
    fn every_check_of_rfc_4861_section_7_1_1_refuses() {
        let nd = Nd::Solicit(solicit());
        assert_eq!(after(nd, |_, _| ()), Ok(nd));
        assert_eq!(after(nd, |ip, _| ip.ttl = 254), MALFORMED);
        assert_eq!(after(nd, |_, m| m[1] = 1), MALFORMED, "code");
        assert_eq!(after(nd, |_, m| m[8] = 0xff), MALFORMED, "multicast target");
        assert_eq!(after(nd, |_, m| m[25] = 0), MALFORMED, "option of length 0");
        assert_eq!(after(nd, |_, m| m[25] = 2), MALFORMED, "option past the end");
        for len in (0..24).chain(25..32) {
            assert_eq!(after(nd, |_, m| m.truncate(len)), MALFORMED, "{len} bytes");
        }
        assert_eq!(
            after(nd, |ip, _| ip.src = Ipv6Addr::UNSPECIFIED),
            MALFORMED,
            "probe with an address option"
        );
        let probe = Solicit { src: Ipv6Addr::UNSPECIFIED, source_lla: None, ..solicit() };
        assert_eq!(after(Nd::Solicit(probe), |_, _| ()), Ok(Nd::Solicit(probe)));
        assert_eq!(after(Nd::Solicit(probe), |ip, _| ip.dst = TARGET), MALFORMED, "probe sent to unicast");
    }

    #[test]
    fn every_check_of_rfc_4861_section_7_1_2_refuses() {
        let nd = Nd::Advert(advert());
        assert_eq!(after(nd, |_, _| ()), Ok(nd));
        assert_eq!(after(nd, |ip, _| ip.ttl = 64), MALFORMED);
        assert_eq!(after(nd, |_, m| m[1] = 1), MALFORMED, "code");
        assert_eq!(after(nd, |_, m| m[8] = 0xff), MALFORMED, "multicast target");
        assert_eq!(
            after(nd, |ip, _| ip.dst = super::super::ipv6::ALL_NODES),
            MALFORMED,
            "solicited multicast"
        );
        assert_eq!(after(nd, |_, m| m[25] = 0), MALFORMED, "option of length 0");
        assert_eq!(
            after(nd, |ip, _| ip.src = Ipv6Addr::UNSPECIFIED),
            MALFORMED,
            "from the unspecified address"
        );
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let mut bytes = [0; LEN];
        emit(&mut bytes, &Nd::Solicit(solicit())).unwrap();
        bytes[23] ^= 1;
        let header = ip(ASKER, solicited_node(TARGET), &bytes);
        assert_eq!(parse(&header, &bytes), Err(DropReason::IcmpChecksum));
    }

    #[test]
    fn unknown_options_are_skipped() {
        let got = after(Nd::Solicit(solicit()), |_, m| {
            m.splice(24..24, [14, 1, 0, 0, 0, 0, 0, 0]);
        });
        assert_eq!(got, Ok(Nd::Solicit(solicit())), "nonce before the address (RFC 3971)");
    }

    #[test]
    fn messages_are_those_of_linux_byte_for_byte() {
        let linux = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 2);
        let (router, solicited, overrides) = (false, true, true);
        let lla = Some(MAC);
        let asked =
            Nd::Solicit(Solicit { src: linux, dst: solicited_node(TARGET), target: TARGET, source_lla: lla });
        let answer =
            Advert { src: linux, dst: TARGET, target: linux, target_lla: lla, router, solicited, overrides };
        for (name, nd) in [("solicitation", asked), ("advertisement", Nd::Advert(answer))] {
            let recorded = super::super::samples::frame(name);
            let mut bytes = [0; LEN];
            assert_eq!(emit(&mut bytes, &nd), Some(LEN));
            assert_eq!(bytes, recorded[54..], "{name}");
            let ip = super::super::ipv6::parse(&recorded[14..]).unwrap();
            assert_eq!(parse(&ip, &recorded[54..]), Ok(nd));
        }
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(src: u128, dst: u128, target: u128, lla: Option<[u8; 6]>, flags: [bool; 3]) {
            let unicast = |bits: u128| Ipv6Addr::from_bits((bits >> 8) | (0xfd << 120));
            let (src, dst, target) = (unicast(src), unicast(dst), unicast(target));
            let [router, solicited, overrides] = flags;
            let solicit = Nd::Solicit(Solicit { src, dst, target, source_lla: lla });
            let advert = Nd::Advert(Advert { src, dst, target, target_lla: lla, router, solicited, overrides });
            for nd in [solicit, advert] {
                let mut bytes = [0xff; LEN];
                let len = emit(&mut bytes, &nd).unwrap();
                prop_assert_eq!(parse(&ip(src, dst, &bytes[..len]), &bytes[..len]), Ok(nd));
            }
        }

        #[test]
        fn arbitrary_options_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = link_layer_address(&bytes, SOURCE_LLA);
            let _ = parse(&ip(ASKER, TARGET, &bytes), &bytes);
        }
    }
}

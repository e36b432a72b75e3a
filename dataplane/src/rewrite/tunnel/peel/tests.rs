//! Errors about our own outer packets, made by the director's own errors about them.

use proptest::prelude::*;

use super::*;
use crate::parse::parse;
use crate::respond::{self, ErrorFrom, IcmpError};
use crate::rewrite::tunnel::{Encap, TunnelChecksum, TunnelPlan, encapsulate};
use crate::wire::Link;
use crate::wire::samples::{TestPacket, frame};

const KINDS: [TunnelKind; 4] = [
    TunnelKind::Ipip,
    TunnelKind::Gue { port: 6080, checksum: TunnelChecksum::Full },
    TunnelKind::Gre { checksum: false },
    TunnelKind::Gre { checksum: true },
];

fn encap(kind: TunnelKind, six: bool) -> Encap {
    let (local, remote) = if six { ("fd00:b::1", "fd00:b::11") } else { ("10.1.0.1", "10.1.0.11") };
    let plan =
        TunnelPlan { kind, local: local.parse().unwrap(), remote: remote.parse().unwrap(), link_mtu: 1500 };
    Encap::new(&plan).unwrap()
}

/// The client's frame, and a router's error about it once it is in the tunnel.
fn errored(name: &str, kind: TunnelKind, six: bool, error: IcmpError) -> (Vec<u8>, Vec<u8>) {
    let bytes = frame(name);
    let mut packet = TestPacket::new(&bytes);
    assert!(encapsulate(&mut packet, &parse(&bytes).unwrap(), &encap(kind, six), 0, 1));
    let link = Link { mac: [2, 0, 0, 0, 0, 9], vlan: 0 };
    let mut out = vec![0; respond::MAX_ERROR6_LEN];
    let outer = &packet.bytes()[14..];
    let len = if six {
        let src = "fd00:b::99".parse().unwrap();
        respond::icmp_error6(&mut out, outer, error, &ErrorFrom { link, to: [2; 6], src, id: 3 })
    } else {
        let src = "10.1.0.99".parse().unwrap();
        respond::icmp_error4(&mut out, outer, error, &ErrorFrom { link, to: [2; 6], src, id: 3 })
    };
    out.truncate(len.unwrap());
    (bytes, out)
}

/// What the client gets, and what was read.
fn relayed(error: &[u8]) -> (Peeled, Option<Vec<u8>>) {
    let padded = [error, &[0; 4]].concat();
    let parsed = parse(&padded).unwrap();
    let peeled = peel(&padded, &parsed).expect("a tunnel's packet");
    let mut packet = TestPacket::new(&padded);
    let sent = relay(&mut packet, &parsed, &peeled, 77);
    (peeled, sent.then(|| packet.bytes().to_vec()))
}

#[test]
fn the_client_gets_the_error_as_if_about_its_own_packet() {
    for (kind, six, name) in KINDS.into_iter().flat_map(|kind| {
        [(false, "tcp4"), (true, "tcp4"), (false, "tcp6"), (true, "tcp6")]
            .map(|(six, name)| (kind, six, name))
    }) {
        let overhead = encap(kind, six).overhead();
        for (error, mtu, kind4, kind6) in [
            (IcmpError::TooBig { mtu: 1400 }, Some(1400 - overhead), (3, 4), (2, 0)),
            (IcmpError::TimeExceeded, None, (11, 0), (3, 0)),
        ] {
            let (sent, about) = errored(name, kind, six, error);
            let (peeled, out) = relayed(&about);
            assert!(peeled.wrap.is_of(&kind) && peeled.mtu == mtu, "{kind:?} {six} {name}");
            assert_eq!(
                peeled.remote,
                if six { "fd00:b::11" } else { "10.1.0.11" }.parse::<IpAddr>().unwrap()
            );
            let out = out.expect("an error");
            match (parse(&sent).unwrap().net, parse(&out).expect("a valid error").net) {
                (Net::Flow4(flow), Net::Icmp4(icmp)) => {
                    assert_eq!((icmp.src, icmp.dst, (icmp.kind, icmp.code)), (flow.dst, flow.src, kind4));
                    let inner = icmp.inner.expect("a quote");
                    assert_eq!((inner.src, inner.src_port), (flow.src, flow.src_port));
                    assert_eq!(out[42..], sent[14..], "the quote is the packet that the client sent");
                    // as Linux: the upper bits say internetwork control, the lower ones are the packet's
                    assert_eq!(out[15], 0xc0 | 0xb8 & 0x1e);
                    assert_eq!(u16::from_be_bytes([out[40], out[41]]), mtu.unwrap_or(0));
                }
                (Net::Flow6(flow), Net::Icmp6(icmp)) => {
                    assert_eq!((icmp.src, icmp.dst, (icmp.kind, icmp.code)), (flow.dst, flow.src, kind6));
                    assert_eq!(out[62..], sent[14..]);
                    assert_eq!(u16::from_be_bytes([out[60], out[61]]), mtu.unwrap_or(0));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_client_that_allows_fragments_is_told_nothing_about_sizes() {
    let (_, about) = errored("tcp4", TunnelKind::Ipip, true, IcmpError::TooBig { mtu: 1400 });
    let mut without_df = about.clone();
    let at = 14 + 40 + 8 + 40 + 6;
    assert_eq!(without_df[at], 0x40);
    without_df[at] = 0;
    // the message's checksum grows by what the flags lose
    let sum = u16::from_be_bytes([without_df[56], without_df[57]]);
    without_df[56..58].copy_from_slice(&checksum::update(sum, 0x4000, 0).to_be_bytes());
    let (peeled, out) = relayed(&without_df);
    assert_eq!((peeled.mtu, out), (Some(1360), None));
    assert!(relayed(&about).1.is_some());
}

#[test]
fn what_is_no_tunnel_of_ours_is_not_peeled() {
    for name in ["error4", "error6", "echo4", "tcp4", "arp"] {
        let bytes = frame(name);
        assert_eq!(peel(&bytes, &parse(&bytes).unwrap()), None, "{name}");
    }
    let (_, about) = errored("tcp4", KINDS[2], false, IcmpError::TimeExceeded);
    for (at, value) in [(62, 0x20), (62, 0x10), (63, 1)] {
        // GRE with a key, with a sequence number, of version 1
        let mut changed = about.clone();
        let parsed = parse(&about).unwrap();
        changed[at] = value;
        assert_eq!(peel(&changed, &parsed), None);
    }
    assert!(!Wrap::Gue(6081).is_of(&KINDS[1]) && !Wrap::Gre.is_of(&TunnelKind::Ipip));
}

#[test]
fn a_small_mtu_is_passed_on_as_ipvs_does() {
    let (_, about) = errored("tcp4", TunnelKind::Ipip, false, IcmpError::TooBig { mtu: 88 });
    assert_eq!(relayed(&about).0.mtu, Some(88));
    let (_, about) = errored("tcp4", TunnelKind::Ipip, false, IcmpError::TooBig { mtu: 89 });
    assert_eq!(relayed(&about).0.mtu, Some(69));
}

#[test]
fn a_quote_that_ends_before_the_inner_ports_is_not_peeled() {
    for (kind, six) in [(KINDS[0], false), (KINDS[1], true), (KINDS[3], false)] {
        let (_, about) = errored("tcp4", kind, six, IcmpError::TimeExceeded);
        let parsed = parse(&about).unwrap();
        let ports = about.len() - 40 + 24;
        for len in 0..about.len() {
            assert!(peel(&about[..len], &parsed).is_none(), "{len}: not as long as it says");
            let ip_len = len.saturating_sub(14) as u16;
            let net = match parsed.net {
                Net::Icmp4(icmp) => Net::Icmp4(Icmp { ip_len, ..icmp }),
                Net::Icmp6(icmp) => Net::Icmp6(Icmp { ip_len, ..icmp }),
                other => other,
            };
            assert_eq!(
                peel(&about[..len], &Parsed { net, ..parsed }).is_some(),
                len >= ports,
                "{kind:?} {len}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_quote_is_peeled_or_left(
        bytes in proptest::collection::vec(any::<u8>(), 0..160),
        at in 0usize..120,
        kind in 0usize..4,
        six in any::<bool>(),
    ) {
        let (_, mut about) = errored("tcp4", KINDS[kind], six, IcmpError::TooBig { mtu: 1400 });
        let parsed = parse(&about).unwrap();
        for (to, from) in about.iter_mut().skip(42 + at).zip(bytes) {
            *to = from;
        }
        if let Some(peeled) = peel(&about, &parsed) {
            relay(&mut TestPacket::new(&about), &parsed, &peeled, 1);
        }
    }
}

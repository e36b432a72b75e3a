//! Datagrams cut, wrapped and put together again.

use proptest::prelude::*;

use super::super::TunnelKind;
use super::super::tests::{KINDS, plan, unwrapped};
use super::*;
use crate::wire::samples::{TestPacket, frame};

/// A UDP packet of so many bytes of payload, without DF, as a frame.
fn packet(name: &str, payload: usize) -> Vec<u8> {
    let mut bytes = frame(name);
    let l4 = if name == "udp4" { 34 } else { 54 };
    bytes.truncate(l4 + 8);
    bytes.extend((8..payload).map(|n| (n / 8 + n) as u8));
    bytes[l4 + 4..l4 + 6].copy_from_slice(&(payload as u16).to_be_bytes());
    if name == "udp4" {
        bytes[16..18].copy_from_slice(&(20 + payload as u16).to_be_bytes());
        bytes[20] = 0;
        bytes[24..26].fill(0);
        let sum = checksum::finish(checksum::add(0, &bytes[14..34]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        bytes[18..20].copy_from_slice(&(payload as u16).to_be_bytes());
    }
    bytes
}

/// Its fragments for a link of `mtu`.
fn fragments(whole: &[u8], mtu: u16) -> Vec<TestPacket> {
    let cut = Fragments::plan(whole, 14, mtu, 0x1234_5678).expect("a plan");
    let one = |n| {
        let mut out = vec![0; cut.frame_len(n).unwrap()];
        cut.write(whole, n, &mut out).unwrap();
        // padding of the link does not matter
        out.extend([0xee; 5]);
        TestPacket::new(&out)
    };
    (0..cut.count()).map(one).collect()
}

/// Everything that is written, and the outer packet put together.
fn gathered(frames: &[TestPacket], encap: &Encap) -> (Vec<Vec<u8>>, Vec<u8>) {
    let gather = Gather::plan(frames, encap, 7, 0xabcd_0001).expect("a datagram");
    let mut out = vec![0xcc; 3000];
    let written: Vec<_> = (0..gather.count())
        .map(|n| {
            let len = gather.write(n, &mut out).expect("a frame");
            assert_eq!(gather.write(n, &mut vec![0; len - 1]), None, "no room");
            out[14..len].to_vec()
        })
        .collect();
    assert_eq!(gather.write(gather.count(), &mut out), None);
    let is_v4 = written[0][0] >> 4 == 4;
    let headers = if is_v4 { 20 } else { 48 };
    if written.len() == 1 {
        return (written.clone(), written[0].clone());
    }
    let payload: Vec<u8> = written.iter().flat_map(|packet| packet[headers..].to_vec()).collect();
    let mut outer = written[0][..if is_v4 { 20 } else { 40 }].to_vec();
    if is_v4 {
        outer[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        outer[6..8].fill(0);
        outer[10..12].fill(0);
        let sum = checksum::finish(checksum::add(0, &outer));
        outer[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        outer[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        outer[6] = written[0][40];
    }
    outer.extend(payload);
    (written, outer)
}

#[test]
fn every_kind_carries_the_datagram_as_if_it_had_come_whole() {
    for (kind, six, name) in KINDS.into_iter().flat_map(|kind: TunnelKind| {
        [(false, "udp4"), (true, "udp4"), (false, "udp6"), (true, "udp6")]
            .map(|(six, name)| (kind, six, name))
    }) {
        let encap = Encap::new(&plan(kind, six, 1500)).unwrap();
        let whole = packet(name, 3001);
        let (written, outer) = gathered(&fragments(&whole, 1400), &encap);
        assert_eq!(unwrapped(&outer, kind).1, &whole[14..], "{kind:?} {six} {name}");
        assert!(
            written.len() == 3 && written.iter().all(|packet| packet.len() <= 1400),
            "{kind:?} {six} {name}"
        );
    }
}

#[test]
fn a_datagram_that_fits_leaves_in_one_packet() {
    let encap = Encap::new(&plan(KINDS[0], false, 1500)).unwrap();
    let whole = packet("udp4", 700);
    // the largest fragment that came bounds what leaves
    let (written, outer) = gathered(&fragments(&whole, 600), &encap);
    assert_eq!((written.len(), unwrapped(&outer, KINDS[0]).1), (2, &whole[14..]));
    let (written, outer) =
        gathered(&fragments(&packet("udp4", 85), 100), &Encap::new(&plan(KINDS[0], true, 1500)).unwrap());
    assert_eq!((written.len(), outer.len()), (1, 40 + 105), "IPv6 takes 1280 bytes at least");
}

#[test]
fn what_is_no_whole_datagram_in_order_has_no_plan() {
    let encap = Encap::new(&plan(KINDS[1], false, 1500)).unwrap();
    let whole = packet("udp4", 3000);
    let all = || fragments(&whole, 1400);
    let is_none = |frames: &[TestPacket]| Gather::plan(frames, &encap, 0, 0).is_none();
    assert!(!is_none(&all()));
    assert!(is_none(&[]) && is_none(&all()[..2]) && is_none(&all()[1..]));
    let mut swapped = all();
    swapped.swap(0, 1);
    assert!(is_none(&swapped));
    let mut twice = all();
    twice.extend(all());
    assert!(is_none(&twice), "something behind the last one");
    let mut other = all();
    other[1] = TestPacket::new(&frame("udp6"));
    assert!(is_none(&other));
}

proptest! {
    #[test]
    fn any_size_and_any_links_carry_the_datagram(
        payload in 60usize..5000,
        (came, leaves) in (150u16..1500, 1340u16..9000),
        kind in 0usize..6,
        outer6 in any::<bool>(),
        inner6 in any::<bool>(),
    ) {
        let whole = packet(if inner6 { "udp6" } else { "udp4" }, payload);
        let encap = Encap::new(&plan(KINDS[kind], outer6, leaves)).unwrap();
        let frames = fragments(&whole, came);
        if payload > usize::from(came) {
            let (written, outer) = gathered(&frames, &encap);
            prop_assert_eq!(unwrapped(&outer, KINDS[kind]).1, &whole[14..]);
            prop_assert!(written.iter().all(|packet| packet.len() <= usize::from(leaves)));
        }
    }

    #[test]
    fn any_bytes_are_gathered_or_left(
        bytes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..4),
        flips in proptest::collection::vec((0usize..3, 0usize..80, any::<u8>()), 0..4),
        honest in any::<bool>(),
    ) {
        let mut frames: Vec<Vec<u8>> = if honest {
            fragments(&packet("udp4", 200), 100).iter().map(|frame| frame.bytes().to_vec()).collect()
        } else {
            bytes
        };
        for (frame, at, value) in flips {
            if let Some(byte) = frames.get_mut(frame).and_then(|frame| frame.get_mut(at)) {
                *byte = value;
            }
        }
        let frames: Vec<_> = frames.iter().map(|frame| TestPacket::new(frame)).collect();
        let encap = Encap::new(&plan(KINDS[2], true, 1500)).unwrap();
        if let Some(gather) = Gather::plan(&frames, &encap, 1, 2) {
            for n in 0..gather.count() {
                prop_assert!(gather.write(n, &mut [0; 2000]).is_some());
            }
        }
    }
}

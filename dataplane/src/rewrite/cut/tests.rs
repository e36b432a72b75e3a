//! Cutting against putting together.

use proptest::prelude::*;

use super::*;
use crate::wire::samples::{TestPacket, hex};

/// An IPv4 packet with these options, flags and offset, and a payload of rising bytes.
fn packet4(options: &[u8], word: u16, payload: usize) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = hex("45000000 1234 0000 40110000 c0a80102 0a000064");
    packet[0] = 0x40 | (header_len / 4) as u8;
    packet[2..4].copy_from_slice(&((header_len + payload) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&word.to_be_bytes());
    packet.extend(options);
    let sum = checksum::finish(checksum::add(0, &packet));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend((0..payload).map(|n| (n / 8 + n) as u8));
    packet
}

fn packet6(payload: usize) -> Vec<u8> {
    let mut packet = hex("6b800000 0000 04 3f");
    packet[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    packet.extend([0xfd; 32]);
    packet.extend((0..payload).map(|n| (n / 8 + n) as u8));
    packet
}

const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0];

/// All fragments of `packet`, without their Ethernet headers, the first one made in place.
fn cut(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let frame = [&LINK[..], packet, &[0; 3]].concat();
    let plan = Fragments::plan(&frame, 14, mtu, 0xabcd_ef01).expect("a plan");
    let mut fragments: Vec<_> = (0..plan.count())
        .map(|n| {
            let mut out = vec![0xee; 4000];
            let len = plan.write(&frame, n, &mut out).expect("a fragment");
            assert_eq!((Some(len), &out[..14], out[len]), (plan.frame_len(n), &LINK[..], 0xee));
            out[14..len].to_vec()
        })
        .collect();
    assert_eq!(
        (plan.write(&frame, plan.count(), &mut [0; 4000]), plan.frame_len(plan.count())),
        (None, None)
    );
    assert_eq!(plan.write(&frame, 0, &mut vec![0; plan.frame_len(0).unwrap() - 1]), None);
    let mut first = TestPacket::new(&frame);
    assert!(plan.keep_first(&mut first));
    assert_eq!(first.bytes()[..14], LINK);
    assert_eq!(first.bytes()[14..], fragments[0][..]);
    fragments[0] = first.bytes()[14..].to_vec();
    fragments
}

/// Offset, whether more follow, header length and payload of an IPv4 fragment; its header is checked.
fn read4(fragment: &[u8]) -> (usize, bool, usize, &[u8]) {
    let header_len = usize::from(fragment[0] & 15) * 4;
    assert!(checksum::is_valid(checksum::add(0, &fragment[..header_len])));
    assert_eq!(usize::from(u16::from_be_bytes([fragment[2], fragment[3]])), fragment.len());
    let word = u16::from_be_bytes([fragment[6], fragment[7]]);
    (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0, header_len, &fragment[header_len..])
}

#[test]
fn an_ipv4_packet_is_cut_as_linux_cuts_it() {
    // wire.json, mtu-dr: 1500 bytes over a link of 1400
    let fragments = cut(&packet4(&[], 0, 1480), 1400);
    let lens: Vec<_> = fragments.iter().map(|f| (f.len(), read4(f).0, read4(f).1)).collect();
    assert_eq!(lens, [(1396, 0, true), (124, 1376, false)]);
    assert!(fragments.iter().all(|f| f[4..6] == [0x12, 0x34]), "identification");
}

#[test]
fn a_fragment_is_cut_again_and_its_df_goes() {
    let fragments = cut(&packet4(&[], 0x6000 | 100, 200), 120);
    let parts: Vec<_> = fragments.iter().map(|f| (read4(f).0, read4(f).1, read4(f).3.len())).collect();
    assert_eq!(parts, [(800, true, 96), (896, true, 96), (992, true, 8)]);
    let last = cut(&packet4(&[], 100, 200), 120);
    assert!(!read4(&last[2]).1);
}

#[test]
fn later_fragments_carry_the_options_that_are_copied() {
    // record route is not, strict source route is; a NOP between, an end behind
    let options = hex("07070400000000 01 89070400000000 00");
    let fragments = cut(&packet4(&options, 0, 100), 80);
    assert_eq!(fragments[0][20..36], options);
    assert_eq!(fragments[1][20..36], hex("01010101010101 01 89070400000000 00"));
    let again = cut(&packet4(&options, 10, 100), 80);
    assert_eq!(again[1][20..36], options, "a later fragment has been through this");
    for broken in ["07 ff 0000", "83 00 0000", "07 00 0000", "01 01 01 07"] {
        assert_eq!(cut(&packet4(&hex(broken), 0, 100), 80).len(), 2, "{broken}");
    }
}

#[test]
fn an_ipv6_packet_gets_fragment_headers() {
    let fragments = cut(&packet6(2000), 1280);
    assert_eq!(fragments.iter().map(Vec::len).collect::<Vec<_>>(), [1280, 816]);
    assert_eq!(fragments[0][4..8], [0x04, 0xd8, 44, 0x3f]);
    assert_eq!(fragments[0][40..48], [4, 0, 0, 1, 0xab, 0xcd, 0xef, 0x01]);
    assert_eq!(fragments[1][40..48], [4, 0, 0x04, 0xd0, 0xab, 0xcd, 0xef, 0x01]);
    assert_eq!([&fragments[0][48..], &fragments[1][48..]].concat(), packet6(2000)[40..]);
    assert_eq!(fragments[1][..4], [0x6b, 0x80, 0, 0], "traffic class and label");
}

#[test]
fn what_cannot_be_cut_has_no_plan() {
    let with_link = |packet: &[u8]| [&LINK[..], packet].concat();
    let plan = |packet: &[u8], mtu| Fragments::plan(&with_link(packet), 14, mtu, 0);
    assert_eq!(plan(&packet4(&[], 0, 100), 27), None, "not even 8 bytes fit");
    assert_eq!(plan(&packet6(100), 55), None);
    assert_eq!(plan(&packet4(&[], 0, 1000), 28), None, "too many");
    assert_eq!(plan(&packet4(&[], 0, 0), 100), None, "nothing in it");
    assert_eq!(plan(&packet4(&[], 0x1fff, 16), 100), None, "past the largest offset");
    assert_eq!(plan(&packet4(&[], 0, 100)[..119], 100), None, "cut short");
    assert_eq!(plan(&[0x15; 40], 100), None, "neither family");
    let plan = Fragments::plan(&with_link(&packet6(2000)), 14, 1280, 0).unwrap();
    assert!(!plan.keep_first(&mut TestPacket::with_headroom(&with_link(&packet6(2000)), 7)));
}

proptest! {
    #[test]
    fn fragments_put_together_are_the_packet(payload in 1usize..3000, mtu in 128u16..2000, words in 0usize..4) {
        let packet = packet4(&hex("07040000".repeat(words).as_str()), 0, payload);
        let fragments = cut(&packet, mtu);
        let mut whole = Vec::<u8>::new();
        for (n, fragment) in fragments.iter().enumerate() {
            let (offset, more, header_len, part) = read4(fragment);
            prop_assert_eq!((offset, more, header_len), (whole.len(), n + 1 < fragments.len(), 20 + 4 * words));
            prop_assert!(fragment.len() <= usize::from(mtu));
            whole.extend(part);
        }
        prop_assert_eq!(&whole[..], &packet[20 + 4 * words..]);
    }

    #[test]
    fn any_bytes_are_cut_or_left(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        v6 in any::<bool>(),
        mtu in any::<u16>(),
    ) {
        let mut bytes = [&LINK[..], &[if v6 { 0x60 } else { 0x45 }, 0, 0, 60], &bytes].concat();
        if let Some(plan) = Fragments::plan(&bytes, 14, mtu, 1) {
            let mut out = [0; 2000];
            for n in 0..plan.count() {
                prop_assert!(plan.write(&bytes, n, &mut out).is_some());
            }
            prop_assert!(plan.keep_first(&mut TestPacket::new(&bytes)));
        }
        bytes.truncate(20);
        prop_assert!(Fragments::plan(&bytes, 14, mtu, 1).is_none());
    }
}

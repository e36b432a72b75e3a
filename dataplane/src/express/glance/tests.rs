//! Calm, plain and parsed: the three agree on every frame.

use proptest::prelude::*;

use super::*;
use crate::conn::{HashKey, Key4, Key6, Table};
use crate::express::see::{Gate, IPV4, IPV6, TRAFFIC_CLASS};
use crate::io::DeviceId;
use crate::parse::parse;
use crate::wide::{Wide, Work};
use crate::wire::checksum;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

/// A frame to [`MAC`] with right lengths and, of IPv4, a right checksum, after which some bytes are changed.
#[derive(Clone, Debug)]
struct Draft {
    v6: bool,
    udp: bool,
    flags: u8,
    ttl: u8,
    offset: u8,
    data: usize,
    padding: usize,
    source: [u8; 16],
    damage: Vec<(usize, u8)>,
    summed: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let numbers = (prop_oneof![Just(16u8), Just(24), any::<u8>()], prop_oneof![Just(64u8), 0u8..3], 0u8..16);
    let lengths = (0usize..80, 0usize..20);
    let source = prop_oneof![
        any::<[u8; 16]>(),
        any::<[u8; 16]>().prop_map(|mut source| {
            source[0] = 127;
            source
        }),
        Just([0; 16]),
        Just([0xff; 16]),
        Just(1u128.to_be_bytes()),
    ];
    let damage = prop_oneof![Just(Vec::new()), proptest::collection::vec((0usize..80, any::<u8>()), 1..3),];
    (any::<(bool, bool, bool)>(), numbers, lengths, source, damage).prop_map(
        |((v6, udp, summed), (flags, ttl, offset), (data, padding), source, damage)| {
            let offset = if offset < 8 { 5 } else { offset };
            Draft { v6, udp, flags, ttl, offset, data, padding, source, damage, summed }
        },
    )
}

fn frame(draft: &Draft) -> Vec<u8> {
    let mut l4 = vec![0x9c, 0x40, 0, 80];
    if draft.udp {
        l4.extend((8 + draft.data as u16).to_be_bytes());
        l4.extend([0, 0]);
    } else {
        l4.extend([0, 0, 0, 9, 0, 0, 0, 5, draft.offset << 4, draft.flags, 1, 0, 0, 0, 0, 0]);
    }
    l4.extend(vec![7; draft.data]);
    let protocol = if draft.udp { 17 } else { 6 };
    let [a, b] = (l4.len() as u16 + if draft.v6 { 0 } else { 20 }).to_be_bytes();
    let mut frame = [&MAC[..], &[2, 0, 0, 0, 0, 1]].concat();
    if draft.v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, a, b, protocol, draft.ttl]);
        frame.extend(draft.source);
        frame.extend([0xfd; 16]);
    } else {
        frame.extend([8, 0, 0x45, 0, a, b, 0, 1, 0x40, 0, draft.ttl, protocol, 0, 0]);
        frame.extend(&draft.source[..4]);
        frame.extend([192, 168, 150, 100]);
    }
    frame.extend(l4);
    frame.extend(vec![0; draft.padding]);
    for (at, byte) in &draft.damage {
        if let Some(old) = frame.get_mut(*at) {
            *old = *byte;
        }
    }
    if draft.summed && !draft.v6 {
        frame[24..26].fill(0);
        let sum = checksum::finish(checksum::add(0, &frame[14..34])).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
    }
    frame
}

/// What is written down of a calm packet, whatever the instructions.
fn calm_at<K: Plain>(frame: &[u8], to: u64) -> Option<(K, Noted)> {
    struct Glance<'a, K: Plain>(&'a [u8], Looks, Row<K>, Prober<'a, K>);
    impl<K: Plain> Work for Glance<'_, K> {
        type Out = Option<(K, Noted)>;

        #[inline(always)]
        fn run<L: Level>(mut self, level: L) -> Self::Out {
            let Self(frame, looks, row, prober) = &mut self;
            K::note_calm(level, frame, looks, row, prober).then_some((row.key, row.noted))
        }
    }
    let table = Table::<K>::with_lines(64, 64, HashKey([1, 2, 3, 5])).expect("memory");
    let glance = || Some(Glance(frame, K::looks(to)?, Row::none(), table.prober()));
    let (every, wide) = (Wide::NO.run(glance()?), Wide::of_this_processor().run(glance()?));
    assert_eq!(every, wide);
    every
}

/// What must hold of one family; whether the frame is plain, and calm.
fn check<K: Plain>(frame: &[u8], is_kind: bool) -> (bool, bool)
where
    K::Address: Address,
{
    let to = Gate::raw(MAC);
    let plain = is_kind.then(|| K::glance(frame)).flatten();
    let calm = calm_at::<K>(frame, to);
    assert!(!frame.starts_with(&MAC) || calm_at::<K>(frame, to ^ 1 << 16).is_none(), "another station's");
    assert!(calm_at::<K>(frame, Gate::NONE).is_none(), "nobody's");
    if let Some((key, noted)) = calm {
        let (same, other) = plain.expect("what is calm is plain");
        assert_eq!((key, noted), (same, other));
        assert!(noted.is_calm_tcp() != noted.is_calm_udp());
    }
    if let Some((key, noted)) = plain {
        assert_eq!(calm.is_some(), noted.is_calm_tcp() || noted.is_calm_udp(), "what leaves all as it is");
        let row = Row { key, noted, ..Row::none() };
        let packet = Packet { row: &row, key: &key, fresh: true };
        match parse(frame) {
            Ok(parsed) => assert_eq!((packet.parsed(packet.flow(frame)), key.may_send()), (parsed, true)),
            Err(reason) => assert_eq!((reason, key.may_send()), (K::BAD_SOURCE, false)),
        }
    }
    (plain.is_some(), calm.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 16 } else { 20_000 }, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_at_a_glance_is_what_the_parser_says(draft in draft()) {
        let frame = frame(&draft);
        let gate = Gate { device: DeviceId(0), mac: Gate::raw(MAC) };
        let kind = gate.kind(&frame);
        let (is4, is6) = (kind == IPV4, kind & !TRAFFIC_CLASS == IPV6);
        let seen = [check::<Key4>(&frame, is4), check::<Key6>(&frame, is6)];
        if draft.damage.is_empty() && frame.len() >= if draft.v6 { HEAD6 } else { HEAD4 } {
            let (plain, calm) = seen[usize::from(draft.v6)];
            let whole = draft.udp || usize::from(draft.offset) * 4 <= 20 + draft.data;
            // a sum that nobody worked out is right once in 65,536 frames
            let summed = draft.v6 || checksum::finish(checksum::add(0, &frame[14..34])) == 0;
            prop_assert!(summed || !draft.summed);
            prop_assert_eq!(plain, whole && summed, "it is not damaged");
            let quiet = draft.udp || draft.flags & 0x17 == 0x10;
            prop_assert_eq!(calm, plain && quiet && draft.ttl > 1);
        }
    }
}

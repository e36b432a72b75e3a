//! Datagrams cut and shuffled, and senders who mean no good.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::DropReason;
use crate::parse::{Head, TcpFlags};

const SECOND: u64 = 1_000_000_000;
const FLOW: Resolved = Resolved { protocol: L4::Udp, ports: Ports { src: 5000, dst: 80 } };

fn fragment(id: u32, offset: u16, len: u16, more: bool) -> Fragment<Ipv4Addr> {
    let head =
        Head { protocol: L4::Udp, ports: FLOW.ports, tcp_flags: TcpFlags(0), event: Default::default() };
    Fragment {
        src: Ipv4Addr::new(192, 168, 1, 2),
        dst: Ipv4Addr::new(10, 0, 0, 100),
        id,
        protocol: 17,
        offset,
        len,
        more,
        head: (offset == 0).then_some(head),
        l4: 34,
        ttl: 64,
        ip_len: len + 20,
        df: false,
    }
}

/// A map whose frames are their own offsets, and what came of them.
struct Lab {
    map: Datagrams<u16>,
    given: usize,
    gone: usize,
    lost: Vec<DropReason>,
}

impl Lab {
    fn new(datagrams: u16, held: u16) -> Self {
        let map = Datagrams::new(Limits { datagrams, held, release: Release::Early });
        Self { map, given: 0, gone: 0, lost: Vec::new() }
    }

    fn whole(datagrams: u16, held: u16) -> Self {
        let map = Datagrams::new(Limits { datagrams, held, release: Release::Whole });
        Self { map, ..Self::new(0, 0) }
    }

    /// The offsets that go on.
    fn give_at(&mut self, now_ns: u64, fragment: &Fragment<Ipv4Addr>) -> Vec<u16> {
        let mut ready = Ready::new();
        let lost = &mut self.lost;
        let resolved = self.map.admit(now_ns, fragment, fragment.offset, &mut ready, &mut |r| lost.push(r));
        assert_eq!(resolved, (!ready.is_empty()).then_some(FLOW));
        self.given += 1;
        self.gone += ready.len();
        assert_eq!(self.given, self.gone + self.lost.len() + self.map.held(), "conserved");
        ready.to_vec()
    }

    fn give(&mut self, id: u32, offset: u16, len: u16, more: bool) -> Vec<u16> {
        self.give_at(0, &fragment(id, offset, len, more))
    }
}

#[test]
fn fragments_in_order_pass_and_leave_nothing() {
    let mut lab = Lab::new(4, 4);
    assert_eq!(lab.give(1, 0, 1480, true), [0]);
    assert_eq!(lab.give(1, 1480, 1480, true), [1480]);
    assert_eq!((lab.map.len(), lab.map.is_empty()), (1, false));
    assert_eq!(lab.give(1, 2960, 48, false), [2960]);
    assert!(lab.map.is_empty() && lab.lost.is_empty());
    assert_eq!(lab.give(1, 0, 1480, true), [0], "the identification may be used again at once");
}

#[test]
fn what_comes_before_the_first_fragment_waits_and_follows_it_in_order() {
    let mut lab = Lab::new(4, 8);
    assert_eq!(lab.give(1, 2960, 48, false), [] as [u16; 0]);
    assert_eq!(lab.give(1, 1480, 1480, true), [] as [u16; 0]);
    assert_eq!(lab.map.held(), 2);
    assert_eq!(lab.give(1, 0, 1480, true), [0, 1480, 2960]);
    assert!(lab.map.is_empty());
}

#[test]
fn the_owner_of_the_flow_sends_whole_datagrams() {
    for order in [[0, 1480, 2960], [2960, 1480, 0], [1480, 2960, 0], [1480, 0, 2960]] {
        let mut lab = Lab::whole(4, 16);
        for offset in &order[..2] {
            assert_eq!(
                lab.give(1, *offset, if *offset == 2960 { 48 } else { 1480 }, *offset != 2960),
                [] as [u16; 0]
            );
        }
        let last = order[2];
        assert_eq!(lab.give(1, last, if last == 2960 { 48 } else { 1480 }, last != 2960), [0, 1480, 2960]);
        assert!(lab.map.is_empty() && lab.map.held() == 0);
    }
    let mut lab = Lab::whole(4, 16);
    assert_eq!(lab.give(1, 0, 80, true), [] as [u16; 0]);
    assert_eq!(lab.give(1, 160, 8, false), [] as [u16; 0]);
    assert_eq!(lab.give(1, 40, 80, true), [] as [u16; 0], "an overlap: nothing of it goes on, ever");
    assert_eq!(lab.give(1, 80, 80, true), [] as [u16; 0]);
    assert_eq!(lab.lost, [DropReason::FragmentOverlap; 4]);
    assert_eq!(lab.give(2, 0, 80, true), [] as [u16; 0]);
    let lost = &mut lab.lost;
    lab.map.expire(30 * SECOND, 9, &mut |r| lost.push(r));
    assert_eq!(lab.lost[4..], [DropReason::FragmentExpired], "the last one never came");
}

#[test]
fn datagrams_are_told_apart_by_every_part_of_their_key() {
    let mut lab = Lab::new(16, 16);
    let base = fragment(1, 0, 8, true);
    assert_eq!(lab.give_at(0, &base), [0]);
    let later = Fragment { offset: 8, head: None, ..base };
    for other in [
        Fragment { id: 2, ..later },
        Fragment { src: Ipv4Addr::new(192, 168, 1, 3), ..later },
        Fragment { dst: Ipv4Addr::new(10, 0, 0, 101), ..later },
        Fragment { protocol: 6, ..later },
    ] {
        assert_eq!(lab.give_at(0, &other), [] as [u16; 0]);
    }
    assert_eq!(lab.give_at(0, &later), [8]);
}

#[test]
fn a_duplicate_is_dropped_alone_and_an_overlap_takes_its_datagram_with_it() {
    let mut lab = Lab::new(4, 8);
    assert_eq!(lab.give(1, 0, 80, true), [0]);
    assert_eq!(lab.give(1, 0, 80, true), [] as [u16; 0]);
    assert_eq!(lab.lost, [DropReason::FragmentDuplicate]);
    assert_eq!(lab.give(1, 80, 80, true), [80]);
    for (offset, len) in [(72, 16), (152, 8), (0, 200), (80, 40), (400, 8)] {
        assert_eq!(
            lab.give(1, offset, len, true),
            [] as [u16; 0],
            "{offset}: nothing goes on after an overlap"
        );
    }
    assert_eq!(lab.lost[1..], [DropReason::FragmentOverlap; 5]);
    let mut lab = Lab::new(4, 8);
    assert_eq!(lab.give(2, 80, 80, true), [] as [u16; 0]);
    assert_eq!(lab.give(2, 88, 8, true), [] as [u16; 0]);
    assert_eq!(lab.give(2, 0, 80, true), [] as [u16; 0]);
    assert_eq!(lab.lost, [DropReason::FragmentOverlap; 3], "what waited is dropped too");
}

#[test]
fn a_datagram_has_one_end() {
    let mut lab = Lab::new(4, 8);
    for (first, second) in [
        ((80, false), (160, false)),
        ((80, false), (96, true)),
        ((96, true), (80, false)),
        ((80, false), (40, false)),
    ] {
        let mut id = lab.map.len() as u32;
        id += 100;
        let lost = lab.lost.len();
        lab.give(id, first.0, 8, first.1);
        lab.give(id, second.0, 8, second.1);
        assert_eq!(lab.lost[lost..], [DropReason::FragmentOverlap; 2], "{first:?} {second:?}");
    }
}

#[test]
fn what_waits_is_given_up_after_thirty_seconds() {
    let mut lab = Lab::new(4, 8);
    lab.give_at(SECOND, &fragment(1, 80, 8, true));
    lab.give_at(2 * SECOND, &fragment(2, 0, 80, true));
    lab.give_at(3 * SECOND, &fragment(3, 80, 8, true));
    let expire = |lab: &mut Lab, now, budget| {
        let lost = &mut lab.lost;
        lab.map.expire(now, budget, &mut |r| lost.push(r));
        (lab.map.len(), lab.map.held(), lab.lost.len())
    };
    assert_eq!(expire(&mut lab, 31 * SECOND - 1, 9), (3, 2, 0));
    assert_eq!(expire(&mut lab, 31 * SECOND, 9), (2, 1, 1));
    assert_eq!(expire(&mut lab, 40 * SECOND, 0), (2, 1, 1), "no budget");
    assert_eq!(
        expire(&mut lab, 40 * SECOND, 1),
        (1, 1, 1),
        "a datagram that was going on has nothing to lose"
    );
    assert_eq!(lab.give_at(40 * SECOND, &fragment(3, 0, 80, true)), [0], "too late to follow");
    assert_eq!(lab.lost, [DropReason::FragmentExpired; 2]);
}

#[test]
fn the_oldest_datagram_gives_way_when_there_are_too_many() {
    let mut lab = Lab::new(3, 8);
    for id in 1..=3 {
        assert_eq!(lab.give(id, 80, 8, true), [] as [u16; 0]);
    }
    assert_eq!(lab.give_at(1, &fragment(4, 0, 80, true)), [0]);
    assert_eq!((lab.map.len(), lab.map.held()), (3, 2));
    assert_eq!(lab.lost, [DropReason::FragmentQueueFull]);
    assert_eq!(lab.give_at(2, &fragment(2, 0, 80, true)), [0, 80], "the others wait on");
    assert_eq!(lab.give_at(3, &fragment(3, 0, 80, true)), [0, 80]);
}

#[test]
fn the_oldest_that_waits_gives_way_when_too_many_frames_do() {
    let mut lab = Lab::new(64, 8);
    assert_eq!(lab.give(9, 0, 80, true), [0]);
    for id in 0..8 {
        assert_eq!(lab.give(id + 10, 80, 8, true), [] as [u16; 0]);
    }
    assert_eq!((lab.map.held(), lab.lost.len()), (8, 0));
    assert_eq!(lab.give(30, 80, 8, true), [] as [u16; 0]);
    assert_eq!((lab.map.held(), &lab.lost[..]), (8, &[DropReason::FragmentQueueFull][..]));
    assert_eq!(lab.give(11, 0, 80, true), [0, 80]);
    assert_eq!(lab.give(9, 80, 8, true), [80], "what goes on needs no room");
}

#[test]
fn one_datagram_may_have_a_quarter_of_the_room_and_64_fragments() {
    let mut lab = Lab::new(4, 8);
    for offset in [80, 88] {
        assert_eq!(lab.give(1, offset, 8, true), [] as [u16; 0]);
    }
    assert!(lab.lost.is_empty(), "{:?}", lab.lost);
    assert_eq!(lab.give(1, 96, 8, true), [] as [u16; 0]);
    assert_eq!(lab.lost, [DropReason::FragmentTooMany; 3]);
    let mut lab = Lab::new(4, 512);
    for n in 1..MAX_PARTS as u16 {
        assert_eq!(lab.give(2, 80 * n, 80, true), [] as [u16; 0]);
    }
    assert_eq!(lab.give(2, 0, 80, true).len(), MAX_PARTS);
    assert_eq!(lab.give(2, 8000, 80, true), [] as [u16; 0]);
    assert_eq!(lab.lost, [DropReason::FragmentTooMany]);
}

#[test]
fn without_room_for_frames_later_fragments_are_dropped_and_others_pass() {
    let mut lab = Lab::new(2, 0);
    assert_eq!(lab.give(1, 80, 8, true), [] as [u16; 0]);
    assert_eq!(lab.give(2, 0, 80, true), [0]);
    assert_eq!(lab.give(2, 80, 8, false), [80]);
    let mut lab = Lab::new(0, 4);
    assert_eq!(lab.give(1, 0, 80, true), [] as [u16; 0]);
    assert_eq!(lab.lost, [DropReason::FragmentQueueFull]);
}

#[test]
fn a_mark_survives_the_way_between_workers_and_no_station_s_address_is_one() {
    let own = [2, 0, 0, 0, 0, 0x11];
    let mut frame = vec![7; 60];
    frame[..6].copy_from_slice(&own);
    let before = frame.clone();
    assert_eq!(unmark(&mut frame, own), None);
    for protocol in [L4::Tcp, L4::Udp, L4::Sctp] {
        let resolved = Resolved { protocol, ports: Ports { src: 0x1234, dst: 0xfedc } };
        assert!(mark(&mut frame, &resolved));
        assert_eq!(unmark(&mut frame, own), Some(resolved));
        assert_eq!(frame, before);
    }
    assert!(!mark(&mut [0; 5], &FLOW));
    assert_eq!(unmark(&mut [3, 17, 0, 0, 0], own), None);
    assert_eq!(unmark(&mut [3, 1, 0, 0, 0, 0], own), None, "no protocol that is balanced");
}

#[test]
fn all_fragments_of_a_datagram_have_one_owner_and_datagrams_spread() {
    let key = HashKey([3, 5, 7, 11].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let mut counts = [0; 4];
    for id in 0..4000 {
        let own = owner(&fragment(id, 0, 8, true), 4, &key);
        assert_eq!(own, owner(&fragment(id, 1480, 1480, false), 4, &key));
        counts[usize::from(own.0)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
}

proptest! {
    #[test]
    fn a_datagram_in_any_order_goes_on_whole(
        lens in proptest::collection::vec(1u16..180, 2..20),
        order in proptest::collection::vec(any::<u16>(), 40),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        whole in any::<bool>(),
    ) {
        let mut parts = Vec::new();
        let mut at = 0;
        for (n, len) in lens.iter().enumerate() {
            parts.push(fragment(7, at, len * 8, n + 1 < lens.len()));
            at += len * 8;
        }
        let mut sent: Vec<_> = parts.iter().copied().zip(&order).collect();
        let copies: Vec<_> = again.iter().map(|n| *n.get(&sent)).zip(&order[30..]).map(|((f, _), o)| (f, o)).collect();
        sent.extend(copies);
        sent.sort_by_key(|(_, order)| **order);
        let mut lab = if whole { Lab::whole(8, 256) } else { Lab::new(8, 256) };
        let mut gone = Vec::new();
        for (fragment, _) in &sent {
            gone.extend(lab.give_at(0, fragment));
            prop_assert!(gone.first().is_none_or(|first| *first == 0), "the first one first");
        }
        gone.sort_unstable();
        gone.dedup();
        prop_assert_eq!(gone, parts.iter().map(|part| part.offset).collect::<Vec<_>>());
        prop_assert!(lab.lost.iter().all(|reason| *reason == DropReason::FragmentDuplicate));
    }

    #[test]
    fn whatever_comes_is_conserved_and_bounded(
        sent in proptest::collection::vec((0u32..12, 0u16..20, 1u16..6, any::<bool>(), 0u64..5), 0..300),
        datagrams in 1u16..8,
        held in 0u16..12,
        whole in any::<bool>(),
    ) {
        let mut lab = if whole { Lab::whole(datagrams, held) } else { Lab::new(datagrams, held) };
        let mut now = 0;
        for (id, offset, len, more, later) in sent {
            now += later * SECOND;
            lab.give_at(now, &fragment(id, offset * 8, len * 8, more));
            prop_assert!(lab.map.len() <= usize::from(datagrams) && lab.map.held() <= usize::from(held));
        }
        let lost = &mut lab.lost;
        lab.map.expire(now + 30 * SECOND, 100, &mut |r| lost.push(r));
        prop_assert_eq!((lab.map.len(), lab.map.held()), (0, 0));
        prop_assert_eq!(lab.given, lab.gone + lab.lost.len());
    }
}

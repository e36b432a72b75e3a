//! The state machine, edge by edge.

use proptest::prelude::*;

use super::*;

const LINK: LinkId = LinkId(1);
const A: Mac = [2, 0, 0, 0, 0, 0x0a];
const B: Mac = [2, 0, 0, 0, 0, 0x0b];
const REPLY: Heard = Heard::Reply { overrides: true };
const WEAK_REPLY: Heard = Heard::Reply { overrides: false };
const ANNOUNCED: Heard = Heard::Announcement { overrides: true };
const WEAKLY_ANNOUNCED: Heard = Heard::Announcement { overrides: false };

fn rip() -> IpAddr {
    IpAddr::from([192, 168, 150, 12])
}

/// A book with one next hop, and a clock.
struct Lab {
    book: NeighborBook,
    id: NeighborId,
    now: u64,
}

impl Lab {
    fn new() -> Self {
        let mut book = NeighborBook::new(4);
        let id = book.intern(LINK, rip()).unwrap();
        Self { book, id, now: 1_000_000 }
    }

    /// A book whose next hop has answered from `A`.
    fn reachable() -> Self {
        let mut lab = Self::new();
        assert!(lab.hear(Some(A), REPLY));
        lab
    }

    /// A book whose next hop's answer has grown old: the first unicast probe was just sent.
    fn probing() -> Self {
        let mut lab = Self::reachable();
        assert_eq!(lab.tick(REACHABLE_MS), [Some(A)]);
        lab
    }

    /// A book whose next hop has not answered: the first probe after failing was just sent.
    fn failed() -> Self {
        let mut lab = Self::new();
        for after in [0, RETRANS_MS, RETRANS_MS, RETRANS_MS] {
            assert_eq!(lab.tick(after), [None]);
        }
        lab.expect(NeighborState::Failed, Resolution::Failed);
        lab
    }

    fn hear(&mut self, mac: Option<Mac>, how: Heard) -> bool {
        self.book.heard(self.now, &Sighting { link: LINK, ip: rip(), mac, how })
    }

    /// Ticks `after` ms later; the stations that were probed.
    fn tick(&mut self, after: u64) -> Vec<Option<Mac>> {
        self.now += after;
        let mut out = Vec::new();
        self.book.tick(self.now, &mut out);
        assert!(out.iter().all(|probe| (probe.link, probe.ip) == (LINK, rip())));
        out.iter().map(|probe| probe.unicast).collect()
    }

    #[track_caller]
    fn expect(&self, state: NeighborState, resolution: Resolution) {
        let row = self.book.rows(self.now)[0];
        assert_eq!((row.state, self.book.cells().mac(self.id)), (state, resolution));
        assert_eq!(row.mac.map_or(resolution, Resolution::Resolved), resolution);
    }
}

#[test]
fn a_new_next_hop_is_asked_for_at_once_and_then_every_second() {
    let mut lab = Lab::new();
    lab.expect(NeighborState::Incomplete, Resolution::Pending);
    assert_eq!(lab.tick(0), [None]);
    assert_eq!(lab.tick(RETRANS_MS - 1), []);
    assert_eq!(lab.tick(1), [None]);
    lab.expect(NeighborState::Incomplete, Resolution::Pending);
}

#[test]
fn three_unanswered_probes_fail_it_one_second_after_the_third() {
    let mut lab = Lab::new();
    assert_eq!(lab.tick(0), [None]);
    assert_eq!(lab.tick(RETRANS_MS), [None]);
    assert_eq!(lab.tick(RETRANS_MS), [None]);
    assert_eq!(lab.tick(RETRANS_MS - 1), []);
    lab.expect(NeighborState::Incomplete, Resolution::Pending);
    assert_eq!(lab.tick(1), [None]);
    lab.expect(NeighborState::Failed, Resolution::Failed);
}

#[test]
fn a_failed_one_is_asked_for_every_second_for_ever_and_comes_back_with_its_answer() {
    let mut lab = Lab::failed();
    for _ in 0..100 {
        assert_eq!(lab.tick(RETRANS_MS - 1), []);
        assert_eq!(lab.tick(1), [None]);
        lab.expect(NeighborState::Failed, Resolution::Failed);
    }
    let row = lab.book.rows(lab.now)[0];
    assert_eq!((row.probes, row.since_ms), (104, 100 * RETRANS_MS));
    assert!(lab.hear(Some(A), REPLY));
    lab.expect(NeighborState::Reachable, Resolution::Resolved(A));
    assert_eq!(lab.book.rows(lab.now + 7)[0].probes, 0);
    assert_eq!(lab.book.rows(lab.now + 7)[0].since_ms, 7);
}

#[test]
fn an_answer_is_trusted_for_30_seconds() {
    let mut lab = Lab::reachable();
    lab.expect(NeighborState::Reachable, Resolution::Resolved(A));
    assert_eq!(lab.tick(REACHABLE_MS - 1), []);
    lab.expect(NeighborState::Reachable, Resolution::Resolved(A));
    assert_eq!(lab.tick(1), [Some(A)]);
    lab.expect(NeighborState::Probe, Resolution::Resolved(A));
}

#[test]
fn another_answer_renews_the_trust() {
    let mut lab = Lab::reachable();
    assert_eq!(lab.tick(REACHABLE_MS - 1), []);
    assert!(!lab.hear(Some(A), REPLY), "workers see no change");
    assert_eq!(lab.tick(REACHABLE_MS - 1), []);
    assert_eq!(lab.tick(1), [Some(A)]);
}

#[test]
fn three_unanswered_unicast_probes_take_the_address_away_and_everyone_is_asked() {
    let mut lab = Lab::probing();
    assert_eq!(lab.tick(RETRANS_MS), [Some(A)]);
    assert_eq!(lab.tick(RETRANS_MS), [Some(A)]);
    lab.expect(NeighborState::Probe, Resolution::Resolved(A));
    assert_eq!(lab.tick(RETRANS_MS - 1), []);
    lab.expect(NeighborState::Probe, Resolution::Resolved(A));
    assert_eq!(lab.tick(1), [None]);
    lab.expect(NeighborState::Incomplete, Resolution::Pending);
    assert_eq!(lab.tick(RETRANS_MS), [None]);
    assert_eq!(lab.tick(RETRANS_MS), [None]);
    assert_eq!(lab.tick(RETRANS_MS), [None]);
    lab.expect(NeighborState::Failed, Resolution::Failed);
}

#[test]
fn an_answer_to_a_unicast_probe_confirms_even_without_an_address() {
    for mac in [Some(A), None] {
        let mut lab = Lab::probing();
        assert!(!lab.hear(mac, REPLY), "workers see no change");
        lab.expect(NeighborState::Reachable, Resolution::Resolved(A));
        assert_eq!(lab.tick(REACHABLE_MS - 1), []);
    }
}

#[test]
fn an_answer_without_an_address_tells_nothing_about_an_unknown_one() {
    let mut lab = Lab::new();
    assert!(!lab.hear(None, REPLY));
    lab.expect(NeighborState::Incomplete, Resolution::Pending);
    let mut lab = Lab::failed();
    assert!(!lab.hear(None, WEAK_REPLY));
    lab.expect(NeighborState::Failed, Resolution::Failed);
}

#[test]
fn a_changed_address_is_taken_at_once_and_then_verified() {
    let mut lab = Lab::reachable();
    let version = lab.book.cells().version();
    assert!(lab.hear(Some(B), ANNOUNCED));
    assert_ne!(lab.book.cells().version(), version);
    lab.expect(NeighborState::Probe, Resolution::Resolved(B));
    assert_eq!(lab.tick(0), [Some(B)]);
    assert!(!lab.hear(Some(B), REPLY));
    lab.expect(NeighborState::Reachable, Resolution::Resolved(B));
}

#[test]
fn a_changed_address_in_an_answer_is_taken_and_trusted() {
    for mut lab in [Lab::reachable(), Lab::probing()] {
        assert!(lab.hear(Some(B), REPLY));
        lab.expect(NeighborState::Reachable, Resolution::Resolved(B));
    }
}

#[test]
fn an_announcement_while_probing_an_old_address_starts_over_with_the_new_one() {
    let mut lab = Lab::probing();
    assert_eq!(lab.tick(RETRANS_MS), [Some(A)]);
    assert!(lab.hear(Some(B), ANNOUNCED));
    for after in [0, RETRANS_MS, RETRANS_MS] {
        assert_eq!(lab.tick(after), [Some(B)]);
    }
    assert_eq!(lab.tick(RETRANS_MS), [None]);
    lab.expect(NeighborState::Incomplete, Resolution::Pending);
}

#[test]
fn an_announcement_of_the_known_address_proves_nothing() {
    let mut lab = Lab::reachable();
    assert_eq!(lab.tick(REACHABLE_MS - 1), []);
    assert!(!lab.hear(Some(A), ANNOUNCED));
    assert_eq!(lab.tick(1), [Some(A)], "trust was not renewed");
    assert!(!lab.hear(Some(A), ANNOUNCED));
    lab.expect(NeighborState::Probe, Resolution::Resolved(A));
}

#[test]
fn an_announcement_of_an_unknown_address_is_used_and_verified() {
    for how in [ANNOUNCED, WEAKLY_ANNOUNCED] {
        for mut lab in [Lab::new(), Lab::failed()] {
            assert!(lab.hear(Some(A), how));
            lab.expect(NeighborState::Probe, Resolution::Resolved(A));
            assert_eq!(lab.tick(0), [Some(A)]);
        }
    }
}

#[test]
fn without_the_override_flag_another_address_only_raises_doubt() {
    for how in [WEAK_REPLY, WEAKLY_ANNOUNCED] {
        let mut lab = Lab::reachable();
        assert!(!lab.hear(Some(B), how));
        lab.expect(NeighborState::Probe, Resolution::Resolved(A));
        assert_eq!(lab.tick(0), [Some(A)]);
        assert!(!lab.hear(Some(B), how));
        assert_eq!(lab.tick(RETRANS_MS - 1), [], "doubt while probing changes nothing");
        assert_eq!(lab.tick(1), [Some(A)]);
    }
}

#[test]
fn a_station_that_is_no_next_hop_is_ignored() {
    let mut lab = Lab::new();
    let version = lab.book.cells().version();
    let other = IpAddr::from([192, 168, 150, 13]);
    assert!(!lab.book.heard(0, &Sighting { link: LINK, ip: other, mac: Some(A), how: REPLY }));
    assert!(!lab.book.heard(0, &Sighting { link: LinkId(2), ip: rip(), mac: Some(A), how: REPLY }));
    assert_eq!(lab.book.cells().version(), version);
    assert_eq!(lab.book.rows(0).len(), 1);
}

#[test]
fn link_and_address_together_are_one_next_hop() {
    let mut book = NeighborBook::new(3);
    let first = book.intern(LINK, rip()).unwrap();
    let second = book.intern(LinkId(2), rip()).unwrap();
    let third = book.intern(LINK, "fe80::1".parse().unwrap()).unwrap();
    assert_eq!(book.intern(LINK, rip()), Ok(first));
    assert_eq!(HashMap::from([(first, 0), (second, 0), (third, 0)]).len(), 3);
}

#[test]
fn a_full_book_says_what_it_had_no_room_for() {
    let mut book = NeighborBook::new(1);
    let first = book.intern(LINK, rip()).unwrap();
    let error = book.intern(LinkId(7), rip()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "next hop 192.168.150.12 on link 7: the neighbour book is full, its limit is 1 entries"
    );
    assert_eq!(book.intern(LINK, rip()), Ok(first), "what is known has room");
}

#[test]
fn what_is_forgotten_is_asked_for_no_more_and_its_index_starts_anew() {
    let mut lab = Lab::reachable();
    let kept = lab.book.intern(LINK, IpAddr::from([192, 168, 150, 13])).unwrap();
    let gone = lab.id;
    lab.book.forget(gone);
    assert_eq!(lab.book.rows(0).len(), 1);
    assert_eq!(lab.book.cells().mac(gone), Resolution::Pending);
    assert!(!lab.hear(Some(A), REPLY), "no longer wanted");
    let mut out = Vec::new();
    lab.book.tick(lab.now + REACHABLE_MS, &mut out);
    assert_eq!(out.len(), 1, "{out:?}");
    let again = lab.book.intern(LinkId(9), rip()).unwrap();
    assert_eq!(again, gone);
    assert_ne!(again, kept);
    assert_eq!(lab.book.cells().mac(again), Resolution::Pending);
}

#[test]
fn a_late_tick_makes_one_step_and_sends_one_probe() {
    let mut lab = Lab::reachable();
    assert_eq!(lab.tick(3_600_000), [Some(A)]);
    lab.expect(NeighborState::Probe, Resolution::Resolved(A));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Wait(u64),
    Hear(Option<Mac>, Heard),
}

fn event() -> impl Strategy<Value = Event> {
    let mac = prop_oneof![Just(None), Just(Some(A)), Just(Some(B))];
    let how = prop_oneof![Just(REPLY), Just(WEAK_REPLY), Just(ANNOUNCED), Just(WEAKLY_ANNOUNCED)];
    prop_oneof![(0u64..40_000).prop_map(Event::Wait), (mac, how).prop_map(|(mac, how)| Event::Hear(mac, how))]
}

proptest! {
    #[test]
    fn whatever_happens_cells_and_rows_agree_and_silence_ends_in_failure(
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let mut lab = Lab::new();
        for event in events {
            let version = lab.book.cells().version();
            let before = lab.book.cells().mac(lab.id);
            match event {
                Event::Wait(ms) => prop_assert!(lab.tick(ms).len() <= 1),
                Event::Hear(mac, how) => {
                    let changed = lab.hear(mac, how);
                    prop_assert_eq!(changed, before != lab.book.cells().mac(lab.id));
                }
            }
            let row = lab.book.rows(lab.now)[0];
            let usable = matches!(row.state, NeighborState::Reachable | NeighborState::Probe);
            prop_assert_eq!(row.mac.is_some(), usable);
            let resolution = match row.state {
                NeighborState::Incomplete => Resolution::Pending,
                NeighborState::Failed => Resolution::Failed,
                _ => Resolution::Resolved(row.mac.unwrap()),
            };
            let after = lab.book.cells().mac(lab.id);
            prop_assert_eq!(after, resolution);
            prop_assert_eq!(version != lab.book.cells().version(), before != after);
        }
        // at most: 30 s of trust, three unicast probes, three multicast ones, a second after each
        for _ in 0..40 {
            lab.tick(1_000);
        }
        lab.expect(NeighborState::Failed, Resolution::Failed);
    }
}

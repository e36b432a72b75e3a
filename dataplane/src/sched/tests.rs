//! Properties of all schedulers: weights are respected, nobody unable is chosen, several workers stay near one.

use std::net::IpAddr;

use lb_config::SchedulerFlags;
use proptest::prelude::*;

use super::lab::Lab;
use super::mh::Share;
use super::*;

/// Every scheduler for the candidates of a lab, without a memory.
fn all(lab: &Lab) -> Vec<Scheduler> {
    let weights = lab.weights();
    let plan = WrrPlan::new(&weights);
    let address = |at: usize| IpAddr::from([10, 1, 0, at as u8]);
    let shares: Vec<Share> =
        weights.iter().enumerate().map(|(at, weight)| Share::new(address(at), 80, false, *weight)).collect();
    let members: Vec<Member> = lab
        .candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| Member {
            address: address(at),
            port: 80,
            weight: candidate.weight,
            dest: candidate.dest,
        })
        .collect();
    let fallback = SchedulerFlags { flag_1: true, ..SchedulerFlags::default() };
    let source = Arc::new(SourceTable::new(&weights));
    let mh = Arc::new(MhTable::new(&shares));
    vec![
        Scheduler::Rr(Arc::default()),
        Scheduler::Wrr(Arc::new(WrrMark::new(&plan)), plan),
        Scheduler::Lc,
        Scheduler::Wlc,
        Scheduler::Sed,
        Scheduler::Nq,
        Scheduler::Lblcr(Arc::default()),
        Scheduler::Fo,
        Scheduler::Twos,
        Scheduler::Sh(source.clone(), fallback),
        Scheduler::Mh(mh.clone(), fallback),
        // a small prime: the properties are the same and the table is quickly made
        Scheduler::Maglev(Arc::new(MaglevTable::new(&members, 251, &lab.flow_hash)), true),
        // these may leave a client without a server although there is one
        Scheduler::Lblc(Arc::default()),
        Scheduler::Dh,
        Scheduler::Sh(source, SchedulerFlags::default()),
        Scheduler::Mh(mh, SchedulerFlags::default()),
        Scheduler::Ovf,
    ]
}

/// Those of [`all`] that find a server whenever there is an able one.
const SURE: usize = 12;

fn client(n: u32) -> IpAddr {
    IpAddr::from((0xc0a8_0000u32.wrapping_add(n.wrapping_mul(9_973))).to_be_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: if cfg!(miri) { 2 } else { 64 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn nobody_unable_is_chosen_and_somebody_able_is(
        servers in proptest::collection::vec((0..6u32, any::<bool>()), 0..9),
        opened in proptest::collection::vec((0..9usize, any::<bool>()), 0..40),
        clients in proptest::collection::vec(any::<u32>(), 1..40),
    ) {
        let weights: Vec<u32> = servers.iter().map(|(weight, _)| *weight).collect();
        let mut lab = Lab::new(&weights);
        let all = all(&lab);
        for (at, (_, full)) in servers.iter().enumerate() {
            if *full {
                lab.fill(at as u32);
            }
        }
        for (at, active) in opened {
            if at < servers.len() {
                lab.open(0, at as u32, active);
            }
        }
        let able = lab.candidates.iter().any(|candidate| lab.question().able(candidate));
        for n in clients {
            (lab.new.client, lab.new.target) = (client(n), client(!n));
            for (at, scheduler) in all.iter().enumerate() {
                match scheduler.pick(&lab.question()) {
                    Some(dest) => {
                        let (weight, full) = servers[dest.0 as usize];
                        prop_assert!(weight > 0 && !full, "{:?} chose {:?}", scheduler, dest);
                    }
                    None => prop_assert!(!able || at >= SURE, "{:?} chose nobody", scheduler),
                }
            }
        }
    }

    #[test]
    fn weighted_round_robin_gives_every_round_what_the_weights_say(
        weights in proptest::collection::vec(0..40u32, 1..8),
        rounds in 1..4u32,
    ) {
        let sum: u32 = weights.iter().sum();
        prop_assume!(sum > 0);
        let lab = Lab::new(&weights);
        let plan = WrrPlan::new(&weights);
        let mark = WrrMark::new(&plan);
        let round = sum / wrr::divisor(weights.iter().copied());
        let mut counts = vec![0; weights.len()];
        for _ in 0..round * rounds {
            counts[wrr::pick(&mark, &plan, &lab.question()).expect("a server").0 as usize] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert_eq!(count * sum, weight * round * rounds);
        }
    }

    /// The walk that takes empty passes in one step, against one that takes each of them.
    #[test]
    fn weighted_round_robin_skips_only_what_finds_nobody(
        weights in proptest::collection::vec(0..60u32, 1..6),
        changes in proptest::collection::vec((prop_oneof![Just(0u8), Just(u8::MAX), any::<u8>()], 1..5u32), 0..20),
    ) {
        let lab = Lab::new(&weights);
        let plan = WrrPlan::new(&weights);
        let mark = WrrMark::new(&plan);
        let mut slow = SlowWrr::new(&weights);
        for (mask, picks) in changes {
            let full: Vec<bool> = (0..weights.len()).map(|at| mask >> at & 1 != 0).collect();
            for (at, full) in full.iter().enumerate() {
                if *full { lab.fill(at as u32) } else { lab.relieve(at as u32) }
            }
            for _ in 0..picks {
                let fast = wrr::pick(&mark, &plan, &lab.question()).map(|dest| dest.0 as usize);
                prop_assert_eq!(fast, slow.pick(&weights, &full));
            }
        }
    }

    #[test]
    fn least_connection_schedulers_fill_in_proportion_to_weights(
        weights in proptest::collection::vec(1..20u32, 1..8),
    ) {
        for scheduler in [Scheduler::Wlc, Scheduler::Sed] {
            let lab = Lab::new(&weights);
            let sum: u32 = weights.iter().sum();
            let mut counts = vec![0u32; weights.len()];
            for _ in 0..sum * 10 {
                let dest = scheduler.pick(&lab.question()).expect("a server").0;
                lab.open(0, dest, true);
                counts[dest as usize] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert!(count.abs_diff(weight * 10) <= 1, "{:?}: {:?} for {:?}", scheduler, counts, weights);
            }
        }
    }

    /// What Maglev is for, in IPVS's form: one server less moves few clients of the others.
    #[test]
    fn a_server_less_moves_few_clients_of_the_others(gone in 0..40usize) {
        let share = |at: usize| Share::new(IpAddr::from([10, 1, 0, at as u8]), 80, false, 1);
        let all: Vec<Share> = (0..40).map(share).collect();
        let less: Vec<Share> = (0..40).filter(|at| *at != gone).map(share).collect();
        let mut lab = Lab::new(&[1; 40]);
        let mut short = Lab::new(&[1; 40]);
        short.remove(gone as u32);
        let (all, less) = (MhTable::new(&all), MhTable::new(&less));
        let mut moved = 0;
        for n in 0..2000 {
            lab.new.client = client(n);
            short.new.client = client(n);
            let flags = SchedulerFlags::default();
            let before = all.pick(flags, &lab.question()).expect("a server").dest;
            let after = less.pick(flags, &short.question()).expect("a server").dest;
            moved += u32::from(before.0 as usize != gone && before != after);
        }
        prop_assert!(moved < 200, "{} of 2000 clients moved", moved);
    }
}

/// Weighted round robin as a walk over every pass, written from the description in `ip_vs_wrr.c`'s comments.
struct SlowWrr {
    at: Option<usize>,
    level: i64,
    top: i64,
    step: i64,
}

impl SlowWrr {
    fn new(weights: &[u32]) -> Self {
        let divides = |step: &u32| weights.iter().all(|weight| weight % step == 0);
        let highest = weights.iter().copied().max().unwrap_or_default();
        let step = i64::from((1..=highest.max(1)).rev().find(divides).unwrap_or(1));
        let step = if highest == 0 { 1 } else { step };
        let top = i64::from(highest) - (step - 1);
        Self { at: None, level: top, top, step }
    }

    fn pick(&mut self, weights: &[u32], full: &[bool]) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let start = self.at;
        let mut next = start.map_or(0, |at| at + 1);
        // levels are looked at once more than they are many: from the start, and again up to it
        let (mut round, mut lowest_looks) = (0, 0);
        loop {
            while next < weights.len() {
                if i64::from(weights[next]) >= self.level && !full[next] {
                    self.at = Some(next);
                    return self.at;
                }
                if round == 2 && Some(next) == start {
                    self.at = Some(next);
                    return None;
                }
                next += 1;
            }
            next = 0;
            self.level -= self.step;
            if self.level <= 0 {
                self.level = self.top;
                lowest_looks += 1;
                let looked_at_all = start.is_none() || lowest_looks == 2 || round == 1;
                if looked_at_all {
                    self.at = None;
                    return None;
                }
            }
            // the lowest level once more, up to the start; or everybody is looked at there on the way
            let lowest = self.level <= self.step;
            round = match (lowest, lowest_looks) {
                (true, 1) if start.is_some() => 2,
                (true, 0) => 1,
                _ => 0,
            };
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "threads that spin for minutes")]
fn several_workers_stay_within_the_bound_of_the_documentation() {
    const WORKERS: u32 = 4;
    for scheduler in [Scheduler::Lc, Scheduler::Wlc, Scheduler::Sed, Scheduler::Lblc(Arc::default())] {
        let mut lab = Lab::new(&[1; 5]);
        lab.set_workers(WORKERS as usize);
        let is_lblc = matches!(scheduler, Scheduler::Lblc(_));
        let totals = lab.count_in_threads(WORKERS, 5_000, |question| {
            // an address of its own for every connection
            let target = IpAddr::from((question.draws.next() as u32).to_be_bytes());
            let new = NewConnection { target, ..*question.new };
            let question = if is_lblc { Question { new: &new, ..*question } } else { *question };
            scheduler.pick(&question)
        });
        assert_eq!(totals.iter().sum::<u32>(), WORKERS * 5_000);
        let (least, most) = (totals.iter().min(), totals.iter().max());
        let spread = most.zip(least).map_or(0, |(most, least)| most - least);
        assert!(spread <= WORKERS, "{scheduler:?}: {totals:?}");
    }
    // overflow: at most the weight and one more with one worker, a connection more for each other one
    let mut lab = Lab::new(&[100, 200, 50, 60_000]);
    lab.fill(3);
    lab.set_workers(WORKERS as usize);
    let totals = lab.count_in_threads(WORKERS, 70, |question| Scheduler::Ovf.pick(question));
    assert!((201..=200 + WORKERS).contains(&totals[1]), "{totals:?}");
    assert_eq!(totals[0], WORKERS * 70 - totals[1]);
}

#[test]
fn failover_and_overflow_take_the_highest_weight() {
    let lab = Lab::new(&[2, 5, 5, 0]);
    let pick = |scheduler: &Scheduler| scheduler.pick(&lab.question()).map(|dest| dest.0);
    assert_eq!((pick(&Scheduler::Fo), pick(&Scheduler::Ovf)), (Some(1), Some(1)), "the first of equals");
    (0..5).for_each(|_| lab.open(0, 1, true));
    assert_eq!(pick(&Scheduler::Ovf), Some(1), "as many as the weight");
    lab.open(0, 1, true);
    assert_eq!((pick(&Scheduler::Fo), pick(&Scheduler::Ovf)), (Some(1), Some(2)));
    lab.fill(1);
    assert_eq!(pick(&Scheduler::Fo), Some(2));
    [0, 2].iter().for_each(|dest| lab.fill(*dest));
    assert_eq!((pick(&Scheduler::Fo), pick(&Scheduler::Ovf)), (None, None));
}

#[test]
fn two_choices_take_the_less_loaded_and_draw_by_weight() {
    let lab = Lab::new(&[1, 3]);
    let count = |lab: &Lab| {
        let mut counts = [0; 2];
        for _ in 0..8_000 {
            counts[twos::pick(&lab.question()).expect("a server").dest.0 as usize] += 1;
        }
        counts
    };
    // idle: the first draw stands; of the numbers 0 to 4 two are the first server's
    let counts = count(&lab);
    assert!((3_000..3_400).contains(&counts[0]), "{counts:?}");
    lab.open(0, 1, true);
    // the first server wins whenever it is drawn at all: 1 - 0.6 * 0.6
    let counts = count(&lab);
    assert!((4_950..5_300).contains(&counts[0]), "{counts:?}");
}

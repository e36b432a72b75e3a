//! Suite `lives`: whether connections stay with their server while an operator adds, removes and drains servers and
//! changes their weights.
//!
//! A real director and worker in memory forward whole TCP lives; every so many packets the configuration changes as `lbd`
//! changes it: edit, checks, apply, and the worker picks the snapshot up between two bursts. A connection is broken when
//! any of its packets goes to another server than its first did, or a later one to nobody. Beside it the same flows are
//! given to two balancers that keep no connections. The size is bounded by time and stated; the seed is fixed.
//!
//! Now and then a director is killed between two turns and begins again with the tables and the journal that it left; and
//! where there are two, that share connections, the traffic goes over to the other ([`node`]). What a director has told by
//! then has reached the other: a network that loses records between them, which sync asks for again, is not played, nor are
//! several workers; `tests/e2e` does both with real processes.
//!
//! Time is simulated, so the clock goes faster than packets do and closed connections leave the table while they last.

mod changes;
mod field;
mod node;
mod rivals;
mod trial;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context as _, ensure};

use crate::context::Context;
use crate::frames::{ACK, FIN, Family, Leg, PUSH, SERVERS, SYN, SYN_ACK};
use crate::generator::Step;
use crate::record::{Reached, Table};
use crate::rig::{cpus, pin};
use crate::site::{Forwarding, Plan};
use crate::stats::short;
use changes::{HOSTS, Kind};
use field::Tally;
use node::SHARED;
use trial::{Made, Outcome, Size, Trial};

/// What clients send; the server's answers go past the director.
const ONE_WAY: &[Step] =
    &[(Leg::In, SYN), (Leg::In, ACK), (Leg::In, PUSH), (Leg::In, PUSH), (Leg::In, FIN), (Leg::In, ACK)];
/// Both sides through NAT.
const BY_NAT: &[Step] = &[
    (Leg::In, SYN),
    (Leg::OutToClient, SYN_ACK),
    (Leg::In, ACK),
    (Leg::In, PUSH),
    (Leg::OutToClient, PUSH),
    (Leg::In, FIN),
    (Leg::OutToClient, FIN),
    (Leg::In, ACK),
];
/// Both sides through full NAT.
const BY_FULL_NAT: &[Step] = &[
    (Leg::In, SYN),
    (Leg::OutToLocal, SYN_ACK),
    (Leg::In, ACK),
    (Leg::In, PUSH),
    (Leg::OutToLocal, PUSH),
    (Leg::In, FIN),
    (Leg::OutToLocal, FIN),
    (Leg::In, ACK),
];

/// Sequences of changes that each way is played with.
const SEEDS: u64 = 2;

/// A way to balance.
#[derive(Clone, Copy)]
struct Case {
    forwarding: Forwarding,
    scheduler: &'static str,
    steps: &'static [Step],
    /// There is another director, which has the connections by sync.
    pair: bool,
    /// What is out of the ordinary.
    strain: Strain,
}

/// What a worker suffers beside changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strain {
    /// Nothing: this is what the goal is about.
    None,
    /// The handshakes under way are a flood of SYNs: none has an entry before its client's ACK.
    Flood,
    /// The table is full of established connections: what comes has no entry at all.
    Full,
}

/// A way in which nothing is out of the ordinary.
const fn calm(forwarding: Forwarding, scheduler: &'static str, steps: &'static [Step], pair: bool) -> Case {
    Case { forwarding, scheduler, steps, pair, strain: Strain::None }
}

/// A way under strain.
const fn strained(strain: Strain) -> Case {
    Case { forwarding: Forwarding::Dr, scheduler: "maglev", steps: ONE_WAY, pair: false, strain }
}

const CASES: [Case; 7] = [
    calm(Forwarding::Dr, "rr", ONE_WAY, false),
    calm(Forwarding::Dr, "maglev", ONE_WAY, true),
    calm(Forwarding::Ipip, "wlc", ONE_WAY, false),
    calm(Forwarding::Nat, "wrr", BY_NAT, true),
    calm(Forwarding::FullNat, "lc", BY_FULL_NAT, true),
    strained(Strain::Flood),
    strained(Strain::Full),
];

impl Case {
    fn name(self) -> String {
        let strain = match self.strain {
            Strain::None => "",
            Strain::Flood => ", SYNs are a flood",
            Strain::Full => ", the table is full",
        };
        let pair = if self.pair { ", two directors" } else { "" };
        format!("{}, {}{pair}{strain}", self.forwarding.name(), self.scheduler)
    }

    /// The site, with room for what lives and what is over and not yet gone.
    fn plan(self, size: Size) -> Plan {
        let room = match self.strain {
            Strain::None | Strain::Flood => size.room,
            Strain::Full => size.old as u64,
        };
        let mut plan = Plan::new(self.forwarding, Family::V4, room);
        (plan.scheduler, plan.hosts) = (self.scheduler, HOSTS);
        plan.syn_flood = match self.strain {
            Strain::None => 0,
            Strain::Flood => 1,
            // as it is by default
            Strain::Full => 10,
        };
        plan.limits = "max_servers = 4096".to_owned();
        // every host is a server of this one, so that its MAC address is known whenever it is a server of the other
        let servers = (SERVERS..SERVERS + HOSTS)
            .map(|host| format!("{{ address = \"{}\" }}", Family::V4.host(host)))
            .collect::<Vec<_>>();
        let times = ["tcp_fin_wait", "tcp_time_wait", "tcp_close_wait", "tcp_close"]
            .map(|key| format!("{key} = \"1s\"\n"))
            .concat();
        plan.more = format!(
            "[timeouts]\n{times}[[services]]\nname = \"all\"\nvip = \"192.168.150.101\"\nport = 80\nprotocol = \"tcp\"\n\
             forwarding = \"dr\"\nservers = [{}]\n",
            servers.join(", ")
        );
        if self.pair {
            plan.more += SHARED;
        }
        plan
    }
}

/// Plays every way with every sequence of changes, on every CPU one at a time. In the order of [`CASES`].
fn play_all(size: Size) -> anyhow::Result<Vec<Outcome>> {
    let jobs: Vec<(usize, u64)> =
        (0..CASES.len()).flat_map(|case| (0..SEEDS).map(move |seed| (case, seed))).collect();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(CASES.map(|_| Outcome::default()));
    let labour = |cpu: usize| -> anyhow::Result<()> {
        pin(cpu)?;
        while let Some((at, seed)) = jobs.get(next.fetch_add(1, Relaxed)) {
            let case = CASES[*at];
            let play = || {
                let mut trial = Trial::new(case, size, 1 + *at as u64 + seed * CASES.len() as u64)?;
                trial.run()?;
                trial.finish()
            };
            let one = play().with_context(|| case.name())?;
            let mut all = outcomes.lock().map_err(|_| anyhow::anyhow!("another way failed"))?;
            let sum = &mut all[*at];
            sum.tally.add(&one.tally);
            sum.made.add(&one.made);
            sum.dropped.extend(one.dropped);
        }
        Ok(())
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let threads: Vec<_> = cpus()?.into_iter().map(|cpu| scope.spawn(move || labour(cpu))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked")).and_then(|done| done)
        })
    })?;
    Ok(outcomes.into_inner().map_err(|_| anyhow::anyhow!("a way failed"))?.into())
}

/// Measures.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let size = if context.quick() { Size::QUICK } else { Size::FULL };
    let mut table = Table::new(
        "Connections while servers come, go, drain and change weight",
        &[
            "way",
            "connections",
            "packets",
            "changes",
            "restarts",
            "failovers",
            "broken",
            "of them cut off",
            "refused",
            "plain hash: broken %",
            "though the server was there %",
            "Maglev without connections: broken %",
            "though the server was there %",
        ],
    );
    let (mut sum, mut made) = (Tally::default(), Made::default());
    for (case, outcome) in CASES.iter().zip(play_all(size)?) {
        let name = case.name();
        ensure!(outcome.tally.connections > 0, "{name}: no connection came to its end");
        if case.strain == Strain::None {
            sum.add(&outcome.tally);
            made.add(&outcome.made);
        }
        if !outcome.dropped.is_empty() {
            context.note(format!("{name}: dropped were {}.", outcome.dropped.join(", ")));
        }
        table.row(row(&name, &outcome));
    }
    context.table(table);
    let changes = Kind::ALL.iter().zip(made.changes).map(|(kind, count)| format!("{count} {}", kind.name()));
    context.note(format!(
        "{} connections of {} packets in all were simulated in the ways without strain, as many as the time allowed, over \
         servers {}. Directors were killed {} times and began again with the tables that they had left, which took over all \
         but {} connections; {} times the traffic went over to a director that had the connections by sync, which had refused \
         {} of the records. Rows with strain keep no entry on purpose: while SYNs are a flood a connection has one from its \
         client's ACK on, so a change between the two may move it; with a full table it never has one.",
        short(sum.connections as f64),
        short(sum.packets as f64),
        changes.collect::<Vec<_>>().join(", "),
        made.restarts,
        made.lost,
        made.failovers,
        made.untold,
    ));
    if context.quick() {
        return Ok(());
    }
    let note = format!(
        "of {} simulated, as many as the time allowed, in memory, one worker; {} restarts with tables kept and {} failovers \
         with connections synced among them",
        short(sum.connections as f64),
        made.restarts,
        made.failovers
    );
    let reached = Reached::new("K1", sum.broken() as f64).note(note).counted();
    let [plain, maglev] = sum.rivals.map(|moved| moved as f64);
    context.reached(reached.peer(rivals::NAMES[0], plain).peer(rivals::NAMES[1], maglev))
}

fn row(name: &str, Outcome { tally, made, .. }: &Outcome) -> Vec<String> {
    let percent = |count: u64| format!("{:.3}", 100.0 * count as f64 / tally.connections.max(1) as f64);
    let [plain, maglev] = tally.rivals.map(percent);
    let [plain_needless, maglev_needless] = tally.rivals_needless.map(percent);
    vec![
        name.to_owned(),
        short(tally.connections as f64),
        short(tally.packets as f64),
        made.changes.iter().sum::<u64>().to_string(),
        made.restarts.to_string(),
        made.failovers.to_string(),
        tally.broken().to_string(),
        tally.cut.to_string(),
        tally.refused.to_string(),
        plain,
        plain_needless,
        maglev,
        maglev_needless,
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::node::Node;
    use super::*;

    /// Some thousand connections and some dozen changes.
    const SMALL: Size =
        Size { block: 512, old: 1_100, room: 100_000, interval: 700, time: Duration::from_secs(3600) };

    /// Every fifth change is followed by a restart, every seventh by a failover, every ninth by a restart of the other.
    fn play(case: Case, changes: usize) -> Outcome {
        let mut trial = Trial::new(case, SMALL, 5).expect("a trial");
        for at in 1..=changes {
            trial.pass(SMALL.interval).expect("packets come");
            trial.change().expect("a change");
            if case.strain == Strain::None && at % 5 == 0 {
                trial.restart(trial.active).expect("a restart");
            }
            if case.pair && at % 7 == 0 {
                trial.fail_over().expect("a failover");
            }
            if case.pair && at % 9 == 0 {
                trial.restart(1 - trial.active).expect("a restart of the other");
            }
        }
        let outcome = trial.finish().expect("an end");
        let dropped = &outcome.dropped;
        assert!(case.strain != Strain::None || dropped.is_empty(), "{}: {dropped:?}", case.name());
        outcome
    }

    #[test]
    fn no_connection_breaks_where_those_of_hashes_do() {
        for case in CASES.iter().filter(|case| case.strain == Strain::None) {
            let Outcome { tally, made, .. } = play(*case, 40);
            let name = case.name();
            assert_eq!(made.changes.iter().sum::<u64>(), 40, "{name}");
            let want = if case.pair { (8 + 4, 5) } else { (8, 0) };
            assert_eq!((made.restarts, made.failovers), want, "{name}");
            assert_eq!((made.lost, made.untold), (0, 0), "{name}");
            assert!(tally.connections > 2000, "{name}: {tally:?}");
            assert_eq!((tally.broken(), tally.refused), (0, 0), "{name}: {tally:?}");
            let [plain, maglev] = tally.rivals;
            assert!(plain > tally.connections / 2 && maglev > 100 && plain > maglev, "{name}: {tally:?}");
            assert!(tally.rivals_needless[1] > 0 && tally.rivals_needless[1] < maglev, "{name}: {tally:?}");
        }
    }

    #[test]
    fn connections_break_when_a_director_begins_without_what_was_left() {
        let case = CASES.into_iter().find(|case| case.forwarding == Forwarding::FullNat).expect("there");
        let mut trial = Trial::new(case, SMALL, 5).expect("a trial");
        trial.pass(4 * SMALL.interval).expect("packets come");
        // both are replaced by directors that nobody was before
        let model = trial.nodes[0].director.model().clone();
        for at in 0..2 {
            let silent = trial.field().silent();
            let port = std::mem::replace(trial.nodes[at].worker.io_mut(), silent);
            trial.nodes[at] = Node::new(&model, case.forwarding, port, trial.now_ns).expect("a director");
        }
        trial.nodes[trial.active].lead(true);
        trial.pass(4 * SMALL.interval).expect("packets come");
        let outcome = trial.finish().expect("an end");
        assert!(outcome.tally.broken() > 100, "{:?}", outcome.tally);
    }

    #[test]
    fn without_entries_connections_move_with_the_table() {
        let full = CASES.into_iter().find(|case| case.strain == Strain::Full).expect("there");
        let tally = play(full, 20).tally;
        assert!(tally.moved > 0 && tally.moved < tally.connections / 2, "{tally:?}");
    }
}

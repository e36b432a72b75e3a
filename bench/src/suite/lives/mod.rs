//! Suite `lives`: whether connections stay with their server while an operator adds, removes and drains servers and
//! changes their weights.
//!
//! A real director and worker in memory forward whole TCP lives; every so many packets the configuration changes as `lbd`
//! changes it: edit, checks, apply, and the worker picks the snapshot up between two bursts. A connection is broken when
//! any of its packets goes to another server than its first did, or a later one to nobody. Beside it the same flows are
//! given to two balancers that keep no connections. The size is bounded by time and stated; the seed is fixed.
//!
//! Time is simulated, so the clock goes faster than packets do and closed connections leave the table while they last.
//! Not played: several workers, restarts and failovers, which `tests/e2e` does with real processes.

mod changes;
mod field;
mod rivals;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lb_dataplane::director::Director;
use lb_dataplane::worker::Worker;

use crate::context::Context;
use crate::frames::{ACK, FIN, Family, Leg, PUSH, SERVERS, SYN, SYN_ACK};
use crate::generator::Step;
use crate::record::{Reached, Table};
use crate::site::{BEGIN_NS, Forwarding, Plan, introduced};
use crate::stats::short;
use changes::{Changes, HOSTS, Kind};
use field::{Field, Tally};

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

/// Simulated time of a turn, ns: with 32 packets in each, some hundred thousand lives end in a second of it.
const TURN_NS: u64 = 20_000;
/// Simulated time between two looks of the control core, ns.
const POLL_NS: u64 = 100_000_000;
/// Turns without packets after which something is wrong.
const STUCK: u32 = 100_000;

/// A way to balance.
#[derive(Clone, Copy)]
struct Case {
    forwarding: Forwarding,
    scheduler: &'static str,
    steps: &'static [Step],
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

const CASES: [Case; 7] = [
    Case { forwarding: Forwarding::Dr, scheduler: "rr", steps: ONE_WAY, strain: Strain::None },
    Case { forwarding: Forwarding::Dr, scheduler: "maglev", steps: ONE_WAY, strain: Strain::None },
    Case { forwarding: Forwarding::Ipip, scheduler: "wlc", steps: ONE_WAY, strain: Strain::None },
    Case { forwarding: Forwarding::Nat, scheduler: "wrr", steps: BY_NAT, strain: Strain::None },
    Case { forwarding: Forwarding::FullNat, scheduler: "lc", steps: BY_FULL_NAT, strain: Strain::None },
    Case { forwarding: Forwarding::Dr, scheduler: "maglev", steps: ONE_WAY, strain: Strain::Flood },
    Case { forwarding: Forwarding::Dr, scheduler: "maglev", steps: ONE_WAY, strain: Strain::Full },
];

impl Case {
    fn name(self) -> String {
        let strain = match self.strain {
            Strain::None => "",
            Strain::Flood => ", SYNs are a flood",
            Strain::Full => ", the table is full",
        };
        format!("{}, {}{strain}", self.forwarding.name(), self.scheduler)
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
        plan
    }
}

/// How much is played.
#[derive(Clone, Copy)]
struct Size {
    /// Connections side by side, and those that live as long as the run.
    block: usize,
    old: usize,
    /// Connections that a table has room for.
    room: u64,
    /// Packets between two changes, on average.
    interval: u64,
    /// How long each case may take.
    time: Duration,
}

impl Size {
    const FULL: Self =
        Self { block: 65_536, old: 20_000, room: 2_000_000, interval: 65_536, time: Duration::from_secs(60) };
    const QUICK: Self =
        Self { block: 4_096, old: 2_000, room: 400_000, interval: 4_096, time: Duration::from_millis(300) };
}

/// A director and its worker under changes.
struct Trial {
    director: Director,
    worker: Worker<Field>,
    changes: Changes,
    size: Size,
    now_ns: u64,
    poll_ns: u64,
    made: [u64; Kind::ALL.len()],
}

impl Trial {
    fn new(case: Case, size: Size, seed: u64) -> anyhow::Result<Self> {
        let (director, worker) = introduced(&case.plan(size))?;
        let changes = Changes::new("web", seed);
        let field = Field::new(case.steps, size.block, size.old, changes.service(director.model())?);
        let worker = worker.with_io(field);
        let (now_ns, made) = (BEGIN_NS, [0; Kind::ALL.len()]);
        let mut trial = Self { director, worker, changes, size, now_ns, poll_ns: BEGIN_NS, made };
        if case.strain == Strain::Full {
            // those that live long come first, and fill the table
            trial.worker.io_mut().old_alone(true);
            trial.pass(3 * size.old as u64)?;
            trial.worker.io_mut().old_alone(false);
        }
        Ok(trial)
    }

    fn turn(&mut self) -> usize {
        self.now_ns += TURN_NS;
        let moved = self.worker.turn(self.now_ns);
        if self.now_ns >= self.poll_ns {
            self.director.poll(self.now_ns / 1_000_000);
            self.poll_ns = self.now_ns + POLL_NS;
        }
        moved
    }

    /// Lets so many packets come.
    fn pass(&mut self, packets: u64) -> anyhow::Result<()> {
        self.worker.io_mut().offer(packets);
        let mut idle = 0;
        while self.worker.io_mut().left() > 0 {
            idle = if self.turn() == 0 { idle + 1 } else { 0 };
            ensure!(idle < STUCK, "no packet comes any more: {:?}", self.director.totals());
        }
        Ok(())
    }

    /// Makes the next change; the worker takes it up before its next packets.
    fn change(&mut self) -> anyhow::Result<()> {
        let (kind, model) = self.changes.make(self.director.model())?;
        self.director.apply(&model)?;
        self.made[kind as usize] += 1;
        let service = self.changes.service(&model)?;
        self.worker.io_mut().learn(service);
        Ok(())
    }

    /// Packets and changes in turn, for as long as there is time.
    fn run(&mut self, mut step: impl FnMut(u64)) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < self.size.time {
            let packets = 1 + self.changes.below(2 * self.size.interval);
            self.pass(packets)?;
            self.change()?;
            step(start.elapsed().as_millis() as u64);
        }
        Ok(())
    }

    /// Lets the block that goes on come to its end, so that whole lives are judged, and gives what was found.
    fn finish(mut self) -> anyhow::Result<Outcome> {
        let ended = self.worker.io_mut().ended();
        while self.worker.io_mut().ended() == ended {
            self.pass(64)?;
        }
        let totals = self.director.totals();
        ensure!(totals.held == 0, "{} frames wait for ever", totals.held);
        let io = self.worker.io_mut();
        let empty = Field::new(&[(Leg::In, SYN)], 1, 0, self.changes.service(self.director.model())?);
        let tally = std::mem::replace(io, empty).finish();
        let dropped = self.director.drops().into_iter().filter(|(_, count)| *count > 0);
        let dropped = dropped.map(|(reason, count)| format!("{count} {}", reason.name())).collect();
        Ok(Outcome { tally, made: self.made, dropped })
    }
}

/// What a trial has shown.
struct Outcome {
    tally: Tally,
    /// Changes by kind.
    made: [u64; Kind::ALL.len()],
    /// Packets that were dropped, by reason.
    dropped: Vec<String>,
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
            "broken",
            "of them cut off",
            "refused",
            "plain hash: broken %",
            "though the server was there %",
            "Maglev without connections: broken %",
            "though the server was there %",
        ],
    );
    let (mut sum, mut changes) = (Tally::default(), [0; Kind::ALL.len()]);
    for (at, case) in CASES.iter().enumerate() {
        let name = case.name();
        let mut progress = context.progress(&name, size.time.as_millis() as u64);
        let mut trial = Trial::new(*case, size, 1 + at as u64).with_context(|| name.clone())?;
        let mut last = 0;
        trial
            .run(|ms| {
                progress.step(ms - last);
                last = ms;
            })
            .with_context(|| name.clone())?;
        let Outcome { tally, made, dropped } = trial.finish().with_context(|| name.clone())?;
        drop(progress);
        ensure!(tally.connections > 0, "{name}: no connection came to its end");
        if case.strain == Strain::None {
            sum.add(&tally);
            changes.iter_mut().zip(made).for_each(|(sum, made)| *sum += made);
        }
        if !dropped.is_empty() {
            context.note(format!("{name}: dropped were {}.", dropped.join(", ")));
        }
        table.row(row(&name, &tally, made.iter().sum()));
    }
    context.table(table);
    let made = Kind::ALL.iter().zip(changes).map(|(kind, count)| format!("{count} {}", kind.name()));
    let made = made.collect::<Vec<_>>().join(", ");
    context.note(format!(
        "{} connections of {} packets in all were simulated in the ways without strain, as many as the time allowed, over \
         servers {made}. Rows with strain keep no entry on purpose: while SYNs are a flood a connection has one from its \
         client's ACK on, so a change between the two may move it; with a full table it never has one.",
        short(sum.connections as f64),
        short(sum.packets as f64)
    ));
    if context.quick() {
        return Ok(());
    }
    let note = format!(
        "of {} simulated, in memory, one worker; restarts and failovers are not simulated",
        short(sum.connections as f64)
    );
    let reached = Reached::new("K1", sum.broken() as f64).note(note);
    let [plain, maglev] = sum.rivals.map(|moved| moved as f64);
    context.reached(reached.peer(rivals::NAMES[0], plain).peer(rivals::NAMES[1], maglev))
}

fn row(name: &str, tally: &Tally, changes: u64) -> Vec<String> {
    let percent = |count: u64| format!("{:.3}", 100.0 * count as f64 / tally.connections.max(1) as f64);
    let [plain, maglev] = tally.rivals.map(percent);
    let [plain_needless, maglev_needless] = tally.rivals_needless.map(percent);
    vec![
        name.to_owned(),
        short(tally.connections as f64),
        short(tally.packets as f64),
        changes.to_string(),
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
    use super::*;

    /// Some thousand connections and some dozen changes.
    const SMALL: Size =
        Size { block: 512, old: 1_100, room: 100_000, interval: 700, time: Duration::from_secs(3600) };

    fn play(case: Case, changes: usize) -> (Tally, u64) {
        let mut trial = Trial::new(case, SMALL, 5).expect("a trial");
        for _ in 0..changes {
            trial.pass(SMALL.interval).expect("packets come");
            trial.change().expect("a change");
        }
        let Outcome { tally, made, dropped } = trial.finish().expect("an end");
        assert!(case.strain != Strain::None || dropped.is_empty(), "{}: {dropped:?}", case.name());
        (tally, made.iter().sum())
    }

    #[test]
    fn no_connection_breaks_where_those_of_hashes_do() {
        for case in CASES.iter().filter(|case| case.strain == Strain::None) {
            let (tally, made) = play(*case, 40);
            let name = case.name();
            assert_eq!(made, 40, "{name}");
            assert!(tally.connections > 2000, "{name}: {tally:?}");
            assert_eq!((tally.broken(), tally.refused), (0, 0), "{name}: {tally:?}");
            let [plain, maglev] = tally.rivals;
            assert!(plain > tally.connections / 2 && maglev > 100 && plain > maglev, "{name}: {tally:?}");
            assert!(tally.rivals_needless[1] > 0 && tally.rivals_needless[1] < maglev, "{name}: {tally:?}");
        }
    }

    #[test]
    fn without_entries_connections_move_with_the_table() {
        let full = CASES.into_iter().find(|case| case.strain == Strain::Full).expect("there");
        let (tally, _) = play(full, 20);
        assert!(tally.moved > 0 && tally.moved < tally.connections / 2, "{tally:?}");
    }
}

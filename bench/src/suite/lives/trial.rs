//! One trial: directors, the traffic, and what happens to them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::changes::{Changes, Kind};
use super::field::{Field, Tally};
use super::node::Node;
use super::{Case, Strain};
use crate::site::BEGIN_NS;

/// Simulated time of a turn, ns: with 32 packets in each, some hundred thousand lives end in a second of it.
const TURN_NS: u64 = 20_000;
/// Simulated time between two looks of the control core, ns.
const POLL_NS: u64 = 100_000_000;
/// Of so many changes one is followed by a restart, and where there are two directors one by a failover, and one by a
/// restart of that which stands by.
const SELDOM: u64 = 48;
/// Turns without packets after which something is wrong.
const STUCK: u32 = 100_000;

/// How much is played.
#[derive(Clone, Copy)]
pub struct Size {
    /// Connections side by side, and those that live as long as the run.
    pub block: usize,
    pub old: usize,
    /// Connections that a table has room for.
    pub room: u64,
    /// Packets between two changes, on average.
    pub interval: u64,
    /// How long each way may take with each sequence of changes; under strain a fifth of that, [`STRAINED_MOST`] at most.
    pub time: Duration,
}

/// Longest time of a way under strain, whose connections do not count for K1.
const STRAINED_MOST: Duration = Duration::from_secs(12);

impl Size {
    /// In a full run, which plays about a billion connections on two CPUs.
    pub const FULL: Self = Self {
        block: 65_536,
        old: 20_000,
        room: 2_000_000,
        interval: 65_536,
        time: Duration::from_secs(240),
    };
    /// In a quick one.
    pub const QUICK: Self =
        Self { block: 4_096, old: 2_000, room: 400_000, interval: 4_096, time: Duration::from_millis(300) };
}

/// One director or two under changes, restarts and failovers.
pub struct Trial {
    pub nodes: Vec<Node>,
    /// Which of them has the traffic.
    pub active: usize,
    case: Case,
    changes: Changes,
    size: Size,
    pub now_ns: u64,
    poll_ns: u64,
    made: Made,
}

/// What was done to directors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// Changes by kind.
    pub changes: [u64; Kind::ALL.len()],
    pub restarts: u64,
    pub failovers: u64,
    /// Connections that a restart did not take over, and records that the other director did not take in.
    pub lost: u64,
    pub untold: u64,
}

impl Made {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.changes.iter_mut().zip(other.changes).for_each(|(sum, made)| *sum += made);
        self.restarts += other.restarts;
        self.failovers += other.failovers;
        self.lost += other.lost;
        self.untold += other.untold;
    }
}

impl Trial {
    /// Directors without connections, or with a full table where that is the strain.
    pub fn new(case: Case, size: Size, seed: u64) -> anyhow::Result<Self> {
        let model = lb_config::parse(&case.plan(size).config()).context("the bench's configuration")?;
        let changes = Changes::new("web", seed);
        let field = Field::new(case.steps, size.block, size.old, changes.service(&model)?);
        let silent = case.pair.then(|| field.silent());
        let ports = [Some(field), silent].into_iter().flatten();
        let begin = |port| Node::new(&model, case.forwarding, port, BEGIN_NS / 2);
        let nodes = ports.map(begin).collect::<anyhow::Result<Vec<_>>>()?;
        nodes[0].lead(true);
        let made = Made::default();
        let (now_ns, poll_ns) = (BEGIN_NS, BEGIN_NS);
        let mut trial = Self { nodes, active: 0, case, changes, size, now_ns, poll_ns, made };
        if case.strain == Strain::Full {
            // those that live long come first, and fill the table
            trial.field().old_alone(true);
            trial.pass(3 * size.old as u64)?;
            trial.field().old_alone(false);
        }
        Ok(trial)
    }

    /// The port that traffic comes to.
    pub fn field(&mut self) -> &mut Field {
        self.nodes[self.active].worker.io_mut()
    }

    fn turn(&mut self) -> anyhow::Result<usize> {
        self.now_ns += TURN_NS;
        let moved = self.nodes[self.active].worker.turn(self.now_ns);
        if let [one, two] = &mut self.nodes[..] {
            let (own, other) = if self.active == 0 { (one, two) } else { (two, one) };
            own.tell(other, self.now_ns)?;
        }
        if self.now_ns >= self.poll_ns {
            for node in &mut self.nodes {
                node.director.poll(self.now_ns / 1_000_000);
            }
            self.poll_ns = self.now_ns + POLL_NS;
        }
        Ok(moved)
    }

    /// Lets so many packets come.
    pub fn pass(&mut self, packets: u64) -> anyhow::Result<()> {
        self.field().offer(packets);
        let mut idle = 0;
        while self.field().left() > 0 {
            idle = if self.turn()? == 0 { idle + 1 } else { 0 };
            let totals = || self.nodes[self.active].director.totals();
            ensure!(idle < STUCK, "no packet comes any more: {:?}", totals());
        }
        Ok(())
    }

    /// Makes the next change, of all directors; the workers take it up before their next packets.
    pub fn change(&mut self) -> anyhow::Result<()> {
        let (kind, model) = self.changes.make(self.nodes[self.active].director.model())?;
        for node in &mut self.nodes {
            node.director.apply(&model)?;
        }
        self.made.changes[kind as usize] += 1;
        let service = self.changes.service(&model)?;
        self.nodes[self.active].worker.io_mut().learn(service);
        Ok(())
    }

    /// Kills a director, and begins it again with what it left.
    pub fn restart(&mut self, which: usize) -> anyhow::Result<()> {
        // what it still has to say or send, it has: a turn ends with nothing on its way
        self.made.untold += self.nodes[which].refused();
        let node = self.nodes.remove(which);
        let (node, now_ns, lost) = node.restarted(self.now_ns)?;
        self.nodes.insert(which, node);
        self.now_ns = now_ns;
        self.made.restarts += 1;
        self.made.lost += lost;
        Ok(())
    }

    /// The other director has the traffic from now on.
    pub fn fail_over(&mut self) -> anyhow::Result<()> {
        if let [one, two] = &mut self.nodes[..] {
            std::mem::swap(one.worker.io_mut(), two.worker.io_mut());
            self.active = 1 - self.active;
            one.lead(self.active == 0);
            two.lead(self.active == 1);
            self.made.failovers += 1;
        }
        Ok(())
    }

    /// What seldom happens, if it does.
    fn seldom(&mut self) -> anyhow::Result<()> {
        if self.case.strain != Strain::None {
            return Ok(());
        }
        match (self.changes.below(SELDOM), self.nodes.len()) {
            (0, _) => self.restart(self.active),
            (1, 2) => self.fail_over(),
            (2, 2) => self.restart(1 - self.active),
            _ => Ok(()),
        }
    }

    /// Packets and changes in turn, for as long as there is time.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let strained = self.case.strain != Strain::None;
        let time = if strained { (self.size.time / 5).min(STRAINED_MOST) } else { self.size.time };
        let start = Instant::now();
        while start.elapsed() < time {
            let packets = 1 + self.changes.below(2 * self.size.interval);
            self.pass(packets)?;
            self.change()?;
            self.seldom()?;
        }
        Ok(())
    }

    /// Lets the block that goes on come to its end, so that whole lives are judged, and gives what was found.
    pub fn finish(mut self) -> anyhow::Result<Outcome> {
        let ended = self.field().ended();
        while self.field().ended() == ended {
            self.pass(64)?;
        }
        let mut dropped = Vec::new();
        for node in &self.nodes {
            let totals = node.director.totals();
            ensure!(totals.held == 0, "{} frames wait for ever", totals.held);
            self.made.untold += node.refused();
            let drops = node.director.drops().into_iter().filter(|(_, count)| *count > 0);
            dropped.extend(drops.map(|(reason, count)| format!("{count} {}", reason.name())));
        }
        let silent = self.field().silent();
        let tally = std::mem::replace(self.field(), silent).finish();
        Ok(Outcome { tally, made: self.made, dropped })
    }
}

/// What a trial has shown.
#[derive(Default)]
pub struct Outcome {
    pub tally: Tally,
    pub made: Made,
    /// Packets that were dropped since the latest restarts, by reason.
    pub dropped: Vec<String>,
}

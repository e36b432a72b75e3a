//! The goals, in one place: what has to be beaten to claim the lead ("bar"), and what is aimed at ("moon").

use anyhow::Context as _;

/// One goal.
pub struct Goal {
    /// Its row, with its case after a slash where a row has several.
    pub id: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// Of bar, moon and what was reached.
    pub unit: &'static str,
    /// To be beaten.
    pub bar: f64,
    /// Aimed at.
    pub moon: f64,
    /// Whether less is better.
    pub lower_is_better: bool,
}

/// What a figure is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Does not beat the bar.
    Short,
    /// Beats the bar.
    Bar,
    /// Reaches the moon.
    Moon,
}

impl Goal {
    /// Its row: its id without the case.
    pub fn row(&self) -> &'static str {
        self.id.split('/').next().unwrap_or(self.id)
    }

    /// What `value` is worth. A bar has to be beaten, but for one of 0, which cannot be.
    pub fn verdict(&self, value: f64) -> Verdict {
        let sign = if self.lower_is_better { 1.0 } else { -1.0 };
        let (value, bar, moon) = (sign * value, sign * self.bar, sign * self.moon);
        if value <= moon {
            Verdict::Moon
        } else if value < bar {
            Verdict::Bar
        } else {
            Verdict::Short
        }
    }
}

/// The goal of that id.
///
/// Errors: there is none.
pub fn named(id: &str) -> anyhow::Result<&'static Goal> {
    GOALS.iter().find(|goal| goal.id == id).with_context(|| format!("no goal '{id}' in the table of goals"))
}

/// Less is better.
const fn less(id: &'static str, what: &'static str, unit: &'static str, bar: f64, moon: f64) -> Goal {
    Goal { id, what, unit, bar, moon, lower_is_better: true }
}

/// More is better.
const fn more(id: &'static str, what: &'static str, unit: &'static str, bar: f64, moon: f64) -> Goal {
    Goal { id, what, unit, bar, moon, lower_is_better: false }
}

/// Every goal. One core, pipeline without port I/O, bursts of 32, unique flows in random order, minimum of N.
pub const GOALS: &[Goal] = &[
    less("P1", "DR at 1 k connections", "ns/packet", 25.0, 15.0),
    less("P2", "DR at 1 M connections", "ns/packet", 40.0, 25.0),
    less("P3", "DR at 10 M connections", "ns/packet", 45.0, 30.0),
    less("P4", "DR at 100 M connections", "ns/packet", 60.0, 35.0),
    less("P5/1k", "tunnel at 1 k connections", "ns/packet", 30.0, 18.0),
    less("P5/1M", "tunnel at 1 M connections", "ns/packet", 45.0, 28.0),
    less("P5/10M", "tunnel at 10 M connections", "ns/packet", 50.0, 33.0),
    less("P6/1k", "NAT, full NAT, per direction, at 1 k connections", "ns/packet", 40.0, 24.0),
    less("P6/1M", "NAT, full NAT, per direction, at 1 M connections", "ns/packet", 60.0, 36.0),
    less("P6/10M", "NAT, full NAT, per direction, at 10 M connections", "ns/packet", 70.0, 42.0),
    less("P7", "IPv6 over IPv4", "times", 1.5, 1.25),
    less("P8", "tax over testpmd on the same software port, DR", "ns/packet", 30.0, 20.0),
    more("P10/1k", "against Katran's program, tunnel at 1 k connections", "times faster", 3.0, 5.0),
    more("P10/1M", "against Katran's program, tunnel at 1 M connections", "times faster", 8.0, 15.0),
    more("P10/8M", "against Katran's program, tunnel at 8 M connections", "times faster", 10.0, 20.0),
    more("P10/first", "against Katran's program, first packets", "times faster", 5.0, 10.0),
    less("P11", "instructions per packet, DR hit", "instructions", 200.0, 130.0),
    more("H1/1M", "bulk lookup of a hit against rte_hash, 1 M keys", "times faster", 1.6, 2.5),
    more("H1/10M", "bulk lookup of a hit against rte_hash, 10 M keys", "times faster", 1.6, 2.5),
    more("C1", "first packets (SYN: miss, schedule, insert)", "M/s", 5.0, 12.0),
    more("C2", "whole TCP lives (6 client packets, expiry), DR", "M/s", 1.0, 3.0),
    more("C3", "whole TCP lives, full NAT with port allocation", "M/s", 0.6, 2.0),
    less("C4", "slow-down of hits while 1 M flows/s are inserted", "%", 20.0, 10.0),
    less("M1", "memory per IPv4 DR or tunnel connection", "bytes", 40.0, 25.0),
    less("M2/v6", "memory per IPv6 connection", "bytes", 96.0, 52.0),
    less("M2/pair", "memory per IPv4 full-NAT connection", "bytes", 96.0, 64.0),
    less("E1/mean", "expiry", "ns/packet", 5.0, 2.0),
    less("E1/pause", "expiry, longest pause", "us", 5.0, 1.0),
    less("R1", "Maglev rebuild, 65537 x 1000", "ms", 1.0, 0.35),
    less(
        "R4/90",
        "packets lost by a reconfiguration, 10 k services x 100 servers, at 90 % load",
        "packets",
        0.0,
        0.0,
    ),
    less(
        "R4/full",
        "packets lost by a reconfiguration, 10 k services x 100 servers, at full load",
        "packets",
        0.0,
        0.0,
    ),
    less("L1/p50", "added latency at half load, p50", "us", 2.0, 1.0),
    less("L1/p99", "added latency at half load, p99", "us", 10.0, 5.0),
    less("L1/p99.9", "added latency at half load, p99.9", "us", 50.0, 10.0),
    less("L2", "cost of the latency histograms", "ns/packet", 0.5, 0.1),
    more(
        "S2/forwarded",
        "established traffic forwarded during a SYN flood at twice the capacity",
        "%",
        99.0,
        99.99,
    ),
    less("S2/evicted", "established connections evicted by that flood", "connections", 0.0, 0.0),
    less(
        "K1",
        "broken connections in 1e9 simulated, servers added, removed, drained",
        "connections",
        0.0,
        0.0,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_there_once_and_its_moon_is_no_nearer_than_its_bar() {
        for (at, goal) in GOALS.iter().enumerate() {
            assert!(GOALS[..at].iter().all(|other| other.id != goal.id), "{}", goal.id);
            assert_eq!(goal.verdict(goal.moon), Verdict::Moon, "{}", goal.id);
            assert!(goal.bar == goal.moon || goal.verdict(goal.bar) == Verdict::Short, "{}", goal.id);
        }
    }

    #[test]
    fn a_bar_is_beaten_and_a_moon_reached() {
        let verdicts = |id: &str, values: [f64; 3]| values.map(|value| named(id).unwrap().verdict(value));
        assert_eq!(verdicts("P1", [25.0, 24.9, 15.0]), [Verdict::Short, Verdict::Bar, Verdict::Moon]);
        assert_eq!(verdicts("C1", [5.0, 5.1, 12.0]), [Verdict::Short, Verdict::Bar, Verdict::Moon]);
        assert_eq!(verdicts("S2/evicted", [1.0, 0.0, 0.0]), [Verdict::Short, Verdict::Moon, Verdict::Moon]);
    }
}

//! Suite `instructions`: how many instructions a packet takes, counted by callgrind.
//!
//! This program runs itself under valgrind, with N and with 2N packets, and only what is done for packets is counted
//! ([`work_under_callgrind`]); the difference divided by N is free of what happens once. What the generator takes is counted the
//! same way and subtracted. Flows are the same in every run; the tables' keys are random per start, as always, which
//! moves an entry to another slot and a count by less than one.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::context::Context;
use crate::frames::{ACK, Family, Leg, SYN};
use crate::generator::{Generator, HOT, Order};
use crate::packet::Buf;
use crate::peer::floor;
use crate::record::{Reached, Table};
use crate::site::{Forwarding, Plan, Site};
use crate::stats::Series;

/// What the process under valgrind is called.
pub const CHILD: &str = "count-instructions";
/// Connections.
const FLOWS: u64 = 1000;
/// Cachegrind's simulation is not wanted; only the function below is counted.
const VALGRIND: [&str; 4] = [
    "--tool=callgrind",
    "--collect-atstart=no",
    "--toggle-collect=*under_callgrind*",
    "--callgrind-out-file=/dev/null",
];

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    forwarding: Forwarding,
    family: Family,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Making frames, and nothing else.
    Floor,
    /// Packets to servers, of known connections.
    In,
    /// Replies.
    Out,
    /// First packets.
    First,
}

impl Case {
    /// All, in the order of the table; the floors first.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            all.push(Self { forwarding: Forwarding::Dr, family, what: What::Floor });
        }
        for forwarding in Forwarding::ALL {
            for family in [Family::V4, Family::V6] {
                all.push(Self { forwarding, family, what: What::In });
                if forwarding.reply().is_some() {
                    all.push(Self { forwarding, family, what: What::Out });
                }
                if forwarding != Forwarding::Gue {
                    all.push(Self { forwarding, family, what: What::First });
                }
            }
        }
        all
    }

    fn name(self) -> String {
        let what = match self.what {
            What::Floor => return format!("floor: frames made, {}", self.family.name()),
            What::In => "in",
            What::Out => "out",
            What::First => "first packet",
        };
        format!("{} {what}, {}", self.forwarding.name(), self.family.name())
    }
}

/// Counts.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        let why = format!("valgrind does not run: {error}");
        context.skip_goals("instructions per packet", why, &["P11"]);
        return Ok(());
    }
    let packets = if context.quick() { 2_000 } else { 20_000 };
    let quick = context.quick();
    let of_quick_run =
        |case: &Case| case.forwarding == Forwarding::Dr || case.forwarding == Forwarding::FullNat;
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| !quick || of_quick_run(case)).collect();
    let mut table = Table::new("Instructions per packet", &["packets", "counted", "net"]);
    let mut progress = context.progress("callgrind", cases.len() as u64);
    let mut counted: Vec<(Case, f64)> = Vec::new();
    for case in cases {
        let (once, twice) = (count(case, packets)?, count(case, 2 * packets)?);
        let each = (twice as f64 - once as f64) / packets as f64;
        context.record(
            "callgrind",
            &case.name(),
            "instructions/packet",
            [each].into_iter().collect::<Series>(),
        );
        let floor =
            counted.iter().find(|(other, _)| other.what == What::Floor && other.family == case.family);
        let net = floor.map(|(_, floor)| each - floor);
        table.row([case.name(), format!("{each:.1}"), net.map_or("-".to_owned(), |net| format!("{net:.1}"))]);
        if let (What::In, Forwarding::Dr, Some(net)) = (case.what, case.forwarding, net) {
            context.reached(Reached::new("P11", net).case(case.family.name()).counted())?;
        }
        counted.push((case, each));
        progress.step(1);
    }
    drop(progress);
    context.table(table);
    if quick {
        context.note("Quick: without tunnels and NAT.");
    }
    Ok(())
}

/// Instructions of `packets` packets, and of what is done once.
fn count(case: Case, packets: u64) -> anyhow::Result<u64> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new("valgrind");
    command.args(VALGRIND).arg(program).args([CHILD, &case.name(), &packets.to_string()]);
    let output = command.output().context("starting valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} under valgrind: {}\n{said}", case.name(), output.status);
    collected(&said).with_context(|| format!("{}: valgrind says no count:\n{said}", case.name()))
}

/// The count in what callgrind says at its end: "==123== Collected : 456".
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(' ').next()?.parse().ok().filter(|count| *count > 0)
}

/// The work of the process under valgrind: a case's name, and how many packets.
pub fn child(words: &[String]) -> anyhow::Result<()> {
    let [name, packets] = words else { bail!("usage: {CHILD} CASE PACKETS") };
    let case = Case::all()
        .into_iter()
        .find(|case| case.name() == *name)
        .with_context(|| format!("no case '{name}'"))?;
    let packets: u64 = packets.parse()?;
    let plan = |connections| Plan::new(case.forwarding, case.family, connections);
    let round = |leg, flags| Order::Round { flows: FLOWS, step: (leg, flags) };
    match case.what {
        What::Floor => {
            let mut io = Generator::new(case.family, Buf::pool(HOT));
            io.begin(round(Leg::In, ACK));
            work_under_callgrind(|| floor(&mut io, packets));
        }
        What::In | What::Out => {
            let leg = if case.what == What::In { Some(Leg::In) } else { case.forwarding.reply() };
            let mut site = Site::established(plan(FLOWS), Buf::pool(HOT))?;
            site.io().begin(round(leg.context("a leg of replies")?, ACK));
            work_under_callgrind(|| site.pass(packets));
            site.check(FLOWS)?;
        }
        What::First => {
            let mut site = Site::empty(plan(packets), Buf::pool(HOT))?;
            site.io().begin(Order::Round { flows: packets, step: (Leg::In, SYN) });
            work_under_callgrind(|| site.pass(packets));
            site.check(packets)?;
        }
    }
    Ok(())
}

/// What callgrind counts; its name is given to it, and is no other function's.
#[inline(never)]
fn work_under_callgrind(work: impl FnOnce()) {
    work();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 34567\n==7== \n";
        assert_eq!(collected(said), Some(34567));
        assert_eq!(collected("==7== Collected : 0\n"), None);
        assert_eq!(collected(""), None);
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_works() {
        let all = Case::all();
        for (at, case) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other.name() != case.name()), "{}", case.name());
        }
        let first = |what| all.iter().find(|case| case.what == what).expect("a case").name();
        for what in [What::Floor, What::In, What::Out, What::First] {
            child(&[first(what), "1000".to_owned()]).expect("a case that passes its packets");
        }
    }
}

//! Whole TCP lives, from the first packet to expiry, at a steady state: as many connections end as begin.

use lb_dataplane::io::BURST;

use crate::context::Context;
use crate::frames::{ACK, FIN, Family, Leg, PUSH, SYN, SYN_ACK};
use crate::generator::{Generator, HOT, Order, Step};
use crate::packet::Buf;
use crate::peer::floor;
use crate::record::{Reached, Table};
use crate::site::{Forwarding, Plan, Site};
use crate::stats::short;

use super::{SLICE, sliced, timed};

/// A life as a director sees it that replies go past: six packets of the client.
const ONE_WAY: &[Step] =
    &[(Leg::In, SYN), (Leg::In, ACK), (Leg::In, PUSH), (Leg::In, PUSH), (Leg::In, FIN), (Leg::In, ACK)];

/// The same through full NAT: the server's four packets too.
const BOTH_WAYS: &[Step] = &[
    (Leg::In, SYN),
    (Leg::OutToLocal, SYN_ACK),
    (Leg::In, ACK),
    (Leg::In, PUSH),
    (Leg::OutToLocal, PUSH),
    (Leg::In, PUSH),
    (Leg::OutToLocal, ACK),
    (Leg::In, FIN),
    (Leg::OutToLocal, FIN),
    (Leg::In, ACK),
];

/// Lives that go on side by side.
const BLOCK: u64 = 32_768;

/// Measures C2 and C3.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let mut table = Table::new(
        "Whole TCP lives, expiry included",
        &["lives", "packets each", "ns per life, minimum / median", "net", "M/s", "connections kept"],
    );
    let cases = [("C2", Forwarding::Dr, ONE_WAY), ("C3", Forwarding::FullNat, BOTH_WAYS)];
    for (goal, forwarding, steps) in cases {
        for family in [Family::V4, Family::V6] {
            measure(context, &mut table, goal, forwarding, family, steps)?;
        }
    }
    context.table(table);
    context.note(
        "Lives: the worker's clock is paced as packets pass; connections that are over are kept for 1 s (250 ms in a quick run) \
         where IPVS keeps them for 120 s, so that those of the last seconds stand in the table and as many expire as begin while \
         time is taken.",
    );
    Ok(())
}

fn measure(
    context: &mut Context,
    table: &mut Table,
    goal: &str,
    forwarding: Forwarding,
    family: Family,
    steps: &'static [Step],
) -> anyhow::Result<()> {
    // room for what lives and is kept: under 4 M lives a second for as long as they are kept and a sweep takes
    let (room, lives, warm, kept) =
        if context.quick() { (4_000_000, 3 * BLOCK, 0, "250ms") } else { (12_000_000, 16 * BLOCK, 3, "1s") };
    let mut plan = Plan::new(forwarding, family, room);
    plan.more = ["tcp_fin_wait", "tcp_time_wait", "tcp_close_wait", "tcp_close"]
        .iter()
        .fold("[timeouts]\n".to_owned(), |text, key| format!("{text}{key} = \"{kept}\"\n"));
    let mut site = Site::empty(plan, Buf::pool(HOT))?;
    let mut bare = Generator::new(family, Buf::pool(HOT));
    let order = Order::Lives { flows: u64::MAX, block: BLOCK, steps };
    for io in [site.io(), &mut bare] {
        io.learn_last(BLOCK as usize);
        io.begin(order.clone());
    }
    let packets = lives * steps.len() as u64;
    // time goes by as fast as packets really pass: the worker's clock is paced by a first block
    let block = BLOCK * steps.len() as u64;
    let ns = sliced(block / SLICE, |packets| site.pass(packets));
    site.pass(block % SLICE);
    site.pace((ns * BURST as f64) as u64);
    let ready = site.now_ns() + warm * 1_000_000_000;
    while site.now_ns() < ready {
        site.pass(block);
        site.check_passed()?;
    }
    let setting = format!("lives, {}, {}", forwarding.name(), family.name());
    let names = ["floor", "Sluice"].map(str::to_owned);
    let series = context.rounds(context.pairs(), &setting, "ns/life", &names, |at, _| {
        Ok(match at {
            0 => timed(lives, || floor(&mut bare, packets)),
            _ => timed(lives, || site.pass(packets)),
        })
    })?;
    site.check_passed()?;
    let (connections, expired) = (site.director.workers()[0].connections, site.director.workers()[0].expired);
    site.idle_until_empty()?;
    let net = series[1].above(&series[0]);
    let rate = 1e3 / net;
    let name = format!("{}, {}", forwarding.name(), family.name());
    table.row([
        name.clone(),
        steps.len().to_string(),
        series[1].shown(),
        format!("{net:.0}"),
        format!("{rate:.2}"),
        short(connections as f64),
    ]);
    if !context.quick() {
        let note = format!("{} expired meanwhile", short(expired as f64));
        let reached = Reached::new(goal, rate).case(name).note(note);
        context.reached(reached.published("DPVS, full NAT", super::published::DPVS_LIVES))?;
    }
    Ok(())
}

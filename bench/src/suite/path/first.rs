//! First packets: a SYN that no connection is known for is scheduled and its connection entered.

use crate::context::Context;
use crate::frames::{Family, Leg, SYN};
use crate::generator::{Generator, HOT, Order};
use crate::packet::Buf;
use crate::peer::floor;
use crate::record::{Reached, Table};
use crate::site::{Forwarding, Plan, Site};
use crate::stats::short;

use super::{published, timed};

/// Measures first packets into an empty table with room for as many; C1 and P10.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let sizes: &[u64] = if context.quick() { &[20_000] } else { &[20_000, 1_000_000] };
    let mut table = Table::new(
        "First packets (SYN): from an empty table until it holds all connections, ns per packet",
        &["packets", "connections", "minimum / median", "net", "M/s"],
    );
    let mut pools: Vec<Vec<Buf>> = (0..4).map(|_| Buf::pool(HOT)).collect();
    for flows in sizes {
        for forwarding in [Forwarding::Dr, Forwarding::Ipip, Forwarding::Nat, Forwarding::FullNat] {
            measure(context, &mut table, &mut pools, forwarding, *flows)?;
        }
    }
    context.table(table);
    Ok(())
}

fn measure(
    context: &mut Context,
    table: &mut Table,
    pools: &mut Vec<Vec<Buf>>,
    forwarding: Forwarding,
    flows: u64,
) -> anyhow::Result<()> {
    let families = [Family::V4, Family::V6];
    let mut take = || pools.pop().unwrap_or_else(|| Buf::pool(HOT));
    let mut floors = families.map(|family| Generator::new(family, take()));
    let mut sites = Vec::new();
    for family in families {
        sites.push(Site::empty(Plan::new(forwarding, family, flows), take())?);
    }
    let order = Order::Round { flows, step: (Leg::In, SYN) };
    let setting = format!("first packets, {}, {} connections", forwarding.name(), short(flows as f64));
    let names = ["floor, IPv4", "floor, IPv6", "Sluice, IPv4", "Sluice, IPv6"].map(str::to_owned);
    let series = context.rounds(context.pairs(), &setting, "ns/packet", &names, |at, _| {
        let io = if at < 2 { &mut floors[at] } else { sites[at - 2].io() };
        io.begin(order.clone());
        if at < 2 {
            return Ok(timed(flows, || floor(&mut floors[at], flows)));
        }
        let site = &mut sites[at - 2];
        let ns = timed(flows, || site.pass(flows));
        site.check(flows)?;
        // the next round begins with tables whose memory is there, as a director's is after its first minutes
        site.idle_until_empty()?;
        Ok(ns)
    })?;
    for (at, family) in families.iter().enumerate() {
        let net = series[at + 2].above(&series[at]);
        let rate = 1e3 / net;
        let name = format!("{}, {}", forwarding.name(), family.name());
        let shown = [series[at + 2].shown(), format!("{net:.1}"), format!("{rate:.2}")];
        table.row([name.clone(), short(flows as f64)].into_iter().chain(shown));
        if flows == 1_000_000 {
            let katran = 1e3 / published::KATRAN_FIRST;
            context.reached(Reached::new("C1", rate).case(name).published("Katran's insert", katran))?;
            if forwarding == Forwarding::Ipip && *family == Family::V4 {
                let katran = published::KATRAN_FIRST;
                context.reached(Reached::new("P10/first", katran / net).published("Katran, ns", katran))?;
            }
        }
    }
    pools.extend(floors.map(|mut io| io.swap_buffers(Vec::new())));
    pools.extend(sites.into_iter().map(Site::into_buffers));
    Ok(())
}

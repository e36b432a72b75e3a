//! Where the workers' tables lie, and what the operator hears of it.

use std::sync::Arc;

use lb_config::{Forwarding, Model};
use lb_dataplane::conn::memory::Lender;
use lb_dataplane::conn::table::NoMemory;
use lb_dataplane::tables::{Kind, Tables};
use lb_dpdk::TableMemory;
use tracing::info;

/// Tables for every worker, each for `max` connections: huge pages first for what the configuration uses.
///
/// Errors: no memory.
pub fn tables(model: &Model, max: u32) -> Result<Vec<Tables>, NoMemory> {
    let workers = u16::try_from(model.appliance.workers.len()).unwrap_or(u16::MAX);
    let lender: Arc<dyn Lender> = TableMemory::new();
    let tables = Tables::for_workers(workers, max, |kind| is_used(model, kind), &lender)?;
    for kind in Kind::ALL {
        let of_kind: Vec<_> = tables.iter().map(|tables| tables.memory(kind)).collect();
        let mib = of_kind.iter().map(|(bytes, _)| bytes >> 20).sum::<usize>();
        let mut pages: Vec<_> = of_kind.iter().map(|(_, pages)| pages.to_string()).collect();
        pages.dedup();
        info!(
            table = kind.name(),
            workers,
            mib,
            memory = pages.join(", "),
            used = is_used(model, kind),
            "memory"
        );
    }
    Ok(tables)
}

/// Whether what is configured at the start needs this kind of table. Others work as well, in memory that is taken as
/// it is used.
fn is_used(model: &Model, kind: Kind) -> bool {
    let translates = |forwarding: &Forwarding| matches!(forwarding, Forwarding::Nat | Forwarding::FullNat);
    let mut servers = model.services.iter().flat_map(|service| &service.servers);
    let mut rules = model.snat.iter().map(|rule| rule.sources.is_ipv6());
    match kind {
        Kind::V4 => true,
        Kind::V6 => servers.any(|server| server.address.is_ipv6()) || rules.any(|is_ipv6| is_ipv6),
        Kind::Pairs4 => {
            servers.any(|server| server.address.is_ipv4() && translates(&server.forwarding))
                || rules.any(|is_ipv6| !is_ipv6)
        }
        Kind::Pairs6 => {
            servers.any(|server| server.address.is_ipv6() && translates(&server.forwarding))
                || rules.any(|is_ipv6| is_ipv6)
        }
    }
}

//! Where the workers' tables lie, and what the operator hears of it.

use std::sync::Arc;

use lb_config::{Forwarding, Model};
use lb_control::api::TableRow;
use lb_dataplane::conn::memory::{Lender, Pages};
use lb_dataplane::conn::table::NoMemory;
use lb_dataplane::tables::{Kind, Tables};
use lb_dpdk::TableMemory;
use tracing::{info, warn};

/// Size of the reserved pages that tables lie in, bytes.
const HUGE_PAGE: u64 = 2 << 20;

/// Tables for every worker, each for `max` connections, and what is told of them: huge pages first for what the
/// configuration uses. To be called after DPDK has taken its pages and made its pools: it ends without, a table does
/// not.
///
/// Errors: no memory.
pub fn tables(model: &Model, max: u32) -> Result<(Vec<Tables>, Vec<TableRow>), NoMemory> {
    let workers = u16::try_from(model.appliance.workers.len()).unwrap_or(u16::MAX);
    let lender: Arc<dyn Lender> = TableMemory::new();
    let tables = Tables::for_workers(workers, max, |kind| is_used(model, kind), &lender)?;
    let rows: Vec<TableRow> = Kind::ALL.map(|kind| row(&tables, kind, is_used(model, kind))).into();
    for row in &rows {
        let (mib, pages) = (row.bytes >> 20, row.pages.join(", "));
        info!(table = row.kind, workers, fits = row.fits, mib, memory = pages, used = row.used, "memory");
    }
    // Somebody reserved pages, and not enough of them.
    let short: u64 = rows.iter().filter(|row| row.used).map(|row| row.bytes - row.reserved_bytes).sum();
    if short > 0 && rows.iter().any(|row| row.reserved_bytes > 0) {
        let pages = short.div_ceil(HUGE_PAGE);
        warn!(
            missing_mib = short >> 20,
            "tables lack about {pages} reserved huge pages of 2 MiB (vm.nr_hugepages)"
        );
    }
    Ok((tables, rows))
}

/// What is told of the tables of one kind.
fn row(tables: &[Tables], kind: Kind, used: bool) -> TableRow {
    let mut row = TableRow { kind: kind.name().to_owned(), used, ..TableRow::default() };
    for table in tables {
        let (bytes, pages) = table.memory(kind);
        row.fits += u64::from(table.room(kind));
        row.bytes += bytes as u64;
        row.reserved_bytes += if pages == Pages::Huge { bytes as u64 } else { 0 };
        let pages = pages.to_string();
        if !row.pages.contains(&pages) {
            row.pages.push(pages);
        }
    }
    row
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

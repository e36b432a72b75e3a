//! Where the workers' tables lie, and what the operator hears of it.

use lb_config::{Forwarding, Model};
use lb_control::api::TableRow;
use lb_dataplane::conn::memory::Pages;
use lb_dataplane::tables::{Kind, Tables};
use tracing::{info, warn};

/// Size of the reserved pages that tables lie in, bytes.
const HUGE_PAGE: u64 = 2 << 20;

/// Connections that each worker may track.
pub fn per_worker(model: &Model) -> u32 {
    let workers = u32::try_from(model.appliance.workers.len()).unwrap_or(u32::MAX);
    model.limits.max_connections.div_ceil(workers.max(1))
}

/// What is told of every worker's tables: huge pages first for what the configuration uses. They are to be made after
/// DPDK has taken its pages and made its pools: it ends without, a table does not.
pub fn rows(model: &Model, tables: &[Tables]) -> Vec<TableRow> {
    let workers = tables.len();
    let rows: Vec<TableRow> = Kind::ALL.map(|kind| row(tables, kind, is_used(model, kind))).into();
    for row in &rows {
        let (mib, pages) = (row.bytes >> 20, row.pages.join(", "));
        let kept_mib = row.kept_bytes >> 20;
        let (table, fits, used) = (&row.kind, row.fits, row.used);
        info!(table, workers, fits, mib, memory = pages, used, kept_mib, "memory");
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
    rows
}

/// What is told of the tables of one kind.
fn row(tables: &[Tables], kind: Kind, used: bool) -> TableRow {
    let mut row = TableRow { kind: kind.name().to_owned(), used, ..TableRow::default() };
    for table in tables {
        let (bytes, pages) = table.memory(kind);
        row.kept_bytes += if table.is_kept(kind) { bytes as u64 } else { 0 };
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
pub fn is_used(model: &Model, kind: Kind) -> bool {
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

//! Connection tables in reserved huge pages, and without.

use anyhow::{Context, Result, ensure};
use lb_control::api::{TableRow, Workers};
use lb_tests::case::Case;
use lb_tests::config::Config;
use lb_tests::huge_pages::{Reserved, free_pages};
use lb_tests::lab::{Lab, VIP};

/// What tables lie in where nothing is reserved: the kernel may join no pages at all.
const OTHERS: [&str; 2] = ["transparent huge pages", "small pages"];

/// Pages of DPDK with `huge_pages = "2M"` and the least memory.
const OF_DPDK: u64 = 32;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("tables_lie_in_reserved_huge_pages_where_there_are_some", tables).needs(missing),
        Case::new("dpdk_takes_its_huge_pages_before_the_tables", beside_dpdk).needs(missing),
    ]
}

/// Why nothing can be reserved, if so.
fn missing() -> Option<String> {
    Reserved::exactly(OF_DPDK + 8).is_none().then(|| "wants to write vm.nr_hugepages".to_owned())
}

fn tables(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    // Two pages for each worker's IPv4 connections; what is smaller than half a page takes none.
    let config = Config { workers: 2, max_connections: 200_000, ..Config::default() };
    let reserved = Reserved::exactly(8).context("no huge pages")?;
    let rows = balanced(lab, &config)?;
    ensure!(rows[0].pages == ["reserved huge pages"] && rows[0].reserved_bytes == rows[0].bytes, "{rows:?}");
    ensure!(rows[0].used && rows[0].fits == 200_000, "{rows:?}");
    // nothing in the configuration needs the others
    ensure!(rows[1..].iter().all(|row| row.reserved_bytes == 0 && !row.used), "{rows:?}");
    lab.director = None;
    ensure!(free_pages() == Some(8), "lbd left pages behind: {:?}", free_pages());
    drop(reserved);

    // Three pages hold one worker's.
    let reserved = Reserved::exactly(3).context("no huge pages")?;
    let rows = balanced(lab, &config)?;
    ensure!(rows[0].pages.len() == 2 && rows[0].reserved_bytes * 2 == rows[0].bytes, "{rows:?}");
    let log = lab.director()?.process.log();
    ensure!(log.contains("tables lack about 2 reserved huge pages"), "no warning in {log}");
    lab.director = None;
    drop(reserved);

    let _none = Reserved::exactly(0).context("not free of huge pages")?;
    let rows = balanced(lab, &config)?;
    ensure!(rows.iter().all(|row| OTHERS.contains(&row.pages.join(", ").as_str())), "{rows:?}");
    ensure!(!lab.director()?.process.log().contains("tables lack"), "a warning where nobody reserves pages");
    Ok(())
}

fn beside_dpdk(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let config = Config { memory: "huge_pages = \"2M\"\nmemory_mib = 64", ..Config::default() };
    let _reserved = Reserved::exactly(OF_DPDK + 8).context("no huge pages")?;
    let rows = balanced(lab, &config)?;
    ensure!(rows[0].pages == ["reserved huge pages"], "{rows:?}");
    let free = free_pages().context("no count")?;
    ensure!(free < 8, "{free} pages are free beside DPDK and a table");
    Ok(())
}

/// Starts lbd, has it balance, and compares what its log and its answer say of the tables.
fn balanced(lab: &mut Lab, config: &Config) -> Result<Vec<TableRow>> {
    lab.start_director(config)?;
    let answers = (0..4).map(|_| lab.curl(&format!("http://{VIP}/"))).collect::<Result<Vec<_>>>()?;
    ensure!(answers.iter().all(|answer| answer.contains("from 192.168.150.1")), "{answers:?}");
    let director = lab.director()?;
    let rows = director.json::<Workers>(&["workers"])?.tables;
    ensure!(rows.len() == 4, "{rows:?}");
    let (log, text) = (director.process.log(), director.ask(&["workers"])?);
    for row in &rows {
        let line = log.lines().find(|line| line.contains(&format!("table=\"{}\"", row.kind)));
        let line = line.with_context(|| format!("no line of {} in {log}", row.kind))?;
        ensure!(line.contains(&format!("memory=\"{}\"", row.pages.join(", "))), "{line}: {row:?}");
        ensure!(
            text.lines().any(|l| l.starts_with(&row.kind) && l.contains(&row.pages[0])),
            "{text}: {row:?}"
        );
    }
    Ok(rows)
}

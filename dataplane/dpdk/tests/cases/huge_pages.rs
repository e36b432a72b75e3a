//! Memory of connection tables in reserved huge pages, and of DPDK beside it.

use std::sync::Arc;

use lb_config::{Device, HugePages};
use lb_dataplane::conn::memory::{Lender, Pages, Request};
use lb_dataplane::conn::{HashKey, Key4, Table};
use lb_dataplane::tables::{Kind, Tables};
use lb_dpdk::{Eal, EalConfig, EalError, HugePageError, TableMemory};

use crate::support::huge_pages::{Reserved, free_pages};
use crate::support::{config, frame, open, receive, send};

/// Most pages of 2 MiB that a case reserves.
pub const MOST: u64 = 64;

const HUGE: usize = 2 << 20;

fn request(bytes: usize, used: bool) -> Request {
    Request { name: "test".to_owned(), bytes, used }
}

/// What memory consists of that is not reserved.
fn other() -> Pages {
    let modes = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if modes.is_empty() || modes.contains("[never]") { Pages::Small } else { Pages::Advised }
}

pub fn tables() {
    let reserved = Reserved::exactly(MOST).unwrap();
    let memory = TableMemory::new();
    let lender: Arc<dyn Lender> = memory.clone();
    let secret = HashKey([1, 2, 3, 4]);
    let table = Table::<Key4>::in_memory(1_000_000, secret, "test".to_owned(), true, &lender).unwrap();
    let pages = table.bytes().div_ceil(HUGE) as u64;
    assert!((12..20).contains(&pages) && table.pages() == Pages::Huge && table.is_empty());
    // They are there, not promised: no touch of a worker can end in SIGBUS.
    assert_eq!(free_pages(), Some(MOST - pages));

    let loan = memory.lend(&request(10 * HUGE - 64, true)).unwrap();
    assert_eq!((loan.pages, free_pages()), (Pages::Huge, Some(MOST - pages - 10)));
    assert!(loan.memory.iter().all(|byte| *byte == 0));
    loan.memory.fill(0xff);
    // Others leave what is scarce.
    for request in [request(10 * HUGE, false), request(HUGE / 2 - 1, true)] {
        let spare = memory.lend(&request).unwrap();
        assert_eq!((spare.pages, free_pages()), (other(), Some(MOST - pages - 10)));
        memory.take_back(spare.memory);
    }
    memory.take_back(loan.memory);
    // What the last one wrote is gone.
    let again = memory.lend(&request(10 * HUGE, true)).unwrap();
    assert!(again.pages == Pages::Huge && again.memory.iter().all(|byte| *byte == 0));
    memory.take_back(again.memory);
    drop(table);
    assert_eq!(free_pages(), Some(MOST));
    drop(reserved);
}

pub fn shortage() {
    let _reserved = Reserved::exactly(8).unwrap();
    let memory = TableMemory::new();
    let loan = memory.lend(&request(8 * HUGE + 64, true)).unwrap();
    assert_eq!((loan.pages, free_pages()), (other(), Some(8)), "too large by a line");
    loan.memory.fill(0xff);
    memory.take_back(loan.memory);

    // 100,000 connections are two pages and their translations four: the second worker's connections come before the
    // first one's translations, and of the second worker's translations the kernel is not asked for a part.
    let lender: Arc<dyn Lender> = memory.clone();
    let used = |kind| matches!(kind, Kind::V4 | Kind::Pairs4);
    let tables = Tables::for_workers(2, 100_000, used, &lender).unwrap();
    let pages = |kind| tables.iter().map(|tables| tables.memory(kind)).collect::<Vec<_>>();
    let (v4, pairs4) = (pages(Kind::V4), pages(Kind::Pairs4));
    assert!(v4.iter().all(|(bytes, pages)| bytes.div_ceil(HUGE) == 2 && *pages == Pages::Huge), "{v4:?}");
    assert_eq!(pairs4[0].0.div_ceil(HUGE), 4);
    assert_eq!((pairs4[0].1, pairs4[1].1, free_pages()), (Pages::Huge, other(), Some(0)));
    drop(tables);
    assert_eq!(free_pages(), Some(8));
}

pub fn none() {
    let _reserved = Reserved::exactly(0).unwrap();
    let memory = TableMemory::new();
    let loan = memory.lend(&request(8 * HUGE, true)).unwrap();
    assert_eq!(loan.pages, other());
    loan.memory.fill(0xff);
    memory.take_back(loan.memory);
}

pub fn beside_dpdk() {
    const OF_DPDK: u64 = 32;
    let _reserved = Reserved::exactly(OF_DPDK + 8).unwrap();
    let too_much = EalConfig { huge_pages: HugePages::Size2M, memory_mib: 128, ..config(1) };
    let refused = Eal::init(&too_much).unwrap_err();
    let few = EalError::HugePages(HugePageError::TooFew {
        huge_pages: "2M",
        memory_mib: 128,
        page_mib: 2,
        needed: 64,
        free: OF_DPDK as u32 + 8,
        path: "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages".into(),
    });
    assert_eq!(refused.to_string(), few.to_string());

    let eal = Eal::init(&EalConfig { memory_mib: OF_DPDK as u32 * 2, ..too_much }).unwrap();
    let (_devices, mut ios) = open(&eal, &[Device::Ring("a".into())]).unwrap();
    let free = free_pages().unwrap();
    assert!((1..=8).contains(&free), "DPDK left {free} pages");
    // Tables take what is left, and what does not fit takes nothing; DPDK's memory goes on working.
    let memory = TableMemory::new();
    let large = memory.lend(&request((free as usize + 1) * HUGE, true)).unwrap();
    assert_eq!(large.pages, other());
    let all = memory.lend(&request(free as usize * HUGE, true)).unwrap();
    assert_eq!((all.pages, free_pages()), (Pages::Huge, Some(0)));
    all.memory.fill(0xff);
    let frames: Vec<_> = (0..1000).map(|n| frame(n, 1514)).collect();
    send(&mut ios[0], 0, &frames);
    assert_eq!(receive(&mut ios[0], 0, frames.len()), frames);
}

//! A director that is killed, and the one after it: connections go on.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use lb_config::{Service, ServiceAddress};
use lb_dataplane::Worker;
use lb_dataplane::conn::memory::{Lender, Life, Loan, Pages, Request};
use lb_dataplane::director::{self, DestKey, Director, Journal, Owner};
use lb_dataplane::ids::DestId;
use lb_dataplane::keep::{Estate, Loss, Moment, Secrets, Taken, move_in, take_over};
use lb_dataplane::memory::MemoryIo;
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::tables::Tables;
use proptest::prelude::*;

use crate::frames::{ACK, CLIENT, DIRECTOR, FIN, SYN, ethernet};
use crate::lab::{Lab, model};
use crate::nat::{CIP, RIP, STATION, TWO_ARMS, VIP, answer, from_server, hopped, segment};

/// Memory by name, which outlives who had it.
#[derive(Debug, Default)]
struct Shelf {
    kept: Mutex<HashMap<String, &'static mut [u8]>>,
    lent: Mutex<HashMap<usize, String>>,
    /// Connections of all workers; 0: 4096.
    max: u32,
}

impl Shelf {
    fn max(&self) -> u32 {
        if self.max == 0 { 4096 } else { self.max }
    }
}

impl Lender for Shelf {
    fn lend(&self, request: &Request) -> Option<Loan> {
        let mut kept = self.kept.lock().expect("lock");
        let there = kept.remove(&request.name).filter(|memory| memory.len() == request.bytes);
        let life = if there.is_some() { Life::Left } else { Life::Kept };
        let memory = there.unwrap_or_else(|| {
            let memory = Box::leak(vec![0u8; request.bytes + 64].into_boxed_slice());
            let start = memory.as_ptr().align_offset(64);
            &mut memory[start..start + request.bytes]
        });
        self.lent.lock().expect("lock").insert(memory.as_ptr().addr(), request.name.clone());
        Some(Loan { memory, pages: Pages::Small, life })
    }

    fn take_back(&self, memory: &'static mut [u8]) {
        let name = self.lent.lock().expect("lock").remove(&memory.as_ptr().addr()).expect("lent");
        self.kept.lock().expect("lock").insert(name, memory);
    }
}

/// What was written down.
#[derive(Debug, Default)]
struct Notes {
    services: HashMap<ServiceAddress, Service>,
    dests: BTreeMap<u32, DestKey>,
}

#[derive(Debug, Clone, Default)]
struct Book(Arc<Mutex<Notes>>);

impl Journal for Book {
    fn service(&mut self, service: &Service) {
        self.0.lock().expect("lock").services.insert(service.address, service.clone());
    }

    fn dest(&mut self, dest: DestId, key: &DestKey, _: bool) {
        let mut notes = self.0.lock().expect("lock");
        notes.dests.retain(|_, known| known != key);
        notes.dests.insert(dest.0, *key);
    }

    fn close(&mut self) {}

    fn is_long(&self) -> bool {
        false
    }

    fn begin(&mut self) {
        *self.0.lock().expect("lock") = Notes::default();
    }
}

/// A director that can be killed.
struct Run {
    lab: Lab,
    shelf: Arc<Shelf>,
    book: Book,
    secrets: Secrets,
    workers: u16,
    taken: Vec<Taken>,
    /// How long that took.
    took: std::time::Duration,
}

impl Run {
    fn begin(text: &str, workers: u16) -> Self {
        let (shelf, book) = (Arc::default(), Book::default());
        let secrets = Secrets::random(workers.into());
        Self::start(text, workers, (shelf, book, secrets, workers), 10_000, 0).resolved()
    }

    fn start(
        text: &str,
        workers: u16,
        (shelf, book, mut secrets, before): (Arc<Shelf>, Book, Secrets, u16),
        last_ms: u64,
        away_ms: u64,
    ) -> Self {
        let cpus: Vec<_> = (0..workers).collect();
        let head = format!("[appliance]\nworkers = {cpus:?}\n[limits]\nmax_connections = {}\n", shelf.max());
        let model = model(&format!("{head}{text}"));
        let former_secrets: Vec<_> = secrets.workers.iter().map(|worker| worker.table).collect();
        let fresh = Secrets::random(workers.into());
        secrets.workers.truncate(workers.into());
        secrets.workers.extend(fresh.workers.into_iter().skip(before.into()));
        let notes = std::mem::take(&mut *book.0.lock().expect("lock"));
        let mut services = notes.services;
        services.values_mut().for_each(|service| service.servers.clear());
        for key in notes.dests.values() {
            let Owner::Service(address) = key.owner else { continue };
            let server = lb_config::Server {
                weight: 0,
                ..lb_config::Server::new(key.address, key.port, key.forwarding)
            };
            services.get_mut(&address).expect("written down").servers.push(server);
        }
        let services: Vec<Arc<Service>> = services.into_values().map(Arc::new).collect();
        let estate = Estate {
            secrets: secrets.clone(),
            former: notes.dests.iter().map(|(index, key)| (DestId(*index), *key)).collect(),
            services: services.clone(),
            ..Estate::new(workers.into())
        };
        let devices = director::devices(&model);
        let setup = devices.iter().map(|_| DeviceSetup { mac: DIRECTOR, rss: false }).collect();
        let (mut director, seeds) = Director::heir(&model, setup, estate).expect("a director");
        let lender: Arc<dyn Lender> = shelf.clone();
        let now_ms = last_ms + away_ms;
        let moment = Moment { last_ns: last_ms * 1_000_000, now_ns: now_ms * 1_000_000 };
        let max = seeds[0].setup.connections_per_worker;
        let own: Vec<_> = secrets.workers.iter().map(|worker| worker.table).collect();
        let began = std::time::Instant::now();
        let (tables, taken) = if before == workers {
            let mut tables = Tables::with_secrets(&own, max, |_| true, &lender).expect("memory");
            let taken = tables.iter_mut().zip(&seeds).map(|(tables, seed)| take_over(tables, seed, &moment));
            let taken = taken.collect();
            (tables, taken)
        } else {
            let theirs = shelf.max().div_ceil(before.into());
            let old = Tables::with_secrets(&former_secrets, theirs, |_| true, &lender).expect("memory");
            // another shelf: of another generation
            let lender: Arc<dyn Lender> = Arc::new(Shelf::default());
            let mut tables = Tables::with_secrets(&own, max, |_| true, &lender).expect("memory");
            let taken = move_in(old, &mut tables, &seeds, &moment);
            (tables, taken)
        };
        let took = began.elapsed();
        director.keep_journal(Box::new(book.clone()), &services);
        let io = MemoryIo::for_workers(devices.len(), workers);
        let workers_now = seeds
            .into_iter()
            .zip(io)
            .zip(tables)
            .map(|((seed, io), tables)| Worker::with_tables(seed, io, tables))
            .collect();
        let mut lab = Lab { director, workers: workers_now, now_ms };
        lab.turn();
        Self { lab, shelf, book, secrets, workers, taken, took }
    }

    /// Servers and clients have answered.
    fn resolved(mut self) -> Self {
        let lab = &mut self.lab;
        for n in 12..15 {
            answer(lab, 1, crate::frames::server_mac(n), Ipv4Addr::new(10, 1, 0, n), [10, 1, 0, 1].into());
            answer(
                lab,
                0,
                crate::frames::server_mac(n),
                Ipv4Addr::new(192, 168, 150, n),
                [192, 168, 150, 11].into(),
            );
        }
        lab.put(&crate::frames::arp(1, [0xff; 6], (CLIENT, CIP.octets()), ([0; 6], VIP.octets())));
        lab.settle();
        answer(lab, 0, CLIENT, CIP, [192, 168, 150, 11].into());
        lab.settle();
        lab.clear();
        (0..2).for_each(|device| drop(lab.sent_on(device)));
        self
    }

    /// Killed, and another one begins after some time.
    fn killed(self, text: &str, workers: u16, away_ms: u64) -> Self {
        self.spoiled(text, workers, away_ms, |_, _| {})
    }

    /// As [`Run::killed`], and somebody gets at the memory between.
    fn spoiled(self, text: &str, workers: u16, away_ms: u64, mut spoil: impl FnMut(&str, &mut [u8])) -> Self {
        let Self { lab, shelf, book, secrets, workers: before, .. } = self;
        let now_ms = lab.now_ms;
        // as a process that ends leaves them
        drop(lab);
        let mut kept = shelf.kept.lock().expect("lock");
        kept.iter_mut().for_each(|(name, memory)| spoil(name, memory));
        drop(kept);
        Self::start(text, workers, (shelf, book, secrets, before), now_ms, away_ms).resolved()
    }

    fn kept(&self) -> u64 {
        self.taken.iter().map(|taken| taken.kept).sum()
    }

    fn lost(&self, loss: Loss) -> u64 {
        self.taken.iter().map(|taken| taken.lost[loss as usize]).sum()
    }
}

fn service(name: &str, vip: u8, forwarding: &str, more: &str, servers: &[u8]) -> String {
    let (net, port) = if forwarding == "dr" { ("192.168.150", "") } else { ("10.1.0", ", port = 8080") };
    let local = if forwarding == "fullnat" { "local_addresses = [\"10.1.0.1\", \"10.1.0.2\"]" } else { "" };
    let servers: Vec<_> = servers.iter().map(|n| format!("{{ address = \"{net}.{n}\"{port} }}")).collect();
    format!(
        "[[services]]\nname = \"{name}\"\nvip = \"192.168.150.{vip}\"\nport = 80\nforwarding = \"{forwarding}\"\n{local}\n{more}\n\
         servers = [{}]\n",
        servers.join(", ")
    )
}

fn three(servers: &[u8]) -> String {
    TWO_ARMS.to_owned()
        + &service("nat", 100, "nat", "", servers)
        + &service("full", 101, "fullnat", "", servers)
        + &service("dr", 102, "dr", "", servers)
}

fn vip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 150, n)
}

/// Ends that a packet to a server has.
fn ends(packet: &[u8]) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
    let ip = |at: usize| -> [u8; 4] { packet[at..at + 4].try_into().expect("four bytes") };
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    ((ip(12).into(), port(20)), (ip(16).into(), port(22)))
}

/// Where a client's packet goes, and as whose.
fn goes(lab: &mut Lab, port: u16, service: u8, flags: u8) -> Option<([u8; 6], Vec<u8>)> {
    lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &segment((CIP, port), (vip(service), 80), flags)));
    lab.settle();
    let mut all: Vec<_> = (0..2).flat_map(|device| lab.sent_on(device)).collect();
    assert!(all.len() <= 1, "{all:?}");
    all.pop().map(|frame| (frame[..6].try_into().expect("six bytes"), frame[14..].to_vec()))
}

#[test]
fn every_forwarding_goes_on_where_it_was() {
    for workers in [1, 2] {
        let text = three(&[12, 13]);
        let mut life = Run::begin(&text, workers);
        let mut before = Vec::new();
        for port in 2000..2040 {
            for service in [100, 101, 102] {
                let (to, packet) = goes(&mut life.lab, port, service, SYN).expect("goes on");
                if service != 102 {
                    let (src, dst) = ends(&packet);
                    let reply = segment(dst, src, SYN | ACK);
                    let back = from_server_of(&mut life.lab, to, &reply);
                    assert_eq!(back, [(CLIENT, hopped(segment((vip(service), 80), (CIP, port), SYN | ACK)))]);
                }
                goes(&mut life.lab, port, service, ACK);
                before.push((port, service, to, packet));
            }
        }
        let (rows, counts) = (life.lab.connections(), counts(&life.lab));
        let mut life = life.killed(&text, workers, 0);
        assert_eq!(
            (life.kept(), life.taken.iter().map(|t| t.lost).collect::<Vec<_>>()),
            (120, vec![[0; 5]; workers.into()])
        );
        assert_eq!(self::counts(&life.lab), counts);
        let now = life.lab.connections();
        let plain = |rows: &[lb_dataplane::mailbox::ConnRow]| {
            rows.iter().map(|row| (row.client, row.vip, row.dest, row.local, row.state)).collect::<Vec<_>>()
        };
        assert_eq!(plain(&now), plain(&rows));
        for (port, service, to, packet) in before {
            let (now_to, now_packet) = goes(&mut life.lab, port, service, ACK).expect("goes on");
            assert_eq!((now_to, ends(&now_packet)), (to, ends(&packet)), "{port} {service}");
            if service != 102 {
                let (src, dst) = ends(&packet);
                let back = from_server_of(&mut life.lab, to, &segment(dst, src, ACK));
                assert_eq!(back, [(CLIENT, hopped(segment((vip(service), 80), (CIP, port), ACK)))]);
            }
        }
        assert_eq!(dropped(&life.lab), 0, "{:?}", life.lab.drops());
        // new ones get ends that are free
        for port in 3000..3100 {
            assert!(goes(&mut life.lab, port, 101, SYN).is_some());
        }
        let locals: Vec<_> =
            life.lab.connections().iter().filter_map(|row| Some((row.local?, row.dest))).collect();
        let different: std::collections::HashSet<_> = locals.iter().collect();
        assert_eq!((locals.len(), different.len()), (140, 140));
        // and all of it ends in its time, pairs too
        life.lab.wait(905_000);
        assert_eq!(life.lab.connections(), []);
        assert!(counts_of(&life.lab).iter().all(|(active, inactive)| active + inactive == 0));
    }
}

/// Packets that were dropped; what hosts ask each other is nobody's loss.
fn dropped(lab: &Lab) -> u64 {
    lab.drops().iter().filter(|(reason, _)| !reason.starts_with("arp")).map(|(_, count)| count).sum()
}

fn from_server_of(lab: &mut Lab, mac: [u8; 6], packet: &[u8]) -> Vec<([u8; 6], Vec<u8>)> {
    lab.put_on(1, &ethernet(DIRECTOR, mac, 0x0800, packet));
    crate::nat::sent(lab, 0)
}

fn counts_of(lab: &Lab) -> Vec<(u64, u64)> {
    let services = lab.director.services();
    services
        .iter()
        .flat_map(|service| service.dests.iter().map(|dest| (dest.active, dest.inactive)))
        .collect()
}

fn counts(lab: &Lab) -> Vec<(u64, u64)> {
    counts_of(lab)
}

#[test]
fn a_server_that_is_gone_keeps_or_loses_its_connections_as_its_service_says() {
    let text = |servers: &[u8], gone: bool| {
        let service = |name: &str, vip, down: &str, servers: &[u8]| {
            service(name, vip, "nat", &format!("policy = {{ on_server_down = \"{down}\" }}"), servers)
        };
        TWO_ARMS.to_owned()
            + &service("keep", 100, "keep", servers)
            + &service("again", 101, "reschedule", servers)
            + &if gone { String::new() } else { service("whole", 102, "keep", &[13]) }
    };
    let mut life = Run::begin(&text(&[12], false), 1);
    for service in [100, 101, 102] {
        // a port each: a server's replies do not tell which VIP they are about
        let port = 1900 + u16::from(service);
        let (_, packet) = goes(&mut life.lab, port, service, SYN).expect("goes on");
        let (src, dst) = ends(&packet);
        let mac = if service == 102 { crate::frames::server_mac(13) } else { STATION };
        from_server_of(&mut life.lab, mac, &segment(dst, src, SYN | ACK));
        goes(&mut life.lab, port, service, ACK);
    }
    // one service has another server, and one is gone with its server
    let mut life = life.killed(&text(&[13], true), 1, 500);
    assert_eq!((life.kept(), life.lost(Loss::Gone)), (2, 1));
    let (to, _) = goes(&mut life.lab, 2000, 100, ACK).expect("goes on to the server that is gone");
    assert_eq!(to, STATION);
    let back = from_server(&mut life.lab, &segment((RIP, 8080), (CIP, 2000), ACK));
    assert_eq!(back.len(), 1, "{:?}", life.lab.drops());
    let (to, _) = goes(&mut life.lab, 2002, 102, ACK).expect("the service is gone, its connection is not");
    assert_eq!(to, crate::frames::server_mac(13));
    let (to, _) = goes(&mut life.lab, 2009, 100, SYN).expect("a new one");
    assert_eq!(to, crate::frames::server_mac(13));
    // the removed server is let go when its last connection is, and once more killed it is still the same one
    let mut life = life.killed(&text(&[13], true), 1, 500);
    assert_eq!(life.kept(), 3);
    assert_eq!(goes(&mut life.lab, 2000, 100, ACK).map(|(to, _)| to), Some(STATION));
    life.lab.wait(910_000);
    assert_eq!(life.lab.connections(), []);
    assert_eq!(life.book.0.lock().expect("lock").dests.len(), 5, "nothing new was written down");
}

#[test]
fn other_workers_get_what_is_theirs() {
    for (before, after) in [(1, 3), (3, 1), (2, 4)] {
        let text = three(&[12, 13]);
        let mut life = Run::begin(&text, before);
        let mut sent = Vec::new();
        for port in 2000..2060 {
            for service in [100, 101, 102] {
                let (to, packet) = goes(&mut life.lab, port, service, SYN).expect("goes on");
                sent.push((port, service, to, packet));
            }
        }
        let mut life = life.killed(&text, after, 1000);
        let (kept, apart) = (life.kept(), life.lost(Loss::Apart));
        assert_eq!(kept + apart, 180, "{:?}", life.taken);
        // one worker has all; else some local ends are another's
        assert_eq!(apart == 0, after == 1, "{apart}");
        assert!(apart <= 60);
        let there = life.lab.connections();
        assert_eq!(there.len() as u64, kept);
        for (port, service, to, packet) in sent {
            if service == 101 && !there.iter().any(|row| row.client.1 == port && row.vip.0 == vip(101)) {
                continue;
            }
            let now = goes(&mut life.lab, port, service, ACK).expect("goes on");
            assert_eq!((now.0, ends(&now.1)), (to, ends(&packet)), "{port} {service}");
            if service != 102 {
                let (src, dst) = ends(&packet);
                let back = from_server_of(&mut life.lab, to, &segment(dst, src, ACK));
                assert_eq!(back, [(CLIENT, hopped(segment((vip(service), 80), (CIP, port), ACK)))]);
            }
        }
        assert_eq!(dropped(&life.lab), 0, "{:?}", life.lab.drops());
    }
}

#[test]
fn time_goes_on_while_nobody_is_there() {
    let mut life = Run::begin(&three(&[12]), 1);
    goes(&mut life.lab, 2000, 102, SYN);
    goes(&mut life.lab, 2001, 102, SYN);
    goes(&mut life.lab, 2001, 102, ACK);
    let life = life.killed(&three(&[12]), 1, 30_000);
    assert_eq!(life.kept(), 2);
    let life = life.killed(&three(&[12]), 1, 40_000);
    assert_eq!((life.kept(), life.lost(Loss::Expired)), (1, 1), "60 s for a handshake");
    let mut life = life.killed(&three(&[12]), 1, 17 * 3_600_000);
    assert_eq!((life.kept(), life.lost(Loss::Expired)), (0, 1));
    assert_eq!(life.lab.connections(), []);
}

#[test]
fn limits_and_schedulers_count_what_goes_on() {
    let lc = |more: &str| {
        TWO_ARMS.to_owned() + &service("dr", 102, "dr", &format!("scheduler = \"lc\"\n{more}"), &[12, 13])
    };
    let mut life = Run::begin(&lc(""), 1);
    for port in 2000..2010 {
        goes(&mut life.lab, port, 102, SYN);
    }
    let mut life = life.killed(&lc(""), 1, 100);
    assert_eq!(counts_of(&life.lab), [(5, 0), (5, 0)]);
    for port in 2000..2005 {
        goes(&mut life.lab, 2 * (port - 2000) + 2000, 102, FIN | ACK);
    }
    let quiet = counts_of(&life.lab);
    assert_eq!(quiet.iter().map(|(active, _)| active).sum::<u64>(), 5, "{quiet:?}");
    let mut life = life.killed(&lc("policy = { max_connections = 10 }"), 1, 100);
    assert_eq!(counts_of(&life.lab), quiet);
    assert_eq!(
        goes(&mut life.lab, 3000, 102, SYN).map(|(to, _)| to),
        Some(CLIENT),
        "the service has its ten"
    );
}

#[test]
fn what_is_half_there_is_thrown_out_and_told() {
    let text = three(&[12]);
    let mut life = Run::begin(&text, 1);
    for port in 2000..2020 {
        for service in [100, 101, 102] {
            goes(&mut life.lab, port, service, SYN);
        }
    }
    // replies by NAT can be found out again, those by full NAT cannot
    let mut life = life.spoiled(&text, 1, 10, |name, memory| {
        if name.contains("translations") {
            memory.fill(0);
        }
    });
    assert_eq!((life.kept(), life.lost(Loss::Torn)), (40, 20));
    let back = from_server(&mut life.lab, &segment((RIP, 8080), (CIP, 2003), SYN | ACK));
    assert_eq!(back, [(CLIENT, hopped(segment((VIP, 80), (CIP, 2003), SYN | ACK)))]);
    // pairs without their connections are nobody's
    goes(&mut life.lab, 2100, 101, SYN);
    let mut life = life.spoiled(&text, 1, 10, |name, memory| {
        if name.contains("connections") {
            memory.fill(0);
        }
    });
    assert_eq!((life.kept(), life.lab.connections().len()), (0, 0));
    let back = from_server(&mut life.lab, &segment((RIP, 8080), (CIP, 2003), ACK));
    assert!(back.iter().all(|(to, _)| *to != CLIENT), "{back:?}");
}

/// How long a million connections hold the start up: where they lie, and moved to two workers. In release mode.
#[test]
#[ignore = "a measurement"]
fn a_million_connections_are_taken_over_in_seconds() {
    const COUNT: u32 = 1_000_000;
    // SYNs alone make a million connections
    let text = "[policy]\nsyn_flood = 0\n".to_owned()
        + TWO_ARMS
        + &service("dr", 102, "dr", "", &[12, 13])
        + &service("nat", 100, "nat", "", &[12, 13]);
    for (vip_at, what) in [(102, "direct routing"), (100, "NAT")] {
        let shelf = Arc::new(Shelf { max: COUNT * 5 / 4, ..Shelf::default() });
        let secrets = Secrets::random(1);
        let mut run = Run::start(&text, 1, (shelf, Book::default(), secrets, 1), 10_000, 0).resolved();
        for n in 0..COUNT {
            let client = Ipv4Addr::from_bits(0x0808_0000 + n / 50_000);
            let packet = segment((client, (n % 50_000) as u16 + 1024), (vip(vip_at), 80), SYN);
            run.lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &packet));
            if n % 32 == 31 {
                run.lab.workers[0].turn(run.lab.now_ms * 1_000_000);
                run.lab.clear();
            }
        }
        run.lab.settle();
        run.lab.clear();
        for workers in [1, 2] {
            run = run.killed(&text, workers, 10);
            let took = run.took;
            eprintln!("{} by {what}, {workers} worker(s): {took:?}", run.kept());
            assert_eq!(run.kept(), u64::from(COUNT));
            assert!(took.as_millis() < 5_000, "{took:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_damaged_nothing_panics(
        seed: u64, count in 1..3000_usize, garbage in prop::option::weighted(0.3, 0..4_usize), workers in 1..3_u16,
    ) {
        let text = three(&[12, 13]) + &service("proxy", 103, "fullnat", "client_address = \"proxy-v2\"", &[12])
            + &service("syn", 104, "nat", "policy = { syn_proxy = \"always\" }", &[12]);
        let mut life = Run::begin(&text, 1);
        for port in 2000..2100 {
            for service in 100..104 {
                goes(&mut life.lab, port, service, SYN);
                goes(&mut life.lab, port, service, ACK);
            }
        }
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut at = 0;
        let mut life = life.spoiled(&text, workers, 10, |_, memory| {
            at += 1;
            if garbage == Some(at) {
                memory.iter_mut().for_each(|byte| *byte = random() as u8);
                return;
            }
            for _ in 0..count {
                let place = random() as usize % memory.len();
                memory[place] = random() as u8;
            }
        });
        for port in 2000..2100 {
            for service in 100..105 {
                for flags in [ACK, SYN, FIN | ACK] {
                    life.lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &segment((CIP, port), (vip(service), 80), flags)));
                }
            }
            let reply = segment((RIP, 8080), (CIP, port), ACK);
            life.lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &reply));
            let reply = segment((RIP, 8080), ([10, 1, 0, 1].into(), port), ACK);
            life.lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &reply));
            life.lab.settle();
            (0..2).for_each(|device| drop(life.lab.sent_on(device)));
        }
        life.lab.settle();
        let totals = life.lab.director.totals();
        prop_assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held);
        let listed = life.lab.connections().len() as u64;
        let counted: u64 = counts_of(&life.lab).iter().map(|(active, inactive)| active + inactive).sum();
        prop_assert_eq!(listed, counted);
        life.lab.wait(905_000);
        // a key that packets do not have any more may stand beside a time that is as long as times can be
        let mut seconds = 0;
        while !life.lab.connections().is_empty() && seconds < 18 * 3600 {
            seconds += 60;
            life.lab.wait(60_000);
        }
        let counted: u64 = counts_of(&life.lab).iter().map(|(active, inactive)| active + inactive).sum();
        prop_assert_eq!((life.lab.connections().len(), counted), (0, 0));
    }
}

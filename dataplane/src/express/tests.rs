//! The same frames through workers with the express path and without: nothing that can be seen may differ.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::*;
use crate::conn::{ConnKey, HashKey, Meta, Pair, Table, TableKey};
use crate::counters::WorkerCounters;
use crate::director::{self, Director};
use crate::io::DeviceId;
use crate::memory::{Frame, MemoryIo};
use crate::persist::Templates;
use crate::sched::DrawSource;
use crate::setup::{DeviceSetup, Setup};
use crate::wide::Wide;
use crate::wire::checksum;

const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
/// Of the virtual router that has two of the VIPs.
const VRID: u8 = 9;
const KEY: HashKey = HashKey([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x8cb9_2ba7_2f3d_8dd7, 77]);

/// Every forwarding kind, both families, policies that look at packets, short timeouts. `gone`: servers are missing.
fn text(workers: u16, gone: bool) -> String {
    let mut text = format!(
        "[appliance]\nworkers = {:?}\n[limits]\nmax_connections = 4096\nmax_servers = 128\n\
         [timeouts]\ntcp_established = \"3s\"\nudp = \"2s\"\ntcp_fin_wait = \"2s\"\n\
         [[ports]]\nname = \"wan\"\ndevice = \"null\"\naddresses = [\"192.168.150.11/24\", \"fd00:150::11/64\"]\n\
         gateway = [\"192.168.150.254\", \"fd00:150::254\"]\n\
         [[ports]]\nname = \"tag\"\ndevice = \"null\"\nvlan = 7\naddresses = [\"10.7.0.1/24\"]\n\
         [[ports]]\nname = \"lan\"\ndevice = \"ring:lan\"\naddresses = [\"10.1.0.1/24\", \"fd00:1::1/64\"]\n",
        (0..workers).collect::<Vec<_>>()
    );
    text += &format!(
        "[[vrrp]]\nname = \"pair\"\nport = \"wan\"\nvrid = {VRID}\nvmac = true\nvirtual_addresses = [\"192.168.150.100\", \"192.168.150.106\"]\n"
    );
    text += "[[snat]]\nname = \"out\"\nsources = \"10.1.0.0/24\"\naddress = \"192.168.150.11\"\n";
    let kinds = [
        ("dr", "forwarding = \"dr\"", ["192.168.150.12", "192.168.150.13"], "fd00:150::12"),
        ("tagged", "forwarding = \"dr\"", ["10.7.0.12", "192.168.150.13"], "fd00:150::12"),
        (
            "sticky",
            "forwarding = \"dr\"\npersistence = { timeout = \"5s\" }",
            ["192.168.150.12", "192.168.150.13"],
            "fd00:150::12",
        ),
        (
            "ipip",
            "forwarding = \"tunnel\"\ntunnel = { type = \"ipip\" }",
            ["192.168.150.12", "10.1.0.13"],
            "fd00:1::12",
        ),
        (
            "gue",
            "forwarding = \"tunnel\"\ntunnel = { type = \"gue\", port = 6080, checksum = \"full\" }",
            ["192.168.150.12", "10.1.0.13"],
            "fd00:1::12",
        ),
        (
            "gre",
            "forwarding = \"tunnel\"\ntunnel = { type = \"gre\", checksum = \"full\" }",
            ["192.168.150.12", "10.1.0.13"],
            "fd00:1::12",
        ),
        ("nat", "forwarding = \"nat\"", ["10.1.0.12", "10.1.0.13"], "fd00:1::12"),
        (
            "full",
            "forwarding = \"fullnat\"\nlocal_addresses = LOCAL",
            ["10.1.0.12", "10.1.0.13"],
            "fd00:1::12",
        ),
        (
            "toa",
            "forwarding = \"fullnat\"\nclient_address = \"toa\"\nlocal_addresses = LOCAL",
            ["10.1.0.12", "10.1.0.13"],
            "fd00:1::12",
        ),
        (
            "proxy",
            "forwarding = \"fullnat\"\nclient_address = \"proxy-v2\"\nlocal_addresses = LOCAL",
            ["10.1.0.12", "10.1.0.13"],
            "fd00:1::12",
        ),
    ];
    for (at, (name, how, servers, server6)) in kinds.iter().enumerate() {
        for protocol in ["tcp", "udp"] {
            if protocol == "udp" && matches!(*name, "toa" | "proxy") {
                continue;
            }
            let port = if how.contains("nat") { ", port = 8080" } else { "" };
            let kept = &servers[..if gone { 1 } else { 2 }];
            let list: Vec<_> = kept.iter().map(|s| format!("{{ address = \"{s}\"{port} }}")).collect();
            let down =
                ["keep", if protocol == "tcp" { "reset" } else { "drop" }, "drop", "reschedule"][at % 4];
            text += &format!(
                "[[services]]\nname = \"{name}-{protocol}\"\nvip = \"192.168.150.{}\"\nport = 80\nprotocol = \"{protocol}\"\n{}\n\
                 servers = [{}]\npolicy = {{ on_server_down = \"{down}\" }}\n",
                100 + at,
                how.replace("LOCAL", "[\"10.1.0.1\", \"10.1.0.2\"]"),
                list.join(", ")
            );
            text += &format!(
                "[[services]]\nname = \"{name}6-{protocol}\"\nvip = \"fd00:150::{:x}\"\nport = 80\nprotocol = \"{protocol}\"\n{}\n\
                 servers = [{{ address = \"{server6}\"{port} }}]\n",
                0x100 + at,
                how.replace("LOCAL", "[\"fd00:1::1\"]"),
            );
        }
    }
    text
}

/// A director, its workers and what they have sent.
struct Side {
    director: Director,
    workers: Vec<Worker<MemoryIo>>,
    counters: Vec<Arc<WorkerCounters>>,
}

impl Side {
    /// `crowded`: tables so small that connections move.
    fn new(workers: u16, express: bool, crowded: bool) -> Self {
        let model = lb_config::parse(&text(workers, false)).unwrap_or_else(|faults| panic!("{faults}"));
        let devices = director::devices(&model);
        let setup: Vec<_> = devices.iter().map(|_| DeviceSetup { mac: DIRECTOR, rss: false }).collect();
        let (director, seeds) = Director::new(&model, setup).unwrap();
        let counters = seeds[0].counters.clone();
        let own = &seeds[0].setup;
        // what is drawn at random at every start is the same on both sides
        let fixed = Arc::new(Setup {
            devices: own.devices.clone(),
            workers: own.workers,
            connections_per_worker: own.connections_per_worker,
            neighbor_queue: own.neighbor_queue,
            max_dests: own.max_dests,
            steer_key: KEY,
            templates: Templates::new(512, own.max_dests, KEY),
        });
        let workers = seeds
            .into_iter()
            .zip(MemoryIo::for_workers(devices.len(), workers))
            .map(|(mut seed, io)| {
                seed.setup = fixed.clone();
                let mut worker = Worker::new(seed, io).unwrap();
                worker.draws = DrawSource::new(7);
                let max = worker.tables.max;
                worker.tables.v4 = table(max, crowded);
                worker.tables.v6 = table(max, crowded);
                worker.tables.pairs4 = table(2 * max, crowded);
                worker.tables.pairs6 = table(2 * max, crowded);
                worker.express = express;
                worker
            })
            .collect();
        Self { director, workers, counters }
    }

    fn turn(&mut self, now_ms: u64) {
        for worker in &mut self.workers {
            worker.turn(now_ms * 1_000_000);
        }
        self.director.poll(now_ms);
    }

    /// What was sent since the last time, in order.
    fn sent(&mut self) -> Vec<(usize, usize, Vec<u8>)> {
        let mut all = Vec::new();
        for (at, worker) in self.workers.iter_mut().enumerate() {
            for (device, sent) in worker.io_mut().sent.iter_mut().enumerate() {
                all.extend(sent.drain(..).map(|frame| (at, device, frame.bytes().to_vec())));
            }
        }
        all
    }

    /// Everything that is counted and kept.
    fn state(&self) -> String {
        let mut text = String::new();
        for (worker, counters) in self.workers.iter().zip(&self.counters) {
            text += &format!("{:?}{:?}{:?}", counters.devices, counters.drops, counters.own);
            for (at, dest) in counters.dests.iter().enumerate().take(64) {
                text += &format!("\n{at} {dest:?}");
            }
            text += &rows(&worker.tables.v4);
            text += &rows(&worker.tables.v6);
            text += &rows_of_pairs(&worker.tables.pairs4);
            text += &rows_of_pairs(&worker.tables.pairs6);
            text += &format!("{} {} {}\n", worker.waiting.len(), worker.error_id, worker.pieces.held());
        }
        text
    }
}

fn table<K: TableKey>(max: u32, crowded: bool) -> Table<K> {
    if crowded { Table::with_lines(18, max, KEY).unwrap() } else { Table::new(max, KEY).unwrap() }
}

fn rows<K: TableKey + ConnKey>(table: &Table<K>) -> String {
    let mut rows = Vec::new();
    table.walk(0, u32::MAX, |key: &K, meta: Meta| rows.push(format!("\n{key:?} {meta:?}")));
    rows.sort();
    rows.concat()
}

fn rows_of_pairs<K: ConnKey>(table: &Table<Pair<K>>) -> String
where
    Pair<K>: TableKey,
{
    let mut rows = Vec::new();
    table.walk(0, u32::MAX, |pair: &Pair<K>, meta: Meta| rows.push(format!("\n{pair:?} {meta:?}")));
    rows.sort();
    rows.concat()
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    checksum::finish(checksum::add(0, bytes)).to_be_bytes()
}

/// An IP packet of TCP or UDP with right checksums.
fn packet(
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
    protocol: u8,
    flags: u8,
    ttl: u8,
    df: bool,
    data: usize,
) -> Vec<u8> {
    let mut l4 = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    let at = if protocol == 6 {
        l4.extend([0, 0, 0, 9, 0, 0, 0, 5, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        16
    } else {
        l4.extend((8 + data as u16).to_be_bytes());
        l4.extend([0, 0]);
        6
    };
    l4.extend((0..data).map(|n| n as u8));
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let ends = [bytes(src.0), bytes(dst.0)].concat();
    let len = (l4.len() as u16).to_be_bytes();
    let value = sum(&[&ends[..], &[0, protocol], &len, &l4].concat());
    l4[at..at + 2].copy_from_slice(&value);
    let mut ip = if src.0.is_ipv4() {
        let [a, b] = (20 + l4.len() as u16).to_be_bytes();
        let mut head = vec![0x45, 0, a, b, 0, 1, if df { 0x40 } else { 0 }, 0, ttl, protocol, 0, 0];
        head.extend(&ends);
        let value = sum(&head);
        head[10..12].copy_from_slice(&value);
        head
    } else {
        [&[0x60, 0, 0, 0, len[0], len[1], protocol, ttl][..], &ends].concat()
    };
    ip.extend(l4);
    ip
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&DIRECTOR[..], &[2, 0, 0, 0, 0, 1], &kind, packet].concat()
}

/// `mac`, which is `ip`, answers the director.
fn arp(ip: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mac = [2, 0, 0, 0, ip[2], ip[3]];
    [&DIRECTOR[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &mac, &ip, &DIRECTOR, &to].concat()
}

fn advert(ip: &str, to: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let (ip, to) = (octets(ip), octets(to));
    let mac = [2, 0, 0, 6, ip[3], ip[15]];
    let mut message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &ip, &[2, 1], &mac].concat();
    let value = sum(&[&ip[..], &to, &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat());
    message[2..4].copy_from_slice(&value);
    [&DIRECTOR[..], &mac, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255], &ip, &to, &message].concat()
}

/// Frames by chance.
struct Traffic {
    draws: DrawSource,
    /// Few services at a time, so that packets meet connections.
    services: [u64; 3],
    /// What was sent to servers and may be answered.
    seen: Vec<Vec<u8>>,
}

impl Traffic {
    fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[self.draws.below(of.len() as u64) as usize]
    }

    fn below(&self, n: u64) -> u64 {
        self.draws.below(n)
    }

    fn flags(&self) -> u8 {
        self.one_of(&[2, 2, 16, 16, 16, 16, 16, 24, 24, 17, 4, 20, 18, 0, 1, 6])
    }

    fn data(&self) -> usize {
        self.one_of(&[0, 0, 0, 6, 7, 100, 1400, 1452, 1460, 1461, 1480, 3000])
    }

    fn client(&self) -> Vec<u8> {
        if self.below(8) == 0 {
            // a private host, some of which are servers too
            let (host, world) = ([10, 1, 0, self.one_of(&[12, 30])], [203, 0, 113, 77]);
            let (protocol, port) = (self.one_of(&[6, 17]), self.one_of(&[8080, 2000]));
            return packet(
                (host.into(), port),
                (world.into(), 80),
                protocol,
                self.flags(),
                64,
                true,
                self.data(),
            );
        }
        let service = self.one_of(&self.services);
        let v6 = self.below(3) == 0;
        let n = self.below(2) as u8;
        let (src, dst) = if v6 {
            let src: IpAddr = self.one_of(&["fd00:150::1", "2001:db8::1"]).parse().unwrap();
            (src, IpAddr::V6(format!("fd00:150::{:x}", 0x100 + service).parse().unwrap()))
        } else {
            let src = self.one_of(&[[192, 168, 150, 1], [203, 0, 113, n], [203, 0, 113, n]]);
            (IpAddr::from(src), IpAddr::V4(Ipv4Addr::new(192, 168, 150, 100 + service as u8)))
        };
        let ttl = self.one_of(&[64, 64, 64, 64, 64, 64, 64, 255, 2, 1, 0]);
        let protocol = self.one_of(&[6, 6, 6, 17]);
        let port = 1000 + self.below(2) as u16;
        packet((src, port), (dst, 80), protocol, self.flags(), ttl, self.below(3) > 0, self.data())
    }

    /// What a server says to something that came to it.
    fn server(&self) -> Option<Vec<u8>> {
        let frame = self.seen.get(self.below(self.seen.len().max(1) as u64) as usize)?;
        let ip = frame.get(14..)?;
        let (protocol, src, dst, l4): (u8, IpAddr, IpAddr, usize) = if ip[0] == 0x45 {
            let at = |n: usize| <[u8; 4]>::try_from(&ip[n..n + 4]).unwrap();
            (ip[9], at(12).into(), at(16).into(), 20)
        } else if ip[0] >> 4 == 6 {
            let at = |n: usize| <[u8; 16]>::try_from(&ip[n..n + 16]).unwrap();
            (ip[6], at(8).into(), at(24).into(), 40)
        } else {
            return None;
        };
        if !matches!(protocol, 6 | 17) || ip.len() < l4 + 8 {
            return None;
        }
        let port = |n: usize| u16::from_be_bytes([ip[l4 + n], ip[l4 + n + 1]]);
        let flags = self.one_of(&[18, 16, 16, 16, 17, 4, 2]);
        Some(packet((dst, port(2)), (src, port(0)), protocol, flags, 64, self.below(3) > 0, self.data()))
    }

    /// A frame, valid for the most part.
    fn frame(&self) -> Vec<u8> {
        let from_server = if self.below(3) == 0 { self.server() } else { None };
        let mut packet = from_server.unwrap_or_else(|| self.client());
        match self.below(40) {
            // no checksum of UDP
            0 if packet[9] == 17 && packet[0] == 0x45 => packet[26..28].fill(0),
            // a fragment, an option, congestion
            1 if packet[0] == 0x45 => packet[6] |= 0x20,
            2 if packet[0] == 0x45 => packet[0] = 0x46,
            3 => packet[1] |= 3,
            4 => packet[12] = self.one_of(&[0, 127, 224, 240, 255]),
            _ => {}
        }
        if packet[0] >> 4 == 4 && self.below(30) > 0 {
            packet[10..12].fill(0);
            let len = usize::from(packet[0] & 15) * 4;
            let value = sum(&packet[..len.min(packet.len())]);
            packet[10..12].copy_from_slice(&value);
        }
        let mut frame = framed(&packet);
        if frame.len() < 60 && self.below(2) == 0 {
            frame.resize(60, 0);
        }
        match self.below(40) {
            0 => {
                let at = self.below(frame.len() as u64) as usize;
                frame[at] = self.draws.next() as u8;
            }
            1 => frame.truncate(self.below(frame.len() as u64) as usize),
            2 => frame[0] = 0xff,
            3 => frame[5] ^= 1,
            5..10 => frame.splice(..6, director::virtual_mac(VRID, false)).for_each(drop),
            4 => drop(frame.splice(12..12, [0x81, 0, 0, self.one_of(&[0, 7, 9])])),
            _ => {}
        }
        frame
    }
}

type Sent = Vec<(usize, usize, Vec<u8>)>;

/// What workers send, in order, and what the control core asks and announces, whose order is one of hash maps.
fn split(sent: Sent) -> (Sent, Sent) {
    let is_own = |frame: &[u8]| {
        let untagged = if frame[12..14] == [0x81, 0] { &frame[16..] } else { &frame[12..] };
        untagged[..2] == [8, 6] || untagged[..2] == [0x86, 0xdd] && untagged[8] == 58 && untagged[42] > 128
    };
    let (mut own, flows): (Sent, Sent) = sent.into_iter().partition(|(_, _, frame)| is_own(frame));
    own.sort();
    (flows, own)
}

/// Sends `rounds` bursts through both.
fn compare(seed: u64, workers: u16, rounds: u64, crowded: bool) -> u64 {
    let (mut with, mut without) = (Side::new(workers, true, crowded), Side::new(workers, false, crowded));
    if seed % 2 == 1 {
        with.workers.iter_mut().for_each(|worker| worker.wide = Wide::NO);
    }
    let mut traffic = Traffic {
        draws: DrawSource::new(seed),
        services: [0, 1, 2].map(|n| (seed + 3 * n) % 10),
        seen: Vec::new(),
    };
    let mut now_ms = 10_000;
    let both = |with: &mut Side, without: &mut Side, now_ms: u64, frames: &[(usize, Vec<u8>)]| {
        for side in [&mut *with, &mut *without] {
            for (at, (device, frame)) in frames.iter().enumerate() {
                let to = at % side.workers.len();
                let frame = Frame::new(DeviceId(*device as u16), frame);
                side.workers[to].io_mut().receive[*device].push_back(frame);
            }
            (0..2).for_each(|_| side.turn(now_ms));
        }
        let (a, own) = split(with.sent());
        let (b, other) = split(without.sent());
        assert_eq!(own, other, "seed {seed}, {workers} workers, at {now_ms} ms: of the control core");
        for (n, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_eq!(a, b, "seed {seed}, {workers} workers, at {now_ms} ms: frame {n}");
        }
        assert_eq!(a.len(), b.len(), "seed {seed}, {workers} workers, at {now_ms} ms");
        if !now_ms.is_multiple_of(4) {
            return a;
        }
        let (state, other) = (with.state(), without.state());
        for (line, other) in state.lines().zip(other.lines()) {
            assert_eq!(line, other, "seed {seed}, {workers} workers, at {now_ms} ms");
        }
        assert_eq!(state, other, "seed {seed}, {workers} workers, at {now_ms} ms");
        a
    };
    let mut hello = Vec::new();
    for n in [12, 13, 254] {
        hello.push((0, arp([192, 168, 150, n], [192, 168, 150, 11])));
        hello.push((1, arp([10, 1, 0, n], [10, 1, 0, 1])));
    }
    hello.push((
        0,
        [
            &arp([10, 7, 0, 12], [10, 7, 0, 1])[..12],
            &[0x81, 0, 0, 7],
            &arp([10, 7, 0, 12], [10, 7, 0, 1])[12..],
        ]
        .concat(),
    ));
    hello.push((0, advert("fd00:150::12", "fd00:150::11")));
    hello.push((0, advert("fd00:150::254", "fd00:150::11")));
    hello.push((1, advert("fd00:1::12", "fd00:1::1")));
    both(&mut with, &mut without, now_ms, &[]);
    both(&mut with, &mut without, now_ms, &hello);
    for round in 0..rounds {
        now_ms += traffic.one_of(&[0, 0, 1, 60, 200, 700, 2500]);
        if round % 40 == 39 {
            let model = lb_config::parse(&text(workers, round % 80 == 39)).unwrap();
            with.director.apply(&model).unwrap();
            without.director.apply(&model).unwrap();
        }
        if round % 10 == 0 {
            // now one director is master, now another
            for side in [&with, &without] {
                let owner = side.director.owner_of("pair").unwrap();
                side.director.owner_cells().set(owner, round % 30 != 20);
            }
        }
        let count = traffic.one_of(&[1, 8, 31, 32, 33, 50]);
        let frames: Vec<_> = (0..count).map(|_| (traffic.below(2) as usize, traffic.frame())).collect();
        for (_, _, frame) in both(&mut with, &mut without, now_ms, &frames) {
            let at = traffic.below(64) as usize;
            if traffic.seen.len() < 64 {
                traffic.seen.push(frame);
            } else {
                traffic.seen[at] = frame;
            }
        }
    }
    let moved = |worker: &Worker<MemoryIo>| worker.tables.v4.moved() + worker.tables.pairs4.moved();
    with.workers.iter().map(moved).sum()
}

/// Sends plain packets of both families, many of them of no connection, through both while frames pile up: what is
/// shed is the same, and so is all else. Returns how many were.
fn compare_in_backlog(seed: u64) -> u64 {
    let (mut with, mut without) = (Side::new(1, true, false), Side::new(1, false, false));
    let draws = DrawSource::new(seed);
    let below = |n: u64| draws.below(n);
    let now_ms = 10_000;
    let vip = |v6: bool, service: u64| -> IpAddr {
        if v6 {
            format!("fd00:150::{:x}", 0x100 + service).parse().unwrap()
        } else {
            [192, 168, 150, 100 + service as u8].into()
        }
    };
    let client = |v6: bool, n: u64| -> IpAddr {
        let [.., a, b] = n.to_be_bytes();
        if v6 { format!("2001:db8::{n:x}").parse().unwrap() } else { [203, 0, a, b].into() }
    };
    let mut hello = vec![(0, advert("fd00:150::12", "fd00:150::11")), (1, advert("fd00:1::12", "fd00:1::1"))];
    for n in [12, 13, 254] {
        hello.push((0, arp([192, 168, 150, n], [192, 168, 150, 11])));
        hello.push((1, arp([10, 1, 0, n], [10, 1, 0, 1])));
    }
    let mut frames = Vec::new();
    let mut new = 1000;
    // of 16 so many are of one family
    let one = below(17);
    for _ in 0..1500 {
        let v6 = below(16) >= one;
        let (service, protocol) = ([1, 2, 3, 7][below(4) as usize], [6, 6, 6, 17][below(4) as usize]);
        let known = below(3) > 0;
        let n = if known { below(40) } else { new - below(20).saturating_sub(12) };
        new += u64::from(!known);
        let flags = if below(4) == 0 { 2 } else { 16 };
        frames.push((
            0,
            framed(&packet((client(v6, n), 1000), (vip(v6, service), 80), protocol, flags, 64, true, 20)),
        ));
    }
    for (backlog, frames) in
        [(false, vec![]), (false, hello), (false, frames[..300].to_vec()), (true, frames)]
    {
        for side in [&mut with, &mut without] {
            for (device, frame) in &frames {
                let frame = Frame::new(DeviceId(*device as u16), frame);
                side.workers[0].io_mut().receive[*device].push_back(frame);
            }
            side.workers[0].io_mut().tells_backlog = backlog;
            (0..60).for_each(|_| side.turn(now_ms));
        }
        let ((a, own), (b, other)) = (split(with.sent()), split(without.sent()));
        assert_eq!(own, other, "seed {seed}: of the control core");
        for (n, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_eq!(a, b, "seed {seed}: frame {n}");
        }
        assert_eq!(a.len(), b.len(), "seed {seed}");
        assert_eq!(with.state(), without.state(), "seed {seed}");
    }
    with.counters[0].drops[DropReason::Overload as usize].get()
}

#[test]
fn what_is_shed_does_not_depend_on_the_way() {
    let seeds = if cfg!(miri) { 1 } else { 12 };
    let shed: Vec<u64> = (0..seeds).map(compare_in_backlog).collect();
    assert!(shed.iter().all(|shed| *shed > 50), "{shed:?}");
}

thread_local! {
    /// How many packets went the express way: by direct routing, otherwise to a server, to a client, without
    /// a connection.
    pub(super) static TAKEN: std::cell::Cell<[u64; 4]> = const { std::cell::Cell::new([0; 4]) };
}

pub(super) fn taken(way: usize) {
    TAKEN.with(|taken| {
        let mut counts = taken.get();
        counts[way] += 1;
        taken.set(counts);
    });
}

#[test]
fn nothing_depends_on_which_way_a_packet_goes() {
    let seeds = if cfg!(miri) { 1 } else { 10 };
    for seed in 0..seeds {
        for workers in [1, 2] {
            compare(seed, workers, 140, false);
        }
    }
    let taken = TAKEN.with(std::cell::Cell::get);
    assert!(cfg!(miri) || taken.iter().all(|count| *count > 150), "many go the express way: {taken:?}");
}

#[test]
fn nothing_depends_on_the_way_where_connections_move_about() {
    let seeds = if cfg!(miri) { 1 } else { 20 };
    let moved: u64 = (20..20 + seeds).map(|seed| compare(seed, 1, 140, true)).sum();
    assert!(cfg!(miri) || moved > 20, "{moved}");
}

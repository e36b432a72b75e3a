//! Turns of a worker over ports in memory: instructions and ns per packet of every forwarding kind.
//!
//! `turns KIND DIRECTION FAMILY FLOWS PACKETS [general|floor|sync]`, with KIND dr, ipip, gue, nat or full-nat, DIRECTION in,
//! out or first (packets that begin a connection each; FLOWS is not looked at), FAMILY 4 or 6. The same seeds and frames every time, so that two runs under
//! `valgrind --tool=callgrind --toggle-collect=turns::measured` with P and 2P packets differ by what P packets cost.
//! The test `disassembly` looks at the code of this program. `general`: without the express path; `floor`: frames are received and sent, nothing else;
//! `sync`: there is another director that is told of connections. Prints ns per packet, which
//! under valgrind mean nothing.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a measurement")]

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::{Director, Worker};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SYN: u8 = 2;
const ACK: u8 = 16;
const BUFFERS: usize = 512;

fn sum16(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// A frame that nobody frees, as no allocator is to be seen in the path's code.
struct Lasting(&'static mut Space);

/// Start and length are bytes, so that no comparison is needed to see that they are within: a driver's buffer needs none.
struct Space {
    start: u8,
    len: u8,
    bytes: [u8; 512],
}

/// Room in front of a frame, bytes.
const HEADROOM: u8 = 128;

impl Lasting {
    fn new() -> Self {
        Self(Box::leak(Box::new(Space { start: 0, len: 0, bytes: [0; 512] })))
    }

    fn refill(&mut self, bytes: &[u8]) {
        (self.0.start, self.0.len) = (HEADROOM, bytes.len() as u8);
        self.bytes_mut().copy_from_slice(bytes);
    }
}

impl Packet for Lasting {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.0.bytes[usize::from(self.0.start)..][..usize::from(self.0.len)]
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes[usize::from(self.0.start)..][..usize::from(self.0.len)]
    }

    #[inline(always)]
    fn prefetch(&self) {
        lb_dataplane::prefetch::line(&self.0.bytes[usize::from(self.0.start)]);
    }

    fn grow_front(&mut self, n: usize) -> bool {
        let (start, len) = (usize::from(self.0.start).checked_sub(n), usize::from(self.0.len) + n);
        let room = start.zip(u8::try_from(len).ok());
        if let Some((start, len)) = room {
            (self.0.start, self.0.len) = (start as u8, len);
        }
        room.is_some()
    }

    fn shrink_front(&mut self, n: usize) -> bool {
        let (start, len) = (usize::from(self.0.start) + n, usize::from(self.0.len).checked_sub(n));
        let long = len.zip(u8::try_from(start).ok());
        if let Some((len, start)) = long {
            (self.0.start, self.0.len) = (start, len as u8);
        }
        long.is_some()
    }

    fn set_len(&mut self, len: usize) -> bool {
        let len = u8::try_from(len);
        self.0.len = len.unwrap_or(self.0.len);
        len.is_ok()
    }

    fn device(&self) -> DeviceId {
        DeviceId(0)
    }
}

/// Both ends of a flow's packets.
#[derive(Clone, Copy)]
struct Ends {
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
}

/// A TCP segment.
fn segment(frame: &mut Lasting, ends: Ends, flags: u8) {
    let v6 = ends.src.0.is_ipv6();
    let l4 = if v6 { 54 } else { 34 };
    let mut bytes = [0_u8; 74];
    bytes[..6].copy_from_slice(&MAC);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    match (ends.src.0, ends.dst.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6]);
            bytes[26..30].copy_from_slice(&src.octets());
            bytes[30..34].copy_from_slice(&dst.octets());
            let sum = sum16(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            bytes[22..38].copy_from_slice(&src.octets());
            bytes[38..54].copy_from_slice(&dst.octets());
        }
        _ => unreachable!("one family"),
    }
    bytes[l4..l4 + 2].copy_from_slice(&ends.src.1.to_be_bytes());
    bytes[l4 + 2..l4 + 4].copy_from_slice(&ends.dst.1.to_be_bytes());
    bytes[l4 + 12] = 0x50;
    bytes[l4 + 13] = flags;
    frame.refill(&bytes[..(l4 + 20).max(60)]);
}

/// A port that receives what is made and, when told to, learns what was sent.
struct Port {
    /// Frames that come first.
    lessons: VecDeque<Vec<u8>>,
    free: Vec<Lasting>,
    flows: u64,
    mask: u64,
    at: u64,
    left: u64,
    flags: u8,
    v6: bool,
    out: bool,
    learn: bool,
    under_way: VecDeque<u64>,
    /// What the server sees of a flow's client.
    local: Vec<(IpAddr, u16)>,
}

impl Port {
    fn next_flow(&mut self) -> u64 {
        loop {
            self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
                & self.mask;
            let folded = self.at ^ self.at >> ((64 - self.mask.leading_zeros()) / 2);
            if folded < self.flows {
                return folded;
            }
        }
    }

    fn ends(&self, n: u64) -> Ends {
        let port = 1024 + (n % 50_000) as u16;
        let v4 = |bits: u32| IpAddr::from(bits.to_be_bytes());
        let v6 = |low: u128| IpAddr::from((0xfd00_u128 << 112 | low).to_be_bytes());
        let (client, vip, server) = if self.v6 {
            (v6(1 << 64 | u128::from(n / 50_000)), v6(0x150 << 80 | 0x100), v6(0x150 << 80 | 0x12))
        } else {
            (v4(0x0a00_0000 + (n / 50_000) as u32), v4(0xc0a8_9664), v4(0xc0a8_960c))
        };
        if self.out {
            Ends { src: (server, 8080), dst: self.local[n as usize] }
        } else {
            Ends { src: (client, port), dst: (vip, 80) }
        }
    }

    fn offer(&mut self, packets: u64, flags: u8) {
        (self.left, self.flags) = (packets, flags);
    }
}

impl PacketIo for Port {
    type Packet = Lasting;

    #[inline(never)]
    fn rx(&mut self, _device: DeviceId, into: &mut Burst<Lasting>) {
        while !into.is_full()
            && let Some(lesson) = self.lessons.pop_front()
            && let Some(mut frame) = self.free.pop()
        {
            frame.refill(&lesson);
            into.push(frame);
        }
        // what is dropped does not come back, and there are more buffers than can be under way
        assert!(self.left == 0 || !self.free.is_empty(), "all frames were dropped");
        while self.left > 0
            && !into.is_full()
            && let Some(mut frame) = self.free.pop()
        {
            let n = self.next_flow();
            segment(&mut frame, self.ends(n), self.flags);
            if self.learn {
                self.under_way.push_back(n);
            }
            into.push(frame);
            self.left -= 1;
        }
    }

    #[inline(never)]
    fn tx(&mut self, _device: DeviceId, from: &mut Burst<Lasting>) {
        if self.learn {
            for frame in from.iter() {
                let n = self.under_way.pop_front().expect("it came") as usize;
                let (bytes, v6) = (frame.bytes(), self.v6);
                let src = if v6 {
                    IpAddr::from(<[u8; 16]>::try_from(&bytes[22..38]).expect("16"))
                } else {
                    IpAddr::from(<[u8; 4]>::try_from(&bytes[26..30]).expect("4"))
                };
                let at = if v6 { 54 } else { 34 };
                self.local[n] = (src, u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            }
        }
        self.free.extend(from.drain(..));
    }

    fn alloc(&mut self) -> Option<Lasting> {
        Some(Lasting::new())
    }

    fn hand_over(&mut self, _to: WorkerId, _from: &mut Burst<Lasting>) {}

    fn take_over(&mut self, _into: &mut Burst<Lasting>) {}
}

fn text(kind: &str, flows: u64, v6: bool) -> String {
    let ends: Vec<_> = (0..=flows / 30_000)
        .map(|n| {
            if v6 {
                format!("\"fd00:0:150::1:{n:x}\"")
            } else {
                format!("\"172.16.{}.{}\"", n >> 7, 1 + (n & 127))
            }
        })
        .collect();
    let full_nat = format!("\"fullnat\"\n local_addresses = [{}]", ends.join(", "));
    let forwarding = match kind {
        "ipip" => "\"tunnel\"\n tunnel = { type = \"ipip\" }",
        "gue" => "\"tunnel\"\n tunnel = { type = \"gue\", port = 6080, checksum = \"none\" }",
        "nat" => "\"nat\"",
        "full-nat" => &full_nat,
        _ => "\"dr\"",
    };
    let (vip, server) =
        if v6 { ("fd00:0:150::100", "fd00:0:150::12") } else { ("192.168.150.100", "192.168.150.12") };
    let port = if matches!(kind, "nat" | "full-nat") { ", port = 8080" } else { "" };
    format!(
        r#"
        [appliance]
        workers = [0]
        [limits]
        max_connections = {}
        [policy]
        syn_flood = 0
        [[ports]]
        name = "lan"
        device = "null"
        addresses = ["192.168.150.11/24", "172.16.255.254/16", "fd00:0:150::11/48"]
        gateway = ["192.168.150.254", "fd00:0:150::fe"]
        [[services]]
        name = "web"
        vip = "{vip}"
        port = 80
        protocol = "tcp"
        scheduler = "rr"
        forwarding = {forwarding}
        servers = [{{ address = "{server}"{port} }}]
        "#,
        flows.max(1024)
    )
}

fn arp_reply(n: u8) -> Vec<u8> {
    let sender = [2, 0, 0, 0, 0, n];
    [
        &MAC[..],
        &sender,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &sender,
        &[192, 168, 150, n],
        &MAC,
        &[192, 168, 150, 11],
    ]
    .concat()
}

/// An unsolicited advertisement does not count, so the director is asked to ask first; this is the answer.
fn advert(n: u8) -> Vec<u8> {
    let at = |last: u8| {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfd, 0]);
        octets[4..6].copy_from_slice(&[1, 0x50]);
        octets[15] = last;
        octets
    };
    let mac = [2, 0, 0, 0, 0, n];
    let mut message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &at(n), &[2, 1], &mac].concat();
    let pseudo = [&at(n)[..], &at(0x11), &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat();
    let sum = sum16(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    [&MAC[..], &mac, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255], &at(n), &at(0x11), &message].concat()
}

/// What is measured: turns until no frame is left.
#[inline(never)]
fn measured(worker: &mut Worker<Port>, now_ns: &mut u64) {
    while worker.io_mut().left > 0 {
        *now_ns += 1000;
        worker.turn(*now_ns);
    }
}

#[inline(never)]
fn floor(port: &mut Port) {
    let mut burst = Burst::new();
    while port.left > 0 {
        port.rx(DeviceId(0), &mut burst);
        port.tx(DeviceId(0), &mut burst);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, direction, family, flows, packets] = &args[..5] else { panic!("five arguments") };
    let way = args.get(5).map(String::as_str);
    let (v6, flows, packets): (bool, u64, u64) =
        (family == "6", flows.parse().expect("a number"), packets.parse().expect("a number"));
    let first = direction == "first";
    let flows = if first { packets } else { flows };
    let mut text = text(kind, flows, v6);
    if way == Some("sync") {
        text += "[[sync]]\nname = \"other\"\nlisten = \"127.0.0.1:1\"\npeer = \"127.0.0.1:2\"\nkey = \"0123456789abcdef\"\n";
    }
    let model = lb_config::parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let (mut director, mut seeds) =
        Director::new(&model, vec![DeviceSetup { mac: MAC, rss: true }]).expect("a director");
    let port = Port {
        lessons: [12, 254].map(arp_reply).into(),
        free: (0..BUFFERS).map(|_| Lasting::new()).collect(),
        flows,
        mask: flows.next_power_of_two().max(4) - 1,
        at: 0,
        left: 0,
        flags: ACK,
        v6,
        out: false,
        learn: false,
        under_way: VecDeque::new(),
        local: vec![(IpAddr::from([0; 4]), 0); flows as usize],
    };
    let mut worker = Worker::new(seeds.remove(0), port).expect("memory");
    director.poll(0);
    worker.turn(1_000_000);
    director.poll(1);
    if v6 {
        worker.io_mut().lessons = [0x12, 0xfe].map(advert).into();
    }
    worker.turn(1_500_000);
    director.poll(2);
    if way == Some("general") {
        worker = worker.without_express();
    }
    let mut now_ns = 2_000_000;
    if first {
        worker.io_mut().offer(packets, SYN);
        let start = Instant::now();
        measured(&mut worker, &mut now_ns);
        let ns = start.elapsed().as_nanos() as f64 / packets as f64;
        director.poll(3);
        assert_eq!(director.workers()[0].connections, flows);
        println!("{kind} first v{family} {flows} flows {way:?}: {ns:.1} ns");
        return;
    }
    for flags in [SYN, ACK] {
        let port = worker.io_mut();
        port.learn = flags == ACK && matches!(kind.as_str(), "nat" | "full-nat");
        port.offer(flows, flags);
        while worker.io_mut().left > 0 {
            now_ns += 1000;
            worker.turn(now_ns);
        }
    }
    worker.turn(now_ns);
    worker.io_mut().learn = false;
    worker.io_mut().out = direction == "out";
    if direction == "out" {
        worker.io_mut().offer(flows, ACK);
        measured(&mut worker, &mut now_ns);
    }
    director.poll(3);
    // answers to what the director asked before the first packet
    let (sent, before) = (director.totals().tx, director.drops());
    let mut best = f64::MAX;
    for _ in 0..if packets > 100_000 { 7 } else { 1 } {
        worker.io_mut().offer(packets, ACK);
        let start = Instant::now();
        if way == Some("floor") {
            floor(worker.io_mut())
        } else {
            measured(&mut worker, &mut now_ns)
        }
        best = best.min(start.elapsed().as_nanos() as f64 / packets as f64);
    }
    let dropped = director.drops();
    assert!(dropped == before, "{dropped:?}");
    assert_eq!(director.workers()[0].connections, flows);
    assert!(way == Some("floor") || director.totals().tx - sent >= packets);
    println!("{kind} {direction} v{family} {flows} flows {way:?}: {best:.1} ns");
}

//! Directors in memory with connections that they know, and ports that make their frames.
//!
//! The network: clients 10.200.0.0 and up behind the gateway 192.168.150.254 on device 0, the VIP 192.168.150.100:80,
//! real servers 192.168.150.12 to .15 beside it for direct routing, or 10.1.0.12 on device 1 for NAT.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use crossbeam::queue::ArrayQueue;
use lb_dataplane::director::Director;
use lb_dataplane::io::{Burst, DeviceId, PacketIo, WorkerId};
use lb_dataplane::memory::{Frame, MemoryIo};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::worker::Worker;

/// The director's MAC address on every device.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// TCP's flags of a first packet.
pub const SYN: u8 = 0x02;
/// Of one of an established connection.
pub const ACK: u8 = 0x10;

/// Length of a frame, bytes: Ethernet's smallest without FCS.
pub const FRAME: usize = 60;

/// Buffers of a port: they stay in the second-level cache.
const BUFFERS: usize = 256;

/// How packets reach the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Direct routing.
    Dr,
    /// NAT: replies come back through the director.
    Nat,
}

/// A director and its workers, which know flows 0 to `flows - 1` as established, and the time that they have reached.
pub struct Rig<I: PacketIo> {
    pub director: Director,
    pub workers: Vec<Worker<I>>,
    pub now_ns: u64,
}

impl Rig<MemoryIo> {
    /// With direct routing worker `w` of `n` knows the flows that are `w` modulo `n`: its device is taken to spread
    /// them. With NAT the owner follows from the client's address and port.
    pub fn new(kind: Kind, workers: u16, flows: u64) -> anyhow::Result<Self> {
        let model = lb_config::parse(&text(kind, workers, flows)).context("the bench's configuration")?;
        let devices = lb_dataplane::director::devices(&model).len();
        let setup = (0..devices).map(|_| DeviceSetup { mac: MAC, rss: true }).collect();
        let (director, seeds) = Director::new(&model, setup)?;
        let ios = MemoryIo::for_workers(devices, workers);
        let workers = seeds.into_iter().zip(ios).map(|(seed, io)| Worker::new(seed, io));
        let mut rig = Self { director, workers: workers.collect::<Result<_, _>>()?, now_ns: 1_000_000 };
        rig.resolve(kind);
        rig.teach(kind, flows)?;
        Ok(rig)
    }

    /// Every next hop answers.
    fn resolve(&mut self, kind: Kind) {
        self.director.poll(0);
        let servers = match kind {
            Kind::Dr => (12..16).map(|n| (0, [192, 168, 150, n])).collect(),
            Kind::Nat => vec![(1, [10, 1, 0, 12])],
        };
        for (device, ip) in servers.into_iter().chain([(0, [192, 168, 150, 254])]) {
            let reply = Frame::new(DeviceId(device as u16), &arp_reply(ip));
            self.workers[0].io_mut().receive[device].push_back(reply);
        }
        self.settle();
        self.director.poll(1);
        self.settle();
    }

    /// Turns until nothing moves, and forgets what was sent.
    fn settle(&mut self) {
        loop {
            self.now_ns += 1_000;
            let now_ns = self.now_ns;
            let moved: usize = self.workers.iter_mut().map(|worker| worker.turn(now_ns)).sum();
            self.workers.iter_mut().for_each(|worker| worker.io_mut().sent.iter_mut().for_each(Vec::clear));
            if moved == 0 {
                return;
            }
        }
    }

    /// Handshakes of every flow. Errors: a packet was dropped, or a flow is not known afterwards.
    fn teach(&mut self, kind: Kind, flows: u64) -> anyhow::Result<()> {
        let count = self.workers.len() as u64;
        for chunk in (0..flows).step_by(64 * count as usize) {
            for flags in [SYN, ACK] {
                for n in chunk..(chunk + 64 * count).min(flows) {
                    let frame = Frame::new(DeviceId(0), &client_frame(n, flags));
                    self.workers[(n % count) as usize].io_mut().receive[0].push_back(frame);
                }
                self.settle();
                if kind == Kind::Nat && flags == SYN {
                    for n in chunk..(chunk + 64 * count).min(flows) {
                        let frame = Frame::new(DeviceId(1), &server_frame(n, SYN | ACK));
                        self.workers[(n % count) as usize].io_mut().receive[1].push_back(frame);
                    }
                    self.settle();
                }
            }
        }
        self.census(flows)
    }

    /// The same workers on other ports.
    pub fn with_ios<J: PacketIo>(self, ios: impl IntoIterator<Item = J>) -> Rig<J> {
        let workers = self.workers.into_iter().zip(ios).map(|(worker, io)| worker.with_io(io)).collect();
        Rig { director: self.director, workers, now_ns: self.now_ns }
    }
}

impl<I: PacketIo> Rig<I> {
    /// Errors: a packet was dropped, or there are not so many connections.
    pub fn census(&self, flows: u64) -> anyhow::Result<()> {
        let dropped: Vec<_> = self.director.drops().into_iter().filter(|(_, count)| *count > 0).collect();
        ensure!(dropped.is_empty(), "packets were dropped: {dropped:?}");
        let known: u64 = self.director.workers().iter().map(|worker| worker.connections).sum();
        ensure!(known == flows, "{known} connections instead of {flows}");
        Ok(())
    }
}

fn text(kind: Kind, workers: u16, flows: u64) -> String {
    let max = (flows * 2).max(4096);
    let cpus: Vec<_> = (0..workers).collect();
    let (forwarding, servers): (_, &[&str]) = match kind {
        Kind::Dr => ("dr", &["192.168.150.12", "192.168.150.13", "192.168.150.14", "192.168.150.15"]),
        Kind::Nat => ("nat", &["10.1.0.12"]),
    };
    let lan = match kind {
        Kind::Dr => "",
        Kind::Nat => "[[ports]]\nname = \"lan\"\ndevice = \"ring:lan\"\naddresses = [\"10.1.0.1/24\"]\n",
    };
    let servers: Vec<_> = servers.iter().map(|server| format!("{{ address = \"{server}\" }}")).collect();
    format!(
        "[appliance]\nworkers = {cpus:?}\n[limits]\nmax_connections = {max}\n\
         [[ports]]\nname = \"wan\"\ndevice = \"null\"\naddresses = [\"192.168.150.11/24\"]\n\
         gateway = [\"192.168.150.254\"]\n{lan}\
         [[services]]\nname = \"web\"\nvip = \"192.168.150.100\"\nport = 80\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
         forwarding = \"{forwarding}\"\nservers = [{}]\n",
        servers.join(", ")
    )
}

/// The client of flow `n`.
fn client(n: u64) -> ([u8; 4], u16) {
    ((0x0ac8_0000 + (n / 50_000) as u32).to_be_bytes(), 1024 + (n % 50_000) as u16)
}

/// A TCP segment in an Ethernet frame. TCP's checksum is right but for a constant, which nobody on the way sees.
fn segment(src: ([u8; 4], u16), dst: ([u8; 4], u16), flags: u8) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6]);
    frame[26..30].copy_from_slice(&src.0);
    frame[30..34].copy_from_slice(&dst.0);
    let word = |at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let sum: u32 = (14..34).step_by(2).map(word).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !((sum + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&src.1.to_be_bytes());
    frame[36..38].copy_from_slice(&dst.1.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    frame
}

/// A client's segment of flow `n`.
pub fn client_frame(n: u64, flags: u8) -> [u8; FRAME] {
    segment(client(n), ([192, 168, 150, 100], 80), flags)
}

/// A server's segment of flow `n`, with NAT.
pub fn server_frame(n: u64, flags: u8) -> [u8; FRAME] {
    segment(([10, 1, 0, 12], 80), client(n), flags)
}

/// The station with this address answers the director's question.
fn arp_reply(ip: [u8; 4]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let station = [2, 0, 0, ip[0], 1, ip[3]];
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&station);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame[22..28].copy_from_slice(&station);
    frame[28..32].copy_from_slice(&ip);
    frame[32..38].copy_from_slice(&MAC);
    frame[38..41].copy_from_slice(&ip[..3]);
    frame[41] = if ip[0] == 10 { 1 } else { 11 };
    frame
}

/// Numbers below `n` in an order that looks random, each once a round (Hull and Dobell 1962: a full period, since the
/// multiplier is 1 modulo 4 and the increment odd; both are Knuth's for MMIX).
#[derive(Clone, Debug)]
pub struct Order {
    n: u64,
    mask: u64,
    at: u64,
}

impl Order {
    /// Rounds of `n`, from somewhere that depends on `seed`.
    pub fn new(n: u64, seed: u64) -> Self {
        let mask = n.next_power_of_two().max(4) - 1;
        Self { n, mask, at: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask }
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        let half = (64 - self.mask.leading_zeros()) / 2;
        loop {
            self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
                & self.mask;
            let folded = self.at ^ self.at >> half;
            if folded < self.n {
                return folded;
            }
        }
    }
}

/// One worker's ports: receives frames of its flows without end, or as many as it is offered, and counts what is sent.
///
/// Buffers are those of a memory pool with a cache for each worker, as DPDK has it.
pub struct Ports {
    free: Vec<Frame>,
    /// What no worker keeps. A frame handed over is freed by whoever sent it: without this one worker ends up with the
    /// buffers of all.
    pool: Arc<ArrayQueue<Burst<Frame>>>,
    kind: Kind,
    order: Order,
    /// This worker's flows are those that are `first` modulo `step`.
    first: u64,
    step: u64,
    /// Frames still to be received.
    pub left: u64,
    /// Frames that were sent.
    pub sent: u64,
    own: WorkerId,
    rings: Arc<[ArrayQueue<Burst<Frame>>]>,
    /// The rest of a burst from the own ring.
    taken: Burst<Frame>,
}

impl Ports {
    /// The ports of all workers of a rig with `flows` flows.
    pub fn for_workers(kind: Kind, workers: u16, flows: u64) -> Vec<Self> {
        // even if every buffer there is waits in a burst of its own nothing is lost
        let rings: Arc<[_]> = (0..workers).map(|_| ArrayQueue::new(usize::from(workers) * BUFFERS)).collect();
        // one buffer at least in each
        let pool = Arc::new(ArrayQueue::new(usize::from(workers) * BUFFERS));
        let step = u64::from(workers);
        let ports = |own: u16| Self {
            pool: pool.clone(),
            free: (0..BUFFERS).map(|_| Frame::new(DeviceId(0), &client_frame(0, ACK))).collect(),
            kind,
            order: Order::new(flows / step, u64::from(own)),
            first: own.into(),
            step,
            left: 0,
            sent: 0,
            own: WorkerId(own),
            rings: rings.clone(),
            taken: Burst::new(),
        };
        (0..workers).map(ports).collect()
    }

    /// How packets reach the servers.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A free buffer.
    #[inline]
    fn buffer(&mut self) -> Option<Frame> {
        if self.free.is_empty() {
            self.free.extend(self.pool.pop()?);
        }
        self.free.pop()
    }

    /// The next frame of a client's or a server's.
    #[inline]
    pub fn make(&mut self, device: DeviceId) -> Option<Frame> {
        let mut frame = self.buffer()?;
        let n = self.order.next_number() * self.step + self.first;
        let bytes = if device.0 == 0 { client_frame(n, ACK) } else { server_frame(n, ACK) };
        frame.refill(device, &bytes);
        Some(frame)
    }

    /// Takes buffers back.
    #[inline]
    pub fn recycle(&mut self, frames: &mut Burst<Frame>) {
        self.sent += frames.len() as u64;
        self.free.extend(frames.drain(..));
        while self.free.len() > BUFFERS {
            let keep = BUFFERS.max(self.free.len() - frames.capacity());
            let surplus = self.free.drain(keep..).collect();
            assert!(self.pool.push(surplus).is_ok(), "the pool has room for a burst of each buffer");
        }
    }
}

impl PacketIo for Ports {
    type Packet = Frame;

    fn rx(&mut self, device: DeviceId, into: &mut Burst<Frame>) {
        if device.0 > 0 && self.kind == Kind::Dr {
            return;
        }
        while self.left > 0
            && !into.is_full()
            && let Some(frame) = self.make(device)
        {
            into.push(frame);
            self.left -= 1;
        }
    }

    fn tx(&mut self, _device: DeviceId, from: &mut Burst<Frame>) {
        self.recycle(from);
    }

    fn alloc(&mut self) -> Option<Frame> {
        self.buffer()
    }

    fn hand_over(&mut self, to: WorkerId, from: &mut Burst<Frame>) {
        let burst = std::mem::take(from);
        if let Err(burst) = self.rings[usize::from(to.0)].push(burst) {
            *from = burst;
        }
    }

    fn take_over(&mut self, into: &mut Burst<Frame>) {
        while !into.is_full() {
            if self.taken.is_empty() {
                let Some(burst) = self.rings[usize::from(self.own.0)].pop() else { break };
                self.taken = burst;
            }
            let count = self.taken.len().min(into.remaining_capacity());
            into.extend(self.taken.drain(..count));
        }
    }
}

/// Pins this thread to a CPU. Errors: it is not ours.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .with_context(|| format!("cannot run on CPU {cpu}"))
}

/// Does work on a CPU and lets this thread run where it might before.
///
/// Errors: the CPU is not ours; those of the work.
pub fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let this = nix::unistd::Pid::from_raw(0);
    let before = nix::sched::sched_getaffinity(this)?;
    pin(cpu)?;
    let done = work();
    nix::sched::sched_setaffinity(this, &before)?;
    done
}

/// Time that this thread has run so far, ns; `/proc/thread-self/schedstat` has it by the scheduler's tick alone.
pub fn worked_ns() -> Option<u64> {
    use nix::time::{ClockId, clock_gettime};
    let worked = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    u64::try_from(std::time::Duration::from(worked).as_nanos()).ok()
}

/// The CPUs that this process may use. Errors: the kernel does not say.
pub fn cpus() -> anyhow::Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    Ok((0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once_a_round() {
        for n in [1, 5, 1000, 4096] {
            let mut order = Order::new(n, 3);
            let mut seen: Vec<u64> = (0..n).map(|_| order.next_number()).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..n), "{n}");
        }
    }

    #[test]
    fn every_frame_of_every_kind_is_sent_by_the_worker_that_owns_it() {
        for (kind, workers) in [(Kind::Dr, 1), (Kind::Dr, 2), (Kind::Nat, 1), (Kind::Nat, 2)] {
            let rig = Rig::new(kind, workers, 1000).unwrap();
            let mut rig = rig.with_ios(Ports::for_workers(kind, workers, 1000));
            rig.workers.iter_mut().for_each(|worker| worker.io_mut().left = 20_000);
            for _ in 0..10_000 {
                rig.now_ns += 1000;
                rig.workers.iter_mut().for_each(|worker| {
                    worker.turn(rig.now_ns);
                });
            }
            let sent: u64 = rig.workers.iter_mut().map(|worker| worker.io_mut().sent).sum();
            assert_eq!(sent, 20_000 * u64::from(workers), "{kind:?} {workers}");
            rig.census(1000).unwrap();
            let handed: u64 = rig.director.workers().iter().map(|worker| worker.handed_over).sum();
            assert_eq!(handed > 0, kind == Kind::Nat && workers == 2, "{kind:?} {workers}");
        }
    }
}

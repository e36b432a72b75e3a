//! A NIC of which frames come whether the worker takes them or not: established traffic and a flood, each at its own
//! rate, into one queue of finite size, whose overflow is lost.
//!
//! Time is the worker's own: what this port does in the worker's thread (counting arrivals, writing frames, recycling
//! buffers, reading the clock) a NIC does beside it, so it is taken out of the clock, and so are pauses in which the
//! system ran others.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lb_dataplane::io::{Burst, DeviceId, PacketIo, WorkerId};

use crate::frames::{ACK, LEN4, Learned, Leg, SYN, write4};
use crate::packet::{Buf, Lent as Frame, Pool};

/// Frames that the queue holds, as receive rings of NICs do.
pub const QUEUE: usize = 4096;
/// Buffers: the queue needs none, as frames are written when they are taken.
const BUFFERS: usize = 512;
/// A turn that takes longer was interrupted: 32 packets take some microseconds, a sweep of some lines less.
const LONGEST_TURN: Duration = Duration::from_micros(40);
/// What such a turn counts for.
const USUAL_TURN: Duration = Duration::from_micros(5);
/// First flow of the flood: none that is established.
const FLOOD: u64 = 1 << 34;

/// What comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A packet of an established flow.
    Established,
    /// A first packet.
    First,
}

/// What a flood consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// SYNs, each of a client of its own.
    Syn,
    /// Datagrams to port 53, each of a client of its own.
    Udp,
    /// ACKs of no connection.
    Ack,
}

/// Arrivals of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Frames a second.
    pub rate: f64,
    /// Frames that came, that the queue had no room for, and that were sent on.
    pub came: u64,
    /// Of these, those that the queue had no room for.
    pub overflowed: u64,
    /// Those that the worker sent.
    pub sent: u64,
}

/// The port.
pub struct Nic {
    pool: Pool,
    queue: VecDeque<Kind>,
    flood: Flood,
    flows: u64,
    /// Established, first.
    pub streams: [Stream; 2],
    next: [u64; 2],
    /// The worker's own time, and when it last began or went on.
    worked: Duration,
    since: Instant,
    /// What it takes to read the clock.
    reading: Duration,
    /// Time in which others ran.
    pub stolen: Duration,
    /// Whether it says how many frames wait.
    pub tells: bool,
    /// Frames are always there, in this ratio of established ones of 256.
    pub endless: Option<u8>,
}

impl Nic {
    /// A port for `flows` established flows.
    pub fn new(flows: u64, flood: Flood) -> Self {
        Self {
            pool: Rc::new(RefCell::new(Buf::pool(BUFFERS))),
            queue: VecDeque::with_capacity(QUEUE),
            flood,
            flows,
            streams: Default::default(),
            next: [0; 2],
            worked: Duration::ZERO,
            since: Instant::now(),
            reading: reading(),
            stolen: Duration::ZERO,
            tells: true,
            endless: None,
        }
    }

    /// Established packets that wait.
    pub fn waiting(&self) -> u64 {
        self.queue.iter().filter(|kind| **kind == Kind::Established).count() as u64
    }

    /// Begins to count, and frames to come at these rates a second.
    pub fn begin(&mut self, established: f64, first: f64) {
        self.streams = [established, first].map(|rate| Stream { rate, ..Stream::default() });
        (self.worked, self.stolen, self.since) = (Duration::ZERO, Duration::ZERO, Instant::now());
        self.queue.clear();
    }

    /// The worker's own time since then.
    pub fn worked(&self) -> Duration {
        self.worked
    }

    /// The worker's time stands still from here on.
    fn pause(&mut self) -> Instant {
        let now = Instant::now();
        let turn = (now - self.since).saturating_sub(self.reading);
        if turn > LONGEST_TURN {
            self.stolen += turn - USUAL_TURN;
            self.worked += USUAL_TURN;
        } else {
            self.worked += turn;
        }
        now
    }

    fn arrive(&mut self) {
        let time = self.worked.as_secs_f64();
        let due = self.streams.map(|stream| ((stream.rate * time) as u64).saturating_sub(stream.came));
        let all = due[0] + due[1];
        let mut mixed = 0;
        for _ in 0..all {
            // both spread evenly
            mixed += due[0];
            let kind = if mixed >= all {
                mixed -= all;
                Kind::Established
            } else {
                Kind::First
            };
            let stream = &mut self.streams[kind as usize];
            stream.came += 1;
            if self.queue.len() < QUEUE {
                self.queue.push_back(kind);
            } else {
                stream.overflowed += 1;
            }
        }
    }

    fn write(&mut self, buf: &mut Buf, kind: Kind) {
        let n = self.next[kind as usize];
        self.next[kind as usize] += 1;
        match kind {
            // steps of a number without a common divisor with most: no order that a cache could know
            Kind::Established => {
                let n = (u128::from(n).wrapping_mul(7_919_317) % u128::from(self.flows)) as u64;
                write4(buf.reset::<LEN4>(0), n, Leg::In, ACK, Learned::NONE);
            }
            Kind::First => {
                let flags = if self.flood == Flood::Syn { SYN } else { ACK };
                let frame = buf.reset::<LEN4>(1);
                write4(frame, FLOOD + n, Leg::In, flags, Learned::NONE);
                if self.flood == Flood::Udp {
                    udp(frame);
                }
            }
        }
    }
}

/// The least that lies between two readings of the clock.
fn reading() -> Duration {
    let between = |_| {
        let first = Instant::now();
        Instant::now() - first
    };
    (0..1000).map(between).min().unwrap_or_default()
}

/// Makes a TCP frame one of UDP to port 53, without checksum.
fn udp(frame: &mut [u8; LEN4]) {
    frame[23] = 17;
    // RFC 1624: the word of TTL and protocol grew by 11
    let sum = u32::from(!u16::from_be_bytes([frame[24], frame[25]])) + 11;
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame[36..42].copy_from_slice(&[0, 53, 0, 20, 0, 0]);
}

impl PacketIo for Nic {
    type Packet = Frame;

    fn rx(&mut self, _: DeviceId, into: &mut Burst<Frame>) {
        self.pause();
        match self.endless {
            None => self.arrive(),
            Some(share) => {
                while self.queue.len() < 64 {
                    let kind = if (self.next[0] + self.next[1] + self.queue.len() as u64) % 256 < share.into()
                    {
                        Kind::Established
                    } else {
                        Kind::First
                    };
                    self.streams[kind as usize].came += 1;
                    self.queue.push_back(kind);
                }
            }
        }
        let pool = self.pool.clone();
        while !into.is_full()
            && !self.queue.is_empty()
            && let Some(mut frame) = Frame::take(&pool)
        {
            if let Some(kind) = self.queue.pop_front() {
                frame.write(|buf| self.write(buf, kind));
            }
            into.push(frame);
        }
        self.since = Instant::now();
    }

    fn backlog(&self, _: DeviceId) -> usize {
        if self.tells { self.queue.len() } else { 0 }
    }

    fn tx(&mut self, _: DeviceId, from: &mut Burst<Frame>) {
        self.pause();
        for frame in from.drain(..) {
            self.streams[frame.tag() as usize & 1].sent += 1;
        }
        self.since = Instant::now();
    }

    fn discard(&mut self, burst: &mut Burst<Frame>, keep: usize) {
        self.pause();
        let mut pool = self.pool.borrow_mut();
        burst.drain(keep..).for_each(|frame| frame.give_back(&mut pool));
        drop(pool);
        self.since = Instant::now();
    }

    fn alloc(&mut self) -> Option<Frame> {
        let mut frame = Frame::take(&self.pool)?;
        frame.write(|buf| {
            buf.reset::<0>(1);
        });
        Some(frame)
    }

    fn hand_over(&mut self, _: WorkerId, _: &mut Burst<Frame>) {}

    fn take_over(&mut self, _: &mut Burst<Frame>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_dataplane::io::Packet as _;
    use lb_dataplane::parse::{Net, parse};

    #[test]
    fn what_comes_too_fast_overflows_and_is_counted() {
        let mut nic = Nic::new(100, Flood::Udp);
        nic.begin(1e9, 3e9);
        (nic.worked, nic.since) = (Duration::from_micros(10), Instant::now());
        let mut burst = Burst::new();
        nic.rx(DeviceId(0), &mut burst);
        assert_eq!(burst.len(), 32);
        let [established, first] = nic.streams;
        assert!(established.came >= 10_000 && first.came.abs_diff(3 * established.came) <= 8, "{first:?}");
        assert_eq!(established.came + first.came - established.overflowed - first.overflowed, QUEUE as u64);
        assert_eq!(nic.backlog(DeviceId(0)), QUEUE - 32);
        let kinds: Vec<_> = burst.iter().map(|frame| parse(frame.bytes()).expect("valid").net).collect();
        let udp = kinds.iter().filter(|net| matches!(net, Net::Flow4(flow) if flow.dst_port == 53)).count();
        assert_eq!(udp, 24);
        nic.tx(DeviceId(0), &mut burst);
        assert_eq!((nic.streams[0].sent, nic.streams[1].sent), (8, 24));
        assert_eq!(nic.pool.borrow().len(), BUFFERS);
    }
}

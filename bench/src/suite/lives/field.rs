//! A port in memory that knows of each connection to which server its packets went.
//!
//! Connections are of two kinds. A block of them lives side by side: all send their first packet, then all their second,
//! and so on to the last; then they are judged, and the next block begins. Beside them some live as long as the run, and
//! send a packet each now and then. Every frame that the worker does not send on is missed when its connection is
//! judged. A server is known by the MAC address that a frame goes to, whatever wraps it; ARP is answered for all hosts.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use lb_config::Service;
use lb_dataplane::io::{Burst, DeviceId, Packet as _, PacketIo, WorkerId};

use super::rivals::{NAMES, Rivals};
use crate::frames::{ACK, Family, GATEWAY, LEN4, Learned, Leg, introduction, mac_of, write4};
use crate::generator::Step;
use crate::packet::{Buf, Lent, Pool};

/// Buffers: more than a turn takes and the worker may keep.
const BUFFERS: usize = 1024;
/// Of so many packets one is of a connection that lives as long as the run.
const SHARE: u64 = 16;
/// First of those flows.
const OLD: u64 = 1 << 36;

/// Bits of a tag: a connection's place, which block it is of, and what the frame is.
const OF_OLD: u64 = 1 << 40;
const TO_CLIENT: u64 = 1 << 41;
const BLOCK: u32 = 48;
/// The tag of a frame that is no connection's.
const NONE: u64 = u64::MAX;

/// A connection.
#[derive(Clone, Copy)]
struct Flow {
    learned: Learned,
    /// Packets that came, and of these sent on.
    came: u32,
    sent: u32,
    /// To where its first packet went, 0: nowhere yet.
    server: u16,
    rivals: [u16; NAMES.len()],
    /// A packet went to another server or to nobody that is one.
    moved: bool,
    /// The same by the rivals; and that although the server was there.
    rivals_moved: [bool; NAMES.len()],
    rivals_needless: [bool; NAMES.len()],
}

impl Flow {
    const NEW: Self = Self {
        learned: Learned::NONE,
        came: 0,
        sent: 0,
        server: 0,
        rivals: [0; NAMES.len()],
        moved: false,
        rivals_moved: [false; NAMES.len()],
        rivals_needless: [false; NAMES.len()],
    };
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections that were judged.
    pub connections: u64,
    /// Their packets.
    pub packets: u64,
    /// Connections whose first packet nobody got.
    pub refused: u64,
    /// Of which a packet went to another server than the first did.
    pub moved: u64,
    /// Of which a later packet was not sent on.
    pub cut: u64,
    /// What the rivals would have moved.
    pub rivals: [u64; NAMES.len()],
    /// Of these, those whose server was there.
    pub rivals_needless: [u64; NAMES.len()],
}

impl Tally {
    /// Connections that did not live to their end as they began.
    pub fn broken(&self) -> u64 {
        self.moved + self.cut
    }

    fn judge(&mut self, flow: &Flow) {
        self.connections += 1;
        self.packets += u64::from(flow.came);
        match flow {
            Flow { server: 0, .. } => self.refused += 1,
            Flow { moved: true, .. } => self.moved += 1,
            flow => self.cut += u64::from(flow.sent < flow.came),
        }
        for rival in 0..NAMES.len() {
            self.rivals[rival] += u64::from(flow.rivals_moved[rival]);
            self.rivals_needless[rival] += u64::from(flow.rivals_needless[rival]);
        }
    }

    /// Adds what was judged elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.packets += other.packets;
        self.refused += other.refused;
        self.moved += other.moved;
        self.cut += other.cut;
        for rival in 0..NAMES.len() {
            self.rivals[rival] += other.rivals[rival];
            self.rivals_needless[rival] += other.rivals_needless[rival];
        }
    }
}

/// The port.
pub struct Field {
    pool: Pool,
    steps: &'static [Step],
    block: Vec<Flow>,
    /// First flow of the block, and its number.
    first: u64,
    number: u64,
    step: usize,
    at: usize,
    /// The block has ended, and its last packets are on their way.
    over: bool,
    old: Vec<Flow>,
    /// How many steps of their handshake those that live long have made, and whose turn it is.
    old_step: usize,
    old_at: usize,
    turn: u64,
    /// Only those that live long send for now.
    old_alone: bool,
    left: u64,
    /// Hosts that were asked for their MAC address.
    asked: VecDeque<u16>,
    rivals: Rivals,
    tally: Tally,
}

impl Field {
    /// A port for blocks of so many connections of these steps, and so many that live as long as the run; `handshake` of
    /// the steps are their beginning.
    pub fn new(steps: &'static [Step], block: usize, old: usize, service: &Service) -> Self {
        let rivals = Rivals::new(service);
        Self::of(Rc::new(RefCell::new(Buf::pool(BUFFERS))), steps, [block, old], rivals)
    }

    /// A port at which no traffic comes, with buffers of this one's: what a director has that stands by.
    pub fn silent(&self) -> Self {
        Self::of(self.pool.clone(), &[(Leg::In, ACK)], [1, 0], Rivals::none())
    }

    fn of(pool: Pool, steps: &'static [Step], [block, old]: [usize; 2], rivals: Rivals) -> Self {
        Self {
            pool,
            steps,
            block: vec![Flow::NEW; block],
            first: 0,
            number: 0,
            step: 0,
            at: 0,
            over: false,
            old: vec![Flow::NEW; old],
            old_step: 0,
            old_at: 0,
            turn: 0,
            old_alone: false,
            left: 0,
            asked: VecDeque::new(),
            rivals,
            tally: Tally::default(),
        }
    }

    /// These hosts say their MAC addresses, as if they had been asked.
    pub fn introduce(&mut self, hosts: impl IntoIterator<Item = u16>) {
        self.asked.extend(hosts);
    }

    /// Whether hosts have still to do so.
    pub fn is_introducing(&self) -> bool {
        !self.asked.is_empty()
    }

    /// So many packets come.
    pub fn offer(&mut self, packets: u64) {
        self.left = packets;
    }

    /// Whether only those that live long send from now on.
    pub fn old_alone(&mut self, alone: bool) {
        self.old_alone = alone;
    }

    /// Packets that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The service's servers are others now.
    pub fn learn(&mut self, service: &Service) {
        self.rivals.learn(service);
    }

    /// Connections that have ended so far.
    pub fn ended(&self) -> u64 {
        self.tally.connections
    }

    /// Ends the run: judges what has ended, and those that lived as long; the block that goes on is not judged.
    pub fn finish(mut self) -> Tally {
        self.settle();
        let old = std::mem::take(&mut self.old);
        // the run may have ended before all of them had begun
        old.iter().filter(|flow| flow.came > 0).for_each(|flow| self.tally.judge(flow));
        self.tally
    }

    /// Judges a block that is over and begins the next.
    fn settle(&mut self) {
        if !self.over {
            return;
        }
        self.over = false;
        self.block.iter().for_each(|flow| self.tally.judge(flow));
        self.block.fill(Flow::NEW);
        self.first += self.block.len() as u64;
        self.number += 1;
        (self.step, self.at) = (0, 0);
    }

    /// The next packet of those that live long: their handshake once, then a client's packet over and over.
    fn next_old(&mut self) -> (u64, u64, Step) {
        let at = self.old_at;
        let handshake = self.steps.iter().position(|(leg, flags)| *leg == Leg::In && *flags == ACK);
        let handshake = handshake.map_or(1, |at| at + 1);
        let step = *self.steps.get(self.old_step.min(handshake - 1)).unwrap_or(&(Leg::In, ACK));
        self.old_at += 1;
        if self.old_at == self.old.len() {
            self.old_at = 0;
            self.old_step = (self.old_step + 1).min(handshake);
        }
        (at as u64 | OF_OLD, OLD + at as u64, step)
    }

    /// The next packet of the block.
    fn next_young(&mut self) -> (u64, u64, Step) {
        let (at, step) = (self.at as u64, self.steps[self.step]);
        self.at += 1;
        if self.at == self.block.len() {
            (self.step, self.at) = (self.step + 1, 0);
            self.over = self.step == self.steps.len();
        }
        (at | (self.number & 0xff) << BLOCK, self.first + at, step)
    }

    /// The connection that a tag is of, and its flow. `None`: none that lives.
    fn flow(&mut self, tag: u64) -> Option<(&mut Flow, u64)> {
        let at = tag & u64::from(u32::MAX);
        if tag & OF_OLD != 0 {
            return Some((self.old.get_mut(at as usize)?, OLD + at));
        }
        if tag >> BLOCK != self.number & 0xff {
            return None;
        }
        Some((self.block.get_mut(at as usize)?, self.first + at))
    }

    fn make(&mut self) -> Option<Lent> {
        let mut frame = Lent::take(&self.pool)?;
        self.turn += 1;
        let is_old = (self.old_alone || self.turn.is_multiple_of(SHARE)) && !self.old.is_empty();
        let (tag, n, (leg, flags)) = if is_old { self.next_old() } else { self.next_young() };
        let to_client = if leg == Leg::In { 0 } else { TO_CLIENT };
        let learned = match self.flow(tag) {
            Some((flow, _)) => {
                flow.came += 1;
                flow.learned
            }
            None => Learned::NONE,
        };
        frame.write(|buf| write4(buf.reset::<LEN4>(tag | to_client), n, leg, flags, learned));
        Some(frame)
    }

    /// A frame was sent on.
    fn sent(&mut self, frame: &Lent) {
        let (bytes, tag) = (frame.bytes(), frame.tag());
        let Some(host) = bytes.get(4..6).map(|host| u16::from_be_bytes([host[0], host[1]])) else { return };
        if tag == NONE {
            // ARP: who has the address at its end? Nobody else answers who says its own
            let asks = bytes.get(12..14) == Some(&[8, 6]) && bytes.get(20..22) == Some(&[0, 1]);
            if asks && bytes.get(28..32) != bytes.get(38..42) {
                self.asked.extend(bytes.get(40..42).map(|host| u16::from_be_bytes([host[0], host[1]])));
            }
            return;
        }
        let choice = self.flow(tag).map(|(_, n)| n).map(|n| self.rivals.choose(n));
        let (Some(choice), Some((flow, _))) = (choice, self.flow(tag & !TO_CLIENT)) else { return };
        flow.sent += 1;
        if tag & TO_CLIENT != 0 {
            flow.moved |= host != GATEWAY;
            return;
        }
        if flow.server == 0 {
            (flow.server, flow.rivals, flow.learned) = (host, choice, Learned::read(Family::V4, bytes));
            return;
        }
        flow.moved |= flow.server != host || bytes.get(..4) != mac_of(host).get(..4);
        let (begun, before) = (flow.rivals, flow.rivals_moved);
        for rival in 0..NAMES.len() {
            if choice[rival] != begun[rival] && !before[rival] {
                let needless = self.rivals.is_there(begun[rival]);
                if let Some((flow, _)) = self.flow(tag) {
                    flow.rivals_moved[rival] = true;
                    flow.rivals_needless[rival] = needless;
                }
            }
        }
    }
}

impl PacketIo for Field {
    type Packet = Lent;

    fn rx(&mut self, _: DeviceId, into: &mut Burst<Lent>) {
        // by now the worker has sent what it took in before
        self.settle();
        while !into.is_full()
            && let Some(host) = self.asked.pop_front()
        {
            let Some(mut frame) = Lent::take(&self.pool) else { return };
            let reply = introduction(Family::V4, host);
            frame.write(|buf| buf.reset::<LEN4>(NONE).copy_from_slice(&reply));
            into.push(frame);
        }
        while self.left > 0 && !self.over && !into.is_full() {
            let Some(frame) = self.make() else { return };
            into.push(frame);
            self.left -= 1;
        }
    }

    fn tx(&mut self, _: DeviceId, from: &mut Burst<Lent>) {
        for frame in from.drain(..) {
            self.sent(&frame);
        }
    }

    fn alloc(&mut self) -> Option<Lent> {
        let mut frame = Lent::take(&self.pool)?;
        frame.write(|buf| {
            buf.reset::<0>(NONE);
        });
        Some(frame)
    }

    fn hand_over(&mut self, _: WorkerId, _: &mut Burst<Lent>) {}

    fn take_over(&mut self, _: &mut Burst<Lent>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{SERVERS, SYN};
    use crate::site::{Forwarding, Plan};

    const STEPS: &[Step] = &[(Leg::In, SYN), (Leg::In, ACK), (Leg::In, ACK)];

    fn field(block: usize, old: usize) -> Field {
        let model = lb_config::parse(&Plan::new(Forwarding::Dr, Family::V4, 1024).config()).unwrap();
        let service = model.services.iter().next().unwrap();
        Field::new(STEPS, block, old, service)
    }

    /// Sends all that comes to where `server` says, by number of the frame; `None`: nowhere.
    fn play(field: &mut Field, packets: u64, server: impl Fn(u64) -> Option<u16>) {
        field.offer(packets);
        let mut n = 0;
        while field.left() > 0 {
            let (mut burst, mut out) = (Burst::new(), Burst::new());
            field.rx(DeviceId(0), &mut burst);
            for mut frame in burst.drain(..) {
                if let Some(host) = server(n) {
                    lb_dataplane::io::Packet::bytes_mut(&mut frame)[..6].copy_from_slice(&mac_of(host));
                    out.push(frame);
                }
                n += 1;
            }
            field.tx(DeviceId(0), &mut out);
        }
    }

    #[test]
    fn what_goes_to_one_server_all_its_life_is_whole() {
        let mut field = field(10, 0);
        play(&mut field, 60, |_| Some(SERVERS));
        let tally = field.finish();
        assert_eq!((tally.connections, tally.packets, tally.broken(), tally.refused), (20, 60, 0, 0));
        assert_eq!(tally.rivals, [0, 0]);
    }

    #[test]
    fn what_moves_or_is_cut_is_broken_and_what_never_began_is_refused() {
        // frames 0-9 are first packets; the second of flow 1 goes elsewhere, the third of 2 nowhere
        let mut field = field(10, 0);
        play(&mut field, 30, |n| match n {
            11 => Some(SERVERS + 1),
            22 | 3 | 13 | 23 => None,
            _ => Some(SERVERS),
        });
        let tally = field.finish();
        assert_eq!((tally.connections, tally.moved, tally.cut, tally.refused), (10, 1, 1, 1));
    }

    #[test]
    fn those_that_live_long_are_judged_at_the_end() {
        let mut field = field(100, 5);
        // every sixteenth packet is theirs: the first five are first packets
        play(&mut field, 16 * 20, |n| Some(if n == 16 * 13 + 15 { SERVERS + 1 } else { SERVERS }));
        let old: Vec<_> = field.old.iter().map(|flow| (flow.came, flow.sent, flow.moved)).collect();
        assert_eq!(old.iter().map(|flow| flow.0).collect::<Vec<_>>(), [4; 5]);
        assert_eq!(old.iter().filter(|flow| flow.2).count(), 1);
        assert_eq!(field.finish().moved, 1);
    }

    #[test]
    fn rivals_move_flows_of_servers_that_leave() {
        let mut field = field(1000, 0);
        play(&mut field, 1000, |_| Some(SERVERS));
        let mut model = lb_config::parse(&Plan::new(Forwarding::Dr, Family::V4, 1024).config()).unwrap();
        let server = lb_config::ServerRef::of(&model.services[0].servers[0]);
        lb_config::edit::delete_server(&mut model, &lb_config::ServiceRef::Name("web".to_owned()), server)
            .unwrap();
        field.learn(model.services.iter().next().unwrap());
        play(&mut field, 2000, |_| Some(SERVERS));
        let tally = field.finish();
        assert_eq!(tally.broken(), 0);
        let [plain, maglev] = tally.rivals;
        assert!(plain > 300 && (40..400).contains(&maglev), "{tally:?}");
        // those of the server that left had to move
        assert!(tally.rivals_needless[1] < maglev && tally.rivals_needless[0] < plain, "{tally:?}");
    }

    #[test]
    fn arp_is_answered() {
        let mut field = field(10, 0);
        let mut frame = field.alloc().unwrap();
        let mut question = introduction(Family::V4, GATEWAY);
        question[21] = 1;
        question[38..42].copy_from_slice(&[192, 168, 0xa0, 7]);
        frame.write(|buf| buf.reset::<LEN4>(NONE).copy_from_slice(&question));
        field.tx(DeviceId(0), &mut Burst::from_iter([frame]));
        let mut burst = Burst::new();
        field.rx(DeviceId(0), &mut burst);
        assert_eq!(burst[0].bytes(), introduction(Family::V4, 0xa007));
    }
}

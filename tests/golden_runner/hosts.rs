//! Clients and servers of the transcripts: small hosts whose packets all pass through the director in memory.
//!
//! Servers rsN have 10.0.0.(10+N), 10.1.0.(10+N), fd00:a::1N, fd00:b::1N, and the VIPs on their loopback, and
//! decapsulate tunnels. They answer on ports 80 and 8080 who they are, over TCP (HTTP or not) and UDP.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::control::Control;
use crate::lab::{CLIENTS, Out, SERVERS, gateway, station};
use crate::packet::{self, ACK, FIN, PSH, RST, SYN, Seen, Segment, TCP, UDP};

/// Ports that the servers' program listens on.
const PORTS: [u16; 2] = [80, 8080];

/// MSS 1460, SACK permitted, timestamps, no-op, window scale: a SYN of Linux is 40 bytes.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
/// Timestamps: every other segment is 32 bytes and its data.
const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1];

/// One end of a TCP connection.
#[derive(Clone, Debug)]
struct End {
    local: SocketAddr,
    remote: SocketAddr,
    /// Next sequence number to send, and expected.
    next: u32,
    expected: u32,
    /// Its FIN has been sent.
    closed: bool,
    /// The other side's FIN has come.
    over: bool,
}

impl End {
    fn segment(&mut self, flags: u8, data: &[u8]) -> Vec<u8> {
        let options: &[u8] = if flags & SYN != 0 { &SYN_OPTIONS } else { &OPTIONS };
        let ack = if flags & ACK != 0 { self.expected } else { 0 };
        let segment = Segment { flags, seq: self.next, ack, options, data };
        self.next = self.next.wrapping_add(data.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
        self.closed |= flags & FIN != 0;
        packet::tcp(self.local, self.remote, segment)
    }
}

/// How an attempt to connect ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Connected {
    Yes,
    /// A RST or an ICMP error came back.
    Refused,
    /// Nothing came back.
    Silence,
}

/// The hosts and the wires between them and the director.
pub struct Hosts {
    pub control: Control,
    /// The servers' ends, by server, the client's and their own address.
    servers: BTreeMap<(u8, SocketAddr, SocketAddr), End>,
    /// Ports that servers listen on beside [`PORTS`], which only count what comes.
    sinks: BTreeSet<(u8, u16)>,
    /// The clients' ends.
    clients: BTreeMap<(SocketAddr, SocketAddr), End>,
    /// What has come for the clients' sockets: of TCP and UDP, and errors.
    inbox: Vec<Delivered>,
    next_port: u16,
}

/// What has come for a socket of a client.
#[derive(Debug)]
struct Delivered {
    local: SocketAddr,
    remote: SocketAddr,
    what: What,
}

#[derive(Debug)]
enum What {
    Open,
    Data(Vec<u8>),
    Refused,
}

impl Hosts {
    pub fn new(control: Control) -> Self {
        Self {
            control,
            servers: BTreeMap::new(),
            sinks: BTreeSet::new(),
            clients: BTreeMap::new(),
            inbox: Vec::new(),
            next_port: 58368,
        }
    }

    /// A port that the client's kernel chooses.
    pub fn ephemeral(&mut self) -> u16 {
        self.next_port += 2;
        self.next_port
    }

    /// The client's own address towards this one.
    pub fn client_address(to: IpAddr) -> IpAddr {
        match to {
            IpAddr::V4(_) => IpAddr::from([10, 0, 0, 10]),
            IpAddr::V6(_) => IpAddr::from([0xfd00, 0xa, 0, 0, 0, 0, 0, 0x10]),
        }
    }

    /// A server listens on one more port and swallows what comes.
    pub fn listen(&mut self, server: u8, port: u16) {
        self.sinks.insert((server, port));
    }

    /// Opens a TCP connection.
    pub fn connect(&mut self, local: SocketAddr, remote: SocketAddr) -> Connected {
        let mut end = End { local, remote, next: 1000, expected: 0, closed: false, over: false };
        let syn = end.segment(SYN, &[]);
        self.clients.insert((local, remote), end);
        self.put_on_wire(syn);
        match self.take(local, remote) {
            Some(What::Open) => Connected::Yes,
            other => {
                self.clients.remove(&(local, remote));
                if matches!(other, Some(What::Refused)) { Connected::Refused } else { Connected::Silence }
            }
        }
    }

    /// Sends data on an open connection; what came back.
    pub fn talk(&mut self, local: SocketAddr, remote: SocketAddr, data: &[u8]) -> Vec<u8> {
        if let Some(end) = self.clients.get_mut(&(local, remote)) {
            let packet = end.segment(PSH | ACK, data);
            self.put_on_wire(packet);
        }
        let mut all = Vec::new();
        while let Some(what) = self.take(local, remote) {
            if let What::Data(data) = what {
                all.extend(data);
            }
        }
        all
    }

    /// Closes the client's end.
    pub fn close(&mut self, local: SocketAddr, remote: SocketAddr) {
        if let Some(end) = self.clients.get_mut(&(local, remote)).filter(|end| !end.closed) {
            let packet = end.segment(FIN | ACK, &[]);
            self.put_on_wire(packet);
        }
        self.clients.remove(&(local, remote));
    }

    /// Sends a datagram; the first that came back.
    pub fn ask(&mut self, local: SocketAddr, remote: SocketAddr, data: &[u8]) -> Option<Vec<u8>> {
        self.put_on_wire(packet::udp(local, remote, data));
        match self.take(local, remote)? {
            What::Data(data) => Some(data),
            _ => None,
        }
    }

    fn take(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<What> {
        let at = self.inbox.iter().position(|one| one.local == local && one.remote == remote)?;
        Some(self.inbox.remove(at).what)
    }

    /// Puts a client's packet on the wire and lets everything happen that follows from it.
    fn put_on_wire(&mut self, packet: Vec<u8>) {
        let mut wire = VecDeque::from([(CLIENTS, Self::client_station(&packet), packet)]);
        while let Some((side, mac, packet)) = wire.pop_front() {
            for out in self.control.lab.pass(side, mac, &packet) {
                self.deliver(&out, &mut wire);
            }
        }
    }

    /// The station that a client's packet comes from: itself when on the director's network, or the router.
    fn client_station(packet: &[u8]) -> [u8; 6] {
        match Seen::read(packet).map(|seen| seen.src) {
            Some(IpAddr::V4(src)) if src.octets()[..3] == [10, 0, 0] => station(CLIENTS, src.into()),
            Some(IpAddr::V6(src)) => station(CLIENTS, src.into()),
            _ => gateway(),
        }
    }

    fn deliver(&mut self, out: &Out, wire: &mut VecDeque<(usize, [u8; 6], Vec<u8>)>) {
        let number = out.mac[5].wrapping_sub(10);
        if out.mac[5] > 10 && number < 10 {
            let inner = packet::decapsulate(&out.packet).unwrap_or(&out.packet).to_vec();
            for reply in self.server(number, &inner) {
                let Some(seen) = Seen::read(&reply) else { continue };
                // replies leave by the server's own network; those of a VIP, and of LAN A, need no director
                let behind = match seen.src {
                    IpAddr::V4(src) => src.octets()[..3] == [10, 1, 0],
                    IpAddr::V6(src) => src.segments()[..2] == [0xfd00, 0xb],
                };
                if behind {
                    wire.push_back((SERVERS, station(SERVERS, seen.src), reply));
                } else {
                    self.client(&reply, wire);
                }
            }
        } else if out.side == CLIENTS {
            self.client(&out.packet, wire);
        }
    }

    /// What a client does about a packet.
    fn client(&mut self, packet: &[u8], wire: &mut VecDeque<(usize, [u8; 6], Vec<u8>)>) {
        let Some(seen) = Seen::read(packet) else { return };
        if let Some((_, _, quoted)) = seen.icmp() {
            let ends = Seen::read_quoted(quoted);
            if let Some((local, remote)) = ends {
                self.inbox.push(Delivered { local, remote, what: What::Refused });
            }
            return;
        }
        let Some((remote, local)) = seen.ends() else { return };
        let mut deliver = |what| self.inbox.push(Delivered { local, remote, what });
        if seen.protocol == UDP {
            if let Some(data) = seen.datagram() {
                deliver(What::Data(data.to_vec()));
            }
            return;
        }
        let Some((flags, seq, _, data)) = seen.segment() else { return };
        let Some(end) = self.clients.get_mut(&(local, remote)) else { return };
        let mut reply = None;
        if flags & RST != 0 {
            deliver(What::Refused);
        } else if flags & SYN != 0 {
            end.expected = seq.wrapping_add(1);
            reply = Some(end.segment(ACK, &[]));
            deliver(What::Open);
        } else if !data.is_empty() {
            end.expected = seq.wrapping_add(data.len() as u32);
            reply = Some(end.segment(ACK, &[]));
            deliver(What::Data(data.to_vec()));
        } else if flags & FIN != 0 {
            end.expected = seq.wrapping_add(1);
            end.over = true;
            // acknowledged at once; its own FIN comes when the program closes
            reply = Some(end.segment(ACK, &[]));
        }
        if let Some(reply) = reply {
            wire.push_back((CLIENTS, Self::client_station(&reply), reply));
        }
    }

    /// What server `number` does about a packet.
    fn server(&mut self, number: u8, packet: &[u8]) -> Vec<Vec<u8>> {
        let Some(seen) = Seen::read(packet) else { return Vec::new() };
        let Some((client, own)) = seen.ends() else { return Vec::new() };
        let serves = PORTS.contains(&own.port());
        if seen.protocol == UDP && serves && seen.datagram().is_some() {
            let text = format!("rs{number} peer={} port={}\n", plain(client), own.port());
            return vec![packet::udp(own, client, text.as_bytes())];
        }
        let Some((flags, seq, ack, data)) = seen.segment().filter(|_| seen.protocol == TCP) else {
            return Vec::new();
        };
        let key = (number, client, own);
        if flags & RST != 0 {
            self.servers.remove(&key);
            return Vec::new();
        }
        if flags & SYN != 0 && (serves || self.sinks.contains(&(number, own.port()))) {
            let expected = seq.wrapping_add(1);
            let mut end =
                End { local: own, remote: client, next: 5000, expected, closed: false, over: false };
            let reply = end.segment(SYN | ACK, &[]);
            self.servers.insert(key, end);
            return vec![reply];
        }
        let Some(end) = self.servers.get_mut(&key) else {
            let (flags, seq, ack) =
                if flags & ACK != 0 { (RST, ack, 0) } else { (RST | ACK, 0, seq.wrapping_add(1)) };
            return vec![packet::tcp(own, client, Segment { flags, seq, ack, options: &[], data: &[] })];
        };
        let mut replies = Vec::new();
        if !data.is_empty() {
            end.expected = seq.wrapping_add(data.len() as u32);
            replies.push(end.segment(ACK, &[]));
            let text = format!("rs{number} peer={} local={}\n", plain(client), plain(own));
            if data.starts_with(b"GET") {
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
                replies.push(end.segment(PSH | ACK, format!("{head}{text}").as_bytes()));
                replies.push(end.segment(FIN | ACK, &[]));
            } else if serves {
                replies.push(end.segment(PSH | ACK, text.as_bytes()));
            }
        }
        if flags & FIN != 0 {
            end.expected = end.expected.wrapping_add(1);
            end.over = true;
            replies.push(if end.closed { end.segment(ACK, &[]) } else { end.segment(FIN | ACK, &[]) });
        }
        replies
    }
}

/// As the servers' program writes an address: IPv6 without brackets.
fn plain(address: SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

//! A director that knows nothing but the rewriting engine: who the server is, it reads from the recording.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_dataplane::fragments::{Datagrams, Limits, Ready, Resolved};
use lb_dataplane::io::{DeviceId, Packet};
use lb_dataplane::memory::Frame;
use lb_dataplane::parse::{Flow, Icmp, Net, Parsed, parse};
use lb_dataplane::respond::{self, ErrorFrom, IcmpError};
use lb_dataplane::rewrite::{
    Address, Encap, ErrorTranslation, Fragments, Gather, Towards, Translation, TunnelKind, TunnelPlan,
    Verdict, encapsulate, pass, translate, translate_datagram, translate_error,
};
use lb_dataplane::wire::Link;

use crate::recording::{Case, Forwarding, Out, Server};

const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xb, 0, 0, 0, 0, 0, 1));
const CLIENT_MTU: u16 = 1500;
const L3: usize = 14;

type End = (IpAddr, u16);

/// What is known of a connection: client, virtual address and server.
#[derive(Clone, Copy)]
struct Connection {
    client: End,
    vip: End,
    server: Server,
    server_end: End,
}

pub struct Director<'a> {
    case: &'a Case,
    connections: Vec<Connection>,
    by_client: HashMap<(End, End), usize>,
    datagrams: Datagrams<Frame>,
}

/// A family's addresses out of the enum, and its errors.
pub trait Family: Address {
    fn of(address: IpAddr) -> Self;
    fn error(frame: &mut [u8], packet: &[u8], error: IcmpError, src: IpAddr, id: u16) -> Option<usize>;
}

const LINK: Link = Link { mac: [2, 0, 0, 0, 0, 0x11], vlan: 0 };

impl Family for Ipv4Addr {
    fn of(address: IpAddr) -> Self {
        let IpAddr::V4(v4) = address else { panic!("{address}") };
        v4
    }

    fn error(frame: &mut [u8], packet: &[u8], error: IcmpError, src: IpAddr, id: u16) -> Option<usize> {
        let from = ErrorFrom { link: LINK, to: [2, 0, 0, 0, 0, 1], src: Self::of(src), id };
        respond::icmp_error4(frame, packet, error, &from)
    }
}

impl Family for Ipv6Addr {
    fn of(address: IpAddr) -> Self {
        let IpAddr::V6(v6) = address else { panic!("{address}") };
        v6
    }

    fn error(frame: &mut [u8], packet: &[u8], error: IcmpError, src: IpAddr, id: u16) -> Option<usize> {
        let from = ErrorFrom { link: LINK, to: [2, 0, 0, 0, 0, 1], src: Self::of(src), id };
        respond::icmp_error6(frame, packet, error, &from)
    }
}

/// What of a packet that was made anew cannot be known: read from the recording.
#[derive(Clone, Copy)]
struct Random {
    id: u16,
    flow_hash: u32,
    /// Flow label of an IPv6 packet of the host's own: Linux makes one of a secret, the director sends 0.
    label: [u8; 3],
}

impl Random {
    fn of(expected: &[u8]) -> Self {
        let word = |at: usize| {
            u16::from_be_bytes([
                expected.get(at).copied().unwrap_or(0),
                expected.get(at + 1).copied().unwrap_or(0),
            ])
        };
        let v4 = expected[0] >> 4 == 4;
        let port = word(if v4 { 20 } else { 40 });
        let step = u64::from(port.saturating_sub(32768)) << 32;
        let label = if v4 { [0; 3] } else { [expected[1] & 15, expected[2], expected[3]] };
        Self { id: if v4 { word(4) } else { 0 }, flow_hash: step.div_ceil(28232) as u32, label }
    }
}

fn end<A: Address>((address, port): (A, u16)) -> End {
    (address.into(), port)
}

pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 1], &kind[..], packet].concat()
}

pub fn frame(packet: &[u8]) -> Frame {
    Frame::new(DeviceId(0), &ethernet(packet))
}

fn packet_of(frame: &Frame) -> Vec<u8> {
    frame.bytes()[L3..].to_vec()
}

/// The frame, cut if it must be.
pub fn cut(mut frame: Frame, mtu: u16) -> Vec<Vec<u8>> {
    if frame.bytes().len() - L3 <= usize::from(mtu) {
        return vec![packet_of(&frame)];
    }
    let plan = Fragments::plan(frame.bytes(), L3 as u16, mtu, 1).expect("a plan");
    let rest: Vec<_> = (1..plan.count())
        .map(|n| {
            let mut out = vec![0; plan.frame_len(n).expect("a length")];
            assert_eq!(plan.write(frame.bytes(), n, &mut out), Some(out.len()));
            out[L3..].to_vec()
        })
        .collect();
    assert!(plan.keep_first(&mut frame));
    [vec![packet_of(&frame)], rest].concat()
}

impl<'a> Director<'a> {
    pub fn new(case: &'a Case) -> Self {
        Self {
            case,
            connections: Vec::new(),
            by_client: HashMap::new(),
            datagrams: Datagrams::new(Limits::default()),
        }
    }

    /// What the engine sends, packets from their IP header on. `None`: the step is about something else than
    /// rewriting (no connection, no service, the host's own answers).
    pub fn step(&mut self, packet: &[u8], from_client: bool, out: &[Out]) -> Option<Vec<Vec<u8>>> {
        let frame = frame(packet);
        let parsed = parse(frame.bytes()).ok()?;
        match &parsed.net {
            Net::Flow4(flow) if from_client => self.inbound(frame, &parsed, flow, out),
            Net::Flow6(flow) if from_client => self.inbound(frame, &parsed, flow, out),
            Net::Flow4(flow) => self.outbound(frame, &parsed, flow, out),
            Net::Flow6(flow) => self.outbound(frame, &parsed, flow, out),
            Net::Icmp4(error) if error.is_error() => self.error(frame, &parsed, error, from_client, out),
            Net::Icmp6(error) if error.is_error() => self.error(frame, &parsed, error, from_client, out),
            _ => None,
        }
    }

    fn inbound<A: Family>(
        &mut self,
        frame: Frame,
        parsed: &Parsed,
        flow: &Flow<A>,
        out: &[Out],
    ) -> Option<Vec<Vec<u8>>> {
        let (client, vip) = (end((flow.src, flow.src_port)), end((flow.dst, flow.dst_port)));
        if let Some(sent) = out.first().filter(|sent| sent.to_servers) {
            // the scheduler's choice, which is not tested here
            let number = sent.mac;
            let last = |address: IpAddr| match address {
                IpAddr::V4(v4) => v4.octets()[3],
                // fd00:b::11: written as if it were decimal
                IpAddr::V6(v6) => (v6.octets()[15] >> 4) * 10 + (v6.octets()[15] & 15),
            };
            let server = *self.case.servers.iter().find(|server| last(server.address) == number)?;
            let server_end = (server.address, server.port.unwrap_or(vip.1));
            self.by_client.insert((client, vip), self.connections.len());
            self.connections.push(Connection { client, vip, server, server_end });
        }
        let connection = self.connections[*self.by_client.get(&(client, vip))?];
        // no packet, or the host's own answer to what it knows nothing of
        if out.first().is_none_or(|sent| !sent.to_servers && sent.packet[0] >> 4 == 4 && sent.packet[9] != 1)
        {
            return None;
        }
        let to = Translation {
            src: self.case.masquerade.then(|| (A::of(LOCAL4), flow.src_port)),
            dst: Some((A::of_or(connection.server_end.0, flow.dst), connection.server_end.1)),
        };
        self.send_in::<A>(
            frame,
            parsed,
            &connection,
            Random::of(&out[0].packet),
            |frame| translate(frame, parsed.l3, flow, &to),
            flow.dst,
        )
    }

    /// What goes on when this fragment comes, to the only server of the case.
    pub fn fragment(&mut self, packet: &[u8], out: &[Out]) -> Vec<Vec<u8>> {
        let frame = frame(packet);
        let mut ready = Ready::new();
        let mut lost = |reason| panic!("{reason:?}");
        let resolved = match parse(frame.bytes()).expect("a fragment").net {
            Net::Fragment4(part) => self.datagrams.admit(0, &part, frame, &mut ready, &mut lost),
            Net::Fragment6(part) => self.datagrams.admit(0, &part, frame, &mut ready, &mut lost),
            other => panic!("{other:?}"),
        };
        resolved.map(|resolved| self.datagram(ready, resolved, out)).unwrap_or_default()
    }

    /// All fragments of a datagram.
    fn datagram(&self, mut ready: Ready<Frame>, flow: Resolved, out: &[Out]) -> Vec<Vec<u8>> {
        let server = self.case.servers[0];
        let limit = match server.forwarding {
            Forwarding::Tunnel(kind) => encap(kind, server.address, self.case.server_mtu).inner_mtu(),
            _ => self.case.server_mtu,
        };
        for frame in &mut ready {
            let parsed = parse(frame.bytes()).expect("a fragment");
            let verdict = pass(frame.bytes_mut(), &parsed, limit, Towards::Server);
            assert!(matches!(verdict, Verdict::Whole | Verdict::Fragments), "{verdict:?}");
        }
        if matches!(server.forwarding, Forwarding::Nat) {
            let port = server.port.unwrap_or(flow.ports.dst);
            assert!(match server.address {
                IpAddr::V4(v4) =>
                    translate_datagram(&mut ready, &flow, &Translation { src: None, dst: Some((v4, port)) }),
                IpAddr::V6(v6) =>
                    translate_datagram(&mut ready, &flow, &Translation { src: None, dst: Some((v6, port)) }),
            });
        }
        let Forwarding::Tunnel(kind) = server.forwarding else {
            return ready.into_iter().flat_map(|frame| cut(frame, self.case.server_mtu)).collect();
        };
        let random = Random::of(&out[0].packet);
        let encap = encap(kind, server.address, self.case.server_mtu);
        let gather = Gather::plan(&ready, &encap, random.flow_hash, random.id.into()).expect("a datagram");
        let written = |n| {
            let mut out = vec![0; 2000];
            let len = gather.write(n, &mut out).expect("a frame");
            out[L3..len].to_vec()
        };
        (0..gather.count()).map(written).collect()
    }

    /// The way in for packets and errors alike.
    fn send_in<A: Family>(
        &self,
        mut frame: Frame,
        parsed: &Parsed,
        connection: &Connection,
        random: Random,
        nat: impl Fn(&mut [u8]) -> bool,
        vip: A,
    ) -> Option<Vec<Vec<u8>>> {
        let link_mtu = self.case.server_mtu;
        let encap = match connection.server.forwarding {
            Forwarding::Tunnel(kind) => Some(encap(kind, connection.server.address, link_mtu)),
            _ => None,
        };
        let limit = encap.as_ref().map_or(link_mtu, Encap::inner_mtu);
        match pass(frame.bytes_mut(), parsed, limit, Towards::Server) {
            Verdict::TtlExpired => {
                return Some(vec![answer::<A>(&frame, IcmpError::TimeExceeded, vip, random)]);
            }
            Verdict::TooBig { mtu } => {
                return Some(vec![answer::<A>(&frame, IcmpError::TooBig { mtu }, vip, random)]);
            }
            Verdict::Whole | Verdict::Fragments => {}
        }
        match connection.server.forwarding {
            Forwarding::Dr => {}
            Forwarding::Nat => assert!(nat(frame.bytes_mut())),
            Forwarding::Tunnel(_) => {
                let encap = encap.expect("a tunnel");
                assert!(encapsulate(&mut frame, parsed, &encap, random.flow_hash, random.id));
            }
        }
        Some(cut(frame, link_mtu))
    }

    fn outbound<A: Family>(
        &mut self,
        mut frame: Frame,
        parsed: &Parsed,
        flow: &Flow<A>,
        out: &[Out],
    ) -> Option<Vec<Vec<u8>>> {
        let server = end((flow.src, flow.src_port));
        let to = end((flow.dst, flow.dst_port));
        let connection = self.connections.iter().find(|connection| {
            let client = if self.case.masquerade { (LOCAL4, connection.client.1) } else { connection.client };
            connection.server_end == server && client == to
        })?;
        let random = Random::of(&out[0].packet);
        match pass(frame.bytes_mut(), parsed, CLIENT_MTU, Towards::Client) {
            Verdict::TtlExpired => {
                let own = if flow.src.into().is_ipv4() { LOCAL4 } else { LOCAL6 };
                return Some(vec![answer::<A>(&frame, IcmpError::TimeExceeded, A::of(own), random)]);
            }
            Verdict::Whole => {}
            other => panic!("{other:?}"),
        }
        let translation = Translation {
            src: Some((A::of(connection.vip.0), connection.vip.1)),
            dst: self.case.masquerade.then(|| (A::of(connection.client.0), connection.client.1)),
        };
        assert!(translate(frame.bytes_mut(), parsed.l3, flow, &translation));
        Some(cut(frame, CLIENT_MTU))
    }

    fn error<A: Family>(
        &mut self,
        mut frame: Frame,
        parsed: &Parsed,
        error: &Icmp<A>,
        from_client: bool,
        out: &[Out],
    ) -> Option<Vec<Vec<u8>>> {
        let inner = error.inner?;
        let (src, dst) = (end((inner.src, inner.src_port)), end((inner.dst, inner.dst_port)));
        if from_client {
            let connection = self.connections[*self.by_client.get(&(dst, src))?];
            let server = || A::of(connection.server_end.0);
            let nat = |frame: &mut [u8]| {
                let quoted = Translation { src: Some((server(), connection.server_end.1)), dst: None };
                let to = ErrorTranslation { src: None, dst: Some(server()), quoted };
                translate_error(frame, parsed.l3, error, &to)
            };
            let random = Random::of(&out[0].packet);
            return self.send_in::<A>(frame, parsed, &connection, random, nat, error.dst);
        }
        let found = self.connections.iter().find(|c| c.server_end == dst && c.client == src)?;
        let vip = A::of(found.vip.0);
        assert_eq!(pass(frame.bytes_mut(), parsed, CLIENT_MTU, Towards::Client), Verdict::Whole);
        let quoted = Translation { src: None, dst: Some((vip, found.vip.1)) };
        let to = ErrorTranslation { src: Some(vip), dst: None, quoted };
        assert!(translate_error(frame.bytes_mut(), parsed.l3, error, &to));
        Some(vec![packet_of(&frame)])
    }
}

/// Of the other family only a tunnel's server can be: its address is of no meaning for NAT.
trait OfOr: Family {
    fn of_or(address: IpAddr, other: Self) -> Self {
        let own: IpAddr = other.into();
        if address.is_ipv4() == own.is_ipv4() { Self::of(address) } else { other }
    }
}

impl<A: Family> OfOr for A {}

pub fn encap(kind: TunnelKind, remote: IpAddr, link_mtu: u16) -> Encap {
    let local = if remote.is_ipv4() { LOCAL4 } else { LOCAL6 };
    Encap::new(&TunnelPlan { kind, local, remote, link_mtu }).expect("a tunnel")
}

/// The director's own error about a frame.
fn answer<A: Family>(frame: &Frame, error: IcmpError, src: A, random: Random) -> Vec<u8> {
    let mut out = vec![0; respond::MAX_ERROR6_LEN];
    let len = A::error(&mut out, &frame.bytes()[L3..], error, src.into(), random.id).expect("an error");
    if src.into().is_ipv6() {
        out[L3 + 1..L3 + 4].copy_from_slice(&random.label);
    }
    out[L3..len].to_vec()
}

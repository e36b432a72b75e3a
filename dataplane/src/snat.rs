//! Source NAT: private hosts, whose gateway the director is, reach the world from a local end of its own.
//!
//! A rule is a destination without a server: it has counters, timeouts and connections like any other. The private
//! host is the connection's client, whom it asks for takes the place of the VIP. Pings are connections too, told apart
//! by their identifiers (RFC 3022 section 2.2).

use std::net::IpAddr;

use lb_config::SnatProtocol;

use crate::classify::IpPrefix;
use crate::conn::Meta;
use crate::drop_reason::DropReason;
use crate::flow::{Family, Hit};
use crate::ids::DestId;
use crate::io::{Packet, PacketIo};
use crate::neighbor::LinkId;
use crate::parse::{Icmp, L4, Parsed};
use crate::rewrite::{self, Address, Towards};
use crate::snapshot::{Route, Snapshot};
use crate::state::State;
use crate::steer;
use crate::wire::{PROTOCOL_ICMP, PROTOCOL_ICMP6, icmp};
use crate::worker::Worker;

/// How long a ping is kept after its last packet, ticks. Source: Linux, `nf_conntrack_icmp_timeout`, 30 s.
const ECHO_TICKS: u32 = 30 * crate::conn::Tick::PER_SECOND as u32;

/// A rule as the packet path needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatEntry {
    /// Whose packets.
    pub sources: IpPrefix,
    /// Which of them, see [`SnatEntry::bit`].
    pub protocols: u8,
    /// Where they leave; `None`: anywhere.
    pub link: Option<LinkId>,
    /// What counts them.
    pub dest: DestId,
}

impl SnatEntry {
    /// The bit of a protocol, IANA number, in [`SnatEntry::protocols`]; 0: it is never translated.
    pub fn bit(protocol: u8) -> u8 {
        match (L4::of(protocol), protocol) {
            (Some(L4::Tcp), _) => 1,
            (Some(L4::Udp), _) => 2,
            (Some(L4::Sctp), _) => 4,
            (None, PROTOCOL_ICMP | PROTOCOL_ICMP6) => 8,
            (None, _) => 0,
        }
    }

    /// The bits of these protocols.
    pub fn bits(protocols: &[SnatProtocol]) -> u8 {
        protocols.iter().fold(0, |bits, protocol| {
            bits | match protocol {
                SnatProtocol::Tcp => 1,
                SnatProtocol::Udp => 2,
                SnatProtocol::Sctp => 4,
                SnatProtocol::Icmp => 8,
            }
        })
    }
}

impl Snapshot {
    /// The link by which packets to `address` leave.
    fn link_towards(&self, address: IpAddr) -> Option<LinkId> {
        match self.route(address) {
            Route::Via(link, _) | Route::Stranger(link) => Some(link),
            Route::None => None,
        }
    }

    /// What a packet that came in by `arrived` and begins a connection is translated by; `None`: it may not pass.
    ///
    /// A source that answers would not go back to by the same link is not its own (RFC 3704 section 2.2). Cost: one
    /// step a rule.
    pub fn snat(&self, src: IpAddr, dst: IpAddr, protocol: u8, arrived: Option<LinkId>) -> Option<DestId> {
        let bit = SnatEntry::bit(protocol);
        let takes = |rule: &&SnatEntry| rule.protocols & bit != 0 && rule.sources.contains(src);
        if !self.snat.iter().any(|rule| takes(&rule))
            || arrived.is_none()
            || self.link_towards(src) != arrived
        {
            return None;
        }
        let leaves = self.link_towards(dst)?;
        let rule =
            self.snat.iter().find(|rule| takes(rule) && rule.link.is_none_or(|link| link == leaves))?;
        Some(rule.dest)
    }
}

/// Whether a message is an echo request (`Some(true)`) or reply.
fn echo_kind<A: Address>(message: &Icmp<A>) -> Option<bool> {
    let (request, reply) = match A::CHECKSUM {
        Some(_) => (icmp::ECHO_REQUEST4, icmp::ECHO_REPLY4),
        None => (icmp::ECHO_REQUEST6, icmp::ECHO_REPLY6),
    };
    match message.kind {
        kind if kind == request => Some(true),
        kind if kind == reply => Some(false),
        _ => None,
    }
}

/// The identifier of an echo message.
fn echo_id<A>(frame: &[u8], message: &Icmp<A>) -> Option<u16> {
    let field = frame.get(usize::from(message.l4) + 4..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*field))
}

/// The number of ICMP in this family.
fn protocol<A: Address>() -> u8 {
    if A::CHECKSUM.is_some() { PROTOCOL_ICMP } else { PROTOCOL_ICMP6 }
}

impl<I: PacketIo> Worker<I> {
    /// Whether an ICMP message is a private host's ping into the world, or an answer to one.
    pub(crate) fn is_snat_echo<A: Address>(&self, frame: &I::Packet, message: &Icmp<A>) -> bool {
        let unicast = frame.bytes().first().is_some_and(|first| first & 1 == 0);
        if self.snapshot.snat.is_empty() || !unicast {
            return false;
        }
        let dst: IpAddr = message.dst.into();
        match echo_kind(message) {
            Some(true) => !self.snapshot.is_ours(dst),
            Some(false) => self.snapshot.is_translated(dst),
            None => false,
        }
    }

    /// An echo message of source NAT.
    pub(crate) fn snat_echo<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        message: &Icmp<K::Address>,
        steered: bool,
    ) {
        let (Some(id), Some(request)) = (echo_id(frame.bytes(), message), echo_kind(message)) else {
            return self.counters.drop_packet(DropReason::IcmpTruncated);
        };
        if !steered {
            let end: IpAddr = if request { message.src.into() } else { message.dst.into() };
            let owner = steer::owner(end, id, self.setup.workers, &self.setup.steer_key);
            if owner != self.id {
                return self.hand_over(owner, frame);
            }
        }
        if request {
            self.ping::<K>(frame, parsed, message, id)
        } else {
            self.pong::<K>(frame, parsed, message, id)
        }
    }

    /// A private host's ping on its way out.
    fn ping<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        message: &Icmp<K::Address>,
        id: u16,
    ) {
        let number = protocol::<K::Address>();
        let key = K::new(message.src, id, message.dst, 0);
        let hit = match self.find(key, number) {
            Some(hit) => hit,
            None => match self.admit_ping(key, &frame, parsed) {
                Ok(hit) => hit,
                Err(reason) => return self.counters.drop_packet(reason),
            },
        };
        self.count(&hit, message.ip_len, false);
        let Some((hop, mtu)) = self.hop_towards(message.dst.into()) else {
            return self.counters.drop_packet(DropReason::NoRoute);
        };
        let Some(cut) = self.may_pass(&mut frame, parsed, mtu, Towards::Client) else { return };
        let Some((_, reply)) = self.local_of(key, number) else {
            return self.counters.drop_packet(DropReason::NoConnection);
        };
        let (ends, id) = ((Some(reply.vip()), None), Some(reply.vip_port()));
        if !rewrite::translate_echo(frame.bytes_mut(), parsed.l3, message, ends, id) {
            return self.counters.drop_packet(DropReason::IcmpTruncated);
        }
        self.leave(frame, parsed, hop, cut.then_some(mtu));
    }

    /// The world's answer to a ping.
    fn pong<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        message: &Icmp<K::Address>,
        id: u16,
    ) {
        let number = protocol::<K::Address>();
        let Some(hit) = self.find_reply(K::new(message.src, 0, message.dst, id), number) else {
            return self.counters.drop_packet(DropReason::NoConnection);
        };
        self.count(&hit, message.ip_len, true);
        let client = hit.key.client();
        let Some((hop, mtu)) = self.hop_towards(client.into()) else {
            return self.counters.drop_packet(DropReason::NoRoute);
        };
        let Some(cut) = self.may_pass(&mut frame, parsed, mtu, Towards::Client) else { return };
        let (ends, id) = ((None, Some(client)), Some(hit.key.client_port()));
        if !rewrite::translate_echo(frame.bytes_mut(), parsed.l3, message, ends, id) {
            return self.counters.drop_packet(DropReason::IcmpTruncated);
        }
        self.leave(frame, parsed, hop, cut.then_some(mtu));
    }

    /// A new ping, if a rule lets it out.
    #[cold]
    fn admit_ping<K: Family>(
        &mut self,
        key: K,
        frame: &I::Packet,
        parsed: &Parsed,
    ) -> Result<Hit<K>, DropReason> {
        let number = protocol::<K::Address>();
        let link = self.snapshot.link(frame.device(), parsed.vlan);
        let dest = self.snapshot.snat(key.client().into(), key.vip().into(), number, link);
        let dest = dest.ok_or(DropReason::NotForUs)?;
        let entry = *self.snapshot.dest(dest).ok_or(DropReason::NotForUs)?;
        if self.tables.len() >= self.tables.max {
            return Err(DropReason::TableFull);
        }
        // one whose time is over, which the sweep has not come by yet
        let table = K::tables(&mut self.tables).0;
        let probe = table.probe(&key, number);
        if let Some(old) = table.find(&key, number, probe) {
            self.forget(old, key);
        }
        let meta = Meta::new(number, dest, State::None, self.now.after(ECHO_TICKS));
        let counters = &self.counters.dests[dest.0 as usize];
        counters.total.up();
        if let Err(reason) = self.enter(key, probe, meta, &entry, None) {
            self.counters.dests[dest.0 as usize].total.down();
            return Err(reason);
        }
        self.counters.dests[dest.0 as usize].conns.add(1);
        self.counters.own.inserted.add(1);
        self.find(key, number).ok_or(DropReason::TableFull)
    }

    /// A ping's time begins anew; its packet is counted.
    fn count<K: Family>(&mut self, hit: &Hit<K>, ip_len: u16, outbound: bool) {
        let meta = hit.found.meta;
        let renewed = meta.after_packet(meta.state(), false, self.now.after(ECHO_TICKS));
        K::tables(&mut self.tables).0.update(hit.found, renewed);
        let counters = &self.counters.dests[meta.dest().0 as usize];
        let (packets, bytes) = if outbound {
            (&counters.out_packets, &counters.out_bytes)
        } else {
            (&counters.in_packets, &counters.in_bytes)
        };
        packets.add(1);
        bytes.add(u64::from(ip_len));
    }
}

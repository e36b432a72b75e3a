//! The SYN proxy: handshakes in the server's place, for services by NAT and full NAT.
//!
//! 1. A client's SYN is answered with a cookie for a number ([`cookie`](super::cookie)) and a window of 0, so that the
//!    client proves itself and then waits. Nothing is kept.
//! 2. Its ACK brings the cookie back: a server is chosen, the connection entered, and the server called with the
//!    client's own number and what the cookie tells of its options.
//! 3. The server's answer tells its number. The client gets its window, the server an ACK with the client's; from then
//!    on the server's numbers are shifted on their way ([`Splice`]), in SACK blocks and ICMP errors too, and windows
//!    are rescaled where server and client were told different scales.
//!
//! A server that refuses is heard by its client as a reset. A SYN to the server that is lost is sent again by the
//! worker's clock ([`calls`](super::calls)) and with each further segment of the client, which probes the closed window
//! while it has something to say; a server that stays silent is heard as a reset too. Limits: no timestamps; MSS and
//! window scale in the steps of a cookie; the server's MSS is not known when the client is told one, so it is the
//! link's.

use super::calls::Call;
use super::cookie::Offer;
use super::segment::{self, Segment};
use crate::classify::Lookup;
use crate::conn::{Key4, Key6, Meta, Pair, Splice};
use crate::drop_reason::DropReason;
use crate::flow::{Family, Hit};
use crate::forward::Back;
use crate::io::{Packet, PacketIo};
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags, parse};
use crate::policy::Refusal;
use crate::rewrite::{Address, seq};
use crate::state;
use crate::wire::ethernet;
use crate::worker::Worker;

const SYN: u8 = TcpFlags::SYN.0;
const ACK: u8 = TcpFlags::ACK.0;
/// The flags that matter to a handshake.
const ALL: u8 = SYN | ACK | TcpFlags::RST.0 | TcpFlags::FIN.0;
/// Window scale that clients are told: windows of up to 8 MiB, in steps of 128 bytes.
const SCALE: u8 = 7;

/// IP and TCP headers without options, bytes (RFC 9293 section 3.7.1).
fn headers<A: Address>() -> u16 {
    if A::CHECKSUM.is_some() { 40 } else { 60 }
}

/// A window of a header, in bytes, as it is written under another scale; a window that is open stays so.
fn window(bytes: u32, scale: u8) -> u16 {
    let scaled = (bytes >> scale).min(u16::MAX.into()) as u16;
    scaled.max(u16::from(bytes > 0))
}

/// The window of a SYN to a server, of the window of its client's proof: windows of SYNs are never scaled (RFC 7323
/// section 2.2).
pub(super) fn opening_window(raw: u16, offer: &Offer) -> u16 {
    window(u32::from(raw) << offer.scale.unwrap_or(0), 0)
}

impl<I: PacketIo> Worker<I> {
    /// A segment without a connection of a service with the SYN proxy. `mss`: the largest segment that the service
    /// lets its clients announce.
    #[cold]
    pub(crate) fn prove(&mut self, frame: I::Packet, parsed: &Parsed, mss: u16) {
        match &parsed.net {
            Net::Flow4(flow) => self.prove_flow::<Key4>(frame, parsed, flow, mss),
            Net::Flow6(flow) => self.prove_flow::<Key6>(frame, parsed, flow, mss),
            // in fragments no proof comes
            _ => self.counters.drop_packet(DropReason::NoConnection),
        }
    }

    fn prove_flow<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        mss: u16,
    ) {
        match flow.tcp_flags.0 & ALL {
            SYN => self.offer_cookie::<K>(frame, parsed, flow, mss),
            flags if flags & ACK != 0 && flags & (SYN | TcpFlags::RST.0) == 0 => {
                self.take_cookie::<K>(frame, parsed, flow);
            }
            _ => {
                let refusal = Refusal::of_host(DropReason::NoConnection, flow.protocol);
                self.turn_away(frame, parsed, refusal);
            }
        }
    }

    /// Answers a SYN in the server's place. The SYN ends here, its answer is the director's own.
    fn offer_cookie<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        mss: u16,
    ) {
        let Some(link_id) = self.snapshot.link(frame.device(), parsed.vlan) else {
            return self.counters.drop_packet(DropReason::VlanUnknown);
        };
        let numbers = seq::numbers(frame.bytes(), flow);
        let (Some((number, _)), Some(mut offer)) = (numbers, seq::offer(frame.bytes(), flow)) else {
            return self.counters.drop_packet(DropReason::TcpTruncated);
        };
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        let cookie = self.flood.cookies.make(&key, number, &offer, self.now_ns);
        let link = &self.snapshot.links[usize::from(link_id.0)];
        let own = link.mac;
        offer.mss = link.mtu.saturating_sub(headers::<K::Address>()).min(mss);
        offer.scale = offer.scale.map(|_| SCALE);
        let said = Segment {
            seq: cookie,
            ack: number.wrapping_add(1),
            flags: SYN | ACK,
            window: 0,
            offer: Some(offer),
        };
        let (client, vip) = ((flow.src.into(), flow.src_port), (flow.dst.into(), flow.dst_port));
        let station = Self::source(&frame);
        let put = segment::packet(vip, client, &said)
            .is_some_and(|said| segment::put(&mut frame, parsed.l3, &said));
        if !put || !ethernet::rewrite_macs(frame.bytes_mut(), station, own) {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        self.flood.offered(self.now_ns);
        self.counters.own.cookies_sent.add(1);
        self.counters.own.delivered.add(1);
        self.counters.own.originated.add(1);
        self.reply(frame, link_id, client.0, station);
    }

    /// The offer and the number of the SYN that a cookie was made for, which a segment right behind it brings back.
    fn proof<K: Family>(&self, key: &K, (number, cookie): (u32, u32)) -> Option<(Offer, u32)> {
        // a probe of the closed window has the number of the SYN itself
        [number.wrapping_sub(1), number]
            .into_iter()
            .find_map(|syn| Some((self.flood.cookies.check(key, syn, cookie, self.now_ns)?, syn)))
    }

    /// An ACK that may bring a cookie back: the server is called. Its data, if any, the client sends again.
    fn take_cookie<K: Family>(&mut self, frame: I::Packet, parsed: &Parsed, flow: &Flow<K::Address>) {
        let key = K::new(flow.src, flow.src_port, flow.dst, flow.dst_port);
        let Some((number, ack)) = seq::numbers(frame.bytes(), flow) else {
            return self.counters.drop_packet(DropReason::TcpTruncated);
        };
        let cookie = ack.wrapping_sub(1);
        let Some((offer, syn)) = self.proof(&key, (number, cookie)) else {
            self.counters.own.cookies_refused.add(1);
            let refusal = Refusal::of_host(DropReason::NoConnection, flow.protocol);
            return self.turn_away(frame, parsed, refusal);
        };
        let window = seq::window(frame.bytes(), flow).unwrap_or_default();
        let call = Flow { tcp_flags: TcpFlags::SYN, event: state::tcp::SYN, ..*flow };
        let lookup = Lookup {
            src: flow.src.into(),
            dst: flow.dst.into(),
            src_port: flow.src_port,
            dst_port: flow.dst_port,
            protocol: flow.protocol,
            device: frame.device(),
            vlan: parsed.vlan,
        };
        let probe = K::tables(&mut self.tables).0.probe(&key, flow.protocol as u8);
        let splice = Splice::Opening { cookie, window };
        match self.admit_proved(key, &lookup, &call, probe, splice) {
            Ok(_) => self.counters.own.cookies_accepted.add(1),
            Err(refusal) => return self.turn_away(frame, parsed, refusal),
        }
        let Some(hit) = self.find(key, flow.protocol as u8) else {
            return self.counters.drop_packet(DropReason::NoConnection);
        };
        let (client, vip) = ((flow.src.into(), flow.src_port), (flow.dst.into(), flow.dst_port));
        let (device, vlan, station) = (frame.device(), parsed.vlan, Self::source(&frame));
        self.flood.calls.wait(0, Call { client, vip, syn, cookie, device, vlan, station }, self.now_ns);
        self.call::<K>(frame, parsed, &hit, (offer, syn, window));
    }

    /// The client's SYN, as it would have sent it to the server, in the place of a segment of the client.
    fn call<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        hit: &Hit<K>,
        (offer, syn, raw): (Offer, u32, u16),
    ) {
        let window = opening_window(raw, &offer);
        let said = Segment { seq: syn, ack: 0, flags: SYN, window, offer: Some(offer) };
        self.say_to_server::<K>(frame, parsed, hit, &said);
    }

    /// Sends a segment to the server in its client's name, in a frame that may be any of the connection's.
    fn say_to_server<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        hit: &Hit<K>,
        said: &Segment,
    ) {
        let client = (hit.key.client().into(), hit.key.client_port());
        let vip = (hit.key.vip().into(), hit.key.vip_port());
        let put =
            segment::packet(client, vip, said).is_some_and(|said| segment::put(&mut frame, parsed.l3, &said));
        if put { self.pass_to_server(frame, hit) } else { self.counters.drop_packet(DropReason::NoBuffer) }
    }

    /// Sends a segment that was made for a connection on to its server.
    pub(super) fn pass_to_server<K: Family>(&mut self, frame: I::Packet, hit: &Hit<K>) {
        match parse(frame.bytes()) {
            Ok(parsed) => match K::flow(&parsed.net) {
                Some(flow) => {
                    self.counters.inbound(hit.found.meta.dest(), flow.ip_len);
                    self.forward::<K>(frame, &parsed, flow, &hit.entry);
                }
                None => self.counters.drop_packet(DropReason::NoBuffer),
            },
            Err(reason) => self.counters.drop_packet(reason),
        }
    }

    /// The pair of a connection that says how it was put together.
    pub(super) fn splice_of<K: Family>(&mut self, key: K) -> Option<(crate::conn::Found, Splice)> {
        let (pair, _) = self.local_of(key, L4::Tcp as u8)?;
        Some((pair, pair.meta.splice()?))
    }

    /// A client's segment of a connection whose handshake the director did.
    #[inline(never)]
    pub(crate) fn spliced_in<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
    ) {
        let Some((_, splice)) = self.splice_of(hit.key) else {
            return self.counters.drop_packet(DropReason::NoConnection);
        };
        match splice {
            Splice::Open { delta, to_server, .. } => {
                seq::map_acks(frame.bytes_mut(), flow, |number| number.wrapping_sub(delta));
                seq::rescale(frame.bytes_mut(), flow, to_server as i8);
            }
            Splice::Opening { .. } if flow.tcp_flags.any(TcpFlags::SYN) => {
                // it did not hear the answer to its SYN, or begins anew: so does its proof
                self.forget(hit.found, hit.key);
                return self.prove_again::<K>(frame, parsed, flow, hit);
            }
            Splice::Opening { .. } if flow.tcp_flags.any(TcpFlags::RST) => {}
            Splice::Opening { cookie, window } => {
                let Some((number, _)) = seq::numbers(frame.bytes(), flow) else {
                    return self.counters.drop_packet(DropReason::TcpTruncated);
                };
                let Some((offer, syn)) = self.proof(&hit.key, (number, cookie)) else {
                    return self.counters.drop_packet(DropReason::NoConnection);
                };
                let call = Flow { tcp_flags: TcpFlags::SYN, event: state::tcp::SYN, ..*flow };
                self.advance(hit, &call, false);
                return self.call::<K>(frame, parsed, hit, (offer, syn, window));
            }
        }
        self.advance(hit, flow, false);
        self.counters.inbound(hit.found.meta.dest(), flow.ip_len);
        self.forward::<K>(frame, parsed, flow, &hit.entry);
    }

    fn prove_again<K: Family>(
        &mut self,
        frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
    ) {
        let service = self.snapshot.policies.get(usize::from(hit.entry.policy));
        let mss = service.and_then(|service| service.mss).unwrap_or(u16::MAX);
        self.prove_flow::<K>(frame, parsed, flow, mss);
    }

    /// A server's segment of such a connection, which may go on to its client by `back`.
    #[inline(never)]
    pub(crate) fn spliced_out<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
        back: Back,
    ) {
        let (Some((pair, splice)), Some((number, ack))) =
            (self.splice_of(hit.key), seq::numbers(frame.bytes(), flow))
        else {
            return self.counters.drop_packet(DropReason::NoConnection);
        };
        match splice {
            Splice::Open { delta, to_client, .. } => {
                seq::shift(frame.bytes_mut(), flow, delta);
                if !flow.tcp_flags.any(TcpFlags::SYN) {
                    seq::rescale(frame.bytes_mut(), flow, to_client);
                }
            }
            Splice::Opening { cookie, .. } if flow.tcp_flags.any(TcpFlags::RST) => {
                // the client believes a reset at exactly the number that it expects (RFC 5961 section 3.2)
                seq::shift(frame.bytes_mut(), flow, cookie.wrapping_add(1).wrapping_sub(number));
            }
            Splice::Opening { cookie, window } if flow.tcp_flags.0 & ALL == SYN | ACK => {
                let offer = Offer::of_cookie(cookie);
                let of_server = seq::offer(frame.bytes(), flow).and_then(|offer| offer.scale);
                let (to_server, to_client) = match (offer.scale, of_server) {
                    (Some(_), Some(scale)) => (0, scale.min(14) as i8 - SCALE as i8),
                    (Some(own), None) => (own, -(SCALE as i8)),
                    (None, _) => (0, 0),
                };
                let splice = Splice::Open { delta: cookie.wrapping_sub(number), to_server, to_client };
                K::tables(&mut self.tables).1.update(pair, pair.meta.with_splice(splice));
                return self.open::<K>(frame, parsed, flow, hit, back, (cookie, ack, window, offer));
            }
            // of an old connection on the same ends: the server forgets it when it is reset, and answers the next SYN
            Splice::Opening { .. } => {
                self.answer_with_reset(&frame, parsed);
                return self.counters.drop_packet(DropReason::NoConnection);
            }
        }
        self.forward_reply::<K>(frame, parsed, flow, hit, back);
    }

    /// The server has answered: it gets its ACK, and the client the server's window.
    fn open<K: Family>(
        &mut self,
        mut frame: I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
        back: Back,
        (cookie, ack, raw, offer): (u32, u32, u16, Offer),
    ) {
        let of_server = seq::window(frame.bytes(), flow).unwrap_or_default();
        self.acknowledge::<K>(
            &frame,
            parsed,
            hit,
            &Segment { seq: ack, ack: cookie.wrapping_add(1), flags: ACK, window: raw, offer: None },
        );
        let scale = offer.scale.map_or(0, |_| SCALE);
        let said = Segment {
            seq: cookie.wrapping_add(1),
            ack,
            flags: ACK,
            window: window(of_server.into(), scale),
            offer: None,
        };
        let (from, to) = ((flow.src.into(), flow.src_port), (flow.dst.into(), flow.dst_port));
        let put =
            segment::packet(from, to, &said).is_some_and(|said| segment::put(&mut frame, parsed.l3, &said));
        if !put {
            return self.counters.drop_packet(DropReason::NoBuffer);
        }
        match parse(frame.bytes()) {
            Ok(parsed) => match K::flow(&parsed.net) {
                Some(flow) => self.forward_reply::<K>(frame, &parsed, flow, hit, back),
                None => self.counters.drop_packet(DropReason::NoBuffer),
            },
            Err(reason) => self.counters.drop_packet(reason),
        }
    }

    /// The client's ACK to the server, in a frame of its own. Without a buffer the server says its SYN again, and the
    /// client answers that.
    fn acknowledge<K: Family>(&mut self, frame: &I::Packet, parsed: &Parsed, hit: &Hit<K>, said: &Segment) {
        self.counters.own.originated.add(1);
        let head = frame.bytes().get(..usize::from(parsed.l3)).unwrap_or_default();
        let Some(mut own) = self.io.alloc().filter(|_| !head.is_empty()) else {
            return self.counters.drop_packet(DropReason::NoBuffer);
        };
        let client = (hit.key.client().into(), hit.key.client_port());
        let vip = (hit.key.vip().into(), hit.key.vip_port());
        let filled = own.set_len(head.len()) && {
            own.bytes_mut().copy_from_slice(head);
            segment::packet(client, vip, said).is_some_and(|said| segment::put(&mut own, parsed.l3, &said))
        };
        let parsed = if filled { parse(own.bytes()).ok() } else { None };
        let flow = parsed.as_ref().and_then(|parsed| Some((parsed, K::flow(&parsed.net)?)));
        // as it is now: the server's SYN has changed it
        let (Some((parsed, flow)), Some(hit)) = (flow, self.find(hit.key, L4::Tcp as u8)) else {
            return self.counters.drop_packet(DropReason::NoBuffer);
        };
        self.spliced_in::<K>(own, parsed, flow, &hit);
    }

    /// The numbers of the server in a first fragment, on its way to the client or back. `false`: the connection is not
    /// open yet.
    pub(crate) fn spliced_fragment<K: Family>(
        &mut self,
        first: &mut I::Packet,
        flow: &Flow<K::Address>,
        key: K,
        outbound: bool,
    ) -> bool {
        let Some((_, Splice::Open { delta, to_server, to_client })) = self.splice_of(key) else {
            return false;
        };
        if outbound {
            seq::shift(first.bytes_mut(), flow, delta);
            seq::rescale(first.bytes_mut(), flow, to_client);
        } else {
            seq::map_acks(first.bytes_mut(), flow, |number| number.wrapping_sub(delta));
            seq::rescale(first.bytes_mut(), flow, to_server as i8);
        }
        true
    }

    /// What lies between the server's numbers and those that the client knows, if anything does.
    pub(crate) fn spliced_delta<K: Family>(&mut self, meta: Meta, key: K) -> Option<u32> {
        if !meta.is_spliced() {
            return None;
        }
        match self.splice_of(key)? {
            (_, Splice::Open { delta, .. }) => Some(delta),
            _ => None,
        }
    }
}

/// Enters the pairs of such a connection; `false`: no room, nothing changed.
///
/// An elder connection of the same client's port to the same server, over another VIP, loses its replies.
pub(crate) fn enter<K: Family>(
    pairs: &mut crate::conn::Table<Pair<K>>,
    key: K,
    reply: K,
    protocol: u8,
    splice: Splice,
) -> bool {
    let back = Pair::wanted(reply);
    if let Some(elder) = pairs.find(&back, protocol, pairs.probe(&back, protocol)) {
        pairs.remove(elder);
    }
    let on = Meta::of_pair(crate::local_port::forward(protocol)).with_splice(splice);
    crate::local_port::enter(pairs, key, reply, protocol, on)
}

//! `client_address = "proxy-v2"`: a server's stream begins with a PROXY header, which its client has not sent.
//!
//! What is known of a stream, and what that means to a segment, is in [`conn::Stream`](crate::conn::Stream); here it is
//! done. The header goes with the first segment behind the client's SYN, which ends the handshake, so that a server
//! that speaks first has it as well. Limits: a SYN in fragments does not pass; of a connection that begins without one
//! (`sloppy_tcp`) nothing is known, and its data does not pass; data in a SYN (RFC 7413) is left for the client to
//! repeat.

use crate::conn::{Found, Inbound};
use crate::drop_reason::DropReason;
use crate::flow::{Family, Hit};
use crate::io::{Packet, PacketIo};
use crate::parse::{Flow, L4, Parsed, TcpFlags};
use crate::rewrite::proxy::{self, Header};
use crate::rewrite::{Address, Alone, Say, alone, seq};
use crate::snapshot::DestEntry;
use crate::worker::Worker;

/// Largest packet that the header makes longer, bytes: every link of IPv6 takes it (RFC 8200 section 5), and nearly
/// every one of IPv4. Before data in larger ones it goes ahead: a client that is told of a narrow link sends packets
/// that fit it, and could not know that they are made longer.
const MAX_LONGER: u16 = 1280;
/// RFC 9293 section 3.1: there is urgent data, whose end is counted from the segment's front.
const URGENT: TcpFlags = TcpFlags(0x20);

/// Length of the header in a family, bytes.
fn header_len<A: Address>() -> u32 {
    proxy::len(A::CHECKSUM.is_none()).into()
}

/// Whether a whole segment has data.
fn has_data<A>(frame: &[u8], parsed: &Parsed, flow: &Flow<A>) -> bool {
    let header_len = frame.get(usize::from(flow.l4) + 12).map_or(0, |byte| u16::from(byte >> 4) * 4);
    flow.l4 + header_len < parsed.l3 + flow.ip_len
}

impl<I: PacketIo> Worker<I> {
    /// A client's segment on its way to a server that is told by a header who its client is: its ends are translated.
    ///
    /// `whole`: it is not the first fragment of one. Errors: why it must not go on.
    pub(crate) fn stream_to_server<K: Family>(
        &mut self,
        frame: &mut I::Packet,
        parsed: &Parsed,
        flow: &Flow<K::Address>,
        entry: &DestEntry,
        (pair, whole): (Found, bool),
    ) -> Result<(), DropReason> {
        let len = header_len::<K::Address>();
        let (number, _) = seq::numbers(frame.bytes(), flow).ok_or(DropReason::TcpTruncated)?;
        match pair.meta.stream().inbound(number, flow.tcp_flags) {
            Inbound::Bare if !whole => return Err(DropReason::FragmentMalformed),
            Inbound::Bare => {
                if has_data(frame.bytes(), parsed, flow) {
                    let say = Say { seq: number, flags: flow.tcp_flags.0, data: &[] };
                    let bare = alone(frame.bytes(), parsed.l3, flow, say).ok_or(DropReason::TcpTruncated)?;
                    if !put(frame, parsed, &bare) {
                        return Err(DropReason::NoBuffer);
                    }
                }
                return Ok(());
            }
            Inbound::Shifted => {}
            inbound => {
                let client = (flow.src.into(), flow.src_port);
                let header = Header::new(L4::Tcp, client, (flow.dst.into(), flow.dst_port));
                let header = header.ok_or(DropReason::TcpTruncated)?;
                let mtu = entry.mtu.min(MAX_LONGER);
                if inbound == Inbound::Headed
                    && whole
                    && !flow.tcp_flags.any(URGENT)
                    && proxy::insert_header(frame, parsed.l3, flow, &header, mtu)
                {
                    seq::push(frame.bytes_mut(), flow);
                    return Ok(());
                }
                self.send_header(frame, parsed, flow, entry, (number, &header))?;
            }
        }
        seq::shift(frame.bytes_mut(), flow, len);
        Ok(())
    }

    /// Sends the header ahead of a client's segment. Errors: there is no buffer, and the segment must not go either.
    #[cold]
    fn send_header<A: Address>(
        &mut self,
        frame: &I::Packet,
        parsed: &Parsed,
        flow: &Flow<A>,
        entry: &DestEntry,
        (seq, header): (u32, &Header),
    ) -> Result<(), DropReason> {
        let say = Say { seq, flags: TcpFlags::ACK.0 | seq::PUSH, data: header.bytes() };
        let packet = alone(frame.bytes(), parsed.l3, flow, say).ok_or(DropReason::TcpTruncated)?;
        let mut ahead = self.io.alloc().ok_or(DropReason::NoBuffer)?;
        let link = frame.bytes().get(..usize::from(parsed.l3)).ok_or(DropReason::NoBuffer)?;
        if !ahead.set_len(link.len()) {
            return Err(DropReason::NoBuffer);
        }
        ahead.bytes_mut().copy_from_slice(link);
        if !put(&mut ahead, parsed, &packet) {
            return Err(DropReason::NoBuffer);
        }
        self.counters.own.originated.add(1);
        self.leave(ahead, parsed, entry.hop(), None);
        Ok(())
    }

    /// A server's segment on its way to the client of such a stream: what it acknowledges is the client's again.
    pub(crate) fn stream_to_client<K: Family>(
        &mut self,
        frame: &mut I::Packet,
        flow: &Flow<K::Address>,
        hit: &Hit<K>,
    ) {
        let len = header_len::<K::Address>();
        let Some((_, ack)) = seq::numbers(frame.bytes(), flow) else { return };
        let Some((pair, _)) = self.local_of(hit.key, L4::Tcp as u8) else { return };
        let before = pair.meta.stream();
        let stream = before.answered(ack, flow.tcp_flags, len);
        if stream != before {
            K::tables(&mut self.tables).1.update(pair, pair.meta.with_stream(stream));
        }
        if flow.tcp_flags.any(TcpFlags::SYN) {
            // the header will take its part of it
            seq::narrow(frame.bytes_mut(), flow, len as u16);
        }
        seq::map_acks(frame.bytes_mut(), flow, |number| stream.of_client(number, len));
    }

    /// The client's number for one that an ICMP error quotes from its own segment as it was sent to the server.
    pub(crate) fn quoted_number<K: Family>(
        &mut self,
        hit: &Hit<K>,
    ) -> Option<impl Fn(u32) -> u32 + use<I, K>> {
        if !hit.found.meta.is_proxied() {
            return None;
        }
        let (pair, _) = self.local_of(hit.key, L4::Tcp as u8)?;
        let (stream, len) = (pair.meta.stream(), header_len::<K::Address>());
        Some(move |number| stream.of_client(number, len))
    }
}

/// Puts a packet in the place of the one behind the link-layer header. `false`: no room.
fn put<P: Packet>(frame: &mut P, parsed: &Parsed, packet: &Alone) -> bool {
    let l3 = usize::from(parsed.l3);
    if !frame.set_len(l3 + packet.len()) {
        return false;
    }
    let Some(place) = frame.bytes_mut().get_mut(l3..) else { return false };
    place.copy_from_slice(packet);
    true
}

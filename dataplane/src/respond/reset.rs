//! Ends of connections: what a host says to a packet that belongs to none, and what both sides hear when a connection
//! is cut.

use std::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use crate::io::Packet;
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags};
use crate::state::sctp::chunk;
use crate::wire::ethernet::{self, Mac, rewrite_macs};
use crate::wire::{DEFAULT_TTL, PROTOCOL_TCP, checksum, ipv4, ipv6, sctp, tcp};

/// Don't fragment, in the word of flags and offset (RFC 791 section 3.1).
const DF: u16 = 0x4000;

/// What a reset keeps of the type of service or traffic class: all but ECN (RFC 3168 section 6.1.1: neither end has
/// agreed to it), as in Linux.
const NO_ECN: u8 = 0xfc;

/// Length of an SCTP packet with one ABORT without causes, bytes (RFC 9260 section 3.3.7).
const ABORT_LEN: usize = sctp::HEADER_LEN + sctp::CHUNK_HEADER_LEN;

/// The transport's part of a reset, and the packet around it.
type Transport = ArrayVec<u8, { tcp::HEADER_LEN }>;
type IpPacket = ArrayVec<u8, { ipv6::HEADER_LEN + tcp::HEADER_LEN }>;

/// Who gets the reset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// Who sent the packet.
    Sender,
    /// Whom the packet was for.
    Receiver,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

/// Sequence and acknowledgement number and flags of a reset to the sender of `segment` (RFC 9293 section 3.5.2 group
/// 1), or in its name to its receiver, who expects its sequence number next.
fn numbers(segment: &[u8], flags: TcpFlags, to: To) -> Option<(u32, u32, u8)> {
    let (seq, ack) = (word(segment, 4)?, word(segment, 8)?);
    match (to, flags.any(TcpFlags::ACK)) {
        (To::Sender, true) => return Some((ack, 0, TcpFlags::RST.0)),
        (To::Receiver, true) => return Some((seq, ack, TcpFlags::RST.0 | TcpFlags::ACK.0)),
        (To::Receiver, false) => return Some((seq, 0, TcpFlags::RST.0)),
        (To::Sender, false) => {}
    }
    let data_offset = usize::from(*segment.get(12)? >> 4) * 4;
    let payload = segment.len().checked_sub(data_offset)? as u32;
    let takes = payload + u32::from(flags.any(TcpFlags::SYN)) + u32::from(flags.any(TcpFlags::FIN));
    Some((0, seq.wrapping_add(takes), TcpFlags::RST.0 | TcpFlags::ACK.0))
}

/// A whole TCP header without options, checksum included; `pseudo`: sum of the pseudo header.
fn header(from: u16, to: u16, (seq, ack, flags): (u32, u32, u8), pseudo: u64) -> [u8; tcp::HEADER_LEN] {
    let mut header = [0; tcp::HEADER_LEN];
    header[0..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    let sum = checksum::finish(checksum::add(pseudo, &header));
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    header
}

/// A whole SCTP packet with one ABORT.
///
/// To the sender it carries the receiver's tag back and says so with the T bit, or the tag that an INIT asks for (RFC
/// 9260 section 8.4 (3) and (8)); a SHUTDOWN ACK gets a SHUTDOWN COMPLETE instead (8.4 (5)). `None`: the sender of a
/// COOKIE ACK or SHUTDOWN COMPLETE hears nothing (8.4 (6) and (7)), the receiver of an INIT has no tag yet.
fn abort(packet: &[u8], (from, to): (u16, u16), whom: To) -> Option<[u8; ABORT_LEN]> {
    const T: u8 = 1;
    let chunk = *packet.get(sctp::HEADER_LEN)?;
    let (tag, answer, flags) = match (whom, chunk) {
        (To::Sender, chunk::INIT) => {
            (word(packet, sctp::HEADER_LEN + sctp::CHUNK_HEADER_LEN)?, chunk::ABORT, 0)
        }
        (To::Sender, chunk::COOKIE_ACK | chunk::SHUTDOWN_COMPLETE) => return None,
        (To::Sender, chunk::SHUTDOWN_ACK) => (word(packet, 4)?, chunk::SHUTDOWN_COMPLETE, T),
        (To::Sender, _) => (word(packet, 4)?, chunk::ABORT, T),
        (To::Receiver, chunk::INIT) => return None,
        (To::Receiver, _) => (word(packet, 4)?, chunk::ABORT, 0),
    };
    let mut out = [0; ABORT_LEN];
    out[0..2].copy_from_slice(&from.to_be_bytes());
    out[2..4].copy_from_slice(&to.to_be_bytes());
    out[4..8].copy_from_slice(&tag.to_be_bytes());
    out[12..16].copy_from_slice(&[answer, flags, 0, sctp::CHUNK_HEADER_LEN as u8]);
    sctp::seal(&mut out).then_some(out)
}

/// Source, destination and their ports of the reset.
fn ends<A: Copy>(flow: &Flow<A>, to: To) -> ((A, A), (u16, u16)) {
    match to {
        To::Sender => ((flow.dst, flow.src), (flow.dst_port, flow.src_port)),
        To::Receiver => ((flow.src, flow.dst), (flow.src_port, flow.dst_port)),
    }
}

/// `None`: nothing ends this packet's connection: it does so itself, or is UDP's.
fn transport<A: Copy>(packet: &[u8], flow: &Flow<A>, to: To, pseudo: u64) -> Option<Transport> {
    let ports = ends(flow, to).1;
    match flow.protocol {
        L4::Tcp if !flow.tcp_flags.any(TcpFlags::RST) => {
            let tcp = header(ports.0, ports.1, numbers(packet, flow.tcp_flags, to)?, pseudo);
            Transport::try_from(&tcp[..]).ok()
        }
        L4::Sctp if *packet.get(sctp::HEADER_LEN)? != chunk::ABORT => {
            Transport::try_from(&abort(packet, ports, to)?[..]).ok()
        }
        _ => None,
    }
}

fn reset4(ip: &[u8], flow: &Flow<Ipv4Addr>, packet: &[u8], to: To) -> Option<IpPacket> {
    let (src, dst) = ends(flow, to).0;
    let (src, dst) = (src.octets(), dst.octets());
    let pseudo = checksum::pseudo_header(&src, &dst, PROTOCOL_TCP, tcp::HEADER_LEN);
    let transport = transport(packet, flow, to, pseudo)?;
    let mut out = [0; ipv4::HEADER_LEN];
    out[0] = 0x45;
    out[1] = *ip.get(1)? & NO_ECN;
    out[2..4].copy_from_slice(&((ipv4::HEADER_LEN + transport.len()) as u16).to_be_bytes());
    out[6..8].copy_from_slice(&DF.to_be_bytes());
    out[8] = DEFAULT_TTL;
    out[9] = flow.protocol as u8;
    out[12..16].copy_from_slice(&src);
    out[16..20].copy_from_slice(&dst);
    let sum = checksum::finish(checksum::add(0, &out));
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    joined(&out, &transport)
}

fn reset6(ip: &[u8], flow: &Flow<Ipv6Addr>, packet: &[u8], to: To) -> Option<IpPacket> {
    let (src, dst) = ends(flow, to).0;
    let pseudo = checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_TCP, tcp::HEADER_LEN);
    let transport = transport(packet, flow, to, pseudo)?;
    let mut out = [0; ipv6::HEADER_LEN];
    let emit = ipv6::Emit {
        src,
        dst,
        protocol: flow.protocol as u8,
        hop_limit: DEFAULT_TTL,
        payload_len: transport.len() as u16,
    };
    ipv6::emit(&mut out, &emit)?;
    let [first, second] = *ip.first_chunk()?;
    out[0] |= first & 0x0f;
    out[1] = second & NO_ECN << 4;
    joined(&out, &transport)
}

fn joined(header: &[u8], transport: &[u8]) -> Option<IpPacket> {
    let mut packet = IpPacket::new();
    packet.try_extend_from_slice(header).ok()?;
    packet.try_extend_from_slice(transport).ok()?;
    Some(packet)
}

fn packet_to(bytes: &[u8], parsed: &Parsed, to: To) -> Option<IpPacket> {
    let l3 = usize::from(parsed.l3);
    // of a packet in several buffers what is here: more than the headers is not looked at
    let part = |l4: u16, ip_len: u16| bytes.get(usize::from(l4)..(l3 + usize::from(ip_len)).min(bytes.len()));
    match &parsed.net {
        Net::Flow4(flow) => reset4(bytes.get(l3..)?, flow, part(flow.l4, flow.ip_len)?, to),
        Net::Flow6(flow) => reset6(bytes.get(l3..)?, flow, part(flow.l4, flow.ip_len)?, to),
        _ => None,
    }
}

/// Turns a packet of either family into the TCP reset or SCTP ABORT that answers it, from `our_mac` to the station
/// that sent the frame; differentiated services and tag stay, IPv4's identification is 0 with DF set, as Linux sends it.
///
/// `false`: resets and ABORTs are never answered, or `parsed` is neither TCP nor SCTP; unchanged.
pub fn reset<P: Packet>(packet: &mut P, parsed: &Parsed, our_mac: Mac) -> bool {
    let Some(sender) = ethernet::source(packet.bytes()) else { return false };
    let Some(ip) = packet_to(packet.bytes(), parsed, To::Sender) else { return false };
    replace(packet, usize::from(parsed.l3), &ip) && rewrite_macs(packet.bytes_mut(), sender, our_mac)
}

/// Turns a packet of either family into a TCP reset or SCTP ABORT in its sender's name, for whom it was for; the rest
/// as with [`reset`]. `parsed` does not describe it any longer.
///
/// `false`: it ends its connection already, or nothing does; unchanged.
pub fn cut_short<P: Packet>(packet: &mut P, parsed: &Parsed) -> bool {
    let Some(ip) = packet_to(packet.bytes(), parsed, To::Receiver) else { return false };
    replace(packet, usize::from(parsed.l3), &ip)
}

/// Puts `ip` in the place of the packet at `l3`.
fn replace<P: Packet>(packet: &mut P, l3: usize, ip: &[u8]) -> bool {
    if !packet.set_len(l3 + ip.len()) {
        return false;
    }
    let Some(place) = packet.bytes_mut().get_mut(l3..) else { return false };
    place.copy_from_slice(ip);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::DeviceId;
    use crate::memory::Frame;
    use crate::parse::parse;

    const CLIENT: Mac = [2, 0, 0, 0, 0, 2];
    const OURS: Mac = [2, 0, 0, 0, 0, 1];

    /// A segment 192.168.1.2:40000 > 10.0.0.100:80 with these flags, sequence 1000, acknowledgement 5001.
    fn segment(flags: u8, payload: usize) -> Frame {
        let mut ip = vec![0x45, 0x10, 0, 0, 0, 7, 0x40, 0, 63, 6, 0, 0, 192, 168, 1, 2, 10, 0, 0, 100];
        ip[2..4].copy_from_slice(&(40 + payload as u16).to_be_bytes());
        let sum = checksum::finish(checksum::add(0, &ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(header(40000, 80, (1000, 5001, flags), 0));
        ip.extend(vec![7; payload]);
        let mut frame = [OURS, CLIENT].concat();
        frame.extend([8, 0]);
        frame.extend(ip);
        Frame::new(DeviceId(0), &frame)
    }

    fn reset_of(mut frame: Frame) -> Option<Vec<u8>> {
        let parsed = parse(frame.bytes()).expect("a segment");
        reset(&mut frame, &parsed, OURS).then(|| frame.bytes().to_vec())
    }

    #[test]
    fn what_acknowledges_is_reset_at_its_acknowledgement() {
        let frame = reset_of(segment(TcpFlags::ACK.0, 100)).expect("a reset");
        assert_eq!(frame.len(), 54);
        assert_eq!((&frame[..6], &frame[6..12]), (&CLIENT[..], &OURS[..]));
        let parsed = parse(&frame).expect("valid");
        let Net::Flow4(flow) = parsed.net else { panic!("{parsed:?}") };
        assert_eq!((flow.src, flow.src_port, flow.dst_port), ([10, 0, 0, 100].into(), 80, 40000));
        assert_eq!((flow.tcp_flags, flow.ttl, flow.df, frame[15]), (TcpFlags::RST, 64, true, 0x10));
        assert_eq!(frame[38..46], [0, 0, 0x13, 0x89, 0, 0, 0, 0]);
        let pseudo = checksum::pseudo_header(&frame[26..30], &frame[30..34], PROTOCOL_TCP, 20);
        assert!(checksum::is_valid(checksum::add(pseudo, &frame[34..])));
    }

    #[test]
    fn a_reset_has_the_segment_s_service_without_ecn() {
        let mut frame = segment(TcpFlags::ACK.0, 0);
        frame.bytes_mut()[15] = 0xbb;
        frame.bytes_mut()[24..26].fill(0);
        let sum = checksum::finish(checksum::add(0, &frame.bytes()[14..34]));
        frame.bytes_mut()[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(reset_of(frame).expect("a reset")[15], 0xb8);
    }

    #[test]
    fn what_does_not_is_acknowledged_up_to_its_end() {
        let frame = reset_of(segment(TcpFlags::SYN.0 | TcpFlags::FIN.0, 10)).expect("a reset");
        assert_eq!(frame[38..46], [0, 0, 0, 0, 0, 0, 0x03, 0xf4]);
        assert_eq!(frame[47], TcpFlags::RST.0 | TcpFlags::ACK.0);
    }

    #[test]
    fn a_reset_is_not_answered() {
        assert_eq!(reset_of(segment(TcpFlags::RST.0, 0)), None);
        assert_eq!(reset_of(segment(TcpFlags::RST.0 | TcpFlags::ACK.0, 0)), None);
    }

    #[test]
    fn the_receiver_is_reset_at_the_sequence_number_that_it_expects() {
        let mut frame = segment(TcpFlags::ACK.0, 100);
        let parsed = parse(frame.bytes()).expect("a segment");
        assert!(cut_short(&mut frame, &parsed));
        let Net::Flow4(flow) = parse(frame.bytes()).expect("valid").net else { panic!() };
        assert_eq!((flow.src, flow.src_port, flow.dst_port), ([192, 168, 1, 2].into(), 40000, 80));
        assert_eq!((flow.tcp_flags.0, flow.ip_len), (TcpFlags::RST.0 | TcpFlags::ACK.0, 40));
        assert_eq!(frame.bytes()[38..46], [0, 0, 0x03, 0xe8, 0, 0, 0x13, 0x89]);
        let parsed = parse(frame.bytes()).expect("a reset");
        assert!(!cut_short(&mut frame, &parsed), "what ends its connection is left alone");
    }

    /// An SCTP packet with tag 7 and a chunk of this type, whose value begins with 9.
    fn association(kind: u8) -> Frame {
        let mut ip = vec![0x45, 0, 0, 40, 0, 7, 0x40, 0, 63, 132, 0, 0, 192, 168, 1, 2, 10, 0, 0, 100];
        let sum = checksum::finish(checksum::add(0, &ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, kind, 0, 0, 8, 0, 0, 0, 9]);
        let mut frame = [OURS, CLIENT].concat();
        frame.extend([8, 0]);
        frame.extend(ip);
        Frame::new(DeviceId(0), &frame)
    }

    #[test]
    fn an_association_is_aborted_with_a_tag_that_is_believed() {
        let complete = chunk::SHUTDOWN_COMPLETE;
        for (kind, tag, answer, flags) in [
            (chunk::DATA, 7, chunk::ABORT, 1),
            (chunk::INIT, 9, chunk::ABORT, 0),
            (chunk::SHUTDOWN_ACK, 7, complete, 1),
        ] {
            let frame = reset_of(association(kind)).expect("an answer");
            assert_eq!(frame[34..38], [0, 80, 0x9c, 0x40]);
            assert_eq!((&frame[38..42], &frame[46..]), (&[0, 0, 0, tag][..], &[answer, flags, 0, 4][..]));
            assert!(sctp::is_valid(&frame[34..]));
        }
        for unanswered in [chunk::ABORT, chunk::COOKIE_ACK, complete] {
            assert_eq!(reset_of(association(unanswered)), None);
        }
        let mut frame = association(chunk::DATA);
        let parsed = parse(frame.bytes()).expect("a packet");
        assert!(cut_short(&mut frame, &parsed));
        assert_eq!(frame.bytes()[34..42], [0x9c, 0x40, 0, 80, 0, 0, 0, 7]);
        assert_eq!(frame.bytes()[46..], [6, 0, 0, 4]);
        let mut frame = association(chunk::INIT);
        let parsed = parse(frame.bytes()).expect("a packet");
        assert!(!cut_short(&mut frame, &parsed), "no tag is known");
    }
}

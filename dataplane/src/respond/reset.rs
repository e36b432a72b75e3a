//! TCP resets: what a host says to a segment that belongs to no connection.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::io::Packet;
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags};
use crate::wire::ethernet::{self, Mac, rewrite_macs};
use crate::wire::{DEFAULT_TTL, PROTOCOL_TCP, checksum, ipv4, ipv6, tcp};

/// Don't fragment, in the word of flags and offset (RFC 791 section 3.1).
const DF: u16 = 0x4000;

/// Sequence and acknowledgement number and flags of the reset that answers `segment` (RFC 9293 section 3.5.2 group 1).
fn answer(segment: &[u8], flags: TcpFlags) -> Option<(u32, u32, u8)> {
    let word = |at: usize| Some(u32::from_be_bytes(*segment.get(at..)?.first_chunk::<4>()?));
    if flags.any(TcpFlags::ACK) {
        return Some((word(8)?, 0, TcpFlags::RST.0));
    }
    let data_offset = usize::from(*segment.get(12)? >> 4) * 4;
    let payload = segment.len().checked_sub(data_offset)? as u32;
    let takes = payload + u32::from(flags.any(TcpFlags::SYN)) + u32::from(flags.any(TcpFlags::FIN));
    Some((0, word(4)?.wrapping_add(takes), TcpFlags::RST.0 | TcpFlags::ACK.0))
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

fn reset4(packet: &[u8], flow: &Flow<Ipv4Addr>, segment: &[u8]) -> Option<[u8; 40]> {
    let (src, dst) = (flow.dst.octets(), flow.src.octets());
    let pseudo = checksum::pseudo_header(&src, &dst, PROTOCOL_TCP, tcp::HEADER_LEN);
    let tcp = header(flow.dst_port, flow.src_port, answer(segment, flow.tcp_flags)?, pseudo);
    let mut out = [0; 40];
    out[0] = 0x45;
    out[1] = *packet.get(1)?;
    out[2..4].copy_from_slice(&40u16.to_be_bytes());
    out[6..8].copy_from_slice(&DF.to_be_bytes());
    out[8] = DEFAULT_TTL;
    out[9] = PROTOCOL_TCP;
    out[12..16].copy_from_slice(&src);
    out[16..20].copy_from_slice(&dst);
    let sum = checksum::finish(checksum::add(0, &out[..ipv4::HEADER_LEN]));
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out[20..].copy_from_slice(&tcp);
    Some(out)
}

fn reset6(flow: &Flow<Ipv6Addr>, segment: &[u8]) -> Option<[u8; 60]> {
    let (src, dst) = (flow.dst.octets(), flow.src.octets());
    let pseudo = checksum::pseudo_header(&src, &dst, PROTOCOL_TCP, tcp::HEADER_LEN);
    let tcp = header(flow.dst_port, flow.src_port, answer(segment, flow.tcp_flags)?, pseudo);
    let mut out = [0; 60];
    let emit = ipv6::Emit {
        src: flow.dst,
        dst: flow.src,
        protocol: PROTOCOL_TCP,
        hop_limit: DEFAULT_TTL,
        payload_len: tcp::HEADER_LEN as u16,
    };
    ipv6::emit(&mut out, &emit)?;
    out[ipv6::HEADER_LEN..].copy_from_slice(&tcp);
    Some(out)
}

/// Turns a TCP segment of either family into the reset that answers it, from `our_mac` to the station that sent the
/// frame; type of service and tag stay, IPv4's identification is 0 with DF set, as Linux sends it.
///
/// `false`: a reset is never answered, or `parsed` is no TCP segment; unchanged.
pub fn tcp_reset<P: Packet>(packet: &mut P, parsed: &Parsed, our_mac: Mac) -> bool {
    let bytes = packet.bytes();
    let Some(sender) = ethernet::source(bytes) else { return false };
    let l3 = usize::from(parsed.l3);
    let segment = |l4: u16, ip_len: u16| bytes.get(usize::from(l4)..l3 + usize::from(ip_len));
    match &parsed.net {
        Net::Flow4(flow) if flow.protocol == L4::Tcp && !flow.tcp_flags.any(TcpFlags::RST) => {
            let reset =
                segment(flow.l4, flow.ip_len).and_then(|segment| reset4(bytes.get(l3..)?, flow, segment));
            reset.is_some_and(|reset| replace(packet, l3, &reset))
                && rewrite_macs(packet.bytes_mut(), sender, our_mac)
        }
        Net::Flow6(flow) if flow.protocol == L4::Tcp && !flow.tcp_flags.any(TcpFlags::RST) => {
            let reset = segment(flow.l4, flow.ip_len).and_then(|segment| reset6(flow, segment));
            reset.is_some_and(|reset| replace(packet, l3, &reset))
                && rewrite_macs(packet.bytes_mut(), sender, our_mac)
        }
        _ => false,
    }
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
        tcp_reset(&mut frame, &parsed, OURS).then(|| frame.bytes().to_vec())
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
}

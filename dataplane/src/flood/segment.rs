//! TCP segments that the director says in the name of one end to the other.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::cookie::Offer;
use crate::io::Packet;
use crate::wire::{DEFAULT_TTL, PROTOCOL_TCP, checksum, ipv4, ipv6, tcp};

/// Options of a SYN: largest segment, SACK permitted, window scale (RFC 9293 section 3.2, RFC 2018 section 2, RFC
/// 7323 section 2.2), padded.
const MAX_OPTIONS: usize = 12;
/// Don't fragment, in the word of flags and offset (RFC 791 section 3.1).
const DF: u16 = 0x4000;

/// What a segment says.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// Window, as it is in the header.
    pub window: u16,
    /// The options of a SYN.
    pub offer: Option<Offer>,
}

/// A whole IP packet.
pub type Spoken = ArrayVec<u8, { ipv6::HEADER_LEN + tcp::HEADER_LEN + MAX_OPTIONS }>;

fn options(offer: &Offer) -> ArrayVec<u8, MAX_OPTIONS> {
    let [high, low] = offer.mss.to_be_bytes();
    let mut options = ArrayVec::from([2, 4, high, low, 1, 1, 1, 1, 1, 1, 1, 1]);
    let mut len = 4;
    if offer.sack {
        options[len..len + 4].copy_from_slice(&[1, 1, 4, 2]);
        len += 4;
    }
    if let Some(scale) = offer.scale {
        options[len..len + 4].copy_from_slice(&[1, 3, 3, scale]);
        len += 4;
    }
    options.truncate(len);
    options
}

/// The packet of a segment from one end to another, ports in host order, checksums included. `None`: the ends are of
/// different families.
pub fn packet(from: (IpAddr, u16), to: (IpAddr, u16), said: &Segment) -> Option<Spoken> {
    let options = said.offer.as_ref().map(options).unwrap_or_default();
    let len = tcp::HEADER_LEN + options.len();
    let mut header = [0; tcp::HEADER_LEN];
    header[0..2].copy_from_slice(&from.1.to_be_bytes());
    header[2..4].copy_from_slice(&to.1.to_be_bytes());
    header[4..8].copy_from_slice(&said.seq.to_be_bytes());
    header[8..12].copy_from_slice(&said.ack.to_be_bytes());
    header[12] = (len as u8 / 4) << 4;
    header[13] = said.flags;
    header[14..16].copy_from_slice(&said.window.to_be_bytes());
    let mut packet = Spoken::new();
    let pseudo = match (from.0, to.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (src, dst) = (src.octets(), dst.octets());
            let mut ip = [0; ipv4::HEADER_LEN];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&((ipv4::HEADER_LEN + len) as u16).to_be_bytes());
            ip[6..8].copy_from_slice(&DF.to_be_bytes());
            ip[8] = DEFAULT_TTL;
            ip[9] = PROTOCOL_TCP;
            ip[12..16].copy_from_slice(&src);
            ip[16..20].copy_from_slice(&dst);
            let sum = checksum::finish(checksum::add(0, &ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.try_extend_from_slice(&ip).ok()?;
            checksum::pseudo_header(&src, &dst, PROTOCOL_TCP, len)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut ip = [0; ipv6::HEADER_LEN];
            let payload_len = len as u16;
            let (protocol, hop_limit) = (PROTOCOL_TCP, DEFAULT_TTL);
            ipv6::emit(&mut ip, &ipv6::Emit { src, dst, protocol, hop_limit, payload_len })?;
            packet.try_extend_from_slice(&ip).ok()?;
            checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_TCP, len)
        }
        _ => return None,
    };
    let sum = checksum::finish(checksum::add(checksum::add(pseudo, &header), &options));
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.try_extend_from_slice(&header).ok()?;
    packet.try_extend_from_slice(&options).ok()?;
    Some(packet)
}

/// Puts `spoken` in the place of the packet at `l3` of a frame. `false`: no room.
pub fn put<P: Packet>(frame: &mut P, l3: u16, spoken: &Spoken) -> bool {
    let l3 = usize::from(l3);
    if !frame.set_len(l3 + spoken.len()) {
        return false;
    }
    let Some(place) = frame.bytes_mut().get_mut(l3..) else { return false };
    place.copy_from_slice(spoken);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Net, parse};
    use crate::rewrite::seq;

    #[test]
    fn what_is_said_is_a_segment_with_right_checksums() {
        let v4: (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let v6: (IpAddr, IpAddr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        for (offer, options) in [
            (None, vec![]),
            (Some(Offer { mss: 1460, scale: None, sack: false }), vec![2, 4, 5, 180]),
            (Some(Offer { mss: 536, scale: Some(7), sack: true }), vec![2, 4, 2, 24, 1, 1, 4, 2, 1, 3, 3, 7]),
        ] {
            for (src, dst) in [v4, v6] {
                let said = Segment { seq: 1, ack: 2, flags: 0x12, window: 3, offer };
                let spoken = packet((src, 1000), (dst, 80), &said).expect("one family");
                let kind = if src.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
                let frame = [&[2; 12][..], &kind, &spoken].concat();
                let parsed = parse(&frame).expect("valid");
                let (numbers, l4, flags) = match &parsed.net {
                    Net::Flow4(flow) => (seq::numbers(&frame, flow), usize::from(flow.l4), flow.tcp_flags),
                    Net::Flow6(flow) => (seq::numbers(&frame, flow), usize::from(flow.l4), flow.tcp_flags),
                    other => panic!("{other:?}"),
                };
                assert_eq!((numbers, flags.0), (Some((1, 2)), 0x12));
                assert_eq!(frame[l4 + 20..], options);
                let addresses = if src.is_ipv4() { 26..34 } else { 22..54 };
                let pseudo = checksum::pseudo_header(&frame[addresses], &[], 6, frame.len() - l4);
                assert!(checksum::is_valid(checksum::add(pseudo, &frame[l4..])));
            }
        }
        assert!(
            packet((v4.0, 1), (v6.1, 2), &Segment { seq: 0, ack: 0, flags: 0, window: 0, offer: None })
                .is_none()
        );
    }
}

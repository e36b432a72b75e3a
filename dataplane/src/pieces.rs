//! Frames that came in several buffers: jumbo frames where buffers are smaller, and what a driver splits.
//!
//! [`parse`] sees the first buffer only and refuses a frame whose IP packet ends behind it; here it is looked at
//! again. A TCP segment or UDP datagram of a connection needs nothing but its headers, so it goes on as it came, buffers
//! and all. Whatever else would have to be read or cut to its end is gathered into one large buffer first: first
//! segments, SCTP, datagrams without a checksum, fragments, ICMP, headers that straddle two buffers, and whatever a
//! driver has split near its headers, since an ICMP error quotes more than those. Invariant: no step after this one is given less than it needs, and no frame is sent without its end. Cost: none for frames that are
//! whole; where none can be gathered the reason is [`DropReason::NoBuffer`].

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::drop_reason::DropReason;
use crate::io::{Packet, PacketIo};
use crate::parse::{Flow, L4, Net, Parsed, TcpFlags, parse};
use crate::receive::Origin;
use crate::wire::{Ip, ethernet, ipv4, ipv6, udp};
use crate::worker::Worker;

/// Fewest bytes of the first buffer with which a frame goes on as it came: an error about it quotes no more than
/// fills the smallest MTU of IPv6 (RFC 4443 section 2.4 (c)), behind a tagged Ethernet header.
const QUOTED: usize = 18 + 1280;

impl<I: PacketIo> Worker<I> {
    /// A frame that is not whole and that [`parse`] refused.
    #[cold]
    pub(crate) fn in_pieces(&mut self, mut frame: I::Packet, origin: Origin) {
        let first = frame.bytes();
        let parsed = (first.len() >= QUOTED).then(|| parse_first(first, frame.frame_len())).flatten();
        let parsed = match parsed {
            Some(parsed) => Ok(parsed),
            None if !self.io.gather(&mut frame) => Err(DropReason::NoBuffer),
            None => parse(frame.bytes()),
        };
        let probe = self.fetch_ahead(&parsed);
        match parsed {
            Ok(parsed) => self.dispatch(frame, &parsed, probe, origin),
            Err(reason) => self.unreadable(frame, reason),
        }
    }
}

/// What a frame of `len` bytes is whose first buffer holds `first`, if that is all that its way through the director
/// takes. `None`: not so, or it is not as it should be.
fn parse_first(first: &[u8], len: usize) -> Option<Parsed> {
    let ethernet::Ethernet { vlan, l3, ethertype } = ethernet::parse(first).ok()?;
    let packet = first.get(usize::from(l3)..)?;
    let len = len.checked_sub(usize::from(l3))?;
    let net = match ethertype {
        ethernet::ETHERTYPE_IPV4 => {
            let ip: Ip<Ipv4Addr> = ipv4::parse_within(packet, len).ok()?;
            Net::Flow4(flow(&ip, l3, packet)?)
        }
        ethernet::ETHERTYPE_IPV6 => {
            let ip: Ip<Ipv6Addr> = ipv6::parse_within(packet, len).ok()?;
            Net::Flow6(flow(&ip, l3, packet).filter(|flow| !flow.src.is_unspecified())?)
        }
        _ => return None,
    };
    Some(Parsed { vlan, l3, net })
}

fn flow<A: Copy>(ip: &Ip<A>, l3: u16, packet: &[u8]) -> Option<Flow<A>> {
    let payload = packet.get(usize::from(ip.header_len)..)?;
    let protocol = L4::of(ip.protocol)?;
    match protocol {
        // what answers a segment without ACK counts its bytes
        L4::Tcp => {
            Flow::parse(ip, l3, protocol, payload).ok().filter(|flow| flow.tcp_flags.any(TcpFlags::ACK))
        }
        L4::Udp => {
            let mut header = *payload.first_chunk::<{ udp::HEADER_LEN }>()?;
            let len = u16::from_be_bytes([header[4], header[5]]);
            if len > ip.ip_len - ip.header_len || header[6..] == [0, 0] {
                return None;
            }
            // the datagram's length was checked against the packet's: the header alone is parsed as one without data
            let empty = (udp::HEADER_LEN as u16).min(len);
            header[4..6].copy_from_slice(&empty.to_be_bytes());
            Flow::parse(ip, l3, protocol, &header).ok()
        }
        L4::Sctp => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::frame;
    use proptest::prelude::*;

    /// What a buffer of every size makes of a frame: the same as the whole frame does, or nothing.
    fn agrees(bytes: &[u8]) -> usize {
        let whole = parse(bytes).ok();
        let seen: Vec<_> =
            (0..=bytes.len()).filter_map(|first| parse_first(&bytes[..first], bytes.len())).collect();
        assert!(seen.iter().all(|parsed| Some(*parsed) == whole), "{bytes:02x?}");
        seen.len()
    }

    #[test]
    fn the_first_buffer_tells_what_the_whole_frame_is() {
        for (name, header_end) in [("tcp4", 54), ("tcp6", 74), ("udp4", 42), ("udp6", 62)] {
            let bytes = frame(name);
            let is_syn = name.starts_with("tcp") && bytes[header_end - 7] & 0x10 == 0;
            assert_eq!(agrees(&bytes) > 0, !is_syn, "{name}");
        }
    }

    #[test]
    fn a_frame_that_ends_before_its_packet_does_is_nothing() {
        let mut bytes = frame("udp4");
        let len = bytes.len();
        assert!(parse_first(&bytes[..42], len).is_some());
        let ip_end = 14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        assert_eq!(parse_first(&bytes[..42], ip_end - 1), None);
        bytes[40..42].fill(0);
        assert_eq!(parse_first(&bytes[..42], len), None, "without a checksum");
    }

    proptest! {
        #[test]
        fn damaged_frames_are_never_more_than_what_the_parser_makes_of_them(
            which in 0..4_usize,
            damage in proptest::collection::vec((0..80_usize, any::<u8>()), 0..4),
        ) {
            let mut bytes = frame(["tcp4", "tcp6", "udp4", "udp6"][which]);
            for (at, byte) in damage {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            agrees(&bytes);
        }
    }
}

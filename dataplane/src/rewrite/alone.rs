//! A segment of the director's own in a client's name: its headers, with other data or none.

use arrayvec::ArrayVec;

use super::address::Address;
use super::proxy;
use crate::parse::{Flow, L4};
use crate::wire::{PROTOCOL_TCP, checksum, ipv4, ipv6, tcp};

/// Longest TCP header, bytes (RFC 9293 section 3.1).
const MAX_TCP: usize = 60;
/// Longest packet, bytes.
const MAX: usize = ipv6::HEADER_LEN + MAX_TCP + proxy::MAX_LEN;

/// An IP packet without options or extension headers.
pub type Alone = ArrayVec<u8, MAX>;

/// What such a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Say<'a> {
    /// Its sequence number.
    pub seq: u32,
    /// Its control bits.
    pub flags: u8,
    /// Its data, at most [`proxy::MAX_LEN`] bytes.
    pub data: &'a [u8],
}

/// The packet of a segment of `flow` or of its first fragment, whose IP header is at `l3`, whole and with this number,
/// these flags and this data; all else that its headers say stays, TCP's options too. Checksums are computed anew.
///
/// `None`: not TCP, or cut short.
pub fn alone<A: Address>(frame: &[u8], l3: u16, flow: &Flow<A>, say: Say<'_>) -> Option<Alone> {
    let ip = frame.get(usize::from(l3)..)?;
    let segment = frame.get(usize::from(flow.l4)..).filter(|_| flow.protocol == L4::Tcp)?;
    let header_len = usize::from(*segment.get(12)? >> 4) * 4;
    let mut header = ArrayVec::<u8, MAX_TCP>::new();
    header.try_extend_from_slice(segment.get(..header_len)?).ok()?;
    let fields = header.first_chunk_mut::<{ tcp::HEADER_LEN }>()?;
    fields[4..8].copy_from_slice(&say.seq.to_be_bytes());
    fields[13] = say.flags;
    // the checksum, and where urgent data would end
    fields[16..20].fill(0);
    let len = header_len + say.data.len();
    let mut packet = Alone::new();
    let pseudo = match A::CHECKSUM {
        Some(_) => {
            let mut ip = *ip.first_chunk::<{ ipv4::HEADER_LEN }>()?;
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&((ipv4::HEADER_LEN + len) as u16).to_be_bytes());
            // of flags and offset only DF
            ip[6] &= 0x40;
            ip[7] = 0;
            ip[10..12].fill(0);
            let sum = checksum::finish(checksum::add(0, &ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.try_extend_from_slice(&ip).ok()?;
            checksum::pseudo_header(&ip[12..16], &ip[16..20], PROTOCOL_TCP, len)
        }
        None => {
            let mut ip = *ip.first_chunk::<{ ipv6::HEADER_LEN }>()?;
            ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            ip[6] = PROTOCOL_TCP;
            packet.try_extend_from_slice(&ip).ok()?;
            checksum::pseudo_header(&ip[8..24], &ip[24..40], PROTOCOL_TCP, len)
        }
    };
    // the header is a whole number of words: data may end at any byte
    let sum = checksum::finish(checksum::add(checksum::add(pseudo, &header), say.data));
    header.first_chunk_mut::<{ tcp::HEADER_LEN }>()?[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.try_extend_from_slice(&header).ok()?;
    packet.try_extend_from_slice(say.data).ok()?;
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Net, parse};
    use crate::rewrite::samples::{flow, segment, sum4};
    use crate::wire::samples::frame;
    use proptest::prelude::*;

    #[test]
    fn headers_stay_but_for_what_is_said() {
        for data in [&b""[..], b"GET", b"even"] {
            let (bytes, before) = segment(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], &[7; 1000]);
            let said = alone(&bytes, 14, &before, Say { seq: 77, flags: 0x18, data }).expect("a segment");
            let after = [&bytes[..14], &said].concat();
            assert!(checksum::is_valid(sum4(&after)));
            let parsed = flow(&after);
            assert_eq!((parsed.tcp_flags.0, usize::from(parsed.ip_len)), (0x18, 52 + data.len()));
            assert_eq!((&after[34..38], &after[38..42]), (&bytes[34..38], &77u32.to_be_bytes()[..]));
            assert_eq!((&after[54..66], &after[66..]), (&bytes[54..66], data));
        }
    }

    #[test]
    fn ipv6_and_other_protocols() {
        let bytes = frame("tcp6");
        let Net::Flow6(before) = parse(&bytes).unwrap().net else { panic!() };
        let said = alone(&bytes, 14, &before, Say { seq: 7, flags: 0x18, data: b"abc" }).expect("a segment");
        let after = [&bytes[..14], &said].concat();
        let Net::Flow6(parsed) = parse(&after).unwrap().net else { panic!() };
        assert_eq!((parsed.src, parsed.dst, parsed.src_port), (before.src, before.dst, before.src_port));
        let pseudo = checksum::pseudo_header(&after[22..38], &after[38..54], 6, after.len() - 54);
        assert!(checksum::is_valid(checksum::add(pseudo, &after[54..])));
        let udp = frame("udp4");
        assert_eq!(alone(&udp, 14, &flow(&udp), Say { seq: 7, flags: 0x18, data: b"abc" }), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..120), l3 in 0u16..90, l4 in 0u16..90, len in 0usize..70) {
            let (_, flow) = segment(&[], &[]);
            alone(&bytes, l3, &Flow { l4, ..flow }, Say { seq: 1, flags: 2, data: &vec![3; len] });
        }
    }
}

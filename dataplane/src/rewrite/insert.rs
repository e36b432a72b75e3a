//! Bytes put into a packet: its lengths and its IP checksum brought along.

use super::address::Delta;
use crate::io::Packet;
use crate::wire::{ethernet, ipv4, ipv6};

/// Puts `bytes`, an even number, at offset `at` of the frame, behind the IP header at `l3`.
///
/// What is before `at` keeps its offset from the start of the frame. Gives what the bytes and the length of the
/// pseudo header change in a checksum. `None`: no room in front, or too long for IP; unchanged.
pub(super) fn insert<P: Packet>(packet: &mut P, l3: usize, at: usize, bytes: &[u8]) -> Option<Delta> {
    let added = u16::try_from(bytes.len()).ok()?;
    let frame = packet.bytes();
    let is_v4 = frame.get(l3)? >> 4 == 4;
    let (field, header_len) = if is_v4 { (l3 + 2, ipv4::HEADER_LEN) } else { (l3 + 4, ipv6::HEADER_LEN) };
    let len = u16::from_be_bytes(*frame.get(field..)?.first_chunk::<2>()?).checked_add(added)?;
    // the parser takes no longer IPv6 packets: their whole length is 16 bits too
    let whole = if is_v4 { Some(len) } else { len.checked_add(ipv6::HEADER_LEN as u16) };
    whole?;
    if l3 < ethernet::HEADER_LEN
        || at < l3 + header_len
        || at > frame.len()
        || !packet.grow_front(bytes.len())
    {
        return None;
    }
    let frame = packet.bytes_mut();
    frame.copy_within(bytes.len()..bytes.len() + at, 0);
    frame.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    let mut header = Delta::default();
    header.replace16(frame, field, len)?;
    if is_v4 {
        header.apply(frame, l3 + 10)?;
    }
    let mut delta = Delta::default();
    delta.add(bytes);
    delta.add(&added.to_be_bytes());
    Some(delta)
}

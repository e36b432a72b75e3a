//! Fragmentation of what is too big for a link and may be cut.
//!
//! An IPv4 packet is cut as a router does it (RFC 791 section 3.2), a fragment again if need be. An IPv6 packet is
//! cut by who sent it (RFC 8200 section 4.5): that is the director for the outer packet of a tunnel, and only such
//! packets come here. Pieces are as large as the link takes, like Linux's.

use crate::io::Packet;
use crate::wire::{checksum, ipv4, ipv6};

/// IPv4's flag that more fragments follow, in the word of flags and offset.
const MORE4: u16 = 0x2000;
/// The fragment offset in that word, in units of 8 bytes.
const OFFSET4: u16 = 0x1fff;
/// Next header value of the fragment header (RFC 8200 section 4.5).
const FRAGMENT6: u8 = 44;
/// Length of the fragment header, bytes.
const FRAGMENT6_LEN: usize = 8;
/// IPv4 options end (RFC 791 section 3.1).
const OPTION_END: u8 = 0;
/// IPv4 option of one byte that does nothing.
const OPTION_NOP: u8 = 1;
/// IPv4 options with this bit are copied into every fragment.
const OPTION_COPIED: u8 = 0x80;

/// How a packet is cut.
///
/// Write the fragments from 1 on into frames of their own, turn the packet itself into the first one by
/// [`Fragments::keep_first`], and send them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    l3: usize,
    header_len: usize,
    /// What is cut, bytes.
    payload: usize,
    /// Payload of every fragment but the last one, bytes: a multiple of 8.
    piece: usize,
    /// The packet's own offset in units of 8 bytes, and whether more of its datagram follow it.
    offset: u16,
    more: bool,
    /// Identification of the IPv6 fragments; IPv4 has its own.
    id6: Option<u32>,
}

impl Fragments {
    /// Largest number of fragments: 65,535 bytes over a link of 1280 bytes, and then some.
    pub const MAX: usize = 64;

    /// Plans how to cut the packet at `l3` for a link that takes `mtu` bytes.
    ///
    /// `id`: another one for every packet; for IPv6. `None`: not IP, or so little fits that more than 64 fragments
    /// were needed.
    pub fn plan(frame: &[u8], l3: u16, mtu: u16, id: u32) -> Option<Self> {
        let l3 = usize::from(l3);
        let packet = frame.get(l3..)?;
        let header = packet.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let (header_len, len, word, id6) = match header[0] >> 4 {
            4 => {
                let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
                (usize::from(header[0] & 15) * 4, len, u16::from_be_bytes([header[6], header[7]]), None)
            }
            6 => {
                let len = ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
                (ipv6::HEADER_LEN, len, 0, Some(id))
            }
            _ => return None,
        };
        let overhead = header_len + if id6.is_some() { FRAGMENT6_LEN } else { 0 };
        let piece = usize::from(mtu).checked_sub(overhead)? & !7;
        let payload = len.checked_sub(header_len)?;
        if header_len < ipv4::HEADER_LEN || len > packet.len() || piece == 0 || payload == 0 {
            return None;
        }
        let (offset, more) = (word & OFFSET4, word & MORE4 != 0);
        let fits = usize::from(offset) * 8 + payload <= usize::from(OFFSET4) * 8 + 7;
        let plan = Self { l3, header_len, payload, piece, offset, more, id6 };
        (fits && plan.count() <= Self::MAX).then_some(plan)
    }

    /// For `payload` bytes behind a header of `header_len` at `l3` that are not in one frame.
    pub(super) fn of(
        l3: usize,
        header_len: usize,
        payload: usize,
        mtu: u16,
        id6: Option<u32>,
    ) -> Option<Self> {
        let overhead = header_len + if id6.is_some() { FRAGMENT6_LEN } else { 0 };
        let piece = usize::from(mtu).checked_sub(overhead)? & !7;
        let plan = Self { l3, header_len, payload, piece, offset: 0, more: false, id6 };
        (piece > 0 && payload > 0 && plan.count() <= Self::MAX).then_some(plan)
    }

    /// How many fragments there are, at least 1.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.piece)
    }

    /// Payload of fragment `n`: where it begins and how long it is.
    pub(super) fn part(&self, n: usize) -> Option<(usize, usize)> {
        let at = n.checked_mul(self.piece)?;
        Some((at, self.payload.checked_sub(at)?.min(self.piece))).filter(|(_, len)| *len > 0)
    }

    /// Length of fragment `n` as a frame, bytes; `None`: there is none.
    pub fn frame_len(&self, n: usize) -> Option<usize> {
        Some(self.l3 + self.overhead() + self.part(n)?.1)
    }

    /// Length of the IP header, bytes.
    pub(super) fn header_len(&self) -> usize {
        self.header_len
    }

    /// What is cut, bytes.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    /// Length of the headers of a fragment, bytes.
    pub(super) fn overhead(&self) -> usize {
        self.header_len + if self.id6.is_some() { FRAGMENT6_LEN } else { 0 }
    }

    /// Gives the headers at the front of `packet`, copied from the whole packet, the fields of fragment `n`.
    pub(super) fn finish(&self, packet: &mut [u8], n: usize) -> Option<()> {
        let (at, len) = self.part(n)?;
        let more = self.more || at + len < self.payload;
        let offset = self.offset + (at / 8) as u16;
        match self.id6 {
            None => {
                let header = packet.get_mut(..self.header_len)?;
                if offset > 0 && self.offset == 0 {
                    drop_options(header.get_mut(ipv4::HEADER_LEN..)?);
                }
                let fixed = header.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
                fixed[2..4].copy_from_slice(&((self.header_len + len) as u16).to_be_bytes());
                fixed[6..8].copy_from_slice(&(offset | if more { MORE4 } else { 0 }).to_be_bytes());
                fixed[10..12].fill(0);
                let sum = checksum::finish(checksum::add(0, header)).to_be_bytes();
                header.get_mut(10..12)?.copy_from_slice(&sum);
            }
            Some(id) => {
                let fixed = packet.first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
                fixed[4..6].copy_from_slice(&((FRAGMENT6_LEN + len) as u16).to_be_bytes());
                let next = std::mem::replace(&mut fixed[6], FRAGMENT6);
                let header = packet.get_mut(ipv6::HEADER_LEN..)?.first_chunk_mut::<FRAGMENT6_LEN>()?;
                let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
                let [c, d, e, f] = id.to_be_bytes();
                *header = [next, 0, a, b, c, d, e, f];
            }
        }
        Some(())
    }

    /// Writes fragment `n` of `frame`, with its Ethernet header, to the front of `out` and gives its length.
    ///
    /// `frame` is as it was when it was planned. `None`: no such fragment, or less room than
    /// [`Fragments::frame_len`].
    pub fn write(&self, frame: &[u8], n: usize, out: &mut [u8]) -> Option<usize> {
        let (at, len) = self.part(n)?;
        let out = out.get_mut(..self.frame_len(n)?)?;
        let headers = self.l3 + self.header_len;
        out.get_mut(..headers)?.copy_from_slice(frame.get(..headers)?);
        let payload = frame.get(headers + at..headers + at + len)?;
        out.get_mut(self.l3 + self.overhead()..)?.copy_from_slice(payload);
        self.finish(out.get_mut(self.l3..)?, n)?;
        Some(out.len())
    }

    /// Turns the planned packet itself into fragment 0. `false`: no room in front for IPv6's fragment header.
    pub fn keep_first<P: Packet>(&self, packet: &mut P) -> bool {
        let Some((_, len)) = self.part(0) else { return false };
        let (headers, more) = (self.l3 + self.header_len, self.overhead() - self.header_len);
        if packet.bytes().len() < headers + len || !packet.set_len(headers + len) || !packet.grow_front(more)
        {
            return false;
        }
        let frame = packet.bytes_mut();
        frame.copy_within(more..more + headers, 0);
        frame.get_mut(self.l3..).and_then(|packet| self.finish(packet, 0)).is_some()
    }
}

/// Blanks the options that only the first fragment carries; the others keep their place, as in Linux.
fn drop_options(mut options: &mut [u8]) {
    while let Some(&kind) = options.first() {
        let len = match kind {
            OPTION_END => return,
            OPTION_NOP => 1,
            _ => usize::from(options.get(1).copied().unwrap_or(0)).max(2),
        };
        let Some((option, rest)) = options.split_at_mut_checked(len) else { return };
        if kind & OPTION_COPIED == 0 {
            option.fill(OPTION_NOP);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests;

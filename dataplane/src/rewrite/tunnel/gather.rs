//! A datagram that came in fragments, through a tunnel.
//!
//! Wrapped one by one, fragments that fill their link would each be cut in two. As IPVS does, the datagram is
//! wrapped as a whole, and the outer packet is cut. It is never in one piece in memory: each outer fragment is
//! written from the frames that hold its bytes.

use arrayvec::ArrayVec;

use super::{Encap, Inner, finish_shim, finish4, finish6};
use crate::fragments::MAX_PARTS;
use crate::io::Packet;
use crate::rewrite::Fragments;
use crate::wire::{checksum, ethernet, ipv4, ipv6};

/// Next header value of the fragment header (RFC 8200 section 4.5), and its length, bytes.
const FRAGMENT6: (u8, usize) = (44, 8);
/// Longest inner IP header, bytes: IPv4 with options.
const MAX_INNER: usize = 60;

/// What goes into a tunnel in place of the fragments of a datagram.
#[derive(Debug)]
pub struct Gather<'a, P> {
    frames: &'a [P],
    /// Where the payload of each frame begins and ends.
    parts: ArrayVec<(usize, usize), MAX_PARTS>,
    l3: usize,
    ethertype: [u8; 2],
    /// Outer IP header, shim, inner IP header.
    head: ArrayVec<u8, { super::MAX_HEAD + MAX_INNER }>,
    cut: Fragments,
    /// Whether it fits the link in one packet.
    fits: bool,
}

/// What a fragment carries.
struct Part {
    header_len: usize,
    ip_len: usize,
    offset: usize,
    more: bool,
    /// Where the payload begins, from the IP header.
    begin: usize,
}

/// `None`: no fragment, or an IPv6 one with other extension headers before its fragment header.
fn read(packet: &[u8]) -> Option<Part> {
    let fixed = packet.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let word = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk::<2>()?));
    let part = if fixed[0] >> 4 == 4 {
        let (header_len, flags) = (usize::from(fixed[0] & 15) * 4, word(fixed, 6)?);
        let (ip_len, offset) = (usize::from(word(fixed, 2)?), usize::from(flags & 0x1fff) * 8);
        Part { header_len, ip_len, offset, more: flags & 0x2000 != 0, begin: header_len }
    } else {
        let (header_len, flags) = (ipv6::HEADER_LEN, word(packet, ipv6::HEADER_LEN + 2)?);
        let ip_len = header_len + usize::from(word(fixed, 4)?);
        let offset = usize::from(flags & 0xfff8);
        (fixed[6] == FRAGMENT6.0).then_some(Part {
            header_len,
            ip_len,
            offset,
            more: flags & 1 != 0,
            begin: header_len + FRAGMENT6.1,
        })?
    };
    let is_sound =
        part.header_len >= ipv4::HEADER_LEN && part.begin < part.ip_len && part.ip_len <= packet.len();
    is_sound.then_some(part)
}

/// The inner header of the datagram of `total` bytes: that of the first fragment, as if it had been whole.
fn whole_header(packet: &[u8], first: &Part, total: usize) -> Option<ArrayVec<u8, MAX_INNER>> {
    let mut header = ArrayVec::new();
    header.try_extend_from_slice(packet.get(..first.header_len)?).ok()?;
    if header.first()? >> 4 == 4 {
        let len = u16::try_from(first.header_len + total).ok()?;
        header.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
        let df = header.get(6)? & 0x40;
        header.get_mut(6..8)?.copy_from_slice(&[df, 0]);
        header.get_mut(10..12)?.fill(0);
        let sum = checksum::finish(checksum::add(0, &header));
        header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    } else {
        header.get_mut(4..6)?.copy_from_slice(&u16::try_from(total).ok()?.to_be_bytes());
        *header.get_mut(6)? = *packet.get(first.header_len)?;
    }
    Some(header)
}

impl<'a, P: Packet> Gather<'a, P> {
    /// Plans what to send in place of `frames`: all fragments of a datagram in order, TTL already taken down.
    ///
    /// `flow_hash` and `id` as for [`encapsulate`](super::encapsulate); of `id` IPv4 takes the lower half. `None`:
    /// not that, or more than fits IP; then each may be wrapped alone.
    pub fn plan(frames: &'a [P], encap: &Encap, flow_hash: u32, id: u32) -> Option<Self> {
        let mut parts = ArrayVec::new();
        let (mut total, mut sum, mut largest, mut more) = (0, 0, 0, true);
        let mut first = None;
        for frame in frames {
            let l3 = usize::from(ethernet::parse(frame.bytes()).ok()?.l3);
            let packet = frame.bytes().get(l3..)?;
            let part = read(packet)?;
            if part.offset != total || !more {
                return None;
            }
            let payload = packet.get(part.begin..part.ip_len)?;
            // all but the last are multiples of 8 bytes long
            sum = checksum::add(sum, payload);
            parts.try_push((l3 + part.begin, l3 + part.ip_len)).ok()?;
            (total, more, largest) = (total + payload.len(), part.more, part.ip_len.max(largest));
            if first.is_none() {
                first = Some((l3, packet, part));
            }
        }
        let (l3, packet, first) = first.filter(|_| !more)?;
        let header = whole_header(packet, &first, total)?;
        let read = Inner::fields(&header)?;
        let fields = Inner { df: read.df && encap.df, ..read };
        let ip_len = encap.ip_len();
        let mut head = ArrayVec::<u8, { super::MAX_HEAD + MAX_INNER }>::new();
        head.try_extend_from_slice(encap.head.get(..usize::from(encap.head_len))?).ok()?;
        let sum = || checksum::add(sum, &header);
        let protocol = finish_shim(head.get_mut(ip_len..)?, encap, &fields, flow_hash, sum)?;
        let stream = usize::from(encap.head_len) - ip_len + fields.len;
        let packet_len = u16::try_from(ip_len + stream).ok()?;
        if encap.outer_v6 {
            finish6(&mut head, &fields, protocol, packet_len - ip_len as u16)?;
        } else {
            finish4(&mut head, &fields, protocol, packet_len, id as u16)?;
        }
        head.try_extend_from_slice(&header).ok()?;
        // as Linux: no outer fragment is larger than the largest that came
        let mtu = encap.link_mtu.min(u16::try_from(largest).ok()?.max(encap.least_mtu()));
        let cut = Fragments::of(l3, ip_len, stream, mtu, encap.outer_v6.then_some(id))?;
        let fits = packet_len <= mtu;
        Some(Self { frames, parts, l3, ethertype: encap.ethertype(), head, cut, fits })
    }

    /// How many frames there are to send.
    pub fn count(&self) -> usize {
        if self.fits { 1 } else { self.cut.count() }
    }

    /// Copies bytes `from` to `from + out.len()` of what is behind the outer IP header.
    fn copy(&self, from: usize, out: &mut [u8], ip_len: usize) -> Option<()> {
        let (mut at, mut out) = (from, out);
        let head = self.head.get(ip_len..)?;
        let mut begin = 0;
        let frames = self.frames.iter().zip(&self.parts).map(|(frame, (b, e))| frame.bytes().get(*b..*e));
        for bytes in std::iter::once(Some(head)).chain(frames) {
            let bytes = bytes?;
            let end = begin + bytes.len();
            if at < end && !out.is_empty() {
                let here = bytes.get(at - begin..)?;
                let len = here.len().min(out.len());
                let (now, later) = out.split_at_mut_checked(len)?;
                now.copy_from_slice(here.get(..len)?);
                (at, out) = (at + len, later);
            }
            begin = end;
        }
        out.is_empty().then_some(())
    }

    /// Writes frame `n`, with the Ethernet header of the first fragment, to the front of `out` and gives its length.
    /// `None`: no such frame, or no room.
    pub fn write(&self, n: usize, out: &mut [u8]) -> Option<usize> {
        let overhead = self.cut.overhead();
        let (ip_len, whole) = (self.cut.header_len(), self.cut.payload());
        let (from, len, headers) = match self.fits {
            true if n == 0 => (0, whole, ip_len),
            true => return None,
            false => self.cut.part(n).map(|(from, len)| (from, len, overhead))?,
        };
        let out = out.get_mut(..self.l3 + headers + len)?;
        let link = self.frames.first()?.bytes().get(..self.l3)?;
        out.get_mut(..self.l3)?.copy_from_slice(link);
        out.get_mut(self.l3 - 2..self.l3)?.copy_from_slice(&self.ethertype);
        let packet = out.get_mut(self.l3..)?;
        packet.get_mut(..ip_len)?.copy_from_slice(self.head.get(..ip_len)?);
        self.copy(from, packet.get_mut(headers..)?, ip_len)?;
        if !self.fits {
            self.cut.finish(packet, n)?;
        }
        Some(out.len())
    }
}

#[cfg(test)]
mod tests;

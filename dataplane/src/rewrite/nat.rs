//! NAT: addresses and ports replaced, checksums brought along.

use super::address::{Address, Delta};
use crate::parse::{Flow, L4};
use crate::wire::{PROTOCOL_UDP, checksum, sctp};

/// Offset of the checksum in a TCP header, bytes (RFC 9293 section 3.1).
const TCP_CHECKSUM: usize = 16;
/// Offset of the length in a UDP header, bytes (RFC 768).
const UDP_LENGTH: usize = 4;
/// Offset of the checksum in a UDP header, bytes (RFC 768).
const UDP_CHECKSUM: usize = 6;

/// What a packet's ends become; `None` stays as it is. Ports in host order.
///
/// NAT inbound replaces `dst` by the server, outbound `src` by the virtual address; full NAT and SNAT the other end
/// too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<A> {
    /// New source address and port.
    pub src: Option<(A, u16)>,
    /// New destination address and port.
    pub dst: Option<(A, u16)>,
}

/// Both ends stay.
impl<A> Default for Translation<A> {
    fn default() -> Self {
        Self { src: None, dst: None }
    }
}

/// The addresses of the header at `l3`, and its own checksum.
#[inline]
pub(super) fn addresses<A: Address>(
    frame: &mut [u8],
    l3: usize,
    src: Option<A>,
    dst: Option<A>,
) -> Option<Delta> {
    let mut delta = Delta::default();
    if let Some(src) = src {
        delta.replace(frame, l3 + A::SRC, src.wire().as_ref())?;
    }
    if let Some(dst) = dst {
        delta.replace(frame, l3 + A::DST, dst.wire().as_ref())?;
    }
    if let Some(at) = A::CHECKSUM {
        delta.apply(frame, l3 + at)?;
    }
    Some(delta)
}

/// The sum of the pseudo header as it is in the frame now.
pub(super) fn pseudo<A: Address>(frame: &[u8], l3: usize, protocol: u8, len: usize) -> Option<u64> {
    // source and destination stand side by side in both families
    let both = frame.get(l3 + A::SRC..l3 + A::DST + (A::DST - A::SRC))?;
    Some(checksum::pseudo_header(both, &[], protocol, len))
}

/// The UDP checksum at `l4`, updated; computed where the sender left it out, as IPVS does.
///
/// A datagram whose end is not in the packet (a first fragment) keeps its zero.
#[inline]
fn udp_checksum<A: Address>(frame: &mut [u8], l3: usize, l4: usize, end: usize, delta: Delta) -> Option<()> {
    let header = frame.get(l4..)?.first_chunk::<8>()?;
    if header[UDP_CHECKSUM..] != [0, 0] {
        if delta.apply(frame, l4 + UDP_CHECKSUM)? == 0 {
            // RFC 768: zero says that there is none
            frame.get_mut(l4 + UDP_CHECKSUM..l4 + UDP_CHECKSUM + 2)?.fill(0xff);
        }
        return Some(());
    }
    let len = usize::from(u16::from_be_bytes([header[UDP_LENGTH], header[UDP_LENGTH + 1]]));
    if l4 + len > end {
        return Some(());
    }
    let sum = checksum::add(pseudo::<A>(frame, l3, PROTOCOL_UDP, len)?, frame.get(l4..l4 + len)?);
    let sum = match checksum::finish(sum) {
        0 => 0xffff,
        sum => sum,
    };
    frame.get_mut(l4 + UDP_CHECKSUM..)?.first_chunk_mut::<2>()?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[inline]
fn rewrite<A: Address>(frame: &mut [u8], l3: usize, flow: &Flow<A>, to: &Translation<A>) -> Option<()> {
    let (l4, end) = (usize::from(flow.l4), l3 + usize::from(flow.ip_len));
    // before the first write: afterwards there is no way back
    let checksum_end = match flow.protocol {
        L4::Tcp => TCP_CHECKSUM + 2,
        L4::Udp if frame.get(l4 + UDP_CHECKSUM..)?.first_chunk()? != &[0, 0] => UDP_CHECKSUM + 2,
        // over all of the packet, to be computed
        L4::Udp | L4::Sctp => end.saturating_sub(l4).max(sctp::HEADER_LEN.min(UDP_CHECKSUM + 2)),
    };
    // the end of a segment, or of a datagram with a checksum, may be in another buffer: it stays as it is
    if frame.len() < l4 + checksum_end || l4 + checksum_end > end || l3 + A::DST + (A::DST - A::SRC) > l4 {
        return None;
    }
    let mut delta = addresses(frame, l3, to.src.map(|end| end.0), to.dst.map(|end| end.0))?;
    if let Some((_, port)) = to.src {
        delta.replace16(frame, l4, port)?;
    }
    if let Some((_, port)) = to.dst {
        delta.replace16(frame, l4 + 2, port)?;
    }
    match flow.protocol {
        L4::Tcp => delta.apply(frame, l4 + TCP_CHECKSUM).map(|_| ()),
        L4::Udp => udp_checksum::<A>(frame, l3, l4, end, delta),
        // addresses are not part of it
        L4::Sctp if changes_port(flow, to) => sctp::seal(frame.get_mut(l4..end)?).then_some(()),
        L4::Sctp => Some(()),
    }
}

pub(super) fn changes_port<A>(flow: &Flow<A>, to: &Translation<A>) -> bool {
    to.src.as_ref().is_some_and(|(_, port)| *port != flow.src_port)
        || to.dst.as_ref().is_some_and(|(_, port)| *port != flow.dst_port)
}

/// Gives a packet of `flow`, whose IP header is at `l3`, other ends.
///
/// Checksums are updated (RFC 1624), so that a wrong one stays wrong; a UDP checksum that the sender left out is
/// computed and the CRC of SCTP is computed when a port changes, both as IPVS does. `false`: the frame does not hold
/// `flow`, unchanged. Cost: no more than the headers, but for those two.
#[inline]
pub fn translate<A: Address>(frame: &mut [u8], l3: u16, flow: &Flow<A>, to: &Translation<A>) -> bool {
    rewrite(frame, usize::from(l3), flow, to).is_some()
}

/// [`translate`] for the first fragment of a datagram.
///
/// A UDP checksum that the sender left out stays out. `false` also for SCTP when a port changes: its CRC is over
/// bytes that are not here.
pub fn translate_first<A: Address>(frame: &mut [u8], l3: u16, flow: &Flow<A>, to: &Translation<A>) -> bool {
    if flow.protocol == L4::Sctp && changes_port(flow, to) {
        return false;
    }
    rewrite(frame, usize::from(l3), flow, to).is_some()
}

/// [`translate`] for the later fragments of a datagram: the addresses alone.
pub fn translate_fragment<A: Address>(frame: &mut [u8], l3: u16, to: &Translation<A>) -> bool {
    let l3 = usize::from(l3);
    frame.len() >= l3 + A::DST + (A::DST - A::SRC)
        && addresses(frame, l3, to.src.map(|end| end.0), to.dst.map(|end| end.0)).is_some()
}

#[cfg(test)]
mod tests;

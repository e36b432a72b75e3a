//! A plain frame gets other ends, both at once, which costs no more than one of them.
//!
//! Whatever is done to a connection's packets, they leave as a reply of some tuple would: a client's to the server from
//! where it was sent, or from a local end, a server's to the client from the virtual address. So the tuple alone says
//! what is written.

use super::ends::Ends;
use super::glance::{HEAD4, HEAD6, raw32, raw64};
use crate::conn::{ConnKey, Key4, Key6};
use crate::wire::{PROTOCOL_TCP, checksum};

/// Offset of the checksum in a TCP and in a UDP header.
const TCP_SUM: usize = 16;
const UDP_SUM: usize = 6;

/// What one off the TTL adds to a sum over memory words.
const TTL_STEP: u64 = 0xfffe;

/// Giving other ends to a family's plain frames.
pub(crate) trait Redirect: Ends {
    /// [`Ends::step`], and the packet goes to the client's end of `tuple` from its virtual one. `number`: its protocol.
    ///
    /// The caller has asked [`Redirect::is_summed`]; a frame without room for the headers stays as it is.
    fn redirect(frame: &mut [u8], number: u8, tuple: &Self);

    /// Whether the transport checksum can be updated: a sender of UDP may leave it out.
    #[inline(always)]
    fn is_summed(frame: &[u8], number: u8) -> bool {
        number == PROTOCOL_TCP
            || frame.get(Self::L4_AT + UDP_SUM..Self::L4_AT + UDP_SUM + 2).is_some_and(|sum| sum != [0, 0])
    }
}

/// Two bytes as they lie in memory.
#[inline(always)]
fn raw16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |word| u16::from_le_bytes(*word))
}

#[inline(always)]
fn put<const N: usize, const M: usize>(bytes: &mut [u8; N], at: usize, new: [u8; M]) {
    if let Some(place) = bytes[at..].first_chunk_mut() {
        *place = new;
    }
}

/// Both ports as they lie in a packet that is a reply of `tuple`.
#[inline(always)]
fn ports<K: ConnKey>(tuple: &K) -> u32 {
    u32::from(tuple.vip_port().swap_bytes()) | u32::from(tuple.client_port().swap_bytes()) << 16
}

/// Replaces the ports at `l4` and updates the transport checksum, by them and by what addresses add.
#[inline(always)]
fn transport<const N: usize>(head: &mut [u8; N], l4: usize, number: u8, new: u32, addresses: u64) {
    let old = raw32(head, l4);
    put(head, l4, new.to_le_bytes());
    let delta = addresses + u64::from(!old) + u64::from(new);
    if number == PROTOCOL_TCP {
        let sum = checksum::finish(u64::from(!raw16(head, l4 + TCP_SUM)) + delta);
        put(head, l4 + TCP_SUM, sum.to_le_bytes());
    } else {
        let sum = checksum::finish(u64::from(!raw16(head, l4 + UDP_SUM)) + delta);
        // RFC 768: zero says that there is none
        let sum = if sum == 0 { 0xffff } else { sum };
        put(head, l4 + UDP_SUM, sum.to_le_bytes());
    }
}

impl Redirect for Key4 {
    #[inline(always)]
    fn redirect(frame: &mut [u8], number: u8, tuple: &Self) {
        let Some(head) = frame.first_chunk_mut::<HEAD4>() else { return };
        let (src, dst) = (tuple.vip().octets(), tuple.client().octets());
        let (src, dst) = (u32::from_le_bytes(src), u32::from_le_bytes(dst));
        let old = !raw64(head, 26);
        let delta = (old >> 32) + (old & 0xffff_ffff) + u64::from(src) + u64::from(dst);
        put(head, 26, (u64::from(src) | u64::from(dst) << 32).to_le_bytes());
        // TTL, which is above 1, protocol, checksum
        let word = raw32(head, 22);
        let sum = checksum::finish(u64::from(!(word >> 16) as u16) + delta + TTL_STEP);
        put(head, 22, (word.wrapping_sub(1) & 0xffff | u32::from(sum) << 16).to_le_bytes());
        transport(head, 34, number, ports(tuple), delta);
    }
}

/// A sum of many 64-bit words in 64 bits: the same modulo 0xffff.
#[inline(always)]
fn folded(wide: u128) -> u64 {
    let (sum, over) = (wide as u64).overflowing_add((wide >> 64) as u64);
    let sum = sum.wrapping_add(u64::from(over));
    // room for what is added to it
    (sum >> 32) + (sum & 0xffff_ffff)
}

impl Redirect for Key6 {
    #[inline(always)]
    fn redirect(frame: &mut [u8], number: u8, tuple: &Self) {
        let Some(head) = frame.first_chunk_mut::<HEAD6>() else { return };
        let words = |address: std::net::Ipv6Addr| {
            let bits = address.to_bits().swap_bytes();
            [bits as u64, (bits >> 64) as u64]
        };
        let ([a, b], [c, d]) = (words(tuple.vip()), words(tuple.client()));
        let mut wide = 0_u128;
        for (at, new) in [(22, a), (30, b), (38, c), (46, d)] {
            wide += u128::from(!raw64(head, at)) + u128::from(new);
            put(head, at, new.to_le_bytes());
        }
        head[21] = head[21].wrapping_sub(1);
        transport(head, 54, number, ports(tuple), folded(wide));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::L4;
    use crate::rewrite::Translation;
    use proptest::prelude::*;

    /// As the way does it that replaces one end after the other.
    fn agrees<K: Redirect>(frame: &[u8], number: u8, tuple: K) {
        let (mut one, mut other) = (frame.to_vec(), frame.to_vec());
        let to = Translation {
            src: Some((tuple.vip(), tuple.vip_port())),
            dst: Some((tuple.client(), tuple.client_port())),
        };
        let protocol = if number == PROTOCOL_TCP { L4::Tcp } else { L4::Udp };
        assert_eq!(K::is_summed(&one, number), K::translate(&mut other, protocol, &to));
        if K::is_summed(&one, number) {
            K::redirect(&mut one, number, &tuple);
            assert_eq!(one, other);
        }
    }

    proptest! {
        #[test]
        fn both_ends_at_once_are_one_after_the_other(
            mut frame in prop::collection::vec(any::<u8>(), 54..90),
            ttl in 2_u8..,
            sums in prop_oneof![Just([0, 0]), Just([0xff, 0xff]), any::<[u8; 2]>()],
            tcp: bool,
            ends: (u128, u16, u128, u16),
        ) {
            let number = if tcp { 6 } else { 17 };
            frame[22] = ttl;
            frame[34 + UDP_SUM..36 + UDP_SUM].copy_from_slice(&sums);
            agrees(&frame, number, Key4::new((ends.0 as u32).into(), ends.1, (ends.2 as u32).into(), ends.3));
            frame.resize(90, 7);
            frame[21] = ttl;
            frame[54 + UDP_SUM..56 + UDP_SUM].copy_from_slice(&sums);
            agrees(&frame, number, Key6::new(ends.0.into(), ends.1, ends.2.into(), ends.3));
        }

        #[test]
        fn short_frames_stay_as_they_are(frame in prop::collection::vec(any::<u8>(), 0..54), ends: (u32, u16, u32, u16)) {
            let mut changed = frame.clone();
            Key4::redirect(&mut changed, 17, &Key4::new(ends.0.into(), ends.1, ends.2.into(), ends.3));
            prop_assert_eq!(&changed, &frame);
            Key6::is_summed(&frame, 17);
        }
    }
}

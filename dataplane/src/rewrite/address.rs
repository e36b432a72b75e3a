//! Families as data: where addresses and checksums are; and fields that are replaced under a checksum.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::parse::{Fragment, Net};
use crate::wire::checksum;

/// What the rewriting needs to know of an address family.
pub trait Address: Copy + Eq + Into<IpAddr> {
    /// An address on the wire.
    type Bytes: AsRef<[u8]>;
    /// Offset of the source address in the IP header, bytes.
    const SRC: usize;
    /// Offset of the destination address in the IP header, bytes.
    const DST: usize;
    /// Offset of the header's checksum, bytes; IPv6 has none.
    const CHECKSUM: Option<usize>;
    /// The address as it is on the wire.
    fn wire(self) -> Self::Bytes;
    /// The fragment of this family that a frame is.
    fn fragment(net: &Net) -> Option<&Fragment<Self>>;
}

/// RFC 791 section 3.1.
impl Address for Ipv4Addr {
    type Bytes = [u8; 4];
    const SRC: usize = 12;
    const DST: usize = 16;
    const CHECKSUM: Option<usize> = Some(10);

    #[inline]
    fn wire(self) -> [u8; 4] {
        self.octets()
    }

    fn fragment(net: &Net) -> Option<&Fragment<Self>> {
        if let Net::Fragment4(fragment) = net { Some(fragment) } else { None }
    }
}

/// RFC 8200 section 3.
impl Address for Ipv6Addr {
    type Bytes = [u8; 16];
    const SRC: usize = 8;
    const DST: usize = 24;
    const CHECKSUM: Option<usize> = None;

    #[inline]
    fn wire(self) -> [u8; 16] {
        self.octets()
    }

    fn fragment(net: &Net) -> Option<&Fragment<Self>> {
        if let Net::Fragment6(fragment) = net { Some(fragment) } else { None }
    }
}

/// What replaced fields change in a sum that covers them (RFC 1624 eqn 3: minus the old words, plus the new ones).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delta(u64);

impl Delta {
    /// Replaces the bytes at `at`, which is even from where the sum starts. `None`: past the end, unchanged.
    #[inline]
    pub fn replace(&mut self, frame: &mut [u8], at: usize, new: &[u8]) -> Option<()> {
        let old = frame.get_mut(at..at + new.len())?;
        // minus a word is its complement: as many whole words of ones as `add` reads, minus the old ones
        let ones = new.len().div_ceil(4) as u64 * u64::from(u32::MAX);
        self.0 += ones - checksum::add(0, old) + checksum::add(0, new);
        old.copy_from_slice(new);
        Some(())
    }

    /// Replaces the bytes at `at`, odd or even from where the sum starts, which is the front of `bytes`; at most 8.
    pub fn replace_anywhere(&mut self, bytes: &mut [u8], at: usize, new: &[u8]) -> Option<()> {
        if at & 1 == 0 {
            return self.replace(bytes, at, new);
        }
        // as words they begin with the low half of the one before
        let old = bytes.get_mut(at..at + new.len())?;
        let (mut before, mut after) = ([0; 12], [0; 12]);
        before.get_mut(1..1 + old.len())?.copy_from_slice(old);
        after.get_mut(1..1 + new.len())?.copy_from_slice(new);
        let ones = before.len() as u64 / 4 * u64::from(u32::MAX);
        self.0 += ones - checksum::add(0, &before) + checksum::add(0, &after);
        old.copy_from_slice(new);
        Some(())
    }

    /// Adds words that were not there before, an even number of bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = checksum::add(self.0, bytes);
    }

    /// Replaces a 16-bit field in host order.
    #[inline]
    pub fn replace16(&mut self, frame: &mut [u8], at: usize, new: u16) -> Option<()> {
        self.replace(frame, at, &new.to_be_bytes())
    }

    /// Updates the checksum at `at`; gives it. `None`: past the end.
    #[inline]
    pub fn apply(self, frame: &mut [u8], at: usize) -> Option<u16> {
        let field = frame.get_mut(at..)?.first_chunk_mut::<2>()?;
        let sum = checksum::finish(u64::from(!u16::from_be_bytes(*field)) + self.0);
        *field = sum.to_be_bytes();
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_replaced_under_a_checksum_leave_it_right(
            mut bytes in proptest::collection::vec(any::<u8>(), 40),
            new in proptest::collection::vec(any::<u8>(), 16),
            len in prop_oneof![Just(2usize), Just(4), Just(16)],
            at in 1usize..12,
        ) {
            bytes[..4].copy_from_slice(&[0x45, 0, 0, 0]);
            let sum = checksum::finish(checksum::add(0, &bytes));
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut delta = Delta::default();
            prop_assert!(delta.replace(&mut bytes, 2 * at + 2, &new[..len]).is_some());
            let updated = delta.apply(&mut bytes, 2);
            bytes[2..4].fill(0);
            prop_assert_eq!(updated, Some(checksum::finish(checksum::add(0, &bytes))));
        }
    }

    proptest! {
        #[test]
        fn fields_at_odd_places_are_replaced_too(
            mut bytes in proptest::collection::vec(any::<u8>(), 40),
            new in proptest::collection::vec(any::<u8>(), 8),
            len in 1usize..9,
            at in 4usize..30,
        ) {
            bytes[..4].copy_from_slice(&[0x45, 0, 0, 0]);
            let sum = checksum::finish(checksum::add(0, &bytes));
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            let (len, mut delta) = (if at % 2 == 0 { (len + 1) & !1 } else { len }, Delta::default());
            prop_assert!(delta.replace_anywhere(&mut bytes, at, &new[..len]).is_some());
            let updated = delta.apply(&mut bytes, 2);
            bytes[2..4].fill(0);
            prop_assert_eq!(updated, Some(checksum::finish(checksum::add(0, &bytes))));
        }
    }

    #[test]
    fn what_is_past_the_end_stays_as_it_is() {
        let mut bytes = [7; 6];
        let mut delta = Delta::default();
        assert!(delta.replace(&mut bytes, 4, &[1, 2, 3, 4]).is_none());
        assert!(delta.apply(&mut bytes, 5).is_none());
        assert_eq!(bytes, [7; 6]);
    }
}

//! The Internet checksum (RFC 1071), whole and updated.
//!
//! Sums are kept in host order of the big-endian words that the wire carries, so a result is stored by
//! `to_be_bytes`. Limits: an updated checksum equals the recomputed one unless all summed words are zero, which no
//! header of this house is (its version, type or length is not).

/// Adds `bytes` to `sum`; an odd last byte counts as the high half of a word (RFC 1071 section 1).
///
/// Cost: linear, one load and add for 4 bytes; up to 2^34 bytes cannot overflow.
#[inline]
pub fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0; 4];
    // at most 3 bytes are left, and zeros behind them add nothing
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum to 16 bits in one's complement arithmetic.
#[inline]
pub fn fold(sum: u64) -> u16 {
    // both halves added to themselves crosswise: the carry of the lower one ends up where it belongs
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum that goes into a header whose other words add up to `sum`.
#[inline]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Whether words that include their checksum add up to `sum` as they must.
///
/// Cost: one multiplication; a sum folds to 0xffff when 0xffff divides it, unless it is 0.
#[inline(always)]
pub fn is_valid(sum: u64) -> bool {
    is_multiple(sum) && sum != 0
}

/// [`is_valid`] of a sum that is not 0.
#[inline(always)]
pub fn is_multiple(sum: u64) -> bool {
    /// What 65535 must be multiplied by for 1, modulo 2^64: multiples of 65535 become small, nothing else does.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// Sum of a pseudo header of either family: addresses as bytes, `len` of the upper-layer packet in bytes.
///
/// Source: RFC 8200 section 8.1; the same words in another order as RFC 768's.
#[inline]
pub fn pseudo_header(src: &[u8], dst: &[u8], protocol: u8, len: usize) -> u64 {
    add(add(0, src), dst) + u64::from(protocol) + len as u64
}

/// Updates a checksum after one 16-bit word changed from `old` to `new`.
///
/// Units: all three as read by `from_be_bytes`.
/// Source: RFC 1624 section 3 eqn 3 (RFC 1141's form fails at the two zeros). UDP's zero rule is the caller's (RFC 768).
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The oracle: RFC 1071 section 4.1's loop over 16-bit words.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_section_3_adds_up() {
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4_gives_zero_and_not_ffff() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_sum_is_valid_when_it_folds_to_all_ones() {
        for sum in (0..0x4_0000).chain(0xf_ffff_0000..0x10_0001_0000).chain([u64::MAX, u64::MAX - 0xffff]) {
            assert_eq!(is_valid(sum), fold(sum) == 0xffff, "{sum:#x}");
        }
    }

    #[test]
    fn words_that_add_up_to_minus_zero_have_the_checksum_zero_both_ways() {
        let full = |word: u16| finish(add(0, &[0x45, 0x00, (word >> 8) as u8, word as u8]));
        assert_eq!(full(0xbaff), 0x0000);
        assert_eq!(update(full(0x0000), 0x0000, 0xbaff), 0x0000);
        assert_eq!(update(full(0xbaff), 0xbaff, 0x0000), full(0x0000));
        assert_eq!(update(full(0x0000), 0x0000, 0xffff), full(0xffff));
        assert_eq!(update(full(0xffff), 0xffff, 0x0000), full(0x0000));
    }

    proptest! {
        #[test]
        fn the_fast_sum_equals_the_slow_one(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(finish(add(0, &bytes)), slow(&bytes));
        }

        #[test]
        fn updating_equals_recomputing(
            mut header in proptest::array::uniform20(any::<u8>()),
            at in 1usize..10,
            new in prop_oneof![any::<u16>(), Just(0), Just(0xffff)],
        ) {
            header[0] = 0x45;
            let old = u16::from_be_bytes([header[2 * at], header[2 * at + 1]]);
            let before = slow(&header);
            header[2 * at..2 * at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), slow(&header));
        }

        #[test]
        fn a_packet_that_carries_its_checksum_is_valid_and_one_flipped_bit_is_not(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..100),
            bit in 0usize..800,
        ) {
            bytes[0] = 0;
            bytes[1] = 0;
            let checksum = slow(&bytes).to_be_bytes();
            bytes[..2].copy_from_slice(&checksum);
            prop_assert!(is_valid(add(0, &bytes)));
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_valid(add(0, &bytes)));
        }
    }
}

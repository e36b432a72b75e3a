//! All keys of a line compared at once, without a branch.
//!
//! The one place with vector instructions. SSE2 is part of x86-64; elsewhere, and under miri, the scalar twin works.
//! Measured on an EPYC (Zen 5): see the table suite of lb-bench.

/// Words of a cache line.
pub type Words = [u32; 16];

/// The slots of three that have this client and these ports, a bit each: half of the columns tell nearly all keys
/// apart.
///
/// `line`: six words of something else, three clients, three VIPs, three words of ports, a word of something else.
#[inline(always)]
pub fn alike_of_3(line: &Words, client: u32, ports: u32) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return vector::alike_of_3(line, client, ports);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    scalar::alike_of_3(line, client, ports)
}

/// [`alike_of_3`] of two lines: the slots of the second one from bit 4 on.
#[inline(always)]
pub fn alike_of_two_times_3(first: &Words, second: &Words, client: u32, ports: u32) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return vector::alike_of_two_times_3(first, second, client, ports);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    scalar::alike_of_two_times_3(first, second, client, ports)
}

/// The lanes of 16 bits of two words that are `tag`, a bit each, those of the second word from bit 4 on.
#[inline(always)]
pub fn equal_of_two_times_4(words: [u64; 2], tag: u16) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return vector::equal_of_two_times_4(words, tag);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    scalar::equal_of_two_times_4(words, tag)
}

/// What 16 bytes should be, and the bits of them that count.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Bits that do not count are 0.
    pub value: [u8; 16],
    /// Set where a bit counts.
    pub mask: [u8; 16],
}

/// Whether 16 bytes are as they should be.
#[inline(always)]
pub fn matches(bytes: &[u8; 16], pattern: &Pattern) -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return vector::matches(bytes, pattern);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    scalar::matches(bytes, pattern)
}

/// The slots of four that hold this key under this protocol, a bit each.
///
/// `line`: four clients, four VIPs, four words of ports, four lower halves of entries.
#[inline(always)]
pub fn equal_of_4(line: &Words, key: &[u32; 3], protocol: u8) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return vector::equal_of_4(line, key, protocol);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    scalar::equal_of_4(line, key, protocol)
}

/// The same one word after the other.
pub mod scalar {
    use super::{Pattern, Words};

    /// Twin of [`super::alike_of_3`].
    #[inline(always)]
    pub fn alike_of_3(line: &Words, client: u32, ports: u32) -> u32 {
        let differs = |slot: usize| (line[6 + slot] ^ client) | (line[12 + slot] ^ ports);
        (0..3).fold(0, |mask, slot| mask | u32::from(differs(slot) == 0) << slot)
    }

    /// Twin of [`super::alike_of_two_times_3`].
    #[inline(always)]
    pub fn alike_of_two_times_3(first: &Words, second: &Words, client: u32, ports: u32) -> u32 {
        alike_of_3(first, client, ports) | alike_of_3(second, client, ports) << 4
    }

    /// Twin of [`super::equal_of_two_times_4`].
    #[inline(always)]
    pub fn equal_of_two_times_4(words: [u64; 2], tag: u16) -> u32 {
        let is = |lane: usize| (words[lane / 4] >> (16 * (lane % 4))) as u16 == tag;
        (0..8).fold(0, |mask, lane| mask | u32::from(is(lane)) << lane)
    }

    /// Twin of [`super::matches`].
    #[inline(always)]
    pub fn matches(bytes: &[u8; 16], pattern: &Pattern) -> bool {
        let word = |bytes: &[u8; 16]| u128::from_le_bytes(*bytes);
        word(bytes) & word(&pattern.mask) == word(&pattern.value)
    }

    /// Twin of [`super::equal_of_4`].
    #[inline(always)]
    pub fn equal_of_4(line: &Words, key: &[u32; 3], protocol: u8) -> u32 {
        let differs = |slot: usize| {
            (line[slot] ^ key[0])
                | (line[4 + slot] ^ key[1])
                | (line[8 + slot] ^ key[2])
                | (line[12 + slot] >> 24 ^ u32::from(protocol))
        };
        (0..4).fold(0, |mask, slot| mask | u32::from(differs(slot) == 0) << slot)
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[allow(unsafe_code)]
mod vector {
    use super::{Pattern, Words};
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi8, _mm_cmpeq_epi16, _mm_cmpeq_epi32,
        _mm_loadu_si128, _mm_movemask_epi8, _mm_movemask_ps, _mm_packs_epi16, _mm_packs_epi32,
        _mm_set_epi64x, _mm_set1_epi16, _mm_set1_epi32, _mm_setzero_si128, _mm_srli_epi32, _mm_xor_si128,
    };

    /// Four words from `AT` on.
    #[inline(always)]
    fn load<const AT: usize>(line: &Words) -> __m128i {
        const { assert!(AT + 4 <= 16) };
        // SAFETY: 16 bytes from word AT on lie within the line; the load needs no alignment, and every x86-64 has SSE2.
        unsafe { _mm_loadu_si128(line.as_ptr().add(AT).cast()) }
    }

    #[inline(always)]
    pub fn alike_of_3(line: &Words, client: u32, ports: u32) -> u32 {
        let (clients, all) = (load::<6>(line), load::<12>(line));
        // SAFETY: no memory is touched, and every x86-64 has SSE2.
        unsafe {
            let clients = _mm_cmpeq_epi32(clients, _mm_set1_epi32(client as i32));
            let ports = _mm_cmpeq_epi32(all, _mm_set1_epi32(ports as i32));
            _mm_movemask_ps(_mm_castsi128_ps(_mm_and_si128(clients, ports))) as u32 & 7
        }
    }

    #[inline(always)]
    pub fn alike_of_two_times_3(first: &Words, second: &Words, client: u32, ports: u32) -> u32 {
        let [a, b] = [load::<6>(first), load::<6>(second)];
        let [c, d] = [load::<12>(first), load::<12>(second)];
        // SAFETY: no memory is touched, and every x86-64 has SSE2.
        unsafe {
            let (client, ports) = (_mm_set1_epi32(client as i32), _mm_set1_epi32(ports as i32));
            let first = _mm_and_si128(_mm_cmpeq_epi32(a, client), _mm_cmpeq_epi32(c, ports));
            let second = _mm_and_si128(_mm_cmpeq_epi32(b, client), _mm_cmpeq_epi32(d, ports));
            let lanes = _mm_packs_epi32(first, second);
            _mm_movemask_epi8(_mm_packs_epi16(lanes, lanes)) as u32 & 0x77
        }
    }

    #[inline(always)]
    pub fn equal_of_two_times_4([first, second]: [u64; 2], tag: u16) -> u32 {
        // SAFETY: no memory is touched, and every x86-64 has SSE2.
        unsafe {
            let words = _mm_set_epi64x(second as i64, first as i64);
            let lanes = _mm_cmpeq_epi16(words, _mm_set1_epi16(tag as i16));
            _mm_movemask_epi8(_mm_packs_epi16(lanes, _mm_setzero_si128())) as u32
        }
    }

    #[inline(always)]
    pub fn matches(bytes: &[u8; 16], pattern: &Pattern) -> bool {
        let load = |bytes: &[u8; 16]| {
            // SAFETY: 16 bytes are there; the load needs no alignment, and every x86-64 has SSE2.
            unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
        };
        let (bytes, value, mask) = (load(bytes), load(&pattern.value), load(&pattern.mask));
        // SAFETY: no memory is touched, and every x86-64 has SSE2.
        unsafe {
            let differs = _mm_and_si128(_mm_xor_si128(bytes, value), mask);
            _mm_movemask_epi8(_mm_cmpeq_epi8(differs, _mm_setzero_si128())) == 0xffff
        }
    }

    #[inline(always)]
    pub fn equal_of_4(line: &Words, key: &[u32; 3], protocol: u8) -> u32 {
        equal([load::<0>(line), load::<4>(line), load::<8>(line), load::<12>(line)], key, protocol)
    }

    /// Lanes in which the columns are the key's words and the top byte of the last one the protocol.
    #[inline(always)]
    fn equal(columns: [__m128i; 4], key: &[u32; 3], protocol: u8) -> u32 {
        let [clients, vips, ports, metas] = columns;
        // SAFETY: no memory is touched, and every x86-64 has SSE2.
        unsafe {
            let client = _mm_cmpeq_epi32(clients, _mm_set1_epi32(key[0] as i32));
            let vip = _mm_cmpeq_epi32(vips, _mm_set1_epi32(key[1] as i32));
            let port = _mm_cmpeq_epi32(ports, _mm_set1_epi32(key[2] as i32));
            let protocols = _mm_srli_epi32::<24>(metas);
            let protocol = _mm_cmpeq_epi32(protocols, _mm_set1_epi32(i32::from(protocol)));
            let all = _mm_and_si128(_mm_and_si128(client, vip), _mm_and_si128(port, protocol));
            _mm_movemask_ps(_mm_castsi128_ps(all)) as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 4096 }, ..ProptestConfig::default() })]

        /// Words of one bit, so that whole keys are often equal.
        #[test]
        fn vector_and_scalar_agree(line: Words, key: [u32; 3], protocol: u8, few: bool) {
            let bit = |word: u32| if few { word & 0x0100_0001 } else { word };
            let (line, key) = (line.map(bit), key.map(bit));
            let protocol = if few { protocol & 1 } else { protocol };
            prop_assert_eq!(alike_of_3(&line, key[0], key[2]), scalar::alike_of_3(&line, key[0], key[2]));
            prop_assert_eq!(equal_of_4(&line, &key, protocol), scalar::equal_of_4(&line, &key, protocol));
        }

        #[test]
        fn two_lines_at_once_are_one_after_the_other(lines: [Words; 2], key: [u32; 2], few: bool) {
            let bit = |word: u32| if few { word & 0x0100_0001 } else { word };
            let ([first, second], [client, ports]) = (lines.map(|line| line.map(bit)), key.map(bit));
            prop_assert_eq!(
                alike_of_two_times_3(&first, &second, client, ports),
                scalar::alike_of_two_times_3(&first, &second, client, ports)
            );
        }

        #[test]
        fn tags_of_two_words_are_compared_lane_by_lane(words: [u64; 2], tag: u16, few: bool) {
            let bits = |word: u64| if few { word & 0x8001_8001_8001_8001 } else { word };
            let (words, tag) = (words.map(bits), if few { tag & 0x8001 } else { tag });
            prop_assert_eq!(equal_of_two_times_4(words, tag), scalar::equal_of_two_times_4(words, tag));
        }

        #[test]
        fn bits_that_do_not_count_may_be_anything(value: [u8; 16], mask: [u8; 16], other: [u8; 16], bit in 0usize..128) {
            let masked = std::array::from_fn(|n| value[n] & mask[n]);
            let pattern = Pattern { value: masked, mask };
            let mut bytes: [u8; 16] = std::array::from_fn(|n| masked[n] | other[n] & !mask[n]);
            prop_assert!(matches(&bytes, &pattern) && scalar::matches(&bytes, &pattern));
            bytes[bit / 8] ^= 1 << (bit % 8);
            let counts = mask[bit / 8] >> (bit % 8) & 1 == 1;
            prop_assert_eq!(matches(&bytes, &pattern), !counts);
            prop_assert_eq!(scalar::matches(&bytes, &pattern), !counts);
        }
    }

    #[test]
    fn a_key_is_found_in_its_slot_alone() {
        for slot in 0..4 {
            let mut line = [0; 16];
            for (column, word) in [11, 22, 33, 6 << 24].into_iter().enumerate() {
                line[4 * column + slot] = word;
            }
            assert_eq!(equal_of_4(&line, &[11, 22, 33], 6), 1 << slot);
            assert_eq!(equal_of_4(&line, &[11, 22, 34], 6) | equal_of_4(&line, &[11, 22, 33], 17), 0);
        }
        for slot in 0..3 {
            let mut line = [0; 16];
            (line[6 + slot], line[12 + slot]) = (11, 33);
            assert_eq!(alike_of_3(&line, 11, 33), 1 << slot);
            assert_eq!(alike_of_3(&line, 12, 33) | alike_of_3(&line, 11, 34), 0);
        }
    }
}

//! All keys of a line compared at once, without a branch.
//!
//! The one place with vector instructions. SSE2 is part of x86-64; elsewhere, and under miri, the scalar twin works.
//! What is worth it is done in wider registers where a processor has them: a [`Level`] is the proof that it has.
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

/// The lanes of 16 bits of two words that are `tag`, a bit each, those of the second word from bit 4 on.
#[inline(always)]
pub fn equal_of_two_times_4(words: [u64; 2], tag: u16) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return vector::equal_of_two_times_4(words, tag);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    scalar::equal_of_two_times_4(words, tag)
}

/// What 32 bytes should be, and the bits of them that count.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Bits that do not count may be anything.
    pub value: [u8; 32],
    /// Set where a bit counts.
    pub mask: [u8; 32],
}

/// What instructions there are. A value of such a type is the proof that the processor has them.
pub trait Level: Copy {
    /// Whether 32 bytes are as they should be.
    fn matches(self, bytes: &[u8; 32], pattern: &Pattern) -> bool;

    /// [`alike_of_3`] of two lines: the slots of the second one from bit 4 on.
    fn alike_of_two_times_3(self, first: &Words, second: &Words, client: u32, ports: u32) -> u32;

    /// Whether 32 bytes are the same.
    fn is_same(self, a: &[u8; 32], b: &[u8; 32]) -> bool;
}

/// What every processor has.
#[derive(Clone, Copy, Debug)]
pub struct Every;

impl Level for Every {
    #[inline(always)]
    fn matches(self, bytes: &[u8; 32], pattern: &Pattern) -> bool {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        return vector::matches(bytes, pattern);
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        scalar::matches(bytes, pattern)
    }

    #[inline(always)]
    fn alike_of_two_times_3(self, first: &Words, second: &Words, client: u32, ports: u32) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        return vector::alike_of_two_times_3(first, second, client, ports);
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        scalar::alike_of_two_times_3(first, second, client, ports)
    }

    #[inline(always)]
    fn is_same(self, a: &[u8; 32], b: &[u8; 32]) -> bool {
        scalar::is_same(a, b)
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub use wide::V3;

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

    /// Twin of [`super::Level::alike_of_two_times_3`].
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

    /// Twin of [`super::Level::matches`].
    #[inline(always)]
    #[cfg_attr(all(target_arch = "x86_64", not(miri)), allow(dead_code, reason = "the twin"))]
    pub fn matches(bytes: &[u8; 32], pattern: &Pattern) -> bool {
        bytes.iter().zip(&pattern.value).zip(&pattern.mask).all(|((a, b), mask)| (a ^ b) & mask == 0)
    }

    /// Twin of [`super::Level::is_same`].
    #[inline(always)]
    pub fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
        let words = |bytes: &[u8; 32]| {
            let at = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            [at(0), at(8), at(16), at(24)]
        };
        let (a, b) = (words(a), words(b));
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
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
        _mm_loadu_si128, _mm_movemask_epi8, _mm_movemask_ps, _mm_or_si128, _mm_packs_epi16, _mm_packs_epi32,
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
    pub fn matches(bytes: &[u8; 32], pattern: &Pattern) -> bool {
        let differs = |half: usize| {
            let load = |bytes: &[u8; 32]| {
                // SAFETY: 16 bytes are there from either half on; the load needs no alignment, and every x86-64 has SSE2.
                unsafe { _mm_loadu_si128(bytes.as_ptr().add(16 * (half & 1)).cast()) }
            };
            let (bytes, value, mask) = (load(bytes), load(&pattern.value), load(&pattern.mask));
            // SAFETY: no memory is touched, and every x86-64 has SSE2.
            unsafe { _mm_and_si128(_mm_xor_si128(bytes, value), mask) }
        };
        let (first, second) = (differs(0), differs(1));
        // SAFETY: no memory is touched, and every x86-64 has SSE2.
        unsafe {
            _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_or_si128(first, second), _mm_setzero_si128())) == 0xffff
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

/// In registers of 32 bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[allow(unsafe_code)]
mod wide {
    use super::{Level, Pattern, Words};
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_castsi128_si256, _mm256_castsi256_ps,
        _mm256_cmpeq_epi8, _mm256_cmpeq_epi32, _mm256_inserti128_si256, _mm256_loadu_si256,
        _mm256_movemask_epi8, _mm256_movemask_ps, _mm256_set1_epi32, _mm256_testz_si256, _mm256_xor_si256,
    };

    /// x86-64-v3.
    #[derive(Clone, Copy, Debug)]
    pub struct V3(());

    impl V3 {
        /// # Safety
        /// The processor has AVX2, and the caller is compiled for it.
        #[inline(always)]
        pub unsafe fn new() -> Self {
            Self(())
        }
    }

    #[inline(always)]
    fn load(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: 32 bytes are there; the load needs no alignment, and who has a `V3` has AVX2.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// Four words from `AT` on of both lines.
    #[inline(always)]
    fn both<const AT: usize>(first: &Words, second: &Words) -> __m256i {
        const { assert!(AT + 4 <= 16) };
        // SAFETY: 16 bytes from word AT on lie within each line; the loads need no alignment, and who has a `V3` has AVX2.
        unsafe {
            let low = _mm256_castsi128_si256(_mm_loadu_si128(first.as_ptr().add(AT).cast()));
            _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(second.as_ptr().add(AT).cast()))
        }
    }

    impl Level for V3 {
        #[inline(always)]
        fn matches(self, bytes: &[u8; 32], pattern: &Pattern) -> bool {
            let (bytes, value, mask) = (load(bytes), load(&pattern.value), load(&pattern.mask));
            // SAFETY: no memory is touched, and who has a `V3` has AVX2.
            unsafe { _mm256_testz_si256(_mm256_xor_si256(bytes, value), mask) != 0 }
        }

        #[inline(always)]
        fn alike_of_two_times_3(self, first: &Words, second: &Words, client: u32, ports: u32) -> u32 {
            let (clients, all) = (both::<6>(first, second), both::<12>(first, second));
            // SAFETY: no memory is touched, and who has a `V3` has AVX2.
            unsafe {
                let clients = _mm256_cmpeq_epi32(clients, _mm256_set1_epi32(client as i32));
                let ports = _mm256_cmpeq_epi32(all, _mm256_set1_epi32(ports as i32));
                _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_and_si256(clients, ports))) as u32 & 0x77
            }
        }

        #[inline(always)]
        fn is_same(self, a: &[u8; 32], b: &[u8; 32]) -> bool {
            // SAFETY: no memory is touched, and who has a `V3` has AVX2.
            unsafe { _mm256_movemask_epi8(_mm256_cmpeq_epi8(load(a), load(b))) == -1 }
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
            let each = on_every_level(|level| level.alike_of_two_times_3(&first, &second, client, ports));
            prop_assert!(each.iter().all(|found| *found == scalar::alike_of_two_times_3(&first, &second, client, ports)));
        }

        #[test]
        fn tags_of_two_words_are_compared_lane_by_lane(words: [u64; 2], tag: u16, few: bool) {
            let bits = |word: u64| if few { word & 0x8001_8001_8001_8001 } else { word };
            let (words, tag) = (words.map(bits), if few { tag & 0x8001 } else { tag });
            prop_assert_eq!(equal_of_two_times_4(words, tag), scalar::equal_of_two_times_4(words, tag));
        }

        #[test]
        fn bits_that_do_not_count_may_be_anything(value: [u8; 32], mask: [u8; 32], other: [u8; 32], bit in 0usize..256) {
            let pattern = Pattern { value, mask };
            let mut bytes: [u8; 32] = std::array::from_fn(|n| value[n] & mask[n] | other[n] & !mask[n]);
            prop_assert!(on_every_level(|level| level.matches(&bytes, &pattern)).iter().all(|is| *is));
            prop_assert!(scalar::matches(&bytes, &pattern));
            bytes[bit / 8] ^= 1 << (bit % 8);
            let counts = mask[bit / 8] >> (bit % 8) & 1 == 1;
            prop_assert!(on_every_level(|level| level.matches(&bytes, &pattern)).iter().all(|is| *is != counts));
            prop_assert_eq!(scalar::matches(&bytes, &pattern), !counts);
        }

        #[test]
        fn a_bit_makes_bytes_others(bytes: [u8; 32], bit in 0usize..256) {
            let mut other = bytes;
            prop_assert!(on_every_level(|level| level.is_same(&bytes, &other)).iter().all(|is| *is));
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(on_every_level(|level| level.is_same(&bytes, &other)).iter().all(|is| !*is));
        }
    }

    /// What comes of work on every level that this processor has.
    fn on_every_level<T>(work: impl Fn(Any) -> T) -> Vec<T> {
        let mut all = vec![work(Any::Every(Every))];
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if is_x86_feature_detected!("avx2") {
            #[allow(unsafe_code)]
            // SAFETY: the processor was asked. No safe form: the compiler cannot know that it was.
            all.push(work(Any::V3(unsafe { V3::new() })));
        }
        all
    }

    /// A level that is known when it runs.
    #[derive(Clone, Copy)]
    enum Any {
        Every(Every),
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        V3(V3),
    }

    impl Any {
        fn matches(self, bytes: &[u8; 32], pattern: &Pattern) -> bool {
            match self {
                Self::Every(level) => level.matches(bytes, pattern),
                #[cfg(all(target_arch = "x86_64", not(miri)))]
                Self::V3(level) => level.matches(bytes, pattern),
            }
        }

        fn alike_of_two_times_3(self, first: &Words, second: &Words, client: u32, ports: u32) -> u32 {
            match self {
                Self::Every(level) => level.alike_of_two_times_3(first, second, client, ports),
                #[cfg(all(target_arch = "x86_64", not(miri)))]
                Self::V3(level) => level.alike_of_two_times_3(first, second, client, ports),
            }
        }

        fn is_same(self, a: &[u8; 32], b: &[u8; 32]) -> bool {
            match self {
                Self::Every(level) => level.is_same(a, b),
                #[cfg(all(target_arch = "x86_64", not(miri)))]
                Self::V3(level) => level.is_same(a, b),
            }
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

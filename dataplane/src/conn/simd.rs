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
    use super::Words;

    /// Twin of [`super::alike_of_3`].
    #[inline(always)]
    pub fn alike_of_3(line: &Words, client: u32, ports: u32) -> u32 {
        let differs = |slot: usize| (line[6 + slot] ^ client) | (line[12 + slot] ^ ports);
        (0..3).fold(0, |mask, slot| mask | u32::from(differs(slot) == 0) << slot)
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
    use super::Words;
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_ps,
        _mm_set1_epi32, _mm_srli_epi32,
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

//! Destination and source hashing.
//!
//! Source: IPVS, `ip_vs_dh.c`, `ip_vs_sh.c`; `hash_32` of linux/hash.h. Both tables have 256 buckets, the kernel's
//! default. Of the destination table's none is kept: bucket `b` holds candidate `b` modulo their number.

use std::net::IpAddr;

use lb_config::SchedulerFlags;

use super::{Candidate, Question};

/// Bits of a bucket's number. Source: `IP_VS_DH_TAB_BITS`, `IP_VS_SH_TAB_BITS`.
const BITS: u32 = 8;
/// Buckets.
const BUCKETS: u32 = 1 << BITS;

/// An address in 32 bits: IPv6 words are added without carry. Source: `ip_vs_dh_hashkey` and the like.
pub(super) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            ((bits >> 96) ^ (bits >> 64) ^ (bits >> 32) ^ bits) as u32
        }
    }
}

/// Multiplicative hash of `bits` bits. Source: linux/hash.h, `hash_32`, with `GOLDEN_RATIO_32`.
pub(super) fn hash_32(value: u32, bits: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> (32 - bits)
}

/// The candidate of the address that the client wrote to, whatever its weight; none when that one is not able.
pub fn dh<'a>(question: &Question<'a>) -> Option<&'a Candidate> {
    let bucket = hash_32(fold(question.new.target), BITS) as usize;
    let at = bucket.checked_rem(question.candidates.len())?;
    question.candidates.get(at).filter(|candidate| question.able(candidate))
}

/// Bucket to candidate, for source hashing.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceTable(Box<[u32]>);

impl SourceTable {
    /// Every candidate gets as many buckets in a row as its weight says, at least one, until all are given away.
    pub fn new(weights: &[u32]) -> Self {
        let shares = weights.iter().enumerate().cycle();
        let buckets = shares
            .flat_map(|(at, weight)| std::iter::repeat_n(at as u32, (*weight).clamp(1, BUCKETS) as usize));
        Self(buckets.take(BUCKETS as usize).collect())
    }

    /// The client's candidate. When it is not able: none, or with `flag_1` (sh-fallback) that of the next bucket
    /// which has an able one.
    pub fn pick<'a>(&self, flags: SchedulerFlags, question: &Question<'a>) -> Option<&'a Candidate> {
        let port = if flags.flag_2 { u32::from(question.new.client_port) } else { 0 };
        let hash = hash_32(port.wrapping_add(fold(question.new.client)), BITS);
        let at = |offset: u32| {
            let bucket = (offset + hash) % BUCKETS;
            question.candidates.get(*self.0.get(bucket as usize)? as usize)
        };
        let first = at(0)?;
        if question.able(first) {
            return Some(first);
        }
        if !flags.flag_1 {
            return None;
        }
        // as the kernel counts: on from the bucket's number, not from the bucket
        let offsets = (0..BUCKETS).map(|step| (step + hash) % BUCKETS);
        offsets.filter_map(at).find(|candidate| question.able(candidate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_fold_to_32_bits() {
        assert_eq!(fold("192.168.0.1".parse().unwrap()), 0xc0a8_0001);
        assert_eq!(fold("fd00:c::25:66".parse().unwrap()), 0xfd00_000c ^ 0x0025_0066);
    }

    #[test]
    fn buckets_go_by_weight_in_the_order_of_the_list() {
        let table = SourceTable::new(&[3, 0, 2]);
        assert_eq!(table.0[..12], [0, 0, 0, 1, 2, 2, 0, 0, 0, 1, 2, 2]);
        assert_eq!(table.0.len(), 256);
        assert_eq!(SourceTable::new(&[65_535, 1]).0[255], 0);
        assert!(SourceTable::new(&[]).0.is_empty());
    }
}

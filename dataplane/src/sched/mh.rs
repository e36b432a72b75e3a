//! IPVS's Maglev hashing.
//!
//! Source: IPVS, `ip_vs_mh.c`, with the kernel's default table of 4093 slots and its constant keys, so that any
//! director agrees with any other, and anybody can aim at a server: `maglev` is the scheduler without that weakness.
//! Slots go by the last weight above 0: a drained server keeps its slots, and its clients are refused or, with
//! `flag_1` (mh-fallback), go elsewhere until it is back.

use std::hash::Hasher;
use std::net::IpAddr;

use lb_config::SchedulerFlags;
use siphasher::sip::SipHasher13;

use super::hashed::fold;
use super::{Candidate, Question};

/// Slots: the prime for `CONFIG_IP_VS_MH_TAB_INDEX` 12.
const SLOTS: u32 = 4093;
/// Most bits of a share: half of that index.
const SHARE_BITS: u32 = 6;
/// Keys of the two hashes. Source: `generate_hash_secret`.
const KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];
/// A slot without a server.
const FREE: u32 = u32::MAX;

/// `hsiphash_1u32` of a 64-bit kernel: SipHash-1-3 of the four bytes, its low half.
fn hash(key: u64, value: u32) -> u32 {
    let mut sip = SipHasher13::new_with_keys(key, key);
    sip.write(&value.to_le_bytes());
    sip.finish() as u32
}

/// A server to be given slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Address and port of the server, folded to 32 bits and added: what its permutation is made from.
    pub key: u32,
    /// Its last weight above 0; 0: it never had one and gets no slot.
    pub weight: u32,
}

impl Share {
    /// Of a server in a service of the family of the VIP. As in the kernel an IPv6 address in an IPv4 service counts
    /// by its first word.
    pub fn new(address: IpAddr, port: u16, ipv6_service: bool, weight: u32) -> Self {
        let folded = match address {
            IpAddr::V6(v6) if !ipv6_service => (u128::from(v6) >> 96) as u32,
            address => fold(address),
        };
        Self { key: folded.wrapping_add(u32::from(port)), weight }
    }
}

/// Slot to candidate.
#[derive(Debug, PartialEq, Eq)]
pub struct MhTable(Box<[u32]>);

impl MhTable {
    /// Fills the table: in turn each server takes free slots of its permutation, as many a turn as its share says.
    ///
    /// Cost: about `SLOTS * ln(SLOTS)` steps, on the control core. Of more than 4093 servers those behind get none.
    pub fn new(shares: &[Share]) -> Self {
        let divisor = super::wrr::divisor(shares.iter().map(|share| share.weight));
        let Some(divisor) = std::num::NonZeroU32::new(divisor) else { return Self(Box::default()) };
        let most = shares.iter().map(|share| share.weight).max().unwrap_or_default() / divisor;
        let shift = (u32::BITS - most.leading_zeros()).saturating_sub(SHARE_BITS);
        struct Turn {
            at: u32,
            next: u32,
            skip: u32,
            slots: u32,
        }
        let turn = |(at, share): (usize, &Share)| Turn {
            at: at as u32,
            next: hash(KEYS[0], share.key) % SLOTS,
            skip: hash(KEYS[1], share.key) % (SLOTS - 1) + 1,
            slots: ((share.weight / divisor) >> shift).max(1),
        };
        let mut turns: Vec<Turn> =
            shares.iter().enumerate().filter(|(_, share)| share.weight > 0).map(turn).collect();
        let mut slots = vec![FREE; SLOTS as usize];
        let mut left = SLOTS;
        while left > 0 {
            for turn in &mut turns {
                for _ in 0..turn.slots.min(left) {
                    while slots[turn.next as usize] != FREE {
                        turn.next = (turn.next + turn.skip) % SLOTS;
                    }
                    slots[turn.next as usize] = turn.at;
                    left -= 1;
                }
            }
        }
        Self(slots.into())
    }

    /// The client's candidate. When it is not able: none, or with `flag_1` (mh-fallback) the first able one that the
    /// hash of the client with another offset finds.
    pub fn pick<'a>(&self, flags: SchedulerFlags, question: &Question<'a>) -> Option<&'a Candidate> {
        let port = if flags.flag_2 { u32::from(question.new.client_port) } else { 0 };
        let key = port.wrapping_add(fold(question.new.client));
        let slot = |offset: u32| hash(KEYS[0], key.wrapping_add(offset)) % SLOTS;
        let at = |slot: u32| question.candidates.get(*self.0.get(slot as usize)? as usize);
        let home = slot(0);
        let first = at(home)?;
        if question.able(first) {
            return Some(first);
        }
        // without an able candidate the walk would find nothing
        if !flags.flag_1 || !question.candidates.iter().any(|candidate| question.able(candidate)) {
            return None;
        }
        let offsets = (0..SLOTS).map(|step| (step + home) % SLOTS);
        offsets.filter_map(|offset| at(slot(offset))).find(|candidate| question.able(candidate))
    }
}

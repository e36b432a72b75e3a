//! SYN cookies: what a client said in its SYN, and a proof that it was us who answered, in the number of the answer.
//!
//! | bits of the number | what |
//! |---|---|
//! | 8-31 | SipHash of both ends, the client's number, the time, and the bits below |
//! | 5-7 | largest segment, index in [`MSS`] |
//! | 2-4 | window scale, index in [`SCALE`] |
//! | 1 | SACK |
//! | 0 | the lowest bit of the time, which counts periods of 64 s |
//!
//! So the window scale and SACK need no timestamps, which not every client has; timestamps themselves are not agreed
//! to, as the server's clock is not known yet. A guess hits with a probability of 2^-24. Source: RFC 4987 section
//! 3.6; the layout is that of FreeBSD (`tcp_syncache.c`).

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::conn::{ConnKey, HashKey};

/// Largest segments that a cookie can tell, bytes; others are rounded down.
pub const MSS: [u16; 8] = [216, 536, 1220, 1300, 1360, 1440, 1460, 8960];
/// Window scales that it can tell; others are rounded down, which makes the client's window look smaller.
pub const SCALE: [Option<u8>; 8] = [None, Some(0), Some(2), Some(5), Some(6), Some(7), Some(8), Some(10)];
/// Unit of time in a cookie, ns.
const PERIOD_NS: u64 = 64_000_000_000;
/// How long a cookie holds at most, ns; at least half of it.
pub const LIFETIME_NS: u64 = 2 * PERIOD_NS;

/// What a client offers in its SYN, as far as a cookie can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Largest segment that it takes, bytes.
    pub mss: u16,
    /// By how much its windows are to be shifted, if at all.
    pub scale: Option<u8>,
    /// It takes selective acknowledgments.
    pub sack: bool,
}

impl Offer {
    /// The cookie's bits below the hash, without the time.
    fn bits(&self) -> u32 {
        let mss = MSS.iter().rposition(|mss| *mss <= self.mss).unwrap_or(0);
        // `None` is below every scale
        let scale = SCALE.iter().rposition(|scale| *scale <= self.scale).unwrap_or(0);
        (mss << 5 | scale << 2 | usize::from(self.sack) << 1) as u32
    }

    /// What a cookie tells.
    pub fn of_cookie(cookie: u32) -> Self {
        let at = |shift: u32| (cookie >> shift & 7) as usize;
        Self { mss: MSS[at(5)], scale: SCALE[at(2)], sack: cookie & 2 != 0 }
    }
}

/// Makes cookies and knows its own.
#[derive(Clone, Copy, Debug)]
pub struct Cookies(SipHasher24);

impl Cookies {
    /// With a secret of 128 bits.
    pub fn new(secret: HashKey) -> Self {
        Self(SipHasher24::new_with_keys(secret.0[0], secret.0[1]))
    }

    fn sum<K: ConnKey<Address: Into<IpAddr>>>(&self, ends: &K, number: u32, bits: u32, time: u64) -> u32 {
        let mut bytes = [0; 56];
        let mut put = |at: usize, address: IpAddr| match address {
            IpAddr::V4(v4) => bytes[at..at + 4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes[at..at + 16].copy_from_slice(&v6.octets()),
        };
        put(0, ends.client().into());
        put(16, ends.vip().into());
        bytes[32..34].copy_from_slice(&ends.client_port().to_be_bytes());
        bytes[34..36].copy_from_slice(&ends.vip_port().to_be_bytes());
        bytes[36..40].copy_from_slice(&number.to_be_bytes());
        bytes[40..48].copy_from_slice(&time.to_be_bytes());
        bytes[48..52].copy_from_slice(&bits.to_be_bytes());
        let mut sip = self.0;
        sip.write(&bytes);
        (sip.finish() as u32) << 8 | bits | (time & 1) as u32
    }

    /// The number of the answer to a SYN with `number` and this offer.
    pub fn make<K: ConnKey<Address: Into<IpAddr>>>(
        &self,
        ends: &K,
        number: u32,
        offer: &Offer,
        now_ns: u64,
    ) -> u32 {
        self.sum(ends, number, offer.bits(), now_ns / PERIOD_NS)
    }

    /// What the client offered, if the cookie is one that was made for it not too long ago.
    pub fn check<K: ConnKey<Address: Into<IpAddr>>>(
        &self,
        ends: &K,
        number: u32,
        cookie: u32,
        now_ns: u64,
    ) -> Option<Offer> {
        let now = now_ns / PERIOD_NS;
        // the latest period with this lowest bit
        let time = now.wrapping_sub((now ^ u64::from(cookie)) & 1);
        (self.sum(ends, number, cookie & 0xfe, time) == cookie).then(|| Offer::of_cookie(cookie))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::{Key4, Key6};
    use proptest::prelude::*;

    const COOKIES: HashKey = HashKey([3, 5, 7, 11]);

    fn ends(client: u32, port: u16) -> Key4 {
        Key4::new(client.into(), port, 0xc0a8_9664.into(), 80)
    }

    #[test]
    fn a_cookie_holds_for_its_time_and_its_client() {
        let cookies = Cookies::new(COOKIES);
        let offer = Offer { mss: 1460, scale: Some(7), sack: true };
        for made in [0, 5, PERIOD_NS - 1, PERIOD_NS, 7 * PERIOD_NS + 3] {
            let cookie = cookies.make(&ends(1, 2), 1000, &offer, made);
            let check = |ends, number, at| cookies.check(&ends, number, cookie, at);
            assert_eq!(check(ends(1, 2), 1000, made), Some(offer));
            assert_eq!(check(ends(1, 2), 1000, made + PERIOD_NS), Some(offer));
            assert_eq!(check(ends(1, 2), 1000, made + 2 * PERIOD_NS), None, "too old");
            assert_eq!(check(ends(1, 3), 1000, made), None, "another port");
            assert_eq!(check(ends(2, 2), 1000, made), None, "another client");
            assert_eq!(check(ends(1, 2), 1001, made), None, "another number");
            let other = Cookies::new(HashKey([4, 5, 7, 11]));
            assert_eq!(other.check(&ends(1, 2), 1000, cookie, made), None, "another secret");
        }
        let v6 = Key6::new(5u128.into(), 1, 9u128.into(), 80);
        let cookie = cookies.make(&v6, 7, &offer, 0);
        assert_eq!(cookies.check(&v6, 7, cookie, 0), Some(offer));
        assert_eq!(cookies.check(&Key6::new(6u128.into(), 1, 9u128.into(), 80), 7, cookie, 0), None);
    }

    #[test]
    fn what_cannot_be_told_is_rounded_down() {
        let told = |mss, scale| {
            let offer = Offer::of_cookie(Offer { mss, scale, sack: false }.bits());
            (offer.mss, offer.scale)
        };
        assert_eq!(told(100, None), (216, None));
        assert_eq!(told(1459, Some(0)), (1440, Some(0)));
        assert_eq!(told(1460, Some(1)), (1460, Some(0)));
        assert_eq!(told(u16::MAX, Some(14)), (8960, Some(10)));
        assert_eq!(told(536, Some(9)), (536, Some(8)));
    }

    proptest! {
        #[test]
        fn a_bit_that_was_changed_is_seen(client: u32, port: u16, number: u32, mss: u16, scale in prop::option::of(0u8..15), sack: bool, bit in 0u32..32, now in 0u64..1 << 50) {
            let cookies = Cookies::new(COOKIES);
            let cookie = cookies.make(&ends(client, port), number, &Offer { mss, scale, sack }, now);
            let told = cookies.check(&ends(client, port), number, cookie, now).expect("ours");
            prop_assert!(told.mss <= mss.max(216) && told.scale <= scale && told.sack == sack);
            prop_assert_eq!(cookies.check(&ends(client, port), number, cookie ^ 1 << bit, now), None);
        }
    }
}

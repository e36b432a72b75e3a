//! A TCP connection whose handshake the director did in the server's place: how the two halves fit.
//!
//! The client knows the server by the number of a cookie, the server has its own: what lies between is kept with the
//! pair that leads from the connection's key to its reply's tuple, in the bits where other pairs have a
//! [`Stream`](super::Stream). The client's own numbers are the same on both sides.

use super::entry::Meta;

/// What is kept of such a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splice {
    /// The server was called and has not answered.
    Opening {
        /// The server's number as the client knows it.
        cookie: u32,
        /// The client's window when it proved itself, as in its header; kept in steps of 64 bytes, open stays open.
        window: u16,
    },
    /// Both halves stand.
    Open {
        /// What is added to the server's numbers for the client.
        delta: u32,
        /// The client's windows are shifted left by so much: the server does not scale them.
        to_server: u8,
        /// The server's windows are shifted left by so much, right where it is negative: it scales otherwise than
        /// the client was told. -14 to 14.
        to_client: i8,
    },
}

impl Meta {
    const SPLICED_PAIR: u64 = 1 << 4;
    const SPLICE_OPEN: u64 = 1 << 5;
    const DETAIL: u32 = 6;
    const DETAILS: u16 = (1 << 10) - 1;
    /// Windows are kept without so many of their lower bits.
    const STEP: u32 = 6;
    const NUMBER: u32 = 32;
    /// What a shift is kept with, so that it is not negative.
    const BIAS: i8 = 16;

    /// Of a pair: how its connection was put together, if it was.
    #[inline]
    pub fn splice(self) -> Option<Splice> {
        let word = self.word();
        if word & Self::SPLICED_PAIR == 0 {
            return None;
        }
        let (number, detail) = ((word >> Self::NUMBER) as u32, (word >> Self::DETAIL) as u16 & Self::DETAILS);
        Some(if word & Self::SPLICE_OPEN == 0 {
            Splice::Opening { cookie: number, window: detail << Self::STEP }
        } else {
            let to_client = (detail >> 4) as i8 - Self::BIAS;
            Splice::Open { delta: number, to_server: detail as u8 & 15, to_client }
        })
    }

    /// The same pair with this in place of [`Meta::splice`].
    #[inline]
    pub fn with_splice(self, splice: Splice) -> Self {
        const ALL: u64 = Meta::SPLICED_PAIR
            | Meta::SPLICE_OPEN
            | (Meta::DETAILS as u64) << Meta::DETAIL
            | (u32::MAX as u64) << Meta::NUMBER;
        let (number, detail, open) = match splice {
            Splice::Opening { cookie, window } => {
                (cookie, (window >> Self::STEP).max(u16::from(window != 0)), 0)
            }
            Splice::Open { delta, to_server, to_client } => {
                let shift = to_client.clamp(-14, 14) + Self::BIAS;
                (delta, u16::from(shift as u8) << 4 | u16::from(to_server.min(14)), Self::SPLICE_OPEN)
            }
        };
        Self::of_word(
            self.word() & !ALL
                | Self::SPLICED_PAIR
                | open
                | u64::from(detail) << Self::DETAIL
                | u64::from(number) << Self::NUMBER,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pair_keeps_it_beside_what_else_it_knows(number: u32, window in 0u16..1024, to_server in 0u8..15, to_client in -14i8..15, protocol in 1u8..) {
            let pair = Meta::of_pair(protocol).with_answered();
            prop_assert_eq!(pair.splice(), None);
            let opening = Splice::Opening { cookie: number, window: window << 6 };
            let open = Splice::Open { delta: number, to_server, to_client };
            for splice in [opening, open, opening] {
                let kept = pair.with_splice(open).with_splice(splice);
                prop_assert_eq!((kept.splice(), kept.protocol(), kept.answered()), (Some(splice), protocol, true));
                prop_assert!(!kept.is_pair_proxied());
            }
        }
    }
}

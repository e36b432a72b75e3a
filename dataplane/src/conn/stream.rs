//! A TCP stream that begins for its server with a PROXY header: where it begins, and whether the header has arrived.
//!
//! The server's numbers are the client's plus the header's length, from the header's place on: the first byte after
//! the client's SYN, whose number is the base here. Where that is the server says, in its SYN: so neither a SYN that it
//! refuses nor one sent by somebody else changes anything. Until it acknowledges the whole header every segment from
//! the base carries it again, which makes up for the loss of any packet. Source: haproxy.org, "The PROXY protocol",
//! section 2; RFC 9293 section 3.4.

use super::entry::Meta;
use crate::parse::TcpFlags;

/// Bytes acknowledged from which on no number near the base is meant as that any more: more than any window (RFC 7323
/// section 2.3: 2^30), and half of what signed comparisons can tell.
const FAR: i32 = 1 << 30;

/// What the director knows of such a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Number of the client's first byte; `None`: the server has not answered yet.
    base: Option<u32>,
    /// The server has acknowledged the whole header.
    delivered: bool,
    /// It has acknowledged so much that numbers around the base come round again.
    far: bool,
}

/// What becomes of a segment on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Its number stays. Data that it has would come before the header, or in its place, and does not go on.
    Bare,
    /// Its number grows by the header's length.
    Shifted,
    /// The header comes before its data.
    Headed,
    /// The header goes ahead in a segment of its own, then this one, shifted.
    Ahead,
}

impl Stream {
    /// What it consists of, see [`Stream::of_parts`].
    pub fn parts(self) -> (Option<u32>, bool, bool) {
        (self.base, self.delivered, self.far)
    }

    /// One of these: the number of the client's first byte, whether the header was acknowledged, and so much behind it
    /// that numbers come round again.
    pub fn of_parts((base, delivered, far): (Option<u32>, bool, bool)) -> Self {
        Self { base, delivered, far }
    }

    const DELIVERED: u64 = 1;
    const KNOWN: u64 = 1 << 2;
    const FAR_BIT: u64 = 1 << 3;
    const BASE: u32 = 32;

    /// What becomes of a client's segment.
    #[inline]
    pub fn inbound(self, seq: u32, flags: TcpFlags) -> Inbound {
        let Some(base) = self.base.filter(|_| !flags.any(TcpFlags::SYN)) else { return Inbound::Bare };
        if self.delivered {
            return Inbound::Shifted;
        }
        match seq.wrapping_sub(base) as i32 {
            ..0 => Inbound::Bare,
            1.. => Inbound::Shifted,
            // a reset without a number to acknowledge answers one of the server's segments: of before the header
            0 if !flags.any(TcpFlags::ACK) => Inbound::Bare,
            // the server takes a reset at exactly the number that it expects (RFC 5961 section 3.2)
            0 if flags.any(TcpFlags::RST) => Inbound::Ahead,
            0 => Inbound::Headed,
        }
    }

    /// The stream after a segment of the server; `len`: of the header, bytes.
    #[inline]
    pub fn answered(self, ack: u32, flags: TcpFlags, len: u32) -> Self {
        if !flags.any(TcpFlags::ACK) {
            return self;
        }
        if flags.any(TcpFlags::SYN) {
            // sent again after the header came, it may acknowledge that; another connection begins elsewhere
            let same = self.base.is_some_and(|base| ack.wrapping_sub(base) <= len);
            return if same { self } else { Self { base: Some(ack), delivered: false, far: false } };
        }
        let Some(base) = self.base else { return self };
        let taken = ack.wrapping_sub(base) as i32;
        let delivered = self.delivered || taken >= len as i32;
        Self { delivered, far: self.far || delivered && taken >= FAR, ..self }
    }

    /// The client's number for one of the server's.
    ///
    /// Within the header it is that of the client's first byte: what the client has not sent is never acknowledged.
    #[inline]
    pub fn of_client(self, number: u32, len: u32) -> u32 {
        let Some(base) = self.base else { return number };
        let offset = number.wrapping_sub(base) as i32;
        if self.far || offset >= len as i32 {
            number.wrapping_sub(len)
        } else if offset > 0 {
            base
        } else {
            number
        }
    }
}

impl Meta {
    /// Of a pair: the stream, as it is kept there.
    #[inline]
    pub fn stream(self) -> Stream {
        let word = self.word();
        Stream {
            base: (word & Stream::KNOWN != 0).then_some((word >> Stream::BASE) as u32),
            delivered: word & Stream::DELIVERED != 0,
            far: word & Stream::FAR_BIT != 0,
        }
    }

    /// The same pair with this in place of [`Meta::stream`].
    #[inline]
    pub fn with_stream(self, stream: Stream) -> Self {
        const ALL: u64 =
            Stream::DELIVERED | Stream::KNOWN | Stream::FAR_BIT | (u32::MAX as u64) << Stream::BASE;
        let mut word = self.word() & !ALL | u64::from(stream.base.unwrap_or_default()) << Stream::BASE;
        for (set, bit) in [
            (stream.base.is_some(), Stream::KNOWN),
            (stream.delivered, Stream::DELIVERED),
            (stream.far, Stream::FAR_BIT),
        ] {
            word |= if set { bit } else { 0 };
        }
        Self::of_word(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: u32 = 28;
    const SYN_ACK: TcpFlags = TcpFlags(0x12);
    const RST_ACK: TcpFlags = TcpFlags(0x14);

    fn begun(base: u32) -> Stream {
        Stream::default().answered(base, SYN_ACK, LEN)
    }

    #[test]
    fn every_segment_from_the_base_carries_the_header_until_it_is_acknowledged() {
        for base in [0, 1000, u32::MAX, u32::MAX - 10, 1 << 31] {
            let of = |stream: Stream, n: i32, flags| stream.inbound(base.wrapping_add_signed(n), flags);
            assert_eq!(of(Stream::default(), 0, TcpFlags::ACK), Inbound::Bare, "no answer yet");
            let stream = begun(base);
            for short in 0..LEN {
                assert_eq!(stream.answered(base.wrapping_add(short), TcpFlags::ACK, LEN), stream);
            }
            assert_eq!(of(stream, 0, TcpFlags::ACK), Inbound::Headed);
            assert_eq!(of(stream, 0, RST_ACK), Inbound::Ahead);
            assert_eq!(of(stream, 0, TcpFlags::RST), Inbound::Bare);
            assert_eq!(
                of(stream, -1, TcpFlags::ACK),
                Inbound::Bare,
                "a question whether the server is there"
            );
            assert_eq!(of(stream, 1, TcpFlags::ACK), Inbound::Shifted);
            let delivered = stream.answered(base.wrapping_add(LEN), TcpFlags::ACK, LEN);
            for n in [-1, 0, 1, i32::MAX, i32::MIN] {
                assert_eq!(of(delivered, n, TcpFlags::ACK), Inbound::Shifted);
                assert_eq!(of(delivered, n, TcpFlags::SYN), Inbound::Bare);
            }
            assert_eq!(delivered.answered(base, SYN_ACK, LEN), delivered, "the SYN again");
            assert_eq!(stream.answered(base.wrapping_add(LEN), SYN_ACK, LEN), stream);
            for other in [base.wrapping_add(LEN + 1), base.wrapping_sub(1)] {
                assert_eq!(delivered.answered(other, SYN_ACK, LEN), begun(other));
            }
        }
    }

    #[test]
    fn numbers_come_round_after_four_gigabytes() {
        let base = 5000_u32;
        let mut stream = begun(base);
        assert_eq!([0, 1, 27, 28, 29].map(|n| stream.of_client(base + n, LEN) - base), [0, 0, 0, 0, 1]);
        assert_eq!(stream.of_client(base - 1, LEN), base - 1);
        for step in 0..40_u32 {
            let ack = base.wrapping_add(LEN).wrapping_add(step << 28);
            stream = stream.answered(ack, TcpFlags::ACK, LEN);
            assert_eq!(stream.of_client(ack, LEN), ack.wrapping_sub(LEN), "{step}");
        }
        assert_eq!(stream.of_client(base + 1, LEN), base + 1 - LEN, "the second time round");
    }

    proptest! {
        #[test]
        fn a_pair_keeps_it_beside_what_else_it_knows(base: Option<u32>, delivered: bool, far: bool, number in 1u8..) {
            let stream = Stream { base, delivered, far };
            let meta = Meta::of_pair(number).with_pair_proxied();
            let kept = meta.with_stream(stream);
            prop_assert_eq!((kept.stream(), kept.protocol(), kept.is_pair_proxied()), (stream, number, true));
            prop_assert_eq!(kept.with_stream(Stream::default()), meta);
        }
    }
}

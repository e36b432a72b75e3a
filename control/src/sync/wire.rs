//! Datagrams; see the module for their form.

use super::seal::{Key, SEAL};

const MAGIC: [u8; 4] = *b"SLS1";
/// Length of what is before the body, bytes.
pub const HEAD: usize = 32;
/// Most bytes that a body may have.
pub const MAX_BODY: usize = super::MAX_DATAGRAM - HEAD - SEAL;
/// Most ranges in an acknowledgement.
pub const MAX_RANGES: usize = 32;

/// Numbers of the sessions of sender and receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The sender's.
    pub mine: u64,
    /// The receiver's as the sender knows it, 0: not at all.
    pub yours: u64,
}

/// Datagrams that are missing: the first, and how many.
pub type Range = (u64, u32);

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender is there.
    Hello {
        /// How often it tells of connections again, ms.
        refresh_ms: u32,
        /// The copy of everything that it asks for, 0: none.
        wanted: u32,
    },
    /// Records.
    Records {
        /// Number of the datagram.
        number: u64,
        /// Items.
        body: Vec<u8>,
    },
    /// What has arrived.
    Ack {
        /// All before this.
        next: u64,
        /// What behind it is missing.
        missing: Vec<Range>,
    },
    /// What is missing cannot be had before this number.
    Gone {
        /// The first that can.
        first: u64,
    },
}

/// A datagram.
pub fn emit(ends: Ends, message: &Message, key: &Key) -> Vec<u8> {
    let (kind, number) = match message {
        Message::Hello { .. } => (1, 0),
        Message::Records { number, .. } => (2, *number),
        Message::Ack { next, .. } => (3, *next),
        Message::Gone { first } => (4, *first),
    };
    let mut datagram = Vec::with_capacity(super::MAX_DATAGRAM);
    datagram.extend(MAGIC);
    datagram.extend([kind, 0, 0, 0]);
    for word in [ends.mine, ends.yours, number] {
        datagram.extend(word.to_be_bytes());
    }
    match message {
        Message::Hello { refresh_ms, wanted } => {
            datagram.extend(refresh_ms.to_be_bytes());
            datagram.extend(wanted.to_be_bytes());
        }
        Message::Records { body, .. } => datagram.extend(body),
        Message::Ack { missing, .. } => {
            let missing = missing.get(..MAX_RANGES).unwrap_or(missing);
            datagram.push(missing.len() as u8);
            for (first, count) in missing {
                datagram.extend(first.to_be_bytes());
                datagram.extend(count.to_be_bytes());
            }
        }
        Message::Gone { .. } => {}
    }
    key.seal(&mut datagram);
    datagram
}

/// What a datagram says; `None`: it was not made with the key, or not by this protocol.
pub fn parse(datagram: &[u8], key: &Key) -> Option<(Ends, Message)> {
    let text = key.open(datagram)?;
    let (head, body) = text.split_first_chunk::<HEAD>()?;
    let (start, words) = head.split_first_chunk::<8>()?;
    let [a, b, c, d, kind, 0, 0, 0] = *start else { return None };
    if [a, b, c, d] != MAGIC {
        return None;
    }
    let [mine, yours, number] = *words.as_chunks::<8>().0 else { return None };
    let [mine, yours, number] = [mine, yours, number].map(u64::from_be_bytes);
    let message = match kind {
        1 => {
            let (refresh, wanted) = <&[u8; 8]>::try_from(body).ok()?.split_first_chunk::<4>()?;
            let wanted = <[u8; 4]>::try_from(wanted).ok()?;
            Message::Hello { refresh_ms: u32::from_be_bytes(*refresh), wanted: u32::from_be_bytes(wanted) }
        }
        2 => Message::Records { number, body: body.to_vec() },
        3 => {
            let (count, ranges) = body.split_first()?;
            let (ranges, []) = ranges.as_chunks::<12>() else { return None };
            if ranges.len() != usize::from(*count) || ranges.len() > MAX_RANGES {
                return None;
            }
            let range = |bytes: &[u8; 12]| {
                let (first, count) = bytes.split_first_chunk::<8>()?;
                Some((u64::from_be_bytes(*first), u32::from_be_bytes(<[u8; 4]>::try_from(count).ok()?)))
            };
            Message::Ack { next: number, missing: ranges.iter().filter_map(range).collect() }
        }
        4 if body.is_empty() => Message::Gone { first: number },
        _ => return None,
    };
    Some((Ends { mine, yours }, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<(u32, u32)>().prop_map(|(refresh_ms, wanted)| Message::Hello { refresh_ms, wanted }),
            (any::<u64>(), prop::collection::vec(any::<u8>(), 0..MAX_BODY))
                .prop_map(|(number, body)| Message::Records { number, body }),
            (any::<u64>(), prop::collection::vec(any::<(u64, u32)>(), 0..MAX_RANGES))
                .prop_map(|(next, missing)| Message::Ack { next, missing }),
            any::<u64>().prop_map(|first| Message::Gone { first }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(message in message(), mine: u64, yours: u64) {
            let (key, ends) = (Key::new(b"0123456789abcdef").unwrap(), Ends { mine, yours });
            let datagram = emit(ends, &message, &key);
            prop_assert!(datagram.len() <= super::super::MAX_DATAGRAM);
            prop_assert_eq!(parse(&datagram, &key), Some((ends, message)));
        }

        #[test]
        fn no_bytes_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            let key = Key::new(b"0123456789abcdef").unwrap();
            let _ = parse(&bytes, &key);
            // who knows the key may still write nonsense
            for (place, byte) in bytes.iter_mut().zip([b'S', b'L', b'S', b'1', kind, 0, 0, 0]) {
                *place = byte;
            }
            key.seal(&mut bytes);
            let _ = parse(&bytes, &key);
        }
    }
}

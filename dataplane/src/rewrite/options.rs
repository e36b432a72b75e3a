//! The options of a TCP header.

use crate::wire::tcp;

/// RFC 9293 section 3.2: end of the option list.
const END: u8 = 0;
/// RFC 9293 section 3.2: one byte of padding.
pub(super) const NOP: u8 = 1;

/// Offset of the first option at or behind `from` in `header`, a TCP header with its options, and what is there:
/// kind, and length with kind and length. `None`: the list ends, or is broken.
fn next(header: &[u8], from: usize) -> Option<(usize, u8, usize)> {
    let mut at = from;
    loop {
        match *header.get(at)? {
            END => return None,
            NOP => at += 1,
            kind => {
                let len = usize::from(*header.get(at + 1)?);
                return (len >= 2 && at + len <= header.len()).then_some((at, kind, len));
            }
        }
    }
}

/// Every option but padding: its offset, kind and length.
pub(super) fn all(header: &[u8]) -> impl Iterator<Item = (usize, u8, usize)> + '_ {
    let mut from = tcp::HEADER_LEN;
    std::iter::from_fn(move || {
        let found = next(header, from)?;
        from = found.0 + found.2;
        Some(found)
    })
}

/// Offset of the value of the first option of this kind and length.
pub(super) fn find(header: &[u8], kind: u8, len: usize) -> Option<usize> {
    all(header).find(|(_, k, l)| (*k, *l) == (kind, len)).map(|(at, ..)| at + 2)
}

/// The TCP header at `l4` with its options, which begins `segment`.
pub(super) fn header(frame: &mut [u8], l4: usize) -> Option<&mut [u8]> {
    let segment = frame.get_mut(l4..)?;
    let len = usize::from(*segment.get(12)? >> 4) * 4;
    segment.get_mut(..len).filter(|header| header.len() >= tcp::HEADER_LEN)
}

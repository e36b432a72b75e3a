//! Packet buffers laid out as DPDK's: two cache lines of description, headroom, room for a frame; in one piece of
//! memory, 2304 bytes apart. So what a cold buffer costs in caches and TLB is what it costs in an mbuf.

use lb_dataplane::io::{DeviceId, Packet};

/// Room in front of a new frame, bytes (DPDK: `RTE_PKTMBUF_HEADROOM`).
const HEADROOM: usize = 128;
/// Room for headroom and frame, bytes (DPDK: `RTE_MBUF_DEFAULT_BUF_SIZE`).
const SIZE: usize = HEADROOM + 2048;

/// A buffer in memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Buffer {
    tag: u64,
    start: u16,
    end: u16,
    /// The rest of an mbuf's two lines.
    rest: [u8; 116],
    bytes: [u8; SIZE],
}

const _: () = assert!(size_of::<Buffer>() == 2304);

/// A frame in a buffer; one pointer wide, as a pointer to an mbuf is.
#[derive(Debug)]
pub struct Buf(&'static mut Buffer);

impl Buf {
    /// `n` empty buffers. They live as long as the process: make a pool once and pass it on.
    pub fn pool(n: usize) -> Vec<Self> {
        let empty = Buffer { tag: 0, start: 0, end: 0, rest: [0; 116], bytes: [0; SIZE] };
        vec![empty; n].leak().iter_mut().map(Self).collect()
    }

    /// Makes it a frame of `N` bytes behind the usual headroom, to be written by the caller, and remembers `tag`.
    #[inline]
    pub fn reset<const N: usize>(&mut self, tag: u64) -> &mut [u8; N] {
        const { assert!(N <= SIZE - HEADROOM) };
        let buffer = &mut *self.0;
        (buffer.tag, buffer.start, buffer.end) = (tag, HEADROOM as u16, (HEADROOM + N) as u16);
        match buffer.bytes[HEADROOM..].first_chunk_mut() {
            Some(bytes) => bytes,
            None => unreachable!("a frame of N bytes fits, as asserted"),
        }
    }

    /// What [`Buf::reset`] was given.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.0.tag
    }
}

impl Packet for Buf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0.bytes[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline(always)]
    fn prefetch(&self) {
        lb_dataplane::prefetch::place(&self.0.bytes, usize::from(self.0.start));
    }

    #[inline]
    fn grow_front(&mut self, n: usize) -> bool {
        let room = usize::from(self.0.start) >= n;
        self.0.start -= if room { n as u16 } else { 0 };
        room
    }

    #[inline]
    fn shrink_front(&mut self, n: usize) -> bool {
        let long = usize::from(self.0.end - self.0.start) >= n;
        self.0.start += if long { n as u16 } else { 0 };
        long
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> bool {
        let end = usize::from(self.0.start) + len;
        let room = end <= SIZE;
        self.0.end = if room { end as u16 } else { self.0.end };
        room
    }

    #[inline]
    fn device(&self) -> DeviceId {
        DeviceId(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_to_the_front_and_keeps_its_bytes() {
        let mut buf = Buf::pool(1).remove(0);
        buf.reset::<60>(7).fill(9);
        assert!(
            buf.grow_front(128) && !buf.grow_front(1) && buf.bytes().len() == 188 && buf.bytes()[128] == 9
        );
        assert!(buf.shrink_front(188) && !buf.shrink_front(1) && buf.bytes().is_empty());
        assert!(buf.set_len(1988) && !buf.set_len(1989) && buf.tag() == 7);
    }
}

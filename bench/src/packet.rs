//! Packet buffers laid out as DPDK's: two cache lines of description, headroom, room for a frame; in one piece of
//! memory, 2304 bytes apart. So what a cold buffer costs in caches and TLB is what it costs in an mbuf.

use std::cell::RefCell;
use std::rc::Rc;

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

/// Free buffers of a port on one thread.
pub type Pool = Rc<RefCell<Vec<Buf>>>;

/// A buffer that goes back to its pool, whoever drops it.
#[derive(Debug)]
pub struct Lent {
    /// `None`: it is on its way back.
    buf: Option<Buf>,
    pool: Pool,
}

impl Lent {
    /// A buffer of the pool; what is in it is of its last use. `None`: all are out.
    pub fn take(pool: &Pool) -> Option<Self> {
        let buf = pool.borrow_mut().pop()?;
        Some(Self { buf: Some(buf), pool: pool.clone() })
    }

    /// Gives it back to its pool, which the caller has at hand.
    #[inline]
    pub fn give_back(mut self, pool: &mut Vec<Buf>) {
        pool.extend(self.buf.take());
    }

    /// Has its frame written.
    pub fn write(&mut self, write: impl FnOnce(&mut Buf)) {
        if let Some(buf) = self.buf.as_mut() {
            write(buf);
        }
    }

    /// What [`Buf::reset`] was given.
    pub fn tag(&self) -> u64 {
        self.buf.as_ref().map_or(0, Buf::tag)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take() {
            self.pool.borrow_mut().push(buf);
        }
    }
}

impl Packet for Lent {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], |buf| buf.bytes())
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.buf.as_mut().map_or(&mut [], |buf| buf.bytes_mut())
    }

    fn grow_front(&mut self, n: usize) -> bool {
        self.buf.as_mut().is_some_and(|buf| buf.grow_front(n))
    }

    fn shrink_front(&mut self, n: usize) -> bool {
        self.buf.as_mut().is_some_and(|buf| buf.shrink_front(n))
    }

    fn set_len(&mut self, len: usize) -> bool {
        self.buf.as_mut().is_some_and(|buf| buf.set_len(len))
    }

    fn device(&self) -> DeviceId {
        DeviceId(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lent_buffer_comes_back_however_it_goes() {
        let pool: Pool = Rc::new(RefCell::new(Buf::pool(2)));
        let mut lent = Lent::take(&pool).unwrap();
        lent.write(|buf| buf.reset::<60>(5).fill(1));
        assert_eq!((lent.tag(), lent.bytes().len(), pool.borrow().len()), (5, 60, 1));
        let other = Lent::take(&pool);
        assert!(other.is_some() && Lent::take(&pool).is_none());
        drop((lent, other));
        assert_eq!(pool.borrow().len(), 2);
    }

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

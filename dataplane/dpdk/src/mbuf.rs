//! A packet buffer that is owned: dropping it frees it.
//!
//! Invariant: an [`Mbuf`] is a chain of one or more segments with one owner; in each of them the `data_len`
//! bytes at `buf_addr + data_off` lie within the buffer, and `pkt_len` of the first is the sum of all `data_len`. The fields of `struct rte_mbuf` are read and written at the offsets that the C compiler gave for the
//! installed DPDK, since the way to name them differs between 22.11 and 24.11.

use std::fmt;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys as sys;
use lb_dataplane::io::{DeviceId, Packet};

/// `mbuf.port` of a buffer that no device received. Source: `RTE_MBUF_PORT_INVALID`, what a fresh buffer has.
const NO_DEVICE: u16 = u16::MAX;

/// EtherType of an 802.1Q tag, in wire order. Source: IEEE 802.1Q table 9-1.
const TAG_8021Q: [u8; 2] = [0x81, 0x00];

/// Bytes of two MAC addresses, behind which the tag stands.
const MACS: usize = 12;

/// Bytes of an 802.1Q tag.
const TAG: usize = 4;

/// One packet in a buffer of the pool, or in several where it is longer than one.
///
/// [`Packet::device`] of one that was allocated, not received, is `DeviceId(u16::MAX)`.
///
/// Limits: 65535 bytes. Only the first buffer can be read and written; [`crate::WorkerIo`] gathers the others.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: a buffer has one owner and its pool takes it back from any thread. No safe form: a raw pointer is in it.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes a buffer over.
    ///
    /// # Safety
    /// `raw` points to a buffer of a pool that outlives it (see `mempool`), that nobody else uses, and whose header
    /// the driver or the pool has filled in.
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self(raw)
    }

    /// Reads the field at `offset`.
    ///
    /// # Safety
    /// `offset` is that of a field of type `T` in `struct rte_mbuf`.
    #[inline]
    unsafe fn field<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the buffer's header is valid by the type's invariant, the offset by the caller's word. No safe
        // form: the layout is only known to C.
        unsafe { self.0.as_ptr().byte_add(offset as usize).cast::<T>().read() }
    }

    /// Writes the field at `offset`.
    ///
    /// # Safety
    /// As for [`Self::field`], and `value` keeps the type's invariant.
    #[inline]
    unsafe fn set_field<T: Copy>(&mut self, offset: u32, value: T) {
        // SAFETY: as in `field`; `&mut self` makes us the only user. No safe form: the layout is only known to C.
        unsafe { self.0.as_ptr().byte_add(offset as usize).cast::<T>().write(value) }
    }

    #[inline]
    fn data_off(&self) -> u16 {
        // SAFETY: uint16_t data_off. No safe form: see `field`.
        unsafe { self.field(sys::SLUICE_MBUF_DATA_OFF) }
    }

    #[inline]
    fn data_len(&self) -> u16 {
        // SAFETY: uint16_t data_len. No safe form: see `field`.
        unsafe { self.field(sys::SLUICE_MBUF_DATA_LEN) }
    }

    #[inline]
    fn buf_len(&self) -> u16 {
        // SAFETY: uint16_t buf_len. No safe form: see `field`.
        unsafe { self.field(sys::SLUICE_MBUF_BUF_LEN) }
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        // SAFETY: void *buf_addr. No safe form: see `field`.
        let buffer: *mut u8 = unsafe { self.field(sys::SLUICE_MBUF_BUF_ADDR) };
        // SAFETY: data_off lies within the buffer by the invariant. No safe form: a raw pointer.
        unsafe { buffer.add(usize::from(self.data_off())) }
    }

    /// Sets where the frame starts and how long it is. `None`, unchanged: not within the buffer.
    #[inline]
    fn place(&mut self, data_off: usize, len: usize) -> Option<()> {
        let (data_off, len) = (u16::try_from(data_off).ok()?, u16::try_from(len).ok()?);
        if data_off.checked_add(len)? > self.buf_len() {
            return None;
        }
        let before = self.data_len();
        // SAFETY: uint16_t data_off, checked against the buffer. No safe form: see `field`.
        unsafe { self.set_field(sys::SLUICE_MBUF_DATA_OFF, data_off) };
        // SAFETY: uint16_t data_len, checked against the buffer. No safe form: see `field`.
        unsafe { self.set_field(sys::SLUICE_MBUF_DATA_LEN, len) };
        // In a single segment this is `len`.
        let whole = self.pkt_len() + u32::from(len) - u32::from(before);
        // SAFETY: uint32_t pkt_len, which grows as data_len does. No safe form: see `field`.
        unsafe { self.set_field(sys::SLUICE_MBUF_PKT_LEN, whole) };
        Some(())
    }

    /// Length of all segments, bytes.
    #[inline]
    fn pkt_len(&self) -> u32 {
        // SAFETY: uint32_t pkt_len. No safe form: see `field`.
        unsafe { self.field(sys::SLUICE_MBUF_PKT_LEN) }
    }

    /// [`Packet::set_len`] of a chain: it is only ever cut.
    #[cold]
    fn cut(&mut self, len: usize) -> bool {
        let Ok(len) = u32::try_from(len) else { return false };
        // SAFETY: the chain is ours alone; what is cut off goes back to its pool. No safe form: an FFI call.
        unsafe { sys::sluice_mbuf_cut(self.0.as_ptr(), len) == 0 }
    }

    /// Brings all bytes into the first segment. `false`: no room there, unchanged.
    #[cold]
    pub(crate) fn linearize(&mut self) -> bool {
        // SAFETY: the chain is ours alone; emptied segments go back to their pool. No safe form: an FFI call.
        unsafe { sys::sluice_mbuf_linearize(self.0.as_ptr()) == 0 }
    }

    /// Takes the bytes of all segments of `from` behind its own. `false`: no room, unchanged.
    pub(crate) fn append(&mut self, from: &Self) -> bool {
        // SAFETY: two packets, each its own; the copy is bounded by our tail room. No safe form: an FFI call.
        unsafe { sys::sluice_mbuf_copy(from.0.as_ptr(), self.0.as_ptr()) == 0 }
    }

    /// Adds `tail` to the segments: for tests and tools that make what a driver would. Errors: `tail`, when there
    /// would be too many.
    pub fn chain(&mut self, tail: Self) -> Result<(), Self> {
        let tail = std::mem::ManuallyDrop::new(tail);
        // SAFETY: both are ours alone, and `tail` is given up unless it comes back. No safe form: an FFI call.
        let refused = unsafe { sys::sluice_mbuf_chain(self.0.as_ptr(), tail.0.as_ptr()) };
        NonNull::new(refused).map_or(Ok(()), |raw| Err(Self(raw)))
    }

    /// Marks a received buffer with its device.
    #[inline]
    pub(crate) fn mark_device(&mut self, device: DeviceId) {
        // SAFETY: uint16_t port, which drivers do not read when they send. No safe form: see `field`.
        unsafe { self.set_field(sys::SLUICE_MBUF_PORT, device.0) };
    }

    /// What the driver says of a frame that it received.
    #[inline]
    fn flags(&self) -> u64 {
        // SAFETY: uint64_t ol_flags. No safe form: see `field`.
        unsafe { self.field(sys::SLUICE_MBUF_OL_FLAGS) }
    }

    /// Whether the driver took an 802.1Q tag out of the frame.
    #[inline]
    pub(crate) fn is_tag_stripped(&self) -> bool {
        self.flags() & sys::SLUICE_MBUF_VLAN_STRIPPED != 0
    }

    /// Puts a tag that the driver took out back into the frame. `false`: no room, unchanged.
    pub(crate) fn restore_tag(&mut self) -> bool {
        // SAFETY: uint16_t vlan_tci, valid while the flag is set. No safe form: see `field`.
        let tag: u16 = unsafe { self.field(sys::SLUICE_MBUF_VLAN_TCI) };
        if !insert_tag(self, tag) {
            return false;
        }
        // SAFETY: uint64_t ol_flags; what is left of those of reception means nothing to a driver that sends. No safe
        // form: see `field`.
        unsafe { self.set_field(sys::SLUICE_MBUF_OL_FLAGS, self.flags() & !sys::SLUICE_MBUF_VLAN_STRIPPED) };
        true
    }
}

/// Inserts an 802.1Q tag with `tci` (host order) behind the MAC addresses. `false`: no room or no frame, unchanged.
fn insert_tag(packet: &mut impl Packet, tci: u16) -> bool {
    if packet.bytes().len() < MACS || !packet.grow_front(TAG) {
        return false;
    }
    let bytes = packet.bytes_mut();
    bytes.copy_within(TAG..TAG + MACS, 0);
    bytes[MACS..MACS + 2].copy_from_slice(&TAG_8021Q);
    bytes[MACS + 2..MACS + TAG].copy_from_slice(&tci.to_be_bytes());
    true
}

impl Packet for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the frame lies within the buffer by the invariant; the pool's memory was mapped zeroed, so every
        // byte is initialized. No safe form: a raw pointer.
        unsafe { slice::from_raw_parts(self.start(), usize::from(self.data_len())) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes us the only user. No safe form: a raw pointer.
        unsafe { slice::from_raw_parts_mut(self.start(), usize::from(self.data_len())) }
    }

    #[inline(always)]
    fn prefetch_head(&self) {
        lb_dataplane::prefetch::address(self.0.as_ptr().cast());
    }

    #[inline(always)]
    fn prefetch(&self) {
        lb_dataplane::prefetch::address(self.start());
    }

    #[inline]
    fn grow_front(&mut self, n: usize) -> bool {
        let (offset, len) = (usize::from(self.data_off()), usize::from(self.data_len()));
        offset.checked_sub(n).and_then(|offset| self.place(offset, len + n)).is_some()
    }

    #[inline]
    fn shrink_front(&mut self, n: usize) -> bool {
        let (offset, len) = (usize::from(self.data_off()), usize::from(self.data_len()));
        len.checked_sub(n).and_then(|len| self.place(offset + n, len)).is_some()
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> bool {
        if !self.is_whole() {
            return self.cut(len);
        }
        self.place(usize::from(self.data_off()), len).is_some()
    }

    #[inline]
    fn frame_len(&self) -> usize {
        self.pkt_len() as usize
    }

    #[inline]
    fn is_whole(&self) -> bool {
        // SAFETY: uint16_t nb_segs. No safe form: see `field`.
        let segments: u16 = unsafe { self.field(sys::SLUICE_MBUF_NB_SEGS) };
        segments == 1
    }

    #[inline]
    fn device(&self) -> DeviceId {
        // SAFETY: uint16_t port. No safe form: see `field`.
        DeviceId(unsafe { self.field(sys::SLUICE_MBUF_PORT) })
    }

    fn set_device(&mut self, device: DeviceId) {
        self.mark_device(device);
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we are the only owner, the pool is still mapped (see `mempool`). No safe form: an FFI call.
        unsafe { sys::sluice_mbuf_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = (self.device().0 != NO_DEVICE).then(|| self.device());
        f.debug_struct("Mbuf").field("len", &self.pkt_len()).field("device", &device).finish()
    }
}

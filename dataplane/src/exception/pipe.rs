//! The queues between the workers and the thread that has the TAP interfaces.
//!
//! Frames are copied into buffers that go round: the thread makes them all at the start, a worker only ever fills or
//! empties one. Invariant: no more frames wait than there are buffers, and a worker neither allocates nor frees.

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::io::WorkerId;
use crate::mailbox::Mailbox;
use crate::neighbor::LinkId;
use crate::parse::{Flow, Net, parse};
use crate::setup::Setup;
use crate::steer;

/// Frames of one worker that may wait for the thread: what comes in 25 ms at the default rate.
pub const UP: usize = 512;
/// Of these buffers so many are kept for control protocols.
const UP_KEPT: usize = 128;
/// Frames that may wait for one worker.
pub const DOWN: usize = 256;

/// A frame, and where it came from or goes to.
#[derive(Debug)]
pub struct Parcel {
    /// Its port.
    pub link: LinkId,
    /// Ethernet header to the end, without FCS and without tag.
    pub bytes: Vec<u8>,
}

/// The queues of one worker.
#[derive(Debug)]
pub struct Pipe {
    up_free: ArrayQueue<Vec<u8>>,
    urgent: ArrayQueue<Parcel>,
    plain: ArrayQueue<Parcel>,
    down_free: ArrayQueue<Vec<u8>>,
    down: ArrayQueue<Parcel>,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            up_free: ArrayQueue::new(UP),
            urgent: ArrayQueue::new(UP),
            plain: ArrayQueue::new(UP),
            down_free: ArrayQueue::new(DOWN),
            down: ArrayQueue::new(DOWN),
        }
    }
}

impl Pipe {
    /// Worker: has `write` fill a buffer and passes it on. `false`: none is free, or `write` says so.
    pub(crate) fn give(
        &self,
        link: LinkId,
        urgent: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Option<()>,
    ) -> bool {
        if !urgent && self.up_free.len() <= UP_KEPT {
            return false;
        }
        let Some(mut bytes) = self.up_free.pop() else { return false };
        bytes.clear();
        if write(&mut bytes).is_none() {
            // it came from there
            let _has_room = self.up_free.push(bytes);
            return false;
        }
        let queue = if urgent { &self.urgent } else { &self.plain };
        // each queue has room for all buffers
        queue.push(Parcel { link, bytes }).is_ok()
    }

    /// Worker: the next frame of the kernel's.
    pub(crate) fn take(&self) -> Option<Parcel> {
        self.down.pop()
    }

    /// Worker: whether there is one.
    pub(crate) fn has_more(&self) -> bool {
        !self.down.is_empty()
    }

    /// Worker: gives a buffer back.
    pub(crate) fn emptied(&self, bytes: Vec<u8>) {
        let _has_room = self.down_free.push(bytes);
    }
}

/// Adds to a buffer as much as it has room for without growing; `None`: there is not enough, unchanged.
pub(crate) fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    (buffer.len() + bytes.len() <= buffer.capacity()).then(|| buffer.extend_from_slice(bytes))
}

/// The thread's end of all workers' queues.
#[derive(Clone, Debug)]
pub struct Kernel {
    mailboxes: Vec<Arc<Mailbox>>,
    setup: Arc<Setup>,
}

impl Kernel {
    pub(crate) fn new(mailboxes: Vec<Arc<Mailbox>>, setup: Arc<Setup>) -> Self {
        Self { mailboxes, setup }
    }

    /// Makes the buffers, each of `len` bytes: the longest frame that is passed on either way.
    ///
    /// Memory: so much times [`UP`] and [`DOWN`] for each worker. Before that nothing is passed on.
    pub fn furnish(&self, len: usize) {
        for mailbox in &self.mailboxes {
            let pipe = &mailbox.pipe;
            while pipe.up_free.push(Vec::with_capacity(len)).is_ok() {}
            while pipe.down_free.push(Vec::with_capacity(len)).is_ok() {}
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> u16 {
        self.mailboxes.len() as u16
    }

    /// The next frame for the kernel that a worker has passed on: of a control protocol, if there is one.
    pub fn next(&self, worker: WorkerId) -> Option<Parcel> {
        let pipe = &self.mailboxes.get(usize::from(worker.0))?.pipe;
        pipe.urgent.pop().or_else(|| pipe.plain.pop())
    }

    /// Gives the buffer of [`Kernel::next`] back.
    pub fn done(&self, worker: WorkerId, parcel: Parcel) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(worker.0)) {
            let _has_room = mailbox.pipe.up_free.push(parcel.bytes);
        }
    }

    /// Passes a frame of the kernel's on, to the worker that owns its flow. `false`: that is busy; try again later.
    ///
    /// A frame that is longer than a buffer is lost.
    pub fn send(&self, link: LinkId, frame: &[u8]) -> bool {
        let worker = self.owner(frame);
        let Some(mailbox) = self.mailboxes.get(usize::from(worker.0)) else { return true };
        let Some(mut bytes) = mailbox.pipe.down_free.pop() else { return false };
        bytes.clear();
        if append(&mut bytes, frame).is_none() {
            mailbox.pipe.emptied(bytes);
            return true;
        }
        let sent = mailbox.pipe.down.push(Parcel { link, bytes }).is_ok();
        mailbox.ring();
        sent
    }

    /// The worker that has the connection, if the frame is a reply of a server on the director itself; of all others it
    /// does not matter, as long as frames of one flow stay together.
    fn owner(&self, frame: &[u8]) -> WorkerId {
        fn client<A: Copy + Into<IpAddr>>(flow: &Flow<A>) -> (IpAddr, u16) {
            (flow.dst.into(), flow.dst_port)
        }
        let workers = self.workers();
        if workers <= 1 {
            return WorkerId(0);
        }
        let (address, port) = match parse(frame).map(|parsed| parsed.net) {
            Ok(Net::Flow4(flow)) => client(&flow),
            Ok(Net::Flow6(flow)) => client(&flow),
            _ => return WorkerId(0),
        };
        steer::owner(address, port, workers, &self.setup.steer_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn furnished() -> Arc<Mailbox> {
        let mailbox: Arc<Mailbox> = Arc::default();
        while mailbox.pipe.up_free.push(Vec::with_capacity(100)).is_ok() {}
        mailbox
    }

    #[test]
    fn buffers_go_round_and_some_are_kept_for_control_protocols() {
        let mailbox = furnished();
        let pipe = &mailbox.pipe;
        let give = |urgent| pipe.give(LinkId(1), urgent, |buffer| append(buffer, &[7; 100]));
        assert_eq!((0..2 * UP).filter(|_| give(false)).count(), UP - UP_KEPT);
        assert_eq!((0..2 * UP).filter(|_| give(true)).count(), UP_KEPT);
        let urgent = pipe.urgent.pop().unwrap();
        assert_eq!((urgent.link, &urgent.bytes[..]), (LinkId(1), &[7; 100][..]));
        pipe.up_free.push(urgent.bytes).unwrap();
        assert!(!give(false) && give(true));
    }

    #[test]
    fn a_frame_that_does_not_fit_is_not_passed_on_and_its_buffer_stays() {
        let mailbox = furnished();
        assert!(!mailbox.pipe.give(LinkId(0), true, |buffer| append(buffer, &[0; 101])));
        assert!(mailbox.pipe.urgent.is_empty() && mailbox.pipe.up_free.is_full());
    }

    #[test]
    fn without_buffers_nothing_is_passed_on() {
        let mailbox: Arc<Mailbox> = Arc::default();
        assert!(!mailbox.pipe.give(LinkId(0), true, |_| Some(())));
    }
}

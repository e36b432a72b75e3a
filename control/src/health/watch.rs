//! Tells when a file changes.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// Bytes of an event before its name. Source: inotify(7), `struct inotify_event`.
const EVENT: usize = 16;

/// Watches the directory of a file: programs replace files as often as they write them.
#[derive(Debug)]
pub(super) struct Watch {
    /// Inotify's descriptor is read like a pipe's.
    events: Receiver,
    name: OsString,
}

impl Watch {
    /// `None`: it cannot be watched; the file is still looked at every interval.
    pub fn new(path: &Path) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        let flags = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM;
        inotify.add_watch(path.parent()?, flags | AddWatchFlags::IN_DELETE).ok()?;
        let events = Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify)).ok()?;
        Some(Self { events, name: path.file_name()?.to_owned() })
    }

    /// Returns when the file was written, replaced or removed.
    pub async fn changed(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            if self.events.readable().await.is_err() {
                return std::future::pending().await;
            }
            match self.events.try_read(&mut buffer) {
                Ok(length) if names(buffer.get(..length).unwrap_or_default(), self.name.as_bytes()) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// Whether one of the events is of the file of this name.
fn names(mut events: &[u8], name: &[u8]) -> bool {
    while let Some((head, rest)) = events.split_at_checked(EVENT) {
        let length = head.last_chunk::<4>().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        let (padded, next) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        let end = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
        if padded.get(..end) == Some(name) {
            return true;
        }
        events = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_of_files_by_name() {
        let event = |name: &[u8; 8]| {
            let mut event = vec![0; 12];
            event.extend_from_slice(&8_u32.to_ne_bytes());
            event.extend_from_slice(name);
            event
        };
        let events = [event(b"other\0\0\0"), event(b"weight\0\0")].concat();
        assert!(names(&events, b"weight") && names(&events, b"other"));
        assert!(!names(&events, b"weigh") && !names(&events[..20], b"weight") && !names(&[], b""));
    }
}

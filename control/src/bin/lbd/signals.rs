//! SIGINT and SIGTERM end lbd, SIGHUP makes it read its configuration again.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use tokio::sync::{mpsc, watch};

/// Signals as they come.
pub struct Signals {
    stop: watch::Receiver<bool>,
    hangups: Option<mpsc::Receiver<()>>,
}

impl Signals {
    /// Takes the signals over. Call it while the process has one thread: the others inherit that SIGHUP is blocked.
    ///
    /// Errors: the kernel refused, or the handlers are installed already.
    pub fn install() -> io::Result<Self> {
        // ctrlc ends on SIGHUP too, as on the others; blocked everywhere it never gets to see it.
        let mut hangup = SigSet::empty();
        hangup.add(Signal::SIGHUP);
        hangup.thread_block()?;
        let (stopping, stop) = watch::channel(false);
        ctrlc::set_handler(move || {
            stopping.send_replace(true);
        })
        .map_err(io::Error::other)?;
        let (sender, hangups) = mpsc::channel(1);
        thread::Builder::new().name("sighup".into()).spawn(move || {
            while hangup.wait().is_ok() {
                // One that waits is enough: it will read the newest file.
                if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                    return;
                }
            }
        })?;
        Ok(Self { stop, hangups: Some(hangups) })
    }

    /// Returns when the process is to end; also when that was said before.
    pub async fn stop(&mut self) {
        // The sender lives in the handler, as long as the process.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }

    /// One message per SIGHUP; empty the second time.
    pub fn hangups(&mut self) -> mpsc::Receiver<()> {
        self.hangups.take().unwrap_or_else(|| mpsc::channel(1).1)
    }
}

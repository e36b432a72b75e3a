//! One connection: hello, then request and response in turn until the peer goes or breaks a rule.

use std::io::{self, ErrorKind as Io};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::{Access, Call, Shared, Work};
use crate::api::frame::{self, FrameTooLong};
use crate::api::{ApiError, ErrorKind, Hello, MessageError, PROTOCOL, Request, Response, decode, encode};

/// Room made for each read, bytes: memory follows what has arrived.
const READ_STEP: usize = 16 << 10;

/// How long a session waits for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two frames, and before the hello.
    pub idle: Duration,
    /// From a frame's first byte to its last.
    pub frame: Duration,
    /// For the peer to read a whole response.
    pub write: Duration,
}

impl Default for Times {
    /// A person at `lbctl` never meets these: it sends at once and reads at once.
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), frame: Duration::from_secs(30), write: Duration::from_secs(30) }
    }
}

/// Why a session ended early.
#[derive(Debug, Error)]
enum Ended {
    #[error("the peer broke off inside a frame")]
    Broken,
    #[error("a frame was not complete after {0:?}")]
    Slow(Duration),
    #[error(transparent)]
    TooLong(#[from] FrameTooLong),
    #[error("{0}")]
    NoHello(String),
    #[error("a response was not read within {0:?}")]
    NotReading(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Unwritable(#[from] MessageError),
    #[error("lbd is stopping")]
    Stopping,
}

pub(super) struct Session {
    stream: UnixStream,
    access: Access,
    shared: Shared,
    buffer: BytesMut,
}

impl Session {
    pub(super) fn new(stream: UnixStream, access: Access, shared: Shared) -> Self {
        Self { stream, access, shared, buffer: BytesMut::new() }
    }

    /// Serves the peer until it goes, tells it what ended the session otherwise.
    pub(super) async fn run(mut self) {
        let Err(ended) = self.talk().await else { return };
        debug!(%ended, "API session ended");
        let kind = match &ended {
            Ended::Slow(_) | Ended::TooLong(_) | Ended::NoHello(_) => ErrorKind::Protocol,
            Ended::Stopping => ErrorKind::Failed,
            // Nobody is left who would read it.
            Ended::Broken | Ended::NotReading(_) | Ended::Io(_) | Ended::Unwritable(_) => return,
        };
        // The peer may be gone; then nothing is owed to it.
        let _ = self.send(Response::Error(ApiError::new(kind, ended.to_string()))).await;
    }

    async fn talk(&mut self) -> Result<(), Ended> {
        let Some(first) = self.receive(frame::MAX_SMALL_FRAME).await? else { return Ok(()) };
        match decode(&first) {
            Ok(Request::Hello(hello)) if hello.protocol == PROTOCOL => {}
            Ok(Request::Hello(hello)) => {
                let theirs = hello.protocol;
                return Err(Ended::NoHello(format!("lbd speaks protocol {PROTOCOL}, not {theirs}")));
            }
            Ok(_) => return Err(Ended::NoHello("the first message must be a hello".into())),
            Err(error) => return Err(Ended::NoHello(format!("the first message must be a hello: {error}"))),
        }
        self.send(Response::Hello(Hello::default())).await?;
        // Only who may change has a reason to send a whole configuration of the largest size.
        let limit = match self.access {
            Access::Change => frame::MAX_FRAME,
            Access::Read | Access::Nothing => frame::MAX_SMALL_FRAME,
        };
        while let Some(payload) = self.receive(limit).await? {
            let response = self.answer(payload).await?;
            self.send(response).await?;
        }
        Ok(())
    }

    /// The response to one request.
    async fn answer(&self, payload: Bytes) -> Result<Response, Ended> {
        let access = self.access;
        let work = blocking(move || understand(&payload, access)).await?;
        let work = match work {
            Ok(work) => work,
            Err(refused) => return Ok(Response::Error(refused)),
        };
        let (reply, response) = oneshot::channel();
        self.shared.calls.send(Call { work, access, reply }).await.map_err(|_| Ended::Stopping)?;
        response.await.map_err(|_| Ended::Stopping)
    }

    /// The next frame's payload; `None` when the peer is done or silent for too long.
    async fn receive(&mut self, limit: usize) -> Result<Option<Bytes>, Ended> {
        let times = self.shared.times;
        // Between frames the idle time counts; from a frame's first byte on there is one deadline for all of it, so
        // that a byte now and then does not keep a session.
        if self.buffer.is_empty() {
            let Ok(count) = timeout(times.idle, self.read()).await else { return Ok(None) };
            if count? == 0 {
                return Ok(None);
            }
        }
        let deadline = Instant::now() + times.frame;
        loop {
            if let Some(payload) = frame::take(&mut self.buffer, limit)? {
                return Ok(Some(payload));
            }
            let Ok(count) = timeout_at(deadline, self.read()).await else {
                return Err(Ended::Slow(times.frame));
            };
            if count? == 0 {
                return Err(Ended::Broken);
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_STEP);
        match self.stream.read_buf(&mut self.buffer).await {
            // A peer that closed with our answer unread: it is done.
            Err(error) if error.kind() == Io::ConnectionReset => Ok(0),
            result => result,
        }
    }

    async fn send(&mut self, response: Response) -> Result<(), Ended> {
        let frame = blocking(move || encode_or_explain(&response)).await??;
        let write = self.shared.times.write;
        match timeout(write, self.stream.write_all(&frame)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Ended::NotReading(write)),
        }
    }
}

/// Runs what may take long on another thread: reading and writing of megabytes of TOML would hold up the timers.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Ended> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Ended::Stopping)
}

/// Reads a request, refuses what the peer may not do, checks what it carries.
fn understand(payload: &[u8], access: Access) -> Result<Work, ApiError> {
    let request: Request =
        decode(payload).map_err(|error| ApiError::new(ErrorKind::Protocol, error.to_string()))?;
    if let Request::Hello(_) = request {
        return Err(ApiError::new(ErrorKind::Protocol, "a hello is only the first message"));
    }
    if request.changes() && access != Access::Change {
        let message = "this user may read, not change: root and the group of `appliance.socket_group` may";
        return Err(ApiError::new(ErrorKind::Denied, message));
    }
    Work::from_request(request)
}

/// The response's frame, or that of an error which says why it has none.
fn encode_or_explain(response: &Response) -> Result<Bytes, MessageError> {
    encode(response).or_else(|error| {
        encode(&Response::Error(ApiError::new(ErrorKind::Failed, format!("answer not sent: {error}"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ServerRef;

    fn kind(request: &Request, access: Access) -> Option<ErrorKind> {
        let payload = encode(request).unwrap().split_off(frame::HEADER);
        understand(&payload, access).err().map(|error| error.kind)
    }

    #[test]
    fn who_may_only_read_changes_nothing() {
        let toml =
            || "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]\n".to_owned();
        let server = ServerRef { service: "web".into(), address: [10, 0, 0, 2].into(), port: None };
        for change in [Request::ServerDrain(server.into()), Request::Apply { toml: toml(), dry_run: false }] {
            assert_eq!(kind(&change, Access::Read), Some(ErrorKind::Denied));
            assert_eq!(kind(&change, Access::Change), None);
        }
        for read in
            [Request::Show, Request::Diff { toml: toml() }, Request::Apply { toml: toml(), dry_run: true }]
        {
            assert_eq!(kind(&read, Access::Read), None);
        }
    }

    #[test]
    fn a_second_hello_is_refused() {
        assert_eq!(kind(&Request::Hello(Hello::default()), Access::Change), Some(ErrorKind::Protocol));
    }
}

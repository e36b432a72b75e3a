//! The Unix socket: who connects, what they may do, one bounded session each.
//!
//! A client can hold up neither lbd nor other clients: lengths are checked before memory is taken, a started frame
//! and a written answer have deadlines, silent connections are closed, and there are at most [`MAX_CONNECTIONS`],
//! of which [`MAX_READERS`] may belong to users who can only read.

mod access;
mod call;
mod session;
mod socket;

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

pub use access::{Access, Peer, Policy};
pub use call::{Call, Work};
pub use session::Times;
pub use socket::{Socket, SocketError, SocketSettings};

use crate::api::{ApiError, ErrorKind, Response, encode};
use session::Session;

/// Connections at once; the next one is told so and closed.
pub const MAX_CONNECTIONS: usize = 64;

/// Connections at once of users who may only read, so that these cannot lock out those who may change.
pub const MAX_READERS: usize = 48;

/// Pause after a failed accept: the kernel is out of files, trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every session needs.
#[derive(Clone)]
struct Shared {
    policy: Arc<Policy>,
    calls: mpsc::Sender<Call>,
    readers: Arc<Semaphore>,
    times: Times,
}

/// Accepts connections for ever and passes what they ask to `calls`.
///
/// Must run inside a tokio runtime. Sessions end with the runtime. Errors: the runtime cannot watch the listener.
pub async fn serve(
    listener: StdListener,
    policy: Policy,
    calls: mpsc::Sender<Call>,
    times: Times,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let all = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let readers = Arc::new(Semaphore::new(MAX_READERS));
    let shared = Shared { policy: Arc::new(policy), calls, readers, times };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection on the API socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = all.clone().try_acquire_owned() else {
            refuse(
                &stream,
                ErrorKind::Busy,
                format!("{MAX_CONNECTIONS} connections are open, the most there may be"),
            );
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            admit(stream, shared).await;
            drop(permit);
        });
    }
}

/// Finds out who the peer is and runs its session if it may have one.
async fn admit(stream: UnixStream, shared: Shared) {
    let credentials = match stream.peer_cred() {
        Ok(credentials) => credentials,
        Err(error) => return warn!(%error, "cannot read the credentials of an API client"),
    };
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let policy = shared.policy.clone();
    // The group database may be remote and slow: it is asked on a thread of its own.
    let access = tokio::task::spawn_blocking(move || policy.access_of(uid, gid)).await;
    let access = access.unwrap_or(Access::Nothing);
    debug!(uid, gid, ?access, "API client connected");
    let reader = match access {
        Access::Nothing => {
            return refuse(&stream, ErrorKind::Denied, shared.policy.explain_refusal(uid));
        }
        Access::Read => match shared.readers.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let message = format!(
                    "{MAX_READERS} connections of users who may only read are open, the most there may be"
                );
                return refuse(&stream, ErrorKind::Busy, message);
            }
        },
        Access::Change => None,
    };
    Session::new(stream, access, shared).run().await;
    drop(reader);
}

/// Tells a peer why it gets no session. The frame always fits an empty socket buffer, so nothing waits here.
fn refuse(stream: &UnixStream, kind: ErrorKind, message: String) {
    let response = Response::Error(ApiError::new(kind, message));
    if let Ok(frame) = encode(&response) {
        // A peer that is gone already does not need the reason.
        let _ = stream.try_write(&frame);
    }
}

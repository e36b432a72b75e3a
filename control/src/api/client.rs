//! A blocking client, for `lbctl` and tests.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{ApiError, ErrorKind, Hello, MessageError, PROTOCOL, Request, Response, decode, encode, frame};

/// Longest wait for an answer: a configuration of the largest size is applied well within it.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a client got no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("cannot reach lbd at {}: {source}", path.display())]
    Unreachable {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file mode of the socket keeps this user out.
    #[error("{}: permission denied; root and the group of `appliance.socket_group` may connect", path.display())]
    Denied {
        /// Path of the socket.
        path: PathBuf,
    },
    /// lbd refused the request.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The connection broke, or no answer came in time.
    #[error("connection to lbd at {} failed: {source}", path.display())]
    Broken {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The answer is not one of this protocol.
    #[error("answer of lbd: {0}")]
    Message(#[from] MessageError),
    /// lbd speaks another version.
    #[error("lbd {version} speaks protocol {theirs}, this program speaks {PROTOCOL}")]
    Protocol {
        /// Version of lbd.
        version: String,
        /// Version of its protocol.
        theirs: u32,
    },
    /// lbd answered something else than was asked.
    #[error("lbd answered with another message than was asked for")]
    Unexpected,
}

/// A connection to lbd on which the hellos were exchanged.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    buffer: BytesMut,
}

impl Client {
    /// Connects and says hello.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            Io::PermissionDenied => ClientError::Denied { path: path.to_owned() },
            _ => ClientError::Unreachable { path: path.to_owned(), source },
        })?;
        let mut client = Self { path: path.to_owned(), stream, buffer: BytesMut::new() };
        let timeouts = client.stream.set_read_timeout(Some(REPLY_TIMEOUT));
        timeouts.and(client.stream.set_write_timeout(Some(REPLY_TIMEOUT))).map_err(|e| client.broken(e))?;
        match client.call(&Request::Hello(Hello::default()))? {
            Response::Hello(hello) if hello.protocol == PROTOCOL => Ok(client),
            Response::Hello(hello) => {
                Err(ClientError::Protocol { version: hello.version, theirs: hello.protocol })
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends one request and waits for its response, at most 60 s.
    ///
    /// Errors: [`ClientError::Refused`] leaves the connection usable (unless lbd closed it); after any other error
    /// it is not.
    pub fn call(&mut self, request: &Request) -> Result<Response, ClientError> {
        let sent = self.stream.write_all(&encode(request)?);
        // lbd may have refused this connection and closed it before it read anything: its reason waits to be read.
        let reply = match (self.receive(), sent) {
            (Ok(reply), _) => reply,
            (Err(_), Err(broken)) | (Err(broken), Ok(())) => return Err(self.broken(broken)),
        };
        match decode(&reply)? {
            Response::Error(error) => Err(ClientError::Refused(error)),
            response => Ok(response),
        }
    }

    fn receive(&mut self) -> io::Result<Bytes> {
        let mut piece = [0; 16 << 10];
        loop {
            let taken = frame::take(&mut self.buffer, frame::MAX_FRAME);
            if let Some(payload) = taken.map_err(|e| io::Error::new(Io::InvalidData, e))? {
                return Ok(payload);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(Io::UnexpectedEof.into()),
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) if e.kind() == Io::WouldBlock => return Err(Io::TimedOut.into()),
                Err(e) => return Err(e),
            }
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), source }
    }
}

impl ClientError {
    /// Whether there is no lbd to talk to, as opposed to one that refuses.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused(error) => error.kind == ErrorKind::Busy,
            Self::Denied { .. } | Self::Message(_) | Self::Protocol { .. } | Self::Unexpected => false,
        }
    }
}

//! What a session passes to the control core.

use lb_config::Model;
use tokio::sync::oneshot;

use super::Access;
use crate::api::{ApiError, Request, Response};

/// A request of a client that may make it, and where its response goes.
#[derive(Debug)]
pub struct Call {
    /// What to do.
    pub work: Work,
    /// What the peer may do; the session has refused what it may not, this says how much it may see.
    pub access: Access,
    /// Where the session waits. When it has gone meanwhile the response is of no use to anybody.
    pub reply: oneshot::Sender<Response>,
}

/// A request of which everything is done that needs no director: a large file is read and checked outside the
/// control core, whose timers must not wait for it.
#[derive(Debug)]
pub enum Work {
    /// Make this the running configuration.
    Replace(Box<Model>),
    /// Make this the running configuration if the number of that is still this one.
    Exchange(Box<Model>, u64),
    /// Say what [`Work::Replace`] would change or why it would be refused.
    Rehearse(Box<Model>),
    /// Say what is different, those changes included that need a restart.
    Compare(Box<Model>),
    /// Any other request.
    Plain(Box<Request>),
}

impl Work {
    /// Reads and checks what the request carries. Takes a second for a file of the largest size.
    ///
    /// Errors: the configuration has faults; all are in the error.
    pub fn from_request(request: Request) -> Result<Self, ApiError> {
        match request {
            Request::Apply { toml, dry_run: false } => Ok(Self::Replace(check(&toml)?)),
            Request::Apply { toml, dry_run: true } => Ok(Self::Rehearse(check(&toml)?)),
            Request::Exchange { toml, generation } => Ok(Self::Exchange(check(&toml)?, generation)),
            Request::Diff { toml } => Ok(Self::Compare(check(&toml)?)),
            plain => Ok(Self::Plain(Box::new(plain))),
        }
    }
}

fn check(toml: &str) -> Result<Box<Model>, ApiError> {
    lb_config::parse(toml).map(Box::new).map_err(|faults| ApiError::from(&faults))
}

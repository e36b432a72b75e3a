//! The checks: each asks once and says what came back.
//!
//! A check may wait, it never blocks; who runs it ends it after its timeout by dropping it, which closes its sockets
//! and kills its programs. Sockets are the kernel's; where they come from is in [`socket`] alone.

mod dns;
mod file;
pub(crate) mod http;
mod ping;
mod script;
mod smtp;
pub(super) mod socket;
pub(crate) mod tls;
mod udp;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lb_config::health::{CheckKind, FullTarget};
use tokio::net::TcpStream;

use super::probe::{ProbeSpec, Say};

pub(super) use script::run_command;
pub(super) use smtp::Dialogue;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as it should be.
    Pass {
        /// In words.
        why: String,
        /// What it says of the weight.
        say: Say,
    },
    /// Something is not.
    Fail {
        /// In words.
        why: String,
    },
}

impl Outcome {
    fn pass(why: impl Into<String>) -> Self {
        Self::Pass { why: why.into(), say: Say::Nothing }
    }
}

/// Why a check failed, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub String);

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // "Connection refused (os error 111)": the number tells a reader of a table nothing.
        let text = error.to_string();
        let end = text.find(" (os error").unwrap_or(text.len());
        Self(text[..end].to_lowercase())
    }
}

/// A check that can run again and again.
#[derive(Debug)]
pub(super) struct Checker {
    spec: Arc<ProbeSpec>,
    /// What an HTTPS check keeps: certificates are read once.
    tls: Option<tls::Client>,
    regexes: Vec<Option<regex::bytes::Regex>>,
}

impl Checker {
    pub fn new(spec: &Arc<ProbeSpec>) -> Self {
        let regexes = match &spec.kind {
            CheckKind::Http(http) => http::regexes(http),
            _ => Vec::new(),
        };
        Self { spec: spec.clone(), tls: None, regexes }
    }

    /// Asks once.
    pub async fn run(&mut self) -> Outcome {
        let spec = self.spec.clone();
        let target = &spec.target;
        let result = match &spec.kind {
            CheckKind::Tcp => tcp(target).await,
            CheckKind::Http(http) => self.http(http, target).await,
            CheckKind::Udp(udp) => udp::check(udp, target, spec.rhythm.timeout).await,
            CheckKind::Dns(dns) => dns::check(dns, target).await,
            CheckKind::Smtp { helo } => smtp::check(helo, target).await,
            CheckKind::Ping => ping::check(target).await,
            CheckKind::Script(script) => script::check(script, target).await,
            CheckKind::File(file) => file::check(file).await,
        };
        result.unwrap_or_else(|Failure(why)| Outcome::Fail { why })
    }

    /// What a check that took longer than `limit` comes to.
    pub fn timed_out(&self, limit: Duration) -> Outcome {
        let limit = lb_config::duration::format(limit);
        let why = match &self.spec.kind {
            CheckKind::Script(_) => format!("killed after {limit}"),
            _ => format!("no answer within {limit}"),
        };
        Outcome::Fail { why }
    }
}

/// A connection that comes about is enough. It is reset: nothing of it stays behind in TIME_WAIT.
async fn tcp(target: &FullTarget) -> Result<Outcome, Failure> {
    let stream: TcpStream = socket::connect(target).await?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(Outcome::pass("connected"))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

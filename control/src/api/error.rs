//! Why lbd refused a request.

use std::fmt;

use lb_config::Faults;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Sort of a refusal: what a program that talks to lbd decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The peer's user may not do this.
    Denied,
    /// Too many connections; later it may work.
    Busy,
    /// The bytes are no request of this protocol.
    Protocol,
    /// A value or a configuration is wrong; nothing was changed.
    Invalid,
    /// No service or server of that name.
    NotFound,
    /// The configuration is no longer the one that the request was made for; nothing was changed.
    Conflict,
    /// The change needs a restart of lbd; nothing was changed.
    NeedsRestart,
    /// lbd could not do it; the message says why.
    Failed,
}

/// A refused request. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub struct ApiError {
    /// Sort of refusal.
    pub kind: ErrorKind,
    /// One sentence for the operator, without a full stop.
    pub message: String,
    /// Every fault of a refused configuration, in the order of its lines.
    #[serde(default)]
    pub faults: Vec<FaultRow>,
}

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRow {
    /// Line in the file, from 1; 0: none.
    pub line: u32,
    /// Column in that line, characters from 1; 0: none.
    pub column: u32,
    /// TOML path, as in `services[0].servers[1].weight`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl ApiError {
    /// An error without faults.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), faults: Vec::new() }
    }
}

impl From<&Faults> for ApiError {
    /// The error that lists these faults.
    fn from(faults: &Faults) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let rows = faults.iter().map(|fault| FaultRow {
            line: number(fault.line),
            column: number(fault.column),
            path: fault.path.clone(),
            message: fault.message.clone(),
        });
        let plural = if faults.count() == 1 { "fault" } else { "faults" };
        let message = format!("configuration refused: {} {plural}", faults.count());
        Self { faults: rows.collect(), ..Self::new(ErrorKind::Invalid, message) }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

impl fmt::Display for FaultRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_its_faults_one_a_line() {
        let mut error = ApiError::new(ErrorKind::Invalid, "configuration refused: 2 faults");
        let fault = |line, path: &str, message: &str| FaultRow {
            line,
            column: u32::from(line > 0),
            path: path.into(),
            message: message.into(),
        };
        error.faults = vec![fault(12, "services[0].port", "0 is below 1"), fault(0, "", "no ports")];
        assert_eq!(
            error.to_string(),
            "configuration refused: 2 faults\nline 12: services[0].port: 0 is below 1\nno ports"
        );
    }
}

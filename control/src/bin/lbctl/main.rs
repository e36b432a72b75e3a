//! `lbctl`: the operator's tool. Asks lbd over its Unix socket and prints the answer.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no lbd to talk to.
#![forbid(unsafe_code)]

mod args;
mod ask;
mod show;
mod table;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use lb_control::api::{Client, ClientError, Response};
use thiserror::Error;

use args::{Args, Command};

/// Why lbctl fails.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read {file}: {source}")]
    File { file: String, source: io::Error },
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn main() -> ExitCode {
    // Exits with 2 on wrong usage.
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With stderr closed there is nobody to tell; the exit code still does.
            let _ = writeln!(io::stderr(), "lbctl: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Client(error) if error.is_unreachable() => 3,
            Self::Client(_) | Self::File { .. } | Self::Output(_) | Self::Json(_) => 1,
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    // Known without lbd, and of use when lbd cannot be reached.
    if matches!(args.command, Command::Version) && !args.json {
        write(&format!("lbctl {}\n", env!("CARGO_PKG_VERSION")))?;
    }
    let request = ask::request(&args.command)?;
    let response = Client::connect(&args.socket)?.call(&request)?;
    let text = if args.json { json(&response)? } else { show::text(&response, &args.command) };
    write(&text)
}

/// The response's fields as indented JSON.
fn json(response: &Response) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(response)?;
    // Which response it is follows from the command.
    if let Some(fields) = value.as_object_mut() {
        fields.remove("response");
    }
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// Writes to stdout. A reader that has seen enough (`lbctl connections | head`) is no error.
fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

//! `lbctl`: the operator's tool. Asks lbd over its Unix socket and prints the answer.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no lbd to talk to.
#![forbid(unsafe_code)]

mod args;
mod ask;
mod show;
mod table;

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use lb_config::keepalived::Options;
use lb_control::api::{Client, ClientError, Request, Response};
use lb_control::ipvsadm::{ClientHost, ImportError, Names, import};
use thiserror::Error;

use args::{Args, Command, DEFAULT_SOCKET, ImportCommand, SOCKET_VARIABLE};

/// Why lbctl fails.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read {file}: {source}")]
    File { file: String, source: io::Error },
    #[error("{file}:\n{faults}")]
    Faulty { file: String, faults: lb_config::Faults },
    #[error("{file}:\n{faults}")]
    Rules { file: String, faults: ImportError },
    #[error("{count} of {file} {} not carried over", if *count == 1 { "was" } else { "were" })]
    Left { file: String, count: usize },
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn main() -> ExitCode {
    let mut words = env::args_os();
    let program = words.next().unwrap_or_default();
    if Path::new(&program).file_name() == Some(OsStr::new("ipvsadm")) {
        let socket = env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
        // What is no UTF-8 is no name, address or number either: the command line's own message says so.
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        return ipvsadm(Path::new(&socket), &words);
    }
    // Exits with 2 on wrong usage.
    let args = Args::parse();
    if let Command::Ipvsadm { args: words } = &args.command {
        return ipvsadm(&args.socket, words);
    }
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
            Self::Client(_)
            | Self::File { .. }
            | Self::Faulty { .. }
            | Self::Rules { .. }
            | Self::Left { .. } => 1,
            Self::Output(_) | Self::Json(_) => 1,
        }
    }
}

/// What ipvsadm does, with its exit codes.
fn ipvsadm(socket: &Path, words: &[String]) -> ExitCode {
    let mut host = ClientHost::new(socket);
    let output = lb_control::ipvsadm::run(words, &mut io::stdin(), &mut host);
    let written = write(&output.stdout);
    // With stderr closed there is nobody to tell; the exit code still does.
    let _ = io::stderr().write_all(output.stderr.as_bytes());
    match written {
        Ok(_) => ExitCode::from(output.code),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "ipvsadm: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    // Known without lbd, and of use when lbd cannot be reached.
    if matches!(args.command, Command::Version) && !args.json {
        write(&format!("lbctl {}\n", env!("CARGO_PKG_VERSION")))?;
    }
    if let Command::Check { file } = &args.command {
        return check(file);
    }
    if let Command::Import(ImportCommand::Ipvs { file }) = &args.command {
        let faulty = |faults| Failure::Rules { file: file.display().to_string(), faults };
        return write(&import(&ask::read(file)?, &Names::system()).map_err(faulty)?).map(drop);
    }
    if let Command::Import(ImportCommand::Keepalived { file, base, id, strict }) = &args.command {
        let base = base.as_deref().map(ask::read).transpose()?;
        let options = Options { base: base.as_deref(), id: id.as_deref() };
        return keepalived(file, &options, *strict);
    }
    if let Command::Events { follow: true } = &args.command {
        return follow(args);
    }
    let request = ask::request(&args.command)?;
    let response = Client::connect(&args.socket)?.call(&request)?;
    let text = if args.json { json(&response)? } else { show::text(&response, &args.command) };
    write(&text)?;
    match &response {
        Response::Changes(changes) if !args.json => warn(&changes.warnings),
        _ => {}
    }
    Ok(())
}

/// Prints events as they come, until somebody ends it.
fn follow(args: &Args) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket)?;
    let mut after = None;
    loop {
        let response = client.call(&Request::Events { after, wait: after.is_some() })?;
        let Response::Events(list) = &response else { return Err(ClientError::Unexpected.into()) };
        after = Some(list.last);
        let lines: Result<String, serde_json::Error> = match args.json {
            // A line each, as long as it goes on.
            true => list.events.iter().map(|event| Ok(serde_json::to_string(event)? + "\n")).collect(),
            false => Ok(show::text(&response, &args.command)),
        };
        if !write(&lines?)? {
            return Ok(());
        }
    }
}

/// What `lbctl import keepalived` does: needs no lbd.
fn keepalived(file: &Path, options: &Options<'_>, strict: bool) -> Result<(), Failure> {
    let imported = lb_control::keepalived::import_text(file, &ask::read(file)?, options);
    write(&imported.toml)?;
    let mut err = io::stderr().lock();
    for note in &imported.notes {
        // With stderr closed there is nobody to tell; the exit code still does.
        let _ = writeln!(err, "{note}");
    }
    match imported.notes.len() {
        count if strict && count > 0 => Err(Failure::Left { file: file.display().to_string(), count }),
        _ => Ok(()),
    }
}

/// What `lbctl check` does: needs no lbd.
fn check(file: &Path) -> Result<(), Failure> {
    let (_, warnings) = lb_config::parse_with_warnings(&ask::read(file)?)
        .map_err(|faults| Failure::Faulty { file: file.display().to_string(), faults })?;
    warn(&warnings);
    write(&format!("{}: ok\n", file.display())).map(drop)
}

/// Tells what is doubtful, beside the answer.
fn warn<T: Display>(warnings: &[T]) {
    let mut err = io::stderr().lock();
    for warning in warnings {
        // With stderr closed there is nobody to tell.
        let _ = writeln!(err, "warning: {warning}");
    }
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

/// Writes to stdout. A reader that has seen enough (`lbctl connections | head`) is no error; then this is false.
fn write(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output(error)),
    }
}

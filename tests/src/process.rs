//! Processes that end with the value that holds them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// A running process; dropped, it is killed and waited for.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `argv` with its output in the file `log`. It gets SIGTERM, so that it can clear up after itself, should
    /// the calling thread end before it.
    pub fn start(argv: &[&str], log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let err = out.try_clone()?;
        // setpriv and env become the program, so the pid is the program's own. A shell starts what runs in its
        // background with SIGINT ignored, and a bash cannot trap what was ignored from the start.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "env", "--default-signal=INT"])
            .args(argv)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start {}", argv.join(" ")))?;
        Ok(Self { name: argv.join(" "), child, log: log.to_owned() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far, on both streams.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Lets what it does run before the rest of the machine, where that can be had: what else runs there is not what is
    /// tested.
    pub fn prefer(&self) {
        let _ = run(&["chrt", "--all-tasks", "-r", "-p", "5", &self.pid().to_string()]);
    }

    /// Waits for its end.
    ///
    /// Errors: it still runs after `limit`; the error carries what it printed.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until(&format!("end of {}", self.name), limit, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })
        .with_context(|| self.log())?;
        status.context("an ended process has a status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself: then both fail, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `argv` to its end, with its output captured.
pub fn output(argv: &[&str]) -> Result<Output> {
    let (program, arguments) = argv.split_first().context("an empty command")?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", argv.join(" ")))
}

/// Runs `argv` and gives its standard output.
///
/// Errors: it exits with another status than 0; the error carries its output.
pub fn run(argv: &[&str]) -> Result<String> {
    let output = output(argv)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{stdout}{stderr}", argv.join(" "), output.status);
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_with_its_output() {
        assert_eq!(run(&["echo", "a", "b"]).unwrap(), "a b\n");
        let error = run(&["sh", "-c", "echo broken >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let log = std::env::temp_dir().join(format!("lb-tests-{}", std::process::id()));
        let process = Process::start(&["sleep", "1000"], &log).unwrap();
        let proc_dir = format!("/proc/{}", process.pid());
        assert!(Path::new(&proc_dir).exists());
        drop(process);
        assert!(!Path::new(&proc_dir).exists());
        std::fs::remove_file(log).unwrap();
    }
}

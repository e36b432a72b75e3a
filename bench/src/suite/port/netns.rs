//! Network namespaces and processes of a measurement: gone when dropped, and those of a run that was killed with the
//! next one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What every name begins with; the process's number follows.
const PREFIX: &str = "sluicebench";

/// Longest wait for something to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A named network namespace.
pub struct Netns(String);

impl Netns {
    /// Makes one whose loopback is up.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let this = Self(format!("{PREFIX}{}-{name}", std::process::id()));
        run(&["ip", "netns", "add", &this.0])?;
        this.run("ip link set lo up")?;
        Ok(this)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs a command in it, split at blanks, and gives its output.
    pub fn run(&self, command: &str) -> anyhow::Result<String> {
        let inside: Vec<_> =
            ["ip", "netns", "exec", &self.0].into_iter().chain(command.split_whitespace()).collect();
        run(&inside)
    }

    /// Starts a program in it.
    pub fn start(&self, command: &str, log: &Path) -> anyhow::Result<Running> {
        let log = std::fs::File::create(log)?;
        let process = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(command.split_whitespace())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {command}"))?;
        Ok(Running(process))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// A program that runs; dropped, it is asked to end, then made to.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ended = wait_for("its end", || Ok(self.0.try_wait()?.is_some()));
        if ended.is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Removes a namespace with what runs in it. Best effort: there is nobody to tell.
fn remove(name: &str) {
    for pid in run(&["ip", "netns", "pids", name]).unwrap_or_default().split_whitespace() {
        if let Ok(pid) = pid.parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = run(&["ip", "netns", "del", name]);
}

/// Removes what runs left that were killed.
pub fn remove_stale() {
    let dead = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| !pid.is_empty() && !Path::new("/proc").join(pid).exists())
    };
    let list = run(&["ip", "netns", "list"]).unwrap_or_default();
    list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| dead(name)).for_each(remove);
}

/// Runs a command to its end and gives what it says. Errors: it fails; with what it said.
pub fn run(words: &[&str]) -> anyhow::Result<String> {
    let (program, rest) = words.split_first().context("no command")?;
    let output = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}: {}{text}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Asks until it is so. Errors: it never was; with the latest error.
pub fn wait_for(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match done() {
            Ok(true) => return Ok(()),
            Ok(false) if start.elapsed() > PATIENCE => bail!("waited {PATIENCE:?} for {what}"),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error.context(format!("waiting for {what}")));
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether a program can be started.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

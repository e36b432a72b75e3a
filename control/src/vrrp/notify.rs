//! Runs the programs that are told of changes: one after the other, in the order of the changes, on a thread of its
//! own. A program that does not end within 30 s is killed.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::User;
use tracing::warn;

use super::engine::Program;

/// Longest run of a program.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long lbd waits for the last ones when it ends.
const AT_END: Duration = Duration::from_secs(5);

/// Starts a program without input; its output goes to the log of lbd. Errors: it cannot be started, or as that user.
pub(super) fn spawn(program: &Program) -> io::Result<Child> {
    let (name, arguments) = program.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    if let Some(name) = &program.user {
        let user = User::from_name(name).map_err(io::Error::from)?;
        let user = user.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no user {name}")))?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.spawn()
}

/// Kills a program and what it started.
pub(super) fn kill(child: &mut Child) {
    let group = i32::try_from(child.id()).map(nix::unistd::Pid::from_raw);
    // It may have ended meanwhile.
    if let Ok(group) = group {
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
    let _ = child.wait();
}

/// Waits until `deadline`; `None`: it was killed then.
pub(super) fn wait(child: &mut Child, deadline: Instant) -> Option<bool> {
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => {
                let left = deadline.saturating_duration_since(Instant::now());
                thread::sleep(pause.min(left));
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Ok(None) | Err(_) => {
                kill(child);
                return None;
            }
        }
    }
}

/// The thread that runs them.
#[derive(Debug)]
pub struct Notifier {
    programs: Option<Sender<Program>>,
    join: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Starts it. Errors: the system gives no thread.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = channel();
        let join = thread::Builder::new().name("vrrp-notify".into()).spawn(move || work(&receiver))?;
        Ok(Self { programs: Some(sender), join: Some(join) })
    }

    /// Runs a program after those before it.
    pub fn run(&self, program: Program) {
        if let Some(programs) = &self.programs {
            // The thread lives as long as this.
            let _ = programs.send(program);
        }
    }

    /// Waits for what is still to be run, for a bounded time.
    pub fn finish(&mut self) {
        self.programs = None;
        let deadline = Instant::now() + AT_END;
        if let Some(join) = self.join.take() {
            while !join.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn work(programs: &Receiver<Program>) {
    while let Ok(program) = programs.recv() {
        let name = program.command.first().cloned().unwrap_or_default();
        match spawn(&program) {
            Ok(mut child) => match wait(&mut child, Instant::now() + TIMEOUT) {
                Some(true) => {}
                Some(false) => warn!(program = %name, "a notify program has failed"),
                None => warn!(program = %name, "a notify program was killed, it took longer than 30s"),
            },
            Err(error) => warn!(program = %name, %error, "cannot run a notify program"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str) -> Program {
        Program { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), user: None }
    }

    #[test]
    fn programs_run_one_after_the_other() {
        let file = std::env::temp_dir().join(format!("sluice-notify-order-{}", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let mut notifier = Notifier::start().unwrap();
        for (pause, word) in [("0.1", "one"), ("0", "two"), ("0.02", "three")] {
            notifier.run(program(&format!("sleep {pause}; echo {word} >>{}", file.display())));
        }
        notifier.finish();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let mut child = spawn(&program("sleep 60 & wait")).unwrap();
        let begun = Instant::now();
        assert_eq!(wait(&mut child, begun + Duration::from_millis(100)), None);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn an_unknown_user_is_an_error() {
        let as_nobody_there = Program { user: Some("no-such-user-here".to_owned()), ..program("true") };
        assert_eq!(spawn(&as_nobody_there).unwrap_err().to_string(), "no user no-such-user-here");
    }
}

//! Programs: those that check, and those that are told of changes.

use std::process::{ExitStatus, Stdio};

use lb_config::health::{FullTarget, ScriptCheck};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};
use tokio::process::Command;

use super::{Failure, Outcome, Say};

pub(super) async fn check(script: &ScriptCheck, target: &FullTarget) -> Result<Outcome, Failure> {
    let env = [("SLUICE_SERVER", target.to.to_string())];
    let status = run_command(&script.command, script.user.as_deref(), &env).await?;
    let code = status.code().ok_or_else(|| Failure(format!("ended by a signal: {status}")))?;
    match code {
        0 => Ok(Outcome::pass("exit code 0")),
        // misc_dynamic of keepalived.
        2.. if script.dynamic => {
            let weight = u32::try_from(code - 2).unwrap_or(0);
            Ok(Outcome::Pass { why: format!("exit code {code}"), say: Say::Weight(weight) })
        }
        code => Err(format!("exit code {code}").into()),
    }
}

/// Kills a program with all that it started, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself meanwhile.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

/// Runs a program as `user` to its end; dropped before, it is killed with all that it started.
///
/// Errors: there is no such user, or it cannot be started.
pub(in crate::health) async fn run_command(
    argv: &[String],
    user: Option<&str>,
    env: &[(&str, String)],
) -> Result<ExitStatus, Failure> {
    let [program, arguments @ ..] = argv else { return Err("no program".into()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.envs(env.iter().map(|(key, value)| (key, value))).process_group(0).kill_on_drop(true);
    if let Some(name) = user {
        let owned = name.to_owned();
        // The user database may be remote and slow.
        let found = tokio::task::spawn_blocking(move || User::from_name(&owned)).await;
        let found = found.map_err(|error| Failure(error.to_string()))?;
        match found {
            Ok(Some(user)) => command.uid(user.uid.as_raw()).gid(user.gid.as_raw()),
            Ok(None) => return Err(format!("there is no user {name}").into()),
            Err(error) => return Err(format!("user {name}: {error}").into()),
        };
    }
    let mut child =
        command.spawn().map_err(|error| Failure(format!("{program}: {}", Failure::from(error).0)))?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut group = Group(leader);
    let status = child.wait().await?;
    // Its number may belong to another one from now on.
    group.0 = None;
    Ok(status)
}

//! Waiting on conditions.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks at a condition.
const STEP: Duration = Duration::from_millis(20);

/// Waits until `condition` holds.
///
/// Errors: `what` did not become true within `limit`; the error carries what the condition said last.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let last = condition();
        match last {
            Ok(true) => return Ok(()),
            Ok(false) if start.elapsed() > limit => bail!("not within {limit:?}: {what}"),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("not within {limit:?}: {what}")));
            }
            _ => thread::sleep(STEP),
        }
    }
}

/// Calls what a signal may end early until it ends otherwise. With a limit of time a socket does not go on by itself,
/// and the end of a child process is a signal for any thread.
///
/// Errors: those of `call`.
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_condition_and_gives_up_after_the_limit() {
        let mut calls = 0;
        let third = || {
            calls += 1;
            Ok(calls == 3)
        };
        wait_until("third call", Duration::from_secs(5), third).unwrap();
        let error = wait_until("never", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "not within 1ms: never");
    }
}

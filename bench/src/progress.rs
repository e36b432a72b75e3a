//! A progress bar on standard error; where that is no terminal, a line when something is done.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Least time between two drawings.
const PERIOD: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 24;

/// A bar; it goes away when dropped.
pub struct Progress {
    label: String,
    total: u64,
    done: u64,
    start: Instant,
    drawn: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// A bar of `total` steps.
    pub fn new(suite: &str, what: &str, total: u64) -> Self {
        let label = format!("{suite}: {what}");
        let mut progress = Self {
            label,
            total,
            done: 0,
            start: Instant::now(),
            drawn: None,
            terminal: stderr().is_terminal(),
        };
        progress.step(0);
        progress
    }

    /// Says that `n` more steps are done.
    pub fn step(&mut self, n: u64) {
        self.done += n;
        if self.terminal && self.drawn.is_none_or(|drawn| drawn.elapsed() > PERIOD) {
            self.drawn = Some(Instant::now());
            let line = line(&self.label, self.done, self.total, self.start.elapsed());
            // a bar that cannot be drawn is no reason to stop
            let _ = write!(stderr(), "\r\x1b[K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let _ = match self.terminal {
            true => write!(stderr(), "\r\x1b[K"),
            false => writeln!(stderr(), "{}: {:.1} s", self.label, self.start.elapsed().as_secs_f64()),
        };
    }
}

fn line(label: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let total = total.max(1);
    let done = done.min(total);
    let full = (done * WIDTH / total) as usize;
    let left = match done {
        0 => String::new(),
        _ => format!(", {:.0} s left", elapsed.as_secs_f64() * (total - done) as f64 / done as f64),
    };
    format!("[{:<width$}] {label} ({done} of {total}{left})", "#".repeat(full), width = WIDTH as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_and_says_what_is_left() {
        let text = line("path: DR", 5, 10, Duration::from_secs(3));
        assert_eq!(text, "[############            ] path: DR (5 of 10, 3 s left)");
        assert!(line("path: DR", 0, 0, Duration::ZERO).ends_with("(0 of 1)"));
    }
}

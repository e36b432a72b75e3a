//! One check, again and again: when it runs, when it counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use lb_config::health::{CheckKind, FullCheck, FullTarget, Rhythm};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use tracing::debug;

use super::check::{Checker, Outcome};
use super::drift::Drift;
use super::watch::Watch;

/// What a check asks, whom and when: checks of which all of this is the same are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbeSpec {
    /// What is asked.
    pub kind: CheckKind,
    /// Whom.
    pub target: FullTarget,
    /// When.
    pub rhythm: Rhythm,
}

impl From<FullCheck> for ProbeSpec {
    fn from(FullCheck { kind, target, rhythm, .. }: FullCheck) -> Self {
        Self { kind, target, rhythm }
    }
}

/// What a check says of the weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Say {
    /// Nothing.
    #[default]
    Nothing,
    /// It is this.
    Weight(u32),
    /// It is so much more than configured.
    Offset(i64),
}

/// What is held to be true after retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the check passes.
    pub up: bool,
    /// Of the weight.
    pub say: Say,
    /// Why, in words.
    pub why: String,
}

/// A verdict that differs from the one before.
#[derive(Debug)]
pub struct Report {
    /// Which probe.
    pub probe: Arc<ProbeSpec>,
    /// What it found.
    pub verdict: Verdict,
}

/// What a probe saw last. engine: wo, control core: ro.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When the last check ended; `None`: none has.
    pub at: Option<SystemTime>,
    /// Whether it passed.
    pub passed: bool,
    /// Its result in words.
    pub why: String,
    /// How long it took.
    pub took: Duration,
    /// When the next one starts; `None`: one runs, or waits for its turn.
    pub next: Option<Instant>,
    /// Failures in a row.
    pub failures: u32,
    /// Checks since the start.
    pub checks: u64,
}

/// [`Seen`], shared between the engine and who shows it.
#[derive(Debug, Default)]
pub struct Status(Mutex<Seen>);

impl Status {
    /// What was seen last.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all probes of an engine share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Checks at a time.
    pub permits: Semaphore,
    pub reports: mpsc::UnboundedSender<Report>,
    pub drift: Arc<Drift>,
}

/// Decides what follows from a check's outcome.
#[derive(Debug, Default)]
pub(super) struct Judge {
    verdict: Option<Verdict>,
    pub failures: u32,
}

/// What a [`Judge`] decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// A verdict that is new or differs.
    pub news: Option<Verdict>,
    /// The next check comes so long after this one's end; `None`: at the next interval.
    pub again: Option<Duration>,
}

impl Judge {
    pub fn judge(&mut self, outcome: Outcome, rhythm: &Rhythm) -> Judged {
        let is_down = self.verdict.as_ref().is_some_and(|verdict| !verdict.up);
        let (verdict, again) = match outcome {
            Outcome::Pass { why, say } => {
                self.failures = 0;
                (Verdict { up: true, say, why }, None)
            }
            Outcome::Fail { why } => {
                self.failures = self.failures.saturating_add(1);
                if self.failures <= rhythm.retries && !is_down {
                    return Judged { news: None, again: Some(rhythm.retry_delay) };
                }
                let again = rhythm.fast_recovery.then_some(rhythm.retry_delay);
                (Verdict { up: false, say: Say::Nothing, why }, again)
            }
        };
        let same = |old: &Verdict| (old.up, old.say) == (verdict.up, verdict.say);
        let news = (!self.verdict.as_ref().is_some_and(same)).then(|| verdict.clone());
        self.verdict = Some(verdict);
        Judged { news, again }
    }
}

/// Runs a probe until its task is ended.
pub(super) async fn run(spec: Arc<ProbeSpec>, status: Arc<Status>, shared: Arc<Shared>) {
    let rhythm = spec.rhythm;
    let mut checker = Checker::new(&spec);
    let mut watch = match &spec.kind {
        CheckKind::File(file) => Watch::new(&file.path),
        _ => None,
    };
    let mut judge = Judge::default();
    let mut next = Instant::now() + part_of(rhythm.warmup);
    loop {
        status.lock().next = Some(next);
        let timely = tokio::select! {
            () = sleep_until(next) => true,
            () = changed(&mut watch) => false,
        };
        // The semaphore is never closed.
        let Ok(permit) = shared.permits.acquire().await else { return };
        let start = Instant::now();
        match timely {
            true => shared.drift.record(start.saturating_duration_since(next)),
            false => next = start,
        }
        status.lock().next = None;
        let outcome = timeout(rhythm.timeout, checker.run()).await;
        let outcome = outcome.unwrap_or_else(|_| checker.timed_out(rhythm.timeout));
        drop(permit);
        let end = Instant::now();
        let (passed, why) = match &outcome {
            Outcome::Pass { why, .. } => (true, why.clone()),
            Outcome::Fail { why } => (false, why.clone()),
        };
        if !passed {
            debug!(check = spec.kind.name(), to = %spec.target.to, why, "health check failed");
        }
        let judged = judge.judge(outcome, &rhythm);
        next = match judged.again {
            Some(delay) => end + delay,
            // By the clock, not by the end of the last one; what was missed is not made up for.
            None => following(next, rhythm.interval, end),
        };
        {
            let mut seen = status.lock();
            let checks = seen.checks + 1;
            *seen = Seen {
                at: Some(SystemTime::now()),
                passed,
                why,
                took: end - start,
                next: Some(next),
                failures: judge.failures,
                checks,
            };
        }
        if let Some(verdict) = judged.news {
            // Nobody listens any more when lbd ends.
            let _ = shared.reports.send(Report { probe: spec.clone(), verdict });
        }
    }
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// The first of `from + n * interval` that is not before `now`.
fn following(from: Instant, interval: Duration, now: Instant) -> Instant {
    let next = from + interval;
    if next >= now {
        return next;
    }
    let missed = (now - next).as_nanos() / interval.as_nanos().max(1) + 1;
    u32::try_from(missed)
        .ok()
        .and_then(|missed| next.checked_add(interval.checked_mul(missed)?))
        .unwrap_or(now)
}

/// A random part of `whole`, in milliseconds.
fn part_of(whole: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Each state has keys of its own, which come from the system's random numbers.
    let random = RandomState::new().hash_one(());
    let whole = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(if whole == 0 { 0 } else { random % whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rhythm(retries: u32, fast_recovery: bool) -> Rhythm {
        Rhythm {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            retries,
            retry_delay: Duration::from_millis(300),
            warmup: Duration::ZERO,
            fast_recovery,
        }
    }

    fn pass() -> Outcome {
        Outcome::Pass { why: "ok".into(), say: Say::Nothing }
    }

    fn fail() -> Outcome {
        Outcome::Fail { why: "no".into() }
    }

    /// The verdicts' changes as `u`, `d` or `.`, and `!` where the next check comes early.
    fn story(outcomes: &str, rhythm: &Rhythm) -> String {
        let mut judge = Judge::default();
        let mut text = String::new();
        for outcome in outcomes.chars() {
            let judged = judge.judge(if outcome == '+' { pass() } else { fail() }, rhythm);
            text.push(match judged.news {
                Some(Verdict { up: true, .. }) => 'u',
                Some(_) => 'd',
                None => '.',
            });
            if judged.again.is_some() {
                text.push('!');
            }
        }
        text
    }

    #[test]
    fn failures_are_forgiven_as_often_as_configured() {
        assert_eq!(story("++--+---+", &rhythm(2, false)), "u..!.!..!.!du");
        assert_eq!(story("+-+-", &rhythm(0, false)), "udud");
        assert_eq!(story("---+", &rhythm(1, false)), ".!d.u");
    }

    #[test]
    fn a_server_that_is_down_is_asked_more_often_where_that_is_wanted() {
        assert_eq!(story("---+", &rhythm(1, true)), ".!d!.!u");
    }

    #[test]
    fn another_weight_is_news() {
        let mut judge = Judge::default();
        let mut weight = |n| {
            let outcome = Outcome::Pass { why: String::new(), say: Say::Weight(n) };
            judge.judge(outcome, &rhythm(1, false)).news.is_some()
        };
        assert_eq!([weight(3), weight(3), weight(4)], [true, false, true]);
    }

    #[test]
    fn checks_keep_to_their_grid() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let step = Duration::from_millis(100);
        assert_eq!(following(start, step, ms(20)), ms(100));
        assert_eq!(following(start, step, ms(100)), ms(100));
        assert_eq!(following(start, step, ms(101)), ms(200));
        assert_eq!(following(start, step, ms(1234)), ms(1300));
    }

    #[test]
    fn the_spread_covers_its_whole() {
        let whole = Duration::from_secs(1);
        let parts: Vec<_> = (0..200).map(|_| part_of(whole)).collect();
        assert!(parts.iter().all(|part| *part < whole));
        assert!(parts.iter().any(|part| *part < whole / 4) && parts.iter().any(|part| *part > whole * 3 / 4));
        assert_eq!(part_of(Duration::ZERO), Duration::ZERO);
    }
}

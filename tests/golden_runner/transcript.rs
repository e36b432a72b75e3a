//! Replays transcripts: every command in the shell of `programs`, its output line by line.

use anyhow::Result;

use crate::control::Control;
use crate::hosts::Hosts;
use crate::lab::{Mark, Settings};
use crate::load::{Command, Step, Transcript};
use crate::programs::{Done, KernelFile, Shell};
use crate::refusals::Refusals;
use crate::report::Findings;

/// Replays a file.
pub fn replay(vectors: &Transcript, findings: &mut Findings) {
    findings.begin("lab");
    let mut run = match Run::new(vectors) {
        Ok(run) => run,
        Err(error) => return findings.fault("lab", "replay", &format!("{error:#}")),
    };
    for (at, step) in vectors.steps.iter().enumerate() {
        match step {
            Step::Note(note) => {
                findings.begin(format!("{at}: # {}", note.note));
                if let Err(error) = run.note(&note.note) {
                    findings.fault("note", "replay", &format!("{error:#}"));
                }
            }
            Step::Command(command) => {
                findings.begin(format!("{at}: {}", command.cmd));
                run.command(command, findings);
            }
        }
    }
}

/// A little more than the period of the estimator, ms.
const TICK_MS: u64 = 2_200;
/// Longest time that a listing of connections may show to have passed unrecorded, seconds.
const UNRECORDED_S: i64 = 60;
/// How far our clock may be ahead of the recording's, seconds: two periods of the estimator were waited for.
const AHEAD_S: i64 = -4;
/// Longest time that is looked for between two steps of a recording, ms: two periods of the estimator.
const UNRECORDED_MS: u64 = 4_500;

/// What `-R` says when it refused a rule file as a whole.
const NOT_RESTORED: &str = "nothing was restored, because of";
/// What the lines begin with that `-S` adds.
const COMMENT: &str = "# sluice: ";

struct Run {
    shell: Shell,
    refusals: Refusals,
}

impl Run {
    fn new(vectors: &Transcript) -> Result<Self> {
        // the recordings mark what goes to the virtual address; the rule itself was set before the recording
        let marks = vectors.steps.iter().filter_map(|step| match step {
            Step::Command(command) => mark_of(&command.cmd),
            Step::Note(_) => None,
        });
        let with_traffic =
            vectors.steps.iter().any(|step| matches!(step, Step::Command(c) if c.cmd.contains("$VIP")));
        let mark = marks.reduce(|_, last| last).filter(|_| with_traffic);
        let to_vip = |value| Mark { value, destination: Some("10.0.0.100/32".to_owned()), ..Mark::default() };
        let settings = Settings { marks: mark.map(to_vip).into_iter().collect(), ..Settings::default() };
        let shell = Shell::new(Hosts::new(Control::new(&settings)?));
        Ok(Self { shell, refusals: Refusals::default() })
    }

    /// What a note says was done without being recorded.
    fn note(&mut self, note: &str) -> Result<()> {
        let words: Vec<_> = note.split(' ').collect();
        if let [count, "of", "the", "NAT", "connections", "end"] = words[..] {
            let count = ["one", "two", "three", "four"].iter().position(|word| *word == count);
            let count = count.ok_or_else(|| anyhow::anyhow!("the note {note:?} is not understood"))?;
            self.shell.end_held(count + 1)?;
        }
        // the recording slept until then
        if note.contains("at the 2-second estimator tick") {
            self.shell.hosts.control.lab.wait(TICK_MS);
        }
        Ok(())
    }

    fn command(&mut self, command: &Command, findings: &mut Findings) {
        if !command.kmsg.is_empty() {
            findings.meant(
                "kernel-log",
                "command",
                "kmsg",
                &command.kmsg.join("; "),
                "lbd logs its own words",
            );
        }
        let done = match self.shell.run(&command.cmd) {
            Ok(done) => done,
            Err(error) if error.is::<KernelFile>() => {
                return findings.meant(
                    "kernel-files",
                    "command",
                    "stdout",
                    &command.stdout,
                    &error.to_string(),
                );
            }
            Err(error) => return findings.fault("command", "replay", &format!("{error:#}")),
        };
        let done = self.catch_up(command, done);
        if done.stderr.contains(NOT_RESTORED) && !command.stderr.contains(NOT_RESTORED) {
            return findings.meant("atomic-restore", "command", "stdout", &command.stdout, &done.stderr);
        }
        let wanted =
            Done { code: command.rc, stdout: command.stdout.clone(), stderr: command.stderr.clone() };
        if (wanted.code, &wanted.stderr) != (done.code, &done.stderr)
            && let Some(rule) = self.refusals.explain(&command.cmd, &wanted, &done)
        {
            let show = |done: &Done| format!("{} {}", done.code, done.stderr.trim());
            return findings.meant(rule, "command", "rc", &show(&wanted), &show(&done));
        }
        findings.check("command", "rc", &wanted.code.to_string(), &done.code.to_string());
        findings.check("command", "stderr", &wanted.stderr, &done.stderr);
        let (stdout, rules) = self.refusals.take_out(&wanted.stdout);
        let without = !rules.is_empty() && wanted.stdout != done.stdout;
        let expected = if without { &stdout } else { &wanted.stdout };
        let got = if without { self.refusals.take_out(&done.stdout).0 } else { done.stdout.clone() };
        for rule in rules.iter().filter(|_| without) {
            findings.meant(rule, "command", "stdout", "listed", "was refused");
        }
        for finding in compare(&self.shell, &command.cmd, expected, &got) {
            match finding {
                Finding::Meant(rule, expected, got) => {
                    findings.meant(rule, "command", "stdout", &expected, &got)
                }
                Finding::Differs => {
                    findings.check("command", "stdout", expected, &got);
                }
            }
        }
        findings.check("command", "understood", "", "");
    }

    /// Lets the time pass that passed in the recording without a command that says so: timers in a listing of
    /// connections tell how much; counters and rates move at the estimator's next tick.
    fn catch_up(&mut self, command: &Command, first: Done) -> Done {
        let listing = command.cmd.starts_with("ipvsadm -L") && !command.cmd.contains([';', '&']);
        if !listing || first.code != command.rc {
            return first;
        }
        let behind = u64::try_from(behind(&command.stdout, &first.stdout)).unwrap_or_default();
        let again = |run: &mut Self| run.shell.run(&command.cmd).unwrap_or_default();
        if behind > 0 {
            self.shell.hosts.control.lab.wait(behind * 1000);
            return again(self);
        }
        let ticks = ["--stats", "--rate"].iter().any(|option| command.cmd.contains(option));
        let mut done = first.clone();
        let mut waited = 0;
        while ticks && waited < UNRECORDED_MS {
            let found = compare(&self.shell, &command.cmd, &command.stdout, &done.stdout);
            if !found.iter().any(|finding| matches!(finding, Finding::Differs)) {
                return done;
            }
            self.shell.hosts.control.lab.wait(100);
            waited += 100;
            done = again(self);
        }
        done
    }
}

/// The mark of a firewall-mark service that a command makes.
fn mark_of(line: &str) -> Option<u32> {
    let words: Vec<_> = line.split_whitespace().collect();
    let made =
        words.first() == Some(&"ipvsadm") && words.get(1) == Some(&"-A") && words.get(2) == Some(&"-f");
    words.get(3).filter(|_| made)?.parse().ok()
}

enum Finding {
    Meant(&'static str, String, String),
    Differs,
}

/// A line of a listing of connections: what it is without its time, and the seconds left.
fn connection(line: &str) -> Option<(String, u64)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (minutes, seconds) = words.get(1)?.split_once(':')?;
    let left = minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?;
    let known = matches!(words[0], "TCP" | "UDP" | "SCTP" | "IP" | "ICMP");
    known.then(|| (without_ephemeral(&line.replacen(words[1], "MM:SS", 1)), left))
}

/// Ports that a kernel chose: iperf3's.
fn without_ephemeral(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let chosen = |word: &&str| {
        word.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|p| p >= 50_000))
    };
    match words.get(3).filter(|word| chosen(word)) {
        Some(word) => line.replacen(word, "EPHEMERAL", 1),
        None => line.to_owned(),
    }
}

/// Seconds by which the timers of a recording are further on than ours, all by the same: the shift with which most
/// agree. Less than 0: more time was let pass here (up to the estimator's tick, say) than in the recording.
fn behind(expected: &str, got: &str) -> i64 {
    let rows = |text: &str| text.lines().filter_map(connection).collect::<Vec<_>>();
    let (wanted, ours) = (rows(expected), rows(got));
    let agree = |shift: i64| {
        let mut ours = ours.clone();
        let agrees = wanted.iter().filter(|(row, left)| {
            let same = |(other, time): &(String, u64)| other == row && is_same_time(*time, *left, shift);
            let at = ours.iter().position(same);
            at.map(|at| ours.swap_remove(at)).is_some()
        });
        agrees.count()
    };
    let shifts = (0..=UNRECORDED_S).flat_map(|shift| [shift, -shift]).filter(|shift| *shift >= AHEAD_S);
    // of equals the first: the smallest
    shifts.rev().max_by_key(|shift| agree(*shift)).unwrap_or_default()
}

/// Whether two readings of a timer agree, ours taken `shift` seconds too early. One second is the difference between
/// two readings of one timer.
fn is_same_time(ours: u64, expected: u64, shift: i64) -> bool {
    (ours as i64 - shift).abs_diff(expected as i64) <= 1
}

/// Compares what a command printed.
fn compare(shell: &Shell, line: &str, expected: &str, got: &str) -> Vec<Finding> {
    if expected == got {
        return Vec::new();
    }
    if expected.lines().chain(got.lines()).any(|line| connection(line).is_some()) {
        return compare_connections(line, expected, got);
    }
    let without: String =
        got.lines().filter(|line| !line.starts_with(COMMENT)).map(|line| format!("{line}\n")).collect();
    if without == expected {
        let comments: Vec<_> = got.lines().filter(|line| line.starts_with(COMMENT)).collect();
        return vec![Finding::Meant("save-comments", String::new(), comments.join("; "))];
    }
    compare_counters(shell, expected, got).unwrap_or_else(|| vec![Finding::Differs])
}

fn compare_connections(line: &str, expected: &str, got: &str) -> Vec<Finding> {
    let rest =
        |text: &str| text.lines().filter(|line| connection(line).is_none()).collect::<Vec<_>>().join("\n");
    let rows = |text: &str| text.lines().filter_map(connection).collect::<Vec<_>>();
    let (wanted, mut ours) = (rows(expected), rows(got));
    let mut findings = Vec::new();
    let order = |rows: &[(String, u64)]| rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>();
    if rest(expected) != rest(got) || wanted.len() != ours.len() {
        return vec![Finding::Differs];
    }
    if order(&wanted) != order(&ours) && !line.contains("sort") {
        let finding = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        findings.push(Finding::Meant("hash-order", finding(expected), finding(got)));
    }
    let shift = behind(expected, got);
    for (row, left) in wanted {
        let same = |(other, time): &(String, u64)| *other == row && is_same_time(*time, left, shift);
        let Some(at) = ours.iter().position(same) else { return vec![Finding::Differs] };
        let (_, other) = ours.swap_remove(at);
        if other != left {
            findings.push(Finding::Meant("second", format!("{row} {left}"), other.to_string()));
        }
    }
    findings
}

/// Counters of a bulk transfer: the packets that the kernel counts are its own segments, up to 64 KiB long.
fn compare_counters(shell: &Shell, expected: &str, got: &str) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    if expected.lines().count() != got.lines().count() {
        return None;
    }
    let port = |line: &str| shell.bulk.iter().any(|to| line.contains(&format!(":{} ", to.port())));
    for (wanted, ours) in expected.lines().zip(got.lines()) {
        if wanted == ours {
            continue;
        }
        let (a, b): (Vec<_>, Vec<_>) =
            (wanted.split_whitespace().collect(), ours.split_whitespace().collect());
        let unit = |word: &str| word.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
        let alike = |(a, b): (&&str, &&str)| unit(a) == unit(b) && (*a == "0") == (*b == "0");
        let numbers = a.len().saturating_sub(4);
        let bulk = port(wanted)
            && a.len() == b.len()
            && wanted.len() == ours.len()
            && a[..=numbers - 1] == b[..=numbers - 1];
        if !bulk || !a.iter().zip(&b).skip(numbers).all(alike) {
            return None;
        }
        findings.push(Finding::Meant("segmentation", wanted.to_owned(), ours.to_owned()));
    }
    Some(findings)
}

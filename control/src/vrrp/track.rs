//! Looks after scripts, processes and files that instances track. A thread per script, one for the rest.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use lb_config::{Tracked, VrrpFile, VrrpProcess, VrrpScript};
use tracing::{info, warn};

use super::engine::{Program, Standing};
use super::notify;

/// How often processes and files are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Longest number in a file, bytes.
const FILE_LEN: usize = 128;

/// What is tracked.
pub type Wanted = (Vec<VrrpScript>, Vec<VrrpProcess>, Vec<VrrpFile>);

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of what.
    pub what: Tracked,
    /// How it stands.
    pub standing: Standing,
}

/// The threads; dropped, they end.
#[derive(Debug)]
pub struct Tracker {
    wanted: Wanted,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Where results go, and whom to wake for them.
#[derive(Clone)]
struct Desk {
    reports: Sender<Report>,
    reader: Thread,
    stop: Arc<AtomicBool>,
}

impl Desk {
    fn tell(&self, what: Tracked, up: bool, number: i32) {
        // Nobody is there at the end.
        let _ = self.reports.send(Report { what, standing: Standing { up, number } });
        self.reader.unpark();
    }

    /// Sleeps until `until`; `false`: it is to end.
    fn sleep(&self, until: Instant) -> bool {
        while !self.stop.load(Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
        false
    }
}

impl Tracker {
    /// Starts threads for `wanted`; `reader` is woken for each result. Errors: the system gives no thread.
    pub fn start(wanted: Wanted, reports: Sender<Report>, reader: Thread) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let desk = Desk { reports, reader, stop: stop.clone() };
        let mut tracker = Self { wanted: wanted.clone(), stop, threads: Vec::new() };
        let (scripts, processes, files) = wanted;
        for script in scripts {
            let desk = desk.clone();
            let work = move || run_script(&script, &desk);
            tracker.threads.push(thread::Builder::new().name("vrrp-script".into()).spawn(work)?);
        }
        if !processes.is_empty() || !files.is_empty() {
            let work = move || look(&processes, &files, &desk);
            tracker.threads.push(thread::Builder::new().name("vrrp-track".into()).spawn(work)?);
        }
        Ok(tracker)
    }

    /// Whether it tracks just this.
    pub fn is_of(&self, wanted: &Wanted) -> bool {
        self.wanted == *wanted
    }
}

impl Drop for Tracker {
    /// Does not wait: a script that runs is killed by its thread at its timeout at the latest, whose result nobody
    /// takes for that of another.
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.iter().for_each(|thread| thread.thread().unpark());
    }
}

/// Counts results in a row.
#[derive(Debug)]
struct Count {
    rise: u8,
    fall: u8,
    up: Option<bool>,
    row: u8,
    last: Option<bool>,
}

impl Count {
    fn new(script: &VrrpScript) -> Self {
        let up = if script.init_fail { Some(false) } else { None };
        Self { rise: script.rise, fall: script.fall, up, row: 0, last: None }
    }

    /// Whether it is up after `result`, when that is news. The first result counts at once, as in keepalived.
    fn take(&mut self, result: bool) -> Option<bool> {
        self.row = if self.last == Some(result) { self.row.saturating_add(1) } else { 1 };
        self.last = Some(result);
        let enough = self.row >= if result { self.rise } else { self.fall };
        if self.up == Some(result) || !(enough || self.up.is_none()) {
            return None;
        }
        self.up = Some(result);
        Some(result)
    }
}

fn run_script(script: &VrrpScript, desk: &Desk) {
    let mut count = Count::new(script);
    let program = Program { command: script.command.clone(), user: script.user.clone() };
    let mut next = Instant::now();
    let mut cannot = false;
    while desk.sleep(next) {
        let begun = Instant::now();
        let result = match notify::spawn(&program) {
            Ok(mut child) => notify::wait(&mut child, begun + script.timeout).unwrap_or(false),
            Err(error) => {
                if !std::mem::replace(&mut cannot, true) {
                    warn!(script = %script.name, %error, "cannot run a script that is tracked");
                }
                false
            }
        };
        if desk.stop.load(Relaxed) {
            return;
        }
        if let Some(up) = count.take(result) {
            info!(script = %script.name, up, "tracked script");
            desk.tell(Tracked::Script(script.name.clone()), up, 0);
        }
        next = (next + script.interval).max(Instant::now());
    }
}

/// Names and arguments of all processes.
fn processes() -> Vec<Vec<String>> {
    let of = |entry: fs::DirEntry| -> Option<Vec<String>> {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let text = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<String> =
            text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        (!text.is_empty()).then_some(words)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
}

/// Whether a process was started as `wanted`: its file's name or path, and the arguments that are given.
fn is_process(words: &[String], wanted: &[String]) -> bool {
    let (Some(word), Some(name)) = (words.first(), wanted.first()) else { return false };
    let file = Path::new(word).file_name().is_some_and(|file| file.to_string_lossy() == *name);
    let named = word == name || file;
    let rest = wanted.get(1..).unwrap_or_default();
    named && words.get(1..1 + rest.len()) == Some(rest)
}

/// The number in a file; 0 when there is none, as in keepalived.
fn number(path: &str) -> i32 {
    let text = fs::read(path).unwrap_or_default();
    let text = text.get(..text.len().min(FILE_LEN)).unwrap_or_default();
    let word = String::from_utf8_lossy(text);
    word.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn look(wanted: &[VrrpProcess], files: &[VrrpFile], desk: &Desk) {
    // what was told, and since when it is otherwise
    let mut told: Vec<(Option<bool>, Option<Instant>)> = vec![(None, None); wanted.len()];
    let mut numbers: Vec<Option<i32>> = vec![None; files.len()];
    let mut next = Instant::now();
    while desk.sleep(next) {
        let running = if wanted.is_empty() { Vec::new() } else { processes() };
        for (process, (told, since)) in wanted.iter().zip(&mut told) {
            let count = running.iter().filter(|words| is_process(words, &process.command)).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let up = count >= process.quorum && (process.quorum_max == 0 || count <= process.quorum_max);
            if *told == Some(up) {
                *since = None;
                continue;
            }
            let changed = *since.get_or_insert_with(Instant::now);
            if told.is_none() || changed.elapsed() >= process.delay {
                (*told, *since) = (Some(up), None);
                info!(process = %process.name, running = count, up, "tracked process");
                desk.tell(Tracked::Process(process.name.clone()), up, 0);
            }
        }
        for (file, known) in files.iter().zip(&mut numbers) {
            let number = number(&file.path);
            if known.replace(number) != Some(number) {
                desk.tell(Tracked::File(file.name.clone()), true, number);
            }
        }
        next = (next + LOOK).max(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn rise_and_fall_count_results_in_a_row() {
        let script = VrrpScript { rise: 2, fall: 3, ..VrrpScript::default() };
        let mut count = Count::new(&script);
        let results = [true, false, false, true, false, false, false, false, true, false, true, true];
        let told: Vec<_> = results.into_iter().map(|result| count.take(result)).collect();
        let (up, down, no) = (Some(true), Some(false), None);
        assert_eq!(told, [up, no, no, no, no, no, down, no, no, no, no, up]);
        let mut strict = Count::new(&VrrpScript { init_fail: true, ..script });
        assert_eq!([true, true].map(|result| strict.take(result)), [no, up]);
    }

    #[test]
    fn a_process_is_known_by_name_path_and_arguments() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let running = words("/usr/sbin/nginx -g off");
        for good in ["nginx", "/usr/sbin/nginx", "nginx -g", "nginx -g off"] {
            assert!(is_process(&running, &words(good)), "{good}");
        }
        for bad in ["ngin", "nginx off", "/sbin/nginx", "nginx -g off more"] {
            assert!(!is_process(&running, &words(bad)), "{bad}");
        }
    }

    #[test]
    fn results_of_scripts_processes_and_files_come() {
        let dir = std::env::temp_dir().join(format!("sluice-track-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (flag, weight) = (dir.join("flag"), dir.join("weight"));
        fs::write(&weight, "7\n").unwrap();
        let script = VrrpScript {
            name: "flag".to_owned(),
            command: vec!["/bin/test".to_owned(), "-e".to_owned(), flag.display().to_string()],
            interval: Duration::from_millis(20),
            ..VrrpScript::default()
        };
        let process = VrrpProcess {
            name: "none".to_owned(),
            command: vec!["no-such-program-runs".to_owned()],
            ..VrrpProcess::default()
        };
        let file = VrrpFile { name: "weight".to_owned(), path: weight.display().to_string(), weight: 1 };
        let (sender, reports) = channel();
        let tracker =
            Tracker::start((vec![script], vec![process], vec![file]), sender, thread::current()).unwrap();
        let next = || reports.recv_timeout(Duration::from_secs(10)).unwrap();
        let mut first = [next(), next(), next()];
        first.sort_by_key(|report| report.what.kind());
        assert_eq!(first[0].standing, Standing { up: true, number: 7 });
        assert_eq!(first[1].standing, Standing { up: false, number: 0 });
        assert_eq!(first[2].standing, Standing { up: false, number: 0 });
        fs::write(&flag, "").unwrap();
        assert_eq!((next().what, true), (Tracked::Script("flag".to_owned()), true));
        fs::write(&weight, "-3").unwrap();
        assert_eq!(next().standing, Standing { up: true, number: -3 });
        drop(tracker);
        fs::remove_dir_all(dir).unwrap();
    }
}

//! Health checks: dead servers leave the rotation, and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_control::api::{EventList, HealthTable};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::{Director, PATIENCE};
use lb_tests::lab::{Lab, VIP};
use lb_tests::wait::wait_until;
use nix::sys::signal::Signal;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_killed_nginx_leaves_the_rotation_in_time_and_comes_back", killed),
        Case::new("a_server_gets_nothing_before_its_first_success_and_a_sorry_server_stands_in", unknown),
    ]
}

/// What a dead server's leaving may take as configured below: interval + retries * retry_delay, as a closed port answers
/// at once.
const CONFIGURED: Duration = Duration::from_millis(200 + 100);

/// What a busy machine and a client that is a new process each time add.
const SLACK: Duration = Duration::from_secs(2);

fn checked(more: &str) -> Config {
    let mut service = Service::tcp("web", 80, "rr", &["192.168.150.12", "192.168.150.13"]);
    service.more = format!(
        "[services.health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\nretries = 1\nretry_delay = \"100ms\"\n\
         warmup = \"100ms\"\n{more}\n[[services.health.checks]]\ntype = \"http\"\nstatus = 200\n"
    );
    Config::with(vec![service])
}

/// One request: when it began and ended, and who answered.
struct Asked {
    begin: Instant,
    end: Instant,
    answer: Result<String>,
}

/// Asks the VIP again and again, each time over a connection of its own.
struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Asked>>,
}

impl Client {
    fn start(lab: &Lab) -> Self {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), lab.client.name().to_owned());
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let url = format!("http://{VIP}/");
            let argv = ["ip", "netns", "exec", &client, "curl", "-sS", "--max-time", "5", &url];
            let mut asked = Vec::new();
            while !seen.load(SeqCst) {
                let begin = Instant::now();
                let answer = lb_tests::process::run(&argv).map(|text| text.trim().to_owned());
                asked.push(Asked { begin, end: Instant::now(), answer });
            }
            asked
        });
        Self { stop, thread }
    }

    fn finish(self) -> Result<Vec<Asked>> {
        self.stop.store(true, SeqCst);
        self.thread.join().map_err(|_| anyhow!("the client panicked"))
    }
}

fn states(director: &Director) -> Result<Vec<String>> {
    let table: HealthTable = director.json(&["health", "web"])?;
    let service = table.services.first().context("web has health checks")?;
    Ok(service.servers.iter().map(|server| server.state.clone()).collect())
}

fn wait_states(director: &Director, want: [&str; 2]) -> Result<()> {
    wait_until(&format!("the servers are {want:?}"), PATIENCE, || Ok(states(director)? == want))
}

fn killed(lab: &mut Lab) -> Result<()> {
    lab.management()?;
    let mut nginx = lab.start_nginx()?;
    lab.start_director(&checked(""))?;
    let director = lab.director()?;
    wait_states(director, ["up", "up"])?;
    let client = Client::start(lab);
    std::thread::sleep(Duration::from_secs(1));

    let killing = Instant::now();
    // SIGKILL would leave its workers, which go on serving; this ends them all at once.
    nginx[0].signal(Signal::SIGTERM)?;
    wait_states(director, ["down", "up"])?;
    let down = Instant::now();
    // What ipvsadm's users look at: a failed server is not in the list.
    let list = director.ask(&["ipvsadm", "-Ln"])?;
    ensure!(!list.contains("192.168.150.12") && list.contains("192.168.150.13"), "{list}");
    let saved = director.ask(&["show"])?;
    ensure!(
        saved.contains("192.168.150.12") && !saved.contains("weight = 0"),
        "state is in the file: {saved}"
    );
    ensure!(director.server("web", "192.168.150.12")?.state == "down", "server list says otherwise");
    std::thread::sleep(Duration::from_secs(1));

    nginx[0] = lab.nginx(&lab.servers[0])?;
    wait_states(director, ["up", "up"])?;
    let up = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let asked = client.finish()?;
    let back = asked.iter().filter(|one| one.begin > up);
    ensure!(back.clone().count() > 4, "the client asked too seldom");
    for server in ["from 192.168.150.12", "from 192.168.150.13"] {
        ensure!(
            back.clone().any(|one| matches!(&one.answer, Ok(text) if text == server)),
            "nothing {server}"
        );
    }
    let mut failed = 0;
    for one in &asked {
        let Err(error) = &one.answer else { continue };
        failed += 1;
        // Only what was under way while the server was dead and could not yet be known to be.
        ensure!(
            one.end > killing && one.begin < killing + CONFIGURED + SLACK && one.begin < down,
            "a request failed that began {:?} after the kill: {error:#}",
            one.begin.saturating_duration_since(killing)
        );
    }
    let events: EventList = director.json(&["events"])?;
    let of = |kind: &str| {
        let server = Some("192.168.150.12:80".to_owned());
        let mut found = events.events.iter().filter(|event| event.event == kind && event.server == server);
        found.next_back().map(|event| event.time_ms).with_context(|| format!("no event {kind}: {events:?}"))
    };
    ensure!(of("down")? < of("up")?, "{events:?}");
    let took = down - killing;
    println!(
        "{} requests, {failed} failed; seen down {took:?} after the kill, configured {CONFIGURED:?}",
        asked.len()
    );
    ensure!(took < CONFIGURED + SLACK, "it took {took:?} to leave the rotation");
    director.wait_conserved()?;
    Ok(())
}

fn unknown(lab: &mut Lab) -> Result<()> {
    lab.management()?;
    let sorry = "quorum = 2\nsorry_server = { address = \"192.168.150.13\" }";
    let mut config = checked(sorry);
    config.services[0].servers.truncate(1);
    // One server of weight 1 never makes a quorum of 2: only the sorry server serves.
    let _nginx = lab.start_nginx()?;
    lab.start_director_unresolved(&config)?;
    let director = lab.director()?;
    let resolved = || director.resolved(&["192.168.150.13"]);
    wait_until("the sorry server is resolved", PATIENCE, resolved)?;
    wait_until("the server is up", PATIENCE, || Ok(states(director)? == ["up"]))?;
    for _ in 0..5 {
        let answer = lab.curl(&format!("http://{VIP}/"))?;
        ensure!(answer == "from 192.168.150.13", "{answer}");
    }
    // A smaller quorum, and it serves itself; a new server is not sent anything before it was checked.
    let file = lab.dir().join("smaller.toml");
    let smaller = checked("").to_toml(&director.socket().to_string_lossy());
    let smaller = smaller.replace("address = \"192.168.150.13\"", "address = \"192.168.150.77\"");
    std::fs::write(&file, smaller)?;
    director.ask(&["apply", &file.to_string_lossy()])?;
    ensure!(states(director)? == ["up", "unknown"], "{:?}", states(director)?);
    for _ in 0..5 {
        let answer = lab.curl(&format!("http://{VIP}/"))?;
        ensure!(answer == "from 192.168.150.12", "{answer}");
    }
    wait_states(director, ["up", "down"])?;
    Ok(())
}

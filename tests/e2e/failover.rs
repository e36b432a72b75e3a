//! A director fails under load and another one goes on with its connections: none breaks, and the gap is measured.
//!
//! Both have the same services and a wire of their own, over which they tell each other of connections. What fails is
//! killed, stopped, ended or unplugged; then it comes back, gets a copy of everything and stands by for the other.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_control::api;
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::{PATIENCE, bin};
use lb_tests::lab::{DIP, Lab, Shape, VIP};
use lb_tests::netns::Netns;
use lb_tests::process::{self, Process};
use lb_tests::servers::ThreadServer;
use lb_tests::wait::{uninterrupted, wait_until};
use nix::sys::signal::Signal;

pub fn cases() -> Vec<Case> {
    let shape = Shape { servers: 3, ..Shape::default() };
    [
        Case::new("killed_directors_break_no_connection", |lab| fail(lab, How::Killed, Way::Direct)),
        Case::new("a_stopped_director_breaks_no_connection", |lab| fail(lab, How::Stopped, Way::Direct)),
        Case::new("a_director_without_its_link_breaks_no_connection", |lab| fail(lab, How::Cut, Way::Direct)),
        Case::new("a_director_that_is_upgraded_breaks_no_connection", |lab| {
            fail(lab, How::Ended, Way::Direct)
        }),
        Case::new("a_killed_director_breaks_no_connection_by_full_nat", |lab| {
            fail(lab, How::Killed, Way::FullNat)
        }),
        Case::new("a_director_takes_over_when_the_connections_are_there_and_not_before", joins),
    ]
    .map(|case| case.shape(shape))
    .into()
}

/// How a director fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Killed,
    Stopped,
    Cut,
    Ended,
}

/// How packets get to the servers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    FullNat,
}

/// The second director's address, in place of a server's.
const SECOND: &str = "192.168.150.21";
/// Where full NAT's packets come from, whoever is master.
pub const LIP: &str = "192.168.150.30";
/// The directors' addresses on their own wire.
const WIRE: [&str; 2] = ["192.168.170.1", "192.168.170.2"];
/// Connections that are held.
pub const HELD: usize = 200;
/// The measured gap, at its best: what BFD takes at 3 x 10 ms, and what follows.
const GAP: Duration = Duration::from_millis(40);
/// How often a failure is tried at most until the gap is as it should be: other work on the machine makes it longer.
const ROUNDS: usize = 4;

/// A director of the two.
pub struct One {
    at: usize,
    pub process: Process,
    socket: PathBuf,
}

fn node(lab: &Lab, at: usize) -> &Netns {
    if at == 0 { &lab.node01 } else { &lab.servers[0].netns }
}

/// Makes a director's node out of the first server, and a wire between the two.
pub fn prepare(lab: &Lab) -> Result<()> {
    let second = &lab.servers[0].netns;
    second.ip("addr flush dev lo")?;
    second.ip("addr flush dev eth0")?;
    second.run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
    for (at, name) in [(0, "node01s"), (1, "node02s")] {
        lab.wire(node(lab, at), name, "sync0")?;
        node(lab, at).ip(&format!("addr add {}/24 dev sync0", WIRE[at]))?;
    }
    Ok(())
}

fn services(lab: &Lab, way: Way) -> Vec<Service> {
    let servers: Vec<&str> = lab.servers[1..].iter().map(|server| server.address.as_str()).collect();
    let mut web = Service::tcp("web", 80, "rr", &servers);
    let mut iperf = Service::tcp("iperf", 5201, "maglev", &servers);
    iperf.more = "maglev_hash = \"source\"".to_owned();
    let udp = Service::udp("echo", 7777, "rr", &servers);
    if way == Way::FullNat {
        for service in [&mut web, &mut iperf] {
            service.more += &format!("\nforwarding = \"fullnat\"\nlocal_addresses = [\"{LIP}\"]");
        }
    }
    vec![web, iperf, udp]
}

/// The configuration of director `at`; `vrrp`: more of its virtual router.
fn config(lab: &Lab, at: usize, way: Way, priority: u8, vrrp: &str) -> Config {
    config_of(services(lab, way), at, priority, vrrp)
}

/// The same with these services.
pub fn config_of(services: Vec<Service>, at: usize, priority: u8, vrrp: &str) -> Config {
    let full_nat = services.iter().any(|service| service.more.contains("fullnat"));
    let lip = if full_nat { format!(", \"{LIP}\"") } else { String::new() };
    let neighbor = if at == 0 { SECOND } else { DIP };
    let more = format!(
        "\n[[vrrp]]\nname = \"vi\"\nport = \"lan\"\nvrid = 51\npriority = {priority}\nvirtual_addresses = [\"{VIP}\"{lip}]\n\
         takeover_bfd = [\"peer\"]\n{vrrp}\n\
         [[bfd]]\nname = \"peer\"\nport = \"lan\"\nneighbor = \"{neighbor}\"\nmin_tx = \"10ms\"\nmin_rx = \"10ms\"\nidle_tx = \"100ms\"\n\
         [[sync]]\nname = \"other\"\nlisten = \"{}:8849\"\npeer = \"{}:8849\"\nkey = \"0123456789abcdef\"\n",
        WIRE[at],
        WIRE[1 - at]
    );
    Config { more, ..Config::with(services) }
}

impl One {
    pub fn start(lab: &Lab, at: usize, config: &Config) -> Result<Self> {
        let name = ["first", "second"][at];
        let path = |ending: &str| lab.dir().join(format!("{name}.{ending}"));
        let (socket, file) = (path("sock"), path("toml"));
        let mut text =
            config.to_toml(&socket.to_string_lossy()).replace("\"e2e\"", &format!("\"e2e-{name}\""));
        if at == 1 {
            text = text.replace("workers = [0]", "workers = [1]");
            let own = text.find("[[services]]").context("a service")?;
            let (head, rest) = text.split_at(own);
            text =
                head.replace(&format!("{DIP}/24"), &format!("{SECOND}/24")).replace("150::11/", "150::21/")
                    + rest;
        }
        std::fs::write(&file, text)?;
        let lbd = bin()?.join("lbd");
        // before other programs where that can be had: what else this machine does is not what is tested
        let first = "chrt -r 5 true 2>/dev/null && exec chrt -r 5 \"$@\"; exec \"$@\"";
        let argv = ["sh", "-c", first, "sh", &*lbd.to_string_lossy(), "--config", &*file.to_string_lossy()];
        let mut process = node(lab, at).start(&argv, &path("log"))?;
        wait_until(&format!("the {name} lbd is ready"), PATIENCE, || {
            ensure!(process.runs()?, "it ended");
            Ok(process.log().contains("lbd is ready"))
        })
        .with_context(|| process.log())?;
        Ok(Self { at, process, socket })
    }

    pub fn ask<T: serde::de::DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let lbctl = bin()?.join("lbctl");
        let mut argv = vec![lbctl.to_string_lossy().into_owned(), "--socket".to_owned()];
        argv.push(self.socket.to_string_lossy().into_owned());
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        argv.push("--json".to_owned());
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        Ok(serde_json::from_str(&process::run(&argv)?)?)
    }

    pub fn evidence(&self) -> String {
        let sync: Result<api::SyncStatus> = self.ask(&["sync"]);
        let vrrp: Result<api::Vrrp> = self.ask(&["vrrp"]);
        let stats: Result<api::Stats> = self.ask(&["stats"]);
        let connections = stats.map(|stats| stats.connections);
        format!(
            "director {}: {sync:?}\n{vrrp:?}\nconnections: {connections:?}\n{}",
            self.at,
            self.process.log()
        )
    }

    /// Waits until it is `state`, has servers to send to, and the BFD session is up.
    pub fn wait_for(&self, state: &str, session: bool) -> Result<()> {
        wait_until(&format!("director {} is {state}", self.at), PATIENCE, || {
            let vrrp: api::Vrrp = self.ask(&["vrrp"])?;
            let up = !session || vrrp.bfd.iter().all(|row| row.state == "up" && row.detection_us == 30_000);
            Ok(up && vrrp.instances.iter().all(|row| row.state == state))
        })
        .with_context(|| self.evidence())
    }

    /// Waits until it knows of this many connections and its neighbours.
    pub fn wait_ready(&self, lab: &Lab, connections: usize) -> Result<()> {
        wait_until(&format!("director {} knows everything", self.at), PATIENCE, || {
            let sync: api::SyncStatus = self.ask(&["sync"])?;
            let stats: api::Stats = self.ask(&["stats"])?;
            let neighbors: api::Neighbors = self.ask(&["neighbors"])?;
            let known = |address: &str| {
                neighbors.neighbors.iter().any(|row| row.mac.is_some() && row.address.to_string() == address)
            };
            let servers = lab.servers[1..].iter().all(|server| known(&server.address));
            Ok(sync.complete && servers && stats.connections >= connections as u64)
        })
        .with_context(|| self.evidence())
    }
}

/// An HTTP connection that is held.
pub struct Kept {
    stream: TcpStream,
    server: String,
}

impl Kept {
    fn open(lab: &Lab) -> Result<Vec<Self>> {
        Self::open_at(lab, 80, HELD)
    }

    /// The same at another port.
    pub fn open_at(lab: &Lab, port: u16, count: usize) -> Result<Vec<Self>> {
        lab.client.enter(|| {
            let open = |_| {
                let stream = TcpStream::connect((VIP, port))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut kept = Self { stream, server: String::new() };
                kept.server = kept.ask()?;
                Ok(kept)
            };
            (0..count).map(open).collect()
        })
    }

    /// A request, and which server answered.
    fn ask(&mut self) -> Result<String> {
        self.stream.write_all(b"GET /keep HTTP/1.1\r\nHost: vip\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while !answer.ends_with(b"\n") || !answer.windows(5).any(|part| part == b"from ") {
            let len = uninterrupted(|| self.stream.read(&mut buffer))?;
            ensure!(len > 0, "the connection was closed");
            answer.extend_from_slice(&buffer[..len]);
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        Ok(text.rsplit("from ").next().unwrap_or_default().trim().to_owned())
    }
}

/// Each goes on, with the server that it had.
pub fn check(held: &mut [Kept]) -> Result<()> {
    let mut broken = Vec::new();
    for (at, kept) in held.iter_mut().enumerate() {
        match kept.ask() {
            Ok(server) if server == kept.server => {}
            Ok(server) => bail!("connection {at} went from {} to {server}", kept.server),
            Err(error) => broken.push(format!("{at}: {error}")),
        }
    }
    ensure!(broken.is_empty(), "{} of {} connections broke: {broken:?}", broken.len(), held.len());
    Ok(())
}

/// Lets threads of this process run before the rest of the machine, as far as that can be had; programs that they start
/// are as others.
fn first_of_all(threads: &[&str]) {
    let _ = process::run(&[&["chrt", "-R", "-r"], threads].concat());
}

/// Sends datagrams through the VIP all the time and notes when answers come.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Instant>>>,
}

/// Time between two datagrams.
const STEP: Duration = Duration::from_millis(1);

impl Probe {
    fn start(lab: &Lab) -> Result<Self> {
        let socket = lab.client.enter(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
        socket.connect((VIP, 7777))?;
        socket.set_read_timeout(Some(STEP))?;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let thread = thread::spawn(move || {
            first_of_all(&["-p", "4", &nix::unistd::gettid().to_string()]);
            let (mut times, mut buffer) = (Vec::new(), [0; 64]);
            while !ended.load(Relaxed) {
                // nobody may be there for a while
                let _ = socket.send(b"?");
                let next = Instant::now() + STEP;
                while let Some(left) =
                    next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
                {
                    let _ = socket.set_read_timeout(Some(left));
                    if socket.recv(&mut buffer).is_ok() {
                        times.push(Instant::now());
                    }
                }
            }
            times
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// The longest time without an answer that began or ended within half a second around `moment`.
    fn gap(mut self, moment: Instant) -> Result<Duration> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("a thread")?;
        let times = thread.join().map_err(|_| anyhow::anyhow!("the prober panicked"))?;
        let near = |time: &Instant| {
            let (a, b) = (*time + Duration::from_millis(500), moment + Duration::from_millis(500));
            moment <= a && *time <= b
        };
        let pairs = times.windows(2).filter(|pair| near(&pair[0]) || near(&pair[1]));
        pairs.map(|pair| pair[1] - pair[0]).max().context("no answers around the failure")
    }
}

/// Traffic that must not notice anything.
struct Load {
    wrk: Process,
    iperf: Process,
}

/// How long it lasts, s.
const SECONDS: u64 = 6;

impl Load {
    fn start(lab: &Lab) -> Result<Self> {
        let (seconds, url) = (format!("{SECONDS}s"), format!("http://{VIP}/keep"));
        let wrk = ["wrk", "-t", "1", "-c", "20", "-d", &seconds, "--timeout", "5s", &url];
        let seconds = SECONDS.to_string();
        let iperf = ["iperf3", "-c", VIP, "-t", &seconds, "-b", "20M", "-J"];
        Ok(Self {
            iperf: lab.client.start(&iperf, &lab.dir().join("iperf3"))?,
            wrk: lab.client.start(&wrk, &lab.dir().join("wrk"))?,
        })
    }

    fn end(mut self) -> Result<()> {
        let limit = Duration::from_secs(SECONDS) + PATIENCE;
        self.wrk.wait(limit)?;
        let output = self.wrk.log();
        ensure!(
            output.contains("requests in")
                && !output.contains("Socket errors")
                && !output.contains("Non-2xx"),
            "requests failed: {output}"
        );
        let status = self.iperf.wait(limit)?;
        let report: serde_json::Value = serde_json::from_str(&self.iperf.log())?;
        ensure!(status.success() && report["error"].is_null(), "iperf3: {}", report["error"]);
        let bytes = report["end"]["sum_received"]["bytes"].as_f64().context("no bytes in iperf3's report")?;
        // 20 Mbit/s, but for the gap and what TCP makes of it
        ensure!(bytes > 2.5e6 * (SECONDS as f64 - 3.0), "iperf3 got {bytes} bytes");
        let requests = output.lines().find(|line| line.contains("requests in")).unwrap_or_default();
        eprintln!("wrk: {}, iperf3: {:.1} MB", requests.trim(), bytes / 1e6);
        Ok(())
    }
}

fn fail(lab: &mut Lab, how: How, way: Way) -> Result<()> {
    prepare(lab)?;
    let _nginx: Vec<Process> =
        lab.servers[1..].iter().map(|server| lab.nginx(server)).collect::<Result<_>>()?;
    let _echo: Vec<ThreadServer> =
        lab.servers[1..].iter().map(|server| ThreadServer::udp(server, 7777)).collect::<Result<_>>()?;
    first_of_all(&["-a", "-p", "4", &std::process::id().to_string()]);
    let mut iperf = Vec::new();
    for server in &lab.servers[1..] {
        let log = lab.dir().join(format!("iperf3-{}", server.address));
        iperf.push(server.netns.start(&["iperf3", "-s", "--forceflush"], &log)?);
    }
    let config = |lab: &Lab, at: usize| config(lab, at, way, [150, 100][at], "preempt = false");
    let mut master = One::start(lab, 0, &config(lab, 0))?;
    master.wait_for("master", false)?;
    let mut backup = One::start(lab, 1, &config(lab, 1))?;
    take_places(&mut master, &mut backup)?;
    master.wait_ready(lab, 0)?;
    let mut held = Kept::open(lab)?;
    let mut best = Duration::MAX;
    for round in 0..ROUNDS {
        let load = Load::start(lab)?;
        let probe = Probe::start(lab)?;
        thread::sleep(Duration::from_millis(1500));
        backup.wait_ready(lab, HELD + 20)?;
        let moment = Instant::now();
        let plug = ["node01", "node02"][master.at];
        match how {
            How::Killed => master.process.signal(Signal::SIGKILL)?,
            How::Stopped => master.process.signal(Signal::SIGSTOP)?,
            How::Ended => master.process.signal(Signal::SIGTERM)?,
            How::Cut => drop(lab.switch.ip(&format!("link set {plug} down"))?),
        }
        backup.wait_for("master", false)?;
        thread::sleep(Duration::from_millis(500));
        check(&mut held).with_context(|| format!("round {round}\n{}", backup.evidence()))?;
        let gap = probe.gap(moment)?;
        load.end().with_context(|| format!("round {round}\n{}", backup.evidence()))?;
        let sync: api::SyncStatus = backup.ask(&["sync"])?;
        eprintln!(
            "round {round}: gap {:.1} ms, 0 of {HELD} connections broke, lag {} us (p99)",
            gap.as_secs_f64() * 1000.0,
            sync.peers.first().map_or(0, |row| row.lag_p99_us)
        );
        best = best.min(gap);
        // what failed comes back and stands by
        match how {
            How::Killed | How::Ended => {
                let at = master.at;
                drop(master);
                master = One::start(lab, at, &config(lab, at))?;
            }
            How::Stopped => master.process.signal(Signal::SIGCONT)?,
            How::Cut => drop(lab.switch.ip(&format!("link set {plug} up"))?),
        }
        std::mem::swap(&mut master, &mut backup);
        take_places(&mut master, &mut backup)?;
        backup.wait_ready(lab, HELD).with_context(|| master.evidence())?;
        check(&mut held).with_context(|| format!("after round {round}\n{}", master.evidence()))?;
        // both directions at least
        if round >= 1 && best <= GAP {
            break;
        }
    }
    // clients of full NAT are neighbours here, whom the new master asks for first, some turns of the core later
    let limit = if way == Way::FullNat { GAP * 2 } else { GAP };
    ensure!(best <= limit, "the gap was {best:?} at its best, {limit:?} are allowed");
    Ok(())
}

/// Waits until one of two directors is master and the other stands by, with sessions up, whichever is which: where the
/// machine stops one of them for longer than 30 ms, the other rightly takes over although nobody failed.
fn take_places(master: &mut One, backup: &mut One) -> Result<()> {
    let state = |one: &One| -> Result<Option<String>> {
        let vrrp: api::Vrrp = one.ask(&["vrrp"])?;
        let up = vrrp.bfd.iter().all(|row| row.state == "up" && row.detection_us == 30_000);
        Ok(vrrp.instances.first().filter(|_| up).map(|row| row.state.clone()))
    };
    let mut swapped = false;
    wait_until("one is master, the other stands by", PATIENCE, || {
        let states = [state(master)?, state(backup)?].map(Option::unwrap_or_default);
        swapped = states == ["backup", "master"];
        Ok(swapped || states == ["master", "backup"])
    })
    .with_context(|| format!("{}\n{}", master.evidence(), backup.evidence()))?;
    if swapped {
        eprintln!("the one that was to stand by is master: the other was not heard for 30 ms");
        std::mem::swap(master, backup);
    }
    Ok(())
}

fn joins(lab: &mut Lab) -> Result<()> {
    prepare(lab)?;
    let _nginx: Vec<Process> =
        lab.servers[1..].iter().map(|server| lab.nginx(server)).collect::<Result<_>>()?;
    let first = One::start(lab, 0, &config(lab, 0, Way::Direct, 100, ""))?;
    first.wait_for("master", false)?;
    wait_until("its servers are there", PATIENCE, || Ok(lab.curl(&format!("http://{VIP}/")).is_ok()))?;
    let mut held = Kept::open(lab)?;
    // of higher priority, and it hears nothing of connections: for a while it leaves the master alone
    node(lab, 0).ip("link set sync0 down")?;
    let hold = Duration::from_secs(3);
    let text = config(lab, 1, Way::Direct, 200, "advert_interval = \"1s\"");
    let text = Config { more: format!("{}hold = \"{}s\"\n", text.more, hold.as_secs()), ..text };
    let begun = Instant::now();
    let second = One::start(lab, 1, &text)?;
    second.wait_for("backup", true)?;
    let alone = || Ok(second.ask::<api::Vrrp>(&["vrrp"])?.instances.iter().all(|row| row.state == "master"));
    let held_off = wait_until("it is master in the end", PATIENCE, alone).map(|()| begun.elapsed())?;
    ensure!(held_off > hold, "it waited {held_off:?} only");
    drop(second);
    first.wait_for("master", false)?;
    check(&mut held)?;
    // with the wire it has the connections soon, and takes over with them
    node(lab, 0).ip("link set sync0 up")?;
    let second = One::start(lab, 1, &config(lab, 1, Way::Direct, 200, ""))?;
    second.wait_for("master", false)?;
    first.wait_for("backup", false)?;
    check(&mut held).with_context(|| second.evidence())?;
    let log = second.process.log();
    let at = |what: &str| log.find(what).with_context(|| format!("{what} is not in: {log}"));
    ensure!(at("connections are here")? < at("to=\"master\"")?, "{log}");
    let sync: api::SyncStatus = second.ask(&["sync"])?;
    ensure!(sync.applied >= HELD as u64 && sync.refused.is_empty() && sync.lost == 0, "{sync:?}");
    Ok(())
}

//! The keepalived.conf of the classic notes, as it stands: two web servers behind two directors.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_control::api::{self, HealthTable};
use lb_tests::case::Case;
use lb_tests::config::Config;
use lb_tests::director::PATIENCE;
use lb_tests::lab::{CLIENT, Lab, Shape, VIP};
use lb_tests::peer::{Peer, clear, second_toml};
use lb_tests::process;
use lb_tests::wait::wait_until;
use lb_tests::watch::Watch;
use nix::sys::signal::Signal;

use crate::failover::Kept;

pub fn cases() -> Vec<Case> {
    let three = Shape { servers: 3, ..Shape::default() };
    vec![
        Case::new("the_classic_keepalived_conf_runs_two_directors_and_two_servers", directly).shape(three),
        Case::new("the_sync_daemon_of_keepalived_conf_follows_its_instance", synced).shape(three),
        Case::new("a_sorry_server_at_127_0_0_1_is_the_director_itself", sorry),
        Case::new("the_classic_keepalived_conf_can_be_imported_and_applied", imported),
    ]
}

/// What the file has: 6 s to the next check, which is made four times, 3 s from end to start.
const CONFIGURED: Duration = Duration::from_secs(6 + 3 * 3);

/// What a busy machine and clients that are new processes add.
const SLACK: Duration = Duration::from_secs(3);

/// The notes' file for one director. Mails go to the client, who takes them.
fn conf(state: &str, priority: u8, mail_port: u16) -> String {
    let server = |address: &str| {
        format!(
            "    real_server {address} 80 {{\n        weight 1\n        HTTP_GET {{\n            url {{\n              \
             path /\n              status_code 200\n            }}\n            connect_timeout 3\n            \
             nb_get_retry 3\n            delay_before_retry 3\n        }}\n    }}\n"
        )
    };
    format!(
        "! Configuration File for keepalived\n\nglobal_defs {{\n   notification_email {{\n     root@localhost\n   }}\n   \
         notification_email_from keepalived@localhost\n   smtp_server {CLIENT} {mail_port}\n   \
         smtp_connect_timeout 30\n   router_id LVS_{state}\n}}\n\nvrrp_instance VI_1 {{\n    state {state}\n    \
         interface eth0\n    virtual_router_id 51\n    priority {priority}\n    advert_int 1\n    authentication {{\n        \
         auth_type PASS\n        auth_pass 1111\n    }}\n    virtual_ipaddress {{\n        {VIP}/24 dev eth0\n    }}\n    \
         smtp_alert\n}}\n\nvirtual_server {VIP} 80 {{\n    delay_loop 6\n    lb_algo rr\n    lb_kind DR\n    \
         persistence_timeout 0\n    protocol TCP\n{}{}}}\n",
        server("192.168.150.12"),
        server("192.168.150.13")
    )
}

/// Takes mails on the client's node; gives their subjects.
struct Mails {
    port: u16,
    subjects: Arc<Mutex<Vec<String>>>,
}

impl Mails {
    fn start(lab: &Lab) -> Result<Self> {
        let listener = lab.client.enter(|| Ok(TcpListener::bind((CLIENT, 0))?))?;
        let mails = Self { port: listener.local_addr()?.port(), subjects: Arc::default() };
        let subjects = mails.subjects.clone();
        // it ends with the test's process
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let subjects = subjects.clone();
                // a client that goes away has no mail
                thread::spawn(move || take_mail(stream, &subjects));
            }
        });
        Ok(mails)
    }

    /// Waits for a mail whose subject begins so and has this further on.
    fn wait_for(&self, begin: &str, more: &str) -> Result<()> {
        let told = |one: &String| one.strip_prefix(begin).is_some_and(|rest| rest.contains(more));
        let has = || self.subjects.lock().map(|all| all.iter().any(told)).map_err(|_| anyhow!("a panic"));
        wait_until(&format!("a mail: {begin} ... {more}"), PATIENCE, has)
            .with_context(|| format!("mails: {:?}", self.subjects.lock()))
    }
}

/// RFC 5321, as far as one letter goes.
fn take_mail(stream: TcpStream, subjects: &Mutex<Vec<String>>) -> Result<()> {
    let mut to = stream.try_clone()?;
    to.write_all(b"220 client\r\n")?;
    let mut text = false;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if text {
            if let (Some(subject), Ok(mut all)) = (line.strip_prefix("Subject: "), subjects.lock()) {
                all.push(subject.to_owned());
            }
            text = line != ".";
            if text {
                continue;
            }
        }
        text = line == "DATA";
        to.write_all(if text { b"354 go on\r\n" } else { b"250 well\r\n" })?;
    }
    Ok(())
}

/// What keepalived's file does not know.
fn ports() -> Config {
    Config { services: Vec::new(), ..Config::default() }
}

struct Files {
    ports: PathBuf,
    conf: PathBuf,
    socket: PathBuf,
}

impl Files {
    fn write(lab: &Lab, name: &str, ports: &str, conf: &str) -> Result<Self> {
        let path = |ext: &str| lab.dir().join(format!("{name}.{ext}"));
        let files = Self { ports: path("toml"), conf: path("conf"), socket: path("sock") };
        std::fs::write(&files.ports, ports)?;
        std::fs::write(&files.conf, conf)?;
        Ok(files)
    }

    fn start(&self, node: &lb_tests::netns::Netns) -> Result<Peer> {
        let (ports, conf) = (self.ports.to_string_lossy(), self.conf.to_string_lossy());
        Peer::start(node, &self.socket, &["--config", &ports, "--keepalived-conf", &conf])
    }
}

/// One request: when it began and ended, and who answered.
struct Asked {
    begin: Instant,
    end: Instant,
    answer: Result<String>,
}

/// Asks the VIP again and again, each time over a connection of its own.
struct Asker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Asked>>,
}

impl Asker {
    fn start(lab: &Lab) -> Self {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), lab.client.name().to_owned());
        let seen = stop.clone();
        let thread = thread::spawn(move || {
            let url = format!("http://{VIP}/");
            let argv = ["ip", "netns", "exec", &client, "curl", "-sS", "--max-time", "5", &url];
            let mut asked = Vec::new();
            while !seen.load(SeqCst) {
                let begin = Instant::now();
                let answer = process::run(&argv).map(|text| text.trim().to_owned());
                asked.push(Asked { begin, end: Instant::now(), answer });
                thread::sleep(Duration::from_millis(20));
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

fn states(peer: &Peer) -> Result<Vec<String>> {
    let table: HealthTable = serde_json::from_str(&peer.ask(&["health", "--json"])?)?;
    Ok(table.services.into_iter().flat_map(|service| service.servers).map(|server| server.state).collect())
}

fn wait_states(peer: &Peer, want: [&str; 2]) -> Result<()> {
    wait_until(&format!("the servers are {want:?}"), CONFIGURED + SLACK, || Ok(states(peer)? == want))
        .with_context(|| format!("{}\n{:?}", peer.process.log(), states(peer)))
}

fn directly(lab: &mut Lab) -> Result<()> {
    clear(&lab.servers[2])?;
    lab.management()?;
    lab.manage(&lab.servers[2].netns, "node04m", "192.168.150.20")?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[2].netns.mac("eth0")?);
    let mut nginx = [lab.nginx(&lab.servers[0])?, lab.nginx(&lab.servers[1])?];
    let mails = Mails::start(lab)?;

    let socket = lab.dir().join("master.sock");
    let text = ports().to_toml(&socket.to_string_lossy());
    let first = Files::write(lab, "master", &text, &conf("MASTER", 100, mails.port))?;
    let text = second_toml(&ports(), &lab.dir().join("backup.sock"));
    let second = Files::write(lab, "backup", &text, &conf("BACKUP", 50, mails.port))?;
    let master = first.start(&lab.node01)?;
    master.wait_for("master")?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    let backup = second.start(&lab.servers[2].netns)?;
    backup.wait_for("backup")?;
    for peer in [&master, &backup] {
        wait_states(peer, ["up", "up"])?;
        ensure!(!peer.process.log().contains("not carried over"), "{}", peer.process.log());
    }
    mails.wait_for("[e2e] instance VI_1: master", "priority 100: ")?;
    mails.wait_for("[e2e-second] instance VI_1: backup", "priority 50: ")?;

    let asker = Asker::start(lab);
    thread::sleep(Duration::from_secs(1));
    let killing = Instant::now();
    nginx[0].signal(Signal::SIGTERM)?;
    wait_states(&master, ["down", "up"])?;
    let down = Instant::now();
    mails.wait_for("[e2e] server 192.168.150.12:80 of ", " down")?;
    thread::sleep(Duration::from_secs(1));
    nginx[0] = lab.nginx(&lab.servers[0])?;
    let restarted = Instant::now();
    wait_states(&master, ["up", "up"])?;
    let up = Instant::now();
    thread::sleep(Duration::from_secs(1));
    let asked = asker.finish()?;
    let failed = check(&asked, killing, down, up)?;
    let (left, back) = (down - killing, up - restarted);
    println!(
        "{} requests, {failed} failed; out of the rotation after {left:.1?}, configured {CONFIGURED:?}; back after {back:.1?}",
        asked.len()
    );
    ensure!(left < CONFIGURED + SLACK, "it took {left:?} to leave the rotation");
    ensure!(back < Duration::from_secs(6) + SLACK, "it took {back:?} to come back");

    mails.wait_for("[e2e] server 192.168.150.12:80 of ", " up")?;

    // the master is killed; and comes back; and ends in order
    master.process.signal(Signal::SIGKILL)?;
    watch.wait_for(&other)?;
    wait_until("the other director balances", PATIENCE, || {
        Ok(lab.curl(&format!("http://{VIP}/"))?.starts_with("from"))
    })?;
    drop(master);
    let master = first.start(&lab.node01)?;
    watch.wait_for(&own)?;
    backup.wait_for("backup")?;
    master.process.signal(Signal::SIGTERM)?;
    watch.wait_for(&other)?;
    let gaps = watch.owners(&[&own, &other, &own, &other])?;
    // three adverts and the skew of priority 50; the skew alone after a good-bye
    ensure!(gaps[0] < 5_000.0 && gaps[2] < 2_000.0, "{gaps:?} ms");
    Ok(())
}

/// Counts requests that failed; only those to a server that was dead and not known to be may have.
fn check(asked: &[Asked], killing: Instant, down: Instant, up: Instant) -> Result<usize> {
    let back = asked.iter().filter(|one| one.begin > up);
    for server in ["from 192.168.150.12", "from 192.168.150.13"] {
        let any = back.clone().any(|one| matches!(&one.answer, Ok(text) if text == server));
        ensure!(any, "nothing {server} after it was back");
    }
    let mut failed = 0;
    for one in asked {
        let Err(error) = &one.answer else { continue };
        failed += 1;
        ensure!(
            one.end > killing && one.begin < down,
            "a request failed that began {:?} after the kill: {error:#}",
            one.begin.saturating_duration_since(killing)
        );
    }
    Ok(failed)
}

fn imported(lab: &mut Lab) -> Result<()> {
    lab.management()?;
    let _nginx = lab.start_nginx()?;
    lab.start_director_unresolved(&ports())?;
    let director = lab.director()?;
    let text = std::fs::read_to_string(director.config())?;
    let files = Files::write(lab, "notes", &text, &conf("MASTER", 100, 25))?;
    let (base, conf) = (files.ports.to_string_lossy(), files.conf.to_string_lossy());
    let toml = director.ask(&["import", "keepalived", "--strict", "--base", &base, &conf])?;
    let file = lab.dir().join("imported.toml");
    std::fs::write(&file, &toml)?;
    let rehearsed = director.ask(&["diff", &file.to_string_lossy()])?;
    ensure!(rehearsed.contains("+ vrrp VI_1") && rehearsed.contains("192.168.150.12:80"), "{rehearsed}");
    director.ask(&["apply", &file.to_string_lossy()])?;
    let master =
        || Ok(director.json::<api::Vrrp>(&["vrrp"])?.instances.iter().all(|row| row.state == "master"));
    wait_until("lbd is master", PATIENCE, master)?;
    let resolved = || director.resolved(&["192.168.150.12", "192.168.150.13"]);
    wait_until("the servers are resolved", PATIENCE, resolved)?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(lab.curl(&format!("http://{VIP}/"))?);
    }
    ensure!(seen[0] != seen[1] && seen[..2] == seen[2..], "not round robin: {seen:?}");
    director.wait_conserved()?;
    Ok(())
}

/// Which daemons of IPVS's connection sync run.
fn daemons(peer: &Peer) -> Result<Vec<(String, u8)>> {
    let status: api::SyncStatus = serde_json::from_str(&peer.ask(&["sync", "--json"])?)?;
    Ok(status.ipvs.into_iter().map(|row| (row.state, row.sync_id)).collect())
}

fn wait_daemon(peer: &Peer, state: &str) -> Result<()> {
    // the number is the instance's
    let one = [(state.to_owned(), 51)];
    wait_until(&format!("only the {state} daemon runs"), PATIENCE, || Ok(daemons(peer)? == one))
        .with_context(|| format!("{}\n{:?}", peer.process.log(), daemons(peer)))
}

fn synced(lab: &mut Lab) -> Result<()> {
    const HELD: usize = 20;
    clear(&lab.servers[2])?;
    lab.management()?;
    lab.manage(&lab.servers[2].netns, "node04m", "192.168.150.20")?;
    for (node, name, address) in
        [(&lab.node01, "node01s", "192.168.170.1"), (&lab.servers[2].netns, "node04s", "192.168.170.2")]
    {
        lab.wire(node, name, "sync0")?;
        node.ip(&format!("addr add {address}/24 dev sync0"))?;
    }
    let _nginx = [lab.nginx(&lab.servers[0])?, lab.nginx(&lab.servers[1])?];
    let conf = |state: &str, priority| {
        conf(state, priority, 25).replace("   router_id", "   lvs_sync_daemon sync0 VI_1\n   router_id")
    };
    let text = ports().to_toml(&lab.dir().join("master.sock").to_string_lossy());
    let first = Files::write(lab, "master", &text, &conf("MASTER", 100))?;
    let text = second_toml(&ports(), &lab.dir().join("backup.sock"));
    let second = Files::write(lab, "backup", &text, &conf("BACKUP", 50))?;
    let master = first.start(&lab.node01)?;
    master.wait_for("master")?;
    let backup = second.start(&lab.servers[2].netns)?;
    backup.wait_for("backup")?;
    for peer in [&master, &backup] {
        ensure!(!peer.process.log().contains("not carried over"), "{}", peer.process.log());
        wait_states(peer, ["up", "up"])?;
    }
    wait_daemon(&master, "master")?;
    wait_daemon(&backup, "backup")?;
    let shown = backup.ask(&["ipvsadm", "-l", "--daemon"])?;
    ensure!(shown.starts_with("backup sync daemon (mcast=sync0, syncid=51,"), "{shown}");
    ensure!(!shown.contains("master"), "{shown}");
    let mut held = Kept::open_at(lab, 80, HELD)?;
    let known = |peer: &Peer| -> Result<u64> {
        Ok(serde_json::from_str::<api::Stats>(&peer.ask(&["stats", "--json"])?)?.connections)
    };
    wait_until("the backup knows them", PATIENCE, || Ok(known(&backup)? >= HELD as u64))?;
    master.process.signal(Signal::SIGKILL)?;
    backup.wait_for("master")?;
    wait_daemon(&backup, "master")?;
    crate::failover::check(&mut held).with_context(|| backup.process.log())?;
    // the one that comes back is master again, when it has had time to hear of them
    drop(master);
    let master = first.start(&lab.node01)?;
    master.wait_for("master")?;
    wait_daemon(&master, "master")?;
    wait_daemon(&backup, "backup")
}

fn sorry(lab: &mut Lab) -> Result<()> {
    let own = lab.dir().join("own");
    std::fs::create_dir(&own)?;
    std::fs::write(own.join("index.html"), "sorry\n")?;
    let served = ["python3", "-m", "http.server", "80", "--directory", &own.to_string_lossy()];
    let _web = lab.node01.start(&served, &lab.dir().join("own.log"))?;
    let server = |address: &str| {
        format!("real_server {address} 80 {{\n TCP_CHECK {{\n connect_timeout 1\n retry 0\n }}\n }}\n")
    };
    let conf = format!(
        "virtual_server {VIP} 80 {{\n delay_loop 1\n lb_algo rr\n lb_kind DR\n protocol TCP\n alpha\n sorry_server 127.0.0.1 80\n {}{}}}\n",
        server("192.168.150.12"),
        server("192.168.150.13")
    );
    let socket = lab.dir().join("sorry.sock");
    let text =
        Config { port: "exception = \"tap\"\n".to_owned(), ..ports() }.to_toml(&socket.to_string_lossy());
    let files = Files::write(lab, "sorry", &text, &conf)?;
    let lbd = files.start(&lab.node01)?;
    ensure!(!lbd.process.log().contains("not carried over"), "{}", lbd.process.log());
    let url = format!("http://{VIP}/");
    let answers = |wanted: &str| {
        wait_until(&format!("the VIP answers {wanted}"), PATIENCE, || {
            Ok(lab.curl(&url).is_ok_and(|text| text.starts_with(wanted)))
        })
        .with_context(|| format!("{:?}\n{}", lbd.ask(&["server", "list"]), lbd.process.log()))
    };
    answers("sorry")?;
    let _nginx = lab.start_nginx()?;
    answers("from 192.168.150.1")?;
    for _ in 0..4 {
        let text = lab.curl(&url)?;
        ensure!(text.starts_with("from"), "{text}");
    }
    Ok(())
}

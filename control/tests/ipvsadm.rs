//! `ipvsadm` as it is typed, on a control core behind a real socket; its worker has a device in memory.

#![allow(clippy::unwrap_used)] // in helpers; in test functions the workspace allows it

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_control::core::{Core, DriverRow, Drivers, Process, run};
use lb_control::server::{Policy, Socket, SocketSettings, Times, serve};
use lb_dataplane::Worker;
use lb_dataplane::director::Director;
use lb_dataplane::io::DeviceId;
use lb_dataplane::memory::{Frame, MemoryIo};
use lb_dataplane::setup::DeviceSetup;
use tokio::sync::{mpsc, oneshot};

const FILE: &str = r#"
[limits]
max_connections = 1024
max_servers = 64
[[ports]]
name = "lan"
device = "null"
addresses = ["10.0.0.1/24", "fd00:a::1/64"]
gateway = ["10.0.0.254", "fd00:a::fe"]
"#;

/// The director's and every other station's MAC address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    !((sum >> 16) + (sum & 0xffff)) as u16
}

/// A TCP segment without data from 10.0.0.10, 40 bytes of IP.
fn segment(source_port: u16, to: ([u8; 4], u16), flags: u8) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 10];
    ip.extend(to.0);
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&source_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.1.to_be_bytes());
    (tcp[12], tcp[13]) = (0x50, flags);
    [&MAC[..], &OTHER, &[8, 0], &ip, &tcp].concat()
}

/// The answer of an IPv4 host to the director's ARP request.
fn arp_reply(host: [u8; 4]) -> Vec<u8> {
    [&MAC[..], &OTHER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &OTHER, &host, &MAC, &[10, 0, 0, 1]].concat()
}

struct Lbd {
    dir: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Lbd {
    fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sluice-ipvsadm-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        // A link to the program under the name that its users type.
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lbctl"), dir.join("ipvsadm")).unwrap();
        let model = lb_config::parse(FILE).unwrap();
        let devices = vec![DeviceSetup { mac: MAC, rss: false }];
        let (director, mut seeds) = Director::new(&model, devices).unwrap();
        let io = MemoryIo::for_workers(1, 1).remove(0);
        let mut worker = Worker::new(seeds.remove(0), io).map_err(|_| "no memory").unwrap();
        let frames: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let wire = frames.clone();
        let settings = SocketSettings { path: dir.join("s"), group: None, public_read: false };
        let (stop, stopped) = oneshot::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let (start, over) = (Instant::now(), ended.clone());
        let turning = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let arrived = std::mem::take(&mut *wire.lock().unwrap());
                let arrived = arrived.iter().map(|bytes| Frame::new(DeviceId(0), bytes));
                worker.io_mut().receive[0].extend(arrived);
                worker.turn(u64::try_from(start.elapsed().as_nanos()).unwrap());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let socket = Socket::bind(&settings).unwrap();
        let control = std::thread::spawn(move || {
            let drivers = || Drivers { devices: vec![DriverRow::default()], ..Drivers::default() };
            let mut core =
                Core::new(director, Process { drivers: Box::new(drivers), tables: Vec::new() }).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, mut calls) = mpsc::channel(8);
                let listener = socket.listener().unwrap();
                tokio::spawn(serve(listener, Policy::new(None, false), sender, Times::default()));
                run(&mut core, start, &mut calls, async {
                    let _ = stopped.await;
                })
                .await;
            });
        });
        Self { dir, stop: Some(stop), ended, threads: vec![turning, control], frames }
    }

    /// A frame arrives.
    fn put(&self, frame: Vec<u8>) {
        self.frames.lock().unwrap().push(frame);
    }

    /// Waits until a listing satisfies `wanted`, and returns it.
    fn until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let shown = self.shown(line);
            if wanted(&shown) || Instant::now() > end {
                return shown;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types a command line; exit code, stdout, stderr.
    fn typed(&self, line: &str, stdin: &str) -> (i32, String, String) {
        let mut child = Command::new(self.dir.join("ipvsadm"))
            .args(line.split_whitespace())
            .env("SLUICE_SOCKET", self.dir.join("s"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read stdin may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn done(&self, line: &str) {
        assert_eq!(self.typed(line, ""), (0, String::new(), String::new()), "{line}");
    }

    fn shown(&self, line: &str) -> String {
        let (code, stdout, stderr) = self.typed(line, "");
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
        stdout
    }
}

impl Drop for Lbd {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn services_and_servers_go_to_the_director_and_come_back() {
    let lbd = Lbd::start("table");
    lbd.done("-A -t 10.0.0.100:80 -s rr");
    lbd.done("-a -t 10.0.0.100:80 -r 10.0.0.11 -g");
    lbd.done("-a -t 10.0.0.100:80 -r 10.0.0.12:80 -g -w 2 -x 9");
    lbd.done("-A -u [fd00:a::100]:53 -s lc");
    let listed = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.0.100:80 rr
  -> 10.0.0.11:80                 Route   1      0          0         
  -> 10.0.0.12:80                 Route   2      0          0         
UDP  [fd00:a::100]:53 lc
";
    assert_eq!(lbd.shown("-Ln"), listed);
    let refused = lbd.typed("-A -t 10.0.0.100:80", "");
    assert_eq!(refused, (255, String::new(), "Service already exists\n".to_owned()));
    // The director's own rules apply as well, and say so.
    let (code, _, stderr) = lbd.typed("-a -t 10.0.0.100:80 -r 10.0.0.1 -g", "");
    assert_eq!(code, 255);
    assert!(stderr.contains("10.0.0.1 is the director's own address on lan"), "{stderr}");
    assert_eq!(lbd.shown("-Ln"), listed);

    let saved = lbd.shown("-Sn");
    lbd.done("-C");
    assert_eq!(lbd.shown("-Sn"), "");
    assert_eq!(lbd.typed("-R", &saved), (0, String::new(), String::new()));
    assert_eq!(lbd.shown("-Sn"), saved);
    assert_eq!(lbd.shown("-Ln"), listed);
    assert!(saved.contains("\n# sluice: -e -t 10.0.0.100:80 -r 10.0.0.12:80 -g -w 2 -x 9 -y 0\n"), "{saved}");

    let (code, _, stderr) = lbd.typed("-R", "-C\n-A -t 10.0.0.101:80 -s rr\n-D -t 10.0.0.102:80\n");
    assert_eq!((code, stderr.lines().next()), (255, Some("No such service")));
    assert_eq!(lbd.shown("-Ln"), listed);
}

#[test]
fn counters_connections_and_timeouts_are_read_from_the_director() {
    let lbd = Lbd::start("counters");
    lbd.done("-A -t 10.0.0.100:80 -s rr");
    lbd.done("-a -t 10.0.0.100:80 -r 10.0.0.11 -g");
    let stats = "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.0.0.100:80                       0        0        0        0        0
  -> 10.0.0.11:80                        0        0        0        0        0
";
    assert_eq!(lbd.shown("-Ln -t 10.0.0.100:80 --stats"), stats);
    let head =
        "IPVS connection entries\npro expire state       source             virtual            destination\n";
    assert_eq!(lbd.shown("-Lnc"), head);
    lbd.done("-Z");
    lbd.done("-Z -t 10.0.0.100:80");
    assert_eq!(lbd.typed("-Z -t 10.0.0.101:80", "").0, 255);
    lbd.done("--set 100 0 7");
    assert_eq!(lbd.shown("-L --timeout"), "Timeout (tcp tcpfin udp): 100 120 7\n");
}

#[test]
fn traffic_shows_in_every_listing() {
    let lbd = Lbd::start("traffic");
    lbd.done("-A -t 10.0.0.100:80 -s rr -p 300 -M 255.255.255.0");
    lbd.done("-a -t 10.0.0.100:80 -r 10.0.0.11 -g");
    lbd.put(arp_reply([10, 0, 0, 11]));
    let vip = ([10, 0, 0, 100], 80);
    for port in [40_001, 40_002] {
        lbd.put(segment(port, vip, 2));
    }
    lbd.put(segment(40_001, vip, 16));
    let listed = lbd.until("-Lnc", |listed| listed.contains("ESTABLISHED") && listed.lines().count() == 5);
    let mut rows: Vec<&str> = listed.lines().skip(2).collect();
    rows.sort_by_key(|row| row.get(23..));
    let shape = |row: &&str| format!("{} {}", &row[..4], &row[11..]);
    assert_eq!(
        rows.iter().map(shape).collect::<Vec<_>>(),
        [
            "TCP  ASSURED     10.0.0.0:0         10.0.0.100:80      10.0.0.11:80",
            "TCP  ESTABLISHED 10.0.0.10:40001    10.0.0.100:80      10.0.0.11:80",
            "TCP  SYN_RECV    10.0.0.10:40002    10.0.0.100:80      10.0.0.11:80",
        ],
        "{listed}"
    );
    let service = "-Ln -t 10.0.0.100:80";
    let listed = lbd.shown(&format!("{service} --persistent-conn"));
    assert_eq!(
        listed.lines().last(),
        Some("  -> 10.0.0.11:80                 1         1           2          0         "),
        "{listed}"
    );
    // The estimator's next tick comes within two seconds.
    let stats = format!("{service} --stats");
    let listed = lbd.until(&stats, |listed| !listed.ends_with(" 0        0        0        0        0\n"));
    assert_eq!(
        listed.lines().skip(2).collect::<Vec<_>>(),
        [
            "TCP  10.0.0.100:80                       2        3        0      120        0",
            "  -> 10.0.0.11:80                        2        3        0      120        0"
        ],
        "{listed}"
    );
    let listed = lbd.shown(&format!("{service} --rate"));
    // 120 bytes in two seconds move a mean of 0 by a quarter of 60.
    assert!(listed.ends_with(" 15        0\n"), "{listed}");
    lbd.done("-Z -t 10.0.0.100:80");
    let listed = lbd.shown(&stats);
    assert!(listed.ends_with(" 0        0        0        0        0\n"), "{listed}");
    let listed = lbd.shown("-Ln");
    assert!(listed.contains("-> 10.0.0.11:80                 Route   1      2          0"), "{listed}");
    // Another forwarding is another way for new connections; the server keeps those that it has.
    lbd.done("-e -t 10.0.0.100:80 -r 10.0.0.11 -i -w 3");
    let listed = lbd.shown("-Ln");
    assert!(
        listed.ends_with("\n  -> 10.0.0.11:80                 Tunnel  3      2          0         \n"),
        "{listed}"
    );
}

#[test]
fn changes_at_the_same_time_lose_nothing() {
    let lbd = Lbd::start("race");
    std::thread::scope(|scope| {
        for port in 1..=4 {
            let lbd = &lbd;
            scope.spawn(move || lbd.done(&format!("-A -t 10.0.0.100:{port} -s rr")));
        }
    });
    assert_eq!(lbd.shown("-Sn").lines().count(), 4);
}

#[test]
fn without_a_director_help_works_and_the_rest_exits_with_2() {
    let lbctl = |line: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_lbctl")).args(line.split(' ')).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for help in ["-h", "--help"] {
        let (code, stdout, _) = lbctl(&format!("--socket /nonexistent/s ipvsadm {help}"));
        assert_eq!((code, stdout.lines().count()), (Some(0), 82), "{help}");
    }
    for version in ["-v", "--version"] {
        let (code, stdout, _) = lbctl(&format!("ipvsadm {version}"));
        assert_eq!((code, stdout.starts_with("ipvsadm v1.31 ")), (Some(0), true), "{version}");
    }
    let (code, stdout, stderr) = lbctl("--socket /nonexistent/s ipvsadm -Ln --stats");
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("Can't initialize ipvs: cannot reach lbd at /nonexistent/s: "), "{stderr}");
    assert_eq!(lbctl("ipvsadm --set 1 2").2, "--set option requires 3 timeout values\n");
}

#[test]
fn rule_files_are_imported() {
    let file = std::env::temp_dir().join(format!("sluice-import-{}", std::process::id()));
    std::fs::write(&file, "-A -t 10.0.0.100:80 -s rr\n-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 1\n")
        .unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_lbctl")).args(["import", "ipvs"]).arg(&file).output().unwrap();
    let toml = String::from_utf8(output.stdout).unwrap();
    assert!(toml.starts_with("[[services]]\nname = \"tcp-10.0.0.100-80\"\n"), "{toml}");
    assert_eq!(output.status.code(), Some(0));
    std::fs::write(&file, "-A -t 10.0.0.100:80 -s best\n").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_lbctl")).args(["import", "ipvs"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.ends_with(":\nline 1: Scheduler or persistence engine not found\n"), "{stderr}");
    std::fs::remove_file(&file).unwrap();
}

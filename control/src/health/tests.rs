//! Checks on their thread, from the configuration to what the packet path runs and who is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn model(services: &str) -> Model {
    let head = "[appliance]\nname = \"node01\"\n[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]\n";
    let text = format!("{head}{services}");
    lb_config::parse(&text).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

struct Bench {
    health: Health,
    model: Model,
    running: Model,
}

impl Bench {
    fn new(services: &str) -> Self {
        let model = model(services);
        let mut health = Health::new(Arc::new(Wake::new()));
        let prepared = health.prepare(&model);
        let running = prepared.effective.clone();
        health.commit(prepared, &model).unwrap();
        Self { health, model, running }
    }

    fn turn(&mut self) {
        self.health.turn(&self.model);
        if let Some(effective) = self.health.effective(&self.model) {
            self.running = effective;
            self.health.applied();
        }
    }

    /// Addresses and weights of the first service.
    fn servers(&self) -> Vec<(String, u32)> {
        self.running.services[0].servers.iter().map(|s| (s.address.to_string(), s.weight)).collect()
    }

    #[track_caller]
    fn wait(&mut self, want: &[(&str, u32)]) {
        let until = Instant::now() + PATIENCE;
        let want: Vec<(String, u32)> = want.iter().map(|(a, w)| ((*a).to_owned(), *w)).collect();
        while self.servers() != want {
            assert!(Instant::now() < until, "{:?}, not {want:?}: {:?}", self.servers(), self.health.events());
            std::thread::sleep(Duration::from_millis(2));
            self.turn();
        }
    }
}

/// A folder of a test's own, removed with it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left in /tmp disturbs nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A service of one server that is checked on the loopback.
fn one(health: &str, check: &str) -> String {
    format!(
        "[[services]]\nname = \"web\"\nvip = \"10.0.0.100\"\nport = 80\n[services.health]\ninterval = \"50ms\"\n\
         retry_delay = \"10ms\"\nwarmup = \"0s\"\n{health}\n{check}\n[[services.servers]]\naddress = \"10.0.0.2\"\nweight = 9\n"
    )
}

fn tcp_check(to: SocketAddr) -> String {
    format!("checks = [{{ type = \"tcp\", address = \"{}\", port = {} }}]", to.ip(), to.port())
}

#[test]
fn a_server_comes_and_goes_with_its_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut bench = Bench::new(&one("", &tcp_check(to)));
    assert_eq!(bench.servers(), [], "no traffic before the first success");
    bench.wait(&[("10.0.0.2", 9)]);
    drop(listener);
    let start = Instant::now();
    bench.wait(&[]);
    // interval + timeout + retries * (retry_delay + timeout), and some of a busy machine
    assert!(start.elapsed() < Duration::from_secs(5));
    let _listener = TcpListener::bind(to).unwrap();
    bench.wait(&[("10.0.0.2", 9)]);
    let kinds: Vec<_> = bench.health.events().after(0).map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["up", "quorum_up", "down", "quorum_down", "up", "quorum_up"]);
    let table = bench.health.table(&bench.model, None);
    let row = &table.services[0].servers[0];
    assert_eq!(
        (row.state.as_str(), row.weight, row.checks[0].check.as_str()),
        ("up", 9, &*format!("tcp at {to}"))
    );
    assert!(row.since_ms.is_some() && row.checks[0].passed == Some(true) && row.checks[0].took_us.is_some());
    assert!(table.lateness.unwrap().checks > 3);
    assert!(bench.health.table(&bench.model, Some("other")).services.is_empty());
}

#[test]
fn a_file_is_watched() {
    let dir = Dir::new("watch");
    let file = dir.file("weight");
    let check = format!(
        "checks = [{{ type = \"file\", file = \"{}\", meaning = \"weight\", interval = \"1h\", warmup = \"0s\" }}]",
        file.display()
    );
    let mut bench = Bench::new(&one("on_failure = \"drain\"", &check));
    bench.wait(&[("10.0.0.2", 0)]);
    let why = "file: no such file or directory";
    let until = Instant::now() + PATIENCE;
    while bench.health.why_down("web", "10.0.0.2:80".parse().unwrap()) != Some(why) {
        assert!(Instant::now() < until, "{:?}", bench.health.events());
        std::thread::sleep(Duration::from_millis(2));
        bench.turn();
    }
    // The next look by the clock is in an hour.
    std::fs::write(&file, "5\n").unwrap();
    bench.wait(&[("10.0.0.2", 5)]);
    std::fs::write(dir.file("other"), "8").unwrap();
    std::fs::write(dir.file("new"), "7").unwrap();
    std::fs::rename(dir.file("new"), &file).unwrap();
    bench.wait(&[("10.0.0.2", 7)]);
    std::fs::remove_file(&file).unwrap();
    bench.wait(&[("10.0.0.2", 0)]);
}

/// Listens, takes one connection after the other to its end, answering lines with what `answer` says.
fn lines(
    greeting: &'static str,
    answer: impl Fn(&str) -> Option<&'static str> + Send + 'static,
) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(greeting.as_bytes());
            let (mut line, mut byte) = (Vec::new(), [0]);
            while stream.read(&mut byte).is_ok_and(|n| n == 1) {
                line.push(byte[0]);
                let json = line.starts_with(b"{") && byte == *b"}";
                if byte[0] == b'\n' || json {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if let Some(answer) = answer(&text) {
                        let _ = stream.write_all(answer.as_bytes());
                    }
                    let _ = sender.send(text);
                    line.clear();
                }
            }
        }
    });
    (address, heard)
}

#[test]
fn whoever_wants_to_know_is_told() {
    let dir = Dir::new("tell");
    let log = dir.file("log");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let (hook, posts) = lines("", |line| line.starts_with('{').then_some("HTTP/1.1 204 x\r\n\r\n"));
    let (mailer, mails) = lines("220 hi\r\n", |line| match line {
        "DATA" => Some("354 go\r\n"),
        line if ["HELO ", "MAIL ", "RCPT ", "."].iter().any(|word| line.starts_with(word)) => {
            Some("250 ok\r\n")
        }
        "QUIT" => Some("221 bye\r\n"),
        _ => None,
    });
    let command = |what: &str| {
        let script = format!(
            "echo {what} $SLUICE_DIRECTOR $SLUICE_EVENT $SLUICE_SERVICE $SLUICE_SERVER $SLUICE_REASON >> {}",
            log.display()
        );
        format!("{what} = [\"/bin/sh\", \"-c\", \"{script}\"]")
    };
    let notify = format!(
        "down_at_stop = true\nnotify = {{ {}, {}, {}, {}, webhook = \"http://{hook}/h?k\" }}",
        command("up"),
        command("down"),
        command("quorum_up"),
        command("quorum_down")
    );
    let mail = format!(
        "[notify]\nmail = {{ server = \"127.0.0.1\", port = {}, from = \"lb@x\", to = [\"a@x\", \"b@x\"] }}\n",
        mailer.port()
    );
    let mut bench = Bench::new(&(one(&notify, &tcp_check(to)) + &mail));
    bench.wait(&[("10.0.0.2", 9)]);
    let next = |heard: &std::sync::mpsc::Receiver<String>, begin: &str| loop {
        let line = heard.recv_timeout(PATIENCE).unwrap();
        if line.starts_with(begin) {
            return line;
        }
    };
    assert_eq!(next(&posts, "POST"), "POST /h?k HTTP/1.1");
    let posted: serde_json::Value = serde_json::from_str(&next(&posts, "{")).unwrap();
    assert_eq!(
        (&posted["director"], &posted["event"], &posted["service"], &posted["server"], &posted["reason"]),
        (&"node01".into(), &"up".into(), &"web".into(), &"10.0.0.2:80".into(), &"connected".into())
    );
    assert_eq!(next(&mails, "HELO"), "HELO node01");
    assert_eq!(next(&mails, "RCPT"), "RCPT TO:<a@x>");
    assert_eq!(next(&mails, "RCPT"), "RCPT TO:<b@x>");
    assert_eq!(next(&mails, "Subject"), "Subject: [node01] server 10.0.0.2:80 of web up");
    assert_eq!(next(&mails, "Subject"), "Subject: [node01] service web has its quorum");
    bench.health.farewell(&bench.model);
    drop(bench);
    let want = "up node01 up web 10.0.0.2:80 connected\nquorum_up node01 quorum_up web weight 9 of 1 is up\n\
                down node01 down web 10.0.0.2:80 lbd stops\nquorum_down node01 quorum_down web lbd stops\n";
    assert_eq!(std::fs::read_to_string(&log).unwrap(), want, "the end waits for what is still to be told");
}

#[test]
fn a_changed_configuration_changes_the_checks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut bench = Bench::new(&one("", &tcp_check(to)));
    bench.wait(&[("10.0.0.2", 9)]);
    let gone: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.model = model(&one("", &tcp_check(gone)));
    let prepared = bench.health.prepare(&bench.model);
    bench.health.commit(prepared, &bench.model).unwrap();
    assert_eq!(bench.servers().len(), 1, "it is up until the new check has failed");
    bench.wait(&[]);
    assert_eq!(bench.health.statuses.len(), 1);
    // Nobody asks at the old place any more: what is queued is drained, then it stays quiet.
    listener.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    while listener.accept().is_ok() {}
    std::thread::sleep(Duration::from_millis(300));
    assert!(listener.accept().is_err());
}

/// Not run by default: wants half a CPU for ten seconds, and says nothing on a machine where it does not get that.
/// `cargo test -p lb-control --release --lib drift -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn ten_thousand_checks_a_second_and_their_drift() {
    const SERVERS: u32 = 10_000;
    // Listeners whose kernel accepts for them; each server is an address of 127/8.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    listener.listen(4096).unwrap();
    let port = listener.local_addr().unwrap().as_socket().unwrap().port();
    let listener: TcpListener = listener.into();
    let mut accepting = Vec::new();
    for _ in 0..2 {
        let listener = listener.try_clone().unwrap();
        accepting.push(std::thread::spawn(move || listener.incoming().for_each(drop)));
    }
    let mut text = String::from(
        "[limits]\nmax_servers = 20000\n[[services]]\nname = \"web\"\nvip = \"10.0.0.100\"\nport = 80\n\
         forwarding = \"nat\"\n[services.health]\ninterval = \"1s\"\nwarmup = \"1s\"\n",
    );
    for at in 0..SERVERS {
        let (a, b) = (at / 250, at % 250 + 1);
        text += &format!(
            "[[services.servers]]\naddress = \"10.1.{a}.{b}\"\n[services.servers.health]\n\
             checks = [{{ type = \"tcp\", address = \"127.1.{a}.{b}\", port = {port} }}]\n"
        );
    }
    let text = text.replace("[[services]]", "[[ports]]\nname = \"in\"\ndevice = \"null\"\nvlan = 2\naddresses = [\"10.1.255.1/16\"]\n[[services]]");
    let mut bench = Bench::new(&text);
    let until = Instant::now() + Duration::from_secs(60);
    while bench.servers().len() < SERVERS as usize {
        assert!(Instant::now() < until, "{} are up", bench.servers().len());
        std::thread::sleep(Duration::from_millis(50));
        bench.turn();
    }
    let engine = bench.health.engine.as_ref().unwrap();
    engine.drift().reset();
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    let (checks, [p50, p99, max]) = engine.drift().read();
    let rate = checks as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{SERVERS} TCP checks at 1 s: {rate:.0}/s, starts late by p50 {p50} us, p99 {p99} us, max {max} us"
    );
    bench.turn();
    assert_eq!(bench.servers().len(), SERVERS as usize, "{:?}", bench.health.events().after(0).last());
    assert!(rate > 0.95 * f64::from(SERVERS));
}

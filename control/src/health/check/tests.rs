//! Checks against servers on the loopback that do what the test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_config::health::{FullTarget, Rhythm};

use super::super::probe::{ProbeSpec, Say};
use super::{Checker, Outcome};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn spec(check: &str, to: SocketAddr) -> Arc<ProbeSpec> {
    let text = format!(
        "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]\n[[services]]\nname = \"s\"\n\
         vip = \"10.0.0.100\"\nport = 80\n[[services.servers]]\naddress = \"10.0.0.2\"\n\
         [services.servers.health]\nchecks = [{check}]\n"
    );
    let model = lb_config::parse(&text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    let service = &model.services[0];
    let mut spec = ProbeSpec::from(service.checks_of(&service.servers[0]).remove(0));
    spec.target = FullTarget { to, ..spec.target };
    Arc::new(spec)
}

/// Runs a check once, within its timeout.
pub(super) fn run(check: &str, to: SocketAddr) -> Outcome {
    let spec = spec(check, to);
    runtime().block_on(async {
        let mut checker = Checker::new(&spec);
        let Rhythm { timeout, .. } = spec.rhythm;
        match tokio::time::timeout(timeout, checker.run()).await {
            Ok(outcome) => outcome,
            Err(_) => checker.timed_out(timeout),
        }
    })
}

pub(super) fn pass(outcome: Outcome) -> (String, Say) {
    match outcome {
        Outcome::Pass { why, say } => (why, say),
        Outcome::Fail { why } => panic!("failed: {why}"),
    }
}

pub(super) fn fail(outcome: Outcome) -> String {
    match outcome {
        Outcome::Fail { why } => why,
        Outcome::Pass { why, .. } => panic!("passed: {why}"),
    }
}

/// A server that gives each connection to `serve` until the test ends.
fn tcp(serve: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|mut stream| serve(&mut stream)));
    address
}

fn udp(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                socket.send_to(&answer, from).unwrap();
            }
        }
    });
    address
}

/// A port that nobody listens on.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Reads a request's header.
fn request(stream: &mut std::net::TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_tcp_connection_is_enough_and_is_reset() {
    let (sender, results) = std::sync::mpsc::channel();
    let address = tcp(move |stream| {
        sender.send(stream.read(&mut [0]).map_err(|error| error.kind())).unwrap();
    });
    assert_eq!(pass(run("{ type = \"tcp\" }", address)).0, "connected");
    let end = results.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "nothing is left in TIME_WAIT");
    assert_eq!(fail(run("{ type = \"tcp\" }", closed())), "connection refused");
}

#[test]
fn a_check_comes_from_where_it_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = closed().port();
    let check = format!("{{ type = \"tcp\", bind = \"127.0.0.7\", bind_port = {port} }}");
    for _ in 0..2 {
        pass(run(&check, address));
        assert_eq!(listener.accept().unwrap().1, SocketAddr::from(([127, 0, 0, 7], port)));
    }
    let away = fail(run("{ type = \"tcp\", device = \"nosuchdevice\" }", address));
    assert!(away.contains("no such device") || away.contains("not permitted"), "{away}");
}

#[test]
fn silence_ends_with_the_timeout() {
    // A full backlog: nobody accepts, and what connects gets no byte.
    let address = tcp(|_| std::thread::sleep(Duration::from_secs(30)));
    let start = Instant::now();
    let why = fail(run("{ type = \"http\", timeout = \"200ms\" }", address));
    assert_eq!(why, "no answer within 200ms");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn an_http_request_is_as_configured() {
    let address = tcp(|stream| {
        let request = request(stream);
        let body = request.replace("\r\n", "|");
        write!(stream, "HTTP/1.1 200 OK\r\nX-Weight: 42\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .unwrap();
    });
    let host = address.to_string();
    let asked = |check: &str, want: &str| {
        let outcome = run(&format!("{{ type = \"http\", regex = '^{want}', {check} }}"), address);
        let Outcome::Pass { say, .. } = outcome else { panic!("{check}: {outcome:?}") };
        say
    };
    assert_eq!(
        asked(
            "path = \"/a?b=c\"",
            &format!("GET /a\\?b=c HTTP/1.1\\|host: {host}\\|user-agent: [^|]*\\|connection: close\\|\\|$")
        ),
        Say::Nothing
    );
    asked("version = \"1.0\"", &format!("GET / HTTP/1.0\\|host: {host}\\|user-agent: [^|]*\\|\\|$"));
    asked(
        "version = \"1.0c\"",
        &format!("GET / HTTP/1.0\\|host: {host}\\|user-agent: [^|]*\\|connection: close\\|\\|$"),
    );
    asked("host = \"www.example.org\"", "GET / HTTP/1.1\\|host: www.example.org\\|");
    assert_eq!(asked("weight_header = \"x-weight\"", ""), Say::Weight(42));
    assert!(
        fail(run("{ type = \"http\", regex = 'nowhere' }", address)).starts_with("the body does not match")
    );
}

#[test]
fn every_url_must_give_what_is_expected() {
    let address = tcp(|stream| {
        let request = request(stream);
        let status = if request.starts_with("GET /bad ") { "503 Busy" } else { "204 Empty" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let urls = |last: &str| {
        format!("{{ type = \"http\", urls = [{{ path = \"/a\" }}, {{ path = \"{last}\", status = 204 }}] }}")
    };
    assert_eq!(pass(run(&urls("/b"), address)).0, "status 204");
    assert_eq!(fail(run(&urls("/bad"), address)), "/bad: status 503, not 204");
    assert_eq!(
        pass(run("{ type = \"http\", path = \"/bad\", status = [\"500-599\"] }", address)).0,
        "status 503"
    );
    assert_eq!(pass(run("{ type = \"http\", method = \"HEAD\", path = \"/x\" }", address)).0, "status 204");
}

#[test]
fn what_is_no_http_fails() {
    let garbage = tcp(|stream| {
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"220 mail\r\n").unwrap();
    });
    let why = fail(run("{ type = \"http\" }", garbage));
    assert!(why.contains("invalid HTTP"), "{why}");
    let gone = tcp(|stream| drop(request(stream)));
    assert_eq!(fail(run("{ type = \"http\" }", gone)), "closed without an answer");
    assert!(fail(run("{ type = \"https\" }", garbage)).starts_with("TLS: "));
    assert_eq!(fail(run("{ type = \"http\" }", closed())), "connection refused");
}

#[test]
fn a_mail_server_must_take_part() {
    let serve = |greeting: &'static str, helo: &'static str| {
        tcp(move |stream| {
            stream.write_all(greeting.as_bytes()).unwrap();
            let mut line = [0; 64];
            let length = stream.read(&mut line).unwrap_or(0);
            let text = String::from_utf8_lossy(&line[..length]).into_owned();
            if text == "HELO me.example\r\n" {
                stream.write_all(helo.as_bytes()).unwrap();
                let _ = stream.read(&mut line);
                let _ = stream.write_all(b"221 bye\r\n");
            }
        })
    };
    let check = "{ type = \"smtp\", helo = \"me.example\", timeout = \"2s\" }";
    assert_eq!(pass(run(check, serve("220-a\r\n220 mail ready\r\n", "250 hello\r\n"))).0, "220 mail ready");
    assert_eq!(fail(run(check, serve("554 go away\r\n", ""))), "answer \"554 go away\"");
    assert_eq!(fail(run(check, serve("220 ok\r\n", "501 who\r\n"))), "answer \"501 who\"");
    assert_eq!(fail(run(check, serve("HTTP/1.1 400\r\n", ""))), "not a reply of SMTP: \"HTTP/1.1 400\"");
}

#[test]
fn a_name_server_must_answer_without_an_error() {
    let serve = |code: u8| {
        udp(move |query| {
            let mut answer = query.to_vec();
            (answer[2], answer[3], answer[7]) = (0x81, 0x80 | code, 1);
            Some(answer)
        })
    };
    let check = "{ type = \"dns\", record = \"A\", name = \"example.org\", timeout = \"2s\" }";
    assert_eq!(pass(run(check, serve(0))).0, "1 records");
    assert_eq!(fail(run(check, serve(5))), "answer REFUSED");
    assert_eq!(fail(run("{ type = \"dns\", timeout = \"100ms\" }", udp(|_| None))), "no answer within 100ms");
}

#[test]
fn a_datagram_is_answered_or_not_refused() {
    let echo = || udp(|asked| Some([b"\x01\x3f", asked].concat()));
    let check = |more: &str| format!("{{ type = \"udp\", payload = \"aabb\", timeout = \"500ms\", {more} }}");
    assert_eq!(pass(run(&check("reply = \"01xfaabb\""), echo())).0, "answered");
    assert_eq!(fail(run(&check("reply = \"02\""), echo())), "an answer that does not begin with 02");
    assert_eq!(
        fail(run(&check("reply = \"01\", max_length = 3"), echo())),
        "an answer of 4 bytes, not 0 to 3"
    );
    assert_eq!(fail(run(&check("reply = \"01\""), udp(|_| None))), "no answer within 500ms");
    assert_eq!(pass(run(&check("port = 1"), udp(|_| None))).0, "not refused");
    assert_eq!(fail(run(&check("port = 1"), closed())), "connection refused");
}

#[test]
fn the_loopback_answers_echoes() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        match run("{ type = \"ping\", timeout = \"2s\" }", address.parse().unwrap()) {
            Outcome::Pass { why, .. } => assert_eq!(why, "answered"),
            // Whoever runs the tests may not be allowed to, or has no IPv6.
            Outcome::Fail { why } => assert!(
                why.contains("not permitted") || why.contains("denied") || why.contains("cannot assign"),
                "{why}"
            ),
        }
    }
}

#[test]
fn an_exit_code_decides() {
    let script = |code: &str, more: &str| {
        let check = format!(
            "{{ type = \"script\", command = [\"/bin/sh\", \"-c\", \"{code}\"], timeout = \"1s\"{more} }}"
        );
        run(&check, closed())
    };
    assert_eq!(pass(script("exit 0", "")), ("exit code 0".into(), Say::Nothing));
    assert_eq!(fail(script("exit 1", ", dynamic = true")), "exit code 1");
    assert_eq!(fail(script("exit 7", "")), "exit code 7");
    assert_eq!(pass(script("exit 7", ", dynamic = true")).1, Say::Weight(5));
    assert_eq!(pass(script("test 127.0.0.1 = ${SLUICE_SERVER%:*}", "")).0, "exit code 0");
    assert!(fail(script("kill -9 $$", "")).starts_with("ended by a signal"));
    assert_eq!(fail(script("exit 0", ", user = \"nosuchuser\"")), "there is no user nosuchuser");
    let missing = "{ type = \"script\", command = [\"/nonexistent/x\"] }";
    assert_eq!(fail(run(missing, closed())), "/nonexistent/x: no such file or directory");
}

#[test]
fn a_script_that_takes_too_long_is_killed_with_its_children() {
    let dir = std::env::temp_dir().join(format!("sluice-script-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("pids");
    let shell = format!("sleep 60 & echo $! > {}; wait", file.display());
    let check =
        format!("{{ type = \"script\", command = [\"/bin/sh\", \"-c\", \"{shell}\"], timeout = \"300ms\" }}");
    assert_eq!(fail(run(&check, closed())), "killed after 300ms");
    let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let until = Instant::now() + Duration::from_secs(5);
    while !gone() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(gone(), "process {child} still runs");
    std::fs::remove_dir_all(&dir).unwrap();
}

//! The API over a real socket: a small backend behind it, clients that behave and clients that do not.

#![allow(clippy::unwrap_used)] // in helpers; in test functions the workspace allows it

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_control::api::{
    ApiError, Changes, Client, ClientError, ConfigText, ErrorKind, Hello, Request, Response, decode, encode,
    frame,
};
use lb_control::server::{Call, MAX_CONNECTIONS, Policy, Socket, SocketSettings, Times, Work, serve};
use tokio::sync::{mpsc, oneshot};

const SMALLEST: &str = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"192.168.150.11/24\"]\n";

/// A server on a socket of its own, with a backend that answers every request by what it understood.
struct Server {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let times = Times {
            idle: Duration::from_secs(20),
            frame: Duration::from_millis(300),
            write: Duration::from_millis(300),
        };
        Self::start_with(times, answer)
    }

    fn start_with(times: Times, answer: fn(Call)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluice-api-{}-{number}/s", std::process::id()));
        let settings = SocketSettings { path: path.clone(), group: None, public_read: false };
        let (stop, stopped) = oneshot::channel();
        let socket = Socket::bind(&settings).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, mut calls) = mpsc::channel(8);
                let listener = socket.listener().unwrap();
                tokio::spawn(serve(listener, Policy::new(None, false), sender, times));
                tokio::spawn(async move {
                    while let Some(call) = calls.recv().await {
                        answer(call);
                    }
                });
                let _ = stopped.await;
            });
        });
        Self { path, stop: Some(stop), thread: Some(thread) }
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        assert!(!self.path.exists(), "the socket goes with the server");
        let _ = std::fs::remove_dir(self.path.parent().unwrap());
    }
}

fn config(toml: String) -> Response {
    Response::Config(ConfigText { toml, generation: 0 })
}

fn answer(call: Call) {
    let response = match call.work {
        Work::Replace(model) | Work::Rehearse(model) | Work::Compare(model) | Work::Exchange(model, _) => {
            config(lb_config::to_toml(&model))
        }
        Work::Plain(request) => match *request {
            Request::Show => config("x".repeat(8 << 20)),
            Request::ServiceDelete { service } => {
                Response::Error(ApiError::new(ErrorKind::NotFound, format!("there is no service {service}")))
            }
            Request::Latency => config("x".repeat(frame::MAX_FRAME)),
            _ => Response::Changes(Changes::default()),
        },
    };
    let _ = call.reply.send(response);
}

/// Reads one frame by hand.
fn receive(stream: &mut UnixStream) -> Option<Response> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(decode(&payload).unwrap())
}

fn refusal(response: Option<Response>) -> (ErrorKind, String) {
    match response {
        Some(Response::Error(error)) => (error.kind, error.message),
        other => panic!("no error but {other:?}"),
    }
}

fn hello() -> Vec<u8> {
    encode(&Request::Hello(Hello::default())).unwrap().to_vec()
}

#[test]
fn a_request_is_answered_and_the_connection_stays() {
    let server = Server::start();
    let mut client = server.client();
    assert_eq!(client.call(&Request::Stats).unwrap(), Response::Changes(Changes::default()));
    let refused = client.call(&Request::ServiceDelete { service: "web".into() }).unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(e) if e.kind == ErrorKind::NotFound), "{refused}");
    assert_eq!(client.call(&Request::Stats).unwrap(), Response::Changes(Changes::default()));
}

#[test]
fn a_configuration_is_checked_before_the_backend_sees_it() {
    let server = Server::start();
    let mut client = server.client();
    let apply = |toml: &str| Request::Apply { toml: toml.into(), dry_run: false };
    let Response::Config(config) = client.call(&apply(SMALLEST)).unwrap() else { panic!("no configuration") };
    assert_eq!(lb_config::parse(&config.toml), lb_config::parse(SMALLEST));
    let faulty = SMALLEST.to_owned() + "mtu = 1\ncolour = 3\n";
    let ClientError::Refused(error) = client.call(&apply(&faulty)).unwrap_err() else {
        panic!("not refused")
    };
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, "configuration refused: 2 faults"));
    let places: Vec<_> = error.faults.iter().map(|fault| (fault.line, fault.path.as_str())).collect();
    assert_eq!(places, [(5, "ports[0].mtu"), (6, "ports[0].colour")]);
}

#[test]
fn large_answers_arrive_whole_and_too_large_ones_as_an_error() {
    let server = Server::start();
    let mut client = server.client();
    let Response::Config(config) = client.call(&Request::Show).unwrap() else { panic!("no configuration") };
    assert_eq!(config.toml.len(), 8 << 20);
    let refused = client.call(&Request::Latency).unwrap_err().to_string();
    assert!(refused.starts_with("answer not sent: frame of 167772"), "{refused}");
    assert!(client.call(&Request::Stats).is_ok());
}

#[test]
fn garbage_is_answered_with_an_error() {
    let server = Server::start();
    for (payload, want) in [
        (&b"\xff\xfe"[..], "message is not UTF-8 from byte 0 on"),
        (b"= [", "message cannot be read: "),
        (b"request = \"reboot\"", "message cannot be read: unknown variant `reboot`"),
        (b"request = \"show\"\n[", "message cannot be read: "),
        (b"request = \"service_delete\"", "message cannot be read: missing field `service`"),
        (b"", "message cannot be read: missing field `request`"),
    ] {
        let mut stream = server.raw();
        stream.write_all(&hello()).unwrap();
        assert!(matches!(receive(&mut stream), Some(Response::Hello(_))));
        stream.write_all(&frame::wrap(payload).unwrap()).unwrap();
        let (kind, message) = refusal(receive(&mut stream));
        assert_eq!(kind, ErrorKind::Protocol);
        assert!(message.starts_with(want), "{message}");
        // The stream is still in step.
        stream.write_all(&encode(&Request::Stats).unwrap()).unwrap();
        assert!(matches!(receive(&mut stream), Some(Response::Changes(_))));
    }
}

#[test]
fn without_a_hello_nothing_is_answered() {
    let server = Server::start();
    let other = Request::Hello(Hello { protocol: 2, version: "9".into() });
    for (first, want) in [
        (encode(&Request::Show).unwrap(), "the first message must be a hello"),
        (encode(&other).unwrap(), "lbd speaks protocol 1, not 2"),
        (
            frame::wrap(b"GET / HTTP/1.1").unwrap(),
            "the first message must be a hello: message cannot be read: ",
        ),
    ] {
        let mut stream = server.raw();
        stream.write_all(&first).unwrap();
        let (kind, message) = refusal(receive(&mut stream));
        assert_eq!(kind, ErrorKind::Protocol);
        assert!(message.starts_with(want), "{message}");
        assert_eq!(receive(&mut stream), None, "the connection is closed");
    }
}

#[test]
fn huge_lengths_are_refused_at_once() {
    let server = Server::start();
    let mut stream = server.raw();
    stream.write_all(&65_537_u32.to_be_bytes()).unwrap();
    let (_, message) = refusal(receive(&mut stream));
    assert_eq!(message, "frame of 65537 bytes is above the limit of 65536 bytes");
    assert_eq!(receive(&mut stream), None);

    let mut stream = server.raw();
    stream.write_all(&hello()).unwrap();
    assert!(matches!(receive(&mut stream), Some(Response::Hello(_))));
    stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
    let (_, message) = refusal(receive(&mut stream));
    assert_eq!(message, "frame of 4294967295 bytes is above the limit of 16777216 bytes");
    assert_eq!(receive(&mut stream), None);
}

#[test]
fn a_half_frame_times_out_even_when_bytes_trickle() {
    let server = Server::start();
    let mut stream = server.raw();
    let start = Instant::now();
    for byte in hello() {
        // Fails once the server has closed.
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(refusal(receive(&mut stream)).1, "a frame was not complete after 300ms");
    assert_eq!(receive(&mut stream), None);
    assert!(start.elapsed() >= Duration::from_millis(300));
    // Others are served meanwhile and after.
    assert!(server.client().call(&Request::Stats).is_ok());
}

#[test]
fn a_silent_client_is_let_go() {
    let times = Times { idle: Duration::from_millis(50), ..Times::default() };
    let server = Server::start_with(times, answer);
    let mut stream = server.raw();
    assert_eq!(receive(&mut stream), None);
}

#[test]
fn a_slow_reader_is_cut_off_and_others_are_served() {
    let server = Server::start();
    let mut slow = server.raw();
    slow.write_all(&hello()).unwrap();
    slow.write_all(&encode(&Request::Show).unwrap()).unwrap();
    assert!(server.client().call(&Request::Stats).is_ok());
    // Time for the server to give up: 8 MiB never fit the socket's buffer.
    std::thread::sleep(Duration::from_millis(900));
    let mut all = Vec::new();
    let _ = slow.read_to_end(&mut all);
    assert!(all.len() < 8 << 20, "{} bytes came", all.len());
}

#[test]
fn connections_are_bounded_and_come_back() {
    let server = Server::start();
    let mut clients: Vec<Client> = (0..MAX_CONNECTIONS).map(|_| server.client()).collect();
    let refused = Client::connect(&server.path).unwrap_err();
    assert_eq!(refused.to_string(), "64 connections are open, the most there may be");
    assert!(refused.is_unreachable());
    assert!(clients[0].call(&Request::Stats).is_ok());
    clients.clear();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Client::connect(&server.path).is_err() {
        assert!(Instant::now() < deadline, "no connection came back");
        std::thread::yield_now();
    }
}

#[test]
fn without_lbd_the_client_says_where_it_looked() {
    let path = std::env::temp_dir().join(format!("sluice-nobody-{}", std::process::id()));
    let error = Client::connect(&path).unwrap_err();
    assert!(error.is_unreachable());
    assert!(error.to_string().starts_with(&format!("cannot reach lbd at {}: ", path.display())), "{error}");
}

#[test]
fn a_backend_that_stops_is_reported() {
    let server = Server::start_with(Times::default(), drop);
    let error = server.client().call(&Request::Stats).unwrap_err();
    assert_eq!(error.to_string(), "lbd is stopping");
}

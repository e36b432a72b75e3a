//! What listens on the real servers.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::director::PATIENCE;
use crate::lab::{Lab, RealServer};
use crate::process::Process;
use crate::wait::wait_until;

/// Time after which a server's thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);

impl Lab {
    /// Starts nginx on every real server: `/` answers `from ADDRESS`, `/client` the client's address, `/proxied` at port
    /// 8088 what a PROXY protocol header said of the client, and `/keep`
    /// as `/` but keeps the connection.
    pub fn start_nginx(&self) -> Result<Vec<Process>> {
        self.servers.iter().map(|server| self.nginx(server)).collect()
    }

    /// Starts nginx on one server, as [`Lab::start_nginx`] does.
    pub fn nginx(&self, server: &RealServer) -> Result<Process> {
        let dir = self.dir().join(server.netns.name());
        std::fs::create_dir_all(&dir)?;
        let (path, address) = (dir.to_string_lossy(), &server.address);
        let config = format!(
            "daemon off; pid {path}/pid; error_log {path}/error.log; worker_processes 1;\n\
             worker_rlimit_nofile 16384;\n\
             events {{ worker_connections 16000; }}\n\
             http {{\n\
             access_log off; keepalive_timeout 0; client_header_timeout 300;\n\
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;\n\
             uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
             server {{\n\
             listen 80 backlog=8192; listen [::]:80 backlog=8192; listen 8080; listen [::]:8080;\n\
             listen 8088 proxy_protocol; listen [::]:8088 proxy_protocol;\n\
             default_type text/plain;\n\
             location = / {{ return 200 \"from {address}\\n\"; }}\n\
             location = /client {{ return 200 \"$remote_addr\\n\"; }}\n\
             location = /proxied {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port\\n\"; }}\n\
             location = /keep {{ keepalive_timeout 300; keepalive_requests 1000000; return 200 \"from {address}\\n\"; }}\n\
             }} }}\n"
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config)?;
        let argv =
            ["nginx", "-c", &*file.to_string_lossy(), "-p", &*path, "-e", &format!("{path}/error.log")];
        // A namespace takes over the host's limit on waiting connections.
        server.netns.run(&[
            "sysctl",
            "-qw",
            "net.core.somaxconn=8192",
            "net.ipv4.tcp_max_syn_backlog=8192",
        ])?;
        let process = server.netns.start(&argv, &dir.join("log"))?;
        let url = format!("http://{address}/");
        wait_until(&format!("nginx answers at {url}"), PATIENCE, || {
            server.netns.run(&["curl", "-sf", "--max-time", "2", &url])?;
            Ok(true)
        })
        .with_context(|| process.log())?;
        Ok(process)
    }
}

/// A server that runs on a thread of the test; dropped, it ends.
#[derive(Debug)]
pub struct ThreadServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// What it has received, bytes.
    pub bytes: Arc<AtomicU64>,
    /// Whether what it has received was not what was expected.
    pub wrong: Arc<AtomicBool>,
}

impl ThreadServer {
    fn start(body: impl FnOnce(&AtomicBool, &AtomicU64, &AtomicBool) + Send + 'static) -> Self {
        let (stop, bytes, wrong) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let shared = (stop.clone(), bytes.clone(), wrong.clone());
        let thread = thread::spawn(move || body(&shared.0, &shared.1, &shared.2));
        Self { stop, thread: Some(thread), bytes, wrong }
    }

    /// Answers each datagram to `port` with the server's address.
    pub fn udp(server: &RealServer, port: u16) -> Result<Self> {
        // Bound to the one address, so that the answer comes from it.
        let socket = server.netns.enter(|| Ok(UdpSocket::bind((&*server.serves, port))?))?;
        socket.set_read_timeout(Some(LOOK))?;
        let address = server.address.clone();
        Ok(Self::start(move |stop, bytes, _| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    bytes.fetch_add(length as u64, Ordering::Relaxed);
                    // A client that is gone is no fault of the server's.
                    let _ = socket.send_to(address.as_bytes(), from);
                }
            }
        }))
    }

    /// Takes one TCP connection at a time, compares what comes with [`Pattern`] and answers the number of bytes
    /// when the client has sent everything.
    pub fn tcp_sink(server: &RealServer, port: u16) -> Result<Self> {
        let listener = server.netns.enter(|| Ok(TcpListener::bind((&*server.serves, port))?))?;
        listener.set_nonblocking(true)?;
        Ok(Self::start(move |stop, bytes, wrong| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Err(error) = sink(stream, stop, bytes) {
                            eprintln!("the sink: {error:#}");
                            wrong.store(true, Ordering::Relaxed);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                    Err(_) => wrong.store(true, Ordering::Relaxed),
                }
            }
        }))
    }
}

fn sink(mut stream: std::net::TcpStream, stop: &AtomicBool, bytes: &AtomicU64) -> Result<()> {
    stream.set_nonblocking(false)?;
    // while a director is away TCP waits twice as long each time: the next segment may be half a minute off
    stream.set_read_timeout(Some(4 * PATIENCE))?;
    let mut pattern = Pattern::default();
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    let mut expected = buffer.clone();
    while !stop.load(Ordering::Relaxed) {
        let length = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            // signals come to the whole test: one is none of the stream's faults
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        pattern.fill(&mut expected[..length]);
        ensure!(buffer[..length] == expected[..length], "byte {total} or after is not what was sent");
        total += length as u64;
        bytes.store(total, Ordering::Relaxed);
    }
    writeln!(stream, "{total}")?;
    Ok(())
}

impl Drop for ThreadServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of the server's thread has been printed; the test's own outcome counts.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An endless stream of bytes that does not repeat within a transfer, the same at both ends.
#[derive(Debug, Default)]
pub struct Pattern {
    position: u64,
}

impl Pattern {
    /// Fills `buffer` with the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            // SplitMix64 (Steele, Lea, Flood 2014) of the word's number, one byte of it.
            let mut word = (self.position / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (word ^ (word >> 31)).to_le_bytes()[(self.position % 8) as usize];
            self.position += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_does_not_depend_on_how_it_is_cut() {
        let mut whole = [0; 100];
        Pattern::default().fill(&mut whole);
        let mut cut = [0; 100];
        let mut pattern = Pattern::default();
        for chunk in cut.chunks_mut(7) {
            pattern.fill(chunk);
        }
        assert_eq!(whole, cut);
        assert_ne!(whole[..8], whole[8..16]);
    }
}

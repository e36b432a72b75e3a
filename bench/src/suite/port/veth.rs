//! Real connections over veth in network namespaces: lbd with NAT, nftables' DNAT, haproxy in TCP mode, nginx stream.
//!
//! client 10.1.1.2 - director 10.1.1.1, VIP 10.1.1.100:80 - servers 10.1.2.2 and .3, port 8080, on one nginx. Offloads
//! that no wire has are off. The last CPU is the balancer's, whoever it is, the first the client's and the servers'; the
//! kernel takes packets in where the program is that they are for (RPS), so that its own forwarding is on the
//! balancer's CPU too. The figures compare what does the same there, and are no capacity of anything. lbd holds the
//! interfaces by AF_PACKET.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::netns::{Netns, Running, is_there, remove_stale, run as run_words, wait_for};
use crate::context::Context;
use crate::record::Table;
use crate::rig::cpus;
use crate::stats::Series;

/// Who balances.
const WHO: [&str; 4] = ["Sluice NAT", "nftables DNAT", "haproxy TCP", "nginx stream"];

/// What is measured of each.
const WHAT: [(&str, &str); 4] = [
    ("connections", "connections/s"),
    ("requests", "requests/s"),
    ("latency, p50", "us"),
    ("latency, p99", "us"),
];

/// Compares them.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    const TITLE: &str = "real connections over veth";
    if !nix::unistd::geteuid().is_root() {
        context.skip(TITLE, "needs root");
        return Ok(());
    }
    if let Some(missing) = ["ip", "ethtool", "nginx", "wrk", "curl", "sysctl", "taskset"]
        .into_iter()
        .find(|tool| !is_there(tool))
    {
        context.skip(TITLE, format!("no {missing}"));
        return Ok(());
    }
    remove_stale();
    let lab = Lab::new(Cpus::of(&cpus()?)?)?;
    if !lab.steered {
        context.note("This kernel has no RPS: what it forwards itself runs on the CPU of whoever sends, not the balancer's.");
    }
    let mut present = Vec::new();
    for who in WHO {
        match lab.balance(who) {
            Ok(_running) => present.push(who),
            Err(error) => context.skip(format!("{who} over veth"), format!("{error:#}")),
        }
    }
    let mut series: Vec<[Series; WHAT.len()]> = present.iter().map(|_| Default::default()).collect();
    let seconds = if context.quick() { 1 } else { 2 };
    let rounds = if context.quick() { 1 } else { context.pairs() };
    let mut progress = context.progress(TITLE, (rounds * present.len()) as u64);
    for _ in 0..rounds {
        for (who, series) in present.iter().zip(&mut series) {
            let _running = lab.balance(who)?;
            let fresh = lab.load("", seconds).with_context(|| format!("connections through {who}"))?;
            let kept = lab.load("keep", seconds).with_context(|| format!("requests through {who}"))?;
            for (series, figure) in series.iter_mut().zip([fresh.rate, kept.rate, kept.p50_us, kept.p99_us]) {
                series.push(figure);
            }
            progress.step(1);
        }
    }
    drop(progress);
    let columns = ["", "connections/s", "requests/s", "latency p50, us", "p99, us"];
    let title = "Real connections over veth, median: 64 at once, a new one for each request, then kept ones";
    let mut table = Table::new(title, &columns);
    for (who, series) in present.iter().zip(series) {
        let shown = series.iter().map(|series| format!("{:.0}", series.median()));
        table.row([(*who).to_owned()].into_iter().chain(shown));
        for ((what, unit), series) in WHAT.iter().zip(series) {
            context.record(&format!("veth, {what}"), who, unit, series);
        }
    }
    if !table.rows.is_empty() {
        context.table(table);
        context.note(
            "The balancer has the last CPU, wrk and the servers' nginx share the first, and lbd copies every frame twice (AF_PACKET) \
             where nftables forwards it within the kernel: no figure of a line, but what a user sees in a container.",
        );
    }
    Ok(())
}

/// Who runs where.
#[derive(Clone, Copy)]
struct Cpus {
    /// Client and servers.
    ends: usize,
    /// The balancer.
    balancer: usize,
}

impl Cpus {
    fn of(ours: &[usize]) -> anyhow::Result<Self> {
        Ok(Self { ends: *ours.first().context("no CPU")?, balancer: *ours.last().context("no CPU")? })
    }

    /// A command on a CPU.
    fn on(cpu: usize, command: &str) -> String {
        format!("taskset -c {cpu} {command}")
    }
}

/// Has packets that come in by an interface taken in on a CPU (RPS).
fn receive_on(netns: &Netns, interface: &str, cpu: usize) -> anyhow::Result<()> {
    // groups of 32 CPUs, the highest first
    let zeros = ",00000000".repeat(cpu / 32);
    let set =
        format!("echo {:x}{zeros} > /sys/class/net/{interface}/queues/rx-0/rps_cpus", 1_u32 << (cpu % 32));
    run_words(&["ip", "netns", "exec", netns.name(), "sh", "-c", &set]).map(drop)
}

/// What wrk saw.
struct Load {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

/// The network. The servers' nginx goes first, then the namespaces.
struct Lab {
    _servers: Running,
    client: Netns,
    director: Netns,
    _server: Netns,
    dir: Folder,
    cpus: Cpus,
    /// The kernel takes packets in where it was told to.
    steered: bool,
}

/// A folder that goes when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Lab {
    fn new(cpus: Cpus) -> anyhow::Result<Self> {
        let dir = Folder(std::env::temp_dir().join(format!("sluice-bench-veth-{}", std::process::id())));
        std::fs::create_dir_all(&dir.0)?;
        let (client, director, server) =
            (Netns::new("client")?, Netns::new("director")?, Netns::new("server")?);
        let mut steered = true;
        for (here, name, there) in [(&client, "c0", "d0"), (&server, "s0", "d1")] {
            here.run(&format!("ip link add {name} type veth peer name {there} netns {}", director.name()))?;
            for (netns, interface, cpu) in [(here, name, cpus.ends), (&director, there, cpus.balancer)] {
                steered &= receive_on(netns, interface, cpu).is_ok();
                netns.run(&format!("ethtool -K {interface} rx off tx off sg off tso off gso off gro off"))?;
                netns.run(&format!("ip link set {interface} up"))?;
            }
        }
        client.run("ip address add 10.1.1.2/24 dev c0")?;
        for address in ["10.1.2.2/24", "10.1.2.3/24"] {
            server.run(&format!("ip address add {address} dev s0"))?;
        }
        server.run("ip route add default via 10.1.2.1")?;
        for netns in [&client, &director, &server] {
            let ports = "net.ipv4.ip_local_port_range=1024 65535";
            let inside = ["ip", "netns", "exec", netns.name(), "sysctl", "-qw", ports];
            run_words(&inside)?;
            netns.run("sysctl -qw net.core.somaxconn=8192 net.ipv4.tcp_max_syn_backlog=8192")?;
        }
        let config = format!(
            "daemon off; master_process off; pid {0}/s.pid; error_log {0}/s.log; worker_rlimit_nofile 16384;\n\
             events {{ worker_connections 8000; }}\n\
             http {{ access_log off; default_type text/plain; client_body_temp_path {0}/b; proxy_temp_path {0}/p;\n\
             fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/c;\n\
             server {{ listen 8080 backlog=8192; keepalive_timeout 0;\n\
             location = / {{ return 200 \"hello\\n\"; }}\n\
             location = /keep {{ keepalive_timeout 300; keepalive_requests 100000000; return 200 \"hello\\n\"; }} }} }}\n",
            dir.0.display()
        );
        let servers = Cpus::on(cpus.ends, &nginx(&dir.0, "s.conf", &config)?);
        let servers = server.start(&servers, &dir.0.join("s.out"))?;
        wait_for("nginx", || Ok(server.run("curl -sf --max-time 1 http://10.1.2.2:8080/")? == "hello\n"))?;
        Ok(Self { _servers: servers, client, director, _server: server, dir, cpus, steered })
    }

    /// Starts a balancer, with the director's interfaces as it wants them, and waits until it works.
    ///
    /// Errors: it is not there, or does not work.
    fn balance(&self, who: &str) -> anyhow::Result<Option<Running>> {
        for interface in ["d0", "d1"] {
            self.director.run(&format!("ip address flush dev {interface}"))?;
        }
        // where there is none there is nothing to forget
        let _ = self.director.run("nft delete table ip sluicebench");
        let is_lbd = who == WHO[0];
        self.director.run(&format!("sysctl -qw net.ipv4.ip_forward={}", u8::from(!is_lbd)))?;
        if !is_lbd {
            self.director.run("ip address add 10.1.1.1/24 dev d0")?;
            self.director.run("ip address add 10.1.1.100/32 dev d0")?;
            self.director.run("ip address add 10.1.2.1/24 dev d1")?;
        }
        let running = match who {
            "Sluice NAT" => Some(self.lbd()?),
            "nftables DNAT" => {
                let file = self.file("lb.nft", NFT)?;
                self.director.run(&format!("nft -f {}", file.display()))?;
                None
            }
            "haproxy TCP" => {
                let file = self.file("haproxy.cfg", HAPROXY)?;
                let command = Cpus::on(self.cpus.balancer, &format!("haproxy -db -f {}", file.display()));
                Some(self.start("haproxy", &command)?)
            }
            _ => {
                let config = format!(
                    "load_module /usr/lib/nginx/modules/ngx_stream_module.so; daemon off; worker_processes 1;\n\
                     pid {0}/l.pid; error_log {0}/l.log; worker_rlimit_nofile 16384; events {{ worker_connections 8000; }}\n\
                     stream {{ upstream web {{ server 10.1.2.2:8080; server 10.1.2.3:8080; }}\n\
                     server {{ listen 10.1.1.100:80 backlog=8192; proxy_pass web; }} }}\n",
                    self.dir.0.display()
                );
                let command = Cpus::on(self.cpus.balancer, &nginx(&self.dir.0, "l.conf", &config)?);
                Some(self.start("nginx-stream", &command)?)
            }
        };
        let answer = || Ok(self.client.run("curl -sf --max-time 1 http://10.1.1.100/")? == "hello\n");
        wait_for(who, answer).with_context(|| self.evidence())?;
        Ok(running)
    }

    /// What the balancers have said.
    fn evidence(&self) -> String {
        let logs = ["lbd", "haproxy", "nginx-stream"].into_iter();
        let said =
            logs.filter_map(|name| std::fs::read_to_string(self.dir.0.join(format!("{name}.out"))).ok());
        said.collect::<String>().replace('\n', " ")
    }

    fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.0.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn start(&self, name: &str, command: &str) -> anyhow::Result<Running> {
        self.director.start(command, &self.dir.0.join(format!("{name}.out")))
    }

    /// lbd, which is beside this program.
    fn lbd(&self) -> anyhow::Result<Running> {
        let program = std::env::current_exe()?.with_file_name("lbd");
        let build = "cargo build --release -p lb-control --features dpdk";
        ensure!(program.exists(), "no {}: {build}", program.display());
        let socket = self.dir.0.join("lbd.sock").display().to_string();
        let cpu = self.cpus.balancer.to_string();
        let text = LBD.replace("SOCKET", &socket).replace("BALANCER", &cpu);
        let file = self.file("lbd.toml", &text)?;
        self.start("lbd", &format!("{} --config {}", program.display(), file.display()))
    }

    /// Runs wrk on the client.
    fn load(&self, path: &str, seconds: u32) -> anyhow::Result<Load> {
        let wrk = format!("wrk -t 1 -c 64 -d {seconds}s --timeout 5s --latency http://10.1.1.100/{path}");
        let text = self.client.run(&Cpus::on(self.cpus.ends, &wrk))?;
        read_wrk(&text).with_context(|| text.clone())
    }
}

/// Writes a configuration of nginx and gives the command that runs it.
fn nginx(dir: &Path, name: &str, config: &str) -> anyhow::Result<String> {
    let file = dir.join(name);
    std::fs::write(&file, config)?;
    let dir = dir.display();
    Ok(format!("nginx -c {} -p {dir} -e {dir}/{name}.err", file.display()))
}

/// `None`: requests failed, or this is no report of wrk.
fn read_wrk(text: &str) -> Option<Load> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return None;
    }
    let after = |what: &str| {
        let mut words = text.lines().find_map(|line| line.trim().strip_prefix(what))?.split_whitespace();
        words.next()
    };
    let us = |text: &str| {
        let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
        let factor = match unit {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => return None,
        };
        Some(number.parse::<f64>().ok()? * factor)
    };
    let rate = after("Requests/sec:")?.parse().ok()?;
    Some(Load { rate, p50_us: us(after("50%")?)?, p99_us: us(after("99%")?)? })
}

const NFT: &str = "table ip sluicebench {
  chain pre {
    type nat hook prerouting priority -100;
    ip daddr 10.1.1.100 tcp dport 80 dnat to numgen inc mod 2 map { 0 : 10.1.2.2, 1 : 10.1.2.3 } : 8080
  }
}
";

const HAPROXY: &str = "global
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind 10.1.1.100:80
  balance roundrobin
  server one 10.1.2.2:8080
  server two 10.1.2.3:8080
";

const LBD: &str = r#"
[appliance]
name = "bench"
workers = [BALANCER]
huge_pages = "none"
memory_mib = 256
idle = "adaptive"
socket = "SOCKET"
[limits]
max_connections = 262144
mbufs = 16384
[tables]
keep = false
[[ports]]
name = "wan"
device = "af_packet:d0"
addresses = ["10.1.1.1/24"]
[[ports]]
name = "lan"
device = "af_packet:d1"
addresses = ["10.1.2.1/24"]
[[services]]
name = "web"
vip = "10.1.1.100"
port = 80
protocol = "tcp"
scheduler = "rr"
forwarding = "nat"
servers = [{ address = "10.1.2.2", port = 8080 }, { address = "10.1.2.3", port = 8080 }]
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_wrk_is_read() {
        let text = "  Latency Distribution\n     50%  812.00us\n     75%    1.10ms\n     99%    2.50ms\n  100 requests in 1.00s\nRequests/sec:  12345.67\n";
        let load = read_wrk(text).unwrap();
        assert_eq!((load.rate, load.p50_us, load.p99_us), (12345.67, 812.0, 2500.0));
        assert!(read_wrk(&format!("{text}  Socket errors: connect 1, read 0\n")).is_none());
        assert!(read_wrk("").is_none());
    }

    #[test]
    fn lbd_takes_its_configuration() {
        lb_config::parse(&LBD.replace("SOCKET", "/tmp/a.sock").replace("BALANCER", "1")).unwrap();
    }
}

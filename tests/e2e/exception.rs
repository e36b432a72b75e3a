//! The exception path: what is not load-balanced is the kernel's, over a port that lbd holds. The director's eth0 has no
//! address: whatever its kernel hears and says goes by lbd's TAP interface.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{CLIENT, DIP, DIP_BEHIND, DIP_BEHIND6, DIP6, Lab, Place, Shape, VIP, VIP6};
use lb_tests::netns::Netns;
use lb_tests::process::{self, Process};
use lb_tests::wait::wait_until;
use nix::sys::signal::Signal;

pub fn cases() -> Vec<Case> {
    let one = Shape { servers: 1, ..Shape::default() };
    vec![
        Case::new("the_kernel_is_reached_over_a_port_that_lbd_holds", reached),
        Case::new("the_kernel_is_reached_with_a_vlan", reached).shape(Shape { vlan: Some(20), ..one }),
        Case::new("ssh_works_over_a_port_that_lbd_holds", ssh).shape(one).needs(no_sshd),
        Case::new("a_real_server_on_the_director_gets_its_share", local),
        Case::new("a_flood_to_the_director_hurts_neither_services_nor_ssh", flood),
        Case::new("keepalived_beside_lbd_is_master_over_its_port", keepalived).shape(one),
        Case::new("bird_beside_lbd_speaks_bgp_over_its_port", bird).shape(one).needs(no_bird),
        Case::new("a_check_by_the_packet_path_finds_a_server_without_the_vip", by_path),
        Case::new("a_check_by_the_packet_path_finds_a_server_that_does_not_unpack", by_tunnel)
            .shape(Shape { place: Place::BesideWithTunnels, ..Shape::default() }),
        Case::new("a_check_by_the_packet_path_finds_a_server_with_another_gateway", by_nat)
            .shape(Shape { place: Place::Behind, ..Shape::default() }),
        Case::new("ports_share_an_interface_of_the_kernel", shared)
            .shape(Shape { place: Place::Behind, ..Shape::default() }),
        Case::new("addresses_of_the_kernel_follow_the_configuration", follows).shape(one),
    ]
}

const TAP: &str = "lb-lan";

fn tap(config: Config, more: &str) -> Config {
    Config { port: format!("exception = \"tap\"\n{more}"), ..config }
}

fn start(lab: &mut Lab, config: &Config) -> Result<()> {
    let config = Config {
        vlan: lab.interface.strip_prefix("eth0.").and_then(|tag| tag.parse().ok()),
        ..config.clone()
    };
    lab.start_director(&config)
}

/// What answers each connection to a port with `hello`, on all addresses of a node.
fn greeter(lab: &Lab, node: &Netns, port: u16) -> Result<Process> {
    let program = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET6)\n\
         s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('::', {port})); s.listen(128); print('listens', flush=True)\n\
         while True:\n\
         \x20c, _ = s.accept()\n\
         \x20c.sendall(b'hello\\n'); c.close()\n"
    );
    let process =
        node.start(&["python3", "-S", "-E", "-c", &program], &lab.dir().join(format!("greeter-{port}.log")))?;
    wait_until("the greeter listens", PATIENCE, || Ok(process.log().contains("listens")))
        .with_context(|| process.log())?;
    Ok(process)
}

fn greet(node: &Netns, address: &str, port: u16) -> Result<Duration> {
    let program = format!(
        "import socket; c = socket.create_connection(('{address}', {port}), 5); c.settimeout(5); print(c.recv(9))"
    );
    let begun = Instant::now();
    let said = node.run(&["python3", "-S", "-E", "-c", &program])?;
    ensure!(said.contains("hello"), "{address}:{port} said {said}");
    Ok(begun.elapsed())
}

fn ping(node: &Netns, address: &str) -> Result<String> {
    node.run(&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", address])
}

/// The kernel of the director hears and is heard; services and what is the director's stay as they are.
fn reached(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let servers: Vec<String> = lab.servers.iter().map(|server| server.address.clone()).collect();
    let refs: Vec<&str> = servers.iter().map(String::as_str).collect();
    let web6 =
        Service { servers: vec![("fd00:150::12".to_owned(), 1)], ..Service::tcp("web6", 80, "rr", &[]) };
    let config = Config::with(vec![Service::tcp("web", 80, "rr", &refs), web6.v6()]);
    start(lab, &tap(config, "exception_rate = 200000\n"))?;
    let addresses = lab.node01.ip(&format!("addr show dev {TAP}"))?;
    ensure!(addresses.contains(DIP) && addresses.contains(DIP6), "{addresses}");
    ensure!(!lab.node01.ip("addr show dev eth0")?.contains("inet "), "eth0 has an address");
    let _greeter = greeter(lab, &lab.node01, 8000)?;
    for address in [DIP, DIP6] {
        ping(&lab.client, address)?;
        greet(&lab.client, address, 8000)?;
    }
    // who is not there says so itself, and once
    let refused = lab.client.output(&["curl", "-sS", "--max-time", "3", &format!("http://{DIP}:8001/")])?;
    ensure!(refused.status.code() == Some(7), "connection refused: {refused:?}");
    // the kernel as a client, of a neighbour and of the VIP
    ping(&lab.node01, CLIENT)?;
    ping(&lab.node01, "fd00:150::1")?;
    let ask = |url: &str| lab.node01.run(&["curl", "-sS", "--max-time", "5", url]);
    ensure!(ask(&format!("http://{}/", servers[0]))?.contains(&servers[0]), "the server itself");
    ensure!(ask(&format!("http://{VIP}/"))?.contains("from 192.168.150.1"), "the VIP");
    ensure!(ask(&format!("http://[{VIP6}]/"))?.contains("from 192.168.150.12"), "the VIP of IPv6");
    ping(&lab.client, VIP)?;
    ensure!(lab.curl(&format!("http://{VIP}/"))?.starts_with("from 192.168.150.1"), "services go on");
    // much at a time, both ways
    let log = lab.dir().join("iperf3.log");
    let _iperf = lab.node01.start(&["iperf3", "-s"], &log)?;
    wait_until("iperf3 answers", PATIENCE, || {
        lab.client.run(&["iperf3", "-c", DIP, "-n", "20M"])?;
        Ok(true)
    })?;
    lab.client.run(&["iperf3", "-c", DIP, "-n", "20M", "-R"])?;
    let sum = lab.director()?.wait_conserved()?;
    ensure!(sum.to_kernel > 10_000 && sum.from_kernel > 10_000, "{sum:?}");
    // it goes with lbd
    let director = lab.director.take().context("a director")?;
    director.process.signal(Signal::SIGTERM)?;
    wait_until("the interface is gone", PATIENCE, || Ok(lab.node01.ip(&format!("link show {TAP}")).is_err()))
}

fn missing(program: &str, package: &str) -> Option<String> {
    let script = ["sh", "-c", "PATH=$PATH:/usr/sbin command -v \"$0\"", program];
    process::run(&script).err().map(|_| format!("{program} is not installed: apt-get install {package}"))
}

fn no_sshd() -> Option<String> {
    missing("sshd", "openssh-server").or_else(|| missing("ssh", "openssh-client"))
}

fn no_bird() -> Option<String> {
    missing("bird", "bird2")
}

/// A real sshd at the director's own address.
fn ssh(lab: &mut Lab) -> Result<()> {
    start(lab, &tap(Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.12"])]), ""))?;
    let path = |name: &str| lab.dir().join(name).to_string_lossy().into_owned();
    for name in ["host_key", "key"] {
        process::run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path(name)])?;
    }
    std::fs::copy(path("key.pub"), path("authorized"))?;
    std::fs::create_dir_all("/run/sshd")?;
    let argv = [
        "/usr/sbin/sshd",
        "-D",
        "-e",
        "-f",
        "/dev/null",
        "-h",
        &path("host_key"),
        "-p",
        "22",
        "-o",
        "PermitRootLogin=prohibit-password",
        "-o",
        "StrictModes=no",
        "-o",
        &format!("AuthorizedKeysFile={}", path("authorized")),
        "-o",
        "PidFile=none",
    ];
    let sshd = lab.node01.start(&argv, &lab.dir().join("sshd.log"))?;
    let mut said = String::new();
    wait_until("ssh answers", PATIENCE, || {
        said = lab.client.run(&[
            "ssh",
            "-i",
            &path("key"),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "ConnectTimeout=3",
            "-o",
            "BatchMode=yes",
            &format!("root@{DIP}"),
            "echo $SSH_CONNECTION",
        ])?;
        Ok(true)
    })
    .with_context(|| sshd.log())?;
    ensure!(said.starts_with(CLIENT) && said.contains(DIP), "{said}");
    Ok(())
}

/// nginx on the director itself is one of two servers of a service, by direct routing and by NAT.
fn local(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let dir = lab.dir().join("local");
    std::fs::create_dir_all(&dir)?;
    let path = dir.to_string_lossy().into_owned();
    let here = Service::tcp("web", 80, "rr", &[DIP, "192.168.150.12"]);
    let nat = Service::tcp("translated", 8090, "rr", &[DIP]).nat(8080);
    // the director itself is no next hop to wait for
    lab.start_director_unresolved(&tap(Config::with(vec![here, nat]), ""))?;
    let config = format!(
        "daemon off; pid {path}/pid; error_log {path}/error.log; worker_processes 1;\n\
         events {{ worker_connections 1000; }}\n\
         http {{ access_log off; keepalive_timeout 0; client_body_temp_path {path}/a; proxy_temp_path {path}/b;\n\
         fastcgi_temp_path {path}/c; uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;\n\
         server {{ listen 80; listen 8080; default_type text/plain;\n\
         location = / {{ return 200 \"from director to $server_addr:$server_port of $remote_addr\\n\"; }} }} }}\n"
    );
    std::fs::write(dir.join("nginx.conf"), config)?;
    let argv =
        ["nginx", "-c", &format!("{path}/nginx.conf"), "-p", &path, "-e", &format!("{path}/error.log")];
    let _own = lab.node01.start(&argv, &dir.join("log"))?;
    wait_until("nginx on the director answers", PATIENCE, || {
        Ok(lab.curl(&format!("http://{DIP}/"))?.contains("from director"))
    })?;
    let (mut own, mut other) = (0, 0);
    for _ in 0..20 {
        let said = lab.curl(&format!("http://{VIP}/"))?;
        if said == format!("from director to {VIP}:80 of {CLIENT}") {
            own += 1;
        } else if said == "from 192.168.150.12" {
            other += 1;
        }
    }
    ensure!((own, other) == (10, 10), "{own} and {other}");
    for _ in 0..5 {
        let said = lab.curl(&format!("http://{VIP}:8090/"))?;
        ensure!(said == format!("from director to {DIP}:8080 of {CLIENT}"), "{said}");
    }
    let row = lab.director()?.server("web", DIP)?;
    ensure!(row.state == "up" && row.counters.connections == 10, "{row:?}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

/// Two ports with one interface: the kernel is reached, and reaches others, by either of them.
fn shared(lab: &mut Lab) -> Result<()> {
    const SHARED: &str = "lb-both";
    let _nginx = lab.start_nginx()?;
    let servers: Vec<String> = lab.servers.iter().map(|server| server.address.clone()).collect();
    let refs: Vec<&str> = servers.iter().map(String::as_str).collect();
    let lines = format!("exception = \"tap\"\nexception_interface = \"{SHARED}\"\n");
    let config = Config {
        behind: true,
        port: lines.clone(),
        behind_port: lines,
        ..Config::with(vec![Service::tcp("web", 80, "rr", &refs).nat(80)])
    };
    lab.start_director(&config)?;
    let addresses = lab.node01.ip(&format!("addr show dev {SHARED}"))?;
    for address in [DIP, DIP6, DIP_BEHIND, DIP_BEHIND6] {
        ensure!(addresses.contains(address), "{address} is not in: {addresses}");
    }
    let _greeter = greeter(lab, &lab.node01, 8000)?;
    let behind = &lab.servers[0];
    // the kernel as a client first: it has to ask for all of them
    for address in [CLIENT, "fd00:150::1", &behind.address, &behind.address6] {
        ping(&lab.node01, address)?;
    }
    for address in [DIP, DIP6] {
        greet(&lab.client, address, 8000)?;
    }
    for address in [DIP_BEHIND, DIP_BEHIND6] {
        greet(&behind.netns, address, 8000)?;
    }
    // each knows the director by the MAC address of the port on its side
    for (node, address, port) in [
        (&lab.client, DIP, "eth0"),
        (&lab.client, DIP6, "eth0"),
        (&behind.netns, DIP_BEHIND, "eth1"),
        (&behind.netns, DIP_BEHIND6, "eth1"),
    ] {
        let (known, mac) = (node.ip(&format!("neigh show {address}"))?, lab.node01.mac(port)?);
        ensure!(known.contains(&mac), "{address} should be at {mac}: {known}");
    }
    // much at a time, in segments that fit
    let log = lab.dir().join("iperf3.log");
    let _iperf = lab.node01.start(&["iperf3", "-s"], &log)?;
    wait_until("iperf3 answers", PATIENCE, || {
        Ok(behind.netns.run(&["iperf3", "-c", DIP_BEHIND, "-n", "2M"]).is_ok())
    })?;
    lab.client.run(&["iperf3", "-c", DIP, "-n", "2M", "-R"])?;
    // services, and the kernel as a client of one
    ensure!(lab.curl(&format!("http://{VIP}/"))?.starts_with("from 192.168.160.1"), "services go on");
    let own = lab.node01.run(&["curl", "-sS", "--max-time", "5", &format!("http://{}/", behind.address)])?;
    ensure!(own.starts_with(&format!("from {}", behind.address)), "{own}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

/// Datagrams to the director's own address as fast as a core can send them.
fn flood(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let config = Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.12", "192.168.150.13"])]);
    start(lab, &tap(config, "exception_rate = 1000\n"))?;
    let _greeter = greeter(lab, &lab.node01, 22)?;
    let _other = greeter(lab, &lab.node01, 8000)?;
    greet(&lab.client, DIP, 22)?;
    let program = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nprint('floods', flush=True)\n\
         while True:\n\x20try: s.sendto(b'x' * 20, ('{DIP}', 9))\n\x20except OSError: pass\n"
    );
    let dropped = || lab.director()?.dropped("exception_rate");
    let before = lab.director()?.stats()?.conservation;
    let begun = Instant::now();
    let flood = lab.client.start(&["python3", "-S", "-E", "-c", &program], &lab.dir().join("flood.log"))?;
    wait_until("the flood is one", PATIENCE, || Ok(dropped()? > 20_000))?;
    let requests = 40;
    for _ in 0..requests {
        ensure!(lab.curl(&format!("http://{VIP}/"))?.starts_with("from 192.168.150.1"), "a service answers");
    }
    // the queue in front of lbd is the flood's as well: now and then a segment is lost there, and comes a second later
    let mut times = (0..9).map(|_| greet(&lab.client, DIP, 22)).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    ensure!(times[4] < Duration::from_millis(900), "ssh's port answered after {times:?}");
    let (after, took) = (lab.director()?.stats()?.conservation, begun.elapsed());
    let passed = after.to_kernel - before.to_kernel;
    ensure!(u128::from(passed) <= took.as_millis() + 200, "{passed} frames in {took:?} at 1000 a second");
    drop(flood);
    let web = lab.director()?.servers("web")?;
    let connections: u64 = web.iter().map(|row| row.counters.connections).sum();
    ensure!(connections == requests, "{connections} of {requests}");
    lab.director()?.wait_conserved()?;
    Ok(())
}

/// A keepalived of the test's; dropped, it ends and takes its VIPs away.
struct Keepalived(Process);

impl Keepalived {
    fn start(lab: &Lab, node: &Netns, name: &str, interface: &str, priority: u8) -> Result<Self> {
        let path = |what: &str| lab.dir().join(format!("{name}-{what}")).to_string_lossy().into_owned();
        let text = format!(
            "global_defs {{\n router_id {name}\n}}\nvrrp_instance VI_1 {{\n state BACKUP\n interface {interface}\n \
             virtual_router_id 61\n priority {priority}\n advert_int 1\n virtual_ipaddress {{\n {FLOATING}/24\n }}\n}}\n"
        );
        std::fs::write(path("conf"), text)?;
        let (conf, pid, child) = (path("conf"), path("pid"), path("vrrp.pid"));
        let argv = ["keepalived", "-n", "-l", "-D", "-P", "-f", &conf, "-p", &pid, "-r", &child];
        let process = node.start(&argv, &lab.dir().join(format!("{name}.log")))?;
        Ok(Self(process))
    }

    fn wait_for(&self, state: &str) -> Result<()> {
        let says = || {
            let log = self.0.log();
            Ok(log
                .rfind("Entering ")
                .is_some_and(|at| log[at..].starts_with(&format!("Entering {state} STATE"))))
        };
        wait_until(&format!("keepalived is {state}"), PATIENCE, says).with_context(|| self.0.log())
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let _ = self.0.signal(Signal::SIGTERM);
        let _ = self.0.wait(PATIENCE);
    }
}

/// A VIP of keepalived's, which lbd knows nothing of.
const FLOATING: &str = "192.168.150.200";

/// keepalived on the director's kernel, over the TAP interface, and a second one on the server.
fn keepalived(lab: &mut Lab) -> Result<()> {
    ensure!(missing("keepalived", "keepalived").is_none(), "keepalived is not installed");
    start(lab, &tap(Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.12"])]), ""))?;
    let server = &lab.servers[0].netns;
    let backup = Keepalived::start(lab, server, "second", "eth0", 50)?;
    backup.wait_for("MASTER")?;
    let first = Keepalived::start(lab, &lab.node01, "first", TAP, 100)?;
    first.wait_for("MASTER")?;
    backup.wait_for("BACKUP")?;
    let _greeter = greeter(lab, &lab.node01, 8000)?;
    let neighbor = || lab.client.ip(&format!("neigh show {FLOATING}"));
    wait_until("the client reaches keepalived's VIP on the director", PATIENCE, || {
        Ok(greet(&lab.client, FLOATING, 8000).is_ok())
    })?;
    let mac = lab.node01.mac(TAP)?;
    ensure!(neighbor()?.contains(&mac) && mac == lab.node01.mac("eth0")?, "{} is not {mac}", neighbor()?);
    drop(first);
    backup.wait_for("MASTER")?;
    Ok(())
}

/// BIRD on the director's kernel announces the VIP to a router.
fn bird(lab: &mut Lab) -> Result<()> {
    start(lab, &tap(Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.12"])]), ""))?;
    let router = |node: &Netns,
                  name: &str,
                  own: &str,
                  peer: &str,
                  (local, remote): (u32, u32),
                  more: &str| {
        let path = |what: &str| lab.dir().join(format!("{name}.{what}")).to_string_lossy().into_owned();
        let text = format!(
            "router id {own};\nprotocol device {{}}\n{more}\nprotocol bfd {{}}\nprotocol bgp peer {{\n local {own} as {local};\n \
             neighbor {peer} as {remote};\n bfd on;\n connect delay time 1;\n ipv4 {{ import all; export all; }};\n}}\n"
        );
        std::fs::write(path("conf"), text)?;
        let argv = ["bird", "-f", "-c", &path("conf"), "-s", &path("ctl"), "-P", &path("pid")];
        node.start(&argv, &lab.dir().join(format!("{name}.log")))
    };
    let vip = format!("protocol static {{ ipv4; route {VIP}/32 blackhole; }}");
    let own = router(&lab.node01, "bird-director", DIP, CLIENT, (65001, 65002), &vip)?;
    let other = router(&lab.client, "bird-router", CLIENT, DIP, (65002, 65001), "")?;
    let socket = lab.dir().join("bird-router.ctl").to_string_lossy().into_owned();
    let ask = |what: &str| lab.client.run(&["birdc", "-s", &socket, "show", what]);
    wait_until("the router has learned the VIP", Duration::from_secs(40), || Ok(ask("route")?.contains(VIP)))
        .with_context(|| format!("{}\n{}", own.log(), other.log()))?;
    wait_until("BFD is up", PATIENCE, || {
        Ok(lab.client.run(&["birdc", "-s", &socket, "show", "bfd", "sessions"])?.contains("Up"))
    })?;
    Ok(())
}

/// Another address in the configuration is one of the kernel's at once, and the old one goes.
fn follows(lab: &mut Lab) -> Result<()> {
    let config = tap(Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.12"])]), "");
    start(lab, &config)?;
    let director = lab.director()?;
    let text = config.to_toml(&director.socket().to_string_lossy());
    let more = text.replace(&format!("\"{DIP}/24\""), "\"192.168.150.31/24\", \"10.77.0.1/24\"");
    let more = more.replace(
        "exception = \"tap\"\n",
        "exception = \"tap\"\nexception_rate = 5000\ngateway = \"192.168.150.1\"\n",
    );
    let file = lab.dir().join("more.toml");
    std::fs::write(&file, &more)?;
    director.ask(&["apply", &file.to_string_lossy()])?;
    let addresses = || lab.node01.ip(&format!("addr show dev {TAP}"));
    wait_until("the kernel has the new addresses", PATIENCE, || {
        let text = addresses()?;
        Ok(text.contains("192.168.150.31/24") && text.contains("10.77.0.1/24") && !text.contains(DIP))
    })?;
    let _greeter = greeter(lab, &lab.node01, 8000)?;
    greet(&lab.client, "192.168.150.31", 8000)?;
    let routes = lab.node01.ip("route")?;
    ensure!(routes.contains(&format!("default via 192.168.150.1 dev {TAP}")), "{routes}");
    std::fs::write(&file, &text)?;
    director.ask(&["apply", &file.to_string_lossy()])?;
    wait_until("the kernel has the old addresses", PATIENCE, || {
        Ok(addresses()?.contains(DIP) && !lab.node01.ip("route")?.contains("default"))
    })?;
    greet(&lab.client, DIP, 8000)?;
    let off = text.replace("exception = \"tap\"", "exception = \"off\"");
    std::fs::write(&file, off)?;
    let refused = director.lbctl(&["apply", &file.to_string_lossy()])?;
    ensure!(!refused.status.success(), "an interface does not come or go while lbd runs");
    Ok(())
}

/// A service whose servers are checked by HTTP, five times a second.
fn checked(service: Service, via: &str) -> Service {
    let more = format!(
        "{}\n[services.health]\ninterval = \"200ms\"\ntimeout = \"500ms\"\nretries = 1\nretry_delay = \"100ms\"\n\
         warmup = \"100ms\"\n[[services.health.checks]]\ntype = \"http\"\nstatus = 200\nvia = \"{via}\"\n",
        service.more
    );
    Service { more, ..service }
}

/// Waits until servers (service, number) have these states.
fn are(lab: &Lab, what: &str, wanted: &[(&str, usize, &str)]) -> Result<()> {
    let is = |(service, server, state): &(&str, usize, &str)| {
        Ok(lab.director()?.server(service, &lab.servers[*server].address)?.state == *state)
    };
    wait_until(what, PATIENCE, || {
        wanted.iter().map(is).collect::<Result<Vec<bool>>>().map(|all| all.iter().all(|right| *right))
    })
    .with_context(|| lab.director().and_then(|director| director.ask(&["health"])).unwrap_or_default())
}

/// Checks that take the clients' way see what checks of the server's own address do not; by NAT too.
fn by_path(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let servers: Vec<String> = lab.servers.iter().map(|server| server.address.clone()).collect();
    let refs: Vec<&str> = servers.iter().map(String::as_str).collect();
    let path = checked(Service::tcp("path", 80, "rr", &refs), "path");
    let kernel = checked(Service::tcp("kernel", 8080, "rr", &refs), "kernel");
    let nat = checked(Service::tcp("nat", 8090, "rr", &refs[..1]).nat(8080), "path");
    let routed = checked(Service::tcp("routed", 80, "rr", &refs), "path");
    let routed = Service { vip: "10.99.0.1", ..routed };
    for server in &lab.servers {
        server.netns.ip("addr add 10.99.0.1/32 dev lo")?;
    }
    lab.start_director_unresolved(&tap(Config::with(vec![path, kernel, nat, routed]), ""))?;
    let are = |what: &str, wanted: &[(&str, usize, &str)]| are(lab, what, wanted);
    let up =
        [("path", 0), ("path", 1), ("kernel", 0), ("kernel", 1), ("nat", 0), ("routed", 0), ("routed", 1)];
    are("all servers are up", &up.map(|(service, server)| (service, server, "up")))?;
    lab.servers[1].netns.ip(&format!("addr del {VIP}/32 dev lo"))?;
    are("a server without the VIP is down", &[("path", 1, "down"), ("path", 0, "up")])?;
    are(
        "a check of its own address sees nothing, the other VIP is there",
        &[("kernel", 1, "up"), ("routed", 1, "up")],
    )?;
    for _ in 0..6 {
        ensure!(lab.curl(&format!("http://{VIP}/"))? == "from 192.168.150.12", "the other one serves");
    }
    lab.servers[1].netns.ip(&format!("addr add {VIP}/32 dev lo"))?;
    are("it is up again", &[("path", 1, "up")])?;
    // the way back by NAT is a part of the way
    lab.servers[0].netns.run(&["ip", "route", "add", "blackhole", "192.168.150.11/32"])?;
    are("a server that cannot answer is down", &[("nat", 0, "down"), ("path", 0, "down")])?;
    lab.servers[0].netns.run(&["ip", "route", "del", "blackhole", "192.168.150.11/32"])?;
    are("it is up again", &[("nat", 0, "up"), ("path", 0, "up")])?;
    lab.director()?.wait_conserved().ok();
    Ok(())
}

/// So do they in a tunnel.
fn by_tunnel(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let servers: Vec<String> = lab.servers.iter().map(|server| server.address.clone()).collect();
    let refs: Vec<&str> = servers.iter().map(String::as_str).collect();
    let path = Service::tcp("path", 80, "rr", &refs).tunnel(r#"{ type = "ipip" }"#);
    let kernel = Service::tcp("kernel", 8080, "rr", &refs);
    let services = vec![checked(path, "path"), checked(kernel, "kernel")];
    lab.start_director_unresolved(&tap(Config::with(services), ""))?;
    let lab = &*lab;
    let first_are_up = [("path", 0, "up"), ("kernel", 0, "up"), ("kernel", 1, "up")];
    let second = |state| [&first_are_up[..], &[("path", 1, state)]].concat();
    are(lab, "all servers are up", &second("up"))?;
    let tunnels = lab.servers[1].tunnels.as_ref().context("it has tunnels")?;
    tunnels.signal(Signal::SIGSTOP)?;
    are(lab, "a server that does not unpack is down", &second("down"))?;
    for _ in 0..6 {
        ensure!(lab.curl(&format!("http://{VIP}/"))? == "from 192.168.150.12", "the other one serves");
    }
    tunnels.signal(Signal::SIGCONT)?;
    are(lab, "it is up again", &second("up"))
}

/// And by NAT in two arms, where answers have to find the director.
fn by_nat(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let servers: Vec<String> = lab.servers.iter().map(|server| server.address.clone()).collect();
    let refs: Vec<&str> = servers.iter().map(String::as_str).collect();
    let path = checked(Service::tcp("path", 80, "rr", &refs).nat(8080), "path");
    let kernel = checked(Service::tcp("kernel", 8080, "rr", &refs).nat(8080), "kernel");
    let config = Config {
        behind: true,
        behind_port: "exception = \"tap\"\n".to_owned(),
        ..Config::with(vec![path, kernel])
    };
    lab.start_director_unresolved(&tap(config, ""))?;
    let lab = &*lab;
    let first_are_up = [("path", 0, "up"), ("kernel", 0, "up"), ("kernel", 1, "up")];
    let second = |state| [&first_are_up[..], &[("path", 1, state)]].concat();
    are(lab, "all servers are up", &second("up"))?;
    lab.servers[1].netns.ip("route del default")?;
    are(lab, "a server with another gateway is down", &second("down"))?;
    for _ in 0..6 {
        ensure!(lab.curl(&format!("http://{VIP}/"))? == "from 192.168.160.12", "the other one serves");
    }
    lab.servers[1].netns.ip(&format!("route add default via {DIP_BEHIND}"))?;
    are(lab, "it is up again", &second("up"))
}

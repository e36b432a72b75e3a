//! A restart is no outage: lbd is killed, and the one after it goes on with its connections.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_control::api::{HealthTable, RestartRow, Workers};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::{self, PATIENCE};
use lb_tests::huge_pages::{Reserved, free_pages};
use lb_tests::lab::{Lab, Place, Shape, VIP};
use lb_tests::process;
use lb_tests::servers::{Pattern, ThreadServer};
use lb_tests::wait::{uninterrupted, wait_until};

const BEHIND: &[&str] = &["192.168.160.12", "192.168.160.13"];
const BESIDE: &[&str] = &["192.168.150.12", "192.168.150.13"];
/// Local addresses of services by full NAT.
const LOCAL: &str = "local_addresses = [\"192.168.150.20\", \"192.168.150.21\"]";
/// Connections that are held.
const HELD: usize = 20;

pub fn cases() -> Vec<Case> {
    let behind = Shape { place: Place::Behind, ..Shape::default() };
    vec![
        Case::new("killed_connections_by_dr_go_on", |lab| goes_on(lab, dr(1))),
        Case::new("killed_connections_by_dr_go_on_with_two_workers", |lab| goes_on(lab, dr(2))),
        Case::new("killed_connections_by_nat_go_on", |lab| goes_on(lab, nat(2))).shape(behind),
        Case::new("killed_connections_by_full_nat_go_on", |lab| goes_on(lab, full_nat(2, ""))),
        Case::new("killed_connections_by_full_nat_with_proxy_headers_go_on", |lab| {
            goes_on(lab, full_nat(1, "client_address = \"proxy-v2\""))
        }),
        Case::new("killed_in_a_transfer_that_arrives_bit_for_bit", transfer).shape(behind),
        Case::new("killed_lbd_is_upgraded_by_sigterm_as_well", upgraded),
        Case::new("killed_persistence_is_kept", persistence),
        Case::new("killed_servers_that_were_up_are_up_until_a_check_says_otherwise", checked),
        Case::new("killed_and_started_with_fewer_servers_and_more_workers", changed),
        Case::new("killed_and_what_was_kept_is_damaged", damaged),
        Case::new("killed_and_the_next_has_another_layout", layout),
        Case::new("killed_tables_in_reserved_huge_pages_go_on", huge).needs(missing),
        Case::new("killed_tables_are_of_one_lbd_and_can_be_discarded", alone),
    ]
}

fn kept(workers: usize, service: Service) -> Config {
    Config { workers, keep: true, ..Config::with(vec![service]) }
}

fn dr(workers: usize) -> Config {
    kept(workers, Service::tcp("web", 80, "rr", BESIDE))
}

fn nat(workers: usize) -> Config {
    Config { behind: true, ..kept(workers, Service::tcp("web", 80, "rr", BEHIND).nat(8080)) }
}

fn full_nat(workers: usize, more: &str) -> Config {
    let more_lines = format!("forwarding = \"fullnat\"\n{LOCAL}\n{more}");
    let port = if more.is_empty() { 80 } else { 8088 };
    let service = Service::tcp("web", 80, "rr", BESIDE);
    kept(workers, Service { more: more_lines, server_port: Some(port), ..service })
}

/// A connection that was held, and the server that it is on.
struct Held(TcpStream, String);

/// Asks once more over a held connection; the server's name.
fn request(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"GET /keep HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    // as long as the header says; nginx's answers are short
    while !answer.ends_with(b"from 192.168.150.12\n")
        && !answer.ends_with(b"from 192.168.150.13\n")
        && !answer.ends_with(b"from 192.168.160.12\n")
        && !answer.ends_with(b"from 192.168.160.13\n")
    {
        ensure!(
            uninterrupted(|| stream.read(&mut byte))? == 1,
            "closed after {:?}",
            String::from_utf8_lossy(&answer)
        );
        answer.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    Ok(text.lines().last().unwrap_or_default().trim_start_matches("from ").to_owned())
}

fn hold(lab: &Lab, count: usize) -> Result<Vec<Held>> {
    let one = |_| {
        let mut stream = lab.client.enter(|| Ok(TcpStream::connect((VIP, 80))?))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let server = request(&mut stream)?;
        Ok(Held(stream, server))
    };
    (0..count).map(one).collect()
}

/// Kills lbd with SIGKILL and starts another. Returns what that says of it, and how long nobody was there.
fn again(lab: &mut Lab, config: &Config) -> Result<(RestartRow, Duration)> {
    let began = Instant::now();
    // dropped: killed
    drop(lab.director.take().context("it ran")?);
    lab.start_director(config)?;
    Ok((began_with(lab)?, began.elapsed()))
}

fn began_with(lab: &Lab) -> Result<RestartRow> {
    Ok(lab.director()?.json::<Workers>(&["workers"])?.restart)
}

fn all_go_on(held: &mut [Held]) -> Result<()> {
    for (at, Held(stream, server)) in held.iter_mut().enumerate() {
        let now = request(stream).with_context(|| format!("held connection {at}, to {server}"))?;
        ensure!(now == *server, "held connection {at} was with {server} and is with {now}");
    }
    Ok(())
}

fn goes_on(lab: &mut Lab, config: Config) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&config)?;
    ensure!(began_with(lab)?.began == "fresh", "{:?}", began_with(lab)?);
    let mut held = hold(lab, HELD)?;
    let servers = lab.director()?.servers("web")?;
    let active =
        |rows: &[lb_control::api::ServerRow]| rows.iter().map(|row| row.counters.active).collect::<Vec<_>>();
    ensure!(active(&servers).iter().sum::<u64>() == HELD as u64, "{servers:?}");
    for round in 0..3 {
        let (row, _) = again(lab, &config)?;
        ensure!(row.began == "attached" && row.taken_over >= HELD as u64, "round {round}: {row:?}");
        let torn: u64 = row.dropped.iter().filter(|(why, _)| !why.contains("time")).map(|(_, n)| n).sum();
        ensure!(torn == 0, "round {round}: {row:?}");
        all_go_on(&mut held)?;
        let rows = lab.director()?.connections(&["--state", "ESTABLISHED"])?;
        ensure!(rows.len() == HELD, "round {round}: {} of {HELD} are listed", rows.len());
        ensure!(active(&lab.director()?.servers("web")?) == active(&servers), "round {round}: other counts");
        // new ones find their place beside them
        let mut new = hold(lab, 2)?;
        all_go_on(&mut new)?;
        drop(new);
        lab.director()?.wait_conserved()?;
    }
    let log = lab.director()?.process.log();
    ensure!(log.contains("connection table of worker 0: "), "{log}");
    let text = lab.director()?.ask(&["workers"])?;
    ensure!(text.contains("connections of an earlier lbd (attached"), "{text}");
    Ok(())
}

/// lbd is killed twice while bytes flow: TCP sends again what was lost meanwhile.
fn transfer(lab: &mut Lab) -> Result<()> {
    const BYTES: u64 = 60_000_000;
    let sink = ThreadServer::tcp_sink(&lab.servers[0], 9001)?;
    let config = Config { behind: true, ..kept(1, Service::tcp("sink", 9000, "rr", &BEHIND[..1]).nat(9001)) };
    lab.start_director(&config)?;
    let mut stream = lab.client.enter(|| Ok(TcpStream::connect((VIP, 9000))?))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let sender = std::thread::spawn(move || -> Result<String> {
        let mut pattern = Pattern::default();
        let mut chunk = vec![0; 100_000];
        for _ in 0..BYTES / chunk.len() as u64 {
            pattern.fill(&mut chunk);
            stream.write_all(&chunk)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let come = || sink.bytes.load(std::sync::atomic::Ordering::Relaxed);
    for part in [1, 2] {
        let wanted = BYTES * part / 4;
        wait_until("bytes arrive", Duration::from_secs(60), || Ok(come() > wanted))?;
        let (row, _) = again(lab, &config)?;
        ensure!(row.taken_over == 1, "{row:?}");
    }
    let answer = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
    let wrong = sink.wrong.load(std::sync::atomic::Ordering::Relaxed);
    let answer =
        answer.with_context(|| format!("{} bytes have come, other than those sent: {wrong}", come()))?;
    ensure!(answer.trim() == BYTES.to_string(), "the server got {answer:?} bytes, {BYTES} were sent");
    ensure!(!sink.wrong.load(std::sync::atomic::Ordering::Relaxed), "the server saw other bytes");
    Ok(())
}

/// An upgrade: the old one is told to end, and leaves all there is.
fn upgraded(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&dr(1))?;
    let mut held = hold(lab, HELD)?;
    let mut old = lab.director.take().context("it ran")?;
    old.process.signal(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(old.process.wait(PATIENCE)?.code() == Some(0), "{}", old.process.log());
    drop(old);
    lab.start_director(&dr(1))?;
    ensure!(began_with(lab)?.taken_over == HELD as u64, "{:?}", began_with(lab)?);
    all_go_on(&mut held)
}

fn persistence(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let service = Service::tcp("web", 80, "rr", BESIDE);
    let more = "persistence = { timeout = \"300s\" }".to_owned();
    let config = kept(2, Service { more, ..service });
    lab.start_director(&config)?;
    let mine = lab.curl(&format!("http://{VIP}/"))?;
    for _ in 0..3 {
        again(lab, &config)?;
        for _ in 0..3 {
            let now = lab.curl(&format!("http://{VIP}/"))?;
            ensure!(now == mine, "{mine} before, {now} after");
        }
    }
    let rows = lab.director()?.connections(&[])?;
    ensure!(
        rows.iter().any(|row| row.state == "ASSURED" || row.client.to_string().ends_with(":0")),
        "{rows:?}"
    );
    Ok(())
}

/// A service that ends the connections of servers that are down: nobody is down because lbd has just begun.
fn checked(lab: &mut Lab) -> Result<()> {
    lab.management()?;
    let mut nginx = lab.start_nginx()?;
    let mut config = dr(1);
    config.services[0].more = "policy = { on_server_down = \"reschedule\" }\n[services.health]\n\
         interval = \"1s\"\ntimeout = \"500ms\"\nretries = 0\nwarmup = \"0s\"\n\
         [[services.health.checks]]\ntype = \"http\"\nstatus = 200\n"
        .to_owned();
    lab.start_director(&config)?;
    let up = |lab: &Lab| -> Result<usize> {
        let table: HealthTable = lab.director()?.json(&["health", "web"])?;
        let servers = table.services.iter().flat_map(|service| &service.servers);
        Ok(servers.filter(|server| server.state == "up").count())
    };
    lb_tests::wait::wait_until("both servers are up", PATIENCE, || Ok(up(lab)? == 2))?;
    let mut held = hold(lab, HELD)?;
    let (row, _) = again(lab, &config)?;
    ensure!(row.taken_over == HELD as u64, "{row:?}");
    all_go_on(&mut held)?;
    // one that was down is not taken to be up
    // ends its workers too; killed, it would leave them
    let second = nginx.pop().context("two servers")?;
    second.signal(nix::sys::signal::Signal::SIGTERM)?;
    lb_tests::wait::wait_until("one server is down", PATIENCE, || Ok(up(lab)? == 1))?;
    drop(lab.director.take().context("it ran")?);
    lab.start_director_unresolved(&config)?;
    let resolved = || lab.director()?.resolved(&BESIDE[..1]);
    lb_tests::wait::wait_until("the other one is resolved", PATIENCE, resolved)?;
    let answers = (0..6).map(|_| lab.curl(&format!("http://{VIP}/"))).collect::<Result<Vec<_>>>()?;
    ensure!(answers.iter().all(|answer| answer == "from 192.168.150.12"), "{answers:?}");
    Ok(())
}

fn changed(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&dr(1))?;
    let mut held = hold(lab, HELD)?;
    ensure!(held.iter().any(|Held(_, server)| server == "192.168.150.13"), "rr");
    // one server fewer, one worker more
    let less = |policy: &str| {
        let service = Service::tcp("web", 80, "rr", &BESIDE[..1]);
        kept(2, Service { more: policy.to_owned(), ..service })
    };
    let (row, _) = again(lab, &less(""))?;
    ensure!(row.began == "moved" && row.taken_over == HELD as u64, "{row:?}");
    all_go_on(&mut held).context("also those of the server that is gone")?;
    let mut new = hold(lab, 4)?;
    ensure!(new.iter().all(|Held(_, server)| server == "192.168.150.12"), "new ones stay with who is left");
    let workers = lab.director()?.json::<Workers>(&["workers"])?.workers;
    ensure!(workers.iter().all(|row| row.connections > 0), "both have some: {workers:?}");
    // its connections are to end
    let (row, _) = again(lab, &less("policy = { on_server_down = \"reschedule\" }"))?;
    let gone: u64 =
        row.dropped.iter().filter(|(why, _)| why == "server removed").map(|(_, count)| count).sum();
    ensure!(row.began == "attached" && gone == HELD as u64 / 2, "{row:?}");
    let log = lab.director()?.process.log();
    ensure!(log.contains("dropped: server removed"), "{log}");
    all_go_on(&mut new)?;
    held.retain(|Held(_, server)| server == "192.168.150.12");
    all_go_on(&mut held)?;
    // and back: fewer workers, other limits
    let (row, _) = again(lab, &Config { max_connections: 10_000, ..dr(1) })?;
    ensure!(row.began == "moved" && row.taken_over >= HELD as u64 / 2, "{row:?}");
    all_go_on(&mut held)
}

/// What is kept of a lab's director.
fn files(lab: &Lab) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(lab.dir().join("sluice-e2e"))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// A generator of numbers; the same ones every time.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn damaged(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let config = full_nat(1, "persistence = { timeout = \"300s\" }");
    let config =
        Config { services: vec![Service { server_port: Some(80), ..config.services[0].clone() }], ..config };
    lab.start_director(&config)?;
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..6 {
        let held = hold(lab, 10)?;
        drop(lab.director.take().context("it ran")?);
        for file in files(lab)? {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // the tables, then the journal, the beat, the head
            let spoil = match round {
                0 | 1 => name.starts_with("worker") || name.starts_with("templates"),
                2 => name.starts_with("journal"),
                3 => name == "beat",
                4 => name == "head",
                _ => name != "lock",
            };
            if !spoil {
                continue;
            }
            let mut bytes = fs::read(&file)?;
            let count = if round == 1 { bytes.len() } else { bytes.len() / 50 + 1 };
            for _ in 0..count {
                let at = random(&mut state) as usize % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random(&mut state) as u8;
                }
            }
            fs::write(&file, bytes)?;
        }
        lab.start_director(&config).with_context(|| format!("round {round}"))?;
        let row = began_with(lab)?;
        if round == 4 {
            ensure!(
                row.began == "fresh" && row.reason.as_deref().is_some_and(|why| why.contains("head")),
                "{row:?}"
            );
        }
        for Held(mut stream, _) in held {
            // some go on and some do not; whoever speaks disturbs nobody
            stream.set_read_timeout(Some(Duration::from_millis(50)))?;
            let _ = request(&mut stream);
        }
        let answers = (0..4).map(|_| lab.curl(&format!("http://{VIP}/"))).collect::<Result<Vec<_>>>()?;
        ensure!(answers.iter().all(|answer| answer.contains("from 192.168.150.1")), "{answers:?}");
        ensure!(lab.director.as_mut().context("started")?.process.runs()?, "lbd ended");
        lab.director()?.wait_conserved()?;
    }
    Ok(())
}

fn layout(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&dr(1))?;
    let _held = hold(lab, 3)?;
    let folder = lab.dir().join("sluice-e2e");
    drop(lab.director.take().context("it ran")?);
    let head = fs::read_to_string(folder.join("head"))?;
    let (_, text) = head.split_once('\n').context("two lines")?;
    let line = text.lines().find(|line| line.starts_with("layout")).context("a layout")?;
    let text = text.replace(line, "layout = \"00000000deadbeef\"");
    let path = folder.join("head");
    fs::write(&path, &text)?;
    let sum = process::run(&["sha256sum", &path.to_string_lossy()])?;
    let sum = sum.split_whitespace().next().context("a sum")?;
    fs::write(&path, format!("# {sum}\n{text}"))?;
    lab.start_director(&dr(1))?;
    let (row, log) = (began_with(lab)?, lab.director()?.process.log());
    ensure!(row.began == "fresh" && row.taken_over == 0, "{row:?}");
    ensure!(log.contains("discarded") && log.contains("layout is another lbd's: 00000000deadbeef"), "{log}");
    let text = lab.director()?.ask(&["workers"])?;
    ensure!(text.contains("Began fresh: their layout"), "{text}");
    lab.curl(&format!("http://{VIP}/"))?;
    Ok(())
}

fn alone(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&dr(1))?;
    let mut held = hold(lab, 3)?;
    // another lbd of the same name: it runs, and touches nothing
    let lbd = director::bin()?.join("lbd").to_string_lossy().into_owned();
    let file = lab.dir().join("other.toml").to_string_lossy().into_owned();
    let socket = lab.dir().join("other.sock").to_string_lossy().into_owned();
    let other = dr(1).to_toml(&socket).replace("af_packet:eth0", "null");
    fs::write(&file, &other)?;
    let run = |more: &[&str]| {
        let argv = [&["timeout", "-s", "TERM", "4", &lbd, "--config", &file], more].concat();
        let output = lab.node01.output(&argv)?;
        anyhow::Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let log = run(&[])?;
    ensure!(log.contains("is in use by another lbd") && log.contains("lbd is ready"), "{log}");
    all_go_on(&mut held)?;
    drop(lab.director.take().context("it ran")?);
    ensure!(files(lab)?.iter().any(|file| file.ends_with("head")), "{:?}", files(lab)?);
    // told to begin anew, the next one does
    let log = run(&["--fresh"])?;
    ensure!(log.contains("--fresh") && !log.contains("taken over"), "{log}");
    lab.start_director(&dr(1))?;
    ensure!(began_with(lab)?.taken_over == 0, "{:?}", began_with(lab)?);
    let _new = hold(lab, 3)?;
    // told not to keep anything, it removes what there is
    let (row, _) = again(lab, &Config { keep: false, ..dr(1) })?;
    ensure!(row.folder.is_none() && row.taken_over == 0, "{row:?}");
    let left: Vec<_> = files(lab)?;
    ensure!(left.iter().all(|file| file.ends_with("lock")), "{left:?}");
    Ok(())
}

/// Why nothing can be reserved, if so.
fn missing() -> Option<String> {
    Reserved::exactly(8).is_none().then(|| "wants to write vm.nr_hugepages".to_owned())
}

/// A hugetlbfs; dropped, it is gone with all that is in it.
struct Mount(String);

impl Mount {
    fn new(lab: &Lab) -> Result<Self> {
        let path = lab.dir().join("huge").to_string_lossy().into_owned();
        fs::create_dir(&path)?;
        process::run(&["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", &path])?;
        Ok(Self(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Best effort: there is nobody to tell.
        let _ = process::run(&["sh", "-c", "rm -rf \"$0\"/*", &self.0]);
        let _ = process::run(&["umount", "-l", &self.0]);
    }
}

fn huge(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let reserved = Reserved::exactly(8).context("no huge pages")?;
    let mount = Mount::new(lab)?;
    let config = Config { max_connections: 200_000, ..dr(2) };
    let rows = |lab: &Lab| anyhow::Ok(lab.director()?.json::<Workers>(&["workers"])?.tables);
    lab.start_director(&config)?;
    let mut held = hold(lab, HELD)?;
    for _ in 0..2 {
        let (row, _) = again(lab, &config)?;
        ensure!(row.began == "attached" && row.taken_over == HELD as u64, "{row:?}");
        all_go_on(&mut held)?;
        let first = rows(lab)?.into_iter().next().context("a table")?;
        ensure!(first.pages == ["reserved huge pages"] && first.reserved_bytes == first.bytes, "{first:?}");
        ensure!(first.kept_bytes == first.bytes, "{first:?}");
        ensure!(free_pages() == Some(4), "two pages for each worker: {:?}", free_pages());
    }
    // what is no longer kept gives its pages back
    again(lab, &Config { keep: false, ..config })?;
    lab.director = None;
    ensure!(free_pages() == Some(8), "{:?}", free_pages());
    drop((mount, reserved));
    Ok(())
}

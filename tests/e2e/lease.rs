//! Split brain: directors that do not hear each other, an etcd that says who may have the VIP, and the end of each.
//!
//! The switch keeps the directors apart (isolated ports) while the client hears both, so two owners would be seen.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_control::api::{self, EventList};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{CLIENT, Lab, Shape, VIP};
use lb_tests::peer::{Peer, SECOND, clear};
use lb_tests::process::{self, Process};
use lb_tests::wait::wait_until;
use lb_tests::watch::Watch;
use nix::sys::signal::Signal;

pub fn cases() -> Vec<Case> {
    let one = Shape { servers: 1, ..Shape::default() };
    [
        Case::new("without_a_lease_directors_that_do_not_hear_each_other_are_two_masters", two),
        Case::new("with_a_lease_a_director_cut_off_from_etcd_and_its_neighbour_gives_the_vip_up", cut),
        Case::new("a_director_killed_or_stopped_with_its_lease_leaves_no_two_owners", killed),
        Case::new("without_etcd_a_director_gives_the_vip_up_and_takes_it_when_etcd_is_back", away),
        Case::new("with_keep_a_director_goes_on_without_etcd_until_its_neighbour_is_gone_too", keep),
    ]
    .map(|case| case.shape(one))
    .into()
}

/// Address of the second director's own kernel.
const SECOND_MANAGEMENT: &str = "192.168.150.20";
/// `ttl` of the leases here.
const TTL: Duration = Duration::from_secs(2);
/// What a busy machine adds, and etcd, which looks at leases twice a second.
const SLACK: Duration = Duration::from_millis(2_500);

/// A real etcd on the client's node.
struct Etcd(Process);

impl Etcd {
    fn start(lab: &Lab) -> Result<Self> {
        ensure!(
            process::run(&["sh", "-c", "command -v etcd"]).is_ok(),
            "etcd is not installed: apt-get install etcd-server"
        );
        let (data, peer) = (lab.dir().join("etcd"), "http://127.0.0.1:2380");
        let own = format!("http://{CLIENT}:2379");
        let argv = [
            "etcd",
            "--name",
            "one",
            "--data-dir",
            &data.to_string_lossy(),
            "--listen-client-urls",
            &format!("{own},http://127.0.0.1:2379"),
            "--advertise-client-urls",
            &own,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            &format!("one={peer}"),
        ];
        let process = lab.client.start(&argv, &lab.dir().join("etcd.log"))?;
        let health = || {
            let text = lab.client.run(&["curl", "-sf", "--max-time", "2", &format!("{own}/health")])?;
            Ok(text.contains("true"))
        };
        wait_until("etcd is healthy", PATIENCE, health).with_context(|| process.log())?;
        Ok(Self(process))
    }
}

fn instance(priority: u8, more: &str) -> String {
    format!(
        "\n[[vrrp]]\nname = \"vi\"\nport = \"lan\"\nvrid = 51\npriority = {priority}\n\
         advert_interval = \"100ms\"\nvirtual_addresses = [\"{VIP}\"]\n{more}\n"
    )
}

fn session(neighbor: &str) -> String {
    format!(
        "\n[[bfd]]\nname = \"peer\"\nport = \"lan\"\nneighbor = \"{neighbor}\"\nmin_tx = \"20ms\"\n\
         min_rx = \"20ms\"\nidle_tx = \"100ms\"\nmultiplier = 5\n"
    )
}

fn lease(when_away: &str) -> String {
    format!(
        "\n[lease]\nendpoints = [\"http://{CLIENT}:2379\"]\nttl = \"2s\"\ntimeout = \"300ms\"\n\
         when_away = \"{when_away}\"\n"
    )
}

fn config(more: String) -> Config {
    Config { more, ..Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.1"])]) }
}

/// Makes two directors' nodes, which reach etcd by interfaces of the kernel's.
fn nodes(lab: &Lab) -> Result<(String, String)> {
    clear(&lab.servers[0])?;
    lab.management()?;
    lab.manage(&lab.servers[0].netns, "node02m", SECOND_MANAGEMENT)?;
    Ok((lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?))
}

/// Starts both; the first is master in the end.
fn start(lab: &mut Lab, first: String, second: String) -> Result<Peer> {
    lab.start_director_unresolved(&config(first))?;
    wait_for(lab, "master")?;
    let second = Peer::second(lab, &lab.servers[0].netns, &config(second))?;
    second.wait_for("backup")?;
    Ok(second)
}

/// Has the directors not hear each other, or again.
fn isolate(lab: &Lab, isolated: &str) -> Result<()> {
    for port in ["node01", "node02"] {
        lab.switch.ip(&format!("link set dev {port} type bridge_slave isolated {isolated}"))?;
    }
    Ok(())
}

fn row(lab: &Lab) -> Result<api::VrrpRow> {
    let status: api::Vrrp = lab.director()?.json(&["vrrp"])?;
    status.instances.into_iter().next().context("an instance")
}

fn wait_for(lab: &Lab, state: &str) -> Result<()> {
    wait_until(&format!("the first lbd is {state}"), PATIENCE, || Ok(row(lab)?.state == state))
        .with_context(|| format!("{:?}", row(lab)))
}

fn two(lab: &mut Lab) -> Result<()> {
    let (own, other) = nodes(lab)?;
    let second = start(lab, instance(150, ""), instance(100, ""))?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    isolate(lab, "on")?;
    second.wait_for("master")?;
    ensure!(row(lab)?.state == "master", "the first one did not stay master");
    watch.wait_for(&other)?;
    watch.wait_for(&own)?;
    isolate(lab, "off")?;
    second.wait_for("backup")?;
    ensure!(watch.owners(&[&own, &other, &own]).is_err(), "two masters were not seen on the wire");
    Ok(())
}

fn cut(lab: &mut Lab) -> Result<()> {
    let (own, other) = nodes(lab)?;
    let _etcd = Etcd::start(lab)?;
    let lease = lease("release");
    let second = start(lab, instance(150, "") + &lease, instance(100, "") + &lease)?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    let shown = second.vrrp()?.instances.remove(0).lease.context("a lease")?;
    ensure!((shown.state.as_str(), shown.holder.as_deref()) == ("other", Some("e2e")), "{shown:?}");

    // they do not hear each other, and both hear etcd: nothing changes but that the second one waits
    isolate(lab, "on")?;
    second.wait_for("taking")?;
    std::thread::sleep(TTL * 2);
    ensure!(
        row(lab)?.state == "master" && second.vrrp()?.instances[0].state == "taking",
        "{:?}",
        second.vrrp()
    );
    let text = second.ask(&["vrrp"])?;
    ensure!(text.contains("lease /sluice/vip/instance/vi: held by e2e, wanted here"), "{text}");

    // the first one does not hear etcd either
    let begun = Instant::now();
    lab.switch.ip("link set node01m down")?;
    wait_for(lab, "fault")?;
    let gave_up = begun.elapsed();
    watch.wait_for(&other)?;
    let took = begun.elapsed();
    eprintln!("given up after {gave_up:.1?}, taken after {took:.1?}, with a lease of {TTL:?}");
    ensure!(
        gave_up < TTL + SLACK && took < TTL + SLACK * 2,
        "given up after {gave_up:?}, taken after {took:?}"
    );
    let shown = row(lab)?.lease.context("a lease")?;
    ensure!(shown.state == "away", "{shown:?}");
    let events: EventList = lab.director()?.json(&["events"])?;
    let told = |kind: &str, text: &str| {
        events.events.iter().any(|event| event.event == kind && event.reason.contains(text))
    };
    ensure!(
        told("lease", "held -> etcd does not answer") && told("vrrp", "instance vi: fault"),
        "{events:?}"
    );

    // whole again: the higher priority has it back, handed over
    lab.switch.ip("link set node01m up")?;
    isolate(lab, "off")?;
    watch.wait_for(&own)?;
    second.wait_for("backup")?;
    watch.owners(&[&own, &other, &own])?;
    Ok(())
}

fn killed(lab: &mut Lab) -> Result<()> {
    let (own, other) = nodes(lab)?;
    let _etcd = Etcd::start(lab)?;
    let more = "takeover_bfd = [\"peer\"]";
    let first = instance(150, more) + &session(SECOND) + &lease("release");
    let second = instance(100, more) + &session("192.168.150.11") + &lease("release");
    let second = start(lab, first.clone(), second)?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    // stopped for longer than its lease lasts
    lab.director()?.process.signal(Signal::SIGSTOP)?;
    watch.wait_for(&other)?;
    lab.director()?.process.signal(Signal::SIGCONT)?;
    watch.wait_for(&own)?;
    second.wait_for("backup")?;
    let begun = Instant::now();
    lab.director()?.process.signal(Signal::SIGKILL)?;
    watch.wait_for(&other)?;
    let took = begun.elapsed();
    ensure!(took < TTL + SLACK, "{took:?} after the kill");
    // it is back, with the higher priority
    lab.director = None;
    lab.start_director_unresolved(&config(first))?;
    watch.wait_for(&own)?;
    second.wait_for("backup")?;
    // ended in order, it gives its lease back
    lab.director()?.process.signal(Signal::SIGTERM)?;
    watch.wait_for(&other)?;
    let gaps = watch.owners(&[&own, &other, &own, &other, &own, &other])?;
    let gaps = &gaps[2..];
    eprintln!("killed {:.0} ms, handed over {:.0} ms, ended {:.0} ms", gaps[0], gaps[1], gaps[2]);
    // the successor may not know better before the lease ends
    ensure!(gaps[0] > 500.0, "the lease of a killed director was not waited for: {gaps:?} ms");
    ensure!(gaps[1] < 1_500.0 && gaps[2] < 1_500.0, "{gaps:?} ms");
    Ok(())
}

fn away(lab: &mut Lab) -> Result<()> {
    let (own, _) = nodes(lab)?;
    let etcd = Etcd::start(lab)?;
    let lease = lease("release");
    let second = start(lab, instance(150, "") + &lease, instance(100, "") + &lease)?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    etcd.0.signal(Signal::SIGSTOP)?;
    wait_for(lab, "fault")?;
    second.wait_for("fault")?;
    watch.wait_for_silence()?;
    etcd.0.signal(Signal::SIGCONT)?;
    wait_for(lab, "master")?;
    watch.wait_for(&own)?;
    second.wait_for("backup")?;
    watch.owners(&[&own])?;
    Ok(())
}

fn keep(lab: &mut Lab) -> Result<()> {
    let (own, other) = nodes(lab)?;
    let etcd = Etcd::start(lab)?;
    let more = "takeover_bfd = [\"peer\"]";
    let first = instance(150, more) + &session(SECOND) + &lease("keep");
    let second = instance(100, more) + &session("192.168.150.11") + &lease("keep");
    let second = start(lab, first, second)?;
    let up = || Ok(second.vrrp()?.bfd.iter().all(|row| row.state == "up"));
    wait_until("the session is up", PATIENCE, up)?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    etcd.0.signal(Signal::SIGSTOP)?;
    second.wait_for("fault")?;
    std::thread::sleep(TTL);
    let shown = row(lab)?;
    ensure!(shown.state == "master" && shown.lease.is_some_and(|lease| lease.state == "away"), "it gave up");
    let before = watch.answers().len();
    wait_until("it answers yet", PATIENCE, || Ok(watch.answers().len() > before))?;
    // its neighbour does not hear it any more, and may be master as soon as etcd is back
    isolate(lab, "on")?;
    wait_for(lab, "fault")?;
    watch.wait_for_silence()?;
    // the first one stays cut off from etcd
    lab.switch.ip("link set node01m down")?;
    etcd.0.signal(Signal::SIGCONT)?;
    watch.wait_for(&other)?;
    watch.owners(&[&own, &other])?;
    Ok(())
}

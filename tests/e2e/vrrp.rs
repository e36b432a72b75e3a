//! Redundant directors: lbd and keepalived, lbd and lbd. Who has the VIP is seen on the wire ([`Watch`]).

use anyhow::{Context, Result, bail, ensure};
use lb_control::api;
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::lab::{Lab, Shape, VIP, VIP6};
use lb_tests::peer::{Peer, SECOND, clear};
use lb_tests::process::{self, Process};
use lb_tests::wait::wait_until;
use lb_tests::watch::Watch;
use nix::sys::signal::Signal;

pub fn cases() -> Vec<Case> {
    let one = Shape { servers: 1, ..Shape::default() };
    [
        Case::new("keepalived_backs_up_lbd_in_version_3", keepalived_backs_up),
        Case::new("lbd_backs_up_keepalived_in_version_2_with_a_password", backs_up_keepalived),
        Case::new("lbd_and_keepalived_share_an_ipv6_vip", ipv6),
        Case::new("lbd_and_keepalived_speak_unicast_and_virtual_mac", unicast),
        Case::new("a_killed_director_is_replaced_within_its_bfd_detection_time", bfd),
        Case::new("two_directors_fail_over_in_tens_of_milliseconds_by_adverts_alone", fast_adverts),
        Case::new("a_director_that_is_preempted_lets_go_before_the_other_answers", preempted),
        Case::new("a_stopped_director_listens_before_it_speaks_again", stopped),
        Case::new("a_director_that_was_stopped_for_a_moment_is_no_second_owner", stopped_shortly),
        Case::new("a_cut_link_and_a_failed_script_are_faults_and_programs_are_told", faults),
    ]
    .map(|case| case.shape(one))
    .into()
}

/// A keepalived that takes over from an lbd which is alive does so in the moment in which it says so (RFC 9568 section
/// 6.4.2 has it so); lbd lets go when it has heard. So long two may answer then, s.
const KEEPALIVED: f64 = 0.1;

/// Makes a second director's node out of the server.
fn second_node(lab: &Lab, kernel: bool) -> Result<()> {
    if !kernel {
        return clear(&lab.servers[0]);
    }
    let node = &lab.servers[0].netns;
    node.ip("addr flush dev lo")?;
    node.ip("addr flush dev eth0")?;
    node.run(&["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0", "net.ipv4.conf.all.arp_announce=0"])?;
    node.ip(&format!("addr add {SECOND}/24 dev eth0"))?;
    node.ip("addr add fe80::21/64 dev eth0 nodad")?;
    node.ip("addr add fd00:150::21/64 dev eth0 nodad")?;
    Ok(())
}

/// A keepalived that runs on the second node; dropped, it ends and takes its VIPs away.
struct Keepalived(Process);

impl Keepalived {
    fn start(lab: &Lab, priority: u8, version: u8, vip: &str, more: &str) -> Result<Self> {
        ensure!(
            process::run(&["sh", "-c", "command -v keepalived"]).is_ok(),
            "keepalived is not installed: apt-get install keepalived"
        );
        let node = &lab.servers[0].netns;
        let path = |name: &str| lab.dir().join(name).to_string_lossy().into_owned();
        let text = format!(
            "global_defs {{\n router_id second\n}}\nvrrp_instance VI_1 {{\n state BACKUP\n interface eth0\n \
             virtual_router_id 51\n priority {priority}\n version {version}\n advert_int 1\n {more}\n \
             virtual_ipaddress {{\n {vip}\n }}\n}}\n"
        );
        std::fs::write(path("keepalived.conf"), text)?;
        let (conf, pid, child) = (path("keepalived.conf"), path("keepalived.pid"), path("vrrp.pid"));
        let argv = ["keepalived", "-n", "-l", "-D", "-P", "-f", &conf, "-p", &pid, "-r", &child];
        let process = node.start(&argv, &lab.dir().join("keepalived.log"))?;
        wait_until("keepalived is up", PATIENCE, || Ok(process.log().contains("Entering BACKUP STATE")))
            .with_context(|| process.log())?;
        Ok(Self(process))
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let _ = self.0.signal(Signal::SIGTERM);
        let _ = self.0.wait(PATIENCE);
    }
}

/// An instance of lbd's.
fn instance(priority: u8, version: u8, more: &str) -> String {
    format!(
        "\n[[vrrp]]\nname = \"vi\"\nport = \"lan\"\nvrid = 51\nversion = {version}\npriority = {priority}\n\
         virtual_addresses = [\"{VIP}\"]\n{more}\n"
    )
}

fn config(more: String) -> Config {
    Config { more, ..Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.1"])]) }
}

/// A second lbd, on the server's node.
fn second(lab: &Lab, more: String) -> Result<Peer> {
    Peer::second(lab, &lab.servers[0].netns, &config(more))
}

fn status(lab: &Lab) -> Result<api::Vrrp> {
    lab.director()?.json(&["vrrp"])
}

fn wait_for(lab: &Lab, state: &str) -> Result<()> {
    wait_until(&format!("lbd is {state}"), PATIENCE, || {
        Ok(status(lab)?.instances.iter().all(|row| row.state == state))
    })
    .with_context(|| format!("{:?}", status(lab)))
}

fn keepalived_backs_up(lab: &mut Lab) -> Result<()> {
    second_node(lab, true)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let watch = Watch::start(lab)?;
    let keepalived = Keepalived::start(lab, 100, 3, VIP, "")?;
    watch.wait_for(&other)?;
    lab.start_director_unresolved(&config(instance(150, 3, "")))?;
    watch.wait_for(&own)?;
    // ping comes through the one that is master
    lab.client.run(&["ping", "-n", "-c", "2", "-W", "2", VIP])?;
    let row = status(lab)?.instances.remove(0);
    ensure!(row.refused.is_empty(), "adverts of keepalived were refused: {row:?}");
    // killed: nobody says good-bye
    let director = lab.director.as_ref().context("lbd runs")?;
    director.process.signal(Signal::SIGKILL)?;
    watch.wait_for(&other)?;
    lab.director = None;
    lab.start_director_unresolved(&config(instance(150, 3, "")))?;
    watch.wait_for(&own)?;
    // and ended in order
    lab.director().context("lbd runs")?.process.signal(Signal::SIGTERM)?;
    watch.wait_for(&other)?;
    let gaps = watch.owners(&[&other, &own, &other, &own, &other])?;
    ensure!(gaps[3] < 2_000.0, "a good-bye was not heard: {gaps:?} ms");
    drop(keepalived);
    Ok(())
}

fn backs_up_keepalived(lab: &mut Lab) -> Result<()> {
    second_node(lab, true)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let watch = Watch::start(lab)?;
    lab.start_director_unresolved(&config(instance(100, 2, "auth_password = \"1111\"")))?;
    watch.wait_for(&own)?;
    let password = "authentication {\n auth_type PASS\n auth_pass 1111\n }";
    for _ in 0..2 {
        let keepalived = Keepalived::start(lab, 150, 2, VIP, password)?;
        watch.wait_for(&other)?;
        wait_for(lab, "backup")?;
        let row = status(lab)?.instances.remove(0);
        ensure!(row.master_priority == Some(150) && row.refused.is_empty(), "{row:?}");
        ensure!(lab.director()?.dropped("not_master")? == 0, "packets came for the VIP");
        let log = keepalived.0.log();
        drop(keepalived);
        watch.wait_for(&own).context(log)?;
    }
    // keepalived has the address before lbd can have heard of it
    watch.owners_within(&[&own, &other, &own, &other, &own], KEEPALIVED)?;
    Ok(())
}

fn ipv6(lab: &mut Lab) -> Result<()> {
    second_node(lab, true)?;
    let text = instance(100, 3, "").replace(VIP, VIP6);
    // switches that snoop pass on what was reported
    let argv = ["tcpdump", "-l", "-n", "-v", "-i", "eth0", "ip6 dst ff02::16"];
    let capture = lab.client.start(&argv, &lab.dir().join("reports"))?;
    wait_until("tcpdump listens", PATIENCE, || Ok(capture.log().contains("listening on")))?;
    lab.start_director_unresolved(&config(text))?;
    wait_for(lab, "master")?;
    let report = || Ok(capture.log().contains("[gaddr ff02::12 to_ex"));
    wait_until("a report of ff02::12", PATIENCE, report).with_context(|| capture.log())?;
    lab.client.run(&["ping", "-n", "-6", "-c", "2", "-W", "2", VIP6])?;
    let own = lab.node01.mac("eth0")?;
    let neighbor = || lab.client.ip(&format!("-6 neigh show {VIP6}"));
    ensure!(neighbor()?.contains(&own), "{}", neighbor()?);
    let keepalived = Keepalived::start(lab, 150, 3, &format!("{VIP6}/64"), "")?;
    let other = lab.servers[0].netns.mac("eth0")?;
    // by its unsolicited advertisements
    wait_until("the client knows keepalived", PATIENCE, || Ok(neighbor()?.contains(&other)))
        .with_context(|| format!("{}\n{:?}", keepalived.0.log(), status(lab)))?;
    wait_for(lab, "backup")?;
    ensure!(status(lab)?.instances[0].refused.is_empty(), "{:?}", status(lab));
    drop(keepalived);
    wait_until("the client knows lbd again", PATIENCE, || Ok(neighbor()?.contains(&own)))?;
    lab.client.run(&["ping", "-n", "-6", "-c", "2", "-W", "2", VIP6])?;
    Ok(())
}

fn unicast(lab: &mut Lab) -> Result<()> {
    second_node(lab, true)?;
    let watch = Watch::start(lab)?;
    let peers = format!("vmac = true\nvmac_xmit_base = true\n[[vrrp.peers]]\naddress = \"{SECOND}\"");
    lab.start_director_unresolved(&config(instance(100, 3, &peers)))?;
    watch.wait_for("00:00:5e:00:01:33")?;
    lab.client.run(&["ping", "-n", "-c", "2", "-W", "2", VIP])?;
    let other = lab.servers[0].netns.mac("eth0")?;
    let more = format!("unicast_src_ip {SECOND}\n unicast_peer {{\n 192.168.150.11\n }}");
    let keepalived = Keepalived::start(lab, 150, 3, VIP, &more)?;
    watch.wait_for(&other)?;
    wait_for(lab, "backup")?;
    ensure!(status(lab)?.instances[0].refused.is_empty(), "{:?}", status(lab));
    drop(keepalived);
    watch.wait_for("00:00:5e:00:01:33")?;
    watch.owners_within(&["00:00:5e:00:01:33", &other, "00:00:5e:00:01:33"], KEEPALIVED)?;
    Ok(())
}

fn session(neighbor: &str) -> String {
    format!(
        "\n[[bfd]]\nname = \"peer\"\nport = \"lan\"\nneighbor = \"{neighbor}\"\nmin_tx = \"10ms\"\nmin_rx = \"10ms\"\nidle_tx = \"100ms\"\n"
    )
}

fn bfd(lab: &mut Lab) -> Result<()> {
    second_node(lab, false)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let takeover = "takeover_bfd = [\"peer\"]";
    lab.start_director_unresolved(&config(instance(150, 3, takeover) + &session(SECOND)))?;
    wait_for(lab, "master")?;
    let second = self::second(lab, instance(100, 3, takeover) + &session("192.168.150.11"))?;
    let up = || Ok(second.vrrp()?.bfd.iter().all(|row| row.state == "up" && row.detection_us == 30_000));
    wait_until("the session is up", PATIENCE, up).with_context(|| format!("{:?}", second.vrrp()))?;
    second.wait_for("backup")?;
    lab.director()?.process.prefer();
    second.process.prefer();
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    lab.director()?.process.signal(Signal::SIGKILL)?;
    watch.wait_for(&other)?;
    let gaps = watch.owners(&[&own, &other])?;
    eprintln!("gap with bfd 3 x 10 ms: {:.1} ms", gaps[0]);
    // 3 x 10 ms, and what a busy machine takes; adverts alone would take 3 s
    ensure!(gaps[0] < 300.0, "{gaps:?} ms");
    Ok(())
}

fn fast_adverts(lab: &mut Lab) -> Result<()> {
    second_node(lab, false)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let key = "hmac = { active = 1, keys = [{ id = 1, key = \"0123456789abcdef\" }] }";
    let fast = format!("advert_interval = \"10ms\"\n{key}");
    lab.start_director_unresolved(&config(instance(150, 3, &fast)))?;
    wait_for(lab, "master")?;
    let second = self::second(lab, instance(100, 3, &fast))?;
    second.wait_for("backup")?;
    lab.director()?.process.prefer();
    second.process.prefer();
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    lab.director()?.process.signal(Signal::SIGKILL)?;
    watch.wait_for(&other)?;
    let gaps = watch.owners(&[&own, &other])?;
    eprintln!("gap with adverts every 10 ms: {:.1} ms", gaps[0]);
    ensure!(gaps[0] < 300.0, "{gaps:?} ms");
    Ok(())
}

fn preempted(lab: &mut Lab) -> Result<()> {
    second_node(lab, false)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let often = "advert_interval = \"100ms\"";
    let second = self::second(lab, instance(100, 3, often))?;
    second.wait_for("master")?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&other)?;
    let mut wanted = vec![other.as_str()];
    for _ in 0..4 {
        lab.start_director_unresolved(&config(instance(150, 3, often)))?;
        watch.wait_for(&own)?;
        second.wait_for("backup")?;
        let reasons = [status(lab)?, second.vrrp()?].map(|status| status.instances[0].why.clone());
        let why = [
            format!("higher priority than {SECOND}'s 100"),
            "preempted by 192.168.150.11 with priority 150".to_owned(),
        ];
        ensure!(reasons == why, "{reasons:?}");
        let events: api::EventList = lab.director()?.json(&["events"])?;
        let told = format!("instance vi: master, priority 150: {}", why[0]);
        ensure!(
            events.events.iter().any(|event| event.event == "vrrp" && event.reason == told),
            "{events:?}"
        );
        lab.director()?.process.signal(Signal::SIGTERM)?;
        watch.wait_for(&other)?;
        lab.director = None;
        wanted.extend([own.as_str(), other.as_str()]);
    }
    let gaps = watch.owners(&wanted)?;
    // it says that it has let go: nobody waits for handover_wait
    let taken: Vec<f64> = gaps.iter().step_by(2).copied().collect();
    ensure!(taken.iter().copied().fold(f64::MAX, f64::min) < 100.0, "{taken:?} ms at take-overs");
    Ok(())
}

fn stopped(lab: &mut Lab) -> Result<()> {
    second_node(lab, false)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let often = "advert_interval = \"100ms\"\npreempt = false";
    lab.start_director_unresolved(&config(instance(150, 3, often)))?;
    wait_for(lab, "master")?;
    let second = self::second(lab, instance(100, 3, often))?;
    second.wait_for("backup")?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    lab.director()?.process.signal(Signal::SIGSTOP)?;
    watch.wait_for(&other)?;
    lab.director()?.process.signal(Signal::SIGCONT)?;
    wait_for(lab, "backup")?;
    second.wait_for("master")?;
    let rows = status(lab)?.instances;
    ensure!(rows[0].became_master == 1, "{rows:?}");
    // not even what had come while it was stopped was answered
    watch.owners(&[&own, &other])?;
    Ok(())
}

fn stopped_shortly(lab: &mut Lab) -> Result<()> {
    second_node(lab, false)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let takeover = "takeover_bfd = [\"peer\"]";
    lab.start_director_unresolved(&config(instance(150, 3, takeover) + &session(SECOND)))?;
    wait_for(lab, "master")?;
    let second = self::second(lab, instance(100, 3, takeover) + &session("192.168.150.11"))?;
    let ready = || {
        let status = second.vrrp()?;
        let up = status.bfd.iter().all(|row| row.state == "up");
        Ok(up && status.instances.iter().all(|row| row.master.is_some()))
    };
    wait_until("the second director knows its master", PATIENCE, ready)?;
    lab.director()?.process.prefer();
    second.process.prefer();
    let downs = || -> Result<u64> {
        let rows = [second.vrrp()?.bfd, status(lab)?.bfd];
        Ok(rows.iter().flatten().map(|row| row.downs).sum())
    };
    for attempt in 0..3 {
        let (watch, before) = (Watch::start(lab)?, downs()?);
        watch.wait_for(&own)?;
        let mut wanted = vec![own.as_str()];
        for _ in 0..3 {
            // too short for adverts, once in a second; long enough for BFD
            watch.wait_for_any()?;
            lab.director()?.process.signal(Signal::SIGSTOP)?;
            watch.wait_for(&other)?;
            lab.director()?.process.signal(Signal::SIGCONT)?;
            watch.wait_for(&own)?;
            second.wait_for("backup")?;
            wait_until("the second director knows its master", PATIENCE, ready)?;
            wanted.extend([other.as_str(), own.as_str()]);
        }
        let (seen, downs) = (watch.owners(&wanted), downs()? - before);
        // each stop ends the session once at either end
        if downs <= 6 || attempt == 2 {
            return seen.map(drop).with_context(|| second.process.log());
        }
        eprintln!("frames were held up for 30 ms: {downs} ends of sessions; once more");
    }
    Ok(())
}

fn faults(lab: &mut Lab) -> Result<()> {
    let told = lab.dir().join("told");
    let flag = lab.dir().join("flag");
    std::fs::write(&flag, "")?;
    let program = lab.dir().join("tell");
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >>{}\n", told.display()))?;
    process::run(&["chmod", "+x", &program.to_string_lossy()])?;
    let more = format!(
        "advert_interval = \"100ms\"\ntrack = [{{ script = \"flag\" }}]\nnotify = {{ any = [\"{}\", \"told\"] }}\n\
         [[vrrp_scripts]]\nname = \"flag\"\ncommand = [\"/usr/bin/test\", \"-e\", \"{}\"]\ninterval = \"50ms\"\ntimeout = \"2s\"\n",
        program.display(),
        flag.display()
    );
    lab.start_director_unresolved(&config(instance(100, 3, &more)))?;
    wait_for(lab, "master")?;
    std::fs::remove_file(&flag)?;
    wait_for(lab, "fault")?;
    let silent = lab.client.output(&["ping", "-n", "-c", "1", "-W", "1", VIP])?;
    ensure!(!silent.status.success(), "a VIP of nobody answers");
    std::fs::write(&flag, "")?;
    wait_for(lab, "master")?;
    lab.client.run(&["ping", "-n", "-c", "2", "-W", "2", VIP])?;
    lab.switch.ip("link set node01 down")?;
    wait_for(lab, "fault")?;
    lab.switch.ip("link set node01 up")?;
    wait_for(lab, "master")?;
    let text = lab.director()?.ask(&["vrrp"])?;
    ensure!(text.contains("vi") && text.contains("master"), "{text}");
    lab.director()?.process.signal(Signal::SIGTERM)?;
    let words = || -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&told)?;
        Ok(text.lines().filter_map(|line| Some(line.split(' ').nth(3)?.to_owned())).collect())
    };
    let wanted = ["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER", "STOP"];
    wait_until("programs were told", PATIENCE, || Ok(words()?.len() >= wanted.len()))?;
    let first = std::fs::read_to_string(&told)?;
    ensure!(first.starts_with("told INSTANCE vi BACKUP 100\n"), "{first}");
    if words()? != wanted {
        bail!("programs were told of {:?}", words()?);
    }
    Ok(())
}

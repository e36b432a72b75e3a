//! Redundant directors: lbd and keepalived, lbd and lbd. Who has the VIP is seen on the wire: the client asks by ARP
//! all the time, and a capture tells which station answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lb_control::api;
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::{PATIENCE, bin};
use lb_tests::frames::{self, Wire};
use lb_tests::lab::{Lab, Shape, VIP, VIP6};
use lb_tests::process::{self, Process};
use lb_tests::wait::wait_until;
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
        Case::new("a_stopped_director_listens_before_it_speaks_again", stopped),
        Case::new("a_cut_link_and_a_failed_script_are_faults_and_programs_are_told", faults),
    ]
    .map(|case| case.shape(one))
    .into()
}

/// Address of the second director, keepalived or lbd, in place of the server's.
const SECOND: &str = "192.168.150.21";

/// Makes a second director's node out of the server.
fn second_node(lab: &Lab, kernel: bool) -> Result<()> {
    let node = &lab.servers[0].netns;
    node.ip("addr flush dev lo")?;
    node.ip("addr flush dev eth0")?;
    if kernel {
        node.run(&["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0", "net.ipv4.conf.all.arp_announce=0"])?;
        node.ip(&format!("addr add {SECOND}/24 dev eth0"))?;
        node.ip("addr add fe80::21/64 dev eth0 nodad")?;
        node.ip("addr add fd00:150::21/64 dev eth0 nodad")?;
    } else {
        node.run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
    }
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
struct Second {
    process: Process,
    socket: PathBuf,
}

impl Second {
    fn start(lab: &Lab, more: String) -> Result<Self> {
        let (socket, file) = (lab.dir().join("second.sock"), lab.dir().join("second.toml"));
        let text = config(more).to_toml(&socket.to_string_lossy());
        let text = text.replace("\"e2e\"", "\"e2e-second\"");
        let own = text.find("[[services]]").context("a service")?;
        // its own addresses, not those of the VIP or of its peer
        let text =
            text[..own].replace("192.168.150.11/24", &format!("{SECOND}/24")).replace("150::11/", "150::21/")
                + &text[own..];
        std::fs::write(&file, text)?;
        let lbd = bin()?.join("lbd");
        let argv = [&*lbd.to_string_lossy(), "--config", &*file.to_string_lossy()];
        let mut process = lab.servers[0].netns.start(&argv, &lab.dir().join("second.log"))?;
        wait_until("the second lbd is ready", PATIENCE, || {
            ensure!(process.runs()?, "it ended");
            Ok(process.log().contains("lbd is ready"))
        })
        .with_context(|| process.log())?;
        Ok(Self { process, socket })
    }

    fn status(&self) -> Result<api::Vrrp> {
        let lbctl = bin()?.join("lbctl");
        let argv = [&*lbctl.to_string_lossy(), "--socket", &*self.socket.to_string_lossy(), "vrrp", "--json"];
        Ok(serde_json::from_str(&process::run(&argv)?)?)
    }

    fn wait_for(&self, state: &str) -> Result<()> {
        wait_until(&format!("the second lbd is {state}"), PATIENCE, || {
            Ok(self.status()?.instances.iter().all(|row| row.state == state))
        })
        .with_context(|| format!("{:?}\n{}", self.status(), self.process.log()))
    }
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

/// Asks for the VIP by ARP every few ms, and captures who answers.
struct Watch {
    capture: Process,
    stop: Arc<AtomicBool>,
    asker: Option<JoinHandle<Result<()>>>,
}

/// Time between two questions.
const STEP: Duration = Duration::from_millis(5);
/// A master that is replaced while it lives (a higher priority came) ends when it hears the new one's advert, not
/// before: RFC 9568 section 6.4.3. So long two may answer then, s: what keepalived takes on a busy machine.
const HANDOVER: f64 = 0.25;

impl Watch {
    fn start(lab: &Lab) -> Result<Self> {
        let filter = format!("arp and arp[6:2] = 2 and arp[14:4] = {:#x}", vip_bits()?);
        let argv = ["tcpdump", "-l", "-n", "-tt", "-i", "eth0", &filter];
        let capture = lab.client.start(&argv, &lab.dir().join("watch"))?;
        wait_until("tcpdump listens", PATIENCE, || Ok(capture.log().contains("listening on")))?;
        let wire = Wire::open(&lab.client, "eth0")?;
        let own = frames::mac(&lab.client.mac("eth0")?)?;
        let question = frames::arp_request(own, "192.168.150.1".parse()?, VIP.parse()?);
        let question = frames::ethernet([0xff; 6], own, frames::ARP, &question);
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let asker = thread::spawn(move || {
            while !ended.load(Relaxed) {
                wire.send(&question)?;
                thread::sleep(STEP);
            }
            Ok(())
        });
        Ok(Self { capture, stop, asker: Some(asker) })
    }

    /// Answers so far: time, s, and station.
    fn answers(&self) -> Vec<(f64, String)> {
        let line = |line: &str| {
            let time = line.split_whitespace().next()?.parse().ok()?;
            let mac = line.split("is-at ").nth(1)?.split(',').next()?.trim().to_owned();
            Some((time, mac))
        };
        self.capture.log().lines().filter_map(line).collect()
    }

    /// Waits until `mac` answers.
    fn wait_for(&self, mac: &str) -> Result<()> {
        let last = || self.answers().last().map(|(_, last)| last == mac);
        wait_until(&format!("{mac} answers for the VIP"), PATIENCE, || Ok(last() == Some(true)))
    }

    /// Ends, and checks that the stations that answered are these, one after the other: at no moment, but for
    /// [`HANDOVER`], two had the VIP. Gives the time without an answer at each change, ms.
    fn owners(mut self, wanted: &[&str]) -> Result<Vec<f64>> {
        self.stop.store(true, Relaxed);
        if let Some(asker) = self.asker.take() {
            asker.join().map_err(|_| anyhow::anyhow!("the asker panicked"))??;
        }
        let answers = self.answers();
        let (mut owners, mut gaps): (Vec<&str>, Vec<f64>) = (Vec::new(), Vec::new());
        let (mut before, mut changed, mut overlap) = (0.0, 0.0, 0.0_f64);
        for (time, mac) in &answers {
            if owners.last() != Some(&mac.as_str()) {
                let yields = owners.iter().rev().nth(1) == Some(&mac.as_str());
                if yields && time - changed < HANDOVER {
                    overlap = overlap.max(time - changed);
                    continue;
                }
                if !owners.is_empty() {
                    gaps.push((time - before) * 1000.0);
                }
                changed = *time;
                owners.push(mac);
            }
            before = *time;
        }
        eprintln!("gaps {gaps:.0?} ms, longest hand-over {:.0} ms", overlap * 1000.0);
        ensure!(
            owners == wanted,
            "the VIP's owners were {owners:?}, not {wanted:?}, in {} answers",
            answers.len()
        );
        Ok(gaps)
    }
}

fn vip_bits() -> Result<u32> {
    Ok(VIP.parse::<std::net::Ipv4Addr>()?.to_bits())
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
    watch.owners(&[&own, &other, &own, &other, &own])?;
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
    watch.owners(&["00:00:5e:00:01:33", &other, "00:00:5e:00:01:33"])?;
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
    let second = Second::start(lab, instance(100, 3, takeover) + &session("192.168.150.11"))?;
    let up = || Ok(second.status()?.bfd.iter().all(|row| row.state == "up" && row.detection_us == 30_000));
    wait_until("the session is up", PATIENCE, up).with_context(|| format!("{:?}", second.status()))?;
    second.wait_for("backup")?;
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
    let second = Second::start(lab, instance(100, 3, &fast))?;
    second.wait_for("backup")?;
    let watch = Watch::start(lab)?;
    watch.wait_for(&own)?;
    lab.director()?.process.signal(Signal::SIGKILL)?;
    watch.wait_for(&other)?;
    let gaps = watch.owners(&[&own, &other])?;
    eprintln!("gap with adverts every 10 ms: {:.1} ms", gaps[0]);
    ensure!(gaps[0] < 300.0, "{gaps:?} ms");
    Ok(())
}

fn stopped(lab: &mut Lab) -> Result<()> {
    second_node(lab, false)?;
    let (own, other) = (lab.node01.mac("eth0")?, lab.servers[0].netns.mac("eth0")?);
    let often = "advert_interval = \"100ms\"\npreempt = false";
    lab.start_director_unresolved(&config(instance(150, 3, often)))?;
    wait_for(lab, "master")?;
    let second = Second::start(lab, instance(100, 3, often))?;
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
         [[vrrp_scripts]]\nname = \"flag\"\ncommand = [\"/usr/bin/test\", \"-e\", \"{}\"]\ninterval = \"50ms\"\n",
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

//! lbd as a process: check, stop, idle.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::Config;
use lb_tests::director::{self, PATIENCE};
use lb_tests::lab::{Lab, VIP};
use lb_tests::process::{self, Process};
use lb_tests::wait::wait_until;
use nix::sys::signal::Signal;

/// Kernel ticks per second in `/proc/PID/stat` (`getconf CLK_TCK`; 100 on Linux for every architecture we build on).
const TICKS_PER_SECOND: f64 = 100.0;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("sigterm_and_sigint_stop_lbd_with_status_0_and_no_socket_left", stop),
        Case::new("lbd_starts_again_after_it_was_killed", restart),
        Case::new("check_names_all_faults_and_starts_nothing", check),
        Case::new("sighup_applies_the_file_again", reload),
        Case::new("ctrl_c_takes_the_whole_lab_away", lab_interrupted),
        Case::new("idle_adaptive_workers_leave_the_cpu", |lab| idle(lab, "adaptive")),
        Case::new("idle_spin_workers_poll_on", |lab| idle(lab, "spin")),
    ]
}

fn stop(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        lab.start_director(&Config { workers: 2, ..Config::default() })?;
        lab.curl(&format!("http://{VIP}/"))?;
        let mut director = lab.director.take().context("just started")?;
        ensure!(director.socket().exists(), "no socket while lbd runs");
        director.process.signal(signal)?;
        let status = director.process.wait(PATIENCE)?;
        ensure!(status.code() == Some(0), "{signal}: {status}: {}", director.process.log());
        ensure!(!director.socket().exists(), "{signal}: the socket is left");
    }
    Ok(())
}

fn restart(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::default())?;
    // Dropping kills it: the socket file stays behind, and a new lbd takes its place.
    let old = lab.director.take().context("just started")?;
    let socket = old.socket().to_owned();
    drop(old);
    ensure!(socket.exists(), "a killed lbd cannot remove its socket");
    lab.start_director(&Config::default())?;
    lab.curl(&format!("http://{VIP}/"))?;
    // A second lbd on the same socket is refused, and the first one goes on.
    let config = lab.director()?.config().to_string_lossy().into_owned();
    let lbd = director::bin()?.join("lbd");
    let second = lab.node01.output(&["timeout", "15", &lbd.to_string_lossy(), "--config", &config])?;
    let message = String::from_utf8_lossy(&second.stderr);
    ensure!(second.status.code() == Some(1), "a second lbd on one socket: {}: {message}", second.status);
    ensure!(message.contains("lbd.sock"), "the socket is not named: {message}");
    lab.curl(&format!("http://{VIP}/"))?;
    Ok(())
}

fn check(lab: &mut Lab) -> Result<()> {
    let lbd = director::bin()?.join("lbd").to_string_lossy().into_owned();
    let file = lab.dir().join("check.toml");
    let path = file.to_string_lossy().into_owned();
    let socket = lab.dir().join("lbd.sock");
    std::fs::write(&file, Config::default().to_toml(&socket.to_string_lossy()))?;
    let output = process::output(&[&lbd, "--check", &path])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.contains("ok"), "{}: {text}", output.status);
    let mut config = Config::default();
    config.services[0].vip = "224.0.0.1";
    config.services[0].servers[0].1 = 65_536;
    config.services[0].servers[1].0 = "192.168.151.13".to_owned();
    config.appliance = "colour = \"red\"".to_owned();
    std::fs::write(&file, config.to_toml(&socket.to_string_lossy()))?;
    let output = process::output(&[&lbd, "--check", &path])?;
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(output.status.code() == Some(1), "{}: {text}", output.status);
    for part in ["appliance.colour", "services[0].vip", "services[0].servers[0].weight", "line "] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    ensure!(text.contains("192.168.151.13"), "the server that is not connected is not named: {text}");
    ensure!(!socket.exists(), "--check has started something");
    Ok(())
}

fn reload(lab: &mut Lab) -> Result<()> {
    lab.start_director(&Config::default())?;
    let director = lab.director()?;
    let mut config = Config::default();
    config.services[0].servers[0].1 = 9;
    std::fs::write(director.config(), config.to_toml(&director.socket().to_string_lossy()))?;
    director.process.signal(Signal::SIGHUP)?;
    wait_until(
        "the new weight runs",
        PATIENCE,
        || Ok(director.server("web", "192.168.150.12")?.weight == 9),
    )?;
    // A faulty file is told of in the log and changes nothing.
    std::fs::write(director.config(), "colour = \"red\"")?;
    director.process.signal(Signal::SIGHUP)?;
    wait_until("the fault is in the log", PATIENCE, || Ok(director.process.log().contains("colour")))?;
    ensure!(director.server("web", "192.168.150.12")?.weight == 9, "a faulty file changed the configuration");
    Ok(())
}

/// `docker/lab` without `--once`, ended as a person does.
fn lab_interrupted(lab: &mut Lab) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/lab").to_string_lossy().into_owned();
    let bin = director::bin()?.to_string_lossy().into_owned();
    let prefix = format!("lbc{}", std::process::id());
    let argv = [&script, "--prefix", &prefix, "--bin", &bin];
    let mut process = Process::start(&argv, &lab.dir().join("lab.log"))?;
    let outcome = interrupt(&mut process, &prefix);
    if outcome.is_err() && process.runs()? {
        // It has a lab to take away, which being killed it could not.
        process.signal(Signal::SIGTERM)?;
        process.wait(Duration::from_secs(30))?;
    }
    outcome
}

fn interrupt(process: &mut Process, prefix: &str) -> Result<()> {
    wait_until("the lab is up", Duration::from_secs(60), || {
        ensure!(process.runs()?, "it ended");
        Ok(process.log().contains("Ctrl-C takes everything away") && process.log().contains("lbd's log:"))
    })
    .with_context(|| process.log())?;
    let log = process.log();
    ensure!(log.contains("\nall ") && log.contains(" checks passed\n"), "{log}");
    let lbd_log = log
        .split("lbd's log: ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .context("lbd's log is not named")?;
    let run = Path::new(lbd_log).parent().context("a log is in a folder")?;
    ensure!(run.is_dir(), "no folder {}", run.display());
    process.signal(Signal::SIGINT)?;
    let status = process.wait(Duration::from_secs(30))?;
    ensure!(status.code() == Some(130), "{status}: {}", process.log());
    ensure!(!run.exists(), "{} is left", run.display());
    let left = process::run(&["ip", "netns", "list"])?;
    ensure!(!left.contains(prefix), "namespaces are left: {left}");
    Ok(())
}

/// CPU time of a process so far, seconds.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // proc(5): fields 14 and 15, counted after the name in brackets, are user and system time in ticks.
    let fields: Vec<&str> = stat.rsplit(')').next().context("no name in stat")?.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("a short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

fn idle(lab: &mut Lab, idle: &'static str) -> Result<()> {
    lab.start_director(&Config { idle, ..Config::default() })?;
    let pid = lab.director()?.process.pid();
    let (start, before) = (Instant::now(), cpu_seconds(pid)?);
    // Time is what is measured here.
    std::thread::sleep(Duration::from_secs(3));
    let share = (cpu_seconds(pid)? - before) / start.elapsed().as_secs_f64();
    match idle {
        // The unoptimized control core has its part of that, and who stops for less than a tick may be counted for one.
        "adaptive" => ensure!(share < 0.15, "{:.1} % of a CPU while idle", share * 100.0),
        // All of it on a machine that does nothing else.
        _ => ensure!(share > 0.2, "{:.1} % of a CPU while spinning", share * 100.0),
    }
    Ok(())
}

//! DPDK's own forwarder, driven by its command line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::forward::{cpu_ns, memory_mib};

/// Time before the first look at the counters.
const WARM: Duration = Duration::from_millis(20);

/// How many times as long as asked it may take until something was forwarded.
const PATIENCE: u32 = 40;

/// A testpmd that is up and forwards nothing.
pub struct Testpmd {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Where it is, if it is installed.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("dpdk-testpmd")).find(|file| file.exists())
}

impl Testpmd {
    /// One port of this device, forwarded by one core on `cpu`, with the settings of lb-dpdk's ports.
    pub fn start(program: &Path, vdev: &str, cpu: usize, mbufs: u64) -> anyhow::Result<Self> {
        let cpus: Vec<_> = crate::rig::cpus()?.iter().map(usize::to_string).collect();
        // its output is for people: without stdbuf it would come in blocks
        let mut process = Command::new("stdbuf")
            .args(["-oL".as_ref(), program.as_os_str()])
            .args([
                "--no-huge",
                "--no-shconf",
                "--no-pci",
                "--no-telemetry",
                "--iova-mode=va",
                "--main-lcore=0",
            ])
            .arg(format!("--lcores=0@({}),1@{cpu}", cpus.join(",")))
            .arg(format!("--file-prefix=sluice-testpmd-{}", std::process::id()))
            .args(["-m", &memory_mib(mbufs).to_string(), "--vdev", vdev, "--", "--interactive"])
            .args([
                "--nb-cores=1",
                "--port-topology=loop",
                "--burst=32",
                "--rxd=256",
                "--txd=256",
                "--no-flush-rx",
            ])
            .arg(format!("--total-num-mbufs={mbufs}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting dpdk-testpmd")?;
        let stdin = process.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(process.stdout.take().context("no stdout")?);
        let mut this = Self { process, stdin, stdout };
        this.received().context("dpdk-testpmd did not start")?;
        Ok(this)
    }

    /// CPU time of the thread that forwards.
    fn forwarder(&self) -> anyhow::Result<u64> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let task = task?.path();
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            // "lcore-worker-1" in DPDK 22.11, "dpdk-worker1" in 24.11
            if name.contains("worker") {
                return cpu_ns(&task);
            }
        }
        anyhow::bail!("dpdk-testpmd has no worker thread")
    }

    fn say(&mut self, command: &str) -> anyhow::Result<()> {
        writeln!(self.stdin, "{command}").context("dpdk-testpmd ended")
    }

    /// Frames received so far, and how long its forwarding thread has had a CPU, ns.
    fn received(&mut self) -> anyhow::Result<(u64, u64)> {
        self.say("show port stats 0")?;
        loop {
            let mut line = String::new();
            ensure!(self.stdout.read_line(&mut line)? > 0, "dpdk-testpmd ended");
            let mut words = line.split_whitespace().skip_while(|word| *word != "RX-packets:");
            if let Some(count) = words.nth(1) {
                return Ok((count.parse()?, self.forwarder()?));
            }
        }
    }

    /// ns per packet of forwarding this way for so long.
    pub fn forward(&mut self, mode: &str, time: Duration) -> anyhow::Result<f64> {
        self.say(&format!("set fwd {mode}"))?;
        self.say("start")?;
        self.received()?;
        std::thread::sleep(WARM);
        let (first, from) = self.received()?;
        std::thread::sleep(time);
        let (mut last, mut until) = self.received()?;
        // on a machine that is busy with other things its core may not have had a turn yet
        for _ in 0..PATIENCE {
            if last > first {
                break;
            }
            std::thread::sleep(time);
            (last, until) = self.received()?;
        }
        self.say("stop")?;
        self.received()?;
        ensure!(last > first, "dpdk-testpmd forwarded nothing as {mode}");
        Ok((until - from) as f64 / (last - first) as f64)
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

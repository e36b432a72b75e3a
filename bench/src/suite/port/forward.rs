//! Direct routing over a port that replays frames from memory, beside dpdk-testpmd on the same kind of port.
//!
//! `net_pcap` with `infinite_rx` copies each frame of a file into a fresh buffer and drops what is sent; the pool, the
//! pages (4 KiB), the CPU and the file are the same for both programs. Each runs as a process of its own that stays up
//! and works in turn. Time is that which the polling thread had its CPU, which on a machine with nothing else to do is
//! all of it.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lb_config::{Device, HugePages};
use lb_dataplane::io::{Burst, DeviceId, PacketIo};
use lb_dpdk::{Clock, DeviceSpec, Eal, EalConfig, Mbuf, Options, open_with};

use super::testpmd::Testpmd;
use crate::context::Context;
use crate::record::{Reached, Table};
use crate::rig::{ACK, Kind, Order, Rig, client_frame, cpus};
use crate::stats::{Series, short};

/// Buffers beside those that the replayed file takes.
pub const SPARE: u64 = 16_384;

/// Bytes of memory for a buffer: without huge pages DPDK lets none cross a page, so each takes one, and some for DPDK.
const BUFFER: u64 = 4_224;

/// A way to forward: its name, and a run that gives ns per packet.
type Mode<'a> = (String, Box<dyn FnMut() -> anyhow::Result<f64> + 'a>);

/// Ways of testpmd to forward: nothing; both MAC addresses; those exchanged; those, IP addresses and ports exchanged.
const MODES: [&str; 4] = ["io", "mac", "macswap", "5tswap"];

/// Compares with testpmd.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let Some(program) = super::testpmd::find() else {
        context.skip_goals("Sluice beside testpmd", "no dpdk-testpmd: apt install dpdk-dev", &["P8"]);
        return Ok(());
    };
    // the last CPU: the first has the interrupts
    let cpu = *cpus()?.last().context("no CPU")?;
    // half a million is what the pages of both processes leave of 8 GiB
    let sizes: &[u64] = if context.quick() { &[1_000] } else { &[1_000, 100_000, 500_000] };
    let mut table = Table::new(
        "ns per packet over net_pcap, receiving and sending included, minimum / median",
        &[
            "flows",
            "testpmd io",
            "testpmd mac",
            "testpmd macswap",
            "testpmd 5tswap",
            "lb-dpdk alone",
            "Sluice DR",
            "tax over mac",
            "over 5tswap",
        ],
    );
    let mut largest = None;
    for &flows in sizes {
        // both processes, and Sluice's table
        let needed = 2 * (flows + SPARE) * BUFFER + flows * 128;
        if needed > context.memory() / 2 {
            context.skip(format!("{} flows over net_pcap", short(flows as f64)), "not enough memory");
            continue;
        }
        let file = Replay::new(flows)?;
        let vdev = format!("net_pcap0,rx_pcap={},infinite_rx=1", file.0.display());
        let series = match compare(context, &program, cpu, &vdev, &file.0, flows) {
            Ok(series) => series,
            // a port of so many frames may be more than DPDK takes here; the smaller ones count all the same
            Err(error) => {
                context.skip(format!("{} flows over net_pcap", short(flows as f64)), format!("{error:#}"));
                continue;
            }
        };
        let [mac, swap, own] = [&series[1], &series[3], &series[5]];
        // medians: CPU time is counted in ticks, and one too few makes a minimum
        let (over_mac, over_swap) = (own.median() - mac.median(), own.median() - swap.median());
        let shown = series.iter().map(Series::shown);
        table.row(
            [short(flows as f64)]
                .into_iter()
                .chain(shown)
                .chain([format!("{over_mac:.1}"), format!("{over_swap:.1}")]),
        );
        largest = Some((flows, over_mac, over_swap, mac.median(), swap.median()));
    }
    if let Some((flows, over_mac, over_swap, mac, swap)) = largest {
        let note = format!("net_pcap, {} flows, 4 KiB pages", short(flows as f64));
        let over_mac = Reached::new("P8", over_mac).case("over mac").peer("testpmd mac, all of it", mac);
        context.reached(over_mac.note(note.as_str()))?;
        let over_swap =
            Reached::new("P8", over_swap).case("over 5tswap").peer("testpmd 5tswap, all of it", swap);
        context.reached(over_swap.note(note))?;
    }
    if !table.rows.is_empty() {
        context.table(table);
    }
    // nothing but receiving and sending: what our own layer over DPDK costs
    compare(context, &program, cpu, "net_null0", Path::new("-"), 0)?;
    Ok(())
}

/// Samples of testpmd's modes, of lb-dpdk alone, and of Sluice where there are flows.
fn compare(
    context: &mut Context,
    program: &Path,
    cpu: usize,
    vdev: &str,
    file: &Path,
    flows: u64,
) -> anyhow::Result<Vec<Series>> {
    let time = Duration::from_millis(if context.quick() { 50 } else { 400 });
    let testpmd = std::cell::RefCell::new(Testpmd::start(program, vdev, cpu, flows + SPARE)?);
    let own = std::cell::RefCell::new(Own::start(file, flows, cpu)?);
    let mut modes: Vec<Mode> = Vec::new();
    for mode in MODES.iter().take(if flows == 0 { 1 } else { MODES.len() }) {
        let testpmd = &testpmd;
        modes.push((format!("testpmd {mode}"), Box::new(move || testpmd.borrow_mut().forward(mode, time))));
    }
    for (name, word) in
        [("lb-dpdk alone", "io"), ("Sluice DR", "balance")].iter().take(1 + usize::from(flows > 0))
    {
        let own = &own;
        modes.push(((*name).to_owned(), Box::new(move || own.borrow_mut().forward(word, time))));
    }
    let mut variants: Vec<_> =
        modes.iter_mut().map(|(name, work)| (name.as_str(), &mut **work as _)).collect();
    let setting = if flows == 0 {
        "net_null, frames of zeros".to_owned()
    } else {
        format!("net_pcap, {} flows", short(flows as f64))
    };
    let series = context.compare(&setting, "ns/packet", &mut variants)?;
    drop(variants);
    drop(modes);
    own.into_inner().finish()?;
    Ok(series)
}

/// A capture file with a frame of every flow, in random order; goes when dropped.
struct Replay(PathBuf);

impl Replay {
    fn new(flows: u64) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("sluice-bench-{}-{flows}.pcap", std::process::id()));
        let mut file = BufWriter::new(std::fs::File::create(&path)?);
        let this = Self(path);
        // magic, version 2.4, snap length, Ethernet (draft-ietf-opsawg-pcap section 4)
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
            file.write_all(&word.to_ne_bytes())?;
        }
        let mut order = Order::new(flows, 1);
        for _ in 0..flows {
            let frame = client_frame(order.next_number(), ACK);
            let len = frame.len() as u32;
            for word in [0, 0, len, len] {
                file.write_all(&word.to_ne_bytes())?;
            }
            file.write_all(&frame)?;
        }
        file.flush()?;
        Ok(this)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// This program again, as a director on the port.
struct Own {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Own {
    fn start(file: &Path, flows: u64, cpu: usize) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("port-child")
            .args([file.as_os_str(), flows.to_string().as_ref(), cpu.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(process.stdout.take().context("no stdout")?);
        let mut this = Self { process, stdin, stdout };
        ensure!(this.line()? == "ready", "the director did not start");
        Ok(this)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the director ended");
        Ok(line.trim().to_owned())
    }

    /// ns per packet of so long a run.
    fn forward(&mut self, how: &str, time: Duration) -> anyhow::Result<f64> {
        writeln!(self.stdin, "{how} {}", time.as_millis())?;
        Ok(self.line()?.parse()?)
    }

    /// Errors: it dropped packets, or lost connections.
    fn finish(mut self) -> anyhow::Result<()> {
        writeln!(self.stdin, "end")?;
        let verdict = self.line()?;
        ensure!(verdict == "right", "the director says: {verdict}");
        Ok(())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process behind [`Own`]: `FILE FLOWS CPU`; then lines `io MS`, `balance MS`, `end` on standard input.
pub fn child(words: &[String]) -> anyhow::Result<()> {
    let [file, flows, cpu] = words else { bail!("FILE FLOWS CPU") };
    let (flows, cpu): (u64, u16) = (flows.parse()?, cpu.parse()?);
    let rig = Rig::new(Kind::Dr, 1, flows)?;
    let mbufs = flows + SPARE;
    let eal = Eal::init(&EalConfig {
        instance: format!("bench-{}", std::process::id()),
        huge_pages: HugePages::None,
        memory_mib: u32::try_from(memory_mib(mbufs))?,
        main_cpu: Some(cpu),
        worker_cpus: vec![cpu],
        pci: Vec::new(),
    })?;
    let device = if file == "-" { Device::Null } else { Device::Pcap(file.into()) };
    let specs = [DeviceSpec { device, mtu: 1500 }];
    let options = Options { endless: true };
    let (_devices, ios) = open_with(&eal, &specs, u32::try_from(mbufs)?, options)?;
    let (clock, start_ns) = (Clock::new(&eal), rig.now_ns);
    let mut rig = rig.with_ios(ios);
    let start = clock.now_ns();
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        let (word, ms) = line.split_once(' ').unwrap_or((&line, "0"));
        let from = clock.now_ns();
        let cpu_from = cpu_ns(Path::new("/proc/thread-self"))?;
        let until = from + ms.parse::<u64>()? * 1_000_000;
        let (mut now, mut packets) = (from, 0_u64);
        let worker = &mut rig.workers[0];
        match word {
            "io" => {
                let mut burst = Burst::<Mbuf>::new();
                while now < until {
                    worker.io_mut().rx(DeviceId(0), &mut burst);
                    packets += burst.len() as u64;
                    worker.io_mut().tx(DeviceId(0), &mut burst);
                    burst.clear();
                    now = clock.now_ns();
                }
            }
            "balance" => {
                while now < until {
                    packets += worker.turn(start_ns + now - start) as u64;
                    now = clock.now_ns();
                }
            }
            _ => {
                match rig.census(flows) {
                    Ok(()) => println!("right"),
                    Err(error) => println!("{error}"),
                }
                return Ok(());
            }
        }
        ensure!(now > from, "no time passed");
        let used = cpu_ns(Path::new("/proc/thread-self"))? - cpu_from;
        println!("{}", used as f64 / packets.max(1) as f64);
    }
    Ok(())
}

/// How long a thread, whose folder under /proc this is, has had a CPU, ns. Source: Linux, sched-stats.
///
/// Errors: the kernel does not say.
pub fn cpu_ns(thread: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(thread.join("schedstat"))?;
    Ok(text.split_whitespace().next().context("an empty schedstat")?.parse()?)
}

/// Memory that so many buffers need, MiB.
pub fn memory_mib(mbufs: u64) -> u64 {
    mbufs * BUFFER / (1 << 20) + 128
}

//! Replays the estimator: the recorded counters say what came between two of its ticks, the rates what it made of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow, bail};

use crate::control::Control;
use crate::lab::{CLIENTS, Settings, gateway};
use crate::load::{Rate, Sample};
use crate::packet::{self, SYN, Segment};
use crate::report::Findings;

/// Period of the kernel's estimator, ms.
const PERIOD_MS: u64 = 2_000;

/// Length of a SYN, bytes; what is more is data.
const SYN_LEN: u64 = 40;
/// Length of an empty datagram, bytes.
const UDP_LEN: u64 = 28;

/// Replays a file.
pub fn replay(vectors: &Rate, findings: &mut Findings) {
    findings.begin("load");
    if let Err(error) = run(vectors, findings) {
        findings.fault("load", "replay", &format!("{error:#}"));
    }
}

fn run(vectors: &Rate, findings: &mut Findings) -> Result<()> {
    let mut control = Control::new(&Settings::default())?;
    let first = vectors.samples.first().ok_or_else(|| anyhow!("no samples"))?;
    // the service is the key whose address is no server's: it stands first, the servers behind it share its load
    let mut keys: Vec<SocketAddr> = first.stats.keys().map(|key| key.parse()).collect::<Result<_, _>>()?;
    let sums = vectors.samples.last().ok_or_else(|| anyhow!("no samples"))?;
    keys.sort_by_key(|key| std::cmp::Reverse(sums.stats.get(&key.to_string()).map(|stats| stats[0])));
    let (service, servers) = keys.split_first().ok_or_else(|| anyhow!("no service"))?;
    let udp = match (vectors.about.contains("SYN"), vectors.about.contains("datagram")) {
        (true, false) => false,
        (false, true) => true,
        _ => bail!("the load {:?} is not understood", vectors.about),
    };
    let option = if udp { "-u" } else { "-t" };
    let mut commands = vec![format!("ipvsadm -A {option} {service} -s rr")];
    commands.extend(servers.iter().map(|server| format!("ipvsadm -a {option} {service} -r {server} -g")));
    for line in &commands {
        let output = control.command(line)?;
        if output.code != 0 {
            bail!("{line}: {} {}", output.code, output.stderr.trim());
        }
    }
    let mut before: Option<&Sample> = None;
    let mut client = Client { sent: 0, udp };
    for (at, sample) in vectors.samples.iter().enumerate() {
        findings.begin(format!("sample {at}"));
        let ticked = before.is_none_or(|before| before.stats != sample.stats || before.rate != sample.rate);
        if ticked && before.is_some() {
            let (came, len) = delta(before, sample, service)?;
            for _ in 0..came {
                let packet = client.packet(*service, len)?;
                control.lab.pass(CLIENTS, gateway(), &packet);
            }
            control.lab.wait(PERIOD_MS);
        }
        for (option, expected) in [("--stats", &sample.stats), ("--rate", &sample.rate)] {
            let got = table(&mut control, option)?;
            for (key, expected) in expected {
                let got = got.get(key).map_or_else(|| "not listed".to_owned(), |got| format!("{got:?}"));
                findings.check(key, option, &format!("{expected:?}"), &got);
            }
        }
        before = Some(sample);
    }
    Ok(())
}

/// Connections that came between two samples, every packet one, and the length of a packet.
fn delta(before: Option<&Sample>, sample: &Sample, service: &SocketAddr) -> Result<(u64, u64)> {
    let of = |sample: &Sample| sample.stats.get(&service.to_string()).copied().unwrap_or_default();
    let (now, then) = (of(sample), before.map(of).unwrap_or_default());
    let [came, packets, out, bytes, _] = std::array::from_fn(|at| now[at].saturating_sub(then[at]));
    let len = bytes.checked_div(came).unwrap_or_default();
    let plain = packets == came && bytes == len * came && out == 0;
    if plain { Ok((came, len)) } else { bail!("a load other than new connections of one length") }
}

struct Client {
    sent: u32,
    udp: bool,
}

impl Client {
    /// A packet of this length from a port and address that no other came from.
    fn packet(&mut self, to: SocketAddr, len: u64) -> Result<Vec<u8>> {
        self.sent += 1;
        let address = IpAddr::from([192, 168, (self.sent >> 14) as u8, 9]);
        let from = SocketAddr::new(address, 1024 + (self.sent & 0x3fff) as u16);
        let data = len.checked_sub(if self.udp { UDP_LEN } else { SYN_LEN });
        let data = vec![0; data.ok_or_else(|| anyhow!("packets of {len} bytes"))? as usize];
        Ok(if self.udp {
            packet::udp(from, to, &data)
        } else {
            packet::tcp(from, to, Segment { flags: SYN, seq: 1, ack: 0, options: &[], data: &data })
        })
    }
}

/// Numbers of a listing by address and port.
fn table(control: &mut Control, option: &str) -> Result<BTreeMap<String, [u64; 5]>> {
    let args: Vec<String> = ["-L", "-n", option, "--exact"].map(str::to_owned).into();
    let output = control.ipvsadm(&args, &[]);
    if output.code != 0 {
        bail!("{args:?}: {}", output.stderr.trim());
    }
    let mut rows = BTreeMap::new();
    for line in output.stdout.lines() {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        if let [key, numbers @ ..] = &words[..]
            && let Ok(numbers) = numbers.iter().map(|n| n.parse()).collect::<Result<Vec<u64>, _>>()
            && let Ok(numbers) = <[u64; 5]>::try_from(numbers)
        {
            rows.insert((*key).to_owned(), numbers);
        }
    }
    Ok(rows)
}

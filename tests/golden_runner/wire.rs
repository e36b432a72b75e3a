//! Replays packets byte for byte: what was put on a link, and all that the director sent for it.

use anyhow::{Result, anyhow, bail};

use crate::control::{Conn, Control};
use crate::lab::{CLIENTS, Mark, Out, SERVERS, Settings, gateway};
use crate::load::{Case, OutPacket, PacketStep, Wire, WireStep};
use crate::packet::{self, Seen, UDP};
use crate::refusals;
use crate::report::Findings;

/// Replays a file.
pub fn replay(vectors: &Wire, findings: &mut Findings) {
    for case in &vectors.cases {
        findings.begin(&case.name);
        if let Err(error) = run(case, findings) {
            findings.fault("case", "replay", &format!("{error:#}"));
        }
    }
}

/// Time between two steps, ms: the recordings' timers show that some passes, and less than a second in a case.
const STEP_MS: u64 = 15;

fn run(case: &Case, findings: &mut Findings) -> Result<()> {
    if let Some(netfilter) = netfilter(case) {
        findings.meant("netfilter", "settings", "replay", &netfilter, "no netfilter under this director");
        return Ok(());
    }
    let mut control = Control::new(&settings(case)?)?;
    for line in &case.setup {
        let output = control.command(line)?;
        if let Some(rule) = refusals::rule(&output.stderr).filter(|_| output.code != 0) {
            findings.meant(rule, "setup", line, "0", output.stderr.trim());
            return Ok(());
        }
        if output.code != 0 {
            bail!("{line}: {} {}", output.code, output.stderr.trim());
        }
    }
    for (at, step) in case.steps.iter().enumerate() {
        let name = format!("step {at}");
        let expected = match step {
            WireStep::Packet(step) => {
                control.lab.moment(STEP_MS);
                let input = unhex(&step.hex)?;
                let out = send(&mut control, step, &input)?;
                compare_out(&mut control, step, &input, &out, &name, findings)?;
                &step.conns
            }
            WireStep::Control(step) => {
                control.lab.moment(STEP_MS);
                let output = control.command(&step.ctl)?;
                findings.check(&name, &step.ctl, &step.rc.to_string(), &output.code.to_string());
                let flushes = case.settings.sysctl.get("expire_nodest_conn").is_some_and(|value| *value != 0);
                if flushes && step.ctl.starts_with("ipvsadm -d ") {
                    let got = control.connections()?;
                    compare_flushed(&step.conns, &got, &name, findings);
                    continue;
                }
                &step.conns
            }
            WireStep::Wait(step) => {
                control.lab.wait((step.wait * 1000.0) as u64);
                &step.conns
            }
        };
        let got = control.connections()?;
        compare_conns(expected, &got, &name, findings);
    }
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    packet::unhex(text).ok_or_else(|| anyhow!("{text:?} is not hexadecimal"))
}

/// The part of a case's settings that hands packets to netfilter's NAT.
fn netfilter(case: &Case) -> Option<String> {
    let nat = case.settings.sh.iter().find(|line| line.contains("tables -t nat "));
    let conntrack = case.settings.sysctl.get("conntrack").filter(|value| **value != 0);
    nat.cloned().or_else(|| conntrack.map(|value| format!("conntrack = {value}")))
}

/// The kernel's settings as the lab's.
fn settings(case: &Case) -> Result<Settings> {
    let mut settings = Settings { sysctl: case.settings.sysctl.clone(), ..Settings::default() };
    for line in &case.settings.sh {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["ip", "link", "set", "ts", "mtu", mtu] => settings.server_mtu = Some(mtu.parse()?),
            ["ip", "link", "set", "tc", "mtu", mtu] => settings.client_mtu = Some(mtu.parse()?),
            ["iptables" | "ip6tables", "-t", "mangle", "-A", "PREROUTING", "-i", "tc", ref rule @ ..] => {
                settings
                    .marks
                    .push(mark(rule).ok_or_else(|| anyhow!("the setting {line:?} is not understood"))?);
            }
            _ => bail!("the setting {line:?} is not understood"),
        }
    }
    Ok(settings)
}

/// A rule that marks packets.
fn mark(mut rule: &[&str]) -> Option<Mark> {
    let mut mark = Mark::default();
    loop {
        match rule {
            ["-j", "MARK", "--set-mark", value] => {
                mark.value = value.parse().ok()?;
                return Some(mark);
            }
            ["-p", protocol, rest @ ..] => (mark.protocol, rule) = (Some((*protocol).to_owned()), rest),
            ["-d", to, rest @ ..] => (mark.destination, rule) = (Some((*to).to_owned()), rest),
            ["-s", from, rest @ ..] => (mark.source, rule) = (Some((*from).to_owned()), rest),
            ["--dport", ports, rest @ ..] => (mark.ports, rule) = (Some(ports.replace(':', "-")), rest),
            _ => return None,
        }
    }
}

/// Which side a packet of a recording came from, and from which station.
fn origin(step: &PacketStep) -> Result<(usize, [u8; 6])> {
    if step.from == "client" {
        return Ok((CLIENTS, gateway()));
    }
    let number = step.from.strip_prefix("rs").and_then(|number| number.parse::<u8>().ok());
    let number = number.ok_or_else(|| anyhow!("{:?} is neither the client nor a server", step.from))?;
    Ok((SERVERS, [2, 0, 0, 0, 1, 10 + number]))
}

fn send(control: &mut Control, step: &PacketStep, input: &[u8]) -> Result<Vec<Out>> {
    let (side, mac) = origin(step)?;
    Ok(control.lab.pass(side, mac, input))
}

fn compare_out(
    control: &mut Control,
    step: &PacketStep,
    input: &[u8],
    out: &[Out],
    name: &str,
    findings: &mut Findings,
) -> Result<()> {
    let (side, _) = origin(step)?;
    if let ([], [expected]) = (out, &step.out[..])
        && side == SERVERS
        && (is_routed(expected, input) || is_routers_error(expected, input))
    {
        findings.meant("not-a-router", name, &step.packet, &expected.packet, "nothing");
        return Ok(());
    }
    if out.len() != step.out.len() {
        let expected: Vec<_> = step.out.iter().map(|out| format!("{} {}", out.to, out.packet)).collect();
        let drops = control.lab.drops();
        let got: Vec<_> = out.iter().map(describe).collect();
        let got = format!("{got:?} (dropped so far: {drops})");
        findings.check(name, &format!("out for {}", step.packet), &format!("{expected:?}"), &got);
        return Ok(());
    }
    for (at, (expected, got)) in step.out.iter().zip(out).enumerate() {
        let name = format!("{name} out {at}");
        findings.check(&name, "to", &expected.to, side_name(got.side));
        findings.check(&name, "mac", &expected.mac, &mac_text(got.mac));
        bytes(expected, got, input, &name, findings)?;
    }
    Ok(())
}

/// Compares bytes; what is random in the kernel as well is compared by its rule.
fn bytes(expected: &OutPacket, got: &Out, input: &[u8], name: &str, findings: &mut Findings) -> Result<()> {
    let mut wanted =
        packet::unhex(&expected.hex).ok_or_else(|| anyhow!("{:?} is not hexadecimal", expected.hex))?;
    let mut packet = got.packet.clone();
    if wanted == packet {
        findings.check(name, &expected.packet, "", "");
        return Ok(());
    }
    let original = (spaced(&wanted), spaced(&packet));
    let masks: [(&str, Mask); 4] = [
        ("echo-in-place", mask_echo),
        ("gue-source-port", mask_source_port),
        ("random-id", mask_id),
        ("flow-label", mask_flow_label),
    ];
    let mut used = Vec::new();
    for (rule, mask) in masks {
        if mask(&mut wanted, &mut packet, input) {
            used.push(rule);
        }
    }
    if wanted == packet {
        for rule in used {
            findings.meant(rule, name, &expected.packet, &original.0, &original.1);
        }
    } else {
        findings.check(name, &expected.packet, &original.0, &original.1);
    }
    Ok(())
}

/// Takes out of the expected packet and ours what is random in it, given the packet that came in. `false`: nothing is.
type Mask = fn(&mut [u8], &mut [u8], &[u8]) -> bool;

/// Rows of 20 bytes: headers stand out.
fn spaced(bytes: &[u8]) -> String {
    bytes.chunks(20).map(packet::hex).collect::<Vec<_>>().join("\n")
}

fn side_name(side: usize) -> &'static str {
    if side == CLIENTS { "clients" } else { "servers" }
}

fn describe(out: &Out) -> String {
    let side = side_name(out.side);
    let kind = Seen::read(&out.packet).map_or_else(|| "not IP".to_owned(), |seen| seen.kind());
    format!("{side} {} {kind} {}", mac_text(out.mac), packet::hex(&out.packet[..out.packet.len().min(60)]))
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What an echo reply keeps of its request: identification and DF, and with them the header's checksum.
fn mask_echo(wanted: &mut [u8], got: &mut [u8], input: &[u8]) -> bool {
    let is = |packet: &[u8], kind: u8| {
        packet.len() >= 28 && packet[0] == 0x45 && packet[9] == 1 && packet[20] == kind
    };
    let reply = is(wanted, 0) && is(got, 0) && is(input, 8);
    let keeps = reply && got[4..8] == input[4..8] && packet::fold(packet::sum(&got[..20])) == 0;
    if keeps {
        for packet in [wanted, got] {
            packet[4..8].fill(0);
            packet[10..12].fill(0);
        }
    }
    keeps
}

/// The identification that the director itself gave: takes it out of both, with the header's checksum, which must
/// have been right. `false`: it is not the director's own, or was to be 0.
fn mask_id(wanted: &mut [u8], got: &mut [u8], input: &[u8]) -> bool {
    let is_v4 = |packet: &[u8]| packet.len() >= 20 && packet[0] == 0x45;
    if !is_v4(wanted) || !is_v4(got) {
        return false;
    }
    let own =
        wanted[4..6] != [0, 0] && wanted[4..6] != got[4..6] && !(is_v4(input) && input[4..6] == wanted[4..6]);
    let right = packet::fold(packet::sum(&got[..20])) == 0;
    if own && right {
        for packet in [wanted, got] {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
    }
    own && right
}

/// GUE's source port, a hash with a secret: takes it out of both. The checksum must have moved along with it.
fn mask_source_port(wanted: &mut [u8], got: &mut [u8], input: &[u8]) -> bool {
    let at = |packet: &[u8]| match packet.first() {
        Some(0x45) if packet[9] == UDP => Some(20),
        Some(first) if first >> 4 == 6 && packet[6] == UDP => Some(40),
        _ => None,
    };
    let (Some(at), true) = (at(wanted), at(wanted) == at(got)) else { return false };
    // a tunnel's header around what came in, not the client's own datagram
    let ends = |packet: &[u8]| match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(12..20).map(<[u8]>::to_vec),
        _ => packet.get(8..40).map(<[u8]>::to_vec),
    };
    let around = |packet: &[u8]| packet::decapsulate(packet).is_some_and(|inner| ends(inner) == ends(input));
    if !around(wanted) || !around(got) || wanted[at..at + 2] == got[at..at + 2] {
        return false;
    }
    let word = |packet: &[u8], at: usize| u32::from(packet[at]) << 8 | u32::from(packet[at + 1]);
    let moved = |packet: &[u8]| packet::fold(word(packet, at) + word(packet, at + 6));
    let sums = word(wanted, at + 6) == 0 && word(got, at + 6) == 0 || moved(wanted) == moved(got);
    // the range of the kernel's udp_flow_src_port: net.ipv4.ip_local_port_range
    let in_range = word(got, at) >= 32768;
    if sums && in_range {
        for packet in [wanted, got] {
            packet[at..at + 2].fill(0);
            packet[at + 6..at + 8].fill(0);
        }
    }
    sums && in_range
}

/// The flow label of an IPv6 packet of the director's own: the kernel draws one per flow, here it is 0.
fn mask_flow_label(wanted: &mut [u8], got: &mut [u8], input: &[u8]) -> bool {
    let label = |packet: &[u8]| {
        let is = packet.len() >= 40 && packet[0] >> 4 == 6;
        is.then(|| [packet[1] & 15, packet[2], packet[3]])
    };
    let (Some(of_kernel), Some(ours)) = (label(wanted), label(got)) else { return false };
    let own = of_kernel != [0; 3] && ours == [0; 3] && label(input) != Some(of_kernel);
    if own {
        wanted[1] &= 0xf0;
        wanted[2..4].fill(0);
    }
    own
}

/// Whether the kernel did no more than route the packet: all is the same but TTL or hop limit, one less, and the
/// header's checksum.
fn is_routed(expected: &OutPacket, input: &[u8]) -> bool {
    let Some(out) = packet::unhex(&expected.hex).filter(|out| out.len() == input.len()) else { return false };
    let (at, sum) = match input.first().map(|first| first >> 4) {
        Some(4) => (8, 10..12),
        Some(6) => (7, 7..7),
        _ => return false,
    };
    let mut routed = input.to_vec();
    routed[at] = routed[at].wrapping_sub(1);
    routed[sum.clone()].copy_from_slice(&out[sum]);
    routed == out
}

/// Whether the kernel told the sender why it could not route its packet.
fn is_routers_error(expected: &OutPacket, input: &[u8]) -> bool {
    let out = packet::unhex(&expected.hex).filter(|_| expected.to == "servers").unwrap_or_default();
    let quotes =
        |(_, _, quoted): (u8, u8, &[u8])| input.starts_with(&quoted[..quoted.len().min(input.len())]);
    Seen::read(&out).and_then(|seen| seen.icmp()).is_some_and(quotes)
}

/// A recorded line: `TCP 192.168.1.2 40000 10.0.0.100 80 10.1.0.11 80 SYN_RECV 60`.
fn conn_text(conn: &Conn) -> (String, u64) {
    let Conn { protocol, client, virtual_, server, state, left } = conn;
    let end = |end: &std::net::SocketAddr| format!("{} {}", end.ip(), end.port());
    (format!("{protocol} {} {} {} {state}", end(client), end(virtual_), end(server)), *left)
}

/// Compares the connections after a server was removed that takes its connections with it: the kernel does so a moment
/// later, out of a work queue.
fn compare_flushed(expected: &[String], got: &[Conn], name: &str, findings: &mut Findings) {
    let rows: Vec<_> = got.iter().map(|conn| conn_text(conn).0).collect();
    let listed =
        |line: &&String| line.rsplit_once(' ').is_some_and(|(row, _)| rows.iter().any(|got| got == row));
    let (still, gone): (Vec<&String>, Vec<&String>) = expected.iter().partition(listed);
    for line in gone {
        findings.meant("flushed-at-once", name, "conns", line, "not listed");
    }
    let still: Vec<String> = still.into_iter().cloned().collect();
    compare_conns(&still, got, name, findings);
}

/// Compares the connections without regard to their order; see the rules in the table for what may differ.
fn compare_conns(expected: &[String], got: &[Conn], name: &str, findings: &mut Findings) {
    let mut got: Vec<_> = got.iter().map(conn_text).collect();
    let mut missing = Vec::new();
    for line in expected {
        let Some((row, left)) =
            line.rsplit_once(' ').and_then(|(row, left)| Some((row, left.parse::<u64>().ok()?)))
        else {
            findings.fault(name, "conns", &format!("{line:?} is not a connection"));
            continue;
        };
        match got.iter().position(|(text, _)| text == row) {
            Some(at) => {
                let (_, ours) = got.swap_remove(at);
                if ours.abs_diff(left) == 1 {
                    findings.meant("second", name, row, &left.to_string(), &ours.to_string());
                } else {
                    findings.check(name, row, &left.to_string(), &ours.to_string());
                }
            }
            None => missing.push((row, left)),
        }
    }
    for (row, left) in missing {
        let flow = |row: &str| row.split(' ').take(5).collect::<Vec<_>>().join(" ");
        let replaced = expected.iter().filter(|line| flow(line) == flow(row)).count() > 1;
        if left == 0 && replaced {
            findings.meant("replaced-connection", name, "conns", &format!("{row} 0"), "not listed");
        } else if left == 0 {
            findings.meant("late-timer", name, "conns", &format!("{row} 0"), "not listed");
        } else {
            findings.check(name, "conns", &format!("{row} {left}"), "not listed");
        }
    }
    for (row, left) in got {
        findings.check(name, "conns", "not listed", &format!("{row} {left}"));
    }
    findings.check(name, "conns", "", "");
}

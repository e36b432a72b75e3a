//! Replays the recordings of the schedulers: every event is packets through the worker.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, anyhow, bail};

use crate::control::Control;
use crate::lab::{CLIENTS, Mark, Out, SERVERS, Settings, gateway, station};
use crate::load::{Conns, Event, Proto, Scenario, Sched, Traffic};
use crate::packet::{self, ACK, FIN, RST, SYN, Seen, Segment};
use crate::report::Findings;

/// Time between two events, ms: errors of the director's own are limited to one a ms.
const EVENT_MS: u64 = 2;

/// Replays a file.
pub fn replay(vectors: &Sched, findings: &mut Findings) {
    for scenario in &vectors.scenarios {
        findings.begin(&scenario.name);
        findings.check("scenario", "scheduler", &vectors.scheduler, &scenario.scheduler);
        let run =
            Run::new(scenario, vectors.deterministic).and_then(|mut run| run.events(scenario, findings));
        if let Err(error) = run {
            findings.fault("scenario", "replay", &format!("{error:#}"));
        }
    }
}

struct Run {
    control: Control,
    /// What the vectors call the servers.
    names: BTreeMap<IpAddr, String>,
    /// Where packets go that name no destination.
    service: Option<SocketAddr>,
    protocol: Proto,
    /// Whether the service is that of a mark.
    marked: bool,
    /// Whether the choice of servers is the recording's, or any that the rules allow.
    exact: bool,
    /// Counts so far, when the choice is free.
    counts: Conns,
}

impl Run {
    fn new(scenario: &Scenario, exact: bool) -> Result<Self> {
        let marks = scenario.fwmark.map(|value| Mark { value, ..Mark::default() }).into_iter().collect();
        let settings = Settings { marks, ..Settings::default() };
        let mut control = Control::new(&settings)?;
        for line in &scenario.setup {
            let output = control.command(line)?;
            if output.code != 0 {
                bail!("{line}: {} {}", output.code, output.stderr.trim());
            }
        }
        let names = scenario.servers.iter().map(|server| (server.addr, server.name.clone())).collect();
        let service = scenario.setup.iter().find_map(|line| virtual_address(line));
        Ok(Self {
            control,
            names,
            service,
            protocol: scenario.proto,
            marked: scenario.fwmark.is_some(),
            exact,
            counts: Conns::new(),
        })
    }

    fn events(&mut self, scenario: &Scenario, findings: &mut Findings) -> Result<()> {
        for (at, event) in scenario.events.iter().enumerate() {
            let step = format!("event {at}");
            self.event(event, &step, findings).with_context(|| step.clone())?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, step: &str, findings: &mut Findings) -> Result<()> {
        self.control.lab.moment(EVENT_MS);
        match event {
            Event::Open(traffic) => self.traffic("open", &[SYN, ACK], traffic, step, findings),
            Event::Syn(traffic) => self.traffic("syn", &[SYN], traffic, step, findings),
            Event::Data(traffic) => self.traffic("data", &[0], traffic, step, findings),
            Event::Close(traffic) => self.traffic("close", &[FIN | ACK], traffic, step, findings),
            Event::Reset(traffic) => self.traffic("reset", &[RST], traffic, step, findings),
            Event::Ctl { cmd, conns } => {
                let output = self.control.command(cmd)?;
                findings.check(step, cmd, "0 ", &format!("{} {}", output.code, output.stderr.trim()));
                if !self.exact {
                    self.counts = self.now()?;
                }
                self.compare(conns, step, cmd, findings)
            }
            Event::Wait { seconds, conns } => {
                self.control.lab.wait((seconds * 1000.0) as u64);
                self.compare(conns, step, "wait", findings)
            }
        }
    }

    fn traffic(
        &mut self,
        op: &str,
        flags: &[u8],
        traffic: &Traffic,
        step: &str,
        findings: &mut Findings,
    ) -> Result<()> {
        let client = socket(&traffic.client)?;
        let dst = match &traffic.dst {
            Some(text) => socket(text)?,
            None => self.service.ok_or_else(|| anyhow!("no destination"))?,
        };
        let mut back = Vec::new();
        let mut server = None;
        for flags in flags {
            let sent = self.send(client, dst, *flags);
            back.extend(sent.iter().filter(|out| out.side == CLIENTS).map(kind));
            let to: Vec<_> =
                sent.iter().filter(|out| out.side == SERVERS).map(|out| self.name(out)).collect();
            match (&to[..], &server) {
                // who is not let in says no more
                ([], None) => break,
                ([], Some(_)) => server = Some("nobody any more".to_owned()),
                ([one], None) => server = Some(one.clone()),
                ([one], Some(before)) if one == before => {}
                (others, _) => server = Some(format!("{others:?}")),
            }
        }
        let back = back.join(", ");
        if let Some(expected) = &traffic.server {
            let nobody = || "nobody".to_owned();
            let expected = expected.clone().unwrap_or_else(nobody);
            let got = server.clone().unwrap_or_else(nobody);
            if self.exact {
                findings.check(step, op, &expected, &got);
            } else {
                // any server that may have it: one with a weight, when the recording found one
                let allowed = self.allowed(&got)? || got == "nobody";
                let got = if !allowed { got } else { (got != "nobody").to_string() };
                findings.check(step, op, &(expected != "nobody").to_string(), &got);
            }
        }
        let expected = traffic.back.as_deref().unwrap_or_default();
        let what = format!("{op}: back");
        if self.marked && dst.is_ipv4() && expected.is_empty() && back == "icmp 3/3" && server.is_none() {
            findings.meant("mark-refusal", step, &what, "nothing", &back);
        } else {
            findings.check(step, &what, expected, &back);
        }
        let Some(conns) = &traffic.conns else { return Ok(()) };
        if self.exact {
            self.compare(conns, step, op, findings)?;
        } else if let Some(counts) = server.and_then(|server| self.counts.get_mut(&server)) {
            counts[0] += 1;
            let expected = std::mem::take(&mut self.counts);
            self.compare(&expected, step, op, findings)?;
            self.counts = expected;
        }
        Ok(())
    }

    /// Whether the rules let this server have a new connection.
    fn allowed(&mut self, server: &str) -> Result<bool> {
        let dests = self.control.dests()?;
        Ok(dests.iter().any(|dest| self.named(dest.address) == server && dest.weight > 0))
    }

    fn send(&mut self, client: SocketAddr, dst: SocketAddr, flags: u8) -> Vec<Out> {
        let (seq, ack) = if flags & SYN != 0 { (1000, 0) } else { (1001, 5001) };
        let packet = match self.protocol {
            Proto::Tcp => packet::tcp(client, dst, Segment { flags, seq, ack, options: &[], data: &[] }),
            Proto::Udp => packet::udp(client, dst, b"x"),
            Proto::Sctp => packet::sctp(client, dst, if flags & SYN != 0 { 1 } else { 0 }),
        };
        self.control.lab.pass(CLIENTS, gateway(), &packet)
    }

    /// Which server a packet went to.
    fn name(&self, out: &Out) -> String {
        let known = self.names.iter().find(|(address, _)| station(SERVERS, **address) == out.mac);
        match (known, out.mac) {
            (Some((_, name)), _) => name.clone(),
            (None, [2, 0, 0, 0, 1, last]) => later(last),
            (None, mac) => format!("station {mac:02x?}"),
        }
    }

    fn named(&self, address: IpAddr) -> String {
        self.names.get(&address).cloned().unwrap_or_else(|| later(station(SERVERS, address)[5]))
    }

    fn now(&mut self) -> Result<Conns> {
        let dests = self.control.dests()?.into_iter();
        Ok(dests.map(|dest| (self.named(dest.address), [dest.active, dest.inactive])).collect())
    }

    fn compare(&mut self, expected: &Conns, step: &str, what: &str, findings: &mut Findings) -> Result<()> {
        let now = self.now()?;
        let (expected, now) = if self.exact || self.counts.is_empty() || what == "open" {
            (format!("{expected:?}"), format!("{now:?}"))
        } else {
            // the names must agree, the counts are another draw's
            (format!("{:?}", expected.keys()), format!("{:?}", now.keys()))
        };
        findings.check(step, &format!("{what}: conns"), &expected, &now);
        Ok(())
    }
}

/// A server that comes later is rsN, as those before it: N + 10 ends its address.
fn later(last: u8) -> String {
    format!("rs{}", last.wrapping_sub(10))
}

/// What came back, in the vectors' words.
fn kind(out: &Out) -> String {
    Seen::read(&out.packet).map_or_else(|| "not IP".to_owned(), |seen| seen.kind())
}

/// `ADDRESS PORT`. The vectors write some IPv6 addresses with a zero in the middle of `::`.
pub fn socket(text: &str) -> Result<SocketAddr> {
    let wrong = || anyhow!("{text:?} is not an address and a port");
    let (address, port) = text.rsplit_once(' ').ok_or_else(wrong)?;
    Ok(SocketAddr::new(address.parse().map_err(|_| wrong())?, port.parse().map_err(|_| wrong())?))
}

/// The address and port of `-t`, `-u` or `--sctp-service` in a command.
fn virtual_address(line: &str) -> Option<SocketAddr> {
    let words: Vec<_> = line.split_whitespace().collect();
    let at = words.iter().position(|word| matches!(*word, "-t" | "-u" | "--sctp-service"))?;
    words.get(at + 1)?.parse().ok()
}

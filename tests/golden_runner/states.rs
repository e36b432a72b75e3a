//! Replays the state tables: every cell is a new connection, brought to its state by the recorded packets.

use std::net::SocketAddr;

use anyhow::{Result, anyhow, bail};

use crate::control::Control;
use crate::lab::{CLIENTS, Out, SERVERS, Settings, gateway, station};
use crate::load::{Forward, Proto, States, Table, Transition};
use crate::packet::{self, ACK, FIN, PSH, RST, SYN, Segment};
use crate::report::Findings;

/// Replays a file.
pub fn replay(vectors: &States, findings: &mut Findings) {
    for table in &vectors.tables {
        let name = format!("{:?} {:?} {:?}", table.proto, table.forward, table.sysctl);
        findings.begin(&name);
        let mut run = match Run::new(table) {
            Ok(run) => run,
            Err(error) => {
                findings.fault("table", "replay", &format!("{error:#}"));
                continue;
            }
        };
        for transition in &table.transitions {
            findings.begin(format!(
                "{name}: {} + {}",
                transition.state.as_deref().unwrap_or("no connection"),
                transition.packet
            ));
            if let Err(error) = run.transition(table, transition, findings) {
                findings.fault("transition", "replay", &format!("{error:#}"));
            }
        }
    }
}

struct Run {
    control: Control,
    client: SocketAddr,
    service: SocketAddr,
    server: SocketAddr,
    forward: Forward,
    protocol: Proto,
}

impl Run {
    fn new(table: &Table) -> Result<Self> {
        let settings = Settings { sysctl: table.sysctl.clone(), ..Settings::default() };
        let mut control = Control::new(&settings)?;
        let protocol = match table.proto {
            Proto::Tcp => "-t",
            Proto::Udp => "-u",
            Proto::Sctp => "--sctp-service",
        };
        let (port, how) = match table.forward {
            Forward::Nat => (8080, "-m"),
            Forward::Dr => (80, "-g"),
            Forward::Tun => (80, "-i"),
        };
        for line in [
            format!("ipvsadm -A {protocol} 10.0.0.100:80 -s rr"),
            format!("ipvsadm -a {protocol} 10.0.0.100:80 -r 10.1.0.11:{port} {how}"),
        ] {
            let output = control.command(&line)?;
            if output.code != 0 {
                bail!("{line}: {} {}", output.code, output.stderr.trim());
            }
        }
        Ok(Self {
            control,
            client: "192.168.1.2:1024".parse()?,
            service: "10.0.0.100:80".parse()?,
            server: format!("10.1.0.11:{port}").parse()?,
            forward: table.forward,
            protocol: table.proto,
        })
    }

    fn transition(&mut self, table: &Table, row: &Transition, findings: &mut Findings) -> Result<()> {
        // a port of its own, so that the cells do not see each other
        self.client.set_port(self.client.port() + 1);
        let from = row.state.as_deref().unwrap_or("None");
        let path = table.paths.get(from).ok_or_else(|| anyhow!("no path leads to {from}"))?;
        for packet in path {
            self.send(packet)?;
        }
        let reached = self.state()?;
        findings.check("path", "state", row.state.as_deref().unwrap_or("no connection"), &reached.0);
        let before = self.counts()?;
        let out = self.send(&row.packet)?;
        let after = self.counts()?;
        let count = |side| out.iter().filter(|out| out.side == side).count().to_string();
        let (state, timer) = self.state()?;
        let next = row.next.as_deref().unwrap_or("no connection");
        findings.check("packet", "next", next, &state);
        // a reading on the other side of a second's end: the recording took its time over this cell
        let late = row.timer.is_some() && row.timer == timer.and_then(|timer| timer.checked_sub(1));
        let text = |timer: Option<u64>| timer.map(|timer| timer.to_string()).unwrap_or_default();
        if late {
            findings.meant("second", "packet", "timer", &text(row.timer), &text(timer));
        } else {
            findings.check("packet", "timer", &text(row.timer), &text(timer));
        }
        findings.check("packet", "d_active", &row.d_active.to_string(), &(after.0 - before.0).to_string());
        let inactive = after.1 - before.1;
        // the connection that was replaced is counted until the kernel's timer takes it away
        if inactive == row.d_inactive - 1 && replaces(row) {
            let (expected, got) = (row.d_inactive.to_string(), inactive.to_string());
            findings.meant("replaced-connection", "packet", "d_inactive", &expected, &got);
        } else if late && row.d_inactive == inactive - 1 {
            // long enough for a connection of an earlier cell to end
            let (expected, got) = (row.d_inactive.to_string(), inactive.to_string());
            findings.meant("ended-meanwhile", "packet", "d_inactive", &expected, &got);
        } else {
            findings.check("packet", "d_inactive", &row.d_inactive.to_string(), &inactive.to_string());
        }
        findings.check("packet", "to_servers", &row.to_servers.to_string(), &count(SERVERS));
        if row.state.is_none() && row.packet.starts_with("out") && row.to_clients == 1 && out.is_empty() {
            findings.meant("not-a-router", "packet", "to_clients", "1", "0");
        } else {
            findings.check("packet", "to_clients", &row.to_clients.to_string(), &count(CLIENTS));
        }
        Ok(())
    }

    fn send(&mut self, text: &str) -> Result<Vec<Out>> {
        let (direction, what) = text.split_once(' ').ok_or_else(|| anyhow!("packet {text:?}"))?;
        let (src, dst, side, mac) = match direction {
            "in" => (self.client, self.service, CLIENTS, gateway()),
            "out" if self.forward == Forward::Nat => {
                (self.server, self.client, SERVERS, station(SERVERS, self.server.ip()))
            }
            _ => bail!("packet {text:?}"),
        };
        let packet = match self.protocol {
            Proto::Tcp => {
                let flags = what.chars().try_fold(0, |flags, c| Some(flags | flag(c)?));
                let flags = flags.ok_or_else(|| anyhow!("packet {text:?}"))?;
                let (seq, ack) = if flags & SYN != 0 { (1000, 0) } else { (1001, 5001) };
                packet::tcp(src, dst, Segment { flags, seq, ack, options: &[], data: &[] })
            }
            Proto::Udp if what == "datagram" => packet::udp(src, dst, b"x"),
            Proto::Sctp => packet::sctp(src, dst, chunk(what).ok_or_else(|| anyhow!("packet {text:?}"))?),
            Proto::Udp => bail!("packet {text:?}"),
        };
        Ok(self.control.lab.pass(side, mac, &packet))
    }

    /// State of the connection and the whole seconds that it has left.
    fn state(&mut self) -> Result<(String, Option<u64>)> {
        let client = self.client;
        let mut conns = self.control.connections()?;
        conns.retain(|conn| conn.client == client);
        Ok(match &conns[..] {
            [] => ("no connection".to_owned(), None),
            [one] => (one.state.clone(), Some(one.left)),
            more => (format!("{} connections", more.len()), None),
        })
    }

    fn counts(&mut self) -> Result<(i64, i64)> {
        let dests = self.control.dests()?;
        let sum = |of: fn(&crate::control::Dest) -> u64| dests.iter().map(of).sum::<u64>() as i64;
        Ok((sum(|dest| dest.active), sum(|dest| dest.inactive)))
    }
}

/// Whether a packet opens a connection in the place of one that is over.
fn replaces(row: &Transition) -> bool {
    let opens = matches!(row.packet.as_str(), "in S" | "in SA" | "in SF" | "in INIT");
    opens && matches!(row.state.as_deref(), Some("TIME_WAIT" | "CLOSE" | "CLOSED"))
}

fn flag(letter: char) -> Option<u8> {
    Some(match letter {
        'S' => SYN,
        'A' => ACK,
        'F' => FIN,
        'R' => RST,
        'P' => PSH,
        _ => return None,
    })
}

/// Chunk types of RFC 9260 section 3.2.
fn chunk(name: &str) -> Option<u8> {
    Some(match name {
        "DATA" => 0,
        "INIT" => 1,
        "INIT_ACK" => 2,
        "SACK" => 3,
        "HEARTBEAT" => 4,
        "HEARTBEAT_ACK" => 5,
        "ABORT" => 6,
        "SHUTDOWN" => 7,
        "SHUTDOWN_ACK" => 8,
        "ERROR" => 9,
        "COOKIE_ECHO" => 10,
        "COOKIE_ACK" => 11,
        "SHUTDOWN_COMPLETE" => 14,
        _ => return None,
    })
}

//! What would become of a packet, in words.

use std::net::{IpAddr, SocketAddr};

use lb_config::{OnServerDown, Protocol, SynProxy};
use lb_dataplane::classify::{How, Lookup};
use lb_dataplane::director::{Director, Entrance, Explanation as Found, Hop, Known, Outcome, Tried};
use lb_dataplane::ids::DestId;
use lb_dataplane::mailbox::ConnRow;
use lb_dataplane::parse::L4;
use lb_dataplane::policy::Answer;
use lb_dataplane::snapshot::Way;
use tokio::sync::oneshot;

use super::{Core, respond, show};
use crate::api::{ApiError, CandidateRow, ErrorKind, ExplainSpec, ExplainedStep, Explanation, Response};

impl Core {
    /// Explains a packet; the reply comes when the workers have looked for its connection.
    pub(super) fn explain(&mut self, spec: &ExplainSpec, reply: oneshot::Sender<Response>, now_ms: u64) {
        match self.packet(spec) {
            Ok(packet) => self.look_for(packet, reply, now_ms),
            Err(error) => respond(reply, Err(error)),
        }
    }

    fn packet(&self, spec: &ExplainSpec) -> Result<Lookup, ApiError> {
        let invalid = |message: String| ApiError::new(ErrorKind::Invalid, message);
        let protocol: Protocol = spec.protocol.parse()?;
        if spec.client.is_ipv4() != spec.vip.is_ipv4() {
            let message = format!("client {} and VIP {} are of different families", spec.client, spec.vip);
            return Err(invalid(message));
        }
        let (device, vlan) = match &spec.port {
            None => self.director.arrival(spec.client.ip()),
            Some(name) => self
                .director
                .port(name)
                .ok_or_else(|| ApiError::new(ErrorKind::NotFound, format!("there is no port {name:?}")))?,
        };
        Ok(Lookup {
            src: spec.client.ip(),
            dst: spec.vip.ip(),
            src_port: spec.client.port(),
            dst_port: spec.vip.port(),
            protocol: L4::from(protocol),
            device,
            vlan,
        })
    }
}

/// The explanation of a packet whose connection, if there is one, is `known`.
pub(super) fn told(director: &Director, packet: &Lookup, known: Option<&ConnRow>) -> Explanation {
    let found = director.explain(packet, known);
    let server = |dest: DestId| {
        if director.is_snat(dest) {
            return Some(SocketAddr::new(packet.dst, packet.dst_port));
        }
        let server = director.server_of(dest)?;
        let port = if server.port == 0 { packet.dst_port } else { server.port };
        Some(SocketAddr::new(server.address, port))
    };
    let name = |dest: DestId| server(dest).map_or_else(|| "a server".to_owned(), |server| server.to_string());
    let mut steps = Vec::new();
    let mut step = |step: &str, text: String| steps.push(ExplainedStep { step: step.to_owned(), text });

    step("arrival", arrival(director, packet, &found));
    if let Some(mark) = found.mark {
        step("mark", format!("{mark}, by the first rule of [[marks]] that matches"));
    }
    step("service", service(&found));
    if let Some(known) = &found.known {
        step("connection", connection(known, &name(known.row.dest)));
    }
    if let Some(text) = found.entrance.and_then(|entrance| let_in(director, &found, entrance, &name)) {
        step("flood", text);
    }
    if let Some((dest, assured, left_ns, holds)) = found.template {
        let state = if assured { "established" } else { "never established" };
        let holds = if holds { "" } else { "; holds no longer: its server was removed or drains" };
        let left_s = left_ns / 1_000_000_000;
        step("template", format!("of its client to {}, {state}, {left_s} s left{holds}", name(dest)));
    }
    if let Outcome::Translated(dest) = found.outcome {
        let rules = director.snat();
        let rule = rules.iter().find(|(_, row)| row.dest == dest).map_or("?", |(name, _)| name.as_str());
        step("snat", format!("{rule}, by source, protocol and port towards the destination"));
    }
    if let Outcome::Scheduled(dest) = found.outcome {
        step("scheduler", format!("{} chooses {}", scheduler(director, &found), name(dest)));
    } else if let Outcome::Hashed(dest) = found.outcome {
        step("scheduler", format!("not asked: a hash of client and port leads to {}", name(dest)));
    } else if !found.candidates.is_empty() {
        step("scheduler", format!("{} finds nobody able", scheduler(director, &found)));
    }
    if let (Some(hop), Some(to)) = (&found.hop, found.outcome.dest().and_then(server)) {
        step("rewrite", rewrite(hop, to, found.known.as_ref()));
        step("next hop", next_hop(hop));
    }
    let (verdict, dropped) = verdict(&found, packet, &name);
    let candidates = found.candidates.iter();
    Explanation {
        verdict,
        server: found.outcome.dest().and_then(server),
        dropped,
        candidates: candidates.filter_map(|tried| candidate(tried, server(tried.dest)?, &found)).collect(),
        steps,
    }
}

fn arrival(director: &Director, packet: &Lookup, found: &Found) -> String {
    let (protocol, src, dst) = (packet.protocol.protocol(), packet.src, packet.dst);
    let (src, dst) = (SocketAddr::new(src, packet.src_port), SocketAddr::new(dst, packet.dst_port));
    let ports = &director.model().ports;
    let named = ports.iter().find(|port| director.port(&port.name) == Some((packet.device, packet.vlan)));
    let port = named.map_or_else(|| "an unknown port".to_owned(), |port| format!("port {}", port.name));
    let first = match packet.protocol {
        L4::Tcp => "SYN",
        L4::Udp => "datagram",
        L4::Sctp => "INIT",
    };
    format!("{protocol} {first} {src} -> {dst} on {port}, owned by worker {}", found.worker.0)
}

fn service(found: &Found) -> String {
    let Some((name, how)) = &found.service else {
        return "none has this address, port and protocol".to_owned();
    };
    let how = match how {
        How::Mark(mark) => format!("by mark {mark}"),
        How::Exact => "by VIP and port".to_owned(),
        How::PortRange => "by a port range of its VIP".to_owned(),
        How::FtpData => "as a data connection of its persistent FTP service".to_owned(),
        How::AnyPort => "as its VIP's service for every port".to_owned(),
        How::Prefix => "by VIP prefix and port range".to_owned(),
    };
    format!("{name}, {how}")
}

fn connection(known: &Known, server: &str) -> String {
    let ConnRow { state, .. } = known.row;
    let then = match (known.anew, known.down) {
        (true, Some(_)) => "; its server was removed or its drain is over: it is scheduled anew",
        (true, None) => "; this packet begins a new one in its place",
        (false, Some(OnServerDown::Drop)) => {
            "; its server was removed or its drain is over: its packets are dropped"
        }
        (false, Some(OnServerDown::Reset)) => {
            "; its server was removed or its drain is over: both ends are reset"
        }
        (false, Some(OnServerDown::Keep | OnServerDown::Reschedule)) => {
            "; its server was removed or its drain is over"
        }
        (false, None) => "",
    };
    let left_s = known.row.expires_ms() / 1000;
    format!("{} to {server}, {left_s} s left{then}", state.name())
}

/// What a new connection meets before a server is chosen for it. `None`: nothing out of the ordinary, and no policy that
/// could make it so.
fn let_in(
    director: &Director,
    found: &Found,
    entrance: Entrance,
    name: &impl Fn(DestId) -> String,
) -> Option<String> {
    let worker = found.worker.0;
    let rows = director.workers();
    let row = rows.get(usize::from(worker))?;
    let flood = format!("SYNs are a flood on worker {worker} ({} handshakes under way)", row.embryonic);
    let cookie = "its client gets a SYN cookie, and what follows is for the ACK that brings it back";
    match entrance {
        Entrance::Proof(SynProxy::Always) => Some(format!("syn_proxy = \"always\": {cookie}")),
        Entrance::Proof(_) => Some(format!("syn_proxy = \"auto\", and {flood}: {cookie}")),
        Entrance::Unconfirmed => {
            Some(format!("{flood}: it goes on without an entry, which its client's ACK begins"))
        }
        Entrance::Full(by_hash) => {
            let (connections, most) = (row.connections, row.max_connections);
            let then = by_hash.map_or_else(
                || "it is dropped (table_full)".to_owned(),
                |dest| format!("it goes without an entry to {}, by a hash of client and port", name(dest)),
            );
            Some(format!(
                "worker {worker} has {connections} of {most} connections: a dispensable one makes room, and if there is none {then}"
            ))
        }
        Entrance::OnePacket => {
            Some("its service keeps no entries: every packet is scheduled anew".to_owned())
        }
        Entrance::Entry => {
            let service = found.service.as_ref().map(|(name, _)| name.as_str());
            let service = director.model().services.iter().find(|own| Some(own.name.as_str()) == service)?;
            let may_ask = service.policy.syn_proxy == Some(SynProxy::Auto);
            may_ask
                .then(|| format!("syn_proxy = \"auto\", and SYNs are no flood on worker {worker}: no cookie"))
        }
    }
}

fn scheduler(director: &Director, found: &Found) -> String {
    let name = found.service.as_ref().map(|(name, _)| name.as_str());
    let service = director.model().services.iter().find(|service| Some(service.name.as_str()) == name);
    service.map_or_else(String::new, |service| {
        let flags = service.scheduler_flags.text(service.scheduler);
        let name = service.scheduler.name();
        if flags.is_empty() { name.to_owned() } else { format!("{name} ({flags})") }
    })
}

fn rewrite(hop: &Hop, to: SocketAddr, known: Option<&Known>) -> String {
    let from = known.filter(|known| !known.anew).and_then(|known| known.row.local);
    let from = from.map_or_else(
        || {
            let addresses: Vec<String> = hop.local.iter().map(ToString::to_string).collect();
            format!("a free port of {}", addresses.join(" or "))
        },
        |end| SocketAddr::from(end).to_string(),
    );
    let what = match (hop.way, hop.tunnel) {
        (Way::Nat, _) => format!("nat: the destination becomes {to}"),
        (Way::FullNat(_), _) => format!("fullnat: the destination becomes {to}, the source {from}"),
        (Way::Snat(_), _) => format!("snat: the source becomes {from}"),
        (Way::Tunnel(_), Some(tunnel)) => format!("tunnel: wrapped as {tunnel} to {}", to.ip()),
        (Way::Tunnel(_), None) => format!("tunnel to {}", to.ip()),
        (Way::Dr, _) => "dr: MAC addresses alone change".to_owned(),
    };
    let mss = hop.mss.map_or_else(String::new, |mss| format!("; MSS of at most {mss}"));
    format!("{what}; packets of at most {} bytes{mss}", hop.mtu)
}

fn next_hop(hop: &Hop) -> String {
    let link = hop.link.as_deref().unwrap_or("?");
    let Some(row) = &hop.neighbor else { return format!("unknown, on port {link}") };
    let mac = row.mac.map_or_else(|| "no MAC address yet".to_owned(), show::mac);
    let (ip, state, own) = (row.ip, row.state.name(), show::mac(hop.mac));
    format!("{ip}, {mac} ({state}), on port {link} from {own}")
}

/// The verdict, and the reason of a drop.
fn verdict(found: &Found, packet: &Lookup, name: &impl Fn(DestId) -> String) -> (String, Option<String>) {
    let proves = matches!(found.entrance, Some(Entrance::Proof(_)));
    match found.outcome {
        Outcome::Persistent(dest) | Outcome::Scheduled(dest) if proves => {
            let (client, to) = (packet.src, name(dest));
            (format!("answered with a SYN cookie; when {client} brings it back, sent to {to}"), None)
        }
        Outcome::Hashed(dest) => (format!("sent to {}, without an entry", name(dest)), None),
        Outcome::Known(dest) => (format!("sent to {}, as all of its connection", name(dest)), None),
        Outcome::Persistent(dest) => (format!("sent to {}, where its client was before", name(dest)), None),
        Outcome::Scheduled(dest) | Outcome::Translated(dest) => (format!("sent to {}", name(dest)), None),
        Outcome::Refused(refusal) => {
            let reason = refusal.reason.name();
            let client: IpAddr = packet.src;
            let resets = found.known.is_some_and(|known| known.down == Some(OnServerDown::Reset));
            let answer = match (refusal.answer, packet.protocol) {
                _ if resets => "it and the server get a reset".to_owned(),
                (Answer::Nothing, _) | (Answer::Reset, L4::Udp) => format!("{client} hears nothing"),
                (Answer::Unreachable, _) => format!("{client} gets ICMP port unreachable"),
                (Answer::Reset, L4::Tcp) => format!("{client} gets a TCP reset"),
                (Answer::Reset, L4::Sctp) => format!("{client} gets an SCTP ABORT"),
                (Answer::Proof(_), _) => format!("{client} gets a SYN cookie"),
            };
            let why = refusal.reason.describe();
            (format!("dropped ({reason}): {why} {answer}"), Some(reason.to_owned()))
        }
    }
}

fn candidate(tried: &Tried, server: SocketAddr, found: &Found) -> Option<CandidateRow> {
    let standing = match tried {
        Tried { dest, .. } if found.outcome.dest() == Some(*dest) => "chosen",
        Tried { weight: 0, .. } => "weight 0",
        Tried { full: true, .. } => "upper threshold reached",
        _ => "able",
    };
    let Tried { weight, active, inactive, .. } = *tried;
    Some(CandidateRow { server, weight, active, inactive, standing: standing.to_owned() })
}

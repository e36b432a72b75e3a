//! Every transition of TCP, UDP and SCTP that was recorded from a Linux 6.1 (`golden/states-*.json`), replayed: by the
//! functions of `state`, all tables; through a worker, the tables of direct routing.
//!
//! Differences that are meant:
//! - A connection that a new one replaces is counted out at once; IPVS counts it until its timer has run.
//! - A server's packet without a connection ends here; the recorded host routed it on.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "path/frames.rs"]
#[allow(dead_code, reason = "shared with the path tests")]
mod frames;
#[path = "path/lab.rs"]
#[allow(dead_code, reason = "shared with the path tests")]
mod lab;

use std::collections::{BTreeMap, HashSet};

use lb_config::{ServiceTimeouts, Timeouts};
use lb_dataplane::conn::Tick;
use lb_dataplane::mailbox::ConnProtocol;
use lb_dataplane::parse::L4;
use lb_dataplane::state::{self, Direction, Event, State, TimeoutTable};
use proptest::prelude::*;
use serde::Deserialize;

const FILES: [&str; 3] = [
    include_str!("../../tests/golden/states-tcp.json"),
    include_str!("../../tests/golden/states-udp.json"),
    include_str!("../../tests/golden/states-sctp.json"),
];

/// Rows of the three files; a file that was cut short is noticed.
const ROWS: usize = 740 + 8 + 1001;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "kernel")]
    _kernel: String,
    tables: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    proto: String,
    forward: String,
    sysctl: BTreeMap<String, u8>,
    /// Packets that lead to each state from nothing.
    paths: BTreeMap<String, Vec<String>>,
    transitions: Vec<Row>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Row {
    state: Option<String>,
    packet: String,
    next: Option<String>,
    timer: Option<u64>,
    d_active: i64,
    d_inactive: i64,
    to_servers: u64,
    to_clients: u64,
}

/// Recorded by accident: the counter's second and the timer's passed while the packet was under way.
fn is_accident(table: &Table, row: &Row) -> bool {
    (&*table.proto, &*table.forward, table.sysctl.len()) == ("sctp", "nat", 1)
        && (row.state.as_deref(), &*row.packet) == (Some("C-REPLIED"), "out INIT_ACK")
        && (row.timer, row.d_inactive) == (Some(60), -1)
}

impl Table {
    fn protocol(&self) -> L4 {
        match &*self.proto {
            "tcp" => L4::Tcp,
            "udp" => L4::Udp,
            "sctp" => L4::Sctp,
            other => panic!("protocol {other}"),
        }
    }

    fn sysctl(&self, name: &str) -> u8 {
        self.sysctl.get(name).copied().unwrap_or(0)
    }

    /// The packets that lead to the state of `row`.
    fn path(&self, row: &Row) -> &[String] {
        &self.paths[row.state.as_deref().unwrap_or("None")]
    }
}

fn tables() -> Vec<Table> {
    let known = ["secure_tcp", "sloppy_tcp", "sloppy_sctp"];
    let files = FILES.iter().map(|text| serde_json::from_str::<File>(text).expect("a file of states"));
    let tables: Vec<Table> = files.flat_map(|file| file.tables).collect();
    assert!(tables.iter().all(|table| table.sysctl.keys().all(|key| known.contains(&key.as_str()))));
    assert_eq!(tables.iter().map(|table| table.transitions.len()).sum::<usize>(), ROWS);
    tables
}

/// Whether a packet is the server's, and the byte that says what it is: TCP's flags, SCTP's chunk.
fn packet(protocol: L4, text: &str) -> (bool, u8) {
    let (way, what) = text.split_once(' ').expect("a way and a packet");
    let outbound = match way {
        "in" => false,
        "out" => true,
        other => panic!("direction {other}"),
    };
    let flag = |letter| match letter {
        'F' => 1,
        'S' => 2,
        'R' => 4,
        'P' => 8,
        'A' => 16,
        other => panic!("flag {other}"),
    };
    let chunk = |name| match name {
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
        other => panic!("chunk {other}"),
    };
    let detail = match protocol {
        L4::Tcp => what.chars().map(flag).sum(),
        L4::Udp => (what == "datagram").then_some(0).expect("a datagram"),
        L4::Sctp => chunk(what),
    };
    (outbound, detail)
}

/// One connection, followed by the functions of `state` alone, as a director with one flow would.
#[derive(Clone, Copy)]
struct Tracked {
    state: State,
    no_output: bool,
}

struct Rules {
    protocol: L4,
    nat: bool,
    dos: bool,
    sloppy: bool,
}

impl Rules {
    fn of(table: &Table) -> Self {
        assert!(["nat", "dr", "tun"].contains(&&*table.forward), "forwarding {}", table.forward);
        Self {
            protocol: table.protocol(),
            nat: table.forward == "nat",
            dos: table.sysctl("secure_tcp") > 1,
            sloppy: table.sysctl("sloppy_tcp") + table.sysctl("sloppy_sctp") > 0,
        }
    }

    /// The connection after a packet, and whether it took another one's place.
    fn pass(&self, known: Option<Tracked>, outbound: bool, event: Event) -> (Option<Tracked>, bool) {
        let over = known.is_some_and(|c| !outbound && event.is_new() && c.state.is_over(c.no_output, 1));
        let Some(mut conn) = known.filter(|_| !over).or_else(|| self.open(outbound, event)) else {
            return (None, over);
        };
        let direction = Direction::of(outbound, &mut conn.no_output);
        conn.state = state::advance(self.protocol, conn.state, direction, event, self.dos);
        (Some(conn), over)
    }

    fn open(&self, outbound: bool, event: Event) -> Option<Tracked> {
        (!outbound && state::opens(self.protocol, event, self.sloppy))
            .then(|| Tracked { state: State::initial(self.protocol), no_output: !self.nat })
    }
}

#[test]
fn the_functions_of_state_do_what_the_kernel_did() {
    let timeouts = TimeoutTable::new(&Timeouts::default(), &ServiceTimeouts::default());
    let (mut replaced, mut accidents, mut faults) = (0, 0, Vec::new());
    for table in tables() {
        let rules = Rules::of(&table);
        for row in &table.transitions {
            let pass = |known, text: &String| {
                let (outbound, detail) = packet(rules.protocol, text);
                rules.pass(known, outbound, state::event(rules.protocol, detail))
            };
            let before = table.path(row).iter().fold(None, |known, text| pass(known, text).0);
            assert_eq!(before.map(|c| c.state.name()), row.state.as_deref(), "the path to {row:?}");
            let (after, over) = pass(before, &row.packet);

            let accident = is_accident(&table, row);
            let timer = after.map(|c| u64::from(timeouts.of(c.state)) / Tick::PER_SECOND);
            let count = |c: Option<Tracked>| {
                let active = c.is_some_and(|c| c.state.is_active());
                (i64::from(active), i64::from(c.is_some() && !active))
            };
            // IPVS still counts what was replaced
            let (was, is) = (if over { (0, 0) } else { count(before) }, count(after));
            let got = (after.map(|c| c.state.name()), timer, is.0 - was.0, is.1 - was.1);
            let row_timer = if accident { Some(61) } else { row.timer };
            let row_inactive = if accident { 0 } else { row.d_inactive };
            let want = (row.next.as_deref(), row_timer, row.d_active, row_inactive);
            let outbound = row.packet.starts_with("out ");
            let passed = (u64::from(!outbound && after.is_some()), u64::from(outbound && after.is_some()));
            let sent = after.is_none() || passed == (row.to_servers, row.to_clients);
            if got != want || !sent || after.is_none() && row.to_servers != 0 {
                faults
                    .push(format!("{} {} {:?}: {row:?}: {got:?}", table.proto, table.forward, table.sysctl));
            }
            replaced += usize::from(over);
            accidents += usize::from(accident);
        }
    }
    assert!(faults.is_empty(), "{} of {ROWS} differ:\n{}", faults.len(), faults.join("\n"));
    // S, SA and SF on TIME_WAIT and CLOSE in seven tables of TCP; INIT on CLOSED in five of SCTP
    assert_eq!((replaced, accidents), (7 * 6 + 5, 1));
}

/// Cells of a table: its rules, the state before, the direction, what the packet says.
type Cells = HashSet<(u8, bool, State, String)>;

impl Rules {
    /// As [`Rules::pass`]; notes the cell that the packet was looked up in.
    fn note(&self, known: Option<Tracked>, text: (bool, u8), cells: &mut Cells) -> Option<Tracked> {
        let (outbound, event) = (text.0, state::event(self.protocol, text.1));
        let (after, over) = self.pass(known, outbound, event);
        if let Some(known) = known.filter(|_| !over) {
            let direction = Direction::of(outbound, &mut known.no_output.clone());
            cells.insert((self.protocol as u8, self.dos, known.state, format!("{direction:?} {event:?}")));
        }
        after
    }
}

/// What the comments on the tables say: no cell that a connection can meet rests on somebody's word alone.
#[test]
fn every_cell_that_a_packet_can_reach_was_recorded() {
    let (mut recorded, mut reachable) = (Cells::new(), Cells::new());
    for table in tables() {
        let rules = Rules::of(&table);
        for row in &table.transitions {
            let pass = |known, text: &String, cells: &mut Cells| {
                rules.note(known, packet(rules.protocol, text), cells)
            };
            let before =
                table.path(row).iter().fold(None, |known, text| pass(known, text, &mut Cells::new()));
            pass(before, &row.packet, &mut recorded);
        }
        // a packet of the server ends the one-sided view, which the recordings of NAT show from its beginning
        let ways: &[bool] = if rules.nat { &[false, true] } else { &[false] };
        let (mut seen, mut todo) = (HashSet::new(), vec![None]);
        while let Some(known) = todo.pop() {
            for (outbound, detail) in ways.iter().flat_map(|way| (0..32).map(|detail| (*way, detail))) {
                // an RST is an RST with SYN too
                if rules.protocol == L4::Tcp && detail & 6 == 6 {
                    continue;
                }
                let after = rules.note(known, (outbound, detail), &mut reachable);
                if let Some(after) = after.filter(|after| seen.insert((after.state, after.no_output))) {
                    todo.push(Some(after));
                }
            }
        }
    }
    let missing: Vec<_> = reachable.difference(&recorded).collect();
    assert!(missing.is_empty(), "{} of {} were not recorded: {missing:?}", missing.len(), reachable.len());
    assert!(recorded.len() > 400, "{} cells", recorded.len());
}

/// A service of each protocol on 192.168.150.100:80, under these policies beside IPVS's own.
fn services(policy: &str) -> String {
    let of = |protocol: &str| {
        format!(
            "[[services]]\nname = \"{protocol}\"\nvip = \"192.168.150.100\"\nport = 80\nprotocol = \"{protocol}\"\n\
             forwarding = \"dr\"\nservers = [{{ address = \"192.168.150.12\" }}]\n"
        )
    };
    format!("[policy]\ncompat = \"ipvs\"\n{policy}\n{}", ["tcp", "udp", "sctp"].map(of).concat())
}

/// Active and inactive connections of one protocol's service.
fn counts(lab: &lab::Lab, name: &str) -> (i64, i64) {
    let services = lab.director.services();
    let dests = &services.iter().find(|service| service.name == name).expect("the service").dests;
    (dests.iter().map(|d| d.active as i64).sum(), dests.iter().map(|d| d.inactive as i64).sum())
}

#[test]
fn a_worker_does_what_the_kernel_did() {
    let (mut port, mut rows, mut faults) = (1000, 0, Vec::new());
    for table in tables().iter().filter(|table| table.forward == "dr") {
        let policy = table.sysctl.iter().map(|(key, value)| match key.as_str() {
            "secure_tcp" => format!("{key} = {value}\n"),
            _ => format!("{key} = {}\n", *value == 1),
        });
        let mut lab = lab::Lab::warm(&services(&policy.collect::<String>()));
        let protocol = table.protocol();
        for row in &table.transitions {
            (port, rows) = (port + 1, rows + 1);
            let frame = |text: &String| {
                let (outbound, detail) = packet(protocol, text);
                assert!(!outbound, "with direct routing the server's packets pass by");
                let payload = match protocol {
                    L4::Tcp => frames::tcp(port, 80, detail, 0),
                    L4::Udp => frames::udp(port, 80, 0),
                    L4::Sctp => frames::sctp(port, 80, detail),
                };
                frames::from_client("192.168.150.1", "192.168.150.100", protocol as u8, &payload)
            };
            for text in table.path(row) {
                lab.pass(&frame(text));
            }
            let before = counts(&lab, &table.proto);
            let sent = lab.pass(&frame(&row.packet));
            let after = counts(&lab, &table.proto);
            let listed = lab.connections().into_iter().find(|listed| listed.client.1 == port);
            let to = |mac: [u8; 6]| sent.iter().filter(|frame| frame[..6] == mac).count() as u64;

            let was = row.state.as_deref();
            let over = match &*row.packet {
                "in S" | "in SA" | "in SF" => matches!(was, Some("TIME_WAIT" | "CLOSE")),
                "in INIT" => was == Some("CLOSED"),
                _ => false,
            };
            let got = (
                listed.as_ref().map(|listed| listed.state.name()),
                listed.as_ref().map(|listed| listed.expires_ms()),
                after.0 - before.0,
                after.1 - before.1 + i64::from(over),
                to(frames::server_mac(12)),
                sent.len() as u64 - to(frames::server_mac(12)),
            );
            let timer = row.timer.map(|seconds| seconds * 1000);
            let want =
                (row.next.as_deref(), timer, row.d_active, row.d_inactive, row.to_servers, row.to_clients);
            if got != want {
                faults.push(format!("{} {row:?}: {got:?}", table.proto));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {rows} differ:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(rows, 364);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 64 }, ..ProptestConfig::default() })]

    /// Packets that nobody recorded, of several connections at once: the worker follows the functions.
    #[test]
    fn a_worker_follows_the_functions(
        packets in prop::collection::vec((prop::sample::select(vec![L4::Tcp, L4::Udp, L4::Sctp]), 0u16..3, 0u8..32), 1..80),
    ) {
        let mut lab = lab::Lab::warm(&services(""));
        let mut model: BTreeMap<(u8, u16), Tracked> = BTreeMap::new();
        for (protocol, port, detail) in packets {
            let payload = match protocol {
                L4::Tcp => frames::tcp(port, 80, detail, 0),
                L4::Udp => frames::udp(port, 80, 0),
                L4::Sctp => frames::sctp(port, 80, detail),
            };
            let frame = frames::from_client("192.168.150.1", "192.168.150.100", protocol as u8, &payload);
            let rules = Rules { protocol, nat: false, dos: false, sloppy: false };
            let key = (protocol as u8, port);
            let (after, _) = rules.pass(model.remove(&key), false, state::event(protocol, detail));
            let server = frames::server_mac(12);
            let sent = lab.pass(&frame).iter().filter(|frame| frame[..6] == server).count();
            prop_assert_eq!(sent, usize::from(after.is_some()), "{:?} {}", protocol, detail);
            model.extend(after.map(|after| (key, after)));
        }
        let listed = lab.connections().into_iter();
        let listed: BTreeMap<_, _> =
            listed.map(|row| ((number(row.protocol), row.client.1), row.state)).collect();
        let wanted: BTreeMap<_, _> = model.iter().map(|(key, tracked)| (*key, tracked.state)).collect();
        prop_assert_eq!(listed, wanted);
        for (name, protocol) in [("tcp", 6), ("udp", 17), ("sctp", 132)] {
            let own = || model.iter().filter(|(key, _)| key.0 == protocol);
            let active = own().filter(|(_, tracked)| tracked.state.is_active()).count() as i64;
            prop_assert_eq!(counts(&lab, name), (active, own().count() as i64 - active));
        }
    }
}

/// IANA's number.
fn number(protocol: ConnProtocol) -> u8 {
    match protocol {
        ConnProtocol::Flow(protocol) => L4::from(protocol) as u8,
        ConnProtocol::Echo => 1,
    }
}

use std::collections::{BTreeMap, HashMap};

use super::*;
use lb_config::{Forwarding, Protocol, ServiceAddress};
use lb_dataplane::sync::{Connection, DestKey, Flags, Owner, Streams};
use proptest::prelude::*;

fn key() -> Key {
    Key::new(b"0123456789abcdef").unwrap()
}

/// Connection `port` of a client, in this state.
fn record(port: u16, state: State) -> Record {
    let vip = std::net::IpAddr::from([10, 0, 0, 100]);
    Record::Connection(Connection {
        protocol: 6,
        client: ([10, 1, 0, 1].into(), port),
        vip: (vip, 80),
        dest: DestKey {
            owner: Owner::Service(ServiceAddress::Vip { vip, port: 80, protocol: Protocol::Tcp }),
            address: [10, 0, 0, 2].into(),
            port: 80,
            forwarding: Forwarding::Dr,
        },
        local: None,
        state,
        flags: Flags::default(),
        left: 160,
        streams: Streams::Alike,
        template: None,
        told_ns: 0,
    })
}

/// What a director knows: state by client port.
type Known = BTreeMap<u16, State>;

/// A director without workers.
struct Node {
    link: Link,
    /// Its own connections.
    own: Known,
    /// What it was told.
    known: Known,
    /// Changes to be told.
    changes: Vec<u16>,
    /// Everything is to be told, from this place on.
    copy: Option<usize>,
    /// Room of its workers in a turn.
    room: usize,
}

impl Node {
    fn new(number: u64) -> Self {
        let (own, known, changes) = (Known::new(), Known::new(), Vec::new());
        Self { link: Link::new(key(), number, 60_000), own, known, changes, copy: None, room: 10_000 }
    }

    fn change(&mut self, port: u16, state: State) {
        self.own.insert(port, state);
        self.changes.push(port);
    }

    /// A turn of its thread. Gives what it sends.
    fn turn(&mut self, now: u64, datagrams: Vec<Vec<u8>>, random: &mut u64) -> Vec<Vec<u8>> {
        let mut out = Out::default();
        for datagram in datagrams {
            *random += 1;
            self.link.hear(now, &datagram, *random, &mut out);
        }
        if std::mem::take(&mut out.copy) {
            self.copy = Some(0);
            self.link.begin_copy(now);
        }
        let (known, mut room) = (&mut self.known, self.room);
        self.link.deliver(|record| {
            let Record::Connection(connection) = record else { return true };
            if room == 0 {
                return false;
            }
            room -= 1;
            known.insert(connection.client.1, connection.state);
            true
        });
        for port in std::mem::take(&mut self.changes) {
            if let Some(state) = self.own.get(&port) {
                self.link.tell(record(port, *state), now);
            }
        }
        if let Some(at) = self.copy
            && self.link.has_room()
        {
            for (port, state) in self.own.iter().skip(at).take(500) {
                self.link.tell(record(*port, *state), now);
            }
            self.copy = Some(at + 500).filter(|at| *at < self.own.len());
            if self.copy.is_none() {
                self.link.end_copy(now);
            }
        }
        *random += 1;
        self.link.tick(now, *random, &mut out);
        out.datagrams
    }
}

/// A network that loses, doubles and delays.
struct Network {
    /// Datagrams to either node, by the turn in which they arrive.
    on_way: [BTreeMap<u64, Vec<Vec<u8>>>; 2],
    chance: u64,
    loss: u64,
    /// Copies of what was sent first.
    recorded: Vec<(usize, Vec<u8>)>,
}

impl Network {
    fn draw(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.chance >> 33) % below
    }

    fn send(&mut self, turn: u64, to: usize, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            let copies = if self.draw(100) < self.loss { 0 } else { 1 + u64::from(self.draw(50) == 0) };
            for _ in 0..copies {
                let delay = 1 + self.draw(4);
                self.on_way[to].entry(turn + delay).or_default().push(datagram.clone());
            }
            if self.recorded.len() < 1000 {
                self.recorded.push((to, datagram));
            }
        }
    }

    fn arrive(&mut self, turn: u64, to: usize) -> Vec<Vec<u8>> {
        let later = self.on_way[to].split_off(&(turn + 1));
        std::mem::replace(&mut self.on_way[to], later).into_values().flatten().collect()
    }
}

struct Lab {
    nodes: [Node; 2],
    network: Network,
    turn: u64,
    random: u64,
}

impl Lab {
    fn new(chance: u64, loss: u64) -> Self {
        let network = Network { on_way: Default::default(), chance, loss, recorded: Vec::new() };
        Self { nodes: [Node::new(11), Node::new(22)], network, turn: 0, random: 1 << 40 }
    }

    fn now(&self) -> u64 {
        self.turn * 1_000_000
    }

    fn turns(&mut self, count: u64) {
        for _ in 0..count {
            self.turn += 1;
            let now = self.now();
            for at in 0..2 {
                let heard = self.network.arrive(self.turn, at);
                let sent = self.nodes[at].turn(now, heard, &mut self.random);
                self.network.send(self.turn, 1 - at, sent);
            }
        }
    }

    /// Whether each knows what the other has.
    fn agree(&self) -> bool {
        let [a, b] = &self.nodes;
        let has =
            |node: &Node, of: &Node| of.own.iter().all(|(port, state)| node.known.get(port) == Some(state));
        has(a, b) && has(b, a)
    }
}

const STATES: [State; 4] = [State::SynRecv, State::Established, State::FinWait, State::Close];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn two_directors_agree_over_a_network_that_loses_doubles_and_delays(
        chance: u64,
        loss in 0u64..40,
        changes in prop::collection::vec((0usize..2, 0u16..400, 0usize..4), 0..1500),
        before in 0u16..3000,
    ) {
        let mut lab = Lab::new(chance, loss);
        // one has connections before they meet
        for port in 0..before {
            lab.nodes[0].own.insert(port, State::Established);
        }
        for part in changes.chunks(7) {
            for (at, port, state) in part {
                // no connection is of both
                lab.nodes[*at].change(10_000 * (*at as u16 + 1) + port, STATES[*state]);
            }
            lab.turns(1);
        }
        lab.turns(6000);
        prop_assert!(lab.agree());
        for node in &lab.nodes {
            prop_assert_eq!(node.link.copying(), Copying::Done);
            prop_assert_eq!(node.link.outgoing().waiting(), 0);
            prop_assert_eq!(node.link.forged, 0);
            // where more is lost chance may take ten hellos in a row, which is a second of silence
            prop_assert!(node.link.sessions == 1 || loss >= 20);
        }
    }
}

#[test]
fn a_director_that_begins_anew_gets_everything() {
    let mut lab = Lab::new(5, 10);
    (0..2000).for_each(|port| lab.nodes[0].change(port, State::Established));
    lab.turns(2000);
    assert!(lab.agree());
    lab.nodes[1] = Node::new(33);
    lab.turns(2000);
    assert!(lab.agree() && lab.nodes[1].known.len() == 2000);
    assert_eq!(lab.nodes[0].link.sessions, 2);
    assert_eq!(lab.nodes[1].link.copying(), Copying::Done);
}

#[test]
fn what_was_told_while_nobody_heard_comes_with_the_next_session() {
    let mut lab = Lab::new(6, 0);
    lab.turns(50);
    assert!(lab.nodes.iter().all(|node| node.link.is_up()));
    lab.network.loss = 100;
    lab.turns(1500);
    assert!(lab.nodes.iter().all(|node| !node.link.is_up() && node.link.copying() == Copying::No));
    (0..500).for_each(|port| lab.nodes[0].change(port, State::Established));
    lab.turns(10);
    lab.network.loss = 0;
    lab.turns(500);
    assert!(lab.agree() && lab.nodes[1].known.len() == 500);
}

#[test]
fn more_than_the_window_while_the_other_is_deaf_is_told_again() {
    let mut lab = Lab::new(7, 0);
    lab.turns(50);
    lab.network.loss = 100;
    // within the time after which a session is given up
    for n in 0..600u32 {
        (0..500).for_each(|port| lab.nodes[0].change(port + 500 * (n % 100) as u16, STATES[n as usize % 4]));
        lab.turns(1);
    }
    let gone = lab.nodes[0].link.outgoing().gone;
    assert!(gone > 0, "the test needs to overrun the window");
    lab.network.loss = 0;
    lab.turns(3000);
    assert_eq!(lab.nodes[0].link.sessions, 1);
    assert!(lab.agree());
    assert!(lab.nodes[1].link.incoming().gone > 0);
    assert_eq!(lab.nodes[1].link.copying(), Copying::Done);
}

#[test]
fn a_director_whose_workers_are_busy_holds_the_other_back() {
    let mut lab = Lab::new(8, 0);
    lab.nodes[1].room = 20;
    (0..20_000).for_each(|port| {
        lab.nodes[0].own.insert(port, State::Established);
    });
    lab.turns(600);
    assert!(!lab.agree() && lab.nodes[1].link.copying() == Copying::Begun);
    lab.turns(1200);
    assert!(lab.agree() && lab.nodes[1].link.copying() == Copying::Done);
    assert_eq!(lab.nodes[0].link.outgoing().gone, 0, "nothing was lost for that");
}

#[test]
fn nothing_that_was_recorded_is_taken_twice() {
    let mut lab = Lab::new(9, 0);
    lab.nodes[0].change(1, State::Established);
    lab.turns(300);
    lab.nodes[0].change(1, State::Close);
    lab.turns(300);
    assert_eq!(lab.nodes[1].known.get(&1), Some(&State::Close));
    // of a session before, and of this one
    lab.nodes[0].link = Link::new(key(), 44, 60_000);
    lab.turns(300);
    let taken = lab.nodes[1].link.taken;
    let sessions = [0, 1].map(|at| lab.nodes[at].link.sessions);
    assert!(lab.network.recorded.len() > 20);
    for (to, datagram) in std::mem::take(&mut lab.network.recorded) {
        let now = lab.now();
        let mut out = Out::default();
        lab.random += 1;
        lab.nodes[to].link.hear(now, &datagram, lab.random, &mut out);
        assert!(!out.copy);
    }
    lab.turns(300);
    assert_eq!(lab.nodes[1].link.taken, taken);
    assert_eq!([0, 1].map(|at| lab.nodes[at].link.sessions), sessions);
    assert_eq!(lab.nodes[1].known.get(&1), Some(&State::Close));
}

#[test]
fn who_does_not_know_the_key_is_not_heard() {
    let mut lab = Lab::new(10, 0);
    lab.nodes[1].link = Link::new(Key::new(b"another key of 26 bytes...").unwrap(), 22, 60_000);
    lab.nodes[0].change(1, State::Established);
    lab.turns(500);
    assert!(lab.nodes.iter().all(|node| !node.link.is_up() && node.link.forged > 0));
    assert!(lab.nodes[1].known.is_empty());
}

#[test]
fn what_lives_on_is_kept_until_it_is_told_again() {
    let mut lab = Lab::new(11, 0);
    lab.turns(100);
    let mut lefts = HashMap::new();
    let mut heard = |lab: &mut Lab, state| {
        let now = lab.now();
        lab.nodes[0].link.tell(record(1, state), now);
        let mut out = Out::default();
        lab.nodes[0].link.tick(now, 1, &mut out);
        let datagrams = std::mem::take(&mut out.datagrams);
        datagrams.iter().for_each(|datagram| lab.nodes[1].link.hear(now, datagram, 2, &mut out));
        lab.nodes[1].link.deliver(|record| {
            let Record::Connection(connection) = record else { return true };
            lefts.insert(state, connection.left);
            true
        });
    };
    heard(&mut lab, State::Established);
    heard(&mut lab, State::FinWait);
    // 60 s more, which are 960 ticks
    assert_eq!(lefts, HashMap::from([(State::Established, 160 + 960), (State::FinWait, 160)]));
}

#[test]
fn the_time_until_records_are_known_is_measured() {
    let mut lab = Lab::new(12, 0);
    lab.turns(100);
    (0..1000).for_each(|port| {
        lab.nodes[0].change(port, State::Established);
        lab.turns(1);
    });
    lab.turns(100);
    let lag = lab.nodes[0].link.outgoing().lag.as_ref().unwrap();
    // each way takes 1 to 4 turns of 1 ms
    assert!(lag.len() >= 1000 && (1000..9000).contains(&lag.value_at_quantile(0.5)), "{lag:?}");
}

//! The SYN proxy: clients prove that they are there, then the halves of their connections fit.

use std::net::{IpAddr, Ipv4Addr};

use lb_dataplane::DropReason;
use lb_dataplane::state::State;
use proptest::prelude::*;

use crate::frames::{ACK, CLIENT, DIRECTOR, FIN, RST, SYN, checksum, ethernet, icmp, ipv4};
use crate::lab::Lab;
use crate::nat::{CIP, RIP, STATION, TWO_ARMS, VIP, resolved};
use crate::stream::{End, Peer, Random, Segment};

/// Options as Linux sends them: MSS 1460, SACK, timestamps, window scale 8.
const LINUX: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 8];

struct World {
    lab: Lab,
    client: End,
    /// As the server knows the client.
    seen: Option<End>,
}

impl World {
    fn new(forwarding: &str, more: &str, workers: u16) -> Self {
        let local = if forwarding == "fullnat" { "local_addresses = [\"10.1.0.1\"]" } else { "" };
        let text = format!(
            "{TWO_ARMS}[[services]]\nname = \"web\"\nvip = \"{VIP}\"\nport = 80\nforwarding = \"{forwarding}\"\n{local}\n\
             servers = [{{ address = \"{RIP}\", port = 8080 }}]\n[services.policy]\nsyn_proxy = \"always\"\n{more}\n[services.timeouts]\n\
             tcp_time_wait = \"1s\"\n"
        );
        Self { lab: resolved(&text, workers), client: (CIP.into(), 1000), seen: None }
    }

    /// IP packets that come out, to the server and to the client.
    fn pass(&mut self, device: u16, from: [u8; 6], packet: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        self.lab.put_on(device, &ethernet(DIRECTOR, from, 0x0800, packet));
        (0..4).for_each(|_| self.lab.turn());
        self.heard()
    }

    /// What has come out since it was last asked.
    fn heard(&mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut to_server, mut to_client) = (vec![], vec![]);
        let frames: Vec<_> = (0..2).flat_map(|device| self.lab.sent_on(device)).collect();
        for frame in frames.into_iter().filter(|frame| frame[12..14] == [8, 0]) {
            match &frame[..6] {
                to if to == STATION => to_server.push(frame[14..].to_vec()),
                to if to == CLIENT => to_client.push(frame[14..].to_vec()),
                _ => {}
            }
        }
        for packet in &to_server {
            let (_, src, dst) = Segment::of(packet);
            assert_eq!((*self.seen.get_or_insert(src), dst), (src, (RIP.into(), 8080)));
        }
        for packet in &to_client {
            let (_, src, dst) = Segment::of(packet);
            assert_eq!((src, dst), ((VIP.into(), 80), self.client));
        }
        (to_server, to_client)
    }

    fn client_sends(&mut self, packet: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        self.pass(0, CLIENT, packet)
    }

    fn server_sends(&mut self, packet: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        self.pass(1, STATION, packet)
    }

    fn client_says(&mut self, segment: &Segment) -> (Vec<Segment>, Vec<Segment>) {
        let (there, back) = self.client_sends(&segment.packet(self.client, (VIP.into(), 80)));
        (segments(&there), segments(&back))
    }

    fn server_says(&mut self, segment: &Segment) -> (Vec<Segment>, Vec<Segment>) {
        let Some(seen) = self.seen else { return (vec![], vec![]) };
        let (there, back) = self.server_sends(&segment.packet((RIP.into(), 8080), seen));
        (segments(&there), segments(&back))
    }

    /// The cookie for a SYN with this number and these options.
    fn cookie(&mut self, number: u32, options: &[u8]) -> u32 {
        let (there, back) = self.client_sends(&with_options(self.client, number, 0, SYN, options));
        assert_eq!((there.len(), back.len()), (0, 1), "{:?}", self.lab.drops());
        let (answer, ..) = Segment::of(&back[0]);
        assert_eq!((answer.flags, answer.ack, answer.window), (SYN | ACK, number.wrapping_add(1), 0));
        answer.seq
    }

    /// A connection that stands; the server's number is 5000 and its options are these. Gives the cookie.
    fn open(&mut self, number: u32, client_options: &[u8], server_options: &[u8]) -> u32 {
        let cookie = self.cookie(number, client_options);
        let (call, none) = self.client_says(&ack(number.wrapping_add(1), cookie.wrapping_add(1), b""));
        assert_eq!((call.len(), none.len(), call[0].flags, call[0].seq), (1, 0, SYN, number));
        let seen = self.seen.expect("the server was called");
        let answer =
            raw((RIP.into(), 8080), seen, (5000, number.wrapping_add(1)), SYN | ACK, 6400, server_options);
        let (there, back) = self.server_sends(&answer);
        let (there, back) = (segments(&there), segments(&back));
        assert_eq!((there.len(), there[0].flags), (1, ACK));
        assert_eq!((there[0].seq, there[0].ack), (number.wrapping_add(1), 5001));
        assert_eq!((back.len(), back[0].flags), (1, ACK));
        assert_eq!((back[0].seq, back[0].ack), (cookie.wrapping_add(1), number.wrapping_add(1)));
        cookie
    }

    fn conserved(&self) {
        let totals = self.lab.director.totals();
        assert_eq!(
            totals.rx + totals.originated,
            totals.tx + totals.delivered + totals.dropped + totals.held
        );
    }
}

fn segments(packets: &[Vec<u8>]) -> Vec<Segment> {
    packets.iter().map(|packet| Segment::of(packet).0).collect()
}

fn ack(seq: u32, ack: u32, data: &[u8]) -> Segment {
    Segment { seq, ack, flags: ACK, window: 500, data: data.to_vec(), ..Segment::default() }
}

fn raw(src: End, dst: End, (seq, ack): (u32, u32), flags: u8, window: u16, options: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (src.0, dst.0) else { panic!("IPv4") };
    let mut tcp = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    tcp.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    tcp.extend([(5 + options.len() as u8 / 4) << 4, flags]);
    tcp.extend(window.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(options);
    let sum = checksum(&crate::nat::pseudo(from, to, 6, &tcp));
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, 6, 64, true, &tcp)
}

fn with_options(client: End, seq: u32, ack: u32, flags: u8, options: &[u8]) -> Vec<u8> {
    raw(client, (VIP.into(), 80), (seq, ack), flags, 64_240, options)
}

fn each(test: impl Fn(World)) {
    for forwarding in ["nat", "fullnat"] {
        for workers in [1, 3] {
            test(World::new(forwarding, "", workers));
        }
    }
}

#[test]
fn a_client_that_proves_itself_is_joined_to_a_server() {
    each(|mut world| {
        let cookie = world.open(999, &LINUX, &[2, 4, 5, 180, 1, 3, 3, 9]);
        let at = |n: u32| cookie.wrapping_add(n);
        // data both ways, with blocks that came early
        let (there, _) =
            world.client_says(&Segment { sack: vec![(at(101), at(201))], ..ack(1000, at(1), b"GET") });
        assert_eq!(there, [Segment { sack: vec![(5101, 5201)], ..ack(1000, 5001, b"GET") }]);
        let told = Segment { sack: vec![(1010, 1020)], window: 100, ..ack(5001, 1003, b"hello") };
        let (_, back) = world.server_says(&told);
        // scale 9 there, 7 here
        assert_eq!(back, [Segment { seq: at(1), window: 400, ..told }]);
        assert_eq!(world.lab.connections()[0].state, State::Established);
        // both ends close
        let (there, _) = world.client_says(&Segment { flags: FIN | ACK, ..ack(1003, at(6), b"") });
        assert_eq!((there[0].flags, there[0].ack), (FIN | ACK, 5006));
        let (_, back) = world.server_says(&Segment { flags: FIN | ACK, ..ack(5006, 1004, b"") });
        assert_eq!((back[0].flags, back[0].seq), (FIN | ACK, at(6)));
        assert_eq!(world.lab.connections()[0].state, State::TimeWait);
        world.lab.wait(3_000);
        assert_eq!(world.lab.connections(), []);
        assert_eq!(world.lab.director.workers().iter().map(|worker| worker.embryonic).sum::<u64>(), 0);
        world.conserved();
        // its place is free for the next
        world.seen = None;
        world.open(70_000, &LINUX, &[]);
    });
}

#[test]
fn nothing_is_kept_and_no_server_hears_of_a_client_that_does_not_prove_itself() {
    each(|mut world| {
        for port in 1000..1500 {
            world.client.1 = port;
            world.cookie(u32::from(port), &LINUX);
        }
        assert_eq!(world.lab.connections(), []);
        // what is no cookie meets what a host without such a connection says
        for wrong in [0, 1, 0x0100_0000] {
            let cookie = world.cookie(77, &[]);
            let (there, back) = world.client_says(&ack(78, cookie.wrapping_add(2 + wrong), b""));
            assert_eq!((there.len(), back[0].flags, back[0].seq), (0, RST, cookie.wrapping_add(2 + wrong)));
        }
        let cookie = world.cookie(77, &[]);
        world.lab.wait(129_000);
        let (there, back) = world.client_says(&ack(78, cookie.wrapping_add(1), b""));
        assert_eq!((there.len(), back.len(), back[0].flags), (0, 1, RST), "a cookie ages");
        let rows = world.lab.director.workers();
        let sum = |of: fn(&lb_dataplane::director::WorkerRow) -> u64| rows.iter().map(of).sum::<u64>();
        assert_eq!((sum(|row| row.cookies_sent), sum(|row| row.cookies_accepted)), (504, 0));
        assert_eq!(sum(|row| row.cookies_refused), 3, "after that none is waited for");
        assert_eq!(world.lab.director.services()[0].dests[0].in_packets, 0);
        world.conserved();
    });
}

#[test]
fn a_server_is_told_what_its_client_offered() {
    let of = |options: &[u8]| {
        let mut world = World::new("nat", "", 1);
        let cookie = world.cookie(999, options);
        let proof = raw(world.client, (VIP.into(), 80), (1000, cookie.wrapping_add(1)), ACK, 502, &[]);
        let (call, _) = world.client_sends(&proof);
        (u16::from_be_bytes([call[0][34], call[0][35]]), call[0][40..].to_vec())
    };
    assert_eq!(of(&LINUX), (u16::MAX, vec![2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 8]));
    assert_eq!(of(&[2, 4, 5, 120, 1, 3, 3, 0]), (502, vec![2, 4, 5, 80, 1, 3, 3, 0]));
    assert_eq!(of(&[]), (502, vec![2, 4, 2, 24]));
}

#[test]
fn a_client_is_told_what_the_link_takes() {
    let of = |more: &str, options: &[u8]| {
        let mut world = World::new("nat", more, 1);
        let (_, back) = world.client_sends(&with_options(world.client, 1, 0, SYN, options));
        back[0][40..].to_vec()
    };
    assert_eq!(of("", &LINUX), [2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7]);
    assert_eq!(of("mss = 1400", &[]), [2, 4, 5, 120]);
}

#[test]
fn windows_are_rescaled_where_the_two_were_told_differently() {
    // the server's scale; what becomes of the client's 500 and the server's 1000
    for (server, there, back) in
        [(Some(7), 500, 1000), (Some(9), 500, 4000), (Some(2), 500, 31), (None, 65_535, 7)]
    {
        let mut world = World::new("fullnat", "", 1);
        let options = server.map_or(vec![], |scale| vec![1, 3, 3, scale]);
        let cookie = world.open(999, &LINUX, &options);
        let (sent, _) = world.client_says(&ack(1000, cookie.wrapping_add(1), b"x"));
        assert_eq!(sent[0].window, there, "{server:?}");
        let (_, sent) = world.server_says(&Segment { window: 1000, ..ack(5001, 1001, b"y") });
        assert_eq!(sent[0].window, back, "{server:?}");
    }
}

#[test]
fn a_server_that_refuses_is_heard() {
    each(|mut world| {
        let cookie = world.cookie(999, &LINUX);
        world.client_says(&ack(1000, cookie.wrapping_add(1), b""));
        let reset = Segment { flags: RST | ACK, ..ack(0, 1000, b"") };
        let (_, back) = world.server_says(&reset);
        assert_eq!(back, [Segment { seq: cookie.wrapping_add(1), ..reset }]);
        assert_eq!(world.lab.connections()[0].state, State::Close);
        world.conserved();
    });
}

#[test]
fn what_is_lost_on_the_way_is_said_again() {
    each(|mut world| {
        let cookie = world.cookie(999, &LINUX);
        let next = cookie.wrapping_add(1);
        let (call, _) = world.client_says(&ack(1000, next, b""));
        // while the server is silent each segment of the client calls it again: a probe of the window, data
        for (seq, data) in [(999, &b""[..]), (1000, b"G"), (1000, b"")] {
            assert_eq!(world.client_says(&ack(seq, next, data)).0, call);
        }
        // an answer of an old connection: reset, and no matter to this one
        let (told, back) = world.server_says(&ack(77, 88, b""));
        assert_eq!((told[0].flags, told[0].seq, back.len()), (RST, 88, 0));
        let answer = Segment { flags: SYN | ACK, ..ack(5000, 1000, b"") };
        world.server_says(&answer);
        // the server did not hear the ACK: its client is asked for another
        let (_, again) = world.server_says(&answer);
        assert_eq!((again[0].flags, again[0].seq), (SYN | ACK, cookie));
        assert_eq!(world.client_says(&ack(1000, next, b"")).0[0].ack, 5001);
        world.conserved();
    });
}

/// Segments, and when they came, ms.
type Timed = Vec<(u64, Segment)>;

/// What comes out by the clock alone for so long: to the server, to the client.
fn by_the_clock(world: &mut World, ms: u64) -> (Timed, Timed) {
    let (begun, mut there, mut back) = (world.lab.now_ms, vec![], vec![]);
    while world.lab.now_ms < begun + ms {
        world.lab.wait(100);
        let (to_server, to_client) = world.heard();
        let now = world.lab.now_ms - begun;
        there.extend(segments(&to_server).into_iter().map(|segment| (now, segment)));
        back.extend(segments(&to_client).into_iter().map(|segment| (now, segment)));
    }
    (there, back)
}

#[test]
fn a_silent_server_is_called_again_and_its_client_hears_of_it_in_the_end() {
    each(|mut world| {
        let cookie = world.cookie(999, &LINUX);
        let next = cookie.wrapping_add(1);
        let (call, _) = world.client_says(&ack(1000, next, b""));
        assert_eq!((call[0].flags, call[0].seq), (SYN, 999));
        let (there, back) = by_the_clock(&mut world, 60_000);
        assert_eq!(there, [1000, 3000, 7000, 15_000].map(|at| (at, call[0].clone())));
        let [(at, reset)] = &back[..] else { panic!("{back:?}") };
        assert_eq!((*at, reset.flags, reset.seq, reset.ack), (31_000, RST | ACK, next, 1000));
        assert_eq!(world.lab.connections(), []);
        let rows = world.lab.director.workers();
        let sum = |of: fn(&lb_dataplane::director::WorkerRow) -> u64| rows.iter().map(of).sum::<u64>();
        assert_eq!((sum(|row| row.calls_repeated), sum(|row| row.calls_given_up)), (4, 1));
        assert_eq!(sum(|row| row.embryonic), 0);
        world.conserved();
    });
}

/// TCP packets that came out on a device, with what is in front of their IP header.
fn framed(lab: &mut Lab, device: usize) -> Vec<(Vec<u8>, Segment)> {
    let mut all = vec![];
    for frame in lab.sent_on(device) {
        let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
        let protocol = match frame[l3 - 2..l3] {
            [8, 0] => frame[l3 + 9],
            [0x86, 0xdd] => frame[l3 + 6],
            _ => continue,
        };
        if protocol == 6 {
            all.push((frame[..l3].to_vec(), Segment::of(&frame[l3..]).0));
        }
    }
    all
}

/// The window is one that is kept to the byte.
#[test]
fn over_ipv6_a_silent_server_is_called_again_and_its_client_reset() {
    let ends = crate::arms::v6();
    let (client, vip) = ((ends.client, 1000), (ends.vip, 80));
    let mut lab = crate::arms::lab_of("tcp", "nat", 1, 1, "policy.syn_proxy = \"always\"");
    let say = |lab: &mut Lab, segment: Segment| {
        lab.put(&ethernet(DIRECTOR, crate::arms::ROUTER, 0x86dd, &segment.packet(client, vip)));
        lab.settle();
    };
    say(&mut lab, Segment { seq: 999, flags: SYN, ..Segment::default() });
    let cookie = framed(&mut lab, 0)[0].1.seq;
    say(&mut lab, Segment { window: 512, ..ack(1000, cookie.wrapping_add(1), b"") });
    let call = framed(&mut lab, 1);
    assert_eq!((call.len(), call[0].1.flags, call[0].1.seq), (1, SYN, 999));
    lab.wait(1000);
    assert_eq!(framed(&mut lab, 1), call);
    lab.wait(30_000);
    assert_eq!(framed(&mut lab, 1), [&call[..], &call, &call].concat());
    let back = framed(&mut lab, 0);
    assert_eq!((back.len(), &back[0].0[..6]), (1, &crate::arms::ROUTER[..]));
    let reset = &back[0].1;
    assert_eq!((reset.flags, reset.seq, reset.ack), (RST | ACK, cookie.wrapping_add(1), 1000));
    assert_eq!(lab.connections(), []);
}

#[test]
fn calls_and_resets_have_the_tags_of_their_networks() {
    let text = r#"
[[ports]]
name = "clients"
device = "null"
vlan = 10
addresses = ["192.168.150.11/24"]
[[ports]]
name = "servers"
device = "null"
vlan = 20
addresses = ["10.1.0.1/24"]
[[services]]
name = "web"
vip = "192.168.150.100"
port = 80
forwarding = "nat"
servers = [{ address = "10.1.0.12", port = 8080 }]
policy.syn_proxy = "always"
"#;
    let mut lab = Lab::of(text, 1);
    let own = crate::frames::arp(2, DIRECTOR, (STATION, RIP.octets()), (DIRECTOR, [10, 1, 0, 1]));
    lab.put(&crate::frames::vlan(20, &own));
    lab.settle();
    lab.clear();
    let say = |lab: &mut Lab, segment: Segment| {
        let packet = segment.packet((CIP.into(), 1000), (VIP.into(), 80));
        lab.put(&crate::frames::vlan(10, &ethernet(DIRECTOR, CLIENT, 0x0800, &packet)));
        lab.settle();
        framed(lab, 0)
    };
    let cookie = say(&mut lab, Segment { seq: 999, flags: SYN, ..Segment::default() })[0].1.seq;
    let call = say(&mut lab, Segment { window: 512, ..ack(1000, cookie.wrapping_add(1), b"") });
    assert_eq!(
        (call.len(), &call[0].0[..6], &call[0].0[12..]),
        (1, &STATION[..], &[0x81, 0, 0, 20, 8, 0][..])
    );
    lab.wait(1000);
    assert_eq!(framed(&mut lab, 0), call);
    lab.wait(14_000);
    framed(&mut lab, 0);
    lab.wait(16_000);
    let back = framed(&mut lab, 0);
    assert_eq!(
        (back.len(), &back[0].0[..6], &back[0].0[12..]),
        (1, &CLIENT[..], &[0x81, 0, 0, 10, 8, 0][..])
    );
    assert_eq!(back[0].1.flags, RST | ACK);
}

#[test]
fn a_server_that_answers_late_is_not_called_any_more() {
    each(|mut world| {
        let cookie = world.cookie(999, &LINUX);
        world.client_says(&ack(1000, cookie.wrapping_add(1), b""));
        assert_eq!(by_the_clock(&mut world, 1500).0.len(), 1);
        let (there, back) = world.server_says(&Segment { flags: SYN | ACK, ..ack(5000, 1000, b"") });
        assert_eq!((there[0].flags, there[0].ack, back.len()), (ACK, 5001, 1));
        // not so long that next hops want to be asked again
        assert_eq!(by_the_clock(&mut world, 16_000), (vec![], vec![]));
        assert_eq!(world.lab.connections()[0].state, State::Established);
        // and one that answers at once never again
        world.client.1 = 1001;
        world.seen = None;
        world.open(70_000, &LINUX, &[]);
        assert_eq!(by_the_clock(&mut world, 5_000), (vec![], vec![]));
        world.conserved();
    });
}

#[test]
fn only_the_latest_call_of_two_ends_is_repeated() {
    each(|mut world| {
        for number in [999, 44_000] {
            world.seen = None;
            let cookie = world.cookie(number, &LINUX);
            world.client_says(&ack(number + 1, cookie.wrapping_add(1), b""));
        }
        let (there, back) = by_the_clock(&mut world, 4_000);
        let numbers: Vec<u32> = there.iter().map(|(_, segment)| segment.seq).collect();
        assert_eq!((numbers, back), (vec![44_000, 44_000], vec![]));
    });
}

#[test]
fn without_buffers_nothing_is_said_and_every_frame_is_counted() {
    let mut world = World::new("nat", "", 1);
    let cookie = world.cookie(999, &LINUX);
    world.client_says(&ack(1000, cookie.wrapping_add(1), b""));
    world.lab.workers[0].io_mut().pool = 0;
    assert_eq!(by_the_clock(&mut world, 40_000), (vec![], vec![]));
    assert_eq!(world.lab.connections(), []);
    assert!(world.lab.dropped(DropReason::NoBuffer) >= 5);
    world.conserved();
}

#[test]
fn a_client_that_begins_anew_proves_itself_anew() {
    each(|mut world| {
        let cookie = world.cookie(999, &LINUX);
        world.client_says(&ack(1000, cookie.wrapping_add(1), b""));
        let other = world.cookie(44_000, &LINUX);
        assert_eq!(world.lab.connections(), []);
        world.seen = None;
        let (call, _) = world.client_says(&ack(44_001, other.wrapping_add(1), b""));
        assert_eq!((call[0].flags, call[0].seq), (SYN, 44_000));
        world.conserved();
    });
}

#[test]
fn errors_about_the_server_s_segments_quote_its_numbers() {
    each(|mut world| {
        let cookie = world.open(999, &LINUX, &LINUX);
        let quoted = ack(cookie.wrapping_add(101), 1000, b"data").packet((VIP.into(), 80), world.client);
        let error = icmp([&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted[..28]].concat());
        let router = Ipv4Addr::new(192, 168, 150, 254);
        world.lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &ipv4(router, VIP, 1, 64, false, &error)));
        world.lab.settle();
        let sent = world.lab.sent_on(1);
        assert_eq!(sent.len(), 1, "{:?}", world.lab.drops());
        let message = &sent[0][34..];
        assert_eq!(checksum(message), 0);
        assert_eq!(message[32..36], 5101_u32.to_be_bytes());
        world.conserved();
    });
}

#[test]
fn a_connection_of_a_removed_server_is_reset_at_the_numbers_that_both_know() {
    let mut world = World::new("nat", "on_server_down = \"reset\"", 1);
    let cookie = world.open(999, &LINUX, &LINUX);
    let text = format!(
        "{TWO_ARMS}[[services]]\nname = \"web\"\nvip = \"{VIP}\"\nport = 80\nforwarding = \"nat\"\n[services.policy]\n\
         syn_proxy = \"always\"\non_server_down = \"reset\"\n"
    );
    world.lab.apply_text(&text);
    world.lab.settle();
    let (there, back) = world.server_says(&ack(5001, 1000, b"late"));
    assert_eq!((back[0].flags & RST, back[0].seq), (RST, cookie.wrapping_add(1)));
    assert_eq!((there[0].flags & RST, there[0].seq), (RST, 1000));
    assert_eq!(world.lab.connections(), []);
}

#[test]
fn without_a_server_or_room_no_client_is_asked_to_wait() {
    let mut world = World::new("nat", "max_connections = 1\non_no_server = \"reset\"", 1);
    world.open(999, &LINUX, &[]);
    world.client.1 = 1001;
    let (_, back) = world.client_sends(&with_options(world.client, 5, 0, SYN, &LINUX));
    assert_eq!(Segment::of(&back[0]).0.flags, RST | ACK);
    assert_eq!(world.lab.dropped(DropReason::ServiceFull), 1);
}

#[test]
fn segments_in_fragments_are_renumbered_too() {
    each(|mut world| {
        let cookie = world.open(999, &LINUX, &LINUX);
        let seen = world.seen.expect("known");
        let segment = ack(5001, 1000, &[9; 600]);
        let (IpAddr::V4(end), server) = (seen.0, (RIP.into(), 8080)) else { panic!("IPv4") };
        let tcp = segment.packet(server, seen).split_off(20);
        let part = |word: u16, part: &[u8]| {
            let mut packet = ipv4(RIP, end, 6, 64, false, part);
            packet[6..8].copy_from_slice(&word.to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        };
        for packet in [part(0x2000, &tcp[..400]), part(50, &tcp[400..])] {
            world.lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &packet));
            world.lab.settle();
        }
        let sent = world.lab.sent_on(0);
        assert_eq!(sent.len(), 2, "{:?}", world.lab.drops());
        let mut whole = ipv4(VIP, CIP, 6, 64, true, &[&sent[0][34..], &sent[1][34..]].concat());
        whole[8] = 63;
        let (joined, ..) = Segment::of(&whole);
        assert_eq!((joined.seq, joined.data), (cookie.wrapping_add(1), vec![9; 600]));
    });
}

/// Sends what one end says, now and then twice or not at all.
fn relay(
    world: &mut World,
    random: &mut Random,
    (client, server): (&mut Peer, &mut Peer),
    first: (bool, Segment),
) {
    let mut under_way = vec![first];
    let mut budget = 40;
    while let Some((from_client, segment)) = under_way.pop() {
        budget -= 1;
        if budget == 0 {
            return;
        }
        if random.percent(10) {
            continue;
        }
        let (there, back) =
            if from_client { world.client_says(&segment) } else { world.server_says(&segment) };
        for segment in there.into_iter().filter(|_| !random.percent(10)).collect::<Vec<_>>() {
            under_way.extend(server.take(&segment, random).map(|answer| (false, answer)));
        }
        for segment in back.into_iter().filter(|_| !random.percent(10)).collect::<Vec<_>>() {
            under_way.extend(client.take(&segment, random).map(|answer| (true, answer)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn streams_arrive_whole_whatever_is_lost(seed: u64, numbers: (u32, u32), full: bool) {
        let mut random = Random(seed);
        let mut world = World::new(if full { "fullnat" } else { "nat" }, "", 1);
        let data = [random.bytes(9000), random.bytes(7000)];
        let mut client = Peer::new(true, numbers.0, data[0].clone(), 500);
        let mut server = Peer::new(false, numbers.1, data[1].clone(), 500);
        (client.given, server.given) = (data[0].len(), data[1].len());
        for _ in 0..4000 {
            if client.is_done() && server.is_done() {
                break;
            }
            let says = match random.below(5) {
                0 => client.poll(&mut random).map(|said| (true, said)),
                1 => server.poll(&mut random).map(|said| (false, said)),
                2 => client.time_out(&mut random).map(|said| (true, said)),
                // a probe of the window
                3 => client.keep_alive(&mut random).map(|said| (true, said)),
                _ => server.time_out(&mut random).map(|said| (false, said)),
            };
            if let Some(says) = says {
                relay(&mut world, &mut random, (&mut client, &mut server), says);
            }
        }
        prop_assert!(client.is_done() && server.is_done(), "{:?}", world.lab.drops());
        prop_assert_eq!(&client.got, &data[1]);
        prop_assert_eq!(&server.got, &data[0]);
        world.conserved();
    }
}

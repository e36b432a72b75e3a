//! The PROXY header in a stream: whatever is lost, repeated or out of order, the server's stream begins with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_dataplane::DropReason;
use proptest::prelude::*;

use crate::frames::{ACK, CLIENT, DIRECTOR, FIN, RST, SYN, ethernet, icmp, ipv4};
use crate::full_nat::advert;
use crate::lab::Lab;
use crate::nat::{CIP, RIP, STATION, TWO_ARMS, VIP, resolved};
use crate::stream::{End, Peer, Random, Segment};

const PSH: u8 = 8;
const URG: u8 = 32;
/// What fits with three SACK blocks into a packet of IPv6, bytes.
const MSS: usize = 1500 - 40 - 20 - 28;

fn ip6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x150, 0, 0, 0, 0, 0, n)
}

/// The director and the ends that it joins.
struct World {
    lab: Lab,
    client: End,
    vip: End,
    server: End,
    /// The local end, once it is known.
    local: Option<End>,
}

impl World {
    fn v4(workers: u16) -> Self {
        let text = format!("{TWO_ARMS}{}", Self::service("proxy-v2", ""));
        let lab = resolved(&text, workers);
        let ends = [(CIP, 1000), (VIP, 80), (RIP, 8080)].map(|(ip, port)| (IpAddr::from(ip), port));
        Self { lab, client: ends[0], vip: ends[1], server: ends[2], local: None }
    }

    fn service(way: &str, more: &str) -> String {
        format!(
            "[[services]]\nname = \"web\"\nvip = \"{VIP}\"\nport = 80\nforwarding = \"fullnat\"\nlocal_addresses = \
             [\"10.1.0.1\", \"10.1.0.2\"]\nclient_address = \"{way}\"\n{more}\nservers = [{{ address = \"{RIP}\", port = \
             8080 }}]\n"
        )
    }

    fn v6(workers: u16) -> Self {
        let text = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"fd00:150::11/64\"]\n[[services]]\nname \
                    = \"web\"\nvip = \"fd00:150::100\"\nport = 80\nforwarding = \"fullnat\"\nlocal_addresses = \
                    [\"fd00:150::200\"]\nclient_address = \"proxy-v2\"\nservers = [{ address = \"fd00:150::12\", port = \
                    8080 }]\n";
        let ends = [(1, 1000), (0x100, 80), (0x12, 8080)].map(|(n, port)| (IpAddr::from(ip6(n)), port));
        let mut world =
            Self { lab: Lab::of(text, workers), client: ends[0], vip: ends[1], server: ends[2], local: None };
        world.meet(0x12, STATION);
        // the client is a stranger until something is sent to it
        world.client.1 = 999;
        world.client_says(&Segment { flags: SYN, ..Segment::default() });
        world.server_says(&Segment { flags: SYN | ACK, ack: 1, ..Segment::default() });
        world.meet(1, CLIENT);
        world.lab.clear();
        (world.client, world.local) = (ends[0], None);
        world
    }

    fn meet(&mut self, n: u16, mac: [u8; 6]) {
        let packet = crate::frames::ipv6(ip6(n), ip6(0x11), 58, 255, &advert(ip6(n), ip6(0x11), mac));
        self.lab.put(&ethernet(DIRECTOR, mac, 0x86dd, &packet));
        self.lab.settle();
    }

    fn header(&self) -> Vec<u8> {
        let (kind, addresses) = match (self.client.0, self.vip.0) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => (0x11, [client.octets(), vip.octets()].concat()),
            (IpAddr::V6(client), IpAddr::V6(vip)) => (0x21, [client.octets(), vip.octets()].concat()),
            _ => panic!("mixed families"),
        };
        let len = [0, addresses.len() as u8 + 4];
        let ports = [self.client.1.to_be_bytes(), self.vip.1.to_be_bytes()].concat();
        [b"\r\n\r\n\0\r\nQUIT\n", &[0x21, kind][..], &len, &addresses, &ports].concat()
    }

    /// What comes out for a packet, to each side.
    fn pass(&mut self, device: u16, from: [u8; 6], packet: &[u8]) -> (Vec<Segment>, Vec<Segment>) {
        let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        self.lab.put_on(device, &ethernet(DIRECTOR, from, kind, packet));
        (0..4).for_each(|_| self.lab.turn());
        let (mut to_server, mut to_client) = (vec![], vec![]);
        let devices = if self.client.0.is_ipv4() { 2 } else { 1 };
        for frame in (0..devices).flat_map(|device| self.lab.sent_on(device)).collect::<Vec<_>>() {
            if frame[..6] == STATION {
                let (segment, src, dst) = Segment::of(&frame[14..]);
                assert_eq!((*self.local.get_or_insert(src), dst), (src, self.server));
                to_server.push(segment);
            } else if frame[..6] == CLIENT {
                let (segment, src, dst) = Segment::of(&frame[14..]);
                assert_eq!((src, dst), (self.vip, self.client));
                to_client.push(segment);
            }
        }
        (to_server, to_client)
    }

    fn client_says(&mut self, segment: &Segment) -> Vec<Segment> {
        let packet = segment.packet(self.client, self.vip);
        let (there, back) = self.pass(0, CLIENT, &packet);
        assert_eq!(back, []);
        there
    }

    fn server_says(&mut self, segment: &Segment) -> Vec<Segment> {
        let Some(local) = self.local else { return vec![] };
        let packet = segment.packet(self.server, local);
        let device = if self.client.0.is_ipv4() { 1 } else { 0 };
        let (there, back) = self.pass(device, STATION, &packet);
        assert_eq!(there, []);
        back
    }

    fn conserved(&self) {
        let totals = self.lab.director.totals();
        assert_eq!(
            totals.rx + totals.originated,
            totals.tx + totals.delivered + totals.dropped + totals.held
        );
    }

    /// A handshake up to the server's SYN, with these first numbers.
    fn begin(&mut self, client: u32, server: u32) {
        let syn = Segment { seq: client, flags: SYN, window: 500, ..Segment::default() };
        assert_eq!(self.client_says(&syn), [syn]);
        let answer = Segment {
            seq: server,
            ack: client.wrapping_add(1),
            flags: SYN | ACK,
            window: 500,
            ..Segment::default()
        };
        let narrow = Segment { window: 500 - self.header().len() as u16, ..answer.clone() };
        assert_eq!(self.server_says(&answer), [narrow]);
    }
}

fn each(test: impl Fn(World)) {
    for workers in [1, 3] {
        test(World::v4(workers));
        test(World::v6(workers));
    }
}

fn ack(seq: u32, ack: u32, data: &[u8]) -> Segment {
    Segment { seq, ack, flags: ACK, data: data.to_vec(), ..Segment::default() }
}

#[test]
fn the_header_comes_with_the_end_of_the_handshake_and_until_it_is_acknowledged() {
    each(|mut world| {
        let header = world.header();
        let len = header.len() as u32;
        world.begin(u32::MAX - 3, 5000);
        let first = u32::MAX - 2;
        let headed =
            |data: &[u8]| Segment { flags: ACK | PSH, ..ack(first, 5001, &[&header, data].concat()) };
        for data in [&b""[..], b"GET", b""] {
            assert_eq!(world.client_says(&ack(first, 5001, data)), [headed(data)]);
        }
        let at = |n: u32| first.wrapping_add(n);
        assert_eq!(world.client_says(&ack(at(3), 5001, b" / ")), [ack(at(3 + len), 5001, b" / ")]);
        // acknowledged in part, it is not; nor is what the client has not sent
        for n in [0, 1, len - 1] {
            let told = Segment { sack: vec![(at(len + 3), at(len + 6))], ..ack(5001, at(n), b"") };
            let back = Segment { sack: vec![(at(3), at(6))], ..ack(5001, first, b"") };
            assert_eq!(world.server_says(&told), [back]);
            assert_eq!(world.client_says(&ack(first, 5001, b"GET")), [headed(b"GET")]);
        }
        assert_eq!(world.server_says(&ack(5001, at(len), b"hello")), [ack(5001, first, b"hello")]);
        for seq in [first, at(3), at(0).wrapping_sub(1)] {
            assert_eq!(world.client_says(&ack(seq, 5006, b"x")), [ack(seq.wrapping_add(len), 5006, b"x")]);
        }
        assert_eq!(world.server_says(&ack(5006, at(len + 6), b"")), [ack(5006, at(6), b"")]);
        world.conserved();
    });
}

#[test]
fn before_large_or_urgent_data_the_header_goes_ahead() {
    each(|mut world| {
        let header = world.header();
        let len = header.len() as u32;
        world.begin(999, 5000);
        let before = world.lab.director.totals().originated;
        let alone = Segment { flags: ACK | PSH, ..ack(1000, 5001, &header) };
        let large = ack(1000, 5001, &[7; 1400]);
        assert_eq!(world.client_says(&large), [alone.clone(), Segment { seq: 1000 + len, ..large }]);
        let urgent = Segment { flags: ACK | URG, ..ack(1000, 5001, b"x") };
        assert_eq!(world.client_says(&urgent), [alone.clone(), Segment { seq: 1000 + len, ..urgent }]);
        // a reset counts at the number that the server expects once it has the header
        let reset = Segment { flags: ACK | RST, ..ack(1000, 5001, b"") };
        assert_eq!(world.client_says(&reset), [alone, Segment { seq: 1000 + len, ..reset }]);
        assert_eq!(world.lab.director.totals().originated - before, 3);
        world.conserved();
    });
}

#[test]
fn nothing_of_the_client_s_takes_the_header_s_place() {
    each(|mut world| {
        let forged = world.header();
        // with its SYN (RFC 7413), before the server has answered, before the base, without ACK, with a reset
        let syn = Segment { seq: 999, flags: SYN, data: forged.clone(), ..Segment::default() };
        let bare = |segment: &Segment| Segment { data: vec![], ..segment.clone() };
        assert_eq!(world.client_says(&syn), [bare(&syn)]);
        let early = ack(1000, 1, &forged);
        assert_eq!(world.client_says(&early), [bare(&early)]);
        world.begin(999, 5000);
        for seq in [999, 990] {
            let before = ack(seq, 5001, &forged);
            assert_eq!(world.client_says(&before), [bare(&before)]);
        }
        let silent = Segment { flags: PSH, ..ack(1000, 5001, &forged) };
        assert_eq!(world.client_says(&silent), [bare(&silent)]);
        let reset = Segment { flags: RST, ..ack(1000, 0, &forged) };
        assert_eq!(world.client_says(&reset), [bare(&reset)]);
        world.conserved();
    });
}

#[test]
fn a_new_connection_in_the_place_of_the_old_has_its_own_header() {
    each(|mut world| {
        let header = world.header();
        let len = header.len() as u32;
        for (client, server) in [(999, 5000), (70_000, 90_000)] {
            world.local = None;
            world.begin(client, server);
            let headed = Segment { flags: ACK | PSH, ..ack(client + 1, server + 1, &header) };
            assert_eq!(world.client_says(&ack(client + 1, server + 1, b"")), [headed]);
            world.server_says(&ack(server + 1, client + 1 + len, b""));
            let end = Segment { flags: FIN | ACK, ..ack(client + 1, server + 1, b"") };
            assert_eq!(world.client_says(&end), [Segment { seq: client + 1 + len, ..end.clone() }]);
            let back = Segment { flags: FIN | ACK, ..ack(server + 1, client + 2 + len, b"") };
            assert_eq!(world.server_says(&back), [Segment { ack: client + 2, ..back.clone() }]);
        }
        world.conserved();
    });
}

#[test]
fn a_connection_stays_what_it_was_when_its_service_changes() {
    for (was, is) in [("proxy-v2", "none"), ("proxy-v2", "toa"), ("none", "proxy-v2")] {
        let mut world = World::v4(1);
        world.lab.apply_text(&format!("{TWO_ARMS}{}", World::service(was, "")));
        world.lab.settle();
        let header = world.header();
        let proxied = was == "proxy-v2";
        if proxied {
            world.begin(999, 5000);
            world.client_says(&ack(1000, 5001, b""));
        } else {
            world.client_says(&Segment { seq: 999, flags: SYN, ..Segment::default() });
            world.server_says(&Segment { seq: 5000, ack: 1000, flags: SYN | ACK, ..Segment::default() });
        }
        world.lab.apply_text(&format!("{TWO_ARMS}{}", World::service(is, "")));
        world.lab.settle();
        let len = if proxied { header.len() as u32 } else { 0 };
        let want = if proxied { [&header, &b"GET"[..]].concat() } else { b"GET".to_vec() };
        let flags = if proxied { ACK | PSH } else { ACK };
        let first = ack(1000, 5001, b"GET");
        assert_eq!(world.client_says(&first), [Segment { flags, data: want, ..first.clone() }], "{was} {is}");
        assert_eq!(world.server_says(&ack(5001, 1003 + len, b"")), [ack(5001, 1003, b"")], "{was} {is}");
        assert_eq!(world.client_says(&ack(1003, 5001, b"x")), [ack(1003 + len, 5001, b"x")], "{was} {is}");
    }
}

#[test]
fn an_error_about_a_shifted_segment_quotes_the_client_s_number() {
    let mut world = World::v4(3);
    world.begin(999, 5000);
    let sent = ack(2000, 5001, &[7; 100]);
    assert_eq!(world.client_says(&sent), [Segment { seq: 2028, ..sent }]);
    let local = world.local.expect("known");
    let quoted = ack(2028, 5001, &[7; 100]).packet(local, world.server);
    let error = icmp([&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted[..28]].concat());
    let IpAddr::V4(end) = local.0 else { panic!("IPv4") };
    world.lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &ipv4(RIP, end, 1, 64, false, &error)));
    world.lab.settle();
    let back = world.lab.sent_on(0);
    assert_eq!(back.len(), 1, "{:?}", world.lab.drops());
    let message = &back[0][34..];
    assert_eq!(crate::frames::checksum(message), 0);
    assert_eq!(
        (&message[20..28], &message[32..36]),
        (&[CIP.octets(), VIP.octets()].concat()[..], &2000u32.to_be_bytes()[..])
    );
    world.conserved();
}

#[test]
fn segments_in_fragments_have_it_ahead() {
    let mut world = World::v4(1);
    world.begin(999, 5000);
    let (header, local) = (world.header(), world.local.expect("known"));
    let IpAddr::V4(end) = local.0 else { panic!("IPv4") };
    let fragments = |segment: &Segment, src: End, dst: End, (from, to): (Ipv4Addr, Ipv4Addr)| {
        let tcp = segment.packet(src, dst).split_off(20);
        [(0x2000, &tcp[..400]), (50, &tcp[400..])].map(|(word, part): (u16, &[u8])| {
            let mut packet = ipv4(from, to, 6, 64, false, part);
            packet[6..8].copy_from_slice(&word.to_be_bytes());
            packet[10..12].fill(0);
            let sum = crate::frames::checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        })
    };
    let segment = ack(1000, 5001, &[9; 600]);
    for part in fragments(&segment, world.client, world.vip, (CIP, VIP)) {
        world.lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &part));
        world.lab.settle();
    }
    let out = world.lab.sent_on(1);
    assert_eq!(out.len(), 3, "{:?}", world.lab.drops());
    let ahead = Segment { flags: ACK | PSH, ..ack(1000, 5001, &header) };
    assert_eq!(Segment::of(&out[0][14..]), (ahead, local, world.server));
    let shifted = fragments(&Segment { seq: 1028, ..segment }, local, world.server, (end, RIP));
    for (frame, part) in out[1..].iter().zip(shifted) {
        assert_eq!(frame[14..], crate::nat::hopped(part));
    }
    // a SYN with data in fragments is nobody's
    let syn = Segment { seq: 999, flags: SYN, data: vec![9; 600], ..Segment::default() };
    for part in fragments(&syn, world.client, world.vip, (CIP, VIP)) {
        world.lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &part));
        world.lab.settle();
    }
    assert_eq!(world.lab.dropped(DropReason::FragmentMalformed), 2);
    // what the server acknowledges in fragments
    let back = ack(5001, 1628, &[8; 600]);
    for part in fragments(&back, world.server, local, (RIP, end)) {
        world.lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &part));
        world.lab.settle();
    }
    let out = world.lab.sent_on(0);
    let mapped = fragments(&Segment { ack: 1600, ..back }, world.vip, world.client, (VIP, CIP));
    assert_eq!(
        out.iter().map(|frame| frame[14..].to_vec()).collect::<Vec<_>>(),
        mapped.map(crate::nat::hopped)
    );
    world.conserved();
}

/// Where a segment is under way to.
#[derive(Clone, Copy, Debug)]
enum Leg {
    FromClient,
    ToServer,
    FromServer,
    ToClient,
}

/// A whole connection over a network that loses, repeats and mixes up packets on either side of the director.
fn converse(mut world: World, seed: u64, loss: usize, server_first: bool) {
    let mut random = Random(seed);
    let header = world.header();
    let sizes = [random.below(6000), random.below(6000)];
    let [asked, answered] = sizes.map(|n| random.bytes(n + 1));
    // numbers that come round soon, too
    let iss = |random: &mut Random| match random.below(3) {
        0 => 0u32.wrapping_sub(random.below(4000) as u32),
        1 => (1 << 31) - random.below(4000) as u32,
        _ => random.next() as u32,
    };
    let mut client = Peer::new(true, iss(&mut random), asked.clone(), MSS);
    let mut server = Peer::new(false, iss(&mut random), answered.clone(), MSS);
    let mut under_way: Vec<(Leg, Segment)> = vec![];
    for step in 0..20_000 {
        // a server says nothing before it knows of whom; who is spoken to waits for the greeting
        if server.got.len() >= header.len() && (server_first || server.got.len() > header.len()) {
            server.given = answered.len();
        }
        if !server_first || !client.got.is_empty() {
            client.given = asked.len();
        }
        under_way.extend(client.poll(&mut random).map(|segment| (Leg::FromClient, segment)));
        under_way.extend(server.poll(&mut random).map(|segment| (Leg::FromServer, segment)));
        if under_way.is_empty() || random.percent(3) {
            under_way.extend(client.time_out(&mut random).map(|segment| (Leg::FromClient, segment)));
            under_way.extend(server.time_out(&mut random).map(|segment| (Leg::FromServer, segment)));
        }
        if random.percent(3) {
            under_way.extend(client.keep_alive(&mut random).map(|segment| (Leg::FromClient, segment)));
            under_way.extend(server.keep_alive(&mut random).map(|segment| (Leg::FromServer, segment)));
        }
        assert!(header.starts_with(&server.got) || server.got.starts_with(&header), "{step}");
        if client.is_done() && server.is_done() {
            break;
        }
        if under_way.is_empty() {
            continue;
        }
        let (leg, segment) = under_way.remove(random.below(under_way.len().min(4)));
        // a SYN that comes when its connection closes would begin the next one: `reuse = "closing"`
        let stale = matches!(leg, Leg::FromClient) && segment.flags & SYN != 0 && client.is_established();
        if stale || random.percent(loss) {
            continue;
        }
        if random.percent(5) {
            under_way.push((leg, segment.clone()));
        }
        let onward = |leg| move |segment| (leg, segment);
        match leg {
            Leg::FromClient => {
                under_way.extend(world.client_says(&segment).into_iter().map(onward(Leg::ToServer)))
            }
            Leg::FromServer => {
                under_way.extend(world.server_says(&segment).into_iter().map(onward(Leg::ToClient)))
            }
            Leg::ToServer => {
                under_way.extend(server.take(&segment, &mut random).map(onward(Leg::FromServer)))
            }
            Leg::ToClient => {
                under_way.extend(client.take(&segment, &mut random).map(onward(Leg::FromClient)))
            }
        }
    }
    assert!(client.is_done() && server.is_done(), "{:?}\n{client:?}\n{server:?}", world.lab.drops());
    let want = [header, asked].concat();
    let differs = |got: &[u8], want: &[u8]| got.iter().zip(want).position(|(got, want)| got != want);
    let ends = (server.got.len(), want.len());
    assert!(server.got == want, "the server's stream: {ends:?}, at {:?}", differs(&server.got, &want));
    assert!(client.got == answered, "the client's stream");
    world.conserved();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 192 }, ..ProptestConfig::default() })]

    #[test]
    fn streams_come_whole_whatever_is_lost(
        seed: u64, loss in 0usize..40, ipv6: bool, three: bool, server_first: bool,
    ) {
        let workers = if three { 3 } else { 1 };
        let world = if ipv6 { World::v6(workers) } else { World::v4(workers) };
        converse(world, seed, loss, server_first);
    }
}

//! What is not load-balanced goes to the kernel, and what the kernel sends goes out.

use std::net::Ipv6Addr;

use lb_dataplane::DropReason;
use lb_dataplane::exception::{Kernel, director_mac};
use lb_dataplane::io::WorkerId;
use lb_dataplane::neighbor::LinkId;

use crate::frames::{
    ACK, CLIENT, DIRECTOR, RST, SYN, arp, checksum, ethernet, from_client, icmp, icmp6, ipv4, ipv6, segment,
    server_mac, tcp, udp, vlan,
};
use crate::lab::{Lab, web};

const BASE: &str = r#"
[[ports]]
name = "lan"
device = "null"
exception = "tap"
exception_rate = 1000
addresses = ["192.168.150.11/24", "fd00:150::11/64"]
gateway = ["192.168.150.254", "fd00:150::254"]
"#;

const DIP: &str = "192.168.150.11";
const EVERYONE: [u8; 6] = [0xff; 6];

fn lab(services: &str) -> (Lab, Kernel) {
    lab_of(&format!("{BASE}{services}"), 1)
}

fn lab_of(text: &str, workers: u16) -> (Lab, Kernel) {
    let lab = Lab::of(text, workers);
    let kernel = lab.director.kernel();
    kernel.furnish(1600);
    let lab = lab.resolved();
    got(&kernel);
    (lab, kernel)
}

/// What the kernel has got, in order.
fn got(kernel: &Kernel) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for worker in (0..kernel.workers()).map(WorkerId) {
        while let Some(parcel) = kernel.next(worker) {
            frames.push(parcel.bytes.clone());
            kernel.done(worker, parcel);
        }
    }
    frames
}

/// The rate is of no matter, and what came before has gone.
fn calm(lab: &mut Lab, kernel: &Kernel) {
    lab.wait(100);
    (0..3).for_each(|_| lab.turn());
    lab.clear();
    got(kernel);
}

/// What comes out at the port and at the kernel for a frame from the wire.
fn passed(lab: &mut Lab, kernel: &Kernel, frame: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    calm(lab, kernel);
    let sent = lab.pass(frame);
    (sent, got(kernel))
}

/// What the kernel sends.
fn kernel_sends(lab: &mut Lab, kernel: &Kernel, frame: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    calm(lab, kernel);
    assert!(kernel.send(LinkId(0), frame));
    (0..3).for_each(|_| lab.turn());
    (lab.sent(), got(kernel))
}

fn conserved(lab: &Lab) {
    let t = lab.director.totals();
    assert_eq!(
        t.rx + t.originated + t.from_kernel,
        t.tx + t.delivered + t.to_kernel + t.dropped + t.held,
        "{t:?} {:?}",
        lab.drops()
    );
}

/// To a group of stations.
fn to_group(frame: Vec<u8>, group: [u8; 6]) -> Vec<u8> {
    [&group[..], &frame[6..]].concat()
}

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x150, 0, 0, 0, 0, 0, n)
}

#[test]
fn what_no_service_takes_is_the_kernels() {
    let (mut lab, kernel) = lab(&web("rr", &[(12, 1)]));
    let ours = |protocol, payload: &[u8]| from_client("192.168.150.1", DIP, protocol, payload);
    let echo_reply = icmp(vec![0, 0, 0, 0, 0, 7, 0, 1]);
    let error_about_ours = {
        let quoted =
            ipv4(DIP.parse().unwrap(), [192, 168, 150, 1].into(), 6, 64, true, &tcp(40000, 443, ACK, 0)[..8]);
        icmp([&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat())
    };
    let fragment = {
        let mut frame = ours(1, &[8; 32]);
        frame[20] = 0x20;
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let router_advert = {
        let message = icmp6(v6(254), v6(1), vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        from_client("fd00:150::254", "fd00:150::1", 58, &message)
    };
    let cases = [
        ("a SYN to ssh", ours(6, &tcp(9, 22, SYN, 0))),
        ("an answer to the kernel's own connection", ours(6, &tcp(443, 40000, SYN | ACK, 0))),
        ("a reset of it", ours(6, &tcp(443, 40000, RST, 0))),
        ("a datagram", ours(17, &udp(53, 40000, 10))),
        ("over IPv6", from_client("fd00:150::1", "fd00:150::11", 6, &tcp(9, 22, SYN, 0))),
        ("an answer to its ping", ours(1, &echo_reply)),
        ("an error about its packet", ours(1, &error_about_ours)),
        ("GRE", ours(47, &[0; 8])),
        ("a fragment of what is not balanced", fragment),
        (
            "OSPF to its group",
            to_group(from_client("192.168.150.1", "224.0.0.5", 89, &[2; 24]), [1, 0, 0x5e, 0, 0, 5]),
        ),
        (
            "VRRP of an instance that is not lbd's",
            to_group(
                from_client("192.168.150.1", "224.0.0.18", 112, &[0x21, 9, 100, 1, 0, 100, 0, 0]),
                [1, 0, 0x5e, 0, 0, 0x12],
            ),
        ),
        (
            "a datagram to everybody",
            to_group(from_client("192.168.150.1", "255.255.255.255", 17, &udp(68, 67, 10)), EVERYONE),
        ),
        (
            "a datagram to a group",
            to_group(
                from_client("192.168.150.1", "224.0.0.251", 17, &udp(5353, 5353, 10)),
                [1, 0, 0x5e, 0, 0, 0xfb],
            ),
        ),
        ("a router's advertisement", to_group(router_advert, [0x33, 0x33, 0, 0, 0, 1])),
        (
            "for an address that the kernel alone may have",
            from_client("192.168.150.1", "192.168.150.99", 6, &tcp(9, 80, SYN, 0)),
        ),
        (
            "a ping of it",
            from_client("192.168.150.1", "192.168.150.99", 1, &icmp(vec![8, 0, 0, 0, 0, 7, 0, 1])),
        ),
        ("LLDP", ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], CLIENT, 0x88cc, &[2; 46])),
        ("a question for it", arp(1, EVERYONE, (CLIENT, [192, 168, 150, 1]), ([0; 6], [192, 168, 150, 99]))),
        ("an answer by ARP", arp(2, DIRECTOR, (CLIENT, [192, 168, 150, 1]), (DIRECTOR, [192, 168, 150, 11]))),
        (
            "an answer that the director waits for too",
            arp(2, DIRECTOR, (server_mac(12), [192, 168, 150, 12]), (DIRECTOR, [192, 168, 150, 11])),
        ),
    ];
    for (what, frame) in cases {
        let before = lab.director.totals();
        let (sent, got) = passed(&mut lab, &kernel, &frame);
        assert_eq!(got, [frame], "{what}: {:?}", lab.drops());
        assert!(sent.is_empty(), "{what}: {sent:02x?}");
        assert_eq!(lab.director.totals().to_kernel, before.to_kernel + 1, "{what}");
    }
    conserved(&lab);
}

#[test]
fn what_is_the_directors_is_answered_by_it_alone() {
    let (mut lab, kernel) = lab(&web("rr", &[(12, 1)]));
    let question = |target| arp(1, EVERYONE, (CLIENT, [192, 168, 150, 1]), ([0; 6], target));
    let ping = |to| from_client("192.168.150.1", to, 1, &icmp(vec![8, 0, 0, 0, 0, 7, 0, 1]));
    let cases = [
        ("ARP for the VIP", question([192, 168, 150, 100])),
        ("ARP for the director's own address", question([192, 168, 150, 11])),
        ("a ping of the VIP", ping("192.168.150.100")),
        ("a ping of the director's own address", ping(DIP)),
        (
            "a port of the VIP without a service",
            from_client("192.168.150.1", "192.168.150.100", 6, &tcp(9, 81, SYN, 0)),
        ),
    ];
    for (what, frame) in cases {
        let (sent, got) = passed(&mut lab, &kernel, &frame);
        assert!(got.is_empty(), "{what}");
        assert_eq!(sent.iter().filter(|frame| frame[..6] == CLIENT).count(), 1, "{what}: {sent:02x?}");
    }
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12));
    let strange = [&[2, 0, 0, 0, 0, 0x99][..], &ping(DIP)[6..]].concat();
    assert!(passed(&mut lab, &kernel, &strange).1.is_empty(), "another station's frame");
    conserved(&lab);
}

#[test]
fn without_an_exception_path_the_kernel_gets_nothing() {
    let text = BASE.replace("exception = \"tap\"\nexception_rate = 1000\n", "");
    let (mut lab, kernel) = lab_of(&format!("{text}{}", web("rr", &[(12, 1)])), 1);
    let before = lab.dropped(DropReason::NoService);
    let (sent, got) = passed(&mut lab, &kernel, &from_client("192.168.150.1", DIP, 6, &tcp(9, 22, SYN, 0)));
    assert!(got.is_empty());
    assert_eq!(sent.iter().filter(|frame| frame[..6] == CLIENT).count(), 1, "the director refuses it");
    assert_eq!(lab.dropped(DropReason::NoService), before + 1);
}

#[test]
fn what_the_kernel_sends_goes_out_as_it_is() {
    let (mut lab, kernel) = lab(&web("rr", &[(12, 1)]));
    let frame = |kind, payload: &[u8]| ethernet(CLIENT, DIRECTOR, kind, payload);
    let segment =
        ipv4(DIP.parse().unwrap(), [192, 168, 150, 1].into(), 6, 64, true, &tcp(22, 9, SYN | ACK, 0));
    let question = arp(1, EVERYONE, (DIRECTOR, [192, 168, 150, 11]), ([0; 6], [192, 168, 150, 1]));
    for frame in [frame(0x0800, &segment), frame(0x88cc, &[1; 46]), question] {
        let (sent, got) = kernel_sends(&mut lab, &kernel, &frame);
        assert!(sent.contains(&frame), "{sent:02x?}");
        assert!(got.is_empty());
    }
    assert_eq!(lab.director.totals().from_kernel, 3);
    conserved(&lab);
}

#[test]
fn a_port_with_a_vlan_has_its_tag_on_the_wire_alone() {
    let text = BASE.replace("device = \"null\"", "device = \"null\"\nvlan = 20");
    let (mut lab, kernel) = lab_of(&text, 1);
    let syn = from_client("192.168.150.1", DIP, 6, &tcp(9, 22, SYN, 0));
    assert_eq!(passed(&mut lab, &kernel, &vlan(20, &syn)).1, std::slice::from_ref(&syn));
    assert!(passed(&mut lab, &kernel, &vlan(30, &syn)).1.is_empty());
    assert!(passed(&mut lab, &kernel, &syn).1.is_empty());
    let answer = ethernet(CLIENT, DIRECTOR, 0x0800, &[0x45; 40]);
    assert!(kernel_sends(&mut lab, &kernel, &answer).0.contains(&vlan(20, &answer)));
}

#[test]
fn the_rate_holds_and_control_protocols_come_first() {
    let (mut lab, kernel) = lab(&web("rr", &[(12, 1)]));
    lab.wait(1000);
    let flood = from_client("192.168.150.1", DIP, 17, &udp(9, 9, 10));
    let bgp = from_client("192.168.150.1", DIP, 6, &tcp(40000, 179, ACK, 10));
    let (mut plain, mut urgent) = (0, 0);
    for ms in 0..1000 {
        (0..20).for_each(|_| lab.put(&flood));
        if ms % 10 == 0 {
            lab.put(&bgp);
        }
        lab.now_ms += 1;
        lab.turn();
        for frame in got(&kernel) {
            if frame == bgp { urgent += 1 } else { plain += 1 }
        }
    }
    assert_eq!(urgent, 100, "all of them");
    assert!((880..=960).contains(&plain), "{plain}: the rate less those, and what was saved");
    assert_eq!(lab.dropped(DropReason::ExceptionRate), 20_000 - plain);
    lab.settle();
    lab.clear();
    assert_eq!(lab.server_of(&segment(1, SYN)), Some(12), "services are of another matter");
    conserved(&lab);
}

#[test]
fn answers_to_checks_come_through_a_flood_to_a_vip() {
    let text = BASE.replace("exception_rate = 1000", "exception_rate = 1000000");
    for general in [false, true] {
        let (mut lab, kernel) = lab_of(&format!("{text}{}", web("rr", &[(12, 1)])), 1);
        lab.workers[0].io_mut().tells_backlog = true;
        let of = |flags, port| from_client("192.168.150.12", DIP, 6, &tcp(80, port, flags, 0));
        let dns = |port| from_client("192.168.150.12", DIP, 17, &udp(53, port, 10));
        let mut wanted = 0;
        for n in 0..100_u16 {
            (0..40).for_each(|more| lab.put(&segment(1024 + n * 40 + more, SYN)));
            // the general way takes frames with a tag; a flow that is none breaks no burst up
            if general {
                lab.put(&vlan(7, &segment(n, SYN)));
            }
            lab.put(&of(SYN | ACK, n));
            lab.put(&of(RST | ACK, n));
            lab.put(&dns(n));
            // somebody's first packets are no answers
            lab.put(&of(SYN, n));
            wanted += 3;
        }
        let mut answers = 0;
        for _ in 0..200 {
            lab.turn();
            let is = |frame: &&Vec<u8>| frame[23] == 17 || frame[47] & ACK != 0;
            answers += got(&kernel).iter().filter(is).count();
        }
        assert!(lab.dropped(DropReason::Overload) > 2000, "{}", lab.dropped(DropReason::Overload));
        assert_eq!(answers, wanted, "general {general}");
    }
}

#[test]
fn a_kernel_that_is_behind_loses_frames_and_nothing_else() {
    let text = BASE.replace("exception_rate = 1000", "exception_rate = 1000000");
    let (mut lab, kernel) = lab_of(&format!("{text}{}", web("rr", &[(12, 1)])), 1);
    let plain = from_client("192.168.150.1", DIP, 17, &udp(9, 9, 10));
    let bgp = from_client("192.168.150.1", DIP, 6, &tcp(40000, 179, ACK, 10));
    (0..1000).for_each(|_| lab.put(&plain));
    (0..40).for_each(|_| lab.turn());
    assert_eq!(lab.dropped(DropReason::ExceptionQueueFull), 1000 - (512 - 128));
    lab.put(&bgp);
    lab.turn();
    assert_eq!(got(&kernel)[0], bgp, "what is urgent has room, and comes first");
    lab.put(&plain);
    lab.turn();
    assert_eq!(got(&kernel), [plain]);
    conserved(&lab);
}

#[test]
fn a_server_on_the_director_gets_what_is_balanced_to_it() {
    let (mut lab, kernel) = lab(&web("rr", &[(11, 1), (12, 1)]));
    let mut here = 0;
    for port in 1..=10 {
        let (sent, got) = passed(&mut lab, &kernel, &segment(port, SYN));
        if got.is_empty() {
            assert!(sent.iter().any(|frame| frame[..6] == server_mac(12)));
            continue;
        }
        assert_eq!(got, [segment(port, SYN)], "as it came: the TTL too");
        let (_, got) = passed(&mut lab, &kernel, &segment(port, ACK));
        assert_eq!(got, [segment(port, ACK)], "the whole connection");
        here += 1;
    }
    assert_eq!(here, 5);
    let dests = &lab.director.services()[0].dests;
    assert_eq!((dests[0].conns, dests[0].in_packets, dests[0].reachable), (5, 10, Some(true)));
    conserved(&lab);
}

#[test]
fn a_server_on_the_director_by_nat_is_translated_both_ways() {
    for workers in [1, 3] {
        let services = "[[services]]\nname = \"n\"\nvip = \"192.168.150.100\"\nport = 80\nforwarding = \"nat\"\n\
                        servers = [{ address = \"192.168.150.11\", port = 8080 }]\n";
        let (mut lab, kernel) = lab_of(&format!("{BASE}{services}"), workers);
        for port in 1..=5 {
            let (_, got) = passed(&mut lab, &kernel, &segment(port, SYN));
            let [syn] = &got[..] else { panic!("{got:?} {:?}", lab.drops()) };
            assert_eq!((&syn[30..34], &syn[36..38]), (&[192, 168, 150, 11][..], &8080u16.to_be_bytes()[..]));
            let packet = ipv4(
                DIP.parse().unwrap(),
                [192, 168, 150, 1].into(),
                6,
                64,
                true,
                &tcp(8080, port, SYN | ACK, 0),
            );
            // the client's MAC address is what the kernel knows of it
            lab.put(&arp(2, DIRECTOR, (CLIENT, [192, 168, 150, 1]), (DIRECTOR, [192, 168, 150, 11])));
            let answer = ethernet(CLIENT, DIRECTOR, 0x0800, &packet);
            let (mut sent, _) = kernel_sends(&mut lab, &kernel, &answer);
            lab.put(&arp(2, DIRECTOR, (CLIENT, [192, 168, 150, 1]), (DIRECTOR, [192, 168, 150, 11])));
            lab.wait(300);
            sent.extend(lab.sent());
            let reply = sent.iter().find(|frame| frame[12..14] == [8, 0]).expect("an answer to the client");
            assert_eq!((&reply[..6], &reply[26..30]), (&CLIENT[..], &[192, 168, 150, 100][..]));
            assert_eq!(reply[34..38], [0, 80, 0, port as u8]);
        }
        // what the kernel says from that port to others is its own
        let packet =
            ipv4(DIP.parse().unwrap(), [192, 168, 150, 1].into(), 6, 64, true, &tcp(8080, 999, SYN | ACK, 0));
        let own = ethernet(CLIENT, DIRECTOR, 0x0800, &packet);
        assert!(kernel_sends(&mut lab, &kernel, &own).0.contains(&own));
        conserved(&lab);
    }
}

#[test]
fn the_kernel_may_be_a_client_of_a_vip() {
    let nat = "[[services]]\nname = \"n\"\nvip = \"192.168.150.101\"\nport = 80\nforwarding = \"nat\"\n\
               servers = [{ address = \"192.168.150.13\", port = 8080 }]\n";
    let (mut lab, kernel) = lab(&format!("{}{nat}", web("rr", &[(12, 1)])));
    let question = arp(1, EVERYONE, (DIRECTOR, [192, 168, 150, 11]), ([0; 6], [192, 168, 150, 100]));
    let (sent, got) = kernel_sends(&mut lab, &kernel, &question);
    assert!(sent.is_empty(), "nobody else has the VIP: {sent:02x?}");
    let director = director_mac(DIRECTOR);
    assert_eq!(got, [arp(2, DIRECTOR, (director, [192, 168, 150, 100]), (DIRECTOR, [192, 168, 150, 11]))]);
    let own = arp(1, EVERYONE, (DIRECTOR, [0; 4]), ([0; 6], [192, 168, 150, 11]));
    assert!(kernel_sends(&mut lab, &kernel, &own).0.contains(&own), "whether others have its address");
    // by direct routing the server answers the director's own address itself
    let to = |vip: [u8; 4]| {
        let packet = ipv4(DIP.parse().unwrap(), vip.into(), 6, 64, true, &tcp(40000, 80, SYN, 0));
        ethernet(director, DIRECTOR, 0x0800, &packet)
    };
    let (sent, _) = kernel_sends(&mut lab, &kernel, &to([192, 168, 150, 100]));
    assert!(sent.iter().any(|frame| frame[..6] == server_mac(12) && frame[12..14] == [8, 0]), "{sent:02x?}");
    let answer = from_client("192.168.150.100", DIP, 6, &tcp(80, 40000, SYN | ACK, 0));
    assert_eq!(passed(&mut lab, &kernel, &answer).1, [answer]);
    // and by NAT through the director
    let (sent, _) = kernel_sends(&mut lab, &kernel, &to([192, 168, 150, 101]));
    assert!(sent.iter().any(|frame| frame[..6] == server_mac(13) && frame[12..14] == [8, 0]), "{sent:02x?}");
    let answer = from_client("192.168.150.13", DIP, 6, &tcp(8080, 40000, SYN | ACK, 0));
    let (_, got) = passed(&mut lab, &kernel, &answer);
    assert_eq!(got.len(), 1, "{:?}", lab.drops());
    assert_eq!((&got[0][26..30], &got[0][34..36]), (&[192, 168, 150, 101][..], &[0, 80][..]));
    conserved(&lab);
}

#[test]
fn ipv6_neighbours_are_asked_and_answered() {
    let services = "[[services]]\nname = \"web6\"\nvip = \"fd00:150::100\"\nport = 80\n\
                    servers = [{ address = \"fd00:150::12\" }]\n";
    let (mut lab, kernel) = lab(services);
    let advert = crate::local::advertisement(0x77);
    assert_eq!(passed(&mut lab, &kernel, &advert).1, [advert]);
    let solicit = |from: Ipv6Addr, target: u16| {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(v6(target).octets());
        message.extend([1, 1]);
        message.extend(DIRECTOR);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, target);
        let to = [0x33, 0x33, 0xff, 0, (target >> 8) as u8, target as u8];
        ethernet(to, DIRECTOR, 0x86dd, &ipv6(from, group, 58, 255, &icmp6(from, group, message)))
    };
    let (sent, got) = kernel_sends(&mut lab, &kernel, &solicit(v6(0x11), 0x100));
    assert!(!sent.iter().any(|frame| frame[..6] == [0x33, 0x33, 0xff, 0, 1, 0]));
    let [answer] = &got[..] else { panic!("{got:?}") };
    assert_eq!((answer[54], &answer[6..12]), (136, &director_mac(DIRECTOR)[..]));
    let question = solicit(v6(0x11), 0x55);
    assert!(kernel_sends(&mut lab, &kernel, &question).0.contains(&question));
    let syn = ipv6(v6(0x11), v6(0x100), 6, 64, &tcp(40000, 80, SYN, 0));
    let (_, _) = kernel_sends(&mut lab, &kernel, &ethernet(director_mac(DIRECTOR), DIRECTOR, 0x86dd, &syn));
    assert_eq!(lab.director.services()[0].dests[0].conns, 1);
    conserved(&lab);
}

#[test]
fn a_turn_takes_a_bounded_number_of_the_kernels_frames() {
    let (mut lab, kernel) = lab("");
    let frame = ethernet(CLIENT, DIRECTOR, 0x0800, &[0x45; 40]);
    let accepted = (0..1000).filter(|_| kernel.send(LinkId(0), &frame)).count();
    assert_eq!(accepted, 256);
    lab.clear();
    lab.turn();
    assert_eq!(lab.director.totals().from_kernel, 64);
    assert!(kernel.send(LinkId(0), &frame));
    (0..10).for_each(|_| lab.turn());
    assert_eq!(lab.director.totals().from_kernel, 257);
    conserved(&lab);
}

#[test]
fn a_check_by_the_packet_path_gets_to_its_server_alone() {
    let (mut lab, kernel) = lab(&web("rr", &[(12, 1), (13, 0), (14, 1)]));
    let service = lab.director.model().services[0].address;
    let pin = |port: u16, server: &str| lb_dataplane::director::Pin {
        source: format!("{DIP}:{port}").parse().unwrap(),
        service,
        server: server.parse().unwrap(),
        forwarding: lb_config::Forwarding::Dr,
    };
    lab.director.set_pins(vec![
        pin(61001, "192.168.150.13:80"),
        pin(61002, "192.168.150.14:80"),
        pin(61003, "192.168.150.13:80"),
    ]);
    let asks = |lab: &mut Lab, port: u16| {
        let packet =
            ipv4(DIP.parse().unwrap(), [192, 168, 150, 100].into(), 6, 64, true, &tcp(port, 80, SYN, 0));
        let (sent, _) =
            kernel_sends(lab, &kernel, &ethernet(director_mac(DIRECTOR), DIRECTOR, 0x0800, &packet));
        sent.iter().find(|frame| frame[12..14] == [8, 0]).map(|frame| frame[5])
    };
    for _ in 0..3 {
        assert_eq!(asks(&mut lab, 61001), Some(13), "one that drains, too");
        assert_eq!(asks(&mut lab, 61002), Some(14));
    }
    // another server in the place of one that goes: nobody is asked for it
    lab.apply_text(&format!("{BASE}{}", web("rr", &[(12, 1), (13, 0)])));
    lab.settle();
    assert_eq!(asks(&mut lab, 61002), Some(12), "as any client whose server is gone");
    assert_eq!(asks(&mut lab, 61001), Some(13), "indices may be others now");
    lab.director.set_pins(Vec::new());
    lab.settle();
    assert_eq!(asks(&mut lab, 61003), Some(12), "as any client's");
}

//! NAT and tunnels through whole workers: both ways, errors, what cannot be sent.

use std::net::{IpAddr, Ipv4Addr};

use lb_dataplane::DropReason;
use lb_dataplane::state::State;

use crate::frames::{ACK, CLIENT, DIRECTOR, FIN, SYN, checksum, ethernet, icmp, ipv4, server_mac, tcp, udp};
use crate::lab::Lab;

/// The client's network, with a router to the rest of the world, and the servers'.
pub const TWO_ARMS: &str = r#"
[[ports]]
name = "wan"
device = "null"
addresses = ["192.168.150.11/24"]
gateway = ["192.168.150.254"]

[[ports]]
name = "lan"
device = "ring:lan"
addresses = ["10.1.0.1/24"]
"#;

pub const CIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 1);
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 100);
pub const RIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 12);
pub const STATION: [u8; 6] = server_mac(12);

fn service(protocol: &str, forwarding: &str, servers: &str) -> String {
    format!(
        "[[services]]\nname = \"{protocol}\"\nvip = \"{VIP}\"\nport = 80\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
         forwarding = \"{forwarding}\"\nservers = [{servers}]\n"
    )
}

fn nat(workers: u16) -> Lab {
    let servers = "{ address = \"10.1.0.12\", port = 8080 }";
    let services = service("tcp", "nat", servers) + &service("udp", "nat", servers);
    resolved(&format!("{TWO_ARMS}{services}"), workers)
}

/// The server has answered ARP.
pub fn resolved(text: &str, workers: u16) -> Lab {
    let mut lab = Lab::of(text, workers);
    answer(&mut lab, 1, STATION, RIP, [10, 1, 0, 1].into());
    // a client that asks for the VIP is asked back
    lab.put(&crate::frames::arp(1, [0xff; 6], (CLIENT, CIP.octets()), ([0; 6], VIP.octets())));
    lab.settle();
    answer(&mut lab, 0, CLIENT, CIP, [192, 168, 150, 11].into());
    lab.clear();
    lab
}

pub fn answer(lab: &mut Lab, device: u16, mac: [u8; 6], ip: Ipv4Addr, to: Ipv4Addr) {
    let reply = crate::frames::arp(2, DIRECTOR, (mac, ip.octets()), (DIRECTOR, to.octets()));
    lab.put_on(device, &reply);
    lab.settle();
}

/// A TCP segment with the right checksum.
pub fn segment(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut tcp = tcp(src.1, dst.1, flags, 4);
    let sum = checksum(&pseudo(src.0, dst.0, 6, &tcp));
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(src.0, dst.0, 6, 64, true, &tcp)
}

pub fn pseudo(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    [&src.octets()[..], &dst.octets(), &[0, protocol], &len, payload].concat()
}

/// What is sent on a device, without its Ethernet header, and to whom.
pub fn sent(lab: &mut Lab, device: usize) -> Vec<([u8; 6], Vec<u8>)> {
    lab.settle();
    lab.sent_on(device)
        .into_iter()
        .map(|f| (f[..6].try_into().expect("six bytes"), f[14..].to_vec()))
        .collect()
}

pub fn from_client(lab: &mut Lab, packet: &[u8]) -> Vec<([u8; 6], Vec<u8>)> {
    lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, packet));
    sent(lab, 1)
}

pub fn from_server(lab: &mut Lab, packet: &[u8]) -> Vec<([u8; 6], Vec<u8>)> {
    lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, packet));
    sent(lab, 0)
}

/// The packet after one hop: TTL 63.
pub fn hopped(mut packet: Vec<u8>) -> Vec<u8> {
    packet[8] -= 1;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn both_ways_are_translated_whichever_worker_gets_the_frame() {
    for workers in [1, 3] {
        let mut lab = nat(workers);
        for port in 1000..1020 {
            let out = from_client(&mut lab, &segment((CIP, port), (VIP, 80), SYN));
            assert_eq!(out, [(STATION, hopped(segment((CIP, port), (RIP, 8080), SYN)))]);
            let back = from_server(&mut lab, &segment((RIP, 8080), (CIP, port), SYN | ACK));
            assert_eq!(back, [(CLIENT, hopped(segment((VIP, 80), (CIP, port), SYN | ACK)))], "{port}");
        }
        let row = &lab.director.services()[0].dests[0];
        assert_eq!((row.active, row.conns, row.in_packets, row.out_packets), (20, 20, 20, 20));
        assert_eq!((row.in_bytes, row.out_bytes), (20 * 44, 20 * 44));
    }
}

#[test]
fn both_sides_move_the_state() {
    let mut lab = nat(1);
    let steps: &[(bool, u8, State)] = &[
        (true, SYN, State::SynRecv),
        (false, SYN | ACK, State::SynRecv),
        (true, ACK, State::Established),
        (false, FIN | ACK, State::FinWait),
        (true, FIN | ACK, State::TimeWait),
    ];
    for (inbound, flags, state) in steps {
        let out = match inbound {
            true => from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), *flags)),
            false => from_server(&mut lab, &segment((RIP, 8080), (CIP, 1000), *flags)),
        };
        assert_eq!(out.len(), 1);
        let rows = lab.connections();
        assert_eq!(rows[0].state, *state, "after {flags:#04x}");
    }
}

#[test]
fn what_ends_takes_its_way_back_along() {
    let mut lab = nat(1);
    from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), SYN));
    lab.wait(62_000);
    assert_eq!(lab.connections(), []);
    lab.clear();
    assert_eq!(from_server(&mut lab, &segment((RIP, 8080), (CIP, 1000), ACK)), []);
    assert_eq!(lab.dropped(DropReason::NotForUs), 1, "{:?}", lab.drops());
}

#[test]
fn a_client_behind_the_gateway_is_answered_over_it_and_a_new_neighbour_is_asked_for() {
    let mut lab = nat(1);
    let router = [2, 0, 0, 0, 0, 0xfe];
    answer(&mut lab, 0, router, [192, 168, 150, 254].into(), [192, 168, 150, 11].into());
    lab.clear();
    let far = Ipv4Addr::new(8, 8, 8, 8);
    from_client(&mut lab, &segment((far, 1000), (VIP, 80), SYN));
    let back = from_server(&mut lab, &segment((RIP, 8080), (far, 1000), SYN | ACK));
    assert_eq!(back, [(router, hopped(segment((VIP, 80), (far, 1000), SYN | ACK)))]);

    let near = Ipv4Addr::new(192, 168, 150, 7);
    from_client(&mut lab, &segment((near, 1000), (VIP, 80), SYN));
    lab.clear();
    lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &segment((RIP, 8080), (near, 1000), SYN | ACK)));
    lab.settle();
    let asked = lab.sent();
    assert!(asked.iter().any(|frame| frame[12..14] == [8, 6] && frame[38..42] == near.octets()));
    answer(&mut lab, 0, [2, 0, 0, 0, 0, 7], near, [192, 168, 150, 11].into());
    let back = sent(&mut lab, 0);
    assert_eq!(back.len(), 1, "the frame has waited");
    assert_eq!(back[0].0, [2, 0, 0, 0, 0, 7]);
}

#[test]
fn a_station_that_does_not_answer_is_forgotten_and_asked_for_again() {
    let mut lab = nat(1);
    let near = Ipv4Addr::new(192, 168, 150, 7);
    let listed = |lab: &Lab| lab.director.neighbors(0).iter().any(|(_, row)| row.ip == IpAddr::from(near));
    from_client(&mut lab, &segment((near, 1000), (VIP, 80), SYN));
    from_server(&mut lab, &segment((RIP, 8080), (near, 1000), SYN | ACK));
    assert!(listed(&lab));
    lab.wait(10_000);
    assert!(!listed(&lab), "its place is free for others");
    assert_eq!(lab.dropped(DropReason::NeighborUnreachable), 1);
    lab.clear();
    from_server(&mut lab, &segment((RIP, 8080), (near, 1000), SYN | ACK));
    assert!(listed(&lab));
    answer(&mut lab, 0, [2, 0, 0, 0, 0, 7], near, [192, 168, 150, 11].into());
    assert_eq!(sent(&mut lab, 0).len(), 1, "the frame has waited");
}

#[test]
fn a_client_without_a_route_is_told_nothing() {
    let text = TWO_ARMS.replace("gateway = [\"192.168.150.254\"]\n", "");
    let servers = "{ address = \"10.1.0.12\", port = 8080 }";
    let mut lab = resolved(&format!("{text}{}", service("tcp", "nat", servers)), 1);
    let far = Ipv4Addr::new(8, 8, 8, 8);
    from_client(&mut lab, &segment((far, 1000), (VIP, 80), SYN));
    assert_eq!(from_server(&mut lab, &segment((RIP, 8080), (far, 1000), SYN | ACK)), []);
    assert_eq!(lab.dropped(DropReason::NoRoute), 1);
}

#[test]
fn errors_are_translated_both_ways() {
    let mut lab = nat(2);
    let datagram =
        |src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)| ipv4(src.0, dst.0, 17, 64, true, &udp(src.1, dst.1, 4));
    from_client(&mut lab, &datagram((CIP, 1000), (VIP, 80)));
    let port_unreachable = |quoted: &[u8]| icmp([&[3, 3, 0, 0, 0, 0, 0, 0][..], quoted].concat());

    // the server has nobody on that port: the client hears of it from the VIP, about its own packet
    let quoted = hopped(datagram((CIP, 1000), (RIP, 8080)));
    let error = ipv4(RIP, CIP, 1, 64, false, &port_unreachable(&quoted));
    let back = from_server(&mut lab, &error);
    assert_eq!(back.len(), 1, "{:?}", lab.drops());
    let (to, packet) = &back[0];
    assert_eq!((*to, &packet[12..20]), (CLIENT, &[VIP.octets(), CIP.octets()].concat()[..]));
    assert_eq!(packet[20..28], error_head(&packet[20..]));
    assert_eq!(packet[40..48], [CIP.octets(), VIP.octets()].concat());
    assert_eq!(packet[48..52], [1000u16.to_be_bytes(), 80u16.to_be_bytes()].concat());

    // the client's router complains about the reply: the server hears of it, about its own packet
    let quoted = hopped(datagram((VIP, 80), (CIP, 1000)));
    let router = Ipv4Addr::new(192, 168, 150, 254);
    let out = from_client(&mut lab, &ipv4(router, VIP, 1, 64, false, &port_unreachable(&quoted)));
    assert_eq!(out.len(), 1, "{:?}", lab.drops());
    let (to, packet) = &out[0];
    assert_eq!((*to, &packet[12..20]), (STATION, &[router.octets(), RIP.octets()].concat()[..]));
    assert_eq!(packet[40..48], [RIP.octets(), CIP.octets()].concat());
    assert_eq!(packet[48..52], [8080u16.to_be_bytes(), 1000u16.to_be_bytes()].concat());
}

/// The head of an ICMP error with the checksum that its bytes ask for.
pub fn error_head(message: &[u8]) -> [u8; 8] {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message[..8].try_into().expect("eight bytes")
}

#[test]
fn a_server_is_told_by_the_director_s_own_address() {
    let mut lab = nat(1);
    from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), SYN));
    let mut last = segment((RIP, 8080), (CIP, 1000), SYN | ACK);
    last[8] = 1;
    last[10..12].fill(0);
    let sum = checksum(&last[..20]);
    last[10..12].copy_from_slice(&sum.to_be_bytes());
    lab.put_on(1, &ethernet(DIRECTOR, STATION, 0x0800, &last));
    let told = sent(&mut lab, 1);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1[12..20], [[10, 1, 0, 1], RIP.octets()].concat());
    assert_eq!((told[0].1[20], told[0].1[21]), (11, 0));
    assert_eq!(lab.dropped(DropReason::TtlExpired), 1);
}

#[test]
fn a_reply_that_does_not_go_on_says_nothing_about_its_connection() {
    let mut lab = nat(1);
    from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), SYN));
    let mut last = segment((RIP, 8080), (CIP, 1000), FIN | ACK);
    last[8] = 1;
    last[10..12].fill(0);
    let sum = checksum(&last[..20]);
    last[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(from_server(&mut lab, &last), []);
    assert_eq!(lab.connections()[0].state, State::SynRecv);
    assert_eq!(lab.director.services()[0].dests[0].out_packets, 0);
}

#[test]
fn another_forwarding_is_for_new_connections() {
    let mut lab = nat(1);
    from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), SYN));
    let text = format!("{TWO_ARMS}{}", service("tcp", "tunnel", "{ address = \"10.1.0.12\" }"));
    lab.apply_text(&text);
    lab.settle();
    let out = from_client(&mut lab, &segment((CIP, 1000), (VIP, 80), ACK));
    assert_eq!(out, [(STATION, hopped(segment((CIP, 1000), (RIP, 8080), ACK)))]);
    let out = from_client(&mut lab, &segment((CIP, 1001), (VIP, 80), SYN));
    assert_eq!((out.len(), out[0].1[9]), (1, 4), "IP in IP");
    let back = from_server(&mut lab, &segment((RIP, 8080), (CIP, 1000), ACK));
    assert_eq!(back.len(), 1);
}

#[test]
fn a_tunnel_carries_the_packet_whole_and_names_its_mtu() {
    let servers = "{ address = \"10.1.0.12\" }";
    let mut lab = resolved(&format!("{TWO_ARMS}{}", service("tcp", "tunnel", servers)), 1);
    let packet = segment((CIP, 1000), (VIP, 80), SYN);
    let out = from_client(&mut lab, &packet);
    assert_eq!(out.len(), 1, "{:?}", lab.drops());
    let (to, outer) = &out[0];
    assert_eq!((*to, outer[9], &outer[12..20]), (STATION, 4, &[[10, 1, 0, 1], RIP.octets()].concat()[..]));
    assert_eq!(outer[20..], hopped(packet));
    let large = ipv4(CIP, VIP, 6, 64, true, &tcp(1000, 80, ACK, 1441));
    lab.put(&ethernet(DIRECTOR, CLIENT, 0x0800, &large));
    let told = sent(&mut lab, 0);
    assert_eq!((told[0].1[20], told[0].1[21], &told[0].1[26..28]), (3, 4, &1480u16.to_be_bytes()[..]));
    let client: IpAddr = CIP.into();
    assert_eq!(lab.connections()[0].client, (client, 1000));
}

#[test]
fn what_may_be_cut_is_cut_behind_the_tunnel() {
    let servers = "{ address = \"10.1.0.12\" }";
    let mut lab = resolved(&format!("{TWO_ARMS}{}", service("udp", "tunnel", servers)), 1);
    let packet = ipv4(CIP, VIP, 17, 64, false, &udp(1000, 80, 1470));
    let out = from_client(&mut lab, &packet);
    assert_eq!(out.len(), 2, "{:?}", lab.drops());
    assert!(out.iter().all(|(to, packet)| *to == STATION && packet.len() <= 1500));
    let totals = lab.director.totals();
    assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held);
}

#[test]
fn a_reply_keeps_a_udp_connection_active() {
    let policy = "[services.policy]\nudp_activity = \"10s\"\n";
    let server = "{ address = \"10.1.0.12\", port = 8080 }";
    let mut lab = resolved(&format!("{TWO_ARMS}{}{policy}", service("udp", "nat", server)), 1);
    let datagram =
        |src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)| ipv4(src.0, dst.0, 17, 64, true, &udp(src.1, dst.1, 4));
    // no checksum (RFC 768), so that the test needs none
    let plain = |mut packet: Vec<u8>| {
        packet[26..28].fill(0);
        packet
    };
    from_client(&mut lab, &plain(datagram((CIP, 9), (VIP, 80))));
    lab.wait(8_000);
    answer(&mut lab, 0, CLIENT, CIP, [192, 168, 150, 11].into());
    lab.clear();
    assert_eq!(from_server(&mut lab, &plain(datagram((RIP, 8080), (CIP, 9)))).len(), 1);
    lab.wait(8_000);
    assert_eq!(lab.counts(), [(1, 0)], "16 s after the client's packet");
    lab.wait(4_000);
    assert_eq!(lab.counts(), [(0, 1)]);
}

//! `[policy]` and `[services.policy]`: every key has a test that shows its effect.

use std::net::Ipv4Addr;

use lb_dataplane::DropReason;
use lb_dataplane::state::State;

use crate::arms::cut;
use crate::frames::{
    ACK, CLIENT, DIRECTOR, FIN, RST, SYN, arp, checksum, ethernet, from_client, icmp, ipv4, sctp, segment,
    server_mac, tcp, udp,
};
use crate::lab::{BASE, Lab, web};
use crate::nat::TWO_ARMS;

pub const CIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 1);
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 100);
pub const RIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 12);

/// [`web`] with `[services.policy]`.
pub fn own(policy: &str, servers: &[(u8, u32)]) -> String {
    format!("{}[services.policy]\n{policy}\n", web("rr", servers))
}

/// [`web`] after `[policy]`.
fn director(policy: &str, servers: &[(u8, u32)]) -> String {
    format!("[policy]\n{policy}\n{}", web("rr", servers))
}

pub const BOTH: [(u8, u32); 2] = [(12, 1), (13, 1)];

/// A connection of port `port` in state ESTABLISHED; its server.
pub fn established(lab: &mut Lab, port: u16) -> u8 {
    let server = lab.server_of(&segment(port, SYN)).expect("a server");
    assert_eq!(lab.server_of(&segment(port, ACK)), Some(server));
    server
}

fn conserved(lab: &Lab) {
    let totals = lab.director.totals();
    let sum = totals.tx + totals.delivered + totals.dropped + totals.held;
    assert_eq!(totals.rx + totals.originated, sum, "{totals:?} {:?}", lab.drops());
}

// ---- on_no_server, max_connections -----------------------------------------------------------------------------

#[test]
fn a_client_without_a_server_hears_what_the_service_says() {
    // protocol, type of the ICMP error, else flags of TCP
    for (policy, protocol, byte) in [("icmp", 1, Some(3)), ("reset", 6, Some(RST | ACK)), ("drop", 0, None)] {
        let mut lab = Lab::warm(&own(&format!("on_no_server = \"{policy}\""), &[(12, 0)]));
        let sent = lab.pass(&segment(9, SYN));
        assert_eq!(sent.len(), usize::from(byte.is_some()), "{policy}");
        if let (Some(frame), Some(byte)) = (sent.first(), byte) {
            let at = if protocol == 1 { 34 } else { 47 };
            assert_eq!((&frame[..6], frame[23], frame[at]), (&CLIENT[..], protocol, byte), "{policy}");
        }
        assert_eq!(lab.dropped(DropReason::NoServer), 1);
        conserved(&lab);
    }
}

#[test]
fn an_association_without_a_server_is_aborted() {
    let service = "[[services]]\nname = \"s1ap\"\nvip = \"192.168.150.100\"\nport = 80\nprotocol = \"sctp\"\n\
                   servers = []\n[services.policy]\non_no_server = \"reset\"\n";
    let mut lab = Lab::warm(service);
    let mut init = sctp(9, 80, 1);
    // a whole INIT: its tag is 7
    init[15] = 20;
    init.extend([0, 0, 0, 7, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sent = lab.pass(&from_client("192.168.150.1", "192.168.150.100", 132, &init));
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0][23], &sent[0][38..42], sent[0][46]), (132, &[0, 0, 0, 7][..], 6));
}

#[test]
fn a_service_has_no_more_connections_than_it_may_have() {
    let mut lab = Lab::warm(&own("max_connections = 3\non_no_server = \"reset\"", &BOTH));
    (1..=3).for_each(|port| assert!(lab.server_of(&segment(port, SYN)).is_some()));
    let sent = lab.pass(&segment(4, SYN));
    assert_eq!((sent.len(), sent[0][47]), (1, RST | ACK), "told as when there is no server");
    assert_eq!(lab.dropped(DropReason::ServiceFull), 1);
    assert!(lab.server_of(&segment(1, ACK)).is_some(), "known connections go on");
    lab.apply(&own("max_connections = 4", &BOTH));
    assert!(lab.server_of(&segment(4, SYN)).is_some());
    assert_eq!(lab.server_of(&segment(5, SYN)), None);
    conserved(&lab);
}

#[test]
fn connections_of_all_workers_count_for_the_limit() {
    let mut lab = Lab::warm_of(&format!("{BASE}{}", own("max_connections = 10", &BOTH)), 3);
    let served = (1..=40).filter(|port| lab.server_of(&segment(*port, SYN)).is_some()).count();
    assert_eq!((served, lab.connections().len()), (10, 10));
}

// ---- on_server_down, expire_nodest_conn --------------------------------------------------------------------------

#[test]
fn connections_of_a_removed_server_are_dropped_silently() {
    for by_director in [false, true] {
        let text = |servers: &[(u8, u32)]| match by_director {
            true => director("compat = \"ipvs\"", servers),
            false => own("on_server_down = \"drop\"", servers),
        };
        let mut lab = Lab::warm(&text(&BOTH));
        let ports = [1, 2].map(|port| (port, established(&mut lab, port)));
        lab.apply(&text(&BOTH[..1]));
        for (port, server) in ports {
            let sent = lab.pass(&segment(port, ACK));
            assert_eq!(sent.len(), usize::from(server == 12), "port {port}");
        }
        assert_eq!(lab.dropped(DropReason::ServerGone), 1);
        assert_eq!(lab.connections().len(), 2, "it waits for its timer, or its server");
        lab.apply(&text(&BOTH));
        assert_eq!(lab.server_of(&segment(2, ACK)), Some(13));
        conserved(&lab);
    }
}

#[test]
fn both_ends_of_a_removed_server_s_connection_are_reset() {
    let text = |servers: &[(u8, u32)]| own("on_server_down = \"reset\"", servers);
    let mut lab = Lab::warm(&text(&BOTH));
    established(&mut lab, 1);
    assert_eq!(established(&mut lab, 2), 13);
    lab.apply(&text(&BOTH[..1]));
    let mut data = tcp(2, 80, ACK, 100);
    data[4..12].copy_from_slice(&[0, 0, 0x03, 0xe8, 0, 0, 0x13, 0x89]);
    let sent = lab.pass(&from_client("192.168.150.1", "192.168.150.100", 6, &data));
    assert_eq!(sent.len(), 2, "{:?}", lab.drops());
    let to = |mac: [u8; 6]| sent.iter().find(|frame| frame[..6] == mac).expect("a reset");
    let (client, server) = (to(CLIENT), to(server_mac(13)));
    assert_eq!((&client[26..34], client[47]), (&[VIP.octets(), CIP.octets()].concat()[..], RST));
    assert_eq!(client[38..42], [0, 0, 0x13, 0x89], "the sequence number that the client expects");
    assert_eq!((&server[26..34], server[47]), (&[CIP.octets(), VIP.octets()].concat()[..], RST | ACK));
    assert_eq!((&server[38..42], server.len()), (&[0, 0, 0x03, 0xe8][..], 54), "and the server, no data");
    assert_eq!(lab.connections().len(), 1, "it is forgotten");
    assert!(lab.server_of(&segment(1, ACK)).is_some());
    conserved(&lab);
}

#[test]
fn connections_of_a_removed_server_are_scheduled_anew() {
    for (by_director, sloppy) in [(false, false), (true, false), (true, true)] {
        let text = |servers: &[(u8, u32)]| match by_director {
            true => director(&format!("expire_nodest_conn = true\nsloppy_tcp = {sloppy}"), servers),
            false => own("on_server_down = \"reschedule\"", servers),
        };
        let mut lab = Lab::warm(&text(&BOTH));
        established(&mut lab, 1);
        assert_eq!(established(&mut lab, 2), 13);
        lab.apply(&text(&BOTH[..1]));
        lab.settle();
        assert_eq!(lab.connections().len(), 1, "without waiting for a packet");
        let sent = lab.pass(&segment(2, ACK));
        assert_eq!((sent.len(), sent[0][5]), (1, if sloppy { 12 } else { CLIENT[5] }), "else a reset");
        assert_eq!(lab.server_of(&segment(2, SYN)), Some(12));
        conserved(&lab);
    }
}

#[test]
fn the_next_packet_is_scheduled_anew_if_it_comes_before_the_sweep() {
    let text = |servers: &[(u8, u32)]| own("on_server_down = \"reschedule\"", servers);
    let mut lab = Lab::warm(&text(&BOTH));
    established(&mut lab, 1);
    assert_eq!(established(&mut lab, 2), 13);
    lab.put(&segment(2, SYN));
    lab.apply(&text(&BOTH[..1]));
    lab.settle();
    assert_eq!(lab.sent().iter().map(|frame| frame[5]).collect::<Vec<_>>(), [12]);
}

#[test]
fn a_syn_to_a_draining_server_goes_elsewhere_if_ipvs_is_told_so() {
    for (expire, server) in [(false, 13), (true, 12)] {
        let text = |weight| {
            director(&format!("compat = \"ipvs\"\nexpire_nodest_conn = {expire}"), &[(12, 1), (13, weight)])
        };
        let mut lab = Lab::warm(&text(1));
        established(&mut lab, 1);
        assert_eq!(established(&mut lab, 2), 13);
        lab.apply(&text(0));
        assert_eq!(lab.server_of(&segment(2, ACK)), Some(13), "what goes on goes on");
        assert_eq!(lab.server_of(&segment(2, SYN)), Some(server));
    }
}

// ---- reuse, conn_reuse_mode ---------------------------------------------------------------------------------------

#[test]
fn a_syn_on_what_closes_or_drains_is_new_and_on_what_is_established_not() {
    let close: &[(&str, &[u8], bool)] = &[
        ("ESTABLISHED", &[], false),
        ("FIN_WAIT", &[FIN | ACK], true),
        ("CLOSE", &[RST], true),
        ("TIME_WAIT", &[], true),
    ];
    for (state, packets, anew) in close {
        let mut lab = Lab::warm(&web("rr", &BOTH));
        let server = lab.server_of(&segment(7, SYN)).expect("a server");
        let packets: &[u8] = if *state == "TIME_WAIT" { &[FIN] } else { &[&[ACK], *packets].concat() };
        packets.iter().for_each(|flags| assert_eq!(lab.server_of(&segment(7, *flags)), Some(server)));
        assert_eq!(lab.connections()[0].state.name(), *state);
        assert_eq!(lab.server_of(&segment(7, SYN)) != Some(server), *anew, "{state}");
    }
    let mut lab = Lab::warm(&web("rr", &BOTH));
    assert_eq!(established(&mut lab, 7), 12);
    lab.apply(&web("rr", &[(12, 0), (13, 1)]));
    assert_eq!(lab.server_of(&segment(7, SYN)), Some(13), "its server has weight 0");
    assert_eq!(lab.counts(), [(0, 0), (1, 0)]);
}

#[test]
fn a_service_may_ask_for_ipvs_s_judgement_and_its_mode() {
    for (mode, fin_wait, close) in [(0, false, false), (1, false, true), (2, true, true)] {
        for (packets, anew) in [(&[ACK, FIN | ACK][..], fin_wait), (&[ACK, RST], close)] {
            let text = format!("[policy]\nconn_reuse_mode = {mode}\n{}", own("reuse = \"ipvs\"", &BOTH));
            let mut lab = Lab::warm(&text);
            lab.pass(&segment(7, SYN));
            packets.iter().for_each(|flags| assert_eq!(lab.server_of(&segment(7, *flags)), Some(12)));
            assert_eq!(
                lab.server_of(&segment(7, SYN)),
                Some(if anew { 13 } else { 12 }),
                "{mode} {packets:?}"
            );
        }
    }
}

// ---- dr_close_timeout, secure_tcp, sloppy_* -----------------------------------------------------------------------

#[test]
fn a_connection_that_closed_unseen_ends_early() {
    let mut lab = Lab::warm(&own("dr_close_timeout = \"5s\"", &BOTH));
    established(&mut lab, 7);
    lab.pass(&segment(7, FIN | ACK));
    let row = lab.connections()[0];
    assert_eq!((row.state, row.expires_ms()), (State::FinWait, 5_000));
}

#[test]
fn secure_tcp_is_always_on_or_when_connections_run_short() {
    for (mode, few, many) in [(0, "SYN_RECV", "SYN_RECV"), (1, "SYN_RECV", "SYNACK"), (3, "SYNACK", "SYNACK")]
    {
        let head = "[appliance]\nworkers = [0]\n[limits]\nmax_connections = 1024\n";
        let text = format!("{BASE}{}", director(&format!("secure_tcp = {mode}"), &BOTH));
        let mut lab = Lab::with_head(head, &text).resolved();
        let state = |lab: &mut Lab, port| {
            lab.pass(&segment(port, SYN));
            lab.connections().into_iter().find(|row| row.client.1 == port).expect("listed").state.name()
        };
        assert_eq!(state(&mut lab, 1), few, "{mode}");
        for port in 1001..=1895 {
            lab.put(&segment(port, SYN));
        }
        lab.settle();
        (0..40).for_each(|_| lab.turn());
        assert_eq!(state(&mut lab, 2000), many, "{mode}");
    }
}

#[test]
fn a_sloppy_director_begins_connections_with_any_packet_but_an_end() {
    for sloppy in [false, true] {
        let services =
            format!("{}{}", web("rr", &BOTH), web("rr", &BOTH).replace("web", "s").replace("tcp", "sctp"));
        let mut lab =
            Lab::warm(&format!("[policy]\nsloppy_tcp = {sloppy}\nsloppy_sctp = {sloppy}\n{services}"));
        assert_eq!(lab.server_of(&segment(7, ACK)).is_some(), sloppy);
        assert_eq!(lab.server_of(&segment(8, RST)), None);
        let chunk = |port, kind| from_client("192.168.150.1", "192.168.150.100", 132, &sctp(port, 80, kind));
        assert_eq!(lab.server_of(&chunk(7, 0)).is_some(), sloppy);
        assert_eq!(lab.server_of(&chunk(8, 6)), None, "ABORT");
        let states: Vec<_> = lab.connections().iter().map(|row| row.state.name()).collect();
        assert_eq!(states, vec!["ESTABLISHED"; if sloppy { 2 } else { 0 }]);
    }
}

// ---- expire_quiescent_template ------------------------------------------------------------------------------------

#[test]
fn persistence_lets_go_of_a_draining_server_if_told_so() {
    for (expire, server) in [(false, 12), (true, 13)] {
        let text = |weight| {
            let service = web("rr", &[(12, weight), (13, 1)]);
            let service = service.replace("forwarding", "persistence = { timeout = \"300s\" }\nforwarding");
            format!("[policy]\nexpire_quiescent_template = {expire}\n{service}")
        };
        let mut lab = Lab::warm(&text(1));
        assert_eq!(established(&mut lab, 1), 12);
        assert_eq!(established(&mut lab, 2), 12);
        lab.apply(&text(0));
        assert_eq!(lab.server_of(&segment(3, SYN)), Some(server));
        assert_eq!(lab.server_of(&segment(1, ACK)), Some(12));
    }
}

// ---- NAT and tunnels: mss, pmtu_disc, nat_icmp_send, reset ----------------------------------------------------------

pub fn far(director: &str, protocol: &str, forwarding: &str, own: &str, servers: &str) -> String {
    format!(
        "{TWO_ARMS}[policy]\n{director}\n[[services]]\nname = \"far\"\nvip = \"{VIP}\"\nport = 80\n\
         protocol = \"{protocol}\"\nforwarding = \"{forwarding}\"\nservers = [{servers}]\n[services.policy]\n{own}\n"
    )
}

pub const NATED: &str = "{ address = \"10.1.0.12\", port = 8080 }";
const PLAIN: &str = "{ address = \"10.1.0.12\" }";

/// The server and the client have answered ARP.
pub fn warm(text: &str) -> Lab {
    let mut lab = Lab::of(text, 1);
    lab.put_on(1, &arp(2, DIRECTOR, (server_mac(12), RIP.octets()), (DIRECTOR, [10, 1, 0, 1])));
    lab.put(&arp(1, [0xff; 6], (CLIENT, CIP.octets()), ([0; 6], VIP.octets())));
    lab.settle();
    lab.put(&arp(2, DIRECTOR, (CLIENT, CIP.octets()), (DIRECTOR, [192, 168, 150, 11])));
    lab.settle();
    lab.clear();
    lab
}

/// IP packets that come out on a device for one that comes in on a device.
pub fn through(lab: &mut Lab, (from, to): (u16, usize), packet: &[u8]) -> Vec<Vec<u8>> {
    let station = if from == 0 { CLIENT } else { server_mac(12) };
    lab.put_on(from, &ethernet(DIRECTOR, station, 0x0800, packet));
    lab.settle();
    lab.sent_on(to).into_iter().map(|frame| frame[14..].to_vec()).collect()
}

/// A segment with an MSS option of 1460 and the right checksum.
pub fn asking(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut segment = tcp(src.1, dst.1, flags, 4);
    segment[12] = 0x60;
    segment[20..].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    let sum = checksum(&[&src.0.octets()[..], &dst.0.octets(), &[0, 6, 0, 24], &segment].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(src.0, dst.0, 6, 64, true, &segment)
}

/// The MSS that a packet asks for; its checksum is right.
fn asked(packet: &[u8]) -> u16 {
    let len = (packet.len() - 20) as u16;
    let sum = checksum(&[&packet[12..20], &[0, 6], &len.to_be_bytes(), &packet[20..]].concat());
    assert_eq!(sum, 0, "the checksum");
    u16::from_be_bytes([packet[42], packet[43]])
}

#[test]
fn segment_sizes_are_bounded_both_ways() {
    let mut lab = warm(&far("", "tcp", "nat", "mss = 1400", NATED));
    let out = through(&mut lab, (0, 1), &asking((CIP, 1000), (VIP, 80), SYN));
    assert_eq!(asked(&out[0]), 1400);
    let back = through(&mut lab, (1, 0), &asking((RIP, 8080), (CIP, 1000), SYN | ACK));
    assert_eq!(asked(&back[0]), 1400);
    let out = through(&mut lab, (0, 1), &asking((CIP, 1000), (VIP, 80), ACK));
    assert_eq!(asked(&out[0]), 1460, "no SYN");
    let mut lab = warm(&far("", "tcp", "tunnel", "mss = 1000", PLAIN));
    let out = through(&mut lab, (0, 1), &asking((CIP, 1000), (VIP, 80), SYN));
    assert_eq!(asked(&out[0][20..]), 1000, "inside the tunnel");
}

#[test]
fn without_path_mtu_discovery_a_tunnel_cuts_what_is_too_big() {
    let packet = ipv4(CIP, VIP, 17, 64, true, &udp(1000, 80, 1470));
    let mut lab = warm(&far("", "udp", "tunnel", "", PLAIN));
    assert_eq!(through(&mut lab, (0, 1), &packet).len(), 0);
    assert_eq!(lab.dropped(DropReason::MtuExceeded), 1);
    let mut lab = warm(&far("pmtu_disc = false", "udp", "tunnel", "", PLAIN));
    let out = through(&mut lab, (0, 1), &packet);
    assert_eq!((out.len(), lab.sent_on(0).len()), (2, 0), "{:?}", lab.drops());
    assert!(out.iter().all(|piece| piece.len() <= 1500 && piece[9] == 4));
    assert_eq!((out[0][6], out[1][6] & 0x60), (0x20, 0), "more follow, the last one, neither with DF");
    let joined = [&out[0][20..], &out[1][20..]].concat();
    assert_eq!((joined.len(), &joined[12..]), (packet.len(), &packet[12..]), "what is inside is whole");
    let small = through(&mut lab, (0, 1), &ipv4(CIP, VIP, 17, 64, true, &udp(1000, 80, 4)));
    assert_eq!((small.len(), small[0][6]), (1, 0), "without DF too");
    conserved(&lab);
}

#[test]
fn a_server_is_told_of_a_reply_that_belongs_to_no_connection() {
    for send in [false, true] {
        let mut lab = warm(&far(&format!("nat_icmp_send = {send}"), "tcp", "nat", "", NATED));
        let stray = |flags| ipv4(RIP, CIP, 6, 64, true, &tcp(8080, 1000, flags, 0));
        let told = through(&mut lab, (1, 1), &stray(ACK));
        assert_eq!(told.len(), usize::from(send));
        if let Some(packet) = told.first() {
            assert_eq!(packet[12..20], [[10, 1, 0, 1], RIP.octets()].concat());
            assert_eq!(packet[20..22], [3, 3]);
            assert_eq!(packet[40..48], [RIP.octets(), CIP.octets()].concat());
        }
        assert_eq!(through(&mut lab, (1, 1), &stray(RST)).len(), 0, "a reset ends it anyway");
        assert_eq!(lab.dropped(DropReason::NotForUs), 2);
        conserved(&lab);
    }
}

#[test]
fn whoever_speaks_first_brings_both_resets() {
    for from_server in [false, true] {
        let policy = "on_server_down = \"reset\"";
        let mut lab = warm(&far("", "tcp", "nat", policy, NATED));
        through(&mut lab, (0, 1), &asking((CIP, 1000), (VIP, 80), SYN));
        lab.apply_text(&far("", "tcp", "nat", policy, ""));
        lab.settle();
        let packet = match from_server {
            true => asking((RIP, 8080), (CIP, 1000), SYN | ACK),
            false => asking((CIP, 1000), (VIP, 80), ACK),
        };
        let mut to_server = through(&mut lab, (u16::from(from_server), 1), &packet);
        let mut to_client: Vec<_> = lab.sent_on(0).into_iter().map(|frame| frame[14..].to_vec()).collect();
        if from_server {
            to_client =
                to_client.into_iter().chain(lab.sent().into_iter().map(|f| f[14..].to_vec())).collect();
        }
        assert_eq!((to_server.len(), to_client.len()), (1, 1), "{from_server} {:?}", lab.drops());
        let (server, client) = (to_server.remove(0), to_client.remove(0));
        assert_eq!(server[12..20], [CIP.octets(), RIP.octets()].concat());
        assert_eq!(client[12..20], [VIP.octets(), CIP.octets()].concat());
        assert_eq!((&server[20..24], &client[20..24]), (&[3, 232, 31, 144][..], &[0, 80, 3, 232][..]));
        assert!(server[33] & RST != 0 && client[33] & RST != 0);
        assert_eq!(lab.connections(), []);
        conserved(&lab);
    }
}

// ---- schedule_icmp ------------------------------------------------------------------------------------------------

#[test]
fn an_error_may_begin_a_connection() {
    for schedule in [false, true] {
        let mut lab = Lab::warm(&director(&format!("schedule_icmp = {schedule}"), &BOTH));
        let quoted = ipv4(VIP, CIP, 6, 60, true, &tcp(80, 1000, ACK, 0));
        let error = |port: u16| {
            let mut quoted = quoted.clone();
            quoted[22..24].copy_from_slice(&port.to_be_bytes());
            let message = [&[3, 4, 0, 0, 0, 0, 5, 0x78][..], &quoted].concat();
            from_client("192.168.150.9", "192.168.150.100", 1, &icmp(message))
        };
        assert_eq!(lab.server_of(&error(1000)), schedule.then_some(12));
        assert_eq!(lab.dropped(DropReason::IcmpErrorUnmatched), u64::from(!schedule));
        if schedule {
            let row = lab.connections()[0];
            assert_eq!((row.client, row.state), ((CIP.into(), 1000), State::None));
            assert_eq!(row.expires_ms(), 3_000);
            assert_eq!(lab.server_of(&error(1000)), Some(12), "the same connection");
            assert_eq!(lab.server_of(&error(1001)), Some(13));
            assert_eq!(lab.server_of(&segment(1000, ACK)), Some(12), "which its client may go on with");
            assert_eq!(lab.connections()[0].state, State::Established);
        }
        conserved(&lab);
    }
}

// ---- datagrams in fragments --------------------------------------------------------------------------------------------

/// A datagram to the service in fragments of at most 1492 bytes.
fn fragments(df: bool) -> Vec<Vec<u8>> {
    let mut parts = cut(&ipv4(CIP, VIP, 17, 64, false, &udp(1000, 80, 2000)), 1472, 7);
    for part in parts.iter_mut().filter(|_| df) {
        part[6] |= 0x40;
        part[10..12].fill(0);
        let sum = checksum(&part[..20]);
        part[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    parts
}

#[test]
fn fragments_are_treated_as_whole_packets_are() {
    let give = |lab: &mut Lab| -> usize {
        fragments(true).iter().map(|part| through(lab, (0, 1), part).len()).sum()
    };
    let mut lab = warm(&far("", "udp", "tunnel", "", PLAIN));
    assert_eq!((give(&mut lab), lab.dropped(DropReason::MtuExceeded)), (0, 2), "too big for the tunnel");
    let mut lab = warm(&far("pmtu_disc = false", "udp", "tunnel", "", PLAIN));
    assert_eq!((give(&mut lab), lab.dropped(DropReason::MtuExceeded)), (2, 0), "one outer packet, cut");
    conserved(&lab);

    let drop = "on_server_down = \"drop\"";
    let mut lab = warm(&far("", "udp", "nat", drop, NATED));
    assert_eq!(give(&mut lab), 2);
    lab.apply_text(&far("", "udp", "nat", drop, ""));
    lab.settle();
    assert_eq!((give(&mut lab), lab.dropped(DropReason::ServerGone)), (0, 2));
    conserved(&lab);

    let mut lab = warm(&far("nat_icmp_send = true", "udp", "nat", "", NATED));
    let stray = cut(&ipv4(RIP, CIP, 17, 64, false, &udp(8080, 1000, 2000)), 1472, 7);
    let told: Vec<_> = stray.iter().flat_map(|part| through(&mut lab, (1, 1), part)).collect();
    assert_eq!((told.len(), &told[0][20..22]), (1, &[3, 3][..]));
    assert_eq!(lab.dropped(DropReason::NotForUs), 2);
    conserved(&lab);
}

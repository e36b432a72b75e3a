//! Datagrams in fragments through whole workers: every forwarding, both families, any order, one and three workers.

use lb_dataplane::DropReason;

use crate::arms::{
    Ends, ROUTER, cut, datagram, framed, hopped, is_conserved, joined, lab, lab_of, lab_under, packet, sent,
    sent_to, text, v4, v6,
};
use crate::frames::{ACK, DIRECTOR, SYN, ethernet, icmp, server_mac, tcp};
use crate::lab::Lab;

const STATION: [u8; 6] = server_mac(12);
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn give(lab: &mut Lab, device: u16, from: [u8; 6], packet: &[u8]) {
    lab.put_on(device, &framed(from, packet));
}

/// Fragments from the client's router, the workers turning after each.
fn give_all<'a>(lab: &mut Lab, fragments: impl IntoIterator<Item = &'a Vec<u8>>) {
    for fragment in fragments {
        give(lab, 0, ROUTER, fragment);
        (0..3).for_each(|_| lab.turn());
    }
}

/// From this port of the client to the service.
fn request(ends: &Ends, port: u16, data: usize) -> Vec<u8> {
    datagram((ends.client, port), (ends.vip, 80), data)
}

/// All ways of sending three fragments.
fn each_order(forwarding: &str, check: impl Fn(&mut Lab, &Ends, u16, &[Vec<u8>])) {
    for workers in [1, 3] {
        let mut lab = lab(forwarding, 1, workers, "");
        for (ends, at) in [(v4(), 0), (v6(), 1)] {
            for (n, order) in ORDERS.iter().enumerate() {
                let port = 5000 + n as u16;
                let parts = cut(&request(&ends, port, 3000), 1400, 55 + n as u16);
                assert_eq!(parts.len(), 3);
                for (nth, part) in order.iter().enumerate() {
                    assert_eq!(sent(&mut lab, 1), [], "{order:?}: not before all are there");
                    assert_eq!(lab.director.totals().held, nth as u64, "{order:?}");
                    give_all(&mut lab, [&parts[*part]]);
                }
                check(&mut lab, &ends, port, &parts);
                is_conserved(&lab);
                assert_eq!(lab.director.totals().held, 0);
            }
            let row = &lab.director.services()[at].dests[0];
            let bytes = ORDERS.len() * request(&ends, 1, 3000).len();
            assert_eq!((row.conns, row.in_packets, row.in_bytes), (6, 6, bytes as u64), "{ends:?}");
        }
        assert_eq!(lab.connections().len(), 12);
        assert_eq!(lab.drops(), []);
    }
}

#[test]
fn direct_routing_sends_them_on_as_they_came() {
    each_order("dr", |lab, _, _, parts| {
        let expected: Vec<_> = parts.iter().cloned().map(hopped).collect();
        assert_eq!(sent_to(lab, 1, STATION), expected);
    });
}

#[test]
fn nat_translates_all_of_them_both_ways() {
    each_order("nat", |lab, ends, port, parts| {
        let out = sent_to(lab, 1, STATION);
        let server = (ends.servers[0], 8080);
        assert_eq!(joined(&out), hopped(datagram((ends.client, port), server, 3000)));
        let lens = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lens(&out), lens(parts));

        for part in cut(&datagram(server, (ends.client, port), 2000), 1400, port).iter().rev() {
            give(lab, 1, STATION, part);
        }
        let back = sent_to(lab, 0, ROUTER);
        assert_eq!(back.len(), 2, "{:?}", lab.drops());
        assert_eq!(joined(&back), hopped(datagram((ends.vip, 80), (ends.client, port), 2000)));
    });
    let mut lab = lab("nat", 1, 3, "");
    let ends = v4();
    give_all(&mut lab, &cut(&request(&ends, 7, 2000), 1400, 1));
    for part in cut(&datagram((ends.servers[0], 8080), (ends.client, 7), 2000), 1400, 9) {
        give(&mut lab, 1, STATION, &part);
    }
    lab.settle();
    let row = &lab.director.services()[0].dests[0];
    assert_eq!((row.in_packets, row.out_packets, row.in_bytes, row.out_bytes), (1, 1, 2028, 2028));
}

#[test]
fn a_tunnel_carries_the_datagram_in_one_outer_packet_that_is_cut() {
    each_order("tunnel", |lab, ends, port, parts| {
        let out = sent_to(lab, 1, STATION);
        assert!(out.iter().all(|packet| packet.len() <= 1500));
        let outer = joined(&out);
        let (header, next) = if ends.client.is_ipv4() { (20, outer[9]) } else { (40, outer[6]) };
        assert_eq!(next, if header == 20 { 4 } else { 41 });
        let mut inner = hopped(request(ends, port, 3000));
        if header == 20 {
            // the identification is the client's
            inner[4..6].copy_from_slice(&parts[0][4..6]);
            inner = hopped({
                inner[8] += 1;
                inner
            });
        }
        assert_eq!(outer[header..], inner);
    });
}

#[test]
fn the_outer_packet_of_every_kind_of_tunnel_is_cut_and_counted() {
    for kind in ["type = \"gue\", port = 6080, checksum = \"full\"", "type = \"gre\", checksum = \"full\""] {
        let mut lab = lab("tunnel", 1, 1, &format!("tunnel = {{ {kind} }}"));
        for ends in [v4(), v6()] {
            give_all(&mut lab, &cut(&request(&ends, 5, 2800), 1400, 5));
            let out = sent_to(&mut lab, 1, STATION);
            let inner = hopped(request(&ends, 5, 2800));
            let outer = joined(&out);
            assert_eq!(outer[outer.len() - 2800..], inner[inner.len() - 2800..], "{kind}");
            is_conserved(&lab);
        }
    }
}

#[test]
fn a_datagram_goes_where_its_flow_s_whole_packets_go() {
    for workers in [1, 3] {
        for (forwarding, ends) in [("dr", v4()), ("nat", v4()), ("tunnel", v6()), ("nat", v6())] {
            let mut lab = lab(forwarding, 2, workers, "");
            for port in 1..20 {
                give(&mut lab, 0, ROUTER, &request(&ends, port, 10));
                let server = sent(&mut lab, 1)[0].0;
                // an identification that does not lead to the worker that the port leads to
                give_all(&mut lab, cut(&request(&ends, port, 2000), 1400, 77 * port + 5).iter().rev());
                assert_eq!(sent_to(&mut lab, 1, server).len(), 2);
            }
            assert_eq!(lab.connections().len(), 19);
            is_conserved(&lab);
        }
    }
}

#[test]
fn an_overlap_ends_a_datagram_and_a_duplicate_does_not() {
    for workers in [1, 3] {
        let mut lab = lab("dr", 1, workers, "");
        let parts = cut(&request(&v4(), 1, 3000), 1400, 7);
        let mut overlap = parts[1].clone();
        // 8 bytes earlier
        overlap[7] -= 1;
        overlap[10..12].fill(0);
        let sum = crate::frames::checksum(&overlap[..20]);
        overlap[10..12].copy_from_slice(&sum.to_be_bytes());
        give_all(&mut lab, [&parts[0], &overlap, &parts[1], &parts[2]]);
        assert_eq!(sent(&mut lab, 1), []);
        // what had gone on to the owner of the flow before waits there
        let gone = u64::from(workers > 1 && lab.director.totals().held == 1);
        assert_eq!(lab.dropped(DropReason::FragmentOverlap), 4 - gone);

        let again = cut(&request(&v4(), 1, 3000), 1400, 8);
        give_all(&mut lab, [&again[0], &again[0], &again[1], &again[1], &again[2]]);
        assert_eq!(sent(&mut lab, 1).len(), 3);
        assert_eq!(lab.dropped(DropReason::FragmentDuplicate), 2);
        lab.wait(31_000);
        assert_eq!(lab.director.totals().held, 0);
        is_conserved(&lab);
    }
}

#[test]
fn what_never_gets_whole_is_given_up_after_half_a_minute() {
    for workers in [1, 3] {
        let mut lab = lab("dr", 1, workers, "");
        for (n, ends) in [v4(), v6()].iter().enumerate() {
            let parts = cut(&request(ends, 1, 3000), 1400, 7);
            // with its first fragment, and without
            give_all(&mut lab, &parts[n..n + 2]);
        }
        lab.wait(29_000);
        assert_eq!((lab.director.totals().held, lab.drops()), (4, vec![]));
        lab.wait(2_000);
        assert_eq!(lab.director.totals().held, 0);
        assert_eq!(lab.dropped(DropReason::FragmentExpired), 4);
        assert_eq!(lab.connections(), []);
        is_conserved(&lab);
    }
}

#[test]
fn what_waits_is_bounded() {
    for workers in [1u16, 3] {
        let mut lab = lab("dr", 1, workers, "");
        for id in 0..3000 {
            give(&mut lab, 0, ROUTER, &cut(&request(&v4(), id, 3000), 1400, id)[usize::from(id % 2)]);
            lab.turn();
        }
        lab.settle();
        // a worker holds 256 for others and 256 of its own
        let most = if workers == 1 { 256 } else { 512 * u64::from(workers) };
        let held = lab.director.totals().held;
        assert!((100..=most).contains(&held), "{held}");
        assert!(lab.dropped(DropReason::FragmentQueueFull) > 1000, "{:?}", lab.drops());
        is_conserved(&lab);
        // those that come now pass all the same
        give_all(&mut lab, &cut(&request(&v4(), 1, 3000), 1400, 9999));
        assert_eq!(sent(&mut lab, 1).len(), 3);
    }
}

#[test]
fn a_datagram_in_too_many_fragments_is_dropped() {
    let mut lab = lab("dr", 1, 1, "");
    let parts = cut(&request(&v6(), 1, 3000), 40, 7);
    give_all(&mut lab, &parts);
    assert_eq!(sent(&mut lab, 1), []);
    assert_eq!(lab.dropped(DropReason::FragmentTooMany), parts.len() as u64);
    is_conserved(&lab);
    give_all(&mut lab, &cut(&request(&v6(), 1, 3000), 48, 8));
    assert_eq!(sent(&mut lab, 1).len(), 63);
}

#[test]
fn a_datagram_that_nobody_takes_is_answered_once() {
    for workers in [1, 3] {
        let mut lab = lab("dr", 1, workers, "");
        for (n, ends) in [v4(), v6()].iter().enumerate() {
            let parts = cut(&datagram((ends.client, 9), (ends.vip, 81), 3000), 1400, 7);
            give_all(&mut lab, parts.iter().rev());
            assert_eq!(lab.dropped(DropReason::NoService), 3 * (n as u64 + 1), "{:?}", lab.drops());
            let told = sent_to(&mut lab, 0, ROUTER);
            assert_eq!(told.len(), 1, "port unreachable");
            let (at, kind) = if n == 0 { (20, [3, 3]) } else { (40, [1, 4]) };
            assert_eq!(told[0][at..at + 2], kind);
            assert_eq!(told[0][at + 8..at + 16], parts[0][..8], "about the first fragment");
        }
        is_conserved(&lab);
    }
}

#[test]
fn a_ttl_that_runs_out_takes_the_whole_datagram_along() {
    for ends in [v4(), v6()] {
        for last in 0..2 {
            let mut lab = lab("nat", 1, 1, "");
            let mut parts = cut(&request(&ends, 9, 2000), 1400, 7);
            for _ in 0..63 {
                parts[last] = hopped(std::mem::take(&mut parts[last]));
            }
            give_all(&mut lab, &parts);
            assert_eq!(sent(&mut lab, 1), []);
            assert_eq!(lab.dropped(DropReason::TtlExpired), 2);
            // no error may be sent about a later fragment
            assert_eq!(sent(&mut lab, 0).len(), 1 - last);
            is_conserved(&lab);
        }
    }
}

#[test]
fn fragments_larger_than_a_tunnel_takes_are_cut_or_their_sender_is_told() {
    let mut lab = lab("tunnel", 1, 1, "");
    give_all(&mut lab, &cut(&request(&v4(), 9, 2000), 1480, 7));
    assert_eq!(sent(&mut lab, 1).len(), 2);
    give_all(&mut lab, &cut(&request(&v6(), 9, 2000), 1448, 7));
    assert_eq!(sent(&mut lab, 1), []);
    assert_eq!(lab.dropped(DropReason::MtuExceeded), 2);
    let told = sent_to(&mut lab, 0, ROUTER);
    assert_eq!((told.len(), told[0][40], &told[0][44..48]), (1, 2, &1460u32.to_be_bytes()[..]));
    is_conserved(&lab);
}

#[test]
fn without_path_mtu_discovery_df_does_not_count() {
    let mut lab = lab_under("pmtu_disc = false", "tunnel");
    let mut parts = cut(&request(&v4(), 9, 2000), 1480, 7);
    for part in &mut parts {
        part[6] |= 0x40;
        part[10..12].fill(0);
        let sum = crate::frames::checksum(&part[..20]);
        part[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    give_all(&mut lab, &parts);
    let out = sent_to(&mut lab, 1, STATION);
    assert_eq!(out.len(), 2, "{:?}", lab.drops());
    assert!(out.iter().all(|packet| packet[6] & 0x40 == 0 && packet.len() <= 1500));
    assert_eq!(joined(&out).len(), 2048);
    is_conserved(&lab);
}

#[test]
fn a_removed_server_s_connection_ends_for_fragments_too() {
    let ends = v4();
    let udp = request(&ends, 9, 100);
    let syn = packet(ends.client, ends.vip, 6, &tcp(9, 80, SYN, 88));
    let ack = packet(ends.client, ends.vip, 6, &tcp(9, 80, ACK, 88));
    for (protocol, policy, first, next, left) in
        [("udp", "drop", &udp, &udp, 1), ("tcp", "drop", &syn, &ack, 1), ("tcp", "reset", &syn, &ack, 0)]
    {
        let own = format!("[services.policy]\non_server_down = \"{policy}\"");
        let mut lab = lab_of(protocol, "nat", 1, 1, &own);
        give_all(&mut lab, &cut(first, 56, 7));
        assert_eq!(sent_to(&mut lab, 1, STATION).len(), 2);
        lab.apply_text(&text([v4(), v6()], protocol, "nat", 0, &own));
        lab.settle();
        give_all(&mut lab, &cut(next, 56, 8));
        assert_eq!(sent(&mut lab, 1), []);
        assert_eq!(lab.dropped(DropReason::ServerGone), 2, "{:?}", lab.drops());
        assert_eq!(lab.connections().len(), left, "{protocol} {policy}");
        is_conserved(&lab);
    }
}

#[test]
fn a_stray_datagram_of_a_server_is_answered_if_asked_for() {
    for (policy, answers) in [("nat_icmp_send = true", 1), ("nat_icmp_send = false", 0)] {
        let mut lab = lab_under(policy, "nat");
        for part in cut(&datagram((v4().servers[0], 8080), (v4().client, 77), 2000), 1400, 7) {
            give(&mut lab, 1, STATION, &part);
        }
        assert_eq!(sent_to(&mut lab, 1, STATION).len(), answers);
        assert_eq!(lab.dropped(DropReason::NotForUs), 2);
        is_conserved(&lab);
    }
}

#[test]
fn what_cannot_be_wrapped_as_a_whole_is_wrapped_in_pieces() {
    // destination options before the fragment header
    let whole = request(&v6(), 9, 2000);
    let mut lab = lab("tunnel", 1, 1, "");
    for part in cut(&whole, 1400, 7) {
        let mut behind = part[..40].to_vec();
        behind[6] = 60;
        let len = (part.len() - 40 + 8) as u16;
        behind[4..6].copy_from_slice(&len.to_be_bytes());
        behind.extend([44, 0, 1, 4, 0, 0, 0, 0]);
        behind.extend(&part[40..]);
        give_all(&mut lab, [&behind]);
    }
    let out = sent_to(&mut lab, 1, STATION);
    assert_eq!(out.len(), 2, "{:?}", lab.drops());
    assert!(out.iter().all(|packet| packet[6] == 41 && packet[46] == 60));
    is_conserved(&lab);
}

#[test]
fn without_buffers_no_part_of_a_datagram_leaves() {
    let mut lab = lab("tunnel", 1, 1, "");
    lab.workers[0].io_mut().pool = 2;
    give_all(&mut lab, &cut(&request(&v4(), 9, 3000), 1400, 7));
    assert_eq!(sent(&mut lab, 1), []);
    assert_eq!(lab.dropped(DropReason::NoBuffer), 3);
    is_conserved(&lab);
}

#[test]
fn only_a_fragment_to_the_director_s_station_is_taken_however_it_is_marked() {
    for workers in [1, 3] {
        let mut lab = lab("dr", 1, workers, "");
        let parts = cut(&request(&v4(), 9, 3000), 1400, 7);
        // to everyone, and as workers mark what they hand over
        for to in [[0xff; 6], [3, 17, 0, 9, 0, 80]] {
            for part in &parts {
                lab.put(&ethernet(to, ROUTER, 0x0800, part));
            }
        }
        lab.settle();
        assert_eq!((lab.dropped(DropReason::NotForUs), lab.director.totals().held), (6, 0));
        lab.put(&ethernet([2, 0, 0, 0, 0, 0x99], ROUTER, 0x0800, &parts[0]));
        lab.settle();
        assert_eq!(lab.dropped(DropReason::NotOurMac), 1);
        is_conserved(&lab);
    }
}

#[test]
fn a_ping_in_fragments_is_not_answered() {
    let mut lab = lab("dr", 1, 1, "");
    let ends = v4();
    let ping = packet(ends.client, ends.vip, 1, &icmp([&[8, 0, 0, 0, 0, 1, 0, 1][..], &[7; 2000]].concat()));
    give_all(&mut lab, &cut(&ping, 1400, 7));
    assert_eq!(sent(&mut lab, 0), []);
    assert_eq!(lab.dropped(DropReason::Ipv4Fragment), 2);
}

#[test]
fn a_tcp_segment_in_fragments_moves_the_state_once() {
    let mut lab = lab_of("tcp", "dr", 1, 3, "");
    let ends = v4();
    let segment = packet(ends.client, ends.vip, 6, &tcp(9, 80, SYN, 100));
    give_all(&mut lab, cut(&segment, 40, 7).iter().rev());
    assert_eq!(sent(&mut lab, 1).len(), 3);
    assert_eq!(lab.counts(), [(1, 0)]);
    let rows = lab.connections();
    assert_eq!(rows[0].state, lb_dataplane::state::State::SynRecv);
}

#[test]
fn linux_s_fragments_are_sent_as_linux_sends_them() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/golden/wire.json")).expect("a recording");
    let hex = |value: &serde_json::Value| {
        let text = value["hex"].as_str().expect("hex");
        (0..text.len() / 2)
            .map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hex"))
            .collect::<Vec<_>>()
    };
    let mut seen = 0;
    for case in file["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let Some((_, forwarding)) =
            name.strip_prefix("frag-").map(|rest| rest.rsplit_once('-').unwrap_or(("", rest)))
        else {
            continue;
        };
        let forwarding = if forwarding == "ipip" { "tunnel" } else { forwarding };
        for workers in [1, 3] {
            let text = format!(
                "[[ports]]\nname = \"wan\"\ndevice = \"null\"\naddresses = [\"192.168.1.1/24\"]\n\
                 [[ports]]\nname = \"lan\"\ndevice = \"ring:lan\"\naddresses = [\"10.1.0.1/24\"]\n\
                 [[services]]\nname = \"s\"\nvip = \"10.0.0.100\"\nport = 80\nprotocol = \"udp\"\nscheduler = \"rr\"\n\
                 forwarding = \"{forwarding}\"\nservers = [{{ address = \"10.1.0.11\" }}]\n"
            );
            let mut lab = Lab::of(&text, workers);
            lab.put_on(
                1,
                &crate::frames::arp(2, DIRECTOR, (server_mac(11), [10, 1, 0, 11]), (DIRECTOR, [10, 1, 0, 1])),
            );
            lab.settle();
            lab.clear();
            for step in case["steps"].as_array().expect("steps") {
                give(&mut lab, 0, ROUTER, &hex(step));
                let expected: Vec<_> = step["out"].as_array().expect("out").iter().map(hex).collect();
                let got = sent_to(&mut lab, 1, server_mac(11));
                let unnumbered = |packets: &[Vec<u8>]| {
                    let blank = |packet: &Vec<u8>| {
                        let mut packet = packet.clone();
                        if forwarding == "tunnel" {
                            // the outer identification is the director's own choice
                            packet[4..6].fill(0);
                            packet[10..12].fill(0);
                        }
                        packet
                    };
                    packets.iter().map(blank).collect::<Vec<_>>()
                };
                assert_eq!(unnumbered(&got), unnumbered(&expected), "{name}");
                seen += expected.len();
            }
        }
    }
    assert_eq!(seen, 24, "four cases of three frames, twice");
}

//! ICMP errors about the director's own tunnels: clients hear of them as if about their own packets.

use std::net::IpAddr;

use lb_dataplane::DropReason;

use crate::arms::{
    Ends, ROUTER, datagram, framed, hopped, is_conserved, lab, lab_between, packet, sent_to, v4, v6,
};
use crate::frames::{checksum, icmp, icmp6, server_mac};
use crate::lab::Lab;

const STATION: [u8; 6] = server_mac(12);
const KINDS: [&str; 4] = [
    "",
    "tunnel = { type = \"gue\", port = 6080, checksum = \"full\" }",
    "tunnel = { type = \"gre\" }",
    "tunnel = { type = \"gre\", checksum = \"full\" }",
];

/// A packet that may not be cut.
fn request(ends: &Ends, port: u16) -> Vec<u8> {
    let mut packet = datagram((ends.client, port), (ends.vip, 80), 300);
    if ends.client.is_ipv4() {
        packet[6] = 0x40;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// A router between director and server says that `outer` is too big for 1400 bytes, or whatever `kind` means.
fn error(from: IpAddr, to: IpAddr, kind: [u8; 2], mtu: u32, outer: &[u8]) -> Vec<u8> {
    let message = [&kind[..], &[0, 0], &mtu.to_be_bytes(), outer].concat();
    match (from, to) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => packet(from, to, 58, &icmp6(src, dst, message)),
        _ => packet(from, to, 1, &icmp(message)),
    }
}

fn too_big(ends: &Ends, outer: &[u8]) -> Vec<u8> {
    let kind = if ends.own.is_ipv4() { [3, 4] } else { [2, 0] };
    error(ends.servers[1], ends.own, kind, 1400, outer)
}

/// What comes out of the tunnel's entry for a packet of this port.
fn outer(lab: &mut Lab, ends: &Ends, port: u16) -> Vec<u8> {
    lab.put(&framed(ROUTER, &request(ends, port)));
    let out = sent_to(lab, 1, STATION);
    assert_eq!(out.len(), 1, "{:?}", lab.drops());
    out[0].clone()
}

#[test]
fn the_client_hears_of_the_mtu_that_fits_into_the_tunnel() {
    for (kind, workers) in KINDS.into_iter().flat_map(|kind| [(kind, 1), (kind, 3)]) {
        let mut lab = lab("tunnel", 1, workers, kind);
        for ends in [v4(), v6()] {
            for port in 1..6 {
                let outer = outer(&mut lab, &ends, port);
                let inner = hopped(request(&ends, port));
                let overhead = outer.len() - inner.len();
                lab.put_on(1, &framed(server_mac(13), &too_big(&ends, &outer)));
                let told = sent_to(&mut lab, 0, ROUTER);
                assert_eq!(told.len(), 1, "{kind}: {:?}", lab.drops());
                let told = &told[0];
                let (header, src, dst) = match (ends.vip, ends.client) {
                    (IpAddr::V4(vip), IpAddr::V4(client)) => {
                        assert_eq!((told[20], told[21]), (3, 4));
                        assert_eq!(checksum(&told[20..]), 0);
                        (20, vip.octets().to_vec(), client.octets().to_vec())
                    }
                    (IpAddr::V6(vip), IpAddr::V6(client)) => {
                        assert_eq!((told[40], told[41]), (2, 0));
                        (40, vip.octets().to_vec(), client.octets().to_vec())
                    }
                    _ => panic!("mixed families"),
                };
                let ends_at = if header == 20 { 12 } else { 8 };
                assert_eq!(told[ends_at..header], [src, dst].concat());
                let mtu = u32::from_be_bytes(told[header + 4..header + 8].try_into().unwrap());
                assert_eq!(mtu as usize, 1400 - overhead, "{kind}");
                assert_eq!(told[header + 8..], inner, "{kind}: it quotes the client's packet");
            }
        }
        assert_eq!(lab.drops(), []);
        is_conserved(&lab);
    }
}

#[test]
fn the_client_s_family_need_not_be_the_tunnel_s() {
    for workers in [1, 3] {
        let (four, six) = (v4(), v6());
        let mixed = [
            Ends { servers: six.servers, own: six.own, ..four },
            Ends { servers: four.servers, own: four.own, ..six },
        ];
        let mut lab = lab_between(mixed, "udp", "tunnel", 1, workers, "");
        for (ends, kind, at) in [(mixed[0], [3, 4], 20), (mixed[1], [2, 0], 40)] {
            for port in 1..4 {
                let outer = outer(&mut lab, &ends, port);
                lab.put_on(1, &framed(server_mac(13), &too_big(&ends, &outer)));
                let told = sent_to(&mut lab, 0, ROUTER);
                assert_eq!(told.len(), 1, "{:?}", lab.drops());
                assert_eq!(told[0][at..at + 2], kind);
                assert_eq!(told[0][at + 8..], hopped(request(&ends, port)));
            }
        }
        is_conserved(&lab);
    }
}

#[test]
fn a_ttl_that_ran_out_in_the_tunnel_is_told_too() {
    let mut lab = lab("tunnel", 1, 1, "");
    for (ends, kind, at) in [(v4(), [11, 0], 20), (v6(), [3, 0], 40)] {
        let outer = outer(&mut lab, &ends, 1);
        let error = error(ends.servers[1], ends.own, kind, 0, &outer);
        lab.put_on(1, &framed(server_mac(13), &error));
        let told = sent_to(&mut lab, 0, ROUTER);
        assert_eq!((told.len(), &told[0][at..at + 2]), (1, &kind[..]));
    }
}

#[test]
fn an_error_about_no_packet_of_ours_reaches_nobody() {
    let ends = v4();
    let mut lab = lab("tunnel", 1, 3, "");
    let outer = outer(&mut lab, &ends, 1);
    let change = |at: usize, byte: u8| {
        let mut outer = outer.clone();
        outer[at] = byte;
        too_big(&ends, &outer)
    };
    let mut gre = [&outer[..20], &[0, 0, 8, 0], &outer[20..]].concat();
    gre[9] = 47;
    let gre = too_big(&ends, &gre);
    let cases = [
        ("another tunnel's end", change(19, 13)),
        ("another director's tunnel", change(15, 77)),
        ("another client's port", change(41, 2)),
        ("another kind of tunnel", gre),
        ("another service", change(43, 81)),
    ];
    for (n, (what, error)) in cases.iter().enumerate() {
        lab.put_on(1, &framed(server_mac(13), error));
        assert_eq!(sent_to(&mut lab, 0, ROUTER), [] as [Vec<u8>; 0], "{what}");
        let dropped = lab.dropped(DropReason::IcmpErrorUnmatched);
        assert_eq!(dropped, n as u64 + 1, "{what}: {:?}", lab.drops());
    }
    is_conserved(&lab);
}

#[test]
fn a_client_that_lets_routers_cut_is_not_bothered() {
    let ends = v4();
    let mut lab = lab("tunnel", 1, 1, "");
    lab.put(&framed(ROUTER, &datagram((ends.client, 1), (ends.vip, 80), 300)));
    let outer = sent_to(&mut lab, 1, STATION).remove(0);
    let before = lab.director.totals().delivered;
    lab.put_on(1, &framed(server_mac(13), &too_big(&ends, &outer)));
    assert_eq!(sent_to(&mut lab, 0, ROUTER), [] as [Vec<u8>; 0]);
    assert_eq!(lab.director.totals().delivered, before + 1);
    is_conserved(&lab);
}

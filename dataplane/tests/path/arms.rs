//! A director between two networks of both families, and datagrams that are cut and put together by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::frames::{DIRECTOR, arp, checksum, ethernet, icmp6, ipv4, ipv6, server_mac, udp};
use crate::lab::Lab;

/// The router to the clients, and the servers.
pub const ROUTER: [u8; 6] = server_mac(0xfe);

const PORTS: &str = r#"
[[ports]]
name = "wan"
device = "null"
addresses = ["192.168.150.11/24", "fd00:150::11/64"]
gateway = ["192.168.150.254", "fd00:150::254"]

[[ports]]
name = "lan"
device = "ring:lan"
addresses = ["10.1.0.1/24", "fd00:b::1/64"]
"#;

/// Who talks in one family.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub client: IpAddr,
    pub vip: IpAddr,
    /// Servers 12 and 13.
    pub servers: [IpAddr; 2],
    /// The director towards the servers.
    pub own: IpAddr,
}

pub fn v4() -> Ends {
    let ip = |text: &str| text.parse().expect("an address");
    let servers = [ip("10.1.0.12"), ip("10.1.0.13")];
    Ends { client: ip("203.0.113.1"), vip: ip("192.168.150.100"), servers, own: ip("10.1.0.1") }
}

pub fn v6() -> Ends {
    let ip = |text: &str| text.parse().expect("an address");
    let servers = [ip("fd00:b::12"), ip("fd00:b::13")];
    Ends { client: ip("2001:db8::1"), vip: ip("fd00:150::100"), servers, own: ip("fd00:b::1") }
}

/// A UDP service of each family with so many servers on port 8080, which DR and tunnels leave at 80. Next hops have
/// answered. `more`: further lines for the services.
pub fn lab(forwarding: &str, servers: usize, workers: u16, more: &str) -> Lab {
    lab_of("udp", forwarding, servers, workers, more)
}

pub fn lab_of(protocol: &str, forwarding: &str, servers: usize, workers: u16, more: &str) -> Lab {
    lab_between([v4(), v6()], protocol, forwarding, servers, workers, more)
}

/// As [`lab`] with one worker and one server, under this policy of the director's.
pub fn lab_under(policy: &str, forwarding: &str) -> Lab {
    resolved(&format!("[policy]\n{policy}\n{}", text([v4(), v6()], "udp", forwarding, 1, "")), 1, 1)
}

/// As [`lab_of`], from these virtual addresses to these servers.
pub fn lab_between(
    ends: [Ends; 2],
    protocol: &str,
    forwarding: &str,
    servers: usize,
    workers: u16,
    more: &str,
) -> Lab {
    resolved(&text(ends, protocol, forwarding, servers, more), servers, workers)
}

/// The configuration of such a lab.
pub fn text(ends: [Ends; 2], protocol: &str, forwarding: &str, servers: usize, more: &str) -> String {
    let port = if forwarding == "nat" { ", port = 8080" } else { "" };
    let mut text = PORTS.to_owned();
    for (name, ends) in ["v4", "v6"].into_iter().zip(ends) {
        let list: Vec<_> =
            ends.servers[..servers].iter().map(|at| format!("{{ address = \"{at}\"{port} }}")).collect();
        text += &format!(
            "[[services]]\nname = \"{name}\"\nvip = \"{}\"\nport = 80\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
             forwarding = \"{forwarding}\"\nservers = [{}]\n{more}\n",
            ends.vip,
            list.join(", ")
        );
    }
    text
}

/// Gateways and servers have answered.
fn resolved(text: &str, servers: usize, workers: u16) -> Lab {
    let mut lab = Lab::of(text, workers);
    let arms: [(u16, &[u8], [&str; 4]); 2] = [
        (0, &[0xfe], ["192.168.150.254", "192.168.150.11", "fd00:150::254", "fd00:150::11"]),
        (1, &[12, 13][..servers], ["10.1.0.", "10.1.0.1", "fd00:b::", "fd00:b::1"]),
    ];
    for (device, stations, [from4, to4, from6, to6]) in arms {
        for n in stations {
            let name = |from: &str| if device == 0 { from.to_owned() } else { format!("{from}{n}") };
            let ip4 = |text: &str| text.parse::<Ipv4Addr>().expect("an address").octets();
            let ip6 = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
            let mac = server_mac(*n);
            lab.put_on(device, &arp(2, DIRECTOR, (mac, ip4(&name(from4))), (DIRECTOR, ip4(to4))));
            lab.put_on(device, &advertisement(mac, ip6(&name(from6)), ip6(to6)));
            lab.settle();
        }
    }
    (0..2).for_each(|device| drop(lab.sent_on(device)));
    lab
}

fn advertisement(mac: [u8; 6], from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &from.octets(), &[2, 1], &mac].concat();
    ethernet(DIRECTOR, mac, 0x86dd, &ipv6(from, to, 58, 255, &icmp6(from, to, message)))
}

/// An IP packet without DF, TTL 64.
pub fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, protocol, 64, false, payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, protocol, 64, payload),
        _ => panic!("mixed families"),
    }
}

/// A UDP datagram of `data` bytes with its checksum.
pub fn datagram(src: (IpAddr, u16), dst: (IpAddr, u16), data: usize) -> Vec<u8> {
    let mut udp = udp(src.1, dst.1, data);
    udp[8..].iter_mut().enumerate().for_each(|(n, byte)| *byte = (n / 8 + n) as u8);
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let len = (udp.len() as u32).to_be_bytes();
    let sum = checksum(&[&octets(src.0)[..], &octets(dst.0), &len, &[0, 0, 0, 17], &udp].concat());
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet(src.0, dst.0, 17, &udp)
}

/// The IPv4 header's checksum made right.
fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The fragments of a packet, `size` bytes of payload each (a multiple of 8).
pub fn cut(packet: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let v4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if v4 { 20 } else { 40 });
    let one = |(n, part): (usize, &[u8])| {
        let (at, more) = (n * size, n * size + part.len() < payload.len());
        let mut fragment = header.to_vec();
        if v4 {
            fragment[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            fragment[4..6].copy_from_slice(&id.to_be_bytes());
            fragment[6..8].copy_from_slice(&((at as u16 / 8) | (u16::from(more) << 13)).to_be_bytes());
            fragment.extend(part);
            return summed(fragment);
        }
        fragment[4..6].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        fragment[6] = 44;
        let [a, b] = (at as u16 | u16::from(more)).to_be_bytes();
        let [c, d] = id.to_be_bytes();
        fragment.extend([header[6], 0, a, b, 0, 0, c, d]);
        fragment.extend(part);
        fragment
    };
    payload.chunks(size).enumerate().map(one).collect()
}

/// The packet whose fragments these are, in order, its IPv4 identification 1; what is whole already stays.
pub fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let v4 = fragments[0][0] >> 4 == 4;
    if !v4 && fragments[0][6] != 44 {
        assert_eq!(fragments.len(), 1);
        return fragments[0].clone();
    }
    let mut whole = fragments[0][..if v4 { 20 } else { 40 }].to_vec();
    let (mut payload, mut more) = (Vec::<u8>::new(), true);
    for fragment in fragments {
        assert!(more, "one end");
        let begin = if v4 { 20 } else { 48 };
        let at = if v4 { 6 } else { 42 };
        let word = u16::from_be_bytes([fragment[at], fragment[at + 1]]);
        let offset = if v4 { (word & 0x1fff) * 8 } else { word & !7 };
        assert_eq!(usize::from(offset), payload.len(), "in order, without a gap");
        more = if v4 { word & 0x2000 != 0 } else { word & 1 != 0 };
        if v4 {
            assert_eq!(checksum(&fragment[..20]), 0);
        }
        payload.extend(&fragment[begin..]);
    }
    assert!(!more, "to the end");
    if v4 {
        whole[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        let df = whole[6] & 0x40;
        whole[4..8].copy_from_slice(&[0, 1, df, 0]);
        whole.extend(payload);
        return summed(whole);
    }
    whole[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    whole[6] = fragments[0][40];
    whole.extend(payload);
    whole
}

/// The packet after one hop.
pub fn hopped(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        return summed(packet);
    }
    packet[7] -= 1;
    packet
}

/// The frame of a packet to the director.
pub fn framed(from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    ethernet(DIRECTOR, from, if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
}

/// Whom frames went to on a device, and their packets.
pub fn sent(lab: &mut Lab, device: usize) -> Vec<([u8; 6], Vec<u8>)> {
    lab.settle();
    lab.sent_on(device)
        .into_iter()
        .map(|frame| (frame[..6].try_into().expect("an address"), frame[14..].to_vec()))
        .collect()
}

/// Packets alone, all to the same station.
pub fn sent_to(lab: &mut Lab, device: usize, station: [u8; 6]) -> Vec<Vec<u8>> {
    let sent = sent(lab, device);
    sent.into_iter()
        .map(|(to, packet)| {
            assert_eq!(to, station);
            packet
        })
        .collect()
}

pub fn is_conserved(lab: &Lab) {
    let totals = lab.director.totals();
    assert_eq!(
        totals.rx + totals.originated,
        totals.tx + totals.delivered + totals.dropped + totals.held,
        "{totals:?} {:?}",
        lab.drops()
    );
}

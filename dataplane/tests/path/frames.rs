//! Frames for the tests, built by hand: their builder must not be the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
pub const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0x01];

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// RFC 1071 in its plainest form.
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

pub fn ethernet(dst: [u8; 6], src: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &kind.to_be_bytes(), payload].concat()
}

pub fn vlan(id: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &id.to_be_bytes(), &frame[12..]].concat()
}

pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, ttl: u8, df: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 1, if df { 0x40 } else { 0 }, 0, ttl, protocol, 0, 0];
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, next, hop_limit];
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    header.extend(src.octets());
    header.extend(dst.octets());
    header.extend(payload);
    header
}

pub fn tcp(src_port: u16, dst_port: u16, flags: u8, data: usize) -> Vec<u8> {
    let mut segment = vec![0; 20 + data];
    segment[..2].copy_from_slice(&src_port.to_be_bytes());
    segment[2..4].copy_from_slice(&dst_port.to_be_bytes());
    segment[12] = 0x50;
    segment[13] = flags;
    segment
}

pub fn udp(src_port: u16, dst_port: u16, data: usize) -> Vec<u8> {
    let mut datagram = vec![0; 8 + data];
    datagram[..2].copy_from_slice(&src_port.to_be_bytes());
    datagram[2..4].copy_from_slice(&dst_port.to_be_bytes());
    datagram[4..6].copy_from_slice(&(8 + data as u16).to_be_bytes());
    datagram
}

/// An SCTP packet with one chunk of this type and nothing in it.
pub fn sctp(src_port: u16, dst_port: u16, chunk: u8) -> Vec<u8> {
    [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &[0; 8], &[chunk, 0, 0, 4]].concat()
}

/// A frame of IP `payload` from the client's station to the director's.
pub fn from_client(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src.parse().expect("an address"), dst.parse().expect("an address")) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(DIRECTOR, CLIENT, 0x0800, &ipv4(src, dst, protocol, 64, true, payload))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ethernet(DIRECTOR, CLIENT, 0x86dd, &ipv6(src, dst, protocol, 64, payload))
        }
        _ => panic!("mixed families"),
    }
}

/// A TCP segment of the client's port to port 80 of the VIP.
pub fn segment(port: u16, flags: u8) -> Vec<u8> {
    from_client("192.168.150.1", "192.168.150.100", 6, &tcp(port, 80, flags, 0))
}

pub fn arp(operation: u8, to: [u8; 6], sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    ethernet(to, sender.0, 0x0806, &[&head[..], &sender.0, &sender.1, &target.0, &target.1].concat())
}

/// The MAC address of server `n`.
pub const fn server_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// An ICMPv6 message with its checksum.
pub fn icmp6(src: Ipv6Addr, dst: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let mut pseudo =
        [&src.octets()[..], &dst.octets(), &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58]].concat();
    pseudo.extend(&message);
    let sum = checksum(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ICMP message with its checksum.
pub fn icmp(mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

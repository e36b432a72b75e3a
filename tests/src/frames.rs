//! Ethernet frames byte by byte, and a raw socket that sends them.
//!
//! Written from the RFCs, not from the packet path: it is what the packet path is checked against.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use crate::netns::Netns;

/// A MAC address.
pub type Mac = [u8; 6];

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// TCP's SYN flag.
pub const SYN: u8 = 0x02;
/// TCP's ACK flag.
pub const ACK: u8 = 0x10;

/// Reads `aa:bb:cc:dd:ee:ff`.
pub fn mac(text: &str) -> Result<Mac> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    let bytes = bytes.with_context(|| format!("'{text}' is no MAC address"))?;
    Mac::try_from(bytes).ok().with_context(|| format!("'{text}' is no MAC address"))
}

/// An Ethernet frame (IEEE 802.3) without FCS.
pub fn ethernet(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

/// Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // At most 16 bits are left after folding.
    !(sum as u16)
}

/// An IPv4 packet (RFC 791) with TTL 64 and no options.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    set_ipv4_checksum(&mut header);
    [&header[..], payload].concat()
}

/// Makes the checksum of an IPv4 header of 20 bytes right again.
pub fn set_ipv4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IPv6 packet (RFC 8200) with this hop limit.
pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, hop_limit]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

/// A TCP segment (RFC 9293) without data. Its checksum is zero: a director that does DR does not look at it.
pub fn tcp(src_port: u16, dst_port: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20);
    segment.extend(src_port.to_be_bytes());
    segment.extend(dst_port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// A TCP segment with its checksum (RFC 9293 section 3.1), so that a real server takes it.
pub fn tcp_checked(src: Ipv4Addr, dst: Ipv4Addr, src_port: u16, dst_port: u16, flags: u8) -> Vec<u8> {
    let mut segment = tcp(src_port, dst_port, flags);
    let length = (segment.len() as u16).to_be_bytes();
    let pseudo = [&src.octets()[..], &dst.octets(), &[0, 6], &length, &segment].concat();
    segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    segment
}

/// A UDP datagram (RFC 768) without a checksum.
pub fn udp(src_port: u16, dst_port: u16, data: &[u8]) -> Vec<u8> {
    let length = ((8 + data.len()) as u16).to_be_bytes();
    [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &length, &[0, 0], data].concat()
}

/// An ICMP echo request (RFC 792) with 8 bytes of data.
pub fn icmp_echo() -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ARP request for `target` (RFC 826).
pub fn arp_request(sender: Mac, sender_ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender, &sender_ip.octets(), &[0; 6], &target.octets()].concat()
}

/// Sends whole frames on one interface.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    to: LinkAddr,
}

impl Wire {
    /// Opens a packet socket on `interface` of `netns`.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        netns.enter(|| {
            let mut addresses = getifaddrs()?.filter(|row| row.interface_name == interface);
            let to = addresses.find_map(|row| row.address?.as_link_addr().copied());
            let to = to.with_context(|| format!("{interface} has no link address"))?;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            Ok(Self { socket, to })
        })
    }

    /// Sends a frame of at least an Ethernet header: the kernel takes none that is shorter.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.to, MsgFlags::empty())
            .with_context(|| format!("send a frame of {} bytes", frame.len()))?;
        ensure!(sent == frame.len(), "{sent} of {} bytes were sent", frame.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv4_header_of_a_well_known_example_has_its_checksum() {
        // RFC 1071 section 3's sum over 00 01 f2 03 f4 f5 f6 f7 is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        let packet = ipv4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, 17, &udp(1, 2, b"x"));
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(packet.len(), 29);
    }

    #[test]
    fn a_mac_address_is_read_or_refused() {
        assert_eq!(mac("02:00:00:00:00:ff").unwrap(), [2, 0, 0, 0, 0, 255]);
        assert!(mac("02:00").is_err());
        assert!(mac("02:00:00:00:00:zz").is_err());
    }
}

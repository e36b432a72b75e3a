//! PROXY protocol, version 2: a client's address before the first byte of its data.
//!
//! Source: haproxy.org, "The PROXY protocol", section 2.2. In a TCP connection the header stands before the first byte
//! of data, and all that follows is shifted by its length ([`seq`](super::seq)); a UDP datagram carries its own.

use std::net::IpAddr;

use super::insert::insert;
use super::options;
use crate::io::Packet;
use crate::parse::{Flow, L4};

/// Section 2.2: by this a server knows the header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// Address families: IPv4, IPv6.
const FAMILY: [u8; 2] = [0x10, 0x20];
/// Transport protocols: stream, datagram.
const TRANSPORT: [u8; 2] = [1, 2];

/// Longest header, over IPv6, bytes.
pub const MAX_LEN: usize = 52;

/// Length of a header, bytes.
pub const fn len(is_ipv6: bool) -> u16 {
    if is_ipv6 { MAX_LEN as u16 } else { 28 }
}

/// A header as it stands before the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Header {
    /// Says that `client` talks to `vip`: addresses and ports in host order. `None`: of different families, or SCTP,
    /// which the protocol does not know.
    pub fn new(protocol: L4, client: (IpAddr, u16), vip: (IpAddr, u16)) -> Option<Self> {
        let transport = match protocol {
            L4::Tcp => TRANSPORT[0],
            L4::Udp => TRANSPORT[1],
            L4::Sctp => return None,
        };
        let mut bytes = [0; MAX_LEN];
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12] = VERSION_AND_COMMAND;
        let (family, ports) = match (client.0, vip.0) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                bytes[16..20].copy_from_slice(&client.octets());
                bytes[20..24].copy_from_slice(&vip.octets());
                (FAMILY[0], 24)
            }
            (IpAddr::V6(client), IpAddr::V6(vip)) => {
                bytes[16..32].copy_from_slice(&client.octets());
                bytes[32..48].copy_from_slice(&vip.octets());
                (FAMILY[1], 48)
            }
            _ => return None,
        };
        bytes[13] = family | transport;
        let len = ports + 4;
        bytes[14..16].copy_from_slice(&((len - 16) as u16).to_be_bytes());
        bytes[ports..ports + 2].copy_from_slice(&client.1.to_be_bytes());
        bytes[ports + 2..len].copy_from_slice(&vip.1.to_be_bytes());
        Some(Self { bytes, len })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Puts `header` before the data of a packet of `flow`, whose IP header is at `l3`; checksums are updated.
///
/// A UDP checksum that was left out stays out. `mtu`: of the link to the server. Afterwards the packet, and so its
/// `ip_len`, is longer by the header; offsets up to the transport header are as before. `false`: the packet would
/// not fit the link any more, or there is no room in front; unchanged.
pub fn insert_header<A, P: Packet>(
    packet: &mut P,
    l3: u16,
    flow: &Flow<A>,
    header: &Header,
    mtu: u16,
) -> bool {
    put(packet, usize::from(l3), flow, header.bytes(), mtu).is_some()
}

fn put<A, P: Packet>(packet: &mut P, l3: usize, flow: &Flow<A>, header: &[u8], mtu: u16) -> Option<()> {
    let l4 = usize::from(flow.l4);
    if usize::from(flow.ip_len) + header.len() > usize::from(mtu) {
        return None;
    }
    match flow.protocol {
        L4::Tcp => {
            let data = l4 + options::header(packet.bytes_mut(), l4)?.len();
            let delta = insert(packet, l3, data, header)?;
            delta.apply(packet.bytes_mut(), l4 + 16).map(|_| ())
        }
        L4::Udp => {
            let fields = *packet.bytes().get(l4..)?.first_chunk::<8>()?;
            let len = u16::from_be_bytes([fields[4], fields[5]]).checked_add(header.len() as u16)?;
            let mut delta = insert(packet, l3, l4 + 8, header)?;
            delta.replace16(packet.bytes_mut(), l4 + 4, len)?;
            // RFC 768: zero says that there is none
            if fields[6..] != [0, 0] && delta.apply(packet.bytes_mut(), l4 + 6)? == 0 {
                packet.bytes_mut().get_mut(l4 + 6..l4 + 8)?.fill(0xff);
            }
            Some(())
        }
        L4::Sctp => None,
    }
}

#[cfg(test)]
mod tests;

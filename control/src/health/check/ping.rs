//! ICMP echo. Source: RFC 792, RFC 4443 section 4.

use std::hash::{BuildHasher, RandomState};

use lb_config::health::FullTarget;

use super::{Failure, Outcome, socket};

pub(super) async fn check(target: &FullTarget) -> Result<Outcome, Failure> {
    let (socket, header) = socket::icmp(target)?;
    let random = RandomState::new().hash_one(()).to_be_bytes();
    let v4 = target.to.is_ipv4();
    socket.send(&request(v4, random)).await?;
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let packet = buffer.get(..length).unwrap_or_default();
        let message = if header { behind_header(packet) } else { packet };
        if is_reply(message, v4, random) {
            return Ok(Outcome::pass("answered"));
        }
    }
}

/// An echo request that carries `random`, whose first bytes are its identifier and number as well. The kernel gives a
/// datagram socket another identifier.
fn request(v4: bool, random: [u8; 8]) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = if v4 { 8 } else { 128 };
    packet[4..8].copy_from_slice(&random[..4]);
    packet[8..].copy_from_slice(&random);
    if v4 {
        // The kernel fills in that of ICMPv6, which covers addresses.
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        packet[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    packet
}

/// A raw IPv4 socket gives the IP header too.
fn behind_header(packet: &[u8]) -> &[u8] {
    let length = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    packet.get(length..).unwrap_or_default()
}

fn is_reply(message: &[u8], v4: bool, random: [u8; 8]) -> bool {
    let kind = if v4 { 0 } else { 129 };
    message.first() == Some(&kind) && message.get(8..16) == Some(&random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_on_the_wire() {
        let random = [0x12, 0x34, 0, 1, 0, 0, 0xff, 0xff];
        // ~(0800 + 1234 + 0001 + 1234 + 0001 + 0000 + ffff) in one's complement
        let want = [8, 0, 0xd3, 0x95, 0x12, 0x34, 0, 1, 0x12, 0x34, 0, 1, 0, 0, 0xff, 0xff];
        assert_eq!(request(true, random), want);
        assert_eq!(request(false, random)[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn only_the_reply_to_the_request_counts() {
        let random = [1, 2, 3, 4, 5, 6, 7, 8];
        let mut reply = request(true, random);
        assert!(!is_reply(&reply, true, random));
        reply[0] = 0;
        assert!(is_reply(&reply, true, random));
        assert!(!is_reply(&reply, true, [9; 8]) && !is_reply(&reply[..15], true, random));
        let mut whole = vec![0x45];
        whole.resize(20, 0);
        whole.extend_from_slice(&reply);
        assert_eq!(behind_header(&whole), reply);
    }
}

//! The frames of a site: what clients send to the VIP and what servers answer, over IPv4 and IPv6, checksums right.
//!
//! Flow `n` is a client of an address and port that look random and are one flow's alone (RFC 4814), computed from `n`.

/// The director's MAC address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// TCP flags: a first packet.
pub const SYN: u8 = 0x02;
/// TCP flags: the server's answer to it.
pub const SYN_ACK: u8 = 0x12;
/// TCP flags: an established flow's packet.
pub const ACK: u8 = 0x10;
/// TCP flags: one with data.
pub const PUSH: u8 = 0x18;
/// TCP flags: a last packet.
pub const FIN: u8 = 0x11;

/// Length of a frame over IPv4, bytes: the least of Ethernet, without FCS.
pub const LEN4: usize = 60;
/// Length of a frame over IPv6, bytes.
pub const LEN6: usize = 74;

/// 192.168.0.0, the network of director, servers and gateway; hosts are told apart by their last 16 bits.
const NET4: u32 = 0xc0a8_0000;
/// fd00:150::, the same over IPv6.
const NET6: [u8; 14] = [0xfd, 0, 1, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// First half of a client's IPv6 address, 2001:db8:1::.
const CLIENTS6: u64 = 0x2001_0db8_0001_0000;

/// Last 16 bits of the director's address: 192.168.150.11, fd00:150::960b.
pub const DIRECTOR: u16 = 0x960b;
/// The same of the gateway to the clients: .150.1.
pub const GATEWAY: u16 = 0x9601;
/// The same of the VIP: .150.100.
pub const VIP: u16 = 0x9664;
/// The same of the first server: .160.1. Others follow.
pub const SERVERS: u16 = 0xa001;
/// The same of the first local address: .170.1. Others follow.
pub const LOCALS: u16 = 0xaa01;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The address of a host of the site's network, as text.
    pub fn host(self, host: u16) -> String {
        match self {
            Self::V4 => format!("192.168.{}.{}", host >> 8, host & 0xff),
            Self::V6 => format!("fd00:150::{host:x}"),
        }
    }
}

/// The MAC address of a host of the site's network.
pub fn mac_of(host: u16) -> [u8; 6] {
    if host == DIRECTOR { MAC } else { [2, 0, 0, 1, (host >> 8) as u8, host as u8] }
}

/// Client `n`: 24 bits of address, port 32768 to 65535. No two of the first 2^39 are the same: every step is one to
/// one on 39 bits.
#[inline]
fn client4(n: u64) -> (u32, u16) {
    const MASK: u64 = (1 << 39) - 1;
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & MASK;
    let n = (n ^ n >> 20).wrapping_mul(0xd134_2543_de82_ef95) & MASK;
    let n = n ^ n >> 20;
    (0x0a00_0000 | (n >> 15) as u32, 0x8000 | (n & 0x7fff) as u16)
}

/// Client `n` over IPv6: the second half of its address, one to one on 64 bits, and its port.
#[inline]
fn client6(n: u64) -> (u64, u16) {
    let n = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 32).wrapping_mul(0xd134_2543_de82_ef95);
    let n = n ^ n >> 29;
    (n, 0x8000 | (n >> 24 & 0x7fff) as u16)
}

/// What a server's answer needs to know of what the director sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned(u64);

impl Learned {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Reads it from a frame that the director sent to a server.
    #[inline]
    pub fn read(family: Family, frame: &[u8]) -> Self {
        let word = |at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        match family {
            Family::V4 => Self(word(28) << 32 | word(34) << 16 | word(32)),
            Family::V6 => Self(word(36) << 32 | word(54) << 16 | word(52)),
        }
    }

    /// The server.
    fn server(self) -> u16 {
        self.0 as u16
    }

    /// Its peer's port.
    fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Its peer's address, if it is one of the director's.
    fn local(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// To whom a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// From the client to the VIP.
    In,
    /// From the server to the client: replies by NAT.
    OutToClient,
    /// From the server to the director's local end: replies by full NAT.
    OutToLocal,
}

/// Adds the halves of a word.
#[inline]
fn halves(word: u32) -> u64 {
    u64::from(word >> 16) + u64::from(word & 0xffff)
}

/// The checksum of a sum of words in host order.
#[inline]
fn finish(mut sum: u64) -> [u8; 2] {
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    (!(sum as u16)).to_be_bytes()
}

/// Ethernet header towards the director.
const fn ethernet<const N: usize>(kind: [u8; 2]) -> [u8; N] {
    let mut frame = [0; N];
    let mut at = 0;
    while at < 6 {
        frame[at] = MAC[at];
        at += 1;
    }
    (frame[6], frame[11]) = (2, 9);
    (frame[12], frame[13]) = (kind[0], kind[1]);
    frame
}

/// All of an IPv4 frame that no flow changes: TTL 64, DF, no options, sequence numbers 0, window 512.
const FRAME4: [u8; LEN4] = {
    let mut frame = ethernet([8, 0]);
    (frame[14], frame[17], frame[19], frame[20], frame[22], frame[23]) = (0x45, 40, 1, 0x40, 64, 6);
    (frame[46], frame[48]) = (0x50, 2);
    frame
};
/// Sum of its IPv4 header, and of pseudo header and TCP header.
const SUM4: (u64, u64) = (0x4500 + 40 + 1 + 0x4000 + 0x4006, 6 + 20 + 0x5000 + 0x200);
/// The same over IPv6.
const FRAME6: [u8; LEN6] = {
    let mut frame = ethernet([0x86, 0xdd]);
    (frame[14], frame[19], frame[20], frame[21]) = (0x60, 20, 6, 64);
    (frame[66], frame[68]) = (0x50, 2);
    frame
};

/// Writes a frame of flow `n`.
#[inline]
pub fn write4(frame: &mut [u8; LEN4], n: u64, leg: Leg, flags: u8, learned: Learned) {
    let (client, port) = client4(n);
    let server = NET4 | u32::from(learned.server());
    let (source, destination, from, to) = match leg {
        Leg::In => (client, NET4 | VIP as u32, port, 80),
        Leg::OutToClient => (server, client, 80, port),
        Leg::OutToLocal => (server, NET4 | u32::from(learned.local()), 80, learned.port()),
    };
    *frame = FRAME4;
    let addresses = halves(source) + halves(destination);
    frame[24..26].copy_from_slice(&finish(SUM4.0 + addresses));
    frame[26..30].copy_from_slice(&source.to_be_bytes());
    frame[30..34].copy_from_slice(&destination.to_be_bytes());
    frame[34..36].copy_from_slice(&from.to_be_bytes());
    frame[36..38].copy_from_slice(&to.to_be_bytes());
    frame[47] = flags;
    let sum = SUM4.1 + addresses + u64::from(from) + u64::from(to) + u64::from(flags);
    frame[50..52].copy_from_slice(&finish(sum));
}

/// Writes a frame of flow `n` over IPv6.
#[inline]
pub fn write6(frame: &mut [u8; LEN6], n: u64, leg: Leg, flags: u8, learned: Learned) {
    let (half, port) = client6(n);
    let client = u128::from(CLIENTS6) << 64 | u128::from(half);
    let host = |host: u16| {
        let mut address = [0; 16];
        address[..14].copy_from_slice(&NET6);
        address[14..].copy_from_slice(&host.to_be_bytes());
        u128::from_be_bytes(address)
    };
    let (source, destination, from, to) = match leg {
        Leg::In => (client, host(VIP), port, 80),
        Leg::OutToClient => (host(learned.server()), client, 80, port),
        Leg::OutToLocal => (host(learned.server()), host(learned.local()), 80, learned.port()),
    };
    *frame = FRAME6;
    frame[22..38].copy_from_slice(&source.to_be_bytes());
    frame[38..54].copy_from_slice(&destination.to_be_bytes());
    frame[54..56].copy_from_slice(&from.to_be_bytes());
    frame[56..58].copy_from_slice(&to.to_be_bytes());
    frame[67] = flags;
    let words = |address: u128| {
        halves((address >> 96) as u32)
            + halves((address >> 64) as u32)
            + halves((address >> 32) as u32)
            + halves(address as u32)
    };
    let sum =
        SUM4.1 + words(source) + words(destination) + u64::from(from) + u64::from(to) + u64::from(flags);
    frame[70..72].copy_from_slice(&finish(sum));
}

/// `host` tells the director its MAC address: an ARP reply or a neighbour advertisement.
pub fn introduction(family: Family, host: u16) -> Vec<u8> {
    let mac = mac_of(host);
    let mut frame = [MAC, mac].concat();
    match family {
        Family::V4 => {
            let address = |host: u16| (NET4 | u32::from(host)).to_be_bytes();
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
            frame.extend([&mac[..], &address(host), &MAC, &address(DIRECTOR)].concat());
            frame.resize(LEN4, 0);
        }
        Family::V6 => {
            let address = |host: u16| [&NET6[..], &host.to_be_bytes()].concat();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
            frame.extend([address(host), address(DIRECTOR)].concat());
            // solicited, to override what is known (RFC 4861 section 4.4), with the target's link-layer address
            let mut message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &address(host), &[2, 1], &mac].concat();
            let words =
                |bytes: &[u8]| bytes.chunks(2).map(|b| u64::from(b[0]) << 8 | u64::from(b[1])).sum::<u64>();
            let sum = words(&address(host)) + words(&address(DIRECTOR)) + 32 + 58 + words(&message);
            message[2..4].copy_from_slice(&finish(sum));
            frame.extend(message);
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use lb_dataplane::wire::checksum::{add, is_valid, pseudo_header};

    use super::*;

    #[test]
    fn clients_are_one_of_a_kind_and_look_random() {
        let four: HashSet<_> = (0..100_000).map(client4).collect();
        let six: HashSet<_> = (0..100_000).map(client6).collect();
        assert_eq!((four.len(), six.len()), (100_000, 100_000));
        // neighbours differ in address and port
        let near = (0..1000).filter(|n| client4(*n).1.abs_diff(client4(n + 1).1) < 64).count();
        assert!(near < 50, "{near}");
    }

    #[test]
    fn checksums_are_right_on_every_leg() {
        let learned = Learned(0xaa01 << 32 | 40_000 << 16 | 0xa001);
        for n in [0, 1, 99, 1_000_000, u64::from(u32::MAX)] {
            for leg in [Leg::In, Leg::OutToClient, Leg::OutToLocal] {
                let (mut four, mut six) = ([0; LEN4], [0; LEN6]);
                write4(&mut four, n, leg, SYN, learned);
                write6(&mut six, n, leg, FIN, learned);
                assert!(is_valid(add(0, &four[14..34])), "{leg:?} {n}");
                assert!(
                    is_valid(add(pseudo_header(&four[26..30], &four[30..34], 6, 20), &four[34..54])),
                    "{leg:?} {n}"
                );
                assert!(
                    is_valid(add(pseudo_header(&six[22..38], &six[38..54], 6, 20), &six[54..74])),
                    "{leg:?} {n}"
                );
            }
        }
        let advert = introduction(Family::V6, SERVERS);
        assert!(is_valid(add(pseudo_header(&advert[22..38], &advert[38..54], 58, 32), &advert[54..])));
    }

    #[test]
    fn an_answer_goes_back_to_where_the_request_came_from() {
        for family in [Family::V4, Family::V6] {
            // as the director would send it: from 170.7:5000 to server 160.3
            let mut request = [0; LEN6];
            let (source, destination, port) = if family == Family::V4 { (28, 32, 34) } else { (36, 52, 54) };
            request[source..source + 2].copy_from_slice(&0xaa07u16.to_be_bytes());
            request[destination..destination + 2].copy_from_slice(&0xa003u16.to_be_bytes());
            request[port..port + 2].copy_from_slice(&5000u16.to_be_bytes());
            let learned = Learned::read(family, &request);
            assert_eq!((learned.server(), learned.local(), learned.port()), (0xa003, 0xaa07, 5000));
        }
    }
}

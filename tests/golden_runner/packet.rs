//! Packets of the simulated clients and servers, built and read by hand: what is tested must not be its own oracle.

use std::net::{IpAddr, SocketAddr};

/// TCP flags.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Sum of RFC 1071 over bytes, not yet inverted.
pub fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

/// Ones' complement of a sum.
pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An IP packet, TTL 64, don't fragment, identification 1.
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if src.is_ipv6() {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend([octets(src), octets(dst), payload.to_vec()].concat());
        return packet;
    }
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend([octets(src), octets(dst)].concat());
    let check = fold(sum(&packet));
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend(payload);
    packet
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u32 {
    sum(&octets(src)) + sum(&octets(dst)) + u32::from(protocol) + len as u32
}

/// A TCP segment to be sent.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    /// A multiple of 4 bytes.
    pub options: &'a [u8],
    pub data: &'a [u8],
}

/// An IP packet with a TCP segment.
pub fn tcp(src: SocketAddr, dst: SocketAddr, segment: Segment) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(src.port().to_be_bytes());
    bytes.extend(dst.port().to_be_bytes());
    bytes.extend(segment.seq.to_be_bytes());
    bytes.extend(segment.ack.to_be_bytes());
    bytes.extend([(5 + segment.options.len() as u8 / 4) << 4, segment.flags, 0xfd, 0xe8, 0, 0, 0, 0]);
    bytes.extend(segment.options);
    bytes.extend(segment.data);
    let check = fold(pseudo(src.ip(), dst.ip(), TCP, bytes.len()) + sum(&bytes));
    bytes[16..18].copy_from_slice(&check.to_be_bytes());
    ip(src.ip(), dst.ip(), TCP, &bytes)
}

/// An IP packet with a UDP datagram.
pub fn udp(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(src.port().to_be_bytes());
    bytes.extend(dst.port().to_be_bytes());
    bytes.extend((8 + data.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    let check = match fold(pseudo(src.ip(), dst.ip(), UDP, bytes.len()) + sum(&bytes)) {
        0 => 0xffff,
        check => check,
    };
    bytes[6..8].copy_from_slice(&check.to_be_bytes());
    ip(src.ip(), dst.ip(), UDP, &bytes)
}

/// An IP packet with an SCTP packet of one chunk of this type. The value is as long as the type's fixed part.
pub fn sctp(src: SocketAddr, dst: SocketAddr, chunk: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(src.port().to_be_bytes());
    bytes.extend(dst.port().to_be_bytes());
    // an INIT has no verification tag (RFC 9260 section 8.5.1)
    bytes.extend(if chunk == 1 { [0; 4] } else { [0, 0, 0, 7] });
    bytes.extend([0; 4]);
    let value: &[u8] = match chunk {
        0 => &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        1 | 2 => &[0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        3 => &[0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0],
        7 => &[0, 0, 0, 1],
        _ => &[],
    };
    bytes.extend([chunk, 0]);
    bytes.extend((4 + value.len() as u16).to_be_bytes());
    bytes.extend(value);
    let check = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&check.to_le_bytes());
    ip(src.ip(), dst.ip(), SCTP, &bytes)
}

/// CRC32c bit by bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.iter().fold(!0, step)
}

/// An IP packet as a station reads it.
pub struct Seen<'a> {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// After the IP header.
    pub payload: &'a [u8],
}

impl<'a> Seen<'a> {
    /// Reads a packet without extension headers. `None`: not whole.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet[0] & 15) * 4;
                let len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
                let address =
                    |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                Some(Self {
                    src: address(12)?,
                    dst: address(16)?,
                    protocol: packet[9],
                    payload: packet.get(header..len)?,
                })
            }
            6 => {
                let len = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
                let address =
                    |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
                Some(Self {
                    src: address(8)?,
                    dst: address(24)?,
                    protocol: packet[6],
                    payload: packet.get(40..40 + len)?,
                })
            }
            _ => None,
        }
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.payload.get(at..at + 2)?.try_into().ok()?))
    }

    fn long(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// Source and destination with their ports.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((SocketAddr::new(self.src, self.word(0)?), SocketAddr::new(self.dst, self.word(2)?)))
    }

    /// Flags, sequence number, acknowledgement and data of TCP; its checksum must be right.
    pub fn segment(&self) -> Option<(u8, u32, u32, &'a [u8])> {
        let good = self.protocol == TCP && self.is_sum_right();
        let header = usize::from(self.payload.get(12)? >> 4) * 4;
        good.then_some(())?;
        Some((self.payload[13], self.long(4)?, self.long(8)?, self.payload.get(header..)?))
    }

    /// Data of UDP; its checksum must be right or absent.
    pub fn datagram(&self) -> Option<&'a [u8]> {
        let good = self.protocol == UDP && (self.word(6)? == 0 || self.is_sum_right());
        good.then_some(())?;
        self.payload.get(8..)
    }

    /// Whether the transport checksum over the pseudo header is right.
    pub fn is_sum_right(&self) -> bool {
        fold(pseudo(self.src, self.dst, self.protocol, self.payload.len()) + sum(self.payload)) == 0
    }

    /// Type and code of ICMP or ICMPv6, and what it quotes.
    pub fn icmp(&self) -> Option<(u8, u8, &'a [u8])> {
        let is = self.protocol == ICMP || self.protocol == ICMP6;
        is.then_some(())?;
        Some((*self.payload.first()?, *self.payload.get(1)?, self.payload.get(8..)?))
    }

    /// Source and destination with their ports of a packet that an ICMP error quotes, cut short perhaps.
    pub fn read_quoted(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        let header = if packet.first()? >> 4 == 6 { 40 } else { usize::from(packet[0] & 15) * 4 };
        let mut whole = packet.to_vec();
        if whole[0] >> 4 == 6 {
            let len = (packet.len() - header.min(packet.len())) as u16;
            whole.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
        } else {
            whole.get_mut(2..4)?.copy_from_slice(&(packet.len() as u16).to_be_bytes());
        }
        Seen::read(&whole)?.ends()
    }

    /// In the words of the vectors' `back`.
    pub fn kind(&self) -> String {
        match (self.protocol, self.icmp()) {
            (ICMP, Some((of, code, _))) => format!("icmp {of}/{code}"),
            (ICMP6, Some((of, code, _))) => format!("icmp6 {of}/{code}"),
            (protocol, _) => format!("proto {protocol}"),
        }
    }
}

/// What a tunnel carries: IPIP in all families, GRE, GUE on any port. `None`: no tunnel.
pub fn decapsulate(packet: &[u8]) -> Option<&[u8]> {
    let seen = Seen::read(packet)?;
    match seen.protocol {
        4 | 41 => Some(seen.payload),
        47 => {
            let sum = usize::from(*seen.payload.first()? >> 7) * 4;
            seen.payload.get(4 + sum..)
        }
        UDP => {
            // a GUE header of version 0 whose length and protocol fit
            let gue = seen.payload.get(8..)?;
            let (first, protocol) = (*gue.first()?, *gue.get(1)?);
            let inner = gue.get(4 + usize::from(first & 31) * 4..)?;
            let fits = matches!((protocol, inner.first()? >> 4), (4, 4) | (41, 6));
            (first >> 5 == 0 && fits).then_some(inner)
        }
        _ => None,
    }
}

/// In the words of the vectors, as far as they help to see a difference: lengths, flags and hexadecimal bytes.
pub fn hex(packet: &[u8]) -> String {
    packet.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hexadecimal.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

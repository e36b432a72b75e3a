//! Valid frames of every kind as literal bytes, and a packet in ordinary memory; for tests only.

use crate::io::{DeviceId, Packet};

/// Bytes of a hexadecimal text; spaces and newlines separate fields for the reader.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A frame in a vector with room before and behind it.
pub struct TestPacket {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl TestPacket {
    /// Room behind the frame, bytes.
    const TAILROOM: usize = 64;

    pub fn new(frame: &[u8]) -> Self {
        Self::with_headroom(frame, 128)
    }

    pub fn with_headroom(frame: &[u8], headroom: usize) -> Self {
        let memory = [&vec![0xcc; headroom][..], frame, &[0xcc; Self::TAILROOM]].concat();
        Self { memory, start: headroom, end: headroom + frame.len() }
    }
}

impl Packet for TestPacket {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    fn grow_front(&mut self, n: usize) -> bool {
        let room = self.start >= n;
        self.start -= if room { n } else { 0 };
        room
    }

    fn shrink_front(&mut self, n: usize) -> bool {
        let long = self.end - self.start >= n;
        self.start += if long { n } else { 0 };
        long
    }

    fn set_len(&mut self, len: usize) -> bool {
        let room = self.start + len <= self.memory.len();
        self.end = if room { self.start + len } else { self.end };
        room
    }

    fn device(&self) -> DeviceId {
        DeviceId(0)
    }
}

/// The director's and the client's station in [`FRAMES`].
pub const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// One valid untagged frame of each kind, client to director, without padding: its name and its bytes.
///
/// IP and ARP packets are recordings of Linux unless the name says otherwise.
pub const FRAMES: [(&str, &str); 16] = [
    (
        "tcp4",
        "0200000000fe 020000000001 0800
        45b800280001400040066e09c0a801020a000064 9c400050000003e8000000005002fde845730000",
    ),
    (
        "udp4",
        "0200000000fe 020000000001 0800
        4500001d0001400040116ec1c0a801020a000064 138800500009a7f5 78",
    ),
    (
        "echo4",
        "0200000000fe 020000000001 0800
        450000200001400040016ecec0a801020a000064 0800192d00010001 70696e67",
    ),
    (
        "error4",
        "0200000000fe 020000000001 0800
        45c00044f0b500004001bd350a000064c0a80102 0b00c12800000000
        45000028000140000106adc1c0a801020a000064 9c400050000003e9000013895010fde831db0000",
    ),
    (
        "sctp4, by hand",
        "0200000000fe 020000000001 0800
        450000240001400040846e47c0a801020a000064 9c40005000000000a0cfe52801000004",
    ),
    (
        "gre4, by hand",
        "0200000000fe 020000000001 0800
        4500001c00014000402f6ea4c0a801020a000064 0000080000000000",
    ),
    (
        "arp",
        "ffffffffffff 020000000001 0806
        0001 0800 06 04 0001 020000000001 0a000002 000000000000 0a000064",
    ),
    (
        "tcp6",
        "0200000000fe 020000000001 86dd
        6000000000180640fd00000c000000000000000000000002fd00000a000000000000000000000100
        9c400050000003e8000000006002fde8feab0000020405b4",
    ),
    (
        "udp6",
        "0200000000fe 020000000001 86dd
        6000000000091140fd00000c000000000000000000000002fd00000a000000000000000000000100 13880050000978ea 78",
    ),
    (
        "echo6",
        "0200000000fe 020000000001 86dd
        60000000000c3a40fd00000c000000000000000000000002fd00000a000000000000000000000100
        8000a5cc00010001 70696e67",
    ),
    (
        "error6",
        "0200000000fe 020000000001 86dd
        600880f200443a40fd00000a000000000000000000000100fd00000c000000000000000000000002 01049d2900000000
        6000000000140640fd00000c000000000000000000000002fd00000a000000000000000000000100
        9c400050000003e8000000005002fde816680000",
    ),
    (
        "sctp6, by hand",
        "0200000000fe 020000000001 86dd
        6000000000108440fd00000c000000000000000000000002fd00000a000000000000000000000100
        9c40005000000000a0cfe52801000004",
    ),
    (
        "gre6, by hand",
        "0200000000fe 020000000001 86dd
        6000000000082f40fd00000c000000000000000000000002fd00000a000000000000000000000100 0000080000000000",
    ),
    (
        "solicitation",
        "3333ff000100 020000000001 86dd
        6000000000203afffd00000a000000000000000000000002ff0200000000000000000001ff000100
        87007b8600000000fd00000a000000000000000000000100 0101020000000001",
    ),
    (
        "probe",
        "3333ff000002 020000000001 86dd
        6000000000203aff00000000000000000000000000000000ff0200000000000000000001ff000002
        87007a4100000000fd00000a000000000000000000000002 0e0163ffc2ccce82",
    ),
    (
        "advertisement",
        "0200000000fe 020000000001 86dd
        6000000000203afffd00000a000000000000000000000002fd00000a000000000000000000000100
        88001b7e60000000fd00000a000000000000000000000002 0201020000000001",
    ),
];

/// The bytes of the frame with this name in [`FRAMES`].
pub fn frame(name: &str) -> Vec<u8> {
    let (_, text) = FRAMES.iter().find(|(n, _)| n.split(',').next() == Some(name)).unwrap();
    hex(text)
}

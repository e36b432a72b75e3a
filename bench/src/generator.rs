//! Frames made as fast as a worker takes them, without reading memory of their own.
//!
//! Flow `n` is a client address and port computed from `n`; frames come in a pseudo-random order in which every flow
//! comes once before one comes twice. 512 buffers are used over and over, so frames are in the second-level cache
//! ("hot mbufs").

use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};
use lb_dataplane::memory::Frame;

/// Buffers in use.
const BUFFERS: usize = 512;

/// Which TCP flags frames carry.
pub const SYN: u8 = 0x02;
/// An established flow's packet.
pub const ACK: u8 = 0x10;

/// The director's MAC address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A port of one worker that receives what the generator makes and recycles what is sent.
pub struct Generator {
    free: Vec<Frame>,
    flows: u64,
    order: Order,
    left: u64,
    flags: u8,
}

/// Visits 0 to `flows - 1` once a round: a full-period linear congruential generator over the next power of two,
/// with its high bits folded in, that steps over what is too large.
struct Order {
    mask: u64,
    at: u64,
}

impl Order {
    fn next(&mut self, flows: u64) -> u64 {
        loop {
            // the period is mask + 1, as the multiplier is 1 modulo 4 and the increment odd (Hull and Dobell 1962);
            // both are Knuth's for MMIX
            self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
                & self.mask;
            let half = (64 - self.mask.leading_zeros()) / 2;
            let folded = self.at ^ self.at >> half;
            if folded < flows {
                return folded;
            }
        }
    }
}

impl Generator {
    /// A generator of `flows` flows.
    pub fn new(flows: u64) -> Self {
        let free = (0..BUFFERS).map(|_| Frame::new(DeviceId(0), &template())).collect();
        let mask = flows.next_power_of_two().max(4) - 1;
        Self { free, flows, order: Order { mask, at: 0 }, left: 0, flags: ACK }
    }

    /// Makes `packets` more frames with these flags.
    pub fn offer(&mut self, packets: u64, flags: u8) {
        (self.left, self.flags) = (packets, flags);
    }

    /// Frames not yet received.
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// A 60-byte TCP segment to 192.168.150.100:80; client, flags and header checksum are filled in per frame.
fn template() -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6]);
    frame[30..34].copy_from_slice(&[192, 168, 150, 100]);
    frame[36..38].copy_from_slice(&[0, 80]);
    frame[46] = 0x50;
    frame
}

/// Sum of the template's header words without client address and checksum.
const HEADER_SUM: u32 = 0x4500 + 40 + 1 + 0x4000 + 0x4006 + 0xc0a8 + 0x9664;

/// Writes flow `n` into a frame.
fn fill(bytes: &mut [u8], n: u64, flags: u8) {
    let client = 0x0a00_0000 + (n / 50_000) as u32;
    let port = 1024 + (n % 50_000) as u16;
    let mut sum = HEADER_SUM + (client >> 16) + (client & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum += sum >> 16;
    bytes[..6].copy_from_slice(&MAC);
    bytes[22] = 64;
    bytes[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    bytes[26..30].copy_from_slice(&client.to_be_bytes());
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes[47] = flags;
}

impl PacketIo for Generator {
    type Packet = Frame;

    fn rx(&mut self, _device: DeviceId, into: &mut Burst<Frame>) {
        while self.left > 0
            && !into.is_full()
            && let Some(mut frame) = self.free.pop()
        {
            fill(frame.bytes_mut(), self.order.next(self.flows), self.flags);
            into.push(frame);
            self.left -= 1;
        }
    }

    fn tx(&mut self, _device: DeviceId, from: &mut Burst<Frame>) {
        self.free.extend(from.drain(..));
    }

    fn alloc(&mut self) -> Option<Frame> {
        None
    }

    fn hand_over(&mut self, _to: WorkerId, _from: &mut Burst<Frame>) {}

    fn take_over(&mut self, _into: &mut Burst<Frame>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_comes_once_a_round() {
        for flows in [1u64, 5, 1000, 4096] {
            let mut order = Order { mask: flows.next_power_of_two().max(4) - 1, at: 0 };
            let mut seen: Vec<u64> = (0..flows).map(|_| order.next(flows)).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..flows), "{flows}");
        }
    }
}

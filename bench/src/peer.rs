//! The peers in memory: the same frames and the same burst loop, without Sluice's table.

use std::collections::HashMap;

use lb_dataplane::io::{Burst, DeviceId, Packet as _, PacketIo as _};

use crate::generator::Generator;

/// The floor: receives and sends `packets` frames, so that all the time is the generator's.
pub fn floor(io: &mut Generator, packets: u64) {
    io.offer(packets);
    let mut burst = Burst::new();
    while io.left() > 0 {
        io.rx(DeviceId(0), &mut burst);
        io.tx(DeviceId(0), &mut burst);
    }
}

/// Rewrites the MAC addresses of the next `packets` frames, as dpdk-testpmd's `mac` forwarding does.
pub fn mac_rewrite(io: &mut Generator, packets: u64) {
    io.offer(packets);
    let mut burst = Burst::new();
    while io.left() > 0 {
        io.rx(DeviceId(0), &mut burst);
        for frame in &mut burst {
            rewrite(frame.bytes_mut());
        }
        io.tx(DeviceId(0), &mut burst);
    }
}

fn rewrite(bytes: &mut [u8]) {
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
}

/// The textbook balancer: the standard library's `HashMap` from 5-tuple to server and time, one lookup a packet,
/// nothing checked but what the key needs; direct routing of IPv4.
#[derive(Default)]
pub struct TextbookBalancer {
    connections: HashMap<(u32, u32, u32, u8), (u32, u64)>,
    next: u32,
}

impl TextbookBalancer {
    /// Forwards the next `packets` frames of `io`.
    pub fn run(&mut self, io: &mut Generator, packets: u64) {
        io.offer(packets);
        let mut burst = Burst::new();
        let mut now = 0;
        while io.left() > 0 {
            io.rx(DeviceId(0), &mut burst);
            now += 1;
            for frame in &mut burst {
                let bytes = frame.bytes_mut();
                let word =
                    |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                let key = (word(26), word(30), word(34), bytes[23]);
                let entry = self.connections.entry(key).or_insert_with(|| {
                    self.next = (self.next + 1) % 16;
                    (self.next, 0)
                });
                entry.1 = now;
                rewrite(bytes);
                bytes[5] = entry.0 as u8;
            }
            io.tx(DeviceId(0), &mut burst);
        }
    }

    /// Connections known.
    pub fn len(&self) -> usize {
        self.connections.len()
    }
}

//! Which worker owns a flow.
//!
//! The owner follows from the client's address and port alone, which both directions of a connection carry, so the
//! reply of a NATed connection will find the same owner. A port whose NIC spreads flows itself keeps the NIC's
//! choice; frames of any other port are handed to the owner by the worker that polls the queue.

use std::net::IpAddr;

use crate::conn::HashKey;
use crate::io::WorkerId;

/// The worker that owns the flows of this client address and port.
#[inline]
pub fn owner(client: IpAddr, client_port: u16, workers: u16, key: &HashKey) -> WorkerId {
    WorkerId(((u64::from(hash(client, client_port, key)) * u64::from(workers)) >> 32) as u16)
}

/// 32 bits that follow from an address and a port, all fit to pick by.
#[inline]
pub fn hash(client: IpAddr, client_port: u16, key: &HashKey) -> u32 {
    let (high, low) = match client {
        IpAddr::V4(v4) => (0, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64, v6.to_bits() as u64),
    };
    let wide = u128::from(high ^ key.0[0] ^ u64::from(client_port) << 40) * u128::from(low ^ key.0[1] | 1);
    let mixed = u128::from((wide as u64 ^ (wide >> 64) as u64) ^ key.0[2]) * u128::from(key.0[3] | 1);
    ((mixed as u64 ^ (mixed >> 64) as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_one_client_spread_over_the_workers() {
        let key = HashKey([3, 5, 7, 11].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        for client in ["192.168.150.1", "fd00::1"] {
            let client: IpAddr = client.parse().expect("an address");
            let mut counts = [0; 3];
            for port in 32768..62768 {
                counts[usize::from(owner(client, port, 3, &key).0)] += 1;
            }
            assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{client}: {counts:?}");
        }
        assert_eq!(owner(IpAddr::from([10, 0, 0, 1]), 80, 1, &key), WorkerId(0));
    }
}

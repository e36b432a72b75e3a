//! Balancers that keep no connections, played beside the director: each packet goes where a hash of its flow says now.

use std::collections::HashSet;
use std::net::IpAddr;

use lb_config::Service;
use lb_dataplane::ids::DestId;
use lb_dataplane::sched::{FlowHash, MaglevTable, Member};

/// Slots of Maglev's table, the default of a service.
const SLOTS: usize = 65_537;

/// Who they are.
pub const NAMES: [&str; 2] = ["plain hash", "Maglev without connections"];

/// All of them, with the servers of now.
pub struct Rivals {
    hash: FlowHash,
    /// Servers that take new connections.
    able: Vec<u16>,
    table: MaglevTable,
    /// Servers that are configured, those that drain too.
    there: HashSet<u16>,
}

/// A server's host number: the last 16 bits of its address.
pub fn host_of(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(v4) => u16::from_be_bytes([v4.octets()[2], v4.octets()[3]]),
        IpAddr::V6(v6) => v6.segments()[7],
    }
}

impl Rivals {
    /// With the servers of a service.
    pub fn new(service: &Service) -> Self {
        let mut rivals = Self::none();
        rivals.learn(service);
        rivals
    }

    /// Without servers.
    pub fn none() -> Self {
        let hash = FlowHash::from_secret(Some("bench"));
        Self { table: MaglevTable::new(&[], SLOTS, &hash), hash, able: vec![], there: HashSet::new() }
    }

    /// The servers have changed.
    pub fn learn(&mut self, service: &Service) {
        let able = || service.servers.iter().filter(|server| server.weight > 0);
        self.able = able().map(|server| host_of(server.address)).collect();
        let member = |server: &lb_config::Server| Member {
            address: server.address,
            port: 0,
            weight: server.weight,
            dest: DestId(host_of(server.address).into()),
        };
        let members: Vec<Member> = able().map(member).collect();
        self.table = MaglevTable::new(&members, SLOTS, &self.hash);
        self.there = service.servers.iter().map(|server| host_of(server.address)).collect();
    }

    /// Where each of them sends a packet of flow `n`; 0: nowhere.
    #[inline]
    pub fn choose(&self, n: u64) -> [u16; NAMES.len()] {
        // SplitMix64: as good as a hash of addresses and ports, and theirs alone
        let mixed = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let hash = mixed ^ mixed >> 31;
        let at = ((hash >> 32) * self.able.len() as u64) >> 32;
        let plain = self.able.get(at as usize).copied().unwrap_or(0);
        [plain, self.table.pick(hash, |_| true).map_or(0, |dest| dest.0 as u16)]
    }

    /// Whether a server is configured still, so that nothing but the choice takes its connections away.
    pub fn is_there(&self, server: u16) -> bool {
        self.there.contains(&server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_config::{Forwarding, Protocol, Server, ServiceAddress};

    fn service(hosts: &[(u8, u32)]) -> Service {
        let server = |(host, weight): &(u8, u32)| Server {
            weight: *weight,
            ..Server::new([192, 168, 160, *host].into(), 80, Forwarding::Dr)
        };
        let address =
            ServiceAddress::Vip { vip: [192, 168, 150, 100].into(), port: 80, protocol: Protocol::Tcp };
        Service { servers: hosts.iter().map(server).collect(), ..Service::new("web".to_owned(), address) }
    }

    #[test]
    fn flows_move_when_a_server_leaves_and_maglev_moves_fewer() {
        let all: Vec<(u8, u32)> = (1..=10).map(|host| (host, 1)).collect();
        let mut rivals = Rivals::new(&service(&all));
        let before: Vec<_> = (0..10_000).map(|n| rivals.choose(n)).collect();
        assert!(before.iter().flatten().all(|server| rivals.is_there(*server)));
        // the last but one drains: it is there and takes nothing
        let mut fewer = all.clone();
        fewer[8].1 = 0;
        rivals.learn(&service(&fewer));
        let moved = |rival: usize| {
            (0..10_000).filter(|n| rivals.choose(*n)[rival] != before[*n as usize][rival]).count()
        };
        let (plain, maglev) = (moved(0), moved(1));
        assert!(rivals.is_there(0xa009) && (0..10_000).all(|n| !rivals.choose(n).contains(&0xa009)));
        assert!((900..2500).contains(&maglev) && plain > 2 * maglev, "{plain} {maglev}");
    }
}

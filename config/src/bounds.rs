//! Every numeric limit of the configuration, stated once.
//!
//! The reader, the checks and the documented example all take their numbers from here.

use std::time::Duration;

/// An inclusive range of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Smallest value allowed.
    pub min: u32,
    /// Largest value allowed.
    pub max: u32,
}

impl Bounds {
    const fn new(min: u32, max: u32) -> Self {
        Self { min, max }
    }

    /// Gives `value` back when it is inside.
    ///
    /// Errors: a sentence that names the value and the limit that it breaks.
    pub fn check(self, value: i128) -> Result<u32, String> {
        match u32::try_from(value) {
            Ok(inside) if (self.min..=self.max).contains(&inside) => Ok(inside),
            _ if value > i128::from(self.max) => Err(format!("{value} is above the limit {}", self.max)),
            _ => Err(format!("{value} is below the limit {}", self.min)),
        }
    }
}

/// Workers of a director. The upper end is what a `u64` bit set of workers holds.
pub const WORKERS: Bounds = Bounds::new(1, 64);
/// CPU number. The upper end is glibc's `CPU_SETSIZE` less one.
pub const CPU: Bounds = Bounds::new(0, 1023);
/// `memory_mib`, MiB. 64 MiB hold the smallest pool of packet buffers; the upper end is 1 TiB.
pub const MEMORY_MIB: Bounds = Bounds::new(64, 1 << 20);
/// `max_connections`. The upper end, at one 64-byte line each, is 12 GiB.
pub const MAX_CONNECTIONS: Bounds = Bounds::new(1024, 200_000_000);
/// `max_services`.
pub const MAX_SERVICES: Bounds = Bounds::new(1, 1 << 18);
/// `max_servers`, over all services: 16 for each of the most services, well within the 24 bits that a
/// connection has for its server.
pub const MAX_SERVERS: Bounds = Bounds::new(1, 1 << 22);
/// `neighbor_queue`, frames per worker. Linux keeps 101 frames per neighbour (`unres_qlen`).
pub const NEIGHBOR_QUEUE: Bounds = Bounds::new(1, 4096);
/// `mbufs`. 1024 fill the rings of one AF_PACKET queue pair (AF_XDP wants 6144 per queue, a NIC 2048 per worker; lbd
/// names the number at start); 4 Mi buffers of 2 KiB are 8 GiB.
pub const MBUFS: Bounds = Bounds::new(1024, 1 << 22);
/// VLAN identifier. Source: IEEE 802.1Q-2018 table 9-2 (0 and 4095 are reserved).
pub const VLAN: Bounds = Bounds::new(1, 4094);
/// `mtu`, bytes of the IP packet. 576: RFC 791 section 3.1; 9000: customary jumbo frame.
pub const MTU: Bounds = Bounds::new(576, 9000);
/// Smallest `mtu` of a port with an IPv6 address, bytes. Source: RFC 8200 section 5.
pub const MTU_MIN_IPV6: u16 = 1280;
/// `exception_rate`, packets a second. Upwards it is what writing to a TAP interface can take.
pub const EXCEPTION_RATE: Bounds = Bounds::new(100, 1_000_000);
/// Port of a server, and of each end of a range of ports.
pub const L4_PORT: Bounds = Bounds::new(1, 65_535);
/// `port` of a service. 0 is every port, as in IPVS, and needs persistence.
pub const SERVICE_PORT: Bounds = Bounds::new(0, 65_535);
/// Firewall mark. Source: linux/skbuff.h, a `u32`; 0 is no mark.
pub const MARK: Bounds = Bounds::new(1, u32::MAX);
/// Rules in `[[marks]]`: they are gone through one by one for packets of new connections.
pub const MARK_RULES: usize = 4096;
/// Number of rules in `[[snat]]`.
pub const SNAT_RULES: usize = 1024;
/// `mss` of a service, bytes: what every host takes (RFC 9293 section 3.7.1) to what fits an IPv4 packet.
pub const MSS: Bounds = Bounds::new(536, 65_495);
/// `max_connections` of a service; 0: no limit.
pub const SERVICE_CONNECTIONS: Bounds = Bounds::new(0, MAX_CONNECTIONS.max);
/// `conn_reuse_mode`: two bits. Source: Documentation/networking/ipvs-sysctl.rst.
pub const CONN_REUSE_MODE: Bounds = Bounds::new(0, 3);
/// `secure_tcp`. Source: Documentation/networking/ipvs-sysctl.rst.
pub const SECURE_TCP: Bounds = Bounds::new(0, 3);
/// `syn_flood`, percent of a worker's connections; 0: never.
pub const SYN_FLOOD: Bounds = Bounds::new(0, 100);
/// Weight of a server. Source: ipvsadm(8), `--weight`.
pub const WEIGHT: Bounds = Bounds::new(0, 65_535);
/// `upper_threshold` and `lower_threshold` of a server, connections. ipvsadm 1.31 takes what an `int` holds.
pub const THRESHOLD: Bounds = Bounds::new(0, i32::MAX as u32);
/// `persistence.timeout` of a service. Source: ipvsadm(8): whole seconds, at most 31 days.
pub const MIN_PERSISTENCE: Duration = Duration::from_secs(1);
/// Longest `persistence.timeout`: 31 days.
pub const MAX_PERSISTENCE: Duration = Duration::from_secs(31 * 24 * 3600);
/// `persistence.prefix`, bits, of an IPv4 VIP.
pub const PREFIX_IPV4: Bounds = Bounds::new(0, 32);
/// `persistence.prefix`, bits, of an IPv6 VIP.
pub const PREFIX_IPV6: Bounds = Bounds::new(0, 128);
/// Shortest `interval`, `timeout` and `retry_delay` of a health check: what a timer of the control core keeps to.
pub const MIN_CHECK_TIME: Duration = Duration::from_millis(10);
/// Longest time of a health check: a day.
pub const MAX_CHECK_TIME: Duration = Duration::from_secs(24 * 3600);
/// `retries` of a health check.
pub const RETRIES: Bounds = Bounds::new(0, 1000);
/// `quorum`, weight: what a thousand servers of the largest weight have. Source of the least: keepalived.
pub const QUORUM: Bounds = Bounds::new(1, 65_535_000);
/// `hysteresis`, weight; below the quorum.
pub const HYSTERESIS: Bounds = Bounds::new(0, QUORUM.max);
/// Lengths of a reply to a UDP check, bytes: what a datagram holds.
pub const REPLY_LENGTH: Bounds = Bounds::new(0, 65_507);
/// Offsets of a regular expression: the most of a body that is read, bytes.
pub const BODY_OFFSET: Bounds = Bounds::new(0, 4 << 20);
/// Weight of a sorry server.
pub const SORRY_WEIGHT: Bounds = Bounds::new(1, WEIGHT.max);
/// Number of checks of a server.
pub const CHECKS: usize = 16;
/// Number of URLs of an HTTP check.
pub const URLS: usize = 64;
/// Shortest `drain_deadline` of a server: the control core looks some times a second.
pub const MIN_DRAIN: Duration = Duration::from_secs(1);
/// Longest `drain_deadline`: 31 days, as persistence.
pub const MAX_DRAIN: Duration = Duration::from_secs(31 * 24 * 3600);
/// Shortest timeout: a quarter of a second, a few turns of the expiry's coarse tick.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest timeout: 18 h, which a 16-bit count of seconds (65,535) still holds.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(18 * 3600);
/// Longest name of a director, characters: it becomes part of file names under `/run`.
pub const APPLIANCE_NAME_LEN: usize = 32;
/// Longest name of a port or service, characters: a line of `lbctl` stays readable.
pub const NAME_LEN: usize = 64;
/// Longest path of a Unix socket, bytes. Source: unix(7), `sun_path[108]` with its terminating zero.
pub const SOCKET_PATH_LEN: usize = 107;
/// Longest path of a folder, bytes: the files in it stay far below Linux's `PATH_MAX`, 4096.
pub const DIRECTORY_LEN: usize = 1024;
/// Longest name of a kernel interface, bytes. Source: `IFNAMSIZ` of linux/if.h less its zero.
pub const INTERFACE_NAME_LEN: usize = 15;
/// Longest name of an in-process ring, bytes: `RTE_RING_NAMESIZE` less DPDK's prefix and our suffix.
pub const RING_NAME_LEN: usize = 20;
/// `vrid`. Source: RFC 9568 section 5.2.3.
pub const VRID: Bounds = Bounds::new(1, 255);
/// `version` of a VRRP instance.
pub const VRRP_VERSION: Bounds = Bounds::new(2, 3);
/// `priority` of a VRRP instance. Source: RFC 9568 section 5.2.4; 0 is said at the end only.
pub const VRRP_PRIORITY: Bounds = Bounds::new(1, 255);
/// TTL that an advert may come with.
pub const TTL: Bounds = Bounds::new(0, 255);
/// TTL of packets of the director's own.
pub const TTL_SENT: Bounds = Bounds::new(1, 255);
/// `down_timer_adverts`. Source: keepalived.conf(5).
pub const DOWN_TIMER_ADVERTS: Bounds = Bounds::new(1, 100);
/// Announcements of an address at a time.
pub const GARP_REPEAT: Bounds = Bounds::new(1, 100);
/// Announcements after an advert of lower priority; 0: none.
pub const GARP_LOWER_REPEAT: Bounds = Bounds::new(0, 100);
/// `id` of an HMAC key.
pub const HMAC_KEY_ID: Bounds = Bounds::new(1, 255);
/// Bytes of an HMAC key: at least 128 bits, at most a block of SHA-256 (RFC 2104 section 3).
pub const HMAC_KEY_LEN: std::ops::RangeInclusive<usize> = 16..=64;
/// `rise` and `fall` of a script.
pub const RISE_FALL: Bounds = Bounds::new(1, 255);
/// `quorum` of a process.
pub const PROCESS_QUORUM: Bounds = Bounds::new(0, 65_535);
/// `quorum_max` of a process; 0: any number.
pub const PROCESS_QUORUM_MAX: Bounds = Bounds::new(0, 65_535);
/// `multiplier` of a BFD session. Source: RFC 5880 section 4.1; 0 must not be.
pub const BFD_MULTIPLIER: Bounds = Bounds::new(1, 255);
/// `sync_id` of the kernel's connection sync. Source: ipvsadm(8).
pub const IPVS_SYNC_ID: Bounds = Bounds::new(0, 255);
/// Longest message of the kernel's connection sync, bytes. Source: ipvsadm(8); UDP over IPv4.
pub const IPVS_SYNC_LENGTH: Bounds = Bounds::new(1, 65_535 - 20 - 8);
/// `refresh` of the kernel's connection sync, and the longest `resync`.
pub const IPVS_SYNC_REFRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Longest name of a kernel's interface, bytes. Source: Linux, `IFNAMSIZ` without its end.
pub const INTERFACE_LEN: usize = 15;
/// Largest weight of what is tracked, either way. Source: keepalived.conf(5).
pub const TRACK_WEIGHT: i16 = 254;
/// VRRP instances.
pub const VRRP_INSTANCES: usize = 512;
/// Scripts, processes, files, of each kind.
pub const TRACKED_OBJECTS: usize = 256;
/// BFD sessions.
pub const BFD_SESSIONS: usize = 64;
/// Directors that connections are shared with.
pub const SYNC_PEERS: usize = 8;
/// How often a connection that lives on is told again.
pub const SYNC_REFRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How long a virtual router waits for another director's connections.
pub const SYNC_HOLD: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(600));
/// Addresses in an IPv4 advert. Source: RFC 9568 section 5.2.5, a byte.
pub const VRRP_ADDRESSES4: usize = 255;
/// Addresses in an IPv6 advert, which is no longer than 1280 bytes (RFC 8200 section 5), trailer included.
pub const VRRP_ADDRESSES6: usize = 72;
/// Addresses of an instance that are not in its adverts.
pub const VRRP_EXCLUDED: usize = 4096;
/// Bytes of a password. Source: RFC 2338 section 5.3.10.
pub const VRRP_PASSWORD_LEN: usize = 8;
/// Time between adverts of version 2. Source: RFC 3768 section 5.3.7, whole seconds in a byte.
pub const ADVERT_INTERVAL_V2: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(255));
/// Time between adverts of version 3. Source: RFC 9568 section 5.2.7, centiseconds in 12 bits.
pub const ADVERT_INTERVAL_V3: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(40_950));
/// Clock difference that an HMAC may bridge.
pub const HMAC_WINDOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// Times of scripts, and the longest delay.
pub const CHECK_TIME: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(86_400));
/// Members of an etcd cluster. Source: etcd's documentation, 7 are the most that it advises.
pub const LEASE_ENDPOINTS: usize = 16;
/// Bytes of what keys of leases begin with.
pub const LEASE_PREFIX_LEN: std::ops::RangeInclusive<usize> = 1..=200;
/// `ttl` of leases: etcd has no shorter ones (three halves of its election timeout, 1 s by default).
pub const LEASE_TTL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// Shortest `margin` of leases: what a busy machine may hold a thread up for.
pub const LEASE_MARGIN: Duration = Duration::from_millis(50);
/// Longest time that a new master waits for one that is alive.
pub const HANDOVER_WAIT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(10));
/// Intervals of BFD: shorter ones are shorter than a worker's rest.
pub const BFD_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// `cluster_secret`, bytes: at least the 128 bits of a SipHash key, at most a line.
pub const SECRET_LEN: std::ops::RangeInclusive<usize> = 16..=256;
/// Largest configuration file, bytes: 4 Mi servers in about 60 bytes each.
pub const FILE_LEN: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_inside_and_their_neighbours_are_not() {
        assert_eq!(VLAN.check(1), Ok(1));
        assert_eq!(VLAN.check(4094), Ok(4094));
        assert_eq!(VLAN.check(0), Err("0 is below the limit 1".to_owned()));
        assert_eq!(VLAN.check(4095), Err("4095 is above the limit 4094".to_owned()));
        assert_eq!(WEIGHT.check(-1), Err("-1 is below the limit 0".to_owned()));
        assert_eq!(WEIGHT.check(i128::MAX), Err(format!("{} is above the limit 65535", i128::MAX)));
    }
}

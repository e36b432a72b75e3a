//! The exception path: what is not load-balanced goes to the kernel, and what the kernel sends goes out.
//!
//! ```text
//! port -> worker: no service takes it -> bucket (rate) -> Pipe -> thread -> write(TAP) -> kernel
//! port <- worker: tag, bursts         <----------------- Pipe <- thread <- read(TAP)  <- kernel
//! ```
//!
//! A thread of `lbd` moves frames between the [`Pipe`]s and the TAP interfaces ([`Kernel`] is its end), so workers make no
//! system call. DPDK's own ways to the kernel (net_tap, virtio_user) would be one more device in every worker's turn,
//! polled whether or not there is anything, with system calls (net_tap) in the turn: a flood to the director's own
//! address would cost the balanced packets behind it what the kernel takes to receive one, some microseconds; here it
//! costs a copy of those that [`bucket`] lets through. The price is up to four milliseconds until the idle thread looks.
//!
//! Who answers what: ARP, ND and ping for VIPs and the director's own addresses are the director's
//! ([`local`](crate::local)), whatever the kernel would say, so that a flood of them is no flood of the kernel. All
//! else to the director's own addresses, to groups, to everybody, and to addresses that it does not know (the kernel's
//! alone: keepalived's VIP, say) is the kernel's, as are answers by ARP and ND, which the director overhears. A VIP's
//! ports without a service are refused as without the exception path.
//!
//! The kernel may be a client of a VIP, and a server ([`NeighborId::KERNEL`](crate::neighbor::NeighborId::KERNEL) is a
//! next hop). Its frames to a VIP have [`director_mac`] for their destination, by which `take` knows them.
//!
//! Files: [`bucket`] (how much), [`pipe`] (queues), `give` (to the kernel), `take` (from it).

pub mod bucket;
mod give;
pub mod pipe;
mod take;

pub(crate) use give::Allowance;
pub use pipe::{Kernel, Parcel, Pipe};

use crate::channel::{BFD_PORT, PROTOCOL_VRRP};
use crate::parse::{Arp, Flow, L4, Nd, Net};
use crate::wire::Mac;

/// IP protocol of OSPF. Source: RFC 2328 appendix A.1.
pub const PROTOCOL_OSPF: u8 = 89;
/// TCP ports of protocols without which nobody reaches the director: ssh, BGP (IANA).
const URGENT_TCP: [u16; 2] = [22, 179];
/// UDP ports likewise: BFD of one hop, its echo, of several hops (RFC 5881 section 4, RFC 5883 section 5).
const URGENT_UDP: [u16; 3] = [BFD_PORT, 3785, 4784];

/// Which frames are dropped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Control protocols: they may use all of the rate.
    Urgent,
    /// Everything else.
    Plain,
    /// Of a service one of whose servers is the director itself: a rate of its own.
    Local,
}

impl Class {
    /// The class of a packet that no service takes.
    pub fn of(net: &Net) -> Self {
        let urgent = match net {
            Net::Flow4(flow) => is_urgent(flow),
            Net::Flow6(flow) => is_urgent(flow),
            Net::Other4 { protocol, .. } | Net::Other6 { protocol, .. } => {
                matches!(*protocol, PROTOCOL_VRRP | PROTOCOL_OSPF)
            }
            // answers alone: of questions everybody can send a flood to everybody
            Net::Arp(Arp::Reply { .. }) | Net::Nd(Nd::Advert(_)) => true,
            _ => false,
        };
        if urgent { Self::Urgent } else { Self::Plain }
    }
}

/// Whether a flow is of a control protocol.
#[inline]
pub fn is_urgent<A>(flow: &Flow<A>) -> bool {
    is_urgent_port(flow.protocol, flow.src_port, flow.dst_port)
}

/// Whether packets between these ports are.
#[inline]
pub(crate) fn is_urgent_port(protocol: L4, src: u16, dst: u16) -> bool {
    let is_of = |ports: &[u16]| ports.contains(&dst) || ports.contains(&src);
    match protocol {
        L4::Tcp => is_of(&URGENT_TCP),
        L4::Udp => is_of(&URGENT_UDP),
        L4::Sctp => false,
    }
}

/// The MAC address by which the kernel reaches the director itself on a port whose own, and the kernel's, is `port`.
///
/// With the bit for local administration (IEEE 802c) the other way round it is nobody's on the wire.
pub fn director_mac([first, rest @ ..]: Mac) -> Mac {
    let mut mac = [first ^ 2; 6];
    mac[1..].copy_from_slice(&rest);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::wire::samples::frame;

    #[test]
    fn the_directors_address_is_another_one_and_of_a_station() {
        for mac in [[0, 1, 2, 3, 4, 5], [2, 0, 0, 0, 0, 0x11]] {
            let own = director_mac(mac);
            assert!(own != mac && own[0] & 1 == 0 && own[1..] == mac[1..]);
            assert_eq!(director_mac(own), mac);
        }
    }

    #[test]
    fn control_protocols_are_urgent() {
        let class = |name: &str| Class::of(&parse(&frame(name)).unwrap().net);
        assert_eq!(class("tcp4"), Class::Plain);
        assert_eq!(class("udp6"), Class::Plain);
        let with_port = |name: &str, at: usize, port: u16| {
            let mut bytes = frame(name);
            bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
            Class::of(&parse(&bytes).unwrap().net)
        };
        for (name, l4) in [("tcp4", 34), ("tcp6", 54)] {
            for port in [22, 179] {
                assert_eq!(with_port(name, l4, port), Class::Urgent, "an answer");
                assert_eq!(with_port(name, l4 + 2, port), Class::Urgent, "{name} to {port}");
            }
            assert_eq!(with_port(name, l4 + 2, 3784), Class::Plain, "BFD is not over TCP");
        }
        for port in [3784, 3785, 4784] {
            assert_eq!(with_port("udp4", 36, port), Class::Urgent);
        }
        let ospf = Net::Other4 { src: [10, 0, 0, 1].into(), dst: [224, 0, 0, 5].into(), protocol: 89 };
        assert_eq!(Class::of(&ospf), Class::Urgent);
        let pim = Net::Other4 { src: [10, 0, 0, 1].into(), dst: [224, 0, 0, 13].into(), protocol: 103 };
        assert_eq!(Class::of(&pim), Class::Plain);
    }
}

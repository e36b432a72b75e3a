//! Which link an address is on: asked for every packet whose way does not follow from its destination alone.

use std::net::IpAddr;

use lb_config::IfAddr;

use crate::neighbor::LinkId;
use crate::snapshot::Link;

/// One network: what remains of its addresses under its mask.
#[derive(Clone, Copy, Debug)]
struct Network<T> {
    prefix: T,
    mask: T,
    link: LinkId,
}

/// The connected networks of all links, in the order of the links.
///
/// Cost of a question: a load and a comparison for each network of the family.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    v4: Box<[Network<u32>]>,
    v6: Box<[Network<u128>]>,
}

impl Networks {
    /// Those of `links`.
    pub fn of(links: &[Link]) -> Self {
        let numbered = || (0..).map(LinkId).zip(links);
        let all = || numbered().flat_map(|(link, at)| at.addresses.iter().map(move |own| (link, own)));
        let v4 = |(link, own): (LinkId, &IfAddr)| {
            let IpAddr::V4(address) = own.addr else { return None };
            let mask = u32::MAX.checked_shl(u32::BITS - u32::from(own.prefix_len)).unwrap_or(0);
            Some(Network { prefix: address.to_bits() & mask, mask, link })
        };
        let v6 = |(link, own): (LinkId, &IfAddr)| {
            let IpAddr::V6(address) = own.addr else { return None };
            let mask = u128::MAX.checked_shl(u128::BITS - u32::from(own.prefix_len)).unwrap_or(0);
            Some(Network { prefix: address.to_bits() & mask, mask, link })
        };
        Self { v4: all().filter_map(v4).collect(), v6: all().filter_map(v6).collect() }
    }

    /// The first link in one of whose networks `address` is.
    #[inline(always)]
    pub fn link_of(&self, address: IpAddr) -> Option<LinkId> {
        match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.v4.iter().find(|network| bits & network.mask == network.prefix).map(|at| at.link)
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.v6.iter().find(|network| bits & network.mask == network.prefix).map(|at| at.link)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::DeviceId;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        // few of them, so that they meet
        (any::<bool>(), 0..4_u8, 0..4_u8).prop_map(|(v6, high, low)| {
            let mut octets = [0; 16];
            (octets[0], octets[3], octets[15]) = (high << 6 | 0x0a, low << 6, low);
            if v6 { octets.into() } else { [octets[0], 0, octets[3], low].into() }
        })
    }

    proptest! {
        #[test]
        fn an_address_is_on_the_first_link_whose_networks_hold_it(
            links in prop::collection::vec(prop::collection::vec((address(), 0..=128_u8), 0..4), 0..4),
            asked in prop::collection::vec(address(), 50),
        ) {
            let link = |own: &Vec<(IpAddr, u8)>| Link {
                name: String::new(),
                device: DeviceId(0),
                vlan: 0,
                mac: [2; 6],
                mtu: 1500,
                addresses: own
                    .iter()
                    .map(|&(addr, len)| IfAddr { addr, prefix_len: if addr.is_ipv4() { len % 33 } else { len } })
                    .collect(),
                exception: None,
            };
            let links: Vec<Link> = links.iter().map(link).collect();
            let networks = Networks::of(&links);
            for address in asked {
                let holds = |link: &Link| link.addresses.iter().any(|network| network.contains(address));
                let first = links.iter().position(holds).map(|at| LinkId(at as u16));
                prop_assert_eq!(networks.link_of(address), first);
            }
        }
    }
}

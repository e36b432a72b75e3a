//! What a frame of ARP or neighbour discovery says about a station.

use std::net::IpAddr;

use super::LinkId;
use crate::wire::Mac;
use crate::wire::arp::Arp;
use crate::wire::nd::Nd;

/// How an address was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// In an answer to the director: the station is reachable.
    Reply {
        /// Replaces another address that is known. Always so in ARP, the O flag in ND.
        overrides: bool,
    },
    /// In a request or unasked: the station claims the address, nothing says that it hears the director.
    Announcement {
        /// Replaces another address that is known. Always so in ARP and in solicitations, the O flag in adverts.
        overrides: bool,
    },
}

/// A station that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Where.
    pub link: LinkId,
    /// Its address.
    pub ip: IpAddr,
    /// Its station; `None`: an advertisement that left it out.
    pub mac: Option<Mac>,
    /// How.
    pub how: Heard,
}

impl Sighting {
    /// What an ARP packet says about its sender; `None`: a probe, whose sender has no address yet (RFC 5227).
    pub fn of_arp(link: LinkId, arp: &Arp) -> Option<Self> {
        let (mac, ip, how) = match *arp {
            Arp::Request { sender_mac, sender_ip, .. } => {
                (sender_mac, sender_ip, Heard::Announcement { overrides: true })
            }
            // RFC 5227 section 3: announcements may come as replies
            Arp::Reply { sender_mac, sender_ip, target_ip, .. } if sender_ip == target_ip => {
                (sender_mac, sender_ip, Heard::Announcement { overrides: true })
            }
            Arp::Reply { sender_mac, sender_ip, .. } => {
                (sender_mac, sender_ip, Heard::Reply { overrides: true })
            }
        };
        (!ip.is_unspecified()).then_some(Self { link, ip: ip.into(), mac: Some(mac), how })
    }

    /// What a message of neighbour discovery says; `None`: a solicitation without its sender's address.
    pub fn of_nd(link: LinkId, nd: &Nd) -> Option<Self> {
        match nd {
            Nd::Solicit(s) => {
                let how = Heard::Announcement { overrides: true };
                Some(Self { link, ip: s.src.into(), mac: Some(s.source_lla?), how })
            }
            Nd::Advert(a) => {
                let overrides = a.overrides;
                let how =
                    if a.solicited { Heard::Reply { overrides } } else { Heard::Announcement { overrides } };
                Some(Self { link, ip: a.target.into(), mac: a.target_lla, how })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::nd::{Advert, Solicit};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const LINK: LinkId = LinkId(3);
    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const RIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 12);
    const DIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 11);

    #[test]
    fn an_arp_reply_confirms_and_everything_else_announces() {
        let overrides = true;
        let reply = |target_ip| Arp::Reply { sender_mac: MAC, sender_ip: RIP, target_mac: MAC, target_ip };
        let request = |sender_ip, target_ip| Arp::Request { sender_mac: MAC, sender_ip, target_ip };
        let cases = [
            (reply(DIP), Some(Heard::Reply { overrides })),
            (reply(RIP), Some(Heard::Announcement { overrides })),
            (request(RIP, DIP), Some(Heard::Announcement { overrides })),
            (request(RIP, RIP), Some(Heard::Announcement { overrides })),
            (request(Ipv4Addr::UNSPECIFIED, DIP), None),
        ];
        for (arp, how) in cases {
            let want = how.map(|how| Sighting { link: LINK, ip: RIP.into(), mac: Some(MAC), how });
            assert_eq!(Sighting::of_arp(LINK, &arp), want, "{arp:?}");
        }
    }

    #[test]
    fn an_advert_speaks_of_its_target_and_a_solicitation_of_its_source() {
        let (src, target) =
            (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
        for (solicited, overrides) in [(false, false), (false, true), (true, false), (true, true)] {
            let router = true;
            let advert = Advert { src, dst: src, target, target_lla: None, router, solicited, overrides };
            let got = Sighting::of_nd(LINK, &Nd::Advert(advert)).unwrap();
            assert_eq!((got.ip, got.mac), (target.into(), None));
            let announced = Heard::Announcement { overrides };
            assert_eq!(got.how, if solicited { Heard::Reply { overrides } } else { announced });
        }
        let mut solicit = Solicit { src, dst: target, target, source_lla: Some(MAC) };
        let got = Sighting::of_nd(LINK, &Nd::Solicit(solicit)).unwrap();
        assert_eq!((got.ip, got.mac), (src.into(), Some(MAC)));
        solicit.source_lla = None;
        assert_eq!(Sighting::of_nd(LINK, &Nd::Solicit(solicit)), None);
    }
}

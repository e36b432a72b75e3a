//! Several ports with one interface of the kernel's, which knows one MAC address and nothing of ports.
//!
//! What comes in by any port is for the interface's MAC address. What the kernel sends goes out by one port, from that
//! one's MAC address, in ARP's and ND's bodies too:
//! 1. to a station that was heard: by the port where it was;
//! 2. a question by ARP or ND: by the port whose network it is about;
//! 3. else by the port whose network the destination is on, or, of what is for many, the source;
//! 4. what tells nothing of that, such as DHCP: by all ports. Its body still names the interface's MAC address, so that
//!    answers by DHCP come over the first port alone.
//!
//! Where an interface is one port's, frames stay as they are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_dataplane::exception::director_mac;
use lb_dataplane::neighbor::LinkId;
use lb_dataplane::wire::{Mac, checksum};

use super::plan::{TapPlan, TapPort};

/// Stations that are remembered; one more, and all are heard anew.
const STATIONS: usize = 4096;
// offsets in an untagged frame
const ETHERTYPE: usize = 12;
const L3: usize = 14;
const ARP_SENDER: usize = L3 + 8;
const ARP_SENDER_IP: usize = L3 + 14;
const ARP_TARGET_IP: usize = L3 + 24;
const IPV4_SOURCE: usize = L3 + 12;
const IPV6_SOURCE: usize = L3 + 8;
const ICMP6: usize = L3 + 40;
const ND_TARGET: usize = ICMP6 + 8;
/// Next header of ICMPv6.
const ICMPV6: u8 = 58;

/// The ports of an interface.
#[derive(Debug)]
pub struct Share {
    /// The interface's.
    mac: Mac,
    ports: Vec<TapPort>,
    /// Where stations were heard.
    stations: HashMap<Mac, LinkId>,
}

impl Share {
    /// Those of a plan.
    pub fn of(plan: &TapPlan) -> Self {
        Self { mac: plan.mac, ports: plan.ports.clone(), stations: HashMap::new() }
    }

    /// Goes by another plan: networks may be others, ports are not.
    pub fn follow(&mut self, plan: &TapPlan) {
        self.ports.clone_from(&plan.ports);
    }

    /// Whether the interface is this port's.
    pub fn has(&self, link: LinkId) -> bool {
        self.ports.iter().any(|port| port.link == link)
    }

    /// Makes a frame that came in by a port one for the interface.
    pub fn up(&mut self, link: LinkId, frame: &mut [u8]) {
        if self.ports.len() < 2 {
            return;
        }
        let Some((to, rest)) = frame.split_first_chunk_mut::<6>() else { return };
        if to[0] & 1 == 0 {
            *to = self.mac;
        }
        if let Some(from) = rest.first_chunk::<6>()
            && from[0] & 1 == 0
        {
            if self.stations.len() >= STATIONS && !self.stations.contains_key(from) {
                self.stations.clear();
            }
            self.stations.insert(*from, link);
        }
    }

    /// Tells `send` by which ports a frame of the kernel's goes out, and as what. `frame` is changed.
    pub fn down(&self, frame: &mut [u8], mut send: impl FnMut(LinkId, &[u8])) {
        let [first, others @ ..] = &self.ports[..] else { return };
        if others.is_empty() {
            return send(first.link, frame);
        }
        let mut worn = self.mac;
        let only = self.port_of(frame);
        for port in self.ports.iter().filter(|port| only.is_none_or(|only| only == port.link)) {
            dress(frame, worn, port.mac);
            worn = port.mac;
            send(port.link, frame);
        }
    }

    /// The one port that a frame goes out by; `None`: all.
    fn port_of(&self, frame: &[u8]) -> Option<LinkId> {
        let to = frame.first_chunk::<6>()?;
        let on = |address: IpAddr| {
            let has = |port: &&TapPort| port.networks.iter().any(|own| own.contains(address));
            self.ports.iter().find(has).map(|port| port.link)
        };
        let many = to[0] & 1 == 1;
        let (source, target) = addresses(frame);
        if many {
            return target.filter(|_| asks(frame)).and_then(on).or_else(|| source.and_then(on));
        }
        let is_for = |port: &&TapPort| *to == port.mac || *to == director_mac(port.mac);
        let own = || self.ports.iter().find(is_for).map(|port| port.link);
        self.stations
            .get(to)
            .copied()
            .or_else(own)
            .or_else(|| target.and_then(on))
            .or_else(|| source.and_then(on))
    }
}

fn word<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

fn ethertype(frame: &[u8]) -> u16 {
    word(frame, ETHERTYPE).map_or(0, u16::from_be_bytes)
}

/// Whether a frame is a question or an answer by ARP or ND, whose target tells where it belongs.
fn asks(frame: &[u8]) -> bool {
    ethertype(frame) == 0x0806 || nd_options(frame).is_some()
}

/// Source and destination of a packet, sender and target of ARP and ND; what is not given or tells nothing is `None`.
fn addresses(frame: &[u8]) -> (Option<IpAddr>, Option<IpAddr>) {
    let v4 = |at| word::<4>(frame, at).map(|ip| IpAddr::from(Ipv4Addr::from(ip)));
    let v6 = |at| word::<16>(frame, at).map(|ip| IpAddr::from(Ipv6Addr::from(ip)));
    match ethertype(frame) {
        0x0806 => (v4(ARP_SENDER_IP), v4(ARP_TARGET_IP)),
        0x0800 => (v4(IPV4_SOURCE), v4(IPV4_SOURCE + 4)),
        0x86dd => match nd_options(frame) {
            // of a solicitation or an advertisement
            Some(options) if options == ND_TARGET + 16 => (v6(IPV6_SOURCE), v6(ND_TARGET)),
            _ => (v6(IPV6_SOURCE), v6(IPV6_SOURCE + 16)),
        },
        _ => (None, None),
    }
}

/// Where the options of an ND message begin; `None`: it is none. Source: RFC 4861 sections 4.1 to 4.5.
fn nd_options(frame: &[u8]) -> Option<usize> {
    if ethertype(frame) != 0x86dd || *frame.get(L3 + 6)? != ICMPV6 {
        return None;
    }
    match *frame.get(ICMP6)? {
        133 => Some(ICMP6 + 8),
        134 => Some(ICMP6 + 16),
        135 | 136 => Some(ICMP6 + 24),
        137 => Some(ICMP6 + 40),
        _ => None,
    }
}

/// Puts a port's MAC address in the place of another one, wherever a frame says whom it is from.
fn dress(frame: &mut [u8], old: Mac, new: Mac) {
    if old == new {
        return;
    }
    let swap = |frame: &mut [u8], at: usize| -> bool {
        let place = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<6>());
        let Some(mac) = place.filter(|mac| **mac == old) else { return false };
        *mac = new;
        true
    };
    swap(frame, 6);
    if ethertype(frame) == 0x0806 {
        swap(frame, ARP_SENDER);
        return;
    }
    let Some(mut at) = nd_options(frame) else { return };
    while let Some([kind, units]) = word::<2>(frame, at) {
        if units == 0 {
            return;
        }
        // source and target link-layer address: RFC 4861 section 4.6.1
        if matches!((kind, units), (1 | 2, 1)) && swap(frame, at + 2) {
            let Some(mut sum) = word::<2>(frame, ICMP6 + 2).map(u16::from_be_bytes) else { return };
            for (old, new) in old.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
                sum = checksum::update(sum, u16::from_be_bytes(*old), u16::from_be_bytes(*new));
            }
            if let Some(place) = frame.get_mut(ICMP6 + 2..).and_then(|rest| rest.first_chunk_mut()) {
                *place = sum.to_be_bytes();
            }
        }
        at += 8 * usize::from(units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_config::IfAddr;
    use proptest::prelude::*;

    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 1, 0xb];
    const STATION: Mac = [2, 0, 0, 0, 0, 1];
    const ALL: Mac = [0xff; 6];

    fn share() -> Share {
        let port = |link, mac, networks: &[&str]| TapPort {
            link: LinkId(link),
            mac,
            networks: networks.iter().map(|net| net.parse::<IfAddr>().unwrap()).collect(),
        };
        let ports =
            vec![port(3, A, &["10.0.1.1/24", "fd00:1::1/64"]), port(5, B, &["10.0.2.1/24", "fd00:2::1/64"])];
        Share { mac: A, ports, stations: HashMap::new() }
    }

    fn frame(to: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
        [&to[..], &A, &kind.to_be_bytes(), body].concat()
    }

    fn arp(to: Mac, target: [u8; 4]) -> Vec<u8> {
        let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &A, &[10, 0, 1, 1], &[0; 6], &target].concat();
        frame(to, 0x0806, &body)
    }

    fn v4(to: Mac, source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        frame(to, 0x0800, &[&[0x45; 12][..], &source, &target, &[0; 8]].concat())
    }

    /// A solicitation with its source's MAC address.
    fn solicit(target: &str) -> Vec<u8> {
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let mut icmp = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &ip(target), &[1, 1], &A].concat();
        let (from, to) = (ip("fd00:1::1"), ip("ff02::1:ff00:9"));
        let sum = icmp_sum(&from, &to, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let head = [&[0x60, 0, 0, 0, 0, 32, ICMPV6, 255][..], &from, &to].concat();
        frame([0x33, 0x33, 0xff, 0, 0, 9], 0x86dd, &[head, icmp].concat())
    }

    fn icmp_sum(from: &[u8], to: &[u8], icmp: &[u8]) -> u16 {
        let pseudo = checksum::pseudo_header(from, to, ICMPV6, icmp.len());
        checksum::finish(checksum::add(pseudo, icmp))
    }

    fn sent(share: &Share, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut all = Vec::new();
        share.down(&mut frame.to_vec(), |link, frame| all.push((link.0, frame.to_vec())));
        all
    }

    fn links(share: &Share, frame: &[u8]) -> Vec<u16> {
        sent(share, frame).into_iter().map(|(link, _)| link).collect()
    }

    #[test]
    fn questions_go_out_by_the_port_that_they_are_about_from_its_address() {
        let share = share();
        assert_eq!(links(&share, &arp(ALL, [10, 0, 1, 9])), [3]);
        let [(5, asked)] = &sent(&share, &arp(ALL, [10, 0, 2, 9]))[..] else { panic!() };
        assert_eq!((&asked[6..12], &asked[ARP_SENDER..ARP_SENDER + 6]), (&B[..], &B[..]));
        assert_eq!(links(&share, &solicit("fd00:1::9")), [3]);
        let [(5, asked)] = &sent(&share, &solicit("fd00:2::9"))[..] else { panic!() };
        assert_eq!((&asked[6..12], &asked[ND_TARGET + 18..ND_TARGET + 24]), (&B[..], &B[..]));
        let mut icmp = asked[ICMP6..].to_vec();
        icmp[2..4].fill(0);
        let sum = icmp_sum(&asked[IPV6_SOURCE..][..16], &asked[IPV6_SOURCE + 16..][..16], &icmp);
        assert_eq!(asked[ICMP6 + 2..ICMP6 + 4], sum.to_be_bytes());
    }

    #[test]
    fn packets_follow_the_station_then_the_network() {
        let mut share = share();
        let out = v4(STATION, [10, 0, 1, 1], [192, 168, 9, 9]);
        assert_eq!(links(&share, &out), [3], "by the source's network, as nothing else is known");
        let mut heard = [&B[..], &STATION, &[8, 0, 0x45]].concat();
        share.up(LinkId(5), &mut heard);
        assert_eq!(heard[..6], A, "for the interface");
        let [(5, frame)] = &sent(&share, &out)[..] else { panic!() };
        assert_eq!((&frame[..6], &frame[6..12]), (&STATION[..], &B[..]));
        let unheard = [2, 9, 9, 9, 9, 9];
        assert_eq!(links(&share, &v4(unheard, [10, 0, 1, 1], [10, 0, 2, 7])), [5]);
        // what is for the director itself goes to the port whose address it has
        assert_eq!(links(&share, &v4(director_mac(B), [10, 0, 1, 1], [10, 9, 9, 9])), [5]);
    }

    #[test]
    fn what_is_for_many_goes_by_its_source_or_everywhere_in_the_port_s_own_dress() {
        let share = share();
        let group = [1, 0, 0x5e, 0, 0, 18];
        assert_eq!(links(&share, &v4(group, [10, 0, 2, 1], [224, 0, 0, 18])), [5]);
        let all = sent(&share, &v4(ALL, [0; 4], [255; 4]));
        let seen: Vec<_> = all.iter().map(|(link, frame)| (*link, &frame[6..12])).collect();
        assert_eq!(seen, [(3, &A[..]), (5, &B[..])]);
    }

    #[test]
    fn one_port_s_frames_stay_as_they_are() {
        let mut share = share();
        share.ports.truncate(1);
        let mut heard = [&[7; 6][..], &STATION, &[8, 0]].concat();
        share.up(LinkId(3), &mut heard);
        assert_eq!((&heard[..6], share.stations.len()), (&[7; 6][..], 0));
        let out = arp(ALL, [10, 0, 2, 9]);
        assert_eq!(sent(&share, &out), [(3, out)]);
    }

    #[test]
    fn stations_are_not_remembered_without_end() {
        let mut share = share();
        for number in 0..2 * STATIONS as u32 + 9 {
            let [a, b, c, d] = number.to_be_bytes();
            share.up(LinkId(3), &mut [&B[..], &[2, 0, a, b, c, d], &[8, 0]].concat());
            assert!((1..=STATIONS).contains(&share.stations.len()));
        }
    }

    proptest! {
        #[test]
        fn no_frame_harms(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..5, nd in 130u8..140, ones: bool,
        ) {
            if let Some(place) = bytes.get_mut(ETHERTYPE..ETHERTYPE + 2) {
                place.copy_from_slice(&[[8, 0], [8, 6], [0x86, 0xdd], [0x86, 0xdd], [0x81, 0]][kind]);
            }
            if ones && let Some(to) = bytes.first_chunk_mut::<6>() {
                *to = ALL;
            }
            if kind == 3 && bytes.len() > ICMP6 {
                bytes[L3 + 6] = ICMPV6;
                bytes[ICMP6] = nd;
            }
            let mut share = share();
            let len = bytes.len();
            share.up(LinkId(5), &mut bytes.clone());
            share.down(&mut bytes, |_, frame| assert_eq!(frame.len(), len));
        }
    }
}

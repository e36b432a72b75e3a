//! Frames of adverts, announcements and BFD packets, and what comes in them.

use std::net::{IpAddr, Ipv6Addr};

use lb_dataplane::channel::{BFD_PORT, ControlFrame, PROTOCOL_VRRP};
use lb_dataplane::respond;
use lb_dataplane::wire::{self, Link, Mac, PROTOCOL_ICMP6, PROTOCOL_UDP, checksum, ethernet, ipv4, ipv6};

/// An IP packet that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'f> {
    /// Station that sent the frame.
    pub station: Mac,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What is behind the IP header, without padding.
    pub payload: &'f [u8],
}

/// The packet in a frame. `None`: a worker has let something pass that is none.
pub fn open(frame: &ControlFrame) -> Option<Datagram<'_>> {
    let bytes = frame.frame.as_slice();
    let station = ethernet::source(bytes)?;
    let packet = bytes.get(usize::from(frame.l3)..)?;
    let (src, dst, protocol, ttl, header_len, ip_len): (IpAddr, IpAddr, _, _, _, _) =
        match packet.first()? >> 4 {
            4 => {
                let ip = ipv4::parse(packet).ok()?;
                (ip.src.into(), ip.dst.into(), ip.protocol, ip.ttl, ip.header_len, ip.ip_len)
            }
            _ => {
                let ip = ipv6::parse(packet).ok()?;
                (ip.src.into(), ip.dst.into(), ip.protocol, ip.ttl, ip.header_len, ip.ip_len)
            }
        };
    let payload = packet.get(usize::from(header_len)..usize::from(ip_len))?;
    Some(Datagram { station, src, dst, protocol, ttl, payload })
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Station or group.
    pub to: Mac,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// Ethernet address of a multicast group. Source: RFC 1112 section 6.4, RFC 2464 section 7.
pub fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) => ipv6::multicast_mac(v6),
    }
}

/// A whole frame with an IP packet. `None`: longer than an IP packet can be, or the families differ.
fn packet(link: &Link, route: &Route, protocol: u8, id: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let head = ethernet::header_len(link.vlan);
    let (ethertype, ip_head) = match route.src {
        IpAddr::V4(_) => (ethernet::ETHERTYPE_IPV4, ipv4::HEADER_LEN),
        IpAddr::V6(_) => (ethernet::ETHERTYPE_IPV6, ipv6::HEADER_LEN),
    };
    let mut frame = vec![0; head + ip_head + payload.len()];
    let room = ethernet::emit(&mut frame, link, route.to, ethertype)?;
    match (route.src, route.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total_len = u16::try_from(ip_head + payload.len()).ok()?;
            // RFC 791: internetwork control, as keepalived sends them
            let emit = ipv4::Emit { src, dst, protocol, tos: 0xc0, id, total_len };
            ipv4::emit(room, &emit)?;
            let ttl = room.get_mut(8)?;
            let old = *ttl;
            *ttl = route.ttl;
            let sum = u16::from_be_bytes([*room.get(10)?, *room.get(11)?]);
            let word = |ttl: u8| u16::from_be_bytes([ttl, protocol]);
            let sum = checksum::update(sum, word(old), word(route.ttl));
            room.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let payload_len = u16::try_from(payload.len()).ok()?;
            ipv6::emit(room, &ipv6::Emit { src, dst, protocol, hop_limit: route.ttl, payload_len })?;
        }
        _ => return None,
    }
    room.get_mut(ip_head..)?.copy_from_slice(payload);
    Some(frame)
}

/// A frame that tells switches which group is listened to here: an MLDv2 report (RFC 3810 section 5.2), without which
/// one that snoops (RFC 4541) need not pass adverts over IPv6 on. Those over IPv4 go to a group that all ports get.
pub fn join(link: &Link, src: Ipv6Addr, group: Ipv6Addr) -> Option<Vec<u8>> {
    const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
    /// Type 143, one record: "changes to exclude nothing".
    const REPORT: [u8; 12] = [143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
    // hop-by-hop options: router alert (RFC 2711), padding; behind it ICMPv6
    let mut payload = vec![PROTOCOL_ICMP6, 0, 5, 2, 0, 0, 1, 0];
    let mut report = REPORT.to_vec();
    report.extend(group.octets());
    let pseudo = checksum::pseudo_header(&src.octets(), &ROUTERS.octets(), PROTOCOL_ICMP6, report.len());
    let sum = checksum::finish(checksum::add(pseudo, &report)).to_be_bytes();
    report.get_mut(2..4)?.copy_from_slice(&sum);
    payload.extend(report);
    let to = ipv6::multicast_mac(ROUTERS);
    packet(link, &Route { to, src: src.into(), dst: ROUTERS.into(), ttl: 1 }, 0, 0, &payload)
}

/// A frame with an advert.
pub fn advert(link: &Link, route: &Route, id: u16, payload: &[u8]) -> Option<Vec<u8>> {
    packet(link, route, PROTOCOL_VRRP, id, payload)
}

/// A frame with a BFD packet.
pub fn bfd(link: &Link, route: &Route, src_port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let len = 8 + payload.len();
    let mut udp = Vec::with_capacity(len);
    udp.extend(src_port.to_be_bytes());
    udp.extend(BFD_PORT.to_be_bytes());
    udp.extend(u16::try_from(len).ok()?.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let pseudo = match (route.src, route.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_UDP, len)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_UDP, len)
        }
        _ => return None,
    };
    // RFC 768: a sum of 0 is written as its complement
    let sum = match checksum::finish(checksum::add(pseudo, &udp)) {
        0 => u16::MAX,
        sum => sum,
    };
    udp.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    packet(link, route, PROTOCOL_UDP, 0, &udp)
}

/// The payload of a UDP datagram of single-hop BFD; `None`: something else, or its checksum is wrong.
pub fn bfd_payload<'f>(datagram: &Datagram<'f>) -> Option<&'f [u8]> {
    let ports = wire::udp::parse(datagram.payload).ok()?;
    let len = usize::from(u16::from_be_bytes([*datagram.payload.get(4)?, *datagram.payload.get(5)?]));
    let udp = datagram.payload.get(..len)?;
    let sum = u16::from_be_bytes([*udp.get(6)?, *udp.get(7)?]);
    let pseudo = match (datagram.src, datagram.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_UDP, len)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            checksum::pseudo_header(&src.octets(), &dst.octets(), PROTOCOL_UDP, len)
        }
        _ => return None,
    };
    let right = sum == 0 && datagram.src.is_ipv4() || checksum::is_valid(checksum::add(pseudo, udp));
    (ports.dst == BFD_PORT && right).then(|| udp.get(8..)).flatten()
}

/// A frame that tells everyone where an address is now.
pub fn announcement(link: &Link, address: IpAddr) -> Option<Vec<u8>> {
    let mut frame = vec![0; respond::MAX_PROBE_LEN];
    let len = match address {
        IpAddr::V4(v4) => respond::gratuitous_arp(&mut frame, link, v4),
        IpAddr::V6(v6) => respond::neighbor_advertisement(&mut frame, link, v6),
    }?;
    frame.truncate(len);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_dataplane::io::DeviceId;
    use lb_dataplane::neighbor::LinkId;

    fn received(frame: &[u8], l3: u16) -> ControlFrame {
        let frame = frame.iter().copied().collect();
        ControlFrame { link: LinkId(0), device: DeviceId(0), l3, frame }
    }

    #[test]
    fn what_is_sent_opens_as_what_it_was() {
        let mac = [2, 0, 0, 0, 0, 1];
        for (src, dst, vlan) in [("10.0.0.1", "224.0.0.18", 0), ("fe80::1", "ff02::12", 7)] {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let route = Route { to: group_mac(dst), src, dst, ttl: 255 };
            let link = Link { mac, vlan };
            let l3 = ethernet::header_len(vlan) as u16;
            let bytes = advert(&link, &route, 1, b"payload").unwrap();
            let frame = received(&bytes, l3);
            let opened = open(&frame).unwrap();
            assert_eq!(
                opened,
                Datagram { station: mac, src, dst, protocol: 112, ttl: 255, payload: b"payload" }
            );
            let bytes = bfd(&link, &route, 49152, b"odd").unwrap();
            let frame = received(&bytes, l3);
            assert_eq!(bfd_payload(&open(&frame).unwrap()), Some(&b"odd"[..]));
            let mut spoiled = bytes.clone();
            *spoiled.last_mut().unwrap() ^= 1;
            assert_eq!(bfd_payload(&open(&received(&spoiled, l3)).unwrap()), None);
        }
        assert_eq!(group_mac("224.0.0.18".parse().unwrap()), [1, 0, 0x5e, 0, 0, 0x12]);
        assert_eq!(group_mac("ff02::12".parse().unwrap()), [0x33, 0x33, 0, 0, 0, 0x12]);
    }

    #[test]
    fn a_report_is_one_that_linux_sends() {
        let link = Link { mac: [2, 0, 0, 0, 0, 1], vlan: 0 };
        let frame = join(&link, "fe80::1".parse().unwrap(), "ff02::12".parse().unwrap()).unwrap();
        let wanted = [
            // to 33:33:00:00:00:16, IPv6, 36 bytes, hop-by-hop, hop limit 1
            &[0x33, 0x33, 0, 0, 0, 0x16, 2, 0, 0, 0, 0, 1, 0x86, 0xdd][..],
            &[0x60, 0, 0, 0, 0, 36, 0, 1],
            &"fe80::1".parse::<Ipv6Addr>().unwrap().octets(),
            &"ff02::16".parse::<Ipv6Addr>().unwrap().octets(),
            &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0],
        ]
        .concat();
        assert_eq!(frame[..wanted.len()], wanted);
        let (src, dst) = (&frame[22..38], &frame[38..54]);
        let sum = checksum::pseudo_header(src, dst, PROTOCOL_ICMP6, 28);
        assert!(checksum::is_valid(checksum::add(sum, &frame[62..])));
        assert_eq!(
            frame[66..],
            [&[0, 0, 0, 1, 4, 0, 0, 0][..], &"ff02::12".parse::<Ipv6Addr>().unwrap().octets()].concat()
        );
    }
}

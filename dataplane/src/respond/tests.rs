use super::*;
use crate::parse::parse;
use crate::wire::Link;
use crate::wire::samples::{CLIENT, DIRECTOR, FRAMES, TestPacket, frame, hex};

const LINK: Link = Link { mac: DIRECTOR, vlan: 0 };
const TAGGED: Link = Link { mac: DIRECTOR, vlan: 100 };
const DIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 11);
const RIP: Ipv4Addr = Ipv4Addr::new(192, 168, 150, 12);
const DIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);
const RIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x12);

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00, 0xa0, 0x64], &frame[12..]].concat()
}

/// What `build` writes: the frame alone.
fn built(build: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut buffer = [0xcc; MAX_PROBE_LEN];
    let len = build(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn an_echo_request_becomes_its_reply() {
    // as Linux answers but for what the reply keeps of the request: identification and DF; checksums worked out anew
    let reply4 = "020000000001 0200000000fe 0800
        450000200001400040016ece0a000064c0a80102 0000212d00010001 70696e67";
    // Linux 6.1, flow label 0
    let reply6 = "020000000001 0200000000fe 86dd
        60000000000c3a40fd00000a000000000000000000000100fd00000c000000000000000000000002
        8100a4cc00010001 70696e67";
    for (request, reply) in [("echo4", reply4), ("echo6", reply6)] {
        for wrap in [<[u8]>::to_vec, tagged] {
            let mut frame = wrap(&frame(request));
            let parsed = parse(&frame).unwrap();
            assert!(echo_reply(&mut frame, &parsed, DIRECTOR));
            assert_eq!(frame, wrap(&hex(reply)), "{request}");
        }
    }
}

#[test]
fn an_echo_reply_has_the_director_s_ttl_and_valid_checksums() {
    for (request, ttl_at) in [("echo4", 22), ("echo6", 21)] {
        for ttl in [1, 63, 64, 128, 255] {
            let mut frame = frame(request);
            let ip: &mut [u8; 20] = frame[14..].first_chunk_mut().unwrap();
            match request {
                "echo4" => ipv4::set_ttl(ip, ttl),
                _ => ip[7] = ttl,
            }
            let parsed = parse(&frame).unwrap();
            assert!(echo_reply(&mut frame, &parsed, DIRECTOR));
            assert_eq!(frame[ttl_at], 64);
            // replies are not verified by `parse`; as requests they are, and the type alone differs
            let mut again = frame.clone();
            let (at, kind) = if request == "echo4" { (34, 8) } else { (54, 128) };
            assert!(set_icmp_kind(&mut again, at, kind));
            assert!(parse(&again).is_ok(), "{request} {ttl}");
        }
    }
}

#[test]
fn an_arp_request_becomes_its_reply() {
    for wrap in [<[u8]>::to_vec, tagged] {
        let mut frame = wrap(&[&frame("arp")[..], &[0; 18]].concat());
        let parsed = parse(&frame).unwrap();
        assert!(arp_reply(&mut frame, &parsed, DIRECTOR));
        // as Linux answered the same request
        let reply = hex("020000000001 0200000000fe 0806
             0001 0800 06 04 0002 0200000000fe 0a000064 020000000001 0a000002");
        assert_eq!(frame, wrap(&[&reply[..], &[0; 18]].concat()), "padding stays");
    }
}

#[test]
fn a_solicitation_becomes_an_advertisement_to_who_asked() {
    let mut packet = TestPacket::new(&frame("solicitation"));
    let parsed = parse(packet.bytes()).unwrap();
    assert!(nd_reply(&mut packet, &parsed, DIRECTOR));
    // as Linux answered the same solicitation
    let reply = hex("020000000001 0200000000fe 86dd
         6000000000203afffd00000a000000000000000000000100fd00000a000000000000000000000002
         8800198360000000fd00000a000000000000000000000100 02010200000000fe");
    assert_eq!(packet.bytes(), reply);
}

#[test]
fn a_unicast_solicitation_without_an_address_is_answered_to_the_frame_s_sender() {
    let mut buffer = [0; MAX_PROBE_LEN];
    let asked = Solicit { src: RIP6, dst: DIP6, target: DIP6, source_lla: None };
    let len = originate::nd_packet(&mut buffer[18..], &Nd::Solicit(asked)).unwrap();
    let _ = ethernet::emit(&mut buffer, &Link { mac: CLIENT, vlan: 100 }, DIRECTOR, ethernet::ETHERTYPE_IPV6);
    let mut packet = TestPacket::new(&buffer[..18 + len]);
    let parsed = parse(packet.bytes()).unwrap();
    assert!(nd_reply(&mut packet, &parsed, DIRECTOR), "grows by 8 bytes");
    let reply = parse(packet.bytes()).unwrap();
    assert_eq!((reply.vlan, reply.l3, packet.bytes().len()), (100, 18, 90));
    assert_eq!(ethernet::destination(packet.bytes()), Some(CLIENT));
    let Net::Nd(Nd::Advert(advert)) = reply.net else { panic!("{reply:?}") };
    assert_eq!((advert.dst, advert.solicited, advert.target_lla), (RIP6, true, Some(DIRECTOR)));
}

#[test]
fn a_duplicate_address_probe_is_answered_to_all_nodes() {
    let mut packet = TestPacket::new(&frame("probe"));
    let parsed = parse(packet.bytes()).unwrap();
    assert!(nd_reply(&mut packet, &parsed, DIRECTOR));
    let Net::Nd(Nd::Advert(advert)) = parse(packet.bytes()).unwrap().net else { panic!() };
    let target = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 2);
    assert_eq!((advert.dst, advert.solicited, advert.target), (ipv6::ALL_NODES, false, target));
    assert_eq!(ethernet::destination(packet.bytes()), Some([0x33, 0x33, 0, 0, 0, 1]));
}

#[test]
fn what_is_no_request_is_left_alone() {
    for (name, text) in FRAMES {
        let before = hex(text);
        let parsed = parse(&before).unwrap();
        let mut packet = TestPacket::new(&before);
        if !name.starts_with("echo") {
            assert!(!echo_reply(packet.bytes_mut(), &parsed, DIRECTOR), "{name}");
        }
        if !name.starts_with("arp") {
            assert!(!arp_reply(packet.bytes_mut(), &parsed, DIRECTOR), "{name}");
        }
        if !["solicitation", "probe"].contains(&name) {
            assert!(!nd_reply(&mut packet, &parsed, DIRECTOR), "{name}");
        }
        assert_eq!(packet.bytes(), before, "{name}");
    }
}

#[test]
fn a_parsed_value_of_another_frame_cannot_panic() {
    for (name, text) in FRAMES {
        let parsed = parse(&hex(text)).unwrap();
        for len in 0..100 {
            let mut packet = TestPacket::new(&vec![0; len]);
            echo_reply(packet.bytes_mut(), &parsed, DIRECTOR);
            arp_reply(packet.bytes_mut(), &parsed, DIRECTOR);
            nd_reply(&mut packet, &parsed, DIRECTOR);
            assert!(packet.bytes().len() <= 100, "{name}");
        }
    }
}

#[test]
fn arp_questions_go_to_everyone_or_to_one_station() {
    let request = "0806 0001 0800 06 04 0001 0200000000fe c0a8960b 000000000000 c0a8960c";
    let to_all = built(|buffer| arp_request(buffer, &LINK, (DIP, RIP), None));
    assert_eq!(to_all, hex(&format!("ffffffffffff 0200000000fe {request}")));
    let to_one = built(|buffer| arp_request(buffer, &TAGGED, (DIP, RIP), Some(CLIENT)));
    assert_eq!(to_one, hex(&format!("020000000001 0200000000fe 81000064 {request}")));
}

#[test]
fn gratuitous_arp_names_the_address_twice() {
    let frame = built(|buffer| gratuitous_arp(buffer, &LINK, DIP));
    let want = "ffffffffffff 0200000000fe 0806
        0001 0800 06 04 0001 0200000000fe c0a8960b 000000000000 c0a8960b";
    assert_eq!(frame, hex(want));
}

#[test]
fn solicitations_go_to_the_group_or_to_one_station_and_parse_back() {
    for (link, station, dst, to) in [
        (LINK, None, ipv6::solicited_node(RIP6), [0x33, 0x33, 0xff, 0, 0, 0x12]),
        (TAGGED, Some(CLIENT), RIP6, CLIENT),
    ] {
        let frame = built(|buffer| neighbor_solicitation(buffer, &link, (DIP6, RIP6), station));
        let parsed = parse(&frame).unwrap();
        let solicit = Solicit { src: DIP6, dst, target: RIP6, source_lla: Some(DIRECTOR) };
        assert_eq!((parsed.vlan, parsed.net), (link.vlan, Net::Nd(Nd::Solicit(solicit))));
        assert_eq!((ethernet::destination(&frame), ethernet::source(&frame)), (Some(to), Some(DIRECTOR)));
    }
}

#[test]
fn an_unsolicited_advertisement_goes_to_all_nodes_and_parses_back() {
    let frame = built(|buffer| neighbor_advertisement(buffer, &TAGGED, DIP6));
    let parsed = parse(&frame).unwrap();
    let (src, dst, target, target_lla) = (DIP6, ipv6::ALL_NODES, DIP6, Some(DIRECTOR));
    let (router, solicited, overrides) = (false, false, true);
    let advert = Advert { src, dst, target, target_lla, router, solicited, overrides };
    assert_eq!((parsed.vlan, parsed.net), (100, Net::Nd(Nd::Advert(advert))));
    assert_eq!(ethernet::destination(&frame), Some([0x33, 0x33, 0, 0, 0, 1]));
}

#[test]
fn without_room_nothing_is_built() {
    for len in 0..MAX_PROBE_LEN {
        let buffer = &mut vec![0; len];
        assert_eq!(arp_request(buffer, &TAGGED, (DIP, RIP), None).is_some(), len >= 46);
        assert_eq!(gratuitous_arp(buffer, &LINK, DIP).is_some(), len >= 42);
        assert_eq!(neighbor_solicitation(buffer, &TAGGED, (DIP6, RIP6), None), None);
        assert_eq!(neighbor_advertisement(buffer, &LINK, DIP6).is_some(), len >= 86);
    }
    let mut packet = TestPacket::with_headroom(&frame("solicitation"), 0);
    let parsed = parse(packet.bytes()).unwrap();
    assert!(nd_reply(&mut packet, &parsed, DIRECTOR), "needs no headroom");
}

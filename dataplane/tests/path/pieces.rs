//! Frames in several buffers: they must leave as the same frame in one buffer does, to the last byte.

use std::net::Ipv4Addr;

use lb_dataplane::DropReason;
use lb_dataplane::io::{DeviceId, Packet};
use lb_dataplane::memory::Frame;

use crate::frames::{ACK, CLIENT, DIRECTOR, SYN, checksum, ethernet, icmp, ipv4, ipv6, tcp, udp};
use crate::lab::Lab;
use crate::nat::{CIP, RIP, STATION, TWO_ARMS, VIP, pseudo, resolved};

/// Payload of a jumbo frame: 9000 bytes with 40 of headers.
const JUMBO: usize = 8960;

/// Sizes of the first buffer: among headers, right behind them, an mbuf's, nearly all.
const FIRST: [usize; 8] = [1, 20, 37, 54, 58, 128, 2048, 8900];

fn text(forwarding: &str, more: &str) -> String {
    let service = |protocol: &str| {
        let port = if forwarding == "nat" { ", port = 8080" } else { "" };
        let server = format!("{{ address = \"10.1.0.12\"{port} }}");
        format!(
            "[[services]]\nname = \"{protocol}\"\nvip = \"{VIP}\"\nport = 80\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
             forwarding = \"{forwarding}\"\n{more}servers = [{server}]\n"
        )
    };
    let ports = TWO_ARMS.replace("addresses =", "mtu = 9000\naddresses =");
    format!("{ports}{}{}{}", service("tcp"), service("udp"), service("sctp"))
}

fn filled(mut payload: Vec<u8>, header: usize) -> Vec<u8> {
    payload.iter_mut().enumerate().skip(header).for_each(|(at, byte)| *byte = (at * 7) as u8);
    payload
}

/// TCP or UDP of this payload with its checksum.
fn transport(protocol: u8, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), flags: u8, data: usize) -> Vec<u8> {
    let (mut payload, at) = match protocol {
        6 => (filled(tcp(src.1, dst.1, flags, data), 20), 16),
        _ => (filled(udp(src.1, dst.1, data), 8), 6),
    };
    let sum = checksum(&pseudo(src.0, dst.0, protocol, &payload));
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    payload
}

fn packet(protocol: u8, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), flags: u8, data: usize) -> Vec<u8> {
    ipv4(src.0, dst.0, protocol, 64, true, &transport(protocol, src, dst, flags, data))
}

/// What comes out of all devices for a frame that comes in buffers of which the first is so long; `None`: in one.
fn pass(lab: &mut Lab, device: u16, bytes: &[u8], first: Option<usize>) -> Vec<(usize, Vec<u8>)> {
    let frame = Frame::new(DeviceId(device), bytes);
    let frame = match first {
        Some(first) => frame.split(first),
        None => frame,
    };
    lab.workers[0].io_mut().receive[usize::from(device)].push_back(frame);
    lab.settle();
    let mut out = Vec::new();
    for worker in &mut lab.workers {
        for device in 0..2 {
            let sent = std::mem::take(&mut worker.io_mut().sent[device]);
            out.extend(sent.into_iter().map(|frame| (device, comparable(frame.whole().to_vec()))));
        }
    }
    out
}

/// Blanks GUE's source port, which every start draws anew, and the checksum, which must be right.
fn comparable(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == 6080_u16.to_be_bytes() {
        let (src, dst) = (&frame[26..30], &frame[30..34]);
        let len = (frame.len() - 34) as u16;
        let pseudo = [src, dst, &[0, 17], &len.to_be_bytes(), &frame[34..]].concat();
        assert_eq!(checksum(&pseudo), 0, "over all of the packet");
        frame[34..36].fill(0);
        frame[40..42].fill(0);
    }
    frame
}

/// Plays the frames in one buffer each to one director and in several to another, for every split; gives what came
/// out.
fn same(make: impl Fn() -> Lab, frames: &[(u16, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut whole = make();
    let play = |lab: &mut Lab, first| {
        frames.iter().flat_map(|(device, bytes)| pass(lab, *device, bytes, first)).collect::<Vec<_>>()
    };
    // identification numbers of outer headers are counted on: as many frames in both
    let expected = play(&mut whole, None);
    for first in FIRST {
        let mut split = make();
        assert_eq!(play(&mut split, Some(first)), expected, "split after {first}");
        assert_eq!(split.drops(), whole.drops(), "split after {first}");
        let bytes = |lab: &Lab| {
            let dest = &lab.director.services()[0].dests[0];
            (dest.in_packets, dest.in_bytes, dest.out_bytes)
        };
        assert_eq!(bytes(&split), bytes(&whole), "split after {first}");
    }
    expected.into_iter().map(|(_, bytes)| bytes).collect()
}

fn from_client(packet: Vec<u8>) -> (u16, Vec<u8>) {
    (0, ethernet(DIRECTOR, CLIENT, 0x0800, &packet))
}

fn from_server(packet: Vec<u8>) -> (u16, Vec<u8>) {
    (1, ethernet(DIRECTOR, STATION, 0x0800, &packet))
}

#[test]
fn every_way_of_forwarding_sends_jumbo_frames_whole() {
    for (forwarding, more) in [
        ("dr", ""),
        ("nat", ""),
        ("tunnel", ""),
        ("tunnel", "tunnel = { type = \"gre\", checksum = \"full\" }\n"),
        ("tunnel", "tunnel = { type = \"gue\", port = 6080, checksum = \"full\" }\n"),
    ] {
        for workers in [1, 2] {
            let data = if forwarding == "tunnel" { JUMBO - 48 } else { JUMBO };
            let make = || resolved(&text(forwarding, more), workers);
            let (client, vip) = ((CIP, 1000), (VIP, 80));
            let mut frames = vec![
                from_client(packet(6, client, vip, SYN, 0)),
                from_client(packet(6, client, vip, ACK, data)),
                from_client(packet(17, client, vip, 0, data)),
            ];
            if forwarding == "nat" {
                frames.push(from_server(packet(6, (RIP, 8080), client, ACK, data)));
            }
            let out = same(make, &frames);
            assert_eq!(out.len(), frames.len(), "{forwarding} {more} {workers}");
            assert!(out[1].len() >= 14 + 40 + data);
            if forwarding == "nat" {
                let wanted = packet(6, client, (RIP, 8080), ACK, data);
                assert_eq!(out[1][34..], wanted[20..], "translated, checksum and all");
            }
        }
    }
}

#[test]
fn what_must_be_read_to_its_end_is_gathered() {
    let nat = || resolved(&text("nat", ""), 1);
    // a datagram without a checksum gets one
    let mut datagram = packet(17, (CIP, 1000), (VIP, 80), 0, 3000);
    datagram[26..28].fill(0);
    let out = same(nat, &[from_client(datagram)]);
    assert_eq!(out[0][34..], packet(17, (CIP, 1000), (RIP, 8080), 0, 3000)[20..]);

    // SCTP's sum goes over all of it
    let mut init = crate::frames::sctp(1000, 80, 1);
    init.extend((0..3000).map(|n| n as u8));
    init[14..16].copy_from_slice(&3004_u16.to_be_bytes());
    let out = same(nat, &[from_client(ipv4(CIP, VIP, 132, 64, true, &init))]);
    assert_eq!(out.len(), 1, "forwarded");

    // fragments, which are reassembled and translated as one
    let mut frames = Vec::new();
    let whole = transport(17, (CIP, 1000), (VIP, 80), 0, 6000 - 8);
    for (at, more) in [(0, true), (3000, false)] {
        let mut part = ipv4(CIP, VIP, 17, 64, false, &whole[at..at + 3000]);
        let word = (at / 8) as u16 | if more { 0x2000 } else { 0 };
        part[6..8].copy_from_slice(&word.to_be_bytes());
        part[10..12].fill(0);
        let sum = checksum(&part[..20]);
        part[10..12].copy_from_slice(&sum.to_be_bytes());
        frames.push(from_client(part));
    }
    assert_eq!(same(nat, &frames).len(), 2);

    // a ping for the director
    let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
    echo.extend([0x5a; 3000]);
    let ping = ipv4(CIP, VIP, 1, 64, true, &icmp(echo));
    let out = same(nat, &[from_client(ping)]);
    assert_eq!((out.len(), out[0].len()), (1, 14 + 28 + 3000));
}

#[test]
fn what_is_too_big_is_answered_or_cut_as_ever() {
    let small =
        || resolved(&text("dr", "").replacen("mtu = 9000\naddresses = [\"10.1", "addresses = [\"10.1", 1), 1);
    let (client, vip) = ((CIP, 1000), (VIP, 80));
    let syn = from_client(packet(6, client, vip, SYN, 0));
    // refused: DF
    let out = same(small, &[syn.clone(), from_client(packet(6, client, vip, ACK, 3000))]);
    assert_eq!((out.len(), out[1][34]), (2, 3), "unreachable");
    // cut
    let cuttable = ipv4(CIP, VIP, 6, 64, false, &transport(6, client, vip, ACK, 3000));
    assert_eq!(same(small, &[syn, from_client(cuttable)]).len(), 1 + 3);
}

#[test]
fn ipv6_goes_the_same_way() {
    let text = text("dr", "")
        .replace("\"192.168.150.11/24\"", "\"192.168.150.11/24\", \"fd00:150::11/64\"")
        .replace(&format!("vip = \"{VIP}\""), "vip = \"fd00:150::100\"")
        .replace("\"10.1.0.12\"", "\"fd00:150::12\"");
    let make = || {
        let mut lab = Lab::of(&text, 1);
        let (server, own) = ("fd00:150::12".parse().expect("v6"), "fd00:150::11".parse().expect("v6"));
        let advert =
            [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &std::net::Ipv6Addr::octets(&server), &[2, 1], &STATION];
        let advert = crate::frames::icmp6(server, own, advert.concat());
        lab.put(&ethernet(DIRECTOR, STATION, 0x86dd, &ipv6(server, own, 58, 255, &advert)));
        lab.settle();
        lab.clear();
        lab
    };
    let (client, vip) = ("fd00:150::1".parse().expect("v6"), "fd00:150::100".parse().expect("v6"));
    let frame = |flags, data| {
        (
            0,
            ethernet(
                DIRECTOR,
                CLIENT,
                0x86dd,
                &ipv6(client, vip, 6, 64, &filled(tcp(9, 80, flags, data), 20)),
            ),
        )
    };
    let out = same(make, &[frame(SYN, 0), frame(ACK, 8900)]);
    assert_eq!((out.len(), out[1].len()), (2, 14 + 60 + 8900));
}

#[test]
fn without_a_large_buffer_the_frame_is_dropped_and_counted() {
    let mut lab = resolved(&text("nat", ""), 1);
    lab.workers[0].io_mut().pool = 0;
    let mut init = crate::frames::sctp(1000, 80, 1);
    init.extend([0; 3000]);
    let (device, bytes) = from_client(ipv4(CIP, VIP, 132, 64, true, &init));
    assert!(pass(&mut lab, device, &bytes, Some(2048)).is_empty());
    assert_eq!(lab.dropped(DropReason::NoBuffer), 1);
    // one whose headers are in its first buffer needs none
    let (device, bytes) = from_client(packet(17, (CIP, 1000), (VIP, 80), 0, 3000));
    assert_eq!(pass(&mut lab, device, &bytes, Some(2048)).len(), 1);
}

#[test]
fn what_is_shorter_than_it_says_is_refused_for_the_same_reason() {
    let nat = || resolved(&text("nat", ""), 1);
    let mut frames = Vec::new();
    for cut in [1, 100, 2900, 2999] {
        let (device, mut bytes) = from_client(packet(17, (CIP, 1000), (VIP, 80), 0, 3000));
        bytes.truncate(bytes.len() - cut);
        frames.push((device, bytes));
    }
    assert!(same(nat, &frames).is_empty());
}

#[test]
fn a_frame_in_pieces_is_as_long_as_all_of_them() {
    let mut frame = Frame::new(DeviceId(0), &[7; 3000]).split(1000);
    assert_eq!((frame.bytes().len(), frame.frame_len(), frame.is_whole()), (1000, 3000, false));
    assert!(!frame.set_len(3001) && frame.set_len(1500) && frame.frame_len() == 1500);
    assert!(frame.grow_front(14) && frame.frame_len() == 1514 && frame.shrink_front(14));
    assert!(frame.set_len(500) && frame.is_whole() && frame.bytes().len() == 500);
}

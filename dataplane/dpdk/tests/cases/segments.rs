//! Packets in several buffers.

use std::net::UdpSocket;

use lb_config::Device;
use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::{Director, Worker};
use lb_dpdk::{Mbuf, WorkerIo};

use super::memory::{capture, read_capture};
use crate::support::{MBUFS, eal, frame, ip, open, own_network, packet, receive, spec, veth, wait_for};

/// An Ethernet frame of an IP packet of 9000 bytes.
const JUMBO: usize = 9014;

/// All bytes, gathered in place.
fn gathered(io: &mut WorkerIo, packet: &mut Mbuf) -> Vec<u8> {
    let (len, device) = (packet.frame_len(), packet.device());
    assert!(io.gather(packet), "no large buffer");
    assert!(packet.is_whole());
    assert_eq!((packet.frame_len(), packet.bytes().len(), packet.device()), (len, len, device));
    packet.bytes().to_vec()
}

/// One packet of the bytes of these buffers.
fn chain(io: &mut WorkerIo, parts: &[&[u8]]) -> Mbuf {
    let mut parts = parts.iter().map(|bytes| packet(io, bytes));
    let mut first = parts.next().unwrap();
    parts.for_each(|part| first.chain(part).unwrap());
    first
}

pub fn pcap() {
    let input = std::env::temp_dir().join(format!("sluice-jumbo-{}.pcap", std::process::id()));
    let output = input.with_extension("pcap.out");
    let frames: Vec<_> = (0..64).map(|n| frame(n, if n % 2 == 0 { JUMBO } else { 60 })).collect();
    std::fs::write(&input, capture(&frames)).unwrap();

    let eal = eal(1);
    let (devices, mut ios) = lb_dpdk::open(&eal, &[spec(Device::Pcap(input.clone()), 9000)], MBUFS).unwrap();
    let all_large = devices.large_mbufs();
    assert!(all_large.0 > 0);
    let io = &mut ios[0];
    let mut seen = Vec::new();
    while seen.len() < 64 {
        let mut burst = Burst::<Mbuf>::new();
        io.rx(DeviceId(0), &mut burst);
        assert!(!burst.is_empty());
        for (n, packet) in burst.iter_mut().enumerate() {
            let number = seen.len();
            assert_eq!(packet.is_whole(), number % 2 == 1, "buffers of 2048 bytes");
            assert_eq!(packet.frame_len(), frames[number].len());
            assert!(frames[number].starts_with(packet.bytes()));
            if n % 3 == 0 {
                assert_eq!(gathered(io, packet), frames[number]);
            }
            seen.push(());
        }
        // As they are and gathered ones: both leave whole.
        io.tx(DeviceId(0), &mut burst);
        assert!(burst.is_empty());
    }
    assert_eq!(devices.stats(DeviceId(0)).unwrap().rx_too_long, 0);
    assert_eq!((devices.mbufs(), devices.large_mbufs()), ((MBUFS, MBUFS), all_large));
    drop((devices, ios));
    assert_eq!(read_capture(&std::fs::read(&output).unwrap()), frames);
    std::fs::remove_file(input).unwrap();
    std::fs::remove_file(output).unwrap();
}

pub fn shapes() {
    let eal = eal(1);
    let (devices, mut ios) = lb_dpdk::open(&eal, &[spec(Device::Ring("a".into()), 9000)], MBUFS).unwrap();
    let io = &mut ios[0];
    let bytes = frame(1, 5000);
    let parts = [&bytes[..2000], &bytes[2000..4000], &bytes[4000..]];

    for len in [0, 1, 1999, 2000, 2001, 4000, 4001, 4999, 5000] {
        let mut packet = chain(io, &parts);
        assert!(!packet.is_whole() && !packet.set_len(5001) && !packet.set_len(usize::MAX));
        assert!(packet.set_len(len));
        assert_eq!((packet.frame_len(), packet.bytes().len()), (len, len.min(2000)));
        assert_eq!(packet.is_whole(), len <= 2000);
        assert_eq!(gathered(io, &mut packet), bytes[..len]);
    }
    let mut packet = chain(io, &parts);
    assert!(packet.grow_front(14) && packet.frame_len() == 5014);
    packet.bytes_mut()[..14].fill(0xee);
    assert!(packet.shrink_front(4) && packet.frame_len() == 5010);
    assert!(!packet.shrink_front(2011), "more than the first buffer holds");
    assert_eq!(gathered(io, &mut packet), [&[0xee; 10][..], &bytes].concat());
    drop(packet);

    // A short one has room in its first buffer: no large one is taken.
    let mut packet = chain(io, &[&bytes[..100], &bytes[100..300]]);
    let before = devices.large_mbufs();
    assert_eq!(gathered(io, &mut packet), bytes[..300]);
    assert_eq!(devices.large_mbufs(), before);
    drop(packet);

    // Through a device, and without a large buffer left.
    let mut burst: Burst<Mbuf> = [chain(io, &parts)].into_iter().collect();
    io.tx(DeviceId(0), &mut burst);
    assert!(burst.is_empty());
    io.rx(DeviceId(0), &mut burst);
    let held: Vec<_> = std::iter::from_fn(|| {
        let mut packet = chain(io, &parts);
        io.gather(&mut packet).then_some(packet)
    })
    .collect();
    assert_eq!(held.len() as u32, devices.large_mbufs().1);
    assert!(!io.gather(&mut burst[0]));
    assert_eq!((burst[0].frame_len(), burst[0].is_whole(), burst[0].device()), (5000, false, DeviceId(0)));
    drop(held);
    assert_eq!(gathered(io, &mut burst[0]), bytes);
    drop(burst);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    assert_eq!(devices.large_mbufs(), before);
}

pub fn linearized() {
    own_network();
    veth(1500);
    let eal = eal(1);
    let devices = [Device::AfPacket("va".into()), Device::AfXdp("vb".into())];
    let (devices, mut ios) = open(&eal, &devices).unwrap();
    let bytes = frame(1, 1514);
    for (from, to) in [(0, 1), (1, 0)] {
        let mut burst = Burst::<Mbuf>::new();
        burst.push(chain(&mut ios[0], &[&bytes[..14], &bytes[14..600], &bytes[600..]]));
        // Longer than any buffer here: it cannot be sent, and is counted.
        burst.push(chain(&mut ios[0], &[&[0xff; 2000], &[0xff; 2000]]));
        burst.push(packet(&mut ios[0], &bytes));
        ios[0].tx(DeviceId(from), &mut burst);
        assert!(burst.is_empty());
        assert_eq!(receive(&mut ios[0], to, 2), [bytes.clone(), bytes.clone()]);
        assert_eq!(devices.stats(DeviceId(from)).unwrap().tx_errors, 1);
    }
}

/// The next UDP packet of this port from the device.
fn datagram(io: &mut WorkerIo, port: u16) -> Mbuf {
    let mut found = None;
    wait_for("a datagram", || {
        let mut burst = Burst::<Mbuf>::new();
        io.rx(DeviceId(0), &mut burst);
        let wanted = |packet: &Mbuf| packet.bytes().get(36..38) == Some(&port.to_be_bytes());
        found = burst.into_iter().find(wanted);
        found.is_some()
    });
    found.unwrap()
}

pub fn tap() {
    own_network();
    let eal = eal(1);
    let (_devices, mut ios) = open(&eal, &[Device::Tap("lb0".into())]).unwrap();
    let io = &mut ios[0];
    ip("link set lb0 up");
    ip("address add 192.0.2.1/24 dev lb0");
    ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev lb0");
    let socket = UdpSocket::bind("192.0.2.1:4000").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let data: Vec<u8> = (0..1400).map(|n| n as u8).collect();
    socket.send_to(&data, "192.0.2.2:4001").unwrap();
    let packet = datagram(io, 4001);

    // Back with the ends changed about, in three buffers: the kernel gets one datagram.
    let mut bytes = packet.bytes().to_vec();
    let mac = ip("-br link show lb0").split_whitespace().nth(2).unwrap().to_owned();
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes[..6].copy_from_slice(&mac);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    let (addresses, ports) = (bytes[26..34].to_vec(), bytes[34..38].to_vec());
    bytes[26..34].copy_from_slice(&[&addresses[4..], &addresses[..4]].concat());
    bytes[34..38].copy_from_slice(&[&ports[2..], &ports[..2]].concat());
    let mut burst = Burst::<Mbuf>::new();
    burst.push(chain(io, &[&bytes[..50], &bytes[50..700], &bytes[700..]]));
    io.tx(DeviceId(0), &mut burst);
    assert!(burst.is_empty());
    let mut got = vec![0; 2000];
    assert_eq!(socket.recv(&mut got).unwrap(), data.len());
    assert_eq!(got[..data.len()], data);
}

/// The director's MAC address in [`balanced`], its client's and its server's.
const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 0x12]];

/// RFC 1071 over these bytes: 0 when a checksum in them is right.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// A TCP segment from 192.168.150.1:4000 to a port of 192.168.150.100, with right checksums.
fn segment(port: u16, flags: u8, data: usize) -> Vec<u8> {
    let (client, vip) = ([192, 168, 150, 1], [192, 168, 150, 100]);
    let mut tcp = vec![0; 20];
    tcp[..2].copy_from_slice(&4000_u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    (tcp[12], tcp[13]) = (0x50, flags);
    tcp.extend((0..data).map(|n| (n * 3) as u8));
    let len = (tcp.len() as u16).to_be_bytes();
    let checksum = sum(&[&client, &vip, &[0, 6], &len, &tcp]);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip[2..4].copy_from_slice(&(20 + tcp.len() as u16).to_be_bytes());
    ip.extend(client);
    ip.extend(vip);
    let checksum = sum(&[&ip]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&MACS[0][..], &MACS[1], &[8, 0], &ip, &tcp].concat()
}

pub fn balanced() {
    let input = std::env::temp_dir().join(format!("sluice-balanced-{}.pcap", std::process::id()));
    let output = input.with_extension("pcap.out");
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let arp = [&MACS[0][..], &MACS[2], &[8, 6], &head, &MACS[2], &[192, 168, 150, 12], &MACS[0]];
    let arp = [arp.concat(), vec![192, 168, 150, 11]].concat();
    let frames = [
        arp,
        segment(80, 0x02, 0),
        segment(80, 0x10, 8960),
        segment(81, 0x02, 0),
        segment(81, 0x10, 8960),
        segment(81, 0x10, 3000),
    ];
    std::fs::write(&input, capture(&frames)).unwrap();
    let text = format!(
        "[appliance]\nworkers = [0]\n[limits]\nmax_connections = 4096\n\
         [[ports]]\nname = \"lan\"\ndevice = \"pcap:{}\"\nmtu = 9000\naddresses = [\"192.168.150.11/24\"]\n\
         [[services]]\nname = \"dr\"\nvip = \"192.168.150.100\"\nport = 80\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
         forwarding = \"dr\"\nservers = [{{ address = \"192.168.150.12\" }}]\n\
         [[services]]\nname = \"nat\"\nvip = \"192.168.150.100\"\nport = 81\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
         forwarding = \"nat\"\nservers = [{{ address = \"192.168.150.12\", port = 8080 }}]\n",
        input.display()
    );
    let model = lb_config::parse(&text).unwrap();
    let setup = vec![DeviceSetup { mac: MACS[0], rss: false }];
    let (mut director, mut seeds) = Director::new(&model, setup).unwrap();
    let eal = eal(1);
    let (devices, mut ios) = lb_dpdk::open(&eal, &[spec(Device::Pcap(input.clone()), 9000)], MBUFS).unwrap();
    let mut worker = Worker::new(seeds.pop().unwrap(), ios.pop().unwrap()).unwrap();
    for turn in 0..10 {
        director.poll(turn);
        worker.turn(turn * 1_000_000 + 1_000_000);
    }
    let drops: Vec<_> = director.drops().into_iter().filter(|(_, count)| *count > 0).collect();
    assert!(drops.is_empty(), "{drops:?}");
    let counted = &director.services()[0].dests[0];
    assert_eq!((counted.in_packets, counted.in_bytes), (2, 40 + 9000));
    drop(worker);
    drop(devices);
    let sent = read_capture(&std::fs::read(&output).unwrap());
    let sent: Vec<_> = sent.into_iter().filter(|frame| frame.starts_with(&MACS[2])).collect();
    assert_eq!(sent.len(), 5, "the frames to the server");
    for (sent, frame) in sent.iter().zip(&frames[1..]) {
        assert_eq!(sent.len(), frame.len());
        assert_eq!(sent[54..], frame[54..], "the data to its end");
        assert_eq!(sum(&[&sent[14..34]]), 0);
        let len = (sent.len() as u16 - 34).to_be_bytes();
        assert_eq!(sum(&[&sent[26..34], &[0, 6], &len, &sent[34..]]), 0);
        let wanted: &[u8] = if frame[37] == 80 {
            &[192, 168, 150, 100, 15, 160, 0, 80]
        } else {
            &[192, 168, 150, 12, 15, 160, 31, 144]
        };
        assert_eq!(sent[30..38], *wanted);
    }
    std::fs::remove_file(input).unwrap();
    std::fs::remove_file(output).unwrap();
}

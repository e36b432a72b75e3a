//! Drivers without a kernel interface, and the buffers themselves.

use lb_config::Device;
use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo};
use lb_dpdk::DeviceSpec;

use crate::support::{MBUFS, eal, frame, open, packet, receive, send, spec};

pub fn ring() {
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Ring("a".into()), Device::Ring("b".into())]).unwrap();
    let io = &mut ios[0];
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));

    let first: Vec<_> = (0..100).map(|n| frame(n, 60)).collect();
    let second: Vec<_> = (100..150).map(|n| frame(n, 1514)).collect();
    send(io, 0, &first);
    send(io, 1, &second);
    assert!(devices.mbufs().0 <= MBUFS - 150);
    assert_eq!(receive(io, 1, 50), second);
    assert_eq!(receive(io, 0, 100), first);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));

    // What is still on the ring when the device closes goes back too: a pool that misses some is not freed.
    send(io, 0, &first);
    let infos = devices.infos();
    assert_eq!((infos[0].name.as_str(), infos[1].name.as_str()), ("ring:a", "ring:b"));
    assert_ne!(infos[0].mac, infos[1].mac);
    assert_eq!(devices.stats(DeviceId(1)).unwrap().rx_packets, 50);
    assert_eq!(devices.stats(DeviceId(1)).unwrap().tx_packets, 50);
    assert_eq!(devices.stats(DeviceId(2)), None);
    drop(ios);
    drop(devices);
}

pub fn null() {
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Null]).unwrap();
    let mut burst = Burst::new();
    ios[0].rx(DeviceId(0), &mut burst);
    assert!(burst.is_empty(), "null made frames up");
    send(&mut ios[0], 0, &vec![frame(1, 60); 320]);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    assert_eq!(devices.stats(DeviceId(0)).unwrap().tx_packets, 320);

    burst.push(packet(&mut ios[0], &frame(1, 60)));
    ios[0].tx(DeviceId(7), &mut burst);
    assert_eq!(burst.len(), 1, "a device that does not exist took a frame");
}

pub fn discarded() {
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Null]).unwrap();
    for keep in [0, 1, 20, 32, 40] {
        let mut burst = Burst::new();
        (0..32).for_each(|n| burst.push(packet(&mut ios[0], &frame(n, 60))));
        ios[0].discard(&mut burst, keep);
        let left = keep.min(32);
        assert_eq!(devices.mbufs().0, MBUFS - left as u32, "of 32 {keep} are kept");
        let kept: Vec<_> = burst.iter().map(|packet| packet.bytes().to_vec()).collect();
        assert_eq!(kept, (0..left as u32).map(|n| frame(n, 60)).collect::<Vec<_>>());
        drop(burst);
        assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    }
}

pub fn pcap() {
    let input = std::env::temp_dir().join(format!("sluice-{}.pcap", std::process::id()));
    let output = input.with_extension("pcap.out");
    let frames: Vec<_> = (0..40).map(|n| frame(n, 60 + n as usize)).collect();
    std::fs::write(&input, capture(&frames)).unwrap();

    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Pcap(input.clone())]).unwrap();
    assert_eq!(receive(&mut ios[0], 0, 40), frames);
    send(&mut ios[0], 0, &frames);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    drop((devices, ios));

    assert_eq!(read_capture(&std::fs::read(&output).unwrap()), frames);
    std::fs::remove_file(input).unwrap();
    std::fs::remove_file(output).unwrap();
}

pub fn too_long() {
    let input = std::env::temp_dir().join(format!("sluice-long-{}.pcap", std::process::id()));
    let output = input.with_extension("pcap.out");
    let frames = [frame(1, 60), frame(2, 5000), frame(3, 60)];
    std::fs::write(&input, capture(&frames)).unwrap();

    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Pcap(input.clone())]).unwrap();
    assert_eq!(receive(&mut ios[0], 0, 2), [frame(1, 60), frame(3, 60)]);
    assert_eq!(devices.stats(DeviceId(0)).unwrap().rx_too_long, 1);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    std::fs::remove_file(input).unwrap();
    std::fs::remove_file(output).unwrap();
}

/// A capture file. Source: draft-ietf-opsawg-pcap, section 4: magic, version 2.4, snap length, Ethernet.
pub fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(word.to_ne_bytes());
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [0, 0, len, len] {
            file.extend(u32::to_ne_bytes(word));
        }
        file.extend(frame);
    }
    file
}

pub fn read_capture(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while let Some((header, body)) = rest.split_at_checked(16) {
        let len = u32::from_ne_bytes(header[8..12].try_into().unwrap()) as usize;
        frames.push(body[..len].to_vec());
        rest = &body[len..];
    }
    frames
}

pub fn bounds() {
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Null]).unwrap();
    let mut packet = ios[0].alloc().unwrap();
    assert_eq!((packet.bytes().len(), packet.device()), (0, DeviceId(u16::MAX)));

    assert!(!packet.shrink_front(1));
    assert!(packet.set_len(2048), "a buffer has room for 2048 bytes");
    assert!(!packet.set_len(2049));
    packet.bytes_mut().fill(0xaa);
    assert!(packet.grow_front(128), "a buffer has 128 bytes of headroom");
    assert!(!packet.grow_front(1));
    assert!(!packet.grow_front(usize::MAX));
    assert_eq!(packet.bytes().len(), 2176);
    assert!(packet.bytes()[128..].iter().all(|b| *b == 0xaa));
    assert!(packet.shrink_front(2170));
    assert_eq!(packet.bytes(), [0xaa; 6]);
    assert!(!packet.shrink_front(7) && !packet.set_len(usize::MAX) && !packet.set_len(1 << 16));
    assert!(packet.set_len(0));
    drop(packet);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
}

pub fn exhausted() {
    let eal = eal(1);
    let specs: [DeviceSpec; 1] = [spec(Device::Null, 1500)];
    let (devices, mut ios) = lb_dpdk::open(&eal, &specs, 1024).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| ios[0].alloc()).collect();
    assert_eq!((taken.len(), devices.mbufs()), (1024, (0, 1024)));
    taken.truncate(1000);
    assert_eq!(devices.mbufs(), (24, 1024));
    assert!(ios[0].alloc().is_some());
}

pub fn outlives() {
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Null]).unwrap();
    let bytes = frame(7, 100);
    let packet = packet(&mut ios[0], &bytes);
    drop((devices, ios, eal));
    assert_eq!(packet.bytes(), bytes);
}

pub fn memif() {
    let socket = std::env::temp_dir().join(format!("sluice-memif-{}.sock", std::process::id()));
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::Memif(socket.clone())]).unwrap();
    assert!(socket.exists(), "no socket for the other side");
    assert!(!devices.link_up(DeviceId(0)), "the link is up without another side");
    let mut burst = Burst::new();
    ios[0].rx(DeviceId(0), &mut burst);
    assert!(burst.is_empty());
    drop((devices, ios));
    assert!(!socket.exists(), "the socket stayed");
}

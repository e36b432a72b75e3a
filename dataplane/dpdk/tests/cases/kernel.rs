//! Drivers on interfaces of the kernel, in a network namespace of the case's own. Both ends of a veth pair are
//! devices of one director, so that what one sends the other must receive.

use std::process::{Command, Stdio};

use lb_config::Device;
use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo};
use lb_dpdk::{Mbuf, WorkerIo};

use crate::support::{MBUFS, eal, frame, ip, open, own_network, receive, run, send, spec, veth, wait_for};

fn af_packet_device(name: &str) -> Device {
    Device::AfPacket(name.to_owned())
}

fn frames(range: std::ops::Range<u32>, len: usize) -> Vec<Vec<u8>> {
    range.map(|n| frame(n, len)).collect()
}

pub fn af_packet() {
    own_network();
    veth(1500);
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[af_packet_device("va"), af_packet_device("vb")]).unwrap();
    let mac = ip("-br link show va");
    let wanted = devices.infos()[0].mac.map(|b| format!("{b:02x}")).join(":");
    assert!(mac.contains(&wanted), "{wanted} is not in {mac}");
    assert!(devices.link_up(DeviceId(0)));

    for (from, to) in [(0, 1), (1, 0)] {
        for len in [60, 1000, 1514] {
            let sent = frames(0..500, len);
            send(&mut ios[0], from, &sent);
            assert_eq!(receive(&mut ios[0], to, 500), sent);
        }
    }
    let stats = devices.stats(DeviceId(1)).unwrap();
    assert_eq!((stats.tx_packets, stats.tx_errors, stats.rx_too_long), (1500, 0, 0));
    assert!(stats.rx_packets >= 1500);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
}

pub fn jumbo() {
    own_network();
    veth(9000);
    let eal = eal(1);
    let specs = [spec(af_packet_device("va"), 9000), spec(af_packet_device("vb"), 9000)];
    let (_devices, mut ios) = lb_dpdk::open(&eal, &specs, 4096).unwrap();
    let sent = frames(0..100, 9014);
    send(&mut ios[0], 0, &sent);
    assert_eq!(receive(&mut ios[0], 1, 100), sent);
}

pub fn vlan() {
    keeps_tags(af_packet_device("vb"));
}

pub fn vlan_af_xdp() {
    keeps_tags(Device::AfXdp("vb".into()));
}

fn keeps_tags(receiver: Device) {
    own_network();
    veth(1500);
    let eal = eal(1);
    let (_devices, mut ios) = open(&eal, &[af_packet_device("va"), receiver]).unwrap();
    // Priority 5, VLAN 100. For AF_PACKET the kernel takes the tag out; the driver or we put it back.
    let tagged = |n| {
        let mut bytes = frame(n, 1514);
        bytes.splice(12..12, [0x81, 0x00, 0xa0, 0x64]);
        bytes
    };
    let sent: Vec<_> = (0..50).map(tagged).collect();
    send(&mut ios[0], 0, &sent);
    assert_eq!(receive(&mut ios[0], 1, 50), sent);
}

pub fn backlog() {
    own_network();
    veth(1500);
    let eal = eal(1);
    let (_devices, mut ios) = open(&eal, &[af_packet_device("va"), af_packet_device("vb")]).unwrap();
    waits(&mut ios[0], 700, 600..=800);
}

pub fn backlog_jumbo() {
    own_network();
    veth(9000);
    let eal = eal(1);
    let specs = [spec(af_packet_device("va"), 9000), spec(af_packet_device("vb"), 9000)];
    let (_devices, mut ios) = lb_dpdk::open(&eal, &specs, 4096).unwrap();
    // a ring of 408 slots counts as one of 2048
    waits(&mut ios[0], 200, 896..=1152);
}

pub fn backlog_af_xdp() {
    own_network();
    veth(1500);
    let eal = eal(1);
    let (_devices, mut ios) = open(&eal, &[af_packet_device("va"), Device::AfXdp("vb".into())]).unwrap();
    waits(&mut ios[0], 700, 700..=700);
}

/// Sends so many frames to device 1; then as many wait there, a round of the ring later too, and none once they are
/// received.
fn waits(io: &mut WorkerIo, count: u32, told: std::ops::RangeInclusive<usize>) {
    for _ in 0..4 {
        assert_eq!(io.backlog(DeviceId(1)), 0);
        let sent = frames(0..count, 60);
        send(io, 0, &sent);
        wait_for("the frames to arrive", || told.contains(&io.backlog(DeviceId(1))));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(told.contains(&io.backlog(DeviceId(1))), "{}", io.backlog(DeviceId(1)));
        assert_eq!(receive(io, 1, count as usize), sent);
    }
    assert_eq!(io.backlog(DeviceId(0)), 0);
}

pub fn two_workers() {
    own_network();
    veth(1500);
    let eal = eal(2);
    let (_devices, mut ios) = open(&eal, &[af_packet_device("va"), af_packet_device("vb")]).unwrap();
    let sent = frames(0..64, 100);
    send(&mut ios[1], 0, &sent);
    // Worker 0 owns both devices' queues: it sends for worker 1 while it polls.
    poll(&mut ios[0], 0);
    assert_eq!(receive(&mut ios[0], 1, 64), sent);
}

fn poll(io: &mut WorkerIo, device: u16) {
    for _ in 0..3 {
        io.rx(DeviceId(device), &mut Burst::new());
    }
}

pub fn af_xdp() {
    own_network();
    veth(1500);
    let eal = eal(1);
    let (devices, mut ios) = open(&eal, &[Device::AfXdp("va".into()), af_packet_device("vb")]).unwrap();
    both_ways(&mut ios[0]);
    let stats = devices.stats(DeviceId(0)).unwrap();
    assert_eq!((stats.tx_packets, stats.tx_errors), (3000, 0));
    drop((devices, ios));
    assert!(!ip("link show va").contains("xdp"), "a program stayed on the interface");
}

pub fn af_xdp_largest() {
    // Source: the message that refuses more, see `errors::devices`.
    const MTU: u16 = 3430;

    own_network();
    veth(MTU);
    let eal = eal(1);
    let specs = [spec(Device::AfXdp("va".into()), MTU), spec(Device::AfXdp("vb".into()), MTU)];
    let (_devices, mut ios) = lb_dpdk::open(&eal, &specs, MBUFS).unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        let sent = frames(0..100, usize::from(MTU) + 14);
        send(&mut ios[0], from, &sent);
        assert_eq!(receive(&mut ios[0], to, 100), sent);
    }
}

/// More frames than any queue holds, so that every slot is used again.
fn both_ways(io: &mut WorkerIo) {
    for (from, to) in [(0, 1), (1, 0)] {
        for len in [60, 1000, 1514] {
            for burst in 0..10 {
                let sent = frames(burst * 100..(burst + 1) * 100, len);
                send(io, from, &sent);
                assert_eq!(receive(io, to, 100), sent);
            }
        }
    }
}

/// Tells the process that is killed from the one that kills it.
const VICTIM: &str = "SLUICE_DPDK_VICTIM";

pub fn af_xdp_after_kill() {
    if std::env::var_os(VICTIM).is_some() {
        let eal = eal(1);
        let _open = open(&eal, &[Device::AfXdp("va".into())]).unwrap();
        println!("open");
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }
    own_network();
    veth(1500);
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(victim.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "open\n");
    victim.kill().unwrap();
    victim.wait().unwrap();

    let eal = eal(1);
    let (_devices, mut ios) = open(&eal, &[Device::AfXdp("va".into()), af_packet_device("vb")]).unwrap();
    both_ways(&mut ios[0]);
}

pub fn tap() {
    own_network();
    let eal = eal(1);
    let (tap, tap_ios) = open(&eal, &[Device::Tap("lb0".into())]).unwrap();
    let mac = tap.infos()[0].mac.map(|b| format!("{b:02x}")).join(":");
    let link = ip("link show lb0");
    assert!(link.contains("mtu 1500"), "{link}");
    assert!(!link.contains(&mac), "both ends have one address: {link}");
    drop((tap, tap_ios));
    assert!(!ip("link show").contains("lb0"), "the interface stayed");

    // Again, and watched from the kernel's side.
    let mtu = [spec(Device::Tap("lb0".into()), 1400)];
    let (tap, mut tap_ios) = lb_dpdk::open(&eal, &mtu, MBUFS).unwrap();
    assert!(ip("link show lb0").contains("mtu 1400"));
    ip("link set lb0 up");
    ip("address add 192.0.2.1/24 dev lb0");
    let before = received("lb0");
    send(&mut tap_ios[0], 0, &frames(0..10, 60));
    wait_for("the kernel to count the frames", || received("lb0") >= before + 10);

    // What the kernel sends arrives: it asks for an address that nobody has.
    let mut ping =
        Command::new("ping").args(["-c1", "-W1", "192.0.2.2"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("an ARP request", || {
        let mut burst = Burst::<Mbuf>::new();
        tap_ios[0].rx(DeviceId(0), &mut burst);
        burst.iter().any(|packet| packet.bytes().get(12..14) == Some(&[0x08, 0x06]))
    });
    ping.wait().unwrap();
    drop((tap, tap_ios));
}

/// Frames that the kernel has received on an interface.
fn received(interface: &str) -> u64 {
    let text = ip(&format!("-s -o link show {interface}"));
    let counters = text.split("RX:").nth(1).unwrap().split('\\').nth(1).unwrap();
    counters.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub fn multicast() {
    own_network();
    veth(1500);
    run("ethtool", "-K va gro on");
    let eal = eal(1);
    let (devices, ios) = open(&eal, &[af_packet_device("va")]).unwrap();
    assert!(ip("-d link show va").contains("allmulti 1"), "{}", ip("-d link show va"));
    assert!(run("ethtool", "-k va").contains("generic-receive-offload: off"));
    assert!(ip("link show va").contains(",UP"), "the interface was not set up");
    drop((devices, ios));
    assert!(ip("-d link show va").contains("allmulti 0"));
    assert!(run("ethtool", "-k va").contains("generic-receive-offload: on"));
}

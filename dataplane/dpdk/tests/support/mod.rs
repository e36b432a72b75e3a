//! What the cases share: a small director's EAL, frames, interfaces, waiting.

pub mod huge_pages;

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use lb_config::{Device, HugePages};
use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo};
use lb_dpdk::{DeviceSpec, Devices, Eal, EalConfig, Mbuf, OpenError, WorkerIo};

/// Buffers of a pool in these cases: enough for two AF_XDP queues.
pub const MBUFS: u32 = 16384;

/// Longest wait for a frame.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn read_all(from: &mut Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a director with one or two workers starts with.
pub fn config(workers: usize) -> EalConfig {
    EalConfig {
        // The same for all: directors of one name must get on with each other.
        instance: "lb-dpdk-test".to_owned(),
        huge_pages: HugePages::None,
        memory_mib: 256,
        main_cpu: None,
        worker_cpus: vec![0, 1][..workers].to_vec(),
        pci: Vec::new(),
    }
}

pub fn eal(workers: usize) -> Eal {
    Eal::init(&config(workers)).unwrap()
}

pub fn spec(device: Device, mtu: u16) -> DeviceSpec {
    DeviceSpec { device, mtu }
}

/// Opens devices at MTU 1500.
pub fn open(eal: &Eal, devices: &[Device]) -> Result<(Devices, Vec<WorkerIo>), OpenError> {
    let specs: Vec<_> = devices.iter().map(|device| spec(device.clone(), 1500)).collect();
    lb_dpdk::open(eal, &specs, MBUFS)
}

/// A frame to everyone, with an experimental EtherType (IEEE 802), `len` bytes, told apart by `number`.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([0x02, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    bytes.extend(number.to_be_bytes());
    bytes.extend((bytes.len()..len).map(|i| i as u8));
    bytes
}

/// Puts `bytes` in a fresh buffer.
pub fn packet(io: &mut WorkerIo, bytes: &[u8]) -> Mbuf {
    let mut packet = io.alloc().unwrap();
    assert!(packet.set_len(bytes.len()));
    packet.bytes_mut().copy_from_slice(bytes);
    packet
}

/// Sends frames, in bursts, again until the device took them all.
pub fn send(io: &mut WorkerIo, device: u16, frames: &[Vec<u8>]) {
    for chunk in frames.chunks(32) {
        let mut burst: Burst<Mbuf> = chunk.iter().map(|bytes| packet(io, bytes)).collect();
        wait_for("the device to take the frames", || {
            io.tx(DeviceId(device), &mut burst);
            burst.is_empty()
        });
    }
}

/// Receives until `count` frames with the EtherType of [`frame`], tagged or not, have come.
pub fn receive(io: &mut WorkerIo, device: u16, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    wait_for("frames", || {
        let mut burst = Burst::new();
        io.rx(DeviceId(device), &mut burst);
        for packet in burst {
            assert_eq!(packet.device(), DeviceId(device));
            let bytes = packet.bytes();
            let ours = [12, 16].iter().any(|&at| bytes.get(at..at + 2) == Some(&[0x88, 0xb5]));
            if ours {
                frames.push(bytes.to_vec());
            }
        }
        frames.len() >= count
    });
    frames
}

/// Polls `done` until it is.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Moves this process, which must have one thread yet, to a network namespace of its own.
pub fn own_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
}

/// A pair of connected interfaces, `va` and `vb`, without addresses.
pub fn veth(mtu: u16) {
    ip(&format!("link add va mtu {mtu} type veth peer name vb mtu {mtu}"));
    for name in ["va", "vb"] {
        let key = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        // Without addresses of its own the kernel sends nothing. Where IPv6 is not built in, it does not anyhow.
        let _ = std::fs::write(key, "1");
    }
}

/// Runs `ip` in this network namespace.
pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments}: {text}");
    text
}

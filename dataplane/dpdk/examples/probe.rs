//! Opens devices, says what they are, and for some seconds counts what they receive and send.
//!
//! `probe SECONDS none|2M|1G DEVICE...`, such as `probe 5 none af_packet:eth0 af_xdp:eth1`. Each device sends one
//! broadcast frame of an experimental EtherType (88b5) per second. Shows whether a machine, a container's
//! capabilities or a driver are as they should be, without a director.

use std::error::Error;
use std::time::{Duration, Instant};

use lb_config::HugePages;
use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};
use lb_dpdk::{DeviceInfo, DeviceSpec, Eal, EalConfig, Mbuf, WorkerIo, idle_sleep};

const USAGE: &str = "usage: probe SECONDS none|2M|1G DEVICE...";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().ok_or(USAGE)?.parse()?;
    let huge_pages = match arguments.next().as_deref() {
        Some("none") => HugePages::None,
        Some("2M") => HugePages::Size2M,
        Some("1G") => HugePages::Size1G,
        _ => return Err(USAGE.into()),
    };
    let specs = arguments
        .map(|text| Ok(DeviceSpec { device: text.parse()?, mtu: 1500 }))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let pci = specs.iter().filter_map(|spec| match &spec.device {
        lb_config::Device::Pci(address) => Some(address.clone()),
        _ => None,
    });
    let eal = Eal::init(&EalConfig {
        instance: "probe".to_owned(),
        huge_pages,
        memory_mib: 256,
        main_cpu: None,
        worker_cpus: vec![0],
        pci: pci.collect(),
    })?;
    let (devices, ios) = lb_dpdk::open(&eal, &specs, 32768)?;
    devices.infos().iter().for_each(|info| println!("{info:?} link_up={}", devices.link_up(info.id)));
    let infos = devices.infos().to_vec();
    for io in ios {
        let infos = infos.clone();
        eal.launch(WorkerId(0), move || work(io, &infos, Duration::from_secs(seconds)))?.join();
    }
    for info in devices.infos() {
        println!("{}: {:?}", info.name, devices.stats(info.id));
    }
    println!("buffers (free, all): {:?}", devices.mbufs());
    Ok(())
}

fn work(mut io: WorkerIo, infos: &[DeviceInfo], time: Duration) {
    let start = Instant::now();
    let mut next = start;
    let mut burst = Burst::<Mbuf>::new();
    while start.elapsed() < time {
        let mut idle = true;
        for info in infos {
            io.rx(info.id, &mut burst);
            idle &= burst.is_empty();
            burst.clear();
        }
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            infos.iter().for_each(|info| hello(&mut io, info.id, info.mac));
        }
        if idle {
            idle_sleep(Duration::from_micros(50));
        }
    }
}

fn hello(io: &mut WorkerIo, device: DeviceId, mac: [u8; 6]) {
    let Some(mut packet) = io.alloc() else { return };
    if packet.set_len(60) {
        let bytes = packet.bytes_mut();
        bytes.fill(0);
        bytes[..6].fill(0xff);
        bytes[6..12].copy_from_slice(&mac);
        bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
        io.tx(device, &mut Burst::from_iter([packet]));
    }
}

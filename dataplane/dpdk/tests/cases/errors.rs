//! What is refused, and that the message names it.

use lb_config::{Device, HugePages};
use lb_dpdk::{Eal, EalConfig, EalError};

use crate::support::{MBUFS, config, eal, open, own_network, spec, veth};

pub fn twice() {
    let first = eal(1);
    assert!(matches!(Eal::init(&config(1)), Err(EalError::Twice)));
    drop(first);
    assert!(matches!(Eal::init(&config(1)), Err(EalError::Twice)), "DPDK cannot start again");
}

pub fn start() {
    let refused = |config: EalConfig| Eal::init(&config).unwrap_err().to_string();

    let error = refused(EalConfig { worker_cpus: vec![0, 777], ..config(1) });
    assert!(error.starts_with("CPU 777 is not open to this process (open: 0,1"), "{error}");
    // More than any machine has: whichever of the two causes it is here, the message names the key.
    let huge = EalConfig { huge_pages: HugePages::Size1G, memory_mib: u32::MAX, ..config(1) };
    let error = refused(huge);
    assert!(error.starts_with("appliance.huge_pages = \"1G\": "), "{error}");
    // None of these has kept DPDK from starting, and none has left anything to start with.
    let eal = eal_with_little_memory();
    let error = lb_dpdk::open(&eal, &[spec(Device::Null, 1500)], 65536).unwrap_err().to_string();
    let wanted = "limits.mbufs = 65536 buffers of 2368 bytes need 148 MiB of appliance.memory_mib = 64";
    assert!(error.starts_with(wanted), "{error}");
}

fn eal_with_little_memory() -> Eal {
    Eal::init(&EalConfig { memory_mib: 64, ..config(1) }).unwrap()
}

pub fn devices() {
    let eal = eal(1);
    let refused = |device: Device, mtu, mbufs| {
        lb_dpdk::open(&eal, &[spec(device, mtu)], mbufs).map(|_| ()).unwrap_err().to_string()
    };
    let error = refused(Device::AfPacket("a,b=c".into()), 1500, MBUFS);
    assert!(error.starts_with("device af_packet:a,b=c: \"a,b=c\" may not stand in"), "{error}");
    let error = refused(Device::AfXdp("eth0".into()), 9000, MBUFS);
    assert!(error.starts_with("device af_xdp:eth0: the MTU of 9000 bytes exceeds 3430"), "{error}");
    let error = refused(Device::Pci("0000:ff:1f.7".into()), 1500, MBUFS);
    assert!(error.starts_with("device pci:0000:ff:1f.7: no DPDK driver has it"), "{error}");
    let error = refused(Device::Pcap("/nonexistent/a.pcap".into()), 1500, MBUFS);
    assert!(error.contains("/nonexistent/a.pcap") && error.contains("DPDK said: "), "{error}");
    let error = refused(Device::Ring("a".into()), 1500, 512);
    assert!(
        error.starts_with("limits.mbufs = 512 is too small: 1 devices and 1 workers may hold 1"),
        "{error}"
    );

    // What failed has left nothing behind that would keep the same device from opening.
    let (devices, ios) = open(&eal, &[Device::Ring("a".into())]).unwrap();
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    drop((devices, ios));
    open(&eal, &[Device::Null, Device::Ring("a".into())]).unwrap();
}

pub fn interface() {
    own_network();
    veth(1400);
    let eal = eal(1);
    let error = open(&eal, &[Device::AfPacket("eth9".into())]).map(|_| ()).unwrap_err().to_string();
    let wanted = "device af_packet:eth9: interface eth9 of this network namespace: No such device";
    assert!(error.starts_with(wanted), "{error}");
    let error = open(&eal, &[Device::AfXdp("va".into())]).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "device af_xdp:va: an MTU of 1500 is configured, the interface's is 1400");
}

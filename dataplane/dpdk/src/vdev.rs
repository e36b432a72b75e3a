//! From a configured device to a driver of DPDK: its name, its arguments, its needs.
//!
//! The arguments are made here; of the user's text only names and paths go in, checked for what DPDK's parser of
//! arguments would read as more than a name.

use lb_config::Device;

use crate::mempool::{MAX_ROOM, OVERHEAD};

/// Ethernet header, two 802.1Q tags and FCS: what a frame has beside its IP packet, bytes.
pub(crate) const FRAME_OVERHEAD: usize = 14 + 2 * 4 + FCS;

/// Frame check sequence, which no driver hands on, bytes. Source: IEEE 802.3 section 3.2.9.
pub(crate) const FCS: usize = 4;

/// Smallest room for a frame in a buffer, bytes: what every driver and an untagged 1500-byte MTU are happy with.
const MIN_ROOM: usize = 2048;

/// Bytes of a slot of AF_PACKET's ring in front of the frame. Source: Linux, `tpacket_rcv`: the header and address
/// (52 bytes, `TPACKET2_HDRLEN`) and 16 more, aligned to 16.
const AF_PACKET_SLOT_HEADER: usize = 80;

/// Slots are multiples of this, so that two of them fill whole pages, bytes.
const AF_PACKET_SLOT_STEP: usize = 2048;

/// Size of AF_PACKET's ring in one direction, bytes: 2048 slots at MTU 1500, 2 ms of 1 M packets/s.
const AF_PACKET_RING: usize = 4 << 20;

/// Size of a page, bytes. AF_XDP's frames may not be larger; AF_PACKET's blocks are multiples of it.
const PAGE: usize = 4096;

/// Bytes that the kernel keeps free in front of a frame. Source: linux/bpf.h, `XDP_PACKET_HEADROOM`.
const XDP_HEADROOM: usize = 256;

/// Largest room of a buffer that AF_XDP can use, bytes. A buffer may not exceed a page, and DPDK makes its size an odd
/// number of cache lines to spread buffers over memory channels. Source: DPDK, `arch_mem_object_align`.
pub(crate) const AF_XDP_MAX_ROOM: usize = PAGE - 64 - OVERHEAD;

/// How many queues a driver is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    /// One pair. What a kernel interface without RSS is worth; software steering does the rest.
    One,
    /// As many as workers, if the driver has them.
    PerWorker,
    /// This many, so that no queue of the interface is left to the kernel.
    Exactly(u16),
}

/// How a device is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Name and arguments of the virtual device to create; `None` for PCI devices, which are there.
    pub(crate) create: Option<(String, String)>,
    /// Queue pairs.
    pub(crate) queues: Queues,
    /// Slots of a receive and of a transmit queue.
    pub(crate) slots: u16,
    /// Buffers that one queue pair may hold.
    pub(crate) held: u32,
}

/// Why a device cannot be asked of DPDK.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(
        "{0:?} may not stand in a DPDK argument: one of , = [ ] ( ) \" ' \\, white space or a control character"
    )]
    Argument(String),
    #[error("the MTU of {mtu} bytes exceeds {limit}, the most that this kind of device carries")]
    Mtu { mtu: usize, limit: usize },
}

/// Room for a whole frame, bytes behind the headroom, at this `mtu` (bytes).
pub(crate) fn whole(mtu: u16) -> usize {
    (usize::from(mtu) + FRAME_OVERHEAD).max(MIN_ROOM)
}

/// Whether the driver puts a frame longer than a buffer in several, and sends such. Of a PCI device its driver says so
/// (`nic_scatters`). Source: DPDK, `eth_pcap_rx_jumbo`, `eth_memif_rx`, `pmd_rx_burst` of tap; a ring passes what it is
/// given.
pub(crate) fn scatters(device: &Device, nic_scatters: bool) -> bool {
    match device {
        Device::Pci(_) => nic_scatters,
        Device::Tap(_) | Device::Memif(_) | Device::Ring(_) | Device::Pcap(_) | Device::Null => true,
        Device::AfPacket(_) | Device::AfXdp(_) => false,
    }
}

/// Whether the driver sends packets of several segments without saying that it does. Source: DPDK,
/// `eth_pcap_tx_dumper`, `eth_null_tx`, `eth_ring_tx`, `eth_memif_tx`.
pub(crate) fn sends_chains(device: &Device) -> bool {
    matches!(device, Device::Pcap(_) | Device::Null | Device::Ring(_) | Device::Memif(_))
}

/// Room for a frame, bytes behind the headroom, that `device` needs in every buffer at this `mtu` (bytes).
pub(crate) fn room(device: &Device, mtu: u16, nic_scatters: bool) -> usize {
    let frame = usize::from(mtu) + FRAME_OVERHEAD;
    let room = match device {
        device if scatters(device, nic_scatters) => MIN_ROOM,
        // The driver wants a buffer as large as the slot, whatever the frame.
        Device::AfPacket(_) => af_packet_slot(mtu),
        Device::AfXdp(_) => frame + XDP_HEADROOM,
        _ => frame,
    };
    room.max(MIN_ROOM)
}

/// Bytes of one slot of AF_PACKET's ring.
fn af_packet_slot(mtu: u16) -> usize {
    (usize::from(mtu) + FRAME_OVERHEAD + AF_PACKET_SLOT_HEADER).next_multiple_of(AF_PACKET_SLOT_STEP)
}

/// Plans `device`, the `index`th, at `mtu` bytes; `interface_queues` are those of the kernel interface under AF_XDP.
///
/// Errors: see [`PlanError`].
pub(crate) fn plan(
    device: &Device,
    index: usize,
    mtu: u16,
    interface_queues: u16,
) -> Result<Plan, PlanError> {
    let simple = |driver: &str, args: String, queues| Plan {
        create: Some((format!("net_{driver}{index}"), args)),
        queues,
        slots: 256,
        held: 0,
    };
    let limit = match device {
        Device::AfXdp(_) => AF_XDP_MAX_ROOM - XDP_HEADROOM - FRAME_OVERHEAD,
        // Source: DPDK, `tap_dev_info`: max_rx_pktlen is RTE_ETHER_MAX_VLAN_FRAME_LEN.
        Device::Tap(_) => 1500,
        _ => MAX_ROOM - AF_PACKET_SLOT_HEADER - AF_PACKET_SLOT_STEP - FRAME_OVERHEAD,
    };
    if usize::from(mtu) > limit {
        return Err(PlanError::Mtu { mtu: mtu.into(), limit });
    }
    Ok(match device {
        Device::Pci(_) => Plan { create: None, queues: Queues::PerWorker, slots: 1024, held: 2048 },
        Device::AfPacket(interface) => {
            let args = format!("iface={},qpairs=1,{}", checked(interface)?, af_packet_ring(mtu));
            simple("af_packet", args, Queues::One)
        }
        Device::AfXdp(interface) => {
            let queues = interface_queues.max(1);
            // Without busy_budget=0 every poll of an empty queue is a system call.
            let args =
                format!("iface={},start_queue=0,queue_count={queues},busy_budget=0", checked(interface)?);
            // The driver fills 2048 slots for the kernel, may have 2048 received and leaves half of 2048 sent
            // ones before it takes them back.
            let plan = simple("af_xdp", args, Queues::Exactly(queues));
            Plan { slots: 2048, held: 6144, ..plan }
        }
        Device::Tap(name) => {
            Plan { held: 256, ..simple("tap", format!("iface={}", checked(name)?), Queues::One) }
        }
        Device::Memif(path) => {
            let path = path.to_string_lossy();
            let args = format!("role=server,id=0,socket={},socket-abstract=no", checked(&path)?);
            simple("memif", args, Queues::One)
        }
        // The name tells rings apart in the configuration; DPDK's name of the device does it here.
        Device::Ring(_) => Plan { held: 1024, ..simple("ring", String::new(), Queues::PerWorker) },
        Device::Pcap(path) => {
            let path = path.to_string_lossy();
            let path = checked(&path)?;
            simple("pcap", format!("rx_pcap={path},tx_pcap={path}.out"), Queues::One)
        }
        Device::Null => simple("null", "no-rx=1".to_owned(), Queues::PerWorker),
    })
}

/// Has a planned device receive without end; see [`crate::Options`].
pub(crate) fn make_endless(plan: &mut Plan, device: &Device) {
    let Some((_, args)) = &mut plan.create else { return };
    match device {
        // without a file to write to the driver drops what is sent
        Device::Pcap(_) => {
            args.truncate(args.find(",tx_pcap=").unwrap_or(args.len()));
            args.push_str(",infinite_rx=1");
        }
        Device::Null => args.clear(),
        _ => {}
    }
}

/// Bytes of a block of AF_PACKET's ring: one or two slots, whole pages, so that slots follow each other without gaps,
/// which the driver relies on.
fn af_packet_block(mtu: u16) -> usize {
    let slot = af_packet_slot(mtu);
    if slot.is_multiple_of(PAGE) { slot } else { 2 * slot }
}

/// Bytes of a slot of AF_PACKET's ring, and how many slots it has: about [`AF_PACKET_RING`] bytes of them.
pub(crate) fn af_packet_slots(mtu: u16) -> (usize, usize) {
    let (slot, block) = (af_packet_slot(mtu), af_packet_block(mtu));
    (slot, AF_PACKET_RING / block * (block / slot))
}

/// Arguments for AF_PACKET's ring.
fn af_packet_ring(mtu: u16) -> String {
    let (slot, slots) = af_packet_slots(mtu);
    format!("blocksz={},framesz={slot},framecnt={slots}", af_packet_block(mtu))
}

/// `text`, if DPDK's parser takes all of it for one value. Source: DPDK, `rte_kvargs.c` and the parsers behind it.
fn checked(text: &str) -> Result<&str, PlanError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || ",=[]()\"'\\".contains(c);
    if text.is_empty() || text.contains(bad) { Err(PlanError::Argument(text.to_owned())) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(device: Device, mtu: u16) -> String {
        plan(&device, 3, mtu, 2).unwrap().create.unwrap().1
    }

    #[test]
    fn af_packet_slots_hold_the_frame_and_fill_pages() {
        assert_eq!(
            args(Device::AfPacket("eth0".into()), 1500),
            "iface=eth0,qpairs=1,blocksz=4096,framesz=2048,framecnt=2048"
        );
        assert_eq!(
            args(Device::AfPacket("eth0".into()), 9000),
            "iface=eth0,qpairs=1,blocksz=20480,framesz=10240,framecnt=408"
        );
        for mtu in 576..=9000 {
            let slot = af_packet_slot(mtu);
            assert!(slot >= usize::from(mtu) + FRAME_OVERHEAD + AF_PACKET_SLOT_HEADER);
            assert!((2 * slot).is_multiple_of(PAGE));
            assert!(room(&Device::AfPacket("eth0".into()), mtu, false) >= slot);
        }
    }

    #[test]
    fn af_xdp_takes_every_queue_and_refuses_jumbo_frames() {
        let device = Device::AfXdp("eth0".into());
        assert_eq!(args(device.clone(), 1500), "iface=eth0,start_queue=0,queue_count=2,busy_budget=0");
        assert!(matches!(plan(&device, 0, 9000, 1), Err(PlanError::Mtu { mtu: 9000, .. })));
        assert!(room(&device, 1500, false) <= AF_XDP_MAX_ROOM);
    }

    #[test]
    fn what_is_endless_replays_and_writes_nothing() {
        let endless = |device: Device| {
            let mut plan = plan(&device, 3, 1500, 1).unwrap();
            make_endless(&mut plan, &device);
            plan.create.unwrap().1
        };
        assert_eq!(endless(Device::Pcap("/tmp/in.pcap".into())), "rx_pcap=/tmp/in.pcap,infinite_rx=1");
        assert_eq!(
            (endless(Device::Null), endless(Device::Ring("a".into()))),
            (String::new(), String::new())
        );
    }

    #[test]
    fn only_devices_that_scatter_have_buffers_below_their_mtu() {
        for (device, wanted) in [
            (Device::Ring("a".into()), MIN_ROOM),
            (Device::Pcap("/tmp/a".into()), MIN_ROOM),
            (Device::Memif("/tmp/a".into()), MIN_ROOM),
            (Device::AfPacket("eth0".into()), 10240),
            (Device::AfXdp("eth0".into()), 9026 + XDP_HEADROOM),
        ] {
            assert_eq!(room(&device, 9000, false), wanted, "{device}");
        }
        let nic = Device::Pci("0000:3b:00.0".into());
        assert_eq!((room(&nic, 9000, false), room(&nic, 9000, true)), (9026, MIN_ROOM));
        assert!(matches!(
            plan(&Device::Tap("lb0".into()), 0, 9000, 1),
            Err(PlanError::Mtu { limit: 1500, .. })
        ));
    }

    #[test]
    fn names_cannot_add_arguments() {
        for name in ["eth0,qpairs=9", "a b", "[x]", "", "a=b", "a\"b", "a\n"] {
            let error = plan(&Device::AfPacket(name.into()), 0, 1500, 1).unwrap_err();
            assert_eq!(error, PlanError::Argument(name.to_owned()));
            assert!(plan(&Device::Pcap(name.into()), 0, 1500, 1).is_err());
        }
        assert_eq!(
            args(Device::Pcap("/tmp/in.pcap".into()), 1500),
            "rx_pcap=/tmp/in.pcap,tx_pcap=/tmp/in.pcap.out"
        );
        assert_eq!(plan(&Device::Null, 3, 1500, 0).unwrap().create.unwrap().0, "net_null3");
    }
}

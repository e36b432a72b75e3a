//! Frames that are not as they should be: each is refused under its name, and the director goes on.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::frames::{self, ACK, ARP, IPV4, IPV6, Mac, SYN, VLAN, Wire};
use lb_tests::lab::{CLIENT, DIP, Lab, VIP, VIP6};
use lb_tests::wait::wait_until;

/// Time in which one frame is counted.
const QUICK: Duration = Duration::from_secs(2);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("frames_cut_at_every_byte_are_refused", truncated),
        Case::new("each_malformed_frame_counts_under_its_reason", |lab| reasons(lab, "af_packet")),
        Case::new("each_malformed_frame_counts_under_its_reason_over_af_xdp", |lab| reasons(lab, "af_xdp")),
    ]
}

/// Ends of the injected frames.
struct Ends {
    to: Mac,
    from: Mac,
    client: Ipv4Addr,
    vip: Ipv4Addr,
    client6: Ipv6Addr,
    vip6: Ipv6Addr,
}

impl Ends {
    fn of(lab: &Lab) -> Result<Self> {
        Ok(Self {
            to: frames::mac(&lab.node01.mac("eth0")?)?,
            from: frames::mac(&lab.client.mac("eth0")?)?,
            client: CLIENT.parse()?,
            vip: VIP.parse()?,
            client6: "fd00:150::1".parse()?,
            vip6: VIP6.parse()?,
        })
    }

    fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        frames::ethernet(self.to, self.from, ethertype, payload)
    }

    fn ip4(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        frames::ipv4(self.client, self.vip, protocol, payload)
    }

    fn ip6(&self, next_header: u8, payload: &[u8]) -> Vec<u8> {
        frames::ipv6(self.client6, self.vip6, next_header, 64, payload)
    }

    /// An IPv4/TCP packet after `change`, with a right header checksum.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = self.ip4(6, &frames::tcp(4000, 80, SYN));
        change(&mut packet);
        frames::set_ipv4_checksum(&mut packet);
        self.frame(IPV4, &packet)
    }
}

fn config() -> Config {
    let web = Service::tcp("web", 80, "rr", &["192.168.150.12", "192.168.150.13"]);
    let web6 = Service::tcp("web6", 80, "rr", &["fd00:150::12", "fd00:150::13"]).v6();
    Config::with(vec![web, web6])
}

fn truncated(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&config())?;
    let ends = Ends::of(lab)?;
    let tcp = frames::tcp(4000, 80, SYN);
    let arp = frames::arp_request(ends.from, ends.client, ends.vip);
    let tagged = [&[0, 0][..], &IPV4.to_be_bytes(), &ends.ip4(6, &tcp)].concat();
    let whole = [
        ends.frame(IPV4, &ends.ip4(6, &tcp)),
        ends.frame(IPV4, &ends.ip4(17, &frames::udp(4000, 53, b"data"))),
        ends.frame(IPV4, &ends.ip4(1, &frames::icmp_echo())),
        ends.frame(IPV6, &ends.ip6(6, &tcp)),
        ends.frame(ARP, &arp),
        ends.frame(VLAN, &tagged),
    ];
    let wire = Wire::open(&lab.client, "eth0")?;
    let before = lab.director()?.wait_conserved()?;
    let mut sent = 0;
    for frame in &whole {
        // From the Ethernet header on, the shortest that the kernel sends, to one byte less than the frame.
        for length in 14..frame.len() {
            wire.send(&frame[..length])?;
            sent += 1;
        }
    }
    // The kernel itself drops tagged frames whose tag is cut, before they are on the wire: 14 to 17 bytes.
    let arrived = || Ok(lab.director()?.stats()?.conservation.dropped >= before.dropped + sent - 4);
    let _ = wait_until("the frames are counted", PATIENCE, arrived);
    let after = lab.director()?.wait_conserved()?;
    let dropped = after.dropped - before.dropped;
    ensure!(dropped >= sent - 4, "{dropped} of {sent} cut frames were dropped");
    ensure!(lab.director()?.connections(&[])?.is_empty(), "a cut frame made a connection");
    for reason in
        ["ipv4_truncated", "ipv4_total_length", "ipv6_truncated", "ipv6_payload_length", "arp_truncated"]
    {
        ensure!(lab.director()?.dropped(reason)? > 0, "no drop counts as {reason}");
    }
    lab.curl(&format!("http://{VIP}/"))?;
    lab.curl(&format!("http://[{VIP6}]/"))?;
    Ok(())
}

fn reasons(lab: &mut Lab, device: &'static str) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config { device, ..config() })?;
    let ends = Ends::of(lab)?;
    let tcp = frames::tcp(4000, 80, SYN);
    let dip: Ipv4Addr = DIP.parse()?;
    let mut bad_checksum = ends.ip4(6, &tcp);
    bad_checksum[10] ^= 0xff;
    let mut bad_icmp = frames::icmp_echo();
    bad_icmp[2] ^= 0xff;
    let mut bad_arp = frames::arp_request(ends.from, ends.client, ends.vip);
    bad_arp[1] = 6;
    let mut bad_version6 = ends.ip6(6, &tcp);
    bad_version6[0] = 0x40;
    let mut short_udp = frames::udp(4000, 80, b"data");
    short_udp[5] = 7;
    let mut offset = tcp.clone();
    offset[12] = 0x40;
    let from_v4 = |source: [u8; 4]| frames::ipv4(source.into(), ends.vip, 6, &tcp);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("ethertype_unsupported", ends.frame(0x88b5, &[0; 46])),
        ("vlan_unknown", ends.frame(VLAN, &[&[0, 7][..], &IPV4.to_be_bytes(), &ends.ip4(6, &tcp)].concat())),
        ("arp_malformed", ends.frame(ARP, &bad_arp)),
        (
            "arp_not_for_us",
            ends.frame(ARP, &frames::arp_request(ends.from, ends.client, [192, 168, 150, 99].into())),
        ),
        ("ipv4_version", ends.changed(|packet| packet[0] = 0x65)),
        ("ipv4_header_length", ends.changed(|packet| packet[0] = 0x44)),
        ("ipv4_total_length", ends.changed(|packet| packet[3] = 0xff)),
        ("ipv4_checksum", ends.frame(IPV4, &bad_checksum)),
        ("ipv4_source", ends.frame(IPV4, &from_v4([127, 0, 0, 1]))),
        ("ipv4_source", ends.frame(IPV4, &from_v4([224, 0, 0, 1]))),
        ("ipv4_source", ends.frame(IPV4, &from_v4([0, 0, 0, 0]))),
        ("fragment_malformed", ends.changed(|packet| packet[6] = 0x20)),
        ("ipv6_version", ends.frame(IPV6, &bad_version6)),
        ("ipv6_source", ends.frame(IPV6, &frames::ipv6(Ipv6Addr::LOCALHOST, ends.vip6, 6, 64, &tcp))),
        (
            "fragment_malformed",
            ends.frame(IPV6, &ends.ip6(44, &[&[6, 0, 0, 1, 0, 0, 0, 1][..], &tcp].concat())),
        ),
        ("tcp_truncated", ends.frame(IPV4, &ends.ip4(6, &tcp[..12]))),
        ("tcp_data_offset", ends.frame(IPV4, &ends.ip4(6, &offset))),
        ("udp_truncated", ends.frame(IPV4, &ends.ip4(17, &short_udp[..6]))),
        ("udp_length", ends.frame(IPV4, &ends.ip4(17, &short_udp))),
        ("icmp_truncated", ends.frame(IPV4, &ends.ip4(1, &[8, 0, 0]))),
        ("icmp_checksum", ends.frame(IPV4, &ends.ip4(1, &bad_icmp))),
        ("nd_malformed", ends.frame(IPV6, &neighbor_solicitation(&ends))),
        ("protocol_unsupported", ends.frame(IPV4, &ends.ip4(47, &[0; 8]))),
        ("not_for_us", ends.frame(IPV4, &frames::ipv4(ends.client, [203, 0, 113, 1].into(), 6, &tcp))),
        ("no_service", ends.frame(IPV4, &ends.ip4(6, &frames::tcp(4000, 8080, SYN)))),
        ("no_service", ends.frame(IPV4, &frames::ipv4(ends.client, dip, 6, &tcp))),
        ("no_connection", ends.frame(IPV4, &ends.ip4(6, &frames::tcp(4001, 80, ACK)))),
        ("ttl_expired", ends.changed(|packet| packet[8] = 1)),
    ];
    let wire = Wire::open(&lab.client, "eth0")?;
    let mut faults = Vec::new();
    for (reason, frame) in cases {
        // DPDK opens its packet socket with PACKET_FANOUT_FLAG_DEFRAG: the kernel keeps IPv4 fragments until it has
        // put the packet together.
        if device == "af_packet"
            && frame.get(12..14) == Some(&IPV4.to_be_bytes())
            && reason == "fragment_malformed"
        {
            continue;
        }
        let before = lab.director()?.drops()?;
        // The kernels of the other nodes send multicast of their own (MLD, router solicitations) when they like.
        let noisy = reason == "not_for_us";
        let counted = |drops: &HashMap<String, u64>| {
            let (now, due) =
                (drops.get(reason).copied().unwrap_or(0), before.get(reason).map_or(1, |n| n + 1));
            now == due || noisy && now > due
        };
        wire.send(&frame)?;
        let waited = wait_until("", QUICK, || Ok(counted(&lab.director()?.drops()?)));
        if waited.is_err() {
            let now = lab.director()?.drops()?;
            let changed: Vec<_> = now.iter().filter(|(name, n)| before.get(*name) != Some(n)).collect();
            faults.push(format!("no drop as {reason} but {changed:?} after {frame:02x?}"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    lab.director()?.wait_conserved()?;
    lab.curl(&format!("http://{VIP}/"))?;
    Ok(())
}

/// A neighbour solicitation for the VIP that was forwarded by a router: its hop limit is not 255 (RFC 4861 7.1.1).
fn neighbor_solicitation(ends: &Ends) -> Vec<u8> {
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &ends.vip6.octets()].concat();
    let length = (message.len() as u32).to_be_bytes();
    let pseudo =
        [&ends.client6.octets()[..], &ends.vip6.octets(), &length, &[0, 0, 0, 58], &message].concat();
    message[2..4].copy_from_slice(&frames::checksum(&pseudo).to_be_bytes());
    frames::ipv6(ends.client6, ends.vip6, 58, 254, &message)
}

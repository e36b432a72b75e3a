//! What the director itself does on the wire: ARP, ping, neighbours, connections that never finish.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use lb_control::api;
use lb_tests::case::Case;
use lb_tests::config::{Config, Service};
use lb_tests::director::PATIENCE;
use lb_tests::frames::{self, ARP, IPV4, Mac, SYN, VLAN, Wire};
use lb_tests::lab::{DIP, Lab, VIP};
use lb_tests::netns::Netns;
use lb_tests::process::Process;
use lb_tests::wait::wait_until;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("only_the_director_answers_arp_for_vip_and_dip", arp),
        Case::new("vip_and_dip_answer_ping", ping),
        Case::new("vips_are_announced_by_gratuitous_arp_at_start", gratuitous),
        Case::new("tagged_frames_are_balanced_in_their_vlan", tagged),
        Case::new("a_server_with_a_new_mac_is_followed", new_mac),
        Case::new("an_unreachable_server_is_named_and_the_other_serves", unreachable),
        Case::new("a_client_killed_in_mid_handshake_is_seen_and_expires", half_open),
    ]
}

fn arp(lab: &mut Lab) -> Result<()> {
    lab.start_director(&Config::default())?;
    let director = lab.node01.mac("eth0")?;
    for address in [VIP, DIP] {
        let output = lab.client.run(&["arping", "-b", "-c", "3", "-w", "5", "-I", "eth0", address])?;
        let macs: Vec<_> =
            output.lines().filter_map(|l| Some(l.split_once('[')?.1.split_once(']')?.0)).collect();
        ensure!(macs.len() == 3, "{address}: not one reply for each of 3 requests: {output}");
        ensure!(
            macs.iter().all(|mac| mac.eq_ignore_ascii_case(&director)),
            "{address}: not {director}: {output}"
        );
    }
    ensure!(lab.director()?.dropped("arp_not_for_us")? == 0, "an ARP request for the director was not taken");
    let other = lab.client.output(&["arping", "-c", "1", "-w", "1", "-I", "eth0", "192.168.150.99"])?;
    ensure!(!other.status.success(), "an address of nobody was answered for");
    ensure!(lab.director()?.dropped("arp_not_for_us")? > 0, "a foreign request is not counted");
    Ok(())
}

fn ping(lab: &mut Lab) -> Result<()> {
    lab.start_director(&Config::default())?;
    for address in [VIP, DIP] {
        // 1400 bytes as well: an echo reply carries all of its request.
        for size in ["56", "1400"] {
            lab.client.run(&["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", "-s", size, address])?;
        }
    }
    Ok(())
}

/// Starts tcpdump on a node and waits until it listens.
fn capture(lab: &Lab, node: &Netns, filter: &str) -> Result<Process> {
    let log = lab.dir().join(format!("tcpdump-{}", node.name()));
    let argv = ["tcpdump", "-l", "-n", "-e", "-i", "eth0", filter];
    let process = node.start(&argv, &log)?;
    wait_until("tcpdump listens", PATIENCE, || Ok(process.log().contains("listening on")))?;
    Ok(process)
}

fn gratuitous(lab: &mut Lab) -> Result<()> {
    let tcpdump = capture(lab, &lab.client, "arp")?;
    lab.start_director(&Config::default())?;
    let mac = lab.node01.mac("eth0")?;
    for address in [VIP, DIP] {
        wait_until(&format!("gratuitous ARP for {address}"), PATIENCE, || {
            let log = tcpdump.log();
            // Both forms of RFC 5227: request and reply.
            let request = format!("who-has {address} (ff:ff:ff:ff:ff:ff) tell {address}");
            let plain = format!("who-has {address} tell {address}");
            let reply = format!("{address} is-at {mac}");
            Ok(log.lines().any(|l| {
                l.contains("> ff:ff:ff:ff:ff:ff")
                    && l.contains(&mac)
                    && (l.contains(&request) || l.contains(&plain) || l.contains(&reply))
            }))
        })
        .with_context(|| tcpdump.log())?;
    }
    Ok(())
}

/// Kernels without 802.1Q interfaces can run this one: the test itself writes the tags, tcpdump shows them.
fn tagged(lab: &mut Lab) -> Result<()> {
    const TAG: u16 = 150;
    let config =
        Config { vlan: Some(TAG), ..Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.12"])]) };
    lab.start_director_unresolved(&config)?;
    let at_client = capture(lab, &lab.client, "")?;
    let server = &lab.servers[0].netns;
    let at_server = capture(lab, server, "")?;
    let (director, client) = (frames::mac(&lab.node01.mac("eth0")?)?, frames::mac(&lab.client.mac("eth0")?)?);
    let server_mac = server.mac("eth0")?;
    let frame = |to: Mac, from: Mac, ethertype: u16, payload: &[u8]| {
        frames::ethernet(
            to,
            from,
            VLAN,
            &[&TAG.to_be_bytes()[..], &ethertype.to_be_bytes(), payload].concat(),
        )
    };
    let (address, vip, dip) = (Ipv4Addr::new(192, 168, 150, 1), VIP.parse()?, DIP.parse()?);
    let from_client = Wire::open(&lab.client, "eth0")?;
    from_client.send(&frame([0xff; 6], client, ARP, &frames::arp_request(client, address, vip)))?;
    let reply =
        format!("vlan {TAG}, p 0, ethertype ARP (0x0806), Reply {VIP} is-at {}", lab.node01.mac("eth0")?);
    wait_until("the VIP is answered for in the VLAN", PATIENCE, || Ok(at_client.log().contains(&reply)))
        .with_context(|| at_client.log())?;
    // A request of the server's own for the director's address tells the director its MAC address.
    let known = frames::mac(&server_mac)?;
    let request = frames::arp_request(known, "192.168.150.12".parse()?, dip);
    let from_server = Wire::open(server, "eth0")?;
    wait_until("the director knows the server", PATIENCE, || {
        from_server.send(&frame([0xff; 6], known, ARP, &request))?;
        lab.director()?.resolved(&["192.168.150.12"])
    })?;
    let syn = frames::ipv4(address, vip, 6, &frames::tcp_checked(address, vip, 4000, 80, SYN));
    from_client.send(&frame(director, client, IPV4, &syn))?;
    wait_until("the SYN is at the server, in the VLAN", PATIENCE, || {
        Ok(at_server.log().lines().any(|line| {
            line.contains(&format!("> {server_mac}, ethertype 802.1Q (0x8100)"))
                && line.contains(&format!("vlan {TAG}, p 0"))
                && line.contains(&format!("192.168.150.1.4000 > {VIP}.80: Flags [S]"))
        }))
    })
    .with_context(|| at_server.log())?;
    // Without the tag nobody is there.
    let untagged = frames::ipv4(address, vip, 6, &frames::tcp_checked(address, vip, 4001, 80, SYN));
    from_client.send(&frames::ethernet(director, client, IPV4, &untagged))?;
    wait_until(
        "an untagged frame is refused",
        PATIENCE,
        || Ok(lab.director()?.dropped("vlan_unknown")? > 0),
    )?;
    lab.director()?.wait_conserved()?;
    let rows = lab.director()?.connections(&[])?;
    ensure!(
        rows.iter().all(|row| row.client.port() == 4000),
        "an untagged frame made a connection: {rows:?}"
    );
    Ok(())
}

fn new_mac(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::with(vec![Service::tcp("web", 80, "rr", &["192.168.150.12"])]))?;
    lab.curl(&format!("http://{VIP}/"))?;
    let mac = "02:00:00:00:00:12";
    let server = &lab.servers[0].netns;
    // arp_notify: the kernel tells its neighbours of a new MAC address, as a card that was swapped does.
    server.run(&["sysctl", "-qw", "net.ipv4.conf.eth0.arp_notify=1"])?;
    server.ip(&format!("link set eth0 address {mac}"))?;
    wait_until("the director has the new MAC address", PATIENCE, || {
        let rows = lab.director()?.json::<api::Neighbors>(&["neighbors"])?.neighbors;
        Ok(rows
            .iter()
            .any(|row| row.address.to_string() == "192.168.150.12" && row.mac.as_deref() == Some(mac)))
    })?;
    lab.curl(&format!("http://{VIP}/"))?;
    Ok(())
}

fn unreachable(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let services = vec![
        Service::tcp("web", 80, "rr", &["192.168.150.12"]),
        Service::tcp("lost", 81, "rr", &["192.168.150.99"]),
    ];
    lab.start_director_unresolved(&Config::with(services))?;
    wait_until("the neighbour fails", PATIENCE, || {
        let rows = lab.director()?.json::<api::Neighbors>(&["neighbors"])?.neighbors;
        let row =
            rows.iter().find(|row| row.address.to_string() == "192.168.150.99").context("no row for .99")?;
        Ok(row.mac.is_none() && row.state.eq_ignore_ascii_case("failed") && row.probes >= 3)
    })?;
    let lost = lab.client.output(&["curl", "-s", "--max-time", "2", &format!("http://{VIP}:81/")])?;
    ensure!(!lost.status.success(), "nobody is there to answer");
    ensure!(lab.director()?.dropped("neighbor_unreachable")? > 0, "the drop is not counted");
    lab.curl(&format!("http://{VIP}/"))?;
    lab.director()?.wait_conserved()?;
    Ok(())
}

fn half_open(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    let config = Config { timeouts: "tcp_syn_recv = \"2s\"".to_owned(), ..Config::default() };
    lab.start_director(&config)?;
    // A client that is gone after its SYN: nobody has this address, so nobody answers the server's SYN-ACK.
    let gone = Ipv4Addr::new(192, 168, 150, 77);
    let vip: Ipv4Addr = VIP.parse()?;
    let packet = frames::ipv4(gone, vip, 6, &frames::tcp_checked(gone, vip, 4077, 80, SYN));
    let (to, from) = (frames::mac(&lab.node01.mac("eth0")?)?, frames::mac(&lab.client.mac("eth0")?)?);
    Wire::open(&lab.client, "eth0")?.send(&frames::ethernet(to, from, IPV4, &packet))?;
    let rows = || lab.director()?.connections(&["--client", "192.168.150.77"]);
    wait_until("the half-open connection is listed", PATIENCE, || {
        Ok(matches!(&rows()?[..], [row] if row.state == "SYN_RECV" && row.expires_ms <= 2000))
    })?;
    // IPVS counts SYN_RECV as active (`tcp_state_active_table`), so that lc sees handshakes.
    let active = |lab: &Lab| -> Result<u64> {
        Ok(lab.director()?.servers("web")?.iter().map(|row| row.counters.active).sum())
    };
    ensure!(active(lab)? == 1, "it does not count as active");
    wait_until("it expires", PATIENCE, || Ok(rows()?.is_empty() && active(lab)? == 0))?;
    Ok(())
}

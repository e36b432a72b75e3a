//! `[[vrrp]]` and what belongs to it: faults, secrets, differences; and configurations for the properties.

use std::net::IpAddr;
use std::time::Duration;

use super::{faults_after, small};
use crate::{
    Bfd, Ha, HmacKey, HmacMode, IpvsSync, IpvsSyncState, Lease, Model, PeerSync, Port, Track, Tracked,
    VirtualAddress, Vrrp, VrrpFile, VrrpGroup, VrrpHmac, VrrpNotify, VrrpPeer, VrrpProcess, VrrpScript,
    VrrpStart, VrrpVersion, WhenAway, diff, parse, to_toml,
};

/// Instances that vary with `seeds`: any, bits for what is there, priority.
pub(super) fn of(ports: &[Port], seeds: &[(u8, u32, u8)]) -> Ha {
    let mut ha = Ha::default();
    let Some(port) = ports.iter().find(|port| port.addresses.iter().any(|own| own.addr.is_ipv4())) else {
        return ha;
    };
    ha.scripts.push(VrrpScript {
        name: "script".to_owned(),
        command: vec!["/bin/test".to_owned(), "a \"b\" 'c'\n".to_owned()],
        ..VrrpScript::default()
    });
    let command = vec!["nginx".to_owned()];
    ha.processes.push(VrrpProcess { name: "process".to_owned(), command, ..VrrpProcess::default() });
    ha.files.push(VrrpFile { name: "file".to_owned(), path: "/run/file".to_owned(), weight: -3 });
    for (at, (any, bits, priority)) in seeds.iter().enumerate() {
        let on = |bit: u32| bits >> bit & 1 == 1;
        let v2 = on(0);
        let kind = [Tracked::Port, Tracked::Script, Tracked::Process, Tracked::File][usize::from(any % 4)];
        let name = [port.name.as_str(), "script", "process", "file"][usize::from(any % 4)];
        let track = Track {
            what: kind(name.to_owned()),
            weight: on(1).then_some(i16::from(*any) - 128).map(|weight| weight.max(1)),
            reverse: on(2),
        };
        let vip = |host| VirtualAddress {
            address: IpAddr::from([198, 51, 100, host]),
            port: on(3).then(|| port.name.clone()),
        };
        ha.vrrp.push(Vrrp {
            name: format!("vi{at}"),
            port: port.name.clone(),
            vrid: at as u8 + 1,
            version: if v2 { VrrpVersion::V2 } else { VrrpVersion::V3 },
            priority: *priority,
            state: if on(4) { VrrpStart::Master } else { VrrpStart::Backup },
            advert_interval: if v2 { Duration::from_secs(2) } else { Duration::from_millis(1230) },
            virtual_addresses: vec![vip(2 * at as u8 + 1), vip(2 * at as u8 + 2)],
            peers: match on(5) {
                true => vec![VrrpPeer { address: [203, 0, 113, 200].into(), min_ttl: 3, max_ttl: 254 }],
                false => Vec::new(),
            },
            vmac: on(6),
            vmac_xmit_base: on(6) && on(7),
            accept: on(8),
            preempt: on(9) || *priority == 255,
            preempt_delay: Duration::from_millis((*any).into()),
            handover_wait: Duration::from_millis(u64::from(*any) * 10),
            auth_password: (v2 && on(10)).then(|| "pa\"ss".to_owned()),
            hmac: on(11).then(|| VrrpHmac {
                active: 7,
                mode: [HmacMode::Enforce, HmacMode::Permissive, HmacMode::ReceiveOnly][usize::from(any % 3)],
                window: Duration::from_secs(3),
                keys: vec![HmacKey { id: 7, key: "0123456789abcdef".to_owned() }],
            }),
            track: vec![track],
            notify: VrrpNotify {
                any: if on(12) { vec!["/bin/true".to_owned(), "x y".to_owned()] } else { Vec::new() },
                user: on(13).then(|| "nobody".to_owned()),
                mail: on(14),
                ..VrrpNotify::default()
            },
            ..Vrrp::default()
        });
    }
    if let Some((any, bits, _)) = seeds.first().filter(|(_, bits, _)| bits >> 15 & 1 == 1) {
        let tls = bits >> 16 & 1 == 1;
        ha.lease = Some(Lease {
            endpoints: vec![if tls { "https://[fd00::1]:2379" } else { "http://etcd:1" }.parse().unwrap()],
            prefix: format!("/\"é{any}"),
            ttl: Duration::from_secs(2 + u64::from(*any)),
            margin: Duration::from_millis(50 + u64::from(*any)),
            user: tls.then(|| "me".to_owned()),
            password: tls.then(|| "pa\"ss".to_owned()),
            certificate: tls.then(|| "/etc/c.pem".into()),
            key: tls.then(|| "/etc/c.key".into()),
            ..Lease::default()
        });
    }
    if let Some(first) = ha.vrrp.first() {
        let instances = vec![first.name.clone()];
        ha.groups.push(VrrpGroup { name: "all".to_owned(), instances, ..VrrpGroup::default() });
    }
    if seeds.len() > 1 {
        ha.sync.push(PeerSync {
            name: "second".to_owned(),
            listen: ([10, 9, 0, 1], 8849).into(),
            peer: ([10, 9, 0, 2], 8849).into(),
            key: "hex:000102030405060708090a0b0c0d0e0f".to_owned(),
            handshakes: seeds[0].0 > 100,
            refresh: Duration::from_secs(30),
            hold: Duration::from_millis(1500),
        });
    }
    for (state, (any, bits, priority)) in IpvsSyncState::ALL.into_iter().zip(seeds) {
        let group =
            if bits >> 14 & 1 == 1 { [0xff02, 0, 0, 0, 0, 0, 0, 0x81].into() } else { [224, 0, 0, 9].into() };
        let vrrp = ha.vrrp.first().map(|vrrp| vrrp.name.clone()).filter(|_| any & 1 == 1);
        let (sync_id, ttl, port) = (*any, any | 1, u16::from(*priority) + 1);
        ha.ipvs_sync.push(IpvsSync {
            sync_id,
            ttl,
            port,
            group,
            vrrp,
            ..IpvsSync::new(state, "eth9".to_owned())
        });
    }
    ha
}

const INSTANCE: &str =
    "[[vrrp]]\nname = \"v\"\nport = \"lan\"\nvrid = 51\nvirtual_addresses = [\"192.168.150.100\"]\n";

fn with(more: &str) -> Model {
    parse(&format!("{}\n{INSTANCE}{more}", super::SMALL)).unwrap()
}

#[test]
fn every_rule_that_is_broken_is_told() {
    // the text begins on line 16, keys after those of INSTANCE on line 21
    let told = |more: &str| faults_after(&format!("{INSTANCE}{more}"));
    assert_eq!(told("priority = 0"), "line 21: vrrp[0].priority: 0 is below the limit 1");
    assert_eq!(
        told("version = 2\nadvert_interval = \"100ms\""),
        "line 22: vrrp[0].advert_interval: 100ms is below the limit 1s"
    );
    assert_eq!(
        told("advert_interval = \"15ms\""),
        "line 21: vrrp[0].advert_interval: 15ms is no multiple of 10ms, which version 3 counts in"
    );
    assert_eq!(told("auth_password = \"x\""), "line 21: vrrp[0].auth_password: is of version 2 only");
    assert_eq!(
        told("version = 2\nauth_password = \"123456789\""),
        "line 22: vrrp[0].auth_password: has 9 bytes, 1 to 8 are allowed"
    );
    assert_eq!(
        told("preempt = false\npriority = 255"),
        "line 21: vrrp[0].preempt: false is not possible with priority 255: the owner is always master"
    );
    assert_eq!(
        told("track = [{ script = \"none\" }]"),
        "line 21: vrrp[0].track[0].script: \"none\" is not the name of a script that is tracked (known: )"
    );
    assert_eq!(
        told("track = [{ weight = 3 }]"),
        "line 21: vrrp[0].track[0]: names 0 things to track, not one of port, script, process, file, bfd"
    );
    assert_eq!(
        told("excluded_addresses = [\"192.168.150.100\"]"),
        "line 21: vrrp[0].excluded_addresses[0]: 192.168.150.100 is already an address of vrrp[0]"
    );
    assert_eq!(
        told("source = \"192.168.150.77\""),
        "line 21: vrrp[0].source: 192.168.150.77 is no address of a port"
    );
    assert_eq!(
        told("hmac = { active = 2, keys = [{ id = 1, key = \"short\" }] }"),
        "line 21: vrrp[0].hmac.active: 2 is the id of no key\n\
         line 21: vrrp[0].hmac.keys[0].key: has 5 bytes, 16 to 64 are allowed"
    );
    assert_eq!(
        told("notify = { master = [\"became\"] }"),
        "line 21: vrrp[0].notify.master: \"became\" does not begin with /"
    );
    assert_eq!(
        told("strict = true\npeers = [{ address = \"192.168.150.21\" }]"),
        "line 22: vrrp[0].peers: is not as the RFC has it, which strict asks for"
    );
    let twice = format!("{INSTANCE}{}", INSTANCE.replace("\"v\"", "\"w\""));
    assert_eq!(
        faults_after(&twice),
        "line 24: vrrp[1].vrid: 51 is already the vrid of vrrp[0] on port \"lan\"\n\
         line 25: vrrp[1].virtual_addresses[0]: 192.168.150.100 is already an address of vrrp[0]"
    );
    let owner = INSTANCE.replace("150.100", "150.11");
    assert_eq!(
        faults_after(&owner),
        "line 20: vrrp[0].virtual_addresses[0]: 192.168.150.11 is a port's own address: its owner has priority 255"
    );
    assert_eq!(
        faults_after("[[bfd]]\nname = \"b\"\nport = \"lan\"\nneighbor = \"10.9.9.9\"\nmin_tx = \"1ms\"\n"),
        "line 19: bfd[0].neighbor: 10.9.9.9 is in no network of port \"lan\"\n\
         line 20: bfd[0].min_tx: 1ms is below the limit 10ms"
    );
    let group = "[[vrrp_groups]]\nname = \"g\"\ninstances = [\"v\"]\n";
    for (key, value) in [
        ("deleted", "[\"/bin/x\"]"),
        ("master_rx_lower_priority", "[\"/bin/x\"]"),
        ("priority_changes", "true"),
    ] {
        let text = format!("{INSTANCE}{group}notify = {{ {key} = {value} }}\n");
        let known = "master, backup, fault, stop, any, user, mail";
        let wanted = format!("line 24: vrrp_groups[0].notify.{key}: unknown key (known here: {known})");
        assert_eq!(faults_after(&text), wanted);
    }
    assert_eq!(
        faults_after("[[vrrp_groups]]\nname = \"g\"\ninstances = [\"v\"]\n"),
        "line 18: vrrp_groups[0].instances[0]: \"v\" is not the name of a vrrp"
    );
}

#[test]
fn what_changed_is_told_without_secrets() {
    let old = with("priority = 100\nversion = 2\nauth_password = \"old\"\n");
    let new = with("priority = 90\nversion = 2\nauth_password = \"new\"\n");
    let told: Vec<_> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["~ vrrp v: priority 100 -> 90, auth_password (old secret) -> (new secret)"]);
    let told: Vec<_> = diff(&small(), &new).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["+ vrrp v"]);
    let told: Vec<_> = diff(&new, &small()).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["- vrrp v"]);
}

#[test]
fn secrets_can_be_taken_out() {
    let model = with("version = 2\nauth_password = \"hush\"\n");
    assert!(model.ha.has_secrets() && to_toml(&model).contains("hush"));
    let open = Model { ha: model.ha.clone().without_secrets(), ..model };
    assert!(!open.ha.has_secrets() && !to_toml(&open).contains("hush"));
}

#[test]
fn keys_are_text_or_hexadecimal() {
    let key = |text: &str| HmacKey { id: 1, key: text.to_owned() }.bytes();
    assert_eq!(key("text"), Some(b"text".to_vec()));
    assert_eq!(key("hex:00ff"), Some(vec![0, 255]));
    assert_eq!((key("hex:0"), key("hex:zz"), key("hex:é0")), (None, None, None));
}

#[test]
fn a_session_has_the_defaults_of_the_example() {
    let text = "[[bfd]]\nname = \"b\"\nport = \"lan\"\nneighbor = \"192.168.150.21\"\n";
    let model = parse(&format!("{}\n{text}", super::SMALL)).unwrap();
    let wanted = Bfd {
        name: "b".to_owned(),
        port: "lan".to_owned(),
        neighbor: [192, 168, 150, 21].into(),
        ..Bfd::default()
    };
    assert_eq!(model.ha.bfd, [wanted]);
}

const LEASE: &str = "[lease]\nendpoints = [\"http://10.0.0.1:2379\"]\n";

#[test]
fn a_lease_has_its_rules() {
    let told = |more: &str| faults_after(&format!("{INSTANCE}{LEASE}{more}"));
    assert_eq!(told("ttl = \"1s\""), "line 23: lease.ttl: 1s is below the limit 2s");
    assert_eq!(
        told("ttl = \"2500ms\""),
        "line 23: lease.ttl: 2500ms is no multiple of 1s, which etcd counts in"
    );
    assert_eq!(told("margin = \"2s\""), "line 23: lease.margin: 2s is above the limit 1500ms");
    assert_eq!(told("timeout = \"2s\""), "line 23: lease.timeout: 2s is above the limit 1500ms");
    assert_eq!(told("prefix = \"\""), "line 23: lease.prefix: has 0 bytes, 1 to 200 are allowed");
    assert_eq!(told("user = \"me\""), "line 23: lease.user: is of use with password only");
    assert_eq!(told("key = \"/k\""), "line 23: lease.key: is of use with certificate only");
    assert_eq!(
        told("when_away = \"keep\""),
        "line 23: lease.when_away: keep wants takeover_bfd in every [[vrrp]], \"v\" has none"
    );
    assert_eq!(
        told("when_away = \"hope\""),
        "line 23: lease.when_away: \"hope\" is not one of release, keep"
    );
    assert_eq!(
        faults_after(&format!("{INSTANCE}[lease]\nendpoints = [\"10.0.0.1:2379\"]")),
        "line 22: lease.endpoints[0]: \"10.0.0.1:2379\" is not http://HOST:PORT or https://HOST:PORT"
    );
}

#[test]
fn a_lease_is_one_object_and_its_password_a_secret() {
    let without = with("");
    let secret = format!("{LEASE}user = \"me\"\npassword = \"hush\"\n");
    let one = with(&secret);
    assert!(one.ha.has_secrets() && !one.ha.clone().without_secrets().has_secrets());
    assert_eq!(one.ha.lease.as_ref().map(|lease| lease.when_away), Some(WhenAway::Release));
    let lines = |old: &Model, new: &Model| diff(old, new).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(lines(&without, &one), ["+ lease etcd"]);
    assert_eq!(lines(&one, &without), ["- lease etcd"]);
    let other = with(&secret.replace("hush", "other").replace("10.0.0.1", "10.0.0.2"));
    assert_eq!(
        lines(&one, &other),
        ["~ lease etcd: endpoints [\"http://10.0.0.1:2379\"] -> [\"http://10.0.0.2:2379\"], \
             password (old secret) -> (new secret)"]
    );
    assert_eq!(parse(&to_toml(&other)).unwrap(), other);
}

use std::time::Duration;

use super::{Imported, Options, import};
use crate::health::{Assume, CheckKind, Digest, FileMeaning, HttpVersion, OnFailure, StatusRange};
use crate::{
    Forwarding, IpvsSync, IpvsSyncState, Model, Protocol, Scheduler, ServiceAddress, Tracked, VrrpStart,
    VrrpVersion,
};

const BASE: &str = "[[ports]]\nname = \"lan\"\ndevice = \"af_packet:eth0\"\naddresses = [\"192.168.150.11/24\", \"fd00::11/64\"]\n\
                    [[ports]]\nname = \"back\"\ndevice = \"af_xdp:eth1\"\nvlan = 20\naddresses = [\"10.20.0.2/16\"]\n";

fn run(text: &str, id: Option<&str>) -> Imported {
    import(text, &Options { base: Some(BASE), id }, &|_, what| Err(format!("{what}: not in this test")))
}

fn model(text: &str) -> Model {
    let imported = run(text, None);
    assert_eq!(notes(&imported), [] as [&str; 0], "{}", imported.toml);
    crate::parse(&imported.toml).unwrap_or_else(|faults| panic!("{faults}\n{}", imported.toml))
}

fn notes(imported: &Imported) -> Vec<String> {
    imported.notes.iter().map(ToString::to_string).collect()
}

/// A file as it stands in many places: two web servers behind two directors.
const CLASSIC: &str = r#"
! the director that is master
global_defs {
    notification_email {
        ops@example.org
        "On Call <oncall@example.org>"
    }
    notification_email_from lb@example.org
    smtp_server 192.168.150.5 2525
    smtp_connect_timeout 10
    router_id LVS_1       # its name
}
vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 100
    advert_int 1
    authentication {
        auth_type PASS
        auth_pass 123456789
    }
    virtual_ipaddress {
        192.168.150.100/24
    }
}
virtual_server 192.168.150.100 80 {
    delay_loop 6
    lb_algo rr
    lb_kind DR
    persistence_timeout 0
    protocol TCP
    real_server 192.168.150.12 80 {
        weight 1
        HTTP_GET {
            url {
                path /
                status_code 200
            }
            connect_timeout 3
            nb_get_retry 3
            delay_before_retry 2
        }
    }
    real_server 192.168.150.13 80 {
        weight 1
        HTTP_GET {
            url {
                path /
                status_code 200
            }
            connect_timeout 3
            nb_get_retry 3
            delay_before_retry 2
        }
    }
}
"#;

#[test]
fn the_classic_file_means_here_what_it_means_there() {
    let model = model(CLASSIC);
    assert_eq!(model.appliance.name, "LVS_1");
    let mail = model.notify.mail.as_ref().unwrap();
    assert_eq!(
        (mail.server.as_str(), mail.port, mail.timeout),
        ("192.168.150.5", 2525, Duration::from_secs(10))
    );
    assert_eq!(mail.to, ["ops@example.org", "oncall@example.org"]);
    let vrrp = &model.ha.vrrp[0];
    assert_eq!((vrrp.name.as_str(), vrrp.port.as_str(), vrrp.vrid, vrrp.priority), ("VI_1", "lan", 51, 100));
    assert_eq!((vrrp.version, vrrp.state), (VrrpVersion::V2, VrrpStart::Master));
    assert_eq!(vrrp.auth_password.as_deref(), Some("12345678"));
    assert!(!vrrp.check_unicast_source && !vrrp.timer_expired_backup && vrrp.preempt && vrrp.accept);
    assert_eq!(vrrp.virtual_addresses[0].to_string(), "192.168.150.100");
    let service = &model.services[0];
    let vip =
        ServiceAddress::Vip { vip: "192.168.150.100".parse().unwrap(), port: 80, protocol: Protocol::Tcp };
    assert_eq!(
        (service.address, service.scheduler, service.forwarding),
        (vip, Scheduler::Rr, Forwarding::Dr)
    );
    assert_eq!(service.persistence, None);
    let servers: Vec<String> = service.servers.iter().map(|server| server.key().to_string()).collect();
    assert_eq!(servers, ["192.168.150.12:80", "192.168.150.13:80"]);
    // What both are asked stands once, at the service.
    assert!(service.servers.iter().all(|server| server.health.is_none()));
    for server in &service.servers {
        let checks = service.checks_of(server);
        let [check] = checks.as_slice() else { panic!("{checks:?}") };
        let CheckKind::Http(http) = &check.kind else { panic!("{check:?}") };
        assert_eq!((http.version, http.urls[0].path.as_str()), (HttpVersion::V10, "/"));
        assert_eq!(http.urls[0].status, [StatusRange::new(200, 200).unwrap()]);
        let rhythm = &check.rhythm;
        assert_eq!((rhythm.interval.as_secs(), rhythm.timeout.as_secs()), (6, 3));
        assert_eq!((rhythm.retries, rhythm.retry_delay.as_secs(), check.assume), (3, 2, Assume::Up));
        assert_eq!(check.target.to, server.key());
    }
    let backup = self::model(&CLASSIC.replace("MASTER", "BACKUP").replace("priority 100", "priority 50"));
    assert_eq!((backup.ha.vrrp[0].state, backup.ha.vrrp[0].priority), (VrrpStart::Backup, 50));
}

#[test]
fn keepalived_s_defaults_are_kept() {
    let model = model(
        "virtual_server 192.168.150.100 53 {\n protocol UDP\n real_server 192.168.150.12 53 {\n DNS_CHECK {\n }\n }\n real_server 192.168.150.13 53 {\n MISC_CHECK {\n misc_path check\n }\n }\n}\n",
    );
    let service = &model.services[0];
    assert_eq!((service.scheduler, service.forwarding), (Scheduler::Wlc, Forwarding::Nat));
    let dns = &service.checks_of(&service.servers[0])[0].rhythm;
    assert_eq!(
        (dns.interval.as_secs(), dns.timeout.as_secs(), dns.retries, dns.retry_delay.as_secs()),
        (60, 5, 3, 60)
    );
    let misc = &service.checks_of(&service.servers[1])[0];
    assert_eq!((misc.rhythm.timeout.as_secs(), misc.rhythm.retries), (60, 0));
    let CheckKind::Script(script) = &misc.kind else { panic!() };
    assert_eq!(script.command, ["/usr/bin/env", "check"]);
}

#[test]
fn every_checker_is_carried_over() {
    let text = r#"
global_defs { script_user nobody }
SSL {
    certificate /etc/c.pem
    key /etc/k.pem
}
track_file load {
    file /run/load
    weight -2
}
virtual_server 192.168.150.100 443 {
    delay_loop 0.5
    lb_algo wrr
    lb_kind TUN type gue port 6080 csum
    protocol TCP
    persistence_timeout
    persistence_granularity 255.255.255.0
    quorum 3
    hysteresis 1
    alpha
    omega
    inhibit_on_failure
    virtualhost www.example.org
    quorum_up "/bin/q up"
    quorum_down "/bin/q 'is down'"
    sorry_server 192.168.150.99 443
    sorry_server_inhibit
    sorry_server_lvs_method DR
    real_server 192.168.150.12 443 {
        weight 4
        lvs_method DR
        uthreshold 100
        lthreshold 50
        notify_up "/bin/n up"
        notify_down /bin/n
        delay_loop 2
        SSL_GET {
            enable_sni
            sni_name sni.example.org
            http_protocol 1.1
            virtualhost a.example.org
            fast_recovery
            url {
                path /a
                digest ff20ad2481f97b1754ef3e12ecd3a9cc
                status_code 200 301-302
                regex "^ok \\d+$"
                regex_options caseless dotall
                regex_no_match
                regex_min_offset 1
                regex_max_offset 9
            }
            url {
                path /b
                virtualhost b.example.org
            }
        }
        TCP_CHECK {
            connect_ip 192.168.150.20
            connect_port 8443
            bindto 192.168.150.11
            bind_port 4000
            bind_if lo
            fwmark 9
            warmup 0
        }
        SMTP_CHECK {
            helo_name lb.example.org
            host { connect_ip 192.168.150.21 }
            host {
                connect_port 25
            }
        }
        DNS_CHECK {
            type a
            name example.org
        }
        MISC_CHECK {
            misc_path "/bin/check -a 'b c'"
            misc_timeout 7
            misc_dynamic
            user daemon
        }
        UDP_CHECK {
            payload 01 23
            require_reply 4x
            min_reply_length 1
            max_reply_length 20
        }
        PING_CHECK {
            retry 4
        }
        FILE_CHECK {
            track_file load
        }
        FILE_CHECK {
            track_file load
            weight 0 reverse
        }
    }
}
"#;
    let model = model(text);
    let service = &model.services[0];
    let health = service.health.as_ref().unwrap();
    assert_eq!(service.forwarding.to_string(), "tunnel:gue:6080:full");
    let persistence = service.persistence.unwrap();
    assert_eq!((persistence.timeout.as_secs(), persistence.prefix_len), (360, 24));
    assert_eq!((health.quorum, health.hysteresis, health.down_at_stop), (3, 1, true));
    assert_eq!((health.on_failure, health.pace.assume), (OnFailure::Drain, Some(Assume::Down)));
    assert_eq!(health.notify.quorum_up, ["/bin/q", "up"]);
    assert_eq!(health.notify.quorum_down, ["/bin/q", "is down"]);
    let sorry = health.sorry_server.unwrap();
    assert_eq!(
        (sorry.key().to_string().as_str(), sorry.drain, sorry.forwarding),
        ("192.168.150.99:443", true, Forwarding::Dr)
    );
    let server = &service.servers[0];
    assert_eq!((server.weight, server.upper_threshold, server.lower_threshold), (4, 100, 50));
    assert_eq!(server.health.as_ref().unwrap().notify.up, ["/bin/n", "up"]);
    let checks = service.checks_of(server);
    let names: Vec<&str> = checks.iter().map(|check| check.kind.name()).collect();
    assert_eq!(names, ["https", "tcp", "smtp", "smtp", "dns", "script", "udp", "ping", "file", "file"]);
    let CheckKind::Http(http) = &checks[0].kind else { panic!() };
    let tls = http.tls.as_ref().unwrap();
    assert_eq!((tls.sni.as_deref(), tls.verify), (Some("sni.example.org"), false));
    assert_eq!(
        tls.certificate.as_deref().map(|path| path.to_string_lossy().into_owned()).as_deref(),
        Some("/etc/c.pem")
    );
    assert_eq!((http.version, http.urls.len()), (HttpVersion::V11, 2));
    let url = &http.urls[0];
    assert_eq!(
        (url.host.as_deref(), http.urls[1].host.as_deref()),
        (Some("a.example.org"), Some("b.example.org"))
    );
    assert!(matches!(url.digest, Some(Digest::Md5([0xff, 0x20, ..]))));
    assert_eq!(url.status.iter().map(ToString::to_string).collect::<Vec<_>>(), ["200", "301-302"]);
    let regex = url.regex.as_ref().unwrap();
    assert_eq!(
        (regex.pattern.as_str(), regex.absent, regex.min_offset, regex.max_offset),
        ("(?is)^ok \\d+$", true, 1, Some(9))
    );
    assert_eq!((checks[0].rhythm.interval.as_secs(), checks[0].rhythm.retry_delay.as_secs()), (2, 3));
    assert!(checks[0].rhythm.fast_recovery);
    let target = &checks[1].target;
    assert_eq!(
        (target.to.to_string().as_str(), target.bind_port, target.mark),
        ("192.168.150.20:8443", 4000, 9)
    );
    assert_eq!((target.device.as_deref(), checks[1].rhythm.warmup), (Some("lo"), Duration::ZERO));
    assert_eq!(
        [checks[2].target.to.to_string(), checks[3].target.to.to_string()],
        ["192.168.150.21:443", "192.168.150.12:25"]
    );
    let CheckKind::Script(script) = &checks[5].kind else { panic!() };
    assert_eq!(
        (script.command.as_slice(), script.dynamic),
        (&["/bin/check".to_owned(), "-a".into(), "b c".into()][..], true)
    );
    assert_eq!((script.user.as_deref(), checks[5].rhythm.timeout.as_secs()), (Some("daemon"), 7));
    let CheckKind::Udp(udp) = &checks[6].kind else { panic!() };
    assert_eq!(
        (udp.payload.to_string(), udp.reply.as_ref().unwrap().to_string()),
        ("0123".into(), "4x".into())
    );
    assert_eq!(checks[7].rhythm.retries, 4);
    let meanings: Vec<(FileMeaning, i32)> = checks[8..]
        .iter()
        .map(|check| match &check.kind {
            CheckKind::File(file) => (file.meaning, file.factor),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(meanings, [(FileMeaning::Offset, -2), (FileMeaning::Reverse, 1)]);
    assert_eq!(model.notify.user.as_deref(), Some("nobody"));
}

#[test]
fn groups_ranges_and_marks_are_services_of_their_own() {
    let imported = run(
        "virtual_server_group g {\n 192.168.150.100-102 80\n fd00::100-101 80\n fwmark 7\n}\n\
         virtual_server group g {\n protocol TCP\n lb_kind TUN\n quorum_up /bin/true\n real_server 10.20.0.9 80 {\n TCP_CHECK {\n connect_port 80\n }\n }\n}\n",
        None,
    );
    assert_eq!(
        notes(&imported),
        ["line 4: fwmark: fwmark 7: packets get marks from [[marks]] here, not from a firewall; add rules"]
    );
    let model = crate::parse(&imported.toml).unwrap();
    let addresses: Vec<String> = model.services.iter().map(|service| service.address.to_string()).collect();
    assert_eq!(
        addresses,
        [
            "192.168.150.100:80/tcp",
            "192.168.150.101:80/tcp",
            "192.168.150.102:80/tcp",
            "[fd00::100]:80/tcp",
            "[fd00::101]:80/tcp",
            "mark:7"
        ]
        .map(|text| text.parse::<ServiceAddress>().map_or_else(|_| text.to_owned(), |a| a.to_string()))
    );
    let told = model.services.iter().filter(|s| !s.health.as_ref().unwrap().notify.quorum_up.is_empty());
    assert_eq!(told.count(), 1);
}

#[test]
fn with_direct_routing_the_port_of_a_server_is_what_is_checked() {
    let model = model(
        "virtual_server 192.168.150.100 80 {\n lb_kind DR\n protocol TCP\n real_server 192.168.150.12 8080 {\n TCP_CHECK {\n }\n }\n}\n",
    );
    let service = &model.services[0];
    assert_eq!(service.servers[0].port, 80);
    assert_eq!(service.checks_of(&service.servers[0])[0].target.to.port(), 8080);
}

#[test]
fn instances_groups_and_what_they_track_are_carried_over() {
    let text = r#"
global_defs {
    vrrp_version 3
    vrrp_garp_master_delay 2
    vrrp_mcast_group4 224.0.0.99
    lvs_timeouts tcp 600 tcpfin 30 udp 60
}
vrrp_script chk {
    script "pidof nginx"
    interval 0.5
    weight -20
    rise 2
    fall 3
    user daemon
    init_fail
}
vrrp_script sh { script "</dev/tcp/127.0.0.1/25" }
vrrp_track_process ng {
    process nginx
    quorum 2
    delay 1
}
track_file f { file /run/f }
bfd_instance peer {
    neighbor_ip 10.20.0.3
    min_rx 20
    min_tx 30
    max_hops 0
}
vrrp_instance "in side" {
    interface eth1.20
    virtual_router_id 7
    priority 255
    advert_int 0.05
    use_vmac vrrp.7
    nopreempt_not
    virtual_ipaddress {
        10.20.0.100/16
        192.168.150.77/24 dev eth0
    }
    virtual_ipaddress_excluded {
        fd00::77/64 dev eth0
    }
    unicast_src_ip 10.20.0.2
    unicast_peer {
        10.20.0.3 min_ttl 250
    }
    check_unicast_src
    track_interface { eth0 weight 10 }
    track_script { chk }
    track_process { ng weight 5 }
    track_file { f weight 2 reverse }
    track_bfd { peer }
    dont_track_primary
    preempt_delay 3
    garp_master_repeat 2
    notify_master "/bin/m master" daemon
    notify "/bin/n"
    notify_stop /bin/s
    smtp_alert
}
vrrp_instance B {
    interface eth0
    virtual_router_id 8
    nopreempt
    virtual_ipaddress { 192.168.150.78 }
}
vrrp_sync_group G {
    group {
        "in side"
        B
    }
    notify_backup /bin/b
    notify_stop /bin/e
    notify_deleted /bin/d
    smtp_alert
    track_script { chk weight 0 }
}
"#;
    let imported = run(text, None);
    let skipped = [
        "line 36: nopreempt_not: unknown key",
        "line 75: notify_deleted: is of instances alone: a group is not told of it",
    ];
    assert_eq!(notes(&imported), skipped);
    let model = crate::parse(&imported.toml).unwrap_or_else(|faults| panic!("{faults}\n{}", imported.toml));
    let [vrrp, other] = model.ha.vrrp.as_slice() else { panic!() };
    assert_eq!((vrrp.name.as_str(), vrrp.port.as_str(), vrrp.version), ("in-side", "back", VrrpVersion::V3));
    assert_eq!((vrrp.advert_interval.as_millis(), vrrp.vmac, vrrp.track_port), (50, true, false));
    let texts = |list: &[crate::VirtualAddress]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&vrrp.virtual_addresses), ["10.20.0.100", "192.168.150.77@lan"]);
    assert_eq!(texts(&vrrp.excluded_addresses), ["fd00::77@lan"]);
    assert_eq!((vrrp.peers[0].min_ttl, vrrp.check_unicast_source), (250, true));
    let tracks: Vec<_> =
        vrrp.track.iter().map(|track| (track.what.clone(), track.weight, track.reverse)).collect();
    assert_eq!(
        tracks,
        [
            (Tracked::Port("lan".into()), Some(10), false),
            (Tracked::Script("chk".into()), None, false),
            (Tracked::Process("ng".into()), Some(5), false),
            (Tracked::File("f".into()), Some(2), true),
            (Tracked::Bfd("peer".into()), None, false),
        ]
    );
    assert_eq!(
        (vrrp.preempt_delay.as_secs(), vrrp.garp_master_delay.as_secs(), vrrp.garp_master_repeat),
        (3, 2, 2)
    );
    assert_eq!(
        (vrrp.notify.master.join(" ").as_str(), vrrp.notify.user.as_deref()),
        ("/bin/m master", Some("daemon"))
    );
    assert_eq!(
        (vrrp.multicast_address, other.multicast_address),
        (None, Some("224.0.0.99".parse().unwrap()))
    );
    assert!(!other.preempt);
    assert!(vrrp.notify.mail && !other.notify.mail && model.ha.groups[0].notify.mail);
    let group = &model.ha.groups[0];
    assert_eq!(
        (group.notify.backup.join(" "), group.notify.stop.join(" ")),
        ("/bin/b".into(), "/bin/e".into())
    );
    assert_eq!((group.instances.join(" ").as_str(), group.track[0].weight), ("in-side B", Some(0)));
    let script = &model.ha.scripts[0];
    assert_eq!(script.command, ["/usr/bin/env", "pidof", "nginx"]);
    assert_eq!((script.interval.as_millis(), script.timeout.as_millis(), script.weight), (500, 500, -20));
    assert_eq!(
        (script.rise, script.fall, script.init_fail, script.user.as_deref()),
        (2, 3, true, Some("daemon"))
    );
    assert_eq!(model.ha.scripts[1].command, ["/bin/bash", "-c", "</dev/tcp/127.0.0.1/25"]);
    assert_eq!((model.ha.processes[0].quorum, model.ha.files[0].path.as_str()), (2, "/run/f"));
    let bfd = &model.ha.bfd[0];
    assert_eq!(
        (bfd.port.as_str(), bfd.multiplier, bfd.min_rx.as_millis(), bfd.min_ttl),
        ("back", 5, 20, 255)
    );
    assert_eq!(
        (
            model.timeouts.tcp_established.as_secs(),
            model.timeouts.tcp_fin_wait.as_secs(),
            model.timeouts.udp.as_secs()
        ),
        (600, 30, 60)
    );
}

#[test]
fn what_is_not_carried_over_is_told_by_line() {
    let text = "global_defs {\n enable_snmp_vrrp\n vrrp_rt_priority 5\n nosuch\n}\nstatic_routes {\n 10.0.0.0/8 via 10.0.0.1\n}\nwhat { is this }\n\
        vrrp_instance A {\n interface eth7\n virtual_router_id 300\n}\nvrrp_instance B {\n interface eth0\n virtual_router_id 3\n smtp_alert\n authentication {\n auth_type AH\n }\n virtual_ipaddress {\n 192.168.150.100 label x\n nonsense\n }\n}\n\
        virtual_server 192.168.150.100 80 {\n protocol TCP\n lb_algo best\n ha_suspend\n real_server 127.0.0.1 80 {\n }\n real_server 192.168.150.12 80 {\n BFD_CHECK {\n name b\n }\n weight 70000\n }\n}\n} include x.conf\n";
    let imported = run(text, None);
    let told = notes(&imported);
    let begins = [
        "line 2: enable_snmp_vrrp: is not offered",
        "line 3: vrrp_rt_priority: is about keepalived's own processes",
        "line 4: nosuch: unknown key",
        "line 6: static_routes: is not offered: the director has no routing table",
        "line 9: what: unknown key",
        "line 10: vrrp_instance: has no virtual_router_id",
        "line 11: interface: \"eth7\" is no interface of a port",
        "line 12: virtual_router_id: 300 is not 1 to 255",
        "line 19: auth_type: is not offered",
        "line 22: 192.168.150.100: label: no kernel interface has the address",
        "line 23: nonsense: is no address",
        "line 28: lb_algo: \"best\" is not",
        "line 29: ha_suspend: is not offered",
        "line 30: real_server: 127.0.0.1 is a loopback address, that is the director itself: left out",
        "line 33: BFD_CHECK: is not offered",
        "line 36: weight: 70000 is not 0 to 65535",
        "line 39: }: ends no block",
        "line 39: include: unknown key",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    for begin in begins {
        assert!(told.iter().any(|note| note.starts_with(begin)), "{begin}: {told:#?}");
    }
    assert!(crate::parse(&imported.toml).is_ok());
}

#[test]
fn an_object_that_cannot_be_is_left_out_and_told() {
    let imported = run(
        "virtual_server 192.168.150.100 0 {\n protocol TCP\n real_server 192.168.150.12 0 {\n }\n}\n\
         vrrp_instance A {\n interface eth0\n virtual_router_id 1\n virtual_ipaddress {\n 192.168.150.100\n 192.168.150.100\n }\n}\n",
        None,
    );
    let told = notes(&imported);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("line 1: virtual_server: is left out: "), "{told:#?}");
    assert!(told[1].starts_with("line 6: vrrp_instance: is left out: virtual_addresses[1]: "), "{told:#?}");
    let model = crate::parse(&imported.toml).unwrap();
    assert_eq!((model.services.len(), model.ha.vrrp[0].virtual_addresses.len()), (0, 1));
}

#[test]
fn strict_mode_costs_no_instance() {
    // as in the sample that keepalived brings along, and with what keepalived lets pass beside
    let text = "global_defs {\n vrrp_skip_check_adv_addr\n vrrp_strict\n}\n\
        vrrp_instance A {\n interface eth0\n virtual_router_id 1\n authentication {\n auth_type PASS\n auth_pass 1111\n }\n virtual_ipaddress {\n 192.168.150.100\n }\n}\n\
        vrrp_instance B {\n interface eth0\n virtual_router_id 2\n unicast_peer {\n 192.168.150.21\n }\n virtual_ipaddress {\n 192.168.150.101\n }\n}\n";
    let imported = run(text, None);
    let told = notes(&imported);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("line 5: authentication: is not carried over: "), "{told:#?}");
    assert!(told[1].starts_with("line 16: strict_mode: is not carried over: "), "{told:#?}");
    let model = crate::parse(&imported.toml).unwrap();
    let [a, b] = &model.ha.vrrp[..] else { panic!("{}", imported.toml) };
    assert_eq!((a.strict, a.auth_password.as_deref(), a.accept), (true, None, false));
    assert_eq!((b.strict, b.peers.len(), b.accept), (false, 1, false));
}

#[test]
fn commands_of_an_instance_have_one_user_and_groups_no_ranges_of_ports() {
    let text = "vrrp_instance A {\n interface eth0\n virtual_router_id 1\n virtual_ipaddress {\n 192.168.150.100\n }\n notify_master /bin/m nobody\n notify_backup /bin/b daemon\n}\n\
        virtual_server_group g {\n 192.168.150.102 8000-8010\n}\nvirtual_server group g {\n protocol TCP\n}\n";
    let told = notes(&run(text, None));
    assert_eq!(
        told,
        [
            "line 8: notify_backup: runs as \"nobody\", not as \"daemon\": all commands of an instance have one user",
            "line 11: 192.168.150.102: \"8000-8010\" is no port of 0 to 65535; ranges of addresses there are, of ports not",
        ]
    );
}

#[test]
fn definitions_and_conditions_hold() {
    let text = "$VIP=192.168.150.100\n$CHECK=TCP_CHECK { \\\n connect_timeout 2 \\\n }\n$IF=eth0\n\
        virtual_server ${VIP} 80 {\n protocol TCP\n@a lb_kind DR\n@^a lb_kind NAT\n real_server 192.168.150.12 80 {\n $CHECK\n }\n}\n\
        vrrp_instance A {\n interface $IF\n virtual_router_id 5\n virtual_ipaddress {\n $VIP\n ${NOSUCH}\n }\n}\n";
    let a = run(text, Some("a"));
    assert_eq!(notes(&a), ["line 19: ${NOSUCH}: is no definition that is known here"]);
    let a = crate::parse(&a.toml).unwrap();
    let b = crate::parse(&run(text, Some("b")).toml).unwrap();
    assert_eq!((a.services[0].forwarding, b.services[0].forwarding), (Forwarding::Dr, Forwarding::Nat));
    assert_eq!(a.services[0].checks_of(&a.services[0].servers[0])[0].rhythm.timeout.as_secs(), 2);
    let none = run(text, None);
    assert_eq!(notes(&none)[0], "line 8: @a: is left out: no configuration id was given (--id)");
}

#[test]
fn the_base_comes_first_and_has_its_way() {
    let base = format!("[appliance]\nname = \"mine\"\n\n{BASE}\n[[marks]]\nvalue = 7\nprotocol = \"tcp\"\n");
    let text =
        "global_defs { router_id theirs }\nvirtual_server fwmark 7 {\n real_server 192.168.150.12 {\n }\n}\n";
    let imported = import(text, &Options { base: Some(&base), id: None }, &|_, _| Ok(Vec::new()));
    assert_eq!(notes(&imported), [] as [&str; 0]);
    let model = crate::parse(&imported.toml).unwrap();
    assert_eq!((model.appliance.name.as_str(), model.services.len()), ("mine", 1));
    let alone = import(CLASSIC, &Options::default(), &|_, _| Ok(Vec::new()));
    assert!(
        alone.toml.contains("# [[ports]]\n# name = \"eth0\"\n# device = \"af_packet:eth0\"\n"),
        "{}",
        alone.toml
    );
}

const ROUTER: &str = "vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 51\n virtual_ipaddress {\n 192.168.150.100\n }\n}\n";

#[test]
fn the_sync_daemon_becomes_two_that_follow_the_instance() {
    let text =
        "global_defs {\n lvs_sync_daemon eth9 VI_1 id 7 maxlen 1400 port 8850 ttl 3 group ff02::81\n}\n";
    let follows = model(&(text.to_owned() + ROUTER)).ha.ipvs_sync;
    let wanted = |state, vrrp: Option<&str>| IpvsSync {
        vrrp: vrrp.map(str::to_owned),
        sync_id: 7,
        max_length: 1400,
        port: 8850,
        ttl: 3,
        group: "ff02::81".parse().unwrap(),
        ..IpvsSync::new(state, "eth9".to_owned())
    };
    assert_eq!(follows, IpvsSyncState::ALL.map(|state| wanted(state, Some("VI_1"))));
    // the instance's number is the default, as is the old way to give one
    for (words, id) in [("VI_1", 51), ("inst VI_1", 51), ("VI_1 12", 12), ("id 9", 9), ("", 0)] {
        let text = format!("global_defs {{\n lvs_sync_daemon eth9 {words}\n}}\n{ROUTER}");
        let daemons = model(&text).ha.ipvs_sync;
        let follows = words.contains("VI_1").then_some("VI_1");
        assert_eq!(daemons.len(), 2, "{words}");
        for daemon in daemons {
            assert_eq!(
                (daemon.vrrp.as_deref(), daemon.sync_id, daemon.max_length),
                (follows, id, 1472),
                "{words}"
            );
        }
    }
}

#[test]
fn the_sync_daemon_goes_by_the_kernel_s_way_to_the_network_of_a_port() {
    let daemons = |base: &str, interface: &str| {
        let text = format!("global_defs {{\n lvs_sync_daemon {interface} VI_1\n}}\n{ROUTER}");
        let imported = import(&text, &Options { base: Some(base), id: None }, &|_, _| Ok(Vec::new()));
        let model =
            crate::parse(&imported.toml).unwrap_or_else(|faults| panic!("{faults}\n{}", imported.toml));
        let used = model.ha.ipvs_sync.first().map(|daemon| daemon.interface.clone());
        (used, notes(&imported))
    };
    let tapped = BASE.replacen("device =", "exception = \"tap\"\ndevice =", 1);
    assert_eq!(daemons(BASE, "eth0"), (Some("eth0".to_owned()), vec![]), "both use it");
    assert_eq!(daemons(&tapped, "eth0"), (Some("lb-lan".to_owned()), vec![]));
    let (none, told) = daemons(BASE, "eth1.20");
    assert_eq!((none, told.len()), (None, 1), "{told:?}");
    assert!(
        told[0].starts_with("line 2: lvs_sync_daemon: is left out: \"eth1.20\" is held by port back"),
        "{told:?}"
    );
    let own = format!("{BASE}[[ipvs_sync]]\nstate = \"backup\"\ninterface = \"eth5\"\n");
    let (kept, told) = daemons(&own, "eth9");
    assert_eq!(kept.as_deref(), Some("eth5"));
    assert_eq!(told, ["line 2: lvs_sync_daemon: is left out: [[ipvs_sync]] is there already"]);
}

#[test]
fn of_a_sync_daemon_what_cannot_be_is_told_by_line() {
    let told = |line: &str| {
        let imported = run(&format!("global_defs {{\n{line}\n}}\n{ROUTER}"), None);
        let daemons = crate::parse(&imported.toml).unwrap().ha.ipvs_sync.len();
        (daemons, notes(&imported).join("; "))
    };
    let left_out = "line 2: lvs_sync_daemon: ";
    for (line, daemons, told_of) in [
        ("lvs_sync_daemon", 0, "has no value"),
        ("lvs_sync_daemon eth9 nobody", 0, "is left out: there is no vrrp_instance \"nobody\""),
        ("lvs_sync_daemon an-interface-of-many-bytes", 0, "is left out: interface: "),
        ("lvs_sync_daemon eth9 group 10.0.0.1", 0, "is left out: group: 10.0.0.1 is not a multicast address"),
        ("lvs_sync_daemon eth9 VI_1 id 256", 2, "256 is not 0 to 255"),
        ("lvs_sync_daemon eth9 VI_1 ttl", 2, "has no value"),
        ("lvs_sync_daemon eth9 VI_1 fast", 2, "\"fast\" is none of inst, id, maxlen, port, ttl, group"),
        ("lvs_sync_daemon eth9\nlvs_sync_daemon eth8", 2, "is there already, and there is one only"),
    ] {
        let (count, text) = told(line);
        assert_eq!(count, daemons, "{line}: {text}");
        let line_of = if line.contains('\n') { "line 3: lvs_sync_daemon: " } else { left_out };
        assert!(text.starts_with(&format!("{line_of}{told_of}")), "{line}: {text}");
    }
}

#[test]
fn a_server_at_a_loopback_address_is_the_director_s_kernel() {
    let text = |kind: &str| {
        format!(
            "virtual_server 10.20.0.100 80 {{\n protocol TCP\n lb_kind {kind}\n sorry_server 127.0.0.1 80\n\
             real_server 127.0.0.1 80 {{\n TCP_CHECK {{\n }}\n }}\n real_server 10.20.0.12 80 {{\n TCP_CHECK {{\n }}\n }}\n}}\n\
             virtual_server fd00::100 80 {{\n protocol TCP\n lb_kind {kind}\n sorry_server ::1 8080\n}}\n"
        )
    };
    let tapped = BASE.replace("device =", "exception = \"tap\"\ndevice =");
    let of = |base: &str, text: &str| {
        import(text, &Options { base: Some(base), id: None }, &|_, _| Ok(Vec::new()))
    };
    for (kind, forwarding) in [("DR", Forwarding::Dr), ("NAT", Forwarding::Nat), ("TUN", Forwarding::Dr)] {
        let one = text(kind).replacen(" sorry_server 127.0.0.1 80\n", "", 1);
        let imported = of(&tapped, &one);
        assert_eq!(notes(&imported), [] as [&str; 0], "{kind}");
        let model =
            crate::parse(&imported.toml).unwrap_or_else(|faults| panic!("{faults}\n{}", imported.toml));
        let [four, six] = [&model.services[0], &model.services[1]];
        // of the VIP's own network; the check asks what keepalived's does
        let server = &four.servers[0];
        assert_eq!((server.key().to_string().as_str(), server.forwarding), ("10.20.0.2:80", forwarding));
        assert_eq!(four.checks_of(server)[0].target.to, "127.0.0.1:80".parse().unwrap());
        let sorry = six.health.as_ref().unwrap().sorry_server.unwrap();
        let port = if kind == "NAT" { 8080 } else { 80 };
        assert_eq!(
            (sorry.address, sorry.port, sorry.forwarding),
            ("fd00::11".parse().unwrap(), port, forwarding)
        );
    }
    // the same twice is one too many
    let twice = of(&tapped, &text("DR"));
    assert!(notes(&twice)[0].contains("10.20.0.2:80 is already servers[0]"), "{:?}", notes(&twice));
    let without = of(BASE, &text("DR"));
    let told = notes(&without);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told[0].starts_with(
            "line 4: sorry_server: 127.0.0.1 is a loopback address, that is the director itself"
        )
    );
    assert!(told[2].contains("exception = \"tap\" and an IPv6 address"), "{told:#?}");
    assert!(crate::parse(&without.toml).is_ok());
}

//! Whatever the text, an import ends, panics never, and what it gives is a configuration once the ports are there.

use proptest::prelude::*;

use super::{Options, import};

const PORTS: &str =
    "[[ports]]\nname = \"lan\"\ndevice = \"af_packet:eth0\"\naddresses = [\"10.0.0.1/16\", \"fd00::1/64\"]\n";

fn imported(text: &str) -> super::Imported {
    let options = Options { base: Some(PORTS), id: None };
    import(text, &options, &|_, _| Err("no files".to_owned()))
}

/// Lines that mean something, in blocks that may be wrong for them.
fn line() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "global_defs {",
        "vrrp_instance A {",
        "vrrp_instance B {",
        "vrrp_sync_group G {",
        "vrrp_script s {",
        "vrrp_track_process p {",
        "track_file f {",
        "bfd_instance b {",
        "virtual_server 10.0.0.100 80 {",
        "virtual_server 10.0.0.100 {",
        "virtual_server fwmark 7 {",
        "virtual_server group g {",
        "virtual_server_group g {",
        "real_server 10.0.0.2 80 {",
        "real_server 10.0.0.3 8080 {",
        "real_server fd00::2 80 {",
        "HTTP_GET {",
        "SSL_GET {",
        "url {",
        "TCP_CHECK {",
        "SMTP_CHECK {",
        "DNS_CHECK {",
        "MISC_CHECK {",
        "UDP_CHECK {",
        "PING_CHECK {",
        "FILE_CHECK {",
        "BFD_CHECK {",
        "host {",
        "SSL {",
        "virtual_ipaddress {",
        "unicast_peer {",
        "authentication {",
        "track_script {",
        "track_interface {",
        "group {",
        "notification_email {",
        "}",
        "}",
        "}",
        "} }",
        "interface eth0",
        "virtual_router_id 51",
        "priority",
        "advert_int",
        "version",
        "state MASTER",
        "nopreempt",
        "auth_type PASS",
        "auth_pass",
        "10.0.0.100/24 dev eth0 label x",
        "10.0.0.101",
        "fd00::100",
        "10.0.0.102-110 80",
        "fwmark 7",
        "s weight",
        "eth0 weight",
        "script /bin/true",
        "interval",
        "timeout",
        "process x",
        "file /x",
        "neighbor_ip 10.0.0.9",
        "min_tx",
        "multiplier",
        "weight",
        "quorum",
        "hysteresis",
        "lb_algo",
        "lb_algo sh",
        "lb_kind NAT",
        "lb_kind DR",
        "lb_kind TUN type gue port",
        "protocol TCP",
        "protocol UDP",
        "protocol SCTP",
        "persistence_timeout",
        "persistence_granularity 255.255.255.0",
        "ops",
        "sh-port",
        "alpha",
        "omega",
        "sorry_server 10.0.0.9 80",
        "sorry_server 127.0.0.1 80",
        "lvs_sync_daemon eth0 V id 7",
        "lvs_sync_daemon eth0 ttl",
        "sorry_server",
        "delay_loop",
        "retry",
        "delay_before_retry",
        "connect_timeout",
        "warmup",
        "uthreshold",
        "lthreshold",
        "notify_up \"x y\" u",
        "quorum_up",
        "virtualhost",
        "path",
        "digest",
        "status_code",
        "regex",
        "regex_options caseless",
        "regex_max_offset",
        "misc_path \"x | y\"",
        "misc_timeout",
        "payload",
        "require_reply",
        "min_reply_length",
        "name",
        "type",
        "connect_port",
        "connect_ip",
        "bindto",
        "fwmark",
        "helo_name",
        "smtp_server",
        "router_id",
        "lvs_timeouts tcp",
        "vrrp_version",
        "strict_mode",
        "use_vmac",
        "notify_master",
        "garp_master_delay",
        "$A=1",
        "$B=$A\\\n$A",
        "x ${A} $B ${C}",
        "@x y",
        "@^x y",
        "include /x",
        "~SEQ(a,1) b",
        "script_user",
        "mcast_src_ip",
        "unicast_src_ip",
        "mcast_dst_ip",
        "preempt_delay",
        "10.0.0.7 min_ttl",
    ]);
    let values = prop::sample::select(vec![
        "",
        " 0",
        " 1",
        " 2",
        " 3",
        " 100",
        " 255",
        " 256",
        " 65536",
        " 4294967296",
        " -1",
        " 0.005",
        " 0.0000001",
        " 1e9",
        " 999999999",
        " x",
        " \"a b\"",
        " \"",
        " /a/b",
        " a/b",
        " 10.0.0.1",
        " ff20ad2481f97b1754ef3e12ecd3a9cc",
        " (",
        " é",
        " a@b",
        " 127.0.0.1",
        " 224.0.0.18",
        " on",
        " off",
        " 200-299",
        " \\",
    ]);
    (keys, values).prop_map(|(key, value)| match key.strip_suffix('{') {
        Some(_) => key.to_owned(),
        None => format!("{key}{value}"),
    })
}

fn sound(text: &str) -> Result<(), TestCaseError> {
    let imported = imported(text);
    if let Err(faults) = lb_config_parse(&imported.toml) {
        // The director's own addresses are known to the ports alone; all else was settled.
        for fault in faults.iter() {
            let of_ports = ["network", "port", "own", "reach", "gateway", "connected"];
            prop_assert!(
                of_ports.iter().any(|word| fault.message.contains(word)),
                "{fault}\n{text}\n{}",
                imported.toml
            );
        }
    }
    let lines = text.lines().count().max(1);
    prop_assert!(
        imported.notes.iter().all(|note| note.line <= lines && !note.why.is_empty()),
        "{:?}",
        imported.notes
    );
    Ok(())
}

fn lb_config_parse(text: &str) -> Result<crate::Model, crate::Faults> {
    crate::parse(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_survived(text in "(?s).{0,400}") {
        sound(&text)?;
    }

    #[test]
    fn any_order_of_lines_is_survived(lines in prop::collection::vec(line(), 0..60)) {
        sound(&lines.join("\n"))?;
    }

    #[test]
    fn services_become_a_configuration(lines in prop::collection::vec(line(), 0..30), at in 0usize..3) {
        let open = ["virtual_server 10.0.0.100 80 {\n", "vrrp_instance A {\n", "virtual_server 10.0.0.100 80 {\nreal_server 10.0.0.2 80 {\n"];
        sound(&format!("{}{}", open[at], lines.join("\n")))?;
    }
}

//! `[[ipvs_sync]]`: defaults, faults, differences.

use super::{SMALL, faults_after, small};
use crate::{IpvsSync, IpvsSyncState, diff, parse, to_toml};

const TWO: &str = "[[ipvs_sync]]\nstate = \"backup\"\ninterface = \"eth2\"\n\
                   [[ipvs_sync]]\nstate = \"master\"\ninterface = \"eth3\"\nsync_id = 7\ngroup = \"ff02::81\"\n";

#[test]
fn a_daemon_has_the_defaults_of_linux() {
    let model = parse(&format!("{SMALL}{TWO}")).unwrap();
    let [backup, master] = model.ha.ipvs_sync.as_slice() else { panic!("{:?}", model.ha) };
    assert_eq!(*backup, IpvsSync::new(IpvsSyncState::Backup, "eth2".to_owned()));
    assert_eq!((backup.sync_id, backup.max_length, backup.port, backup.ttl), (0, 1472, 8848, 1));
    assert_eq!(backup.group, std::net::IpAddr::from([224, 0, 0, 81]));
    assert_eq!((master.sync_id, master.max_length), (7, 1452));
    assert_eq!(parse(&to_toml(&model)).as_ref(), Ok(&model));
}

#[test]
fn all_faults_of_a_daemon_are_told() {
    let text = "[[ipvs_sync]]\nstate = \"both\"\ninterface = \"a/b\"\nsync_id = 256\nmax_length = 0\ngroup = \"10.0.0.1\"\n\
                port = 0\nttl = 0\n[[ipvs_sync]]\nstate = \"master\"\n[[ipvs_sync]]\nstate = \"master\"\ninterface = \"\"\n\
                max_length = 65500\ngroup = \"ff02::1\"\n\
                refresh = \"500ms\"\nresync = \"2h\"\n[[ipvs_sync]]\nstate = \"backup\"\ninterface = \"x\"\nrefresh = \"1s\"\n\
                vrrp = \"nobody\"\n";
    let lines = SMALL.lines().count();
    let line = |n: usize| lines + n;
    let told = faults_after(text);
    for wanted in [
        format!("line {}: ipvs_sync[0].state: \"both\" is not one of master, backup", line(2)),
        format!("line {}: ipvs_sync[0].interface: \"a/b\" is not the name of an interface", line(3)),
        format!("line {}: ipvs_sync[0].sync_id: 256 is above the limit 255", line(4)),
        format!("line {}: ipvs_sync[0].max_length: 0 is below the limit 1", line(5)),
        format!("line {}: ipvs_sync[0].group: 10.0.0.1 is not a multicast address", line(6)),
        format!("line {}: ipvs_sync[0].port: 0 is below the limit 1", line(7)),
        format!("line {}: ipvs_sync[0].ttl: 0 is below the limit 1", line(8)),
        "ipvs_sync[1].interface: is missing".to_owned(),
        format!("line {}: ipvs_sync[2].state: \"master\" is already the state of ipvs_sync[", line(12)),
        format!("line {}: ipvs_sync[2].interface: \"\" is not the name of an interface", line(13)),
        format!("line {}: ipvs_sync[2].max_length: 65500 is above the limit 65487 of IPv6", line(14)),
        format!("line {}: ipvs_sync[2].refresh: 500ms is below the limit 1s", line(16)),
        format!("line {}: ipvs_sync[2].resync: 7200s is above the limit 3600s", line(17)),
        format!("line {}: ipvs_sync[3].refresh: is of no use to a backup", line(21)),
        format!("line {}: ipvs_sync[3].vrrp: there is no [[vrrp]] named \"nobody\"", line(22)),
    ] {
        assert!(told.contains(&wanted), "{wanted}\nis not in\n{told}");
    }
    assert_eq!(told.lines().count(), 15, "{told}");
}

#[test]
fn a_change_names_the_daemon() {
    let (old, new) = (small(), parse(&format!("{SMALL}{TWO}")).unwrap());
    let told = |a, b| diff(a, b).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&old, &new), ["+ ipvs_sync backup", "+ ipvs_sync master"]);
    let mut other = new.clone();
    other.ha.ipvs_sync[1].ttl = 3;
    assert_eq!(told(&new, &other), ["~ ipvs_sync master: ttl 1 -> 3"]);
    assert!(diff(&new, &old).iter().all(|change| !change.needs_restart()));
}

#[test]
fn a_daemon_that_follows_an_instance_runs_in_one_of_its_states() {
    let router =
        "[[vrrp]]\nname = \"v\"\nport = \"lan\"\nvrid = 51\nvirtual_addresses = [\"192.168.150.100\"]\n";
    let model =
        parse(&format!("{SMALL}{router}{}", TWO.replace("interface", "vrrp = \"v\"\ninterface"))).unwrap();
    for daemon in &model.ha.ipvs_sync {
        let sends = daemon.state == IpvsSyncState::Master;
        assert_eq!(daemon.vrrp.as_deref(), Some("v"));
        assert_eq!((daemon.runs(|name| name == "v"), daemon.runs(|_| false)), (sends, !sends));
    }
    let always = parse(&format!("{SMALL}{TWO}")).unwrap();
    assert!(always.ha.ipvs_sync.iter().all(|daemon| daemon.runs(|_| true) && daemon.runs(|_| false)));
}

//! `[[sync]]`: faults and secrets.

use super::faults_after;
use crate::{parse, to_toml};

const PEER: &str = "[[sync]]\nname = \"second\"\nlisten = \"192.168.160.1:8849\"\npeer = \"192.168.160.2:8849\"\n\
                    key = \"0123456789abcdef\"\n";

#[test]
fn every_rule_that_is_broken_is_told() {
    // the text begins on line 16
    let told = |from: &str, to: &str| faults_after(&PEER.replace(from, to));
    assert_eq!(told("", ""), "no fault");
    assert_eq!(
        told("\"192.168.160.2:8849\"", "\"192.168.160.2\""),
        "line 19: sync[0].peer: \"192.168.160.2\" is not an address with a port, as in 192.168.150.10:8849 or \
         [fd00::10]:8849"
    );
    assert_eq!(
        told("160.2:8849", "160.2:0"),
        "line 19: sync[0].peer: port 0 is not a port that others can send to"
    );
    assert_eq!(
        told("192.168.160.1:", "224.0.0.81:"),
        "line 18: sync[0].listen: 224.0.0.81 is no address of a station"
    );
    assert_eq!(
        told("192.168.160.2:8849", "[fd00::2]:8849"),
        "line 19: sync[0].peer: [fd00::2]:8849 is of another family than listen = 192.168.160.1:8849"
    );
    assert_eq!(told("160.2", "160.1"), "line 19: sync[0].peer: 192.168.160.1:8849 is listen itself");
    assert_eq!(told("0123456789abcdef", "short"), "line 20: sync[0].key: has 5 bytes, 16 to 64 are allowed");
    assert_eq!(
        told("0123456789abcdef", "hex:0"),
        "line 20: sync[0].key: hex: is not followed by pairs of hexadecimal digits"
    );
    let more = |more: &str| faults_after(&format!("{PEER}{more}"));
    assert_eq!(more("refresh = \"1ms\""), "line 21: sync[0].refresh: 1ms is below the limit 1s");
    assert_eq!(more("hold = \"2h\""), "line 21: sync[0].hold: 7200s is above the limit 600s");
    assert_eq!(
        more(&PEER.replace("second", "third")),
        "line 24: sync[1].peer: 192.168.160.2:8849 is already the peer of sync[0]"
    );
}

#[test]
fn the_key_is_a_secret() {
    let model = parse(&format!("{}\n{PEER}", super::SMALL)).unwrap();
    assert_eq!(parse(&to_toml(&model)).unwrap(), model);
    assert!(model.ha.has_secrets());
    let open = crate::Model { ha: model.ha.clone().without_secrets(), ..model.clone() };
    assert!(!to_toml(&open).contains("0123456789abcdef"));
    let mut other = model.clone();
    other.ha.sync[0].key = "fedcba9876543210".to_owned();
    let changes: Vec<_> = crate::diff(&model, &other).iter().map(ToString::to_string).collect();
    assert!(
        changes.len() == 1 && changes[0].contains("key") && !changes[0].contains("fedcba"),
        "{changes:?}"
    );
}

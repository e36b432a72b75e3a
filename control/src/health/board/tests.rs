//! The board, against a slow model that knows nothing but the rules' words.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const HEAD: &str = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]\n";

fn model(services: &str) -> Model {
    lb_config::parse(&format!("{HEAD}{services}")).unwrap()
}

/// A service over servers 10.0.0.11 and on, with these weights.
fn service(name: &str, vip: u8, health: &str, weights: &[u32]) -> String {
    let mut text = format!(
        "[[services]]\nname = \"{name}\"\nvip = \"10.0.0.{vip}\"\nport = 80\n[services.health]\n{health}\n"
    );
    for (at, weight) in weights.iter().enumerate() {
        text += &format!("[[services.servers]]\naddress = \"10.0.0.{}\"\nweight = {weight}\n", 11 + at);
    }
    text
}

const TCP: &str = "checks = [{ type = \"tcp\" }]";

fn key(at: u8) -> SocketAddr {
    format!("10.0.0.{}:80", 11 + at).parse().unwrap()
}

fn verdict(up: bool) -> Verdict {
    Verdict { up, say: Say::Nothing, why: if up { "fine".into() } else { "broken".into() } }
}

/// The probes of a server.
fn probes(board: &Board, service: &str, at: u8) -> Vec<Arc<ProbeSpec>> {
    board.services[service].servers[&key(at)].checks.iter().map(|check| check.probe.clone()).collect()
}

fn said(board: &mut Board, service: &str, at: u8, check: usize, verdict: Verdict) -> Vec<String> {
    let probe = probes(board, service, at)[check].clone();
    words(board.hear(&probe, verdict))
}

fn words(changes: Vec<Change>) -> Vec<String> {
    let word = |change: Change| {
        let server = change.server.map_or(String::new(), |server| format!(" {server}"));
        let first = if change.first { " (first)" } else { "" };
        format!("{} {}{server}: {}{first}", change.kind.as_str(), change.service, change.reason)
    };
    changes.into_iter().map(word).collect()
}

/// Last byte of the address and weight of each server that the packet path has.
fn running(board: &Board, model: &Model, service: usize) -> Vec<(u8, u32)> {
    let effective = board.effective(model);
    let last = |server: &Server| match server.address {
        std::net::IpAddr::V4(v4) => v4.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    effective.services[service].servers.iter().map(|server| (last(server), server.weight)).collect()
}

#[test]
fn a_new_server_gets_nothing_before_its_first_success() {
    let model = model(&service("web", 100, TCP, &[1, 2]));
    let mut board = Board::default();
    assert_eq!(words(board.configure(&model)), Vec::<String>::new());
    assert_eq!(running(&board, &model, 0), []);
    assert_eq!(
        said(&mut board, "web", 1, 0, verdict(true)),
        ["up web 10.0.0.12:80: fine", "quorum_up web: weight 2 of 1 is up"]
    );
    assert_eq!(running(&board, &model, 0), [(12, 2)]);
    assert_eq!(said(&mut board, "web", 0, 0, verdict(false)), ["down web 10.0.0.11:80: tcp: broken (first)"]);
    assert_eq!(said(&mut board, "web", 0, 0, verdict(true)), ["up web 10.0.0.11:80: fine"]);
    assert_eq!(running(&board, &model, 0), [(11, 1), (12, 2)]);
    assert!(board.effective(&model).services[0].health.is_none(), "the packet path knows nothing of checks");
}

#[test]
fn a_server_may_be_taken_for_up() {
    let model = model(&service("web", 100, &format!("assume = \"up\"\n{TCP}"), &[1, 1]));
    let mut board = Board::default();
    board.configure(&model);
    assert_eq!(running(&board, &model, 0), [(11, 1), (12, 1)]);
    assert_eq!(said(&mut board, "web", 0, 0, verdict(true)), ["up web 10.0.0.11:80: fine (first)"]);
    assert_eq!(said(&mut board, "web", 1, 0, verdict(false)), ["down web 10.0.0.12:80: tcp: broken"]);
    assert_eq!(running(&board, &model, 0), [(11, 1)]);
}

#[test]
fn all_checks_of_a_server_must_pass() {
    let checks = "checks = [{ type = \"tcp\" }, { type = \"ping\" }]";
    let model = model(&service("web", 100, checks, &[1]));
    let mut board = Board::default();
    board.configure(&model);
    assert!(said(&mut board, "web", 0, 0, verdict(true)).is_empty());
    assert_eq!(running(&board, &model, 0), []);
    assert_eq!(said(&mut board, "web", 0, 1, verdict(true)).len(), 2);
    assert_eq!(running(&board, &model, 0), [(11, 1)]);
    let down = said(&mut board, "web", 0, 0, verdict(false));
    assert_eq!(down, ["down web 10.0.0.11:80: tcp: broken", "quorum_down web: weight 0 of 1 is up"]);
    assert!(said(&mut board, "web", 0, 1, verdict(false)).is_empty(), "it is down already");
}

#[test]
fn what_several_ask_alike_is_asked_once() {
    let text = service("a", 100, TCP, &[1, 1])
        + &service("b", 101, TCP, &[1])
        + &service("c", 102, "interval = \"9s\"\nchecks = [{ type = \"tcp\" }]", &[1]);
    let model = model(&text);
    let mut board = Board::default();
    board.configure(&model);
    assert_eq!(board.probes.len(), 3);
    let changes = said(&mut board, "a", 0, 0, verdict(true));
    assert_eq!(changes.len(), 4, "{changes:?}");
    assert_eq!((running(&board, &model, 0), running(&board, &model, 1)), (vec![(11, 1)], vec![(11, 1)]));
    // A service that comes later goes by what is known.
    let more = text + &service("d", 103, TCP, &[5]);
    let model = self::model(&more);
    board.configure(&model);
    assert_eq!(running(&board, &model, 3), [(11, 5)]);
    // And what nobody asks any more is forgotten.
    let model = self::model(&service("c", 102, TCP, &[1]));
    board.configure(&model);
    assert_eq!(board.probes.len(), 1);
}

#[test]
fn a_check_that_is_new_takes_no_server_down_before_it_has_answered() {
    let mut board = Board::default();
    board.configure(&model(&service("web", 100, TCP, &[1, 1])));
    said(&mut board, "web", 0, 0, verdict(true));
    let model = model(&service("web", 100, "checks = [{ type = \"ping\" }]", &[1, 1]));
    assert!(board.configure(&model).is_empty());
    assert_eq!(running(&board, &model, 0), [(11, 1)]);
    assert_eq!(said(&mut board, "web", 0, 0, verdict(false)).len(), 2);
    assert_eq!(running(&board, &model, 0), []);
}

#[test]
fn weights_come_from_checks() {
    let checks = "checks = [{ type = \"tcp\" }, { type = \"ping\" }]";
    let model = model(&service("web", 100, checks, &[10, 0]));
    let mut board = Board::default();
    board.configure(&model);
    let say = |up, say| Verdict { up, say, why: "said".into() };
    for at in 0..2 {
        said(&mut board, "web", at, 0, say(true, Say::Weight(25)));
        said(&mut board, "web", at, 1, say(true, Say::Offset(3)));
    }
    assert_eq!(running(&board, &model, 0), [(11, 28), (12, 0)], "whoever drains by hand means it");
    let changes = said(&mut board, "web", 0, 0, say(true, Say::Weight(7)));
    assert_eq!(changes, ["weight web 10.0.0.11:80: 28 to 10: said"]);
    said(&mut board, "web", 0, 1, say(true, Say::Offset(-100)));
    assert_eq!(running(&board, &model, 0), [(12, 0)], "an offset takes it down");
    said(&mut board, "web", 0, 1, say(true, Say::Offset(i64::MAX)));
    assert_eq!(running(&board, &model, 0), [(11, 65_535), (12, 0)]);
    said(&mut board, "web", 0, 1, say(true, Say::Nothing));
    said(&mut board, "web", 0, 0, say(true, Say::Weight(0)));
    assert_eq!(running(&board, &model, 0), [(11, 0), (12, 0)], "a weight of 0 drains");
}

#[test]
fn a_sorry_server_serves_alone_and_only_without_quorum() {
    for drain in [false, true] {
        let health = format!(
            "quorum = 2\nsorry_server = {{ address = \"10.0.0.99\", weight = 7, drain = {drain} }}\n{TCP}"
        );
        let model = model(&service("web", 100, &health, &[1, 1, 1]));
        let mut board = Board::default();
        board.configure(&model);
        let idle: Vec<(u8, u32)> = if drain { vec![(99, 0)] } else { vec![] };
        assert_eq!(running(&board, &model, 0), [(99, 7)]);
        said(&mut board, "web", 0, 0, verdict(true));
        assert_eq!(running(&board, &model, 0), [(99, 7)], "one of two is no quorum");
        said(&mut board, "web", 1, 0, verdict(true));
        assert_eq!(running(&board, &model, 0), [vec![(11, 1), (12, 1)], idle.clone()].concat());
        said(&mut board, "web", 0, 0, verdict(false));
        assert_eq!(running(&board, &model, 0), [(99, 7)]);
    }
}

#[test]
fn without_a_sorry_server_those_that_are_up_go_on() {
    let model = model(&service("web", 100, &format!("quorum = 3\n{TCP}"), &[1, 1, 1]));
    let mut board = Board::default();
    board.configure(&model);
    for at in 0..3 {
        said(&mut board, "web", at, 0, verdict(true));
    }
    let down = said(&mut board, "web", 0, 0, verdict(false));
    assert_eq!(down[1], "quorum_down web: weight 2 of 3 is up");
    assert_eq!(running(&board, &model, 0), [(12, 1), (13, 1)]);
}

#[test]
fn a_failed_server_drains_where_that_is_wanted() {
    let model = model(&service("web", 100, &format!("on_failure = \"drain\"\n{TCP}"), &[3, 4]));
    let mut board = Board::default();
    board.configure(&model);
    assert_eq!(running(&board, &model, 0), [(11, 0), (12, 0)]);
    said(&mut board, "web", 1, 0, verdict(true));
    assert_eq!(running(&board, &model, 0), [(11, 0), (12, 4)]);
}

#[test]
fn a_server_without_checks_is_always_up() {
    let text = service("web", 100, &format!("quorum = 5\n{TCP}"), &[1, 5])
        + "[services.servers.health]\nchecks = []\n";
    let model = model(&text);
    let mut board = Board::default();
    board.configure(&model);
    assert_eq!(running(&board, &model, 0), [(12, 5)]);
    assert!(board.services["web"].quorum_up);
}

/// The rules in words: what keepalived's page says, with the whole past at hand.
fn slow_quorum(past: &[u64], quorum: u64, hysteresis: u64) -> bool {
    // The last moment at which the weight was in one of the two outer zones decides; in between nothing changes.
    for live in past.iter().rev() {
        if *live >= quorum + hysteresis {
            return true;
        }
        if *live == 0 || *live < quorum - hysteresis {
            return false;
        }
    }
    // Never outside: as at the start.
    true
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quorums_are_as_the_slow_model_says(
        weights in vec(0..6_u32, 1..6),
        quorum in 1..12_u32,
        hysteresis in 0..12_u32,
        sorry in any::<bool>(),
        drain in any::<bool>(),
        steps in vec((any::<prop::sample::Index>(), any::<bool>()), 0..40),
    ) {
        let hysteresis = hysteresis % quorum;
        let sorry_server = if sorry { "sorry_server = { address = \"10.0.0.99\" }\n" } else { "" };
        let on_failure = if drain { "on_failure = \"drain\"\n" } else { "" };
        let health = format!("quorum = {quorum}\nhysteresis = {hysteresis}\n{on_failure}{sorry_server}{TCP}");
        let model = model(&service("web", 100, &health, &weights));
        let mut board = Board::default();
        board.configure(&model);
        let mut up = vec![false; weights.len()];
        let mut past = vec![0];
        for (index, good) in steps {
            let at = index.index(weights.len());
            let was = board.services["web"].quorum_up;
            let changes = said(&mut board, "web", at as u8, 0, verdict(good));
            up[at] = good;
            let live = |(weight, up): (&u32, &bool)| if *up { u64::from(*weight) } else { 0 };
            past.push(weights.iter().zip(&up).map(live).sum());
            let want = slow_quorum(&past, quorum.into(), hysteresis.into());
            prop_assert_eq!(board.services["web"].quorum_up, want);
            prop_assert_eq!(changes.iter().any(|c| c.starts_with("quorum")), was != want);
            let mut servers = Vec::new();
            for (at, weight) in weights.iter().enumerate() {
                match (up[at] && (want || !sorry), drain) {
                    (true, _) => servers.push((11 + at as u8, *weight)),
                    (false, true) => servers.push((11 + at as u8, 0)),
                    (false, false) => {}
                }
            }
            if sorry && !want {
                servers.push((99, 1));
            }
            prop_assert_eq!(running(&board, &model, 0), servers);
            // Another board that is told everything at once, and a reconfiguration, come to the same servers.
            let mut again = board.clone();
            prop_assert!(again.configure(&model).is_empty());
            prop_assert_eq!(running(&again, &model, 0), running(&board, &model, 0));
        }
    }
}

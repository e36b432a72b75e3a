use super::*;
use crate::bfd::SessionState;
use crate::lease::SeatState;
use crate::vrrp::plan::{Exit, InstancePlan, SessionPlan};
use lb_config::{Bfd, Track, VirtualAddress, Vrrp, VrrpGroup, VrrpNotify, VrrpPeer, VrrpScript, VrrpVersion};
use lb_dataplane::neighbor::LinkId;
use lb_dataplane::owner::{OwnerCells, OwnerId};
use std::sync::Arc;
use std::time::Duration;

const MS: u64 = 1_000_000;

fn exit(last: u8) -> Exit {
    let wire = lb_dataplane::wire::Link { mac: [2, 0, 0, 0, 0, last], vlan: 0 };
    Exit { link: LinkId(0), device: DeviceId(0), wire }
}

/// A virtual router of director `last`: 10.0.0.`last`.
fn vrrp(name: &str, vrid: u8, priority: u8) -> Vrrp {
    Vrrp {
        name: name.to_owned(),
        port: "lan".to_owned(),
        vrid,
        priority,
        advert_interval: Duration::from_millis(100),
        virtual_addresses: vec![VirtualAddress { address: [10, 0, 1, vrid].into(), port: None }],
        ..Vrrp::default()
    }
}

fn instance(vrrp: Vrrp, last: u8, owner: u16) -> InstancePlan {
    let targets = vrrp.peers.iter().map(|peer| Target { address: peer.address, neighbor: None });
    InstancePlan {
        owner: OwnerId(owner),
        exit: exit(last),
        source: [10, 0, 0, last].into(),
        group: [224, 0, 0, 18].into(),
        targets: targets.collect(),
        addresses: vrrp.addresses().map(|vip| (vip.address, exit(last))).collect(),
        tenure: None,
        vrrp,
    }
}

fn plan(last: u8, instances: Vec<Vrrp>) -> Plan {
    let instances = instances.into_iter().enumerate();
    Plan {
        instances: instances.map(|(at, vrrp)| instance(vrrp, last, at as u16)).collect(),
        ports: vec!["lan".to_owned()],
        cells: Arc::new(OwnerCells::default()),
        ..Plan::default()
    }
}

fn session(last: u8, other: u8) -> SessionPlan {
    let bfd = Bfd { name: "peer".to_owned(), neighbor: [10, 0, 0, other].into(), ..Bfd::default() };
    let target = Target { address: bfd.neighbor, neighbor: None };
    SessionPlan { bfd, exit: exit(last), source: [10, 0, 0, last].into(), target }
}

/// Directors on a wire, looked at every millisecond.
struct Wire {
    engines: Vec<Engine>,
    cut: Vec<bool>,
    now: u64,
    /// Frames so far, with their senders.
    frames: Vec<(usize, Vec<u8>)>,
}

fn now(ns: u64) -> Now {
    Now { mono_ns: ns, wall_ns: 1_700_000_000_000_000_000 + ns }
}

impl Wire {
    fn new(plans: Vec<Plan>) -> Self {
        let mut engines = Vec::new();
        for (at, plan) in plans.into_iter().enumerate() {
            let mut engine = Engine::new();
            engine.update(now(0), plan);
            // as if they had met before: stations are else learned from adverts
            for other in 1..=9 {
                engine.stations.insert([10, 0, 0, other].into(), [2, 0, 0, 0, 0, other]);
            }
            let _ = at;
            engines.push(engine);
        }
        Self { cut: vec![false; engines.len()], engines, now: 0, frames: Vec::new() }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += MS;
            self.engines.iter_mut().for_each(|engine| engine.tick(now(self.now)));
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        for _ in 0..4 {
            for at in 0..self.engines.len() {
                let outbox = self.engines[at].outbox();
                let frames: Vec<_> = outbox.urgent.drain(..).chain(outbox.announcements.drain(..)).collect();
                for (_, frame) in frames {
                    for other in (0..self.engines.len()).filter(|other| *other != at) {
                        let reaches = frame[0] & 1 == 1 || usize::from(frame[5]) == other + 1;
                        if reaches && !self.cut[at] && !self.cut[other] {
                            let bytes = frame.iter().copied().collect();
                            let frame =
                                ControlFrame { link: LinkId(0), device: DeviceId(0), l3: 14, frame: bytes };
                            self.engines[other].receive(now(self.now), &frame);
                        }
                    }
                    self.frames.push((at, frame));
                }
            }
        }
    }

    /// The same while director `at` does nothing; gives the frames that came for it.
    fn sleep(&mut self, at: usize, ms: u64) -> Vec<ControlFrame> {
        let mut waiting = Vec::new();
        self.cut[at] = true;
        for _ in 0..ms {
            self.now += MS;
            let others = (0..self.engines.len()).filter(|other| *other != at);
            others.for_each(|other| self.engines[other].tick(now(self.now)));
            let sent = self.frames.len();
            self.deliver();
            let comes = |frame: &[u8]| frame[0] & 1 == 1 || usize::from(frame[5]) == at + 1;
            let frames = self.frames[sent..].iter().filter(|(_, frame)| comes(frame));
            waiting.extend(frames.map(|(_, frame)| ControlFrame {
                link: LinkId(0),
                device: DeviceId(0),
                l3: 14,
                frame: frame.iter().copied().collect(),
            }));
        }
        self.cut[at] = false;
        waiting
    }

    fn states(&self, name: &str) -> Vec<State> {
        self.engines.iter().map(|engine| engine.state(name).unwrap()).collect()
    }
}

use State::{Backup, Fault, Master};

#[test]
fn two_directors_share_a_vip_and_the_bit_says_who_has_it() {
    for version in [VrrpVersion::V2, VrrpVersion::V3] {
        let of = |priority| {
            let interval = Duration::from_millis(if version == VrrpVersion::V2 { 1000 } else { 100 });
            let auth_password = (version == VrrpVersion::V2).then(|| "secret".to_owned());
            vec![Vrrp { version, advert_interval: interval, auth_password, ..vrrp("a", 7, priority) }]
        };
        let mut wire = Wire::new(vec![plan(1, of(100)), plan(2, of(50))]);
        assert_eq!(wire.states("a"), [Backup, Backup]);
        wire.run(4_500);
        assert_eq!(wire.states("a"), [Master, Backup]);
        let bits =
            |wire: &Wire| wire.engines.iter().map(|e| e.plan.cells.is_master(OwnerId(0))).collect::<Vec<_>>();
        assert_eq!(bits(&wire), [true, false]);
        let garps = |wire: &Wire, from| {
            wire.frames.iter().filter(|(at, frame)| *at == from && frame[12..14] == [8, 6]).count()
        };
        assert_eq!(garps(&wire, 0), 5, "of five now and five in five seconds");
        wire.engines[0].stop(now(wire.now));
        wire.deliver();
        wire.run(900);
        assert_eq!(wire.engines[1].state("a"), Some(Master), "within a skew of a good-bye");
        assert_eq!(bits(&wire), [false, true]);
        assert_eq!(garps(&wire, 1), 5);
        wire.run(5_000);
        assert_eq!(garps(&wire, 1), 10);
    }
}

#[test]
fn a_cut_gives_two_masters_and_the_end_of_it_one() {
    let mut wire = Wire::new(vec![plan(1, vec![vrrp("a", 7, 100)]), plan(2, vec![vrrp("a", 7, 100)])]);
    wire.run(1_000);
    wire.cut[0] = true;
    wire.run(1_000);
    assert_eq!(wire.states("a"), [Master, Master]);
    wire.cut[0] = false;
    wire.run(150);
    assert_eq!(wire.states("a"), [Backup, Master], "the higher address has it");
}

#[test]
fn a_group_changes_as_one() {
    let with = |last, priority| {
        let instances = vec!["a".to_owned(), "b".to_owned()];
        let mut own = plan(last, vec![vrrp("a", 7, priority), vrrp("b", 8, priority)]);
        let any = vec!["/bin/told".to_owned()];
        let notify = VrrpNotify { any, stop: vec!["/bin/stop".to_owned()], ..VrrpNotify::default() };
        own.groups.push(VrrpGroup { name: "g".to_owned(), instances, notify, ..VrrpGroup::default() });
        own
    };
    let mut wire = Wire::new(vec![with(1, 100), with(2, 50)]);
    wire.run(1_000);
    assert_eq!((wire.states("a"), wire.states("b")), (vec![Master, Backup], vec![Master, Backup]));
    let told: Vec<_> = wire.engines[0].out.programs.drain(..).map(|p| p.command.join(" ")).collect();
    assert_eq!(told, ["/bin/told GROUP g BACKUP 100", "/bin/told GROUP g MASTER 100"]);
    let mut ended = Wire::new(vec![with(1, 100)]);
    ended.run(1_000);
    ended.engines[0].out.programs.clear();
    ended.engines[0].stop(now(ended.now));
    let told: Vec<_> = ended.engines[0].out.programs.drain(..).map(|p| p.command.join(" ")).collect();
    assert_eq!(told, ["/bin/stop", "/bin/told GROUP g STOP 100"], "once, after its instances");
    // one of them fails: both do
    let mut failing = with(1, 100);
    let script = VrrpScript { name: "s".to_owned(), init_fail: true, ..VrrpScript::default() };
    failing.instances[1].vrrp.track =
        vec![Track { what: Tracked::Script("s".to_owned()), weight: Some(0), reverse: false }];
    failing.scripts.push(script);
    wire.engines[0].update(now(wire.now), failing);
    wire.run(400);
    assert_eq!((wire.states("a"), wire.states("b")), (vec![Fault, Master], vec![Fault, Master]));
    let up = Standing { up: true, number: 0 };
    wire.engines[0].tracked(now(wire.now), Tracked::Script("s".to_owned()), up);
    wire.run(1_000);
    assert_eq!((wire.states("a"), wire.states("b")), (vec![Master, Backup], vec![Master, Backup]));
}

fn news(wire: &mut Wire, at: usize) -> Vec<String> {
    wire.engines[at].out.news.drain(..).map(|news| news.text).collect()
}

fn shown(wire: &Wire, at: usize) -> String {
    wire.engines[at].status(now(wire.now)).instances[0].why.clone()
}

#[test]
fn a_change_of_state_is_told_with_its_reason() {
    let of = |last, priority| plan(last, vec![vrrp("a", 7, priority)]);
    let mut wire = Wire::new(vec![of(1, 100), of(2, 50)]);
    wire.run(1_000);
    let began = [
        "instance a: backup, priority 100: configured",
        "instance a: master, priority 100: no advert for 361 ms",
    ];
    assert_eq!(news(&mut wire, 0), began);
    assert_eq!((shown(&wire, 0).as_str(), shown(&wire, 1).as_str()), ("no advert for 361 ms", "configured"));
    // it falls behind the other one, and comes before it again
    wire.engines[0].update(now(wire.now), of(1, 20));
    wire.run(1_000);
    assert_eq!(
        news(&mut wire, 0),
        ["instance a: backup, priority 20: preempted by 10.0.0.2 with priority 50"]
    );
    assert_eq!(shown(&wire, 1), "higher priority than 10.0.0.1's 20");
    // the port, which is over then
    news(&mut wire, 1);
    for up in [false, true] {
        wire.engines[1].tracked(now(wire.now), Tracked::Port("lan".to_owned()), Standing { up, number: 0 });
    }
    assert_eq!(
        news(&mut wire, 1),
        [
            "instance a: fault, priority 50: port lan is down",
            "instance a: backup, priority 50: the fault is over (port lan is down)"
        ]
    );
    wire.run(1_000);
    assert_eq!(shown(&wire, 1), "higher priority than 10.0.0.1's 20");
    news(&mut wire, 0);
    wire.engines[1].stop(now(wire.now));
    wire.run(200);
    assert_eq!(news(&mut wire, 0), ["instance a: master, priority 20: 10.0.0.2, the master, said good-bye"]);
    // of two alike the higher address comes first
    let mut wire = Wire::new(vec![of(1, 100), of(2, 100)]);
    wire.cut[1] = true;
    wire.run(1_000);
    wire.cut[1] = false;
    wire.run(200);
    assert_eq!(shown(&wire, 0), "10.0.0.2 has priority 100 too and the higher address");
}

#[test]
fn the_end_of_a_bfd_session_and_a_long_rest_are_reasons() {
    let mut wire = Wire::new(vec![with_bfd(1, 2, 100), with_bfd(2, 1, 50)]);
    wire.run(6_000);
    wire.sleep(0, 35);
    assert_eq!(shown(&wire, 1), "bfd session peer: detection time expired");
    wire.engines[0].tick(now(wire.now));
    let reason = shown(&wire, 0);
    assert!(
        reason.starts_with("held up for 3") && reason.ends_with(" ms: asks the others first"),
        "{reason}"
    );
}

#[test]
fn a_group_tells_which_of_its_instances_is_the_reason() {
    let with = |last, priority, tracked: bool| {
        let instances = vec!["a".to_owned(), "b".to_owned()];
        let mut own = plan(last, vec![vrrp("a", 7, priority), vrrp("b", 8, priority)]);
        own.groups.push(VrrpGroup { name: "g".to_owned(), instances, ..VrrpGroup::default() });
        if tracked {
            let script = VrrpScript { name: "s".to_owned(), init_fail: true, ..VrrpScript::default() };
            own.instances[1].vrrp.track =
                vec![Track { what: Tracked::Script("s".to_owned()), weight: Some(0), reverse: false }];
            own.scripts.push(script);
        }
        own
    };
    let mut wire = Wire::new(vec![with(1, 100, false), with(2, 50, false)]);
    wire.run(1_000);
    let told = news(&mut wire, 0);
    assert_eq!(told.last().unwrap(), "group g: master: a: no advert for 361 ms", "{told:?}");
    wire.engines[0].update(now(wire.now), with(1, 100, true));
    let wanted = [
        "instance a: fault, priority 100: sync group g: b: script s failed",
        "instance b: fault, priority 100: script s failed",
        "group g: fault: b: script s failed",
    ];
    assert_eq!(news(&mut wire, 0), wanted);
    wire.run(1_000);
    // both timers of the other director ran out, or one of them and its group
    assert_eq!(wire.states("b"), [Fault, Master]);
    wire.engines[1].update(now(wire.now), with(2, 50, false));
    news(&mut wire, 1);
    let a = wire.engines[1].instances[0].machine.clone();
    assert_eq!(a.state(), Master);
    wire.engines[1].run(
        now(wire.now),
        [(
            0,
            Event::Advert(crate::vrrp::machine::Heard {
                source: [10, 0, 0, 9].into(),
                priority: 200,
                interval_ns: 100 * MS,
            }),
        )],
    );
    let wanted = [
        "instance a: backup, priority 50: preempted by 10.0.0.9 with priority 200",
        "instance b: backup, priority 50: sync group g: a: preempted by 10.0.0.9 with priority 200",
        "group g: backup: a: preempted by 10.0.0.9 with priority 200",
    ];
    assert_eq!(news(&mut wire, 1), wanted);
}

#[test]
fn what_is_tracked_changes_priorities_or_is_a_fault() {
    let track = |what: Tracked, weight, reverse| Track { what, weight: Some(weight), reverse };
    let script = || Tracked::Script("s".to_owned());
    let cases: Vec<(Track, Standing, State, u8)> = vec![
        (track(script(), 20, false), Standing { up: true, number: 0 }, Master, 120),
        (track(script(), 20, false), Standing { up: false, number: 0 }, Master, 100),
        (track(script(), -20, false), Standing { up: true, number: 0 }, Master, 100),
        (track(script(), -20, false), Standing { up: false, number: 0 }, Master, 80),
        (track(script(), -254, false), Standing { up: false, number: 0 }, Master, 1),
        (track(script(), 20, true), Standing { up: false, number: 0 }, Master, 120),
        (track(script(), 0, false), Standing { up: false, number: 0 }, Fault, 100),
        (track(script(), 0, true), Standing { up: true, number: 0 }, Fault, 100),
        (track(Tracked::File("f".to_owned()), 2, false), Standing { up: true, number: -30 }, Master, 40),
        (track(Tracked::File("f".to_owned()), 2, true), Standing { up: true, number: -30 }, Master, 160),
        (track(Tracked::File("f".to_owned()), 0, false), Standing { up: true, number: 1 }, Fault, 100),
        (track(Tracked::Port("wan".to_owned()), 0, false), Standing { up: false, number: 0 }, Fault, 100),
        (track(Tracked::Process("p".to_owned()), -7, false), Standing { up: false, number: 0 }, Master, 93),
    ];
    for (track, standing, state, priority) in cases {
        let mut wire =
            Wire::new(vec![plan(1, vec![Vrrp { track: vec![track.clone()], ..vrrp("a", 7, 100) }])]);
        // as far as the engine looks after them
        wire.engines[0].plan.scripts = vec![VrrpScript { name: "s".to_owned(), ..VrrpScript::default() }];
        wire.run(500);
        wire.engines[0].tracked(now(wire.now), track.what.clone(), standing);
        wire.run(1);
        let machine = &wire.engines[0].instances[0].machine;
        assert_eq!((machine.state(), machine.priority()), (state, priority), "{track:?} {standing:?}");
        let status = wire.engines[0].status(now(wire.now));
        assert_eq!(status.instances[0].state, state.as_str());
        assert_eq!(status.instances[0].tracked.len(), 2);
    }
}

#[test]
fn a_priority_is_told_after_the_first_state() {
    let any = vec!["/bin/told".to_owned()];
    let notify = VrrpNotify { any, priority_changes: true, ..VrrpNotify::default() };
    let track = vec![Track { what: Tracked::Script("s".to_owned()), weight: Some(4), reverse: false }];
    let mut own = plan(1, vec![Vrrp { notify, track, ..vrrp("a", 7, 100) }]);
    own.scripts = vec![VrrpScript { name: "s".to_owned(), ..VrrpScript::default() }];
    let mut wire = Wire::new(vec![own]);
    let told = |wire: &mut Wire| -> Vec<_> {
        wire.engines[0].out.programs.drain(..).map(|program| program.command.join(" ")).collect()
    };
    assert_eq!(told(&mut wire), ["/bin/told INSTANCE a BACKUP 104"]);
    wire.engines[0].tracked(
        now(wire.now),
        Tracked::Script("s".to_owned()),
        Standing { up: false, number: 0 },
    );
    assert_eq!(told(&mut wire), ["/bin/told INSTANCE a BACKUP 100"]);
}

#[test]
fn processes_and_files_are_looked_at_before_the_first_state() {
    let cases = [
        (Tracked::Process("p".to_owned()), 4, Standing { up: false, number: 0 }, Backup, 100),
        (Tracked::Process("p".to_owned()), 4, Standing { up: true, number: 0 }, Backup, 104),
        (Tracked::Process("p".to_owned()), 0, Standing { up: false, number: 0 }, Fault, 100),
        (Tracked::File("f".to_owned()), 2, Standing { up: true, number: -30 }, Backup, 40),
        (Tracked::File("f".to_owned()), 0, Standing { up: true, number: 1 }, Fault, 100),
    ];
    for (what, weight, standing, state, priority) in cases {
        let any = vec!["/bin/told".to_owned()];
        let notify = VrrpNotify { any, priority_changes: true, ..VrrpNotify::default() };
        let track = vec![Track { what: what.clone(), weight: Some(weight), reverse: false }];
        let mut own = plan(1, vec![Vrrp { notify, track, ..vrrp("a", 7, 100) }]);
        own.processes = vec![lb_config::VrrpProcess { name: "p".to_owned(), ..Default::default() }];
        own.files = vec![lb_config::VrrpFile { name: "f".to_owned(), ..Default::default() }];
        let mut wire = Wire::new(vec![own]);
        wire.run(10);
        assert_eq!(wire.states("a"), [State::Init], "{what:?}");
        let waits = format!("{} {} has not been looked at yet", what.kind(), what.name());
        assert_eq!(shown(&wire, 0), waits);
        wire.engines[0].tracked(now(wire.now), what.clone(), standing);
        let told: Vec<_> = wire.engines[0].out.programs.drain(..).map(|p| p.command.join(" ")).collect();
        let wanted = format!("/bin/told INSTANCE a {} {priority}", state.word());
        assert_eq!(told, [wanted], "{what:?} {standing:?}");
    }
}

#[test]
fn a_link_that_goes_down_takes_the_instance_with_it() {
    let mut wire = Wire::new(vec![plan(1, vec![vrrp("a", 7, 255)])]);
    assert_eq!(wire.states("a"), [Master], "an owner waits for nobody");
    let down = Standing { up: false, number: 0 };
    wire.engines[0].tracked(now(wire.now), Tracked::Port("lan".to_owned()), down);
    assert_eq!(wire.states("a"), [Fault]);
    assert!(!wire.engines[0].plan.cells.is_master(OwnerId(0)));
    let untracked = Vrrp { track_port: false, ..vrrp("a", 7, 255) };
    let mut wire = Wire::new(vec![plan(1, vec![untracked])]);
    wire.engines[0].tracked(now(wire.now), Tracked::Port("lan".to_owned()), down);
    assert_eq!(wire.states("a"), [Master]);
}

#[test]
fn unicast_goes_to_peers_and_comes_from_them_alone() {
    let of = |priority, peer: u8| {
        let peer = VrrpPeer { address: [10, 0, 0, peer].into(), min_ttl: 200, max_ttl: 255 };
        vec![Vrrp { peers: vec![peer], ..vrrp("a", 7, priority) }]
    };
    let mut wire = Wire::new(vec![plan(1, of(100, 2)), plan(2, of(50, 1)), plan(3, of(200, 1))]);
    wire.run(1_000);
    // director 3 speaks to 1, who does not know it
    assert_eq!(wire.states("a"), [Master, Backup, Master]);
    assert!(wire.engines[0].instances[0].refused["peer"] > 5);
    let far = |priority, peer: u8| vec![Vrrp { unicast_ttl: 199, ..of(priority, peer).remove(0) }];
    let mut wire = Wire::new(vec![plan(1, of(100, 2)), plan(2, far(150, 1))]);
    wire.run(1_000);
    assert!(wire.engines[0].instances[0].refused["ttl"] > 5);
}

#[test]
fn adverts_that_do_not_fit_are_dropped_for_a_named_reason() {
    let v2 = |vrrp: Vrrp| Vrrp { version: VrrpVersion::V2, advert_interval: Duration::from_secs(1), ..vrrp };
    let other = |vip| vec![VirtualAddress { address: [10, 0, 1, vip].into(), port: None }];
    let cases: Vec<(&str, Vrrp, Vrrp)> = vec![
        ("version", vrrp("a", 7, 100), v2(vrrp("a", 7, 50))),
        (
            "authentication",
            v2(vrrp("a", 7, 100)),
            Vrrp { auth_password: Some("x".to_owned()), ..v2(vrrp("a", 7, 50)) },
        ),
        (
            "interval",
            v2(vrrp("a", 7, 100)),
            Vrrp { advert_interval: Duration::from_secs(2), ..v2(vrrp("a", 7, 50)) },
        ),
        ("addresses", Vrrp { virtual_addresses: other(9), ..vrrp("a", 7, 100) }, vrrp("a", 7, 50)),
        (
            "hmac",
            vrrp("a", 7, 100),
            Vrrp { hmac: Some(hmac(1, lb_config::HmacMode::Enforce)), ..vrrp("a", 7, 50) },
        ),
        (
            "length",
            Vrrp { hmac: Some(hmac(1, lb_config::HmacMode::Enforce)), ..vrrp("a", 7, 100) },
            vrrp("a", 7, 50),
        ),
    ];
    for (reason, one, two) in cases {
        let mut wire = Wire::new(vec![plan(1, vec![one]), plan(2, vec![two])]);
        wire.run(9_000);
        assert!(wire.engines[1].instances[0].refused.get(reason).is_some_and(|n| *n > 0), "{reason}");
        assert_eq!(wire.engines[1].instances[0].heard, 0, "{reason}");
    }
    let all = Vrrp { check_addresses: false, ..vrrp("a", 7, 50) };
    let mut wire = Wire::new(vec![
        plan(1, vec![Vrrp { virtual_addresses: other(9), ..vrrp("a", 7, 100) }]),
        plan(2, vec![all]),
    ]);
    wire.run(1_000);
    assert_eq!(wire.states("a"), [Master, Backup]);
}

fn hmac(active: u8, mode: lb_config::HmacMode) -> lb_config::VrrpHmac {
    let key = |id: u8| lb_config::HmacKey { id, key: format!("key number {id}........") };
    lb_config::VrrpHmac { active, mode, window: Duration::from_secs(1), keys: vec![key(1), key(2)] }
}

#[test]
fn hmac_is_enforced_rolled_over_and_not_replayed() {
    use lb_config::HmacMode::{Enforce, Permissive, ReceiveOnly};
    let of = |priority, active, mode| vec![Vrrp { hmac: Some(hmac(active, mode)), ..vrrp("a", 7, priority) }];
    // different active keys, both known
    let mut wire = Wire::new(vec![plan(1, of(100, 1, Enforce)), plan(2, of(50, 2, Enforce))]);
    wire.run(1_000);
    assert_eq!(wire.states("a"), [Master, Backup]);
    // an old advert of the master's comes again
    let (_, old) =
        wire.frames.iter().rfind(|(at, frame)| *at == 0 && frame[12..14] == [8, 0]).unwrap().clone();
    let bytes = old.iter().copied().collect();
    let frame = ControlFrame { link: LinkId(0), device: DeviceId(0), l3: 14, frame: bytes };
    wire.engines[1].receive(now(wire.now), &frame);
    assert_eq!(wire.engines[1].instances[0].refused["hmac_replay"], 1);
    wire.engines[1].receive(now(wire.now + 5_000 * MS), &frame);
    assert_eq!(wire.engines[1].instances[0].refused["hmac_time"], 1);
    // introduced without a break: first receive-only, then permissive
    let mut wire = Wire::new(vec![plan(1, of(100, 1, Permissive)), plan(2, of(50, 1, ReceiveOnly))]);
    wire.run(1_000);
    assert_eq!(wire.states("a"), [Master, Backup]);
    assert_eq!(wire.engines[1].instances[0].refused.len(), 0);
}

/// A plan with one virtual router that adverts once in a second, and a session of BFD with director `other`.
fn with_bfd(last: u8, other: u8, priority: u8) -> Plan {
    let takeover_bfd = vec!["peer".to_owned()];
    let slow = Duration::from_secs(1);
    let mut own = plan(last, vec![Vrrp { takeover_bfd, advert_interval: slow, ..vrrp("a", 7, priority) }]);
    own.sessions.push(session(last, other));
    own
}

#[test]
fn a_lost_bfd_session_is_a_take_over_within_its_detection_time() {
    let of = with_bfd;
    let mut wire = Wire::new(vec![of(1, 2, 100), of(2, 1, 50)]);
    wire.run(6_000);
    assert_eq!(wire.states("a"), [Master, Backup]);
    assert_eq!(wire.engines[1].sessions[0].session.state(), SessionState::Up);
    wire.cut[0] = true;
    let mut ms = 0;
    while wire.engines[1].state("a") == Some(Backup) {
        wire.run(1);
        ms += 1;
    }
    assert!(ms <= 32, "{ms} ms with 3 x 10 ms");
    wire.cut[0] = false;
    wire.run(3_000);
    assert_eq!(wire.states("a"), [Master, Backup]);
    // who ends says so
    wire.engines[0].stop(now(wire.now));
    wire.deliver();
    wire.run(2);
    assert_eq!(wire.engines[1].state("a"), Some(Master));
}

#[test]
fn a_change_of_the_configuration_keeps_what_stays() {
    let mut wire = Wire::new(vec![plan(1, vec![vrrp("a", 7, 100), vrrp("b", 8, 100)])]);
    wire.run(1_000);
    let cells = wire.engines[0].plan.cells.clone();
    let sent = wire.frames.len();
    let more = VirtualAddress { address: [10, 0, 1, 99].into(), port: None };
    let mut changed = vrrp("a", 7, 90);
    changed.excluded_addresses.push(more);
    let deleted = vec!["/bin/deleted".to_owned()];
    wire.engines[0].instances[1].plan.vrrp.notify.deleted = deleted.clone();
    wire.engines[0].update(now(wire.now), Plan { cells: cells.clone(), ..plan(1, vec![changed]) });
    wire.deliver();
    assert_eq!(wire.engines[0].state("a"), Some(Master), "without a break");
    assert_eq!(wire.engines[0].instances[0].machine.priority(), 90);
    assert_eq!((cells.is_master(OwnerId(0)), cells.is_master(OwnerId(1))), (true, false));
    let after = &wire.frames[sent..];
    assert_eq!(after.iter().filter(|(_, frame)| frame[12..14] == [8, 6]).count(), 5, "the new address");
    let byes = after.iter().filter(|(_, frame)| frame[12..14] == [8, 0] && frame[36] == 0).count();
    assert_eq!(byes, 1, "good-bye of the one that is gone");
    assert_eq!(wire.engines[0].out.programs, [Program { command: deleted, user: None }]);
}

/// Which of the directors have the addresses of virtual router `owner`.
fn here(wire: &Wire, owner: u16) -> Vec<bool> {
    wire.engines.iter().map(|engine| engine.plan.cells.is_master(OwnerId(owner))).collect()
}

#[test]
fn a_master_that_is_preempted_lets_go_before_the_next_one_answers() {
    let hmac = Some(hmac(1, lb_config::HmacMode::Enforce));
    let of = |last, priority| {
        let with = |name, vrid| Vrrp {
            hmac: hmac.clone(),
            higher_prio_send_advert: true,
            ..vrrp(name, vrid, priority)
        };
        let instances = vec!["a".to_owned(), "b".to_owned()];
        let mut own = plan(last, vec![with("a", 7), with("b", 8)]);
        own.groups.push(VrrpGroup { name: "g".to_owned(), instances, ..VrrpGroup::default() });
        own
    };
    let mut wire = Wire::new(vec![of(1, 50), of(2, 100), of(3, 40)]);
    wire.cut[1] = true;
    wire.run(1_000);
    wire.cut[1] = false;
    wire.engines[1].update(now(wire.now), Plan::default());
    wire.engines[1].update(now(wire.now), of(2, 100));
    let (mut none, sent) = (0, wire.frames.len());
    for _ in 0..1_000 {
        wire.run(1);
        let owners: Vec<_> = [0, 1].map(|owner| here(&wire, owner)).into();
        assert!(owners.iter().all(|bits| bits.iter().filter(|bit| **bit).count() <= 1), "{owners:?}");
        none += u32::from(owners[0] == [false; 3]);
    }
    assert_eq!(
        (wire.states("a"), wire.states("b")),
        (vec![Backup, Master, Backup], vec![Backup, Master, Backup])
    );
    assert!(none < 5, "nobody had it for {none} ms");
    let bye = |(at, frame): &&(usize, Vec<u8>)| *at == 0 && frame[12..14] == [8, 0] && frame[36] == 0;
    let byes: Vec<_> = wire.frames[sent..].iter().filter(bye).map(|(_, frame)| &frame[..6]).collect();
    assert_eq!(byes, [[2, 0, 0, 0, 0, 2]], "one for the group, to the successor alone");
    assert_eq!(wire.engines[1].instances[0].refused.len(), 0);
    let heard = |at: usize| wire.engines[at].instances[0].machine.master();
    assert_eq!(heard(2), Some(([10, 0, 0, 2].into(), 100)));
}

#[test]
fn a_director_that_slept_is_no_second_owner_for_a_moment() {
    for ms in 1..80 {
        for (first, second) in [(100, 50), (100, 100)] {
            let mut wire = Wire::new(vec![with_bfd(1, 2, first), with_bfd(2, 1, second)]);
            wire.run(6_000 + ms % 10);
            let before = here(&wire, 0);
            let asleep = before.iter().position(|own| *own).unwrap();
            // its frames wait in the queue of its port, and so do the frames to it
            let waiting = wire.sleep(asleep, ms);
            let taken = here(&wire, 0)[1 - asleep];
            wire.engines[asleep].tick(now(wire.now));
            assert_eq!(here(&wire, 0)[asleep], !taken, "after {ms} ms, at the first look at the clock");
            waiting.iter().for_each(|frame| wire.engines[asleep].receive(now(wire.now), frame));
            let mut none = 0;
            for _ in 0..300 {
                let owners = here(&wire, 0);
                assert!(owners != [true; 2], "after {ms} ms");
                none += u32::from(owners == [false; 2]);
                wire.run(1);
            }
            assert!(none <= 2, "nobody had it for {none} ms after {ms} ms");
        }
    }
    // and after a time in which others must have taken over, it does not take the addresses back at once
    let mut wire = Wire::new(vec![with_bfd(1, 2, 100), with_bfd(2, 1, 50)]);
    wire.run(6_000);
    let waiting = wire.sleep(0, 4_400);
    wire.engines[0].tick(now(wire.now));
    assert_eq!(wire.states("a"), [Backup, Master]);
    waiting.iter().for_each(|frame| wire.engines[0].receive(now(wire.now), frame));
    for _ in 0..3_000 {
        wire.run(1);
        assert!(here(&wire, 0) != [true; 2]);
    }
    assert_eq!(wire.states("a"), [Master, Backup], "it preempts in its time");
}

#[test]
fn announcements_that_wait_are_dropped_when_the_addresses_go() {
    let mut wire = Wire::new(vec![plan(1, vec![vrrp("a", 7, 255)])]);
    assert_eq!(wire.engines[0].out.announcements.len(), 5);
    let down = Standing { up: false, number: 0 };
    wire.engines[0].tracked(now(wire.now), Tracked::Port("lan".to_owned()), down);
    assert!(wire.engines[0].out.announcements.is_empty());
}

/// The same with leases.
fn leased(mut plan: Plan, when_away: lb_config::WhenAway) -> Plan {
    let lease = Arc::new(lb_config::Lease { when_away, ..lb_config::Lease::default() });
    for instance in &mut plan.instances {
        instance.tenure = Some(crate::vrrp::plan::tenure(&plan.groups, &instance.vrrp.name, &lease));
    }
    plan.lease = Some(lease);
    plan
}

fn report(wire: &mut Wire, at: usize, wish: u64, state: SeatState<u64>) {
    let report = LeaseReport { unit: "instance/a".to_owned(), wish, state };
    wire.engines[at].leased(now(wire.now), report);
}

fn orders(wire: &mut Wire) -> Vec<Order> {
    std::mem::take(&mut wire.engines[0].out.leases)
}

#[test]
fn only_who_holds_the_lease_has_the_addresses() {
    let release = lb_config::WhenAway::Release;
    let unit = || "instance/a".to_owned();
    let mut wire = Wire::new(vec![leased(plan(1, vec![vrrp("a", 7, 100)]), release)]);
    wire.run(1_000);
    assert_eq!((wire.states("a"), orders(&mut wire)), (vec![State::Init], vec![Order::Watch(unit())]));
    report(&mut wire, 0, 0, SeatState::Other("else".to_owned()));
    assert_eq!(wire.states("a"), [Backup]);
    wire.run(1_000);
    assert_eq!((wire.states("a"), here(&wire, 0)), (vec![State::Taking], vec![false]));
    assert_eq!(orders(&mut wire), [Order::Want(unit(), 1)]);
    assert!(!wire.frames.iter().any(|(_, frame)| frame[12..14] == [8, 6]), "nothing is announced yet");
    let row = |wire: &Wire| wire.engines[0].status(now(wire.now)).instances[0].lease.clone().unwrap();
    let shown = row(&wire);
    assert_eq!((shown.state.as_str(), shown.holder.as_deref(), shown.wanted), ("other", Some("else"), true));
    // what is said of another wish does not count
    let until = wire.now + 500 * MS;
    report(&mut wire, 0, 9, SeatState::Held(until));
    assert_eq!(wire.states("a"), [State::Taking]);
    report(&mut wire, 0, 1, SeatState::Held(until));
    assert_eq!((wire.states("a"), here(&wire, 0)), (vec![Master], vec![true]));
    assert_eq!((row(&wire).state.as_str(), row(&wire).left_ms), ("held", Some(500)));
    // renewed once, then no more
    wire.run(400);
    let until = wire.now + 500 * MS;
    report(&mut wire, 0, 1, SeatState::Held(until));
    wire.run(499);
    assert_eq!(here(&wire, 0), [true]);
    let sent = wire.frames.len();
    wire.run(1);
    assert_eq!((wire.states("a"), here(&wire, 0)), (vec![Fault], vec![false]));
    assert!(wire.frames[sent..].iter().any(|(_, frame)| frame[12..14] == [8, 0] && frame[36] == 0));
    assert_eq!(orders(&mut wire), [Order::Yield(unit())]);
    let told: Vec<_> = wire.engines[0].out.news.drain(..).map(|news| news.text).collect();
    for text in [
        "instance a: backup, priority 100: configured",
        "instance a: master, priority 100: no advert for 361 ms",
        "lease of instance/a: held by else -> held",
        "lease of instance/a: held -> etcd does not answer",
        "instance a: fault, priority 100: no lease: etcd does not answer",
    ] {
        assert!(told.iter().any(|told| told == text), "{text}: {told:?}");
    }
    // what comes late of the old wish does not count
    let until = wire.now + 500 * MS;
    report(&mut wire, 0, 1, SeatState::Held(until));
    assert_eq!(wire.states("a"), [Fault]);
    // etcd is back: it begins anew, and loses the lease to somebody
    report(&mut wire, 0, 0, SeatState::Free);
    wire.run(1_000);
    assert_eq!(orders(&mut wire), [Order::Want(unit(), 2)]);
    let until = wire.now + 500 * MS;
    report(&mut wire, 0, 2, SeatState::Held(until));
    assert_eq!(here(&wire, 0), [true]);
    report(&mut wire, 0, 2, SeatState::Other("else".to_owned()));
    assert_eq!((wire.states("a"), here(&wire, 0)), (vec![Backup], vec![false]));
    // at the end nobody wants it
    wire.run(1_000);
    orders(&mut wire);
    wire.engines[0].stop(now(wire.now));
    assert_eq!(orders(&mut wire), [Order::Yield(unit())]);
}

#[test]
fn with_keep_a_master_goes_on_without_etcd_while_its_neighbour_hears_it() {
    let of = |last, other, priority| {
        let takeover_bfd = vec!["peer".to_owned()];
        let mut own = plan(last, vec![Vrrp { takeover_bfd, ..vrrp("a", 7, priority) }]);
        own.sessions.push(session(last, other));
        leased(own, lb_config::WhenAway::Keep)
    };
    let mut wire = Wire::new(vec![of(1, 2, 100), of(2, 1, 50)]);
    for at in [0, 1] {
        report(&mut wire, at, 0, SeatState::Free);
    }
    wire.run(1_000);
    let until = wire.now + 500 * MS;
    report(&mut wire, 0, 1, SeatState::Held(until));
    // a neighbour that kept it until its session ended has had the time for that
    assert_eq!(here(&wire, 0), [false, false]);
    wire.run(61);
    assert_eq!(here(&wire, 0), [true, false]);
    wire.run(2_000);
    assert_eq!((wire.states("a"), here(&wire, 0)), (vec![Master, Backup], vec![true, false]));
    assert_eq!(wire.engines[0].status(now(wire.now)).instances[0].lease.as_ref().unwrap().state, "away");
    // and it has it again
    let until = wire.now + 10_000 * MS;
    report(&mut wire, 0, 1, SeatState::Held(until));
    report(&mut wire, 0, 1, SeatState::Away);
    assert_eq!(here(&wire, 0), [true, false]);
    wire.cut[0] = true;
    wire.run(40);
    assert_eq!((wire.states("a")[0], here(&wire, 0)[0]), (Fault, false));
}

#[test]
fn any_frame_is_harmless() {
    use proptest::prelude::*;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 0..120);
    let mut wire = Wire::new(vec![plan(1, vec![vrrp("a", 7, 100)])]);
    wire.run(500);
    let (_, good) = wire.frames.iter().find(|(_, frame)| frame[12..14] == [8, 0]).unwrap().clone();
    runner
        .run(&(bytes, 0..60usize), |(bytes, keep)| {
            let mut engine = Engine::new();
            engine.update(now(0), plan(2, vec![vrrp("a", 7, 50)]));
            let frame: Vec<u8> = good.iter().take(keep).chain(&bytes).copied().collect();
            let frame = frame.into_iter().collect();
            engine.receive(now(1), &ControlFrame { link: LinkId(0), device: DeviceId(0), l3: 14, frame });
            Ok(())
        })
        .unwrap();
}

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::classify::IpPrefix;
use crate::parse::L4;

const S: u64 = 1_000_000_000;
const A: DestId = DestId(1);
const B: DestId = DestId(2);

fn table() -> Templates {
    Templates::new(1000, 16, HashKey::random())
}

fn web() -> Rule {
    Rule::new(Scope::Port(80), 32, 300 * S)
}

fn child(client: &str, vport: u16) -> Child {
    let vip = if client.contains(':') { "2001:db8::100" } else { "10.0.0.100" };
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    Child { client: ip(client), vip: ip(vip), vport, protocol: L4::Tcp }
}

/// A new connection at a second; what the scheduler would say.
fn connect(templates: &Templates, rule: &Rule, child: &Child, second: u64, next: DestId) -> DestId {
    templates.choose(rule, child, second * S, |_| true, || Some(next)).expect("a destination").dest
}

fn listed(templates: &Templates, second: u64) -> Vec<Listed> {
    let mut all = Vec::new();
    templates.list(second * S, |one| all.push(one));
    all.sort_by_key(|one| (one.dest, one.left_ns));
    all
}

fn left(templates: &Templates, second: u64) -> Vec<u64> {
    listed(templates, second).iter().map(|one| one.left_ns / S).collect()
}

#[test]
fn a_client_keeps_its_server_until_the_timeout_after_its_latest_connection() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    assert_eq!(connect(&templates, &rule, &one, 0, A), A);
    templates.child_ended(&rule, &one, A, 10 * S, false);
    assert_eq!(connect(&templates, &rule, &one, 299, B), A, "within the timeout");
    assert_eq!(left(&templates, 299), [300], "started anew by the new connection");
    templates.child_ended(&rule, &one, A, 300 * S, false);
    assert_eq!(left(&templates, 598), [1], "the end of a connection changes nothing");
    assert_eq!(connect(&templates, &rule, &one, 599, B), B, "its time is over, though no sweep came");
    assert_eq!((templates.count(A), templates.count(B)), (0, 1));
}

#[test]
fn another_client_gets_a_server_of_its_own_and_a_network_the_same() {
    let templates = table();
    assert_eq!(connect(&templates, &web(), &child("10.0.0.10", 80), 0, A), A);
    assert_eq!(connect(&templates, &web(), &child("10.0.0.11", 80), 0, B), B);
    let net = Rule::new(Scope::Port(443), 24, 300 * S);
    assert_eq!(connect(&templates, &net, &child("10.0.0.10", 443), 0, A), A);
    assert_eq!(connect(&templates, &net, &child("10.0.0.99", 443), 0, B), A);
    assert_eq!(connect(&templates, &net, &child("10.0.1.10", 443), 0, B), B);
    let net6 = Rule::new(Scope::Port(80), 64, 300 * S);
    assert_eq!(connect(&templates, &net6, &child("2001:db8::1", 80), 0, A), A);
    assert_eq!(connect(&templates, &net6, &child("2001:db8::ffff:1", 80), 0, B), A);
    assert_eq!(connect(&templates, &net6, &child("2001:db8:0:1::1", 80), 0, B), B);
}

/// `ip_vs_conn_expire`: "do I control anybody?", then 60 s more, which stay the template's timeout.
#[test]
fn a_template_outlives_its_time_by_60_s_steps_while_it_has_connections() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    connect(&templates, &rule, &one, 0, A);
    templates.sweep(300 * S, templates.buckets(), |_| true);
    assert_eq!(left(&templates, 300), [60]);
    assert_eq!(left(&templates, 365), [55], "the second step");
    assert_eq!(connect(&templates, &rule, &one, 370, B), A);
    assert_eq!(left(&templates, 370), [60], "a new connection gives it 60 s now");
    templates.child_ended(&rule, &one, A, 380 * S, false);
    templates.child_ended(&rule, &one, A, 381 * S, false);
    assert_eq!(left(&templates, 429), [1]);
    templates.sweep(429 * S, templates.buckets(), |_| true);
    assert_eq!(templates.count(A), 1);
    templates.sweep(430 * S, templates.buckets(), |_| true);
    assert_eq!(templates.count(A), 0);
    assert_eq!(connect(&templates, &rule, &one, 431, B), B);
    assert_eq!(left(&templates, 431), [300], "a new template has the service's timeout again");
}

#[test]
fn a_connection_that_ended_after_a_missed_sweep_had_put_the_deadline_off() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    connect(&templates, &rule, &one, 0, A);
    templates.child_ended(&rule, &one, A, 310 * S, false);
    assert_eq!(left(&templates, 310), [50], "it lived at 300 s, so the template goes on until 360 s");
}

#[test]
fn an_invalid_template_is_replaced_and_waits_for_its_end_as_port_65535() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    connect(&templates, &rule, &one, 0, A);
    let chosen = templates.choose(&rule, &one, S, |dest| dest != A, || Some(B));
    assert_eq!(chosen, Ok(Chosen { dest: B, fresh: true }));
    let all = listed(&templates, 1);
    assert_eq!(
        all.iter().map(|one| (one.dest, one.vport(), one.port)).collect::<Vec<_>>(),
        [(A, 65535, ListedPort::Replaced), (B, 80, ListedPort::Server)]
    );
    assert_eq!(left(&templates, 1), [299, 300], "the replaced one is not started anew");
    assert_eq!(connect(&templates, &rule, &one, 2, A), B, "though A could be had again");
    assert_eq!((templates.count(A), templates.count(B)), (1, 1), "both count as PersistConn");
    // each connection takes itself off its own template: A's has none left and ends in time, B's does not
    templates.child_ended(&rule, &one, A, 3 * S, false);
    templates.child_ended(&rule, &one, B, 3 * S, false);
    templates.sweep(302 * S, templates.buckets(), |_| true);
    assert_eq!((templates.count(A), templates.count(B)), (0, 1));
    assert_eq!(left(&templates, 302), [60]);
}

/// The table does not know which of the two a connection was made under.
#[test]
fn of_two_templates_for_one_server_the_older_one_loses_the_connection_that_ends() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    connect(&templates, &rule, &one, 0, A);
    for (dest, second) in [(B, 10), (A, 20)] {
        let chosen = templates.choose(&rule, &one, second * S, |_| false, || Some(dest));
        assert_eq!(chosen, Ok(Chosen { dest, fresh: true }));
    }
    templates.child_ended(&rule, &one, A, 30 * S, false);
    let children: Vec<_> =
        listed(&templates, 30).iter().map(|one| (one.dest, one.vport(), one.children)).collect();
    assert_eq!(children, [(A, 65535, 0), (A, 80, 1), (B, 65535, 1)]);
    templates.child_ended(&rule, &one, A, 30 * S, false);
    assert_eq!(listed(&templates, 30)[1].children, 0);
}

#[test]
fn without_a_server_nothing_is_kept() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    assert_eq!(templates.choose(&rule, &one, 0, |_| true, || None), Err(Refused::NoServer));
    assert_eq!(listed(&templates, 0), []);
    connect(&templates, &rule, &one, 0, A);
    // the old one is invalidated even so, as in IPVS
    assert_eq!(templates.choose(&rule, &one, S, |_| false, || None), Err(Refused::NoServer));
    assert_eq!(listed(&templates, 1)[0].port, ListedPort::Replaced);
}

#[test]
fn only_a_forced_end_takes_a_template_along_and_only_one_that_was_never_assured() {
    let (templates, rule) = (table(), web());
    let [ended, forced, assured, shared] = [1, 2, 3, 4].map(|n| child(&format!("10.0.0.{n}"), 80));
    for one in [&ended, &forced, &assured, &shared, &shared] {
        connect(&templates, &rule, one, 0, A);
    }
    templates.assure(&rule, &assured, A);
    templates.child_ended(&rule, &ended, A, S, false);
    assert_eq!(templates.count(A), 4, "a connection that timed out");
    templates.child_ended(&rule, &forced, A, S, true);
    assert_eq!(templates.count(A), 3, "a connection that was dropped");
    templates.child_ended(&rule, &assured, A, S, true);
    templates.child_ended(&rule, &shared, A, S, true);
    assert_eq!(templates.count(A), 3, "one assured, one with another connection");
    templates.child_ended(&rule, &shared, A, S, true);
    assert_eq!(templates.count(A), 2, "its last connection");
}

#[test]
fn unused_templates_can_be_dropped_and_used_ones_not() {
    let (templates, rule) = (table(), web());
    let (used, unused, other) = (child("10.0.0.1", 80), child("10.0.0.2", 80), child("10.0.0.3", 80));
    connect(&templates, &rule, &used, 0, A);
    connect(&templates, &rule, &unused, 0, A);
    connect(&templates, &rule, &other, 0, B);
    templates.assure(&rule, &unused, A);
    templates.child_ended(&rule, &unused, A, S, false);
    templates.child_ended(&rule, &other, B, S, false);
    assert_eq!(templates.drop_unused(S, |listed| listed.dest == A), 1);
    assert_eq!((templates.count(A), templates.count(B)), (1, 1));
}

/// The keys of `ip_vs_sched_persist`, and ours for ranges.
#[test]
fn what_a_template_covers_depends_on_the_service() {
    let key = |scope, vport| Rule::new(scope, 32, S).key(&child("10.0.0.10", vport));
    let print = |key: TemplateKey| format!("{} {}:{}", key.protocol(), key.vip(), key.vport());
    assert_eq!(print(key(Scope::Port(80), 80)), "6 10.0.0.100:80");
    assert_eq!(print(key(Scope::Port(0), 80)), "6 10.0.0.100:0");
    assert_eq!(print(key(Scope::Port(21), 21)), "6 10.0.0.100:0", "FTP's control connection");
    assert_eq!(print(key(Scope::Port(21), 4711)), "6 10.0.0.100:0", "FTP's data connection");
    assert_eq!(print(key(Scope::Mark(7), 80)), "0 0.0.0.7:0");
    assert_eq!(print(key(Scope::Mark(7), 0)), "6 10.0.0.100:0", "IPVS's surprise");
    let six = Rule::new(Scope::Mark(7), 64, S).key(&child("2001:db8::1", 80));
    assert_eq!(
        (print(six), six.client()),
        ("0 0:7:::0".to_owned(), "2001:db8::".parse().expect("an address"))
    );
    let vips = IpPrefix::new("10.0.0.96".parse().expect("an address"), 28);
    let range = Scope::Range { vips, first_port: 80 };
    assert_eq!(print(key(range, 85)), "6 10.0.0.96:80");
    assert_eq!(key(range, 85), key(range, 99));
    let host =
        Scope::Range { vips: IpPrefix::new("10.0.0.100".parse().expect("an address"), 32), first_port: 80 };
    assert_ne!(key(host, 80), key(Scope::Port(80), 80), "a range and the service inside it");
}

#[test]
fn connections_find_their_template_after_the_prefix_length_was_changed() {
    let (templates, old, one) = (table(), web(), child("10.0.0.10", 80));
    connect(&templates, &old, &one, 0, A);
    let mut rule = old.clone();
    for len in [24, 16, 24, 8] {
        rule = Rule::new(Scope::Port(80), len, 300 * S).succeeding(&rule);
    }
    assert_eq!(connect(&templates, &rule, &one, 1, A), A);
    assert_eq!(listed(&templates, 1).len(), 2);
    let children = |second| listed(&templates, second).iter().map(|one| one.children).sum::<u32>();
    templates.child_ended(&rule, &one, A, 2 * S, false);
    assert_eq!(children(2), 1);
    templates.child_ended(&rule, &one, A, 2 * S, false);
    assert_eq!(children(2), 0, "the one made under the first rule");
    templates.sweep(301 * S, templates.buckets(), |_| true);
    assert_eq!(listed(&templates, 301), []);
}

#[test]
fn a_template_that_lost_its_connections_ends_with_the_sweep() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    connect(&templates, &rule, &one, 0, A);
    templates.sweep(299 * S, templates.buckets(), |_| false);
    assert_eq!(templates.count(A), 1, "not before its time");
    templates.sweep(300 * S, templates.buckets(), |dest| dest != A);
    assert_eq!(templates.count(A), 0);
}

#[test]
fn an_end_without_a_template_is_ignored() {
    let (templates, rule, one) = (table(), web(), child("10.0.0.10", 80));
    templates.child_ended(&rule, &one, A, 0, true);
    connect(&templates, &rule, &one, 0, A);
    templates.child_ended(&rule, &one, B, 0, true);
    for _ in 0..3 {
        templates.child_ended(&rule, &one, A, 0, false);
    }
    assert_eq!(listed(&templates, 0)[0].children, 0);
}

/// One bucket: 16 templates.
#[test]
fn a_flood_takes_room_from_itself_first_and_never_from_established_clients() {
    let (templates, rule) = (Templates::new(1, 16, HashKey::random()), web());
    assert_eq!(templates.buckets(), 1);
    let client = |n: u32| child(&format!("10.0.{}.{}", n / 250, n % 250 + 1), 80);
    for n in 0..4 {
        connect(&templates, &rule, &client(n), 0, A);
        templates.assure(&rule, &client(n), A);
    }
    // two of them are idle
    templates.child_ended(&rule, &client(2), A, 0, false);
    templates.child_ended(&rule, &client(3), A, 0, false);
    for n in 1000..11_000 {
        connect(&templates, &rule, &client(n), 1, B);
    }
    assert_eq!((templates.count(A), templates.count(B)), (4, 12));
    assert_eq!(templates.evicted(), 10_000 - 12);
    // established clients in place of the flood, then of idle ones, then no more
    for n in 20..32 {
        connect(&templates, &rule, &client(n), 2, A);
        templates.assure(&rule, &client(n), A);
    }
    assert_eq!((templates.count(A), templates.count(B)), (16, 0));
    for n in 40..42 {
        connect(&templates, &rule, &client(n), 3, A);
        templates.assure(&rule, &client(n), A);
    }
    assert_eq!(templates.choose(&rule, &client(50), 3 * S, |_| true, || Some(A)), Err(Refused::Full));
    assert_eq!(connect(&templates, &rule, &client(0), 3, B), A, "who is known is served");
    assert_eq!(templates.count(A), 16);
    // what is over makes room too
    templates.child_ended(&rule, &client(1), A, 3 * S, false);
    assert_eq!(connect(&templates, &rule, &client(51), 300, B), B);
}

#[test]
fn a_table_at_its_capacity_loses_little() {
    let templates = Templates::new(1 << 14, 16, HashKey::random());
    for n in 0..1u32 << 14 {
        let one = Child { client: IpAddr::from(n.to_be_bytes()), ..child("10.0.0.10", 80) };
        connect(&templates, &web(), &one, 0, A);
    }
    // clients in a bucket: Poisson with mean 8; 0.08 % of them come after the sixteenth
    assert!(templates.evicted() < (1 << 14) / 200, "{}", templates.evicted());
    assert_eq!(u64::from(templates.count(A)) + templates.evicted(), 1 << 14);
}

#[test]
fn workers_that_meet_agree_on_the_server_and_on_the_count() {
    const WORKERS: u32 = 4;
    const CLIENTS: u32 = 500;
    let (templates, rule) = (Templates::new(64, 16, HashKey::random()), web());
    let barrier = Barrier::new(WORKERS as usize);
    let answers: Vec<Vec<DestId>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (templates, rule, barrier) = (&templates, &rule, &barrier);
                scope.spawn(move || {
                    (0..CLIENTS)
                        .map(|n| {
                            let one = child(&format!("10.0.0.{}", n % 20), 80);
                            if n % 20 == 0 {
                                barrier.wait();
                            }
                            let dest = connect(templates, rule, &one, 0, DestId(worker));
                            templates.child_ended(rule, &one, dest, 0, false);
                            dest
                        })
                        .collect()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let all = listed(&templates, 0);
    assert_eq!((all.len(), all.iter().map(|one| one.children).sum::<u32>()), (20, 0));
    assert_eq!((0..WORKERS).map(|worker| templates.count(DestId(worker))).sum::<u32>(), 20);
}

/// What happens to a slow IPVS and to the table alike.
#[derive(Clone, Debug)]
enum Step {
    Connect { client: u8, next: u32 },
    Assure(usize),
    End { which: usize, forced: bool },
    Flip(u32),
    Wait(u64),
    Sweep,
    DropUnused(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 0u32..3).prop_map(|(client, next)| Step::Connect { client, next }),
        1 => any::<usize>().prop_map(Step::Assure),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, forced)| Step::End { which, forced }),
        1 => (0u32..3).prop_map(Step::Flip),
        3 => prop_oneof![1u64..10, 40u64..80, 100u64..400].prop_map(Step::Wait),
        1 => Just(Step::Sweep),
        1 => (0u32..3).prop_map(Step::DropUnused),
    ]
}

/// IPVS as it is described, with a timer per template that fires to the second. Every connection knows its template.
#[derive(Default)]
struct Slow {
    templates: Vec<SlowTemplate>,
    /// Connections: client, template.
    connections: Vec<(u8, usize)>,
}

struct SlowTemplate {
    client: u8,
    dest: u32,
    valid: bool,
    assured: bool,
    gone: bool,
    timeout: u64,
    expires: u64,
}

impl Slow {
    fn children(&self, template: usize) -> u32 {
        self.connections.iter().filter(|(_, of)| *of == template).count() as u32
    }

    fn timers(&mut self, now: u64) {
        for at in 0..self.templates.len() {
            if self.templates[at].gone || self.templates[at].expires != now {
                continue;
            }
            let used = self.children(at) > 0;
            let template = &mut self.templates[at];
            if used {
                (template.timeout, template.expires) = (60, now + 60);
            } else {
                template.gone = true;
            }
        }
    }

    fn connect(&mut self, client: u8, now: u64, up: [bool; 3], next: u32) -> u32 {
        let found = self.templates.iter().position(|one| one.client == client && one.valid && !one.gone);
        let at = match found {
            Some(at) if up[self.templates[at].dest as usize] => at,
            other => {
                if let Some(at) = other {
                    self.templates[at].valid = false;
                }
                let (valid, assured, gone) = (true, false, false);
                let new = SlowTemplate { client, dest: next, valid, assured, gone, timeout: 100, expires: 0 };
                self.templates.push(new);
                self.templates.len() - 1
            }
        };
        self.templates[at].expires = now + self.templates[at].timeout;
        self.connections.push((client, at));
        self.templates[at].dest
    }

    fn end(&mut self, which: usize, forced: bool) {
        let (_, at) = self.connections.remove(which);
        let unused = self.children(at) == 0;
        self.templates[at].gone |= forced && unused && !self.templates[at].assured;
    }

    /// Of one client, two live templates of one destination: the table need not know which of them a connection of
    /// that destination belongs to.
    fn ambiguous(&self) -> bool {
        let mut seen = HashMap::new();
        let live = self.templates.iter().filter(|one| !one.gone);
        live.into_iter().any(|one| seen.insert((one.client, one.dest), ()).is_some())
    }

    fn rows(&self, now: u64) -> Vec<(u8, u32, bool, bool, u32, u64)> {
        let live = self.templates.iter().enumerate().filter(|(_, one)| !one.gone);
        let mut rows: Vec<_> = live
            .map(|(at, one)| {
                (one.client, one.dest, one.valid, one.assured, self.children(at), one.expires - now)
            })
            .collect();
        rows.sort();
        rows
    }
}

proptest! {
    #[test]
    fn the_table_does_what_a_slow_ipvs_does(steps in proptest::collection::vec(any_step(), 1..120)) {
        let (templates, rule) = (table(), Rule::new(Scope::Port(80), 32, 100 * S));
        let (mut slow, mut now, mut up) = (Slow::default(), 0u64, [true; 3]);
        let of = |client: u8| child(&format!("10.0.0.{client}"), 80);
        for step in steps {
            match step {
                Step::Connect { client, next } => {
                    let wanted = slow.connect(client, now, up, next);
                    let valid = |dest: DestId| up[dest.0 as usize];
                    let chosen = templates.choose(&rule, &of(client), now * S, valid, || Some(DestId(next)));
                    prop_assert_eq!(chosen.map(|chosen| chosen.dest), Ok(DestId(wanted)));
                }
                Step::Assure(which) if !slow.connections.is_empty() => {
                    let (client, at) = slow.connections[which % slow.connections.len()];
                    slow.templates[at].assured = true;
                    templates.assure(&rule, &of(client), DestId(slow.templates[at].dest));
                }
                Step::End { which, forced } if !slow.connections.is_empty() => {
                    let which = which % slow.connections.len();
                    let (client, at) = slow.connections[which];
                    slow.end(which, forced);
                    templates.child_ended(&rule, &of(client), DestId(slow.templates[at].dest), now * S, forced);
                }
                Step::Assure(_) | Step::End { .. } => {}
                Step::Flip(dest) => up[dest as usize] ^= true,
                Step::Wait(seconds) => {
                    for _ in 0..seconds {
                        now += 1;
                        slow.timers(now);
                    }
                }
                Step::Sweep => templates.sweep(now * S, templates.buckets(), |_| true),
                Step::DropUnused(dest) => {
                    for at in 0..slow.templates.len() {
                        slow.templates[at].gone |= slow.templates[at].dest == dest && slow.children(at) == 0;
                    }
                    templates.drop_unused(now * S, |listed| listed.dest == DestId(dest));
                }
            }
            if slow.ambiguous() {
                break;
            }
            let mut rows = Vec::new();
            templates.list(now * S, |one| {
                let client = match one.key.client() {
                    IpAddr::V4(v4) => v4.octets()[3],
                    IpAddr::V6(_) => u8::MAX,
                };
                let valid = one.port != ListedPort::Replaced;
                rows.push((client, one.dest.0, valid, one.assured, one.children, one.left_ns / S));
            });
            rows.sort();
            prop_assert_eq!(rows, slow.rows(now));
        }
        templates.sweep(now * S, templates.buckets(), |_| true);
        prop_assert_eq!(templates.evicted(), 0);
        for dest in 0..3 {
            let mut live = 0;
            templates.list(now * S, |one| live += u32::from(one.dest == DestId(dest)));
            prop_assert_eq!(templates.count(DestId(dest)), live);
        }
    }
}

/// A table that is kept, and what another process would find of it.
fn kept() -> Templates {
    let mut templates = Templates::new(1000, 16, HashKey([1, 2, 3, 4]));
    let memory = vec![0_u64; Templates::kept_bytes(1000) / 8].leak();
    templates.keep_in(zerocopy::IntoBytes::as_mut_bytes(memory));
    templates
}

fn bytes(templates: &Templates) -> Vec<u8> {
    let rows = templates.buckets.iter().flat_map(|bucket| {
        let bucket = bucket.lock().expect("a lock");
        zerocopy::IntoBytes::as_bytes(bucket.rows.as_deref().expect("kept")).to_vec()
    });
    rows.collect()
}

fn after(bytes: &[u8], is_there: impl Fn(DestId) -> bool) -> Templates {
    let templates = kept();
    templates.restore(super::left(bytes), is_there);
    templates
}

#[test]
fn templates_are_there_again_and_get_their_children_from_connections() {
    let (templates, rule) = (kept(), web());
    let net = Rule::new(
        Scope::Range { vips: IpPrefix::new("10.0.0.0".parse().expect("ip"), 24), first_port: 443 },
        24,
        60 * S,
    );
    let (one, two, v6) = (child("10.0.0.10", 80), child("10.0.1.9", 443), child("2001:db8::1", 80));
    connect(&templates, &rule, &one, 0, A);
    templates.assure(&rule, &one, A);
    connect(&templates, &net, &two, 5, B);
    connect(&templates, &rule, &v6, 7, B);
    templates.child_ended(&rule, &v6, B, 8 * S, false);
    let before = listed(&templates, 10);
    let again = after(&bytes(&templates), |_| true);
    let childless: Vec<_> = before.iter().map(|one| Listed { children: 0, ..*one }).collect();
    assert_eq!(listed(&again, 10), childless);
    assert_eq!((again.count(A), again.count(B)), (1, 2));
    again.adopt(&rule, &one, A, 10 * S, true);
    again.adopt(&net, &two, B, 10 * S, false);
    assert_eq!(listed(&again, 10), before);
    assert_eq!(bytes(&again), bytes(&templates), "and kept again");
    assert_eq!(connect(&again, &rule, &v6, 11, A), B);
    // what is no longer there is not gone on with
    let again = after(&bytes(&again), |dest| dest == A);
    assert_eq!((again.count(A), again.count(B), listed(&again, 11).len()), (1, 0, 1));
}

#[test]
fn a_connection_whose_template_was_lost_gets_one() {
    let (templates, rule, one) = (kept(), web(), child("10.0.0.10", 80));
    templates.adopt(&rule, &one, A, 10 * S, true);
    templates.adopt(&rule, &one, A, 10 * S, true);
    // one that went elsewhere before its template was replaced
    templates.adopt(&rule, &one, B, 10 * S, false);
    assert_eq!(connect(&templates, &rule, &one, 11, B), A);
    let children: Vec<_> =
        listed(&templates, 11).iter().map(|one| (one.dest, one.children, one.assured)).collect();
    assert_eq!(children, [(A, 3, true), (B, 1, false)]);
    for _ in 0..3 {
        templates.child_ended(&rule, &one, A, 12 * S, false);
    }
    templates.child_ended(&rule, &one, B, 12 * S, false);
    templates.sweep(1000 * S, templates.buckets(), |_| true);
    assert_eq!((templates.count(A), templates.count(B)), (0, 0));
    assert!(bytes(&templates).iter().all(|byte| *byte == 0));
}

proptest! {
    #[test]
    fn what_is_kept_is_what_there_is(steps in prop::collection::vec((0u8..5, 0u8..40, 0u64..200), 1..200)) {
        let (templates, rule) = (kept(), web());
        let mut second = 0;
        for (what, client, wait) in steps {
            let child = child(&format!("10.0.0.{client}"), 80);
            let dest = DestId(u32::from(client) % 3);
            match what {
                0 | 1 => drop(connect(&templates, &rule, &child, second, dest)),
                2 => templates.assure(&rule, &child, dest),
                3 => templates.child_ended(&rule, &child, dest, second * S, client % 2 == 0),
                _ => second += wait,
            }
            if client == 0 {
                templates.sweep(second * S, templates.buckets(), |_| true);
            }
        }
        let again = after(&bytes(&templates), |_| true);
        let plain = |templates: &Templates| {
            // those with children may have been put off, which a copy learns from its connections
            let all = listed(templates, second).into_iter().filter(|one| one.left_ns > 0 && one.children == 0);
            all.map(|one| (one.key, one.dest, one.assured, one.port == ListedPort::Replaced)).collect::<Vec<_>>()
        };
        let there = plain(&again);
        for one in plain(&templates) {
            prop_assert!(there.contains(&one), "{one:?} is not in {there:?}");
        }
    }

    #[test]
    fn a_damaged_row_is_no_template(spoil in prop::collection::vec((any::<u32>(), any::<u8>()), 1..40)) {
        let (templates, rule) = (kept(), web());
        for n in 0..100 {
            connect(&templates, &rule, &child(&format!("10.0.0.{n}"), 80), n, A);
        }
        let mut bytes = bytes(&templates);
        let whole: Vec<_> = listed(&templates, 100).iter().map(|one| (one.key, one.dest)).collect();
        for (at, byte) in spoil {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        for one in listed(&after(&bytes, |_| true), 100) {
            prop_assert!(whole.contains(&(one.key, one.dest)));
        }
    }
}

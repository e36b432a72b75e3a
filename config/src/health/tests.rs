//! Health checks in files: read, written, compared, refused.

use proptest::prelude::*;

use super::*;
use crate::tests::{SMALL, faults_after};
use crate::{diff, parse, to_toml};

/// The small configuration's service with this at its end, before its servers.
fn with(health: &str) -> String {
    SMALL.replacen("port = 80\n", &format!("port = 80\n\n{health}\n"), 1)
}

fn faults(health: &str) -> String {
    crate::tests::faults(&with(health))
}

#[test]
fn what_is_left_open_has_its_default() {
    let model = parse(&with("[services.health]\nchecks = [{ type = \"tcp\" }]")).unwrap();
    let service = &model.services[0];
    let checks = service.checks_of(&service.servers[0]);
    let want = FullCheck {
        kind: CheckKind::Tcp,
        target: FullTarget {
            to: "192.168.150.12:80".parse().unwrap(),
            bind: None,
            bind_port: 0,
            device: None,
            mark: 0,
            path: None,
        },
        rhythm: Rhythm {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            retries: 1,
            retry_delay: Duration::from_secs(1),
            warmup: Duration::from_secs(5),
            fast_recovery: false,
        },
        assume: Assume::Down,
    };
    assert_eq!(checks, [want]);
    assert_eq!(service.on_failure(&service.servers[0]), OnFailure::Remove);
}

#[test]
fn the_nearest_scope_decides() {
    let text = with(
        "[services.health]\ninterval = \"2s\"\nretries = 7\nhost = \"wide\"\non_failure = \"drain\"\n\
         [[services.health.checks]]\ntype = \"http\"\nretries = 9\n\
         [[services.health.checks]]\ntype = \"http\"\nhost = \"own\"\nport = 81\naddress = \"10.0.0.1\"",
    );
    let text =
        format!("{text}\n[services.servers.health]\nretries = 8\nhost = \"near\"\non_failure = \"remove\"\n");
    let model = parse(&text).unwrap();
    let service = &model.services[0];
    let seen = |at: usize| -> Vec<_> {
        let checks = service.checks_of(&service.servers[at]).into_iter();
        let host = |check: &FullCheck| match &check.kind {
            CheckKind::Http(http) => http.urls[0].host.clone().unwrap(),
            other => panic!("{other:?}"),
        };
        checks.map(|c| (c.rhythm.retries, host(&c), c.target.to.to_string())).collect()
    };
    let row = |retries, host: &str, to: &str| (retries, host.to_owned(), to.to_owned());
    assert_eq!(seen(0), [row(9, "wide", "192.168.150.12:80"), row(7, "own", "10.0.0.1:81")]);
    assert_eq!(seen(1), [row(9, "near", "192.168.150.13:80"), row(8, "own", "10.0.0.1:81")]);
    assert_eq!(service.on_failure(&service.servers[0]), OnFailure::Drain);
    assert_eq!(service.on_failure(&service.servers[1]), OnFailure::Remove);
    assert_eq!(parse(&to_toml(&model)).unwrap(), model);
}

#[test]
fn an_empty_list_checks_nothing() {
    let text = with("[services.health]\nchecks = [{ type = \"tcp\" }]");
    let model = parse(&format!("{text}\n[services.servers.health]\nchecks = []\n")).unwrap();
    let service = &model.services[0];
    assert_eq!(
        (service.checks_of(&service.servers[0]).len(), service.checks_of(&service.servers[1]).len()),
        (1, 0)
    );
    assert_eq!(parse(&to_toml(&model)).unwrap(), model);
}

#[test]
fn each_fault_is_named() {
    let cases = [
        ("interval = \"1ms\"", "services[0].health.interval: 1ms is below the limit 10ms"),
        ("timeout = \"25h\"", "services[0].health.timeout: 90000s is above the limit 86400s (24h)"),
        ("hysteresis = 1", "services[0].health.hysteresis: 1 is not below quorum = 1"),
        ("quorum = 0", "services[0].health.quorum: 0 is below the limit 1"),
        ("checks = [{ type = \"tpc\" }]", "checks[0].type: \"tpc\" is not a type of check"),
        ("checks = [{ type = \"tcp\", path = \"/\" }]", "path: is of no use in a check of type \"tcp\""),
        ("checks = [{ type = \"http\", verify = true }]", "verify: is of no use in a check of type \"http\""),
        ("checks = [{ type = \"http\", path = \"x\" }]", "path: \"x\" is not the path of a URL"),
        ("checks = [{ type = \"http\", status = 99 }]", "status: 99 is not a status code"),
        ("checks = [{ type = \"http\", status = \"300-200\" }]", "status: 300-200 ends before it begins"),
        ("checks = [{ type = \"http\", digest = \"md5:12\" }]", "digest: \"md5:12\" is not a digest"),
        ("checks = [{ type = \"http\", regex = \"(\" }]", "regex: \"(\": regex parse error"),
        ("checks = [{ type = \"http\", max_offset = 3 }]", "max_offset: is of use with regex only"),
        ("checks = [{ type = \"http\", method = \"HEAD\", regex = \"a\" }]", "method: \"HEAD\" gets no body"),
        ("checks = [{ type = \"http\", path = \"/\", urls = [{}] }]", "path: stands beside urls"),
        ("checks = [{ type = \"https\", certificate = \"/a\" }]", "certificate: needs its key"),
        ("checks = [{ type = \"https\", ca = \"/a\" }]", "ca: is of use with verify = true only"),
        ("checks = [{ type = \"udp\", payload = \"0x\" }]", "payload: has \"x\""),
        ("checks = [{ type = \"udp\", payload = \"0\" }]", "payload: \"0\" is not pairs of hex digits"),
        ("checks = [{ type = \"udp\", min_length = 300 }]", "min_length: 300 is above max_length = 255"),
        ("checks = [{ type = \"dns\", record = \"B\" }]", "record: \"B\" is not a record type"),
        ("checks = [{ type = \"dns\", name = \"a..b\" }]", "name: \"a..b\" is not a domain name"),
        ("checks = [{ type = \"script\" }]", "command: is missing"),
        (
            "checks = [{ type = \"script\", command = [\"ls\"] }]",
            "\"ls\" is not the absolute path of a program",
        ),
        ("checks = [{ type = \"file\" }]", "file: is missing"),
        (
            "checks = [{ type = \"file\", file = \"/f\", factor = 2 }]",
            "factor: is of use with meaning = \"offset\"",
        ),
        (
            "checks = [{ type = \"ping\", bind = \"::1\", address = \"10.0.0.1\" }]",
            "bind: ::1 is not of the family",
        ),
        ("notify = { up = [\"x\"] }", "notify.up: \"x\" is not the absolute path of a program"),
        ("notify = { webhook = \"ftp://x\" }", "notify.webhook: \"ftp://x\" is not a URL"),
        (
            "sorry_server = { address = \"10.9.9.9\" }",
            "sorry_server.address: 10.9.9.9 is on no directly connected",
        ),
        ("sorry_server = { address = \"192.168.150.12\" }", "192.168.150.12:80 is already servers[0]"),
    ];
    for (health, want) in cases {
        let found = faults(&format!("[services.health]\n{health}"));
        assert!(found.contains(want), "{health}:\n{found}");
    }
    assert!(faults_after("[notify]\nca = \"x\"\n").contains("notify.ca: \"x\" is not an absolute path"));
    let found = faults_after("[notify]\nmail = { server = \"a b\", from = \"x\", to = [] }\n");
    assert!(found.contains("notify.mail.server") && found.contains("notify.mail.to: is empty"), "{found}");
}

#[test]
fn a_change_names_its_keys() {
    let text = |health: &str| parse(&with(&format!("[services.health]\n{health}"))).unwrap();
    let old = text("checks = [{ type = \"tcp\" }]");
    let new = text("interval = \"1s\"\nchecks = [{ type = \"http\", path = \"/a\" }]");
    let changes: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    let want = "~ service web: checks [{ type = \"tcp\" }] -> [{ type = \"http\", path = \"/a\" }], \
                interval unset -> \"1s\"";
    assert_eq!(changes, [want]);
    let without = parse(SMALL).unwrap();
    assert_eq!(diff(&without, &old).len(), 1);
    assert!(!diff(&without, &old)[0].needs_restart());
}

#[test]
fn patterns_match_beginnings() {
    let pattern: Pattern = "01xF x0".parse().unwrap();
    assert_eq!(pattern.to_string(), "01xfx0");
    assert!(
        pattern.matches(&[1, 0x3f, 0x70, 9])
            && !pattern.matches(&[1, 0x3e, 0x70])
            && !pattern.matches(&[1, 0x3f])
    );
}

fn time() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of((10..=86_400_000_u64).prop_map(Duration::from_millis))
}

fn pace() -> impl Strategy<Value = Pace> {
    (time(), time(), time(), time(), proptest::option::of(0..=1000_u32), any::<[Option<bool>; 2]>()).prop_map(
        |(interval, timeout, retry_delay, warmup, retries, [fast_recovery, up])| Pace {
            interval,
            timeout,
            retries,
            retry_delay,
            warmup,
            fast_recovery,
            assume: up.map(|up| if up { Assume::Up } else { Assume::Down }),
        },
    )
}

fn url() -> impl Strategy<Value = UrlCheck> {
    let status = proptest::collection::vec((100..600_u16, 100..600_u16), 1..4).prop_map(|codes| {
        codes.into_iter().map(|(a, b)| StatusRange::new(a.min(b), a.max(b)).unwrap()).collect::<Vec<_>>()
    });
    let regex = ("[a-z\"\\\\\\\\]{0,3}[a-z]", any::<bool>(), 0..50_u32, proptest::option::of(50..99_u32));
    let regex = regex.prop_map(|(text, absent, min_offset, max_offset)| RegexCheck {
        pattern: text.replace('\\', "\\\\"),
        absent,
        min_offset,
        max_offset,
    });
    let digest =
        prop_oneof![any::<[u8; 16]>().prop_map(Digest::Md5), any::<[u8; 32]>().prop_map(Digest::Sha256)];
    (
        "/[a-z?\"]{0,9}",
        proptest::option::of("[a-z]{1,9}"),
        status,
        proptest::option::of(digest),
        proptest::option::of(regex),
    )
        .prop_map(|(path, host, status, digest, regex)| UrlCheck {
            path,
            host,
            method: HttpMethod::Get,
            status,
            digest,
            regex,
        })
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let tls = (proptest::option::of("[a-z]{1,9}"), any::<bool>()).prop_map(|(sni, verify)| TlsCheck {
        sni,
        verify,
        ca: verify.then(|| "/ca \"x\"".into()),
        certificate: verify.then(|| "/cert".into()),
        key: verify.then(|| "/key".into()),
    });
    let versions = vec![HttpVersion::V10, HttpVersion::V10Close, HttpVersion::V11];
    let http = (
        proptest::option::of(tls),
        proptest::sample::select(versions),
        proptest::collection::vec(url(), 1..4),
        proptest::option::of("[A-Za-z-]{1,9}"),
    );
    let bytes = || proptest::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Pattern::of(&bytes));
    let meanings = vec![FileMeaning::State, FileMeaning::Reverse, FileMeaning::Weight, FileMeaning::Offset];
    prop_oneof![
        Just(CheckKind::Tcp),
        Just(CheckKind::Ping),
        http.prop_map(|(tls, version, urls, weight_header)| {
            CheckKind::Http(Box::new(HttpCheck { tls, version, urls, weight_header }))
        }),
        (bytes(), proptest::option::of(bytes()), 0..99_u32, 99..9999_u32).prop_map(
            |(payload, reply, min_length, max_length)| {
                CheckKind::Udp(Box::new(UdpCheck { payload, reply, min_length, max_length }))
            }
        ),
        Just(CheckKind::Dns(DnsCheck { record: RecordType::Aaaa, name: "example.org.".into() })),
        "[a-z]{1,9}".prop_map(|helo| CheckKind::Smtp { helo }),
        (proptest::collection::vec("/[ -~]{0,5}", 1..4), any::<bool>(), proptest::option::of("[a-z]{1,9}"))
            .prop_map(|(command, dynamic, user)| CheckKind::Script(Box::new(ScriptCheck {
                command,
                dynamic,
                user
            }))),
        (proptest::sample::select(meanings), any::<i32>()).prop_map(|(meaning, factor)| {
            let factor = if meaning == FileMeaning::Offset { factor } else { 1 };
            CheckKind::File(Box::new(FileCheck { path: "/run/w".into(), meaning, factor }))
        }),
    ]
}

fn check() -> impl Strategy<Value = Check> {
    let target = (proptest::option::of(1..=u16::MAX), proptest::option::of(1..=u32::MAX), any::<bool>());
    (kind(), pace(), target).prop_map(|(kind, pace, (port, mark, elsewhere))| Check {
        kind,
        pace,
        target: Target {
            address: elsewhere.then(|| "10.0.0.9".parse().unwrap()),
            port,
            bind: elsewhere.then(|| "10.0.0.1".parse().unwrap()),
            bind_port: port,
            device: elsewhere.then(|| "eth0".to_owned()),
            mark,
            via: Via::Kernel,
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back_equal(
        pace in pace(),
        wide in proptest::collection::vec(check(), 0..4),
        own in proptest::option::of(proptest::collection::vec(check(), 0..3)),
        quorum in 1..100_u32,
        flags in any::<[bool; 4]>(),
    ) {
        let mut model = crate::tests::small();
        let [drain, sorry, stop, told] = flags;
        let argv = |told: bool| if told { vec!["/bin/a".to_owned(), "b \" c".to_owned()] } else { Vec::new() };
        model.services[0].health = Some(std::sync::Arc::new(ServiceHealth {
            pace,
            on_failure: if drain { OnFailure::Drain } else { OnFailure::Remove },
            quorum,
            hysteresis: quorum / 2,
            sorry_server: sorry.then(|| SorryServer {
                address: "192.168.150.99".parse().unwrap(),
                port: 80,
                weight: quorum,
                forwarding: crate::Forwarding::Dr,
                drain,
            }),
            host: told.then(|| "h".to_owned()),
            down_at_stop: stop,
            notify: ServiceNotify {
                up: argv(told),
                down: argv(stop),
                quorum_up: argv(sorry),
                quorum_down: argv(told),
                webhook: told.then(|| "https://x/y".to_owned()),
                mail: told.then_some(stop),
            },
            checks: wide,
        }));
        model.services[0].servers[1].health = Some(std::sync::Arc::new(ServerHealth {
            pace,
            on_failure: drain.then_some(OnFailure::Drain),
            host: stop.then(|| "h".to_owned()),
            notify: ServerNotify { up: argv(told), down: argv(sorry) },
            checks: own,
        }));
        model.notify.ca = told.then(|| "/etc/x.pem".into());
        if told {
            model.notify.mail = Some(Mail {
                server: "m".into(), port: 25, helo: None, from: "a@b".into(), to: vec!["c@d".into()],
                timeout: Duration::from_secs(3),
            });
        }
        let text = to_toml(&model);
        let back = parse(&text).map_err(|faults| TestCaseError::fail(format!("{faults}\n{text}")))?;
        prop_assert_eq!(&back, &model);
        prop_assert!(!diff(&crate::tests::small(), &model).is_empty());
    }
}

#[test]
fn a_check_may_take_the_clients_way() {
    let text = |check: &str, tap: bool| {
        let text = with(&format!("[services.health]\nchecks = [{check}]"));
        if tap { text.replace("\"null\"", "\"null\"\nexception = \"tap\"") } else { text }
    };
    let good = text("{ type = \"tcp\", via = \"path\" }", true);
    let model = parse(&good).unwrap();
    let service = &model.services[0];
    let target = service.checks_of(&service.servers[0]).remove(0).target;
    assert_eq!(target.to.to_string(), "192.168.150.100:80");
    assert_eq!(target.path, Some(service.servers[0].key()));
    assert_eq!(parse(&crate::to_toml(&model)).unwrap(), model);
    let fault = |check: &str, tap| crate::tests::faults(&text(check, tap));
    assert!(
        fault("{ type = \"tcp\", via = \"path\" }", false)
            .contains("needs a port with exception = \"tap\" and an IPv4")
    );
    assert!(
        fault("{ type = \"ping\", via = \"path\" }", true).contains("of no use in a check of type \"ping\"")
    );
    assert!(fault("{ type = \"dns\", via = \"path\" }", true).contains("asks over udp, the service is tcp"));
    let bound = fault("{ type = \"tcp\", via = \"path\", bind = \"10.0.0.1\", port = 81 }", true);
    assert_eq!(bound.matches("is of no use with via = \"path\"").count(), 2, "{bound}");
    let own = good + "[[services.servers]]\naddress = \"192.168.150.11\"\n";
    assert!(crate::tests::faults(&own).contains("the director itself"), "{}", crate::tests::faults(&own));
    let many = text("{ type = \"tcp\", via = \"path\" }", true).replace("port = 80", "ports = \"80-81\"");
    assert!(crate::tests::faults(&many).contains("one VIP and one port"), "{}", crate::tests::faults(&many));
}

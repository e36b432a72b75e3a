use proptest::prelude::*;

use super::*;

const CONFIG: &str = r#"
[timeouts]
tcp_established = "600s"
[[ports]]
name = "lan"
device = "null"
addresses = ["10.0.0.1/24", "fd00::1/64"]
gateway = ["10.0.0.254", "fd00::fe"]
[[marks]]
value = 7
destination = "10.0.0.120"
[[services]]
name = "web"
vip = "10.0.0.100"
port = 80
persistence = { timeout = "60s" }
servers = [{ address = "10.0.0.11" }, { address = "10.0.0.12" }, { address = "fd00::12", forwarding = "tunnel", tunnel = { type = "ipip" } }]
[[services]]
name = "nat"
vip = "fd00::100"
port = 53
protocol = "udp"
forwarding = "nat"
servers = [{ address = "fd00::11", port = 5353 }]
[[services]]
name = "all"
vip = "10.0.0.101"
port = 0
persistence = { timeout = "90s", prefix = 24 }
servers = [{ address = "10.0.0.11" }]
[[services]]
name = "marked"
mark = 7
persistence = { timeout = "30s" }
servers = [{ address = "10.0.0.11" }]
[[services]]
name = "range"
vip = "10.0.0.128/28"
ports = "8000-8999"
persistence = { timeout = "30s" }
servers = [{ address = "10.0.0.11" }]
[[services]]
name = "full"
vip = "10.0.0.102"
port = 80
forwarding = "fullnat"
local_addresses = ["10.0.0.200"]
servers = [{ address = "10.0.0.11" }]
"#;

pub(in crate::sync::kernel) fn book() -> Book {
    Book::new(lb_config::parse(CONFIG).unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The name of a server of a service.
fn dest(book: &Book, service: &str, server: usize) -> DestKey {
    let service = book.model.services.iter().find(|own| own.name == service).unwrap();
    let Server { address, port, forwarding, .. } = service.servers[server];
    DestKey { owner: Owner::Service(service.address), address, port, forwarding }
}

fn connection(dest: DestKey, client: &str, vip: &str, port: u16) -> Connection {
    Connection {
        protocol: 6,
        client: (ip(client), 4000),
        vip: (ip(vip), port),
        dest,
        local: None,
        state: State::Established,
        flags: Known { no_output: true, ..Known::default() },
        left: 100 * Tick::PER_SECOND as u32,
        streams: Streams::Alike,
        template: None,
        told_ns: 0,
    }
}

/// A connection to the first server of a service, from this port.
pub(in crate::sync::kernel) fn record(book: &Book, service: &str, port: u16) -> Record {
    let own = book.model.services.iter().find(|own| own.name == service).unwrap();
    let ServiceAddress::Vip { vip, port: vport, protocol } = own.address else { unreachable!() };
    let ipv6 = vip.is_ipv6();
    let told = connection(dest(book, service, 0), if ipv6 { "fd00::9" } else { "10.0.0.9" }, "::", vport);
    let told = Connection { client: (told.client.0, port), vip: (vip, vport), ..told };
    Record::Connection(match protocol {
        Protocol::Udp => Connection { protocol: 17, state: State::Udp, ..told },
        _ => told,
    })
}

fn one(record: &Record, book: &Book) -> Result<Entry, Unsaid> {
    said(record, book)[0].clone().unwrap()
}

#[test]
fn a_connection_of_every_kind_is_understood_as_it_was_told() {
    let book = book();
    let web = connection(dest(&book, "web", 1), "10.0.0.9", "10.0.0.100", 80);
    let nat = Connection {
        protocol: 17,
        state: State::Udp,
        flags: Known::default(),
        ..connection(dest(&book, "nat", 0), "fd00::9", "fd00::100", 53)
    };
    let all = connection(dest(&book, "all", 0), "10.0.0.9", "10.0.0.101", 2222);
    let marked = connection(dest(&book, "marked", 0), "10.0.0.9", "10.0.0.120", 443);
    let range = connection(dest(&book, "range", 0), "10.0.0.9", "10.0.0.130", 8080);
    for (told, flags, server, mark) in [
        (web, Flags::DIRECT | Flags::NO_OUTPUT, ("10.0.0.12", 80), 0),
        (nat, Flags::MASQ | Flags::INACTIVE, ("fd00::11", 5353), 0),
        (all, Flags::DIRECT | Flags::NO_OUTPUT, ("10.0.0.11", 2222), 0),
        (marked, Flags::DIRECT | Flags::NO_OUTPUT, ("10.0.0.11", 443), 7),
        (range, Flags::DIRECT | Flags::NO_OUTPUT, ("10.0.0.11", 8080), 0),
    ] {
        let entry = one(&Record::Connection(told), &book).unwrap();
        assert_eq!((entry.flags, entry.mark, entry.timeout), (Flags(flags), mark, 100));
        assert_eq!(entry.server, (ip(server.0), server.1));
        assert_eq!(heard(&entry, &book), Ok(Record::Connection(told)));
    }
}

#[test]
fn a_template_of_every_kind_is_understood_as_it_was_told() {
    let book = book();
    for (name, vip, vport, wanted) in [
        ("web", "10.0.0.100", 80, (6, "10.0.0.9", ("10.0.0.100", 80), 80, 0)),
        ("all", "10.0.0.101", 2222, (6, "10.0.0.0", ("10.0.0.101", 0), 0, 0)),
        ("marked", "10.0.0.120", 443, (0, "10.0.0.9", ("0.0.0.7", 0), 0, 7)),
    ] {
        let service = book.model.services.iter().find(|own| own.name == name).unwrap();
        let rule = persistence_rule(service.address, service.persistence.unwrap());
        let child = Child { client: ip("10.0.0.9"), vip: ip(vip), vport, protocol: L4::Tcp };
        let template = Template {
            key: rule.key(&child),
            dest: dest(&book, name, 0),
            timeout_ns: rule.timeout_ns,
            left_ns: 20_000_000_000,
            assured: true,
        };
        let entry = one(&Record::Template(template), &book).unwrap();
        let (protocol, client, address, port, mark) = wanted;
        assert_eq!((entry.protocol, entry.client, entry.mark), (protocol, (ip(client), 0), mark), "{name}");
        assert_eq!(
            (entry.vip, entry.server),
            ((ip(address.0), address.1), (ip("10.0.0.11"), port)),
            "{name}"
        );
        assert_eq!((entry.state, entry.timeout, entry.is_template()), (ASSURED, 20, true));
        assert_eq!(heard(&entry, &book), Ok(Record::Template(template)), "{name}");
        // sent along with a connection, with the service's time
        let told = Connection {
            template: Some(template.key),
            flags: Known { controlled: true, assured: false, ..Known::default() },
            ..connection(template.dest, "10.0.0.9", vip, vport)
        };
        let [own, Some(Ok(along))] = said(&Record::Connection(told), &book) else { panic!("{name}") };
        assert!(own.is_some_and(|own| own.is_ok()));
        let timeout = (rule.timeout_ns / 1_000_000_000) as u32;
        assert_eq!(along, Entry { state: 0, timeout, ..entry });
    }
}

#[test]
fn what_has_no_words_is_named() {
    let book = book();
    let why = |told: Connection| one(&Record::Connection(told), &book).err();
    let web = connection(dest(&book, "web", 0), "10.0.0.9", "10.0.0.100", 80);
    assert_eq!(why(web), None);
    assert_eq!(why(Connection { dest: dest(&book, "full", 0), ..web }), Some(Unsaid::FullNat));
    assert_eq!(why(Connection { dest: dest(&book, "web", 2), ..web }), Some(Unsaid::Families));
    let sources = lb_config::IpPrefix::host(ip("10.0.0.9"));
    let snat = DestKey { owner: Owner::Snat { sources, protocols: 1, link: None }, ..web.dest };
    assert_eq!(why(Connection { dest: snat, ..web }), Some(Unsaid::Snat));
    assert_eq!(why(Connection { flags: Known { proxied: true, ..web.flags }, ..web }), Some(Unsaid::Stream));
    let range = book.model.services.iter().find(|own| own.name == "range").unwrap();
    let rule = persistence_rule(range.address, range.persistence.unwrap());
    let child = Child { client: ip("10.0.0.9"), vip: ip("10.0.0.130"), vport: 8080, protocol: L4::Tcp };
    let template = Template {
        key: rule.key(&child),
        dest: dest(&book, "range", 0),
        timeout_ns: 1,
        left_ns: 1,
        assured: false,
    };
    assert_eq!(one(&Record::Template(template), &book).err(), Some(Unsaid::Range));
}

#[test]
fn what_is_not_taken_over_is_named() {
    let book = book();
    let web = connection(dest(&book, "web", 0), "10.0.0.9", "10.0.0.100", 80);
    let entry = one(&Record::Connection(web), &book).unwrap();
    let why = |entry: Entry| heard(&entry, &book).err();
    assert_eq!(why(entry.clone()), None);
    assert_eq!(why(Entry { server: (ip("10.0.0.99"), 80), ..entry.clone() }), Some(Unheard::NoServer));
    assert_eq!(why(Entry { server: (ip("10.0.0.11"), 81), ..entry.clone() }), Some(Unheard::NoServer));
    assert_eq!(why(Entry { vip: (ip("10.0.0.100"), 81), ..entry.clone() }), Some(Unheard::NoServer));
    let seq = [Seq { delta: 5, ..Seq::default() }, Seq::default()];
    assert_eq!(why(Entry { seq: Some(seq), ..entry.clone() }), Some(Unheard::Sequence));
    assert_eq!(why(Entry { seq: Some(Default::default()), ..entry.clone() }), None);
    let flags = Flags(entry.flags.0 | Flags::NO_CPORT);
    assert_eq!(why(Entry { flags, ..entry.clone() }), Some(Unheard::NoClientPort));
    let engine = Engine { name: b"sip".to_vec(), data: b"1".to_vec() };
    assert_eq!(why(Entry { engine, ..entry.clone() }), Some(Unheard::Engine));
    let nat = Entry {
        protocol: 17,
        flags: Flags(Flags::TEMPLATE),
        state: 0,
        client: (ip("fd00::9"), 0),
        vip: (ip("fd00::100"), 53),
        server: (ip("fd00::11"), 5353),
        ..entry
    };
    assert_eq!(why(nat), Some(Unheard::NotPersistent));
}

#[test]
fn a_mark_that_no_service_has_does_not_hide_the_address() {
    let book = book();
    let web = connection(dest(&book, "web", 0), "10.0.0.9", "10.0.0.100", 80);
    let entry = one(&Record::Connection(web), &book).unwrap();
    assert_eq!(heard(&Entry { mark: 9, ..entry.clone() }, &book), Ok(Record::Connection(web)));
    // version 0 knows no time: the state's own
    let Ok(Record::Connection(untimed)) = heard(&Entry { timeout: 0, ..entry }, &book) else { panic!() };
    assert_eq!(untimed.left, 600 * Tick::PER_SECOND as u32);
}

proptest! {
    /// Whatever an entry says, what becomes of it is a record that may be told again.
    #[test]
    fn no_entry_is_misunderstood(protocol: u8, flags: u32, state in 0u16..14, octets: [u8; 3], ports: [u16; 3], mark in 0u32..9, timeout: u32) {
        let book = book();
        let near = |last: u8| ip(&format!("10.0.0.{}", last % 140));
        let pick = |at: usize| [80, 53, 8080, 0, ports[at]][usize::from(ports[at]) % 5];
        let entry = Entry {
            protocol: [6, 17, 132, 0, protocol][usize::from(protocol) % 5],
            flags: Flags(flags),
            state,
            client: (near(octets[0]), pick(0)),
            vip: (near(octets[1] | 100), pick(1)),
            server: (ip("10.0.0.11"), pick(2)),
            mark,
            timeout,
            seq: None,
            engine: Engine::default(),
        };
        if let Ok(record) = heard(&entry, &book) {
            if let Record::Connection(told) = &record {
                prop_assert!(told.left <= Tick::MAX_TIMEOUT && told.left > 0);
            }
            let again = said(&record, &book)[0].clone().unwrap();
            if let Ok(again) = again {
                prop_assert_eq!(heard(&again, &book).map(|_| ()), Ok(()));
            }
        }
    }
}

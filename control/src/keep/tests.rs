use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_config::Model;
use lb_dataplane::director::{ApplyError, DestKey, Director, Journal, Owner};
use lb_dataplane::ids::DestId;
use lb_dataplane::keep::{Estate, Secrets};
use lb_dataplane::setup::DeviceSetup;
use proptest::prelude::*;

use super::journal::Writer;
use super::*;

/// A folder that goes.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluice-keep-{}-{next}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LAYOUT: u64 = 0x1234_5678_9abc_def0;

fn head(generation: u64) -> Head {
    Head {
        layout: LAYOUT,
        boot: beat::boot(),
        generation,
        connections_per_worker: 1000,
        templates: 250,
        secrets: Secrets::random(2),
    }
}

fn beat(folder: &Path, worker_ns: u64, monotonic_ns: u64, workers: usize) {
    let words = [worker_ns, monotonic_ns].into_iter().chain((0..2 * workers as u64).map(|n| n + 1));
    fs::write(folder.join("beat"), words.flat_map(u64::to_le_bytes).collect::<Vec<_>>()).unwrap();
}

#[test]
fn a_head_reads_back_and_a_damaged_one_does_not() {
    let text = head(7).to_text();
    let back = Head::parse(&text).unwrap();
    assert_eq!(back.to_text(), text);
    assert_eq!((back.layout, back.generation, back.secrets.workers.len()), (LAYOUT, 7, 2));
    for at in 0..text.len() {
        let mut spoiled = text.clone().into_bytes();
        spoiled[at] ^= 1;
        let read = String::from_utf8(spoiled).map(|text| Head::parse(&text));
        assert!(!matches!(read, Ok(Ok(_))), "byte {at}");
        assert!(Head::parse(&text[..at]).is_err());
    }
}

#[test]
fn what_is_left_is_gone_on_with_only_if_it_fits() {
    let temp = Temp::new();
    let store = Store::open(&temp.0, None, "one").unwrap();
    assert!(matches!(Store::open(&temp.0, None, "one"), Err(StoreError::InUse(_))));
    assert_eq!(store.left(LAYOUT, 0).unwrap_err(), Unfit::Nothing);
    let write = |head: &Head| fs::write(store.folder.join("head"), head.to_text()).unwrap();
    write(&head(3));
    assert!(matches!(store.left(LAYOUT, 0), Err(Unfit::Damaged { file, .. }) if file == "beat"));
    let now = beat::monotonic_ns();
    beat(&store.folder, 5_000, now, 2);
    assert!(matches!(store.left(LAYOUT, 0), Err(Unfit::Damaged { file, .. }) if file == "journal.3"));
    fs::write(store.folder.join("journal.3"), "").unwrap();
    let (left, offset) = store.left(LAYOUT, 1 << 50).unwrap();
    let away = left.moment.now_ns - left.moment.last_ns;
    assert!(left.moment.last_ns == 5_000 && away < 60_000_000_000);
    assert_eq!(offset.wrapping_add(1 << 50), left.moment.now_ns, "the clock goes on");
    let floods =
        left.head.secrets.workers.iter().map(|w| (w.flood.cookies_until_ns, w.flood.strays_until_ns));
    assert_eq!(floods.collect::<Vec<_>>(), [(1, 2), (3, 4)]);

    assert_eq!(store.left(1, 0).unwrap_err(), Unfit::Layout { theirs: LAYOUT, ours: 1 });
    write(&Head { boot: "another".to_owned(), ..head(3) });
    assert_eq!(store.left(LAYOUT, 0).unwrap_err(), Unfit::Boot);
    write(&head(3));
    beat(&store.folder, 5_000, now + 1_000_000_000_000_000, 2);
    assert!(matches!(store.left(LAYOUT, 0), Err(Unfit::Damaged { file, .. }) if file == "beat"));
    beat(&store.folder, 5_000, now, 0);
    assert!(matches!(store.left(LAYOUT, 0), Err(Unfit::Damaged { file, .. }) if file == "beat"));
    // where the machine has run for so long
    if now > MAX_AWAY_NS + 3_600_000_000_000 {
        beat(&store.folder, 5_000, now - MAX_AWAY_NS - 1_000_000_000, 2);
        assert!(matches!(store.left(LAYOUT, 0), Err(Unfit::Away { hours: 18 })));
    }
}

#[test]
fn only_the_files_of_one_generation_stay() {
    let temp = Temp::new();
    let huge = temp.0.join("huge");
    fs::create_dir(&huge).unwrap();
    let store = Store::open(&temp.0, Some(&huge), "one").unwrap();
    let hugepages = store.huge.clone().unwrap();
    for name in ["worker-0--ipv4-connections.1", "worker-0--ipv4-connections.2", "journal.12", "journal.2"] {
        fs::write(store.folder.join(name), "").unwrap();
        fs::write(hugepages.join(name), "").unwrap();
    }
    fs::write(store.folder.join("journal.2.new"), "").unwrap();
    let names = |folder: &Path| {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    store.commit(&head(2)).unwrap();
    assert_eq!(names(&store.folder), ["head", "journal.2", "lock", "worker-0--ipv4-connections.2"]);
    assert_eq!(names(&hugepages), ["journal.2", "worker-0--ipv4-connections.2"]);
    store.discard();
    assert_eq!(names(&store.folder), ["lock"]);
    assert!(names(&hugepages).is_empty());
}

const PORTS: &str = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"192.168.150.11/24\"]\n";

fn model(services: &str) -> Model {
    lb_config::parse(&format!("{PORTS}{services}")).unwrap_or_else(|faults| panic!("{faults}"))
}

fn service(name: &str, port: u16, forwarding: &str, servers: &[u8]) -> String {
    let local = if forwarding == "fullnat" { "local_addresses = [\"192.168.150.20\"]" } else { "" };
    let servers: Vec<_> = servers.iter().map(|n| format!("{{ address = \"192.168.150.{n}\" }}")).collect();
    format!(
        "[[services]]\nname = \"{name}\"\nvip = \"192.168.150.100\"\nport = {port}\nforwarding = \"{forwarding}\"\n{local}\n\
         servers = [{}]\n[services.policy]\non_server_down = \"reset\"\n",
        servers.join(", ")
    )
}

fn director(model: &Model, estate: Estate) -> Director {
    let devices = vec![DeviceSetup { mac: [2; 6], rss: false }];
    Director::heir(model, devices, estate).unwrap().0
}

fn dests(path: &Path) -> Vec<String> {
    let content = journal::read(path).unwrap();
    assert_eq!(content.damaged, 0);
    let stands = |key: &DestKey| {
        let Owner::Service(service) = key.owner else { return false };
        content.standing.contains(&(service, SocketAddr::new(key.address, key.port)))
    };
    let row = |(index, key): (&u32, &DestKey)| {
        let gone = if stands(key) { "" } else { " gone" };
        format!("{index} {} {:?}{gone}", key.address, key.forwarding)
    };
    content.dests.iter().map(row).collect()
}

#[test]
fn a_journal_tells_who_has_which_index() {
    let temp = Temp::new();
    let path = temp.0.join("journal.1");
    let first = model(&(service("web", 80, "dr", &[12, 13]) + &service("app", 81, "fullnat", &[12])));
    let mut one = director(&first, Estate::new(1));
    one.keep_journal(Box::new(Writer::new(path.clone())), &[]);
    assert_eq!(dests(&path), ["0 192.168.150.12 Dr", "1 192.168.150.13 Dr", "2 192.168.150.12 FullNat"]);
    one.apply(&model(&(service("web", 80, "dr", &[14, 13]) + &service("new", 82, "nat", &[15])))).unwrap();
    let all = [
        "0 192.168.150.12 Dr gone",
        "1 192.168.150.13 Dr",
        "2 192.168.150.12 FullNat gone",
        "3 192.168.150.14 Dr",
        "4 192.168.150.15 Nat",
    ];
    assert_eq!(dests(&path), all);

    // a director after it, with another order, gives the same indices to the same servers
    let content = journal::read(&path).unwrap();
    let last = model(&(service("new", 82, "nat", &[16, 15]) + &service("web", 80, "dr", &[13])));
    let estate = Estate {
        former: content.dests.iter().map(|(index, key)| (lb_dataplane::ids::DestId(*index), *key)).collect(),
        services: content.services(&last),
        ..Estate::new(1)
    };
    let services: Vec<_> = estate.services.iter().map(|service| service.servers.len()).collect();
    assert_eq!(services, [3, 1, 1], "with all servers that have an index");
    let mut next = director(&last, estate);
    let again = temp.0.join("journal.2");
    next.keep_journal(Box::new(Writer::new(again.clone())), &[]);
    let mut all = [&all[..], &["5 192.168.150.16 Nat"]].concat();
    all[3] = "3 192.168.150.14 Dr gone";
    assert_eq!(dests(&again), all);
}

#[test]
fn an_index_is_of_who_had_it_last_and_a_server_has_the_last_one() {
    let temp = Temp::new();
    let path = temp.0.join("journal.1");
    let model = model(&service("web", 80, "dr", &[12, 13, 14]));
    let key = |at: usize| {
        let service = model.services.first().unwrap();
        let server = &service.servers[at];
        let owner = Owner::Service(service.address);
        DestKey { owner, address: server.address, port: server.port, forwarding: server.forwarding }
    };
    let mut writer = Writer::new(path.clone());
    writer.begin();
    let steps =
        [(0, 0, true), (1, 1, true), (0, 0, false), (2, 0, true), (0, 2, true), (1, 1, false), (1, 0, true)];
    for (index, server, stands) in steps {
        writer.dest(lb_dataplane::ids::DestId(index), &key(server), stands);
        writer.close();
    }
    assert_eq!(dests(&path), ["0 192.168.150.14 Dr", "1 192.168.150.12 Dr"]);
}

#[test]
fn a_former_service_that_is_not_possible_any_more_costs_no_other() {
    let temp = Temp::new();
    let path = temp.0.join("journal.1");
    let first = model(&(service("web", 80, "dr", &[12]) + &service("app", 81, "fullnat", &[12])));
    director(&first, Estate::new(1)).keep_journal(Box::new(Writer::new(path.clone())), &[]);
    let content = journal::read(&path).unwrap();
    let elsewhere = PORTS.replace("192.168.150.11/24", "192.168.150.11/28");
    let moved = lb_config::parse(&elsewhere).unwrap();
    let names: Vec<_> = content.services(&moved).iter().map(|service| service.name.clone()).collect();
    assert_eq!(names, ["web"], "its server is still on the network, the other's local address is not");
}

#[test]
fn a_beat_outlives_a_change_of_the_number_of_workers() {
    let temp = Temp::new();
    let floods = |beat: Result<Beat, String>| beat.map(|beat| beat.floods);
    let heart = |floods: &[(u64, u64)]| {
        let journal = Writer::new(temp.0.join("journal.1")).health();
        beat::Heart::new(&temp.0, floods.to_vec(), journal).unwrap()
    };
    heart(&[(1, 20), (10, 2)]).write().unwrap();
    assert_eq!(floods(Beat::read(&temp.0, 2)), Ok(vec![(1, 20), (10, 2)]));
    // killed before the first beat of another number of workers
    assert_eq!(floods(Beat::read(&temp.0, 1)), Ok(vec![(10, 20)]));
    assert_eq!(floods(Beat::read(&temp.0, 3)), Ok(vec![(10, 20); 3]));
    // and after it
    heart(&[(3, 4)]).write().unwrap();
    assert_eq!(floods(Beat::read(&temp.0, 1)), Ok(vec![(3, 4)]));
    fs::write(temp.0.join("beat"), [0; 24]).unwrap();
    assert!(Beat::read(&temp.0, 1).is_err());
}

#[test]
fn former_servers_for_which_there_is_no_room_any_more_are_refused() {
    let temp = Temp::new();
    let path = temp.0.join("journal.1");
    let limited = |most: u32, services: &str| model(&format!("[limits]\nmax_servers = {most}\n{services}"));
    let first =
        limited(8, &(service("web", 80, "dr", &[12, 13, 14]) + &service("app", 81, "dr", &[12, 13, 15])));
    director(&first, Estate::new(1)).keep_journal(Box::new(Writer::new(path.clone())), &[]);
    let content = journal::read(&path).unwrap();
    let begin = |model: &Model| {
        let former = content.dests.iter().map(|(index, key)| (DestId(*index), *key)).collect();
        let estate = Estate { former, services: content.services(model), ..Estate::new(1) };
        Director::heir(model, vec![DeviceSetup { mac: [2; 6], rss: false }], estate).map(|_| ())
    };
    // they keep their indices, so a new one finds none
    let new = limited(4, &service("web", 80, "dr", &[20]));
    let refused = begin(&new).unwrap_err();
    assert!(matches!(refused, ApplyError::TooManyServers { wanted: 1, limit: 4, .. }), "{refused}");
    assert_eq!(begin(&limited(4, &service("web", 80, "dr", &[12, 13]))), Ok(()));
    assert_eq!(begin(&limited(7, &service("web", 80, "dr", &[20]))), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_line_is_passed_over(spoil in prop::collection::vec((any::<u32>(), any::<u8>()), 1..20), cut: u16) {
        let temp = Temp::new();
        let path = temp.0.join("journal.1");
        let mut writer = Writer::new(path.clone());
        let text: String = (0..8).map(|n| service(&format!("s{n}"), 80 + n, "dr", &[12, 13])).collect();
        let model = model(&text);
        writer.begin();
        model.services.iter().for_each(|service| writer.service(service));
        writer.close();
        director(&model, Estate::new(1)).keep_journal(Box::new(writer), &[]);
        let whole = journal::read(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in spoil {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - usize::from(cut) % bytes.len());
        fs::write(&path, bytes).unwrap();
        let content = journal::read(&path).unwrap();
        for (index, key) in &content.dests {
            prop_assert_eq!(whole.dests.get(index), Some(key), "an index is never another's");
        }
        content.services(&model);
    }
}

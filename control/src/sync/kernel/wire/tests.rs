use proptest::prelude::*;

use super::*;

fn entries_of(datagram: &[u8]) -> Vec<Result<Entry, WireError>> {
    Message::parse(datagram).map(|message| message.entries().collect()).unwrap_or_default()
}

fn arb_seq() -> impl Strategy<Value = [Seq; 2]> {
    any::<[[u32; 3]; 2]>().prop_map(|both| both.map(|[init, delta, previous]| Seq { init, delta, previous }))
}

fn arb_addresses() -> impl Strategy<Value = [IpAddr; 3]> {
    prop_oneof![
        any::<[[u8; 4]; 3]>().prop_map(|all| all.map(IpAddr::from)),
        any::<[[u8; 16]; 3]>().prop_map(|all| all.map(IpAddr::from)),
    ]
}

fn arb_engine() -> impl Strategy<Value = Engine> {
    let bytes = prop::collection::vec(any::<u8>(), 1..=16);
    let some = (bytes, prop::collection::vec(any::<u8>(), 1..=255));
    prop::option::of(some.prop_map(|(name, data)| Engine { name, data })).prop_map(Option::unwrap_or_default)
}

/// Every entry that means something.
fn arb_entry() -> impl Strategy<Value = Entry> {
    let kind = (prop_oneof![Just((6, 11)), Just((17, 1)), Just((132, 14)), Just((0, 0))], any::<u16>());
    let rest = (any::<[u16; 3]>(), any::<u32>(), any::<u32>(), prop::option::of(arb_seq()), arb_engine());
    (kind, any::<u32>(), arb_addresses(), rest).prop_map(
        |(((protocol, states), state), flags, [client, vip, server], (ports, mark, timeout, seq, engine))| {
            let flags = flags & Flags::BACKUP & !Flags::TEMPLATE;
            let (flags, states) = if states == 0 { (flags | Flags::TEMPLATE, 2) } else { (flags, states) };
            Entry {
                protocol,
                flags: Flags(flags),
                state: state % states,
                client: (client, ports[0]),
                vip: (vip, ports[1]),
                server: (server, ports[2]),
                mark,
                timeout,
                seq,
                engine,
            }
        },
    )
}

fn messages(sync_id: u8, max: usize, entries: &[Entry]) -> Vec<Vec<u8>> {
    let mut builder = Builder::new(sync_id, max);
    let mut all: Vec<Vec<u8>> = entries.iter().filter_map(|entry| builder.push(entry)).collect();
    all.extend(builder.take());
    assert!(builder.is_empty() && builder.take().is_none());
    all
}

proptest! {
    #[test]
    fn what_was_written_is_read(sync_id: u8, max in 1usize..3000, entries in prop::collection::vec(arb_entry(), 0..40)) {
        let all = messages(sync_id, max, &entries);
        let mut read = Vec::new();
        for message in &all {
            let parsed = Message::parse(message).unwrap();
            prop_assert_eq!((parsed.sync_id, parsed.version), (sync_id, 1));
            let own: Vec<Entry> = parsed.entries().collect::<Result<_, _>>().unwrap();
            prop_assert!(!own.is_empty() && (message.len() <= max || own.len() == 1));
            read.extend(own);
        }
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        entries_of(&bytes);
    }

    /// A message that is whole by its head, with anything in it.
    #[test]
    fn no_entries_panic(mut bytes in prop::collection::vec(any::<u8>(), 8..400), kind in 0u8..2, small: bool) {
        let size = (bytes.len() as u16).to_be_bytes();
        bytes[..8].copy_from_slice(&[0, 1, size[0], size[1], 200, 1, 0, 0]);
        if bytes.len() > 12 && small {
            // sizes that lead somewhere
            (bytes[8], bytes[10]) = (kind, 0);
        }
        let read = entries_of(&bytes);
        prop_assert!(read.len() <= 200);
        prop_assert!(read.iter().rev().skip(1).all(|entry| entry.as_ref().err().is_none_or(|e| e.is_of_entry_alone())));
    }
}

fn sample() -> Vec<Entry> {
    let ip = |last| IpAddr::from([10, 0, 0, last]);
    let ip6 = |last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let tcp = Entry {
        protocol: 6,
        flags: Flags(Flags::DIRECT | Flags::NO_OUTPUT),
        state: 1,
        client: (ip(1), 1000),
        vip: (ip(100), 80),
        server: (ip(11), 80),
        mark: 7,
        timeout: 900,
        seq: Some([Seq { init: 1, delta: 2, previous: 3 }, Seq { init: 4, delta: 5, previous: 6 }]),
        engine: Engine { name: b"sip".to_vec(), data: b"call-id".to_vec() },
    };
    let six = Entry { client: (ip6(1), 1), vip: (ip6(2), 2), server: (ip6(3), 3), ..tcp.clone() };
    vec![tcp.clone(), six, Entry { seq: None, engine: Engine::default(), ..tcp }]
}

#[test]
fn every_truncation_is_refused_or_shorter() {
    let whole = messages(3, 1472, &sample()).remove(0);
    assert_eq!(entries_of(&whole).len(), 3);
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert_eq!(Message::parse(cut).err(), Some(WireError::Length), "{length}");
        // the same with a head that fits
        let mut cut = cut.to_vec();
        if length >= 4 {
            cut[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        }
        let read = entries_of(&cut);
        assert!(read.iter().filter(|entry| entry.is_ok()).count() < 3, "{length}");
    }
}

#[test]
fn every_flipped_byte_is_survived() {
    let whole = messages(3, 1472, &sample()).remove(0);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut other = whole.clone();
            other[at] ^= 1 << bit;
            assert!(entries_of(&other).len() <= 255);
        }
    }
}

/// A message around one entry's bytes.
fn around(entry: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 8 + entry.len() as u8, 1, 1, 0, 0];
    message.extend(entry);
    message
}

#[test]
fn what_the_kernel_refuses_is_refused() {
    let mut builder = Builder::new(0, 1472);
    builder.push(&sample()[2]);
    let good = builder.take().unwrap()[8..].to_vec();
    let fault = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut entry = good.clone();
        change(&mut entry);
        let size = entry.len() as u8;
        if entry[3] == 36 {
            entry[3] = size;
        }
        entries_of(&around(&entry))[0].clone().err()
    };
    assert_eq!(fault(&|_| {}), None);
    assert_eq!(fault(&|e| e[0] = 2), Some(WireError::EntryType));
    // IPv6 in an entry of IPv4's length
    assert_eq!(fault(&|e| e[0] = 1), Some(WireError::EntryLength));
    assert_eq!(fault(&|e| e[2] = 0x10), Some(WireError::EntryVersion));
    assert_eq!(fault(&|e| e[3] = 0), Some(WireError::EntryLength));
    assert_eq!(fault(&|e| e[3] = 200), Some(WireError::EntryLength));
    assert_eq!(fault(&|e| e[1] = 51), Some(WireError::Protocol));
    assert_eq!(fault(&|e| e[9] = 11), Some(WireError::State));
    assert_eq!(fault(&|e| (e[6], e[9]) = (0x10, 2)), Some(WireError::State));
    assert_eq!(fault(&|e| (e[6], e[9]) = (0x10, 1)), None);
    assert_eq!(fault(&|e| e.extend([1])), Some(WireError::Option));
    assert_eq!(fault(&|e| e.extend([1, 0])), Some(WireError::Option));
    assert_eq!(fault(&|e| e.extend([1, 4, 0, 0, 0, 0])), Some(WireError::Option));
    assert_eq!(fault(&|e| e.extend([9, 2, 0, 0])), Some(WireError::UnknownOption));
    assert_eq!(fault(&|e| e.extend([0x49, 2, 0, 0])), None);
    assert_eq!(fault(&|e| e.extend([2, 1, 0])), Some(WireError::Engine));
    assert_eq!(fault(&|e| e.extend([2, 1, 0, 3, 1, b'x'])), None);
    assert_eq!(fault(&|e| e.extend([2, 1, 0, 2, 1, 0])), Some(WireError::Option));
    let long = [&[3, 17][..], &[b'x'; 17]].concat();
    assert_eq!(fault(&|e| e.extend(&long)), Some(WireError::Option));
}

#[test]
fn a_refused_entry_takes_its_successors_along_only_where_the_kernel_drops_them() {
    let mut whole = messages(3, 1472, &sample()).remove(0);
    let second = {
        let mut builder = Builder::new(3, 1472);
        builder.push(&sample()[0]);
        builder.take().unwrap().len().next_multiple_of(4)
    };
    // the second one's protocol
    whole[second + 1] = 99;
    let read = entries_of(&whole);
    assert_eq!((read.len(), read[1].clone().err(), read[2].is_ok()), (3, Some(WireError::Protocol), true));
    // its version
    whole[second + 2] |= 0x20;
    let read = entries_of(&whole);
    assert_eq!((read.len(), read[1].clone().err()), (2, Some(WireError::EntryVersion)));
}

#[test]
fn version_0_is_read() {
    let mut datagram = vec![2, 9, 0, 4 + 24 + 48];
    let entry = |flags: [u8; 2]| {
        let mut entry = vec![0, 6, 0x10, 0, 0, 80, 0, 80, 10, 0, 0, 1, 10, 0, 0, 100, 10, 0, 0, 11];
        entry.extend(flags);
        entry.extend([0, 4]);
        entry
    };
    datagram.extend(entry([0x01, 0x83]));
    datagram.extend(entry([0x02, 0x40]));
    datagram.extend((0..24).map(|n| if n % 4 == 0 { n } else { 0 }));
    let message = Message::parse(&datagram).unwrap();
    assert_eq!((message.sync_id, message.version), (9, 0));
    let read: Vec<Entry> = message.entries().collect::<Result<_, _>>().unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].client, ([10, 0, 0, 1].into(), 4096));
    assert_eq!(read[0].flags, Flags(Flags::INACTIVE | Flags::NO_OUTPUT | Flags::DIRECT));
    assert_eq!((read[0].state, read[0].timeout, read[0].seq), (4, 0, None));
    let seq = |n: u32| Seq { init: n, delta: n + 4, previous: n + 8 };
    assert_eq!(read[1].seq, Some([seq(0), seq(12)]));
    // the same, cut
    datagram.truncate(60);
    datagram[3] = 60;
    let read: Vec<_> = Message::parse(&datagram).unwrap().entries().collect();
    assert_eq!((read.len(), read[1].clone().err()), (2, Some(WireError::EntryLength)));
}

#[test]
fn a_message_has_no_more_entries_than_its_byte_counts() {
    let entries = vec![sample().remove(2); 600];
    let all = messages(1, 65_000, &entries);
    let counts: Vec<u8> = all.iter().map(|message| message[4]).collect();
    assert_eq!(counts, [255, 255, 90]);
    assert_eq!(all.iter().map(|message| entries_of(message).len()).sum::<usize>(), 600);
}

/// Messages of a Linux 6.1 as `tests/peer/sync --capture` has them, a paragraph of hexadecimal digits each: connections
/// by NAT, tunnel and direct routing, of both families, TCP and UDP, with a mark, and templates.
const LINUX: &str = include_str!("linux-6.1.hex");

#[test]
fn messages_of_linux_are_read_and_written_to_the_byte() {
    let mut kinds = std::collections::BTreeSet::new();
    for paragraph in LINUX.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let digits: Vec<u8> = paragraph.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let datagram: Vec<u8> = digits.chunks(2).map(byte).collect();
        let message = Message::parse(&datagram).unwrap();
        assert_eq!((message.sync_id, message.version), (7, 1));
        let entries: Vec<Entry> = message.entries().collect::<Result<_, _>>().unwrap();
        let mut builder = Builder::new(7, 1472);
        for entry in &entries {
            assert_eq!(builder.push(entry), None);
            kinds.insert((entry.protocol, entry.flags.0, entry.client.0.is_ipv6(), entry.mark));
        }
        assert_eq!(builder.take(), Some(datagram));
    }
    let (direct, tunnel) = (Flags::DIRECT | Flags::NO_OUTPUT, Flags::TUNNEL | Flags::NO_OUTPUT);
    let template = Flags::TEMPLATE | Flags::INACTIVE | direct;
    for kind in [
        (6, direct, false, 0),
        (6, tunnel, false, 0),
        (6, Flags::MASQ, false, 0),
        (6, direct, true, 0),
        (6, Flags::MASQ, true, 0),
        (17, Flags::INACTIVE | Flags::MASQ, false, 0),
        (6, direct, false, 1),
        (6, template, false, 0),
        (0, template, false, 1),
    ] {
        assert!(kinds.contains(&kind), "{kind:?} is not in {kinds:?}");
    }
}

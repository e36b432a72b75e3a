//! What the layout of everything that outlives a process looks like, as a number.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::conn::{ConnKey, HashKey, Key4, Key6, Meta, Pair, Splice, Table, TableKey, Tick};
use crate::flood::cookie::{Cookies, Offer};
use crate::ids::DestId;
use crate::local_port::forward;
use crate::persist::Templates;
use crate::state::State;
use crate::steer;

/// Keys of the samples, for ever: what differs is the layout.
const SAMPLE: HashKey =
    HashKey([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89]);

/// A number that differs when tables, keys, entries, pairs, templates, their hashes or their times are kept otherwise.
///
/// It is worked out from what the code does, not from a version that somebody has to think of: samples of every kind are
/// put into small tables, and the bytes of these are hashed. Zero never comes of it.
pub fn fingerprint() -> u64 {
    let mut sum = SipHasher13::new_with_keys(0, 1);
    let states = State::ALL.into_iter().enumerate();
    let metas: Vec<Meta> = states
        .map(|(n, state)| {
            let protocol = [6, 17, 132][usize::from(state as u8 >> 4).min(2)];
            let deadline = Tick::from_ns((n as u64) << 33).after(777);
            let meta = Meta::new(protocol, DestId(n as u32 * 70_001), state, deadline);
            [
                meta,
                meta.with_no_output(true),
                meta.with_controlled(),
                meta.with_assured(),
                meta.with_proxied(),
                meta.with_heard(),
                meta.with_spliced(),
                meta.after_packet(state, true, deadline),
            ][n % 8]
        })
        .collect();
    let on = Meta::of_pair(forward(6));
    let stream = on.stream().answered(1 << 20, crate::parse::TcpFlags(0x12), 28);
    let pairs = [
        Meta::of_pair(6),
        Meta::of_pair(17).with_answered(),
        on,
        on.with_pair_proxied(),
        on.with_pair_proxied().with_stream(stream),
        on.with_splice(Splice::Opening { cookie: 0x1234_5678, window: 6400 }),
        on.with_splice(Splice::Open { delta: 0x8765_4321, to_server: 7, to_client: -3 }),
    ];
    let v4 = |n: u32| Key4::new((0x0a01_0203 + n).into(), 1000 + n as u16, 0xc0a8_9664.into(), 80);
    let v6 = |n: u32| Key6::new((7_u128 << 100 | u128::from(n)).into(), 1000 + n as u16, 5.into(), 443);
    add(&mut sum, v4, &metas);
    add(&mut sum, v6, &metas);
    add(&mut sum, |n| Pair { tuple: v4(n), other: v4(n + 1) }, &pairs);
    add(&mut sum, |n| Pair { tuple: v6(n), other: v6(n + 1) }, &pairs);
    sum.write(&Templates::sample());
    for client in [IpAddr::from([10, 1, 2, 3]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])] {
        sum.write_u32(steer::hash(client, 4711, &SAMPLE));
    }
    let offer = Offer { mss: 1460, scale: Some(7), sack: true };
    sum.write_u32(Cookies::new(SAMPLE).make(&v4(0), 1, &offer, 1 << 40));
    sum.finish().max(1)
}

/// A table of samples, so small that some keys are in their second lines.
fn add<K: TableKey>(sum: &mut SipHasher13, key: impl Fn(u32) -> K, metas: &[Meta]) {
    let lines = metas.len() / 2;
    let Ok(mut table) = Table::with_lines(lines, metas.len() as u32, SAMPLE) else { return };
    for (n, meta) in metas.iter().enumerate() {
        let key = key(n as u32);
        let probe = table.probe(&key, meta.protocol());
        // as many as chance has room for, which is the same every time
        let _ = table.insert(key, probe, *meta);
    }
    sum.write(table.as_bytes());
}

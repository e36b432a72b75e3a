//! Moving connections to other tables: there are more or fewer workers now, or limits have changed.
//!
//! A connection goes to the worker that owns its flow. Where the local end of a connection by full NAT or source NAT is
//! another worker's then, replies would not find it: it is lost. Where NICs themselves give flows to workers, nobody knows
//! whose a connection is when their number changes, and all are lost.

use super::census::{Census, is_pair};
use super::{Loss, Moment, Taken};
use crate::conn::{Meta, Pair, Table};
use crate::flow::Family;
use crate::io::WorkerId;
use crate::local_port::{forward, reply_of};
use crate::setup::WorkerSeed;
use crate::snapshot::Way;
use crate::steer;
use crate::tables::Tables;

/// Moves the connections that an earlier process left in `old`, a worker's tables each, into `new`, which are empty and
/// those of the workers that `seeds` are for. Returns what became of them by the worker that had them.
pub fn move_in(old: Vec<Tables>, new: &mut [Tables], seeds: &[WorkerSeed], moment: &Moment) -> Vec<Taken> {
    let same = old.len() == new.len();
    let mut all = Vec::new();
    for (worker, mut tables) in old.into_iter().enumerate() {
        let stays = same.then_some(WorkerId(worker as u16));
        let Some(seed) = seeds.first() else { break };
        let mut census = Census { seed, moment: *moment, taken: Taken::default() };
        let Tables { v4, v6, pairs4, pairs6, .. } = &mut tables;
        family(&mut census, v4, pairs4, new, stays);
        family(&mut census, v6, pairs6, new, stays);
        all.push(census.taken);
    }
    all
}

fn family<K: Family>(
    census: &mut Census<'_>,
    table: &mut Table<K>,
    pairs: &mut Table<Pair<K>>,
    new: &mut [Tables],
    stays: Option<WorkerId>,
) {
    if pairs.is_left() {
        pairs.repair(|_, meta| is_pair(meta));
    }
    if !table.is_left() {
        return;
    }
    let torn = table.repair(|_, _| true);
    census.taken.lost[Loss::Torn as usize] += u64::from(torn);
    for line in 0..table.lines() {
        table.walk(line, 1, |key, meta| {
            if let Err(loss) = one(census, key, meta, pairs, new, stays) {
                census.taken.lose(loss);
            }
        });
    }
}

fn one<K: Family>(
    census: &mut Census<'_>,
    key: &K,
    meta: Meta,
    pairs: &mut Table<Pair<K>>,
    new: &mut [Tables],
    stays: Option<WorkerId>,
) -> Result<(), Loss> {
    let (protocol, setup) = (meta.protocol(), &census.seed.setup);
    let entry = census.judge(key, meta, pairs)?;
    let has_both = entry.way.local_ends().is_some() || meta.is_spliced();
    let on = if has_both { reply_of(pairs, *key, protocol) } else { None };
    let owner = |client, port| steer::owner(client, port, setup.workers, &setup.steer_key);
    let worker = match stays {
        Some(worker) => worker,
        None => {
            let by_nic = setup.workers > 1
                && !census.seed.snapshot.has_replies()
                && setup.devices.iter().any(|device| device.rss);
            let worker = owner(key.client().into(), key.client_port());
            let apart = |(_, reply): &(_, K)| owner(reply.vip().into(), reply.vip_port()) != worker;
            if by_nic || entry.way.local_ends().is_some() && on.as_ref().is_some_and(apart) {
                return Err(Loss::Apart);
            }
            worker
        }
    };
    let tables = new.get_mut(usize::from(worker.0)).ok_or(Loss::Apart)?;
    if tables.len() >= tables.max {
        return Err(Loss::NoRoom);
    }
    let (table, theirs) = K::tables(tables);
    let reply = match on {
        Some((_, reply)) => Some(reply),
        None if entry.way == Way::Nat => crate::flow::reply_tuple(key, &entry),
        None => None,
    };
    if let Some((found, reply)) = on {
        put(theirs, Pair { tuple: *key, other: reply }, forward(protocol), found.meta)?;
    }
    if let Some(tuple) = reply {
        let wanted = Pair::wanted(tuple);
        if let Some(found) = pairs.find(&wanted, protocol, pairs.probe(&wanted, protocol))
            && pairs.key(found).other == *key
        {
            put(theirs, Pair { tuple, other: *key }, protocol, found.meta)?;
        }
    }
    let probe = table.probe(key, protocol);
    table.insert(*key, probe, meta).map_err(|_| Loss::NoRoom)?;
    census.count(worker, key, meta, &entry);
    Ok(())
}

/// Enters a pair. What is left of it when the rest finds no room is nobody's, and goes with the next take-over.
fn put<K: Family>(pairs: &mut Table<Pair<K>>, pair: Pair<K>, number: u8, meta: Meta) -> Result<(), Loss> {
    let probe = pairs.probe(&pair, number);
    if pairs.find(&pair, number, probe).is_some() {
        return Err(Loss::Torn);
    }
    pairs.insert(pair, probe, meta).map_err(|_| Loss::NoRoom)
}

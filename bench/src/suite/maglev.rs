//! Suite `maglev`: tables of 65537 and 655373 slots, built as the director builds them and by the paper's pseudocode 1.
//!
//! Both get the same permutations from the same hashes, and the tables must be the same. Disruption is the share of slots
//! of other servers that change when one of N leaves; imbalance is the largest share of a server over the mean.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::ensure;
use lb_dataplane::ids::DestId;
use lb_dataplane::sched::fill::Turn;
use lb_dataplane::sched::{FlowHash, MaglevTable, Member};

use crate::context::Context;
use crate::record::{Plot, Reached, Table};

/// Sizes of tables that a service may have.
const SIZES: [usize; 2] = [65_537, 655_373];

fn members(count: u32) -> Vec<Member> {
    let member = |n: u32| Member {
        address: IpAddr::from((0x0a00_0000 | n).to_be_bytes()),
        port: 0,
        weight: 1,
        dest: DestId(n),
    };
    (1..=count).map(member).collect()
}

/// Eisenbud et al., Maglev, NSDI 2016, pseudocode 1.
fn textbook(turns: &[Turn], size: usize) -> Vec<u32> {
    let mut next = vec![0; turns.len()];
    let mut slots = vec![u32::MAX; size];
    let mut filled = 0;
    while !turns.is_empty() {
        for (turn, next) in turns.iter().zip(&mut next) {
            let slot = |n: usize| (turn.offset as usize + n * turn.skip as usize) % size;
            let mut at = slot(*next);
            while slots[at] != u32::MAX {
                *next += 1;
                at = slot(*next);
            }
            slots[at] = turn.value;
            *next += 1;
            filled += 1;
            if filled == size {
                return slots;
            }
        }
    }
    slots
}

/// Measures.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let hash = FlowHash::from_secret(Some("bench"));
    let counts: &[u32] = if context.quick() { &[10, 1000] } else { &[10, 30, 100, 300, 1000] };
    let mut table = Table::new(
        "Maglev's tables",
        &[
            "slots",
            "servers",
            "ms",
            "textbook ms",
            "times",
            "max/mean",
            "one leaves: moved %",
            "one joins: moved %",
        ],
    );
    for size in SIZES {
        let mut plot =
            Plot::new(&format!("build-{size}"), &format!("Building {size} slots"), "servers", "ms");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for &count in counts {
            let list = members(count);
            let built = MaglevTable::new(&list, size, &hash);
            let peer = textbook(&MaglevTable::turns(&list, size, &hash), size);
            ensure!(built.slots().iter().map(|dest| dest.0).eq(peer), "{size} x {count}: not the same table");
            let repeat = if size == SIZES[0] { 20 } else { 3 };
            // the least of some: a table takes less than the time between two interruptions
            let least = |build: &dyn Fn()| -> anyhow::Result<f64> {
                let once = |_| {
                    let start = Instant::now();
                    build();
                    start.elapsed().as_secs_f64() * 1e3
                };
                Ok((0..repeat).map(once).fold(f64::INFINITY, f64::min))
            };
            let mut new = || least(&|| drop(black_box(MaglevTable::new(black_box(&list), size, &hash))));
            let mut paper = || {
                least(&|| drop(black_box(textbook(&MaglevTable::turns(black_box(&list), size, &hash), size))))
            };
            let setting = format!("{size} slots, {count} servers");
            let series =
                context.compare(&setting, "ms", &mut [("lb", &mut new), ("textbook", &mut paper)])?;
            let (own, peer) = (series[0].min(), series[1].min());
            ours.push((f64::from(count), own));
            theirs.push((f64::from(count), peer));
            let mut fewer = list.clone();
            fewer[count as usize / 2].weight = 0;
            let without = MaglevTable::new(&fewer, size, &hash);
            let gone = fewer[count as usize / 2].dest;
            let moved =
                built.slots().iter().zip(without.slots()).filter(|(a, b)| a != b && **a != gone).count();
            let more = MaglevTable::new(&members(count + 1), size, &hash);
            let came = DestId(count + 1);
            let joined =
                built.slots().iter().zip(more.slots()).filter(|(a, b)| a != b && **b != came).count();
            let mut shares = vec![0u32; count as usize + 1];
            built.slots().iter().for_each(|dest| shares[dest.0 as usize] += 1);
            let most = shares.iter().max().copied().unwrap_or_default();
            let percent = |slots: usize| format!("{:.2}", 100.0 * slots as f64 / size as f64);
            table.row([
                size.to_string(),
                count.to_string(),
                format!("{own:.3}"),
                format!("{peer:.3}"),
                format!("{:.1}", peer / own),
                format!("{:.4}", f64::from(most) * f64::from(count) / size as f64),
                percent(moved),
                percent(joined),
            ]);
            if (size, count) == (SIZES[0], 1000) {
                let reached = Reached::new("R1", own).in_caches(&setting).peer("textbook", peer);
                context.reached(reached.published("Maglev paper", 1.8).published("Envoy", 2.05))?;
            }
        }
        plot.line("lb", ours);
        plot.line("textbook", theirs);
        if !context.quick() {
            context.plot(plot);
        }
    }
    context.table(table);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textbook_and_the_director_make_the_same_table() {
        let hash = FlowHash::from_secret(Some("a"));
        for count in [1, 7, 50] {
            let table = MaglevTable::new(&members(count), 1009, &hash);
            let peer = textbook(&MaglevTable::turns(&members(count), 1009, &hash), 1009);
            assert!(table.slots().iter().map(|dest| dest.0).eq(peer));
        }
        assert_eq!(textbook(&[], 3), [u32::MAX; 3]);
    }
}

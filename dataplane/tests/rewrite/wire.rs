//! Every step of the recording that the engine is about gives the packets that the kernel sent, byte by byte.

use std::collections::BTreeMap;

use crate::recording::{Case, cases};
use crate::replay::Director;

/// What a replay came to.
#[derive(Default)]
struct Tally {
    same: usize,
    other: usize,
    wrong: Vec<String>,
}

fn replay(case: &Case) -> Tally {
    let (mut director, mut tally) = (Director::new(case), Tally::default());
    for (n, step) in case.steps.iter().enumerate() {
        let Some(sent) = director.step(&step.packet, step.from_client, &step.out) else {
            tally.other += 1;
            continue;
        };
        let expected: Vec<_> = step.out.iter().map(|out| out.packet.clone()).collect();
        if sent == expected {
            tally.same += 1;
            continue;
        }
        let texts: Vec<_> = step.out.iter().map(|out| out.text.as_str()).collect();
        tally.wrong.push(format!(
            "{} step {n}: {}\n expected {texts:?}\n {expected:02x?}\n got\n {sent:02x?}",
            case.name, step.text
        ));
    }
    tally
}

/// Steps that are about something else than rewriting: no connection, no service, the host's own answers; and
/// fragments, which are in [`crate::pieces`].
const OTHERS: [(&str, usize); 17] = [
    ("frag-ipip", 3),
    ("frag-nat", 3),
    ("frag-reorder-dr", 3),
    ("frag-reorder-ipip", 3),
    ("icmp-echo", 2),
    ("icmp-from-client-dr", 1),
    ("icmp-from-client-ipip", 1),
    ("icmp-from-server-nat", 1),
    ("local-server", 1),
    ("nat-out-unknown", 4),
    ("no-server6", 2),
    ("no-service", 3),
    ("non-syn", 4),
    ("persistent-removed-0", 2),
    ("persistent-removed-1", 2),
    ("truncated", 1),
    ("zero-weight", 1),
];

#[test]
fn every_recorded_packet_is_rewritten_as_the_kernel_does() {
    let (mut wrong, mut others, mut same) = (Vec::new(), BTreeMap::new(), 0);
    for case in cases() {
        let tally = replay(&case);
        wrong.extend(tally.wrong);
        same += tally.same;
        if tally.other > 0 {
            others.insert(case.name, tally.other);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected: BTreeMap<_, _> = OTHERS.iter().map(|(name, count)| (name.to_string(), *count)).collect();
    assert_eq!(others, expected, "{same} steps are the same");
}

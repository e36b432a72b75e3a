//! The suites: a file or folder each, and a line in [`SUITES`].

use anyhow::Context as _;

use crate::context::Context;

mod calibrate;
mod flood;
mod instructions;
mod latency;
mod lives;
mod maglev;
mod path;
mod port;
mod reconfig;
mod table;
mod workers;

/// One suite.
pub struct Suite {
    /// What it is called on the command line; its results are `NAME.json` and `NAME-*.svg`.
    pub name: &'static str,
    /// What it measures, in a line.
    pub doc: &'static str,
    /// Whether it works on one CPU, the last; others choose theirs.
    pub pinned: bool,
    /// Measures. Errors end the suite; what it had measured is kept.
    pub run: fn(&mut Context) -> anyhow::Result<()>,
}

/// Every suite, in the order in which `all` runs them and the report shows them.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "calibrate",
        doc: "ns per random line over working sets, in huge and in small pages",
        pinned: true,
        run: calibrate::run,
    },
    Suite {
        name: "table",
        doc: "the connection table beside DPDK's rte_hash; memory, expiry",
        pinned: true,
        run: table::run,
    },
    Suite {
        name: "path",
        doc: "ns per packet of the packet path in memory, by forwarding and connections",
        pinned: true,
        run: path::run,
    },
    Suite {
        name: "flood",
        doc: "established traffic while first packets come at twice the capacity",
        pinned: true,
        run: flood::run,
    },
    Suite {
        name: "instructions",
        doc: "instructions per packet, counted by callgrind",
        pinned: false,
        run: instructions::run,
    },
    Suite {
        name: "port",
        doc: "whole programs over software ports beside testpmd, and over veth beside nftables, haproxy and nginx",
        pinned: false,
        run: port::run,
    },
    Suite {
        name: "latency",
        doc: "latency added at half load, and what sampling it always costs",
        pinned: false,
        run: latency::run,
    },
    Suite {
        name: "workers",
        doc: "one and two workers, with packets handed over, beside two directors that share nothing",
        pinned: false,
        run: workers::run,
    },
    Suite {
        name: "maglev",
        doc: "time to build Maglev's tables, how even they are, and what moves when a server comes or goes",
        pinned: true,
        run: maglev::run,
    },
    Suite {
        name: "lives",
        doc: "connections that break while servers come, go, drain and change weight, beside hashing without a table",
        pinned: false,
        run: lives::run,
    },
    Suite {
        name: "reconfig",
        doc: "packets lost by changes under full load, and what changes cost the control core",
        pinned: false,
        run: reconfig::run,
    },
];

/// What a process that a suite starts does, given the words after its name; not shown to users.
type Child = fn(&[String]) -> anyhow::Result<()>;

/// Work that suites have done in a process of its own (`lb-bench NAME WORD...`), as under callgrind.
const CHILDREN: &[(&str, Child)] = &[(instructions::CHILD, instructions::child), ("port-child", port::child)];

/// The suite of that name.
///
/// Errors: there is none; says which there are.
pub fn named(name: &str) -> anyhow::Result<&'static Suite> {
    let names = || SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
    SUITES
        .iter()
        .find(|suite| suite.name == name)
        .with_context(|| format!("no suite '{name}': there are {}, and all, report, check, list", names()))
}

/// The work of that name that is for a process of its own.
pub fn child(name: &str) -> Option<Child> {
    CHILDREN.iter().find(|(known, _)| *known == name).map(|(_, child)| *child)
}

/// The suites and what they measure, for `--help`.
pub fn help() -> String {
    let lines = SUITES.iter().map(|suite| format!("  {:<13} {}\n", suite.name, suite.doc));
    format!("Suites:\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_of_a_kind_and_no_command() {
        for (at, suite) in SUITES.iter().enumerate() {
            assert!(!["all", "report", "check", "list"].contains(&suite.name), "{}", suite.name);
            assert!(SUITES[..at].iter().all(|other| other.name != suite.name), "{}", suite.name);
            assert!(child(suite.name).is_none(), "{}", suite.name);
        }
    }

    #[test]
    fn an_unknown_suite_is_refused_with_those_that_there_are() {
        let error = named("pth").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("'pth'") && error.contains("path"), "{error}");
    }
}

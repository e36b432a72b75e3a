//! The runner's own test: recordings with one thing changed must differ, there and nowhere else.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::load;
use crate::report::{Findings, Meant};

/// A recording, what is changed in it, and where that must show: case and what.
struct Wrong {
    file: &'static str,
    /// JSON pointer of what is kept of a list, and how many: a short recording is replayed fast.
    keep: (&'static str, usize),
    /// JSON pointer and new value.
    change: (&'static str, Value),
    shows: (&'static str, &'static str),
}

fn wrongs() -> Vec<Wrong> {
    let wrong = |file, keep, change, shows| Wrong { file, keep, change, shows };
    vec![
        wrong(
            "sched-rr.json",
            ("/scenarios", 1),
            ("/scenarios/0/events/3/server", json!("rs9")),
            ("hold", "open"),
        ),
        wrong(
            "sched-rr.json",
            ("/scenarios", 1),
            ("/scenarios/0/events/5/conns/rs1/0", json!(9)),
            ("hold", "open: conns"),
        ),
        wrong(
            "sched-rr.json",
            ("/scenarios", 1),
            ("/scenarios/0/events/3/op", json!("jump")),
            ("file", "format"),
        ),
        wrong("sched-rr.json", ("/scenarios", 1), ("/extra", json!(1)), ("file", "format")),
        wrong(
            "states-udp.json",
            ("/tables", 1),
            ("/tables/0/transitions/0/timer", json!(200)),
            ("Udp Nat {}: no connection + in datagram", "timer"),
        ),
        wrong(
            "states-udp.json",
            ("/tables", 1),
            ("/tables/0/transitions/0/next", json!("ESTABLISHED")),
            ("Udp Nat {}: no connection + in datagram", "next"),
        ),
        wrong(
            "wire.json",
            ("/cases", 1),
            ("/cases/0/steps/0/out/0/mac", json!("02:00:00:00:01:0c")),
            ("dr-tcp", "mac"),
        ),
        wrong("wire.json", ("/cases", 1), ("/cases/0/steps/1/conns", json!([])), ("dr-tcp", "conns")),
        wrong(
            "wire.json",
            ("/cases", 1),
            ("/cases/0/settings", json!({ "sh": ["reboot"] })),
            ("dr-tcp", "replay"),
        ),
        wrong(
            "listing-empty.json",
            ("/steps", 3),
            ("/steps/1/stdout", json!("IP Virtual Server\n")),
            ("1: ipvsadm", "stdout"),
        ),
        wrong("listing-empty.json", ("/steps", 3), ("/steps/1/rc", json!(3)), ("1: ipvsadm", "rc")),
        wrong(
            "listing-empty.json",
            ("/steps", 3),
            ("/steps/1/cmd", json!("frobnicate")),
            ("1: frobnicate", "replay"),
        ),
        wrong(
            "rate.json",
            ("/samples", 5),
            ("/samples/4/rate/10.0.0.100:80/0", json!(27)),
            ("sample 4", "--rate"),
        ),
    ]
}

/// Replays every one of them. Errors: one of which nothing, or something else, was found.
pub fn run(dir: &Path, meant: &Meant, replay: fn(&load::Vectors, &mut Findings)) -> Result<usize> {
    let wrongs = wrongs();
    for wrong in &wrongs {
        let path = dir.join(wrong.file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut value: Value = serde_json::from_str(&text)?;
        if let Some(list) = value.pointer_mut(wrong.keep.0).and_then(Value::as_array_mut) {
            list.truncate(wrong.keep.1);
        }
        let (parent, key) = wrong.change.0.rsplit_once('/').context("a pointer")?;
        match value.pointer_mut(parent) {
            Some(Value::Object(object)) => drop(object.insert(key.to_owned(), wrong.change.1.clone())),
            Some(Value::Array(list)) => {
                *list.get_mut(key.parse::<usize>()?).context("a place")? = wrong.change.1.clone()
            }
            _ => bail!("{}: nothing to change at {}", wrong.file, wrong.change.0),
        }
        let mut findings = Findings::default();
        match load::of(value) {
            Ok(vectors) => replay(&vectors, &mut findings),
            Err(error) => {
                findings.begin("file");
                findings.fault("load", "format", &format!("{error:#}"));
            }
        }
        let found = meant.unexplained(wrong.file, &findings);
        let expected = (wrong.shows.0.to_owned(), wrong.shows.1.to_owned());
        if found != [expected] {
            bail!("{} with {} = {} shows as {found:?}", wrong.file, wrong.change.0, wrong.change.1);
        }
    }
    Ok(wrongs.len())
}

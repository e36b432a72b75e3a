//! What the kernel was recorded doing with persistent services, done again by classifier and templates.
//!
//! `tests/golden/persistence.json` is the whole recording, `wire-persistence.json` has the cases of `wire.json` with
//! persistence. Compared are the templates that `ipvsadm -Lnc` lists, the server of every connection and the
//! columns PersistConn and InActConn; connections themselves and packets are compared elsewhere. A command that the
//! replay does not know is a failure.

#![allow(clippy::expect_used, reason = "helpers of tests")]

mod director;
mod shell;

use std::path::Path;

use director::{Director, Server};
use lb_dataplane::parse::L4;
use serde_json::Value;

fn recording(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The variables of the recording's script.
fn expand(command: &str) -> String {
    command.replace("$VIP6", "fd00:a::100").replace("$VIP", "10.0.0.100")
}

#[test]
fn the_recording_of_persistent_services_is_repeated() {
    let recording = recording("../tests/golden/persistence.json");
    let mut director = Director::new();
    let mut checked = 0;
    for step in recording["steps"].as_array().expect("steps") {
        let Some(command) = step["cmd"].as_str() else { continue };
        let stdout = text(step, "stdout");
        checked += replay(&mut director, &expand(command), stdout);
    }
    // the servers of 23 connections, 16 rows of templates, 9 rows of servers with their counts
    assert_eq!(checked, 23 + 16 + 9, "things compared");
}

/// Does a command and compares what it printed. Returns the number of things compared.
fn replay(director: &mut Director, command: &str, stdout: &str) -> usize {
    let (command, filter) = command.split_once(" | grep ").map_or((command, None), |(a, b)| (a, Some(b)));
    match command {
        "ipvsadm -Lnc" | "ipvsadm -Lnc --persistent-conn" => {
            let keep = |line: &String| filter.is_none_or(|filter| shell::grep(filter, line));
            let ours: Vec<String> = director.listing().into_iter().filter(keep).collect();
            let theirs = shell::sorted(stdout.lines().filter_map(shell::template_row));
            assert_eq!(ours, theirs, "{command}");
            theirs.len()
        }
        "cat /proc/net/ip_vs_conn" => {
            let rows = stdout.lines().filter_map(shell::template_row_of_proc);
            let theirs = shell::sorted(rows);
            assert_eq!(director.listing(), theirs, "{command}");
            theirs.len()
        }
        "ipvsadm -Ln --persistent-conn" => {
            let rows = stdout.lines().filter_map(|line| line.trim_start().strip_prefix("-> "));
            let rows: Vec<&str> = rows.filter(|row| !row.starts_with("RemoteAddress")).collect();
            for row in &rows {
                let columns: Vec<&str> = row.split_whitespace().collect();
                let ours = director.counts(columns[0]).map(|count| count.to_string());
                assert_eq!(ours, [columns[2], columns[4]], "{command}: {row}");
            }
            rows.len()
        }
        // nothing about templates in these
        "ipvsadm -Ln" | "ipvsadm -Ln --thresholds" => 0,
        _ => {
            let mut answers = stdout.lines();
            let mut compared = 0;
            for command in shell::unroll(command) {
                if let Some(packet) = shell::traffic(&command) {
                    // the client is in what the server answered; without an answer nothing can be compared
                    let Some(answer) = answers.next() else { continue };
                    let answer = shell::answer(answer);
                    let server = director.connects(answer.client, packet).expect("a server");
                    director.answered(answer.client, packet);
                    assert_eq!(server, Server::of_number(answer.server, server.0), "{command}");
                    compared += 1;
                } else {
                    director.ipvsadm(&command);
                }
            }
            compared
        }
    }
}

#[test]
fn the_recorded_packets_of_persistent_services_leave_the_recorded_templates() {
    let recording = recording("tests/persistence/wire-persistence.json");
    let cases = recording["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = text(case, "name");
        let mut director = Director::new();
        director.expire_quiescent_template = case["settings"]["sysctl"]["expire_quiescent_template"] == 1;
        director.expire_nodest_conn = case["settings"]["sysctl"]["expire_nodest_conn"] == 1;
        for command in case["setup"].as_array().expect("setup") {
            director.ipvsadm(command.as_str().expect("a command"));
        }
        for (at, step) in case["steps"].as_array().expect("steps").iter().enumerate() {
            if let Some(command) = step["ctl"].as_str() {
                director.ipvsadm(command);
            } else {
                let packet = text(step, "packet");
                let flow = shell::packet(packet);
                let to = (flow.vip, flow.vport, L4::Tcp);
                if flow.syn {
                    let server = director.connects((flow.client, flow.cport), to).expect("a server");
                    // the last byte of the MAC address that the packet was sent to is the server's
                    let mac = text(&step["out"][0], "mac");
                    let number =
                        u8::from_str_radix(mac.rsplit(':').next().expect("a byte"), 16).expect("hex");
                    assert_eq!(server.0.to_string(), format!("10.1.0.{number}"), "{name}, step {at}");
                } else {
                    director.answered((flow.client, flow.cport), to);
                }
            }
            let rows = step["conns"].as_array().expect("conns").iter();
            let theirs = shell::sorted(rows.filter_map(|row| shell::template_row_of_wire(row.as_str()?)));
            assert_eq!(director.listing(), theirs, "{name}, step {at}");
            director.later(1);
        }
    }
}

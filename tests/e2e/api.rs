//! The Unix socket: who may do what, and what hostile clients cannot do.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::case::Case;
use lb_tests::config::Config;
use lb_tests::lab::Lab;
use lb_tests::process;

/// A group that every Debian has, by name and number, and that is nobody's primary group here.
const GROUP: (&str, u32) = ("adm", 4);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("hostile_clients_do_not_disturb_lbd", hostile),
        Case::new("others_may_neither_read_nor_change", |lab| permissions(lab, false)),
        Case::new("others_may_read_if_so_configured", |lab| permissions(lab, true)),
        Case::new("every_read_prints_text_and_json", reads),
    ]
}

fn hostile(lab: &mut Lab) -> Result<()> {
    lab.start_director(&Config::default())?;
    let director = lab.director()?;
    let connect = || UnixStream::connect(director.socket()).context("connect");
    let garbage: [&[u8]; 6] = [
        &[0xff; 8],                // a length of 4 GiB
        &[0, 0, 0, 0],             // an empty frame
        &[0, 0, 0, 9, b'x'],       // half a frame
        b"GET / HTTP/1.0\r\n\r\n", // another protocol
        &[0, 0, 0, 2, 0xc3, 0x28], // no UTF-8
        b"\x00\x00\x00\x05hello",  // no hello
    ];
    let mut open = Vec::new();
    for bytes in garbage {
        let mut stream = connect()?;
        // lbd may have closed it already.
        let _ = stream.write_all(bytes);
        open.push(stream);
        ensure!(director.lbctl(&["stats"])?.status.success(), "lbctl fails after {bytes:02x?}");
    }
    drop(open);
    // More connections than lbd takes: a client is told so, and when they are gone it works again.
    let crowd: Vec<_> = (0..100).map(|_| connect()).collect::<Result<_>>()?;
    let crowded = director.lbctl(&["stats"])?;
    ensure!(crowded.status.code().is_some_and(|code| code != 0), "100 idle clients and room for another");
    drop(crowd);
    lb_tests::wait::wait_until("lbctl works again", Duration::from_secs(5), || {
        Ok(director.lbctl(&["stats"])?.status.success())
    })?;
    // A frame above the limit is refused with words, not with a hang.
    let mut stream = connect()?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[0xff; 4])?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(!answer.is_empty(), "no answer to a frame that is too long");
    Ok(())
}

fn permissions(lab: &mut Lab, public_read: bool) -> Result<()> {
    let appliance = format!("socket_group = \"{}\"\nsocket_public_read = {public_read}", GROUP.0);
    lab.start_director(&Config { appliance, ..Config::default() })?;
    let director = lab.director()?;
    let meta = std::fs::metadata(director.socket())?;
    let (mode, group) = (meta.mode() & 0o777, meta.gid());
    ensure!(meta.file_type().is_socket() && group == GROUP.1, "the socket's group is {group}");
    ensure!(mode == if public_read { 0o666 } else { 0o660 }, "the socket's mode is {mode:o}");
    let group = GROUP.1.to_string();
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let member = ["setpriv", "--reuid", "65534", "--regid", &group, "--clear-groups", "--"];
    let as_user = |user: &[&str], arguments: &[&str]| -> Result<(bool, String)> {
        let argv = director.lbctl_argv(arguments);
        let argv: Vec<&str> = user.iter().copied().chain(argv.iter().map(String::as_str)).collect();
        let output = process::output(&argv)?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let read = as_user(&nobody, &["server", "list"])?;
    ensure!(read.0 == public_read, "nobody reads: {read:?}");
    let change = ["server", "edit", "web", "192.168.150.12", "--weight", "7"];
    let changed = as_user(&nobody, &change)?;
    ensure!(!changed.0 && !changed.1.is_empty(), "nobody changes: {changed:?}");
    ensure!(director.server("web", "192.168.150.12")?.weight == 1, "a refused change was made");
    let changed = as_user(&member, &change)?;
    ensure!(changed.0, "a member of the group is refused: {changed:?}");
    ensure!(director.server("web", "192.168.150.12")?.weight == 7, "the member's change was not made");
    Ok(())
}

fn reads(lab: &mut Lab) -> Result<()> {
    let _nginx = lab.start_nginx()?;
    lab.start_director(&Config::default())?;
    lab.curl("http://192.168.150.100/")?;
    let director = lab.director()?;
    for command in [
        "show",
        "service list",
        "server list",
        "connections",
        "stats",
        "drops --all",
        "neighbors",
        "workers",
        "latency",
        "version",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        ensure!(!director.ask(&arguments)?.trim().is_empty(), "lbctl {command} prints nothing");
        let value: serde_json::Value = director.json(&arguments)?;
        ensure!(value.is_object(), "lbctl {command} --json is no object: {value}");
    }
    let table = director.ask(&["server", "list"])?;
    ensure!(table.contains("ActiveConn") && table.contains("InActConn"), "no ipvsadm's columns in {table}");
    Ok(())
}

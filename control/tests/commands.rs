//! The programs as they are typed: exit codes and what goes where.

#![allow(clippy::expect_used)] // in helpers; in test functions the workspace allows it

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn run(program: &str, arguments: &[&str]) -> Output {
    let output =
        Command::new(program).args(arguments).env_remove("SLUICE_SOCKET").stdin(Stdio::null()).output();
    output.expect("the program was built with this test")
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const LBCTL: &str = env!("CARGO_BIN_EXE_lbctl");

#[test]
fn lbctl_exits_with_2_on_wrong_usage() {
    let output = run(LBCTL, &["server", "add", "web"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output.stderr).contains("<ADDRESS>"), "{output:?}");
}

#[test]
fn lbctl_exits_with_3_without_lbd_and_still_tells_its_version() {
    let output = run(LBCTL, &["--socket", "/nonexistent/lbd.sock", "version"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text_of(&output.stdout), format!("lbctl {}\n", env!("CARGO_PKG_VERSION")));
    assert!(
        text_of(&output.stderr).starts_with("lbctl: cannot reach lbd at /nonexistent/lbd.sock: "),
        "{output:?}"
    );
}

#[test]
fn lbctl_takes_the_socket_from_the_environment() {
    let output = Command::new(LBCTL).arg("show").env("SLUICE_SOCKET", "/nonexistent/env.sock").output();
    let output = output.expect("the program was built with this test");
    assert!(text_of(&output.stderr).contains("/nonexistent/env.sock"), "{output:?}");
}

#[test]
fn lbctl_exits_with_1_when_its_file_is_missing() {
    let output = run(LBCTL, &["apply", "/nonexistent/a.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output.stderr).starts_with("lbctl: cannot read /nonexistent/a.toml: "), "{output:?}");
}

#[test]
fn lbctl_checks_a_file_without_lbd() {
    let check = |text: &str| {
        let mut child = Command::new(LBCTL)
            .args(["check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built with this test");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads its input");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), text_of(&output.stdout), text_of(&output.stderr))
    };
    let port = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"192.168.150.11/24\"]\n";
    assert_eq!(check(port), (Some(0), "-: ok\n".to_owned(), String::new()));
    let marks = format!("{port}[[marks]]\nvalue = 7\n");
    let warning = "warning: line 6: marks[0].value: no service goes by the mark 7\n";
    assert_eq!(check(&marks), (Some(0), "-: ok\n".to_owned(), warning.to_owned()));
    let (code, out, err) = check(&format!("{port}mtu = 1\nvlan = 5000\n"));
    assert_eq!((code, out), (Some(1), String::new()));
    assert!(
        err.starts_with("lbctl: -:\nline 5: ports[0].mtu: ") && err.contains("\nline 6: ports[0].vlan: "),
        "{err}"
    );
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = Command::new(LBCTL)
        .args(["--socket", "/nonexistent/s", "version"])
        .stdout(writer)
        .stderr(Stdio::null())
        .status();
    // Not 1: writing its own version to nobody did not end it.
    assert_eq!(status.expect("the program was built with this test").code(), Some(3));
}

#[cfg(feature = "dpdk")]
mod lbd {
    use std::path::PathBuf;

    use super::{run, text_of};

    fn file(name: &str, content: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sluice-commands-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("the temporary directory takes a file");
        path
    }

    #[test]
    fn lbd_checks_a_file_and_names_every_fault() {
        let lbd = env!("CARGO_BIN_EXE_lbd");
        let port = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"192.168.150.11/24\"]\n";
        let good = file("good.toml", port);
        let output = run(lbd, &["--check", &good.to_string_lossy()]);
        assert_eq!(
            (output.status.code(), text_of(&output.stdout)),
            (Some(0), format!("{}: ok\n", good.display()))
        );

        let bad = file("bad.toml", &format!("{port}mtu = 1\nvlan = 5000\n"));
        let output = run(lbd, &["--check", &bad.to_string_lossy()]);
        assert_eq!((output.status.code(), text_of(&output.stdout)), (Some(1), String::new()));
        let faults = text_of(&output.stderr);
        assert!(
            faults.contains("line 5: ports[0].mtu: ") && faults.contains("line 6: ports[0].vlan: "),
            "{faults}"
        );

        let output = run(lbd, &["--config", &bad.to_string_lossy()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text_of(&output.stderr).contains("line 6: ports[0].vlan: "), "{output:?}");
        assert_eq!(run(lbd, &[]).status.code(), Some(2));
        assert_eq!(run(lbd, &["--check", "a", "--config", "b"]).status.code(), Some(2));
        for path in [good, bad] {
            let _ = std::fs::remove_file(path);
        }
    }
}

//! The machine code of the express path: no locked instruction, no call of the allocator.
//!
//! Builds `examples/turns.rs` as it would be shipped, disassembles it with objdump (package binutils) and follows every
//! call from the functions of the path.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test")]

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;

/// Where the path begins and what it consists of.
const ROOTS: [&str; 3] = ["Worker<I>>::see>", "Worker<I>>::act_alike>", "Worker<I>>::process>"];

/// Where the express path ends: what is called for packets that are not the usual case, or once a burst.
const ENDS: [&str; 10] = [
    // the general way of a packet: it may schedule, and ask a template behind its lock
    "::dispatch>",
    "::at_length>",
    // a frame that the parser refused, which may go into the kernel's queue
    "::unreadable>",
    // a first packet is admitted as there, and may wait for its server's MAC address
    "::first_plain>",
    "::admit_run>",
    "::admitted>",
    // a connection changes its state: a persistence template may have to be told
    "::renewed_otherwise>",
    // the port's own code
    "PacketIo>::",
    // a handover ends in the ring between workers, once a burst
    "::hand_over>",
    // panics that no packet reaches
    "core::panicking::",
];

struct Function {
    name: String,
    lines: Vec<String>,
    targets: Vec<u64>,
}

fn program() -> PathBuf {
    // beside what the end-to-end tests build
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("..");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--release", "-p", "lb-dataplane", "--example", "turns"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success());
    target.join("release/examples/turns")
}

/// Every function of the program by its address.
fn functions(text: &str) -> HashMap<u64, Function> {
    let mut all = HashMap::new();
    let mut current: Option<(u64, Function)> = None;
    for line in text.lines() {
        if let Some((address, name)) = line.strip_suffix(':').and_then(|line| line.split_once(" <")) {
            all.extend(current.take());
            if let Ok(address) = u64::from_str_radix(address, 16) {
                let function = Function { name: format!("<{name}"), lines: Vec::new(), targets: Vec::new() };
                current = Some((address, function));
            }
        } else if let Some((_, function)) = &mut current
            && let Some((_, code)) = line.split_once(":\t")
        {
            let mut words = code.split_whitespace();
            let op = words.next().unwrap_or_default();
            if (op == "call" || op.starts_with('j'))
                && let Some(to) = words.next().and_then(|to| u64::from_str_radix(to, 16).ok())
            {
                function.targets.push(to);
            }
            function.lines.push(code.to_owned());
        }
    }
    all.extend(current);
    all
}

fn is_locked(code: &str) -> bool {
    code.starts_with("lock ")
        || code.starts_with("xchg") && code.contains('(') && !code.contains("(%rax,%rax,1)")
}

fn is_allocator(code: &str) -> bool {
    [
        "__rust_alloc",
        "__rust_dealloc",
        "__rust_realloc",
        "__rdl_",
        "<malloc",
        "<free",
        "<realloc",
        "<calloc",
        "<posix_memalign",
    ]
    .iter()
    .any(|name| code.contains(name))
}

#[test]
fn the_express_path_neither_locks_nor_allocates() {
    let output = Command::new("objdump")
        .args(["--disassemble", "--demangle", "--no-show-raw-insn"])
        .arg(program())
        .output()
        .expect("objdump (package binutils) runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let functions = functions(&text);
    let mut left: Vec<u64> = Vec::new();
    for root in ROOTS {
        let of: Vec<_> = functions
            .iter()
            .filter(|(_, function)| function.name.contains("express") && function.name.ends_with(root))
            .map(|(address, _)| *address)
            .collect();
        assert!(!of.is_empty(), "no function is named {root}");
        left.extend(of);
    }
    let (mut seen, mut lines) = (HashSet::new(), 0);
    let mut callers: HashMap<u64, u64> = HashMap::new();
    let way = |callers: &HashMap<u64, u64>, to: u64| {
        let steps = std::iter::successors(Some(to), |at| callers.get(at).copied()).take(20);
        steps.filter_map(|at| functions.get(&at)).map(|f| f.name.clone()).collect::<Vec<_>>().join(" from ")
    };
    while let Some(address) = left.pop() {
        let Some(function) = functions.get(&address) else { continue };
        if !seen.insert(address) {
            continue;
        }
        for code in &function.lines {
            assert!(!is_locked(code), "{}: {code}", way(&callers, address));
            assert!(!is_allocator(code), "{}: {code}", way(&callers, address));
        }
        lines += function.lines.len();
        let goes_on =
            |to: &&u64| functions.get(to).is_some_and(|to| !ENDS.iter().any(|end| to.name.contains(end)));
        for to in function.targets.iter().filter(goes_on).filter(|to| !seen.contains(to)) {
            callers.entry(*to).or_insert(address);
            left.push(*to);
        }
    }
    assert!(lines > 1000, "the path was followed: {} functions, {lines} instructions", seen.len());
    let all: usize = functions.values().flat_map(|f| &f.lines).filter(|code| is_locked(code)).count();
    assert!(all > 10, "locked instructions are told: {all} elsewhere in the program");
}

//! The hidden commands of the one binary that are no user's business.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::{runtime, supervisor};

/// `atoll pod-supervisor --dir DIR`: keeps one pod.
pub const SUPERVISOR: &str = "pod-supervisor";
/// `atoll pod-init`: becomes one pod; started by the supervisor, with its plan on descriptor 0.
pub const INIT: &str = "pod-init";
/// `atoll bench-pod-start [--runs N] --json`: measures the start of a pod.
pub const BENCH_POD_START: &str = "bench-pod-start";

/// Every hidden role.
pub const NAMES: [&str; 3] = [SUPERVISOR, INIT, BENCH_POD_START];

/// Runs a hidden role; `None` when the first argument (after the program's name) is none.
///
/// Call it before anything starts a thread: init unshares namespaces.
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let arguments: Vec<OsString> = arguments.collect();
    let text: Vec<&str> = arguments.iter().map_while(|argument| argument.to_str()).collect();
    let outcome = match *text.first()? {
        SUPERVISOR => match (text.get(1), arguments.get(2)) {
            (Some(&"--dir"), Some(dir)) if arguments.len() == 3 => supervisor::keeper::main(&PathBuf::from(dir)),
            _ => Err(anyhow::anyhow!("usage: atoll {SUPERVISOR} --dir DIR")),
        },
        INIT if arguments.len() == 1 => runtime::init::main(),
        BENCH_POD_START => supervisor::bench::main(&text[1..]),
        _ => return None,
    };
    Some(outcome.map_or_else(
        |error| {
            eprintln!("atoll {}: {error:#}", text[0]);
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    ))
}

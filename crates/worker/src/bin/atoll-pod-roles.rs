//! The hidden roles of `atoll`, and nothing else: what the pod tests start.

use std::process::ExitCode;

fn main() -> ExitCode {
    atoll_worker::roles::dispatch(std::env::args_os().skip(1)).unwrap_or_else(|| {
        eprintln!("usage: atoll-pod-roles {}", atoll_worker::roles::NAMES.join(" | "));
        ExitCode::from(2)
    })
}

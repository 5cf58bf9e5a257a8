//! The one binary. It parses arguments and hands over to the role's crate; nothing is decided here.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod dev;
mod roles;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // A pod's own roles come first: they unshare namespaces, which takes a process of one thread, and stay small.
    if let Some(status) = atoll_worker::roles::dispatch(std::env::args_os().skip(1)) {
        return status;
    }
    roles::run(arguments::Arguments::parse())
}

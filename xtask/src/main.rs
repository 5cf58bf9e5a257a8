//! The repository's verbs. Parsing and dispatch only; each verb is a module.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod chaos;
mod ci;
mod clients;
mod demo;
mod network;
mod older;
mod pack;
mod postgres;
mod program;
mod rules;
mod setup;
mod test;
mod usage;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "The repository's verbs")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A whole network on this machine trains a model, loses a worker, and settles
    ///
    /// Example: cargo xtask demo --yes
    Demo(demo::Arguments),
    /// Every test
    ///
    /// Example: cargo xtask test --fast
    Test(test::Arguments),
    /// Format, lints, licences and bans, then every test: what CI runs
    ///
    /// Example: cargo xtask ci --yes
    Ci(test::Arguments),
    /// Measures; bars are checked nowhere else
    ///
    /// Example: cargo xtask bench walk --json
    Bench(bench::Arguments),
    /// Finds what this machine lacks, says what it will install and why, and installs it
    ///
    /// Example: cargo xtask setup --for demo --yes
    Setup(setup::Arguments),
    /// Builds the Python pack that pods run in, if its lock has changed
    ///
    /// Example: cargo xtask pack ray-torch
    Pack(pack::Arguments),
    /// The on-chain program: builds its bytes, or checks the committed ones
    ///
    /// Example: cargo xtask program check
    Program(program::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Demo(arguments) => demo::run(&arguments, &repository()),
        Verb::Test(arguments) => test::run(&arguments, &repository()),
        Verb::Ci(arguments) => ci::run(&arguments, &repository()),
        Verb::Bench(arguments) => bench::run(&arguments, &repository()),
        Verb::Setup(arguments) => setup::run(&arguments, &repository()),
        Verb::Pack(arguments) => pack::run(&arguments, &repository()),
        Verb::Program(arguments) => program::run(&arguments, &repository()),
    }
}

/// The repository's root: where the workspace's Cargo.toml lies.
fn repository() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

//! `cargo xtask ci`: format, lints, licences and bans, then exactly `cargo xtask test`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::test;

/// The version that `deny.toml` is written for.
const DENY: &str = "0.20.2";

pub(crate) fn run(arguments: &test::Arguments, repository: &Path) -> Result<()> {
    let cargo = |arguments: &[&str]| test::command(repository, "cargo", arguments);
    cargo(&["fmt", "--all", "--check"])?;
    crate::setup::ensure(crate::setup::Purpose::Build, crate::setup::Consent::new(arguments.yes), repository)?;
    cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])?;
    cargo(&["fmt", "--manifest-path", "program/market/Cargo.toml", "--check"])?;
    deny(repository)?;
    test::run(arguments, repository)
}

/// Licences, bans and sources, by cargo-deny; built once into `target/tools` where it is not installed.
fn deny(repository: &Path) -> Result<()> {
    let checks = ["check", "bans", "licenses", "sources"];
    if is_deny(Path::new("cargo-deny")) {
        return test::command(repository, "cargo-deny", &checks);
    }
    let tools: PathBuf = repository.join("target/tools");
    let built = tools.join("bin/cargo-deny");
    if !is_deny(&built) {
        let (root, version) = (tools.to_string_lossy(), format!("cargo-deny@{DENY}"));
        let install = ["install", "--locked", "--no-default-features", "--root", &root, &version];
        test::command(repository, "cargo", &install)?;
    }
    test::command(repository, &built.to_string_lossy(), &checks)
}

fn is_deny(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(DENY))
}

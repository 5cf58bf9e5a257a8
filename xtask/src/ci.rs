//! `cargo xtask ci`: format, lints, licences and bans, then exactly `cargo xtask test`.

use std::path::Path;

use anyhow::Result;

use crate::test;

pub(crate) fn run(arguments: &test::Arguments, repository: &Path) -> Result<()> {
    let cargo = |arguments: &[&str]| test::command(repository, "cargo", arguments);
    cargo(&["fmt", "--all", "--check"])?;
    crate::setup::ensure(crate::setup::Purpose::Build, crate::setup::Consent::new(true), repository)?;
    cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])?;
    cargo(&["fmt", "--manifest-path", "program/market/Cargo.toml", "--check"])?;
    test::run(arguments, repository)
}

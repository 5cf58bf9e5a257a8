//! `cargo xtask program build | check`: the market program's real bytes.
//!
//! `build` compiles `program/market` (and the conformance program, which proves the toolchain) to SBF, runs the guard over
//! what the linker made, and writes `program/*.so` with their hashes and pins. `check` says whether the committed bytes
//! are those of the committed sources. Why the toolchain is what it is: docs/decisions/0002-program-toolchain.md.

mod build;
mod guard;
mod stamp;
mod toolchain;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::{fs, path::Path};

use build::Program;
use stamp::Stamp;
use toolchain::Toolchain;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds market.so, and fetches the toolchain it needs
    ///
    /// Example: cargo xtask program build
    Build,
    /// Says whether the committed bytes are those of the committed sources
    ///
    /// Example: cargo xtask program check
    Check,
}

/// Runs one of the verbs.
///
/// # Errors
/// Whatever the verb says.
pub(crate) fn run(arguments: &Arguments, repository: &Path) -> Result<()> {
    match arguments.verb {
        Verb::Build => build(repository),
        Verb::Check => check(repository, Fetch::No),
    }
}

/// Builds both programs and writes them with their stamps.
///
/// # Errors
/// When the toolchain cannot be had, the sources do not link, or the guard refuses what was linked.
pub(crate) fn build(repository: &Path) -> Result<()> {
    let toolchain = Toolchain::ready(repository, true).context("the SBF toolchain is not to be had here")?;
    for program in Program::ALL {
        let bytes = program.build(repository, &toolchain)?;
        let stamp = Stamp::of(&bytes, &stamp::sources(repository)?);
        fs::write(program.bytes_path(repository), &bytes)?;
        fs::write(program.stamp_path(repository), stamp.to_string())?;
        println!("{}: {} bytes, sha256 {}", program.file(), bytes.len(), stamp.bytes);
    }
    Ok(())
}

/// Whether a missing SBF toolchain is fetched and built, which takes minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// Fetch it; fail when it is not to be had.
    Yes,
    /// Do without, and say NOT REBUILT.
    No,
}

/// Checks the committed bytes: against their stamps and by the guard always, by building them again where the toolchain
/// is here.
///
/// # Errors
/// When bytes, stamp and sources do not belong together, or the rebuilt bytes are others.
pub(crate) fn check(repository: &Path, fetch: Fetch) -> Result<()> {
    let sources = stamp::sources(repository)?;
    for program in Program::ALL {
        let path = program.bytes_path(repository);
        let bytes = fs::read(&path).with_context(|| format!("{} is missing", path.display()))?;
        let written = fs::read_to_string(program.stamp_path(repository))?;
        if written != Stamp::of(&bytes, &sources).to_string() {
            bail!(
                "{} is stale: its stamp, its bytes and the sources under program/ do not belong together. \
                 Run `cargo xtask program build` and commit the result.",
                program.file()
            );
        }
        guard::elf::check(&bytes).with_context(|| program.file().to_owned())?;
        println!("{}: stamp and guard hold, sha256 {}", program.file(), stamp::sha256(&bytes));
    }
    let toolchain = match Toolchain::ready(repository, fetch == Fetch::Yes) {
        Ok(toolchain) => toolchain,
        Err(reason) if fetch == Fetch::Yes => return Err(reason.context("the SBF toolchain is not to be had here")),
        Err(reason) => {
            println!("NOT REBUILT: {reason:#}");
            return Ok(());
        }
    };
    for program in Program::ALL {
        let (built, committed) = (program.build(repository, &toolchain)?, fs::read(program.bytes_path(repository))?);
        if built != committed {
            bail!(
                "{} is not what its sources give: built sha256 {}, committed {}",
                program.file(),
                stamp::sha256(&built),
                stamp::sha256(&committed)
            );
        }
        println!("{}: rebuilt, byte for byte the same", program.file());
    }
    Ok(())
}

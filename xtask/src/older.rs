//! An earlier build of `atoll`, from this repository's own history, for nodes of two builds beside each other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::test::command;

/// The commit that is built. It must understand the market program of today: once an instruction that operators send has
/// changed, no older build can work, and this becomes the last commit before the next release.
pub(crate) const COMMIT: &str = "0da450d58da1a34a0a87cd7a1adc9ab9ebbfb74b";

/// Builds it under `target/older`, once, and returns the binary.
///
/// # Errors
/// A history that lacks the commit, as a shallow clone's does; whatever the build says.
pub(crate) fn build(repository: &Path) -> Result<PathBuf> {
    let folder = repository.join("target/older").join(COMMIT);
    let (source, binary) = (folder.join("source"), folder.join("target/debug/atoll"));
    if binary.exists() {
        return Ok(binary);
    }
    std::fs::create_dir_all(&source).with_context(|| format!("{} cannot be made", source.display()))?;
    unpack(repository, &source)?;
    let words = [source.join("Cargo.toml"), folder.join("target")];
    let [manifest, target] = words.each_ref().map(|path| path.to_str().context("the repository's path is not UTF-8"));
    let build = ["build", "--locked", "-p", "atoll", "--manifest-path", manifest?, "--target-dir", target?];
    command(repository, "cargo", &build)?;
    Ok(binary)
}

/// Lays out the commit's files.
fn unpack(repository: &Path, source: &Path) -> Result<()> {
    let mut archive = Command::new("git");
    archive.args(["archive", COMMIT]).current_dir(repository).stdout(Stdio::piped());
    let mut archive = archive.spawn().context("git cannot be started")?;
    let files = archive.stdout.take().context("git has no output")?;
    let unpacked = Command::new("tar").args(["-x", "-C"]).arg(source).stdin(files).status();
    let read = archive.wait().context("git cannot be waited for")?;
    if !read.success() {
        bail!("{COMMIT} is not in this clone's history: `git fetch --unshallow`, and try again");
    }
    if !unpacked.context("tar cannot be started")?.success() {
        bail!("the files of {COMMIT} cannot be unpacked under {}", source.display());
    }
    Ok(())
}

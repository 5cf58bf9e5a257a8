//! Installs other people's clients of Solana, by their lock files, for the tests of the local chain.
//!
//! One virtual environment of Python holds solana-py and Node.js, so that their versions are the locks' and not the
//! machine's; npm puts the JavaScript clients beside it. All of it lies in `target/clients`, and is made again when a
//! lock or the system's Python has changed. No package's own scripts are run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::test::command;

const SOURCE: &str = "crates/chain/tests/clients";
const PYTHON: &str = "/usr/bin/python3";
/// The locks, in the source folder.
const LOCKS: &[&str] = &["python/requirements.txt", "js/package.json", "js/package-lock.json"];
/// What runs, in the source folder.
const SCRIPTS: &[&str] = &["python/client.py", "js/check.mjs", "js/web3.mjs", "js/kit.mjs"];

/// Installs what is missing or stale and gives the folder.
///
/// # Errors
/// When pip or npm fail; the folder then counts as stale.
pub(crate) fn ensure(repository: &Path) -> Result<PathBuf> {
    let (source, folder) = (repository.join(SOURCE), repository.join("target/clients"));
    let stamp = folder.join("stamp");
    let wanted = wanted(&source)?;
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
        install(&source, &folder)?;
        fs::write(&stamp, wanted)?;
    }
    for script in SCRIPTS {
        let copied = fs::copy(source.join(script), folder.join(script));
        copied.with_context(|| format!("cannot copy {script} to {}", folder.display()))?;
    }
    Ok(folder)
}

/// Names the installed content: the locks, and the Python that the environment is made from.
fn wanted(source: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for lock in LOCKS {
        let content = fs::read(source.join(lock)).with_context(|| format!("cannot read {SOURCE}/{lock}"))?;
        hash.update(Sha256::digest(content));
    }
    let python = Command::new(PYTHON).arg("--version").output().with_context(|| format!("cannot run {PYTHON}"))?;
    hash.update(&python.stdout);
    Ok(hex::encode(hash.finalize()))
}

fn install(source: &Path, folder: &Path) -> Result<()> {
    let (python, js) = (folder.join("python"), folder.join("js"));
    for part in [&python, &js] {
        if part.exists() {
            fs::remove_dir_all(part).with_context(|| format!("cannot remove {}", part.display()))?;
        }
        fs::create_dir_all(part)?;
    }
    for lock in LOCKS {
        fs::copy(source.join(lock), folder.join(lock))?;
    }
    command(&python, PYTHON, &["-m", "venv", "venv"])?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
    let locked = ["--no-deps", "--require-hashes", "-r", "requirements.txt"];
    command(&python, &bin(folder, "python")?, &[&pip[..], &locked].concat())?;
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    command(&js, &bin(folder, "npm")?, &npm)
}

/// A program of the virtual environment.
fn bin(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join("python/venv/bin").join(name);
    Ok(path.to_str().context("the repository's path is not UTF-8")?.to_owned())
}

//! The line-by-line stamp beside a committed program: its hash, its sources' hash and the toolchain's pins.
//!
//! The first line is what `sha256sum` prints; the others tell from what the bytes came.

use super::{build::Program, toolchain};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

/// Hashes of one program's bytes and of the sources of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) bytes: String,
    pub(crate) sources: String,
}

impl Stamp {
    pub(crate) fn of(bytes: &[u8], sources: &str) -> Self {
        Self { bytes: sha256(bytes), sources: sources.to_owned() }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.bytes)?;
        writeln!(f, "sources {}", self.sources)?;
        writeln!(f, "rustc {}", toolchain::RUSTC)?;
        writeln!(f, "sbpf-linker {}", toolchain::LINKER_VERSION)?;
        writeln!(f, "rust-src {} {}", toolchain::RUST_SRC_VERSION, toolchain::RUST_SRC_SHA256)
    }
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// One hash over every source that decides the programs' bytes: path and content of each, in order of path.
///
/// # Errors
/// When a source cannot be read.
pub(crate) fn sources(repository: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    for part in Program::SOURCES {
        gather(repository, Path::new(part), &mut files)?;
    }
    let mut hasher = Sha256::new();
    for (path, content) in files {
        hasher.update(path.to_string_lossy().as_bytes());
        hasher.update([0]);
        hasher.update(Sha256::digest(content));
    }
    Ok(hex::encode(hasher.finalize()))
}

fn gather(repository: &Path, part: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let path = repository.join(part);
    if path.is_file() {
        let content = fs::read(&path).with_context(|| path.display().to_string())?;
        files.insert(part.to_owned(), content);
        return Ok(());
    }
    for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
        gather(repository, &part.join(entry?.file_name()), files)?;
    }
    Ok(())
}

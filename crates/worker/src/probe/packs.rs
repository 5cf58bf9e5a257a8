//! Packs: folders with a prepared Python environment and a `pack.json` that names their content.
//!
//! The digest is the builder's word; whoever builds compares it with the files (`cargo xtask pack --check`).

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use atoll_domain::job::PackRef;
use atoll_domain::key::Digest;
use serde::Deserialize;

/// The file in a pack's folder.
const FILE: &str = "pack.json";
/// The longest `pack.json`.
const BYTES_MAX: u64 = 64 << 10;
/// The most packs of one worker.
const PACKS_MAX: usize = 64;

/// What of `pack.json` matters here; the builder keeps more in it.
#[derive(Deserialize)]
struct Record {
    name: String,
    sha256: Digest,
}

/// Why a pack cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its folder is not one.
    #[error("{folder} is not a pack: {why}; build one with `cargo xtask pack`", folder = folder.display())]
    NotAPack { folder: PathBuf, why: String },
    /// Too many.
    #[error("{0} packs are configured, and a worker offers at most {PACKS_MAX}")]
    TooMany(usize),
}

/// Reads what each folder says it is.
///
/// # Errors
/// [`PackError`] for the first folder that is no pack.
pub fn read(folders: &[PathBuf]) -> Result<Vec<(PackRef, PathBuf)>, PackError> {
    if folders.len() > PACKS_MAX {
        return Err(PackError::TooMany(folders.len()));
    }
    folders.iter().map(|folder| read_one(folder)).collect()
}

fn read_one(folder: &Path) -> Result<(PackRef, PathBuf), PackError> {
    let not_a_pack = |why: String| PackError::NotAPack { folder: folder.to_owned(), why };
    let real = folder.canonicalize().map_err(|error| not_a_pack(error.to_string()))?;
    let file = File::open(real.join(FILE)).map_err(|error| not_a_pack(format!("{FILE}: {error}")))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| not_a_pack(format!("{FILE}: {error}")))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(not_a_pack(format!("{FILE} is longer than {BYTES_MAX} bytes")));
    }
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| not_a_pack(format!("{FILE}: {error}")))?;
    if !real.join("bin/python").exists() {
        return Err(not_a_pack("it has no bin/python".into()));
    }
    Ok((PackRef { name: record.name, sha256: record.sha256 }, real))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_names_itself_and_nothing_else_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let refused = || read(std::slice::from_ref(&path)).unwrap_err().to_string();
        assert!(refused().contains("pack.json"));
        let digest = Digest::of(b"pack");
        let json = format!(r#"{{"name":"ray-torch","version":"1","sha256":"{digest}","python":"3.11.2"}}"#);
        std::fs::write(path.join(FILE), &json).unwrap();
        assert!(refused().contains("bin/python"));
        std::fs::create_dir(path.join("bin")).unwrap();
        std::fs::write(path.join("bin/python"), "").unwrap();
        let read_back = read(std::slice::from_ref(&path)).unwrap();
        assert_eq!(read_back[0].0, PackRef { name: "ray-torch".into(), sha256: digest });
        std::fs::write(path.join(FILE), "{}").unwrap();
        assert!(refused().contains("is not a pack"));
        std::fs::write(path.join(FILE), format!("{json}{}", " ".repeat(70_000))).unwrap();
        assert!(refused().contains("longer"));
    }
}

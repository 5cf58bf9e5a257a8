//! What the worker remembers across a restart: its pods and the highest fence of each lease, in one small file.
//!
//! Written whole and renamed, synced before anything that depends on it happens. What really runs is asked of the
//! supervisors; this file says for whom.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use atoll_domain::cluster::OverlayIndex;
use atoll_domain::id::{ClusterId, JobId, PodId};
use atoll_domain::key::Address;
use atoll_domain::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::link::dial::OperatorName;

/// Name of the file in the worker's state folder.
pub const FILE: &str = "pods.json";
/// The longest file that is read: far more than its bounded content needs.
const BYTES_MAX: u64 = 8 << 20;

/// Form of the file that this build writes; it reads the one before as well, which knows no operators.
pub const VERSION: u16 = 2;

/// Everything in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// Form of the file: [`VERSION`] or the one before.
    pub version: u16,
    /// Every pod that is not forgotten.
    pub pods: Vec<PodRecord>,
    /// The highest fence of each lease.
    pub fences: Vec<FenceRecord>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodRecord {
    /// Its id; also the name of its folder.
    pub pod: PodId,
    /// The operator that had it started: its control plane alone commands it. None in a file of form 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorName>,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its job.
    pub job: JobId,
    /// The order it runs for.
    pub order: Address,
    /// The lease it runs under.
    pub lease: Address,
    /// Its devices.
    pub mask: u16,
    /// Its fence.
    pub fence: u64,
    /// Its place in the overlay.
    pub index: OverlayIndex,
    /// End of the lease by the chain's clock, Unix seconds.
    pub end_s: i64,
    /// The same on this worker's clock when it wrote this, milliseconds since 1970.
    pub ends_at: UnixMs,
    /// The signed pod key statement, in hexadecimal, once the network stood.
    pub statement: Option<String>,
    /// How it ended.
    pub ended: Option<Ended>,
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Exit status of a program that ended by itself; none when it was told to end, was killed or never ran.
    pub code: Option<i32>,
    /// Why, in words.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The highest fence seen for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceRecord {
    /// The lease.
    pub lease: Address,
    /// The highest fence.
    pub highest: u64,
    /// The lease's end, Unix seconds: some time after it, nobody can ask any more.
    pub end_s: i64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system said no.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    /// Not this file's form.
    #[error("{path} cannot be read ({why}); move it away to start with no pods: running ones are then stopped", path = path.display())]
    Malformed { path: PathBuf, why: String },
}

impl Records {
    /// Reads the file; nothing when there is none yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(state: &Path) -> Result<Self, StoreError> {
        let path = state.join(FILE);
        let io = |source| StoreError::Io { verb: "read", path: path.clone(), source };
        let malformed = |why: String| StoreError::Malformed { path: path.clone(), why };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io(error)),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(malformed("too long".into()));
        }
        let records: Self = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if !(1..=VERSION).contains(&records.version) {
            return Err(malformed(format!("form {}, and this build reads 1 to {VERSION}", records.version)));
        }
        Ok(records)
    }

    /// Writes the file and waits until it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save(&self, state: &Path) -> Result<(), StoreError> {
        let path = state.join(FILE);
        let io = |source| StoreError::Io { verb: "write", path: path.clone(), source };
        let bytes = serde_json::to_vec(self).map_err(|error| io(error.into()))?;
        write_whole(&path, &bytes, 0o600).map_err(io)
    }
}

/// Replaces a file as a whole, durably: written beside it, synced, renamed, and the folder synced.
///
/// # Errors
/// The file system's.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use atoll_domain::key::PublicKey;

    use super::*;

    #[test]
    fn records_read_back_and_garbage_is_refused() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Records::load(state.path()).unwrap(), Records::default());
        let fences = vec![FenceRecord { lease: PublicKey([1; 32]), highest: 3, end_s: 9 }];
        let records = Records { version: 1, pods: vec![], fences };
        records.save(state.path()).unwrap();
        assert_eq!(Records::load(state.path()).unwrap(), records);
        for garbage in ["", "{}", r#"{"version":3,"pods":[],"fences":[]}"#] {
            fs::write(state.path().join(FILE), garbage).unwrap();
            let refused = Records::load(state.path()).unwrap_err().to_string();
            assert!(refused.contains("move it away"), "{refused}");
        }
    }
}

//! The worker's meter: follows a pod's usage spool, checks its hash chain record by record, and says what was served.
//!
//! The supervisor writes the spool; the worker signs only what it has checked from the chain's beginning, which is bound
//! to order, lease, fence and pod. A spool that was changed, cut or put in another's place is never signed again: what
//! was said before stands, and nothing more is claimed.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use atoll_domain::id::PodId;
use atoll_domain::key::Address;
use atoll_domain::meter::UsageStatement;

use crate::supervisor::spec::PodSpec;
use crate::supervisor::usage::{FILE, Record};

/// Longest line of a spool.
const LINE_BYTES_MAX: u64 = 1024;
/// Records taken in one turn: a restarted worker catches up with an hour of one pod in one turn.
const RECORDS_MAX: usize = 4_000;

/// Follows one pod's spool.
#[derive(Debug)]
pub struct Meter {
    path: PathBuf,
    pod: PodId,
    lease: Address,
    /// Where the next record begins.
    offset: u64,
    last: Record,
    refused: bool,
}

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// The spool cannot be read.
    #[error("the usage spool {path} cannot be read: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The chain is broken.
    #[error("the usage spool {path} does not follow its record {after}: nothing more of it is claimed", path = path.display())]
    Tampered { path: PathBuf, after: u64 },
    /// The pod's folder is not one.
    #[error("{0}")]
    Folder(String),
}

impl Meter {
    /// Begins at the beginning of the pod's chain.
    ///
    /// # Errors
    /// [`MeterError::Folder`] when the pod's specification cannot be read.
    pub fn open(dir: &Path) -> Result<Self, MeterError> {
        let spec = PodSpec::read(dir).map_err(|error| MeterError::Folder(format!("{error:#}")))?;
        Ok(Self {
            path: dir.join(FILE),
            pod: spec.pod,
            lease: spec.lease,
            offset: 0,
            last: Record::genesis(&spec),
            refused: false,
        })
    }

    /// Takes what is new; gives a statement when there is any.
    ///
    /// # Errors
    /// [`MeterError::Tampered`] once, when the chain breaks; afterwards there is nothing new any more.
    pub fn read(&mut self) -> Result<Option<UsageStatement>, MeterError> {
        if self.refused {
            return Ok(None);
        }
        let before = self.last.seq;
        let io = |source| MeterError::Io { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            // Not begun yet; once begun, a spool that is gone is a broken chain.
            Err(error) if error.kind() == io::ErrorKind::NotFound && before == 0 => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.refuse()),
            Err(error) => return Err(io(error)),
        };
        if file.metadata().map_err(io)?.len() < self.offset {
            return Err(self.refuse());
        }
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(self.offset)).map_err(io)?;
        for _ in 0..RECORDS_MAX {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            read.map_err(|source| MeterError::Io { path: self.path.clone(), source })?;
            if !line.ends_with(b"\n") {
                if line.len() as u64 == LINE_BYTES_MAX {
                    return Err(self.refuse());
                }
                // The rest of this line is still being written.
                break;
            }
            let record = serde_json::from_slice::<Record>(&line).ok();
            let Some(next) = record.filter(|next| self.last.is_followed_by(next)) else { return Err(self.refuse()) };
            self.last = next;
            self.offset += line.len() as u64;
        }
        Ok((self.last.seq > before).then(|| self.statement()))
    }

    fn refuse(&mut self) -> MeterError {
        self.refused = true;
        MeterError::Tampered { path: self.path.clone(), after: self.last.seq }
    }

    fn statement(&self) -> UsageStatement {
        UsageStatement {
            pod: self.pod,
            lease: self.lease,
            records: self.last.seq,
            served_ms: self.last.served_ms,
            until: self.last.at,
            cpu_ms: self.last.cpu_ms,
            head: self.last.hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use atoll_domain::time::UnixMs;

    use super::*;
    use crate::supervisor::spec::tests::spec;
    use crate::supervisor::usage::{Reading, Spool};

    fn pod() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pod.json"), serde_json::to_vec(&spec()).unwrap()).unwrap();
        let spool = Spool::create(dir.path(), Record::genesis(&spec())).unwrap();
        (dir, spool)
    }

    fn reading(n: u64) -> Reading {
        Reading { at: UnixMs(n * 1000), served_ms: n * 1000, cpu_ms: n, memory_bytes: 1 }
    }

    fn fill(spool: &mut Spool) {
        for n in 1..=3 {
            spool.append(reading(n)).unwrap();
        }
    }

    #[test]
    fn a_growing_spool_is_read_once_and_said_in_full() {
        let (dir, mut spool) = pod();
        let mut meter = Meter::open(dir.path()).unwrap();
        assert_eq!(meter.read().unwrap(), None);
        fill(&mut spool);
        let said = meter.read().unwrap().unwrap();
        assert_eq!((said.records, said.served_ms, said.head), (3, 3_000, spool.head().hash));
        assert_eq!(meter.read().unwrap(), None);
        spool.append(reading(9)).unwrap();
        assert_eq!(meter.read().unwrap().unwrap().served_ms, 9_000);
        // A worker that starts anew comes to the same.
        let mut again = Meter::open(dir.path()).unwrap();
        assert_eq!(again.read().unwrap().unwrap().head, spool.head().hash);
    }

    #[test]
    fn a_line_that_is_being_written_waits() {
        let (dir, mut spool) = pod();
        spool.append(reading(1)).unwrap();
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let mut meter = Meter::open(dir.path()).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(meter.read().unwrap(), None);
        fs::write(&path, &whole).unwrap();
        assert_eq!(meter.read().unwrap().unwrap().records, 1);
    }

    #[test]
    fn a_tampered_spool_is_refused_for_good() {
        type Change = fn(&str) -> String;
        let changes: [(&str, Change); 4] = [
            ("more served", |text| text.replace("\"served_ms\":2000", "\"served_ms\":9000")),
            ("a record left out", |text| text.lines().skip(1).map(|line| format!("{line}\n")).collect()),
            ("garbage", |text| format!("{text}garbage\n")),
            ("an endless line", |text| format!("{text}{}", "x".repeat(2000))),
        ];
        for (what, change) in changes {
            let (dir, mut spool) = pod();
            fill(&mut spool);
            let path = dir.path().join(FILE);
            let whole = fs::read_to_string(&path).unwrap();
            fs::write(&path, change(&whole)).unwrap();
            let mut meter = Meter::open(dir.path()).unwrap();
            assert!(matches!(meter.read(), Err(MeterError::Tampered { .. })), "{what}");
            fs::write(&path, &whole).unwrap();
            assert!(meter.read().unwrap().is_none(), "{what}: it is not believed again");
        }
    }

    #[test]
    fn a_spool_of_another_pod_or_one_that_was_cut_is_refused() {
        let (dir, mut spool) = pod();
        fill(&mut spool);
        let mut meter = Meter::open(dir.path()).unwrap();
        meter.read().unwrap();
        fs::write(dir.path().join(FILE), "").unwrap();
        assert!(matches!(meter.read(), Err(MeterError::Tampered { after: 3, .. })));

        let (other, mut spool) = pod();
        spool.append(reading(1)).unwrap();
        let mut stranger = spec();
        stranger.fence += 1;
        fs::write(other.path().join("pod.json"), serde_json::to_vec(&stranger).unwrap()).unwrap();
        assert!(matches!(Meter::open(other.path()).unwrap().read(), Err(MeterError::Tampered { after: 0, .. })));
    }
}

//! The worker's meter: follows a pod's usage spool, checks its hash chain record by record, and says what was served.
//!
//! The supervisor writes the spool; the worker signs only what it has checked from the chain's beginning, which is bound
//! to order, lease, fence and pod. A spool that was changed, cut or put in another's place is never signed again: what
//! was said before stands, and nothing more is claimed.

use std::io;

use atoll_domain::id::PodId;
use atoll_domain::key::Address;
use atoll_domain::meter::UsageStatement;

use crate::host::Host;
use crate::supervisor::usage::Record;

/// Longest line of a spool.
const LINE_BYTES_MAX: usize = 1024;
/// Bytes taken in one turn, some 260 a record: a restarted worker catches up with an hour of one pod in one turn.
const TURN_BYTES_MAX: usize = 1 << 20;

/// Follows one pod's spool.
#[derive(Debug)]
pub struct Meter {
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
    #[error("the usage spool of {pod} cannot be read: {source}")]
    Io { pod: PodId, source: io::Error },
    /// The chain is broken.
    #[error("the usage spool of {pod} does not follow its record {after}: nothing more of it is claimed")]
    Tampered { pod: PodId, after: u64 },
}

impl Meter {
    /// Begins at the beginning of the pod's chain, which is bound to all of these.
    #[must_use]
    pub fn new(pod: PodId, order: &Address, lease: Address, fence: u64) -> Self {
        Self { pod, lease, offset: 0, last: Record::genesis(pod, order, &lease, fence), refused: false }
    }

    /// Takes what is new; gives a statement when there is any.
    ///
    /// # Errors
    /// [`MeterError::Tampered`] once, when the chain breaks; afterwards there is nothing new any more.
    pub async fn read(&mut self, host: &dyn Host) -> Result<Option<UsageStatement>, MeterError> {
        if self.refused {
            return Ok(None);
        }
        self.take(host.usage(self.pod, self.offset, TURN_BYTES_MAX).await)
    }

    /// Takes what the spool holds behind what was taken before; gives a statement when that is something.
    ///
    /// # Errors
    /// As [`Meter::read`].
    pub fn take(&mut self, bytes: io::Result<Vec<u8>>) -> Result<Option<UsageStatement>, MeterError> {
        if self.refused {
            return Ok(None);
        }
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // Not begun yet; once begun, a spool that is gone is a broken chain.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.last.seq == 0 => return Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                return Err(self.refuse());
            }
            Err(source) => return Err(MeterError::Io { pod: self.pod, source }),
        };
        let before = self.last.seq;
        let mut rest = bytes.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            let record = (line.len() <= LINE_BYTES_MAX).then(|| serde_json::from_slice::<Record>(line).ok()).flatten();
            let Some(next) = record.filter(|next| self.last.is_followed_by(next)) else { return Err(self.refuse()) };
            self.last = next;
            self.offset += line.len() as u64;
            rest = after;
        }
        // What is left is a line that is still being written.
        if rest.len() >= LINE_BYTES_MAX {
            return Err(self.refuse());
        }
        Ok((self.last.seq > before).then(|| self.statement()))
    }

    fn refuse(&mut self) -> MeterError {
        self.refused = true;
        MeterError::Tampered { pod: self.pod, after: self.last.seq }
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
    use crate::host::machine::Machine;
    use crate::supervisor::spec::tests::spec;
    use crate::supervisor::usage::{FILE, Reading, Spool};

    /// A machine with one pod's folder.
    struct Rig {
        _state: tempfile::TempDir,
        host: Machine,
        path: std::path::PathBuf,
        spool: Spool,
    }

    fn rig() -> Rig {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("pods").join(spec().pod.to_string());
        fs::create_dir_all(&dir).unwrap();
        let spool = Spool::create(&dir, Record::genesis_of(&spec())).unwrap();
        let host = Machine::open(state.path().to_owned(), "/nonexistent".into()).unwrap();
        Rig { _state: state, host, path: dir.join(FILE), spool }
    }

    fn begun() -> Meter {
        let spec = spec();
        Meter::new(spec.pod, &spec.order, spec.lease, spec.fence)
    }

    fn reading(n: u64) -> Reading {
        Reading { at: UnixMs(n * 1000), served_ms: n * 1000, cpu_ms: n, memory_bytes: 1 }
    }

    fn fill(spool: &mut Spool) {
        for n in 1..=3 {
            spool.append(reading(n)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_growing_spool_is_read_once_and_said_in_full() {
        let Rig { host, mut spool, _state, .. } = rig();
        let mut meter = begun();
        assert_eq!(meter.read(&host).await.unwrap(), None);
        fill(&mut spool);
        let said = meter.read(&host).await.unwrap().unwrap();
        assert_eq!((said.records, said.served_ms, said.head), (3, 3_000, spool.head().hash));
        assert_eq!(meter.read(&host).await.unwrap(), None);
        spool.append(reading(9)).unwrap();
        assert_eq!(meter.read(&host).await.unwrap().unwrap().served_ms, 9_000);
        // A worker that starts anew comes to the same.
        let mut again = begun();
        assert_eq!(again.read(&host).await.unwrap().unwrap().head, spool.head().hash);
    }

    #[tokio::test]
    async fn a_line_that_is_being_written_waits() {
        let Rig { host, path, mut spool, _state } = rig();
        spool.append(reading(1)).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut meter = begun();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(meter.read(&host).await.unwrap(), None);
        fs::write(&path, &whole).unwrap();
        assert_eq!(meter.read(&host).await.unwrap().unwrap().records, 1);
    }

    #[tokio::test]
    async fn a_tampered_spool_is_refused_for_good() {
        type Change = fn(&str) -> String;
        let changes: [(&str, Change); 4] = [
            ("more served", |text| text.replace("\"served_ms\":2000", "\"served_ms\":9000")),
            ("a record left out", |text| text.lines().skip(1).map(|line| format!("{line}\n")).collect()),
            ("garbage", |text| format!("{text}garbage\n")),
            ("an endless line", |text| format!("{text}{}", "x".repeat(2000))),
        ];
        for (what, change) in changes {
            let Rig { host, path, mut spool, _state } = rig();
            fill(&mut spool);
            let whole = fs::read_to_string(&path).unwrap();
            fs::write(&path, change(&whole)).unwrap();
            let mut meter = begun();
            assert!(matches!(meter.read(&host).await, Err(MeterError::Tampered { .. })), "{what}");
            fs::write(&path, &whole).unwrap();
            assert!(meter.read(&host).await.unwrap().is_none(), "{what}: it is not believed again");
        }
    }

    #[tokio::test]
    async fn a_spool_of_another_pod_or_one_that_was_cut_is_refused() {
        let Rig { host, path, mut spool, _state } = rig();
        fill(&mut spool);
        let mut meter = begun();
        meter.read(&host).await.unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(meter.read(&host).await, Err(MeterError::Tampered { after: 3, .. })));

        let Rig { host, mut spool, _state, .. } = rig();
        spool.append(reading(1)).unwrap();
        let spec = spec();
        let mut stranger = Meter::new(spec.pod, &spec.order, spec.lease, spec.fence + 1);
        assert!(matches!(stranger.read(&host).await, Err(MeterError::Tampered { after: 0, .. })));
    }
}

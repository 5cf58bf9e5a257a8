//! The usage spool: one record a second, each naming the hash of the one before.
//!
//! `usage.jsonl` is append-only. A record is written whole before the next begins; the file is synced every
//! [`SYNC_EVERY`] records and at the end, so a crash of the machine costs at most that many seconds of evidence, and a
//! crash of the supervisor none. The worker signs the head; this module does not hold a key.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use atoll_domain::id::PodId;
use atoll_domain::key::{Address, Digest};
use atoll_domain::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::spec::PodSpec;

/// File in the pod's directory.
pub const FILE: &str = "usage.jsonl";

/// Records between two syncs: 30 s of evidence at most are lost with the machine.
const SYNC_EVERY: u64 = 30;

/// Longest line that a reader takes.
const LINE_BYTES_MAX: usize = 1024;

/// What a pod has used up to a moment. All sums are cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1 for the first; 0 for the beginning of the chain, which is not in the file.
    pub seq: u64,
    pub at: UnixMs,
    /// Time since the program started, on the monotonic clock.
    pub served_ms: u64,
    pub cpu_ms: u64,
    /// In use at the moment.
    pub memory_bytes: u64,
    /// Hash of the record before.
    pub prev: Digest,
    /// SHA-256 over domain, prev and the numbers, little-endian.
    pub hash: Digest,
}

/// One reading, before it has its place in the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub at: UnixMs,
    pub served_ms: u64,
    pub cpu_ms: u64,
    pub memory_bytes: u64,
}

impl Record {
    /// The beginning of a pod's chain: nothing used, bound to order, lease, fence and pod.
    #[must_use]
    pub fn genesis(pod: PodId, order: &Address, lease: &Address, fence: u64) -> Self {
        let (pod, fence) = (pod.to_string(), fence.to_le_bytes());
        let parts = [&b"atoll/usage-genesis/1\0"[..], &order.0, &lease.0, &fence, pod.as_bytes()];
        let hash = Digest::of_parts(&parts);
        Self { seq: 0, at: UnixMs(0), served_ms: 0, cpu_ms: 0, memory_bytes: 0, prev: Digest([0; 32]), hash }
    }

    /// The record that follows this one. Sums never go back, whatever was read.
    #[must_use]
    pub fn next(&self, reading: Reading) -> Self {
        let mut next = Self {
            seq: self.seq + 1,
            at: reading.at,
            served_ms: reading.served_ms.max(self.served_ms),
            cpu_ms: reading.cpu_ms.max(self.cpu_ms),
            memory_bytes: reading.memory_bytes,
            prev: self.hash,
            hash: self.hash,
        };
        next.hash = next.computed_hash();
        next
    }

    /// The beginning of the chain of the pod that a specification describes.
    #[must_use]
    pub fn genesis_of(spec: &PodSpec) -> Self {
        Self::genesis(spec.pod, &spec.order, &spec.lease, spec.fence)
    }

    fn computed_hash(&self) -> Digest {
        let numbers = [self.seq, self.at.0, self.served_ms, self.cpu_ms, self.memory_bytes].map(u64::to_le_bytes);
        Digest::of_parts(&[b"atoll/usage/1\0", &self.prev.0, numbers.as_flattened()])
    }

    /// Whether `next` follows this record: numbered, hashed and not going back.
    #[must_use]
    pub fn is_followed_by(&self, next: &Self) -> bool {
        next.seq == self.seq + 1
            && next.prev == self.hash
            && next.hash == next.computed_hash()
            && next.served_ms >= self.served_ms
            && next.cpu_ms >= self.cpu_ms
    }
}

/// The file being written.
#[derive(Debug)]
pub struct Spool {
    file: File,
    head: Record,
    /// Where the last whole record ends.
    bytes: u64,
    /// Whether something that is no whole record may lie behind it: a full disk takes what still fits.
    torn: bool,
}

impl Spool {
    /// Begins a chain.
    ///
    /// # Errors
    /// The directory has served a pod before, or cannot be written.
    pub fn create(dir: &Path, genesis: Record) -> Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(dir.join(FILE))?;
        Ok(Self { file, head: genesis, bytes: 0, torn: false })
    }

    /// The last record.
    #[must_use]
    pub fn head(&self) -> Record {
        self.head
    }

    /// Appends a reading.
    ///
    /// # Errors
    /// The disk is full or gone. What was not written whole is as if it had never been: the chain goes on from the last
    /// record that was.
    pub fn append(&mut self, reading: Reading) -> Result<Record> {
        let next = self.head.next(reading);
        let mut line = serde_json::to_string(&next)?;
        line.push('\n');
        self.mend()?;
        self.torn = true;
        self.file.write_all(line.as_bytes())?;
        self.torn = false;
        (self.head, self.bytes) = (next, self.bytes + line.len() as u64);
        if next.seq.is_multiple_of(SYNC_EVERY) {
            self.file.sync_data()?;
        }
        Ok(next)
    }

    /// Cuts off what a write that failed has left, so that the next record follows the last whole one.
    fn mend(&mut self) -> Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Puts everything on the disk.
    ///
    /// # Errors
    /// The disk refused.
    pub fn sync(&mut self) -> Result<()> {
        self.mend()?;
        self.file.sync_data()
    }
}

/// Reads the records after `after_seq`, at most `limit`. A last line that was cut by a crash is left out.
///
/// # Errors
/// There is no spool, or it cannot be read.
pub fn read(dir: &Path, after_seq: u64, limit: usize) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for line in BufReader::new(File::open(dir.join(FILE))?).split(b'\n') {
        let line = line?;
        let record = if line.len() <= LINE_BYTES_MAX { serde_json::from_slice::<Record>(&line).ok() } else { None };
        let Some(record) = record else { break };
        if record.seq > after_seq {
            records.push(record);
        }
        if records.len() == limit {
            break;
        }
    }
    Ok(records)
}

/// Checks a whole chain from its beginning; answers the number of good records, and whether all were good.
#[must_use]
pub fn verify(genesis: &Record, records: &[Record]) -> (usize, bool) {
    let mut last = genesis;
    for (n, record) in records.iter().enumerate() {
        if !last.is_followed_by(record) {
            return (n, false);
        }
        last = record;
    }
    (records.len(), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::spec::tests::spec;

    fn reading(n: u64) -> Reading {
        Reading { at: UnixMs(n * 1000), served_ms: n * 1000, cpu_ms: n * 10, memory_bytes: 5 }
    }

    #[test]
    fn the_chain_reads_back_and_every_change_shows() {
        let dir = tempfile::tempdir().unwrap();
        let genesis = Record::genesis_of(&spec());
        let mut spool = Spool::create(dir.path(), genesis).unwrap();
        for n in 1..=40 {
            spool.append(reading(n)).unwrap();
        }
        let records = read(dir.path(), 0, 1000).unwrap();
        assert_eq!(verify(&genesis, &records), (40, true));
        assert_eq!(records.last(), Some(&spool.head()));
        assert_eq!(read(dir.path(), 38, 1000).unwrap().len(), 2);
        assert_eq!(read(dir.path(), 0, 3).unwrap().len(), 3);
        let changes: [fn(&mut Record); 4] =
            [|r| r.served_ms += 1, |r| r.cpu_ms += 1, |r| r.at.0 += 1, |r| r.prev = Digest([0; 32])];
        for change in changes {
            let mut forged = records.clone();
            change(&mut forged[20]);
            assert_eq!(verify(&genesis, &forged), (20, false));
        }
        let mut shorter = records.clone();
        shorter.remove(5);
        assert_eq!(verify(&genesis, &shorter), (5, false));
        let mut other = spec();
        other.fence += 1;
        assert_eq!(verify(&Record::genesis_of(&other), &records), (0, false));
    }

    #[test]
    fn a_cut_line_and_a_clock_that_went_back_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), Record::genesis_of(&spec())).unwrap();
        spool.append(reading(2)).unwrap();
        assert_eq!(spool.append(reading(1)).unwrap().served_ms, 2000);
        let mut file = OpenOptions::new().append(true).open(dir.path().join(FILE)).unwrap();
        file.write_all(b"{\"seq\":3,\"at\"").unwrap();
        assert_eq!(read(dir.path(), 0, 1000).unwrap().len(), 2);
        assert!(Spool::create(dir.path(), Record::genesis_of(&spec())).is_err(), "a directory serves one pod once");
    }
}

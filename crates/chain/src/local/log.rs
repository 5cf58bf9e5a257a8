//! The local chain on disk: an append-only log of frames, and the snapshot that it continues.
//!
//! Everything that one write to disk carries is one frame, and a frame is synced before anything in it is answered. So a
//! crash can only leave the last frame unfinished: it is cut off at the next start, and said. A damaged frame with
//! others behind it is no crash but a damaged disk or an editor: the log is refused.
//!
//! A log that has grown is replaced: first a snapshot of everything that it led to, of the next generation, then an empty
//! log of that generation. Each is written beside, synced and renamed. A crash between the two leaves the new snapshot
//! with the old log, which is in it already, and is then replaced at the next start.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::frames::{self, Frames};
use super::history::Detail;
use super::snapshot::{Snapshot, sync_folder};
use super::timeline::{Fork, Moment};
use crate::address::{Address, Hash, Signature};

/// The log's name in the state folder.
pub const FILE: &str = "chain.log";
const FILE_NEW: &str = "chain.log.new";
/// Held by the process whose chain it is; the log itself is replaced now and then.
const LOCK: &str = "chain.lock";
/// Version of the frames' content. Version 1 had neither generations nor details, and is read too.
const VERSION: u32 = 2;

/// The first frame: which chain this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    version: u32,
    /// The hash that names the chain for ever.
    pub hash: Hash,
    /// When its first slot began.
    pub unix_ms: u64,
    /// How many snapshots were taken before.
    #[serde(default)]
    generation: u64,
}

impl Genesis {
    /// The chain of this hash, from this moment on.
    #[must_use]
    pub const fn new(hash: Hash, unix_ms: u64) -> Self {
        Self { version: VERSION, hash, unix_ms, generation: 0 }
    }

    /// Of the snapshot after this log, and of the log after that.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { version: VERSION, generation: self.generation + 1, ..self }
    }

    /// Whether the frames behind it can lack what this build writes.
    #[must_use]
    pub const fn is_of_older_build(&self) -> bool {
        self.version < VERSION
    }

    fn read(content: &[u8], path: &Path) -> Result<Self, LogError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |_| LogError::Damaged { path: path.to_owned(), at: 0 };
        let Versioned { version } = serde_json::from_slice(content).map_err(damaged)?;
        check_version(version, path)?;
        serde_json::from_slice(content).map_err(damaged)
    }

    pub(super) fn check(&self, path: &Path) -> Result<(), LogError> {
        check_version(self.version, path)
    }
}

fn check_version(version: u32, path: &Path) -> Result<(), LogError> {
    if (1..=VERSION).contains(&version) { Ok(()) } else { Err(LogError::Version { path: path.to_owned(), version }) }
}

/// One change of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The slot of the change.
    pub slot: u64,
    /// The chain's clock at the change.
    pub unix_ms: u64,
    /// How far the chain's clock has been moved ahead of the wall clock in all.
    pub warp_ms: u64,
    /// The transaction, when it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Solana's error value, when the transaction failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<serde_json::Value>,
    /// The accounts that changed, as they are afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<StoredAccount>,
    /// What the history keeps of the transaction. Logs of older builds lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
    /// The fork that was abandoned, when one was; `accounts` are then what they were before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
    /// Where slots go on after a halt, when one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Moment>,
}

/// An account in a record. With no lamports it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAccount {
    /// Where it is.
    pub address: Address,
    /// Its lamports.
    pub lamports: u64,
    /// The program that may write it.
    pub owner: Address,
    /// Whether it is a program.
    pub executable: bool,
    /// Its bytes.
    #[serde(with = "base64_text")]
    pub data: Vec<u8>,
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system said no.
    #[error("cannot {verb} the local chain's log {path}: {source}", path = path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    /// Another process holds it.
    #[error("the local chain in {path} is running already; stop it or choose another state folder", path = path.display())]
    Locked { path: PathBuf },
    /// A frame in the middle is not what was written.
    #[error("the local chain's log {path} is damaged at byte {at}, with more behind it: this is no crash. Restore the folder from a copy, or empty it to start a new chain", path = path.display())]
    Damaged { path: PathBuf, at: u64 },
    /// Log and snapshot do not belong together, or one of them is gone.
    #[error("the local chain's log {path} does not continue the snapshot beside it: one of them was deleted or brought from elsewhere. Restore the folder from a copy, or empty it to start a new chain", path = path.display())]
    Apart { path: PathBuf },
    /// It is of another version.
    #[error("the local chain's log {path} has version {version}, and this build reads up to {VERSION}: use the build that wrote it, or empty the folder to start a new chain", path = path.display())]
    Version { path: PathBuf, version: u32 },
}

/// The open log of a running chain.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    file: File,
    genesis: Genesis,
    pending: Vec<Record>,
    /// What a start would have to replay.
    bytes: u64,
    snapshot_bytes: u64,
    /// Unlocked when it is closed.
    _lock: File,
}

/// A log as it was found.
#[derive(Debug)]
pub struct Opened {
    /// Open for more.
    pub log: Log,
    /// Which chain it is.
    pub genesis: Genesis,
    /// Bytes of an unfinished frame that were cut off.
    pub torn_bytes: u64,
    /// What the log continues.
    pub(super) snapshot: Option<Snapshot>,
    /// Every change since, oldest first.
    pub records: Vec<Record>,
}

impl Log {
    /// Opens or begins the log in `folder`. `first` is the genesis of a new chain.
    ///
    /// # Errors
    /// [`LogError`] when the log is held, damaged, of another version or cannot be read.
    pub fn open(folder: &Path, first: impl FnOnce() -> (Hash, u64)) -> Result<Opened, LogError> {
        let path = folder.join(FILE);
        let io = |verb| {
            let path = path.clone();
            move |source| LogError::Io { verb, path, source }
        };
        std::fs::create_dir_all(folder).map_err(io("make the folder of"))?;
        let lock = lock(folder)?;
        match std::fs::remove_file(folder.join(FILE_NEW)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("tidy")(error)),
            _ => {}
        }
        let found = Snapshot::read(folder)?;
        let existed = path.exists();
        let mut file = options().create(true).truncate(false).open(&path).map_err(io("open"))?;
        let mut frames = Frames::new(&file, &path)?;
        let genesis = frames.next()?.map(|content| Genesis::read(&content, &path)).transpose()?;
        let mut records = Vec::new();
        if genesis.is_some() {
            while let Some(content) = frames.next()? {
                records.append(&mut serde_json::from_slice(&content).map_err(|_| frames.damaged())?);
            }
        }
        let (end, torn_bytes) = (frames.at, frames.len - frames.at);
        if torn_bytes > 0 {
            tracing::warn!(torn_bytes, path = %path.display(), "cut an unfinished write off the local chain's log");
            file.set_len(end).and_then(|()| file.sync_all()).map_err(io("cut"))?;
        }
        file.seek(SeekFrom::Start(end)).map_err(io("read"))?;
        let (snapshot, snapshot_bytes) = found.map_or((None, 0), |(snapshot, bytes)| (Some(snapshot), bytes));
        let begun = genesis.unwrap_or(Genesis::new(Hash([0; 32]), 0));
        let mut log = Self {
            folder: folder.to_owned(),
            file,
            genesis: begun,
            pending: Vec::new(),
            bytes: end,
            snapshot_bytes,
            _lock: lock,
        };
        match (snapshot.as_ref().map(|snapshot| snapshot.genesis), genesis) {
            (None, None) => log.begin(first())?,
            (None, Some(log)) if log.generation == 0 => {}
            (Some(snapshot), Some(log)) if snapshot.hash == log.hash && snapshot.generation == log.generation => {}
            (Some(snapshot), Some(old)) if snapshot.hash == old.hash && snapshot.generation == old.generation + 1 => {
                log.replace(snapshot)?;
                records.clear();
            }
            _ => {
                if !existed {
                    // Made just now, for nothing.
                    std::fs::remove_file(&path).map_err(io("tidy"))?;
                }
                return Err(LogError::Apart { path });
            }
        }
        Ok(Opened { genesis: log.genesis, log, torn_bytes, snapshot, records })
    }

    fn begin(&mut self, (hash, unix_ms): (Hash, u64)) -> Result<(), LogError> {
        self.genesis = Genesis::new(hash, unix_ms);
        let genesis = self.genesis;
        self.write_frame(&genesis)?;
        sync_folder(&self.folder).map_err(self.io("make the folder of"))
    }

    /// Notes a change for the next [`Log::commit`].
    pub fn push(&mut self, record: Record) {
        self.pending.push(record);
    }

    /// Writes what was noted since the last time as one frame, and returns once it is on disk.
    ///
    /// # Errors
    /// [`LogError::Io`] when it cannot be written; the chain must then stop.
    pub fn commit(&mut self) -> Result<(), LogError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.pending);
        self.write_frame(&records)
    }

    /// Whether replaying it has come to cost so much more than reading its snapshot that a new one is due. What snapshots
    /// cost is thus a share of what the log's writes did.
    #[must_use]
    pub fn is_long(&self, bytes_max: u64) -> bool {
        self.genesis.is_of_older_build() || self.bytes > bytes_max.max(2 * self.snapshot_bytes)
    }

    /// The genesis of the snapshot that would come next.
    #[must_use]
    pub const fn next_genesis(&self) -> Genesis {
        self.genesis.next()
    }

    /// Puts a snapshot of everything committed in the place of the log so far.
    ///
    /// # Errors
    /// [`LogError::Io`] when it cannot be written; the chain must then stop, for its log may have been replaced.
    pub(super) fn compact(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        assert!(self.pending.is_empty(), "what is compacted has been committed");
        self.snapshot_bytes = snapshot.write(&self.folder)?;
        self.replace(snapshot.genesis)
    }

    /// Puts an empty log of this genesis in the place of the one so far.
    fn replace(&mut self, genesis: Genesis) -> Result<(), LogError> {
        let new = self.folder.join(FILE_NEW);
        let file = options().create(true).truncate(true).open(&new).map_err(self.io("write"))?;
        (self.file, self.genesis, self.bytes) = (file, genesis, 0);
        self.write_frame(&genesis)?;
        self.file.sync_all().map_err(self.io("write"))?;
        std::fs::rename(&new, self.folder.join(FILE)).map_err(self.io("replace"))?;
        sync_folder(&self.folder).map_err(self.io("replace"))
    }

    fn write_frame(&mut self, content: &impl Serialize) -> Result<(), LogError> {
        let written = frames::write(&mut self.file, content).and_then(|bytes| {
            self.file.sync_data()?;
            Ok(bytes)
        });
        self.bytes += written.map_err(self.io("write"))?;
        Ok(())
    }

    fn io(&self, verb: &'static str) -> impl FnOnce(io::Error) -> LogError + use<> {
        let path = self.folder.join(FILE);
        move |source| LogError::Io { verb, path, source }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK);
    let io = |source| LogError::Io { verb: "lock", path: path.clone(), source };
    let file = options().create(true).truncate(false).open(&path).map_err(io)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => LogError::Locked { path: folder.to_owned() },
        TryLockError::Error(source) => io(source),
    })?;
    Ok(file)
}

pub(super) mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(in crate::local) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(in crate::local) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot;
    use super::super::timeline::Past;
    use super::*;

    fn record(slot: u64) -> Record {
        let account = StoredAccount {
            address: Address([1; 32]),
            lamports: slot,
            owner: Address([2; 32]),
            executable: false,
            data: vec![3; 50],
        };
        Record {
            slot,
            unix_ms: slot * 400,
            warp_ms: 0,
            signature: None,
            error: None,
            accounts: vec![account],
            detail: None,
            fork: None,
            anchor: None,
        }
    }

    fn open(folder: &Path) -> Result<(Opened, Vec<u64>), LogError> {
        let opened = Log::open(folder, || (Hash([9; 32]), 77))?;
        let slots = opened.records.iter().map(|record| record.slot).collect();
        Ok((opened, slots))
    }

    /// Three frames of two records each; returns the length after each frame, the genesis first.
    fn written(folder: &Path) -> Vec<u64> {
        let (mut opened, _) = open(folder).unwrap();
        let len = |log: &Log| log.file.metadata().unwrap().len();
        let mut ends = vec![len(&opened.log)];
        for slot in [1, 3, 5] {
            opened.log.push(record(slot));
            opened.log.push(record(slot + 1));
            opened.log.commit().unwrap();
            ends.push(len(&opened.log));
        }
        ends
    }

    #[test]
    fn a_log_cut_at_any_byte_opens_with_its_whole_frames_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let ends = written(folder.path());
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut opened, slots) = open(folder.path()).unwrap();
            let frames = ends.iter().filter(|end| **end <= cut as u64).count();
            let good = if frames == 0 { 0 } else { ends[frames - 1] };
            assert_eq!(slots.len(), frames.saturating_sub(1) * 2, "cut at {cut}");
            assert_eq!(opened.torn_bytes, cut as u64 - good, "cut at {cut}");
            assert_eq!(opened.genesis.hash, Hash([9; 32]));
            opened.log.push(record(100));
            opened.log.commit().unwrap();
            drop(opened);
            assert_eq!(open(folder.path()).unwrap().1.last(), Some(&100), "cut at {cut}");
        }
    }

    #[test]
    fn a_tail_of_zeros_or_of_garbage_that_ends_there_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let ends = written(folder.path());
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &[0; 500]].concat()).unwrap();
        let (opened, slots) = open(folder.path()).unwrap();
        assert_eq!((opened.torn_bytes, slots.len()), (500, 6));
        drop(opened);
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let (opened, slots) = open(folder.path()).unwrap();
        assert_eq!((opened.torn_bytes, slots.len()), (ends[3] - ends[2], 4));
    }

    #[test]
    fn damage_in_the_middle_another_version_and_a_second_process_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ends = written(folder.path());
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[usize::try_from(ends[1]).unwrap() + 40] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert!(matches!(open(folder.path()), Err(LogError::Damaged { at, .. }) if at == ends[1]));

        std::fs::write(&path, &whole).unwrap();
        let held = open(folder.path()).unwrap();
        assert!(matches!(open(folder.path()), Err(LogError::Locked { .. })));
        drop(held);

        std::fs::remove_file(&path).unwrap();
        let (mut opened, _) = open(folder.path()).unwrap();
        opened.log.file.set_len(0).unwrap();
        opened.log.file.seek(SeekFrom::Start(0)).unwrap();
        opened.log.write_frame(&serde_json::json!({ "version": 3 })).unwrap();
        drop(opened);
        assert!(matches!(open(folder.path()), Err(LogError::Version { version: 3, .. })));
    }

    /// What a folder leads to: the slot of the newest change, wherever it is kept.
    fn seen(folder: &Path) -> Result<(Opened, u64), LogError> {
        let opened = Log::open(folder, || (Hash([9; 32]), 77))?;
        let kept = opened.snapshot.as_ref().map(|snapshot| snapshot.accounts[0].lamports);
        let seen = opened.records.last().map(|record| record.slot).or(kept);
        Ok((opened, seen.unwrap_or(0)))
    }

    fn snapshot(log: &Log, slot: u64) -> Snapshot {
        let now = Moment { slot, unix_ms: slot * 400 };
        Snapshot {
            genesis: log.next_genesis(),
            past: Past { now, warp_ms: 0, anchors: vec![now], forks: Vec::new() },
            transactions: slot,
            accounts: record(slot).accounts,
            statuses: Vec::new(),
            history: Vec::new(),
        }
    }

    #[test]
    fn a_crash_at_any_byte_of_a_snapshot_or_of_the_log_after_it_loses_nothing() {
        let source = tempfile::tempdir().unwrap();
        written(source.path());
        let read = |name: &str| std::fs::read(source.path().join(name)).unwrap();
        let old_log = read(FILE);
        let (mut opened, _) = seen(source.path()).unwrap();
        let new = snapshot(&opened.log, 6);
        opened.log.compact(&new).unwrap();
        drop(opened);
        let (snapshot_new, log_new) = (read(snapshot::FILE), read(FILE));
        let check = |files: &[(&str, &[u8])], what: &str| {
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in files {
                std::fs::write(folder.path().join(name), content).unwrap();
            }
            let (mut opened, newest) = seen(folder.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(newest, 6, "{what}");
            opened.log.push(record(100));
            opened.log.commit().unwrap();
            drop(opened);
            assert_eq!(seen(folder.path()).unwrap().1, 100, "{what}");
        };
        for cut in 0..=snapshot_new.len() {
            check(&[(FILE, &old_log), ("chain.snapshot.new", &snapshot_new[..cut])], "while the snapshot is written");
        }
        check(&[(FILE, &old_log), (snapshot::FILE, &snapshot_new)], "between snapshot and log");
        for cut in 0..=log_new.len() {
            let files = [(FILE, &old_log[..]), (snapshot::FILE, &snapshot_new), (FILE_NEW, &log_new[..cut])];
            check(&files, "while the new log is written");
        }
        check(&[(FILE, &log_new), (snapshot::FILE, &snapshot_new)], "after it");
    }

    #[test]
    fn a_snapshot_that_is_cut_or_does_not_belong_to_its_log_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let (mut opened, _) = seen(folder.path()).unwrap();
        let new = snapshot(&opened.log, 6);
        opened.log.compact(&new).unwrap();
        drop(opened);
        let (path, log_path) = (folder.path().join(snapshot::FILE), folder.path().join(FILE));
        let (whole, log) = (std::fs::read(&path).unwrap(), std::fs::read(&log_path).unwrap());
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(seen(folder.path()), Err(LogError::Damaged { .. })), "cut at {cut}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(seen(folder.path()), Err(LogError::Apart { .. })), "without its snapshot");
        std::fs::write(&path, &whole).unwrap();
        std::fs::remove_file(&log_path).unwrap();
        for _ in 0..2 {
            assert!(matches!(seen(folder.path()), Err(LogError::Apart { .. })), "without its log");
        }
        std::fs::write(&log_path, &log).unwrap();
        assert_eq!(seen(folder.path()).unwrap().1, 6);
    }
}

//! The local chain's append-only log: frames of length, checksum and JSON.
//!
//! Everything that one write to disk carries is one frame, and a frame is synced before anything in it is answered. So a
//! crash can only leave the last frame unfinished: it is cut off at the next start, and said. A damaged frame with
//! others behind it is no crash but a damaged disk or an editor: the log is refused.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::history::Detail;
use crate::address::{Address, Hash, Signature};

/// The log's name in the state folder.
pub const FILE: &str = "chain.log";
/// Version of the frames' content.
const VERSION: u32 = 1;
/// Length u32 and the first eight bytes of the content's SHA-256.
const HEAD_BYTES: usize = 12;
/// Longest frame: 64 transactions that each rewrite ten of the largest accounts of the market stay far below.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// The first frame: which chain this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    version: u32,
    /// The hash that names the chain for ever.
    pub hash: Hash,
    /// When its first slot began.
    pub unix_ms: u64,
}

impl Genesis {
    /// The chain of this hash, from this moment on.
    #[must_use]
    pub const fn new(hash: Hash, unix_ms: u64) -> Self {
        Self { version: VERSION, hash, unix_ms }
    }
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
    #[error("the local chain's log {path} is damaged at byte {at}, with more behind it: this is no crash. Restore the file from a copy, or delete it to start a new chain", path = path.display())]
    Damaged { path: PathBuf, at: u64 },
    /// It is of another version.
    #[error("the local chain's log {path} has version {version}, and this build reads {VERSION}: use the build that wrote it, or delete the file to start a new chain", path = path.display())]
    Version { path: PathBuf, version: u32 },
}

/// The open log of a running chain.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    pending: Vec<Record>,
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
}

impl Log {
    /// Opens or begins the log in `folder` and gives every record to `replay`, oldest first. `first` is the genesis of a
    /// new chain.
    ///
    /// # Errors
    /// [`LogError`] when the log is held, damaged, of another version or cannot be read; or what `replay` refuses.
    pub fn open<E: From<LogError>>(
        folder: &Path,
        first: impl FnOnce() -> (Hash, u64),
        mut replay: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<Opened, E> {
        let path = folder.join(FILE);
        let io = |verb| {
            let path = path.clone();
            move |source| LogError::Io { verb, path, source }
        };
        std::fs::create_dir_all(folder).map_err(io("make the folder of"))?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io("open"))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LogError::Locked { path: path.clone() },
            TryLockError::Error(source) => io("lock")(source),
        })?;
        let mut frames = Frames::new(&file, &path)?;
        let genesis = frames.next()?.map(|content| read_genesis(&content, &path)).transpose()?;
        if genesis.is_some() {
            while let Some(content) = frames.next()? {
                let records: Vec<Record> = serde_json::from_slice(&content).map_err(|_| frames.damaged())?;
                records.into_iter().try_for_each(&mut replay)?;
            }
        }
        let (end, torn_bytes) = (frames.at, frames.len - frames.at);
        if torn_bytes > 0 {
            tracing::warn!(torn_bytes, path = %path.display(), "cut an unfinished write off the local chain's log");
            file.set_len(end).and_then(|()| file.sync_all()).map_err(io("cut"))?;
        }
        file.seek(SeekFrom::Start(end)).map_err(io("read"))?;
        let mut log = Self { file, path, pending: Vec::new() };
        let genesis = match genesis {
            Some(genesis) => genesis,
            None => log.begin(folder, first())?,
        };
        Ok(Opened { log, genesis, torn_bytes })
    }

    fn begin(&mut self, folder: &Path, (hash, unix_ms): (Hash, u64)) -> Result<Genesis, LogError> {
        let genesis = Genesis::new(hash, unix_ms);
        self.write_frame(&genesis)?;
        let io = |source| LogError::Io { verb: "make the folder of", path: self.path.clone(), source };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(genesis)
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

    fn write_frame(&mut self, content: &impl Serialize) -> Result<(), LogError> {
        let io = |source| LogError::Io { verb: "write", path: self.path.clone(), source };
        let mut frame = vec![0; HEAD_BYTES];
        serde_json::to_writer(&mut frame, content).map_err(|error| io(error.into()))?;
        let (head, content) = frame.split_at_mut(HEAD_BYTES);
        let len = u32::try_from(content.len()).ok().filter(|len| *len as usize <= FRAME_BYTES_MAX);
        let len = len.ok_or_else(|| io(io::Error::other("more than 1 GiB in one write")))?;
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..].copy_from_slice(&checksum(content));
        self.file.write_all(&frame).and_then(|()| self.file.sync_data()).map_err(io)
    }
}

fn read_genesis(content: &[u8], path: &Path) -> Result<Genesis, LogError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |_| LogError::Damaged { path: path.to_owned(), at: 0 };
    let Versioned { version } = serde_json::from_slice(content).map_err(damaged)?;
    if version != VERSION {
        return Err(LogError::Version { path: path.to_owned(), version });
    }
    serde_json::from_slice(content).map_err(damaged)
}

fn checksum(content: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::digest(content)[..8]);
    bytes
}

/// Reads frames until the end or the first unfinished one; `at` is then where the good ones end.
struct Frames<'a> {
    reader: io::BufReader<&'a File>,
    path: &'a Path,
    at: u64,
    len: u64,
}

impl<'a> Frames<'a> {
    fn new(file: &'a File, path: &'a Path) -> Result<Self, LogError> {
        let io = |source| LogError::Io { verb: "read", path: path.to_owned(), source };
        Ok(Self { reader: io::BufReader::new(file), path, at: 0, len: file.metadata().map_err(io)?.len() })
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let io = |source| LogError::Io { verb: "read", path: self.path.to_owned(), source };
        let left = self.len - self.at;
        if left < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        self.reader.read_exact(&mut head).map_err(io)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let end = HEAD_BYTES as u64 + u64::from(len);
        if len == 0 {
            // A file that grew before its bytes arrived reads as zeros to its end; anything else is damage.
            let mut rest = Vec::new();
            (&mut self.reader).take(FRAME_BYTES_MAX as u64).read_to_end(&mut rest).map_err(io)?;
            let zeros = head.iter().chain(&rest).all(|byte| *byte == 0);
            return if zeros { Ok(None) } else { Err(self.damaged()) };
        }
        if end > left {
            return Ok(None);
        }
        let mut content = vec![0; len as usize];
        self.reader.read_exact(&mut content).map_err(io)?;
        if checksum(&content) != head[4..] {
            return if end == left { Ok(None) } else { Err(self.damaged()) };
        }
        self.at += end;
        Ok(Some(content))
    }

    fn damaged(&self) -> LogError {
        LogError::Damaged { path: self.path.to_owned(), at: self.at }
    }
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
        }
    }

    fn open(folder: &Path) -> Result<(Opened, Vec<u64>), LogError> {
        let mut slots = Vec::new();
        let opened = Log::open(
            folder,
            || (Hash([9; 32]), 77),
            |record| {
                slots.push(record.slot);
                Ok::<_, LogError>(())
            },
        )?;
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
        opened.log.write_frame(&serde_json::json!({ "version": 2 })).unwrap();
        drop(opened);
        assert!(matches!(open(folder.path()), Err(LogError::Version { version: 2, .. })));
    }
}

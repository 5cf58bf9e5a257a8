//! Everything of a chain in one file, so that a start replays only what came after it.
//!
//! Written beside, synced, and renamed over the last one: a crash leaves the old one or the new one, whole. So an
//! unfinished snapshot is damage, unlike an unfinished end of the log.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::frames::{self, Frames};
use super::history::Detail;
use super::log::{Genesis, LogError, StoredAccount};
use super::timeline::Past;
use crate::address::Signature;

/// The snapshot's name in the state folder.
pub const FILE: &str = "chain.snapshot";
const FILE_NEW: &str = "chain.snapshot.new";
/// Items of one frame; a frame stays far below its bound even with the largest accounts of the market.
const ITEMS_MAX: usize = 256;

/// Everything of a chain at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Which chain, and which log continues here.
    pub(super) genesis: Genesis,
    /// Its time.
    pub(super) past: Past,
    /// Transactions that were ever processed.
    pub(super) transactions: u64,
    /// The accounts that are others than those of a new chain; one without lamports is gone.
    pub(super) accounts: Vec<StoredAccount>,
    /// All transactions, in no order of theirs.
    pub(super) statuses: Vec<StoredStatus>,
    /// What is remembered of the newest, oldest first.
    pub(super) history: Vec<StoredEntry>,
}

/// A processed transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredStatus {
    pub(super) signature: Signature,
    pub(super) slot: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Value>,
}

/// What is remembered of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredEntry {
    pub(super) signature: Signature,
    pub(super) slot: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Value>,
    pub(super) detail: Detail,
}

#[derive(Serialize, Deserialize)]
struct Head {
    genesis: Genesis,
    past: Past,
    transactions: u64,
    /// How many follow, so that a snapshot that ends early at a frame's end is seen.
    accounts: usize,
    statuses: usize,
    history: usize,
}

impl Snapshot {
    /// Puts it in the place of the folder's last one; gives its bytes. It is on disk afterwards.
    pub(super) fn write(&self, folder: &Path) -> Result<u64, LogError> {
        let (new, path) = (folder.join(FILE_NEW), folder.join(FILE));
        let io = |verb| {
            let path = path.clone();
            move |source| LogError::Io { verb, path, source }
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(io("write"))?;
        let mut file = BufWriter::new(file);
        let head = Head {
            genesis: self.genesis,
            past: self.past.clone(),
            transactions: self.transactions,
            accounts: self.accounts.len(),
            statuses: self.statuses.len(),
            history: self.history.len(),
        };
        let mut bytes = frames::write(&mut file, &head).map_err(io("write"))?;
        bytes += write_items(&mut file, &self.accounts).map_err(io("write"))?;
        bytes += write_items(&mut file, &self.statuses).map_err(io("write"))?;
        bytes += write_items(&mut file, &self.history).map_err(io("write"))?;
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(io("write"))?;
        std::fs::rename(&new, &path).map_err(io("replace"))?;
        sync_folder(folder).map_err(io("replace"))?;
        Ok(bytes)
    }

    /// The folder's snapshot with its bytes; none when there is none. What a crash left beside it goes.
    pub(super) fn read(folder: &Path) -> Result<Option<(Self, u64)>, LogError> {
        let path = folder.join(FILE);
        let io = |verb, path: PathBuf| move |source| LogError::Io { verb, path, source };
        let new = folder.join(FILE_NEW);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("tidy", new)(error)),
            _ => {}
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("open", path)(error)),
        };
        let mut frames = Frames::new(&file, &path)?;
        let head: Head = read_frame(&mut frames)?;
        head.genesis.check(&path)?;
        let snapshot = Self {
            genesis: head.genesis,
            past: head.past,
            transactions: head.transactions,
            accounts: read_items(&mut frames, head.accounts)?,
            statuses: read_items(&mut frames, head.statuses)?,
            history: read_items(&mut frames, head.history)?,
        };
        if frames.at != frames.len {
            return Err(frames.damaged());
        }
        Ok(Some((snapshot, frames.len)))
    }
}

fn write_items<T: Serialize>(file: &mut impl std::io::Write, items: &[T]) -> std::io::Result<u64> {
    items.chunks(ITEMS_MAX).try_fold(0, |bytes, items| Ok(bytes + frames::write(file, &items)?))
}

fn read_items<T: for<'de> Deserialize<'de>>(frames: &mut Frames<'_>, count: usize) -> Result<Vec<T>, LogError> {
    let mut items = Vec::new();
    while items.len() < count {
        let more: Vec<T> = read_frame(frames)?;
        if more.is_empty() {
            return Err(frames.damaged());
        }
        items.extend(more);
    }
    if items.len() == count { Ok(items) } else { Err(frames.damaged()) }
}

fn read_frame<T: for<'de> Deserialize<'de>>(frames: &mut Frames<'_>) -> Result<T, LogError> {
    let content = frames.next()?.ok_or_else(|| frames.damaged())?;
    serde_json::from_slice(&content).map_err(|_| frames.damaged())
}

/// Makes renames and new files in a folder last.
pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

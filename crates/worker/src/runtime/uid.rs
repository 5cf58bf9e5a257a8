//! A user id of its own for every pod of this machine, whichever worker it belongs to.
//!
//! Who names the pods must not be able to put two of them under one user: on the host, one user's processes and files are
//! all each other's. So the wish (a hash of the pod's id) is only where the search begins; an id counts once its lock file
//! is locked, and the kernel gives the lock back when its holder, the supervisor, ends. The files stay, empty: a removed
//! one could be locked by two.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The first of the ids of pods. `systemd` (UIDS-GIDS) names 1,879,048,192 to 2,147,483,647 as used by nobody: above
/// subordinate ids, containers and dynamic users, and within what ping_group_range takes.
pub const FIRST: u32 = 1_900_000_000;
/// How many there are.
pub const COUNT: u32 = 65_536;
/// Where the lock files lie: one place for all workers of a machine, root's alone, emptied by a restart.
pub const FOLDER: &str = "/run/atoll/uids";
/// Ids tried one after the other. A machine with that many pods in a row under one hash has other troubles.
const TRIES_MAX: u32 = 1024;

/// An id that nobody else on this machine gets while this lives.
#[derive(Debug)]
pub struct Claim {
    uid: u32,
    _lock: File,
}

impl Claim {
    /// The id.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }
}

/// Claims `wanted`, or the next id that is free.
///
/// # Errors
/// `folder` cannot be used, or far too many ids are taken.
pub fn claim(folder: &Path, wanted: u32) -> Result<Claim> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("make {}", folder.display()))?;
    for turn in 0..TRIES_MAX {
        let uid = next(wanted, turn);
        let path = folder.join(uid.to_string());
        let flags = libc::O_NOFOLLOW;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(&path);
        let lock = lock.with_context(|| format!("open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => return Ok(Claim { uid, _lock: lock }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
    bail!("{TRIES_MAX} user ids from {wanted} on belong to other pods of this machine")
}

/// The id to try at a turn: within the pods' own range in a circle, elsewhere upwards.
fn next(wanted: u32, turn: u32) -> u32 {
    match wanted.checked_sub(FIRST) {
        Some(offset) if offset < COUNT => FIRST + (offset + turn) % COUNT,
        _ => wanted.saturating_add(turn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_an_id_twice_and_it_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let last = FIRST + COUNT - 1;
        let first = claim(folder.path(), last).unwrap();
        let second = claim(folder.path(), last).unwrap();
        assert_eq!((first.uid(), second.uid()), (last, FIRST), "in a circle");
        drop(first);
        assert_eq!(claim(folder.path(), last).unwrap().uid(), last);
        assert_eq!(next(5_000, 2), 5_002);
    }
}

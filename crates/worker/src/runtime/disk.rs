//! How much a folder holds, and deleting it. The folder is a tenant's: links are not followed, mounts not entered, and
//! neither width nor depth costs more than a bound.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Files in a folder at most; more is as good as full. Walking this many takes about a second.
pub const FILES_MAX: u64 = 200_000;

/// Folders within folders at most.
const DEPTH_MAX: usize = 64;

/// Folders that [`remove`] has open at once, each in the other.
const LEVELS: usize = 64;

/// Entries of one folder that it holds in memory at once.
const BATCH: usize = 250;

/// Why a walk gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    #[error("too many files")]
    TooManyFiles,
    #[error("too many folders within folders")]
    TooDeep,
    #[error("a folder that cannot be looked into")]
    Closed,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk (blocks, not lengths).
    pub bytes: u64,
    pub files: u64,
    /// What was found is not all there is.
    pub cut: Option<Cut>,
}

/// Flags for a folder that must be one: no link, no file.
const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Adds up a folder. What vanishes meanwhile is not counted.
#[must_use]
pub fn usage(folder: &Path) -> Usage {
    let mut usage = Usage::default();
    if let Ok(mut dir) = Dir::open(folder, FOLDER, Mode::empty())
        && let Ok(stat) = fstat(dir.as_fd())
    {
        walk(&mut dir, stat.st_dev, 0, &mut usage);
    }
    usage
}

fn walk(dir: &mut Dir, device: u64, depth: usize, usage: &mut Usage) {
    let left = usize::try_from(FILES_MAX.saturating_sub(usage.files)).unwrap_or(usize::MAX).saturating_add(1);
    for (name, kind) in entries(dir, left) {
        if usage.files >= FILES_MAX {
            usage.cut = Some(Cut::TooManyFiles);
        }
        if usage.cut.is_some() {
            return;
        }
        let Ok(stat) = fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        usage.files += 1;
        usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if kind != Some(Type::Directory) || stat.st_dev != device {
            continue;
        }
        if depth == DEPTH_MAX {
            usage.cut = Some(Cut::TooDeep);
            return;
        }
        match Dir::openat(dir.as_fd(), name.as_c_str(), FOLDER, Mode::empty()) {
            Ok(mut inner) => walk(&mut inner, device, depth + 1, usage),
            // Its own tenant still writes there by a descriptor, and it has our user id where the worker is not root.
            Err(Errno::EACCES) => usage.cut = Some(Cut::Closed),
            Err(_) => {}
        }
    }
}

/// Up to `most` entries of a folder, without `.` and `..`.
fn entries(dir: &mut Dir, most: usize) -> Vec<(CString, Option<Type>)> {
    let named = dir.iter().flatten().map(|entry| (entry.file_name().to_owned(), entry.file_type()));
    named.filter(|(name, _)| !matches!(name.to_bytes(), b"." | b"..")).take(most).collect()
}

/// Bytes on the disk of `folder` in files that have no name any more and that one of these processes has open. (A file
/// that is only mapped, or on its way between two processes, is not found.)
#[must_use]
pub fn deleted_bytes(folder: &Path, pids: impl Iterator<Item = i32>) -> u64 {
    let Ok(device) = std::fs::metadata(folder).map(|meta| meta.dev()) else { return 0 };
    let (mut seen, mut bytes) = (BTreeSet::new(), 0_u64);
    for pid in pids {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            // Follows the kernel's own link to the open file, wherever its name has gone.
            let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
            if meta.nlink() == 0 && meta.dev() == device && meta.is_file() && seen.insert(meta.ino()) {
                bytes = bytes.saturating_add(meta.blocks() * 512);
            }
        }
    }
    bytes
}

/// Deletes a folder with everything in it, whatever a tenant has built there: folders deeper than any stack or table of
/// descriptors, closed ones, links that lead elsewhere. Nothing outside is touched.
///
/// What lies [`LEVELS`] folders deep is moved up to `folder` and emptied from there, so one pass needs that many
/// descriptors and no more.
///
/// # Errors
/// What the file system refused. A folder that is not there is no error.
pub fn remove(folder: &Path) -> Result<()> {
    loop {
        let mut top = match Dir::open(folder, FOLDER, Mode::empty()) {
            Ok(top) => top,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let found = entries(&mut top, BATCH);
        if found.is_empty() {
            return std::fs::remove_dir(folder);
        }
        let mut moved = 0;
        for (name, _) in &found {
            remove_one(top.as_fd(), name, 1, &top, &mut moved)?;
        }
    }
}

/// Deletes one entry of the folder `at`, which lies `depth` folders deep; what is too deep is moved to `top`.
fn remove_one(at: BorrowedFd<'_>, name: &CString, depth: usize, top: &Dir, moved: &mut u64) -> Result<()> {
    match unlinkat(at, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        // What Linux says of a folder.
        Err(Errno::EISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut inner = open_up(at, name)?;
    if depth == LEVELS {
        // Opened for it too: moving a folder writes its `..`.
        return move_up(at, name, top, moved);
    }
    loop {
        let found = entries(&mut inner, BATCH);
        if found.is_empty() {
            return Ok(unlinkat(at, name.as_c_str(), UnlinkatFlags::RemoveDir)?);
        }
        for (entry, _) in &found {
            remove_one(inner.as_fd(), entry, depth + 1, top, moved)?;
        }
        inner = open_up(at, name)?;
    }
}

fn move_up(from: BorrowedFd<'_>, name: &CString, top: &Dir, moved: &mut u64) -> Result<()> {
    loop {
        *moved += 1;
        let free = CString::new(format!(".removing-{moved}"))?;
        // renameat would replace an empty folder of that name, which is as well deleted.
        match renameat(from, name.as_c_str(), top.as_fd(), free.as_c_str()) {
            Ok(()) => return Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens a folder whose mode may forbid it: its owner may always change that.
fn open_up(at: BorrowedFd<'_>, name: &CString) -> Result<Dir> {
    let place = openat(at, name.as_c_str(), OFlag::O_PATH | FOLDER, Mode::empty())?;
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    // By the descriptor, so that it is this very folder and no link.
    std::fs::set_permissions(format!("/proc/self/fd/{}", place.as_raw_fd()), all).map_err(|error| {
        Error::new(error.kind(), format!("cannot open a tenant's folder {}: {error}", name.to_string_lossy()))
    })?;
    Ok(Dir::openat(at, name.as_c_str(), FOLDER, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_added_up_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let empty = usage(dir.path());
        assert_eq!((empty.files, empty.cut), (0, None));
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("inner/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let full = usage(dir.path());
        assert_eq!(full.files, 3);
        assert!((100_000..200_000).contains(&full.bytes), "{full:?}");
    }

    #[test]
    fn depth_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", DEPTH_MAX + 2).collect();
        std::fs::create_dir_all(dir.path().join(deep)).unwrap();
        assert_eq!(usage(dir.path()).cut, Some(Cut::TooDeep));
    }

    #[test]
    fn a_deleted_file_that_is_open_still_counts() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let own = || std::iter::once(i32::try_from(std::process::id()).unwrap());
        let before = deleted_bytes(dir.path(), own());
        let mut file = std::fs::File::create(dir.path().join("f")).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        assert_eq!(deleted_bytes(dir.path(), own()), before);
        std::fs::remove_file(dir.path().join("f")).unwrap();
        assert_eq!(usage(dir.path()).bytes, 0);
        assert!(deleted_bytes(dir.path(), own()) >= before + (1 << 20));
    }

    #[test]
    fn a_folder_built_to_be_kept_is_deleted_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, doomed) = (dir.path().join("kept"), dir.path().join("doomed"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "mine").unwrap();
        std::fs::create_dir(&doomed).unwrap();
        std::os::unix::fs::symlink(&kept, doomed.join("link")).unwrap();
        std::os::unix::fs::symlink(&kept, doomed.join(".removing-1")).unwrap();
        for n in 0..2 * BATCH {
            std::fs::write(doomed.join(n.to_string()), "").unwrap();
        }
        let closed = doomed.join("closed/inner");
        std::fs::create_dir_all(closed.join("deepest")).unwrap();
        std::os::unix::fs::symlink(&kept, closed.join("link")).unwrap();
        for folder in [&closed, &doomed.join("closed")] {
            std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        }
        // Descriptors as few as a worker has by default, and more folders in each other than that.
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard).unwrap();
        deep(&doomed, 2_000);
        remove(&doomed).unwrap();
        assert!(!doomed.exists());
        assert_eq!(std::fs::read_to_string(kept.join("file")).unwrap(), "mine");
        remove(&doomed).unwrap();
    }

    /// Folders within folders, deeper than a path can say and than a process has descriptors.
    fn deep(folder: &Path, levels: usize) {
        let mut at = nix::fcntl::open(folder, FOLDER, Mode::empty()).unwrap();
        for _ in 0..levels {
            nix::sys::stat::mkdirat(&at, c"d", Mode::S_IRWXU).unwrap();
            at = openat(&at, c"d", FOLDER, Mode::empty()).unwrap();
        }
    }
}

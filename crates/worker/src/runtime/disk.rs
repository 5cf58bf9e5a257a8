//! How much a folder holds. The folder is a tenant's: links are not followed, mounts not entered, work bounded.

use std::os::fd::AsFd;

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat};

/// Files in a folder at most; more is as good as full. Walking this many takes about a second.
pub const FILES_MAX: u64 = 200_000;

/// Folders within folders at most.
const DEPTH_MAX: usize = 64;

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk (blocks, not lengths).
    pub bytes: u64,
    pub files: u64,
    /// The walk gave up: too many files or too deep.
    pub cut: bool,
}

/// Adds up a folder. What vanishes meanwhile is not counted.
#[must_use]
pub fn usage(folder: &std::path::Path) -> Usage {
    let mut usage = Usage::default();
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if let Ok(mut dir) = Dir::open(folder, flags, Mode::empty())
        && let Ok(stat) = fstat(dir.as_fd())
    {
        walk(&mut dir, stat.st_dev, 0, &mut usage);
    }
    usage
}

fn walk(dir: &mut Dir, device: u64, depth: usize, usage: &mut Usage) {
    let entries: Vec<_> = dir.iter().flatten().map(|entry| (entry.file_name().to_owned(), entry.file_type())).collect();
    for (name, kind) in entries {
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if usage.files >= FILES_MAX {
            usage.cut = true;
            return;
        }
        let Ok(stat) = fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        usage.files += 1;
        usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if kind != Some(Type::Directory) || stat.st_dev != device {
            continue;
        }
        if depth == DEPTH_MAX {
            usage.cut = true;
            return;
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if let Ok(mut inner) = Dir::openat(dir.as_fd(), name.as_c_str(), flags, Mode::empty()) {
            walk(&mut inner, device, depth + 1, usage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_added_up_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let empty = usage(dir.path());
        assert_eq!((empty.files, empty.cut), (0, false));
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
        assert!(usage(dir.path()).cut);
    }
}

//! Packs a job's folder: the same content gives the same bytes, on every machine and at every time.
//!
//! A gzipped tar of plain files and folders in order of their paths, with mode 0755 or 0644, no times and no owners.
//! Nothing from outside the folder gets in: a link is followed only to a plain file inside, devices, sockets and pipes
//! are refused, and so is what the pod's unpacker would refuse. What nobody means to send ([`LEFT_OUT`]) stays out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use atoll_domain::job::{BUNDLE_BYTES_MAX, Bundle};
use atoll_domain::key::Digest;

use crate::exit::Failure;
use crate::output;

/// Names that are left out wherever they occur.
pub const LEFT_OUT: [&str; 9] =
    [".git", ".hg", ".svn", "__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ipynb_checkpoints", ".DS_Store"];
/// The most files and folders, as the pod's unpacker takes them.
const MEMBERS_MAX: usize = 10_000;
/// The longest path within the folder, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// The deepest folder.
const DEPTH_MAX: usize = 32;
/// The largest file before packing.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// All files before packing.
const TOTAL_BYTES_MAX: u64 = 1 << 30;

/// A folder, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The gzipped tar.
    pub bytes: Vec<u8>,
    /// Its address and length.
    pub bundle: Bundle,
    /// Files in it.
    pub files: usize,
}

/// What a walk found, by its path within the folder.
struct Member {
    name: String,
    path: PathBuf,
    folder: bool,
}

struct Walk {
    root: PathBuf,
    members: Vec<Member>,
}

/// Packs `folder`.
///
/// # Errors
/// [`Failure`] naming the file that cannot be read or is not allowed, and what to do about it. Nothing is left behind.
pub fn pack(folder: &Path) -> Result<Packed, Failure> {
    let root = folder.canonicalize().map_err(|error| unreadable(folder, &error))?;
    let mut walk = Walk { root: root.clone(), members: Vec::new() };
    walk.folder(&root, "", 0)?;
    let files = walk.members.iter().filter(|member| !member.folder).count();
    if files == 0 {
        let shown = folder.display();
        return Err(Failure::usage(format!("{shown} holds no files to send: give the folder with the job's code")));
    }
    walk.members.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    let bytes = write_tar(&walk.members)?;
    let bundle = Bundle { sha256: Digest::of(&bytes), bytes: bytes.len() as u64 };
    Ok(Packed { bytes, bundle, files })
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    Failure::usage(format!(
        "cannot read {shown}: {error}; make it readable (`chmod -R u+rX`) or move it out of the folder"
    ))
}

fn not_allowed(name: &str, what: &str) -> Failure {
    Failure::usage(format!("{}: {what}; move it out of the job's folder", output::plain(name)))
}

impl Walk {
    fn folder(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<(), Failure> {
        if depth > DEPTH_MAX {
            return Err(not_allowed(prefix, &format!("folders are nested deeper than {DEPTH_MAX}")));
        }
        for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
            let entry = entry.map_err(|error| unreadable(path, &error))?;
            if left_out(&entry.file_name()) {
                continue;
            }
            let name = self.name(prefix, &entry.file_name())?;
            if self.members.len() >= MEMBERS_MAX {
                return Err(Failure::usage(format!(
                    "the job's folder holds more than {MEMBERS_MAX} files: send code, and keep data in the object store"
                )));
            }
            self.entry(entry.path(), name, depth)?;
        }
        Ok(())
    }

    fn name(&self, prefix: &str, name: &OsStr) -> Result<String, Failure> {
        let shown = name.to_string_lossy();
        let Some(name) = name.to_str().filter(|name| !name.contains('\\') && !name.contains('\n')) else {
            return Err(not_allowed(&format!("{prefix}{shown}"), "its name is not plain UTF-8 text"));
        };
        let name = format!("{prefix}{name}");
        if name.len() > PATH_BYTES_MAX {
            return Err(not_allowed(&name, &format!("its path is longer than {PATH_BYTES_MAX} bytes")));
        }
        Ok(name)
    }

    fn entry(&mut self, path: PathBuf, name: String, depth: usize) -> Result<(), Failure> {
        let kind = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?.file_type();
        if kind.is_dir() {
            let prefix = format!("{name}/");
            self.members.push(Member { name: prefix.clone(), path: path.clone(), folder: true });
            return self.folder(&path, &prefix, depth + 1);
        }
        let path = if kind.is_symlink() { self.link_target(&path, &name)? } else { path };
        if !kind.is_file() && !kind.is_symlink() {
            return Err(not_allowed(&name, "it is a device, socket or pipe"));
        }
        self.members.push(Member { name, path, folder: false });
        Ok(())
    }

    /// The plain file inside the folder that a link leads to.
    fn link_target(&self, link: &Path, name: &str) -> Result<PathBuf, Failure> {
        let target = link
            .canonicalize()
            .map_err(|error| not_allowed(name, &format!("it is a link that leads nowhere ({error})")))?;
        if !target.starts_with(&self.root) {
            return Err(not_allowed(name, &format!("it is a link out of the folder, to {}", target.display())));
        }
        let meta = fs::symlink_metadata(&target).map_err(|error| unreadable(&target, &error))?;
        if meta.is_dir() {
            return Err(not_allowed(name, "it is a link to a folder; links are followed to plain files only"));
        }
        if !meta.is_file() {
            return Err(not_allowed(name, "it is a link to a device, socket or pipe"));
        }
        Ok(target)
    }
}

fn left_out(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    LEFT_OUT.contains(&name.as_ref()) || name.ends_with(".pyc")
}

/// Stops when more than the largest bundle has been written.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > BUNDLE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_tar(members: &[Member]) -> Result<Vec<u8>, Failure> {
    let gzip = flate2::GzBuilder::new().mtime(0).operating_system(255);
    let mut tar = tar::Builder::new(gzip.write(Bounded(Vec::new()), flate2::Compression::new(6)));
    let mut total = 0;
    for member in members {
        if member.folder {
            let mut header = header(tar::EntryType::Directory, 0, 0o755);
            tar.append_data(&mut header, &member.name, io::empty()).map_err(|error| packing(&member.name, &error))?;
        } else {
            append_file(&mut tar, member, &mut total)?;
        }
    }
    let done = tar.into_inner().and_then(flate2::write::GzEncoder::finish);
    done.map(|bounded| bounded.0).map_err(|error| packing("the end", &error))
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append_file<W: Write>(tar: &mut tar::Builder<W>, member: &Member, total: &mut u64) -> Result<(), Failure> {
    // A pipe put in the place of the file must not block the open, and a link must not be followed any more.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&member.path);
    let file: File = file.map_err(|error| unreadable(&member.path, &error))?;
    let meta = file.metadata().map_err(|error| unreadable(&member.path, &error))?;
    if !meta.is_file() {
        return Err(not_allowed(&member.name, "it is no plain file any more"));
    }
    *total += meta.len();
    if meta.len() > FILE_BYTES_MAX || *total > TOTAL_BYTES_MAX {
        return Err(too_large(&member.name));
    }
    let executable = meta.permissions().mode() & 0o100 != 0;
    let mut header = header(tar::EntryType::Regular, meta.len(), if executable { 0o755 } else { 0o644 });
    let mut exact = Exact { inner: file, left: meta.len() };
    tar.append_data(&mut header, &member.name, &mut exact).map_err(|error| packing(&member.name, &error))
}

fn too_large(name: &str) -> Failure {
    Failure::usage(format!(
        "{}: the job's folder is too large (at most {} packed, {} a file, {} in all): keep data in the object store, and leave build outputs out",
        output::plain(name),
        output::bytes(BUNDLE_BYTES_MAX),
        output::bytes(FILE_BYTES_MAX),
        output::bytes(TOTAL_BYTES_MAX),
    ))
}

fn packing(name: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return too_large(name);
    }
    Failure::usage(format!("cannot pack {}: {error}; do not change the folder while it is sent", output::plain(name)))
}

/// Reads exactly as many bytes as the header says, whatever happens to the file meanwhile.
struct Exact {
    inner: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.inner.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::other("it became shorter meanwhile"));
        }
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    fn job() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("train.py", "print(1)");
        write("lib/b.py", "b");
        write("lib/a.py", "a");
        write(".git/config", "secret");
        write("lib/__pycache__/a.pyc", "cache");
        folder
    }

    fn names(packed: &Packed) -> Vec<String> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed.bytes[..]));
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let (one, two) = (job(), job());
        let old = SystemTime::now() - Duration::from_secs(100_000);
        File::open(two.path().join("train.py")).unwrap().set_modified(old).unwrap();
        fs::set_permissions(two.path().join("lib/a.py"), fs::Permissions::from_mode(0o600)).unwrap();
        let (first, second) = (pack(one.path()).unwrap(), pack(two.path()).unwrap());
        assert_eq!(first, second);
        assert_eq!(names(&first), ["lib/", "lib/a.py", "lib/b.py", "train.py"]);
        assert_eq!((first.files, first.bundle.sha256), (3, Digest::of(&first.bytes)));
        fs::write(one.path().join("lib/a.py"), "A").unwrap();
        assert_ne!(pack(one.path()).unwrap().bundle, first.bundle);
    }

    #[test]
    fn links_are_followed_to_plain_files_inside_and_nowhere_else() {
        let folder = job();
        symlink("train.py", folder.path().join("same.py")).unwrap();
        assert!(names(&pack(folder.path()).unwrap()).contains(&"same.py".to_owned()));
        for (target, word) in [
            ("/etc/passwd", "out of the folder"),
            ("../..", "out of the folder"),
            ("link", "leads nowhere"),
            ("missing", "leads nowhere"),
            ("lib", "link to a folder"),
            (".", "link to a folder"),
        ] {
            let link = folder.path().join("link");
            symlink(target, &link).unwrap();
            let refused = pack(folder.path()).unwrap_err().message;
            assert!(refused.contains(word) && refused.starts_with("link: "), "{target}: {refused}");
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn pipes_and_odd_names_are_refused() {
        let folder = job();
        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: a zero-terminated path that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(pack(folder.path()).unwrap_err().message.contains("pipe: it is a device, socket or pipe"));
        fs::remove_file(pipe).unwrap();
        fs::write(folder.path().join("a\nb"), "").unwrap();
        assert!(pack(folder.path()).unwrap_err().message.contains("not plain UTF-8"));
    }

    #[test]
    fn unreadable_and_empty_folders_are_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(pack(folder.path()).unwrap_err().message.contains("holds no files"));
        assert!(pack(&folder.path().join("none")).unwrap_err().message.contains("cannot read"));
        let refused = unreadable(Path::new("x"), &io::Error::from(io::ErrorKind::PermissionDenied)).message;
        assert_eq!(
            refused,
            "cannot read x: permission denied; make it readable (`chmod -R u+rX`) or move it out of the folder"
        );
    }

    #[test]
    fn a_huge_file_is_refused_before_it_is_read() {
        let folder = job();
        File::create(folder.path().join("data.bin")).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let refused = pack(folder.path()).unwrap_err().message;
        assert!(refused.starts_with("data.bin: the job's folder is too large"), "{refused}");
    }

    #[test]
    fn long_paths_fit_into_the_archive() {
        let folder = job();
        let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f.py"), "x").unwrap();
        let packed = pack(folder.path()).unwrap();
        assert!(names(&packed).iter().any(|name| name.ends_with("e/f.py")));
    }
}

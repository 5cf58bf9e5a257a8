//! Builds packs: the Python environments that pods see at /opt/venv, read-only.
//!
//! A pack is a venv over the system's Python (so that Debian's torch is in it)
//! plus wheels from a lock with hashes, `packs/NAME/requirements.txt`. It is built
//! *at the path it has in the pod*: bubblewrap shows the build folder at /opt/venv
//! while pip and the byte compiler run, so scripts, records and tracebacks name
//! the right path, and two machines build the same bytes. pip itself stays out.
//!
//! The pack's folder is `target/packs/NAME` (or `$ATOLL_PACKS/NAME`); a worker
//! binds it at /opt/venv. `pack.json` in it names the content; the folder appears
//! by one rename when it is complete. It is built again when the lock or the
//! system's Python has changed.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a pod sees its pack.
const POD_PATH: &str = "/opt/venv";
const PYTHON: &str = "/usr/bin/python3";
const RECORD: &str = "pack.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pack: a folder of packs/
    #[arg(default_value = "ray-torch")]
    name: String,
    /// Read every file of the pack and compare it with its recorded digest
    #[arg(long)]
    check: bool,
}

/// `pack.json`: what the pack is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pack {
    /// The folder's name in packs/.
    pub(crate) name: String,
    /// First 12 hex digits of the SHA-256 of the lock.
    pub(crate) version: String,
    /// SHA-256 of the content, see [`content_sha256`].
    pub(crate) sha256: String,
    /// Version of the Python it was built with, e.g. 3.11.2.
    pub(crate) python: String,
}

pub(crate) fn run(arguments: &Arguments, repository: &Path) -> Result<()> {
    let pack = ensure(repository, &arguments.name)?;
    let folder = folder(repository, &arguments.name);
    if arguments.check {
        let found = content_sha256(&folder)?;
        if found != pack.sha256 {
            bail!(
                "{} has changed: content {found}, recorded {}; delete it and build it again",
                folder.display(),
                pack.sha256
            );
        }
    }
    println!("{}\t{}", folder.display(), serde_json::to_string(&pack)?);
    Ok(())
}

/// The folder of a pack on this machine, whether built or not.
pub(crate) fn folder(repository: &Path, name: &str) -> PathBuf {
    match std::env::var_os("ATOLL_PACKS") {
        Some(packs) => PathBuf::from(packs).join(name),
        None => repository.join("target/packs").join(name),
    }
}

/// Whether the pack is there and was built from today's lock and Python.
pub(crate) fn is_current(repository: &Path, name: &str) -> bool {
    current(repository, name).is_ok_and(|pack| pack.is_some())
}

fn current(repository: &Path, name: &str) -> Result<Option<Pack>> {
    let lock = lock_path(repository, name)?;
    let Ok(text) = fs::read_to_string(folder(repository, name).join(RECORD)) else {
        return Ok(None);
    };
    let Ok(pack) = serde_json::from_str::<Pack>(&text) else {
        return Ok(None);
    };
    let wanted = version(&fs::read(lock)?);
    let same = pack.name == name && pack.version == wanted && pack.python == python_version()?;
    Ok(same.then_some(pack))
}

/// Builds the pack unless it is current, and returns what it is.
///
/// Two builders at once are safe: the second waits for the first.
///
/// # Errors
/// When the name is unknown, or pip or the compiler fail. Nothing half built is left.
pub(crate) fn ensure(repository: &Path, name: &str) -> Result<Pack> {
    if let Some(pack) = current(repository, name)? {
        return Ok(pack);
    }
    let folder = folder(repository, name);
    let parent = folder.parent().context("a pack's folder has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let turn = File::create(parent.join(format!(".{name}.lock")))?;
    turn.lock().context("cannot take the pack's build lock")?;
    if let Some(pack) = current(repository, name)? {
        return Ok(pack);
    }
    let staging = parent.join(format!(".{name}.building"));
    remove(&staging)?;
    let built = build(repository, name, &staging);
    if built.is_err() {
        remove(&staging)?;
    }
    let pack = built?;
    remove(&folder)?;
    fs::rename(&staging, &folder).with_context(|| format!("cannot put the pack at {}", folder.display()))?;
    Ok(pack)
}

fn build(repository: &Path, name: &str, staging: &Path) -> Result<Pack> {
    let lock = lock_path(repository, name)?;
    let python = python_version()?;
    eprintln!("pack {name}: building with Python {python}");
    fs::create_dir_all(staging)?;
    let venv = ["-m", "venv", "--system-site-packages", POD_PATH];
    inside(staging, PYTHON, &venv.map(OsString::from))?;
    let in_pod = format!("{POD_PATH}/bin/python");
    let mut install: Vec<OsString> = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        // Whatever the system has of the same name must not decide what is in the pack.
        "--ignore-installed",
        "--no-compile",
        "-r",
    ]
    .map(OsString::from)
    .to_vec();
    install.push(lock.clone().into());
    inside(staging, &in_pod, &install)?;
    let strip = ["-m", "pip", "uninstall", "--quiet", "-y", "setuptools", "pip"];
    inside(staging, &in_pod, &strip.map(OsString::from))?;
    remove_caches(staging)?;
    // The pack is read-only in the pod: what is not compiled here is compiled at every
    // start. Hash-based files carry no time, so the same lock gives the same bytes.
    let site = format!("{POD_PATH}/lib");
    let compile = ["-m", "compileall", "-qq", "-j0", "--invalidation-mode", "unchecked-hash", &site];
    inside(staging, &in_pod, &compile.map(OsString::from))?;
    let probe = ["-c", "import torch, ray, sklearn; print(torch.__version__, ray.__version__)"];
    inside(staging, &in_pod, &probe.map(OsString::from)).context("the pack was built but cannot be imported")?;
    let pack =
        Pack { name: name.to_owned(), version: version(&fs::read(&lock)?), sha256: content_sha256(staging)?, python };
    let mut record = File::create(staging.join(RECORD))?;
    record.write_all(serde_json::to_string_pretty(&pack)?.as_bytes())?;
    record.write_all(b"\n")?;
    record.sync_all()?;
    Ok(pack)
}

/// Runs a program that sees `staging` at /opt/venv and the rest of the machine as it is.
fn inside(staging: &Path, program: &str, words: &[OsString]) -> Result<()> {
    let mut bwrap = Command::new("bwrap");
    bwrap.args(["--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", "/opt"]);
    for entry in fs::read_dir("/opt").context("cannot read /opt")?.flatten() {
        if entry.path() != Path::new(POD_PATH) {
            bwrap.arg("--bind").arg(entry.path()).arg(entry.path());
        }
    }
    bwrap.arg("--bind").arg(staging).arg(POD_PATH).arg("--").arg(program).args(words);
    bwrap.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("PYTHONPATH").env_remove("PYTHONHOME");
    // A fixed hash seed: the byte compiler would else order some constants by chance.
    bwrap.env("PYTHONHASHSEED", "0").stdin(Stdio::null()).stdout(std::io::stderr());
    let status = bwrap.status().context("cannot run bwrap; run: cargo xtask setup")?;
    if !status.success() {
        let shown: Vec<_> = words.iter().take(4).map(|word| word.to_string_lossy()).collect();
        bail!("{program} {} ... failed in the pack's build ({status})", shown.join(" "));
    }
    Ok(())
}

fn lock_path(repository: &Path, name: &str) -> Result<PathBuf> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let path = repository.join("packs").join(name).join("requirements.txt");
    if name.is_empty() || !plain || !path.is_file() {
        bail!("no pack {name:?}: packs/ has a folder with a requirements.txt for each");
    }
    Ok(path)
}

fn version(lock: &[u8]) -> String {
    hex::encode(&Sha256::digest(lock)[..6])
}

fn python_version() -> Result<String> {
    let output = Command::new(PYTHON)
        .args(["-I", "-S", "-c", "import platform; print(platform.python_version())"])
        .output()
        .with_context(|| format!("cannot run {PYTHON}; run: cargo xtask setup"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// SHA-256 over the sorted list of everything in `folder` but `pack.json`.
///
/// One line an entry: its path below the folder, then `f` and the file's SHA-256
/// (`x` when it is executable), or `l` and the link's target, separated by tabs.
/// Paths are in byte order; times and owners do not count.
///
/// # Errors
/// When an entry cannot be read, or is neither file, folder nor link.
pub(crate) fn content_sha256(folder: &Path) -> Result<String> {
    let mut lines = Vec::new();
    list(folder, folder, &mut lines)?;
    lines.sort();
    let mut digest = Sha256::new();
    for line in lines {
        digest.update(&line);
    }
    Ok(hex::encode(digest.finalize()))
}

fn list(root: &Path, folder: &Path, lines: &mut Vec<Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let name = path.strip_prefix(root).context("an entry is below its root")?;
        let metadata = fs::symlink_metadata(&path)?;
        let (kind, value) = if metadata.is_dir() {
            list(root, &path, lines)?;
            continue;
        } else if metadata.is_symlink() {
            ("l", fs::read_link(&path)?.as_os_str().as_bytes().to_vec())
        } else if metadata.is_file() {
            let kind = if metadata.permissions().mode() & 0o100 == 0 { "f" } else { "x" };
            (kind, file_sha256(&path)?.into_bytes())
        } else {
            bail!("{} is neither a file nor a link", path.display());
        };
        if name != Path::new(RECORD) {
            let name = name.as_os_str().as_bytes();
            lines.push([name, b"\t", kind.as_bytes(), b"\t", &value, b"\n"].concat());
        }
    }
    Ok(())
}

fn file_sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Removes every `__pycache__` below `folder`: wheels may bring their own.
fn remove_caches(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == "__pycache__" {
            fs::remove_dir_all(entry.path())?;
        } else {
            remove_caches(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with one pack's lock, and that pack's folder as if built from it.
    fn repository(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("atoll-pack-{name}-{}", std::process::id()));
        remove(&root).unwrap();
        fs::create_dir_all(root.join("packs/p")).unwrap();
        fs::create_dir_all(root.join("target/packs/p/bin")).unwrap();
        fs::write(root.join("packs/p/requirements.txt"), "six==1.17.0\n").unwrap();
        fs::write(root.join("target/packs/p/bin/tool"), "one").unwrap();
        root
    }

    fn record(root: &Path) -> Pack {
        let pack = Pack {
            name: "p".into(),
            version: version(b"six==1.17.0\n"),
            sha256: content_sha256(&root.join("target/packs/p")).unwrap(),
            python: python_version().unwrap(),
        };
        let text = serde_json::to_string(&pack).unwrap();
        fs::write(root.join("target/packs/p/pack.json"), text).unwrap();
        pack
    }

    #[test]
    fn a_pack_is_current_until_its_lock_changes() {
        let root = repository("current");
        assert!(!is_current(&root, "p"), "no pack.json: not complete");
        let pack = record(&root);
        assert_eq!(ensure(&root, "p").unwrap(), pack);
        fs::write(root.join("packs/p/requirements.txt"), "six==1.16.0\n").unwrap();
        assert!(!is_current(&root, "p"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_content_digest_sees_bytes_names_modes_and_links_but_not_its_own_record() {
        let root = repository("digest");
        let folder = root.join("target/packs/p");
        let first = content_sha256(&folder).unwrap();
        record(&root);
        assert_eq!(content_sha256(&folder).unwrap(), first);
        let mut seen = vec![first];
        fs::write(folder.join("bin/tool"), "two").unwrap();
        seen.push(content_sha256(&folder).unwrap());
        fs::rename(folder.join("bin/tool"), folder.join("bin/t")).unwrap();
        seen.push(content_sha256(&folder).unwrap());
        fs::set_permissions(folder.join("bin/t"), fs::Permissions::from_mode(0o755)).unwrap();
        seen.push(content_sha256(&folder).unwrap());
        std::os::unix::fs::symlink("/usr/bin/python3", folder.join("bin/python")).unwrap();
        seen.push(content_sha256(&folder).unwrap());
        let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_name_that_is_no_pack_is_refused() {
        let root = repository("names");
        for name in ["", "q", "../p", "p/..", "p\0"] {
            assert!(ensure(&root, name).unwrap_err().to_string().starts_with("no pack"), "{name:?}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn every_lock_pins_and_hashes_everything_and_names_no_host() {
        let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packs");
        let mut locks = 0;
        for entry in fs::read_dir(packs).unwrap().flatten().filter(|e| e.path().is_dir()) {
            let text = fs::read_to_string(entry.path().join("requirements.txt")).unwrap();
            locks += 1;
            let joined = text.replace("\\\n", " ");
            for line in joined.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                assert!(line.contains("==") && line.contains("--hash=sha256:"), "{line}");
            }
            assert!(!text.contains("://") && !text.contains("--index"), "a lock names no host");
        }
        assert!(locks > 0);
    }
}

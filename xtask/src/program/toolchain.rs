//! Finds or fetches the pinned toolchain: the stable compiler with its library's sources, and the SBF linker.
//!
//! It lives in `$ATOLL_SBF_TOOLCHAIN`, or in `target/sbf-toolchain`. The installed compiler is left untouched: its files
//! are hard-linked into a copy, and the library's sources, which rustup may not have, come from Debian's `rust-src`.

use super::stamp::sha256;
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// What `rustc --version` must say.
pub(crate) const RUSTC: &str = "1.95.0 (59807616e 2026-04-14)";
/// The release of sbpf-linker that loads this compiler's LLVM.
pub(crate) const LINKER_VERSION: &str = "0.1.9";
/// Debian's package of this compiler's library sources.
pub(crate) const RUST_SRC_VERSION: &str = "1.95.0+dfsg1-2~bpo13+1";
/// SHA-256 of that package.
pub(crate) const RUST_SRC_SHA256: &str = "7b76db5b880a77f9e52975d2baa6209d2f76d2c9c2789515c3088cb960e2c83b";
/// Where Debian publishes it. The suite rolls over: keep the package once fetched.
const RUST_SRC_SOURCE: &str = "deb http://deb.debian.org/debian trixie-backports main\n";

/// A toolchain that is ready.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler with its library's sources.
    pub(crate) sysroot: PathBuf,
    /// The linker's binary.
    pub(crate) linker: PathBuf,
}

impl Toolchain {
    /// Finds the toolchain; with `install` it also compiles the linker, which takes minutes. The sources (45 MB) are
    /// fetched in any case.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(crate) fn ready(repository: &Path, install: bool) -> Result<Self> {
        let home = env::var_os("ATOLL_SBF_TOOLCHAIN").map(PathBuf::from);
        let home = home.unwrap_or_else(|| repository.join("target/sbf-toolchain"));
        fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        let installed = compiler()?;
        let linker = linker(&home, install)?;
        let sysroot = sysroot(&home, &installed)?;
        Ok(Self { sysroot, linker })
    }
}

/// The sysroot of the installed compiler, when it is the pinned one.
fn compiler() -> Result<PathBuf> {
    let version = say(Command::new("rustc").arg("--version"))?;
    if version.trim() != format!("rustc {RUSTC}") {
        bail!("the compiler is `{}`, the pinned one is `rustc {RUSTC}`", version.trim());
    }
    Ok(PathBuf::from(say(Command::new("rustc").args(["--print", "sysroot"]))?.trim()))
}

/// The linker: in the toolchain's folder, on the path, or compiled now.
fn linker(home: &Path, install: bool) -> Result<PathBuf> {
    let own = home.join("linker/bin/sbpf-linker");
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let mut candidates = vec![own.clone()];
    candidates.extend(on_path.map(|folder| folder.join("sbpf-linker")));
    if let Some(found) = candidates.into_iter().find(|path| is_pinned(path)) {
        return Ok(found);
    }
    let crate_at = format!("sbpf-linker@{LINKER_VERSION}");
    if !install {
        bail!("sbpf-linker {LINKER_VERSION} is not installed; `cargo xtask program build` installs it");
    }
    println!("installing {crate_at}: it compiles for some minutes");
    let status = Command::new("cargo")
        .args(["install", &crate_at, "--locked", "--root"])
        .arg(home.join("linker"))
        .env_remove("CARGO_TARGET_DIR")
        .status()?;
    if !status.success() || !is_pinned(&own) {
        bail!("cargo could not install {crate_at}");
    }
    Ok(own)
}

/// Whether a file is the pinned linker, as the record of `cargo install` beside it says: the binary prints no version
/// without its LLVM.
fn is_pinned(linker: &Path) -> bool {
    let Some(root) = linker.parent().and_then(Path::parent) else { return false };
    let record = fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    linker.is_file() && record.contains(&format!("\"sbpf-linker {LINKER_VERSION} "))
}

/// The compiler with its library's sources.
fn sysroot(home: &Path, installed: &Path) -> Result<PathBuf> {
    let root = home.join("rust");
    let ready = home.join("rust.ready");
    let pins = format!("{RUSTC}\n{RUST_SRC_SHA256}\n");
    if fs::read_to_string(&ready).is_ok_and(|written| written == pins) {
        return Ok(root);
    }
    let sources = rust_src(home)?;
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    link_tree(installed, &root)?;
    let library = root.join("lib/rustlib/src");
    fs::create_dir_all(&library)?;
    if library.join("rust").exists() {
        fs::remove_dir_all(library.join("rust"))?;
    }
    symlink(&sources, library.join("rust"))?;
    fs::write(&ready, pins)?;
    Ok(root)
}

/// Hard-links a folder's files; copies them where the file system differs. Links to folders are followed.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            link_tree(&source, &target)?;
        } else if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target).with_context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

/// Fetches, checks and unpacks Debian's package of the library's sources; returns the sources' folder.
fn rust_src(home: &Path) -> Result<PathBuf> {
    let package = home.join("rust-src.deb");
    let unpacked = home.join("rust-src");
    let sources = unpacked.join("usr/src/rustc-1.95.0");
    if !package.is_file() {
        fetch_rust_src(home, &package)?;
    }
    if sha256(&fs::read(&package)?) != RUST_SRC_SHA256 {
        bail!("{} is not the pinned package; remove it and try again", package.display());
    }
    if !sources.join("library/core").is_dir() {
        say(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
    }
    Ok(sources.canonicalize()?)
}

/// Downloads with a private configuration of apt: no root, and nothing of the machine's own apt is read or changed.
fn fetch_rust_src(home: &Path, package: &Path) -> Result<()> {
    let apt = home.join("apt");
    for folder in ["state/lists/partial", "cache/archives/partial", "empty", "download"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    fs::write(apt.join("sources.list"), RUST_SRC_SOURCE)?;
    let at = |part: &str| apt.join(part).display().to_string();
    let configuration = apt.join("apt.conf");
    fs::write(
        &configuration,
        format!(
            "Dir::State \"{}\";\nDir::State::status \"/dev/null\";\nDir::Cache \"{}\";\nDir::Etc::sourcelist \"{}\";\n\
             Dir::Etc::sourceparts \"{}\";\nAPT::Sandbox::User \"\";\n",
            at("state"),
            at("cache"),
            at("sources.list"),
            at("empty"),
        ),
    )?;
    let download = apt.join("download");
    let wanted = format!("rust-src={RUST_SRC_VERSION}");
    for arguments in [&["update"][..], &["download", &wanted]] {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-q"]).args(arguments).current_dir(&download).env("APT_CONFIG", &configuration);
        say(&mut command).context("Debian's rust-src could not be fetched")?;
    }
    let fetched = fs::read_dir(&download)?.filter_map(Result::ok).map(|entry| entry.path());
    let fetched = fetched.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    fs::rename(fetched.context("apt-get downloaded nothing")?, package)?;
    Ok(())
}

/// What a command prints, or why it failed.
fn say(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("{program} did not start"))?;
    if !done.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

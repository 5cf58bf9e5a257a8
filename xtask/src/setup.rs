//! Finds what this machine lacks for a purpose, says what it will install and why,
//! and installs it: Debian packages by apt-get, then the Python pack.
//!
//! A look at files decides what is there, so a machine that lacks nothing is
//! through in milliseconds; `demo`, `test`, `ci` and `bench` call [`ensure`] first
//! thing. Nothing is installed unasked, except with `--yes` or in CI (`CI=true`).
//! Without root it prints the one line to run and fails.
//!
//! What it leaves to others: the Rust toolchain (`rust-toolchain.toml`) and a C
//! compiler come before this program can be built; README.md names them.

use crate::pack;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What the machine is to be ready for
    #[arg(long = "for", value_enum, default_value = "test")]
    purpose: Purpose,
    /// Install without asking
    #[arg(long)]
    yes: bool,
}

/// What the machine is to be ready for. Each holds what the one before it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Purpose {
    /// Compiling, and the tests that need no pods, PostgreSQL or Ray.
    Build,
    /// A local network and the main job.
    Demo,
    /// Every test, and what `ci` and `bench` run besides.
    Test,
}

/// One Debian package and how to see that it is there.
#[derive(Debug)]
struct Need {
    package: &'static str,
    why: &'static str,
    purpose: Purpose,
    /// Paths of which each must exist; `*` stands for one path component's rest.
    signs: &'static [&'static str],
}

const NEEDS: &[Need] = &[
    Need {
        package: "pkg-config",
        why: "finds libssl when the local chain is built",
        purpose: Purpose::Build,
        signs: &["/usr/bin/pkg-config"],
    },
    Need {
        package: "libssl-dev",
        why: "the local chain checks signatures with the system's libssl",
        purpose: Purpose::Build,
        signs: &["/usr/include/openssl/ssl.h"],
    },
    Need {
        package: "bubblewrap",
        why: "the sandbox of every pod",
        purpose: Purpose::Build,
        signs: &["/usr/bin/bwrap"],
    },
    Need {
        package: "python3",
        why: "the SDK's tests, and the system Python under the pack",
        purpose: Purpose::Build,
        signs: &["/usr/bin/python3"],
    },
    Need {
        package: "python3-venv",
        why: "builds the Python pack that pods run in",
        purpose: Purpose::Demo,
        signs: &["/usr/lib/python3.*/ensurepip/__init__.py"],
    },
    Need {
        package: "python3-torch",
        why: "PyTorch with gloo, as Debian builds it (about 150 MB)",
        purpose: Purpose::Demo,
        signs: &["/usr/lib/python3/dist-packages/torch/__init__.py"],
    },
    Need {
        package: "postgresql-15",
        why: "the store's tests run on a private server of it",
        purpose: Purpose::Test,
        signs: &["/usr/lib/postgresql/15/bin/initdb", "/usr/lib/postgresql/15/bin/postgres"],
    },
    Need {
        package: "iputils-ping",
        why: "the overlay's tests ping from pod to pod",
        purpose: Purpose::Test,
        signs: &["/usr/bin/ping"],
    },
];

/// The packs that pods run in.
const PACKS: &[&str] = &["ray-torch"];

/// Whether to ask before something is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Ask on the terminal.
    Ask,
    /// `--yes`, or `CI=true`.
    Given,
}

impl Consent {
    /// Consent from `--yes` and the environment.
    pub(crate) fn new(yes: bool) -> Self {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        if yes || ci { Self::Given } else { Self::Ask }
    }
}

pub(crate) fn run(arguments: &Arguments, repository: &Path) -> Result<()> {
    ensure(arguments.purpose, Consent::new(arguments.yes), repository)?;
    eprintln!("setup: ready");
    Ok(())
}

/// Makes the machine ready for `purpose`; does nothing when it is.
///
/// # Errors
/// When consent is refused, without root (the message is the line to run), or when
/// an installation fails.
pub(crate) fn ensure(purpose: Purpose, consent: Consent, repository: &Path) -> Result<()> {
    let missing = missing(purpose, |pattern| exists(Path::new("/"), pattern));
    let stale: Vec<&str> = match purpose {
        Purpose::Build => Vec::new(),
        Purpose::Demo | Purpose::Test => {
            PACKS.iter().copied().filter(|name| !pack::is_current(repository, name)).collect()
        }
    };
    if !missing.is_empty() || !stale.is_empty() {
        eprintln!("{}", announcement(&missing, &stale));
        if !missing.is_empty() && !is_root() {
            bail!("not root: run this line, then the command again\n\n  {}\n", line_for_root(&missing));
        }
        ask(consent)?;
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    for name in stale {
        pack::ensure(repository, name)?;
    }
    if purpose > Purpose::Build {
        check_tun(Path::new("/dev/net/tun"))?;
    }
    Ok(())
}

/// What `purpose` needs and `present` does not find. Pure.
fn missing(purpose: Purpose, present: impl Fn(&str) -> bool) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| need.purpose <= purpose && !need.signs.iter().all(|sign| present(sign))).collect()
}

/// What will be installed and why, for a person to read. Pure.
fn announcement(missing: &[&Need], stale: &[&str]) -> String {
    let mut lines = vec!["This machine lacks what is needed. To be installed:".to_owned()];
    for need in missing {
        lines.push(format!("  apt  {:<16} {}", need.package, need.why));
    }
    for name in stale {
        lines.push(format!(
            "  pip  {:<16} Ray 2.60 and scikit-learn for pods, by a locked list (about 660 MB in the pack's folder)",
            format!("pack {name}")
        ));
    }
    lines.join("\n")
}

/// The one line that somebody without root has to get run. Pure.
fn line_for_root(missing: &[&Need]) -> String {
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", packages.join(" "))
}

fn ask(consent: Consent) -> Result<()> {
    if consent == Consent::Given {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nobody to ask: run the command again with --yes to install this");
    }
    eprint!("Install? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was installed");
    }
    Ok(())
}

/// Installs the packages; after a failure repairs dpkg's state and tries once more.
fn install(missing: &[&Need]) -> Result<()> {
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&packages);
    let updated = apt(&["update"])?;
    if updated.success() && apt(&install)?.success() {
        return Ok(());
    }
    eprintln!("setup: apt-get failed; repairing and trying once more");
    command("dpkg", &["--configure", "-a"])?;
    apt(&["-f", "install", "-y"])?;
    apt(&["update"])?;
    let again = apt(&install)?;
    if !again.success() {
        bail!("apt-get install {} failed twice ({again}); its output is above", packages.join(" "));
    }
    Ok(())
}

fn apt(words: &[&str]) -> Result<ExitStatus> {
    // Another apt may hold the lock for a while on a machine that just booted.
    let mut all = vec!["-o", "DPkg::Lock::Timeout=300"];
    all.extend(words);
    command("apt-get", &all)
}

fn command(program: &str, words: &[&str]) -> Result<ExitStatus> {
    eprintln!("setup: {program} {}", words.join(" "));
    Command::new(program)
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .status()
        .with_context(|| format!("cannot run {program}: is this a Debian system?"))
}

/// Whether a path matching `pattern` exists below `root`; a `*` matches inside one component.
fn exists(root: &Path, pattern: &str) -> bool {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = match part.split_once('*') {
            None => found.iter().map(|path| path.join(part)).filter(|path| path.exists()).collect(),
            Some((before, after)) => found
                .iter()
                .filter_map(|path| fs::read_dir(path).ok())
                .flat_map(|entries| entries.flatten())
                .filter(|entry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    name.starts_with(before) && name.ends_with(after)
                })
                .map(|entry| entry.path())
                .collect(),
        };
    }
    !found.is_empty()
}

/// Pods get their overlay address on a TUN device: the kernel must offer it and
/// whoever starts workers must be allowed to open it.
fn check_tun(tun: &Path) -> Result<()> {
    if !tun.exists() && is_root() {
        let folder = tun.parent().unwrap_or(tun).to_string_lossy().into_owned();
        command("mkdir", &["-p", &folder])?;
        command("mknod", &["-m", "666", &tun.to_string_lossy(), "c", "10", "200"])?;
    }
    let device = match fs::metadata(tun) {
        Ok(metadata) => metadata.file_type().is_char_device(),
        Err(_) => false,
    };
    if !device {
        bail!(
            "{} is missing; run: sudo modprobe tun && sudo mkdir -p /dev/net && sudo mknod -m 666 /dev/net/tun c 10 200",
            tun.display()
        );
    }
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(tun) {
        bail!("{} cannot be opened ({error}); run: sudo chmod 666 {0}", tun.display());
    }
    Ok(())
}

/// Whether this process is root. `/proc/self` belongs to the effective user.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(needs: &[&Need]) -> Vec<&'static str> {
        needs.iter().map(|need| need.package).collect()
    }

    #[test]
    fn nothing_there_means_everything_for_the_purpose_and_no_more() {
        let build = missing(Purpose::Build, |_| false);
        assert_eq!(packages(&build), ["pkg-config", "libssl-dev", "bubblewrap", "python3"]);
        let demo = missing(Purpose::Demo, |_| false);
        assert_eq!(packages(&demo[build.len()..]), ["python3-venv", "python3-torch"]);
        assert_eq!(missing(Purpose::Test, |_| false).len(), NEEDS.len());
        assert!(missing(Purpose::Test, |_| true).is_empty());
    }

    #[test]
    fn a_package_counts_as_missing_when_one_of_its_signs_is() {
        let without = missing(Purpose::Demo, |sign| !sign.contains("ensurepip"));
        assert_eq!(packages(&without), ["python3-venv"]);
    }

    #[test]
    fn somebody_without_root_gets_one_line_that_installs_it_all() {
        let line = line_for_root(&missing(Purpose::Test, |sign| !sign.contains("bwrap")));
        assert_eq!(line, "sudo apt-get update && sudo apt-get install -y --no-install-recommends bubblewrap");
    }

    #[test]
    fn the_announcement_says_why() {
        let words = announcement(&missing(Purpose::Demo, |_| false), &["ray-torch"]);
        assert!(words.contains("bubblewrap       the sandbox of every pod"), "{words}");
        assert!(words.contains("pack ray-torch"), "{words}");
    }

    #[test]
    fn a_star_stands_for_the_rest_of_one_component() {
        let root = std::env::temp_dir().join(format!("atoll-setup-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/lib/python3.11/ensurepip")).unwrap();
        assert!(exists(&root, "/usr/lib/python3.*/ensurepip"));
        assert!(!exists(&root, "/usr/lib/python2.*/ensurepip"));
        assert!(!exists(&root, "/usr/lib/python3.*/torch"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_tun_that_is_a_plain_file_is_refused_with_the_line_to_run() {
        let path = std::env::temp_dir().join(format!("atoll-tun-{}", std::process::id()));
        fs::write(&path, b"").unwrap();
        let refusal = check_tun(&path).unwrap_err().to_string();
        fs::remove_file(&path).unwrap();
        assert!(refusal.contains("mknod -m 666 /dev/net/tun"), "{refusal}");
    }
}

//! Where everything of one `atoll dev` lies, and what it tells others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use atoll_chain::Keypair;
use atoll_domain::key::{Digest, PublicKey};
use serde::{Deserialize, Serialize};

/// The state folder.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// Ports that stay the same over restarts, because profiles and workers remember them. 0: not chosen yet.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ports {
    /// The chain's JSON-RPC.
    pub chain: u16,
    /// API and links.
    pub server: u16,
}

/// `dev.json`: what a demo, a test or a curious person needs to find everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DevFile {
    /// Process ids by role: `dev`, `chain`, `server`, `worker-1` …
    pub pids: BTreeMap<String, u32>,
    /// Where the parts listen.
    pub ports: Ports,
    /// What receipts are checked against.
    pub network_root: Digest,
    /// The market program.
    pub program_id: PublicKey,
    /// The mint of ATL.
    pub mint: PublicKey,
    /// Suppliers' wallets by worker role.
    pub supplier_wallets: BTreeMap<String, PublicKey>,
    /// Worker ids by worker role.
    pub worker_ids: BTreeMap<String, String>,
    /// ATL accounts of `renter` and, by worker role, of suppliers.
    pub token_accounts: BTreeMap<String, PublicKey>,
    /// The renter's wallet.
    pub renter_wallet: PublicKey,
    /// The network's treasury, a token account.
    pub treasury: PublicKey,
    /// Set `ATOLL_HOME` to this folder to be the renter.
    pub client_home: PathBuf,
    /// The renter's profile.
    pub profile: PathBuf,
    /// One file a process.
    pub logs: PathBuf,
}

impl Layout {
    /// The folder, made if missing, as an absolute path: children have their own working folder.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(root).with_context(|| format!("making {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("finding {}", root.display()))?;
        let layout = Self { root };
        for folder in ["chain", "server/keys", "wallets", "client", "logs", "run"] {
            make(&layout.root.join(folder)).with_context(|| format!("making {folder} in {}", layout.root.display()))?;
        }
        Ok(layout)
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Takes the folder for this process; the lock ends with it.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let path = self.path("dev.lock");
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        // SAFETY: a descriptor that we own.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            bail!("another `atoll dev` runs in {}; stop it, or name another folder with --state", self.root.display());
        }
        Ok(file)
    }

    /// Reads a key, or makes it.
    pub(super) fn key(&self, name: &str) -> anyhow::Result<Keypair> {
        let path = self.path(name);
        if !path.exists() {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).context("drawing a key")?;
            Keypair::from_seed(&seed).save(&path)?;
        }
        Ok(Keypair::load(&path)?)
    }

    /// The ports of an earlier run.
    pub(super) fn ports(&self) -> anyhow::Result<Ports> {
        let path = self.path("ports.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; remove it to choose new ports", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ports::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Keeps the ports.
    pub(super) fn keep_ports(&self, ports: Ports) -> anyhow::Result<()> {
        self.write("ports.json", &ports)
    }

    /// Writes a JSON file whole or not at all.
    pub(super) fn write(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let path = self.path(name);
        let draft = path.with_extension("tmp");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&draft)?;
            file.write_all(&serde_json::to_vec_pretty(value)?)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

/// The packs that workers offer: those named, else all that were built.
pub(super) fn packs(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let whole = |path: &PathBuf| path.canonicalize().with_context(|| format!("finding the pack {}", path.display()));
    if !named.is_empty() {
        return named.iter().map(whole).collect();
    }
    let folder = std::env::var_os("ATOLL_PACKS").map_or_else(|| PathBuf::from("target/packs"), PathBuf::from);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        if entry.path().join("pack.json").is_file() {
            found.push(whole(&entry.path())?);
        }
    }
    found.sort();
    if found.is_empty() {
        bail!(
            "no Python pack in {}: build one with `cargo xtask pack ray-torch`, or name one with --pack DIR",
            folder.display()
        );
    }
    Ok(found)
}

//! The worker's configuration: `worker.toml` in its state folder, written by `join`, with the environment and flags over it.
//!
//! Read once at start; unknown fields are refused. Every path is absolute after reading, so that the worker may be
//! started from anywhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use atoll_domain::key::Digest;
use atoll_domain::worker::SlotRef;
use serde::{Deserialize, Serialize};

/// Name of the file in the state folder.
pub const FILE: &str = "worker.toml";
/// The device key's file in the state folder.
pub const DEVICE_KEY_FILE: &str = "device.json";
/// The unix socket in the state folder where pods' store connections arrive.
pub const SOCKET_FILE: &str = "worker.sock";
/// The longest file that is read.
const BYTES_MAX: usize = 64 << 10;

/// What `worker.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The control plane, `https://host:port`.
    pub server: String,
    /// File with the control plane's certificate (PEM); nothing else is trusted.
    pub ca: PathBuf,
    /// The chain's JSON-RPC, `http://` or `https://`.
    pub rpc: String,
    /// Address or host name at which other workers' supervisors reach this machine by UDP.
    pub advertise: String,
    /// Folders of packs.
    #[serde(default)]
    pub packs: Vec<PathBuf>,
    /// How many CPU devices to offer, 1 to 16.
    #[serde(default = "one")]
    pub devices: u16,
    /// The network that was joined, as its root in hexadecimal; another one is refused.
    pub network: Digest,
    /// This worker's slot on the chain.
    pub slot: SlotRef,
    /// The TUN device; a copy that this user may open, where /dev/net/tun is root's alone.
    #[serde(default = "tun_device")]
    pub tun_device: PathBuf,
    /// The bubblewrap program.
    #[serde(default = "bwrap")]
    pub bwrap: PathBuf,
    /// Where pods' cgroups are made, if not below the worker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
}

/// Flags that stand above file and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of `server`; in the environment `ATOLL_WORKER_SERVER`.
    pub server: Option<String>,
    /// Instead of `ca`; `ATOLL_WORKER_CA`.
    pub ca: Option<PathBuf>,
    /// Instead of `rpc`; `ATOLL_WORKER_RPC`.
    pub rpc: Option<String>,
    /// Instead of `advertise`; `ATOLL_WORKER_ADVERTISE`.
    pub advertise: Option<String>,
    /// Instead of `packs` when not empty; `ATOLL_WORKER_PACKS`, separated by `:`.
    pub packs: Vec<PathBuf>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error("{path} is not there: run `atoll worker join --state {state} …` first", path = path.display(), state = state.display())]
    NotJoined { path: PathBuf, state: PathBuf },
    /// It cannot be read or written.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io { verb: &'static str, path: PathBuf, source: std::io::Error },
    /// It is not what it should be.
    #[error("{path} is not usable: {why}", path = path.display())]
    Malformed { path: PathBuf, why: String },
    /// A name that leads nowhere.
    #[error(
        "`advertise = \"{name}\"` is not an address: {why}; give the IP address at which other workers reach this machine"
    )]
    Advertise { name: String, why: String },
    /// A variable of the environment that nothing reads.
    #[error(
        "the environment has {0}, which is not a setting; known are ATOLL_WORKER_SERVER, _CA, _RPC, _ADVERTISE and _PACKS"
    )]
    UnknownVariable(String),
}

const PREFIX: &str = "ATOLL_WORKER_";

impl Overrides {
    /// The settings in an environment.
    ///
    /// # Errors
    /// [`ConfigError::UnknownVariable`] for a name with the prefix `ATOLL_WORKER_` that is no setting.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut found = Self::default();
        for (name, value) in env.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            match &name[PREFIX.len()..] {
                "SERVER" => found.server = Some(value.clone()),
                "CA" => found.ca = Some(value.into()),
                "RPC" => found.rpc = Some(value.clone()),
                "ADVERTISE" => found.advertise = Some(value.clone()),
                "PACKS" => found.packs = std::env::split_paths(value).collect(),
                _ => return Err(ConfigError::UnknownVariable(name.clone())),
            }
        }
        Ok(found)
    }

    fn over(self, config: &mut Config) {
        if let Some(server) = self.server {
            config.server = server;
        }
        if let Some(ca) = self.ca {
            config.ca = ca;
        }
        if let Some(rpc) = self.rpc {
            config.rpc = rpc;
        }
        if let Some(advertise) = self.advertise {
            config.advertise = advertise;
        }
        if !self.packs.is_empty() {
            config.packs = self.packs;
        }
    }
}

impl Config {
    /// Reads `worker.toml`, then the environment, then flags; the later wins.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(state: &Path, env: &BTreeMap<String, String>, flags: Overrides) -> Result<Self, ConfigError> {
        let path = state.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ConfigError::NotJoined { path, state: state.to_owned() });
            }
            Err(source) => return Err(ConfigError::Io { verb: "read", path, source }),
        };
        let malformed = |why: String| ConfigError::Malformed { path: path.clone(), why };
        if text.len() > BYTES_MAX {
            return Err(malformed(format!("longer than {BYTES_MAX} bytes")));
        }
        let mut config: Self = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        Overrides::from_env(env)?.over(&mut config);
        flags.over(&mut config);
        config.make_absolute(state);
        Ok(config)
    }

    /// Writes `worker.toml` as a whole.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn save(&self, state: &Path) -> Result<(), ConfigError> {
        let path = state.join(FILE);
        let text = toml::to_string_pretty(self)
            .map_err(|error| ConfigError::Malformed { path: path.clone(), why: error.to_string() })?;
        crate::world::store::write_whole(&path, text.as_bytes(), 0o600).map_err(|source| ConfigError::Io {
            verb: "write",
            path,
            source,
        })
    }

    /// The address of [`Config::advertise`]; a name is looked up.
    ///
    /// # Errors
    /// [`ConfigError::Advertise`].
    pub fn announce(&self) -> Result<IpAddr, ConfigError> {
        let refused = |why: String| ConfigError::Advertise { name: self.advertise.clone(), why };
        if let Ok(address) = self.advertise.parse() {
            return Ok(address);
        }
        let found = (self.advertise.as_str(), 0).to_socket_addrs().map_err(|error| refused(error.to_string()))?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        // IPv4 first: every supervisor has it.
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses.first().copied().ok_or_else(|| refused("the name has no address".into()))
    }

    /// Relative paths are the state folder's.
    fn make_absolute(&mut self, state: &Path) {
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        for path in self.packs.iter_mut().chain([&mut self.ca, &mut self.tun_device, &mut self.bwrap]) {
            *path = state.join(&*path);
        }
    }
}

const fn one() -> u16 {
    1
}

fn tun_device() -> PathBuf {
    "/dev/net/tun".into()
}

fn bwrap() -> PathBuf {
    "/usr/bin/bwrap".into()
}

#[cfg(test)]
mod tests {
    use atoll_domain::key::PublicKey;

    use super::*;

    fn config() -> Config {
        Config {
            server: "https://127.0.0.1:1".into(),
            ca: "/etc/atoll/cert.pem".into(),
            rpc: "http://127.0.0.1:2".into(),
            advertise: "127.0.0.1".into(),
            packs: vec!["/srv/pack".into()],
            devices: 1,
            network: Digest([1; 32]),
            slot: SlotRef { page: PublicKey([2; 32]), slot: 3 },
            tun_device: tun_device(),
            bwrap: bwrap(),
            cgroup: None,
        }
    }

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_was_written_reads_back_and_later_sources_win() {
        let state = tempfile::tempdir().unwrap();
        config().save(state.path()).unwrap();
        let plain = Config::load(state.path(), &env(&[]), Overrides::default()).unwrap();
        assert_eq!(plain, config());
        let flags = Overrides { rpc: Some("http://flag".into()), ..Overrides::default() };
        let set = env(&[("ATOLL_WORKER_RPC", "http://env"), ("ATOLL_WORKER_PACKS", "/a:/b"), ("HOME", "/x")]);
        let over = Config::load(state.path(), &set, flags).unwrap();
        assert_eq!((over.rpc.as_str(), over.packs), ("http://flag", vec!["/a".into(), "/b".into()]));
    }

    #[test]
    fn unknown_fields_and_variables_are_refused() {
        let state = tempfile::tempdir().unwrap();
        let load = |set: &BTreeMap<String, String>| {
            Config::load(state.path(), set, Overrides::default()).unwrap_err().to_string()
        };
        assert!(load(&env(&[])).contains("atoll worker join"));
        config().save(state.path()).unwrap();
        assert!(load(&env(&[("ATOLL_WORKER_SEVER", "x")])).contains("ATOLL_WORKER_SEVER"));
        let path = state.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("surprise = 1\n{text}")).unwrap();
        assert!(load(&env(&[])).contains("surprise"));
    }

    #[test]
    fn an_advertised_name_becomes_an_address() {
        assert!(config().announce().unwrap().is_loopback());
        assert!(Config { advertise: "localhost".into(), ..config() }.announce().unwrap().is_loopback());
        let refused = Config { advertise: "not a host".into(), ..config() }.announce().unwrap_err();
        assert!(refused.to_string().contains("IP address"));
    }
}

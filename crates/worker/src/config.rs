//! The worker's configuration: `worker.toml` in its state folder, written by `join`, with the environment and flags over it.
//!
//! Read once at start; unknown fields are refused. Every path is absolute after reading, so that the worker may be
//! started from anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atoll_domain::key::Digest;
use atoll_domain::worker::SlotRef;
use serde::{Deserialize, Serialize};

use crate::link::dial::{DialError, Operator, OperatorName, Server};
use crate::link::tls::Tls;

/// Name of the file in the state folder.
pub const FILE: &str = "worker.toml";
/// The device key's file in the state folder.
pub const DEVICE_KEY_FILE: &str = "device.json";
/// The unix socket in the state folder where pods' store connections arrive.
pub const SOCKET_FILE: &str = "worker.sock";
/// The longest file that is read.
const BYTES_MAX: usize = 64 << 10;
/// Operators of one worker: each costs a link, and its own word about every device.
const OPERATORS_MAX: usize = 8;
/// Servers of one operator.
const SERVERS_MAX: usize = 32;
/// The longest name of an operator.
const NAME_BYTES_MAX: usize = 128;

/// What `worker.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The one operator's server, `https://host:port`: the short form of one `[[operator]]` with one server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// With `server`: file with its certificate (PEM); nothing else is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
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
    /// The operators that this worker serves; all see it, and the chain decides whose pod it runs.
    #[serde(default, rename = "operator", skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorConfig>,
}

/// One `[[operator]]` of `worker.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    /// What this worker calls it, in its logs and for the pods it started; the first server's `host:port` if not given.
    /// One that is given stays when servers change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its servers, `https://host:port`. The link is to one of them, and moves to another when that one goes away.
    pub servers: Vec<String>,
    /// File with their certificates (PEM), one after the other; nothing else is trusted.
    pub ca: PathBuf,
}

/// Flags that stand above file and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of all operators one with this server; in the environment `ATOLL_WORKER_SERVER`.
    pub server: Option<String>,
    /// Its certificate, if it is not the first operator's; `ATOLL_WORKER_CA`.
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
        if self.server.is_some() || self.ca.is_some() {
            let first = std::mem::take(&mut config.operators).into_iter().next();
            let (server, ca) = first.map(|one| (one.servers.into_iter().next(), Some(one.ca))).unwrap_or_default();
            config.server = self.server.or_else(|| config.server.take()).or(server);
            config.ca = self.ca.or_else(|| config.ca.take()).or(ca);
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
        config.settle_operators().map_err(malformed)?;
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

    /// The ways to every operator.
    ///
    /// # Errors
    /// [`DialError`]: an address or a certificate that cannot be used.
    pub fn operators(&self) -> Result<Vec<Operator>, DialError> {
        let operator = |one: &OperatorConfig| {
            let servers: Vec<Server> = one.servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?;
            Operator::new(one.name()?, servers, Arc::new(Tls::new(&one.ca)?))
        };
        self.operators.iter().map(operator).collect()
    }

    /// Turns the short form into the long one, so that nobody else needs to know of it.
    fn settle_operators(&mut self) -> Result<(), String> {
        match (self.server.take(), self.ca.take()) {
            (None, None) => {}
            (Some(_), Some(_)) if !self.operators.is_empty() => {
                return Err("it has both `server` and [[operator]]: write the first one as an [[operator]] too".into());
            }
            (Some(server), Some(ca)) => self.operators.push(OperatorConfig { name: None, servers: vec![server], ca }),
            _ => return Err("`server` and `ca` go together".into()),
        }
        if !(1..=OPERATORS_MAX).contains(&self.operators.len()) {
            return Err(format!("a worker has 1 to {OPERATORS_MAX} operators, this one {}", self.operators.len()));
        }
        let mut names = BTreeSet::new();
        for operator in &self.operators {
            if !(1..=SERVERS_MAX).contains(&operator.servers.len()) {
                return Err(format!("an operator has 1 to {SERVERS_MAX} servers, one has {}", operator.servers.len()));
            }
            let name = operator.name().map_err(|error| error.to_string())?;
            if name.0.is_empty() || name.0.len() > NAME_BYTES_MAX {
                return Err(format!("an operator's name has 1 to {NAME_BYTES_MAX} bytes"));
            }
            if !names.insert(name.clone()) {
                return Err(format!("two operators are called {name}"));
            }
        }
        Ok(())
    }

    /// Relative paths are the state folder's.
    fn make_absolute(&mut self, state: &Path) {
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        let certificates = self.ca.iter_mut().chain(self.operators.iter_mut().map(|operator| &mut operator.ca));
        for path in self.packs.iter_mut().chain(certificates).chain([&mut self.tun_device, &mut self.bwrap]) {
            *path = state.join(&*path);
        }
    }
}

impl OperatorConfig {
    /// What this worker calls it.
    ///
    /// # Errors
    /// The first server's address cannot be read.
    pub fn name(&self) -> Result<OperatorName, DialError> {
        match (&self.name, self.servers.first()) {
            (Some(name), _) => Ok(OperatorName(name.clone())),
            (None, Some(server)) => Ok(OperatorName(server.parse::<Server>()?.to_string())),
            (None, None) => Err(DialError::NoServer(OperatorName("(without a name)".into()))),
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
            server: None,
            ca: None,
            operators: vec![OperatorConfig {
                name: None,
                servers: vec!["https://127.0.0.1:1".into()],
                ca: "/etc/atoll/cert.pem".into(),
            }],
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

    /// As `join` wrote it before there could be several operators.
    const OLD: &str = r#"
server = "https://127.0.0.1:1"
ca = "/etc/atoll/cert.pem"
rpc = "http://127.0.0.1:2"
advertise = "127.0.0.1"
packs = ["/srv/pack"]
devices = 1
network = "0101010101010101010101010101010101010101010101010101010101010101"
tun_device = "/dev/net/tun"
bwrap = "/usr/bin/bwrap"

[slot]
page = "8qbHbw2BbbTHBW1sbeqakYXVKRQM8Ne7pLK7m6CVfeR"
slot = 3
"#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(FILE), text).unwrap();
        Config::load(state.path(), &env(&[]), Overrides::default())
    }

    #[test]
    fn an_old_file_is_one_operator_with_one_server() {
        assert_eq!(read(OLD).unwrap(), config());
        assert_eq!(config().operators[0].name().unwrap(), OperatorName("127.0.0.1:1".into()));
        let long = OLD.replace("server =", "#").replace("ca =", "#");
        let more = "[[operator]]\nservers = [\"https://a:1\", \"https://b:1\"]\nca = \"a.pem\"\n\
                    [[operator]]\nname = \"other\"\nservers = [\"https://c:1\"]\nca = \"/c.pem\"\n";
        let several = read(&format!("{long}{more}")).unwrap();
        let names: Vec<String> = several.operators.iter().map(|one| one.name().unwrap().0).collect();
        assert_eq!(names, ["a:1", "other"]);
        assert!(several.operators[0].ca.is_absolute() && several.operators[0].servers.len() == 2);
        for (what, text) in [
            ("1 to 8 operators", long.clone()),
            ("both `server` and", format!("{OLD}{more}")),
            ("two operators are called", format!("{long}{more}{more}")),
            ("1 to 32 servers", format!("{long}[[operator]]\nservers = []\nca = \"x\"\n")),
            ("go together", OLD.replace("ca =", "#")),
        ] {
            let refused = read(&text).unwrap_err().to_string();
            assert!(refused.contains(what), "{what}: {refused}");
        }
    }

    #[test]
    fn a_server_of_the_environment_stands_above_all_operators() {
        let state = tempfile::tempdir().unwrap();
        config().save(state.path()).unwrap();
        let set = env(&[("ATOLL_WORKER_SERVER", "https://other:1")]);
        let over = Config::load(state.path(), &set, Overrides::default()).unwrap();
        let wanted = OperatorConfig { servers: vec!["https://other:1".into()], ..config().operators[0].clone() };
        assert_eq!(over.operators, [wanted]);
    }

    #[test]
    fn an_advertised_name_becomes_an_address() {
        assert!(config().announce().unwrap().is_loopback());
        assert!(Config { advertise: "localhost".into(), ..config() }.announce().unwrap().is_loopback());
        let refused = Config { advertise: "not a host".into(), ..config() }.announce().unwrap_err();
        assert!(refused.to_string().contains("IP address"));
    }
}

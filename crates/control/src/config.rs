//! How one control node is told to run: read once, from a TOML file and flags (which the command line also fills from
//! the environment). Unknown fields are refused, because a misspelt limit is no limit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Everything a control node can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's own folder: `tls/`, `keys/`, and by default `control.db` and `objects/`.
    pub state: PathBuf,
    /// Where API and links listen. Port 0 takes a free one, see `port_file`.
    pub listen: SocketAddr,
    /// Where workers, clients and the operator's other nodes reach this node, `https://…`. Without it: where it listens.
    pub url: Option<String>,
    /// Names and addresses that the certificate is made for, beside `127.0.0.1` and `localhost`.
    pub names: Vec<String>,
    /// The chain's JSON-RPC, `http://…` or `https://…`.
    pub rpc: String,
    /// The store: `sqlite:PATH` or `postgres://…`.
    pub store: String,
    /// The folder of blobs, checkpoints and kept output.
    pub objects: PathBuf,
    /// Where the port is written once the node listens.
    pub port_file: Option<PathBuf>,
    /// Whether orders are placed only on workers that hold pods to their limits. False on `atoll dev`.
    pub strangers: bool,
    /// How often workers are asked to send heartbeats, in milliseconds. Three missed ones end a link.
    pub heartbeat_ms: u32,
    /// The most connections at once, links and streams included; never more than the system has open files for.
    pub connections_max: u32,
    /// Requests per second that one API key (or one address without a key) may make on average.
    pub requests_per_s: u32,
    /// Requests that it may make at once after a pause.
    pub requests_burst: u32,
    /// Which epochs this operator attests, where several hold one attestor key: turn `k` of `n`, written `k/n`.
    pub attest_turn: Turn,
    /// How long an order may be over and not closed before this operator settles it in the place of one that is gone,
    /// in seconds.
    pub orphan_grace_s: u32,
}

/// A share of all epochs: those whose index leaves `k` when divided by `n`.
///
/// Operators that hold one attestor key have different turns of the same `n`: no index is ever theirs both, so they
/// cannot vote for two roots of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    k: u64,
    n: u64,
}

impl Default for Turn {
    fn default() -> Self {
        Self { k: 0, n: 1 }
    }
}

impl Turn {
    /// The latest index of this turn that is at most `index`; none when all of its are later.
    #[must_use]
    pub const fn latest(self, index: u64) -> Option<u64> {
        match (index % self.n).checked_sub(self.k) {
            Some(past) => index.checked_sub(past),
            None => index.checked_sub(index % self.n + self.n - self.k),
        }
    }
}

impl FromStr for Turn {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((k, n)) if k < n && n <= 64 => Ok(Self { k, n }),
            _ => Err("it must be two numbers `k/n` with k below n and n at most 64, for example `0/2`"),
        }
    }
}

/// The TOML file: every field optional, none unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// See [`Config::state`].
    pub state: Option<PathBuf>,
    /// See [`Config::listen`].
    pub listen: Option<SocketAddr>,
    /// See [`Config::url`].
    pub url: Option<String>,
    /// See [`Config::names`].
    pub names: Option<Vec<String>>,
    /// See [`Config::rpc`].
    pub rpc: Option<String>,
    /// See [`Config::store`].
    pub store: Option<String>,
    /// See [`Config::objects`].
    pub objects: Option<PathBuf>,
    /// See [`Config::port_file`].
    pub port_file: Option<PathBuf>,
    /// See [`Config::strangers`].
    pub strangers: Option<bool>,
    /// See [`Config::heartbeat_ms`].
    pub heartbeat_ms: Option<u32>,
    /// See [`Config::connections_max`].
    pub connections_max: Option<u32>,
    /// See [`Config::requests_per_s`].
    pub requests_per_s: Option<u32>,
    /// See [`Config::requests_burst`].
    pub requests_burst: Option<u32>,
    /// See [`Config::attest_turn`].
    pub attest_turn: Option<String>,
    /// See [`Config::orphan_grace_s`].
    pub orphan_grace_s: Option<u32>,
}

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read: {why}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, with line and column where known.
        why: String,
    },
    /// Something without a default is missing.
    #[error("`{field}` is not set: give it in the configuration file or as --{flag}")]
    Missing {
        /// Its name in the file.
        field: &'static str,
        /// Its flag.
        flag: &'static str,
    },
    /// A value that cannot work.
    #[error("`{field}` is {value}: {rule}")]
    Range {
        /// Its name in the file.
        field: &'static str,
        /// What was given.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
}

impl Config {
    /// The configuration of a file (where one is given) with `flags` laid over it, defaults below both.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field.
    pub fn read(file: Option<&Path>, flags: Overrides) -> Result<Self, ConfigError> {
        let below = match file {
            None => Overrides::default(),
            Some(path) => {
                let unreadable = |why: String| ConfigError::File { path: path.to_owned(), why };
                let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
                toml::from_str(&text).map_err(|error| unreadable(error.to_string()))?
            }
        };
        Self::of(flags.over(below))
    }

    fn of(given: Overrides) -> Result<Self, ConfigError> {
        let state = given.state.ok_or(ConfigError::Missing { field: "state", flag: "state" })?;
        let config = Self {
            listen: given.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8443))),
            url: given.url,
            names: given.names.unwrap_or_default(),
            rpc: given.rpc.ok_or(ConfigError::Missing { field: "rpc", flag: "rpc" })?,
            store: given.store.unwrap_or_else(|| format!("sqlite:{}", state.join("control.db").display())),
            objects: given.objects.unwrap_or_else(|| state.join("objects")),
            port_file: given.port_file,
            strangers: given.strangers.unwrap_or(true),
            heartbeat_ms: given.heartbeat_ms.unwrap_or(1000),
            connections_max: given.connections_max.unwrap_or(65_536),
            requests_per_s: given.requests_per_s.unwrap_or(50),
            requests_burst: given.requests_burst.unwrap_or(200),
            attest_turn: match given.attest_turn {
                None => Turn::default(),
                Some(value) => value.parse().map_err(|rule| ConfigError::Range {
                    field: "attest_turn",
                    value: value.clone(),
                    rule,
                })?,
            },
            orphan_grace_s: given.orphan_grace_s.unwrap_or(60),
            state,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let range = |field, value: u32, rule| ConfigError::Range { field, value: value.to_string(), rule };
        if !(100..=60_000).contains(&self.heartbeat_ms) {
            return Err(range("heartbeat_ms", self.heartbeat_ms, "it must be 100 to 60000 milliseconds"));
        }
        let plain =
            |url: &String| url.starts_with("https://") && url.len() <= 255 && url.parse::<axum::http::Uri>().is_ok();
        if let Some(url) = self.url.as_ref().filter(|url| !plain(url)) {
            let rule = "it must be https://HOST:PORT";
            return Err(ConfigError::Range { field: "url", value: url.clone(), rule });
        }
        if self.connections_max < 16 {
            return Err(range("connections_max", self.connections_max, "it must be at least 16"));
        }
        if self.requests_per_s == 0 || self.requests_burst < self.requests_per_s {
            let rule = "requests_per_s must be above 0 and at most requests_burst";
            return Err(range("requests_per_s", self.requests_per_s, rule));
        }
        Ok(())
    }

    /// [`url`](Self::url), or where the node listens.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("https://{}", self.listen))
    }

    /// [`heartbeat_ms`](Self::heartbeat_ms) as a length.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(u64::from(self.heartbeat_ms))
    }
}

impl Overrides {
    /// What is set here, else what is set below.
    fn over(self, below: Self) -> Self {
        Self {
            state: self.state.or(below.state),
            listen: self.listen.or(below.listen),
            url: self.url.or(below.url),
            names: self.names.or(below.names),
            rpc: self.rpc.or(below.rpc),
            store: self.store.or(below.store),
            objects: self.objects.or(below.objects),
            port_file: self.port_file.or(below.port_file),
            strangers: self.strangers.or(below.strangers),
            heartbeat_ms: self.heartbeat_ms.or(below.heartbeat_ms),
            connections_max: self.connections_max.or(below.connections_max),
            requests_per_s: self.requests_per_s.or(below.requests_per_s),
            requests_burst: self.requests_burst.or(below.requests_burst),
            attest_turn: self.attest_turn.or(below.attest_turn),
            orphan_grace_s: self.orphan_grace_s.or(below.orphan_grace_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, flags: Overrides) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(Some(file.path()), flags).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_lie_over_the_file_and_the_file_over_defaults() {
        let flags = Overrides { heartbeat_ms: Some(200), ..Overrides::default() };
        let config =
            read("state = '/s'\nrpc = 'http://127.0.0.1:1'\nheartbeat_ms = 500\nstrangers = false", flags).unwrap();
        assert_eq!((config.heartbeat_ms, config.strangers, config.requests_per_s), (200, false, 50));
        assert_eq!(config.store, "sqlite:/s/control.db");
        assert_eq!(config.objects, Path::new("/s/objects"));
    }

    #[test]
    fn what_is_unknown_missing_or_absurd_is_named() {
        let error = |text: &str| read(text, Overrides::default()).unwrap_err();
        assert!(error("state = '/s'\nrpc = 'x'\nheartbeat = 3").contains("unknown field `heartbeat`"));
        assert!(error("state = 3").contains("line 1"));
        assert!(error("state = '/s'").contains("--rpc"));
        assert!(error("state = '/s'\nrpc = 'x'\nheartbeat_ms = 0").contains("100 to 60000"));
        assert!(error("state = '/s'\nrpc = 'x'\nrequests_per_s = 0").contains("above 0"));
        for turn in ["2/2", "0", "0/0", "-1/2", "0/65", "x/y"] {
            assert!(error(&format!("state = '/s'\nrpc = 'x'\nattest_turn = '{turn}'")).contains("k below n"), "{turn}");
        }
    }

    #[test]
    fn turns_share_out_every_epoch_once() {
        let turns: Vec<Turn> = ["0/3", "1/3", "2/3"].map(|turn| turn.parse().unwrap()).to_vec();
        for index in 0..20 {
            let whose: Vec<bool> = turns.iter().map(|turn| turn.latest(index) == Some(index)).collect();
            assert_eq!(whose.iter().filter(|mine| **mine).count(), 1, "epoch {index}");
        }
        let latest = |index| turns.iter().map(|turn| turn.latest(index)).collect::<Vec<_>>();
        assert_eq!(latest(0), [Some(0), None, None]);
        assert_eq!(latest(7), [Some(6), Some(7), Some(5)]);
        assert_eq!(Turn::default().latest(9), Some(9));
    }
}

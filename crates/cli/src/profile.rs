//! The profile: which operator, which wallet, and which network is meant.
//!
//! `$ATOLL_HOME/profile.toml` (default `~/.config/atoll`), readable by its owner only, since it holds an API key. Unknown
//! fields are refused: a misspelt `network_root` must not mean "none pinned". Relative paths are those of the folder
//! that the profile lies in.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use atoll_domain::key::Digest;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// Longest profile that is read, in bytes.
const PROFILE_BYTES_MAX: u64 = 64 << 10;

/// Where the client keeps its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

/// How to reach one operator, and what must be true of its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Base address of the API, for example `https://127.0.0.1:8443`.
    pub server: String,
    /// The certificate that the server must show (PEM).
    pub ca: PathBuf,
    /// `atoll_<id>_<secret>`.
    pub api_key: String,
    /// The renter's key file. It stays on this machine.
    pub wallet: PathBuf,
    /// Solana JSON-RPC that this machine asks itself, for example `http://127.0.0.1:8899`.
    pub rpc: String,
    /// The network root, pinned at login.
    pub network_root: Digest,
}

impl Home {
    /// A folder named outright.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// `$ATOLL_HOME`, else `$XDG_CONFIG_HOME/atoll`, else `~/.config/atoll`.
    ///
    /// # Errors
    /// [`Failure`] when none of the three is set.
    pub fn find() -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        variable("ATOLL_HOME")
            .or_else(|| variable("XDG_CONFIG_HOME").map(|config| config.join("atoll")))
            .or_else(|| variable("HOME").map(|home| home.join(".config/atoll")))
            .map(Self)
            .ok_or_else(|| Failure::usage("no place for the profile: set ATOLL_HOME or HOME"))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The profile's file.
    #[must_use]
    pub fn profile_path(&self) -> PathBuf {
        self.0.join("profile.toml")
    }

    /// Makes the folder, for its owner only.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be made.
    pub fn create(&self) -> Result<(), Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(|error| {
            Failure::usage(format!("cannot make {}: {error}; set ATOLL_HOME to a folder of yours", self.0.display()))
        })
    }

    /// Reads the profile.
    ///
    /// # Errors
    /// [`Failure`] when there is none, when others may read it, or when it is malformed.
    pub fn load(&self) -> Result<Profile, Failure> {
        let path = self.profile_path();
        let shown = path.display();
        let failure = |message: String| Failure::new(Exit::Usage, "profile", message);
        let meta = fs::metadata(&path).map_err(|error| {
            failure(format!(
                "there is no profile at {shown} ({error}); write one with `atoll login`, or name another folder with ATOLL_HOME (`atoll dev` prints its own)"
            ))
        })?;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(failure(format!(
                "the profile {shown} holds an API key and others may read it (mode {mode:o}); run `chmod 600 {shown}`"
            )));
        }
        if meta.len() > PROFILE_BYTES_MAX {
            return Err(failure(format!("{shown} has {} bytes, which is no profile; run `atoll login`", meta.len())));
        }
        let text = fs::read_to_string(&path).map_err(|error| failure(format!("cannot read {shown}: {error}")))?;
        let mut profile: Profile = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(1, |span| crate::manifest::place(&text, span.start).0);
            failure(format!("{shown}:{at}: {}; correct it, or run `atoll login`", error.message()))
        })?;
        profile.ca = self.0.join(&profile.ca);
        profile.wallet = self.0.join(&profile.wallet);
        Ok(profile)
    }

    /// Writes the profile, readable by its owner only, in the place of an older one at once or not at all.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written.
    pub fn save(&self, profile: &Profile) -> Result<(), Failure> {
        self.create()?;
        let text = toml::to_string(profile)
            .map_err(|error| Failure::new(Exit::Internal, "profile", format!("the profile is not TOML: {error}")))?;
        write_private(&self.profile_path(), text.as_bytes())
    }
}

/// Writes a file that only its owner may read; readers see the old or the new one, never half.
///
/// # Errors
/// [`Failure`] when the folder does not let it.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error: std::io::Error| {
        // The draft may not exist; what matters is the first error.
        let _ = fs::remove_file(&draft);
        Failure::usage(format!("cannot write {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            server: "https://127.0.0.1:1".into(),
            ca: "/tmp/cert.pem".into(),
            api_key: "atoll_key_secret".into(),
            wallet: "wallet.json".into(),
            rpc: "http://127.0.0.1:2".into(),
            network_root: Digest::of(b"net"),
        }
    }

    #[test]
    fn a_profile_round_trips_and_relative_paths_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("deep/er"));
        home.save(&profile()).unwrap();
        let wallet = folder.path().join("deep/er/wallet.json");
        assert_eq!(home.load().unwrap(), Profile { wallet, ..profile() });
        assert_eq!(fs::metadata(home.profile_path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        assert!(home.load().unwrap_err().message.contains("atoll login"));
        home.save(&profile()).unwrap();
        let path = home.profile_path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}netwrok_root = \"x\"\n")).unwrap();
        let unknown = home.load().unwrap_err().message;
        assert!(unknown.contains("profile.toml:7: unknown field `netwrok_root`"), "{unknown}");
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(home.load().unwrap_err().message.contains("chmod 600"));
    }
}

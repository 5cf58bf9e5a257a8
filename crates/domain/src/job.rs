//! Jobs: what a renter asks to run, how that is signed, and the states a job passes through.
//!
//! A specification travels as exact bytes. Its root is hashed over those bytes and parsed only afterwards, so that two
//! parties never disagree about a canonical form. The root stands in the order on the chain; a worker starts nothing
//! whose root is not that of its lease's order and which the renter did not sign.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::{Address, Digest, KeyError, PublicKey, Purpose, SecretKey, Signature};

/// Put before the specification's bytes when its root is hashed.
const ROOT_SEPARATOR: &[u8] = b"atoll/jobspec/1\0";

/// The largest specification that anybody parses, in bytes.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;
/// The largest bundle (the job's folder, packed), in bytes: 64 MiB.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;
/// The longest part of a parser's message that is shown, in characters.
const WORDS_CHARS_MAX: usize = 300;
/// The most devices one job may ask for: the design's largest gang, 10,000.
pub const DEVICES_MAX: u32 = 10_000;
/// The most bytes of a job's environment, names and values: half of what a pod may have, the rest is Atoll's.
pub const ENV_BYTES_MAX: usize = 32 * 1024;
/// The longest a job may run, in seconds: 30 days.
pub const SECONDS_MAX: u64 = 30 * 86_400;

/// The runtime that joins a cluster's pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterKind {
    /// A Ray head and Ray nodes, one per pod.
    Ray,
}

/// A prepared Python environment, by name and content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackRef {
    /// The pack's name, as in `packs/`.
    pub name: String,
    /// The digest over its files, as in its `pack.json`.
    pub sha256: Digest,
}

/// The job's folder, packed and stored by content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Of the packed bytes.
    pub sha256: Digest,
    /// Length of the packed bytes.
    pub bytes: u64,
}

/// What may run under a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Form of this record: 1.
    pub version: u16,
    /// A short name for people.
    pub name: String,
    /// The network this is meant for; its signature is worth nothing on another.
    pub network: Digest,
    /// The renter's wallet.
    pub renter: PublicKey,
    /// The session key of that wallet which signs this and posts the order; none when the wallet does both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<PublicKey>,
    /// The order this belongs to.
    pub order: Address,
    /// The cluster's runtime.
    pub kind: ClusterKind,
    /// The device model, a name from the catalogue.
    pub model: String,
    /// How many devices, all or nothing.
    pub devices: u32,
    /// The environment it runs in.
    pub pack: PackRef,
    /// The code.
    pub bundle: Bundle,
    /// The command line, run by a shell in the bundle's folder on the head pod.
    pub entry: String,
    /// Environment variables for the command; names in capitals, none of Atoll's own.
    pub env: BTreeMap<String, String>,
    /// Whether the job writes checkpoints and may be started again from the last one.
    pub checkpoints: bool,
    /// The longest it may run, in seconds.
    pub seconds_max: u64,
}

/// A specification with the renter's signature, as it travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedSpec {
    /// The exact bytes (JSON) that were hashed.
    pub bytes: Vec<u8>,
    /// The renter's, over the root.
    pub signature: Signature,
}

/// Why a specification is refused. Each says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Too many bytes to look at.
    #[error(
        "the job specification has {bytes} bytes; at most {SPEC_BYTES_MAX} are read: move large values into the job's folder"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not a specification.
    #[error("the job specification cannot be read: {0}")]
    Malformed(String),
    /// A field outside its bounds.
    #[error("`{field}` {problem}")]
    Field {
        /// Its name in `atoll.toml`.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Not signed by the renter it names.
    #[error(
        "the job specification is not signed by its renter, or the session key it names: sign it with the key that posts the order"
    )]
    NotSigned(#[from] KeyError),
}

impl SignedSpec {
    /// Signs a specification with the renter's key, or that of the session key it names.
    ///
    /// # Errors
    /// [`SpecError`] when it is out of bounds.
    pub fn sign(spec: &JobSpec, renter: &SecretKey) -> Result<Self, SpecError> {
        spec.check()?;
        let bytes = serde_json::to_vec(spec).map_err(|error| SpecError::Malformed(error.to_string()))?;
        let signature = renter.sign(Purpose::JobSpec, &spec_root(&bytes).0);
        Ok(Self { bytes, signature })
    }

    /// The root that stands in the order.
    #[must_use]
    pub fn root(&self) -> Digest {
        spec_root(&self.bytes)
    }

    /// Reads the specification: bounds, signature, meaning, in this order.
    ///
    /// # Errors
    /// [`SpecError`], nothing of it to be believed.
    pub fn open(&self) -> Result<JobSpec, SpecError> {
        if self.bytes.len() > SPEC_BYTES_MAX {
            return Err(SpecError::TooLarge { bytes: self.bytes.len() });
        }
        let spec: JobSpec =
            serde_json::from_slice(&self.bytes).map_err(|error| SpecError::Malformed(first_words(&error)))?;
        spec.signer().verify(Purpose::JobSpec, &self.root().0, &self.signature)?;
        spec.check()?;
        Ok(spec)
    }
}

/// The first words of a parser, which repeats names that it does not know, however long they are.
fn first_words(error: &serde_json::Error) -> String {
    error.to_string().chars().take(WORDS_CHARS_MAX).collect()
}

/// The root of a specification's bytes.
#[must_use]
pub fn spec_root(bytes: &[u8]) -> Digest {
    Digest::of_parts(&[ROOT_SEPARATOR, bytes])
}

impl JobSpec {
    /// Who signs it and posts its order: the renter's wallet, or a session key of it. That the key is the wallet's is the
    /// chain's to say: the address of the order's budget follows from both.
    #[must_use]
    pub fn signer(&self) -> PublicKey {
        self.budget.unwrap_or(self.renter)
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`SpecError::Field`] for the first field that is out of bounds.
    pub fn check(&self) -> Result<(), SpecError> {
        let field = |field, problem: String| Err(SpecError::Field { field, problem });
        if self.version != 1 {
            return field("version", format!("is {}; this build reads version 1", self.version));
        }
        check_name("name", &self.name)?;
        check_name("model", &self.model)?;
        check_name("pack", &self.pack.name)?;
        if self.devices == 0 || self.devices > DEVICES_MAX {
            return field("devices", format!("is {}: ask for 1 to {DEVICES_MAX}", self.devices));
        }
        if self.bundle.bytes == 0 || self.bundle.bytes > BUNDLE_BYTES_MAX {
            return field(
                "bundle",
                format!(
                    "has {} bytes: a job's folder packs to at most {BUNDLE_BYTES_MAX}; keep data in the object store",
                    self.bundle.bytes
                ),
            );
        }
        if self.entry.trim().is_empty() || self.entry.len() > 4096 || self.entry.contains('\0') {
            return field("entry", "must be a command line of 1 to 4096 bytes, for example `python train.py`".into());
        }
        if self.seconds_max == 0 || self.seconds_max > SECONDS_MAX {
            return field(
                "max_hours",
                format!("comes to {} s: ask for more than 0 and at most 720 hours", self.seconds_max),
            );
        }
        self.check_env()
    }

    fn check_env(&self) -> Result<(), SpecError> {
        let field = |problem: String| Err(SpecError::Field { field: "env", problem });
        if self.env.len() > 64 {
            return field(format!("has {} variables; at most 64 are passed on", self.env.len()));
        }
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > ENV_BYTES_MAX {
            return field(format!("has {bytes} bytes; at most {ENV_BYTES_MAX} are passed on: put them into a file"));
        }
        for (name, value) in &self.env {
            let well_formed = name.len() <= 64
                && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
                && name.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
            let reserved = ["ATOLL_", "RAY_", "LD_", "NVIDIA_", "POD_"].iter().any(|prefix| name.starts_with(prefix))
                || name == "PATH"
                || name == "PYTHONPATH";
            if !well_formed || reserved {
                let shown: String = name.chars().take(64).collect();
                return field(format!(
                    "has the name `{shown}`: use capitals, digits and `_`; not PATH or PYTHONPATH, and none that starts with ATOLL_, RAY_, LD_, NVIDIA_ or POD_"
                ));
            }
            if value.len() > 4096 || value.contains('\0') {
                return field(format!("`{name}` is longer than 4096 bytes or holds a zero byte"));
            }
        }
        Ok(())
    }
}

/// A short name: 1 to 64 of `a-z`, `0-9`, `-`, `.`, starting with a letter or digit.
fn check_name(field: &'static str, name: &str) -> Result<(), SpecError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.len() <= 64 && starts_well && name.bytes().all(inner) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(SpecError::Field {
        field,
        problem: format!(
            "is `{shown}`: use 1 to 64 lower-case letters, digits, `-` or `.`, starting with a letter or digit"
        ),
    })
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted; its order is on the way to the chain.
    Ordering,
    /// The order stands on the chain; workers are being chosen and leases filled.
    Placing,
    /// Leases are active; pods, overlay and runtime come up.
    Starting,
    /// The command runs.
    Running,
    /// A machine was lost; a replacement is on the way, the command starts again from the last checkpoint.
    Recovering,
    /// The command ended (or was stopped); leases settle and the remainder is refunded.
    Settling,
    /// Settled; the command ended well.
    Succeeded,
    /// Settled; the command failed, or the order could not be filled.
    Failed,
    /// Settled; stopped by the renter.
    Stopped,
}

/// How the command ended, known before everything is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// The command exited with status 0.
    Succeeded,
    /// It did not, or never ran.
    Failed,
    /// The renter stopped it.
    Stopped,
}

impl JobState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }

    /// The word used on the wire, in the store and on screens.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ordering => "ordering",
            Self::Placing => "placing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Recovering => "recovering",
            Self::Settling => "settling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl From<JobOutcome> for JobState {
    fn from(outcome: JobOutcome) -> Self {
        match outcome {
            JobOutcome::Succeeded => Self::Succeeded,
            JobOutcome::Failed => Self::Failed,
            JobOutcome::Stopped => Self::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn key() -> SecretKey {
        SecretKey::from_seed(&[3; 32])
    }

    fn spec() -> JobSpec {
        JobSpec {
            version: 1,
            name: "digits".into(),
            network: Digest::of(b"net"),
            renter: key().public(),
            budget: None,
            order: PublicKey([5; 32]),
            kind: ClusterKind::Ray,
            model: "cpu".into(),
            devices: 3,
            pack: PackRef { name: "ray-torch".into(), sha256: Digest::of(b"pack") },
            bundle: Bundle { sha256: Digest::of(b"bundle"), bytes: 6 },
            entry: "python train.py".into(),
            env: BTreeMap::new(),
            checkpoints: true,
            seconds_max: 3600,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut JobSpec), expected: &Expect) {
        let mut changed = spec();
        change(&mut changed);
        expected.assert_eq(&changed.check().map_or_else(|e| e.to_string(), |()| "fits".into()));
    }

    #[test]
    fn a_signed_spec_opens_to_itself() {
        let signed = SignedSpec::sign(&spec(), &key()).unwrap();
        assert_eq!(signed.open().unwrap(), spec());
    }

    #[test]
    fn a_session_key_signs_in_the_wallets_stead_where_the_spec_names_it() {
        let session = SecretKey::from_seed(&[6; 32]);
        let by_key = JobSpec { budget: Some(session.public()), ..spec() };
        let signed = SignedSpec::sign(&by_key, &session).unwrap();
        assert_eq!((signed.open().unwrap().signer(), spec().signer()), (session.public(), key().public()));
        assert!(matches!(SignedSpec::sign(&by_key, &key()).unwrap().open(), Err(SpecError::NotSigned(_))));
        assert!(matches!(SignedSpec::sign(&spec(), &session).unwrap().open(), Err(SpecError::NotSigned(_))));
        // What a wallet signs has the bytes that it always had.
        assert!(!String::from_utf8(SignedSpec::sign(&spec(), &key()).unwrap().bytes).unwrap().contains("budget"));
    }

    #[test]
    fn a_changed_or_foreign_spec_is_refused() {
        let signed = SignedSpec::sign(&spec(), &key()).unwrap();
        let text = String::from_utf8(signed.bytes.clone()).unwrap();
        let changed = SignedSpec { bytes: text.replace("train.py", "steal.py").into_bytes(), ..signed.clone() };
        assert!(matches!(changed.open(), Err(SpecError::NotSigned(_))));
        let stranger = SignedSpec {
            signature: SecretKey::from_seed(&[4; 32]).sign(Purpose::JobSpec, &signed.root().0),
            ..signed.clone()
        };
        assert!(matches!(stranger.open(), Err(SpecError::NotSigned(_))));
        let unknown = SignedSpec { bytes: text.replacen('{', "{\"root\":true,", 1).into_bytes(), ..signed };
        assert!(matches!(unknown.open(), Err(SpecError::Malformed(_))));
    }

    #[test]
    fn bounds_speak() {
        check(|_| {}, &expect!["fits"]);
        check(|s| s.devices = 0, &expect!["`devices` is 0: ask for 1 to 10000"]);
        check(|s| s.devices = 1_000_000_000, &expect!["`devices` is 1000000000: ask for 1 to 10000"]);
        check(
            |s| s.name = "Ölpest\n".into(),
            &expect![[
                "`name` is `Ölpest\n`: use 1 to 64 lower-case letters, digits, `-` or `.`, starting with a letter or digit"
            ]],
        );
        check(
            |s| s.entry = " ".into(),
            &expect!["`entry` must be a command line of 1 to 4096 bytes, for example `python train.py`"],
        );
        check(|s| s.seconds_max = 0, &expect!["`max_hours` comes to 0 s: ask for more than 0 and at most 720 hours"]);
        check(
            |s| s.env.extend((0..9).map(|n| (format!("A{n}"), "x".repeat(4000)))),
            &expect!["`env` has 36018 bytes; at most 32768 are passed on: put them into a file"],
        );
        check(
            |s| drop(s.env.insert("LD_PRELOAD".into(), "x".into())),
            &expect![
                "`env` has the name `LD_PRELOAD`: use capitals, digits and `_`; not PATH or PYTHONPATH, and none that starts with ATOLL_, RAY_, LD_, NVIDIA_ or POD_"
            ],
        );
    }
}

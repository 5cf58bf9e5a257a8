//! What a pod says to its object store, on the socket at 127.0.0.1:7070 in its own network namespace.
//!
//! A pod shows its per-lease credential as `Authorization: Bearer …`. The credential names job, lease and attempt; a
//! manifest of a stale attempt is refused, so that a pod that was given up cannot overwrite its successor's work.

use atoll_domain::key::Digest;
use serde::{Deserialize, Serialize};

/// The largest blob, in bytes: 256 MiB.
pub const BLOB_BYTES_MAX: u64 = 256 << 20;
/// The most files of one checkpoint.
pub const FILES_MAX: usize = 4096;
/// The port in every pod.
pub const STORE_PORT: u16 = 7070;

/// A complete checkpoint. Written last: what a manifest names is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Training steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// Over the model's parameters: names in order, raw little-endian bytes.
    pub weights_sha256: Digest,
    /// What it consists of.
    pub files: Vec<ManifestFile>,
}

/// One file of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name within the checkpoint.
    pub name: String,
    /// Its content's address.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
}

/// What a report is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// The command began without a checkpoint.
    Started,
    /// The command began from one.
    Resumed,
    /// A training step (or epoch) is done.
    Step,
    /// A checkpoint is complete.
    Checkpoint,
    /// The command's result.
    Result,
}

impl ReportKind {
    /// The word on the wire and in events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Resumed => "resumed",
            Self::Step => "step",
            Self::Checkpoint => "checkpoint",
            Self::Result => "result",
        }
    }
}

/// Something the command says of itself. Shown to its owner; nothing is paid or decided by it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What it is about.
    pub kind: ReportKind,
    /// The attempt that speaks.
    pub attempt: u32,
    /// Training steps done.
    #[serde(default)]
    pub step: u64,
    /// Epochs done.
    #[serde(default)]
    pub epoch: u64,
    /// Training loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Test accuracy, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Over the weights the process holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<Digest>,
    /// The step it resumed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from_step: Option<u64>,
    /// Anything else, at most 1,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

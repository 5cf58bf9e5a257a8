//! What is said on `supervisor.sock`: one JSON line of request, one JSON line of [`Answer`], then for `dial` and `output` raw
//! bytes. One request a connection. The socket is 0600 and asks the kernel who is calling; only the supervisor's own user
//! and root are heard.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use atoll_domain::id::PodId;
use atoll_domain::key::{Address, Digest};
use atoll_domain::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::spec::AuthorisedKey;
use crate::runtime::cgroup::Limits;

/// Socket in the pod's directory.
pub const SOCKET_FILE: &str = "supervisor.sock";
/// Who keeps the pod: [`Keeper`].
pub const KEEPER_FILE: &str = "supervisor.json";
/// How it ended: [`Exit`].
pub const EXIT_FILE: &str = "exit.json";

/// Longest line, in both directions: 2,000 members of 446 hex digits fit.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is it? Answers [`Answer::Status`].
    Status {},
    /// These are the members of the cluster: signed pod key statements in hexadecimal. Those that the supervisor can
    /// verify become peers, all others stop being peers. Answers [`Answer::Roster`].
    Roster {
        members: Vec<String>,
        /// The device keys that may sign, if they changed.
        #[serde(default)]
        authorised: Option<Vec<AuthorisedKey>>,
    },
    /// Start the tenant's program. Answers [`Answer::Done`] when bubblewrap has taken over.
    Run {
        /// Instead of `pod.json`'s.
        #[serde(default)]
        argv: Option<Vec<String>>,
        /// In addition to `pod.json`'s.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// Connect to a TCP port on the pod's own overlay address. Answers [`Answer::Done`], then raw bytes both ways.
    Dial { port: u16 },
    /// Output from this offset. Answers [`Answer::Output`], then raw bytes; with `follow` until the pod has ended.
    Output { offset: u64, follow: bool },
    /// Usage records after this number. Answers [`Answer::Usage`].
    Usage { after_seq: u64 },
    /// The lease ends then.
    Extend { ends_at: UnixMs },
    /// End it: SIGTERM to the tenant's program, after `term_ms` SIGKILL to everything.
    Stop { term_ms: u64 },
    /// Answers [`Answer::Status`] when the pod has ended, or after this long.
    Wait { timeout_ms: u64 },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Status(Box<Status>),
    Roster {
        /// In the order of the request.
        verdicts: Vec<Verdict>,
    },
    Done,
    Output {
        /// Where the bytes begin; later than asked when older output was dropped.
        offset: u64,
    },
    Usage {
        records: Vec<super::usage::Record>,
    },
    Refused {
        /// What happened and what to do.
        message: String,
    },
}

/// What became of one statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The peer's address, when it was admitted.
    pub ip: Option<Ipv4Addr>,
    /// Why not, otherwise.
    pub refused: Option<String>,
}

/// A pod as its supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pod: PodId,
    pub lease: Address,
    pub fence: u64,
    pub supervisor_pid: i32,
    /// Init, later bubblewrap.
    pub pod_pid: i32,
    pub state: State,
    /// X25519 key for the pod key statement, in hexadecimal.
    pub wg_public: Digest,
    /// What to announce in the statement.
    pub endpoint: SocketAddr,
    pub overlay_ip: Ipv4Addr,
    pub limits: Limits,
    pub ends_at: UnixMs,
    /// Last usage record.
    pub usage: super::usage::Record,
    /// End of the output so far.
    pub output_bytes: u64,
    pub peers: Vec<PeerStatus>,
}

/// Traffic with one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub ip: Ipv4Addr,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub forged: u64,
    pub rejected: u64,
    /// None: no handshake yet.
    pub handshake_age_s: Option<u64>,
}

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Its network stands; the program has not been started.
    Ready,
    /// The program runs.
    Running,
    /// Over.
    Exited(Box<Exit>),
}

/// How a pod ended; also the content of `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub pod: PodId,
    pub lease: Address,
    pub fence: u64,
    pub reason: Reason,
    /// In words, with numbers.
    pub message: String,
    /// Exit status of the program; 128 + n when signal n ended it; none when the pod was killed.
    pub code: Option<i32>,
    pub exited_at: UnixMs,
    /// The same on CLOCK_MONOTONIC, in microseconds.
    pub exited_monotonic_us: u64,
    /// Last usage record.
    pub usage: super::usage::Record,
    /// Processes killed for memory.
    pub oom_kills: u64,
}

/// Why a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The program ended.
    Exited,
    /// The worker stopped it.
    Stopped,
    /// End of the lease and grace were over.
    LeaseEnded,
    /// /job held more than it may.
    DiskLimit,
    /// The program could not be started.
    NotStarted,
    /// The supervisor was told to end (SIGTERM).
    SupervisorEnded,
}

/// `supervisor.json`: which process keeps the pod. Pid and start time name it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    pub pod: PodId,
    pub pid: i32,
    pub started_ticks: u64,
}

//! What the threads of a supervisor share, and how requests reach its main thread.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use atoll_domain::key::Digest;
use atoll_domain::time::UnixMs;
use atoll_overlay::pump::{self, Link};
use atoll_overlay::{Engine, Roster};
use nix::sys::eventfd::EventFd;

use super::output;
use super::protocol::{PeerStatus, State, Status};
use super::spec::PodSpec;
use super::usage::Record;
use crate::runtime::cgroup::Limits;

/// Small stacks keep the supervisor small; the deepest call (a folder walk) needs about 200 KiB unoptimised.
const STACK_BYTES: usize = 512 * 1024;

/// Starts a thread of the supervisor.
///
/// # Errors
/// No threads left.
pub fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)
}

/// What requests ask of the main thread.
#[derive(Debug)]
pub enum Command {
    Run { argv: Option<Vec<String>>, env: BTreeMap<String, String>, reply: SyncSender<Result<(), String>> },
    Stop { term_ms: u64 },
    Extend { ends_at: UnixMs },
    DiskFull { message: String },
}

/// What changes while the pod lives.
#[derive(Debug)]
pub struct View {
    pub state: State,
    pub usage: Record,
    pub ends_at: UnixMs,
    /// Everything the pod printed is in the spool.
    pub output_ended: bool,
}

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    pub dir: PathBuf,
    pub spec: PodSpec,
    pub pod_pid: i32,
    pub limits: Limits,
    pub engine: Mutex<Engine>,
    pub link: Link,
    pub roster: Mutex<Roster>,
    pub wg_public: [u8; 32],
    pub endpoint: SocketAddr,
    pub door: Mutex<OwnedFd>,
    pub view: Mutex<View>,
    /// Told whenever `view` or `output` has changed.
    pub changed: Condvar,
    pub output: Mutex<output::Spool>,
    pub connections: Arc<AtomicUsize>,
    /// The pod is over: threads end.
    pub stop: AtomicBool,
    pub commands: Mutex<Sender<Command>>,
    /// Wakes the main thread.
    pub wake: EventFd,
}

/// Locks; a thread that panicked must not take the pod with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wall clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the supervisor's one clock: it must keep the lease's end with nobody else there"
)]
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Time since the machine was booted, its sleep included. Nobody sets this clock: what was ten minutes ahead is so when the
/// wall clock jumps, too.
#[must_use]
pub fn since_boot() -> Duration {
    nix::time::ClockId::CLOCK_BOOTTIME.now().map(Duration::from).unwrap_or_default()
}

/// CLOCK_MONOTONIC in microseconds: comparable between processes of one machine.
#[must_use]
pub fn monotonic_us() -> u64 {
    let now = nix::time::ClockId::CLOCK_MONOTONIC.now().map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

impl Shared {
    /// Asks the main thread.
    pub fn command(&self, command: Command) {
        // The main thread outlives all others; if it is ending, nothing needs doing any more.
        let _ = lock(&self.commands).send(command);
        let _ = self.wake.write(1);
    }

    /// The pod as it is.
    #[must_use]
    pub fn status(&self) -> Status {
        let engine = pump::lock(&self.engine);
        let peers = engine.counters().map(|(ip, counters, handshake_age_s)| PeerStatus {
            ip,
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            forged: counters.forged,
            rejected: counters.rejected,
            handshake_age_s,
        });
        let peers = peers.collect();
        drop(engine);
        let output_bytes = lock(&self.output).end();
        let view = lock(&self.view);
        Status {
            pod: self.spec.pod,
            lease: self.spec.lease,
            fence: self.spec.fence,
            supervisor_pid: own_pid(),
            pod_pid: self.pod_pid,
            state: view.state.clone(),
            wg_public: Digest(self.wg_public),
            endpoint: self.endpoint,
            overlay_ip: self.spec.overlay.ip,
            limits: self.limits.clone(),
            ends_at: view.ends_at,
            usage: view.usage,
            output_bytes,
            peers,
        }
    }
}

/// This process.
pub(crate) fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("Linux pids fit in an i32")
}

//! The real machine: a state folder, and a supervisor for each pod.
//!
//! `pods.json` holds the records, `pods/POD` a pod (see [`crate::supervisor`]), `worker.sock` is where supervisors bring
//! their pods' store connections.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;
use atoll_overlay::SignedStatement;
use tokio::net::UnixListener;

use super::{ByteStream, Found, FoundState, Host, Output, Over, Standing};
use crate::config::SOCKET_FILE;
use crate::streams;
use crate::supervisor::client::{self, Pod};
use crate::supervisor::protocol::{Exit, Reason, State, Verdict};
use crate::supervisor::spec::{AuthorisedKey, PodSpec};
use crate::supervisor::{output, usage};
use crate::world::store::{Records, StoreError};

/// Bytes of a pod's output read at once when its supervisor has gone.
const OUTPUT_BYTES: usize = 16 << 10;

/// A state folder, the program that has the hidden roles, and the socket for pods.
#[derive(Debug)]
pub struct Machine {
    state: PathBuf,
    executable: PathBuf,
    callers: UnixListener,
}

impl Machine {
    /// Opens the socket in `state` (absolute); `executable` has the hidden roles ([`crate::roles`]).
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn open(state: PathBuf, executable: PathBuf) -> io::Result<Self> {
        let callers = streams::listen(&state.join(SOCKET_FILE))?;
        Ok(Self { state, executable, callers })
    }

    fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    fn dir(&self, pod: PodId) -> PathBuf {
        self.pods().join(pod.to_string())
    }

    fn pod(&self, pod: PodId) -> Pod {
        Pod::at(&self.dir(pod))
    }

    async fn look(&self, pod: PodId) -> FoundState {
        let dir = self.dir(pod);
        match client::attach_or_kill(&dir).await {
            Some(status) => match status.state {
                State::Ready => FoundState::Ready,
                State::Running => FoundState::Running,
                State::Exited(exit) => found_over(&exit),
            },
            None => match Pod::exit_of(&dir) {
                Some(exit) => found_over(&exit),
                None => FoundState::Ended { code: None, reason: "its supervisor is gone".to_owned() },
            },
        }
    }
}

#[async_trait]
impl Host for Machine {
    async fn load(&self) -> Result<Records, StoreError> {
        Records::load(&self.state)
    }

    async fn save(&self, records: &Records) -> Result<(), StoreError> {
        records.save(&self.state)
    }

    async fn take_up(&self, known: &BTreeSet<PodId>) -> Result<Vec<Found>> {
        let pods = self.pods();
        fs::create_dir_all(&pods).with_context(|| format!("make {}", pods.display()))?;
        let killed = client::kill_orphans(&pods, known).await?;
        if !killed.is_empty() {
            tracing::warn!(pods = ?killed, "ended pods that this worker has no record of");
        }
        let mut found = vec![];
        for entry in fs::read_dir(&pods).with_context(|| format!("read {}", pods.display()))? {
            let entry = entry?;
            let Some(pod) = entry.file_name().to_str().and_then(|name| name.parse::<PodId>().ok()) else { continue };
            found.push(Found { pod, now: self.look(pod).await });
        }
        Ok(found)
    }

    async fn prepare(&self, spec: &PodSpec) -> Result<Standing> {
        let dir = self.dir(spec.pod);
        let (folder, spec) = (dir.clone(), spec.clone());
        tokio::task::spawn_blocking(move || client::prepare(&folder, &spec)).await??;
        let (_, status) = Pod::spawn(&self.executable, &dir).await?;
        Ok(Standing { wg_public: status.wg_public.0, endpoint: status.endpoint })
    }

    async fn roster(
        &self,
        pod: PodId,
        members: &[SignedStatement],
        authorised: Vec<AuthorisedKey>,
    ) -> Result<Vec<Verdict>> {
        self.pod(pod).roster(members, Some(authorised)).await
    }

    async fn run(&self, pod: PodId, env: BTreeMap<String, String>) -> Result<()> {
        self.pod(pod).run(None, env).await
    }

    async fn extend(&self, pod: PodId, ends_at: UnixMs) -> Result<()> {
        self.pod(pod).extend(ends_at).await
    }

    async fn stop(&self, pod: PodId, term: Duration) -> Result<Over> {
        let stopped = self.pod(pod).stop(term).await.map(over);
        if stopped.is_err() {
            // Whoever is told that it is over must be right: a supervisor that hangs is killed, and the pod dies with it.
            client::kill_supervisors(&self.dir(pod)).await?;
        }
        stopped
    }

    async fn wait(&self, pod: PodId, patience: Duration) -> Result<Option<Over>> {
        Ok(self.pod(pod).wait(patience).await?.map(over))
    }

    async fn discard(&self, pod: PodId) -> io::Result<()> {
        let dir = self.dir(pod);
        tokio::task::spawn_blocking(move || client::discard(&dir)).await.map_err(io::Error::other)?
    }

    async fn usage(&self, pod: PodId, from: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        read_from(&self.dir(pod).join(usage::FILE), from, bytes_max)
    }

    async fn dial(&self, pod: PodId, port: u16) -> Result<Box<dyn ByteStream>> {
        Ok(Box::new(self.pod(pod).dial(port).await?))
    }

    async fn output(&self, pod: PodId, from: u64) -> io::Result<Output> {
        let kept = self.pod(pod);
        if kept.exit().is_none()
            && let Ok((begins, bytes)) = kept.output(from, true).await
        {
            return Ok(Output { begins, bytes: Box::new(bytes) });
        }
        // Its supervisor has gone, or is about to: the files say the same.
        let dir = self.dir(pod);
        let read = move || {
            let mut chunk = vec![0; OUTPUT_BYTES];
            output::read(&dir, from, &mut chunk).map(|(begins, count)| {
                chunk.truncate(count);
                (begins, chunk)
            })
        };
        let (begins, chunk) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        Ok(Output { begins, bytes: Box::new(io::Cursor::new(chunk)) })
    }

    async fn accept(&self) -> io::Result<Box<dyn ByteStream>> {
        let (stream, _) = self.callers.accept().await?;
        if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else's process called"));
        }
        Ok(Box::new(stream))
    }
}

/// At most `bytes_max` bytes of a file that only grows.
fn read_from(path: &Path, from: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.len() < from {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = vec![];
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn over(exit: Exit) -> Over {
    Over { code: own_status(&exit), reason: exit.message }
}

fn found_over(exit: &Exit) -> FoundState {
    FoundState::Ended { code: own_status(exit), reason: exit.message.clone() }
}

/// The status of a program that ended by itself; what a program says that was told to end is of no interest.
fn own_status(exit: &Exit) -> Option<i32> {
    exit.code.filter(|_| exit.reason == Reason::Exited)
}

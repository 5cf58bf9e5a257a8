//! The worker's way to its supervisors: start one, find one again, ask it things. Asynchronous; holds no state but a path.
//!
//! When a supervisor is gone, `exit.json` and the spools in the pod's directory say the same as it would have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;
use atoll_overlay::SignedStatement;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::protocol::{
    Answer, EXIT_FILE, Exit, KEEPER_FILE, Keeper, LINE_BYTES_MAX, Request, SOCKET_FILE, Status, Verdict,
};
use super::spec::{self, AuthorisedKey, PodSpec};
use super::streams::connect_unix;
use super::usage::{self, Record};
use crate::runtime::{cgroup, disk, procs};

/// Init's 20 s, and some for a loaded machine.
const START: Duration = Duration::from_secs(30);

/// For everything that answers at once.
const ANSWER: Duration = Duration::from_secs(40);

/// For a process to become the program it was started as; a cold disk is the slow part.
const BEGIN: Duration = Duration::from_secs(2);

/// Where a supervisor's own complaints go, in the pod's directory.
pub const LOG_FILE: &str = "supervisor.log";

/// One pod's supervisor, by its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    dir: PathBuf,
}

/// Makes a pod's directory (0700) with its `pod.json` (0600).
///
/// # Errors
/// The specification is not acceptable, or the directory exists.
pub fn prepare(dir: &Path, spec: &PodSpec) -> Result<()> {
    spec.check()?;
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::create_dir(dir).with_context(|| format!("make {}: a directory serves one pod once", dir.display()))?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(spec::FILE))?;
    file.write_all(&serde_json::to_vec_pretty(spec)?)?;
    file.sync_data()?;
    Ok(())
}

impl Pod {
    /// Starts a supervisor for a prepared directory; returns when the pod's network stands. The supervisor makes itself a
    /// session of its own and outlives the caller.
    ///
    /// # Errors
    /// What the supervisor says went wrong.
    pub async fn spawn(executable: &Path, dir: &Path) -> Result<(Self, Status)> {
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(LOG_FILE))?;
        let mut command = tokio::process::Command::new(executable);
        command.arg(crate::roles::SUPERVISOR).arg("--dir").arg(dir).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(false);
        let mut child = command.spawn().with_context(|| format!("start {}", executable.display()))?;
        let stdout = child.stdout.take().context("the supervisor has an output")?;
        let answer =
            timeout(START, read_line(BufReader::new(stdout))).await.context("the supervisor says nothing")??;
        match answer.1 {
            Answer::Status(status) => Ok((Self { dir: dir.to_owned() }, *status)),
            Answer::Refused { message } => bail!("{message}"),
            other => bail!("the supervisor answered {other:?}"),
        }
    }

    /// The pod of a directory, whether or not its supervisor still lives.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Finds the supervisor of a directory again.
    ///
    /// # Errors
    /// None is there; [`Pod::exit_of`] may say how it ended.
    pub async fn attach(dir: &Path) -> Result<(Self, Status)> {
        let pod = Self { dir: dir.to_owned() };
        let status = pod.status().await?;
        Ok((pod, status))
    }

    /// The pod's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// # Errors
    /// The supervisor is gone.
    pub async fn status(&self) -> Result<Status> {
        match self.ask(&Request::Status {}, ANSWER).await?.1 {
            Answer::Status(status) => Ok(*status),
            other => unexpected(&other),
        }
    }

    /// Tells the members of the cluster, and the keys that may sign if they changed. One verdict for each member.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn roster(
        &self,
        members: &[SignedStatement],
        authorised: Option<Vec<AuthorisedKey>>,
    ) -> Result<Vec<Verdict>> {
        let hex = |signed: &SignedStatement| signed.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = Request::Roster { members: members.iter().map(hex).collect(), authorised };
        match self.ask(&request, ANSWER).await?.1 {
            Answer::Roster { verdicts } => Ok(verdicts),
            other => unexpected(&other),
        }
    }

    /// Starts the tenant's program; `argv` instead of `pod.json`'s, `env` in addition to it.
    ///
    /// # Errors
    /// It could not be started, or was before.
    pub async fn run(&self, argv: Option<Vec<String>>, env: BTreeMap<String, String>) -> Result<()> {
        self.done(&Request::Run { argv, env }).await
    }

    /// A byte stream to a TCP port on the pod's own overlay address.
    ///
    /// # Errors
    /// Nothing listens there.
    pub async fn dial(&self, port: u16) -> Result<BufReader<UnixStream>> {
        match self.ask(&Request::Dial { port }, ANSWER).await? {
            (stream, Answer::Done) => Ok(stream),
            (_, other) => unexpected(&other),
        }
    }

    /// The pod's output, and the offset where it begins (later than asked when older output was dropped). With `follow` it
    /// ends when the pod's output has ended; earlier only when the reader was so slow that output was dropped: ask again.
    ///
    /// # Errors
    /// The supervisor is gone: [`super::output::read`] then reads the same.
    pub async fn output(&self, offset: u64, follow: bool) -> Result<(u64, BufReader<UnixStream>)> {
        match self.ask(&Request::Output { offset, follow }, ANSWER).await? {
            (stream, Answer::Output { offset }) => Ok((offset, stream)),
            (_, other) => unexpected(&other),
        }
    }

    /// Usage records after a number, at most a few thousand; from the file when the supervisor is gone.
    ///
    /// # Errors
    /// There is no usage spool.
    pub async fn usage(&self, after_seq: u64) -> Result<Vec<Record>> {
        match self.ask(&Request::Usage { after_seq }, ANSWER).await {
            Ok((_, Answer::Usage { records })) => Ok(records),
            Ok((_, other)) => unexpected(&other),
            Err(_) => Ok(usage::read(&self.dir, after_seq, 3_000)?),
        }
    }

    /// Moves the end of the lease.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn extend(&self, ends_at: UnixMs) -> Result<()> {
        self.done(&Request::Extend { ends_at }).await
    }

    /// Asks the program to end, kills the pod after `term`, and waits for the end.
    ///
    /// # Errors
    /// It did not end; it should be killed by [`kill_orphans`].
    pub async fn stop(&self, term: Duration) -> Result<Exit> {
        let term_ms = u64::try_from(term.as_millis())?;
        if let Err(error) = self.done(&Request::Stop { term_ms }).await {
            // Ended meanwhile is as good as stopped.
            return self.exit().ok_or(error);
        }
        self.wait(term + Duration::from_secs(15)).await?.context("the pod did not end in time")
    }

    /// Waits for the end of the pod; none when it still runs after `patience`.
    ///
    /// # Errors
    /// The supervisor is gone without having written how the pod ended.
    pub async fn wait(&self, patience: Duration) -> Result<Option<Exit>> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(exit) = self.exit() {
                return Ok(Some(exit));
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout_ms = u64::try_from(left.as_millis())?.min(60_000);
            match self.ask(&Request::Wait { timeout_ms }, left + ANSWER).await {
                Ok(_) => {}
                Err(error) if self.exit().is_none() => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// How the pod ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        Self::exit_of(&self.dir)
    }

    /// How the pod of a directory ended, if it has.
    #[must_use]
    pub fn exit_of(dir: &Path) -> Option<Exit> {
        serde_json::from_slice(&fs::read(dir.join(EXIT_FILE)).ok()?).ok()
    }

    async fn done(&self, request: &Request) -> Result<()> {
        match self.ask(request, ANSWER).await?.1 {
            Answer::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    async fn ask(&self, request: &Request, patience: Duration) -> Result<(BufReader<UnixStream>, Answer)> {
        let path = self.dir.join(SOCKET_FILE);
        let stream = connect_unix(&path).with_context(|| format!("no supervisor at {}", path.display()))?;
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        ensure!(line.len() <= LINE_BYTES_MAX, "the request is longer than {LINE_BYTES_MAX} bytes");
        let exchange = async {
            stream.write_all(&line).await?;
            read_line(BufReader::new(stream)).await
        };
        timeout(patience, exchange).await.context("the supervisor does not answer")?
    }
}

/// One line of answer; what came after it stays in the reader.
async fn read_line<R: tokio::io::AsyncRead + Unpin>(mut reader: BufReader<R>) -> Result<(BufReader<R>, Answer)> {
    let mut line = Vec::new();
    // Bounded by the supervisor being our own program; a longer line is none.
    (&mut reader).take(2 * LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    ensure!(line.ends_with(b"\n"), "the supervisor hung up");
    Ok((reader, serde_json::from_slice(&line)?))
}

fn unexpected<T>(answer: &Answer) -> Result<T> {
    match answer {
        Answer::Refused { message } => bail!("{message}"),
        other => bail!("the supervisor answered {other:?}"),
    }
}

/// Ends every pod below `pods` that is not allowed to be: a restarted worker calls it with the pods that leases cover.
/// Answers those that were ended.
///
/// # Errors
/// The folder cannot be read.
pub async fn kill_orphans(pods: &Path, allowed: &BTreeSet<PodId>) -> Result<Vec<PodId>> {
    let mut killed = Vec::new();
    let entries = match fs::read_dir(pods) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(killed),
        entries => entries?,
    };
    for entry in entries.flatten() {
        let dir = entry.path();
        let Some(keeper) = keeper_of(&dir) else { continue };
        if !is_alive(&keeper) {
            sweep(&dir);
            continue;
        }
        if allowed.contains(&keeper.pod) {
            continue;
        }
        let pod = Pod { dir: dir.clone() };
        if pod.stop(Duration::ZERO).await.is_err() && is_alive(&keeper) {
            // The pod dies with its supervisor.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper.pid), nix::sys::signal::Signal::SIGKILL);
        }
        let deadline = tokio::time::Instant::now() + START;
        while is_alive(&keeper) {
            ensure!(tokio::time::Instant::now() < deadline, "supervisor {} does not die", keeper.pid);
            sleep(Duration::from_millis(10)).await;
        }
        sweep(&dir);
        killed.push(keeper.pod);
    }
    Ok(killed)
}

/// Finds the pod of a directory again after its worker came back. A supervisor that is still making its pod is waited
/// for; one that runs and does not answer in time is killed, and its pod with it, so that none is left that nobody keeps.
pub async fn attach_or_kill(dir: &Path) -> Option<Status> {
    let deadline = tokio::time::Instant::now() + START;
    loop {
        if let Ok((_, status)) = Pod::attach(dir).await {
            return Some(status);
        }
        if Pod::exit_of(dir).is_some() {
            return None;
        }
        if supervisors_begun(dir).await.is_empty() {
            return None;
        }
        if tokio::time::Instant::now() >= deadline {
            if let Err(error) = kill_supervisors(dir).await {
                tracing::error!(dir = %dir.display(), reason = %error, "a pod goes on that nobody keeps");
            }
            return None;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Kills whatever keeps the pod of a directory; the pod dies with it. Returns when it is gone.
///
/// # Errors
/// It does not die.
pub async fn kill_supervisors(dir: &Path) -> Result<()> {
    let deadline = tokio::time::Instant::now() + START;
    loop {
        let supervisors = supervisors_begun(dir).await;
        if supervisors.is_empty() {
            sweep(dir);
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "supervisors {supervisors:?} do not die");
        for pid in supervisors {
            // It may have ended in between; that is what is wanted.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that were started to keep the pod of a directory. Whatever is only becoming a program is waited for, since
/// it may be one; not for long, since a tenant may hide its command line for ever.
async fn supervisors_begun(dir: &Path) -> Vec<i32> {
    let own = nix::unistd::geteuid().as_raw();
    let deadline = tokio::time::Instant::now() + BEGIN;
    loop {
        // In this order: what began meanwhile is found.
        let some_begin = procs::of_user(own).into_iter().any(procs::is_beginning);
        let found = supervisors_of(dir);
        if !found.is_empty() || !some_begin || tokio::time::Instant::now() >= deadline {
            return found;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// The processes that were started to keep the pod of a directory, whatever they have come to: one that has just begun
/// has no file yet that names it.
fn supervisors_of(dir: &Path) -> Vec<i32> {
    let wanted = format!(" {} --dir {}", crate::roles::SUPERVISOR, dir.display());
    // Of our own user only: a tenant may call its processes what it likes.
    let own = nix::unistd::geteuid().as_raw();
    procs::of_user(own).into_iter().filter(|pid| procs::command_line(*pid).ends_with(&wanted)).collect()
}

/// Deletes what is left of a pod that is over, its cgroup included.
///
/// # Errors
/// What the file system refused.
pub fn discard(dir: &Path) -> std::io::Result<()> {
    sweep(dir);
    disk::remove(dir)
}

/// Removes what a supervisor that was killed could not: the pod's cgroup. Harmless for one that ended in order.
pub fn sweep(dir: &Path) {
    if let Ok(spec) = PodSpec::read(dir)
        && let Ok(place) = cgroup::find(spec.cgroup.as_deref())
    {
        let cgroup = cgroup::Cgroup::named(&place, &super::keeper::cgroup_name(spec.pod));
        cgroup.kill();
        cgroup.remove();
    }
}

/// Every pod below a folder that a supervisor still keeps: what a restarted worker attaches to.
#[must_use]
pub fn survey(pods: &Path) -> Vec<(PathBuf, Keeper)> {
    let dirs = fs::read_dir(pods).into_iter().flatten().flatten().map(|entry| entry.path());
    dirs.filter_map(|dir| keeper_of(&dir).filter(is_alive).map(|keeper| (dir, keeper))).collect()
}

/// Who keeps, or kept, the pod of a directory.
#[must_use]
pub fn keeper_of(dir: &Path) -> Option<Keeper> {
    serde_json::from_slice(&fs::read(dir.join(KEEPER_FILE)).ok()?).ok()
}

/// Whether that very supervisor still runs: its pid may have gone to somebody else, its start time has not. A zombie that
/// its parent has not buried yet is not running.
#[must_use]
pub fn is_alive(keeper: &Keeper) -> bool {
    procs::stat(keeper.pid).is_some_and(|stat| stat.started_ticks == keeper.started_ticks && !stat.is_zombie)
}

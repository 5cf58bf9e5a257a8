//! Children of `atoll dev`: processes of this same executable that die with it.
//!
//! Each gets SIGKILL when this process dies (parent-death signal, tied to the main thread, which makes them all), its own
//! log file, and an environment of a few names. This process is also the *subreaper* of what its children leave behind: a
//! pod's supervisor outlives its worker on purpose, then belongs to us, and is stopped at the end.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use super::layout::Layout;

/// What children see of the environment.
const ENVIRONMENT: [&str; 6] = ["PATH", "HOME", "LANG", "RUST_LOG", "RUST_BACKTRACE", "TMPDIR"];
/// How long a child may take to stop when asked.
const STOP_MAX: Duration = Duration::from_secs(12);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running child.
#[derive(Debug)]
pub(super) struct Part {
    /// Its role: `chain`, `server`, `worker-1` …
    pub name: String,
    /// Its arguments, for starting it again.
    pub arguments: Vec<String>,
    /// The process.
    pub child: Child,
}

impl Part {
    /// Its process id; none once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

/// Makes this process the parent of whatever its children leave behind.
pub(super) fn become_subreaper() -> anyhow::Result<()> {
    // SAFETY: prctl with constants; no memory is handed over.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } != 0 {
        return Err(io::Error::last_os_error()).context("becoming the parent of orphans");
    }
    Ok(())
}

fn command(arguments: &[String]) -> anyhow::Result<Command> {
    let executable = std::env::current_exe().context("finding this executable")?;
    let mut command = Command::new(executable);
    command.args(arguments).env_clear().stdin(Stdio::null());
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec and calls only async-signal-safe functions.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the signal was set.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            // Ctrl-c on the terminal is ours to pass on, in order.
            if libc::setpgid(0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(command)
}

fn log_file(layout: &Layout, name: &str) -> anyhow::Result<(PathBuf, std::fs::File)> {
    let path = layout.path("logs").join(format!("{name}.log"));
    let file = OpenOptions::new().create(true).append(true).open(&path);
    Ok((path.clone(), file.with_context(|| format!("opening {}", path.display()))?))
}

/// Starts a part that goes on running.
pub(super) fn start(layout: &Layout, name: &str, arguments: Vec<String>) -> anyhow::Result<Part> {
    let (_, log) = log_file(layout, name)?;
    let again = log.try_clone().context("opening the log twice")?;
    let child = command(&arguments)?.stdout(log).stderr(again).spawn().with_context(|| format!("starting {name}"))?;
    Ok(Part { name: name.to_owned(), arguments, child })
}

/// Runs a command of this executable to its end; its stdout.
pub(super) async fn once(layout: &Layout, name: &str, arguments: Vec<String>) -> anyhow::Result<String> {
    let (path, log) = log_file(layout, name)?;
    let output = command(&arguments)?.stderr(log).stdout(Stdio::piped()).output().await;
    let output = output.with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, last_lines(&path));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no text"))
}

/// The end of a log, for an error message.
pub(super) fn last_lines(path: &std::path::Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    let tail: Vec<&str> = lines.into_iter().rev().collect();
    format!("{}\n(whole log: {})", tail.join("\n"), path.display())
}

/// Waits until `look` finds something, while `part` lives.
pub(super) async fn wait_for<T, F>(
    layout: &Layout,
    part: &mut Part,
    what: &str,
    most: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let since = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        let log = layout.path("logs").join(format!("{}.log", part.name));
        if let Some(status) = part.child.try_wait().context("looking at a child")? {
            bail!("{} ended ({status}) before {what}: {}", part.name, last_lines(&log));
        }
        if since.elapsed() > most {
            bail!("{} did not reach {what} within {most:?}: {}", part.name, last_lines(&log));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn signal(pid: u32, signal: i32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    // SAFETY: kill takes no memory. The pid is of an unreaped child, so it names nobody else; a failure means that it is
    // gone already.
    let _ = unsafe { libc::kill(pid, signal) };
}

/// Asks parts to stop, all at once, and waits; what does not stop is killed.
pub(super) async fn stop(parts: &mut [Part]) {
    for part in parts.iter() {
        if let Some(pid) = part.pid() {
            signal(pid, libc::SIGTERM);
        }
    }
    let deadline = tokio::time::Instant::now() + STOP_MAX;
    for part in parts {
        if tokio::time::timeout_at(deadline, part.child.wait()).await.is_err() {
            // An error means that it has ended meanwhile.
            let _ = part.child.start_kill();
            let _ = part.child.wait().await;
        }
    }
}

/// Processes whose parent is this one, and whether each has ended, from /proc.
fn children() -> Vec<(u32, bool)> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // "pid (name) state parent …": the name may hold anything, so read from the last bracket.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next(), fields.next());
        if parent == Some(me.as_str()) {
            found.push((pid, state == Some("Z")));
        }
    }
    found
}

/// Buries orphans that have ended. Parts are left to their own waiters.
pub(super) fn reap(parts: &[Part]) {
    for (pid, ended) in children() {
        if ended && !parts.iter().any(|part| part.pid() == Some(pid)) {
            bury(pid);
        }
    }
}

fn bury(pid: u32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    let mut status = 0;
    // SAFETY: the status outlives the call; WNOHANG keeps it from blocking.
    let _ = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
}

/// Stops every orphan that came to us: supervisors of pods whose worker is gone. `parts` are no orphans. Returns how many
/// there were.
pub(super) async fn stop_orphans(parts: &[Part]) -> usize {
    let since = Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let mut all = children();
        all.retain(|&(pid, _)| !parts.iter().any(|part| part.pid() == Some(pid)));
        for &(pid, ended) in &all {
            if ended {
                bury(pid);
            } else {
                let first = seen.insert(pid);
                if first {
                    signal(pid, libc::SIGTERM);
                } else if since.elapsed() > STOP_MAX / 2 {
                    signal(pid, libc::SIGKILL);
                }
            }
        }
        if all.iter().all(|&(_, ended)| ended) || since.elapsed() > STOP_MAX {
            return seen.len();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

//! Processes of this machine, from /proc.

use std::fs;
use std::path::Path;

/// A process; the start time tells it from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    parent: u32,
    started_ticks: u64,
}

impl Process {
    /// The process with a pid; none when it has ended, buried or not.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "pid (name) state parent …": the name may hold anything, so read from the last bracket.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ended = matches!(*fields.first()?, "Z" | "X");
        let found = Self { pid, parent: fields.get(1)?.parse().ok()?, started_ticks: fields.get(19)?.parse().ok()? };
        (!ended).then_some(found)
    }

    /// Whether this very process still runs.
    pub(crate) fn runs(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started_ticks == self.started_ticks)
    }

    pub(crate) fn children(&self) -> Vec<Self> {
        let mut children: Vec<Self> = all().into_iter().filter(|one| one.parent == self.pid).collect();
        children.sort();
        children
    }

    pub(crate) fn signal(&self, signal: i32) {
        let Ok(pid) = i32::try_from(self.pid) else { return };
        if self.runs() {
            // SAFETY: kill takes two integers; one that has just ended is not an error here.
            unsafe { libc::kill(pid, signal) };
        }
    }
}

/// A process's children, theirs, and so on.
pub(crate) fn below(top: &Process) -> Vec<Process> {
    let mut found = top.children();
    let mut at = 0;
    while at < found.len() {
        found.extend(found[at].children());
        at += 1;
    }
    found
}

fn all() -> Vec<Process> {
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    fs::read_dir("/proc").unwrap().flatten().filter_map(pid).filter_map(Process::of).collect()
}

/// Processes whose command line names a path, and everything below them. This process is never among them.
pub(crate) fn of_folder(path: &Path) -> Vec<Process> {
    let path = path.to_str().unwrap().as_bytes();
    let all = all();
    let names = |one: &&Process| {
        let line = fs::read(format!("/proc/{}/cmdline", one.pid)).unwrap_or_default();
        one.pid != std::process::id() && line.windows(path.len()).any(|part| part == path)
    };
    let mut found: Vec<Process> = all.iter().filter(names).copied().collect();
    let mut at = 0;
    while at < found.len() {
        let parent = found[at].pid;
        let below = all.iter().filter(|one| one.parent == parent);
        let new: Vec<Process> = below.filter(|one| !found.contains(one)).copied().collect();
        found.extend(new);
        at += 1;
    }
    found
}

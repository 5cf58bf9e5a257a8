//! Reading /proc: who descends from whom, since when, with how much CPU time and memory.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What /proc/PID/stat says, as far as it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// It has ended and only waits for its parent to notice.
    pub is_zombie: bool,
    pub parent: i32,
    /// CPU time of the process and of the children it has waited for, in clock ticks.
    pub cpu_ticks: u64,
    /// Start, in clock ticks since boot: with the pid it names a process for good.
    pub started_ticks: u64,
    /// Address space in bytes; only threads of the kernel have none.
    pub space_bytes: u64,
    /// Resident memory in pages, as far as it is counted at once: a new process may have none.
    pub resident_pages: u64,
}

/// Reads one process; `None` when it is gone.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    // The name may contain anything, ')' included; the numbers begin after the last one.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // Field 3 (state) is fields[0].
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let cpu_ticks = (14..=17).filter_map(number).sum();
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        cpu_ticks,
        started_ticks: number(22)?,
        space_bytes: number(23)?,
        resident_pages: number(24)?,
    })
}

/// Every process of this host that may be seen.
pub fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes below `root`, without it.
#[must_use]
pub fn descendants(root: i32) -> Vec<(i32, Stat)> {
    let mut children: HashMap<i32, Vec<(i32, Stat)>> = HashMap::new();
    for pid in all() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push((pid, stat));
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child.0);
            found.push(child);
        }
    }
    found
}

/// The processes that run as `uid`. One that has ended and only waits for its parent to notice does not run.
#[must_use]
pub fn of_user(uid: u32) -> Vec<i32> {
    let owned = |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == uid);
    all().filter(|pid| owned(pid) && stat(*pid).is_some_and(|stat| !stat.is_zombie)).collect()
}

/// Whether a process is just becoming a program: the kernel lets its parent go on before it has written the command line.
/// Threads of the kernel have none either, and no memory.
#[must_use]
pub fn is_beginning(pid: i32) -> bool {
    command_line(pid).is_empty() && stat(pid).is_some_and(|stat| !stat.is_zombie && stat.space_bytes > 0)
}

/// The command line of a process, words separated by spaces; empty when it is gone or has not quite begun.
#[must_use]
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// Resident memory of a process in bytes, from /proc/PID/status; `None` when it is gone.
#[must_use]
pub fn resident_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) R 1) S 3 7 7 0 -1 0 1 2 3 4 10 20 30 40 20 0 1 0 555 9999 12 18446744073709551615";
        let stat = parse(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                is_zombie: false,
                parent: 3,
                cpu_ticks: 100,
                started_ticks: 555,
                space_bytes: 9999,
                resident_pages: 12
            }
        );
        assert_eq!(parse("7 (cut) S 3"), None);
        assert!(parse(&line.replace(" S ", " Z ")).unwrap().is_zombie);
    }

    /// About half of these are looked at before their command line is there, and none may be taken for gone.
    #[test]
    fn a_process_that_has_just_been_started_runs_or_begins() {
        let uid = nix::unistd::geteuid().as_raw();
        for _ in 0..50 {
            let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            // In this order: what begins at the first look may have begun at the second.
            let seen = is_beginning(pid) || command_line(pid) == "/bin/sleep 60";
            let counted = of_user(uid).contains(&pid);
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(seen && counted);
        }
    }

    #[test]
    fn a_child_is_found_below_its_parent() {
        let mut child = std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(descendants(own).iter().any(|(found, _)| *found == pid));
        assert!(resident_bytes(own).unwrap() > 100_000);
        drop(child.stdin.take());
        let ended = || stat(pid).is_some_and(|stat| stat.is_zombie);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !ended() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(ended() && !is_beginning(pid), "a zombie neither runs nor begins");
        child.wait().unwrap();
        assert!(stat(pid).is_none());
    }
}

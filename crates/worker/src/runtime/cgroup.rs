//! Memory, CPU and process limits by cgroup, version 1 and 2, where root or a delegation lets us make one.
//!
//! Where it does not, limits are [`Limits::Weak`]: only per-process rlimits and tmpfs sizes hold, and the worker is not for
//! strangers. Says so rather than pretending; who refuses such a worker is placement's business.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::supervisor::spec::LimitSpec;

/// bubblewrap's monitor, its process 1 and the door count too.
const OWN_PIDS: u64 = 3;

/// The period over which CPU time is dealt out: the kernel's default of 100 ms.
const CPU_PERIOD_US: u64 = 100_000;

const V1_CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// How strong a pod's limits are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Limits {
    /// Enforced by the kernel for the pod as a whole.
    Strong {
        /// 1 or 2.
        cgroup_version: u8,
    },
    /// Per process only.
    Weak {
        /// What stands in the way.
        why: String,
    },
}

/// Where cgroups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One directory with all controllers.
    V2(PathBuf),
    /// One directory for each controller; cpu and cpuacct may be the same.
    V1(Vec<(&'static str, PathBuf)>),
}

/// What a pod has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub cpu_ms: u64,
    pub memory_bytes: u64,
    /// Processes killed because the memory limit was reached.
    pub oom_kills: u64,
}

/// One pod's cgroup; removed by [`Cgroup::remove`].
#[derive(Debug)]
pub struct Cgroup {
    version: u8,
    /// Controller name (empty for version 2) and directory.
    dirs: Vec<(&'static str, PathBuf)>,
}

/// Finds the place below this process's own cgroup, or below `wanted`.
///
/// # Errors
/// No cgroups with memory, cpu and pids are mounted.
pub fn find(wanted: Option<&Path>) -> Result<Place> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let place = locate(&own, &mounts).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "no cgroup with the controllers memory, cpu and pids is mounted")
    })?;
    Ok(match (place, wanted) {
        (place, None) => place,
        (Place::V2(_), Some(path)) => Place::V2(path.to_owned()),
        (Place::V1(dirs), Some(name)) => {
            let below = |(controller, dir): (&'static str, PathBuf)| {
                (controller, dir.join(name.strip_prefix("/").unwrap_or(name)))
            };
            Place::V1(dirs.into_iter().map(below).collect())
        }
    })
}

/// How strong the limits of pods here will be, found out by making a cgroup and removing it again.
#[must_use]
pub fn probe(wanted: Option<&Path>, limits: &LimitSpec) -> Limits {
    let name = format!("atoll-probe-{}", std::process::id());
    let made = find(wanted).and_then(|place| Cgroup::create(&place, &name, limits));
    made.map_or_else(
        |error| Limits::Weak { why: error.to_string() },
        |cgroup| {
            cgroup.remove();
            Limits::Strong { cgroup_version: cgroup.version }
        },
    )
}

/// Pure: from /proc/self/cgroup and /proc/self/mountinfo to directories. Version 1 wins where both are mounted and it
/// holds the memory controller (a hybrid host).
fn locate(own: &str, mounts: &str) -> Option<Place> {
    let path_of = |controller: &str| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let names = parts.next()?;
            names.split(',').any(|name| name == controller).then_some(parts.next()?)
        })
    };
    let mount_of = |kind: &str, controller: &str| {
        mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            let options = (after.next()? == kind).then(|| after.nth(1)).flatten()?;
            let matches = controller.is_empty() || options.split(',').any(|option| option == controller);
            let mut before = before.split(' ').skip(3);
            matches.then(|| Some((before.next()?, before.next()?))).flatten()
        })
    };
    let directory = |kind: &str, controller: &str| {
        let (root, point) = mount_of(kind, controller)?;
        let below = Path::new(path_of(controller)?);
        Some(Path::new(point).join(below.strip_prefix(root).unwrap_or_else(|_| Path::new(""))))
    };
    let v1 = V1_CONTROLLERS.iter().map(|name| Some((*name, directory("cgroup", name)?))).collect::<Option<Vec<_>>>();
    v1.map(Place::V1).or_else(|| directory("cgroup2", "").map(Place::V2))
}

impl Cgroup {
    /// Makes a cgroup with these limits.
    ///
    /// # Errors
    /// Not allowed here, or a controller is missing; nothing is left behind.
    pub fn create(place: &Place, name: &str, limits: &LimitSpec) -> Result<Self> {
        if let Place::V2(parent) = place {
            enable(parent)?;
        }
        let cgroup = Self::named(place, name);
        match cgroup.make(limits) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                cgroup.remove();
                Err(error)
            }
        }
    }

    /// The cgroup of this name, whether it exists or not.
    #[must_use]
    pub fn named(place: &Place, name: &str) -> Self {
        match place {
            Place::V2(parent) => Self { version: 2, dirs: vec![("", parent.join(name))] },
            Place::V1(parents) => {
                let dirs = parents.iter().map(|(controller, parent)| (*controller, parent.join(name))).collect();
                Self { version: 1, dirs }
            }
        }
    }

    fn make(&self, limits: &LimitSpec) -> Result<()> {
        for (_, dir) in &self.dirs {
            // cpu and cpuacct may be one hierarchy.
            fs::create_dir_all(dir).map_err(|error| told(&error, "make", dir))?;
        }
        let quota = limits.cpu_milli * CPU_PERIOD_US / 1000;
        let pids = (limits.pids + OWN_PIDS).to_string();
        let memory = limits.memory_bytes.to_string();
        if self.version == 2 {
            self.write("", "memory.max", &memory)?;
            self.write_if_there("", "memory.swap.max", "0")?;
            self.write_if_there("", "memory.oom.group", "0")?;
            self.write("", "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
            return self.write("", "pids.max", &pids);
        }
        self.write("memory", "memory.limit_in_bytes", &memory)?;
        self.write_if_there("memory", "memory.memsw.limit_in_bytes", &memory)?;
        self.write("cpu", "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
        self.write("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
        self.write("pids", "pids.max", &pids)
    }

    /// Version 1 or 2.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Puts a process in, with all it will start.
    ///
    /// # Errors
    /// The process is gone, or the directory is not ours.
    pub fn attach(&self, pid: i32) -> Result<()> {
        for (_, dir) in &self.dirs {
            let file = dir.join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(|error| told(&error, "write", &file))?;
        }
        Ok(())
    }

    /// What has been used so far; zero for what cannot be read.
    #[must_use]
    pub fn used(&self) -> Used {
        if self.version == 2 {
            return Used {
                cpu_ms: self.field("", "cpu.stat", "usage_usec").unwrap_or(0) / 1000,
                memory_bytes: self.number("", "memory.current").unwrap_or(0),
                oom_kills: self.field("", "memory.events", "oom_kill").unwrap_or(0),
            };
        }
        Used {
            cpu_ms: self.number("cpuacct", "cpuacct.usage").unwrap_or(0) / 1_000_000,
            memory_bytes: self.number("memory", "memory.usage_in_bytes").unwrap_or(0),
            oom_kills: self.field("memory", "memory.oom_control", "oom_kill").unwrap_or(0),
        }
    }

    /// Kills what is still inside.
    pub fn kill(&self) {
        for (_, dir) in &self.dirs {
            let inside = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in inside.lines().filter_map(|line| line.parse().ok()) {
                // It may have ended in between; that is what is wanted.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// Removes the directories; waits up to two seconds for the kernel to let go of ended processes.
    pub fn remove(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        for (_, dir) in &self.dirs {
            while fs::remove_dir(dir).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
                if Instant::now() > deadline {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn file(&self, controller: &str, name: &str) -> PathBuf {
        let dir = self.dirs.iter().find(|(one, _)| *one == controller).map(|(_, dir)| dir.as_path());
        dir.unwrap_or(Path::new("/nonexistent")).join(name)
    }

    fn write(&self, controller: &str, name: &str, value: &str) -> Result<()> {
        let file = self.file(controller, name);
        fs::write(&file, value).map_err(|error| told(&error, "write", &file))
    }

    /// For what depends on how the kernel was built (swap accounting): without it there is nothing to limit.
    fn write_if_there(&self, controller: &str, name: &str, value: &str) -> Result<()> {
        if self.file(controller, name).exists() { self.write(controller, name, value) } else { Ok(()) }
    }

    fn number(&self, controller: &str, name: &str) -> Option<u64> {
        fs::read_to_string(self.file(controller, name)).ok()?.trim().parse().ok()
    }

    fn field(&self, controller: &str, name: &str, field: &str) -> Option<u64> {
        let text = fs::read_to_string(self.file(controller, name)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok())
    }
}

/// Version 2 only: a group that hands controllers down may hold no processes itself, so those in it move to a leaf.
fn enable(parent: &Path) -> Result<()> {
    let control = parent.join("cgroup.subtree_control");
    let given = |file: &Path| fs::read_to_string(file).map_err(|error| told(&error, "read", file));
    let wanted = ["cpu", "memory", "pids"];
    let has = |text: &str| wanted.iter().all(|name| text.split_whitespace().any(|one| one == *name));
    if has(&given(&control)?) {
        return Ok(());
    }
    if !has(&given(&parent.join("cgroup.controllers"))?) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} has not been given cpu, memory and pids (systemd: Delegate=yes)", parent.display()),
        ));
    }
    let leaf = parent.join("atoll-agent");
    fs::create_dir_all(&leaf).map_err(|error| told(&error, "make", &leaf))?;
    for pid in given(&parent.join("cgroup.procs"))?.lines() {
        // Kernel threads and processes that just ended stay where they are.
        let _ = fs::write(leaf.join("cgroup.procs"), pid);
    }
    fs::write(&control, "+cpu +memory +pids").map_err(|error| told(&error, "write", &control))
}

fn told(error: &Error, verb: &str, path: &Path) -> Error {
    Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_gives_its_version_1_directories() {
        let own = "8:pids:/\n4:memory:/api/x\n2:cpu,cpuacct:/\n0::/\n";
        let mounts = "30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup none rw,memory\n\
                      31 20 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup none rw,cpu,cpuacct\n\
                      32 20 0:28 / /sys/fs/cgroup/pids rw - cgroup none rw,pids\n\
                      33 20 0:29 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n";
        let both = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct");
        let expected = vec![
            ("memory", "/sys/fs/cgroup/memory/api/x".into()),
            ("cpu", both.clone()),
            ("cpuacct", both),
            ("pids", "/sys/fs/cgroup/pids".into()),
        ];
        assert_eq!(locate(own, mounts), Some(Place::V1(expected)));
    }

    #[test]
    fn a_version_2_host_gives_one_directory_seen_from_inside_or_outside() {
        let own = "0::/user.slice/agent.service\n";
        let outside = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let below = "/sys/fs/cgroup/user.slice/agent.service";
        assert_eq!(locate(own, outside), Some(Place::V2(below.into())));
        let inside = "30 20 0:26 /user.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(locate(own, inside), Some(Place::V2("/sys/fs/cgroup/agent.service".into())));
        assert_eq!(locate(own, ""), None);
    }
}

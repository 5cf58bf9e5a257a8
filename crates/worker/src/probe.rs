//! What this machine is: processor, memory, disk, devices, packs, and how well pods can be held to their limits.
//!
//! Claims, not proofs: placement filters by them, nothing is paid for them. Devices come from a [`DeviceProbe`]; CPU is
//! one, NVML will be another.

mod disk;
mod packs;

use std::path::{Path, PathBuf};

use atoll_domain::job::PackRef;
use atoll_domain::worker::{Facts, Limits};

use crate::runtime::cgroup::{self, Cgroup};
use crate::supervisor::spec::LimitSpec;

pub use disk::{free_bytes, write_speed_mib_s};
pub use packs::{PackError, read as read_packs};

/// Of installed memory, what pods may have; the rest is the system's and the worker's.
const POD_MEMORY_PERCENT: u64 = 90;
/// Of free disk, what pods may have.
const POD_DISK_PERCENT: u64 = 50;
/// The least a device brings, so that a small machine still gives pods that can start.
const DEVICE_MEMORY_MIN: u64 = 256 << 20;

/// Devices of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Name of the model in the catalogue.
    pub model: String,
    /// How many; at most 16, the bits of a lease's mask.
    pub count: u16,
}

/// Why devices cannot be probed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(pub String);

/// A way to find devices.
pub trait DeviceProbe {
    /// The devices that this machine offers.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    fn devices(&self) -> Result<Devices, ProbeError>;
}

/// Offers the processor itself as devices of the catalogue's `cpu`.
#[derive(Clone, Copy, Debug)]
pub struct CpuDevices {
    /// How many to offer.
    pub count: u16,
}

impl DeviceProbe for CpuDevices {
    fn devices(&self) -> Result<Devices, ProbeError> {
        if self.count == 0 || self.count > 16 {
            return Err(ProbeError(format!("devices = {}: a worker offers 1 to 16", self.count)));
        }
        Ok(Devices { model: "cpu".to_owned(), count: self.count })
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What the control plane is told.
    pub facts: Facts,
    /// Packs and their folders.
    pub packs: Vec<(PackRef, PathBuf)>,
    /// What one device brings to a pod.
    pub device_share: LimitSpec,
}

/// Why the machine cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A pack.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The devices.
    #[error(transparent)]
    Devices(#[from] ProbeError),
    /// The disk.
    #[error("{folder} cannot be measured: {source}; pods live there", folder = folder.display())]
    Disk { folder: PathBuf, source: std::io::Error },
}

/// Looks at everything. Writes 8 MiB to the state folder and waits until they are on the disk.
///
/// # Errors
/// [`Unfit`]. Weak limits are a fact, no error.
pub fn probe(
    state: &Path,
    packs: &[PathBuf],
    devices: &dyn DeviceProbe,
    cgroup: Option<&Path>,
) -> Result<Machine, Unfit> {
    let disk = |source| Unfit::Disk { folder: state.to_owned(), source };
    let devices = devices.devices()?;
    let packs = read_packs(packs)?;
    let disk_free_bytes = free_bytes(state).map_err(disk)?;
    let disk_write_mib_s = write_speed_mib_s(state).map_err(disk)?;
    let cpu_count = u32::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(u32::MAX);
    let memory_bytes = memory_bytes(&read_proc("/proc/meminfo"));
    let device_share = share(u64::from(devices.count), memory_bytes, cpu_count, disk_free_bytes);
    let facts = Facts {
        cpu: cpu_name(&read_proc("/proc/cpuinfo")),
        cpu_count,
        memory_bytes,
        disk_free_bytes,
        disk_write_mib_s,
        model: devices.model,
        devices: devices.count,
        packs: packs.iter().map(|(pack, _)| pack.clone()).collect(),
        limits: limits(cgroup, &device_share),
    };
    Ok(Machine { facts, packs, device_share })
}

/// Whether pods can be held to limits: by making a cgroup such as a pod's and removing it again.
#[must_use]
pub fn limits(wanted: Option<&Path>, share: &LimitSpec) -> Limits {
    let name = format!("atoll-probe-{}", std::process::id());
    let made = cgroup::find(wanted).and_then(|place| Cgroup::create(&place, &name, share));
    match made {
        Ok(cgroup) => {
            cgroup.remove();
            Limits::Enforced
        }
        Err(error) => Limits::Weak {
            why: format!(
                "{error}; run the worker as root, or have systemd delegate its cgroup (Delegate=yes in its unit)"
            ),
        },
    }
}

fn share(devices: u64, memory_bytes: u64, cpu_count: u32, disk_free_bytes: u64) -> LimitSpec {
    let of = |whole: u64, percent: u64| (whole / 100).saturating_mul(percent) / devices.max(1);
    LimitSpec {
        memory_bytes: of(memory_bytes, POD_MEMORY_PERCENT).max(DEVICE_MEMORY_MIN),
        cpu_milli: (u64::from(cpu_count) * 1000 / devices.max(1)).max(100),
        // Ray runs a few hundred threads a pod.
        pids: 4096,
        disk_bytes: of(disk_free_bytes, POD_DISK_PERCENT).max(64 << 20),
        shm_bytes: 256 << 20,
        tmp_bytes: 1 << 30,
        output_bytes: 16 << 20,
    }
}

fn read_proc(path: &str) -> String {
    // Empty: the name is then unknown, which is said as such.
    std::fs::read_to_string(path).unwrap_or_default()
}

fn cpu_name(cpuinfo: &str) -> String {
    let named = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned()).filter(|name| !name.is_empty())
    };
    let name = named("model name").or_else(|| named("Hardware")).unwrap_or_else(|| "unknown processor".to_owned());
    name.chars().take(100).collect()
}

fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(cpu_name("processor : 0\nmodel name\t: Epic 9000 \n"), "Epic 9000");
        assert_eq!(cpu_name(""), "unknown processor");
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16 << 20);
        assert_eq!(memory_bytes("MemTotal: x kB"), 0);
    }

    #[test]
    fn devices_share_a_machine_evenly() {
        let whole = share(1, 100 << 30, 16, 100 << 30);
        let quarter = share(4, 100 << 30, 16, 100 << 30);
        assert!(
            (89 << 30..=90 << 30).contains(&whole.memory_bytes) && (49 << 30..=50 << 30).contains(&whole.disk_bytes)
        );
        assert_eq!((whole.cpu_milli, quarter.cpu_milli), (16_000, 4_000));
        assert_eq!(quarter.memory_bytes, whole.memory_bytes / 4);
    }

    #[test]
    fn this_machine_can_be_probed() {
        let state = tempfile::tempdir().unwrap();
        let machine = probe(state.path(), &[], &CpuDevices { count: 1 }, None).unwrap();
        assert!(machine.facts.memory_bytes > 0 && machine.facts.cpu_count > 0 && machine.facts.disk_write_mib_s > 0);
        assert!(probe(state.path(), &[], &CpuDevices { count: 17 }, None).is_err());
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0, "nothing is left behind");
    }
}

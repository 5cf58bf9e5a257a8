//! `pod.json`: everything a supervisor needs to keep one pod. Written by the worker (0600), read once at start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use atoll_domain::id::PodId;
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::time::UnixMs;
use serde::{Deserialize, Serialize};

/// Name of this file in the pod's directory.
pub const FILE: &str = "pod.json";

/// Largest `pod.json`: 64 KiB of arguments, 64 KiB of environment, and room for the rest.
pub const BYTES_MAX: u64 = 1 << 20;

/// Arguments of the tenant's program together; they travel in one message of 128 KiB.
pub const ARGV_BYTES_MAX: usize = 64 * 1024;

/// Environment together, names and values.
pub const ENV_BYTES_MAX: usize = 64 * 1024;

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// The pod's id; also its host name, with `_` as `-`.
    pub pod: PodId,
    /// Address of the order on chain.
    pub order: Address,
    /// Address of the lease on chain.
    pub lease: Address,
    /// Rises with every pod that replaces another one under the same lease.
    pub fence: u64,
    /// Its place in the overlay.
    pub overlay: OverlaySpec,
    /// The tenant's program and its arguments.
    pub argv: Vec<String>,
    /// The tenant's environment; HOME, PATH, LANG and POD_IP are set unless named here.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Read-only folders or files, beside the host's /usr. They must be readable by everyone.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// What it may use.
    pub limits: LimitSpec,
    /// User and group id of the pod on the host; when another pod of this machine has it, the next free one. Required
    /// when the supervisor is root, forbidden otherwise.
    #[serde(default)]
    pub uid: Option<u32>,
    /// When the program starts.
    pub start: Start,
    /// End of the lease. [`PodSpec::grace_ms`] later the pod is killed, whoever is still there.
    pub ends_at: UnixMs,
    /// Grace after the end of the lease, in milliseconds; signed in the order.
    #[serde(default = "grace_ms")]
    pub grace_ms: u64,
    /// Device keys that may sign pod keys of this order, with their leases, as the worker read them from the chain.
    #[serde(default)]
    pub authorised: Vec<AuthorisedKey>,
    /// The worker's unix socket, where connections to the pod's object store go. None: they are closed.
    #[serde(default)]
    pub worker_socket: Option<PathBuf>,
    /// The TUN device.
    #[serde(default = "tun_device")]
    pub tun_device: PathBuf,
    /// The bubblewrap program.
    #[serde(default = "bwrap")]
    pub bwrap: PathBuf,
    /// Where to make the pod's cgroup, if not under the supervisor's own. A cgroup v2 directory, or the name of one
    /// below every v1 controller.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Time between two usage records, in milliseconds.
    #[serde(default = "usage_period_ms")]
    pub usage_period_ms: u64,
}

/// A pod's place in the overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlaySpec {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// Size of the overlay's net, 8 to 30.
    pub prefix_bits: u32,
    /// Where the supervisor's UDP socket listens, outside the pod. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// The address that peers are told; the port is the socket's own.
    pub announce: IpAddr,
}

/// A read-only piece of the host in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// On the host; absolute.
    pub host: PathBuf,
    /// In the pod; absolute, and not under /proc, /dev, /etc, /usr, /job or /tmp.
    pub pod: PathBuf,
}

/// What a pod may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// Memory, /dev/shm and /tmp included.
    pub memory_bytes: u64,
    /// CPU time in thousandths of one CPU.
    pub cpu_milli: u64,
    /// Processes and threads.
    pub pids: u64,
    /// What /job may hold.
    pub disk_bytes: u64,
    /// Size of /dev/shm.
    pub shm_bytes: u64,
    /// Size of /tmp.
    pub tmp_bytes: u64,
    /// How much output is kept; older output is dropped.
    pub output_bytes: u64,
}

/// When the tenant's program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// As soon as the pod stands.
    AtOnce,
    /// When the worker says so, after the roster.
    OnRun,
}

/// A device key and the lease it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorisedKey {
    pub device_key: PublicKey,
    pub lease: Address,
}

impl From<AuthorisedKey> for atoll_overlay::Authorised {
    fn from(key: AuthorisedKey) -> Self {
        Self { device_key: key.device_key.0, lease: key.lease.0 }
    }
}

fn grace_ms() -> u64 {
    30_000
}

fn usage_period_ms() -> u64 {
    1_000
}

fn tun_device() -> PathBuf {
    "/dev/net/tun".into()
}

fn bwrap() -> PathBuf {
    "/usr/bin/bwrap".into()
}

impl PodSpec {
    /// Reads and checks `DIR/pod.json`.
    ///
    /// # Errors
    /// It is missing, too long, malformed, or asks for something that no pod may have.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let mut text = String::new();
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        file.take(BYTES_MAX + 1).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
        ensure!(text.len() as u64 <= BYTES_MAX, "{} is longer than {BYTES_MAX} bytes", path.display());
        let spec: Self = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        spec.check()?;
        Ok(spec)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// The field that is wrong, and what it may be.
    pub fn check(&self) -> Result<()> {
        check_program(&self.argv, &self.env)?;
        ensure!((8..=30).contains(&self.overlay.prefix_bits), "overlay.prefix_bits is 8 to 30");
        ensure!(self.binds.len() <= 16, "at most 16 binds");
        for bind in &self.binds {
            check_bind(bind)?;
        }
        let limits = &self.limits;
        ensure!((1..=1_000_000).contains(&limits.pids), "limits.pids is 1 to 1000000");
        ensure!((10..=1_000_000).contains(&limits.cpu_milli), "limits.cpu_milli is 10 to 1000000");
        ensure!(limits.memory_bytes >= 1 << 22, "limits.memory_bytes is at least 4 MiB");
        let sizes = [limits.memory_bytes, limits.disk_bytes, limits.shm_bytes, limits.tmp_bytes, limits.output_bytes];
        ensure!(sizes.iter().all(|size| (4096..=1 << 50).contains(size)), "every limit in bytes is 4 KiB to 1 PiB");
        ensure!(self.usage_period_ms >= 10, "usage_period_ms is at least 10");
        ensure!(self.grace_ms <= 86_400_000, "grace_ms is at most a day");
        ensure!(self.uid.is_none_or(|uid| uid >= 1000), "uid is at least 1000: a pod never runs as a system user");
        Ok(())
    }
}

/// Checks a program and an environment before they become bubblewrap's arguments.
///
/// # Errors
/// Empty, too long, or with bytes that no program can get.
pub fn check_program(argv: &[String], env: &BTreeMap<String, String>) -> Result<()> {
    ensure!(argv.first().is_some_and(|program| !program.is_empty()), "argv names no program");
    let bytes: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    ensure!(bytes <= ARGV_BYTES_MAX, "argv is {bytes} bytes, at most {ARGV_BYTES_MAX}");
    ensure!(argv.iter().all(|argument| !argument.contains('\0')), "argv contains a NUL byte");
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    ensure!(bytes <= ENV_BYTES_MAX && env.len() <= 1000, "env is {bytes} bytes, at most {ENV_BYTES_MAX}, 1000 names");
    for (name, value) in env {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        ensure!(plain && !name.is_empty(), "env name {name:?} has more than letters, digits and _");
        ensure!(!name.starts_with("LD_"), "env name {name}: the loader is not the tenant's to steer");
        ensure!(!value.contains('\0'), "env value of {name} contains a NUL byte");
    }
    Ok(())
}

fn check_bind(bind: &Bind) -> Result<()> {
    let plain = |path: &Path| path.is_absolute() && path.components().all(|part| part.as_os_str() != "..");
    ensure!(plain(&bind.host) && plain(&bind.pod), "bind {bind:?}: both paths are absolute, without ..");
    for taken in ["/proc", "/dev", "/etc", "/usr", "/job", "/tmp", "/sys", "/bin", "/sbin", "/lib", "/lib64"] {
        ensure!(!bind.pod.starts_with(taken), "bind to {}: {taken} is the pod's own", bind.pod.display());
    }
    ensure!(bind.pod != Path::new("/"), "bind to /: the root is the pod's own");
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> PodSpec {
        PodSpec {
            pod: PodId::from_random([7; 16]),
            order: PublicKey([1; 32]),
            lease: PublicKey([2; 32]),
            fence: 1,
            overlay: OverlaySpec {
                ip: Ipv4Addr::new(10, 77, 0, 1),
                prefix_bits: 16,
                bind: "127.0.0.1:0".parse().unwrap(),
                announce: "127.0.0.1".parse().unwrap(),
            },
            argv: vec!["true".into()],
            env: BTreeMap::new(),
            binds: vec![],
            limits: LimitSpec {
                memory_bytes: 1 << 30,
                cpu_milli: 1000,
                pids: 100,
                disk_bytes: 1 << 30,
                shm_bytes: 1 << 26,
                tmp_bytes: 1 << 26,
                output_bytes: 1 << 20,
            },
            uid: None,
            start: Start::AtOnce,
            ends_at: UnixMs(1_000),
            grace_ms: 30_000,
            authorised: vec![],
            worker_socket: None,
            tun_device: tun_device(),
            bwrap: bwrap(),
            cgroup: None,
            usage_period_ms: 1000,
        }
    }

    #[test]
    fn the_file_reads_back_and_unknown_fields_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut json = serde_json::to_value(spec()).unwrap();
        std::fs::write(dir.path().join(FILE), json.to_string()).unwrap();
        assert_eq!(PodSpec::read(dir.path()).unwrap(), spec());
        json["surprise"] = 1.into();
        std::fs::write(dir.path().join(FILE), json.to_string()).unwrap();
        assert!(format!("{:#}", PodSpec::read(dir.path()).unwrap_err()).contains("surprise"));
        std::fs::write(dir.path().join(FILE), vec![b' '; usize::try_from(BYTES_MAX).unwrap() + 1]).unwrap();
        assert!(format!("{:#}", PodSpec::read(dir.path()).unwrap_err()).contains("longer"));
    }

    #[test]
    fn what_no_pod_may_have_is_refused() {
        type Change = fn(&mut PodSpec);
        let cases: [(&str, Change); 10] = [
            ("no program", |s| s.argv.clear()),
            ("NUL", |s| s.argv.push("a\0b".into())),
            ("argv is", |s| s.argv.push("a".repeat(ARGV_BYTES_MAX))),
            ("loader", |s| drop(s.env.insert("LD_PRELOAD".into(), "x".into()))),
            ("letters", |s| drop(s.env.insert("A=B".into(), "x".into()))),
            ("the pod's own", |s| s.binds.push(Bind { host: "/opt".into(), pod: "/etc/x".into() })),
            ("without ..", |s| s.binds.push(Bind { host: "/opt/../root".into(), pod: "/opt/x".into() })),
            ("system user", |s| s.uid = Some(0)),
            ("prefix_bits", |s| s.overlay.prefix_bits = 0),
            ("memory_bytes", |s| s.limits.memory_bytes = 0),
        ];
        for (reason, change) in cases {
            let mut spec = spec();
            change(&mut spec);
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        }
    }
}

//! The supervisor's side of init: spawn it, give it its plan, take the network, let it go.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{PipeReader, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::spec::PodSpec;
use crate::runtime::init::{self, Go, Plan};
use crate::runtime::{bwrap, netns, pass, seccomp};

/// Folder in the pod's directory that becomes /job.
pub const JOB: &str = "job";
/// Folder in the pod's directory that becomes /etc.
const ETC: &str = "etc";

/// Init's steps take milliseconds; a machine that needs longer than this is not usable.
const INIT_S: i64 = 20;

/// A pod in the making, later the pod itself: bubblewrap takes init's place under the same pid.
#[derive(Debug)]
pub struct InitProcess {
    pub pid: i32,
    conversation: OwnedFd,
}

/// What init hands over.
#[derive(Debug)]
pub struct Handed {
    pub network: netns::Network,
    pub door: OwnedFd,
}

/// Makes the folders that become /etc and /job.
///
/// # Errors
/// The directory cannot be written, or has served a pod before.
pub fn furnish(dir: &Path, spec: &PodSpec) -> Result<()> {
    let (etc, job) = (dir.join(ETC), dir.join(JOB));
    for folder in [&etc, &job, &etc.join("alternatives")] {
        fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    let host = spec.pod.to_string().replace('_', "-");
    for (name, text) in bwrap::ETC_FILES {
        let own = if name == "hosts" { format!("{} {host}\n", spec.overlay.ip) } else { String::new() };
        fs::write(etc.join(name), format!("{text}{own}"))?;
        fs::set_permissions(etc.join(name), Permissions::from_mode(0o644))?;
    }
    fs::set_permissions(&job, Permissions::from_mode(0o700))?;
    chown(&job, spec.uid, spec.uid).with_context(|| format!("give {} to the pod's user", job.display()))
}

impl InitProcess {
    /// Starts init with the pod's output on one pipe. The pod dies with the calling *thread*: call it from the main one.
    ///
    /// # Errors
    /// No processes or descriptors left.
    pub fn spawn() -> Result<(Self, PipeReader)> {
        let (ours, theirs) = pass::pair()?;
        setsockopt(&ours, sockopt::ReceiveTimeout, &TimeVal::seconds(INIT_S))?;
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("atoll").arg(crate::roles::INIT).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn().context("start init")?;
        Ok((Self { pid: i32::try_from(child.id())?, conversation: ours }, reader))
    }

    /// Gives init its plan and takes the network.
    ///
    /// # Errors
    /// What init says went wrong.
    pub fn prepare(&self, dir: &Path, spec: &PodSpec, processes_max: Option<u64>) -> Result<Handed> {
        let plan = Plan {
            supervisor_pid: i32::try_from(std::process::id())?,
            overlay_ip: spec.overlay.ip,
            prefix_bits: spec.overlay.prefix_bits,
            mtu: i32::try_from(atoll_overlay::packet::MTU)?,
            tun_device: spec.tun_device.clone(),
            uid: spec.uid,
            sources: sources(dir, spec),
            // Shared memory files are files too.
            file_bytes_max: spec.limits.disk_bytes.max(spec.limits.shm_bytes).max(spec.limits.tmp_bytes),
            processes_max,
            bwrap: spec.bwrap.clone(),
        };
        pass::send(&self.conversation, &serde_json::to_vec(&plan)?, &[])?;
        let (answer, descriptors) = pass::receive(&self.conversation).context("wait for init")?;
        match answer.split_first() {
            Some((&init::READY, _)) => {
                let [tunnel, listener, door]: [OwnedFd; 3] =
                    descriptors.try_into().map_err(|_| anyhow!("init sent too few descriptors"))?;
                let network = netns::Network { tunnel: File::from(tunnel), listener: TcpListener::from(listener) };
                Ok(Handed { network, door })
            }
            Some((_, reason)) => bail!("init: {}", String::from_utf8_lossy(reason)),
            None => bail!("init ended without a word; its last output may say why"),
        }
    }

    /// Lets init become bubblewrap and bubblewrap start the program; returns when the former has happened.
    ///
    /// # Errors
    /// What init says went wrong.
    pub fn go(&self, dir: &Path, spec: &PodSpec, argv: &[String], env: &BTreeMap<String, String>) -> Result<()> {
        let at = |n: usize, real: PathBuf| if spec.uid.is_some() { init::staged(n) } else { real };
        let places: Vec<PathBuf> = sources(dir, spec).into_iter().enumerate().map(|(n, real)| at(n, real)).collect();
        let [etc, job, binds @ ..] = &places[..] else { bail!("a pod has at least /etc and /job") };
        let line = bwrap::arguments(spec, env, &bwrap::Sources { etc, job, binds });
        let mut arguments = Vec::new();
        for word in &line {
            arguments.extend_from_slice(word.as_bytes());
            arguments.push(0);
        }
        let arguments = memory_file("bwrap-arguments", &arguments)?;
        let program = memory_file("seccomp", &seccomp::program()?)?;
        let go = serde_json::to_vec(&Go { argv: argv.to_vec() })?;
        pass::send(&self.conversation, &go, &[arguments.as_raw_fd(), program.as_raw_fd()])?;
        let (answer, _) = pass::receive(&self.conversation).context("wait for bubblewrap")?;
        // Nothing at all: the conversation was closed by exec.
        ensure!(answer.is_empty(), "init: {}", String::from_utf8_lossy(answer.get(1..).unwrap_or_default()));
        Ok(())
    }
}

/// The pod's pieces on the host, in the order that [`InitProcess::go`] expects.
fn sources(dir: &Path, spec: &PodSpec) -> Vec<PathBuf> {
    let own = [dir.join(ETC), dir.join(JOB)];
    own.into_iter().chain(spec.binds.iter().map(|bind| bind.host.clone())).collect()
}

/// A file in memory, to be read from its beginning.
///
/// # Errors
/// No memory or descriptors left.
pub fn memory_file(name: &str, bytes: &[u8]) -> Result<File> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

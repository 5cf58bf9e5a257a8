//! `pod-init`: makes a pod's namespaces, hands its network to the supervisor, and becomes bubblewrap.
//!
//! Two ways, by who runs the worker. As root: this process unshares network and mounts as root (so no tenant's user
//! namespace owns them), binds the pod's sources to places that the pod's own user can reach, then becomes that user.
//! As anybody else: it unshares a user namespace first and is root in there. From then on both are the same.
//!
//! It runs before there is a second thread, on descriptors that the supervisor gave: 0 the conversation, 1 and 2 the pod's
//! output. A failure is told in the conversation. Supervisor's side: [`InitProcess`](crate::supervisor::start::InitProcess).

use std::ffi::CString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Gid, Uid, execve, fork, getgid, getppid, getuid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::{bwrap, door, netns, pass};

/// First message from the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Who must be alive for the pod to be.
    pub supervisor_pid: i32,
    pub overlay_ip: Ipv4Addr,
    pub prefix_bits: u32,
    pub mtu: i32,
    pub tun_device: PathBuf,
    /// The pod's own user, when the worker is root.
    pub uid: Option<u32>,
    /// Bound to [`staged`] places when the worker is root.
    pub sources: Vec<PathBuf>,
    /// Largest single file, in bytes.
    pub file_bytes_max: u64,
    /// Processes of the pod, where no cgroup counts them.
    pub processes_max: Option<u64>,
    pub bwrap: PathBuf,
}

/// Second message from the supervisor; its descriptors are bubblewrap's arguments and the seccomp program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Go {
    pub argv: Vec<String>,
}

/// Answer of init: ready (with TUN, listener and door) or failed.
pub const READY: u8 = b'R';
/// The rest of the message says why.
pub const FAILED: u8 = b'E';

/// Where source number `n` lies for the pod's user when the worker is root: in a mount namespace of its own, where /tmp is
/// an empty tmpfs. bubblewrap itself works in /tmp too, so every host has it.
#[must_use]
pub fn staged(n: usize) -> PathBuf {
    PathBuf::from(format!("/tmp/{n}"))
}

/// The role.
///
/// # Errors
/// What the supervisor has been told too.
pub fn main() -> Result<()> {
    let supervisor = conversation()?;
    // The supervisor reads its signals by descriptor and has them blocked; a mask is inherited, and the tenant wants none.
    SigSet::empty().thread_set_mask()?;
    let Err(error) = become_pod(&supervisor);
    let mut message = vec![FAILED];
    message.extend(format!("{error:#}").bytes().take(4000));
    // A supervisor that is gone needs no message.
    let _ = pass::send(&supervisor, &message, &[]);
    Err(error)
}

/// Moves the conversation from descriptor 0 to a close-on-exec one and puts /dev/null in its place.
fn conversation() -> Result<OwnedFd> {
    // SAFETY: descriptor 0 stays open here; it is only borrowed for the duplication.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let supervisor = nix::fcntl::fcntl(stdin, nix::fcntl::F_DUPFD_CLOEXEC(10))?;
    // SAFETY: fcntl just made this descriptor for us.
    let supervisor = unsafe { OwnedFd::from_raw_fd(supervisor) };
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(supervisor)
}

fn become_pod(supervisor: &OwnedFd) -> Result<std::convert::Infallible> {
    let (message, _) = pass::receive(supervisor)?;
    let plan: Plan = serde_json::from_slice(&message).context("the supervisor sent no plan")?;
    enter(&plan)?;
    let ping_gid = plan.uid.unwrap_or(0);
    let network = netns::build(&plan.tun_device, plan.overlay_ip, plan.prefix_bits, plan.mtu, ping_gid)?;
    if let Some(uid) = plan.uid {
        become_user(uid)?;
    }
    // After every change of credentials, which would clear it; the check closes the race with a death before it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    ensure!(getppid().as_raw() == plan.supervisor_pid, "the supervisor is gone");
    let door = open_door()?;
    let handed = [network.tunnel.as_raw_fd(), network.listener.as_raw_fd(), door.as_raw_fd()];
    pass::send(supervisor, &[READY], &handed)?;
    drop((network, door));

    let (message, descriptors) = pass::receive(supervisor)?;
    ensure!(!message.is_empty(), "the supervisor is gone");
    let go: Go = serde_json::from_slice(&message).context("the supervisor sent no program")?;
    let [arguments, seccomp]: [OwnedFd; 2] =
        descriptors.try_into().map_err(|_| anyhow!("the supervisor sent no arguments"))?;
    limit(&plan)?;
    become_bwrap(&plan, &go, arguments, seccomp)
}

/// Unshares what the pod must not share, the way its worker may.
fn enter(plan: &Plan) -> Result<()> {
    if plan.uid.is_some() {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("unshare network and mounts")?;
        return stage(&plan.sources);
    }
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).context(
        "unshare a user namespace; where the kernel forbids it to ordinary users, as root, once: \
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1",
    )?;
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("write /proc/self/{file}"))?;
    }
    Ok(())
}

/// Binds the sources where any user can reach them, in this mount namespace alone.
fn stage(sources: &[PathBuf]) -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
    // Opened first: a source may lie below /tmp.
    let opened: Vec<OwnedFd> = sources
        .iter()
        .map(|source| {
            open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .with_context(|| format!("open {}", source.display()))
        })
        .collect::<Result<_>>()?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some("atoll"), "/tmp", Some("tmpfs"), flags, Some("mode=0755,size=1m")).context("mount /tmp")?;
    for (n, (source, opened)) in sources.iter().zip(&opened).enumerate() {
        let place = staged(n);
        if source.is_dir() || fs::metadata(magic(opened)).is_ok_and(|meta| meta.is_dir()) {
            fs::create_dir(&place)?;
        } else {
            fs::write(&place, "")?;
        }
        mount(Some(&magic(opened)), &place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .with_context(|| format!("bind {}", source.display()))?;
    }
    Ok(())
}

fn magic(opened: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

fn become_user(id: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[]).context("leave the worker's groups")?;
    setresgid(gid, gid, gid).context("become the pod's group")?;
    setresuid(uid, uid, uid).context("become the pod's user")?;
    Ok(())
}

/// Forks the door and answers the supervisor's end of it.
fn open_door() -> Result<OwnedFd> {
    let (ours, theirs) = pass::pair()?;
    let init = nix::unistd::getpid();
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() }.context("fork the door")? {
        ForkResult::Parent { .. } => Ok(theirs),
        ForkResult::Child => {
            drop(theirs);
            if stay_behind(&ours, init).is_ok() {
                door::serve(&ours);
            }
            std::process::exit(0)
        }
    }
}

/// Gives up everything but the socket.
fn stay_behind(socket: &OwnedFd, init: nix::unistd::Pid) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    ensure!(getppid() == init, "init is gone");
    prctl::set_no_new_privs()?;
    drop_capabilities()?;
    let kept = socket.as_raw_fd();
    close_range(0, kept - 1, 0)?;
    close_range(kept + 1, RawFd::MAX, 0)
}

fn drop_capabilities() -> Result<()> {
    // struct __user_cap_header_struct (version 3, this process) and two empty struct __user_cap_data_struct.
    let (header, none) = ([0x2008_0522_u32, 0], [0u32; 6]);
    // SAFETY: both point to memory of the size that capset(2) reads for version 3.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) } != 0 {
        bail!("drop capabilities: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Closes descriptors, or marks them to be closed at exec.
///
/// # Errors
/// The kernel is older than 5.9 (5.11 for the mark).
pub(crate) fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> Result<()> {
    if last < first {
        return Ok(());
    }
    // SAFETY: the caller names descriptors that nothing uses any more (or, with CLOEXEC, only marks them).
    if unsafe { libc::syscall(libc::SYS_close_range, first.unsigned_abs(), last.unsigned_abs(), flags) } != 0 {
        bail!("close descriptors: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Per-process limits; never above what this process may have itself.
fn limit(plan: &Plan) -> Result<()> {
    let lower = |resource: Resource, wanted: u64| -> Result<()> {
        let (_, hard) = getrlimit(resource)?;
        let value = wanted.min(hard);
        setrlimit(resource, value, value).with_context(|| format!("limit {resource:?} to {value}"))
    };
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_FSIZE, plan.file_bytes_max)?;
    lower(Resource::RLIMIT_NOFILE, u64::MAX)?;
    lower(Resource::RLIMIT_MEMLOCK, 8 << 20)?;
    if let Some(processes) = plan.processes_max {
        lower(Resource::RLIMIT_NPROC, processes)?;
    }
    Ok(())
}

fn become_bwrap(plan: &Plan, go: &Go, arguments: OwnedFd, seccomp: OwnedFd) -> Result<std::convert::Infallible> {
    prctl::set_no_new_privs()?;
    // Out of the way first: either may sit on the other's number.
    let high = |fd: &OwnedFd| nix::fcntl::fcntl(fd, nix::fcntl::F_DUPFD_CLOEXEC(20));
    let (from_arguments, from_seccomp) = (high(&arguments)?, high(&seccomp)?);
    drop((arguments, seccomp));
    for (from, to) in [(from_arguments, bwrap::ARGUMENTS_FD), (from_seccomp, bwrap::SECCOMP_FD)] {
        // SAFETY: `to` belongs to nothing that is still used: the conversation lies above 9, the rest is closed at exec.
        if unsafe { libc::dup2(from, to) } < 0 {
            bail!("place descriptor {to}: {}", std::io::Error::last_os_error());
        }
    }
    close_range(bwrap::SECCOMP_FD + 1, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
    let mut line = vec![c_string(b"bwrap")?, c_string(b"--args")?];
    line.push(c_string(bwrap::ARGUMENTS_FD.to_string().as_bytes())?);
    line.push(c_string(b"--")?);
    for argument in &go.argv {
        line.push(c_string(argument.as_bytes())?);
    }
    let none: [CString; 0] = [];
    execve(&c_string(path_bytes(&plan.bwrap))?, &line, &none)
        .with_context(|| format!("start {}; on Debian and Ubuntu: apt install bubblewrap", plan.bwrap.display()))
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).context("a NUL byte in an argument")
}

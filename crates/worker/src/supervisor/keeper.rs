//! The supervisor process: its main thread starts the pod, watches the clock and buries it.
//!
//! Threads: main (this file), `overlay` (packets), `output` (the pod's pipe), `disk` (how full /job is), `serve` (requests,
//! one short thread each), `store` (the pod's connections). Only main decides that the pod ends, and why.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;
use atoll_overlay::pump::{self, Link};
use atoll_overlay::{Engine, Roster};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid, setsid};

use super::protocol::{Answer, EXIT_FILE, Exit, KEEPER_FILE, Keeper, Reason, SOCKET_FILE, State};
use super::shared::{Command, Shared, View, lock, monotonic_us, now, own_pid, since_boot, thread};
use super::spec::{PodSpec, Start};
use super::start::{Handed, InitProcess, JOB, furnish};
use super::usage::{Reading, Record};
use super::{output, serve, streams, trim, usage};
use crate::runtime::cgroup::{self, Cgroup, Limits, Used};
use crate::runtime::{disk, procs, uid};

/// Between two looks at /job; a slow walk makes it longer.
const DISK_PERIOD: Duration = Duration::from_secs(1);

/// After the pod's end: for its processes to vanish, and for readers to take the last output.
const LINGER: Duration = Duration::from_secs(5);
/// How much of what a program printed last is told with its end.
const LAST_WORDS_BYTES: usize = 400;

/// The role: keeps the pod described in `dir` until it is over. Its first line on stdout is an [`Answer`]: the status of
/// the pod that stands, or why there is none.
///
/// # Errors
/// The pod could not be made; nothing of it is left.
pub fn main(dir: &Path) -> Result<()> {
    // Nothing of the worker's stays open here: a port or a lock held by a supervisor would outlive the worker.
    crate::runtime::init::close_range(3, i32::MAX, 0)?;
    // A worker that dies, or a terminal that closes, must not reach us. Refused where we lead a group already.
    let _ = setsid();
    let (keeper, answer) = match Main::begin(dir) {
        Ok(keeper) => {
            let status = Answer::Status(Box::new(keeper.shared.status()));
            (Ok(keeper), status)
        }
        Err(error) => {
            let refused = Answer::Refused { message: format!("{error:#}") };
            (Err(error), refused)
        }
    };
    // Nobody may be listening any more; the socket tells the same.
    let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&answer)?);
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    keeper?.keep()
}

struct Main {
    shared: Arc<Shared>,
    init: InitProcess,
    cgroup: Option<Cgroup>,
    spool: usage::Spool,
    commands: Receiver<Command>,
    signals: SignalFd,
    clock: Clock,
    ending: Option<(Reason, String)>,
    exit_code: Option<i32>,
    reaped: bool,
    /// Keeps the pod's user its own until everything of the pod is gone.
    _user: Option<uid::Claim>,
}

/// Every time the main thread has to keep.
struct Clock {
    started: Option<Instant>,
    next_usage: Instant,
    /// End of the lease plus grace, since boot: as far ahead as the wall clock said when the end was told, and not moved by
    /// setting it.
    killed_at: Duration,
    term_over: Option<Instant>,
}

/// A pod whose network stands and whose program has not been started.
struct Standing {
    init: InitProcess,
    pipe: PipeReader,
    cgroup: Option<Cgroup>,
    limits: Limits,
    handed: Handed,
}

fn stand(dir: &Path, spec: &PodSpec) -> Result<Standing> {
    furnish(dir, spec)?;
    let (init, pipe) = InitProcess::spawn()?;
    let (cgroup, limits) = confine(spec, init.pid);
    let processes_max = cgroup.is_none().then_some(spec.limits.pids);
    match init.prepare(dir, spec, processes_max) {
        Ok(handed) => Ok(Standing { init, pipe, cgroup, limits, handed }),
        Err(error) => {
            // SIGKILL of our own child, which is still unreaped: the pid is its.
            let _ = kill(Pid::from_raw(init.pid), Signal::SIGKILL);
            reap_all(Instant::now() + LINGER, &mut |_, _| {});
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            Err(error)
        }
    }
}

/// The name of a pod's cgroup.
#[must_use]
pub fn cgroup_name(pod: PodId) -> String {
    format!("atoll-{pod}")
}

/// Puts init into a cgroup before it does anything; where that cannot be, says why.
fn confine(spec: &PodSpec, init_pid: i32) -> (Option<Cgroup>, Limits) {
    let name = cgroup_name(spec.pod);
    let made = cgroup::find(spec.cgroup.as_deref()).and_then(|place| Cgroup::create(&place, &name, &spec.limits));
    let attached = made.and_then(|cgroup| match cgroup.attach(init_pid) {
        Ok(()) => Ok(cgroup),
        Err(error) => {
            cgroup.remove();
            Err(error)
        }
    });
    match attached {
        Ok(cgroup) => {
            let cgroup_version = cgroup.version();
            (Some(cgroup), Limits::Strong { cgroup_version })
        }
        Err(error) => (None, Limits::Weak { why: error.to_string() }),
    }
}

/// Blocks the signals that the main thread reads by descriptor; init unblocks them again for the pod.
fn own_signals() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Writes a file whole or not at all, as other processes see it. (After a crash of the machine the pod is gone as well;
/// its usage has been synced by then.)
fn write_whole(dir: &Path, name: &str, value: &impl serde::Serialize) -> Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(new, dir.join(name)).with_context(|| format!("write {name}"))
}

impl Main {
    fn begin(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("open {}", dir.display()))?;
        // So that the socket's name is short, whatever the directory's is.
        std::env::set_current_dir(&dir)?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_retain(0o077));
        let mut spec = PodSpec::read(&dir)?;
        ensure!(
            geteuid().is_root() == spec.uid.is_some(),
            "pod.json names a uid exactly when the supervisor is root: every pod then gets a user of its own"
        );
        let user = spec.uid.map(|wanted| uid::claim(Path::new(uid::FOLDER), wanted)).transpose()?;
        spec.uid = user.as_ref().map(uid::Claim::uid);
        let signals = own_signals()?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let spool = usage::Spool::create(&dir, Record::genesis_of(&spec)).context("begin the usage spool")?;
        let output = output::Spool::create(&dir, spec.limits.output_bytes).context("begin the output spool")?;
        let started_ticks = procs::stat(own_pid()).map_or(0, |stat| stat.started_ticks);
        write_whole(&dir, KEEPER_FILE, &Keeper { pod: spec.pod, pid: own_pid(), started_ticks })?;
        let socket = UdpSocket::bind(spec.overlay.bind).with_context(|| format!("bind {}", spec.overlay.bind))?;
        socket.set_nonblocking(true)?;
        let requests = UnixListener::bind(SOCKET_FILE).context("bind supervisor.sock")?;
        let standing = stand(&dir, &spec)?;

        let endpoint = SocketAddr::new(spec.overlay.announce, socket.local_addr()?.port());
        let engine = Engine::generate(spec.overlay.ip).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let wg_public = engine.public_key();
        let mut roster = Roster::new(spec.order.0, spec.overlay.ip, wg_public, spec.overlay.prefix_bits);
        roster.authorise(spec.authorised.iter().map(|key| (*key).into()).collect());
        let (sender, commands) = channel();
        let view = View { state: State::Ready, usage: spool.head(), ends_at: spec.ends_at, output_ended: false };
        let clock = Clock::new(&spec);
        let shared = Arc::new(Shared {
            dir,
            spec,
            pod_pid: standing.init.pid,
            limits: standing.limits,
            engine: Mutex::new(engine),
            link: Link { tunnel: standing.handed.network.tunnel, socket },
            roster: Mutex::new(roster),
            wg_public,
            endpoint,
            door: Mutex::new(standing.handed.door),
            view: Mutex::new(view),
            changed: Condvar::new(),
            output: Mutex::new(output),
            connections: Arc::default(),
            stop: AtomicBool::new(false),
            commands: Mutex::new(sender),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        });
        start_threads(&shared, standing.pipe, standing.handed.network.listener, requests)?;
        let (init, cgroup) = (standing.init, standing.cgroup);
        let (ending, exit_code, reaped) = (None, None, false);
        Ok(Self { shared, init, cgroup, spool, commands, signals, clock, ending, exit_code, reaped, _user: user })
    }

    /// Keeps the pod until it is over, then writes down how it ended.
    fn keep(mut self) -> Result<()> {
        if self.shared.spec.start == Start::AtOnce {
            self.run(None, BTreeMap::new());
        } else {
            trim::drop_unchanged_file_pages();
        }
        while !self.reaped {
            self.wait()?;
            self.signals();
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command);
            }
            self.look_at_the_clock();
        }
        self.finish()
    }

    /// Sleeps until something happens or is due.
    fn wait(&self) -> Result<()> {
        let running = self.clock.started.is_some();
        let instants = [self.clock.term_over, running.then_some(self.clock.next_usage)];
        let left = self.clock.killed_at.saturating_sub(since_boot());
        let soonest = instants.into_iter().flatten().min();
        let pause = soonest.map_or(left, |soonest| left.min(soonest.saturating_duration_since(Instant::now())));
        // Rounded up, so that what is due is due; at most a minute, because a machine that sleeps wakes up late.
        let pause_ms = u16::try_from(pause.as_millis() + 1).unwrap_or(u16::MAX).min(60_000);
        let mut ready = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::from(pause_ms)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Only its readiness matters; empty is fine.
        let _ = self.shared.wake.read();
        Ok(())
    }

    fn signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let told_to_end = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|signal| signal as u32);
            if told_to_end.contains(&signal.ssi_signo) {
                self.kill(Reason::SupervisorEnded, "the supervisor was told to end".to_owned());
            }
        }
        let (pod, mut ended) = (self.init.pid, None);
        reap(&mut |pid, code| ended = ended.or((pid == pod).then_some(code)));
        if let Some(code) = ended {
            (self.reaped, self.exit_code) = (true, code);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Run { argv, env, reply } => {
                let outcome = if self.clock.started.is_some() || self.ending.is_some() {
                    Err("the program was started before: a pod runs one program once".to_owned())
                } else {
                    self.run(argv, env);
                    self.ending.as_ref().map_or(Ok(()), |(_, message)| Err(message.clone()))
                };
                // The one who asked may have gone.
                let _ = reply.try_send(outcome);
            }
            Command::Stop { term_ms } => {
                self.ending.get_or_insert((Reason::Stopped, "stopped by the worker".to_owned()));
                if self.clock.term_over.is_none() {
                    self.clock.term_over = Some(Instant::now() + Duration::from_millis(term_ms.min(600_000)));
                    self.terminate();
                }
            }
            Command::Extend { ends_at } => {
                self.clock.killed_at = killed_at(ends_at, self.shared.spec.grace_ms, now(), since_boot());
                lock(&self.shared.view).ends_at = ends_at;
            }
            Command::DiskFull { message } => self.kill(Reason::DiskLimit, message),
        }
    }

    fn run(&mut self, argv: Option<Vec<String>>, env: BTreeMap<String, String>) {
        let spec = &self.shared.spec;
        let argv = argv.unwrap_or_else(|| spec.argv.clone());
        match self.init.go(&self.shared.dir, spec, &argv, &env) {
            Ok(()) => {
                let now = Instant::now();
                self.clock.started = Some(now);
                self.clock.next_usage = now + Duration::from_millis(spec.usage_period_ms);
                lock(&self.shared.view).state = State::Running;
                self.shared.changed.notify_all();
            }
            Err(error) => self.kill(Reason::NotStarted, format!("{error:#}")),
        }
    }

    /// Asks the tenant's program to end: it is the child of bubblewrap's process 1, which is a child of the pod's.
    fn terminate(&mut self) {
        let below = procs::descendants(self.init.pid);
        let firsts: Vec<i32> =
            below.iter().filter(|(_, stat)| stat.parent == self.init.pid).map(|(pid, _)| *pid).collect();
        let programs: Vec<i32> =
            below.iter().filter(|(_, stat)| firsts.contains(&stat.parent)).map(|(pid, _)| *pid).collect();
        if programs.is_empty() {
            // Not started, or not yet that far.
            return self.kill(Reason::Stopped, "stopped by the worker".to_owned());
        }
        for pid in programs {
            // It may have ended in between; that is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let spec = &self.shared.spec;
        if since_boot() >= self.clock.killed_at {
            let ends_at = lock(&self.shared.view).ends_at;
            let message = format!("the lease ended at {ends_at}; grace of {} ms is over", spec.grace_ms);
            self.kill(Reason::LeaseEnded, message);
        }
        if self.clock.term_over.is_some_and(|at| now >= at) {
            // Says more than that it was asked to.
            self.ending.take_if(|(reason, _)| *reason == Reason::Stopped);
            self.kill(Reason::Stopped, "stopped by the worker; it did not end by itself".to_owned());
        }
        if self.clock.started.is_some() && now >= self.clock.next_usage && !self.reaped {
            let period = Duration::from_millis(self.shared.spec.usage_period_ms);
            self.clock.next_usage = (self.clock.next_usage + period).max(now);
            self.record();
            if self.spool.head().seq == 1 {
                trim::drop_unchanged_file_pages();
            }
        }
    }

    /// Ends the pod now. The first reason counts.
    fn kill(&mut self, reason: Reason, message: String) {
        self.ending.get_or_insert((reason, message));
        if !self.reaped {
            // Our own child, which is still unreaped: the pid is its. Its process 1 dies with it, and all below.
            let _ = kill(Pid::from_raw(self.init.pid), Signal::SIGKILL);
        }
        self.clock.term_over = None;
        // Once is enough; the loop ends with the pod.
        self.clock.killed_at = since_boot() + Duration::from_secs(3600);
    }

    fn used(&self) -> Used {
        if let Some(cgroup) = &self.cgroup {
            return cgroup.used();
        }
        let below = procs::descendants(self.init.pid).into_iter().map(|(_, stat)| stat);
        let (ticks, pages) =
            below.fold((0, 0), |(ticks, pages), stat| (ticks + stat.cpu_ticks, pages + stat.resident_pages));
        // USER_HZ is 100 on every Linux that Rust runs on; pages are 4 KiB on x86-64 and usually on arm64.
        Used { cpu_ms: ticks * 10, memory_bytes: pages * 4096, oom_kills: 0 }
    }

    fn record(&mut self) {
        let used = self.used();
        let served = self.clock.started.map(|at| at.elapsed()).unwrap_or_default();
        let served_ms = u64::try_from(served.as_millis()).unwrap_or(u64::MAX);
        let reading = Reading { at: now(), served_ms, cpu_ms: used.cpu_ms, memory_bytes: used.memory_bytes };
        match self.spool.append(reading) {
            Ok(record) => lock(&self.shared.view).usage = record,
            // What cannot be shown is not claimed: the chain goes on from the last record on the disk.
            Err(error) => eprintln!("usage record lost: {error}"),
        }
    }

    /// The pod's first process has ended: bury the rest, write down how it was, let readers finish.
    fn finish(mut self) -> Result<()> {
        let exited_at = (now(), monotonic_us());
        if self.clock.started.is_some() {
            self.record();
        }
        self.spool.sync()?;
        let oom_kills = self.used().oom_kills;
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        let deadline = Instant::now() + LINGER;
        reap_all(deadline, &mut |_, _| {});
        self.wait_for_output(deadline);
        let (reason, message) = self.ending.take().unwrap_or_else(|| {
            let code = self.exit_code.map_or_else(|| "by a signal".to_owned(), |code| format!("with status {code}"));
            let said = self.last_words().map_or_else(String::new, |words| format!(", saying: {words}"));
            (Reason::Exited, format!("the program ended {code}{said}"))
        });
        let spec = &self.shared.spec;
        let exit = Exit {
            pod: spec.pod,
            lease: spec.lease,
            fence: spec.fence,
            reason,
            message,
            code: self.exit_code,
            exited_at: exited_at.0,
            exited_monotonic_us: exited_at.1,
            usage: self.spool.head(),
            oom_kills,
        };
        write_whole(&self.shared.dir, EXIT_FILE, &exit)?;
        lock(&self.shared.view).state = State::Exited(Box::new(exit));
        self.shared.changed.notify_all();
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        // From here on `exit.json` and the spools answer.
        fs::remove_file(SOCKET_FILE)?;
        self.wait_for_readers(deadline);
        Ok(())
    }

    /// The end of what the program printed, in one line; none when it printed nothing.
    fn last_words(&self) -> Option<String> {
        let end = lock(&self.shared.output).end();
        let mut bytes = [0; LAST_WORDS_BYTES];
        let (_, count) = output::read(&self.shared.dir, end.saturating_sub(bytes.len() as u64), &mut bytes).ok()?;
        output::in_a_line(&bytes[..count])
    }

    fn wait_for_output(&self, deadline: Instant) {
        let mut view = lock(&self.shared.view);
        while !view.output_ended && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            view = self.shared.changed.wait_timeout(view, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_readers(&self, deadline: Instant) {
        let mut view = lock(&self.shared.view);
        while self.shared.connections.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            view = self.shared.changed.wait_timeout(view, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Clock {
    fn new(spec: &PodSpec) -> Self {
        let killed_at = killed_at(spec.ends_at, spec.grace_ms, now(), since_boot());
        Self { started: None, next_usage: Instant::now(), killed_at, term_over: None }
    }
}

/// When the pod is killed, since boot: as far ahead as end and grace are on the wall clock now.
fn killed_at(ends_at: UnixMs, grace_ms: u64, wall: UnixMs, since_boot: Duration) -> Duration {
    // A lease is weeks; a year keeps the sum in range whatever pod.json says.
    let left = ends_at.since(wall).min(Duration::from_secs(366 * 86_400));
    since_boot.saturating_add(left).saturating_add(Duration::from_millis(grace_ms))
}

/// Takes the exit of every child that has ended: its pid, and its status where it ended by itself.
fn reap(each: &mut dyn FnMut(i32, Option<i32>)) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => each(pid.as_raw(), Some(code)),
            Ok(WaitStatus::Signaled(pid, ..)) => each(pid.as_raw(), None),
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // No children left.
            Err(_) => return true,
        }
    }
}

/// Kills and buries everything below this process; as its subreaper, every orphan comes to it.
fn reap_all(deadline: Instant, each: &mut dyn FnMut(i32, Option<i32>)) {
    while !reap(each) && Instant::now() < deadline {
        for (pid, _) in procs::descendants(own_pid()) {
            // It may have ended in between; that is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn start_threads(shared: &Arc<Shared>, pipe: PipeReader, listener: TcpListener, requests: UnixListener) -> Result<()> {
    let own = Arc::clone(shared);
    thread("overlay", move || {
        if let Err(error) = pump::run(&own.link, &own.engine, &own.stop) {
            eprintln!("the overlay ended: {error}");
        }
    })?;
    let own = Arc::clone(shared);
    thread("output", move || keep_output(pipe, &own))?;
    let own = Arc::clone(shared);
    thread("disk", move || watch_disk(&own))?;
    let own = Arc::clone(shared);
    thread("store", move || streams::serve_store(&listener, &own))?;
    let own = Arc::clone(shared);
    thread("serve", move || serve::serve(&requests, &own))?;
    Ok(())
}

fn keep_output(mut pipe: PipeReader, shared: &Shared) {
    let mut buffer = [0u8; 16 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                // A full disk loses output, not the pod.
                let _ = lock(&shared.output).append(&buffer[..count]);
                shared.changed.notify_all();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lock(&shared.view).output_ended = true;
    shared.changed.notify_all();
}

fn watch_disk(shared: &Shared) {
    let (job, limit) = (shared.dir.join(JOB), shared.spec.limits.disk_bytes);
    let mut pause = DISK_PERIOD;
    while !shared.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let usage = disk::usage(&job);
        // What was deleted and is still open takes room as well, and no folder shows it.
        let hidden = disk::deleted_bytes(&job, procs::descendants(shared.pod_pid).into_iter().map(|(pid, _)| pid));
        let bytes = usage.bytes.saturating_add(hidden);
        if usage.cut.is_some() || bytes > limit {
            let much = usage.cut.map_or_else(|| format!("{bytes} bytes"), |cut| cut.to_string());
            let message = format!("/job holds {much}; the limit is {limit} bytes in {} files", disk::FILES_MAX);
            return shared.command(Command::DiskFull { message });
        }
        // A walk may cost a tenth of one CPU at most.
        pause = pause.max(began.elapsed() * 10);
        let view = lock(&shared.view);
        drop(shared.changed.wait_timeout_while(view, pause, |_| !shared.stop.load(Ordering::Relaxed)));
    }
}

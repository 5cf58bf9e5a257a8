//! A worker's machine: its records on a fake disk, pods that do what real ones do and everything that they should not.
//!
//! Pods outlive the worker, as their supervisors do. A pod's usage spool is real: the same records, hashes and bytes, made
//! when somebody reads them. What a program does is [`crate::program`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;
use atoll_life::Life;
use atoll_overlay::SignedStatement;
use atoll_worker::host::{ByteStream, Found, FoundState, Host, Output, Over, Standing};
use atoll_worker::supervisor::protocol::Verdict;
use atoll_worker::supervisor::spec::{AuthorisedKey, PodSpec};
use atoll_worker::supervisor::usage::{Reading, Record};
use atoll_worker::world::store::{FILE, Records, StoreError};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::disk::{Disk, Failure};
use crate::net::Place;
use crate::program::{self, Clusters, Fate, Habits};
use crate::random::Random;
use crate::trace::Trace;
use crate::truth::Truth;

/// How often a machine looks whether a lease has ended.
const GUARD_EVERY: Duration = Duration::from_secs(1);
/// Between two usage records.
const USAGE_EVERY: Duration = Duration::from_secs(1);
/// Calls of pods for their store that wait for the worker.
const CALLS_MAX: usize = 64;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Its name.
    pub place: Place,
    /// Its disk.
    pub disk: Disk,
    /// Its wall clock.
    pub clock: Clock,
    /// Its luck.
    pub random: Random,
    /// What is written down of it.
    pub trace: Trace,
    /// What really happens on it.
    pub truth: Truth,
    /// How pods find each other.
    pub clusters: Clusters,
    /// Whether supervisors end pods whose lease is over; not so is a planted bug.
    pub guarded: bool,
}

/// A machine. Clones are the same.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    around: Surroundings,
    state: Mutex<State>,
    calls: tokio::sync::Mutex<mpsc::Receiver<tokio::io::DuplexStream>>,
    to_worker: mpsc::Sender<tokio::io::DuplexStream>,
}

#[derive(Debug)]
struct State {
    pods: BTreeMap<PodId, Pod>,
    /// Covers everything that runs on the machine beside its worker.
    power: Life,
    habits: Habits,
    /// Whether the worker runs, and its socket answers.
    worker: bool,
    /// The devices of each pod, as the worker wrote them down.
    masks: BTreeMap<PodId, u16>,
}

#[derive(Debug)]
struct Pod {
    spec: PodSpec,
    fate: Fate,
    over: watch::Sender<Option<Over>>,
    /// Covers what its program does.
    life: Life,
    ran: Option<Ran>,
    /// When its supervisor ends it, on a clock that nobody sets.
    killed_at: UnixMs,
}

/// A program that was started, and its spool so far.
#[derive(Debug)]
struct Ran {
    from: Instant,
    until: Option<Instant>,
    last: Record,
    spool: Vec<u8>,
}

fn refusal(failure: Failure) -> StoreError {
    let kind = if failure == Failure::Full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    StoreError::Io { verb: "write", path: PathBuf::from(FILE), source: kind.into() }
}

fn gone() -> anyhow::Error {
    anyhow::anyhow!("its supervisor is gone")
}

impl Machine {
    /// A machine with power.
    #[must_use]
    pub fn new(around: Surroundings) -> Self {
        let (to_worker, calls) = mpsc::channel(CALLS_MAX);
        let state = State {
            pods: BTreeMap::new(),
            power: Life::default(),
            habits: Habits::default(),
            worker: false,
            masks: BTreeMap::new(),
        };
        let machine = Self(Arc::new(Inner {
            around,
            state: Mutex::new(state),
            calls: tokio::sync::Mutex::new(calls),
            to_worker,
        }));
        machine.guard();
        machine
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is made of.
    #[must_use]
    pub fn around(&self) -> &Surroundings {
        &self.0.around
    }

    /// From now on its pods behave like this.
    pub fn behave(&self, habits: Habits) {
        self.state().habits = habits;
    }

    /// Whether the worker's socket answers.
    pub fn worker(&self, runs: bool) {
        self.state().worker = runs;
    }

    /// The power goes and comes back: every pod is gone, the disk keeps what it keeps.
    pub async fn lose_power(&self) {
        let power = std::mem::take(&mut self.state().power);
        power.end().await;
        let pods = std::mem::take(&mut self.state().pods);
        for (id, pod) in pods {
            self.0.around.truth.ends(id);
            self.0.around.clusters.leave(&pod.spec);
        }
        self.0.around.disk.lose_power();
        self.guard();
    }

    /// Ends pods whose lease and grace are over, whatever the worker does.
    fn guard(&self) {
        if !self.0.around.guarded {
            return;
        }
        let (machine, power) = (Arc::downgrade(&self.0), self.state().power.clone());
        tokio::spawn(async move {
            let watch = async {
                loop {
                    tokio::time::sleep(GUARD_EVERY).await;
                    let Some(inner) = machine.upgrade() else { return };
                    Self(inner).end_leases();
                }
            };
            power.cover(watch).await
        });
    }

    fn end_leases(&self) {
        let now = self.0.around.clock.steady();
        let is_over = |pod: &Pod| pod.over.borrow().is_none() && now > pod.killed_at;
        let over: Vec<PodId> = self.state().pods.iter().filter(|(_, pod)| is_over(pod)).map(|(id, _)| *id).collect();
        for pod in over {
            self.end(pod, None, "the lease and its grace are over");
        }
    }

    /// What a supervisor makes of a lease's end on the wall, as soon as it is told.
    fn killed_at(&self, spec: &PodSpec, ends_at: UnixMs) -> UnixMs {
        let clock = &self.0.around.clock;
        clock.steady().after(ends_at.since(clock.now()) + Duration::from_millis(spec.grace_ms))
    }

    /// A pod is over. The first end counts.
    pub(crate) fn end(&self, id: PodId, code: Option<i32>, reason: &str) {
        let ended = {
            let mut state = self.state();
            let Some(pod) = state.pods.get_mut(&id).filter(|pod| pod.over.borrow().is_none()) else { return };
            let lie = pod.fate.lies.filter(|_| code.is_some());
            pod.over.send_replace(Some(Over { code: lie.or(code), reason: reason.to_owned() }));
            if let Some(ran) = &mut pod.ran {
                ran.until = Some(Instant::now());
            }
            self.0.around.clusters.leave(&pod.spec);
            pod.life.clone()
        };
        self.0.around.truth.ends(id);
        self.0.around.trace.line(&self.0.around.place, &format!("{id} is over: {reason}"));
        // The program may be what called this, so its end is not waited for.
        tokio::spawn(async move { ended.end().await });
    }

    /// A pod calls for its store.
    ///
    /// # Errors
    /// The worker does not run.
    pub(crate) async fn call_store(&self, pod: PodId) -> io::Result<tokio::io::DuplexStream> {
        let refused = io::ErrorKind::ConnectionRefused;
        if !self.state().worker {
            return Err(refused.into());
        }
        let (mut near, far) = tokio::io::duplex(64 << 10);
        near.write_all(format!("{{\"pod\":\"{pod}\"}}\n").as_bytes()).await?;
        self.0.to_worker.try_send(far).map_err(|_| io::Error::from(refused))?;
        Ok(near)
    }

    /// Runs what belongs to a pod: it ends with the pod, or the power.
    pub(crate) fn spawn_in(&self, id: PodId, work: impl Future<Output = ()> + Send + 'static) {
        let state = self.state();
        let Some(pod) = state.pods.get(&id) else { return };
        let (power, life) = (state.power.clone(), pod.life.clone());
        drop(state);
        tokio::spawn(async move { power.cover(async move { life.cover(work).await }).await });
    }

    fn with<T>(&self, id: PodId, act: impl FnOnce(&mut Pod) -> T) -> anyhow::Result<T> {
        self.state().pods.get_mut(&id).map(act).ok_or_else(gone)
    }

    fn over(&self, id: PodId) -> anyhow::Result<watch::Receiver<Option<Over>>> {
        self.with(id, |pod| pod.over.subscribe())
    }

    /// Lets milliseconds to seconds pass, as a system call on a busy machine does.
    async fn takes(&self, at_most_ms: u64) {
        let least = Duration::from_millis(1);
        let takes = self.0.around.random.lasts(least..Duration::from_millis(at_most_ms.max(2)));
        tokio::time::sleep(takes).await;
    }
}

impl Pod {
    /// Brings the spool up to now: a record for every second that the program has run.
    fn record(&mut self, clock: &Clock) -> Option<&[u8]> {
        let ran = self.ran.as_mut()?;
        let now = ran.until.unwrap_or_else(Instant::now);
        let whole = now.saturating_duration_since(ran.from).as_secs() / USAGE_EVERY.as_secs();
        while ran.last.seq < whole {
            let served_ms = (ran.last.seq + 1) * 1000;
            let ago = Instant::now().saturating_duration_since(ran.from + Duration::from_millis(served_ms));
            let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            let at = UnixMs(clock.now().0.saturating_sub(ago_ms));
            ran.last = ran.last.next(Reading { at, served_ms, cpu_ms: served_ms / 2, memory_bytes: 1 << 20 });
            let line = serde_json::to_vec(&ran.last).expect("a record of numbers and hashes is always JSON");
            ran.spool.extend(line);
            ran.spool.push(b'\n');
        }
        Some(&ran.spool)
    }
}

#[async_trait]
impl Host for Machine {
    async fn load(&self) -> Result<Records, StoreError> {
        let Some(bytes) = self.0.around.disk.read_whole(FILE).map_err(refusal)? else { return Ok(Records::default()) };
        let malformed = |error: serde_json::Error| StoreError::Malformed { path: FILE.into(), why: error.to_string() };
        serde_json::from_slice(&bytes).map_err(malformed)
    }

    async fn save(&self, records: &Records) -> Result<(), StoreError> {
        const BESIDE: &str = "pods.new";
        self.state().masks = records.pods.iter().map(|record| (record.pod, record.mask)).collect();
        let disk = &self.0.around.disk;
        let bytes = serde_json::to_vec(records).expect("records are always JSON");
        disk.create(BESIDE).and_then(|()| disk.truncate(BESIDE, 0)).map_err(refusal)?;
        disk.write(BESIDE, 0, &bytes).map_err(refusal)?;
        self.takes(5).await;
        disk.sync(BESIDE).and_then(|()| disk.rename(BESIDE, FILE)).map_err(refusal)
    }

    async fn take_up(&self, known: &BTreeSet<PodId>) -> anyhow::Result<Vec<Found>> {
        let (known, strange): (Vec<PodId>, Vec<PodId>) = self.state().pods.keys().partition(|id| known.contains(id));
        for id in strange {
            self.end(id, None, "nobody remembers it");
            self.state().pods.remove(&id);
        }
        self.takes(50).await;
        let found = |id: PodId| {
            let now = self.with(id, |pod| match (&*pod.over.borrow(), &pod.ran) {
                (Some(over), _) => FoundState::Ended { code: over.code, reason: over.reason.clone() },
                (None, None) => FoundState::Ready,
                (None, Some(_)) => FoundState::Running,
            });
            now.ok().map(|now| Found { pod: id, now })
        };
        Ok(known.into_iter().filter_map(found).collect())
    }

    async fn prepare(&self, spec: &PodSpec) -> anyhow::Result<Standing> {
        let around = &self.0.around;
        let fate = self.state().habits.draw(&around.random);
        anyhow::ensure!(!fate.cannot_start, "the pod's network cannot be made");
        self.takes(50).await;
        let wg_public: [u8; 32] = around.random.bytes();
        let pod = Pod {
            spec: spec.clone(),
            over: watch::Sender::new(None),
            life: Life::default(),
            ran: None,
            killed_at: self.killed_at(spec, spec.ends_at),
            fate,
        };
        {
            let mut state = self.state();
            anyhow::ensure!(!state.pods.contains_key(&spec.pod), "a directory serves one pod once");
            state.pods.insert(spec.pod, pod);
        }
        tokio::time::sleep(fate.starts_slowly).await;
        let port = u16::try_from(around.random.below(20_000..60_000))?;
        Ok(Standing { wg_public, endpoint: SocketAddr::new(spec.overlay.announce, port) })
    }

    async fn roster(
        &self,
        pod: PodId,
        members: &[SignedStatement],
        authorised: Vec<AuthorisedKey>,
    ) -> anyhow::Result<Vec<Verdict>> {
        self.takes(10).await;
        let order = self.with(pod, |pod| pod.spec.order)?;
        let verdict = |signed: &SignedStatement| {
            let key = signed.device_key();
            match signed.verify() {
                Err(error) => Verdict { ip: None, refused: Some(error.to_string()) },
                Ok(statement) => {
                    let is_leased = |one: &AuthorisedKey| one.device_key.0 == key && one.lease.0 == statement.lease;
                    let known = statement.order == order.0 && authorised.iter().any(is_leased);
                    let refused = (!known).then(|| "the chain leases nothing to it for this order".to_owned());
                    Verdict { ip: known.then_some(statement.overlay_ip), refused }
                }
            }
        };
        Ok(members.iter().map(verdict).collect())
    }

    async fn run(&self, pod: PodId, env: BTreeMap<String, String>) -> anyhow::Result<()> {
        self.takes(20).await;
        let around = &self.0.around;
        let (spec, fate) = self.with(pod, |pod| {
            anyhow::ensure!(pod.ran.is_none() && pod.over.borrow().is_none(), "it was started before");
            let last = Record::genesis(pod.spec.pod, &pod.spec.order, &pod.spec.lease, pod.spec.fence);
            pod.ran = Some(Ran { from: Instant::now(), until: None, last, spool: Vec::new() });
            Ok((pod.spec.clone(), pod.fate))
        })??;
        let mask = self.state().masks.get(&pod).copied().unwrap_or_default();
        anyhow::ensure!(mask != 0, "it is not on record");
        around.truth.starts(pod, &around.place, spec.order, spec.lease, mask);
        around.trace.line(&around.place, &format!("{pod} runs"));
        around.clusters.join(&spec);
        let mut whole = spec.env.clone();
        whole.extend(env);
        self.spawn_in(pod, program::run(self.clone(), spec, whole, fate));
        Ok(())
    }

    async fn extend(&self, pod: PodId, ends_at: UnixMs) -> anyhow::Result<()> {
        self.with(pod, |pod| pod.killed_at = self.killed_at(&pod.spec, ends_at))
    }

    async fn stop(&self, pod: PodId, term: Duration) -> anyhow::Result<Over> {
        let fate = self.with(pod, |pod| pod.fate)?;
        let mut over = self.over(pod)?;
        if fate.ignores_stop {
            tokio::time::sleep(term).await
        } else {
            self.takes(500).await
        }
        self.end(pod, if fate.ignores_stop { None } else { Some(143) }, "stopped");
        let ended = over.wait_for(Option::is_some).await.map_err(|_| gone())?;
        ended.clone().ok_or_else(gone)
    }

    async fn wait(&self, pod: PodId, patience: Duration) -> anyhow::Result<Option<Over>> {
        let mut over = self.over(pod)?;
        match tokio::time::timeout(patience, over.wait_for(Option::is_some)).await {
            Ok(Ok(over)) => Ok(over.clone()),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Ok(None),
        }
    }

    async fn discard(&self, pod: PodId) -> io::Result<()> {
        self.state().pods.remove(&pod);
        Ok(())
    }

    async fn usage(&self, pod: PodId, from: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let clock = self.0.around.clock.clone();
        let read = self.with(pod, |pod| {
            let spool = pod.record(&clock).ok_or(io::ErrorKind::NotFound)?;
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let rest = spool.get(from..).ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(rest[..rest.len().min(bytes_max)].to_vec())
        });
        let read: Result<Vec<u8>, io::ErrorKind> = read.map_err(|_| io::ErrorKind::NotFound)?;
        read.map_err(io::Error::from)
    }

    async fn dial(&self, pod: PodId, port: u16) -> anyhow::Result<Box<dyn ByteStream>> {
        self.takes(10).await;
        let head = self.0.around.clusters.head(pod).filter(|_| port == program::RAY_PORT);
        let head = head.ok_or_else(|| anyhow::anyhow!("nothing listens there"))?;
        let (near, far) = tokio::io::duplex(64 << 10);
        self.spawn_in(pod, program::serve(head, far));
        Ok(Box::new(near))
    }

    async fn output(&self, _: PodId, _: u64) -> io::Result<Output> {
        Ok(Output { begins: 0, bytes: Box::new(tokio::io::empty()) })
    }

    async fn accept(&self) -> io::Result<Box<dyn ByteStream>> {
        let call = self.0.calls.lock().await.recv().await;
        call.map(|call| Box::new(call) as Box<dyn ByteStream>).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where a machine's pods say they are.
#[must_use]
pub fn address(worker: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(worker).expect("worlds are small") + 1)
}

//! Workers linked to this node and to its neighbours: who is where, waking outboxes, byte streams into pods.
//!
//! [`Links`] is the handle that reconcilers and handlers hold. `connection` runs one link from `Hello` to its end,
//! `session` numbers messages, `inbound` carries out what workers say, `stream` is a byte stream over a WebSocket,
//! `routes` the three paths; `presence` knows which node holds which link, `attend` tells and asks the others. A worker has
//! one link, at one node. Liveness lives in memory; commands live in the store's outbox, so that any node can deliver them.
//! A link proves a device key and its slot on the chain; what a worker *says* is believed only about its own pods.

mod attend;
mod connection;
mod greeting;
mod inbound;
mod presence;
mod routes;
mod session;
mod strays;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atoll_api::link::envelope::Body;
use atoll_api::link::{OpenStream, open_stream};
use atoll_domain::id::{NodeId, PodId, StreamId, WorkerId};
use atoll_domain::meter::Observation;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::control::{Control, World};
use crate::store::Store;
use crate::store::rows::{Beat, Held, Known, Node};
use greeting::Greeting;
use presence::Presence;
use session::Session;

pub(crate) use attend::attend;
pub use routes::routes;
pub use stream::ByteStream;

/// The longest a worker may take to dial a stream.
const STREAM_DIAL_MAX: Duration = Duration::from_secs(5);
/// The most streams asked of workers and not dialled yet.
const STREAMS_ASKED_MAX: usize = 4096;
/// How often observations are written to the store.
const FLUSH_PERIOD: Duration = Duration::from_secs(2);
/// How long a pod's observation stays in memory after its last heartbeat; the store has it by then.
const OBSERVATION_KEPT: Duration = Duration::from_secs(600);

/// Where a byte stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A TCP port on the pod's own overlay address.
    Port(u16),
    /// The pod's output spool, followed from an offset.
    Output {
        /// In bytes.
        from: u64,
    },
}

/// Why there is no byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The worker has no link to this node.
    #[error("{0} is not connected")]
    NotLinked(WorkerId),
    /// The worker did not dial in time.
    #[error("{worker} did not open the stream within {} s", STREAM_DIAL_MAX.as_secs())]
    TooSlow {
        /// Which one.
        worker: WorkerId,
    },
    /// Too many streams wait already.
    #[error("too many streams wait for their workers")]
    Busy,
}

/// Workers linked to this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Links(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    world: Arc<dyn World>,
    node: NodeId,
    stop: CancellationToken,
    workers: Mutex<BTreeMap<WorkerId, Linked>>,
    presence: Mutex<Presence>,
    /// Links of this node that ended and that the others have not been told of.
    ended: Mutex<Vec<(WorkerId, u64)>>,
    /// Wakes whoever tells them.
    changed: Notify,
    seen: Mutex<BTreeMap<PodId, Seen>>,
    asked: Mutex<BTreeMap<StreamId, Asked>>,
    greeting: Greeting,
}

/// One worker's link, now or the last one.
#[derive(Debug)]
struct Linked {
    session: Session,
    /// The connection that speaks for it now.
    connection: Option<Connection>,
    /// Whether the other nodes were told of that connection.
    told: bool,
}

#[derive(Clone, Debug)]
struct Connection {
    /// Below 2^63: the store keeps it.
    number: u64,
    wake: Arc<Notify>,
    end: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    observation: Observation,
    written: bool,
}

#[derive(Debug)]
struct Asked {
    worker: WorkerId,
    dialled: oneshot::Sender<ByteStream>,
}

/// Workers and the numbers of their links.
type Told = Vec<(WorkerId, u64)>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// No worker is linked yet, and no other node is known.
    #[must_use]
    pub fn new(world: Arc<dyn World>) -> Self {
        let mut id = [0; 16];
        world.random(&mut id);
        let node = NodeId::from_random(id);
        Self(Arc::new(Inner {
            world,
            node,
            stop: CancellationToken::new(),
            workers: Mutex::default(),
            presence: Mutex::new(Presence::new(node)),
            ended: Mutex::default(),
            changed: Notify::new(),
            seen: Mutex::default(),
            asked: Mutex::default(),
            greeting: Greeting::default(),
        }))
    }

    /// This node, from its start to its end.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Whether a worker's link stands at this node.
    #[must_use]
    pub fn is_here(&self, worker: WorkerId) -> bool {
        lock(&self.0.workers).get(&worker).is_some_and(|linked| linked.connection.is_some())
    }

    /// Whether a worker's link stands, at this node or at another that lives.
    #[must_use]
    pub fn is_linked(&self, worker: WorkerId) -> bool {
        self.is_here(worker) || lock(&self.0.presence).holder(worker).is_some()
    }

    /// Where the other living node that holds a worker's link is reached.
    #[must_use]
    pub fn holder(&self, worker: WorkerId) -> Option<String> {
        lock(&self.0.presence).holder(worker).map(str::to_owned)
    }

    /// All workers whose links stand at this node.
    #[must_use]
    pub fn linked(&self) -> BTreeSet<WorkerId> {
        let workers = lock(&self.0.workers);
        workers.iter().filter(|(_, linked)| linked.connection.is_some()).map(|(id, _)| *id).collect()
    }

    /// How long this node has watched a worker without a link at any node; none while there is one.
    #[must_use]
    pub fn away(&self, worker: WorkerId) -> Option<Duration> {
        if self.is_here(worker) {
            return None;
        }
        lock(&self.0.presence).away(worker)
    }

    /// The link that the store has of a worker: what a decision that the worker is gone rests on.
    #[must_use]
    pub fn held(&self, worker: WorkerId) -> Option<Held> {
        lock(&self.0.presence).held(worker)
    }

    /// Whether this node, of all that live, looks after what has this name. Others may think the same for a moment.
    #[must_use]
    pub fn is_home(&self, name: impl std::fmt::Display) -> bool {
        lock(&self.0.presence).is_home(name.to_string().as_bytes())
    }

    fn is_alone(&self) -> bool {
        lock(&self.0.presence).is_alone()
    }

    /// Waits until links began or ended here that nobody was told of.
    async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Links that began and ended here and that the other nodes have not been told of.
    fn untold(&self) -> (Told, Told) {
        let ended = lock(&self.0.ended).clone();
        let workers = lock(&self.0.workers);
        let begun = workers.iter().filter(|(_, linked)| !linked.told);
        let begun = begun.filter_map(|(id, linked)| Some((*id, linked.connection.as_ref()?.number)));
        (begun.collect(), ended)
    }

    /// They have.
    fn told(&self, beat: &Beat) {
        lock(&self.0.ended).retain(|link| !beat.ended.contains(link));
        let mut workers = lock(&self.0.workers);
        for (worker, number) in &beat.begun {
            if let Some(linked) = workers.get_mut(worker) {
                linked.told |= linked.connection.as_ref().is_some_and(|current| current.number == *number);
            }
        }
    }

    /// Takes in which nodes there are; true when links must be read.
    fn look(&self, passed: Duration, nodes: &[Node]) -> bool {
        lock(&self.0.presence).look(passed, nodes)
    }

    /// Takes in who holds which link. A link of this node that another one has taken over ends here: the worker left it
    /// without a word. One that the store lost is told again.
    fn compare(&self, held: BTreeMap<WorkerId, Held>) {
        for (worker, linked) in lock(&self.0.workers).iter_mut().filter(|(_, linked)| linked.told) {
            let Some(connection) = &linked.connection else { continue };
            match held.get(worker) {
                Some(now) if *now == (Held { node: self.0.node, number: connection.number }) => {}
                Some(now) if now.node != self.0.node => connection.end.cancel(),
                _ => linked.told = false,
            }
        }
        lock(&self.0.presence).links(held);
    }

    /// Notes who is linked now and who is not any more.
    fn settle(&self) {
        let here = self.linked();
        lock(&self.0.presence).settle(&here);
    }

    fn forgotten(&self, url: &str) -> Vec<NodeId> {
        lock(&self.0.presence).forgotten(url)
    }

    /// What the store has of a worker that links now.
    async fn known(&self, store: &dyn Store, worker: WorkerId) -> anyhow::Result<Known> {
        self.0.greeting.known(store, worker).await
    }

    /// Looks into a worker's outbox now, if it is linked here.
    pub fn deliver(&self, worker: WorkerId) {
        if let Some(connection) = lock(&self.0.workers).get(&worker).and_then(|linked| linked.connection.as_ref()) {
            connection.wake.notify_one();
        }
    }

    /// What this node saw of a pod; none when it did not lately.
    #[must_use]
    pub fn observation(&self, pod: PodId) -> Option<Observation> {
        lock(&self.0.seen).get(&pod).map(|seen| seen.observation)
    }

    /// What was seen of a pod by any node: the store's, or this node's own where it is further.
    #[must_use]
    pub fn observed(&self, pod: PodId, stored: Observation) -> Observation {
        self.observation(pod).map_or(stored, |seen| seen.later(stored))
    }

    /// Asks a worker for a byte stream into one of its pods, and waits until it has dialled.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open_stream(&self, worker: WorkerId, pod: PodId, target: Target) -> Result<ByteStream, StreamError> {
        let mut id = [0; 16];
        self.0.world.random(&mut id);
        let id = StreamId::from_random(id);
        let (dialled, arrives) = oneshot::channel();
        {
            let mut asked = lock(&self.0.asked);
            if asked.len() >= STREAMS_ASKED_MAX {
                return Err(StreamError::Busy);
            }
            asked.insert(id, Asked { worker, dialled });
        }
        let _forget = Forget { links: self, id };
        let target = match target {
            Target::Port(port) => open_stream::Target::Port(u32::from(port)),
            Target::Output { from } => open_stream::Target::OutputFrom(from),
        };
        let body = OpenStream { stream: id.to_string(), pod: pod.to_string(), target: Some(target) };
        self.push(worker, Body::OpenStream(body)).ok_or(StreamError::NotLinked(worker))?;
        match tokio::time::timeout(STREAM_DIAL_MAX, arrives).await {
            Ok(Ok(stream)) => Ok(stream),
            _ => Err(StreamError::TooSlow { worker }),
        }
    }

    /// Queues a body for a linked worker.
    fn push(&self, worker: WorkerId, body: Body) -> Option<()> {
        let mut workers = lock(&self.0.workers);
        let linked = workers.get_mut(&worker)?;
        let connection = linked.connection.as_ref()?;
        linked.session.sequence.push(body).ok()?;
        connection.wake.notify_one();
        Some(())
    }

    /// Hands a dialled stream to whoever asked for it; `None` when nobody did, or of another worker.
    fn claim(&self, id: StreamId, worker: WorkerId) -> Option<oneshot::Sender<ByteStream>> {
        let mut asked = lock(&self.0.asked);
        if asked.get(&id)?.worker != worker {
            return None;
        }
        asked.remove(&id).map(|asked| asked.dialled)
    }

    /// Ends all links; none stands afterwards.
    pub fn close(&self) {
        self.0.stop.cancel();
    }

    fn is_closed(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Takes a worker's link over to a new connection. Gives the session's number, whether it goes on where it was, and
    /// the highest message received in it.
    fn begin(&self, worker: WorkerId, resume: (u64, u64), fresh: (u64, u64)) -> (Connection, bool, u64) {
        let (number, session) = fresh;
        let connection = Connection { number: number >> 1, wake: Arc::default(), end: self.0.stop.child_token() };
        let mut workers = lock(&self.0.workers);
        let linked = workers.entry(worker).or_insert_with(|| Linked {
            session: Session::new(session),
            connection: None,
            told: false,
        });
        if let Some(replaced) = linked.connection.replace(connection.clone()) {
            replaced.end.cancel();
        }
        linked.told = false;
        self.0.changed.notify_one();
        let resumed = linked.session.resume(resume.0, resume.1);
        if !resumed {
            linked.session = Session::new(session);
        }
        (connection, resumed, linked.session.sequence.received())
    }

    /// Gives a link up, unless another connection has taken it over. True when the worker is away now.
    fn end(&self, worker: WorkerId, connection: &Connection) -> bool {
        let mut workers = lock(&self.0.workers);
        let Some(linked) = workers.get_mut(&worker) else { return false };
        if linked.connection.as_ref().is_none_or(|current| current.number != connection.number) {
            return false;
        }
        linked.connection = None;
        drop(workers);
        lock(&self.0.ended).push((worker, connection.number));
        self.0.changed.notify_one();
        true
    }

    /// Works on the session, as long as `connection` speaks for the worker.
    fn session<T>(&self, worker: WorkerId, connection: &Connection, work: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut workers = lock(&self.0.workers);
        let linked = workers.get_mut(&worker)?;
        let current = linked.connection.as_ref()?;
        (current.number == connection.number).then(|| work(&mut linked.session))
    }

    /// Counts one heartbeat of a pod; `stored` is where counting starts when this node sees it first, or when another
    /// node has seen it since.
    fn beat(&self, pod: PodId, stored: Observation) {
        let now = self.0.world.now();
        let mut all = lock(&self.0.seen);
        let seen = all.entry(pod).or_insert(Seen { observation: stored, written: true });
        *seen = Seen { observation: seen.observation.later(stored).beat(now), written: false };
    }

    /// What is not in the store yet.
    fn unwritten(&self) -> BTreeMap<PodId, Observation> {
        let seen = lock(&self.0.seen);
        seen.iter().filter(|(_, seen)| !seen.written).map(|(pod, seen)| (*pod, seen.observation)).collect()
    }

    /// The store has these; old ones are forgotten.
    fn written(&self, observations: &BTreeMap<PodId, Observation>) {
        let now = self.0.world.now();
        let mut all = lock(&self.0.seen);
        for (pod, written) in observations {
            if let Some(seen) = all.get_mut(pod).filter(|seen| seen.observation == *written) {
                seen.written = true;
            }
        }
        let old = |seen: &Seen| seen.observation.last_seen.is_none_or(|last| now.since(last) > OBSERVATION_KEPT);
        all.retain(|_, seen| !(seen.written && old(seen)));
    }
}

/// Forgets that a stream was asked for, however waiting for it ends.
struct Forget<'a> {
    links: &'a Links,
    id: StreamId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.links.0.asked).remove(&self.id);
    }
}

/// Writes what was seen of pods to the store, every two seconds and once more at the end.
pub(crate) async fn flush_observations(control: Arc<Control>, stop: CancellationToken) {
    loop {
        let stopped = tokio::time::timeout(FLUSH_PERIOD, stop.cancelled()).await.is_ok();
        flush(&control).await;
        if stopped {
            return;
        }
    }
}

async fn flush(control: &Control) {
    let seen = control.links.unwritten();
    if seen.is_empty() {
        return;
    }
    match control.store.observations_put(&seen).await {
        Ok(()) => control.links.written(&seen),
        Err(error) => tracing::warn!(%error, "observations could not be written; the next round repeats them"),
    }
}

//! What the worker knows, and what follows from each event. Pure.

mod commands;
mod guard;
mod plan;
mod pods;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use atoll_api::link::envelope::Body;
use atoll_api::link::{CommandResult, PodReport, Usage};
use atoll_domain::cluster::PodState;
use atoll_domain::id::PodId;
use atoll_domain::key::Address;
use atoll_domain::meter::SignedUsage;
use atoll_domain::time::UnixMs;

use super::command::{Members, Start, Stream};
use super::operators::Operators;
use super::refusal::Refusal;
use super::store::{self, Ended, FenceRecord, PodRecord, Records};
use crate::chain_view::{OrderView, SlotView};
use crate::link::dial::OperatorName;
use crate::link::{LinkEvent, Presence};
use crate::supervisor::spec::{AuthorisedKey, PodSpec};

pub use plan::Me;

/// Pods that a worker handles at once, ended ones that are still reported included.
const PODS_MAX: usize = 64;
/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// On the link to an operator.
    Link { operator: OperatorName, event: LinkEvent },
    /// The chain was read: an order, or none, or nobody answered.
    Order { order: Address, view: Result<Option<OrderView>, String> },
    /// This worker's own slot was read.
    Slot(SlotView),
    /// To a pod.
    Pod { pod: PodId, news: PodNews },
    /// What was here when the worker started.
    Found(Vec<Found>),
    /// A meter has a new statement.
    Metered(SignedUsage),
    /// The records cannot be written, and why; or they can again.
    Records(Result<(), String>),
    /// Time has passed.
    Tick,
}

/// News of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNews {
    /// Its network stands.
    Prepared { wg_public: [u8; 32], endpoint: SocketAddr },
    /// It could not be made.
    NotPrepared { why: String },
    /// The supervisor took the roster; these statements it refused.
    RosterTaken { command: String, refused: Vec<String>, launched: bool },
    /// It did not.
    RosterFailed { command: String, why: String },
    /// It keeps to another end of the lease.
    Lengthened { end_s: i64 },
    /// It is over.
    Ended { code: Option<i32>, reason: String },
}

/// A pod's folder as it was found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The pod.
    pub pod: PodId,
    /// What its supervisor says.
    pub now: FoundState,
}

/// The state of a pod that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundState {
    /// Its network stands, its program was never started.
    Ready,
    /// It runs; the same process as before.
    Running,
    /// It ended.
    Ended { code: Option<i32>, reason: String },
}

/// Something to do. Carried out in order; none of them waits for another.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write down what must survive, before anything that follows.
    Persist(Records),
    /// Deliver to an operator's control plane.
    Send { to: OperatorName, body: Body },
    /// Read an order and its leases from the chain.
    ReadOrder(Address),
    /// Read this worker's slot.
    ReadSlot,
    /// Clear the slot's suspension with the device key.
    ResumeSlot,
    /// Make a pod's network.
    Prepare(Box<PodSpec>),
    /// Pass the members on, then start the program when `run` says with what.
    Roster {
        pod: PodId,
        command: String,
        members: Vec<Vec<u8>>,
        authorised: Vec<AuthorisedKey>,
        run: Option<BTreeMap<String, String>>,
    },
    /// The lease ends at `end_s` of the chain's clock, which is `ends_at` on this machine's.
    Extend { pod: PodId, end_s: i64, ends_at: UnixMs },
    /// End a pod.
    Stop { pod: PodId, reason: String },
    /// Delete what is left of an ended pod.
    Forget { pod: PodId },
    /// Dial a byte stream of an operator and splice it.
    OpenStream { to: OperatorName, stream: Stream },
    /// Dial a byte stream only to close it with these words.
    RefuseStream { to: OperatorName, stream: Stream, why: String },
}

/// What follows from an event.
pub type Effects = Vec<Effect>;

/// Where a pod stands on this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Another pod still holds its devices.
    Waiting,
    Preparing,
    Prepared,
    Running,
    Over,
}

#[derive(Debug)]
struct Pod {
    record: PodRecord,
    phase: Phase,
    /// What to make, until it is being made.
    plan: Option<Box<PodSpec>>,
    /// Rosters that wait for the chain, in order of arrival.
    rosters: VecDeque<(Members, UnixMs)>,
    /// Commands that the supervisor works on.
    with_supervisor: Vec<String>,
    /// The one of them that starts the program.
    launching: Option<String>,
    /// The highest roster passed on.
    generation: u64,
    stopping: Option<String>,
    /// Reads of the chain in a row that did not show its lease.
    unseen: u32,
    /// Whether the end of its lease is known by this worker's own clock, not by what one before it wrote down.
    end_seen: bool,
}

#[derive(Debug)]
struct Pending {
    from: OperatorName,
    start: Start,
    until: UnixMs,
}

/// Everything the worker knows.
#[derive(Debug)]
pub struct State {
    me: Me,
    pods: BTreeMap<PodId, Pod>,
    pending: BTreeMap<PodId, Pending>,
    fences: BTreeMap<Address, FenceRecord>,
    operators: Operators,
    /// Orders asked of the chain and not answered.
    reading: BTreeSet<Address>,
    usage: BTreeMap<PodId, SignedUsage>,
    /// Why records cannot be written, while they cannot: nothing new is begun.
    unwritable: Option<String>,
    guarded_at: UnixMs,
    slot_read_at: UnixMs,
    resumed_at: UnixMs,
}

impl State {
    /// A worker of these operators that remembers `records`. Its pods are dead until [`Event::Found`] says otherwise;
    /// those of a time when a worker had one operator are the first one's.
    #[must_use]
    pub fn new(me: Me, records: Records, operators: &[OperatorName]) -> Self {
        let owned = |mut record: PodRecord| {
            record.operator = record.operator.or_else(|| operators.first().cloned());
            (record.pod, Pod::remembered(record))
        };
        let pods = records.pods.into_iter().map(owned).collect();
        Self {
            me,
            pods,
            pending: BTreeMap::new(),
            fences: records.fences.into_iter().map(|fence| (fence.lease, fence)).collect(),
            operators: Operators::new(operators),
            reading: BTreeSet::new(),
            usage: BTreeMap::new(),
            unwritable: None,
            guarded_at: UnixMs(0),
            slot_read_at: UnixMs(0),
            resumed_at: UnixMs(0),
        }
    }

    /// Takes an event; says what to do. `now` is steady: it passes evenly, whatever is done to the machine's clock.
    pub fn apply(&mut self, event: Event, now: UnixMs) -> Effects {
        let mut out = Effects::new();
        match event {
            Event::Link { operator, event: LinkEvent::Up { .. } } => {
                self.operators.up(&operator, now);
                // Cumulative: the newest statement of each pod says everything that was missed.
                out.extend(self.usage.values().map(|signed| usage(operator.clone(), signed)));
            }
            Event::Link { operator, event: LinkEvent::Down { .. } } => self.operators.down(&operator),
            Event::Link { operator, event: LinkEvent::Received(body) } => {
                self.received(&operator, *body, now, &mut out)
            }
            Event::Order { order, view } => self.order_read(order, &view, now, &mut out),
            Event::Slot(slot) => self.slot_read(slot, now, &mut out),
            Event::Pod { pod, news } => self.news(pod, news, now, &mut out),
            Event::Found(found) => self.found(found, now, &mut out),
            Event::Metered(signed) => {
                if self.pods.contains_key(&signed.statement.pod) {
                    self.usage.insert(signed.statement.pod, signed);
                    // Signed facts are for all: any operator can settle by them what another one left.
                    out.extend(self.operators.linked().map(|operator| usage(operator, &signed)));
                }
            }
            Event::Records(written) => self.unwritable = written.err(),
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// What the link to an operator says without being asked; the facts are the probe's. Every operator sees every pod,
    /// and which ones are not its own.
    #[must_use]
    pub fn presence(&self, to: &OperatorName, facts: Vec<u8>) -> Presence {
        let running = |(id, pod): (&PodId, &Pod)| (pod.phase == Phase::Running).then(|| id.to_string());
        let report = |pod: &Pod| PodReport { foreign: !pod.is_of(to), ..pod.report() };
        Presence {
            facts,
            pods: self.pods.values().map(report).collect(),
            running: self.pods.iter().filter_map(running).collect(),
        }
    }

    /// Pods whose tenant may reach its object store now, and the operator that has the store.
    #[must_use]
    pub fn live(&self) -> BTreeMap<PodId, OperatorName> {
        let live = self.pods.iter().filter(|(_, pod)| pod.phase != Phase::Over);
        live.filter_map(|(id, pod)| Some((*id, pod.record.operator.clone()?))).collect()
    }

    fn records(&self) -> Records {
        Records {
            version: store::VERSION,
            pods: self.pods.values().map(|pod| pod.record.clone()).collect(),
            fences: self.fences.values().copied().collect(),
        }
    }

    fn answer(&mut self, to: &OperatorName, command: String, outcome: Result<(), Refusal>, out: &mut Effects) {
        let (accepted, code, message) = match outcome {
            Ok(()) => (true, String::new(), String::new()),
            Err(refusal) => {
                tracing::warn!(command, code = refusal.code(), reason = %refusal, "a command is refused");
                (false, refusal.code().to_owned(), refusal.to_string())
            }
        };
        let result = CommandResult { command, accepted, code, message };
        self.operators.answered(to, result.clone());
        out.push(Effect::Send { to: to.clone(), body: Body::CommandResult(result) });
    }

    /// Tells all operators how a pod is: by what they know of it another one settles what its own leaves behind. What is
    /// said to one that is away waits for it, or is part of its next hello.
    fn report(&self, pod: &PodId, out: &mut Effects) {
        let Some(pod) = self.pods.get(pod) else { return };
        let said = |to: &OperatorName| {
            let report = PodReport { foreign: !pod.is_of(to), ..pod.report() };
            Effect::Send { to: to.clone(), body: Body::PodReport(report) }
        };
        out.extend(self.operators.names().map(said));
    }
}

impl Pod {
    fn remembered(record: PodRecord) -> Self {
        Self::new(record, Phase::Over, None)
    }

    fn new(record: PodRecord, phase: Phase, plan: Option<Box<PodSpec>>) -> Self {
        Self {
            record,
            phase,
            plan,
            rosters: VecDeque::new(),
            with_supervisor: vec![],
            launching: None,
            generation: 0,
            stopping: None,
            unseen: 0,
            end_seen: false,
        }
    }

    fn is_of(&self, operator: &OperatorName) -> bool {
        self.record.operator.as_ref() == Some(operator)
    }

    /// The supervisor is done with a command; false when it was answered before.
    fn done_with(&mut self, command: &str) -> bool {
        let before = self.with_supervisor.len();
        self.with_supervisor.retain(|one| one != command);
        self.launching.take_if(|launching| launching == command);
        self.with_supervisor.len() < before
    }

    fn is_live(&self) -> bool {
        self.phase != Phase::Over
    }

    fn report(&self) -> PodReport {
        let state = match self.phase {
            Phase::Waiting | Phase::Preparing => PodState::Requested,
            Phase::Prepared => PodState::Prepared,
            Phase::Running => PodState::Running,
            Phase::Over => PodState::Exited,
        };
        let ended = self.record.ended.as_ref();
        let statement = self.record.statement.as_ref().and_then(|text| hex::decode(text).ok());
        PodReport {
            pod: self.record.pod.to_string(),
            lease: self.record.lease.0.to_vec(),
            order: self.record.order.0.to_vec(),
            fence: self.record.fence,
            state: state.word().to_owned(),
            reason: ended.map(|ended| ended.reason.clone()).unwrap_or_default(),
            statement: statement.unwrap_or_default(),
            // -1: told to end, killed, or never ran.
            exit_code: ended.map_or(0, |ended| ended.code.unwrap_or(-1)),
            foreign: false,
        }
    }

    fn end(&mut self, code: Option<i32>, reason: String, now: UnixMs) {
        self.phase = Phase::Over;
        self.plan = None;
        self.record.ended = Some(Ended { code, reason, at_ms: now.0 });
    }
}

fn usage(to: OperatorName, signed: &SignedUsage) -> Effect {
    let signed = serde_json::to_vec(signed).expect("a statement of numbers and text forms is always JSON");
    Effect::Send { to, body: Body::Usage(Usage { signed }) }
}

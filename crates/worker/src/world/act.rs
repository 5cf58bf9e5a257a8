//! Waiting and doing: the thin half of the world. Nothing is decided here.
//!
//! One task a pod talks to its supervisor, so that a slow one holds up nobody else; chain reads and streams are tasks of
//! their own. Everything they learn comes back as an event.

mod keeper;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use atoll_domain::id::PodId;
use atoll_domain::key::SecretKey;
use atoll_domain::meter::UsageStatement;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::state::{Effect, Effects, Event, Found, FoundState, State};
use super::store::Records;
use crate::chain_view::Reader;
use crate::link::dial::Dialer;
use crate::link::{Link, Presence};
use crate::meter::Meter;
use crate::outside::SharedOutside;
use crate::streams;
use crate::supervisor::client::{self, Pod};
use crate::supervisor::protocol::{Exit, State as PodNow};

/// Events that wait for the world; more hold up whoever brings them.
const EVENTS_MAX: usize = 64;
/// Between two ticks of the guard and of commands that wait for the chain.
const TICK: Duration = Duration::from_millis(500);
/// Streams into pods at once. More would only be asked for by a control plane that means harm, or has lost count.
const STREAMS_MAX: usize = 256;
/// Between two usage statements.
const METER_PERIOD: Duration = Duration::from_secs(2);

/// What the world acts with.
#[derive(Debug)]
pub struct Surroundings {
    /// The worker's state folder.
    pub state_dir: PathBuf,
    /// The program that has the hidden roles.
    pub executable: PathBuf,
    /// Clock and randomness.
    pub outside: SharedOutside,
    /// The chain.
    pub chain: Reader,
    /// The way to the control plane.
    pub dialer: Dialer,
    /// The device key.
    pub device: Arc<SecretKey>,
    /// The slot on the chain.
    pub slot: SlotRef,
    /// JSON of the probe's facts.
    pub facts: Vec<u8>,
}

/// The whole worker: knowledge, link, pods.
#[derive(Debug)]
pub struct World {
    state: State,
    around: Surroundings,
    link: Link,
    presence: watch::Sender<Presence>,
    live: watch::Sender<BTreeSet<PodId>>,
    events: mpsc::Receiver<Event>,
    to_world: mpsc::Sender<Event>,
    /// Events that this half made itself.
    ready: VecDeque<Event>,
    pods: BTreeMap<PodId, keeper::Orders>,
    meters: BTreeMap<PodId, Meter>,
    ticks: Interval,
    meter_ticks: Interval,
    /// Places for the streams that the control plane asks for.
    streams: Arc<Semaphore>,
}

impl Surroundings {
    /// Where a pod's folder is.
    #[must_use]
    pub fn pod_dir(&self, pod: PodId) -> PathBuf {
        self.pods_dir().join(pod.to_string())
    }

    fn pods_dir(&self) -> PathBuf {
        self.state_dir.join("pods")
    }
}

impl World {
    /// A world around a link. `presence` and `live` are what link and store connections look at.
    #[must_use]
    pub fn new(
        state: State,
        around: Surroundings,
        link: Link,
        presence: watch::Sender<Presence>,
        live: watch::Sender<BTreeSet<PodId>>,
    ) -> Self {
        let (to_world, events) = mpsc::channel(EVENTS_MAX);
        let (mut ticks, mut meter_ticks) = (interval(TICK), interval(METER_PERIOD));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        meter_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            state,
            around,
            link,
            presence,
            live,
            events,
            to_world,
            ready: VecDeque::new(),
            pods: BTreeMap::new(),
            meters: BTreeMap::new(),
            ticks,
            meter_ticks,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// Runs until the link's task has gone or the state cannot be kept.
    ///
    /// # Errors
    /// What must not be lost could not be written.
    pub async fn run(&mut self) -> Result<()> {
        loop {
            let Some(event) = self.select().await else { return Ok(()) };
            let effects = self.apply(event, self.around.outside.now());
            self.perform(effects).await?;
        }
    }

    /// Carries out what is known already, before anybody is told anything.
    ///
    /// # Errors
    /// As [`World::run`].
    pub async fn settle(&mut self) -> Result<()> {
        while let Some(event) = self.ready.pop_front() {
            let effects = self.apply(event, self.around.outside.now());
            self.perform(effects).await?;
        }
        Ok(())
    }

    /// Waits for the next event; none when the link has ended for good.
    pub async fn select(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                event = self.link.events.recv() => return event.map(Event::Link),
                event = self.events.recv() => return event,
                _ = self.ticks.tick() => return Some(Event::Tick),
                _ = self.meter_ticks.tick() => self.read_meters(),
            }
        }
    }

    /// Decides; shows the outcome to those who look.
    pub fn apply(&mut self, event: Event, now: UnixMs) -> Effects {
        let effects = self.state.apply(event, now);
        let now_present = self.state.presence(self.around.facts.clone());
        self.presence.send_if_modified(|shown| {
            let changed = shown.pods != now_present.pods || shown.running != now_present.running;
            *shown = now_present;
            changed
        });
        self.live.send_replace(self.state.live());
        effects
    }

    async fn perform(&mut self, effects: Effects) -> Result<()> {
        for effect in effects {
            match effect {
                Effect::Persist(records) => records.save(&self.around.state_dir)?,
                // The link takes everything at once; it has gone only when the worker is stopping.
                Effect::Send(body) => drop(self.link.outbox.send(body).await),
                other => self.start(other),
            }
        }
        Ok(())
    }

    /// Starts what takes time.
    fn start(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(_) | Effect::Send(_) => {}
            Effect::ReadOrder(order) => {
                let (chain, to_world) = (self.around.chain.clone(), self.to_world.clone());
                tokio::spawn(async move {
                    let view = chain.order(&order).await;
                    // Nobody listens any more when the worker is stopping.
                    let _ = to_world.send(Event::Order { order, view }).await;
                });
            }
            Effect::ReadSlot => {
                let (chain, to_world, at) = (self.around.chain.clone(), self.to_world.clone(), self.around.slot);
                tokio::spawn(async move {
                    match chain.slot(at).await {
                        Ok(Some(slot)) => drop(to_world.send(Event::Slot(slot)).await),
                        Ok(None) => tracing::error!("this worker's slot is not on the chain: join again"),
                        Err(why) => tracing::warn!(reason = why, "the chain cannot be read"),
                    }
                });
            }
            Effect::ResumeSlot => {
                let (chain, at, device) =
                    (self.around.chain.clone(), self.around.slot, Arc::clone(&self.around.device));
                tokio::spawn(async move {
                    match chain.resume(at, &device).await {
                        Ok(()) => tracing::info!("the slot's suspension is cleared"),
                        Err(why) => tracing::warn!(reason = why, "the slot's suspension could not be cleared"),
                    }
                });
            }
            Effect::Prepare(spec) => {
                let id = spec.pod;
                let dir = self.around.pod_dir(id);
                let orders = keeper::prepare(*spec, dir, self.around.executable.clone(), self.to_world.clone());
                self.pods.insert(id, orders);
            }
            Effect::Roster { pod, command, members, authorised, run } => {
                self.order(pod, keeper::Order::Roster { command, members, authorised, run });
            }
            Effect::Extend { pod, ends_at } => self.order(pod, keeper::Order::Extend { ends_at }),
            Effect::Stop { pod, .. } => self.order(pod, keeper::Order::Stop),
            Effect::Forget { pod } => self.forget(pod),
            Effect::OpenStream(asked) => {
                let (dialer, device) = (self.around.dialer.clone(), Arc::clone(&self.around.device));
                let pod = Pod::at(&self.around.pod_dir(asked.pod));
                self.stream(streams::open(dialer, device, asked, pod));
            }
            Effect::RefuseStream { stream, why } => {
                let (dialer, device) = (self.around.dialer.clone(), Arc::clone(&self.around.device));
                self.stream(streams::refuse(dialer, device, stream, why));
            }
        }
    }

    /// Serves a stream that the control plane asked for, if there is a place; it learns of a refusal by its deadline.
    fn stream(&self, serving: impl Future<Output = ()> + Send + 'static) {
        match Arc::clone(&self.streams).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(async move {
                serving.await;
                drop(place);
            })),
            Err(_) => tracing::warn!(at_once = STREAMS_MAX, "too many streams are open; another one is not dialled"),
        }
    }

    fn order(&self, pod: PodId, order: keeper::Order) {
        if let Some(orders) = self.pods.get(&pod) {
            orders.give(order);
        }
    }

    fn forget(&mut self, pod: PodId) {
        self.pods.remove(&pod);
        self.meters.remove(&pod);
        let dir = self.around.pod_dir(pod);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = client::discard(&dir) {
                tracing::warn!(dir = %dir.display(), reason = %error, "a pod's folder could not be deleted");
            }
        });
    }

    /// Signs what the meters have seen since the last time.
    fn read_meters(&mut self) {
        for pod in self.pods.keys() {
            if !self.meters.contains_key(pod) {
                match Meter::open(&self.around.pod_dir(*pod)) {
                    Ok(meter) => drop(self.meters.insert(*pod, meter)),
                    // Its folder is being made.
                    Err(error) => tracing::debug!(%pod, reason = %error, "no meter yet"),
                }
            }
        }
        let device = &self.around.device;
        for meter in self.meters.values_mut() {
            match meter.read() {
                Ok(Some(statement)) => self.ready.push_back(metered(statement, device)),
                Ok(None) => {}
                Err(error) => tracing::error!(reason = %error, "usage is not signed"),
            }
        }
    }

    /// Finds the pods that supervisors kept while no worker was here; ends those that nobody remembers.
    ///
    /// # Errors
    /// The folder of pods cannot be read or made.
    pub async fn take_up(&mut self, records: &Records) -> Result<()> {
        let pods_dir = self.around.pods_dir();
        std::fs::create_dir_all(&pods_dir).with_context(|| format!("make {}", pods_dir.display()))?;
        let known: BTreeSet<PodId> = records.pods.iter().map(|record| record.pod).collect();
        let killed = client::kill_orphans(&pods_dir, &known).await?;
        if !killed.is_empty() {
            tracing::warn!(pods = ?killed, "ended pods that this worker has no record of");
        }
        let mut found = vec![];
        for entry in std::fs::read_dir(&pods_dir).with_context(|| format!("read {}", pods_dir.display()))? {
            let entry = entry?;
            let Some(pod) = entry.file_name().to_str().and_then(|name| name.parse::<PodId>().ok()) else { continue };
            found.push(self.take_up_one(pod, known.contains(&pod)).await);
        }
        self.ready.push_back(Event::Found(found));
        Ok(())
    }

    async fn take_up_one(&mut self, pod: PodId, known: bool) -> Found {
        let dir = self.around.pod_dir(pod);
        let now = match Pod::attach(&dir).await {
            Ok((supervised, status)) if known => {
                let now = match status.state {
                    PodNow::Ready => FoundState::Ready,
                    PodNow::Running => FoundState::Running,
                    PodNow::Exited(exit) => ended(&exit),
                };
                self.pods.insert(pod, keeper::take_up(supervised, self.to_world.clone()));
                now
            }
            _ => match Pod::exit_of(&dir) {
                Some(exit) => ended(&exit),
                None => FoundState::Ended { code: None, reason: "its supervisor is gone".to_owned() },
            },
        };
        if matches!(now, FoundState::Ended { .. }) && known && !self.pods.contains_key(&pod) {
            // Its last usage may not have been told.
            if let Ok(meter) = Meter::open(&dir) {
                self.meters.insert(pod, meter);
            }
        }
        Found { pod, now }
    }
}

fn metered(statement: UsageStatement, device: &SecretKey) -> Event {
    Event::Metered(statement.sign(device))
}

/// A supervisor's account of an end, in the worker's words.
fn ended(exit: &Exit) -> FoundState {
    FoundState::Ended { code: exit.code, reason: exit.message.clone() }
}

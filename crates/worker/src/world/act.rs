//! Waiting and doing: the thin half of the world. Nothing is decided here.
//!
//! One task a pod talks to the machine, so that a slow one holds up nobody else; chain reads and streams are tasks of
//! their own. Everything they learn comes back as an event.

mod gate;
mod keeper;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use atoll_api::link::envelope::Body;
use atoll_domain::id::PodId;
use atoll_domain::key::SecretKey;
use atoll_domain::meter::UsageStatement;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::state::{Effect, Effects, Event, State};
use super::store::Records;
use crate::chain_view::Reader;
use crate::host::{FoundState, SharedHost};
use crate::link::dial::{Operator, OperatorName};
use crate::link::{Link, LinkEvent, Presence};
use crate::meter::Meter;
use crate::outside::SharedOutside;
use crate::streams;

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
    /// The machine.
    pub host: SharedHost,
    /// Clock and randomness.
    pub outside: SharedOutside,
    /// The chain.
    pub chain: Reader,
    /// The ways to every operator's control plane.
    pub operators: Arc<BTreeMap<OperatorName, Operator>>,
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
    lines: Vec<Line>,
    /// The line that was heard last: the others come first.
    heard: usize,
    gate: gate::Gate,
    /// The machine's clock when this world began, and when that was.
    began: (UnixMs, Instant),
    live: watch::Sender<BTreeMap<PodId, OperatorName>>,
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

/// The world's end of the link to one operator.
#[derive(Debug)]
pub struct Line {
    /// Whose.
    pub operator: OperatorName,
    /// What is said and heard.
    pub link: Link,
    /// What the link says of this machine without being asked.
    pub presence: watch::Sender<Presence>,
}

impl World {
    /// A world around its links. `live` is what store connections look at.
    #[must_use]
    pub fn new(
        state: State,
        around: Surroundings,
        lines: Vec<Line>,
        live: watch::Sender<BTreeMap<PodId, OperatorName>>,
    ) -> Self {
        let (to_world, events) = mpsc::channel(EVENTS_MAX);
        let began = (around.outside.now(), Instant::now());
        let (mut ticks, mut meter_ticks) = (interval(TICK), interval(METER_PERIOD));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        meter_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            state,
            around,
            lines,
            heard: 0,
            gate: gate::Gate::default(),
            began,
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

    /// Runs until the links' tasks have gone.
    pub async fn run(&mut self) {
        while let Some(event) = self.select().await {
            self.take(event).await;
        }
    }

    /// Carries out what is known already, before anybody is told anything.
    pub async fn settle(&mut self) {
        while let Some(event) = self.ready.pop_front() {
            self.take(event).await;
        }
        // What was found is so, whether or not it could be written down.
        self.show(true);
    }

    async fn take(&mut self, event: Event) {
        if matches!(event, Event::Tick) {
            self.write_again().await;
        }
        let effects = self.apply(event, self.now());
        self.perform(effects).await;
    }

    /// The time of everything that is decided: the machine's when this world began, and what has passed since. Setting the
    /// machine's clock does not move it.
    fn now(&self) -> UnixMs {
        self.began.0.after(self.began.1.elapsed())
    }

    /// A time to come, as the machine's clock will show it.
    fn on_the_wall(&self, at: UnixMs) -> UnixMs {
        let (wall, now) = (self.around.outside.now(), self.now());
        UnixMs(wall.0.saturating_add(at.0).saturating_sub(now.0))
    }

    /// Waits for the next event; none when a link has ended for good.
    pub async fn select(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                // What operators say comes last: however much it is, the rest is seen to.
                _ = self.ticks.tick() => return Some(Event::Tick),
                _ = self.meter_ticks.tick() => {}
                event = self.events.recv() => return event,
                heard = poll_fn(|cx| poll_lines(&mut self.lines, &mut self.heard, cx)) => {
                    return heard.map(|(operator, event)| Event::Link { operator, event });
                }
            }
            self.read_meters().await;
        }
    }

    /// Decides; shows the outcome to those who look.
    pub fn apply(&mut self, event: Event, now: UnixMs) -> Effects {
        let effects = self.state.apply(event, now);
        self.live.send_replace(self.state.live());
        effects
    }

    /// Shows the links what is here. What is not written down is not shown, but for what runs: its time is being served.
    fn show(&self, pods: bool) {
        for line in &self.lines {
            let now = self.state.presence(&line.operator, self.around.facts.clone());
            line.presence.send_modify(|shown| {
                let pods = if pods { now.pods } else { std::mem::take(&mut shown.pods) };
                *shown = Presence { pods, ..now };
            });
        }
    }

    async fn perform(&mut self, effects: Effects) {
        for effect in effects {
            let Some(effect) = self.gate.pass(effect) else { continue };
            match effect {
                Effect::Persist(records) if self.gate.unsaved().is_some() => self.gate.close(records),
                Effect::Persist(records) => {
                    if let Err(error) = self.around.host.save(&records).await {
                        tracing::error!(reason = %error, "the records cannot be written; nothing new is begun until they can");
                        self.gate.close(records);
                        self.ready.push_back(Event::Records(Err(error.to_string())));
                    }
                }
                Effect::Send { to, body } => self.send(&to, body).await,
                other => self.start(other),
            }
        }
        self.show(self.gate.unsaved().is_none());
    }

    /// Writes what could not be written before; then does what waited for it.
    async fn write_again(&mut self) {
        let Some(records) = self.gate.unsaved() else { return };
        if self.around.host.save(records).await.is_ok() {
            tracing::info!("the records are written again");
            self.ready.push_back(Event::Records(Ok(())));
            let held = self.gate.open();
            self.perform(held.into()).await;
        }
    }

    async fn send(&self, to: &OperatorName, body: Body) {
        if let Some(line) = self.lines.iter().find(|line| line.operator == *to) {
            // The link takes everything at once; it has gone only when the worker is stopping.
            drop(line.link.outbox.send(body).await);
        }
    }

    /// Starts what takes time.
    fn start(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(_) | Effect::Send { .. } => {}
            Effect::ReadOrder(order) => {
                let (chain, to_world) = (self.around.chain.clone(), self.to_world.clone());
                atoll_life::spawn(async move {
                    let view = chain.order(&order).await;
                    // Nobody listens any more when the worker is stopping.
                    let _ = to_world.send(Event::Order { order, view }).await;
                });
            }
            Effect::ReadSlot => {
                let (chain, to_world, at) = (self.around.chain.clone(), self.to_world.clone(), self.around.slot);
                atoll_life::spawn(async move {
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
                atoll_life::spawn(async move {
                    match chain.resume(at, &device).await {
                        Ok(()) => tracing::info!("the slot's suspension is cleared"),
                        Err(why) => tracing::warn!(reason = why, "the slot's suspension could not be cleared"),
                    }
                });
            }
            Effect::Prepare(mut spec) => {
                let id = spec.pod;
                spec.ends_at = self.on_the_wall(spec.ends_at);
                self.meters.insert(id, Meter::new(id, &spec.order, spec.lease, spec.fence));
                let orders = keeper::prepare(*spec, Arc::clone(&self.around.host), self.to_world.clone());
                self.pods.insert(id, orders);
            }
            Effect::Roster { pod, command, members, authorised, run } => {
                self.order(pod, keeper::Order::Roster { command, members, authorised, run });
            }
            Effect::Extend { pod, end_s, ends_at } => {
                let ends_at = self.on_the_wall(ends_at);
                self.order(pod, keeper::Order::Extend { end_s, ends_at });
            }
            Effect::Stop { pod, .. } => self.order(pod, keeper::Order::Stop),
            Effect::Forget { pod } => self.forget(pod),
            Effect::OpenStream { to, stream } => {
                if let Some(operator) = self.around.operators.get(&to).cloned() {
                    let (device, host) = (Arc::clone(&self.around.device), Arc::clone(&self.around.host));
                    self.stream(streams::open(operator, device, stream, host));
                }
            }
            Effect::RefuseStream { to, stream, why } => {
                if let Some(operator) = self.around.operators.get(&to).cloned() {
                    let device = Arc::clone(&self.around.device);
                    self.stream(streams::refuse(operator, device, stream, why));
                }
            }
        }
    }

    /// Serves a stream that the control plane asked for, if there is a place; it learns of a refusal by its deadline.
    fn stream(&self, serving: impl Future<Output = ()> + Send + 'static) {
        match Arc::clone(&self.streams).try_acquire_owned() {
            Ok(place) => drop(atoll_life::spawn(async move {
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
        let host = Arc::clone(&self.around.host);
        atoll_life::spawn(async move {
            if let Err(error) = host.discard(pod).await {
                tracing::warn!(%pod, reason = %error, "what is left of a pod could not be deleted");
            }
        });
    }

    /// Signs what the meters have seen since the last time.
    async fn read_meters(&mut self) {
        let device = &self.around.device;
        for meter in self.meters.values_mut() {
            match meter.read(self.around.host.as_ref()).await {
                Ok(Some(statement)) => self.ready.push_back(metered(statement, device)),
                Ok(None) => {}
                Err(error) => tracing::error!(reason = %error, "usage is not signed"),
            }
        }
    }

    /// Finds the pods that went on while no worker was here; ends those that nobody remembers.
    ///
    /// # Errors
    /// The pods of this machine cannot be listed.
    pub async fn take_up(&mut self, records: &Records) -> Result<()> {
        let known: BTreeSet<PodId> = records.pods.iter().map(|record| record.pod).collect();
        let found = self.around.host.take_up(&known).await?;
        for record in &records.pods {
            // The last usage of one that ended may not have been told.
            let meter = Meter::new(record.pod, &record.order, record.lease, record.fence);
            self.meters.insert(record.pod, meter);
        }
        for found in &found {
            let over = matches!(found.now, FoundState::Ended { .. });
            if known.contains(&found.pod) && !over {
                let orders = keeper::take_up(found.pod, Arc::clone(&self.around.host), self.to_world.clone());
                self.pods.insert(found.pod, orders);
            }
        }
        self.ready.push_back(Event::Found(found));
        Ok(())
    }
}

/// The next event of any link; none when one of them has ended. Begins behind the one that was heard last, so that none
/// is kept waiting by another that says much.
fn poll_lines(lines: &mut [Line], heard: &mut usize, cx: &mut Context<'_>) -> Poll<Option<(OperatorName, LinkEvent)>> {
    let count = lines.len();
    for step in 1..=count {
        let at = (*heard + step) % count;
        let line = &mut lines[at];
        if let Poll::Ready(event) = line.link.events.poll_recv(cx) {
            *heard = at;
            return Poll::Ready(event.map(|event| (line.operator.clone(), event)));
        }
    }
    Poll::Pending
}

fn metered(statement: UsageStatement, device: &SecretKey) -> Event {
    Event::Metered(statement.sign(device))
}

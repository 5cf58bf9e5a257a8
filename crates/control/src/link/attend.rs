//! Attends to the other nodes of this operator: tells them which links are here, and learns what they did.
//!
//! A beat goes out every second and whenever links changed, with all changes in one write; never one per heartbeat. A look
//! comes back with who lives, who holds what, which commands are new and whether jobs changed. Both are polls of the
//! store: losing one costs a period, and all open commands are looked for now and then besides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::flush;
use crate::control::Control;
use crate::store::Result;
use crate::store::rows::{Beat, News};

/// How often a node says that it lives.
const BEAT_PERIOD: Duration = Duration::from_secs(1);
/// How often a node looks while others live.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// How soon one write of changed links may follow another: a thousand workers that come at once are a few writes.
const CHANGES_GAP: Duration = Duration::from_millis(50);
/// How long a command's number is remembered: one below it may be written later.
const NUMBERS_KEPT: Duration = Duration::from_secs(2);
/// How often all open commands are looked for, whatever was heard of them.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// The longest that a stopping node takes to sign off.
const SIGN_OFF_MAX: Duration = Duration::from_secs(2);

/// Runs until `stop`, then says that this node is over.
pub(crate) async fn attend(control: Arc<Control>, stop: CancellationToken) {
    let mut attendance = Attendance::new(&control);
    loop {
        if let Err(error) = attendance.round().await {
            tracing::warn!(%error, "the other nodes could not be told or asked; the next round does");
        }
        let period = if control.links.is_alone() { BEAT_PERIOD } else { LOOK_PERIOD };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(CHANGES_GAP) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = control.links.changed() => {}
            () = tokio::time::sleep(period.saturating_sub(CHANGES_GAP)) => {}
        }
    }
    // What this node saw goes first: whoever takes its workers over counts on from there.
    flush(&control).await;
    let signed_off = tokio::time::timeout(SIGN_OFF_MAX, control.store.nodes_drop(&[control.links.node()])).await;
    if !matches!(signed_off, Ok(Ok(()))) {
        tracing::warn!("the other nodes were not told that this one ends; they notice");
    }
}

struct Attendance<'a> {
    control: &'a Control,
    beats: u64,
    beaten: Option<Instant>,
    looked: Option<Instant>,
    swept: Option<Instant>,
    jobs: u64,
    /// Commands up to this number are known.
    commands_after: Option<u64>,
    /// Later ones that are known, and since when.
    commands: BTreeMap<u64, Instant>,
}

impl<'a> Attendance<'a> {
    const fn new(control: &'a Control) -> Self {
        Self {
            control,
            beats: 0,
            beaten: None,
            looked: None,
            swept: None,
            jobs: 0,
            commands_after: None,
            commands: BTreeMap::new(),
        }
    }

    async fn round(&mut self) -> Result<()> {
        self.beat().await?;
        self.look().await?;
        self.sweep().await
    }

    /// Wakes every link that has an open command: for what a look missed. One question for all of them.
    async fn sweep(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.swept.is_some_and(|last| now - last < SWEEP_PERIOD) {
            return Ok(());
        }
        for worker in self.control.store.workers_commanded().await? {
            self.control.links.deliver(worker);
        }
        self.swept = Some(now);
        Ok(())
    }

    async fn beat(&mut self) -> Result<()> {
        let links = &self.control.links;
        let (begun, ended) = links.untold();
        let now = Instant::now();
        let due = self.beaten.is_none_or(|last| now - last >= BEAT_PERIOD);
        if !due && begun.is_empty() && ended.is_empty() {
            return Ok(());
        }
        self.beats += 1;
        let url = self.control.config.url();
        let beat = Beat { node: links.node(), url, count: self.beats, begun, ended };
        self.control.store.node_beat(&beat).await?;
        links.told(&beat);
        self.beaten = Some(now);
        Ok(())
    }

    async fn look(&mut self) -> Result<()> {
        let (control, links) = (self.control, &self.control.links);
        let after = match self.commands_after {
            Some(after) => after,
            None => *self.commands_after.insert(control.store.last_command().await?),
        };
        let news = control.store.news(after).await?;
        // After the answer: how long the store took to give it was no time watched.
        let now = Instant::now();
        let first = self.looked.is_none();
        let passed = self.looked.replace(now).map_or(Duration::ZERO, |last| now - last);
        if links.look(passed, &news.nodes) {
            let held = control.store.links().await?;
            links.compare(held);
        }
        links.settle();
        // A node that starts where another was has taken its place; that one, if it lives, says so again.
        let place = if first { control.config.url() } else { String::new() };
        let forgotten = links.forgotten(&place);
        if !forgotten.is_empty() {
            control.store.nodes_drop(&forgotten).await?;
        }
        self.wake(&news, now);
        Ok(())
    }

    /// Wakes what waits for what other nodes did.
    fn wake(&mut self, news: &News, now: Instant) {
        if news.jobs != self.jobs && !self.control.links.is_alone() {
            self.control.wake.signal();
        }
        self.jobs = news.jobs;
        for (number, worker) in &news.commands {
            if self.commands.insert(*number, now).is_none() {
                self.control.links.deliver(*worker);
            }
        }
        // A number is given when a command is written and seen when its transaction is over: for a while, smaller ones may
        // come after greater ones.
        for (number, _) in &news.commands {
            let Some(first) = self.commands.get(number).copied() else { continue };
            if now - first < NUMBERS_KEPT {
                break;
            }
            self.commands.remove(number);
            self.commands_after = Some(*number);
        }
    }
}

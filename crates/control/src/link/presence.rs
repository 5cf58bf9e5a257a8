//! Which node holds which worker's link, as one node sees it. Pure: how long ago it looked last is an argument.
//!
//! Nobody's clock is compared with another's. A node lives as long as its count of beats goes on, and time is what the
//! watcher itself has watched: a node that was paused, or that its store kept waiting, has watched for no longer than it
//! looked, and gives nobody up for its own absence.
//!
//! When a node dies its workers come to the others all at once, and wait for their turn there. While they keep coming, the
//! time that a worker is away does not count: it may be next. What bears witness is workers that have linked, with keys that
//! the chain knows; callers that only knock hold nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atoll_domain::id::{NodeId, WorkerId};
use atoll_domain::key::sha256;

use crate::store::rows::{Held, Node};

/// How long a node counts as living without a beat: two may come late.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// After how much silence a node and its links are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// The most that one look adds to the time watched.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// For how long one worker that comes vouches for those that may be behind it: ten times what a handshake and a greeting
/// take a node that has one core for them. Three that come back in an hour vouch for nothing.
const CROWD_EACH: Duration = Duration::from_millis(50);
/// The most that all of them do: the longest pause between two tries of a worker, 15 s, and one more try of 5 s.
const CROWD_MAX: Duration = Duration::from_secs(20);
/// The most time away that does not count, whoever comes: twice what ten thousand workers take.
const FORGIVEN_MAX: Duration = Duration::from_secs(120);

/// What one node knows of all.
#[derive(Debug)]
pub(super) struct Presence {
    me: NodeId,
    watched: Duration,
    /// Of it, the time in which no crowd came.
    calm: Duration,
    /// Until when workers keep coming, in time watched.
    crowd: Duration,
    nodes: BTreeMap<NodeId, Watched>,
    held: BTreeMap<WorkerId, Held>,
    linked: BTreeSet<WorkerId>,
    /// When a worker was first seen without a link.
    gone: BTreeMap<WorkerId, Gone>,
}

/// A moment, in time watched and in calm time.
#[derive(Clone, Copy, Debug, Default)]
struct Gone {
    watched: Duration,
    calm: Duration,
}

#[derive(Debug)]
struct Watched {
    url: String,
    beat: u64,
    changes: u64,
    heard: Duration,
}

impl Presence {
    pub(super) const fn new(me: NodeId) -> Self {
        Self {
            me,
            watched: Duration::ZERO,
            calm: Duration::ZERO,
            crowd: Duration::ZERO,
            nodes: BTreeMap::new(),
            held: BTreeMap::new(),
            linked: BTreeSet::new(),
            gone: BTreeMap::new(),
        }
    }

    /// Takes in which nodes there are, `passed` after the last look. True when links changed since they were last read.
    pub(super) fn look(&mut self, passed: Duration, nodes: &[Node]) -> bool {
        let passed = passed.min(LOOK_MAX);
        self.watched += passed;
        self.calm += passed.min(self.watched.saturating_sub(self.crowd));
        let mut changed = nodes.len() != self.nodes.len();
        let mut before = std::mem::take(&mut self.nodes);
        for Node { id, url, beat, changes } in nodes {
            let known = before.remove(id);
            changed |= known.as_ref().is_none_or(|known| known.changes != *changes);
            let heard = known.filter(|known| known.beat == *beat).map_or(self.watched, |known| known.heard);
            self.nodes.insert(*id, Watched { url: url.clone(), beat: *beat, changes: *changes, heard });
        }
        changed
    }

    /// Takes in who holds which link.
    pub(super) fn links(&mut self, held: BTreeMap<WorkerId, Held>) {
        self.held = held;
    }

    /// Notes who is linked now, `here` or anywhere, and who is not any more.
    pub(super) fn settle(&mut self, here: &BTreeSet<WorkerId>) {
        let elsewhere = self.held.keys().copied().filter(|worker| self.holder(*worker).is_some());
        let linked: BTreeSet<WorkerId> = here.iter().copied().chain(elsewhere).collect();
        let came = u32::try_from(linked.difference(&self.linked).count()).unwrap_or(u32::MAX);
        let crowd = self.crowd.max(self.watched).saturating_add(CROWD_EACH.saturating_mul(came));
        self.crowd = crowd.min(self.watched + CROWD_MAX);
        for worker in self.linked.difference(&linked) {
            self.gone.insert(*worker, Gone { watched: self.watched, calm: self.calm });
        }
        self.gone.retain(|worker, _| !linked.contains(worker));
        self.linked = linked;
    }

    fn lives(&self, node: NodeId) -> bool {
        let heard = |watched: &Watched| self.watched.saturating_sub(watched.heard) < SILENT_MAX;
        node == self.me || self.nodes.get(&node).is_some_and(heard)
    }

    /// Nodes that can be forgotten, and those whose place at `url` this one took over.
    pub(super) fn forgotten(&self, url: &str) -> Vec<NodeId> {
        let over = |(id, node): &(&NodeId, &Watched)| {
            let silent = self.watched.saturating_sub(node.heard);
            **id != self.me && (silent >= FORGET_AFTER || node.url == url)
        };
        self.nodes.iter().filter(over).map(|(id, _)| *id).collect()
    }

    /// Whether any other node lives.
    pub(super) fn is_alone(&self) -> bool {
        !self.nodes.keys().any(|node| *node != self.me && self.lives(*node))
    }

    /// The other living node that holds a worker's link: its URL.
    pub(super) fn holder(&self, worker: WorkerId) -> Option<&str> {
        let held = self.held.get(&worker).filter(|held| held.node != self.me && self.lives(held.node))?;
        self.nodes.get(&held.node).map(|node| node.url.as_str())
    }

    /// The link that the store has of a worker, whoever holds it and whether that node lives.
    pub(super) fn held(&self, worker: WorkerId) -> Option<Held> {
        self.held.get(&worker).copied()
    }

    /// How long this node has watched a worker without a link anywhere; none while there is one. A worker that was never
    /// seen is away since this node began to watch. One whose node fell silent, since that node stopped counting as
    /// living: its worker needs a moment to find another. Time in which a crowd comes does not count, up to
    /// [`FORGIVEN_MAX`].
    pub(super) fn away(&self, worker: WorkerId) -> Option<Duration> {
        if self.linked.contains(&worker) {
            return None;
        }
        let since = self.gone.get(&worker).copied().unwrap_or_default();
        let (all, calm) = (self.watched.saturating_sub(since.watched), self.calm.saturating_sub(since.calm));
        Some(calm.max(all.saturating_sub(FORGIVEN_MAX)))
    }

    /// Whether, of all living nodes, this one looks after what has this name. Every name has one node, and only the names
    /// of a node that comes or goes move (highest random weight). Two nodes that see different nodes may both say yes:
    /// what they write is guarded.
    pub(super) fn is_home(&self, name: &[u8]) -> bool {
        let weight = |node: NodeId| (sha256(&[node.to_string().as_bytes(), name]), node);
        let mine = weight(self.me);
        !self.nodes.keys().any(|node| *node != self.me && self.lives(*node) && weight(*node) > mine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(n: u8) -> NodeId {
        NodeId::from_random([n; 16])
    }

    fn node(n: u8, beat: u64) -> Node {
        Node { id: id(n), url: format!("https://n{n}"), beat, changes: 1 }
    }

    fn worker(n: u8) -> WorkerId {
        WorkerId::from_random([n; 16])
    }

    /// Node 1, beside node 2 that holds worker 7 and has just been heard.
    fn pair() -> Presence {
        let mut presence = Presence::new(id(1));
        assert!(presence.look(SECOND, &[node(1, 1), node(2, 1)]));
        presence.links(BTreeMap::from([(worker(7), Held { node: id(2), number: 3 })]));
        presence.settle(&BTreeSet::new());
        presence
    }

    fn pass(presence: &mut Presence, seconds: u32, nodes: impl Fn(u32) -> Vec<Node>) {
        for second in 1..=seconds {
            presence.look(SECOND, &nodes(second));
            presence.settle(&BTreeSet::new());
        }
    }

    #[test]
    fn what_another_living_node_holds_is_not_away() {
        let mut presence = pair();
        pass(&mut presence, 60, |n| vec![node(2, 1 + u64::from(n))]);
        assert_eq!((presence.away(worker(7)), presence.holder(worker(7))), (None, Some("https://n2")));
        assert_eq!(presence.away(worker(8)), Some(61 * SECOND - CROWD_EACH), "never seen, and one came");
    }

    #[test]
    fn a_silent_node_s_workers_are_away_once_it_counts_as_dead() {
        let mut presence = pair();
        pass(&mut presence, 2, |_| vec![node(2, 1)]);
        assert_eq!((presence.away(worker(7)), presence.is_alone()), (None, false));
        pass(&mut presence, 1, |_| vec![node(2, 1)]);
        assert_eq!((presence.away(worker(7)), presence.is_alone()), (Some(Duration::ZERO), true));
        pass(&mut presence, 4, |_| vec![node(2, 1)]);
        assert_eq!(presence.away(worker(7)), Some(4 * SECOND));
        pass(&mut presence, 1, |_| vec![node(2, 2)]);
        assert_eq!(presence.away(worker(7)), None, "it was only slow");
    }

    #[test]
    fn a_pause_of_the_watcher_gives_nobody_up() {
        let mut presence = pair();
        presence.look(600 * SECOND, &[node(2, 1)]);
        presence.settle(&BTreeSet::new());
        assert_eq!(presence.away(worker(7)), None);
        presence.links(BTreeMap::new());
        presence.look(600 * SECOND, &[node(2, 9)]);
        presence.settle(&BTreeSet::new());
        presence.look(600 * SECOND, &[node(2, 99)]);
        assert_eq!(presence.away(worker(7)), Some(SECOND));
    }

    /// Forty workers more linked here with each second that passes.
    fn crowd(presence: &mut Presence, here: &mut BTreeSet<WorkerId>, seconds: u32) {
        for _ in 0..seconds {
            presence.look(SECOND, &[]);
            let first = here.len();
            here.extend((first..first + 40).map(|n| WorkerId::from_random(u128::try_from(n).unwrap().to_be_bytes())));
            presence.settle(here);
        }
    }

    #[test]
    fn while_a_crowd_comes_nobody_is_given_up_and_then_everybody_has_time_for_one_more_try() {
        let mut presence = pair();
        pass(&mut presence, 4, |_| vec![node(2, 1)]);
        let at_first = presence.away(worker(7)).unwrap();
        let mut here = BTreeSet::new();
        crowd(&mut presence, &mut here, 50);
        assert!(presence.away(worker(7)).unwrap() <= at_first + SECOND, "{:?}", presence.away(worker(7)));
        let mut calm = |seconds: u32| {
            (0..seconds).for_each(|_| {
                presence.look(SECOND, &[]);
                presence.settle(&here);
            });
            presence.away(worker(7)).unwrap()
        };
        let after = calm(20);
        assert!(after <= at_first + SECOND, "{after:?}");
        assert_eq!(calm(4), after + 4 * SECOND, "the clock goes on");
    }

    #[test]
    fn a_few_that_come_and_a_crowd_that_never_ends_save_nobody() {
        let mut presence = pair();
        pass(&mut presence, 3, |_| vec![node(2, 1)]);
        presence.look(SECOND, &[]);
        presence.settle(&BTreeSet::from([worker(8), worker(9)]));
        presence.look(SECOND, &[]);
        presence.settle(&BTreeSet::from([worker(8), worker(9)]));
        assert_eq!(presence.away(worker(7)), Some(2 * SECOND - 2 * CROWD_EACH));
        crowd(&mut presence, &mut BTreeSet::new(), 130);
        assert_eq!(presence.away(worker(7)), Some(132 * SECOND - FORGIVEN_MAX));
    }

    #[test]
    fn every_name_has_one_home_and_moves_only_with_its_node() {
        let nodes: Vec<Node> = (1..=3).map(|n| node(n, 1)).collect();
        let mut seen: Vec<Presence> = (1..=3).map(|n| Presence::new(id(n))).collect();
        for presence in &mut seen {
            presence.look(SECOND, &nodes);
        }
        let homes = |seen: &[Presence], name: u32| -> Vec<NodeId> {
            seen.iter().filter(|it| it.is_home(&name.to_le_bytes())).map(|it| it.me).collect()
        };
        let before: Vec<Vec<NodeId>> = (0..300).map(|name| homes(&seen, name)).collect();
        assert!(before.iter().all(|homes| homes.len() == 1));
        assert!((1..=3).all(|n| before.iter().filter(|homes| homes[0] == id(n)).count() > 60));
        seen.pop();
        for presence in &mut seen {
            presence.look(SECOND, &nodes[..2]);
        }
        for (name, before) in (0..300).zip(before) {
            let after = homes(&seen, name);
            assert!(after.len() == 1 && (before[0] == id(3) || after == before));
        }
    }

    #[test]
    fn nodes_are_forgotten_after_long_or_when_another_has_their_place() {
        let mut presence = pair();
        assert!(presence.forgotten("https://n1").is_empty());
        assert_eq!(presence.forgotten("https://n2"), [id(2)]);
        pass(&mut presence, 600, |_| vec![node(2, 1)]);
        assert_eq!(presence.forgotten("https://n1"), [id(2)]);
    }
}

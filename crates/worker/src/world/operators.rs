//! What the worker knows of its operators: whose link stands, and what each was answered. Pure.

use std::collections::{BTreeMap, VecDeque};

use atoll_api::link::CommandResult;
use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;

use crate::link::dial::OperatorName;

/// Answers kept for an operator's commands that are sent again.
const ANSWERS_MAX: usize = 512;
/// Pods remembered that an operator stopped before it had them started.
const STOPPED_MAX: usize = 512;

/// All operators of this worker.
#[derive(Debug)]
pub(super) struct Operators(BTreeMap<OperatorName, Known>);

#[derive(Debug, Default)]
struct Known {
    linked_since: Option<UnixMs>,
    answers: VecDeque<CommandResult>,
    stopped: VecDeque<PodId>,
}

impl Operators {
    pub(super) fn new(names: &[OperatorName]) -> Self {
        Self(names.iter().map(|name| (name.clone(), Known::default())).collect())
    }

    pub(super) fn up(&mut self, name: &OperatorName, now: UnixMs) {
        if let Some(known) = self.0.get_mut(name) {
            known.linked_since = Some(now);
        }
    }

    pub(super) fn down(&mut self, name: &OperatorName) {
        if let Some(known) = self.0.get_mut(name) {
            known.linked_since = None;
        }
    }

    /// All of them, linked or not.
    pub(super) fn names(&self) -> impl Iterator<Item = &OperatorName> {
        self.0.keys()
    }

    /// Those whose links stand.
    pub(super) fn linked(&self) -> impl Iterator<Item = OperatorName> {
        self.0.iter().filter(|(_, known)| known.linked_since.is_some()).map(|(name, _)| name.clone())
    }

    /// Since when some link has stood without a break.
    pub(super) fn linked_since(&self) -> Option<UnixMs> {
        self.0.values().filter_map(|known| known.linked_since).min()
    }

    /// Remembers an answer, for when its command comes again.
    pub(super) fn answered(&mut self, to: &OperatorName, answer: CommandResult) {
        let Some(known) = self.0.get_mut(to) else { return };
        if known.answers.len() == ANSWERS_MAX {
            known.answers.pop_front();
        }
        known.answers.push_back(answer);
    }

    /// Remembers that an operator stopped a pod that is not here: its start may still be on the way.
    pub(super) fn stopped(&mut self, by: &OperatorName, pod: PodId) {
        let Some(known) = self.0.get_mut(by) else { return };
        if known.stopped.len() == STOPPED_MAX {
            known.stopped.pop_front();
        }
        known.stopped.push_back(pod);
    }

    /// Whether an operator stopped a pod before it came.
    pub(super) fn has_stopped(&self, operator: &OperatorName, pod: PodId) -> bool {
        self.0.get(operator).is_some_and(|known| known.stopped.contains(&pod))
    }

    /// What a command of an operator was answered.
    pub(super) fn answer(&self, to: &OperatorName, command: &str) -> Option<&CommandResult> {
        self.0.get(to)?.answers.iter().find(|answer| answer.command == command)
    }
}

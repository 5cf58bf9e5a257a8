//! What really happened on the machines, which no part of Atoll knows: the laws compare what was believed and paid with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_domain::id::{JobId, PodId};
use atoll_domain::key::Address;

use crate::clock::TrueTime;
use crate::net::Place;

/// All that really happened. Clones are the same.
#[derive(Clone, Debug)]
pub struct Truth {
    time: TrueTime,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<PodId, Run>,
    checkpoints: BTreeMap<JobId, u64>,
    broken: Vec<String>,
}

/// A pod's program, while it ran.
#[derive(Clone, Debug)]
pub struct Run {
    /// On which machine.
    pub machine: Place,
    /// For which order.
    pub order: Address,
    /// Under which lease.
    pub lease: Address,
    /// On which devices.
    pub mask: u16,
    /// Since when, after the world's beginning.
    pub from: Duration,
    /// Until when; none: it runs.
    pub until: Option<Duration>,
}

impl Truth {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(time: &TrueTime) -> Self {
        Self { time: time.clone(), state: Arc::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The world's true time.
    #[must_use]
    pub fn time(&self) -> &TrueTime {
        &self.time
    }

    /// A pod's program starts.
    pub fn starts(&self, pod: PodId, machine: &Place, order: Address, lease: Address, mask: u16) {
        let from = self.time.elapsed();
        let run = Run { machine: Arc::clone(machine), order, lease, mask, from, until: None };
        self.with(|state| {
            let beside = state
                .runs
                .iter()
                .find(|(_, other)| other.until.is_none() && other.machine == *machine && other.mask & mask != 0);
            if let Some((other, _)) = beside {
                let broken = format!("{machine}: {pod} and {other} run on the same devices");
                state.broken.push(broken);
            }
            state.runs.insert(pod, run);
        });
    }

    /// It is over.
    pub fn ends(&self, pod: PodId) {
        let until = self.time.elapsed();
        self.with(|state| {
            if let Some(run) = state.runs.get_mut(&pod) {
                run.until.get_or_insert(until);
            }
        });
    }

    /// The store acknowledged a checkpoint.
    pub fn checkpoint(&self, job: JobId, step: u64) {
        self.with(|state| {
            let newest = state.checkpoints.entry(job).or_default();
            *newest = step.max(*newest);
        });
    }

    /// A command begins from a step; none: from nothing.
    pub fn resumes(&self, job: JobId, step: Option<u64>) {
        self.with(|state| {
            let newest = state.checkpoints.get(&job).copied();
            if step < newest {
                state.broken.push(format!("{job} begins from {step:?}, and {newest:?} was acknowledged"));
            }
        });
    }

    /// All runs.
    #[must_use]
    pub fn runs(&self) -> BTreeMap<PodId, Run> {
        self.with(|state| state.runs.clone())
    }

    /// Device-milliseconds that were really run under a lease so far.
    #[must_use]
    pub fn device_ms(&self, lease: &Address) -> u64 {
        let now = self.time.elapsed();
        self.with(|state| {
            let of_lease = state.runs.values().filter(|run| run.lease == *lease);
            let ms = |run: &Run| {
                let ran = run.until.unwrap_or(now).saturating_sub(run.from);
                u64::try_from(ran.as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(run.mask.count_ones()))
            };
            of_lease.map(ms).sum()
        })
    }

    /// Takes the laws that were seen broken on the machines.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.broken))
    }
}

#[cfg(test)]
mod tests {
    use atoll_domain::key::PublicKey;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_pods_on_one_device_and_a_lost_checkpoint_are_seen() {
        let truth = Truth::new(&TrueTime::begin());
        let (pod, machine) = (|n| PodId::from_random([n; 16]), Place::from("worker-0"));
        let starts = |n, mask| truth.starts(pod(n), &machine, PublicKey([1; 32]), PublicKey([2; 32]), mask);
        starts(1, 0b01);
        starts(2, 0b10);
        assert_eq!(truth.broken(), Vec::<String>::new());
        truth.ends(pod(1));
        starts(3, 0b01);
        assert_eq!(truth.broken(), Vec::<String>::new());
        starts(4, 0b10);
        assert_eq!(truth.broken().len(), 1, "a device of pod 2");
        let job = JobId::from_random([1; 16]);
        truth.resumes(job, None);
        truth.checkpoint(job, 8);
        truth.resumes(job, Some(8));
        assert_eq!(truth.broken(), Vec::<String>::new());
        truth.resumes(job, None);
        assert_eq!(truth.broken().len(), 1, "step 8 was acknowledged");
    }
}

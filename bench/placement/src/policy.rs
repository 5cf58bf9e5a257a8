//! Placement policies, each as one question: how good is this node for this task, and which of its GPUs.
//!
//! Six are those of the published tables, with their coarse scores (`pkg/simulator/plugin/` there): whole numbers from 0
//! to 100, cut and not rounded, ties to the node that comes first in the seed's order.

use std::collections::HashMap;

use crate::fragmentation::Usual;
use crate::go_rand::GoRand;
use crate::state::State;
use crate::trace::{Shape, WHOLE};

/// What kinds of GPU tasks a node runs: shares, and 1, 2, 4, 8 whole GPUs; a count of each.
pub(crate) type Kinds = [u16; 5];

/// The kind of a task that asks GPUs.
pub(crate) fn kind(shape: &Shape) -> usize {
    match (shape.gpus, shape.milli < WHOLE) {
        (1, true) => 0,
        (1, false) => 1,
        (2, _) => 2,
        (3..=4, _) => 3,
        _ => 4,
    }
}

/// A node as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// What is free.
    pub(crate) state: &'a State,
    /// What runs.
    pub(crate) kinds: &'a Kinds,
}

/// How good a node is, more is better, and which GPU a share goes to.
pub(crate) type Score = (f64, usize);

/// The published policies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Published {
    /// Any node that fits.
    Random,
    /// Where the free and the asked point in different directions (the smaller product is better).
    DotProd,
    /// Beside tasks of its kind.
    GpuClustering,
    /// On GPUs and nodes in use already.
    GpuPacking,
    /// Where the least is left.
    BestFit,
    /// Fragmentation gradient descent.
    Fgd,
}

impl Published {
    /// All of them, in the order of the published table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Random, Self::DotProd, Self::GpuClustering, Self::GpuPacking, Self::BestFit, Self::Fgd];

    /// The name in the published table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "Random",
            Self::DotProd => "DotProd",
            Self::GpuClustering => "GpuClustering",
            Self::GpuPacking => "GpuPacking",
            Self::BestFit => "BestFit",
            Self::Fgd => "FGD",
        }
    }
}

/// The most CPU and GPU of a node, as the published scores have them for every node.
const CPU_MOST: f64 = 128_000.0;
const GPU_MOST: f64 = 8_000.0;

/// One policy at work on one seed.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    policy: Published,
    usual: &'a Usual,
    random: GoRand,
    known: HashMap<(State, Shape), Score>,
}

impl<'a> Judge<'a> {
    /// Starts with nothing known.
    pub(crate) fn new(policy: Published, usual: &'a Usual, seed: u32) -> Self {
        Self { policy, usual, random: GoRand::new(seed), known: HashMap::new() }
    }

    /// The score of a node where the task fits.
    pub(crate) fn score(&mut self, node: &Seen<'_>, shape: &Shape) -> Score {
        let state = node.state;
        let gpu = || if shape.gpus == 1 { state.best_fit(shape) } else { 0 };
        match self.policy {
            Published::Random => self.random(state, shape),
            Published::DotProd => (dot_prod(state, shape), gpu()),
            Published::GpuClustering => (clustering(node, shape), gpu()),
            Published::GpuPacking => (packing(state, shape), gpu()),
            Published::BestFit => (best_fit(state, shape), gpu()),
            Published::Fgd => {
                if let Some(known) = self.known.get(&(*state, *shape)) {
                    return *known;
                }
                let found = fgd(self.usual, state, shape);
                self.known.insert((*state, *shape), found);
                found
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a score needs no more than 52 bits")]
    fn random(&mut self, state: &State, shape: &Shape) -> Score {
        let score = self.random.i63() as f64;
        let share = shape.gpus == 1;
        let candidates: Vec<usize> = state.candidates(shape).filter(|_| share).collect();
        let drawn = if share { candidates[self.random.below(candidates.len())] } else { 0 };
        (score, drawn)
    }
}

fn gpu_milli(shape: &Shape) -> f64 {
    f64::from(shape.gpus) * f64::from(shape.milli)
}

fn dot_prod(state: &State, shape: &Shape) -> f64 {
    let cpu = f64::from(state.cpu) / CPU_MOST * (f64::from(shape.cpu) / CPU_MOST);
    let gpu = f64::from(state.free_sum()) / GPU_MOST * (gpu_milli(shape) / GPU_MOST);
    (100.0 * (1.0 - (cpu + gpu) / 2.0)).trunc()
}

fn best_fit(state: &State, shape: &Shape) -> f64 {
    let cpu = 0.5 * (f64::from(state.cpu) - f64::from(shape.cpu)) / CPU_MOST;
    let gpu = 0.5 * (f64::from(state.free_sum()) - gpu_milli(shape)) / GPU_MOST;
    (100.0 * (1.0 - cpu - gpu)).trunc()
}

fn clustering(node: &Seen<'_>, shape: &Shape) -> f64 {
    if shape.gpus == 0 {
        return 0.0;
    }
    let mine = kind(shape);
    let present = node.kinds[mine] > 0;
    let others = node.kinds.iter().enumerate().any(|(kind, count)| kind != mine && *count > 0);
    let base = match (present, others) {
        (true, false) => 75.0,
        (true, true) => 50.0,
        (false, false) => 25.0,
        (false, true) => 0.0,
    };
    base + (25.0 * (GPU_MOST - f64::from(node.state.free_sum())) / GPU_MOST).trunc()
}

fn packing(state: &State, shape: &Shape) -> f64 {
    if shape.gpus == 0 {
        return 0.0;
    }
    let free = state.free();
    let count = |number: usize| f64::from(u8::try_from(number).expect("a node has at most 8 GPUs"));
    if free.iter().all(|gpu| *gpu == WHOLE) {
        let all = count(free.len());
        return (33.0 - all).max(all);
    }
    let mut picked: Vec<u16> = state.candidates(shape).map(|gpu| free[gpu]).collect();
    picked.sort_unstable();
    picked.truncate(usize::from(shape.gpus));
    let idle = picked.iter().filter(|gpu| **gpu == WHOLE).count();
    if idle > 0 {
        return (50.0 - count(idle)).max(33.0);
    }
    let sum: u32 = picked.iter().map(|gpu| u32::from(*gpu) * 100 / u32::from(WHOLE)).sum();
    (100.0 - f64::from(sum / 10)).max(50.0)
}

fn fgd(usual: &Usual, state: &State, shape: &Shape) -> Score {
    let before = usual.fragmented(state);
    let score = |gpu: usize| {
        let gained = before - usual.fragmented(&state.after(shape, gpu));
        (100.0 / (1.0 + (-gained / 1000.0).exp())).trunc()
    };
    if shape.gpus != 1 || shape.milli == WHOLE {
        let gpu = if shape.gpus == 1 { state.best_fit(shape) } else { 0 };
        return (score(gpu), gpu);
    }
    let mut best = (f64::NEG_INFINITY, 0);
    for gpu in state.candidates(shape) {
        let this = score(gpu);
        if this > best.0 {
            best = (this, gpu);
        }
    }
    best
}

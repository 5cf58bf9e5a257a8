//! How many tasks our engine places in a CPU second.

use std::fs;

use anyhow::{Context, Result};

use crate::engine::Engine;
use crate::quality::Ground;
use crate::state::State;

/// One run of the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    /// Tasks that were placed.
    pub(crate) placed: usize,
    /// Tasks that arrived.
    pub(crate) arrived: usize,
    /// CPU time of this thread, with setting up the engine, in seconds.
    pub(crate) cpu_s: f64,
    /// GPUs in use at the end, % of all.
    pub(crate) allocated: f64,
    /// Nodes.
    pub(crate) nodes: usize,
    /// GPUs.
    pub(crate) gpus: u64,
}

/// Runs one seed's arrivals through the engine.
///
/// # Errors
/// When the kernel does not say how much CPU time this thread has had.
#[expect(clippy::cast_precision_loss, reason = "thousandths of GPUs, below 2^53")]
pub(crate) fn run(ground: &Ground, seed: u32) -> Result<Speed> {
    let trace = &ground.trace;
    let arrivals = ground.draw(seed);
    let mut order: Vec<usize> = (0..trace.nodes.len()).collect();
    order.sort_by_key(|node| arrivals.ranks[*node]);
    let before = cpu_ns()?;
    let empty = |node: &usize| (State::empty(&trace.nodes[*node]), trace.nodes[*node].memory);
    let mut engine = Engine::new(&ground.waste, &trace.shapes, order.iter().map(empty));
    let placed = arrivals.tasks.iter().filter(|task| engine.place(&trace.tasks[**task]).is_some()).count();
    let cpu_s = (cpu_ns()? - before) as f64 / 1e9;
    let free: u64 = engine.nodes().map(|node| u64::from(node.free_sum())).sum();
    Ok(Speed {
        placed,
        arrived: arrivals.tasks.len(),
        cpu_s,
        allocated: 100.0 * (1.0 - free as f64 / trace.capacity() as f64),
        nodes: trace.nodes.len(),
        gpus: trace.capacity() / 1000,
    })
}

impl Speed {
    /// Placements a CPU second.
    #[expect(clippy::cast_precision_loss, reason = "a count of tasks")]
    pub(crate) fn rate(&self) -> f64 {
        self.placed as f64 / self.cpu_s
    }
}

/// Nanoseconds that this thread has run, as the kernel's scheduler counts them.
fn cpu_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("reading this thread's CPU time")?;
    text.split_whitespace().next().and_then(|word| word.parse().ok()).context("the kernel keeps no CPU time of threads")
}

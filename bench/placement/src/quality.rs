//! How much of the GPUs a policy brings to use: replays of the published runs, ours beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::arrivals::{self, Arrivals};
use crate::fragmentation::Usual;
use crate::policy::{Judge, Published};
use crate::replay::{self, Columns, Run};
use crate::trace::Trace;
use crate::waste::Waste;

/// The last column of the published tables: 130 % of the GPUs have been asked for.
const LAST: i32 = 130;

/// A workload and what is derived from it.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The workload.
    pub(crate) trace: Trace,
    /// What is usually asked.
    pub(crate) usual: Usual,
    /// Our tables for it.
    pub(crate) waste: Waste,
    /// Demand at the end, as a multiple of the GPUs.
    pub(crate) inflate: f64,
}

impl Ground {
    /// Works out what both policies know beforehand: the distribution, never the order.
    pub(crate) fn new(trace: Trace, inflate: f64) -> Self {
        let usual = Usual::of(&trace);
        let cpu_most = trace.nodes.iter().map(|node| node.cpu).max().unwrap_or_default();
        let waste = Waste::of(usual.shapes(), cpu_most);
        Self { trace, usual, waste, inflate }
    }

    /// One seed's arrivals.
    pub(crate) fn draw(&self, seed: u32) -> Arrivals {
        arrivals::draw(&self.trace, seed, self.inflate)
    }

    /// A published policy on them.
    pub(crate) fn published(&self, policy: Published, seed: u32, arrivals: &Arrivals) -> Run {
        let mut judge = Judge::new(policy, &self.usual, seed);
        replay::run(&self.trace, &self.usual, arrivals, |node, shape| judge.score(node, shape))
    }

    /// Ours on them, node by node; `engine` places the same without looking at every node.
    pub(crate) fn ours(&self, arrivals: &Arrivals) -> Run {
        replay::run(&self.trace, &self.usual, arrivals, |node, shape| {
            let (waste, gpu) = self.waste.of_task(node.state, shape);
            (-f64::from(waste), gpu)
        })
    }

    fn columns(&self, run: &Run) -> Columns {
        #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
        let last = (self.inflate * 100.0).round() as i32;
        run.columns(self.trace.capacity(), last)
    }

    /// GPUs in use at the end, % of all.
    pub(crate) fn allocated(&self, run: &Run) -> f64 {
        self.columns(run).allocated.last().copied().unwrap_or_default()
    }
}

/// The published rows: metric, policy and seed to its columns.
type Expected = BTreeMap<(String, String, u32), Vec<f64>>;

fn expected(path: &Path) -> Result<Expected> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let row = |(number, line): (usize, &str)| {
        let fields: Vec<&str> = line.trim().split(',').collect();
        let [metric, policy, _, seed, columns @ ..] = &fields[..] else {
            anyhow::bail!("{}, line {}: has no columns", path.display(), number + 1);
        };
        let columns: Result<Vec<f64>, _> = columns.iter().map(|field| field.parse()).collect();
        let bad = || format!("{}, line {}: not a number", path.display(), number + 1);
        Ok((((*metric).to_owned(), (*policy).to_owned(), seed.parse().with_context(bad)?), columns.with_context(bad)?))
    };
    text.lines().enumerate().skip(1).map(row).collect()
}

/// How far our replay is from the published tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reproduced {
    /// The largest difference of any cell of the five policies that draw nothing, in points.
    pub(crate) max_error: f64,
    /// How many cells were compared.
    pub(crate) cells: usize,
    /// How many of them differ at all.
    pub(crate) differ: usize,
    /// Mean of Random's last column.
    pub(crate) random_mean: f64,
    /// The same of the published one.
    pub(crate) random_expected: f64,
}

/// Replays every published run.
///
/// # Errors
/// A published row that is missing or malformed.
pub(crate) fn reproduce(ground: &Ground, table: &Path) -> Result<Reproduced> {
    let rows = expected(table)?;
    let seeds = 42..=51;
    let mut found = Reproduced { max_error: 0.0, cells: 0, differ: 0, random_mean: 0.0, random_expected: 0.0 };
    for policy in Published::ALL {
        for seed in seeds.clone() {
            let columns = ground.columns(&ground.published(policy, seed, &ground.draw(seed)));
            let metrics = [
                ("allocation_pct", &columns.allocated),
                ("fragmented_pct", &columns.fragmented),
                ("fragmented_pct_of_free", &columns.fragmented_of_free),
            ];
            for (metric, ours) in metrics {
                let key = (metric.to_owned(), policy.name().to_owned(), seed);
                let theirs = rows.get(&key).with_context(|| format!("{} has no row {key:?}", table.display()))?;
                ensure!(theirs.len() == ours.len(), "{}: {key:?} has {} columns", table.display(), theirs.len());
                if policy == Published::Random {
                    if metric == "allocation_pct" {
                        found.random_mean += ours[LAST as usize] / 10.0;
                        found.random_expected += theirs[LAST as usize] / 10.0;
                    }
                    continue;
                }
                for (a, b) in ours.iter().zip(theirs) {
                    let error = (a - b).abs();
                    found.max_error = found.max_error.max(error);
                    found.cells += 1;
                    found.differ += usize::from(error > 1e-6);
                }
            }
        }
    }
    Ok(found)
}

/// Two policies on the same seeds.
#[derive(Clone, Debug)]
pub(crate) struct Paired {
    /// Ours, seed by seed: GPUs in use at the end, % of all.
    pub(crate) ours: Vec<f64>,
    /// FGD's.
    pub(crate) fgd: Vec<f64>,
}

impl Paired {
    /// Runs both.
    pub(crate) fn run(ground: &Ground, seeds: impl IntoIterator<Item = u32>) -> Self {
        let mut paired = Self { ours: Vec::new(), fgd: Vec::new() };
        for seed in seeds {
            let arrivals = ground.draw(seed);
            paired.ours.push(ground.allocated(&ground.ours(&arrivals)));
            paired.fgd.push(ground.allocated(&ground.published(Published::Fgd, seed, &arrivals)));
        }
        paired
    }

    /// On how many seeds ours has more in use.
    pub(crate) fn wins(&self) -> usize {
        self.ours.iter().zip(&self.fgd).filter(|(ours, fgd)| ours > fgd).count()
    }

    /// Mean of ours − FGD, and the lower end of its 95 % interval (Student's t).
    #[expect(clippy::cast_precision_loss, reason = "a count of seeds")]
    pub(crate) fn gain(&self) -> (f64, f64) {
        let gains: Vec<f64> = self.ours.iter().zip(&self.fgd).map(|(ours, fgd)| ours - fgd).collect();
        let count = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / count;
        let squares: f64 = gains.iter().map(|gain| (gain - mean).powi(2)).sum();
        (mean, mean - student_95(gains.len().saturating_sub(1)) * (squares / (count - 1.0) / count).sqrt())
    }
}

/// The 97.5 % quantile of Student's t; the next smaller entry's where there is none.
fn student_95(degrees: usize) -> f64 {
    let table =
        [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (7, 2.365), (9, 2.262), (14, 2.145), (40, 2.021)];
    table.iter().rev().find(|(known, _)| *known <= degrees).map_or(f64::INFINITY, |(_, quantile)| *quantile)
}

/// The mean of a list.
#[expect(clippy::cast_precision_loss, reason = "a count of seeds")]
pub(crate) fn mean(list: &[f64]) -> f64 {
    list.iter().sum::<f64>() / list.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::generated::Generated;
    use crate::state::State;

    #[test]
    fn the_engine_places_as_one_that_looks_at_every_node() {
        for generated in Generated::ALL {
            let ground = Ground::new(generated.trace(), 1.3);
            let arrivals = ground.draw(3);
            let mut order: Vec<usize> = (0..ground.trace.nodes.len()).collect();
            order.sort_by_key(|node| arrivals.ranks[*node]);
            let empty = |node: &usize| (State::empty(&ground.trace.nodes[*node]), ground.trace.nodes[*node].memory);
            let mut engine = Engine::new(&ground.waste, &ground.trace.shapes, order.iter().map(empty));
            let run = ground.ours(&arrivals);
            assert!(run.failed > 0 && run.failed < arrivals.tasks.len() / 2);
            for (arrived, expected) in arrivals.tasks.iter().zip(&run.placed) {
                let placed = engine.place(&ground.trace.tasks[*arrived]).map(|node| order[node]);
                assert_eq!(placed, *expected);
            }
        }
    }

    #[test]
    fn what_is_in_use_and_what_is_free_are_all_there_is() {
        let ground = Ground::new(Generated::Shared.trace(), 1.3);
        let run = ground.ours(&ground.draw(1));
        let free: u64 = run.left.iter().map(|node| u64::from(node.free_sum())).sum();
        let used = run.moments.last().map(|moment| moment.used);
        assert_eq!(used, Some(ground.trace.capacity() - free));
    }

    #[test]
    fn the_interval_is_students() {
        let paired = Paired { ours: vec![3.0, 5.0], fgd: vec![1.0, 1.0] };
        let (mean, low) = paired.gain();
        assert!((mean - 3.0).abs() < 1e-9 && (low - (3.0 - 12.706)).abs() < 1e-9, "{mean} {low}");
    }
}

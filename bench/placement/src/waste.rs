//! What a node's free part will be worth in the end: three wastes, each a table that is worked out once from what is
//! usually asked.
//!
//! *Crumbs*: of a GPU with so much free, how much stays free when usual tasks keep coming and each takes its share until
//! nothing fits; of idle GPUs, for as many as the node has. *Stranded*: of a node with so much CPU and GPU free, how much GPU
//! stays free because the CPU is gone; GPUs are one pool there. Both are expectations over all sequences of tasks, exact on
//! their grid: the waste of what is free is the mean of the waste after each task that fits, weighted by how usual it is, or
//! all of it if no task comes any more. *Torn*: idle GPUs that are too few for a usual task of several. A task goes where
//! the wastes grow least.
//!
//! FGD asks how much of the node the *next* task could not use; this asks what the last one will leave. So a share that
//! closes a gap exactly counts for what it saves, and CPU that nobody will miss counts for nothing.

use crate::state::State;
use crate::trace::{GPUS_MAX, Shape, WHOLE};

/// How likely it is at each step that no more task comes: about 200 offers to a GPU, or a node. Allocation on the traces
/// hardly depends on it (95.8 to 96.0 % from 50 to 1,000 offers, on three training seeds).
const LAST: f64 = 0.005;
/// How much of a set of idle GPUs is lost to the tasks that need more of them. Fixed on the made-up workloads: at 0 the one
/// with many tasks of 8 GPUs lost 2.8 points against FGD, from 0.3 to 1 nothing; above, it costs the other.
const TORN: f64 = 0.3;
/// Steps of a node's CPU in the table.
const CPU_STEPS: u32 = 256;
/// Thousandths of a GPU in one step of a node's GPUs in the table.
const POOL_STEP: usize = 10;
/// Steps of a node's GPUs in the table, with none.
const POOL: usize = GPUS_MAX * WHOLE as usize / POOL_STEP + 1;
/// Wastes are whole millionths of a GPU, so that sums do not depend on their order.
const MICROS: f64 = 1000.0;

/// The wastes, in millionths of a GPU.
#[derive(Clone, Debug)]
pub(crate) struct Waste {
    crumbs: Vec<i32>,
    idle: [i32; GPUS_MAX + 1],
    stranded: Vec<i32>,
    cpu_step: u32,
    columns: usize,
}

impl Waste {
    /// Works them out for these usual shapes and nodes of at most `cpu_most` thousandths of a CPU.
    pub(crate) fn of(usual: &[(Shape, f64)], cpu_most: u32) -> Self {
        let cpu_step = cpu_most.div_ceil(CPU_STEPS).max(1);
        let columns = cpu_most as usize / cpu_step as usize + 1;
        let crumbs = crumbs(usual);
        let idle = idle(usual, &crumbs);
        Self { crumbs, idle, stranded: stranded(usual, cpu_step, columns), cpu_step, columns }
    }

    /// Millionths of a GPU that are lost by taking a share of a GPU with `free`, on a node with so many idle ones: what is
    /// left is worth that much less than its size. Below zero where crumbs are saved.
    pub(crate) fn of_share(&self, free: u16, milli: u16, idle: usize) -> i32 {
        let left = self.crumbs[usize::from(free - milli)];
        if free == WHOLE { left + self.of_idle(idle, 1) } else { left - self.crumbs[usize::from(free)] }
    }

    /// The same for whole GPUs of a node with so many idle ones.
    fn of_idle(&self, idle: usize, taken: usize) -> i32 {
        self.idle[idle - taken] - self.idle[idle]
    }

    /// The same for the balance of CPU and GPU, of a node that gives this much of what it has free.
    pub(crate) fn of_balance(&self, cpu: u32, pool: u32, shape: &Shape) -> i32 {
        let at = |cpu: u32, pool: u32| {
            self.stranded[pool as usize / POOL_STEP * self.columns + (cpu / self.cpu_step) as usize]
        };
        let asked = u32::from(shape.gpus) * u32::from(shape.milli);
        at(cpu - shape.cpu, pool - asked) - at(cpu, pool)
    }

    /// Both for a task that fits, and the GPU that a share is best taken of: the first among equals.
    pub(crate) fn of_task(&self, node: &State, shape: &Shape) -> (i32, usize) {
        let balance = self.of_balance(node.cpu, node.free_sum(), shape);
        if shape.gpus == 0 {
            return (balance, 0);
        }
        let idle = node.free().iter().filter(|free| **free == WHOLE).count();
        if shape.gpus > 1 {
            return (balance + self.of_idle(idle, shape.gpus.into()), 0);
        }
        let share = |gpu: usize| self.of_share(node.free()[gpu], shape.milli, idle);
        let best = node.candidates(shape).map(|gpu| (share(gpu), gpu)).min();
        let (crumbs, gpu) = best.expect("a shape that fits has a candidate");
        (balance + crumbs, gpu)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most 8,000,000")]
fn micros(milli: f64) -> i32 {
    (milli * MICROS).round() as i32
}

fn crumbs(usual: &[(Shape, f64)]) -> Vec<i32> {
    let shares: Vec<(usize, f64)> = usual
        .iter()
        .filter(|(shape, _)| shape.gpus > 0 && shape.milli < WHOLE)
        .map(|(shape, weight)| (shape.milli.into(), *weight))
        .collect();
    let mut left = vec![0.0; usize::from(WHOLE) + 1];
    for free in 0..=WHOLE {
        let (mut sum, mut weights) = (LAST * f64::from(free), LAST);
        for (milli, weight) in shares.iter().filter(|(milli, _)| *milli <= usize::from(free)) {
            sum += weight * left[usize::from(free) - milli];
            weights += weight;
        }
        left[usize::from(free)] = sum / weights;
    }
    left.into_iter().map(micros).collect()
}

/// Crumbs that a node's idle GPUs will have in the end, and what is lost for tasks that need more of them than there are.
fn idle(usual: &[(Shape, f64)], crumbs: &[i32]) -> [i32; GPUS_MAX + 1] {
    let milli = |idle: usize| f64::from(u32::try_from(idle).expect("at most 8") * u32::from(WHOLE));
    let mut left = [0.0; GPUS_MAX + 1];
    for idle in 1..=GPUS_MAX {
        let (mut sum, mut weights) = (LAST * milli(idle), LAST);
        for (shape, weight) in usual.iter().filter(|(shape, _)| (1..=idle).contains(&shape.gpus.into())) {
            let broken = f64::from(crumbs[usize::from(WHOLE - shape.milli)]) / MICROS;
            sum += weight * (broken + left[idle - usize::from(shape.gpus)]);
            weights += weight;
        }
        left[idle] = sum / weights;
    }
    let torn = |idle: usize| {
        let larger = usual.iter().filter(|(shape, _)| usize::from(shape.gpus) > idle.max(1));
        TORN * milli(idle) * larger.map(|(_, weight)| weight).sum::<f64>()
    };
    std::array::from_fn(|idle| micros(left[idle] + torn(idle)))
}

fn stranded(usual: &[(Shape, f64)], cpu_step: u32, columns: usize) -> Vec<i32> {
    let steps = |shape: &Shape| {
        let asked = usize::from(shape.gpus) * usize::from(shape.milli);
        ((asked + POOL_STEP / 2) / POOL_STEP, (shape.cpu / cpu_step) as usize)
    };
    let tasks: Vec<((usize, usize), f64)> =
        usual.iter().filter(|(shape, _)| shape.gpus > 0).map(|(shape, weight)| (steps(shape), *weight)).collect();
    let mut left = vec![0.0; POOL * columns];
    let mut free = 0.0;
    for pool in 0..POOL {
        for cpu in 0..columns {
            let (mut sum, mut weights) = (LAST * free, LAST);
            for ((gpus, cpus), weight) in tasks.iter().filter(|((gpus, cpus), _)| *gpus <= pool && *cpus <= cpu) {
                sum += weight * left[(pool - gpus) * columns + cpu - cpus];
                weights += weight;
            }
            left[pool * columns + cpu] = sum / weights;
        }
        free += 10.0;
    }
    left.into_iter().map(micros).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(milli: u16, cpu: u32) -> Shape {
        Shape { cpu, gpus: 1, milli, models: 0 }
    }

    #[test]
    fn what_nobody_asks_is_all_crumbs_and_what_closes_a_gap_saves_them() {
        let waste = Waste::of(&[(share(810, 1000), 0.5), (share(190, 1000), 0.5)], 96_000);
        assert_eq!((waste.crumbs[0], waste.crumbs[189]), (0, 189_000));
        let (gap, idle) = (waste.of_share(190, 190, 0), waste.of_share(1000, 190, 1));
        assert!(gap < -1000, "the gap was nearly sure to be closed, but not quite: {gap}");
        assert!(idle > gap, "{idle}");
    }

    #[test]
    fn gpus_without_cpu_are_stranded() {
        let waste = Waste::of(&[(share(1000, 12_000), 1.0)], 96_000);
        let at = |cpu: u32, gpus: usize| waste.stranded[gpus * 100 * waste.columns + (cpu / waste.cpu_step) as usize];
        assert_eq!((at(0, 8), at(11_000, 1)), (8_000_000, 1_000_000));
        assert!(at(96_000, 8) < 400_000, "{}", at(96_000, 8));
        // A task without GPUs goes where no GPU will miss the CPU.
        let hungry = Shape { cpu: 12_000, gpus: 0, milli: 0, models: 0 };
        assert!(waste.of_balance(96_000, 1000, &hungry) < waste.of_balance(24_000, 2000, &hungry));
    }

    #[test]
    fn a_set_that_a_large_task_needs_is_not_torn_for_a_small_one() {
        let large = Shape { gpus: 4, ..share(1000, 4000) };
        let waste = Waste::of(&[(share(1000, 1000), 0.5), (large, 0.5)], 96_000);
        assert!(waste.of_idle(4, 1) > waste.of_idle(3, 1));
        assert!(waste.of_idle(4, 4) < waste.of_idle(5, 4), "what is left is torn already, or not there");
    }
}

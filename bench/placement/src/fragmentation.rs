//! How much free GPU is of no use to what is usually asked: the measure of "Beware of Fragmentation" (USENIX ATC 2023), as
//! the published code computes it (`pkg/utils/frag.go`).

use std::cmp::Reverse;

use crate::state::State;
use crate::trace::{Shape, Trace, WHOLE};

/// The shapes that tasks usually have, with weights that sum to 1.
#[derive(Clone, Debug)]
pub(crate) struct Usual(Vec<(Shape, f64)>);

impl Usual {
    /// The most frequent shapes that make up 95 % of all tasks.
    pub(crate) fn of(trace: &Trace) -> Self {
        let mut counts = vec![0_u32; trace.shapes.len()];
        for task in &trace.tasks {
            counts[task.shape] += 1;
        }
        let mut shapes: Vec<(Shape, u32)> = trace.shapes.iter().copied().zip(counts).collect();
        shapes.sort_by_key(|(shape, count)| Reverse((*count, shape.cpu, shape.milli, shape.gpus)));
        let enough = trace.tasks.len() as f64 * 0.95;
        let mut sum = 0_u32;
        let taken = shapes.into_iter().take_while(|(_, count)| {
            let wanted = f64::from(sum) < enough;
            sum += if wanted { *count } else { 0 };
            wanted
        });
        let taken: Vec<(Shape, u32)> = taken.collect();
        Self(taken.into_iter().map(|(shape, count)| (shape, f64::from(count) / f64::from(sum))).collect())
    }

    /// The shapes and their weights, the most frequent first.
    pub(crate) fn shapes(&self) -> &[(Shape, f64)] {
        &self.0
    }

    /// Thousandths of a GPU of one node that the usual tasks cannot use, weighted by how usual they are.
    pub(crate) fn fragmented(&self, node: &State) -> f64 {
        let free = node.free_sum();
        let unusable = |shape: &Shape| {
            if shape.gpus == 0 || !node.fits(shape) {
                return free;
            }
            node.free().iter().filter(|gpu| **gpu < shape.milli).map(|gpu| u32::from(*gpu)).sum()
        };
        self.0.iter().map(|(shape, weight)| weight * f64::from(unusable(shape))).sum()
    }
}

/// A free GPU share as a fraction of a GPU.
pub(crate) fn gpus(milli: f64) -> f64 {
    milli / f64::from(WHOLE)
}

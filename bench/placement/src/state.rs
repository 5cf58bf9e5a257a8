//! What is free of one node.

use crate::trace::{GPUS_MAX, Node, Shape, WHOLE};

/// What is free of a node, but for its memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct State {
    /// Thousandths of a CPU.
    pub(crate) cpu: u32,
    /// Its GPU model.
    pub(crate) model: u8,
    gpus: u8,
    free: [u16; GPUS_MAX],
}

impl State {
    /// All of a node.
    pub(crate) fn empty(node: &Node) -> Self {
        let mut free = [0; GPUS_MAX];
        free[..usize::from(node.gpus)].fill(WHOLE);
        Self { cpu: node.cpu, model: node.model, gpus: node.gpus, free }
    }

    /// Thousandths of each of its GPUs.
    pub(crate) fn free(&self) -> &[u16] {
        &self.free[..usize::from(self.gpus)]
    }

    /// Thousandths of all its GPUs.
    pub(crate) fn free_sum(&self) -> u32 {
        self.free().iter().map(|gpu| u32::from(*gpu)).sum()
    }

    /// Whether a task of this shape fits, but for its memory.
    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        let enough = || self.free().iter().filter(|gpu| **gpu >= shape.milli).count() >= usize::from(shape.gpus);
        self.cpu >= shape.cpu && (shape.gpus == 0 || shape.takes(self.model) && enough())
    }

    /// GPUs of which one may serve a shape that asks a share.
    pub(crate) fn candidates(&self, shape: &Shape) -> impl Iterator<Item = usize> {
        let milli = shape.milli;
        self.free().iter().enumerate().filter(move |(_, free)| **free >= milli).map(|(gpu, _)| gpu)
    }

    /// The candidate with the least free; the first among equals.
    pub(crate) fn best_fit(&self, shape: &Shape) -> usize {
        let best = self.candidates(shape).min_by_key(|gpu| self.free[*gpu]);
        best.expect("a shape that fits has a candidate")
    }

    /// What is left when a task takes its CPU, and a share of one GPU or the first idle GPUs. It must fit.
    #[must_use]
    pub(crate) fn after(&self, shape: &Shape, share_of: usize) -> Self {
        let mut left = *self;
        left.cpu -= shape.cpu;
        if shape.gpus == 1 {
            left.free[share_of] -= shape.milli;
        } else {
            let whole = left.free.iter_mut().filter(|free| **free == WHOLE).take(usize::from(shape.gpus));
            whole.for_each(|free| *free = 0);
        }
        left
    }
}

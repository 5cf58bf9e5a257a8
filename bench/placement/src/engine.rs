//! Places tasks by their waste, without looking at every node for each.
//!
//! Per shape a heap of nodes by waste. A node that changed is noted once; a shape takes the notes in when it is asked for
//! next, and only of nodes that have not changed again since. An entry of a node as it no longer is is dropped when it
//! comes up. So a placement costs one entry per shape at most, however many nodes there are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::state::State;
use crate::trace::{Shape, Task};
use crate::waste::Waste;

/// A node, and how often it has changed.
#[derive(Clone, Copy, Debug)]
struct Live {
    state: State,
    memory: u64,
    version: u32,
}

/// Waste, node, version: the least waste first, then the node that comes first.
type Entry = Reverse<(i32, u32, u32)>;

/// The nodes that a shape fits on, as far as the notes were read.
#[derive(Clone, Debug, Default)]
struct Queue {
    entries: BinaryHeap<Entry>,
    read: usize,
}

/// A cluster that places tasks.
#[derive(Debug)]
pub(crate) struct Engine<'a> {
    waste: &'a Waste,
    shapes: &'a [Shape],
    nodes: Vec<Live>,
    queues: Vec<Queue>,
    /// Nodes that changed, with the version they changed to.
    notes: Vec<(u32, u32)>,
    short_of_memory: Vec<Entry>,
}

impl<'a> Engine<'a> {
    /// An empty cluster; ties go to the node that comes first.
    pub(crate) fn new(waste: &'a Waste, shapes: &'a [Shape], nodes: impl IntoIterator<Item = (State, u64)>) -> Self {
        let live = |(state, memory)| Live { state, memory, version: 0 };
        let nodes: Vec<Live> = nodes.into_iter().map(live).collect();
        let notes = (0..).take(nodes.len()).map(|node| (node, 0)).collect();
        Self { waste, shapes, nodes, queues: vec![Queue::default(); shapes.len()], notes, short_of_memory: Vec::new() }
    }

    /// What is free, node by node.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &State> {
        self.nodes.iter().map(|node| &node.state)
    }

    /// Takes a task in; none when it fits nowhere.
    pub(crate) fn place(&mut self, task: &Task) -> Option<usize> {
        let shape = &self.shapes[task.shape];
        let queue = &mut self.queues[task.shape];
        for (node, version) in &self.notes[queue.read..] {
            let live = &self.nodes[*node as usize];
            if live.version == *version && live.state.fits(shape) {
                queue.entries.push(Reverse((self.waste.of_task(&live.state, shape).0, *node, *version)));
            }
        }
        queue.read = self.notes.len();
        let mut found = None;
        while let Some(entry) = queue.entries.pop() {
            let Reverse((_, node, version)) = entry;
            let live = &self.nodes[node as usize];
            if live.version != version {
                continue;
            }
            if live.memory < task.memory {
                self.short_of_memory.push(entry);
                continue;
            }
            found = Some(node);
            break;
        }
        queue.entries.extend(self.short_of_memory.drain(..));
        let node = found?;
        let live = &mut self.nodes[node as usize];
        let (_, gpu) = self.waste.of_task(&live.state, shape);
        live.state = live.state.after(shape, gpu);
        live.memory -= task.memory;
        live.version += 1;
        self.notes.push((node, live.version));
        Some(node as usize)
    }
}

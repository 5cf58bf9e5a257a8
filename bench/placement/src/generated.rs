//! Clusters and tasks that are made up, to fix parameters on before the published seeds are looked at, and to measure at a
//! million devices.

use crate::go_rand::GoRand;
use crate::trace::{Node, Shape, Task, Trace, WHOLE};

/// A made-up cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Generated {
    /// Mostly whole GPUs on machines with little CPU for each.
    Lean,
    /// Mostly shares of many sizes, on machines of all kinds.
    Shared,
}

impl Generated {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Lean, Self::Shared];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Shared => "shared",
        }
    }

    /// The cluster: 600 nodes, and tasks for 98 % of its GPUs, always the same.
    pub(crate) fn trace(self) -> Trace {
        let mut random = GoRand::new(7);
        let kinds: &[(u8, u32)] = match self {
            Self::Lean => &[(8, 80_000), (8, 96_000), (4, 32_000)],
            Self::Shared => &[(8, 128_000), (4, 96_000), (2, 32_000), (2, 104_000), (1, 16_000)],
        };
        let node = |index: usize| {
            let (gpus, cpu) = kinds[index % kinds.len()];
            let memory = u64::from(cpu) * 4;
            Node { name: format!("node-{index:04}"), cpu, memory, gpus, model: 0 }
        };
        let nodes: Vec<Node> = (0..600).map(node).collect();
        let sizes: Vec<Shape> = (0..40).map(|_| self.shape(&mut random)).collect();
        let mut trace = Trace { nodes, tasks: Vec::new(), shapes: sizes, models: vec!["made-up".to_owned()] };
        let target = trace.capacity() / 100 * 98;
        let mut asked = 0;
        while asked < target {
            // Twice drawn and the lower taken: the first shapes are the usual ones.
            let shape = random.below(trace.shapes.len()).min(random.below(trace.shapes.len()));
            asked += trace.shapes[shape].gpu_milli();
            let memory = u64::from(trace.shapes[shape].cpu) * [1, 2, 4][random.below(3)];
            trace.tasks.push(Task { name: format!("task-{:06}", trace.tasks.len()), shape, memory });
        }
        trace
    }

    fn shape(self, random: &mut GoRand) -> Shape {
        let number = |number: usize| u32::try_from(number).expect("drawn below a small bound");
        let whole_in_ten = match self {
            Self::Lean => 7,
            Self::Shared => 2,
        };
        let cpu = 1000 * (1 + number(random.below(14)));
        match random.below(10) {
            0 => Shape { cpu, gpus: 0, milli: 0, models: 0 },
            drawn if drawn <= whole_in_ten => {
                let gpus = [1, 1, 1, 1, 1, 1, 2, 2, 4, 8][random.below(10)];
                Shape { cpu: cpu * u32::from(gpus), gpus, milli: WHOLE, models: 0 }
            }
            _ => {
                let milli = u16::try_from(10 * (5 + random.below(90))).expect("at most 940");
                Shape { cpu, gpus: 1, milli, models: 0 }
            }
        }
    }
}

/// The trace many times over, then copies of its largest kind of node until there are `devices` in all; tasks by the same
/// factor as GPUs, names and order as they come.
pub(crate) fn multiplied(trace: &Trace, times: usize, devices: u64) -> Trace {
    let mut nodes: Vec<Node> = Vec::new();
    for copy in 0..times {
        nodes.extend(trace.nodes.iter().map(|node| Node { name: format!("{}-{copy:03}", node.name), ..node.clone() }));
    }
    let mut count: u64 = nodes.iter().map(|node| u64::from(node.gpus)).sum();
    let usual =
        |node: &&Node| trace.nodes.iter().filter(|other| (other.cpu, other.model) == (node.cpu, node.model)).count();
    let filler = trace.nodes.iter().filter(|node| node.gpus == 8).max_by_key(usual).cloned();
    for number in 0.. {
        let Some(filler) = filler.as_ref().filter(|filler| count + u64::from(filler.gpus) <= devices) else { break };
        nodes.push(Node { name: format!("filler-{number:06}"), ..filler.clone() });
        count += u64::from(filler.gpus);
    }
    let all = u64::from(WHOLE) * count;
    let wanted = u128::from(all)
        * u128::from(trace.tasks.iter().map(|it| trace.shapes[it.shape].gpu_milli()).sum::<u64>())
        / u128::from(trace.capacity());
    let mut asked = 0_u128;
    let mut tasks = Vec::new();
    while asked < wanted {
        let task = &trace.tasks[tasks.len() % trace.tasks.len()];
        asked += u128::from(trace.shapes[task.shape].gpu_milli());
        tasks.push(task.clone());
    }
    Trace { nodes, tasks, shapes: trace.shapes.clone(), models: trace.models.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiplied_trace_has_its_devices_and_as_much_asked_of_each() {
        let trace = Generated::Lean.trace();
        let devices = trace.capacity() / 1000 * 3 + 80;
        let more = multiplied(&trace, 3, devices);
        assert_eq!(more.capacity(), devices * 1000);
        let asked = |trace: &Trace| {
            let sum: u64 = trace.tasks.iter().map(|task| trace.shapes[task.shape].gpu_milli()).sum();
            sum * 1000 / trace.capacity()
        };
        assert!(asked(&trace).abs_diff(asked(&more)) <= 1, "{} {}", asked(&trace), asked(&more));
    }
}

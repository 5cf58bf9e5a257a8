//! The order in which tasks arrive, drawn as the published runs drew it
//! (hkust-adsl/kubernetes-scheduler-simulator@8f3d641: `pkg/simulator/core.go`, `simulator.go`).

use crate::go_rand::GoRand;
use crate::trace::Trace;

/// One seed's draw.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    /// Indices of [`Trace::tasks`], in the order of arrival: each once, shuffled, then copies drawn with replacement.
    pub(crate) tasks: Vec<usize>,
    /// Per node, its place in the fixed order that breaks ties.
    pub(crate) ranks: Vec<usize>,
}

/// Draws arrivals until `tuning` times the cluster's GPUs have been asked for.
pub(crate) fn draw(trace: &Trace, seed: u32, tuning: f64) -> Arrivals {
    let mut random = GoRand::new(seed);
    // The argument of a debug message there.
    random.i63();
    let mut tasks: Vec<usize> = (0..trace.tasks.len()).collect();
    random.shuffle(&mut tasks);
    let shape = |task: usize| &trace.shapes[trace.tasks[task].shape];
    let mut asked: u64 = tasks.iter().map(|task| shape(*task).gpu_milli()).sum();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 2^53"
    )]
    let target = (trace.capacity() as f64 * tuning).floor() as u64;
    loop {
        let task = random.below(trace.tasks.len());
        // Per GPU, not times the GPUs: so it is done there.
        if asked + u64::from(shape(task).milli) > target {
            break;
        }
        asked += shape(task).gpu_milli();
        tasks.push(task);
    }
    // Each of the ten watches that the scheduler opens there draws its time-out from the same stream.
    for _ in 0..10 {
        random.i63();
    }
    Arrivals { tasks, ranks: random.permutation(trace.nodes.len()) }
}

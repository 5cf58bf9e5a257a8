//! Places arriving tasks one at a time, and measures after each.

use crate::arrivals::Arrivals;
use crate::fragmentation::{Usual, gpus};
use crate::policy::{Kinds, Score, Seen, kind};
use crate::state::State;
use crate::trace::Shape;
use crate::trace::Trace;

/// The cluster after one arrival, whether or not the task was placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Thousandths of GPUs asked so far, by failed tasks too.
    pub(crate) asked: u64,
    /// Thousandths of GPUs in use.
    pub(crate) used: u64,
    /// Thousandths of GPUs that are free and of no use to usual tasks.
    pub(crate) fragmented: f64,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// One entry per arrival.
    pub(crate) moments: Vec<Moment>,
    /// Tasks that fitted nowhere.
    pub(crate) failed: usize,
    /// Where each arrival went.
    pub(crate) placed: Vec<Option<usize>>,
    /// What is left at the end.
    pub(crate) left: Vec<State>,
}

struct Live {
    index: usize,
    state: State,
    memory: u64,
    kinds: Kinds,
    fragmented: f64,
}

/// Runs one seed's arrivals; `judge` says how good a node is, the best and among equals the first takes the task.
pub(crate) fn run(
    trace: &Trace,
    usual: &Usual,
    arrivals: &Arrivals,
    mut judge: impl FnMut(&Seen<'_>, &Shape) -> Score,
) -> Run {
    let mut order: Vec<usize> = (0..trace.nodes.len()).collect();
    order.sort_by_key(|node| arrivals.ranks[*node]);
    let live = |index: usize| {
        let node = &trace.nodes[index];
        let state = State::empty(node);
        Live { index, state, memory: node.memory, kinds: Kinds::default(), fragmented: usual.fragmented(&state) }
    };
    let mut nodes: Vec<Live> = order.into_iter().map(live).collect();
    let mut run = Run { moments: Vec::new(), failed: 0, placed: Vec::new(), left: Vec::new() };
    let mut now = Moment { asked: 0, used: 0, fragmented: nodes.iter().map(|node| node.fragmented).sum() };
    for arrived in &arrivals.tasks {
        let task = &trace.tasks[*arrived];
        let shape = &trace.shapes[task.shape];
        let mut best: Option<(f64, usize, usize)> = None;
        for (place, node) in nodes.iter().enumerate() {
            if node.memory < task.memory || !node.state.fits(shape) {
                continue;
            }
            let (score, gpu) = judge(&Seen { state: &node.state, kinds: &node.kinds }, shape);
            if best.is_none_or(|(most, ..)| score > most) {
                best = Some((score, place, gpu));
            }
        }
        now.asked += shape.gpu_milli();
        if let Some((_, place, gpu)) = best {
            let node = &mut nodes[place];
            node.state = node.state.after(shape, gpu);
            node.memory -= task.memory;
            if shape.gpus > 0 {
                node.kinds[kind(shape)] += 1;
            }
            let fragmented = usual.fragmented(&node.state);
            now.fragmented += fragmented - node.fragmented;
            node.fragmented = fragmented;
            now.used += shape.gpu_milli();
        } else {
            run.failed += 1;
        }
        run.placed.push(best.map(|(_, place, _)| nodes[place].index));
        run.moments.push(now);
    }
    run.left = nodes.iter().map(|node| node.state).collect();
    run
}

/// The published columns: the mean of a metric over all arrivals at which the demand, as a whole percentage of all GPUs, was
/// that column.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// GPUs in use, % of all.
    pub(crate) allocated: Vec<f64>,
    /// GPUs free and of no use, % of all.
    pub(crate) fragmented: Vec<f64>,
    /// The same, % of the free ones.
    pub(crate) fragmented_of_free: Vec<f64>,
}

fn round2(value: f64) -> f64 {
    format!("{value:.2}").parse().expect("a rounded number is a number")
}

fn mean_round(values: impl Iterator<Item = f64> + Clone, decimals: i32) -> f64 {
    let factor = 10_f64.powi(decimals);
    #[expect(clippy::cast_precision_loss, reason = "a count of arrivals")]
    let mean = values.clone().sum::<f64>() / values.count() as f64;
    (mean * factor).round_ties_even() / factor
}

#[expect(clippy::cast_precision_loss, reason = "thousandths of GPUs, below 2^53")]
#[expect(clippy::cast_possible_truncation, reason = "a percentage")]
impl Run {
    /// The columns up to the percentage `last`.
    pub(crate) fn columns(&self, capacity: u64, last: i32) -> Columns {
        let all = capacity as f64;
        let arrived: Vec<i32> =
            self.moments.iter().map(|moment| (moment.asked as f64 / all * 100.0).round_ties_even() as i32).collect();
        let column = |of: &dyn Fn(&Moment) -> f64, decimals: i32| {
            let per_moment: Vec<f64> = self.moments.iter().map(of).collect();
            let at = |column: i32| {
                let near = |reach: i32| {
                    let zipped = arrived.iter().zip(&per_moment);
                    zipped.filter(move |(it, _)| (**it - column).abs() <= reach).map(|(_, value)| *value)
                };
                mean_round(near(i32::from(near(0).next().is_none())), decimals)
            };
            (0..=last).map(at).collect()
        };
        let of_all = |milli: f64| gpus(milli) / (all / 1000.0) * 100.0;
        Columns {
            allocated: column(&|moment| round2(of_all(moment.used as f64)), 2),
            fragmented: {
                let means: Vec<f64> = column(&|moment| round2(moment.fragmented), 9);
                means.into_iter().map(|mean| (of_all(mean) * 100.0).round_ties_even() / 100.0).collect()
            },
            fragmented_of_free: column(
                &|moment| round2(100.0 * moment.fragmented / (capacity - moment.used) as f64),
                4,
            ),
        }
    }
}

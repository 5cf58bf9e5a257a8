//! Measures placement: replays the published GPU traces, holds our policy beside the published ones, and counts placements
//! in a CPU second. The last line of stdout is one JSON object of figures.
//!
//! The fractions of GPUs that these traces ask for are not sold by the network: here they measure the policy.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arrivals;
mod engine;
mod fragmentation;
mod generated;
mod go_rand;
mod policy;
mod quality;
mod replay;
mod speed;
mod state;
mod trace;
mod waste;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Map, Value, json};

use crate::generated::Generated;
use crate::quality::{Ground, Paired, mean};
use crate::trace::Trace;

/// Devices of the large run, and how often the node list stands in it.
const MILLION: u64 = 1_000_000;
const TIMES: usize = 103;

#[derive(Debug, Parser)]
#[command(about = "Replays GPU traces against placement policies")]
struct Arguments {
    /// Folder with `openb` and `openb-expected`
    #[arg(long, value_name = "DIR", env = "ATOLL_BENCH_DATA")]
    data: Option<PathBuf>,
    /// Another task list in the format of openb
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// Another node list in the format of openb
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// Seeds, first and last
    #[arg(long, value_name = "A-B", default_value = "42-51")]
    seeds: String,
    /// Demand at the end, as a multiple of the GPUs
    #[arg(long, value_name = "X", default_value_t = 1.3)]
    inflate: f64,
    /// Parameters are fixed on this: seeds 1 to 41 and the made-up workloads; nothing else is run
    #[arg(long)]
    train: bool,
    /// Leave out the run with a million devices, which takes a minute and 1 GiB
    #[arg(long)]
    small: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seeds = seeds(&arguments.seeds)?;
    ensure!((0.1..=10.0).contains(&arguments.inflate), "--inflate is {}, not from 0.1 to 10", arguments.inflate);
    let file = |given: &Option<PathBuf>, name: &str| {
        let in_data = || arguments.data.as_ref().map(|data| data.join(name));
        given
            .clone()
            .or_else(in_data)
            .with_context(|| format!("give --data with {name} in it, or --workload and --nodes"))
    };
    let nodes = file(&arguments.nodes, "openb/openb_node_list_gpu_node.csv")?;
    let tasks = file(&arguments.workload, "openb/openb_pod_list_default.csv")?;
    let ground = Ground::new(Trace::read(&nodes, &tasks)?, arguments.inflate);
    let mut figures = Map::new();
    if arguments.train {
        for generated in Generated::ALL {
            let paired = Paired::run(&Ground::new(generated.trace(), arguments.inflate), 1..=10);
            figures.insert(format!("gain_{}", generated.name()), gain(&paired));
        }
        figures.insert("gain_train".to_owned(), gain(&Paired::run(&ground, 1..=41)));
        println!("{}", Value::Object(figures));
        return Ok(());
    }
    let published = arguments.workload.is_none() && arguments.nodes.is_none();
    if let (true, Some(data)) = (published, &arguments.data) {
        reproduce(&ground, &data.join("openb-expected/openb_default_expected.csv"), &mut figures)?;
    }
    compare(&Paired::run(&ground, seeds), &mut figures);
    speeds(ground, arguments.small, &mut figures)?;
    println!("{}", Value::Object(figures));
    Ok(())
}

fn seeds(text: &str) -> Result<std::ops::RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u32>().with_context(|| format!("--seeds: {text:?} is not a number"));
    let (first, last) = (number(first)?, number(last)?);
    ensure!(first <= last && last - first < 1000, "--seeds: from {first} to {last} are none, or more than 1,000");
    Ok(first..=last)
}

fn gain(paired: &Paired) -> Value {
    let (gain, low) = paired.gain();
    let how = format!(
        "ours {:.3} %, FGD {:.3} %, mean gain {gain:.3} points, won on {} of {} seeds",
        mean(&paired.ours),
        mean(&paired.fgd),
        paired.wins(),
        paired.ours.len()
    );
    json!({ "value": low, "how": how })
}

fn reproduce(ground: &Ground, table: &std::path::Path, figures: &mut Map<String, Value>) -> Result<()> {
    let found = quality::reproduce(ground, table)?;
    let how = format!(
        "{} cells of five policies, ten seeds, three metrics, each column; {} differ at all, in the last digit",
        found.cells, found.differ
    );
    figures.insert("reproduce_max_error".to_owned(), json!({ "value": found.max_error, "how": how }));
    let how = format!("mean of ten seeds {:.3} %, published {:.3} %", found.random_mean, found.random_expected);
    let error = (found.random_mean - found.random_expected).abs();
    figures.insert("reproduce_random_error".to_owned(), json!({ "value": error, "how": how }));
    Ok(())
}

fn compare(paired: &Paired, figures: &mut Map<String, Value>) {
    let per_seed = |list: &[f64]| list.iter().map(|one| format!("{one:.2}")).collect::<Vec<_>>().join(" ");
    let how = format!("% of GPUs in use at the end, ours {}; FGD {}", per_seed(&paired.ours), per_seed(&paired.fgd));
    figures.insert("alloc_wins_vs_fgd".to_owned(), json!({ "value": paired.wins(), "how": how }));
    figures.insert("alloc_ci_low".to_owned(), gain(paired));
    let (ours, fgd) = (mean(&paired.ours), mean(&paired.fgd));
    let how = "against all GPUs in use, the bound that needs no proof: no better one is worked out yet";
    let closed = 100.0 * (ours - fgd) / (100.0 - fgd);
    figures.insert("alloc_gap_closed".to_owned(), json!({ "value": closed, "how": how }));
}

fn speeds(ground: Ground, small: bool, figures: &mut Map<String, Value>) -> Result<()> {
    let told = |speed: &speed::Speed| {
        let how = format!(
            "{} of {} tasks placed in {:.3} CPU-s, one thread, set-up with it; {} nodes, {} GPUs, {:.2} % in use",
            speed.placed, speed.arrived, speed.cpu_s, speed.nodes, speed.gpus, speed.allocated
        );
        json!({ "value": speed.rate(), "how": how })
    };
    let runs = (0..5).map(|_| speed::run(&ground, 42)).collect::<Result<Vec<_>>>()?;
    let median = {
        let mut runs = runs;
        runs.sort_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s));
        runs[2]
    };
    figures.insert("placements_per_cpu_s_1213".to_owned(), told(&median));
    if !small {
        let large = generated::multiplied(&ground.trace, TIMES, MILLION);
        let ground = Ground { trace: large, ..ground };
        figures.insert("placements_per_cpu_s_1m".to_owned(), told(&speed::run(&ground, 42)?));
    }
    Ok(())
}

//! Placement, measured: replays of public GPU traces, and placements in a CPU second.
//!
//! The traces are not part of the repository: openb is Alibaba's, from `cluster-trace-gpu-v2023` of
//! github.com/alibaba/clusterdata, the published tables are those of github.com/hkust-adsl/kubernetes-scheduler-simulator
//! (`experiments/analysis/expected_results`).

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::reported::{read, run};
use super::{Figure, Figures};

/// Key, unit and bar of every figure.
const KEYS: [(&str, &str, &str); 7] = [
    ("reproduce_max_error", "points", "<= 0.02"),
    ("reproduce_random_error", "points", "<= 0.3"),
    ("alloc_wins_vs_fgd", "of 10", ">= 9"),
    ("alloc_ci_low", "points", "> 0"),
    ("alloc_gap_closed", "%", "target 25"),
    ("placements_per_cpu_s_1213", "1/s", ">= 100000"),
    ("placements_per_cpu_s_1m", "1/s", ">= 20000"),
];

/// What is replayed.
#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// Folder with the traces, as `openb` and `openb-expected`, for `placement`
    #[arg(long, value_name = "DIR", env = "ATOLL_BENCH_DATA")]
    data: Option<PathBuf>,
    /// Another task list for `placement`, in the format of openb
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// Another node list for `placement`, in the format of openb
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// Seeds of `placement`, first and last
    #[arg(long, value_name = "A-B")]
    seeds: Option<String>,
    /// Demand at the end for `placement`, as a multiple of the GPUs
    #[arg(long, value_name = "X")]
    inflate: Option<String>,
}

pub(super) fn measure(repository: &Path, arguments: &Replay) -> Result<Figures> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let given = [
        ("--data", path(&arguments.data)),
        ("--workload", path(&arguments.workload)),
        ("--nodes", path(&arguments.nodes)),
        ("--seeds", arguments.seeds.clone()),
        ("--inflate", arguments.inflate.clone()),
    ];
    let mut command = ["run", "--locked", "--release", "-p", "atoll-placement-bench", "--"].map(str::to_owned).to_vec();
    for (name, value) in given {
        command.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    }
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let told = run(repository, &words).map_err(|error| format!("{error:#}"));
    let figure = |(key, unit, bar)| {
        let taken = told.as_ref().map_err(Clone::clone).and_then(|told| read(told, key));
        let (value, how, why) = match taken {
            Ok((value, how)) => (Some((value * 1000.0).round() / 1000.0), how, None),
            Err(why) => (None, String::new(), Some(why)),
        };
        (key, Figure { value, unit, bar, how, why })
    };
    Ok(KEYS.into_iter().map(figure).collect())
}

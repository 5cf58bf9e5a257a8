//! `cargo xtask bench NAME`: measures, and prints figures with their unit and how they were taken.
//!
//! Bars live in the issue that names them and in docs/performance.md; a bench does not fail for a figure. What could not
//! be taken is null with the reason.

mod placement;
mod program;
mod reported;
mod survive;
mod walk;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which bench
    #[arg(value_enum)]
    name: Name,
    /// Only the last line: one JSON object
    #[arg(long)]
    json: bool,
    /// Leave out the two build figures, which take minutes
    #[arg(long)]
    no_build: bool,
    /// Take only these figures of `survive`, as often as given
    #[arg(long, value_name = "KEY")]
    only: Vec<String>,
    #[command(flatten)]
    placement: placement::Replay,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// The walking network: start, loss, pods, memory, build
    Walk,
    /// Placement on public GPU traces: what is brought to use, and how quickly
    Placement,
    /// The market program: compute units, transactions, rent, dollars a device-hour
    Program,
    /// What survives: simulation, links at scale, failovers, the chain as it grows
    Survive,
}

/// One measured figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// None when it could not be taken.
    pub(crate) value: Option<f64>,
    pub(crate) unit: &'static str,
    /// The bar it is held against, in words.
    pub(crate) bar: &'static str,
    pub(crate) how: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

pub(crate) type Figures = BTreeMap<&'static str, Figure>;

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    commit: String,
    machine: String,
    figures: Figures,
}

pub(crate) fn run(arguments: &Arguments, repository: &Path) -> Result<()> {
    let (bench, figures) = match arguments.name {
        Name::Walk => ("walk", walk::measure(repository, !arguments.no_build)?),
        Name::Placement => ("placement", placement::measure(repository, &arguments.placement)?),
        Name::Program => ("program", program::measure(repository)?),
        Name::Survive => ("survive", survive::measure(repository, &arguments.only)?),
    };
    let report = Report { bench, commit: commit(repository), machine: machine(), figures };
    if !arguments.json {
        for (key, figure) in &report.figures {
            let value = figure.value.map_or_else(|| "null".to_owned(), shown);
            let words = figure.why.as_deref().unwrap_or(&figure.how);
            println!("{key:<31} {value:>10} {:<5} bar {:<8} {words}", figure.unit, figure.bar);
        }
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// A figure for people: two decimals, or three digits of what is smaller.
fn shown(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.01 { format!("{value:.2e}") } else { format!("{value:.2}") }
}

pub(crate) fn commit(repository: &Path) -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(repository).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processor, cores, memory, kernel and load of this machine.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let name =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("", |it| it.1.trim());
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{name}, {cores} cores, {} GiB, Linux {}, load {load}", kib >> 20, kernel.trim())
}

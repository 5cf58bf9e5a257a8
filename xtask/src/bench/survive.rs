//! What survives, measured: simulation, links at scale, failovers, the chain's cost as it grows.
//!
//! Each figure is taken by itself; one that cannot be taken says why, and the others are taken all the same. Programs
//! that measure one thing (the simulation's own bench, examples beside the code) print a JSON object of keys, each a
//! number or `{"value", "how", "why"}`; this puts them together.

mod failover;
mod links;
mod nodes;

use std::path::Path;

use anyhow::{Result, bail};

use super::reported::{read, run};
use super::{Figure, Figures};
use crate::test::command;
use nodes::Ground;

/// Links of the reconnect storm.
const STORM: usize = 10_000;

/// Key, unit and bar of every figure.
const KEYS: [(&str, &str, &str); 8] = [
    ("sim_virtual_per_cpu", "x", ">= 200"),
    ("planted_bugs_found", "of n", "all"),
    ("lost_or_doubled", "count", "0"),
    ("control_rss_1000_workers_mb", "MB", "<= 120"),
    ("reconnect_10k_cpu_s", "s", "<= 10"),
    ("failover_api_s", "s", "<= 2"),
    ("failover_db_s", "s", "<= 10"),
    ("chain_tx_ms_1k_vs_100k_accounts", "x", "<= 1.3"),
];

/// Another program's figures: how it is run, and which keys it gives.
const PROGRAMS: [(&[&str], &[&str]); 3] = [
    (
        &["run", "--locked", "--release", "-p", "atoll-sim", "--", "bench", "--json"],
        &["sim_virtual_per_cpu", "planted_bugs_found", "lost_or_doubled"],
    ),
    (
        &[
            "run",
            "--locked",
            "--release",
            "-p",
            "atoll-chain",
            "--features",
            "local",
            "--example",
            "chain_cost",
            "--",
            "--json",
        ],
        &["chain_tx_ms_1k_vs_100k_accounts"],
    ),
    (
        &["run", "--locked", "--release", "-p", "atoll-control", "--example", "store_failover", "--", "--json"],
        &["failover_db_s"],
    ),
];

/// A figure that is taken on nodes.
type Taken = fn(&Ground, &Path) -> Result<(f64, String)>;

/// The figures of nodes, in the order in which they are taken.
const NODES: [(&str, Taken); 3] = [
    ("failover_api_s", |ground, _| failover::api(ground)),
    ("control_rss_1000_workers_mb", links::memory),
    ("reconnect_10k_cpu_s", |ground, swarm| links::storm(ground, swarm, STORM)),
];

/// Takes the figures of these keys; of none, all.
pub(super) fn measure(repository: &Path, only: &[String]) -> Result<Figures> {
    if let Some(unknown) = only.iter().find(|key| !KEYS.iter().any(|known| known.0 == key.as_str())) {
        bail!("`survive` has no figure {unknown}");
    }
    let wanted = |key: &str| only.is_empty() || only.iter().any(|one| one == key);
    let mut figures = Figures::new();
    for (arguments, keys) in PROGRAMS {
        let keys: Vec<&str> = keys.iter().copied().filter(|key| wanted(key)).collect();
        if keys.is_empty() {
            continue;
        }
        let told = run(repository, arguments).map_err(|error| format!("{error:#}"));
        for key in keys {
            put(&mut figures, key, told.as_ref().map_err(Clone::clone).and_then(|told| read(told, key)));
        }
    }
    let nodes: Vec<(&str, Taken)> = NODES.into_iter().filter(|(key, _)| wanted(key)).collect();
    if !nodes.is_empty() {
        measure_nodes(repository, &nodes, &mut figures);
    }
    Ok(figures)
}

fn measure_nodes(repository: &Path, wanted: &[(&str, Taken)], figures: &mut Figures) {
    let folder = std::env::temp_dir().join(format!("atoll-survive-{}", std::process::id()));
    let ground = ground(repository, &folder);
    let swarm = repository.join("target/release/examples/swarm");
    for (key, measure) in wanted {
        let taken = match &ground {
            Ok(ground) => measure(ground, &swarm).map_err(|error| format!("{error:#}")),
            Err(error) => Err(format!("{error:#}")),
        };
        put(figures, key, taken);
    }
    drop(ground);
    if wanted.iter().any(|(key, _)| figures.get(key).is_none_or(|figure| figure.value.is_none())) {
        eprintln!("what the nodes said: {}", folder.display());
    } else if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("{} stays: {error}", folder.display());
    }
}

/// The binaries and the network that the figures of nodes are taken on.
fn ground(repository: &Path, folder: &Path) -> Result<Ground> {
    command(repository, "cargo", &["build", "--locked", "--release", "-p", "atoll"])?;
    command(repository, "cargo", &["build", "--locked", "--release", "-p", "atoll-worker", "--example", "swarm"])?;
    let (binary, swarm) = (repository.join("target/release/atoll"), repository.join("target/release/examples/swarm"));
    let (ground, registered) = Ground::prepare(&binary, &swarm, folder, STORM)?;
    let nodes::Registered { transactions, seconds } = registered;
    eprintln!("registered {STORM} workers: {transactions} transactions in {seconds:.1} s");
    Ok(ground)
}

fn put(figures: &mut Figures, key: &str, taken: Result<(f64, String), String>) {
    let Some((key, unit, bar)) = KEYS.into_iter().find(|known| known.0 == key) else { return };
    let figure = match taken {
        Ok((value, how)) => Figure { value: Some((value * 1000.0).round() / 1000.0), unit, bar, how, why: None },
        Err(why) => Figure { value: None, unit, bar, how: String::new(), why: Some(why) },
    };
    eprintln!("{key}: {:?} {}", figure.value, figure.why.as_deref().unwrap_or(&figure.how));
    figures.insert(key, figure);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_of_one_program_at_most() {
        let given: Vec<&str> = PROGRAMS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
        assert!(given.iter().all(|key| KEYS.iter().any(|known| known.0 == *key)));
        assert_eq!(given.len(), given.iter().collect::<std::collections::BTreeSet<_>>().len());
    }
}

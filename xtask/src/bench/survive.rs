//! What survives, measured: simulation, links at scale, failovers, the chain's cost as it grows.
//!
//! Each figure is taken by itself; one that cannot be taken says why, and the others are taken all the same. Programs
//! that measure one thing (the simulation's own bench, examples beside the code) print a JSON object of keys, each a
//! number or `{"value", "how", "why"}`; this puts them together.

mod failover;
mod links;
mod nodes;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

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

pub(super) fn measure(repository: &Path) -> Figures {
    let mut figures = Figures::new();
    for (arguments, keys) in PROGRAMS {
        let told = run(repository, arguments);
        for key in keys {
            put(
                &mut figures,
                key,
                told.as_ref().map_err(|error| format!("{error:#}")).and_then(|told| read(told, key)),
            );
        }
    }
    let folder = std::env::temp_dir().join(format!("atoll-survive-{}", std::process::id()));
    let ground = ground(repository, &folder);
    let swarm = repository.join("target/release/examples/swarm");
    let taken = |measure: &dyn Fn(&Ground) -> Result<(f64, String)>| match &ground {
        Ok(ground) => measure(ground).map_err(|error| format!("{error:#}")),
        Err(error) => Err(format!("{error:#}")),
    };
    put(&mut figures, "failover_api_s", taken(&failover::api));
    put(&mut figures, "control_rss_1000_workers_mb", taken(&|ground| links::memory(ground, &swarm)));
    put(&mut figures, "reconnect_10k_cpu_s", taken(&|ground| links::storm(ground, &swarm, STORM)));
    let failed = figures.values().any(|figure| figure.value.is_none());
    drop(ground);
    if failed {
        eprintln!("what the nodes said: {}", folder.display());
    } else if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("{} stays: {error}", folder.display());
    }
    figures
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

/// Runs a program of the workspace; the last line that it prints is its JSON.
fn run(repository: &Path, arguments: &[&str]) -> Result<Value> {
    eprintln!("$ cargo {}", arguments.join(" "));
    let output = Command::new("cargo")
        .args(arguments)
        .current_dir(repository)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("`cargo {}` ended with {}", arguments.join(" "), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().context("it printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("`cargo {}` ended without JSON", arguments.join(" ")))
}

/// One key of another program's answer: `key` or `figures.key`, a number or an object with one.
fn read(told: &Value, key: &str) -> Result<(f64, String), String> {
    let said = if told[key].is_null() { &told["figures"][key] } else { &told[key] };
    let value = said.as_f64().or_else(|| said["value"].as_f64());
    let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    value.map(|value| (value, word("how"))).ok_or_else(|| match word("why") {
        why if why.is_empty() => format!("the program gave no {key}"),
        why => why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn another_programs_figures_are_read_in_both_forms() {
        let told = json!({"a": 3, "b": {"value": 2.5, "how": "so"}, "c": {"value": null, "why": "no"}});
        assert_eq!(read(&told, "a"), Ok((3.0, String::new())));
        assert_eq!(read(&json!({"figures": told}), "b"), Ok((2.5, "so".to_owned())));
        assert_eq!(read(&told, "c"), Err("no".to_owned()));
        assert_eq!(read(&told, "d"), Err("the program gave no d".to_owned()));
    }

    #[test]
    fn every_key_is_of_one_program_at_most() {
        let given: Vec<&str> = PROGRAMS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
        assert!(given.iter().all(|key| KEYS.iter().any(|known| known.0 == *key)));
        assert_eq!(given.len(), given.iter().collect::<std::collections::BTreeSet<_>>().len());
    }
}

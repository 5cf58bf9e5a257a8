//! The walking network, measured: the demo's times with their split, pod start against plain bwrap, memory, build cost.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Figure, Figures};
use crate::network::Network;
use crate::setup::{self, Consent, Purpose};
use crate::test::command;
use crate::{demo, usage};

/// How long the idle network is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn measure(repository: &Path, build: bool) -> Result<Figures> {
    setup::ensure(Purpose::Demo, Consent::new(false), repository)?;
    command(repository, "cargo", &["build", "--locked", "--release", "-p", "atoll"])?;
    let binary = repository.join("target/release/atoll");
    let mut figures = Figures::new();
    idle(repository, &binary, &mut figures)?;
    pod_start(&binary, &mut figures)?;
    story(repository, &binary, &mut figures)?;
    if build {
        builds(repository, &mut figures)?;
    } else {
        for (key, bar) in [("clean_build_cpu_s", "<= 420"), ("check_after_domain_s", "<= 20")] {
            let why = Some("left out by --no-build".to_owned());
            figures.insert(key, Figure { value: None, unit: "s", bar, how: String::new(), why });
        }
    }
    Ok(figures)
}

fn figure(value: f64, unit: &'static str, bar: &'static str, how: impl Into<String>) -> Figure {
    Figure { value: Some((value * 1000.0).round() / 1000.0), unit, bar, how: how.into(), why: None }
}

/// Resident memory of an idle control node and an idle worker.
fn idle(repository: &Path, binary: &Path, figures: &mut Figures) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("atoll-bench-{}", std::process::id()));
    let network = Network::start(binary, &folder, &crate::pack::folder(repository, "ray-torch"), 4)?;
    std::thread::sleep(SETTLE);
    let control = rss_mb(network.facts.server_pid)?;
    let mut workers: Vec<f64> = network.facts.workers.iter().map(|it| rss_mb(it.pid)).collect::<Result<_>>()?;
    workers.sort_by(f64::total_cmp);
    network.stop()?;
    std::fs::remove_dir_all(&folder)?;
    figures
        .insert("control_idle_rss_mb", figure(control, "MB", "<= 60", "VmRSS, release, SQLite, 4 idle workers linked"));
    let how = "VmRSS, release, the largest of 4 idle workers";
    figures.insert("worker_idle_rss_mb", figure(*workers.last().context("no workers")?, "MB", "<= 25", how));
    Ok(())
}

/// Resident memory in MB (10⁶ bytes).
pub(super) fn rss_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// A pod that runs `true`, against bwrap with the same binds and seccomp program, alternating.
fn pod_start(binary: &Path, figures: &mut Figures) -> Result<()> {
    let output = Command::new(binary).args(["bench-pod-start", "--runs", "50", "--json"]).output()?;
    if !output.status.success() {
        bail!("bench-pod-start ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| answer[key].as_f64().with_context(|| format!("bench-pod-start gave no {key}"));
    let (pod, plain) = (number("pod_start_ms")?, number("bwrap_ms")?);
    let how = format!("medians of 50 in one run, alternating: pod {pod:.1} ms, bwrap {plain:.1} ms");
    figures.insert("pod_start_ratio", figure(number("pod_start_ratio")?, "x", "<= 4", how));
    let how = "VmRSS of a supervisor whose pod runs";
    figures.insert("supervisor_rss_mb", figure(number("supervisor_rss_mb")?, "MB", "<= 12", how));
    Ok(())
}

/// The demo once, with the split of its start.
fn story(repository: &Path, binary: &Path, figures: &mut Figures) -> Result<()> {
    let (summary, split) = demo::measured(repository, binary)?;
    let number = |key: &str| summary[key].as_f64().with_context(|| format!("the demo gave no {key}"));
    let parts: Vec<String> = split.iter().map(|(part, length)| format!("{part} {:.1}", length.as_secs_f64())).collect();
    let how = format!("one cold run, Ray cold; {} s", parts.join(", "));
    figures.insert("submit_to_first_step_s", figure(number("submit_to_first_step_s")?, "s", "<= 45", how));
    let how = "one run: SIGKILL of worker, supervisor and pod to the first new training step";
    figures.insert("recovery_s", figure(number("recovery_s")?, "s", "<= 30", how));
    Ok(())
}

/// CPU time of a clean build without the local chain, and of a check after touching the domain.
fn builds(repository: &Path, figures: &mut Figures) -> Result<()> {
    let target = repository.join("target/bench-clean");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    let target_text = target.to_str().context("the repository's path is not UTF-8")?.to_owned();
    let cpu = usage::children_cpu();
    let clean = ["build", "--locked", "-p", "atoll", "--no-default-features", "--target-dir", &target_text];
    command(repository, "cargo", &clean)?;
    let clean_cpu = usage::children_cpu().saturating_sub(cpu).as_secs_f64();
    std::fs::remove_dir_all(&target)?;
    figures
        .insert("clean_build_cpu_s", figure(clean_cpu, "s", "<= 420", "user + system, dev profile, without `local`"));
    let check = ["check", "--locked", "--workspace"];
    command(repository, "cargo", &check)?;
    let domain = repository.join("crates/domain/src/lib.rs");
    std::fs::File::options().append(true).open(&domain)?.set_modified(std::time::SystemTime::now())?;
    let cpu = usage::children_cpu();
    command(repository, "cargo", &check)?;
    let checked = usage::children_cpu().saturating_sub(cpu).as_secs_f64();
    figures.insert("check_after_domain_s", figure(checked, "s", "<= 20", "user + system of cargo check --workspace"));
    Ok(())
}

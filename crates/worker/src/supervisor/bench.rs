//! How long a pod takes to start and end, against bubblewrap alone, alternating in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use atoll_domain::id::PodId;
use atoll_domain::key::PublicKey;
use serde::Serialize;

use super::client::{self, Pod};
use super::shared::{monotonic_us, now};
use super::spec::{LimitSpec, OverlaySpec, PodSpec, Start};
use super::start::{furnish, memory_file};
use crate::runtime::{bwrap, procs, seccomp};

/// What the bench of the issue asks for.
const RUNS: usize = 50;

/// Result of the bench.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    pub runs: usize,
    /// Median from the request (before the supervisor is started) to the exit of `true` at the supervisor.
    pub pod_start_ms: f64,
    /// Median of bubblewrap with the same binds and seccomp program, and --unshare-net.
    pub bwrap_ms: f64,
    pub pod_start_ratio: f64,
    /// Median resident memory of the supervisor while its pod runs.
    pub supervisor_rss_mb: f64,
}

/// The role `bench-pod-start [--runs N] [--json]`.
///
/// # Errors
/// Pods cannot be started here, and why.
pub fn main(arguments: &[&str]) -> Result<()> {
    let (mut runs, mut json) = (RUNS, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--json" => json = true,
            "--runs" => runs = rest.next().context("--runs needs a number")?.parse()?,
            other => bail!("unknown argument {other}"),
        }
    }
    let figures = pod_start_bench(&std::env::current_exe()?, &std::env::temp_dir(), runs)?;
    if json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        println!("{figures:#?}");
    }
    Ok(())
}

/// Starts `runs` pods and as many bare bubblewraps, in turn. `executable` knows the hidden roles; `scratch` is an existing
/// folder. As root, pods run as uid 61900.
///
/// # Errors
/// A pod or bubblewrap failed, and what it said.
pub fn pod_start_bench(executable: &Path, scratch: &Path, runs: usize) -> Result<Figures> {
    ensure!(runs > 0, "at least one run");
    let root = scratch.join(format!("atoll-bench-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (mut pods, mut bare, mut resident) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..runs {
            pods.push(one_pod(executable, &root, n).await?);
            bare.push(one_bwrap(&root, n)?);
        }
        for n in 0..5 {
            resident.push(resident_mb(executable, &root, runs + n).await?);
        }
        Ok((median(pods), median(bare), median(resident)))
    });
    // The folder is the bench's own; a failure to remove it changes no figure.
    let _ = fs::remove_dir_all(&root);
    let (pod_start_ms, bwrap_ms, supervisor_rss_mb) = outcome.map_err(|error: anyhow::Error| error)?;
    Ok(Figures { runs, pod_start_ms, bwrap_ms, pod_start_ratio: pod_start_ms / bwrap_ms, supervisor_rss_mb })
}

fn bench_spec(n: usize, argv: &[&str]) -> Result<PodSpec> {
    let mut id = [0u8; 16];
    id[..8].copy_from_slice(&(n as u64).to_le_bytes());
    id[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    Ok(PodSpec {
        pod: PodId::from_random(id),
        order: PublicKey([1; 32]),
        lease: PublicKey([2; 32]),
        fence: 1,
        overlay: OverlaySpec {
            ip: "10.77.0.1".parse()?,
            prefix_bits: 16,
            bind: "127.0.0.1:0".parse()?,
            announce: "127.0.0.1".parse()?,
        },
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: std::collections::BTreeMap::new(),
        binds: vec![],
        limits: LimitSpec {
            memory_bytes: 256 << 20,
            cpu_milli: 2000,
            pids: 64,
            disk_bytes: 64 << 20,
            shm_bytes: 16 << 20,
            tmp_bytes: 16 << 20,
            output_bytes: 1 << 20,
        },
        uid: nix::unistd::geteuid().is_root().then_some(61_900),
        start: Start::AtOnce,
        ends_at: now().after(std::time::Duration::from_secs(600)),
        grace_ms: 1000,
        authorised: vec![],
        worker_socket: None,
        tun_device: "/dev/net/tun".into(),
        bwrap: "/usr/bin/bwrap".into(),
        cgroup: None,
        usage_period_ms: 1000,
    })
}

async fn one_pod(executable: &Path, root: &Path, n: usize) -> Result<f64> {
    let dir = root.join(format!("pod-{n}"));
    client::prepare(&dir, &bench_spec(n, &["true"])?)?;
    let requested_us = monotonic_us();
    let (pod, _) = Pod::spawn(executable, &dir).await?;
    let exit = pod.wait(std::time::Duration::from_secs(30)).await?.context("the pod did not end")?;
    ensure!(exit.code == Some(0), "the pod ended otherwise: {exit:?}");
    fs::remove_dir_all(&dir)?;
    Ok(exit.exited_monotonic_us.saturating_sub(requested_us) as f64 / 1000.0)
}

fn one_bwrap(root: &Path, n: usize) -> Result<f64> {
    let dir = root.join(format!("bare-{n}"));
    fs::create_dir_all(&dir)?;
    let spec = PodSpec { uid: None, ..bench_spec(n, &["true"])? };
    furnish(&dir, &spec)?;
    let (etc, job): (PathBuf, PathBuf) = (dir.join("etc"), dir.join("job"));
    let mut line = bwrap::arguments(&spec, &spec.env, &bwrap::Sources { etc: &etc, job: &job, binds: &[] });
    let at = line.iter().position(|word| word == "--seccomp").context("bubblewrap gets a seccomp program")?;
    // Descriptor 0 here: the one that needs no special care to be inherited.
    line[at + 1] = "0".to_owned();
    let program = memory_file("seccomp", &seccomp::program()?)?;
    let began = Instant::now();
    let mut command = Command::new(&spec.bwrap);
    command.args(line).arg("--unshare-net").arg("--").arg("true").env_clear();
    let output = command.stdin(Stdio::from(program)).output().context("start bubblewrap")?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    ensure!(output.status.success(), "bubblewrap: {}", String::from_utf8_lossy(&output.stderr));
    fs::remove_dir_all(&dir)?;
    Ok(took)
}

/// Resident memory of a supervisor whose pod has been running for two usage records.
async fn resident_mb(executable: &Path, root: &Path, n: usize) -> Result<f64> {
    let dir = root.join(format!("pod-{n}"));
    let spec = PodSpec { usage_period_ms: 100, ..bench_spec(n, &["sleep", "60"])? };
    client::prepare(&dir, &spec)?;
    let (pod, status) = Pod::spawn(executable, &dir).await?;
    while pod.status().await?.usage.seq < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let bytes = procs::resident_bytes(status.supervisor_pid).context("the supervisor runs")?;
    pod.stop(std::time::Duration::ZERO).await?;
    fs::remove_dir_all(&dir)?;
    Ok(bytes as f64 / 1e6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

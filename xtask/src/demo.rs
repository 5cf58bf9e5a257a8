//! `cargo xtask demo`: the main job on a local network, one machine lost on the way.
//!
//! It acts as a user and as bad luck would: client commands, SIGKILL, and the chain's RPC for every money figure. The
//! last line on stdout is one JSON object; the exit status is 0 only when everything in it held.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::chaos;
use crate::network::{Balances, Network};
use crate::postgres::Postgres;
use crate::setup::{self, Consent, Purpose};
use crate::test::command;

/// How long the whole job may take, from submission to its receipt.
const JOB_WITHIN: Duration = Duration::from_secs(600);
/// The accuracy that the trained network must reach on digits it never saw.
const ACCURACY_MIN: f64 = 0.93;
/// Checkpoints to wait for before a machine is killed: midway, with something to resume from.
const CHECKPOINTS_BEFORE_LOSS: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Leave the network up
    #[arg(long)]
    keep: bool,
    /// Play with this binary instead of building one in release
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// At random moments kill the control node, restart its PostgreSQL, and halt the chain for a minute
    #[arg(long)]
    chaos: bool,
    /// Draw the same moments as an earlier --chaos
    #[arg(long, value_name = "NUMBER", requires = "chaos")]
    seed: Option<u64>,
}

/// What else happens to the network while the job runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Luck {
    /// One machine is lost.
    Usual,
    /// And all that [`chaos`](crate::chaos) has, at moments drawn from this seed.
    Chaos(u64),
}

pub(crate) fn run(arguments: &Arguments, repository: &Path) -> Result<()> {
    setup::ensure(Purpose::Demo, Consent::new(arguments.yes), repository)?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => {
            command(repository, "cargo", &["build", "--locked", "--release", "-p", "atoll"])?;
            repository.join("target/release/atoll")
        }
    };
    let luck = match (arguments.chaos, arguments.seed) {
        (false, _) => Luck::Usual,
        (true, Some(seed)) => Luck::Chaos(seed),
        (true, None) => Luck::Chaos(chaos::seed()?),
    };
    let summary = play(repository, &binary, arguments.keep, luck)?;
    ensure!(summary["conserved"] == true && summary["state"] == "succeeded", "not everything held");
    Ok(())
}

/// Everything that happened to a job so far, as its owner sees it.
struct Watched<'a> {
    network: &'a Network,
    job: String,
    started: Instant,
    shown: u64,
    events: Vec<Value>,
}

impl Watched<'_> {
    /// Reads new events, tells them on stderr, and gives the job as it stands.
    fn look(&mut self) -> Result<Value> {
        let after = self.shown.to_string();
        let page = self.network.json(&["job", "events", &self.job, "--after", &after])?;
        for event in page["events"].as_array().context("no events")? {
            self.shown = event["seq"].as_u64().context("an event without number")?;
            let (kind, message) = (event["kind"].as_str().unwrap_or(""), event["message"].as_str().unwrap_or(""));
            eprintln!("{:>6.1} s  {kind:<10}  {message}", self.started.elapsed().as_secs_f64());
            self.events.push(event.clone());
        }
        self.network.json(&["job", "show", &self.job])
    }

    /// Looks until `found` finds something.
    fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Self, &Value) -> Result<Option<T>>) -> Result<T> {
        loop {
            let job = self.look()?;
            if let Some(it) = found(self, &job)? {
                return Ok(it);
            }
            let state = job["state"].as_str().unwrap_or("");
            if matches!(state, "failed" | "stopped") || (state == "succeeded" && what != "its end") {
                bail!("the job is {state} while waiting for {what}: {}", job["reason"]);
            }
            if self.started.elapsed() > JOB_WITHIN {
                bail!("the job did not reach {what} within {JOB_WITHIN:?}; it is {state}: {}", job["reason"]);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn of_kind<'b>(&'b self, kind: &'b str) -> impl Iterator<Item = &'b Value> {
        self.events.iter().filter(move |event| event["kind"] == kind)
    }

    fn field(event: &Value, name: &str) -> Option<String> {
        event["fields"][name].as_str().map(str::to_owned)
    }
}

/// Lengths of the parts of a start, in order.
pub(crate) type Split = Vec<(&'static str, Duration)>;

/// Runs the whole story with one binary. Prints the summary as the last line of stdout and returns it.
pub(crate) fn play(repository: &Path, binary: &Path, keep: bool, luck: Luck) -> Result<Value> {
    let (summary, _) = run_through(repository, binary, keep, luck)?;
    println!("{summary}");
    Ok(summary)
}

/// The same for a bench: the summary, and how long each part of the start took.
pub(crate) fn measured(repository: &Path, binary: &Path) -> Result<(Value, Split)> {
    run_through(repository, binary, false, Luck::Usual)
}

fn run_through(repository: &Path, binary: &Path, keep: bool, luck: Luck) -> Result<(Value, Split)> {
    let folder = std::env::temp_dir().join(format!("atoll-demo-{}", std::process::id()));
    let pack = crate::pack::folder(repository, "ray-torch");
    eprintln!("starting a network of 4 workers in {}", folder.display());
    let (network, postgres) = match luck {
        Luck::Usual => (Network::start(binary, &folder, &pack, 4)?, None),
        Luck::Chaos(seed) => {
            eprintln!("seed {seed}: play it again with --seed {seed}");
            let postgres = Postgres::start()?;
            let store = postgres.url("postgres");
            let mut network = Network::start_with(binary, &folder, &pack, 4, &["--store", &store])?;
            network.patience = chaos::PATIENCE;
            (network, Some((postgres, seed)))
        }
    };
    let told = match &postgres {
        None => story(repository, &network)?,
        Some((postgres, seed)) => std::thread::scope(|scope| {
            let misfortunes = scope.spawn(|| chaos::strike(&network, postgres, *seed));
            let told = story(repository, &network);
            let struck = misfortunes.join().map_err(|_| anyhow::anyhow!("the misfortunes broke off"))?;
            let mut told = told?;
            told.0["misfortunes"] = struck?;
            anyhow::Ok(told)
        })?,
    };
    if keep {
        eprintln!("the network stays up: ATOLL_HOME={}", folder.join("client").display());
        network.keep();
    } else {
        let receipt = repository.join("target/demo-receipt.json");
        network.stop()?;
        eprintln!("nothing of the network runs any more; receipt: {}", receipt.display());
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(told)
}

fn story(repository: &Path, network: &Network) -> Result<(Value, Split)> {
    let before = network.balances()?;
    let example = repository.join("examples/digits");
    let example = example.to_str().context("the repository's path is not UTF-8")?;
    let started = Instant::now();
    let job = network.json(&["job", "submit", example, "--devices", "3", "--yes", "--detach"])?;
    let job = job["job"].as_str().context("no job id")?.to_owned();
    let mut watched = Watched { network, job: job.clone(), started, shown: 0, events: Vec::new() };
    let submit_to_first_step =
        watched.until("its first step", |it, _| Ok(it.of_kind("step").next().map(|_| started.elapsed())))?;
    let victim = watched.until("something to resume from", |it, job| {
        Ok((it.of_kind("checkpoint").count() >= CHECKPOINTS_BEFORE_LOSS).then(|| node_worker(job)).flatten())
    })?;
    let worker = network.facts.workers.iter().find(|it| it.worker == victim).context("the victim is unknown to dev")?;
    let killed = Instant::now();
    let died = network.kill_worker(worker)?;
    eprintln!("{:>6.1} s  KILLED      {victim} with {died} processes", started.elapsed().as_secs_f64());
    let recovery = watched.until("its first step after the loss", |it, _| {
        let resumed = it.of_kind("resumed").last().and_then(|event| event["seq"].as_u64());
        let Some(resumed) = resumed else { return Ok(None) };
        Ok(it.of_kind("step").any(|event| event["seq"].as_u64() > Some(resumed)).then(|| killed.elapsed()))
    })?;
    let resumed = watched.of_kind("resumed").last().context("no resume was reported")?.clone();
    let resumed_from = weights_match(network, &job, &resumed)?;
    let ended = watched.until("its end", |_, job| Ok((job["state"] == "succeeded").then(|| job.clone())))?;
    let after = network.balances()?;
    let receipt = keep_receipt(repository, network, &job)?;
    let money = Money::of(&before, &after, ended["escrow"].as_u64().context("no escrow")?)?;
    let replacement = replacement(&ended, &victim).context("nobody replaced the lost worker")?;
    #[allow(clippy::cast_precision_loss, reason = "millionths of an accuracy, below 2^20")]
    let accuracy = ended["accuracy_ppm"].as_u64().context("no accuracy")? as f64 / 1e6;
    ensure!(accuracy >= ACCURACY_MIN, "accuracy {accuracy} is below {ACCURACY_MIN}");
    ensure!(after.suppliers[&victim] > before.suppliers[&victim], "the lost worker was not paid for what it served");
    let pods = ended["pods"].as_array().map(Vec::len).unwrap_or_default();
    let summary = json!({
        "job": job,
        "state": ended["state"],
        "accuracy": accuracy,
        "devices": ended["devices"],
        "workers": network.facts.workers.len(),
        "pods": pods,
        "lost_worker": victim,
        "replacement": replacement,
        "resumed_from_step": resumed_from,
        "recovery_s": seconds(recovery),
        "submit_to_first_step_s": seconds(submit_to_first_step),
        "paid": money.paid,
        "refunded": money.refunded,
        "fees": money.fees,
        "burned": money.burned,
        "conserved": money.conserved,
        "receipt": receipt,
        "network_root": network.facts.network_root,
    });
    Ok((summary, split(&watched.events, ended["created"].as_u64().context("no time of acceptance")?)))
}

/// How long each part of the start took, from the times at which the operator saw things happen.
fn split(events: &[Value], created: u64) -> Split {
    let first = |kind: &str, field: &str, value: &str| {
        let hit = |event: &&Value| event["kind"] == kind && (value.is_empty() || event["fields"][field] == value);
        events.iter().find(hit).and_then(|event| event["at"].as_u64())
    };
    let pods = |state: &str| {
        let of_start = |event: &&Value| event["kind"] == "pod" && event["fields"]["state"] == state;
        events.iter().filter(of_start).take(3).filter_map(|event| event["at"].as_u64()).last()
    };
    let marks = [
        ("chain", first("state", "state", "placing")),
        ("placement", first("state", "state", "starting")),
        ("pod", pods("prepared")),
        ("overlay", pods("running")),
        ("ray", first("attempt", "attempt", "1")),
        ("job", first("step", "", "")),
    ];
    let mut since = created;
    let mut split = Vec::new();
    for (part, at) in marks {
        let Some(at) = at else { continue };
        split.push((part, Duration::from_millis(at.saturating_sub(since))));
        since = since.max(at);
    }
    split
}

fn seconds(length: Duration) -> f64 {
    (length.as_secs_f64() * 10.0).round() / 10.0
}

/// The worker of a pod that runs and is not the head.
fn node_worker(job: &Value) -> Option<String> {
    let pods = job["pods"].as_array()?;
    let node = pods.iter().find(|pod| pod["role"] == "node" && pod["state"] == "running")?;
    node["worker"].as_str().map(str::to_owned)
}

/// The worker that serves since the loss and did not before: its pod is the newest.
fn replacement(job: &Value, victim: &str) -> Option<String> {
    let newest = job["pods"].as_array()?.last()?["worker"].as_str()?;
    (newest != victim).then(|| newest.to_owned())
}

/// The step that the resumed process says it went on from; refused unless the weights it then held are those of the
/// checkpoint's manifest, as it lies in the object store.
fn weights_match(network: &Network, job: &str, resumed: &Value) -> Result<u64> {
    let step: u64 = Watched::field(resumed, "resumed_from_step").context("no step in the resume report")?.parse()?;
    let held = Watched::field(resumed, "weights_sha256").context("no weights in the resume report")?;
    let manifest = manifest(&network.folder.join("server/objects/jobs").join(job).join("checkpoints"), step)?;
    let written = manifest["weights_sha256"].as_str().context("no weights in the manifest")?;
    check_weights(step, &held, written)?;
    Ok(step)
}

/// Whether a process resumed from what the manifest says.
fn check_weights(step: u64, held: &str, written: &str) -> Result<()> {
    ensure!(step > 0, "the job did not resume, it started anew");
    ensure!(held == written, "the resumed process held weights {held}, the checkpoint of step {step} has {written}");
    Ok(())
}

/// The manifest of a step, whichever attempt wrote it.
fn manifest(folder: &Path, step: u64) -> Result<Value> {
    let suffix = format!("-{step}.json");
    for entry in std::fs::read_dir(folder).with_context(|| format!("no checkpoints in {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let step_of = name.rsplit('-').next().and_then(|end| end.strip_suffix(".json")?.parse::<u64>().ok());
        if name.ends_with(&suffix) || step_of == Some(step) {
            return Ok(serde_json::from_slice(&std::fs::read(entry.path())?)?);
        }
    }
    bail!("the object store has no checkpoint of step {step}")
}

/// Fetches the receipt, checks it with no network, starting from the network root that `atoll dev` printed.
fn keep_receipt(repository: &Path, network: &Network, job: &str) -> Result<PathBuf> {
    let path = repository.join("target/demo-receipt.json");
    let file = path.to_str().context("the repository's path is not UTF-8")?;
    network.json(&["receipt", "show", job, "--output", file])?;
    let root = &network.facts.network_root;
    let shown = network.atoll(&["receipt", "verify", file, "--network-root", root]).output()?;
    eprint!("{}{}", String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    ensure!(shown.status.success(), "the receipt is not valid");
    Ok(path)
}

/// What moved between two looks at the balances, base units.
#[derive(Debug, PartialEq, Eq)]
struct Money {
    paid: u64,
    refunded: u64,
    fees: u64,
    burned: u64,
    conserved: bool,
}

impl Money {
    fn of(before: &Balances, after: &Balances, escrow: u64) -> Result<Self> {
        let grown = |what: &str, now: u64, then: u64| {
            now.checked_sub(then).with_context(|| format!("{what} shrank from {then} to {now}"))
        };
        let paid_by = |(worker, now): (&String, &u64)| grown("a supplier's balance", *now, before.suppliers[worker]);
        let paid: u64 = after.suppliers.iter().map(paid_by).sum::<Result<u64>>()?;
        let treasury = grown("the treasury", after.treasury, before.treasury)?;
        let burned = grown("what is burned", before.supply, after.supply)?;
        let spent = grown("what the renter spent", before.renter, after.renter)?;
        let refunded = grown("the refund", escrow, spent)?;
        Ok(Self { paid, refunded, fees: treasury + burned, burned, conserved: spent == paid + treasury + burned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_than_the_checkpoints_are_noticed() {
        assert!(check_weights(3, "aa", "aa").is_ok());
        assert!(check_weights(3, "bb", "aa").is_err());
        assert!(check_weights(0, "aa", "aa").is_err());
    }

    #[test]
    fn money_that_vanishes_is_noticed() {
        let before = Balances { renter: 1000, suppliers: [("a".into(), 5)].into(), treasury: 0, supply: 5000 };
        let after = Balances { renter: 900, suppliers: [("a".into(), 103)].into(), treasury: 1, supply: 4999 };
        let money = Money::of(&before, &after, 400).unwrap();
        assert_eq!(money, Money { paid: 98, refunded: 300, fees: 2, burned: 1, conserved: true });
        let less = Balances { treasury: 0, ..after };
        assert!(!Money::of(&before, &less, 400).unwrap().conserved);
    }
}

//! `atoll-sim`: runs worlds, prints what happened and what was broken.
//!
//! Many seeds run in as many processes at a time as there are cores: a world is one thread, and one that breaks the
//! process must not take the others along.

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use atoll_sim::planted::{BUGS, Bug};
use atoll_sim::seed::Options;
use atoll_sim::trace::Telling;
use atoll_sim::world::{self, Planted, Verdict};

const USAGE: &str = "\
atoll-sim --seed N [--minutes 5] [--quiet] [--events FILE] [--calm]   one world, told as it goes
atoll-sim --seeds A..B [--minutes 5]                                  many; prints those that break, with the command
atoll-sim planted [BUG] [--seeds 0..200]                              how many seeds each planted bug takes
atoll-sim bench [--json]                                              virtual seconds per CPU second, 20 workers
RUST_LOG=info prints what the real code logs";

/// What was typed.
struct Arguments(Vec<String>);

impl Arguments {
    fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|it| it == flag)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|it| it == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> anyhow::Result<u64> {
        self.value(name).map_or(Ok(otherwise), |text| text.parse().with_context(|| format!("{name} {text}")))
    }

    fn range(&self, name: &str) -> anyhow::Result<Option<std::ops::Range<u64>>> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let parts = text.split_once("..").context("a range is written like 0..200")?;
        Ok(Some(parts.0.parse()?..parts.1.parse()?))
    }

    fn length(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_secs(60 * self.number("--minutes", 5)?))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().skip(1).collect());
    if let Ok(filter) = std::env::var("RUST_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    match arguments.0.first().map(String::as_str) {
        Some("planted") => planted(arguments),
        Some("bench") => Ok(bench(arguments.has("--json"))),
        _ => match arguments.range("--seeds")? {
            Some(seeds) => many(seeds, arguments.number("--minutes", 5)?),
            None if arguments.has("--seed") => one(arguments),
            None => bail!("nothing to run"),
        },
    }
}

fn one(arguments: &Arguments) -> anyhow::Result<bool> {
    let (seed, length) = (arguments.number("--seed", 0)?, arguments.length()?);
    let options = if arguments.has("--calm") { Options::calm(seed, length) } else { Options::draw(seed, length) };
    let quiet = arguments.has("--quiet");
    println!("{options}");
    let telling = Telling { aloud: !quiet, events: arguments.value("--events").map(Into::into) };
    let began = Instant::now();
    let verdict = world::run(&options, Planted::default(), telling);
    let Verdict { hash, events, transactions, lasted, .. } = &verdict;
    verdict.jobs.iter().for_each(|job| println!("  {job}"));
    let took = began.elapsed();
    println!("seed {seed}: {lasted:?} in {took:.1?}, {events} events, {transactions} transactions, hash {hash:016x}");
    verdict.broken.iter().for_each(|broken| println!("BROKEN {broken}"));
    Ok(verdict.broken.is_empty())
}

/// Runs seeds side by side; prints those that break.
fn many(seeds: std::ops::Range<u64>, minutes: u64) -> anyhow::Result<bool> {
    let cores = std::thread::available_parallelism()?.get();
    let (total, began) = (seeds.end - seeds.start, Instant::now());
    let mut failed = Vec::new();
    let mut running: Vec<(u64, Child)> = Vec::new();
    for seed in seeds {
        if running.len() >= cores {
            let (seed, child) = running.remove(0);
            failed.extend(judged(seed, child, minutes)?);
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--quiet", "--seed", &seed.to_string(), "--minutes", &minutes.to_string()]);
        running.push((seed, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?));
    }
    for (seed, child) in running {
        failed.extend(judged(seed, child, minutes)?);
    }
    println!("{total} seeds of {minutes} minutes in {:.0?}, {} broken: {failed:?}", began.elapsed(), failed.len());
    Ok(failed.is_empty())
}

/// The seed, when its world broke.
fn judged(seed: u64, child: Child, minutes: u64) -> anyhow::Result<Option<u64>> {
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(None);
    }
    println!("seed {seed} breaks; again: cargo run -p atoll-sim -- --seed {seed} --minutes {minutes}");
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().filter(|line| line.starts_with("BROKEN")).take(5).for_each(|line| println!("  {line}"));
    if !said.contains("BROKEN") {
        let complaint = String::from_utf8_lossy(&output.stderr);
        println!("  it died: {}", complaint.lines().take(5).collect::<Vec<_>>().join(" | "));
    }
    Ok(Some(seed))
}

fn planted(arguments: &Arguments) -> anyhow::Result<bool> {
    let seeds = arguments.range("--seeds")?.unwrap_or(0..200);
    let wanted = |bug: &&Bug| arguments.0.get(1).is_none_or(|name| name.starts_with("--") || bug.name() == *name);
    let mut all = true;
    for bug in BUGS.iter().filter(wanted) {
        let found = bug.hunt(seeds.clone());
        all &= found.is_some();
        match found {
            Some((seed, broken)) => println!("{}: {} seeds ({broken})", bug.name(), seed - seeds.start + 1),
            None => println!("{}: NOT FOUND in {seeds:?}", bug.name()),
        }
    }
    Ok(all)
}

/// Twenty workers for five minutes with faults, after one short world that prepares the chain; then the planted bugs.
fn bench(json: bool) -> bool {
    let mut options = Options::draw(7, Duration::from_secs(300));
    (options.workers, options.jobs, options.nodes, options.faults) = (20, 4, 1, 8);
    let moment = Duration::from_millis(500);
    let warm = Options { length: 2 * moment, quiet_at: moment, jobs: 0, faults: 0, ..options.clone() };
    drop(world::run(&warm, Planted::default(), Telling::default()));
    let before = cpu_seconds();
    let verdict = world::run(&options, Planted::default(), Telling::default());
    let (virtual_s, cpu_s) = (verdict.lasted.as_secs_f64(), cpu_seconds() - before);
    let per_cpu = virtual_s / cpu_s;
    let how =
        format!("{virtual_s:.0} virtual seconds in {cpu_s:.2} CPU seconds, {} transactions", verdict.transactions);
    let hunts: Vec<(Bug, Option<u64>)> =
        BUGS.into_iter().map(|bug| (bug, bug.hunt(0..200).map(|(seed, _)| seed + 1))).collect();
    let found = hunts.iter().filter(|(_, seeds)| seeds.is_some()).count();
    let seeds: Vec<String> = hunts
        .iter()
        .map(|(bug, seeds)| format!("{} {}", bug.name(), seeds.map_or("not found".to_owned(), |n| n.to_string())))
        .collect();
    let seeds = format!("of {}; seeds needed: {}", BUGS.len(), seeds.join(", "));
    let broken = verdict.broken.len();
    if json {
        let figures = serde_json::json!({
            "sim_virtual_per_cpu": { "value": (per_cpu * 10.0).round() / 10.0, "how": how },
            "planted_bugs_found": { "value": found, "how": seeds },
            "lost_or_doubled": { "value": broken, "how": format!("laws broken in this world: {:?}", verdict.broken) },
        });
        println!("{figures}");
        return true;
    }
    println!("{how}: {per_cpu:.0} x\nplanted bugs: {found} {seeds}");
    verdict.broken.iter().for_each(|broken| println!("BROKEN {broken}"));
    broken == 0 && found == BUGS.len()
}

/// CPU seconds that this process has used.
fn cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let usage = usage.expect("the kernel counts what a process uses");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

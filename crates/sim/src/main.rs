//! `atoll-sim`: runs worlds, prints what happened and what was broken.
//!
//! A world is one thread; many run on as many threads as there are cores.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
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

/// What this was built with, as Cargo is told.
const PROFILE: &str = if cfg!(debug_assertions) { "" } else { " --release" };

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

    fn range(&self, name: &str) -> anyhow::Result<Option<Range<u64>>> {
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

/// Runs seeds side by side, a thread for each core; says of those that break what broke, and how to see it again.
fn many(seeds: Range<u64>, minutes: u64) -> anyhow::Result<bool> {
    let cores = std::thread::available_parallelism()?.get();
    let total = seeds.end.saturating_sub(seeds.start);
    println!("seeds {seeds:?}, {minutes} minutes each, {cores} at a time");
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let tally = Mutex::new(Tally { next: seeds.start, ..Tally::default() });
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    let take = || {
        let mut tally = lock();
        tally.next += 1;
        tally.next - 1
    };
    let worlds = || {
        for seed in std::iter::repeat_with(take).take_while(|seed| *seed < seeds.end) {
            let verdict = world::run(
                &Options::draw(seed, Duration::from_secs(60 * minutes)),
                Planted::default(),
                Telling::default(),
            );
            lock().add(seed, &verdict, minutes);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(worlds);
        }
    });
    let Tally { worlds, virtual_s, transactions, jobs, broken, .. } = &*lock();
    println!(
        "{worlds} of {total} worlds, {virtual_s:.0} virtual seconds, {transactions} transactions, {jobs} jobs in {:.0} s, {:.0} CPU s",
        began.elapsed().as_secs_f64(),
        cpu_seconds() - cpu
    );
    println!("{} broken: {broken:?}", broken.len());
    Ok(broken.is_empty() && *worlds == total)
}

/// What came of many worlds so far.
#[derive(Default)]
struct Tally {
    next: u64,
    worlds: u64,
    virtual_s: f64,
    transactions: u64,
    jobs: usize,
    broken: Vec<u64>,
}

impl Tally {
    fn add(&mut self, seed: u64, verdict: &Verdict, minutes: u64) {
        self.worlds += 1;
        self.virtual_s += verdict.lasted.as_secs_f64();
        self.transactions += verdict.transactions;
        self.jobs += verdict.jobs.len();
        if verdict.broken.is_empty() {
            return;
        }
        self.broken.push(seed);
        println!(
            "seed {seed} breaks; again: cargo run --locked{PROFILE} -p atoll-sim -- --seed {seed} --minutes {minutes}"
        );
        verdict.broken.iter().take(5).for_each(|broken| println!("  {broken}"));
    }
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

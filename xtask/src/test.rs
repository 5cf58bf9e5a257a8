//! `cargo xtask test`: every suite in turn, each with its time, all of them even when one fails.
//!
//! A suite is a command; it fails by its exit status. Nothing here decides what is tested: that is Cargo's, unittest's
//! and the demo's own affair.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::program::Fetch;
use crate::setup::{self, Consent, Purpose};
use crate::{demo, usage};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Install what is missing without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Leave out what needs namespaces, Ray or PostgreSQL
    #[arg(long, conflicts_with = "long")]
    fast: bool,
    /// Add what takes long: the program is built again, with its whole toolchain, and compared byte for byte; Solana's
    /// client in Rust is built
    #[arg(long)]
    long: bool,
    /// Of what takes long only this: program, sim, chaos, fuzz, older, rebuild or rust-client
    #[arg(long, requires = "long", value_parser = parts())]
    part: Option<String>,
    /// Seeds of the simulation, from 0; without it 200, with --long 2000
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
}

/// What `--part` takes.
fn parts() -> clap::builder::PossibleValuesParser {
    SUITES.iter().filter(|suite| suite.has_part()).map(|suite| suite.name).collect::<Vec<_>>().into()
}

/// Milliseconds for each target of the long fuzzing.
const FUZZ_MS: &str = "30000";

/// Instructions that the long run sends to the program and to its reference.
const MODEL_STEPS: &str = "1000000";

/// Which runs a suite belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Every run: it needs nothing but Cargo and Python.
    Always,
    /// Every run, and longer with `--long`.
    Grows,
    /// Left out by `--fast`, and longer with `--long`: it takes minutes.
    Longer,
    /// Left out by `--fast`: it needs namespaces, Ray or PostgreSQL.
    Usually,
    /// Added by `--long`.
    Long,
}

impl Arguments {
    fn wants(&self, suite: &Suite) -> bool {
        if let Some(part) = &self.part {
            return suite.name == part;
        }
        match suite.when {
            When::Always | When::Grows => true,
            When::Longer | When::Usually => !self.fast,
            When::Long => self.long,
        }
    }

    fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(if self.long { 2000 } else { 200 })
    }
}

/// A command that passes or fails.
struct Suite {
    name: &'static str,
    when: When,
    run: fn(&Path, &Arguments) -> Result<()>,
}

impl Suite {
    fn has_part(&self) -> bool {
        matches!(self.when, When::Grows | When::Long | When::Longer)
    }
}

const SUITES: &[Suite] = &[
    Suite { name: "rust", when: When::Always, run: |it, _| rust(it) },
    Suite { name: "python", when: When::Always, run: |it, _| python(it) },
    Suite { name: "program", when: When::Grows, run: program },
    Suite { name: "store", when: When::Usually, run: |it, _| store(it) },
    Suite { name: "clients", when: When::Usually, run: |it, _| clients(it) },
    Suite { name: "pods", when: When::Usually, run: |it, _| pods(it) },
    Suite { name: "walk", when: When::Usually, run: |it, _| walk(it) },
    Suite { name: "training", when: When::Usually, run: |it, _| training(it) },
    Suite { name: "demo", when: When::Usually, run: |it, _| demo_suite(it) },
    Suite { name: "sim", when: When::Longer, run: |it, arguments| simulation(it, arguments.seeds()) },
    Suite { name: "chaos", when: When::Long, run: |it, _| chaos(it) },
    Suite { name: "fuzz", when: When::Long, run: |it, _| fuzz(it) },
    Suite { name: "older", when: When::Long, run: |it, _| older(it) },
    Suite { name: "rebuild", when: When::Long, run: |it, _| rebuild(it) },
    Suite { name: "rust-client", when: When::Long, run: |it, _| rust_client(it) },
];

/// A suite's name, whether it passed, wall and processor time.
type Outcome = (&'static str, bool, Duration, Duration);

pub(crate) fn run(arguments: &Arguments, repository: &Path) -> Result<()> {
    let purpose = if arguments.fast { Purpose::Build } else { Purpose::Test };
    setup::ensure(purpose, Consent::new(arguments.yes), repository)?;
    let mut results = Vec::new();
    for suite in SUITES.iter().filter(|suite| arguments.wants(suite)) {
        eprintln!("\n== {} ==", suite.name);
        let (started, cpu) = (Instant::now(), usage::children_cpu());
        let result = (suite.run)(repository, arguments);
        if let Err(error) = &result {
            eprintln!("{}: {error:#}", suite.name);
        }
        let result = (suite.name, result.is_ok(), started.elapsed(), usage::children_cpu().saturating_sub(cpu));
        if arguments.long && suite.has_part() {
            keep(repository, arguments, result)?;
        }
        results.push(result);
    }
    let left_out: Vec<&str> = SUITES.iter().filter(|suite| !arguments.wants(suite)).map(|suite| suite.name).collect();
    report(&results, &left_out)
}

/// Keeps what came of a long part under the commit that it was of.
fn keep(repository: &Path, arguments: &Arguments, (name, passed, wall, cpu): Outcome) -> Result<()> {
    let commit = crate::bench::commit(repository);
    let seeds = (name == "sim").then(|| arguments.seeds());
    let kept = serde_json::json!({
        "part": name, "commit": commit, "passed": passed, "seeds": seeds,
        "wall_s": wall.as_secs(), "cpu_s": cpu.as_secs(), "machine": crate::bench::machine(),
    });
    let folder = repository.join("target/long").join(commit);
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(name).with_extension("json");
    std::fs::write(&file, format!("{kept}\n")).with_context(|| format!("{} cannot be written", file.display()))
}

fn report(results: &[Outcome], left_out: &[&str]) -> Result<()> {
    println!("\nsuite       wall s   cpu s  result");
    for (name, passed, wall, cpu) in results {
        let word = if *passed { "passed" } else { "FAILED" };
        println!("{name:<10} {:>7.1} {:>7.1}  {word}", wall.as_secs_f64(), cpu.as_secs_f64());
    }
    if !left_out.is_empty() {
        println!("not in this run: {}", left_out.join(", "));
    }
    let failed = results.iter().filter(|result| !result.1).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} suites failed", results.len());
    }
    Ok(())
}

/// Runs a command in the repository; its output goes through.
pub(crate) fn command(repository: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let shown = format!("{program} {}", arguments.join(" "));
    eprintln!("$ {shown}");
    let status = Command::new(program).args(arguments).current_dir(repository).status();
    let status = status.with_context(|| format!("`{shown}` cannot be started"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Unit and property tests, the rules of the repository, the chain, and everything else that needs only Cargo.
fn rust(repository: &Path) -> Result<()> {
    let elsewhere = ["--exclude", "atoll-control", "--exclude", "atoll-market-tests"];
    command(repository, "cargo", &[&["test", "--locked", "--workspace"], &elsewhere[..]].concat())?;
    command(repository, "cargo", &["test", "--locked", "-p", "atoll-control", "--lib", "--test", "it"])
}

/// The SDK and the pod's bootstrap, by the standard library's unittest.
fn python(repository: &Path) -> Result<()> {
    command(
        repository,
        "/usr/bin/python3",
        &["-m", "unittest", "discover", "-s", "sdk/python/tests", "-t", "sdk/python"],
    )
}

/// The market program's bytes: their stamp and guard, and their behaviour in litesvm; with `--long` a million instructions
/// beside the reference.
fn program(repository: &Path, arguments: &Arguments) -> Result<()> {
    crate::program::check(repository, Fetch::No)?;
    command(repository, "cargo", &["test", "--locked", "-p", "atoll-market-tests"])?;
    if !arguments.long {
        return Ok(());
    }
    let long = ["test", "--locked", "-p", "atoll-market-tests", "--test", "reference", "--", "--nocapture"];
    eprintln!("$ ATOLL_MODEL_STEPS={MODEL_STEPS} cargo {}", long.join(" "));
    let mut command = Command::new("cargo");
    let status = command.args(long).env("ATOLL_MODEL_STEPS", MODEL_STEPS).current_dir(repository).status()?;
    if !status.success() {
        bail!("the program and its reference differ, or could not be run: {status}");
    }
    Ok(())
}

/// Whole worlds on seeds with everything that can go wrong, five minutes of their time each.
fn simulation(repository: &Path, seeds: u64) -> Result<()> {
    let seeds = format!("0..{seeds}");
    command(repository, "cargo", &["run", "--locked", "-p", "atoll-sim", "--", "--seeds", &seeds, "--minutes", "5"])
}

/// Every parser that faces outside, half a minute each, with other mutations at every run (`rust` has a second each, always
/// the same). What fails prints its seed and its input.
fn fuzz(repository: &Path) -> Result<()> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = since.as_secs().to_string();
    eprintln!("ATOLL_FUZZ_SEED={seed} ATOLL_FUZZ_MS={FUZZ_MS}");
    let runs: [&[&str]; 4] = [
        &["-p", "atoll-domain", "-p", "atoll-api", "-p", "atoll-overlay", "-p", "atoll-chain", "--test", "fuzz"],
        &["-p", "atoll-worker", "-p", "atoll-market-tests", "--test", "fuzz"],
        &["-p", "atoll-chain", "--features", "local", "--test", "local_fuzz"],
        &["-p", "atoll-cli", "-p", "atoll-control", "--lib", "--test", "it", "fuzz"],
    ];
    for arguments in runs {
        let shown = format!("cargo test --locked {}", arguments.join(" "));
        eprintln!("$ {shown}");
        let mut command = Command::new("cargo");
        command.args(["test", "--locked"]).args(arguments).current_dir(repository);
        let status = command.env("ATOLL_FUZZ_SEED", &seed).env("ATOLL_FUZZ_MS", FUZZ_MS).status()?;
        if !status.success() {
            bail!("`{shown}` ended with {status}");
        }
    }
    Ok(())
}

/// The market program built again from its sources, with a toolchain that is fetched where it is missing.
fn rebuild(repository: &Path) -> Result<()> {
    crate::program::check(repository, Fetch::Yes)
}

/// Both store engines, against a private PostgreSQL.
fn store(repository: &Path) -> Result<()> {
    command(
        repository,
        "cargo",
        &["test", "--locked", "-p", "atoll-control", "--features", "postgres-tests", "--lib", "store::"],
    )
}

/// Three nodes over one PostgreSQL, of which one is of an earlier commit.
fn older(repository: &Path) -> Result<()> {
    let binary = crate::older::build(repository)?;
    let arguments = ["test", "--locked", "-p", "atoll", "--features", "walk", "--test", "walk", "nodes"];
    let shown = format!("cargo {}", arguments.join(" "));
    eprintln!("$ ATOLL_OLDER={} {shown}", binary.display());
    let mut command = Command::new("cargo");
    command.args(arguments).args(["--", "--nocapture"]).env("ATOLL_OLDER", &binary);
    let status = command.current_dir(repository).status();
    let status = status.with_context(|| format!("`{shown}` cannot be started"))?;
    if !status.success() {
        bail!("a node of {} and one of this commit do not work beside each other: {status}", crate::older::COMMIT);
    }
    Ok(())
}

/// Other people's clients of Solana in JavaScript and Python, against `atoll local-chain`, killed on the way.
fn clients(repository: &Path) -> Result<()> {
    let folder = crate::clients::ensure(repository)?;
    client_tests(repository, &folder, "clients", "")
}

/// Solana's own client in Rust against the local chain. Its 391 crates have a lock of their own and take five minutes
/// of processor time to build.
fn rust_client(repository: &Path) -> Result<()> {
    let target = repository.join("target/clients/rust");
    let manifest = repository.join("crates/chain/tests/clients/rust/Cargo.toml");
    let words = [&target, &manifest].map(|path| path.to_str().context("the repository's path is not UTF-8"));
    let [target, manifest] = words;
    let build = ["build", "--locked", "--target-dir", target?, "--manifest-path", manifest?];
    command(repository, "cargo", &build)?;
    client_tests(repository, &repository.join("target/clients"), "rust-client", "rust_client")
}

/// Runs tests of the binary with the folder of the clients; `name` is a part of their names.
fn client_tests(repository: &Path, folder: &Path, feature: &str, name: &str) -> Result<()> {
    let arguments = ["test", "--locked", "-p", "atoll", "--features", feature, "--test", "clients", "--", name];
    let shown = format!("cargo {}", arguments.join(" "));
    eprintln!("$ ATOLL_CLIENTS={} {shown}", folder.display());
    let status = Command::new("cargo").args(arguments).env("ATOLL_CLIENTS", folder).current_dir(repository).status();
    let status = status.with_context(|| format!("`{shown}` cannot be started"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Real pods: namespaces, overlay, supervisor.
fn pods(repository: &Path) -> Result<()> {
    command(repository, "cargo", &["test", "--locked", "-p", "atoll-worker", "--features", "pods", "--test", "pods"])
}

/// A whole network from outside: losses, re-attaching, isolation, bad input, both stores.
fn walk(repository: &Path) -> Result<()> {
    let cargo = ["test", "--locked", "-p", "atoll", "--features", "walk", "--test", "walk"];
    command(repository, "cargo", &[&cargo[..], &["--", "--nocapture", "--test-threads=1"]].concat())
}

/// Real Ray and PyTorch on this host, killed and resumed.
fn training(repository: &Path) -> Result<()> {
    let python = crate::pack::folder(repository, "ray-torch").join("bin/python");
    let python = python.to_str().context("the pack's path is not UTF-8")?;
    command(repository, python, &["-m", "unittest", "discover", "-s", "sdk/python/slow", "-t", "sdk/python"])
}

/// The main job on a local network, with the binaries that the tests built.
fn demo_suite(repository: &Path) -> Result<()> {
    command(repository, "cargo", &["build", "--locked", "-p", "atoll"])?;
    demo::play(repository, &repository.join("target/debug/atoll"), false, demo::Luck::Usual).map(drop)
}

/// The same job with bad luck on top, at other moments each time; the seed is printed.
fn chaos(repository: &Path) -> Result<()> {
    let luck = demo::Luck::Chaos(crate::chaos::seed()?);
    demo::play(repository, &repository.join("target/debug/atoll"), false, luck).map(drop)
}

//! The misfortunes of `cargo xtask demo --chaos`: what befalls the operator and the chain while a job runs.
//!
//! Each strikes once, at a moment drawn from a seed, from outside as bad luck would: SIGKILL for the control node, an
//! immediate shutdown for its PostgreSQL, a minute without blocks for the chain. Whoever runs the network (`atoll dev`)
//! starts the control node again, as an operator's init system does.

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::network::{Network, rpc, signal};
use crate::postgres::Postgres;

/// For how long a client repeats what failed: the halt and a restart after it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The time in which everything strikes. The job takes about 40 s without any of it.
const WITHIN: Duration = Duration::from_secs(40);
/// How long the chain makes no blocks.
const HALT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfortune {
    KillControl,
    RestartPostgres,
    HaltChain,
}

impl Misfortune {
    const ALL: [Self; 3] = [Self::KillControl, Self::RestartPostgres, Self::HaltChain];

    const fn name(self) -> &'static str {
        match self {
            Self::KillControl => "control node killed",
            Self::RestartPostgres => "PostgreSQL restarted",
            Self::HaltChain => "chain halted for a minute",
        }
    }
}

/// A seed that nobody chose.
pub(crate) fn seed() -> Result<u64> {
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// When what strikes, soonest first.
fn plan(seed: u64) -> Vec<(Duration, Misfortune)> {
    let within_ms = u64::try_from(WITHIN.as_millis()).unwrap_or(u64::MAX);
    let drawn = |(n, what): (u64, Misfortune)| {
        // The finaliser of splitmix64 over seed and number.
        let mut state = seed.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (Duration::from_millis((state ^ (state >> 31)) % within_ms), what)
    };
    let mut plan: Vec<(Duration, Misfortune)> = (0..).zip(Misfortune::ALL).map(drawn).collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// Strikes as planned, and tells what struck when, in seconds since the start.
pub(crate) fn strike(network: &Network, postgres: &Postgres, seed: u64) -> Result<Value> {
    let started = Instant::now();
    let mut struck = serde_json::Map::new();
    for (at, what) in plan(seed) {
        std::thread::sleep(at.saturating_sub(started.elapsed()));
        let now = started.elapsed().as_secs_f64();
        eprintln!("{now:>6.1} s  CHAOS       {}", what.name());
        match what {
            Misfortune::KillControl => signal(network.server_pid()?, libc::SIGKILL),
            Misfortune::RestartPostgres => postgres.restart()?,
            Misfortune::HaltChain => {
                let halt = json!([{ "halt": { "ms": u64::try_from(HALT.as_millis())? } }]);
                rpc(&network.facts.chain, "atoll_faults", &halt).context("halting the chain")?;
            }
        }
        struck.insert(what.name().to_owned(), json!((now * 10.0).round() / 10.0));
    }
    Ok(struck.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_plans_every_misfortune_once_and_always_the_same() {
        for seed in 0..100 {
            let planned = plan(seed);
            assert_eq!(planned, plan(seed));
            assert!(planned.iter().all(|(at, _)| *at < WITHIN) && planned.is_sorted_by_key(|(at, _)| *at));
            assert!(Misfortune::ALL.iter().all(|what| planned.iter().any(|(_, it)| it == what)));
        }
        assert_ne!(plan(1), plan(2));
    }
}

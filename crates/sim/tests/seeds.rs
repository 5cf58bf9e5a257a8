//! Whole worlds, and seeds that once broke one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use atoll_sim::faults::Fault;
use atoll_sim::planted::{BUGS, LENGTH};
use atoll_sim::seed::Options;
use atoll_sim::trace::Telling;
use atoll_sim::world::{self, Planted, Verdict};

const MINUTE: Duration = Duration::from_secs(60);

fn live(options: &Options) -> Verdict {
    world::run(options, Planted::default(), Telling::default())
}

fn holds(options: &Options) {
    let verdict = live(options);
    assert!(verdict.broken.is_empty(), "{options}\n{:#?}\n{}", verdict.broken, verdict.timeline.join("\n"));
}

#[test]
fn in_a_calm_world_a_job_ends_and_is_settled() {
    let verdict = live(&Options::calm(1, MINUTE));
    assert_eq!(verdict.broken, Vec::<String>::new());
    assert!(verdict.jobs.len() == 1 && verdict.jobs[0].contains("Succeeded"), "{:?}", verdict.jobs);
}

#[test]
fn the_same_seed_twice_is_the_same_world_and_another_is_another() {
    let of = |seed| {
        let verdict = live(&Options::draw(seed, LENGTH));
        (verdict.hash, verdict.events)
    };
    assert_eq!(of(11), of(11));
    assert_ne!(of(11), of(12));
}

#[test]
fn the_only_machine_is_taken_again_when_it_comes_back() {
    let dark = Fault::MachineDark { worker: 0, away: Duration::from_secs(8) };
    let script = vec![(Duration::from_secs(20), dark)];
    let verdict = live(&Options { workers: 1, script, ..Options::calm(4, 3 * MINUTE) });
    assert_eq!(verdict.broken, Vec::<String>::new());
    let lost = verdict.timeline.iter().any(|line| line.contains("MachineDark"));
    let went_on = verdict.timeline.iter().any(|line| line.contains("-2 SUCCEEDED"));
    assert!(lost && went_on && verdict.jobs[0].contains("Succeeded"), "{:#?}", verdict.timeline);
}

/// Killed between any two polls, again and again, both sides.
#[test]
fn killed_while_they_work_nodes_and_workers_lose_nothing() {
    let away = Duration::from_millis(700);
    let kill = |n: u64| {
        let polls = 1 + 97 * n;
        let fault = match n % 2 {
            0 => Fault::NodeKilledAt { node: 0, polls, away },
            _ => Fault::WorkerKilledAt { worker: 0, polls: 1 + 11 * n, away },
        };
        (Duration::from_secs(9 + 3 * n), fault)
    };
    let verdict = live(&Options { script: (0..20).map(kill).collect(), ..Options::calm(4, 3 * MINUTE) });
    assert_eq!(verdict.broken, Vec::<String>::new());
    assert!(verdict.jobs[0].contains("Succeeded"), "{:#?}", verdict.timeline);
}

#[test]
fn every_planted_bug_is_found() {
    for bug in BUGS {
        let found = bug.hunt(0..200);
        let (seed, broken) = found.unwrap_or_else(|| panic!("{} is not found in 200 seeds", bug.name()));
        println!("{}: {} seeds ({broken})", bug.name(), seed + 1);
    }
}

#[test]
fn a_world_with_everything_that_can_go_wrong_holds() {
    holds(&Options::draw(1, 5 * MINUTE));
}

//! The walking network from end to end: real processes, a real chain, real pods, Ray and PyTorch.
//!
//! One network of four workers and two jobs serve one story, told in order, because starting Ray costs more than
//! everything that is looked at. Each step is one promise and says so when it breaks. Shorter stories run the same network
//! on PostgreSQL, and with its store or two of its nodes lost. They need what `cargo xtask test` sets up:
//! `cargo test -p atoll --features walk --test walk`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bad_input;
mod extend;
mod job;
mod keys;
mod loss;
mod market;
mod network;
mod nodes;
#[path = "../../../../xtask/src/postgres.rs"]
mod postgres;
mod processes;
mod ray;
mod reattach;
mod stop;
mod store;

use std::sync::Mutex;
use std::time::Instant;

use job::Job;
use network::Network;

/// Two networks at once are more than two cores train on.
static ALONE: Mutex<()> = Mutex::new(());

/// Tells a step and how long it took.
fn step<T>(name: &str, body: impl FnOnce() -> T) -> T {
    eprintln!("... {name}");
    let began = Instant::now();
    let done = body();
    eprintln!("    {:.1} s", began.elapsed().as_secs_f64());
    done
}

fn folder(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("atoll-walk-{}-{name}", std::process::id()))
}

#[test]
fn the_network_keeps_its_promises() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut network = step("a network of four workers starts", || Network::start(&folder("sqlite"), 4, None));
    step("bad input is refused in words and costs nothing", || {
        bad_input::bad_input_is_refused_in_words_and_costs_nothing(&network);
    });
    step("an order that nobody can fill says why for each worker", || {
        bad_input::an_order_that_nobody_can_fill_says_why_for_each_worker(&network);
    });
    step("wrong, expired and poor users are refused", || {
        bad_input::wrong_expired_and_poor_users_are_refused(&network);
    });
    let before = network.balances();
    let job = Job::submit(&network, &[]);
    step("an agent that was killed takes its pod up again", || {
        reattach::an_agent_that_was_killed_takes_its_pod_up_again(&mut network, &job);
    });
    step("without the owner's key Ray is refused", || {
        ray::without_the_owners_key_ray_is_refused(&network, &job);
    });
    step("`ray job submit` runs a command, and its pod reaches nothing of the host", || {
        ray::ray_submits_and_its_pod_reaches_nothing_of_the_host(&network, &job);
    });
    step("the host reaches no port of a pod", || ray::the_host_reaches_no_port_of_a_pod(&network, &job));
    step("a head lost with its disk is replaced and the job resumes", || {
        loss::a_head_lost_with_its_disk_is_replaced_and_the_job_resumes(&mut network, &job);
    });
    step("it succeeds and the books balance", || {
        loss::it_succeeds_and_the_books_balance(&network, &job, &before);
    });
    step("a stopped job is settled and refunded", || stop::a_stopped_job_is_settled_and_refunded(&network));
    step("a job whose programs end at once fails and says how", || {
        stop::a_job_whose_programs_end_at_once_fails_and_says_how(&network);
    });
    step("the server holds no foreign key", || keys::the_server_holds_no_foreign_key(&network));
    step("everything stops", || network.stop());
}

#[test]
fn a_job_outlives_its_agent_and_its_operator_s_store() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut network = step("a network of one worker starts", || Network::start(&folder("store"), 1, None));
    step("a job goes on over killed agents, an old store and none", || store::a_job_goes_on(&mut network));
    step("a budget ends and says so", || store::a_budget_ends_and_says_so(&network));
    step("everything stops", || network.stop());
}

#[test]
fn people_act_on_the_chain_without_an_operator() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let network = step("a network with the design's own waiting times starts", || {
        Network::start_with(&folder("market"), 1, None, &["--rules", "default"])
    });
    step("a session key orders without its wallet until it hits its limits", || {
        market::a_session_key_orders_without_its_wallet_until_it_hits_its_limits(&network);
    });
    step("stake goes in once, and out after fourteen days", || {
        market::stake_goes_in_once_and_out_after_its_time(&network);
    });
    step("everything stops", || network.stop());
}

#[test]
fn the_same_network_runs_on_postgresql() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let postgres = postgres::Postgres::start().unwrap();
    let url = postgres.url("postgres");
    let network = step("a network starts on PostgreSQL", || Network::start(&folder("postgres"), 1, Some(&url)));
    step("a job runs to its end", || {
        let before = network.balances();
        let entry = "python probe.py 127.0.0.1:7070";
        let job = Job::submit(&network, &["--entry", entry, "--devices", "1"]);
        job.until(&network, "its success", |now| (now["state"] == "succeeded").then_some(()));
        let output = network::text(&job.output(&network));
        assert!(output.contains(r#"PROBE {"127.0.0.1:7070": "connected"}"#), "{output}");
        assert!(network.balances().conserved_since(&before) > 0);
        assert!(!network.folder.join("server/control.db").exists(), "it kept its books in SQLite");
    });
    step("a job that was given more time outlives its old end", || {
        extend::a_job_that_was_given_more_time_outlives_its_old_end(&network);
    });
    step("everything stops", || network.stop());
}

#[test]
fn of_three_nodes_on_one_postgresql_two_die() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let postgres = postgres::Postgres::start().unwrap();
    let url = postgres.url("postgres");
    let mut network = step("a network starts on PostgreSQL", || Network::start(&folder("nodes"), 1, Some(&url)));
    step("two of three nodes die, PostgreSQL restarts, and a job notices nothing", || {
        nodes::two_of_three_nodes_die_and_nothing_is_lost(&mut network, &postgres);
    });
    step("everything stops", || network.stop());
}

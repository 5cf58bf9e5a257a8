//! Hours that pass at once for everybody: a chain that halts, an operator that is away, a lease that ends.

use std::time::Duration;

use atoll_api::client::Sealing;
use atoll_domain::job::{JobOutcome, JobState};
use serde_json::json;

use crate::whole::{Case, Net, until};

const OUTAGE: Duration = Duration::from_secs(300);
const HALT: Duration = Duration::from_secs(6 * 3600);

async fn running(hands: u8, seconds: u32) -> Case {
    let net = Net::start().await;
    let operator = net.operator(1, "0/1").await;
    let mut linked = Vec::new();
    for n in 1..=hands {
        linked.push(net.hand(n).await);
    }
    for hand in &linked {
        hand.link(&operator);
    }
    Case::linked(&operator, &linked).await;
    let draft = net.draft(&operator, u32::from(hands), seconds).await;
    let case = Case::submitted(net, operator, linked, draft).await;
    case.runs().await;
    case
}

/// Stake and flags of every supplier's page.
async fn standing(net: &Net) -> Vec<(u64, u64, Vec<u16>)> {
    let pages = net.market().pages().await.unwrap();
    let flags = |rows: &[atoll_interface::layout::Slot]| rows.iter().map(|row| u16::from(row.flags)).collect();
    pages.iter().map(|page| (page.value.header.own, page.value.header.required, flags(&page.value.rows))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_away_for_five_minutes_slashes_and_charges_nobody() {
    let mut case = running(2, 3600).await;
    case.settled_some().await;
    let before = standing(&case.net).await;
    case.operator.kill().await;
    let served = case.hands.iter().map(crate::whole::Hand::served_s).max().unwrap();
    case.net.clock.pass(OUTAGE);
    until("the machines served through it", || async { case.hands.iter().all(|hand| hand.served_s() >= served + 300) })
        .await;
    case.operator.start().await;
    let row = case.operator.wait("it runs on", case.job, |row| row.now.state == JobState::Running).await;
    assert_eq!((row.now.attempt, row.now.gone.len()), (1, 0), "the pods are still there");
    until("the workers are back", || async {
        case.hands.iter().all(|hand| case.operator.control().links.is_here(hand.id()))
    })
    .await;
    assert_eq!(standing(&case.net).await, before, "stakes and slots are as they were");
    let body = case.finish().await;
    assert_eq!((body.leases.len(), body.result.attempts), (2, 1));
    for lease in &body.leases {
        let seconds = lease.attested.as_ref().unwrap().device_seconds;
        assert!(seconds < 150, "{seconds} s are paid, of which nobody saw 300");
        assert!(seconds > 0);
    }
}

/// The operator is there and reads the chain, but no worker reaches it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relay_that_nobody_reaches_for_five_minutes_slashes_and_charges_nobody() {
    let case = running(2, 3600).await;
    case.settled_some().await;
    let stakes = |all: Vec<(u64, u64, Vec<u16>)>| -> Vec<(u64, u64)> { all.iter().map(|it| (it.0, it.1)).collect() };
    let before = stakes(standing(&case.net).await);
    let served = case.hands.iter().map(crate::whole::Hand::served_s).max().unwrap();
    case.hands.iter().for_each(|hand| hand.cut(true));
    case.net.clock.pass(OUTAGE);
    until("the machines served through it", || async { case.hands.iter().all(|hand| hand.served_s() >= served + 300) })
        .await;
    let row = case.operator.wait("its pods are given up", case.job, |row| row.now.gone.len() == 2).await;
    assert_eq!((row.now.state, row.now.attempt), (JobState::Recovering, 1));
    // What ran on unseen comes back and says how long it was.
    case.hands.iter().for_each(|hand| hand.cut(false));
    until("the workers are back", || async {
        case.hands.iter().all(|hand| case.operator.control().links.is_here(hand.id()))
    })
    .await;
    assert_eq!(stakes(standing(&case.net).await), before, "stakes are as they were");
    let wallet = &case.net.renter;
    let seal = Sealing { wallet, now: case.net.clock.time(), nonce: [9; 16], idempotency_key: "stop" };
    case.operator.client(&case.net).await.stop(case.job, &seal).await.unwrap();
    let body = case.over(JobState::Stopped).await;
    assert_eq!(stakes(standing(&case.net).await), before, "stakes are as they were");
    for lease in &body.leases {
        let seconds = lease.attested.as_ref().unwrap().device_seconds;
        assert!(seconds < 150, "{seconds} s are paid, of which nobody saw 300");
        assert!(seconds > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_chain_that_halts_for_six_hours_leaves_pods_running_and_pays_what_was_seen() {
    let case = running(1, 24 * 3600).await;
    case.settled_some().await;
    case.net.misbehave(json!({ "halt": { "ms": HALT.as_millis() } })).await;
    let stood = case.net.rpc.slot().await.unwrap();
    // Work goes on while the chain stands: longer than an epoch and its hold.
    let served = case.hands[0].served_s();
    until("the pod serves on", || async { case.hands[0].served_s() >= served + 8 }).await;
    assert_eq!(case.net.rpc.slot().await.unwrap(), stood, "the chain stands");
    let row = case.operator.control().store.job(case.job).await.unwrap().unwrap();
    assert_eq!((row.now.state, row.now.attempt, row.now.gone.len()), (JobState::Running, 1, 0));
    case.net.clock.pass(HALT);
    until("the chain goes on", || async { case.net.rpc.slot().await.unwrap() > stood }).await;
    let row = case.operator.wait("it runs on", case.job, |row| row.now.state == JobState::Running).await;
    assert_eq!((row.now.attempt, row.now.gone.len()), (1, 0));
    let body = case.finish().await;
    assert_eq!((body.leases.len(), body.result.attempts), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_halt_that_outlasts_a_lease_ends_its_job_and_refunds_what_was_not_served() {
    let case = running(1, 3600).await;
    case.settled_some().await;
    case.net.misbehave(json!({ "halt": { "ms": HALT.as_millis() } })).await;
    let served = case.hands[0].served_s();
    until("the pod serves on", || async { case.hands[0].served_s() >= served + 3 }).await;
    case.net.clock.pass(HALT);
    let body = case.over(JobState::Failed).await;
    assert_eq!(body.result.reason, "its lease ended before its command did");
    assert!(body.money.refunded.0 > 0 && body.money.paid.0 > 0, "{:?}", body.money);
    assert!(case.net.machines.running().is_empty(), "the pod ended with its lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_budget_that_ends_while_the_job_runs_pays_what_was_served_and_says_so() {
    let case = running(2, 15).await;
    case.settled_some().await;
    let body = case.over(JobState::Failed).await;
    assert_eq!(body.result.outcome, Some(JobOutcome::Failed));
    assert_eq!(body.result.reason, "its lease ended before its command did");
    assert_eq!(body.leases.len(), 2);
    for lease in &body.leases {
        let seconds = lease.attested.as_ref().unwrap().device_seconds;
        assert!((1..=15).contains(&seconds), "{seconds} s of 15");
    }
    assert!(case.net.machines.running().is_empty(), "pods ended with their leases");
}

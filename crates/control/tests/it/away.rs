//! The way to the chain under a whole node: it is away, throttles, loses transactions until their blockhash is too old,
//! or leads to another cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use atoll_chain::local::{LocalChainConfig, serve};
use atoll_domain::job::JobState;
use serde_json::json;

use crate::whole::{Case, Gate, Net, Way, until};

/// An operator that reaches the chain through a gate, with workers of one device each.
pub(crate) async fn network(devices: u8) -> (Net, crate::whole::Operator, Vec<crate::whole::Hand>, Gate) {
    let net = Net::start().await;
    let gate = net.gate().await;
    let mut operator = net.operator(1, "0/1").await;
    operator.kill().await;
    operator.believe(gate.url());
    operator.start().await;
    let mut hands = Vec::new();
    for n in 1..=devices {
        hands.push(net.hand(n).await);
    }
    for hand in &hands {
        hand.link(&operator);
    }
    Case::linked(&operator, &hands).await;
    (net, operator, hands, gate)
}

/// Shuts the gate for longer than everything that a node waits for: five tries of one request, the 5 s after which a
/// worker is given up, an epoch with its hold.
async fn shut(gate: &Gate, way: Way) {
    gate.set(way);
    let began = tokio::time::Instant::now();
    until("the node has asked in vain for long", || async {
        began.elapsed() > Duration::from_secs(12) && gate.refused() >= 20
    })
    .await;
    gate.set(Way::Open);
}

async fn a_job_waits_out(way: Way) {
    let (net, operator, hands, gate) = network(1).await;
    let draft = net.draft(&operator, 1, 3600).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    case.runs().await;
    shut(&gate, way).await;
    let row = case.operator.control().store.job(case.job).await.unwrap().unwrap();
    assert_eq!((row.now.state, row.now.attempt, row.now.gone.len()), (JobState::Running, 1, 0), "nothing is assumed");
    case.settled_some().await;
    // And once more while it is to be settled.
    gate.set(way);
    case.net.machines.finish();
    case.operator.wait_state(case.job, JobState::Settling).await;
    shut(&gate, way).await;
    let body = case.over(JobState::Succeeded).await;
    assert_eq!((body.leases.len(), body.result.attempts), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_chain_s_node_is_away_while_a_job_runs_and_while_it_is_settled() {
    a_job_waits_out(Way::Away).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_chain_s_node_answers_429_while_a_job_runs_and_while_it_is_settled() {
    a_job_waits_out(Way::TooMany).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_throttling_node_of_the_chain_slows_a_job_and_does_nothing_twice() {
    let (net, operator, hands, _) = network(1).await;
    net.misbehave(json!({ "faults": { "seed": 5, "tooMany": 200, "unavailable": 100, "dropAnswer": 5 } })).await;
    let draft = net.draft(&operator, 1, 3600).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    case.runs().await;
    case.operator.wait("some is booked", case.job, |row| !row.now.leases.is_empty()).await;
    case.net.machines.finish();
    case.operator.wait_state(case.job, JobState::Succeeded).await;
    case.net.misbehave(json!({ "faults": {} })).await;
    let body = case.over(JobState::Succeeded).await;
    assert_eq!((body.leases.len(), body.result.attempts), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_chain_s_node_that_is_away_when_a_job_comes_leaves_it_waiting_and_the_order_is_posted_once() {
    let (net, operator, hands, gate) = network(1).await;
    let draft = net.draft(&operator, 1, 3600).await;
    let client = operator.client(&net).await;
    // Accepted with the chain there, and away before anything is sent.
    gate.set(Way::Swallows);
    let job = net.submit(&client, &draft, 1).await.job;
    shut(&gate, Way::Away).await;
    let case = Case { net, operator, hands, draft, job };
    case.runs().await;
    let body = case.finish().await;
    assert_eq!(body.leases.len(), 1);
    // Without a chain a new job is refused in words, and nothing is kept of it.
    let draft = case.net.draft(&case.operator, 1, 3600).await;
    gate.set(Way::Away);
    let refused = case.net.try_submit(&client, &draft, 1).await.unwrap_err().to_string();
    assert!(refused.contains("chain"), "{refused}");
    gate.set(Way::Open);
    assert_eq!(client.jobs().await.unwrap().len(), 1);
}

/// A node that lags by a slot or two, as one behind a balancer does, has not seen the blockhash of what was just signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_that_a_node_which_lags_does_not_take_is_sent_until_it_lands() {
    let (net, operator, hands, gate) = network(1).await;
    let draft = net.draft(&operator, 1, 3600).await;
    for way in [Way::Lags, Way::Denies] {
        gate.set(way);
        if way == Way::Lags {
            net.submit(&operator.client(&net).await, &draft, 1).await;
        }
        until("it was sent again and again", || async { gate.refused() >= 4 }).await;
    }
    let client = operator.client(&net).await;
    let job = client.jobs().await.unwrap().remove(0);
    assert_eq!(job.state, JobState::Ordering, "no node's word ends an accepted job: {}", job.reason);
    assert!(job.reason.contains("does not take its order now"), "{}", job.reason);
    gate.set(Way::Open);
    let case = Case { net, operator, hands, draft, job: job.job };
    case.runs().await;
    assert_eq!(case.finish().await.leases.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_that_its_renter_posted_and_closed_before_it_was_seen_is_over() {
    let (net, operator, _hands, gate) = network(1).await;
    let draft = net.draft(&operator, 1, 3600).await;
    gate.set(Way::Swallows);
    let job = net.submit(&operator.client(&net).await, &draft, 1).await.job;
    until("the node has it", || async { !gate.swallowed().is_empty() }).await;
    gate.set(Way::Away);
    let wallet = atoll_chain::Keypair::from_seed(&net.renter.seed());
    let renter = wallet.address();
    let posted = atoll_chain::SignedTransaction::from_bytes(draft.transaction.clone()).unwrap();
    let height = net.rpc.block_height().await.unwrap() + 100;
    net.rpc.send(&posted).await.unwrap();
    net.rpc.confirm(&posted, height, Duration::from_secs(20)).await.unwrap();
    let order = atoll_chain::Address(draft.order.0);
    let close = atoll_chain::market::instruction::close_order(renter, order, net.purse(renter), renter, None);
    net.rpc.execute(&[close], &wallet, &[], Duration::from_secs(20)).await.unwrap();
    gate.set(Way::Open);
    let row = operator.wait("it is over", job, |row| row.now.state.is_final()).await;
    assert_eq!(row.now.state, JobState::Failed);
    assert!(row.now.reason.contains("its order was closed"), "{}", row.now.reason);
    assert_eq!(net.balance(net.renters()).await, crate::whole::PURSE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blockhashes_expire_under_load_and_what_is_signed_anew_is_done_once() {
    const JOBS: u8 = 4;
    let (net, operator, hands, gate) = network(JOBS).await;
    let client = operator.client(&net).await;
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        let draft = net.draft_filled_within(600, &operator, 1, 3600).await;
        let job = net.submit(&client, &draft, 1).await.job;
        jobs.push((job, draft));
    }
    for (job, _) in &jobs {
        operator.wait_state(*job, JobState::Running).await;
    }
    // Everything that jobs and epochs ask from now on is lost until its blockhash is too old, twice.
    for round in 1..=2 {
        gate.set(Way::Swallows);
        if round == 1 {
            until("all heads know their command", || async { net.machines.submissions().len() == jobs.len() }).await;
            net.machines.finish();
        }
        let swallowed =
            || gate.swallowed().iter().map(atoll_chain::SignedTransaction::signature).collect::<BTreeSet<_>>();
        until("much is lost", || async { swallowed().len() >= round * 3 }).await;
        net.clock.pass(Duration::from_secs(70));
    }
    gate.set(Way::Open);
    for (job, _) in &jobs {
        operator.wait_state(*job, JobState::Succeeded).await;
    }
    let mut landed = 0;
    for transaction in gate.swallowed() {
        // What comes late after all is too old for the chain.
        landed += u32::from(net.rpc.send(&transaction).await.is_ok());
    }
    assert_eq!(landed, 0, "an expired transaction landed");
    for (_, draft) in &jobs {
        assert!(net.order(&draft.order).await.is_none(), "the order is closed");
    }
    let earned = |balance: u64| balance + 200_000_000_000 - crate::whole::PURSE;
    let (mut paid, mut said) = (0, 0);
    for hand in &hands {
        paid += earned(net.balance(hand.supplier).await);
    }
    let mut spent = 0;
    for (job, _) in &jobs {
        let receipt: atoll_api::receipt::Receipt = serde_json::from_value(client.receipt(*job).await.unwrap()).unwrap();
        let money = receipt.open().unwrap().money;
        said += money.paid.0;
        spent += money.escrow.0 - money.refunded.0;
    }
    assert_eq!((paid, crate::whole::PURSE - net.balance(net.renters()).await), (said, spent));
    assert_eq!(net.tokens_everywhere().await, net.supply().await, "no token is nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_cluster_behind_the_url_of_a_node_that_runs_is_believed_in_nothing() {
    let (net, operator, hands, gate) = network(1).await;
    let draft = net.draft(&operator, 1, 3600).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    case.runs().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = LocalChainConfig::new(folder.path().join("chain"), [8; 32]);
    config.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let other = serve(config).await.unwrap();
    let right = gate.lead(&other.url());
    until("the node refuses the chain", || async { case.operator.control().market.refusal().is_some() }).await;
    // There the order is missing, and there the clock says that its lease is over.
    case.net.misbehave(json!({})).await;
    let view = case.operator.client(&case.net).await;
    let began = tokio::time::Instant::now();
    until("a run of everything has passed", || async {
        assert_eq!(view.job(case.job).await.unwrap().state, JobState::Running);
        began.elapsed() > Duration::from_secs(8)
    })
    .await;
    gate.lead(&right);
    until("the chain is the right one again", || async { case.operator.control().market.snapshot().is_some() }).await;
    let body = case.finish().await;
    assert_eq!((body.leases.len(), body.result.attempts), (1, 1));
}

//! Forks of the chain under a whole node: what was seen, or taken for confirmed, never was. Each step of a job is taken
//! back once. It is asked again, or ends in a clear error, and nothing is booked that is gone.

use std::time::Duration;

use atoll_api::client::Sealing;
use atoll_chain::Address;
use atoll_chain::market::Market;
use atoll_chain::rpc::Commitment;
use atoll_control::store::rows::{ChainTxState, Epoch};
use atoll_domain::job::JobState;
use atoll_domain::key::PublicKey;
use atoll_interface::layout::{Lease, Order};
use serde_json::json;

use crate::whole::{Case, Draft, Net, until};

/// A slot is confirmed after so many more, and final after so many.
const CONFIRMED: u64 = 2;
const FINAL: u64 = 6;
/// More than the 150 slots that a blockhash lives, and the 200 that a renter's transaction is waited for.
const BLOCKHASH_LIFE: Duration = Duration::from_secs(90);

/// A step of a job, by what it leaves on the chain.
#[derive(Clone, Copy, Debug)]
enum Step {
    Post,
    Fill,
    Settle,
    Release,
    CloseLease,
    CloseOrder,
}

/// What a state of the chain shows of an order.
#[derive(Clone, Debug)]
struct Shown {
    order: Option<Order>,
    leases: Vec<Lease>,
}

impl Shown {
    async fn at(net: &Net, draft: &Draft, commitment: Commitment) -> Self {
        let (market, order) = (Market::new(net.rpc.at(commitment)), Address(draft.order.0));
        let order_now = market.order(&order).await.unwrap().map(|found| found.value);
        let leases = market.leases_of(&order).await.unwrap().into_iter().map(|lease| lease.value).collect();
        Self { order: order_now, leases }
    }

    fn has(&self, step: Step) -> bool {
        let Some(order) = self.order else { return matches!(step, Step::CloseOrder) };
        match step {
            Step::Post => true,
            Step::Fill => order.leases_made > 0,
            Step::Settle => self.leases.iter().any(|lease| lease.device_seconds_paid > 0),
            Step::Release => order.leases_made > 0 && order.devices_live == 0,
            Step::CloseLease => order.leases_made > 0 && order.leases_open == 0,
            Step::CloseOrder => false,
        }
    }
}

/// How a fork comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fork {
    /// As soon as a step is seen, before it is confirmed.
    Seen,
    /// When it is confirmed; what was signed for the lost blocks is good for nothing.
    Confirmed,
}

async fn network() -> (Net, crate::whole::Operator, Vec<crate::whole::Hand>) {
    network_of(1).await
}

/// With so many workers of one device.
async fn network_of(devices: u8) -> (Net, crate::whole::Operator, Vec<crate::whole::Hand>) {
    let net = Net::start().await;
    net.misbehave(json!({ "finality": { "confirmedSlots": CONFIRMED, "finalizedSlots": FINAL } })).await;
    let operator = net.operator(1, "0/1").await;
    let mut hands = Vec::new();
    for n in 1..=devices {
        hands.push(net.hand(n).await);
    }
    for hand in &hands {
        hand.link(&operator);
    }
    Case::linked(&operator, &hands).await;
    (net, operator, hands)
}

/// Waits until a step shows, takes it back, and sees that it is gone.
async fn take_back(net: &Net, draft: &Draft, step: Step, fork: Fork) {
    let (at, slots) = match fork {
        // As many as are not confirmed: the next slot may have come since.
        Fork::Seen => (Commitment::Processed, CONFIRMED),
        Fork::Confirmed => (Commitment::Confirmed, FINAL - 2),
    };
    until(&format!("{step:?} shows"), || async { Shown::at(net, draft, at).await.has(step) }).await;
    let lost = net.misbehave(json!({ "rollBack": { "slots": slots } })).await;
    let shows = Shown::at(net, draft, Commitment::Processed).await;
    assert!(!shows.has(step), "{step:?} stands though {lost} were taken back: {shows:?}");
    if fork == Fork::Confirmed {
        // Until then nobody can know whether it comes after all.
        net.clock.pass(BLOCKHASH_LIFE);
    }
}

/// A draft whose blockhash is older than anything that will be taken back.
async fn old_draft(net: &Net, operator: &crate::whole::Operator) -> Draft {
    let draft = net.draft_filled_within(600, operator, 1, 3600).await;
    let signed_at = net.rpc.slot().await.unwrap();
    until("its blockhash is final", || async { net.rpc.slot().await.unwrap() > signed_at + FINAL }).await;
    draft
}

async fn every_step_is_taken_back_once(fork: Fork) {
    let (net, operator, hands) = network().await;
    let draft = old_draft(&net, &operator).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    let back = async |step| take_back(&case.net, &case.draft, step, fork).await;
    if fork == Fork::Seen {
        back(Step::Post).await;
    }
    back(Step::Fill).await;
    case.runs().await;
    back(Step::Settle).await;
    case.settled_some().await;
    case.net.machines.finish();
    back(Step::Release).await;
    back(Step::CloseLease).await;
    back(Step::CloseOrder).await;
    let body = case.over(JobState::Succeeded).await;
    assert!(body.money.paid.0 > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_step_that_was_only_seen_is_taken_back_once_and_asked_again() {
    every_step_is_taken_back_once(Fork::Seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_step_that_was_confirmed_is_taken_back_once_and_asked_again() {
    every_step_is_taken_back_once(Fork::Confirmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_served_is_booked_while_it_runs_though_finality_takes_longer_than_an_epoch() {
    let (net, operator, hands) = network().await;
    // Ten seconds, and epochs are of four.
    net.misbehave(json!({ "finality": { "confirmedSlots": CONFIRMED, "finalizedSlots": 25 } })).await;
    let draft = net.draft(&operator, 1, 3600).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    case.runs().await;
    case.settled_some().await;
    let body = case.finish().await;
    assert!(body.money.paid.0 > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_that_a_fork_takes_back_is_sent_again_while_it_can_land_and_costs_nothing_when_it_cannot() {
    let (net, operator, hands) = network().await;
    // Signed for a block that stays: the same bytes land again.
    let draft = old_draft(&net, &operator).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    case.operator.wait("its order is confirmed", case.job, |row| row.now.state == JobState::Placing).await;
    case.net.misbehave(json!({ "rollBack": { "slots": FINAL - 2 } })).await;
    case.runs().await;
    let body = case.finish().await;
    assert_eq!(body.leases.len(), 1);

    // Signed for a block that is gone: it never lands again.
    let draft = case.net.draft_filled_within(600, &case.operator, 1, 3600).await;
    let before = case.net.balance(case.net.renters()).await;
    let lost = case.net.submit(&case.operator.client(&case.net).await, &draft, 1).await.job;
    take_back(&case.net, &draft, Step::Post, Fork::Confirmed).await;
    let row = case.operator.wait("it is over", lost, |row| row.now.state.is_final()).await;
    assert_eq!(row.now.state, JobState::Failed);
    assert!(row.now.reason.contains("nothing was charged"), "{}", row.now.reason);
    assert!(case.net.order(&draft.order).await.is_none());
    assert_eq!(case.net.balance(case.net.renters()).await, before);
    assert_eq!(case.net.tokens_everywhere().await, case.net.supply().await, "no token is nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_last_leaf_whose_vote_a_fork_takes_back_is_attested_again_under_the_next_one() {
    let (net, operator, _hands) = network_of(2).await;
    let client = operator.client(&net).await;
    let (lasting, draft) = (net.draft(&operator, 1, 3600).await, net.draft(&operator, 1, 3600).await);
    let other = net.submit(&client, &lasting, 1).await.job;
    let job = net.submit(&client, &draft, 1).await.job;
    operator.wait_state(other, JobState::Running).await;
    operator.wait_state(job, JobState::Running).await;
    let order = Address(draft.order.0);
    until("something is booked", || async {
        net.market().leases_of(&order).await.unwrap()[0].value.device_seconds_paid > 0
    })
    .await;
    // From here on nothing is final for a minute: more than a busy machine needs for the next two epochs.
    net.misbehave(json!({ "finality": { "confirmedSlots": CONFIRMED, "finalizedSlots": 150 } })).await;
    let seal = Sealing { wallet: &net.renter, now: net.clock.time(), nonce: [9; 16], idempotency_key: "stop" };
    client.stop(job, &seal).await.unwrap();
    let lease = net.market().leases_of(&order).await.unwrap()[0].address;
    let store = &operator.control().store;
    let newest = async || store.epoch_with_lease(&PublicKey(lease.0)).await.unwrap();
    let is_last = |epoch: &Epoch| epoch.leaves.iter().any(|leaf| leaf.lease.0 == lease.0 && leaf.flags & 1 != 0);
    until("its last leaf is written", || async { newest().await.as_ref().is_some_and(is_last) }).await;
    let last = newest().await.unwrap().index;
    let vote = async |epoch: u64| store.chain_tx(&format!("post_epoch/{epoch}")).await.unwrap();
    until("a later epoch is voted on", || async {
        let latest = store.epoch_latest().await.unwrap().unwrap().index;
        latest > last && vote(latest).await.is_some_and(|vote| vote.state == ChainTxState::Confirmed)
    })
    .await;
    // Both votes are taken back. The next slots may have come since these were counted, and a vote may be sent again at once.
    let signature = vote(last).await.unwrap().signature;
    let voted_at = net.rpc.status(&signature.parse().unwrap()).await.unwrap().unwrap().slot;
    let slots = net.rpc.at(Commitment::Processed).slot().await.unwrap() - voted_at + 3;
    let lost = net.misbehave(json!({ "rollBack": { "slots": slots } })).await;
    assert!(lost["rolledBack"].to_string().contains(&signature), "the vote stands: {lost}");
    net.misbehave(json!({ "finality": { "confirmedSlots": CONFIRMED, "finalizedSlots": FINAL } })).await;
    net.clock.pass(BLOCKHASH_LIFE);
    operator.wait_state(job, JobState::Stopped).await;
    assert!(net.order(&draft.order).await.is_none(), "the order is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_is_lost_while_its_order_is_only_processed_fails_no_job() {
    let (net, mut operator, hands) = network().await;
    let draft = net.draft(&operator, 1, 3600).await;
    net.misbehave(json!({ "finality": { "confirmedSlots": 100, "finalizedSlots": 120 } })).await;
    let job = net.submit(&operator.client(&net).await, &draft, 1).await.job;
    until("its order shows", || async { Shown::at(&net, &draft, Commitment::Processed).await.has(Step::Post) }).await;
    operator.kill().await;
    operator.lose_store();
    operator.start().await;
    let began = tokio::time::Instant::now();
    until("it is known again, and was looked at", || async {
        let row = operator.control().store.job(job).await.unwrap();
        let over = row.as_ref().is_some_and(|row| row.now.state.is_final());
        assert!(!over, "an order that shows is not closed: {:?}", row.map(|row| row.now.reason));
        row.is_some() && began.elapsed() > Duration::from_secs(5)
    })
    .await;
    net.misbehave(json!({ "finality": { "confirmedSlots": 0, "finalizedSlots": 0 } })).await;
    let case = Case { net, operator, hands, draft, job };
    case.runs().await;
    assert_eq!(case.finish().await.leases.len(), 1);
}

//! What goes amiss while an order is lengthened: a node that denies what others take, a fork, a history that is long or
//! gone, a machine that is just being replaced, a job without checkpoints.

use std::time::Duration;

use atoll_api::client::Client;
use atoll_api::http::ExtensionState;
use atoll_chain::market::data::ASK;
use atoll_chain::{Address, Keypair, SignedTransaction, spl};
use atoll_domain::job::JobState;
use atoll_domain::key::PublicKey;
use serde_json::json;

use crate::away;
use crate::extend::{all_follow, ask, chain_now, end_of, leases, network, running, signed};
use crate::whole::{Case, Draft, Net, Operator, Way, until};

/// A slot is confirmed after so many more, and final after so many.
const CONFIRMED: u64 = 2;
const FINAL: u64 = 6;
/// More than the blocks that a blockhash lives, and that a renter's transaction is waited for.
const BLOCKHASH_LIFE: Duration = Duration::from_secs(90);

/// Brings a transaction to the chain past every operator.
async fn send(net: &Net, transaction: Vec<u8>) {
    let transaction = SignedTransaction::from_bytes(transaction).unwrap();
    let height = net.rpc.block_height().await.unwrap() + 100;
    net.rpc.send(&transaction).await.unwrap();
    net.rpc.confirm(&transaction, height, Duration::from_secs(20)).await.unwrap();
}

async fn state(net: &Net, client: &Client, order: &PublicKey, transaction: &[u8]) -> ExtensionState {
    ask(net, client, order, transaction, "longer", 9).await.unwrap().state
}

async fn told(operator: &Operator, job: atoll_domain::id::JobId, words: &str) -> usize {
    let events = operator.control().store.events(job, 0, 500).await.unwrap();
    events.iter().filter(|(_, event)| event.message.contains(words)).count()
}

/// The same with a blockhash that no fork of these takes back.
async fn signed_for_good(net: &Net, order: &PublicKey, seconds: u32) -> Vec<u8> {
    let transaction = signed(net, order, seconds).await;
    let signed_at = net.rpc.slot().await.unwrap();
    until("its blockhash is final", || async { net.rpc.slot().await.unwrap() > signed_at + FINAL }).await;
    transaction
}

async fn extended_s(net: &Net, draft: &Draft) -> u32 {
    net.order(&draft.order).await.unwrap().extended_s
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_trial_run_says_of_an_extension_is_told_and_only_the_chain_believed() {
    let (net, operator, _hands, gate) = away::network(1).await;
    let client = operator.client(&net).await;
    let (draft, job) = running(&net, &operator, &client, 1, 3600).await;
    let before = end_of(&net, &draft.order).await;
    let transaction = signed(&net, &draft.order, 60).await;
    gate.set(Way::Denies);
    let taken = ask(&net, &client, &draft.order, &transaction, "longer", 2).await.unwrap();
    assert_eq!(taken.state, ExtensionState::Pending, "the node that was asked does not decide");
    assert!(taken.reason.contains("refused"), "{taken:?}");
    let more = signed(&net, &draft.order, 61).await;
    let refused = ask(&net, &client, &draft.order, &more, "more", 3).await.unwrap_err();
    assert_eq!(refused.code, "cannot_be_extended", "one at a time: {}", refused.message);
    // Another operator has the same bytes, and a node that takes them.
    send(&net, transaction.clone()).await;
    gate.set(Way::Open);
    until("it is known to be taken", || async {
        state(&net, &client, &draft.order, &transaction).await == ExtensionState::Confirmed
    })
    .await;
    all_follow(&net, &draft.order, before, 60).await;
    operator.wait("it is noted", job, |row| row.now.extensions.len() == 1).await;
    assert_eq!(told(&operator, job, "was not lengthened").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_extension_that_a_fork_takes_back_is_sent_again_and_one_that_can_land_no_more_is_said() {
    let (net, operators, _hands) = network(1, 1).await;
    net.misbehave(json!({ "finality": { "confirmedSlots": CONFIRMED, "finalizedSlots": FINAL } })).await;
    let operator = &operators[0];
    let client = operator.client(&net).await;
    let (draft, job) = running(&net, operator, &client, 1, 3600).await;
    let before = end_of(&net, &draft.order).await;
    let transaction = signed_for_good(&net, &draft.order, 60).await;
    ask(&net, &client, &draft.order, &transaction, "longer", 2).await.unwrap();
    until("it is confirmed", || async { extended_s(&net, &draft).await == 60 }).await;
    assert_eq!(
        state(&net, &client, &draft.order, &transaction).await,
        ExtensionState::Pending,
        "a fork may take it back"
    );
    net.misbehave(json!({ "rollBack": { "slots": FINAL - 2 } })).await;
    until("it is final all the same", || async {
        state(&net, &client, &draft.order, &transaction).await == ExtensionState::Confirmed
    })
    .await;
    all_follow(&net, &draft.order, before, 60).await;
    operator.wait("it is noted once", job, |row| row.now.extensions.len() == 1).await;

    // Signed for a block that is gone: it lands no more.
    let balance = net.balance(net.renters()).await;
    let lost = signed(&net, &draft.order, 61).await;
    ask(&net, &client, &draft.order, &lost, "more", 3).await.unwrap();
    until("it is confirmed", || async { extended_s(&net, &draft).await == 121 }).await;
    net.misbehave(json!({ "rollBack": { "slots": FINAL - 2 } })).await;
    net.clock.pass(BLOCKHASH_LIFE);
    until("it is over", || async {
        ask(&net, &client, &draft.order, &lost, "more", 4).await.unwrap().state == ExtensionState::Expired
    })
    .await;
    assert_eq!(told(operator, job, "was not lengthened").await, 1);
    assert_eq!((extended_s(&net, &draft).await, net.balance(net.renters()).await), (60, balance));
    let row = operator.control().store.job(job).await.unwrap().unwrap();
    assert_eq!(row.now.extensions.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_extension_is_found_below_many_transactions_that_name_its_order() {
    let (net, operators, _hands) = network(1, 1).await;
    let operator = &operators[0];
    let client = operator.client(&net).await;
    let (draft, job) = running(&net, operator, &client, 1, 3600).await;
    let transaction = signed(&net, &draft.order, 60).await;
    let renter = Keypair::from_seed(&net.renter.seed());
    // More of them than one run looks at. They come first, so that none sees the extension alone.
    send(&net, transaction.clone()).await;
    let blockhash = net.rpc.latest_blockhash().await.unwrap().blockhash;
    for lamports in 1..=35 {
        let dust = spl::system_transfer(renter.address(), Address(draft.order.0), lamports);
        net.rpc.send(&atoll_chain::sign(&[dust], &renter, &[], &blockhash).unwrap()).await.unwrap();
    }
    let row = operator.wait("it is noted", job, |row| row.now.extensions.len() == 1).await;
    assert_eq!((row.now.extensions[0].seconds, row.now.extended_s), (60, 60));
    assert_eq!(told(operator, job, "lengthened by 60 s").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_history_that_is_gone_holds_nothing_up_and_its_receipt_says_what_it_does_not_show() {
    let (net, operator, hands, gate) = away::network(1).await;
    let draft = net.draft(&operator, 1, 3600).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    case.runs().await;
    let net = &case.net;
    gate.set(Way::Forgets);
    let escrow = net.order(&case.draft.order).await.unwrap().extension(60).unwrap();
    send(net, signed(net, &case.draft.order, 60).await).await;
    case.operator.wait("its length is noted", case.job, |row| row.now.extended_s == 60).await;
    until("its history was looked for", || async { gate.refused() >= 2 }).await;
    case.settled_some().await;
    net.machines.finish();
    until("everything is paid", || async { net.order(&case.draft.order).await.is_none() }).await;
    case.operator.wait("the receipt waits a little", case.job, |row| row.now.state == JobState::Settling).await;
    net.clock.pass(Duration::from_secs(60));
    let body = case.over(JobState::Succeeded).await;
    let unshown = body.order.unshown.unwrap();
    assert_eq!((unshown.seconds, unshown.escrow.0, body.order.extensions.len()), (60, escrow, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_whose_one_machine_is_being_replaced_is_lengthened_and_its_next_lease_ends_with_it() {
    let (net, operators, hands) = network(1, 1).await;
    let operator = &operators[0];
    let client = operator.client(&net).await;
    let (draft, job) = running(&net, operator, &client, 1, 3600).await;
    let before = end_of(&net, &draft.order).await;
    hands[0].die().await;
    until("its device is open", || async { net.order(&draft.order).await.unwrap().devices_open == 1 }).await;
    let transaction = signed(&net, &draft.order, 60).await;
    let taken = ask(&net, &client, &draft.order, &transaction, "longer", 2).await.unwrap();
    assert_eq!(taken.refusals, [], "nobody stays behind where nobody is");
    until("it is longer", || async { extended_s(&net, &draft).await == 60 }).await;
    let next = net.hand(2).await;
    next.link(operator);
    operator.wait("it runs again", job, |row| row.now.state == JobState::Running && row.now.attempt == 2).await;
    let live: Vec<i64> =
        leases(&net, &draft.order).await.iter().filter(|lease| lease.devices_live > 0).map(|lease| lease.end).collect();
    assert_eq!(live, [before + 60]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_without_checkpoints_runs_to_the_end_of_the_lease_that_stays_behind_and_is_told_why() {
    let (net, operators, hands) = network(3, 1).await;
    let operator = &operators[0];
    let client = operator.client(&net).await;
    let draft = net.draft_of(60, operator, 2, 40, |spec| spec.checkpoints = false).await;
    let job = net.submit(&client, &draft, 1).await.job;
    operator.wait_state(job, JobState::Running).await;
    let before = end_of(&net, &draft.order).await;
    let pods = operator.control().store.pods_of(job).await.unwrap();
    let dearer = hands.iter().position(|hand| pods.iter().any(|pod| pod.worker == hand.id())).unwrap();
    net.set_ask(&hands[dearer], u8::try_from(dearer + 1).unwrap(), 60_000, ASK).await;
    let transaction = signed(&net, &draft.order, 600).await;
    let taken = ask(&net, &client, &draft.order, &transaction, "longer", 2).await.unwrap();
    assert!(taken.refusals[0].reason.contains("the job writes no checkpoints and ends with it"), "{taken:?}");
    let row = operator.wait("it is over", job, |row| row.now.outcome.is_some()).await;
    assert!(chain_now(&net).await >= before, "it ended before the lease did");
    let reason = &row.now.reason;
    assert!(reason.contains("asks more") && reason.contains("no checkpoints") && !reason.contains("lost"), "{reason}");
    operator.wait_state(job, JobState::Failed).await;
    let slot = net.slot(&hands[dearer]).await;
    assert_eq!(slot.flags & atoll_interface::layout::SLOT_SUSPENDED, 0, "its worker is at no fault");
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
}

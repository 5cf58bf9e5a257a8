//! The store deleted, or restored from an old copy, while a job runs: the job goes on or starts anew, is settled, and
//! nothing is paid twice or lost.

use std::collections::BTreeSet;

use atoll_api::client::Sealing;
use atoll_api::receipt::Receipt;
use atoll_chain::Hash;
use atoll_control::app::{kept, leaves};
use atoll_control::store::rows::Epoch;
use atoll_domain::cluster::PodState;
use atoll_domain::job::JobState;

use crate::whole::{Case, Hand, Net, Operator, until};

/// One operator, two hands linked to it.
pub(crate) async fn network() -> (Net, Operator, Vec<Hand>) {
    let net = Net::start().await;
    let operator = net.operator(1, "0/1").await;
    let hands = vec![net.hand(1).await, net.hand(2).await];
    for hand in &hands {
        hand.link(&operator);
    }
    Case::linked(&operator, &hands).await;
    (net, operator, hands)
}

/// The same with a job of two devices that runs.
async fn running() -> Case {
    let (net, operator, hands) = network().await;
    let draft = net.draft(&operator, 2, 3600).await;
    let case = Case::submitted(net, operator, hands, draft).await;
    case.runs().await;
    case
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_runs_settles_and_every_unit_is_accounted_for() {
    let it = running().await;
    it.settled_some().await;
    let body = it.finish().await;
    assert_eq!(body.leases.len(), 2);
    assert!(body.leases.iter().all(|lease| lease.attested.as_ref().unwrap().device_seconds > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_is_deleted_while_a_job_runs_and_its_pods_go_on() {
    let mut it = running().await;
    it.settled_some().await;
    let (pods, submissions) = (it.net.machines.running(), it.net.machines.submissions());
    it.operator.kill().await;
    it.operator.lose_store();
    it.operator.start().await;
    // The same job under its own id, its pods where they were, the command never started again.
    let row = it
        .operator
        .wait("it runs again", it.job, |row| row.now.state == JobState::Running && row.now.adopting.is_none())
        .await;
    assert_eq!((row.order, row.now.attempt, row.now.fence), (it.draft.order, 1, 1));
    let rows = it.operator.control().store.pods_of(it.job).await.unwrap();
    let taken: BTreeSet<_> = rows.iter().filter(|pod| pod.state == PodState::Running).map(|pod| pod.id).collect();
    assert_eq!(taken, pods.iter().copied().collect());
    // The renter's retry, with a key that the operator has made anew, is the same job.
    let client = it.operator.client(&it.net).await;
    assert_eq!(it.net.submit(&client, &it.draft, 2).await.job, it.job);
    assert_eq!(client.jobs().await.unwrap().len(), 1);
    it.settled_some().await;
    it.finish().await;
    assert_eq!(it.net.machines.submissions().len(), submissions.len(), "no attempt was made twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_is_deleted_and_the_head_is_gone_so_all_pods_start_anew() {
    let mut it = running().await;
    it.settled_some().await;
    let head = it.operator.control().store.job(it.job).await.unwrap().unwrap().now.head.unwrap();
    let pods = it.operator.control().store.pods_of(it.job).await.unwrap();
    let worker = pods.iter().find(|pod| pod.id == head).unwrap().worker;
    let spare = it.net.hand(3).await;
    it.operator.kill().await;
    it.operator.lose_store();
    let lost = it.hands.iter().find(|hand| hand.id() == worker).unwrap();
    lost.die().await;
    it.operator.start().await;
    spare.link(&it.operator);
    it.hands.push(spare);
    let row = it
        .operator
        .wait("attempt 2 runs", it.job, |row| row.now.state == JobState::Running && row.now.attempt == 2)
        .await;
    assert!(row.now.fence > 1_000_000_000, "a fence that no worker can have seen: {}", row.now.fence);
    let highest = it.hands.iter().map(Hand::fence).max().unwrap();
    assert_eq!(highest, row.now.fence);
    let second = format!("{}-2", it.job);
    until("the new head knows attempt 2", || async {
        it.net.machines.submissions().iter().any(|(_, name, _)| *name == second)
    })
    .await;
    let body = it.finish().await;
    assert_eq!((body.leases.len(), body.result.attempts), (3, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_from_before_the_order_is_brought_up_to_the_chain() {
    let (net, mut operator, hands) = network().await;
    // The copy is of a store that has not seen the job at all.
    let copy = tempfile::tempdir().unwrap();
    operator.kill().await;
    operator.back_up(copy.path());
    operator.start().await;
    until("workers are back", || async { hands.iter().all(|hand| operator.control().links.is_linked(hand.id())) })
        .await;
    let draft = net.draft(&operator, 2, 3600).await;
    let mut it = Case::submitted(net, operator, hands, draft).await;
    it.operator.wait_state(it.job, JobState::Running).await;
    it.settled_some().await;
    it.operator.kill().await;
    it.operator.restore(copy.path());
    it.operator.start().await;
    it.operator
        .wait("it runs again", it.job, |row| row.now.state == JobState::Running && row.now.adopting.is_none())
        .await;
    it.finish().await;
    assert_eq!(it.net.machines.submissions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_from_the_job_s_first_attempt_is_brought_up_to_its_second() {
    let mut it = running().await;
    let copy = tempfile::tempdir().unwrap();
    it.operator.kill().await;
    it.operator.back_up(copy.path());
    it.operator.start().await;
    // A node is lost and replaced: another lease, another pod, attempt 2. The old store knows none of it.
    let row = it.operator.wait("it runs again", it.job, |row| row.now.state == JobState::Running).await;
    let pods = it.operator.control().store.pods_of(it.job).await.unwrap();
    let node = pods.iter().find(|pod| Some(pod.id) != row.now.head).unwrap().worker;
    let spare = it.net.hand(3).await;
    spare.link(&it.operator);
    it.hands.iter().find(|hand| hand.id() == node).unwrap().die().await;
    it.hands.push(spare);
    it.operator.wait("attempt 2 runs", it.job, |row| row.now.state == JobState::Running && row.now.attempt == 2).await;
    let second = format!("{}-2", it.job);
    until("the head knows attempt 2", || async {
        it.net.machines.submissions().iter().any(|(_, name, _)| *name == second)
    })
    .await;
    it.operator.kill().await;
    it.operator.restore(copy.path());
    it.operator.start().await;
    let row = it
        .operator
        .wait("attempt 2 runs again", it.job, |row| {
            row.now.state == JobState::Running && row.now.attempt == 2 && row.now.adopting.is_none()
        })
        .await;
    assert_eq!(row.now.fence, 1, "the head stands");
    let body = it.finish().await;
    assert_eq!((body.leases.len(), body.result.attempts), (3, 2));
    assert_eq!(it.net.machines.submissions().len(), 2, "no third attempt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_is_deleted_while_a_job_settles() {
    let mut it = running().await;
    it.settled_some().await;
    it.net.machines.finish();
    it.operator.wait("it settles", it.job, |row| row.now.state == JobState::Settling).await;
    it.operator.kill().await;
    it.operator.lose_store();
    it.operator.start().await;
    let row = it.operator.wait("it is over", it.job, |row| row.now.state.is_final()).await;
    // Whether how it ended was kept before the store was lost is a race; what it is then said to be is not.
    assert!(matches!(row.now.state, JobState::Succeeded | JobState::Failed), "{:?}", row.now);
    let client = it.operator.client(&it.net).await;
    let receipt: Receipt = serde_json::from_value(client.receipt(it.job).await.unwrap()).unwrap();
    it.check_books(&receipt.open().unwrap()).await;
    // And lost once more when all is over: the job and its receipt are still there.
    it.operator.kill().await;
    it.operator.lose_store();
    it.operator.start().await;
    it.operator.wait_state(it.job, row.now.state).await;
    let again: Receipt =
        serde_json::from_value(it.operator.client(&it.net).await.receipt(it.job).await.unwrap()).unwrap();
    assert_eq!(again, receipt);
}

/// What a store says that came back old under a node that runs: another root of an epoch than the one that was kept, and
/// so may have been voted on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_root_of_an_epoch_of_which_another_is_kept_is_not_voted_on() {
    let it = running().await;
    it.settled_some().await;
    let control = it.operator.control();
    let (mut refused, mut kept_root) = (control.store.epoch_latest().await.unwrap().unwrap(), None);
    // The node may write the next epoch before this does.
    while kept_root.is_none() {
        let latest = control.store.epoch_latest().await.unwrap().unwrap();
        let mut voted = Epoch { index: latest.index + 1, ..latest.clone() };
        voted.leaves[0].device_seconds += 1;
        voted.root = leaves::root(&voted.leaves);
        refused = Epoch { index: voted.index, ..latest };
        let first = kept::put_epoch(control, &voted).await.unwrap();
        let stored = control.store.epoch_put(&refused).await.unwrap();
        kept_root = (first && stored == refused).then_some(voted.root);
    }
    assert!(!kept::put_epoch(control, &refused).await.unwrap());
    let same = Epoch { root: kept_root.unwrap(), ..refused.clone() };
    assert!(kept::put_epoch(control, &same).await.unwrap(), "the root decides");
    // What it said is said again under later roots, and everything is settled.
    it.finish().await;
    let voted = it.net.market().epoch(refused.index, &Hash(refused.root.0)).await.unwrap();
    assert!(voted.is_none(), "its key signed a second root of epoch {}", refused.index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_that_was_acknowledged_outlives_the_store() {
    let mut it = running().await;
    it.settled_some().await;
    let copy = tempfile::tempdir().unwrap();
    it.operator.kill().await;
    it.operator.back_up(copy.path());
    it.operator.start().await;
    let client = it.operator.client(&it.net).await;
    let seal = Sealing { wallet: &it.net.renter, now: it.net.clock.time(), nonce: [9; 16], idempotency_key: "stop" };
    client.stop(it.job, &seal).await.unwrap();
    it.operator.kill().await;
    it.operator.restore(copy.path());
    // As if the node had been killed before it did anything about it.
    let ended = it.operator.state.join(format!("objects/orders/{}/ended.json", it.draft.order));
    if let Err(error) = std::fs::remove_file(ended) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
    it.operator.start().await;
    it.over(JobState::Stopped).await;
}

//! Programs that end by themselves before the command begins.

use std::collections::BTreeSet;

use atoll_domain::job::JobState;

use crate::whole::{Case, Net, Operator};

/// A job of one device, and two workers that could serve it.
async fn job(bad_starts: u32) -> Case {
    let net = Net::start().await;
    let operator: Operator = net.operator(1, "0/1").await;
    let hands = vec![net.hand(1).await, net.hand(2).await];
    for hand in &hands {
        hand.link(&operator);
    }
    Case::linked(&operator, &hands).await;
    net.machines.start_badly(bad_starts);
    let draft = net.draft(&operator, 1, 3600).await;
    Case::submitted(net, operator, hands, draft).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_whose_program_ends_at_once_on_two_machines_fails_with_its_words_and_is_refunded() {
    let case = job(u32::MAX).await;
    let body = case.over(JobState::Failed).await;
    assert_eq!((body.result.attempts, body.money.paid.0), (0, 0), "nothing was served");
    let view = case.operator.client(&case.net).await.job(case.job).await.unwrap();
    for words in ["before the command begins", "ended with status 3", "no module named 'nowhere'"] {
        assert!(view.reason.contains(words), "{}", view.reason);
    }
    let tried: BTreeSet<_> = view.pods.iter().map(|pod| pod.worker).collect();
    assert_eq!((view.pods.len(), tried.len()), (2, 2), "another machine was tried, once");
    assert!(case.net.machines.running().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_program_that_ends_at_once_on_one_machine_is_started_on_another() {
    let case = job(1).await;
    case.runs().await;
    let body = case.finish().await;
    assert_eq!((body.result.attempts, body.leases.len()), (1, 2));
    let view = case.operator.client(&case.net).await.job(case.job).await.unwrap();
    let tried: BTreeSet<_> = view.pods.iter().map(|pod| pod.worker).collect();
    assert_eq!(tried.len(), 2, "the machine that is not at fault was taken");
}

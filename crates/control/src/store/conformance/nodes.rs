//! Nodes, links, and the network that a store is for.

use std::collections::BTreeMap;

use atoll_domain::cluster::PodState;
use atoll_domain::id::NodeId;
use atoll_domain::key::{Digest, PublicKey};

use super::Fresh;
use super::make::{accepted, command, event, id16, id32, job_id, job_now, pod, worker_id};
use crate::store::rows::{Beat, Held, NetworkPin, Node, PodChange};

fn node_id(n: u64) -> NodeId {
    NodeId::from_random(id16(n))
}

fn beat(n: u64, count: u64) -> Beat {
    Beat { node: node_id(n), url: format!("https://n{n}"), count, begun: vec![], ended: vec![] }
}

fn held(n: u64, number: u64) -> Held {
    Held { node: node_id(n), number }
}

pub(super) async fn the_last_link_of_a_worker_counts(at: &Fresh) {
    let store = at.open().await;
    let (one, two) = (worker_id(1), worker_id(2));
    store.node_beat(&Beat { begun: vec![(one, 10), (two, 11)], ..beat(1, 1) }).await.unwrap();
    // The worker went to another node, and the first one says late that it is gone.
    store.node_beat(&Beat { begun: vec![(one, 20)], ..beat(2, 1) }).await.unwrap();
    store.node_beat(&Beat { ended: vec![(one, 10), (two, 99)], ..beat(1, 2) }).await.unwrap();
    let links = BTreeMap::from([(one, held(2, 20)), (two, held(1, 11))]);
    assert_eq!(store.links().await.unwrap(), links);
    store.node_beat(&beat(1, 3)).await.unwrap();
    let mut nodes = vec![
        Node { id: node_id(1), url: "https://n1".into(), beat: 3, changes: 2 },
        Node { id: node_id(2), url: "https://n2".into(), beat: 1, changes: 1 },
    ];
    nodes.sort_by_key(|node| node.id.to_string());
    assert_eq!(store.news(0).await.unwrap().nodes, nodes);
    store.nodes_drop(&[node_id(2), node_id(7)]).await.unwrap();
    assert_eq!(store.links().await.unwrap(), BTreeMap::from([(two, held(1, 11))]));
    assert_eq!(store.news(0).await.unwrap().nodes.len(), 1);
}

pub(super) async fn news_name_later_commands_and_changed_jobs(at: &Fresh) {
    let store = at.open().await;
    assert_eq!((store.news(0).await.unwrap().jobs, store.last_command().await.unwrap()), (0, 0));
    let (_, job) = accepted(store.as_ref(), 1).await;
    let (first, second) = (pod(20, &job, 0), pod(21, &job, 1));
    let before = store.news(0).await.unwrap();
    store.commands_add(&[command(1, &first), command(2, &second)]).await.unwrap();
    let last = store.last_command().await.unwrap();
    let news = store.news(before.commands.last().map_or(0, |(number, _)| *number)).await.unwrap();
    let workers: Vec<_> = news.commands.iter().map(|(_, worker)| *worker).collect();
    assert_eq!((workers, news.jobs), (vec![first.worker, second.worker], before.jobs));
    assert!(store.news(last).await.unwrap().commands.is_empty());
    store.events_add(job_id(1), &[event("more")]).await.unwrap();
    assert_ne!(store.news(last).await.unwrap().jobs, before.jobs);
}

pub(super) async fn a_pod_is_not_given_up_once_its_worker_is_linked_again(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let lost = PodChange { state: Some(PodState::Lost), ..PodChange::default() };
    let first = pod(20, &job, 0);
    let pods = [first.clone(), pod(21, &job, 1)];
    store.pods_add(job.id, job.generation, &job_now(), &pods, &[], &[]).await.unwrap();
    store.node_beat(&Beat { begun: vec![(first.worker, 5)], ..beat(1, 1) }).await.unwrap();
    for seen in [None, Some(held(1, 4)), Some(held(2, 5))] {
        assert!(!store.pod_lose(first.id, seen, &lost, &[]).await.unwrap());
    }
    assert_ne!(store.pod(first.id).await.unwrap().unwrap().state, PodState::Lost);
    assert!(store.pod_lose(first.id, Some(held(1, 5)), &lost, &[]).await.unwrap());
    assert_eq!(store.pod(first.id).await.unwrap().unwrap().state, PodState::Lost);
    assert!(!store.pod_lose(first.id, Some(held(1, 5)), &lost, &[]).await.unwrap(), "it is over");
}

pub(super) async fn the_first_network_stays(at: &Fresh) {
    let store = at.open().await;
    let pin = |n| NetworkPin { genesis_hash: PublicKey(id32(n)), network_root: Digest(id32(n + 1)) };
    assert_eq!(store.network().await.unwrap(), None);
    assert_eq!(store.network_pin(&pin(1)).await.unwrap(), pin(1));
    assert_eq!(store.network_pin(&pin(5)).await.unwrap(), pin(1));
    assert_eq!(store.network().await.unwrap(), Some(pin(1)));
}

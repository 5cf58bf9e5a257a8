//! A worker's agent dies and is started again: its pod, its supervisor, the job and its books go on.

use std::fs;
use std::time::Duration;

use atoll_worker::supervisor::client::keeper_of;
use atoll_worker::supervisor::spec::PodSpec;
use atoll_worker::supervisor::usage::{self, Record};

use crate::job::{Job, running};
use crate::network::{Network, until};
use crate::processes::Process;

/// A supervisor writes a record a second; twenty times that is a gap on any machine.
const GAP_MAX: Duration = Duration::from_secs(20);

pub(crate) fn an_agent_that_was_killed_takes_its_pod_up_again(network: &mut Network, job: &Job) {
    let before = job.until(network, "a checkpoint", |now| {
        (!job.events("checkpoint").is_empty() && running(now, "node").is_some()).then(|| now.clone())
    });
    let pod = running(&before, "node").unwrap();
    let role = network.role_of(pod["worker"].as_str().unwrap());
    let folder = network.folder.join(&role).join("pods").join(pod["pod"].as_str().unwrap());
    let supervisor = Process::of(u32::try_from(keeper_of(&folder).unwrap().pid).unwrap()).unwrap();
    let in_pod = supervisor.children();
    let printed = fs::read(folder.join("output-0.log")).unwrap();
    let logs = job.output(network);
    assert!(!in_pod.is_empty() && !printed.is_empty());

    let agent = network.agent(&role);
    agent.signal(libc::SIGKILL);
    until("the agent is dead", || (!agent.runs()).then_some(()));
    until("its link is seen broken", || (!network.is_linked(&role)).then_some(()));
    network.start_agent(&role);
    until("its link stands again", || network.is_linked(&role).then_some(()));

    let seq = job.seen();
    let checkpoint = job.until_event(network, "checkpoint", seq);
    assert_eq!(checkpoint["fields"]["attempt"], "1", "the command was started again");
    let served = |job: &serde_json::Value| running(job, "node").map(|pod| pod["served_s"].as_u64().unwrap());
    let at_least = served(&before).unwrap() + 3;
    let now = job.until(network, "served time that grows", |now| {
        (served(now).is_some_and(|seconds| seconds > at_least)).then(|| now.clone())
    });
    assert_eq!(now["attempt"], 1);
    assert!(job.events("lost").is_empty(), "the lease was given up: {:?}", job.events("lost"));
    let ids = |job: &serde_json::Value| {
        job["pods"].as_array().unwrap().iter().map(|pod| (pod["pod"].clone(), pod["lease"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&now), "pods or leases are not those from before");

    assert!(supervisor.runs(), "the supervisor is another one");
    assert_eq!(supervisor.children(), in_pod, "the pod's processes are others");
    assert!(fs::read(folder.join("output-0.log")).unwrap().starts_with(&printed), "the pod's output was cut");
    assert!(job.output(network).starts_with(&logs), "the job's output was cut");
    the_usage_chain_has_no_gap(&folder);
}

fn the_usage_chain_has_no_gap(pod: &std::path::Path) {
    let records = usage::read(pod, 0, usize::MAX).unwrap();
    let genesis = Record::genesis_of(&PodSpec::read(pod).unwrap());
    assert_eq!(usage::verify(&genesis, &records), (records.len(), true), "the hash chain is broken");
    for pair in records.windows(2) {
        assert!(pair[1].at.since(pair[0].at) < GAP_MAX, "nothing was metered between {:?} and {:?}", pair[0], pair[1]);
    }
}

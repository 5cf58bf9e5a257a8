//! The machine of the cluster's head is lost with its disk.

use std::fs;

use serde_json::Value;

use crate::job::{Job, running};
use crate::network::{Balances, Network};

/// Epochs after which the digits are learnt.
const EPOCHS_BEFORE: u64 = 8;

pub(crate) fn a_head_lost_with_its_disk_is_replaced_and_the_job_resumes(network: &mut Network, job: &Job) {
    let before = job.until(network, "something to resume from", |now| {
        let newest = job.events("checkpoint").pop()?["fields"]["epoch"].as_str()?.parse::<u64>().ok()?;
        (newest >= EPOCHS_BEFORE).then(|| now.clone())
    });
    let head = running(&before, "head").unwrap();
    let (victim, old_head) = (head["worker"].as_str().unwrap().to_owned(), head["pod"].clone());
    network.destroy_machine(&network.role_of(&victim));

    let resumed = job.until_event(network, "resumed", 0);
    let field = |name: &str| resumed["fields"][name].as_str().unwrap().to_owned();
    assert_eq!(field("attempt"), "2");
    let step: u64 = field("resumed_from_step").parse().unwrap();
    assert!(step > 0, "it started anew");
    let manifest = manifest(network, job, step);
    assert_eq!(manifest["weights_sha256"], field("weights_sha256"), "it went on with other weights than were saved");

    let now = job.show(network);
    let new_head = running(&now, "head").expect("a new head runs");
    assert_ne!(new_head["pod"], old_head);
    let pods = now["pods"].as_array().unwrap();
    let serving: Vec<&Value> = pods.iter().filter(|pod| pod["state"] == "running").collect();
    assert_eq!(serving.len(), 2, "{now}");
    assert!(serving.iter().all(|pod| pod["worker"] != *victim), "{now}");
    let was_there = |pod: &&Value| before["pods"].as_array().unwrap().iter().any(|old| old["pod"] == pod["pod"]);
    assert_eq!(serving.iter().filter(|pod| was_there(pod)).count(), 0, "a pod outlived its head");
}

/// The job's end: what it reached, that money is conserved, and its receipt.
pub(crate) fn it_succeeds_and_the_books_balance(network: &Network, job: &Job, before: &Balances) {
    let ended = job.until(network, "its success", |now| (now["state"] == "succeeded").then(|| now.clone()));
    assert_eq!(ended["attempt"], 2);
    assert!(ended["resumed_from_step"].as_u64().unwrap() > 0);
    assert!(ended["accuracy_ppm"].as_u64().unwrap() >= 800_000, "{ended}");
    assert_eq!(network.supervisors(), 0, "pods outlived the job");
    let after = network.balances();
    let spent = after.conserved_since(before);
    assert!(spent > 0 && spent < ended["escrow"].as_u64().unwrap(), "{spent} was spent");
    let victim = network.role_of(ended["pods"][0]["worker"].as_str().unwrap());
    assert!(after.suppliers[&victim] > before.suppliers[&victim], "the lost worker was not paid for what it served");
    let receipt = network.folder.join("receipt.json");
    let receipt = receipt.to_str().unwrap();
    network.json(&["receipt", "show", &job.id, "--output", receipt]);
    network.json(&["receipt", "verify", receipt, "--network-root", &network.told.network_root]);
}

/// The manifest of a step as it lies in the object store.
fn manifest(network: &Network, job: &Job, step: u64) -> Value {
    let folder = network.folder.join("server/objects/jobs").join(&job.id).join("checkpoints");
    let of_step = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        name.rsplit('-').next().unwrap().parse() == Ok(step)
    };
    let path = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(of_step);
    serde_json::from_slice(&fs::read(path.expect("the checkpoint lies in the store")).unwrap()).unwrap()
}

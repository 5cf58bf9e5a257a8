//! `atoll job stop` on a running job.

use crate::job::Job;
use crate::network::{Network, until};

pub(crate) fn a_stopped_job_is_settled_and_refunded(network: &Network) {
    let free = network.devices_free();
    let before = network.balances();
    let job = Job::submit(network, &["--entry", "python idle.py", "--devices", "1"]);
    job.until(network, "its output", |_| job.output(network).windows(6).any(|part| part == b"idling").then_some(()));
    assert_eq!(network.devices_free(), free - 1);
    assert_eq!(network.supervisors(), 1);

    let answer = network.json(&["job", "stop", &job.id]);
    assert_eq!(answer["job"], job.id.as_str());
    let ended = job.until(network, "its end", |now| (now["state"] == "stopped").then(|| now.clone()));
    assert_eq!(ended["outcome"], "stopped", "{ended}");
    // A second stop changes nothing.
    assert_eq!(network.json(&["job", "stop", &job.id])["state"], "stopped");

    assert_eq!(network.supervisors(), 0, "a pod outlived the job");
    until("its device is free again", || (network.devices_free() == free).then_some(()));
    let after = network.balances();
    let spent = after.conserved_since(&before);
    let escrow = ended["escrow"].as_u64().unwrap();
    assert!(spent > 0 && spent < escrow / 10, "of {escrow} escrowed, {spent} were spent in a minute of an hour");
    assert_eq!(network.orders_of(&network.told.renter_wallet), 0, "the order is still open");
}

//! Jobs that end before their command does: by `atoll job stop`, and because their pods' programs end by themselves.

use std::collections::BTreeSet;
use std::fs;

use crate::job::Job;
use crate::network::{Network, until};
use crate::processes::{self, Process};

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

pub(crate) fn a_job_whose_programs_end_at_once_fails_and_says_how(network: &Network) {
    let before = network.balances();
    let job = Job::submit(network, &["--entry", "python idle.py", "--devices", "1"]);
    let mut killed = BTreeSet::new();
    let ended = until("its end", || {
        for program in processes::of_folder(&network.folder).into_iter().filter(is_program) {
            program.signal(libc::SIGKILL);
            killed.insert(program);
        }
        let now = job.show(network);
        assert_ne!(now["state"], "running", "it was not killed in time");
        (now["state"] == "failed").then_some(now)
    });
    let reason = ended["reason"].as_str().unwrap();
    assert!(reason.contains("before the command begins") && reason.contains("ended with status 137"), "{reason}");
    assert_eq!((ended["attempt"].as_u64(), killed.len()), (Some(0), 2), "{ended}");
    assert_eq!(network.supervisors(), 0, "a pod outlived the job");
    let spent = network.balances().conserved_since(&before);
    assert!(spent < ended["escrow"].as_u64().unwrap() / 10, "{spent} were spent");
    assert_eq!(network.orders_of(&network.told.renter_wallet), 0, "the order is still open");
}

/// Whether a process is a pod's first program, as its command line says.
fn is_program(process: &Process) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    line.starts_with(b"/opt/venv/bin/python\0-m\0atoll.pod")
}

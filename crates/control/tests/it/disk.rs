//! The disk of a whole node is full, store and object store: nothing is acknowledged that is not there, refusals say why,
//! and it goes on by itself when there is room.
//!
//! The test starts this same test binary again, on a small file system of its own: a tmpfs in a new mount namespace.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_api::client::ClientError;
use atoll_api::receipt::Receipt;
use atoll_control::app::job::event;
use atoll_control::control::Control;
use atoll_domain::id::JobId;
use atoll_domain::job::JobState;
use atoll_domain::key::Digest;

use crate::whole::{Case, Net, PURSE, until};

/// Names the small file system to the process that fills it.
const DISK: &str = "ATOLL_NODE_FULL_DISK";
/// Bytes of it: a store's log grows to some 4 MiB before it is copied into the file.
const BYTES: &str = "24m";
/// How many jobs may still find room on a full disk: what they write is little.
const TRIES: u8 = 3;

/// Takes up what is left of a disk.
fn fill(ballast: &Path) {
    let mut file = File::options().append(true).create(true).open(ballast).unwrap();
    let mut piece = 1 << 20;
    while piece > 0 {
        if file.write_all(&vec![7; piece]).is_err() {
            piece /= 2;
        }
    }
}

/// Has the store write until it says that it is full; what it acknowledged.
async fn write(control: &Control, job: JobId) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for length in [100_000, 1_000, 1] {
        loop {
            let message = format!("{} {}", acknowledged.len(), "x".repeat(length));
            match control.store.events_add(job, &[event(control.now(), "note", message.clone(), &[])]).await {
                Ok(()) => acknowledged.push(message),
                Err(error) => {
                    assert!(error.is_full(), "{error}");
                    break;
                }
            }
        }
    }
    acknowledged
}

fn check_refusal(refused: &ClientError) {
    assert_eq!(refused.code(), Some("disk_full"), "{refused}");
}

/// The process with the small disk. Only started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "is the other process of the test in this file"]
async fn victim() {
    let disk = PathBuf::from(std::env::var(DISK).expect("started by the test of this file"));
    let net = Net::start().await;
    net.place(1, &disk);
    let operator = net.operator(1, "0/1").await;
    let mut hands = Vec::new();
    for n in 1..=TRIES + 2 {
        hands.push(net.hand(n).await);
    }
    hands.iter().for_each(|hand| hand.link(&operator));
    Case::linked(&operator, &hands).await;
    let (client, control) = (operator.client(&net).await, operator.control());
    let submit = async || {
        let draft = net.draft(&operator, 1, 3600).await;
        net.try_submit(&client, &draft, 1).await.map(|job| (job.job, draft))
    };
    let mut jobs = vec![submit().await.unwrap()];
    let first = jobs[0].0;
    operator.wait_state(first, JobState::Running).await;

    let ballast = disk.join("ballast");
    let mut acknowledged = Vec::new();
    let mut refused = None;
    // What the store's files have of the disk they may use on: a job more may find room there.
    for _ in 0..=TRIES {
        fill(&ballast);
        acknowledged.extend(write(control, first).await);
        match submit().await {
            Ok(job) => jobs.push(job),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    check_refusal(&refused.expect("the disk never was full"));
    let large = vec![7; 300_000];
    check_refusal(&client.put_blob(Digest::of(&large), large.clone()).await.unwrap_err());
    assert_eq!(client.job(first).await.unwrap().state, JobState::Running, "what is written can be read");

    std::fs::remove_file(&ballast).unwrap();
    until("an upload is taken again", || async {
        client.put_blob(Digest::of(&large), large.clone()).await.inspect_err(check_refusal).is_ok()
    })
    .await;
    jobs.push(submit().await.unwrap());
    for (job, _) in &jobs {
        let row = operator.wait("it runs", *job, |row| row.now.state == JobState::Running).await;
        assert_eq!((row.now.attempt, row.now.gone.len()), (1, 0), "its pod was waited for");
    }
    until("all heads know their command", || async { net.machines.submissions().len() == jobs.len() }).await;
    net.machines.finish();
    let mut spent = 0;
    for (job, draft) in &jobs {
        operator.wait_state(*job, JobState::Succeeded).await;
        assert!(net.order(&draft.order).await.is_none(), "the order is closed");
        let receipt: Receipt = serde_json::from_value(client.receipt(*job).await.unwrap()).unwrap();
        let money = receipt.open().unwrap().money;
        spent += money.escrow.0 - money.refunded.0;
    }
    assert_eq!(PURSE - net.balance(net.renters()).await, spent, "only what was acknowledged was charged");
    assert_eq!(net.tokens_everywhere().await, net.supply().await, "no token is nowhere");
    let mut told: Vec<String> = Vec::new();
    for (_, event) in control.store.events(first, 0, u32::MAX).await.unwrap() {
        if event.kind == "note" {
            told.push(event.message);
        }
    }
    assert!(told == acknowledged, "{} notes are there of {}", told.len(), acknowledged.len());
}

#[test]
fn a_node_whose_disk_is_full_says_so_loses_nothing_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={BYTES} tmpfs \"$1\" && shift && exec \"$@\"");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "/bin/sh", "-c", &script, "sh"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disk::victim", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DISK, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

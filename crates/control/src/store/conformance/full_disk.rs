//! A disk that is full or fails: nothing is acknowledged that is not there, the store says what to do, and goes on by
//! itself when it can.
//!
//! The tests start this same test binary again: on a small file system of its own (a tmpfs in a new mount namespace), or
//! with a bound on the size of files, beyond which the operating system fails every write.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::make::{accepted, event};
use crate::store::{Store, StoreError, open, sqlite_inline};

/// Names the small file system to the process that fills it.
const FOLDER: &str = "ATOLL_STORE_FULL_DISK";
/// Bytes of it. A log grows to some 4 MiB before it is copied into the file.
const DISK: &str = "12m";
/// What is deleted to make room again.
const BALLAST: usize = 4 << 20;
/// More writes than it holds.
const WRITES: usize = 10_000;

/// The process on the small file system. Only started by the test below.
#[tokio::test]
#[ignore = "is the other process of the test in this file"]
async fn victim() {
    let folder = PathBuf::from(std::env::var(FOLDER).expect("started by the test of this file"));
    let url = format!("sqlite:{}", folder.join("shared.db").display());
    let written = fill(&folder, open(&url).await.unwrap()).await;
    // A new process would find the same.
    let again = open(&url).await.unwrap();
    assert_eq!(messages(again.as_ref(), &again.jobs_open().await.unwrap()[0]).await, written);
    drop(again);
    for file in ["shared.db", "shared.db-wal", "shared.db-shm"] {
        std::fs::remove_file(folder.join(file)).ok();
    }
    fill(&folder, sqlite_inline(&folder.join("alone.db"), None).unwrap()).await;
}

/// Writes until the disk is full, makes room, writes again; what was acknowledged.
async fn fill(folder: &Path, store: Arc<dyn Store>) -> Vec<String> {
    let ballast = folder.join("ballast");
    let (_, job) = accepted(store.as_ref(), 1).await;
    std::fs::write(&ballast, vec![7; BALLAST]).unwrap();
    let long = "x".repeat(2000);
    let mut acknowledged = Vec::new();
    let mut refused = None;
    for n in 0..WRITES {
        let message = format!("{n} {long}");
        match store.events_add(job.id, &[event(&message)]).await {
            Ok(()) => acknowledged.push(message),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the disk never was full");
    assert!(acknowledged.len() > 10, "{} writes fitted", acknowledged.len());
    let words = refused.to_string();
    assert!(
        matches!(refused, StoreError::Engine(_)) && words.contains("is full") && words.contains("make room"),
        "{words}"
    );
    // It stays full, and reads go on.
    store.events_add(job.id, &[event(&long.repeat(100))]).await.unwrap_err();
    assert_eq!(messages(store.as_ref(), &job).await, acknowledged);
    std::fs::remove_file(&ballast).unwrap();
    for n in 0..5 {
        let message = format!("again {n}");
        store.events_add(job.id, &[event(&message)]).await.unwrap();
        acknowledged.push(message);
    }
    assert_eq!(messages(store.as_ref(), &job).await, acknowledged);
    acknowledged
}

/// The process whose files cannot grow. Only started by the test below.
#[tokio::test]
#[ignore = "is the other process of the test in this file"]
async fn bounded_victim() {
    let folder = PathBuf::from(std::env::var(FOLDER).expect("started by the test of this file"));
    let url = format!("sqlite:{}", folder.join("shared.db").display());
    fail(open(&url).await.unwrap()).await;
    bound_files("6291456");
    fail(sqlite_inline(&folder.join("alone.db"), None).unwrap()).await;
}

/// Bounds the files of this process, in bytes.
fn bound_files(bytes: &str) {
    let own = std::process::id().to_string();
    let done = Command::new("prlimit").args(["--pid", &own, &format!("--fsize={bytes}:")]).status().unwrap();
    assert!(done.success());
}

/// Writes until nothing goes through, lifts the bound, writes again.
async fn fail(store: Arc<dyn Store>) {
    let (_, job) = accepted(store.as_ref(), 1).await;
    let long = "x".repeat(2000);
    let (mut acknowledged, mut unknown, mut refused) = (Vec::new(), Vec::new(), 0);
    for n in 0..WRITES {
        let message = format!("{n} {long}");
        match store.events_add(job.id, &[event(&message)]).await {
            Ok(()) => acknowledged.push(message),
            Err(error) => {
                let words = error.to_string();
                assert!(words.contains("disk"), "{words}");
                refused += 1;
                if words.contains("while committing") {
                    unknown.push(message);
                }
            }
        }
        if refused == 20 {
            break;
        }
    }
    assert!(refused == 20 && acknowledged.len() > 100, "{refused} of {}", acknowledged.len());
    bound_files("unlimited");
    for n in 0..5 {
        let message = format!("again {n}");
        store.events_add(job.id, &[event(&message)]).await.unwrap();
        acknowledged.push(message);
    }
    let mut there = messages(store.as_ref(), &job).await;
    there.retain(|message| !unknown.contains(message));
    assert_eq!(there.len(), acknowledged.len());
    assert!(there == acknowledged);
}

async fn messages(store: &dyn Store, job: &crate::store::rows::Job) -> Vec<String> {
    let events = store.events(job.id, 1, u32::MAX).await.unwrap();
    events.into_iter().map(|(_, event)| event.message).collect()
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let module = module_path!().split_once("::").unwrap().1;
    let script = format!("mount -t tmpfs -o size={DISK} tmpfs \"$1\" && shift && exec \"$@\"");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "/bin/sh", "-c", &script, "sh"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::victim"), "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_disk_that_fails_is_said_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let module = module_path!().split_once("::").unwrap().1;
    // Without the trap, the signal that comes with such a write would end the process.
    let output = Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; exec prlimit --fsize=6291456: \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::bounded_victim"), "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

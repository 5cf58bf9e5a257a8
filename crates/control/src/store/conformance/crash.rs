//! A process that is killed: what it acknowledged stays, what it had begun does not.
//!
//! The test starts this same test binary again as the process to kill. Its file system survives; that every commit
//! waits for the disk is SQLite's own promise under `synchronous = full`, which [`durable`] checks is set.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use super::Fresh;
use super::make::{NOW, accepted, command, event, job_id, job_now, later, pod, submission, user};
use crate::store::rows::{Command as WorkerCommand, NewJob, Pod};
use crate::store::sql::{Engine as _, Isolation, Value};
use crate::store::sqlite::Sqlite;
use crate::store::{Accepted, open};

/// Names the store to the process that is to be killed.
const URL: &str = "ATOLL_STORE_CRASH_URL";
/// What that process does.
const ROLE: &str = "ATOLL_STORE_CRASH_ROLE";
/// Pods per transaction: enough that a kill at any moment is likely to fall into one.
const PODS: u16 = 60;

fn start(at: &Fresh, role: &str) -> (Child, impl Iterator<Item = String>) {
    let module = module_path!().split_once("::").unwrap().1;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::victim"), "--ignored", "--nocapture", "--test-threads=1"])
        .env(URL, &at.url)
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The test harness's own lines come in between, the first of ours perhaps behind `test … `.
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (child, lines.filter_map(|line| line.split_once("said: ").map(|(_, said)| said.to_owned())))
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "said: {what}").and_then(|()| out.flush()).unwrap();
}

/// The process that is killed. Only started by the tests below.
#[tokio::test]
#[ignore = "is the other process of the tests in this file"]
async fn victim() {
    let url = std::env::var(URL).expect("started by a test of this file");
    match std::env::var(ROLE).unwrap().as_str() {
        "stops half way" => stop_half_way(&url).await,
        _ => write_on(&url).await,
    }
}

async fn stop_half_way(url: &str) {
    let engine = Sqlite::open(url.strip_prefix("sqlite:").unwrap().into()).await.unwrap();
    engine
        .write::<(), ()>(Isolation::Serializable, (), |(), tx| {
            Box::pin(async move {
                let add = "insert into users (id, name, wallet, created) values ($1, $1, $2, 1)";
                for n in 0..2000 {
                    tx.execute(add, &[Value::Text(format!("half-{n}")), Value::Bytes(vec![7; 4000])]).await?;
                }
                say("half");
                loop {
                    std::thread::park();
                }
            })
        })
        .await
        .unwrap();
}

fn parts(n: u64, new: &NewJob) -> (Vec<Pod>, Vec<WorkerCommand>) {
    let pods: Vec<_> = (0..PODS).map(|index| pod(10_000 * (n + 1) + u64::from(index), &new.job, index)).collect();
    let commands = pods.iter().zip(10_000 * (n + 1)..).map(|(pod, m)| command(m, pod)).collect();
    (pods, commands)
}

async fn write_on(url: &str) {
    let store = open(url).await.unwrap();
    let user = user(1);
    store.user_add(&user).await.unwrap();
    for n in 0_u64.. {
        let new = submission(n, &user);
        assert_eq!(store.job_accept(&new, NOW).await.unwrap(), Accepted::New);
        say(&format!("job {n}"));
        let (pods, commands) = parts(n, &new);
        store.pods_add(new.job.id, 1, &job_now(), &pods, &commands, &[event("pods")]).await.unwrap();
        say(&format!("pods {n}"));
    }
}

#[tokio::test]
async fn a_kill_in_mid_transaction_leaves_nothing_of_it() {
    let at = Fresh::sqlite();
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let (mut child, mut said) = start(&at, "stops half way");
    assert_eq!(said.next().as_deref(), Some("half"));
    child.kill().unwrap();
    child.wait().unwrap();
    // A handle that was open all the while, and a new one.
    for store in [store, at.open().await] {
        assert!(store.user_by_name("half-0").await.unwrap().is_none());
        assert_eq!(store.job(job.id).await.unwrap(), Some(job.clone()));
    }
    // Its lock is gone with it.
    accepted(at.open().await.as_ref(), 2).await;
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_and_whole() {
    for kill_after in [1, 2, 3, 5, 8, 13, 21, 40] {
        let at = Fresh::sqlite();
        let (mut child, mut said) = start(&at, "writes on");
        let mut last = String::new();
        for _ in 0..kill_after {
            last = said.next().expect("the other process ended by itself");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it could still say before the signal came counts as well.
        last = said.last().unwrap_or(last);
        let (kind, n) = last.split_once(' ').unwrap();
        check(&at, n.parse().unwrap(), kind == "pods").await;
    }
}

/// Whether all up to the last acknowledged write is there, and everything there is whole.
async fn check(at: &Fresh, last_job: u64, with_pods: bool) {
    let store = at.open().await;
    let user = user(1);
    let count = store.jobs_open().await.unwrap().len() as u64;
    assert!(count == last_job + 1 || count == last_job + 2, "{count} jobs, {last_job} was the last acknowledged");
    for n in 0..count {
        let new = submission(n, &user);
        let (pods, commands) = parts(n, &new);
        let there = store.pods_of(new.job.id).await.unwrap();
        let must = n < last_job || (n == last_job && with_pods);
        assert!(there == pods || (!must && there.is_empty()), "{} of {PODS} pods of job {n}", there.len());
        let has_pods = !there.is_empty();
        let job = store.job(new.job.id).await.unwrap().unwrap();
        assert_eq!(job.generation, if has_pods { 2 } else { 1 });
        assert_eq!(store.events(job.id, 0, 10).await.unwrap().len(), if has_pods { 2 } else { 1 });
        for command in &commands {
            assert_eq!(store.command(command.id).await.unwrap().is_some(), has_pods);
        }
        // Its nonce and its idempotency key were written with it.
        assert!(!store.nonce_use(&new.seal.0, &new.seal.1, NOW, later(1)).await.unwrap());
        assert_eq!(store.job_accept(&new, NOW).await.unwrap(), Accepted::Again(job.id));
    }
    let next = submission(count, &user);
    assert_eq!(store.job_accept(&next, NOW).await.unwrap(), Accepted::New);
    assert_eq!(next.job.id, job_id(count));
}

#[tokio::test]
async fn two_handles_on_one_file_see_each_other() {
    let at = Fresh::sqlite();
    let (a, b) = (at.open().await, at.open().await);
    let (_, job) = accepted(a.as_ref(), 1).await;
    assert_eq!(b.job(job.id).await.unwrap(), Some(job.clone()));
    b.job_change(job.id, 1, &job_now(), &[]).await.unwrap();
    super::assert_conflict(a.job_change(job.id, 1, &job_now(), &[]).await, "job");
    a.events_add(job.id, &[event("a")]).await.unwrap();
    b.events_add(job.id, &[event("b")]).await.unwrap();
    assert_eq!(a.events(job.id, 1, 9).await.unwrap(), b.events(job.id, 1, 9).await.unwrap());
    assert_eq!(a.events(job.id, 2, 9).await.unwrap(), [(3, event("b"))]);
}

#[tokio::test]
async fn durable() {
    let at = Fresh::sqlite();
    let engine = Sqlite::open(at.url.strip_prefix("sqlite:").unwrap().into()).await.unwrap();
    // 2 is `full`.
    for (pragma, expected) in
        [("synchronous", Value::Int(2)), ("foreign_keys", Value::Int(1)), ("journal_mode", Value::Text("wal".into()))]
    {
        let rows = engine
            .write(Isolation::Serializable, format!("pragma {pragma}"), |sql, tx| {
                Box::pin(async move { tx.query(sql, &[]).await })
            })
            .await
            .unwrap();
        assert_eq!(rows[0].0, [expected], "{pragma}");
    }
}

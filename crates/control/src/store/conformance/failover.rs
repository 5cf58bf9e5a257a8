//! Writers that go on while their database dies: nothing that was acknowledged is lost, nothing is there twice.
//!
//! The figures of `cargo run --example store_failover` and the tests of the same are taken here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::Notify;

use super::make::{accepted, event};
use super::pair::Pair;
use crate::store::{Store, open};

/// Nodes, and writers of each.
const NODES: u64 = 2;
const WRITERS: u64 = 4;

/// What happens to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Killed, and the standby takes its place.
    Killed,
    /// It hangs, and the standby takes its place.
    Hung,
    /// Killed, and started again.
    Restarted,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// From the fault to the answer to a write that began after it, seconds.
    pub(crate) failover_s: f64,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Those of them that are not there.
    pub(crate) lost: usize,
    /// Writes that are there more than once.
    pub(crate) doubled: usize,
    /// Writes that ended in an error.
    pub(crate) failed: usize,
}

/// Shared by the writers.
#[derive(Debug, Default)]
struct Course {
    acknowledged: AtomicU32,
    over: AtomicBool,
    struck: std::sync::OnceLock<Instant>,
    back: std::sync::OnceLock<Instant>,
    returned: Notify,
}

/// Writes until it is over; what was acknowledged, and how often there was an error.
async fn write(store: Arc<dyn Store>, job: atoll_domain::id::JobId, course: Arc<Course>) -> (Vec<String>, usize) {
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    for n in 0_u32.. {
        if course.over.load(Ordering::Relaxed) {
            break;
        }
        let (message, begun) = (format!("{job} {n}"), Instant::now());
        match store.events_add(job, &[event(&message)]).await {
            Ok(()) => {
                acknowledged.push(message);
                course.acknowledged.fetch_add(1, Ordering::Relaxed);
                if course.struck.get().is_some_and(|struck| begun > *struck) && course.back.set(Instant::now()).is_ok()
                {
                    course.returned.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a write failed");
                failed += 1;
            }
        }
    }
    (acknowledged, failed)
}

/// Has eight writers of two nodes write until `writes` are acknowledged, with the fault after half of them.
///
/// # Errors
/// When the servers do not do what they are told, or do not come back within a minute.
pub(crate) async fn measure(pair: &mut Pair, fault: Fault, writes: u32) -> Result<Figures> {
    let (course, mut writers, mut jobs) = (Arc::new(Course::default()), Vec::new(), Vec::new());
    for node in 0..NODES {
        let store = open(&pair.url()).await?;
        for writer in 0..WRITERS {
            let (_, job) = accepted(store.as_ref(), node * WRITERS + writer).await;
            jobs.push(job.id);
            writers.push(tokio::spawn(write(Arc::clone(&store), job.id, Arc::clone(&course))));
        }
    }
    let reach = async |wanted: u32| {
        while course.acknowledged.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let minutes = |n: u64| Duration::from_secs(60 * n);
    tokio::time::timeout(minutes(5), reach(writes / 2)).await.context("too slow before the fault")?;
    match fault {
        Fault::Killed | Fault::Restarted => pair.kill_primary()?,
        Fault::Hung => pair.hang_primary()?,
    }
    let struck = Instant::now();
    course.struck.set(struck).ok();
    match fault {
        Fault::Killed | Fault::Hung => pair.promote().await?,
        Fault::Restarted => tokio::task::block_in_place(|| pair.start_primary())?,
    }
    tokio::time::timeout(minutes(1), course.returned.notified()).await.context("no write came through again")?;
    tokio::time::timeout(minutes(5), reach(writes)).await.context("too slow after the fault")?;
    course.over.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut failed) = (BTreeSet::new(), 0);
    for writer in writers {
        let (written, errors) = writer.await?;
        acknowledged.extend(written);
        failed += errors;
    }
    let store = open(&pair.url()).await?;
    let mut there: BTreeMap<String, usize> = BTreeMap::new();
    for job in jobs {
        for (_, event) in store.events(job, 0, u32::MAX).await? {
            *there.entry(event.message).or_default() += 1;
        }
    }
    let back = course.back.get().context("it came back")?;
    // Each job's first event is not a writer's, and has the same words for all of them.
    let doubled = there.iter().filter(|(message, count)| **count > 1 && acknowledged_like(message)).count();
    Ok(Figures {
        failover_s: back.duration_since(struck).as_secs_f64(),
        acknowledged: acknowledged.len(),
        lost: acknowledged.iter().filter(|message| !there.contains_key(*message)).count(),
        doubled,
        failed,
    })
}

/// Whether these are the words of a writer's event.
fn acknowledged_like(message: &str) -> bool {
    message
        .split_once(' ')
        .is_some_and(|(job, n)| job.parse::<atoll_domain::id::JobId>().is_ok() && n.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn survives(fault: Fault, writes: u32) {
        let mut pair = Pair::start().await.unwrap();
        let figures = measure(&mut pair, fault, writes).await.unwrap();
        let Figures { failover_s, acknowledged, failed, .. } = figures;
        println!("{fault:?}: back after {failover_s:.3} s; {acknowledged} writes acknowledged, {failed} failed");
        assert!(figures.acknowledged >= writes as usize, "{figures:?}");
        assert_eq!((figures.lost, figures.doubled), (0, 0), "{figures:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_standby_takes_the_place_of_a_killed_primary() {
        survives(Fault::Killed, 10_000).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_standby_takes_the_place_of_a_primary_that_hangs() {
        survives(Fault::Hung, 2_000).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nodes_work_on_over_a_server_that_was_killed_and_started_again() {
        survives(Fault::Restarted, 2_000).await;
    }
}

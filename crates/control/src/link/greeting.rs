//! Looks up workers that link, many at once: ten thousand that come together are some hundred questions to the store, not
//! forty thousand.
//!
//! Whoever has the turn asks for all that wait, and those that come meanwhile are asked for with the next turn. A worker is
//! always looked up after it came, so that nothing written before is missed.

use std::collections::VecDeque;
use std::sync::Mutex;

use anyhow::anyhow;
use atoll_domain::id::WorkerId;
use tokio::sync::oneshot;

use super::lock;
use crate::store::Store;
use crate::store::rows::Known;

/// Workers looked up at once: some hundred KiB of facts.
const AT_ONCE: usize = 256;

type Answer = Result<Known, String>;

/// Workers that wait to be looked up.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    waiting: Mutex<VecDeque<(WorkerId, oneshot::Sender<Answer>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl Greeting {
    /// What the store has of a worker that is here now.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn known(&self, store: &dyn Store, worker: WorkerId) -> anyhow::Result<Known> {
        loop {
            let (told, mut answer) = oneshot::channel();
            lock(&self.waiting).push_back((worker, told));
            tokio::select! {
                biased;
                said = &mut answer => if let Ok(said) = said {
                    return said.map_err(|error| anyhow!(error));
                },
                _turn = self.turn.lock() => loop {
                    match answer.try_recv() {
                        Ok(said) => return said.map_err(|error| anyhow!(error)),
                        Err(oneshot::error::TryRecvError::Empty) => self.ask(store).await,
                        Err(oneshot::error::TryRecvError::Closed) => break,
                    }
                },
            }
            // Whoever asked for this one went away in the middle of it.
        }
    }

    /// Asks for those that have waited longest.
    async fn ask(&self, store: &dyn Store) {
        let some: Vec<_> = {
            let mut waiting = lock(&self.waiting);
            let count = waiting.len().min(AT_ONCE);
            waiting.drain(..count).collect()
        };
        let workers: Vec<WorkerId> = some.iter().map(|(worker, _)| *worker).collect();
        let mut known = store.known(&workers).await.map_err(|error| error.to_string());
        for (worker, told) in some {
            let answer = match &mut known {
                // One that came twice is told twice.
                Ok(known) => Ok(known.get(&worker).cloned().unwrap_or_default()),
                Err(error) => Err(error.clone()),
            };
            // Nobody listens when its connection has ended.
            let _ = told.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everybody_is_told_even_when_whoever_asks_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("control.db").display());
        let store = crate::store::open(&url).await.unwrap();
        let greeting = Arc::new(Greeting::default());
        let ask = |n: u16| {
            let (greeting, store) = (Arc::clone(&greeting), Arc::clone(&store));
            let worker = WorkerId::from_random(u128::from(n).to_le_bytes());
            atoll_life::spawn(async move {
                assert_eq!(greeting.known(&*store, worker).await.unwrap(), Known::default());
            })
        };
        let asked: Vec<_> = (0..2_000).map(ask).collect();
        for gone in asked.iter().step_by(3) {
            gone.abort();
        }
        for (n, asked) in asked.into_iter().enumerate() {
            let told = tokio::time::timeout(std::time::Duration::from_secs(30), asked).await.expect("it is told");
            match told {
                Ok(()) => {}
                Err(gone) => assert!(gone.is_cancelled() && n % 3 == 0),
            }
        }
        assert!(lock(&greeting.waiting).is_empty());
    }
}

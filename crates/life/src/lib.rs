//! Tasks that end together.
//!
//! A process that is killed takes all its tasks with it, each at the await point where it stands. Many nodes in one
//! process, as the simulation has them, need the same: a [`Life`] covers a future and everything that it spawns, and
//! [`Life::end`] drops it all. Control plane and worker spawn by [`spawn`] and [`bound`] alone; where no life covers the
//! caller, as in a server, both do what tokio does and cost nothing more.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

tokio::task_local! {
    static CURRENT: Life;
}

/// What covers a future and the tasks that come from it. Clones are the same life.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<Inner>);

/// Not a `watch`: that wakes its waiters in random order, and the order in which tasks are dropped shows.
#[derive(Debug, Default)]
struct Inner {
    has_ended: AtomicBool,
    ended: Notify,
    /// Futures that are not dropped yet.
    covered: AtomicUsize,
    bare: Notify,
    /// How often a covered future is still polled until this ends by itself; 0: for ever.
    fuse: AtomicU64,
}

impl Inner {
    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Counts a poll; true when it is the one that does not happen any more.
    fn burns_out(&self) -> bool {
        let left = self.fuse.load(Ordering::Acquire);
        if left == 0 || self.fuse.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        self.end();
        true
    }
}

/// Counts a covered future; dropped after it.
struct Covered<'a>(&'a Inner);

impl<'a> Covered<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.covered.fetch_add(1, Ordering::AcqRel);
        Self(inner)
    }
}

impl Drop for Covered<'_> {
    fn drop(&mut self) {
        if self.0.covered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.bare.notify_waiters();
        }
    }
}

/// Waits until `holds`, looking whenever `notify` says that something changed. Those who wait are woken in order, which
/// those of a `tokio::sync::watch` are not.
pub async fn until(notify: &Notify, holds: impl Fn() -> bool) {
    loop {
        let mut notified = pin!(notify.notified());
        notified.as_mut().enable();
        if holds() {
            return;
        }
        notified.await;
    }
}

impl Life {
    /// Runs a future under this life; none when the life ended first. The future is then dropped where it stood.
    pub async fn cover<F: Future>(&self, future: F) -> Option<F::Output> {
        let _counted = Covered::new(&self.0);
        let covered = CURRENT.scope(self.clone(), future);
        tokio::select! {
            biased;
            () = self.ended() => None,
            () = poll_fn(|_| if self.0.burns_out() { Poll::Ready(()) } else { Poll::Pending }) => None,
            output = covered => Some(output),
        }
    }

    /// Ends it: returns when every future under it has been dropped. Not to be called from under it.
    pub async fn end(&self) {
        self.0.end();
        until(&self.0.bare, || self.0.covered.load(Ordering::Acquire) == 0).await;
    }

    /// Ends it when its futures together have been polled so often: wherever each of them then stands. Like a process that
    /// is killed not while it waits, but while it works.
    pub fn end_after(&self, polls: u64) {
        self.0.fuse.store(polls.max(1), Ordering::Release);
    }

    /// Waits until it ends.
    pub async fn ended(&self) {
        until(&self.0.ended, || self.is_ended()).await;
    }

    /// Whether it was ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Acquire)
    }
}

/// The life that covers the caller, if any.
#[must_use]
pub fn current() -> Option<Life> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Binds a future to the life of whoever calls this now, wherever it is polled later.
pub fn bound<F: Future<Output = ()>>(future: F) -> impl Future<Output = ()> {
    within(current(), future)
}

/// Binds a future to a life, if there is one.
pub async fn within<F: Future<Output = ()>>(life: Option<Life>, future: F) {
    match life {
        Some(life) => drop(life.cover(future).await),
        None => future.await,
    }
}

/// As `tokio::spawn`, for a task that ends with the life of whoever spawns it.
pub fn spawn<F>(future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(bound(future))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Counts the futures that hold one and are not dropped.
    struct Held(Arc<AtomicUsize>);

    impl Held {
        fn new(count: &Arc<AtomicUsize>) -> Self {
            count.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(count))
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits for ever, with a child that does the same, and so on.
    fn generations(depth: usize, count: Arc<AtomicUsize>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let _held = Held::new(&count);
            if depth > 0 {
                spawn(generations(depth - 1, Arc::clone(&count)));
            }
            std::future::pending::<()>().await;
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_ends_with_every_generation_of_its_tasks_and_no_other() {
        let (ours, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (life, other) = (Life::default(), Life::default());
        let first = tokio::spawn({
            let (life, work) = (life.clone(), generations(5, Arc::clone(&ours)));
            async move { life.cover(work).await }
        });
        tokio::spawn({
            let (other, work) = (other.clone(), generations(2, Arc::clone(&others)));
            async move { other.cover(work).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!((ours.load(Ordering::Relaxed), others.load(Ordering::Relaxed)), (6, 3));
        life.end().await;
        assert_eq!((ours.load(Ordering::Relaxed), others.load(Ordering::Relaxed)), (0, 3));
        assert!(first.await.unwrap().is_none() && life.is_ended() && !other.is_ended());
    }

    #[tokio::test]
    async fn a_life_ends_at_the_poll_it_was_told_and_with_it_whoever_waits() {
        let life = Life::default();
        let (steps, waiting) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        tokio::spawn({
            let (life, work) = (life.clone(), generations(0, Arc::clone(&waiting)));
            async move { life.cover(work).await }
        });
        tokio::task::yield_now().await;
        life.end_after(4);
        let counted = Arc::clone(&steps);
        let walks = life.cover(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        assert_eq!((walks.await, waiting.load(Ordering::Relaxed)), (None::<()>, 1));
        life.end().await;
        assert_eq!((steps.load(Ordering::Relaxed), waiting.load(Ordering::Relaxed)), (3, 0));
    }

    #[tokio::test]
    async fn without_a_life_everything_is_as_usual() {
        assert!(current().is_none());
        let (done, told) = tokio::sync::oneshot::channel();
        spawn(async move { done.send(7).unwrap() }).await.unwrap();
        assert_eq!(told.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_future_handed_elsewhere_keeps_its_life() {
        let life = Life::default();
        let count = Arc::new(AtomicUsize::new(0));
        let handed = life.cover(async { Some(bound(generations(0, Arc::clone(&count)))) }).await.flatten().unwrap();
        let elsewhere = tokio::spawn(handed);
        tokio::task::yield_now().await;
        assert_eq!(count.load(Ordering::Relaxed), 1);
        life.end().await;
        elsewhere.await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}

//! Time: the world's true time, and every machine's own clock, which drifts and jumps.
//!
//! True time is tokio's, which is paused and leaps to the next timer. A machine's wall clock starts some way off, runs
//! a little fast or slow, and can be set. What waits, waits on true time: a monotonic clock that drifts by parts per
//! million makes no difference that a test could see.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_domain::time::UnixMs;
use tokio::time::Instant;

/// The true time at which every world begins: 2026-01-01.
pub const BEGINNING: UnixMs = UnixMs(1_767_225_600_000);

/// The world's true time. Clones are the same.
#[derive(Clone, Debug)]
pub struct TrueTime {
    began: Instant,
    /// How far all clocks together have leapt: time in which nobody acted.
    leapt_ms: Arc<AtomicI64>,
}

impl TrueTime {
    /// Begins now. Only inside a runtime whose clock is paused.
    #[must_use]
    pub fn begin() -> Self {
        Self { began: Instant::now(), leapt_ms: Arc::default() }
    }

    /// Since the world began, without the leaps.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The same in milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        let since = self.elapsed_ms().saturating_add(self.leapt_ms.load(Ordering::Relaxed));
        UnixMs(BEGINNING.0.saturating_add_signed(since))
    }

    /// Lets all clocks leap: hours pass in which everything stands still.
    pub fn leap(&self, by: Duration) {
        self.leapt_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

/// One machine's wall clock. Clones are the same.
#[derive(Clone, Debug)]
pub struct Clock {
    time: TrueTime,
    error: Arc<Mutex<Error>>,
}

/// How a clock differs from true time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Error {
    /// How far off it is, in milliseconds.
    pub offset_ms: i64,
    /// How much it gains, in parts per million.
    pub drift_ppm: i64,
}

impl Clock {
    /// A clock with an error.
    #[must_use]
    pub fn new(time: &TrueTime, error: Error) -> Self {
        Self { time: time.clone(), error: Arc::new(Mutex::new(error)) }
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        let Error { offset_ms, drift_ppm } = *self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = self.time.elapsed_ms().saturating_mul(drift_ppm) / 1_000_000;
        UnixMs(self.time.now().0.saturating_add_signed(offset_ms.saturating_add(gained)))
    }

    /// What a clock of the same machine shows that nobody sets.
    #[must_use]
    pub fn steady(&self) -> UnixMs {
        self.time.now()
    }

    /// Sets it off by so much.
    pub fn jump(&self, by_ms: i64) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.offset_ms = error.offset_ms.saturating_add(by_ms);
    }

    /// Sets it right; it goes on gaining or losing from there.
    pub fn set_right(&self) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.offset_ms = -(self.time.elapsed_ms().saturating_mul(error.drift_ppm) / 1_000_000);
    }
}

impl atoll_chain::local::WallClock for Clock {
    fn unix_ms(&self) -> u64 {
        self.now().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clocks_drift_jump_and_are_set_right() {
        let time = TrueTime::begin();
        let clock = Clock::new(&time, Error { offset_ms: -500, drift_ppm: 100 });
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(time.now().0, BEGINNING.0 + 100_000);
        assert_eq!(clock.now().0, BEGINNING.0 + 100_000 - 500 + 10);
        clock.jump(600_000);
        time.leap(Duration::from_secs(3600));
        assert_eq!(clock.now().0, BEGINNING.0 + 3_700_000 - 500 + 10 + 600_000);
        clock.set_right();
        assert_eq!(clock.now(), time.now());
        assert_eq!(time.elapsed(), Duration::from_secs(100));
    }
}

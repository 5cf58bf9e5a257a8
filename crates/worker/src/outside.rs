//! Time and randomness, brought in from outside so that a whole worker can run on fake ones.
//!
//! Waiting is tokio's, whose clock can be paused; what is written down or signed uses [`Outside::now`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atoll_domain::time::UnixMs;

/// Wall clock and randomness.
pub trait Outside: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> UnixMs;
    /// Fills `bytes` with randomness that is good enough for keys.
    fn fill(&self, bytes: &mut [u8]);
}

/// Time and randomness as every part holds them.
pub type SharedOutside = Arc<dyn Outside>;

/// The machine's own clock and randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Outside for Machine {
    #[expect(clippy::disallowed_methods, reason = "this is where time comes in")]
    fn now(&self) -> UnixMs {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        UnixMs(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is where randomness comes in")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel's randomness cannot fail once the machine is up");
    }
}

/// A length drawn evenly from zero to `most`.
#[must_use]
pub fn jitter(outside: &dyn Outside, most: Duration) -> Duration {
    let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(number(outside) % most_ms.saturating_add(1))
}

/// A number drawn evenly from those below `bound`; 0 when there are none.
#[must_use]
pub fn below(outside: &dyn Outside, bound: usize) -> usize {
    let drawn = number(outside) % (bound as u64).max(1);
    usize::try_from(drawn).unwrap_or(0)
}

fn number(outside: &dyn Outside) -> u64 {
    let mut bytes = [0; 8];
    outside.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// What tests bring: a clock that stands still and a counter for randomness.
#[cfg(test)]
pub(crate) mod still {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Outside, UnixMs};

    #[derive(Debug)]
    pub(crate) struct Still(pub(crate) u64, AtomicU64);

    impl Still {
        pub(crate) fn at(unix_ms: u64) -> Self {
            Self(unix_ms, AtomicU64::new(1))
        }
    }

    impl Outside for Still {
        fn now(&self) -> UnixMs {
            UnixMs(self.0)
        }

        fn fill(&self, bytes: &mut [u8]) {
            let turn = self.1.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = turn[at % 8] ^ u8::try_from(at % 251).unwrap();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::still::Still;
    use super::*;

    #[test]
    fn jitter_stays_in_its_bounds() {
        let outside = Still::at(0);
        let drawn: Vec<Duration> = (0..100).map(|_| jitter(&outside, Duration::from_millis(10))).collect();
        assert!(drawn.iter().all(|length| *length <= Duration::from_millis(10)));
        assert!(drawn.iter().any(|length| *length != drawn[0]));
        assert_eq!(jitter(&outside, Duration::ZERO), Duration::ZERO);
    }
}

//! What time it is, for chain, nodes and workers alike: the machine's clock, and as far ahead of it as a test has moved it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atoll_chain::local::WallClock;
use atoll_control::control::World;
use atoll_control::serve::RealWorld;
use atoll_domain::time::UnixMs;

#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    /// So much time passes at once, for everybody.
    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn time(&self) -> UnixMs {
        UnixMs(RealWorld.now().0 + self.0.load(Ordering::SeqCst))
    }
}

impl WallClock for Clock {
    fn unix_ms(&self) -> u64 {
        self.time().0
    }
}

impl World for Clock {
    fn now(&self) -> UnixMs {
        self.time()
    }

    fn random(&self, bytes: &mut [u8]) {
        RealWorld.random(bytes);
    }
}

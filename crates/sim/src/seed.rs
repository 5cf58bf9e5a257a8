//! What a world is like: everything that is drawn from its seed before it begins, and printed first.

use std::time::Duration;

use atoll_chain::local::Finality;

use crate::clock::Error;
use crate::disk::Habits as DiskHabits;
use crate::faults::Fault;
use crate::net::Weather;
use crate::program::Habits;
use crate::random::Random;
use crate::renter::Wish;

const MINUTE: Duration = Duration::from_secs(60);

/// A world's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed of all randomness.
    pub seed: u64,
    /// How long the world runs at least.
    pub length: Duration,
    /// When faults stop.
    pub quiet_at: Duration,
    /// Operators, each with a store of its own, on one chain and with the same workers.
    pub operators: usize,
    /// When the first of two is gone for good.
    pub vanishes: Option<Duration>,
    /// Control nodes of the first operator; more than one share a database.
    pub nodes: usize,
    /// Workers.
    pub workers: usize,
    /// Jobs that are submitted.
    pub jobs: usize,
    /// Faults that happen.
    pub faults: usize,
    /// The network while there are faults.
    pub weather: Weather,
    /// Pods while there are faults.
    pub pods: Habits,
    /// The disks while there are faults.
    pub disks: DiskHabits,
    /// How far clocks are off at most, in milliseconds; they also drift by up to 200 parts per million.
    pub clocks_off_ms: i64,
    /// When what the chain processed counts.
    pub finality: Finality,
    /// Whether the chain halts for six hours.
    pub long_halt: bool,
    /// Whether a disk of an operator lies about its syncs until its power goes.
    pub syncs_lie: bool,
    /// What the renter wants, where a test says it; else it is drawn.
    pub wishes: Vec<Wish>,
    /// Faults that happen as well, each at its time: what a test wants to see.
    pub script: Vec<(Duration, Fault)>,
}

impl Options {
    /// The options of a seed, with everything that can go wrong.
    #[must_use]
    pub fn draw(seed: u64, length: Duration) -> Self {
        let random = Random::new(seed, "options");
        let small = |most: u64| usize::try_from(random.below(0..most + 1)).unwrap_or(0);
        let sometimes =
            |per_mille: u64, most: u64| if random.happens(per_mille) { random.below(1..most + 1) } else { 0 };
        let weather = Weather {
            latency: random.lasts(Duration::from_millis(1)..Duration::from_millis(30)),
            jitter: random.lasts(Duration::from_millis(1)..Duration::from_millis(50)),
            bandwidth: random.below(1_000_000..100_000_000),
            lost_per_mille: sometimes(600, 20),
            doubled_per_mille: sometimes(500, 50),
            resend: random.lasts(Duration::from_millis(200)..Duration::from_secs(1)),
        };
        let pods = Habits {
            cannot_start: sometimes(300, 100),
            slow_start: sometimes(300, 200),
            crash: sometimes(300, 200),
            hang: sometimes(200, 100),
            ignore_stop: sometimes(300, 500),
            lie: sometimes(300, 500),
        };
        let disks = DiskHabits {
            short_writes: sometimes(200, 3),
            failed_syncs: sometimes(200, 5),
            lost_syncs: 0,
            capacity: None,
        };
        Self {
            seed,
            length,
            quiet_at: length / 2,
            nodes: 1 + small(1),
            workers: 1 + small(5),
            jobs: 1 + small(3),
            faults: small(8),
            weather,
            pods,
            disks,
            clocks_off_ms: if random.happens(100) {
                600_000
            } else {
                i64::try_from(random.below(0..2_000)).unwrap_or(0)
            },
            finality: Finality { confirmed_slots: sometimes(700, 3), finalized_slots: 3 + sometimes(700, 29) },
            long_halt: random.happens(50),
            script: Vec::new(),
            operators: 1,
            vanishes: None,
            syncs_lie: random.happens(100),
            wishes: Vec::new(),
        }
        .with_operators(&random)
    }

    /// In a third of the worlds there is another operator; in half of these the first one vanishes, if they are long: what
    /// it leaves behind takes minutes.
    fn with_operators(mut self, random: &Random) -> Self {
        if random.happens(333) {
            self.operators = 2;
            let at = random.lasts(Duration::from_secs(1)..self.quiet_at);
            self.vanishes = (random.happens(500) && self.length > 2 * MINUTE).then_some(at);
        }
        self
    }

    /// A world in which nothing goes wrong.
    #[must_use]
    pub fn calm(seed: u64, length: Duration) -> Self {
        Self {
            seed,
            length,
            quiet_at: length / 2,
            operators: 1,
            vanishes: None,
            nodes: 1,
            workers: 2,
            jobs: 1,
            faults: 0,
            weather: Weather::default(),
            pods: Habits::default(),
            disks: DiskHabits::default(),
            clocks_off_ms: 0,
            finality: Finality::default(),
            long_halt: false,
            syncs_lie: false,
            wishes: Vec::new(),
            script: Vec::new(),
        }
    }

    /// The error of one machine's clock.
    #[must_use]
    pub fn clock_error(&self, random: &Random) -> Error {
        let around = |most: i64| {
            let width = u64::try_from(2 * most + 1).unwrap_or(1);
            i64::try_from(random.below(0..width)).unwrap_or(0) - most
        };
        if self.clocks_off_ms == 0 {
            return Error::default();
        }
        Error { offset_ms: around(self.clocks_off_ms), drift_ppm: around(200) }
    }
}

impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, length, quiet_at, nodes, workers, jobs, faults, weather, pods, disks, .. } = self;
        writeln!(f, "seed {seed}: {} s, faults until {} s", length.as_secs(), quiet_at.as_secs())?;
        let Self { operators, vanishes, .. } = self;
        writeln!(
            f,
            "  {operators} operators, {nodes} nodes of the first, {workers} workers, {jobs} jobs, {faults} faults"
        )?;
        if let Some(at) = vanishes {
            writeln!(f, "  the first operator is gone for good at {} s", at.as_secs())?;
        }
        writeln!(f, "  network {weather:?}")?;
        writeln!(f, "  pods, per mille {pods:?}")?;
        writeln!(f, "  disks, per mille {disks:?}")?;
        let Finality { confirmed_slots, finalized_slots } = self.finality;
        writeln!(f, "  confirmed after {confirmed_slots} slots, final after {finalized_slots}")?;
        write!(
            f,
            "  clocks off by up to {} ms, long halt: {}, syncs lie: {}",
            self.clocks_off_ms, self.long_halt, self.syncs_lie
        )
    }
}

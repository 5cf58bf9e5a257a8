//! What goes wrong and when: drawn from the seed, carried out one after the other, and all of it mended in the end.

use std::time::Duration;

use crate::disk::Habits as DiskHabits;
use crate::net::Weather;
use crate::node::Node;
use crate::program::Habits;
use crate::random::Random;
use crate::seed::Options;
use crate::world::World;

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A node is killed and started again.
    NodeKilled { node: usize, away: Duration },
    /// A node is killed while it works: when its tasks have been polled so often, wherever they then stand.
    NodeKilledAt { node: usize, polls: u64, away: Duration },
    /// A node's machine loses power.
    NodeDark { node: usize, away: Duration },
    /// The first operator is gone for good, with everything it had.
    OperatorVanishes,
    /// The shared database is killed and started again.
    DatabaseKilled { away: Duration },
    /// A worker is killed and started again; its pods go on.
    WorkerKilled { worker: usize, away: Duration },
    /// A worker is killed while it works.
    WorkerKilledAt { worker: usize, polls: u64, away: Duration },
    /// A worker's machine loses power.
    MachineDark { worker: usize, away: Duration },
    /// A worker is cut off from the nodes, in one direction or both.
    WorkerCutOff { worker: usize, to: bool, from: bool, away: Duration },
    /// A worker's connections are reset again and again.
    Flapping { worker: usize, times: u64 },
    /// Nobody reaches the chain.
    ChainAway { away: Duration },
    /// The chain is busy.
    ChainBusy { away: Duration },
    /// The chain halts; in the meantime six hours pass for everybody.
    ChainHalt { away: Duration },
    /// The chain's newest slots lose against a fork: what was processed there and not confirmed yet, never was.
    Fork { slots: u64 },
    /// Some of the chain's answers come from a node that lags behind.
    ChainStale { slots: u64, away: Duration },
    /// A worker's clock is set wrong.
    ClockJumps { worker: usize, by_ms: i64 },
    /// What an operator's disk says that it synced is not there when the power goes; its nodes start on the old store.
    SyncsLie { operator: usize, lasts: Duration, away: Duration },
    /// A node's disk, or the database's, is full for a time.
    DiskFull { away: Duration },
}

/// How much happens in a long halt.
const SIX_HOURS: Duration = Duration::from_secs(6 * 3600);

/// The faults of a world, in order of time.
#[must_use]
pub fn schedule(options: &Options) -> Vec<(Duration, Fault)> {
    let random = Random::new(options.seed, "faults");
    let mut faults: Vec<(Duration, Fault)> = (0..options.faults)
        .map(|_| (random.lasts(Duration::from_secs(1)..options.quiet_at), draw(options, &random)))
        .collect();
    if options.long_halt {
        let away = Duration::from_secs(20);
        faults.push((random.lasts(options.quiet_at / 2..options.quiet_at), Fault::ChainHalt { away }));
    }
    if options.syncs_lie {
        let operator = usize::try_from(random.below(0..options.operators as u64)).unwrap_or(0);
        let (lasts, away) = (Duration::from_secs(1)..Duration::from_secs(30), Duration::from_secs(1));
        let lie = Fault::SyncsLie { operator, lasts: random.lasts(lasts), away };
        faults.push((random.lasts(away..options.quiet_at), lie));
    }
    faults.extend(options.vanishes.map(|at| (at, Fault::OperatorVanishes)));
    faults.extend(options.script.iter().cloned());
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn draw(options: &Options, random: &Random) -> Fault {
    let index = |count: usize| usize::try_from(random.below(0..count as u64)).unwrap_or(0);
    let nodes = options.nodes + options.operators - 1;
    let (node, worker) = (index(nodes), index(options.workers));
    let second = Duration::from_secs(1);
    let away = random.lasts(second / 2..random.lasts(second..30 * second));
    let polls = random.below(1..random.below(2..3_000));
    match random.below(0..20) {
        0 => Fault::NodeKilled { node, away },
        1 | 14 => Fault::NodeKilledAt { node, polls, away },
        2 => Fault::NodeDark { node, away },
        3 => Fault::DatabaseKilled { away },
        4 => Fault::WorkerKilled { worker, away },
        5 | 15 => Fault::WorkerKilledAt { worker, polls, away },
        6 => Fault::MachineDark { worker, away },
        7 | 8 => {
            let (to, from) = *random.one_of(&[(true, true), (true, false), (false, true)]);
            Fault::WorkerCutOff { worker, to, from, away }
        }
        9 => Fault::Flapping { worker, times: random.below(3..15) },
        10 => Fault::ChainAway { away: 2 * away },
        11 => Fault::ChainBusy { away },
        16 | 17 => Fault::Fork { slots: random.below(1..4) },
        18 => Fault::ChainStale { slots: random.below(1..20), away },
        12 => {
            let by_ms = i64::try_from(random.below(0..1_200_000)).unwrap_or(0) - 600_000;
            Fault::ClockJumps { worker, by_ms }
        }
        _ => Fault::DiskFull { away },
    }
}

/// Carries a schedule out; when it returns, nothing is wrong any more.
pub async fn carry_out(world: &World, options: &Options) {
    begin(world, options);
    let began = tokio::time::Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for (at, fault) in schedule(options) {
        tokio::time::sleep_until(began + at).await;
        world.trace.line("fault", &format!("{fault:?}"));
        let world = world.clone();
        running.spawn(async move { happen(&world, fault).await });
    }
    tokio::time::sleep_until(began + options.quiet_at).await;
    while running.join_next().await.is_some() {}
    mend(world);
}

fn begin(world: &World, options: &Options) {
    world.net.weather(options.weather);
    for worker in &world.workers {
        worker.machine().behave(options.pods);
        worker.machine().around().disk.behave(options.disks);
    }
    for database in &world.databases {
        database.disk().behave(options.disks);
    }
}

fn mend(world: &World) {
    world.net.weather(Weather::default());
    world.net.heal_all();
    world.chain.halt(false);
    world.chain.busy(0);
    world.chain.lag(0);
    for database in &world.databases {
        database.disk().behave(DiskHabits::default());
    }
    for worker in &world.workers {
        let around = worker.machine().around();
        around.disk.behave(DiskHabits::default());
        worker.machine().behave(Habits::default());
        around.clock.set_right();
        worker.power_up();
    }
    if let Some(database) = world.shared_database() {
        world.start_database(database);
    }
    for node in &world.nodes {
        node.clock().set_right();
        node.power_up();
    }
    world.trace.line("world", "from here on nothing fails");
}

async fn happen(world: &World, fault: Fault) {
    match fault {
        Fault::NodeKilled { node, away } => {
            world.nodes[node].kill().await;
            tokio::time::sleep(away).await;
            world.nodes[node].start();
        }
        Fault::NodeKilledAt { node, polls, away } => {
            world.nodes[node].kill_after(polls).await;
            tokio::time::sleep(away).await;
            world.nodes[node].start();
        }
        Fault::OperatorVanishes => {
            for node in world.nodes.iter().filter(|node| node.operator() == 0) {
                node.vanish().await;
            }
        }
        Fault::SyncsLie { operator, lasts, away } => syncs_lie(world, operator, lasts, away).await,
        Fault::NodeDark { node, away } => {
            world.nodes[node].lose_power().await;
            tokio::time::sleep(away).await;
            world.nodes[node].power_up();
        }
        Fault::DatabaseKilled { away } => {
            // A node's own database dies with the node only.
            let Some(database) = world.shared_database() else { return };
            database.lose_power();
            tokio::time::sleep(away).await;
            world.start_database(database);
        }
        Fault::WorkerKilled { worker, away } => {
            world.workers[worker].kill().await;
            tokio::time::sleep(away).await;
            world.workers[worker].start();
        }
        Fault::WorkerKilledAt { worker, polls, away } => {
            world.workers[worker].kill_after(polls).await;
            tokio::time::sleep(away).await;
            world.workers[worker].start();
        }
        Fault::MachineDark { worker, away } => {
            world.workers[worker].lose_power().await;
            tokio::time::sleep(away).await;
            world.workers[worker].power_up();
        }
        Fault::WorkerCutOff { worker, to, from, away } => cut_off(world, worker, to, from, away).await,
        Fault::Flapping { worker, times } => {
            for _ in 0..times {
                let place = world.workers[worker].place();
                world.nodes.iter().for_each(|node| world.net.reset(node.place(), place));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Fault::ChainAway { away } => halt(world, away, Duration::ZERO).await,
        Fault::ChainHalt { away } => halt(world, away, SIX_HOURS).await,
        Fault::ChainBusy { away } => {
            world.chain.busy(500);
            tokio::time::sleep(away).await;
            world.chain.busy(0);
        }
        Fault::Fork { slots } => world.chain.fork(slots),
        Fault::ChainStale { slots, away } => {
            world.chain.lag(slots);
            tokio::time::sleep(away).await;
            world.chain.lag(0);
        }
        Fault::ClockJumps { worker, by_ms } => world.workers[worker].machine().around().clock.jump(by_ms),
        Fault::DiskFull { away } => {
            let Some(database) = world.databases.first() else { return };
            let before = DiskHabits { capacity: Some(0), ..DiskHabits::default() };
            database.disk().behave(before);
            tokio::time::sleep(away).await;
            database.disk().behave(DiskHabits::default());
        }
    }
}

/// A node looks at its start whether its store is old, so nodes of a shared database are started with it.
async fn syncs_lie(world: &World, operator: usize, lasts: Duration, away: Duration) {
    let database = &world.databases[operator];
    let then = database.disk().durable();
    tokio::time::sleep(lasts).await;
    if world.is_gone(operator) {
        return;
    }
    world.renter.may_be_forgotten(operator);
    let nodes = || world.nodes.iter().filter(|node| node.operator() == operator);
    for node in nodes() {
        node.lose_power().await;
    }
    database.lose_since(&then);
    tokio::time::sleep(away).await;
    if nodes().count() > 1 {
        world.start_database(database);
    }
    nodes().for_each(Node::power_up);
}

async fn cut_off(world: &World, worker: usize, to: bool, from: bool, away: Duration) {
    let here = world.workers[worker].place();
    for there in world.nodes.iter().map(Node::place) {
        if to {
            world.net.cut(there, here);
        }
        if from {
            world.net.cut(here, there);
        }
    }
    tokio::time::sleep(away).await;
    for there in world.nodes.iter().map(Node::place) {
        world.net.heal(there, here);
        world.net.heal(here, there);
    }
}

async fn halt(world: &World, away: Duration, leap: Duration) {
    world.chain.halt(true);
    tokio::time::sleep(away).await;
    world.time.leap(leap);
    world.chain.halt(false);
}

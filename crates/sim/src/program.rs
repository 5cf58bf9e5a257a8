//! What runs in pods: a Ray that its cluster's pods join, and a command that counts steps and writes checkpoints.
//!
//! As far as the control plane can see it, this Ray behaves as Ray 2.60 does (see `control/src/ray.rs`): nodes that died
//! are listed as alive for some seconds, the same submission twice is one. The command speaks to its pod store by the
//! same HTTP as `sdk/python` does, and tries as long.

mod command;
mod ray;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atoll_domain::id::PodId;
use atoll_domain::key::Address;
use atoll_worker::supervisor::spec::PodSpec;
use tokio::time::Instant;

use crate::machine::Machine;
use crate::random::Random;

pub use ray::{Head, serve};

/// The port of Ray's HTTP on the head.
pub const RAY_PORT: u16 = 8265;
/// How long Ray takes to come up.
const BOOT: std::ops::Range<Duration> = Duration::from_millis(800)..Duration::from_secs(3);
/// How long a dead node counts as alive: (0.5 s + 1 s) x 3.
const DEAD_AFTER: Duration = Duration::from_millis(4_500);
/// How long a node goes on without its head.
const HEADLESS_MAX: Duration = Duration::from_secs(30);

/// How pods misbehave on a machine, in a thousand each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Whose network cannot be made.
    pub cannot_start: u64,
    /// That take half a minute to be prepared.
    pub slow_start: u64,
    /// Whose program ends by itself within a minute.
    pub crash: u64,
    /// Whose program stops doing anything within a minute.
    pub hang: u64,
    /// That ignore SIGTERM.
    pub ignore_stop: u64,
    /// That say another exit code than theirs.
    pub lie: u64,
}

/// What happens to one pod.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    pub(crate) cannot_start: bool,
    pub(crate) starts_slowly: Duration,
    pub(crate) crashes_after: Option<Duration>,
    pub(crate) hangs_after: Option<Duration>,
    pub(crate) ignores_stop: bool,
    pub(crate) lies: Option<i32>,
    boots: Duration,
}

impl Habits {
    /// Draws a pod's fate.
    pub(crate) fn draw(&self, random: &Random) -> Fate {
        let second = Duration::from_secs(1);
        let later = |per_mille| random.happens(per_mille).then(|| random.lasts(second..60 * second));
        let slow = random.happens(self.slow_start);
        Fate {
            cannot_start: random.happens(self.cannot_start),
            starts_slowly: random.lasts(second / 20..if slow { 30 * second } else { second / 2 }),
            crashes_after: later(self.crash),
            hangs_after: later(self.hang),
            ignores_stop: random.happens(self.ignore_stop),
            lies: random.happens(self.lie).then_some(0),
            boots: random.lasts(BOOT),
        }
    }
}

/// Which pods reach each other, by order and overlay address. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Clusters(Arc<Mutex<BTreeMap<(Address, Ipv4Addr), Member>>>);

#[derive(Clone, Debug)]
struct Member {
    pod: PodId,
    /// The address of its head.
    head_at: Ipv4Addr,
    is_up: bool,
    gone: Option<Instant>,
    head: Option<Head>,
}

impl Clusters {
    fn members(&self) -> MutexGuard<'_, BTreeMap<(Address, Ipv4Addr), Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod's program starts.
    pub(crate) fn join(&self, spec: &PodSpec) {
        let head_at = spec.env.get("ATOLL_HEAD_IP").and_then(|ip| ip.parse().ok()).unwrap_or(spec.overlay.ip);
        let member = Member { pod: spec.pod, head_at, is_up: false, gone: None, head: None };
        self.members().insert((spec.order, spec.overlay.ip), member);
    }

    /// A pod is over.
    pub(crate) fn leave(&self, spec: &PodSpec) {
        if let Some(member) = self.members().get_mut(&(spec.order, spec.overlay.ip)).filter(|it| it.pod == spec.pod) {
            member.gone.get_or_insert_with(Instant::now);
            member.head = None;
        }
    }

    /// The head that runs in a pod, once it is up.
    pub(crate) fn head(&self, pod: PodId) -> Option<Head> {
        self.members().values().find(|member| member.pod == pod)?.head.clone()
    }

    /// Whether the head at an address is up.
    fn has_head(&self, order: Address, at: Ipv4Addr) -> bool {
        self.members().get(&(order, at)).is_some_and(|member| member.head.is_some())
    }

    fn comes_up(&self, order: Address, at: Ipv4Addr, head: Option<Head>) {
        if let Some(member) = self.members().get_mut(&(order, at)).filter(|member| member.gone.is_none()) {
            member.is_up = true;
            member.head = head;
        }
    }

    /// The nodes of a head's cluster, and whether Ray thinks them alive.
    fn nodes(&self, order: Address, head_at: Ipv4Addr) -> BTreeMap<Ipv4Addr, bool> {
        let members = self.members();
        let of_cluster =
            members.iter().filter(|((of, _), member)| *of == order && member.head_at == head_at && member.is_up);
        of_cluster.map(|((_, at), member)| (*at, member.gone.is_none_or(|gone| gone.elapsed() < DEAD_AFTER))).collect()
    }

    /// Whether every node of a head's cluster really runs.
    fn is_whole(&self, order: Address, head_at: Ipv4Addr) -> bool {
        let members = self.members();
        let mut of_cluster = members.iter().filter(|((of, _), member)| *of == order && member.head_at == head_at);
        of_cluster.all(|(_, member)| member.gone.is_none_or(|gone| gone.elapsed() > DEAD_AFTER))
    }
}

/// A pod's program, until its life ends it.
pub(crate) async fn run(machine: Machine, spec: PodSpec, env: BTreeMap<String, String>, fate: Fate) {
    let ends = async {
        match fate.crashes_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
        machine.end(spec.pod, Some(1), "the program ended with 1");
    };
    tokio::join!(ends, be_ray(&machine, &spec, env, fate));
}

async fn be_ray(machine: &Machine, spec: &PodSpec, env: BTreeMap<String, String>, fate: Fate) {
    let clusters = machine.around().clusters.clone();
    tokio::time::sleep(fate.boots).await;
    if env.get("ATOLL_ROLE").is_some_and(|role| role == "head") {
        let head = Head::new(machine, spec, &env);
        clusters.comes_up(spec.order, spec.overlay.ip, Some(head.clone()));
        if let Some(after) = fate.hangs_after {
            tokio::time::sleep(after).await;
            machine.around().trace.line(&machine.around().place, &format!("{} hangs", spec.pod));
            head.hang();
        }
        return std::future::pending().await;
    }
    let Some(head_at) = env.get("ATOLL_HEAD_IP").and_then(|ip| ip.parse().ok()) else { return };
    let mut alone_since = Instant::now();
    loop {
        if clusters.has_head(spec.order, head_at) {
            clusters.comes_up(spec.order, spec.overlay.ip, None);
            alone_since = Instant::now();
        } else if alone_since.elapsed() > HEADLESS_MAX {
            return machine.end(spec.pod, Some(1), "its head is gone");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

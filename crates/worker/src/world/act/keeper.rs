//! One task a pod: passes orders to it, one after the other, and tells when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;
use atoll_overlay::SignedStatement;
use tokio::sync::mpsc;

use crate::host::{Host, Over, SharedHost, Standing};
use crate::supervisor::protocol::Verdict;
use crate::supervisor::spec::{AuthorisedKey, PodSpec};
use crate::world::state::{Event, PodNews};

/// How long the tenant's program has between SIGTERM and the end.
const TERM: Duration = Duration::from_secs(3);
/// One question whether the pod is over.
const WAIT: Duration = Duration::from_secs(60);
/// Orders that may wait; the world gives few, and a supervisor answers within seconds.
const ORDERS_MAX: usize = 64;

/// Something a supervisor is to do.
#[derive(Debug)]
pub(super) enum Order {
    Roster {
        command: String,
        members: Vec<Vec<u8>>,
        authorised: Vec<AuthorisedKey>,
        run: Option<BTreeMap<String, String>>,
    },
    Extend {
        end_s: i64,
        ends_at: UnixMs,
    },
    Stop,
}

/// The way to a pod's task.
#[derive(Debug)]
pub(super) struct Orders(mpsc::Sender<Order>);

impl Orders {
    pub(super) fn give(&self, order: Order) {
        // Full: the supervisor hangs, and whoever waits for it is told so by a deadline. Closed: the pod is over.
        if let Err(error) = self.0.try_send(order) {
            tracing::warn!(reason = %error, "a pod's supervisor takes no more orders");
        }
    }
}

/// Makes a pod and keeps to it.
pub(super) fn prepare(spec: PodSpec, host: SharedHost, to_world: mpsc::Sender<Event>) -> Orders {
    let (orders, received) = mpsc::channel(ORDERS_MAX);
    atoll_life::spawn(async move {
        let tell = Tell { pod: spec.pod, to_world };
        match host.prepare(&spec).await {
            Ok(standing) => {
                tell.news(prepared(&standing)).await;
                keep(host, received, tell).await;
            }
            Err(error) => tell.news(PodNews::NotPrepared { why: format!("{error:#}") }).await,
        }
    });
    Orders(orders)
}

/// Keeps to a pod that was found.
pub(super) fn take_up(pod: PodId, host: SharedHost, to_world: mpsc::Sender<Event>) -> Orders {
    let (orders, received) = mpsc::channel(ORDERS_MAX);
    atoll_life::spawn(keep(host, received, Tell { pod, to_world }));
    Orders(orders)
}

struct Tell {
    pod: PodId,
    to_world: mpsc::Sender<Event>,
}

impl Tell {
    async fn news(&self, news: PodNews) {
        // Nobody listens any more when the worker is stopping.
        let _ = self.to_world.send(Event::Pod { pod: self.pod, news }).await;
    }
}

fn prepared(standing: &Standing) -> PodNews {
    PodNews::Prepared { wg_public: standing.wg_public, endpoint: standing.endpoint }
}

async fn keep(host: SharedHost, mut orders: mpsc::Receiver<Order>, tell: Tell) {
    let pod = tell.pod;
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Roster { command, members, authorised, run }) => {
                    tell.news(roster(host.as_ref(), pod, command, &members, authorised, run).await).await;
                }
                Some(Order::Extend { end_s, ends_at }) => match host.extend(pod, ends_at).await {
                    Ok(()) => tell.news(PodNews::Lengthened { end_s }).await,
                    // The next look at the chain asks again.
                    Err(error) => tracing::warn!(%pod, reason = %error, "the end of the lease could not be moved"),
                },
                Some(Order::Stop) => {
                    let over = host.stop(pod, TERM).await;
                    return tell.news(over.map_or_else(gone, ended)).await;
                }
                // The pod is forgotten, or the worker is stopping; the pod goes on.
                None => return,
            },
            over = host.wait(pod, WAIT) => match over {
                Ok(None) => {}
                Ok(Some(over)) => return tell.news(ended(over)).await,
                Err(error) => return tell.news(gone(error)).await,
            },
        }
    }
}

fn ended(over: Over) -> PodNews {
    PodNews::Ended { code: over.code, reason: over.reason }
}

fn gone(error: anyhow::Error) -> PodNews {
    PodNews::Ended { code: None, reason: format!("its supervisor is gone: {error:#}") }
}

async fn roster(
    host: &dyn Host,
    pod: PodId,
    command: String,
    members: &[Vec<u8>],
    authorised: Vec<AuthorisedKey>,
    run: Option<BTreeMap<String, String>>,
) -> PodNews {
    let failed = |command: String, why: String| PodNews::RosterFailed { command, why };
    let mut refused = vec![];
    let mut statements = vec![];
    for member in members {
        match SignedStatement::from_bytes(member) {
            Ok(statement) => statements.push(statement),
            Err(why) => refused.push(why.to_string()),
        }
    }
    match host.roster(pod, &statements, authorised).await {
        Err(error) => return failed(command, format!("{error:#}")),
        Ok(verdicts) => refused.extend(verdicts.into_iter().filter_map(|verdict: Verdict| verdict.refused)),
    }
    let launched = match run {
        // A member that is not who it should be: nothing runs beside it.
        Some(env) if refused.is_empty() => match host.run(pod, env).await {
            Ok(()) => true,
            Err(error) => return failed(command, format!("{error:#}")),
        },
        _ => false,
    };
    PodNews::RosterTaken { command, refused, launched }
}

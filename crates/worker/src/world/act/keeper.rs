//! One task a pod: passes orders to its supervisor, one after the other, and tells when it is over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;
use atoll_overlay::SignedStatement;
use tokio::sync::mpsc;

use crate::supervisor::client::{self, Pod};
use crate::supervisor::protocol::{Exit, Status, Verdict};
use crate::supervisor::spec::{AuthorisedKey, PodSpec};
use crate::world::state::{Event, PodNews};

/// How long the tenant's program has between SIGTERM and the end.
const TERM: Duration = Duration::from_secs(3);
/// One question to the supervisor whether the pod is over.
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
pub(super) fn prepare(spec: PodSpec, dir: PathBuf, executable: PathBuf, to_world: mpsc::Sender<Event>) -> Orders {
    let (orders, received) = mpsc::channel(ORDERS_MAX);
    tokio::spawn(async move {
        let id = spec.pod;
        let tell = Tell { pod: id, to_world };
        let made = async {
            let folder = dir.clone();
            tokio::task::spawn_blocking(move || client::prepare(&folder, &spec)).await??;
            Pod::spawn(&executable, &dir).await
        };
        match made.await {
            Ok((pod, status)) => {
                tell.news(prepared(&status)).await;
                keep(pod, received, tell).await;
            }
            Err(error) => tell.news(PodNews::NotPrepared { why: format!("{error:#}") }).await,
        }
    });
    Orders(orders)
}

/// Keeps to a pod that was found.
pub(super) fn take_up(pod: Pod, to_world: mpsc::Sender<Event>) -> Orders {
    let (orders, received) = mpsc::channel(ORDERS_MAX);
    let id = pod.dir().file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<PodId>().ok());
    if let Some(id) = id {
        tokio::spawn(keep(pod, received, Tell { pod: id, to_world }));
    }
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

fn prepared(status: &Status) -> PodNews {
    PodNews::Prepared { wg_public: status.wg_public.0, endpoint: status.endpoint }
}

async fn keep(pod: Pod, mut orders: mpsc::Receiver<Order>, tell: Tell) {
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Roster { command, members, authorised, run }) => {
                    tell.news(roster(&pod, command, &members, authorised, run).await).await;
                }
                Some(Order::Extend { ends_at }) => {
                    if let Err(error) = pod.extend(ends_at).await {
                        tracing::warn!(pod = %tell.pod, reason = %error, "the end of the lease could not be moved");
                    }
                }
                Some(Order::Stop) => {
                    let over = pod.stop(TERM).await;
                    return tell.news(over.map_or_else(gone, |exit| ended(&exit))).await;
                }
                // The pod is forgotten, or the worker is stopping; the supervisor goes on.
                None => return,
            },
            over = pod.wait(WAIT) => match over {
                Ok(None) => {}
                Ok(Some(exit)) => return tell.news(ended(&exit)).await,
                Err(error) => return tell.news(gone(error)).await,
            },
        }
    }
}

fn ended(exit: &Exit) -> PodNews {
    PodNews::Ended { code: exit.code, reason: exit.message.clone() }
}

fn gone(error: anyhow::Error) -> PodNews {
    PodNews::Ended { code: None, reason: format!("its supervisor is gone: {error:#}") }
}

async fn roster(
    pod: &Pod,
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
    match pod.roster(&statements, Some(authorised)).await {
        Err(error) => return failed(command, format!("{error:#}")),
        Ok(verdicts) => refused.extend(verdicts.into_iter().filter_map(|verdict: Verdict| verdict.refused)),
    }
    let launched = match run {
        // A member that is not who it should be: nothing runs beside it.
        Some(env) if refused.is_empty() => match pod.run(None, env).await {
            Ok(()) => true,
            Err(error) => return failed(command, format!("{error:#}")),
        },
        _ => false,
    };
    PodNews::RosterTaken { command, refused, launched }
}

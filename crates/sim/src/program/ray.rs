//! The head's HTTP: the part of Ray's Jobs and State API that the control plane uses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atoll_domain::id::PodId;
use atoll_domain::key::Address;
use atoll_worker::supervisor::spec::PodSpec;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::{self, Task};
use crate::machine::Machine;

/// Ray on a head pod. Clones are the same.
#[derive(Clone, Debug)]
pub struct Head(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machine: Machine,
    pod: PodId,
    order: Address,
    at: Ipv4Addr,
    /// The pod's environment.
    env: BTreeMap<String, String>,
    token: String,
    hangs: AtomicBool,
    submissions: Mutex<BTreeMap<String, Submission>>,
}

/// One submitted command.
#[derive(Clone, Debug, Default)]
pub(super) struct Submission {
    pub(super) status: &'static str,
    pub(super) output: String,
    stop: bool,
}

#[derive(Deserialize)]
struct Submit {
    submission_id: String,
    runtime_env: RuntimeEnv,
}

#[derive(Deserialize)]
struct RuntimeEnv {
    env_vars: BTreeMap<String, String>,
}

impl Head {
    pub(super) fn new(machine: &Machine, spec: &PodSpec, env: &BTreeMap<String, String>) -> Self {
        Self(Arc::new(Inner {
            machine: machine.clone(),
            pod: spec.pod,
            order: spec.order,
            at: spec.overlay.ip,
            env: env.clone(),
            token: format!("Bearer {}", env.get("RAY_AUTH_TOKEN").map_or("", String::as_str)),
            hangs: AtomicBool::new(false),
            submissions: Mutex::default(),
        }))
    }

    /// From now on it does nothing any more, and does not say so.
    pub(super) fn hang(&self) {
        self.0.hangs.store(true, Ordering::Relaxed);
    }

    pub(super) fn hangs(&self) -> bool {
        self.0.hangs.load(Ordering::Relaxed)
    }

    fn submissions(&self) -> MutexGuard<'_, BTreeMap<String, Submission>> {
        self.0.submissions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every node of its cluster really runs.
    pub(super) fn is_whole(&self) -> bool {
        self.0.machine.around().clusters.is_whole(self.0.order, self.0.at)
    }

    /// Whether somebody asked for a submission to be stopped.
    pub(super) fn is_stopped(&self, id: &str) -> bool {
        self.submissions().get(id).is_some_and(|it| it.stop)
    }

    /// Changes a submission.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Submission)) {
        if let Some(it) = self.submissions().get_mut(id) {
            change(it);
        }
    }

    fn submit(&self, submit: Submit) -> (StatusCode, Value) {
        let Submit { submission_id: id, runtime_env } = submit;
        let known = self.submissions().insert(id.clone(), Submission { status: "RUNNING", ..Submission::default() });
        if let Some(known) = known {
            self.submissions().insert(id, known);
            return (StatusCode::BAD_REQUEST, json!("a job with this submission_id already exists"));
        }
        let mut env = self.0.env.clone();
        env.extend(runtime_env.env_vars);
        let task = Task { head: self.clone(), machine: self.0.machine.clone(), pod: self.0.pod, id: id.clone(), env };
        self.0.machine.spawn_in(self.0.pod, command::run(task));
        (StatusCode::OK, json!({ "submission_id": id }))
    }

    fn nodes(&self) -> Value {
        let nodes = self.0.machine.around().clusters.nodes(self.0.order, self.0.at);
        let node = |(at, alive): (Ipv4Addr, bool)| json!({ "node_ip": at.to_string(), "state": if alive { "ALIVE" } else { "DEAD" } });
        let listed: Vec<Value> = nodes.into_iter().map(node).collect();
        json!({ "result": true, "msg": "", "data": { "result": { "total": listed.len(), "result": listed } } })
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let missing = (StatusCode::NOT_FOUND, json!("no such job"));
        let rest = path.strip_prefix("/api/jobs/").unwrap_or_default();
        let (id, verb) = rest.split_once('/').unwrap_or((rest, ""));
        match (method, verb) {
            (&Method::GET, _) if path.starts_with("/api/v0/nodes") => (StatusCode::OK, self.nodes()),
            (&Method::POST, _) if path == "/api/jobs/" => match serde_json::from_slice(body) {
                Ok(submit) => self.submit(submit),
                Err(error) => (StatusCode::BAD_REQUEST, json!(error.to_string())),
            },
            (&Method::GET, "") => match self.submissions().get(id) {
                Some(it) => (StatusCode::OK, json!({ "status": it.status, "message": null })),
                None => missing,
            },
            (&Method::GET, "logs") => match self.submissions().get(id) {
                Some(it) => (StatusCode::OK, json!({ "logs": it.output })),
                None => missing,
            },
            (&Method::POST, "stop") => match self.submissions().get_mut(id) {
                Some(it) => {
                    it.stop = true;
                    (StatusCode::OK, json!({ "stopped": true }))
                }
                None => missing,
            },
            _ => missing,
        }
    }
}

/// Serves one connection to a head.
pub async fn serve(head: Head, stream: tokio::io::DuplexStream) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let head = head.clone();
        async move {
            if head.hangs() {
                std::future::pending::<()>().await;
            }
            let (parts, body) = request.into_parts();
            let shown = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
            let (status, answer) = if shown == Some(head.0.token.as_str()) {
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                head.answer(&parts.method, parts.uri.path(), &body)
            } else {
                (StatusCode::UNAUTHORIZED, json!("no token"))
            };
            let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    // Whoever asked sees a connection that broke.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

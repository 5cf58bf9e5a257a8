//! The command of a job: counts steps, writes a checkpoint every few, goes on from the last one.

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_api::pod::{Manifest, ManifestFile, Report, ReportKind};
use atoll_domain::id::{JobId, PodId};
use atoll_domain::key::Digest;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::ray::Head;
use crate::http;
use crate::machine::Machine;

/// How long one call of the store may take, and how long it is tried.
const CALL_MAX: Duration = Duration::from_secs(10);
const TRY_MAX: Duration = Duration::from_secs(60);

/// One attempt.
pub(super) struct Task {
    pub(super) head: Head,
    pub(super) machine: Machine,
    pub(super) pod: PodId,
    pub(super) id: String,
    pub(super) env: BTreeMap<String, String>,
}

/// Why an attempt ends before its end.
enum Early {
    /// The store refused, or could not be reached.
    Failed(String),
    /// Somebody stopped it.
    Stopped,
}

/// Runs an attempt to its end.
pub(super) async fn run(task: Task) {
    let ended = task.count().await;
    let (status, why) = match ended {
        Ok(()) if task.number("EXIT") == 0 => ("SUCCEEDED", String::new()),
        Ok(()) => ("FAILED", "exit code 1".to_owned()),
        Err(Early::Failed(why)) => ("FAILED", why),
        Err(Early::Stopped) => ("STOPPED", String::new()),
    };
    let around = task.machine.around();
    around.trace.line(&around.place, &format!("command {} {status} {why}", task.id));
    task.head.change(&task.id, |it| it.status = status);
}

impl Task {
    fn number(&self, name: &str) -> u64 {
        self.env.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    async fn count(&self) -> Result<(), Early> {
        let job: JobId = self.env.get("ATOLL_JOB").and_then(|job| job.parse().ok()).ok_or(Early::Stopped)?;
        let truth = &self.machine.around().truth;
        let saved = self.latest().await?;
        truth.resumes(job, saved);
        let kind = if saved.is_some() { ReportKind::Resumed } else { ReportKind::Started };
        let first = saved.unwrap_or(0);
        self.report(kind, first, saved).await?;
        let (steps, every) = (self.number("STEPS"), self.number("EVERY").max(1));
        for step in first + 1..=steps {
            tokio::time::sleep(Duration::from_millis(self.number("STEP_MS").max(1))).await;
            while self.head.hangs() {
                std::future::pending::<()>().await;
            }
            if self.head.is_stopped(&self.id) {
                return Err(Early::Stopped);
            }
            if !self.head.is_whole() {
                return Err(Early::Failed("a node of the cluster died".to_owned()));
            }
            self.head.change(&self.id, |it| it.output.push_str(&format!("step {step}\n")));
            if step % every == 0 {
                self.save(step).await?;
                truth.checkpoint(job, step);
            }
        }
        Ok(())
    }

    async fn latest(&self) -> Result<Option<u64>, Early> {
        let (status, body) = self.call(Method::GET, "/v1/checkpoints/latest", Vec::new()).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let manifest: Manifest =
            serde_json::from_slice(&body).map_err(|error| Early::Failed(format!("the manifest: {error}")))?;
        Ok(Some(manifest.step))
    }

    async fn save(&self, step: u64) -> Result<(), Early> {
        let content = format!("weights after step {step} of {}", self.id).into_bytes();
        let sha256 = Digest::of(&content);
        let file = ManifestFile { name: "state".to_owned(), sha256, bytes: content.len() as u64 };
        self.put(&format!("/v1/blobs/{sha256}"), content).await?;
        let attempt = u32::try_from(self.number("ATOLL_ATTEMPT")).unwrap_or(0);
        let manifest = Manifest { step, epoch: 0, attempt, weights_sha256: sha256, files: vec![file] };
        let body = serde_json::to_vec(&manifest).map_err(|error| Early::Failed(error.to_string()))?;
        self.put(&format!("/v1/checkpoints/{step}"), body).await?;
        self.report(ReportKind::Checkpoint, step, None).await
    }

    async fn put(&self, path: &str, body: Vec<u8>) -> Result<(), Early> {
        let (status, body) = self.call(Method::PUT, path, body).await?;
        refuse(status, &body)
    }

    async fn report(&self, kind: ReportKind, step: u64, resumed_from_step: Option<u64>) -> Result<(), Early> {
        let attempt = u32::try_from(self.number("ATOLL_ATTEMPT")).unwrap_or(0);
        let report = Report {
            kind,
            attempt,
            step,
            epoch: 0,
            loss: None,
            accuracy: None,
            weights_sha256: None,
            resumed_from_step,
            message: None,
        };
        let body = serde_json::to_vec(&report).map_err(|error| Early::Failed(error.to_string()))?;
        let (status, body) = self.call(Method::POST, "/v1/report", body).await?;
        refuse(status, &body)
    }

    /// One call, again and again until it is answered.
    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Vec<u8>), Early> {
        let token = self.env.get("ATOLL_TOKEN").map_or("", String::as_str);
        let authorization = format!("Bearer {token}");
        let began = Instant::now();
        loop {
            let once = async {
                let stream = self.machine.call_store(self.pod).await?;
                let headers = [("authorization", authorization.as_str())];
                http::call(stream, method.clone(), path, &headers, body.clone()).await
            };
            match tokio::time::timeout(CALL_MAX, once).await {
                Ok(Ok((status, body))) if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    return Ok((status, body));
                }
                _ if began.elapsed() > TRY_MAX => return Err(Early::Failed(format!("{path} cannot be reached"))),
                _ => {
                    let second = Duration::from_secs(1);
                    tokio::time::sleep(self.machine.around().random.lasts(second / 2..2 * second)).await;
                }
            }
        }
    }
}

fn refuse(status: StatusCode, body: &[u8]) -> Result<(), Early> {
    if status.is_success() {
        return Ok(());
    }
    Err(Early::Failed(format!("{status} {}", String::from_utf8_lossy(body).chars().take(100).collect::<String>())))
}

//! The Ray head of a cluster, spoken to over a byte stream into its pod.
//!
//! Only what running a job needs: which nodes live, submit, status, output, stop (Ray 2.60, Jobs REST API and State
//! API). The head is a tenant's program: its answers are bounded and believed only about its own job.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// The dashboard's port on the head pod.
pub const DASHBOARD_PORT: u16 = 8265;
/// The longest one call may take. Ray answers in milliseconds, but its start holds two cores for seconds.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The largest answer that is read: a job's whole output so far.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why Ray could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum RayError {
    /// No connection, cut off, or too slow.
    #[error("the cluster's head does not answer: {0}")]
    Unreachable(String),
    /// It answered with an error.
    #[error("the cluster's head answered {status}: {text}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The beginning of its body.
        text: String,
    },
    /// It answered with something else than Ray's form.
    #[error("the cluster's head gave an answer that is not Ray's: {0}")]
    Unintelligible(String),
}

/// Where a submission stands, in Ray's own states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SubmissionState {
    /// Accepted.
    Pending,
    /// Its driver runs.
    Running,
    /// It was stopped.
    Stopped,
    /// Its driver exited with 0.
    Succeeded,
    /// Its driver did not.
    Failed,
}

/// A submission's state and Ray's words about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Submission {
    /// Where it stands.
    pub status: SubmissionState,
    /// Ray's words.
    #[serde(default)]
    pub message: Option<String>,
}

#[derive(Serialize)]
struct Submit<'a> {
    entrypoint: &'a str,
    submission_id: &'a str,
    runtime_env: RuntimeEnv<'a>,
}

#[derive(Serialize)]
struct RuntimeEnv<'a> {
    env_vars: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Output {
    logs: String,
}

/// One call to a head. Each call has its own stream.
#[derive(Debug)]
pub struct Ray<S> {
    stream: S,
    token: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Ray<S> {
    /// Speaks over `stream` with the cluster's token.
    pub fn over(stream: S, token: &str) -> Self {
        Self { stream, token: token.to_owned() }
    }

    /// Overlay addresses of the nodes that Ray thinks alive.
    ///
    /// # Errors
    /// [`RayError`].
    pub async fn nodes_alive(self) -> Result<BTreeSet<Ipv4Addr>, RayError> {
        // The State API asks the GCS itself; the dashboard's `/nodes` is a cache, 0.4 to 0.8 s behind.
        let body = self.call(Method::GET, "/api/v0/nodes?limit=10000&timeout=5", Bytes::new()).await?;
        alive_in_state(&body)
    }

    /// Submits a command. The same submission id twice is one submission.
    ///
    /// # Errors
    /// [`RayError`].
    pub async fn submit(self, id: &str, entry: &str, env: &BTreeMap<String, String>) -> Result<(), RayError> {
        let body = Submit { entrypoint: entry, submission_id: id, runtime_env: RuntimeEnv { env_vars: env } };
        let body = serde_json::to_vec(&body).map_err(|error| RayError::Unintelligible(error.to_string()))?;
        match self.call(Method::POST, "/api/jobs/", body.into()).await {
            Ok(_) => Ok(()),
            Err(RayError::Refused { text, .. }) if text.contains("already exists") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where a submission stands; none when Ray does not know it.
    ///
    /// # Errors
    /// [`RayError`].
    pub async fn submission(self, id: &str) -> Result<Option<Submission>, RayError> {
        match self.call(Method::GET, &format!("/api/jobs/{id}"), Bytes::new()).await {
            Ok(body) => read(&body).map(Some),
            Err(RayError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All output of a submission so far.
    ///
    /// # Errors
    /// [`RayError`].
    pub async fn output(self, id: &str) -> Result<String, RayError> {
        let body = self.call(Method::GET, &format!("/api/jobs/{id}/logs"), Bytes::new()).await?;
        read::<Output>(&body).map(|output| output.logs)
    }

    /// Stops a submission; one that is over or unknown stays so.
    ///
    /// # Errors
    /// [`RayError`].
    pub async fn stop(self, id: &str) -> Result<(), RayError> {
        match self.call(Method::POST, &format!("/api/jobs/{id}/stop"), Bytes::new()).await {
            Ok(_) | Err(RayError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call(self, method: Method, path: &str, body: Bytes) -> Result<Bytes, RayError> {
        let unreachable = |error: &dyn std::fmt::Display| RayError::Unreachable(error.to_string());
        let exchange = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(self.stream))
                .await
                .map_err(|error| unreachable(&error))?;
            let connection = atoll_life::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to a cluster's head broke");
                }
            });
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "ray")
                .header("connection", "close")
                .header("content-type", "application/json")
                .header("authorization", format!("Bearer {}", self.token))
                .body(Full::new(body))
                .map_err(|error| RayError::Unintelligible(error.to_string()))?;
            let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| RayError::Unreachable(error.to_string()))?
                .to_bytes();
            connection.abort();
            if status.is_success() {
                return Ok(body);
            }
            let text = String::from_utf8_lossy(&body).chars().take(500).collect();
            Err(RayError::Refused { status, text })
        };
        tokio::time::timeout(CALL_MAX, exchange)
            .await
            .unwrap_or_else(|_| Err(RayError::Unreachable(format!("no answer within {} s", CALL_MAX.as_secs()))))
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RayError> {
    serde_json::from_slice(body).map_err(|error| RayError::Unintelligible(error.to_string()))
}

#[derive(Deserialize)]
struct StateAnswer {
    data: StateData,
}
#[derive(Deserialize)]
struct StateData {
    result: StateResult,
}
#[derive(Deserialize)]
struct StateResult {
    result: Vec<StateNode>,
}
#[derive(Deserialize)]
struct StateNode {
    node_ip: String,
    state: String,
}

/// Addresses of the nodes in state `ALIVE`; dead ones stay listed.
fn alive_in_state(body: &[u8]) -> Result<BTreeSet<Ipv4Addr>, RayError> {
    let answer: StateAnswer = read(body)?;
    let alive = answer.data.result.result.into_iter().filter(|node| node.state == "ALIVE");
    alive
        .map(|node| node.node_ip.parse())
        .collect::<Result<_, _>>()
        .map_err(|error: std::net::AddrParseError| RayError::Unintelligible(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_living_nodes_count() {
        let body = br#"{"result":true,"msg":"","data":{"result":{"total":3,"result":[
            {"node_id":"1","node_ip":"10.77.0.1","state":"ALIVE"},
            {"node_id":"2","node_ip":"10.77.0.2","state":"DEAD"},
            {"node_id":"3","node_ip":"10.77.0.4","state":"ALIVE"}]}}}"#;
        let alive = alive_in_state(body).unwrap();
        assert_eq!(alive, BTreeSet::from([Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 4)]));
        assert!(alive_in_state(b"{}").is_err());
        let forged = br#"{"data":{"result":{"result":[{"node_ip":"x","state":"ALIVE"}]}}}"#;
        assert!(alive_in_state(forged).is_err());
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off_by_the_bound() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        atoll_life::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut request = [0; 64];
            let _ = theirs.read(&mut request).await;
            let _ = theirs.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = [b"100000\r\n".as_slice(), &[b'x'; 0x10_0000], b"\r\n"].concat();
            while theirs.write_all(&chunk).await.is_ok() {}
        });
        let error = Ray::over(ours, "t").output("job").await.unwrap_err();
        assert!(matches!(error, RayError::Unreachable(_)), "{error}");
    }
}

//! How one request reaches a node: HTTP, or whatever a simulation puts in its place.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::RpcError;

/// What came back from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The HTTP status.
    pub status: u16,
    /// The answer's body.
    pub body: Vec<u8>,
}

/// Why nothing useful came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// The node was not reached, or did not answer in time; whether it has the request nobody knows. In words.
    Broken(String),
    /// The answer is longer than allowed.
    TooLarge,
}

/// What a post comes to.
pub type Posting<'a> = Pin<Box<dyn Future<Output = Result<Posted, WireError>> + Send + 'a>>;

/// Posts the bytes of a JSON-RPC request to a node. Repetition, bounds on time and the answer's meaning are its caller's.
pub trait Wire: Debug + Send + Sync {
    /// Posts `body` and gives at most `bytes_max` bytes of the answer.
    fn post(&self, body: String, bytes_max: usize) -> Posting<'_>;
}

/// A node behind HTTP.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    url: String,
}

impl Http {
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, RpcError> {
        // Another part of the process may have installed it already; it is the same provider everywhere in Atoll.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The whole URL may hold a credential, so errors only name its host.
        let refused = |why: String| RpcError::Address { url: shown(url), why };
        let parsed = reqwest::Url::parse(url).map_err(|e| refused(e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(refused("it is no http or https address".to_owned()));
        }
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| refused(e.to_string()))?;
        Ok(Self { client, url: url.to_owned() })
    }
}

impl Wire for Http {
    fn post(&self, body: String, bytes_max: usize) -> Posting<'_> {
        Box::pin(async move {
            let request = self.client.post(&self.url).header("content-type", "application/json").body(body);
            let mut response = request.send().await.map_err(broken)?;
            let status = response.status().as_u16();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(broken)? {
                if bytes.len() + chunk.len() > bytes_max {
                    return Err(WireError::TooLarge);
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Posted { status, body: bytes })
        })
    }
}

/// Host and port only: path and query may hold a credential.
pub(super) fn shown(url: &str) -> String {
    let Ok(url) = reqwest::Url::parse(url) else { return "(not a URL)".to_owned() };
    let host = url.host_str().unwrap_or("(no host)");
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The innermost cause, which says most ("connection refused"), without the URL.
fn broken(error: reqwest::Error) -> WireError {
    if error.is_timeout() {
        return WireError::Broken("no answer in time".to_owned());
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    WireError::Broken(cause.to_string())
}

//! The HTTP client of the API: pinned TLS, typed answers, errors in the server's own words.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atoll_domain::id::JobId;
use atoll_domain::job::SignedSpec;
use atoll_domain::key::{Address, Digest, SecretKey};
use atoll_domain::request::RequestSeal;
use atoll_domain::time::UnixMs;
use base64::Engine as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::{
    DeviceModel, ErrorBody, ExtendOrder, ExtensionView, IDEMPOTENCY_HEADER, JobEvents, JobView, Network, Quote,
    QuoteRequest, SEAL_HEADERS, SubmitJob, Version, Whoami, WorkerView,
};

/// The largest JSON answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long one of several servers may take to be reached before the next is tried.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// A caller's connection to one operator, by any of its servers.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// At least one.
    bases: Arc<[reqwest::Url]>,
    /// The one that answered last; counted on, not bounded.
    current: Arc<AtomicUsize>,
    key: Option<String>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no, and why.
    #[error("{} ({})", .0.message, .0.code)]
    Refused(Box<ErrorBody>),
    /// No answer.
    #[error("cannot reach {base}: {reason}; is the server running, and the address in your profile right?")]
    Unreachable {
        /// The address tried.
        base: String,
        /// What the transport said.
        reason: String,
    },
    /// An answer that is not one of this API.
    #[error("{base} gave an answer that is not Atoll's ({reason}); check the address and both versions")]
    Unintelligible {
        /// The address asked.
        base: String,
        /// What did not fit.
        reason: String,
    },
    /// A certificate or address in the profile is not usable.
    #[error("the profile is not usable: {0}")]
    Profile(String),
}

impl ClientError {
    /// The server's stable code, when the server spoke.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(body) => Some(&body.code),
            _ => None,
        }
    }
}

/// A call that moves money or leases: who signs, and what makes a retry the same call.
#[derive(Debug)]
pub struct Sealing<'a> {
    /// The renter's wallet.
    pub wallet: &'a SecretKey,
    /// The time now.
    pub now: UnixMs,
    /// Fresh randomness.
    pub nonce: [u8; 16],
    /// The same for every retry.
    pub idempotency_key: &'a str,
}

impl Client {
    /// A client for `servers` (for example `https://127.0.0.1:8443`, several with commas between them) that trusts exactly
    /// the certificate authorities in `ca_pem`. When a server cannot be reached the next one is asked; what one may have
    /// begun is asked again only where asking twice is asking once.
    ///
    /// # Errors
    /// [`ClientError::Profile`] when the certificate or an address is none.
    pub fn new(servers: &str, ca_pem: &[u8], key: Option<String>) -> Result<Self, ClientError> {
        let base = |text: &str| {
            let url = reqwest::Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host());
            url.ok_or_else(|| ClientError::Profile(format!("the server `{text}` is not https://HOST:PORT")))
        };
        let bases: Vec<reqwest::Url> = servers.split(',').map(|text| base(text.trim())).collect::<Result<_, _>>()?;
        // A second install is refused, and means that the same provider is in place already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = reqwest::Certificate::from_pem(ca_pem)
            .map_err(|error| ClientError::Profile(format!("its certificate cannot be read: {error}")))?;
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .connect_timeout(if bases.len() > 1 { NEXT_AFTER } else { Duration::from_secs(5) })
            .read_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ClientError::Profile(error.to_string()))?;
        Ok(Self { http, bases: bases.into(), current: Arc::default(), key })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        ClientError::Unreachable { base: self.base(0).0, reason }
    }

    fn unintelligible(&self, reason: impl ToString) -> ClientError {
        ClientError::Unintelligible { base: self.base(0).0, reason: reason.to_string() }
    }

    /// The server after the current one by so many, as text and as URL.
    fn base(&self, after: usize) -> (String, &reqwest::Url) {
        let at = self.current.load(Ordering::Relaxed).wrapping_add(after) % self.bases.len();
        (self.bases[at].as_str().trim_end_matches('/').to_owned(), &self.bases[at])
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base(0).0));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let request = request.build().map_err(|error| ClientError::Profile(error.to_string()))?;
        let answer = self.execute(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = self.bytes(answer).await?;
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(ClientError::Refused(Box::new(body))),
            Err(_) => Err(self.unintelligible(format!("status {status}"))),
        }
    }

    /// Asks the current server, then the others.
    async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, ClientError> {
        // A submission is told again by its idempotency key. The seal of a stop is spent the first time.
        let twice_is_once =
            request.method() != reqwest::Method::POST || matches!(request.url().path(), "/v1/jobs" | "/v1/quotes");
        let first = self.current.load(Ordering::Relaxed);
        let mut after = 0;
        loop {
            let at = first.wrapping_add(after);
            let mut next = request.try_clone().expect("bodies here are bytes in memory, never streams");
            let base = &self.bases[at % self.bases.len()];
            let moved =
                next.url_mut().set_host(base.host_str()).is_ok() && next.url_mut().set_port(base.port()).is_ok();
            debug_assert!(moved, "one https URL with a host takes the place of another");
            match self.http.execute(next).await {
                Ok(answer) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => {
                    after += 1;
                    if after >= self.bases.len() || !(error.is_connect() || twice_is_once) {
                        return Err(self.unreachable(&error));
                    }
                }
            }
        }
    }

    async fn bytes(&self, mut answer: reqwest::Response) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.unintelligible("more than 16 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        let answer = self.send(request).await?;
        let bytes = self.bytes(answer).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.unintelligible(error))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.request(reqwest::Method::GET, path)).await
    }

    async fn post_sealed<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        seal: &Sealing<'_>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Profile(error.to_string()))?;
        let expires = seal.now.after(Duration::from_secs(240));
        let sealed = RequestSeal::sign(seal.wallet, "POST", path, &body, expires, seal.nonce);
        let values = [
            sealed.signer.to_string(),
            sealed.expires.0.to_string(),
            hex::encode(sealed.nonce),
            sealed.signature.to_string(),
        ];
        let mut request = self
            .request(reqwest::Method::POST, path)
            .header("content-type", "application/json")
            .header(IDEMPOTENCY_HEADER, seal.idempotency_key)
            .body(body);
        for (name, value) in SEAL_HEADERS.into_iter().zip(values) {
            request = request.header(name, value);
        }
        self.json(request).await
    }

    /// The server's build.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/version").await
    }

    /// Network root, program, solver keys, packs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn network(&self) -> Result<Network, ClientError> {
        self.get("/v1/network").await
    }

    /// Who this key belongs to.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.get("/v1/whoami").await
    }

    /// The device market.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn devices(&self) -> Result<Vec<DeviceModel>, ClientError> {
        self.get("/v1/devices").await
    }

    /// All workers this operator knows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn workers(&self) -> Result<Vec<WorkerView>, ClientError> {
        self.get("/v1/workers").await
    }

    /// Price and fit of a job, with every refusal.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn quote(&self, request: &QuoteRequest) -> Result<Quote, ClientError> {
        self.json(self.request(reqwest::Method::POST, "/v1/quotes").json(request)).await
    }

    /// Uploads bytes by their digest; doing it again is harmless.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_blob(&self, sha256: Digest, bytes: Vec<u8>) -> Result<(), ClientError> {
        self.send(self.request(reqwest::Method::PUT, &format!("/v1/blobs/{sha256}")).body(bytes)).await.map(drop)
    }

    /// Submits a job. A retry with the same idempotency key gives the same job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn submit(
        &self,
        spec: &SignedSpec,
        order_transaction: &[u8],
        seal: &Sealing<'_>,
    ) -> Result<JobView, ClientError> {
        let base64 = &base64::engine::general_purpose::STANDARD;
        let body = SubmitJob {
            spec: base64.encode(&spec.bytes),
            spec_signature: spec.signature,
            order_transaction: base64.encode(order_transaction),
        };
        self.post_sealed("/v1/jobs", &body, seal).await
    }

    /// The caller's jobs, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn jobs(&self) -> Result<Vec<JobView>, ClientError> {
        self.get("/v1/jobs").await
    }

    /// One job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job(&self, job: JobId) -> Result<JobView, ClientError> {
        self.get(&format!("/v1/jobs/{job}")).await
    }

    /// Stops a job; what was served is paid, the rest refunded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stop(&self, job: JobId, seal: &Sealing<'_>) -> Result<JobView, ClientError> {
        self.post_sealed(&format!("/v1/jobs/{job}/stop"), &serde_json::json!({}), seal).await
    }

    /// Lengthens an order by the renter's signed transaction. A retry with the same idempotency key is the same extension.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn extend(
        &self,
        order: &Address,
        transaction: &[u8],
        seal: &Sealing<'_>,
    ) -> Result<ExtensionView, ClientError> {
        let body = ExtendOrder { transaction: base64::engine::general_purpose::STANDARD.encode(transaction) };
        self.post_sealed(&format!("/v1/orders/{order}/extend"), &body, seal).await
    }

    /// Events after `seq`; waits up to `wait_s` seconds for the first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, job: JobId, after: u64, wait_s: u32) -> Result<JobEvents, ClientError> {
        self.get(&format!("/v1/jobs/{job}/events?after={after}&wait_s={wait_s}")).await
    }

    /// The job's output from a byte offset, as it comes; ends when the job has ended and all is sent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn logs(&self, job: JobId, from: u64, follow: bool) -> Result<reqwest::Response, ClientError> {
        self.send(self.request(reqwest::Method::GET, &format!("/v1/jobs/{job}/logs?from={from}&follow={follow}"))).await
    }

    /// The job's receipt as the operator signed it (JSON). It is worth what `atoll receipt verify` says of it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receipt(&self, job: JobId) -> Result<serde_json::Value, ClientError> {
        self.get(&format!("/v1/jobs/{job}/receipt")).await
    }
}

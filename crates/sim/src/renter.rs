//! A renter: signs orders and jobs as the client does, sends them over the real HTTP API, and remembers what was said.
//!
//! A request without an answer is unknown: it may have happened. It is sent again with the same idempotency key, as the
//! client does, until somebody answers. What was acknowledged must stay so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_api::http::{ErrorBody, IDEMPOTENCY_HEADER, JobView, Network, SEAL_HEADERS, SubmitJob};
use atoll_api::receipt::Receipt;
use atoll_chain::market::instruction::{self, Renter as Payer};
use atoll_chain::market::{address, data::PostOrder};
use atoll_chain::{Address, Keypair, Rpc, sign};
use atoll_domain::id::JobId;
use atoll_domain::job::{Bundle, ClusterKind, JobSpec, JobState, SignedSpec};
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::request::RequestSeal;
use base64::Engine as _;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::http;
use crate::net::{Net, Place};
use crate::random::Random;
use crate::trace::Trace;
use crate::votes::Votes;
use crate::worker::pack;

/// How long one request may take.
const CALL_MAX: Duration = Duration::from_secs(15);
/// How often a receipt is asked for that nobody gives.
const RECEIPT_TRIES: usize = 5;
/// How long an order waits for its devices.
const FILL_S: u32 = 60;
/// The longest a job may run.
const SECONDS_MAX: u32 = 180;
/// The highest ask that is accepted, above every worker's.
const PRICE_MAX_UUSD: u64 = 70_000;

/// What the renter wants of one job.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// When it is submitted.
    pub at: Duration,
    /// Devices.
    pub devices: u32,
    /// Steps of its command, a quarter of a second each.
    pub steps: u64,
    /// Whether the command fails in the end.
    pub fails: bool,
    /// Whether it writes checkpoints.
    pub checkpoints: bool,
    /// When it is stopped.
    pub stopped_after: Option<Duration>,
}

impl Wish {
    /// Draws one that is submitted before `latest`, in a world with so many devices.
    #[must_use]
    pub fn draw(random: &Random, latest: Duration, devices: u64) -> Self {
        let second = Duration::from_secs(1);
        Self {
            at: random.lasts(Duration::ZERO..latest),
            devices: u32::try_from(random.below(1..devices.min(3) + 1)).unwrap_or(1),
            steps: random.below(8..120),
            fails: random.happens(100),
            checkpoints: random.happens(900),
            stopped_after: random.happens(150).then(|| random.lasts(second..40 * second)),
        }
    }
}

/// What became of a wish, as far as the renter knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Not sent yet.
    Nothing,
    /// Sent, and nobody answered.
    Unknown,
    /// Refused: with this code.
    Refused(String),
    /// Acknowledged; where it stood when it was last seen.
    Acknowledged(JobId, JobState, String),
}

/// A wish with its order.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The order's address on the chain.
    pub order: Address,
    /// The operator that it was given to.
    pub operator: usize,
    /// What is known.
    pub known: Known,
}

/// How a renter reaches an operator.
#[derive(Clone, Debug)]
pub struct Contact {
    /// Its nodes.
    pub nodes: Vec<Place>,
    /// The renter's API key there.
    pub api_key: String,
}

/// A renter with one wallet. Clones are the same.
#[derive(Clone, Debug)]
pub struct Renter(Arc<Inner>);

/// What a renter is made of.
#[derive(Debug)]
pub struct Inner {
    /// Where the renter is.
    pub place: Place,
    /// The network.
    pub net: Net,
    /// The renter's own way to the chain.
    pub rpc: Rpc,
    /// The renter's clock.
    pub clock: Clock,
    /// The renter's luck.
    pub random: Random,
    /// What is written down.
    pub trace: Trace,
    /// The wallet.
    pub wallet: Keypair,
    /// The mint of ATL.
    pub mint: Address,
    /// The wallet's ATL.
    pub source: Address,
    /// The operators to talk to.
    pub operators: Vec<Contact>,
    /// The oracle.
    pub placed: Mutex<Vec<Placed>>,
    /// Broken promises.
    pub broken: Mutex<Vec<String>>,
    /// What attestors signed, in receipts too.
    pub votes: Votes,
    /// Operators whose store came back old: a job may be away until they have read their notes.
    pub forgetful: Mutex<BTreeSet<usize>>,
}

/// Everything that one submission sends, however often.
struct Submission {
    number: usize,
    operator: usize,
    idempotency_key: String,
    body: Vec<u8>,
    bundle: Vec<u8>,
}

/// Why a call has no result.
enum Miss {
    /// Nobody answered, or with an error of their own.
    NoAnswer,
    /// Refused, with a code.
    Refused(StatusCode, String),
}

impl Renter {
    /// A renter who has not done anything.
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// What is known of every wish.
    #[must_use]
    pub fn placed(&self) -> Vec<Placed> {
        self.0.placed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the promises that were seen broken.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.broken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn learn(&self, number: usize, known: Known) {
        let mut placed = self.0.placed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = placed.get_mut(number).filter(|it| it.known != known) {
            self.0.trace.line(&self.0.place, &format!("job {number}: {known:?}"));
            it.known = known;
        }
    }

    /// Carries out one wish, from signing to the end of its job.
    pub async fn carry_out(self, wish: Wish) {
        tokio::time::sleep(wish.at).await;
        let submission = loop {
            match self.prepare(wish).await {
                Some(submission) => break submission,
                None => self.pause().await,
            }
        };
        self.0.trace.line(&self.0.place, &format!("job {}: submits {wish:?}", submission.number));
        self.learn(submission.number, Known::Unknown);
        let Some(job) = self.submit(&submission).await else { return };
        self.follow(&submission, job, wish).await;
    }

    /// An operator's store came back old: from now on what it acknowledged may be away for a while, but not for good.
    pub fn may_be_forgotten(&self, operator: usize) {
        self.0.forgetful.lock().unwrap_or_else(PoisonError::into_inner).insert(operator);
    }

    fn is_forgetful(&self, operator: usize) -> bool {
        self.0.forgetful.lock().unwrap_or_else(PoisonError::into_inner).contains(&operator)
    }

    async fn pause(&self) {
        let second = Duration::from_secs(1);
        tokio::time::sleep(self.0.random.lasts(second / 2..3 * second)).await;
    }

    /// Signs order and specification; none when something needed cannot be learnt now.
    async fn prepare(&self, wish: Wish) -> Option<Submission> {
        let all = 0..self.0.operators.len() as u64;
        let operator = usize::try_from(self.0.random.below(all)).unwrap_or(0);
        let network: Network = self.get(operator, "/v1/network").await.ok()?;
        let blockhash = self.0.rpc.latest_blockhash().await.ok()?.blockhash;
        let inner = &self.0;
        let wallet = inner.wallet.address();
        let nonce = inner.random.bits();
        let order = address::order(&wallet, nonce);
        let key = SecretKey::from_seed(&inner.wallet.seed());
        let bundle = b"a job's folder".to_vec();
        let env = [
            ("STEPS", wish.steps.to_string()),
            ("STEP_MS", "250".to_owned()),
            ("EVERY", "8".to_owned()),
            ("EXIT", u8::from(wish.fails).to_string()),
        ];
        let spec = JobSpec {
            version: 1,
            name: "count".to_owned(),
            network: network.network_root,
            renter: PublicKey(wallet.0),
            budget: None,
            order: PublicKey(order.0),
            kind: ClusterKind::Ray,
            model: "cpu".to_owned(),
            devices: wish.devices,
            pack: pack(),
            bundle: Bundle { sha256: Digest::of(&bundle), bytes: bundle.len() as u64 },
            entry: "python count.py".to_owned(),
            env: env.map(|(name, value)| (name.to_owned(), value)).into(),
            checkpoints: wish.checkpoints,
            seconds_max: u64::from(SECONDS_MAX),
        };
        let signed = SignedSpec::sign(&spec, &key).expect("the specification is within its bounds");
        let mut solvers = [[0; 32]; 3];
        for (place, solver) in solvers.iter_mut().zip(&network.solvers) {
            *place = solver.0;
        }
        let post = PostOrder {
            nonce,
            models: [1, 0, 0, 0],
            devices: wish.devices,
            devices_min: wish.devices,
            devices_per_worker: 0,
            tier: 0,
            class: 0,
            region: 0,
            price_cap_uusd: PRICE_MAX_UUSD,
            duration_s: SECONDS_MAX,
            fill_s: FILL_S,
            spec_root: signed.root().0,
            fill_root: [0; 32],
            solvers,
        };
        let posted = instruction::post_order(Payer::Wallet(wallet), wallet, inner.source, inner.mint, &post);
        let transaction = sign(&[posted], &inner.wallet, &[], &blockhash).expect("one instruction fits");
        let base64 = &base64::engine::general_purpose::STANDARD;
        let body = SubmitJob {
            spec: base64.encode(&signed.bytes),
            spec_signature: signed.signature,
            order_transaction: base64.encode(transaction.bytes()),
        };
        let mut placed = inner.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.push(Placed { order, operator, known: Known::Nothing });
        Some(Submission {
            operator,
            number: placed.len() - 1,
            idempotency_key: format!("job-{nonce}"),
            body: serde_json::to_vec(&body).expect("a submission is always JSON"),
            bundle,
        })
    }

    /// Sends it until somebody answers.
    async fn submit(&self, submission: &Submission) -> Option<JobId> {
        let operator = submission.operator;
        loop {
            let path = format!("/v1/blobs/{}", Digest::of(&submission.bundle));
            let uploaded = self.call(operator, Method::PUT, &path, &[], submission.bundle.clone()).await;
            if let Err(Miss::Refused(status, code)) = &uploaded {
                self.learn(submission.number, Known::Refused(format!("blob {status} {code}")));
                return None;
            }
            let answer = match uploaded {
                Ok(_) => {
                    let (key, body) = (&submission.idempotency_key, &submission.body);
                    self.sealed::<JobView>(operator, "/v1/jobs", key, body).await
                }
                Err(miss) => Err(miss),
            };
            match answer {
                Ok(view) => {
                    self.learn(submission.number, Known::Acknowledged(view.job, view.state, String::new()));
                    return Some(view.job);
                }
                Err(Miss::Refused(status, code)) if again(status) => {
                    self.0.trace.event("renter", code.as_bytes());
                }
                Err(Miss::Refused(status, code)) => {
                    self.learn(submission.number, Known::Refused(format!("{status} {code}")));
                    return None;
                }
                Err(Miss::NoAnswer) => {}
            }
            self.pause().await;
        }
    }

    async fn follow(&self, submission: &Submission, job: JobId, wish: Wish) {
        let (number, operator) = (submission.number, submission.operator);
        let stop_at = wish.stopped_after.map(|after| Instant::now() + after);
        let mut stopped = false;
        loop {
            tokio::time::sleep(self.0.random.lasts(Duration::from_secs(1)..Duration::from_secs(4))).await;
            if !stopped && stop_at.is_some_and(|at| at <= Instant::now()) {
                let path = format!("/v1/jobs/{job}/stop");
                stopped = self.sealed::<JobView>(operator, &path, &format!("stop-{job}"), b"{}").await.is_ok();
            }
            match self.get::<JobView>(operator, &format!("/v1/jobs/{job}")).await {
                Ok(view) => {
                    if view.state.is_final() {
                        self.read_receipt(operator, job).await;
                    }
                    let reason = view.reason.clone();
                    self.learn(number, Known::Acknowledged(job, view.state, reason));
                    if view.state.is_final() {
                        return;
                    }
                }
                Err(Miss::Refused(StatusCode::NOT_FOUND, code)) if !self.is_forgetful(operator) => {
                    let broken = format!("{job} was acknowledged and is not there any more: {code}");
                    self.0.broken.lock().unwrap_or_else(PoisonError::into_inner).push(broken);
                    return;
                }
                Err(_) => {}
            }
        }
    }

    /// Reads the receipt of a job that is over, if there is one and somebody gives it.
    async fn read_receipt(&self, operator: usize, job: JobId) {
        for _ in 0..RECEIPT_TRIES {
            match self.get::<Receipt>(operator, &format!("/v1/jobs/{job}/receipt")).await {
                Ok(receipt) => match receipt.open() {
                    Ok(body) => return self.0.votes.receipt(&body),
                    Err(error) => {
                        let broken = format!("the receipt of {job} cannot be believed: {error}");
                        return self.0.broken.lock().unwrap_or_else(PoisonError::into_inner).push(broken);
                    }
                },
                Err(Miss::Refused(..)) => return,
                Err(Miss::NoAnswer) => self.pause().await,
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, operator: usize, path: &str) -> Result<T, Miss> {
        let body = self.call(operator, Method::GET, path, &[], Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|_| Miss::NoAnswer)
    }

    async fn sealed<T: DeserializeOwned>(
        &self,
        operator: usize,
        path: &str,
        idempotency_key: &str,
        body: &[u8],
    ) -> Result<T, Miss> {
        let key = SecretKey::from_seed(&self.0.wallet.seed());
        let expires = self.0.clock.now().after(Duration::from_secs(240));
        let seal = RequestSeal::sign(&key, "POST", path, body, expires, self.0.random.bytes());
        let values =
            [seal.signer.to_string(), seal.expires.0.to_string(), hex::encode(seal.nonce), seal.signature.to_string()];
        let mut headers = vec![("content-type", "application/json"), (IDEMPOTENCY_HEADER, idempotency_key)];
        headers.extend(SEAL_HEADERS.into_iter().zip(values.iter().map(String::as_str)));
        let answer = self.call(operator, Method::POST, path, &headers, body.to_vec()).await?;
        serde_json::from_slice(&answer).map_err(|_| Miss::NoAnswer)
    }

    async fn call(
        &self,
        operator: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Miss> {
        let Contact { nodes, api_key } = &self.0.operators[operator];
        let node = self.0.random.one_of(nodes);
        let authorization = format!("Bearer {api_key}");
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend(headers);
        let exchange = async {
            let (stream, _) = self.0.net.connect(&self.0.place, node).await?;
            http::call(stream, method, path, &all, body).await
        };
        match tokio::time::timeout(CALL_MAX, exchange).await {
            Ok(Ok((status, body))) if status.is_success() => Ok(body),
            Ok(Ok((status, _))) if status.is_server_error() => Err(Miss::NoAnswer),
            Ok(Ok((status, body))) => {
                let code =
                    serde_json::from_slice::<ErrorBody>(&body).map(|body| format!("{}: {}", body.code, body.message));
                Err(Miss::Refused(status, code.unwrap_or_default()))
            }
            _ => Err(Miss::NoAnswer),
        }
    }
}

/// Whether a refusal is worth another try: the operator does not know the chain or its workers yet, or is busy.
fn again(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

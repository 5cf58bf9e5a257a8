//! Submitting and stopping jobs, and everything that is refused: in words, with nothing charged and nothing left behind.

use std::collections::BTreeMap;

use atoll_api::client::{ClientError, Sealing};
use atoll_api::http::{ErrorBody, IDEMPOTENCY_HEADER, JobView, SEAL_HEADERS, SubmitJob};
use atoll_chain::market::address;
use atoll_chain::market::instruction::{self, Renter};
use atoll_chain::{Address, Hash, Keypair};
use atoll_domain::job::{Bundle, ClusterKind, JobSpec, JobState, PackRef, SignedSpec, spec_root};
use atoll_domain::key::{Digest, PublicKey, Purpose, SecretKey, Signature};
use atoll_domain::request::RequestSeal;
use atoll_domain::time::UnixMs;
use atoll_interface::instruction::PostOrder;
use base64::Engine as _;

use crate::rig::{Rig, code, network, new_key, now, pack};

const BUNDLE: &[u8] = b"a packed folder";

/// A submission that would be accepted, to be bent.
struct Draft {
    spec: JobSpec,
    post: PostOrder,
    renter: SecretKey,
    source: PublicKey,
    /// Sign the specification with this key instead.
    spec_key: Option<SecretKey>,
    /// Changes the signed bytes.
    bend: fn(String) -> String,
}

pub(crate) async fn upload(rig: &Rig) {
    rig.client.put_blob(Digest::of(BUNDLE), BUNDLE.to_vec()).await.unwrap();
}

impl Draft {
    fn new(rig: &Rig, nonce: u64) -> Self {
        let renter = SecretKey::from_seed(&rig.renter.seed());
        let order = address::order(&Address(renter.public().0), nonce);
        let spec = JobSpec {
            version: 1,
            name: "digits".into(),
            network: network().network_root,
            renter: renter.public(),
            budget: None,
            order: PublicKey(order.0),
            kind: ClusterKind::Ray,
            model: "cpu".into(),
            devices: 1,
            pack: pack(),
            bundle: Bundle { sha256: Digest::of(BUNDLE), bytes: BUNDLE.len() as u64 },
            entry: "python train.py".into(),
            env: BTreeMap::new(),
            checkpoints: true,
            seconds_max: 3600,
        };
        let post = PostOrder {
            nonce,
            models: [1, 0, 0, 0],
            devices: 1,
            devices_min: 1,
            devices_per_worker: 0,
            tier: 0,
            class: 0,
            region: 0,
            price_cap_uusd: 100_000,
            duration_s: 3600,
            fill_s: 60,
            spec_root: [0; 32],
            fill_root: [0; 32],
            solvers: [rig.control().keys.node.public().0, [0; 32], [0; 32]],
        };
        Self { spec, post, renter, source: PublicKey([5; 32]), spec_key: None, bend: |text| text }
    }

    fn request(&self) -> (SignedSpec, Vec<u8>) {
        let bytes = (self.bend)(serde_json::to_string(&self.spec).unwrap()).into_bytes();
        let root = spec_root(&bytes);
        let key = self.spec_key.as_ref().unwrap_or(&self.renter);
        let spec = SignedSpec { signature: key.sign(Purpose::JobSpec, &root.0), bytes };
        let chain = Keypair::from_seed(&self.renter.seed());
        let mut post = self.post;
        if post.spec_root == [0; 32] {
            post.spec_root = root.0;
        }
        let (source, mint) = (Address(self.source.0), Address(network().mint.0));
        let instruction =
            instruction::post_order(Renter::Wallet(chain.address()), chain.address(), source, mint, &post);
        let signed = atoll_chain::sign(&[instruction], &chain, &[], &Hash([7; 32])).unwrap();
        (spec, signed.bytes().to_vec())
    }

    async fn submit(&self, rig: &Rig, idempotency_key: &str, nonce: u8) -> Result<JobView, ErrorBody> {
        let (spec, transaction) = self.request();
        let seal = Sealing { wallet: &rig.renter, now: now(), nonce: [nonce; 16], idempotency_key };
        match rig.client.submit(&spec, &transaction, &seal).await {
            Ok(view) => Ok(view),
            Err(ClientError::Refused(body)) => Err(*body),
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn accepted(rig: &Rig) -> JobView {
    upload(rig).await;
    Draft::new(rig, 1).submit(rig, "first", 1).await.unwrap()
}

async fn nothing_happened(rig: &Rig) {
    assert_eq!(rig.client.jobs().await.unwrap(), [], "a refused job was left behind");
    assert_eq!(*rig.sent.lock().unwrap(), 0, "something was sent to the chain");
}

#[tokio::test]
async fn a_job_is_accepted_once_however_often_it_is_sent() {
    let rig = Rig::start().await;
    let _worker = rig.worker(1).await;
    upload(&rig).await;
    let draft = Draft::new(&rig, 1);
    let first = draft.submit(&rig, "one", 1).await.unwrap();
    assert_eq!((first.state, first.devices, first.order), (JobState::Ordering, 1, draft.spec.order));
    // By now the order has taken the money and the device: a retry is still the same job.
    rig.fund(0);
    rig.market(|view| view.offers.values_mut().for_each(|offer| offer.leased_mask = 1));
    assert_eq!(draft.submit(&rig, "one", 2).await.unwrap().job, first.job);
    assert_eq!(draft.submit(&rig, "two", 3).await.unwrap_err().code, "order_taken");
    assert_eq!(draft.submit(&rig, "two", 1).await.unwrap_err().code, "replayed_request");
    let mut other = Draft::new(&rig, 1);
    other.spec.name = "other".into();
    assert_eq!(other.submit(&rig, "one", 4).await.unwrap_err().code, "idempotency_key_reused");
    let jobs = rig.client.jobs().await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(rig.client.job(first.job).await.unwrap(), jobs[0]);
}

#[tokio::test]
async fn every_bent_submission_is_refused_with_its_own_code() {
    let rig = Rig::start().await;
    let _worker = rig.worker(1).await;
    upload(&rig).await;
    type Bend = fn(&mut Draft);
    let cases: &[(&str, &str, Bend)] = &[
        ("bad_spec", "`devices` is 0", |d| d.spec.devices = 0),
        ("bad_spec", "`devices` is 1000000000", |d| d.spec.devices = 1_000_000_000),
        ("bad_spec", "`entry`", |d| d.spec.entry = String::new()),
        ("bad_spec", "unknown field", |d| d.bend = |text| text.replacen('{', "{\"root\":1,", 1)),
        ("bad_spec", "cannot be read", |d| d.bend = |_| "{".into()),
        ("bad_spec", "65536", |d| d.bend = |_| " ".repeat(65_537)),
        ("spec_not_signed", "sign it with the key", |d| d.spec_key = Some(SecretKey::from_seed(&[99; 32]))),
        ("wrong_wallet", "acts with", |d| {
            d.renter = SecretKey::from_seed(&[98; 32]);
            d.spec.renter = d.renter.public();
        }),
        ("other_network", "network_root", |d| d.spec.network = Digest::of(b"elsewhere")),
        ("unknown_model", "choose one of cpu, h100", |d| d.spec.model = "tpu".into()),
        ("bad_order", "exactly the model `h100`", |d| d.spec.model = "h100".into()),
        ("bad_order", "price cap is 0.00 USD/h", |d| d.post.price_cap_uusd = 0),
        ("bad_order", "at most 10000.00 USD/h", |d| d.post.price_cap_uusd = u64::MAX),
        ("bad_order", "number of devices is 2", |d| d.post.devices = 2),
        ("bad_order", "least number of devices", |d| d.post.devices_min = 0),
        ("bad_order", "length in seconds", |d| d.post.duration_s = 60),
        ("bad_order", "among its solvers", |d| d.post.solvers = [[1; 32]; 3]),
        ("bad_order", "specification root", |d| d.post.spec_root = [1; 32]),
        ("bad_order", "order account", |d| d.post.nonce = 5),
        ("bad_order", "budget account", |d| d.spec.budget = Some(d.spec.renter)),
        ("bad_order", "time to fill", |d| d.post.fill_s = 0),
        ("bundle_missing", "PUT /v1/blobs/", |d| d.spec.bundle.sha256 = Digest::of(b"not uploaded")),
        ("bundle_missing", "PUT /v1/blobs/", |d| d.spec.bundle.bytes = 3),
        ("insufficient_funds", "are missing", |d| d.source = PublicKey([77; 32])),
        ("cannot_be_filled", "nothing was charged", |d| d.post.price_cap_uusd = 10),
        ("cannot_be_filled", "0 fit now", |d| d.spec.pack = PackRef { sha256: Digest::of(b"old"), ..pack() }),
    ];
    for (n, (code, words, bend)) in (1_u8..).zip(cases) {
        let mut draft = Draft::new(&rig, 1);
        bend(&mut draft);
        let refused = draft.submit(&rig, &format!("case-{n}"), n).await.unwrap_err();
        assert_eq!(&refused.code, code, "case {n}: {}", refused.message);
        assert!(refused.message.contains(words), "case {n}: {}", refused.message);
    }
    nothing_happened(&rig).await;
}

#[tokio::test]
async fn an_order_that_nobody_can_fill_names_every_worker_s_reason() {
    let rig = Rig::start().await;
    let (near, far) = (rig.worker(1).await, rig.worker(2).await);
    upload(&rig).await;
    rig.market(|view| view.offers.get_mut(&near.id).unwrap().leased_mask = 1);
    rig.market(|view| view.offers.get_mut(&far.id).unwrap().ask = atoll_domain::money::UsdMicrosPerHour(900_000));
    let refused = Draft::new(&rig, 1).submit(&rig, "k", 1).await.unwrap_err();
    let reasons: BTreeMap<_, _> = refused.refusals.into_iter().map(|r| (r.worker, r.reason)).collect();
    assert!(reasons[&near.id].contains("leased") && reasons[&far.id].contains("raise max_price"), "{reasons:?}");
    nothing_happened(&rig).await;
}

#[tokio::test]
async fn the_missing_sum_is_named() {
    let rig = Rig::start().await;
    let _worker = rig.worker(1).await;
    upload(&rig).await;
    rig.fund(1_000_000);
    let refused = Draft::new(&rig, 1).submit(&rig, "k", 1).await.unwrap_err();
    let escrow = 27_777_u64 * 3600 + 27_777 * 3600 * 25 / 10_000;
    let missing = atoll_domain::money::Atl(escrow - 1_000_000).to_string();
    assert_eq!(refused.code, "insufficient_funds");
    assert!(refused.message.contains(&missing), "{} lacks {missing}", refused.message);
    nothing_happened(&rig).await;
}

/// Posts a job request with any seal headers.
async fn post_sealed(rig: &Rig, key: &str, body: &[u8], headers: Vec<(&str, String)>) -> (u16, String) {
    let mut request = rig.http.post(format!("{}/v1/jobs", rig.base)).bearer_auth(key).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn headers(seal: &RequestSeal) -> Vec<(&'static str, String)> {
    let [signer, expires, nonce, signature] = SEAL_HEADERS;
    vec![
        (IDEMPOTENCY_HEADER, "raw".to_owned()),
        (signer, seal.signer.to_string()),
        (expires, seal.expires.0.to_string()),
        (nonce, hex::encode(seal.nonce)),
        (signature, seal.signature.to_string()),
    ]
}

#[tokio::test]
async fn a_request_without_its_user_s_fresh_seal_is_refused() {
    let rig = Rig::start().await;
    let _worker = rig.worker(1).await;
    upload(&rig).await;
    let (spec, transaction) = Draft::new(&rig, 1).request();
    let base64 = &base64::engine::general_purpose::STANDARD;
    let body = SubmitJob {
        spec: base64.encode(&spec.bytes),
        spec_signature: spec.signature,
        order_transaction: base64.encode(&transaction),
    };
    let body = serde_json::to_vec(&body).unwrap();
    let seal =
        |key: &SecretKey, path: &str, expires: UnixMs| RequestSeal::sign(key, "POST", path, &body, expires, [3; 16]);
    let soon = UnixMs(now().0 + 60_000);
    let good = seal(&rig.renter, "/v1/jobs", soon);
    let refused = async |headers| code(&post_sealed(&rig, &rig.key, &body, headers).await);
    assert_eq!(refused(vec![]).await, "seal_missing");
    assert_eq!(refused(headers(&seal(&rig.renter, "/v1/jobs", UnixMs(now().0 - 60_000)))).await, "seal_refused");
    assert_eq!(refused(headers(&seal(&rig.renter, "/v1/jobs", UnixMs(now().0 + 900_000)))).await, "seal_refused");
    assert_eq!(refused(headers(&seal(&rig.renter, "/v1/jobs/x/stop", soon))).await, "seal_refused");
    assert_eq!(refused(headers(&RequestSeal { signature: Signature([1; 64]), ..good })).await, "seal_refused");
    assert_eq!(refused(headers(&seal(&SecretKey::from_seed(&[6; 32]), "/v1/jobs", soon))).await, "wrong_wallet");
    assert_eq!(refused(headers(&good)[1..].to_vec()).await, "idempotency_key_missing");
    let changed = [body.as_slice(), b" "].concat();
    assert_eq!(code(&post_sealed(&rig, &rig.key, &changed, headers(&good)).await), "seal_refused");
    let large = vec![b' '; 200_000];
    assert_eq!(code(&post_sealed(&rig, &rig.key, &large, headers(&good)).await), "body_too_large");
    let stranger = new_key(rig.control(), "stranger", SecretKey::from_seed(&[6; 32]).public()).await;
    assert_eq!(code(&post_sealed(&rig, &stranger, &body, headers(&good)).await), "wrong_wallet");
    nothing_happened(&rig).await;
    assert_eq!(post_sealed(&rig, &rig.key, &body, headers(&good)).await.0, 201);
}

#[tokio::test]
async fn a_job_is_its_owner_s_alone_and_is_stopped_by_a_seal() {
    let rig = Rig::start().await;
    let _worker = rig.worker(1).await;
    let job = accepted(&rig).await;
    let stranger = new_key(rig.control(), "stranger", SecretKey::from_seed(&[6; 32]).public()).await;
    for path in ["", "/events", "/logs", "/receipt"] {
        let url = format!("{}/v1/jobs/{}{path}", rig.base, job.job);
        let answer = rig.http.get(url).bearer_auth(&stranger).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
    let ray = format!("{}/v1/clusters/{}/ray/api/jobs/", rig.base, job.cluster);
    assert_eq!(rig.http.get(&ray).bearer_auth(&stranger).send().await.unwrap().status(), 404);
    assert_eq!(rig.http.get(&ray).bearer_auth(&rig.key).send().await.unwrap().status(), 502);
    assert_eq!(rig.client.receipt(job.job).await.unwrap_err().code(), Some("not_settled"));

    let seal = |nonce| Sealing { wallet: &rig.renter, now: now(), nonce: [nonce; 16], idempotency_key: "stop" };
    let stopped = rig.client.stop(job.job, &seal(9)).await.unwrap();
    assert_eq!(stopped.job, job.job);
    assert!(rig.control().store.job(job.job).await.unwrap().unwrap().now.stop_wanted);
    assert_eq!(rig.client.stop(job.job, &seal(9)).await.unwrap_err().code(), Some("replayed_request"));
    rig.client.stop(job.job, &seal(10)).await.unwrap();
    let events = rig.client.events(job.job, 0, 0).await.unwrap().events;
    let kinds: Vec<_> = events.iter().map(|event| (event.seq, event.kind.as_str())).collect();
    assert_eq!(kinds, [(1, "state"), (2, "state")]);
    assert!(rig.client.events(job.job, 2, 1).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn output_is_followed_until_the_job_is_over() {
    let rig = Rig::start().await;
    let _worker = rig.worker(1).await;
    let job = accepted(&rig).await.job;
    let objects = &rig.control().objects;
    objects.append_log(job, 0, "first\n").await.unwrap();
    assert_eq!(rig.client.logs(job, 2, false).await.unwrap().text().await.unwrap(), "rst\n");
    let mut followed = rig.client.logs(job, 0, true).await.unwrap();
    assert_eq!(followed.chunk().await.unwrap().unwrap(), "first\n");
    objects.append_log(job, 6, "last\n").await.unwrap();
    let row = rig.control().store.job(job).await.unwrap().unwrap();
    atoll_control::app::job::change(rig.control(), &row, |now| now.state = JobState::Succeeded).await.unwrap();
    assert_eq!(followed.text().await.unwrap(), "last\n");
}

//! A whole network in one process: the local chain with the real program, operators with their reconcilers, and hands:
//! workers that speak the real link protocol and run no pods.

mod books;
mod clock;
mod gate;
mod hand;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_api::client::{Client, Sealing};
use atoll_api::http::JobView;
use atoll_chain::local::{LocalChain, LocalChainConfig, serve};
use atoll_chain::market::data::{Init, RegisterWorker, SetAsk, SetBudget, SetCatalogue, SetFeed};
use atoll_chain::market::layout::{CLASS_SAMPLED, MODEL_CPU, Slot, TIER_COMMUNITY};
use atoll_chain::market::{Market, address, instruction};
use atoll_chain::spl::{
    LAMPORTS_PER_SOL, MINT_BYTES, TOKEN_PROGRAM, associated_token_address, create_account, create_associated_token,
    initialize_mint, mint_to,
};
use atoll_chain::{Address, Instruction, Keypair, Rpc, RpcConfig};
use atoll_control::config::{Config, Overrides};
use atoll_control::control::Control;
use atoll_control::serve::Node;
use atoll_control::store::Store;
use atoll_domain::id::JobId;
use atoll_domain::job::{Bundle, ClusterKind, JobSpec, JobState, SignedSpec};
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_interface::instruction::PostOrder;
use atoll_life::Life;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::rig::{new_key, pack};
pub(crate) use books::Case;
pub(crate) use clock::Clock;
pub(crate) use gate::{Gate, Way};
pub(crate) use hand::{Hand, Machines};

const ATL: u64 = 1_000_000_000;
/// What everybody starts with.
pub(crate) const PURSE: u64 = 100_000 * ATL;
const BUNDLE: &[u8] = b"a packed folder";
/// The longest one transaction of the set-up may take.
const CONFIRM_MAX: Duration = Duration::from_secs(20);
/// The longest any condition is waited for. A whole job takes about ten seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

fn key(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

/// The one session key of a network, once its wallet makes it one.
pub(crate) fn session() -> SecretKey {
    SecretKey::from_seed(&[88; 32])
}

/// A chain with a network on it.
pub(crate) struct Net {
    _chain: LocalChain,
    pub(crate) rpc: Rpc,
    url: String,
    folder: tempfile::TempDir,
    mint: Keypair,
    admin: Keypair,
    pub(crate) renter: SecretKey,
    pub(crate) attestor_seed: [u8; 32],
    orders: Mutex<u64>,
    pub(crate) machines: Machines,
    /// What all of its processes take for the time.
    pub(crate) clock: Clock,
}

impl Net {
    /// Epochs of four seconds, held for one: a busy machine posts and books within one.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = LocalChainConfig::new(folder.path().join("chain"), [7; 32]);
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let clock = Clock::default();
        config.clock = Arc::new(clock.clone());
        let chain = serve(config).await.unwrap();
        let url = chain.url();
        let net = Self {
            rpc: Rpc::new(RpcConfig::new(&url, 1)).unwrap(),
            url,
            _chain: chain,
            folder,
            mint: key(2),
            admin: key(1),
            renter: SecretKey::from_seed(&[11; 32]),
            attestor_seed: [4; 32],
            orders: Mutex::new(0),
            machines: Machines::default(),
            clock,
        };
        net.make().await;
        net
    }

    async fn send(&self, instructions: &[Instruction], payer: &Keypair, signers: &[&Keypair]) {
        self.rpc.execute(instructions, payer, signers, CONFIRM_MAX).await.unwrap();
    }

    async fn sol(&self, wallet: Address) {
        self.rpc.airdrop(&wallet, 100 * LAMPORTS_PER_SOL).await.unwrap();
    }

    /// A wallet's token account.
    pub(crate) fn purse(&self, wallet: Address) -> Address {
        associated_token_address(&wallet, &self.mint.address())
    }

    async fn tokens(&self, wallet: Address, amount: u64) {
        let mint = self.mint.address();
        let made = create_associated_token(self.admin.address(), wallet, mint);
        let minted = mint_to(mint, self.purse(wallet), mint, amount);
        self.send(&[made, minted], &self.admin, &[&self.mint]).await;
    }

    async fn make(&self) {
        let (admin, mint) = (&self.admin, self.mint.address());
        let (owner, attestor) = (key(3), Keypair::from_seed(&self.attestor_seed));
        for wallet in [admin.address(), owner.address(), Address(self.renter.public().0)] {
            self.sol(wallet).await;
        }
        let rent = self.rpc.rent(MINT_BYTES).await.unwrap();
        let made = create_account(admin.address(), mint, rent, MINT_BYTES, TOKEN_PROGRAM);
        self.send(&[made, initialize_mint(mint, mint, 9)], admin, &[&self.mint]).await;
        for wallet in [admin.address(), owner.address(), Address(self.renter.public().0)] {
            self.tokens(wallet, PURSE).await;
        }
        let seat = [owner.address().0, attestor.address().0];
        let seats = [<[u8; 64]>::try_from(seat.as_flattened()).unwrap()];
        let parameters = Init {
            genesis_hash: self.rpc.genesis_hash().await.unwrap().0,
            fee_bps: 25,
            epoch_s: 4,
            epoch_hold_s: 1,
            stall_s: 7 * 86_400,
            open_s: 30,
            fill_s_max: 600,
            feed_age_s_max: 3_600,
            stake_per_device: 200 * ATL,
            attestor_stake: 1_000 * ATL,
            threshold: 1,
            seats: &seats,
        };
        let treasury = self.purse(admin.address());
        self.send(&[instruction::init(admin.address(), mint, treasury, &parameters).unwrap()], admin, &[]).await;
        let mut name = [0; 32];
        name[..3].copy_from_slice(b"cpu");
        let tier = TIER_COMMUNITY;
        let row = SetCatalogue { id: 1, tier, flags: MODEL_CPU, memory_mib: 2048, multiplier_milli: 1000, name };
        let feed = SetFeed { uusd_per_atl: 250_000, confidence_uusd: 0 };
        let set = [instruction::set_catalogue(admin.address(), &row), instruction::set_feed(admin.address(), &feed)];
        self.send(&set, admin, &[]).await;
        let source = self.purse(owner.address());
        let seated = instruction::register_attestor(owner.address(), attestor.address(), source, mint, 0);
        self.send(&[seated], &owner, &[&attestor]).await;
    }

    /// A supplier with one worker of one device, on the chain.
    pub(crate) async fn hand(&self, n: u8) -> Hand {
        let (supplier, device) = (key(100 + n), key(150 + n));
        self.sol(supplier.address()).await;
        self.tokens(supplier.address(), PURSE).await;
        let worker = RegisterWorker {
            page_no: 0,
            model: 1,
            region: 0,
            devices: 1,
            class: CLASS_SAMPLED,
            ask_uusd: 50_000,
            lease_s_max: 0,
        };
        let registered = instruction::register_worker(supplier.address(), device.address(), &worker);
        self.send(&[registered], &supplier, &[&device]).await;
        let source = self.purse(supplier.address());
        let staked = instruction::stake(supplier.address(), source, self.mint.address(), 200 * ATL);
        self.send(&[staked], &supplier, &[]).await;
        let page = PublicKey(address::page(&supplier.address(), 0).0);
        Hand::new(self, supplier.address(), SecretKey::from_seed(&[150 + n; 32]), page)
    }

    /// Changes what a hand's slot asks; `n` as it was made with.
    pub(crate) async fn set_ask(&self, hand: &Hand, n: u8, ask_uusd: u64, change: u8) {
        let supplier = key(100 + n);
        assert_eq!(supplier.address(), hand.supplier);
        let data = SetAsk { slot: 0, change, ask_uusd, lease_s_max: 0 };
        let page = address::page(&supplier.address(), 0);
        self.send(&[instruction::set_ask(supplier.address(), page, &data)], &supplier, &[]).await;
    }

    /// A hand's slot on the chain.
    pub(crate) async fn slot(&self, hand: &Hand) -> Slot {
        self.market().page(&address::page(&hand.supplier, 0)).await.unwrap().unwrap().value.rows[0]
    }

    /// Puts everything that an operator will write on a disk of its own.
    pub(crate) fn place(&self, n: u8, disk: &Path) {
        std::os::unix::fs::symlink(disk, self.folder.path().join(format!("operator-{n}"))).unwrap();
    }

    /// An operator with a store of its own; `turn` is its share of the epochs.
    pub(crate) async fn operator(&self, n: u8, turn: &str) -> Operator {
        let state = self.folder.path().join(format!("operator-{n}"));
        let keys = state.join("keys");
        std::fs::create_dir_all(&keys).unwrap();
        let node = key(200 + n);
        self.sol(node.address()).await;
        node.save(&keys.join("node.json")).unwrap();
        Keypair::from_seed(&self.attestor_seed).save(&keys.join("attestor.json")).unwrap();
        let mut operator = Operator {
            store: state.clone(),
            around: Arc::new(|store| store),
            state,
            rpc: self.url.clone(),
            turn: turn.to_owned(),
            address: Arc::new(Mutex::new(None)),
            life: Life::default(),
            control: None,
            node: PublicKey(node.address().0),
            clock: self.clock.clone(),
        };
        operator.start().await;
        operator
    }

    /// Lets the session key order for at most so much at once and a day, with ATL and SOL to do it.
    pub(crate) async fn make_budget(&self, order_max: u64, day_max: u64, deposit: u64) {
        let (renter, key) = (Keypair::from_seed(&self.renter.seed()), Address(session().public().0));
        self.sol(key).await;
        let limits =
            SetBudget { key: key.0, order_max, day_max, expires_at: i64::MAX, revoked: 0, deposit, withdraw: 0 };
        let purse = self.purse(renter.address());
        let set = instruction::set_budget(renter.address(), purse, self.mint.address(), &limits);
        self.send(&[set], &renter, &[]).await;
    }

    /// What the session key's vault holds.
    pub(crate) async fn budget_holds(&self) -> u64 {
        let budget = address::budget(&self.renters(), &Address(session().public().0));
        self.rpc.token_balance(&address::budget_vault(&budget)).await.unwrap()
    }

    /// Every token of the network: who has it now.
    pub(crate) async fn tokens_everywhere(&self) -> u64 {
        let filter = [atoll_chain::rpc::Filter::Bytes { offset: 0, bytes: self.mint.address().0.to_vec() }];
        let all = self.rpc.program_accounts(&TOKEN_PROGRAM, &filter).await.unwrap();
        let amount = |data: &[u8]| u64::from_le_bytes(data[64..72].try_into().unwrap());
        all.iter().filter(|account| account.data.len() == 165).map(|account| amount(&account.data)).sum()
    }

    /// What is minted and not burned.
    pub(crate) async fn supply(&self) -> u64 {
        self.rpc.token_supply(&self.mint.address()).await.unwrap()
    }

    pub(crate) async fn balance(&self, wallet: Address) -> u64 {
        self.rpc.token_balance(&self.purse(wallet)).await.unwrap()
    }

    pub(crate) fn renters(&self) -> Address {
        Address(self.renter.public().0)
    }

    pub(crate) fn market(&self) -> Market {
        Market::new(self.rpc.clone())
    }

    /// Has the chain misbehave: the parameter of `atoll_faults`.
    pub(crate) async fn misbehave(&self, order: serde_json::Value) -> serde_json::Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "atoll_faults", "params": [order] });
        let answer = reqwest::Client::new().post(&self.url).json(&body).send().await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].clone()
    }

    /// A gate before this chain.
    pub(crate) async fn gate(&self) -> Gate {
        Gate::to(&self.url).await
    }

    /// The order account, if it stands.
    pub(crate) async fn order(&self, order: &PublicKey) -> Option<atoll_interface::layout::Order> {
        self.market().order(&Address(order.0)).await.unwrap().map(|found| found.value)
    }

    /// A job for `devices` devices at an operator, to be submitted as often as one likes.
    pub(crate) async fn draft(&self, operator: &Operator, devices: u32, seconds: u32) -> Draft {
        self.draft_filled_within(60, operator, devices, seconds).await
    }

    /// The same for an order that takes fills for `fill_s`.
    pub(crate) async fn draft_filled_within(
        &self,
        fill_s: u32,
        operator: &Operator,
        devices: u32,
        seconds: u32,
    ) -> Draft {
        self.draft_of(fill_s, operator, devices, seconds, |_| {}).await
    }

    /// The same with something else in its specification.
    pub(crate) async fn draft_of(
        &self,
        fill_s: u32,
        operator: &Operator,
        devices: u32,
        seconds: u32,
        change: impl FnOnce(&mut JobSpec),
    ) -> Draft {
        let nonce = {
            let mut orders = self.orders.lock().unwrap();
            *orders += 1;
            *orders
        };
        let order = address::order(&self.renters(), nonce);
        let network = self.market().config().await.unwrap().value.header.network_root;
        let mut spec = JobSpec {
            version: 1,
            name: "digits".into(),
            network: Digest(network),
            renter: self.renter.public(),
            budget: None,
            order: PublicKey(order.0),
            kind: ClusterKind::Ray,
            model: "cpu".into(),
            devices,
            pack: pack(),
            bundle: Bundle { sha256: Digest::of(BUNDLE), bytes: BUNDLE.len() as u64 },
            entry: "python train.py".into(),
            env: BTreeMap::new(),
            checkpoints: true,
            seconds_max: u64::from(seconds),
        };
        change(&mut spec);
        let signs = SecretKey::from_seed(&spec.budget.map_or_else(|| self.renter.seed(), |_| session().seed()));
        let signed = SignedSpec::sign(&spec, &signs).unwrap();
        let post = PostOrder {
            nonce,
            models: [1, 0, 0, 0],
            devices,
            devices_min: devices,
            devices_per_worker: 0,
            tier: 0,
            class: 0,
            region: 0,
            price_cap_uusd: 100_000,
            duration_s: seconds,
            fill_s,
            spec_root: signed.root().0,
            fill_root: [0; 32],
            solvers: [operator.node.0, [0; 32], [0; 32]],
        };
        let signer = Keypair::from_seed(&signs.seed());
        let source = self.purse(self.renters());
        let renter = match spec.budget {
            None => instruction::Renter::Wallet(self.renters()),
            Some(key) => instruction::Renter::Budget { wallet: self.renters(), key: Address(key.0) },
        };
        let instruction = instruction::post_order(renter, signer.address(), source, self.mint.address(), &post);
        let blockhash = self.rpc.latest_blockhash().await.unwrap().blockhash;
        let transaction = atoll_chain::sign(&[instruction], &signer, &[], &blockhash).unwrap();
        Draft { signed, transaction: transaction.bytes().to_vec(), order: spec.order, nonce, signs }
    }

    /// Submits a draft; a retry has the same idempotency key and another seal.
    pub(crate) async fn submit(&self, client: &Client, draft: &Draft, try_no: u8) -> JobView {
        self.try_submit(client, draft, try_no).await.unwrap()
    }

    /// The same where it may be refused.
    pub(crate) async fn try_submit(
        &self,
        client: &Client,
        draft: &Draft,
        try_no: u8,
    ) -> Result<JobView, atoll_api::client::ClientError> {
        client.put_blob(Digest::of(BUNDLE), BUNDLE.to_vec()).await?;
        let idempotency_key = format!("job-{}", draft.nonce);
        let mut nonce = [try_no; 16];
        nonce[..8].copy_from_slice(&draft.nonce.to_le_bytes());
        let seal = Sealing { wallet: &draft.signs, now: self.clock.time(), nonce, idempotency_key: &idempotency_key };
        client.submit(&draft.signed, &draft.transaction, &seal).await
    }
}

/// A signed job with its order, not submitted.
pub(crate) struct Draft {
    signed: SignedSpec,
    pub(crate) transaction: Vec<u8>,
    pub(crate) order: PublicKey,
    nonce: u64,
    /// Who signed it, and seals its submission.
    signs: SecretKey,
}

impl Draft {
    /// The same, sealed by another key.
    pub(crate) fn sealed_by(self, signs: SecretKey) -> Self {
        Self { signs, ..self }
    }
}

/// One operator: a state folder, and a node while it lives.
pub(crate) struct Operator {
    pub(crate) state: PathBuf,
    rpc: String,
    turn: String,
    /// Where its node listens; workers look here before each dial.
    pub(crate) address: Arc<Mutex<Option<SocketAddr>>>,
    life: Life,
    control: Option<Arc<Control>>,
    pub(crate) node: PublicKey,
    clock: Clock,
    /// The state folder whose store and objects it uses.
    store: PathBuf,
    /// What is put between the node and its store.
    pub(crate) around: Around,
}

/// Puts something between a node and its store.
pub(crate) type Around = Arc<dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync>;

impl Operator {
    /// Another node over the same store, with the same keys and certificate.
    pub(crate) async fn beside(&self) -> Self {
        let state = self.state.with_extension("beside");
        for folder in ["keys", "tls"] {
            std::fs::create_dir_all(state.join(folder)).unwrap();
            for file in std::fs::read_dir(self.state.join(folder)).unwrap() {
                let file = file.unwrap().path();
                std::fs::copy(&file, state.join(folder).join(file.file_name().unwrap())).unwrap();
            }
        }
        let mut node = Self {
            store: self.state.clone(),
            around: Arc::clone(&self.around),
            state,
            rpc: self.rpc.clone(),
            turn: self.turn.clone(),
            address: Arc::new(Mutex::new(None)),
            life: Life::default(),
            control: None,
            node: self.node,
            clock: self.clock.clone(),
        };
        node.start().await;
        node
    }

    /// Puts another chain behind it, from its next start on.
    pub(crate) fn believe(&mut self, rpc: &str) -> String {
        std::mem::replace(&mut self.rpc, rpc.to_owned())
    }

    /// Starts the node over what is in the state folder.
    pub(crate) async fn start(&mut self) {
        let flags = Overrides {
            state: Some(self.state.clone()),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            rpc: Some(self.rpc.clone()),
            store: Some(format!("sqlite:{}", self.store.join("control.db").display())),
            objects: Some(self.store.join("objects")),
            heartbeat_ms: Some(100),
            attest_turn: Some(self.turn.clone()),
            orphan_grace_s: Some(2),
            ..Overrides::default()
        };
        let config = Config::read(None, flags).unwrap();
        let (told, tells) = tokio::sync::oneshot::channel();
        self.life = Life::default();
        let (life, around, world) = (self.life.clone(), Arc::clone(&self.around), Arc::new(self.clock.clone()));
        tokio::spawn(async move {
            let node = async move {
                let stop = CancellationToken::new();
                let store = around(atoll_control::store::open(&config.store).await.unwrap());
                let node = Node::listen(config, store, world, stop.clone()).await.unwrap();
                let reconcilers = atoll_control::tasks::spawn(&node.control, &stop);
                told.send((Arc::clone(&node.control), node.address)).unwrap();
                std::future::pending::<()>().await;
                drop(reconcilers);
            };
            life.cover(node).await
        });
        let (control, address) = tells.await.unwrap();
        self.control = Some(control);
        *self.address.lock().unwrap() = Some(address);
    }

    /// Kills the node: every task where it stands.
    pub(crate) async fn kill(&mut self) {
        *self.address.lock().unwrap() = None;
        self.life.end().await;
        self.control = None;
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        self.control.as_ref().unwrap()
    }

    /// Every file of the store.
    fn store_files(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(&self.state).unwrap().map(|entry| entry.unwrap().path());
        let of_store = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("control.db");
        all.filter(of_store).collect()
    }

    /// Deletes the store. The node must be dead.
    pub(crate) fn lose_store(&self) {
        for file in self.store_files() {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// Copies the store away. The node must be dead.
    pub(crate) fn back_up(&self, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for file in self.store_files() {
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }

    /// Puts a copy in the store's place. The node must be dead.
    pub(crate) fn restore(&self, from: &Path) {
        self.lose_store();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, self.state.join(path.file_name().unwrap())).unwrap();
        }
    }

    /// A client with a key made now for the renter, as an operator makes one with `atoll admin key create`.
    pub(crate) async fn client(&self, net: &Net) -> Client {
        let key = new_key(self.control(), "renter", net.renter.public()).await;
        let ca = std::fs::read(self.state.join("tls/cert.pem")).unwrap();
        let address = self.address.lock().unwrap().unwrap();
        Client::new(&format!("https://{address}"), &ca, Some(key)).unwrap()
    }

    /// Waits until the job is in a state.
    pub(crate) async fn wait_state(&self, job: JobId, wanted: JobState) {
        self.wait(&format!("job {job} is {wanted}"), job, |row| row.now.state == wanted).await;
    }

    /// Waits until something holds of a job.
    pub(crate) async fn wait(
        &self,
        what: &str,
        job: JobId,
        holds: impl Fn(&atoll_control::store::rows::Job) -> bool,
    ) -> atoll_control::store::rows::Job {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let row = self.control().store.job(job).await.unwrap();
            if let Some(row) = row.as_ref().filter(|row| holds(row)) {
                return row.clone();
            }
            if tokio::time::Instant::now() > until {
                let events = self.control().store.events(job, 0, 500).await.unwrap();
                let told: Vec<String> = events.into_iter().map(|(_, event)| event.message).collect();
                let pods = self.control().store.pods_of(job).await.unwrap();
                panic!("waited in vain until {what}; {:?}; {pods:#?}; {told:#?}", row.map(|row| row.now));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < until, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

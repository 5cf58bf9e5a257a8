//! What a worker believes of a chain whose address leads to several nodes: real chains with the real program, in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_chain::local::{Engine, EngineConfig, MARKET_SO, Settings, WallClock};
use atoll_chain::market::data::{Init, PostOrder, RegisterWorker, SetCatalogue, SetFeed};
use atoll_chain::market::instruction::{self, Place, Renter};
use atoll_chain::market::layout::{CLASS_SAMPLED, MODEL_CPU, TIER_COMMUNITY};
use atoll_chain::market::{PROGRAM_ID, address, data};
use atoll_chain::rpc::{Posted, Posting, Wire};
use atoll_chain::spl::{
    LAMPORTS_PER_SOL, MINT_BYTES, TOKEN_PROGRAM, associated_token_address, create_account, create_associated_token,
    initialize_mint, mint_to,
};
use atoll_chain::{Address, Instruction, Keypair, Rpc};
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::worker::SlotRef;
use atoll_interface::{ATL, Hashes};
use atoll_worker::chain_view::{Reader, Standing, key, rpc_config};

const DEADLINE: Duration = Duration::from_secs(20);

/// A clock that only moves when told to.
#[derive(Debug)]
struct HandClock(AtomicU64);

impl HandClock {
    fn at(unix_ms: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(unix_ms)))
    }

    fn pass_s(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

impl WallClock for HandClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A chain's node. Clones are the same.
#[derive(Clone)]
struct Node(Arc<Mutex<Engine>>);

impl Node {
    fn new(genesis: u8, clock: Arc<HandClock>) -> Self {
        let programs = vec![(PROGRAM_ID, MARKET_SO.to_vec())];
        let config = EngineConfig { genesis_seed: [genesis; 32], programs, clock, settings: Settings::default() };
        Self(Arc::new(Mutex::new(Engine::in_memory(config).unwrap())))
    }

    /// The same chain as it is now, for a node that stays behind.
    fn stays(&self, clock: &HandClock) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().unwrap().fork(HandClock::at(clock.unix_ms())))))
    }
}

/// One address before several nodes: who answers lists of accounts, and who answers the rest.
#[derive(Clone)]
struct Balancer(Arc<Mutex<(Node, Node)>>);

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Balancer")
    }
}

impl Balancer {
    fn of(node: &Node) -> Self {
        Self(Arc::new(Mutex::new((node.clone(), node.clone()))))
    }

    fn lead(&self, lists: &Node, rest: &Node) {
        *self.0.lock().unwrap() = (lists.clone(), rest.clone());
    }

    fn rpc(&self) -> Rpc {
        Rpc::over(Box::new(self.clone()), rpc_config("http://chain:8899", 1))
    }
}

impl Wire for Balancer {
    fn post(&self, body: String, _: usize) -> Posting<'_> {
        let (lists, rest) = self.0.lock().unwrap().clone();
        let node = if body.contains("\"getProgramAccounts\"") { lists } else { rest };
        let answer = node.0.lock().unwrap().answer(body.as_bytes());
        Box::pin(async move { Ok(Posted { status: answer.status, body: answer.body }) })
    }
}

fn wallet(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

/// A network with one worker on it.
struct Net {
    rpc: Rpc,
    admin: Keypair,
    mint: Keypair,
    renter: Keypair,
    supplier: Keypair,
    device: Keypair,
    root: Digest,
}

impl Net {
    /// On a node's chain; it says that it is on the cluster of this genesis hash.
    async fn on(node: &Node, genesis_hash: [u8; 32]) -> Self {
        let rpc = Balancer::of(node).rpc();
        let [admin, mint, renter, supplier, device] = [1, 2, 3, 4, 5].map(wallet);
        for wallet in [&admin, &renter, &supplier] {
            rpc.airdrop(&wallet.address(), 10 * LAMPORTS_PER_SOL).await.unwrap();
        }
        let mut net = Self { rpc, admin, mint, renter, supplier, device, root: Digest([0; 32]) };
        net.make(genesis_hash).await;
        net.root =
            Digest(atoll_chain::market::Market::new(net.rpc.clone()).config().await.unwrap().value.header.network_root);
        net
    }

    async fn run(&self, instructions: &[Instruction], payer: &Keypair, signers: &[&Keypair]) {
        self.rpc.execute(instructions, payer, signers, DEADLINE).await.unwrap();
    }

    fn purse(&self, wallet: &Keypair) -> Address {
        associated_token_address(&wallet.address(), &self.mint.address())
    }

    async fn make(&self, genesis_hash: [u8; 32]) {
        let (admin, mint) = (self.admin.address(), self.mint.address());
        let rent = self.rpc.rent(MINT_BYTES).await.unwrap();
        let made = create_account(admin, mint, rent, MINT_BYTES, TOKEN_PROGRAM);
        self.run(&[made, initialize_mint(mint, mint, 9)], &self.admin, &[&self.mint]).await;
        for wallet in [&self.admin, &self.renter, &self.supplier] {
            let made = create_associated_token(admin, wallet.address(), mint);
            let minted = mint_to(mint, self.purse(wallet), mint, 1_000 * ATL);
            self.run(&[made, minted], &self.admin, &[&self.mint]).await;
        }
        let parameters = Init {
            genesis_hash,
            fee_bps: 25,
            epoch_s: 10,
            epoch_hold_s: 5,
            stall_s: 600,
            open_s: 30,
            fill_s_max: 600,
            feed_age_s_max: 1_000_000,
            stake_per_device: 10 * ATL,
            attestor_stake: 100 * ATL,
            threshold: 1,
            seats: &[[9; 64]],
        };
        let mut name = [0; 32];
        name[..3].copy_from_slice(b"cpu");
        let tier = TIER_COMMUNITY;
        let model = SetCatalogue { id: 1, tier, flags: MODEL_CPU, memory_mib: 1024, multiplier_milli: 1000, name };
        let feed = SetFeed { uusd_per_atl: 250_000, confidence_uusd: 0 };
        let made = [
            instruction::init(admin, mint, self.purse(&self.admin), &parameters).unwrap(),
            instruction::set_catalogue(admin, &model),
            instruction::set_feed(admin, &feed),
        ];
        self.run(&made, &self.admin, &[]).await;
        let supplier = self.supplier.address();
        let terms = RegisterWorker {
            page_no: 0,
            model: 1,
            region: 1,
            devices: 1,
            class: CLASS_SAMPLED,
            ask_uusd: 50_000,
            lease_s_max: 0,
        };
        let registered = instruction::register_worker(supplier, self.device.address(), &terms);
        let staked = instruction::stake(supplier, self.purse(&self.supplier), mint, 10 * ATL);
        self.run(&[registered, staked], &self.supplier, &[&self.device]).await;
    }

    /// An order for one device; its renter may fill and close it.
    async fn post(&self, nonce: u64) -> Address {
        let renter = self.renter.address();
        let post = PostOrder {
            nonce,
            models: [1, 0, 0, 0],
            devices: 1,
            devices_min: 1,
            devices_per_worker: 0,
            tier: 0,
            class: CLASS_SAMPLED,
            region: 0,
            price_cap_uusd: 100_000,
            duration_s: 3_600,
            fill_s: 60,
            spec_root: [7; 32],
            fill_root: [0; 32],
            solvers: [renter.0, [0; 32], [0; 32]],
        };
        let purse = self.purse(&self.renter);
        let posted = instruction::post_order(Renter::Wallet(renter), renter, purse, self.mint.address(), &post);
        self.run(&[posted], &self.renter, &[]).await;
        address::order(&renter, nonce)
    }

    /// Gives the worker's device to an order; the lease.
    async fn fill(&self, order: Address) -> Address {
        let place = Place { order, supplier: self.supplier.address(), page_no: 0, n: 0 };
        let path = Hashes::new(&[]);
        let fill =
            data::FillOrder { mask: 1, ask_max: 50_000, first_slot: 0, bits: &[1], group_index: 0, group_path: path };
        let renter = self.renter.address();
        self.run(&[instruction::fill_order(renter, renter, place, &fill).unwrap()], &self.renter, &[]).await;
        place.lease()
    }

    async fn close(&self, order: Address) {
        let renter = self.renter.address();
        let close = instruction::close_order(renter, order, self.purse(&self.renter), renter, None);
        self.run(&[close], &self.renter, &[]).await;
    }
}

#[tokio::test]
async fn an_order_is_missing_only_where_its_own_network_stands_no_older_than_it_was_seen() {
    let clock = HandClock::at(1_800_000_000_000);
    let own = Node::new(7, Arc::clone(&clock));
    let genesis = Balancer::of(&own).rpc().genesis_hash().await.unwrap().0;
    let net = Net::on(&own, genesis).await;
    let before = own.stays(&clock);
    clock.pass_s(2);
    let order = net.post(1).await;
    let lease = net.fill(order).await;
    clock.pass_s(2);

    let address = Balancer::of(&own);
    let reader = Reader::of_network(address.rpc(), net.root);
    let at = SlotRef { page: key(address::page(&net.supplier.address(), 0)), slot: 0 };
    let (order, lease, device) = (key(order), key(lease), key(net.device.address()));
    let holds = || async {
        let view = reader.order(&order).await.unwrap().unwrap();
        matches!(view.standing(&lease, at, &device), Standing::Holds { mask: 1, .. })
    };
    assert!(holds().await);

    // Whatever stands where the order is missing and should not be.
    let bare = Node::new(7, Arc::clone(&clock));
    let other = Node::new(8, Arc::clone(&clock));
    let genesis_of_other = Balancer::of(&other).rpc().genesis_hash().await.unwrap().0;
    Net::on(&other, genesis_of_other).await;
    let copy = Node::new(9, Arc::clone(&clock));
    assert_eq!(Net::on(&copy, genesis).await.root, net.root);
    for (what, node, said) in [
        ("a node without its accounts", &bare, "no parameters"),
        ("another cluster's network", &other, "carries network"),
        ("a copy of the network", &copy, "its cluster is"),
        ("an older state", &before, "s behind"),
    ] {
        address.lead(node, node);
        let why = reader.order(&order).await.expect_err(what);
        assert!(why.contains(said), "{what}: {why}");
        // As when an address leads to several nodes by turns: lists from one, the rest from another.
        address.lead(node, &own);
        let why = reader.order(&order).await.expect_err(what);
        assert!(why.contains("two different states"), "{what}: {why}");
        address.lead(&own, &own);
        assert!(holds().await, "{what}");
    }

    // And where it is missing for good.
    let brief = net.post(2).await;
    assert!(reader.order(&key(brief)).await.unwrap().is_some());
    net.close(brief).await;
    assert_eq!(reader.order(&key(brief)).await, Ok(None));
    assert_eq!(reader.order(&PublicKey([44; 32])).await, Ok(None), "nobody ever posted it");
}

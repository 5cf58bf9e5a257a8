//! An order's whole life over RPC on the committed program: order, fill, loss, refill, epoch, settle, withdraw, close.
//!
//! Every figure is computed from balances read over RPC, and compared with the interface's own sums.

use atoll_chain::local::LocalChain;
use atoll_chain::market::instruction::{self, Place, Renter};
use atoll_chain::market::layout::{CLASS_SAMPLED, MODEL_CPU, SLOT_SUSPENDED, TIER_COMMUNITY};
use atoll_chain::market::settlement::{FeeSplit, Pay, Reason, worst_case};
use atoll_chain::market::{Market, MarketError, address, arithmetic, data, merkle, network, sha256};
use atoll_chain::rpc::{ConfirmError, Filter};
use atoll_chain::{Address, Hash, Instruction, Keypair, Rpc, RpcError, spl};
use atoll_interface::{ATL, Hashes};

use crate::support::{DEADLINE, HandClock, give, key, make_mint, run, start};

pub(crate) const EPOCH_S: u32 = 10;
pub(crate) const HOLD_S: u32 = 5;
pub(crate) const STAKE: u64 = 10 * ATL;
pub(crate) const PURSE: u64 = 1_000 * ATL;
pub(crate) const ASK_UUSD: u64 = 50_000;
const FEED_UUSD: u64 = 250_000;
const DURATION_S: u32 = 100;
const FEE_BPS: u16 = 25;
const CPU: u16 = 1;

/// A chain with a network on it: mint, one attestor seat, one model, a price.
pub(crate) struct World {
    pub(crate) chain: LocalChain,
    pub(crate) rpc: Rpc,
    pub(crate) market: Market,
    clock: std::sync::Arc<HandClock>,
    folder: tempfile::TempDir,
    pub(crate) admin: Keypair,
    pub(crate) node: Keypair,
    pub(crate) attestor: Keypair,
    pub(crate) renter: Keypair,
    pub(crate) suppliers: [Keypair; 2],
    pub(crate) mint: Address,
    treasury: Address,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = HandClock::new();
        let (chain, rpc) = start(folder.path(), clock.clone()).await;
        let [admin, node, attestor, renter] = [1, 2, 3, 4].map(key);
        let suppliers = [key(5), key(6)];
        for wallet in [&admin, &node, &attestor, &renter, &suppliers[0], &suppliers[1]] {
            rpc.airdrop(&wallet.address(), 10 * spl::LAMPORTS_PER_SOL).await.unwrap();
        }
        let mint = key(7);
        make_mint(&rpc, &admin, &mint).await;
        let mint = mint.address();
        let treasury = give(&rpc, &admin, mint, key(8).address(), 0).await;
        for wallet in [&admin, &renter, &suppliers[0], &suppliers[1]] {
            give(&rpc, &admin, mint, wallet.address(), PURSE).await;
        }
        let market = Market::new(rpc.clone());
        let world =
            Self { chain, rpc, market, clock, folder, admin, node, attestor, renter, suppliers, mint, treasury };
        world.found().await;
        world
    }

    async fn found(&self) {
        let admin = self.admin.address();
        let mut seat = [0; 64];
        seat[..32].copy_from_slice(&admin.0);
        seat[32..].copy_from_slice(&self.attestor.address().0);
        let init = data::Init {
            genesis_hash: self.rpc.genesis_hash().await.unwrap().0,
            fee_bps: FEE_BPS,
            epoch_s: EPOCH_S,
            epoch_hold_s: HOLD_S,
            stall_s: 600,
            open_s: 30,
            fill_s_max: 600,
            feed_age_s_max: 1_000_000,
            stake_per_device: STAKE,
            attestor_stake: 100 * ATL,
            threshold: 1,
            seats: &[seat],
        };
        let mut name = [0; 32];
        name[..3].copy_from_slice(b"cpu");
        let model = data::SetCatalogue {
            id: CPU,
            tier: TIER_COMMUNITY,
            flags: MODEL_CPU,
            memory_mib: 1024,
            multiplier_milli: 1000,
            name,
        };
        let feed = data::SetFeed { uusd_per_atl: FEED_UUSD, confidence_uusd: 0 };
        let found = [
            instruction::init(admin, self.mint, self.treasury, &init).unwrap(),
            instruction::set_catalogue(admin, &model),
            instruction::set_feed(admin, &feed),
        ];
        run(&self.rpc, &found, &self.admin, &[]).await;
        let key = self.attestor.address();
        let seat = instruction::register_attestor(admin, key, self.purse(&self.admin), self.mint, 0);
        run(&self.rpc, &[seat], &self.admin, &[&self.attestor]).await;
        self.wait(1).await;
    }

    pub(crate) fn purse(&self, wallet: &Keypair) -> Address {
        spl::associated_token_address(&wallet.address(), &self.mint)
    }

    /// Registers a worker with one CPU and stakes for it.
    pub(crate) async fn worker(&self, supplier: &Keypair, device: &Keypair) {
        let wallet = supplier.address();
        let terms = data::RegisterWorker {
            page_no: 0,
            model: CPU,
            region: 1,
            devices: 1,
            class: CLASS_SAMPLED,
            ask_uusd: ASK_UUSD,
            lease_s_max: 0,
        };
        let register = instruction::register_worker(wallet, device.address(), &terms);
        let stake = instruction::stake(wallet, self.purse(supplier), self.mint, STAKE);
        run(&self.rpc, &[register, stake], supplier, &[device]).await;
    }

    /// Lets chain time pass; new blockhashes come with it.
    pub(crate) async fn wait(&self, seconds: u32) {
        self.clock.forward_ms(u64::from(seconds) * 1000);
        self.conserved().await;
    }

    pub(crate) async fn now(&self) -> i64 {
        self.rpc.clock().await.unwrap().unix_timestamp
    }

    /// Sums every token account of the mint over RPC: no token appears or vanishes but by minting and burning.
    pub(crate) async fn conserved(&self) -> u64 {
        let filters = [Filter::DataSize(165), Filter::Bytes { offset: 0, bytes: self.mint.0.to_vec() }];
        let accounts = self.rpc.program_accounts(&spl::TOKEN_PROGRAM, &filters).await.unwrap();
        let held: u64 = accounts.iter().map(|account| spl::TokenAccount::read(&account.data).unwrap().amount).sum();
        assert_eq!(held, self.rpc.token_supply(&self.mint).await.unwrap(), "tokens held are the supply");
        for order in self.market.orders().await.unwrap() {
            let vault = self.rpc.token_balance(&address::order_vault(&order.address)).await.unwrap();
            assert_eq!(vault, order.value.vault().unwrap(), "vault = escrow + fees + owed");
        }
        held
    }

    pub(crate) async fn node(&self, instructions: &[Instruction]) {
        run(&self.rpc, instructions, &self.node, &[]).await;
        self.conserved().await;
    }

    pub(crate) async fn refusal(&self, instruction: Instruction, payer: &Keypair) -> MarketError {
        let refused = self.rpc.execute(&[instruction], payer, &[], DEADLINE).await.unwrap_err();
        let ConfirmError::Rpc(RpcError::Failed(failure)) = refused else { panic!("{refused}") };
        assert!(failure.to_string().contains("was refused by the market program: "), "{failure}");
        failure.market_error().unwrap_or_else(|| panic!("{failure}"))
    }

    /// Stops the chain as a crash would and starts it again from its log.
    async fn crash(self) -> Self {
        let Self { chain, clock, folder, .. } = self;
        chain.shutdown().await;
        let (chain, rpc) = start(folder.path(), clock.clone()).await;
        Self { chain, market: Market::new(rpc.clone()), rpc, clock, folder, ..self }
    }

    /// Lets the running epoch end and votes for a root over the leaves, which is then in its hold: its account, and the path
    /// of each leaf.
    pub(crate) async fn attest(&self, leaves: &[merkle::Leaf]) -> (Address, Vec<Vec<[u8; 32]>>) {
        self.wait(EPOCH_S).await;
        let config = self.market.config().await.unwrap().value.header;
        let running = network::epoch_at(self.now().await, config.epoch_zero, config.epoch_s).unwrap();
        let tree = |index| {
            let mut scratch = vec![[0; 32]; merkle::padded_len(leaves.len())];
            for (hash, leaf) in scratch.iter_mut().zip(leaves) {
                *hash = leaf.hash(sha256);
            }
            let mut path = vec![[0; 32]; merkle::depth(leaves.len())];
            let (root, _) = merkle::root_and_path(sha256, &mut scratch, index, &mut path).unwrap();
            (Hash(root), path)
        };
        let (root, _) = tree(0);
        let vote = instruction::post_epoch(self.attestor.address(), self.node.address(), running - 1, root);
        run(&self.rpc, &[vote], &self.node, &[&self.attestor]).await;
        let epoch = self.market.epoch(running - 1, &root).await.unwrap().unwrap();
        assert_eq!(epoch.value.vote_count, 1);
        (epoch.address, (0..leaves.len()).map(|index| tree(index).1).collect())
    }

    /// Votes for a root over the leaves, waits for the hold, and settles every leaf.
    async fn settle(&self, order: Address, leaves: &[merkle::Leaf]) {
        let (epoch, paths) = self.attest(leaves).await;
        let settle = |index: usize| {
            let leaf = &leaves[index];
            let leaf_data = data::SettleLease {
                device_seconds: leaf.device_seconds,
                until: leaf.until,
                flags: leaf.flags,
                slots_root: leaf.slots_root,
                leaf_index: u32::try_from(index).unwrap(),
                path: Hashes::new(&paths[index]),
            };
            instruction::settle_lease(order, Address(leaf.lease), epoch, &leaf_data).unwrap()
        };
        assert_eq!(self.refusal(settle(0), &self.node).await, MarketError::EpochNotFinal, "still in its hold");
        self.wait(HOLD_S).await;
        for index in 0..leaves.len() {
            self.node(&[settle(index)]).await;
        }
    }
}

pub(crate) fn order_terms(node: Address) -> data::PostOrder {
    data::PostOrder {
        nonce: 1,
        models: [CPU, 0, 0, 0],
        devices: 2,
        devices_min: 2,
        devices_per_worker: 0,
        tier: 0,
        class: CLASS_SAMPLED,
        region: 0,
        price_cap_uusd: 2 * ASK_UUSD,
        duration_s: DURATION_S,
        fill_s: 60,
        spec_root: network::spec_root(sha256, b"{}"),
        fill_root: [0; 32],
        solvers: [node.0, [0; 32], [0; 32]],
    }
}

pub(crate) fn fill(filler: Address, place: Place, bits: &[u8]) -> Instruction {
    let data = data::FillOrder {
        mask: 1,
        ask_max: ASK_UUSD,
        first_slot: 0,
        bits,
        group_index: 0,
        group_path: Hashes::new(&[]),
    };
    instruction::fill_order(filler, filler, place, &data).unwrap()
}

pub(crate) fn leaf(lease: Address, device_seconds: u64, until: i64, flags: u8) -> merkle::Leaf {
    merkle::Leaf { lease: lease.0, device_seconds, until, flags, slots_root: [0; 32] }
}

#[tokio::test]
async fn order_fill_loss_refill_epoch_settle_withdraw_close() {
    let mut world = World::new().await;
    let devices = [key(20), key(21), key(22)];
    world.worker(&world.suppliers[0], &devices[0]).await;
    world.worker(&world.suppliers[0], &devices[1]).await;
    world.worker(&world.suppliers[1], &devices[2]).await;
    let minted = world.conserved().await;
    let (node, renter) = (world.node.address(), world.renter.address());
    let [first_wallet, second_wallet] = [world.suppliers[0].address(), world.suppliers[1].address()];

    // Order: the worst case is escrowed, fee included.
    let terms = order_terms(node);
    let order = address::order(&renter, terms.nonce);
    let source = world.purse(&world.renter);
    let post = instruction::post_order(Renter::Wallet(renter), renter, source, world.mint, &terms);
    run(&world.rpc, &[post], &world.renter, &[]).await;
    let rate_cap = arithmetic::rate(2 * ASK_UUSD, FEED_UUSD).unwrap();
    let escrow = worst_case(rate_cap, 2, DURATION_S, FEE_BPS).unwrap();
    assert_eq!(world.rpc.token_balance(&source).await.unwrap(), PURSE - escrow);
    world.wait(1).await;

    // Fill: the solver may, a stranger may not yet.
    let place = Place { order, supplier: first_wallet, page_no: 0, n: 0 };
    assert_eq!(world.refusal(fill(renter, place, &[0b11]), &world.renter).await, MarketError::SolverWindow);
    world.node(&[fill(node, place, &[0b11])]).await;
    let active_at = world.now().await;
    let posted = world.market.order(&order).await.unwrap().unwrap().value;
    assert_eq!((posted.active_at, posted.end), (active_at, active_at + i64::from(DURATION_S)));

    // The chain crashes and comes back with all of it.
    world = world.crash().await;
    assert_eq!(world.market.order(&order).await.unwrap().unwrap().value, posted);
    assert_eq!(world.conserved().await, minted);

    // One worker is lost after 30 s and replaced from the other supplier after 35 s.
    world.wait(30).await;
    let lost = data::ReleaseLease { reason: Reason::Lost as u8, effective_at: 0, first_slot: 1, bits: &[1] };
    let page = place.page();
    world.node(&[instruction::release_lease(node, order, place.lease(), page, None, &lost).unwrap()]).await;
    let slots = world.market.page(&page).await.unwrap().unwrap().value.rows;
    assert!(slots[1].flags & SLOT_SUSPENDED != 0 && slots[1].leased_mask == 0 && slots[0].leased_mask == 1);
    world.wait(5).await;
    let refill = Place { order, supplier: second_wallet, page_no: 0, n: 1 };
    world.node(&[fill(node, refill, &[1])]).await;
    assert_eq!(world.market.leases_of(&order).await.unwrap().len(), 2);
    assert_eq!(world.market.leases_on(&refill.page()).await.unwrap()[0].address, refill.lease());

    // The job is done at 60 s: the renter stops what is left.
    world.wait(25).await;
    let done_at = world.now().await;
    let done = data::ReleaseLease { reason: Reason::Done as u8, effective_at: 0, first_slot: 0, bits: &[1] };
    let stop = [place, refill]
        .map(|at| instruction::release_lease(renter, order, at.lease(), at.page(), None, &done).unwrap());
    run(&world.rpc, &stop, &world.renter, &[]).await;
    world.conserved().await;
    // 60 s of the first worker and 29 of the lost one; 25 of the replacement.
    let served = [60 + 29, 25];
    let leaves = [place, refill].map(|at| at.lease());
    let leaves = [0, 1].map(|n| leaf(leaves[n], served[n], done_at, merkle::FLAG_FINAL));
    world.settle(order, &leaves).await;

    // Owed is withdrawn, leases and order close, fees are collected.
    let config = world.market.config().await.unwrap().value.header;
    assert_eq!(Address(config.treasury), world.treasury);
    let purses = [0, 1].map(|n| world.purse(&world.suppliers[n]));
    world.node(&[instruction::withdraw_owed(order, place.lease(), page, purses[0])]).await;
    // In the same slot it would be the same transaction, and answered as such.
    world.wait(1).await;
    let again = instruction::withdraw_owed(order, place.lease(), page, purses[0]);
    assert_eq!(world.refusal(again, &world.node).await, MarketError::NothingToDo);
    for (at, purse) in [place, refill].into_iter().zip(purses) {
        world.node(&[instruction::close_lease(order, at.lease(), at.page(), purse, node)]).await;
    }
    assert!(world.market.leases_of(&order).await.unwrap().is_empty());
    world.node(&[instruction::collect_fees(order, world.mint, world.treasury)]).await;
    world.node(&[instruction::close_order(node, order, source, renter, None)]).await;
    assert_eq!(world.market.order(&order).await.unwrap(), None);

    // The books, from balances alone.
    let rate = arithmetic::rate(ASK_UUSD, FEED_UUSD).unwrap();
    let pays = served.map(|seconds| Pay::of(rate, seconds, FEE_BPS).unwrap());
    let fees: u64 = pays.iter().map(|pay| pay.fees().unwrap()).sum();
    let split = FeeSplit::of(fees);
    let stakes = [2 * STAKE, STAKE];
    for (n, pay) in pays.iter().enumerate() {
        let balance = world.rpc.token_balance(&purses[n]).await.unwrap();
        assert_eq!(balance, PURSE - stakes[n] + pay.supplier(), "supplier {n}");
    }
    let spent: u64 = pays.iter().map(|pay| pay.renter().unwrap()).sum();
    assert_eq!(world.rpc.token_balance(&source).await.unwrap(), PURSE - spent);
    assert_eq!(world.rpc.token_balance(&world.treasury).await.unwrap(), split.treasury);
    assert_eq!(world.conserved().await, minted - split.burned);
    assert!(split.burned > 0 && split.treasury > 0);
    world.chain.shutdown().await;
}

#[tokio::test]
async fn refusals_name_what_happened_and_charge_nothing() {
    let world = World::new().await;
    let (node, renter) = (world.node.address(), world.renter.address());
    let source = world.purse(&world.renter);
    let post =
        |terms: &data::PostOrder| instruction::post_order(Renter::Wallet(renter), renter, source, world.mint, terms);
    let mut unknown = order_terms(node);
    unknown.models = [99, 0, 0, 0];
    let mut none = order_terms(node);
    (none.devices, none.devices_min) = (0, 0);
    let mut dear = order_terms(node);
    (dear.price_cap_uusd, dear.devices, dear.devices_min) = (1_000_000_000, 100, 100);
    for (terms, expected) in [
        (unknown, MarketError::ModelUnknown),
        (none, MarketError::ParameterOutOfRange),
        (dear, MarketError::FundsShort),
    ] {
        assert_eq!(world.refusal(post(&terms), &world.renter).await, expected);
        assert_eq!(world.rpc.token_balance(&source).await.unwrap(), PURSE, "{expected:?}");
    }
    assert!(world.market.orders_of(&renter).await.unwrap().is_empty());
    // The admin's instruments need the admin.
    let feed = data::SetFeed { uusd_per_atl: 1, confidence_uusd: 0 };
    assert_eq!(world.refusal(instruction::set_feed(renter, &feed), &world.renter).await, MarketError::NotAuthorised);
    assert_eq!(world.market.feed().await.unwrap().value.uusd_per_atl, FEED_UUSD);
}

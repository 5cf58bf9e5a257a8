//! The calls of a client: an order's life seen from every side.

use crate::world::{World, pda, sha256};
use atoll_interface::{
    ATL, Address, Data, Hash, Hashes, NO_ADDRESS,
    instruction::{self as ix, Meta},
    merkle::{DEPTH_MAX, Leaf, padded_len, root_and_path},
    seeds,
    settlement::Reason,
};

/// One instruction, ready to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: &'static str,
    pub metas: Vec<Meta>,
    pub data: Vec<u8>,
    /// Data of ed25519 instructions that stand before it in its transaction.
    pub checks: Vec<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(name: &'static str, metas: &[Meta], data: Data) -> Self {
        Self { name, metas: metas.to_vec(), data: data.as_slice().to_vec(), checks: vec![] }
    }
}

/// Seconds of an epoch in the tests' network.
pub const EPOCH_S: u32 = 10;
/// Seconds for which a root is held.
pub const HOLD_S: u32 = 5;
/// Seconds of the solvers' window.
pub const OPEN_S: u32 = 30;
/// Seconds after which an unsettled lease closes.
pub const STALL_S: u32 = 600;
/// Model number of the CPU.
pub const CPU: u16 = 1;
/// The suppliers' ask: 0.05 USD per device-hour.
pub const ASK: u64 = 50_000;
/// Micro-USD per ATL.
pub const FEED: u64 = 250_000;
/// Seconds of a lease.
pub const DURATION_S: u32 = 100;
/// Stake per device.
pub const STAKE: u64 = 10 * ATL;

/// Addresses of the network.
pub fn config() -> Address {
    pda(&seeds::config())
}

pub fn catalogue() -> Address {
    pda(&seeds::catalogue())
}

pub fn feed() -> Address {
    pda(&seeds::feed())
}

pub fn epoch(index: u64, root: &Hash) -> Address {
    pda(&seeds::epoch(&index.to_le_bytes(), root))
}

impl World {
    /// A chain with the network made: one attestor seat, one model, a price.
    pub fn new() -> Self {
        let mut world = Self::bare();
        world.must(&world.init());
        world.must(&world.set_catalogue(CPU));
        world.must(&world.set_feed(FEED));
        let owner = world.admin;
        world.purse(owner);
        world.must(&world.register_attestor());
        world.must(&world.set_rules());
        world.fill_emission(0);
        world
    }

    pub fn init(&self) -> Call {
        let mut seat = [0; 64];
        seat[..32].copy_from_slice(&self.admin);
        seat[32..].copy_from_slice(&self.attestor);
        self.init_with(1, &[seat])
    }

    pub fn init_with(&self, threshold: u16, seats: &[[u8; 64]]) -> Call {
        let accounts = ix::InitAccounts {
            admin: self.admin,
            config: config(),
            catalogue: catalogue(),
            feed: feed(),
            mint: self.mint,
            treasury: self.treasury,
        };
        let data = ix::Init {
            genesis_hash: [7; 32],
            fee_bps: 25,
            epoch_s: EPOCH_S,
            epoch_hold_s: HOLD_S,
            stall_s: STALL_S,
            open_s: OPEN_S,
            fill_s_max: 600,
            feed_age_s_max: 1_000_000,
            stake_per_device: STAKE,
            attestor_stake: 100 * ATL,
            threshold,
            seats,
        };
        Call::new("init", &accounts.metas(), data.encode().unwrap())
    }

    pub fn set_catalogue(&self, id: u16) -> Call {
        let accounts = ix::SetCatalogueAccounts { admin: self.admin, config: config(), catalogue: catalogue() };
        let mut name = [0; 32];
        name[..3].copy_from_slice(b"cpu");
        let data = ix::SetCatalogue { id, tier: 1, flags: 1, memory_mib: 1024, multiplier_milli: 1_000, name };
        Call::new("set_catalogue", &accounts.metas(), data.encode().unwrap())
    }

    pub fn set_feed(&self, uusd_per_atl: u64) -> Call {
        let accounts = ix::SetFeedAccounts { admin: self.admin, config: config(), feed: feed() };
        let data = ix::SetFeed { uusd_per_atl, confidence_uusd: 0 };
        Call::new("set_feed", &accounts.metas(), data.encode().unwrap())
    }

    pub fn register_attestor(&self) -> Call {
        self.register_seat(0, self.admin, self.attestor)
    }

    pub fn register_seat(&self, seat: u16, owner: Address, key: Address) -> Call {
        let attestor = pda(&seeds::attestor(&key));
        let accounts = ix::RegisterAttestorAccounts {
            owner,
            key,
            attestor,
            vault: pda(&seeds::attestor_vault(&attestor)),
            source: sha256(&[b"purse", &owner]),
            mint: self.mint,
            config: config(),
        };
        Call::new("register_attestor", &accounts.metas(), ix::RegisterAttestor { seat }.encode().unwrap())
    }

    pub fn post_epoch(&self, key: Address, index: u64, root: Hash) -> Call {
        let accounts = ix::PostEpochAccounts {
            key,
            payer: self.node,
            attestor: pda(&seeds::attestor(&key)),
            epoch: epoch(index, &root),
            config: config(),
        };
        Call::new("post_epoch", &accounts.metas(), ix::PostEpoch { index, root }.encode().unwrap())
    }

    /// Index of the newest epoch that is over.
    pub fn last_epoch(&self) -> u64 {
        let zero = self.read::<atoll_interface::layout::Config>(config()).epoch_zero;
        u64::try_from(self.now() - zero).unwrap() / u64::from(EPOCH_S) - 1
    }

    /// Lets the running epoch end, posts a root over some leaves, and waits until it pays.
    pub fn attest(&mut self, leaves: &[Leaf]) -> Attested {
        self.wait(i64::from(EPOCH_S));
        let tree = Attested::over(self.last_epoch(), leaves);
        let call = self.post_epoch(self.attestor, tree.index, tree.root);
        self.must(&call);
        self.wait(i64::from(HOLD_S));
        tree
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// A posted root with its leaves.
#[derive(Clone, Debug)]
pub struct Attested {
    pub index: u64,
    pub root: Hash,
    pub(crate) leaves: Vec<Leaf>,
}

impl Attested {
    pub fn over(index: u64, leaves: &[Leaf]) -> Self {
        let mut tree = Self { index, root: [0; 32], leaves: leaves.to_vec() };
        tree.root = tree.path(0).0;
        tree
    }

    pub(crate) fn path(&self, at: usize) -> (Hash, Vec<Hash>) {
        let mut scratch: Vec<Hash> = self.leaves.iter().map(|leaf| leaf.hash(sha256)).collect();
        scratch.resize(padded_len(scratch.len()), [0; 32]);
        let mut path = [[0; 32]; DEPTH_MAX];
        let (root, depth) = root_and_path(sha256, &mut scratch, at, &mut path).unwrap();
        (root, path[..depth].to_vec())
    }

    /// The settlement of one of its leaves.
    pub fn settle(&self, at: usize, order: Address) -> Call {
        let (leaf, path) = (&self.leaves[at], self.path(at).1);
        let accounts = ix::SettleLeaseAccounts {
            order,
            lease: leaf.lease,
            epoch: epoch(self.index, &self.root),
            config: config(),
        };
        let data = ix::SettleLease {
            device_seconds: leaf.device_seconds,
            until: leaf.until,
            flags: leaf.flags,
            slots_root: leaf.slots_root,
            leaf_index: u32::try_from(at).unwrap(),
            path: Hashes::new(&path),
        };
        Call::new("settle_lease", &accounts.metas(), data.encode().unwrap())
    }
}

impl Attested {
    /// The settlement of `count` leaves at once, from the one at `first` on.
    pub fn settle_batch(&self, first: usize, count: usize, order: Address) -> Call {
        let leaves = &self.leaves[first..first + count];
        let path = self.path(first).1[count.trailing_zeros() as usize..].to_vec();
        let epoch = epoch(self.index, &self.root);
        let mut metas = ix::SettleBatchAccounts { order, epoch, config: config() }.metas().to_vec();
        metas.extend(leaves.iter().map(|leaf| Meta { address: leaf.lease, signer: false, writable: true }));
        let said: Vec<_> = leaves.iter().map(ix::said).collect();
        let first_leaf = u32::try_from(first).unwrap();
        let data = ix::SettleBatch { first_leaf, leaves: &said, path: Hashes::new(&path) };
        Call::new("settle_batch", &metas, data.encode().unwrap())
    }
}

impl Attested {
    /// The settlement of neighbouring leaves, from the one at `first` on, each of another order.
    pub fn settle_mixed(&self, first: usize, orders: &[Address]) -> Call {
        let leaves = &self.leaves[first..first + orders.len()];
        let path = self.path(first).1[orders.len().trailing_zeros() as usize..].to_vec();
        let epoch = epoch(self.index, &self.root);
        let mut metas = ix::SettleMixedAccounts { epoch, config: config() }.metas().to_vec();
        let written = orders.iter().copied().chain(leaves.iter().map(|leaf| leaf.lease));
        metas.extend(written.map(|address| Meta { address, signer: false, writable: true }));
        let said: Vec<_> = leaves.iter().map(ix::said).collect();
        let first_leaf = u32::try_from(first).unwrap();
        let data = ix::SettleMixed { first_leaf, leaves: &said, path: Hashes::new(&path) };
        Call::new("settle_mixed", &metas, data.encode().unwrap())
    }
}

/// A leaf that says some seconds up to a time.
pub fn leaf(lease: Address, device_seconds: u64, until: i64) -> Leaf {
    Leaf { lease, device_seconds, until, flags: 0, slots_root: [3; 32] }
}

/// A renter, a supplier with workers, and one order between them.
#[derive(Clone, Debug)]
pub struct Party {
    pub renter: Address,
    pub purse: Address,
    pub supplier: Address,
    pub supplier_purse: Address,
    pub devices: Vec<Address>,
    pub page: Address,
    pub session: Address,
    pub nonce: u64,
    pub mint: Address,
    pub treasury: Address,
    pub node: Address,
}

impl Party {
    /// Funded wallets; nothing registered yet.
    pub fn new(world: &mut World, name: &str) -> Self {
        let renter = world.key(&format!("{name}/renter"));
        let supplier = world.key(&format!("{name}/supplier"));
        Self {
            renter,
            purse: world.purse(renter),
            supplier,
            supplier_purse: world.purse(supplier),
            devices: (0..4).map(|i| world.poor_key(&format!("{name}/device{i}"))).collect(),
            page: pda(&seeds::page(&supplier, &[0, 0])),
            session: world.poor_key(&format!("{name}/session")),
            nonce: 1,
            mint: world.mint,
            treasury: world.treasury,
            node: world.node,
        }
    }

    /// As [`Party::new`], with `workers` workers of one device registered and staked for.
    pub fn ready(world: &mut World, name: &str, workers: usize) -> Self {
        let party = Self::new(world, name);
        for device in 0..workers {
            world.must(&party.register(device));
        }
        world.must(&party.stake(STAKE * workers as u64));
        party
    }

    pub fn order(&self) -> Address {
        pda(&seeds::order(&self.renter, &self.nonce.to_le_bytes()))
    }

    pub fn vault(&self) -> Address {
        pda(&seeds::order_vault(&self.order()))
    }

    pub fn lease(&self, n: u16) -> Address {
        pda(&seeds::lease(&self.order(), &self.page, &n.to_le_bytes()))
    }

    pub fn budget(&self) -> Address {
        pda(&seeds::budget(&self.renter, &self.session))
    }

    pub fn budget_vault(&self) -> Address {
        pda(&seeds::budget_vault(&self.budget()))
    }

    pub fn register(&self, device: usize) -> Call {
        self.register_on(0, self.devices[device], ASK)
    }

    pub fn register_on(&self, page_no: u16, device: Address, ask_uusd: u64) -> Call {
        let accounts = ix::RegisterWorkerAccounts {
            supplier: self.supplier,
            device,
            config: config(),
            catalogue: catalogue(),
            page: pda(&seeds::page(&self.supplier, &page_no.to_le_bytes())),
            first_page: self.page,
            device_key: pda(&seeds::device(&device)),
        };
        let data =
            ix::RegisterWorker { page_no, model: CPU, region: 1, devices: 1, class: 1, ask_uusd, lease_s_max: 0 };
        Call::new("register_worker", &accounts.metas(), data.encode().unwrap())
    }

    pub fn stake(&self, amount: u64) -> Call {
        let accounts = ix::StakeAccounts {
            supplier: self.supplier,
            first_page: self.page,
            vault: pda(&seeds::stake_vault(&self.page)),
            source: self.supplier_purse,
            mint: self.mint,
            config: config(),
        };
        Call::new("stake", &accounts.metas(), ix::Stake { amount }.encode().unwrap())
    }

    pub fn set_ask(&self, authority: Address, slot: u16, change: u8, ask_uusd: u64) -> Call {
        let accounts = ix::SetAskAccounts { authority, page: self.page };
        let data = ix::SetAsk { slot, change, ask_uusd, lease_s_max: 0 };
        Call::new("set_ask", &accounts.metas(), data.encode().unwrap())
    }

    pub fn set_budget(&self, deposit: u64, withdraw: u64, expires_at: i64) -> Call {
        self.set_budget_with(ix::SetBudget {
            key: self.session,
            order_max: 100 * ATL,
            day_max: 150 * ATL,
            expires_at,
            revoked: 0,
            deposit,
            withdraw,
        })
    }

    pub fn set_budget_with(&self, data: ix::SetBudget) -> Call {
        let accounts = ix::SetBudgetAccounts {
            renter: self.renter,
            budget: self.budget(),
            vault: self.budget_vault(),
            wallet_token: self.purse,
            mint: self.mint,
            config: config(),
        };
        Call::new("set_budget", &accounts.metas(), data.encode().unwrap())
    }

    /// An order for some devices at up to twice the suppliers' ask, by one solver: the node.
    pub fn terms(&self, devices: u32) -> ix::PostOrder {
        ix::PostOrder {
            nonce: self.nonce,
            models: [CPU, 0, 0, 0],
            devices,
            devices_min: devices,
            devices_per_worker: 1,
            tier: 0,
            class: 1,
            region: 0,
            price_cap_uusd: 2 * ASK,
            duration_s: DURATION_S,
            fill_s: 60,
            spec_root: [8; 32],
            fill_root: [0; 32],
            solvers: [self.node, NO_ADDRESS, NO_ADDRESS],
        }
    }

    pub fn post(&self, devices: u32) -> Call {
        self.post_with(&self.terms(devices))
    }

    pub fn post_with(&self, terms: &ix::PostOrder) -> Call {
        self.post_as(terms, self.renter, self.purse, self.order())
    }

    pub fn post_by_budget(&self, terms: &ix::PostOrder) -> Call {
        self.post_as(terms, self.session, self.budget_vault(), self.budget())
    }

    fn post_as(&self, terms: &ix::PostOrder, authority: Address, source: Address, budget: Address) -> Call {
        let accounts = ix::PostOrderAccounts {
            authority,
            payer: self.node,
            order: self.order(),
            vault: self.vault(),
            source,
            budget,
            config: config(),
            catalogue: catalogue(),
            feed: feed(),
            mint: self.mint,
        };
        Call::new("post_order", &accounts.metas(), terms.encode().unwrap())
    }

    /// Fills the order with some slots of page 0 as lease `n`.
    pub fn fill(&self, n: u16, first_slot: u16, bits: &[u8]) -> Call {
        self.fill_as(self.node, n, &fill_data(first_slot, bits))
    }

    pub fn fill_as(&self, filler: Address, n: u16, data: &ix::FillOrder<'_>) -> Call {
        self.fill_page(filler, self.page, self.lease(n), data)
    }

    pub fn fill_page(&self, filler: Address, page: Address, lease: Address, data: &ix::FillOrder<'_>) -> Call {
        let accounts = ix::FillOrderAccounts {
            filler,
            payer: self.node,
            order: self.order(),
            page,
            first_page: self.page,
            lease,
            config: config(),
        };
        Call::new("fill_order", &accounts.metas(), data.encode().unwrap())
    }

    pub fn release(&self, authority: Address, n: u16, reason: Reason, first_slot: u16, bits: &[u8]) -> Call {
        self.release_at(authority, n, reason, first_slot, bits, i64::MAX)
    }

    pub fn release_at(
        &self,
        authority: Address,
        n: u16,
        reason: Reason,
        first_slot: u16,
        bits: &[u8],
        effective_at: i64,
    ) -> Call {
        let accounts = ix::ReleaseLeaseAccounts {
            authority,
            order: self.order(),
            lease: self.lease(n),
            page: self.page,
            budget: if authority == self.session { self.budget() } else { self.order() },
        };
        let data = ix::ReleaseLease { reason: reason as u8, effective_at, first_slot, bits };
        Call::new("release_lease", &accounts.metas(), data.encode().unwrap())
    }

    /// What an extension of the order costs now.
    pub fn extension(&self, world: &World, seconds: u32) -> u64 {
        world.read::<atoll_interface::layout::Order>(self.order()).extension(seconds).unwrap()
    }

    pub fn extend_order(&self, renter: Address, seconds: u32, escrow: u64) -> Call {
        let accounts = ix::ExtendOrderAccounts { renter, order: self.order(), vault: self.vault(), source: self.purse };
        Call::new("extend_order", &accounts.metas(), ix::ExtendOrder { seconds, escrow }.encode().unwrap())
    }

    pub fn extend_lease(&self, n: u16) -> Call {
        let accounts = ix::ExtendLeaseAccounts { order: self.order(), lease: self.lease(n), page: self.page };
        Call::new("extend_lease", &accounts.metas(), ix::ExtendLease {}.encode().unwrap())
    }

    pub fn withdraw(&self, n: u16) -> Call {
        let accounts = ix::WithdrawOwedAccounts {
            order: self.order(),
            lease: self.lease(n),
            page: self.page,
            vault: self.vault(),
            destination: self.supplier_purse,
        };
        Call::new("withdraw_owed", &accounts.metas(), ix::WithdrawOwed {}.encode().unwrap())
    }

    pub fn close_lease(&self, n: u16) -> Call {
        let accounts = ix::CloseLeaseAccounts {
            order: self.order(),
            lease: self.lease(n),
            page: self.page,
            vault: self.vault(),
            destination: self.supplier_purse,
            rent_payer: self.node,
            config: config(),
        };
        Call::new("close_lease", &accounts.metas(), ix::CloseLease {}.encode().unwrap())
    }

    pub fn close_order(&self, authority: Address) -> Call {
        self.close_order_to(authority, self.purse, self.order())
    }

    pub fn close_order_to(&self, authority: Address, refund: Address, budget: Address) -> Call {
        let accounts = ix::CloseOrderAccounts {
            authority,
            order: self.order(),
            vault: self.vault(),
            refund,
            rent_payer: self.node,
            budget,
        };
        Call::new("close_order", &accounts.metas(), ix::CloseOrder {}.encode().unwrap())
    }

    pub fn collect(&self) -> Call {
        let accounts = ix::CollectFeesAccounts {
            order: self.order(),
            vault: self.vault(),
            mint: self.mint,
            treasury: self.treasury,
            config: config(),
        };
        Call::new("collect_fees", &accounts.metas(), ix::CollectFees {}.encode().unwrap())
    }
}

/// A group of one device a slot, at any ask.
pub fn fill_data(first_slot: u16, bits: &[u8]) -> ix::FillOrder<'_> {
    ix::FillOrder { mask: 1, ask_max: u64::MAX, first_slot, bits, group_index: 0, group_path: Hashes::new(&[]) }
}

//! What the client reads from the chain itself, and the two transactions of a renter: posting an order and
//! lengthening it.
//!
//! The server's words about money are shown, never believed: network root, price feed, fee, balance and worst case come
//! from accounts that this machine asks for, through `interface`'s layouts and sums.

use atoll_chain::market::instruction::Renter;
use atoll_chain::market::{self, PROGRAM_ID};
use atoll_chain::rpc::Account;
use atoll_chain::{Address, Hash, Instruction, Rpc, RpcConfig, RpcError, SignedTransaction, sign, spl};
use atoll_domain::key::{Digest, PublicKey, sha256};
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_interface::instruction::{ExtendOrder, PostOrder};
use atoll_interface::layout::{Catalogue, Config, GpuModel, Order, PriceFeed, Record as _, Seat, Table as _};
use atoll_interface::settlement::worst_case;
use atoll_interface::{arithmetic, network};

use crate::exit::{Exit, Failure};
use crate::session::{Buyer, Wallet, random};

/// The chain through one RPC node.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The node.
    pub rpc: Rpc,
}

/// A network as the chain's own data show it.
#[derive(Clone, Debug)]
pub struct ChainNetwork {
    /// Computed from what follows.
    pub root: Digest,
    /// The market program.
    pub program_id: PublicKey,
    /// The chain's genesis hash.
    pub genesis_hash: PublicKey,
    /// Attestor set 0.
    pub seats: Vec<Seat>,
    /// The network's parameters.
    pub config: Config,
}

/// What an order is made of.
#[derive(Clone, Copy, Debug)]
pub struct OrderTerms {
    /// The renter's number for it.
    pub nonce: u64,
    /// Number of the device model.
    pub model: u16,
    /// Devices, all or nothing.
    pub devices: u32,
    /// The highest ask accepted.
    pub price_max: UsdMicrosPerHour,
    /// Length of the lease.
    pub duration_s: u32,
    /// Time to become active.
    pub fill_s: u32,
    /// Root of the specification.
    pub spec_root: Digest,
    /// The operator's keys.
    pub solvers: [PublicKey; 3],
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Failed(_) | RpcError::Refused { .. } => {
                Self::new(Exit::Refused, "chain_refused", format!("{error}; nothing was charged"))
            }
            RpcError::Address { .. } => Self::usage(error.to_string()),
            _ => Self::new(Exit::Unreachable, "chain_unreachable", error.to_string()),
        }
    }
}

fn missing(what: &str) -> Failure {
    let next = "is this the right chain? The `rpc` of the profile names it";
    Failure::new(Exit::OtherNetwork, "no_network", format!("the chain has no {what}: {next}"))
}

/// The account's data when the market program owns it.
fn owned(account: Option<Account>, what: &str) -> Result<Vec<u8>, Failure> {
    account.filter(|account| account.owner == PROGRAM_ID).map(|account| account.data).ok_or_else(|| missing(what))
}

impl Chain {
    /// The chain at an RPC address. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Failure`] when the address is none.
    pub fn new(url: &str) -> Result<Self, Failure> {
        Ok(Self { rpc: Rpc::new(RpcConfig::new(url, u64::from_le_bytes(random()?)))? })
    }

    /// The network's root, from genesis hash, program and attestor set 0.
    ///
    /// # Errors
    /// [`Failure`] when the chain cannot be asked or holds no network.
    pub async fn network(&self) -> Result<ChainNetwork, Failure> {
        let genesis = self.rpc.genesis_hash().await?;
        let data = owned(self.rpc.account(&market::address::config()).await?, "Atoll network")?;
        let malformed = |_| missing("Atoll network of this version");
        let config = Config::read(&data).map_err(malformed)?;
        let mut seats = Vec::new();
        for index in 0..usize::from(config.seat_count) {
            seats
                .push(Config::read_row(&data, index).map_err(malformed)?.ok_or_else(|| missing("whole attestor set"))?);
        }
        let packed: Vec<[u8; 64]> = seats.iter().map(seat_bytes).collect();
        let root = network::network_root(sha256, &PROGRAM_ID.0, &genesis.0, config.threshold, &packed);
        Ok(ChainNetwork {
            root: Digest(root),
            program_id: PublicKey(PROGRAM_ID.0),
            genesis_hash: PublicKey(genesis.0),
            seats,
            config,
        })
    }

    /// The catalogue's row of a model.
    ///
    /// # Errors
    /// [`Failure`] naming the models there are.
    pub async fn model(&self, name: &str) -> Result<GpuModel, Failure> {
        let data = owned(self.rpc.account(&market::address::catalogue()).await?, "device catalogue")?;
        let count = Catalogue::read(&data).map_err(|_| missing("device catalogue of this version"))?.count();
        let rows: Vec<GpuModel> = (0..count).filter_map(|at| Catalogue::read_row(&data, at).ok().flatten()).collect();
        let found = rows.iter().find(|row| model_name(row) == name).copied();
        found.ok_or_else(|| {
            let known: Vec<String> = rows.iter().map(model_name).collect();
            let message = format!(
                "no device model `{name}`; the catalogue has: {}. See `atoll gpu list`; nothing was charged",
                known.join(", ")
            );
            Failure::new(Exit::Refused, "unknown_model", message)
        })
    }

    /// The price feed.
    ///
    /// # Errors
    /// [`Failure`] when the chain cannot be asked or has none.
    pub async fn feed(&self) -> Result<PriceFeed, Failure> {
        let data = owned(self.rpc.account(&market::address::feed()).await?, "price feed")?;
        PriceFeed::read(&data).map_err(|_| missing("price feed of this version"))
    }

    /// An order's account; none when it does not exist (any more).
    ///
    /// # Errors
    /// [`Failure`] when the chain cannot be asked.
    pub async fn order(&self, order: &Address) -> Result<Option<Order>, Failure> {
        let account = self.rpc.account(order).await?.filter(|account| account.owner == PROGRAM_ID);
        Ok(account.and_then(|account| Order::read(&account.data).ok()))
    }

    /// ATL in a wallet's own token account; zero when it has none.
    ///
    /// # Errors
    /// [`Failure`] when the chain cannot be asked.
    pub async fn atl(&self, wallet: &Address, mint: &Address) -> Result<Atl, Failure> {
        let account = self.rpc.token_account(&spl::associated_token_address(wallet, mint)).await?;
        Ok(Atl(account.map_or(0, |account| account.amount)))
    }

    /// Signs `post_order` with a new blockhash. It is not sent: the operator relays it with the job.
    ///
    /// # Errors
    /// [`Failure`] when the chain cannot be asked.
    pub async fn sign_order(&self, buyer: &Buyer, mint: Address, terms: &OrderTerms) -> Result<Vec<u8>, Failure> {
        let blockhash = self.rpc.latest_blockhash().await?.blockhash;
        let instruction = post_order(buyer.of(), mint, terms);
        Ok(signed(&instruction, &buyer.signs, &blockhash)?.bytes().to_vec())
    }
}

impl Chain {
    /// Signs `extend_order` with a new blockhash; gives the last height at which the chain can take it. It is not sent.
    ///
    /// # Errors
    /// [`Failure`] when the chain cannot be asked.
    pub async fn sign_extension(
        &self,
        wallet: &Wallet,
        order: &PublicKey,
        mint: Address,
        seconds: u32,
        escrow: u64,
    ) -> Result<(SignedTransaction, u64), Failure> {
        let latest = self.rpc.latest_blockhash().await?;
        let renter = wallet.chain.address();
        let source = spl::associated_token_address(&renter, &mint);
        let data = ExtendOrder { seconds, escrow };
        let instruction = market::instruction::extend_order(renter, Address(order.0), source, &data);
        Ok((signed(&instruction, wallet, &latest.blockhash)?, latest.last_valid_block_height))
    }
}

fn seat_bytes(seat: &Seat) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&seat.owner);
    bytes[32..].copy_from_slice(&seat.key);
    bytes
}

/// A catalogue row's name.
#[must_use]
pub fn model_name(row: &GpuModel) -> String {
    let end = row.name.iter().position(|&byte| byte == 0).unwrap_or(row.name.len());
    String::from_utf8_lossy(&row.name[..end]).into_owned()
}

/// The address of a renter's order.
#[must_use]
pub fn order_address(renter: &Address, nonce: u64) -> Address {
    market::address::order(renter, nonce)
}

/// What post_order escrows: the worst case with the renter's fee.
///
/// # Errors
/// [`Failure`] when feed or sum are out of range.
pub fn escrow(price: UsdMicrosPerHour, feed: u64, devices: u32, duration_s: u32, fee_bps: u16) -> Result<Atl, Failure> {
    arithmetic::rate(price.0, feed).and_then(|rate| worst_case(rate, devices, duration_s, fee_bps)).map(Atl).map_err(
        |error| Failure::new(Exit::Refused, "escrow", format!("the worst case cannot be escrowed: {}", error.words())),
    )
}

/// The instruction that posts an order of a wallet, signed by it or by its session key, who pays the rent.
#[must_use]
pub fn post_order(renter: Renter, mint: Address, terms: &OrderTerms) -> Instruction {
    let post = PostOrder {
        nonce: terms.nonce,
        models: [terms.model, 0, 0, 0],
        devices: terms.devices,
        devices_min: terms.devices,
        devices_per_worker: 0,
        tier: 0,
        class: 0,
        region: 0,
        price_cap_uusd: terms.price_max.0,
        duration_s: terms.duration_s,
        fill_s: terms.fill_s,
        spec_root: terms.spec_root.0,
        fill_root: [0; 32],
        solvers: terms.solvers.map(|key| key.0),
    };
    let source = spl::associated_token_address(&renter.wallet(), &mint);
    market::instruction::post_order(renter, renter.authority(), source, mint, &post)
}

fn signed(instruction: &Instruction, wallet: &Wallet, blockhash: &Hash) -> Result<SignedTransaction, Failure> {
    sign(std::slice::from_ref(instruction), &wallet.chain, &[], blockhash)
        .map_err(|error| Failure::new(Exit::Internal, "transaction", error.to_string()))
}

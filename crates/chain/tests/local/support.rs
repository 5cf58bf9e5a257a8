//! A chain on a free port, a clock that the test holds, keys and shorthand.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atoll_chain::local::{self, LocalChain, LocalChainConfig, WallClock};
use atoll_chain::rpc::Confirmed;
use atoll_chain::{Address, Instruction, Keypair, Rpc, RpcConfig, spl};

/// Longest wait for one transaction.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// One token of the tests' mint.
pub(crate) const TOKEN: u64 = 1_000_000_000;

/// A clock that only moves when told to.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_800_000_000_000)))
    }

    pub(crate) fn forward_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn back_ms(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::Relaxed);
    }
}

impl WallClock for HandClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn config(folder: &Path, clock: Arc<dyn WallClock>) -> LocalChainConfig {
    let mut config = LocalChainConfig::new(folder.to_owned(), [7; 32]);
    config.listen.set_port(0);
    config.clock = clock;
    config
}

pub(crate) async fn start(folder: &Path, clock: Arc<HandClock>) -> (LocalChain, Rpc) {
    let chain = local::serve(config(folder, clock)).await.unwrap();
    let rpc = Rpc::new(RpcConfig::new(chain.url(), 1)).unwrap();
    (chain, rpc)
}

pub(crate) fn key(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

pub(crate) async fn run(rpc: &Rpc, instructions: &[Instruction], payer: &Keypair, signers: &[&Keypair]) -> Confirmed {
    rpc.execute(instructions, payer, signers, DEADLINE).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Makes a mint of nine decimals at `mint`'s address, with `payer` as authority.
pub(crate) async fn make_mint(rpc: &Rpc, payer: &Keypair, mint: &Keypair) {
    let rent = rpc.rent(spl::MINT_BYTES).await.unwrap();
    let create = spl::create_account(payer.address(), mint.address(), rent, spl::MINT_BYTES, spl::TOKEN_PROGRAM);
    let initialise = spl::initialize_mint(mint.address(), payer.address(), 9);
    run(rpc, &[create, initialise], payer, &[mint]).await;
}

/// Makes the wallet's token account with `amount` new tokens in it.
pub(crate) async fn give(rpc: &Rpc, authority: &Keypair, mint: Address, wallet: Address, amount: u64) -> Address {
    let account = spl::associated_token_address(&wallet, &mint);
    let create = spl::create_associated_token(authority.address(), wallet, mint);
    let fund = spl::mint_to(mint, account, authority.address(), amount);
    run(rpc, &[create, fund], authority, &[]).await;
    account
}

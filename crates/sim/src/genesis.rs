//! The chain before a world begins: mint, parameters, catalogue, feed, attestor, suppliers with staked workers, a renter.
//!
//! Made once in a process for each number of workers, by the same transactions as on a real network, and forked for
//! every world: what differs between worlds comes later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use atoll_chain::local::{Engine, EngineConfig, MARKET_SO, Settings, WallClock};
use atoll_chain::market::data::{Init, RegisterWorker, SetCatalogue, SetFeed};
use atoll_chain::market::layout::{CLASS_SAMPLED, MODEL_CPU, TIER_COMMUNITY};
use atoll_chain::market::stake::LOCAL_RULES;
use atoll_chain::market::{Market, PROGRAM_ID, address, emission, instruction, leaving};
use atoll_chain::rpc::{Posted, Posting, Wire};
use atoll_chain::spl::{
    LAMPORTS_PER_SOL, MINT_BYTES, TOKEN_PROGRAM, associated_token_address, create_account, create_associated_token,
    initialize_mint, mint_to, system_transfer,
};
use atoll_chain::{Address, Instruction, Keypair, Rpc, RpcConfig};
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::worker::SlotRef;

use crate::clock::BEGINNING;

/// Base units of one ATL.
const ATL: u64 = 1_000_000_000;
/// Stake per device.
const STAKE_PER_DEVICE: u64 = 200 * ATL;
/// Stake of the attestor.
const ATTESTOR_STAKE: u64 = 1_000 * ATL;
/// What the renter and each supplier begin with.
const PURSE: u64 = 10_000 * ATL;
/// SOL of every wallet.
const SOL: u64 = 100 * LAMPORTS_PER_SOL;
/// Micro-USD per ATL.
const FEED_UUSD: u64 = 250_000;
/// Workers of one supplier; they share a fleet page.
const WORKERS_PER_SUPPLIER: usize = 2;
/// Operators that a world can have.
pub const OPERATORS_MAX: usize = 2;
/// Devices of each worker.
pub const DEVICES: u8 = 2;
/// Length of an epoch.
pub const EPOCH_S: u32 = 5;
/// The asks of workers, in turn, micro-USD per device-hour.
const ASKS_UUSD: [u64; 3] = [50_000, 60_000, 45_000];

/// Everybody who has a key.
#[derive(Debug)]
pub struct People {
    /// Sets parameters, catalogue and feed; owns the treasury's account.
    pub admin: Keypair,
    /// The mint's address and authority.
    pub mint: Keypair,
    /// Stakes for the attestor.
    pub attestor_owner: Keypair,
    /// Votes.
    pub attestor: Keypair,
    /// One an operator: fills, releases, relays.
    pub nodes: [Keypair; OPERATORS_MAX],
    /// Rents.
    pub renter: Keypair,
    /// One for every two workers.
    pub suppliers: Vec<Keypair>,
    /// One a worker.
    pub devices: Vec<Keypair>,
}

fn keypair(role: &str, n: usize) -> Keypair {
    Keypair::from_seed(&Digest::of(format!("atoll-sim/{role}/{n}").as_bytes()).0)
}

impl People {
    /// The people of a world with so many workers; the same in all of them.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            admin: keypair("admin", 0),
            mint: keypair("mint", 0),
            attestor_owner: keypair("attestor-owner", 0),
            attestor: keypair("attestor", 0),
            nodes: std::array::from_fn(|n| keypair("node", n)),
            renter: keypair("renter", 0),
            suppliers: (0..workers.div_ceil(WORKERS_PER_SUPPLIER)).map(|n| keypair("supplier", n)).collect(),
            devices: (0..workers).map(|n| keypair("device", n)).collect(),
        }
    }

    /// Where a worker stands on the chain.
    #[must_use]
    pub fn slot(&self, worker: usize) -> SlotRef {
        let supplier = self.suppliers[worker / WORKERS_PER_SUPPLIER].address();
        let slot = u16::try_from(worker % WORKERS_PER_SUPPLIER).expect("two on a page");
        SlotRef { page: PublicKey(address::page(&supplier, 0).0), slot }
    }

    /// A wallet's token account.
    #[must_use]
    pub fn tokens(&self, wallet: &Keypair) -> Address {
        associated_token_address(&wallet.address(), &self.mint.address())
    }
}

/// A clock that stands a little before every world's beginning.
#[derive(Debug)]
struct Before(Mutex<u64>);

impl WallClock for Before {
    fn unix_ms(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An engine that is asked directly; 400 ms pass with each question, as nobody waits.
#[derive(Clone, Debug)]
struct Direct {
    engine: Arc<Mutex<Engine>>,
    clock: Arc<Before>,
}

impl Wire for Direct {
    fn post(&self, body: String, _: usize) -> Posting<'_> {
        *self.clock.0.lock().unwrap_or_else(PoisonError::into_inner) += 400;
        let answer = self.engine.lock().unwrap_or_else(PoisonError::into_inner).answer(body.as_bytes());
        Box::pin(std::future::ready(Ok(Posted { status: answer.status, body: answer.body })))
    }
}

/// Prepared chains, by their number of workers.
static PREPARED: Mutex<BTreeMap<usize, Engine>> = Mutex::new(BTreeMap::new());

/// The chain of a world with so many workers, whose time goes on with `clock`.
///
/// # Errors
/// What a transaction of the set-up came to: program and simulation do not fit.
pub async fn chain(people: &People, clock: Arc<dyn WallClock>) -> anyhow::Result<Engine> {
    let workers = people.devices.len();
    let lock = || PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(prepared) = lock().get(&workers) {
        return Ok(prepared.fork(clock));
    }
    let prepared = prepare(people).await?;
    let forked = prepared.fork(clock);
    lock().insert(workers, prepared);
    Ok(forked)
}

async fn prepare(people: &People) -> anyhow::Result<Engine> {
    // An hour is enough for some 9,000 questions of 400 ms.
    let clock = Arc::new(Before(Mutex::new(BEGINNING.0 - 3_600_000)));
    let engine = Engine::in_memory(EngineConfig {
        genesis_seed: [1; 32],
        programs: vec![(PROGRAM_ID, MARKET_SO.to_vec())],
        clock: Arc::clone(&clock) as Arc<dyn WallClock>,
        settings: Settings::default(),
    })?;
    let direct = Direct { engine: Arc::new(Mutex::new(engine)), clock };
    let rpc = Rpc::over(Box::new(direct.clone()), RpcConfig::new("http://chain:8899", 1));
    SetUp { rpc, people }.run().await?;
    let now = direct.clock.unix_ms();
    anyhow::ensure!(now < BEGINNING.0, "the set-up took {} ms too long", now - BEGINNING.0);
    Arc::into_inner(direct.engine).context("the engine is still held")?.into_inner().context("the engine broke")
}

struct SetUp<'a> {
    rpc: Rpc,
    people: &'a People,
}

impl SetUp<'_> {
    async fn run(&self) -> anyhow::Result<()> {
        let people = self.people;
        let few = [&people.admin, &people.attestor_owner, &people.renter];
        for wallet in few.into_iter().chain(&people.nodes).chain(&people.suppliers) {
            self.rpc.airdrop(&wallet.address(), SOL).await?;
        }
        self.network().await.context("the network")?;
        self.tokens(&people.attestor_owner, ATTESTOR_STAKE).await?;
        let source = people.tokens(&people.attestor_owner);
        let mint = people.mint.address();
        let seated =
            instruction::register_attestor(people.attestor_owner.address(), people.attestor.address(), source, mint, 0);
        self.send(&[seated], &people.attestor_owner, &[&people.attestor]).await.context("the attestor")?;
        self.tokens(&people.renter, PURSE).await?;
        for supplier in &people.suppliers {
            self.tokens(supplier, PURSE).await?;
        }
        for worker in 0..people.devices.len() {
            self.worker(worker).await.with_context(|| format!("worker {worker}"))?;
        }
        Ok(())
    }

    async fn send(&self, instructions: &[Instruction], payer: &Keypair, signers: &[&Keypair]) -> anyhow::Result<()> {
        self.rpc.execute(instructions, payer, signers, Duration::from_secs(20)).await?;
        Ok(())
    }

    async fn tokens(&self, wallet: &Keypair, amount: u64) -> anyhow::Result<()> {
        let (admin, mint) = (&self.people.admin, self.people.mint.address());
        let made = create_associated_token(admin.address(), wallet.address(), mint);
        let minted = mint_to(mint, self.people.tokens(wallet), mint, amount);
        self.send(&[made, minted], admin, &[&self.people.mint]).await
    }

    async fn network(&self) -> anyhow::Result<()> {
        let people = self.people;
        let (admin, mint) = (&people.admin, people.mint.address());
        let rent = self.rpc.rent(MINT_BYTES).await?;
        let made = create_account(admin.address(), mint, rent, MINT_BYTES, TOKEN_PROGRAM);
        self.send(&[made, initialize_mint(mint, mint, 9)], admin, &[&people.mint]).await?;
        self.tokens(admin, 1).await?;
        let genesis = self.rpc.genesis_hash().await?;
        let mut seat = [0; 64];
        seat[..32].copy_from_slice(&people.attestor_owner.address().0);
        seat[32..].copy_from_slice(&people.attestor.address().0);
        let parameters = Init {
            genesis_hash: genesis.0,
            fee_bps: 25,
            epoch_s: EPOCH_S,
            epoch_hold_s: 2,
            // Not seven days: what nobody attests has to be over while a world lasts.
            stall_s: 240,
            open_s: 30,
            fill_s_max: 600,
            // As old as a feed may get: no world has an operator who sets it again.
            feed_age_s_max: 30 * 86_400,
            stake_per_device: STAKE_PER_DEVICE,
            attestor_stake: ATTESTOR_STAKE,
            threshold: 1,
            seats: &[seat],
        };
        let init = instruction::init(admin.address(), mint, people.tokens(admin), &parameters)
            .map_err(|error| anyhow::anyhow!("{}", error.words()))?;
        self.send(&[init], admin, &[]).await?;
        let mut name = [0; 32];
        name[..3].copy_from_slice(b"cpu");
        let row = SetCatalogue {
            id: 1,
            tier: TIER_COMMUNITY,
            flags: MODEL_CPU,
            memory_mib: 2048,
            multiplier_milli: 1000,
            name,
        };
        let feed = SetFeed { uusd_per_atl: FEED_UUSD, confidence_uusd: 0 };
        let admin_key = admin.address();
        let listed = instruction::set_catalogue(admin_key, &row);
        let ruled = leaving::set_rules(admin_key, &LOCAL_RULES);
        let rewards = create_associated_token(admin_key, address::rules(), mint);
        let filled = mint_to(mint, address::emission(&mint), mint, emission::TOTAL);
        let made = [listed, instruction::set_feed(admin_key, &feed), ruled, rewards, filled];
        self.send(&made, admin, &[&people.mint]).await
    }

    async fn worker(&self, worker: usize) -> anyhow::Result<()> {
        let (supplier, device) = (&self.people.suppliers[worker / WORKERS_PER_SUPPLIER], &self.people.devices[worker]);
        let registration = RegisterWorker {
            page_no: 0,
            model: 1,
            region: 0,
            devices: DEVICES,
            class: CLASS_SAMPLED,
            ask_uusd: ASKS_UUSD[worker % ASKS_UUSD.len()],
            lease_s_max: 0,
        };
        let mint = self.people.mint.address();
        let registered = instruction::register_worker(supplier.address(), device.address(), &registration);
        self.send(&[registered], supplier, &[device]).await?;
        let stake = STAKE_PER_DEVICE * u64::from(DEVICES);
        let staked = instruction::stake(supplier.address(), self.people.tokens(supplier), mint, stake);
        let purse = system_transfer(supplier.address(), device.address(), LAMPORTS_PER_SOL);
        self.send(&[staked, purse], supplier, &[]).await?;
        let found = Market::new(self.rpc.clone()).device(&device.address()).await?.context("it is not there")?;
        let expected = self.people.slot(worker);
        anyhow::ensure!(
            (found.value.page, found.value.slot) == (expected.page.0, expected.slot),
            "it stands elsewhere"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Error, TrueTime};

    #[tokio::test(start_paused = true)]
    async fn a_prepared_chain_has_workers_with_stake_and_forks() {
        let people = People::new(3);
        let clock = Clock::new(&TrueTime::begin(), Error::default());
        let engine = chain(&people, Arc::new(clock.clone())).await.unwrap();
        let again = chain(&people, Arc::new(clock)).await.unwrap();
        for engine in [engine, again] {
            let clock = Arc::new(Before(Mutex::new(BEGINNING.0)));
            let direct = Direct { engine: Arc::new(Mutex::new(engine)), clock };
            let rpc = Rpc::over(Box::new(direct), RpcConfig::new("http://chain:8899", 1));
            assert!(rpc.account(&address::rules()).await.unwrap().is_some(), "stake may leave");
            let rewards = rpc.token_account(&address::emission(&people.mint.address())).await.unwrap().unwrap();
            assert_eq!(
                (rewards.owner, rewards.amount),
                (address::rules(), emission::TOTAL),
                "rewards are paid from here"
            );
            let market = Market::new(rpc);
            let pages = market.pages().await.unwrap();
            assert_eq!(pages.iter().map(|page| page.value.rows.len()).sum::<usize>(), 3);
            assert!(pages.iter().all(|page| page.value.header.own == page.value.header.required));
        }
    }
}

//! The chain's set-up: mint, parameters, catalogue, feed, attestor, and who holds what at the start.
//!
//! Each step looks first whether its result is there. The figures are those of a network that settles within seconds;
//! everything else is as the design's defaults.

use std::time::Duration;

use anyhow::Context as _;
use atoll_chain::market::data::{Init, SetCatalogue, SetFeed, SetRules};
use atoll_chain::market::layout::{MODEL_CPU, TIER_COMMUNITY};
use atoll_chain::market::{Market, address, emission, instruction, leaving};
use atoll_chain::spl::{
    LAMPORTS_PER_SOL, MINT_BYTES, TOKEN_PROGRAM, associated_token_address, create_account, create_associated_token,
    initialize_mint, mint_to,
};
use atoll_chain::{Address, Instruction, Keypair, Rpc};

/// Base units of one ATL.
const ATL: u64 = 1_000_000_000;
/// What the renter gets: hundreds of hours of the demo's job.
const RENTER_ATL: u64 = 1_000 * ATL;
/// What each supplier gets: five devices' stake.
const SUPPLIER_ATL: u64 = 1_000 * ATL;
/// Stake per device at multiplier 1: the design's default.
const STAKE_PER_DEVICE: u64 = 200 * ATL;
/// Stake of the one attestor.
const ATTESTOR_STAKE: u64 = 1_000 * ATL;
/// SOL that every wallet starts with: rents and fees, many times over.
const SOL: u64 = 100 * LAMPORTS_PER_SOL;
/// Micro-USD per ATL: 0.25 USD. Set by this operator; there is no market behind it.
const FEED_UUSD: u64 = 250_000;
/// The oldest feed that orders accept, in seconds.
const FEED_AGE_S_MAX: u32 = 300;
/// How often the feed is set again: five times within its age.
pub(super) const FEED_EVERY: Duration = Duration::from_secs(60);
/// How long one transaction may take.
const CONFIRM_MAX: Duration = Duration::from_secs(20);

/// Everybody who has a key here.
#[derive(Debug)]
pub(super) struct People {
    /// Sets parameters, catalogue and feed; owns the treasury's token account.
    pub admin: Keypair,
    /// The mint's address and its authority.
    pub mint: Keypair,
    /// Stakes for the attestor's seat.
    pub attestor_owner: Keypair,
    /// The server's voting key; used here once, to take its seat.
    pub attestor: Keypair,
    /// The server's node key; gets SOL for fills and epochs.
    pub node: Keypair,
    /// Runs jobs.
    pub renter: Keypair,
    /// One a worker.
    pub suppliers: Vec<Keypair>,
}

impl People {
    /// The treasury's token account.
    pub(super) fn treasury(&self) -> Address {
        self.token_account(&self.admin)
    }

    /// A wallet's ATL account.
    pub(super) fn token_account(&self, wallet: &Keypair) -> Address {
        associated_token_address(&wallet.address(), &self.mint.address())
    }
}

/// One chain under set-up.
pub(super) struct Setup<'a> {
    /// The chain.
    pub rpc: &'a Rpc,
    /// Everybody.
    pub people: &'a People,
    /// The rules that a new network starts with.
    pub rules: &'a SetRules,
}

/// Sets the price of ATL as of the chain's now.
pub(super) async fn feed(rpc: &Rpc, admin: &Keypair) -> anyhow::Result<()> {
    let feed = SetFeed { uusd_per_atl: FEED_UUSD, confidence_uusd: 0 };
    rpc.execute(&[instruction::set_feed(admin.address(), &feed)], admin, &[], CONFIRM_MAX).await?;
    Ok(())
}

impl Setup<'_> {
    /// Brings the chain to where a network can start.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let people = self.people;
        let named = [&people.admin, &people.attestor_owner, &people.node, &people.renter];
        for wallet in named.into_iter().chain(&people.suppliers) {
            self.sol(wallet.address()).await.with_context(|| format!("giving SOL to {}", wallet.address()))?;
        }
        self.mint().await.context("making the mint")?;
        self.token(people.admin.address(), 0).await.context("making the treasury")?;
        self.init().await.context("making the network")?;
        self.rules().await.context("setting the rules")?;
        self.token(address::rules(), emission::TOTAL).await.context("filling the account of rewards")?;
        self.catalogue().await.context("filling the catalogue")?;
        feed(self.rpc, &self.people.admin).await.context("setting the feed")?;
        self.token(people.attestor_owner.address(), ATTESTOR_STAKE).await.context("funding the attestor's owner")?;
        self.attestor().await.context("seating the attestor")?;
        self.token(people.renter.address(), RENTER_ATL).await.context("funding the renter")?;
        for supplier in &people.suppliers {
            self.token(supplier.address(), SUPPLIER_ATL).await.context("funding a supplier")?;
        }
        Ok(())
    }

    async fn send(&self, instructions: &[Instruction], payer: &Keypair, signers: &[&Keypair]) -> anyhow::Result<()> {
        self.rpc.execute(instructions, payer, signers, CONFIRM_MAX).await?;
        Ok(())
    }

    async fn sol(&self, wallet: Address) -> anyhow::Result<()> {
        if self.rpc.balance(&wallet).await? >= SOL / 2 {
            return Ok(());
        }
        self.rpc.airdrop(&wallet, SOL).await?;
        Ok(())
    }

    async fn mint(&self) -> anyhow::Result<()> {
        let (admin, mint) = (&self.people.admin, self.people.mint.address());
        if self.rpc.account(&mint).await?.is_some() {
            return Ok(());
        }
        let rent = self.rpc.rent(MINT_BYTES).await?;
        let made = create_account(admin.address(), mint, rent, MINT_BYTES, TOKEN_PROGRAM);
        self.send(&[made, initialize_mint(mint, mint, 9)], admin, &[&self.people.mint]).await
    }

    /// A wallet's token account, made with `amount` when it is not there.
    async fn token(&self, wallet: Address, amount: u64) -> anyhow::Result<()> {
        let (admin, mint) = (&self.people.admin, self.people.mint.address());
        let account = associated_token_address(&wallet, &mint);
        if self.rpc.token_account(&account).await?.is_some() {
            return Ok(());
        }
        let made = create_associated_token(admin.address(), wallet, mint);
        if amount == 0 {
            return self.send(&[made], admin, &[]).await;
        }
        self.send(&[made, mint_to(mint, account, mint, amount)], admin, &[&self.people.mint]).await
    }

    async fn init(&self) -> anyhow::Result<()> {
        if self.rpc.account(&address::config()).await?.is_some() {
            return Ok(());
        }
        let genesis = self.rpc.genesis_hash().await?;
        let seat = [self.people.attestor_owner.address().0, self.people.attestor.address().0];
        let seats = [<[u8; 64]>::try_from(seat.as_flattened()).expect("two keys are 64 bytes")];
        let parameters = Init {
            genesis_hash: genesis.0,
            fee_bps: 25,
            epoch_s: 5,
            epoch_hold_s: 2,
            stall_s: 7 * 86_400,
            open_s: 30,
            fill_s_max: 600,
            feed_age_s_max: FEED_AGE_S_MAX,
            stake_per_device: STAKE_PER_DEVICE,
            attestor_stake: ATTESTOR_STAKE,
            threshold: 1,
            seats: &seats,
        };
        let admin = &self.people.admin;
        let init = instruction::init(admin.address(), self.people.mint.address(), self.people.treasury(), &parameters)
            .map_err(|error| anyhow::anyhow!("{}", error.words()))?;
        self.send(&[init], admin, &[]).await
    }

    async fn rules(&self) -> anyhow::Result<()> {
        if self.rpc.account(&address::rules()).await?.is_some() {
            return Ok(());
        }
        let admin = &self.people.admin;
        self.send(&[leaving::set_rules(admin.address(), self.rules)], admin, &[]).await
    }

    async fn catalogue(&self) -> anyhow::Result<()> {
        if !Market::new(self.rpc.clone()).catalogue().await?.value.rows.is_empty() {
            return Ok(());
        }
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
        let admin = &self.people.admin;
        self.send(&[instruction::set_catalogue(admin.address(), &row)], admin, &[]).await
    }

    async fn attestor(&self) -> anyhow::Result<()> {
        let (owner, key) = (&self.people.attestor_owner, &self.people.attestor);
        if self.rpc.account(&address::attestor(&key.address())).await?.is_some() {
            return Ok(());
        }
        let mint = self.people.mint.address();
        let source = associated_token_address(&owner.address(), &mint);
        let seated = instruction::register_attestor(owner.address(), key.address(), source, mint, 0);
        self.send(&[seated], owner, &[key]).await
    }
}

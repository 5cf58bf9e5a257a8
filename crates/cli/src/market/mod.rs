//! What people do on the chain itself: stake, co-stake, session keys and orders, and a look at the market.
//!
//! No operator is asked: every figure is read from the chain, and every transaction is signed here and sent there.
//! [`act`] shows what a transaction says, in words that are read from its own bytes ([`words`]), asks, signs, keeps it and
//! sends it, so that a second run of the same command is the same transaction. [`refusal`] says what the program's numbered
//! refusals mean and what to do. One file a noun: [`stake`], [`costake`], [`budget`], [`order`], [`fleet`].

pub mod act;
pub mod budget;
pub mod costake;
pub mod fleet;
pub mod order;
pub mod refusal;
pub mod stake;
pub mod words;

use std::path::PathBuf;

use atoll_chain::market::layout::FleetPage;
use atoll_chain::market::{self, At, Market, ReadError, Table};
use atoll_chain::{Address, spl};
use atoll_domain::key::PublicKey;
use atoll_domain::money::Atl;
use atoll_domain::time::UnixMs;

use crate::chain::{Chain, ChainNetwork};
use crate::exit::{Exit, Failure};
use crate::output::{Output, length};
use crate::profile::{Home, Profile};
use crate::session::{Wallet, agree};

/// Whose wallet acts, and whether it is asked first.
#[derive(Clone, Debug, clap::Args)]
pub struct Signing {
    #[command(flatten)]
    by: ByWallet,
    /// Do not ask before the transaction is signed
    #[arg(long, short)]
    yes: bool,
}

/// Whose wallet is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct ByWallet {
    /// The wallet's key file [default: the profile's]
    #[arg(long, value_name = "FILE")]
    wallet: Option<PathBuf>,
}

/// One command's view of the chain.
#[derive(Debug)]
pub struct OnChain {
    /// Where the client keeps its things.
    pub home: Home,
    /// Which chain and network.
    pub profile: Profile,
    /// The node that is asked.
    pub chain: Chain,
    /// The market's accounts there.
    pub market: Market,
    /// The network, whose root is the pinned one.
    pub found: ChainNetwork,
    /// The chain's clock, Unix seconds.
    pub now: i64,
    /// How to print.
    pub out: Output,
}

impl OnChain {
    /// Opens the profile and checks that its chain is the pinned network.
    ///
    /// # Errors
    /// [`Failure`] when the profile or the chain is not usable; with [`Exit::OtherNetwork`] for another network.
    pub async fn open(out: Output) -> Result<Self, Failure> {
        let home = Home::find()?;
        let profile = home.load()?;
        let chain = Chain::new(&profile.rpc)?;
        let found = chain.network().await?;
        agree(profile.network_root, found.root, "the chain's own data give network")?;
        let now = chain.rpc.clock().await?.unix_timestamp;
        let market = Market::new(chain.rpc.clone());
        Ok(Self { home, profile, chain, market, found, now, out })
    }

    /// The wallet that was named, or the profile's.
    ///
    /// # Errors
    /// [`Failure`] when its file is not usable.
    pub fn wallet(&self, by: &ByWallet) -> Result<Wallet, Failure> {
        Wallet::load(by.wallet.as_deref().unwrap_or(&self.profile.wallet))
    }

    /// The mint of ATL.
    #[must_use]
    pub const fn mint(&self) -> Address {
        Address(self.found.config.mint)
    }

    /// A wallet's own ATL account.
    #[must_use]
    pub fn purse(&self, wallet: &Address) -> Address {
        spl::associated_token_address(wallet, &self.mint())
    }

    /// Refuses when a wallet holds less ATL than is to leave it.
    ///
    /// # Errors
    /// [`Failure`], naming both sums.
    pub async fn check_holds(&self, wallet: &Address, amount: Atl) -> Result<(), Failure> {
        let held = self.chain.atl(wallet, &self.mint()).await?;
        if held >= amount {
            return Ok(());
        }
        let message = format!(
            "the wallet {wallet} holds {held}, and {amount} are to leave it; nothing was signed. Send ATL to it"
        );
        Err(Failure::new(Exit::Refused, "insufficient_funds", message))
    }

    /// Page 0 of a supplier: the supplier itself.
    ///
    /// # Errors
    /// [`Failure`] when it has none.
    pub async fn supplier(&self, wallet: &Address) -> Result<FleetPage, Failure> {
        let found: Option<At<Table<FleetPage, _>>> = self.market.page(&market::address::page(wallet, 0)).await?;
        found.map(|page| page.value.header).ok_or_else(|| {
            let message = format!(
                "{wallet} is no supplier yet: register a worker first with `atoll worker join`, or name another wallet with --wallet"
            );
            Failure::new(Exit::Refused, "no_supplier", message)
        })
    }

    /// A time of the chain, and how far it is from the chain's now.
    #[must_use]
    pub fn when(&self, unix_s: i64) -> String {
        let far = length(unix_s.abs_diff(self.now));
        let at = at(unix_s);
        if unix_s > self.now { format!("{at} (in {far})") } else { format!("{at} ({far} ago)") }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rpc(error) => error.into(),
            ReadError::Foreign { .. } | ReadError::NoNetwork { .. } => {
                Self::new(Exit::OtherNetwork, "no_network", error.to_string())
            }
        }
    }
}

/// A time of the chain as scripts and people read it.
#[must_use]
pub fn at(unix_s: i64) -> UnixMs {
    UnixMs(u64::try_from(unix_s).unwrap_or_default().saturating_mul(1000))
}

/// An address of the chain as the domain writes it.
#[must_use]
pub const fn public(address: Address) -> PublicKey {
    PublicKey(address.0)
}

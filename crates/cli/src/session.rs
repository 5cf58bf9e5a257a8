//! What most commands start from: profile, operator, chain, wallet, and the check that all speak of one network.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atoll_api::client::{Client, Sealing};
use atoll_api::http::Network;
use atoll_chain::market::instruction::Renter;
use atoll_chain::{Address, Keypair};
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::time::UnixMs;

use crate::chain::Chain;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::profile::{Home, Profile};

/// One command's view of the world.
#[derive(Debug)]
pub struct Session {
    /// Where the client keeps its things.
    pub home: Home,
    /// Which operator, wallet and network.
    pub profile: Profile,
    /// The operator's API.
    pub client: Client,
    /// The chain, asked by this machine itself.
    pub chain: Chain,
    /// How to print.
    pub out: Output,
}

/// Randomness fit for keys and nonces.
///
/// # Errors
/// [`Failure`] when the operating system has none.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(Exit::Internal, "randomness", format!("no randomness from the system: {error}"))
    })?;
    Ok(bytes)
}

/// The time now, on this machine's clock.
#[must_use]
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The client of a profile's operator.
///
/// # Errors
/// [`Failure`] when the pinned certificate cannot be used.
pub fn client(profile: &Profile) -> Result<Client, Failure> {
    let ca = std::fs::read(&profile.ca).map_err(|error| {
        Failure::usage(format!(
            "cannot read the server's certificate {}: {error}; run `atoll login` with --ca",
            profile.ca.display()
        ))
    })?;
    Ok(Client::new(&profile.server, &ca, Some(profile.api_key.clone()))?)
}

impl Session {
    /// Opens the profile. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Failure`] when the profile is not usable.
    pub fn open(out: Output) -> Result<Self, Failure> {
        let home = Home::find()?;
        let profile = home.load()?;
        let client = client(&profile)?;
        let chain = Chain::new(&profile.rpc)?;
        Ok(Self { home, profile, client, chain, out })
    }

    /// The renter's key, in the two forms that the chain and the API sign with.
    ///
    /// # Errors
    /// [`Failure`] when the key file is not usable.
    pub fn wallet(&self) -> Result<Wallet, Failure> {
        Wallet::load(&self.profile.wallet)
    }

    /// Who orders: the profile's wallet, or the session key in a file. Whose key it is, the operator says from the API key:
    /// the wallet's own file is not needed. An operator that names another wallet gains nothing, since the chain has no
    /// budget of that wallet for this key.
    ///
    /// # Errors
    /// [`Failure`] when a key file is not usable, or the operator does not answer.
    pub async fn buyer(&self, budget: Option<&Path>) -> Result<Buyer, Failure> {
        let Some(file) = budget else {
            let signs = self.wallet()?;
            return Ok(Buyer { renter: signs.key.public(), signs, budget: None });
        };
        let signs = Wallet::load(file)?;
        let renter = self.client.whoami().await?.wallet;
        Ok(Buyer { renter, budget: Some(signs.key.public()), signs })
    }

    /// The operator's network, once server, chain and profile agree on its root.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::OtherNetwork`] when one of them means another network.
    pub async fn network(&self) -> Result<Network, Failure> {
        let said = self.client.network().await?;
        let pinned = self.profile.network_root;
        agree(pinned, said.network_root, "the server is of network")?;
        let found = self.chain.network().await?;
        agree(pinned, found.root, "the chain's own data give network")?;
        let same_chain = said.program_id.0 == found.program_id.0 && said.genesis_hash.0 == found.genesis_hash.0;
        if !same_chain {
            return Err(other_network("the server names another program or genesis hash than the chain".into()));
        }
        Ok(said)
    }
}

/// Holds a network root against the pinned one.
///
/// # Errors
/// [`Failure`] with [`Exit::OtherNetwork`] when they differ.
pub(crate) fn agree(pinned: Digest, found: Digest, what: &str) -> Result<(), Failure> {
    if pinned == found {
        return Ok(());
    }
    Err(other_network(format!("{what} {found}, and {pinned} is pinned")))
}

fn other_network(what: String) -> Failure {
    let next = "nothing was sent; if the network was set up anew, log in again with `atoll login`";
    Failure::new(Exit::OtherNetwork, "other_network", format!("{what}: {next}"))
}

/// Who orders: the wallet, or a session key of it within its limits.
#[derive(Debug)]
pub struct Buyer {
    /// The renter's wallet.
    pub renter: PublicKey,
    /// What signs specification, order and request: the wallet itself or the session key.
    pub signs: Wallet,
    /// The session key, when it is one.
    pub budget: Option<PublicKey>,
}

impl Buyer {
    /// With whose right an order is posted.
    #[must_use]
    pub const fn of(&self) -> Renter {
        let wallet = Address(self.renter.0);
        match self.budget {
            None => Renter::Wallet(wallet),
            Some(key) => Renter::Budget { wallet, key: Address(key.0) },
        }
    }
}

/// The renter's key.
#[derive(Debug)]
pub struct Wallet {
    /// Signs transactions.
    pub chain: Keypair,
    /// Signs specifications and requests.
    pub key: SecretKey,
}

impl Wallet {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`Failure`] when it is missing, open to others or no key.
    pub fn load(path: &std::path::Path) -> Result<Self, Failure> {
        let chain = Keypair::load(path).map_err(|error| {
            Failure::new(
                Exit::Usage,
                "wallet",
                format!("{error}; `wallet` in the profile, --wallet or --budget names this file"),
            )
        })?;
        let key = SecretKey::from_seed(&chain.seed());
        Ok(Self { chain, key })
    }

    /// The seal of one call.
    ///
    /// # Errors
    /// [`Failure`] when the system has no randomness.
    pub fn seal<'a>(&'a self, idempotency_key: &'a str) -> Result<Sealing<'a>, Failure> {
        Ok(Sealing { wallet: &self.key, now: now(), nonce: random()?, idempotency_key })
    }
}

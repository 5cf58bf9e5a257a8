//! Login, wallet and key: who the caller is, and what network is meant.

use std::path::{Path, PathBuf};

use atoll_chain::{Address, Keypair, RpcError};
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::money::Atl;
use serde::Serialize;

use crate::chain::Chain;
use crate::exit::{Exit, Failure};
use crate::market::words::sol;
use crate::output::Output;
use crate::profile::{Home, Profile};
use crate::session::{Session, client, random};

/// What is typed after `atoll login`.
#[derive(Clone, Debug, clap::Args)]
pub struct Login {
    /// The operator's address, for example https://127.0.0.1:8443; several with commas between them: when one does not
    /// answer the next is asked
    #[arg(long, env = "ATOLL_SERVER")]
    server: String,
    /// The certificate that the server must show (PEM), from the operator
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The API key, from the operator; better given in the environment than on the command line
    #[arg(long, env = "ATOLL_API_KEY", hide_env_values = true)]
    key: String,
    /// Your wallet's key file (`atoll wallet new FILE` makes one); it stays on this machine
    #[arg(long, value_name = "FILE")]
    wallet: PathBuf,
    /// Solana JSON-RPC to ask about the chain, for example http://127.0.0.1:8899
    #[arg(long)]
    rpc: String,
    /// The network root you expect, if you know it from elsewhere
    #[arg(long, value_name = "HEX")]
    network_root: Option<Digest>,
}

#[derive(Serialize)]
struct LoggedIn {
    profile: PathBuf,
    user: String,
    wallet: PublicKey,
    network_root: Digest,
    attestor_owners: u32,
}

#[derive(Serialize)]
struct WalletShown {
    address: String,
    atl: Atl,
    lamports: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

/// Writes a profile after checking that server, chain and wallet fit, and pins the network root.
///
/// # Errors
/// [`Failure`]; no profile is written then.
pub async fn login(out: Output, args: Login) -> Result<Exit, Failure> {
    let home = Home::find()?;
    let whole = |path: &Path| {
        path.canonicalize().map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
    };
    let chain = Chain::new(&args.rpc)?;
    let found = chain.network().await?;
    let profile = Profile {
        server: args.server.trim_end_matches('/').to_owned(),
        ca: whole(&args.ca)?,
        api_key: args.key,
        wallet: whole(&args.wallet)?,
        rpc: args.rpc,
        network_root: args.network_root.unwrap_or(found.root),
    };
    let session = Session { home, client: client(&profile)?, profile, chain, out };
    let network = session.network().await?;
    let who = session.client.whoami().await?;
    let wallet = session.wallet()?.key.public();
    if who.wallet != wallet {
        let message = format!(
            "the API key is of user `{}` whose wallet is {}, and {} holds {wallet}: name the right wallet or ask the operator for a key",
            who.user,
            who.wallet,
            session.profile.wallet.display()
        );
        return Err(Failure::new(Exit::Refused, "other_wallet", message));
    }
    session.home.save(&session.profile)?;
    let told = args.network_root.is_some();
    let shown = LoggedIn {
        profile: session.home.profile_path(),
        user: who.user,
        wallet,
        network_root: session.profile.network_root,
        attestor_owners: network.attestor_owners,
    };
    out.result(&shown, || {
        let how = if told { "as you gave it" } else { "as seen now: compare it with one from another source" };
        format!(
            "logged in as {} with wallet {wallet}\nnetwork root {}\n  pinned {how}; every command and receipt is checked against it\nprofile {}",
            shown.user,
            shown.network_root,
            shown.profile.display()
        )
    })?;
    Ok(Exit::Ok)
}

/// `atoll key show`: whose API key the profile holds.
///
/// # Errors
/// [`Failure`] when the server does not take it.
pub async fn key(session: &Session) -> Result<Exit, Failure> {
    let who = session.client.whoami().await?;
    session.out.result(&who, || format!("user   {}\nkey    {}\nwallet {}", who.user, who.key, who.wallet))?;
    Ok(Exit::Ok)
}

/// `atoll wallet show`: address and balances, read from the chain.
///
/// # Errors
/// [`Failure`] when wallet or chain cannot be read.
pub async fn wallet(session: &Session) -> Result<Exit, Failure> {
    let address = session.wallet()?.chain.address();
    let shown = held(session, &address, Some(session.profile.wallet.clone())).await?;
    session.out.result(&shown, || format!("{}\nkey in {}", words(&shown), session.profile.wallet.display()))?;
    Ok(Exit::Ok)
}

/// `atoll wallet balance ADDRESS`: what anybody's address holds.
///
/// # Errors
/// [`Failure`] when the chain cannot be read.
pub async fn balance(session: &Session, address: PublicKey) -> Result<Exit, Failure> {
    let shown = held(session, &Address(address.0), None).await?;
    session.out.result(&shown, || words(&shown))?;
    Ok(Exit::Ok)
}

/// `atoll wallet airdrop SOL`: asks the cluster's faucet, which real clusters do not have.
///
/// # Errors
/// [`Failure`] when there is no faucet, or it gives less at once.
pub async fn airdrop(session: &Session, lamports: u64, to: Option<PublicKey>) -> Result<Exit, Failure> {
    let to = match to {
        Some(to) => Address(to.0),
        None => session.wallet()?.chain.address(),
    };
    session.chain.rpc.airdrop(&to, lamports).await.map_err(|error| match error {
        RpcError::Refused { .. } => {
            let message =
                format!("the chain gives nothing: {error}; only local chains and test clusters have a faucet");
            Failure::new(Exit::Refused, "no_faucet", message)
        }
        other => other.into(),
    })?;
    let shown = held(session, &to, None).await?;
    session.out.result(&shown, || words(&shown))?;
    Ok(Exit::Ok)
}

async fn held(session: &Session, address: &Address, file: Option<PathBuf>) -> Result<WalletShown, Failure> {
    let found = session.chain.network().await?;
    let atl = session.chain.atl(address, &Address(found.config.mint)).await?;
    let lamports = session.chain.rpc.balance(address).await?;
    Ok(WalletShown { address: address.to_string(), atl, lamports, file })
}

fn words(shown: &WalletShown) -> String {
    format!("wallet {}\n       {}\n       {}", shown.address, shown.atl, sol(shown.lamports))
}

/// `atoll wallet new FILE`: a new key, never over an old one.
///
/// # Errors
/// [`Failure`] when the file exists or cannot be written.
pub fn wallet_new(out: Output, file: &Path) -> Result<Exit, Failure> {
    let key = Keypair::from_seed(&random()?);
    key.save(file).map_err(|error| Failure::new(Exit::Usage, "wallet", error.to_string()))?;
    let address = key.address().to_string();
    out.result(&serde_json::json!({"address": address, "file": file}), || {
        format!("wallet {address}\nkey in {}: keep a copy; nobody can restore it", file.display())
    })?;
    Ok(Exit::Ok)
}

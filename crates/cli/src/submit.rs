//! `atoll job submit`: read, pack, quote, show the price, sign, send; in this order, so that nothing is charged for what
//! could have been refused before.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use atoll_api::http::{JobView, Network, Quote, QuoteRequest};
use atoll_chain::{Address, spl};
use atoll_domain::job::{ClusterKind, JobSpec, PackRef, SignedSpec};
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::money::{Atl, UsdMicrosPerHour};

use crate::bundle::{self, Packed};
use crate::chain::{self, ChainNetwork, OrderTerms};
use crate::exit::{Exit, Failure, of_job};
use crate::manifest::{self, JobPlan, Overrides};
use crate::market::budget;
use crate::output::{self, Output};
use crate::pending::{Pending, Slot};
use crate::session::{Buyer, Session, random};
use crate::watch;

/// The longest time an order of this client waits for its devices, in seconds. The network's own bound may be shorter.
const FILL_S: u32 = 120;
/// Bytes of the accounts that post_order makes: the order and its token account. Their rent returns with the last one.
const ORDER_ACCOUNTS_BYTES: [u64; 2] = [456, spl::TOKEN_ACCOUNT_BYTES];
/// Asked before a worst case is escrowed.
pub(crate) const ESCROW_THIS: &str = "Escrow this?";
/// Fee of one signature, in lamports.
const SIGNATURE_LAMPORTS: u64 = 5000;

/// What is typed after `atoll job submit`.
#[derive(Clone, Debug, clap::Args)]
pub struct Submit {
    /// The job's folder, with an atoll.toml in it (or everything said by flags)
    pub folder: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// A session key's file (`atoll budget create`): it orders within its limits, and the wallet is not needed
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,
    /// Do not ask before the worst case is escrowed
    #[arg(long, short)]
    yes: bool,
    /// Return once the job is accepted instead of watching it
    #[arg(long, short)]
    detach: bool,
}

/// Everything that is known before anything is signed.
struct Offer {
    plan: JobPlan,
    network: Network,
    found: ChainNetwork,
    model: u16,
    pack: Digest,
    quote: Quote,
    escrow: Atl,
}

/// Submits a folder and, unless told otherwise, watches the job to its end.
///
/// # Errors
/// [`Failure`]; nothing is charged unless the job was accepted.
pub async fn run(out: Output, args: Submit) -> Result<Exit, Failure> {
    let plan = manifest::read(&args.folder, &args.overrides)?;
    let packed = bundle::pack(&args.folder)?;
    out.say(&format!("packed {} files, {}", packed.files, output::bytes(packed.bundle.bytes)));
    let session = Session::open(out)?;
    let buyer = session.buyer(args.budget.as_deref()).await?;
    let slot = Slot::of(&session.home, &session.profile, buyer.signs.key.public(), &plan, &packed.bundle);
    let job = match again(&session, &buyer, &slot, &packed).await? {
        Some(job) => job,
        None => anew(&session, &buyer, &slot, plan, &packed, args.yes).await?,
    };
    if args.detach {
        let next = format!("{}\n`atoll job watch {}` shows how it goes", job.job, job.job);
        out.result(&job, || next)?;
        return Ok(Exit::Ok);
    }
    out.say(&format!("job {} accepted; ctrl-c leaves it running", job.job));
    let ended = watch::follow(&session, job.job).await?;
    watch::show_end(out, &ended)?;
    Ok(of_job(ended.state))
}

/// Sends what an earlier run signed and had no answer to.
async fn again(
    session: &Session,
    buyer: &Buyer,
    slot: &Slot<Pending>,
    packed: &Packed,
) -> Result<Option<JobView>, Failure> {
    let Some(pending) = slot.load()? else { return Ok(None) };
    session.out.say("an earlier run of this command was cut off: sending the same job again");
    match send(session, buyer, &pending, packed).await {
        Ok(job) => {
            slot.forget()?;
            Ok(Some(job))
        }
        Err(failure) if failure.exit == Exit::Refused => {
            // Only when the chain has no such order is it certain that nothing was charged for it.
            if session.chain.order(&Address(pending.order.0)).await?.is_some() {
                return Err(failure);
            }
            slot.forget()?;
            session.out.say(&format!("it was refused ({failure}); nothing was charged, starting anew"));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

async fn anew(
    session: &Session,
    buyer: &Buyer,
    slot: &Slot<Pending>,
    plan: JobPlan,
    packed: &Packed,
    yes: bool,
) -> Result<JobView, Failure> {
    let offer = offer(session, plan).await?;
    session.out.say(&price_text(&offer));
    check_funds(session, buyer, &offer).await?;
    confirm(session.out, ESCROW_THIS, yes)?;
    let pending = sign(session, buyer, &offer, packed).await?;
    slot.keep(&pending)?;
    match send(session, buyer, &pending, packed).await {
        Ok(job) => {
            slot.forget()?;
            Ok(job)
        }
        Err(failure) if failure.exit == Exit::Refused => {
            if session.chain.order(&Address(pending.order.0)).await?.is_none() {
                slot.forget()?;
            }
            Err(failure)
        }
        Err(mut failure) => {
            failure.message.push_str("; run the same command again: it sends the same job, once");
            Err(failure)
        }
    }
}

async fn offer(session: &Session, plan: JobPlan) -> Result<Offer, Failure> {
    let network = session.network().await?;
    let found = session.chain.network().await?;
    let model = session.chain.model(&plan.model).await?.id;
    let feed = session.chain.feed().await?.uusd_per_atl;
    let duration_s = seconds(plan.seconds_max)?;
    let escrow = chain::escrow(plan.price_max, feed, plan.devices, duration_s, found.config.fee_bps)?;
    let question = QuoteRequest {
        model: plan.model.clone(),
        devices: plan.devices,
        seconds_max: plan.seconds_max,
        price_max: plan.price_max,
        pack: plan.pack.clone(),
    };
    let quote = session.client.quote(&question).await?;
    let Some(pack) = quote.pack_sha256 else {
        let known: Vec<&str> = network.packs.iter().map(|pack| pack.name.as_str()).collect();
        let message = format!("no environment `{}`; this operator knows: {}", plan.pack, known.join(", "));
        return Err(Failure::new(Exit::Refused, "unknown_pack", message));
    };
    if !quote.fits {
        return Err(no_fit(&plan, quote));
    }
    if quote.feed_usd_micros == feed && quote.escrow != escrow {
        let message = format!(
            "the operator asks for an escrow of {}, and the chain's own sums give {escrow}; nothing was sent: tell the operator",
            quote.escrow
        );
        return Err(Failure::new(Exit::Refused, "quote_differs", message));
    }
    Ok(Offer { plan, network, found, model, pack, quote, escrow })
}

fn no_fit(plan: &JobPlan, quote: Quote) -> Failure {
    let message = format!(
        "{} x {} at up to {} cannot be served now, {} fit; nothing was charged. Raise --max-price, ask for fewer --devices, or try later. Each worker's reason:",
        plan.devices, plan.model, plan.price_max, quote.devices_free
    );
    Failure { exit: Exit::Refused, code: "no_fit".into(), message, refusals: quote.refusals }
}

fn seconds(seconds_max: u64) -> Result<u32, Failure> {
    u32::try_from(seconds_max).map_err(|_| Failure::usage("max_hours is out of range"))
}

/// Price and worst case, before anything is charged. The feed is labelled where no market is behind it.
fn price_text(offer: &Offer) -> String {
    let plan = &offer.plan;
    let worst = usd_micros(plan.price_max, plan.devices, plan.seconds_max);
    let now = offer.quote.price.map_or_else(String::new, |price| format!(" (asked now: {price})"));
    let label = if offer.quote.feed_by_operator { ", feed set by the operator" } else { "" };
    format!(
        "{} x {} at up to {}{now}, for at most {}\nworst case {}.{:02} USD = {} escrowed, fee included{label}; what is not served is refunded",
        plan.devices,
        plan.model,
        plan.price_max,
        output::length(plan.seconds_max),
        worst / 1_000_000,
        worst % 1_000_000 / 10_000,
        offer.escrow,
    )
}

/// Micro-USD of the worst case without fee, rounded up to a cent.
pub(crate) fn usd_micros(price: UsdMicrosPerHour, devices: u32, seconds: u64) -> u64 {
    let device_seconds = u64::from(devices).saturating_mul(seconds);
    price.0.saturating_mul(device_seconds).div_ceil(3600).div_ceil(10_000).saturating_mul(10_000)
}

async fn check_funds(session: &Session, buyer: &Buyer, offer: &Offer) -> Result<(), Failure> {
    let (renter, signer) = (Address(buyer.renter.0), buyer.signs.chain.address());
    if buyer.budget.is_some() {
        budget::check(&session.chain, &renter, &signer, offer.escrow).await?;
    } else {
        let held = session.chain.atl(&renter, &Address(offer.found.config.mint)).await?;
        if held < offer.escrow {
            let message = format!(
                "the wallet {renter} holds {held}, and the worst case is {}; nothing was charged. Send ATL to it, or lower --max-price, --max-hours or --devices",
                offer.escrow
            );
            return Err(Failure::new(Exit::Refused, "insufficient_funds", message));
        }
    }
    let mut lamports = SIGNATURE_LAMPORTS;
    for bytes in ORDER_ACCOUNTS_BYTES {
        lamports = lamports.saturating_add(session.chain.rpc.rent(bytes).await?);
    }
    let held = session.chain.rpc.balance(&signer).await?;
    if held < lamports {
        let message = format!(
            "{signer} holds {held} lamports, and posting an order takes {lamports} (rent, returned at the end, and a fee); nothing was charged. Send SOL to it"
        );
        return Err(Failure::new(Exit::Refused, "insufficient_sol", message));
    }
    Ok(())
}

/// Asks a question that decides whether something is signed, unless that was agreed to already.
pub(crate) fn confirm(out: Output, question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if out.json || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked here: add --yes to agree to what is shown; nothing was sent"));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::usage("not agreed; nothing was sent")),
    }
}

async fn sign(session: &Session, buyer: &Buyer, offer: &Offer, packed: &Packed) -> Result<Pending, Failure> {
    let nonce = u64::from_le_bytes(random()?);
    let order = PublicKey(chain::order_address(&Address(buyer.renter.0), nonce).0);
    let spec = job_spec(offer, buyer, order, packed);
    let signed = SignedSpec::sign(&spec, &buyer.signs.key)?;
    let terms = OrderTerms {
        nonce,
        model: offer.model,
        devices: offer.plan.devices,
        price_max: offer.plan.price_max,
        duration_s: seconds(offer.plan.seconds_max)?,
        fill_s: FILL_S.min(offer.found.config.fill_s_max),
        spec_root: signed.root(),
        solvers: solvers(&offer.network)?,
    };
    let mint = Address(offer.found.config.mint);
    let transaction = session.chain.sign_order(buyer, mint, &terms).await?;
    let spec = String::from_utf8(signed.bytes).expect("JSON is UTF-8");
    Ok(Pending {
        idempotency_key: format!("submit-{}", hex::encode(random::<16>()?)),
        order,
        spec,
        spec_signature: signed.signature,
        transaction: hex::encode(transaction),
    })
}

fn job_spec(offer: &Offer, buyer: &Buyer, order: PublicKey, packed: &Packed) -> JobSpec {
    let plan = &offer.plan;
    JobSpec {
        version: 1,
        name: plan.name.clone(),
        network: offer.network.network_root,
        renter: buyer.renter,
        budget: buyer.budget,
        order,
        kind: ClusterKind::Ray,
        model: plan.model.clone(),
        devices: plan.devices,
        pack: PackRef { name: plan.pack.clone(), sha256: offer.pack },
        bundle: packed.bundle,
        entry: plan.entry.clone(),
        env: plan.env.clone(),
        checkpoints: plan.checkpoints,
        seconds_max: plan.seconds_max,
    }
}

/// The operator's keys in the order's three places.
fn solvers(network: &Network) -> Result<[PublicKey; 3], Failure> {
    if network.solvers.is_empty() {
        let message = "the operator names no key that may fill orders; nothing was sent: try later";
        return Err(Failure::new(Exit::Refused, "no_solver", message));
    }
    let mut places = [PublicKey([0; 32]); 3];
    for (place, key) in places.iter_mut().zip(&network.solvers) {
        *place = *key;
    }
    Ok(places)
}

async fn send(session: &Session, buyer: &Buyer, pending: &Pending, packed: &Packed) -> Result<JobView, Failure> {
    session.client.put_blob(packed.bundle.sha256, packed.bytes.clone()).await?;
    let seal = buyer.signs.seal(&pending.idempotency_key)?;
    Ok(session.client.submit(&pending.signed_spec(), &pending.transaction_bytes()?, &seal).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_cases_are_rounded_up_to_a_cent() {
        assert_eq!(usd_micros(UsdMicrosPerHour(200_000), 3, 3600), 600_000);
        assert_eq!(usd_micros(UsdMicrosPerHour(1), 1, 1), 10_000);
    }
}

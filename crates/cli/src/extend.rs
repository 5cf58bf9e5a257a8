//! `atoll job extend`: more time for an order that runs.
//!
//! The order is read from the chain, so that it can be lengthened through any operator where the renter has a key, also
//! when its own is gone. One transaction is signed and kept before it is sent; a run that finds one asks the chain first
//! what became of it, and signs another only when that one can never be taken.

use std::time::Duration;

use atoll_api::http::{ExtensionState, RefusedWorker};
use atoll_chain::market::{self, EXTENSION_S_MIN, Market, Shorter};
use atoll_chain::{Address as ChainAddress, SignedTransaction};
use atoll_domain::id::{JobId, WorkerId};
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_domain::time::UnixMs;
use atoll_interface::layout::Order;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::market::act::{self, Standing};
use crate::output;
use crate::pending::Slot;
use crate::session::{Session, Wallet, random};
use crate::{manifest, submit};

/// The longest the chain is waited for: a blockhash lives a minute or so.
const TAKEN_MAX: Duration = Duration::from_secs(120);
/// The longest leases are waited for, once the order is longer.
const FOLLOW_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is typed after `atoll job extend`.
#[derive(Clone, Debug, clap::Args)]
pub struct Extend {
    /// The job
    #[arg(required_unless_present = "order")]
    job: Option<JobId>,
    /// Its order's address instead, when the job's own operator is gone: any other one will do
    #[arg(long, value_name = "ADDRESS", conflicts_with = "job")]
    order: Option<Address>,
    /// How much longer, for example 0.5
    #[arg(long, value_name = "HOURS", allow_hyphen_values = true)]
    hours: String,
    /// Do not ask before the worst case is escrowed
    #[arg(long, short)]
    yes: bool,
}

/// An extension, signed, and not known to be taken or over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingExtension {
    /// The same for every try.
    pub idempotency_key: String,
    /// Seconds that it adds.
    pub seconds: u32,
    /// What it escrows.
    pub escrow: Atl,
    /// The signed `extend_order` transaction, in hexadecimal.
    pub transaction: String,
    /// The last block height at which the chain can take it.
    pub last_valid_height: u64,
}

impl PendingExtension {
    /// An extension that was just signed.
    #[must_use]
    pub fn new(
        idempotency_key: String,
        seconds: u32,
        escrow: u64,
        transaction: &SignedTransaction,
        last_valid_height: u64,
    ) -> Self {
        let transaction = hex::encode(transaction.bytes());
        Self { idempotency_key, seconds, escrow: Atl(escrow), transaction, last_valid_height }
    }

    /// The transaction.
    ///
    /// # Errors
    /// [`Failure`] when the file was damaged.
    pub fn signed(&self) -> Result<SignedTransaction, Failure> {
        let damaged = || Failure::usage("the kept extension is damaged: its transaction cannot be read");
        let bytes = hex::decode(&self.transaction).map_err(|_| damaged())?;
        SignedTransaction::from_bytes(bytes).map_err(|_| damaged())
    }
}

/// What a script is told.
#[derive(Serialize)]
struct Extended {
    order: Address,
    transaction: String,
    added_s: u32,
    escrow: Atl,
    ends: UnixMs,
    /// Workers whose leases do not go along.
    refusals: Vec<RefusedWorker>,
}

/// Lengthens the order of a job that runs.
///
/// # Errors
/// [`Failure`]; nothing is charged unless the chain took the extension.
pub async fn run(session: &Session, args: Extend) -> Result<Exit, Failure> {
    let seconds = u32::try_from(manifest::seconds_of_hours("--hours", "hours", &args.hours)?)
        .map_err(|_| Failure::usage("--hours is out of range"))?;
    if seconds < EXTENSION_S_MIN {
        return Err(Failure::usage(format!("--hours must be at least {EXTENSION_S_MIN} s, 0.017")));
    }
    let wallet = session.wallet()?;
    session.network().await?;
    let order = match (args.order, args.job) {
        (Some(order), _) => order,
        (None, Some(job)) => session.client.job(job).await?.order,
        (None, None) => return Err(Failure::usage("name the job, or its order with --order")),
    };
    let slot = Slot::of_extension(&session.home, &session.profile, wallet.key.public(), &order);
    let done = match again(session, &wallet, &slot, &order, seconds).await? {
        Some(done) => done,
        None => anew(session, &wallet, &slot, &order, seconds, args.yes).await?,
    };
    show(session, &order, &done).await
}

/// Goes on with what an earlier run signed; none when nothing of it is left to do.
async fn again(
    session: &Session,
    wallet: &Wallet,
    slot: &Slot<PendingExtension>,
    order: &Address,
    seconds: u32,
) -> Result<Option<PendingExtension>, Failure> {
    let Some(pending) = slot.load()? else { return Ok(None) };
    let length = output::length(u64::from(pending.seconds));
    match standing(session, &pending, Duration::ZERO).await? {
        Standing::Taken => {
            slot.forget()?;
            session.out.say(&format!("an earlier run's extension by {length} was taken by the chain"));
            Ok((pending.seconds == seconds).then_some(pending))
        }
        Standing::Over(why) => {
            slot.forget()?;
            session.out.say(&format!("an earlier run's extension by {length} was not taken ({why}); signing anew"));
            Ok(None)
        }
        Standing::Open if pending.seconds != seconds => {
            let message = format!(
                "an extension by {length} that was signed before may still be taken: give the same --hours, or wait two minutes; nothing was signed"
            );
            Err(Failure::new(Exit::Refused, "extension_under_way", message))
        }
        Standing::Open => {
            session.out.say("an earlier run of this command was cut off: sending the same extension again");
            send(session, wallet, slot, order, &pending).await?;
            Ok(Some(pending))
        }
    }
}

async fn standing(session: &Session, pending: &PendingExtension, wait: Duration) -> Result<Standing, Failure> {
    act::standing(&session.chain.rpc, &pending.signed()?, pending.last_valid_height, wait).await
}

/// Has it sent and waits until the chain has taken it.
async fn send(
    session: &Session,
    wallet: &Wallet,
    slot: &Slot<PendingExtension>,
    order: &Address,
    pending: &PendingExtension,
) -> Result<(), Failure> {
    let over = |why: &Failure| {
        let message = format!("the order was not lengthened: {why}; nothing was charged");
        Failure::new(Exit::Refused, "not_extended", message)
    };
    let seal = wallet.seal(&pending.idempotency_key)?;
    match session.client.extend(order, pending.signed()?.bytes(), &seal).await.map_err(Failure::from) {
        Ok(view) if matches!(view.state, ExtensionState::Failed | ExtensionState::Expired) => {
            let message =
                format!("the operator's node could not bring it to the chain: {}", output::plain(&view.reason));
            may_be_taken(session, slot, pending, Failure::new(Exit::Refused, "not_extended", message)).await?;
        }
        Ok(view) if !view.reason.is_empty() => {
            let said = output::plain(&view.reason);
            session.out.say(&format!("the operator's chain node says: {said}; it may still be taken, waiting"));
        }
        Ok(_) => {}
        Err(failure) if failure.exit == Exit::Refused => may_be_taken(session, slot, pending, failure).await?,
        Err(mut failure) => {
            failure.message.push_str(
                "; run the same command again: it sends the same extension, once. Another operator takes it too, with --order",
            );
            return Err(failure);
        }
    }
    match standing(session, pending, TAKEN_MAX).await? {
        Standing::Taken => slot.forget(),
        Standing::Over(why) => {
            slot.forget()?;
            Err(over(&why))
        }
        Standing::Open => {
            let message = "the chain has not taken the extension yet; run the same command again: it is the same one";
            Err(Failure::new(Exit::Unreachable, "chain_unreachable", message))
        }
    }
}

/// What an operator's "no" comes to. Whoever has the bytes can bring them to the chain while their blockhash lives, so only
/// the chain says that nothing will be charged for them; until then they are kept, and no other extension is signed.
async fn may_be_taken(
    session: &Session,
    slot: &Slot<PendingExtension>,
    pending: &PendingExtension,
    mut refusal: Failure,
) -> Result<(), Failure> {
    match standing(session, pending, Duration::ZERO).await? {
        Standing::Taken => Ok(()),
        Standing::Over(_) => {
            slot.forget()?;
            refusal.message.push_str("; nothing was charged");
            Err(refusal)
        }
        Standing::Open => {
            refusal.message.push_str(
                "; what was signed could still be taken for two minutes: until then only the same --hours is sent again",
            );
            Err(refusal)
        }
    }
}

/// The order as the chain would see it now, and its clock.
async fn read(session: &Session, order: &Address) -> Result<(Order, i64), Failure> {
    let refused = |message| Failure::new(Exit::Refused, "order_over", message);
    let found = session.chain.order(&ChainAddress(order.0)).await?;
    let mut found = found.ok_or_else(|| {
        refused(format!("the chain has no order {order}: it is closed, and what it did not spend refunded"))
    })?;
    let now = session.chain.rpc.clock().await?.unix_timestamp;
    found.ripen(now);
    if !found.is_active(now) || found.is_stopped() {
        return Err(refused(format!("order {order} is not active: it has not begun, was stopped, or has ended")));
    }
    Ok((found, now))
}

fn stay_behind(leases: &[Shorter]) -> Vec<RefusedWorker> {
    let worker = |device: ChainAddress| WorkerId::of_device_key(&PublicKey(device.0));
    let refused = |(device, reason)| RefusedWorker { worker: worker(device), reason };
    market::stay_behind(leases).into_iter().map(refused).collect()
}

async fn anew(
    session: &Session,
    wallet: &Wallet,
    slot: &Slot<PendingExtension>,
    order: &Address,
    seconds: u32,
    yes: bool,
) -> Result<PendingExtension, Failure> {
    let (found, now) = read(session, order).await?;
    let renter = wallet.chain.address();
    if found.renter != renter.0 {
        let message = format!("order {order} is of {}, and the wallet is {renter}", ChainAddress(found.renter));
        return Err(Failure::new(Exit::Refused, "other_renter", message));
    }
    let words = |error: atoll_interface::Error| {
        Failure::new(Exit::Refused, "cannot_be_extended", format!("{}; nothing was charged", error.words()))
    };
    let escrow = found.extension(seconds).map_err(words)?;
    let mut longer = found;
    longer.extend(seconds, escrow, now).map_err(words)?;
    let market = Market::new(session.chain.rpc.clone());
    let leases = market
        .shorter_leases(&ChainAddress(order.0), &longer, now)
        .await
        .map_err(|error| Failure::new(Exit::Unreachable, "chain_unreachable", error.to_string()))?;
    let refusals = stay_behind(&leases);
    if market::is_in_vain(&longer, &leases) {
        let message = "no lease of this order can be lengthened now; nothing was charged. Each worker's reason:".into();
        return Err(Failure { exit: Exit::Refused, code: "cannot_be_extended".into(), message, refusals });
    }
    session.out.say(&price_text(&longer, seconds, Atl(escrow), &refusals));
    let mint = ChainAddress(session.chain.network().await?.config.mint);
    let held = session.chain.atl(&renter, &mint).await?;
    if held < Atl(escrow) {
        let message = format!(
            "the wallet {renter} holds {held}, and the worst case is {}; nothing was charged. Send ATL to it, or lower --hours",
            Atl(escrow)
        );
        return Err(Failure::new(Exit::Refused, "insufficient_funds", message));
    }
    submit::confirm(session.out, submit::ESCROW_THIS, yes)?;
    let (transaction, last_valid_height) = session.chain.sign_extension(wallet, order, mint, seconds, escrow).await?;
    let key = format!("extend-{}", hex::encode(random::<16>()?));
    let pending = PendingExtension::new(key, seconds, escrow, &transaction, last_valid_height);
    slot.keep(&pending)?;
    send(session, wallet, slot, order, &pending).await?;
    Ok(pending)
}

/// Price and worst case, before anything is charged, and who does not go along.
fn price_text(longer: &Order, seconds: u32, escrow: Atl, refusals: &[RefusedWorker]) -> String {
    let devices = longer.devices_live.saturating_add(longer.devices_open);
    let price = UsdMicrosPerHour(longer.price_cap_uusd);
    let worst = submit::usd_micros(price, devices, u64::from(seconds));
    let mut text = format!(
        "{devices} x {} more at up to {price}, until {}\nworst case {}.{:02} USD = {escrow} escrowed, fee included; what is not served is refunded",
        output::length(u64::from(seconds)),
        at(longer.end),
        worst / 1_000_000,
        worst % 1_000_000 / 10_000,
    );
    for refused in refusals {
        text.push_str(&format!("\n  {} {}", refused.worker, refused.reason));
    }
    text
}

fn at(unix_s: i64) -> UnixMs {
    UnixMs(u64::try_from(unix_s).unwrap_or_default().saturating_mul(1000))
}

/// Waits until every lease that can has followed its order, and tells until when it runs.
async fn show(session: &Session, address: &Address, done: &PendingExtension) -> Result<Exit, Failure> {
    let market = Market::new(session.chain.rpc.clone());
    let until = tokio::time::Instant::now() + FOLLOW_MAX;
    let (order, leases, late) = loop {
        let (order, now) = read(session, address).await?;
        let leases = market
            .shorter_leases(&ChainAddress(address.0), &order, now)
            .await
            .map_err(|error| Failure::new(Exit::Unreachable, "chain_unreachable", error.to_string()))?;
        let waits = order.extended_s < done.seconds || leases.iter().any(|lease| lease.goes_along.is_ok());
        let late = tokio::time::Instant::now() >= until;
        if !waits || late {
            break (order, leases, waits);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let extended = Extended {
        order: *address,
        transaction: done.signed()?.signature().to_string(),
        added_s: done.seconds,
        escrow: done.escrow,
        ends: at(order.end),
        refusals: stay_behind(&leases),
    };
    session.out.result(&extended, || {
        let length = output::length(u64::from(done.seconds));
        let mut text = format!("lengthened by {length}: runs until {}", extended.ends);
        for refused in &extended.refusals {
            text.push_str(&format!("\n  {} {}", refused.worker, refused.reason));
        }
        if late {
            text.push_str("\nits leases have not followed yet; whichever operator sees it moves them before they end");
        }
        text
    })?;
    Ok(Exit::Ok)
}

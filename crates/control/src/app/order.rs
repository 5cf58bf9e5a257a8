//! Reads a renter's signed `post_order` transaction, offline, and holds it against the specification.
//!
//! The chain decides in the end; this keeps an order that could never run its job from being posted at all. Pure.

use atoll_chain::market::address;
use atoll_chain::transaction::{Decoded, decode};
use atoll_domain::job::JobSpec;
use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_interface::instruction::{Instruction, PostOrder};
use atoll_interface::{arithmetic, seeds, settlement};

use super::market::{CatalogueModel, MarketView};

/// Places in the accounts of `post_order`, in the order that `interface` declares them.
const AUTHORITY: usize = 0;
const PAYER: usize = 1;
const ORDER: usize = 2;
const SOURCE: usize = 4;
const BUDGET: usize = 5;
const MINT: usize = 9;

/// What an order costs and who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most one device-hour may cost.
    pub price_max: UsdMicrosPerHour,
    /// Escrowed when posted: the worst case with the renter's fee.
    pub escrow: Atl,
    /// The renter's token account that pays it.
    pub source: Address,
    /// Who pays the rent of the order's accounts.
    pub payer: Address,
}

/// Why an order transaction is refused, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order transaction does not fit: {0}")]
pub struct Misfit(pub String);

/// The worst case of an order: devices × seconds at the price cap, converted by the feed, with the renter's fee.
///
/// # Errors
/// When it exceeds what 64 bits hold, or there is no feed.
pub fn escrow(
    price_max: UsdMicrosPerHour,
    devices: u32,
    seconds: u64,
    feed_usd_micros: u64,
    fee_bps: u16,
) -> Result<Atl, Misfit> {
    let seconds = u32::try_from(seconds).map_err(|_| Misfit("it is too long".into()))?;
    let words = |error: atoll_interface::Error| Misfit(format!("its worst case cannot be computed: {}", error.words()));
    let rate = arithmetic::rate(price_max.0, feed_usd_micros).map_err(words)?;
    settlement::worst_case(rate, devices, seconds, fee_bps).map(Atl).map_err(words)
}

/// Holds the transaction against the specification it is to pay for.
///
/// # Errors
/// [`Misfit`], naming the first thing that differs.
pub fn check(
    transaction: &[u8],
    spec: &JobSpec,
    root: &Digest,
    view: &MarketView,
    model: &CatalogueModel,
    node: &PublicKey,
) -> Result<Terms, Misfit> {
    let decoded = decode(transaction).map_err(|error| Misfit(error.to_string()))?;
    let (instruction, post) = read(&decoded, &view.network.program_id)?;
    let account = |at: usize| {
        let found = instruction.accounts.get(at).map(|meta| PublicKey(meta.address.0));
        found.ok_or_else(|| Misfit("post_order lacks accounts".into()))
    };
    check_accounts(&decoded, &post, spec, view, &account)?;
    check_fields(&post, spec, root, view, model, node)?;
    let price_max = UsdMicrosPerHour(post.price_cap_uusd);
    let escrow =
        escrow(price_max, post.devices, u64::from(post.duration_s), view.feed_usd_micros, view.network.fee_bps)?;
    Ok(Terms { price_max, escrow, source: account(SOURCE)?, payer: account(PAYER)? })
}

/// What an order's transaction posts that was checked when its job was accepted.
///
/// # Errors
/// [`Misfit`] when it posts none.
pub fn posted(transaction: &[u8]) -> Result<PostOrder, Misfit> {
    let decoded = decode(transaction).map_err(|error| Misfit(error.to_string()))?;
    read(&decoded, &PublicKey(atoll_interface::PROGRAM_ID)).map(|(_, post)| post)
}

/// The one instruction to the market program: `post_order`.
fn read<'a>(decoded: &'a Decoded, program: &Address) -> Result<(&'a atoll_chain::Instruction, PostOrder), Misfit> {
    let mut of_market = decoded.instructions.iter().filter(|instruction| instruction.program.0 == program.0);
    let (Some(instruction), None) = (of_market.next(), of_market.next()) else {
        return Err(Misfit(format!("it must hold exactly one instruction of the market program {program}")));
    };
    match Instruction::decode(&instruction.data) {
        Ok(Instruction::PostOrder(post)) => Ok((instruction, post)),
        Ok(_) => Err(Misfit("its instruction is not post_order".into())),
        Err(error) => Err(Misfit(format!("its instruction cannot be read: {}", error.words()))),
    }
}

fn same<T: PartialEq + std::fmt::Display>(what: &str, order: T, wanted: T) -> Result<(), Misfit> {
    if order == wanted { Ok(()) } else { Err(Misfit(format!("its {what} is {order}, and the job's is {wanted}"))) }
}

fn check_accounts(
    decoded: &Decoded,
    post: &PostOrder,
    spec: &JobSpec,
    view: &MarketView,
    account: &impl Fn(usize) -> Result<PublicKey, Misfit>,
) -> Result<(), Misfit> {
    let signer = spec.signer();
    same("signer", account(AUTHORITY)?, signer)?;
    let signs = |meta: &&atoll_chain::AccountMeta| meta.signer && meta.address.0 == signer.0;
    if decoded.accounts.iter().find(signs).is_none() {
        return Err(Misfit("the renter did not sign it".into()));
    }
    same("order account", account(ORDER)?, spec.order)?;
    let budget = spec.budget.map(|key| budget_of(&spec.renter, &key));
    same("budget account", account(BUDGET)?, budget.unwrap_or(spec.order))?;
    if let Some(budget) = budget {
        same("paying account", account(SOURCE)?, vault_of(&budget))?;
    }
    same("mint", account(MINT)?, view.network.mint)?;
    let (renter, nonce) = (spec.renter.0, post.nonce.to_le_bytes());
    let program = atoll_chain::Address(view.network.program_id.0);
    let derived = atoll_chain::Address::find_program_address(&seeds::order(&renter, &nonce), &program);
    let (derived, _) = derived.map_err(|error| Misfit(error.to_string()))?;
    same("order account", PublicKey(derived.0), spec.order)
}

/// The account of a wallet's session key.
#[must_use]
pub fn budget_of(wallet: &PublicKey, key: &PublicKey) -> Address {
    PublicKey(address::budget(&atoll_chain::Address(wallet.0), &atoll_chain::Address(key.0)).0)
}

fn vault_of(budget: &Address) -> Address {
    PublicKey(address::budget_vault(&atoll_chain::Address(budget.0)).0)
}

fn check_fields(
    post: &PostOrder,
    spec: &JobSpec,
    root: &Digest,
    view: &MarketView,
    model: &CatalogueModel,
    node: &PublicKey,
) -> Result<(), Misfit> {
    same("specification root", Digest(post.spec_root), *root)?;
    same("number of devices", post.devices, spec.devices)?;
    same("least number of devices", post.devices_min, spec.devices)?;
    same("length in seconds", u64::from(post.duration_s), spec.seconds_max)?;
    if post.models != [model.id, 0, 0, 0] {
        return Err(Misfit(format!("it must accept exactly the model `{}` (number {})", model.name, model.id)));
    }
    if post.price_cap_uusd == 0 || post.price_cap_uusd > UsdMicrosPerHour::MAX.0 {
        return Err(Misfit(format!(
            "its price cap is {}: it must be above 0 and at most {}",
            UsdMicrosPerHour(post.price_cap_uusd),
            UsdMicrosPerHour::MAX
        )));
    }
    if !post.solvers.contains(&node.0) {
        return Err(Misfit(format!("it must name this operator's key {node} among its solvers")));
    }
    if post.fill_s == 0 || post.fill_s > view.network.fill_s_max {
        let most = view.network.fill_s_max;
        return Err(Misfit(format!("its time to fill is {} s: it must be 1 to {most}", post.fill_s)));
    }
    if post.devices_per_worker != 0 || post.region != 0 || post.fill_root != [0; 32] {
        return Err(Misfit("this operator does not place by region, by devices per worker or by chosen groups".into()));
    }
    Ok(())
}

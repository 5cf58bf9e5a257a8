//! `atoll order`: a wallet's orders as the chain has them, with no operator in between.

use atoll_chain::market::fill::bit;
use atoll_chain::market::layout::{Lease, Order as Record};
use atoll_chain::market::settlement::Reason;
use atoll_chain::market::{At, EXTENSION_S_MIN, address, data, instruction, is_in_vain, stay_behind};
use atoll_chain::{Address, Instruction, spl};
use atoll_domain::key::PublicKey;
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_domain::time::UnixMs;
use atoll_interface::NO_ADDRESS;
use serde::Serialize;

use super::act::{Act, carry_out};
use super::stake::told;
use super::{ByWallet, OnChain, Signing, at, public};
use crate::exit::{Exit, Failure};
use crate::output::{Output, length, table};
use crate::span::Span;

/// Leases that one transaction gives back: each brings two accounts and a bitmap of up to 128 bytes, beside 300 of the rest.
const RELEASES_MAX: usize = 4;

/// `atoll order …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Order {
    /// List your orders that stand on the chain
    #[command(after_help = "Example:\n  atoll order list --json")]
    List {
        #[command(flatten)]
        by: ByWallet,
    },
    /// Show one order with its leases
    #[command(after_help = "Example:\n  atoll order show 7Xk3...")]
    Show {
        /// The order's address
        order: PublicKey,
    },
    /// Lengthen an order that runs; its leases follow by whichever operator sees it
    #[command(after_help = "Example:\n  atoll order extend 7Xk3... --for 2h")]
    Extend {
        /// The order's address
        order: PublicKey,
        /// How much longer, for example 2h
        #[arg(long = "for", value_name = "TIME")]
        longer: Span,
        #[command(flatten)]
        signing: Signing,
    },
    /// Stop an order: its devices are given back, and it is closed once nothing of it is held
    #[command(after_help = "Example:\n  atoll order cancel 7Xk3...")]
    Cancel {
        /// The order's address
        order: PublicKey,
        #[command(flatten)]
        signing: Signing,
    },
    /// Close an order that is over or stopped: what it did not spend is refunded
    #[command(after_help = "Example:\n  atoll order close 7Xk3...")]
    Close {
        /// The order's address
        order: PublicKey,
        #[command(flatten)]
        signing: Signing,
    },
}

/// An order, as scripts read it. Amounts are base units, 10^-9 ATL.
#[derive(Serialize)]
struct Shown {
    order: PublicKey,
    renter: PublicKey,
    /// `filling`, `active`, `stopped`, `failed` or `ended`.
    state: &'static str,
    devices: u32,
    devices_live: u32,
    price_max: UsdMicrosPerHour,
    escrow: Atl,
    fees: Atl,
    owed: Atl,
    leases_open: u16,
    posted: UnixMs,
    ends: Option<UnixMs>,
    /// The vault of the session key that posted it, which takes the refund.
    budget: Option<PublicKey>,
}

#[derive(Serialize)]
struct ShownLease {
    lease: PublicKey,
    n: u16,
    devices_live: u32,
    ask: UsdMicrosPerHour,
    device_seconds_paid: u64,
    owed: Atl,
    ends: Option<UnixMs>,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    order: Shown,
    leases: Vec<ShownLease>,
}

/// Carries a verb out.
///
/// # Errors
/// [`Failure`]; nothing was changed then, but for what it says.
pub async fn run(out: Output, verb: Order) -> Result<Exit, Failure> {
    let on = OnChain::open(out).await?;
    match verb {
        Order::List { by } => list(&on, &on.wallet(&by)?.chain.address()).await,
        Order::Show { order } => show(&on, &Address(order.0)).await,
        Order::Extend { order, longer, signing } => extend(&on, &Address(order.0), longer, &signing).await,
        Order::Cancel { order, signing } => cancel(&on, &Address(order.0), &signing).await,
        Order::Close { order, signing } => close(&on, &Address(order.0), &signing).await,
    }
}

fn state(order: &Record, now: i64) -> &'static str {
    match () {
        () if order.is_stopped() => "stopped",
        () if order.is_active(now) => "active",
        () if order.has_failed(now) => "failed",
        () if order.is_over(now) => "ended",
        () => "filling",
    }
}

fn shown(found: &At<Record>, now: i64) -> Shown {
    let order = &found.value;
    Shown {
        order: public(found.address),
        renter: PublicKey(order.renter),
        state: state(order, now),
        devices: order.devices,
        devices_live: order.devices_live,
        price_max: UsdMicrosPerHour(order.price_cap_uusd),
        escrow: Atl(order.escrow),
        fees: Atl(order.fees),
        owed: Atl(order.owed),
        leases_open: order.leases_open,
        posted: at(order.posted_at),
        ends: (order.end != 0).then(|| at(order.end)),
        budget: (order.budget != NO_ADDRESS).then(|| public(address::budget_vault(&Address(order.budget)))),
    }
}

/// An order as the chain would see it now.
async fn read(on: &OnChain, order: &Address) -> Result<At<Record>, Failure> {
    let Some(mut found) = on.market.order(order).await? else {
        let message = format!(
            "the chain has no order {order}: it is closed, and what it did not spend refunded; `atoll order list` shows yours"
        );
        return Err(Failure::new(Exit::Refused, "order_over", message));
    };
    found.value.ripen(on.now);
    Ok(found)
}

async fn list(on: &OnChain, wallet: &Address) -> Result<Exit, Failure> {
    let mut found = on.market.orders_of(wallet).await?;
    for order in &mut found {
        order.value.ripen(on.now);
    }
    found.sort_by_key(|order| std::cmp::Reverse((order.value.posted_at, order.address)));
    let all: Vec<Shown> = found.iter().map(|order| shown(order, on.now)).collect();
    on.out.result(&all, || {
        if all.is_empty() {
            return format!("{wallet} has no order on the chain; `atoll job submit` posts one");
        }
        let row = |one: &Shown| {
            let devices = format!("{}/{}", one.devices_live, one.devices);
            let ends = one.ends.map_or_else(String::new, |ends| ends.to_string());
            [one.order.to_string(), one.state.into(), devices, one.price_max.to_string(), one.escrow.to_string(), ends]
                .into()
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        table(&["ORDER", "STATE", "DEVICES", "AT MOST", "ESCROW", "ENDS"], &rows)
    })?;
    Ok(Exit::Ok)
}

async fn show(on: &OnChain, order: &Address) -> Result<Exit, Failure> {
    let found = read(on, order).await?;
    let mut leases = leases(on, &found).await?;
    leases.sort_by_key(|lease| lease.value.n);
    let lease = |at_lease: &At<Lease>| ShownLease {
        lease: public(at_lease.address),
        n: at_lease.value.n,
        devices_live: at_lease.value.devices_live,
        ask: UsdMicrosPerHour(at_lease.value.ask_uusd),
        device_seconds_paid: at_lease.value.device_seconds_paid,
        owed: Atl(at_lease.value.owed),
        ends: (at_lease.value.end != 0).then(|| at(at_lease.value.end)),
    };
    let whole = Whole { order: shown(&found, on.now), leases: leases.iter().map(lease).collect() };
    on.out.result(&whole, || {
        let one = &whole.order;
        let mut text = format!(
            "order   {order}\nstate   {}\ndevices {} of {} leased, at up to {}\nescrow  {}, fees {}, owed {}",
            one.state, one.devices_live, one.devices, one.price_max, one.escrow, one.fees, one.owed
        );
        if found.value.end != 0 {
            text.push_str(&format!("\nends    {}", on.when(found.value.end)));
        }
        if let Some(vault) = one.budget {
            text.push_str(&format!("\nposted by a session key; its refund goes to the vault {vault}"));
        }
        let rows: Vec<Vec<String>> = whole
            .leases
            .iter()
            .map(|one| {
                let served = format!("{} s", one.device_seconds_paid);
                vec![
                    one.lease.to_string(),
                    one.devices_live.to_string(),
                    one.ask.to_string(),
                    served,
                    one.owed.to_string(),
                ]
            })
            .collect();
        if !rows.is_empty() {
            text.push_str(&format!("\n\n{}", table(&["LEASE", "DEVICES", "ASK", "SETTLED", "OWED"], &rows)));
        }
        text
    })?;
    Ok(Exit::Ok)
}

async fn leases(on: &OnChain, order: &At<Record>) -> Result<Vec<At<Lease>>, Failure> {
    let mut leases = on.market.leases_of(&order.address).await?;
    for lease in &mut leases {
        lease.value.begin(&order.value);
    }
    leases.sort_by_key(|lease| lease.value.n);
    Ok(leases)
}

/// Refuses when another than the order's renter would sign.
fn check_renter(order: &At<Record>, signer: &Address) -> Result<(), Failure> {
    if order.value.renter == signer.0 {
        return Ok(());
    }
    let message = format!(
        "the order {} is of {}, and the wallet is {signer}; nothing was signed: name the right one with --wallet",
        order.address,
        Address(order.value.renter)
    );
    Err(Failure::new(Exit::Refused, "other_renter", message))
}

async fn extend(on: &OnChain, order: &Address, longer: Span, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let renter = wallet.chain.address();
    if longer.0 < EXTENSION_S_MIN {
        return Err(Failure::usage(format!("--for must be at least {EXTENSION_S_MIN}s; nothing was signed")));
    }
    let done = carry_out(on, &wallet, format!("order extend {order} {}", longer.0), signing.yes, async || {
        let found = read(on, order).await?;
        check_renter(&found, &renter)?;
        let words = |error: atoll_interface::Error| {
            let message = format!("{}; nothing was signed. {}", error.words(), super::refusal::cure(error));
            Failure::new(Exit::Refused, &super::refusal::code(error), message)
        };
        let escrow = found.value.extension(longer.0).map_err(words)?;
        let mut after = found.value;
        after.extend(longer.0, escrow, on.now).map_err(words)?;
        let leases = on.market.shorter_leases(order, &after, on.now).await?;
        let behind = stay_behind(&leases);
        if is_in_vain(&after, &leases) {
            let message =
                "no lease of this order can be lengthened now; nothing was signed. `atoll order show` shows them";
            return Err(Failure::new(Exit::Refused, "cannot_be_extended", message));
        }
        on.check_holds(&renter, Atl(escrow)).await?;
        let data = data::ExtendOrder { seconds: longer.0, escrow };
        let mut consequences = vec![format!("it ends {} then; what is not served is refunded", at(after.end))];
        if found.value.budget != NO_ADDRESS {
            consequences.push("a session key posted it: what your wallet adds is refunded to that key's vault".into());
        }
        consequences.extend(behind.iter().map(|(device, why)| format!("the worker {device} {why}")));
        Ok(Act {
            instructions: vec![instruction::extend_order(renter, *order, on.purse(&renter), &data)],
            consequences,
        })
    });
    told(on, &done.await?)
}

/// The first slot that a lease holds, and the bitmap from its byte on, as short as it may be.
fn held(lease: &Lease) -> (u16, Vec<u8>) {
    let slots: Vec<usize> = (0..lease.bitmap.len() * 8).filter(|slot| bit(&lease.bitmap, *slot)).collect();
    let Some((first, last)) = slots.first().zip(slots.last()) else { return (0, Vec::new()) };
    let mut bits = vec![0; (last - first) / 8 + 1];
    for slot in &slots {
        bits[(slot - first) / 8] |= 1 << ((slot - first) % 8);
    }
    (u16::try_from(*first).expect("a page has 1024 slots"), bits)
}

fn release(renter: Address, order: Address, lease: &At<Lease>) -> Result<Instruction, Failure> {
    let (first_slot, bits) = held(&lease.value);
    let data = data::ReleaseLease { reason: Reason::Done as u8, effective_at: 0, first_slot, bits: &bits };
    instruction::release_lease(renter, order, lease.address, Address(lease.value.page), None, &data)
        .map_err(|error| Failure::new(Exit::Internal, "transaction", error.words()))
}

async fn cancel(on: &OnChain, order: &Address, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let renter = wallet.chain.address();
    let done = carry_out(on, &wallet, format!("order cancel {order}"), signing.yes, async || {
        let found = read(on, order).await?;
        check_renter(&found, &renter)?;
        let live: Vec<At<Lease>> =
            leases(on, &found).await?.into_iter().filter(|lease| lease.value.devices_live > 0).collect();
        if live.is_empty() {
            return closing(on, &found, renter);
        }
        let some = &live[..live.len().min(RELEASES_MAX)];
        let instructions = some.iter().map(|lease| release(renter, *order, lease)).collect::<Result<_, _>>()?;
        let devices: u32 = some.iter().map(|lease| lease.value.devices_live).sum();
        let mut consequences =
            vec![format!("{devices} device(s) are free at once; what they served is still settled and paid")];
        if live.len() > some.len() {
            consequences.push(format!("{} more lease(s) are left: run this again", live.len() - some.len()));
        } else {
            consequences.push(format!("then `atoll order close {order}` refunds the rest, if the operator has not"));
        }
        Ok(Act { instructions, consequences })
    });
    told(on, &done.await?)
}

async fn close(on: &OnChain, order: &Address, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let signer = wallet.chain.address();
    let done = carry_out(on, &wallet, format!("order close {order}"), signing.yes, async || {
        let found = read(on, order).await?;
        closing(on, &found, signer)
    });
    told(on, &done.await?)
}

/// Closes an order of which nothing is held; collects its fees first. The refund goes where the escrow came from.
fn closing(on: &OnChain, found: &At<Record>, signer: Address) -> Result<Act, Failure> {
    let (order, renter) = (&found.value, Address(found.value.renter));
    let refused = |message: String| Err(Failure::new(Exit::Refused, "order_still_held", message));
    if order.leases_open > 0 || order.owed > 0 {
        return refused(format!(
            "{} lease(s) of it are not closed, {} are owed; nothing was signed. Its operator settles and closes them; any other does after the stall time of {}",
            order.leases_open,
            Atl(order.owed),
            length(u64::from(on.found.config.stall_s))
        ));
    }
    if renter != signer && !order.is_stopped() && !order.is_over(on.now) {
        return refused("the order is not over, and only its renter closes it before; nothing was signed".into());
    }
    let mut instructions = Vec::new();
    if order.fees > 0 {
        instructions.push(instruction::collect_fees(found.address, on.mint(), Address(on.found.config.treasury)));
    }
    let budget = (order.budget != NO_ADDRESS).then_some(Address(order.budget));
    let refund = if let Some(budget) = budget {
        address::budget_vault(&budget)
    } else {
        instructions.push(spl::create_associated_token(signer, renter, on.mint()));
        on.purse(&renter)
    };
    instructions.push(instruction::close_order(signer, found.address, refund, Address(order.rent_payer), budget));
    let to = if budget.is_some() { "the vault of the session key that posted it" } else { "its renter's wallet" };
    Ok(Act { instructions, consequences: vec![format!("{} go back to {to}", Atl(order.escrow))] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_chain::market::fill::{Slots, set_bit};
    use atoll_interface::layout::ORDER_STOPPED;

    #[test]
    fn exactly_the_slots_that_a_lease_holds_are_named() {
        for slots in [&[0][..], &[5, 6, 13], &[1023], &[0, 1023], &[7, 8], &[9]] {
            let mut lease = Lease::new();
            slots.iter().for_each(|slot| set_bit(&mut lease.bitmap, *slot, true));
            let (first, bits) = held(&lease);
            let named: Vec<usize> = Slots::new(first, &bits).unwrap().iter().collect();
            assert_eq!(named, slots);
        }
        assert_eq!(held(&Lease::new()), (0, Vec::new()));
    }

    #[test]
    fn an_order_is_said_to_be_what_the_program_holds_it_for() {
        let order = |change: fn(&mut Record)| {
            let mut order = Record { fill_by: 10, devices: 1, devices_min: 1, ..Record::new() };
            change(&mut order);
            state(&order, 10)
        };
        assert_eq!(order(|order| order.fill_by = 11), "filling");
        assert_eq!(order(|_| ()), "failed");
        assert_eq!(order(|order| (order.active_at, order.end) = (1, 11)), "active");
        assert_eq!(order(|order| (order.active_at, order.end) = (1, 10)), "ended");
        assert_eq!(order(|order| order.flags = ORDER_STOPPED), "stopped");
    }
}

//! `atoll costake`: stake that one puts under another's workers, on terms that were offered.

use atoll_chain::market::layout::{
    CO_STAKE_HELD, CO_STAKE_LEAVING, CO_STAKE_OFFERED, CO_STAKE_WAITING, CoStake as Record, FleetPage,
};
use atoll_chain::market::stake::OFFERS_MAX;
use atoll_chain::market::{At, data, leaving};
use atoll_chain::{Address, market, spl};
use atoll_domain::key::PublicKey;
use atoll_domain::money::Atl;
use atoll_domain::time::UnixMs;
use serde::Serialize;

use super::act::{Act, carry_out};
use super::stake::told;
use super::words::percent;
use super::{ByWallet, OnChain, Signing, at, public};
use crate::exit::{Exit, Failure};
use crate::output::{Output, length, table};

/// `atoll costake …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum CoStake {
    /// Offer to take co-stake, as a supplier
    #[command(after_help = "Example:\n  atoll costake offer 100 --reward-bps 4000 --wallet supplier.json")]
    Offer {
        /// How much, in ATL: exactly so much is to be put under it
        amount: Atl,
        /// The co-staker's share of what its part of the stake earns, in basis points: 4000 is 40 %
        #[arg(long, value_name = "BPS", value_parser = clap::value_parser!(u16).range(0..=10_000))]
        reward_bps: u16,
        /// Number of the offer, below 16 [default: the lowest that is free]
        #[arg(long, value_parser = clap::value_parser!(u16).range(0..16))]
        n: Option<u16>,
        #[command(flatten)]
        signing: Signing,
    },
    /// Put stake under a supplier's offer; its terms are shown and fixed
    #[command(after_help = "Example:\n  atoll costake accept 7Yk... 0")]
    Accept {
        /// The supplier's wallet address
        supplier: PublicKey,
        /// Number of the offer
        n: u16,
        #[command(flatten)]
        signing: Signing,
    },
    /// Take the next step out: take an offer back, ask to leave, leave, be paid
    #[command(after_help = "Example:\n  atoll costake exit 7Yk... 0")]
    Exit {
        /// The supplier's wallet address
        supplier: PublicKey,
        /// Number of the offer
        n: u16,
        #[command(flatten)]
        signing: Signing,
    },
    /// List offers and co-stakes
    #[command(after_help = "Examples:\n  atoll costake list --open\n  atoll costake list --mine --json")]
    List {
        /// Only those of this supplier
        #[arg(long, value_name = "ADDRESS")]
        supplier: Option<PublicKey>,
        /// Only those that your wallet put
        #[arg(long)]
        mine: bool,
        /// Only those that nobody has accepted
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        by: ByWallet,
    },
}

/// A co-stake, as scripts read it.
#[derive(Serialize)]
struct Shown {
    supplier: PublicKey,
    n: u16,
    /// `offered`, `held`, `waiting` or `leaving`.
    state: &'static str,
    /// Base units put under it.
    amount: Atl,
    /// What slashes left of it, base units.
    worth: Atl,
    reward_bps: u16,
    staker: Option<PublicKey>,
    /// When the next step may be taken.
    next_at: Option<UnixMs>,
}

/// Carries a verb out.
///
/// # Errors
/// [`Failure`]; nothing was changed then.
pub async fn run(out: Output, verb: CoStake) -> Result<Exit, Failure> {
    let on = OnChain::open(out).await?;
    match verb {
        CoStake::Offer { amount, reward_bps, n, signing } => offer(&on, amount, reward_bps, n, &signing).await,
        CoStake::Accept { supplier, n, signing } => accept(&on, &Address(supplier.0), n, &signing).await,
        CoStake::Exit { supplier, n, signing } => exit(&on, &Address(supplier.0), n, &signing).await,
        CoStake::List { supplier, mine, open, by } => {
            let staker = if mine { Some(on.wallet(&by)?.chain.address()) } else { None };
            list(&on, supplier.map(|supplier| Address(supplier.0)), staker, open).await
        }
    }
}

const fn state(record: &Record) -> &'static str {
    match record.state {
        CO_STAKE_OFFERED => "offered",
        CO_STAKE_HELD => "held",
        CO_STAKE_WAITING => "waiting",
        CO_STAKE_LEAVING => "leaving",
        _ => "unknown",
    }
}

async fn offer(on: &OnChain, amount: Atl, reward_bps: u16, n: Option<u16>, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let supplier = wallet.chain.address();
    let asked = format!("costake offer {} {reward_bps} {n:?}", amount.0);
    let done = carry_out(on, &wallet, asked, signing.yes, async || {
        let page = on.supplier(&supplier).await?;
        let taken: Vec<u16> = of_supplier(on, &supplier).await?.iter().map(|found| found.value.n).collect();
        let Some(n) = n.or_else(|| (0..OFFERS_MAX).find(|n| !taken.contains(n))) else {
            let message = format!(
                "all {OFFERS_MAX} numbers are taken; nothing was signed. Take an offer back that nobody accepted: `atoll costake exit {supplier} N`"
            );
            return Err(Failure::new(Exit::Refused, "offers_full", message));
        };
        let mut consequences = Vec::new();
        if page.costake.saturating_add(amount.0) > page.own {
            consequences.push(format!(
                "nobody can accept it yet: co-stake is at most as much as your own {}, and {} are taken",
                Atl(page.own),
                Atl(page.costake)
            ));
        }
        let data = data::CostakeOffer { n, amount: amount.0, reward_bps };
        Ok(Act { instructions: vec![leaving::costake_offer(supplier, &data)], consequences })
    });
    told(on, &done.await?)
}

async fn of_supplier(on: &OnChain, supplier: &Address) -> Result<Vec<At<Record>>, Failure> {
    Ok(on.market.costakes_of(&market::address::page(supplier, 0)).await?)
}

/// An offer of a supplier, and the supplier.
async fn one(on: &OnChain, supplier: &Address, n: u16) -> Result<(Record, FleetPage), Failure> {
    let page = on.supplier(supplier).await?;
    let found = on.market.costake(&market::address::page(supplier, 0), n).await?;
    let found = found.ok_or_else(|| {
        let message = format!("{supplier} has no offer {n}; nothing was signed. `atoll costake list` shows all");
        Failure::new(Exit::Refused, "no_offer", message)
    })?;
    Ok((found.value, page))
}

async fn accept(on: &OnChain, supplier: &Address, n: u16, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let staker = wallet.chain.address();
    let done = carry_out(on, &wallet, format!("costake accept {supplier} {n}"), signing.yes, async || {
        let (offer, page) = one(on, supplier, n).await?;
        if offer.state != CO_STAKE_OFFERED {
            let message = format!("the offer is {} already; nothing was signed. Choose another", state(&offer));
            return Err(Failure::new(Exit::Refused, "co_stake_state_wrong", message));
        }
        on.check_holds(&staker, Atl(offer.amount)).await?;
        let rules = on.market.rules().await?.value;
        let terms = data::CostakeAccept { amount: offer.amount, reward_bps: offer.reward_bps };
        let (wait, unbond) = (length(u64::from(rules.exit_wait_s)), length(u64::from(rules.unbond_s)));
        Ok(Act {
            instructions: vec![leaving::costake_accept(staker, *supplier, n, on.purse(&staker), &terms)],
            consequences: vec![
                format!("the supplier {supplier} has {} of its own at stake", Atl(page.own)),
                format!("it is bound until {wait} after you ask to leave, and slashable for {unbond} more"),
                "what its workers are slashed for takes from yours in proportion".into(),
            ],
        })
    });
    told(on, &done.await?)
}

/// What the next step is, or when it may be taken.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// By the supplier: the offer is taken back.
    TakeBack,
    /// By the co-staker: the first waiting time begins.
    Ask,
    /// By anyone: it counts no more, the second waiting time begins.
    Leave,
    /// By anyone: it is paid out.
    Pay,
    /// Nothing before this second.
    Wait(i64),
}

const fn step(record: &Record, now: i64) -> Step {
    match record.state {
        CO_STAKE_OFFERED => Step::TakeBack,
        CO_STAKE_HELD => Step::Ask,
        _ if now < record.until => Step::Wait(record.until),
        CO_STAKE_WAITING => Step::Leave,
        _ => Step::Pay,
    }
}

async fn exit(on: &OnChain, supplier: &Address, n: u16, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let signer = wallet.chain.address();
    let done = carry_out(on, &wallet, format!("costake exit {supplier} {n}"), signing.yes, async || {
        let (record, page) = one(on, supplier, n).await?;
        let rules = on.market.rules().await?.value;
        let staker = Address(record.staker);
        let worth = Atl(record.worth(&page).unwrap_or(record.amount));
        let plain = |who: Address, what: String| {
            if who != signer {
                let message = format!("only {who} may take this step, and {signer} signs; nothing was signed");
                return Err(Failure::new(Exit::Refused, "not_authorised", message));
            }
            Ok(Act { instructions: vec![leaving::costake_exit(signer, *supplier, n, None)], consequences: vec![what] })
        };
        let unbond = length(u64::from(rules.unbond_s));
        match step(&record, on.now) {
            Step::TakeBack => plain(*supplier, "the offer is taken back".into()),
            Step::Ask => {
                let wait = length(u64::from(rules.exit_wait_s));
                plain(staker, format!("{worth} count for {wait} more; then run this again"))
            }
            Step::Leave => {
                plain(signer, format!("{worth} count no more, and are slashable for {unbond}; then run this again"))
            }
            Step::Pay => Ok(Act {
                instructions: vec![
                    spl::create_associated_token(signer, staker, on.mint()),
                    leaving::costake_exit(signer, *supplier, n, Some(on.purse(&staker))),
                ],
                consequences: vec![format!("{worth} are paid to {staker}")],
            }),
            Step::Wait(until) => {
                let message = format!(
                    "it is {}, and the next step may be taken {}; nothing was signed: run this again then",
                    state(&record),
                    on.when(until)
                );
                Err(Failure::new(Exit::Refused, "stake_bound", message))
            }
        }
    });
    told(on, &done.await?)
}

async fn list(on: &OnChain, supplier: Option<Address>, staker: Option<Address>, open: bool) -> Result<Exit, Failure> {
    let records = match supplier {
        Some(supplier) => of_supplier(on, &supplier).await?,
        None => on.market.costakes().await?,
    };
    let mut shown = Vec::new();
    for At { value: record, .. } in records {
        let passes =
            staker.is_none_or(|staker| record.staker == staker.0) && (!open || record.state == CO_STAKE_OFFERED);
        if !passes {
            continue;
        }
        let Some(page) = on.market.page(&Address(record.page)).await? else { continue };
        let page = page.value.header;
        let waits = matches!(record.state, CO_STAKE_WAITING | CO_STAKE_LEAVING);
        let accepted = record.state != CO_STAKE_OFFERED;
        let worth = if accepted { record.worth(&page).unwrap_or_default() } else { record.amount };
        shown.push(Shown {
            supplier: public(Address(page.supplier)),
            n: record.n,
            state: state(&record),
            amount: Atl(record.amount),
            worth: Atl(worth),
            reward_bps: record.reward_bps,
            staker: accepted.then(|| public(Address(record.staker))),
            next_at: waits.then(|| at(record.until)),
        });
    }
    shown.sort_by_key(|one| (one.supplier, one.n));
    on.out.result(&shown, || {
        if shown.is_empty() {
            return "no co-stake; a supplier offers some with `atoll costake offer`".into();
        }
        let row = |one: &Shown| {
            let next = one.next_at.map_or_else(String::new, |at| at.to_string());
            vec![
                one.supplier.to_string(),
                one.n.to_string(),
                one.state.to_owned(),
                one.worth.to_string(),
                percent(one.reward_bps),
                one.staker.map_or_else(String::new, |staker| staker.to_string()),
                next,
            ]
        };
        let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
        table(&["SUPPLIER", "N", "STATE", "WORTH", "REWARD", "CO-STAKER", "NEXT STEP"], &rows)
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_one_another_and_wait_for_their_time() {
        let record = |state, until| Record { state, until, ..Record::new() };
        let all = [
            (record(CO_STAKE_OFFERED, 0), Step::TakeBack),
            (record(CO_STAKE_HELD, 0), Step::Ask),
            (record(CO_STAKE_WAITING, 11), Step::Wait(11)),
            (record(CO_STAKE_WAITING, 10), Step::Leave),
            (record(CO_STAKE_LEAVING, 11), Step::Wait(11)),
            (record(CO_STAKE_LEAVING, 10), Step::Pay),
        ];
        for (record, wanted) in all {
            assert_eq!(step(&record, 10), wanted, "{record:?}");
        }
    }
}

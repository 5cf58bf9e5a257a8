//! `atoll budget`: session keys that order within limits, out of a vault of their own, without the wallet.

use std::path::PathBuf;

use atoll_chain::market::layout::{BUDGET_REVOKED, Budget as Record};
use atoll_chain::market::{At, Market, address, data, instruction};
use atoll_chain::{Address, Keypair, spl};
use atoll_domain::key::PublicKey;
use atoll_domain::money::Atl;
use atoll_domain::time::UnixMs;
use serde::Serialize;

use super::act::{Act, carry_out};
use super::stake::told;
use super::words::sol;
use super::{ByWallet, OnChain, Signing, at};
use crate::chain::Chain;
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use crate::session::random;
use crate::span::Span;

/// Seconds of the day over which a key's limit counts.
const DAY_S: i64 = 86_400;
/// What a session key is given for rents and fees, unless said otherwise: an order's accounts take 0.006 SOL, which come
/// back when it closes.
const SOL: &str = "0.02";

/// `atoll budget …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Budget {
    /// Make a session key with its vault, or change the limits of one and add to its vault
    #[command(
        after_help = "Example:\n  atoll budget create agent.json --order-max 5 --day-max 20 --for 30d --deposit 100\n  atoll job submit . --budget agent.json"
    )]
    Create {
        /// The session key's file; made when it is not there
        file: PathBuf,
        /// The most that one order may escrow, in ATL
        #[arg(long, value_name = "ATL")]
        order_max: Atl,
        /// The most that the orders of one day (UTC) may escrow together, in ATL
        #[arg(long, value_name = "ATL")]
        day_max: Atl,
        /// How long the key works, for example 30d
        #[arg(long = "for", value_name = "TIME")]
        lasts: Span,
        /// What moves from your wallet into its vault, in ATL
        #[arg(long, value_name = "ATL", default_value = "0")]
        deposit: Atl,
        /// What moves from your wallet to the key for rents and fees, in SOL
        #[arg(long, value_name = "SOL", default_value = SOL, value_parser = lamports)]
        sol: u64,
        #[command(flatten)]
        signing: Signing,
    },
    /// Show session keys: limits, what is left today, what their vaults hold
    #[command(after_help = "Examples:\n  atoll budget show\n  atoll budget show 7Yk... --json")]
    Show {
        /// One key's address [default: all of the wallet]
        key: Option<PublicKey>,
        #[command(flatten)]
        by: ByWallet,
    },
    /// End a session key and take back what its vault holds; again takes what came back later
    #[command(after_help = "Example:\n  atoll budget revoke 7Yk...")]
    Revoke {
        /// The key's address
        key: PublicKey,
        #[command(flatten)]
        signing: Signing,
    },
}

/// Reads an amount of SOL, which has nine digits as ATL has, in lamports.
///
/// # Errors
/// In words, for what is none.
pub fn lamports(text: &str) -> Result<u64, String> {
    text.parse::<Atl>().map(|amount| amount.0).map_err(|_| format!("`{text}` is not an amount of SOL, such as 0.02"))
}

/// A session key, as scripts read it. Amounts are base units, 10^-9 ATL.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    key: PublicKey,
    /// What its vault holds.
    holds: Atl,
    order_max: Atl,
    day_max: Atl,
    /// What may still be escrowed today.
    day_left: Atl,
    expires_at: UnixMs,
    /// `works`, `expired` or `revoked`.
    state: &'static str,
}

/// Carries a verb out.
///
/// # Errors
/// [`Failure`]; nothing was changed then.
pub async fn run(out: Output, verb: Budget) -> Result<Exit, Failure> {
    let on = OnChain::open(out).await?;
    match verb {
        Budget::Create { file, order_max, day_max, lasts, deposit, sol, signing } => {
            let limits = Limits { order_max, day_max, lasts, deposit, lamports: sol };
            create(&on, &file, &limits, &signing).await
        }
        Budget::Show { key, by } => show(&on, key, &on.wallet(&by)?.chain.address()).await,
        Budget::Revoke { key, signing } => revoke(&on, &Address(key.0), &signing).await,
    }
}

#[derive(Debug)]
struct Limits {
    order_max: Atl,
    day_max: Atl,
    lasts: Span,
    deposit: Atl,
    lamports: u64,
}

/// Reads a session key, or makes it.
fn session_key(file: &std::path::Path) -> Result<Keypair, Failure> {
    if !file.exists() {
        Keypair::from_seed(&random()?).save(file).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Keypair::load(file).map_err(|error| Failure::usage(error.to_string()))
}

async fn create(on: &OnChain, file: &std::path::Path, limits: &Limits, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let renter = wallet.chain.address();
    let shown = file.display();
    let done = carry_out(on, &wallet, format!("budget create {shown} {limits:?}"), signing.yes, async || {
        if limits.order_max > limits.day_max || limits.order_max.0 == 0 {
            return Err(Failure::usage("--order-max must be above 0 and at most --day-max; nothing was signed"));
        }
        on.check_holds(&renter, limits.deposit).await?;
        let key = session_key(file)?.address();
        let set = data::SetBudget {
            key: key.0,
            order_max: limits.order_max.0,
            day_max: limits.day_max.0,
            expires_at: on.now.saturating_add(i64::from(limits.lasts.0)),
            revoked: 0,
            deposit: limits.deposit.0,
            withdraw: 0,
        };
        let mut instructions = vec![instruction::set_budget(renter, on.purse(&renter), on.mint(), &set)];
        if limits.lamports > 0 {
            instructions.push(spl::system_transfer(renter, key, limits.lamports));
        }
        let known = on.market.budget(&renter, &key).await?.is_some();
        let mut consequences = vec![format!(
            "whoever has {shown} can spend the vault within these limits on devices, and send the key's SOL anywhere; refunds go back to the vault"
        )];
        if known {
            consequences.push("the key's earlier limits are replaced; what it spent today still counts".into());
        }
        Ok(Act { instructions, consequences })
    });
    told(on, &done.await?)
}

/// A session key's account, its vault's balance, and how it stands.
///
/// # Errors
/// [`Failure`] when the chain cannot be asked.
async fn seen(chain: &Chain, found: &At<Record>, now: i64) -> Result<Shown, Failure> {
    let vault = chain.rpc.token_account(&address::budget_vault(&found.address)).await?;
    Ok(stands(&found.value, Atl(vault.map_or(0, |vault| vault.amount)), now))
}

fn stands(budget: &Record, holds: Atl, now: i64) -> Shown {
    let today = u64::try_from(now / DAY_S).unwrap_or_default();
    let spent = if budget.day == today { budget.day_spent } else { 0 };
    let state = match () {
        () if budget.flags & BUDGET_REVOKED != 0 => "revoked",
        () if now >= budget.expires_at => "expired",
        () => "works",
    };
    Shown {
        key: PublicKey(budget.key),
        holds,
        order_max: Atl(budget.order_max),
        day_max: Atl(budget.day_max),
        day_left: Atl(budget.day_max.saturating_sub(spent)),
        expires_at: at(budget.expires_at),
        state,
    }
}

/// Refuses an order that the chain would refuse, with the figure that is too low and the next step.
///
/// # Errors
/// [`Failure`] when the key has no budget, has ended, or may not escrow so much.
pub async fn check(chain: &Chain, wallet: &Address, key: &Address, escrow: Atl) -> Result<(), Failure> {
    let Some(found) = Market::new(chain.rpc.clone()).budget(wallet, key).await? else {
        let message =
            format!("{key} is no session key of {wallet}; nothing was charged. Make one: `atoll budget create`");
        return Err(Failure::new(Exit::Refused, "no_budget", message));
    };
    let now = chain.rpc.clock().await?.unix_timestamp;
    fits(&seen(chain, &found, now).await?, escrow)
}

fn fits(budget: &Shown, escrow: Atl) -> Result<(), Failure> {
    let key = budget.key;
    let refused = |code, message: String| Err(Failure::new(Exit::Refused, code, message + "; nothing was charged"));
    if budget.state != "works" {
        let message =
            format!("the session key {key} is {}: renew it with the wallet, `atoll budget create`", budget.state);
        return refused("budget_expired", message);
    }
    let limit = |what: &str, most: Atl, next: &str| {
        format!("the order escrows {escrow}, and the session key {key} {what} {most}: {next}")
    };
    let raise = "ask for less, or raise it with the wallet, `atoll budget create`";
    if escrow > budget.order_max {
        return refused("budget_exceeded", limit("may escrow at most", budget.order_max, raise));
    }
    if escrow > budget.day_left {
        let next = "wait for the next day (UTC), ask for less, or raise it with the wallet, `atoll budget create`";
        return refused("budget_exceeded", limit("has left for today", budget.day_left, next));
    }
    if escrow > budget.holds {
        let next = "ask for less, or fill its vault with the wallet, `atoll budget create --deposit`";
        return refused("insufficient_funds", limit("has in its vault", budget.holds, next));
    }
    Ok(())
}

async fn show(on: &OnChain, key: Option<PublicKey>, wallet: &Address) -> Result<Exit, Failure> {
    let found = match key {
        None => on.market.budgets_of(wallet).await?,
        Some(key) => match on.market.budget(wallet, &Address(key.0)).await? {
            Some(found) => vec![found],
            None => {
                let message = format!("{key} is no session key of {wallet}; `atoll budget show` lists all");
                return Err(Failure::new(Exit::Refused, "no_budget", message));
            }
        },
    };
    let mut shown = Vec::new();
    for one in &found {
        shown.push(seen(&on.chain, one, on.now).await?);
    }
    shown.sort_by_key(|one| one.key);
    on.out.result(&shown, || {
        if shown.is_empty() {
            return format!("{wallet} has no session key; `atoll budget create` makes one");
        }
        let row = |one: &Shown| {
            let figures = [one.holds, one.order_max, one.day_left, one.day_max].map(|amount| amount.to_string());
            [&[one.key.to_string(), one.state.to_owned()][..], &figures, &[one.expires_at.to_string()]].concat()
        };
        let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
        table(&["KEY", "STATE", "HOLDS", "AN ORDER", "LEFT TODAY", "A DAY", "UNTIL"], &rows)
    })?;
    Ok(Exit::Ok)
}

async fn revoke(on: &OnChain, key: &Address, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let renter = wallet.chain.address();
    let done = carry_out(on, &wallet, format!("budget revoke {key}"), signing.yes, async || {
        let refused = |code, message| Err(Failure::new(Exit::Refused, code, message));
        let Some(found) = on.market.budget(&renter, key).await? else {
            return refused("no_budget", format!("{key} is no session key of {renter}; nothing was signed"));
        };
        let budget = &found.value;
        let Atl(holds) = seen(&on.chain, &found, on.now).await?.holds;
        if budget.flags & BUDGET_REVOKED != 0 && holds == 0 {
            return refused("nothing_to_do", format!("{key} is revoked and its vault is empty; nothing was signed"));
        }
        let set = data::SetBudget {
            key: key.0,
            order_max: budget.order_max,
            day_max: budget.day_max,
            expires_at: budget.expires_at,
            revoked: 1,
            deposit: 0,
            withdraw: holds,
        };
        let open =
            on.market.orders_of(&renter).await?.iter().filter(|order| order.value.budget == found.address.0).count();
        let mut consequences =
            vec![format!("what the key itself holds, {}, stays with it", sol(on.chain.rpc.balance(key).await?))];
        if open > 0 {
            consequences.push(format!(
                "{open} order(s) of it go on; what they do not spend goes to the vault: run this again then, or `atoll order cancel`"
            ));
        }
        let purse = on.purse(&renter);
        Ok(Act {
            instructions: vec![
                spl::create_associated_token(renter, renter, on.mint()),
                instruction::set_budget(renter, purse, on.mint(), &set),
            ],
            consequences,
        })
    });
    told(on, &done.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 20_000 * DAY_S + 5;

    fn budget() -> Record {
        Record { order_max: 5, day_max: 20, day_spent: 18, day: 20_000, expires_at: NOW + 1, ..Record::new() }
    }

    #[test]
    fn which_limit_is_hit_is_said_with_its_figure() {
        let code = |budget: &Record, holds, escrow, now| {
            fits(&stands(budget, Atl(holds), now), Atl(escrow)).map_err(|failure| (failure.code, failure.message))
        };
        assert_eq!(code(&budget(), 9, 2, NOW), Ok(()));
        let says = |found: Result<(), (String, String)>, code: &str, words: &str| {
            let (found, message) = found.unwrap_err();
            assert!(found == code && message.contains(words) && message.contains("nothing was charged"), "{message}");
        };
        says(code(&budget(), 9, 6, NOW), "budget_exceeded", "may escrow at most 0.000000005 ATL");
        says(code(&budget(), 9, 3, NOW), "budget_exceeded", "has left for today 0.000000002 ATL");
        says(code(&budget(), 1, 2, NOW), "insufficient_funds", "has in its vault 0.000000001 ATL");
        says(code(&budget(), 9, 2, NOW + 1), "budget_expired", "is expired");
        let revoked = Record { flags: BUDGET_REVOKED, ..budget() };
        says(code(&revoked, 9, 2, NOW), "budget_expired", "is revoked");
        // What was spent yesterday does not count.
        let longer = Record { expires_at: i64::MAX, ..budget() };
        assert_eq!(code(&longer, 9, 3, NOW + DAY_S), Ok(()));
    }
}

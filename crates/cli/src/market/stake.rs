//! `atoll stake`: what a supplier has at stake, and how it comes and goes.

use atoll_chain::market::layout::FleetPage;
use atoll_chain::market::{instruction, leaving};
use atoll_chain::{Address, spl};
use atoll_domain::key::PublicKey;
use atoll_domain::money::Atl;
use atoll_domain::time::UnixMs;
use serde::Serialize;

use super::act::{Act, carry_out};
use super::{ByWallet, OnChain, Signing, at, public};
use crate::exit::{Exit, Failure};
use crate::output::{Output, length};

/// `atoll stake …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Stake {
    /// Show a supplier's stake: what is bound, what is free, what is on its way out
    #[command(after_help = "Example:\n  atoll stake show --wallet supplier.json")]
    Show {
        /// The supplier's wallet address [default: that of --wallet]
        supplier: Option<PublicKey>,
        #[command(flatten)]
        by: ByWallet,
    },
    /// Add to your own stake
    #[command(after_help = "Example:\n  atoll stake add 200 --wallet supplier.json")]
    Add {
        /// How much, in ATL
        amount: Atl,
        #[command(flatten)]
        signing: Signing,
    },
    /// Start the waiting time of stake that no device requires; it stays slashable meanwhile
    #[command(after_help = "Example:\n  atoll stake request 200 --wallet supplier.json")]
    Request {
        /// How much, in ATL
        amount: Atl,
        #[command(flatten)]
        signing: Signing,
    },
    /// Pay out stake whose waiting time is over
    #[command(after_help = "Example:\n  atoll stake withdraw --wallet supplier.json")]
    Withdraw {
        #[command(flatten)]
        signing: Signing,
    },
}

/// A supplier's stake, as scripts read it. Amounts are base units, 10^-9 ATL.
#[derive(Serialize)]
struct Shown {
    supplier: PublicKey,
    /// Own stake that counts.
    own: Atl,
    /// What registered devices require.
    required: Atl,
    /// What may be asked for now.
    free: Atl,
    /// On its way out, still slashable.
    unbonding: Atl,
    /// When that may leave; none when nothing is on its way.
    unbonds_at: Option<UnixMs>,
    costake: Atl,
    costake_leaving: Atl,
    offers: u16,
    strikes: u32,
}

/// Carries a verb out.
///
/// # Errors
/// [`Failure`]; nothing was changed then.
pub async fn run(out: Output, verb: Stake) -> Result<Exit, Failure> {
    let on = OnChain::open(out).await?;
    match verb {
        Stake::Show { supplier, by } => {
            let supplier = match supplier {
                Some(supplier) => Address(supplier.0),
                None => on.wallet(&by)?.chain.address(),
            };
            show(&on, &supplier).await
        }
        Stake::Add { amount, signing } => add(&on, amount, &signing).await,
        Stake::Request { amount, signing } => request(&on, amount, &signing).await,
        Stake::Withdraw { signing } => withdraw(&on, &signing).await,
    }
}

/// Own stake that `unstake_request` would take: what neither devices nor co-stake bind.
fn free(page: &FleetPage) -> Atl {
    let beyond_devices = page.own.saturating_add(page.costake).saturating_sub(page.required);
    let beyond_costake = page.own.saturating_sub(page.costake);
    Atl(beyond_devices.min(beyond_costake).min(page.own))
}

async fn show(on: &OnChain, supplier: &Address) -> Result<Exit, Failure> {
    let page = on.supplier(supplier).await?;
    let shown = Shown {
        supplier: public(*supplier),
        own: Atl(page.own),
        required: Atl(page.required),
        free: free(&page),
        unbonding: Atl(page.unbonding),
        unbonds_at: (page.unbonding > 0).then(|| at(page.unbond_at)),
        costake: Atl(page.costake),
        costake_leaving: Atl(page.costake_leaving),
        offers: page.offers,
        strikes: page.strikes,
    };
    on.out.result(&shown, || {
        let mut text = format!(
            "supplier  {supplier}\nown       {}\nrequired  {} by registered devices\nfree      {}",
            shown.own, shown.required, shown.free
        );
        if page.unbonding > 0 {
            let next = if on.now >= page.unbond_at { ": `atoll stake withdraw` pays it out" } else { "" };
            text.push_str(&format!(
                "\nleaving   {}, may leave {}{next}; slashable until then",
                shown.unbonding,
                on.when(page.unbond_at)
            ));
        }
        text.push_str(&format!("\nco-stake  {} and {} leaving", shown.costake, shown.costake_leaving));
        text
    })?;
    Ok(Exit::Ok)
}

async fn add(on: &OnChain, amount: Atl, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let supplier = wallet.chain.address();
    let done = carry_out(on, &wallet, format!("stake add {}", amount.0), signing.yes, async || {
        let page = on.supplier(&supplier).await?;
        on.check_holds(&supplier, amount).await?;
        let after = Atl(page.own.saturating_add(amount.0));
        Ok(Act {
            instructions: vec![instruction::stake(supplier, on.purse(&supplier), on.mint(), amount.0)],
            consequences: vec![format!("your own stake is {after} then; faults of your workers cost of it")],
        })
    });
    told(on, &done.await?)
}

async fn request(on: &OnChain, amount: Atl, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let supplier = wallet.chain.address();
    let done = carry_out(on, &wallet, format!("stake request {}", amount.0), signing.yes, async || {
        let page = on.supplier(&supplier).await?;
        let rules = on.market.rules().await?.value;
        let free = free(&page);
        if amount > free || amount.0 == 0 {
            let message = format!(
                "{amount} are not free: {free} of {} are, {} are required by devices and {} is co-stake; nothing was signed. Ask for less, or retire workers first",
                Atl(page.own),
                Atl(page.required),
                Atl(page.costake)
            );
            return Err(Failure::new(Exit::Refused, "stake_too_low", message));
        }
        let wait = length(u64::from(rules.unbond_s));
        let mut consequences = vec![format!("it may leave {wait} later, and stays slashable until then")];
        if page.unbonding > 0 {
            let all = Atl(page.unbonding.saturating_add(amount.0));
            consequences.push(format!("{} wait already: the time of all {all} begins anew", Atl(page.unbonding)));
        }
        Ok(Act { instructions: vec![leaving::unstake_request(supplier, amount.0)], consequences })
    });
    told(on, &done.await?)
}

async fn withdraw(on: &OnChain, signing: &Signing) -> Result<Exit, Failure> {
    let wallet = on.wallet(&signing.by)?;
    let supplier = wallet.chain.address();
    let done = carry_out(on, &wallet, "stake withdraw".into(), signing.yes, async || {
        let page = on.supplier(&supplier).await?;
        let refused = |code, message: String| Err(Failure::new(Exit::Refused, code, message));
        if page.unbonding == 0 {
            let next = "start a waiting time with `atoll stake request`";
            return refused("nothing_to_do", format!("no stake is on its way out; nothing was signed: {next}"));
        }
        if on.now < page.unbond_at {
            let when = on.when(page.unbond_at);
            return refused(
                "stake_bound",
                format!("{} may leave {when}; nothing was signed: try again then", Atl(page.unbonding)),
            );
        }
        let purse = on.purse(&supplier);
        Ok(Act {
            instructions: vec![
                spl::create_associated_token(supplier, supplier, on.mint()),
                leaving::unstake_withdraw(supplier, purse),
            ],
            consequences: vec![format!("{} come back to your wallet", Atl(page.unbonding))],
        })
    });
    told(on, &done.await?)
}

/// Says what was done, to people and scripts.
///
/// # Errors
/// [`Failure`] when stdout is closed.
pub(super) fn told(on: &OnChain, done: &super::act::Done) -> Result<Exit, Failure> {
    on.out.result(done, || format!("done\n  {}\ntransaction {}", done.did.join("\n  "), done.transaction))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_chain::market::MarketError;
    use atoll_chain::market::layout::Rules;

    #[test]
    fn what_is_called_free_is_what_the_program_takes_and_not_a_unit_more() {
        for (own, costake, required) in [(10, 0, 10), (10, 0, 4), (10, 4, 12), (10, 8, 2), (4, 6, 0), (0, 0, 0)] {
            let page = FleetPage { own, costake, required, ..FleetPage::new() };
            let Atl(free) = free(&page);
            let ask = |amount| page.clone().unstake(amount, &Rules::new(), 1);
            assert!(free == 0 || ask(free).is_ok(), "{own} {costake} {required}");
            assert!(ask(free + 1).is_err(), "{own} {costake} {required}");
        }
        let bound = FleetPage { own: 10, required: 10, ..FleetPage::new() };
        assert_eq!(bound.clone().unstake(1, &Rules::new(), 1), Err(MarketError::StakeTooLow));
    }
}

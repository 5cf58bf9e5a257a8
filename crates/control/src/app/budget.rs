//! Whether a session key may escrow so much now, in words and before anything is written.
//!
//! The chain decides in the end; this keeps an order that it would refuse from being accepted as a job.

use atoll_chain::market::Market;
use atoll_domain::key::PublicKey;
use atoll_domain::money::Atl;
use atoll_domain::time::UnixMs;
use atoll_interface::layout::{BUDGET_REVOKED, Budget};

use crate::control::Control;
use crate::error::{ApiError, Code};

/// Seconds of the day over which a key's limit counts.
const DAY_S: i64 = 86_400;

/// Holds an order's escrow against what the chain lets its session key spend.
///
/// # Errors
/// [`Code::BudgetRefused`], naming the limit; [`Code::NotReady`] when the chain does not answer.
pub async fn check(control: &Control, wallet: &PublicKey, key: &PublicKey, escrow: Atl) -> Result<(), ApiError> {
    let at = |key: &PublicKey| atoll_chain::Address(key.0);
    let market = Market::new(control.rpc.clone());
    let found = market.budget(&at(wallet), &at(key)).await.map_err(|error| match error {
        atoll_chain::market::ReadError::Rpc(error) => ApiError::chain(error),
        other => ApiError::internal(other),
    })?;
    let now = control.rpc.clock().await.map_err(ApiError::chain)?.unix_timestamp;
    let refused = |why: String| ApiError::new(Code::BudgetRefused, format!("the session key {key} {why}"));
    match found {
        None => Err(refused(format!("is none of the wallet {wallet}: make one with `atoll budget create`"))),
        Some(found) => fits(&found.value, escrow, now).map_err(refused),
    }
}

fn fits(budget: &Budget, escrow: Atl, now: i64) -> Result<(), String> {
    let renew = "renew it with the wallet, `atoll budget create`";
    if budget.flags & BUDGET_REVOKED != 0 {
        return Err(format!("was revoked: {renew}"));
    }
    if now >= budget.expires_at {
        let expired = UnixMs(u64::try_from(budget.expires_at).unwrap_or_default().saturating_mul(1000));
        return Err(format!("expired at {expired}: {renew}"));
    }
    let today = u64::try_from(now / DAY_S).unwrap_or_default();
    let spent = if budget.day == today { budget.day_spent } else { 0 };
    let (most, left) = (Atl(budget.order_max), Atl(budget.day_max.saturating_sub(spent)));
    if escrow > most {
        return Err(format!(
            "may escrow at most {most} an order, and this one escrows {escrow}: ask for less, or {renew}"
        ));
    }
    if escrow > left {
        return Err(format!(
            "has {left} left for today (UTC), and the order escrows {escrow}: wait, ask for less, or {renew}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_hit_is_named() {
        let now = 20_000 * DAY_S + 7;
        let budget =
            Budget { order_max: 5, day_max: 20, day_spent: 18, day: 20_000, expires_at: now + DAY_S, ..Budget::new() };
        let says = |budget: &Budget, escrow, now| fits(budget, Atl(escrow), now).err().unwrap_or_default();
        assert_eq!(says(&budget, 2, now), "");
        assert!(says(&budget, 6, now).contains("at most 0.000000005 ATL an order"));
        assert!(says(&budget, 3, now).contains("has 0.000000002 ATL left for today"));
        assert!(says(&budget, 2, now + DAY_S).contains("expired at 2024-10-05T00:00:07"));
        assert!(says(&Budget { flags: BUDGET_REVOKED, ..budget }, 2, now).contains("was revoked"));
        let next_day = Budget { expires_at: i64::MAX, ..budget };
        assert_eq!(says(&next_day, 5, now + DAY_S), "", "what was spent yesterday does not count");
    }
}

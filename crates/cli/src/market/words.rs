//! What an instruction says, read from its own bytes: what is shown is what is signed.

use atoll_chain::market::PROGRAM_ID;
use atoll_chain::market::data::{Instruction as Market, SetBudget, TABLE};
use atoll_chain::{Instruction, spl};
use atoll_domain::key::PublicKey;
use atoll_domain::money::{Atl, UsdMicrosPerHour};

use super::at;
use crate::output::length;

/// One sentence on what an instruction does.
#[must_use]
pub fn of(instruction: &Instruction) -> String {
    let account = |place: usize| {
        let found = instruction.accounts.get(place).map(|meta| PublicKey(meta.address.0).to_string());
        found.unwrap_or_else(|| "?".into())
    };
    match instruction.program {
        PROGRAM_ID => match Market::decode(&instruction.data) {
            Ok(decoded) => of_market(&decoded, &account),
            Err(error) => format!("calls the market program in a way it does not know: {}", error.words()),
        },
        spl::SYSTEM_PROGRAM if instruction.data.len() == 12 && instruction.data[..4] == [2, 0, 0, 0] => {
            let lamports = instruction.data[4..].try_into().map_or(0, u64::from_le_bytes);
            format!("moves {} to {}", sol(lamports), account(1))
        }
        spl::ASSOCIATED_TOKEN_PROGRAM => format!("makes the ATL account of {} where there is none", account(2)),
        other => format!("calls the program {other}"),
    }
}

fn of_market(instruction: &Market<'_>, account: &impl Fn(usize) -> String) -> String {
    match instruction {
        Market::Stake(stake) => format!("adds {} to your own stake", Atl(stake.amount)),
        Market::UnstakeRequest(request) => format!("starts the waiting time of {} of your stake", Atl(request.amount)),
        Market::UnstakeWithdraw(_) => format!("pays stake whose waiting time is over to {}", account(2)),
        Market::CostakeOffer(offer) => format!(
            "offers to take {} of co-stake, as number {}, for {} of what it earns",
            Atl(offer.amount),
            offer.n,
            percent(offer.reward_bps)
        ),
        Market::CostakeAccept(accept) => format!(
            "puts {} under the offer {}, for {} of what it earns",
            Atl(accept.amount),
            account(2),
            percent(accept.reward_bps)
        ),
        Market::CostakeExit(_) => format!("takes the next step out of the co-stake {}", account(2)),
        Market::SetBudget(set) => of_budget(set),
        Market::ExtendOrder(extend) => format!(
            "lengthens the order {} by {} and escrows {} more",
            account(1),
            length(u64::from(extend.seconds)),
            Atl(extend.escrow)
        ),
        Market::ReleaseLease(_) => format!("gives the devices of the lease {} back", account(2)),
        Market::CloseOrder(_) => format!("closes the order {} and refunds its escrow to {}", account(1), account(3)),
        Market::PostOrder(post) => format!(
            "posts the order {}: {} device(s) at up to {} for {}",
            account(2),
            post.devices,
            UsdMicrosPerHour(post.price_cap_uusd),
            length(u64::from(post.duration_s))
        ),
        other => {
            let name = format!("{other:?}");
            let name = name.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
            let known = TABLE.iter().any(|(_, known, _)| *known == name);
            if known { format!("calls the market's {name}") } else { "calls the market".into() }
        }
    }
}

fn of_budget(set: &SetBudget) -> String {
    let key = PublicKey(set.key);
    let (deposit, withdraw) = (Atl(set.deposit), Atl(set.withdraw));
    let mut text = if set.revoked == 1 {
        format!("ends the session key {key}")
    } else {
        format!(
            "lets the session key {key} order for at most {} at once and {} a day (UTC), until {}",
            Atl(set.order_max),
            Atl(set.day_max),
            at(set.expires_at)
        )
    };
    if set.deposit > 0 {
        text.push_str(&format!("; moves {deposit} from your wallet into its vault"));
    }
    if set.withdraw > 0 {
        text.push_str(&format!("; moves {withdraw} from its vault back to your wallet"));
    }
    text
}

/// Basis points as a percentage, exactly.
#[must_use]
pub fn percent(bps: u16) -> String {
    format!("{}.{:02} %", bps / 100, bps % 100)
}

/// Lamports as SOL, exactly.
#[must_use]
pub fn sol(lamports: u64) -> String {
    format!("{}.{:09} SOL", lamports / spl::LAMPORTS_PER_SOL, lamports % spl::LAMPORTS_PER_SOL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_chain::Address;
    use atoll_chain::market::{data, instruction, leaving};
    use expect_test::expect;

    #[test]
    fn what_is_signed_is_said() {
        let [wallet, other, mint] = [1, 2, 3].map(|byte| Address([byte; 32]));
        let budget = SetBudget {
            key: other.0,
            order_max: 5_000_000_000,
            day_max: 20_000_000_000,
            expires_at: 1_800_000_000,
            revoked: 0,
            deposit: 100_000_000_000,
            withdraw: 0,
        };
        let ended = SetBudget { revoked: 1, deposit: 0, withdraw: 7, ..budget };
        let offer = data::CostakeOffer { n: 2, amount: 3, reward_bps: 4_005 };
        let all = [
            instruction::stake(wallet, other, mint, 200_000_000_000),
            leaving::unstake_request(wallet, 1),
            leaving::costake_offer(wallet, &offer),
            instruction::set_budget(wallet, other, mint, &budget),
            instruction::set_budget(wallet, other, mint, &ended),
            instruction::extend_order(wallet, other, mint, &data::ExtendOrder { seconds: 5400, escrow: 9 }),
            instruction::collect_fees(other, mint, wallet),
            spl::system_transfer(wallet, other, 20_000_000),
            Instruction { program: other, accounts: Vec::new(), data: vec![1] },
            Instruction { program: PROGRAM_ID, accounts: Vec::new(), data: vec![4, 1] },
        ];
        let said: Vec<String> = all.iter().map(of).collect();
        expect![[r#"
            adds 200.000000000 ATL to your own stake
            starts the waiting time of 0.000000001 ATL of your stake
            offers to take 0.000000003 ATL of co-stake, as number 2, for 40.05 % of what it earns
            lets the session key 8qbHbw2BbbTHBW1sbeqakYXVKRQM8Ne7pLK7m6CVfeR order for at most 5.000000000 ATL at once and 20.000000000 ATL a day (UTC), until 2027-01-15T08:00:00.000Z; moves 100.000000000 ATL from your wallet into its vault
            ends the session key 8qbHbw2BbbTHBW1sbeqakYXVKRQM8Ne7pLK7m6CVfeR; moves 0.000000007 ATL from its vault back to your wallet
            lengthens the order 8qbHbw2BbbTHBW1sbeqakYXVKRQM8Ne7pLK7m6CVfeR by 1 h 30 min and escrows 0.000000009 ATL more
            calls the market's CollectFees
            moves 0.020000000 SOL to 8qbHbw2BbbTHBW1sbeqakYXVKRQM8Ne7pLK7m6CVfeR
            calls the program 8qbHbw2BbbTHBW1sbeqakYXVKRQM8Ne7pLK7m6CVfeR
            calls the market program in a way it does not know: the instruction's data is too short, too long or out of range"#]].assert_eq(&said.join("\n"));
    }
}

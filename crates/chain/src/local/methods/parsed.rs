//! What the chain knows of the content of accounts and instructions: those of the token programs, and transfers of the
//! system program. Everything else is bytes. Pure.

use serde_json::{Value, json};
use solana_account::{AccountSharedData, ReadableAccount as _};

use super::View;
use super::encode::amount_json;
use crate::address::Address;
use crate::local::state::from_svm;
use crate::rpc::Filter;
use crate::spl::{ASSOCIATED_TOKEN_PROGRAM, Mint, SYSTEM_PROGRAM, TOKEN_PROGRAM, TokenAccount};

/// The token program's successor.
pub(super) const TOKEN_2022_PROGRAM: Address = Address::constant("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb");
/// Bytes of a token account and of a mint, before any extensions.
const ACCOUNT_BYTES: usize = 165;
const MINT_BYTES: usize = 82;
/// What byte 165 of an account of Token-2022 with extensions says it is.
const KIND_MINT: u8 = 1;
const KIND_ACCOUNT: u8 = 2;

/// Which accounts are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::local) enum AccountFilter {
    /// By their bytes.
    Data(Filter),
    /// Token accounts that are in use.
    TokenAccount,
}

impl AccountFilter {
    /// Whether an account is wanted.
    pub(in crate::local) fn passes(&self, account: &AccountSharedData) -> bool {
        match self {
            Self::Data(filter) => filter.passes(account.data()),
            Self::TokenAccount => token_account(account).is_some(),
        }
    }
}

/// The first bytes of an account of a token program, when it is as long as one or says that it has extensions.
fn token_data(account: &AccountSharedData, bytes: usize, kind: u8) -> Option<&[u8]> {
    let data = account.data();
    match from_svm(account.owner()) {
        TOKEN_PROGRAM => (data.len() == bytes).then_some(data),
        TOKEN_2022_PROGRAM if data.len() == bytes => Some(data),
        TOKEN_2022_PROGRAM if data.get(ACCOUNT_BYTES) == Some(&kind) => data.get(..bytes),
        _ => None,
    }
}

/// A token account of either token program.
pub(in crate::local) fn token_account(account: &AccountSharedData) -> Option<TokenAccount> {
    TokenAccount::read(token_data(account, ACCOUNT_BYTES, KIND_ACCOUNT)?)
}

/// A mint of either token program.
pub(in crate::local) fn token_mint(account: &AccountSharedData) -> Option<Mint> {
    Mint::read(token_data(account, MINT_BYTES, KIND_MINT)?)
}

/// The address in an optional field of a token program's account.
fn optional(data: &[u8], at: usize) -> Option<Address> {
    (data[at..at + 4] == [1, 0, 0, 0]).then(|| Address(data[at + 4..at + 36].try_into().expect("a slice of 32 bytes")))
}

fn number(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// An account's content in JSON, where it is known whole: with extensions it is not.
pub(super) fn account(account: &AccountSharedData, view: &View<'_>) -> Option<Value> {
    let program = match from_svm(account.owner()) {
        TOKEN_PROGRAM => "spl-token",
        TOKEN_2022_PROGRAM => "spl-token-2022",
        _ => return None,
    };
    let (data, space) = (account.data(), account.data().len());
    let (kind, info) = match space {
        ACCOUNT_BYTES => ("account", account_info(&token_account(account)?, data, view)?),
        MINT_BYTES => ("mint", mint_info(&token_mint(account)?, data)),
        _ => return None,
    };
    Some(json!({ "program": program, "parsed": { "type": kind, "info": info }, "space": space }))
}

fn account_info(token: &TokenAccount, data: &[u8], view: &View<'_>) -> Option<Value> {
    let decimals = token_mint(&view.account(&token.mint)?)?.decimals;
    let native = data[109..113] == [1, 0, 0, 0];
    let mut info = json!({
        "mint": token.mint,
        "owner": token.owner,
        "state": if data[108] == 2 { "frozen" } else { "initialized" },
        "isNative": native,
        "tokenAmount": amount_json(token.amount, decimals),
    });
    if let Some(delegate) = optional(data, 72) {
        info["delegate"] = json!(delegate);
        info["delegatedAmount"] = amount_json(number(data, 121)?, decimals);
    }
    if native {
        // Wrapped SOL has nine decimals.
        info["rentExemptReserve"] = amount_json(number(data, 113)?, 9);
    }
    if let Some(authority) = optional(data, 129) {
        info["closeAuthority"] = json!(authority);
    }
    Some(info)
}

fn mint_info(mint: &Mint, data: &[u8]) -> Value {
    json!({
        "mintAuthority": mint.authority,
        "supply": mint.supply.to_string(),
        "decimals": mint.decimals,
        "isInitialized": true,
        "freezeAuthority": optional(data, 46),
    })
}

/// An instruction in words: the program's name, what it does, and with what. None for those that are not known.
pub(super) fn instruction(program: &Address, accounts: &[Address], data: &[u8]) -> Option<(&'static str, Value)> {
    let (name, kind, info) = match *program {
        SYSTEM_PROGRAM => with_name("system", system(accounts, data)?),
        TOKEN_PROGRAM => with_name("spl-token", token(accounts, data)?),
        TOKEN_2022_PROGRAM => with_name("spl-token-2022", token(accounts, data)?),
        ASSOCIATED_TOKEN_PROGRAM => with_name("spl-associated-token-account", associated(accounts, data)?),
        _ => return None,
    };
    Some((name, json!({ "type": kind, "info": info })))
}

fn with_name(name: &'static str, (kind, info): (&'static str, Value)) -> (&'static str, &'static str, Value) {
    (name, kind, info)
}

fn system(accounts: &[Address], data: &[u8]) -> Option<(&'static str, Value)> {
    let [first, second, ..] = accounts else { return None };
    match (data.get(..4)?, data.len()) {
        ([0, 0, 0, 0], 52) => {
            let owner = Address(data[20..52].try_into().expect("a slice of 32 bytes"));
            let (lamports, space) = (number(data, 4)?, number(data, 12)?);
            let info =
                json!({ "source": first, "newAccount": second, "lamports": lamports, "space": space, "owner": owner });
            Some(("createAccount", info))
        }
        ([2, 0, 0, 0], 12) => {
            Some(("transfer", json!({ "source": first, "destination": second, "lamports": number(data, 4)? })))
        }
        _ => None,
    }
}

fn token(accounts: &[Address], data: &[u8]) -> Option<(&'static str, Value)> {
    // One owner; of several signers the fields have other names.
    let amount = || number(data, 1).map(|amount| amount.to_string());
    Some(match (data, accounts) {
        ([3, rest @ ..], [source, destination, authority]) if rest.len() == 8 => (
            "transfer",
            json!({ "source": source, "destination": destination, "authority": authority, "amount": amount()? }),
        ),
        ([7, rest @ ..], [mint, account, authority]) if rest.len() == 8 => {
            ("mintTo", json!({ "mint": mint, "account": account, "mintAuthority": authority, "amount": amount()? }))
        }
        ([8, rest @ ..], [account, mint, authority]) if rest.len() == 8 => {
            ("burn", json!({ "account": account, "mint": mint, "authority": authority, "amount": amount()? }))
        }
        ([9], [account, destination, owner]) => {
            ("closeAccount", json!({ "account": account, "destination": destination, "owner": owner }))
        }
        ([12, rest @ .., decimals], [source, mint, destination, authority]) if rest.len() == 8 => {
            let amount = amount_json(number(data, 1)?, *decimals);
            let info = json!({ "source": source, "mint": mint, "destination": destination, "authority": authority, "tokenAmount": amount });
            ("transferChecked", info)
        }
        _ => return None,
    })
}

fn associated(accounts: &[Address], data: &[u8]) -> Option<(&'static str, Value)> {
    let [source, account, wallet, mint, system, token, ..] = accounts else { return None };
    let kind = match data {
        [] | [0] => "create",
        [1] => "createIdempotent",
        _ => return None,
    };
    let info = json!({ "source": source, "account": account, "wallet": wallet, "mint": mint, "systemProgram": system, "tokenProgram": token });
    Some((kind, info))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spl;

    #[test]
    fn instructions_of_the_known_programs_have_words_and_others_none() {
        let [one, two, three] = [1, 2, 3].map(|n| Address([n; 32]));
        let words = |instruction: &crate::Instruction| {
            let accounts: Vec<_> = instruction.accounts.iter().map(|meta| meta.address).collect();
            super::instruction(&instruction.program, &accounts, &instruction.data)
        };
        let (program, parsed) = words(&spl::system_transfer(one, two, 7)).unwrap();
        assert_eq!(
            (program, parsed["type"].as_str(), &parsed["info"]["lamports"]),
            ("system", Some("transfer"), &json!(7))
        );
        let (_, parsed) = words(&spl::create_account(one, two, 7, 82, TOKEN_PROGRAM)).unwrap();
        assert_eq!((&parsed["info"]["space"], &parsed["info"]["owner"]), (&json!(82), &json!(TOKEN_PROGRAM)));
        let (program, parsed) = words(&spl::token_transfer(one, two, three, one, 15, 1)).unwrap();
        assert_eq!((program, &parsed["info"]["tokenAmount"]["uiAmountString"]), ("spl-token", &json!("1.5")));
        let (_, parsed) = words(&spl::create_associated_token(one, two, three)).unwrap();
        assert_eq!((parsed["type"].as_str(), &parsed["info"]["mint"]), (Some("createIdempotent"), &json!(three)));
        assert!(words(&spl::compute_unit_limit(5)).is_none());
        // Cut short or without its accounts, nothing is guessed.
        let mut short = spl::system_transfer(one, two, 7);
        for len in 0..12 {
            short.data.truncate(11 - len.min(11));
            assert!(words(&short).is_none());
        }
        assert!(super::instruction(&SYSTEM_PROGRAM, &[], &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(super::instruction(&TOKEN_PROGRAM, &[one], &[]).is_none());
    }
}

//! Token accounts and mints, of the token program and of its successor Token-2022.

use std::cmp::Reverse;

use serde_json::{Value, json};
use solana_account::{AccountSharedData, ReadableAccount as _};

use super::accounts::RESULTS_MAX;
use super::encode::{Encoding, amount_json};
use super::parsed::{TOKEN_2022_PROGRAM, token_account, token_mint};
use super::{AccountForm, Answer, Fault, Params, View, account_json, parsed};
use crate::address::Address;
use crate::local::state::{State, from_svm};
use crate::spl::{Mint, TOKEN_PROGRAM};

/// Most accounts of one `getTokenLargestAccounts`, as on Solana.
const LARGEST_MAX: usize = 20;
const TOKEN_PROGRAMS: [Address; 2] = [TOKEN_PROGRAM, TOKEN_2022_PROGRAM];

pub(super) fn call(state: &mut State, method: &str, params: &Params<'_>) -> Option<Answer> {
    let state = &*state;
    Some(match method {
        "getTokenAccountBalance" => balance(state, params),
        "getTokenSupply" => supply(state, params),
        "getTokenLargestAccounts" => largest(state, params),
        "getTokenAccountsByOwner" => accounts_by(state, params, |account| token_account(account).map(|t| t.owner)),
        "getTokenAccountsByDelegate" => accounts_by(state, params, delegate),
        _ => return None,
    })
}

fn read_mint(view: &View<'_>, address: &Address) -> Result<Mint, Fault> {
    let mint = view.account(address).and_then(|account| token_mint(&account));
    mint.ok_or_else(|| Fault::params("Invalid param: could not find mint"))
}

fn balance(state: &State, params: &Params<'_>) -> Answer {
    let view = View::new(state, params.config(1)?)?;
    let token = view.account(&params.parsed(0)?).and_then(|account| token_account(&account));
    let token = token.ok_or_else(|| Fault::params("Invalid param: could not find account"))?;
    let mint = read_mint(&view, &token.mint)?;
    view.answer(amount_json(token.amount, mint.decimals))
}

fn supply(state: &State, params: &Params<'_>) -> Answer {
    let view = View::new(state, params.config(1)?)?;
    let mint = read_mint(&view, &params.parsed(0)?)?;
    view.answer(amount_json(mint.supply, mint.decimals))
}

fn largest(state: &State, params: &Params<'_>) -> Answer {
    let view = View::new(state, params.config(1)?)?;
    let address = params.parsed(0)?;
    let mint = read_mint(&view, &address)?;
    let holders =
        TOKEN_PROGRAMS.iter().flat_map(|program| view.accounts_of(program)).filter_map(|(holder, account)| {
            token_account(&account).filter(|token| token.mint == address).map(|token| (holder, token.amount))
        });
    let mut holders: Vec<_> = holders.collect();
    holders.sort_unstable_by_key(|(holder, amount)| (Reverse(*amount), *holder));
    holders.truncate(LARGEST_MAX);
    let holder_json = |(holder, amount): &(Address, u64)| {
        let mut value = amount_json(*amount, mint.decimals);
        value["address"] = json!(holder);
        value
    };
    view.answer(holders.iter().map(holder_json).collect())
}

/// Who may spend a part of a token account besides its owner.
fn delegate(account: &AccountSharedData) -> Option<Address> {
    token_account(account)?;
    let data = account.data();
    (data[72..76] == [1, 0, 0, 0]).then(|| Address(data[76..108].try_into().expect("32 bytes of at least 165")))
}

/// The token accounts that are somebody's, of one mint or of one token program.
fn accounts_by(state: &State, params: &Params<'_>, of: fn(&AccountSharedData) -> Option<Address>) -> Answer {
    let (wallet, config): (Address, _) = (params.parsed(0)?, params.config(2)?);
    let (view, form) = (View::new(state, config)?, AccountForm::read(config, Encoding::Binary)?);
    let (mint, programs) = token_filter(&view, params.config(1)?)?;
    let mut accounts = Vec::new();
    for (address, account) in programs.iter().flat_map(|program| view.accounts_of(program)) {
        let wanted = of(&account) == Some(wallet)
            && mint.is_none_or(|mint| token_account(&account).is_some_and(|token| token.mint == mint));
        if !wanted {
            continue;
        }
        if accounts.len() == RESULTS_MAX {
            return Err(Fault::params(format!("more than {RESULTS_MAX} accounts: ask for one mint")));
        }
        accounts.push(json!({ "pubkey": address, "account": account_json(form, &account, &view)? }));
    }
    view.answer(Value::Array(accounts))
}

/// The mint that is asked for, if one is, and the programs whose accounts are looked at.
fn token_filter(view: &View<'_>, filter: &Value) -> Result<(Option<Address>, Vec<Address>), Fault> {
    let refused =
        || Fault::params("Invalid param: the second parameter is {\"mint\": address} or {\"programId\": address}");
    if !filter["mint"].is_null() {
        let mint: Address = parsed(&filter["mint"]).ok_or_else(refused)?;
        read_mint(view, &mint)?;
        let program = view.account(&mint).map(|account| from_svm(account.owner())).into_iter().collect();
        return Ok((Some(mint), program));
    }
    let program: Address = parsed(&filter["programId"]).ok_or_else(refused)?;
    if !TOKEN_PROGRAMS.contains(&program) {
        return Err(Fault::params("Invalid param: unrecognized Token program id"));
    }
    Ok((None, vec![program]))
}

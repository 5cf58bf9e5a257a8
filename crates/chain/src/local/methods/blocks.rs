//! Blocks. Every slot of this chain has one, most of them without transactions.

use serde_json::{Value, json};

use super::form::Form;
use super::view::height;
use super::{Answer, CODE_BLOCK_CLEANED_UP, CODE_BLOCK_NOT_AVAILABLE, Fault, Params, View};
use crate::local::history::Entry;
use crate::local::state::{SLOT_FIRST, State};

/// Most slots of one `getBlocks`, as on Solana.
const BLOCKS_MAX: u64 = 500_000;

pub(super) fn call(state: &mut State, method: &str, params: &Params<'_>) -> Option<Answer> {
    let state = &*state;
    Some(match method {
        "getBlock" => block(state, params),
        "getBlocks" => blocks(state, params),
        "getBlocksWithLimit" => blocks_with_limit(state, params),
        "getBlockTime" => block_time(state, params),
        "getFirstAvailableBlock" | "minimumLedgerSlot" => Ok(json!(first(state))),
        _ => return None,
    })
}

/// The first slot whose transactions are remembered.
fn first(state: &State) -> u64 {
    state.history().first_slot().unwrap_or(SLOT_FIRST)
}

/// Refuses slots that are forgotten or not over: a block is shown once, whole.
fn check(view: &View<'_>, slot: u64) -> Result<(), Fault> {
    let first = first(view.state);
    if slot < first {
        let why = format!("Block {slot} cleaned up, does not exist on node. First available block: {first}");
        return Err(Fault::new(CODE_BLOCK_CLEANED_UP, why));
    }
    if slot > view.last_whole() {
        return Err(Fault::new(CODE_BLOCK_NOT_AVAILABLE, format!("Block not available for slot {slot}")));
    }
    Ok(())
}

fn block(state: &State, params: &Params<'_>) -> Answer {
    // The second parameter was once the encoding alone.
    let short = json!({ "encoding": params.get(1) });
    let config = if params.get(1).is_string() { &short } else { params.config(1)? };
    let (slot, view, form) = (params.number(0)?, View::settled(state, config)?, Form::read(config)?);
    check(&view, slot)?;
    let mut block = json!({
        "blockhash": state.blockhash_of(slot),
        "previousBlockhash": state.blockhash_of(slot.saturating_sub(1)),
        "parentSlot": slot.saturating_sub(1),
        "blockHeight": height(slot),
        "blockTime": state.block_time(slot),
    });
    let entries = || state.history().in_slot(slot);
    let each = |one: fn(Form, &Entry) -> Answer| -> Answer { entries().map(|entry| one(form, entry)).collect() };
    match config["transactionDetails"].as_str() {
        None | Some("full") => block["transactions"] = each(Form::whole)?,
        Some("accounts") => block["transactions"] = each(Form::accounts)?,
        Some("signatures") => block["signatures"] = entries().map(|entry| json!(entry.signature)).collect(),
        Some("none") => {}
        Some(_) => {
            return Err(Fault::params("Invalid params: transactionDetails is full, accounts, signatures or none"));
        }
    }
    if config["rewards"] != json!(false) {
        block["rewards"] = json!([]);
    }
    Ok(block)
}

/// The end of a range: the second parameter where it is a number, else the newest.
fn blocks(state: &State, params: &Params<'_>) -> Answer {
    let (start, end) = (params.number(0)?, params.get(1).as_u64());
    let config = if end.is_some() || params.0.len() > 2 { params.config(2)? } else { params.config(1)? };
    let view = View::settled(state, config)?;
    let end = end.unwrap_or(u64::MAX).min(view.last_whole());
    if end.saturating_sub(start) > BLOCKS_MAX {
        return Err(Fault::params(format!("Slot range too large; max {BLOCKS_MAX}")));
    }
    Ok((start.max(first(state))..=end).map(Value::from).collect())
}

fn blocks_with_limit(state: &State, params: &Params<'_>) -> Answer {
    let (start, limit) = (params.number(0)?, params.number(1)?);
    let view = View::settled(state, params.config(2)?)?;
    if limit > BLOCKS_MAX {
        return Err(Fault::params(format!("Limit too large; max {BLOCKS_MAX}")));
    }
    let start = start.max(first(state));
    let count = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok((start..=view.last_whole()).take(count).map(Value::from).collect())
}

fn block_time(state: &State, params: &Params<'_>) -> Answer {
    let slot = params.number(0)?;
    match state.block_time(slot) {
        Some(time) => Ok(json!(time)),
        None => Err(Fault::new(CODE_BLOCK_NOT_AVAILABLE, format!("Block not available for slot {slot}"))),
    }
}

//! What transactions cost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use solana_transaction::versioned::VersionedTransaction;

use super::{Answer, Fault, Params, View};
use crate::address::{Address, Hash};
use crate::local::state::{State, from_svm};
use crate::spl::{COMPUTE_BUDGET_PROGRAM, SYSTEM_PROGRAM};
use crate::transaction::TRANSACTION_BYTES_MAX;

/// Lamports for each signature.
const SIGNATURE_LAMPORTS: u64 = 5000;
/// Compute units that an instruction brings when the transaction names no limit: one of a built-in program, and another.
const BUILTIN_UNITS: u64 = 3_000;
const PROGRAM_UNITS: u64 = 200_000;
/// Most compute units of a transaction.
const UNITS_MAX: u64 = 1_400_000;
/// Prices are in millionths of a lamport for each compute unit.
const MICRO: u128 = 1_000_000;
/// Slots of `getRecentPrioritizationFees`, as on Solana.
const RECENT_SLOTS: u64 = 150;
/// Most addresses of one `getRecentPrioritizationFees`, as on Solana.
const ADDRESSES_MAX: usize = 128;

pub(super) fn call(state: &mut State, method: &str, params: &Params<'_>) -> Option<Answer> {
    let state = &*state;
    Some(match method {
        "getFeeForMessage" => fee_for_message(state, params),
        "getRecentPrioritizationFees" => recent_fees(state, params),
        _ => return None,
    })
}

/// The fee of a message without its signatures; null when its blockhash is not valid any more.
fn fee_for_message(state: &State, params: &Params<'_>) -> Answer {
    let view = View::new(state, params.config(1)?)?;
    let text = params.text(0)?;
    let bytes = (text.len() <= 2 * TRANSACTION_BYTES_MAX).then(|| BASE64.decode(text).ok()).flatten();
    let message = bytes.filter(|bytes| bytes.len() <= TRANSACTION_BYTES_MAX);
    let message =
        message.ok_or_else(|| Fault::params("Invalid params: the message is no base64 of at most 1232 bytes"))?;
    let transaction = unsigned(&message).ok_or_else(|| Fault::params("Invalid params: the bytes are no message"))?;
    let blockhash = Hash(transaction.message.recent_blockhash().to_bytes());
    view.answer(if state.blockhash_is_valid(&blockhash) { json!(fee(&transaction)) } else { Value::Null })
}

/// A transaction of this message with empty signatures.
fn unsigned(message: &[u8]) -> Option<VersionedTransaction> {
    // A versioned message says its version first, a legacy one how many sign.
    let signers = *if message.first()? & 0x80 == 0 { message.first()? } else { message.get(1)? };
    // Up to 127, the count is one byte; each signature has 64.
    (signers < 0x80).then_some(())?;
    let bytes = [&[signers][..], &vec![0; usize::from(signers) * 64], message].concat();
    let transaction: VersionedTransaction = wincode::deserialize_exact(&bytes).ok()?;
    transaction.sanitize().is_ok().then_some(transaction)
}

/// What a transaction costs: its signatures, and the price it offers for its compute units.
fn fee(transaction: &VersionedTransaction) -> u64 {
    let message = &transaction.message;
    let signatures = u64::from(message.header().num_required_signatures);
    let keys = message.static_account_keys();
    let (mut limit, mut price, mut default) = (None, 0_u64, 0_u64);
    for instruction in message.instructions() {
        let program = keys.get(usize::from(instruction.program_id_index)).map(from_svm);
        default += if program.is_some_and(|program| is_builtin(&program)) { BUILTIN_UNITS } else { PROGRAM_UNITS };
        if program != Some(COMPUTE_BUDGET_PROGRAM) {
            continue;
        }
        match *instruction.data.as_slice() {
            [2, a, b, c, d] => limit = Some(u64::from(u32::from_le_bytes([a, b, c, d]))),
            [3, ref bytes @ ..] if bytes.len() == 8 => {
                price = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            }
            _ => {}
        }
    }
    let units = limit.unwrap_or(default).min(UNITS_MAX);
    let priority = (u128::from(price) * u128::from(units)).div_ceil(MICRO);
    (SIGNATURE_LAMPORTS * signatures).saturating_add(u64::try_from(priority).unwrap_or(u64::MAX))
}

/// Programs that are a part of the node itself and not bytes on the chain.
fn is_builtin(program: &Address) -> bool {
    *program == SYSTEM_PROGRAM || *program == COMPUTE_BUDGET_PROGRAM
}

/// Nobody has to offer more than the base fee here: there is room in every block.
fn recent_fees(state: &State, params: &Params<'_>) -> Answer {
    if !params.get(0).is_null() {
        let _: Vec<Address> = params.list(0, ADDRESSES_MAX)?;
    }
    let now = state.now().slot;
    let slots = now.saturating_sub(RECENT_SLOTS - 1)..=now;
    Ok(slots.map(|slot| json!({ "slot": slot, "prioritizationFee": 0 })).collect())
}

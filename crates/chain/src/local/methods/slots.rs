//! The chain's time and name: slots, heights, epochs, blockhashes, versions.

use serde_json::{Value, json};

use super::view::VERSION;
use super::{Answer, Fault, Params, View};
use crate::address::Hash;
use crate::local::state::{BLOCKHASH_SLOTS, EPOCH_SLOTS, State};

/// Most slots of one `getSlotLeaders`, as on Solana.
const LEADERS_MAX: u64 = 5000;
/// Longest single move of the clock: a year.
const WARP_S_MAX: u32 = 366 * 24 * 3600;
/// Largest account there can be.
const ACCOUNT_BYTES_MAX: u64 = 10 << 20;

pub(super) fn call(state: &mut State, method: &str, params: &Params<'_>) -> Option<Answer> {
    let state = &*state;
    Some(match method {
        "getVersion" => Ok(json!({
            "solana-core": VERSION,
            "feature-set": 0,
            "atoll-local-chain": env!("CARGO_PKG_VERSION"),
        })),
        "getHealth" => Ok(json!("ok")),
        "getGenesisHash" => Ok(json!(state.genesis_hash())),
        "getIdentity" => Ok(json!({ "identity": state.identity() })),
        "getClusterNodes" => Ok(cluster_nodes(state)),
        "getSlot" => view(state, params, 0).map(|view| json!(view.slot())),
        "getSlotLeader" => view(state, params, 0).map(|_| json!(state.identity())),
        "getSlotLeaders" => slot_leaders(state, params),
        "getBlockHeight" => view(state, params, 0).map(|view| json!(view.height())),
        "getEpochInfo" => view(state, params, 0).map(|view| epoch_info(state, &view)),
        "getEpochSchedule" => Ok(epoch_schedule()),
        "getTransactionCount" => Ok(json!(state.transaction_count())),
        "getLatestBlockhash" => latest_blockhash(state, params),
        "isBlockhashValid" => is_blockhash_valid(state, params),
        "getMinimumBalanceForRentExemption" => rent(state, params),
        _ => return None,
    })
}

fn view<'a>(state: &'a State, params: &Params<'_>, at: usize) -> Result<View<'a>, Fault> {
    View::new(state, params.config(at)?)
}

/// The one node that there is. Nobody can reach it but by the address that was asked.
fn cluster_nodes(state: &State) -> Value {
    json!([{
        "pubkey": state.identity(),
        "gossip": null,
        "tpu": null,
        "tpuQuic": null,
        "rpc": null,
        "pubsub": null,
        "version": VERSION,
        "featureSet": null,
        "shredVersion": null,
    }])
}

fn slot_leaders(state: &State, params: &Params<'_>) -> Answer {
    let (_, limit) = (params.number(0)?, params.number(1)?);
    if !(1..=LEADERS_MAX).contains(&limit) {
        return Err(Fault::params(format!("Invalid limit; max {LEADERS_MAX}")));
    }
    Ok((0..limit).map(|_| json!(state.identity())).collect())
}

fn epoch_info(state: &State, view: &View<'_>) -> Value {
    json!({
        "absoluteSlot": view.slot(),
        "blockHeight": view.height(),
        "epoch": view.slot() / EPOCH_SLOTS,
        "slotIndex": view.slot() % EPOCH_SLOTS,
        "slotsInEpoch": EPOCH_SLOTS,
        "transactionCount": state.transaction_count(),
    })
}

fn epoch_schedule() -> Value {
    json!({
        "slotsPerEpoch": EPOCH_SLOTS,
        "leaderScheduleSlotOffset": EPOCH_SLOTS,
        "warmup": false,
        "firstNormalEpoch": 0,
        "firstNormalSlot": 0,
    })
}

fn latest_blockhash(state: &State, params: &Params<'_>) -> Answer {
    let view = view(state, params, 0)?;
    let value = json!({
        "blockhash": state.blockhash_of(view.slot()),
        "lastValidBlockHeight": view.height() + BLOCKHASH_SLOTS,
    });
    view.answer(value)
}

fn is_blockhash_valid(state: &State, params: &Params<'_>) -> Answer {
    let blockhash: Hash = params.parsed(0)?;
    view(state, params, 1)?.answer(json!(state.blockhash_is_valid(&blockhash)))
}

fn rent(state: &State, params: &Params<'_>) -> Answer {
    let bytes = params.number(0)?;
    let bytes = usize::try_from(bytes).ok().filter(|_| bytes <= ACCOUNT_BYTES_MAX);
    Ok(json!(state.rent(bytes.ok_or_else(|| Fault::params("an account has at most 10 MiB"))?)))
}

/// Moves the clock forward; a cluster has no such method.
pub(super) fn warp(state: &mut State, params: &Params<'_>) -> Answer {
    let seconds = params.get(0)["seconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| (1..=WARP_S_MAX).contains(seconds));
    let seconds = seconds.ok_or_else(|| Fault::params(format!("parameter 0 is {{\"seconds\": 1 to {WARP_S_MAX}}}")))?;
    let moment = state.warp(seconds);
    Ok(json!({ "slot": moment.slot, "unixTimestamp": moment.unix_ms / 1000 }))
}

//! Whatever somebody posts to the local chain: an answer in JSON, the same one from the same chain, no panic, bounded memory.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::sync::Arc;

use atoll_chain::local::{Engine, EngineConfig, MARKET_SO, Settings, WallClock};
use atoll_chain::market::PROGRAM_ID;
use atoll_chain::{Address, Keypair, Signature, sign, spl};
use atoll_fuzz::Fuzz;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;

#[derive(Debug)]
struct Still;

impl WallClock for Still {
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

#[test]
fn bodies() {
    let programs = vec![(PROGRAM_ID, MARKET_SO.to_vec())];
    let config =
        EngineConfig { genesis_seed: [1; 32], programs, clock: Arc::new(Still), settings: Settings::default() };
    let mut engine = Engine::in_memory(config).unwrap();
    let call = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
    };
    let wallet = Keypair::from_seed(&[1; 32]);
    let key = wallet.address();
    let answer = engine.answer(call("requestAirdrop", json!([key, 10_000_000_000_u64])).as_bytes());
    assert!(answer.body.starts_with(b"{"), "{:?}", answer.body.escape_ascii().to_string());
    let blockhash = engine.answer(call("getLatestBlockhash", json!([])).as_bytes());
    let blockhash: Value = serde_json::from_slice(&blockhash.body).unwrap();
    let blockhash = blockhash["result"]["value"]["blockhash"].as_str().unwrap().parse().unwrap();
    let paid = sign(&[spl::system_transfer(key, Address([2; 32]), 5_000_000)], &wallet, &[], &blockhash).unwrap();
    let filters = json!([PROGRAM_ID, {"encoding": "base64", "filters": [{"memcmp": {"offset": 0, "bytes": "2", "encoding": "base58"}}, {"dataSize": 100}]}]);
    let base64 = json!({"encoding": "base64"});
    let seeds = [
        call("getAccountInfo", json!([key, base64])),
        call("getMultipleAccounts", json!([[key, PROGRAM_ID], base64])),
        call("getProgramAccounts", filters),
        call("sendTransaction", json!([paid.to_base64(), base64])),
        call("simulateTransaction", json!([paid.to_base64(), base64])),
        call("getSignatureStatuses", json!([[Signature([1; 64])], {"searchTransactionHistory": true}])),
        call("getTransaction", json!([Signature([1; 64]), base64])),
        call("getLatestBlockhash", json!([{"commitment": "confirmed"}])),
        call("getMinimumBalanceForRentExemption", json!([165])),
        call("requestAirdrop", json!([key, 5])),
        call("getTokenSupply", json!([key])),
        call("getBlockTime", json!([3])),
        call("getSignaturesForAddress", json!([key, {"limit": 10}])),
        call("getBlock", json!([3, {"transactionDetails": "full"}])),
        format!("[{},{}]", call("getSlot", json!([])), call("getBalance", json!([key]))),
    ];
    let twin = engine.fork(Arc::new(Still));
    let engines = RefCell::new((engine, twin));
    let fuzz = seeds.into_iter().fold(Fuzz::of("local-chain"), Fuzz::seed);
    let fuzz = fuzz.words(&[
        "atoll_warp",
        "\"seconds\":1",
        "\"commitment\":\"finalized\"",
        "\"encoding\":\"jsonParsed\"",
        "null",
    ]);
    // Its history grows with what it processes: the bound is on one answer.
    let tally = fuzz.memory(8 << 20, 4096).run(|input| {
        let (one, other) = &mut *engines.borrow_mut();
        let (answer, again) = (one.answer(input), other.answer(input));
        assert_eq!(answer.body.escape_ascii().to_string(), again.body.escape_ascii().to_string());
        let read: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
        match read.get("error") {
            Some(error) => {
                assert!(error["message"].is_string() && error["code"].is_i64(), "{read}");
                "refused"
            }
            None => "answered",
        }
    });
    assert!(tally.of("answered") > 0 && tally.of("refused") > 0, "{tally:?}");
}

//! The chain in memory: the same answers for the same bodies, and forks that go their own ways.

use std::sync::Arc;

use atoll_chain::local::{Answer, Engine, EngineConfig, MARKET_SO, Settings};
use atoll_chain::{Hash, Signature, market, sign, spl};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::{HandClock, key};

pub(crate) fn engine(clock: Arc<HandClock>) -> Engine {
    let programs = vec![(market::PROGRAM_ID, MARKET_SO.to_vec())];
    let config = EngineConfig { genesis_seed: [7; 32], programs, clock, settings: Settings::default() };
    Engine::in_memory(config).unwrap()
}

pub(crate) fn ask(engine: &mut Engine, method: &str, params: Value) -> Answer {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    engine.answer(body.to_string().as_bytes())
}

pub(crate) fn result(answer: &Answer) -> Value {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["error"].is_null(), "{body}");
    body["result"].clone()
}

fn balance(engine: &mut Engine, of: u8) -> Value {
    balance_at(engine, of, "processed")
}

pub(crate) fn balance_at(engine: &mut Engine, of: u8, commitment: &str) -> Value {
    let balance = ask(engine, "getBalance", json!([key(of).address(), { "commitment": commitment }]));
    result(&balance)["value"].clone()
}

pub(crate) fn latest_blockhash(engine: &mut Engine) -> Hash {
    let latest = ask(engine, "getLatestBlockhash", json!([{ "commitment": "processed" }]));
    result(&latest)["value"]["blockhash"].as_str().unwrap().parse().unwrap()
}

/// A body that moves lamports from the first wallet to the second, and its signature.
pub(crate) fn transfer_body(blockhash: &Hash, from: u8, to: u8, lamports: u64) -> (Vec<u8>, Signature) {
    let transfer = spl::system_transfer(key(from).address(), key(to).address(), lamports);
    let transaction = sign(&[transfer], &key(from), &[], blockhash).unwrap();
    let params = json!([BASE64.encode(transaction.bytes()), { "encoding": "base64" }]);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "sendTransaction", "params": params });
    (body.to_string().into_bytes(), transaction.signature())
}

fn transfer(engine: &mut Engine, lamports: u64) -> Answer {
    let (body, _) = transfer_body(&latest_blockhash(engine), 1, 2, lamports);
    engine.answer(&body)
}

#[test]
fn the_same_bodies_get_the_same_answers_byte_for_byte() {
    let run = || {
        let clock = HandClock::new();
        let mut engine = engine(clock.clone());
        let mut answers = vec![ask(&mut engine, "requestAirdrop", json!([key(1).address(), 9_000_000_000_u64]))];
        for n in 1..20_u64 {
            clock.forward_ms(n * 90);
            answers.push(transfer(&mut engine, 1_000_000 * n));
        }
        for owner in [spl::SYSTEM_PROGRAM, spl::TOKEN_PROGRAM, market::PROGRAM_ID] {
            answers.push(ask(&mut engine, "getProgramAccounts", json!([owner, { "encoding": "base64" }])));
        }
        answers
    };
    assert_eq!(run(), run());
}

#[test]
fn forks_share_the_past_and_nothing_else() {
    let clock = HandClock::new();
    let mut first = engine(clock.clone());
    result(&ask(&mut first, "requestAirdrop", json!([key(1).address(), 9_000_000_000_u64])));
    let mut second = first.fork(clock.clone());
    let later = HandClock::new();
    later.forward_ms(60_000);
    let mut third = first.fork(later);
    result(&transfer(&mut first, 5_000_000));
    assert_eq!((balance(&mut first, 2), balance(&mut second, 2)), (json!(5_000_000), json!(0)));
    result(&transfer(&mut second, 6_000_000));
    assert_eq!((balance(&mut first, 2), balance(&mut second, 2)), (json!(5_000_000), json!(6_000_000)));
    let slots = [&mut first, &mut third].map(|engine| result(&ask(engine, "getSlot", json!([]))).as_u64().unwrap());
    assert_eq!(slots[1] - slots[0], 150);
}

#[test]
fn what_is_no_request_is_refused_in_json() {
    let mut engine = engine(HandClock::new());
    for body in ["", "{", "[]", "17", "{\"id\":1}", "\u{0}"] {
        let answer = engine.answer(body.as_bytes());
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(said["error"]["code"].is_i64(), "{body:?}: {said}");
    }
    let batch = engine.answer(br#"[{"method":"getHealth","id":"a"},{"method":"nothing","id":2}]"#);
    let said: Value = serde_json::from_slice(&batch.body).unwrap();
    assert_eq!(
        (&said[0]["result"], &said[0]["id"], &said[1]["error"]["code"]),
        (&json!("ok"), &json!("a"), &json!(-32601))
    );
}

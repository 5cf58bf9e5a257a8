//! A chain that misbehaves, and does so the same way twice.

use std::sync::Arc;

use atoll_chain::local::faults::{Faults, Halt, HaltSends, Share};
use atoll_chain::local::{Answer, Engine, Finality, WallClock as _};
use atoll_chain::spl;
use serde_json::{Value, json};

use crate::engine::{ask, balance_at, engine, latest_blockhash, result, transfer_body};
use crate::hostile::post;
use crate::support::{HandClock, key, start};

const SLOT_MS: u64 = 400;

fn funded(clock: Arc<HandClock>) -> Engine {
    let mut engine = engine(clock.clone());
    result(&ask(&mut engine, "requestAirdrop", json!([key(1).address(), 9_000_000_000_u64])));
    clock.forward_ms(10 * SLOT_MS);
    engine
}

fn got(engine: &mut Engine) -> u64 {
    balance_at(engine, 2, "processed").as_u64().unwrap()
}

fn send(engine: &mut Engine, lamports: u64) -> Answer {
    let (body, _) = transfer_body(&latest_blockhash(engine), 1, 2, lamports);
    engine.answer(&body)
}

fn without_faults<T>(engine: &mut Engine, look: impl FnOnce(&mut Engine) -> T) -> T {
    engine.set_faults(Faults::default());
    look(engine)
}

#[test]
fn a_dropped_request_is_not_done_and_a_dropped_answer_is() {
    let clock = HandClock::new();
    let mut engine = funded(clock);
    let blockhash = latest_blockhash(&mut engine);
    let (body, _) = transfer_body(&blockhash, 1, 2, 5_000_000);
    engine.set_faults(Faults { drop_request: Share::ALL, ..Faults::default() });
    assert!(engine.answer(&body).lost);
    assert_eq!(without_faults(&mut engine, got), 0);
    for status in [429, 500] {
        let share = |of: u16| if of == status { Share::ALL } else { Share::NONE };
        engine.set_faults(Faults { too_many: share(429), unavailable: share(500), ..Faults::default() });
        let answer = engine.answer(&body);
        assert!(!answer.lost && answer.status >= status && answer.status < status + 71, "{answer:?}");
        assert_eq!(without_faults(&mut engine, got), 0);
    }
    engine.set_faults(Faults { drop_answer: Share::ALL, ..Faults::default() });
    assert!(engine.answer(&body).lost);
    assert_eq!(without_faults(&mut engine, got), 5_000_000);
}

#[test]
fn a_late_transaction_arrives_once_and_so_does_a_doubled_one() {
    let clock = HandClock::new();
    let mut engine = funded(clock.clone());
    let blockhash = latest_blockhash(&mut engine);
    let (first, _) = transfer_body(&blockhash, 1, 2, 5_000_000);
    engine.set_faults(Faults { late: Share::ALL, late_slots_max: 4, ..Faults::default() });
    assert!(engine.answer(&first).lost);
    assert_eq!(without_faults(&mut engine, got), 0);
    clock.forward_ms(5 * SLOT_MS);
    assert_eq!(got(&mut engine), 5_000_000);
    engine.set_faults(Faults { duplicate: Share::ALL, late_slots_max: 4, ..Faults::default() });
    let (second, _) = transfer_body(&blockhash, 1, 2, 6_000_000);
    assert!(!engine.answer(&second).lost);
    clock.forward_ms(5 * SLOT_MS);
    assert_eq!(got(&mut engine), 11_000_000);
}

#[test]
fn a_stale_node_shows_what_was_and_a_short_lived_blockhash_dies_early() {
    let clock = HandClock::new();
    let mut engine = funded(clock.clone());
    engine.set_faults(Faults { stale_slots_max: 6, ..Faults::default() });
    clock.forward_ms(10 * SLOT_MS);
    let (body, signature) = transfer_body(&latest_blockhash(&mut engine), 1, 2, 5_000_000);
    result(&engine.answer(&body));
    let slot = result(&ask(&mut engine, "getSlot", json!([]))).as_u64().unwrap();
    engine.set_faults(Faults { stale: Share::ALL, stale_slots_max: 6, ..Faults::default() });
    assert_eq!(got(&mut engine), 0);
    let stale = result(&ask(&mut engine, "getSlot", json!([]))).as_u64().unwrap();
    assert!((slot - 6..slot).contains(&stale));
    assert!(result(&ask(&mut engine, "getSignatureStatuses", json!([[signature]])))["value"][0].is_null());
    clock.forward_ms(6 * SLOT_MS);
    assert_eq!(got(&mut engine), 5_000_000);

    engine.set_faults(Faults { blockhash_slots: Some(5), ..Faults::default() });
    let (body, _) = transfer_body(&latest_blockhash(&mut engine), 1, 2, 7_000_000);
    clock.forward_ms(6 * SLOT_MS);
    let answer: Value = serde_json::from_slice(&engine.answer(&body).body).unwrap();
    assert_eq!(answer["error"]["data"]["err"], "BlockhashNotFound");
}

#[test]
fn a_halted_chain_makes_no_slots_and_goes_on_with_the_walls_clock() {
    const HOURS_6_MS: u64 = 6 * 3_600_000;
    for (sends, land) in [
        (HaltSends::Hang, Share::ALL),
        (HaltSends::Refuse, Share::ALL),
        (HaltSends::Accept, Share::ALL),
        (HaltSends::Accept, Share::NONE),
    ] {
        let clock = HandClock::new();
        let mut engine = funded(clock.clone());
        let slot = |engine: &mut Engine| result(&ask(engine, "getSlot", json!([]))).as_u64().unwrap();
        let before = slot(&mut engine);
        engine.halt(Halt { ms: HOURS_6_MS, sends, land });
        clock.forward_ms(HOURS_6_MS - 1);
        let answer = send(&mut engine, 5_000_000);
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let expected = match sends {
            HaltSends::Hang => (true, false, false),
            HaltSends::Refuse => (false, true, false),
            HaltSends::Accept => (false, false, true),
        };
        assert_eq!((answer.lost, said["error"]["code"] == -32005, said["result"].is_string()), expected);
        assert_eq!((slot(&mut engine), got(&mut engine)), (before, 0));
        clock.forward_ms(1 + 9 * SLOT_MS);
        assert_eq!(slot(&mut engine), before + 10);
        // Accepted, and perhaps landed: its blockhash has not aged.
        assert_eq!(got(&mut engine), if sends == HaltSends::Accept && land == Share::ALL { 5_000_000 } else { 0 });
        let time = result(&ask(&mut engine, "getBlockTime", json!([before + 10]))).as_u64().unwrap();
        assert_eq!(time, clock.unix_ms() / 1000);
        result(&send(&mut engine, 6_000_000));
    }
}

#[test]
fn one_seed_goes_wrong_the_same_way_twice_and_another_does_not() {
    let run = |seed: u64| {
        let clock = HandClock::new();
        let mut engine = funded(clock.clone());
        engine.set_finality(Finality { confirmed_slots: 2, finalized_slots: 32 });
        let share = Share::of_thousand(150);
        let blockhash = latest_blockhash(&mut engine);
        engine.set_faults(Faults {
            seed,
            drop_request: share,
            drop_answer: share,
            late: share,
            duplicate: share,
            late_slots_max: 5,
            delay: share,
            delay_ms_max: 3000,
            stale: share,
            stale_slots_max: 9,
            too_many: share,
            unavailable: share,
            blockhash_slots: None,
        });
        let mut answers = Vec::new();
        for n in 0..60 {
            clock.forward_ms(137);
            answers.push(engine.answer(&transfer_body(&blockhash, 1, 2, 1_000_000 + n).0));
            answers.push(ask(&mut engine, "getBalance", json!([key(2).address(), { "commitment": "confirmed" }])));
        }
        answers
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[tokio::test]
async fn a_running_chain_takes_its_faults_over_its_own_rpc() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    let order = async |order: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "atoll_faults", "params": [order] });
        post(&chain.url(), body.to_string()).await.1
    };
    rpc.airdrop(&key(1).address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    for wrong in [json!({ "fault": {} }), json!({ "rollBack": { "slots": 151 } }), json!(5)] {
        assert_eq!(order(wrong.clone()).await["error"]["code"], json!(-32602), "{wrong}");
    }
    order(json!({ "finality": { "confirmedSlots": 2, "finalizedSlots": 32 } })).await;
    clock.forward_ms(40 * SLOT_MS);
    rpc.slot().await.unwrap();
    let airdropped = rpc.airdrop(&key(2).address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    assert_eq!(rpc.balance(&key(2).address()).await.unwrap(), 0, "the client reads what is confirmed");
    let done = order(json!({ "rollBack": { "slots": 5 } })).await;
    assert_eq!(done["result"]["rolledBack"], json!([airdropped]));
    clock.forward_ms(3 * SLOT_MS);
    assert_eq!(rpc.balance(&key(2).address()).await.unwrap(), 0);
    // The client asks again until it is through.
    order(json!({ "faults": { "seed": 3, "tooMany": 300, "unavailable": 200 } })).await;
    for _ in 0..10 {
        assert!(rpc.balance(&key(1).address()).await.is_ok());
    }
    order(json!({ "faults": {}, "halt": { "ms": 60_000, "sends": "refuse" } })).await;
    assert!(rpc.airdrop(&key(2).address(), spl::LAMPORTS_PER_SOL).await.is_err());
    clock.forward_ms(60_000);
    rpc.airdrop(&key(2).address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    chain.shutdown().await;
}

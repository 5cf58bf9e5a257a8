//! What is processed, confirmed and final, and what a lost fork takes back.

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_chain::local::faults::{RollBack, Share};
use atoll_chain::local::{Engine, EngineConfig, Finality, LocalChainConfig, MARKET_SO, Settings};
use atoll_chain::{Signature, market, spl};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::engine::{ask, balance_at, latest_blockhash, result, transfer_body};
use crate::support::{HandClock, config, key};

const SETTINGS: Settings = Settings { finality: Finality { confirmed_slots: 2, finalized_slots: 32 } };
const SLOT_MS: u64 = 400;

fn engine(clock: Arc<HandClock>) -> Engine {
    let programs = vec![(market::PROGRAM_ID, MARKET_SO.to_vec())];
    Engine::in_memory(EngineConfig { genesis_seed: [7; 32], programs, clock, settings: SETTINGS }).unwrap()
}

fn fund(engine: &mut Engine, wallet: u8) {
    result(&ask(engine, "requestAirdrop", json!([key(wallet).address(), 9_000_000_000_u64])));
}

fn transfer(engine: &mut Engine, from: u8, to: u8, lamports: u64) -> Signature {
    let (body, signature) = transfer_body(&latest_blockhash(engine), from, to, lamports);
    result(&engine.answer(&body));
    signature
}

fn status(engine: &mut Engine, signature: Signature) -> Value {
    result(&ask(engine, "getSignatureStatuses", json!([[signature]])))["value"][0].clone()
}

fn slot(engine: &mut Engine, commitment: &str) -> u64 {
    result(&ask(engine, "getSlot", json!([{ "commitment": commitment }]))).as_u64().unwrap()
}

#[test]
fn a_change_is_seen_when_its_slot_is_confirmed_and_final_and_not_before() {
    let clock = HandClock::new();
    let mut engine = engine(clock.clone());
    fund(&mut engine, 1);
    clock.forward_ms(100 * SLOT_MS);
    let signature = transfer(&mut engine, 1, 2, 5_000_000);
    let sent_at = slot(&mut engine, "processed");
    for passed in 0..=40 {
        let seen = ["processed", "confirmed", "finalized"].map(|at| balance_at(&mut engine, 2, at) == json!(5_000_000));
        assert_eq!(seen, [true, passed >= 2, passed >= 32], "{passed} slots later");
        let slots = ["processed", "confirmed", "finalized"].map(|at| slot(&mut engine, at) + 32 - sent_at);
        assert_eq!(slots, [32 + passed, 30 + passed, passed]);
        let status = status(&mut engine, signature);
        let commitment = if passed >= 32 {
            "finalized"
        } else if passed >= 2 {
            "confirmed"
        } else {
            "processed"
        };
        assert_eq!(status["confirmationStatus"], commitment);
        assert_eq!(status["confirmations"].is_null(), passed >= 32);
        let clock_at = |engine: &mut Engine, at: &str| {
            let account =
                ask(engine, "getAccountInfo", json!([spl::CLOCK_SYSVAR, { "encoding": "base64", "commitment": at }]));
            result(&account)["value"]["data"][0].clone()
        };
        assert_ne!(clock_at(&mut engine, "processed"), clock_at(&mut engine, "confirmed"));
        clock.forward_ms(SLOT_MS);
    }
}

#[test]
fn the_accounts_of_a_program_are_those_of_the_slot_asked_for() {
    let clock = HandClock::new();
    let mut engine = engine(clock.clone());
    fund(&mut engine, 1);
    fund(&mut engine, 2);
    clock.forward_ms(100 * SLOT_MS);
    // One wallet comes, one goes.
    transfer(&mut engine, 1, 3, 5_000_000);
    transfer(&mut engine, 2, 1, 9_000_000_000 - 5000);
    let there = |engine: &mut Engine, at: &str| {
        let list =
            ask(engine, "getProgramAccounts", json!([spl::SYSTEM_PROGRAM, { "encoding": "base64", "commitment": at }]));
        let list = result(&list);
        let named: BTreeSet<String> =
            list.as_array().unwrap().iter().map(|entry| entry["pubkey"].as_str().unwrap().to_owned()).collect();
        [1, 2, 3].map(|wallet| named.contains(&key(wallet).address().to_string()))
    };
    assert_eq!(there(&mut engine, "processed"), [true, false, true]);
    assert_eq!(there(&mut engine, "confirmed"), [true, true, false]);
    clock.forward_ms(2 * SLOT_MS);
    assert_eq!(there(&mut engine, "confirmed"), [true, false, true]);
    assert_eq!(there(&mut engine, "finalized"), [true, true, false]);
}

#[test]
fn a_lost_fork_takes_everything_back_and_what_lands_again_is_there_again() {
    let clock = HandClock::new();
    let mut engine = engine(clock.clone());
    fund(&mut engine, 1);
    clock.forward_ms(100 * SLOT_MS);
    let (body, kept) = transfer_body(&latest_blockhash(&mut engine), 1, 2, 5_000_000);
    clock.forward_ms(SLOT_MS);
    result(&engine.answer(&body));
    clock.forward_ms(SLOT_MS);
    let lost = transfer(&mut engine, 1, 2, 6_000_000);
    let blockhash = latest_blockhash(&mut engine);
    let taken = engine.roll_back(RollBack { slots: 1, land: Share::NONE }).unwrap();
    assert_eq!(taken, [lost]);
    assert_eq!(balance_at(&mut engine, 2, "processed"), json!(5_000_000));
    assert!(status(&mut engine, lost).is_null() && !status(&mut engine, kept).is_null());
    assert!(result(&ask(&mut engine, "getTransaction", json!([lost, { "encoding": "base64" }]))).is_null());
    assert_eq!(result(&ask(&mut engine, "isBlockhashValid", json!([blockhash])))["value"], json!(false));
    clock.forward_ms(SLOT_MS);
    let again = transfer(&mut engine, 1, 2, 7_000_000);
    let taken = engine.roll_back(RollBack { slots: 3, land: Share::ALL }).unwrap();
    assert_eq!(taken, [kept, again]);
    assert_eq!(balance_at(&mut engine, 2, "processed"), json!(0));
    clock.forward_ms(8 * SLOT_MS);
    // The second one's blockhash was of a slot that is no more.
    assert_eq!(balance_at(&mut engine, 2, "processed"), json!(5_000_000));
    assert!(!status(&mut engine, kept).is_null() && status(&mut engine, again).is_null());
    // What is final stays.
    clock.forward_ms(33 * SLOT_MS);
    assert!(engine.roll_back(RollBack { slots: 100, land: Share::NONE }).unwrap().is_empty());
    assert_eq!(balance_at(&mut engine, 2, "processed"), json!(5_000_000));
}

/// What is done to a chain.
#[derive(Debug, Clone)]
enum Step {
    Transfer { from: u8, to: u8, lamports: u64 },
    Forward { ms: u64 },
    RollBack { slots: u64 },
    Compact,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..4_u8, 1..6_u8, 1..400_u64)
            .prop_map(|(from, to, part)| Step::Transfer { from, to, lamports: part * 10_000_000 }),
        5 => (0..5_000_u64).prop_map(|ms| Step::Forward { ms }),
        3 => (0..40_u64).prop_map(|slots| Step::RollBack { slots }),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

/// A transfer that the chain took, and when.
#[derive(Debug, Clone)]
struct Taken {
    at_ms: u64,
    slot: u64,
    from: u8,
    to: u8,
    lamports: u64,
    signature: Signature,
}

/// Everything that wallets and their list show.
fn shown(engine: &mut Engine, commitment: &str) -> Vec<Value> {
    let list = ask(
        engine,
        "getProgramAccounts",
        json!([spl::SYSTEM_PROGRAM, { "encoding": "base64", "commitment": commitment }]),
    );
    let mut shown = vec![result(&list)];
    shown.extend((1..6).map(|wallet| balance_at(engine, wallet, commitment)));
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_chain_with_lost_forks_restarts_and_snapshots_is_the_chain_without_what_was_lost(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let clock = HandClock::new();
        let settings = |clock: Arc<HandClock>| LocalChainConfig { settings: SETTINGS, ..config(folder.path(), clock) };
        let (mut real, _) = Engine::open(settings(clock.clone())).unwrap();
        let mut model = engine(HandClock::new());
        for wallet in 1..4 {
            fund(&mut real, wallet);
            fund(&mut model, wallet);
        }
        let mut now_ms = 40 * SLOT_MS;
        clock.forward_ms(now_ms);
        slot(&mut real, "processed");
        let mut taken: Vec<Taken> = Vec::new();
        let mut settled = slot(&mut real, "finalized");
        for step in steps {
            settled = settled.max(slot(&mut real, "finalized"));
            match step {
                Step::Transfer { from, to, lamports } => {
                    let (body, signature) = transfer_body(&latest_blockhash(&mut real), from, to, lamports);
                    let answer: Value = serde_json::from_slice(&real.answer(&body).body).unwrap();
                    let twice = taken.iter().any(|taken| taken.signature == signature);
                    if answer["error"].is_null() && !twice {
                        let slot = slot(&mut real, "processed");
                        taken.push(Taken { at_ms: now_ms, slot, from, to, lamports, signature });
                    }
                }
                Step::Forward { ms } => {
                    now_ms += ms;
                    clock.forward_ms(ms);
                }
                Step::RollBack { slots } => {
                    let now = slot(&mut real, "processed");
                    let base = now.saturating_sub(slots).max(settled);
                    let lost = real.roll_back(RollBack { slots, land: Share::NONE }).unwrap();
                    let expected: Vec<_> =
                        taken.iter().filter(|taken| taken.slot > base).map(|taken| taken.signature).collect();
                    prop_assert_eq!(lost, expected);
                    taken.retain(|taken| taken.slot <= base);
                }
                Step::Compact => {
                    real.commit().unwrap();
                    real.compact(0).unwrap();
                }
                Step::Restart => {
                    real.commit().unwrap();
                    drop(real);
                    (real, _) = Engine::open(settings(clock.clone())).unwrap();
                    // What was on disk is settled by a restart, and what was final stays so.
                    let finalized = slot(&mut real, "finalized");
                    prop_assert!(finalized >= settled);
                    settled = finalized;
                }
            }
        }
        for commitment in ["processed", "confirmed", "finalized"] {
            let newest = slot(&mut real, commitment);
            let past = HandClock::new();
            let mut replayed = model.fork(past.clone());
            let mut passed_ms = 0;
            for taken in taken.iter().filter(|taken| taken.slot <= newest) {
                past.forward_ms(taken.at_ms - passed_ms);
                passed_ms = taken.at_ms;
                transfer(&mut replayed, taken.from, taken.to, taken.lamports);
            }
            prop_assert_eq!(shown(&mut real, commitment), shown(&mut replayed, "processed"), "{}", commitment);
        }
        for taken in &taken {
            prop_assert_eq!(&status(&mut real, taken.signature)["slot"], &json!(taken.slot));
            let detail = ask(&mut real, "getTransaction", json!([taken.signature, { "encoding": "base64", "commitment": "confirmed" }]));
            let confirmed = taken.slot <= slot(&mut real, "confirmed");
            prop_assert_eq!(!result(&detail).is_null(), confirmed);
        }
        let counted = result(&ask(&mut real, "getSignaturesForAddress", json!([spl::SYSTEM_PROGRAM, { "commitment": "confirmed" }])));
        let confirmed = slot(&mut real, "confirmed");
        let expected = 3 + taken.iter().filter(|taken| taken.slot <= confirmed).count();
        prop_assert_eq!(counted.as_array().unwrap().len(), expected);
    }
}

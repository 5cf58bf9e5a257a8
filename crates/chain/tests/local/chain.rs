//! Lamports, tokens, time and blockhashes.

use std::time::Duration;

use atoll_chain::local::SystemClock;
use atoll_chain::rpc::{Commitment, ConfirmError, Filter};
use atoll_chain::{Failure, FailureKind, Rpc, RpcConfig, RpcError, Signature, sign, spl, transaction};

use crate::support::{DEADLINE, HandClock, TOKEN, config, give, key, make_mint, run, start};

#[tokio::test]
async fn lamports_and_tokens_move_and_are_conserved() {
    let folder = tempfile::tempdir().unwrap();
    let (_chain, rpc) = start(folder.path(), HandClock::new()).await;
    let (payer, other, mint) = (key(1), key(2), key(3));
    rpc.airdrop(&payer.address(), 10 * spl::LAMPORTS_PER_SOL).await.unwrap();
    run(&rpc, &[spl::system_transfer(payer.address(), other.address(), spl::LAMPORTS_PER_SOL)], &payer, &[]).await;
    assert_eq!(rpc.balance(&other.address()).await.unwrap(), spl::LAMPORTS_PER_SOL);
    assert_eq!(rpc.balance(&payer.address()).await.unwrap(), 9 * spl::LAMPORTS_PER_SOL - 5000);

    make_mint(&rpc, &payer, &mint).await;
    let from = give(&rpc, &payer, mint.address(), payer.address(), 5 * TOKEN).await;
    let to = give(&rpc, &payer, mint.address(), other.address(), 0).await;
    let send = spl::token_transfer(from, mint.address(), to, payer.address(), 2 * TOKEN, 9);
    run(&rpc, &[send], &payer, &[]).await;
    assert_eq!(rpc.token_balance(&from).await.unwrap(), 3 * TOKEN);
    assert_eq!(rpc.token_balance(&to).await.unwrap(), 2 * TOKEN);
    assert_eq!(rpc.token_supply(&mint.address()).await.unwrap(), 5 * TOKEN);
    assert_eq!(rpc.token_account(&to).await.unwrap().unwrap().owner, other.address());

    // The index by owner follows, with filters.
    let holders = [Filter::DataSize(165), Filter::Bytes { offset: 0, bytes: mint.address().0.to_vec() }];
    let mut found: Vec<_> = rpc
        .program_accounts(&spl::TOKEN_PROGRAM, &holders)
        .await
        .unwrap()
        .iter()
        .map(|account| account.address)
        .collect();
    let mut expected = vec![from, to];
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let both = rpc.accounts(&[from, key(99).address()]).await.unwrap();
    assert!(both[0].is_some() && both[1].is_none());
}

#[tokio::test]
async fn a_failing_transaction_is_refused_in_words_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_chain, rpc) = start(folder.path(), HandClock::new()).await;
    let payer = key(1);
    rpc.airdrop(&payer.address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    let too_much = spl::system_transfer(payer.address(), key(2).address(), 5 * spl::LAMPORTS_PER_SOL);
    let refused = rpc.execute(std::slice::from_ref(&too_much), &payer, &[], DEADLINE).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "instruction 0 was refused by the system program: not enough lamports in the account"
    );
    assert_eq!(rpc.balance(&payer.address()).await.unwrap(), spl::LAMPORTS_PER_SOL);
    let ConfirmError::Rpc(RpcError::Failed(failure)) = refused else { panic!("{refused:?}") };
    assert!(matches!(*failure, Failure { kind: FailureKind::Custom(1), program: Some(spl::SYSTEM_PROGRAM), .. }));

    // A payer without lamports.
    let poor = rpc.execute(&[too_much], &key(9), &[&payer], DEADLINE).await.unwrap_err().to_string();
    assert!(poor.contains("send SOL to it first"), "{poor}");
}

#[tokio::test]
async fn without_preflight_a_failing_transaction_costs_its_fee_and_keeps_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, rpc) = start(folder.path(), HandClock::new()).await;
    let payer = key(1);
    rpc.airdrop(&payer.address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    let latest = rpc.latest_blockhash().await.unwrap();
    let too_much = spl::system_transfer(payer.address(), key(2).address(), 5 * spl::LAMPORTS_PER_SOL);
    let failing = sign(&[too_much], &payer, &[], &latest.blockhash).unwrap();
    let request = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "sendTransaction",
        "params": [failing.to_base64(), { "encoding": "base64", "skipPreflight": true }] });
    let answer = crate::hostile::post(&chain.url(), request.to_string()).await;
    assert_eq!(answer.1["result"], serde_json::json!(failing.signature()));
    assert_eq!(rpc.balance(&payer.address()).await.unwrap(), spl::LAMPORTS_PER_SOL - 5000);
    let failed = rpc.confirm(&failing, latest.last_valid_block_height, DEADLINE).await.unwrap_err().to_string();
    assert!(failed.contains("not enough lamports"), "{failed}");
    drop(chain);
    // The fee and the failure are in the log too.
    let (_chain, rpc) = start(folder.path(), HandClock::new()).await;
    assert_eq!(rpc.balance(&payer.address()).await.unwrap(), spl::LAMPORTS_PER_SOL - 5000);
    assert!(rpc.status(&failing.signature()).await.unwrap().unwrap().error.is_some());
}

#[tokio::test]
async fn that_a_transaction_failed_counts_once_no_likely_fork_takes_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    let payer = key(1);
    rpc.airdrop(&payer.address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    let ask = async |method: &str, params: serde_json::Value| {
        let request = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        crate::hostile::post(&chain.url(), request.to_string()).await.1
    };
    let finality = serde_json::json!({ "confirmedSlots": 2, "finalizedSlots": 32 });
    ask("atoll_faults", serde_json::json!([{ "finality": finality }])).await;
    clock.forward_ms(40 * 400);
    let latest = rpc.latest_blockhash().await.unwrap();
    let too_much = spl::system_transfer(payer.address(), key(2).address(), 5 * spl::LAMPORTS_PER_SOL);
    let failing = sign(&[too_much], &payer, &[], &latest.blockhash).unwrap();
    ask("sendTransaction", serde_json::json!([failing.to_base64(), { "encoding": "base64", "skipPreflight": true }]))
        .await;
    assert!(rpc.status(&failing.signature()).await.unwrap().unwrap().error.is_some());
    let confirm =
        async |rpc: &Rpc| rpc.confirm(&failing, latest.last_valid_block_height, Duration::ZERO).await.unwrap_err();
    let seen = confirm(&rpc).await;
    assert!(matches!(seen, ConfirmError::Deadline { .. }), "on another fork it may succeed: {seen}");
    clock.forward_ms(3 * 400);
    let confirmed = confirm(&rpc).await;
    assert!(matches!(confirmed, ConfirmError::Failed { .. }), "{confirmed}");
    let settled = confirm(&rpc.at(Commitment::Finalized)).await;
    assert!(matches!(settled, ConfirmError::Deadline { .. }), "{settled}");
    clock.forward_ms(32 * 400);
    let settled = confirm(&rpc.at(Commitment::Finalized)).await;
    assert!(matches!(settled, ConfirmError::Failed { .. }), "{settled}");
}

#[tokio::test]
async fn blockhashes_live_150_slots_and_a_duplicate_is_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (_chain, rpc) = start(folder.path(), clock.clone()).await;
    let payer = key(1);
    rpc.airdrop(&payer.address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    let latest = rpc.latest_blockhash().await.unwrap();
    let transfer = |lamports| {
        let instruction = spl::system_transfer(payer.address(), key(2).address(), lamports);
        sign(&[instruction], &payer, &[], &latest.blockhash).unwrap()
    };
    let (first, second, third) = (transfer(1_000_000), transfer(2_000_000), transfer(3_000_000));
    rpc.send(&first).await.unwrap();
    rpc.send(&first).await.unwrap();
    assert_eq!(rpc.balance(&key(2).address()).await.unwrap(), 1_000_000);

    clock.forward_ms(150 * 400);
    rpc.send(&second).await.unwrap();
    clock.forward_ms(400);
    let RpcError::Failed(expired) = rpc.send(&third).await.unwrap_err() else { panic!("sent") };
    assert_eq!(expired.kind, FailureKind::BlockhashNotFound);
    let gone = rpc.confirm(&third, latest.last_valid_block_height, DEADLINE).await.unwrap_err();
    assert!(matches!(gone, ConfirmError::Expired { .. }), "{gone}");
    // What was processed in its time stays so.
    rpc.send(&first).await.unwrap();
    assert_eq!(rpc.balance(&key(2).address()).await.unwrap(), 3_000_000);
}

#[tokio::test]
async fn an_unknown_transaction_is_not_confirmed_before_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let (_chain, rpc) = start(folder.path(), HandClock::new()).await;
    let latest = rpc.latest_blockhash().await.unwrap();
    let never_sent = sign(&[], &key(1), &[], &latest.blockhash).unwrap();
    let waited = rpc.confirm(&never_sent, latest.last_valid_block_height, Duration::from_millis(50)).await;
    assert!(matches!(waited, Err(ConfirmError::Deadline { .. })), "{waited:?}");
    assert_eq!(rpc.status(&Signature([5; 64])).await.unwrap(), None);
}

#[tokio::test]
async fn the_clock_follows_the_wall_never_goes_back_and_can_be_warped() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (_chain, rpc) = start(folder.path(), clock.clone()).await;
    let (slot, before) = (rpc.slot().await.unwrap(), rpc.clock().await.unwrap());
    assert_eq!(before.slot, slot);
    clock.forward_ms(4000);
    let after = rpc.clock().await.unwrap();
    assert_eq!((after.slot, after.unix_timestamp), (slot + 10, before.unix_timestamp + 4));
    assert_eq!(rpc.block_time(slot).await.unwrap(), Some(before.unix_timestamp));
    clock.back_ms(60_000);
    assert_eq!(rpc.clock().await.unwrap(), after);
    let warped = rpc.warp(14 * 24 * 3600).await.unwrap();
    assert_eq!(rpc.clock().await.unwrap(), warped);
    // The wall clock is still a minute behind; the warp counts from it.
    assert_eq!(warped.unix_timestamp, before.unix_timestamp + 4 - 60 + 14 * 24 * 3600);
    let refused = rpc.warp(0).await.unwrap_err().to_string();
    assert!(refused.contains("seconds"), "{refused}");
}

#[tokio::test]
async fn the_machine_clock_ticks_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(SystemClock);
    let chain = atoll_chain::local::serve(config(folder.path(), clock)).await.unwrap();
    let rpc = Rpc::new(RpcConfig::new(chain.url(), 1)).unwrap().at(Commitment::Finalized);
    let first = rpc.slot().await.unwrap();
    let ticked = async { while rpc.slot().await.unwrap() < first + 2 {} };
    tokio::time::timeout(Duration::from_secs(10), ticked).await.unwrap();
    chain.shutdown().await;
    let gone = rpc.slot().await.unwrap_err().to_string();
    assert!(gone.contains("check that it runs"), "{gone}");
}

#[tokio::test]
async fn a_transaction_of_the_full_size_passes_and_its_bytes_are_solanas() {
    let folder = tempfile::tempdir().unwrap();
    let (_chain, rpc) = start(folder.path(), HandClock::new()).await;
    let payer = key(1);
    rpc.airdrop(&payer.address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    let blockhash = rpc.latest_blockhash().await.unwrap().blockhash;
    // As many transfers to different wallets as fit: many accounts, several instructions.
    let transfers: Vec<_> =
        (10..31).map(|seed| spl::system_transfer(payer.address(), key(seed).address(), 2_000_000)).collect();
    let full = sign(&transfers, &payer, &[], &blockhash).unwrap();
    assert!(full.bytes().len() > 1150, "{}", full.bytes().len());
    let theirs: solana_transaction::versioned::VersionedTransaction = wincode::deserialize_exact(full.bytes()).unwrap();
    assert!(theirs.sanitize().is_ok() && theirs.verify_with_results().iter().all(|verified| *verified));
    assert_eq!(wincode::serialize(&theirs).unwrap(), full.bytes());
    rpc.send(&full).await.unwrap();
    assert_eq!(rpc.balance(&key(30).address()).await.unwrap(), 2_000_000);
    let decoded = transaction::decode(full.bytes()).unwrap();
    assert_eq!(decoded.instructions, transfers);
}

//! Restart, crash, torn and damaged logs.

use atoll_chain::local::{self, StartError, log};
use atoll_chain::rpc::Commitment;
use atoll_chain::{sign, spl};

use crate::support::{HandClock, TOKEN, config, give, key, make_mint, run, start};

#[tokio::test]
async fn a_killed_chain_comes_back_as_it_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    let (payer, mint) = (key(1), key(3));
    rpc.airdrop(&payer.address(), 10 * spl::LAMPORTS_PER_SOL).await.unwrap();
    make_mint(&rpc, &payer, &mint).await;
    let tokens = give(&rpc, &payer, mint.address(), payer.address(), 5 * TOKEN).await;
    clock.forward_ms(10_000);
    rpc.warp(3600).await.unwrap();
    let latest = rpc.latest_blockhash().await.unwrap();
    let sent =
        sign(&[spl::system_transfer(payer.address(), key(2).address(), 7_000_000)], &payer, &[], &latest.blockhash);
    let sent = sent.unwrap();
    rpc.send(&sent).await.unwrap();
    let (slot, time) = (rpc.slot().await.unwrap(), rpc.clock().await.unwrap());
    let genesis = rpc.genesis_hash().await.unwrap();
    let lamports = rpc.balance(&payer.address()).await.unwrap();
    let status = rpc.status(&sent.signature()).await.unwrap().unwrap();
    let accounts = rpc.program_accounts(&spl::TOKEN_PROGRAM, &[]).await.unwrap();
    // No shutdown: what was answered must be on disk already. Another seed must not change the genesis.
    drop(chain);
    clock.back_ms(3000);

    let mut again = config(folder.path(), clock.clone());
    again.genesis_seed = [99; 32];
    let chain = reopened(again).await;
    let rpc = atoll_chain::Rpc::new(atoll_chain::RpcConfig::new(chain.url(), 1)).unwrap();
    assert_eq!(chain.torn_bytes(), 0);
    assert!(rpc.slot().await.unwrap() >= slot, "the slot went back");
    assert!(rpc.clock().await.unwrap().unix_timestamp >= time.unix_timestamp, "the clock went back");
    assert_eq!(rpc.genesis_hash().await.unwrap(), genesis);
    assert_eq!(rpc.balance(&payer.address()).await.unwrap(), lamports);
    assert_eq!(rpc.token_balance(&tokens).await.unwrap(), 5 * TOKEN);
    assert_eq!(rpc.program_accounts(&spl::TOKEN_PROGRAM, &[]).await.unwrap(), accounts);
    assert_eq!(rpc.status(&sent.signature()).await.unwrap().unwrap(), status);
    assert_eq!(status.commitment, Commitment::Finalized);
    // The same transaction again is the same transaction, and its blockhash is still good for another.
    rpc.send(&sent).await.unwrap();
    assert_eq!(rpc.balance(&key(2).address()).await.unwrap(), 7_000_000);
    let next = spl::system_transfer(payer.address(), key(2).address(), 1);
    rpc.send(&sign(&[next], &payer, &[], &latest.blockhash).unwrap()).await.unwrap();
    assert_eq!(rpc.balance(&key(2).address()).await.unwrap(), 7_000_001);
}

/// The killed chain's thread may hold the log for a moment.
async fn reopened(config: local::LocalChainConfig) -> local::LocalChain {
    let (folder, listen, clock, seed) = (config.state_dir, config.listen, config.clock, config.genesis_seed);
    for _ in 0..500 {
        let mut config = local::LocalChainConfig::new(folder.clone(), seed);
        (config.listen, config.clock) = (listen, clock.clone());
        match local::serve(config).await {
            Err(StartError::Log(log::LogError::Locked { .. })) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await
            }
            other => return other.unwrap(),
        }
    }
    panic!("the log is still held after 5 s");
}

#[tokio::test]
async fn a_torn_tail_is_cut_said_and_only_loses_what_was_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    let payer = key(1);
    rpc.airdrop(&payer.address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    run(&rpc, &[spl::system_transfer(payer.address(), key(2).address(), 5_000_000)], &payer, &[]).await;
    run(&rpc, &[spl::system_transfer(payer.address(), key(2).address(), 6_000_000)], &payer, &[]).await;
    chain.shutdown().await;
    let path = folder.path().join(log::FILE);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();

    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    assert!(chain.torn_bytes() > 0);
    assert_eq!(rpc.balance(&key(2).address()).await.unwrap(), 5_000_000);
    chain.shutdown().await;
    // Cut for good: the next start finds a whole log.
    let (chain, _) = start(folder.path(), clock.clone()).await;
    assert_eq!(chain.torn_bytes(), 0);
    chain.shutdown().await;

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let refused = local::serve(config(folder.path(), clock)).await.unwrap_err().to_string();
    assert!(refused.contains("damaged at byte"), "{refused}");
}

#[tokio::test]
async fn a_second_chain_on_the_same_folder_or_port_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, _) = start(folder.path(), clock.clone()).await;
    let second = local::serve(config(folder.path(), clock.clone())).await.unwrap_err().to_string();
    assert!(second.contains("running already"), "{second}");
    let other = tempfile::tempdir().unwrap();
    let mut same_port = config(other.path(), clock);
    same_port.listen = chain.address();
    let second = local::serve(same_port).await.unwrap_err().to_string();
    assert!(second.contains("free the port"), "{second}");
}

#[tokio::test]
async fn what_a_transaction_writes_does_not_grow_with_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    let payer = key(1);
    rpc.airdrop(&payer.address(), 10 * spl::LAMPORTS_PER_SOL).await.unwrap();
    let written = async || {
        let len = || std::fs::metadata(folder.path().join(log::FILE)).unwrap().len();
        let before = len();
        run(&rpc, &[spl::system_transfer(payer.address(), key(2).address(), 5_000_000)], &payer, &[]).await;
        len() - before
    };
    let first = written().await;
    for n in 0..300_u64 {
        let mut address = [9; 32];
        address[..8].copy_from_slice(&n.to_le_bytes());
        rpc.airdrop(&atoll_chain::Address(address), spl::LAMPORTS_PER_SOL).await.unwrap();
    }
    clock.forward_ms(400);
    let later = written().await;
    // Digits of slot, time and balance may add a few characters.
    assert!(later.abs_diff(first) < 20, "{first} bytes at first, {later} later");
    chain.shutdown().await;
}

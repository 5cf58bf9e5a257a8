//! Transactions, epochs, receipts.

use atoll_domain::key::{Address, Digest, PublicKey};

use super::make::{NOW, accepted, chain_tx, event, id32, job_id, later};
use super::{Fresh, assert_conflict, assert_not_found};
use crate::store::rows::{ChainTx, ChainTxState, Epoch, EpochLeaf};

pub(super) async fn a_key_has_one_live_transaction(at: &Fresh) {
    let store = at.open().await;
    let (first, second) = (chain_tx("fill/a", 1, None), chain_tx("fill/a", 2, None));
    assert_eq!(store.chain_tx_put(&first).await.unwrap(), first);
    assert_eq!(store.chain_tx_put(&second).await.unwrap(), first, "the live one stays");
    assert_eq!(store.chain_tx_put(&first).await.unwrap(), first);
    assert_eq!(store.chain_tx_put(&chain_tx("fill/b", 3, None)).await.unwrap().signature, "signature-3");

    store.chain_tx_state("signature-1", ChainTxState::Expired, "", &[]).await.unwrap();
    // The same bytes cannot be tried again; new ones can.
    assert_conflict(store.chain_tx_put(&first).await, "transaction");
    assert_eq!(store.chain_tx_put(&second).await.unwrap(), second);
    store.chain_tx_state("signature-2", ChainTxState::Failed, "slippage", &[]).await.unwrap();
    let third = chain_tx("fill/a", 4, None);
    assert_eq!(store.chain_tx_put(&third).await.unwrap(), third);
    store.chain_tx_state("signature-4", ChainTxState::Confirmed, "", &[]).await.unwrap();
    let confirmed = ChainTx { state: ChainTxState::Confirmed, ..third };
    assert_eq!(store.chain_tx_put(&chain_tx("fill/a", 5, None)).await.unwrap(), confirmed);
    assert_eq!(store.chain_tx("fill/a").await.unwrap(), Some(confirmed));
    assert_eq!(store.chain_tx("fill/c").await.unwrap(), None);
}

pub(super) async fn a_confirmed_transaction_that_is_gone_frees_its_key(at: &Fresh) {
    let store = at.open().await;
    let (first, second) = (chain_tx("fill/a", 1, None), chain_tx("fill/a", 2, None));
    store.chain_tx_put(&first).await.unwrap();
    assert_conflict(store.chain_tx_gone("signature-1").await, "transaction");
    store.chain_tx_state("signature-1", ChainTxState::Confirmed, "", &[]).await.unwrap();
    store.chain_tx_gone("signature-1").await.unwrap();
    store.chain_tx_gone("signature-1").await.unwrap();
    assert_conflict(store.chain_tx_state("signature-1", ChainTxState::Confirmed, "", &[]).await, "transaction");
    assert_eq!(store.chain_tx("fill/a").await.unwrap().unwrap().state, ChainTxState::Expired);
    assert_eq!(store.chain_tx_put(&second).await.unwrap(), second);
    store.chain_tx_state("signature-2", ChainTxState::Failed, "slippage", &[]).await.unwrap();
    assert_conflict(store.chain_tx_gone("signature-2").await, "transaction");
    assert_not_found(store.chain_tx_gone("unknown").await, "transaction");
}

pub(super) async fn what_became_of_a_transaction_is_final(at: &Fresh) {
    let store = at.open().await;
    let states = [ChainTxState::Confirmed, ChainTxState::Failed, ChainTxState::Expired];
    for (n, end) in (1..).zip(states) {
        let tx = chain_tx(&format!("key-{n}"), n, None);
        store.chain_tx_put(&tx).await.unwrap();
        store.chain_tx_state(&tx.signature, ChainTxState::Pending, "still", &[]).await.unwrap();
        store.chain_tx_state(&tx.signature, end, "zero\0", &[]).await.unwrap();
        store.chain_tx_state(&tx.signature, end, "said again", &[]).await.unwrap();
        for other in states.into_iter().chain([ChainTxState::Pending]).filter(|other| *other != end) {
            assert_conflict(store.chain_tx_state(&tx.signature, other, "otherwise", &[]).await, "transaction");
        }
        let expected = ChainTx { state: end, error: "zero\u{fffd}".into(), ..tx.clone() };
        assert_eq!(store.chain_tx(&tx.key).await.unwrap(), Some(expected));
    }
    assert_not_found(store.chain_tx_state("unknown", ChainTxState::Failed, "", &[]).await, "transaction");
}

pub(super) async fn what_became_of_a_transaction_is_told_once(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    for tx in [chain_tx("a", 1, Some(job.id)), chain_tx("nobody's", 2, None)] {
        store.chain_tx_put(&tx).await.unwrap();
        let told = [event("was not lengthened")];
        for _ in 0..2 {
            store.chain_tx_state(&tx.signature, ChainTxState::Failed, "why", &told).await.unwrap();
        }
        assert_conflict(store.chain_tx_state(&tx.signature, ChainTxState::Expired, "", &told).await, "transaction");
    }
    let events = store.events(job.id, 0, 10).await.unwrap();
    assert_eq!(events, [(1, event("accepted")), (2, event("was not lengthened"))]);
}

pub(super) async fn transactions_of_a_job_come_in_order(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    // The order of writing, not of clocks or names.
    let txs = [("c", 3, 9), ("a", 1, 5), ("b", 2, 1)]
        .map(|(key, n, ms)| ChainTx { created: later(ms), ..chain_tx(key, n, Some(job.id)) });
    for tx in &txs {
        store.chain_tx_put(tx).await.unwrap();
    }
    store.chain_tx_put(&chain_tx("nobody's", 4, None)).await.unwrap();
    assert_eq!(store.chain_txs_of(job.id).await.unwrap(), txs);
    assert_eq!(store.chain_txs_of(job_id(9)).await.unwrap(), []);
}

pub(super) async fn what_is_under_way_comes_in_order(at: &Fresh) {
    let store = at.open().await;
    assert_eq!(store.chain_txs_pending().await.unwrap(), []);
    let (_, job) = accepted(store.as_ref(), 1).await;
    let txs = [("c", 1, None), ("a", 2, Some(job.id)), ("b", 3, None), ("d", 4, None), ("e", 5, None)]
        .map(|(key, n, job)| chain_tx(key, n, job));
    for tx in &txs {
        store.chain_tx_put(tx).await.unwrap();
    }
    for (tx, state) in txs[2..].iter().zip([ChainTxState::Confirmed, ChainTxState::Failed, ChainTxState::Expired]) {
        store.chain_tx_state(&tx.signature, state, "", &[]).await.unwrap();
    }
    assert_eq!(store.chain_txs_pending().await.unwrap(), txs[..2]);
}

fn epoch(index: u64, leases: &[u64]) -> Epoch {
    let leaf = |n: &u64| EpochLeaf {
        lease: lease(*n),
        device_seconds: index * 10 + n,
        until: -1,
        flags: 3,
        slots_root: Digest(id32(*n)),
    };
    Epoch { index, root: Digest(id32(index)), leaves: leases.iter().map(leaf).collect(), created: NOW }
}

fn lease(n: u64) -> Address {
    PublicKey(id32(n + 2000))
}

pub(super) async fn the_first_epoch_of_an_index_stays(at: &Fresh) {
    let store = at.open().await;
    assert_eq!(store.epoch_latest().await.unwrap(), None);
    let (first, second) = (epoch(1, &[2, 1]), epoch(2, &[1]));
    assert_eq!(store.epoch_put(&first).await.unwrap(), first);
    let other = Epoch { root: Digest(id32(99)), ..epoch(1, &[3]) };
    assert_eq!(store.epoch_put(&other).await.unwrap(), first);
    assert_eq!(store.epoch_put(&second).await.unwrap(), second);
    assert_eq!(store.epoch_put(&epoch(0, &[])).await.unwrap(), epoch(0, &[]));

    assert_eq!(store.epoch_latest().await.unwrap(), Some(second.clone()));
    assert_eq!(store.epoch_with_lease(&lease(1)).await.unwrap(), Some(second.clone()));
    assert_eq!(store.epoch_with_lease(&lease(2)).await.unwrap(), Some(first.clone()));
    for (up_to, expected) in [(0, None), (1, Some(first)), (2, Some(second.clone())), (9, Some(second))] {
        assert_eq!(store.epoch_with_lease_up_to(&lease(1), up_to).await.unwrap(), expected, "up to {up_to}");
    }
    assert_eq!(store.epoch_with_lease(&lease(3)).await.unwrap(), None);
}

pub(super) async fn the_first_receipt_stays(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    assert_eq!(store.receipt(job.id).await.unwrap(), None);
    store.receipt_put(job.id, &Digest(id32(1)), "first").await.unwrap();
    store.receipt_put(job.id, &Digest(id32(2)), "second").await.unwrap();
    assert_eq!(store.receipt(job.id).await.unwrap().as_deref(), Some("first"));
    assert_not_found(store.receipt_put(job_id(9), &Digest(id32(1)), "x").await, "job");
}

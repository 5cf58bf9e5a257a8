//! What was asked of the chain, the epochs behind posted roots, and receipts.

use atoll_domain::id::JobId;
use atoll_domain::key::{Address, Digest};

use super::super::rows::{ChainTx, ChainTxState, Epoch, EpochLeaf, Event};
use super::super::{Result, StoreError};
use super::jobs;
use super::tx::Tx;
use super::value::{Row, Value};

const COLUMNS: &str = "key, job, bytes, signature, last_valid_height, state, error, created";
const EPOCH: &str = "select number, root, leaves, created from epochs";
const STATES: [ChainTxState; 4] =
    [ChainTxState::Pending, ChainTxState::Confirmed, ChainTxState::Failed, ChainTxState::Expired];

fn chain_tx(row: Row) -> Result<ChainTx> {
    let mut row = row.read("transaction");
    let (key, job, bytes, signature) = (row.text()?, row.opt_parsed()?, row.bytes()?, row.text()?);
    let (last_valid_height, word) = (row.int()?, row.text()?);
    let state = STATES.into_iter().find(|state| state.word() == word);
    let state = state.ok_or_else(|| row.corrupt(format!("`{word}` is no state")))?;
    Ok(ChainTx { key, job, bytes, signature, last_valid_height, state, error: row.text()?, created: row.time()? })
}

/// Adds a transaction, or finds the live one that has its key already.
pub(super) async fn put(tx: &mut Tx<'_>, new: &ChainTx) -> Result<ChainTx> {
    let sql =
        format!("insert into chain_txs ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing");
    let key = Value::key("transaction key", &new.key)?;
    let values = [
        key.clone(),
        Value::or_null(new.job.map(Value::shown)),
        Value::bytes(&new.bytes),
        Value::key("signature", &new.signature)?,
        Value::int("the last valid height", new.last_valid_height)?,
        Value::shown(new.state.word()),
        Value::words(&new.error),
        Value::time(new.created),
    ];
    if tx.execute(&sql, &values).await? == 1 {
        return Ok(new.clone());
    }
    let live = format!("select {COLUMNS} from chain_txs where key = $1 and state in ('pending', 'confirmed')");
    match tx.query_first(&live, &[key]).await? {
        Some(row) => chain_tx(row),
        // Its signature is known: the same bytes were tried before, under this key or another, and are over.
        None => Err(StoreError::Conflict { what: "transaction" }),
    }
}

pub(super) async fn latest(tx: &mut Tx<'_>, key: &str) -> Result<Option<ChainTx>> {
    let sql = format!("select {COLUMNS} from chain_txs where key = $1 order by number desc limit 1");
    tx.query_first(&sql, &[Value::words(key)]).await?.map(chain_tx).transpose()
}

pub(super) async fn of_job(tx: &mut Tx<'_>, job: JobId) -> Result<Vec<ChainTx>> {
    let sql = format!("select {COLUMNS} from chain_txs where job = $1 order by number");
    tx.query(&sql, &[Value::shown(job)]).await?.into_iter().map(chain_tx).collect()
}

pub(super) async fn pending(tx: &mut Tx<'_>) -> Result<Vec<ChainTx>> {
    let sql = format!("select {COLUMNS} from chain_txs where state = 'pending' order by number");
    tx.query(&sql, &[]).await?.into_iter().map(chain_tx).collect()
}

/// Ends a pending transaction. What became of it is final: saying it again is fine, saying otherwise a conflict.
pub(super) async fn state(
    tx: &mut Tx<'_>,
    signature: &str,
    state: ChainTxState,
    error: &str,
    told: &[Event],
) -> Result<()> {
    let signature = Value::words(signature);
    let written = tx
        .execute(
            "update chain_txs set state = $2, error = $3 where signature = $1 and state = 'pending'",
            &[signature.clone(), Value::shown(state.word()), Value::words(error)],
        )
        .await?;
    if written == 1 {
        let row = tx.query_first("select job from chain_txs where signature = $1", &[signature]).await?;
        let job = row.map(|row| row.read("transaction").opt_parsed()).transpose()?.flatten();
        return match job {
            Some(job) if !told.is_empty() => jobs::events_append(tx, job, told).await,
            _ => Ok(()),
        };
    }
    let row = tx.query_first("select state from chain_txs where signature = $1", &[signature]).await?;
    let stands = row.ok_or(StoreError::NotFound { what: "transaction" })?.read("transaction").text()?;
    if stands == state.word() { Ok(()) } else { Err(StoreError::Conflict { what: "transaction" }) }
}

/// Takes back that a transaction was confirmed. Saying it again is fine; one that was never confirmed is a conflict.
pub(super) async fn gone(tx: &mut Tx<'_>, signature: &str) -> Result<()> {
    let expired = Value::shown(ChainTxState::Expired.word());
    let sql = "update chain_txs set state = $2 where signature = $1 and state in ('confirmed', 'expired')";
    if tx.execute(sql, &[Value::words(signature), expired]).await? == 1 {
        return Ok(());
    }
    let row = tx.query_first("select state from chain_txs where signature = $1", &[Value::words(signature)]).await?;
    row.ok_or(StoreError::NotFound { what: "transaction" })?;
    Err(StoreError::Conflict { what: "transaction" })
}

fn epoch(row: Row) -> Result<Epoch> {
    let mut row = row.read("epoch");
    Ok(Epoch { index: row.int()?, root: Digest(row.array()?), leaves: row.json()?, created: row.time()? })
}

pub(super) async fn epoch_put(tx: &mut Tx<'_>, new: &Epoch) -> Result<Epoch> {
    let index = Value::int("the epoch's index", new.index)?;
    let written = tx
        .execute(
            "insert into epochs (number, root, leaves, created) values ($1, $2, $3, $4) on conflict (number) do nothing",
            &[index.clone(), Value::bytes(&new.root.0), Value::json("leaves", &new.leaves)?, Value::time(new.created)],
        )
        .await?;
    if written == 0 {
        let row = tx.query_first(&format!("{EPOCH} where number = $1"), &[index]).await?;
        return epoch(row.ok_or(StoreError::Conflict { what: "epoch" })?);
    }
    for EpochLeaf { lease, .. } in &new.leaves {
        tx.execute(
            "insert into epoch_leases (lease, epoch) values ($1, $2) on conflict do nothing",
            &[Value::bytes(&lease.0), index.clone()],
        )
        .await?;
    }
    Ok(new.clone())
}

pub(super) async fn epoch_latest(tx: &mut Tx<'_>) -> Result<Option<Epoch>> {
    tx.query_first(&format!("{EPOCH} order by number desc limit 1"), &[]).await?.map(epoch).transpose()
}

pub(super) async fn epoch_with_lease(tx: &mut Tx<'_>, lease: &Address, up_to: u64) -> Result<Option<Epoch>> {
    let sql = format!(
        "{EPOCH} where number = \
         (select epoch from epoch_leases where lease = $1 and epoch <= $2 order by epoch desc limit 1)"
    );
    let up_to = Value::int("the epoch's index", up_to)?;
    tx.query_first(&sql, &[Value::bytes(&lease.0), up_to]).await?.map(epoch).transpose()
}

pub(super) async fn receipt_put(tx: &mut Tx<'_>, job: JobId, sha256: &Digest, receipt: &str) -> Result<()> {
    jobs::require(tx, job).await?;
    tx.execute(
        "insert into receipts (job, sha256, receipt) values ($1, $2, $3) on conflict (job) do nothing",
        &[Value::shown(job), Value::bytes(&sha256.0), Value::Text(receipt.to_owned())],
    )
    .await
    .map(drop)
}

pub(super) async fn receipt(tx: &mut Tx<'_>, job: JobId) -> Result<Option<String>> {
    let row = tx.query_first("select receipt from receipts where job = $1", &[Value::shown(job)]).await?;
    row.map(|row| row.read("receipt").text()).transpose()
}

//! The outbox: a transaction is written down under a key, sent, and followed until it is known what became of it.
//!
//! One rule carries it: what may have been handed to the chain can still land until its blockhash is too old, whatever a
//! node's trial run says of it meanwhile. Only what was never handed over fails at once.
//!
//! Confirmed is not final: whoever asks again for what was confirmed does not see what it did, so it is looked at again,
//! and sent again when a fork has taken it back.

use std::time::Duration;

use atoll_chain::rpc::{Commitment, ConfirmError};
use atoll_chain::{FailureKind, Hash, Instruction, Keypair, RpcError, SignedTransaction, transaction};

use crate::control::Control;
use crate::store::rows::{ChainTx, ChainTxState};
use atoll_domain::id::JobId;
use atoll_domain::time::UnixMs;

/// How long one run of a reconciler waits for a transaction it has just sent; a slower chain is asked again by the next.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);
/// How long the very same instructions rest after the chain refused them: what is refused for long must not be signed,
/// sent and written down at every signal.
const REST: Duration = Duration::from_secs(5);

/// What became of a transaction so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Done.
    Confirmed,
    /// On its way.
    Waiting,
    /// The program or the chain refused it, in words. It did nothing.
    Failed(String),
    /// It can no longer be executed, and was not.
    Expired,
}

/// What to do under a key, given the latest transaction there.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Confirmed, as far as is written.
    Look,
    Follow,
    /// Refused a moment ago, in these words.
    Rest(String),
    Sign,
}

fn next(latest: Option<&ChainTx>, instructions: &[Instruction], now: UnixMs) -> Next {
    let Some(row) = latest else { return Next::Sign };
    match row.state {
        ChainTxState::Confirmed => Next::Look,
        ChainTxState::Pending => Next::Follow,
        ChainTxState::Failed if now.since(row.created) < REST && asks(row, instructions) => {
            Next::Rest(row.error.clone())
        }
        ChainTxState::Failed | ChainTxState::Expired => Next::Sign,
    }
}

/// Whether a written transaction asks exactly this.
fn asks(row: &ChainTx, instructions: &[Instruction]) -> bool {
    let same = |a: &Instruction, b: &Instruction| {
        let names = |it: &Instruction| it.accounts.iter().map(|meta| meta.address).collect::<Vec<_>>();
        a.program == b.program && a.data == b.data && names(a) == names(b)
    };
    transaction::decode(&row.bytes).is_ok_and(|written| {
        let pairs = written.instructions.iter().zip(instructions);
        written.instructions.len() == instructions.len() && pairs.into_iter().all(|(a, b)| same(a, b))
    })
}

pub(super) fn node_key(control: &Control) -> Keypair {
    Keypair::from_seed(&control.keys.node.seed())
}

/// Asks something of the chain under a key: writes it down, sends it, waits a little. A transaction under the same key
/// that may still land is followed instead of signing another.
pub(super) async fn submit(
    control: &Control,
    key: String,
    job: Option<JobId>,
    instructions: &[Instruction],
    signers: &[&Keypair],
) -> anyhow::Result<Sent> {
    let latest = control.store.chain_tx(&key).await?;
    match (next(latest.as_ref(), instructions, control.now()), latest) {
        (Next::Look, Some(row)) => look_again(control, &row).await,
        (Next::Rest(reason), _) => Ok(Sent::Failed(reason)),
        (Next::Follow, Some(row)) => follow(control, &row, false).await,
        _ => {
            let node = node_key(control);
            let latest = control.rpc.latest_blockhash().await?;
            let others: Vec<&Keypair> = signers.iter().copied().filter(|key| key.address() != node.address()).collect();
            let transaction = transaction::sign(instructions, &node, &others, &Hash(latest.blockhash.0))?;
            let row = row(control, key, job, &transaction, latest.last_valid_block_height);
            send_first(control, &row).await
        }
    }
}

/// Writes a transaction down and sends it, or follows the one that another writer put under its key meanwhile.
pub(super) async fn send_first(control: &Control, row: &ChainTx) -> anyhow::Result<Sent> {
    let kept = control.store.chain_tx_put(row).await?;
    follow(control, &kept, kept == *row).await
}

/// Follows what is under way under a key; none when nothing is.
pub(super) async fn under_way(control: &Control, key: &str) -> anyhow::Result<Option<Sent>> {
    match control.store.chain_tx(key).await? {
        Some(row) if row.state == ChainTxState::Pending => follow(control, &row, false).await.map(Some),
        Some(row) if row.state == ChainTxState::Confirmed => look_again(control, &row).await.map(Some),
        _ => Ok(None),
    }
}

pub(super) fn row(
    control: &Control,
    key: String,
    job: Option<JobId>,
    transaction: &SignedTransaction,
    last_valid_height: u64,
) -> ChainTx {
    ChainTx {
        key,
        job,
        bytes: transaction.bytes().to_vec(),
        signature: transaction.signature().to_string(),
        last_valid_height,
        state: ChainTxState::Pending,
        error: String::new(),
        created: control.now(),
    }
}

/// Sends a written transaction, looks what became of it, and writes that down. `fresh` when it was never handed over
/// before.
pub(super) async fn follow(control: &Control, row: &ChainTx, fresh: bool) -> anyhow::Result<Sent> {
    let sent = hand_over(control, row, fresh).await?;
    match &sent {
        Sent::Failed(reason) => tracing::warn!(key = row.key, reason, "the chain refused a transaction"),
        Sent::Confirmed => tracing::debug!(key = row.key, signature = row.signature, "confirmed"),
        Sent::Waiting | Sent::Expired => {}
    }
    remember(control, &row.signature, &sent).await?;
    Ok(sent)
}

/// Looks again at what was confirmed when its caller does not see what it did: a node of the chain lags, or a fork took
/// it back. Then the same bytes are sent until they can land no more; only then is their key free.
pub(super) async fn look_again(control: &Control, row: &ChainTx) -> anyhow::Result<Sent> {
    let status = control.rpc.status(&row.signature.parse()?).await?;
    if status.is_some_and(|status| status.error.is_none() && status.commitment >= Commitment::Confirmed) {
        return Ok(Sent::Confirmed);
    }
    tracing::warn!(key = row.key, signature = row.signature, "what was confirmed is gone; it is sent again");
    let sent = hand_over(control, row, false).await?;
    if matches!(sent, Sent::Failed(_) | Sent::Expired) {
        control.store.chain_tx_gone(&row.signature).await?;
    }
    Ok(sent)
}

/// Whether a trial run failed for no fault of what is asked: another node of this store may have handed it over meanwhile,
/// or the chain's node lags and has not seen its blockhash yet.
const fn says_nothing(kind: &FailureKind) -> bool {
    matches!(kind, FailureKind::AlreadyProcessed | FailureKind::BlockhashNotFound)
}

async fn hand_over(control: &Control, row: &ChainTx, fresh: bool) -> anyhow::Result<Sent> {
    let transaction = SignedTransaction::from_bytes(row.bytes.clone())?;
    let refused = match control.rpc.send(&transaction).await {
        Ok(()) => None,
        Err(RpcError::Failed(failure)) if says_nothing(&failure.kind) => None,
        Err(RpcError::Failed(failure)) => Some(failure.to_string()),
        Err(RpcError::Refused { message, .. }) => {
            tracing::debug!(key = row.key, message, "the node does not take the transaction; its status tells");
            None
        }
        Err(error) => return Err(error.into()),
    };
    match refused {
        Some(reason) if fresh && control.rpc.status(&transaction.signature()).await?.is_none() => {
            Ok(Sent::Failed(reason))
        }
        _ => {
            let wait = if fresh { CONFIRM_WAIT } else { Duration::ZERO };
            match control.rpc.confirm(&transaction, row.last_valid_height, wait).await {
                Ok(_) => Ok(Sent::Confirmed),
                Err(ConfirmError::Failed { failure, .. }) => Ok(Sent::Failed(failure.to_string())),
                Err(ConfirmError::Expired { .. }) => Ok(Sent::Expired),
                Err(ConfirmError::Deadline { .. }) => Ok(Sent::Waiting),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Brings a renter's own signed transaction to the chain and looks what became of it; `said` is what a trial run had
/// against it. Whoever has the bytes may have handed them over as well, and nobody here may sign others in their place: so
/// only the chain says what became of them, in a state that no fork takes back. Until then they are sent again and again.
pub(super) async fn relay(control: &Control, row: &ChainTx) -> anyhow::Result<Standing> {
    let transaction = SignedTransaction::from_bytes(row.bytes.clone())?;
    let shows = control.rpc.status(&transaction.signature()).await?.is_some_and(|status| status.error.is_none());
    let said = if shows { None } else { trial(control, row, &transaction).await? };
    let settled = control.rpc.at(Commitment::Finalized);
    let sent = match settled.confirm(&transaction, row.last_valid_height, Duration::ZERO).await {
        Ok(_) => Sent::Confirmed,
        Err(ConfirmError::Failed { failure, .. }) => Sent::Failed(failure.to_string()),
        Err(ConfirmError::Expired { .. }) => Sent::Expired,
        Err(ConfirmError::Deadline { .. }) => Sent::Waiting,
        Err(error) => return Err(error.into()),
    };
    Ok(Standing { sent, said })
}

/// What became so far of a transaction that somebody else signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the chain says.
    pub sent: Sent,
    /// Why a node does not take it now, in words.
    pub said: Option<String>,
}

/// Hands a transaction over; gives what the node's trial run has against it.
async fn trial(control: &Control, row: &ChainTx, transaction: &SignedTransaction) -> anyhow::Result<Option<String>> {
    match control.rpc.send(transaction).await {
        Ok(()) => Ok(None),
        Err(RpcError::Failed(failure)) => Ok(Some(failure.to_string())),
        Err(RpcError::Refused { message, .. }) => {
            tracing::debug!(key = row.key, message, "the node does not take the transaction; its status tells");
            Ok(Some(message))
        }
        Err(error) => Err(error.into()),
    }
}

/// What is written of a transaction's fate; none while it is open.
pub(super) fn fate(sent: &Sent) -> Option<(ChainTxState, &str)> {
    match sent {
        Sent::Waiting => None,
        Sent::Confirmed => Some((ChainTxState::Confirmed, "")),
        Sent::Failed(reason) => Some((ChainTxState::Failed, reason)),
        Sent::Expired => Some((ChainTxState::Expired, "")),
    }
}

pub(super) async fn remember(control: &Control, signature: &str, sent: &Sent) -> anyhow::Result<()> {
    let Some((state, error)) = fate(sent) else { return Ok(()) };
    control.store.chain_tx_state(signature, state, error, &[]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_chain::{AccountMeta, Address};

    fn instruction(data: u8) -> Instruction {
        let accounts = vec![AccountMeta::write(Address([2; 32]))];
        Instruction { program: Address([1; 32]), accounts, data: vec![data] }
    }

    fn written(state: ChainTxState, data: u8) -> ChainTx {
        let key = Keypair::from_seed(&[7; 32]);
        let transaction = transaction::sign(&[instruction(data)], &key, &[], &Hash([3; 32])).unwrap();
        ChainTx {
            key: "k".into(),
            job: None,
            bytes: transaction.bytes().to_vec(),
            signature: transaction.signature().to_string(),
            last_valid_height: 1,
            state,
            error: "no".into(),
            created: UnixMs(1_000),
        }
    }

    #[test]
    fn what_may_land_is_followed_and_what_is_over_is_signed_anew() {
        let now = UnixMs(1_000);
        let next = |row: Option<ChainTx>| next(row.as_ref(), &[instruction(1)], now);
        assert_eq!(next(None), Next::Sign);
        assert_eq!(next(Some(written(ChainTxState::Confirmed, 1))), Next::Look);
        assert_eq!(next(Some(written(ChainTxState::Pending, 2))), Next::Follow, "whatever it asks");
        assert_eq!(next(Some(written(ChainTxState::Expired, 1))), Next::Sign);
    }

    #[test]
    fn the_same_refused_request_rests_and_another_does_not() {
        let refused = written(ChainTxState::Failed, 1);
        let at = |ms, data| next(Some(&refused), &[instruction(data)], UnixMs(ms));
        assert_eq!(at(1_025, 1), Next::Rest("no".into()));
        assert_eq!(at(1_025, 2), Next::Sign);
        assert_eq!(at(6_000, 1), Next::Sign);
        assert_eq!(next(Some(&refused), &[instruction(1), instruction(1)], UnixMs(1_025)), Next::Sign);
    }
}

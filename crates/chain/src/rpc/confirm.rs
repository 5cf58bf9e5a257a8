//! Waiting until a transaction is processed, has failed, or can never be.

use std::time::Duration;

use tokio::time::Instant;

use super::{LatestBlockhash, Rpc, RpcError, Status, programs_of};
use crate::address::Signature;
use crate::failure::Failure;
use crate::keypair::Keypair;
use crate::transaction::{self, BuildError, Instruction, SignedTransaction};

/// Shortest pause between two questions.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between two questions: one slot.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// A transaction that the chain has processed without error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// Its name.
    pub signature: Signature,
    /// The slot that processed it.
    pub slot: u64,
}

/// Why a transaction is not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// The transaction was processed and failed; its fee is spent.
    #[error("transaction {signature} failed: {failure}")]
    Failed { signature: Signature, failure: Box<Failure> },
    /// Its blockhash has expired and the chain does not know it: it can never be processed. Sign it again.
    #[error(
        "transaction {signature} was not taken up before its blockhash expired; nothing was charged, send it again"
    )]
    Expired { signature: Signature },
    /// Nobody knows yet. It may still be processed: ask for its status before signing anything in its place.
    #[error(
        "transaction {signature} is not confirmed after {waited:?}; it may still be, ask for its status before sending another"
    )]
    Deadline { signature: Signature, waited: Duration },
    /// The chain could not be asked, or refused the transaction outright.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The transaction could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl Rpc {
    /// Waits until a transaction reaches this client's commitment; that it failed counts from there on as well, since on
    /// another fork it may succeed. `last_valid_block_height` is that of its blockhash.
    ///
    /// # Errors
    /// [`ConfirmError`]: failed, expired, or not known at the deadline.
    pub async fn confirm(
        &self,
        transaction: &SignedTransaction,
        last_valid_block_height: u64,
        deadline: Duration,
    ) -> Result<Confirmed, ConfirmError> {
        let signature = transaction.signature();
        let start = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            // Height first: a transaction unknown after its last height was read can never appear.
            let height = self.block_height().await?;
            match self.status(&signature).await? {
                Some(Status { error: Some(error), commitment, .. }) if commitment >= self.commitment => {
                    let log = self.transaction_log(&signature).await?;
                    let failure = Box::new(Failure::read(&error, &log, &programs_of(transaction)));
                    return Err(ConfirmError::Failed { signature, failure });
                }
                Some(status) if status.error.is_none() && status.commitment >= self.commitment => {
                    return Ok(Confirmed { signature, slot: status.slot });
                }
                None if height > last_valid_block_height => return Err(ConfirmError::Expired { signature }),
                Some(_) | None => {}
            }
            if start.elapsed() >= deadline {
                return Err(ConfirmError::Deadline { signature, waited: deadline });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Where one transaction stands; none when the node does not know it.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn status(&self, signature: &Signature) -> Result<Option<Status>, RpcError> {
        let mut statuses = self.statuses(std::slice::from_ref(signature)).await?;
        Ok(statuses.pop().flatten())
    }

    /// Signs with a new blockhash, sends and waits: for a caller that has nothing to remember in between.
    /// Who must survive a restart signs and keeps the transaction first, then sends.
    ///
    /// The same instructions signed again within one slot are the same transaction, and answered as such.
    ///
    /// # Errors
    /// [`ConfirmError`].
    pub async fn execute(
        &self,
        instructions: &[Instruction],
        payer: &Keypair,
        signers: &[&Keypair],
        deadline: Duration,
    ) -> Result<Confirmed, ConfirmError> {
        let LatestBlockhash { blockhash, last_valid_block_height } = self.latest_blockhash().await?;
        let transaction = transaction::sign(instructions, payer, signers, &blockhash)?;
        self.send(&transaction).await?;
        self.confirm(&transaction, last_valid_block_height, deadline).await
    }
}

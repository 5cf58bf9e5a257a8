//! One transaction of a person: shown in words, agreed to, signed, kept, sent, and waited for.
//!
//! What is signed is kept before it is sent. A run of the same command that finds such a transaction asks the chain first
//! what became of it, sends the same bytes while they can still be taken, and signs another only when they never can. So no
//! crash and no repetition does a thing twice.

use std::time::Duration;

use atoll_chain::rpc::ConfirmError;
use atoll_chain::{Instruction, Rpc, RpcError, SignedTransaction, sign};
use serde::{Deserialize, Serialize};

use super::{OnChain, refusal, words};
use crate::exit::{Exit, Failure};
use crate::pending::Slot;
use crate::session::Wallet;
use crate::submit::confirm;

/// The longest the chain is waited for: a blockhash lives a minute or so.
const TAKEN_MAX: Duration = Duration::from_secs(120);

/// What is to be signed.
#[derive(Clone, Debug)]
pub struct Act {
    /// What it does.
    pub instructions: Vec<Instruction>,
    /// What follows from it that its own bytes do not say, one sentence each.
    pub consequences: Vec<String>,
}

/// A transaction, signed, and not known to be taken or over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The signed transaction, in hexadecimal.
    pub transaction: String,
    /// The last block height at which the chain can take it.
    pub last_valid_height: u64,
    /// What it says, as it was shown.
    pub says: Vec<String>,
}

/// What a script is told of a transaction that the chain has taken.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// Its name on the chain.
    pub transaction: String,
    /// What it did, in words.
    pub did: Vec<String>,
}

/// What became of a transaction.
#[derive(Debug)]
pub enum Standing {
    /// The chain has it.
    Taken,
    /// It never will be; why.
    Over(Failure),
    /// It may still be.
    Open,
}

/// Asks the chain what became of a transaction, for up to `wait`.
///
/// # Errors
/// [`Failure`] when the chain cannot be asked.
pub async fn standing(
    rpc: &Rpc,
    transaction: &SignedTransaction,
    last_valid_height: u64,
    wait: Duration,
) -> Result<Standing, Failure> {
    match rpc.confirm(transaction, last_valid_height, wait).await {
        Ok(_) => Ok(Standing::Taken),
        Err(ConfirmError::Failed { failure, .. }) => Ok(Standing::Over(refusal::words(&failure))),
        Err(ConfirmError::Expired { .. }) => {
            let message = "it expired before the chain took it; nothing was changed, run the command again";
            Ok(Standing::Over(Failure::new(Exit::Refused, "expired", message)))
        }
        Err(ConfirmError::Deadline { .. }) => Ok(Standing::Open),
        Err(ConfirmError::Rpc(error)) => Err(error.into()),
        Err(error @ ConfirmError::Build(_)) => Err(Failure::new(Exit::Internal, "transaction", error.to_string())),
    }
}

impl Kept {
    fn signed(&self) -> Result<SignedTransaction, Failure> {
        let damaged = || Failure::usage("the kept transaction is damaged and cannot be read");
        let bytes = hex::decode(&self.transaction).map_err(|_| damaged())?;
        SignedTransaction::from_bytes(bytes).map_err(|_| damaged())
    }

    fn done(&self) -> Result<Done, Failure> {
        Ok(Done { transaction: self.signed()?.signature().to_string(), did: self.says.clone() })
    }
}

/// Carries out what `asked` names: goes on with what an earlier run signed for it, or builds, shows and signs anew. `asked`
/// is the command with everything that makes it this one and not another.
///
/// # Errors
/// [`Failure`]; nothing was changed unless it says that the transaction may still be taken.
pub async fn carry_out(
    on: &OnChain,
    wallet: &Wallet,
    asked: String,
    yes: bool,
    build: impl AsyncFnOnce() -> Result<Act, Failure>,
) -> Result<Done, Failure> {
    let slot = Slot::of_act(&on.home, &on.profile, wallet.key.public(), &asked);
    if let Some(done) = again(on, &slot).await? {
        return Ok(done);
    }
    let act = build().await?;
    let says = says(&act);
    let signer = wallet.chain.address();
    on.out.say(&format!("a transaction, signed by {signer}:\n  {}", says.join("\n  ")));
    confirm(on.out, "Sign and send it?", yes)?;
    let latest = on.chain.rpc.latest_blockhash().await?;
    let signed = sign(&act.instructions, &wallet.chain, &[], &latest.blockhash)
        .map_err(|error| Failure::new(Exit::Internal, "transaction", error.to_string()))?;
    let transaction = hex::encode(signed.bytes());
    let kept = Kept { transaction, last_valid_height: latest.last_valid_block_height, says };
    slot.keep(&kept)?;
    send(on, &slot, &kept).await
}

fn says(act: &Act) -> Vec<String> {
    act.instructions.iter().map(words::of).chain(act.consequences.iter().cloned()).collect()
}

/// Goes on with what an earlier run signed; none when there is nothing, or nothing of it is left to do.
async fn again(on: &OnChain, slot: &Slot<Kept>) -> Result<Option<Done>, Failure> {
    let Some(kept) = slot.load()? else { return Ok(None) };
    match standing(&on.chain.rpc, &kept.signed()?, kept.last_valid_height, Duration::ZERO).await? {
        Standing::Taken => {
            slot.forget()?;
            on.out.say("an earlier run of this command was cut off after the chain had taken its transaction");
            kept.done().map(Some)
        }
        Standing::Over(why) => {
            slot.forget()?;
            on.out.say(&format!("an earlier run's transaction was not taken ({why}); starting anew"));
            Ok(None)
        }
        Standing::Open => {
            on.out.say("an earlier run of this command was cut off: sending the same transaction again");
            send(on, slot, &kept).await.map(Some)
        }
    }
}

/// Sends it and waits until the chain has taken or refused it.
async fn send(on: &OnChain, slot: &Slot<Kept>, kept: &Kept) -> Result<Done, Failure> {
    let signed = kept.signed()?;
    let again = "run the same command again: it is the same transaction, and done once";
    match on.chain.rpc.send(&signed).await {
        Ok(()) => {}
        Err(RpcError::Failed(failure)) => {
            return match standing(&on.chain.rpc, &signed, kept.last_valid_height, Duration::ZERO).await? {
                Standing::Taken => slot.forget().and_then(|()| kept.done()),
                Standing::Over(why) => slot.forget().and(Err(why)),
                // Only a trial run of one node. It stays kept: a node that lies, or had passed it on before, must not have
                // the next run sign the same again beside it.
                Standing::Open => Err(refusal::tried(&failure)),
            };
        }
        Err(error) => {
            let mut failure = Failure::from(error);
            failure.message = format!("{}; {again}", failure.message);
            return Err(failure);
        }
    }
    match standing(&on.chain.rpc, &signed, kept.last_valid_height, TAKEN_MAX).await? {
        Standing::Taken => slot.forget().and_then(|()| kept.done()),
        Standing::Over(why) => slot.forget().and(Err(why)),
        Standing::Open => {
            let message = format!("the chain has not taken the transaction yet; {again}");
            Err(Failure::new(Exit::Unreachable, "chain_unreachable", message))
        }
    }
}

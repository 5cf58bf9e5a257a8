//! What attestors' keys were seen to sign: votes that left for the chain, whether they arrived or not, and votes in
//! receipts.
//!
//! Who shows two roots of one epoch signed by one key burns its stake (`prove_equivocation`), so what never landed counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atoll_api::receipt::ReceiptBody;
use atoll_chain::market::PROGRAM_ID;
use atoll_chain::market::data::Instruction;
use atoll_chain::{Hash, transaction};
use atoll_domain::key::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// All votes of a world. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Votes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The first root that each key signed of each epoch.
    first: BTreeMap<(PublicKey, u64), [u8; 32]>,
    broken: Vec<String>,
}

impl Votes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key signed a root of an epoch.
    pub fn sees(&self, key: PublicKey, epoch: u64, root: [u8; 32]) {
        let mut state = self.state();
        let first = *state.first.entry((key, epoch)).or_insert(root);
        if first != root {
            state.broken.push(format!("{key} signed two roots of epoch {epoch}: {} and {}", Hash(first), Hash(root)));
        }
    }

    /// A request to the chain leaves somebody.
    pub fn leaves(&self, body: &str) {
        for (key, epoch, root) in cast(body).unwrap_or_default() {
            self.sees(key, epoch, root);
        }
    }

    /// A receipt is read.
    pub fn receipt(&self, receipt: &ReceiptBody) {
        for epoch in &receipt.epochs {
            epoch.votes.iter().for_each(|vote| self.sees(vote.key, epoch.index, epoch.root.0));
        }
    }

    /// How many epochs were voted on.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state().first.len()
    }

    /// Takes what was seen broken.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        std::mem::take(&mut self.state().broken)
    }
}

/// The votes in a request's transaction; none when it sends none.
fn cast(body: &str) -> Option<Vec<(PublicKey, u64, [u8; 32])>> {
    if !body.contains("\"sendTransaction\"") {
        return None;
    }
    let request: serde_json::Value = serde_json::from_str(body).ok()?;
    let bytes = BASE64.decode(request["params"][0].as_str()?).ok()?;
    let sent = transaction::decode(&bytes).ok()?;
    let votes = sent.instructions.iter().filter(|it| it.program == PROGRAM_ID).filter_map(|it| {
        let Ok(Instruction::PostEpoch(vote)) = Instruction::decode(&it.data) else { return None };
        let key = it.accounts.first().filter(|key| key.signer)?;
        Some((PublicKey(key.address.0), vote.index, vote.root))
    });
    Some(votes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_chain::market::instruction::post_epoch;
    use atoll_chain::{Keypair, sign};

    #[test]
    fn a_second_root_of_one_epoch_is_seen_in_what_leaves() {
        let votes = Votes::default();
        let vote = |key: u8, epoch: u64, root: u8| {
            let key = Keypair::from_seed(&[key; 32]);
            let vote = post_epoch(key.address(), key.address(), epoch, Hash([root; 32]));
            let signed = sign(&[vote], &key, &[], &Hash([9; 32])).unwrap();
            let body = serde_json::json!({ "method": "sendTransaction", "params": [signed.to_base64(), {}] });
            votes.leaves(&body.to_string());
            votes.broken().len()
        };
        assert_eq!([vote(1, 5, 1), vote(1, 5, 1), vote(1, 6, 2), vote(2, 5, 3)], [0; 4]);
        assert_eq!((vote(1, 5, 2), votes.count()), (1, 3));
    }
}

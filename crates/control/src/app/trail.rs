//! The transactions that name an order on the chain, newest first, one question at a time.
//!
//! Only what no fork takes back. A node of the chain forgets what is old, and a renter can make an order's trail as long as
//! it pays for, so that it has an end here as well.

use std::collections::VecDeque;

use atoll_chain::rpc::Commitment;
use atoll_chain::{RpcError, Signature};
use atoll_domain::key::Address;

use crate::control::Control;

/// How many pages are looked through: 10,000 transactions.
const PAGES_MAX: usize = 10;

/// A look along an order's trail that goes on where it stopped.
#[derive(Debug, Default)]
pub struct Trail {
    page: VecDeque<Signature>,
    before: Option<Signature>,
    pages: usize,
}

/// What is next on a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This transaction, until [`Trail::pass`].
    At(Signature),
    /// The chain was asked for more: ask again.
    More,
    /// Nothing that the chain's node knows, or that is looked at.
    End,
}

impl Trail {
    /// What is next; at most one question to the chain.
    ///
    /// # Errors
    /// When the chain does not answer: the next call goes on from there.
    pub async fn next(&mut self, control: &Control, order: &Address) -> Result<Next, RpcError> {
        if let Some(name) = self.page.front() {
            return Ok(Next::At(*name));
        }
        if self.pages > 0 && self.before.is_none() || self.pages >= PAGES_MAX {
            return Ok(Next::End);
        }
        let settled = control.rpc.at(Commitment::Finalized);
        let (page, older) = settled.signatures_of(&atoll_chain::Address(order.0), self.before).await?;
        (self.page, self.before, self.pages) = (page.into(), older, self.pages + 1);
        Ok(Next::More)
    }

    /// Goes past the transaction that is next.
    pub fn pass(&mut self) {
        self.page.pop_front();
    }

    /// The bytes of a transaction; none when the node cannot show it well, which is as what it has forgotten.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn bytes(control: &Control, name: &Signature) -> Result<Option<Vec<u8>>, RpcError> {
        match control.rpc.at(Commitment::Finalized).transaction(name).await {
            Err(error @ RpcError::Unreachable { .. }) => Err(error),
            asked => Ok(asked.ok().flatten().map(|it| it.bytes().to_vec())),
        }
    }
}

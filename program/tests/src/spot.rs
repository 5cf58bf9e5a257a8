//! The calls of spot orders, and of what a budget's key lengthens.

use crate::{Call, Party};
use atoll_interface::instruction as ix;

/// Seconds of notice of the tests' spot orders.
pub const NOTICE_S: u32 = 20;

impl Party {
    /// Posts an order with further terms by the wallet.
    pub fn post_further(&self, terms: &ix::PostOrder, further: ix::PostOrderSpot<'_>) -> Call {
        let plain = self.post_with(terms);
        let data = ix::PostOrderSpot { order: &plain.data[1..], ..further }.encode().unwrap();
        Call { name: "post_order_spot", data: data.as_slice().to_vec(), ..plain }
    }

    /// Posts a spot order that bids what [`Party::terms`] would pay at most.
    pub fn post_spot(&self, devices: u32) -> Call {
        let further = ix::PostOrderSpot { notice_s: NOTICE_S, region_mask: 0, score_min_milli: 0, order: &[] };
        self.post_further(&self.terms(devices), further)
    }

    pub fn notice(&self, n: u16) -> Call {
        let accounts = ix::NoticeReclaimAccounts {
            supplier: self.supplier,
            order: self.order(),
            lease: self.lease(n),
            page: self.page,
        };
        Call::new("notice_reclaim", &accounts.metas(), ix::NoticeReclaim {}.encode().unwrap())
    }

    pub fn extend_by_budget(&self, seconds: u32, escrow: u64) -> Call {
        let accounts = ix::ExtendByBudgetAccounts {
            key: self.session,
            budget: self.budget(),
            purse: self.budget_vault(),
            order: self.order(),
            vault: self.vault(),
        };
        let data = ix::ExtendByBudget { seconds, escrow };
        Call::new("extend_by_budget", &accounts.metas(), data.encode().unwrap())
    }
}

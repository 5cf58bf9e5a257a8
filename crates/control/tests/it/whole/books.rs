//! One job at one operator, and its books when it is over: the chain's balances against the receipt.

use atoll_api::receipt::{Receipt, ReceiptBody};
use atoll_domain::id::JobId;
use atoll_domain::job::JobState;
use atoll_interface::settlement::Pay;

use super::{Draft, Hand, Net, Operator, PURSE, until};

/// What a supplier of the network puts up for its one device.
const STAKE: u64 = 200_000_000_000;

/// A network whose one operator has one job.
pub(crate) struct Case {
    pub(crate) net: Net,
    pub(crate) operator: Operator,
    pub(crate) hands: Vec<Hand>,
    pub(crate) draft: Draft,
    pub(crate) job: JobId,
}

impl Case {
    /// Waits until workers are linked and on offer.
    pub(crate) async fn linked(operator: &Operator, hands: &[Hand]) {
        until("workers are linked and on offer", || async {
            let control = operator.control();
            let market = control.market.snapshot();
            let offered = market.is_some_and(|view| view.offers.len() == hands.len() && view.network.epoch_s == 4);
            offered && hands.iter().all(|hand| control.links.is_linked(hand.id()))
        })
        .await;
    }

    /// Submits a draft to an operator whose workers are linked.
    pub(crate) async fn submitted(net: Net, operator: Operator, hands: Vec<Hand>, draft: Draft) -> Self {
        let job = net.submit(&operator.client(&net).await, &draft, 1).await.job;
        Self { net, operator, hands, draft, job }
    }

    /// Waits until the command runs.
    pub(crate) async fn runs(&self) {
        self.operator.wait_state(self.job, JobState::Running).await;
        until("the head knows the command", || async { !self.net.machines.submissions().is_empty() }).await;
    }

    /// Waits until some of what was served is booked on the chain, on every lease.
    pub(crate) async fn settled_some(&self) {
        let order = atoll_chain::Address(self.draft.order.0);
        until("something is booked", || async {
            let leases = self.net.market().leases_of(&order).await.unwrap();
            leases.len() == self.hands.len() && leases.iter().all(|lease| lease.value.device_seconds_paid > 0)
        })
        .await;
    }

    /// Ends the command well, waits for the receipt and holds the books against it.
    pub(crate) async fn finish(&self) -> ReceiptBody {
        self.net.machines.finish();
        self.over(JobState::Succeeded).await
    }

    /// Waits until the job is over in this state, and holds the books against its receipt.
    pub(crate) async fn over(&self, state: JobState) -> ReceiptBody {
        self.operator.wait_state(self.job, state).await;
        let client = self.operator.client(&self.net).await;
        let receipt: Receipt = serde_json::from_value(client.receipt(self.job).await.unwrap()).unwrap();
        let body = receipt.open().unwrap();
        assert!(self.net.order(&self.draft.order).await.is_none(), "the order is closed");
        self.check_books(&body).await;
        body
    }

    /// Every unit is where the receipt says, every transaction that it names stands, and nobody was paid for more than
    /// its machine served.
    pub(crate) async fn check_books(&self, body: &ReceiptBody) {
        let money = &body.money;
        assert_eq!(money.escrow.0, money.paid.0 + money.refunded.0 + money.fees.0);
        assert_eq!(self.net.balance(self.net.renters()).await, PURSE - money.escrow.0 + money.refunded.0);
        let mut paid = 0;
        for hand in &self.hands {
            let earned = self.net.balance(hand.supplier).await + STAKE - PURSE;
            let mine = body.leases.iter().filter(|lease| lease.supplier.0 == hand.supplier.0);
            let (mut said, mut seconds) = (0, 0);
            for lease in mine {
                let leaf = lease.attested.as_ref().expect("every lease has its final leaf");
                said += Pay::of(lease.rate, leaf.device_seconds, body.order.fee_bps).unwrap().supplier();
                seconds += leaf.device_seconds;
            }
            assert_eq!(earned, said);
            assert!(seconds <= hand.served_s() + 1, "{seconds} s are paid, {} s were served", hand.served_s());
            paid += earned;
        }
        assert_eq!(paid, money.paid.0);
        assert_eq!(self.net.tokens_everywhere().await, self.net.supply().await, "no token is nowhere");
        for transaction in &body.transactions {
            let status = self.net.rpc.status(&transaction.signature.to_string().parse().unwrap()).await.unwrap();
            assert!(
                status.is_some_and(|status| status.error.is_none()),
                "{} is not on the chain",
                transaction.signature
            );
        }
    }
}

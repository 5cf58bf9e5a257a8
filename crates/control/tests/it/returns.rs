//! An operator that comes back after another one settled in its place: its receipt says what was paid, and it holds.

use atoll_api::receipt::{Receipt, ReceiptBody};
use atoll_chain::{Address, Hash};
use atoll_domain::id::JobId;
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::{PublicKey, sha256};
use atoll_interface::Hashes;
use atoll_interface::merkle::{FLAG_FINAL, Leaf, root_of_path};
use atoll_interface::network::vote_message;
use atoll_interface::settlement::Pay;

use crate::orphan::two;
use crate::whole::{Hand, Net, Operator, PURSE, until};

const STAKE: u64 = 200_000_000_000;

/// Two operators that take turns with one attestor key, two hands linked to both, and a job of two devices at the first.
struct Two {
    net: Net,
    one: Operator,
    _other: Operator,
    hands: Vec<Hand>,
    job: JobId,
    order: PublicKey,
}

impl Two {
    async fn running(seconds: u32) -> Self {
        let (net, one, other, hands) = two().await;
        let draft = net.draft(&one, 2, seconds).await;
        let job = net.submit(&one.client(&net).await, &draft, 1).await.job;
        one.wait_state(job, JobState::Running).await;
        until("the other one has their meters", || async {
            let strays = other.control().store.strays_of(&draft.order).await.unwrap();
            strays.len() == 2 && strays.iter().all(|it| it.usage.is_some() && it.observation.observed_ms > 2_000)
        })
        .await;
        Self { net, one, _other: other, hands, job, order: draft.order }
    }

    async fn closed(&self) {
        until("the order is closed", || async { self.net.order(&self.order).await.is_none() }).await;
    }

    async fn receipt(&self) -> ReceiptBody {
        self.one.wait("it is over", self.job, |row| row.now.state.is_final()).await;
        let client = self.one.client(&self.net).await;
        let receipt: Receipt = serde_json::from_value(client.receipt(self.job).await.unwrap()).unwrap();
        receipt.open().unwrap()
    }

    /// Everybody has what the receipt says, and every leaf in it stands under a root that the chain has and the receipt's
    /// vote is for.
    async fn check(&self, body: &ReceiptBody) {
        let money = &body.money;
        assert_eq!(self.net.balance(self.net.renters()).await, PURSE - money.escrow.0 + money.refunded.0);
        assert_eq!(money.escrow.0, money.paid.0 + money.refunded.0 + money.fees.0);
        let mut paid = 0;
        for hand in &self.hands {
            let earned = self.net.balance(hand.supplier).await + STAKE - PURSE;
            let lease = body.leases.iter().find(|lease| lease.supplier.0 == hand.supplier.0).unwrap();
            let leaf = lease.attested.as_ref().expect("its last leaf is shown");
            assert_eq!(earned, Pay::of(lease.rate, leaf.device_seconds, body.order.fee_bps).unwrap().supplier());
            assert!((1..=hand.served_s() + 1).contains(&leaf.device_seconds));
            assert!(leaf.flags & FLAG_FINAL != 0 && !lease.unfinished);
            let row = Leaf {
                lease: lease.address.0,
                device_seconds: leaf.device_seconds,
                until: leaf.until_s,
                flags: leaf.flags,
                slots_root: leaf.slots_root.0,
            };
            let path: Vec<[u8; 32]> = leaf.path.iter().map(|hash| hash.0).collect();
            let root = root_of_path(sha256, row.hash(sha256), leaf.leaf_index, Hashes::new(&path)).unwrap();
            let epoch = body.epochs.iter().find(|epoch| epoch.index == leaf.epoch).unwrap();
            assert_eq!(epoch.root.0, root);
            let on_chain = self.net.market().epoch(leaf.epoch, &Hash(root)).await.unwrap().unwrap();
            assert!(on_chain.value.final_at != 0);
            let config = self.net.market().config().await.unwrap().value;
            let vote = epoch.votes.first().unwrap();
            assert!(config.rows.iter().any(|seat| seat.key == vote.key.0));
            let message = vote_message(&config.header.network_root, epoch.index, &root);
            vote.key.verify_raw(&message, &vote.signature).unwrap();
            paid += earned;
        }
        assert_eq!(paid, money.paid.0);
        assert_eq!(self.net.tokens_everywhere().await, self.net.supply().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_that_comes_back_after_another_one_settled_says_what_was_paid() {
    let mut it = Two::running(30).await;
    it.one.kill().await;
    it.closed().await;
    it.one.start().await;
    let body = it.receipt().await;
    assert_eq!(body.result.outcome, Some(JobOutcome::Failed));
    it.check(&body).await;
    // The other operator's turn has the odd epochs: these leaves are its own.
    assert!(body.leases.iter().all(|lease| lease.attested.as_ref().unwrap().epoch % 2 == 1), "{:?}", body.leases);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_that_comes_back_while_another_one_settles_says_what_was_paid() {
    let mut it = Two::running(20).await;
    it.one.kill().await;
    // The other one has booked a last leaf, or is about to close.
    until("a last leaf is booked", || async {
        let leases = it.net.market().leases_of(&Address(it.order.0)).await.unwrap();
        leases.len() < 2 || leases.iter().any(|lease| lease.value.flags & atoll_interface::layout::LEASE_FINAL != 0)
    })
    .await;
    it.one.start().await;
    it.closed().await;
    let body = it.receipt().await;
    it.check(&body).await;
}

//! A store restored from an old copy under two jobs: whoever is killed while it is brought up, or loses a race over it, the
//! pay of neither job stays behind what its machine served.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::receipt::{Receipt, ReceiptBody};
use atoll_chain::Address;
use atoll_domain::id::JobId;
use atoll_domain::job::JobState;
use atoll_domain::key::PublicKey;

use crate::adopt::network;
use crate::dying::Lives;
use crate::whole::{Hand, Net, Operator, PURSE, until};

const STAKE: u64 = 200_000_000_000;
/// Seconds that are attested past the copy, and served after the loss.
const SERVED_S: u64 = 15;
/// The longest life of a node that is killed again and again.
const LIFE_MAX: Duration = Duration::from_secs(5);
/// Seconds of those that may be seen by nobody: beats around the beginning and the end of what is measured.
const UNSEEN_S: u64 = 6;

/// One operator, two workers of one device each, and a job on each.
struct Two {
    net: Net,
    operator: Operator,
    hands: Vec<Hand>,
    jobs: Vec<(JobId, PublicKey)>,
}

impl Two {
    async fn running() -> Self {
        let (net, operator, hands) = network().await;
        let mut jobs = Vec::new();
        for _ in 0..2 {
            let draft = net.draft(&operator, 1, 3600).await;
            let job = net.submit(&operator.client(&net).await, &draft, 1).await.job;
            jobs.push((job, draft.order));
        }
        for (job, _) in &jobs {
            operator.wait_state(*job, JobState::Running).await;
        }
        until("the heads know the commands", || async { net.machines.submissions().len() == 2 }).await;
        Self { net, operator, hands, jobs }
    }

    /// Device-seconds booked on the chain, by job.
    async fn booked(&self) -> Vec<u64> {
        let mut booked = Vec::new();
        for (_, order) in &self.jobs {
            let leases = self.net.market().leases_of(&Address(order.0)).await.unwrap();
            booked.push(leases.iter().map(|lease| lease.value.device_seconds_paid).sum());
        }
        booked
    }

    fn served(&self) -> Vec<u64> {
        self.hands.iter().map(Hand::served_s).collect()
    }

    /// Waits until every machine served so many seconds more.
    async fn serves(&self, seconds: u64) {
        let before = self.served();
        until("they serve on", || async {
            self.served().iter().zip(&before).all(|(now, before)| *now >= before + seconds)
        })
        .await;
    }

    /// Waits until so many seconds more are booked on every lease.
    async fn books(&self, seconds: u64) {
        let before = self.booked().await;
        until("more is booked", || async {
            self.booked().await.iter().zip(&before).all(|(now, before)| *now >= before + seconds)
        })
        .await;
    }

    /// Waits until both jobs run and are adopted, with their workers at one of these nodes.
    async fn go_on(&self, nodes: &[&Operator]) {
        for (job, _) in &self.jobs {
            let runs = |row: &atoll_control::store::rows::Job| {
                row.now.state == JobState::Running && row.now.adopting.is_none()
            };
            nodes[0].wait("it runs again", *job, runs).await;
        }
        until("the workers are back", || async {
            let at = |hand: &Hand| nodes.iter().any(|node| node.control().links.is_here(hand.id()));
            nodes.iter().all(|node| node.control().caught_up.is_set()) && self.hands.iter().all(at)
        })
        .await;
    }

    /// Has both jobs serve on and end. Each is paid for what was booked by then and what its operator saw since, and no
    /// machine for more than it served.
    async fn check_pay(self) {
        let before = self.booked().await;
        self.serves(SERVED_S).await;
        self.net.machines.finish();
        let mut bodies: Vec<ReceiptBody> = Vec::new();
        for ((job, order), before) in self.jobs.iter().zip(before) {
            self.operator.wait_state(*job, JobState::Succeeded).await;
            let client = self.operator.client(&self.net).await;
            let receipt: Receipt = serde_json::from_value(client.receipt(*job).await.unwrap()).unwrap();
            let body = receipt.open().unwrap();
            assert!(self.net.order(order).await.is_none(), "its order is closed");
            assert_eq!((body.leases.len(), body.result.attempts), (1, 1));
            let paid_s = body.leases[0].attested.as_ref().unwrap().device_seconds;
            let least = before + SERVED_S - UNSEEN_S;
            assert!(paid_s >= least, "{paid_s} s are paid: {before} s were booked, {SERVED_S} s were served since");
            bodies.push(body);
        }
        for hand in &self.hands {
            let earned = self.net.balance(hand.supplier).await + STAKE - PURSE;
            let body = bodies.iter().find(|body| body.leases[0].supplier.0 == hand.supplier.0).unwrap();
            assert_eq!(earned, body.money.paid.0);
            let paid_s = body.leases[0].attested.as_ref().unwrap().device_seconds;
            assert!(paid_s <= hand.served_s() + 1, "{paid_s} s are paid, {} s were served", hand.served_s());
        }
        assert_eq!(self.net.machines.submissions().len(), 2, "no command was started twice");
        assert_eq!(self.net.tokens_everywhere().await, self.net.supply().await, "no token is nowhere");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_dies_again_and_again_while_it_brings_an_old_store_up_leaves_no_job_behind() {
    let mut it = Two::running().await;
    it.books(1).await;
    let copy = tempfile::tempdir().unwrap();
    it.operator.kill().await;
    it.operator.back_up(copy.path());
    it.operator.start().await;
    it.go_on(&[&it.operator]).await;
    it.books(SERVED_S).await;
    it.operator.kill().await;
    it.operator.restore(copy.path());
    let life = Arc::new(Lives::default());
    let usual = std::mem::replace(&mut it.operator.around, life.around());
    // More lives than there are epochs and jobs to bring up.
    for _ in 0..12 {
        life.for_writes(1);
        it.operator.start().await;
        // One that has nothing to write goes on until here.
        let _ = tokio::time::timeout(LIFE_MAX, life.over()).await;
        it.operator.kill().await;
    }
    it.operator.around = usual;
    it.operator.start().await;
    it.go_on(&[&it.operator]).await;
    it.check_pay().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_start_at_once_over_an_old_store_leave_no_job_behind() {
    let mut it = Two::running().await;
    let mut beside = it.operator.beside().await;
    it.books(1).await;
    let copy = tempfile::tempdir().unwrap();
    for node in [&mut it.operator, &mut beside] {
        node.kill().await;
    }
    it.operator.back_up(copy.path());
    tokio::join!(it.operator.start(), beside.start());
    it.go_on(&[&it.operator, &beside]).await;
    it.books(SERVED_S).await;
    for node in [&mut it.operator, &mut beside] {
        node.kill().await;
    }
    it.operator.restore(copy.path());
    tokio::join!(it.operator.start(), beside.start());
    it.go_on(&[&it.operator, &beside]).await;
    it.check_pay().await;
}

/// Against the rule of `docs/decisions/0005`: the copy is put in place under a node that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_store_is_put_back_while_it_runs_sees_it_and_attests_nothing_over_it() {
    let mut it = Two::running().await;
    it.books(1).await;
    let copy = tempfile::tempdir().unwrap();
    let life = Arc::new(Lives::default());
    life.for_writes(i64::MAX);
    it.operator.around = life.around();
    it.operator.kill().await;
    it.operator.back_up(copy.path());
    it.operator.start().await;
    it.go_on(&[&it.operator]).await;
    it.books(SERVED_S).await;
    let copied = format!("sqlite:{}", copy.path().join("control.db").display());
    let old = atoll_control::store::open(&copied).await.unwrap();
    let attested = old.epoch_latest().await.unwrap().unwrap().index;
    life.put_instead(Arc::clone(&old));
    until("the node has seen it", || async { it.operator.control().caught_up.is_old() }).await;
    // Longer than an epoch: nothing goes on.
    it.serves(8).await;
    assert_eq!(old.epoch_latest().await.unwrap().unwrap().index, attested, "nothing is attested over it");
}

//! Two operators with stores of their own on one chain; workers hold links to both. One vanishes for good: what its
//! cluster served is settled by the other one's node.

use atoll_chain::Address;
use atoll_domain::job::JobState;
use atoll_interface::arithmetic::fee;

use crate::whole::{Gate, Hand, Net, Operator, PURSE, Way, until};

const STAKE: u64 = 200_000_000_000;

/// Two operators that take turns with one attestor key, two hands linked to both.
pub(crate) async fn two() -> (Net, Operator, Operator, Vec<Hand>) {
    let net = Net::start().await;
    let (one, other) = (net.operator(1, "0/2").await, net.operator(2, "1/2").await);
    let hands = vec![net.hand(1).await, net.hand(2).await];
    for hand in &hands {
        hand.link(&one);
        hand.link(&other);
    }
    until("workers are linked to both", || async {
        [&one, &other].iter().all(|operator| {
            let control = operator.control();
            let offered = control.market.snapshot().is_some_and(|view| view.offers.len() == 2);
            offered && hands.iter().all(|hand| control.links.is_linked(hand.id()))
        })
    })
    .await;
    (net, one, other, hands)
}

async fn earned(net: &Net, hand: &Hand) -> u64 {
    net.balance(hand.supplier).await + STAKE - PURSE
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_vanishes_and_its_cluster_is_settled_by_the_other_s_node() {
    let (net, mut one, other, hands) = two().await;
    let ordered_s = 30;
    let draft = net.draft(&one, 2, ordered_s).await;
    let job = net.submit(&one.client(&net).await, &draft, 1).await.job;
    one.wait_state(job, JobState::Running).await;
    // The other operator has no job, and keeps what it sees of these pods under their order.
    let seen = async || other.control().store.strays_of(&draft.order).await.unwrap();
    until("the other one has their meters", || async {
        let strays = seen().await;
        strays.len() == 2 && strays.iter().all(|stray| stray.usage.is_some() && stray.observation.observed_ms > 2_000)
    })
    .await;
    one.kill().await;
    let escrow = net.order(&draft.order).await.unwrap().escrow_initial;
    until("the order is closed", || async { net.order(&draft.order).await.is_none() }).await;
    // The supplier is paid for what it served, no more than both saw, and most of it; the renter has the rest.
    let (mut paid, mut fees) = (0, 0);
    for hand in &hands {
        let of_hand: u64 = seen()
            .await
            .iter()
            .filter(|stray| stray.worker == hand.id())
            .map(|stray| stray.observation.observed_ms.min(stray.usage.unwrap().statement.served_ms) / 1000)
            .sum();
        let rate = 50_000 * 1_000_000_000 / 250_000 / 3600;
        let earned = earned(&net, hand).await;
        let most = rate * (hand.served_s() + 1);
        assert!(earned <= most - fee(most, 25).unwrap() + 1, "{earned} is paid for {} s", hand.served_s());
        // Pods run on for a moment after the end of their lease; that is nobody's to pay.
        let of_hand = of_hand.min(u64::from(ordered_s));
        assert!(earned > rate * of_hand * 9 / 10, "{earned} is paid, and {of_hand} s were seen");
        let gross = (earned..).find(|gross| gross - fee(*gross, 25).unwrap() == earned).unwrap();
        paid += earned;
        fees += 2 * fee(gross, 25).unwrap();
    }
    let refunded = net.balance(net.renters()).await + escrow - PURSE;
    assert_eq!(refunded, escrow - paid - fees, "every unit of the escrow is accounted for");
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
    assert!(net.machines.running().is_empty(), "pods ended with their leases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_of_which_no_operator_saw_anything_is_closed_once_the_program_waits_no_longer() {
    let net = Net::start().await;
    let (mut one, other) = (net.operator(1, "0/2").await, net.operator(2, "1/2").await);
    let hand = net.hand(1).await;
    hand.link(&one);
    until("the worker is linked", || async {
        let offered = one.control().market.snapshot().is_some_and(|view| view.offers.len() == 1);
        offered && one.control().links.is_linked(hand.id())
    })
    .await;
    let draft = net.draft(&one, 1, 3600).await;
    let job = net.submit(&one.client(&net).await, &draft, 1).await.job;
    one.wait_state(job, JobState::Running).await;
    // Operator and machine are gone before any of it was booked, and nobody else was linked.
    one.kill().await;
    hand.die().await;
    let paid = net.market().leases_of(&Address(draft.order.0)).await.unwrap()[0].value.device_seconds_paid;
    net.clock.pass(std::time::Duration::from_secs(3600));
    until("the other one releases it", || async { net.order(&draft.order).await.unwrap().devices_live == 0 }).await;
    assert_eq!(net.market().leases_of(&Address(draft.order.0)).await.unwrap().len(), 1, "it waits for who saw more");
    net.clock.pass(std::time::Duration::from_secs(7 * 86_400));
    until("the order is closed", || async { net.order(&draft.order).await.is_none() }).await;
    let rate = 50_000 * 1_000_000_000 / 250_000 / 3600;
    let spent = PURSE - net.balance(net.renters()).await;
    assert!(spent <= paid * rate * 101 / 100 + 1, "{spent} is spent for {paid} s");
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
    assert!(other.control().store.stray_orders().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_operators_share_one_attestor_key_and_never_vote_for_two_roots_of_an_epoch() {
    let (net, one, other, _hands) = two().await;
    let (first, second) = (net.draft(&one, 1, 3600).await, net.draft(&other, 1, 3600).await);
    let job_one = net.submit(&one.client(&net).await, &first, 1).await.job;
    let job_other = net.submit(&other.client(&net).await, &second, 2).await.job;
    one.wait_state(job_one, JobState::Running).await;
    other.wait_state(job_other, JobState::Running).await;
    for order in [&first.order, &second.order] {
        until("both are booked", || async {
            let leases = net.market().leases_of(&Address(order.0)).await.unwrap();
            leases.len() == 1 && leases.iter().all(|lease| lease.value.device_seconds_paid > 0)
        })
        .await;
    }
    net.machines.finish();
    one.wait_state(job_one, JobState::Succeeded).await;
    other.wait_state(job_other, JobState::Succeeded).await;
    // What each one ever signed, landed or not, is of its own turn.
    for (operator, turn) in [(&one, 0), (&other, 1)] {
        let signed = std::fs::read_dir(operator.state.join("objects/epochs")).unwrap();
        let index = |entry: std::fs::DirEntry| entry.file_name().to_str().unwrap()[..20].parse::<u64>().unwrap();
        let indexes: Vec<u64> = signed.map(|entry| index(entry.unwrap())).collect();
        assert!(!indexes.is_empty() && indexes.iter().all(|index| index % 2 == turn), "turn {turn}: {indexes:?}");
    }
    let mut indexes: Vec<u64> = net.market().epochs().await.unwrap().iter().map(|epoch| epoch.value.index).collect();
    let votes = indexes.len();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), votes, "one root for each epoch");
    assert!(indexes.iter().any(|index| index % 2 == 0) && indexes.iter().any(|index| index % 2 == 1), "{indexes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_operators_want_the_last_device_and_one_is_refunded() {
    let (net, one, other, hands) = two().await;
    let drafts = [net.draft(&one, 2, 3600).await, net.draft(&other, 2, 3600).await];
    let (client_one, client_other) = (one.client(&net).await, other.client(&net).await);
    let (a, b) = tokio::join!(net.submit(&client_one, &drafts[0], 1), net.submit(&client_other, &drafts[1], 2));
    // One has both devices, or each has one and waits: what is not whole is given back when its time to fill is over.
    until("at most one of them runs", || async {
        let first = one.control().store.job(a.job).await.unwrap().unwrap().now.state;
        let second = other.control().store.job(b.job).await.unwrap().unwrap().now.state;
        let placing = |state| state == JobState::Placing;
        (first == JobState::Running && placing(second)) || (second == JobState::Running && placing(first)) || {
            let orders = [net.order(&drafts[0].order).await, net.order(&drafts[1].order).await];
            orders.iter().flatten().map(|order| order.devices_live).collect::<Vec<_>>() == [1, 1]
        }
    })
    .await;
    let live: u32 = {
        let orders = [net.order(&drafts[0].order).await, net.order(&drafts[1].order).await];
        orders.iter().flatten().map(|order| order.devices_live).sum()
    };
    assert!(live <= 2, "a device is leased twice");
    // Whatever happened, ending what runs lets the other one run to its end, or its renter stops it and is refunded.
    let over = |state: JobState| state.is_final();
    until("both are over", || async {
        net.machines.finish();
        let first = one.control().store.job(a.job).await.unwrap().unwrap().now.state;
        let second = other.control().store.job(b.job).await.unwrap().unwrap().now.state;
        over(first) && over(second)
    })
    .await;
    for draft in &drafts {
        assert!(net.order(&draft.order).await.is_none(), "closed, and what it held refunded");
    }
    let mut paid = 0;
    for hand in &hands {
        paid += earned(&net, hand).await;
    }
    let spent = PURSE - net.balance(net.renters()).await;
    assert!(spent >= paid && spent <= paid + paid / 100 + 10, "spent {spent}, paid {paid}: the difference is the fees");
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
}

/// The second of two operators reaches the chain through a gate.
async fn two_and_a_gate() -> (Net, Operator, Operator, Vec<Hand>, Gate) {
    let (net, one, mut other, hands) = two().await;
    let gate = net.gate().await;
    other.kill().await;
    other.believe(gate.url());
    other.start().await;
    until("workers are linked to it again", || async {
        let offered = other.control().market.snapshot().is_some_and(|view| view.offers.len() == 2);
        offered && hands.iter().all(|hand| other.control().links.is_linked(hand.id()))
    })
    .await;
    (net, one, other, hands, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_seen_of_another_one_s_pods_is_kept_until_their_order_is_gone_for_good() {
    let (net, mut one, other, _hands, gate) = two_and_a_gate().await;
    let draft = net.draft(&one, 1, 3600).await;
    let job = net.submit(&one.client(&net).await, &draft, 1).await.job;
    one.wait_state(job, JobState::Running).await;
    let seen = async || other.control().store.strays_of(&draft.order).await.unwrap();
    until("the other one has their meters", || async { seen().await.iter().any(|stray| stray.usage.is_some()) }).await;

    // While it runs and is not lengthened, nothing is asked about it.
    gate.watch(&draft.order.to_string());
    until("the other one has asked much", || async { gate.asked().0 >= 40 }).await;
    assert_eq!(gate.asked().1, 0, "requests about an order that nothing is due of");

    // Its operator is gone, and for long a node without its accounts shows no order.
    one.kill().await;
    gate.set(Way::Hides);
    for pass_s in [700, 700] {
        net.clock.pass(std::time::Duration::from_secs(pass_s));
        let before = gate.refused();
        until("the other one has looked", || async { gate.refused() >= before + 12 }).await;
        assert!(!seen().await.is_empty(), "an order that stands on the chain is not forgotten");
    }
    gate.set(Way::Open);
    net.clock.pass(std::time::Duration::from_secs(3600));
    until("the order is closed", || async { net.order(&draft.order).await.is_none() }).await;
    let before = gate.asked().0;
    until("its absence is noticed", || async { gate.asked().0 >= before + 40 }).await;
    net.clock.pass(std::time::Duration::from_secs(700));
    until("what was seen is forgotten", || async { seen().await.is_empty() }).await;
}

//! Lengthening an order that runs: its leases follow, whoever brought it to the chain, and the receipt says so.

use atoll_api::client::{Client, ClientError, Sealing};
use atoll_api::http::{ErrorBody, ExtensionState, ExtensionView};
use atoll_chain::market::data::ASK;
use atoll_chain::{Address, Keypair, market};
use atoll_domain::id::JobId;
use atoll_domain::job::JobState;
use atoll_domain::key::PublicKey;
use atoll_interface::layout::Lease;
use base64::Engine as _;

use crate::rig::{new_key, now};
use crate::whole::{Draft, Hand, Net, Operator, PURSE, until};

/// A network with so many machines, all linked to so many operators.
pub(crate) async fn network(hands: u8, operators: u8) -> (Net, Vec<Operator>, Vec<Hand>) {
    let net = Net::start().await;
    let mut all = Vec::new();
    for n in 0..operators {
        all.push(net.operator(n + 1, &format!("{n}/{operators}")).await);
    }
    let mut linked = Vec::new();
    for n in 0..hands {
        let hand = net.hand(n + 1).await;
        all.iter().for_each(|operator| hand.link(operator));
        linked.push(hand);
    }
    until("workers are linked and on offer", || async {
        all.iter().all(|operator| {
            let control = operator.control();
            let offered = control.market.snapshot().is_some_and(|view| view.offers.len() == linked.len());
            offered && linked.iter().all(|hand| control.links.is_linked(hand.id()))
        })
    })
    .await;
    (net, all, linked)
}

pub(crate) async fn running(
    net: &Net,
    operator: &Operator,
    client: &Client,
    devices: u32,
    seconds: u32,
) -> (Draft, JobId) {
    let draft = net.draft(operator, devices, seconds).await;
    let job = net.submit(client, &draft, 1).await.job;
    operator.wait_state(job, JobState::Running).await;
    until("the head knows the command", || async { !net.machines.submissions().is_empty() }).await;
    (draft, job)
}

/// The renter's signed transaction for `seconds` more of an order as it stands now.
pub(crate) async fn signed(net: &Net, order: &PublicKey, seconds: u32) -> Vec<u8> {
    let escrow = net.order(order).await.unwrap().extension(seconds).unwrap();
    let renter = Keypair::from_seed(&net.renter.seed());
    let data = market::data::ExtendOrder { seconds, escrow };
    let source = net.purse(net.renters());
    let extend = market::instruction::extend_order(renter.address(), Address(order.0), source, &data);
    let blockhash = net.rpc.latest_blockhash().await.unwrap().blockhash;
    atoll_chain::sign(&[extend], &renter, &[], &blockhash).unwrap().bytes().to_vec()
}

/// Asks for an extension; `nonce` makes the seal another one.
pub(crate) async fn ask(
    net: &Net,
    client: &Client,
    order: &PublicKey,
    transaction: &[u8],
    key: &str,
    nonce: u8,
) -> Result<ExtensionView, ErrorBody> {
    let seal = Sealing { wallet: &net.renter, now: now(), nonce: [nonce; 16], idempotency_key: key };
    match client.extend(order, transaction, &seal).await {
        Ok(view) => Ok(view),
        Err(ClientError::Refused(body)) => Err(*body),
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn leases(net: &Net, order: &PublicKey) -> Vec<Lease> {
    net.market().leases_of(&Address(order.0)).await.unwrap().into_iter().map(|it| it.value).collect()
}

/// Waits until every lease with devices ends with its order, which ends `seconds` after `before`.
pub(crate) async fn all_follow(net: &Net, order: &PublicKey, before: i64, seconds: u32) {
    until("all leases follow", || async {
        let end = net.order(order).await.unwrap().end;
        end == before + i64::from(seconds) && leases(net, order).await.iter().all(|lease| lease.end == end)
    })
    .await;
}

pub(crate) async fn chain_now(net: &Net) -> i64 {
    net.rpc.clock().await.unwrap().unix_timestamp
}

pub(crate) async fn end_of(net: &Net, order: &PublicKey) -> i64 {
    let mut order = net.order(order).await.unwrap();
    order.ripen(chain_now(net).await);
    order.end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_outlives_its_old_end_is_charged_once_and_its_receipt_says_what_lengthened_it() {
    let (net, mut operators, _hands) = network(2, 1).await;
    let client = operators[0].client(&net).await;
    let (draft, job) = running(&net, &operators[0], &client, 2, 40).await;
    let before = end_of(&net, &draft.order).await;
    let transaction = signed(&net, &draft.order, 600).await;
    let first = ask(&net, &client, &draft.order, &transaction, "longer", 2).await.unwrap();
    assert_eq!((first.added_s, first.order, first.refusals.len()), (600, draft.order, 0));
    // However often it is asked for, it is one extension; under another key it is refused.
    let again = ask(&net, &client, &draft.order, &transaction, "longer", 3).await.unwrap();
    assert_eq!((&again.transaction, again.escrow), (&first.transaction, first.escrow));
    let code = |refused: Result<ExtensionView, ErrorBody>| refused.unwrap_err().code;
    all_follow(&net, &draft.order, before, 600).await;
    let again = || async { ask(&net, &client, &draft.order, &transaction, "longer", 4).await.unwrap() };
    until("it is written down", || async { again().await.state == ExtensionState::Confirmed }).await;
    assert_eq!(code(ask(&net, &client, &draft.order, &transaction, "other", 5).await), "idempotency_key_reused");
    let more = signed(&net, &draft.order, 60).await;
    assert_eq!(code(ask(&net, &client, &draft.order, &more, "longer", 6).await), "idempotency_key_reused");
    assert_eq!(code(ask(&net, &client, &draft.order, &more, "more", 2).await), "replayed_request");

    until("the old end is over", || async { chain_now(&net).await > before + 3 }).await;
    let row = operators[0].control().store.job(job).await.unwrap().unwrap();
    assert_eq!((row.now.state, row.now.attempt, row.now.gone.len()), (JobState::Running, 1, 0));
    assert_eq!(net.machines.running().len(), 2, "its pods run on");
    assert_eq!(client.job(job).await.unwrap().escrow.0, net.order(&draft.order).await.unwrap().escrow_initial);

    // The store is lost: what lengthened the order is known all the same.
    operators[0].kill().await;
    operators[0].lose_store();
    operators[0].start().await;
    operators[0].wait_state(job, JobState::Running).await;
    net.machines.finish();
    operators[0].wait_state(job, JobState::Succeeded).await;
    let receipt = receipt(&operators[0], job).await;
    let extensions = receipt["order"]["extensions"].as_array().unwrap();
    let base64 = base64::engine::general_purpose::STANDARD;
    assert_eq!(extensions.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>(), [base64.encode(&transaction)]);
    let money = |name: &str| receipt["money"][name].as_u64().unwrap();
    assert_eq!(money("refunded"), net.balance(net.renters()).await + money("escrow") - PURSE);
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
}

async fn receipt(operator: &Operator, job: JobId) -> serde_json::Value {
    let text = operator.control().store.receipt(job).await.unwrap().unwrap();
    let sealed: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_str(sealed["body"].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_does_not_lengthen_the_caller_s_own_order_is_refused_and_nothing_is_sent() {
    let (net, operators, hands) = network(1, 1).await;
    let operator = &operators[0];
    let client = operator.client(&net).await;
    let (draft, job) = running(&net, operator, &client, 1, 3600).await;
    let order = &draft.order;
    let before = net.balance(net.renters()).await;
    let good = signed(&net, order, 60).await;
    let refused = async |transaction: &[u8], key: &str, nonce: u8| {
        ask(&net, &client, order, transaction, key, nonce).await.unwrap_err().code
    };
    assert_eq!(refused(b"nothing", "a", 10).await, "bad_extension");
    let renter = Keypair::from_seed(&net.renter.seed());
    let blockhash = net.rpc.latest_blockhash().await.unwrap().blockhash;
    let source = net.purse(net.renters());
    let data = market::data::ExtendOrder { seconds: 60, escrow: 1 };
    let bent = |by: &Keypair, of: Address| {
        let extend = market::instruction::extend_order(by.address(), of, source, &data);
        atoll_chain::sign(&[extend], by, &[], &blockhash).unwrap().bytes().to_vec()
    };
    let stranger = Keypair::from_seed(&[66; 32]);
    assert_eq!(refused(&bent(&renter, Address(order.0)), "b", 11).await, "bad_extension");
    assert_eq!(refused(&bent(&renter, Address([9; 32])), "c", 12).await, "bad_extension");
    assert_eq!(refused(&bent(&stranger, Address(order.0)), "d", 13).await, "bad_extension");
    let missing = PublicKey([9; 32]);
    assert_eq!(ask(&net, &client, &missing, &good, "e", 14).await.unwrap_err().code, "not_found");
    // Another user's order is as if it were not there, also for one who has the renter's transaction.
    let wallet = atoll_domain::key::SecretKey::from_seed(&[66; 32]);
    let key = new_key(operator.control(), "stranger", wallet.public()).await;
    let ca = std::fs::read(operator.state.join("tls/cert.pem")).unwrap();
    let theirs =
        Client::new(&format!("https://{}", operator.address.lock().unwrap().unwrap()), &ca, Some(key)).unwrap();
    let seal = |wallet| Sealing { wallet, now: now(), nonce: [15; 16], idempotency_key: "f" };
    assert_eq!(theirs.extend(order, &good, &seal(&wallet)).await.unwrap_err().code(), Some("not_found"));
    assert_eq!(theirs.extend(order, &good, &seal(&net.renter)).await.unwrap_err().code(), Some("wrong_wallet"));
    // Its one worker asks more by now: nothing would be gained.
    net.set_ask(&hands[0], 1, 60_000, ASK).await;
    let nobody = ask(&net, &client, order, &good, "g", 16).await.unwrap_err();
    assert_eq!((nobody.code.as_str(), nobody.refusals[0].worker), ("cannot_be_extended", hands[0].id()));
    assert!(nobody.refusals[0].reason.contains("asks more"), "{nobody:?}");
    assert_eq!(net.balance(net.renters()).await, before, "something was charged");
    assert!(
        operator.control().store.chain_txs_pending().await.unwrap().iter().all(|row| !row.key.starts_with("extend"))
    );
    net.machines.finish();
    operator.wait_state(job, JobState::Succeeded).await;
    let over = ask(&net, &client, order, &good, "h", 17).await.unwrap_err();
    assert_eq!(over.code, "not_found", "a closed order is nobody's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_that_cannot_go_along_is_said_and_its_device_is_filled_again_at_its_end() {
    let (net, operators, hands) = network(3, 1).await;
    let operator = &operators[0];
    let client = operator.client(&net).await;
    let (draft, job) = running(&net, operator, &client, 2, 40).await;
    let before = end_of(&net, &draft.order).await;
    let pods = operator.control().store.pods_of(job).await.unwrap();
    let dearer = hands.iter().position(|hand| pods.iter().any(|pod| pod.worker == hand.id())).unwrap();
    net.set_ask(&hands[dearer], u8::try_from(dearer + 1).unwrap(), 60_000, ASK).await;
    let transaction = signed(&net, &draft.order, 600).await;
    let taken = ask(&net, &client, &draft.order, &transaction, "longer", 2).await.unwrap();
    assert_eq!(taken.refusals.iter().map(|refused| refused.worker).collect::<Vec<_>>(), [hands[dearer].id()]);
    let behind = operator.wait("who stays behind is said", job, |row| row.now.left_behind.len() == 1).await;
    assert!(behind.now.left_behind.values().all(|why| why.contains("asks more")), "{:?}", behind.now.left_behind);
    let filled = operator
        .wait("the device is filled again", job, |row| row.now.state == JobState::Running && row.now.gone.len() == 1)
        .await;
    assert!(chain_now(&net).await >= before, "it was taken before its lease was over");
    let pods = operator.control().store.pods_of(job).await.unwrap();
    let live: Vec<_> = pods.iter().filter(|pod| !pod.state.is_over()).collect();
    assert!(live.len() == 2 && live.iter().all(|pod| pod.worker != hands[dearer].id()), "{live:?}");
    let slot = net.slot(&hands[dearer]).await;
    assert_eq!(slot.flags & atoll_interface::layout::SLOT_SUSPENDED, 0, "its worker is at no fault");
    // The job is running before its head knows the next attempt's command.
    let is_known =
        |(pod, name, _): &(_, String, _)| Some(*pod) == filled.now.head && Some(name) == filled.now.submission.as_ref();
    until("the head knows the command", || async { net.machines.submissions().iter().any(is_known) }).await;
    net.machines.finish();
    operator.wait_state(job, JobState::Succeeded).await;
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_lengthen_an_order_once() {
    let (net, operators, hands) = network(1, 1).await;
    let first = &operators[0];
    let second = first.beside().await;
    until("the other node works", || async { second.control().links.is_linked(hands[0].id()) }).await;
    let client = first.client(&net).await;
    let (draft, job) = running(&net, first, &client, 1, 3600).await;
    let before = end_of(&net, &draft.order).await;
    let transaction = signed(&net, &draft.order, 60).await;
    let key = new_key(first.control(), "renter", net.renter.public()).await;
    let ca = std::fs::read(first.state.join("tls/cert.pem")).unwrap();
    let at = format!("https://{}", second.address.lock().unwrap().unwrap());
    let other = Client::new(&at, &ca, Some(key)).unwrap();
    let (a, b) = tokio::join!(
        ask(&net, &client, &draft.order, &transaction, "longer", 2),
        ask(&net, &other, &draft.order, &transaction, "longer", 3)
    );
    assert_eq!(a.unwrap().transaction, b.unwrap().transaction);
    all_follow(&net, &draft.order, before, 60).await;
    assert_eq!(net.order(&draft.order).await.unwrap().extended_s, 60);
    first.wait("it is noted once", job, |row| row.now.extensions.len() == 1).await;
    net.machines.finish();
    first.wait_state(job, JobState::Succeeded).await;
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_whose_operator_is_gone_is_lengthened_through_the_other_one_and_settled_by_it() {
    let (net, mut operators, hands) = network(2, 2).await;
    let (mut other, mut one) = (operators.pop().unwrap(), operators.pop().unwrap());
    let client = one.client(&net).await;
    let (draft, _) = running(&net, &one, &client, 2, 35).await;
    let seen = async || other.control().store.strays_of(&draft.order).await.unwrap();
    until("the other one has their meters", || async {
        let strays = seen().await;
        strays.len() == 2 && strays.iter().all(|stray| stray.usage.is_some())
    })
    .await;
    one.kill().await;
    let before = end_of(&net, &draft.order).await;
    let theirs = other.client(&net).await;
    let transaction = signed(&net, &draft.order, 60).await;
    let taken = ask(&net, &theirs, &draft.order, &transaction, "longer", 2).await.unwrap();
    assert_eq!(taken.added_s, 60);
    all_follow(&net, &draft.order, before, 60).await;
    let escrow = net.order(&draft.order).await.unwrap().escrow_initial;
    // Another node of it than the one that was asked goes on as well.
    other.kill().await;
    other.start().await;
    until("the old end is over", || async { chain_now(&net).await > before + 3 }).await;
    assert_eq!(net.machines.running().len(), 2, "pods run on without their operator");
    until("most of the added time is over", || async { chain_now(&net).await > before + 40 }).await;
    until("the order is closed", || async { net.order(&draft.order).await.is_none() }).await;
    assert!(net.machines.running().is_empty(), "pods ended with their leases");
    let rate = 50_000 * 1_000_000_000 / 250_000 / 3600;
    let mut paid = 0;
    for hand in &hands {
        let earned = net.balance(hand.supplier).await + 200_000_000_000 - PURSE;
        assert!(earned > rate * 35, "{earned} is paid: more than the old length could give");
        assert!(earned <= rate * (hand.served_s() + 1), "{earned} is paid for {} s", hand.served_s());
        paid += earned;
    }
    let spent = PURSE - net.balance(net.renters()).await;
    assert!(spent >= paid && spent <= escrow && spent <= paid + paid / 100 + 10, "spent {spent}, paid {paid}");
    assert_eq!(net.tokens_everywhere().await, net.supply().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_that_its_renter_lengthened_alone_is_followed_by_whoever_is_there() {
    let (net, mut operators, _hands) = network(1, 2).await;
    let (other, mut one) = (operators.pop().unwrap(), operators.pop().unwrap());
    let client = one.client(&net).await;
    let (draft, job) = running(&net, &one, &client, 1, 80).await;
    let start = end_of(&net, &draft.order).await;
    // Past every operator: its own one sees it on the chain.
    let send = async |transaction: Vec<u8>| {
        let transaction = atoll_chain::SignedTransaction::from_bytes(transaction).unwrap();
        let height = net.rpc.block_height().await.unwrap() + 100;
        net.rpc.send(&transaction).await.unwrap();
        net.rpc.confirm(&transaction, height, std::time::Duration::from_secs(20)).await.unwrap();
    };
    send(signed(&net, &draft.order, 15).await).await;
    all_follow(&net, &draft.order, start, 15).await;
    let noted = one.wait("it is noted", job, |row| row.now.extensions.len() == 1).await;
    assert_eq!((noted.now.extensions[0].seconds, noted.now.terms.unwrap().escrow > noted.escrow), (15, true));
    // Its own one is gone, and nobody asked the other: it sees a lease about to end.
    one.kill().await;
    // Another length: the same one under the same blockhash would be the very transaction that has landed.
    send(signed(&net, &draft.order, 16).await).await;
    all_follow(&net, &draft.order, start, 31).await;
    assert!(chain_now(&net).await >= start + 15 - 60, "it did not leave the order's own operator its time");
    assert!(other.control().store.job(job).await.unwrap().is_none());
    assert_eq!(net.machines.running().len(), 1, "the pod runs on");
}

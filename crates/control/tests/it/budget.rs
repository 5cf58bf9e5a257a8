//! Jobs that a session key orders, without its wallet: within its limits they run as any other, and their refund goes back
//! to the key's vault; beyond them nothing is left behind, and which limit was hit is said.

use std::time::Duration;

use atoll_api::client::{ClientError, Sealing};
use atoll_api::http::ErrorBody;
use atoll_api::receipt::Receipt;
use atoll_domain::job::JobState;
use atoll_domain::key::SecretKey;
use atoll_domain::money::Atl;
use atoll_interface::arithmetic::rate;
use atoll_interface::settlement::worst_case;

use crate::whole::{Case, Draft, Net, Operator, PURSE, session, until};

const ATL: u64 = 1_000_000_000;

/// What so many minutes of one device escrow at the tests' price cap and feed, with the fee.
fn minutes(count: u32) -> u64 {
    worst_case(rate(100_000, 250_000).unwrap(), 1, count * 60, 25).unwrap()
}

async fn network() -> (Net, Operator, crate::whole::Hand) {
    let net = Net::start().await;
    let operator = net.operator(1, "0/1").await;
    let hand = net.hand(1).await;
    hand.link(&operator);
    Case::linked(&operator, std::slice::from_ref(&hand)).await;
    (net, operator, hand)
}

async fn by_key(net: &Net, operator: &Operator, seconds: u32) -> Draft {
    net.draft_of(60, operator, 1, seconds, |spec| spec.budget = Some(session().public())).await
}

async fn refused(net: &Net, operator: &Operator, draft: &Draft, try_no: u8) -> ErrorBody {
    match net.try_submit(&operator.client(net).await, draft, try_no).await {
        Err(ClientError::Refused(body)) => *body,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_keys_job_runs_without_the_wallet_and_is_refunded_to_its_vault() {
    let (net, operator, hand) = network().await;
    net.make_budget(minutes(60), minutes(60), ATL).await;
    let draft = by_key(&net, &operator, 3600).await;
    let case = Case::submitted(net, operator, vec![hand], draft).await;
    case.runs().await;
    let net = &case.net;
    let escrowed = net.order(&case.draft.order).await.unwrap();
    assert_eq!((escrowed.renter, net.budget_holds().await), (net.renters().0, ATL - escrowed.escrow_initial));

    // A stranger with the user's API key stops nothing; the key that ordered does.
    let client = case.operator.client(net).await;
    let seal = |wallet, nonce| Sealing { wallet, now: net.clock.time(), nonce, idempotency_key: "stop" };
    let stranger = SecretKey::from_seed(&[99; 32]);
    let Err(ClientError::Refused(no)) = client.stop(case.job, &seal(&stranger, [1; 16])).await else {
        panic!("stopped")
    };
    assert_eq!(no.code, "wrong_wallet");
    client.stop(case.job, &seal(&session(), [2; 16])).await.unwrap();
    case.operator.wait_state(case.job, JobState::Stopped).await;
    let receipt: Receipt = serde_json::from_value(client.receipt(case.job).await.unwrap()).unwrap();
    let money = receipt.open().unwrap().money;
    until("the order is closed", || async { net.order(&case.draft.order).await.is_none() }).await;
    assert_eq!(net.budget_holds().await, ATL - money.escrow.0 + money.refunded.0, "the refund is in the vault");
    assert_eq!(net.balance(net.renters()).await, PURSE - ATL, "and none of it in the wallet");
    assert_eq!(net.tokens_everywhere().await, net.supply().await, "no token is nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn which_limit_of_a_session_key_is_hit_is_said_and_nothing_is_left_behind() {
    let (net, operator, _hand) = network().await;
    // Before the wallet made it one, it is nobody's.
    let unknown = refused(&net, &operator, &by_key(&net, &operator, 60).await, 1).await;
    assert_eq!(unknown.code, "budget_refused");
    assert!(unknown.message.contains("atoll budget create"), "{}", unknown.message);

    if 86_400_000 - net.clock.time().0 % 86_400_000 < 600_000 {
        // All of this is of one day.
        net.clock.pass(Duration::from_secs(900));
    }
    net.make_budget(minutes(2), minutes(3), ATL).await;
    let dear = refused(&net, &operator, &by_key(&net, &operator, 180).await, 2).await;
    assert_eq!(dear.code, "budget_refused");
    assert!(dear.message.contains(&format!("may escrow at most {}", Atl(minutes(2)))), "{}", dear.message);

    // Two minutes of the three for today are on the chain: two more are too many.
    let first = by_key(&net, &operator, 120).await;
    let job = net.submit(&operator.client(&net).await, &first, 3).await.job;
    until("the order stands", || async { net.order(&first.order).await.is_some() }).await;
    let late = refused(&net, &operator, &by_key(&net, &operator, 120).await, 4).await;
    assert_eq!(late.code, "budget_refused");
    assert!(late.message.contains("left for today (UTC)"), "{}", late.message);
    let jobs = operator.client(&net).await.jobs().await.unwrap();
    assert_eq!(jobs.iter().map(|one| one.job).collect::<Vec<_>>(), [job], "a refused one was left behind");

    // With money in its limits and none in its vault, that is said too.
    net.make_budget(100 * ATL, 100 * ATL, 0).await;
    let poor = refused(&net, &operator, &by_key(&net, &operator, 360_000).await, 5).await;
    assert_eq!(poor.code, "insufficient_funds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_session_key_orders_is_sealed_by_it_or_by_its_wallet() {
    let (net, operator, _hand) = network().await;
    net.make_budget(ATL, ATL, ATL).await;
    let draft = by_key(&net, &operator, 60).await.sealed_by(SecretKey::from_seed(&[99; 32]));
    assert_eq!(refused(&net, &operator, &draft, 1).await.code, "wrong_wallet");
    let draft = draft.sealed_by(SecretKey::from_seed(&net.renter.seed()));
    net.submit(&operator.client(&net).await, &draft, 2).await;
}

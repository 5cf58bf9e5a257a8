//! Two nodes over one store, a node that dies again and again, and a node behind whose URL is another chain.

use std::sync::Arc;

use atoll_api::client::{Client, Sealing};
use atoll_api::http::ExtensionState;
use atoll_chain::Address;
use atoll_chain::local::{LocalChainConfig, serve};
use atoll_domain::job::JobState;
use atoll_domain::key::PublicKey;

use crate::dying::Lives;
use crate::extend;
use crate::whole::{Draft, Hand, Net, Operator, until};

async fn linked(operator: &Operator, hands: &[Hand]) {
    until("workers are linked and on offer", || async {
        let control = operator.control();
        let offered = control.market.snapshot().is_some_and(|view| view.offers.len() == hands.len());
        offered && hands.iter().all(|hand| control.links.is_linked(hand.id()))
    })
    .await;
}

/// A job of one device that runs.
async fn running(net: &Net, operator: &Operator, client: &Client) -> (Draft, atoll_domain::id::JobId) {
    let draft = net.draft(operator, 1, 3600).await;
    let job = net.submit(client, &draft, 1).await.job;
    operator.wait_state(job, JobState::Running).await;
    until("the head knows the command", || async { !net.machines.submissions().is_empty() }).await;
    (draft, job)
}

/// Every token is somewhere, and the order is closed.
async fn check_books(net: &Net, order: &PublicKey) {
    assert!(net.order(order).await.is_none(), "the order is closed");
    assert_eq!(net.tokens_everywhere().await, net.supply().await, "no token is nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_dies_and_its_worker_and_its_client_go_on_at_the_other() {
    let net = Net::start().await;
    let mut first = net.operator(1, "0/1").await;
    let hands = [net.hand(1).await];
    hands[0].link(&first);
    linked(&first, &hands).await;
    let second = first.beside().await;
    linked(&second, &hands).await;
    assert!(!second.control().links.is_here(hands[0].id()), "the link is the first node's");
    let key = crate::rig::new_key(first.control(), "renter", net.renter.public()).await;
    let ca = std::fs::read(first.state.join("tls/cert.pem")).unwrap();
    let at = |node: &Operator| format!("https://{}", node.address.lock().unwrap().unwrap());
    let client = Client::new(&format!("{},{}", at(&first), at(&second)), &ca, Some(key.clone())).unwrap();
    let (draft, job) = running(&net, &first, &client).await;
    let pods = second.control().store.pods_of(job).await.unwrap();

    // What needs the link is passed on by the node that does not have it; the caller is checked there.
    let cluster = client.job(job).await.unwrap().cluster;
    let certificate = reqwest::Certificate::from_pem(&ca).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap();
    let path = format!("{}/v1/clusters/{cluster}/ray/api/jobs/{job}-1", at(&second));
    let answer = http.get(&path).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("RUNNING"));
    let passed = http.get(&path).bearer_auth(&key).header("atoll-passed-on", "1").send().await.unwrap();
    assert_eq!(passed.status(), 502, "what was passed on once is not passed on again");
    assert_eq!(http.get(&path).bearer_auth("atoll_x").send().await.unwrap().status(), 401);

    let theirs = *second.address.lock().unwrap();
    let place = Arc::clone(&first.address);
    first.kill().await;
    *place.lock().unwrap() = theirs;
    assert_eq!(client.job(job).await.unwrap().state, JobState::Running, "the other node answers");
    until("the worker is at the other node", || async { second.control().links.is_here(hands[0].id()) }).await;
    // Longer than a worker is waited for: nobody gives the pod up.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let row = second.wait("the job is the second node's", job, |row| row.now.state == JobState::Running).await;
    assert_eq!((row.now.attempt, row.now.fence), (1, 1));
    let now = second.control().store.pods_of(job).await.unwrap();
    assert_eq!(now.iter().map(|pod| pod.id).collect::<Vec<_>>(), pods.iter().map(|pod| pod.id).collect::<Vec<_>>());
    net.machines.finish();
    second.wait_state(job, JobState::Succeeded).await;
    check_books(&net, &draft.order).await;
}

/// Asks for a minute more, life after life the same, until the job's lease has it. Signs anew only what the chain can no
/// longer take.
async fn lengthen(net: &Net, operator: &Operator, order: &PublicKey, signed: &mut Option<Vec<u8>>) {
    let mut nonce = [0; 16];
    loop {
        let Some(now) = net.order(order).await else { return };
        let leases = net.market().leases_of(&Address(order.0)).await.unwrap();
        if now.extended_s > 0 && leases.iter().all(|lease| lease.value.end == now.end) {
            return;
        }
        if now.extended_s == 0 {
            let transaction = match signed {
                Some(transaction) => transaction,
                None => signed.insert(extend::signed(net, order, 60).await),
            };
            getrandom::fill(&mut nonce).unwrap();
            let seal = Sealing { wallet: &net.renter, now: crate::rig::now(), nonce, idempotency_key: "longer" };
            if let Ok(view) = operator.client(net).await.extend(order, transaction, &seal).await
                && matches!(view.state, ExtensionState::Failed | ExtensionState::Expired)
            {
                *signed = None;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_dies_of_its_writes_again_and_again_loses_nothing_and_pays_nothing_twice() {
    let net = Net::start().await;
    let mut operator = net.operator(1, "0/1").await;
    let hands = [net.hand(1).await];
    hands[0].link(&operator);
    linked(&operator, &hands).await;
    let client = operator.client(&net).await;
    let draft = net.draft(&operator, 1, 3600).await;
    let job = net.submit(&client, &draft, 1).await.job;
    operator.kill().await;
    let life = Arc::new(Lives::default());
    operator.around = life.around();
    let mut lives = 0;
    let mut finished = false;
    let mut longer: Option<Vec<u8>> = None;
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(150);
    loop {
        lives += 1;
        // Four lives of one write, four of two, and so on: whatever the last one had begun, this one goes on with and dies
        // of a little later.
        life.for_writes(1 + lives / 4);
        operator.start().await;
        tokio::select! {
            () = life.over() => {}
            () = operator.wait_state(job, JobState::Succeeded) => break,
            () = async {
                operator.wait_state(job, JobState::Running).await;
                crate::whole::until("the head knows the command", || async { !net.machines.submissions().is_empty() }).await;
                lengthen(&net, &operator, &draft.order, &mut longer).await;
                if !finished {
                    net.machines.finish();
                }
                std::future::pending::<()>().await;
            } => {}
        }
        finished |= net.machines.submissions().iter().any(|(_, _, state)| *state == "SUCCEEDED");
        operator.kill().await;
        assert!(tokio::time::Instant::now() < until, "not over after {lives} lives");
    }
    println!("{lives} lives");
    let row = operator.control().store.job(job).await.unwrap().unwrap();
    assert_eq!((row.now.attempt, row.now.fence), (1, 1), "the command was started once");
    assert_eq!(net.machines.submissions().len(), 1);
    assert_eq!(row.now.extensions.iter().map(|one| one.seconds).collect::<Vec<_>>(), [60], "it was lengthened once");
    check_books(&net, &draft.order).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_behind_whose_url_is_another_chain_does_nothing_and_says_so() {
    let net = Net::start().await;
    let mut operator = net.operator(1, "0/1").await;
    let hands = [net.hand(1).await];
    hands[0].link(&operator);
    linked(&operator, &hands).await;
    let (draft, job) = running(&net, &operator, &operator.client(&net).await).await;
    operator.kill().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = LocalChainConfig::new(folder.path().join("chain"), [8; 32]);
    config.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let other = serve(config).await.unwrap();
    let right = operator.believe(&other.url());
    operator.start().await;
    until("the node refuses the chain", || async { operator.control().market.refusal().is_some() }).await;
    let ca = std::fs::read(operator.state.join("tls/cert.pem")).unwrap();
    let certificate = reqwest::Certificate::from_pem(&ca).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap();
    let at = operator.address.lock().unwrap().unwrap();
    let ready = http.get(format!("https://{at}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("set `rpc` to a node of that cluster"));
    // On that chain the order is missing and the worker is nobody's: for long enough to have acted on either.
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    let row = operator.control().store.job(job).await.unwrap().unwrap();
    assert_eq!((row.now.state, row.now.attempt, row.now.gone.len()), (JobState::Running, 1, 0));
    operator.kill().await;
    operator.believe(&right);
    operator.start().await;
    until("the worker is back", || async { operator.control().links.is_here(hands[0].id()) }).await;
    net.machines.finish();
    operator.wait_state(job, JobState::Succeeded).await;
    check_books(&net, &draft.order).await;
}

//! `atoll job extend` on a running job: it outlives its old end, in the same pod, and the receipt shows why.

use atoll_chain::Address;
use atoll_cli::chain::Chain;
use atoll_cli::extend::PendingExtension;
use atoll_cli::pending::Slot;
use atoll_cli::profile::Home;
use atoll_cli::session::Wallet;
use atoll_domain::key::PublicKey;
use serde_json::Value;

use crate::job::Job;
use crate::network::{Network, until};

pub(crate) fn a_job_that_was_given_more_time_outlives_its_old_end(network: &Network) {
    let before = network.balances();
    let flags = ["--entry", "python idle.py", "--devices", "1", "--max-hours", "0.018"];
    let job = Job::submit(network, &flags);
    job.until(network, "its output", |_| job.output(network).windows(6).any(|part| part == b"idling").then_some(()));
    let then = job.show(network);
    let order = then["order"].as_str().unwrap();
    let old_end = end_of(network, order);

    // A run that was cut off after it had signed: the next one sends the same, and one more finds that it landed.
    let (slot, pending) = signed(network, order);
    let extend = || {
        slot.keep(&pending).unwrap();
        network.json(&["job", "extend", &job.id, "--hours", "0.5", "--yes"])
    };
    let told = extend();
    assert_eq!(extend(), told, "it was lengthened twice");
    assert_eq!(slot.load().unwrap(), None);
    let name = pending.signed().unwrap().signature().to_string();
    assert_eq!(told["transaction"].as_str(), Some(name.as_str()));
    assert_eq!((told["added_s"].as_u64(), told["refusals"].as_array().map(Vec::len)), (Some(1800), Some(0)), "{told}");
    assert_eq!(told["ends"].as_u64(), u64::try_from((old_end + 1800) * 1000).ok());
    let escrow = job.show(network)["escrow"].as_u64().unwrap();
    assert_eq!(escrow, then["escrow"].as_u64().unwrap() + told["escrow"].as_u64().unwrap());
    let poorer = before.renter - network.balances().renter;
    assert_eq!(poorer, escrow, "another sum than was told left the wallet");

    // A supervisor that had not heard of it would end the pod thirty seconds after the old end.
    until("the old end and its grace are over", || (now(network) > old_end + 32).then_some(()));
    let still = job.show(network);
    assert_eq!((&still["state"], &still["attempt"]), (&Value::from("running"), &Value::from(1)), "{still}");
    assert_eq!(still["pods"][0]["pod"], then["pods"][0]["pod"]);

    network.json(&["job", "stop", &job.id]);
    job.until(network, "its end", |now| (now["state"] == "stopped").then_some(()));
    assert!(network.balances().conserved_since(&before) > 0);
    let receipt = network.folder.join("extended.json");
    let receipt = receipt.to_str().unwrap();
    network.json(&["receipt", "show", &job.id, "--output", receipt]);
    let root = network.told.network_root.as_str();
    let verified = network.json(&["receipt", "verify", receipt, "--network-root", root]);
    assert!(verified.to_string().contains("1 extension(s)"), "{verified}");
}

/// What `atoll job extend --hours 0.5` keeps before it sends anything.
fn signed(network: &Network, order: &str) -> (Slot<PendingExtension>, PendingExtension) {
    let (home, profile) = (Home::at(network.home()), network.profile());
    let wallet = Wallet::load(&profile.wallet).unwrap();
    let order: PublicKey = order.parse().unwrap();
    let slot = Slot::of_extension(&home, &profile, wallet.key.public(), &order);
    let chain = Chain::new(&profile.rpc).unwrap();
    let sign = async {
        let found = network.chain.order(&Address(order.0)).await.unwrap().unwrap().value;
        let escrow = found.extension(1800).unwrap();
        let mint = network.told.mint.parse().unwrap();
        let (transaction, last_valid_height) = chain.sign_extension(&wallet, &order, mint, 1800, escrow).await.unwrap();
        PendingExtension::new("extend-cut-off".into(), 1800, escrow, &transaction, last_valid_height)
    };
    (slot, network.runtime.block_on(sign))
}

fn now(network: &Network) -> i64 {
    network.runtime.block_on(network.chain.rpc().clock()).unwrap().unix_timestamp
}

fn end_of(network: &Network, order: &str) -> i64 {
    let order: Address = order.parse().unwrap();
    let mut order = network.runtime.block_on(network.chain.order(&order)).unwrap().unwrap().value;
    order.ripen(now(network));
    order.end
}

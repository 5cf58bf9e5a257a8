//! What people do on the chain itself, by the binary alone: a supplier's stake goes in and, fourteen days later, out again;
//! a session key orders without its wallet until it hits its limits; orders are lengthened and closed with no operator.

use std::path::{Path, PathBuf};

use atoll_chain::market::{address, instruction};
use atoll_chain::{Address, Keypair, spl};
use atoll_cli::market::act::Kept;
use atoll_cli::pending::Slot;
use atoll_cli::profile::{Home, Profile};
use atoll_domain::key::PublicKey;
use serde_json::Value;

use crate::job::{self, Job};
use crate::network::{Network, address_of, text, until};

const ATL: u64 = 1_000_000_000;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

fn supplier(network: &Network) -> PathBuf {
    network.folder.join("wallets/supplier-1.json")
}

fn stake(network: &Network, verb: &[&str]) -> Vec<String> {
    let wallet = supplier(network);
    let all = [&["stake"], verb, &["--wallet", wallet.to_str().unwrap()]].concat();
    all.into_iter().map(str::to_owned).collect()
}

fn run(network: &Network, arguments: &[String]) -> Value {
    network.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs a command that must fail with these words on stderr and nothing on stdout.
fn refused(network: &Network, home: &Path, arguments: &[&str], status: i32, words: &[&str]) {
    let output = network.atoll(home, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    words.iter().for_each(|word| assert!(said.contains(word), "{arguments:?} does not say `{word}`: {said}"));
}

pub(crate) fn stake_goes_in_once_and_out_after_its_time(network: &Network) {
    let before = network.balances();
    let shown = || run(network, &stake(network, &["show"]));
    let amounts = |now: &Value| ["own", "required", "free", "unbonding"].map(|name| now[name].as_u64().unwrap());
    let start = shown();
    let [own, required, free, _] = amounts(&start);
    assert_eq!((own, required, free), (200 * ATL, 200 * ATL, 0), "{start}");

    // Nobody can be asked in a script: without --yes nothing is signed, and the transaction is shown all the same.
    let add = stake(network, &["add", "100"]);
    let add: Vec<&str> = add.iter().map(String::as_str).collect();
    let words = ["adds 100.000000000 ATL to your own stake", "add --yes", "nothing was sent"];
    refused(network, &network.home(), &add, USAGE, &words);
    refused(network, &network.home(), &[&add[..], &["--yes", "--wallet", "/nowhere"]].concat(), USAGE, &["--wallet"]);
    let too_much = stake(network, &["add", "100000", "--yes"]);
    let too_much: Vec<&str> = too_much.iter().map(String::as_str).collect();
    refused(network, &network.home(), &too_much, REFUSED, &["holds 800.", "nothing was signed"]);

    // A run that was cut off after it had signed: the next one sends the same, and one more finds that it landed.
    let (slot, kept) = signed(network, 100 * ATL);
    let yes: Vec<String> = stake(network, &["add", "100", "--yes"]);
    let add_kept = || {
        slot.keep(&kept).unwrap();
        run(network, &yes)
    };
    let told = add_kept();
    assert_eq!(add_kept(), told, "it was done twice");
    assert_eq!(slot.load().unwrap(), None);
    assert_eq!(amounts(&shown()), [300 * ATL, 200 * ATL, 100 * ATL, 0]);

    // What one node's trial run refuses stays kept: it is the same transaction until the chain can take it no more.
    let (slot, kept) = signed(network, 50_000 * ATL);
    slot.keep(&kept).unwrap();
    let refused_by_node = stake(network, &["add", "50000", "--yes"]);
    let refused_by_node: Vec<&str> = refused_by_node.iter().map(String::as_str).collect();
    refused(network, &network.home(), &refused_by_node, REFUSED, &["the node did not pass it on"]);
    assert_eq!(slot.load().unwrap(), Some(kept));

    let request = stake(network, &["request", "100.000000001", "--yes"]);
    let request: Vec<&str> = request.iter().map(String::as_str).collect();
    refused(network, &network.home(), &request, REFUSED, &["are not free", "200.000000000 ATL are required"]);
    let asked = run(network, &stake(network, &["request", "100", "--yes"]));
    assert!(asked["did"].to_string().contains("it may leave 14 d 0 h later"), "{asked}");
    assert_eq!(amounts(&shown()), [200 * ATL, 200 * ATL, 0, 100 * ATL]);
    let withdraw = stake(network, &["withdraw", "--yes"]);
    let words: Vec<&str> = withdraw.iter().map(String::as_str).collect();
    refused(network, &network.home(), &words, REFUSED, &["may leave", "nothing was signed", "try again then"]);

    let state = network.folder.to_str().unwrap();
    let moved = network.json(&["dev", "warp", "14d", "--state", state]);
    assert_eq!(moved["moved_s"], 14 * 86_400);
    let paid = run(network, &withdraw);
    assert!(paid["did"].to_string().contains("100.000000000 ATL come back to your wallet"), "{paid}");
    assert_eq!(amounts(&shown()), [200 * ATL, 200 * ATL, 0, 0]);
    assert_eq!(network.balances().suppliers, before.suppliers, "all of it came back");
    refused(network, &network.home(), &words, REFUSED, &["no stake is on its way out"]);
}

/// What `atoll stake add` keeps before it sends anything.
fn signed(network: &Network, amount: u64) -> (Slot<Kept>, Kept) {
    let (home, profile) = (Home::at(network.home()), network.profile());
    let wallet = Keypair::load(&supplier(network)).unwrap();
    let supplier = wallet.address();
    let slot = Slot::of_act(&home, &profile, PublicKey(supplier.0), &format!("stake add {amount}"));
    let mint: Address = network.told.mint.parse().unwrap();
    let add = instruction::stake(supplier, spl::associated_token_address(&supplier, &mint), mint, amount);
    let latest = network.runtime.block_on(network.chain.rpc().latest_blockhash()).unwrap();
    let signed = atoll_chain::sign(&[add], &wallet, &[], &latest.blockhash).unwrap();
    let transaction = signed.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    (slot, Kept { transaction, last_valid_height: latest.last_valid_block_height, says: vec!["as shown".into()] })
}

pub(crate) fn a_session_key_orders_without_its_wallet_until_it_hits_its_limits(network: &Network) {
    let before = network.balances();
    let now = network.runtime.block_on(network.chain.rpc().clock()).unwrap().unix_timestamp;
    if 86_400 - now % 86_400 < 1_800 {
        // All of this story is of one day.
        network.json(&["dev", "warp", "30m", "--state", network.folder.to_str().unwrap()]);
    }
    let key = network.folder.join("agent.json");
    let file = key.to_str().unwrap();
    let limits = ["--order-max", "1", "--day-max", "1.5", "--for", "30d", "--deposit", "5", "--yes"];
    let made = network.json(&[&["budget", "create", file][..], &limits].concat());
    assert!(made["did"].to_string().contains("at most 1.000000000 ATL at once"), "{made}");
    assert_eq!(network.balances().renter, before.renter - 5 * ATL);

    // An agent has the key and the API key, and no wallet.
    let home = network.folder.join("homes/agent");
    Home::at(&home).save(&Profile { wallet: "/nowhere/wallet.json".into(), ..network.profile() }).unwrap();
    let folder = job::folder(&network.folder);
    let submit = ["job", "submit", folder.to_str().unwrap(), "--yes", "--detach", "--budget", file];
    let flags = ["--entry", "python idle.py", "--devices", "1"];
    let hours = |hours| [&submit[..], &flags, &["--max-hours", hours]].concat();
    let words = ["may escrow at most 1.000000000 ATL", "atoll budget create", "nothing was charged"];
    refused(network, &home, &hours("2"), REFUSED, &words);
    assert_eq!(network.orders_of(&network.told.renter_wallet), 0);

    // 0.20 USD/h at 0.25 USD an ATL: an hour escrows 0.802 ATL, and today has 1.5.
    let accepted = network.atoll(&home, &[&hours("1")[..], &["--json"]].concat());
    assert!(accepted.status.success(), "{}", text(&accepted.stderr));
    let accepted: Value = serde_json::from_slice(&accepted.stdout).unwrap();
    let job = Job::known(&accepted);
    job.until(network, "its output", |_| job.output(network).windows(6).any(|part| part == b"idling").then_some(()));

    // The chain shows it, with no operator asked; and the wallet, whose order it is, lengthens it alone.
    let orders = network.json(&["order", "list"]);
    let order = orders[0]["order"].as_str().unwrap();
    assert_eq!((orders.as_array().unwrap().len(), &orders[0]["state"]), (1, &Value::from("active")), "{orders}");
    let agent: Address = address_of(&key).parse().unwrap();
    let renter: Address = network.told.renter_wallet.parse().unwrap();
    let vault = address::budget_vault(&address::budget(&renter, &agent)).to_string();
    assert_eq!(orders[0]["budget"].as_str(), Some(vault.as_str()));
    let ends = |shown: &Value| shown["ends"].as_u64().unwrap();
    let longer = network.json(&["order", "extend", order, "--for", "1h", "--yes"]);
    assert!(longer["did"].to_string().contains("lengthens the order"), "{longer}");
    let shown = network.json(&["order", "show", order]);
    assert_eq!(ends(&shown), ends(&orders[0]) + 3_600_000);
    assert_eq!(shown["leases"][0]["devices_live"], 1, "{shown}");
    let asks = network.json(&["market", "asks", "--model", "cpu"]);
    assert_eq!(asks.as_array().unwrap().len(), 0, "the one device is leased: {asks}");
    let fleets = network.json(&["market", "fleets"]);
    assert_eq!((&fleets[0]["devices"], &fleets[0]["leased"]), (&Value::from(1), &Value::from(1)), "{fleets}");
    refused(
        network,
        &network.home(),
        &["order", "close", order, "--yes"],
        REFUSED,
        &["1 lease(s) of it are not closed"],
    );

    // The key stops what it ordered; what was not spent comes back to its vault, and with its end to the wallet.
    let stopped = network.atoll(&home, &["job", "stop", &job.id, "--budget", file]);
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    job.until(network, "its end", |now| (now["state"] == "stopped").then_some(()));
    until("its order is closed", || (network.orders_of(&network.told.renter_wallet) == 0).then_some(()));
    until("its device is free again", || (network.devices_free() == 1).then_some(()));
    // What came back counts as spent today all the same.
    refused(network, &home, &hours("1"), REFUSED, &["has left for today 0.69", "wait for the next day (UTC)"]);
    let key = agent.to_string();
    let seen = network.json(&["budget", "show", &key]);
    assert_eq!((&seen[0]["state"], &seen[0]["day_max"]), (&Value::from("works"), &Value::from(3 * ATL / 2)), "{seen}");
    network.json(&["budget", "revoke", &key, "--yes"]);
    refused(network, &home, &hours("1"), REFUSED, &["is revoked", "atoll budget create"]);
    refused(network, &network.home(), &["budget", "revoke", &key, "--yes"], REFUSED, &["its vault is empty"]);
    let spent = network.balances().conserved_since(&before);
    assert!(spent > 0 && spent < ATL / 10, "{spent} were spent in a minute of an hour");
}

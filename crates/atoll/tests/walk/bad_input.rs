//! Bad input by the real command line against the real server and chain: clear words, a stable status, nothing charged,
//! nothing left behind.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_cli::profile::Home;

use crate::job;
use crate::network::{Network, address_of, text};

/// Statuses of `atoll`, as its help lists them.
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

pub(crate) fn bad_input_is_refused_in_words_and_costs_nothing(network: &Network) {
    let before = network.balances();
    let home = network.home();
    let folder = job::folder(&network.folder);
    let folder = folder.to_str().unwrap();
    let submit = |flags: &[&str], status: i32, words: &[&str]| {
        let arguments = [&["job", "submit", folder, "--yes", "--detach"], flags].concat();
        refused(network, &home, &arguments, status, words);
    };
    submit(&["--model", "h100"], REFUSED, &["no device model `h100`", "cpu", "atoll gpu list", "nothing was charged"]);
    submit(&["--pack", "nonesuch"], REFUSED, &["no environment `nonesuch`", "ray-torch"]);
    submit(&["--devices", "0"], USAGE, &["--devices", "from 1 to"]);
    submit(&["--devices", "1000000000"], USAGE, &["--devices", "from 1 to"]);
    submit(&["--max-price", "0"], USAGE, &["--max-price", "above 0"]);
    submit(&["--max-price", "-1"], USAGE, &["--max-price", "not a price"]);
    submit(&["--max-price", "1000000000000"], USAGE, &["--max-price", "at most"]);
    submit(&["--max-price", "1e300"], USAGE, &["--max-price", "not a price"]);
    submit(&["--max-hours", "0"], USAGE, &["--max-hours"]);

    for (name, content, words) in [
        ("malformed", "[job\nentry = 1", &["atoll.toml:1:"]),
        ("misspelt", "[job]\nentry = \"true\"\ndevice = 2\n", &["atoll.toml:3:"]),
    ] {
        let broken = network.folder.join(name);
        fs::create_dir(&broken).unwrap();
        fs::write(broken.join("atoll.toml"), content).unwrap();
        refused(network, &home, &["job", "submit", broken.to_str().unwrap(), "--yes"], USAGE, words);
    }
    let missing = network.folder.join("missing");
    refused(network, &home, &["job", "submit", missing.to_str().unwrap(), "--yes"], USAGE, &["cannot read the folder"]);
    let dangling = Path::new(folder).join("dangling");
    symlink(&missing, &dangling).unwrap();
    submit(&[], USAGE, &["dangling", "leads nowhere"]);
    fs::remove_file(dangling).unwrap();

    nothing_is_left(network, &home);
    assert_eq!(network.balances(), before, "bad input was charged for");
}

pub(crate) fn an_order_that_nobody_can_fill_says_why_for_each_worker(network: &Network) {
    let before = network.balances();
    let folder = job::folder(&network.folder);
    let submit = ["job", "submit", folder.to_str().unwrap(), "--yes", "--detach"];
    let ids: Vec<&str> = network.told.worker_ids.values().map(String::as_str).collect();
    assert_eq!(ids.len(), 4);
    for (flags, words) in [
        (["--devices", "5"], ["5 x cpu", "4 fit", "nothing was charged", "ask for fewer", "all together have 4"]),
        (["--max-price", "0.000001"], ["2 x cpu", "0 fit", "nothing was charged", "raise max_price", "asks 0.0"]),
    ] {
        let all = [&submit[..], &flags].concat();
        refused(network, &network.home(), &all, REFUSED, &[&words[..], &ids].concat());
    }
    nothing_is_left(network, &network.home());
    assert_eq!(network.balances(), before);
}

pub(crate) fn wrong_expired_and_poor_users_are_refused(network: &Network) {
    let before = network.balances();
    let folder = job::folder(&network.folder);
    let submit = ["job", "submit", folder.to_str().unwrap(), "--yes", "--detach"];
    let profile = network.profile();
    let wallet = &network.told.renter_wallet;

    let wrong = format!("{}{}", &profile.api_key[..profile.api_key.len() - 4], "zzzz");
    let home = other_user(network, "wrong", &wrong, &profile.wallet);
    refused(network, &home, &submit, REFUSED, &["API key", "atoll admin key create"]);
    nothing_is_left(network, &home);

    let expired = network.api_key("latecomer", wallet);
    let home = other_user(network, "expired", &expired, &profile.wallet);
    assert!(network.atoll(&home, &["key", "show"]).status.success(), "the key is good before it expires");
    expire(network, &expired);
    refused(network, &home, &submit, REFUSED, &["expired", "ask the operator for a new one"]);
    nothing_is_left(network, &home);

    let poor = network.folder.join("poor.json");
    assert!(network.atoll(&network.home(), &["wallet", "new", poor.to_str().unwrap()]).status.success());
    let address = address_of(&poor);
    let home = other_user(network, "poor", &network.api_key("poor", &address), &poor);
    refused(network, &home, &submit, REFUSED, &[&address, "holds 0.000000000 ATL", "nothing was charged", "Send ATL"]);
    nothing_is_left(network, &home);
    assert_eq!(network.orders_of(&address), 0);
    assert_eq!(network.balances(), before);
}

/// Runs a command that must fail with these words on stderr and nothing on stdout.
fn refused(network: &Network, home: &Path, arguments: &[&str], status: i32, words: &[&str]) {
    let output = network.atoll(home, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say `{word}`: {said}");
    }
}

/// No order on the chain, no job at the server, nothing that a retry would send.
fn nothing_is_left(network: &Network, home: &Path) {
    assert_eq!(network.orders_of(&network.told.renter_wallet), 0);
    assert_eq!(network.json(&["job", "list"]).as_array().unwrap().len(), 0);
    let pending = fs::read_dir(home.join("pending")).map(Iterator::count).unwrap_or_default();
    assert_eq!(pending, 0, "a submission is kept in {}", home.display());
}

/// A profile of the same network with another key and wallet.
fn other_user(network: &Network, name: &str, api_key: &str, wallet: &Path) -> PathBuf {
    let mut profile = network.profile();
    profile.api_key = api_key.to_owned();
    profile.wallet = wallet.to_owned();
    let home = network.folder.join("homes").join(name);
    Home::at(&home).save(&profile).unwrap();
    home
}

/// Lets a key's time run out. Operators have no command for it yet, so this writes into the store.
fn expire(network: &Network, key: &str) {
    let id = format!("key_{}", key.split('_').nth(1).unwrap());
    let program = "import sqlite3, sys\n\
        store = sqlite3.connect(sys.argv[1], timeout=30)\n\
        changed = store.execute('update api_keys set expires = 1 where id = ?', [sys.argv[2]]).rowcount\n\
        store.commit()\n\
        sys.exit(0 if changed == 1 else 1)";
    let store = network.folder.join("server/control.db");
    let output = Command::new("/usr/bin/python3").args(["-c", program]).arg(store).arg(id).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

//! The binary as a user meets it: help texts, exit statuses, and words for every bad input that needs no network.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect, expect_file};

fn atoll(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_atoll"))
        .args(arguments)
        .env_clear()
        .env("ATOLL_HOME", home)
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that fails: its status and its words, with the folder's name taken out.
fn failed(home: &Path, arguments: &[&str], status: i32, words: Expect) {
    let output = atoll(home, arguments);
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    words.assert_eq(&text(&output.stderr).replace(home.to_str().unwrap(), "HOME"));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}");
}

fn job_folder(home: &Path, manifest: &str) -> String {
    let folder = home.join("job");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("atoll.toml"), manifest).unwrap();
    fs::write(folder.join("train.py"), "print(1)").unwrap();
    folder.to_str().unwrap().to_owned()
}

const MANIFEST: &str =
    "[job]\nentry = \"python train.py\"\nmodel = \"cpu\"\npack = \"ray-torch\"\nmax_price = \"0.20\"\n";

#[test]
fn help_texts_are_what_they_were() {
    let home = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 20] = [
        &[],
        &["dev"],
        &["dev", "warp"],
        &["server"],
        &["worker", "join"],
        &["admin", "key", "create"],
        &["login"],
        &["job"],
        &["job", "submit"],
        &["logs"],
        &["receipt", "show"],
        &["receipt", "verify"],
        &["wallet"],
        &["stake"],
        &["costake"],
        &["costake", "offer"],
        &["budget"],
        &["budget", "create"],
        &["order"],
        &["market", "asks"],
    ];
    let mut all = String::new();
    for command in commands {
        let output = atoll(home.path(), &[command, &["--help"]].concat());
        assert!(output.status.success(), "{command:?}");
        all.push_str(&format!("$ atoll {} --help\n{}\n", command.join(" "), text(&output.stdout)));
    }
    expect_file!["help.txt"].assert_eq(&all);
}

#[test]
fn every_command_of_a_user_has_an_example() {
    let home = tempfile::tempdir().unwrap();
    for command in [
        "dev",
        "server",
        "worker join",
        "worker run",
        "worker doctor",
        "admin key create",
        "completions",
        "login",
        "gpu list",
        "job submit",
        "job list",
        "job show",
        "job events",
        "job watch",
        "job stop",
        "logs",
        "cluster list",
        "cluster show",
        "receipt show",
        "receipt verify",
        "wallet show",
        "wallet new",
        "wallet balance",
        "wallet airdrop",
        "dev warp",
        "stake show",
        "stake add",
        "stake request",
        "stake withdraw",
        "costake offer",
        "costake accept",
        "costake exit",
        "costake list",
        "budget create",
        "budget show",
        "budget revoke",
        "order list",
        "order show",
        "order extend",
        "order cancel",
        "order close",
        "market asks",
        "market fleets",
        "key show",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = text(&atoll(home.path(), &arguments).stdout);
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(help.contains("--json"), "{command}: {help}");
    }
}

#[test]
fn completions_are_scripts() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&atoll(home.path(), &["completions", shell]).stdout);
        assert!(script.contains("atoll") && script.contains("submit"), "{shell}");
        assert!(!script.contains("pod-supervisor"), "{shell} offers a hidden role");
    }
}

#[test]
fn without_a_profile_the_next_step_is_named() {
    let home = tempfile::tempdir().unwrap();
    failed(
        home.path(),
        &["job", "list"],
        2,
        expect![[r#"
        error: there is no profile at HOME/profile.toml (No such file or directory (os error 2)); write one with `atoll login`, or name another folder with ATOLL_HOME (`atoll dev` prints its own)
    "#]],
    );
    failed(
        home.path(),
        &["job", "list", "--json"],
        2,
        expect![[r#"
        {"error":{"code":"profile","exit":2,"message":"there is no profile at HOME/profile.toml (No such file or directory (os error 2)); write one with `atoll login`, or name another folder with ATOLL_HOME (`atoll dev` prints its own)","refusals":[]}}
    "#]],
    );
}

#[test]
fn a_stores_url_comes_from_a_file_that_is_its_owners() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("store");
    let state = home.path().join("state");
    fs::write(&file, "mysql://u:hunter2@h/d\n").unwrap();
    let arguments = ["admin", "key", "create", "--user", "ada", "--wallet", "11111111111111111111111111111112"];
    let places = ["--state", state.to_str().unwrap(), "--store-file", file.to_str().unwrap()];
    let arguments = [&arguments[..], &places].concat();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = text(&atoll(home.path(), &arguments).stderr);
    assert!(open.contains("store is open to others: run `chmod 600 "), "{open}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let read = text(&atoll(home.path(), &arguments).stderr);
    assert!(read.contains("the store's URL must be sqlite:PATH or postgres://") && !read.contains("hunter2"), "{read}");
    fs::write(&file, "\n").unwrap();
    let empty = text(&atoll(home.path(), &arguments).stderr);
    assert!(empty.contains("is empty: write the store's URL there"), "{empty}");
}

#[test]
fn a_bad_folder_is_refused_before_anything_else() {
    let home = tempfile::tempdir().unwrap();
    let submit = |manifest: &str, flags: &[&str], words: Expect| {
        let folder = job_folder(home.path(), manifest);
        failed(home.path(), &[&["job", "submit", &folder], flags].concat(), 2, words);
    };
    submit(
        &MANIFEST.replace("[job]", "[job"),
        &[],
        expect![[r#"
        error: atoll.toml:1:5: unclosed table, expected `]`; the file must be TOML, for example `devices = 3`
    "#]],
    );
    submit(
        MANIFEST,
        &["--devices", "0"],
        expect![[r#"
        error: --devices: devices `0` must be a whole number from 1 to 10000
    "#]],
    );
    submit(
        MANIFEST,
        &["--devices", "1000000000"],
        expect![[r#"
        error: --devices: devices `1000000000` must be a whole number from 1 to 10000
    "#]],
    );
    submit(
        MANIFEST,
        &["--max-price", "-1"],
        expect![[r#"
        error: --max-price: `-1` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
    "#]],
    );
    submit(
        MANIFEST,
        &["--max-price", "1e30"],
        expect![[r#"
        error: --max-price: `1e30` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
    "#]],
    );
    submit(
        MANIFEST,
        &["--max-hours", "-3"],
        expect![[r#"
        error: --max-hours: max_hours `-3` must be above 0 and at most 720, with at most 6 digits after the point, for example 0.5
    "#]],
    );
    submit(
        &MANIFEST.replace("entry", "entri"),
        &[],
        expect![[r#"
        error: atoll.toml:2:1: unknown field `entri`, expected one of `name`, `entry`, `devices`, `model`, `pack`, `checkpoints`, `max_price`, `max_hours`, `env`
    "#]],
    );
    failed(
        home.path(),
        &["job", "submit", "/nowhere"],
        2,
        expect![[r#"
        error: cannot read the folder /nowhere: No such file or directory (os error 2); check the path and your rights to it
    "#]],
    );
    failed(
        home.path(),
        &["job", "submit", "/etc/hostname"],
        2,
        expect![[r#"
        error: /etc/hostname is not a folder: give the folder that holds the job's code
    "#]],
    );
}

#[test]
fn a_link_out_of_the_folder_is_never_sent() {
    let home = tempfile::tempdir().unwrap();
    let folder = job_folder(home.path(), MANIFEST);
    std::os::unix::fs::symlink("/etc/passwd", Path::new(&folder).join("data")).unwrap();
    failed(
        home.path(),
        &["job", "submit", &folder],
        2,
        expect![[r#"
        error: data: it is a link out of the folder, to /etc/passwd; move it out of the job's folder
    "#]],
    );
}

#[test]
fn a_silent_server_or_chain_is_unreachable() {
    let home = tempfile::tempdir().unwrap();
    let folder = job_folder(home.path(), MANIFEST);
    let made = atoll(home.path(), &["wallet", "new", home.path().join("wallet.json").to_str().unwrap()]);
    assert!(made.status.success());
    let again = atoll(home.path(), &["wallet", "new", home.path().join("wallet.json").to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2), "a wallet is never overwritten");
    fs::write(home.path().join("cert.pem"), CERTIFICATE).unwrap();
    // Port 1 of the loopback: nobody listens there.
    let profile = format!(
        "server = \"https://127.0.0.1:1\"\nca = \"cert.pem\"\napi_key = \"k\"\nwallet = \"wallet.json\"\nrpc = \"http://127.0.0.1:1\"\nnetwork_root = \"{}\"\n",
        "0".repeat(64)
    );
    fs::write(home.path().join("profile.toml"), &profile).unwrap();
    fs::set_permissions(home.path().join("profile.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let on_chain: [&[&str]; 5] = [
        &["stake", "add", "1", "--yes"],
        &["costake", "list"],
        &["budget", "show"],
        &["order", "list"],
        &["market", "asks"],
    ];
    let with_operator: [&[&str]; 3] = [&["job", "list"], &["wallet", "show"], &["job", "submit", &folder, "--yes"]];
    for command in with_operator.into_iter().chain(on_chain) {
        let output = atoll(home.path(), command);
        assert_eq!(output.status.code(), Some(4), "{command:?}: {}", text(&output.stderr));
    }
    assert!(!home.path().join("pending").exists(), "nothing was signed, so nothing is kept");
    fs::set_permissions(home.path().join("profile.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    failed(
        home.path(),
        &["job", "list"],
        2,
        expect![[r#"
        error: the profile HOME/profile.toml holds an API key and others may read it (mode 644); run `chmod 600 HOME/profile.toml`
    "#]],
    );
}

/// A node of another cluster: it knows no method that is ours.
fn other_cluster() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).unwrap();
            let body = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
            write!(stream, "{head}{}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    url
}

#[test]
fn only_a_local_chains_clock_is_moved() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = home.path().join("no-network");
    failed(
        home.path(),
        &["dev", "warp", "14d", "--state", nowhere.to_str().unwrap()],
        3,
        expect![[r#"
        error: no `atoll dev` runs in HOME/no-network; nothing was moved: start one, or name its folder with --state. No other chain's clock can be moved
    "#]],
    );
    failed(
        home.path(),
        &["dev", "warp", "14d", "--rpc", &other_cluster()],
        3,
        expect![[r#"
        error: the chain refused it (Method not found); nothing was moved: only the chain of `atoll dev` moves its clock, by a year at most; others' time is not ours to move
    "#]],
    );
    for (span, status) in [("14", 2), ("0d", 2), ("-1d", 2), ("1.5d", 2)] {
        let output = atoll(home.path(), &["dev", "warp", span]);
        assert_eq!(output.status.code(), Some(status), "{span}: {}", text(&output.stderr));
    }
}

#[test]
fn what_is_no_receipt_is_not_valid() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("receipt.json");
    let root = "0".repeat(64);
    let arguments = ["receipt", "verify", file.to_str().unwrap(), "--network-root", &root];
    failed(
        home.path(),
        &arguments,
        2,
        expect![[r#"
        error: cannot read HOME/receipt.json: No such file or directory (os error 2); give a receipt's file, or keep one with `atoll receipt show JOB --output FILE`
    "#]],
    );
    fs::write(&file, "{\"body\": \"{}\"}").unwrap();
    failed(
        home.path(),
        &arguments,
        6,
        expect![[r#"
        error: the receipt is NOT valid: HOME/receipt.json: not a receipt of version 1: missing field `signer` at line 1 column 14
    "#]],
    );
    let unsigned = format!(r#"{{"body": "{{}}", "signer": "{}", "signature": "{}"}}"#, "1".repeat(32), "1".repeat(64));
    fs::write(&file, unsigned).unwrap();
    failed(
        home.path(),
        &arguments,
        6,
        expect![[r#"
        error: the receipt is NOT valid: the receipt's signature does not fit its body: the signature does not match key 11111111111111111111111111111111
    "#]],
    );
    // Without a flag and without a profile there is no root to start from.
    failed(
        home.path(),
        &["receipt", "verify", file.to_str().unwrap()],
        2,
        expect![[r#"
            error: no network root to start from: give --network-root HEX (there is no profile at HOME/profile.toml (No such file or directory (os error 2)); write one with `atoll login`, or name another folder with ATOLL_HOME (`atoll dev` prints its own))
        "#]],
    );
}

/// A node over a state folder, with no chain to reach.
fn node(state: &Path) -> Child {
    let port = state.join("port");
    fs::remove_file(&port).ok();
    let state = state.to_str().unwrap();
    let arguments = ["server", "--state", state, "--listen", "127.0.0.1:0", "--rpc", "http://127.0.0.1:1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args(arguments).arg("--port-file").arg(&port).args(["--store", &format!("sqlite:{state}/../control.db")]);
    command.env_clear().env("ATOLL_HOME", state).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn nodes_that_are_too_old_for_their_store_end_and_say_so() {
    let home = tempfile::tempdir().unwrap();
    let states = ["one", "other"].map(|name| home.path().join(name));
    states.iter().for_each(|state| fs::create_dir(state).unwrap());
    let mut nodes: Vec<Child> = states.iter().map(|state| node(state)).collect();
    for state in &states {
        until("the node listens", || state.join("port").exists());
    }
    // A newer node takes away what these two need.
    let newer = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=20); \
                 c.execute('update atoll_readers set schema_min = 999'); c.commit()";
    let store = home.path().join("control.db");
    assert!(Command::new("python3").args(["-c", newer]).arg(&store).status().unwrap().success());
    for node in &mut nodes {
        until("the node has ended", || node.try_wait().unwrap().is_some());
    }
    // One that is started again ends at once.
    nodes.push(node(&states[0]));
    for node in nodes {
        let output = node.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains("needs an `atoll` that knows its schema 999"), "{said}");
        assert!(last.contains("docs/operators/upgrade.md"), "{said}");
    }
}

const CERTIFICATE: &str = include_str!("cert.pem");

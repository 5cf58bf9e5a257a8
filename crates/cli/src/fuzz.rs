//! Whatever lies in a job's folder or comes as a receipt: no panic, bounded memory, the same verdict twice, and a refusal
//! that fits on a screen.

use atoll_api::receipt::{Receipt, ReceiptBody};
use atoll_domain::key::{Digest, Purpose, SecretKey};
use atoll_fuzz::Fuzz;

use crate::manifest::{Overrides, plan};
use crate::profile::{Home, Profile};
use crate::verify::tests::{body, key, pinned};
use crate::verify::verify;

#[global_allocator]
static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;

#[test]
fn job_files() {
    let good = "[job]\nname = \"digits\"\nentry = \"python train.py\"\ndevices = 3\nmodel = \"cpu\"\npack = \"ray-torch\"\n\
        checkpoints = true\nmax_price = 0.20\nmax_hours = 0.5\n[env]\nEPOCHS = 30\nNAME = \"x\"\n";
    let inline =
        "job = { entry = 'x', model = \"cpu\", pack = \"ray-torch\", max_price = \"1\", env = { A = true } }\n";
    let tally = Fuzz::of("job-files")
        .seed(good)
        .seed(inline)
        // A parser's words repeated the key, however long it was.
        .seed("mod".repeat(700))
        .words(&[
            "[job]\n",
            "[[job]]\n",
            "devices = ",
            "\"\"\"",
            "'''",
            "0x7f",
            "inf",
            "1979-05-27",
            "\u{202e}",
            "a.b.c = 1\n",
        ])
        .memory(1 << 20, 512)
        .run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return "no text" };
            let read = plan(text, &Overrides::default(), Some("Folder"));
            match (read, plan(text, &Overrides::default(), Some("Folder"))) {
                (Ok(plan), Ok(again)) => {
                    assert_eq!(format!("{plan:?}"), format!("{again:?}"));
                    assert!((1..=10_000).contains(&plan.devices) && plan.seconds_max > 0 && plan.price_max.0 > 0);
                    "accepted"
                }
                (Err(why), Err(_)) => {
                    assert!(why.message.len() < 2048, "{} bytes of refusal", why.message.len());
                    "refused"
                }
                _ => panic!("two answers"),
            }
        });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

/// A body below the operator's true signature, so that the checks behind it are reached.
fn sealed(body: &str, operator: &SecretKey) -> Receipt {
    let signature = operator.sign(Purpose::Receipt, &Digest::of(body.as_bytes()).0);
    Receipt { body: body.to_owned(), signer: operator.public(), signature }
}

#[test]
fn receipts() {
    let operator = key(20);
    let text = serde_json::to_string(&body()).unwrap();
    let whole = serde_json::to_vec(&sealed(&text, &operator)).unwrap();
    let true_money = body().money;
    // A claim that nobody can read, and that a terminal would obey.
    let mut claims = body();
    claims.result.checked = "\u{1b}[2J".repeat(4096);
    let tally = Fuzz::of("receipts")
        .seed(text)
        .seed(whole)
        .seed(serde_json::to_string(&claims).unwrap())
        .words(&["\"leases\":[]", "\"epochs\":[]", "\"n\":65535", "-9223372036854775808", "\"path\":[]"])
        .bytes_max(24 << 10)
        .memory(1 << 20, 256)
        .run(|input| {
            if let Ok(receipt) = Receipt::read(input) {
                let written = serde_json::to_vec(&receipt).unwrap();
                assert_eq!(Receipt::read(&written).as_ref(), Ok(&receipt));
                return if verify(&receipt, pinned()).is_ok() { "a true receipt" } else { "a false receipt" };
            }
            let Ok(text) = std::str::from_utf8(input) else { return "no text" };
            let receipt = sealed(text, &operator);
            let Ok(said) = receipt.open() else { return "no body" };
            let written = serde_json::to_string(&said).unwrap();
            assert_eq!(serde_json::from_str::<ReceiptBody>(&written).unwrap(), said);
            match verify(&receipt, pinned()) {
                Ok(_) => {
                    // What is proven cannot be another sum.
                    assert_eq!(said.money, true_money);
                    "holds"
                }
                Err(why) => {
                    let why = why.to_string();
                    assert!(why.len() < 2048 && !why.contains(|c: char| c.is_control()), "{why:?}");
                    "does not hold"
                }
            }
        });
    assert!(tally.of("holds") > 0 && tally.of("does not hold") > 0 && tally.of("a true receipt") > 0, "{tally:?}");
}

#[test]
fn profiles() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path());
    let profile = Profile {
        server: "https://127.0.0.1:1".into(),
        ca: "cert.pem".into(),
        api_key: "key_x".into(),
        wallet: "wallet.json".into(),
        rpc: "http://127.0.0.1:2".into(),
        network_root: pinned(),
    };
    home.save(&profile).unwrap();
    let written = std::fs::read(home.profile_path()).unwrap();
    let tally = Fuzz::of("profiles").seed(written).inputs_max(2000).memory(1 << 20, 512).run(|input| {
        std::fs::write(home.profile_path(), input).unwrap();
        match home.load() {
            Ok(_) => "accepted",
            Err(why) => {
                assert!(why.message.len() < 8192);
                "refused"
            }
        }
    });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

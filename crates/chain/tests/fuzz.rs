//! Whatever a node answers, an account holds or somebody calls a transaction: no panic, bounded memory, the same answer
//! twice.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_chain::market::layout::{
    Attestor, Budget, Catalogue, Config, DeviceKey, Epoch, FleetPage, Lease, Order, PriceFeed, Record, SLOT_USED, Slot,
    Table as Rows, bytes_of,
};
use atoll_chain::market::{Market, PROGRAM_ID, read, read_table};
use atoll_chain::rpc::{Account, Commitment, Filter, Posted, Posting, Wire};
use atoll_chain::transaction::decode;
use atoll_chain::{AccountMeta, Address, Failure, Hash, Instruction, Keypair, Rpc, RpcConfig, Signature, sign, spl};
use atoll_fuzz::Fuzz;

#[global_allocator]
static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;

fn transaction() -> Vec<u8> {
    let (payer, other) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]));
    let accounts = vec![AccountMeta::sign_write(payer.address()), AccountMeta::sign(other.address())];
    let called = Instruction { program: PROGRAM_ID, accounts, data: vec![5, 1, 2, 3] };
    let paid = spl::system_transfer(payer.address(), other.address(), 5);
    sign(&[called, paid], &payer, &[&other], &Hash([9; 32])).unwrap().bytes().to_vec()
}

#[test]
fn transactions() {
    let (bytes, payer) = (transaction(), Keypair::from_seed(&[1; 32]));
    // One signature, so that it can be made again over mutated bytes.
    let one = spl::system_transfer(payer.address(), Address([3; 32]), 5);
    let one = sign(&[one], &payer, &[], &Hash([9; 32])).unwrap().bytes().to_vec();
    let message = one[65..].to_vec();
    let tally = Fuzz::of("transactions").seed(bytes).seed(one).seed(message).bytes_max(1300).run(|input| {
        let resigned = [&[1][..], &payer.sign(input).0, input].concat();
        let mut answer = "refused";
        for bytes in [input, &resigned] {
            let read = decode(bytes);
            assert_eq!(read, decode(bytes));
            if let Ok(read) = read {
                assert!(!read.signatures.is_empty() && read.accounts.len() <= 256);
                assert!(read.accounts.iter().filter(|one| one.signer).count() == read.signatures.len());
                answer = "accepted";
            }
        }
        answer
    });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

fn account(data: &[u8]) -> Account {
    Account { address: Address([7; 32]), owner: PROGRAM_ID, lamports: 1, data: data.to_vec(), executable: false }
}

fn page() -> Vec<u8> {
    let mut header = FleetPage::new();
    header.slot_count = 3;
    let row = Slot { device_key: [4; 32], flags: SLOT_USED, devices: 1, ..Slot::ZERO };
    [bytes_of(&header), &bytes_of(&row).repeat(3)].concat()
}

#[test]
fn accounts_of_the_market() {
    fn both<T: Record>(account: &Account) -> bool {
        read::<T>(account).is_ok()
    }
    fn rows<T: Rows>(account: &Account) -> bool {
        read_table::<T>(account).is_ok_and(|table| table.value.rows.len() == table.value.header.count())
    }
    assert!(rows::<FleetPage>(&account(&page())));
    let tally = Fuzz::of("accounts")
        .seed(page())
        .seed(bytes_of(&Order::new()))
        .seed(bytes_of(&Lease::new()))
        .seed(bytes_of(&Config::new()))
        .seed(bytes_of(&Catalogue::new()))
        .seed(bytes_of(&Epoch::new()))
        .seed(bytes_of(&DeviceKey::new()))
        .memory(1 << 20, 64)
        .run(|input| {
            let account = account(input);
            let is = [
                both::<Order>(&account),
                both::<Lease>(&account),
                both::<PriceFeed>(&account),
                both::<DeviceKey>(&account),
                both::<Budget>(&account),
                both::<Attestor>(&account),
                both::<Epoch>(&account),
                rows::<FleetPage>(&account),
                rows::<Config>(&account),
                rows::<Catalogue>(&account),
            ];
            assert!(is.iter().filter(|one| **one).count() <= 1, "an account is one thing");
            let foreign = Account { owner: spl::TOKEN_PROGRAM, ..account };
            assert!(!both::<Order>(&foreign) && !rows::<FleetPage>(&foreign));
            let _ = (spl::TokenAccount::read(input), spl::Mint::read(input), spl::Clock::read(input));
            if is.contains(&true) { "read" } else { "refused" }
        });
    assert!(tally.of("read") > 0 && tally.of("refused") > 0, "{tally:?}");
}

/// A node that answers with whatever lies here.
#[derive(Debug, Default)]
struct Liar(Arc<Mutex<Vec<u8>>>);

impl Wire for Liar {
    fn post(&self, body: String, bytes_max: usize) -> Posting<'_> {
        // Under the request's own number, so that what comes after it is read.
        let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
        let answer = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        let body = answer.replace("\"id\":1,", &format!("\"id\":{},", asked["id"])).into_bytes();
        assert!(body.len() <= bytes_max);
        Box::pin(async move { Ok(Posted { status: 200, body }) })
    }
}

#[test]
fn answers_of_a_node() {
    let answer = Arc::new(Mutex::new(Vec::new()));
    let config = RpcConfig { tries_max: 1, pause: Duration::ZERO, ..RpcConfig::new("http://node", 1) };
    let rpc = Rpc::over(Box::new(Liar(Arc::clone(&answer))), config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let account =
        r#"{"owner":"OWNER","lamports":5,"data":["AAE=","base64"],"executable":false,"rentEpoch":0,"space":2}"#
            .replace("OWNER", &PROGRAM_ID.to_string());
    let context =
        |value: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"context":{{"slot":3}},"value":{value}}}}}"#);
    let plain = |value: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{value}}}"#);
    let key = Address([7; 32]).to_string();
    let failed = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"no","data":{"err":{"InstructionError":[0,{"Custom":1}]},"logs":["Program X failed"]}}}"#;
    let tally = Fuzz::of("node-answers")
        .seed(context(&account))
        .seed(context(&format!("[{account},null]")))
        .seed(plain(&format!(r#"[{{"pubkey":"{key}","account":{account}}}]"#)))
        .seed(context(&format!(r#"{{"blockhash":"{key}","lastValidBlockHeight":9}}"#)))
        .seed(context(r#"[{"slot":3,"confirmations":null,"err":null,"confirmationStatus":"finalized"}]"#))
        .seed(context(r#"{"amount":"5","decimals":9,"uiAmount":0.1}"#))
        .seed(plain(&format!("\"{key}\"")))
        .seed(plain("17"))
        .seed(failed)
        .words(&["\"id\":1", "\"result\":null", "\"error\":{}", "\"confirmed\"", "18446744073709551615"])
        .memory(256 << 10, 256)
        .run(|input| {
            *answer.lock().unwrap() = input.to_vec();
            let read = runtime.block_on(async {
                let market = Market::new(rpc.at(Commitment::Finalized));
                let keys = [Address([7; 32]), Address([8; 32])];
                let signature = Signature([1; 64]);
                let filter = Filter::Bytes { offset: 0, bytes: vec![0] };
                let told = [
                    rpc.account(&keys[0]).await.map(|_| ()),
                    rpc.accounts(&keys).await.map(|all| assert_eq!(all.len(), 2)),
                    rpc.program_accounts(&PROGRAM_ID, &[filter]).await.map(|all| {
                        assert!(all.iter().all(|one| one.owner == PROGRAM_ID && one.data.starts_with(&[0])));
                    }),
                    rpc.latest_blockhash().await.map(|_| ()),
                    rpc.statuses(&[signature]).await.map(|all| assert_eq!(all.len(), 1)),
                    rpc.token_balance(&keys[0]).await.map(|_| ()),
                    rpc.token_account(&keys[0]).await.map(|_| ()),
                    rpc.genesis_hash().await.map(|_| ()),
                    rpc.slot().await.map(|_| ()),
                    rpc.block_time(3).await.map(|_| ()),
                    rpc.balance(&keys[0]).await.map(|_| ()),
                    rpc.transaction_log(&signature).await.map(|_| ()),
                    rpc.clock().await.map(|_| ()),
                ];
                let of_market = [
                    market.config().await.is_ok(),
                    market.pages().await.is_ok(),
                    market.order(&keys[0]).await.is_ok(),
                    market.leases_of(&keys[0]).await.is_ok(),
                ];
                for why in told.iter().filter_map(|one| one.as_ref().err()) {
                    assert!(why.to_string().len() < 16 << 10, "a long refusal");
                }
                told.iter().any(Result::is_ok) || of_market.contains(&true)
            });
            if read { "believed" } else { "refused" }
        });
    assert!(tally.of("believed") > 0 && tally.of("refused") > 0, "{tally:?}");
}

#[test]
fn failures_are_told_in_bounded_words() {
    let seeds = [
        r#"{"InstructionError":[0,{"Custom":6001}]}"#,
        r#"{"InsufficientFundsForRent":{"account_index":1}}"#,
        "\"BlockhashNotFound\"",
    ];
    let fuzz = seeds.into_iter().fold(Fuzz::of("failures"), Fuzz::seed);
    let tally = fuzz.words(&["{\"Custom\":", "Program ", " failed: custom program error"]).run(|input| {
        let Ok(error) = serde_json::from_slice(input) else { return "no JSON" };
        let log = vec![String::from_utf8_lossy(input).into_owned(); 3];
        let failure = Failure::read(&error, &log, &[PROGRAM_ID]);
        assert_eq!(failure, Failure::read(&error, &log, &[PROGRAM_ID]));
        assert!(failure.to_string().len() < 4 * input.len() + 1000);
        "told"
    });
    assert!(tally.of("told") > 0, "{tally:?}");
}

#[test]
fn words_of_the_chain() {
    let seeds = [Address([7; 32]).to_string(), Hash([0; 32]).to_string(), Signature([255; 64]).to_string()];
    let tally = seeds.into_iter().fold(Fuzz::of("chain-words"), Fuzz::seed).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return "no text" };
        let address = text.parse::<Address>().map(|read| assert_eq!(read.to_string(), text)).is_ok();
        let signature = text.parse::<Signature>().map(|read| assert_eq!(read.to_string(), text)).is_ok();
        assert!(!(address && signature));
        if address || signature { "accepted" } else { "refused" }
    });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

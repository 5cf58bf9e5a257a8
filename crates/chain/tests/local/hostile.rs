//! What a client must not be able to do to the chain, and a server not to the client.

use std::time::Duration;

use atoll_chain::{Address, Rpc, RpcConfig, RpcError, sign, spl};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{HandClock, key, start};

/// Posts raw bytes; returns status and body.
pub(crate) async fn post(url: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let body = body.into();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses the length may close before it has read the body.
    let _ = stream.write_all(&body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn garbage_is_answered_with_its_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, rpc) = start(folder.path(), HandClock::new()).await;
    let ask = |method: &str, params: Value| {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
    };
    let long = "1".repeat(10_000);
    for (body, code) in [
        ("".to_owned(), -32700),
        ("{".to_owned(), -32700),
        ("\u{0}\u{1}".to_owned(), -32700),
        (format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), -32700),
        ("1".to_owned(), -32600),
        ("[]".to_owned(), -32600),
        (json!({ "method": 5 }).to_string(), -32600),
        (Value::Array(vec![json!({}); 101]).to_string(), -32600),
        (ask("getBlock", json!([1])), -32001),
        (ask("getBlock", json!([u64::MAX])), -32004),
        (ask("getBlock", json!([u64::MAX, { "commitment": "processed" }])), -32602),
        (ask("getBlocks", json!([0, u64::MAX])), -32602),
        (ask("getStakeActivation", json!([1])), -32601),
        (ask("getSlot", json!("x")), -32602),
        (ask("getBalance", json!([])), -32602),
        (ask("getBalance", json!([long])), -32602),
        (ask("getAccountInfo", json!([key(1).address(), { "encoding": "base32" }])), -32602),
        (ask("getAccountInfo", json!([key(1).address(), { "minContextSlot": u64::MAX }])), -32016),
        (ask("getSignaturesForAddress", json!([key(1).address(), { "limit": 1001 }])), -32602),
        (ask("getSlotLeaders", json!([0, u64::MAX])), -32602),
        (ask("getMultipleAccounts", json!([vec![key(1).address(); 101]])), -32602),
        (ask("getSignatureStatuses", json!([vec!["1"; 300]])), -32602),
        (ask("getProgramAccounts", json!([key(1).address(), { "filters": [{}] }])), -32602),
        (
            ask("getProgramAccounts", json!([key(1).address(), { "filters": vec![json!({ "dataSize": 1 }); 5] }])),
            -32602,
        ),
        (ask("getTokenAccountBalance", json!([key(1).address()])), -32602),
        (ask("getMinimumBalanceForRentExemption", json!([u64::MAX])), -32602),
        (ask("requestAirdrop", json!([key(1).address(), u64::MAX])), -32602),
        (ask("requestAirdrop", json!([key(1).address(), -1])), -32602),
        (ask("atoll_warp", json!([{ "seconds": u64::MAX }])), -32602),
        (ask("sendTransaction", json!(["AAAA", { "encoding": "base64" }])), -32602),
        (ask("sendTransaction", json!(["A".repeat(1680), { "encoding": "base64" }])), -32602),
        (ask("sendTransaction", json!(["A".repeat(100_000), { "encoding": "base64" }])), -32602),
    ] {
        let (_, answer) = post(&chain.url(), body.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{} -> {answer}", &body[..body.len().min(80)]);
    }
    let (status, answer) = post(&chain.url(), vec![b' '; 600 << 10]).await;
    assert_eq!((status, answer["error"]["code"].as_i64()), (413, Some(-32600)));
    // A batch is answered in order, with its errors inside.
    let batch = format!("[{},{}]", ask("getHealth", json!([])), ask("nothing", json!([])));
    let (_, answer) = post(&chain.url(), batch).await;
    assert_eq!((&answer[0]["result"], answer[1]["error"]["code"].as_i64()), (&json!("ok"), Some(-32601)));
    assert_eq!(rpc.balance(&key(1).address()).await.unwrap(), 0);
}

#[tokio::test]
async fn unsigned_forged_and_oversized_transactions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, rpc) = start(folder.path(), HandClock::new()).await;
    rpc.airdrop(&key(1).address(), spl::LAMPORTS_PER_SOL).await.unwrap();
    let blockhash = rpc.latest_blockhash().await.unwrap().blockhash;
    let transfer = spl::system_transfer(key(1).address(), key(2).address(), 5_000_000);
    let signed = sign(&[transfer], &key(1), &[], &blockhash).unwrap();
    for at in [1, 40, signed.bytes().len() - 1] {
        let mut forged = signed.bytes().to_vec();
        forged[at] ^= 1;
        for skip in [false, true] {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(&forged);
            let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "sendTransaction",
                "params": [text, { "encoding": "base64", "skipPreflight": skip }] });
            let (_, answer) = post(&chain.url(), body.to_string()).await;
            assert_eq!(answer["error"]["data"]["err"], "SignatureFailure", "byte {at}: {answer}");
        }
    }
    assert_eq!(rpc.balance(&key(1).address()).await.unwrap(), spl::LAMPORTS_PER_SOL);
}

/// A server that answers every request with the same bytes.
async fn liar(answer: Vec<u8>) -> Rpc {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    let mut config = RpcConfig::new(format!("http://{address}"), 1);
    (config.timeout, config.tries_max, config.pause) = (Duration::from_secs(2), 2, Duration::from_millis(5));
    config.answer_bytes_max = 10_000;
    Rpc::new(config).unwrap()
}

fn http(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_lying_server_is_not_believed() {
    let address = Address([1; 32]);
    let account = |owner: &str, data: &str| {
        http(
            &json!({ "jsonrpc": "2.0", "id": 1, "result": { "context": { "slot": 1 }, "value":
            { "owner": owner, "lamports": 1, "data": [data, "base64"], "executable": false } } })
            .to_string(),
        )
    };
    // Not the market's account, whatever it says.
    let market = atoll_chain::market::Market::new(liar(account("11111111111111111111111111111111", "BgE=")).await);
    assert!(matches!(market.order(&address).await, Err(atoll_chain::market::ReadError::Foreign { .. })));
    let market =
        atoll_chain::market::Market::new(liar(account(&atoll_chain::market::PROGRAM_ID.to_string(), "BgE=")).await);
    assert!(matches!(market.order(&address).await, Err(atoll_chain::market::ReadError::Foreign { .. })));
    for body in ["", "<html>", "{}", r#"{"id":1,"result":null}"#, r#"{"id":2,"result":5}"#, r#"{"id":1,"result":-5}"#] {
        let error = liar(http(body)).await.slot().await.unwrap_err();
        assert!(matches!(error, RpcError::Malformed { .. }), "{body}: {error}");
    }
    let long = liar(http(&" ".repeat(20_000))).await.slot().await.unwrap_err();
    assert!(matches!(long, RpcError::TooLarge { limit: 10_000, .. }), "{long}");
    for broken in [&b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"[..], b"no http", b""] {
        let error = liar(broken.to_vec()).await.slot().await.unwrap_err();
        assert!(matches!(error, RpcError::Unreachable { tries: 2, .. }), "{error}");
    }
}

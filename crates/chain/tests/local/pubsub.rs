//! Subscriptions over real WebSockets, and what a client must not be able to do with them.

use atoll_chain::{sign, spl};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{DEADLINE, HandClock, key, run, start};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(url: &str) -> Socket {
    connect_async(url).await.unwrap().0
}

async fn send(socket: &mut Socket, value: &Value) {
    socket.send(Message::text(value.to_string())).await.unwrap();
}

/// The next text; none when the connection ends.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        let message = timeout(DEADLINE, socket.next()).await.expect("nothing was told in time");
        match message? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(_) | Err(_) => return None,
        }
    }
}

fn request(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

async fn ask(socket: &mut Socket, method: &str, params: Value) -> Value {
    send(socket, &request(method, params)).await;
    next(socket).await.unwrap()
}

#[tokio::test]
async fn both_ports_tell_accounts_programs_signatures_and_slots_until_they_are_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    let (payer, other) = (key(1), key(2).address());
    rpc.airdrop(&payer.address(), 10 * spl::LAMPORTS_PER_SOL).await.unwrap();
    let blockhash = rpc.latest_blockhash().await.unwrap().blockhash;
    let transfer = spl::system_transfer(payer.address(), other, spl::LAMPORTS_PER_SOL);
    let transaction = sign(&[transfer], &payer, &[], &blockhash).unwrap();
    let config = json!({ "encoding": "base64", "commitment": "confirmed" });
    for url in [chain.ws_url(), format!("ws://{}", chain.address())] {
        let mut socket = connect(&url).await;
        let account = ask(&mut socket, "accountSubscribe", json!([other, config])).await["result"].clone();
        assert!(account.is_u64());
        let signature = transaction.signature();
        let signature_config = json!({ "commitment": "confirmed", "enableReceivedNotification": true });
        let known = rpc.status(&signature).await.unwrap().is_some();
        let subscribed = ask(&mut socket, "signatureSubscribe", json!([signature, signature_config])).await;
        if known {
            // Over already: told at once, after the subscription's number.
            assert_eq!(next(&mut socket).await.unwrap()["params"]["result"]["value"], json!({ "err": null }));
            continue;
        }
        rpc.send(&transaction).await.unwrap();
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(next(&mut socket).await.unwrap());
        }
        assert_eq!(told[0]["params"]["result"]["value"], "receivedSignature");
        assert_eq!(told[1]["params"]["result"]["value"], json!({ "err": null }));
        assert_eq!(told[1]["params"]["subscription"], subscribed["result"]);
        assert_eq!((&told[2]["method"], &told[2]["params"]["subscription"]), (&json!("accountNotification"), &account));
        assert_eq!(told[2]["params"]["result"]["value"]["lamports"], spl::LAMPORTS_PER_SOL);
        // Once told, a signature's subscription is over.
        let again = ask(&mut socket, "signatureUnsubscribe", json!([subscribed["result"]])).await;
        assert_eq!(again["error"]["code"], -32602);

        assert_eq!(ask(&mut socket, "accountUnsubscribe", json!([account])).await["result"], true);
        let program = json!([spl::SYSTEM_PROGRAM, { "encoding": "base64", "filters": [{ "dataSize": 0 }] }]);
        let program = ask(&mut socket, "programSubscribe", program).await["result"].clone();
        run(&rpc, &[spl::system_transfer(payer.address(), other, 5)], &payer, &[]).await;
        let told = [next(&mut socket).await.unwrap(), next(&mut socket).await.unwrap()];
        let named: Vec<_> = told.iter().map(|one| &one["params"]["result"]["value"]["pubkey"]).collect();
        assert!(named.contains(&&json!(other)) && named.contains(&&json!(payer.address())), "{told:?}");
        assert_eq!(ask(&mut socket, "programUnsubscribe", json!([program])).await["result"], true);

        assert!(ask(&mut socket, "slotSubscribe", json!([])).await["result"].is_u64());
        let slot = rpc.slot().await.unwrap();
        clock.forward_ms(800);
        let told = [next(&mut socket).await.unwrap(), next(&mut socket).await.unwrap()];
        assert_eq!(told[0]["params"]["result"]["slot"], slot + 1, "the account is told no more");
        assert_eq!(told[1]["params"]["result"], json!({ "slot": slot + 2, "parent": slot + 1, "root": slot + 2 }));
    }
    chain.shutdown().await;
}

#[tokio::test]
async fn garbage_is_answered_and_pings_of_clients_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, _rpc) = start(folder.path(), HandClock::new()).await;
    let mut socket = connect(&chain.ws_url()).await;
    // A notification: some clients send it every few seconds, and an answer would confuse them.
    send(&mut socket, &json!({ "jsonrpc": "2.0", "method": "ping" })).await;
    let many = Value::Array(vec![json!({}); 101]);
    for (message, code) in [
        (json!(5), -32600),
        (json!([]), -32600),
        (many, -32600),
        (json!({ "id": 1 }), -32600),
        (request("getSlot", json!([])), -32601),
        (request("voteSubscribe", json!([])), -32601),
        (request("logsSubscribe", json!(["all"])), -32601),
        (request("accountSubscribe", json!([])), -32602),
        (request("accountSubscribe", json!(["1".repeat(10_000)])), -32602),
        (request("accountSubscribe", json!([key(1).address(), { "commitment": "soon" }])), -32602),
        (request("accountSubscribe", json!([key(1).address(), { "encoding": "base32" }])), -32602),
        (request("programSubscribe", json!([key(1).address(), { "filters": [{}, {}, {}, {}, {}] }])), -32602),
        (request("signatureSubscribe", json!([key(1).address()])), -32602),
        (request("slotUnsubscribe", json!([99])), -32602),
        (request("slotUnsubscribe", json!(["x"])), -32602),
    ] {
        send(&mut socket, &message).await;
        let answer = next(&mut socket).await.unwrap();
        assert_eq!(answer["error"]["code"], code, "{message} -> {answer}");
    }
    socket.send(Message::text("{")).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap()["error"]["code"], -32700);
    // A batch is answered as one; what is another connection's cannot be ended.
    let batch = json!([request("slotSubscribe", json!([])), request("slotUnsubscribe", json!([1]))]);
    let mut other = connect(&chain.ws_url()).await;
    let answers = ask(&mut socket, "slotSubscribe", json!([])).await;
    let refused = ask(&mut other, "slotUnsubscribe", json!([answers["result"]])).await;
    assert_eq!(refused["error"]["code"], -32602);
    send(&mut other, &batch).await;
    assert_eq!(next(&mut other).await.unwrap().as_array().map(Vec::len), Some(2));
    socket.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(next(&mut socket).await, None);
    chain.shutdown().await;
}

#[tokio::test]
async fn subscriptions_connections_and_messages_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, rpc) = start(folder.path(), HandClock::new()).await;
    let mut socket = connect(&chain.ws_url()).await;
    for batch in 0..6 {
        send(&mut socket, &Value::Array(vec![request("slotSubscribe", json!([])); 100])).await;
        let answers = next(&mut socket).await.unwrap();
        let refused = answers.as_array().unwrap().iter().filter(|answer| answer["error"]["code"] == -32600).count();
        assert_eq!(refused, if batch < 5 { 0 } else { 100 }, "batch {batch}");
    }
    let long = request("accountSubscribe", json!(["1".repeat(200 << 10)]));
    // The server may close before it has read it all.
    let _ = socket.send(Message::text(long.to_string())).await;
    assert_eq!(next(&mut socket).await, None);

    let mut open = Vec::new();
    for _ in 0..128 {
        open.push(connect(&chain.ws_url()).await);
    }
    let full = connect_async(chain.ws_url()).await.unwrap_err().to_string();
    assert!(full.contains("503"), "{full}");
    drop(open);
    let free = async { while connect_async(chain.ws_url()).await.is_err() {} };
    timeout(DEADLINE, free).await.expect("places come back");
    assert!(rpc.slot().await.is_ok());
    chain.shutdown().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let (chain, rpc) = start(folder.path(), clock.clone()).await;
    let mut slow = connect(&chain.ws_url()).await;
    let mut quick = connect(&chain.ws_url()).await;
    assert!(ask(&mut quick, "slotSubscribe", json!([])).await["result"].is_u64());
    for _ in 0..5 {
        send(&mut slow, &Value::Array(vec![request("slotSubscribe", json!([])); 100])).await;
        assert!(next(&mut slow).await.unwrap().is_array());
    }
    // 500 subscriptions hear of 30 slots at a time, 1.6 MB each, until the socket's buffers and the queue are full.
    for _ in 0..20 {
        clock.forward_ms(30 * 400);
        for _ in 0..30 {
            assert!(next(&mut quick).await.unwrap()["params"]["result"]["slot"].is_u64());
        }
        rpc.slot().await.unwrap();
    }
    // Only now does it begin to read, and finds the end after what was on its way.
    let mut heard = 0;
    while next(&mut slow).await.is_some() {
        heard += 1;
    }
    assert!(heard < 20 * 30 * 500, "everything was kept for it");
    chain.shutdown().await;
}

//! The border: keys, limits, unknown paths, bounds.

use atoll_control::config::Overrides;
use atoll_domain::key::{Digest, SecretKey};
use atoll_domain::money::UsdMicrosPerHour;

use crate::rig::{Rig, code, key_id, new_key, pack};

#[tokio::test]
async fn a_node_says_whether_it_lives_works_and_what_it_is() {
    let rig = Rig::start().await;
    assert_eq!(rig.call("GET", "/livez", "").await.0, 200);
    let not_yet = rig.call("GET", "/readyz", "").await;
    assert_eq!((not_yet.0, code(&not_yet).as_str()), (503, "not_ready"));
    assert_eq!(code(&rig.call("GET", "/v1/network", "").await), "not_ready");
    let worker = rig.worker(1).await;
    assert_eq!(rig.call("GET", "/readyz", "").await.0, 200);
    assert_eq!(rig.client.version().await.unwrap().version, env!("CARGO_PKG_VERSION"));
    let network = rig.client.network().await.unwrap();
    assert_eq!(network.solvers, [rig.control().keys.node.public()]);
    assert_eq!((network.packs[0].sha256, network.packs[0].workers), (pack().sha256, 1));
    let devices = rig.client.devices().await.unwrap();
    assert_eq!((devices[0].devices_free, devices[0].ask_min), (1, Some(UsdMicrosPerHour(50_000))));
    assert_eq!((devices[1].model.as_str(), devices[1].devices, devices[1].ask_min), ("h100", 0, None));
    let workers = rig.client.workers().await.unwrap();
    assert_eq!((workers[0].worker, workers[0].linked), (worker.id, true));
    assert_eq!(rig.client.whoami().await.unwrap().wallet, rig.renter.public());
}

#[tokio::test]
async fn only_a_living_key_of_this_operator_is_let_in() {
    let rig = Rig::start().await;
    let ask = async |key: Option<&str>| {
        let request = rig.http.get(format!("{}/v1/jobs", rig.base));
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        let answer = request.send().await.unwrap();
        code(&(answer.status().as_u16(), answer.text().await.unwrap()))
    };
    assert_eq!(ask(None).await, "unauthenticated");
    let wrong = format!("{}0", &rig.key[..rig.key.len() - 1]);
    let wrong = if wrong == rig.key { format!("{}1", &rig.key[..rig.key.len() - 1]) } else { wrong };
    for bad in ["", "x", "atoll_", &wrong, &"a".repeat(5000)] {
        assert_eq!(ask(Some(bad)).await, "unauthenticated", "{bad}");
    }
    assert_eq!(rig.client.jobs().await.unwrap(), []);
    let ended = new_key(rig.control(), "ended", rig.renter.public()).await;
    rig.control().store.api_key_revoke(key_id(&ended), rig.control().now()).await.unwrap();
    assert_eq!(ask(Some(&ended)).await, "key_expired");
}

#[tokio::test]
async fn what_does_not_exist_or_is_too_much_is_said() {
    let rig = Rig::start().await;
    rig.market(|_| {});
    assert_eq!(code(&rig.call("GET", "/v1/nothing", "").await), "no_such_route");
    assert_eq!(code(&rig.call("DELETE", "/v1/jobs", "").await), "method_not_allowed");
    assert_eq!(code(&rig.call("GET", "/v1/jobs/../../etc", "").await), "no_such_route");
    for path in ["/v1/jobs/x", "/v1/jobs/job_00000000000000000000000000", "/v1/clusters/clu_x/ray/api/jobs/"] {
        assert_eq!(code(&rig.call("GET", path, "").await), "not_found", "{path}");
    }
    assert_eq!(code(&rig.call("POST", "/v1/quotes", vec![b' '; 20_000]).await), "body_too_large");
    assert_eq!(code(&rig.call("POST", "/v1/quotes", "{").await), "bad_request");
    assert_eq!(code(&rig.call("PUT", "/v1/blobs/xyz", "x").await), "bad_request");
    let digest = Digest::of(b"other");
    assert_eq!(code(&rig.call("PUT", &format!("/v1/blobs/{digest}"), "this").await), "digest_mismatch");
    assert_eq!(rig.call("PUT", &format!("/v1/blobs/{digest}"), "other").await.0, 204);
}

#[tokio::test]
async fn too_many_requests_of_one_key_are_refused_and_of_another_not() {
    let limits = Overrides { requests_per_s: Some(1), requests_burst: Some(3), ..Overrides::default() };
    let rig = Rig::with(limits).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(rig.call("GET", "/v1/jobs", "").await.0);
    }
    assert_eq!(codes, [200, 200, 200, 429]);
    let other = new_key(rig.control(), "other", SecretKey::from_seed(&[2; 32]).public()).await;
    let answer = rig.http.get(format!("{}/v1/jobs", rig.base)).bearer_auth(other).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_quote_names_price_escrow_and_every_refusal() {
    let rig = Rig::start().await;
    let _linked = rig.worker(1).await;
    let away = rig.register(2);
    let ask = |devices: &str| {
        format!(r#"{{"model":"cpu","devices":{devices},"seconds_max":3600,"price_max":100000,"pack":"ray-torch"}}"#)
    };
    let (status, body) = rig.call("POST", "/v1/quotes", ask("1")).await;
    let quote: atoll_api::http::Quote = serde_json::from_str(&body).unwrap();
    assert_eq!((status, quote.fits, quote.price), (200, true, Some(UsdMicrosPerHour(50_000))));
    // 0.1 USD/h at 1 USD/ATL for an hour: the rate is rounded down to base units a second, the fee is 0.25%.
    let rate = 100_000_000 / 3600;
    let base = rate * 3600;
    assert_eq!(quote.escrow.0, base + base * 25 / 10_000);
    assert_eq!(quote.pack_sha256, Some(pack().sha256));
    let (_, body) = rig.call("POST", "/v1/quotes", ask("2")).await;
    let quote: atoll_api::http::Quote = serde_json::from_str(&body).unwrap();
    assert!(!quote.fits && quote.devices_free == 1 && quote.refusals.len() == 1, "{quote:?}");
    assert!(away.id != quote.refusals[0].worker, "a worker that never linked is unknown to this operator");
    for bad in ["0", "1000000000"] {
        assert_eq!(code(&rig.call("POST", "/v1/quotes", ask(bad)).await), "bad_spec");
    }
    assert_eq!(code(&rig.call("POST", "/v1/quotes", ask("-1")).await), "bad_request");
    assert_eq!(code(&rig.call("POST", "/v1/quotes", ask("1").replace("\"cpu\"", "\"tpu\"")).await), "unknown_model");
    for price in ["0", "99999999999999"] {
        let asked = ask("1").replace("100000", price);
        assert_eq!(code(&rig.call("POST", "/v1/quotes", asked).await), "bad_spec");
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_place() {
    let rig = Rig::with(Overrides { connections_max: Some(16), ..Overrides::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(tokio::net::TcpStream::connect(rig.node.address).await.unwrap());
    }
    let live = || rig.http.get(format!("{}/livez", rig.base));
    let early = live().timeout(std::time::Duration::from_millis(300)).send().await;
    assert!(early.is_err(), "a seventeenth connection was served");
    drop(idle);
    assert_eq!(live().send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn nothing_but_tls_is_spoken_and_an_endless_head_is_cut() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let rig = Rig::start().await;
    let mut plain = tokio::net::TcpStream::connect(rig.node.address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The connection may be reset instead of closed: either way nothing of HTTP came.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let long = "a".repeat(1_000_000);
    let answer = rig.http.get(format!("{}/livez", rig.base)).header("x-long", long).send().await;
    assert!(answer.is_err() || answer.unwrap().status() == 431, "a head of 1 MB was read");
    assert_eq!(rig.http.get(format!("{}/livez", rig.base)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_node_that_stops_ends_its_links_and_lets_go_of_its_port() {
    let rig = Rig::start().await;
    let mut worker = rig.worker(1).await;
    let address = rig.node.address;
    rig.node.stop().await;
    assert!(worker.next().await.is_none(), "the link was refused instead of ended");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

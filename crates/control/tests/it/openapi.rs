//! `openapi.json` is what the code says. `UPDATE=1` writes it anew.

use crate::rig::Rig;

#[test]
fn the_committed_description_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let text = atoll_control::http::openapi::text().unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "openapi.json is stale: UPDATE=1 cargo test -p atoll-control openapi");
    assert!(text.contains("\"openapi\": \"3.1"));
}

#[tokio::test]
async fn every_described_path_is_served() {
    let rig = Rig::start().await;
    let text = atoll_control::http::openapi::text().unwrap();
    let description: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (path, verbs) in description["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let path = path.replace(['{', '}'], "");
            let method = verb.to_uppercase().parse().unwrap();
            let answer = rig.http.request(method, format!("{}{path}", rig.base)).send().await.unwrap();
            let text = answer.text().await.unwrap();
            assert!(!text.contains("no_such_route") && !text.contains("method_not_allowed"), "{verb} {path}: {text}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "two operations are named {id}");
        }
    }
    assert!(seen.len() >= 17, "{seen:?}");
}

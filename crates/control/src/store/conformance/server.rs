//! What only a server can get wrong: passwords, its own words, lost connections.

use super::make::{NOW, accepted, api_key, event, job_now, user};
use super::{Fresh, admin, assert_not_found, server};
use crate::store::open;
use crate::store::postgres::Postgres;
use crate::store::sql::{Engine as _, Isolation, Value};

/// Today's operations hold by their guards alone; tomorrow's need not be that careful.
#[tokio::test]
async fn writing_transactions_are_serializable() {
    let at = Fresh::postgres().await;
    let engine = Postgres::open(&at.url).await.unwrap();
    let shown = engine.write(Isolation::Serializable, (), |(), tx| {
        Box::pin(async move { tx.query("select current_setting('transaction_isolation')", &[]).await })
    });
    assert_eq!(shown.await.unwrap()[0].0, [Value::Text("serializable".into())]);
}

#[tokio::test]
async fn a_wrong_password_is_not_repeated() {
    let wrong = server().url("postgres").replacen("atoll:", "atoll:hunter2", 1);
    let error = open(&wrong).await.unwrap_err();
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn neither_rows_nor_passwords_are_shown() {
    let at = Fresh::postgres().await;
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    at.raw("alter table jobs add constraint small check (event_count < 2)").await;
    let (_, job) = (user(1), store.jobs_open().await.unwrap().remove(0));
    // The server's own words would repeat the row with its runtime token.
    let error = store.job_change(job.id, 1, &job_now(), &[event("x")]).await.unwrap_err();
    let shown = format!("{error} {error:?} {store:?}");
    assert!(shown.contains("violates check constraint \"small\""), "{shown}");
    for secret in ["Failing row", "token", &job.id.to_string()] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let password = at.url.split([':', '@']).nth(2).unwrap();
    assert!(password.len() > 8 && !shown.contains(password));
}

#[tokio::test]
async fn operations_outlive_their_connections_on_postgres() {
    let at = Fresh::postgres().await;
    let store = at.open().await;
    store.user_add(&user(1)).await.unwrap();
    let database = at.url.rsplit('/').next().unwrap();
    for n in 2..6 {
        let kill = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}' and \
             application_name = 'atoll'"
        );
        assert!(!admin().await.query(&kill, &[]).await.unwrap().is_empty());
        store.user_add(&user(n)).await.unwrap();
        assert!(store.user_by_name(&user(n).name).await.unwrap().is_some());
    }
    assert_not_found(store.api_key_revoke(api_key(1, &user(1)).id, NOW).await, "API key");
}

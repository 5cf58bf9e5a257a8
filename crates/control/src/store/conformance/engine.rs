//! The engines themselves: schemas, damage, broken operations, connections, secrets.

use std::path::PathBuf;

use super::make::{accepted, job_now, user};
use super::{Fresh, assert_failed};
use crate::store::postgres::Postgres;
use crate::store::sql::{Engine, Failure, Isolation, Value};
use crate::store::sqlite::Sqlite;
use crate::store::{StoreError, open, sqlite_inline};

impl Fresh {
    pub(super) fn sqlite_path(&self) -> Option<PathBuf> {
        self.url.strip_prefix("sqlite:").map(PathBuf::from)
    }

    /// Runs SQL past the store.
    pub(super) async fn raw(&self, sql: &str) {
        if let Some(path) = self.sqlite_path() {
            return rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
        }
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    }

    /// 32 zero bytes in the engine's words.
    fn zeros(&self) -> &'static str {
        if self.sqlite_path().is_some() { "zeroblob(32)" } else { "decode(repeat('00', 32), 'hex')" }
    }
}

pub(super) async fn a_foreign_schema_is_refused(at: &Fresh) {
    at.open().await;
    at.raw(&format!("update atoll_schema set name = 'other', sha256 = {} where number = 1", at.zeros())).await;
    assert_failed(open(&at.url).await, "step 1 is `other`, which is not the `first` of this build");
}

pub(super) async fn a_damaged_row_is_said(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let whole = serde_json::to_string(&job_now()).unwrap().replace('\'', "''");
    for (damage, reason) in [
        ("changing = '{}'".to_owned(), "missing field"),
        (format!("changing = '{whole}', state = 'running'"), "beside the column's `running`"),
        (format!("state = 'ordering', spec_signature = {}", at.zeros()), "expected 64 bytes, found 32"),
    ] {
        at.raw(&format!("update jobs set {damage}")).await;
        let read = store.job(job.id).await;
        let said = matches!(&read, Err(StoreError::Corrupt { what: "job", reason: why }) if why.contains(reason));
        assert!(said, "{damage}: {read:?}");
    }
}

pub(super) async fn a_failing_operation_leaves_nothing(at: &Fresh) {
    at.open().await;
    match at.sqlite_path() {
        Some(path) => fails(at, &Sqlite::open(path).await.unwrap()).await,
        None => fails(at, &Postgres::open(&at.url).await.unwrap()).await,
    }
}

const ADD: &str = "insert into users (id, name, wallet, created) values ($1, $1, $2, $3)";

fn row() -> [Value; 3] {
    [Value::Text("half".into()), Value::Bytes(vec![1]), Value::Int(1)]
}

async fn fails<E: Engine>(at: &Fresh, engine: &E) {
    let store = at.open().await;
    for isolation in [Isolation::Serializable, Isolation::ReadCommitted] {
        let failed = engine
            .write(isolation, (), |(), tx| {
                Box::pin(async move {
                    tx.execute(ADD, &row()).await?;
                    Err::<(), _>(Failure::fatal("thought better of it"))
                })
            })
            .await;
        assert_failed(failed, "thought better of it");
        let undone = engine
            .write(isolation, 7, |answer, tx| {
                Box::pin(async move {
                    tx.undo();
                    tx.execute(ADD, &row()).await?;
                    Ok(*answer)
                })
            })
            .await;
        assert_eq!(undone.unwrap(), 7);
        assert!(store.user_by_name("half").await.unwrap().is_none());
    }
    // Reading connections cannot write.
    let written = engine.read((), |(), tx| Box::pin(async move { tx.execute(ADD, &row()).await })).await;
    assert_failed(written, "read");
    // The engine still works.
    store.user_add(&user(1)).await.unwrap();
}

pub(super) async fn a_store_answers(at: &Fresh) {
    let store = at.open().await;
    store.ping().await.unwrap();
    at.raw("drop table atoll_schema").await;
    assert_failed(store.ping().await, "atoll_schema");
}

#[tokio::test]
async fn a_panicking_operation_leaves_nothing_on_sqlite() {
    let at = Fresh::sqlite();
    let engine = std::sync::Arc::new(Sqlite::open(at.sqlite_path().unwrap()).await.unwrap());
    let running = std::sync::Arc::clone(&engine);
    let panicked = tokio::spawn(async move {
        running
            .write::<(), ()>(Isolation::Serializable, (), |(), tx| {
                Box::pin(async move {
                    tx.execute(ADD, &row()).await.unwrap();
                    panic!("a bug")
                })
            })
            .await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    let store = at.open().await;
    assert!(store.user_by_name("half").await.unwrap().is_none());
    let added =
        engine.write(Isolation::Serializable, (), |(), tx| Box::pin(async move { tx.execute(ADD, &row()).await }));
    assert_eq!(added.await.unwrap(), 1);
}

#[tokio::test]
async fn an_inline_store_has_its_file_alone() {
    let at = Fresh::sqlite();
    let path = at.sqlite_path().unwrap();
    let first = sqlite_inline(&path, None).unwrap();
    let (_, job) = accepted(first.as_ref(), 1).await;
    assert_failed(sqlite_inline(&path, None), "another process holds the database");
    assert_failed(sqlite_inline(&path, Some("no such file system")), "no such vfs");
    drop(first);
    let second = sqlite_inline(&path, None).unwrap();
    assert_eq!(second.job(job.id).await.unwrap(), Some(job));
}

#[tokio::test]
async fn a_sqlite_file_is_its_owners_and_kept_safely() {
    use std::os::unix::fs::PermissionsExt as _;
    let at = Fresh::sqlite();
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    let path = at.sqlite_path().unwrap();
    for name in ["control.db", "control.db-wal", "control.db-shm"] {
        let mode = std::fs::metadata(path.with_file_name(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn bad_urls_are_refused_without_repeating_them() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("sqlite:{}/no/such/folder.db", folder.path().display());
    assert_failed(open(&missing).await, "cannot be opened: No such file or directory");
    std::fs::write(folder.path().join("text"), "this is no database, whatever its name says").unwrap();
    let text = format!("sqlite:{}/text", folder.path().display());
    assert_failed(open(&text).await, "file is not a database");
    for url in [
        "",
        "sqlite:",
        "sqlite::memory:",
        "mysql://u:hunter2@h/d",
        "postgres://u:hunter2@h:99999/d",
        "postgres://u:p?hunter2=1@h/d",
        "postgres://u:p@h/d?hunter2=1",
        "postgres://u:hunter2@h/d?sslmode=require",
        "postgres://u:hunter2@127.0.0.1:1/d",
    ] {
        let error = open(url).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    assert_failed(open("postgres://u:p@h/d?sslmode=require").await, "drop `sslmode`");
}

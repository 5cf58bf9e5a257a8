//! Which builds of `atoll` use this store, so that two of them can do so at once.
//!
//! Every handle on the store registers its build and says every few seconds that it lives. A step of the schema that
//! takes something away waits until no build that needs it is alive, and from then on such a build is refused: when it
//! opens the store, when it beats, and in every transaction that it writes (it may have been asleep meanwhile).
//!
//! On PostgreSQL each writing transaction also leaves a token of its own. When the connection breaks while it commits,
//! the token says on another connection, or another server, whether it is written.

use super::super::{Result, StoreError};
use super::migrate::Migration;
use super::tx::{Dialect, Tx};
use super::value::Value;

/// How long a build counts as alive after its last beat: six of its beats.
const ALIVE_MS: i64 = 60_000;
/// How long a silent build is remembered.
const REMEMBERED_MS: i64 = 24 * 3600 * 1000;
/// How long a token is kept. Nobody asks after it later than the time limit of one operation, seconds.
const TOKEN_MS: i64 = 15 * 60 * 1000;

/// The tables that stand beside the numbered schema: what must be read before anything is known of it.
pub(super) const SCHEMA: &str = "create table if not exists atoll_builds \
     (id {bytes} primary key, schema bigint not null, version text not null, beat bigint not null); \
     create table if not exists atoll_readers (one bigint primary key check (one = 1), schema_min bigint not null); \
     insert into atoll_readers (one, schema_min) values (1, 0) on conflict do nothing; \
     create table if not exists atoll_writes (token {bytes} primary key, at bigint not null)";

/// The build behind one handle on the store.
#[derive(Clone, Debug)]
pub(in crate::store) struct Build {
    /// Tells handles apart; drawn by chance.
    pub(in crate::store) id: [u8; 16],
    /// The steps of the schema that it knows.
    pub(in crate::store) migrations: &'static [Migration],
}

impl Build {
    /// The number of the last step that it knows.
    pub(in crate::store) const fn schema(&self) -> i64 {
        self.migrations.len().cast_signed() as i64
    }
}

/// What a writing transaction begins with.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Stamp {
    /// The same for each try of one operation, and no other's.
    pub(in crate::store) token: [u8; 24],
    /// The build's schema.
    pub(in crate::store) schema: i64,
}

/// Whether this is the first transaction of its token that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Stamped {
    First,
    /// An earlier try is committed.
    Written,
}

/// Begins a writing transaction on PostgreSQL. Unless it is the `first` try, waits for one that the server is not done
/// with.
pub(in crate::store) async fn stamp(tx: &mut Tx<'_>, stamp: &Stamp, first: bool) -> Result<Stamped> {
    let sql = format!(
        "insert into atoll_writes (token, at) select cast($1 as bytea), {} where \
         (select schema_min from atoll_readers where one = 1) <= $2 on conflict (token) do nothing",
        Dialect::Postgres.now()
    );
    let token = Value::bytes(&stamp.token);
    if tx.execute(&sql, &[token.clone(), Value::Int(stamp.schema)]).await? == 1 {
        return Ok(Stamped::First);
    }
    if first {
        // Nobody else has this token, so the build is too old. How much is not to be had once the operation has failed.
        let told = fence(tx, stamp.schema).await;
        let outdated = StoreError::Outdated { needs: stamp.schema + 1, knows: stamp.schema };
        return Err(told.err().filter(|told| matches!(told, StoreError::Outdated { .. })).unwrap_or(outdated));
    }
    match tx.query_first("select at from atoll_writes where token = $1", &[token]).await? {
        Some(_) => Ok(Stamped::Written),
        None => fence(tx, stamp.schema).await.map(|()| Stamped::First),
    }
}

/// Refuses a build that knows too little of the schema.
pub(in crate::store) async fn fence(tx: &mut Tx<'_>, schema: i64) -> Result<()> {
    let needs = schema_min(tx).await?;
    if needs > schema { Err(StoreError::Outdated { needs, knows: schema }) } else { Ok(()) }
}

/// The least schema that a build must know.
pub(super) async fn schema_min(tx: &mut Tx<'_>) -> Result<i64> {
    let row = tx.query_first("select schema_min from atoll_readers where one = 1", &[]).await?;
    row.map_or(Ok(0), |row| row.read("schema").int())
}

/// From here on a build must know this schema.
pub(super) async fn require(tx: &mut Tx<'_>, schema: i64) -> Result<()> {
    let sql = "update atoll_readers set schema_min = $1 where one = 1 and schema_min < $1";
    tx.execute(sql, &[Value::Int(schema)]).await.map(drop)
}

/// Builds that are alive and know less than a schema, in words for people.
pub(super) async fn older(tx: &mut Tx<'_>, schema: i64) -> Result<Vec<String>> {
    let sql = format!(
        "select schema, version from atoll_builds where schema < $1 and beat > {} - $2 order by schema, id",
        tx.dialect().now()
    );
    let rows = tx.query(&sql, &[Value::Int(schema), Value::Int(ALIVE_MS)]).await?;
    rows.into_iter()
        .map(|row| {
            let mut row = row.read("build");
            let (schema, version): (i64, String) = (row.int()?, row.text()?);
            Ok(format!("atoll {version} (schema {schema})"))
        })
        .collect()
}

/// Says that this build is alive, and forgets what is long over.
pub(super) async fn register(tx: &mut Tx<'_>, build: &Build) -> Result<()> {
    let now = tx.dialect().now();
    let sql = format!(
        "insert into atoll_builds (id, schema, version, beat) values ($1, $2, $3, {now}) \
         on conflict (id) do update set beat = excluded.beat"
    );
    let values = [Value::bytes(&build.id), Value::Int(build.schema()), Value::words(env!("CARGO_PKG_VERSION"))];
    tx.execute(&sql, &values).await?;
    tx.execute(&format!("delete from atoll_builds where beat < {now} - $1"), &[Value::Int(REMEMBERED_MS)]).await?;
    tx.execute(&format!("delete from atoll_writes where at < {now} - $1"), &[Value::Int(TOKEN_MS)]).await.map(drop)
}

/// A beat: refuses a build that has become too old, and applies what waited for such a one to end.
pub(super) async fn beat(tx: &mut Tx<'_>, build: &Build) -> Result<()> {
    fence(tx, build.schema()).await?;
    let row = tx.query_first("select count(*) from atoll_schema", &[]).await?;
    let applied: i64 = row.ok_or(StoreError::NotFound { what: "schema" })?.read("schema").int()?;
    if applied < build.schema() { super::migrate::migrate(tx, build).await } else { register(tx, build).await }
}

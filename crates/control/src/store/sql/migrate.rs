//! Brings a database's schema up to date.
//!
//! Migrations are numbered, embedded and never edited once released: the digest of what was applied is kept and
//! compared. Most expand (new tables, new columns that may be empty): builds that do not know such a step work on beside
//! those that do. What no build needs any more is taken away by a migration whose name ends in `contract` and whose first
//! line says from which schema on builds can do without it: `-- contract: for builds from schema 5`. It waits until no
//! older build is alive ([`builds`](super::builds)), and refuses those from then on.

use atoll_domain::key::Digest;

use super::super::Result;
use super::builds::{self, Build};
use super::tx::{Dialect, Failure, Tx};
use super::value::Value;

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Migration {
    /// Its name, for people.
    pub(in crate::store) name: &'static str,
    /// Its text, with the engine's words left open.
    pub(in crate::store) sql: &'static str,
}

/// How the first line of a migration begins that takes something away.
const CONTRACT: &str = "-- contract: for builds from schema ";

impl Migration {
    /// The least schema of the builds that this step leaves able to work; none when all are.
    fn readers_from(&self) -> Option<i64> {
        self.sql.lines().next()?.strip_prefix(CONTRACT)?.trim().parse().ok()
    }
}

/// All steps; the first is number 1.
pub(in crate::store) const MIGRATIONS: &[Migration] = &[
    Migration { name: "first", sql: include_str!("migrations/0001_first.sql") },
    Migration { name: "strays", sql: include_str!("migrations/0002_strays.sql") },
    Migration { name: "nodes", sql: include_str!("migrations/0003_nodes.sql") },
    Migration { name: "pending", sql: include_str!("migrations/0004_pending.sql") },
];

/// Held while migrating, so that nodes that start together do it one after the other. Any fixed number: "atoll" in
/// ASCII.
const POSTGRES_LOCK: &str = "set local statement_timeout = 0; set local lock_timeout = 0; \
     select pg_advisory_xact_lock(418380148844)";

const SCHEMA: &str = "create table if not exists atoll_schema \
     (number bigint primary key, name text not null, sha256 {bytes} not null)";

/// Applies what is missing, all of it or nothing, inside the transaction that the caller opened, and registers the build.
pub(in crate::store) async fn migrate(tx: &mut Tx<'_>, build: &Build) -> Result<()> {
    let dialect = tx.dialect();
    if dialect == Dialect::Postgres {
        tx.batch(POSTGRES_LOCK).await?;
    }
    tx.batch(&dialect.schema(SCHEMA)).await?;
    tx.batch(&dialect.schema(builds::SCHEMA)).await?;
    let mut applied = Vec::new();
    for row in tx.query("select name, sha256 from atoll_schema order by number", &[]).await? {
        let mut row = row.read("schema");
        applied.push((row.text()?, Digest(row.array()?)));
    }
    builds::fence(tx, build.schema()).await?;
    check(&applied, build.migrations)?;
    for (number, migration) in (1_i64..).zip(build.migrations).skip(applied.len()) {
        if let Some(readers_from) = migration.readers_from() {
            let older = builds::older(tx, readers_from).await?;
            if !older.is_empty() {
                wait_for(&older, number, migration, build)?;
                break;
            }
            builds::require(tx, readers_from).await?;
        }
        apply(tx, number, migration).await?;
    }
    builds::register(tx, build).await
}

async fn apply(tx: &mut Tx<'_>, number: i64, migration: &Migration) -> Result<()> {
    let dialect = tx.dialect();
    tx.batch(&dialect.schema(migration.sql)).await?;
    tx.execute(
        "insert into atoll_schema (number, name, sha256) values ($1, $2, $3)",
        &[Value::Int(number), Value::words(migration.name), Value::bytes(&Digest::of(migration.sql.as_bytes()).0)],
    )
    .await?;
    tracing::info!(number, name = migration.name, "schema migrated");
    Ok(())
}

/// A step that has to wait for older builds. The build works without it, unless it needs one of the steps behind.
fn wait_for(older: &[String], number: i64, migration: &Migration, build: &Build) -> Result<()> {
    let older = older.join(", ");
    let behind = (1_i64..).zip(build.migrations).skip_while(|(at, _)| *at < number);
    if let Some((needed, _)) = behind.into_iter().find(|(_, step)| step.readers_from().is_none()) {
        return Err(Failure::fatal(format!(
            "the store's schema step {needed} comes behind step {number}, which waits for older nodes to end: stop {older}, \
             wait a minute, and start this one again (docs/operators/upgrade.md)"
        )));
    }
    tracing::warn!(number, name = migration.name, older, "a schema step waits for older nodes to end");
    Ok(())
}

/// Whether what the database has and what this build knows begin alike. Steps beyond what it knows leave it able to work.
fn check(applied: &[(String, Digest)], known: &[Migration]) -> Result<()> {
    for ((number, (name, digest)), migration) in (1_u32..).zip(applied).zip(known) {
        if *digest != Digest::of(migration.sql.as_bytes()) {
            return Err(Failure::fatal(format!(
                "the store's schema step {number} is `{name}`, which is not the `{}` of this build: the store belongs \
                 to another build of `atoll`",
                migration.name
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_only_expand_or_say_whom_they_leave_behind() {
        for (number, migration) in (1_i64..).zip(MIGRATIONS) {
            let Migration { name, sql } = migration;
            let words = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<String>();
            let destroys = ["drop ", "rename ", "delete ", "alter column"].iter().any(|word| words.contains(word));
            let readers_from = migration.readers_from();
            assert_eq!(name.ends_with("contract"), readers_from.is_some(), "migration `{name}`: name and first line");
            assert!(!destroys || readers_from.is_some(), "migration `{name}` takes something away");
            assert!(readers_from.is_none_or(|from| from < number), "migration `{name}` leaves nobody able to work");
        }
    }
}

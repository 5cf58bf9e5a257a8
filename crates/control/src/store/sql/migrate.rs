//! Brings a database's schema up to date.
//!
//! Migrations are numbered, embedded and never edited once released: the digest of what was applied is kept and
//! compared. They only expand (new tables, new columns that may be empty); what a later release no longer needs is
//! dropped by a migration whose name ends in `contract`, after the last release that used it. So nodes of two releases
//! can run over one store. A schema that is newer than this build is refused.

use atoll_domain::key::Digest;

use super::super::Result;
use super::tx::{Dialect, Failure, Tx};
use super::value::Value;

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Migration {
    /// Its name, for people.
    pub(super) name: &'static str,
    /// Its text, with the engine's words left open.
    pub(super) sql: &'static str,
}

/// All steps; the first is number 1.
pub(in crate::store) const MIGRATIONS: &[Migration] = &[
    Migration { name: "first", sql: include_str!("migrations/0001_first.sql") },
    Migration { name: "strays", sql: include_str!("migrations/0002_strays.sql") },
    Migration { name: "nodes", sql: include_str!("migrations/0003_nodes.sql") },
];

/// Held while migrating, so that nodes that start together do it one after the other. Any fixed number: "atoll" in
/// ASCII.
const POSTGRES_LOCK: &str = "set local statement_timeout = 0; set local lock_timeout = 0; \
     select pg_advisory_xact_lock(418380148844)";

const SCHEMA: &str = "create table if not exists atoll_schema \
     (number bigint primary key, name text not null, sha256 {bytes} not null)";

/// Applies what is missing, all of it or nothing, inside the transaction that the caller opened.
pub(in crate::store) async fn migrate(tx: &mut Tx<'_>, dialect: Dialect) -> Result<()> {
    run(tx, dialect, MIGRATIONS).await
}

/// Applies what is missing of `migrations`.
pub(super) async fn run(tx: &mut Tx<'_>, dialect: Dialect, migrations: &[Migration]) -> Result<()> {
    if dialect == Dialect::Postgres {
        tx.batch(POSTGRES_LOCK).await?;
    }
    tx.batch(&dialect.schema(SCHEMA)).await?;
    let mut applied = Vec::new();
    for row in tx.query("select name, sha256 from atoll_schema order by number", &[]).await? {
        let mut row = row.read("schema");
        applied.push((row.text()?, Digest(row.array()?)));
    }
    check(&applied, migrations)?;
    for (number, migration) in (1_u32..).zip(migrations).skip(applied.len()) {
        tx.batch(&dialect.schema(migration.sql)).await?;
        tx.execute(
            "insert into atoll_schema (number, name, sha256) values ($1, $2, $3)",
            &[
                Value::small(number),
                Value::words(migration.name),
                Value::bytes(&Digest::of(migration.sql.as_bytes()).0),
            ],
        )
        .await?;
        tracing::info!(number, name = migration.name, "schema migrated");
    }
    Ok(())
}

/// Whether what the database has is a beginning of what this build knows.
fn check(applied: &[(String, Digest)], known: &[Migration]) -> Result<()> {
    if applied.len() > known.len() {
        return Err(Failure::fatal(format!(
            "the store has schema {}, this build knows up to {}: run the `atoll` that wrote it, or a newer one",
            applied.len(),
            known.len()
        )));
    }
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
    fn migrations_only_expand() {
        for Migration { name, sql } in MIGRATIONS {
            let words = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<String>();
            let destroys = ["drop ", "rename ", "delete ", "alter column"].iter().any(|word| words.contains(word));
            assert!(!destroys || name.ends_with("contract"), "migration `{name}` takes something away");
        }
    }
}

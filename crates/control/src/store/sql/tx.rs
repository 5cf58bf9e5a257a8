//! One transaction on either engine, and what an engine must be able to do.
//!
//! Operations are written once against [`Tx`]. On PostgreSQL they wait for the server; on SQLite every answer is there
//! at once, so the same future runs to its end on a blocking thread without ever being suspended.

use std::future::Future;

use futures_util::future::BoxFuture;

use super::super::postgres::{self, PgConnection};
use super::super::{Result, StoreError, sqlite};
use super::builds::Build;
use super::value::{Row, Value};

/// The few places where the engines speak differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// A schema text with the engine's own type names.
    pub(in crate::store) fn schema(self, text: &str) -> String {
        let (bytes, serial) = match self {
            Self::Sqlite => ("blob", "integer primary key autoincrement"),
            Self::Postgres => ("bytea", "bigint generated always as identity primary key"),
        };
        text.replace("{bytes}", bytes).replace("{serial}", serial)
    }

    /// The database's own time, in milliseconds since the Unix epoch: the same for all who use it.
    pub(super) const fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "cast(unixepoch('subsec') * 1000 as integer)",
            Self::Postgres => "cast(extract(epoch from clock_timestamp()) * 1000 as bigint)",
        }
    }

    /// The rows of a JSON list in parameter `$1`, as a table `given` with these `text` or `bigint` columns.
    pub(super) fn given(self, columns: &[(&str, &str)]) -> String {
        match self {
            Self::Sqlite => {
                let picked: Vec<_> = columns.iter().map(|(name, _)| format!("value ->> '{name}' as {name}")).collect();
                format!("(select {} from json_each($1)) as given", picked.join(", "))
            }
            Self::Postgres => {
                let typed: Vec<_> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
                format!("jsonb_to_recordset(cast(cast($1 as text) as jsonb)) as given ({})", typed.join(", "))
            }
        }
    }
}

#[derive(Debug)]
pub(in crate::store) enum Connection<'c> {
    Sqlite(&'c mut rusqlite::Connection),
    Postgres(PgConnection<'c>),
}

/// What an operation works in: a transaction, or for a reading operation a connection.
#[derive(Debug)]
pub(in crate::store) struct Tx<'c> {
    connection: Connection<'c>,
    undone: bool,
}

impl<'c> Tx<'c> {
    pub(in crate::store) const fn new(connection: Connection<'c>) -> Self {
        Self { connection, undone: false }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        match self.connection {
            Connection::Sqlite(_) => Dialect::Sqlite,
            Connection::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Has the transaction rolled back at its end although the operation has a result: a refusal leaves nothing behind.
    pub(in crate::store) const fn undo(&mut self) {
        self.undone = true;
    }

    pub(in crate::store) const fn undone(&self) -> bool {
        self.undone
    }

    /// Runs a statement; how many rows it wrote.
    pub(in crate::store) async fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64> {
        match &mut self.connection {
            Connection::Sqlite(connection) => sqlite::execute(connection, sql, values),
            Connection::Postgres(connection) => postgres::execute(connection, sql, values).await,
        }
    }

    /// Runs a statement; its rows.
    pub(in crate::store) async fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        match &mut self.connection {
            Connection::Sqlite(connection) => sqlite::query(connection, sql, values),
            Connection::Postgres(connection) => postgres::query(connection, sql, values).await,
        }
    }

    /// Runs a statement; its first row, if any.
    pub(super) async fn query_first(&mut self, sql: &str, values: &[Value]) -> Result<Option<Row>> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// Runs several statements without parameters.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<()> {
        match &mut self.connection {
            Connection::Sqlite(connection) => sqlite::batch(connection, sql),
            Connection::Postgres(connection) => postgres::batch(connection, sql).await,
        }
    }
}

/// How strictly a writing transaction is kept apart from others. SQLite has one writer at a time anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Isolation {
    /// As if transactions ran one after the other, each of them counting once. The rule.
    Serializable,
    /// Only for what may overlap with anything and be done twice, such as dropping what is out of date.
    ReadCommitted,
}

/// An operation: its arguments apart from its code, so that an engine can move the one to another thread and repeat
/// the other.
pub(in crate::store) type Operation<A, T> = for<'t, 'c> fn(&'t A, &'t mut Tx<'c>) -> BoxFuture<'t, Result<T>>;

/// A database that runs operations.
pub(in crate::store) trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// Runs `operation` in one transaction: all of it or nothing. Repeats it when the engine asks for that.
    fn write<A, T>(
        &self,
        isolation: Isolation,
        arguments: A,
        operation: Operation<A, T>,
    ) -> impl Future<Output = Result<T>> + Send
    where
        A: Send + Sync + 'static,
        T: Send + 'static;

    /// Runs an `operation` that is a single reading statement.
    fn read<A, T>(&self, arguments: A, operation: Operation<A, T>) -> impl Future<Output = Result<T>> + Send
    where
        A: Send + Sync + 'static,
        T: Send + 'static;

    /// The build that this handle is of.
    fn build(&self) -> &Build;
}

/// What may help after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Cure {
    /// Nothing that the store could do by itself.
    None,
    /// The engine rolled the transaction back: run it again.
    Repeat,
    /// The server is away, or another one has its place: run it again on another connection.
    Reconnect,
    /// The disk failed: what this connection believes of the file is not to be trusted any further.
    Reopen,
    /// The disk is full: somebody must make room, then it goes on.
    Room,
}

/// How an engine failed: words without any secret, and what may help.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub(in crate::store) struct Failure {
    pub(in crate::store) words: String,
    pub(in crate::store) cure: Cure,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Engine(Box::new(failure))
    }
}

impl Failure {
    pub(in crate::store) fn fatal(words: impl Into<String>) -> StoreError {
        Self { words: words.into(), cure: Cure::None }.into()
    }

    pub(in crate::store) fn full(words: impl Into<String>) -> StoreError {
        Self { words: words.into(), cure: Cure::Room }.into()
    }

    pub(in crate::store) fn repeatable(words: impl Into<String>) -> StoreError {
        Self { words: words.into(), cure: Cure::Repeat }.into()
    }

    /// What may help after this error.
    pub(in crate::store) fn cure_of(error: &StoreError) -> Cure {
        let StoreError::Engine(source) = error else { return Cure::None };
        source.downcast_ref::<Self>().map_or(Cure::None, |failure| failure.cure)
    }
}

/// Whether the transaction that ended so was rolled back by the engine and may simply be run again.
pub(in crate::store) fn is_repeatable(error: &StoreError) -> bool {
    Failure::cure_of(error) == Cure::Repeat
}

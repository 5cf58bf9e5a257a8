//! PostgreSQL: for several control nodes over one store.
//!
//! Writing operations are serializable transactions; the server refuses one of two that collide, and that one is run
//! again from its start. Each counts once: it writes a token of its own, and when the connection breaks while it commits,
//! the token says on another connection whether it is written (`sql/builds.rs`). So a server may be restarted, and with
//! several hosts in the URL replaced by its standby, under nodes that work on; what a node acknowledged stays if the
//! server waits for its standby (`synchronous_standby_names`).
//!
//! Connections are not encrypted: use a unix socket or a private network (a URL that demands TLS is refused with words).
//! Replication and failover are the database's.

mod connect;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Client, HookError, Object, Pool, PoolError, Transaction};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::IsolationLevel;
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};

use super::sql::{
    Build, Connection, Cure, Engine, Failure, Isolation, MIGRATIONS, Migration, Operation, Row, Stamp, Stamped, Tx,
    Value, migrate, stamp,
};
use super::{Result, StoreError};

/// How often a refused transaction is run again. With eight writers on one row the slowest needs about eight.
const REPEATS_MAX: u32 = 30;
/// How long an operation waits for a server that is away or being replaced. Longer than a promotion takes; short enough
/// that whoever asked still waits.
const AWAY_MAX: Duration = Duration::from_secs(15);
/// How long one try of an operation may take: a server that hangs is as good as dead. Above its own limits (`connect`).
const TRY_MAX: Duration = Duration::from_secs(5);
/// The first pause is at most this long, then twice that, up to [`PAUSE_MAX`]; the length is drawn by chance.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// A store on a PostgreSQL server.
pub(super) struct Postgres {
    pool: Pool,
    build: Build,
    /// Operations so far: with the build's id, each one's token.
    writes: AtomicU64,
}

impl std::fmt::Debug for Postgres {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.pool.status();
        write!(f, "Postgres({} of {} connections)", status.size, status.max_size)
    }
}

/// A connection in or outside of a transaction.
pub(super) enum PgConnection<'c> {
    Reading(&'c Client),
    Writing(&'c Transaction<'c>),
}

impl std::fmt::Debug for PgConnection<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reading(_) => "Reading",
            Self::Writing(_) => "Writing",
        })
    }
}

/// How one try of a writing operation ended.
enum Tried<T> {
    /// It is written, or it decided to write nothing.
    Done(T),
    /// An earlier try is written after all.
    WrittenBefore,
    /// Whether it is written is not known: the connection broke while it committed.
    Unknown(T, StoreError),
    /// Nothing is written.
    Failed(StoreError),
}

impl Postgres {
    /// Connects and brings the schema up to date.
    pub(super) async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, MIGRATIONS).await
    }

    /// As a build that knows these steps of the schema.
    pub(super) async fn open_with(url: &str, migrations: &'static [Migration]) -> Result<Self> {
        let build = Build { id: random()?, migrations };
        let store = Self { pool: connect::pool(url)?, build, writes: AtomicU64::new(0) };
        connect::warn_of_loss(&store.client().await?).await.map_err(|error| failure(&error))?;
        store.migrate().await?;
        Ok(store)
    }

    /// Without a time limit: another node may be at it, and a step may take long.
    async fn migrate(&self) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.build_transaction().start().await.map_err(|error| failure(&error))?;
        transaction.batch_execute("set transaction read write").await.map_err(|error| failure(&error))?;
        let mut tx = Tx::new(Connection::Postgres(PgConnection::Writing(&transaction)));
        migrate(&mut tx, &self.build).await?;
        transaction.commit().await.map_err(|error| commit_failure(&error))
    }

    async fn client(&self) -> Result<Client> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => failure(&error),
            PoolError::Timeout(_) => away("no connection to PostgreSQL in time"),
            other => Failure::fatal(other.to_string()),
        })
    }

    /// Closes a connection that did not answer in time, and those that wait beside it: the server hangs.
    fn discard(&self, client: Client) {
        drop(Object::take(client));
        self.pool.retain(|_, _| false);
    }

    fn next_stamp(&self) -> Stamp {
        let mut token = [0_u8; 24];
        token[..16].copy_from_slice(&self.build.id);
        token[16..].copy_from_slice(&self.writes.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Stamp { token, schema: self.build.schema() }
    }

    async fn attempt<A, T>(&self, stamped: Option<(Stamp, bool)>, arguments: &A, operation: Operation<A, T>) -> Tried<T>
    where
        A: Send + Sync,
        T: Send,
    {
        let mut client = match self.client().await {
            Ok(client) => client,
            Err(error) => return Tried::Failed(error),
        };
        let deadline = Instant::now() + TRY_MAX;
        let tried = attempt_on(&mut client, deadline, stamped, arguments, operation).await;
        if let Tried::Unknown(_, error) | Tried::Failed(error) = &tried
            && Failure::cure_of(error) == Cure::Reconnect
        {
            if Instant::now() >= deadline {
                self.discard(client);
            } else {
                drop(Object::take(client));
            }
        }
        tried
    }

    async fn reading<A, T>(&self, arguments: &A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync,
        T: Send,
    {
        let client = self.client().await?;
        let read =
            async { operation(arguments, &mut Tx::new(Connection::Postgres(PgConnection::Reading(&client)))).await };
        match timeout_at(Instant::now() + TRY_MAX, read).await {
            Ok(Err(error)) if Failure::cure_of(&error) == Cure::Reconnect => {
                drop(Object::take(client));
                Err(error)
            }
            Ok(result) => result,
            Err(_) => {
                self.discard(client);
                Err(away(HANGS))
            }
        }
    }
}

const HANGS: &str = "PostgreSQL does not answer in time";

/// One try on one connection.
async fn attempt_on<A, T>(
    client: &mut Client,
    deadline: Instant,
    stamped: Option<(Stamp, bool)>,
    arguments: &A,
    operation: Operation<A, T>,
) -> Tried<T>
where
    A: Send + Sync,
    T: Send,
{
    let level = if stamped.is_some() { IsolationLevel::Serializable } else { IsolationLevel::ReadCommitted };
    let start = client.build_transaction().isolation_level(level).read_only(false).start();
    let transaction = match timeout_at(deadline, start).await {
        Ok(Ok(transaction)) => transaction,
        Ok(Err(error)) => return Tried::Failed(failure(&error)),
        Err(_) => return Tried::Failed(away(HANGS)),
    };
    let mut tx = Tx::new(Connection::Postgres(PgConnection::Writing(&transaction)));
    let (outcome, undone) = match timeout_at(deadline, work(&transaction, &mut tx, stamped, arguments, operation)).await
    {
        Ok(Ok(Some(result))) => (Ok(result), tx.undone()),
        Ok(Ok(None)) => return Tried::WrittenBefore,
        Ok(Err(error)) => (Err(error), true),
        Err(_) => return Tried::Failed(away(HANGS)),
    };
    match outcome {
        Ok(result) if !undone => match timeout_at(deadline, transaction.commit()).await {
            Ok(Ok(())) => Tried::Done(result),
            Ok(Err(error)) => match commit_failure(&error) {
                unknown if Failure::cure_of(&unknown) == Cure::Reconnect => Tried::Unknown(result, unknown),
                refused => Tried::Failed(refused),
            },
            Err(_) => Tried::Unknown(result, away(COMMITTING)),
        },
        outcome => {
            // A lost connection rolls back too; the operation's own outcome says more than this one's.
            if !matches!(timeout_at(deadline, transaction.rollback()).await, Ok(Ok(()))) {
                tracing::debug!("the connection was lost before the rollback");
            }
            outcome.map_or_else(Tried::Failed, Tried::Done)
        }
    }
}

/// Stamps and operates; none when an earlier try is written. The first try's stamp travels with the operation's first
/// statement; a later one has to wait for what became of the try before it.
async fn work<A, T>(
    transaction: &Transaction<'_>,
    tx: &mut Tx<'_>,
    stamped: Option<(Stamp, bool)>,
    arguments: &A,
    operation: Operation<A, T>,
) -> Result<Option<T>>
where
    A: Send + Sync,
    T: Send,
{
    let Some((own, first)) = stamped else { return operation(arguments, tx).await.map(Some) };
    let mut beside = Tx::new(Connection::Postgres(PgConnection::Writing(transaction)));
    if first {
        let (stamped, result) = futures_util::join!(stamp(&mut beside, &own, true), operation(arguments, tx));
        return match (stamped, result) {
            (Ok(_), Ok(result)) => Ok(Some(result)),
            // What the server says of every statement after the one that failed.
            (Err(echo), Err(error)) if is_echo(&echo) => Err(error),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
    }
    match stamp(&mut beside, &own, false).await? {
        Stamped::First => operation(arguments, tx).await.map(Some),
        Stamped::Written => Ok(None),
    }
}

impl Engine for Postgres {
    async fn write<A, T>(&self, isolation: Isolation, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let stamp = (isolation == Isolation::Serializable).then(|| self.next_stamp());
        let mut repeats = Repeats::new();
        // What a try whose end is not known would have answered.
        let mut unknown: Option<T> = None;
        loop {
            let stamped = stamp.map(|stamp| (stamp, unknown.is_none()));
            let error = match self.attempt(stamped, &arguments, operation).await {
                Tried::Done(result) => return Ok(result),
                Tried::WrittenBefore => return unknown.ok_or_else(|| Failure::fatal("a token was used twice")),
                Tried::Unknown(result, error) => {
                    unknown = Some(result);
                    error
                }
                Tried::Failed(error) => error,
            };
            if !repeats.again(&error).await? {
                return Err(if unknown.is_some() { Failure::fatal(COMMITTING) } else { error });
            }
        }
    }

    async fn read<A, T>(&self, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let mut repeats = Repeats::new();
        loop {
            match self.reading(&arguments, operation).await {
                Err(error) if repeats.again(&error).await? => {}
                result => return result,
            }
        }
    }

    fn build(&self) -> &Build {
        &self.build
    }
}

/// Counts the repeats of one operation and pauses between them.
struct Repeats {
    left: u32,
    until: Instant,
    pause: Duration,
}

impl Repeats {
    fn new() -> Self {
        Self { left: REPEATS_MAX, until: Instant::now() + AWAY_MAX, pause: PAUSE_FIRST }
    }

    /// Whether to run the operation again after this failure; pauses before it says so.
    async fn again(&mut self, error: &StoreError) -> Result<bool> {
        match Failure::cure_of(error) {
            Cure::Repeat if self.left > 0 => self.left -= 1,
            Cure::Reconnect if Instant::now() < self.until => {}
            _ => return Ok(false),
        }
        tracing::debug!(%error, "an operation is run again");
        tokio::time::sleep(jitter(self.pause)?).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(true)
    }
}

/// A length between nothing and `longest`.
fn jitter(longest: Duration) -> Result<Duration> {
    Ok(longest * (u32::from_le_bytes(random()?) % 1000) / 1000)
}

#[expect(clippy::disallowed_methods, reason = "how long a writer waits and what its token is decides nothing")]
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut draw = [0_u8; N];
    getrandom::fill(&mut draw).map_err(|error| Failure::fatal(format!("no randomness: {error}")))?;
    Ok(draw)
}

async fn prepared(connection: &PgConnection<'_>, sql: &str) -> Result<Statement> {
    match connection {
        PgConnection::Reading(client) => client.prepare_cached(sql).await,
        PgConnection::Writing(transaction) => transaction.prepare_cached(sql).await,
    }
    .map_err(|error| failure(&error))
}

fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

pub(super) async fn execute(connection: &PgConnection<'_>, sql: &str, values: &[Value]) -> Result<u64> {
    let statement = prepared(connection, sql).await?;
    match connection {
        PgConnection::Reading(client) => client.execute(&statement, &parameters(values)).await,
        PgConnection::Writing(transaction) => transaction.execute(&statement, &parameters(values)).await,
    }
    .map_err(|error| failure(&error))
}

pub(super) async fn query(connection: &PgConnection<'_>, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
    let statement = prepared(connection, sql).await?;
    let rows = match connection {
        PgConnection::Reading(client) => client.query(&statement, &parameters(values)).await,
        PgConnection::Writing(transaction) => transaction.query(&statement, &parameters(values)).await,
    }
    .map_err(|error| failure(&error))?;
    rows.iter().map(row).collect()
}

pub(super) async fn batch(connection: &PgConnection<'_>, sql: &str) -> Result<()> {
    match connection {
        PgConnection::Reading(client) => client.batch_execute(sql).await,
        PgConnection::Writing(transaction) => transaction.batch_execute(sql).await,
    }
    .map_err(|error| failure(&error))
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) if *kind == Type::INT8 => value.to_sql(kind, out),
            Self::Text(text) if *kind == Type::TEXT => text.to_sql(kind, out),
            Self::Bytes(bytes) if *kind == Type::BYTEA => bytes.to_sql(kind, out),
            _ => Err(format!("a parameter of type {kind} was given another kind of value").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn row(row: &tokio_postgres::Row) -> Result<Row> {
    let values: std::result::Result<Vec<Value>, tokio_postgres::Error> = row
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let value = match *column.type_() {
                Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index)?.map(Value::Bytes),
                Type::INT8 => row.try_get::<_, Option<i64>>(index)?.map(Value::Int),
                _ => row.try_get::<_, Option<String>>(index)?.map(Value::Text),
            };
            Ok(value.unwrap_or(Value::Null))
        })
        .collect();
    values.map(Row).map_err(|error| failure(&error))
}

/// Whether the failure is only that an earlier statement of the transaction failed.
fn is_echo(error: &StoreError) -> bool {
    let StoreError::Engine(source) = error else { return false };
    source.to_string().contains(SqlState::IN_FAILED_SQL_TRANSACTION.code())
}

const COMMITTING: &str = "the connection to PostgreSQL was lost while committing: ask again whether it is written";

/// A server that is away, hangs, or no longer takes writes.
fn away(words: impl Into<String>) -> StoreError {
    Failure { words: words.into(), cure: Cure::Reconnect }.into()
}

/// A failure to commit. Unless the server says that it refused, whether it is committed is not known.
fn commit_failure(error: &tokio_postgres::Error) -> StoreError {
    // Class 40: transaction rollback; class 23: a constraint checked at the end.
    match error.as_db_error() {
        Some(refusal) if ["40", "23"].iter().any(|class| refusal.code().code().starts_with(class)) => failure(error),
        _ => away(COMMITTING),
    }
}

/// The words of a failure. Never the server's `DETAIL`, which repeats whole rows.
fn failure(error: &tokio_postgres::Error) -> StoreError {
    let Some(refusal) = error.as_db_error() else {
        let words = match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        return if connect::is_away(error) { away(words) } else { Failure::fatal(words) };
    };
    let code = refusal.code();
    if *code == SqlState::FOREIGN_KEY_VIOLATION {
        return StoreError::NotFound { what: "row that this one belongs to" };
    }
    if *code == SqlState::UNIQUE_VIOLATION {
        return StoreError::Conflict { what: "row" };
    }
    let words = format!("PostgreSQL refused ({}): {}", code.code(), refusal.message());
    if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) {
        return Failure::repeatable(words);
    }
    if *code == SqlState::DISK_FULL {
        return Failure::full(words);
    }
    if connect::says_away(code) { away(words) } else { Failure::fatal(words) }
}

//! PostgreSQL: for several control nodes over one store.
//!
//! Writing operations are serializable transactions; the server refuses one of two that collide, and that one is run
//! again from its start. Connections are not encrypted: use a unix socket or a private network (a URL that demands TLS
//! is refused with words). Replication and failover are the database's.

use std::time::Duration;

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Transaction,
};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use tokio_postgres::{IsolationLevel, NoTls, Statement};

use super::sql::{Connection, Dialect, Engine, Failure, Isolation, Operation, Row, Tx, Value, is_repeatable, migrate};
use super::{Result, StoreError};

/// Connections of one node. A statement takes about a millisecond; PostgreSQL's default is 100 for all.
const CONNECTIONS: usize = 16;
/// How long to wait for a free or a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a refused transaction is run again. With eight writers on one row the slowest needs about eight.
const REPEATS_MAX: u32 = 30;
/// The first pause is at most this long, then twice that, up to [`PAUSE_MAX`]; the length is drawn by chance.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Bounds on the server's side, so that no lock outlives a stuck node. Outside of a transaction nothing is written.
const SESSION: &str = "set default_transaction_read_only = on; set statement_timeout = '15s'; set lock_timeout = '10s'; \
     set idle_in_transaction_session_timeout = '20s'";

/// A store on a PostgreSQL server.
pub(super) struct Postgres {
    pool: Pool,
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

impl Postgres {
    /// Connects and brings the schema up to date.
    pub(super) async fn open(url: &str) -> Result<Self> {
        // The parser's own words may repeat a part of the URL, and with it of the password.
        let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
            Failure::fatal(
                "the URL of the store cannot be read: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE \
                 (special characters in the password as %XX)",
            )
        })?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(Failure::fatal(
                "the URL of the store demands TLS, which this build does not speak to PostgreSQL: use a unix socket or \
                 a private network, and drop `sslmode`",
            ));
        }
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(Duration::from_secs(20)).application_name("atoll");
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .wait_timeout(Some(2 * CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|error| Failure::fatal(error.to_string()))?;
        let store = Self { pool };
        store.write(Isolation::ReadCommitted, (), |(), tx| Box::pin(migrate(tx, Dialect::Postgres))).await?;
        Ok(store)
    }

    async fn client(&self) -> Result<Client> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => failure(&error),
            PoolError::Timeout(_) => Failure::fatal("no connection to PostgreSQL became free in time"),
            other => Failure::fatal(other.to_string()),
        })
    }

    async fn transaction<A, T>(&self, isolation: Isolation, arguments: &A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync,
        T: Send,
    {
        let level = match isolation {
            Isolation::Serializable => IsolationLevel::Serializable,
            Isolation::ReadCommitted => IsolationLevel::ReadCommitted,
        };
        let mut client = self.client().await?;
        let transaction = client
            .build_transaction()
            .isolation_level(level)
            .read_only(false)
            .start()
            .await
            .map_err(|error| failure(&error))?;
        let mut tx = Tx::new(Connection::Postgres(PgConnection::Writing(&transaction)));
        let outcome = operation(arguments, &mut tx).await;
        let undone = tx.undone();
        match outcome {
            Ok(result) if !undone => {
                transaction.commit().await.map_err(|error| commit_failure(&error))?;
                Ok(result)
            }
            other => {
                // A lost connection rolls back too; the operation's own outcome says more than this one's.
                if let Err(error) = transaction.rollback().await {
                    tracing::debug!(%error, "the connection was lost before the rollback");
                }
                other
            }
        }
    }

    async fn reading<A, T>(&self, arguments: &A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync,
        T: Send,
    {
        let client = self.client().await?;
        operation(arguments, &mut Tx::new(Connection::Postgres(PgConnection::Reading(&client)))).await
    }
}

impl Engine for Postgres {
    async fn write<A, T>(&self, isolation: Isolation, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let mut repeats = Repeats::new();
        loop {
            match self.transaction(isolation, &arguments, operation).await {
                Err(error) if repeats.again(&error).await? => {}
                result => return result,
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
}

/// Counts the repeats of one operation and pauses between them.
struct Repeats {
    left: u32,
    pause: Duration,
}

impl Repeats {
    const fn new() -> Self {
        Self { left: REPEATS_MAX, pause: PAUSE_FIRST }
    }

    /// Whether to run the operation again after this failure; pauses before it says so.
    async fn again(&mut self, error: &StoreError) -> Result<bool> {
        if self.left == 0 || !is_repeatable(error) {
            return Ok(false);
        }
        tracing::debug!(%error, "an operation is run again");
        tokio::time::sleep(jitter(self.pause)?).await;
        self.left -= 1;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(true)
    }
}

/// A length between nothing and `longest`.
#[expect(clippy::disallowed_methods, reason = "how long a writer waits before it tries again decides nothing")]
fn jitter(longest: Duration) -> Result<Duration> {
    let mut draw = [0_u8; 4];
    getrandom::fill(&mut draw).map_err(|error| Failure::fatal(format!("no randomness: {error}")))?;
    Ok(longest * (u32::from_le_bytes(draw) % 1000) / 1000)
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

/// A failure to commit. Unless the server says that it refused, whether it is committed is not known.
fn commit_failure(error: &tokio_postgres::Error) -> StoreError {
    // Class 40: transaction rollback; class 23: a constraint checked at the end.
    match error.as_db_error() {
        Some(refusal) if ["40", "23"].iter().any(|class| refusal.code().code().starts_with(class)) => failure(error),
        _ => Failure::fatal("the connection to PostgreSQL was lost while committing: ask again whether it is written"),
    }
}

/// The words of a failure. Never the server's `DETAIL`, which repeats whole rows.
fn failure(error: &tokio_postgres::Error) -> StoreError {
    let Some(refusal) = error.as_db_error() else {
        let words = match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        // A connection that the server closed while it waited in the pool. Nothing is committed.
        return if error.is_closed() { Failure::repeatable(words) } else { Failure::fatal(words) };
    };
    let code = refusal.code();
    if *code == SqlState::FOREIGN_KEY_VIOLATION {
        return StoreError::NotFound { what: "row that this one belongs to" };
    }
    if *code == SqlState::UNIQUE_VIOLATION {
        return StoreError::Conflict { what: "row" };
    }
    let words = format!("PostgreSQL refused ({}): {}", code.code(), refusal.message());
    let repeatable = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        // The server restarts or fails over: another connection may find it, or its successor.
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ];
    if repeatable.contains(code) { Failure::repeatable(words) } else { Failure::fatal(words) }
}

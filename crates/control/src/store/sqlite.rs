//! SQLite in process: one file, one writer at a time, no server to run. The default.
//!
//! Every acknowledged write is on disk (write-ahead log, `synchronous = FULL`), whatever kills the process. A
//! transaction runs on a blocking thread from its first statement to its last; a caller that goes away cannot leave
//! half of one. Other processes may use the same file on the same machine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};
use tokio::sync::Semaphore;

use super::sql::{Connection as TxConnection, Dialect, Engine, Failure, Isolation, Operation, Row, Tx, Value, migrate};
use super::{Result, StoreError};

/// How long a writer waits for another process's transaction. Ours take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that read at the same time; more readers wait for one.
const READERS: usize = 4;
/// Statements kept prepared per connection; more than the store has.
const STATEMENTS_KEPT: usize = 128;

/// A store in one file.
pub(super) struct Sqlite {
    path: PathBuf,
    writer: Arc<tokio::sync::Mutex<Connection>>,
    readers: Arc<Readers>,
}

/// Reading connections that nobody uses at the moment.
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sqlite({})", self.path.display())
    }
}

impl Sqlite {
    /// Opens or creates the file and brings its schema up to date.
    pub(super) async fn open(path: PathBuf) -> Result<Self> {
        let opened = path.clone();
        let writer = on_blocking_thread(move || open_writer(&opened)).await?;
        let readers =
            Readers { path: path.clone(), idle: Mutex::default(), permits: Arc::new(Semaphore::new(READERS)) };
        Ok(Self { path, writer: Arc::new(tokio::sync::Mutex::new(writer)), readers: Arc::new(readers) })
    }
}

impl Engine for Sqlite {
    async fn write<A, T>(&self, _: Isolation, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        on_blocking_thread(move || transaction(&mut writer, &arguments, operation)).await
    }

    async fn read<A, T>(&self, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let permit = Arc::clone(&self.readers.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let readers = Arc::clone(&self.readers);
        on_blocking_thread(move || {
            let mut connection = readers.take()?;
            let result = run(&mut Tx::new(TxConnection::Sqlite(&mut connection)), &arguments, operation);
            readers.give_back(connection);
            drop(permit);
            result
        })
        .await
    }
}

impl Readers {
    fn take(&self) -> Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = idle {
            return Ok(connection);
        }
        let connection = connect(&self.path)?;
        batch(&connection, "pragma query_only = on")?;
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Failure::fatal("the process is stopping")),
    }
}

/// Rolls back whatever an unwinding operation left open.
struct Open<'c>(&'c mut Connection);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit()
            && let Err(error) = self.0.execute_batch("rollback")
        {
            // Nothing was committed; SQLite rolls back by itself when the connection closes.
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}

fn transaction<A, T>(connection: &mut Connection, arguments: &A, operation: Operation<A, T>) -> Result<T> {
    let open = Open(connection);
    batch(open.0, "begin immediate")?;
    let mut tx = Tx::new(TxConnection::Sqlite(&mut *open.0));
    let result = run(&mut tx, arguments, operation)?;
    if !tx.undone() {
        batch(open.0, "commit")?;
    }
    Ok(result)
}

fn run<A, T>(tx: &mut Tx<'_>, arguments: &A, operation: Operation<A, T>) -> Result<T> {
    operation(arguments, tx).now_or_never().expect("SQLite answers at once, so an operation never waits")
}

fn open_writer(path: &Path) -> Result<Connection> {
    create(path)?;
    // Turning a new file to write-ahead logging does not wait for another process that does the same: try again.
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match prepare(path) {
            Err(error) if super::sql::is_repeatable(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn prepare(path: &Path) -> Result<Connection> {
    let mut connection = connect(path)?;
    let mode: String =
        connection.query_row("pragma journal_mode = wal", [], |row| row.get(0)).map_err(|error| failure(&error))?;
    if mode != "wal" {
        return Err(Failure::fatal(format!(
            "{} cannot use a write-ahead log (it stays at `{mode}`): put it on a local disk",
            path.display()
        )));
    }
    transaction(&mut connection, &(), |(), tx| Box::pin(migrate(tx, Dialect::Sqlite)))?;
    Ok(connection)
}

/// Creates the file, readable by its owner only: it holds the runtimes' access tokens.
fn create(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| Failure::fatal(format!("{} cannot be opened: {error}", path.display())))
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| failure(&error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| failure(&error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    batch(&connection, "pragma synchronous = full; pragma foreign_keys = on")?;
    Ok(connection)
}

/// `$1` in the common text is `?1` here.
fn own(sql: &str) -> String {
    sql.replace('$', "?")
}

pub(super) fn execute(connection: &mut Connection, sql: &str, values: &[Value]) -> Result<u64> {
    let mut statement = connection.prepare_cached(&own(sql)).map_err(|error| failure(&error))?;
    let written = statement.execute(rusqlite::params_from_iter(values)).map_err(|error| failure(&error))?;
    Ok(written as u64)
}

pub(super) fn query(connection: &mut Connection, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(&own(sql)).map_err(|error| failure(&error))?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(|error| failure(&error))?;
    let mut read = Vec::new();
    while let Some(row) = rows.next().map_err(|error| failure(&error))? {
        let values: Result<Vec<Value>> =
            (0..columns).map(|column| value(row.get_ref(column).map_err(|error| failure(&error))?)).collect();
        read.push(Row(values?));
    }
    Ok(read)
}

pub(super) fn batch(connection: &Connection, sql: &str) -> Result<()> {
    connection.execute_batch(sql).map_err(|error| failure(&error))
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn value(value: ValueRef<'_>) -> Result<Value> {
    let corrupt = |reason: String| StoreError::Corrupt { what: "value", reason };
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Real(value) => return Err(corrupt(format!("{value} is no whole number"))),
        ValueRef::Text(text) => {
            Value::Text(String::from_utf8(text.to_vec()).map_err(|error| corrupt(error.to_string()))?)
        }
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    })
}

fn failure(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ffi;
    let Some(code) = error.sqlite_error() else { return Failure::fatal(error.to_string()) };
    match code.extended_code {
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => StoreError::NotFound { what: "row that this one belongs to" },
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => StoreError::Conflict { what: "row" },
        _ if matches!(code.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Failure::repeatable("another process holds the database: is a second server running on this file?")
        }
        _ => Failure::fatal(error.to_string()),
    }
}

//! Connections to the file: how they are opened, what runs on them, and when one is given up.
//!
//! A disk that fails while a transaction commits leaves it open whether the transaction will be found after a restart:
//! its bytes may be in the log although they were never forced out. Nothing is acknowledged then, the connection is
//! closed, and the next one copies the log into the file and forces that out before it answers anything. So whatever is
//! read was durable before it was read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};

use crate::store::sql::{Cure, Failure, Row, Value};
use crate::store::{Result, StoreError};

/// How long a writer waits for another process's transaction. Ours take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements kept prepared per connection; more than the store has.
const STATEMENTS_KEPT: usize = 128;

/// Where the file is, and whether others use it too.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// SQLite's file system by name; the operating system's where there is none.
    vfs: Option<String>,
    /// One connection has the file to itself, so that no shared memory is needed.
    alone: bool,
}

/// A connection that is opened when it is needed and given up when the disk failed under it.
pub(super) struct Kept {
    place: Place,
    writes: bool,
    connection: Option<Connection>,
}

impl Place {
    pub(super) const fn shared(path: PathBuf) -> Self {
        Self { path, vfs: None, alone: false }
    }

    pub(super) const fn alone(path: PathBuf, vfs: Option<String>) -> Self {
        Self { path, vfs, alone: true }
    }

    /// How long to wait for another connection's lock: there is nobody to wait for where nobody else may be.
    pub(super) const fn patience(&self) -> Duration {
        if self.alone { Duration::ZERO } else { BUSY_TIMEOUT }
    }

    fn connect(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &self.vfs {
            Some(vfs) => {
                Connection::open_with_flags_and_vfs(&self.path, flags | OpenFlags::SQLITE_OPEN_CREATE, vfs.as_str())
            }
            None => Connection::open_with_flags(&self.path, flags),
        };
        let connection = connection.map_err(|error| failure(&error))?;
        connection.busy_timeout(self.patience()).map_err(|error| failure(&error))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // A plan does not depend on what is bound: else many statements are prepared anew each time they run.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|error| failure(&error))?;
        if self.alone {
            batch(&connection, "pragma locking_mode = exclusive")?;
        }
        batch(&connection, "pragma synchronous = full; pragma foreign_keys = on")?;
        Ok(connection)
    }

    fn writer(&self) -> Result<Connection> {
        if self.vfs.is_none() {
            create(&self.path)?;
        }
        self.logging()
    }

    /// A connection with a write-ahead log, all that stands in it forced out.
    fn logging(&self) -> Result<Connection> {
        let connection = self.connect()?;
        let word = |pragma: &str| {
            connection.query_row(pragma, [], |row| row.get::<_, String>(0)).map_err(|error| failure(&error))
        };
        let mode = word("pragma journal_mode = wal")?;
        if mode != "wal" {
            return Err(Failure::fatal(format!(
                "{} cannot use a write-ahead log (it stays at `{mode}`): put it on a local disk",
                self.path.display()
            )));
        }
        // Without waiting: others that have the file open have its log in order among themselves.
        connection.busy_timeout(Duration::ZERO).map_err(|error| failure(&error))?;
        connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).map_err(|error| failure(&error))?;
        connection.busy_timeout(self.patience()).map_err(|error| failure(&error))?;
        Ok(connection)
    }

    fn reader(&self) -> Result<Connection> {
        let connection = self.connect()?;
        batch(&connection, "pragma query_only = on")?;
        Ok(connection)
    }
}

impl Kept {
    pub(super) const fn writer(place: Place) -> Self {
        Self { place, writes: true, connection: None }
    }

    pub(super) const fn reader(place: Place) -> Self {
        Self { place, writes: false, connection: None }
    }

    /// Does `work` on the connection. After a failure of the disk the next work gets another connection.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None if self.writes => self.place.writer()?,
            None => self.place.reader()?,
        };
        let result = work(&mut connection);
        match &result {
            Err(error) if Failure::cure_of(error) == Cure::Reopen => {
                tracing::error!(%error, "the store's file is closed and opened again");
            }
            _ => self.connection = Some(connection),
        }
        result
    }
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

/// `$1` in the common text is `?1` here.
fn own(sql: &str) -> String {
    sql.replace('$', "?")
}

/// Runs a statement; how many rows it wrote.
pub(in crate::store) fn execute(connection: &mut Connection, sql: &str, values: &[Value]) -> Result<u64> {
    let mut statement = connection.prepare_cached(&own(sql)).map_err(|error| failure(&error))?;
    let written = statement.execute(rusqlite::params_from_iter(values)).map_err(|error| failure(&error))?;
    Ok(written as u64)
}

/// Runs a statement; its rows.
pub(in crate::store) fn query(connection: &mut Connection, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
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

/// Runs several statements without parameters.
pub(in crate::store) fn batch(connection: &Connection, sql: &str) -> Result<()> {
    connection.execute_batch(sql).map_err(|error| failure(&error))
}

/// An id by chance, from the database.
pub(super) fn random_id(connection: &Connection) -> Result<[u8; 16]> {
    connection.query_row("select randomblob(16)", [], |row| row.get(0)).map_err(|error| failure(&error))
}

/// Commits. When the disk fails here, whether it is committed is not known until the file is opened again.
pub(super) fn commit(connection: &Connection) -> Result<()> {
    connection.execute_batch("commit").map_err(|error| match failure(&error) {
        failed if Failure::cure_of(&failed) == Cure::Reopen => Failure {
            words: format!("{failed}; it failed while committing: ask again whether it is written"),
            cure: Cure::Reopen,
        }
        .into(),
        refused => refused,
    })
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
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => return StoreError::NotFound { what: "row that this one belongs to" },
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
            return StoreError::Conflict { what: "row" };
        }
        _ => {}
    }
    match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Failure::repeatable("another process holds the database: is a second server running on this file?")
        }
        // SQLite has rolled back and may be used on.
        ErrorCode::DiskFull => {
            Failure::full("the disk with the store's file is full, nothing was written: make room, then it goes on")
        }
        ErrorCode::SystemIoFailure
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly => Failure {
            words: format!(
                "the disk with the store's file fails or its file is damaged: {error} ({})",
                code.extended_code
            ),
            cure: Cure::Reopen,
        }
        .into(),
        _ => Failure::fatal(error.to_string()),
    }
}

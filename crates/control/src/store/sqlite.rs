//! SQLite in process: one file, one writer at a time, no server to run. The default.
//!
//! Every acknowledged write is on disk (write-ahead log, `synchronous = FULL`), whatever kills the process. A
//! transaction runs on a blocking thread from its first statement to its last; a caller that goes away cannot leave
//! half of one. Other processes may use the same file on the same machine.
//!
//! [`Inline`] is the same without threads, for a simulation: what differs is who runs a transaction, never what it does.

mod connection;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::Result;
use super::sql::{
    Build, Connection as TxConnection, Engine, Failure, Isolation, MIGRATIONS, Migration, Operation, Tx, fence,
    is_repeatable, migrate,
};
use connection::{Kept, Place};

pub(super) use connection::{batch, execute, query};

/// Connections that read at the same time; more readers wait for one.
const READERS: usize = 4;

/// A store in one file.
pub(super) struct Sqlite {
    place: Place,
    build: Build,
    writer: Arc<tokio::sync::Mutex<Kept>>,
    readers: Arc<Readers>,
}

/// Reading connections that nobody uses at the moment.
struct Readers {
    place: Place,
    idle: Mutex<Vec<Kept>>,
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sqlite({})", self.place.path.display())
    }
}

impl Sqlite {
    /// Opens or creates the file and brings its schema up to date.
    pub(super) async fn open(path: PathBuf) -> Result<Self> {
        Self::open_with(path, MIGRATIONS).await
    }

    /// As a build that knows these steps of the schema.
    pub(super) async fn open_with(path: PathBuf, migrations: &'static [Migration]) -> Result<Self> {
        let place = Place::shared(path);
        let opened = place.clone();
        let (writer, build) = on_blocking_thread(move || migrated(opened, migrations)).await?;
        let readers =
            Readers { place: place.clone(), idle: Mutex::default(), permits: Arc::new(Semaphore::new(READERS)) };
        Ok(Self { place, build, writer: Arc::new(tokio::sync::Mutex::new(writer)), readers: Arc::new(readers) })
    }
}

impl Engine for Sqlite {
    async fn write<A, T>(&self, isolation: Isolation, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        let schema = fence_of(&self.build, isolation);
        on_blocking_thread(move || writer.with(|connection| transaction(connection, schema, &arguments, operation)))
            .await
    }

    fn build(&self) -> &Build {
        &self.build
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
            let mut reader = readers.take();
            let result = reader.with(|connection| reading(connection, &arguments, operation));
            readers.give_back(reader);
            drop(permit);
            result
        })
        .await
    }
}

impl Readers {
    fn take(&self) -> Kept {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| Kept::reader(self.place.clone()))
    }

    fn give_back(&self, reader: Kept) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
    }
}

async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Failure::fatal("the process is stopping")),
    }
}

/// A store in one file that has it alone: one connection, and the caller's thread does the work before a future is
/// ready. Nothing is shared with other connections, so a file system (VFS) without shared memory will do.
pub(super) struct Inline {
    build: Build,
    only: Mutex<Kept>,
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inline")
    }
}

impl Inline {
    /// Opens or creates the file and brings its schema up to date.
    pub(super) fn open(path: PathBuf, vfs: Option<&str>) -> Result<Self> {
        let (only, build) = migrated(Place::alone(path, vfs.map(str::to_owned)), MIGRATIONS)?;
        Ok(Self { build, only: Mutex::new(only) })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        self.only.lock().unwrap_or_else(PoisonError::into_inner).with(work)
    }
}

impl Engine for Inline {
    async fn write<A, T>(&self, isolation: Isolation, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        let schema = fence_of(&self.build, isolation);
        self.with(|connection| transaction(connection, schema, &arguments, operation))
    }

    fn build(&self) -> &Build {
        &self.build
    }

    async fn read<A, T>(&self, arguments: A, operation: Operation<A, T>) -> Result<T>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.with(|connection| reading(connection, &arguments, operation))
    }
}

/// The writing connection of a place, on a schema that is up to date.
fn migrated(place: Place, migrations: &'static [Migration]) -> Result<(Kept, Build)> {
    // Turning a new file to write-ahead logging does not wait for another process that does the same: try again.
    let deadline = Instant::now() + place.patience();
    let mut writer = Kept::writer(place);
    loop {
        let done = writer.with(|connection| {
            let id = connection::random_id(connection)?;
            let build = Build { id, migrations };
            transaction(connection, None, &build, |build, tx| Box::pin(migrate(tx, build)))?;
            Ok(build)
        });
        match done {
            Ok(build) => return Ok((writer, build)),
            Err(error) if is_repeatable(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
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

/// The schema that a writing transaction must know, unless it brings the schema up to date itself.
fn fence_of(build: &Build, isolation: Isolation) -> Option<i64> {
    (isolation == Isolation::Serializable).then(|| build.schema())
}

fn transaction<A, T>(
    connection: &mut Connection,
    schema: Option<i64>,
    arguments: &A,
    operation: Operation<A, T>,
) -> Result<T> {
    let open = Open(connection);
    batch(open.0, "begin immediate")?;
    let mut tx = Tx::new(TxConnection::Sqlite(&mut *open.0));
    if let Some(schema) = schema {
        let fenced = fence(&mut tx, schema).now_or_never();
        fenced.expect("SQLite answers at once, so an operation never waits")?;
    }
    let result = run(&mut tx, arguments, operation)?;
    if !tx.undone() {
        connection::commit(open.0)?;
    }
    Ok(result)
}

fn reading<A, T>(connection: &mut Connection, arguments: &A, operation: Operation<A, T>) -> Result<T> {
    run(&mut Tx::new(TxConnection::Sqlite(connection)), arguments, operation)
}

fn run<A, T>(tx: &mut Tx<'_>, arguments: &A, operation: Operation<A, T>) -> Result<T> {
    operation(arguments, tx).now_or_never().expect("SQLite answers at once, so an operation never waits")
}

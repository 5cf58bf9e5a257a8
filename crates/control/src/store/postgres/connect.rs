//! Connections to PostgreSQL: which server of several, within what limits, and when one counts as away.

use std::time::Duration;

use deadpool_postgres::{Client, Connect, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, select_ok};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, Error, NoTls};

use crate::store::Result;
use crate::store::sql::Failure;

/// Connections of one node. A statement takes about a millisecond; PostgreSQL's default is 100 for all.
const CONNECTIONS: usize = 16;
/// How long to wait for a new connection to whichever server answers first, and for one server's socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for a connection that others use. Longer than one try of theirs may take.
const WAIT_TIMEOUT: Duration = Duration::from_secs(6);
/// A peer that acknowledges nothing for so long is gone; one that says nothing is asked after 5 s, then every 2 s.
const SILENT: Duration = Duration::from_secs(8);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// Bounds on the server's side, so that no lock outlives a stuck node. Outside of a transaction nothing is written. What
/// is acknowledged is durable, and on the standby where one is waited for, whatever the server's default.
const SESSION: &str = "set default_transaction_read_only = on; set statement_timeout = '4s'; set lock_timeout = '4s'; \
     set idle_in_transaction_session_timeout = '10s'; \
     select set_config('synchronous_commit', 'on', false) \
     where current_setting('synchronous_commit') in ('off', 'local')";

/// A pool of connections to the server that takes writes.
///
/// # Errors
/// In words that never repeat the URL.
pub(super) fn pool(url: &str) -> Result<Pool> {
    // The parser's own words may repeat a part of the URL, and with it of the password.
    let mut config: Config = url.parse().map_err(|_| {
        Failure::fatal(
            "the URL of the store cannot be read: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, several HOST:PORT \
             with commas between (special characters in the password as %XX)",
        )
    })?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(Failure::fatal(
            "the URL of the store demands TLS, which this build does not speak to PostgreSQL: use a unix socket or a \
             private network, and drop `sslmode`",
        ));
    }
    config
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(SILENT)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .application_name("atoll");
    let servers = servers(&config)?;
    let manager =
        Manager::from_connect(config, Servers(servers), ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Pool::builder(manager)
        .max_size(CONNECTIONS)
        .wait_timeout(Some(WAIT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
        }))
        .build()
        .map_err(|error| Failure::fatal(error.to_string()))
}

/// Asks all servers at once: one that hangs must not hide the one that has its place.
struct Servers(Vec<Config>);

impl Connect for Servers {
    fn connect(
        &self,
        _: &Config,
    ) -> BoxFuture<'_, std::result::Result<(tokio_postgres::Client, JoinHandle<()>), Error>> {
        let asked: Vec<_> = self.0.iter().map(|server| server.connect(NoTls).boxed()).collect();
        async move {
            let ((client, connection), _) = select_ok(asked).await?;
            let carried = atoll_life::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::info!(%error, "a connection to PostgreSQL ended");
                }
            });
            Ok((client, carried))
        }
        .boxed()
    }
}

/// One configuration for each host of the URL.
fn servers(config: &Config) -> Result<Vec<Config>> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    if count == 0 || (ports.len() > 1 && ports.len() != count) {
        return Err(Failure::fatal("the URL of the store must name a host, and each with its port or all with one"));
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(Failure::fatal("the URL of the store must have as many hosts as addresses"));
    }
    Ok((0..count)
        .map(|n| {
            let mut one = without_hosts(config);
            match hosts.get(n) {
                Some(Host::Tcp(name)) => _ = one.host(name),
                #[cfg(unix)]
                Some(Host::Unix(path)) => _ = one.host_path(path),
                None => {}
            }
            if let Some(address) = addresses.get(n) {
                one.hostaddr(*address);
            }
            if let Some(port) = ports.get(n).or(ports.first()) {
                one.port(*port);
            }
            one
        })
        .collect())
}

/// All of a configuration but where the server is.
fn without_hosts(config: &Config) -> Config {
    let mut one = Config::new();
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(database) = config.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    one.ssl_mode(config.get_ssl_mode())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(SILENT)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    one
}

/// Says in the log what the server's settings would lose.
pub(super) async fn warn_of_loss(client: &Client) -> std::result::Result<(), Error> {
    let ask = "select current_setting('synchronous_standby_names'), current_setting('fsync'), \
               (select reset_val from pg_settings where name = 'synchronous_commit')";
    let row = client.query_one(ask, &[]).await?;
    let (standbys, fsync, commit): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if standbys.is_empty() {
        tracing::warn!(
            "PostgreSQL waits for no standby (synchronous_standby_names is empty): a failover may lose what was acknowledged"
        );
    }
    if fsync == "off" {
        tracing::warn!("PostgreSQL does not wait for its disk (fsync = off): a power cut may lose everything");
    }
    if matches!(commit.as_str(), "off" | "local") {
        tracing::warn!(synchronous_commit = commit, "PostgreSQL's default is not to wait; this node's own writes do");
    }
    Ok(())
}

/// Whether this failure means that the server is away, not that it refused. Nothing is said of what it committed.
pub(super) fn is_away(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    error.is_closed() || cause.is_some_and(|cause| cause.is::<std::io::Error>())
}

/// Whether a server that says this is on its way out or not there yet.
pub(super) fn says_away(code: &SqlState) -> bool {
    [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ]
    .contains(code)
        || code.code().starts_with("08")
}

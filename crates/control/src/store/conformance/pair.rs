//! Two PostgreSQL servers, the second a standby of the first, which waits for it with every commit.
//!
//! As the single private server of the tests: own data, own ports, gone with the process that started it.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::private_postgres::{command, find, make_cluster, new_folder, random_hex};

/// Starting takes a second; a loaded machine gets a minute.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The standby's name in the primary's settings.
const STANDBY: &str = "standby";

/// Starts the server at each line on standard input; when that closes, ends it and removes the folder. `$1` binaries,
/// `$2` folder, `$3` port, the rest the server's arguments.
const WATCH: &str = r#"
trap '' INT TERM HUP
binaries=$1 folder=$2 port=$3
shift 3
while read -r _; do
    wait
    rm -f "$folder/over"
    (
        "$binaries/postgres" -D "$folder/data" -k "$folder" -h 127.0.0.1 -p "$port" \
            -c fsync=off -c max_connections=100 "$@" >>"$folder/log" 2>&1 </dev/null
        : >"$folder/over"
    ) &
    touch "$folder/begun"
done
while [ -e "$folder/begun" ] && ! [ -e "$folder/over" ]; do
    pid=$(head -n 1 "$folder/data/postmaster.pid")
    pkill -CONT -P "$pid"
    kill -CONT "$pid"
    kill -QUIT "$pid"
    sleep 0.05
done
wait
rm -rf "$folder"
"#;

/// One server and its folder.
#[derive(Debug)]
struct Server {
    watch: Child,
    folder: PathBuf,
    port: u16,
}

/// A primary and its standby.
#[derive(Debug)]
pub(crate) struct Pair {
    primary: Server,
    standby: Server,
    password: String,
}

impl Server {
    /// Over a folder that holds a cluster in `data`.
    fn new(binaries: &Path, folder: PathBuf, arguments: &[&str]) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = command("/bin/sh")?;
        command.args(["-c", WATCH, "atoll-postgres-watch"]).arg(binaries).arg(&folder).arg(port.to_string());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { watch: command.spawn().context("cannot start /bin/sh")?, folder, port })
    }

    fn start(&mut self) -> Result<()> {
        self.watch.stdin.as_mut().context("it was stopped")?.write_all(b"start\n")?;
        self.wait_until_ready()
    }

    /// Until it accepts connections; a standby also is `ready` then.
    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            let status = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
            let ready = status.trim_end().ends_with("ready") || status.trim_end().ends_with("standby");
            if ready && std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("PostgreSQL did not start:\n{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default())
    }

    /// The server's own process, then those that serve connections.
    fn processes(&self) -> Result<Vec<u32>> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let first: u32 = file.lines().next().context("an empty pid file")?.trim().parse()?;
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
        Ok(std::iter::once(first).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect())
    }
}

fn signal(name: &str, processes: &[u32]) -> Result<()> {
    let pids = processes.iter().map(u32::to_string);
    let status = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status()?;
    // A child may have ended by itself meanwhile.
    if processes.len() == 1 && !status.success() { bail!("kill -{name} failed") } else { Ok(()) }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        self.watch.wait().ok();
    }
}

impl Pair {
    /// Starts both and waits until the standby follows.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn start() -> Result<Self> {
        let binaries = find()?;
        let (folder, password) = (new_folder()?, random_hex()?);
        make_cluster(&binaries, &folder, &password)?;
        let names = format!("synchronous_standby_names={STANDBY}");
        let mut primary = Server::new(&binaries, folder, &["-c", &names])?;
        primary.start()?;
        let folder = new_folder()?;
        let source =
            format!("host=127.0.0.1 port={} user=atoll password={password} application_name={STANDBY}", primary.port);
        let copied = command(binaries.join("pg_basebackup"))?
            .args([
                "--checkpoint=fast",
                "--wal-method=stream",
                "--write-recovery-conf",
                "--no-sync",
                "--dbname",
                &source,
            ])
            .arg("--pgdata")
            .arg(folder.join("data"))
            .output()?;
        if !copied.status.success() {
            bail!("pg_basebackup failed: {}", String::from_utf8_lossy(&copied.stderr));
        }
        let mut standby = Server::new(&binaries, folder, &[])?;
        standby.start()?;
        let pair = Self { primary, standby, password };
        // Waits for the standby, as every commit does.
        pair.admin(pair.primary.port).await?.batch_execute("create database store").await?;
        Ok(pair)
    }

    /// The URL of both.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        let (one, two) = (self.primary.port, self.standby.port);
        format!("postgres://atoll:{}@127.0.0.1:{one},127.0.0.1:{two}/store", self.password)
    }

    async fn admin(&self, port: u16) -> Result<tokio_postgres::Client> {
        let url = format!("postgres://atoll:{}@127.0.0.1:{port}/postgres", self.password);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Kills the primary with all its processes: one that serves a connection would finish its work without the first.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn kill_primary(&self) -> Result<()> {
        signal("KILL", &self.primary.processes()?)
    }

    /// Stops the primary in its tracks: its sockets stay, nobody answers.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn hang_primary(&self) -> Result<()> {
        signal("STOP", &self.primary.processes()?)
    }

    /// Starts the primary again.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn start_primary(&mut self) -> Result<()> {
        // Its processes notice within moments that the first one is gone; until then it does not start.
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            fs::remove_file(self.primary.folder.join("data/postmaster.pid")).ok();
            match self.primary.start() {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                result => return result,
            }
        }
    }

    /// Makes the standby the primary.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn promote(&self) -> Result<()> {
        self.admin(self.standby.port).await?.query_one("select pg_promote(true, 60)", &[]).await?;
        Ok(())
    }
}

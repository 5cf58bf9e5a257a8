//! A private PostgreSQL for tests: own data, own port, own password, gone with the process that started it.
//!
//! It needs the server's binaries only, no running service. A small shell watches over the server: its standard input
//! is a pipe from the starting process, so however that process ends (also by SIGKILL), the pipe closes, the server
//! stops and its folder is removed. The server refuses to run as root; then it runs as the user `postgres` or `nobody`.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The line that installs what is missing, on Debian 12.
pub(crate) const INSTALL: &str = "sudo apt-get install -y --no-install-recommends postgresql-15";

/// Starting takes about a second; a loaded machine gets a minute.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A port that was free may be taken a moment later.
const PORTS_TRIED: u32 = 5;

/// Stops the server when standard input closes, then removes the folder; starts it anew when it ended and `again` lies
/// there. `$1` binaries, `$2` folder, `$3` port.
const WATCH: &str = r#"
trap '' INT TERM HUP
(
    while :; do
        "$1/postgres" -D "$2/data" -k "$2" -h 127.0.0.1 -p "$3" \
            -c fsync=off -c max_connections=300 -c log_min_messages=fatal >"$2/log" 2>&1 </dev/null
        rm "$2/again" 2>/dev/null || break
    done
    : >"$2/over"
) &
cat >/dev/null
while ! [ -e "$2/over" ]; do
    kill -INT "$(head -n 1 "$2/data/postmaster.pid")"
    sleep 0.05
done
wait
rm -rf "$2"
"#;

/// A running server. It stops when this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Postgres {
    watch: Child,
    folder: PathBuf,
    port: u16,
    password: String,
}

impl Postgres {
    /// Makes a cluster in a new temporary folder and starts it.
    ///
    /// # Errors
    /// In words with the next step; nothing is left running.
    pub(crate) fn start() -> Result<Self> {
        let binaries = find()?;
        for _ in 0..PORTS_TRIED {
            let (folder, password) = (new_folder()?, random_hex()?);
            let made = make_cluster(&binaries, &folder, &password);
            if made.is_err() {
                fs::remove_dir_all(&folder).ok();
            }
            made?;
            if let Some(server) = Self::serve(&binaries, &folder, password)? {
                return Ok(server);
            }
        }
        bail!("PostgreSQL found no free port in {PORTS_TRIED} tries")
    }

    /// The URL of one of its databases.
    #[must_use]
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://atoll:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Ends the server as an administrator in a hurry does, connections and all, and starts it again; returns once it
    /// takes connections.
    ///
    /// # Errors
    /// When it does not come back.
    #[allow(dead_code, reason = "several crates' tests include this file, and not all of them restart it")]
    pub(crate) fn restart(&self) -> Result<()> {
        let pid_file = self.folder.join("data/postmaster.pid");
        let pid = fs::read_to_string(&pid_file).with_context(|| format!("reading {}", pid_file.display()))?;
        let pid: u32 = pid.lines().next().unwrap_or_default().parse().context("no pid of the server")?;
        fs::write(self.folder.join("again"), "")?;
        // By the program, not by a call of ours: the store's tests include this file, and have neither.
        Command::new("kill").args(["-QUIT", &pid.to_string()]).status().context("cannot run `kill`")?;
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
            if Instant::now() > deadline {
                bail!("PostgreSQL did not stop within {} s", START_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        match self.wait_until_ready(&self.folder)? {
            true => Ok(()),
            false => bail!("PostgreSQL's port was taken while it restarted"),
        }
    }

    /// Runs SQL in one of its databases; gives the rows as `psql` prints them, bare.
    ///
    /// # Errors
    /// What `psql` says.
    #[allow(dead_code, reason = "several crates' tests include this file, and not all of them ask the database")]
    pub(crate) fn run(&self, database: &str, sql: &str) -> Result<String> {
        let arguments = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"];
        let mut psql = command(find()?.join("psql"))?;
        let output = psql.args(arguments).args(["--command", sql, &self.url(database)]).output()?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts the watch, which owns the folder from here on; `None` when the port was taken meanwhile.
    fn serve(binaries: &Path, folder: &Path, password: String) -> Result<Option<Self>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = command("/bin/sh")?;
        command.args(["-c", WATCH, "atoll-postgres-watch"]).arg(binaries).arg(folder).arg(port.to_string());
        // Its own process group: ctrl-C must not end the watch before the server.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let watch = command.spawn().context("cannot start /bin/sh")?;
        let server = Self { watch, folder: folder.to_owned(), port, password };
        Ok(server.wait_until_ready(folder)?.then_some(server))
    }

    /// Whether it came up; false when its port was taken meanwhile.
    fn wait_until_ready(&self, folder: &Path) -> Result<bool> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            if log.contains("could not bind") || log.contains("Address already in use") {
                return Ok(false);
            }
            if folder.join("over").exists() {
                bail!("PostgreSQL ended at its start:\n{log}");
            }
            // The pid file says `ready` on its last line once connections are accepted.
            let status = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
            if status.trim_end().ends_with("ready") && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("PostgreSQL did not start within {} s", START_TIMEOUT.as_secs())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        self.watch.wait().ok();
    }
}

/// The folder with the newest server's binaries.
///
/// # Errors
/// When there is none: says the line that installs it.
pub(crate) fn find() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/opt/homebrew/opt", "postgresql@")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(version) = name.strip_prefix(prefix).and_then(|version| version.parse().ok()) {
                found.push((version, entry.path().join("bin")));
            }
        }
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        found.push((0, PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())));
    }
    found.retain(|(_, folder)| folder.join("initdb").exists() && folder.join("postgres").exists());
    found.sort();
    match found.pop() {
        Some((_, folder)) => Ok(folder),
        None => bail!("PostgreSQL's server is missing; install it with\n    {INSTALL}"),
    }
}

pub(crate) fn make_cluster(binaries: &Path, folder: &Path, password: &str) -> Result<()> {
    let file = folder.join("password");
    fs::write(&file, password)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    if let Some((user, group)) = unprivileged()? {
        chown(&file, Some(user), Some(group))?;
    }
    // The password in clear over loopback: deriving a key from it costs a debug build 0.3 s per connection.
    let output = command(binaries.join("initdb"))?
        .args(["--username=atoll", "--auth=password", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg("--pwfile")
        .arg(&file)
        .arg("--pgdata")
        .arg(folder.join("data"))
        .output()
        .context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A new folder only its owner can enter; short, because the path of a unix socket must be.
pub(crate) fn new_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("atoll-pg-{}", &random_hex()?[..12]));
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    if let Some((user, group)) = unprivileged()? {
        chown(&folder, Some(user), Some(group))?;
    }
    Ok(folder)
}

/// A command that runs as nobody in particular when this process is root.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((user, group)) = unprivileged()? {
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// User and group to run as instead of root; `None` for anybody else.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt as _;
    // A process owns its own entry in /proc.
    if fs::metadata("/proc/self").context("/proc is not mounted")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    for wanted in ["postgres", "nobody"] {
        for line in users.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, user, group, ..] = fields[..]
                && name == wanted
            {
                return Ok(Some((user.parse()?, group.parse()?)));
            }
        }
    }
    bail!("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`")
}

pub(crate) fn random_hex() -> Result<String> {
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

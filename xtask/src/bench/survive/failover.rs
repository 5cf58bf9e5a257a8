//! How long a client waits when the node that it talks to dies: three nodes, one store.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::nodes::{Ground, Node};

/// Nodes killed one after the other.
const ROUNDS: u32 = 10;
/// How long the client goes on asking.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// The longest of ten waits, in seconds.
pub(super) fn api(ground: &Ground) -> Result<(f64, String)> {
    let key = api_key(ground)?;
    let mut nodes: Vec<(PathBuf, Node)> = (0..3).map(|n| joined(ground, &key, n)).collect::<Result<_>>()?;
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        // The client talks to the first of its list; that one dies, and comes back as the last.
        ask(ground, &nodes[0].0).context("the first node does not answer")?;
        let (_, mut first) = nodes.remove(0);
        first.kill()?;
        let died = Instant::now();
        let dead = ground.folder.join("client-dead");
        profile(ground, &key, first.port, &dead)?;
        while std::iter::once(&dead).chain(nodes.iter().map(|node| &node.0)).all(|home| ask(ground, home).is_err()) {
            if died.elapsed() > ANSWERED_WITHIN {
                bail!("no node answered within {ANSWERED_WITHIN:?}");
            }
        }
        waits.push(died.elapsed().as_secs_f64());
        nodes.push(joined(ground, &key, 3 + round)?);
    }
    let worst = waits.iter().copied().fold(0.0, f64::max);
    let mean = waits.iter().sum::<f64>() / f64::from(ROUNDS);
    let how = format!(
        "worst of {ROUNDS}, mean {mean:.2} s: SIGKILL of the node that answered last to the next good `atoll job list`, \
         asked of three nodes in turn, the dead one first; one PostgreSQL"
    );
    Ok((worst, how))
}

fn joined(ground: &Ground, key: &str, number: u32) -> Result<(PathBuf, Node)> {
    let node = ground.node(&format!("node-api-{number}"), 1_000, 0)?;
    let home = ground.folder.join(format!("client-{number}"));
    profile(ground, key, node.port, &home)?;
    Ok((home, node))
}

/// A good answer of the node in this profile, or why there is none.
fn ask(ground: &Ground, home: &Path) -> Result<()> {
    let mut command = Command::new(&ground.binary);
    let output = command.args(["job", "list", "--json"]).env("ATOLL_HOME", home).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn api_key(ground: &Ground) -> Result<String> {
    let mut command = Command::new(&ground.binary);
    command
        .args(["admin", "key", "create", "--user", "bench", "--json"])
        .arg("--state")
        .arg(ground.folder.join("admin"));
    // Whose wallet it is does not matter: nothing is signed here.
    command.args(["--store", &ground.store(), "--wallet", "11111111111111111111111111111112"]);
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("no API key: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let told: Value = serde_json::from_slice(&output.stdout)?;
    told["api_key"].as_str().map(str::to_owned).context("no API key in the answer")
}

/// The client's profile of `atoll dev`, with another server and key.
fn profile(ground: &Ground, key: &str, port: u16, home: &Path) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home)?;
    let made = std::fs::read_to_string(ground.folder.join("client/profile.toml"))?;
    let mut text = String::new();
    for line in made.lines() {
        match line.split_once(" = ") {
            Some(("server", _)) => text += &format!("server = \"https://127.0.0.1:{port}\""),
            Some(("api_key", _)) => text += &format!("api_key = \"{key}\""),
            _ => text += line,
        }
        text.push('\n');
    }
    let path = home.join("profile.toml");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

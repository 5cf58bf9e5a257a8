//! How long a client waits when the node that it talks to dies: three nodes, one store.

use std::path::Path;
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
    let mut nodes: Vec<Node> = (0..3).map(|n| node(ground, n)).collect::<Result<_>>()?;
    let home = ground.folder.join("client-of-three");
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        // The client talks to the first of its list; that one dies, and another comes as the last.
        let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
        profile(ground, &key, &ports, &home)?;
        ask(ground, &home).context("the nodes do not answer")?;
        nodes.remove(0).kill()?;
        let died = Instant::now();
        while let Err(error) = ask(ground, &home) {
            if died.elapsed() > ANSWERED_WITHIN {
                return Err(error.context(format!("no node answered within {ANSWERED_WITHIN:?}")));
            }
        }
        waits.push(died.elapsed().as_secs_f64());
        nodes.push(node(ground, 3 + round)?);
    }
    let worst = waits.iter().copied().fold(0.0, f64::max);
    let mean = waits.iter().sum::<f64>() / f64::from(ROUNDS);
    let how = format!(
        "worst of {ROUNDS}, mean {mean:.3} s: SIGKILL of the node that answered last to the next good `atoll job list`, \
         whose list of three servers begins with the dead one; release, one PostgreSQL, all on this machine"
    );
    Ok((worst, how))
}

fn node(ground: &Ground, number: u32) -> Result<Node> {
    ground.node(&format!("node-api-{number}"), 1_000, 0)
}

/// A good answer to the client of this profile, or why there is none.
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

/// The client's profile of `atoll dev`, with other servers and another key.
fn profile(ground: &Ground, key: &str, ports: &[u16], home: &Path) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home)?;
    let made = std::fs::read_to_string(ground.folder.join("client/profile.toml"))?;
    let servers: Vec<String> = ports.iter().map(|port| format!("https://127.0.0.1:{port}")).collect();
    let mut text = String::new();
    for line in made.lines() {
        match line.split_once(" = ") {
            Some(("server", _)) => text += &format!("server = \"{}\"", servers.join(",")),
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

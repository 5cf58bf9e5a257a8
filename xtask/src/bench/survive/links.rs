//! Links at scale: memory of a node that holds a thousand, CPU of a node that ten thousand come to at once.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::nodes::Ground;
use crate::bench::walk::rss_mb;
use crate::network::signal;

/// How long links may take to stand, on a loaded machine.
const LINKED_WITHIN: Duration = Duration::from_secs(240);
/// How long links go on before memory is read: some ten heartbeats each.
const SETTLE: Duration = Duration::from_secs(10);

/// A thousand workers, or ten thousand, in one process.
struct Swarm {
    child: Child,
    lines: Receiver<Value>,
}

impl Swarm {
    fn start(program: &Path, ground: &Ground, servers: &[u16], count: usize) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("link").arg("--ca").arg(ground.certificate()).args(["--count", &count.to_string()]);
        for port in servers {
            command.args(["--server", &format!("https://127.0.0.1:{port}")]);
        }
        command.env("RUST_LOG", "off").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("the swarm cannot be started")?;
        let output = child.stdout.take().context("the swarm has no output")?;
        let (told, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { return };
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits until so many links stand; gives how long that took.
    fn wait_linked(&self, holds: impl Fn(u64) -> bool) -> Result<(Duration, Value)> {
        let started = Instant::now();
        while started.elapsed() < LINKED_WITHIN {
            let line = self.lines.recv_timeout(Duration::from_secs(10)).context("the swarm says nothing any more")?;
            if holds(line["linked"].as_u64().unwrap_or_default()) {
                return Ok((started.elapsed(), line));
            }
        }
        bail!("the links did not stand within {LINKED_WITHIN:?}: {:?}", self.lines.try_iter().last())
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        signal(self.child.id(), libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Memory of a node with a thousand live links.
pub(super) fn memory(ground: &Ground, swarm: &Path) -> Result<(f64, String)> {
    let count = 1_000;
    let node = ground.node("node-memory", 1_000, 0)?;
    let before = rss_mb(node.child.id())?;
    let links = Swarm::start(swarm, ground, &[node.port], count)?;
    let (took, _) = links.wait_linked(|linked| linked == count as u64)?;
    let cpu = node.cpu_s()?;
    std::thread::sleep(SETTLE);
    let (after, idle) = (rss_mb(node.child.id())?, (node.cpu_s()? - cpu) / SETTLE.as_secs_f64());
    let how = format!(
        "VmRSS, release, PostgreSQL, 1,000 TLS links with heartbeats each second, {:.0} s after all stood; {before:.1} MB \
         before; linking took {:.1} s, holding costs {idle:.2} of a core",
        SETTLE.as_secs_f64(),
        took.as_secs_f64(),
    );
    Ok((after, how))
}

/// CPU of a node that ten thousand workers come to when their own has died.
pub(super) fn storm(ground: &Ground, swarm: &Path, count: usize) -> Result<(f64, String)> {
    let mut first = ground.node("node-first", 5_000, 0)?;
    // Workers begin at any of their servers: the second is started when all are at the first.
    let port = free_port()?;
    let links = Swarm::start(swarm, ground, &[first.port, port], count)?;
    links.wait_linked(|linked| linked == count as u64)?;
    let second = ground.node("node-second", 5_000, port)?;
    std::thread::sleep(SETTLE);
    let before = second.cpu_s()?;
    let started = Instant::now();
    first.kill()?;
    links.wait_linked(|linked| linked < count as u64)?;
    let (_, line) = links.wait_linked(|linked| linked == count as u64)?;
    let took = started.elapsed();
    let cpu = second.cpu_s()? - before;
    let how = format!(
        "user + system of the second node from SIGKILL of the first until all {count} links stood there, {:.1} s later; \
         release, one PostgreSQL, both nodes, the swarm and the store on this machine, heartbeats every 5 s; {} attempts \
         failed on the way",
        took.as_secs_f64(),
        line["downs"]
    );
    Ok((cpu, how))
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

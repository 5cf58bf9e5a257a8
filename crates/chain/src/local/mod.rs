//! The local chain: litesvm behind Solana's JSON-RPC over HTTP, kept in an append-only log.
//!
//! One process on one host, without consensus: a chain for trying and testing Atoll with the same program bytes and the
//! same client as on a public cluster. Slots and the clock follow the wall clock that the caller brings, and `atoll_warp`
//! moves them forward. Every transaction is on disk before it is answered, and is final at once unless [`Finality`] says
//! otherwise. What a cluster does wrong can be switched on: [`faults`].
//!
//! What differs from a cluster: no votes, no leaders, no durable nonces; the sysvars
//! `SlotHashes` and `RecentBlockhashes` stand still; the features are litesvm 0.16's list of those active on mainnet
//! (agave 4.2). Statuses are kept for ever, transactions up to
//! [`history::HISTORY_BYTES_MAX`].
//!
//! - [`log`]: frames on disk. - [`state`]: what the chain is, and how a transaction changes it. - `methods`: JSON in,
//!   JSON out. - [`Engine`]: bodies in, answers out, with neither thread nor socket. - `http`, `ws`: the listeners.
//!   - `pubsub`: who is told of what. - [`history`]: what is remembered of transactions.

mod detail;
mod engine;
mod execute;
pub mod faults;
pub mod feed;
mod frames;
pub mod history;
mod http;
pub mod log;
mod machine;
mod methods;
mod pubsub;
mod restore;
mod settling;
pub mod snapshot;
pub mod state;
pub mod timeline;
mod versions;
mod ws;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::address::Address;
use crate::market;

use pubsub::Hub;

pub use engine::{Answer, Engine, EngineConfig, Finality, Settings};

/// The market program as committed: what every local chain runs, and what a cluster would.
pub const MARKET_SO: &[u8] = include_bytes!("../../../../program/market.so");
/// The port of Solana's JSON-RPC.
pub const PORT: u16 = 8899;
/// Requests that wait for the chain's thread; more wait at their sockets.
const QUEUE_MAX: usize = 1024;
/// Requests answered after one write to disk.
const COMMIT_CALLS_MAX: usize = 64;

/// Bytes of log that a start replays at most, unless the chain's snapshot is larger: a second or two of reading.
const COMPACT_BYTES: u64 = 32 << 20;

/// Where the local chain's time comes from.
pub trait WallClock: Send + Sync + 'static {
    /// Milliseconds since 1970. The chain's own clock never goes back, even where this one does.
    fn unix_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a local chain needs to start.
pub struct LocalChainConfig {
    /// The folder of its log; made when missing. One process at a time.
    pub state_dir: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Randomness for the genesis hash. Only used at the first start.
    pub genesis_seed: [u8; 32],
    /// Programs and their ELF bytes, loaded at every start.
    pub programs: Vec<(Address, Vec<u8>)>,
    /// Where its time comes from.
    pub clock: Arc<dyn WallClock>,
    /// How it behaves.
    pub settings: Settings,
    /// How long its log grows, in bytes, before a snapshot replaces it.
    pub compact_bytes: u64,
}

impl LocalChainConfig {
    /// On 127.0.0.1:8899, with the machine's clock and the market program.
    #[must_use]
    pub fn new(state_dir: PathBuf, genesis_seed: [u8; 32]) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let programs = vec![(market::PROGRAM_ID, MARKET_SO.to_vec())];
        Self {
            state_dir,
            listen,
            genesis_seed,
            programs,
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            compact_bytes: COMPACT_BYTES,
        }
    }
}

impl std::fmt::Debug for LocalChainConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let programs: Vec<_> = self.programs.iter().map(|(address, elf)| (address, elf.len())).collect();
        f.debug_struct("LocalChainConfig")
            .field("state_dir", &self.state_dir)
            .field("listen", &self.listen)
            .field("programs", &programs)
            .finish_non_exhaustive()
    }
}

/// Why the local chain does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its port is taken or not allowed.
    #[error("the local chain cannot listen on {listen}: {source}; free the port or choose another")]
    Listen { listen: SocketAddr, source: std::io::Error },
    /// Its log cannot be used.
    #[error(transparent)]
    Log(#[from] log::LogError),
    /// A record or a program cannot be loaded into the virtual machine.
    #[error("the local chain cannot load {what}: {why}")]
    Load { what: String, why: String },
    /// The thread ended before it said anything.
    #[error("the local chain's thread ended at start")]
    Thread,
}

/// A running local chain. Dropping it stops it at once, as a crash would; nothing that was answered is lost.
#[derive(Debug)]
pub struct LocalChain {
    address: SocketAddr,
    ws_address: SocketAddr,
    torn_bytes: u64,
    stop: Stop,
    server: JoinHandle<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What the chain's thread waits for.
enum Message {
    /// A request.
    Call(Call),
    /// What a WebSocket has for the subscriptions.
    Socket(pubsub::Command),
    /// Nothing: it looks whether it has to stop, and tells subscribers that time passes.
    Wake,
}

/// One request on its way to the chain's thread.
struct Call {
    body: Bytes,
    reply: oneshot::Sender<Answer>,
}

/// Ends the chain's thread after the requests that it has taken up. Open connections hold senders of their own, so the
/// thread cannot wait for the last of them to go.
#[derive(Debug)]
struct Stop {
    asked: Arc<AtomicBool>,
    calls: mpsc::Sender<Message>,
}

impl Stop {
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // With a full queue the thread is awake anyway, and looks after its next write.
        let _ = self.calls.try_send(Message::Wake);
    }
}

/// Starts a local chain and answers once it is reachable.
///
/// # Errors
/// [`StartError`] when the port, the log or a program cannot be used.
pub async fn serve(config: LocalChainConfig) -> Result<LocalChain, StartError> {
    let listen = config.listen;
    let refused = |source| StartError::Listen { listen, source };
    let (listener, ws) = http::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let ws_address = ws.as_ref().map_or(Ok(address), TcpListener::local_addr).map_err(refused)?;
    let (calls, queue) = mpsc::channel(QUEUE_MAX);
    let (started, start) = oneshot::channel();
    let stop = Stop { asked: Arc::new(AtomicBool::new(false)), calls: calls.clone() };
    let asked = Arc::clone(&stop.asked);
    let thread = std::thread::Builder::new()
        .name("local-chain".to_owned())
        .spawn(move || run(config, queue, &asked, started))
        .map_err(|_| StartError::Thread)?;
    let torn_bytes = start.await.map_err(|_| StartError::Thread)??;
    let server = tokio::spawn(http::serve(listener, ws, calls));
    tracing::info!(%address, %ws_address, torn_bytes, "local chain: one process, no consensus");
    Ok(LocalChain { address, ws_address, torn_bytes, stop, server, thread: Some(thread) })
}

impl LocalChain {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address for subscriptions: the port after its JSON-RPC's, or that port itself where the next one is taken.
    /// Subscriptions are taken on both.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.ws_address)
    }

    /// Bytes of an unfinished write that were cut off the log at start; 0 after a clean stop.
    #[must_use]
    pub const fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Resolves when the chain has stopped by itself, which it only does when its log cannot be written.
    pub async fn stopped(&mut self) {
        // A panic of the server task ends it too.
        let _ = (&mut self.server).await;
    }

    /// Stops it and waits until the log is closed.
    pub async fn shutdown(mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic itself.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.server.abort();
        self.stopped().await;
    }
}

impl Drop for LocalChain {
    fn drop(&mut self) {
        self.stop.ask();
        self.server.abort();
    }
}

/// The chain's thread: applies calls one after the other, writes what changed, then answers.
fn run(
    config: LocalChainConfig,
    mut queue: mpsc::Receiver<Message>,
    stop: &AtomicBool,
    started: oneshot::Sender<Result<u64, StartError>>,
) {
    let compact_bytes = config.compact_bytes;
    let mut engine = match Engine::open(config) {
        Ok((engine, torn_bytes)) => {
            if started.send(Ok(torn_bytes)).is_err() {
                return;
            }
            engine
        }
        Err(error) => {
            // Nobody waits for the reason any more: there is nobody to tell.
            let _ = started.send(Err(error));
            return;
        }
    };
    let mut hub = Hub::default();
    while let Some(first) = queue.blocking_recv() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let (mut answers, mut sockets) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Call(call) => answers.push((call.reply, engine.answer(&call.body))),
                Message::Socket(command) => sockets.push(command),
                Message::Wake => engine.tick(),
            }
            if answers.len() + sockets.len() < COMMIT_CALLS_MAX {
                next = queue.try_recv().ok();
            }
        }
        let written = engine.commit();
        for (reply, answer) in answers {
            let answer = if written.is_ok() { answer } else { engine::stopped() };
            // A client that hung up wants no answer.
            let _ = reply.send(answer);
        }
        if let Err(error) = written.and_then(|()| engine.compact(compact_bytes)) {
            tracing::error!(%error, "the local chain stops: its memory is ahead of its log; start it again");
            return;
        }
        hub.publish(engine.state());
        sockets.into_iter().for_each(|command| hub.take(command, engine.state()));
    }
}

//! One link, from its first message to its end.
//!
//! `Hello` within five seconds, proven over this TLS session and against the chain; then frames both ways until one side
//! breaks a rule, goes silent for three heartbeats, or is replaced by a newer connection of the same device key.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::link::envelope::Body;
use atoll_api::link::{self, Envelope, Fault, Full, Heartbeat, Hello, Received, Refused, Sequence, VERSION, Welcome};
use atoll_chain::market::PROGRAM_ID;
use atoll_domain::id::WorkerId;
use atoll_domain::key::{PublicKey, Purpose, Signature};
use atoll_domain::worker::{Facts, SlotRef};
use atoll_interface::layout::{FleetPage, SLOT_USED, Table as _};
use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};

use super::session::Session;
use super::{Connection, inbound};
use crate::control::Control;
use crate::error::Code;
use crate::store::rows::Worker;
use crate::tls::Peer;

/// The longest a worker may take to introduce itself.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// The longest a worker waits for a node that has just started to read the market.
const MARKET_MAX: Duration = Duration::from_secs(3);
/// The longest one frame may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Commands read from the outbox at once.
const COMMANDS_MAX: u32 = 256;
/// Heartbeats that may be missed.
const BEATS_MISSED_MAX: u32 = 3;
/// The largest `facts`, in bytes.
const FACTS_BYTES_MAX: usize = 64 << 10;
/// The most pods one worker reports when it links.
const PODS_MAX: usize = 1024;

/// Why a link ends.
#[derive(Debug)]
pub(super) enum End {
    /// The worker broke a rule: it is told which.
    Refused(Code, String),
    /// The connection is gone, or the node stops.
    Gone(String),
    /// Something here failed: the worker connects again and repeats what was not acknowledged.
    Failed(anyhow::Error),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Refused(Code::LinkBadFrame, fault.to_string())
    }
}

impl From<Full> for End {
    fn from(full: Full) -> Self {
        Self::Refused(Code::LinkTooSlow, full.to_string())
    }
}

impl From<crate::store::StoreError> for End {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// A link's socket and who speaks on it.
pub(super) struct Link {
    pub(super) control: Arc<Control>,
    pub(super) worker: Worker,
    /// Leases looked up on the chain for pods that no job here has.
    pub(super) looked_up: u32,
    connection: Connection,
    sink: SplitSink<WebSocket, Message>,
}

/// Serves one link until it ends.
pub(super) async fn run(control: Arc<Control>, peer: Peer, socket: WebSocket) {
    let (mut sink, mut frames) = socket.split();
    let (hello, worker) = match introduce(&control, &peer, &mut frames).await {
        Ok(greeted) => greeted,
        Err(end) => return close(&mut sink, 0, end, &format!("{}", peer.address)).await,
    };
    let fresh = (u64::from_le_bytes(control.random()), u64::from_le_bytes(control.random()).max(1));
    let (connection, resumed, received) =
        control.links.begin(worker.id, (hello.resume_session, hello.resume_ack), fresh);
    let id = worker.id;
    let mut link = Link { control, worker, looked_up: 0, connection, sink };
    tracing::info!(worker = %id, resumed, address = %peer.address, "worker linked");
    let end = match link.welcome(resumed, received, &hello).await {
        Ok(()) => link.talk(&mut frames).await,
        Err(end) => end,
    };
    let session = link.session(|session| session.sequence.session()).unwrap_or_default();
    let away = link.control.links.end(id, &link.connection);
    link.control.wake.signal();
    tracing::info!(worker = %id, away, "link ended");
    close(&mut link.sink, session, end, &id.to_string()).await;
}

/// Tells the worker why, where it is its doing, and closes.
async fn close(sink: &mut SplitSink<WebSocket, Message>, session: u64, end: End, who: &str) {
    match end {
        End::Refused(code, message) => {
            tracing::info!(who, code = code.word(), message, "link refused");
            let refused = Refused { code: code.word().to_owned(), message };
            let envelope = Envelope { session, body: Some(Body::Refused(refused)), ..Envelope::default() };
            let told = sink.send(Message::Binary(link::encode(&envelope).into()));
            if tokio::time::timeout(WRITE_MAX, told).await.is_err() {
                return;
            }
        }
        End::Gone(why) => tracing::debug!(who, why, "link gone"),
        End::Failed(error) => {
            tracing::error!(who, error = format!("{error:#}"), "a link's message was not carried out")
        }
    }
    if tokio::time::timeout(WRITE_MAX, sink.close()).await.is_err() {
        tracing::debug!(who, "the socket did not close in time");
    }
}

/// Reads and checks `Hello`.
async fn introduce(
    control: &Control,
    peer: &Peer,
    frames: &mut SplitStream<WebSocket>,
) -> Result<(Hello, Worker), End> {
    let refused = |code, why: String| End::Refused(code, why);
    // Only the worker's own time is bounded here. Store and chain have bounds of theirs, and a Hello that waits its turn
    // behind thousands of others must not be thrown away for it: it would come again.
    let silent = |_| refused(Code::LinkBadHello, "no Hello within 5 s".into());
    let envelope = match tokio::time::timeout(HELLO_MAX, next_frame(frames)).await.map_err(silent)?? {
        Some(envelope) => envelope,
        None => return Err(End::Gone("it left before Hello".into())),
    };
    let Some(Body::Hello(hello)) = envelope.body else {
        return Err(refused(Code::LinkBadHello, "the first message must be Hello".into()));
    };
    if hello.version != VERSION {
        let message =
            format!("the worker speaks link version {}, this node {VERSION}: upgrade the older one", hello.version);
        return Err(refused(Code::LinkOtherVersion, message));
    }
    let worker = read_hello(control, &hello)?;
    let proof = <[u8; 64]>::try_from(hello.proof.as_slice()).map(Signature);
    let proven = proof.is_ok_and(|proof| worker.device_key.verify(Purpose::Link, &peer.exporter, &proof).is_ok());
    if !proven {
        let message = "the proof is not this device key's over this TLS connection: connect without anything that ends TLS in between";
        return Err(refused(Code::LinkBadProof, message.into()));
    }
    check_chain(control, &worker).await?;
    Ok((hello, worker))
}

/// What a worker says of itself, within bounds.
fn read_hello(control: &Control, hello: &Hello) -> Result<Worker, End> {
    let refused = |why: &str| End::Refused(Code::LinkBadHello, why.to_owned());
    let key = |bytes: &[u8], why: &str| <[u8; 32]>::try_from(bytes).map(PublicKey).map_err(|_| refused(why));
    let device_key = key(&hello.device_key, "the device key has not 32 bytes")?;
    let page = key(&hello.page, "the fleet page's address has not 32 bytes")?;
    let slot = u16::try_from(hello.slot).map_err(|_| refused("the slot is out of range"))?;
    if hello.facts.len() > FACTS_BYTES_MAX || hello.pods.len() > PODS_MAX {
        return Err(refused("too many facts or pods"));
    }
    let facts: Facts = serde_json::from_slice(&hello.facts).map_err(|error| refused(&format!("its facts: {error}")))?;
    if facts.packs.len() > 64
        || facts.devices == 0
        || facts.devices > 16
        || facts.cpu.len() > 256
        || facts.model.len() > 64
    {
        return Err(refused("its facts are out of bounds: 1 to 16 devices, at most 64 packs, short names"));
    }
    let host = hello.advertise.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
        return Err(refused("`advertise` is not a host name or address"));
    }
    Ok(Worker {
        id: WorkerId::of_device_key(&device_key),
        device_key,
        at: SlotRef { page, slot },
        facts,
        advertise: host.to_owned(),
        last_seen: control.now(),
    })
}

/// The slot that the worker names must be this device key's: in the market as this node read it last, else on the chain now.
async fn check_chain(control: &Control, worker: &Worker) -> Result<(), End> {
    // A node that has just started reads the market first: one read, where each worker would ask for its page.
    let read = tokio::time::timeout(MARKET_MAX, control.market.first()).await;
    if read.is_err() {
        tracing::debug!("the market is not read yet; the chain is asked for one worker's slot");
    }
    if let Some(why) = control.market.refusal() {
        // No fault of the worker's: it shall come again, to another node perhaps.
        return Err(End::Failed(anyhow::anyhow!(why)));
    }
    // What this node reads anyway says it for nearly all: ten thousand workers that come at once, each asking for its page
    // of 98 KiB, would be ten thousand pages.
    let seen = control.market.snapshot();
    let seen = seen.as_ref().and_then(|view| view.offers.get(&worker.id));
    if seen.is_some_and(|offer| offer.at == worker.at && offer.device_key == worker.device_key) {
        return Ok(());
    }
    // It joined a moment ago, or was moved, or is none.
    let SlotRef { page, slot } = worker.at;
    let account =
        control.rpc.account(&atoll_chain::Address(page.0)).await.map_err(|error| End::Failed(error.into()))?;
    let row = account
        .filter(|account| account.owner == PROGRAM_ID)
        .and_then(|account| FleetPage::read_row(&account.data, usize::from(slot)).ok().flatten());
    if row.is_some_and(|row| row.flags & SLOT_USED != 0 && row.device_key == worker.device_key.0) {
        return Ok(());
    }
    let message = format!(
        "the chain does not show device key {} in slot {slot} of page {page}: register it with `atoll worker join`",
        worker.device_key
    );
    Err(End::Refused(Code::LinkNotOnChain, message))
}

/// The next envelope; none when the worker closed.
async fn next_frame(frames: &mut SplitStream<WebSocket>) -> Result<Option<Envelope>, End> {
    loop {
        match frames.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                let envelope = link::decode(&bytes);
                return envelope.map(Some).map_err(|error| End::Refused(Code::LinkBadFrame, error.to_string()));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Ok(Message::Text(_))) => {
                return Err(End::Refused(Code::LinkBadFrame, "text where binary frames are spoken".into()));
            }
            Some(Err(error)) => return Err(broken_frame(&error)),
        }
    }
}

/// A WebSocket error is the worker's doing when it is about the frames, else the connection is gone.
fn broken_frame(error: &axum::Error) -> End {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return End::Gone(error.to_string());
        }
        cause = error.source();
    }
    let text = error.to_string();
    if text.contains("closed") || text.contains("without closing") || text.contains("reset") {
        return End::Gone(text);
    }
    End::Refused(Code::LinkBadFrame, format!("a broken or oversized frame: {text}"))
}

impl Link {
    async fn welcome(&mut self, resumed: bool, received: u64, hello: &Hello) -> Result<(), End> {
        // Looked up once the link stands: whatever comes later wakes it.
        let store = &self.control.store;
        let known = self.control.links.known(store.as_ref(), self.worker.id).await.map_err(End::Failed)?;
        // One that only comes back says what the store has, and nothing waits for the disk.
        let last_seen = self.worker.last_seen;
        if known.worker.is_none_or(|known| Worker { last_seen, ..known } != self.worker) {
            store.worker_put(&self.worker).await?;
        }
        let welcome = |session| Welcome {
            session,
            resumed,
            resume_ack: received,
            heartbeat_ms: self.control.config.heartbeat_ms,
            now_unix_ms: self.control.now().0,
        };
        let envelope = self.sequence(|sequence| sequence.passing(Some(Body::Welcome(welcome(sequence.session())))));
        let envelope = envelope.ok_or_else(replaced)?;
        self.send(envelope).await?;
        self.control.wake.signal();
        if known.is_busy || !hello.pods.is_empty() {
            inbound::hello(self, &hello.pods).await?;
            return self.deliver().await;
        }
        self.flush().await
    }

    /// Frames both ways until the link ends.
    async fn talk(&mut self, frames: &mut SplitStream<WebSocket>) -> End {
        let silence_max = self.control.config.heartbeat() * BEATS_MISSED_MAX;
        let mut silent_since = tokio::time::Instant::now();
        loop {
            let connection = self.connection.clone();
            // Commands before frames: a worker that never pauses must not keep its own commands from itself. Silence last:
            // what arrived while this node could not read is no silence.
            let step = tokio::select! {
                biased;
                () = connection.end.cancelled() => Err(self.ended()),
                () = connection.wake.notified() => self.deliver().await,
                frame = next_frame(frames) => {
                    silent_since = tokio::time::Instant::now();
                    match frame {
                        Ok(Some(envelope)) => self.received(envelope).await,
                        Ok(None) => Err(End::Gone("closed by the worker".into())),
                        Err(end) => Err(end),
                    }
                }
                () = tokio::time::sleep_until(silent_since + silence_max) => {
                    Err(End::Gone(format!("silent for {} ms", silence_max.as_millis())))
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Why this connection was told to end.
    fn ended(&self) -> End {
        if self.control.links.is_closed() { End::Gone("this node stops".into()) } else { replaced() }
    }

    async fn received(&mut self, envelope: Envelope) -> Result<(), End> {
        match self.sequence(|sequence| sequence.receive(envelope)).ok_or_else(replaced)?? {
            Received::Nothing => Ok(()),
            Received::Passing(Body::Heartbeat(beat)) => {
                inbound::heartbeat(self, &beat).await?;
                let answer = Heartbeat { unix_ms: self.control.now().0, running: vec![] };
                self.answer(Some(Body::Heartbeat(answer))).await
            }
            Received::Passing(_) => {
                Err(End::Refused(Code::LinkBadFrame, "only heartbeats and acknowledgements go without a number".into()))
            }
            Received::Kept(seq, body) => {
                inbound::body(self, body).await?;
                self.sequence(|sequence| sequence.carried_out(seq)).ok_or_else(replaced)?;
                self.answer(None).await
            }
        }
    }

    async fn answer(&mut self, body: Option<Body>) -> Result<(), End> {
        let envelope = self.sequence(|sequence| sequence.passing(body)).ok_or_else(replaced)?;
        self.send(envelope).await
    }

    /// Queues commands of the outbox that this session has not seen, and sends what waits.
    async fn deliver(&mut self) -> Result<(), End> {
        let commands = self.control.store.commands_open(self.worker.id, COMMANDS_MAX).await?;
        self.session(|session| {
            for command in commands {
                if session.sequence.room() == 0 || session.commands.contains(&command.id) {
                    continue;
                }
                let Some(body) = link::decode(&command.body).ok().and_then(|envelope| envelope.body) else {
                    tracing::error!(command = %command.id, "a command in the outbox cannot be read and is left out");
                    continue;
                };
                session.sequence.push(body)?;
                session.commands.insert(command.id);
            }
            Ok::<(), Full>(())
        })
        .ok_or_else(replaced)??;
        self.flush().await
    }

    /// Sends what waits.
    async fn flush(&mut self) -> Result<(), End> {
        while let Some(envelope) = self.sequence(Sequence::to_send).ok_or_else(replaced)? {
            self.send(envelope).await?;
        }
        Ok(())
    }

    async fn send(&mut self, envelope: Envelope) -> Result<(), End> {
        let sent = self.sink.send(Message::Binary(link::encode(&envelope).into()));
        match tokio::time::timeout(WRITE_MAX, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Gone(error.to_string())),
            Err(_) => Err(End::Gone("it does not read".into())),
        }
    }

    fn sequence<T>(&self, work: impl FnOnce(&mut Sequence) -> T) -> Option<T> {
        self.session(|session| work(&mut session.sequence))
    }

    /// Works on the session, as long as this connection speaks for the worker.
    pub(super) fn session<T>(&self, work: impl FnOnce(&mut Session) -> T) -> Option<T> {
        self.control.links.session(self.worker.id, &self.connection, work)
    }
}

fn replaced() -> End {
    End::Refused(Code::LinkReplaced, "the same device key linked again".into())
}

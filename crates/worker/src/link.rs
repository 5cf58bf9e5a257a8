//! The worker's end of the control link: one task for each operator, that keeps a session alive over any number of
//! connections.
//!
//! It dials, proves the device key over the connection's exporter, says what really runs here, and from then on carries
//! bodies both ways with sequence numbers and acknowledgements. When a connection ends, for whatever reason, it dials
//! again after a full-jitter pause: another server of the operator, if there is one, where a new session begins with all
//! that was not acknowledged; else the same one, and resumes. Everything is bounded: frames by the codec, what is not acknowledged by the
//! session, what the world has not taken yet by not reading on. What the bodies mean is [`crate::world`]'s.

pub mod dial;
mod route;
pub mod session;
pub mod tls;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::link::envelope::Body;
use atoll_api::link::{
    EXPORTER_BYTES, Envelope, FRAME_BYTES_MAX, Full, Heartbeat, Hello, PodReport, VERSION, Welcome, decode, encode,
};
use atoll_domain::key::{Purpose, SecretKey};
use atoll_domain::worker::SlotRef;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink as _, SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::Message;

use crate::link::dial::{DialError, Operator, Socket};
use crate::link::route::Route;
use crate::link::session::{Fault, Session};
use crate::outside::{SharedOutside, jitter};

/// Bodies that wait between the link and the world, each way. The world empties them at once; a full one is back-pressure.
const WAITING_MAX: usize = 64;
/// The longest pause before the second attempt; it doubles each time that every server was tried.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause: workers of a restarted control plane come back within it, evenly spread.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long the control plane may take to welcome, and how long it may be silent at least before it counts as gone.
const SILENCE_MIN: Duration = Duration::from_secs(10);
/// Missed heartbeats that count as silence.
const SILENCE_BEATS: u32 = 5;
/// Bodies received before an acknowledgement goes out of its own; otherwise it rides on the next heartbeat.
const ACK_EVERY: u64 = 32;

/// Who this worker is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its device key.
    pub device: Arc<SecretKey>,
    /// Its place on the chain.
    pub slot: SlotRef,
    /// Host or address at which other pods' supervisors reach this machine.
    pub advertise: String,
}

/// What the link says of this machine without being asked.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    /// JSON of `domain::worker::Facts`.
    pub facts: Vec<u8>,
    /// Every pod that is here, for `Hello`.
    pub pods: Vec<PodReport>,
    /// The pods whose tenant runs, for heartbeats.
    pub running: Vec<String>,
}

/// What the link tells the world.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// A session stands.
    Up {
        /// Whether it is the one that stood before.
        resumed: bool,
    },
    /// A body came.
    Received(Box<Body>),
    /// The connection ended.
    Down {
        /// Why, in words.
        reason: String,
    },
}

/// The world's ends of the link.
#[derive(Debug)]
pub struct Link {
    /// Bodies to be delivered. Dropping it ends the link.
    pub outbox: mpsc::Sender<Body>,
    /// What happens on the link.
    pub events: mpsc::Receiver<LinkEvent>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the control plane refused this worker: {message} ({code})")]
    Refused { code: String, message: String },
    #[error("the control plane sent garbage: {0}; the connection was closed")]
    Garbage(String),
    #[error("the control plane broke the rules of the link: {0}; the connection was closed")]
    Fault(#[from] Fault),
    #[error("the control plane is too slow: {0}; the connection was closed")]
    Slow(#[from] Full),
    #[error("nothing came from the control plane for {0:?}")]
    Silent(Duration),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the control plane closed the connection")]
    Closed,
    #[error("this worker is stopping")]
    Stopping,
}

/// A link whose world exists before its task runs, so that the first `Hello` is complete.
#[derive(Debug)]
pub struct Later {
    /// The world's ends.
    pub link: Link,
    /// What starts the task.
    pub keeper: Starter,
}

/// Starts a link's task.
#[derive(Debug)]
pub struct Starter {
    outbox: mpsc::Receiver<Body>,
    events: mpsc::Sender<LinkEvent>,
}

impl Later {
    /// A link that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (outbox, to_send) = mpsc::channel(WAITING_MAX);
        let (to_world, events) = mpsc::channel(WAITING_MAX);
        Self { link: Link { outbox, events }, keeper: Starter { outbox: to_send, events: to_world } }
    }
}

impl Default for Later {
    fn default() -> Self {
        Self::new()
    }
}

impl Starter {
    /// Starts the link's task.
    pub fn start(
        self,
        operator: Operator,
        identity: Identity,
        outside: SharedOutside,
        presence: watch::Receiver<Presence>,
    ) {
        let Self { outbox, events } = self;
        let route = Route::new(operator.servers().len(), outside.as_ref());
        let session = Session::default();
        let keeper = Keeper { operator, route, identity, outside, presence, outbox, events, session };
        atoll_life::spawn(keeper.run());
    }
}

struct Keeper {
    operator: Operator,
    route: Route,
    identity: Identity,
    outside: SharedOutside,
    presence: watch::Receiver<Presence>,
    outbox: mpsc::Receiver<Body>,
    events: mpsc::Sender<LinkEvent>,
    session: Session,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let ended = match self.connect().await {
                Ok((connection, resumed)) => {
                    self.route.stands();
                    self.serve(connection, resumed).await
                }
                Err(ended) => ended,
            };
            if matches!(ended, Ended::Stopping) {
                return;
            }
            if matches!(ended, Ended::Fault(_) | Ended::Slow(_) | Ended::Refused { .. }) {
                // What this side holds may not fit what the peer holds: start over, with all that runs in Hello.
                self.session.forget();
            }
            let rounds = self.route.move_on(self.outside.as_ref());
            let most = PAUSE_MIN.saturating_mul(1 << rounds.min(10)).min(PAUSE_MAX);
            let most = if matches!(ended, Ended::Refused { .. }) { PAUSE_MAX } else { most };
            let pause = jitter(self.outside.as_ref(), most);
            let (operator, again_in_ms) = (self.operator.name(), pause.as_millis());
            tracing::warn!(%operator, reason = %ended, again_in_ms, "the control link is down");
            let (events, down) = (self.events.clone(), LinkEvent::Down { reason: ended.to_string() });
            let waited = async move {
                // A world that has gone is noticed by its closed outbox.
                let _ = events.send(down).await;
                tokio::time::sleep(pause).await;
            };
            if self.while_queueing(waited).await.is_none() {
                return;
            }
        }
    }

    /// Waits for `what` and takes bodies in the meantime; none when the world has gone.
    async fn while_queueing<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        queueing(what, &mut self.outbox, &mut self.session).await
    }

    async fn connect(&mut self) -> Result<(Connection, bool), Ended> {
        let (operator, server) = (self.operator.clone(), self.route.server());
        let (socket, exporter) = self.while_queueing(operator.link(server)).await.ok_or(Ended::Stopping)??;
        // `Hello` belongs to no session yet.
        let hello = Envelope { session: 0, seq: 0, ack: 0, body: Some(Body::Hello(self.hello(server, &exporter))) };
        let greeted = async {
            let mut connection = Connection::new(socket);
            connection.send_now(&hello).await?;
            let welcome = connection.welcome().await?;
            Ok::<_, Ended>((connection, welcome))
        };
        let greeted = self.while_queueing(tokio::time::timeout(SILENCE_MIN, greeted)).await.ok_or(Ended::Stopping)?;
        let (mut connection, welcome) = greeted.map_err(|_| Ended::Silent(SILENCE_MIN))??;
        self.session.welcome(server, &welcome)?;
        connection.beat = Duration::from_millis(u64::from(welcome.heartbeat_ms.clamp(200, 30_000)));
        Ok((connection, welcome.resumed))
    }

    fn hello(&self, server: usize, exporter: &[u8; EXPORTER_BYTES]) -> Hello {
        let presence = self.presence.borrow();
        let (resume_session, resume_ack) = self.session.resume(server);
        Hello {
            version: VERSION,
            device_key: self.identity.device.public().0.to_vec(),
            proof: self.identity.device.sign(Purpose::Link, exporter).0.to_vec(),
            page: self.identity.slot.page.0.to_vec(),
            slot: u32::from(self.identity.slot.slot),
            resume_session,
            resume_ack,
            facts: presence.facts.clone(),
            advertise: self.identity.advertise.clone(),
            pods: presence.pods.clone(),
        }
    }

    fn heartbeat(&self) -> Envelope {
        let running = self.presence.borrow().running.clone();
        self.session.sequence.passing(Some(Body::Heartbeat(Heartbeat { unix_ms: self.outside.now().0, running })))
    }

    async fn serve(&mut self, mut connection: Connection, resumed: bool) -> Ended {
        let operator = self.operator.name();
        tracing::info!(%operator, session = self.session.sequence.session(), resumed, "the control link stands");
        let events = self.events.clone();
        let told = self.while_queueing(async move { events.send(LinkEvent::Up { resumed }).await });
        if !matches!(told.await, Some(Ok(()))) {
            return Ended::Stopping;
        }
        let ended = self.exchange(&mut connection).await.unwrap_or_else(|ended| ended);
        // A farewell is courtesy: the peer notices a broken connection too.
        let _ = tokio::time::timeout(Duration::from_secs(1), connection.sink.close()).await;
        ended
    }

    async fn exchange(&mut self, connection: &mut Connection) -> Result<Ended, Ended> {
        let silence = (connection.beat * SILENCE_BEATS).max(SILENCE_MIN);
        let mut beats = tokio::time::interval(connection.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut acknowledged = self.session.sequence.received();
        // Heartbeats and acknowledgements that wait for the socket. One of each at most.
        let (mut beat_due, mut ack_due) = (false, false);
        loop {
            let to_write = beat_due || ack_due || self.session.sequence.has_unsent();
            let events = self.events.clone();
            tokio::select! {
                biased;
                _ = beats.tick() => beat_due = true,
                // Writing ends by itself, when there is nothing more or the socket is full; reading need not.
                written = poll_fn(|cx| {
                    let sink = Pin::new(&mut connection.sink);
                    if to_write { sink.poll_ready(cx) } else { sink.poll_flush(cx) }
                }), if to_write || connection.unflushed => {
                    written.map_err(broken)?;
                    if !to_write {
                        connection.unflushed = false;
                        continue;
                    }
                    let envelope = if let Some(envelope) = self.session.sequence.to_send() {
                        envelope
                    } else if std::mem::take(&mut beat_due) {
                        self.heartbeat()
                    } else {
                        self.session.sequence.passing(None)
                    };
                    ack_due = false;
                    acknowledged = self.session.sequence.received();
                    connection.start(&envelope)?;
                },
                body = self.outbox.recv() => match body {
                    Some(body) => self.session.sequence.push(body)?,
                    None => return Ok(Ended::Stopping),
                },
                // Reading waits until the world has room: that is the back-pressure.
                (permit, message) = async { (events.reserve().await, connection.stream.next().await) } => {
                    heard = Instant::now();
                    let Ok(permit) = permit else { return Ok(Ended::Stopping) };
                    let Some(envelope) = read(message)? else { continue };
                    match self.session.receive(envelope)? {
                        Some(Body::Refused(refused)) => {
                            return Err(Ended::Refused { code: refused.code, message: refused.message });
                        }
                        Some(body) => permit.send(LinkEvent::Received(Box::new(body))),
                        None => {}
                    }
                    ack_due |= self.session.sequence.received() >= acknowledged + ACK_EVERY;
                },
                () = tokio::time::sleep_until(heard + silence) => return Err(Ended::Silent(silence)),
            }
        }
    }
}

/// Waits for `what` and queues bodies in the meantime; none when nobody will send any more.
async fn queueing<T>(
    what: impl Future<Output = T>,
    outbox: &mut mpsc::Receiver<Body>,
    session: &mut Session,
) -> Option<T> {
    let mut what = pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return Some(done),
            body = outbox.recv() => {
                let body = body?;
                if session.sequence.push(body.clone()).is_err() {
                    // Down for so long that more waits than is kept. Hello tells what runs; commands are asked again.
                    session.forget();
                    session.sequence.push(body).ok()?;
                }
            }
        }
    }
}

struct Connection {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    beat: Duration,
    unflushed: bool,
}

impl Connection {
    fn new(socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        Self { sink, stream, beat: Duration::from_secs(1), unflushed: false }
    }

    fn start(&mut self, envelope: &Envelope) -> Result<(), Ended> {
        self.unflushed = true;
        Pin::new(&mut self.sink).start_send(Message::Binary(encode(envelope).into())).map_err(broken)
    }

    async fn send_now(&mut self, envelope: &Envelope) -> Result<(), Ended> {
        self.sink.send(Message::Binary(encode(envelope).into())).await.map_err(broken)
    }

    async fn welcome(&mut self) -> Result<Welcome, Ended> {
        loop {
            let Some(envelope) = read(self.stream.next().await)? else { continue };
            return match envelope.body {
                Some(Body::Welcome(welcome)) => Ok(welcome),
                Some(Body::Refused(refused)) => Err(Ended::Refused { code: refused.code, message: refused.message }),
                _ => Err(Ended::Garbage("something came before the welcome".into())),
            };
        }
    }
}

type WsError = tokio_tungstenite::tungstenite::Error;

fn broken(error: WsError) -> Ended {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => Ended::Closed,
        WsError::Capacity(_) => Ended::Garbage(format!("a frame of more than {FRAME_BYTES_MAX} bytes")),
        WsError::Protocol(error) => Ended::Garbage(error.to_string()),
        WsError::Utf8(_) => Ended::Garbage("text that is not UTF-8".into()),
        error => Ended::Broken(error.to_string()),
    }
}

/// The envelope of one WebSocket message; none for pings and pongs.
fn read(message: Option<Result<Message, WsError>>) -> Result<Option<Envelope>, Ended> {
    match message {
        None => Err(Ended::Closed),
        Some(Err(error)) => Err(broken(error)),
        Some(Ok(Message::Binary(frame))) => decode(&frame).map(Some).map_err(|error| Ended::Garbage(error.to_string())),
        Some(Ok(Message::Text(_))) => Err(Ended::Garbage("a text message".into())),
        Some(Ok(Message::Close(_))) => Err(Ended::Closed),
        Some(Ok(_)) => Ok(None),
    }
}

//! A link that moves between the servers of an operator, and one that flaps. In one process and virtual time: the dialler
//! makes pipes, everything above it is the real link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::link::envelope::Body;
use atoll_api::link::{Envelope, Hello, StopPod, Usage, Welcome, decode, encode};
use atoll_domain::key::PublicKey;
use atoll_domain::worker::SlotRef;
use atoll_worker::link::dial::{Dial, DialError, Dialled, Operator, OperatorName, Server};
use atoll_worker::link::{Identity, Later, Link, LinkEvent, Presence};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Counting, device};

/// Servers by name; one that is not there refuses.
#[derive(Clone, Debug, Default)]
struct Pipes(Arc<Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>>);

#[async_trait]
impl Dial for Pipes {
    async fn connect(&self, server: &Server) -> Result<Dialled, DialError> {
        let there = self.0.lock().unwrap().get(&server.host).cloned();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let refused = || DialError::Unreachable(server.clone(), std::io::ErrorKind::ConnectionRefused.into());
        there.ok_or_else(refused)?.send(theirs).await.map_err(|_| refused())?;
        Ok((Box::new(ours), [7; 32]))
    }
}

/// What one server remembers of the worker's session.
struct Node {
    name: u64,
    calls: mpsc::Receiver<DuplexStream>,
    session: u64,
    received: u64,
    /// Commands of this session that are not acknowledged, with their numbers.
    unacked: Vec<(u64, u32)>,
    given: u64,
}

impl Node {
    fn open(pipes: &Pipes, name: u64) -> Self {
        let (place, calls) = mpsc::channel(8);
        pipes.0.lock().unwrap().insert(format!("node-{name}"), place);
        Self { name, calls, session: 0, received: 0, unacked: vec![], given: 0 }
    }

    async fn accept(&mut self) -> (WebSocketStream<DuplexStream>, Hello) {
        // One that was taken off the net is called by nobody any more.
        let Some(stream) = self.calls.recv().await else { return std::future::pending().await };
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let Some(Body::Hello(hello)) = next(&mut socket).await.unwrap().body else { panic!("Hello comes first") };
        (socket, hello)
    }

    /// Answers `Hello`: goes on where it was, unless it has forgotten.
    async fn welcome(&mut self, socket: &mut WebSocketStream<DuplexStream>, hello: &Hello, forget: bool) {
        let resumed = !forget && self.session != 0 && hello.resume_session == self.session;
        if resumed {
            self.unacked.retain(|(seq, _)| *seq > hello.resume_ack);
        } else {
            (self.session, self.received, self.given) = (self.session + 10 + self.name, 0, 0);
            // What is not answered comes again out of the store, under numbers of the new session.
            for (seq, _) in &mut self.unacked {
                self.given += 1;
                *seq = self.given;
            }
        }
        let welcome =
            Welcome { session: self.session, resumed, resume_ack: self.received, heartbeat_ms: 200, now_unix_ms: 1 };
        say(socket, self.session, 0, 0, Some(Body::Welcome(welcome))).await;
        for (seq, command) in self.unacked.clone() {
            self.command(socket, seq, command).await;
        }
    }

    async fn command(&self, socket: &mut WebSocketStream<DuplexStream>, seq: u64, command: u32) {
        let stop = StopPod { command: command.to_string(), ..StopPod::default() };
        say(socket, self.session, seq, self.received, Some(Body::StopPod(stop))).await;
    }

    /// Takes an envelope; gives the number in a usage that is new in this session.
    fn take(&mut self, envelope: Envelope) -> Option<u32> {
        assert_eq!(envelope.session, self.session);
        self.unacked.retain(|(seq, _)| *seq > envelope.ack);
        if envelope.seq == 0 || envelope.seq <= self.received {
            return None;
        }
        assert_eq!(envelope.seq, self.received + 1, "nothing is left out");
        self.received = envelope.seq;
        let Some(Body::Usage(usage)) = envelope.body else { panic!("only usage was said") };
        Some(u32::from_le_bytes(usage.signed.try_into().unwrap()))
    }
}

async fn next(socket: &mut WebSocketStream<DuplexStream>) -> Option<Envelope> {
    loop {
        match socket.next().await? {
            Ok(Message::Binary(frame)) => return Some(decode(&frame).unwrap()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn say(socket: &mut WebSocketStream<DuplexStream>, session: u64, seq: u64, ack: u64, body: Option<Body>) {
    // A worker that has hung up takes nothing any more.
    let _ = socket.send(Message::Binary(encode(&Envelope { session, seq, ack, body }).into())).await;
}

fn link(pipes: &Pipes, servers: u64) -> (Link, watch::Sender<Presence>) {
    let servers = (0..servers).map(|n| Server { host: format!("node-{n}"), port: 1 }).collect();
    let operator = Operator::new(OperatorName("own".into()), servers, Arc::new(pipes.clone())).unwrap();
    let Later { link, keeper } = Later::new();
    let (shown, seen) = watch::channel(Presence::default());
    let slot = SlotRef { page: PublicKey([5; 32]), slot: 3 };
    let identity = Identity { device: Arc::new(device()), slot, advertise: "127.0.0.1".into() };
    keeper.start(operator, identity, Arc::new(Counting::default()), seen);
    (link, shown)
}

fn usage(n: u32) -> Body {
    Body::Usage(Usage { signed: n.to_le_bytes().to_vec() })
}

/// Whichever of the servers is called first.
async fn called(nodes: &mut [Node]) -> (usize, WebSocketStream<DuplexStream>, Hello) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        for (at, node) in nodes.iter_mut().enumerate() {
            let accepted = tokio::time::timeout(Duration::from_millis(1), node.accept()).await;
            if let Ok((socket, hello)) = accepted {
                return (at, socket, hello);
            }
        }
        assert!(Instant::now() < deadline, "nobody is called");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_moves_at_once_and_a_new_session_has_all_that_was_not_acknowledged() {
    let pipes = Pipes::default();
    let mut nodes: Vec<Node> = (0..3).map(|name| Node::open(&pipes, name)).collect();
    let (link, _shown) = link(&pipes, 3);
    let (first, mut socket, hello) = called(&mut nodes).await;
    assert_eq!(hello.resume_session, 0);
    nodes[first].welcome(&mut socket, &hello, false).await;
    for n in 1..=5 {
        link.outbox.send(usage(n)).await.unwrap();
    }
    let mut got = vec![];
    while got.len() < 5 {
        got.extend(nodes[first].take(next(&mut socket).await.unwrap()));
    }
    // It carried out all five, said so of two, and dies; another one of the three died before.
    let session = nodes[first].session;
    say(&mut socket, session, 0, 2, None).await;
    while next(&mut socket).await.unwrap().seq != 0 {}
    let dead = format!("node-{}", (first + 1) % 3);
    pipes.0.lock().unwrap().retain(|name, _| *name != dead && *name != format!("node-{first}"));
    drop(socket);
    let died = Instant::now();
    let (second, mut socket, hello) = called(&mut nodes).await;
    assert!(second != first && format!("node-{second}") != dead);
    assert!(died.elapsed() < Duration::from_secs(2), "two attempts after short pauses: {:?}", died.elapsed());
    assert_eq!((hello.resume_session, hello.resume_ack), (0, 0), "only the first one has that session");
    nodes[second].welcome(&mut socket, &hello, false).await;
    let mut got = vec![];
    while got.len() < 3 {
        got.extend(nodes[second].take(next(&mut socket).await.unwrap()));
    }
    assert_eq!(got, [3, 4, 5]);
}

/// A minute of a link that breaks every second. What the link gives the world and the servers, in order.
async fn flap(servers: u64, forget_every: u32) -> (Vec<u32>, Vec<u32>, u32) {
    let pipes = Pipes::default();
    let mut nodes: Vec<Node> = (0..servers).map(|name| Node::open(&pipes, name)).collect();
    let (Link { outbox, mut events }, _shown) = link(&pipes, servers);
    let (mut reports, mut commands, mut said, mut given, mut connections) = (vec![], vec![], 0, 0, 0);
    let end = Instant::now() + Duration::from_secs(60);
    let mut draining = false;
    loop {
        let (at, mut socket, hello) = called(&mut nodes).await;
        let node = &mut nodes[at];
        connections += 1;
        node.welcome(&mut socket, &hello, connections % forget_every == 0).await;
        let breaks = Instant::now() + Duration::from_secs(1);
        let mut ticks = tokio::time::interval(Duration::from_millis(70));
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(breaks) => break,
                event = events.recv() => if let Some(LinkEvent::Received(body)) = event {
                    let Body::StopPod(stop) = *body else { continue };
                    commands.push(stop.command.parse().unwrap());
                },
                envelope = next(&mut socket) => {
                    let Some(envelope) = envelope else { break };
                    let new = node.take(envelope);
                    reports.extend(new);
                    // Not everything is acknowledged before the connection breaks.
                    if new.is_some_and(|n| n % 3 == 0) {
                        say(&mut socket, node.session, 0, node.received, None).await;
                    }
                }
                _ = ticks.tick() => if !draining {
                    said += 1;
                    outbox.try_send(usage(said)).unwrap();
                    given += 1;
                    node.given += 1;
                    node.unacked.push((node.given, given));
                    let seq = node.given;
                    node.command(&mut socket, seq, given).await;
                },
            }
        }
        let (told, done) = (BTreeSet::from_iter(reports.iter()), BTreeSet::from_iter(commands.iter()));
        if draining && told.len() == said as usize && done.len() == given as usize {
            return (reports, commands, connections);
        }
        assert!(Instant::now() < end + Duration::from_secs(60), "{} of {said}, {} of {given}", told.len(), done.len());
        draining = Instant::now() >= end;
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_flaps_every_second_for_a_minute_loses_and_doubles_nothing() {
    let (reports, commands, connections) = flap(1, u32::MAX).await;
    assert!(connections > 30, "{connections}");
    let in_order = |all: &[u32]| all.iter().copied().eq(1..=u32::try_from(all.len()).unwrap());
    assert!(in_order(&reports) && reports.len() > 400, "each report once and in order: {reports:?}");
    assert!(in_order(&commands) && commands.len() > 400, "each command once and in order");
}

#[tokio::test(start_paused = true)]
async fn one_that_flaps_between_servers_that_forget_loses_nothing() {
    let (reports, commands, connections) = flap(3, 4).await;
    assert!(connections > 30 && reports.len() > 400 && commands.len() > 400, "{connections}");
    // Again is harmless: statements are cumulative, and the world answers a command that it has answered.
}

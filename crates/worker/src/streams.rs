//! Byte streams: a WebSocket of its own for each, spliced to a port or the output of a pod, or from a pod to its store.
//!
//! Bytes travel as binary messages; an empty one ends its direction, closing the socket ends both. Where output was
//! dropped because nobody fetched it in time, a line in the output says how much. Nothing here reads what goes by:
//! credentials are between the pod and the control plane.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_domain::id::PodId;
use atoll_domain::key::SecretKey;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::host::{ByteStream, Host, SharedHost};
use crate::link::dial::{Operator, OperatorName, Socket};
use crate::world::command::{Stream as Asked, StreamTarget};

/// Bytes read at once. Every open stream holds two buffers of about this size.
const CHUNK_BYTES: usize = 16 << 10;
/// A ping goes out after this long, so that proxies keep the connection.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Without a byte or a pong for this long the peer is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Store connections of one pod at once. More are closed; clients in the pod try again.
const STREAMS_OF_POD_MAX: usize = 16;
/// Store connections of all pods at once: as many as the pods of 16 devices, the most of a worker, can have together, so
/// that no tenant takes another one's place.
const STREAMS_MAX: usize = 16 * STREAMS_OF_POD_MAX;
/// A store connection keeps its place at least this long: a tenant that opens and closes as fast as it can makes the
/// worker dial the control plane 160 times a second at most.
const PLACE_HELD_MIN: Duration = Duration::from_millis(100);
/// The longest first line on the worker's socket: `{"pod":"pod_…"}` has 42 bytes.
const HEADER_BYTES_MAX: u64 = 128;
/// How long that line may take.
const HEADER_MAX: Duration = Duration::from_secs(2);

/// Dials the stream that an operator's control plane asked for and splices it.
pub async fn open(operator: Operator, device: Arc<SecretKey>, asked: Asked, host: SharedHost) {
    let socket = match operator.stream(&asked.stream.to_string(), &device).await {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(stream = %asked.stream, reason = %error, "a stream cannot be dialled"),
    };
    let outcome = match asked.target {
        StreamTarget::Port(port) => match host.dial(asked.pod, port).await {
            Ok(inside) => splice(socket, inside).await,
            Err(error) => return refuse_socket(socket, &format!("port {port} of {}: {error:#}", asked.pod)).await,
        },
        StreamTarget::Output(from) => send_output(socket, host.as_ref(), asked.pod, from).await,
    };
    match outcome {
        Ok(()) => tracing::debug!(stream = %asked.stream, "a stream has ended"),
        Err(error) => tracing::debug!(stream = %asked.stream, reason = %error, "a stream broke"),
    }
}

/// Dials a stream only to say why it leads nowhere.
pub async fn refuse(operator: Operator, device: Arc<SecretKey>, asked: Asked, why: String) {
    tracing::warn!(stream = %asked.stream, reason = why, "a stream is refused");
    if let Ok(socket) = operator.stream(&asked.stream.to_string(), &device).await {
        refuse_socket(socket, &why).await;
    }
}

async fn refuse_socket(mut socket: Socket, why: &str) {
    // A close frame carries at most 123 bytes of reason.
    let mut end = why.len().min(120);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame { code: CloseCode::Error, reason: why[..end].into() };
    // The peer may be gone; there is nobody else to tell.
    let _ = socket.close(Some(frame)).await;
}

/// Sends a pod's output until it has ended.
async fn send_output(mut socket: Socket, host: &dyn Host, pod: PodId, from: u64) -> io::Result<()> {
    let mut at = from;
    loop {
        let mut piece = host.output(pod, at).await?;
        at = say_dropped(&mut socket, at, piece.begins).await?;
        let before = at;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = piece.bytes.read(&mut chunk).await?;
            if read == 0 {
                break;
            }
            at += read as u64;
            send_chunk(&mut socket, &chunk[..read]).await?;
        }
        // A piece that has something may have been cut because this side was slow: then there is more to ask for.
        if at == before {
            break;
        }
    }
    send_chunk(&mut socket, &[]).await?;
    socket.close(None).await.map_err(broken)
}

async fn say_dropped(socket: &mut Socket, asked: u64, begins: u64) -> io::Result<u64> {
    if begins > asked {
        let said = format!("\n[atoll: {} bytes of output were dropped here, unread for too long]\n", begins - asked);
        send_chunk(socket, said.as_bytes()).await?;
    }
    Ok(begins)
}

async fn send_chunk(socket: &mut Socket, bytes: &[u8]) -> io::Result<()> {
    timed(socket.send(Message::Binary(bytes.to_vec().into()))).await
}

async fn timed(send: impl Future<Output = Result<(), WsError>>) -> io::Result<()> {
    match tokio::time::timeout(SILENCE_MAX, send).await {
        Ok(sent) => sent.map_err(broken),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn broken(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// Copies both ways until both have ended or one side is gone.
///
/// # Errors
/// One of the two broke, or the peer was silent too long.
pub async fn splice<S, T>(socket: WebSocketStream<S>, inside: T) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite,
{
    let (mut sink, stream) = socket.split();
    let (from_inside, to_inside) = tokio::io::split(inside);
    let outcome = {
        let mut outward = pin!(outward(from_inside, &mut sink));
        let mut inward = pin!(inward(stream, to_inside));
        // Outward only ends by failing: after its last byte it keeps the connection until inward has ended too.
        tokio::select! {
            biased;
            failed = &mut outward => failed,
            ended = &mut inward => ended,
        }
    };
    // The peer may have closed first.
    let _ = tokio::time::timeout(Duration::from_secs(1), sink.close()).await;
    outcome
}

async fn outward(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl Sink<Message, Error = WsError> + Unpin),
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut open = true;
    let mut pings = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        let message = tokio::select! {
            biased;
            read = from.read(&mut chunk), if open => {
                let read = read?;
                // An empty message: this direction has ended.
                open = read > 0;
                Message::Binary(chunk[..read].to_vec().into())
            }
            _ = pings.tick() => Message::Ping(vec![].into()),
        };
        timed(to.send(message)).await?;
    }
}

async fn inward(
    mut from: impl Stream<Item = Result<Message, WsError>> + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    loop {
        let deadline = Instant::now() + SILENCE_MAX;
        let message = timeout_at(deadline, from.next()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        match message {
            Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => to.shutdown().await?,
            Some(Ok(Message::Binary(bytes))) => to.write_all(&bytes).await?,
            Some(Ok(Message::Close(_))) | None => return to.shutdown().await,
            Some(Ok(_)) => {}
            Some(Err(WsError::ConnectionClosed)) => return to.shutdown().await,
            Some(Err(error)) => return Err(broken(error)),
        }
    }
}

/// Listens where supervisors bring their pods' store connections. A socket that a dead worker left is replaced.
///
/// # Errors
/// The folder cannot be written.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd as _;
    let (folder, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    let folder = std::fs::File::open(folder)?;
    // By a descriptor of the folder: the kernel takes names of 107 bytes at most.
    let short = Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    match std::fs::remove_file(&short) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&short)?;
    std::fs::set_permissions(&short, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What store connections need to know.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Every operator of this worker.
    pub operators: Arc<BTreeMap<OperatorName, Operator>>,
    /// The device key.
    pub device: Arc<SecretKey>,
    /// The pods that may reach their store, and whose it is.
    pub live: watch::Receiver<BTreeMap<PodId, OperatorName>>,
}

/// Takes pods' store connections for ever.
pub async fn serve_store(host: SharedHost, stores: Stores) {
    let places = Places::default();
    loop {
        let stream = match host.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                // A stranger; or out of descriptors, and those in use end by and by.
                tracing::debug!(reason = %error, "a store connection is not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (stores, places) = (stores.clone(), places.clone());
        atoll_life::spawn(async move {
            if let Err(error) = store_stream(stream, &stores, &places).await {
                tracing::debug!(reason = %error, "a store connection has ended");
            }
        });
    }
}

async fn store_stream(
    stream: Box<dyn ByteStream>,
    stores: &Stores,
    places: &Places,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut inside = BufReader::with_capacity(CHUNK_BYTES, stream);
    let pod = tokio::time::timeout(HEADER_MAX, header(&mut inside)).await??;
    let of = stores.live.borrow().get(&pod).cloned();
    let operator = of.and_then(|name| stores.operators.get(&name));
    let operator =
        operator.ok_or_else(|| format!("{pod} is not live here, or its operator is none of this worker's"))?;
    let _place = places.take(pod).ok_or_else(|| format!("{pod} has too many store connections"))?;
    let free_again = Instant::now() + PLACE_HELD_MIN;
    let served = async {
        let socket = operator.store_stream(&pod.to_string(), &stores.device).await?;
        Ok(splice(socket, inside).await?)
    };
    let outcome = served.await;
    tokio::time::sleep_until(free_again).await;
    outcome
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    pod: PodId,
}

/// Reads the first line; what comes after it stays in the reader.
///
/// # Errors
/// It is too long, ends early, or is not `{"pod":"…"}`.
async fn header(from: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<PodId> {
    let mut line = Vec::new();
    from.take(HEADER_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a header is one line of at most 128 bytes"));
    }
    let header: Header = serde_json::from_slice(&line)?;
    Ok(header.pod)
}

/// Who holds how many connections.
#[derive(Clone, Debug, Default)]
struct Places(Arc<Mutex<BTreeMap<PodId, usize>>>);

#[derive(Debug)]
struct Place {
    places: Places,
    pod: PodId,
}

impl Places {
    fn take(&self, pod: PodId) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let of_pod = taken.entry(pod).or_default();
        if *of_pod >= STREAMS_OF_POD_MAX || all >= STREAMS_MAX {
            return None;
        }
        *of_pod += 1;
        Some(Place { places: self.clone(), pod })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_pod) = taken.get_mut(&self.pod) {
            *of_pod -= 1;
            if *of_pod == 0 {
                taken.remove(&self.pod);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    fn pod(n: u8) -> PodId {
        PodId::from_random([n; 16])
    }

    async fn read(text: &[u8]) -> io::Result<PodId> {
        header(&mut BufReader::new(text)).await
    }

    #[tokio::test]
    async fn the_first_line_names_the_pod_and_nothing_more_is_eaten() {
        let line = format!("{{\"pod\":\"{}\"}}\nGET /", pod(1));
        let mut reader = BufReader::new(line.as_bytes());
        assert_eq!(header(&mut reader).await.unwrap(), pod(1));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "GET /");
    }

    #[tokio::test]
    async fn headers_are_bounded_and_exact() {
        let long = format!("{{\"pod\":\"{}\"{}}}\n", pod(1), " ".repeat(128));
        let more = format!("{{\"pod\":\"{}\",\"x\":1}}\n", pod(1));
        for bad in ["", "\n", "{}\n", "{\"pod\":\"job_1\"}\n", "{\"pod\":\"", long.as_str(), more.as_str()] {
            assert!(read(bad.as_bytes()).await.is_err(), "{bad}");
        }
    }

    #[test]
    fn connections_are_bounded_for_each_pod_and_for_all() {
        let places = Places::default();
        let held: Vec<Place> = (0..STREAMS_OF_POD_MAX).map(|_| places.take(pod(1)).unwrap()).collect();
        assert!(places.take(pod(1)).is_none());
        let others: Vec<Place> = (2..=u8::MAX)
            .flat_map(|n| (0..STREAMS_OF_POD_MAX).map(move |_| n))
            .map_while(|n| places.take(pod(n)))
            .collect();
        assert_eq!(held.len() + others.len(), STREAMS_MAX);
        drop(held);
        assert!(places.take(pod(1)).is_some());
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the outcome of a test's own task is wanted")]
    async fn bytes_pass_both_ways_and_each_direction_ends_alone() {
        let (outside, peer) = duplex(1 << 16);
        let (inside, mut tenant) = duplex(1 << 16);
        let ours = WebSocketStream::from_raw_socket(outside, Role::Client, None).await;
        let mut theirs = WebSocketStream::from_raw_socket(peer, Role::Server, None).await;
        let spliced = tokio::spawn(splice(ours, inside));

        tenant.write_all(b"request").await.unwrap();
        tenant.shutdown().await.unwrap();
        assert_eq!(theirs.next().await.unwrap().unwrap().into_data().as_ref(), b"request");
        assert!(theirs.next().await.unwrap().unwrap().into_data().is_empty(), "the tenant's direction has ended");

        theirs.send(Message::Binary(b"answer".to_vec().into())).await.unwrap();
        theirs.send(Message::Binary(vec![].into())).await.unwrap();
        let mut answer = String::new();
        tenant.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");

        theirs.close(None).await.unwrap();
        spliced.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_went_silent_is_given_up() {
        let (outside, _peer) = duplex(1 << 16);
        let (inside, _tenant) = duplex(1 << 16);
        let ours = WebSocketStream::from_raw_socket(outside, Role::Client, None).await;
        let ended = splice(ours, inside).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    }
}

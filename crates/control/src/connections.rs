//! Connections: accepted, given a place, spoken HTTP/1.1 over until they end.
//!
//! [`connection_over`] serves any byte stream; the TCP and TLS around it are [`Connections`]'.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::admission::Admission;
use crate::places::{Place, Places};
use crate::tls::{self, Peer};

/// The longest TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The longest a request's head may take, and the longest a connection may be idle.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// How long open requests may go on after the node was told to stop.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Serves one connection until it ends. Once `stop` is cancelled, the request under way may end, and no other begins.
pub async fn connection_over<S>(stream: S, peer: Peer, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let request: Request = request.map(Body::new);
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_MAX, connection).await.unwrap_or(Ok(()))
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection broke");
    }
}

/// What accepts connections.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) router: Router,
    pub(crate) tls: TlsAcceptor,
    pub(crate) places: Places,
    pub(crate) admission: Admission,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Connections {
    pub(crate) async fn accept(self, listener: TcpListener) {
        loop {
            let next = async {
                let permit = self.places.any().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                next = next => next,
            };
            match (permit, accepted) {
                (Some(permit), Ok((tcp, address))) => match self.places.of(permit, address.ip()) {
                    Some(place) => {
                        let connection = self.clone().connection(tcp, address, place);
                        drop(self.tasks.spawn(atoll_life::bound(connection)));
                    }
                    None => tracing::debug!(%address, "this address holds its share of connections"),
                },
                (_, Err(error)) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                (None, _) => return,
            }
        }
    }

    async fn connection(self, tcp: TcpStream, address: SocketAddr, place: Place) {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%address, %error, "a connection went away");
            return;
        }
        let Some(turn) = self.admission.admit(&tcp, address.ip()).await else {
            tracing::debug!(%address, "not admitted");
            return;
        };
        let handshake = turn.spend(self.tls.accept(tcp));
        let Ok(Ok(session)) = tokio::time::timeout(HANDSHAKE_MAX, handshake).await else {
            tracing::debug!(%address, "no TLS handshake");
            return;
        };
        let Ok(exporter) = tls::exporter(session.get_ref().1) else { return };
        let peer = Peer { address, exporter, place: Some(Arc::new(place)) };
        connection_over(session, peer, self.router, self.stop).await;
    }
}

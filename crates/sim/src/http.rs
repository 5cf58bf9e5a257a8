//! One HTTP request over any byte stream, as pods and renters make them.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Makes one request on a stream of its own. The caller bounds the time.
///
/// # Errors
/// The stream broke, or what came back is no HTTP.
pub async fn call<S>(
    stream: S,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> io::Result<(StatusCode, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut request = Request::builder().method(method).uri(path).header("host", "sim").header("connection", "close");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
        Ok((status, body.to_bytes().to_vec()))
    };
    // No task of its own: whoever is dropped takes the connection along.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = exchange.as_mut() => answer,
        // The connection is over with the answer, which may be still to be read.
        _ = connection.as_mut() => exchange.await,
    }
}

//! A byte stream over a WebSocket that the worker dialled.
//!
//! Bytes travel as binary messages of at most [`STREAM_BYTES_MAX`]; an empty one ends its direction. A close without it
//! ends both: a half-closed answer is told from a broken one only by what runs on top (HTTP has lengths). A close with
//! code 1011 says in words why the stream leads nowhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket, close_code};
use bytes::{Buf as _, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::Peer;

/// The largest message written: small enough to interleave, large enough to cost little.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Bytes to and from a worker.
pub struct ByteStream {
    socket: WebSocket,
    unread: Bytes,
    read_over: bool,
    write_over: bool,
    /// Holds the connection's place among those allowed at once.
    _peer: Peer,
}

impl std::fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteStream").field("read_over", &self.read_over).finish_non_exhaustive()
    }
}

impl ByteStream {
    pub(crate) fn new(socket: WebSocket, peer: Peer) -> Self {
        Self { socket, unread: Bytes::new(), read_over: false, write_over: false, _peer: peer }
    }
}

fn broken(error: axum::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for ByteStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.unread.is_empty() {
                let count = this.unread.len().min(out.remaining());
                out.put_slice(&this.unread[..count]);
                this.unread.advance(count);
                return Poll::Ready(Ok(()));
            }
            if this.read_over {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => this.read_over = true,
                Some(Ok(Message::Binary(bytes))) => this.unread = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(frame)))) if frame.code == close_code::ERROR => {
                    this.read_over = true;
                    let why: String = frame.reason.chars().filter(|c| !c.is_control()).collect();
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)));
                }
                Some(Ok(Message::Close(_))) | None => this.read_over = true,
                Some(Ok(Message::Text(_))) => {
                    this.read_over = true;
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "text on a byte stream")));
                }
                Some(Err(error)) => {
                    this.read_over = true;
                    return Poll::Ready(Err(broken(error)));
                }
            }
        }
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(Pin::new(&mut this.socket).poll_ready(cx)).map_err(broken)?;
        let count = bytes.len().min(WRITE_BYTES_MAX);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..count]));
        Pin::new(&mut this.socket).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.write_over {
            ready!(Pin::new(&mut this.socket).poll_ready(cx)).map_err(broken)?;
            Pin::new(&mut this.socket).start_send(Message::Binary(Bytes::new())).map_err(broken)?;
            this.write_over = true;
        }
        Pin::new(&mut this.socket).poll_flush(cx).map_err(broken)
    }
}

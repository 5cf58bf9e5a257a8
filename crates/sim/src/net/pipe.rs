//! One stream: two pipes, each a queue of pieces with the time at which they arrive.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::{Net, Place};

/// Bytes that may be on their way in one direction.
const WINDOW: usize = 256 << 10;

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    from: Place,
    to: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<(Instant, Bytes)>,
    /// Bytes in `pieces`.
    bytes: usize,
    /// When the last piece arrives: none overtakes it.
    last: Option<Instant>,
    /// When the end arrives, once it was written.
    over: Option<Instant>,
    /// Nobody reads any more.
    unread: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks it for both ends, at once.
    pub(super) fn reset(&self) {
        self.change(|state| state.reset = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let (reader, writer) = {
            let mut state = self.state();
            change(&mut state);
            (state.reader.take(), state.writer.take())
        };
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }
}

/// One end of a stream.
#[derive(Debug)]
pub struct Stream {
    net: Net,
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    /// Until the next piece arrives.
    wait: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Both ends: `from`'s and `to`'s.
    pub(super) fn pair(net: &Net, from: &Place, to: &Place) -> (Self, Self) {
        let pipe = |from: &Place, to: &Place| {
            let pipe = Arc::new(Pipe { from: Arc::clone(from), to: Arc::clone(to), state: Mutex::default() });
            net.state().streams.push((Arc::clone(from), Arc::clone(to), Arc::downgrade(&pipe)));
            pipe
        };
        let (there, back) = (pipe(from, to), pipe(to, from));
        let end = |incoming: &Arc<Pipe>, outgoing: &Arc<Pipe>| Self {
            net: net.clone(),
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            wait: None,
        };
        (end(&back, &there), end(&there, &back))
    }

    /// When what is sent now arrives.
    fn arrival(&self, bytes: usize, last: Option<Instant>) -> Instant {
        let weather = self.net.state().weather;
        let random = &self.net.0.random;
        let mut takes = weather.latency + random.lasts(Duration::ZERO..weather.jitter);
        takes += Duration::from_nanos(bytes as u64 * 1_000_000_000 / weather.bandwidth.max(1));
        if random.happens(weather.lost_per_mille) {
            takes += weather.resend;
        }
        let at = Instant::now() + takes;
        last.map_or(at, |last| last.max(at))
    }

    /// Waits until `at`; true when it is over.
    fn wait_until(&mut self, at: Instant, cx: &mut Context<'_>) -> bool {
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if wait.deadline() != at {
            wait.as_mut().reset(at);
        }
        wait.as_mut().poll(cx).is_ready()
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let pipe = Arc::clone(&this.incoming);
        loop {
            let mut state = pipe.state();
            if state.reset {
                return Poll::Ready(Err(reset()));
            }
            let next = state.pieces.front().map(|(at, _)| *at).or(state.over);
            let Some(at) = next else {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if at > Instant::now() {
                // A reset must wake whoever waits here.
                state.reader = Some(cx.waker().clone());
                drop(state);
                if this.wait_until(at, cx) {
                    continue;
                }
                return Poll::Pending;
            }
            if this.net.wait_for_route(&pipe.from, &pipe.to, cx.waker()) {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let Some((_, piece)) = state.pieces.front_mut() else { return Poll::Ready(Ok(())) };
            let count = piece.len().min(out.remaining());
            let taken = piece.split_to(count);
            if !piece.has_remaining() {
                state.pieces.pop_front();
            }
            state.bytes -= count;
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
            drop(state);
            // Lengths alone: WebSocket masks are the library's own randomness.
            this.net.0.trace.event(&pipe.to, &taken.len().to_le_bytes());
            out.put_slice(&taken);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.outgoing.state();
        if state.reset {
            return Poll::Ready(Err(reset()));
        }
        if state.unread || state.over.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.bytes >= WINDOW {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(WINDOW - state.bytes);
        if count > 0 {
            let at = self.arrival(count, state.last);
            state.last = Some(at);
            state.bytes += count;
            state.pieces.push_back((at, Bytes::copy_from_slice(&bytes[..count])));
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// Ends the outgoing direction.
    fn finish(&self) {
        let last = self.outgoing.state().last;
        let at = self.arrival(0, last);
        self.outgoing.change(|state| {
            state.over.get_or_insert(at);
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let here = Arc::clone(&self.outgoing.from);
        if self.net.orphan(&here, &self.outgoing) {
            self.net.orphan(&here, &self.incoming);
            return;
        }
        self.finish();
        self.incoming.change(|state| state.unread = true);
    }
}

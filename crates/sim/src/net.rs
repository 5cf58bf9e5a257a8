//! The network: places with names, byte streams between them, and everything that can go wrong on the way.
//!
//! A stream behaves as TCP does to a program: bytes arrive in order, late; a lost packet is a stall, a cut route a
//! silence that ends when the route is healed, a killed process a reset, a machine without power a peer that never says
//! anything again (half-open) until it is back and knows nothing of the stream. Requests that travel on streams of their
//! own ([`Net::leg`]) are lost, late and out of order. What runs on top decides what all this means.

mod pipe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::random::Random;
use crate::trace::Trace;

use pipe::Pipe;
pub use pipe::Stream;

/// Connections that wait to be accepted.
const BACKLOG: usize = 128;
/// The port that everybody listens on.
pub const PORT: u16 = 8443;

/// Where something is: a node, a worker, a renter, the chain.
pub type Place = Arc<str>;

/// How routes are while nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The shortest way, one direction.
    pub latency: Duration,
    /// Drawn on top of it for each piece.
    pub jitter: Duration,
    /// Bytes a second.
    pub bandwidth: u64,
    /// Pieces in a thousand that are lost: on a stream sent again after [`Weather::resend`], else gone.
    pub lost_per_mille: u64,
    /// Requests in a thousand that arrive twice.
    pub doubled_per_mille: u64,
    /// How long a lost piece of a stream takes to be sent again.
    pub resend: Duration,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(2),
            jitter: Duration::from_millis(3),
            bandwidth: 100_000_000,
            lost_per_mille: 0,
            doubled_per_mille: 0,
            resend: Duration::from_millis(300),
        }
    }
}

/// The network. Clones are the same.
#[derive(Clone, Debug)]
pub struct Net(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    random: Random,
    trace: Trace,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    addresses: BTreeMap<Place, Ipv4Addr>,
    listeners: BTreeMap<Place, mpsc::Sender<Incoming>>,
    /// Directions in which nothing arrives, and who waits for them to be healed.
    cut: BTreeMap<(Place, Place), Vec<Waker>>,
    /// Machines without power: what ends there ends in silence.
    dark: BTreeSet<Place>,
    /// Streams whose other end went dark, by that end.
    orphans: BTreeMap<Place, Vec<Arc<Pipe>>>,
    /// All streams, for resets from outside.
    streams: Vec<(Place, Place, std::sync::Weak<Pipe>)>,
}

/// A connection as the accepting side gets it.
#[derive(Debug)]
pub struct Incoming {
    /// Its bytes.
    pub stream: Stream,
    /// Who dialled.
    pub from: SocketAddr,
    /// The keying material of this connection, equal on both ends.
    pub exporter: [u8; 32],
}

/// What came of one leg of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is there.
    Once,
    /// It is there, and will be there again.
    Twice,
}

/// Where connections to a place arrive. Dropped, it refuses them.
#[derive(Debug)]
pub struct Listener {
    net: Net,
    place: Place,
    incoming: mpsc::Receiver<Incoming>,
}

impl Net {
    /// A network in good weather.
    #[must_use]
    pub fn new(random: Random, trace: &Trace) -> Self {
        let state = State {
            weather: Weather::default(),
            addresses: BTreeMap::new(),
            listeners: BTreeMap::new(),
            cut: BTreeMap::new(),
            dark: BTreeSet::new(),
            orphans: BTreeMap::new(),
            streams: Vec::new(),
        };
        Self(Arc::new(Shared { random, trace: trace.clone(), state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the weather for whatever is sent from now on.
    pub fn weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// A place's address: 10.0.0.1 for the first, and so on.
    #[must_use]
    pub fn address(&self, place: &Place) -> SocketAddr {
        let addresses = &mut self.state().addresses;
        let next = u32::try_from(addresses.len()).expect("worlds are small") + 1;
        let ip = *addresses.entry(Arc::clone(place)).or_insert(Ipv4Addr::from_bits(0x0a00_0000 + next));
        SocketAddr::from((ip, PORT))
    }

    /// Listens at a place, instead of whoever did before.
    #[must_use]
    pub fn listen(&self, place: &Place) -> Listener {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        self.state().listeners.insert(Arc::clone(place), sender);
        Listener { net: self.clone(), place: Arc::clone(place), incoming }
    }

    /// Lets a request or answer travel. On a cut route it never arrives, and neither does a lost one: bound the wait.
    pub async fn leg(&self, from: &Place, to: &Place) -> Arrival {
        let (takes, arrival) = {
            let weather = self.state().weather;
            let random = &self.0.random;
            let takes = weather.latency + random.lasts(Duration::ZERO..weather.jitter);
            let lost = random.happens(weather.lost_per_mille);
            let twice = random.happens(weather.doubled_per_mille);
            (takes, if lost { None } else { Some(if twice { Arrival::Twice } else { Arrival::Once }) })
        };
        tokio::time::sleep(takes).await;
        match arrival {
            Some(arrival) if !self.is_cut(from, to) => arrival,
            _ => std::future::pending().await,
        }
    }

    /// Whether something happens that does so `per_mille` times in a thousand.
    #[must_use]
    pub fn happens(&self, per_mille: u64) -> bool {
        self.0.random.happens(per_mille)
    }

    /// Connects; as long as a route is cut, this takes for ever.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(&self, from: &Place, to: &Place) -> io::Result<(Stream, [u8; 32])> {
        self.settle_leg(from, to).await;
        let exporter: [u8; 32] = self.0.random.bytes();
        let (near, far) = Stream::pair(self, from, to);
        let incoming = Incoming { stream: far, from: self.address(from), exporter };
        let taken = {
            let state = self.state();
            let listener = state.listeners.get(to).filter(|_| !state.dark.contains(to)).cloned();
            drop(state);
            listener.is_some_and(|listener| listener.try_send(incoming).is_ok())
        };
        self.settle_leg(to, from).await;
        self.0.trace.event("connect", &exporter);
        if taken { Ok((near, exporter)) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    /// One leg that is sent again until it arrives.
    pub(crate) async fn settle_leg(&self, from: &Place, to: &Place) {
        let weather = self.state().weather;
        let again = self.0.random.happens(weather.lost_per_mille);
        let again = if again { weather.resend } else { Duration::ZERO };
        tokio::time::sleep(weather.latency + self.0.random.lasts(Duration::ZERO..weather.jitter) + again).await;
        std::future::poll_fn(|cx| {
            if self.wait_for_route(from, to, cx.waker()) {
                std::task::Poll::Pending
            } else {
                std::task::Poll::Ready(())
            }
        })
        .await;
    }

    /// Whether nothing arrives in this direction.
    #[must_use]
    pub fn is_cut(&self, from: &Place, to: &Place) -> bool {
        let state = self.state();
        state.cut.contains_key(&(Arc::clone(from), Arc::clone(to))) || state.dark.contains(to)
    }

    /// The same; wakes when that changes.
    fn wait_for_route(&self, from: &Place, to: &Place, waker: &Waker) -> bool {
        let mut state = self.state();
        let Some(waiting) = state.cut.get_mut(&(Arc::clone(from), Arc::clone(to))) else { return false };
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        true
    }

    /// From now on nothing arrives in this direction; what is on its way waits.
    pub fn cut(&self, from: &Place, to: &Place) {
        self.state().cut.entry((Arc::clone(from), Arc::clone(to))).or_default();
    }

    /// Everything that waited arrives.
    pub fn heal(&self, from: &Place, to: &Place) {
        let waiting = self.state().cut.remove(&(Arc::clone(from), Arc::clone(to))).unwrap_or_default();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Heals every route.
    pub fn heal_all(&self) {
        let cut = std::mem::take(&mut self.state().cut);
        cut.into_values().flatten().for_each(Waker::wake);
    }

    /// Resets every stream between two places, as a box in between that lost its memory does.
    pub fn reset(&self, one: &Place, other: &Place) {
        let between = |from: &Place, to: &Place| (from == one && to == other) || (from == other && to == one);
        let pipes: Vec<Arc<Pipe>> = {
            let mut state = self.state();
            state.streams.retain(|(.., pipe)| pipe.strong_count() > 0);
            state
                .streams
                .iter()
                .filter(|(from, to, _)| between(from, to))
                .filter_map(|(.., pipe)| pipe.upgrade())
                .collect()
        };
        pipes.iter().for_each(|pipe| pipe.reset());
    }

    /// The machine loses power: until [`Net::light`] its ends of streams end without a word. Kill its processes after.
    pub fn darken(&self, place: &Place) {
        let mut state = self.state();
        state.dark.insert(Arc::clone(place));
        state.listeners.remove(place);
    }

    /// The machine is back: of the streams it had it knows nothing, and says so.
    pub fn light(&self, place: &Place) {
        let orphans = {
            let mut state = self.state();
            state.dark.remove(place);
            state.orphans.remove(place).unwrap_or_default()
        };
        orphans.iter().for_each(|pipe| pipe.reset());
    }

    /// Takes a pipe whose end at `place` went away; true when that was in the dark, and the other end is not told.
    fn orphan(&self, place: &Place, pipe: &Arc<Pipe>) -> bool {
        let mut state = self.state();
        let dark = state.dark.contains(place);
        if dark {
            state.orphans.entry(Arc::clone(place)).or_default().push(Arc::clone(pipe));
        }
        dark
    }
}

impl Listener {
    /// The next connection; none when somebody else listens here now.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.net.state();
        self.incoming.close();
        if state.listeners.get(&self.place).is_some_and(mpsc::Sender::is_closed) {
            state.listeners.remove(&self.place);
        }
    }
}

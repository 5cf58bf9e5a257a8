//! Byte streams through the supervisor: from the pod to its worker's store, and from the worker to a port of the pod.

use std::fs;
use std::io::{Error, ErrorKind, Result, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, SockaddrIn, connect, getsockopt, shutdown, sockopt};

use super::shared::Shared;

/// Streams of one kind at a time.
pub const STREAMS_MAX: usize = 64;

/// One direction's buffer.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long a port of the pod may take to answer, in milliseconds.
const CONNECT_MS: u16 = 5_000;

/// A place among a bounded number; given back on drop.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place, if one of `max` is free.
    pub fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let place = Self(Arc::clone(count));
        // `place` gives back what was taken even when it was too much.
        (place.0.fetch_add(1, Ordering::SeqCst) < max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Connects to a path of any length: the kernel's limit is 107 bytes, so it goes by a descriptor of the folder.
///
/// # Errors
/// Nobody listens there.
pub fn connect_unix(path: &Path) -> Result<UnixStream> {
    let (folder, name) = path.parent().zip(path.file_name()).ok_or(ErrorKind::InvalidInput)?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = fs::File::open(folder)?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

/// Takes the pod's connections to its store, for ever. Each becomes a connection to the worker, which learns from the first
/// line whose it is. Without a worker they are closed; clients in the pod try again.
pub fn serve_store(listener: &TcpListener, shared: &Arc<Shared>) {
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => continue,
            Err(_) => return,
        };
        let Some(place) = Place::take(&count, STREAMS_MAX) else { continue };
        let shared = Arc::clone(shared);
        // No thread left: the connection closes and the client tries again.
        let _ = super::shared::thread("store", move || {
            let _place = place;
            let Some(path) = &shared.spec.worker_socket else { return };
            let Ok(mut worker) = connect_unix(path) else { return };
            if writeln!(worker, "{{\"pod\":\"{}\"}}", shared.spec.pod).is_ok() {
                splice(stream.into(), worker.into());
            }
        });
    }
}

/// Connects a socket that the pod's door made to a port on the pod's own address.
///
/// # Errors
/// Nothing listens, or it did not answer in time.
pub fn connect_inside(socket: &OwnedFd, address: SocketAddr) -> Result<()> {
    let SocketAddr::V4(address) = address else { return Err(ErrorKind::Unsupported.into()) };
    match connect(socket.as_raw_fd(), &SockaddrIn::from(address)) {
        Ok(()) => return Ok(()),
        Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::from(CONNECT_MS))? == 0 {
        return Err(Error::new(ErrorKind::TimedOut, "the pod's port does not answer"));
    }
    match getsockopt(socket, sockopt::SocketError)? {
        0 => Ok(()),
        code => Err(Error::from_raw_os_error(code)),
    }
}

/// Copies both ways until both sides have ended or one has failed.
pub fn splice(a: OwnedFd, b: OwnedFd) {
    // An error ends the stream; both ends see it as a close.
    let _ = try_splice(&a, &b);
}

/// Bytes read from one side that the other has not taken yet.
struct Direction {
    buffer: Box<[u8; BUFFER_BYTES]>,
    start: usize,
    end: usize,
    read_ended: bool,
    shut: bool,
}

impl Direction {
    fn new() -> Self {
        Self { buffer: Box::new([0; BUFFER_BYTES]), start: 0, end: 0, read_ended: false, shut: false }
    }

    fn wants_read(&self) -> bool {
        self.start == self.end && !self.read_ended
    }

    fn wants_write(&self) -> bool {
        self.start < self.end
    }

    fn step(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        if self.wants_read() {
            match nix::unistd::read(from, &mut self.buffer[..]) {
                Ok(0) => self.read_ended = true,
                Ok(count) => (self.start, self.end) = (0, count),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.wants_write() {
            match nix::unistd::write(to, &self.buffer[self.start..self.end]) {
                Ok(count) => self.start += count,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.read_ended && !self.wants_write() && !self.shut {
            self.shut = true;
            shutdown(to.as_raw_fd(), Shutdown::Write)?;
        }
        Ok(())
    }
}

fn try_splice(a: &OwnedFd, b: &OwnedFd) -> Result<()> {
    for side in [a, b] {
        let flags = OFlag::from_bits_retain(fcntl(side, FcntlArg::F_GETFL)?);
        fcntl(side, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    let (mut there, mut back) = (Direction::new(), Direction::new());
    while !(there.shut && back.shut) {
        let events = |reads: &Direction, writes: &Direction| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, reads.wants_read());
            events.set(PollFlags::POLLOUT, writes.wants_write());
            events
        };
        let (on_a, on_b) = (events(&there, &back), events(&back, &there));
        // A side that nothing is wanted from would wake us for ever once it has hung up.
        let mut ready: Vec<PollFd<'_>> = [(a, on_a), (b, on_b)]
            .into_iter()
            .filter(|(_, events)| !events.is_empty())
            .map(|(side, events)| PollFd::new(side.as_fd(), events))
            .collect();
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        there.step(a.as_fd(), b.as_fd())?;
        back.step(b.as_fd(), a.as_fd())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn both_ways_and_half_closed() {
        let (mut left, a) = UnixStream::pair().unwrap();
        let (mut right, b) = UnixStream::pair().unwrap();
        let splicer = std::thread::spawn(move || splice(a.into(), b.into()));
        let big: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let sent = big.clone();
        let writer = std::thread::spawn(move || {
            left.write_all(&sent).unwrap();
            left.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            left.read_to_string(&mut answer).unwrap();
            answer
        });
        let mut got = vec![];
        right.read_to_end(&mut got).unwrap();
        assert!(got == big, "one million bytes arrive in order");
        right.write_all(b"and back").unwrap();
        drop(right);
        assert_eq!(writer.join().unwrap(), "and back");
        splicer.join().unwrap();
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let count = Arc::new(AtomicUsize::new(0));
        let taken: Vec<Place> = (0..3).filter_map(|_| Place::take(&count, 2)).collect();
        assert_eq!(taken.len(), 2);
        drop(taken);
        assert_eq!(count.load(Ordering::SeqCst), 0);
        assert!(Place::take(&count, 2).is_some());
    }

    #[test]
    fn a_socket_below_a_long_path_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        assert!(connect_unix(&deep.join("s")).is_err());
        let folder = fs::File::open(&deep).unwrap();
        let short = format!("/proc/self/fd/{}/s", folder.as_raw_fd());
        let _listener = std::os::unix::net::UnixListener::bind(short).unwrap();
        connect_unix(&deep.join("s")).unwrap();
    }
}

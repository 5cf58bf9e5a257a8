//! The loop between a TUN descriptor, a UDP socket and an [`Engine`]. One thread; it decides nothing.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::engine::{DATAGRAM_BYTES_MAX, Emit, Engine};

/// boringtun's timers want to be looked at four times a second.
const TICK: Duration = Duration::from_millis(250);

/// Packets taken from one descriptor before the other one gets its turn.
const BATCH: usize = 64;

/// Both descriptors of a pod's overlay. They must be non-blocking.
#[derive(Debug)]
pub struct Link {
    pub tunnel: File,
    pub socket: UdpSocket,
}

impl Link {
    /// Does what the engine wants. A full queue drops the packet, as any network does.
    pub fn emit(&self, out: Emit<'_>) {
        // Nothing is owed to a packet that could not be sent: WireGuard and TCP both send again.
        let _ = match out {
            Emit::Network(to, datagram) => self.socket.send_to(datagram, to).map(drop),
            Emit::Tunnel(packet) => (&self.tunnel).write_all(packet),
        };
    }
}

/// Locks the engine; a thread that panicked over a packet must not end the pod's network.
pub fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pumps until `stop` is set (seen within a tick) or the TUN device is gone.
///
/// # Errors
/// Waiting or reading the TUN device failed.
pub fn run(link: &Link, engine: &Mutex<Engine>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut buffer = [0u8; DATAGRAM_BYTES_MAX + 1];
    let mut ticked = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut ready =
            [PollFd::new(link.tunnel.as_fd(), PollFlags::POLLIN), PollFd::new(link.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [tunnel_ready, socket_ready] = ready.map(|fd| fd.any().unwrap_or(false));
        let mut engine = lock(engine);
        if tunnel_ready {
            from_tunnel(link, &mut engine, &mut buffer)?;
        }
        if socket_ready {
            from_socket(link, &mut engine, &mut buffer);
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            engine.tick(unix_s(), &mut |out| link.emit(out));
        }
    }
    Ok(())
}

fn from_tunnel(link: &Link, engine: &mut Engine, buffer: &mut [u8]) -> std::io::Result<()> {
    for _ in 0..BATCH {
        match (&link.tunnel).read(buffer) {
            Ok(length) => engine.from_tunnel(&buffer[..length], &mut |out| link.emit(out)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn from_socket(link: &Link, engine: &mut Engine, buffer: &mut [u8]) {
    for _ in 0..BATCH {
        match link.socket.recv_from(buffer) {
            Ok((length, source)) => engine.from_network(source, &buffer[..length], &mut |out| link.emit(out)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // An earlier datagram met a closed port (ECONNREFUSED); the next one may be fine.
            Err(_) => {}
        }
    }
}

/// Wall clock in whole seconds; before 1970 counts as 1970.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! The door: a process of ours inside the pod's network namespace, and outside all its others, that hands out sockets.
//!
//! The supervisor asks, the door makes a TCP socket (which belongs to the pod's namespace for ever) and passes it; the
//! supervisor then connects it itself, so a tenant that accepts nothing holds up its own connection and nobody else's.
//! A child of init with no capabilities; it dies with init.

use std::io::Result;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::pass;

/// Answers until the supervisor's side is closed.
pub fn serve(supervisor: &OwnedFd) {
    while let Ok((request, _)) = pass::receive(supervisor) {
        if request.is_empty() {
            return;
        }
        let made =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
        let sent = match &made {
            Ok(socket) => pass::send(supervisor, b"S", &[socket.as_raw_fd()]),
            Err(_) => pass::send(supervisor, b"E", &[]),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Asks a door for one socket; it is not connected and does not block.
///
/// # Errors
/// The door is gone, or the pod has no descriptors left.
pub fn ask(door: &OwnedFd) -> Result<OwnedFd> {
    pass::send(door, b"?", &[])?;
    let (_, mut descriptors) = pass::receive(door)?;
    descriptors.pop().ok_or_else(|| std::io::Error::other("the pod's door is closed"))
}

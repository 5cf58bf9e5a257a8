//! One message with descriptors over a SOCK_SEQPACKET pair: how init, door and supervisor talk.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

/// Largest message. The kernel's default send buffer of 208 KiB holds it.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Descriptors in one message at most.
pub const DESCRIPTORS_MAX: usize = 4;

/// A pair of message sockets, both close-on-exec.
///
/// # Errors
/// No descriptors left.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message; the descriptors are duplicated into the receiver.
///
/// # Errors
/// The message is too long, or nobody is there to receive it.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[RawFd]) -> Result<()> {
    if bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(Error::new(ErrorKind::InvalidInput, format!("a message of {} bytes is too long", bytes.len())));
    }
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

/// Waits for one message. An empty one means that the other side is gone.
///
/// # Errors
/// The message was longer than [`MESSAGE_BYTES_MAX`], or the socket failed.
pub fn receive(socket: impl AsFd) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0u8; MESSAGE_BYTES_MAX];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut descriptors = Vec::new();
    let length = {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut buffers, Some(&mut control), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other?,
            }
        };
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = part {
                // SAFETY: the kernel just installed these descriptors for us; nobody else knows them.
                descriptors.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(Error::new(ErrorKind::InvalidData, "a message was cut"));
        }
        message.bytes
    };
    bytes.truncate(length);
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (ours, theirs) = pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&ours, b"here", &[writer.as_raw_fd()]).unwrap();
        drop(writer);
        let (bytes, descriptors) = receive(&theirs).unwrap();
        assert_eq!((&bytes[..], descriptors.len()), (&b"here"[..], 1));
        for fd in descriptors {
            std::fs::File::from(fd).write_all(b"through").unwrap();
        }
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "through");
        drop(ours);
        assert!(receive(&theirs).unwrap().0.is_empty());
    }

    #[test]
    fn a_long_message_is_refused_and_the_longest_passes() {
        let (ours, theirs) = pair().unwrap();
        assert!(send(&ours, &vec![1; MESSAGE_BYTES_MAX + 1], &[]).is_err());
        send(&ours, &vec![1; MESSAGE_BYTES_MAX], &[]).unwrap();
        assert_eq!(receive(&theirs).unwrap().0.len(), MESSAGE_BYTES_MAX);
    }
}

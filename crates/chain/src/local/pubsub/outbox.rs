//! What waits to be written to one socket, bounded by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// Most bytes that wait for one client; a single message may be longer when nothing else waits.
pub(in crate::local) const QUEUED_BYTES_MAX: usize = 4 << 20;
/// What a waiting message takes besides its text.
const MESSAGE_BYTES: usize = 64;

/// Where messages for a client are put. Dropping it ends the connection after what was put.
#[derive(Debug)]
pub(in crate::local) struct Outbox {
    sender: mpsc::UnboundedSender<String>,
    queued: Arc<AtomicUsize>,
}

/// The other end, which a socket empties.
#[derive(Debug)]
pub(in crate::local) struct Queue {
    receiver: mpsc::UnboundedReceiver<String>,
    queued: Arc<AtomicUsize>,
}

/// Both ends.
pub(in crate::local) fn outbox() -> (Outbox, Queue) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    (Outbox { sender, queued: Arc::clone(&queued) }, Queue { receiver, queued })
}

impl Outbox {
    /// Puts a message; false when the client does not keep up, or is gone.
    pub(in crate::local) fn put(&self, message: String) -> bool {
        let bytes = message.len() + MESSAGE_BYTES;
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > QUEUED_BYTES_MAX {
            return false;
        }
        self.sender.send(message).is_ok()
    }
}

impl Queue {
    /// The next message; none when there will be no more.
    pub(in crate::local) async fn next(&mut self) -> Option<String> {
        let message = self.receiver.recv().await?;
        self.queued.fetch_sub(message.len() + MESSAGE_BYTES, Ordering::Relaxed);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_is_bounded_by_bytes_but_takes_one_message_of_any_length() {
        let (outbox, _queue) = outbox();
        let message = || "x".repeat(QUEUED_BYTES_MAX / 4);
        assert!((0..3).all(|_| outbox.put(message())));
        assert!(!outbox.put(message()), "a fourth leaves no room for what messages take besides");
        let (outbox, mut other) = super::outbox();
        assert!(outbox.put("x".repeat(2 * QUEUED_BYTES_MAX)) && !outbox.put(String::new()));
        drop(outbox);
        assert!(other.next().await.is_some() && other.next().await.is_none());
    }
}

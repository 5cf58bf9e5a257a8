//! Sequence numbers, acknowledgements and the bounded queue of one link. Pure: no socket, no clock.
//!
//! What is pushed is kept until the worker acknowledges it, and sent again on a connection that resumes the session.
//! A new session starts empty: commands come back from the store's outbox, which is where they are safe.

use std::collections::{BTreeSet, VecDeque};

use atoll_api::link::envelope::Body;
use atoll_api::link::{Envelope, UNACKED_MAX};
use atoll_domain::id::CommandId;

/// The state that outlives a connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: u64,
    unacked: VecDeque<Envelope>,
    /// Highest `seq` given to the worker.
    given: u64,
    /// How many of `unacked` went out on this connection.
    sent: usize,
    /// Highest `seq` carried out.
    received: u64,
    /// Commands pushed in this session and not answered.
    pub(super) commands: BTreeSet<CommandId>,
}

/// A worker that breaks the rules of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Something is missing in between.
    #[error("message {got} came where {expected} was expected")]
    Gap { expected: u64, got: u64 },
    /// An acknowledgement of what was never sent.
    #[error("message {ack} was acknowledged, and {given} is the last one sent")]
    AckAhead { ack: u64, given: u64 },
    /// A message of another session.
    #[error("a message of session {got} on session {ours}")]
    OtherSession { ours: u64, got: u64 },
    /// The worker acknowledges too slowly.
    #[error("{UNACKED_MAX} messages are not acknowledged")]
    Full,
}

/// What an envelope asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Received {
    /// Nothing, or nothing new.
    Nothing,
    /// Carry this out; it is not kept by the worker.
    Passing(Body),
    /// Carry this out, then say [`Session::carried_out`].
    Kept(u64, Body),
}

impl Session {
    pub(super) fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Goes on where the last connection broke off; false when the worker speaks of another session, or of messages
    /// that were never sent.
    pub(super) fn resume(&mut self, id: u64, ack: u64) -> bool {
        if id == 0 || id != self.id || self.acknowledged(ack).is_err() {
            return false;
        }
        self.sent = 0;
        true
    }

    pub(super) fn push(&mut self, body: Body) -> Result<(), Fault> {
        if self.unacked.len() >= UNACKED_MAX {
            return Err(Fault::Full);
        }
        self.given += 1;
        self.unacked.push_back(Envelope { session: self.id, seq: self.given, ack: 0, body: Some(body) });
        Ok(())
    }

    /// How many more bodies can be pushed.
    pub(super) fn room(&self) -> usize {
        UNACKED_MAX.saturating_sub(self.unacked.len())
    }

    /// The next envelope to send on this connection, if any.
    pub(super) fn next(&mut self) -> Option<Envelope> {
        let envelope = self.unacked.get(self.sent)?;
        self.sent += 1;
        Some(Envelope { ack: self.received, ..envelope.clone() })
    }

    /// An envelope that is never kept: a heartbeat, or a bare acknowledgement.
    pub(super) fn passing(&self, body: Option<Body>) -> Envelope {
        Envelope { session: self.id, seq: 0, ack: self.received, body }
    }

    pub(super) fn receive(&mut self, envelope: Envelope) -> Result<Received, Fault> {
        if envelope.session != self.id {
            return Err(Fault::OtherSession { ours: self.id, got: envelope.session });
        }
        self.acknowledged(envelope.ack)?;
        let expected = self.received + 1;
        match envelope.body {
            Some(body) if envelope.seq == 0 => Ok(Received::Passing(body)),
            Some(body) if envelope.seq == expected => Ok(Received::Kept(expected, body)),
            Some(_) if envelope.seq > expected => Err(Fault::Gap { expected, got: envelope.seq }),
            _ => Ok(Received::Nothing),
        }
    }

    /// The body of `seq` is safe: from now on it counts as received.
    pub(super) fn carried_out(&mut self, seq: u64) {
        self.received = self.received.max(seq);
    }

    fn acknowledged(&mut self, ack: u64) -> Result<(), Fault> {
        if ack > self.given {
            return Err(Fault::AckAhead { ack, given: self.given });
        }
        while self.unacked.front().is_some_and(|envelope| envelope.seq <= ack) {
            self.unacked.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use atoll_api::link::{StopPod, Usage};

    use super::*;

    fn stop(n: u8) -> Body {
        Body::StopPod(StopPod { reason: n.to_string(), ..StopPod::default() })
    }

    fn sent(session: &mut Session) -> Vec<u64> {
        std::iter::from_fn(|| session.next()).map(|envelope| envelope.seq).collect()
    }

    fn from(session: u64, seq: u64, ack: u64) -> Envelope {
        let body = (seq != 0).then(|| Body::Usage(Usage { signed: vec![] }));
        Envelope { session, seq, ack, body }
    }

    #[test]
    fn a_resumed_session_sends_again_what_was_not_acknowledged() {
        let mut session = Session::new(7);
        (1..=4).for_each(|n| session.push(stop(n)).unwrap());
        assert_eq!(sent(&mut session), [1, 2, 3, 4]);
        session.receive(from(7, 0, 1)).unwrap();
        assert!(session.resume(7, 2));
        session.push(stop(5)).unwrap();
        assert_eq!(sent(&mut session), [3, 4, 5]);
        assert!(!session.resume(8, 0) && !session.resume(7, 9) && !session.resume(0, 0));
    }

    #[test]
    fn a_message_counts_once_it_was_carried_out_and_then_never_again() {
        let mut session = Session::new(7);
        assert!(matches!(session.receive(from(7, 1, 0)), Ok(Received::Kept(1, _))));
        // The store failed: the worker sends it again.
        assert!(matches!(session.receive(from(7, 1, 0)), Ok(Received::Kept(1, _))));
        session.carried_out(1);
        assert_eq!(session.receive(from(7, 1, 0)), Ok(Received::Nothing));
        assert_eq!(session.receive(from(7, 3, 0)), Err(Fault::Gap { expected: 2, got: 3 }));
        assert_eq!(session.passing(None).ack, 1);
    }

    #[test]
    fn lies_are_faults_and_the_queue_is_bounded() {
        let mut session = Session::new(7);
        assert_eq!(session.receive(from(7, 0, 1)), Err(Fault::AckAhead { ack: 1, given: 0 }));
        assert_eq!(session.receive(from(6, 0, 0)), Err(Fault::OtherSession { ours: 7, got: 6 }));
        (0..UNACKED_MAX).for_each(|_| session.push(stop(1)).unwrap());
        assert_eq!((session.push(stop(1)), session.room()), (Err(Fault::Full), 0));
    }
}

#[cfg(test)]
#[path = "session_fuzz.rs"]
mod fuzz;

//! Sequence numbers, acknowledgements and the bounded queue of one session, the same at both ends of a link. Pure: no
//! socket, no clock.
//!
//! What is pushed is kept until the peer acknowledges it, and sent again on a connection that resumes the session; the peer
//! drops what it has seen. What a session is resumed or begun with is for `control::link` and `worker::link` to say.

use std::collections::VecDeque;

use super::envelope::Body;
use super::{Envelope, UNACKED_MAX};

/// The part of a session that outlives a connection.
#[derive(Debug, Default)]
pub struct Sequence {
    session: u64,
    /// Sent or waiting, in order of `seq`, not acknowledged.
    unacked: VecDeque<Envelope>,
    /// Highest `seq` given to the peer.
    given: u64,
    /// How many of `unacked` went out on this connection.
    sent: usize,
    /// Highest `seq` carried out.
    received: u64,
}

/// The peer acknowledges too slowly: [`UNACKED_MAX`] envelopes wait. The connection should be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{UNACKED_MAX} messages are not acknowledged")]
pub struct Full;

/// A peer that breaks the rules of the link. The connection should be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something is missing in between.
    #[error("message {got} came where {expected} was expected")]
    Gap {
        /// The next number.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// An acknowledgement of what was never sent.
    #[error("message {ack} was acknowledged, and {given} is the last one sent")]
    AckAhead {
        /// What was acknowledged.
        ack: u64,
        /// The last number given.
        given: u64,
    },
    /// A message of another session.
    #[error("a message of session {got} on session {ours}")]
    OtherSession {
        /// The session that stands.
        ours: u64,
        /// What came.
        got: u64,
    },
}

/// What an envelope asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// Nothing, or nothing new.
    Nothing,
    /// Carry this out; the peer does not keep it.
    Passing(Body),
    /// Carry this out, then say [`Sequence::carried_out`] with its number.
    Kept(u64, Body),
}

impl Sequence {
    /// An empty queue of a session.
    #[must_use]
    pub fn new(session: u64) -> Self {
        Self { session, ..Self::default() }
    }

    /// The session's number; 0 before there is one.
    #[must_use]
    pub const fn session(&self) -> u64 {
        self.session
    }

    /// The highest number carried out: what this side acknowledges.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Takes a body to be delivered.
    ///
    /// # Errors
    /// [`Full`]
    pub fn push(&mut self, body: Body) -> Result<(), Full> {
        if self.unacked.len() >= UNACKED_MAX {
            return Err(Full);
        }
        self.given += 1;
        self.unacked.push_back(Envelope { session: self.session, seq: self.given, ack: 0, body: Some(body) });
        Ok(())
    }

    /// How many more bodies can be pushed.
    #[must_use]
    pub fn room(&self) -> usize {
        UNACKED_MAX.saturating_sub(self.unacked.len())
    }

    /// The next envelope to send on this connection, if any.
    pub fn to_send(&mut self) -> Option<Envelope> {
        let envelope = self.unacked.get(self.sent)?;
        self.sent += 1;
        Some(Envelope { ack: self.received, ..envelope.clone() })
    }

    /// Whether [`Sequence::to_send`] has something.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.sent < self.unacked.len()
    }

    /// An envelope that is never kept: a heartbeat, or a bare acknowledgement.
    #[must_use]
    pub fn passing(&self, body: Option<Body>) -> Envelope {
        Envelope { session: self.session, seq: 0, ack: self.received, body }
    }

    /// Takes an envelope from the peer.
    ///
    /// # Errors
    /// [`Fault`]
    pub fn receive(&mut self, envelope: Envelope) -> Result<Received, Fault> {
        if envelope.session != self.session {
            return Err(Fault::OtherSession { ours: self.session, got: envelope.session });
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
    pub fn carried_out(&mut self, seq: u64) {
        self.received = self.received.max(seq);
    }

    /// Goes on over a new connection where the last one broke off; `ack` is the last message that the peer has.
    ///
    /// # Errors
    /// [`Fault::AckAhead`]; nothing has changed then.
    pub fn resume(&mut self, ack: u64) -> Result<(), Fault> {
        self.acknowledged(ack)?;
        self.sent = 0;
        Ok(())
    }

    /// Begins a new session with everything that is left, numbered anew.
    pub fn renumber(&mut self, session: u64) {
        let left = std::mem::take(&mut self.unacked);
        *self = Self::new(session);
        for envelope in left {
            self.given += 1;
            self.unacked.push_back(Envelope { session, seq: self.given, ..envelope });
        }
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
    use super::super::{StopPod, Usage};
    use super::*;

    fn stop(n: u8) -> Body {
        Body::StopPod(StopPod { reason: n.to_string(), ..StopPod::default() })
    }

    fn sent(sequence: &mut Sequence) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| sequence.to_send()).map(|envelope| (envelope.session, envelope.seq)).collect()
    }

    fn from(session: u64, seq: u64, ack: u64) -> Envelope {
        let body = (seq != 0).then(|| Body::Usage(Usage { signed: vec![] }));
        Envelope { session, seq, ack, body }
    }

    #[test]
    fn a_resumed_session_sends_again_what_was_not_acknowledged_and_nothing_else() {
        let mut sequence = Sequence::new(7);
        (1..=4).for_each(|n| sequence.push(stop(n)).unwrap());
        assert_eq!(sent(&mut sequence), [(7, 1), (7, 2), (7, 3), (7, 4)]);
        sequence.receive(from(7, 0, 1)).unwrap();
        sequence.resume(2).unwrap();
        sequence.push(stop(5)).unwrap();
        assert_eq!(sent(&mut sequence), [(7, 3), (7, 4), (7, 5)]);
        assert_eq!(sequence.resume(9), Err(Fault::AckAhead { ack: 9, given: 5 }));
    }

    #[test]
    fn a_new_session_numbers_what_is_left_anew() {
        let mut sequence = Sequence::new(7);
        (1..=3).for_each(|n| sequence.push(stop(n)).unwrap());
        sequence.receive(from(7, 1, 2)).unwrap();
        sequence.carried_out(1);
        sequence.renumber(8);
        assert_eq!((sequence.received(), sent(&mut sequence)), (0, vec![(8, 1)]));
    }

    #[test]
    fn a_message_counts_once_it_was_carried_out_and_then_never_again() {
        let mut sequence = Sequence::new(7);
        assert!(matches!(sequence.receive(from(7, 1, 0)), Ok(Received::Kept(1, _))));
        // It could not be written down: the peer sends it again.
        assert!(matches!(sequence.receive(from(7, 1, 0)), Ok(Received::Kept(1, _))));
        sequence.carried_out(1);
        assert_eq!(sequence.receive(from(7, 1, 0)), Ok(Received::Nothing));
        assert_eq!(sequence.receive(from(7, 3, 0)), Err(Fault::Gap { expected: 2, got: 3 }));
        assert_eq!(sequence.passing(None).ack, 1);
    }

    #[test]
    fn lies_are_faults_and_the_queue_is_bounded() {
        let mut sequence = Sequence::new(7);
        assert_eq!(sequence.receive(from(7, 0, 1)), Err(Fault::AckAhead { ack: 1, given: 0 }));
        assert_eq!(sequence.receive(from(6, 0, 0)), Err(Fault::OtherSession { ours: 7, got: 6 }));
        (0..UNACKED_MAX).for_each(|_| sequence.push(stop(1)).unwrap());
        assert_eq!((sequence.push(stop(1)), sequence.room()), (Err(Full), 0));
    }
}

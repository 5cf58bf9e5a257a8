//! Sequence numbers, acknowledgements and the bounded queue of one link. Pure: no socket, no clock.
//!
//! What is pushed stays until the peer acknowledges it; after a reconnect that resumes the session it is sent again from
//! the first unacknowledged envelope, and the peer drops what it has seen. When the peer has lost the session, everything
//! that is left is numbered anew: its content is cumulative or idempotent, so a second arrival does no harm.

use std::collections::VecDeque;

use atoll_api::link::envelope::Body;
use atoll_api::link::{Envelope, UNACKED_MAX, Welcome};

/// The state that outlives a connection.
#[derive(Debug, Default)]
pub struct Session {
    id: u64,
    /// The server that has this session; another one of the operator does not know it.
    server: usize,
    /// Sent or waiting, in order of `seq`, not acknowledged.
    unacked: VecDeque<Envelope>,
    /// Highest `seq` ever given in this session.
    given: u64,
    /// How many of `unacked` were sent on this connection.
    sent: usize,
    /// Highest `seq` received.
    received: u64,
}

/// The peer acknowledges too slowly: [`UNACKED_MAX`] envelopes wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane left {UNACKED_MAX} messages unacknowledged")]
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
    /// The control plane says it resumes a session that this side does not have.
    #[error("session {0} was resumed, which this worker does not know")]
    UnknownSession(u64),
}

impl Session {
    /// What `Hello` offers a server to resume: the session (0 for none) and the highest number received in it.
    #[must_use]
    pub fn resume(&self, server: usize) -> (u64, u64) {
        if server == self.server { (self.id, self.received) } else { (0, 0) }
    }

    /// The session's number, 0 before the first welcome.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Highest number received, for acknowledging.
    #[must_use]
    pub fn ack(&self) -> u64 {
        self.received
    }

    /// Takes a body to be delivered.
    ///
    /// # Errors
    /// [`Full`] when the peer has left too much unacknowledged; the connection should be closed.
    pub fn push(&mut self, body: Body) -> Result<(), Full> {
        if self.unacked.len() >= UNACKED_MAX {
            return Err(Full);
        }
        self.given += 1;
        self.unacked.push_back(Envelope { session: self.id, seq: self.given, ack: 0, body: Some(body) });
        Ok(())
    }

    /// Gives the session up: the next connection starts a new one with nothing to send again.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Begins a connection with a server's answer.
    ///
    /// # Errors
    /// [`Fault`] when it resumes what was not offered or acknowledges what was not sent.
    pub fn welcome(&mut self, server: usize, welcome: &Welcome) -> Result<(), Fault> {
        self.sent = 0;
        if welcome.resumed {
            if welcome.session != self.resume(server).0 || self.id == 0 {
                return Err(Fault::UnknownSession(welcome.session));
            }
            return self.acknowledged(welcome.resume_ack);
        }
        self.id = welcome.session;
        self.server = server;
        self.received = 0;
        self.given = 0;
        for envelope in &mut self.unacked {
            self.given += 1;
            envelope.session = self.id;
            envelope.seq = self.given;
        }
        Ok(())
    }

    /// The next envelope to send on this connection, if any.
    pub fn to_send(&mut self) -> Option<Envelope> {
        let mut envelope = self.unacked.get(self.sent)?.clone();
        self.sent += 1;
        envelope.ack = self.received;
        Some(envelope)
    }

    /// Whether [`Session::to_send`] has something.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.sent < self.unacked.len()
    }

    /// An envelope that is never kept: a heartbeat, or a bare acknowledgement.
    #[must_use]
    pub fn passing(&self, body: Option<Body>) -> Envelope {
        Envelope { session: self.id, seq: 0, ack: self.received, body }
    }

    /// Takes an envelope from the peer; gives its body unless it was seen before.
    ///
    /// # Errors
    /// [`Fault`]; the connection should be closed.
    pub fn receive(&mut self, envelope: Envelope) -> Result<Option<Body>, Fault> {
        if envelope.session != self.id {
            return Err(Fault::OtherSession { ours: self.id, got: envelope.session });
        }
        self.acknowledged(envelope.ack)?;
        if envelope.seq == 0 {
            return Ok(envelope.body);
        }
        if envelope.seq <= self.received {
            return Ok(None);
        }
        if envelope.seq != self.received + 1 {
            return Err(Fault::Gap { expected: self.received + 1, got: envelope.seq });
        }
        self.received = envelope.seq;
        Ok(envelope.body)
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
    use atoll_api::link::Usage;

    use super::*;

    fn body(n: u8) -> Body {
        Body::Usage(Usage { signed: vec![n] })
    }

    fn welcome(session: u64, resumed: bool, resume_ack: u64) -> Welcome {
        Welcome { session, resumed, resume_ack, heartbeat_ms: 1000, now_unix_ms: 0 }
    }

    fn drain(session: &mut Session) -> Vec<(u64, u64, u8)> {
        let mut out = vec![];
        while let Some(envelope) = session.to_send() {
            let Some(Body::Usage(usage)) = envelope.body else { panic!("only usage was pushed") };
            out.push((envelope.session, envelope.seq, usage.signed[0]));
        }
        out
    }

    fn open() -> Session {
        let mut session = Session::default();
        session.welcome(0, &welcome(7, false, 0)).unwrap();
        session
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_after_a_resume_and_nothing_else() {
        let mut session = open();
        (1..=4).for_each(|n| session.push(body(n)).unwrap());
        assert_eq!(drain(&mut session), [(7, 1, 1), (7, 2, 2), (7, 3, 3), (7, 4, 4)]);
        session.receive(Envelope { session: 7, seq: 0, ack: 1, body: None }).unwrap();
        session.push(body(5)).unwrap();
        assert_eq!(session.resume(0), (7, 0));
        session.welcome(0, &welcome(7, true, 3)).unwrap();
        assert_eq!(drain(&mut session), [(7, 4, 4), (7, 5, 5)]);
    }

    #[test]
    fn a_new_session_numbers_what_is_left_anew() {
        let mut session = open();
        (1..=3).for_each(|n| session.push(body(n)).unwrap());
        drain(&mut session);
        session.receive(Envelope { session: 7, seq: 1, ack: 2, body: Some(body(9)) }).unwrap();
        session.welcome(0, &welcome(8, false, 0)).unwrap();
        assert_eq!((session.ack(), drain(&mut session)), (0, vec![(8, 1, 3)]));
    }

    #[test]
    fn another_server_gets_everything_in_a_session_of_its_own() {
        let mut session = open();
        (1..=2).for_each(|n| session.push(body(n)).unwrap());
        drain(&mut session);
        assert_eq!((session.resume(0), session.resume(1)), ((7, 0), (0, 0)));
        // One that claims to have the session of the other is a liar.
        assert_eq!(session.welcome(1, &welcome(7, true, 2)), Err(Fault::UnknownSession(7)));
        session.welcome(1, &welcome(9, false, 0)).unwrap();
        assert_eq!(drain(&mut session), [(9, 1, 1), (9, 2, 2)]);
        assert_eq!((session.resume(0), session.resume(1)), ((0, 0), (9, 0)));
    }

    #[test]
    fn a_message_counts_once_and_in_order() {
        let mut session = open();
        let from = |seq| Envelope { session: 7, seq, ack: 0, body: Some(body(1)) };
        assert!(session.receive(from(1)).unwrap().is_some());
        assert!(session.receive(from(1)).unwrap().is_none());
        assert_eq!(session.receive(from(3)), Err(Fault::Gap { expected: 2, got: 3 }));
        assert!(session.receive(from(2)).unwrap().is_some());
        assert_eq!(session.ack(), 2);
    }

    #[test]
    fn lies_about_the_session_are_faults() {
        let mut session = open();
        let from = |session, ack| Envelope { session, seq: 0, ack, body: None };
        assert_eq!(session.receive(from(7, 1)), Err(Fault::AckAhead { ack: 1, given: 0 }));
        assert_eq!(session.receive(from(6, 0)), Err(Fault::OtherSession { ours: 7, got: 6 }));
        assert_eq!(session.welcome(0, &welcome(6, true, 0)), Err(Fault::UnknownSession(6)));
        assert_eq!(Session::default().welcome(0, &welcome(0, true, 0)), Err(Fault::UnknownSession(0)));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut session = open();
        for _ in 0..UNACKED_MAX {
            session.push(body(1)).unwrap();
        }
        assert_eq!(session.push(body(1)), Err(Full));
        session.forget();
        assert_eq!((session.resume(0), session.push(body(1))), ((0, 0), Ok(())));
    }
}

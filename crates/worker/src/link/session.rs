//! A worker's session with an operator, and what becomes of it when the operator's node has lost it.
//!
//! Then everything that is left is numbered anew: its content is cumulative or idempotent, so a second arrival does no
//! harm.

use atoll_api::link::envelope::Body;
use atoll_api::link::{self, Envelope, Received, Sequence, Welcome};

/// The state that outlives a connection.
#[derive(Debug, Default)]
pub struct Session {
    /// The server that has this session; another one of the operator does not know it.
    server: usize,
    /// What waits, and what was received.
    pub sequence: Sequence,
}

/// A peer that breaks the rules of the link. The connection should be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// In what it sends.
    #[error(transparent)]
    Sequence(#[from] link::Fault),
    /// The control plane says it resumes a session that this side does not have.
    #[error("session {0} was resumed, which this worker does not know")]
    UnknownSession(u64),
}

impl Session {
    /// What `Hello` offers a server to resume: the session (0 for none) and the highest number received in it.
    #[must_use]
    pub fn resume(&self, server: usize) -> (u64, u64) {
        if server == self.server { (self.sequence.session(), self.sequence.received()) } else { (0, 0) }
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
        if !welcome.resumed {
            self.server = server;
            self.sequence.renumber(welcome.session);
            return Ok(());
        }
        if welcome.session == 0 || welcome.session != self.resume(server).0 {
            return Err(Fault::UnknownSession(welcome.session));
        }
        Ok(self.sequence.resume(welcome.resume_ack)?)
    }

    /// Takes an envelope from the peer; gives its body unless it was seen before. It counts as received at once: what this
    /// side does not keep is commanded again.
    ///
    /// # Errors
    /// [`Fault`]; the connection should be closed.
    pub fn receive(&mut self, envelope: Envelope) -> Result<Option<Body>, Fault> {
        match self.sequence.receive(envelope)? {
            Received::Nothing => Ok(None),
            Received::Passing(body) => Ok(Some(body)),
            Received::Kept(seq, body) => {
                self.sequence.carried_out(seq);
                Ok(Some(body))
            }
        }
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
        while let Some(envelope) = session.sequence.to_send() {
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
    fn a_new_session_numbers_what_is_left_anew() {
        let mut session = open();
        (1..=3).for_each(|n| session.sequence.push(body(n)).unwrap());
        drain(&mut session);
        session.receive(Envelope { session: 7, seq: 1, ack: 2, body: Some(body(9)) }).unwrap();
        session.welcome(0, &welcome(8, false, 0)).unwrap();
        assert_eq!((session.sequence.received(), drain(&mut session)), (0, vec![(8, 1, 3)]));
    }

    #[test]
    fn another_server_gets_everything_in_a_session_of_its_own() {
        let mut session = open();
        (1..=2).for_each(|n| session.sequence.push(body(n)).unwrap());
        drain(&mut session);
        assert_eq!((session.resume(0), session.resume(1)), ((7, 0), (0, 0)));
        // One that claims to have the session of the other is a liar.
        assert_eq!(session.welcome(1, &welcome(7, true, 2)), Err(Fault::UnknownSession(7)));
        session.welcome(1, &welcome(9, false, 0)).unwrap();
        assert_eq!(drain(&mut session), [(9, 1, 1), (9, 2, 2)]);
        assert_eq!((session.resume(0), session.resume(1)), ((0, 0), (9, 0)));
    }

    #[test]
    fn a_message_counts_at_once_and_once() {
        let mut session = open();
        let from = |seq| Envelope { session: 7, seq, ack: 0, body: Some(body(1)) };
        assert!(session.receive(from(1)).unwrap().is_some());
        assert!(session.receive(from(1)).unwrap().is_none());
        assert!(session.receive(from(2)).unwrap().is_some());
        assert_eq!(session.sequence.received(), 2);
    }

    #[test]
    fn lies_about_the_session_are_faults() {
        let mut session = open();
        let from = |session, ack| Envelope { session, seq: 0, ack, body: None };
        assert!(matches!(session.receive(from(7, 1)), Err(Fault::Sequence(_))));
        assert_eq!(session.welcome(0, &welcome(6, true, 0)), Err(Fault::UnknownSession(6)));
        assert_eq!(Session::default().welcome(0, &welcome(0, true, 0)), Err(Fault::UnknownSession(0)));
    }

    #[test]
    fn what_is_given_up_is_not_sent_again() {
        let mut session = open();
        session.sequence.push(body(1)).unwrap();
        session.forget();
        assert_eq!((session.resume(0), session.sequence.to_send()), ((0, 0), None));
    }
}

//! A worker's session as a node keeps it.
//!
//! A new session starts empty: commands come back from the store's outbox, which is where they are safe.

use std::collections::BTreeSet;

use atoll_api::link::Sequence;
use atoll_domain::id::CommandId;

/// The state that outlives a connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) sequence: Sequence,
    /// Commands pushed in this session and not answered.
    pub(super) commands: BTreeSet<CommandId>,
}

impl Session {
    pub(super) fn new(id: u64) -> Self {
        Self { sequence: Sequence::new(id), commands: BTreeSet::new() }
    }

    /// Goes on where the last connection broke off; false when the worker speaks of another session, or of messages
    /// that were never sent.
    pub(super) fn resume(&mut self, id: u64, ack: u64) -> bool {
        id != 0 && id == self.sequence.session() && self.sequence.resume(ack).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use atoll_api::link::StopPod;
    use atoll_api::link::envelope::Body;

    use super::*;

    #[test]
    fn only_this_session_is_resumed_and_only_what_was_sent_acknowledged() {
        let mut session = Session::new(7);
        session.sequence.push(Body::StopPod(StopPod::default())).unwrap();
        assert!(session.resume(7, 0) && session.resume(7, 1));
        assert!(
            !session.resume(8, 0) && !session.resume(7, 9) && !session.resume(0, 0) && !Session::default().resume(0, 0)
        );
    }
}

#[cfg(test)]
#[path = "session_fuzz.rs"]
mod fuzz;

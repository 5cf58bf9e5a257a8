//! The session against a worker that loses, repeats, breaks off, resumes and lies: what is delivered is what was pushed,
//! in order, nothing twice on one connection, and nothing counts as received that was not carried out.

use atoll_api::link::envelope::Body;
use atoll_api::link::{Envelope, Received, StopPod, UNACKED_MAX, Usage};
use atoll_fuzz::{Choices, Fuzz};

use super::Session;

#[test]
fn sessions() {
    let fuzz = Fuzz::of("control-session").seed((0..=255).collect::<Vec<u8>>()).bytes_max(1024);
    let tally = fuzz.run(|input| {
        let mut choices = Choices::new(input);
        let mut session = Session::new(7);
        let (mut pushed, mut seen, mut said, mut carried_out) = (0_u64, 0_u64, 0_u64, 0_u64);
        let mut lies = 0;
        while !choices.is_over() {
            match choices.below(7) {
                0 | 1 => {
                    let room = session.sequence.room();
                    let body = Body::StopPod(StopPod { reason: (pushed + 1).to_string(), ..StopPod::default() });
                    assert_eq!(session.sequence.push(body).is_ok(), room > 0);
                    pushed += u64::from(room > 0);
                }
                2 => {
                    while let Some(envelope) = session.sequence.to_send() {
                        // As the worker does: what it has seen is dropped, a gap is a fault.
                        assert!(envelope.seq <= seen + 1, "{} after {seen}", envelope.seq);
                        let Some(Body::StopPod(stop)) = &envelope.body else { panic!("only stops were pushed") };
                        assert_eq!(stop.reason, envelope.seq.to_string(), "another body under this number");
                        assert_eq!(envelope.ack, carried_out);
                        seen = seen.max(envelope.seq);
                        if choices.below(4) == 0 {
                            break;
                        }
                    }
                }
                3 => {
                    // The connection broke; the worker resumes with what it has.
                    assert!(session.resume(7, seen));
                    assert_eq!(session.sequence.received(), carried_out);
                }
                4 => {
                    // Again from before what was carried out: a repetition.
                    let seq = (said + 1).saturating_sub(u64::from(choices.byte() % 3)).max(1);
                    let envelope = Envelope { session: 7, seq, ack: seen, body: Some(Body::Usage(Usage::default())) };
                    match session.sequence.receive(envelope).unwrap() {
                        Received::Kept(at, _) => {
                            assert_eq!((at, at), (seq, carried_out + 1));
                            // Sometimes the store fails, and it is not carried out.
                            if choices.below(3) > 0 {
                                session.sequence.carried_out(at);
                                carried_out = at;
                            }
                        }
                        Received::Nothing => assert!(seq <= carried_out),
                        Received::Passing(_) => panic!("it had a number"),
                    }
                    said = carried_out;
                }
                5 => {
                    let ack = session.sequence.receive(Envelope { session: 7, seq: 0, ack: seen, body: None });
                    assert_eq!(ack.unwrap(), Received::Nothing);
                }
                _ => {
                    let honest = choices.below(2) == 0;
                    let lie = Envelope {
                        session: if honest { 7 } else { choices.number() },
                        seq: choices.number(),
                        ack: choices.number(),
                        body: Some(Body::Usage(Usage::default())),
                    };
                    let number = lie.seq;
                    match session.sequence.receive(lie) {
                        Err(_) => lies += 1,
                        Ok(Received::Kept(at, _)) => assert_eq!((at, number), (carried_out + 1, carried_out + 1)),
                        Ok(_) => assert!(number <= carried_out),
                    }
                    assert_eq!(session.sequence.received(), carried_out);
                }
            }
            assert!(session.sequence.room() <= UNACKED_MAX && seen <= pushed);
        }
        if lies > 0 { "a lie was seen" } else { "no lie was seen" }
    });
    assert!(tally.of("a lie was seen") > 0 && tally.of("no lie was seen") > 0, "{tally:?}");
}

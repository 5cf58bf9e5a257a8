//! Whatever arrives on the link or from a pod: no panic, bounded memory, and what is accepted is
//! written as it was read.

#![allow(clippy::unwrap_used)]

use atoll_api::link::envelope::Body;
use atoll_api::link::{
    CommandResult, Envelope, FRAME_BYTES_MAX, Heartbeat, Hello, OpenStream, PodReport, Refused, Roster, StartPod,
    StopPod, Usage, Welcome, decode, encode, open_stream,
};
use atoll_api::pod::{Manifest, Report};
use atoll_domain::key::Digest;
use atoll_fuzz::Fuzz;

#[global_allocator]
static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;

fn report() -> PodReport {
    PodReport {
        pod: "pod_00000000000000000000000000".into(),
        lease: vec![2; 32],
        order: vec![1; 32],
        fence: 3,
        state: "running".into(),
        reason: "why".into(),
        statement: vec![9; 223],
        exit_code: -1,
        foreign: true,
    }
}

fn bodies() -> Vec<Body> {
    let env = std::collections::BTreeMap::from([("ATOLL_TOKEN".to_owned(), "t".to_owned())]);
    let id = |prefix: &str| format!("{prefix}_00000000000000000000000000");
    vec![
        Body::Hello(Hello {
            version: 1,
            device_key: vec![1; 32],
            proof: vec![2; 64],
            page: vec![3; 32],
            slot: 4,
            resume_session: 5,
            resume_ack: 6,
            facts: b"{\"devices\":1}".to_vec(),
            advertise: "192.0.2.1".into(),
            pods: vec![report(), PodReport::default()],
        }),
        Body::Welcome(Welcome { session: 1, resumed: true, resume_ack: 2, heartbeat_ms: 1000, now_unix_ms: 9 }),
        Body::Heartbeat(Heartbeat { unix_ms: 5, running: vec![id("pod"), id("pod")] }),
        Body::Refused(Refused { code: "link_replaced".into(), message: "m".into() }),
        Body::StartPod(StartPod {
            command: id("cmd"),
            pod: id("pod"),
            cluster: id("clu"),
            job: id("job"),
            order: vec![1; 32],
            lease: vec![2; 32],
            device_mask: 1,
            fence: 2,
            spec: b"{}".to_vec(),
            spec_signature: vec![3; 64],
            overlay_index: 1,
            role: "head".into(),
            env: env.clone(),
        }),
        Body::Roster(Roster {
            command: id("cmd"),
            pod: id("pod"),
            generation: 1,
            statements: vec![vec![9; 223]; 3],
            launch: true,
            env,
        }),
        Body::StopPod(StopPod { command: id("cmd"), pod: id("pod"), reason: "over".into() }),
        Body::OpenStream(OpenStream {
            stream: id("str"),
            pod: id("pod"),
            target: Some(open_stream::Target::OutputFrom(7)),
        }),
        Body::PodReport(report()),
        Body::Usage(Usage { signed: vec![1; 400] }),
        Body::CommandResult(CommandResult { command: id("cmd"), accepted: true, ..CommandResult::default() }),
    ]
}

fn check_frame(input: &[u8]) -> &'static str {
    match decode(input) {
        Ok(envelope) => {
            let again = decode(&encode(&envelope)).expect("what was read can be written and read");
            assert_eq!(again, envelope);
            "accepted"
        }
        Err(why) => {
            assert!(why.to_string().len() < 400, "{why}");
            "refused"
        }
    }
}

#[test]
fn link_frames() {
    let fuzz = bodies().into_iter().zip(1..).fold(Fuzz::of("link-frames"), |fuzz, (body, seq)| {
        fuzz.seed(encode(&Envelope { session: 7, seq, ack: 1, body: Some(body) }))
    });
    let tally = fuzz.bytes_max(16 << 10).run(check_frame);
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

/// A frame of empty parts is small on the wire and large in memory. Nobody has proven anything when `Hello` is decoded.
#[test]
fn a_frame_of_empty_parts_stays_small() {
    let length = |bytes: usize| {
        let mut varint = Vec::new();
        let mut rest = bytes;
        while rest >= 128 {
            varint.push(u8::try_from(rest & 127).unwrap() | 128);
            rest >>= 7;
        }
        varint.push(u8::try_from(rest).unwrap());
        varint
    };
    // Field and tag of each repeated field: Hello's pods, Heartbeat's running, Roster's statements and env.
    let fuzz = [(10, 10), (12, 2), (21, 4), (21, 6)].into_iter().fold(Fuzz::of("empty-parts"), |fuzz, (body, part)| {
        let parts = [(part << 3) | 2, 0].repeat((FRAME_BYTES_MAX - 64) / 2);
        let tag = length((body << 3) | 2);
        fuzz.seed([tag, length(parts.len()), parts].concat())
    });
    let tally = fuzz.bytes_max(FRAME_BYTES_MAX).memory(4 << 20, 4).inputs_max(100).run(check_frame);
    assert!(tally.of("refused") >= 4, "{tally:?}");
}

#[test]
fn what_pods_say() {
    let manifest = r#"{"step":3,"epoch":1,"attempt":2,"weights_sha256":"HASH","files":[{"name":"model.pt","sha256":"HASH","bytes":9}]}"#;
    let report = r#"{"kind":"step","attempt":2,"step":3,"epoch":1,"loss":0.5,"accuracy":0.9,"message":"m"}"#;
    let tally = Fuzz::of("pod-says")
        .seed(manifest.replace("HASH", &Digest::of(b"x").to_string()))
        .seed(report)
        .words(&["1e400", "-0.0", "\"kind\":\"result\""])
        .run(|input| {
            let manifest = serde_json::from_slice::<Manifest>(input).ok();
            if let Some(read) = &manifest {
                assert_eq!(&serde_json::from_slice::<Manifest>(&serde_json::to_vec(read).unwrap()).unwrap(), read);
            }
            let Ok(report) = serde_json::from_slice::<Report>(input) else {
                return if manifest.is_some() { "manifest" } else { "refused" };
            };
            assert!(report.loss.is_none_or(f64::is_finite) && report.accuracy.is_none_or(f64::is_finite));
            "report"
        });
    assert!(tally.of("manifest") > 0 && tally.of("report") > 0, "{tally:?}");
}

//! Whatever bytes arrive as an id, a price, a key, a specification, a statement or a meter reading: no panic, bounded
//! memory, and what is accepted reads back as itself.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::str::FromStr;

use atoll_domain::id::{CommandId, JobId, PodId, StreamId, WorkerId};
use atoll_domain::job::{Bundle, ClusterKind, JobSpec, PackRef, SPEC_BYTES_MAX, SignedSpec, SpecError, spec_root};
use atoll_domain::key::{Digest, PublicKey, Purpose, SecretKey, Signature};
use atoll_domain::meter::{SignedUsage, UsageStatement};
use atoll_domain::money::UsdMicrosPerHour;
use atoll_domain::pod_key::{self, Expected};
use atoll_domain::time::UnixMs;
use atoll_domain::worker::Facts;
use atoll_fuzz::{Choices, Fuzz};

#[global_allocator]
static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;

/// Reads a text twice and writes it back.
fn text<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str, exact: bool) -> bool
where
    T::Err: Display,
{
    match (text.parse::<T>(), text.parse::<T>()) {
        (Ok(read), Ok(again)) => {
            assert_eq!(read, again);
            assert!(!exact || read.to_string() == text, "{text:?} reads as {read}");
            true
        }
        (Err(why), Err(again)) => {
            let why = why.to_string();
            assert!(why.len() < 400 && why == again.to_string(), "{why}");
            false
        }
        _ => panic!("{text:?} is read once and refused once"),
    }
}

#[test]
fn names_numbers_and_keys() {
    let key = SecretKey::from_seed(&[1; 32]);
    let tally = Fuzz::of("words")
        .seed(JobId::from_random([0xa7; 16]).to_string())
        .seed(PodId::from_random([0; 16]).to_string())
        .seed(CommandId::from_random([0xff; 16]).to_string())
        .seed(key.public().to_string())
        .seed(key.sign(Purpose::Link, b"x").to_string())
        .seed(Digest::of(b"x").to_string())
        .seed("2.20")
        .seed("10000.000001")
        .words(&["wrk_", "str_", ".", "0.000000", "1111"])
        .run(|input| {
            let Ok(said) = std::str::from_utf8(input) else { return "no text" };
            let ids = [
                text::<JobId>(said, true),
                text::<PodId>(said, true),
                text::<CommandId>(said, true),
                text::<WorkerId>(said, true),
                text::<StreamId>(said, true),
                text::<PublicKey>(said, true),
                text::<Signature>(said, true),
                // In capitals too: people type them.
                text::<Digest>(said, false),
            ];
            let price = text::<UsdMicrosPerHour>(said, false);
            assert!(ids.iter().filter(|one| **one).count() <= 1, "{said:?} is two things");
            if price || ids.contains(&true) { "accepted" } else { "refused" }
        });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

fn spec() -> JobSpec {
    JobSpec {
        version: 1,
        name: "digits".into(),
        network: Digest::of(b"network"),
        renter: SecretKey::from_seed(&[1; 32]).public(),
        budget: None,
        order: PublicKey([2; 32]),
        kind: ClusterKind::Ray,
        model: "cpu".into(),
        devices: 3,
        pack: PackRef { name: "ray-torch".into(), sha256: Digest::of(b"pack") },
        bundle: Bundle { sha256: Digest::of(b"code"), bytes: 4 },
        entry: "python train.py --epochs 3".into(),
        env: BTreeMap::from([("EPOCHS".into(), "3".into()), ("LANG".into(), "C".into())]),
        checkpoints: true,
        seconds_max: 3600,
    }
}

#[test]
fn job_specifications_behind_a_true_signature() {
    let renter = SecretKey::from_seed(&[1; 32]);
    let seed = SignedSpec::sign(&spec(), &renter).unwrap().bytes;
    let tally = Fuzz::of("job-spec")
        .seed(seed.clone())
        .seed(String::from_utf8(seed).unwrap().replace("\"sha256\"", &format!("\"{}\"", "[".repeat(60_000))))
        .words(&["\"PATH\":\"x\"", "\"ATOLL_X\":\"1\"", "\\u0000", "\"kind\":\"ray\"", "18446744073709551615"])
        .bytes_max(SPEC_BYTES_MAX + 64)
        .inputs_min(2000)
        .run(|input| {
            let signature = renter.sign(Purpose::JobSpec, &spec_root(input).0);
            let signed = SignedSpec { bytes: input.to_vec(), signature };
            let opened = signed.open();
            assert_eq!(opened, signed.open());
            match opened {
                Ok(spec) => {
                    assert_eq!(spec.check(), Ok(()));
                    let again = SignedSpec::sign(&spec, &renter).unwrap();
                    assert_eq!(again.open().as_ref(), Ok(&spec));
                    "accepted"
                }
                Err(SpecError::Malformed(why)) if why.len() < 1500 => "malformed",
                Err(SpecError::Field { problem, .. }) if problem.len() < 1500 => "out of bounds",
                Err(SpecError::TooLarge { bytes }) => {
                    assert!(bytes > SPEC_BYTES_MAX);
                    "too large"
                }
                Err(SpecError::NotSigned(_)) => "another renter",
                Err(long) => panic!("a refusal that nobody reads: {} bytes", long.to_string().len()),
            }
        });
    assert!(tally.of("accepted") > 0 && tally.of("out of bounds") > 0 && tally.of("too large") > 0, "{tally:?}");
}

#[test]
fn pod_key_statements() {
    let device = SecretKey::from_seed(&[7; 32]);
    let expected = Expected {
        order: PublicKey([1; 32]),
        lease: PublicKey([2; 32]),
        address: Ipv4Addr::new(10, 77, 0, 3),
        device_key: device.public(),
        now_s: 1_000,
    };
    let mut body = [&[1; 32][..], &[2; 32], &[10, 77, 0, 3], &[9; 32], &[4, 192, 0, 2, 1], &[0; 12], &[4, 16]].concat();
    body.extend(2_000_000_000_u64.to_le_bytes());
    let tally = Fuzz::of("pod-key").seed(body.clone()).bytes_max(256).run(|input| {
        let signature = device.sign(Purpose::PodKey, input);
        let signed = [input, &device.public().0, &signature.0].concat();
        let read = pod_key::check(&signed, &expected);
        assert_eq!(read, pod_key::check(&signed, &expected));
        assert_eq!(read.ok(), read.ok().and(pod_key::key(&signed)));
        if read.is_ok() {
            assert_eq!((&input[..68], input.len()), (&body[..68], body.len()));
            "accepted"
        } else {
            "refused"
        }
    });
    assert!(tally.of("accepted") > 0 && tally.of("refused") > 0, "{tally:?}");
}

#[test]
fn meters_and_facts() {
    let device = SecretKey::from_seed(&[7; 32]);
    let statement = UsageStatement {
        pod: PodId::from_random([1; 16]),
        lease: PublicKey([2; 32]),
        records: 3,
        served_ms: 3_000,
        until: UnixMs(9),
        cpu_ms: 1,
        head: Digest::of(b"head"),
    };
    let facts = r#"{"cpu":"AMD EPYC","cpu_count":2,"memory_bytes":1,"disk_free_bytes":2,"disk_write_mib_s":3,"model":"cpu",
        "devices":2,"packs":[],"limits":{"kind":"weak","why":"no cgroup"}}"#;
    assert!(serde_json::from_str::<Facts>(facts).is_ok());
    let tally = Fuzz::of("usage-and-facts")
        .seed(serde_json::to_vec(&statement.sign(&device)).unwrap())
        .seed(facts)
        .run(|input| {
            if let Ok(facts) = serde_json::from_slice::<Facts>(input) {
                let again = serde_json::to_vec(&facts).unwrap();
                assert_eq!(serde_json::from_slice::<Facts>(&again).unwrap(), facts);
            }
            let Ok(usage) = serde_json::from_slice::<SignedUsage>(input) else { return "refused" };
            if usage.verify(&device.public()).is_ok() {
                assert_eq!(usage.statement, statement, "another statement under the same signature");
                "verified"
            } else {
                "not signed"
            }
        });
    assert!(tally.of("verified") > 0 && tally.of("not signed") > 0, "{tally:?}");
}

#[test]
fn observations_never_count_more_than_passed() {
    use atoll_domain::meter::{Observation, served_seconds};
    let tally = Fuzz::of("observations").seed((0..64).collect::<Vec<u8>>()).bytes_max(512).run(|input| {
        let mut choices = Choices::new(input);
        let (mut seen, mut now, mut passed) = (Observation::default(), 1_000_u64, 0_u64);
        while !choices.is_over() {
            let step = u64::from(choices.byte()) * 100;
            now = if choices.below(8) == 0 { choices.number() } else { now.saturating_add(step) };
            let before = seen;
            seen = seen.beat(UnixMs(now));
            passed = passed.saturating_add(10_000);
            assert!(seen.observed_ms >= before.observed_ms && seen.observed_ms <= passed, "{before:?} {seen:?}");
            assert!(served_seconds(choices.number(), seen.observed_ms, 60) <= 60.min(seen.observed_ms / 1000));
        }
        "counted"
    });
    assert!(tally.of("counted") > 0);
}

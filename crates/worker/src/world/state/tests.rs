//! Every refusal, and the life of a pod, as sequences of events.

mod faults;
mod operators;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use atoll_api::link::envelope::Body;
use atoll_api::link::{CommandResult, OpenStream, PodReport, Roster, StartPod, StopPod, open_stream};
use atoll_domain::id::{ClusterId, JobId, PodId, StreamId};
use atoll_domain::job::{Bundle, ClusterKind, JobSpec, PackRef, SignedSpec};
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::meter::UsageStatement;
use atoll_domain::pod_key;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;
use atoll_overlay::SignedStatement;

use super::*;
use crate::chain_view::LeaseView;
use crate::link::dial::OperatorName;
use crate::supervisor::spec::LimitSpec;
use crate::world::store::Records;

const NOW: UnixMs = UnixMs(1_000_000_000);
/// The chain's clock is not this machine's.
const CHAIN_NOW: i64 = 5_000;
const END: i64 = CHAIN_NOW + 600;

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn device() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

fn renter() -> SecretKey {
    SecretKey::from_seed(&[8; 32])
}

fn pod(n: u8) -> PodId {
    PodId::from_random([n; 16])
}

fn pack() -> PackRef {
    PackRef { name: "ray-torch".into(), sha256: Digest([3; 32]) }
}

fn me() -> Me {
    Me {
        device: device(),
        public: device().public(),
        slot: SlotRef { page: key(50), slot: 2 },
        network: Digest([9; 32]),
        announce: "127.0.0.1".parse().unwrap(),
        packs: vec![(pack(), "/srv/pack".into())],
        sdk: "/srv/sdk".into(),
        socket: "/srv/worker.sock".into(),
        device_share: LimitSpec {
            memory_bytes: 1 << 30,
            cpu_milli: 1_000,
            pids: 100,
            disk_bytes: 1 << 30,
            shm_bytes: 1 << 26,
            tmp_bytes: 1 << 26,
            output_bytes: 1 << 20,
        },
        root: false,
        tun_device: "/dev/net/tun".into(),
        bwrap: "/usr/bin/bwrap".into(),
        cgroup: None,
    }
}

fn spec() -> JobSpec {
    JobSpec {
        version: 1,
        name: "digits".into(),
        network: Digest([9; 32]),
        renter: renter().public(),
        budget: None,
        order: key(60),
        kind: ClusterKind::Ray,
        model: "cpu".into(),
        devices: 3,
        pack: pack(),
        bundle: Bundle { sha256: Digest([4; 32]), bytes: 10 },
        entry: "python train.py".into(),
        env: BTreeMap::from([("EPOCHS".to_owned(), "3".to_owned())]),
        checkpoints: true,
        seconds_max: 600,
    }
}

fn signed(spec: &JobSpec) -> SignedSpec {
    SignedSpec::sign(spec, &renter()).unwrap()
}

fn start_of(n: u8, fence: u64, signed: &SignedSpec) -> StartPod {
    StartPod {
        command: format!("cmd_start_{n}"),
        pod: pod(n).to_string(),
        cluster: ClusterId::from_random([1; 16]).to_string(),
        job: JobId::from_random([1; 16]).to_string(),
        order: key(60).0.to_vec(),
        lease: key(70).0.to_vec(),
        device_mask: 1,
        fence,
        spec: signed.bytes.clone(),
        spec_signature: signed.signature.0.to_vec(),
        overlay_index: 4,
        role: "node".into(),
        env: BTreeMap::from([("ATOLL_TOKEN".to_owned(), "secret".to_owned())]),
    }
}

fn view_of(signed: &SignedSpec) -> OrderView {
    let mine = LeaseView { lease: key(70), page: key(50), mask: 1, end_s: END, slots: vec![(2, device().public())] };
    let peer = LeaseView { lease: key(71), page: key(51), mask: 1, end_s: END, slots: vec![(0, key(99))] };
    let leases = vec![mine, peer];
    OrderView { renter: renter().public(), budget: None, spec_root: signed.root(), leases, now_s: CHAIN_NOW }
}

fn view() -> OrderView {
    view_of(&signed(&spec()))
}

/// The operator of every test that needs one only.
fn own() -> OperatorName {
    OperatorName("own".into())
}

fn other() -> OperatorName {
    OperatorName("other".into())
}

fn ours(event: LinkEvent) -> Event {
    Event::Link { operator: own(), event }
}

struct Bench {
    state: State,
    now: UnixMs,
}

impl Bench {
    fn new() -> Self {
        Self { state: State::new(me(), Records::default(), &[own(), other()]), now: NOW }
    }

    fn after_ms(&mut self, ms: u64) -> &mut Self {
        self.now = UnixMs(self.now.0 + ms);
        self
    }

    fn event(&mut self, event: Event) -> Effects {
        self.state.apply(event, self.now)
    }

    fn receive(&mut self, body: Body) -> Effects {
        self.event(ours(LinkEvent::Received(Box::new(body))))
    }

    fn start(&mut self, start: StartPod) -> Effects {
        self.receive(Body::StartPod(start))
    }

    fn chain(&mut self, view: Result<Option<OrderView>, String>) -> Effects {
        self.event(Event::Order { order: key(60), view })
    }

    fn news(&mut self, n: u8, news: PodNews) -> Effects {
        self.event(Event::Pod { pod: pod(n), news })
    }

    /// A pod that the chain covers and whose network stands.
    fn prepared() -> Self {
        let mut bench = Self::new();
        bench.start(start_of(1, 1, &signed(&spec())));
        bench.chain(Ok(Some(view())));
        bench.news(1, PodNews::Prepared { wg_public: [5; 32], endpoint: endpoint() });
        bench
    }

    fn roster(&mut self, generation: u64, launch: bool, statements: Vec<Vec<u8>>) -> Effects {
        self.receive(Body::Roster(Roster {
            command: format!("cmd_roster_{generation}"),
            pod: pod(1).to_string(),
            generation,
            statements,
            launch,
            env: BTreeMap::from([
                ("ATOLL_HEAD_IP".to_owned(), "10.77.0.1".to_owned()),
                ("RAY_AUTH_MODE".to_owned(), "none".to_owned()),
            ]),
        }))
    }

    /// A pod that runs.
    fn running() -> Self {
        let mut bench = Self::prepared();
        bench.roster(1, true, vec![]);
        bench.chain(Ok(Some(view())));
        let command = "cmd_roster_1".to_owned();
        bench.news(1, PodNews::RosterTaken { command, refused: vec![], launched: true });
        bench
    }

    fn stop(&mut self, n: u8, command: &str) -> Effects {
        let reason = "done".to_owned();
        self.receive(Body::StopPod(StopPod { command: command.to_owned(), pod: pod(n).to_string(), reason }))
    }
}

fn endpoint() -> SocketAddr {
    "127.0.0.1:4100".parse().unwrap()
}

fn result(effects: &Effects) -> Option<CommandResult> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { body: Body::CommandResult(result), .. } => Some(result.clone()),
        _ => None,
    })
}

fn code(effects: &Effects) -> String {
    let result = result(effects).expect("an answer to the command");
    assert_eq!(result.accepted, result.code.is_empty());
    assert_eq!(result.accepted, result.message.is_empty(), "a refusal says what to do");
    result.code
}

/// What the pod's own operator is told.
fn reports(effects: &Effects) -> Vec<PodReport> {
    let report = |effect: &Effect| match effect {
        Effect::Send { body: Body::PodReport(report), .. } if !report.foreign => Some(report.clone()),
        _ => None,
    };
    effects.iter().filter_map(report).collect()
}

fn states(effects: &Effects) -> Vec<String> {
    reports(effects).into_iter().map(|report| report.state).collect()
}

fn planned(effects: &Effects) -> Option<PodSpec> {
    effects.iter().find_map(|effect| match effect {
        Effect::Prepare(spec) => Some((**spec).clone()),
        _ => None,
    })
}

fn stops(effects: &Effects) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Stop { .. }))
}

#[test]
fn a_start_that_the_chain_covers_becomes_a_pod() {
    let mut bench = Bench::new();
    let asked = bench.start(start_of(1, 1, &signed(&spec())));
    assert_eq!(asked, [Effect::ReadOrder(key(60))], "nothing is believed before the chain was read");
    let effects = bench.chain(Ok(Some(view())));
    assert_eq!(code(&effects), "");
    let spec = planned(&effects).unwrap();
    // What must survive is written before anything is made.
    assert!(matches!(effects[0], Effect::Persist(_)));
    assert_eq!(spec.overlay.ip.to_string(), "10.77.0.5");
    assert_eq!(spec.ends_at, UnixMs(NOW.0 + 600_000), "as far ahead as on the chain's clock");
    assert_eq!((spec.grace_ms, spec.start, spec.uid), (30_000, crate::supervisor::spec::Start::OnRun, None));
    let env = |name: &str| spec.env[name].as_str();
    assert_eq!((env("EPOCHS"), env("ATOLL_TOKEN"), env("ATOLL_ROLE")), ("3", "secret", "node"));
    assert_eq!((env("ATOLL_STORE"), env("POD_IP")), ("http://127.0.0.1:7070", "10.77.0.5"));
    assert_eq!((env("RAY_AUTH_MODE"), env("ATOLL_WORLD")), ("token", "3"));
    assert_eq!(spec.authorised.len(), 2);
    spec.check().unwrap();
}

#[test]
fn a_root_worker_gives_every_pod_its_own_user() {
    let uid_of = |n: u8| {
        let mut bench = Bench::new();
        bench.state.me.root = true;
        bench.start(start_of(n, 1, &signed(&spec())));
        planned(&bench.chain(Ok(Some(view())))).unwrap().uid.unwrap()
    };
    assert!(uid_of(1) >= crate::runtime::uid::FIRST && uid_of(1) != uid_of(2));
}

#[test]
fn the_statement_is_the_devices_and_binds_order_lease_and_address() {
    let mut bench = Bench::new();
    bench.start(start_of(1, 1, &signed(&spec())));
    bench.chain(Ok(Some(view())));
    let effects = bench.news(1, PodNews::Prepared { wg_public: [5; 32], endpoint: endpoint() });
    let [report] = reports(&effects).try_into().unwrap();
    assert_eq!((report.state.as_str(), report.fence), ("prepared", 1));
    let signed = SignedStatement::from_bytes(&report.statement).unwrap();
    let said = signed.verify().unwrap();
    assert_eq!(signed.device_key(), device().public().0);
    assert_eq!((said.order, said.lease, said.wg_public), ([60; 32], [70; 32], [5; 32]));
    let expected = pod_key::Expected {
        order: key(60),
        lease: key(70),
        address: said.overlay_ip,
        device_key: device().public(),
        now_s: NOW.secs(),
    };
    assert_eq!(pod_key::check(&report.statement, &expected), Ok([5; 32]), "what the control plane passes on");
    assert_eq!(said.endpoint, endpoint());
    assert_eq!(said.expires_at_unix_s, u64::try_from(END).unwrap() + 400 * 86_400, "nothing of this machine's clock");
}

#[test]
fn what_this_worker_can_see_itself_is_refused_at_once() {
    type Change = fn(&mut StartPod);
    let cases: [(&str, Change); 14] = [
        ("spec_refused", |s| s.spec_signature[0] ^= 1),
        ("spec_refused", |s| *s.spec.last_mut().unwrap() = b' '),
        ("spec_refused", |s| s.spec = vec![b'x'; 70_000]),
        ("malformed_command", |s| s.spec_signature.clear()),
        ("malformed_command", |s| s.pod = "pod_1".into()),
        ("malformed_command", |s| s.order = vec![1; 31]),
        ("malformed_command", |s| s.lease.clear()),
        ("malformed_command", |s| s.device_mask = 0),
        ("malformed_command", |s| s.device_mask = 0x1_0001),
        ("malformed_command", |s| s.overlay_index = 65_000),
        ("malformed_command", |s| s.role = "boss".into()),
        ("env_refused", |s| drop(s.env.insert("LD_PRELOAD".into(), "/x".into()))),
        ("env_refused", |s| drop(s.env.insert("ATOLL_X".into(), "a\0".into()))),
        ("spec_other_order", |s| s.order = key(61).0.to_vec()),
    ];
    for (expected, change) in cases {
        let mut bench = Bench::new();
        let mut start = start_of(1, 1, &signed(&spec()));
        change(&mut start);
        let effects = bench.start(start);
        assert_eq!(code(&effects), expected);
        assert_eq!(effects.len(), 1, "{expected}: nothing else happens");
    }
}

#[test]
fn a_spec_signed_by_anyone_but_its_renter_is_refused() {
    let mut stranger = signed(&spec());
    stranger.signature = SecretKey::from_seed(&[1; 32]).sign(atoll_domain::key::Purpose::JobSpec, &stranger.root().0);
    assert_eq!(code(&Bench::new().start(start_of(1, 1, &stranger))), "spec_refused");
}

#[test]
fn a_session_key_is_believed_about_what_it_ordered_itself_and_nothing_else() {
    let session = SecretKey::from_seed(&[77; 32]);
    let by_key = JobSpec { budget: Some(session.public()), ..spec() };
    let start = |by: &SecretKey, view: &dyn Fn(&SignedSpec) -> OrderView| {
        let signed = SignedSpec::sign(&by_key, by).unwrap();
        let mut bench = Bench::new();
        let refused = bench.start(start_of(1, 1, &signed));
        if !refused.is_empty() && bench.state.pending.is_empty() {
            return Err(code(&refused));
        }
        let effects = bench.chain(Ok(Some(view(&signed))));
        if planned(&effects).is_some() { Ok(()) } else { Err(code(&effects)) }
    };
    let wire = |key: PublicKey| atoll_chain::Address(key.0);
    let budget = |key: PublicKey| {
        let at = atoll_chain::market::address::budget(&wire(renter().public()), &wire(key));
        Some(PublicKey(at.0))
    };
    let by = |budget| move |signed: &SignedSpec| OrderView { budget, ..view_of(signed) };
    assert_eq!(start(&session, &by(budget(session.public()))), Ok(()));
    assert_eq!(start(&session, &by(None)), Err("other_renter".into()), "the wallet's own order");
    assert_eq!(start(&session, &by(budget(key(1)))), Err("other_renter".into()), "another key's order");
    assert_eq!(start(&renter(), &by(budget(session.public()))), Err("spec_refused".into()), "it says who signs");
}

#[test]
fn a_spec_for_another_network_or_pack_is_refused() {
    let refusal = |change: fn(&mut JobSpec)| {
        let mut changed = spec();
        change(&mut changed);
        code(&Bench::new().start(start_of(1, 1, &signed(&changed))))
    };
    assert_eq!(refusal(|spec| spec.network = Digest([1; 32])), "spec_other_network");
    assert_eq!(refusal(|spec| spec.pack.sha256 = Digest([1; 32])), "pack_missing");
    assert_eq!(refusal(|spec| spec.pack.name = "other".into()), "pack_missing");
}

#[test]
fn what_the_chain_does_not_cover_is_refused() {
    type Change = fn(&mut OrderView);
    let cases: [(&str, Change); 9] = [
        ("spec_not_ordered", |v| v.spec_root = Digest([1; 32])),
        ("other_renter", |v| v.renter = key(1)),
        ("lease_not_here", |v| v.leases[0].page = key(51)),
        ("lease_not_here", |v| v.leases[0].slots[0].0 = 3),
        ("lease_not_here", |v| v.leases[0].slots[0].1 = key(1)),
        ("other_mask", |v| v.leases[0].mask = 3),
        ("lease_over", |v| v.leases[0].slots.clear()),
        ("lease_over", |v| v.now_s = END),
        ("lease_over", |v| v.leases[0].end_s = CHAIN_NOW - 1),
    ];
    for (expected, change) in cases {
        let mut bench = Bench::new();
        bench.start(start_of(1, 1, &signed(&spec())));
        let mut view = view();
        change(&mut view);
        let effects = bench.chain(Ok(Some(view)));
        assert_eq!(code(&effects), expected);
        assert!(planned(&effects).is_none());
        assert!(bench.state.pods.is_empty() && bench.state.pending.is_empty(), "{expected}: nothing is left behind");
    }
}

#[test]
fn what_the_chain_may_show_in_a_moment_is_looked_at_again_and_then_refused() {
    type Answer = fn() -> Result<Option<OrderView>, String>;
    let without_lease: Answer = || {
        let mut view = view();
        view.leases.remove(0);
        Ok(Some(view))
    };
    let not_active: Answer = || {
        let mut view = view();
        view.leases[0].end_s = 0;
        Ok(Some(view))
    };
    let cases: [(&str, Answer); 4] = [
        ("order_unknown", || Ok(None)),
        ("lease_unknown", without_lease),
        ("lease_not_active", not_active),
        ("chain_unreachable", || Err("connection refused".into())),
    ];
    for (expected, answer) in cases {
        let mut bench = Bench::new();
        bench.start(start_of(1, 1, &signed(&spec())));
        assert!(bench.chain(answer()).is_empty());
        assert!(bench.after_ms(500).event(Event::Tick).contains(&Effect::ReadOrder(key(60))));
        assert_eq!(code(&bench.after_ms(10_000).chain(answer())), expected);

        let mut bench = Bench::new();
        bench.start(start_of(1, 1, &signed(&spec())));
        bench.chain(answer());
        assert_eq!(code(&bench.chain(Ok(Some(view())))), "", "{expected} may pass");
    }
}

#[test]
fn a_lease_of_another_order_is_unknown_to_this_one() {
    let mut bench = Bench::new();
    let mut start = start_of(1, 1, &signed(&spec()));
    start.lease = key(77).0.to_vec();
    bench.start(start);
    bench.chain(Ok(Some(view())));
    assert_eq!(code(&bench.after_ms(11_000).chain(Ok(Some(view())))), "lease_unknown");
}

#[test]
fn a_fence_never_goes_back_not_even_after_a_restart() {
    let mut bench = Bench::prepared();
    let refused = bench.start(start_of(2, 1, &signed(&spec())));
    assert_eq!(code(&refused), "stale_fence");
    let records = bench.state.records();
    let mut restarted = Bench { state: State::new(me(), records, &[own(), other()]), now: NOW };
    assert_eq!(code(&restarted.start(start_of(3, 1, &signed(&spec())))), "stale_fence");
    assert_eq!(restarted.start(start_of(4, 2, &signed(&spec()))), [Effect::ReadOrder(key(60))]);
}

#[test]
fn two_starts_with_one_fence_cannot_both_win() {
    let mut bench = Bench::new();
    bench.start(start_of(1, 1, &signed(&spec())));
    bench.start(start_of(2, 1, &signed(&spec())));
    let effects = bench.chain(Ok(Some(view())));
    let codes: Vec<String> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { body: Body::CommandResult(result), .. } => Some(result.code.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(codes, ["", "stale_fence"]);
}

#[test]
fn a_higher_fence_waits_until_the_pod_before_it_is_gone() {
    let mut bench = Bench::running();
    bench.start(start_of(2, 2, &signed(&spec())));
    let effects = bench.chain(Ok(Some(view())));
    assert!(stops(&effects) && planned(&effects).is_none());
    let effects = bench.news(1, PodNews::Ended { code: None, reason: "killed".into() });
    assert_eq!(planned(&effects).unwrap().pod, pod(2));
    let report = &reports(&effects)[0];
    assert_eq!((report.state.as_str(), report.exit_code), ("exited", -1));
    assert!(report.reason.contains("a later pod holds its devices"));
}

#[test]
fn a_command_that_comes_again_is_answered_again_and_done_once() {
    let mut bench = Bench::new();
    let start = start_of(1, 1, &signed(&spec()));
    bench.start(start.clone());
    assert!(bench.start(start.clone()).is_empty(), "it is being looked at");
    bench.chain(Ok(Some(view())));
    let again = bench.start(start);
    assert_eq!((code(&again).as_str(), again.len()), ("", 1));
    // The same pod by another command: the first answer was lost with a node.
    let mut other = start_of(1, 1, &signed(&spec()));
    other.command = "cmd_other".into();
    let effects = bench.start(other);
    assert_eq!((code(&effects).as_str(), states(&effects)), ("", vec!["requested".to_owned()]));
}

#[test]
fn a_roster_carries_whom_the_chain_lets_vouch() {
    let mut bench = Bench::prepared();
    let mine = bench.state.pods[&pod(1)].report().statement;
    let peer = vec![6; mine.len()];
    assert_eq!(bench.roster(1, true, vec![mine, peer.clone()]), [Effect::ReadOrder(key(60))]);
    let effects = bench.chain(Ok(Some(view())));
    let Some(Effect::Roster { members, authorised, run: Some(run), .. }) =
        effects.iter().find(|effect| matches!(effect, Effect::Roster { .. }))
    else {
        panic!("{effects:?}")
    };
    assert_eq!(members, &[peer], "its own statement is not a peer's");
    let keys: Vec<PublicKey> = authorised.iter().map(|one| one.device_key).collect();
    assert!(keys.contains(&key(99)) && keys.contains(&device().public()) && keys.len() == 2);
    assert_eq!(run.get("ATOLL_HEAD_IP").map(String::as_str), Some("10.77.0.1"));
    assert!(!run.contains_key("RAY_AUTH_MODE"), "the worker's own settings stay");

    let command = "cmd_roster_1".to_owned();
    let effects = bench.news(1, PodNews::RosterTaken { command, refused: vec![], launched: true });
    assert_eq!((code(&effects).as_str(), states(&effects)), ("", vec!["running".to_owned()]));
    assert_eq!(bench.state.presence(&own(), vec![]).running, [pod(1).to_string()]);
}

#[test]
fn a_refused_member_is_named_and_nothing_is_launched() {
    let mut bench = Bench::prepared();
    bench.roster(1, true, vec![]);
    bench.chain(Ok(Some(view())));
    let refused = vec!["the signing device key holds no such lease of this order".to_owned()];
    let command = "cmd_roster_1".to_owned();
    let effects = bench.news(1, PodNews::RosterTaken { command, refused, launched: false });
    assert_eq!(code(&effects), "statement_refused");
    assert!(states(&effects).is_empty());
}

#[test]
fn rosters_need_a_prepared_pod_and_do_not_go_back() {
    let mut bench = Bench::new();
    assert_eq!(code(&bench.roster(1, true, vec![])), "pod_unknown");
    bench.start(start_of(1, 1, &signed(&spec())));
    bench.chain(Ok(Some(view())));
    assert_eq!(code(&bench.roster(2, true, vec![])), "pod_not_prepared");
    let mut bench = Bench::prepared();
    assert_eq!(code(&bench.roster(3, false, vec![vec![1; 3]])), "malformed_command");
    bench.roster(9, false, vec![]);
    bench.chain(Ok(Some(view())));
    assert_eq!(bench.roster(4, false, vec![]).len(), 1, "an older roster is answered and dropped");
    bench.news(1, PodNews::Ended { code: Some(1), reason: "exit status 1".into() });
    assert_eq!(code(&bench.roster(10, false, vec![])), "pod_over");
}

#[test]
fn a_running_pod_is_not_launched_twice() {
    let mut bench = Bench::running();
    bench.roster(2, true, vec![]);
    let effects = bench.chain(Ok(Some(view())));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Roster { run: None, .. })));
}

#[test]
fn stopping_is_answered_at_once_and_reported_when_it_is_done() {
    let mut bench = Bench::running();
    let effects = bench.stop(1, "cmd_stop");
    assert_eq!(code(&effects), "");
    assert!(stops(&effects) && states(&effects).is_empty());
    assert!(!stops(&bench.stop(1, "cmd_stop_again")), "one stop is enough");
    let effects = bench.news(1, PodNews::Ended { code: Some(143), reason: "signal 15".into() });
    let [report] = reports(&effects).try_into().unwrap();
    assert_eq!((report.state.as_str(), report.exit_code), ("exited", -1), "it did not end by itself");
    assert!(report.reason.contains("stopped by the control plane: done"));
    assert_eq!(code(&bench.stop(9, "cmd_stop_unknown")), "", "a pod that is not here is stopped");
}

#[test]
fn a_start_that_waits_for_the_chain_can_be_taken_back() {
    let mut bench = Bench::new();
    bench.start(start_of(1, 1, &signed(&spec())));
    assert_eq!(code(&bench.stop(1, "cmd_stop")), "cancelled");
    assert!(planned(&bench.chain(Ok(Some(view())))).is_none());
}

#[test]
fn a_pod_is_stopped_when_its_lease_is_released_or_over() {
    type Change = fn(&mut OrderView);
    let gone: [Change; 3] = [|v| v.leases[0].slots.clear(), |v| v.now_s = END, |v| v.leases[0].slots[0].1 = key(1)];
    for change in gone {
        let mut bench = Bench::running();
        assert!(!stops(&bench.chain(Ok(Some(view())))));
        let mut view = view();
        change(&mut view);
        assert!(stops(&bench.chain(Ok(Some(view)))));
    }
}

#[test]
fn one_lagging_answer_ends_no_pod_and_no_answer_never_does() {
    let mut bench = Bench::running();
    for _ in 0..10 {
        assert!(!stops(&bench.chain(Err("timeout".into()))));
    }
    assert!(!stops(&bench.chain(Ok(None))) && !stops(&bench.chain(Ok(None))));
    assert!(!stops(&bench.chain(Ok(Some(view())))));
    assert!(!stops(&bench.chain(Ok(None))) && !stops(&bench.chain(Ok(None))));
    assert!(stops(&bench.chain(Ok(None))));
}

#[test]
fn the_guard_asks_every_few_seconds_while_something_runs() {
    let mut bench = Bench::running();
    let asks = |effects: Effects| effects.contains(&Effect::ReadOrder(key(60)));
    assert!(asks(bench.after_ms(3_000).event(Event::Tick)));
    assert!(!asks(bench.after_ms(3_000).event(Event::Tick)), "one question at a time");
    bench.chain(Ok(Some(view())));
    assert!(asks(bench.after_ms(3_000).event(Event::Tick)));
    bench.chain(Ok(Some(view())));
    bench.news(1, PodNews::Ended { code: Some(0), reason: String::new() });
    assert!(!asks(bench.after_ms(3_000).event(Event::Tick)));
}

/// The order with the pod's lease lengthened by a minute.
fn lengthened() -> OrderView {
    let mut view = view();
    view.leases[0].end_s = END + 60;
    view
}

#[test]
fn an_extended_lease_extends_its_pod_until_its_supervisor_has_it() {
    let mut bench = Bench::running();
    let extend = Effect::Extend { pod: pod(1), end_s: END + 60, ends_at: UnixMs(NOW.0 + 660_000) };
    assert!(bench.chain(Ok(Some(lengthened()))).contains(&extend));
    // The supervisor hung: it is told again, and nothing says meanwhile that it knows.
    assert_eq!(bench.state.records().pods[0].end_s, END);
    assert!(bench.chain(Ok(Some(lengthened()))).contains(&extend));
    let effects = bench.news(1, PodNews::Lengthened { end_s: END + 60 });
    let written = |records: &Records| (records.pods[0].end_s, records.fences[0].end_s);
    assert!(
        matches!(&effects[..], [Effect::Persist(records)] if written(records) == (END + 60, END + 60)),
        "{effects:?}"
    );
    assert!(!bench.chain(Ok(Some(lengthened()))).contains(&extend), "it is told once more than needed");
}

#[test]
fn a_worker_killed_before_its_supervisor_knows_of_a_longer_lease_tells_it_at_its_next_start() {
    let mut bench = Bench::running();
    bench.chain(Ok(Some(lengthened())));
    let records = bench.state.records();
    let mut bench = Bench { state: State::new(me(), records, &[own(), other()]), now: NOW };
    bench.event(Event::Found(vec![Found { pod: pod(1), now: FoundState::Running }]));
    let extend = Effect::Extend { pod: pod(1), end_s: END + 60, ends_at: UnixMs(NOW.0 + 660_000) };
    assert!(bench.chain(Ok(Some(lengthened()))).contains(&extend));
}

#[test]
fn a_restarted_worker_takes_up_what_runs_and_ends_the_rest() {
    let records = Bench::running().state.records();
    let found = |now| vec![Found { pod: pod(1), now }, Found { pod: pod(9), now: FoundState::Running }];
    let mut bench = Bench { state: State::new(me(), records.clone(), &[own(), other()]), now: NOW };
    let effects = bench.event(Event::Found(found(FoundState::Running)));
    assert!(effects.contains(&Effect::Forget { pod: pod(9) }) && stops(&effects));
    assert!(effects.contains(&Effect::ReadOrder(key(60))), "the chain is asked at once");
    let presence = bench.state.presence(&own(), vec![]);
    assert_eq!((presence.running.len(), presence.pods[0].state.as_str()), (1, "running"));
    assert!(!presence.pods[0].statement.is_empty());
    assert!(!stops(&bench.chain(Ok(Some(view())))));

    let mut bench = Bench { state: State::new(me(), records, &[own(), other()]), now: NOW };
    bench.event(Event::Found(vec![]));
    let [report] = bench.state.presence(&own(), vec![]).pods.try_into().unwrap();
    assert_eq!((report.state.as_str(), report.exit_code), ("exited", -1));
}

#[test]
fn a_worker_that_restarts_after_its_lease_was_released_ends_the_pod() {
    let records = Bench::running().state.records();
    let mut bench = Bench { state: State::new(me(), records, &[own(), other()]), now: NOW };
    bench.event(Event::Found(vec![Found { pod: pod(1), now: FoundState::Running }]));
    let mut view = view();
    view.leases[0].slots.clear();
    assert!(stops(&bench.chain(Ok(Some(view)))));
}

#[test]
fn ended_pods_are_forgotten_after_a_while() {
    let mut bench = Bench::running();
    bench.news(1, PodNews::Ended { code: Some(0), reason: String::new() });
    assert!(!bench.after_ms(599_000).event(Event::Tick).contains(&Effect::Forget { pod: pod(1) }));
    assert!(bench.after_ms(1_000).event(Event::Tick).contains(&Effect::Forget { pod: pod(1) }));
    assert!(bench.state.presence(&own(), vec![]).pods.is_empty());
}

#[test]
fn usage_is_kept_while_the_link_is_down_and_said_when_it_stands() {
    let mut bench = Bench::running();
    let said = |served_ms| UsageStatement {
        pod: pod(1),
        lease: key(70),
        records: served_ms / 1000,
        served_ms,
        until: NOW,
        cpu_ms: 0,
        head: Digest([0; 32]),
    };
    let is_usage =
        |effects: &Effects| effects.iter().any(|effect| matches!(effect, Effect::Send { body: Body::Usage(_), .. }));
    assert!(!is_usage(&bench.event(Event::Metered(said(1_000).sign(&device())))));
    bench.event(Event::Metered(said(2_000).sign(&device())));
    let up = bench.event(ours(LinkEvent::Up { resumed: false }));
    let [Effect::Send { body: Body::Usage(usage), .. }] = up.as_slice() else { panic!("{up:?}") };
    let signed: SignedUsage = serde_json::from_slice(&usage.signed).unwrap();
    assert_eq!(signed.verify(&device().public()).unwrap().served_ms, 2_000);
    assert!(is_usage(&bench.event(Event::Metered(said(3_000).sign(&device())))));
}

#[test]
fn streams_lead_to_running_pods_only() {
    let ask = |port| {
        Body::OpenStream(OpenStream {
            stream: StreamId::from_random([1; 16]).to_string(),
            pod: pod(1).to_string(),
            target: Some(if port { open_stream::Target::Port(8265) } else { open_stream::Target::OutputFrom(0) }),
        })
    };
    let opens = |effects: Effects| matches!(effects.as_slice(), [Effect::OpenStream { .. }]);
    let refuses = |effects: Effects| matches!(effects.as_slice(), [Effect::RefuseStream { .. }]);
    assert!(refuses(Bench::new().receive(ask(true))));
    assert!(refuses(Bench::prepared().receive(ask(true))));
    let mut bench = Bench::running();
    assert!(opens(bench.receive(ask(true))) && opens(bench.receive(ask(false))));
    bench.news(1, PodNews::Ended { code: Some(0), reason: String::new() });
    assert!(refuses(bench.receive(ask(true))));
    assert!(opens(bench.receive(ask(false))), "output outlives the pod");
}

#[test]
fn a_suspension_is_cleared_once_the_link_has_stood_for_a_while() {
    let slot =
        SlotView { device_key: device().public(), suspended: true, draining: false, ask_uusd: 1, devices: 1, model: 1 };
    let mut bench = Bench::new();
    assert!(bench.event(Event::Slot(slot)).is_empty());
    bench.event(ours(LinkEvent::Up { resumed: false }));
    assert!(bench.after_ms(9_000).event(Event::Slot(slot)).is_empty());
    assert_eq!(bench.after_ms(1_000).event(Event::Slot(slot)), [Effect::ResumeSlot]);
    assert!(bench.after_ms(10_000).event(Event::Slot(slot)).is_empty(), "not again at once");
    assert!(bench.event(Event::Slot(SlotView { suspended: false, ..slot })).is_empty());
}

#[test]
fn what_a_worker_is_never_sent_changes_nothing() {
    let mut bench = Bench::running();
    assert!(bench.receive(Body::CommandResult(CommandResult::default())).is_empty());
    assert!(bench.receive(Body::StopPod(StopPod { command: "a b".into(), ..StopPod::default() })).is_empty());
    assert!(bench.news(77, PodNews::Ended { code: None, reason: String::new() }).is_empty());
}

#[test]
fn pods_are_bounded() {
    let mut bench = Bench::new();
    let signed = signed(&spec());
    let codes: Vec<Option<CommandResult>> =
        (0..=u8::try_from(PODS_MAX).unwrap()).map(|n| result(&bench.start(start_of(n, 1, &signed)))).collect();
    assert!(codes[..PODS_MAX].iter().all(Option::is_none));
    assert_eq!(codes[PODS_MAX].as_ref().unwrap().code, "too_many_pods");
}

#[test]
fn pods_that_have_ended_give_way_the_oldest_first() {
    let mut bench = Bench::new();
    let signed = signed(&spec());
    let most = u8::try_from(PODS_MAX).unwrap();
    for n in 0..most {
        bench.start(start_of(n, u64::from(n) + 1, &signed));
        bench.chain(Ok(Some(view())));
        bench.news(n, PodNews::Ended { code: Some(1), reason: "it fails at once".into() });
        bench.now = bench.now.after(std::time::Duration::from_secs(1));
    }
    bench.start(start_of(most, u64::from(most) + 1, &signed));
    let effects = bench.chain(Ok(Some(view())));
    assert!(result(&effects).unwrap().accepted, "{effects:?}");
    let forgotten: Vec<&Effect> = effects.iter().filter(|effect| matches!(effect, Effect::Forget { .. })).collect();
    assert_eq!(forgotten, [&Effect::Forget { pod: pod(0) }]);
}

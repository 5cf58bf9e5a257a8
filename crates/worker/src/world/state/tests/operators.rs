//! Two operators of one worker.

use super::*;

fn from_other(body: Body) -> Event {
    Event::Link { operator: other(), event: LinkEvent::Received(Box::new(body)) }
}

fn start_body(n: u8, fence: u64) -> StartPod {
    start_of(n, fence, &signed(&spec()))
}

fn said_to(effects: &Effects) -> Vec<OperatorName> {
    let to = |effect: &Effect| match effect {
        Effect::Send { to, .. } => Some(to.clone()),
        _ => None,
    };
    effects.iter().filter_map(to).collect()
}

#[test]
fn an_operator_commands_its_own_pods_only() {
    let mut bench = Bench::running();
    let stop = StopPod { command: "cmd_s".into(), pod: pod(1).to_string(), reason: "mine".into() };
    let roster = Roster { command: "cmd_r".into(), pod: pod(1).to_string(), generation: 9, ..Roster::default() };
    let start = StartPod { command: "cmd_p".into(), ..start_body(1, 2) };
    for body in [Body::StopPod(stop), Body::Roster(roster), Body::StartPod(start)] {
        let effects = bench.event(from_other(body));
        assert_eq!((code(&effects).as_str(), effects.len()), ("other_operator", 1));
        assert_eq!(said_to(&effects), [other()]);
    }
    let stream = OpenStream {
        stream: StreamId::from_random([1; 16]).to_string(),
        pod: pod(1).to_string(),
        target: Some(open_stream::Target::OutputFrom(0)),
    };
    let effects = bench.event(from_other(Body::OpenStream(stream)));
    assert!(matches!(effects.as_slice(), [Effect::RefuseStream { to, .. }] if *to == other()), "{effects:?}");
    assert!(stops(&bench.stop(1, "cmd_stop")));
}

#[test]
fn a_start_that_waits_for_the_chain_is_its_operators_too() {
    let mut bench = Bench::new();
    bench.start(start_body(1, 1));
    let stop = StopPod { command: "cmd_s".into(), pod: pod(1).to_string(), reason: String::new() };
    assert_eq!(code(&bench.event(from_other(Body::StopPod(stop)))), "other_operator");
    // Another operator's command with the same name is another command.
    assert_eq!(code(&bench.event(from_other(Body::StartPod(start_body(1, 1))))), "other_operator");
    let effects = bench.chain(Ok(Some(view())));
    assert_eq!((code(&effects).as_str(), said_to(&effects)), ("", vec![own()]));
}

#[test]
fn reports_and_signed_facts_go_to_all() {
    let mut bench = Bench::running();
    for operator in [own(), other()] {
        bench.event(Event::Link { operator, event: LinkEvent::Up { resumed: false } });
    }
    let said = UsageStatement {
        pod: pod(1),
        lease: key(70),
        records: 1,
        served_ms: 1_000,
        until: NOW,
        cpu_ms: 0,
        head: Digest([0; 32]),
    };
    assert_eq!(said_to(&bench.event(Event::Metered(said.sign(&device())))), [other(), own()]);
    let foreign = |bench: &Bench, to: &OperatorName| bench.state.presence(to, vec![]).pods[0].foreign;
    assert_eq!((foreign(&bench, &own()), foreign(&bench, &other())), (false, true));
    assert_eq!(bench.state.live()[&pod(1)], own());
    let effects = bench.news(1, PodNews::Ended { code: Some(0), reason: String::new() });
    assert_eq!(said_to(&effects), [other(), own()], "another operator settles by what it has heard");
    let foreign = |effect: &Effect| match effect {
        Effect::Send { body: Body::PodReport(report), .. } => Some((report.state.clone(), report.foreign)),
        _ => None,
    };
    let said: Vec<(String, bool)> = effects.iter().filter_map(foreign).collect();
    assert_eq!(said, [("exited".to_owned(), true), ("exited".to_owned(), false)]);
    // One that comes back hears what it missed; what it hears of is not its own.
    let up = bench.event(Event::Link { operator: other(), event: LinkEvent::Up { resumed: false } });
    assert!(matches!(up.as_slice(), [Effect::Send { to, body: Body::Usage(_) }] if *to == other()), "{up:?}");
}

/// An order of another renter's job, and its lease of this worker's device.
fn rival() -> (StartPod, OrderView) {
    let spec = JobSpec { order: key(61), ..spec() };
    let signed = signed(&spec);
    let start = StartPod { order: key(61).0.to_vec(), lease: key(75).0.to_vec(), ..start_of(2, 1, &signed) };
    let lease = LeaseView { lease: key(75), page: key(50), mask: 1, end_s: END, slots: vec![(2, device().public())] };
    (start, OrderView { leases: vec![lease], ..view_of(&signed) })
}

#[test]
fn of_two_that_race_for_a_device_the_chain_says_whose_it_is() {
    let (start, won) = rival();
    let mut bench = Bench::running();
    bench.event(from_other(Body::StartPod(start.clone())));
    let lost = OrderView { leases: vec![], ..won.clone() };
    let read = |bench: &mut Bench, view: &OrderView| {
        bench.event(Event::Order { order: key(61), view: Ok(Some(view.clone())) })
    };
    assert!(read(&mut bench, &lost).is_empty(), "it may show in a moment");
    let effects = read(bench.after_ms(10_001), &lost);
    assert_eq!((code(&effects).as_str(), said_to(&effects)), ("lease_unknown", vec![other()]));
    assert_eq!(bench.state.presence(&own(), vec![]).running.len(), 1, "whoever has the lease goes on");

    // The lease went over: the pod that had the device makes room, and only then the other begins.
    bench.event(from_other(Body::StartPod(StartPod { command: "cmd_again".into(), ..start })));
    let effects = read(&mut bench, &won);
    assert!(stops(&effects) && planned(&effects).is_none() && code(&effects).is_empty());
    let effects = bench.news(1, PodNews::Ended { code: None, reason: "killed".into() });
    assert_eq!(planned(&effects).unwrap().pod, pod(2));
    assert_eq!(said_to(&effects), [other(), own()]);
}

#[test]
fn what_one_operator_asks_for_takes_no_place_of_another() {
    let mut bench = Bench::new();
    for n in 0..=u8::try_from(PODS_MAX).unwrap() {
        bench.event(from_other(Body::StartPod(start_body(n, 1))));
    }
    assert_eq!(bench.state.pending.len(), PODS_MAX);
    let mut start = start_body(200, 1);
    start.lease = key(80).0.to_vec();
    assert!(result(&bench.start(start)).is_none(), "it is looked at");
}

#[test]
fn pods_of_a_time_with_one_operator_are_the_first_ones() {
    let mut records = Bench::running().state.records();
    for pod in &mut records.pods {
        pod.operator = None;
    }
    let text = serde_json::to_string(&Records { version: 1, ..records }).unwrap();
    assert!(!text.contains("operator"), "as it was written then");
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join(store::FILE), text).unwrap();
    let read = Records::load(state.path()).unwrap();
    let restarted = State::new(me(), read, &[own(), other()]);
    assert_eq!(restarted.pods[&pod(1)].record.operator, Some(own()));
    assert_eq!(restarted.records().version, store::VERSION);
}

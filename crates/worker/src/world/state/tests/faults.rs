//! Clocks that are wrong, disks that are full, commands out of order, nobody to ask.

use super::*;

/// A pod that runs on a worker whose clock says this.
fn running_at(now: UnixMs) -> Bench {
    let mut bench = Bench { now, ..Bench::new() };
    bench.start(start_of(1, 1, &signed(&spec())));
    let planned = planned(&bench.chain(Ok(Some(view())))).unwrap();
    assert_eq!(planned.ends_at.since(now).as_secs(), 600, "as far ahead as on the chain's clock");
    bench.news(1, PodNews::Prepared { wg_public: [5; 32], endpoint: endpoint() });
    bench.roster(1, true, vec![]);
    bench.chain(Ok(Some(view())));
    let command = "cmd_roster_1".to_owned();
    bench.news(1, PodNews::RosterTaken { command, refused: vec![], launched: true });
    bench
}

/// Seconds until the pod is stopped, when each tick asks the chain and hears this.
fn stopped_after_s(bench: &mut Bench, answer: &Result<Option<OrderView>, String>) -> u64 {
    let mut after_s = 0;
    loop {
        let effects = bench.after_ms(1_000).event(Event::Tick);
        after_s += 1;
        if stops(&effects) {
            return after_s;
        }
        if effects.contains(&Effect::ReadOrder(key(60))) {
            assert!(!stops(&bench.chain(answer.clone())), "what is not known ends nothing");
        }
        assert!(after_s < 24 * 3600, "it is never stopped");
    }
}

#[test]
fn cut_off_from_everyone_a_pod_is_stopped_at_the_end_of_its_lease_and_grace() {
    let minutes = 600_000;
    for wrong in [NOW.0 - minutes, NOW.0, NOW.0 + minutes] {
        let mut bench = running_at(UnixMs(wrong));
        bench.event(ours(LinkEvent::Down { reason: "cut".into() }));
        assert_eq!(stopped_after_s(&mut bench, &Err("timeout".into())), 630, "a clock of {wrong}");
        // Once.
        assert!(!stops(&bench.after_ms(3_600_000).event(Event::Tick)));
    }
}

#[test]
fn a_chain_that_stands_still_makes_no_lease_longer() {
    let mut bench = running_at(NOW);
    assert_eq!(stopped_after_s(&mut bench, &Ok(Some(view()))), 630);
}

#[test]
fn what_a_worker_wrote_down_by_another_clock_ends_nothing() {
    let records = Bench::running().state.records();
    // The machine's clock was an hour behind when it was written, and is right now.
    let mut bench = Bench { state: State::new(me(), records, &[own(), other()]), now: UnixMs(NOW.0 + 3_600_000) };
    bench.event(Event::Found(vec![Found { pod: pod(1), now: FoundState::Running }]));
    assert!(!stops(&bench.after_ms(1_000).event(Event::Tick)));
    assert!(!stops(&bench.chain(Ok(Some(view())))));
    assert_eq!(stopped_after_s(&mut bench, &Err("timeout".into())), 630, "from what the chain says now");
}

#[test]
fn a_statement_says_the_same_whatever_the_machines_clock_says() {
    let statement = |now| {
        let bench = running_at(now);
        SignedStatement::from_bytes(&bench.state.pods[&pod(1)].report().statement).unwrap().verify().unwrap().to_owned()
    };
    let (behind, ahead) = (statement(UnixMs(NOW.0 - 600_000)), statement(UnixMs(NOW.0 + 600_000)));
    assert_eq!(behind, ahead);
}

#[test]
fn nothing_is_started_while_it_cannot_be_written_down() {
    let full = || Event::Records(Err("no space left on device".into()));
    let mut bench = Bench::new();
    bench.event(full());
    bench.start(start_of(1, 1, &signed(&spec())));
    assert!(bench.chain(Ok(Some(view()))).is_empty(), "there may be room in a moment");
    let refused = bench.after_ms(10_001).chain(Ok(Some(view())));
    assert_eq!((code(&refused).as_str(), refused.len()), ("records_unwritable", 1));
    assert!(bench.state.pods.is_empty() && bench.state.fences.is_empty());

    let mut bench = Bench::new();
    bench.event(full());
    bench.start(start_of(1, 1, &signed(&spec())));
    bench.chain(Ok(Some(view())));
    bench.event(Event::Records(Ok(())));
    assert_eq!(code(&bench.chain(Ok(Some(view())))), "");
    // What runs is not touched by a full disk, and can be stopped.
    let mut bench = Bench::running();
    bench.event(full());
    assert!(!stops(&bench.chain(Ok(Some(view())))));
    assert!(stops(&bench.stop(1, "cmd_stop")));
}

#[test]
fn a_start_behind_its_stop_starts_nothing() {
    let mut bench = Bench::new();
    assert_eq!(code(&bench.stop(1, "cmd_stop")), "");
    assert_eq!(code(&bench.start(start_of(1, 1, &signed(&spec())))), "cancelled");
    assert!(bench.state.pending.is_empty());
    // The other pods of the lease are free to come.
    assert!(result(&bench.start(start_of(2, 2, &signed(&spec())))).is_none());
}

/// Numbers from a seed.
struct Drawn(u64, u64);

impl Drawn {
    fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        let digest = Digest::of_parts(&[&self.0.to_le_bytes(), &self.1.to_le_bytes()]).0;
        usize::from(u16::from_le_bytes([digest[0], digest[1]])) % bound
    }
}

/// Everything that a control plane says of two pods of one lease, the second of which replaces the first.
fn commands() -> Vec<Body> {
    let roster = |n: u8, generation| {
        let command = format!("cmd_roster_{n}_{generation}");
        let pod = pod(n).to_string();
        Body::Roster(Roster { command, pod, generation, launch: true, ..Roster::default() })
    };
    let stop = |n: u8| {
        Body::StopPod(StopPod { command: format!("cmd_stop_{n}"), pod: pod(n).to_string(), reason: String::new() })
    };
    let start = |n: u8, fence| Body::StartPod(start_of(n, fence, &signed(&spec())));
    vec![start(1, 1), roster(1, 1), roster(1, 2), stop(1), start(2, 2), roster(2, 1), roster(2, 2), stop(2)]
}

/// What a machine and a chain make of effects: the events that come of them.
fn consequences(effects: &Effects) -> Vec<Event> {
    let mut out = vec![];
    for effect in effects {
        out.extend(match effect {
            Effect::ReadOrder(order) => Some(Event::Order { order: *order, view: Ok(Some(view())) }),
            Effect::Prepare(spec) => {
                let news = PodNews::Prepared { wg_public: [5; 32], endpoint: endpoint() };
                Some(Event::Pod { pod: spec.pod, news })
            }
            Effect::Roster { pod, command, run, .. } => {
                let news = PodNews::RosterTaken { command: command.clone(), refused: vec![], launched: run.is_some() };
                Some(Event::Pod { pod: *pod, news })
            }
            Effect::Stop { pod, .. } => {
                Some(Event::Pod { pod: *pod, news: PodNews::Ended { code: None, reason: "killed".into() } })
            }
            _ => None,
        });
    }
    out
}

/// What was seen over a run.
#[derive(Default)]
struct Seen {
    made: Vec<PodId>,
    launched: Vec<PodId>,
    ended: Vec<String>,
    answers: BTreeMap<String, CommandResult>,
}

impl Seen {
    fn note(&mut self, seed: u64, effects: &Effects) {
        for effect in effects {
            match effect {
                Effect::Prepare(spec) => self.made.push(spec.pod),
                Effect::Roster { pod, run: Some(_), .. } => self.launched.push(*pod),
                Effect::Send { body: Body::PodReport(report), .. } if report.state == "exited" => {
                    self.ended.push(report.pod.clone());
                }
                Effect::Send { body: Body::CommandResult(result), .. } => {
                    let before = self.answers.insert(result.command.clone(), result.clone());
                    assert!(before.is_none_or(|before| before == *result), "seed {seed}: two answers to one command");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn commands_twice_and_in_any_order_do_everything_at_most_once() {
    let (mut both_made, mut launched) = (0, 0);
    for seed in 0..400 {
        let mut drawn = Drawn(seed, 0);
        let mut deliveries: Vec<Body> = commands().into_iter().chain(commands()).collect();
        // Some nearly in order, some not at all.
        let reach = 1 + drawn.below(deliveries.len());
        for at in 0..deliveries.len() {
            let with = (at + drawn.below(reach)).min(deliveries.len() - 1);
            deliveries.swap(at, with);
        }
        let (mut bench, mut seen) = (Bench::new(), Seen::default());
        let mut waiting: Vec<Event> = vec![];
        let mut deliveries = deliveries.into_iter().peekable();
        while deliveries.peek().is_some() || !waiting.is_empty() {
            let event = match deliveries.next_if(|_| waiting.is_empty() || drawn.below(3) == 0) {
                Some(body) => ours(LinkEvent::Received(Box::new(body))),
                None => waiting.remove(drawn.below(waiting.len())),
            };
            let effects = bench.after_ms(100).event(event);
            seen.note(seed, &effects);
            waiting.extend(consequences(&effects));
        }
        let distinct: BTreeSet<PodId> = seen.made.iter().copied().collect();
        assert_eq!(distinct.len(), seen.made.len(), "seed {seed}: a pod was made twice");
        let position = |n| seen.made.iter().position(|made| *made == pod(n));
        assert!(!(position(1) > position(2) && position(2).is_some()), "seed {seed}: the lower fence came later");
        let distinct: BTreeSet<PodId> = seen.launched.iter().copied().collect();
        assert_eq!(distinct.len(), seen.launched.len(), "seed {seed}: a program was started twice");
        for n in [1, 2] {
            let told = seen.ended.contains(&pod(n).to_string());
            assert!(told || position(n).is_none(), "seed {seed}: made and stopped, so its end is told");
        }
        assert!(bench.state.pods.values().all(|pod| !pod.is_live()), "seed {seed}: all were told to stop");
        both_made += usize::from(seen.made.len() == 2);
        launched += seen.launched.len();
    }
    assert!(both_made > 20 && launched > 50, "{both_made} {launched}: the orders tried are worth trying");
}

//! Live progress of a job, until it ends.
//!
//! What is shown is computed by pure functions from the job and its events; two screens draw it: lines that are redrawn
//! on a terminal, plain lines elsewhere. Events come by long polling from a number on, so nothing is lost or shown twice
//! when the server restarts or the network is away; a silence is said and waited out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use atoll_api::client::ClientError;
use atoll_api::http::{JobEvent, JobView, PodView};
use atoll_domain::id::JobId;
use atoll_domain::job::JobState;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::exit::{Exit, Failure};
use crate::output::{Output, length, plain};
use crate::session::{Session, now, random};

/// How long one question waits for news, in seconds. Shorter than the client's read timeout.
const WAIT_S: u32 = 20;
/// How long a silent server is waited for: ten minutes, a long restart.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// How often plain lines repeat the newest figures.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The longest pause between two tries; each is drawn at random below it.
const PAUSE_MAX_MS: u64 = 3000;

/// The newest of what the job reported of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Training {
    step: Option<String>,
    loss: Option<String>,
    accuracy: Option<String>,
}

impl Training {
    /// Takes over what an event says.
    pub fn take(&mut self, event: &JobEvent) {
        for (name, place) in [("step", &mut self.step), ("loss", &mut self.loss), ("accuracy", &mut self.accuracy)] {
            if let Some(value) = event.fields.get(name).filter(|_| event.kind != "state") {
                *place = Some(plain(&value.chars().take(12).collect::<String>()));
            }
        }
    }
}

/// The line above all: state, training, what it waits for.
#[must_use]
pub fn headline(job: &JobView, training: &Training) -> String {
    let mut parts = vec![job.state.word().to_owned()];
    if job.attempt > 1 {
        parts.push(format!("attempt {}", job.attempt));
    }
    for (name, value) in [("step", &training.step), ("loss", &training.loss), ("accuracy", &training.accuracy)] {
        if let Some(value) = value {
            parts.push(format!("{name} {value}"));
        }
    }
    let reason = plain(&job.reason);
    if reason.is_empty() { parts.join("  ") } else { format!("{}  ({reason})", parts.join("  ")) }
}

/// One pod's line.
#[must_use]
pub fn pod_line(pod: &PodView) -> String {
    let reason = if pod.reason.is_empty() { String::new() } else { format!("  {}", plain(&pod.reason)) };
    format!(
        "{:<4}  {:<9}  {}  {}  served {}{reason}",
        pod.role.word(),
        pod.state.word(),
        pod.overlay_ip,
        pod.worker,
        length(pod.served_s)
    )
}

/// An event as a line, with the time since the job was accepted; none for steps and checkpoints, which come by the
/// hundred and whose newest figures the headline shows.
#[must_use]
pub fn event_line(job: &JobView, event: &JobEvent) -> Option<String> {
    let since = event.at.since(job.created).as_secs();
    let at = format!("{:>3}:{:02}", since / 60, since % 60);
    let message = plain(&event.message);
    match event.kind.as_str() {
        "step" | "checkpoint" => None,
        kind if message.is_empty() => Some(format!("{at}  {}", plain(kind))),
        kind => Some(format!("{at}  {:<10}  {message}", plain(kind))),
    }
}

/// Where the progress is drawn.
enum Screen {
    Live { all: MultiProgress, head: ProgressBar, pods: BTreeMap<String, ProgressBar>, since: Instant },
    Lines { out: Output, last: Option<(JobState, String, Instant)> },
}

impl Screen {
    fn new(out: Output) -> Self {
        if !out.live {
            return Self::Lines { out, last: None };
        }
        let all = MultiProgress::new();
        let head = all.add(ProgressBar::new_spinner());
        head.set_style(spinner("{spinner} {elapsed}  {wide_msg}"));
        head.enable_steady_tick(Duration::from_millis(120));
        Self::Live { all, head, pods: BTreeMap::new(), since: Instant::now() }
    }

    fn line(&self, line: &str) {
        match self {
            // Drawing is best effort: a closed terminal must not end the job's watch.
            Self::Live { all, .. } => drop(all.println(line)),
            Self::Lines { out, .. } => out.say(line),
        }
    }

    fn draw(&mut self, job: &JobView, training: &Training) {
        match self {
            Self::Live { all, head, pods, since } => {
                if pods.is_empty() {
                    let age = now().since(job.created);
                    *since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
                    head.set_elapsed(age);
                }
                head.set_message(headline(job, training));
                for pod in &job.pods {
                    let bar = pods.entry(pod.pod.to_string()).or_insert_with(|| {
                        let bar = all.add(ProgressBar::new_spinner());
                        bar.set_style(spinner("    {wide_msg}"));
                        bar
                    });
                    bar.set_message(pod_line(pod));
                }
            }
            Self::Lines { out, last } => {
                let line = headline(job, training);
                let due = last.as_ref().is_none_or(|(state, shown, at)| {
                    *state != job.state || (*shown != line && at.elapsed() >= LINE_EVERY)
                });
                if due {
                    out.say(&line);
                    *last = Some((job.state, line, Instant::now()));
                }
            }
        }
    }

    fn close(self) {
        if let Self::Live { all, head, pods, .. } = self {
            head.finish_and_clear();
            for bar in pods.values() {
                bar.finish_and_clear();
            }
            // Nothing left to draw; a closed terminal is no failure.
            let _ = all.clear();
        }
    }
}

fn spinner(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants that parse").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

/// Follows a job to its end; ctrl-c leaves it running.
///
/// # Errors
/// [`Failure`] when the server refuses, stays away too long, or on ctrl-c.
pub async fn follow(session: &Session, job: JobId) -> Result<JobView, Failure> {
    let mut screen = Screen::new(session.out);
    let ended = tokio::select! {
        ended = poll(session, job, &mut screen) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(
            Exit::Interrupted,
            "interrupted",
            format!("job {job} goes on; `atoll job watch {job}` shows it again, `atoll job stop {job}` stops it"),
        )),
    };
    screen.close();
    ended
}

async fn poll(session: &Session, job: JobId, screen: &mut Screen) -> Result<JobView, Failure> {
    let (mut after, mut training, mut silent) = (0, Training::default(), None::<Instant>);
    let mut view: Option<JobView> = None;
    loop {
        // The first question must not wait: there is nothing on the screen yet.
        let wait_s = if view.is_some() { WAIT_S } else { 0 };
        match step(session, job, after, wait_s).await {
            Ok((events, now)) => {
                if silent.take().is_some() {
                    screen.line("the server answers again");
                }
                for event in &events {
                    after = after.max(event.seq);
                    training.take(event);
                    if let Some(line) = event_line(&now, event) {
                        screen.line(&line);
                    }
                }
                screen.draw(&now, &training);
                if now.state.is_final() && events.is_empty() {
                    return Ok(now);
                }
                view = Some(now);
            }
            Err(error @ ClientError::Unreachable { .. }) => wait_out(screen, &mut silent, error).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Events first, then the job: a final state read after the last events is final for them too.
async fn step(session: &Session, job: JobId, after: u64, wait_s: u32) -> Result<(Vec<JobEvent>, JobView), ClientError> {
    let events = session.client.events(job, after, wait_s).await?;
    let view = session.client.job(job).await?;
    Ok((events.events, view))
}

async fn wait_out(screen: &Screen, silent: &mut Option<Instant>, error: ClientError) -> Result<(), Failure> {
    let since = *silent.get_or_insert_with(|| {
        screen.line(&format!("{error}; waiting for it, the job goes on without it"));
        Instant::now()
    });
    if since.elapsed() > SILENCE_MAX {
        return Err(error.into());
    }
    let pause = u64::from_le_bytes(random()?) % PAUSE_MAX_MS;
    tokio::time::sleep(Duration::from_millis(pause)).await;
    Ok(())
}

/// Prints how a job ended.
///
/// # Errors
/// [`Failure`] when stdout is closed.
pub fn show_end(out: Output, job: &JobView) -> Result<(), Failure> {
    out.result(job, || {
        let took =
            job.ended.map_or_else(String::new, |end| format!(" after {}", length(end.since(job.created).as_secs())));
        let accuracy = job
            .accuracy_ppm
            .map_or_else(String::new, |ppm| format!(", accuracy {}.{:04}", ppm / 1_000_000, ppm % 1_000_000 / 100));
        let reason = if job.reason.is_empty() { String::new() } else { format!(": {}", plain(&job.reason)) };
        format!("{} {}{took}{accuracy}{reason}\nreceipt: atoll receipt show {}", job.job, job.state.word(), job.job)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_domain::cluster::{PodRole, PodState};
    use atoll_domain::id::{ClusterId, PodId, WorkerId};
    use atoll_domain::key::PublicKey;
    use atoll_domain::money::Atl;
    use atoll_domain::time::UnixMs;
    use expect_test::expect;

    fn job() -> JobView {
        JobView {
            job: JobId::from_random([1; 16]),
            name: "digits".into(),
            state: JobState::Recovering,
            outcome: None,
            reason: "waits for a replacement of wrk_x".into(),
            order: PublicKey([1; 32]),
            cluster: ClusterId::from_random([2; 16]),
            devices: 3,
            attempt: 2,
            step: Some(10),
            accuracy_ppm: None,
            resumed_from_step: None,
            created: UnixMs(1_000),
            ended: None,
            escrow: Atl(1),
            pods: vec![PodView {
                pod: PodId::from_random([3; 16]),
                worker: WorkerId::from_random([4; 16]),
                lease: PublicKey([5; 32]),
                role: PodRole::Node,
                state: PodState::Lost,
                overlay_ip: "10.77.0.2".into(),
                served_s: 75,
                reason: "its worker was lost".into(),
            }],
            refusals: vec![],
        }
    }

    fn event(kind: &str, message: &str, fields: &[(&str, &str)]) -> JobEvent {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        JobEvent { seq: 1, at: UnixMs(62_000), kind: kind.into(), message: message.into(), fields }
    }

    #[test]
    fn the_screen_says_what_happens_and_what_it_waits_for() {
        let mut training = Training::default();
        for event in [
            event("step", "", &[("step", "40"), ("loss", "0.31")]),
            event("step", "", &[("step", "50"), ("accuracy", "0.91\u{1b}[2J")]),
        ] {
            training.take(&event);
        }
        let job = job();
        let lines = [
            Some(headline(&job, &training)),
            Some(pod_line(&job.pods[0])),
            event_line(&job, &event("step", "x", &[])),
            event_line(&job, &event("pod", "pod lost\u{1b}[2J", &[])),
            event_line(&job, &event("started", "", &[])),
        ];
        let shown: Vec<String> = lines.into_iter().flatten().collect();
        expect![[r#"
            recovering  attempt 2  step 50  loss 0.31  accuracy 0.91�[2J  (waits for a replacement of wrk_x)
            node  lost       10.77.0.2  wrk_040g2081040g2081040g208104  served 1 min 15 s  its worker was lost
              1:01  pod         pod lost�[2J
              1:01  started"#]]
        .assert_eq(&shown.join("\n"));
    }
}

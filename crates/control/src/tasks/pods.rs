//! Brings a cluster's pods up: one pod per leased slot, all prepared, all told of each other, then launched together.
//!
//! A pod is added when its lease stands on the chain and no pod of the job's current fence serves the slot. Once every
//! pod is prepared, each is sent the roster of signed overlay keys; a changed membership raises the roster's number and
//! is sent again. Which slots are leased is `placement`'s and the chain's; whether a pod is lost is `loss`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::link::{self, Envelope, envelope};
use atoll_domain::cluster::{OverlayIndex, PodRole, PodState};
use atoll_domain::id::{CommandId, PodId};
use atoll_domain::job::{JobOutcome, JobSpec, JobState};
use atoll_domain::key::Digest;
use atoll_domain::meter::Observation;

use super::{Reconciler, for_each_job};
use crate::app::chain::{self, LiveSlot};
use crate::app::{job, kept, pod_token};
use crate::control::Control;
use crate::store::rows::{Command, Job, Pod, PodChange};

pub(super) struct Pods {
    control: Arc<Control>,
}

impl Pods {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        if found.now.stop_wanted {
            return Ok(());
        }
        let spec = job::spec_of(&found)?;
        let pods = self.control.store.pods_of(found.id).await?;
        self.refused(&found, &pods).await?;
        let served: u32 = job::current(&found, &pods).iter().map(|pod| pod.mask.count_ones()).sum();
        if served < spec.devices {
            return self.add_missing(&found, &spec, &pods).await;
        }
        self.tell_roster(&found, &spec, &pods).await
    }

    /// Adds a pod for every leased slot without one.
    async fn add_missing(&self, job: &Job, spec: &JobSpec, pods: &[Pod]) -> anyhow::Result<()> {
        let Some(slots) = chain::active_slots(&self.control, job).await? else { return Ok(()) };
        let missing = missing(job, &slots, pods);
        if missing.is_empty() {
            return Ok(());
        }
        let mut now = job.now.clone();
        let mut added = Vec::new();
        for slot in missing {
            let Some(index) = OverlayIndex::new(now.next_index) else {
                job::end(&self.control, job, JobOutcome::Failed, "the cluster has used up its overlay addresses")
                    .await?;
                return Ok(());
            };
            now.next_index += 1;
            let pod = self.new_pod(job, &slot, index, if now.head.is_none() { PodRole::Head } else { PodRole::Node });
            if now.head.is_none() {
                now.head = Some(pod.id);
            }
            added.push(pod);
        }
        now.roster += 1;
        let head_index = added.iter().chain(pods).find(|pod| Some(pod.id) == now.head).map(|pod| pod.index);
        let Some(head_index) = head_index else { anyhow::bail!("the head pod is not among the job's pods") };
        let total = job::current(job, pods).len() + added.len();
        let mut commands = Vec::new();
        let mut events = Vec::new();
        for pod in &added {
            commands.push(self.start_command(job, spec, pod, head_index, total)?);
            let fields =
                [("pod", pod.id.to_string()), ("worker", pod.worker.to_string()), ("lease", pod.lease.to_string())];
            let message = format!("{} prepares pod {} ({})", pod.worker, pod.index.address(), pod.role.word());
            events.push(job::event(self.control.now(), "pod", message, &fields));
        }
        let changed = self.control.store.pods_add(job.id, job.generation, &now, &added, &commands, &events).await?;
        kept::put_mark(&self.control, &changed.order, &changed.now).await?;
        for pod in &added {
            self.control.links.deliver(pod.worker);
        }
        self.control.wake.signal();
        Ok(())
    }

    fn new_pod(&self, job: &Job, slot: &LiveSlot, index: OverlayIndex, role: PodRole) -> Pod {
        Pod {
            id: PodId::from_random(self.control.random()),
            job: job.id,
            worker: slot.worker,
            device_key: slot.device_key,
            lease: slot.lease,
            at: slot.at,
            mask: slot.mask,
            index,
            role,
            fence: job.now.fence,
            created: self.control.now(),
            state: PodState::Requested,
            reason: String::new(),
            statement: None,
            exit_code: None,
            usage: None,
            observation: Observation::default(),
        }
    }

    fn start_command(
        &self,
        job: &Job,
        spec: &JobSpec,
        pod: &Pod,
        head: OverlayIndex,
        world: usize,
    ) -> anyhow::Result<Command> {
        let id = command_id("start", pod.id, 0);
        let token = pod_token::issue(&self.control.keys.pod_secret, pod.id);
        let start = link::StartPod {
            command: id.to_string(),
            pod: pod.id.to_string(),
            cluster: job.cluster.to_string(),
            job: job.id.to_string(),
            order: job.order.0.to_vec(),
            lease: pod.lease.0.to_vec(),
            device_mask: u32::from(pod.mask),
            fence: pod.fence,
            spec: job.spec.clone(),
            spec_signature: job.spec_signature.0.to_vec(),
            overlay_index: u32::from(pod.index.get()),
            role: pod.role.word().to_owned(),
            env: pod_env(job, spec, pod, head, world, token),
        };
        Ok(command(id, pod, self.control.now(), envelope::Body::StartPod(start)))
    }

    /// Sends the current membership to every pod that was not told of it, once all of them are prepared.
    async fn tell_roster(&self, job: &Job, spec: &JobSpec, pods: &[Pod]) -> anyhow::Result<()> {
        let current = job::current(job, pods);
        if !job::all_at_least(spec, &current, PodState::Prepared) {
            return Ok(());
        }
        let statements: Vec<Vec<u8>> = current.iter().filter_map(|pod| pod.statement.clone()).collect();
        if statements.len() != current.len() {
            return Ok(());
        }
        let mut commands = Vec::new();
        for pod in &current {
            let id = command_id("roster", pod.id, job.now.roster);
            let roster = link::Roster {
                command: id.to_string(),
                pod: pod.id.to_string(),
                generation: job.now.roster,
                statements: statements.clone(),
                launch: true,
                env: BTreeMap::new(),
            };
            commands.push(command(id, pod, self.control.now(), envelope::Body::Roster(roster)));
        }
        self.control.store.commands_add(&commands).await?;
        for pod in current {
            self.control.links.deliver(pod.worker);
        }
        Ok(())
    }

    /// A pod whose worker refused to start it, or to let its peers in, is over.
    async fn refused(&self, job: &Job, pods: &[Pod]) -> anyhow::Result<()> {
        for pod in job::current(job, pods).into_iter().filter(|pod| pod.state != PodState::Running) {
            for id in [command_id("start", pod.id, 0), command_id("roster", pod.id, job.now.roster)] {
                let Some((_, Some(answer))) = self.control.store.command(id).await? else { continue };
                if !answer.accepted {
                    self.over(pod, format!("refused it: {} ({})", answer.message, answer.code)).await?;
                }
            }
        }
        Ok(())
    }

    async fn over(&self, pod: &Pod, reason: String) -> anyhow::Result<()> {
        let fields = [("worker", pod.worker.to_string()), ("pod", pod.id.to_string())];
        let told = job::event(self.control.now(), "pod", format!("{} {reason}", pod.worker), &fields);
        let change = PodChange { state: Some(PodState::Exited), reason: Some(reason), ..PodChange::default() };
        self.control.store.pod_change(pod.id, &change, &[told]).await?;
        self.control.wake.signal();
        Ok(())
    }
}

/// Leased slots that no pod of the current fence serves or has failed on.
fn missing(job: &Job, slots: &[LiveSlot], pods: &[Pod]) -> Vec<LiveSlot> {
    let serves = |slot: &LiveSlot, pod: &Pod| {
        pod.lease == slot.lease && pod.at == slot.at && (pod.fence == job.now.fence || job.now.gone.contains(&pod.id))
    };
    slots.iter().filter(|slot| !pods.iter().any(|pod| serves(slot, pod))).cloned().collect()
}

/// The environment that the control plane adds to the specification's; its contract is in `docs/environments.md`.
fn pod_env(
    job: &Job,
    spec: &JobSpec,
    pod: &Pod,
    head: OverlayIndex,
    world: usize,
    token: String,
) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            ("ATOLL_TOKEN", token),
            ("ATOLL_JOB", job.id.to_string()),
            ("ATOLL_BUNDLE_SHA256", spec.bundle.sha256.to_string()),
            ("ATOLL_ROLE", pod.role.word().to_owned()),
            ("ATOLL_HEAD_IP", head.address().to_string()),
            ("ATOLL_WORLD", world.to_string()),
            ("RAY_AUTH_MODE", "token".to_owned()),
            ("RAY_AUTH_TOKEN", job.now.runtime_token.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// The id of the one command of a kind and number that a pod ever gets: written again, it is the same command.
fn command_id(kind: &str, pod: PodId, number: u64) -> CommandId {
    let digest = Digest::of(format!("{kind}/{pod}/{number}").as_bytes()).0;
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    CommandId::from_random(bytes)
}

fn command(id: CommandId, pod: &Pod, created: atoll_domain::time::UnixMs, body: envelope::Body) -> Command {
    let body = link::encode(&Envelope { body: Some(body), ..Envelope::default() });
    Command { id, worker: pod.worker, pod: pod.id, body, created }
}

/// Tells every worker of `pods` to stop its pod. Written once per pod.
pub(super) async fn stop(control: &Control, pods: &[&Pod], reason: &str) -> anyhow::Result<()> {
    let mut commands = Vec::new();
    for pod in pods {
        let id = command_id("stop", pod.id, 0);
        let stop = link::StopPod { command: id.to_string(), pod: pod.id.to_string(), reason: reason.to_owned() };
        commands.push(command(id, pod, control.now(), envelope::Body::StopPod(stop)));
    }
    control.store.commands_add(&commands).await?;
    for pod in pods {
        control.links.deliver(pod.worker);
    }
    Ok(())
}

impl Reconciler for Pods {
    const NAME: &'static str = "pods";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn run(&mut self) -> anyhow::Result<()> {
        let wanted = |job: &Job| matches!(job.now.state, JobState::Starting | JobState::Recovering);
        for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job)).await
    }
}

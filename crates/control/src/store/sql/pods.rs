//! Pods, and the commands that start and stop them.

use atoll_domain::cluster::{OverlayIndex, PodState};
use atoll_domain::id::{CommandId, JobId, PodId, WorkerId};
use atoll_domain::key::PublicKey;
use atoll_domain::meter::{Observation, SignedUsage};
use atoll_domain::worker::SlotRef;

use super::super::rows::{Command, CommandAnswer, Event, Job, JobChange, Pod, PodChange};
use super::super::{Result, StoreError};
use super::tx::Tx;
use super::value::{Reader, Row, Value};
use super::{adopt, jobs, meters};

const COLUMNS: &str = "id, job, worker, device_key, lease, page, slot, mask, overlay_index, role, fence, created, \
     state, reason, statement, exit_code";
const READ: &str = "select p.id, p.job, p.worker, p.device_key, p.lease, p.page, p.slot, p.mask, p.overlay_index, \
     p.role, p.fence, p.created, p.state, p.reason, p.statement, p.exit_code, m.usage_signed, m.observed_ms, m.last_seen \
     from pods p join meters m on m.pod = p.id";

fn pod(row: Row) -> Result<Pod> {
    let mut row = row.read("pod");
    Ok(Pod {
        id: row.parsed()?,
        job: row.parsed()?,
        worker: row.parsed()?,
        device_key: PublicKey(row.array()?),
        lease: PublicKey(row.array()?),
        at: SlotRef { page: PublicKey(row.array()?), slot: row.int()? },
        mask: row.int()?,
        index: overlay_index(&mut row)?,
        role: row.word()?,
        fence: row.int()?,
        created: row.time()?,
        state: row.word()?,
        reason: row.text()?,
        statement: row.opt_bytes()?,
        exit_code: row.opt_int()?,
        usage: row.opt_json()?,
        observation: Observation { observed_ms: row.int()?, last_seen: row.opt_time()? },
    })
}

fn overlay_index(row: &mut Reader) -> Result<OverlayIndex> {
    let index = row.int()?;
    OverlayIndex::new(index).ok_or_else(|| row.corrupt(format!("{index} is no overlay index")))
}

pub(super) async fn one(tx: &mut Tx<'_>, id: PodId) -> Result<Option<Pod>> {
    tx.query_first(&format!("{READ} where p.id = $1"), &[Value::shown(id)]).await?.map(pod).transpose()
}

pub(super) async fn of_job(tx: &mut Tx<'_>, job: JobId) -> Result<Vec<Pod>> {
    let sql = format!("{READ} where p.job = $1 order by p.created, p.overlay_index");
    tx.query(&sql, &[Value::shown(job)]).await?.into_iter().map(pod).collect()
}

pub(super) async fn on_worker(tx: &mut Tx<'_>, worker: WorkerId) -> Result<Vec<Pod>> {
    let sql = format!(
        "{READ} where p.worker = $1 and p.state not in ('exited', 'lost') order by p.created, p.job, p.overlay_index"
    );
    tx.query(&sql, &[Value::shown(worker)]).await?.into_iter().map(pod).collect()
}

/// A job's change with what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Addition {
    pub(super) job: JobId,
    pub(super) generation: u64,
    pub(super) change: JobChange,
    pub(super) pods: Vec<Pod>,
    pub(super) commands: Vec<Command>,
    pub(super) events: Vec<Event>,
}

pub(super) async fn add(tx: &mut Tx<'_>, new: &Addition) -> Result<Job> {
    let job = jobs::change(tx, new.job, new.generation, &new.change, &new.events).await?;
    for pod in &new.pods {
        if pod.job != new.job {
            return Err(StoreError::Corrupt { what: "pod", reason: format!("it belongs to {}", pod.job) });
        }
        insert(tx, pod).await?;
    }
    commands_add(tx, &new.commands).await?;
    Ok(job)
}

/// Adds a pod. One with the same id or the same place in the overlay is a conflict: neither is ever given twice.
async fn insert(tx: &mut Tx<'_>, pod: &Pod) -> Result<()> {
    let sql = format!(
        "insert into pods ({COLUMNS}) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) on conflict do nothing"
    );
    let values = [
        Value::shown(pod.id),
        Value::shown(pod.job),
        Value::shown(pod.worker),
        Value::bytes(&pod.device_key.0),
        Value::bytes(&pod.lease.0),
        Value::bytes(&pod.at.page.0),
        Value::small(pod.at.slot),
        Value::small(pod.mask),
        Value::small(pod.index.get()),
        Value::shown(pod.role.word()),
        Value::int("the fence", pod.fence)?,
        Value::time(pod.created),
        Value::shown(pod.state),
        Value::words(&pod.reason),
        Value::or_null(pod.statement.as_deref().map(Value::bytes)),
        Value::or_null(pod.exit_code.map(Value::small)),
    ];
    if tx.execute(&sql, &values).await? == 0 {
        return Err(StoreError::Conflict { what: "pod" });
    }
    meter_insert(tx, pod).await
}

async fn meter_insert(tx: &mut Tx<'_>, pod: &Pod) -> Result<()> {
    tx.execute(
        "insert into meters (pod, observed_ms, last_seen) values ($1, $2, $3)",
        &[
            Value::shown(pod.id),
            Value::int("the observed time", pod.observation.observed_ms)?,
            Value::or_null(pod.observation.last_seen.map(Value::time)),
        ],
    )
    .await?;
    match &pod.usage {
        Some(usage) => usage_put(tx, pod.id, usage).await,
        None => Ok(()),
    }
}

/// Where a state stands on its way: a pod never goes back.
const fn stage(state: PodState) -> u8 {
    match state {
        PodState::Requested => 0,
        PodState::Prepared => 1,
        PodState::Running => 2,
        PodState::Exited | PodState::Lost => 3,
    }
}

pub(super) async fn change(tx: &mut Tx<'_>, id: PodId, change: &PodChange, events: &[Event]) -> Result<bool> {
    // Without a new state, every state that is not over may stay.
    let reached = change.state.map_or(2, stage);
    let row = tx
        .query_first(
            "update pods set state = coalesce($2, state), reason = coalesce($3, reason), \
             statement = coalesce($4, statement), exit_code = coalesce($5, exit_code) \
             where id = $1 and state not in ('exited', 'lost') and cast($6 as bigint) >= \
             case state when 'requested' then 0 when 'prepared' then 1 when 'running' then 2 else 3 end \
             returning job",
            &[
                Value::shown(id),
                Value::or_null(change.state.map(Value::shown)),
                Value::or_null(change.reason.as_deref().map(Value::words)),
                Value::or_null(change.statement.as_deref().map(Value::bytes)),
                Value::or_null(change.exit_code.map(Value::small)),
                Value::small(reached),
            ],
        )
        .await?;
    let Some(row) = row else {
        require(tx, id).await?;
        return Ok(false);
    };
    jobs::events_append(tx, row.read("pod").parsed()?, events).await?;
    Ok(true)
}

async fn require(tx: &mut Tx<'_>, id: PodId) -> Result<()> {
    let found = tx.query_first("select id from pods where id = $1", &[Value::shown(id)]).await?;
    found.map(drop).ok_or(StoreError::NotFound { what: "pod" })
}

/// Keeps the later of two statements of a pod's meter, or a stray's.
pub(super) async fn usage_put(tx: &mut Tx<'_>, pod: PodId, usage: &SignedUsage) -> Result<()> {
    if usage.statement.pod != pod {
        return Err(StoreError::Corrupt { what: "usage", reason: format!("it is {}'s", usage.statement.pod) });
    }
    if meters::usage_put(tx, meters::PODS, usage).await? || meters::usage_put(tx, meters::STRAYS, usage).await? {
        return Ok(());
    }
    // An earlier statement than the one that is kept, or a pod that is not.
    let known = adopt::stray_one(tx, pod).await?.is_some();
    if known { Ok(()) } else { require(tx, pod).await }
}

pub(super) async fn commands_add(tx: &mut Tx<'_>, commands: &[Command]) -> Result<()> {
    for command in commands {
        tx.execute(
            "insert into commands (id, worker, pod, body, created) values ($1, $2, $3, $4, $5) \
             on conflict (id) do nothing",
            &[
                Value::shown(command.id),
                Value::shown(command.worker),
                Value::shown(command.pod),
                Value::bytes(&command.body),
                Value::time(command.created),
            ],
        )
        .await?;
    }
    Ok(())
}

fn command(row: &mut Reader) -> Result<Command> {
    Ok(Command {
        id: row.parsed()?,
        worker: row.parsed()?,
        pod: row.parsed()?,
        body: row.bytes()?,
        created: row.time()?,
    })
}

pub(super) async fn commands_open(tx: &mut Tx<'_>, worker: WorkerId, limit: u32) -> Result<Vec<Command>> {
    let rows = tx
        .query(
            "select id, worker, pod, body, created from commands where worker = $1 and answer is null \
             order by number limit $2",
            &[Value::shown(worker), Value::small(limit)],
        )
        .await?;
    rows.into_iter().map(|row| command(&mut row.read("command"))).collect()
}

pub(super) async fn workers_commanded(tx: &mut Tx<'_>) -> Result<Vec<WorkerId>> {
    let rows = tx.query("select distinct worker from commands where answer is null", &[]).await?;
    rows.into_iter().map(|row| row.read("command").parsed()).collect()
}

pub(super) async fn command_answer(
    tx: &mut Tx<'_>,
    worker: WorkerId,
    id: CommandId,
    answer: &CommandAnswer,
) -> Result<bool> {
    let found = tx
        .execute(
            "update commands set answer = coalesce(answer, $3) where id = $2 and worker = $1",
            &[Value::shown(worker), Value::shown(id), Value::json("answer", answer)?],
        )
        .await?;
    Ok(found == 1)
}

pub(super) async fn command_one(tx: &mut Tx<'_>, id: CommandId) -> Result<Option<(Command, Option<CommandAnswer>)>> {
    let row = tx
        .query_first("select id, worker, pod, body, created, answer from commands where id = $1", &[Value::shown(id)])
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.read("command");
    Ok(Some((command(&mut row)?, row.opt_json()?)))
}

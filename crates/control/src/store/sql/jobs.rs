//! Jobs and their events.

use atoll_domain::id::JobId;
use atoll_domain::key::{Digest, PublicKey, Signature};
use atoll_domain::time::UnixMs;

use super::super::rows::{Event, Job, JobChange, JobNow, NewJob};
use super::super::{Accepted, Result, StoreError};
use super::tx::Tx;
use super::users;
use super::value::{Row, Value};

const COLUMNS: &str = "id, user_id, cluster, name, spec, spec_signature, order_address, order_tx, escrow, created, \
     generation, state, changing";
/// A number that changes whenever an open job does, or something happens to it.
pub(super) const MARK: &str = "select cast(coalesce(sum(generation + event_count), 0) as bigint) from jobs \
     where state not in ('succeeded', 'failed', 'stopped')";
const OPEN: &str = "state not in ('succeeded', 'failed', 'stopped')";

fn job(row: Row) -> Result<Job> {
    let mut row = row.read("job");
    let (id, user, cluster, name) = (row.parsed()?, row.parsed()?, row.parsed()?, row.text()?);
    let (spec, spec_signature) = (row.bytes()?, Signature(row.array()?));
    let (order, order_tx, escrow) = (PublicKey(row.array()?), row.bytes()?, row.int()?);
    let (created, generation, state) = (row.time()?, row.int()?, row.text()?);
    let now: JobNow = row.json()?;
    if now.state.word() != state {
        return Err(row.corrupt(format!("its state is `{}` beside the column's `{state}`", now.state)));
    }
    Ok(Job { id, user, cluster, name, spec, spec_signature, order, order_tx, escrow, created, generation, now })
}

/// The only row for which `condition` on `$1` holds.
pub(super) async fn one(tx: &mut Tx<'_>, condition: &str, value: Value) -> Result<Option<Job>> {
    let row = tx.query_first(&format!("select {COLUMNS} from jobs where {condition}"), &[value]).await?;
    row.map(job).transpose()
}

pub(super) async fn of_user(tx: &mut Tx<'_>, user: Value, limit: u32) -> Result<Vec<Job>> {
    let sql = format!("select {COLUMNS} from jobs where user_id = $1 order by created desc, id desc limit $2");
    tx.query(&sql, &[user, Value::small(limit)]).await?.into_iter().map(job).collect()
}

pub(super) async fn open(tx: &mut Tx<'_>) -> Result<Vec<Job>> {
    let sql = format!("select {COLUMNS} from jobs where {OPEN} order by created, id");
    tx.query(&sql, &[]).await?.into_iter().map(job).collect()
}

/// Accepts a submission. Writes before it reads, so that two equal ones cannot both find nothing.
pub(super) async fn accept(tx: &mut Tx<'_>, new: &NewJob, now: UnixMs) -> Result<Accepted> {
    let (user, key) = (Value::shown(new.job.user), Value::key("idempotency key", &new.idempotency_key)?);
    let claimed = tx
        .execute(
            "insert into idempotency_keys (user_id, key, request_sha256, job) values ($1, $2, $3, $4) \
             on conflict (user_id, key) do nothing",
            &[user.clone(), key.clone(), Value::bytes(&new.request_sha256.0), Value::shown(new.job.id)],
        )
        .await?;
    if claimed == 0 {
        return repeated(tx, new, user, key, now).await;
    }
    if !nonce_remember(tx, new, now).await? {
        tx.undo();
        return Ok(Accepted::Replayed);
    }
    if !insert(tx, &new.job).await? {
        tx.undo();
        return Ok(Accepted::OrderTaken);
    }
    events_append(tx, new.job.id, std::slice::from_ref(&new.event)).await?;
    Ok(Accepted::New)
}

/// A submission under a known key. The nonce of an honest retry is spent as well: it must not serve anything else.
async fn repeated(tx: &mut Tx<'_>, new: &NewJob, user: Value, key: Value, now: UnixMs) -> Result<Accepted> {
    let row = tx
        .query_first("select request_sha256, job from idempotency_keys where user_id = $1 and key = $2", &[user, key])
        .await?;
    let mut row = row.ok_or(StoreError::Conflict { what: "idempotency key" })?.read("idempotency key");
    if Digest(row.array()?) != new.request_sha256 {
        return Ok(Accepted::KeyReused);
    }
    let job = row.parsed()?;
    nonce_remember(tx, new, now).await?;
    Ok(Accepted::Again(job))
}

async fn nonce_remember(tx: &mut Tx<'_>, new: &NewJob, now: UnixMs) -> Result<bool> {
    let (signer, nonce) = &new.seal;
    users::nonce_remember(tx, signer, nonce, now, new.nonce_forget_at).await
}

/// Adds a job; false when another one has its order.
pub(super) async fn insert(tx: &mut Tx<'_>, job: &Job) -> Result<bool> {
    let sql = format!(
        "insert into jobs ({COLUMNS}, event_count) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0) \
         on conflict (order_address) do nothing"
    );
    let values = [
        Value::shown(job.id),
        Value::shown(job.user),
        Value::shown(job.cluster),
        Value::words(&job.name),
        Value::bytes(&job.spec),
        Value::bytes(&job.spec_signature.0),
        Value::bytes(&job.order.0),
        Value::bytes(&job.order_tx),
        Value::int("the escrow", job.escrow)?,
        Value::time(job.created),
        Value::int("the generation", job.generation)?,
        Value::shown(job.now.state),
        Value::json("job", &job.now)?,
    ];
    Ok(tx.execute(&sql, &values).await? == 1)
}

/// Changes a job of this generation, and adds events.
pub(super) async fn change(
    tx: &mut Tx<'_>,
    id: JobId,
    generation: u64,
    change: &JobChange,
    events: &[Event],
) -> Result<Job> {
    let sql = format!(
        "update jobs set changing = $3, state = $4, generation = generation + 1 \
         where id = $1 and generation = $2 returning {COLUMNS}"
    );
    let values = [
        Value::shown(id),
        Value::int("the generation", generation)?,
        Value::json("job", change)?,
        Value::shown(change.state),
    ];
    let Some(row) = tx.query_first(&sql, &values).await? else {
        require(tx, id).await?;
        return Err(StoreError::Conflict { what: "job" });
    };
    events_append(tx, id, events).await?;
    job(row)
}

/// Refuses an unknown job.
pub(super) async fn require(tx: &mut Tx<'_>, id: JobId) -> Result<()> {
    let found = tx.query_first("select id from jobs where id = $1", &[Value::shown(id)]).await?;
    found.map(drop).ok_or(StoreError::NotFound { what: "job" })
}

/// Adds events, numbered on from the job's last one. The counter's row lock keeps numbers in the order of commits.
pub(super) async fn events_append(tx: &mut Tx<'_>, job: JobId, events: &[Event]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let row = tx
        .query_first(
            "update jobs set event_count = event_count + $2 where id = $1 returning event_count",
            &[Value::shown(job), Value::int("the number of events", events.len() as u64)?],
        )
        .await?;
    let last: u64 = row.ok_or(StoreError::NotFound { what: "job" })?.read("event").int()?;
    for (number, event) in (last - events.len() as u64 + 1..).zip(events) {
        tx.execute(
            "insert into events (job, number, event) values ($1, $2, $3)",
            &[Value::shown(job), Value::int("the event's number", number)?, Value::json("event", event)?],
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn events(tx: &mut Tx<'_>, job: JobId, after: u64, limit: u32) -> Result<Vec<(u64, Event)>> {
    let after = Value::time(UnixMs(after));
    let rows = tx
        .query(
            "select number, event from events where job = $1 and number > $2 order by number limit $3",
            &[Value::shown(job), after, Value::small(limit)],
        )
        .await?;
    rows.into_iter()
        .map(|row| {
            let mut row = row.read("event");
            Ok((row.int()?, row.json()?))
        })
        .collect()
}

//! Jobs that the store had lost, and pods that no job of it has.

use atoll_domain::id::{JobId, PodId, UserId, WorkerId};
use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::meter::Observation;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;

use super::super::rows::{AdoptedJob, Job, Origin, Stray, User};
use super::super::{Result, StoreError};
use super::tx::Tx;
use super::value::{Row, Value};
use super::{jobs, users};

const COLUMNS: &str = "id, worker, device_key, order_address, lease, page, slot, mask, fence, state, reason, statement, \
     exit_code, reported, usage_signed, observed_ms, last_seen";
/// Strays kept of one worker: as many pods as one handles at once, twice.
const OF_WORKER_MAX: u32 = 128;

/// Whose a job is, and under which key it was submitted.
pub(super) async fn origin(tx: &mut Tx<'_>, job: JobId) -> Result<Origin> {
    let row = tx
        .query_first(
            "select u.id, u.name, u.wallet, u.created from jobs j join users u on u.id = j.user_id where j.id = $1",
            &[Value::shown(job)],
        )
        .await?;
    let user = users::user(&mut row.ok_or(StoreError::NotFound { what: "job" })?.read("user"))?;
    let row =
        tx.query_first("select key, request_sha256 from idempotency_keys where job = $1", &[Value::shown(job)]).await?;
    let submission = match row {
        Some(row) => {
            let mut row = row.read("idempotency key");
            Some((row.text()?, Digest(row.array()?)))
        }
        None => None,
    };
    Ok(Origin { user, submission })
}

/// Takes up a job, unless one has its order already; gives the one that has it then.
pub(super) async fn job(tx: &mut Tx<'_>, new: &AdoptedJob) -> Result<Job> {
    let user = owner(tx, &new.user).await?;
    let job = Job { user, ..new.job.clone() };
    let order = || Value::bytes(&job.order.0);
    if jobs::insert(tx, &job).await? {
        jobs::events_append(tx, job.id, std::slice::from_ref(&new.event)).await?;
        if let Some((key, request_sha256)) = &new.submission {
            tx.execute(
                "insert into idempotency_keys (user_id, key, request_sha256, job) values ($1, $2, $3, $4) \
                 on conflict (user_id, key) do nothing",
                &[
                    Value::shown(user),
                    Value::key("idempotency key", key)?,
                    Value::bytes(&request_sha256.0),
                    Value::shown(job.id),
                ],
            )
            .await?;
        }
    }
    jobs::one(tx, "order_address = $1", order()).await?.ok_or(StoreError::Conflict { what: "job" })
}

/// The user that a job belongs to: the one that it always had, else one of the same name and wallet, else a new one.
/// Never one with another wallet.
async fn owner(tx: &mut Tx<'_>, user: &User) -> Result<UserId> {
    let known =
        tx.query_first("select id, name, wallet, created from users where id = $1", &[Value::shown(user.id)]).await?;
    if let Some(row) = known {
        let known = users::user(&mut row.read("user"))?;
        let same = known.wallet == user.wallet;
        return if same { Ok(known.id) } else { Err(StoreError::Conflict { what: "user" }) };
    }
    let name = match users::by_name(tx, &user.name).await? {
        Some(namesake) if namesake.wallet == user.wallet => return Ok(namesake.id),
        // Somebody else took the name meanwhile.
        Some(_) => user.id.to_string(),
        None => user.name.clone(),
    };
    users::add(tx, &User { name, ..user.clone() }).await?;
    Ok(user.id)
}

fn stray(row: Row) -> Result<Stray> {
    let mut row = row.read("stray pod");
    Ok(Stray {
        id: row.parsed()?,
        worker: row.parsed()?,
        device_key: PublicKey(row.array()?),
        order: PublicKey(row.array()?),
        lease: PublicKey(row.array()?),
        at: SlotRef { page: PublicKey(row.array()?), slot: row.int()? },
        mask: row.int()?,
        fence: row.int()?,
        state: row.word()?,
        reason: row.text()?,
        statement: row.opt_bytes()?,
        exit_code: row.opt_int()?,
        reported: row.time()?,
        usage: row.opt_json()?,
        observation: Observation { observed_ms: row.int()?, last_seen: row.opt_time()? },
    })
}

/// Writes a stray as it was reported. What is known of it stays: whose it is, a statement, a later state, its meter.
pub(super) async fn stray_put(tx: &mut Tx<'_>, new: &Stray) -> Result<()> {
    let sql = "insert into strays (id, worker, device_key, order_address, lease, page, slot, mask, fence, state, reason, \
         statement, exit_code, reported, observed_ms) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0) \
         on conflict (id) do update set state = excluded.state, reason = excluded.reason, reported = excluded.reported, \
         statement = coalesce(strays.statement, excluded.statement), \
         exit_code = coalesce(strays.exit_code, excluded.exit_code) \
         where strays.worker = excluded.worker and strays.lease = excluded.lease and strays.fence = excluded.fence \
         and strays.state not in ('exited', 'lost')";
    let values = [
        Value::shown(new.id),
        Value::shown(new.worker),
        Value::bytes(&new.device_key.0),
        Value::bytes(&new.order.0),
        Value::bytes(&new.lease.0),
        Value::bytes(&new.at.page.0),
        Value::small(new.at.slot),
        Value::small(new.mask),
        Value::int("the fence", new.fence)?,
        Value::shown(new.state),
        Value::words(&new.reason),
        Value::or_null(new.statement.as_deref().map(Value::bytes)),
        Value::or_null(new.exit_code.map(Value::small)),
        Value::time(new.reported),
    ];
    tx.execute(sql, &values).await?;
    // Those that have ended give way first, else whoever rents one worker for an instant again and again would have the
    // pods of others forgotten, which say but once that they run.
    tx.execute(
        "delete from strays where worker = $1 and id not in (select id from strays where worker = $1 order by \
         case when state in ('exited', 'lost') then 1 else 0 end, reported desc, id limit $2)",
        &[Value::shown(new.worker), Value::small(OF_WORKER_MAX)],
    )
    .await
    .map(drop)
}

pub(super) async fn stray_one(tx: &mut Tx<'_>, id: PodId) -> Result<Option<Stray>> {
    let sql = format!("select {COLUMNS} from strays where id = $1");
    tx.query_first(&sql, &[Value::shown(id)]).await?.map(stray).transpose()
}

pub(super) async fn strays_on(tx: &mut Tx<'_>, worker: WorkerId) -> Result<Vec<Stray>> {
    let sql = format!("select {COLUMNS} from strays where worker = $1 and state not in ('exited', 'lost') order by id");
    tx.query(&sql, &[Value::shown(worker)]).await?.into_iter().map(stray).collect()
}

pub(super) async fn strays_of(tx: &mut Tx<'_>, order: &Address) -> Result<Vec<Stray>> {
    let sql = format!("select {COLUMNS} from strays where order_address = $1 order by fence, id");
    tx.query(&sql, &[Value::bytes(&order.0)]).await?.into_iter().map(stray).collect()
}

pub(super) async fn stray_orders(tx: &mut Tx<'_>) -> Result<Vec<Address>> {
    let rows = tx.query("select distinct order_address from strays order by order_address", &[]).await?;
    rows.into_iter().map(|row| row.read("stray pod").array().map(PublicKey)).collect()
}

/// Drops the strays of an order that were last heard of before `before`.
pub(super) async fn strays_drop(tx: &mut Tx<'_>, order: &Address, before: UnixMs) -> Result<()> {
    tx.execute(
        "delete from strays where order_address = $1 and reported < $2",
        &[Value::bytes(&order.0), Value::time(before)],
    )
    .await
    .map(drop)
}

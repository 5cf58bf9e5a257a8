//! Workers, and promises of their devices.

use std::collections::BTreeMap;

use atoll_domain::id::{JobId, WorkerId};
use atoll_domain::key::PublicKey;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;

use super::super::rows::{Known, Reservation, Worker};
use super::super::{Result, StoreError};
use super::tx::Tx;
use super::value::{Row, Value};

const COLUMNS: &str = "id, device_key, page, slot, facts, advertise, last_seen";

pub(super) async fn worker_put(tx: &mut Tx<'_>, worker: &Worker) -> Result<()> {
    let sql = format!(
        "insert into workers ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do update set \
         device_key = excluded.device_key, page = excluded.page, slot = excluded.slot, facts = excluded.facts, \
         advertise = excluded.advertise, last_seen = case when workers.last_seen > excluded.last_seen \
         then workers.last_seen else excluded.last_seen end"
    );
    let values = [
        Value::shown(worker.id),
        Value::bytes(&worker.device_key.0),
        Value::bytes(&worker.at.page.0),
        Value::small(worker.at.slot),
        Value::json("facts", &worker.facts)?,
        Value::words(&worker.advertise),
        Value::time(worker.last_seen),
    ];
    tx.execute(&sql, &values).await.map(drop)
}

fn worker(row: Row) -> Result<Worker> {
    let mut row = row.read("worker");
    Ok(Worker {
        id: row.parsed()?,
        device_key: PublicKey(row.array()?),
        at: SlotRef { page: PublicKey(row.array()?), slot: row.int()? },
        facts: row.json()?,
        advertise: row.text()?,
        last_seen: row.time()?,
    })
}

pub(super) async fn worker_one(tx: &mut Tx<'_>, id: WorkerId) -> Result<Option<Worker>> {
    let sql = format!("select {COLUMNS} from workers where id = $1");
    tx.query_first(&sql, &[Value::shown(id)]).await?.map(worker).transpose()
}

/// What there is of each of these workers.
pub(super) async fn known(tx: &mut Tx<'_>, asked: &[WorkerId]) -> Result<BTreeMap<WorkerId, Known>> {
    let mut known: BTreeMap<WorkerId, Known> = asked.iter().map(|id| (*id, Known::default())).collect();
    let given: Vec<_> = known.keys().map(|worker| serde_json::json!({ "worker": worker })).collect();
    let given = [Value::json("workers", &given)?];
    let these = format!("(select given.worker from {})", tx.dialect().given(&[("worker", "text")]));
    for row in tx.query(&format!("select {COLUMNS} from workers where id in {these}"), &given).await? {
        let found = worker(row)?;
        let id = found.id;
        known.entry(id).or_default().worker = Some(found);
    }
    let sql = format!(
        "select worker from pods where worker in {these} and state not in ('exited', 'lost') \
         union select worker from strays where worker in {these} and state not in ('exited', 'lost') \
         union select worker from commands where worker in {these} and answer is null"
    );
    for row in tx.query(&sql, &given).await? {
        known.entry(row.read("worker").parsed()?).or_default().is_busy = true;
    }
    Ok(known)
}

pub(super) async fn workers(tx: &mut Tx<'_>) -> Result<Vec<Worker>> {
    let rows = tx.query(&format!("select {COLUMNS} from workers"), &[]).await?;
    let mut workers = rows.into_iter().map(worker).collect::<Result<Vec<_>>>()?;
    // Sorted here: how a database sorts text depends on how it was set up.
    workers.sort_by_key(|worker| worker.id);
    Ok(workers)
}

/// One row per device, in one order for all writers so that they never wait for each other in a circle. `None` when
/// two jobs of one call want the same device.
fn by_device(reservations: &[Reservation]) -> Option<BTreeMap<(WorkerId, u16), Reservation>> {
    let mut devices = BTreeMap::new();
    for reservation in reservations {
        for device in (0..16).filter(|device| reservation.mask & (1 << device) != 0) {
            let earlier = devices.insert((reservation.worker, device), *reservation);
            if earlier.is_some_and(|earlier| earlier.job != reservation.job) {
                return None;
            }
        }
    }
    Some(devices)
}

pub(super) async fn reserve(tx: &mut Tx<'_>, reservations: &[Reservation], now: UnixMs) -> Result<()> {
    let conflict = StoreError::Conflict { what: "reservation" };
    let Some(devices) = by_device(reservations) else { return Err(conflict) };
    let given: Vec<_> = devices
        .iter()
        .map(|((worker, device), reservation)| {
            let until = i64::try_from(reservation.until.0).unwrap_or(i64::MAX);
            serde_json::json!({ "worker": worker, "device": device, "job": reservation.job, "until": until })
        })
        .collect();
    let rows = tx.dialect().given(&[("worker", "text"), ("device", "bigint"), ("job", "text"), ("until", "bigint")]);
    let sql = format!(
        "insert into reservations (worker, device, job, until) \
         select given.worker, given.device, given.job, given.until from {rows} where true \
         on conflict (worker, device) do update set job = excluded.job, until = excluded.until \
         where reservations.job = excluded.job or reservations.until <= $2"
    );
    let taken = tx.execute(&sql, &[Value::json("reservations", &given)?, Value::time(now)]).await?;
    // A device that another job holds is the row that was not written.
    if taken == devices.len() as u64 { Ok(()) } else { Err(conflict) }
}

/// Drops promises whose time is over.
pub(super) async fn lapsed_drop(tx: &mut Tx<'_>, now: UnixMs) -> Result<()> {
    tx.execute("delete from reservations where until <= $1", &[Value::time(now)]).await.map(drop)
}

pub(super) async fn unreserve(tx: &mut Tx<'_>, job: JobId) -> Result<()> {
    tx.execute("delete from reservations where job = $1", &[Value::shown(job)]).await.map(drop)
}

pub(super) async fn reserved(tx: &mut Tx<'_>, now: UnixMs) -> Result<BTreeMap<WorkerId, u16>> {
    let rows = tx.query("select worker, device from reservations where until > $1", &[Value::time(now)]).await?;
    let mut masks = BTreeMap::new();
    for row in rows {
        let mut row = row.read("reservation");
        let (worker, device): (WorkerId, u16) = (row.parsed()?, row.int()?);
        *masks.entry(worker).or_insert(0) |= 1 << (device & 15);
    }
    Ok(masks)
}

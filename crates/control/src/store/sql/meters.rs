//! What pods have served: by their own signed meters, and as this operator saw it. Of pods of a job and of strays alike.

use std::collections::BTreeMap;

use atoll_domain::id::PodId;
use atoll_domain::meter::{Observation, SignedUsage};

use super::super::Result;
use super::tx::Tx;
use super::value::Value;

/// A table with the columns of a meter, and its column for the pod's id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    name: &'static str,
    pod: &'static str,
}

/// Meters of jobs' pods.
pub(super) const PODS: Table = Table { name: "meters", pod: "pod" };
/// Those of pods that no job here has.
pub(super) const STRAYS: Table = Table { name: "strays", pod: "id" };

/// Keeps the later of two statements: more records, then more time served. False when nothing was written.
pub(super) async fn usage_put(tx: &mut Tx<'_>, of: Table, usage: &SignedUsage) -> Result<bool> {
    let Table { name, pod } = of;
    let sql = format!(
        "update {name} set usage_records = $2, usage_served_ms = $3, usage_signed = $4 where {pod} = $1 and \
         (usage_records is null or usage_records < $2 or (usage_records = $2 and usage_served_ms < $3))"
    );
    let values = [
        Value::shown(usage.statement.pod),
        Value::int("the number of records", usage.statement.records)?,
        Value::int("the time served", usage.statement.served_ms)?,
        Value::json("usage", usage)?,
    ];
    Ok(tx.execute(&sql, &values).await? > 0)
}

/// Keeps the greater of two observations: both are cumulative. Two statements, however many pods were seen.
pub(super) async fn observations_put(tx: &mut Tx<'_>, seen: &BTreeMap<PodId, Observation>) -> Result<()> {
    let fits = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let given: Vec<_> = seen
        .iter()
        .map(|(pod, seen)| {
            let last_seen = seen.last_seen.map(|at| fits(at.0));
            serde_json::json!({ "pod": pod, "observed_ms": fits(seen.observed_ms), "last_seen": last_seen })
        })
        .collect();
    let rows = tx.dialect().given(&[("pod", "text"), ("observed_ms", "bigint"), ("last_seen", "bigint")]);
    for Table { name, pod } in [PODS, STRAYS] {
        let sql = format!(
            "update {name} set observed_ms = given.observed_ms, last_seen = coalesce(given.last_seen, {name}.last_seen) \
             from {rows} where {name}.{pod} = given.pod and ({name}.observed_ms < given.observed_ms \
             or ({name}.observed_ms = given.observed_ms \
             and coalesce({name}.last_seen, -1) < coalesce(given.last_seen, -1)))"
        );
        tx.execute(&sql, &[Value::json("observations", &given)?]).await?;
    }
    Ok(())
}

//! Which nodes there are, which worker is linked to which, and the network that all of it is for.

use atoll_domain::id::{NodeId, PodId, WorkerId};
use atoll_domain::key::{Digest, PublicKey};

use super::super::rows::{Beat, Event, Held, NetworkPin, News, Node, PodChange};
use super::super::{Result, StoreError};
use super::tx::Tx;
use super::value::{Row, Value};
use super::{jobs, pods};

/// The most commands named in one answer; the rest follows with the next question.
const COMMANDS_MAX: u32 = 1000;

pub(super) async fn beat(tx: &mut Tx<'_>, beat: &Beat) -> Result<()> {
    let changes = i64::from(!(beat.begun.is_empty() && beat.ended.is_empty()));
    let values = [
        Value::shown(beat.node),
        Value::key("URL", &beat.url)?,
        Value::int("the beat", beat.count)?,
        Value::small(changes),
    ];
    let sql = "insert into nodes (id, url, beat, changes) values ($1, $2, $3, $4) on conflict (id) do update set \
               url = excluded.url, beat = excluded.beat, changes = nodes.changes + excluded.changes";
    tx.execute(sql, &values).await?;
    for (worker, number) in &beat.ended {
        let values = [Value::shown(worker), Value::shown(beat.node), Value::int("a link's number", *number)?];
        tx.execute("delete from links where worker = $1 and node = $2 and number = $3", &values).await?;
    }
    if beat.begun.is_empty() {
        return Ok(());
    }
    let given: Vec<_> =
        beat.begun.iter().map(|(worker, number)| serde_json::json!({ "worker": worker, "number": number })).collect();
    let rows = tx.dialect().given(&[("worker", "text"), ("number", "bigint")]);
    let sql = format!(
        "insert into links (worker, node, number) select given.worker, $2, given.number from {rows} where true \
         on conflict (worker) do update set node = excluded.node, number = excluded.number"
    );
    tx.execute(&sql, &[Value::json("links", &given)?, Value::shown(beat.node)]).await.map(drop)
}

pub(super) async fn news(tx: &mut Tx<'_>, commands_after: u64) -> Result<News> {
    let mut nodes = Vec::new();
    for row in tx.query("select id, url, beat, changes from nodes order by id", &[]).await? {
        let mut row = row.read("node");
        nodes.push(Node { id: row.parsed()?, url: row.text()?, beat: row.int()?, changes: row.int()? });
    }
    let mark = tx.query_first(jobs::MARK, &[]).await?;
    let jobs = mark.map_or(Ok(0), |row| row.read("mark").int())?;
    let mut commands = Vec::new();
    let values = [Value::int("a command's number", commands_after)?, Value::small(COMMANDS_MAX)];
    let sql = "select number, worker from commands where number > $1 order by number limit $2";
    for row in tx.query(sql, &values).await? {
        let mut row = row.read("command");
        commands.push((row.int()?, row.parsed()?));
    }
    Ok(News { nodes, jobs, commands })
}

pub(super) async fn last_command(tx: &mut Tx<'_>) -> Result<u64> {
    let row = tx.query_first("select coalesce(max(number), 0) from commands", &[]).await?;
    row.map_or(Ok(0), |row| row.read("command").int())
}

fn held(row: Row) -> Result<(WorkerId, Held)> {
    let mut row = row.read("link");
    Ok((row.parsed()?, Held { node: row.parsed()?, number: row.int()? }))
}

pub(super) async fn links(tx: &mut Tx<'_>) -> Result<Vec<(WorkerId, Held)>> {
    tx.query("select worker, node, number from links order by worker", &[]).await?.into_iter().map(held).collect()
}

/// Forgets nodes with their links.
pub(super) async fn drop_all(tx: &mut Tx<'_>, nodes: &[NodeId]) -> Result<()> {
    for node in nodes {
        tx.execute("delete from links where node = $1", &[Value::shown(node)]).await?;
        tx.execute("delete from nodes where id = $1", &[Value::shown(node)]).await?;
    }
    Ok(())
}

/// Gives a pod up, unless its worker's link is no longer what it was when that was decided.
pub(super) async fn pod_lose(
    tx: &mut Tx<'_>,
    pod: PodId,
    seen: Option<Held>,
    change: &PodChange,
    events: &[Event],
) -> Result<bool> {
    let sql = "select l.worker, l.node, l.number from links l join pods p on p.worker = l.worker where p.id = $1";
    let now = tx.query_first(sql, &[Value::shown(pod)]).await?.map(held).transpose()?;
    if now.map(|(_, held)| held) != seen {
        return Ok(false);
    }
    pods::change(tx, pod, change, events).await
}

pub(super) async fn network_pin(tx: &mut Tx<'_>, pin: &NetworkPin) -> Result<NetworkPin> {
    let values = [Value::bytes(&pin.genesis_hash.0), Value::bytes(&pin.network_root.0)];
    let sql = "insert into network (one, genesis_hash, network_root) values (1, $1, $2) on conflict (one) do nothing";
    tx.execute(sql, &values).await?;
    network(tx).await?.ok_or(StoreError::NotFound { what: "network" })
}

pub(super) async fn network(tx: &mut Tx<'_>) -> Result<Option<NetworkPin>> {
    let Some(row) = tx.query_first("select genesis_hash, network_root from network", &[]).await? else {
        return Ok(None);
    };
    let mut row = row.read("network");
    Ok(Some(NetworkPin { genesis_hash: PublicKey(row.array()?), network_root: Digest(row.array()?) }))
}

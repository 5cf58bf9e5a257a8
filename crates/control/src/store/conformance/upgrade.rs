//! Two builds over one store: the one of today, and one of tomorrow that knows more steps of the schema.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::make::{NOW, accepted, event, job_now, submission};
use super::{Fresh, assert_failed};
use crate::store::postgres::Postgres;
use crate::store::rows::JobNow;
use crate::store::sql::{MIGRATIONS, Migration, Sql};
use crate::store::sqlite::Sqlite;
use crate::store::{Accepted, Store, StoreError};

const EXPAND: Migration = Migration {
    name: "labels",
    sql: "create table labels (job text not null references jobs (id), label text not null);\n\
          alter table users add column mail text",
};
const LATER: Migration = Migration { name: "colours", sql: "create table colours (name text primary key)" };

/// Today's steps with more of them. Leaked: a build knows its steps for ever.
fn and(more: &[Migration]) -> &'static [Migration] {
    Box::leak([MIGRATIONS, more].concat().into_boxed_slice())
}

/// Takes away a column that builds of this schema no longer use.
fn contract(readers_from: usize) -> Migration {
    let sql = format!("-- contract: for builds from schema {readers_from}\nalter table workers drop column advertise");
    Migration { name: "advertise_contract", sql: Box::leak(sql.into_boxed_str()) }
}

impl Fresh {
    /// A handle of a build that knows these steps.
    async fn open_as(&self, migrations: &'static [Migration]) -> crate::store::Result<Arc<dyn Store>> {
        Ok(match self.sqlite_path() {
            Some(path) => Arc::new(Sql(Sqlite::open_with(path, migrations).await?)),
            None => Arc::new(Sql(Postgres::open_with(&self.url, migrations).await?)),
        })
    }

    /// As if all builds that have opened the store so far had been silent for an hour.
    async fn all_fall_silent(&self) {
        self.raw("update atoll_builds set beat = beat - 3600000").await;
    }
}

#[track_caller]
fn assert_outdated<T: std::fmt::Debug>(result: crate::store::Result<T>) {
    assert!(matches!(result, Err(StoreError::Outdated { .. })), "{result:?}");
}

pub(super) async fn an_old_build_works_beside_one_that_expands(at: &Fresh) {
    let old = at.open().await;
    let (_, job) = accepted(old.as_ref(), 1).await;
    let new = at.open_as(and(&[EXPAND])).await.unwrap();
    at.raw("insert into labels select id, 'of the new build' from jobs").await;
    new.beat().await.unwrap();
    old.beat().await.unwrap();
    old.job_change(job.id, 1, &job_now(), &[event("old")]).await.unwrap();
    new.job_change(job.id, 2, &job_now(), &[event("new")]).await.unwrap();
    assert_eq!(old.events(job.id, 1, 9).await.unwrap().len(), 2);
    // An old node may also start now.
    accepted(at.open().await.as_ref(), 2).await;
    assert_eq!(new.jobs_open().await.unwrap().len(), 2);
}

pub(super) async fn nothing_is_taken_away_while_an_old_build_lives(at: &Fresh) {
    let old = at.open().await;
    let new = at.open_as(and(&[EXPAND, contract(MIGRATIONS.len() + 1)])).await.unwrap();
    new.beat().await.unwrap();
    at.raw("update workers set advertise = advertise").await;
    accepted(old.as_ref(), 1).await;
    // Its silence is enough; the new build's next beat takes the step.
    at.all_fall_silent().await;
    new.beat().await.unwrap();
    new.beat().await.unwrap();
    at.raw("alter table workers add column advertise text").await;
}

pub(super) async fn an_old_build_is_refused_once_its_schema_is_gone(at: &Fresh) {
    let old = at.open().await;
    let (user, job) = accepted(old.as_ref(), 1).await;
    at.all_fall_silent().await;
    at.open_as(and(&[EXPAND, contract(MIGRATIONS.len() + 1)])).await.unwrap();
    // It was only asleep. Nothing that it writes counts.
    assert_outdated(old.job_change(job.id, 1, &job_now(), &[event("late")]).await);
    assert_outdated(old.job_accept(&submission(7, &user), NOW).await);
    assert_outdated(old.user_add(&super::make::user(9)).await);
    assert_outdated(old.beat().await);
    let refused = at.open_as(MIGRATIONS).await;
    assert!(
        refused.as_ref().is_err_and(|error| error.to_string().contains("docs/operators/upgrade.md")),
        "{refused:?}"
    );
    assert_outdated(refused);
    let new = at.open_as(and(&[EXPAND, contract(MIGRATIONS.len() + 1)])).await.unwrap();
    assert_eq!(new.job(job.id).await.unwrap().unwrap().generation, 1);
    assert!(new.user_by_name(&super::make::user(9).name).await.unwrap().is_none());
    // A build that expands only is enough.
    at.open_as(and(&[EXPAND])).await.unwrap().job_change(job.id, 1, &job_now(), &[]).await.unwrap();
}

pub(super) async fn a_step_behind_a_waiting_one_is_said(at: &Fresh) {
    let old = at.open().await;
    let steps = and(&[EXPAND, contract(MIGRATIONS.len() + 1), LATER]);
    assert_failed(at.open_as(steps).await, "waits for older nodes to end: stop atoll");
    // Nothing of it was done.
    accepted(old.as_ref(), 1).await;
    let known = at.open_as(and(&[EXPAND])).await.unwrap();
    known.beat().await.unwrap();
    at.all_fall_silent().await;
    at.open_as(steps).await.unwrap();
    assert_outdated(old.beat().await);
    known.beat().await.unwrap();
}

/// Writers of both builds, on one store that is expanded and contracted under them.
pub(super) async fn eight_writers_of_two_builds_pass_through_an_upgrade(at: &Fresh) {
    let first = at.open().await;
    let jobs = [accepted(first.as_ref(), 1).await.1.id, accepted(first.as_ref(), 2).await.1.id];
    let over = Arc::new(AtomicBool::new(false));
    let write = |store: Arc<dyn Store>, job, name: String| {
        let over = Arc::clone(&over);
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0_u32.. {
                let message = format!("{name}-{n}");
                match store.events_add(job, &[event(&message)]).await {
                    Ok(()) => acknowledged.push(message),
                    Err(StoreError::Outdated { .. }) => return (acknowledged, true),
                    Err(error) => panic!("{error}"),
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
            (acknowledged, false)
        })
    };
    let mut olds = Vec::new();
    for n in 0..4 {
        olds.push(write(at.open().await, jobs[n % 2], format!("old-{n}")));
    }
    let steps = and(&[EXPAND, contract(MIGRATIONS.len() + 1)]);
    let mut news = Vec::new();
    for n in 0..4 {
        news.push(write(at.open_as(steps).await.unwrap(), jobs[n % 2], format!("new-{n}")));
    }
    at.all_fall_silent().await;
    at.open_as(steps).await.unwrap();
    let mut acknowledged = Vec::new();
    for old in olds {
        // The old ones write until they are refused, and end by themselves.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), old).await.unwrap().unwrap();
        assert!(ended.1, "an old build was never refused");
        acknowledged.extend(ended.0);
    }
    over.store(true, Ordering::Relaxed);
    for new in news {
        let (written, refused) = new.await.unwrap();
        assert!(!refused && !written.is_empty());
        acknowledged.extend(written);
    }
    let store = at.open_as(steps).await.unwrap();
    let mut there = Vec::new();
    for job in jobs {
        let events = store.events(job, 1, u32::MAX).await.unwrap();
        there.extend(events.into_iter().map(|(_, event)| event.message));
    }
    acknowledged.sort();
    there.sort();
    assert_eq!(acknowledged, there);
}

pub(super) async fn a_newer_builds_fields_are_kept(at: &Fresh) {
    let store = at.open().await;
    let (user, job) = accepted(store.as_ref(), 1).await;
    let whole = serde_json::to_value(job_now()).unwrap();
    let mut newer = whole.clone();
    newer["deadline"] = serde_json::json!({"at": 7, "why": ["a", null]});
    at.raw(&format!("update jobs set changing = '{}'", newer.to_string().replace('\'', "''"))).await;
    let read = store.job(job.id).await.unwrap().unwrap();
    assert_eq!(read.now.newer["deadline"]["at"], 7);
    let next = JobNow { attempt: 5, ..read.now };
    let changed = store.job_change(job.id, 1, &next, &[]).await.unwrap();
    newer["attempt"] = 5.into();
    assert_eq!(serde_json::to_value(&changed.now).unwrap(), newer);
    assert_eq!(store.job_accept(&submission(9, &user), NOW).await.unwrap(), Accepted::New);
}

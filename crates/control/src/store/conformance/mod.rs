//! What both engines must do, as one suite that runs on each.
//!
//! What one handle can show also runs on SQLite inline, on a paused clock and one thread, as the simulation has it.
//! SQLite's single writer hides races, so what concerns several writers counts only on PostgreSQL; it runs on SQLite
//! too, over eight handles of one file. With the feature `postgres-tests` a PostgreSQL server is started once per test
//! process; when its binaries are missing the tests fail with the line that installs them.

mod adopt;
#[cfg(feature = "postgres-tests")]
mod broken_commits;
mod chain;
mod crash;
mod devices;
mod engine;
#[cfg(feature = "postgres-tests")]
mod failover;
mod full_disk;
mod jobs;
mod make;
mod model;
mod nodes;
#[cfg(feature = "postgres-tests")]
mod pair;
mod pods;
#[cfg(feature = "postgres-tests")]
#[allow(dead_code, reason = "xtask needs more of it than these tests")]
#[path = "../../../../../xtask/src/postgres.rs"]
mod private_postgres;
mod races;
#[cfg(feature = "postgres-tests")]
mod server;
mod upgrade;
mod users;
mod values;

use std::sync::Arc;
#[cfg(feature = "postgres-tests")]
use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use super::{Store, StoreError, open, sqlite_inline};
#[cfg(feature = "postgres-tests")]
use private_postgres::Postgres;

/// An empty store of one engine.
#[derive(Debug)]
struct Fresh {
    url: String,
    /// The one handle of a store that has its file to itself.
    only: Option<Arc<dyn Store>>,
    _folder: Option<tempfile::TempDir>,
}

impl Fresh {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("control.db").display());
        Self { url, only: None, _folder: Some(folder) }
    }

    fn sqlite_inline() -> Self {
        let mut at = Self::sqlite();
        at.only = Some(sqlite_inline(&at.sqlite_path().unwrap(), None).unwrap());
        at
    }

    #[cfg(feature = "postgres-tests")]
    async fn postgres() -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let name = format!("store_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        admin().await.batch_execute(&format!("create database {name} template template0")).await.unwrap();
        Self { url: server().url(&name), only: None, _folder: None }
    }

    /// A handle of its own, as another process would have.
    async fn open(&self) -> Arc<dyn Store> {
        match &self.only {
            Some(only) => Arc::clone(only),
            None => open(&self.url).await.unwrap(),
        }
    }
}

/// The one server of this process.
#[cfg(feature = "postgres-tests")]
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start().unwrap_or_else(|error| panic!("{error:#}")))
}

/// A connection that bypasses the store.
#[cfg(feature = "postgres-tests")]
async fn admin() -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server().url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

macro_rules! on_both_engines {
    ($($family:ident::$test:ident,)* -- $($shared_family:ident::$shared:ident,)*) => {
        mod on_sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                $family::$test(&Fresh::sqlite()).await;
            })*
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $shared() {
                $shared_family::$shared(&Fresh::sqlite()).await;
            })*
        }
        mod on_sqlite_inline {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                $family::$test(&Fresh::sqlite_inline()).await;
            })*
        }
        #[cfg(feature = "postgres-tests")]
        mod on_postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                $family::$test(&Fresh::postgres().await).await;
            })*
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $shared() {
                $shared_family::$shared(&Fresh::postgres().await).await;
            })*
        }
    };
}

on_both_engines! {
    users::names_are_unique,
    users::keys_are_found_with_their_user,
    users::a_nonce_counts_once_until_its_end,
    users::an_operator_makes_keys,
    jobs::an_accepted_job_reads_back,
    jobs::a_retry_is_the_same_job,
    jobs::refusals_leave_nothing_behind,
    jobs::another_users_key_is_another_key,
    jobs::a_change_names_its_generation,
    jobs::open_jobs_are_those_not_final,
    jobs::a_users_jobs_come_newest_first,
    jobs::events_are_numbered_without_gaps,
    devices::a_worker_introduces_itself_anew,
    devices::reservations_are_all_or_nothing,
    devices::a_reservation_lapses_is_renewed_and_dropped,
    devices::one_call_cannot_promise_a_device_twice,
    pods::pods_come_with_their_commands_or_not_at_all,
    pods::a_place_in_the_overlay_is_given_once,
    pods::a_pod_never_goes_back,
    pods::a_change_keeps_what_it_does_not_name,
    pods::pods_on_a_worker_are_those_not_over,
    pods::the_later_usage_stays,
    pods::observations_only_grow,
    pods::commands_wait_in_order_for_their_first_answer,
    chain::a_key_has_one_live_transaction,
    chain::a_confirmed_transaction_that_is_gone_frees_its_key,
    chain::what_became_of_a_transaction_is_final,
    chain::what_became_of_a_transaction_is_told_once,
    chain::transactions_of_a_job_come_in_order,
    chain::what_is_under_way_comes_in_order,
    chain::the_first_epoch_of_an_index_stays,
    chain::the_first_receipt_stays,
    adopt::a_lost_job_comes_back_with_its_user_and_its_key,
    adopt::a_job_that_stands_is_not_replaced,
    adopt::a_lost_job_never_goes_to_another_wallet,
    adopt::a_stray_stays_whose_it_is_and_keeps_its_meter,
    adopt::strays_are_bounded_and_dropped_with_their_order,
    nodes::the_last_link_of_a_worker_counts,
    nodes::news_name_later_commands_and_changed_jobs,
    nodes::a_pod_is_not_given_up_once_its_worker_is_linked_again,
    nodes::the_first_network_stays,
    values::words_with_zero_bytes_are_kept_readable,
    values::what_does_not_fit_is_refused_in_words,
    values::the_largest_values_come_back,
    -- // Of several handles, or SQL past the store:
    races::eight_writers_never_hold_one_device_twice,
    races::eight_writers_change_one_job_one_after_the_other,
    races::eight_writers_use_a_nonce_once,
    races::eight_equal_submissions_are_one_job,
    races::eight_submissions_for_one_order_are_one_job,
    races::eight_writers_have_one_live_transaction,
    races::a_follower_of_events_misses_none,
    races::eight_nodes_open_a_new_store_at_once,
    upgrade::an_old_build_works_beside_one_that_expands,
    upgrade::nothing_is_taken_away_while_an_old_build_lives,
    upgrade::an_old_build_is_refused_once_its_schema_is_gone,
    upgrade::a_step_behind_a_waiting_one_is_said,
    upgrade::eight_writers_of_two_builds_pass_through_an_upgrade,
    upgrade::a_newer_builds_fields_are_kept,
    engine::a_foreign_schema_is_refused,
    engine::a_damaged_row_is_said,
    engine::a_failing_operation_leaves_nothing,
    engine::a_store_answers,
}

/// Asserts a conflict over this kind of row.
#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: super::Result<T>, kind: &str) {
    assert!(matches!(&result, Err(StoreError::Conflict { what }) if *what == kind), "{result:?}");
}

/// Asserts that this kind of row was not found.
#[track_caller]
fn assert_not_found<T: std::fmt::Debug>(result: super::Result<T>, kind: &str) {
    assert!(matches!(&result, Err(StoreError::NotFound { what }) if *what == kind), "{result:?}");
}

/// Asserts an engine's failure whose words contain these.
#[track_caller]
fn assert_failed<T: std::fmt::Debug>(result: super::Result<T>, words: &str) {
    assert!(
        matches!(&result, Err(error @ StoreError::Engine(_)) if error.to_string().contains(words)),
        "expected `{words}`, got {result:?}"
    );
}

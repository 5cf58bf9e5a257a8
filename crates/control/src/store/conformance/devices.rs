//! Workers and reservations.

use std::collections::BTreeMap;

use atoll_domain::time::UnixMs;

use super::make::{NOW, accepted, job_id, later, reservation, worker, worker_id};
use super::{Fresh, assert_conflict, assert_not_found};
use crate::store::rows::Worker;

pub(super) async fn a_worker_introduces_itself_anew(at: &Fresh) {
    let store = at.open().await;
    for n in [3, 1, 2] {
        store.worker_put(&worker(n)).await.unwrap();
    }
    let moved = Worker { advertise: "10.0.0.9".into(), last_seen: later(5), ..worker(2) };
    store.worker_put(&moved).await.unwrap();
    assert_eq!(store.worker(worker_id(2)).await.unwrap(), Some(moved.clone()));
    // A node with an older view does not turn the time back.
    store.worker_put(&Worker { advertise: "10.0.0.8".into(), ..worker(2) }).await.unwrap();
    let expected = Worker { advertise: "10.0.0.8".into(), ..moved };
    assert_eq!(store.worker(worker_id(2)).await.unwrap(), Some(expected));
    assert_eq!(store.worker(worker_id(9)).await.unwrap(), None);

    let ids: Vec<_> = store.workers().await.unwrap().into_iter().map(|worker| worker.id).collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!((ids.len(), ids), (3, sorted));
}

pub(super) async fn reservations_are_all_or_nothing(at: &Fresh) {
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    accepted(store.as_ref(), 2).await;
    store.devices_reserve(&[reservation(1, 10, 0b0110, later(100))], NOW).await.unwrap();
    // One of three workers' devices is taken: none of them is.
    let wanted = [
        reservation(2, 9, 0xffff, later(100)),
        reservation(2, 10, 0b0011, later(100)),
        reservation(2, 11, 1, later(100)),
    ];
    assert_conflict(store.devices_reserve(&wanted, NOW).await, "reservation");
    assert_eq!(store.devices_reserved(NOW).await.unwrap(), BTreeMap::from([(worker_id(10), 0b0110)]));
    // The other devices of the same worker are free.
    store.devices_reserve(&[reservation(2, 10, 0b1001, later(100))], NOW).await.unwrap();
    assert_eq!(store.devices_reserved(NOW).await.unwrap(), BTreeMap::from([(worker_id(10), 0b1111)]));
    store.devices_reserve(&[], NOW).await.unwrap();
    store.devices_reserve(&[reservation(2, 12, 0, later(100))], NOW).await.unwrap();
    assert_eq!(store.devices_reserved(NOW).await.unwrap().len(), 1);
    let unknown = store.devices_reserve(&[reservation(9, 12, 1, later(100))], NOW).await;
    assert_not_found(unknown, "row that this one belongs to");
}

pub(super) async fn a_reservation_lapses_is_renewed_and_dropped(at: &Fresh) {
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    accepted(store.as_ref(), 2).await;
    let held = |until| reservation(1, 10, 0b0011, until);
    let wanted = reservation(2, 10, 0b0010, UnixMs(u64::MAX));
    store.devices_reserve(&[held(later(100))], NOW).await.unwrap();
    store.devices_reserve(&[held(later(200))], later(50)).await.unwrap();
    assert_conflict(store.devices_reserve(&[wanted], later(199)).await, "reservation");
    assert_eq!(store.devices_reserved(later(199)).await.unwrap(), BTreeMap::from([(worker_id(10), 0b0011)]));
    assert_eq!(store.devices_reserved(later(200)).await.unwrap(), BTreeMap::new());
    store.devices_reserve(&[wanted], later(200)).await.unwrap();
    assert_eq!(store.devices_reserved(later(200)).await.unwrap(), BTreeMap::from([(worker_id(10), 0b0010)]));
    // The first job comes late.
    assert_conflict(store.devices_reserve(&[held(later(900))], later(201)).await, "reservation");
    store.devices_unreserve(job_id(1)).await.unwrap();
    assert_eq!(store.devices_reserved(later(201)).await.unwrap().len(), 1, "another job's stays");
    store.devices_unreserve(job_id(2)).await.unwrap();
    store.devices_unreserve(job_id(2)).await.unwrap();
    store.devices_reserve(&[held(later(900))], later(201)).await.unwrap();
}

pub(super) async fn one_call_cannot_promise_a_device_twice(at: &Fresh) {
    let store = at.open().await;
    accepted(store.as_ref(), 1).await;
    accepted(store.as_ref(), 2).await;
    let both = [reservation(1, 10, 0b011, later(100)), reservation(2, 10, 0b110, later(100))];
    assert_conflict(store.devices_reserve(&both, NOW).await, "reservation");
    assert_eq!(store.devices_reserved(NOW).await.unwrap(), BTreeMap::new());
    // Twice for the same job is once.
    let twice = [reservation(1, 10, 0b011, later(100)), reservation(1, 10, 0b110, later(100))];
    store.devices_reserve(&twice, NOW).await.unwrap();
    assert_eq!(store.devices_reserved(NOW).await.unwrap(), BTreeMap::from([(worker_id(10), 0b111)]));
}

//! Values at the border: both engines keep and refuse the same ones.

use atoll_domain::cluster::PodState;
use atoll_domain::time::UnixMs;

use super::make::{NOW, accepted, chain_tx, event, job_now, later, pod, submission, usage, user, worker};
use super::{Fresh, assert_failed};
use crate::store::Accepted;
use crate::store::rows::{JobNow, NewJob, PodChange, User, Worker};

pub(super) async fn words_with_zero_bytes_are_kept_readable(at: &Fresh) {
    let store = at.open().await;
    let (_, job) = accepted(store.as_ref(), 1).await;
    let pod = pod(20, &job, 0);
    // Structured parts come back as they were; words of their own get the replacement character.
    let change = JobNow { reason: "zero\0 \u{1f40b} '; drop table jobs; -- $1 {bytes}".into(), ..job_now() };
    let job = store.pods_add(job.id, 1, &change, std::slice::from_ref(&pod), &[], &[event("zero\0")]).await.unwrap();
    assert_eq!(store.job(job.id).await.unwrap(), Some(job.clone()));
    assert_eq!(store.events(job.id, 1, 9).await.unwrap(), [(2, event("zero\0"))]);
    let ended =
        PodChange { state: Some(PodState::Exited), reason: Some("\0\u{1f40b}'".into()), ..PodChange::default() };
    assert!(store.pod_change(pod.id, &ended, &[]).await.unwrap());
    assert_eq!(store.pod(pod.id).await.unwrap().unwrap().reason, "\u{fffd}\u{1f40b}'");
    let named = Worker { advertise: "a\0b".into(), ..worker(1) };
    store.worker_put(&named).await.unwrap();
    assert_eq!(store.worker(named.id).await.unwrap().unwrap().advertise, "a\u{fffd}b");
    assert_eq!(store.user_by_name("no\0body").await.unwrap(), None);
}

pub(super) async fn what_does_not_fit_is_refused_in_words(at: &Fresh) {
    let store = at.open().await;
    let (user, job) = accepted(store.as_ref(), 1).await;
    for bad in [String::new(), "k".repeat(256), "zero\0".into()] {
        let new = NewJob { idempotency_key: bad.clone(), ..submission(2, &user) };
        assert_failed(store.job_accept(&new, NOW).await, "idempotency key must have 1 to 255 bytes");
        assert_failed(store.user_add(&User { name: bad.clone(), ..super::make::user(3) }).await, "user name");
        assert_failed(store.chain_tx_put(&chain_tx(&bad, 1, None)).await, "transaction key");
    }
    let mut dear = submission(2, &user);
    dear.job.escrow = 1 << 63;
    assert_failed(store.job_accept(&dear, NOW).await, "the escrow is 9223372036854775808");
    // Nothing of it stayed.
    assert_eq!(store.job_accept(&submission(2, &user), NOW).await.unwrap(), Accepted::New);

    let pod = pod(20, &job, 0);
    store.pods_add(job.id, 1, &job_now(), std::slice::from_ref(&pod), &[], &[]).await.unwrap();
    assert_failed(store.usage_put(pod.id, &usage(&pod, u64::MAX, 1)).await, "number of records");
    assert_eq!(store.pod(pod.id).await.unwrap().unwrap().usage, None);
}

pub(super) async fn the_largest_values_come_back(at: &Fresh) {
    let store = at.open().await;
    let user = user(1);
    store.user_add(&User { created: UnixMs(u64::MAX), ..user.clone() }).await.unwrap();
    // Time ends at 2^63 - 1 ms.
    let end = UnixMs((1 << 63) - 1);
    assert_eq!(store.user_by_name(&user.name).await.unwrap(), Some(User { created: end, ..user.clone() }));
    let mut new = NewJob { idempotency_key: "k".repeat(255), ..submission(1, &user) };
    new.job.escrow = (1 << 63) - 1;
    new.job.spec = vec![0xff; 64 * 1024];
    new.job.order_tx = Vec::new();
    new.job.name = String::new();
    new.job.now.log_bytes = u64::MAX;
    new.nonce_forget_at = UnixMs(u64::MAX);
    assert_eq!(store.job_accept(&new, NOW).await.unwrap(), Accepted::New);
    assert_eq!(store.job(new.job.id).await.unwrap(), Some(new.job.clone()));
    let (signer, nonce) = new.seal;
    assert!(!store.nonce_use(&signer, &nonce, later(1 << 40), UnixMs(u64::MAX)).await.unwrap());
}

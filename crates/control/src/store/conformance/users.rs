//! Users, keys, nonces.

use atoll_domain::id::ApiKeyId;
use atoll_domain::key::PublicKey;

use super::make::{NOW, api_key, id16, later, user};
use super::{Fresh, assert_conflict, assert_not_found};
use crate::admin::{KeyCreateError, key_create, parse_key};
use crate::store::rows::{ApiKey, User};

pub(super) async fn names_are_unique(at: &Fresh) {
    let store = at.open().await;
    store.user_add(&user(1)).await.unwrap();
    assert_conflict(store.user_add(&User { name: "user-1".into(), ..user(2) }).await, "user");
    assert_conflict(store.user_add(&User { name: "other".into(), ..user(1) }).await, "user");
    assert_eq!(store.user_by_name("user-1").await.unwrap(), Some(user(1)));
    assert_eq!(store.user_by_name("other").await.unwrap(), None);
}

pub(super) async fn keys_are_found_with_their_user(at: &Fresh) {
    let store = at.open().await;
    let key = ApiKey { expires: Some(later(9)), ..api_key(5, &user(1)) };
    assert_not_found(store.api_key_add(&key).await, "row that this one belongs to");
    store.user_add(&user(1)).await.unwrap();
    store.api_key_add(&key).await.unwrap();
    assert_conflict(store.api_key_add(&key).await, "API key");
    assert_eq!(store.api_key(key.id).await.unwrap(), Some((key.clone(), user(1))));

    let unknown = ApiKeyId::from_random(id16(6));
    assert_eq!(store.api_key(unknown).await.unwrap(), None);
    assert_not_found(store.api_key_revoke(unknown, NOW).await, "API key");
    store.api_key_revoke(key.id, later(1)).await.unwrap();
    store.api_key_revoke(key.id, later(2)).await.unwrap();
    let revoked = ApiKey { revoked: Some(later(1)), ..key.clone() };
    assert_eq!(store.api_key(key.id).await.unwrap(), Some((revoked, user(1))));
}

pub(super) async fn a_nonce_counts_once_until_its_end(at: &Fresh) {
    let store = at.open().await;
    let (signer, other) = (user(1).wallet, user(2).wallet);
    assert!(store.nonce_use(&signer, &id16(1), NOW, later(100)).await.unwrap());
    assert!(!store.nonce_use(&signer, &id16(1), NOW, later(500)).await.unwrap());
    assert!(!store.nonce_use(&signer, &id16(1), later(99), later(500)).await.unwrap());
    // Another signer's, and another of the same signer's.
    assert!(store.nonce_use(&other, &id16(1), NOW, later(100)).await.unwrap());
    assert!(store.nonce_use(&signer, &id16(2), NOW, later(100)).await.unwrap());
    // Forgotten at its end, then remembered anew.
    assert!(store.nonce_use(&signer, &id16(1), later(100), later(200)).await.unwrap());
    assert!(!store.nonce_use(&signer, &id16(1), later(150), later(200)).await.unwrap());
}

pub(super) async fn an_operator_makes_keys(at: &Fresh) {
    let store = at.open().await;
    let mut draw = 0_u8;
    let mut random = |bytes: &mut [u8]| {
        draw += 1;
        bytes.fill(draw);
    };
    let wallet = PublicKey([3; 32]);
    let first = key_create(store.as_ref(), "ada", wallet, NOW, &mut random).await.unwrap();
    let second = key_create(store.as_ref(), "ada", wallet, NOW, &mut random).await.unwrap();
    let (id, digest) = parse_key(&first).unwrap();
    let (key, owner) = store.api_key(id).await.unwrap().unwrap();
    assert_eq!((key.secret_sha256, owner.name.as_str(), owner.wallet), (digest, "ada", wallet));
    let (id, other_digest) = parse_key(&second).unwrap();
    assert_ne!(digest, other_digest);
    assert_eq!(store.api_key(id).await.unwrap().unwrap().1, owner);

    let stranger = key_create(store.as_ref(), "ada", PublicKey([4; 32]), NOW, &mut random).await;
    assert!(matches!(stranger, Err(KeyCreateError::OtherWallet { .. })), "{stranger:?}");
    for bad in ["", "a b", "zero\0", &"n".repeat(65)] {
        let refused = key_create(store.as_ref(), bad, wallet, NOW, &mut random).await;
        assert!(matches!(refused, Err(KeyCreateError::Name)), "{refused:?}");
    }
}

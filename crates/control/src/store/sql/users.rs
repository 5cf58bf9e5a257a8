//! Users, their API keys, and the nonces of their signed requests.

use atoll_domain::id::ApiKeyId;
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::time::UnixMs;

use super::super::rows::{ApiKey, User};
use super::super::{Result, StoreError};
use super::tx::Tx;
use super::value::{Reader, Value};

pub(super) async fn add(tx: &mut Tx<'_>, user: &User) -> Result<()> {
    let added = tx
        .execute(
            "insert into users (id, name, wallet, created) values ($1, $2, $3, $4) on conflict do nothing",
            &[
                Value::shown(user.id),
                Value::key("user name", &user.name)?,
                Value::bytes(&user.wallet.0),
                Value::time(user.created),
            ],
        )
        .await?;
    if added == 0 { Err(StoreError::Conflict { what: "user" }) } else { Ok(()) }
}

pub(super) fn user(row: &mut Reader) -> Result<User> {
    Ok(User { id: row.parsed()?, name: row.text()?, wallet: PublicKey(row.array()?), created: row.time()? })
}

pub(super) async fn by_name(tx: &mut Tx<'_>, name: &str) -> Result<Option<User>> {
    let row =
        tx.query_first("select id, name, wallet, created from users where name = $1", &[Value::words(name)]).await?;
    row.map(|row| user(&mut row.read("user"))).transpose()
}

pub(super) async fn key_add(tx: &mut Tx<'_>, key: &ApiKey) -> Result<()> {
    let added = tx
        .execute(
            "insert into api_keys (id, user_id, secret_sha256, created, expires, revoked) \
             values ($1, $2, $3, $4, $5, $6) on conflict (id) do nothing",
            &[
                Value::shown(key.id),
                Value::shown(key.user),
                Value::bytes(&key.secret_sha256.0),
                Value::time(key.created),
                Value::or_null(key.expires.map(Value::time)),
                Value::or_null(key.revoked.map(Value::time)),
            ],
        )
        .await?;
    if added == 0 { Err(StoreError::Conflict { what: "API key" }) } else { Ok(()) }
}

pub(super) async fn key(tx: &mut Tx<'_>, id: ApiKeyId) -> Result<Option<(ApiKey, User)>> {
    let row = tx
        .query_first(
            "select k.id, k.user_id, k.secret_sha256, k.created, k.expires, k.revoked, \
             u.id, u.name, u.wallet, u.created \
             from api_keys k join users u on u.id = k.user_id where k.id = $1",
            &[Value::shown(id)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.read("API key");
    let key = ApiKey {
        id: row.parsed()?,
        user: row.parsed()?,
        secret_sha256: Digest(row.array()?),
        created: row.time()?,
        expires: row.opt_time()?,
        revoked: row.opt_time()?,
    };
    Ok(Some((key, user(&mut row)?)))
}

pub(super) async fn key_revoke(tx: &mut Tx<'_>, id: ApiKeyId, now: UnixMs) -> Result<()> {
    let found = tx
        .execute(
            "update api_keys set revoked = coalesce(revoked, $2) where id = $1",
            &[Value::shown(id), Value::time(now)],
        )
        .await?;
    if found == 0 { Err(StoreError::NotFound { what: "API key" }) } else { Ok(()) }
}

/// Remembers a nonce; false when it is remembered already.
pub(super) async fn nonce_remember(
    tx: &mut Tx<'_>,
    signer: &PublicKey,
    nonce: &[u8; 16],
    now: UnixMs,
    forget_at: UnixMs,
) -> Result<bool> {
    let written = tx
        .execute(
            "insert into nonces (signer, nonce, forget_at) values ($1, $2, $3) \
             on conflict (signer, nonce) do update set forget_at = excluded.forget_at where nonces.forget_at <= $4",
            &[Value::bytes(&signer.0), Value::bytes(nonce), Value::time(forget_at), Value::time(now)],
        )
        .await?;
    Ok(written == 1)
}

/// Drops nonces whose time is over.
pub(super) async fn nonces_drop(tx: &mut Tx<'_>, now: UnixMs) -> Result<()> {
    tx.execute("delete from nonces where forget_at <= $1", &[Value::time(now)]).await.map(drop)
}

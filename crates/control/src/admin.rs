//! What an operator does at the machine itself: making API keys.
//!
//! A key is `atoll_<id>_<secret>`: 26 characters that find its row, 32 random bytes in hexadecimal that prove it. Only
//! the secret's digest is stored; the text is shown once. Checking a shown key is `http`'s part.

use atoll_domain::id::{ApiKeyId, UserId};
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::time::UnixMs;

use crate::store::rows::{ApiKey, User};
use crate::store::{Store, StoreError};

/// What every key starts with, so that people and secret scanners know it.
const PREFIX: &str = "atoll_";
/// Characters of an id after its own prefix.
const ID_LEN: usize = 26;
/// Bytes of a key's secret.
const SECRET_LEN: usize = 32;
/// The longest name of a user.
const NAME_LEN_MAX: usize = 64;

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum KeyCreateError {
    /// Not a name.
    #[error("a user's name has 1 to {NAME_LEN_MAX} letters, digits, `-`, `_`, `.` or `@`: choose another")]
    Name,
    /// The name belongs to someone else's wallet.
    #[error("the user {name} has the wallet {wallet}: give that wallet, or choose another name")]
    OtherWallet {
        /// The user.
        name: String,
        /// The wallet it was added with.
        wallet: PublicKey,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes an API key without expiry for a user, who is added when new. The text is returned here and kept nowhere.
///
/// # Errors
/// [`KeyCreateError`]; no key was made.
pub async fn key_create(
    store: &dyn Store,
    name: &str,
    wallet: PublicKey,
    now: UnixMs,
    random: &mut (dyn FnMut(&mut [u8]) + Send),
) -> Result<String, KeyCreateError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(allowed) {
        return Err(KeyCreateError::Name);
    }
    let (mut user_id, mut key_id, mut secret) = ([0; 16], [0; 16], [0; SECRET_LEN]);
    random(&mut user_id);
    random(&mut key_id);
    random(&mut secret);

    let new = User { id: UserId::from_random(user_id), name: name.to_owned(), wallet, created: now };
    let user = match store.user_add(&new).await {
        Ok(()) => new,
        Err(StoreError::Conflict { .. }) => {
            store.user_by_name(name).await?.ok_or(StoreError::Conflict { what: "user" })?
        }
        Err(error) => return Err(error.into()),
    };
    if user.wallet != wallet {
        return Err(KeyCreateError::OtherWallet { name: user.name, wallet: user.wallet });
    }
    let id = ApiKeyId::from_random(key_id);
    let key =
        ApiKey { id, user: user.id, secret_sha256: Digest::of(&secret), created: now, expires: None, revoked: None };
    store.api_key_add(&key).await?;
    let shown = id.to_string();
    let (_, id) = shown.split_once('_').expect("an id is shown as its prefix, an underscore and 26 characters");
    Ok(format!("{PREFIX}{id}_{}", hex::encode(secret)))
}

/// The id and the secret's digest of a shown key; `None` when it does not even look like one. The caller compares the
/// digest with the stored one in constant time.
#[must_use]
pub fn parse_key(shown: &str) -> Option<(ApiKeyId, Digest)> {
    let rest = shown.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_at_checked(ID_LEN)?;
    let secret = secret.strip_prefix('_').filter(|secret| secret.len() == 2 * SECRET_LEN)?;
    // One text for one key: capitals are refused.
    if secret.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let id = format!("{}_{id}", ApiKeyId::PREFIX).parse().ok()?;
    Some((id, Digest::of(&hex::decode(secret).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_one_form_only() {
        let (id, secret) = ("0123456789abcdefghjkmnpqr0", "0f".repeat(32));
        let good = format!("atoll_{id}_{secret}");
        assert_eq!(parse_key(&good), Some((format!("key_{id}").parse().unwrap(), Digest::of(&[0x0f; 32]))));
        for bad in [
            String::new(),
            "atoll_".into(),
            good.replace('_', "-"),
            good.to_uppercase(),
            format!("atoll_{id}_{}", "0F".repeat(32)),
            format!("{good}0"),
            format!(" {good}"),
            good[..good.len() - 1].to_owned(),
            good.replace("0f", "0g"),
            format!("atoll_key_{id}_{secret}"),
            format!("atoll_{}_{secret}", "ü".repeat(13)),
            format!("atoll_{}_{secret}", "ü".repeat(14)),
        ] {
            assert_eq!(parse_key(&bad), None, "{bad}");
        }
    }
}

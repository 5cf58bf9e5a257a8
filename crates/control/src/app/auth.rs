//! Who asks, and whether a wallet stands behind it.

use atoll_domain::id::ApiKeyId;
use atoll_domain::key::PublicKey;
use atoll_domain::request::RequestSeal;
use atoll_domain::time::UnixMs;
use subtle::ConstantTimeEq as _;

use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::store::rows::User;

/// Someone whose API key was checked.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// The key shown.
    pub key: ApiKeyId,
}

/// Checks an API key (`atoll_<id>_<secret>`).
///
/// # Errors
/// [`Code::Unauthenticated`], the same for an unknown key and a wrong secret; [`Code::KeyExpired`] only to whoever
/// holds the secret.
pub async fn authenticate(control: &Control, shown: &str) -> Result<Caller, ApiError> {
    let refused = || {
        let next = "make one with `atoll admin key create` on the server, or put the right one into your profile";
        ApiError::new(Code::Unauthenticated, format!("the API key is not one of this operator's: {next}"))
    };
    let (id, secret_sha256) = crate::admin::parse_key(shown).ok_or_else(refused)?;
    let (key, user) = control.store.api_key(id).await?.ok_or_else(refused)?;
    if !bool::from(secret_sha256.0.ct_eq(&key.secret_sha256.0)) {
        return Err(refused());
    }
    let over = |when: UnixMs, verb: &str| {
        Err(ApiError::new(
            Code::KeyExpired,
            format!("the API key {id} {verb} at {when}: ask the operator for a new one"),
        ))
    };
    match (key.revoked, key.expires) {
        (Some(when), _) => over(when, "was ended"),
        (None, Some(when)) if when <= control.now() => over(when, "expired"),
        _ => Ok(Caller { user, key: id }),
    }
}

/// Checks that a request is sealed by its user's wallet, now. Whether the nonce is new is the store's to say.
///
/// # Errors
/// [`Code::SealRefused`] or [`Code::WrongWallet`].
pub fn check_seal(
    caller: &Caller,
    seal: &RequestSeal,
    method: &str,
    path: &str,
    body: &[u8],
    now: UnixMs,
) -> Result<(), ApiError> {
    check_sealed(seal, method, path, body, now)?;
    check_sealer(caller, seal, None)
}

/// Checks that somebody sealed exactly this request, now; [`check_sealer`] says who may.
///
/// # Errors
/// [`Code::SealRefused`].
pub fn check_sealed(seal: &RequestSeal, method: &str, path: &str, body: &[u8], now: UnixMs) -> Result<(), ApiError> {
    seal.verify(method, path, body, now).map_err(|error| ApiError::new(Code::SealRefused, error.to_string()))
}

/// Checks that a seal is the user's: of its wallet or, for a job that a session key orders, of that key. Whose key it is
/// stands in the job's specification, and the chain holds the two together.
///
/// # Errors
/// [`Code::WrongWallet`].
pub fn check_sealer(caller: &Caller, seal: &RequestSeal, budget: Option<PublicKey>) -> Result<(), ApiError> {
    if seal.signer == caller.user.wallet || budget == Some(seal.signer) {
        return Ok(());
    }
    let (signer, user, wallet) = (seal.signer, &caller.user.name, caller.user.wallet);
    let message =
        format!("the request is sealed by {signer}, and `{user}` acts with {wallet}: use that wallet, or another key");
    Err(ApiError::new(Code::WrongWallet, message))
}

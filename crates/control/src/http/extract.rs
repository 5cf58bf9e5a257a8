//! What handlers take out of requests: the caller, bounded bodies, ids, queries, seals. Refusals are [`ApiError`]s.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::http::{IDEMPOTENCY_HEADER, SEAL_HEADERS};
use atoll_domain::request::RequestSeal;
use atoll_domain::time::UnixMs;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::Api;
use super::limit::Whose;
use crate::app::auth::{self, Caller};
use crate::error::{ApiError, Code};
use crate::tls::Peer;

/// The longest a small body may take.
const BODY_MAX: Duration = Duration::from_secs(20);

fn limited(api: &Api, whose: Whose) -> Result<(), ApiError> {
    if api.limits.take(whose, api.control.now()) {
        return Ok(());
    }
    let per_s = api.control.config.requests_per_s;
    let message = format!("too many requests: at most {per_s} a second are answered; wait a moment and repeat it");
    Err(ApiError::new(Code::RateLimited, message))
}

fn address_limited(parts: &Parts, api: &Api) -> Result<(), ApiError> {
    match parts.extensions.get::<Peer>() {
        Some(peer) => limited(api, Whose::Address(peer.address.ip())),
        None => Ok(()),
    }
}

/// The text after `Bearer `, if the header is there.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Some(shown) = bearer(&parts.headers) else {
            address_limited(parts, api)?;
            let next = "put `Authorization: Bearer atoll_…` into the request, or run `atoll login`";
            return Err(ApiError::new(Code::Unauthenticated, format!("this needs an API key: {next}")));
        };
        match auth::authenticate(&api.control, shown).await {
            Ok(caller) => limited(api, Whose::Key(caller.key)).map(|()| caller),
            Err(error) => address_limited(parts, api).and(Err(error)),
        }
    }
}

/// Anybody: a public page, limited by address.
#[derive(Debug)]
pub(crate) struct Anyone;

impl FromRequestParts<Api> for Anyone {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        address_limited(parts, api).map(|()| Self)
    }
}

/// The query, refused in this API's words.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| ApiError::new(Code::BadRequest, error.body_text()))
    }
}

/// An id in a path; text that is none names nothing.
pub(crate) fn id<T: FromStr>(text: &str, what: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::not_found(what))
}

/// A whole body of at most `bytes_max`, arrived in time.
pub(crate) async fn body(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_MAX, Limited::new(body, bytes_max).collect()).await;
    let Ok(collected) = collected else {
        let message = format!("the request's body did not arrive within {} s: send it again", BODY_MAX.as_secs());
        return Err(ApiError::new(Code::TooSlow, message));
    };
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return ApiError::new(
                Code::BodyTooLarge,
                format!("the body has more than {bytes_max} bytes, the most read here"),
            );
        }
        ApiError::new(Code::BadRequest, "the request's body broke off: send it again")
    })
}

/// Reads JSON.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        // A parser repeats names that it does not know, however long they are.
        let why: String = error.to_string().chars().take(300).collect();
        ApiError::new(Code::BadRequest, format!("the body is not what this takes: {why}"))
    })
}

/// The seal in a request's headers.
pub(crate) fn seal(headers: &HeaderMap) -> Result<RequestSeal, ApiError> {
    let text = |at: usize| headers.get(SEAL_HEADERS[at]).and_then(|value| value.to_str().ok());
    let [Some(signer), Some(expires), Some(nonce), Some(signature)] = [text(0), text(1), text(2), text(3)] else {
        let message =
            format!("this moves money or leases and needs a wallet's seal: headers {}", SEAL_HEADERS.join(", "));
        return Err(ApiError::new(Code::SealMissing, message));
    };
    let refused = |at: usize| ApiError::new(Code::SealRefused, format!("`{}` cannot be read", SEAL_HEADERS[at]));
    let mut bytes = [0; 16];
    hex::decode_to_slice(nonce, &mut bytes).map_err(|_| refused(2))?;
    Ok(RequestSeal {
        signer: signer.parse().map_err(|_| refused(0))?,
        expires: UnixMs(expires.parse().map_err(|_| refused(1))?),
        nonce: bytes,
        signature: signature.parse().map_err(|_| refused(3))?,
    })
}

/// The idempotency key in a request's headers.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let key = headers.get(IDEMPOTENCY_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if (1..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(key.to_owned());
    }
    let message =
        format!("`{IDEMPOTENCY_HEADER}` must have 1 to 64 visible characters: it makes a retry the same request");
    Err(ApiError::new(Code::IdempotencyKeyMissing, message))
}

/// The latest view of the chain.
pub(crate) fn market(control: &Arc<crate::control::Control>) -> Result<Arc<crate::app::market::MarketView>, ApiError> {
    control.market.snapshot().ok_or_else(|| {
        let unread = "this node has not read the chain yet: try again in a few seconds".to_owned();
        ApiError::new(Code::NotReady, control.market.refusal().unwrap_or(unread))
    })
}

//! The one error at the HTTP border.
//!
//! A [`Code`] is stable, has one status and a page in `docs/errors/`. The message is public and says what happened and
//! what to do next; what only the operator may see is `context`, logged once here when the answer is rendered.

use atoll_api::http::{ErrorBody, RefusedWorker};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::store::StoreError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident;)*) => {
        /// Why a request was refused: stable names, only added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, for the check that each has its page.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name on the wire.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The HTTP status it comes with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }
        }
    };
}

codes! {
    /// No usable API key.
    Unauthenticated = "unauthenticated", UNAUTHORIZED;
    /// The key's time is over, or it was ended.
    KeyExpired = "key_expired", UNAUTHORIZED;
    /// The request needs a wallet's seal and has none.
    SealMissing = "seal_missing", UNAUTHORIZED;
    /// The seal does not fit the request, or its time is over.
    SealRefused = "seal_refused", UNAUTHORIZED;
    /// The seal or the specification is another wallet's than the user's.
    WrongWallet = "wrong_wallet", FORBIDDEN;
    /// The same seal was used before.
    ReplayedRequest = "replayed_request", CONFLICT;
    /// No usable idempotency key.
    IdempotencyKeyMissing = "idempotency_key_missing", BAD_REQUEST;
    /// The idempotency key stands for another request.
    IdempotencyKeyReused = "idempotency_key_reused", CONFLICT;
    /// Not a request of this API.
    BadRequest = "bad_request", BAD_REQUEST;
    /// More bytes than this route reads.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The body did not arrive in time.
    TooSlow = "too_slow", REQUEST_TIMEOUT;
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS;
    /// No such path.
    NoSuchRoute = "no_such_route", NOT_FOUND;
    /// The path does not take this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// No such object, or not the caller's.
    NotFound = "not_found", NOT_FOUND;
    /// The job specification is out of bounds.
    BadSpec = "bad_spec", UNPROCESSABLE_ENTITY;
    /// The specification is not signed by its renter.
    SpecNotSigned = "spec_not_signed", UNPROCESSABLE_ENTITY;
    /// The specification is meant for another network.
    OtherNetwork = "other_network", UNPROCESSABLE_ENTITY;
    /// The order transaction does not fit the specification.
    BadOrder = "bad_order", UNPROCESSABLE_ENTITY;
    /// No such device model.
    UnknownModel = "unknown_model", UNPROCESSABLE_ENTITY;
    /// The job's folder was not uploaded.
    BundleMissing = "bundle_missing", UNPROCESSABLE_ENTITY;
    /// The renter's account cannot pay the escrow.
    InsufficientFunds = "insufficient_funds", PAYMENT_REQUIRED;
    /// The session key that orders has ended, or may not escrow so much.
    BudgetRefused = "budget_refused", PAYMENT_REQUIRED;
    /// Nobody can serve it now.
    CannotBeFilled = "cannot_be_filled", UNPROCESSABLE_ENTITY;
    /// The extension's transaction does not fit the order.
    BadExtension = "bad_extension", UNPROCESSABLE_ENTITY;
    /// No lease of the order can be lengthened now.
    CannotBeExtended = "cannot_be_extended", UNPROCESSABLE_ENTITY;
    /// Another job runs under this order.
    OrderTaken = "order_taken", CONFLICT;
    /// The bytes are not those that their digest names.
    DigestMismatch = "digest_mismatch", UNPROCESSABLE_ENTITY;
    /// Somebody else changed it at the same time, again and again.
    Conflict = "conflict", CONFLICT;
    /// The receipt is not written yet.
    NotSettled = "not_settled", NOT_FOUND;
    /// The cluster's head cannot be reached.
    HeadUnreachable = "head_unreachable", BAD_GATEWAY;
    /// The node has not read the chain yet, or the chain does not answer.
    NotReady = "not_ready", SERVICE_UNAVAILABLE;
    /// The operator's disk is full.
    DiskFull = "disk_full", INSUFFICIENT_STORAGE;
    /// The operator's fault.
    Internal = "internal", INTERNAL_SERVER_ERROR;
    /// In a pod: the credential is not this pod's, or the pod is over.
    BadPodToken = "bad_pod_token", UNAUTHORIZED;
    /// In a pod: another attempt of the command has taken over.
    StaleAttempt = "stale_attempt", CONFLICT;
    /// In a pod: a manifest names a blob that is not there.
    BlobMissing = "blob_missing", CONFLICT;
    /// In a pod: the job has used up its room in the object store.
    QuotaExceeded = "quota_exceeded", INSUFFICIENT_STORAGE;
    /// On the link: the first message is no `Hello`, or not in time.
    LinkBadHello = "link_bad_hello", BAD_REQUEST;
    /// On the link: another version.
    LinkOtherVersion = "link_other_version", BAD_REQUEST;
    /// On the link: the device key's proof does not fit this connection.
    LinkBadProof = "link_bad_proof", UNAUTHORIZED;
    /// On the link: the chain does not show this device key in this slot.
    LinkNotOnChain = "link_not_on_chain", FORBIDDEN;
    /// On the link: a frame that is none, out of order, or of another session.
    LinkBadFrame = "link_bad_frame", BAD_REQUEST;
    /// On the link: the same device key linked again.
    LinkReplaced = "link_replaced", CONFLICT;
    /// On the link: the worker leaves too much unacknowledged.
    LinkTooSlow = "link_too_slow", TOO_MANY_REQUESTS;
}

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError {
    /// Its stable name.
    pub code: Code,
    /// For the caller.
    pub message: String,
    /// Why each worker was refused, where that is the cause.
    pub refusals: Vec<RefusedWorker>,
    /// For the operator only.
    pub context: Option<anyhow::Error>,
}

impl ApiError {
    /// A refusal in words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), refusals: Vec::new(), context: None }
    }

    /// Something that is not there, or not the caller's to see.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("there is no such {what} under your key: check its id and the profile you use"),
        )
    }

    /// A failure of this operator, whose cause stays here.
    #[must_use]
    pub fn internal(context: impl Into<anyhow::Error>) -> Self {
        let message = "the operator could not carry this out; nothing was changed. Try again, and tell the operator the time if it persists";
        Self { context: Some(context.into()), ..Self::new(Code::Internal, message) }
    }

    /// The disk of the store or of the object store is full.
    fn disk_full(context: impl Into<anyhow::Error>) -> Self {
        let message = "the operator's disk is full; nothing was changed. Try again later, and tell the operator";
        Self { context: Some(context.into()), ..Self::new(Code::DiskFull, message) }
    }

    /// The chain does not answer.
    #[must_use]
    pub fn chain(context: atoll_chain::RpcError) -> Self {
        let message = "the operator's chain node does not answer now; nothing was changed. Try again in a few seconds";
        Self { context: Some(context.into()), ..Self::new(Code::NotReady, message) }
    }

    /// Adds the workers' refusals.
    #[must_use]
    pub fn with_refusals(self, refusals: Vec<RefusedWorker>) -> Self {
        Self { refusals, ..self }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::not_found(what),
            StoreError::Conflict { what } => Self::new(
                Code::Conflict,
                format!("the {what} changed at the same moment: read it again and repeat the request"),
            ),
            StoreError::Engine(_) if error.is_full() => Self::disk_full(error),
            StoreError::Engine(_) | StoreError::Outdated { .. } | StoreError::Corrupt { .. } => Self::internal(error),
        }
    }
}

impl From<crate::objects::ObjectError> for ApiError {
    fn from(error: crate::objects::ObjectError) -> Self {
        use crate::objects::ObjectError as E;
        match error {
            E::Digest { .. } => Self::new(Code::DigestMismatch, error.to_string()),
            E::TooLarge { .. } => Self::new(Code::BodyTooLarge, error.to_string()),
            E::Quota { .. } => Self::new(Code::QuotaExceeded, error.to_string()),
            E::CutOff(_) => Self::new(Code::TooSlow, error.to_string()),
            E::Conflict(_) => Self::new(Code::Conflict, error.to_string()),
            E::Engine(_) if error.is_full() => Self::disk_full(error),
            E::Engine(_) | E::Corrupt(_) => Self::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Some(context) = &self.context {
            tracing::error!(code = self.code.word(), error = format!("{context:#}"), "a request failed");
        }
        let body = ErrorBody { code: self.code.word().to_owned(), message: self.message, refusals: self.refusals };
        (self.code.status(), axum::Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_its_page_and_every_page_its_code() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        let words: BTreeSet<String> = Code::ALL.iter().map(|code| code.word().to_owned()).collect();
        let mut pages = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let word = path.file_stem().unwrap().to_str().unwrap().to_owned();
            // The market program's numbers have one page, which its own test reads.
            if word == "market" {
                continue;
            }
            for part in ["# `", "**What happened.**", "**Why.**", "**What to do.**"] {
                assert!(text.contains(part), "{word}.md lacks `{part}`");
            }
            pages.insert(word);
        }
        assert_eq!(words.len(), Code::ALL.len(), "two codes have one name");
        let missing: Vec<_> = words.difference(&pages).collect();
        assert!(missing.is_empty(), "codes without docs/errors/<code>.md: {missing:?}");
    }
}

//! Signed requests: what a client signs when it asks for something that moves money or leases.
//!
//! The signature covers method, path, body, expiry and a nonce. A request is accepted once: the nonce is kept longer
//! than the request lives.

use std::time::Duration;

use crate::key::{Digest, KeyError, PublicKey, Purpose, SecretKey, Signature};
use crate::time::UnixMs;

/// The longest a signed request may live: five minutes, enough for a slow upload and a skewed clock.
pub const REQUEST_LIFE_MAX: Duration = Duration::from_secs(300);
/// How far in the past its expiry may lie because clocks differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(30);
/// How long a nonce is remembered: life and skew on both sides, doubled.
pub const NONCE_KEPT: Duration = Duration::from_secs(2 * (300 + 2 * 30));

/// The signed part of a request, beside its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestSeal {
    /// Who asks.
    pub signer: PublicKey,
    /// Until when this may be accepted.
    pub expires: UnixMs,
    /// Drawn anew for each request.
    pub nonce: [u8; 16],
    /// Over everything above and the request.
    pub signature: Signature,
}

/// Why a signed request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Its time is over.
    #[error("the request expired at {0}: sign a new one (check this machine's clock)")]
    Expired(UnixMs),
    /// Its time lies too far ahead.
    #[error(
        "the request expires at {0}, more than five minutes ahead: sign a shorter one (check this machine's clock)"
    )]
    TooFarAhead(UnixMs),
    /// Another key, another request, or changed on the way.
    #[error("the request's signature does not fit: {0}")]
    BadSignature(#[from] KeyError),
}

fn message(method: &str, path: &str, body: &[u8], expires: UnixMs, nonce: &[u8; 16]) -> Vec<u8> {
    let head = format!("{method}\n{path}\n{}\n{}\n", expires.0, hex::encode(nonce));
    [head.as_bytes(), &Digest::of(body).0].concat()
}

impl RequestSeal {
    /// Signs one request.
    #[must_use]
    pub fn sign(key: &SecretKey, method: &str, path: &str, body: &[u8], expires: UnixMs, nonce: [u8; 16]) -> Self {
        let signature = key.sign(Purpose::Request, &message(method, path, body, expires, &nonce));
        Self { signer: key.public(), expires, nonce, signature }
    }

    /// Checks time and signature. Whether the nonce is new is the store's to say.
    ///
    /// # Errors
    /// [`SealError`]; the request must not be carried out.
    pub fn verify(&self, method: &str, path: &str, body: &[u8], now: UnixMs) -> Result<(), SealError> {
        if self.expires.after(CLOCK_SKEW) < now {
            return Err(SealError::Expired(self.expires));
        }
        if now.after(REQUEST_LIFE_MAX).after(CLOCK_SKEW) < self.expires {
            return Err(SealError::TooFarAhead(self.expires));
        }
        self.signer.verify(
            Purpose::Request,
            &message(method, path, body, self.expires, &self.nonce),
            &self.signature,
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_fits_one_request_for_five_minutes() {
        let key = SecretKey::from_seed(&[1; 32]);
        let (now, end) = (UnixMs(1_000_000), UnixMs(1_200_000));
        let seal = RequestSeal::sign(&key, "POST", "/v1/jobs", b"{}", end, [7; 16]);
        assert_eq!(seal.verify("POST", "/v1/jobs", b"{}", now), Ok(()));
        assert!(matches!(seal.verify("POST", "/v1/jobs", b"{ }", now), Err(SealError::BadSignature(_))));
        assert!(matches!(seal.verify("POST", "/v1/jobs/x/stop", b"{}", now), Err(SealError::BadSignature(_))));
        assert!(matches!(seal.verify("POST", "/v1/jobs", b"{}", UnixMs(1_230_001)), Err(SealError::Expired(_))));
        assert!(matches!(seal.verify("POST", "/v1/jobs", b"{}", UnixMs(0)), Err(SealError::TooFarAhead(_))));
        let moved = RequestSeal { expires: UnixMs(1_250_000), ..seal };
        assert!(matches!(moved.verify("POST", "/v1/jobs", b"{}", now), Err(SealError::BadSignature(_))));
    }
}

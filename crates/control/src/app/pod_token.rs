//! The credential of one pod at its object store.
//!
//! `<pod id>.<HMAC-SHA-256 in hexadecimal>`: nothing is stored, any node with the operator's secret can check it. It
//! says only which pod speaks; whether that pod still counts is looked up on every request.

use atoll_domain::id::{ClusterId, PodId};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Put before the pod's id.
const SEPARATOR: &[u8] = b"atoll/pod-token/1";
/// Put before the cluster's id.
const RUNTIME_SEPARATOR: &[u8] = b"atoll/runtime-token/1";
/// SHA-256's block, in bytes (RFC 2104).
const BLOCK_BYTES: usize = 64;

/// The credential of a pod.
#[must_use]
pub fn issue(secret: &[u8; 32], pod: PodId) -> String {
    format!("{pod}.{}", hex::encode(mac(secret, pod)))
}

/// The pod that a credential belongs to; none when it was not issued under this secret.
#[must_use]
pub fn check(secret: &[u8; 32], token: &str) -> Option<PodId> {
    if token.len() > 128 {
        return None;
    }
    let (pod, shown) = token.split_once('.')?;
    let pod: PodId = pod.parse().ok()?;
    let shown = hex::decode(shown).ok()?;
    bool::from(shown.ct_eq(&mac(secret, pod))).then_some(pod)
}

/// The access token of a cluster's runtime: fresh per cluster, known to every node of the operator and to nobody else,
/// and the same again when the store was lost.
#[must_use]
pub fn of_runtime(secret: &[u8; 32], cluster: ClusterId) -> String {
    hex::encode(hmac_sha256(secret, &[RUNTIME_SEPARATOR, cluster.to_string().as_bytes()].concat()))
}

fn mac(secret: &[u8; 32], pod: PodId) -> [u8; 32] {
    hmac_sha256(secret, &[SEPARATOR, pod.to_string().as_bytes()].concat())
}

/// HMAC-SHA-256 (RFC 2104) with a key that is at most one block long.
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(out, key)| *out ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_rfc_4231_s() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(hmac_sha256(b"Jefe", b"what do ya want for nothing?")), expected);
    }

    #[test]
    fn a_token_is_one_pod_s_under_one_secret() {
        let (pod, other) = (PodId::from_random([1; 16]), PodId::from_random([2; 16]));
        let token = issue(&[7; 32], pod);
        assert_eq!(check(&[7; 32], &token), Some(pod));
        assert_eq!(check(&[8; 32], &token), None);
        assert_eq!(check(&[7; 32], &token.replace(&pod.to_string(), &other.to_string())), None);
        for bad in ["", ".", "x.y", &token[..token.len() - 2], &format!("{token}00"), &"a".repeat(10_000)] {
            assert_eq!(check(&[7; 32], bad), None, "{bad}");
        }
    }
}

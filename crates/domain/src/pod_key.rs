//! A pod key statement as whoever passes it on reads it: whose, for which pod, signed or not.
//!
//! Pods verify statements themselves (`overlay`, whose form this is) and refuse a whole roster for one that is wrong. So
//! the control plane looks first: a supplier that signs nonsense, or another pod's address, stops its own pod and nobody
//! else's.

use std::net::Ipv4Addr;

use crate::key::{Address, PublicKey, Purpose, Signature};

/// order 32, lease 32, address 4, X25519 key 32, endpoint 19, expiry 8.
const BODY_BYTES: usize = 127;
/// The body, the device key and its signature.
pub const SIGNED_BYTES: usize = BODY_BYTES + 32 + 64;

/// What a statement must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The order.
    pub order: Address,
    /// The pod's lease.
    pub lease: Address,
    /// The pod's address in the overlay.
    pub address: Ipv4Addr,
    /// Who must have signed.
    pub device_key: PublicKey,
}

/// Why a statement is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The wrong length.
    #[error("a pod key statement has {SIGNED_BYTES} bytes, this one {0}")]
    Length(usize),
    /// About another pod.
    #[error("the pod key statement is about another {0}")]
    Other(&'static str),
    /// Not signed by the pod's device key.
    #[error("the pod key statement is not signed by the pod's device key")]
    Signature,
}

/// Checks that a statement is the pod's own.
///
/// # Errors
/// The first thing that is not.
pub fn check(signed: &[u8], expected: &Expected) -> Result<(), Refused> {
    let whole: &[u8; SIGNED_BYTES] = signed.try_into().map_err(|_| Refused::Length(signed.len()))?;
    let (body, signature) = whole.split_at(BODY_BYTES);
    let (device_key, signature) = signature.split_at(32);
    let same = [
        ("order", &body[..32], expected.order.0.as_slice()),
        ("lease", &body[32..64], &expected.lease.0),
        ("address", &body[64..68], &expected.address.octets()),
        ("device key", device_key, &expected.device_key.0),
    ];
    if let Some((what, ..)) = same.iter().find(|(_, said, meant)| said != meant) {
        return Err(Refused::Other(what));
    }
    let signature = signature.try_into().map(Signature).map_err(|_| Refused::Signature)?;
    expected.device_key.verify(Purpose::PodKey, body, &signature).map_err(|_| Refused::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;

    fn signed(device: &SecretKey) -> (Vec<u8>, Expected) {
        let expected = Expected {
            order: PublicKey([1; 32]),
            lease: PublicKey([2; 32]),
            address: Ipv4Addr::new(10, 77, 0, 3),
            device_key: device.public(),
        };
        let mut bytes = [&expected.order.0[..], &expected.lease.0, &expected.address.octets(), &[9; 59]].concat();
        let signature = device.sign(Purpose::PodKey, &bytes);
        bytes.extend(device.public().0);
        bytes.extend(signature.0);
        (bytes, expected)
    }

    #[test]
    fn only_the_pod_s_own_statement_is_passed_on() {
        let device = SecretKey::from_seed(&[7; 32]);
        let (bytes, expected) = signed(&device);
        assert_eq!(check(&bytes, &expected), Ok(()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(check(&changed, &expected).is_err(), "byte {at} may be changed unseen");
        }
        assert_eq!(check(&bytes[1..], &expected), Err(Refused::Length(SIGNED_BYTES - 1)));
        let head = Expected { address: Ipv4Addr::new(10, 77, 0, 1), ..expected };
        assert_eq!(check(&bytes, &head), Err(Refused::Other("address")));
        let other = SecretKey::from_seed(&[8; 32]);
        assert_eq!(check(&signed(&other).0, &expected), Err(Refused::Other("device key")));
    }
}

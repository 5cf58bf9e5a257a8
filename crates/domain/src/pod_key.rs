//! A pod key statement as whoever passes it on reads it: whose, for which pod, signed or not.
//!
//! Pods verify statements themselves (`overlay`, whose form this is) and refuse a whole roster for one that is wrong. So
//! the control plane looks first: a supplier that signs nonsense, or another pod's address, stops its own pod and nobody
//! else's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// Seconds since 1970; the statement must hold longer.
    pub now_s: u64,
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
    /// Its time is over.
    #[error("the pod key statement has expired")]
    Expired,
    /// No address of one machine, or no port.
    #[error("the endpoint of the pod key statement is nobody's own")]
    Endpoint,
    /// Not signed by the pod's device key.
    #[error("the pod key statement is not signed by the pod's device key")]
    Signature,
}

/// Checks that a statement is the pod's own and one that its peers will take; gives the overlay key, which must be nobody
/// else's in the cluster.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(signed: &[u8], expected: &Expected) -> Result<[u8; 32], Refused> {
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
    let port = u16::from_le_bytes([body[117], body[118]]);
    if port == 0 || !address(body).is_some_and(is_somebodys) {
        return Err(Refused::Endpoint);
    }
    let expires_s = body[119..].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    if expires_s <= expected.now_s {
        return Err(Refused::Expired);
    }
    let signature = signature.try_into().map(Signature).map_err(|_| Refused::Signature)?;
    expected.device_key.verify(Purpose::PodKey, body, &signature).map_err(|_| Refused::Signature)?;
    Ok(key_of(whole))
}

/// The overlay key in a statement that was checked before; none when the length is wrong.
#[must_use]
pub fn key(signed: &[u8]) -> Option<[u8; 32]> {
    signed.try_into().ok().map(key_of)
}

/// The overlay address that a statement which was checked before is about; none when the length is wrong.
#[must_use]
pub fn overlay_address(signed: &[u8]) -> Option<Ipv4Addr> {
    let whole: &[u8; SIGNED_BYTES] = signed.try_into().ok()?;
    Some(Ipv4Addr::new(whole[64], whole[65], whole[66], whole[67]))
}

fn key_of(whole: &[u8; SIGNED_BYTES]) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(&whole[68..100]);
    key
}

/// The endpoint's address: a family of 4 or 6 and 16 bytes, of which IPv4 uses the first four.
fn address(body: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 16] = body[101..117].try_into().ok()?;
    let [a, b, c, d, rest @ ..] = bytes;
    match body[100] {
        4 if rest == [0; 12] => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

/// Whether datagrams to this address go to one machine.
fn is_somebodys(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;

    fn signed(device: &SecretKey) -> (Vec<u8>, Expected) {
        signed_with(device, [192, 0, 2, 1], 4100, 1_001)
    }

    fn signed_with(device: &SecretKey, ip: [u8; 4], port: u16, expires_s: u64) -> (Vec<u8>, Expected) {
        let expected = Expected {
            order: PublicKey([1; 32]),
            lease: PublicKey([2; 32]),
            address: Ipv4Addr::new(10, 77, 0, 3),
            device_key: device.public(),
            now_s: 1_000,
        };
        let mut bytes =
            [&expected.order.0[..], &expected.lease.0, &expected.address.octets(), &[9; 32], &[4], &ip].concat();
        bytes.extend([0; 12]);
        bytes.extend(port.to_le_bytes());
        bytes.extend(expires_s.to_le_bytes());
        let signature = device.sign(Purpose::PodKey, &bytes);
        bytes.extend(device.public().0);
        bytes.extend(signature.0);
        (bytes, expected)
    }

    #[test]
    fn only_the_pod_s_own_statement_is_passed_on() {
        let device = SecretKey::from_seed(&[7; 32]);
        let (bytes, expected) = signed(&device);
        assert_eq!(check(&bytes, &expected), Ok([9; 32]));
        assert_eq!(key(&bytes), Some([9; 32]));
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

    /// What every pod of the cluster would refuse, to the harm of those that are not at fault.
    #[test]
    fn what_peers_would_refuse_is_not_passed_on() {
        let device = SecretKey::from_seed(&[7; 32]);
        let refused = |ip, port, expires_s| {
            let (bytes, expected) = signed_with(&device, ip, port, expires_s);
            check(&bytes, &expected).unwrap_err()
        };
        assert_eq!(refused([192, 0, 2, 1], 4100, 1_000), Refused::Expired);
        assert_eq!(refused([192, 0, 2, 1], 0, 2_000), Refused::Endpoint);
        for many in [[0; 4], [255; 4], [224, 0, 0, 1]] {
            assert_eq!(refused(many, 4100, 2_000), Refused::Endpoint);
        }
    }
}

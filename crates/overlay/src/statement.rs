//! The pod key statement: "this WireGuard key speaks for this address of this order, until then", signed by a device key.
//!
//! Pure: bytes in, bytes out. Who may sign for an order is [`crate::roster`]'s question; here only form and signature.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Separates these signatures from every other use of a device key.
pub const DOMAIN: &[u8] = b"atoll/podkey/1\0";

/// order 32, lease 32, address 4, key 32, endpoint family 1 + address 16 + port 2, expiry 8.
pub const BODY_BYTES: usize = 32 + 32 + 4 + 32 + 1 + 16 + 2 + 8;

/// The body, the device key (32) and its signature (64).
pub const SIGNED_BYTES: usize = BODY_BYTES + 32 + 64;

/// What a device key says about one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodKeyStatement {
    /// Address of the order on chain.
    pub order: [u8; 32],
    /// Address of the lease on chain.
    pub lease: [u8; 32],
    /// The pod's address in the overlay.
    pub overlay_ip: Ipv4Addr,
    /// The pod's X25519 public key.
    pub wg_public: [u8; 32],
    /// Where the pod's supervisor listens, outside the pod.
    pub endpoint: SocketAddr,
    /// Seconds since the Unix epoch; the statement is void from then on.
    pub expires_at_unix_s: u64,
}

/// A statement with the key that signed it. Its signature is checked by [`SignedStatement::verify`] alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignedStatement {
    statement: PodKeyStatement,
    device_key: [u8; 32],
    signature: [u8; 64],
}

/// Why bytes are not a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a signed pod key statement has {SIGNED_BYTES} bytes, not {0}")]
    Length(usize),
    #[error("the endpoint of a pod key statement has family 4 or 6, a port and no stray bytes")]
    Endpoint,
    #[error("the device key of a pod key statement is not an ed25519 key")]
    DeviceKey,
    #[error("the signature of a pod key statement does not match its device key")]
    Signature,
}

impl PodKeyStatement {
    /// Signs with a worker's device key.
    #[must_use]
    pub fn sign(self, device: &SigningKey) -> SignedStatement {
        SignedStatement {
            statement: self,
            device_key: device.verifying_key().to_bytes(),
            signature: device.sign(&self.message()).to_bytes(),
        }
    }

    /// Puts together what somebody else signed: [`PodKeyStatement::message`], or [`PodKeyStatement::body`] after
    /// [`DOMAIN`] where the signer adds domains itself.
    #[must_use]
    pub fn signed_by(self, device_key: [u8; 32], signature: [u8; 64]) -> SignedStatement {
        SignedStatement { statement: self, device_key, signature }
    }

    /// The exact bytes under the signature: [`DOMAIN`], then the body.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        [DOMAIN, &self.body()].concat()
    }

    /// The statement's fields in order, integers little-endian, addresses as on the wire.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BODY_BYTES);
        self.write_body(&mut out);
        out
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.order);
        out.extend_from_slice(&self.lease);
        out.extend_from_slice(&self.overlay_ip.octets());
        out.extend_from_slice(&self.wg_public);
        let mut address = [0u8; 16];
        match self.endpoint.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                address[..4].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                address = ip.octets();
            }
        }
        out.extend_from_slice(&address);
        out.extend_from_slice(&self.endpoint.port().to_le_bytes());
        out.extend_from_slice(&self.expires_at_unix_s.to_le_bytes());
    }

    fn read_body(body: &[u8; BODY_BYTES]) -> Result<Self, Malformed> {
        let mut rest = &body[..];
        let order = take::<32>(&mut rest);
        let lease = take::<32>(&mut rest);
        let overlay_ip = Ipv4Addr::from(take::<4>(&mut rest));
        let wg_public = take::<32>(&mut rest);
        let [family] = take::<1>(&mut rest);
        let address = take::<16>(&mut rest);
        let port = u16::from_le_bytes(take::<2>(&mut rest));
        let ip = match family {
            4 if address[4..] == [0; 12] => IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])),
            6 => IpAddr::V6(Ipv6Addr::from(address)),
            _ => return Err(Malformed::Endpoint),
        };
        if port == 0 {
            return Err(Malformed::Endpoint);
        }
        let expires_at_unix_s = u64::from_le_bytes(take::<8>(&mut rest));
        Ok(Self { order, lease, overlay_ip, wg_public, endpoint: SocketAddr::new(ip, port), expires_at_unix_s })
    }
}

/// Splits `N` bytes off the front; the callers' lengths are constants that add up.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk::<N>().expect("the caller passed all the bytes of the layout");
    *rest = tail;
    *head
}

impl SignedStatement {
    /// The body, then device key and signature.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGNED_BYTES);
        self.statement.write_body(&mut out);
        out.extend_from_slice(&self.device_key);
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads what [`SignedStatement::to_bytes`] wrote; says nothing about the signature.
    ///
    /// # Errors
    /// Wrong length or an endpoint that is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; SIGNED_BYTES] = bytes.try_into().map_err(|_| Malformed::Length(bytes.len()))?;
        let mut rest = &bytes[..];
        let statement = PodKeyStatement::read_body(&take::<BODY_BYTES>(&mut rest))?;
        Ok(Self { statement, device_key: take::<32>(&mut rest), signature: take::<64>(&mut rest) })
    }

    /// The key that claims to have signed; meaningless before [`SignedStatement::verify`].
    #[must_use]
    pub fn device_key(&self) -> [u8; 32] {
        self.device_key
    }

    /// Checks the signature (strictly: no small-order keys, no malleable form) and only then shows the statement.
    ///
    /// # Errors
    /// The key is none, or it did not sign this.
    pub fn verify(&self) -> Result<&PodKeyStatement, Malformed> {
        let key = VerifyingKey::from_bytes(&self.device_key).map_err(|_| Malformed::DeviceKey)?;
        key.verify_strict(&self.statement.message(), &Signature::from_bytes(&self.signature))
            .map_err(|_| Malformed::Signature)?;
        Ok(&self.statement)
    }
}

impl std::fmt::Debug for SignedStatement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedStatement").field("statement", &self.statement).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> PodKeyStatement {
        PodKeyStatement {
            order: [1; 32],
            lease: [2; 32],
            overlay_ip: Ipv4Addr::new(10, 77, 0, 3),
            wg_public: [9; 32],
            endpoint: "192.0.2.7:4100".parse().unwrap(),
            expires_at_unix_s: 2_000_000_000,
        }
    }

    #[test]
    fn what_was_signed_reads_back_and_verifies() {
        for endpoint in ["192.0.2.7:4100", "[2001:db8::7]:4100"] {
            let said = PodKeyStatement { endpoint: endpoint.parse().unwrap(), ..statement() };
            let signed = said.sign(&SigningKey::from_bytes(&[7; 32]));
            assert_eq!(signed.to_bytes().len(), SIGNED_BYTES);
            let read = SignedStatement::from_bytes(&signed.to_bytes()).unwrap();
            assert_eq!(read, signed);
            assert_eq!(read.verify().unwrap(), &said);
        }
    }

    #[test]
    fn every_single_byte_counts() {
        let bytes = statement().sign(&SigningKey::from_bytes(&[7; 32])).to_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let refused = SignedStatement::from_bytes(&changed).map_or(true, |signed| signed.verify().is_err());
            assert!(refused, "byte {at} may be changed unseen");
        }
    }

    #[test]
    fn lengths_are_exact() {
        let bytes = statement().sign(&SigningKey::from_bytes(&[7; 32])).to_bytes();
        for length in [0, 1, SIGNED_BYTES - 1] {
            assert_eq!(SignedStatement::from_bytes(&bytes[..length]), Err(Malformed::Length(length)));
        }
        let longer = [bytes, vec![0]].concat();
        assert_eq!(SignedStatement::from_bytes(&longer), Err(Malformed::Length(SIGNED_BYTES + 1)));
    }
}

//! Decides which signed statements make a peer. Pure; time is an argument.
//!
//! **Invariant:** no packet flows to or from a key whose statement was not admitted here. The control node only carries
//! statements; who may sign comes from the pod's own worker, which read the order's leases from the chain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::engine::Peer;
use crate::statement::{Malformed, SignedStatement};

/// A device key and the lease of the order that it holds, as read from the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Authorised {
    pub device_key: [u8; 32],
    pub lease: [u8; 32],
}

/// Why a statement makes no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the statement is for another order")]
    OtherOrder,
    #[error("the signing device key holds no such lease of this order")]
    NotAuthorised,
    #[error("the statement expired at {0} (seconds since 1970)")]
    Expired(u64),
    #[error("{0} is not an address of this overlay")]
    OutsideNetwork(Ipv4Addr),
    #[error("{0} is nobody's own endpoint")]
    Endpoint(SocketAddr),
    #[error("the address or the key is this pod's own")]
    Own,
    #[error("{0} already belongs to another device key")]
    AddressTaken(Ipv4Addr),
    #[error("a later statement for {0} is known")]
    Stale(Ipv4Addr),
    #[error("the key already speaks for {0}")]
    KeyTaken(Ipv4Addr),
}

/// One pod's view of its cluster.
#[derive(Debug)]
pub struct Roster {
    order: [u8; 32],
    own_ip: Ipv4Addr,
    own_key: [u8; 32],
    prefix_bits: u32,
    authorised: BTreeSet<Authorised>,
    /// Addresses are never used again in a cluster, so an address stays with its first device key. Bounded by the net.
    owners: BTreeMap<Ipv4Addr, [u8; 32]>,
    members: BTreeMap<Ipv4Addr, Peer>,
}

impl Roster {
    /// A roster of nobody. `prefix_bits` is the size of the overlay's net around `own_ip`, 8 to 30.
    #[must_use]
    pub fn new(order: [u8; 32], own_ip: Ipv4Addr, own_key: [u8; 32], prefix_bits: u32) -> Self {
        let prefix_bits = prefix_bits.clamp(8, 30);
        let (owners, members) = (BTreeMap::new(), BTreeMap::new());
        Self { order, own_ip, own_key, prefix_bits, authorised: BTreeSet::new(), owners, members }
    }

    /// Replaces the set of device keys that may sign, and forgets the members that it no longer covers.
    pub fn authorise(&mut self, authorised: BTreeSet<Authorised>) {
        self.authorised = authorised;
        let keys: BTreeSet<[u8; 32]> = self.authorised.iter().map(|one| one.device_key).collect();
        let owners = &self.owners;
        self.members.retain(|ip, _| owners.get(ip).is_some_and(|key| keys.contains(key)));
    }

    /// Takes the whole list of members anew: admitted ones become peers, all others stop being peers.
    /// Answers one verdict per statement, in order.
    pub fn replace(&mut self, statements: &[SignedStatement], now_unix_s: u64) -> Vec<Result<Ipv4Addr, Refusal>> {
        let before = std::mem::take(&mut self.members);
        let verdicts = statements.iter().map(|signed| self.admit(signed, &before, now_unix_s)).collect();
        // A statement that is refused today must not end a session that an earlier, still valid one opened.
        let named: BTreeSet<Ipv4Addr> =
            statements.iter().filter_map(|signed| signed.verify().ok()).map(|said| said.overlay_ip).collect();
        for (ip, peer) in before {
            if named.contains(&ip) && peer.expires_at_unix_s > now_unix_s && self.holds(ip) {
                self.members.entry(ip).or_insert(peer);
            }
        }
        verdicts
    }

    /// The peers admitted by the last [`Roster::replace`].
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.members.values()
    }

    fn holds(&self, ip: Ipv4Addr) -> bool {
        self.owners.get(&ip).is_some_and(|key| self.authorised.iter().any(|one| one.device_key == *key))
    }

    fn admit(
        &mut self,
        signed: &SignedStatement,
        before: &BTreeMap<Ipv4Addr, Peer>,
        now_unix_s: u64,
    ) -> Result<Ipv4Addr, Refusal> {
        let said = *signed.verify()?;
        let ip = said.overlay_ip;
        if said.order != self.order {
            return Err(Refusal::OtherOrder);
        }
        if !self.authorised.contains(&Authorised { device_key: signed.device_key(), lease: said.lease }) {
            return Err(Refusal::NotAuthorised);
        }
        if said.expires_at_unix_s <= now_unix_s {
            return Err(Refusal::Expired(said.expires_at_unix_s));
        }
        if !self.in_network(ip) {
            return Err(Refusal::OutsideNetwork(ip));
        }
        if !is_somebodys(said.endpoint.ip()) {
            return Err(Refusal::Endpoint(said.endpoint));
        }
        if ip == self.own_ip || said.wg_public == self.own_key {
            return Err(Refusal::Own);
        }
        if self.owners.get(&ip).is_some_and(|key| *key != signed.device_key()) {
            return Err(Refusal::AddressTaken(ip));
        }
        let known = self.members.get(&ip).or_else(|| before.get(&ip));
        if known.is_some_and(|peer| peer.expires_at_unix_s > said.expires_at_unix_s) {
            return Err(Refusal::Stale(ip));
        }
        // Those of before too: they go on where their own new statement is refused.
        let lasting = before.values().filter(|peer| peer.expires_at_unix_s > now_unix_s);
        let same_key = |peer: &&Peer| peer.wg_public == said.wg_public && peer.ip != ip;
        if let Some(other) = self.members.values().chain(lasting).find(same_key) {
            return Err(Refusal::KeyTaken(other.ip));
        }
        self.owners.insert(ip, signed.device_key());
        let peer =
            Peer { ip, wg_public: said.wg_public, endpoint: said.endpoint, expires_at_unix_s: said.expires_at_unix_s };
        self.members.insert(ip, peer);
        Ok(ip)
    }

    fn in_network(&self, ip: Ipv4Addr) -> bool {
        let host_bits = 32 - self.prefix_bits;
        let host = u32::from(ip) & ((1 << host_bits) - 1);
        let same_net = u32::from(ip) >> host_bits == u32::from(self.own_ip) >> host_bits;
        same_net && host != 0 && host != (1 << host_bits) - 1
    }
}

/// Whether datagrams to this address go to one machine: a statement must not make every pod of its cluster call on many.
fn is_somebodys(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::statement::PodKeyStatement;

    const NOW: u64 = 1_000;
    const ORDER: [u8; 32] = [1; 32];

    fn device(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn said(seed: u8, host: u8) -> PodKeyStatement {
        PodKeyStatement {
            order: ORDER,
            lease: [seed; 32],
            overlay_ip: Ipv4Addr::new(10, 77, 0, host),
            wg_public: [seed; 32],
            endpoint: "127.0.0.1:9".parse().unwrap(),
            expires_at_unix_s: NOW + 60,
        }
    }

    fn roster() -> Roster {
        let mut roster = Roster::new(ORDER, Ipv4Addr::new(10, 77, 0, 1), [0xaa; 32], 16);
        roster.authorise([2, 3].map(authorised).into());
        roster
    }

    fn authorised(seed: u8) -> Authorised {
        Authorised { device_key: device(seed).verifying_key().to_bytes(), lease: [seed; 32] }
    }

    fn verdict(roster: &mut Roster, signed: SignedStatement) -> Result<Ipv4Addr, Refusal> {
        roster.replace(&[signed], NOW)[0]
    }

    #[test]
    fn a_member_of_the_order_is_admitted() {
        let mut roster = roster();
        assert_eq!(verdict(&mut roster, said(2, 2).sign(&device(2))), Ok(Ipv4Addr::new(10, 77, 0, 2)));
        assert_eq!(roster.peers().count(), 1);
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let net = Ipv4Addr::new;
        let cases: [(PodKeyStatement, u8, Refusal); 8] = [
            (PodKeyStatement { order: [5; 32], ..said(2, 2) }, 2, Refusal::OtherOrder),
            (said(2, 2), 9, Refusal::NotAuthorised),
            (PodKeyStatement { lease: [3; 32], ..said(2, 2) }, 2, Refusal::NotAuthorised),
            (PodKeyStatement { expires_at_unix_s: NOW, ..said(2, 2) }, 2, Refusal::Expired(NOW)),
            (
                PodKeyStatement { overlay_ip: net(10, 78, 0, 2), ..said(2, 2) },
                2,
                Refusal::OutsideNetwork(net(10, 78, 0, 2)),
            ),
            (
                PodKeyStatement { overlay_ip: net(10, 77, 255, 255), ..said(2, 2) },
                2,
                Refusal::OutsideNetwork(net(10, 77, 255, 255)),
            ),
            (said(2, 1), 2, Refusal::Own),
            (PodKeyStatement { wg_public: [0xaa; 32], ..said(2, 2) }, 2, Refusal::Own),
        ];
        for (statement, signer, reason) in cases {
            let mut roster = roster();
            assert_eq!(verdict(&mut roster, statement.sign(&device(signer))), Err(reason));
            assert_eq!(roster.peers().count(), 0, "a refused statement must not make a peer");
        }
    }

    #[test]
    fn an_endpoint_is_one_machine_s() {
        for many in ["0.0.0.0:9", "255.255.255.255:9", "224.0.0.1:9", "[::]:9", "[ff02::1]:9", "[::ffff:224.0.0.1]:9"] {
            let endpoint = many.parse().unwrap();
            let signed = PodKeyStatement { endpoint, ..said(2, 2) }.sign(&device(2));
            assert_eq!(verdict(&mut roster(), signed), Err(Refusal::Endpoint(endpoint)));
        }
    }

    #[test]
    fn a_key_swapped_on_the_way_is_refused() {
        let mut bytes = said(2, 2).sign(&device(2)).to_bytes();
        // order 32, lease 32, address 4: the WireGuard key begins at 68.
        bytes[68..100].copy_from_slice(&[0x66; 32]);
        let swapped = SignedStatement::from_bytes(&bytes).unwrap();
        assert_eq!(verdict(&mut roster(), swapped), Err(Refusal::Malformed(Malformed::Signature)));
        // Signed anew by the swapper's own key: that key holds no lease.
        let own = PodKeyStatement { wg_public: [0x66; 32], ..said(2, 2) }.sign(&device(0x66));
        assert_eq!(verdict(&mut roster(), own), Err(Refusal::NotAuthorised));
    }

    #[test]
    fn an_address_stays_with_its_first_owner() {
        let mut roster = roster();
        assert!(verdict(&mut roster, said(2, 2).sign(&device(2))).is_ok());
        let taken = PodKeyStatement { overlay_ip: Ipv4Addr::new(10, 77, 0, 2), ..said(3, 3) };
        let refusal = Err(Refusal::AddressTaken(Ipv4Addr::new(10, 77, 0, 2)));
        assert_eq!(verdict(&mut roster, taken.sign(&device(3))), refusal);
        assert!(roster.replace(&[], NOW).is_empty());
        assert_eq!(verdict(&mut roster, taken.sign(&device(3))), refusal);
    }

    #[test]
    fn older_statements_and_borrowed_keys_are_refused() {
        let mut roster = roster();
        assert!(verdict(&mut roster, said(2, 2).sign(&device(2))).is_ok());
        let older = PodKeyStatement { expires_at_unix_s: NOW + 30, wg_public: [7; 32], ..said(2, 2) };
        assert_eq!(verdict(&mut roster, older.sign(&device(2))), Err(Refusal::Stale(Ipv4Addr::new(10, 77, 0, 2))));
        assert_eq!(roster.peers().next().unwrap().wg_public, [2; 32], "the session in use goes on");
        let borrowed = PodKeyStatement { wg_public: [2; 32], ..said(3, 3) };
        let both = [said(2, 2).sign(&device(2)), borrowed.sign(&device(3))];
        assert_eq!(roster.replace(&both, NOW)[1], Err(Refusal::KeyTaken(Ipv4Addr::new(10, 77, 0, 2))));
    }

    #[test]
    fn who_is_no_longer_authorised_is_no_longer_a_peer() {
        let mut roster = roster();
        let both = [said(2, 2).sign(&device(2)), said(3, 3).sign(&device(3))];
        assert!(roster.replace(&both, NOW).iter().all(Result::is_ok));
        roster.authorise([authorised(3)].into());
        assert_eq!(roster.peers().map(|peer| peer.ip).collect::<Vec<_>>(), [Ipv4Addr::new(10, 77, 0, 3)]);
        assert_eq!(roster.replace(&both, NOW)[0], Err(Refusal::NotAuthorised));
        assert_eq!(roster.peers().count(), 1);
    }
}

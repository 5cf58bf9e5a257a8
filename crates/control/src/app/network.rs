//! Whether the chain behind this node is the one that its store is for.
//!
//! A URL can come to lead to another cluster, by a slip in a file or behind a balancer. There every order is missing, and
//! a node that believed it would write them off as closed. So the first network that a store meets is remembered, and what
//! any other shows is not acted on.

use atoll_domain::key::PublicKey;

use super::market::NetworkFacts;
use crate::control::Control;
use crate::store::rows::NetworkPin;

/// The cluster behind the node's URL is another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Another cluster.
    #[error(
        "the chain's node is on the cluster {found}, and this network is on {wanted}: set `rpc` to a node of that cluster"
    )]
    Cluster {
        /// Its genesis hash.
        found: PublicKey,
        /// The genesis hash of the network's.
        wanted: PublicKey,
    },
    /// Another network on it.
    #[error("the chain shows the network {found}, and this store is for {wanted}: each network has a store of its own")]
    Network {
        /// Its root.
        found: atoll_domain::key::Digest,
        /// The root of the store's.
        wanted: atoll_domain::key::Digest,
    },
}

/// The genesis hash of the cluster behind the node's URL.
///
/// # Errors
/// When the chain does not answer.
pub async fn cluster(control: &Control) -> anyhow::Result<PublicKey> {
    Ok(PublicKey(control.rpc.genesis_hash().await?.0))
}

/// Compares that cluster, and what was read of the network on it, with what the store is for.
///
/// # Errors
/// What is another one.
pub fn check(found: PublicKey, facts: Option<&NetworkFacts>, pin: Option<NetworkPin>) -> Result<(), Wrong> {
    // What the network says of its own cluster was signed by whoever made it, for that cluster.
    let said = facts.map(|facts| facts.genesis_hash);
    if let Some(wanted) = pin.map(|pin| pin.genesis_hash).into_iter().chain(said).find(|wanted| *wanted != found) {
        return Err(Wrong::Cluster { found, wanted });
    }
    match (facts, pin) {
        (Some(facts), Some(pin)) if facts.network_root != pin.network_root => {
            Err(Wrong::Network { found: facts.network_root, wanted: pin.network_root })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use atoll_domain::key::Digest;

    use super::*;

    #[test]
    fn another_cluster_or_network_is_never_believed() {
        let key = |n| PublicKey([n; 32]);
        let pin = |genesis, root| NetworkPin { genesis_hash: key(genesis), network_root: Digest([root; 32]) };
        let facts = |genesis, root| NetworkFacts {
            network_root: Digest([root; 32]),
            genesis_hash: key(genesis),
            program_id: key(0),
            mint: key(0),
            treasury: key(0),
            epoch_zero: 0,
            epoch_s: 5,
            epoch_hold_s: 5,
            stall_s: 60,
            fill_s_max: 5,
            attestor_owners: 1,
            seats: Vec::new(),
            threshold: 1,
            fee_bps: 0,
        };
        assert_eq!(check(key(1), None, None), Ok(()));
        assert_eq!(check(key(1), Some(&facts(1, 9)), Some(pin(1, 9))), Ok(()));
        let cluster = |found, wanted| Err(Wrong::Cluster { found: key(found), wanted: key(wanted) });
        assert_eq!(check(key(2), None, Some(pin(1, 9))), cluster(2, 1));
        assert_eq!(check(key(2), Some(&facts(1, 9)), None), cluster(2, 1));
        assert_eq!(check(key(1), Some(&facts(2, 9)), Some(pin(1, 9))), cluster(1, 2));
        let network = Err(Wrong::Network { found: Digest([8; 32]), wanted: Digest([9; 32]) });
        assert_eq!(check(key(1), Some(&facts(1, 8)), Some(pin(1, 9))), network);
    }
}

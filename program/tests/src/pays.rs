//! Settlement by renter and worker alone, and rewards.

use crate::{
    Call, Party, World,
    calls::{HOLD_S, config},
    stakes::rules,
    world::{pda, sha256},
};
use atoll_interface::{
    Address, Hash, Hashes,
    cosigned::Usage,
    instruction as ix,
    layout::{Config, Rules},
    merkle::{DEPTH_MAX, padded_len, root_and_path},
    reward::leaf_hash,
    seeds,
    signature::INSTRUCTIONS_ID,
};

impl Party {
    /// What a worker says of lease `n`.
    pub fn usage(&self, world: &World, n: u16, device_seconds: u64, until: i64) -> Usage {
        let network_root = world.read::<Config>(config()).network_root;
        Usage { network_root, lease: self.lease(n), device_seconds, until }
    }

    /// Renter and the worker of slot `n` settle lease `n`.
    pub fn cosign(&self, world: &World, n: u16, device_seconds: u64, until: i64) -> Call {
        let check = world.check(&self.devices[usize::from(n)], &self.usage(world, n, device_seconds, until).message());
        Call { checks: vec![check], ..self.cosign_by(self.renter, n, n) }
    }

    /// The settlement of lease `n` with the word of the worker in `slot`, without its check.
    pub fn cosign_by(&self, renter: Address, n: u16, slot: u16) -> Call {
        let accounts = ix::SettleCosignedAccounts {
            renter,
            order: self.order(),
            lease: self.lease(n),
            page: self.page,
            budget: if renter == self.session { self.budget() } else { self.order() },
            config: config(),
            instructions: INSTRUCTIONS_ID,
        };
        Call::new("settle_cosigned", &accounts.metas(), ix::SettleCosigned { check: 0, slot }.encode().unwrap())
    }
}

/// Address of the claims of a supplier, by its page 0.
pub fn claim(page: Address) -> Address {
    pda(&seeds::claim(&page))
}

/// What suppliers have earned up to the end of an hour, under one root.
#[derive(Clone, Debug)]
pub struct Hour {
    pub hour: u64,
    pub total: u64,
    pub root: Hash,
    leaves: Vec<(Address, u64)>,
}

impl Hour {
    /// The hour's root over (page, sum so far).
    pub fn over(hour: u64, leaves: &[(Address, u64)]) -> Self {
        let total = leaves.iter().map(|(_, sum)| sum).sum();
        let mut made = Self { hour, total, root: [0; 32], leaves: leaves.to_vec() };
        made.root = made.path(0).0;
        made
    }

    fn path(&self, at: usize) -> (Hash, Vec<Hash>) {
        let mut scratch: Vec<Hash> = self.leaves.iter().map(|(page, sum)| leaf_hash(sha256, page, *sum)).collect();
        scratch.resize(padded_len(scratch.len()), [0; 32]);
        let mut path = [[0; 32]; DEPTH_MAX];
        let (root, depth) = root_and_path(sha256, &mut scratch, at, &mut path).unwrap();
        (root, path[..depth].to_vec())
    }

    pub fn address(&self) -> Address {
        pda(&seeds::reward(&self.hour.to_le_bytes(), &self.root, &self.total.to_le_bytes()))
    }
}

/// Address of the token account from which rewards are paid.
pub fn emission() -> Address {
    sha256(&[b"emission"])
}

impl World {
    /// Fills that account, as a genesis does.
    pub fn fill_emission(&mut self, amount: u64) {
        self.token(emission(), rules(), amount);
    }

    /// The newest hour of rewards that is over.
    pub fn last_hour(&self) -> u64 {
        self.read::<Rules>(rules()).reward_hours(self.now()) - 1
    }

    pub fn post_reward(&self, key: Address, hour: &Hour) -> Call {
        let accounts = ix::PostRewardAccounts {
            key,
            payer: self.node,
            attestor: pda(&seeds::attestor(&key)),
            reward: hour.address(),
            config: config(),
            rules: rules(),
        };
        let data = ix::PostReward { hour: hour.hour, root: hour.root, total: hour.total };
        Call::new("post_reward", &accounts.metas(), data.encode().unwrap())
    }

    /// Lets the running hour end, posts a root over (page, sum so far), and waits until it pays.
    pub fn reward(&mut self, leaves: &[(Address, u64)]) -> Hour {
        self.wait(3_600);
        let hour = Hour::over(self.last_hour(), leaves);
        let call = self.post_reward(self.attestor, &hour);
        self.must(&call);
        self.wait(i64::from(HOLD_S));
        hour
    }
}

impl Party {
    /// Takes what the leaf at `at` gives this party's supplier.
    pub fn claim(&self, hour: &Hour, at: usize) -> Call {
        let accounts = ix::ClaimRewardAccounts {
            payer: self.node,
            supplier: self.supplier,
            page: self.page,
            claim: claim(self.page),
            reward: hour.address(),
            emission: emission(),
            destination: self.supplier_purse,
            rules: rules(),
            config: config(),
        };
        let path = hour.path(at).1;
        let leaf_index = u32::try_from(at).unwrap();
        let data = ix::ClaimReward { sum: hour.leaves[at].1, leaf_index, path: Hashes::new(&path) };
        Call::new("claim_reward", &accounts.metas(), data.encode().unwrap())
    }
}

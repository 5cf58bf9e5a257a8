//! The calls of vestings.

use crate::{
    Call, World,
    calls::config,
    pays::emission,
    stakes::rules,
    world::{pda, sha256},
};
use atoll_interface::{Address, instruction as ix, seeds};

/// Address of a vesting: the `n`th of its beneficiary.
pub fn vesting(beneficiary: Address, n: u16) -> Address {
    pda(&seeds::vesting(&beneficiary, &n.to_le_bytes()))
}

/// The token account that holds what it has not paid.
pub fn lock(beneficiary: Address, n: u16) -> Address {
    pda(&seeds::vesting_vault(&vesting(beneficiary, n)))
}

impl World {
    /// A promise of `total` over 1,000 seconds from now on, with a cliff of 250.
    pub fn terms_for(&self, beneficiary: Address, total: u64) -> ix::GrantVesting {
        let mut name = [0; 32];
        name[..4].copy_from_slice(b"seed");
        ix::GrantVesting { beneficiary, n: 0, total, start: self.now(), cliff_s: 250, duration_s: 1_000, name }
    }

    /// Promises and locks it, from the admin's purse.
    pub fn grant(&self, terms: &ix::GrantVesting) -> Call {
        let accounts = ix::GrantVestingAccounts {
            admin: self.admin,
            vesting: vesting(terms.beneficiary, terms.n),
            vault: lock(terms.beneficiary, terms.n),
            source: sha256(&[b"purse", &self.admin]),
            emission: emission(),
            mint: self.mint,
            config: config(),
            rules: rules(),
        };
        Call::new("grant_vesting", &accounts.metas(), terms.encode().unwrap())
    }

    pub fn claim_vesting(&self, beneficiary: Address, n: u16, destination: Address) -> Call {
        let accounts = ix::ClaimVestingAccounts {
            vesting: vesting(beneficiary, n),
            vault: lock(beneficiary, n),
            destination,
            rules: rules(),
        };
        Call::new("claim_vesting", &accounts.metas(), ix::ClaimVesting {}.encode().unwrap())
    }
}

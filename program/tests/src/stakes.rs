//! The calls of supply and stake.

use crate::{
    Call, Party, World,
    calls::{catalogue, config},
    world::{pda, sha256},
};
use atoll_interface::{
    ATL, Address, instruction as ix,
    layout::{CoStake, Config},
    network::vote_message,
    seeds,
    signature::INSTRUCTIONS_ID,
};

/// Seconds of unbonding in the tests' network.
pub const UNBOND_S: i64 = 1_000;
/// Seconds for which leaving co-stake still counts.
pub const EXIT_WAIT_S: i64 = 500;
/// What an offer of co-stake gives of its rewards.
pub const REWARD_BPS: u16 = 4_000;

/// Address of the rules.
pub fn rules() -> Address {
    pda(&seeds::rules())
}

/// Address of a device key's account.
pub fn device_key(device: Address) -> Address {
    pda(&seeds::device(&device))
}

/// The rules of the tests' network.
pub fn rule_values() -> ix::SetRules {
    ix::SetRules {
        guardian: [0; 32],
        unbond_s: 1_000,
        exit_wait_s: 500,
        dispute_window_s: 300,
        voting_s: 200,
        appeal_s: 400,
        case_s: 100,
        proposal_s: 300,
        timelock_s: 100,
        device_slash_bps: 10_000,
        attestor_slash_bps: 10_000,
        bounty_bps: 1_000,
        quorum_bps: 2_000,
        surcharge_bps: 200,
        feed_width_bps: 500,
        hired_cap_bps: 5_000,
        enterprise_bps: 9_500,
        bounty_max: ATL,
        dispute_bond: 50 * ATL,
        proposal_stake: 100 * ATL,
    }
}

impl World {
    pub fn set_rules(&self) -> Call {
        self.set_rules_to(&rule_values())
    }

    pub fn set_rules_to(&self, values: &ix::SetRules) -> Call {
        let accounts = ix::SetRulesAccounts { admin: self.admin, config: config(), rules: rules() };
        Call::new("set_rules", &accounts.metas(), values.encode().unwrap())
    }

    /// Shows two votes of a key, each for (epoch, root).
    pub fn prove(&self, prover: Address, key: Address, votes: [(u64, [u8; 32]); 2]) -> Call {
        let network_root = self.read::<Config>(config()).network_root;
        let messages = votes.map(|(epoch, root)| vote_message(&network_root, epoch, &root));
        self.prove_by(prover, key, messages.map(|message| self.check(&key, &message)))
    }

    pub fn prove_by(&self, prover: Address, key: Address, checks: [Vec<u8>; 2]) -> Call {
        let attestor = pda(&seeds::attestor(&key));
        let accounts = ix::ProveEquivocationAccounts {
            prover,
            attestor,
            vault: pda(&seeds::attestor_vault(&attestor)),
            mint: self.mint,
            bounty: sha256(&[b"purse", &prover]),
            config: config(),
            rules: rules(),
            instructions: INSTRUCTIONS_ID,
        };
        let data = ix::ProveEquivocation { first: 0, second: 1 };
        let call = Call::new("prove_equivocation", &accounts.metas(), data.encode().unwrap());
        Call { checks: checks.to_vec(), ..call }
    }
}

impl Party {
    pub fn stake_vault(&self) -> Address {
        pda(&seeds::stake_vault(&self.page))
    }

    pub fn ask_key(&self, key: Address) -> Address {
        pda(&seeds::ask_key(&self.supplier, &key))
    }

    /// The place of the key's account: with the wallet or a device key, the page again.
    fn ask_place(&self, authority: Address) -> Address {
        if authority == self.session { self.ask_key(authority) } else { self.page }
    }

    pub fn set_drain(&self, authority: Address, drain: u8, first_slot: u16, bits: &[u8]) -> Call {
        let accounts = ix::SetDrainAccounts { authority, page: self.page, ask_key: self.ask_place(authority) };
        Call::new("set_drain", &accounts.metas(), ix::SetDrain { drain, first_slot, bits }.encode().unwrap())
    }

    pub fn set_asks(&self, authority: Address, ask_uusd: u64, first_slot: u16, bits: &[u8]) -> Call {
        let accounts = ix::SetAsksAccounts { authority, page: self.page, ask_key: self.ask_place(authority) };
        let data = ix::SetAsks { ask_uusd, lease_s_max: 0, first_slot, bits };
        Call::new("set_asks", &accounts.metas(), data.encode().unwrap())
    }

    pub fn delegate(&self, key: Address, until: i64) -> Call {
        let accounts = ix::DelegateAskKeyAccounts { supplier: self.supplier, ask_key: self.ask_key(key) };
        Call::new("delegate_ask_key", &accounts.metas(), ix::DelegateAskKey { key, until }.encode().unwrap())
    }

    pub fn rotate(&self, slot: u16, old: Address, new: Address) -> Call {
        let accounts = ix::RotateDeviceKeyAccounts {
            supplier: self.supplier,
            device: new,
            page: self.page,
            old_key: device_key(old),
            new_key: device_key(new),
        };
        Call::new("rotate_device_key", &accounts.metas(), ix::RotateDeviceKey { slot }.encode().unwrap())
    }

    pub fn retire(&self, slot: u16, device: Address) -> Call {
        self.retire_on(0, slot, device)
    }

    pub fn retire_on(&self, page_no: u16, slot: u16, device: Address) -> Call {
        let accounts = ix::RetireWorkerAccounts {
            supplier: self.supplier,
            page: pda(&seeds::page(&self.supplier, &page_no.to_le_bytes())),
            first_page: self.page,
            device_key: device_key(device),
            config: config(),
            catalogue: catalogue(),
        };
        Call::new("retire_worker", &accounts.metas(), ix::RetireWorker { slot }.encode().unwrap())
    }

    pub fn close_device_key(&self, page_no: u16, device: Address) -> Call {
        let accounts =
            ix::CloseDeviceKeyAccounts { supplier: self.supplier, device_key: device_key(device), rules: rules() };
        Call::new("close_device_key", &accounts.metas(), ix::CloseDeviceKey { page_no }.encode().unwrap())
    }

    /// Closes page 0 with its stake vault.
    pub fn close_page(&self) -> Call {
        self.close_page_at(self.page, self.stake_vault(), self.supplier_purse)
    }

    pub fn close_page_at(&self, page: Address, vault: Address, destination: Address) -> Call {
        let accounts = ix::ClosePageAccounts { supplier: self.supplier, page, vault, destination };
        Call::new("close_page", &accounts.metas(), ix::ClosePage {}.encode().unwrap())
    }

    pub fn unstake(&self, amount: u64) -> Call {
        let accounts = ix::UnstakeRequestAccounts { supplier: self.supplier, first_page: self.page, rules: rules() };
        Call::new("unstake_request", &accounts.metas(), ix::UnstakeRequest { amount }.encode().unwrap())
    }

    pub fn unstake_withdraw(&self) -> Call {
        let accounts = ix::UnstakeWithdrawAccounts {
            first_page: self.page,
            vault: self.stake_vault(),
            destination: self.supplier_purse,
        };
        Call::new("unstake_withdraw", &accounts.metas(), ix::UnstakeWithdraw {}.encode().unwrap())
    }

    pub fn costake(&self, n: u16) -> Address {
        pda(&seeds::costake(&self.page, &n.to_le_bytes()))
    }

    pub fn offer(&self, n: u16, amount: u64) -> Call {
        let accounts =
            ix::CostakeOfferAccounts { supplier: self.supplier, first_page: self.page, costake: self.costake(n) };
        let data = ix::CostakeOffer { n, amount, reward_bps: REWARD_BPS };
        Call::new("costake_offer", &accounts.metas(), data.encode().unwrap())
    }

    /// The renter's wallet accepts an offer: every party has one with money in it.
    pub fn accept(&self, n: u16, amount: u64) -> Call {
        self.accept_as(self.renter, self.purse, n, amount)
    }

    pub fn accept_as(&self, staker: Address, source: Address, n: u16, amount: u64) -> Call {
        let accounts = ix::CostakeAcceptAccounts {
            staker,
            first_page: self.page,
            costake: self.costake(n),
            vault: self.stake_vault(),
            source,
        };
        let data = ix::CostakeAccept { amount, reward_bps: REWARD_BPS };
        Call::new("costake_accept", &accounts.metas(), data.encode().unwrap())
    }

    /// A step of the exit that pays nothing out.
    pub fn exit(&self, authority: Address, n: u16) -> Call {
        self.exit_to(authority, n, self.page, self.page)
    }

    /// The last step: the co-stake goes to the renter's wallet.
    pub fn exit_paid(&self, authority: Address, n: u16) -> Call {
        self.exit_to(authority, n, self.stake_vault(), self.purse)
    }

    pub fn exit_to(&self, authority: Address, n: u16, vault: Address, destination: Address) -> Call {
        let accounts = ix::CostakeExitAccounts {
            authority,
            first_page: self.page,
            costake: self.costake(n),
            supplier: self.supplier,
            vault,
            destination,
            rules: rules(),
        };
        Call::new("costake_exit", &accounts.metas(), ix::CostakeExit {}.encode().unwrap())
    }

    /// What a co-stake is worth.
    pub fn worth(&self, world: &World, n: u16) -> u64 {
        world.read::<CoStake>(self.costake(n)).worth(&world.read(self.page)).unwrap()
    }
}

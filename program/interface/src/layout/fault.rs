//! Evidence of faults, gathered step by step.

use super::{Kind, Plain, Record};
use crate::{Address, Hash};
use core::mem::{align_of, size_of};

records! {
    FraudCase;
    Dispute;
}

plain! {
    /// One signed statement of a capacity challenge, and the wrong elements found in it.
    384 FraudCase {
        /// [`Kind::FraudCase`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`CASE_PROVEN`]
        flags: u8,
        /// Wrong elements so far, in distinct rows and columns.
        wrong: u16,
        /// Zero.
        spare: u16,
        /// Side of the matrices.
        n: u32,
        /// The rows of the wrong elements.
        rows: [u32; 3],
        /// The device key that signed.
        device: Address,
        /// Its [`super::DeviceKey`] account's page.
        page: Address,
        /// Seed of the challenge.
        seed: Hash,
        /// Root over the committed product.
        root: Hash,
        /// Time in the statement, Unix seconds.
        at: i64,
        /// Who opened the case, paid its rent and takes the bounty.
        opener: Address,
        /// The harmed renter; zero when none leased the device.
        renter: Address,
        /// What that renter can have paid for the device, base units: the most that it gets back.
        harm: u64,
        /// Stake of the device that the case puts at risk, base units.
        stake: u64,
        /// When the case was opened, Unix seconds.
        opened_at: i64,
        /// When it was proven, Unix seconds; 0 before.
        proven_at: i64,
        /// The lease that holds the device; zero for none.
        lease: Address,
        /// The supplier's page 0.
        first_page: Address,
        /// The columns of the wrong elements.
        columns: [u32; 3],
        /// Zero.
        reserve: [u8; 52],
    }

    /// A bonded dispute on one leaf, judged by a drawn panel of the attestor set's owners.
    456 Dispute {
        /// [`Kind::Dispute`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Bump of the bond vault's address.
        vault_bump: u8,
        /// [`DISPUTE_DRAWN`], [`DISPUTE_APPEALED`]
        flags: u8,
        /// What the first panel said, as a [`crate::dispute::Outcome`]; 0 before an appeal.
        first: u8,
        /// Seats of the panel that votes.
        panel_count: u16,
        /// The frozen lease.
        lease: Address,
        /// Root of the epoch whose leaf is disputed.
        root: Hash,
        /// That epoch.
        epoch: u64,
        /// What the leaf says, device-seconds.
        claimed: u64,
        /// What the opener says, device-seconds: the ceiling if the panel agrees.
        ceiling: u64,
        /// Who opened it and paid the account's rent.
        opener: Address,
        /// Who appealed; zero before.
        appellant: Address,
        /// The opener's bond, base units.
        bond: u64,
        /// The appellant's bond, base units.
        appeal_bond: u64,
        /// When it was opened, Unix seconds.
        opened_at: i64,
        /// The slot whose hash draws the panel.
        draw_slot: u64,
        /// Until when the first panel votes, Unix seconds.
        vote_until: i64,
        /// Until when an appeal is filed and decided, Unix seconds.
        appeal_until: i64,
        /// One bit a seat of the panel.
        panel: [u8; 32],
        /// One bit a seat that sides with the opener.
        votes_for: [u8; 32],
        /// One bit a seat that sides with the leaf.
        votes_against: [u8; 32],
        /// The renter of the lease.
        renter: Address,
        /// What drew the first panel: SHA-256 over the slot's hash and the dispute.
        draw: Hash,
        /// The supplier of the lease.
        supplier: Address,
        /// Up to when the leaf says what it says, Unix seconds.
        until: i64,
        /// Device-seconds that the lease can have served by then.
        cap_at: u64,
        /// The leaf's flags.
        leaf_flags: u8,
        /// Zero.
        reserve: [u8; 39],
    }
}

/// Three wrong elements stand, or as many with another case: the stake may be slashed.
pub const CASE_PROVEN: u8 = 1;
/// All seats but the parties' vote.
pub const DISPUTE_APPEALED: u8 = 1;
/// The first panel is drawn.
pub const DISPUTE_DRAWN: u8 = 2;

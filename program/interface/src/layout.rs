//! The accounts of the market, byte for byte.
//!
//! Every account starts with its kind and version. All fields are little-endian, naturally aligned and without hidden
//! padding, so the program works on the account's own bytes ([`Record::view_mut`]) and the network copies them out
//! ([`Record::read`]). Headers keep 32 bytes in reserve and slots at least 8, so that a later version can add fields
//! without moving any; reserved bytes are zero.

use crate::{Address, Error, Hash, fill::BITMAP_LEN};
use core::mem::{align_of, size_of};

const _: () = assert!(cfg!(target_endian = "little"), "account bytes are read in place as little-endian integers");

/// Slots of one fleet page at most.
pub const SLOTS_MAX: usize = 1024;
/// Seats of the attestor set at most: the votes of an epoch are a bitmap of 256 bits.
pub const SEATS_MAX: usize = 256;
/// Rows of the catalogue at most.
pub const MODELS_MAX: usize = 160;

/// What an account is: its first byte. A number, once given, keeps its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`Config`]
    Config = 1,
    /// [`Catalogue`]
    Catalogue = 2,
    /// [`PriceFeed`]
    PriceFeed = 3,
    /// [`FleetPage`]
    FleetPage = 4,
    /// [`DeviceKey`]
    DeviceKey = 5,
    /// [`Order`]
    Order = 6,
    /// [`Lease`]
    Lease = 7,
    /// [`Budget`]
    Budget = 8,
    /// [`Attestor`]
    Attestor = 9,
    /// [`Epoch`]
    Epoch = 10,
    /// [`Vesting`]
    Vesting = 11,
    /// [`Claim`]
    Claim = 12,
    /// [`CoStake`]
    CoStake = 13,
    /// [`FraudCase`]
    FraudCase = 14,
    /// [`Dispute`]
    Dispute = 15,
    /// [`Proposal`]
    Proposal = 16,
    /// [`Vote`]
    Vote = 17,
    /// [`Rules`]
    Rules = 18,
    /// [`AskKey`]
    AskKey = 19,
    /// [`Reward`]
    Reward = 20,
}

/// Plain bytes that may be viewed as a struct.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and every bit pattern is a value of it.
pub unsafe trait Plain: Copy {}

/// An account, or the header of an account with rows behind it.
pub trait Record: Plain {
    /// The account's first byte.
    const KIND: Kind;
    /// The account's second byte.
    const VERSION: u8 = 1;
    /// Bytes of the account, or of its header when rows follow.
    const SIZE: usize = size_of::<Self>();
    /// Whether rows follow the header.
    const ROWS: bool = false;

    /// Whether bytes are long enough for this account and marked as it.
    ///
    /// # Errors
    /// [`Error::AccountKindWrong`] otherwise.
    fn check(data: &[u8]) -> Result<(), Error> {
        let long_enough = if Self::ROWS { data.len() >= Self::SIZE } else { data.len() == Self::SIZE };
        if long_enough && data[0] == Self::KIND as u8 && data[1] == Self::VERSION {
            Ok(())
        } else {
            Err(Error::AccountKindWrong)
        }
    }

    /// Copies the account out of bytes of any alignment, such as an RPC answer.
    ///
    /// # Errors
    /// [`Error::AccountKindWrong`] when the bytes are not this kind and version.
    fn read(data: &[u8]) -> Result<Self, Error> {
        Self::check(data)?;
        // SAFETY: check() saw at least SIZE bytes, and Plain allows every bit pattern.
        Ok(unsafe { data.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// Views the account in place.
    ///
    /// # Errors
    /// [`Error::AccountKindWrong`] when the bytes are not this kind and version, or not aligned to 8.
    fn view(data: &[u8]) -> Result<&Self, Error> {
        Self::check(data)?;
        plain(data)
    }

    /// Views the account in place, for changing it.
    ///
    /// # Errors
    /// [`Error::AccountKindWrong`] when the bytes are not this kind and version, or not aligned to 8.
    fn view_mut(data: &mut [u8]) -> Result<&mut Self, Error> {
        Self::check(data)?;
        plain_mut(data)
    }
}

fn plain<T: Plain>(data: &[u8]) -> Result<&T, Error> {
    let pointer = data.as_ptr().cast::<T>();
    if data.len() < size_of::<T>() || !pointer.is_aligned() {
        return Err(Error::AccountKindWrong);
    }
    // SAFETY: long enough, aligned, and Plain allows every bit pattern; the borrow of `data` is kept.
    Ok(unsafe { &*pointer })
}

fn plain_mut<T: Plain>(data: &mut [u8]) -> Result<&mut T, Error> {
    let pointer = data.as_mut_ptr().cast::<T>();
    if data.len() < size_of::<T>() || !pointer.is_aligned() {
        return Err(Error::AccountKindWrong);
    }
    // SAFETY: long enough, aligned, and Plain allows every bit pattern; the borrow of `data` is kept and is exclusive.
    Ok(unsafe { &mut *pointer })
}

/// The bytes of a value, for writing a whole new account.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: Plain has no padding, so all size_of::<T>() bytes are initialised.
    unsafe { core::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }
}

/// Rows of type `R` behind a header.
pub trait Table: Record {
    /// One row.
    type Row: Plain;

    /// How many rows are in use.
    fn count(&self) -> usize;

    /// Bytes of an account with `rows` rows.
    #[must_use]
    fn size_with(rows: usize) -> usize {
        Self::SIZE + rows * size_of::<Self::Row>()
    }

    /// Views header and rows in place.
    ///
    /// # Errors
    /// [`Error::AccountKindWrong`] as [`Record::view`], or when the account is too short for its rows.
    fn view_table(data: &[u8]) -> Result<(&Self, &[Self::Row]), Error> {
        let header = Self::view(data)?;
        Ok((header, rows(&data[Self::SIZE..], header.count())?))
    }

    /// Views header and rows in place, for changing them.
    ///
    /// # Errors
    /// As [`Table::view_table`].
    fn view_table_mut(data: &mut [u8]) -> Result<(&mut Self, &mut [Self::Row]), Error> {
        Self::check(data)?;
        let (head, tail) = data.split_at_mut(Self::SIZE);
        let header: &mut Self = plain_mut(head)?;
        let count = header.count();
        rows::<Self::Row>(tail, count)?;
        // SAFETY: rows() checked length and alignment of `tail` for `count` rows; the borrow is exclusive.
        let rows = unsafe { core::slice::from_raw_parts_mut(tail.as_mut_ptr().cast::<Self::Row>(), count) };
        Ok((header, rows))
    }

    /// Copies one row out of bytes of any alignment; `None` when it is not in use.
    ///
    /// # Errors
    /// As [`Record::read`].
    fn read_row(data: &[u8], index: usize) -> Result<Option<Self::Row>, Error> {
        let header = Self::read(data)?;
        if index >= header.count() || data.len() < Self::size_with(index + 1) {
            return Ok(None);
        }
        // SAFETY: the row lies within `data`, and Plain allows every bit pattern.
        Ok(Some(unsafe { data.as_ptr().add(Self::size_with(index)).cast::<Self::Row>().read_unaligned() }))
    }
}

fn rows<R: Plain>(tail: &[u8], count: usize) -> Result<&[R], Error> {
    let pointer = tail.as_ptr().cast::<R>();
    if tail.len() < count * size_of::<R>() || !pointer.is_aligned() {
        return Err(Error::AccountKindWrong);
    }
    // SAFETY: long enough for `count` rows, aligned, and Plain allows every bit pattern.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// Declares plain structs and asserts their exact size, which leaves no room for padding.
macro_rules! plain {
    ($($(#[$doc:meta])* $size:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!(0 $(+ size_of::<$type>())* == $size, "padding between fields");
            assert!(align_of::<$name>() <= 8);
        };

        // SAFETY: repr(C), integers and arrays of them only, and the assertion above excludes padding.
        unsafe impl Plain for $name {}

        impl $name {
            /// All bytes zero.
            // SAFETY: Plain allows every bit pattern.
            pub const ZERO: Self = unsafe { core::mem::zeroed() };
        }
    )*};
}

macro_rules! records {
    ($($name:ident $(rows $row:ident by $count:ident)?;)*) => {$(
        impl Record for $name {
            const KIND: Kind = Kind::$name;
            $(const ROWS: bool = size_of::<$row>() > 0;)?
        }
        impl $name {
            /// An account of this kind and version with every other field zero.
            #[must_use]
            pub fn new() -> Self {
                Self { kind: Kind::$name as u8, version: <Self as Record>::VERSION, ..Self::ZERO }
            }
        }
        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }
        $(impl Table for $name {
            type Row = $row;
            fn count(&self) -> usize {
                usize::from(self.$count)
            }
        })?
    )*};
}

mod fault;
mod reward;
mod rules;
mod stake;

pub use fault::{CASE_PROVEN, DISPUTE_APPEALED, DISPUTE_DRAWN, Dispute, FraudCase};
pub use reward::{Claim, Reward, Vesting};
pub use rules::{
    PROPOSAL_EXECUTED, PROPOSAL_FAILED, PROPOSAL_QUEUED, PROPOSAL_VOTING, Proposal, Rules, VOTE_AGAINST, VOTE_FOR, Vote,
};
pub use stake::{AskKey, CO_STAKE_HELD, CO_STAKE_LEAVING, CO_STAKE_OFFERED, CO_STAKE_WAITING, CoStake};

records! {
    Config rows Seat by seat_count;
    Catalogue rows GpuModel by model_count;
    PriceFeed;
    FleetPage rows Slot by slot_count;
    DeviceKey;
    Order;
    Lease;
    Budget;
    Attestor;
    Epoch;
}

plain! {
    /// The network's parameters, one account at [`crate::seeds::config`]; [`Seat`]s follow.
    264 Config {
        /// [`Kind::Config`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`CONFIG_GOVERNED`]
        flags: u8,
        /// Fee on each side, in basis points (25 = 0.25%).
        fee_bps: u16,
        /// Seats of the attestor set.
        seat_count: u16,
        /// Votes that make a root final; more than half of the seats.
        threshold: u16,
        /// Number of the attestor set; 0 is the one in the network root.
        set_no: u16,
        /// Seconds for which an order's solvers have the exclusive right to fill.
        open_s: u32,
        /// May set the catalogue and, on a local cluster, the feed.
        admin: Address,
        /// The mint of ATL.
        mint: Address,
        /// The token account that receives the treasury's half of fees.
        treasury: Address,
        /// Genesis hash of the cluster, as given at init.
        genesis_hash: Hash,
        /// [`crate::network::network_root`].
        network_root: Hash,
        /// Start of epoch 0, Unix seconds.
        epoch_zero: i64,
        /// New orders and fills are refused before this second; never refunds, settlements or withdrawals.
        paused_until: i64,
        /// Seconds of an epoch.
        epoch_s: u32,
        /// Seconds for which a final root is held before it pays.
        epoch_hold_s: u32,
        /// Seconds after which a lease closes without a leaf that reaches its end.
        stall_s: u32,
        /// The longest time an order may take fills before it is active, seconds.
        fill_s_max: u32,
        /// The oldest feed that post_order accepts, seconds.
        feed_age_s_max: u32,
        /// Zero.
        spare: u32,
        /// Stake per device at multiplier 1, base units.
        stake_per_device: u64,
        /// Stake of an attestor, base units.
        attestor_stake: u64,
        /// When the present attestor set began, Unix seconds; 0 for set 0. What was over by then takes no more votes.
        set_at: i64,
        /// Zero.
        reserve: [u8; 24],
    }

    /// One seat of the attestor set.
    64 Seat {
        /// Wallet that stakes for the seat.
        owner: Address,
        /// Key that votes.
        key: Address,
    }

    /// The device models; [`GpuModel`] rows follow.
    40 Catalogue {
        /// [`Kind::Catalogue`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Zero.
        flags: u8,
        /// Rows in use.
        model_count: u16,
        /// Zero.
        spare: u16,
        /// Zero.
        reserve: [u8; 32],
    }

    /// One device model.
    56 GpuModel {
        /// Number of the model; 0 is none.
        id: u16,
        /// [`TIER_COMMUNITY`] or [`TIER_ENTERPRISE`].
        tier: u8,
        /// [`MODEL_CPU`]
        flags: u8,
        /// Memory of one device, MiB.
        memory_mib: u32,
        /// Weight of the model in stake and emission, thousandths.
        multiplier_milli: u32,
        /// Zero.
        spare: u32,
        /// Name in ASCII, zero-padded, such as `h100-sxm` or `cpu`.
        name: [u8; 32],
        /// Zero.
        reserve: [u8; 8],
    }

    /// What one ATL is worth.
    64 PriceFeed {
        /// [`Kind::PriceFeed`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`FEED_OPERATOR`].
        source: u8,
        /// Zero.
        spare: u32,
        /// Micro-USD per ATL; 0 is no price.
        uusd_per_atl: u64,
        /// Width of the price's confidence interval, micro-USD.
        confidence_uusd: u64,
        /// When it was set, Unix seconds.
        published_at: i64,
        /// Zero.
        reserve: [u8; 32],
    }

    /// One page of a supplier's workers; [`Slot`]s follow. Page 0's header is the supplier itself: only there are the
    /// fields from `own` on in use.
    136 FleetPage {
        /// [`Kind::FleetPage`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Bump of the stake vault's address.
        vault_bump: u8,
        /// Number of the page among its supplier's.
        page_no: u16,
        /// Slots, used or free.
        slot_count: u16,
        /// The supplier's wallet.
        supplier: Address,
        /// Own stake, base units.
        own: u64,
        /// Co-stake of others, base units.
        costake: u64,
        /// Stake that the registered devices of all pages require, base units.
        required: u64,
        /// Stake on its way out, still slashable, base units.
        unbonding: u64,
        /// When the unbonding stake may leave, Unix seconds.
        unbond_at: i64,
        /// What slashes left of one unit of co-stake, in [`crate::stake::WHOLE`]ths; 0 is whole: read it by
        /// [`FleetPage::index`].
        slash_index: u64,
        /// When stake was last raised from zero, Unix seconds.
        stake_since: i64,
        /// Lost leases held against the supplier.
        strikes: u32,
        /// Slots of this page that hold no worker; the next registration takes the first of them.
        free_slots: u16,
        /// Leases of this page that are not closed and have [`LEASE_COUNTED`].
        leases_open: u16,
        /// Co-stake on its way out, still slashable, base units.
        costake_leaving: u64,
        /// When own stake was last raised, Unix seconds: stake raised after a proposal does not vote on it.
        raised_at: i64,
        /// Offers of co-stake that are not closed.
        offers: u16,
        /// Votes not given back: while there are any, stake does not unbond.
        votes_open: u16,
        /// [`PAGE_COUNTED`]
        flags: u32,
        /// Zero.
        reserve: [u8; 8],
    }

    /// One worker.
    96 Slot {
        /// The worker's ed25519 device key.
        device_key: Address,
        /// Posted price, micro-USD per device-hour.
        ask_uusd: u64,
        /// When it was registered, Unix seconds.
        registered_at: i64,
        /// Raised whenever the slot is given to another worker.
        generation: u32,
        /// The longest lease it takes, seconds; 0 is any.
        lease_s_max: u32,
        /// Model of its devices.
        model: u16,
        /// Region.
        region: u16,
        /// One bit a device that is leased.
        leased_mask: u16,
        /// Devices, 1 to 16.
        devices: u8,
        /// Tier of the model.
        tier: u8,
        /// The highest assurance class it serves.
        class: u8,
        /// [`SLOT_USED`], [`SLOT_SUSPENDED`], [`SLOT_DRAINING`], [`SLOT_SLASHED`].
        flags: u8,
        /// Score, thousandths; 0 is none yet.
        score_milli: u16,
        /// Zero.
        spare: [u8; 4],
        /// Stake that its devices require, as added to [`FleetPage::required`]; 0 when it was registered before this was
        /// kept.
        required: u64,
        /// Zero.
        reserve: [u8; 16],
    }

    /// Makes a device key unique in the network.
    120 DeviceKey {
        /// [`Kind::DeviceKey`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`DEVICE_SLASHED`]
        flags: u8,
        /// Slot of the page.
        slot: u16,
        /// Zero.
        spare: u16,
        /// The device key.
        key: Address,
        /// Its fleet page.
        page: Address,
        /// Generation of the slot at registration.
        generation: u32,
        /// Zero.
        spare2: u32,
        /// When it was retired, Unix seconds; 0 while in use.
        retired_at: i64,
        /// Stake that its devices required at registration: what a fault of theirs can cost. 0 when it was registered
        /// before this was kept.
        stake: u64,
        /// Zero.
        reserve: [u8; 24],
    }

    /// What a renter wants, with escrow. Its vault holds `escrow + fees + owed`.
    448 Order {
        /// [`Kind::Order`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Bump of the vault's address.
        vault_bump: u8,
        /// [`ORDER_STOPPED`]
        flags: u8,
        /// Tier wanted; 0 is any.
        tier: u8,
        /// Assurance class wanted: slots of this class or higher.
        class: u8,
        /// Devices that each worker must give: the number of bits of every mask; 0 is any.
        devices_per_worker: u8,
        /// Region wanted; 0 is any.
        region: u16,
        /// Fee on each side when posted, basis points.
        fee_bps: u16,
        /// Leases ever made: the `n` of the next one.
        leases_made: u16,
        /// Leases not closed.
        leases_open: u16,
        /// Models accepted, in order of preference; 0 is none.
        models: [u16; 4],
        /// Length of the lease from the order's activity on, seconds.
        duration_s: u32,
        /// Devices wanted.
        devices: u32,
        /// Devices that are enough at `fill_by`.
        devices_min: u32,
        /// Devices still to be filled.
        devices_open: u32,
        /// Devices leased now.
        devices_live: u32,
        /// Seconds of `duration_s` that were added after it was posted.
        extended_s: u32,
        /// The renter's wallet.
        renter: Address,
        /// The [`Budget`] account that posted it and takes the refund; zero when the wallet posted it.
        budget: Address,
        /// Who paid the rent of the account and its vault.
        rent_payer: Address,
        /// Root of the JobSpec that may run: [`crate::network::spec_root`].
        spec_root: Hash,
        /// Merkle root over the groups the renter chose, or zero.
        fill_root: Hash,
        /// Keys with the exclusive right to fill until `open_at`; zero is none.
        solvers: [Address; 3],
        /// The renter's number for the order.
        nonce: u64,
        /// The highest ask accepted, micro-USD per device-hour.
        price_cap_uusd: u64,
        /// The feed when posted, micro-USD per ATL.
        feed_uusd_per_atl: u64,
        /// `price_cap_uusd` as a rate, base units per device-second.
        rate_cap: u64,
        /// Escrow when posted: the worst case and its fee, base units.
        escrow_initial: u64,
        /// Escrow not yet spent, base units.
        escrow: u64,
        /// Fees not yet collected, base units.
        fees: u64,
        /// Fees collected so far, base units.
        fees_collected: u64,
        /// Owed to the suppliers of its leases, base units: the sum of [`Lease::owed`].
        owed: u64,
        /// When it was posted, Unix seconds.
        posted_at: i64,
        /// When the solvers' exclusive right ends.
        open_at: i64,
        /// When it must be active.
        fill_by: i64,
        /// When it became active; 0 before.
        active_at: i64,
        /// When its leases end; 0 before it is active.
        end: i64,
        /// Regions wanted, one bit each; 0 is any. Beside `region`, which names one.
        region_mask: u64,
        /// Lowest score wanted, thousandths; 0 is any.
        score_min_milli: u16,
        /// Zero.
        spare: u16,
        /// Spot: seconds of notice before the supplier takes devices back; 0 is not spot.
        notice_s: u32,
        /// Zero.
        reserve: [u8; 16],
    }

    /// A group of slots of one page with one device mask and one rate.
    352 Lease {
        /// [`Kind::Lease`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`LEASE_FINAL`], [`LEASE_LOSS_BLAMED`], [`LEASE_COUNTED`], [`LEASE_FROZEN`], [`LEASE_JUDGED`]
        flags: u8,
        /// Number of the lease in its order.
        n: u16,
        /// Devices of each slot.
        mask: u16,
        /// Its order.
        order: Address,
        /// Its fleet page.
        page: Address,
        /// Who paid the account's rent and gets it back.
        rent_payer: Address,
        /// The slots' ask when filled, micro-USD per device-hour.
        ask_uusd: u64,
        /// Base units per device-second.
        rate: u64,
        /// Start of pay, Unix seconds; 0 until the order is active.
        start: i64,
        /// End, Unix seconds; 0 until the order is active.
        end: i64,
        /// Device-seconds that can have been served up to `cap_since`.
        cap_base: u64,
        /// Since when the present devices count.
        cap_since: i64,
        /// Device-seconds settled.
        device_seconds_paid: u64,
        /// Settled and not withdrawn, base units.
        owed: u64,
        /// Chain time that the newest settled leaf reaches.
        settled_until: i64,
        /// When slots were last released; 0 never.
        released_at: i64,
        /// Devices not released.
        devices_live: u32,
        /// Share of each device, thousandths: 1000.
        share_milli: u16,
        /// Zero.
        spare: u16,
        /// By how many device-seconds verdicts of disputes lowered what may ever be settled.
        unserved: u64,
        /// Spot: when the supplier takes the devices back; 0 without a notice.
        reclaim_at: i64,
        /// When the last dispute over it ended, Unix seconds; 0 for none.
        thawed_at: i64,
        /// Zero.
        reserve: [u8; 8],
        /// Slots not released, one bit each.
        bitmap: [u8; BITMAP_LEN],
    }

    /// A session key with its own vault.
    144 Budget {
        /// [`Kind::Budget`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Bump of the vault's address.
        vault_bump: u8,
        /// [`BUDGET_REVOKED`]
        flags: u8,
        /// Zero.
        spare: [u8; 3],
        /// The wallet that funds it.
        renter: Address,
        /// The session key.
        key: Address,
        /// The highest escrow of one order, base units.
        order_max: u64,
        /// The highest sum of escrows posted in one day, base units.
        day_max: u64,
        /// Escrows posted on `day`, base units.
        day_spent: u64,
        /// Day since the Unix epoch of `day_spent`.
        day: u64,
        /// When the key stops working, Unix seconds.
        expires_at: i64,
        /// Zero.
        reserve: [u8; 32],
    }

    /// A seat's staked key.
    128 Attestor {
        /// [`Kind::Attestor`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Bump of the stake vault's address.
        vault_bump: u8,
        /// Its seat: the bit of its votes.
        seat: u16,
        /// [`ATTESTOR_SLASHED`]
        flags: u16,
        /// The wallet that staked.
        owner: Address,
        /// The key that votes.
        key: Address,
        /// Stake, base units.
        stake: u64,
        /// The lowest epoch it may still vote on.
        next_epoch: u64,
        /// When it was registered, Unix seconds.
        registered_at: i64,
        /// The lowest hour of rewards that it may still vote on.
        next_hour: u64,
        /// Zero.
        reserve: [u8; 24],
    }

    /// One root proposed for one epoch.
    160 Epoch {
        /// [`Kind::Epoch`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Zero.
        flags: u8,
        /// Votes so far.
        vote_count: u16,
        /// Zero.
        spare: u16,
        /// The epoch.
        index: u64,
        /// Root over the epoch's leaves.
        root: Hash,
        /// Who paid the account's rent.
        rent_payer: Address,
        /// When the first vote came, Unix seconds.
        posted_at: i64,
        /// When the votes reached the threshold, Unix seconds; 0 before.
        final_at: i64,
        /// One bit a seat that voted.
        votes: [u8; 32],
        /// Zero.
        reserve: [u8; 32],
    }
}

/// Votes decide: the admin's rights over rules, catalogue and vestings have ended.
pub const CONFIG_GOVERNED: u8 = 1;
/// Consumer cards and CPUs.
pub const TIER_COMMUNITY: u8 = 1;
/// Data-centre cards.
pub const TIER_ENTERPRISE: u8 = 2;
/// Assurance class `sampled`: work is re-executed by sample.
pub const CLASS_SAMPLED: u8 = 1;
/// Assurance class `refereed`: fixed-order kernels, a dispute ends in one operation.
pub const CLASS_REFEREED: u8 = 2;
/// Assurance class `attested`: runs in measured hardware.
pub const CLASS_ATTESTED: u8 = 3;
/// The model is a CPU, not a GPU.
pub const MODEL_CPU: u8 = 1;
/// The feed is set by the operator; there is no market behind it.
pub const FEED_OPERATOR: u8 = 1;
/// The slot holds a worker.
pub const SLOT_USED: u8 = 1;
/// The slot was released as lost; only its device key clears this.
pub const SLOT_SUSPENDED: u8 = 2;
/// The slot takes no new lease.
pub const SLOT_DRAINING: u8 = 4;
/// The slot's devices were slashed for fraud: it serves nobody until it is retired.
pub const SLOT_SLASHED: u8 = 8;
/// The page counts its open leases, so that it can tell when it may be closed. Pages made before that never close.
pub const PAGE_COUNTED: u32 = 1;
/// The device was slashed for fraud; it is not slashed again.
pub const DEVICE_SLASHED: u8 = 1;
/// The attestor signed two roots of one epoch: its stake is gone, and its key votes no more.
pub const ATTESTOR_SLASHED: u16 = 1;
/// The renter stopped the order: it takes no more fills.
pub const ORDER_STOPPED: u8 = 1;
/// A leaf with the final flag is settled.
pub const LEASE_FINAL: u8 = 1;
/// A settled leaf blamed the supplier for a loss.
pub const LEASE_LOSS_BLAMED: u8 = 2;
/// The lease's page counts it in [`FleetPage::leases_open`].
pub const LEASE_COUNTED: u8 = 4;
/// A dispute is open: nothing is settled.
pub const LEASE_FROZEN: u8 = 8;
/// A verdict set what is settled: only a leaf of a later time says more.
pub const LEASE_JUDGED: u8 = 16;
/// The wallet revoked the key.
pub const BUDGET_REVOKED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    #[test]
    fn accounts_are_read_at_any_alignment_and_refused_as_another_kind() {
        let mut lease = Lease::new();
        lease.owed = 7;
        let mut shifted = vec![0u8];
        shifted.extend_from_slice(bytes_of(&lease));
        assert_eq!(Lease::read(&shifted[1..]).unwrap(), lease);
        assert_eq!(Order::read(&shifted[1..]), Err(Error::AccountKindWrong));
        assert_eq!(Lease::read(&shifted[1..shifted.len() - 1]), Err(Error::AccountKindWrong));
        assert_eq!(Lease::read(&[]), Err(Error::AccountKindWrong));
        shifted[2] = 2;
        assert_eq!(Lease::read(&shifted[1..]), Err(Error::AccountKindWrong), "another version");
    }

    #[test]
    fn rows_stay_within_the_account() {
        let mut page = FleetPage::new();
        page.slot_count = 2;
        let mut slot = Slot::ZERO;
        slot.model = 9;
        let mut data: Vec<u8> = bytes_of(&page).to_vec();
        data.extend_from_slice(bytes_of(&Slot::ZERO));
        data.extend_from_slice(bytes_of(&slot));
        assert_eq!(FleetPage::read_row(&data, 1).unwrap().unwrap().model, 9);
        assert_eq!(FleetPage::read_row(&data, 2).unwrap(), None);
        data.pop();
        assert_eq!(FleetPage::read_row(&data, 1).unwrap(), None);
    }

    #[test]
    fn field_offsets_that_rpc_filters_use() {
        assert_eq!(core::mem::offset_of!(Lease, order), 8);
        assert_eq!(core::mem::offset_of!(Lease, page), 40);
        assert_eq!(core::mem::offset_of!(FleetPage, supplier), 8);
        assert_eq!(core::mem::offset_of!(Order, renter), 48);
        assert_eq!(core::mem::offset_of!(Budget, renter), 8);
    }
}

//! The instructions: their numbers, their data in both directions, and their accounts in order.
//!
//! The account table of an instruction is written once, here: it makes the `metas` that a client sends, and the
//! [`SIGNER`] and [`WRITABLE`] flags that the program checks before it looks at anything else. An instruction's data is
//! its number (u8) and its fields in order. Numbers, fields and accounts of an instruction never change once deployed;
//! what must change becomes a new instruction.

use crate::{
    Address, Data, Error, Hash, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    wire::{Hashes, Wire},
};

/// The account must sign.
pub const SIGNER: u8 = 1;
/// The account is changed.
pub const WRITABLE: u8 = 2;

/// Accounts of the longest instruction.
pub const ACCOUNTS_MAX: usize = 13;

/// One account of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its address.
    pub address: Address,
    /// Whether it must sign.
    pub signer: bool,
    /// Whether it is changed.
    pub writable: bool,
}

macro_rules! flag {
    (signer) => {
        SIGNER
    };
    (writable) => {
        WRITABLE
    };
    (readonly) => {
        0
    };
}

macro_rules! instructions {
    ($(
        $(#[$doc:meta])*
        $tag:literal $name:ident $(<$life:lifetime>)? {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
        $accounts:ident {
            $($(#[$account_doc:meta])* $account:ident: $($flag:ident)+,)*
            $(= $program:ident,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name $(<$life>)? {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl $(<$life>)? $name $(<$life>)? {
                /// The instruction's number: the first byte of its data.
                pub const TAG: u8 = $tag;
                pub(crate) const FLAGS: &'static [u8] = &$accounts::FLAGS;

                /// The instruction's data, its number first.
                ///
                /// # Errors
                /// [`Error::InstructionMalformed`] when it would not fit in a transaction.
                pub fn encode(&self) -> Result<Data, Error> {
                    let mut data = Data::new();
                    data.push(&[Self::TAG])?;
                    $(self.$field.put(&mut data)?;)*
                    Ok(data)
                }

                /// Decodes the fields that follow the number.
                ///
                /// # Errors
                /// [`Error::InstructionMalformed`] when they do not fill the bytes exactly.
                #[allow(unused_mut, unused_variables)]
                pub fn decode(fields: & $($life)? [u8]) -> Result<Self, Error> {
                    let mut rest = fields;
                    let decoded = Self { $($field: Wire::take(&mut rest)?,)* };
                    if rest.is_empty() { Ok(decoded) } else { Err(Error::InstructionMalformed) }
                }
            }

            #[doc = concat!("The accounts of [`", stringify!($name), "`], in order.")]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $accounts {
                $($(#[$account_doc])* pub $account: Address,)*
            }

            impl $accounts {
                /// [`SIGNER`] and [`WRITABLE`] of each account.
                pub const FLAGS: [u8; [$(stringify!($account),)* $(stringify!($program),)*].len()] =
                    [$($(flag!($flag))|+,)* $({ let _ = $program; 0 },)*];

                /// The accounts to send, programs last.
                #[must_use]
                pub fn metas(&self) -> [Meta; Self::FLAGS.len()] {
                    let addresses = [$(self.$account,)* $($program,)*];
                    let mut metas = [Meta { address: [0; 32], signer: false, writable: false }; Self::FLAGS.len()];
                    for ((meta, address), flags) in metas.iter_mut().zip(addresses).zip(Self::FLAGS) {
                        *meta = Meta { address, signer: flags & SIGNER != 0, writable: flags & WRITABLE != 0 };
                    }
                    metas
                }
            }
        )*
    };
}

/// Names every instruction once more, in the order of the numbers: the enum of all and the table.
macro_rules! all {
    ($($name:ident $(<$life:lifetime>)?,)*) => {
        /// Any instruction, decoded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Instruction<'a> {
            $(#[doc = concat!("[`", stringify!($name), "`]")] $name($name $(<$life>)?),)*
        }

        impl<'a> Instruction<'a> {
            /// Decodes an instruction's data.
            ///
            /// # Errors
            /// [`Error::InstructionUnknown`] for an unknown number, [`Error::InstructionMalformed`] when the fields do not
            /// fill the data exactly.
            pub fn decode(data: &'a [u8]) -> Result<Self, Error> {
                let (tag, fields) = data.split_first().ok_or(Error::InstructionMalformed)?;
                match *tag {
                    $($name::TAG => Ok(Self::$name($name::decode(fields)?)),)*
                    _ => Err(Error::InstructionUnknown),
                }
            }
        }

        /// (number, name, flags of its accounts) of every instruction, for tests and explorers; not used on chain.
        pub const TABLE: &[(u8, &str, &[u8])] = &[$(($name::TAG, stringify!($name), $name::FLAGS)),*];
    };
}

mod batch;
mod cosigned;
mod dispute;
mod fault;
mod govern;
mod reward;
mod spot;
mod stake;
mod supply;
mod vesting;

pub use batch::*;
pub use cosigned::*;
pub use dispute::*;
pub use fault::*;
pub use govern::*;
pub use reward::*;
pub use spot::*;
pub use stake::*;
pub use supply::*;
pub use vesting::*;

all! {
    Init<'a>,
    SetCatalogue,
    SetFeed,
    RegisterWorker,
    Stake,
    SetAsk,
    SetBudget,
    PostOrder,
    FillOrder<'a>,
    ReleaseLease<'a>,
    RegisterAttestor,
    PostEpoch,
    SettleLease<'a>,
    WithdrawOwed,
    CloseLease,
    CloseOrder,
    CollectFees,
    ExtendOrder,
    ExtendLease,
    SetRules,
    SetDrain<'a>,
    DelegateAskKey,
    SetAsks<'a>,
    RotateDeviceKey,
    RetireWorker,
    CloseDeviceKey,
    ClosePage,
    UnstakeRequest,
    UnstakeWithdraw,
    CostakeOffer,
    CostakeAccept,
    CostakeExit,
    ProveEquivocation,
    OpenFraud,
    AddFraudElement<'a>,
    ExecuteSlash,
    SettleBatch<'a>,
    SettleMixed<'a>,
    OpenDispute<'a>,
    VoteDispute,
    Appeal,
    CloseDispute,
    SettleCosigned,
    PostReward,
    ClaimReward<'a>,
    Pause,
    Propose<'a>,
    Vote,
    Queue,
    Execute,
    PostOrderSpot<'a>,
    NoticeReclaim,
    ExtendByBudget,
    ClaimVesting,
    GrantVesting,
}

/// Numbers that are decided and not built yet: the next instruction of that name takes its number.
pub const PLANNED: &[(u8, &str)] = &[(53, "Buyback")];

instructions! {
    /// Makes the network: parameters, attestor set 0, an empty catalogue and a feed without a price. Once.
    0 Init<'a> {
        /// Genesis hash of the cluster.
        genesis_hash: Hash,
        /// Fee on each side, basis points, at most 1,000.
        fee_bps: u16,
        /// Seconds of an epoch.
        epoch_s: u32,
        /// Seconds for which a final root is held.
        epoch_hold_s: u32,
        /// Seconds after which a lease closes without a leaf that reaches its end.
        stall_s: u32,
        /// Seconds of the solvers' exclusive right.
        open_s: u32,
        /// The longest time an order may take fills before it is active, seconds.
        fill_s_max: u32,
        /// The oldest feed that post_order accepts, seconds.
        feed_age_s_max: u32,
        /// Stake per device at multiplier 1, base units.
        stake_per_device: u64,
        /// Stake of an attestor, base units.
        attestor_stake: u64,
        /// Votes that make a root final; more than half of the seats.
        threshold: u16,
        /// Attestor set 0: (owner ‖ key) of each seat.
        seats: &'a [[u8; 64]],
    }
    InitAccounts {
        /// Pays; becomes the network's admin.
        admin: signer writable,
        /// [`crate::seeds::config`]
        config: writable,
        /// [`crate::seeds::catalogue`]
        catalogue: writable,
        /// [`crate::seeds::feed`]
        feed: writable,
        /// ATL: 9 decimals, no freeze authority.
        mint: readonly,
        /// Token account of ATL that receives the treasury's half of fees.
        treasury: readonly,
        = SYSTEM_PROGRAM_ID,
    }

    /// Adds a device model to the catalogue, or changes the one with the same number.
    1 SetCatalogue {
        /// Number of the model, not 0.
        id: u16,
        /// Tier.
        tier: u8,
        /// [`crate::layout::MODEL_CPU`]
        flags: u8,
        /// Memory of one device, MiB.
        memory_mib: u32,
        /// Weight in stake and emission, thousandths.
        multiplier_milli: u32,
        /// Name in ASCII, zero-padded.
        name: [u8; 32],
    }
    SetCatalogueAccounts {
        /// The network's admin; pays for the new row.
        admin: signer writable,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::catalogue`]
        catalogue: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Sets the price of ATL. For local clusters, by their operator.
    2 SetFeed {
        /// Micro-USD per ATL, not 0.
        uusd_per_atl: u64,
        /// Width of the price's confidence interval, micro-USD.
        confidence_uusd: u64,
    }
    SetFeedAccounts {
        /// The network's admin.
        admin: signer,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::feed`]
        feed: writable,
    }

    /// Registers a worker: the page grows by one slot, the supplier's required stake by its devices'.
    3 RegisterWorker {
        /// The supplier's page to register on; made when it does not exist.
        page_no: u16,
        /// Model, from the catalogue.
        model: u16,
        /// Region.
        region: u16,
        /// Devices, 1 to 16.
        devices: u8,
        /// The highest assurance class it serves.
        class: u8,
        /// Ask, micro-USD per device-hour.
        ask_uusd: u64,
        /// The longest lease it takes, seconds; 0 is any.
        lease_s_max: u32,
    }
    RegisterWorkerAccounts {
        /// The supplier's wallet; pays the rent.
        supplier: signer writable,
        /// The worker's device key.
        device: signer,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::catalogue`]
        catalogue: readonly,
        /// [`crate::seeds::page`] of `page_no`
        page: writable,
        /// [`crate::seeds::page`] of 0: the supplier; the same account when `page_no` is 0.
        first_page: writable,
        /// [`crate::seeds::device`]
        device_key: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Adds to the supplier's own stake.
    4 Stake {
        /// Base units.
        amount: u64,
    }
    StakeAccounts {
        /// The supplier's wallet; pays the vault's rent.
        supplier: signer writable,
        /// [`crate::seeds::page`] of 0
        first_page: writable,
        /// [`crate::seeds::stake_vault`]; made when it does not exist.
        vault: writable,
        /// The wallet's token account.
        source: writable,
        /// ATL.
        mint: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }

    /// Changes a slot's terms for future leases. The wallet sets ask and longest lease; wallet or device key drain; only
    /// the device key clears the suspension.
    5 SetAsk {
        /// The slot.
        slot: u16,
        /// What to change: [`ASK`], [`DRAIN`], [`UNDRAIN`], [`RESUME`].
        change: u8,
        /// New ask with [`ASK`], micro-USD per device-hour.
        ask_uusd: u64,
        /// New longest lease with [`ASK`], seconds; 0 is any.
        lease_s_max: u32,
    }
    SetAskAccounts {
        /// The supplier's wallet or the slot's device key.
        authority: signer,
        /// The slot's fleet page.
        page: writable,
    }

    /// Makes or changes a session key with its own vault, and moves funds between it and the wallet.
    6 SetBudget {
        /// The session key.
        key: Address,
        /// The highest escrow of one order, base units.
        order_max: u64,
        /// The highest sum of escrows posted in one day, base units.
        day_max: u64,
        /// When the key stops working, Unix seconds.
        expires_at: i64,
        /// 1 revokes the key, 0 lets it work.
        revoked: u8,
        /// Base units into the vault.
        deposit: u64,
        /// Base units back to the wallet.
        withdraw: u64,
    }
    SetBudgetAccounts {
        /// The renter's wallet; pays the rent.
        renter: signer writable,
        /// [`crate::seeds::budget`]
        budget: writable,
        /// [`crate::seeds::budget_vault`]
        vault: writable,
        /// A token account of the wallet.
        wallet_token: writable,
        /// ATL.
        mint: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }

    /// Posts an order and escrows its worst case with the renter's fee.
    7 PostOrder {
        /// The renter's number for the order.
        nonce: u64,
        /// Models accepted, in order of preference; 0 is none.
        models: [u16; 4],
        /// Devices wanted.
        devices: u32,
        /// Devices that are enough when the time to fill is over.
        devices_min: u32,
        /// Devices that each worker must give; 0 is any.
        devices_per_worker: u8,
        /// Tier wanted; 0 is any.
        tier: u8,
        /// Lowest assurance class wanted.
        class: u8,
        /// Region wanted; 0 is any.
        region: u16,
        /// The highest ask accepted, micro-USD per device-hour.
        price_cap_uusd: u64,
        /// Length of the lease, seconds.
        duration_s: u32,
        /// Time to become active, seconds.
        fill_s: u32,
        /// Root of the JobSpec that may run.
        spec_root: Hash,
        /// Merkle root over the groups the renter chose, or zero.
        fill_root: Hash,
        /// Keys with the exclusive right to fill at first; zero is none.
        solvers: [Address; 3],
    }
    PostOrderAccounts {
        /// The renter's wallet or its budget's key.
        authority: signer,
        /// Pays the rent and gets it back.
        payer: signer writable,
        /// [`crate::seeds::order`]
        order: writable,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        /// A token account of the wallet, or the budget's vault.
        source: writable,
        /// The budget, or the order's address again when the wallet signs.
        budget: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::catalogue`]
        catalogue: readonly,
        /// [`crate::seeds::feed`]
        feed: readonly,
        /// ATL.
        mint: readonly,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }

    /// Gives one group of equal ask on one page to an order: makes its lease and locks the devices.
    8 FillOrder<'a> {
        /// Devices of each slot.
        mask: u16,
        /// The highest ask the filler accepts, micro-USD per device-hour.
        ask_max: u64,
        /// The first slot of the bitmap.
        first_slot: u16,
        /// Bitmap of slots.
        bits: &'a [u8],
        /// Index of the group under the order's fill root.
        group_index: u32,
        /// Path of the group under the order's fill root; empty when the order has none.
        group_path: Hashes<'a>,
    }
    FillOrderAccounts {
        /// A solver of the order, or anyone once the window is open.
        filler: signer,
        /// Pays the lease's rent and gets it back.
        payer: signer writable,
        /// The order.
        order: writable,
        /// The group's page.
        page: writable,
        /// Page 0 of the same supplier; the same account when the page is page 0.
        first_page: readonly,
        /// [`crate::seeds::lease`] of the order's next `n`
        lease: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        = SYSTEM_PROGRAM_ID,
    }

    /// Frees slots of a lease at once. Pays nothing.
    9 ReleaseLease<'a> {
        /// [`crate::settlement::Reason`]
        reason: u8,
        /// When the service stopped, Unix seconds; heeded only from the supplier's side.
        effective_at: i64,
        /// The first slot of the bitmap.
        first_slot: u16,
        /// Bitmap of slots.
        bits: &'a [u8],
    }
    ReleaseLeaseAccounts {
        /// Who releases: its right follows from who it is.
        authority: signer,
        /// The order.
        order: writable,
        /// The lease.
        lease: writable,
        /// The lease's page.
        page: writable,
        /// The order's budget when its key signs, else the order's address again.
        budget: readonly,
    }

    /// Stakes for a seat of the attestor set, so that its key may vote.
    10 RegisterAttestor {
        /// The seat.
        seat: u16,
    }
    RegisterAttestorAccounts {
        /// The seat's owner; pays rent and stake.
        owner: signer writable,
        /// The seat's key.
        key: signer,
        /// [`crate::seeds::attestor`]
        attestor: writable,
        /// [`crate::seeds::attestor_vault`]
        vault: writable,
        /// A token account of the owner.
        source: writable,
        /// ATL.
        mint: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }

    /// Votes for one root of an epoch that is over.
    11 PostEpoch {
        /// The epoch.
        index: u64,
        /// The root over its leaves.
        root: Hash,
    }
    PostEpochAccounts {
        /// The attestor's key.
        key: signer,
        /// Pays the rent when this is the root's first vote.
        payer: signer writable,
        /// [`crate::seeds::attestor`]
        attestor: writable,
        /// [`crate::seeds::epoch`]
        epoch: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        = SYSTEM_PROGRAM_ID,
    }

    /// Books a lease's leaf under a final root that is out of its hold. Anyone may send it; it moves no token.
    12 SettleLease<'a> {
        /// [`crate::merkle::Leaf::device_seconds`]
        device_seconds: u64,
        /// [`crate::merkle::Leaf::until`]
        until: i64,
        /// [`crate::merkle::Leaf::flags`]
        flags: u8,
        /// [`crate::merkle::Leaf::slots_root`]
        slots_root: Hash,
        /// Index of the leaf.
        leaf_index: u32,
        /// Path of the leaf.
        path: Hashes<'a>,
    }
    SettleLeaseAccounts {
        /// The order.
        order: writable,
        /// The lease.
        lease: writable,
        /// The root.
        epoch: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
    }

    /// Moves what a lease is owed to its supplier. Anyone may send it.
    13 WithdrawOwed {}
    WithdrawOwedAccounts {
        /// The order.
        order: writable,
        /// The lease.
        lease: writable,
        /// The lease's page.
        page: readonly,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        /// A token account of the supplier's wallet.
        destination: writable,
        = TOKEN_PROGRAM_ID,
    }

    /// Pays what is owed and closes a lease that is released and settled. Anyone may send it.
    14 CloseLease {}
    CloseLeaseAccounts {
        /// The order.
        order: writable,
        /// The lease.
        lease: writable,
        /// The lease's page, which counts its open leases.
        page: writable,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        /// A token account of the supplier's wallet.
        destination: writable,
        /// Who paid the lease's rent.
        rent_payer: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        = TOKEN_PROGRAM_ID,
    }

    /// Refunds the rest of the escrow and closes an order without open leases or uncollected fees: the renter or a solver
    /// of the order at any time, anyone once the order is over.
    15 CloseOrder {}
    CloseOrderAccounts {
        /// The renter's wallet, the order's budget key, a solver key of the order, or anyone.
        authority: signer,
        /// The order.
        order: writable,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        /// A token account of the renter's wallet, or the budget's vault when a budget posted it.
        refund: writable,
        /// Who paid the order's rent.
        rent_payer: writable,
        /// The order's budget when one posted it, else the order's address again.
        budget: readonly,
        = TOKEN_PROGRAM_ID,
    }

    /// Burns half of an order's fees and sends the rest to the treasury. Anyone may send it.
    16 CollectFees {}
    CollectFeesAccounts {
        /// The order.
        order: writable,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        /// ATL.
        mint: writable,
        /// The network's treasury.
        treasury: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        = TOKEN_PROGRAM_ID,
    }

    /// Lengthens an active order and escrows the worst case of the added time. Its leases follow, one by one, by
    /// [`ExtendLease`]; those that do not end when they would have, and their devices are filled again.
    17 ExtendOrder {
        /// Seconds added to the order's end.
        seconds: u32,
        /// What the renter adds to the escrow, base units: exactly what [`crate::layout::Order::extension`] says, so that
        /// nobody pays for devices that came or went meanwhile.
        escrow: u64,
    }
    ExtendOrderAccounts {
        /// The renter's wallet.
        renter: signer,
        /// The order.
        order: writable,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        /// A token account of the renter.
        source: writable,
        = TOKEN_PROGRAM_ID,
    }

    /// Moves a lease's end to its order's, at the lease's own rate. By anyone; refused when one of its slots now asks
    /// more, drains, is suspended, or does not lease for so long.
    18 ExtendLease {}
    ExtendLeaseAccounts {
        /// The order.
        order: writable,
        /// The lease.
        lease: writable,
        /// The lease's page.
        page: readonly,
    }
}

/// [`SetAsk::change`]: ask and longest lease.
pub const ASK: u8 = 1;
/// [`SetAsk::change`]: take no new lease.
pub const DRAIN: u8 = 2;
/// [`SetAsk::change`]: take new leases again.
pub const UNDRAIN: u8 = 4;
/// [`SetAsk::change`]: clear the suspension.
pub const RESUME: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_gapless() {
        let built = TABLE.iter().map(|(tag, ..)| *tag);
        let mut numbers: std::vec::Vec<u8> = built.chain(PLANNED.iter().map(|(tag, _)| *tag)).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..=u8::try_from(numbers.len() - 1).unwrap()), "{numbers:?}");
        for (_, name, flags) in TABLE {
            assert!(flags.len() <= ACCOUNTS_MAX, "{name}");
        }
    }

    #[test]
    fn data_round_trips() {
        let (bits, path) = ([1, 2, 3], [[4; 32], [5; 32]]);
        let fill = FillOrder {
            mask: 0x0102,
            ask_max: 3,
            first_slot: 4,
            bits: &bits,
            group_index: 5,
            group_path: Hashes::new(&path),
        };
        let data = fill.encode().unwrap();
        assert_eq!(data.as_slice().len(), 1 + 2 + 8 + 2 + 2 + 3 + 4 + 2 + 64);
        assert_eq!(Instruction::decode(data.as_slice()), Ok(Instruction::FillOrder(fill)));
        assert_eq!(FillOrder::decode(&data.as_slice()[1..data.as_slice().len() - 1]), Err(Error::InstructionMalformed));

        let init = Init {
            genesis_hash: [1; 32],
            fee_bps: 25,
            epoch_s: 5,
            epoch_hold_s: 1,
            stall_s: 60,
            open_s: 30,
            fill_s_max: 600,
            feed_age_s_max: 60,
            stake_per_device: 7,
            attestor_stake: 8,
            threshold: 1,
            seats: &[[9; 64]],
        };
        assert_eq!(Instruction::decode(init.encode().unwrap().as_slice()), Ok(Instruction::Init(init)));
    }

    #[test]
    fn what_does_not_fit_in_a_transaction_is_refused() {
        let path = [[0; 32]; 40];
        let settle = SettleLease {
            device_seconds: 0,
            until: 0,
            flags: 0,
            slots_root: [0; 32],
            leaf_index: 0,
            path: Hashes::new(&path),
        };
        assert!(matches!(settle.encode(), Err(Error::InstructionMalformed)));
    }

    #[test]
    fn accounts_come_in_the_order_of_their_flags() {
        let accounts =
            CollectFeesAccounts { order: [1; 32], vault: [2; 32], mint: [3; 32], treasury: [4; 32], config: [5; 32] };
        let metas = accounts.metas();
        assert_eq!(metas.map(|meta| meta.address[0]), [1, 2, 3, 4, 5, TOKEN_PROGRAM_ID[0]]);
        assert_eq!(metas.map(|meta| meta.writable), [true, true, true, true, false, false]);
        assert_eq!(PostOrderAccounts::FLAGS[..3], [SIGNER, SIGNER | WRITABLE, WRITABLE]);
    }

    proptest! {
        /// Hostile bytes are refused or decode to what encodes to the same bytes.
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), tag in 0u8..64) {
            let mut data = bytes;
            if let Some(first) = data.first_mut() {
                *first = tag;
            }
            if let Ok(Instruction::FillOrder(fill)) = Instruction::decode(&data) {
                let encoded = fill.encode().unwrap();
                prop_assert_eq!(encoded.as_slice(), &data[..]);
            }
        }
    }
}

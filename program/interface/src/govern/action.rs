//! What a vote may change. A proposal carries the fields as an instruction would; they are read when it is made, so that
//! nobody votes on bytes that say nothing, and once more when it is executed.

use crate::{
    Address, Data, Error, Hash, NO_ADDRESS,
    instruction::{Init, SetCatalogue, SetRules},
    layout::{Config, Rules, SEATS_MAX, TIER_COMMUNITY, TIER_ENTERPRISE},
    stake::TIME_S_MAX,
    wire::Wire,
};

/// The highest fee on each side: 10%.
const FEE_BPS_MAX: u16 = 1_000;
/// The highest weight of a model: 1,000 times the base.
const MULTIPLIER_MILLI_MAX: u32 = 1_000_000;

/// The number of [`Action::Rules`].
pub const ACTION_RULES: u16 = 1;
/// The number of [`Action::Parameters`].
pub const ACTION_PARAMETERS: u16 = 2;
/// The number of [`Action::Catalogue`].
pub const ACTION_CATALOGUE: u16 = 3;
/// The number of [`Action::Seat`].
pub const ACTION_SEAT: u16 = 4;
/// The number of [`Action::Treasury`].
pub const ACTION_TREASURY: u16 = 5;
/// The number of [`Action::Upgrade`].
pub const ACTION_UPGRADE: u16 = 6;
/// The number of [`Action::Govern`].
pub const ACTION_GOVERN: u16 = 7;

/// What a proposal changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// All rules anew, the guardian among them; the fields of [`SetRules`].
    Rules(SetRules),
    /// The fees and times of [`Config`].
    Parameters(Parameters),
    /// A row of the catalogue; the fields of [`SetCatalogue`].
    Catalogue(SetCatalogue),
    /// A seat of the attestor set, or its threshold.
    Seat(SetSeat),
    /// Another token account for the treasury's half of fees.
    Treasury(Address),
    /// New bytes of the program, by their hash. The program records the decision; who holds the upgrade authority acts.
    Upgrade,
    /// Votes decide from here on; the admin keeps the feed of a local network and nothing else.
    Govern,
}

impl Action {
    /// Reads what a proposal carries and checks all that can be checked without the chain's state.
    ///
    /// # Errors
    /// [`Error::InstructionMalformed`] for an unknown action or fields that do not fill the payload exactly,
    /// [`Error::ParameterOutOfRange`] for values that are never in range.
    pub fn read(action: u16, payload: &[u8], payload_hash: &Hash) -> Result<Self, Error> {
        let nothing = |read: Self| if payload.is_empty() { Ok(read) } else { Err(Error::InstructionMalformed) };
        let read = match action {
            ACTION_RULES => Self::Rules(SetRules::decode(payload)?),
            ACTION_PARAMETERS => Self::Parameters(Parameters::decode(payload)?),
            ACTION_CATALOGUE => Self::Catalogue(SetCatalogue::decode(payload)?),
            ACTION_SEAT => Self::Seat(SetSeat::decode(payload)?),
            ACTION_TREASURY => Self::Treasury(
                *payload.first_chunk().filter(|_| payload.len() == 32).ok_or(Error::InstructionMalformed)?,
            ),
            ACTION_UPGRADE => nothing(Self::Upgrade)?,
            ACTION_GOVERN => nothing(Self::Govern)?,
            _ => return Err(Error::InstructionMalformed),
        };
        match &read {
            Self::Rules(set) => {
                let mut rules = Rules::new();
                rules.set(set);
                rules.check()?;
            }
            Self::Parameters(parameters) => parameters.check(1)?,
            Self::Catalogue(model) => model.check()?,
            Self::Seat(seat) => seat.check()?,
            Self::Treasury(account) if *account == NO_ADDRESS => return Err(Error::ParameterOutOfRange),
            Self::Upgrade if *payload_hash == [0; 32] => return Err(Error::ParameterOutOfRange),
            Self::Treasury(_) | Self::Upgrade | Self::Govern => {}
        }
        Ok(read)
    }
}

/// Declares what a payload holds, field by field, as instructions do.
macro_rules! payload {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $name {
            /// The payload of a proposal.
            ///
            /// # Errors
            /// [`Error::InstructionMalformed`] when it would not fit in a transaction.
            pub fn encode(&self) -> Result<Data, Error> {
                let mut data = Data::new();
                $(self.$field.put(&mut data)?;)*
                Ok(data)
            }

            fn decode(payload: &[u8]) -> Result<Self, Error> {
                let mut rest = payload;
                let decoded = Self { $($field: Wire::take(&mut rest)?,)* };
                if rest.is_empty() { Ok(decoded) } else { Err(Error::InstructionMalformed) }
            }
        }
    )*};
}

payload! {
    /// The fees and times of [`Config`] that may change. The length of an epoch may not: it numbers them.
    Parameters {
        /// [`Config::fee_bps`]
        fee_bps: u16,
        /// [`Config::epoch_hold_s`]
        epoch_hold_s: u32,
        /// [`Config::stall_s`]
        stall_s: u32,
        /// [`Config::open_s`]
        open_s: u32,
        /// [`Config::fill_s_max`]
        fill_s_max: u32,
        /// [`Config::feed_age_s_max`]
        feed_age_s_max: u32,
        /// [`Config::stake_per_device`]; what workers required when they came stays.
        stake_per_device: u64,
        /// [`Config::attestor_stake`]; what seats staked when they came stays.
        attestor_stake: u64,
    }

    /// A seat: changed when it exists, added when `seat` is the number of seats, taken away when it is the last one and
    /// owner and key are zero. With the seat's present owner and key only the threshold changes.
    SetSeat {
        /// Number of the seat.
        seat: u16,
        /// Votes that make a root final from here on.
        threshold: u16,
        /// Wallet that stakes for it.
        owner: Address,
        /// Key that votes.
        key: Address,
    }
}

impl Parameters {
    /// Those with which a network begins.
    #[must_use]
    pub const fn of(init: &Init<'_>) -> Self {
        Self {
            fee_bps: init.fee_bps,
            epoch_hold_s: init.epoch_hold_s,
            stall_s: init.stall_s,
            open_s: init.open_s,
            fill_s_max: init.fill_s_max,
            feed_age_s_max: init.feed_age_s_max,
            stake_per_device: init.stake_per_device,
            attestor_stake: init.attestor_stake,
        }
    }

    /// Whether they are in range in a network with epochs of some seconds: a lease stalls no sooner than a root over its
    /// end can pay.
    ///
    /// # Errors
    /// [`Error::ParameterOutOfRange`] otherwise.
    pub fn check(&self, epoch_s: u32) -> Result<(), Error> {
        let times = [epoch_s, self.epoch_hold_s, self.stall_s, self.open_s, self.fill_s_max, self.feed_age_s_max];
        let pays_s = u64::from(epoch_s) + u64::from(self.epoch_hold_s);
        let in_range = self.fee_bps <= FEE_BPS_MAX
            && epoch_s > 0
            && self.fill_s_max > 0
            && times.iter().all(|seconds| *seconds <= TIME_S_MAX)
            && pays_s <= u64::from(self.stall_s);
        if in_range { Ok(()) } else { Err(Error::ParameterOutOfRange) }
    }
}

impl Config {
    /// Takes over parameters that [`Parameters::check`] found in range.
    pub const fn set(&mut self, parameters: &Parameters) {
        self.fee_bps = parameters.fee_bps;
        self.epoch_hold_s = parameters.epoch_hold_s;
        self.stall_s = parameters.stall_s;
        self.open_s = parameters.open_s;
        self.fill_s_max = parameters.fill_s_max;
        self.feed_age_s_max = parameters.feed_age_s_max;
        self.stake_per_device = parameters.stake_per_device;
        self.attestor_stake = parameters.attestor_stake;
    }
}

impl SetCatalogue {
    /// Whether the row is in range.
    ///
    /// # Errors
    /// [`Error::ParameterOutOfRange`] otherwise.
    pub fn check(&self) -> Result<(), Error> {
        let in_range = self.id != 0
            && (self.tier == TIER_COMMUNITY || self.tier == TIER_ENTERPRISE)
            && self.multiplier_milli <= MULTIPLIER_MILLI_MAX;
        if in_range { Ok(()) } else { Err(Error::ParameterOutOfRange) }
    }
}

impl SetSeat {
    /// Whether it takes the seat away.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.owner == NO_ADDRESS && self.key == NO_ADDRESS
    }

    /// The row: owner, then key.
    #[must_use]
    pub fn row(&self) -> [u8; 64] {
        let mut row = [0; 64];
        row[..32].copy_from_slice(&self.owner);
        row[32..].copy_from_slice(&self.key);
        row
    }

    /// Seats after the change.
    ///
    /// # Errors
    /// [`Error::SeatUnknown`] for a seat that can be neither changed, added nor taken away.
    pub fn count(&self, seats: usize) -> Result<usize, Error> {
        let seat = usize::from(self.seat);
        match (self.removes(), seat) {
            (true, seat) if seat + 1 == seats => Ok(seat),
            (false, seat) if seat < seats => Ok(seats),
            (false, seat) if seat == seats => Ok(seats + 1),
            _ => Err(Error::SeatUnknown),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let half = (self.owner == NO_ADDRESS) != (self.key == NO_ADDRESS);
        if half || usize::from(self.seat) >= SEATS_MAX { Err(Error::ParameterOutOfRange) } else { Ok(()) }
    }
}

/// Whether a threshold is a majority of some seats and can be reached: two roots of one epoch never are.
///
/// # Errors
/// [`Error::ParameterOutOfRange`] otherwise.
pub fn check_majority(threshold: u16, seats: usize) -> Result<(), Error> {
    let votes = usize::from(threshold);
    if seats <= SEATS_MAX && votes <= seats && votes + votes > seats { Ok(()) } else { Err(Error::ParameterOutOfRange) }
}

/// Whether a seat shares neither its owner nor its key with others: nobody votes twice.
///
/// # Errors
/// [`Error::ParameterOutOfRange`] otherwise.
pub fn check_unlike(seat: &[u8; 64], others: &[[u8; 64]]) -> Result<(), Error> {
    let (owner, key) = seat.split_at(32);
    let like = |other: &[u8; 64]| &other[..32] == owner || &other[32..] == key;
    if others.iter().any(like) { Err(Error::ParameterOutOfRange) } else { Ok(()) }
}

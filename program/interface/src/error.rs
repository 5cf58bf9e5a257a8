//! The program's refusals. A number, once given, keeps its meaning for ever: new ones are added at the end.

macro_rules! errors {
    ($($code:literal $name:ident $words:literal;)*) => {
        /// Why the program refused. The discriminant is the custom error code seen on the chain.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Error {
            $(#[doc = $words] $name = $code,)*
        }

        impl Error {
            /// Every error, in the order of its code.
            pub const ALL: &'static [Error] = &[$(Error::$name),*];

            /// The custom error code.
            #[must_use]
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The error that a custom error code stands for.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Error::$name),)*
                    _ => None,
                }
            }

            /// What happened, in words. Not used on chain.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Error::$name => $words,)*
                }
            }
        }
    };
}

errors! {
    1 InstructionUnknown "the instruction's number is not known to this program";
    2 InstructionMalformed "the instruction's data is too short, too long or out of range";
    3 AccountsMissing "the instruction names too few accounts";
    4 SignerMissing "an account that must sign did not sign";
    5 NotWritable "an account that must be writable is not";
    6 AccountOwnerWrong "an account belongs to another program than it must";
    7 AccountKindWrong "an account is of another kind or version than the instruction needs";
    8 AddressWrong "an account is not at the address that its seeds give";
    9 AlreadyInitialised "the account exists already";
    10 TokenAccountWrong "a token account has the wrong owner or mint, or is not initialised";
    11 MintWrong "the mint is not the network's, has other than 9 decimals, or can freeze accounts";
    12 NotAuthorised "the signer has no right to do this";
    13 Overflow "a sum left the range of 64 bits";
    14 ParameterOutOfRange "a parameter is out of its allowed range";
    15 ModelUnknown "the model is not in the catalogue";
    16 FeedStale "the price feed is older than the network allows, or has no price";
    17 PageFull "the fleet page has no free slot; register on the next page";
    18 SlotUnknown "the fleet page has no such slot in use";
    19 StakeTooLow "the supplier's stake is below what its devices require";
    20 OrderNotOpen "the order does not take fills: it is full, closed or ended";
    21 SolverWindow "only the order's solvers may fill before the window opens";
    22 FillTooLate "the order did not become active in time and takes no more fills";
    23 AskTooHigh "the slot's ask is above what the order or the fill allows";
    24 AskUnequal "the slots of one group do not share one ask";
    25 SlotUnfit "a slot's model, tier, class, region, shape or longest lease does not meet the order";
    26 SlotSuspended "a slot is suspended or draining";
    27 DevicesTaken "a device of the mask is already leased";
    28 TooManyDevices "the group holds more devices than the order still lacks";
    29 FillPathWrong "the group is not under the fill root that the renter chose";
    30 LeaseSlotsWrong "the release names a slot that the lease does not hold";
    31 EpochNotOver "the epoch is not over yet";
    32 EpochNotFinal "the epoch's root is not final, or still in its hold";
    33 LeafPathWrong "the leaf is not under the root";
    34 LeafStale "the leaf is older than what is already settled";
    35 AboveCap "the leaf claims more device-seconds than the lease can have served";
    36 VoteRepeated "this attestor has voted on this or a later epoch or hour";
    37 LeaseStillLive "the lease still holds devices";
    38 LeaseUnsettled "the lease has no settled leaf that reaches its end, and the stall time has not passed";
    39 OrderStillHeld "the order has open leases or uncollected fees, or has not ended";
    40 BudgetExceeded "the order is above the budget's limit for one order or for one day";
    41 BudgetExpired "the budget's key has expired or was revoked";
    42 NothingToDo "there is nothing to move or change";
    43 EscrowShort "the order's escrow does not cover the payment: the program's books are wrong";
    44 SeatUnknown "the attestor's owner and key hold no seat";
    45 Paused "new orders and fills are paused";
    46 FundsShort "the paying token account holds less than the order's worst case";
    47 OrderNotActive "the order is not active: it has not begun, was stopped, or has ended";
    48 LeaseEnded "the lease has ended or holds no device any more";
    49 StakeBound "the waiting time of the stake is not over, or a vote still binds it";
    50 CoStakeTooHigh "co-stake would be more than half of the supplier's stake";
    51 OfferChanged "the offer's terms are not those that the co-staker accepts";
    52 CoStakeStateWrong "the co-stake is not in the state that this step needs";
    53 OffersFull "the supplier has as many offers of co-stake as it may have";
    54 SlotLeased "the slot still holds leased devices";
    55 PageInUse "the page still holds workers, open leases, stake or offers";
    56 DeviceKeyKept "the device key is in use, or was retired too recently";
    57 AskKeyExpired "the delegated key has expired";
    58 DeviceSlashed "the device was slashed for fraud already";
    59 SignatureMissing "the transaction holds no ed25519 check of the signature that this needs";
    60 StatementWrong "the signed statement is of another network, device or form";
    61 CaseTooOld "the statement is from the future, or older than a fault may be when it is brought";
    62 ElementRight "the committed element is right: it proves nothing";
    63 ElementRepeated "a wrong element of this row or column is counted already";
    64 CaseStateWrong "the case is proven, spent or not yet proven, against what this step needs";
    65 CasesApart "the two cases are not of one device, one day and two seeds";
    66 NotEquivocation "the two votes are not of one key, one epoch and two roots";
    67 AttestorSlashed "the attestor was slashed for equivocation";
    68 HarmedRenterMissing "the device is leased: the case must name the lease, so that its renter is paid first";
    69 LeaseFrozen "a dispute over the lease is open: nothing of it is settled or closed before the dispute ends";
    70 HoldOver "the hold of the root is over: its leaves are not disputed any more";
    71 CeilingWrong "a dispute says less than the leaf, and no less than what is settled";
    72 DrawTooEarly "the slot whose hash draws the panel is not over yet";
    73 NotOnPanel "the seat is not on the panel that votes, or its holder is a party of the dispute";
    74 PanelVoteRepeated "the seat has voted on this dispute already";
    75 DisputeStageWrong "the dispute is not in the stage that this step needs";
    76 NotStalled "the attestors have not been silent on this lease for the stall time";
    77 HourNotOver "the hour of rewards is not over yet, or rewards have not begun";
    78 AboveEmission "the rewards are above what the emission table gives, or above their root's total";
    79 RewardNotFinal "the root of the hour is not final, or still in its hold";
    80 EmissionShort "the emission's token account holds less than the claim";
    81 PauseTooSoon "new orders and fills were paused too recently to be paused again";
    82 ProposalStateWrong "the proposal is not in the state that this step needs";
    83 ProposalTooEarly "the proposal's votes or its timelock are not over yet";
    84 StakeTooNew "the stake was raised when the proposal was made, or later";
    85 EpochClosed "the epoch or the hour was over when the attestor set changed: it takes no more votes";
    86 NotSpot "the order is not spot: its devices are not taken back before the end";
    87 NoticeMissing "no notice of reclaim was given, or it is not over yet, or it has lapsed";
    88 AboveSupplyCap "what vestings promise, what circulates and what rewards still need is more than there may ever be";
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn codes_are_gapless_and_round_trip() {
        for (index, error) in Error::ALL.iter().enumerate() {
            assert_eq!(error.code() as usize, index + 1, "{error:?}");
            assert_eq!(Error::from_code(error.code()), Some(*error));
            assert!(!error.words().is_empty());
        }
        assert_eq!(Error::from_code(0), None);
        assert_eq!(Error::from_code(u32::MAX), None);
    }

    #[test]
    fn every_code_has_its_line_on_the_page() {
        let page = include_str!("../../../docs/errors/market.md");
        for error in Error::ALL {
            let line = std::format!("| {} | `{error:?}` | {} | ", error.code(), error.words());
            let cure =
                page.split(line.as_str()).nth(1).unwrap_or_else(|| panic!("docs/errors/market.md lacks `{line}`"));
            assert!(cure.len() > 10);
        }
    }
}

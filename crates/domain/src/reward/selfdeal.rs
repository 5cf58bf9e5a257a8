//! What an owner makes of hiring itself: its rewards with it, less those without it, less all fees.
//!
//! The owner rents its own devices through fresh wallets, so that nobody can tell them from strangers. Pay goes from one of
//! its pockets to the other; fees leave it, in ATL or, with the surcharge, in USDC whose burned half buys ATL at the feed.

use std::collections::BTreeMap;

use atoll_interface::{
    ATL, Address,
    arithmetic::{BPS, rate},
    emission,
    layout::{TIER_COMMUNITY, TIER_ENTERPRISE},
    settlement::{FeeSplit, Pay},
};

use super::{Books, Terms, Work};

/// What fees are paid in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// Half of every fee burns.
    Atl,
    /// The renter pays the surcharge too; half of all of it buys ATL and burns.
    Usdc,
}

/// One owner that hires itself, and the rest of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// In what it pays.
    pub currency: Currency,
    /// Tier of all devices.
    pub tier: u8,
    /// The owner's devices, each hired by a wallet of its own.
    pub wallets: u32,
    /// Other devices of the same weight, none of them hired.
    pub others: u32,
    /// Full hours for which it hires.
    pub hours: u64,
    /// The ask, micro-USD per device-hour.
    pub ask_uusd: u64,
    /// Micro-USD per ATL.
    pub uusd_per_atl: u64,
    /// Fee on each side, basis points.
    pub fee_bps: u16,
    /// Surcharge on orders in USDC, basis points.
    pub surcharge_bps: u16,
    /// How rewards divide.
    pub terms: Terms,
}

impl Scenario {
    /// A thousand wallets for a day at default parameters: 2 USD per device-hour, 0.25 USD per ATL.
    #[must_use]
    pub const fn default_of(currency: Currency, tier: u8) -> Self {
        Self {
            currency,
            tier,
            wallets: 1_000,
            others: 10_000,
            hours: 24,
            ask_uusd: 2_000_000,
            uusd_per_atl: 250_000,
            fee_bps: 25,
            surcharge_bps: 200,
            terms: Terms { enterprise_bps: 9_500, hired_cap_bps: 5_000, hired_extra_milli: Terms::HIRED_EXTRA_MILLI },
        }
    }

    /// The owner's profit, base units: never above 0.
    ///
    /// # Panics
    /// When an hour's pay of a device does not fit in 64 bits.
    #[must_use]
    pub fn profit(&self) -> i128 {
        let (with, fees) = self.run(true);
        let (without, _) = self.run(false);
        i128::from(with) - i128::from(without) - i128::from(fees)
    }

    /// What the owner earned, and the fees that it paid.
    fn run(&self, hires: bool) -> (u64, u64) {
        let (owner, other) = ([1; 32], [2; 32]);
        let (mut books, mut fees, mut burned) = (Books::default(), 0, BTreeMap::new());
        for hour in 0..self.hours {
            let mut work = vec![self.work(other, self.others, BTreeMap::new())];
            if hires {
                let (paid, burns) = self.fees((hour + 1) * 3_600);
                fees = paid * u64::from(self.wallets);
                for wallet in 0..self.wallets {
                    burned.insert(lease(wallet), burns);
                    work.push(self.work(owner, 1, BTreeMap::from([(lease(wallet), 3_600)])));
                }
            } else {
                work.push(self.work(owner, self.wallets, BTreeMap::new()));
            }
            books.hour(emission::hour(hour), &self.terms, &work, &burned);
        }
        (books.earned(&owner), fees)
    }

    fn work(&self, page: Address, devices: u32, hired_s: BTreeMap<Address, u64>) -> Work {
        let checked_s = u64::from(devices) * 3_600;
        Work { page, tier: self.tier, multiplier_milli: 1_000, checked_s, hired_s }
    }

    /// What one wallet's lease of one device paid in fees by so many seconds, and what of it burned, base units of ATL.
    fn fees(&self, device_seconds: u64) -> (u64, u64) {
        let rate = rate(self.ask_uusd, self.uusd_per_atl).expect("an ask's rate fits");
        let pay = Pay::of(rate, device_seconds, self.fee_bps).expect("pay fits");
        let surcharge = match self.currency {
            Currency::Atl => 0,
            Currency::Usdc => u128::from(pay.gross) * u128::from(self.surcharge_bps) / u128::from(BPS),
        };
        let fees = pay.supplier_fee + pay.renter_fee + u64::try_from(surcharge).expect("a part of the pay");
        (fees, FeeSplit::of(fees).burned)
    }
}

fn lease(wallet: u32) -> Address {
    let mut address = [9; 32];
    address[..4].copy_from_slice(&wallet.to_le_bytes());
    address
}

/// The highest profit, in ATL, of an owner that hires itself through a thousand fresh wallets at default parameters: in both
/// currencies and tiers, for asks from nothing to far above the market's, for three hours, alone in the network and
/// among others.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "a figure to be read")]
pub fn selfdeal_profit_atl() -> f64 {
    let mut best = i128::MIN;
    for currency in [Currency::Atl, Currency::Usdc] {
        for tier in [TIER_COMMUNITY, TIER_ENTERPRISE] {
            for ask_uusd in [0, 1, 400, 2_000, 50_000, 2_000_000, 100_000_000, 10_000_000_000] {
                for others in [0, 1, 10_000] {
                    let scenario = Scenario { ask_uusd, others, hours: 3, ..Scenario::default_of(currency, tier) };
                    best = best.max(scenario.profit());
                }
            }
        }
    }
    best as f64 / ATL as f64
}

//! Money as integers: token base units, and prices in micro-USD per device-hour.
//!
//! No float touches money. Conversion from a price to a rate happens on the chain, once per order; the same arithmetic
//! is `interface`'s.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of ATL in base units (10⁻⁹ ATL).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Atl(pub u64);

/// A price in micro-USD for one device for one hour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UsdMicrosPerHour(pub u64);

/// Text that is not a price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not digits with an optional fraction.
    #[error("`{0}` is not a price: write US dollars per device-hour, for example 0.05 or 2.20")]
    Malformed(String),
    /// Zero, or more than any device costs.
    #[error("a price of {0} USD per device-hour is out of range: it must be above 0 and at most 10000")]
    OutOfRange(String),
    /// Finer than a micro-dollar.
    #[error("`{0}` is finer than a micro-dollar: use at most 6 digits after the point")]
    TooFine(String),
}

/// Text that is not an amount of ATL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not digits with an optional fraction.
    #[error("`{0}` is not an amount: write ATL as digits, for example 200 or 0.5")]
    Malformed(String),
    /// Finer than a base unit.
    #[error("`{0}` is finer than a base unit: use at most 9 digits after the point")]
    TooFine(String),
    /// More than 64 bits hold.
    #[error("{0} ATL is out of range")]
    OutOfRange(String),
}

impl Atl {
    /// Base units in one ATL.
    pub const ONE: u64 = 1_000_000_000;

    /// The sum, or `None` when it does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` when `other` is larger.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Atl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} ATL", self.0 / Self::ONE, self.0 % Self::ONE)
    }
}

impl std::str::FromStr for Atl {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let shown = || text.chars().take(40).collect::<String>();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(AmountError::Malformed(shown()));
        }
        if fraction.len() > 9 {
            return Err(AmountError::TooFine(shown()));
        }
        let out_of_range = || AmountError::OutOfRange(shown());
        let whole: u64 = whole.parse().map_err(|_| out_of_range())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| out_of_range())?;
        let units = whole.checked_mul(Self::ONE).and_then(|units| units.checked_add(fraction));
        units.map(Self).ok_or_else(out_of_range)
    }
}

impl UsdMicrosPerHour {
    /// The highest price that is accepted anywhere: 10,000 USD per device-hour.
    pub const MAX: Self = Self(10_000_000_000);
}

impl fmt::Display for UsdMicrosPerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let fraction = format!("{micros:06}");
        let cut = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{dollars}.{} USD/h", &fraction[..cut])
    }
}

impl std::str::FromStr for UsdMicrosPerHour {
    type Err = PriceError;

    fn from_str(text: &str) -> Result<Self, PriceError> {
        let shown = || text.chars().take(40).collect::<String>();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(PriceError::Malformed(shown()));
        }
        if fraction.len() > 6 {
            return Err(PriceError::TooFine(shown()));
        }
        let out_of_range = || PriceError::OutOfRange(shown());
        let whole: u64 = whole.parse().map_err(|_| out_of_range())?;
        let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| out_of_range())?;
        let micros = whole.checked_mul(1_000_000).and_then(|w| w.checked_add(fraction)).ok_or_else(out_of_range)?;
        if micros == 0 || micros > Self::MAX.0 {
            return Err(out_of_range());
        }
        Ok(Self(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn prices_are_read_exactly() {
        let read = |text: &str| match text.parse::<UsdMicrosPerHour>() {
            Ok(price) => format!("{} = {price}", price.0),
            Err(error) => error.to_string(),
        };
        let all: Vec<String> =
            ["2.20", "0.05", "3", "0", "-1", "1e9", "0.0000001", "99999999999999999999", "", ".5", "10000.000001"]
                .map(read)
                .into();
        expect![[r#"
            2200000 = 2.20 USD/h
            50000 = 0.05 USD/h
            3000000 = 3.00 USD/h
            a price of 0 USD per device-hour is out of range: it must be above 0 and at most 10000
            `-1` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
            `1e9` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
            `0.0000001` is finer than a micro-dollar: use at most 6 digits after the point
            a price of 99999999999999999999 USD per device-hour is out of range: it must be above 0 and at most 10000
            `` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
            `.5` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
            a price of 10000.000001 USD per device-hour is out of range: it must be above 0 and at most 10000"#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn amounts_are_read_exactly() {
        let read = |text: &str| match text.parse::<Atl>() {
            Ok(amount) => format!("{} = {amount}", amount.0),
            Err(error) => error.to_string(),
        };
        let all: Vec<String> = [
            "200",
            "0.000000001",
            "18446744073.709551615",
            "18446744073.709551616",
            "0",
            "1.0000000001",
            "-1",
            "+1",
            "1e9",
            "1,5",
            "",
            "5.",
        ]
        .map(read)
        .into();
        expect![[r#"
            200000000000 = 200.000000000 ATL
            1 = 0.000000001 ATL
            18446744073709551615 = 18446744073.709551615 ATL
            18446744073.709551616 ATL is out of range
            0 = 0.000000000 ATL
            `1.0000000001` is finer than a base unit: use at most 9 digits after the point
            `-1` is not an amount: write ATL as digits, for example 200 or 0.5
            `+1` is not an amount: write ATL as digits, for example 200 or 0.5
            `1e9` is not an amount: write ATL as digits, for example 200 or 0.5
            `1,5` is not an amount: write ATL as digits, for example 200 or 0.5
            `` is not an amount: write ATL as digits, for example 200 or 0.5
            `5.` is not an amount: write ATL as digits, for example 200 or 0.5"#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn amounts_show_nine_digits() {
        assert_eq!(Atl(1_500_000_001).to_string(), "1.500000001 ATL");
    }
}

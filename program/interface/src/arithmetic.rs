//! Integer sums that link on SBF and never overflow silently.

use crate::{ATL, Error};

/// Seconds of an hour; prices are posted per device-hour, rates per device-second.
pub const HOUR_S: u64 = 3_600;

/// Denominator of fees in basis points.
pub const BPS: u64 = 10_000;

/// The 128-bit product of two 64-bit numbers as (high, low) halves.
#[must_use]
pub const fn mul_wide(a: u64, b: u64) -> (u64, u64) {
    let (a1, a0) = (a >> 32, a & 0xffff_ffff);
    let (b1, b0) = (b >> 32, b & 0xffff_ffff);
    // Each partial product is below 2^64 - 2^33 + 2, so the middle sums below cannot overflow.
    let low = a0.wrapping_mul(b0);
    let mid = a1.wrapping_mul(b0).wrapping_add(low >> 32);
    let mid2 = a0.wrapping_mul(b1).wrapping_add(mid & 0xffff_ffff);
    let high = a1.wrapping_mul(b1).wrapping_add(mid >> 32).wrapping_add(mid2 >> 32);
    (high, (mid2 << 32) | (low & 0xffff_ffff))
}

/// The product of two numbers.
///
/// # Errors
/// [`Error::Overflow`] when it does not fit in 64 bits.
pub const fn mul(a: u64, b: u64) -> Result<u64, Error> {
    match mul_wide(a, b) {
        (0, low) => Ok(low),
        _ => Err(Error::Overflow),
    }
}

/// The sum of two numbers.
///
/// # Errors
/// [`Error::Overflow`] when it does not fit in 64 bits.
pub const fn add(a: u64, b: u64) -> Result<u64, Error> {
    match a.checked_add(b) {
        Some(sum) => Ok(sum),
        None => Err(Error::Overflow),
    }
}

/// The difference of two numbers.
///
/// # Errors
/// [`Error::Overflow`] when it would be negative.
pub const fn sub(a: u64, b: u64) -> Result<u64, Error> {
    match a.checked_sub(b) {
        Some(difference) => Ok(difference),
        None => Err(Error::Overflow),
    }
}

/// Seconds from `from` to `to`, zero when `to` is not after `from`.
#[must_use]
pub const fn seconds_between(from: i64, to: i64) -> u64 {
    if to > from { to.wrapping_sub(from).cast_unsigned() } else { 0 }
}

/// `a * b / divisor`, rounded down, with a 128-bit product in between.
///
/// # Errors
/// [`Error::Overflow`] when the quotient does not fit in 64 bits or the divisor is zero.
pub const fn mul_div(a: u64, b: u64, divisor: u64) -> Result<u64, Error> {
    let (high, low) = mul_wide(a, b);
    if high >= divisor {
        return Err(Error::Overflow);
    }
    if high == 0 {
        return Ok(low / divisor);
    }
    // Schoolbook division of 128 by 64 bits, one bit a turn; `rest` stays below `divisor`.
    let mut rest = high;
    let mut quotient = 0u64;
    let mut bit = 64u32;
    while bit > 0 {
        bit -= 1;
        let carry = rest >> 63;
        rest = (rest << 1) | ((low >> bit) & 1);
        quotient <<= 1;
        if carry == 1 || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            quotient |= 1;
        }
    }
    Ok(quotient)
}

/// What one device-second costs in token base units, given an ask in micro-USD per device-hour and a feed in micro-USD
/// per ATL: `ask * 10^9 / (feed * 3600)`, rounded down.
///
/// # Errors
/// [`Error::FeedStale`] without a price, [`Error::Overflow`] when the rate does not fit.
pub const fn rate(ask_uusd_per_hour: u64, feed_uusd_per_atl: u64) -> Result<u64, Error> {
    if feed_uusd_per_atl == 0 {
        return Err(Error::FeedStale);
    }
    match mul(feed_uusd_per_atl, HOUR_S) {
        Ok(divisor) => mul_div(ask_uusd_per_hour, ATL, divisor),
        Err(error) => Err(error),
    }
}

/// The fee on an amount, rounded down. `fee_bps` is in basis points, at most [`BPS`].
///
/// # Errors
/// [`Error::ParameterOutOfRange`] above 100%.
pub const fn fee(amount: u64, fee_bps: u16) -> Result<u64, Error> {
    if fee_bps as u64 > BPS {
        return Err(Error::ParameterOutOfRange);
    }
    mul_div(amount, fee_bps as u64, BPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wide_products_equal_128_bit_ones(a: u64, b: u64) {
            let (high, low) = mul_wide(a, b);
            prop_assert_eq!((u128::from(high) << 64) | u128::from(low), u128::from(a) * u128::from(b));
        }

        #[test]
        fn divisions_equal_128_bit_ones(a: u64, b: u64, divisor: u64) {
            let expected = (u128::from(a) * u128::from(b)).checked_div(u128::from(divisor));
            match mul_div(a, b, divisor) {
                Ok(quotient) => prop_assert_eq!(Some(u128::from(quotient)), expected),
                Err(_) => prop_assert!(expected.is_none_or(|q| q > u128::from(u64::MAX))),
            }
        }

        #[test]
        fn a_fee_grows_with_the_amount_and_so_does_the_rest(amount in 0..u64::MAX, fee_bps in 0u16..=10_000) {
            let (now, next) = (fee(amount, fee_bps).unwrap(), fee(amount + 1, fee_bps).unwrap());
            prop_assert!(now <= next && amount - now <= amount + 1 - next);
        }
    }

    #[test]
    fn rates() {
        // 2.20 USD/h at 0.25 USD/ATL = 8.8 ATL/h = 2,444,444 base units a second.
        assert_eq!(rate(2_200_000, 250_000), Ok(2_444_444));
        assert_eq!(rate(0, 250_000), Ok(0));
        assert_eq!(rate(1, 0), Err(Error::FeedStale));
        assert_eq!(rate(u64::MAX, 1), Err(Error::Overflow));
        assert_eq!(rate(1, u64::MAX), Err(Error::Overflow));
    }

    #[test]
    fn edges() {
        assert_eq!(mul_div(u64::MAX, u64::MAX, u64::MAX), Ok(u64::MAX));
        assert_eq!(mul_div(1, 1, 0), Err(Error::Overflow));
        assert_eq!(mul(u64::MAX, 2), Err(Error::Overflow));
        assert_eq!(fee(1, 10_001), Err(Error::ParameterOutOfRange));
        assert_eq!(seconds_between(i64::MIN, i64::MAX), u64::MAX);
        assert_eq!(seconds_between(5, 5), 0);
    }
}

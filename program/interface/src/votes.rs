//! Votes of the attestors for one root.

use crate::{Error, layout::SEATS_MAX};

/// One bit a seat that voted.
pub type Votes = [u8; SEATS_MAX / 8];

/// Counts the vote of a seat, once.
///
/// # Errors
/// [`Error::SeatUnknown`] beyond the last seat, [`Error::VoteRepeated`] when the seat has voted.
pub fn cast(votes: &mut Votes, count: &mut u16, seat: u16) -> Result<(), Error> {
    let byte = votes.get_mut(usize::from(seat / 8)).ok_or(Error::SeatUnknown)?;
    let bit = 1u8 << (seat % 8);
    if *byte & bit != 0 {
        return Err(Error::VoteRepeated);
    }
    *byte |= bit;
    *count = count.checked_add(1).ok_or(Error::Overflow)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seat_votes_once() {
        let (mut votes, mut count) = ([0; 32], 0);
        for seat in 0..256 {
            assert_eq!(cast(&mut votes, &mut count, seat), Ok(()));
            assert_eq!(cast(&mut votes, &mut count, seat), Err(Error::VoteRepeated));
        }
        assert_eq!((votes, count), ([255; 32], 256));
        assert_eq!(cast(&mut votes, &mut count, 256), Err(Error::SeatUnknown));
    }
}

//! Groups: the slots of one fleet page that one lease takes, with one device mask and at one ask.

use crate::{Address, Error, Hash, layout::SLOTS_MAX, merkle::LEAF};

/// Bytes of the bitmap of a whole page.
pub const BITMAP_LEN: usize = SLOTS_MAX / 8;

/// Some slots of one fleet page: bit `i` of `bits` is slot `first_slot + i`, the lowest bit of a byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots<'a> {
    /// The slot of the first bit.
    pub first_slot: u16,
    /// The bitmap; at most [`BITMAP_LEN`] bytes.
    pub bits: &'a [u8],
}

impl<'a> Slots<'a> {
    /// # Errors
    /// [`Error::InstructionMalformed`] when no bit is set, or a set bit leaves the page.
    pub fn new(first_slot: u16, bits: &'a [u8]) -> Result<Self, Error> {
        let slots = Self { first_slot, bits };
        match slots.iter().last() {
            Some(last) if last < SLOTS_MAX && bits.len() <= BITMAP_LEN => Ok(slots),
            _ => Err(Error::InstructionMalformed),
        }
    }

    /// The slot numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> + 'a {
        let first = self.first_slot as usize;
        self.bits.iter().enumerate().flat_map(move |(byte, bits)| {
            let (base, mut left) = (first + byte * 8, *bits);
            core::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                Some(base + bit)
            })
        })
    }
}

/// The hash under an order's `fill_root` of one group that the renter chose:
/// SHA-256(0x00 ‖ page ‖ ask_max u64 ‖ mask u16 ‖ first slot u16 ‖ bitmap bytes).
pub fn group_hash(
    sha256: impl Fn(&[&[u8]]) -> Hash,
    page: &Address,
    ask_max: u64,
    mask: u16,
    slots: Slots<'_>,
) -> Hash {
    let prefix = [LEAF];
    sha256(&[&prefix, page, &ask_max.to_le_bytes(), &mask.to_le_bytes(), &slots.first_slot.to_le_bytes(), slots.bits])
}

/// Whether a page's bitmap holds a slot.
#[must_use]
pub fn bit(bitmap: &[u8; BITMAP_LEN], slot: usize) -> bool {
    bitmap.get(slot / 8).is_some_and(|byte| byte >> (slot % 8) & 1 == 1)
}

/// Sets or clears a slot's bit in a page's bitmap; slots beyond the page are left alone.
pub fn set_bit(bitmap: &mut [u8; BITMAP_LEN], slot: usize, on: bool) {
    if let Some(byte) = bitmap.get_mut(slot / 8) {
        if on {
            *byte |= 1 << (slot % 8);
        } else {
            *byte &= !(1 << (slot % 8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn bits_name_slots() {
        let slots = Slots::new(3, &[0b1000_0001, 0, 2]).unwrap();
        assert_eq!(slots.iter().collect::<Vec<_>>(), [3, 10, 20]);
    }

    #[test]
    fn empty_and_overlong_groups_are_refused() {
        assert_eq!(Slots::new(0, &[]), Err(Error::InstructionMalformed));
        assert_eq!(Slots::new(0, &[0, 0]), Err(Error::InstructionMalformed));
        assert_eq!(Slots::new(1023, &[2]), Err(Error::InstructionMalformed));
        assert_eq!(Slots::new(0, &[1; BITMAP_LEN + 1]), Err(Error::InstructionMalformed));
        assert!(Slots::new(1023, &[1]).is_ok());
    }

    #[test]
    fn bitmaps() {
        let mut map = [0; BITMAP_LEN];
        set_bit(&mut map, 1023, true);
        assert!(bit(&map, 1023) && !bit(&map, 1022) && !bit(&map, 5000));
        set_bit(&mut map, 1023, false);
        assert_eq!(map, [0; BITMAP_LEN]);
    }
}

//! The present slot, and the hashes of those before it.

use super::Fault;
use atoll_interface::{Error, Hash, dispute::due_slot};
use pinocchio::sysvars::{clock::CLOCK_ID, get_sysvar_unchecked, slot_hashes::SLOTHASHES_ID};

/// Bytes of one entry: slot u64 ‖ hash. A count of eight bytes stands before them; the newest comes first.
const ENTRY_LEN: usize = 8 + 32;

/// The present slot.
pub(crate) fn slot() -> Result<u64, Fault> {
    let mut slot = [0; 8];
    // SAFETY: `slot` has room for the 8 bytes asked for; the clock begins with its slot.
    unsafe { get_sysvar_unchecked(slot.as_mut_ptr(), &CLOCK_ID, 0, 8)? };
    Ok(u64::from_le_bytes(slot))
}

/// Reads a number of the list of hashes.
fn number(offset: usize) -> Result<u64, Fault> {
    let mut number = [0; 8];
    // SAFETY: `number` has room for the 8 bytes asked for.
    unsafe { get_sysvar_unchecked(number.as_mut_ptr(), &SLOTHASHES_ID, offset, 8)? };
    Ok(u64::from_le_bytes(number))
}

const fn offset_of(entry: usize) -> usize {
    entry.wrapping_mul(ENTRY_LEN).wrapping_add(8)
}

/// The hash of the slot that draws for `draw_slot` now: the first slot from [`due_slot`] on that was not skipped.
///
/// # Errors
/// [`Error::DrawTooEarly`] while there is none.
#[inline(never)]
pub(crate) fn hash_for(draw_slot: u64) -> Result<Hash, Fault> {
    let count = usize::try_from(number(0)?).map_err(|_| Error::Overflow)?;
    let last = count.checked_sub(1).ok_or(Error::DrawTooEarly)?;
    let due = due_slot(draw_slot, number(offset_of(last))?, number(offset_of(0))?)?;
    // Entries up to `found` are not before the due slot, those from `end` on are.
    let (mut found, mut end) = (0, count);
    while end.wrapping_sub(found) > 1 {
        let middle = found.wrapping_add(end.wrapping_sub(found) / 2);
        if number(offset_of(middle))? >= due {
            found = middle;
        } else {
            end = middle;
        }
    }
    let mut hash = [0; 32];
    // SAFETY: `hash` has room for the 32 bytes asked for.
    unsafe { get_sysvar_unchecked(hash.as_mut_ptr(), &SLOTHASHES_ID, offset_of(found).wrapping_add(8), 32)? };
    Ok(hash)
}

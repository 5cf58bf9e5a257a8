//! Disputes: who judges a leaf, until when, what a verdict books and who gets the bonds, as methods without I/O.
//!
//! `open → (drawn, votes) → half of the appeal's time to file → (appealed, votes) → closed`. Every step has its time, and
//! after the last one anyone may close: no state holds money or a lease for ever.
//!
//! **Who judges.** First [`PANEL_SEATS`] seats, drawn by the hash of a slot that comes [`DRAW_DELAY_SLOTS`] after the
//! opening. A leader of that slot may try many blocks, and so choose among the panels; it cannot add a seat to the set.
//! Therefore nothing is drawn on appeal: all seats vote but those of the parties, and what a chosen panel said stands only
//! if nobody appeals. A hash that nobody used while the chain still knew it gives way to that of [`REDRAW_SLOTS`] later, which is as
//! fixed as the first: who waits for a better one waits for all others to stay silent, and gets one more try in minutes.
//!
//! **What it costs.** A verdict takes nothing but pay that the leaf claimed. Of a bond that is lost half goes to the other
//! side, whom the dispute cost its time, and the rest is burned: who disputes with itself loses half of a bond. Without a
//! quorum the leaf, or what the first panel said of it, stands, and the bonds that it would decide go back.

use crate::{
    Address, Error, Hash, NO_ADDRESS,
    arithmetic::{add, mul, seconds_between, sub},
    instruction::{FOR_LEAF, FOR_OPENER},
    layout::{
        DISPUTE_APPEALED, DISPUTE_DRAWN, Dispute, LEASE_FROZEN, LEASE_JUDGED, Lease, Order, Rules, SEATS_MAX, Seat,
    },
    merkle::Leaf,
};

/// Seats of the first panel.
pub const PANEL_SEATS: u64 = 5;
/// Slots between the opening and the slot whose hash draws the panel: 13 s, more than a fork lives.
pub const DRAW_DELAY_SLOTS: u64 = 32;
/// Slots of which the chain keeps the hashes, and after which another slot's draws.
pub const REDRAW_SLOTS: u64 = 512;
/// Domain of the draw.
pub const PANEL_DOMAIN: &[u8] = b"atoll/panel/1\0";
/// Part of a lost bond that goes to the other side: one in so many.
const WINNERS_PART: u64 = 2;

/// A set of seats, one bit each.
pub type Seats = [u8; SEATS_MAX / 8];

/// What a panel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The leaf says too much.
    Opener = 1,
    /// The leaf is right.
    Leaf = 2,
    /// Too few voted, or as many for each.
    NoQuorum = 3,
}

/// Who gets what of the bonds, base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bonds {
    /// For who opened the dispute.
    pub opener: u64,
    /// For who appealed.
    pub appellant: u64,
    /// For the supplier whose pay was frozen.
    pub supplier: u64,
    /// Burned.
    pub burned: u64,
}

/// The slot whose hash draws a panel, of which the hashes of the slots from `oldest` to `newest` are known.
///
/// # Errors
/// [`Error::DrawTooEarly`] while it is not among them.
pub const fn due_slot(draw_slot: u64, oldest: u64, newest: u64) -> Result<u64, Error> {
    let late = oldest.saturating_sub(draw_slot);
    let turns = late.div_ceil(REDRAW_SLOTS);
    match mul(turns, REDRAW_SLOTS) {
        Ok(later) => match draw_slot.checked_add(later) {
            Some(due) if due <= newest => Ok(due),
            _ => Err(Error::DrawTooEarly),
        },
        Err(error) => Err(error),
    }
}

fn count(seats: &Seats) -> u16 {
    let bits: u32 = seats.iter().map(|bits| bits.count_ones()).sum();
    u16::try_from(bits).unwrap_or(u16::MAX)
}

fn holds(seats: &Seats, seat: usize) -> bool {
    seats.get(seat / 8).is_some_and(|bits| bits >> (seat % 8) & 1 == 1)
}

fn put(seats: &mut Seats, seat: usize) {
    if let Some(bits) = seats.get_mut(seat / 8) {
        *bits |= 1 << (seat % 8);
    }
}

/// The seat of a set's `nth` bit.
fn nth(seats: &Seats, nth: u64) -> Option<usize> {
    let mut left = nth;
    for seat in 0..SEATS_MAX {
        if holds(seats, seat) {
            if left == 0 {
                return Some(seat);
            }
            left = left.wrapping_sub(1);
        }
    }
    None
}

/// Draws up to [`PANEL_SEATS`] of some seats, each as likely as the others.
pub fn panel(sha256: impl Fn(&[&[u8]]) -> Hash, draw: &Hash, from: &Seats) -> Seats {
    let (mut left, mut drawn): (Seats, Seats) = (*from, [0; SEATS_MAX / 8]);
    for turn in 0..PANEL_SEATS {
        let hash = sha256(&[draw, &turn.to_le_bytes()]);
        let (numbers, _) = hash.as_chunks::<8>();
        // Of at most 256 seats none is likelier than another by more than 2^-56.
        let at = numbers.first().and_then(|bytes| u64::from_le_bytes(*bytes).checked_rem(u64::from(count(&left))));
        let Some(seat) = at.and_then(|at| nth(&left, at)) else { break };
        put(&mut drawn, seat);
        if let Some(bits) = left.get_mut(seat / 8) {
            *bits &= !(1 << (seat % 8));
        }
    }
    drawn
}

impl Lease {
    /// Device-seconds that can have been served by some earlier time. Devices that were released since count up to then.
    fn served_by(&self, until: i64) -> Result<u64, Error> {
        let until = until.min(self.end);
        let live = u64::from(self.devices_live);
        if until >= self.cap_since {
            add(self.cap_base, mul(live, seconds_between(self.cap_since, until))?)
        } else {
            Ok(self.cap_base.saturating_sub(mul(live, seconds_between(until, self.cap_since))?))
        }
    }

    /// Freezes the lease for a dispute on a leaf that would be booked otherwise; returns what it can have served by the
    /// leaf's time. Called after [`Lease::begin`].
    ///
    /// # Errors
    /// As [`Lease::settle`]; [`Error::CeilingWrong`].
    pub fn freeze(&mut self, order: &Order, leaf: &Leaf, ceiling: u64, now: i64) -> Result<u64, Error> {
        let (mut books, mut settled) = (*order, *self);
        settled.settle(&mut books, leaf, now)?;
        if ceiling >= leaf.device_seconds || ceiling < self.device_seconds_paid {
            return Err(Error::CeilingWrong);
        }
        self.flags |= LEASE_FROZEN;
        self.served_by(leaf.until)
    }

    /// Ends the freeze: books what the dispute left of the leaf, as far as the lease can have served it.
    ///
    /// # Errors
    /// [`Error::EscrowShort`], [`Error::Overflow`] when the books are broken.
    pub fn thaw(&mut self, order: &mut Order, dispute: &Dispute, now: i64) -> Result<(), Error> {
        let mut said = dispute.claimed;
        if dispute.verdict() == Outcome::Opener {
            said = dispute.ceiling;
            self.unserved = self.unserved.max(dispute.cap_at.saturating_sub(said));
            self.flags |= LEASE_JUDGED;
        }
        // The supplier may have released its devices as of an earlier time meanwhile.
        let device_seconds = said.min(self.cap(now)?).max(self.device_seconds_paid);
        let leaf = Leaf {
            lease: dispute.lease,
            device_seconds,
            until: dispute.until,
            flags: dispute.leaf_flags,
            slots_root: [0; 32],
        };
        self.book(order, &leaf)?;
        self.flags &= !LEASE_FROZEN;
        self.thawed_at = now;
        Ok(())
    }
}

impl Dispute {
    /// Starts the times and takes over the bond.
    pub fn begin(&mut self, rules: &Rules, slot: u64, now: i64) {
        self.bond = rules.dispute_bond;
        self.opened_at = now;
        self.draw_slot = slot.saturating_add(DRAW_DELAY_SLOTS);
        self.vote_until = now.saturating_add(i64::from(rules.voting_s));
        self.appeal_until = self.vote_until.saturating_add(i64::from(rules.appeal_s));
    }

    /// Until when an appeal is filed: half of its time, so that as much is left for the votes.
    #[must_use]
    pub fn file_until(&self) -> i64 {
        let half = seconds_between(self.vote_until, self.appeal_until) / 2;
        self.vote_until.saturating_add_unsigned(half)
    }

    const fn is_appealed(&self) -> bool {
        self.flags & DISPUTE_APPEALED != 0
    }

    fn is_party(&self, wallet: &Address) -> bool {
        *wallet != NO_ADDRESS && [&self.opener, &self.appellant, &self.renter, &self.supplier].contains(&wallet)
    }

    /// The seats that no party holds.
    fn impartial(&self, seats: &[Seat]) -> Seats {
        let mut found = [0; SEATS_MAX / 8];
        for (number, seat) in seats.iter().take(SEATS_MAX).enumerate() {
            if !self.is_party(&seat.owner) && !self.is_party(&seat.key) {
                put(&mut found, number);
            }
        }
        found
    }

    /// Draws the first panel by the hash of [`due_slot`]. The dispute's address binds it to this one alone.
    ///
    /// # Errors
    /// [`Error::NothingToDo`] when it is drawn, [`Error::DisputeStageWrong`] when its votes are over.
    pub fn draw(
        &mut self,
        sha256: impl Fn(&[&[u8]]) -> Hash,
        (slot_hash, own): (&Hash, &Address),
        seats: &[Seat],
        now: i64,
    ) -> Result<(), Error> {
        if self.flags & DISPUTE_DRAWN != 0 {
            return Err(Error::NothingToDo);
        }
        if now >= self.vote_until {
            return Err(Error::DisputeStageWrong);
        }
        self.draw = sha256(&[PANEL_DOMAIN, slot_hash, own]);
        self.panel = panel(sha256, &self.draw, &self.impartial(seats));
        self.panel_count = count(&self.panel);
        self.flags |= DISPUTE_DRAWN;
        Ok(())
    }

    /// Whether the first panel is to be drawn before anybody votes.
    #[must_use]
    pub const fn lacks_draw(&self) -> bool {
        self.flags & (DISPUTE_DRAWN | DISPUTE_APPEALED) == 0
    }

    /// Counts one seat's vote; `seat` is its number, and who holds it.
    ///
    /// # Errors
    /// [`Error::DisputeStageWrong`] out of the time of votes, [`Error::NotOnPanel`], [`Error::PanelVoteRepeated`],
    /// [`Error::InstructionMalformed`] for an unknown choice.
    pub fn vote(&mut self, (number, seat): (usize, &Seat), choice: u8, now: i64) -> Result<(), Error> {
        let until = if self.is_appealed() { self.appeal_until } else { self.vote_until };
        if now >= until {
            return Err(Error::DisputeStageWrong);
        }
        // The set may have changed since the panel was made.
        if !holds(&self.panel, number) || self.is_party(&seat.owner) || self.is_party(&seat.key) {
            return Err(Error::NotOnPanel);
        }
        if holds(&self.votes_for, number) || holds(&self.votes_against, number) {
            return Err(Error::PanelVoteRepeated);
        }
        match choice {
            FOR_OPENER => put(&mut self.votes_for, number),
            FOR_LEAF => put(&mut self.votes_against, number),
            _ => return Err(Error::InstructionMalformed),
        }
        Ok(())
    }

    /// What the panel that votes now has said so far: more than half of it must vote.
    #[must_use]
    pub fn said(&self) -> Outcome {
        let (opener, leaf) = (count(&self.votes_for), count(&self.votes_against));
        if opener.wrapping_add(leaf) <= self.panel_count / 2 || opener == leaf {
            Outcome::NoQuorum
        } else if opener > leaf {
            Outcome::Opener
        } else {
            Outcome::Leaf
        }
    }

    const fn first(&self) -> Outcome {
        match self.first {
            1 => Outcome::Opener,
            2 => Outcome::Leaf,
            _ => Outcome::NoQuorum,
        }
    }

    /// What the dispute comes to, once its times are over: what the appeal says, or the first panel where the appeal says
    /// nothing.
    #[must_use]
    pub fn verdict(&self) -> Outcome {
        match (self.is_appealed(), self.said()) {
            (true, Outcome::NoQuorum) => self.first(),
            (_, said) => said,
        }
    }

    /// Appeals against what the first panel said; returns the bond that the caller moves.
    ///
    /// # Errors
    /// [`Error::DisputeStageWrong`] when it is appealed, or out of the time to file; [`Error::Overflow`].
    pub fn appeal(&mut self, appellant: &Address, seats: &[Seat], now: i64) -> Result<u64, Error> {
        if self.is_appealed() || now < self.vote_until || now >= self.file_until() {
            return Err(Error::DisputeStageWrong);
        }
        self.first = self.said() as u8;
        self.appellant = *appellant;
        self.appeal_bond = add(self.bond, self.bond)?;
        self.flags |= DISPUTE_APPEALED;
        self.panel = self.impartial(seats);
        self.panel_count = count(&self.panel);
        (self.votes_for, self.votes_against) = ([0; 32], [0; 32]);
        Ok(self.appeal_bond)
    }

    /// Whether the dispute may be closed.
    ///
    /// # Errors
    /// [`Error::DisputeStageWrong`] otherwise.
    pub fn check_close(&self, now: i64) -> Result<(), Error> {
        let end = if self.is_appealed() { self.appeal_until } else { self.file_until() };
        if now < end { Err(Error::DisputeStageWrong) } else { Ok(()) }
    }

    /// Who gets what of the bonds; `held` is what the vault holds, and what is more than the bonds is burned.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the vault holds less than the bonds.
    pub fn bonds(&self, held: u64) -> Result<Bonds, Error> {
        let mut bonds = Bonds::default();
        let verdict = self.verdict();
        if verdict == Outcome::Leaf {
            bonds.supplier = self.bond / WINNERS_PART;
        } else {
            bonds.opener = self.bond;
        }
        // Whoever appeals is against what the first panel said; an appeal that says nothing costs nobody anything.
        let decided = self.is_appealed() && self.said() != Outcome::NoQuorum;
        let lost = decided && (verdict == Outcome::Opener) == (self.first() == Outcome::Opener);
        if !lost {
            bonds.appellant = self.appeal_bond;
        } else if verdict == Outcome::Opener {
            bonds.opener = add(bonds.opener, self.appeal_bond / WINNERS_PART)?;
        } else {
            bonds.supplier = add(bonds.supplier, self.appeal_bond / WINNERS_PART)?;
        }
        bonds.burned = sub(held, add(add(bonds.opener, bonds.appellant)?, bonds.supplier)?)?;
        Ok(bonds)
    }
}

#[cfg(test)]
mod tests;

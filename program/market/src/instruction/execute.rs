//! Does what an accepted proposal says. All of it or nothing: what is out of range by now is refused, and the proposal
//! waits on until its time is over.

use crate::{
    instruction::set_catalogue,
    shared::{
        Cx, Fault, Outcome, account, address,
        runtime::{now, sha256},
        token,
    },
};
use atoll_interface::{
    Address as Bytes, Error,
    govern::{Action, Parameters, SetSeat, check_majority, check_unlike},
    instruction::{Execute, ExecuteAccounts, SetRules},
    layout::{CONFIG_GOVERNED, Catalogue, Config, Proposal, Record, Rules, Table},
    network::set_hash,
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [payer, mut proposal, mut config, mut rules, mut catalogue, treasury, _system] =
        cx.take(&ExecuteAccounts::FLAGS)?;
    Execute::decode(cx.fields)?;
    let now = now()?;
    let action = {
        let mut proposal = account::view_mut::<Proposal>(cx.program, &mut proposal)?;
        proposal.execute(now)?;
        proposal.read_action()?
    };
    // Every account is the one that its place names, whether this action needs it or not.
    account::view::<Config>(cx.program, &config)?;
    account::view::<Rules>(cx.program, &rules)?;
    account::view::<Catalogue>(cx.program, &catalogue)?;
    if !matches!(action, Action::Treasury(_)) {
        address::expect(&treasury, proposal.address().as_array())?;
    }
    match action {
        Action::Rules(set) => set_rules(cx.program, &mut rules, &set),
        Action::Parameters(set) => set_parameters(cx.program, &mut config, &set),
        Action::Catalogue(model) => set_catalogue::write(cx.program, &payer, &mut catalogue, &model),
        Action::Seat(seat) => {
            let mut set = Set { payer: &payer, config: &mut config, rules: &mut rules, now };
            let number = set.change(cx.program, &seat)?;
            account::view_mut::<Proposal>(cx.program, &mut proposal)?.set_no = number;
            Ok(())
        }
        Action::Treasury(account) => set_treasury(cx.program, &mut config, &treasury, &account),
        Action::Upgrade => Ok(()),
        Action::Govern => {
            account::view_mut::<Config>(cx.program, &mut config)?.flags |= CONFIG_GOVERNED;
            Ok(())
        }
    }
}

#[inline(never)]
fn set_rules(program: &Address, rules: &mut AccountView, set: &SetRules) -> Outcome {
    let mut rules = account::view_mut::<Rules>(program, rules)?;
    rules.set(set);
    Ok(rules.check()?)
}

#[inline(never)]
fn set_parameters(program: &Address, config: &mut AccountView, set: &Parameters) -> Outcome {
    let mut config = account::view_mut::<Config>(program, config)?;
    set.check(config.epoch_s)?;
    config.set(set);
    Ok(())
}

#[inline(never)]
fn set_treasury(program: &Address, config: &mut AccountView, treasury: &AccountView, to: &Bytes) -> Outcome {
    address::expect(treasury, to)?;
    let mut config = account::view_mut::<Config>(program, config)?;
    token::read(treasury, &config.mint)?;
    config.treasury = *to;
    Ok(())
}

/// The attestor set and where it stands.
struct Set<'a> {
    payer: &'a AccountView,
    config: &'a mut AccountView,
    rules: &'a mut AccountView,
    now: i64,
}

impl Set<'_> {
    /// Changes a seat and the threshold; returns the set's number.
    ///
    /// Epochs that are over by now take no more votes: their seats may have voted, and those of the new set must not make
    /// another root final.
    #[inline(never)]
    fn change(&mut self, program: &Address, seat: &SetSeat) -> Result<u16, Fault> {
        let count = seat.count(usize::from(account::view::<Config>(program, self.config)?.seat_count))?;
        check_majority(seat.threshold, count)?;
        let space = Config::size_with(count);
        if space > self.config.data_len() {
            account::grow(self.payer, self.config, space)?;
        }
        let number = {
            let mut config = account::view_mut::<Config>(program, self.config)?;
            config.seat_count = u16::try_from(count).map_err(|_| Error::SeatUnknown)?;
            config.threshold = seat.threshold;
            config.set_no = config.set_no.checked_add(1).ok_or(Error::Overflow)?;
            config.set_at = self.now;
            config.set_no
        };
        self.write(program, seat)?;
        self.chain(program, number)?;
        Ok(number)
    }

    /// Writes the seat's row, unlike every other row.
    #[inline(never)]
    fn write(&mut self, program: &Address, seat: &SetSeat) -> Outcome {
        if seat.removes() {
            return Ok(());
        }
        let (row, index) = (seat.row(), usize::from(seat.seat));
        let mut data = account::bytes_mut(program, self.config)?;
        let count = usize::from(Config::view(&data)?.seat_count);
        let (rows, _) = data.get_mut(Config::SIZE..).ok_or(Error::AccountKindWrong)?.as_chunks_mut::<64>();
        let rows = rows.get_mut(..count).ok_or(Error::AccountKindWrong)?;
        let (before, from) = rows.split_at_mut_checked(index).ok_or(Error::SeatUnknown)?;
        let (own, after) = from.split_first_mut().ok_or(Error::SeatUnknown)?;
        check_unlike(&row, before)?;
        check_unlike(&row, after)?;
        *own = row;
        Ok(())
    }

    /// Chains the set's hash to the one before.
    #[inline(never)]
    fn chain(&mut self, program: &Address, number: u16) -> Outcome {
        let data = account::bytes(program, self.config)?;
        let (config, _) = Config::view_table(&data)?;
        let (rows, _) = data.get(Config::SIZE..).ok_or(Error::AccountKindWrong)?.as_chunks::<64>();
        let rows = rows.get(..usize::from(config.seat_count)).ok_or(Error::AccountKindWrong)?;
        let mut rules = account::view_mut::<Rules>(program, self.rules)?;
        let before = if number == 1 { config.network_root } else { rules.set_hash };
        rules.set_hash = set_hash(sha256, &config.network_root, &before, (number, config.threshold), rows);
        Ok(())
    }
}

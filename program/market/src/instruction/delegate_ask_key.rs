//! Gives a key the supplier's asks and drains, or takes them away.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
    runtime::now,
};
use atoll_interface::{
    Error,
    instruction::{DelegateAskKey, DelegateAskKeyAccounts},
    layout::{AskKey, Record},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut supplier, mut ask_key, _system] = cx.take(&DelegateAskKeyAccounts::FLAGS)?;
    let delegate = DelegateAskKey::decode(cx.fields)?;
    let wallet = *supplier.address().as_array();
    let over = delegate.until <= now()?;
    if account::is_vacant(&ask_key) {
        if over {
            return Err(Error::NothingToDo.into());
        }
        let bump = account::make(&Make {
            program: cx.program,
            payer: &supplier,
            account: &ask_key,
            seeds: &seeds::ask_key(&wallet, &delegate.key),
            space: AskKey::SIZE,
            owner: cx.program,
        })?;
        let mut record = account::fresh::<AskKey>(&mut ask_key)?;
        record.bump = bump;
        record.supplier = wallet;
        record.key = delegate.key;
    }
    {
        let mut record = account::view_mut::<AskKey>(cx.program, &mut ask_key)?;
        if !address::same(&record.supplier, &wallet) || !address::same(&record.key, &delegate.key) {
            return Err(Error::NotAuthorised.into());
        }
        record.until = delegate.until;
    }
    if over { account::close(&mut ask_key, &mut supplier) } else { Ok(()) }
}

//! Adds a model or changes the one with the same number.

use crate::shared::{Cx, Outcome, account, authority};
use atoll_interface::{
    Error,
    instruction::{SetCatalogue, SetCatalogueAccounts},
    layout::{Catalogue, Config, MODELS_MAX, Table},
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [admin, config, mut catalogue, _system] = cx.take(&SetCatalogueAccounts::FLAGS)?;
    let model = SetCatalogue::decode(cx.fields)?;
    authority::expect_admin(&*account::view::<Config>(cx.program, &config)?, &admin)?;
    write(cx.program, &admin, &mut catalogue, &model)
}

/// Writes a model's row; the payer adds the rent of a new one. Who may is the caller's to know.
#[inline(never)]
pub(crate) fn write(
    program: &Address,
    payer: &AccountView,
    catalogue: &mut AccountView,
    model: &SetCatalogue,
) -> Outcome {
    model.check()?;
    let (count, known) = {
        let data = account::bytes(program, catalogue)?;
        let (header, rows) = Catalogue::view_table(&data)?;
        (header.model_count, rows.iter().position(|row| row.id == model.id))
    };
    let index = match known {
        Some(index) => index,
        None if usize::from(count) >= MODELS_MAX => return Err(Error::ParameterOutOfRange.into()),
        None => {
            let rows = usize::from(count).wrapping_add(1);
            account::grow(payer, catalogue, Catalogue::size_with(rows))?;
            account::view_mut::<Catalogue>(program, catalogue)?.model_count = count.wrapping_add(1);
            usize::from(count)
        }
    };
    let mut data = account::bytes_mut(program, catalogue)?;
    let (_, rows) = Catalogue::view_table_mut(&mut data)?;
    let row = rows.get_mut(index).ok_or(Error::AccountKindWrong)?;
    row.id = model.id;
    row.tier = model.tier;
    row.flags = model.flags;
    row.memory_mib = model.memory_mib;
    row.multiplier_milli = model.multiplier_milli;
    row.name = model.name;
    Ok(())
}

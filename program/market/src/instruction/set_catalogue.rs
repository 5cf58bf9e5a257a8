//! Adds a model or changes the one with the same number.

use crate::shared::{Cx, Outcome, account, address};
use atoll_interface::{
    Error,
    instruction::{SetCatalogue, SetCatalogueAccounts},
    layout::{Catalogue, Config, MODELS_MAX, TIER_COMMUNITY, TIER_ENTERPRISE, Table},
};

/// The highest weight of a model: 1,000 times the base.
const MULTIPLIER_MILLI_MAX: u32 = 1_000_000;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [admin, config, mut catalogue, _system] = cx.take(&SetCatalogueAccounts::FLAGS)?;
    let model = SetCatalogue::decode(cx.fields)?;
    if !address::is(&admin, &account::view::<Config>(cx.program, &config)?.admin) {
        return Err(Error::NotAuthorised.into());
    }
    let in_range = model.id != 0
        && (model.tier == TIER_COMMUNITY || model.tier == TIER_ENTERPRISE)
        && model.multiplier_milli <= MULTIPLIER_MILLI_MAX;
    if !in_range {
        return Err(Error::ParameterOutOfRange.into());
    }
    let (count, known) = {
        let data = account::bytes(cx.program, &catalogue)?;
        let (header, rows) = Catalogue::view_table(&data)?;
        (header.model_count, rows.iter().position(|row| row.id == model.id))
    };
    let index = match known {
        Some(index) => index,
        None if usize::from(count) >= MODELS_MAX => return Err(Error::ParameterOutOfRange.into()),
        None => {
            let rows = usize::from(count).wrapping_add(1);
            account::grow(&admin, &mut catalogue, Catalogue::size_with(rows))?;
            account::view_mut::<Catalogue>(cx.program, &mut catalogue)?.model_count = count.wrapping_add(1);
            usize::from(count)
        }
    };
    let mut data = account::bytes_mut(cx.program, &mut catalogue)?;
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

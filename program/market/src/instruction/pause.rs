//! Pauses new orders and fills, by the guardian; `post_order` and `fill_order` look, nothing else does.

use crate::shared::{Cx, Outcome, account, address, runtime::now};
use atoll_interface::{
    Error, NO_ADDRESS,
    instruction::{Pause, PauseAccounts},
    layout::{Config, Rules},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [guardian, mut config, rules] = cx.take(&PauseAccounts::FLAGS)?;
    let Pause { seconds } = Pause::decode(cx.fields)?;
    let named = account::view::<Rules>(cx.program, &rules)?.guardian;
    if address::same(&named, &NO_ADDRESS) || !address::is(&guardian, &named) {
        return Err(Error::NotAuthorised.into());
    }
    Ok(account::view_mut::<Config>(cx.program, &mut config)?.pause(seconds, now()?)?)
}

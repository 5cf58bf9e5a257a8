//! Closes the account of a device key that was retired long enough ago.

use crate::shared::{Cx, Outcome, account, address, runtime};
use atoll_interface::{
    Error,
    instruction::{CloseDeviceKey, CloseDeviceKeyAccounts},
    layout::{DeviceKey, Rules},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut supplier, mut device_key, rules] = cx.take(&CloseDeviceKeyAccounts::FLAGS)?;
    let close = CloseDeviceKey::decode(cx.fields)?;
    {
        let key = account::view::<DeviceKey>(cx.program, &device_key)?;
        // The page itself may be closed by now: its address tells whose it was.
        let (wallet, number) = (*supplier.address().as_array(), close.page_no.to_le_bytes());
        let found = runtime::find_address(cx.program, &seeds::page(&wallet, &number));
        match found {
            Some((page, _)) if address::same(page.as_array(), &key.page) => {}
            _ => return Err(Error::NotAuthorised.into()),
        }
        key.check_close(&*account::view::<Rules>(cx.program, &rules)?, runtime::now()?)?;
    }
    account::close(&mut device_key, &mut supplier)
}

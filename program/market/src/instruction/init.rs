//! Makes the network, once. Whoever sends it becomes the admin: the network root, which clients pin, tells whose network
//! it is.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    runtime::{now, sha256},
    token,
};
use atoll_interface::{
    Error,
    govern::{Parameters, check_majority, check_unlike},
    instruction::{Init, InitAccounts},
    layout::{Catalogue, Config, FEED_OPERATOR, PriceFeed, Record, Table},
    network::network_root,
    seeds,
};
use core::hint::black_box;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [admin, mut config, mut catalogue, mut feed, mint, treasury, _system] = cx.take(&InitAccounts::FLAGS)?;
    let init = Init::decode(cx.fields)?;
    check(&init)?;
    token::expect_mint(&mint)?;
    token::read(&treasury, mint.address().as_array())?;

    let space = Config::size_with(init.seats.len());
    let config_bump = account::make(&Make {
        program: cx.program,
        payer: &admin,
        account: &config,
        seeds: &black_box(seeds::config()),
        space,
        owner: cx.program,
    })?;
    let space = Catalogue::SIZE;
    let catalogue_bump = account::make(&Make {
        program: cx.program,
        payer: &admin,
        account: &catalogue,
        seeds: &black_box(seeds::catalogue()),
        space,
        owner: cx.program,
    })?;
    let feed_bump = account::make(&Make {
        program: cx.program,
        payer: &admin,
        account: &feed,
        seeds: &black_box(seeds::feed()),
        space: PriceFeed::SIZE,
        owner: cx.program,
    })?;
    account::fresh::<Catalogue>(&mut catalogue)?.bump = catalogue_bump;
    let mut record = account::fresh::<PriceFeed>(&mut feed)?;
    record.bump = feed_bump;
    record.source = FEED_OPERATOR;

    let mut record = account::fresh::<Config>(&mut config)?;
    record.bump = config_bump;
    record.seat_count = u16::try_from(init.seats.len()).map_err(|_| Error::ParameterOutOfRange)?;
    record.threshold = init.threshold;
    record.admin = *admin.address().as_array();
    record.mint = *mint.address().as_array();
    record.treasury = *treasury.address().as_array();
    record.genesis_hash = init.genesis_hash;
    record.network_root = network_root(sha256, cx.program.as_array(), &init.genesis_hash, init.threshold, init.seats);
    record.epoch_zero = now()?;
    record.epoch_s = init.epoch_s;
    record.set(&Parameters::of(&init));
    drop(record);

    let mut data = account::bytes_mut(cx.program, &mut config)?;
    let (_, rows) = Config::view_table_mut(&mut data)?;
    for (row, seat) in rows.iter_mut().zip(init.seats) {
        let (owner, key) = seat.split_at(32);
        row.owner.copy_from_slice(owner);
        row.key.copy_from_slice(key);
    }
    Ok(())
}

fn check(init: &Init<'_>) -> Outcome {
    let parameters = Parameters::of(init);
    parameters.check(init.epoch_s)?;
    check_majority(init.threshold, init.seats.len())?;
    for (index, seat) in init.seats.iter().enumerate() {
        let earlier = init.seats.get(..index).unwrap_or(init.seats);
        check_unlike(seat, earlier)?;
    }
    Ok(())
}

//! Posts an order and escrows its worst case. Prices are converted here, once, by the feed.

use crate::shared::{
    Cx, Fault, Outcome,
    account::{self, Make},
    address, authority,
    runtime::now,
    token::{self, Call, MakeVault},
};
use atoll_interface::{
    Address as Bytes, Error, NO_ADDRESS,
    arithmetic::{rate, seconds_between},
    instruction::{PostOrder, PostOrderAccounts, PostOrderSpot},
    layout::{Budget, CLASS_ATTESTED, Catalogue, Config, Order, PriceFeed, Record, TIER_ENTERPRISE, Table},
    seeds,
    settlement::{DURATION_S_MAX, worst_case},
};
use pinocchio::{AccountView, Address, cpi::Seed};

/// Devices of one order at most: 2^20.
const DEVICES_MAX: u32 = 1 << 20;

/// What the order is worth, and by which parameters.
struct Terms {
    feed: u64,
    rate_cap: u64,
    escrow: u64,
    fee_bps: u16,
    open_at: i64,
    fill_by: i64,
}

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    post(
        cx,
        &PostOrder::decode(cx.fields)?,
        &PostOrderSpot { notice_s: 0, region_mask: 0, score_min_milli: 0, order: &[] },
    )
}

/// Posts an order with further terms; the accounts of both instructions are the same.
#[inline(never)]
pub(super) fn post(cx: &mut Cx<'_>, post: &PostOrder, further: &PostOrderSpot<'_>) -> Outcome {
    let [authority, payer, mut order, vault, source, mut budget, config, catalogue, feed, mint, ..] =
        cx.take(&PostOrderAccounts::FLAGS)?;
    let now = now()?;
    check_shape(post)?;
    check_models(cx.program, &catalogue, post)?;
    let terms = terms(cx.program, &config, &feed, &mint, post, now)?;

    let by_budget = budget.address() != order.address();
    let renter = if by_budget {
        spend(cx.program, &mut budget, &authority, &source, terms.escrow, now)?
    } else {
        *authority.address().as_array()
    };
    let owner = *order.address().as_array();
    let nonce = post.nonce.to_le_bytes();
    let bump = account::make(&Make {
        program: cx.program,
        payer: &payer,
        account: &order,
        seeds: &seeds::order(&renter, &nonce),
        space: Order::SIZE,
        owner: cx.program,
    })?;
    let vault_bump = token::make(&MakeVault {
        program: cx.program,
        payer: &payer,
        vault: &vault,
        mint: &mint,
        seeds: seeds::order_vault(&owner),
        owner: &owner,
    })?;
    if token::read(&source, mint.address().as_array())?.amount < terms.escrow {
        return Err(Error::FundsShort.into());
    }
    if by_budget {
        let (key, bump) = (*authority.address().as_array(), [account::view::<Budget>(cx.program, &budget)?.bump]);
        let [prefix, of, key] = seeds::budget(&renter, &key);
        let seeds = [Seed::from(prefix), Seed::from(of), Seed::from(key), Seed::from(&bump)];
        Call { from: &source, to: &vault, authority: &budget, seeds: &seeds }.transfer(terms.escrow)?;
    } else {
        Call { from: &source, to: &vault, authority: &authority, seeds: &[] }.transfer(terms.escrow)?;
    }

    let mut record = account::fresh::<Order>(&mut order)?;
    record.bump = bump;
    record.vault_bump = vault_bump;
    record.renter = renter;
    record.budget = if by_budget { *budget.address().as_array() } else { NO_ADDRESS };
    record.rent_payer = *payer.address().as_array();
    write(&mut record, post, &terms, now);
    Ok(record.narrow(further.notice_s, further.region_mask, further.score_min_milli)?)
}

fn check_shape(post: &PostOrder) -> Outcome {
    let per_worker = u32::from(post.devices_per_worker);
    let in_range = (1..=DEVICES_MAX).contains(&post.devices)
        && (1..=post.devices).contains(&post.devices_min)
        && per_worker <= 16
        && (per_worker == 0 || post.devices.checked_rem(per_worker) == Some(0))
        && post.tier <= TIER_ENTERPRISE
        && post.class <= CLASS_ATTESTED
        && (1..=DURATION_S_MAX).contains(&post.duration_s)
        && post.fill_s > 0;
    if in_range { Ok(()) } else { Err(Error::ParameterOutOfRange.into()) }
}

fn check_models(program: &Address, catalogue: &AccountView, post: &PostOrder) -> Outcome {
    let data = account::bytes(program, catalogue)?;
    let (_, rows) = Catalogue::view_table(&data)?;
    let mut wanted = post.models.iter().filter(|model| **model != 0).peekable();
    if wanted.peek().is_none() || !wanted.all(|model| rows.iter().any(|row| row.id == *model)) {
        return Err(Error::ModelUnknown.into());
    }
    Ok(())
}

#[inline(always)]
fn terms(
    program: &Address,
    config: &AccountView,
    feed: &AccountView,
    mint: &AccountView,
    post: &PostOrder,
    now: i64,
) -> Result<Terms, Fault> {
    let config = account::view::<Config>(program, config)?;
    let feed = account::view::<PriceFeed>(program, feed)?;
    address::expect(mint, &config.mint)?;
    if now < config.paused_until {
        return Err(Error::Paused.into());
    }
    if seconds_between(feed.published_at, now) > u64::from(config.feed_age_s_max) {
        return Err(Error::FeedStale.into());
    }
    if post.fill_s > config.fill_s_max {
        return Err(Error::ParameterOutOfRange.into());
    }
    let rate_cap = rate(post.price_cap_uusd, feed.uusd_per_atl)?;
    if rate_cap == 0 {
        return Err(Error::ParameterOutOfRange.into());
    }
    let escrow = worst_case(rate_cap, post.devices, post.duration_s, config.fee_bps)?;
    let window = if post.solvers.iter().all(|key| address::same(key, &NO_ADDRESS)) { 0 } else { config.open_s };
    Ok(Terms {
        feed: feed.uusd_per_atl,
        rate_cap,
        escrow,
        fee_bps: config.fee_bps,
        open_at: now.saturating_add(i64::from(window)),
        fill_by: now.saturating_add(i64::from(post.fill_s)),
    })
}

/// Books an escrow against a budget's limits; returns the renter.
#[inline(always)]
fn spend(
    program: &Address,
    budget: &mut AccountView,
    authority: &AccountView,
    source: &AccountView,
    escrow: u64,
    now: i64,
) -> Result<Bytes, Fault> {
    let owner = *budget.address().as_array();
    let mut budget = account::view_mut::<Budget>(program, budget)?;
    authority::expect_budget_key(&budget, authority, now)?;
    address::expect_derived(program, source, seeds::budget_vault(&owner), budget.vault_bump)?;
    budget.spend(0, escrow, now)?;
    Ok(budget.renter)
}

fn write(order: &mut Order, post: &PostOrder, terms: &Terms, now: i64) {
    order.tier = post.tier;
    order.class = post.class;
    order.devices_per_worker = post.devices_per_worker;
    order.region = post.region;
    order.fee_bps = terms.fee_bps;
    order.models = post.models;
    order.duration_s = post.duration_s;
    order.devices = post.devices;
    order.devices_min = post.devices_min;
    order.devices_open = post.devices;
    order.spec_root = post.spec_root;
    order.fill_root = post.fill_root;
    order.solvers = post.solvers;
    order.nonce = post.nonce;
    order.price_cap_uusd = post.price_cap_uusd;
    order.feed_uusd_per_atl = terms.feed;
    order.rate_cap = terms.rate_cap;
    order.escrow_initial = terms.escrow;
    order.escrow = terms.escrow;
    order.posted_at = now;
    order.open_at = terms.open_at;
    order.fill_by = terms.fill_by;
}

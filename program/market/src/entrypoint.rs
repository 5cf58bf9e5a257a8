//! From the runtime's input to one instruction.

use crate::{
    instruction as handler,
    shared::{Cx, Outcome},
};
use atoll_interface::{
    Error,
    instruction::{self as ix, ACCOUNTS_MAX},
};
use pinocchio::{AccountView, Address, ProgramResult, entrypoint::process_entrypoint};

/// Called by the runtime. Accounts beyond the longest instruction's are ignored.
///
/// # Safety
/// `input` is the runtime's serialised input.
#[unsafe(no_mangle)]
#[allow(unreachable_pub)]
pub unsafe extern "C" fn entrypoint(input: *mut u8) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { process_entrypoint::<ACCOUNTS_MAX>(input, process) }
}

#[inline(always)]
fn process(program: &Address, accounts: &mut [AccountView], data: &[u8]) -> ProgramResult {
    let outcome = match data.split_first() {
        Some((tag, fields)) => dispatch(*tag, &mut Cx { program, accounts, fields }),
        None => Err(Error::InstructionMalformed.into()),
    };
    outcome.map_err(|fault| fault.0)
}

#[inline(always)]
fn dispatch(tag: u8, cx: &mut Cx<'_>) -> Outcome {
    match tag {
        ix::Init::TAG => handler::init::run(cx),
        ix::SetCatalogue::TAG => handler::set_catalogue::run(cx),
        ix::SetFeed::TAG => handler::set_feed::run(cx),
        ix::RegisterWorker::TAG => handler::register_worker::run(cx),
        ix::Stake::TAG => handler::stake::run(cx),
        ix::SetAsk::TAG => handler::set_ask::run(cx),
        ix::SetBudget::TAG => handler::set_budget::run(cx),
        ix::PostOrder::TAG => handler::post_order::run(cx),
        ix::FillOrder::TAG => handler::fill_order::run(cx),
        ix::ReleaseLease::TAG => handler::release_lease::run(cx),
        ix::RegisterAttestor::TAG => handler::register_attestor::run(cx),
        ix::PostEpoch::TAG => handler::post_epoch::run(cx),
        ix::SettleLease::TAG => handler::settle_lease::run(cx),
        ix::WithdrawOwed::TAG => handler::withdraw_owed::run(cx),
        ix::CloseLease::TAG => handler::close_lease::run(cx),
        ix::CloseOrder::TAG => handler::close_order::run(cx),
        ix::CollectFees::TAG => handler::collect_fees::run(cx),
        ix::ExtendOrder::TAG => handler::extend_order::run(cx),
        ix::ExtendLease::TAG => handler::extend_lease::run(cx),
        ix::SetRules::TAG => handler::set_rules::run(cx),
        ix::SetDrain::TAG => handler::set_drain::run(cx),
        ix::DelegateAskKey::TAG => handler::delegate_ask_key::run(cx),
        ix::SetAsks::TAG => handler::set_asks::run(cx),
        ix::RotateDeviceKey::TAG => handler::rotate_device_key::run(cx),
        ix::RetireWorker::TAG => handler::retire_worker::run(cx),
        ix::CloseDeviceKey::TAG => handler::close_device_key::run(cx),
        ix::ClosePage::TAG => handler::close_page::run(cx),
        ix::UnstakeRequest::TAG => handler::unstake_request::run(cx),
        ix::UnstakeWithdraw::TAG => handler::unstake_withdraw::run(cx),
        ix::CostakeOffer::TAG => handler::costake_offer::run(cx),
        ix::CostakeAccept::TAG => handler::costake_accept::run(cx),
        ix::CostakeExit::TAG => handler::costake_exit::run(cx),
        ix::ProveEquivocation::TAG => handler::prove_equivocation::run(cx),
        ix::OpenFraud::TAG => handler::open_fraud::run(cx),
        ix::AddFraudElement::TAG => handler::add_fraud_element::run(cx),
        ix::ExecuteSlash::TAG => handler::execute_slash::run(cx),
        ix::SettleBatch::TAG => handler::settle_batch::run(cx),
        ix::SettleMixed::TAG => handler::settle_mixed::run(cx),
        ix::OpenDispute::TAG => handler::open_dispute::run(cx),
        ix::VoteDispute::TAG => handler::vote_dispute::run(cx),
        ix::Appeal::TAG => handler::appeal::run(cx),
        ix::CloseDispute::TAG => handler::close_dispute::run(cx),
        ix::SettleCosigned::TAG => handler::settle_cosigned::run(cx),
        ix::PostReward::TAG => handler::post_reward::run(cx),
        ix::ClaimReward::TAG => handler::claim_reward::run(cx),
        ix::Pause::TAG => handler::pause::run(cx),
        ix::Propose::TAG => handler::propose::run(cx),
        ix::Vote::TAG => handler::vote::run(cx),
        ix::Queue::TAG => handler::queue::run(cx),
        ix::Execute::TAG => handler::execute::run(cx),
        ix::PostOrderSpot::TAG => handler::post_order_spot::run(cx),
        ix::NoticeReclaim::TAG => handler::notice_reclaim::run(cx),
        ix::ExtendByBudget::TAG => handler::extend_by_budget::run(cx),
        ix::ClaimVesting::TAG => handler::claim_vesting::run(cx),
        ix::GrantVesting::TAG => handler::grant_vesting::run(cx),
        _ => Err(Error::InstructionUnknown.into()),
    }
}

//! One file an instruction. What it does, its data and its accounts: `atoll_interface::instruction`.

pub(crate) mod close_lease;
pub(crate) mod close_order;
pub(crate) mod collect_fees;
pub(crate) mod extend_lease;
pub(crate) mod extend_order;
pub(crate) mod fill_order;
pub(crate) mod init;
pub(crate) mod post_epoch;
pub(crate) mod post_order;
pub(crate) mod register_attestor;
pub(crate) mod register_worker;
pub(crate) mod release_lease;
pub(crate) mod set_ask;
pub(crate) mod set_budget;
pub(crate) mod set_catalogue;
pub(crate) mod set_feed;
pub(crate) mod settle_lease;
pub(crate) mod stake;
pub(crate) mod withdraw_owed;

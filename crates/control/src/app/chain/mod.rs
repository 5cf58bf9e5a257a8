//! What this node reads from the chain and asks of it.
//!
//! `read` gives `interface`'s own accounts, brought up to the present by its own rules. `ask` builds what is asked.
//! `outbox` writes a transaction down under a key before it is sent, so that a crash, a retry or a second node never
//! sends two where one was meant. The program decides; a refusal comes back as words.

mod ask;
mod outbox;
mod read;

pub use ask::{
    For, Group, close_lease, close_order, collect_fees, epoch_pays, epoch_stands, extend_lease, extension_known,
    extension_order, fill, fill_under_way, groups, is_extension, keep_extension, next_epoch, post_epoch, release,
    release_expired, renters_landed, renters_show, send_extension, send_renters, settle,
};
pub use outbox::{Sent, Standing};
pub use read::{
    LiveSlot, active_slots, lease, leases, leases_under, live_slots, live_slots_of, order, order_for_good,
    order_is_closed, order_now, orders, page_of, read_market, shorter_leases, terms, time,
};

use atoll_domain::key::PublicKey;

/// The chain's own type for an address.
const fn at(key: &PublicKey) -> atoll_chain::Address {
    atoll_chain::Address(key.0)
}

//! The worker's mind: everything that happens comes in as one [`Event`], and what to do about it goes out as [`Effect`]s.
//!
//! [`State::apply`] is pure: it waits for nothing, reads no clock and touches no file, so every refusal and every order of
//! events can be tried in a test. [`World`] waits for the next event and carries the effects out.
//!
//! **Invariant:** no pod starts whose specification the renter of its order did not sign, or whose lease does not hold
//! this worker's devices on the chain. What the control plane says is a wish.

pub mod act;
pub mod command;
mod operators;
pub mod refusal;
pub mod state;
pub mod store;

pub use act::World;
pub use state::{Effect, Effects, Event, Me, PodNews, State};

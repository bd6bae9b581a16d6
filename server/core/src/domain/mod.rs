//! The rules: what is accepted, who is offered what, and what follows. Nothing here does I/O; every operation of
//! [`fleet::Fleet`] says what has changed, and the caller stores that before it answers.

pub(crate) mod fleet;
pub(crate) mod id;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod model;
pub(crate) mod pubkey;
pub(crate) mod time;
pub(crate) mod token;

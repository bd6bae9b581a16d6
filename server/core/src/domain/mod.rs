//! The rules: what is accepted, who is offered what, and what follows. Nothing here does I/O: a rule is a function over
//! [`Work`](crate::work::Work), and the service answers when what it has changed is stored.

pub(crate) mod address;
pub(crate) mod admission;
pub(crate) mod artifacts;
pub(crate) mod audit;
pub(crate) mod configuration;
pub(crate) mod deltas;
pub(crate) mod etag;
pub(crate) mod filter;
pub(crate) mod id;
pub(crate) mod identity;
pub(crate) mod inventory;
pub(crate) mod json;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod mail;
pub(crate) mod monitor;
pub(crate) mod people;
pub(crate) mod pubkey;
pub(crate) mod rollout;
pub(crate) mod token;
pub(crate) mod webhooks;

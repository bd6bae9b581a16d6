//! People: who they are, what they may do, and what they keep on the server.

pub(crate) mod failures;
pub(crate) mod password;
pub(crate) mod permissions;
pub(crate) mod roles;
pub(crate) mod second_factor;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod tokens;
pub(crate) mod users;

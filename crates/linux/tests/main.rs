//! All integration tests of this package, linked once.

mod handlers;
mod update_module;

//! All integration tests of this package, linked once.

mod built_ins;
mod update_module;

//! All integration tests of this package, linked once.

mod handlers;
mod seams;
mod update_module;

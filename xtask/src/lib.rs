//! What the tasks share: where the workspace is, how its programs are built, and what other people's programs they need.
#![forbid(unsafe_code)]
// Telling a person what happened is what these tasks are for.
#![allow(clippy::print_stdout)]

pub mod cache;
pub mod compilers;
pub mod cpu;
pub mod markdown;
pub mod mirror;
pub mod options;
pub mod peers;
pub mod python;
pub mod s3;
pub mod shipped;
pub mod size;
pub mod smtp;
pub mod workspace;

/// What a task ends with: an error is a sentence.
pub type Outcome<T = ()> = Result<T, String>;

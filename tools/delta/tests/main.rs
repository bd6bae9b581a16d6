//! Deltas that are made, applied and compared, of images that the tests make.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod by_content;
mod by_path;
mod pair;

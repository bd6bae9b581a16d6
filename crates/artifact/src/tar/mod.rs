//! Tar archives: the strict reader and writer of everything in an artifact, and trees of files with all that tar says
//! about them.

mod rules;
mod strict;
pub mod tree;

pub(crate) use strict::*;

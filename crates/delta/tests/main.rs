//! Whole deltas: made, applied, cut and spoiled.

mod document;
mod memory;
mod whole;

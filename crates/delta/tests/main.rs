//! Whole deltas: made, applied, cut and spoiled.

mod whole;

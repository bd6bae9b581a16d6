//! The host tool from its command line.

mod deltas;

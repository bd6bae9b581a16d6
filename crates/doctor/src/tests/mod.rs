//! Boards that are folders, each broken in one way, and what is said about it.

mod board;
mod boards;
mod promises;
mod servers;

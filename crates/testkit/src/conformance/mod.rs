//! Suites that any implementation of a seam can be put through: what this project's own ones pass, and what a new one
//! has to.

pub mod boot;

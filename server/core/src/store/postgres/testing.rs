//! Databases for the tests of this crate, of the cluster that the tests over the wire have too.

#[path = "../../../../tests/common/postgres.rs"]
mod cluster;

pub(crate) use cluster::{cluster_with_tls, database, durable_cluster};

use super::Target;

/// The database at this address.
pub(crate) fn target(url: &str) -> Target {
    Target::parse(url, None, None).unwrap()
}

/// Runs statements in the database at this address.
pub(crate) async fn run(url: &str, sql: &str) {
    target(url).connect().await.unwrap().batch(sql).await.unwrap();
}

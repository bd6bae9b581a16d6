//! The record of the device, its configuration, and addresses.

use client_core::deploy::record::Record;
use client_core::server;
use device::config::{Config, Source};

/// Any bytes as the record: what was understood is written, and read again as the same.
pub(crate) fn record(bytes: &[u8]) {
    let Ok(record) = Record::from_json(bytes) else { return };
    let written = record.to_json().expect("a record can be written");
    let again = Record::from_json(&written).expect("what was written is read");
    let rewritten = again.to_json().unwrap();
    assert_eq!(String::from_utf8_lossy(&rewritten), String::from_utf8_lossy(&written));
}

/// Any bytes as `mender.conf`, alone and with itself as the file behind it.
pub(crate) fn configuration(bytes: &[u8]) {
    let source = |name| Source { name, content: bytes };
    match (Config::parse(&[source("a")]), Config::parse(&[source("a"), source("b")])) {
        (Err(error), _) => assert!(!error.to_string().is_empty()),
        // The same keys again change nothing but may exclude each other.
        (Ok(one), Ok(two)) => assert_eq!(one.servers, two.servers),
        (Ok(_), Err(error)) => panic!("twice the same is an error: {error}"),
    }
}

/// Any text as the address of a server.
pub(crate) fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(problem) = server::address_problem(text) {
        assert!(!problem.is_empty());
    }
}

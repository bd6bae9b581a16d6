//! `show-artifact` and `show-provides`.

use std::collections::BTreeMap;

use client_core::text::printable;

use super::{exit, failed, prepare};
use crate::cli::{Invocation, Show};
use crate::printer::{print_json, print_line};

/// Prints what is installed.
pub fn run(invocation: &Invocation, what: Show) -> u8 {
    match (prepare(invocation).and_then(|setup| setup.installed()), what) {
        (Ok(record), Show::Artifact) => artifact(record.installed.name(), invocation.global.json),
        (Ok(record), Show::Provides) => provides(&record.installed.all(), invocation.global.json),
        (Err(error), Show::Artifact | Show::Provides) => return failed(&error),
    }
    exit::SUCCESS
}

fn artifact(name: &str, json: bool) {
    if json {
        print_json(&serde_json::json!({ "artifact_name": name }));
    } else {
        print_line(&printable(name));
    }
}

fn provides(all: &BTreeMap<&str, &str>, json: bool) {
    if json {
        print_json(&serde_json::json!(all));
        return;
    }
    for (key, value) in all {
        print_line(&printable(&format!("{key}={value}")));
    }
}

//! `cargo xtask bench server`: how many questions of devices one server answers, and how soon.
//!
//! The load comes from `rust-ota-server load` on the same machine, whose work is part of what the processors do.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::update_server::UpdateServer;
use xtask::options::Options;
use xtask::{Outcome, workspace};

const SECTION: &str = "bench-server";

const HEAD: &str = "\
| load | asked | answered per second | p50 | p95 | p99 | failed |
| --- | --- | --- | --- | --- | --- | --- |
";

/// Measures and prints a table.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let devices = options.count("--devices", 10_000)?.to_string();
    let seconds = options.count("--seconds", 10)?.to_string();
    let write = options.flag("--write");
    options.finish()?;

    println!("building the server ...");
    workspace::run(workspace::cargo().args(["build", "--release", "--package", "rust-ota-server"]))?;
    let target = workspace::target_directory()?;
    let program = target.join("release/rust-ota-server");
    let directory = target.join("bench-server");
    let mut rows = String::new();
    let mut authentication = String::new();
    for (name, rate, keep_alive) in [
        ("2,000 per second", Some("2000"), "yes"),
        ("2,000 per second, a connection each", Some("2000"), "no"),
        ("as much as it answers", None, "yes"),
    ] {
        println!("{name} ...");
        let server = UpdateServer::start(&program, &directory, &["--auto-accept", "--quiet"])?;
        let mut load = Command::new(&program);
        load.args(["load", "--json", "--server", server.url(), "--devices", &devices, "--seconds", &seconds]);
        load.args(["--keep-alive", keep_alive]).stdin(Stdio::null());
        if let Some(rate) = rate {
            load.args(["--rate", rate]);
        }
        let output = workspace::capture(&mut load)?;
        let result: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| format!("load --json: {error}"))?;
        rows += &format!("| {name} {}", row(&result["polls"])?);
        if rate.is_none() {
            authentication = format!("| first authentication {}", row(&result["authentication"])?);
        }
    }
    let table = format!(
        "{devices} accepted devices, 64 connections, 2 threads that serve, {}.\n\n{HEAD}{rows}{authentication}",
        super::machine()?
    );
    println!("\n{table}");
    if write {
        super::write_section(SECTION, &table)?;
    }
    workspace::fresh_directory(&directory)
}

fn row(measured: &Value) -> Outcome<String> {
    let number = |name: &str| measured[name].as_f64().ok_or_else(|| format!("load --json has no {name}"));
    Ok(format!(
        "| {} | {:.0} | {:.2} ms | {:.2} ms | {:.2} ms | {} |\n",
        number("count")?,
        number("per_second")?,
        number("p50_ms")?,
        number("p95_ms")?,
        number("p99_ms")?,
        number("failed")?,
    ))
}

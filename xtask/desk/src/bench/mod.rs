//! `cargo xtask bench`: what installation, update modules, the daemon, the server, its fleet and deltas cost, as tables for `docs/performance.md`.

mod daemon;
mod delta;
mod fleet;
mod install;
mod memory;
mod modules;
mod peers;
mod server;

use std::path::Path;

use xtask::{Outcome, markdown, workspace};

const PAGE: &str = "docs/performance.md";
const MIB: u64 = 1024 * 1024;

/// Measures one part, installation when none is named.
pub fn run(arguments: &[String]) -> Outcome {
    match arguments.split_first() {
        Some((part, rest)) if part == "daemon" => daemon::run(rest),
        Some((part, rest)) if part == "modules" => modules::run(rest),
        Some((part, rest)) if part == "delta" => delta::run(rest),
        Some((part, rest)) if part == "fleet" => fleet::run(rest),
        Some((part, rest)) if part == "server" => server::run(rest),
        Some((part, rest)) if part == "install" => install::run(rest),
        Some(_) | None => install::run(arguments),
    }
}

/// Puts `table` between the marks of `section`.
fn write_section(section: &str, table: &str) -> Outcome {
    let path = workspace::root().join(PAGE);
    let page = markdown::with_section(&workspace::read(&path)?, section, table)?;
    workspace::write(&path, page)
}

/// The machine that is measured on.
fn machine() -> Outcome<String> {
    let cpu = workspace::read(Path::new("/proc/cpuinfo"))?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("{} ({cores} cores)", model.trim_start_matches(['\t', ':', ' '])))
}

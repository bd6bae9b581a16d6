//! What the interop tests share: where the real tools and daemons are, and saying so when one is missing; a server, and devices
//! that talk to it.

pub mod backend;
pub mod bus;
pub mod mender_device;
pub mod programs;
pub mod terminal;
pub mod virtual_device;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::namespace::Namespace;

/// Looks until `look` sees something, at most for `patience`.
pub fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // The other side is another process and the server tells nobody: between two looks there is nothing to wait on.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The path of `program`, or `None` with a printed reason when it is not installed.
///
/// `cargo xtask test` installs the packages where it may, and sets `ROTA_REQUIRE_TOOLS=1` when it did; a missing
/// tool is then a failure, not a skip.
///
/// # Panics
/// When `ROTA_REQUIRE_TOOLS=1` and the program is missing.
#[allow(clippy::panic, clippy::print_stdout)]
pub fn tool(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.map(|dir| dir.join(program)).find(|candidate| candidate.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("ROTA_REQUIRE_TOOLS").is_none_or(|v| v != "1"),
            "{program} is required and not installed"
        );
        println!("SKIPPED: {program} is not installed");
    }
    found
}

/// A file of other people's daemons by its path on a machine that has them installed (`usr/bin/mender`), or `None` with a
/// printed reason.
///
/// They are services, and looked for where `cargo xtask test` unpacks their packages (`ROTA_PEERS`, or by itself
/// `target/peers`); after that on this machine.
///
/// # Panics
/// When `ROTA_REQUIRE_TOOLS=1` and the file is missing.
#[allow(clippy::panic, clippy::print_stdout)]
pub fn peer(path: &str) -> Option<PathBuf> {
    let unpacked = std::env::var_os("ROTA_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers"), PathBuf::from);
    let found = [unpacked.join(path), Path::new("/").join(path)].into_iter().find(|found| found.exists());
    if found.is_none() {
        assert!(
            std::env::var_os("ROTA_REQUIRE_TOOLS").is_none_or(|v| v != "1"),
            "{path} is required and not in {}",
            unpacked.display()
        );
        println!("SKIPPED: {path} is not in {}", unpacked.display());
    }
    found
}

/// The update modules that Debian's package of the Mender client brings.
pub const STOCK_MODULES: &str = "usr/share/mender/modules/v3";

/// A namespace for other people's programs; `None` with a printed reason where nothing can be mounted.
#[allow(clippy::print_stdout)]
pub fn namespace(folder: &Path, over: &[(&Path, &str)]) -> Option<Namespace> {
    Namespace::new(folder, over)
        .inspect_err(|error| {
            let places: Vec<&str> = over.iter().map(|(_, place)| *place).collect();
            println!("SKIPPED: nothing can be mounted over {}: {error}", places.join(", "));
        })
        .ok()
}

/// A loop device, detached on drop.
pub struct Loop(pub String);

#[allow(clippy::unwrap_used, clippy::print_stdout)]
impl Loop {
    /// `None`, with a word about it, where the system gives none.
    ///
    /// # Panics
    /// When `losetup` cannot be run.
    pub fn attach(file: &Path) -> Option<Loop> {
        let output = Command::new(tool("losetup")?).args(["--find", "--show"]).arg(file).output().unwrap();
        if !output.status.success() {
            println!("SKIPPED: no loop device: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        Some(Loop(String::from_utf8(output.stdout).unwrap().trim().to_string()))
    }
}

#[allow(clippy::unwrap_used)]
impl Drop for Loop {
    fn drop(&mut self) {
        Command::new(tool("losetup").unwrap()).arg("--detach").arg(&self.0).status().unwrap();
    }
}

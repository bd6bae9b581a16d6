//! Memory of a process, as the kernel tells them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use xtask::{Outcome, workspace};

/// What `/proc/ID/status` says, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// `VmRSS`.
    pub resident: f64,
    /// `RssAnon`: what the process allocated.
    pub anonymous: f64,
    /// `RssFile`: pages of the program itself and of files it maps.
    pub file: f64,
}

impl Memory {
    /// Of the process `id`, while it lives.
    pub fn of(id: u32) -> Outcome<Memory> {
        let status = workspace::read(Path::new(&format!("/proc/{id}/status")))?;
        Ok(Memory {
            resident: kib(&status, "VmRSS:"),
            anonymous: kib(&status, "RssAnon:"),
            file: kib(&status, "RssFile:"),
        })
    }
}

/// Peak of the resident memory of a process, and of its anonymous part, in KiB, until `ended`. The kernel keeps the
/// first; of the second, and of the last moments, only samples are seen.
pub fn watch(id: u32, ended: &AtomicBool) -> (f64, f64) {
    let path = format!("/proc/{id}/status");
    let (mut peak, mut anonymous) = (0.0_f64, 0.0_f64);
    while !ended.load(Ordering::Relaxed) {
        if let Ok(status) = fs::read_to_string(&path) {
            peak = peak.max(kib(&status, "VmHWM:"));
            anonymous = anonymous.max(kib(&status, "RssAnon:"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (peak, anonymous)
}

fn kib(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_about_this_process() {
        assert_eq!(kib("Name: x\nVmHWM:\t    1234 kB\n", "VmHWM:"), 1234.0);
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0.0);
    }
}

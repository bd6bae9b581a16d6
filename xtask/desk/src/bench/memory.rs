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

/// Peak of the resident memory of a process and all that it started, in KiB, until `ended`: the largest sum that was
/// seen. Pages that processes share count for each of them.
pub fn watch_tree(id: u32, ended: &AtomicBool) -> f64 {
    let mut peak = 0.0_f64;
    while !ended.load(Ordering::Relaxed) {
        peak = peak.max(tree(id).iter().filter_map(|id| Memory::of(*id).ok()).map(|of| of.resident).sum());
        std::thread::sleep(Duration::from_millis(30));
    }
    peak
}

/// `root` and all processes under it.
fn tree(root: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![root] };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(above) = tree.get(next).copied() {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(id, _)| *id));
        next += 1;
    }
    tree
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name is in parentheses, and may hold anything.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn kib(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_the_tree_of_its_parent() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert_eq!(parent(child.id()), Some(std::process::id()));
        assert!(tree(std::process::id()).contains(&child.id()));
        assert_eq!(tree(child.id()), [child.id()]);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn the_kernel_tells_about_this_process() {
        assert_eq!(kib("Name: x\nVmHWM:\t    1234 kB\n", "VmHWM:"), 1234.0);
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0.0);
    }
}

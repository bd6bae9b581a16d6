//! How much memory is free for this process: what the system says, or what is left of the control group's limit if that
//! is less.
//!
//! It is an estimate of the kernel's, good for refusing what cannot fit. It reserves nothing.

use std::fs;
use std::path::Path;

/// Bytes that can be taken now without swapping, as far as is known.
pub fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

/// The same on the machine whose root is `root`.
pub fn available_below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let system = read("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        // Kilobytes of 1024, as proc(5) has it.
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_room(root, line));
    limits.chain(system).min()
}

/// What is left in a control group and all groups around it. A line is `<number>:<controllers>:<path>`; without
/// controllers it is of version 2.
fn group_room(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let (base, limit, used, cache) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        let (limit, used) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
        ("sys/fs/cgroup/memory", limit, used, "total_inactive_file ")
    } else {
        return None;
    };
    let base = root.join(base);
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let mut least = None;
    // Inside of a container the path may be one of the outside: then the root of what is mounted counts.
    for group in Path::new(path).ancestors() {
        let folder = base.join(group);
        // "max", and nothing at all in the root group, is no limit.
        let Some(limit) = number(&folder.join(limit)) else { continue };
        let Some(used) = number(&folder.join(used)) else { continue };
        let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        // Cached files give way when somebody needs the memory.
        let cached = statistics.lines().find_map(|line| line.strip_prefix(cache)?.parse::<u64>().ok());
        let room = limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0)));
        least = Some(least.map_or(room, |least: u64| least.min(room)));
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:  2000 kB\nMemFree: 10 kB\nMemAvailable:   1000 kB\n");

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        assert_eq!(available_below(root(files).path()), expected);
    }

    #[test]
    fn the_system_says_what_is_available() {
        check(&[MEMINFO], Some(1_024_000));
        check(&[("proc/meminfo", "MemTotal: 2000 kB\n")], None);
        check(&[("proc/meminfo", "MemAvailable: many kB\n")], None);
        check(&[], None);
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_limit_of_the_group_or_of_one_around_it_counts_when_it_leaves_less() {
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let limit = |limit: &'static str| ("sys/fs/cgroup/a/memory.max", limit);
        let used = ("sys/fs/cgroup/a/memory.current", "500000\n");
        check(&[MEMINFO, group, limit("600000\n"), used], Some(100_000));
        check(&[MEMINFO, group, limit("max\n"), used], Some(1_024_000));
        check(&[MEMINFO, group, limit("100000000\n"), used], Some(1_024_000));
        check(&[MEMINFO, group, limit("400000\n"), used], Some(0));
        let cache = ("sys/fs/cgroup/a/memory.stat", "anon 1\nfile 300000\ninactive_file 200000\n");
        check(&[MEMINFO, group, limit("600000\n"), used, cache], Some(300_000));
        let inner = [("sys/fs/cgroup/a/b/memory.max", "5000"), ("sys/fs/cgroup/a/b/memory.current", "1000")];
        check(&[&[MEMINFO, group, limit("600000\n"), used], &inner[..]].concat(), Some(4000));
    }

    #[test]
    fn groups_of_the_first_version_are_known_too() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9000\n"),
            ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "8000\n"),
            ("sys/fs/cgroup/memory/x/memory.stat", "inactive_file 7\ntotal_inactive_file 500\n"),
        ];
        check(&files, Some(1500));
    }
}

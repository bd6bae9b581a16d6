//! What the system says about this process, under the names that every program has for it.

use std::fs;

use super::Text;

/// What was known when the server began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    started_seconds: u64,
}

impl Process {
    /// This one, from now on.
    pub(crate) fn new(now_seconds: u64) -> Process {
        Process { started_seconds: now_seconds }
    }

    /// Writes what can be found out. What the system does not say is left out.
    pub(crate) fn write(self, text: &mut Text) {
        text.common_family("process_start_time_seconds", "gauge", "When the server was started.");
        text.number(&[], self.started_seconds);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, key, help) in [
            ("process_resident_memory_bytes", "VmRSS:", "Memory of the process."),
            ("process_resident_memory_max_bytes", "VmHWM:", "The most that it was."),
            (
                "process_anonymous_memory_bytes",
                "RssAnon:",
                "Memory that is not a file's: what was allocated.",
            ),
            ("process_virtual_memory_bytes", "VmSize:", "Addresses of the process."),
        ] {
            if let Some(kib) = kib_of(&status, key) {
                text.common_family(name, "gauge", help);
                text.number(&[], kib.saturating_mul(1024));
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            text.common_family("process_open_fds", "gauge", "File descriptors that are open.");
            text.number(&[], files.count() as u64);
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            text.common_family("process_max_fds", "gauge", "File descriptors that may be open.");
            text.number(&[], limit);
        }
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        text.common_family("process_cpu_seconds_total", "counter", "Time of the processors.");
        text.fraction(&[], time.tv_sec as f64 + time.tv_nsec as f64 / 1e9);
    }
}

fn kib_of(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_read_as_the_system_writes_it() {
        let status = "Name:\tx\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\nRssAnon:\tmany\n";
        assert_eq!(kib_of(status, "VmRSS:"), Some(12));
        assert_eq!(kib_of(status, "RssAnon:"), None);
        assert_eq!(kib_of(status, "VmSize:"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let mut text = Text::default();
        Process::new(7).write(&mut text);
        let text = text.finish();
        for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total "] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert!(value.parse::<f64>().unwrap() > 0.0, "{name}{value}");
        }
        assert!(text.contains("process_start_time_seconds 7\n"), "{text}");
    }
}

//! The printed story: when, who, what.

use std::fmt;
use std::time::Instant;

/// Who does something.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    /// The developer's machine.
    Host,
    /// The device's hardware and kernel.
    Machine,
    /// U-Boot.
    Bootloader,
    /// `rust-ota`.
    Client,
    /// Nobody: what the boot environment holds now.
    Environment,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Who::Host => "host",
            Who::Machine => "machine",
            Who::Bootloader => "bootloader",
            Who::Client => "client",
            Who::Environment => "(variables)",
        })
    }
}

/// A clock that starts with the story.
pub struct Timeline {
    start: Instant,
}

impl Timeline {
    /// Starts it.
    pub fn start() -> Timeline {
        Timeline { start: Instant::now() }
    }

    /// A new chapter.
    pub fn heading(&self, text: &str) {
        println!("\n{text}");
    }

    /// One event.
    pub fn say(&self, who: Who, text: &str) {
        println!("{:8.2} s  {who:<12}{text}", self.start.elapsed().as_secs_f64());
    }
}

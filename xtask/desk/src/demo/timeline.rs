//! The printed story: when, who, what.

use std::fmt;
use std::time::Instant;

/// Who does something.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    /// The developer's machine.
    Host,
    /// `rust-ota-server`.
    Server,
    /// What is between the server and the device.
    Network,
    /// The device's hardware and kernel.
    Machine,
    /// U-Boot.
    Bootloader,
    /// `rust-ota daemon`, in its own words.
    Client,
    /// `rust-ota status`.
    Status,
    /// Nobody: what the boot environment holds now.
    Environment,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Who::Host => "host",
            Who::Server => "server",
            Who::Network => "network",
            Who::Machine => "machine",
            Who::Bootloader => "bootloader",
            Who::Client => "client",
            Who::Status => "(status)",
            Who::Environment => "(variables)",
        })
    }
}

/// A clock that starts with the story.
pub struct Timeline {
    start: Instant,
    chapters: u32,
}

impl Timeline {
    /// Starts it.
    pub fn start() -> Timeline {
        Timeline { start: Instant::now(), chapters: 0 }
    }

    /// A new chapter.
    pub fn heading(&mut self, text: &str) {
        self.chapters += 1;
        println!("\n{}. {text}", self.chapters);
    }

    /// One event.
    pub fn say(&self, who: Who, text: &str) {
        println!("{:8.2} s  {who:<12}{text}", self.start.elapsed().as_secs_f64());
    }
}

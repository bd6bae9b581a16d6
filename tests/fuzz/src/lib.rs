//! What the fuzz targets call: one function for each place where bytes from outside become values. Each takes anything, and
//! fails only when a promise is broken: nothing panics, what was read and written again is the same, and nothing is believed
//! before it was checked.

// A broken promise is a failed assertion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod answers;
mod artifacts;
mod copies;
mod deltas;
mod environments;
mod texts;
mod vcdiff;

/// A target: its name, which is that of its corpus, and what it does with the bytes.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Takes anything.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "artifact", run: artifacts::artifact },
    Target { name: "header", run: artifacts::header },
    Target { name: "payload", run: artifacts::payload },
    Target { name: "frame_table", run: artifacts::frame_table },
    Target { name: "tree", run: artifacts::tree },
    Target { name: "delta", run: deltas::delta },
    Target { name: "uboot_env", run: environments::uboot_env },
    Target { name: "fw_env_config", run: environments::fw_env_config },
    Target { name: "grub_env", run: environments::grub_env },
    Target { name: "record", run: texts::record },
    Target { name: "configuration", run: texts::configuration },
    Target { name: "two_copies", run: copies::two_copies },
    Target { name: "server_answers", run: answers::server_answers },
    Target { name: "url", run: texts::url },
    Target { name: "vcdiff", run: vcdiff::vcdiff },
];

/// Runs one target; what the programs in `fuzz_targets` do.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(bytes);
}

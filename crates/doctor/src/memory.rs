//! Free memory against what the decoders of artifacts need.

use client_core::artifact::Limits;

use crate::finding::{self as check, Finding};
use crate::world::{World, size};

/// What the client needs besides the window of a decoder (docs/performance.md has what was measured).
const CLIENT_BYTES: u64 = 6 << 20;
/// The window of the zstd artifacts that our tool writes, and `mender-artifact` from 4.1 on.
const USUAL_WINDOW: u64 = 8 << 20;
/// What the xz decoder needs besides its dictionary.
const XZ_DECODER_BYTES: u64 = 2 << 20;

/// Free memory.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) available_bytes: Option<u64>,
}

pub(crate) fn gather(world: &World) -> Facts {
    Facts { available_bytes: linux::memory::available_below(&world.root) }
}

pub(crate) fn judge(facts: &Facts) -> Option<Finding> {
    let available = facts.available_bytes?;
    let limits = Limits::default();
    let kinds = [
        (USUAL_WINDOW, "zstd with a window of 8 MiB"),
        (limits.zstd_window_bytes, "zstd with its largest window"),
        (limits.xz_dictionary_bytes.saturating_add(XZ_DECODER_BYTES), "xz with its largest dictionary"),
    ];
    let need = |window: u64| window.saturating_add(CLIENT_BYTES);
    let too_much: Vec<String> = kinds
        .iter()
        .filter(|(window, _)| need(*window) > available)
        .map(|(window, name)| format!("{name} ({})", size(need(*window))))
        .collect();
    let free = size(available);
    Some(if too_much.is_empty() {
        check::MEMORY.found(format_args!("{free} of memory are free, which is enough for every artifact"))
    } else if too_much.len() < kinds.len() {
        check::MEMORY_SOME
            .found(format_args!("{free} of memory are free, which is too little for {}", too_much.join(", ")))
    } else {
        check::MEMORY_LITTLE
            .found(format_args!("{free} of memory are free, which is too little for {}", too_much.join(", ")))
    })
}

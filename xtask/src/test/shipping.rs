//! What only a release needs to know of what ships: the other processors, and whether another build gives the same.

use super::report::Report;
use super::{Extent, size};
use crate::dist;

/// Sizes for all processors, sources and programs built twice, in the long run.
pub fn steps(extent: Extent, report: &mut Report) {
    match extent {
        Extent::Quick | Extent::Change => {
            report.leave_out(
                "sizes for other processors and of the C library, builds compared: only with --all",
            );
        }
        Extent::All => {
            report.step("all sizes", || size::run(&["--all-targets".to_owned()]));
            report.step("size of the C library", size::check_library);
            report.step("built twice", dist::check);
        }
    }
}

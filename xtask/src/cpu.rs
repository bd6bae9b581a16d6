//! Processor time, as the kernel tells it.

use std::path::Path;

use crate::{Outcome, workspace};

/// Processor time in seconds that the process `id` and its threads, also those that ended, have used.
pub fn seconds(id: u32) -> Outcome<f64> {
    ticks(&workspace::read(Path::new(&format!("/proc/{id}/stat")))?, 11)
}

/// Processor time in seconds of all children that ended, and of theirs.
pub fn children_seconds() -> Outcome<f64> {
    ticks(&workspace::read(Path::new("/proc/self/stat"))?, 13)
}

/// The sum of two fields of a `stat` file, in hundredths of a second on every Linux. `after_name` counts from the field
/// behind the name of the program.
fn ticks(stat: &str, after_name: usize) -> Outcome<f64> {
    // The name is in parentheses, and may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(after_name).take(2).filter_map(|f| f.parse().ok()).collect();
    if ticks.len() == 2 { Ok((ticks[0] + ticks[1]) / 100.0) } else { Err("a stat file is too short".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_fields_are_found_behind_any_name() {
        assert_eq!(ticks("1 (a) b) S 0 0 0 0 0 0 0 0 0 0 100 50 0 0", 11).unwrap(), 1.5);
        assert!(children_seconds().is_ok() && seconds(std::process::id()).is_ok());
    }
}

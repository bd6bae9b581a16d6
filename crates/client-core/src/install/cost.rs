//! What an update costs: what is known of it before its payload is bought, and what came of that.

use std::fmt;

use serde::Serialize;

/// What an update will cost. Each figure is there where it can be known before the payload is transferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Bytes of the payload that are to be transferred: not those that an earlier download left here, and not those that can
    /// be made of what is here.
    pub transfer_bytes: Option<u64>,
    /// Memory that is needed for it, besides what every installation takes.
    pub memory_bytes: Option<u64>,
    /// Bytes in which the new image differs from the running one at the same place.
    pub changed_bytes: Option<u64>,
    /// Bytes of the new image.
    pub image_bytes: Option<u64>,
}

/// What an update did cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Bytes of the artifact that were transferred; those that came twice are counted twice. `None` where reading it costs
    /// nothing.
    pub bought_bytes: Option<u64>,
    /// Bytes that were taken from the device instead of being transferred.
    pub reused_bytes: u64,
    /// Bytes of the slot that were written; `None` where nothing is written to a slot.
    pub written_bytes: Option<u64>,
    /// Bytes of the slot that were there already.
    pub skipped_bytes: Option<u64>,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(
            f,
            [
                ("to transfer", self.transfer_bytes),
                ("of memory", self.memory_bytes),
                ("changed", self.changed_bytes),
                ("of image", self.image_bytes),
            ],
        )
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(
            f,
            [
                ("bought", self.bought_bytes),
                ("reused", Some(self.reused_bytes)),
                ("written", self.written_bytes),
                ("skipped", self.skipped_bytes),
            ],
        )
    }
}

/// What is known, in one line.
fn list(f: &mut fmt::Formatter<'_>, figures: [(&str, Option<u64>); 4]) -> fmt::Result {
    f.write_str("bytes:")?;
    let known = figures.into_iter().filter_map(|(word, figure)| Some((word, figure?)));
    for (n, (word, figure)) in known.enumerate() {
        write!(f, "{} {figure} {word}", if n == 0 { "" } else { "," })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_said() {
        let cost = Cost { transfer_bytes: Some(460_123), memory_bytes: None, ..Cost::default() };
        assert_eq!(cost.to_string(), "bytes: 460123 to transfer");
        let all = Cost { memory_bytes: Some(8), changed_bytes: Some(9), image_bytes: Some(10), ..cost };
        assert_eq!(all.to_string(), "bytes: 460123 to transfer, 8 of memory, 9 changed, 10 of image");
        let account =
            Account { bought_bytes: None, reused_bytes: 5, written_bytes: Some(1), skipped_bytes: Some(0) };
        assert_eq!(account.to_string(), "bytes: 5 reused, 1 written, 0 skipped");
    }
}

//! What people keep on the server: a JSON object for all, and one of each person.

use serde_json::{Map, Value};

use crate::domain::{etag, id};
use crate::work::{Kind, NotLoaded, Work};

/// Bytes of one of them: each process has all of them in memory.
pub(crate) const SETTINGS_BYTES: usize = 64 * 1024;
/// The id of those for all.
pub(crate) const GLOBAL: &str = "global";

/// Settings.
pub(crate) type Settings = Map<String, Value>;

/// Why nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettingsError {
    /// To be run again.
    NotLoaded,
    /// Somebody has changed them since they were read.
    Changed,
}

impl From<NotLoaded> for SettingsError {
    fn from(_: NotLoaded) -> SettingsError {
        SettingsError::NotLoaded
    }
}

/// Another text for other settings.
pub(crate) fn tag(settings: &Settings) -> String {
    let text = serde_json::to_vec(settings).unwrap_or_default();
    format!("\"{}\"", id::sha256_hex(&text).get(..32).unwrap_or_default())
}

/// Puts settings in place of those that are there, which have to have one of the tags when some are named.
pub(crate) fn replace(
    work: &mut Work,
    whose: &str,
    settings: &Settings,
    if_match: Option<&str>,
) -> Result<(), SettingsError> {
    let before = work.document::<Settings>(Kind::Settings, whose)?.unwrap_or_default();
    let is_meant = |tags: &str| {
        let tag = tag(&before);
        etag::names(tags, |name| name == tag.trim_matches('"'))
    };
    if !if_match.is_none_or(is_meant) {
        return Err(SettingsError::Changed);
    }
    work.put_document(Kind::Settings, whose, Some(settings))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;
    use crate::work::Loaded;

    #[test]
    fn who_has_not_seen_the_last_change_is_refused() {
        let mut work = Work::new(Timestamp(1));
        work.load(Loaded::Document(Kind::Settings, GLOBAL.to_owned(), None));
        let settings = |number: i32| {
            let mut settings = Settings::new();
            settings.insert("n".to_owned(), number.into());
            settings
        };
        let first = tag(&Settings::new());
        assert_eq!(replace(&mut work, GLOBAL, &settings(1), Some(&first)), Ok(()));
        assert_eq!(replace(&mut work, GLOBAL, &settings(2), Some(&first)), Err(SettingsError::Changed));
        let second = tag(&settings(1));
        assert_eq!(replace(&mut work, GLOBAL, &settings(2), Some(&format!("\"x\", {second}"))), Ok(()));
        let weak = format!("W/{}", tag(&settings(2)));
        assert_eq!(replace(&mut work, GLOBAL, &settings(2), Some(&weak)), Ok(()), "a proxy compresses");
        assert_eq!(replace(&mut work, GLOBAL, &settings(3), Some("*")), Ok(()));
        assert_eq!(replace(&mut work, GLOBAL, &settings(4), None), Ok(()));
    }
}

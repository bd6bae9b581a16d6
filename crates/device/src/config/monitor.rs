//! `RustOta.Monitor`: what is watched. A check that cannot be understood is an error, and so is a key that another type of
//! check has: it would mean nothing.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use client_core::monitor::{
    Around, CHECKS_MAX, Check, LINES_MAX, LogSource, MOST_MAX, NAME_CHARS, Pattern, Rules, TEXT_CHARS,
    Watched,
};
use serde_json::Value;

use super::ConfigError;
use super::keys::{CHECKS, Keys, MONITOR};

const PREFIX: &str = "RustOta.Monitor.Checks.";
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// Keys that every check may have.
const OF_ALL: &[&str] = &["Name", "Type"];

/// What `Monitor` of `keys` says.
pub(super) fn rules(keys: &Keys<'_>, warnings: &mut Vec<String>) -> Result<Option<Rules>, ConfigError> {
    if !cfg!(any(feature = "monitor", test)) {
        if keys.find("Monitor").is_some() {
            warnings.push(
                "nothing is watched: RustOta.Monitor needs a build with the feature monitor".to_owned(),
            );
        }
        return Ok(None);
    }
    let Some(own) = keys.own_object("Monitor", "RustOta.Monitor.", MONITOR)? else { return Ok(None) };
    let wrong = || own.wrong("Checks", "a list of at most 32 objects");
    let list = own.find("Checks").and_then(Value::as_array).filter(|list| list.len() <= CHECKS_MAX);
    let mut checks = Vec::new();
    let mut names = BTreeSet::new();
    for item in list.ok_or_else(wrong)? {
        let object = item.as_object().ok_or_else(wrong)?;
        let check = check(&Keys::of_our_own(own.file, PREFIX, object, CHECKS)?)?;
        if !names.insert(check.name.clone()) {
            return Err(ConfigError::Duplicate {
                file: own.file.into(),
                key: format!("{PREFIX}Name {}", check.name),
            });
        }
        checks.push(check);
    }
    Ok(Some(Rules { interval: own.interval("IntervalSeconds")?.unwrap_or(INTERVAL), checks }))
}

fn check(keys: &Keys<'_>) -> Result<Check, ConfigError> {
    let name = printable(keys, "Name", NAME_CHARS)?;
    let name = name.ok_or_else(|| keys.wrong("Name", "printable text of 1 to 64 characters"))?;
    let expected = "\"service\", \"log\", \"disk\", \"certificate\", \"reboots\" or \"updates\"";
    let kind = keys.word("Type", expected, Kind::named)?.ok_or_else(|| keys.wrong("Type", expected))?;
    keys.refuse_others(&[OF_ALL, kind.keys()].concat())?;
    let (watched, looks) = match kind {
        Kind::Service => (Watched::Service { unit: needed(keys, "Unit")? }, 2),
        Kind::Log => (log(keys)?, 1),
        Kind::Disk => {
            let used_percent = number(keys, "UsedPercent", 1..=100, "a whole number from 1 to 100", 90)?;
            (Watched::Disk { path: needed(keys, "Path")?, used_percent }, 1)
        }
        Kind::Certificate => {
            let days_left = number(keys, "DaysLeft", 0..=36_500, "a whole number from 0 to 36500", 14)?;
            (Watched::Certificate { file: needed(keys, "File")?, days_left }, 1)
        }
        Kind::Reboots => {
            let most = number(keys, "Most", 1..=MOST_MAX, "a whole number from 1 to 100", 5)?;
            let within = keys.interval("WithinSeconds")?.unwrap_or(Duration::from_secs(3600));
            (Watched::Reboots { most, within }, 1)
        }
        Kind::Updates => {
            let failed = number(keys, "Failed", 1..=1000, "a whole number from 1 to 1000", 1)?;
            (Watched::Updates { failed }, 1)
        }
    };
    let looks = match kind {
        Kind::Service | Kind::Disk | Kind::Certificate => {
            number(keys, "Looks", 1..=100, "a whole number from 1 to 100", looks)?
        }
        Kind::Log | Kind::Reboots | Kind::Updates => looks,
    };
    Ok(Check { name, looks, watched })
}

fn log(keys: &Keys<'_>) -> Result<Watched, ConfigError> {
    let source = match (text(keys, "File")?, text(keys, "Unit")?) {
        (Some(file), None) => LogSource::File(file),
        (None, Some(unit)) => LogSource::Unit(unit),
        (Some(_), Some(_)) | (None, None) => {
            return Err(keys.wrong("File", "there, or Unit, and not both"));
        }
    };
    let pattern =
        keys.word("Pattern", PATTERN, |text| Some(text).filter(|text| fits(text)).and_then(Pattern::parse));
    let pattern = pattern?.ok_or_else(|| keys.wrong("Pattern", PATTERN))?;
    let lines = |key| number(keys, key, 0..=LINES_MAX, "a whole number from 0 to 5", 3);
    let around = Around { before: lines("LinesBefore")? as usize, after: lines("LinesAfter")? as usize };
    let ok_after = keys.interval("OkAfterSeconds")?.unwrap_or(Duration::from_secs(3600));
    Ok(Watched::Log { source, pattern, around, ok_after })
}

const PATTERN: &str = "text of at most 200 characters, and not only *";

fn fits(text: &str) -> bool {
    text.chars().count() <= TEXT_CHARS
}

/// A text that is sent to the server, and shown.
fn printable(keys: &Keys<'_>, key: &str, chars: usize) -> Result<Option<String>, ConfigError> {
    let is_good = |text: &String| text.chars().count() <= chars && !text.chars().any(char::is_control);
    Ok(keys.string(key)?.filter(|text| !text.is_empty() && is_good(text)))
}

fn text(keys: &Keys<'_>, key: &str) -> Result<Option<String>, ConfigError> {
    match keys.string_or_none(key)?.flatten() {
        None => Ok(None),
        Some(_) => needed(keys, key).map(Some),
    }
}

fn needed(keys: &Keys<'_>, key: &str) -> Result<String, ConfigError> {
    let found = printable(keys, key, TEXT_CHARS)?;
    found.ok_or_else(|| keys.wrong(key, "printable text of 1 to 200 characters"))
}

fn number(
    keys: &Keys<'_>,
    key: &str,
    range: RangeInclusive<u32>,
    expected: &'static str,
    usual: u32,
) -> Result<u32, ConfigError> {
    Ok(keys.count(key, range, expected)?.unwrap_or(usual))
}

/// The types of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    Log,
    Disk,
    Certificate,
    Reboots,
    Updates,
}

impl Kind {
    fn named(name: &str) -> Option<Kind> {
        match name {
            "service" => Some(Kind::Service),
            "log" => Some(Kind::Log),
            "disk" => Some(Kind::Disk),
            "certificate" => Some(Kind::Certificate),
            "reboots" => Some(Kind::Reboots),
            "updates" => Some(Kind::Updates),
            _ => None,
        }
    }

    /// The keys that it may have besides those of all.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Service => &["Unit", "Looks"],
            Kind::Log => &["File", "Unit", "Pattern", "LinesBefore", "LinesAfter", "OkAfterSeconds"],
            Kind::Disk => &["Path", "UsedPercent", "Looks"],
            Kind::Certificate => &["File", "DaysLeft", "Looks"],
            Kind::Reboots => &["Most", "WithinSeconds"],
            Kind::Updates => &["Failed"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Source};
    use super::*;

    fn parse(monitor: &str) -> Result<Rules, String> {
        let content = format!(r#"{{"RustOta":{{"Monitor":{monitor}}}}}"#);
        let config = Config::parse(&[Source { name: "test.conf", content: content.as_bytes() }]);
        config.map(|config| config.monitor.unwrap()).map_err(|error| error.to_string())
    }

    fn one(check: &str) -> Result<Check, String> {
        let rules = parse(&format!(r#"{{"Checks":[{{"Name":"a",{check}}}]}}"#))?;
        Ok(rules.checks.into_iter().next().unwrap())
    }

    #[test]
    fn without_the_key_nothing_is_watched() {
        let config = Config::parse(&[Source { name: "test.conf", content: b"{}" }]).unwrap();
        assert_eq!(config.monitor, None);
        let none = parse(r#"{"Checks":[]}"#).unwrap();
        assert_eq!(none, Rules { interval: Duration::from_secs(60), checks: vec![] });
        assert_eq!(parse(r#"{"Checks":[],"IntervalSeconds":7}"#).unwrap().interval, Duration::from_secs(7));
    }

    #[test]
    fn every_type_has_its_defaults() {
        let check = |text: &str, looks, watched| {
            assert_eq!(one(text), Ok(Check { name: "a".to_owned(), looks, watched }), "{text}");
        };
        let hour = Duration::from_secs(3600);
        let (unit, path) = (|| "u".to_owned(), || "/p".to_owned());
        check(r#""Type":"service","Unit":"u""#, 2, Watched::Service { unit: unit() });
        check(r#""Type":"service","Unit":"u","Looks":5"#, 5, Watched::Service { unit: unit() });
        check(r#""Type":"disk","Path":"/p""#, 1, Watched::Disk { path: path(), used_percent: 90 });
        let certificate = Watched::Certificate { file: path(), days_left: 14 };
        check(r#""type":"certificate","file":"/p""#, 1, certificate);
        check(r#""Type":"reboots""#, 1, Watched::Reboots { most: 5, within: hour });
        check(r#""Type":"updates","Failed":3"#, 1, Watched::Updates { failed: 3 });
        let log = |source| Watched::Log {
            source,
            pattern: Pattern::parse("x*y").unwrap(),
            around: Around { before: 3, after: 0 },
            ok_after: hour,
        };
        let lines = r#""Pattern":"x*y","LinesAfter":0"#;
        check(&format!(r#""Type":"log","File":"/p",{lines}"#), 1, log(LogSource::File(path())));
        check(&format!(r#""Type":"log","Unit":"u",{lines}"#), 1, log(LogSource::Unit(unit())));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_that_names_the_key() {
        let check = |text: &str, key: &str| {
            let error = one(text).unwrap_err();
            assert!(error.starts_with("test.conf: ") && error.contains(key), "{text}: {error}");
        };
        check(r#""Type":"cpu""#, "Checks.Type must be");
        check(r#""Unit":"u""#, "Checks.Type must be");
        check(r#""Type":"service""#, "Checks.Unit must be");
        check(r#""Type":"service","Unit":"a\u001b""#, "Checks.Unit must be");
        check(r#""Type":"service","Unit":"u","Looks":0"#, "Checks.Looks must be");
        check(r#""Type":"service","Unit":"u","Path":"/""#, "there is no key RustOta.Monitor.Checks.Path");
        check(r#""Type":"updates","Looks":2"#, "there is no key RustOta.Monitor.Checks.Looks");
        check(r#""Type":"disk","Path":"/","UsedPercent":101"#, "Checks.UsedPercent must be");
        check(r#""Type":"disk","Path":"/","UsdPercent":1"#, "is RustOta.Monitor.Checks.UsedPercent meant?");
        check(r#""Type":"log","File":"/l""#, "Checks.Pattern must be");
        check(r#""Type":"log","File":"/l","Pattern":"**""#, "Checks.Pattern must be");
        check(r#""Type":"log","Pattern":"x""#, "Checks.File must be");
        check(r#""Type":"log","File":"/l","Unit":"u","Pattern":"x""#, "Checks.File must be");
        check(r#""Type":"log","File":"/l","Pattern":"x","LinesBefore":6"#, "Checks.LinesBefore must be");
        check(r#""Type":"reboots","Most":101"#, "Checks.Most must be");
        for (text, key) in [
            ("{}", "Monitor.Checks must be"),
            (r#"{"Checks":{}}"#, "Monitor.Checks must be"),
            (r#"{"Checks":["x"]}"#, "Monitor.Checks must be"),
            (r#"{"Checks":[{"Type":"updates"}]}"#, "Checks.Name must be"),
            (r#"{"Checks":[],"IntervalSecond":5}"#, "is RustOta.Monitor.IntervalSeconds meant?"),
            (
                r#"{"Checks":[{"Name":"a","Type":"updates"},{"Name":"a","Type":"reboots"}]}"#,
                "Name a is there twice",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
        let many = vec![r#"{"Name":"a","Type":"updates"}"#; CHECKS_MAX + 1].join(",");
        assert!(parse(&format!(r#"{{"Checks":[{many}]}}"#)).unwrap_err().contains("at most 32"));
    }
}

//! What the monitors of a device say: alerts, which are kept as a stream, and the last one of each monitor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::admission::{self, SpeakError};
use super::token::Claims;
use super::{id, mail, rollout};
use crate::model::time::Timestamp;
use crate::work::{Event, Key, Kind, NotLoaded, Stream, Work, Write};

/// Monitors of one device: the one that has said nothing for longest goes.
pub(crate) const MONITORS: usize = 50;
/// Alerts in one report.
pub(crate) const ALERTS: usize = 100;
/// Alerts of one device that are kept of a day. What comes then still says how its monitor is.
pub(crate) const ALERTS_OF_A_DAY: u64 = 1000;
/// One alert, in JSON.
pub(crate) const ALERT_BYTES: usize = 16 * 1024;
/// A name and any other short text of an alert or a monitor.
pub(crate) const TEXT_CHARS: usize = 256;
/// The attributes in the scope `monitor` that say whether one of its monitors is not well, and how many are not.
const ALERTS_ATTRIBUTE: &str = "alerts";
const COUNT_ATTRIBUTE: &str = "alert_count";
const DAY_MILLISECONDS: u64 = 24 * 3600 * 1000;

/// How something is; what is worse comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Level {
    /// Well again.
    #[serde(rename = "OK")]
    Ok,
    /// Not well.
    #[serde(rename = "CRITICAL")]
    Critical,
}

/// What an alert is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Subject {
    /// The service, the log, or whatever it is.
    pub(crate) name: String,
    /// What kind of thing that is.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// How it is, in the words of the device.
    #[serde(default)]
    pub(crate) status: String,
    /// Lines of a log and the like.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) details: Map<String, Value>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Alert {
    /// Of which monitor.
    pub(crate) name: String,
    /// How it is.
    pub(crate) level: Level,
    /// What it is about.
    pub(crate) subject: Subject,
    /// When it happened, as the clock of the device says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp: Option<String>,
}

impl Alert {
    fn is_critical(&self) -> bool {
        match self.level {
            Level::Critical => true,
            Level::Ok => false,
        }
    }

    fn is_about(&self, other: &Alert) -> bool {
        (&self.name, &self.subject.name, &self.subject.kind)
            == (&other.name, &other.subject.name, &other.subject.kind)
    }
}

/// An alert that was raised, as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RaisedAlert")]
pub(crate) struct Raised {
    /// UUID.
    #[serde(default)]
    pub(crate) id: String,
    /// Whose it is.
    #[serde(default)]
    pub(crate) device_id: String,
    /// What it says.
    #[serde(flatten)]
    pub(crate) alert: Alert,
}

/// A monitor that a device has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Monitor {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is enabled.
    #[serde(default)]
    pub(crate) status: String,
    /// `log`, `service` or `dbus`.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
}

/// What is known of the monitors of one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Monitored {
    /// Those that it has.
    #[serde(default)]
    pub(crate) config: Vec<Monitor>,
    /// The last alert of each monitor, the newest first.
    #[serde(default)]
    pub(crate) latest: Vec<Raised>,
    /// When the day began in which alerts are counted.
    #[serde(default)]
    day: Timestamp,
    /// Alerts that were kept since then.
    #[serde(default)]
    kept: u64,
}

/// Why nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MonitorError {
    /// Something has to be loaded first.
    NotLoaded,
    /// The device may not speak any more.
    Unauthorized,
}

impl From<NotLoaded> for MonitorError {
    fn from(_: NotLoaded) -> MonitorError {
        MonitorError::NotLoaded
    }
}

impl From<SpeakError> for MonitorError {
    fn from(error: SpeakError) -> MonitorError {
        match error {
            SpeakError::NotLoaded => MonitorError::NotLoaded,
            SpeakError::Unauthorized => MonitorError::Unauthorized,
        }
    }
}

/// What the rules of a device's monitors read.
pub(crate) fn keys(device: &str) -> Vec<Key> {
    vec![Key::Device(device.to_owned()), Key::Document(Kind::Monitor, device.to_owned())]
}

/// One more has room: of those that are well the oldest goes, and only when none is, the oldest of all.
fn make_room(latest: &mut Vec<Raised>) {
    while latest.len() >= MONITORS {
        let well = latest.iter().rposition(|raised| raised.alert.level == Level::Ok);
        latest.remove(well.unwrap_or(latest.len() - 1));
    }
}

/// Takes the alerts of a device, in the order in which they happened. How many of them are kept.
///
/// # Errors
/// It may not speak any more.
pub(crate) fn alert(work: &mut Work, claims: &Claims, alerts: &[Alert]) -> Result<usize, MonitorError> {
    let (mut device, now) = (admission::speaking(work, claims)?, work.now());
    let mut known: Monitored = work.document(Kind::Monitor, &device.id)?.unwrap_or_default();
    // A clock that was ahead, and was set, has begun a day that does not come.
    if now.0.abs_diff(known.day.0) >= DAY_MILLISECONDS {
        (known.day, known.kept) = (now, 0);
    }
    let mut kept = 0;
    for alert in alerts {
        let mut alert = alert.clone();
        alert.timestamp.get_or_insert_with(|| now.to_string());
        let before = known.latest.iter().find(|other| alert.is_about(&other.alert));
        // What was never said to be wrong is well.
        let is_other = before.map_or(Level::Ok, |before| before.alert.level) != alert.level;
        known.latest.retain(|other| !alert.is_about(&other.alert));
        make_room(&mut known.latest);
        // Without chance, it is named by what it says.
        let name = || format!("{} {} {}", device.id, known.kept, json!(alert));
        let id = id::uuid().unwrap_or_else(|_| id::uuid_of_name(&name()));
        let raised = Raised { id, device_id: device.id.clone(), alert };
        if known.kept < ALERTS_OF_A_DAY {
            known.kept += 1;
            kept += 1;
            if is_other {
                mail::alerted(work, &device, &raised)?;
            }
            let data = json!(raised);
            work.write(Write::Event(Event {
                stream: Stream::Alert,
                key: device.id.clone(),
                time: now,
                data,
            }));
        }
        known.latest.insert(0, raised);
    }
    let count = known.latest.iter().filter(|raised| raised.alert.is_critical()).count();
    if alerts.iter().any(Alert::is_critical) {
        rollout::alerted(work, &device.id)?;
    }
    work.put_document(Kind::Monitor, &device.id, Some(&known))?;
    let before = device.monitor.clone();
    device.monitor.insert(ALERTS_ATTRIBUTE.to_owned(), json!(count > 0));
    device.monitor.insert(COUNT_ATTRIBUTE.to_owned(), json!(count));
    if device.monitor != before {
        work.put_device(device)?;
    }
    Ok(kept)
}

/// Takes which monitors a device has.
///
/// # Errors
/// It may not speak any more.
pub(crate) fn configure(work: &mut Work, claims: &Claims, config: &[Monitor]) -> Result<(), MonitorError> {
    let device = admission::speaking(work, claims)?;
    let mut known: Monitored = work.document(Kind::Monitor, &device.id)?.unwrap_or_default();
    known.config = config.to_vec();
    Ok(work.put_document(Kind::Monitor, &device.id, Some(&known))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::testing;

    fn alert_of(name: &str, level: Level) -> Alert {
        let subject = Subject {
            name: name.to_owned(),
            kind: "service".to_owned(),
            status: "running".to_owned(),
            details: Map::new(),
        };
        Alert { name: "up".to_owned(), level, subject, timestamp: None }
    }

    fn fleet() -> (Work, Claims) {
        crate::domain::rollout::tests_fleet()
    }

    fn run(work: &mut Work, claims: &Claims, alerts: &[Alert]) -> usize {
        let asks = |key: &Key| {
            matches!(key, Key::Document(Kind::Monitor | Kind::Watched | Kind::Settings | Kind::Progress, _))
        };
        testing::run(work, asks, |work| alert(work, claims, alerts)).unwrap()
    }

    fn is_critical(work: &mut Work, claims: &Claims) -> Option<Value> {
        let monitor = work.device(&claims.sub).unwrap().unwrap().monitor;
        let count = monitor.get(COUNT_ATTRIBUTE).and_then(Value::as_u64);
        assert_eq!(count.map(|count| json!(count > 0)), monitor.get(ALERTS_ATTRIBUTE).cloned());
        monitor.get(ALERTS_ATTRIBUTE).cloned()
    }

    fn known(work: &mut Work, claims: &Claims) -> Monitored {
        work.document(Kind::Monitor, &claims.sub).unwrap().unwrap()
    }

    #[test]
    fn a_device_is_critical_as_long_as_one_of_its_monitors_is() {
        let (mut work, claims) = fleet();
        assert_eq!(is_critical(&mut work, &claims), None);
        for (name, level, critical) in [
            ("a", Level::Ok, false),
            ("a", Level::Critical, true),
            ("b", Level::Critical, true),
            ("a", Level::Ok, true),
            ("b", Level::Ok, false),
        ] {
            assert_eq!(run(&mut work, &claims, &[alert_of(name, level)]), 1);
            assert_eq!(is_critical(&mut work, &claims), Some(json!(critical)), "{name} {level:?}");
        }
        let names: Vec<String> =
            known(&mut work, &claims).latest.into_iter().map(|one| one.alert.subject.name).collect();
        assert_eq!(names, ["b", "a"]);
        let events = work.writes().iter().filter(|write| matches!(write, Write::Event(_)));
        assert_eq!(events.count(), 5);
    }

    #[test]
    fn a_clock_that_was_ahead_silences_no_alert() {
        let (mut work, claims) = fleet();
        run(&mut work, &claims, &[alert_of("a", Level::Ok)]);
        let ahead = Timestamp(work.now().0 + 3 * DAY_MILLISECONDS);
        let full = Monitored { day: ahead, kept: ALERTS_OF_A_DAY, ..known(&mut work, &claims) };
        work.put_document(Kind::Monitor, &claims.sub, Some(&full)).unwrap();
        assert_eq!(run(&mut work, &claims, &[alert_of("b", Level::Critical)]), 1);
    }

    #[test]
    fn what_is_kept_of_a_device_is_bounded_and_the_last_word_counts_all_the_same() {
        let (mut work, claims) = fleet();
        let many: Vec<Alert> =
            (0..ALERTS).map(|number| alert_of(&number.to_string(), Level::Critical)).collect();
        let kept: usize = (0..12).map(|_| run(&mut work, &claims, &many)).sum();
        assert_eq!(kept as u64, ALERTS_OF_A_DAY);
        assert_eq!(run(&mut work, &claims, &[alert_of("one more", Level::Critical)]), 0);
        assert_eq!(known(&mut work, &claims).latest.len(), MONITORS);
        let well: Vec<Alert> = known(&mut work, &claims)
            .latest
            .iter()
            .map(|one| alert_of(&one.alert.subject.name, Level::Ok))
            .collect();
        assert_eq!(run(&mut work, &claims, &well), 0);
        assert_eq!(is_critical(&mut work, &claims), Some(json!(false)));
    }

    #[test]
    fn a_mail_is_about_what_has_changed_and_says_what() {
        let (mut work, claims) = fleet();
        let wanted = mail::MailSettings { enabled: true, receivers: vec!["a@b.example".to_owned()] };
        testing::run(&mut work, |_| true, |work| mail::set(work, &wanted, 0)).unwrap();
        let alerts = [
            ("a", Level::Ok),
            ("a", Level::Critical),
            ("a", Level::Critical),
            ("b", Level::Critical),
            ("a", Level::Ok),
            ("a", Level::Ok),
        ];
        for (name, level) in alerts {
            let mut alert = alert_of(name, level);
            alert.subject.details.insert("description".to_owned(), json!("x".repeat(1000)));
            run(&mut work, &claims, &[alert]);
        }
        let mut told = Vec::new();
        for write in work.writes() {
            if let Write::Event(Event { stream: Stream::Mail, data, .. }) = write {
                assert_eq!(data["device"], json!(claims.sub));
                assert_eq!(data["description"].as_str().map(str::len), Some(TEXT_CHARS));
                told.push((data["subject"][1].clone(), data["level"].clone()));
            }
        }
        let expected = [("a", "CRITICAL"), ("b", "CRITICAL"), ("a", "OK")];
        assert_eq!(told, expected.map(|(name, level)| (json!(name), json!(level))));
    }

    #[test]
    fn who_may_not_speak_is_not_heard() {
        let (mut work, mut claims) = fleet();
        claims.jti = "another".to_owned();
        let alerts = [alert_of("a", Level::Critical)];
        let refused = testing::run(&mut work, |_| true, |work| alert(work, &claims, &alerts));
        assert_eq!(refused, Err(MonitorError::Unauthorized));
        let refused = testing::run(&mut work, |_| true, |work| configure(work, &claims, &[]));
        assert_eq!(refused, Err(MonitorError::Unauthorized));
    }
}

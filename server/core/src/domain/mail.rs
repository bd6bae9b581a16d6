//! Mails about alerts: who gets them, what there is to tell, and how many may be sent. What is told is an event in the
//! transaction of the change that it is about; it is sent afterwards.
//!
//! A fleet of a million devices must not send a million mails: see [`step`].

use std::collections::{BTreeMap, BTreeSet};

use lettre::Address;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::id;
use super::monitor::{Level, Raised};
use crate::model::time::Timestamp;
use crate::model::{Deployment, Device};
use crate::work::query::{EventQuery, Numbered};
use crate::work::{Event, Key, Kind, NotLoaded, Stream, Work, Write};

/// Under what name it is kept who gets mails.
pub(crate) const SETTINGS: &str = "mail";
/// Under what name it is kept how many mails those have got in this hour who were taken out: who is put in again has got them.
const GONE: &str = "mails-gone";
/// Most of those, so that nobody can fill the store with addresses.
const GONE_RECEIVERS: usize = 200;
/// Most people who get mails.
pub(crate) const RECEIVERS: usize = 20;
/// Most characters of an address (RFC 5321, 4.5.3.1.3).
const ADDRESS_CHARS: usize = 254;
/// Mails of one event each that somebody gets in an hour.
pub(crate) const SINGLE: u64 = 20;
const HOUR_SECONDS: u64 = 3600;
/// Between two mails that sum up many events.
pub(crate) const SUMMARY_SECONDS: u64 = 600;
/// What an event is about: a store counts these by themselves.
pub(crate) const CRITICAL: &str = "critical";
pub(crate) const WELL: &str = "ok";
pub(crate) const STOPPED: &str = "stopped";
/// Characters of a text that is told: the store keeps it once more for this.
const TEXT_CHARS: usize = 256;

/// Who gets mails about alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailSettings {
    /// Whether anybody does.
    #[serde(default)]
    pub(crate) enabled: bool,
    /// Their addresses.
    #[serde(default)]
    pub(crate) receivers: Vec<String>,
}

impl MailSettings {
    /// Who gets mails now.
    pub(crate) fn told(&self) -> &[String] {
        if self.enabled { &self.receivers } else { &[] }
    }

    /// Checks what a person wants.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.receivers.len() > RECEIVERS {
            return Err(format!("receivers: there are more than {RECEIVERS}"));
        }
        let mut seen = BTreeSet::new();
        for receiver in &self.receivers {
            address(receiver).map_err(|reason| format!("receivers: {reason}"))?;
            if !seen.insert(receiver.to_ascii_lowercase()) {
                return Err(format!("receivers: {receiver:?} is there twice"));
            }
        }
        Ok(())
    }
}

/// An address that mails can be sent to, and from. What is not ASCII few servers take.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    let parsed = text.parse::<Address>().ok();
    let fits = text.len() <= ADDRESS_CHARS && text.chars().all(|char| char.is_ascii_graphic());
    parsed.filter(|_| fits).ok_or_else(|| {
        let shown: String = text.chars().take(TEXT_CHARS).collect();
        format!("{shown:?} is no address such as name@example.com")
    })
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum News {
    /// Something of a device is not well any more, or is well again.
    Alert {
        /// How it is now.
        level: Level,
        /// The device.
        device: String,
        /// What names it.
        identity: String,
        /// The monitor.
        name: String,
        /// What it looks at: its kind, its name and how it is.
        subject: [String; 3],
        /// In the words of the device.
        description: String,
        /// When, as the clock of the device says.
        happened: String,
    },
    /// A roll-out was stopped by one of its rules.
    Stopped {
        /// Its id.
        deployment: String,
        /// What people call it.
        name: String,
        /// Why.
        reason: String,
        /// Whether that has ended it; else it waits for a person.
        ended: bool,
    },
}

/// How far mails to somebody are: a document of its own, as that of a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Posted {
    /// The number of the last event that is done with. A fleet that was moved has other numbers: then it is 0, and the time says
    /// where to go on.
    pub(crate) number: u64,
    /// The time of that event.
    pub(crate) time: Timestamp,
    /// How often the next mail was tried.
    pub(crate) tries: u32,
    /// When the hour began in which mails are counted.
    pub(crate) hour: Timestamp,
    /// Mails of one event since then.
    pub(crate) single: u64,
    /// When many events were summed up last.
    pub(crate) summary: Option<Timestamp>,
    /// When the last mail was taken.
    pub(crate) sent: Option<Timestamp>,
    /// Why the last one was not.
    pub(crate) error: Option<String>,
}

/// What is done next for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is nothing to tell.
    Rest,
    /// Nothing before so many seconds are over.
    Wait(u64),
    /// A mail about the next event.
    Single,
    /// One mail about all that waits.
    Summary,
}

/// Each event has a mail of its own while there are few: at most [`SINGLE`] in an hour. What is more is summed up in one mail,
/// at most every [`SUMMARY_SECONDS`]: so what matters comes late by that at most, and nobody gets more than 26 mails in an hour.
pub(crate) fn step(posted: &Posted, waiting: u64, now: Timestamp) -> Step {
    let single = if is_new_hour(posted, now) { 0 } else { posted.single };
    if waiting == 0 {
        return Step::Rest;
    }
    if waiting <= SINGLE.saturating_sub(single) {
        return Step::Single;
    }
    // A clock that was set back keeps nobody waiting.
    let last = posted.summary.filter(|last| *last <= now);
    let wait =
        last.map_or(0, |last| last.plus_seconds(SUMMARY_SECONDS).0.saturating_sub(now.0).div_ceil(1000));
    if wait == 0 { Step::Summary } else { Step::Wait(wait) }
}

/// Whether what was sent still counts.
fn is_counted(posted: &Posted, now: Timestamp) -> bool {
    let is_recent = |last: Timestamp| last <= now && now < last.plus_seconds(SUMMARY_SECONDS);
    !is_new_hour(posted, now) || posted.summary.is_some_and(is_recent)
}

fn is_new_hour(posted: &Posted, now: Timestamp) -> bool {
    now < posted.hour || now >= posted.hour.plus_seconds(HOUR_SECONDS)
}

/// What has become of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server has taken it.
    Sent,
    /// The server will not have it, for this reason.
    Refused(String),
    /// It was not sent, and may be later.
    Failed(String),
}

/// Under what name it is kept how far mails to somebody are.
pub(crate) fn progress(receiver: &str) -> String {
    format!("mail/{}", receiver.to_ascii_lowercase())
}

/// The events that come behind what is done with.
pub(crate) fn behind(posted: &Posted) -> EventQuery {
    EventQuery::behind(Stream::Mail, posted.number, posted.time)
}

/// What [`set`] reads.
pub(crate) fn keys(before: &MailSettings, wanted: &MailSettings) -> Vec<Key> {
    let receivers = before.receivers.iter().chain(&wanted.receivers);
    let progress = receivers.map(|receiver| Key::Document(Kind::Progress, progress(receiver)));
    let gone = Key::Document(Kind::Progress, GONE.to_owned());
    progress.chain([gone, Key::Document(Kind::Settings, SETTINGS.to_owned())]).collect()
}

/// Changes who gets mails. Who is new, and everybody when they are switched on, is told what comes after the event with a number.
///
/// # Errors
/// It has to be loaded first.
pub(crate) fn set(work: &mut Work, wanted: &MailSettings, after: u64) -> Result<(), NotLoaded> {
    let before = work.document::<MailSettings>(Kind::Settings, SETTINGS)?.unwrap_or_default();
    let now = work.now();
    let is_in =
        |receivers: &[String], one: &String| receivers.iter().any(|other| other.eq_ignore_ascii_case(one));
    let gone_before = work.document::<BTreeMap<String, Posted>>(Kind::Progress, GONE)?.unwrap_or_default();
    let mut gone = gone_before.clone();
    for receiver in before.receivers.iter().filter(|one| !is_in(&wanted.receivers, one)) {
        if let Some(known) = work.document::<Posted>(Kind::Progress, &progress(receiver))? {
            let Posted { hour, single, summary, .. } = known;
            gone.insert(progress(receiver), Posted { hour, single, summary, ..Posted::default() });
        }
        work.put_document::<Posted>(Kind::Progress, &progress(receiver), None)?;
    }
    for receiver in &wanted.receivers {
        let counted = gone.remove(&progress(receiver));
        let known = work.document::<Posted>(Kind::Progress, &progress(receiver))?.or(counted);
        let goes_on = before.enabled == wanted.enabled && is_in(&before.receivers, receiver);
        // What was sent in this hour counts all the same.
        let posted = match known {
            Some(known) if goes_on => known,
            known => Posted { number: after, time: now, tries: 0, ..known.unwrap_or_default() },
        };
        work.put_document(Kind::Progress, &progress(receiver), Some(&posted))?;
    }
    gone.retain(|_, posted| is_counted(posted, now));
    while gone.len() > GONE_RECEIVERS {
        let oldest = gone.iter().min_by_key(|(_, posted)| posted.hour).map(|(name, _)| name.clone());
        oldest.and_then(|name| gone.remove(&name));
    }
    if gone != gone_before {
        work.put_document(Kind::Progress, GONE, Some(&gone).filter(|gone| !gone.is_empty()))?;
    }
    work.put_document(Kind::Settings, SETTINGS, Some(wanted))
}

/// Somebody's alert is another than the one before it.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn alerted(work: &mut Work, device: &Device, raised: &Raised) -> Result<(), NotLoaded> {
    let alert = &raised.alert;
    let description = alert.subject.details.get("description").and_then(Value::as_str);
    let identity: Vec<String> = device.identity.iter().map(|(name, value)| named(name, value)).collect();
    tell(
        work,
        News::Alert {
            level: alert.level,
            device: device.id.clone(),
            identity: short(&identity.join(", ")),
            name: short(&alert.name),
            subject: [&alert.subject.kind, &alert.subject.name, &alert.subject.status]
                .map(|text| short(text)),
            description: short(description.unwrap_or_default()),
            happened: short(alert.timestamp.as_deref().unwrap_or_default()),
        },
    )
}

/// A rule has stopped a roll-out.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn stopped(
    work: &mut Work,
    deployment: &Deployment,
    reason: &str,
    ended: bool,
) -> Result<(), NotLoaded> {
    let (id, name) = (deployment.id.clone(), short(&deployment.name));
    tell(work, News::Stopped { deployment: id, name, reason: short(reason), ended })
}

fn named(name: &str, value: &Value) -> String {
    match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS).collect()
}

/// Writes an event, if there is anybody who gets mails.
fn tell(work: &mut Work, news: News) -> Result<(), NotLoaded> {
    let settings = work.document::<MailSettings>(Kind::Settings, SETTINGS)?.unwrap_or_default();
    if settings.told().is_empty() {
        return Ok(());
    }
    let key = match &news {
        News::Alert { level: Level::Critical, .. } => CRITICAL,
        News::Alert { level: Level::Ok, .. } => WELL,
        News::Stopped { .. } => STOPPED,
    };
    let (key, time, data) = (key.to_owned(), work.now(), json!(news));
    work.write(Write::Event(Event { stream: Stream::Mail, key, time, data }));
    Ok(())
}

/// The name of a mail about an event, the same each time that it is sent.
pub(crate) fn name(event: &Numbered) -> String {
    id::uuid_of_name(&format!("{} {} {}", event.number, event.event.time, event.event.data))
}

/// What a mail was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    /// The last event in it.
    pub(crate) number: u64,
    /// When that was.
    pub(crate) time: Timestamp,
    /// Whether it sums up many.
    pub(crate) is_summary: bool,
}

/// Writes what has become of a mail. False when its receiver gets none any more.
///
/// # Errors
/// It has to be loaded first.
pub(crate) fn posted(
    work: &mut Work,
    receiver: &str,
    about: About,
    outcome: &Outcome,
) -> Result<bool, NotLoaded> {
    let (key, now) = (progress(receiver), work.now());
    let Some(mut known) = work.document::<Posted>(Kind::Progress, &key)? else { return Ok(false) };
    if known.number >= about.number {
        return Ok(true);
    }
    match outcome {
        Outcome::Failed(reason) => {
            known.tries = known.tries.saturating_add(1);
            known.error = Some(reason.clone());
            work.put_document(Kind::Progress, &key, Some(&known))?;
            return Ok(true);
        }
        Outcome::Refused(reason) => known.error = Some(reason.clone()),
        Outcome::Sent => (known.sent, known.error) = (Some(now), None),
    }
    if is_new_hour(&known, now) {
        (known.hour, known.single) = (now, 0);
    }
    match about.is_summary {
        true => known.summary = Some(now),
        false => known.single += 1,
    }
    (known.number, known.time, known.tries) = (about.number, about.time, 0);
    work.put_document(Kind::Progress, &key, Some(&known))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::webhooks::moved;
    use crate::work::testing;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000_000 + seconds * 1000)
    }

    fn settings(enabled: bool, receivers: &[&str]) -> MailSettings {
        MailSettings { enabled, receivers: receivers.iter().map(|one| (*one).to_owned()).collect() }
    }

    fn run<T>(work: &mut Work, rule: impl FnMut(&mut Work) -> Result<T, NotLoaded>) -> T {
        let may_ask = |key: &Key| matches!(key, Key::Document(Kind::Settings | Kind::Progress, _));
        testing::run(work, may_ask, rule).unwrap()
    }

    fn known(work: &mut Work, receiver: &str) -> Option<Posted> {
        run(work, |work| work.document(Kind::Progress, &progress(receiver)))
    }

    #[test]
    fn a_few_events_have_a_mail_each_and_many_have_one_together() {
        let mut posted = Posted { hour: at(0), ..Posted::default() };
        assert_eq!(step(&posted, 0, at(1)), Step::Rest);
        assert_eq!(step(&posted, SINGLE, at(1)), Step::Single);
        assert_eq!(step(&posted, SINGLE + 1, at(1)), Step::Summary);
        posted.single = SINGLE;
        assert_eq!(step(&posted, 1, at(1)), Step::Summary);
        posted.summary = Some(at(1));
        assert_eq!(step(&posted, 1, at(2)), Step::Wait(SUMMARY_SECONDS - 1));
        assert_eq!(step(&posted, 1, at(1 + SUMMARY_SECONDS)), Step::Summary);
        // After an hour each event has its own again, and a clock that is set back keeps nothing back.
        assert_eq!(step(&posted, 1, at(3600)), Step::Single);
        assert_eq!(step(&posted, SINGLE + 1, Timestamp(5)), Step::Summary);
    }

    #[test]
    fn a_million_events_in_an_hour_are_a_few_mails() {
        let (mut work, receiver) = (Work::new(at(0)), "a@b.example");
        run(&mut work, |work| set(work, &settings(true, &[receiver]), 0));
        let mut posted_now = known(&mut work, receiver).unwrap();
        let (mut mails, mut number) = (0, 0);
        for second in 0..3600 {
            // 278 more each second.
            let came = (second + 1) * 278;
            match step(&posted_now, came - number, at(second)) {
                Step::Rest | Step::Wait(_) => continue,
                Step::Single => number += 1,
                Step::Summary => number = came,
            }
            mails += 1;
            posted_now.summary = Some(at(second));
        }
        assert_eq!((mails, number > 800_000), (6, true));
    }

    #[test]
    fn what_was_sent_refused_or_failed_is_remembered() {
        let (mut work, receiver) = (Work::new(at(0)), "A@b.example");
        run(&mut work, |work| set(work, &settings(true, &[receiver]), 4));
        let mut told = |number, is_summary, outcome: Outcome| {
            let about = About { number, time: at(0), is_summary };
            run(&mut work, |work| posted(work, "a@B.example", about, &outcome));
            known(&mut work, receiver).unwrap()
        };
        let after = told(5, false, Outcome::Failed("down".to_owned()));
        assert_eq!(
            (after.number, after.tries, after.single, after.error.as_deref()),
            (4, 1, 0, Some("down"))
        );
        let after = told(5, false, Outcome::Sent);
        assert_eq!((after.number, after.tries, after.single, after.error), (5, 0, 1, None));
        let after = told(6, false, Outcome::Refused("no".to_owned()));
        assert_eq!((after.number, after.single, after.error.as_deref()), (6, 2, Some("no")));
        let after = told(9, true, Outcome::Sent);
        assert_eq!((after.number, after.single, after.summary), (9, 2, Some(at(0))));
        // What is done with is not counted twice.
        assert_eq!(told(9, false, Outcome::Sent), after);
    }

    #[test]
    fn nobody_is_told_what_was_before_and_nothing_is_written_for_nobody() {
        let mut work = Work::new(at(0));
        let stop = |work: &mut Work| {
            let [deployment, name, reason] = ["d", "name", "why"].map(str::to_owned);
            tell(work, News::Stopped { deployment, name, reason, ended: false })
        };
        run(&mut work, stop);
        run(&mut work, |work| set(work, &settings(false, &["a@b.example"]), 3));
        run(&mut work, stop);
        assert_eq!(work.writes().len(), 0);
        run(&mut work, |work| set(work, &settings(true, &["a@b.example"]), 7));
        run(&mut work, stop);
        assert_eq!(work.writes().len(), 1);
        assert_eq!(known(&mut work, "a@b.example").unwrap().number, 7);
        // Who was there goes on where it was; who comes begins now; who goes is forgotten.
        run(&mut work, |work| set(work, &settings(true, &["A@b.example", "c@b.example"]), 9));
        let numbers = ["a@b.example", "c@b.example"].map(|one| known(&mut work, one).unwrap().number);
        assert_eq!(numbers, [7, 9]);
        run(&mut work, |work| set(work, &settings(true, &["c@b.example"]), 11));
        assert_eq!(known(&mut work, "a@b.example"), None);
        assert_eq!(known(&mut work, "c@b.example").unwrap().number, 9);
    }

    #[test]
    fn who_was_taken_out_and_is_put_in_again_has_got_the_mails_of_this_hour() {
        let mut work = Work::new(at(0));
        let receivers = |work: &mut Work, receivers: &[&str]| {
            run(work, |work| set(work, &settings(true, receivers), 4));
        };
        let gone = |work: &mut Work| {
            run(work, |work| work.document::<BTreeMap<String, Posted>>(Kind::Progress, GONE))
        };
        receivers(&mut work, &["a@b.example"]);
        for number in [5, 6] {
            let about = About { number, time: at(0), is_summary: number == 6 };
            run(&mut work, |work| posted(work, "a@b.example", about, &Outcome::Sent));
        }
        receivers(&mut work, &[]);
        assert_eq!(known(&mut work, "a@b.example"), None);
        receivers(&mut work, &["A@b.example"]);
        let again = known(&mut work, "a@b.example").unwrap();
        assert_eq!((again.number, again.single, again.hour, again.summary), (4, 1, at(0), Some(at(0))));
        assert_eq!(gone(&mut work), None);
        // As long as it counts, and not for more addresses than that.
        for n in 0..=GONE_RECEIVERS {
            receivers(&mut work, &[&format!("a{n}@b.example")]);
            let about = About { number: 5, time: at(0), is_summary: false };
            run(&mut work, |work| posted(work, &format!("a{n}@b.example"), about, &Outcome::Sent));
        }
        receivers(&mut work, &[]);
        assert_eq!(gone(&mut work).unwrap().len(), GONE_RECEIVERS);
        let sent = Posted { hour: at(0), single: 1, summary: Some(at(3500)), ..Posted::default() };
        let counted = [3599, 3600, 4099, 4100].map(|seconds| is_counted(&sent, at(seconds)));
        assert_eq!(counted, [true, true, true, false]);
    }

    #[test]
    fn in_a_store_with_other_numbers_the_time_says_where_to_go_on() {
        let known = Posted { number: 7, time: at(3), ..Posted::default() };
        assert_eq!((behind(&known).above, behind(&known).after), (Some(7), None));
        let mut value = json!(known);
        moved("other/x", &mut value);
        assert_eq!(value, json!(known));
        moved(&progress("a@b.example"), &mut value);
        let known: Posted = serde_json::from_value(value).unwrap();
        assert_eq!((behind(&known).above, behind(&known).after), (Some(0), Some(at(3))));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for right in ["a@b.example", "a.b+c@localhost", "x@[127.0.0.1]"] {
            assert!(address(right).is_ok(), "{right}");
        }
        let long = format!("{}@b.example", "a".repeat(250));
        for wrong in ["", "a", "@b", "a@", "a b@c", "a@b\r\nBcc: x@y", "a@b>", "ä@b.example", &long] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert!(settings(true, &["a@b", "A@B"]).check().unwrap_err().contains("twice"));
        let many: Vec<String> = (0..=RECEIVERS).map(|n| format!("a{n}@b")).collect();
        assert!(MailSettings { enabled: true, receivers: many }.check().is_err());
    }
}

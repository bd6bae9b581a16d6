//! What is remembered of all checks, and the alerts that wait: one JSON document, and the rules by which it changes.
//!
//! A client that is older than the writer reads what it knows of it. Nothing in here grows without a bound.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::Finding;
use super::{Alert, CHECKS_MAX, Check, Level, MOST_MAX};
use crate::clock;

/// Alerts that wait for the server. With one for each check, the last word of none is lost.
pub(super) const ALERTS_MAX: usize = CHECKS_MAX;
/// Starts of the kernel that are remembered: one more than may be allowed.
const STARTS_MAX: usize = MOST_MAX as usize + 1;
/// Longest text that another program gave, in bytes: the id of a start, a place in a journal.
pub const FOREIGN_BYTES: usize = 256;
/// Longest document: what all bounds of texts and lists come to (`the_fullest_book_fits_into_its_file`).
pub const BOOK_BYTES: usize = 287 * 1024;

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    /// What is known of each check, by its name.
    known: BTreeMap<String, Known>,
    /// What the server did not take yet, the oldest first.
    alerts: VecDeque<Alert>,
    /// Starts of the kernel, the oldest first.
    starts: VecDeque<Start>,
    /// Deployments that failed, the last ones one behind the other.
    failed_updates: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    kind: String,
    subject: String,
    level: Level,
    /// Since when it is known to be so, in seconds since 1970; 0 while the clock was not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    /// Up to where a log was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

/// How a check is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckState {
    /// Its name.
    pub name: String,
    /// How it was found to be; `None` where nothing was found yet.
    pub level: Option<Level>,
    /// Since when it is known to be so, in seconds since 1970; `None` where no clock said.
    pub since: Option<u64>,
    /// How many alerts of it the server did not take yet.
    pub alerts_waiting: usize,
}

/// Up to where a log was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// In a file.
    File {
        /// Which file has the name.
        inode: u64,
        /// Bytes of it.
        offset: u64,
        /// Lines that were read since reading began.
        lines: u64,
    },
    /// In a journal.
    Journal {
        /// What the journal calls the place.
        cursor: String,
        /// Lines that were read since reading began.
        lines: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Start {
    id: String,
    /// Seconds since 1970; 0 while the clock was not set.
    at: u64,
}

impl Book {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(document: &[u8]) -> Result<Book, String> {
        let mut book: Book = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        // Another client may allow more.
        while book.alerts.len() > ALERTS_MAX {
            book.drop_superseded();
        }
        Ok(book)
    }

    /// The document of this book.
    pub fn to_json(&self) -> Vec<u8> {
        // No field of it can keep it from being written as JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What the server did not take yet, the oldest first.
    pub(super) fn alerts(&self) -> &VecDeque<Alert> {
        &self.alerts
    }

    /// The oldest `count` alerts need not be kept any more.
    pub(super) fn remove_alerts(&mut self, count: usize) {
        self.alerts.drain(..count.min(self.alerts.len()));
    }

    pub(super) fn level(&self, name: &str) -> Level {
        self.known.get(name).map_or(Level::Ok, |known| known.level)
    }

    pub(super) fn state(&self, name: &str) -> CheckState {
        let since = self.known.get(name).and_then(|known| known.since);
        CheckState {
            name: name.to_owned(),
            level: Some(self.level(name)).filter(|level| since.is_some() || *level != Level::Ok),
            since: since.filter(|since| *since != 0),
            alerts_waiting: self.alerts.iter().filter(|alert| alert.name == name).count(),
        }
    }

    pub(super) fn position(&self, name: &str) -> Option<&Position> {
        self.known.get(name)?.position.as_ref()
    }

    /// Takes what was found. Whether the book has to be kept: not for a log that was merely read on.
    pub(super) fn note(&mut self, check: &Check, finding: Option<Finding>, wall: Duration) -> bool {
        let (name, watched) = (&check.name, &check.watched);
        let now = if clock::was_set(wall) { wall.as_secs() } else { 0 };
        let is_new = !self.known.contains_key(name);
        let known = self.known.entry(name.clone()).or_insert_with(|| Known {
            kind: watched.kind().to_owned(),
            subject: watched.subject().to_owned(),
            level: Level::Ok,
            since: None,
            position: None,
        });
        let Some(finding) = finding else { return is_new };
        if finding.level == known.level {
            let is_learned = known.since.is_none() || (known.since == Some(0) && now != 0);
            if is_learned {
                known.since = Some(now);
            }
            return is_new || is_learned;
        }
        (known.level, known.since) = (finding.level, Some(now));
        log::info!("check {name}: {}: {}", finding.level.name(), finding.description);
        self.push(Alert {
            name: name.clone(),
            level: finding.level,
            kind: watched.kind().to_owned(),
            subject: watched.subject().to_owned(),
            status: finding.status,
            description: finding.description,
            excerpt: finding.excerpt,
            at: clock::utc(wall.as_secs()),
            dropped: 0,
        });
        true
    }

    /// Up to where a log was read. By itself no reason to keep the book.
    pub(super) fn read_up_to(&mut self, name: &str, position: Option<Position>) {
        if let Some(known) = self.known.get_mut(name) {
            known.position = position;
        }
    }

    /// Forgets checks that are not configured any more, and tells the server of those that it believes to be wrong. Whether
    /// the book has to be kept.
    pub(super) fn keep_only(&mut self, checks: &[Check], at: &str) -> bool {
        let is_meant = |name: &String, known: &Known| {
            checks.iter().any(|check| {
                check.name == *name
                    && check.watched.kind() == known.kind
                    && check.watched.subject() == known.subject
            })
        };
        let gone: Vec<String> = self
            .known
            .iter()
            .filter(|(name, known)| !is_meant(name, known))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &gone {
            let was_wrong = self.known.remove(name).filter(|known| known.level == Level::Critical);
            if let Some(Known { kind, subject, .. }) = was_wrong {
                self.push(Alert {
                    name: name.clone(),
                    level: Level::Ok,
                    kind,
                    subject,
                    status: "not watched".to_owned(),
                    description: "it is not watched any more".to_owned(),
                    excerpt: None,
                    at: at.to_owned(),
                    dropped: 0,
                });
            }
        }
        !gone.is_empty()
    }

    /// The kernel that runs is the one with this id, and started `uptime` ago. Whether the book has to be kept.
    pub(super) fn note_start(&mut self, id: &str, wall: Duration, uptime: Duration) -> bool {
        let at = if clock::was_set(wall) { wall.saturating_sub(uptime).as_secs() } else { 0 };
        match self.starts.back_mut() {
            Some(last) if last.id == id => {
                // The clock is right only now.
                let is_learned = last.at == 0 && at != 0;
                if is_learned {
                    last.at = at;
                }
                is_learned
            }
            Some(_) | None => {
                self.starts.push_back(Start { id: id.to_owned(), at });
                if self.starts.len() > STARTS_MAX {
                    self.starts.pop_front();
                }
                true
            }
        }
    }

    /// Starts of the kernel within this time. A time behind now is one of a clock that was put back.
    pub(super) fn starts_within(&self, time: Duration, wall: Duration) -> usize {
        let is_near =
            |start: &&Start| start.at != 0 && wall.as_secs().saturating_sub(start.at) <= time.as_secs();
        self.starts.iter().filter(is_near).count()
    }

    pub(super) fn failed_updates(&self) -> u32 {
        self.failed_updates
    }

    /// A deployment came to its end. Whether the book has to be kept.
    pub(super) fn note_update(&mut self, failed: bool) -> bool {
        let before = self.failed_updates;
        self.failed_updates = if failed { before.saturating_add(1) } else { 0 };
        self.failed_updates != before
    }

    fn push(&mut self, alert: Alert) {
        self.alerts.push_back(alert);
        while self.alerts.len() > ALERTS_MAX {
            self.drop_superseded();
        }
    }

    /// Drops the oldest alert that has a newer one of its check behind it, which says so; where there is none, the oldest.
    fn drop_superseded(&mut self) {
        let newer = |at: usize| {
            let older = self.alerts.get(at)?;
            (at + 1..self.alerts.len()).find(|later| self.alerts[*later].name == older.name)
        };
        let found = (0..self.alerts.len()).find_map(|at| newer(at).map(|newer| (at, newer)));
        if let Some((at, newer)) = found {
            let dropped = self.alerts[at].dropped.saturating_add(1);
            self.alerts[newer].dropped = self.alerts[newer].dropped.saturating_add(dropped);
        }
        let gone = self.alerts.remove(found.map_or(0, |(at, _)| at));
        if let Some(gone) = gone {
            log::warn!(
                "check {}: an alert of {} is dropped: the server took none for long",
                gone.name,
                gone.at
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Watched;
    use super::*;

    const AT: &str = "2026-11-28T10:00:00Z";
    /// The same in seconds since 1970.
    const WALL: Duration = Duration::from_secs(1_795_860_000);

    /// What version 0.1 writes. A stored format changes only together with a new fixture.
    const VERSION_0_1: &str = r#"{"known":{"app":{"kind":"service","subject":"app.service","level":"CRITICAL"},"log":{"kind":"log","subject":"/log","level":"OK","position":{"File":{"inode":7,"offset":9,"lines":2}}},"unit":{"kind":"log","subject":"a.service","level":"OK","position":{"Journal":{"cursor":"s=1","lines":3}}}},"alerts":[{"name":"app","level":"CRITICAL","kind":"service","subject":"app.service","status":"failed","description":"app.service is failed","excerpt":{"before":[],"line":{"number":1,"data":"x"},"after":[]},"at":"2026-11-28T10:00:00Z","dropped":2}],"starts":[{"id":"a","at":0},{"id":"b","at":1795374114}],"failed_updates":1}"#;

    fn check(name: &str) -> Check {
        let watched = Watched::Service { unit: format!("{name}.service") };
        Check { name: name.to_owned(), looks: 1, watched }
    }

    fn note(book: &mut Book, name: &str, level: Level) -> bool {
        book.note(&check(name), Some(Finding::new(level, "word", "sentence")), WALL)
    }

    /// The alerts that wait, as `name LEVEL+dropped`.
    fn waiting(book: &Book) -> Vec<String> {
        let one = |alert: &Alert| format!("{} {}+{}", alert.name, alert.level.name(), alert.dropped);
        book.alerts.iter().map(one).collect()
    }

    #[test]
    fn a_document_of_version_0_1_is_read_and_written_unchanged() {
        let book = Book::from_json(VERSION_0_1.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(book.to_json()).unwrap(), VERSION_0_1);
        let newer = VERSION_0_1.replacen('{', r#"{"unheard":[1],"#, 1);
        assert_eq!(Book::from_json(newer.as_bytes()), Ok(book));
        assert_eq!(Book::from_json(b"{}"), Ok(Book::default()));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        for text in ["", "null", "[]", r#"{"known":3}"#, r#"{"alerts":[{}]}"#, r#"{"failed_updates":-1}"#] {
            let book = Book::from_json(text.as_bytes());
            assert!(book.is_err() || book == Ok(Book::default()), "{text}: {book:?}");
        }
        for end in 0..VERSION_0_1.len() {
            assert!(Book::from_json(&VERSION_0_1.as_bytes()[..end]).is_err());
        }
    }

    #[test]
    fn an_alert_comes_of_a_change_and_of_nothing_else() {
        let mut book = Book::default();
        // New, and so kept; but well, and so nothing to tell.
        assert!(note(&mut book, "app", Level::Ok));
        assert!(!note(&mut book, "app", Level::Ok));
        assert!(waiting(&book).is_empty());
        assert!(note(&mut book, "app", Level::Critical));
        assert!(!note(&mut book, "app", Level::Critical));
        assert!(!book.note(&check("app"), None, WALL));
        assert!(note(&mut book, "app", Level::Ok));
        assert_eq!(waiting(&book), ["app CRITICAL+0", "app OK+0"]);
    }

    #[test]
    fn how_a_check_is_is_not_known_before_it_was_found_so_and_since_when_not_before_the_clock_is_set() {
        let mut book = Book::default();
        let mut state = |finding: Option<Level>, wall: Duration| {
            let finding = finding.map(|level| Finding::new(level, "word", "sentence"));
            let is_to_be_kept = book.note(&check("app"), finding, wall);
            let CheckState { level, since, alerts_waiting, .. } = book.state("app");
            (is_to_be_kept, level, since, alerts_waiting)
        };
        let (unset, later, now) = (Duration::from_secs(9), WALL + Duration::from_secs(60), WALL.as_secs());
        assert_eq!(state(None, WALL), (true, None, None, 0));
        assert_eq!(state(Some(Level::Ok), unset), (true, Some(Level::Ok), None, 0));
        assert_eq!(state(Some(Level::Ok), unset), (false, Some(Level::Ok), None, 0));
        assert_eq!(state(Some(Level::Ok), WALL), (true, Some(Level::Ok), Some(now), 0));
        assert_eq!(state(Some(Level::Ok), later), (false, Some(Level::Ok), Some(now), 0));
        assert_eq!(state(Some(Level::Critical), later), (true, Some(Level::Critical), Some(now + 60), 1));
        assert_eq!(state(None, later + later), (false, Some(Level::Critical), Some(now + 60), 1));
        let document = book.to_json();
        assert_eq!(Book::from_json(&document).unwrap().state("app").since, Some(now + 60));
    }

    #[test]
    fn a_check_that_is_gone_is_told_to_be_well_only_where_it_was_not() {
        let mut book = Book::default();
        note(&mut book, "well", Level::Ok);
        note(&mut book, "wrong", Level::Critical);
        note(&mut book, "stays", Level::Critical);
        let count = book.alerts.len();
        book.remove_alerts(count);
        assert!(book.keep_only(&[check("stays")], AT));
        assert_eq!(waiting(&book), ["wrong OK+0"]);
        assert!(!book.keep_only(&[check("stays")], AT));
        // Another thing by the same name is another check.
        let other = Check { watched: Watched::Service { unit: "x".to_owned() }, ..check("stays") };
        assert!(book.keep_only(&[other], AT));
        assert_eq!(waiting(&book), ["wrong OK+0", "stays OK+0"]);
    }

    #[test]
    fn what_waits_is_bounded_and_no_check_loses_its_last_word() {
        let mut book = Book::default();
        note(&mut book, "first", Level::Critical);
        for round in 0..200 {
            note(&mut book, "flaps", if round % 2 == 0 { Level::Critical } else { Level::Ok });
        }
        note(&mut book, "last", Level::Critical);
        let waiting = waiting(&book);
        assert_eq!(waiting.len(), ALERTS_MAX);
        assert_eq!(waiting[0], "first CRITICAL+0");
        assert_eq!(waiting[ALERTS_MAX - 1], "last CRITICAL+0");
        assert_eq!(waiting[ALERTS_MAX - 2], "flaps OK+0");
        // 200 changes, of which 30 are there.
        assert!(waiting[1].starts_with("flaps ") && waiting[1].ends_with("+170"), "{waiting:?}");
    }

    #[test]
    fn the_fullest_book_fits_into_its_file() {
        let mut book = Book::default();
        // Letters of four bytes where letters are counted, and one that JSON writes with two where bytes are.
        let (text, wide) = (|chars: usize| "\"".repeat(chars), |chars: usize| "😀".repeat(chars));
        let line = |number| super::super::Line::new(number, text(9999).as_bytes());
        for number in 0..ALERTS_MAX {
            let name = format!("{number:02}{}", wide(super::super::NAME_CHARS - 2));
            let watched = Watched::Disk { path: wide(super::super::TEXT_CHARS), used_percent: 1 };
            let check = Check { name: name.clone(), looks: 1, watched };
            let around = || (0..5).map(|_| line(u64::MAX)).collect();
            let excerpt = super::super::Excerpt { before: around(), line: line(u64::MAX), after: around() };
            let finding = Finding::new(Level::Critical, &text(9999), &text(9999));
            book.note(&check, Some(Finding { excerpt: Some(excerpt), ..finding }), WALL);
            let cursor = text(FOREIGN_BYTES);
            book.read_up_to(&name, Some(Position::Journal { cursor, lines: u64::MAX }));
        }
        for number in 0..2 * STARTS_MAX {
            book.note_start(&format!("{number:036}"), Duration::ZERO, Duration::ZERO);
        }
        assert_eq!(book.starts.len(), STARTS_MAX);
        let bytes = book.to_json().len();
        assert!(bytes <= BOOK_BYTES, "{bytes}");
    }

    #[test]
    fn starts_are_counted_by_a_clock_that_was_set() {
        let mut book = Book::default();
        let (hour, day) = (Duration::from_secs(3600), 86_400);
        let wall = |seconds| Duration::from_secs(1_795_374_114 + seconds);
        let up = Duration::from_secs(10);
        assert!(book.note_start("a", wall(0), up));
        assert!(!book.note_start("a", wall(60), up + Duration::from_secs(60)));
        // The clock is not set at first, and then it is.
        assert!(book.note_start("b", Duration::from_secs(50), up));
        assert_eq!(book.starts_within(hour, wall(100)), 1);
        assert!(book.note_start("b", wall(100), up));
        assert_eq!(book.starts_within(hour, wall(100)), 2);
        // It is never set.
        assert!(book.note_start("c", Duration::from_secs(50), up));
        assert!(book.note_start("d", wall(day), up));
        assert_eq!(book.starts_within(hour, wall(day)), 1);
        assert_eq!(book.starts_within(Duration::from_secs(2 * day), wall(day)), 3);
    }

    #[test]
    fn failures_are_counted_until_an_update_succeeds() {
        let mut book = Book::default();
        assert!(!book.note_update(false));
        assert!(book.note_update(true) && book.note_update(true));
        assert_eq!(book.failed_updates(), 2);
        assert!(book.note_update(false));
        assert_eq!(book.failed_updates(), 0);
    }
}

//! The watch of this device: where its alerts are kept, and who tells it the facts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::monitor::{
    BOOK_BYTES, Book, FOREIGN_BYTES, LogSource, Looker, MATCHED_BYTES, Position, Scan, Unseen, Watch,
};
use device::compose::Setup;
use linux::log_file::{LogFile, ReadUpTo};
use linux::monitor::{Entries, Programs, Rest, boot_id, used_percent};
use linux::regular_file;
use linux::state_file::{self, Documents, Place};

/// Where the alerts are kept: two copies with a KiB for what stands before each.
const PLACE: Place = Place {
    name: "rust-ota-monitor",
    bytes: 2 * (BOOK_BYTES + 1024),
    what: "the memory of the checks",
    after_loss: "Alerts that waited in it are not sent",
};
/// Longest file of certificates.
const CERTIFICATES_BYTES: u64 = 1024 * 1024;
/// How often the next entries of a journal are asked for in one look.
const JOURNAL_READS: u32 = 20;
/// No more of them are asked for after so long. With the last answer and the place at the end, which have ten seconds each, all checks stay
/// within what the service manager allows for a look.
const JOURNAL_TIME: Duration = Duration::from_secs(5);

/// What the configuration says is to be watched; `None` where it says nothing, or where alerts cannot be kept: the daemon
/// goes on without. Call it with the lock of the datastore held.
pub(crate) fn watch(setup: &Setup, clock: Arc<dyn Clock>) -> Option<Watch> {
    let rules = setup.config.monitor.clone()?;
    let opened = state_file::open_at(&PLACE, &setup.datastore, &Books)
        .map_err(|error| error.to_string())
        .and_then(|store| {
            let looker =
                LinuxLooker { programs: Programs::default(), files: BTreeMap::new(), clock: clock.clone() };
            Watch::open(rules, Box::new(looker), Box::new(store), clock)
        });
    opened.inspect_err(|error| log::error!("nothing is watched: {error}")).ok()
}

/// What the file is to hold.
struct Books;

impl Documents for Books {
    fn initial(&self) -> Vec<u8> {
        Book::default().to_json()
    }

    fn after_loss(&self, _: &str) -> Vec<u8> {
        self.initial()
    }

    fn check(&self, document: &[u8]) -> Result<(), String> {
        Book::from_json(document).map(drop)
    }
}

/// Facts about this device.
struct LinuxLooker {
    programs: Programs,
    /// The log files that are read, each open, by the checks that read them: of two that read one, each sees every line.
    files: BTreeMap<String, LogFile>,
    clock: Arc<dyn Clock>,
}

fn unseen(error: impl ToString) -> Unseen {
    Unseen(error.to_string())
}

impl LinuxLooker {
    fn file(
        &mut self,
        check: &str,
        path: &str,
        from: Option<&Position>,
        scan: &mut Scan<'_>,
    ) -> Result<Option<Position>, Unseen> {
        let from = match from {
            Some(Position::File { inode, offset, lines }) => {
                Some(ReadUpTo { inode: *inode, offset: *offset, lines: *lines })
            }
            Some(Position::Journal { .. }) | None => None,
        };
        let file = self.files.entry(check.to_owned()).or_insert_with(|| LogFile::new(Path::new(path)));
        let at = file.read_on(from, MATCHED_BYTES, |number, line| scan.line(number, line));
        let at = at.map_err(|error| Unseen(format!("cannot read {path}: {error}")))?;
        Ok(at.map(|ReadUpTo { inode, offset, lines }| Position::File { inode, offset, lines }))
    }

    fn journal(
        &mut self,
        unit: &str,
        from: Option<&Position>,
        scan: &mut Scan<'_>,
    ) -> Result<Option<Position>, Unseen> {
        let (mut cursor, mut lines) = match from {
            Some(Position::Journal { cursor, lines }) => (Some(cursor.clone()), *lines),
            Some(Position::File { .. }) | None => (None, 0),
        };
        let position = |cursor: Option<String>, lines| {
            let cursor = cursor.filter(|cursor| cursor.len() <= FOREIGN_BYTES);
            cursor.map(|cursor| Position::Journal { cursor, lines })
        };
        let until = self.clock.now().saturating_add(JOURNAL_TIME);
        for _ in 0..JOURNAL_READS {
            let entries = self.entries(unit, cursor.as_deref())?;
            for line in &entries.lines {
                lines = lines.saturating_add(1);
                scan.line(lines, line);
            }
            match entries.rest {
                // One that has nothing more may say no place: then it is that behind what was read.
                Rest::Nothing => return Ok(position(entries.cursor.or(cursor), lines)),
                Rest::More => cursor = entries.cursor,
                Rest::TooMuch => break,
            }
            if self.clock.now() >= until {
                break;
            }
        }
        // A unit that writes more than can be read would be further and further ahead of what is looked at.
        log::warn!("the journal of {unit} has more than is read at once: the rest is skipped");
        Ok(position(self.entries(unit, None)?.cursor.or(cursor), lines))
    }

    /// What is behind `cursor`; the end of the journal where it does not know that place.
    fn entries(&self, unit: &str, cursor: Option<&str>) -> Result<Entries, Unseen> {
        let entries = match (self.programs.journal(unit, cursor, &*self.clock), cursor) {
            (Err(error), Some(_)) => {
                // Journals are cleared, and then no place in them is known any more.
                log::warn!("the journal of {unit} is read from its end on: {error}");
                self.programs.journal(unit, None, &*self.clock)
            }
            (entries, _) => entries,
        };
        entries.map_err(unseen)
    }
}

impl Looker for LinuxLooker {
    fn service(&mut self, unit: &str) -> Result<String, Unseen> {
        self.programs.unit_state(unit, &*self.clock).map_err(unseen)
    }

    fn log(
        &mut self,
        check: &str,
        source: &LogSource,
        from: Option<&Position>,
        scan: &mut Scan<'_>,
    ) -> Result<Option<Position>, Unseen> {
        match source {
            LogSource::File(path) => self.file(check, path, from, scan),
            LogSource::Unit(unit) => self.journal(unit, from, scan),
        }
    }

    fn used_percent(&mut self, path: &str) -> Result<u32, Unseen> {
        used_percent(Path::new(path)).map_err(unseen)
    }

    fn certificate_end(&mut self, file: &str) -> Result<u64, Unseen> {
        let cannot_read = |error: std::io::Error| Unseen(format!("cannot read {file}: {error}"));
        let found = regular_file::open_for_reading(Path::new(file)).and_then(|file| file.metadata());
        if found.map_err(cannot_read)?.len() > CERTIFICATES_BYTES {
            return Err(Unseen(format!("{file} is longer than {CERTIFICATES_BYTES} bytes")));
        }
        let dates = http::certificate_dates(file).map_err(unseen)?;
        let first = dates.iter().map(|dates| dates.not_after).min();
        first.ok_or_else(|| Unseen(format!("no certificate in {file} can be read")))
    }

    fn boot_id(&mut self) -> Result<String, Unseen> {
        boot_id(Path::new("/")).map_err(unseen)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use client_core::monitor::{Around, Pattern};
    use linux::clock::LinuxClock;

    use super::*;

    /// What a look behind `s=1` finds in a journal that answers as `answers`, the arms of a `case` over its arguments, say:
    /// whether there is a panic, the place from which the next look goes on, and the number of the last line.
    fn look_at_journal(answers: &str) -> (bool, Option<Position>) {
        let folder = tempfile::tempdir().unwrap();
        let journalctl = folder.path().join("journalctl");
        testkit::programs::place_script(&journalctl, &format!("case \"$*\" in\n{answers}\nesac"));
        let programs = Programs { journalctl, ..Programs::default() };
        let mut looker = LinuxLooker { programs, files: BTreeMap::new(), clock: Arc::new(LinuxClock::new()) };
        let pattern = Pattern::parse("panic").unwrap();
        let mut scan = Scan::new(&pattern, Around { before: 0, after: 0 });
        let from = Position::Journal { cursor: "s=1".to_owned(), lines: 0 };
        let source = LogSource::Unit("a.service".to_owned());
        let position = looker.log("check", &source, Some(&from), &mut scan).unwrap();
        (scan.finish().is_some(), position)
    }

    fn at(cursor: &str, lines: u64) -> Option<Position> {
        Some(Position::Journal { cursor: cursor.to_owned(), lines })
    }

    #[test]
    fn a_look_reads_all_that_a_journal_has_however_many_times_it_has_to_ask() {
        let answers = "*--after-cursor=s=1*) seq 500; echo '-- cursor: s=2' ;;
                       *--after-cursor=s=2*) seq 500; echo '-- cursor: s=3' ;;
                       *--after-cursor=s=3*) echo panic; echo '-- cursor: s=4' ;;";
        assert_eq!(look_at_journal(answers), (true, at("s=4", 1001)));
        // What was read is not read again where the rest has no place.
        let full = "*--after-cursor=s=1*) seq 500; echo '-- cursor: s=2' ;;";
        assert_eq!(look_at_journal(full), (false, at("s=2", 500)));
    }

    #[test]
    fn a_journal_that_has_more_than_a_look_reads_is_gone_on_with_from_its_end() {
        let endless = "*--after-cursor=*) seq 500; echo '-- cursor: s=2' ;;
                       *--lines=0*) echo '-- cursor: end' ;;";
        assert_eq!(look_at_journal(endless), (false, at("end", u64::from(JOURNAL_READS) * 500)));
        // It looks as if the place were in it, behind the panic.
        let long = "*--after-cursor=*) printf 'panic\\n-- cursor: s=2\\n'; head -c 2000000 /dev/zero ;;
                    *--lines=0*) echo '-- cursor: end' ;;";
        assert_eq!(look_at_journal(long), (true, at("end", 2)));
    }

    #[test]
    fn of_two_checks_of_one_log_each_sees_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = File::create(&path).unwrap();
        let clock = Arc::new(LinuxClock::new());
        let mut looker = LinuxLooker { programs: Programs::default(), files: BTreeMap::new(), clock };
        let source = LogSource::File(path.display().to_string());
        let mut is_found = |check: &str| {
            let pattern = Pattern::parse(check).unwrap();
            let mut scan = Scan::new(&pattern, Around { before: 0, after: 0 });
            looker.log(check, &source, None, &mut scan).unwrap();
            scan.finish().is_some()
        };
        assert!(!is_found("panic") && !is_found("out of memory"));
        log.write_all(b"out of memory\npanic\n").unwrap();
        assert!(is_found("panic") && is_found("out of memory"));
    }
}

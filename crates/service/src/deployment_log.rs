//! The log of each deployment: written beside the log of the daemon, kept for the last five, and sent to the server
//! when one failed.
//!
//! A line is one JSON object. Power may go in the middle of one: then it is a bad line among good ones, and what is sent
//! says so. A log that cannot be written never holds up its deployment.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client_core::artifact::Sha256;
use client_core::deploy::DeploymentId;
use client_core::text::printable_json;
use linux::file_system;
use linux::regular_file;
use serde_json::{Value, json};

use client_core::clock::utc_millis;

/// Logs that are kept.
const KEPT: usize = 5;
/// Free space that starting a log takes: a full data partition has better uses for it.
const FREE_BYTES: u64 = 100 * 1024;
/// Largest log.
const LOG_BYTES: u64 = 4 * 1024 * 1024;
/// Longest message, in characters.
const MESSAGE_CHARS: usize = 4096;
/// Longest line that is read back: a message with every character escaped.
const LINE_BYTES: u64 = 64 * 1024;
/// Longest part of a file name that an id becomes: file systems have 255 bytes for all of it, and an id without characters
/// that need replacing has 128.
const PART_BYTES: usize = 200;
/// Digits of the digest of an id that is longer.
const DIGEST_DIGITS: usize = 32;
/// What is sent at most.
const UPLOAD_BYTES: usize = server_mender::LOG_BYTES_MAX;

const CUT: &str = "(this log has reached its largest size, the rest is missing)";
// The words of the Mender client.
const TRUNCATED: &str =
    "(THE ORIGINAL LOGS WERE TOO BIG, THIS LOG IS TRUNCATED. The full log can be found on the device)";
const INVALID: &str = "(THE ORIGINAL LOGS CONTAINED INVALID ENTRIES)";
const CORRUPTED: &str = "(CORRUPTED LOG DATA)";
const NO_TIME: &str = "1970-01-01T00:00:00.000000000Z";

/// Why there is no log.
pub enum LogError {
    /// There is too little space.
    Space {
        /// Where.
        directory: PathBuf,
        /// How much is free.
        free_bytes: u64,
    },
    /// The file system refuses.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

client_core::artifact::debug_as_displayed!(LogError);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Space { directory, free_bytes } => {
                write!(f, "only {free_bytes} bytes are free in {}", directory.display())
            }
            LogError::Io { path, source } => write!(f, "cannot write {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for LogError {}

/// Where log lines go, as the service has to do with it.
pub trait Logs: Send {
    /// From now on every line is one of deployment `id`, and also goes to `log`.
    fn begin_deployment(&mut self, id: &DeploymentId, log: Option<DeploymentLog>);

    /// The next line is one of no deployment.
    fn end_deployment(&mut self);
}

/// The deployment that is carried out, for whoever writes log lines.
pub struct DeploymentInHand {
    /// How each of its lines begins.
    label: String,
    /// Its own log, where it has one.
    log: Option<DeploymentLog>,
}

impl DeploymentInHand {
    /// Deployment `id`, whose lines also go to `log`.
    pub fn new(id: &DeploymentId, log: Option<DeploymentLog>) -> DeploymentInHand {
        DeploymentInHand { label: format!("deployment {id}"), log }
    }

    /// `message` as it is, or behind the label: not whoever logs knows of the deployment that it is done for.
    pub fn labelled<'m>(&self, message: &'m str) -> Cow<'m, str> {
        let rest = message.strip_prefix(self.label.as_str());
        if rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric())) {
            return Cow::Borrowed(message);
        }
        Cow::Owned(format!("{}: {message}", self.label))
    }

    /// Adds a line to its own log. The levels are those of the Mender client; `wall` is the time since 1970.
    pub fn append(&mut self, level: &str, message: &str, wall: Duration) {
        if let Some(log) = &mut self.log {
            log.append(level, message, wall);
        }
    }
}

/// The logs in one directory.
#[derive(Debug, Clone)]
pub struct DeploymentLogs {
    directory: PathBuf,
}

impl DeploymentLogs {
    /// Reads and makes nothing yet.
    pub fn new(directory: PathBuf) -> DeploymentLogs {
        DeploymentLogs { directory }
    }

    /// The log of deployment `id`: the one that is there, or a new one in front of the others.
    ///
    /// # Errors
    /// When there is none and none can be made. The deployment goes on without.
    pub fn open(&self, id: &DeploymentId) -> Result<DeploymentLog, LogError> {
        let id = file_part(id);
        let io_error = |path: &Path, source| LogError::Io { path: path.to_owned(), source };
        let list = self.list().map_err(|error| io_error(&self.directory, error))?;
        let existing = list.iter().find(|(_, of)| *of == id);
        let room = file_system::free_bytes(&self.directory);
        // A file system that does not count its blocks has no room to spare.
        let free_bytes = room.map_err(|error| io_error(&self.directory, error))?.unwrap_or(0);
        if existing.is_none() && free_bytes < FREE_BYTES {
            return Err(LogError::Space { directory: self.directory.clone(), free_bytes });
        }
        let path = match existing {
            Some((number, _)) => self.path(*number, &id),
            None => {
                self.shift(list).map_err(|error| io_error(&self.directory, error))?;
                self.path(0, &id)
            }
        };
        DeploymentLog::open(&path).map_err(|error| io_error(&path, error))
    }

    /// The log of deployment `id` as the items of a JSON array, joined by commas, for the server. `None` when there is
    /// nothing to send.
    ///
    /// # Errors
    /// When the log is there and cannot be read.
    pub fn read_for_upload(&self, id: &DeploymentId) -> Result<Option<Vec<u8>>, LogError> {
        let id = file_part(id);
        let io_error = |path: &Path, source| LogError::Io { path: path.to_owned(), source };
        let list = self.list().map_err(|error| io_error(&self.directory, error))?;
        let Some((number, _)) = list.into_iter().find(|(_, of)| *of == id) else { return Ok(None) };
        let path = self.path(number, &id);
        let file = regular_file::open_for_reading(&path).map_err(|error| io_error(&path, error))?;
        let items = sanitised(BufReader::new(file)).map_err(|error| io_error(&path, error))?;
        Ok(Some(items).filter(|items| !items.is_empty()))
    }

    fn path(&self, number: u32, id: &str) -> PathBuf {
        self.directory.join(format!("deployments.{number:04}.{id}.log"))
    }

    /// Numbers of the logs, and ids as they are in file names, the newest first.
    fn list(&self) -> io::Result<Vec<(u32, String)>> {
        let mut list = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            if let Some(found) = entry?.file_name().to_str().and_then(parse_name) {
                list.push(found);
            }
        }
        list.sort();
        Ok(list)
    }

    /// Makes room for number 0. Every step leaves each log under one name, whenever power goes.
    fn shift(&self, list: Vec<(u32, String)>) -> io::Result<()> {
        let mut kept = list;
        for (number, id) in kept.split_off(kept.len().min(KEPT - 1)) {
            fs::remove_file(self.path(number, &id))?;
        }
        for (at, (number, id)) in kept.iter().enumerate().rev() {
            let to = u32::try_from(at + 1).unwrap_or(u32::MAX);
            if *number != to {
                fs::rename(self.path(*number, id), self.path(to, id))?;
            }
        }
        Ok(())
    }
}

/// `deployments.NNNN.<id>.log`
fn parse_name(name: &str) -> Option<(u32, String)> {
    let (number, id) = name.strip_prefix("deployments.")?.strip_suffix(".log")?.split_once('.')?;
    let digits = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !id.is_empty()).then(|| Some((number.parse().ok()?, id.to_owned())))?
}

/// The id as a part of a file name: what some file system cannot have (FAT: `" * : < > |`), and what would mean
/// something else in a path, is `%` and two digits. `%` itself is in no id, so that two ids never share a file; an id
/// without such characters is written as it is. What would be too long for a name of a file ends in a digest of the id.
fn file_part(id: &DeploymentId) -> String {
    let mut part = String::new();
    for byte in id.as_str().bytes() {
        let plain = byte.is_ascii_graphic() && !b"\"*:<>|/\\?%".contains(&byte);
        if plain && !(byte == b'.' && part.is_empty()) {
            part.push(char::from(byte));
        } else {
            part.push_str(&format!("%{byte:02X}"));
        }
    }
    if part.len() > PART_BYTES {
        let digest = Sha256::of(id.as_str().as_bytes()).to_string();
        part.truncate(PART_BYTES - DIGEST_DIGITS - 1);
        part.push('~');
        part.push_str(&digest[..DIGEST_DIGITS]);
    }
    part
}

/// The log of one deployment, open for writing.
#[derive(Debug)]
pub struct DeploymentLog {
    file: File,
    bytes: u64,
    limit: u64,
    /// Whether the last line has no end: power was lost in it, or space.
    torn: bool,
}

impl DeploymentLog {
    fn open(path: &Path) -> io::Result<DeploymentLog> {
        let mut options = OpenOptions::new();
        let mut file = regular_file::open(path, options.read(true).append(true).create(true).mode(0o600))?;
        let bytes = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if bytes > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(DeploymentLog { file, bytes, limit: LOG_BYTES, torn: last != [b'\n'] })
    }

    /// Adds a line. `wall` is the time since 1970. What cannot be written is lost.
    pub fn append(&mut self, level: &str, message: &str, wall: Duration) {
        if self.bytes >= self.limit {
            return;
        }
        let message: String = message.chars().take(MESSAGE_CHARS).collect();
        // Servers refuse a whole log for one empty message.
        let message = if message.is_empty() { " " } else { &message };
        let line = entry(&utc_millis(wall), level, message);
        if self.bytes + line.len() as u64 > self.limit {
            self.write(&entry(&utc_millis(wall), "warning", CUT));
            self.bytes = self.limit;
            return;
        }
        self.write(&line);
    }

    fn write(&mut self, entry: &str) {
        let start = if self.torn { "\n" } else { "" };
        let line = format!("{start}{entry}\n");
        self.torn = self.file.write_all(line.as_bytes()).is_err();
        self.bytes += line.len() as u64;
    }
}

/// One line, without its end. The levels are those of the Mender client 5.x.
fn entry(timestamp: &str, level: &str, message: &str) -> String {
    let line = format!(
        "{{\"timestamp\":{},\"level\":{},\"message\":{}}}",
        json!(timestamp),
        json!(level.to_ascii_uppercase()),
        json!(message)
    );
    // Somebody may look at the file on a terminal.
    printable_json(&line).into_owned()
}

/// The lines of `log` that a server can take, and a word about the others, joined by commas.
fn sanitised(mut log: impl BufRead) -> io::Result<Vec<u8>> {
    let mut tail = Tail::default();
    let mut last_time = NO_TIME.to_owned();
    let (mut any_bad, mut after_bad) = (false, false);
    let mut line = Vec::new();
    loop {
        line.clear();
        if log.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if let Some(time) = time_of(text) {
            last_time = time;
            after_bad = false;
            tail.push(text.to_vec());
            continue;
        }
        if !any_bad {
            tail.push(entry(&last_time, "warning", INVALID).into_bytes());
        }
        // Of many in a row one is enough.
        if !after_bad {
            tail.push(entry(&last_time, "error", CORRUPTED).into_bytes());
        }
        (any_bad, after_bad) = (true, true);
    }
    Ok(tail.joined())
}

/// The time of a line, if a server can take it.
fn time_of(line: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty());
    text("level")?;
    text("message")?;
    text("timestamp").filter(|time| is_rfc3339(time)).map(str::to_owned)
}

/// `2026-11-22T19:04:36Z`, with or without a fraction or an offset instead of the `Z`.
fn is_rfc3339(time: &str) -> bool {
    let Some((date, rest)) = time.split_at_checked(19) else { return false };
    let shape = date.bytes().zip(b"dddd-dd-ddTdd:dd:dd").all(|(byte, wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        other => byte == *other,
    });
    let number = |from: usize| date.get(from..from + 2).and_then(|digits| digits.parse::<u8>().ok());
    let within = |from, range: std::ops::RangeInclusive<u8>| number(from).is_some_and(|n| range.contains(&n));
    let possible = within(5, 1..=12) && within(8, 1..=31) && within(11, 0..=23) && within(14, 0..=59);
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    let offset = zone.len() == 6
        && zone.bytes().zip(b"+dd:dd").all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            b'+' => b"+-".contains(&byte),
            other => byte == *other,
        });
    shape && possible && within(17, 0..=59) && (zone == "Z" || offset)
}

/// The last entries, up to what is sent at most.
#[derive(Default)]
struct Tail {
    entries: VecDeque<Vec<u8>>,
    bytes: usize,
    truncated: bool,
}

impl Tail {
    /// Room for the entry that says that others are missing.
    const NOTE_BYTES: usize = 256;

    fn push(&mut self, entry: Vec<u8>) {
        self.bytes += entry.len() + 1;
        self.entries.push_back(entry);
        while self.bytes > UPLOAD_BYTES - Tail::NOTE_BYTES {
            let Some(first) = self.entries.pop_front() else { return };
            self.bytes -= first.len() + 1;
            self.truncated = true;
        }
    }

    fn joined(mut self) -> Vec<u8> {
        if self.truncated {
            let time = self.entries.front().and_then(|entry| time_of(entry)).unwrap_or(NO_TIME.to_owned());
            self.entries.push_front(entry(&time, "warning", TRUNCATED).into_bytes());
        }
        let mut joined = Vec::with_capacity(self.bytes + Tail::NOTE_BYTES);
        for entry in self.entries {
            if !joined.is_empty() {
                joined.push(b',');
            }
            joined.extend_from_slice(&entry);
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_line_of_a_deployment_begins_with_its_id_once() {
        let deployment = DeploymentInHand::new(&DeploymentId::remembered("a:1"), None);
        let check = |message: &str, expected: &str| assert_eq!(deployment.labelled(message), expected);
        check("verified and written 1 of 2 KiB", "deployment a:1: verified and written 1 of 2 KiB");
        check("deployment a:1: Install -> Reboot (done)", "deployment a:1: Install -> Reboot (done)");
        check("deployment a:12: another", "deployment a:1: deployment a:12: another");
    }

    fn named(id: &str) -> DeploymentId {
        DeploymentId::remembered(id)
    }

    const NOW: Duration = Duration::from_millis(1_795_374_114_007);

    struct Fixture {
        directory: tempfile::TempDir,
        logs: DeploymentLogs,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let logs = DeploymentLogs::new(directory.path().to_owned());
            Fixture { directory, logs }
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(self.directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }

        fn write(&self, id: &str, message: &str) {
            self.logs.open(&named(id)).unwrap().append("info", message, NOW);
        }

        fn file(&self, id: &str) -> PathBuf {
            self.logs.path(0, &file_part(&named(id)))
        }

        /// The entries that are sent, as `LEVEL message`.
        fn upload(&self, id: &str) -> Vec<String> {
            let items = self.logs.read_for_upload(&named(id)).unwrap().unwrap();
            assert!(items.len() <= UPLOAD_BYTES);
            let array: Value = serde_json::from_slice(&[b"[", &items[..], b"]"].concat()).unwrap();
            let shown = |item: &Value| {
                format!("{} {}", item["level"].as_str().unwrap(), item["message"].as_str().unwrap())
            };
            array.as_array().unwrap().iter().map(shown).collect()
        }
    }

    #[test]
    fn a_line_is_one_object_in_a_private_file() {
        let fixture = Fixture::new();
        fixture.write("d1", "a \"quoted\"\nline");
        let text = fs::read_to_string(fixture.file("d1")).unwrap();
        let expected =
            r#"{"timestamp":"2026-11-22T19:01:54.007Z","level":"INFO","message":"a \"quoted\"\nline"}"#;
        assert_eq!(text, format!("{expected}\n"));
        assert_eq!(fs::metadata(fixture.file("d1")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn five_logs_are_kept_and_the_newest_has_number_0() {
        let fixture = Fixture::new();
        for number in 1..=7 {
            fixture.write(&format!("d{number}"), "x");
        }
        let expected: Vec<String> =
            (0..5).map(|number| format!("deployments.{number:04}.d{}.log", 7 - number)).collect();
        assert_eq!(fixture.names(), expected);
        // A gap, as a power cut leaves it, or as the Mender client 3.4 counts.
        fs::remove_file(fixture.directory.path().join("deployments.0001.d6.log")).unwrap();
        fixture.write("d8", "x");
        assert_eq!(fixture.names()[0], "deployments.0000.d8.log");
        assert_eq!(fixture.names().len(), 5);
    }

    #[test]
    fn a_deployment_that_goes_on_goes_on_in_its_log() {
        let fixture = Fixture::new();
        fixture.write("d1", "one");
        fixture.write("d1", "two");
        assert_eq!(fixture.upload("d1"), ["INFO one", "INFO two"]);
        assert_eq!(fixture.names().len(), 1);
    }

    #[test]
    fn power_that_goes_in_the_middle_of_a_line_costs_that_line() {
        let fixture = Fixture::new();
        fixture.write("d1", "one");
        let whole = fs::read(fixture.file("d1")).unwrap();
        for length in 1..whole.len() - 1 {
            fs::write(fixture.file("d1"), [&whole[..], &whole[..length]].concat()).unwrap();
            fixture.write("d1", "two");
            let upload = fixture.upload("d1");
            let expected =
                ["INFO one", &format!("WARNING {INVALID}"), &format!("ERROR {CORRUPTED}"), "INFO two"];
            assert_eq!(upload, expected, "{length}");
        }
    }

    #[test]
    fn a_log_has_a_largest_size() {
        let fixture = Fixture::new();
        let mut log = fixture.logs.open(&named("d1")).unwrap();
        log.limit = 1000;
        for _ in 0..100 {
            log.append("info", "some message", NOW);
        }
        drop(log);
        let upload = fixture.upload("d1");
        assert_eq!(upload.last().unwrap(), &format!("WARNING {CUT}"));
        assert_eq!(upload.iter().filter(|entry| entry.contains(CUT)).count(), 1);
        assert!(fs::metadata(fixture.file("d1")).unwrap().len() < 1200);
    }

    #[test]
    fn what_is_sent_is_the_end_of_a_long_log() {
        let fixture = Fixture::new();
        let mut log = fixture.logs.open(&named("d1")).unwrap();
        for number in 0..600 {
            log.append("info", &format!("{number} {}", "\u{e9}\"".repeat(1000)), NOW);
        }
        let upload = fixture.upload("d1");
        assert_eq!(upload[0], format!("WARNING {TRUNCATED}"));
        assert!(upload.last().unwrap().starts_with("INFO 599 "));
        assert!(upload.len() > 100 && upload.len() < 600);
    }

    #[test]
    fn lines_that_no_server_takes_are_replaced() {
        let good = r#"{"timestamp":"2026-11-22T19:04:36Z","level":"info","message":"x","more":1}"#;
        let check = |bad: &str| {
            let items = sanitised(format!("{bad}\n\n{good}\n{bad}\n{bad}\n").as_bytes()).unwrap();
            let text = String::from_utf8(items).unwrap();
            let first = entry(NO_TIME, "ERROR", CORRUPTED);
            let last = entry("2026-11-22T19:04:36Z", "ERROR", CORRUPTED);
            let notice = entry(NO_TIME, "WARNING", INVALID);
            assert_eq!(text, [&*notice, &first, good, &last].join(","), "{bad}");
        };
        check("garbage");
        check("{}");
        check("[1]");
        check(&good.replace("info", ""));
        check(&good.replace("\"x\"", "\"\""));
        check(&good.replace("\"x\"", "7"));
        check(&good.replace("2026-11-22T19:04:36Z", "yesterday"));
        check(&good.replace('}', ""));
        check(&"x".repeat(200_000));
        assert!(sanitised(&b""[..]).unwrap().is_empty());
        assert!(!sanitised(&b"\xff\xfe\0"[..]).unwrap().is_empty());
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for good in
            ["2026-11-22T19:04:36Z", "2026-11-22T19:04:36.123456789Z", NO_TIME, "2026-11-22T19:04:36+01:00"]
        {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "2026-11-22 19:04:36Z",
            "2026-11-22T19:04:36",
            "2026-13-22T19:04:36Z",
            "2026-11-22T19:04:36.Z",
            "2026-11-22T24:04:36Z",
            "2026-11-22T19:04:36+0100",
            "2026-11-22T19:04:3\u{e9}",
            "",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }

    #[test]
    fn a_deployment_with_a_colon_in_its_id_has_a_log_that_is_sent() {
        let fixture = Fixture::new();
        fixture.write("a:b", "hello");
        assert_eq!(fixture.names(), ["deployments.0000.a%3Ab.log"]);
        assert_eq!(fixture.upload("a:b"), ["INFO hello"]);
    }

    #[test]
    fn the_longest_id_of_characters_that_no_file_may_have_has_a_log_of_its_own() {
        let fixture = Fixture::new();
        let ids = [format!("{}a", ":".repeat(127)), format!("{}b", ":".repeat(127)), "<".repeat(128)];
        for id in &ids {
            fixture.write(id, id);
        }
        assert!(fixture.names().iter().all(|name| name.len() <= 255), "{:?}", fixture.names());
        assert_eq!(fixture.names().len(), ids.len());
        for id in &ids {
            assert_eq!(fixture.upload(id), [format!("INFO {id}")]);
        }
        assert_eq!(file_part(&named(&"x".repeat(128))), "x".repeat(128));
    }

    #[test]
    fn an_id_is_part_of_a_file_name_and_of_no_path() {
        let check = |id: &str, expected: &str| assert_eq!(file_part(&named(id)), expected);
        check("w912bf0e-6c50_4.b", "w912bf0e-6c50_4.b");
        check("a:b", "a%3Ab");
        check("<\"*|>", "%3C%22%2A%7C%3E");
        check(".hidden", "%2Ehidden");
        // No server can give such ones: they are written as nothing but a name all the same.
        check("../x", "%2E.%2Fx");
        check("a%3Ab", "a%253Ab");
        check("a b\n\\", "a%20b%0A%5C");
    }

    #[test]
    fn other_files_are_left_alone() {
        let fixture = Fixture::new();
        let others = ["deployments.1.x.log", "deployments.0000.x", "deployments.0000..log", "state"];
        for name in others {
            fs::write(fixture.directory.path().join(name), "").unwrap();
        }
        for number in 0..7 {
            fixture.write(&format!("d{number}"), "x");
        }
        assert_eq!(fixture.names().len(), 5 + others.len());
    }

    #[test]
    fn a_log_that_cannot_be_started_names_the_directory() {
        let logs = DeploymentLogs::new("/nonexistent/logs".into());
        let error = logs.open(&named("d1")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/logs"), "{error}");
        // There is no space in this file system at all.
        if Path::new("/proc/self").exists() {
            let error = DeploymentLogs::new("/proc/self".into()).open(&named("d1")).unwrap_err();
            assert!(matches!(error, LogError::Space { .. }), "{error}");
        }
    }
}

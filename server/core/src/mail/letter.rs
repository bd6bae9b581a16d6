//! What mails say. Names of devices, alerts and deployments are made by anybody who may say something to the server: none of
//! them ends a line, is longer than it may be, or looks like something else.

use artifact::text::printable;
use lettre::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, Message};

use crate::domain::id;
use crate::domain::mail::News;
use crate::domain::monitor::Level;
use crate::model::time::Timestamp;

/// Characters of a subject, and of a text in a body.
const SUBJECT_CHARS: usize = 150;
const TEXT_CHARS: usize = 400;
/// What people, and their filters, know these mails by.
const SENDER: &str = "rust-ota";

/// From whom, to whom, and what links begin with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) from: &'a Address,
    pub(super) to: &'a Address,
    pub(super) public_url: Option<&'a str>,
}

/// How many of what wait, and some of them.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// All of them.
    pub(super) all: u64,
    /// Alerts that something is not well.
    pub(super) critical: u64,
    /// Roll-outs that were stopped.
    pub(super) stopped: u64,
    /// The newest of those two: first of roll-outs.
    pub(super) newest: Vec<News>,
}

impl Envelope<'_> {
    /// A mail about one event, which has this name.
    pub(super) fn of_one(&self, name: &str, news: &News) -> Result<Vec<u8>, String> {
        let (subject, mut body) = match news {
            News::Alert {
                level,
                device,
                identity,
                name,
                subject: [kind, what, status],
                description,
                happened,
            } => {
                let body = [
                    ("Device", identity),
                    ("Id", device),
                    ("Monitor", name),
                    ("Of", what),
                    ("Type", kind),
                    ("Status", status),
                    ("Says", description),
                    ("Happened", happened),
                ];
                (format!("{}: {name} ({what}) on {identity}", word(*level)), lines(&body))
            }
            News::Stopped { deployment, name, reason, ended } => {
                let was = what_was_done(*ended);
                let body = [
                    ("Roll-out", name),
                    ("Id", deployment),
                    ("It was", &was.to_owned()),
                    ("Because", reason),
                ];
                (format!("STOPPED: roll-out {name} was {was}"), lines(&body))
            }
        };
        body += &self.link(news);
        self.letter(name, &subject, body)
    }

    /// A mail about many events, the last of which has this name.
    pub(super) fn of_many(&self, name: &str, summary: &Summary) -> Result<Vec<u8>, String> {
        let Summary { all, critical, stopped, newest } = summary;
        let well = all.saturating_sub(critical + stopped);
        let subject =
            format!("{all} events: {critical} critical, {stopped} roll-outs stopped, {well} well again");
        let mut body = format!(
            "There was more to tell than fits into mails of one event each.\n\n\
             Critical alerts: {critical}\nStopped roll-outs: {stopped}\nWell again: {well}\n"
        );
        if !newest.is_empty() {
            body += "\nThe newest of what is not well:\n";
        }
        for news in newest {
            body += &match news {
                News::Alert { level, identity, name, subject: [_, what, status], .. } => {
                    let text = format!("{}: {name} ({what}) on {identity}: {status}", word(*level));
                    format!("- {}\n", one_line(&text, TEXT_CHARS))
                }
                News::Stopped { name, reason, ended, .. } => {
                    let text = format!("roll-out {name} was {}: {reason}", what_was_done(*ended));
                    format!("- {}\n", one_line(&text, TEXT_CHARS))
                }
            };
        }
        if let Some(url) = self.public_url {
            body += &format!("\n{url}/\n");
        }
        self.letter(name, &subject, body)
    }

    /// A mail that says that mails arrive.
    pub(super) fn of_test(&self, name: &str) -> Result<Vec<u8>, String> {
        let body = "This mail was asked for by somebody who tries whether mails about alerts arrive.\n";
        self.letter(name, "this is a test", body.to_owned())
    }

    fn link(&self, news: &News) -> String {
        let Some(url) = self.public_url else { return String::new() };
        // Ids are made by the server.
        match news {
            News::Alert { device, .. } => format!("\n{url}/#/devices/{device}\n"),
            News::Stopped { deployment, .. } => format!("\n{url}/#/rollouts/{deployment}\n"),
        }
    }

    fn letter(&self, name: &str, subject: &str, body: String) -> Result<Vec<u8>, String> {
        // Sent twice, it is the same mail.
        let id = id::uuid_of_name(&format!("{name} {}", self.to));
        let from = Mailbox::new(Some(SENDER.to_owned()), self.from.clone());
        let letter = Message::builder()
            .from(from)
            .to(Mailbox::new(None, self.to.clone()))
            // What looks encoded (RFC 2047) would be decoded by whoever reads it, and bring back what was spelt out.
            .subject(format!("[{SENDER}] {}", one_line(subject, SUBJECT_CHARS).replace("=?", "=\\u{3f}")))
            .message_id(Some(format!("<{id}@{}>", self.from.domain())))
            // RFC 3834: nobody's absence is answered to.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            .date_now()
            .body(body.replace('\n', "\r\n"));
        letter.map(|letter| letter.formatted()).map_err(|error| error.to_string())
    }
}

/// The name of a mail that is no event's.
pub(super) fn test_name(now: Timestamp) -> String {
    id::uuid().unwrap_or_else(|_| format!("test {now}"))
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Critical => "CRITICAL",
        Level::Ok => "OK",
    }
}

fn what_was_done(ended: bool) -> &'static str {
    if ended { "aborted" } else { "held and waits for a person" }
}

/// Text of anybody, in one line that is no longer than that.
fn one_line(text: &str, most: usize) -> String {
    let line = printable(text);
    match line.char_indices().nth(most) {
        None => line.into_owned(),
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
    }
}

fn lines(all: &[(&str, &String)]) -> String {
    let said = all.iter().filter(|(_, text)| !text.is_empty());
    said.map(|(name, text)| format!("{name}: {}\n", one_line(text, TEXT_CHARS))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(news: &News) -> String {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let (from, to) = (address("ota@b.example"), address("a@b.example"));
        let envelope = Envelope { from: &from, to: &to, public_url: Some("https://fleet.example") };
        String::from_utf8(envelope.of_one("n", news).unwrap()).unwrap()
    }

    fn alert(name: &str) -> News {
        let text = |text: &str| text.to_owned();
        News::Alert {
            level: Level::Critical,
            device: text("d1"),
            identity: text("mac=a"),
            name: text(name),
            subject: [text("service"), text("app"), text("failed")],
            description: text("x\r\n.\r\nQUIT"),
            happened: String::new(),
        }
    }

    #[test]
    fn a_mail_says_what_it_is_and_leads_to_the_device() {
        let letter = written(&alert("up"));
        let (head, body) = letter.split_once("\r\n\r\n").unwrap();
        for line in [
            "From: rust-ota <ota@b.example>",
            "To: a@b.example",
            "Subject: [rust-ota] CRITICAL: up (app) on mac=a",
            "Auto-Submitted: auto-generated",
            "Content-Type: text/plain; charset=utf-8",
            "MIME-Version: 1.0",
        ] {
            assert!(head.lines().any(|one| one == line), "{line} in {head}");
        }
        assert!(head.contains("\r\nDate: ") && head.contains("@b.example>\r\n"), "{head}");
        assert!(body.contains("\r\nhttps://fleet.example/#/devices/d1\r\n"), "{body}");
        // The same event is the same mail.
        let id =
            |letter: &str| letter.lines().find(|line| line.starts_with("Message-ID: ")).map(str::to_owned);
        assert!(id(&letter).is_some());
        assert_eq!(id(&letter), id(&written(&alert("up"))));
    }

    #[test]
    fn what_looks_encoded_is_not_decoded_by_who_reads_it() {
        let letter = written(&alert("=?utf-8?b?YQ0KQmNjOiB4?="));
        let (head, _) = letter.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("=?") && head.contains("=\\u{3f}utf-8?b?"), "{head}");
    }

    #[test]
    fn names_neither_end_a_line_nor_make_a_header() {
        for name in
            ["a\r\nBcc: x@y.example", "a\nBcc: x@y.example", "a\u{2028}Bcc: x@y", &"ü\r\n".repeat(100)]
        {
            let letter = written(&alert(name));
            let (head, body) = letter.split_once("\r\n\r\n").unwrap();
            assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
            assert!(!body.lines().any(|line| line.starts_with("Bcc") || line == "."), "{body}");
            assert!(letter.lines().all(|line| line.len() < 998 && line.is_ascii()), "{letter}");
            assert_eq!(head.matches("Subject: ").count(), 1);
            assert!(head.len() < 2000, "{}", head.len());
        }
    }
}

//! What a server answers: to each question of the device API, and to a download.

use std::io::Read;
use std::sync::{Arc, Mutex};

use client_core::deploy::{DeploymentId, Report};
use client_core::server::{
    Attribute, AttributeValue, Download, DownloadSettings, Offer, ServerError, Source, UpdateServer,
    address_problem,
};
use server_mender::{Api, Settings};
use testkit::clock::VirtualClock;
use testkit::server::TestCredentials;
use testkit::transport::{Reply, ScriptedTransport};

/// Answers that one run takes from the bytes; after them the server is silent for good.
const ANSWERS: usize = 16;
/// What a device would take of a download here.
const DOWNLOAD_BYTES: u64 = 1 << 16;

/// Any bytes as answers of a server. Between two bytes 0x1e stands one: a byte for the status, lines `name: value` for the
/// headers, and behind an empty line the body.
pub(crate) fn server_answers(bytes: &[u8]) {
    let Some((question, rest)) = bytes.split_first() else { return };
    let answers: Vec<Reply> = rest.split(|byte| *byte == 0x1e).take(ANSWERS).map(reply).collect();
    let mut left = answers.into_iter();
    let transport = ScriptedTransport::answering(move |_| left.next().unwrap_or_else(|| Reply::new(503, "")));
    let clock = VirtualClock::new(1);
    let settings =
        Settings { servers: vec!["https://updates.example.com".to_owned()], ..Settings::default() };
    let api = Api::new(transport.boxed(), Box::new(TestCredentials::default()), clock.shared(), settings);
    ask(question % 6, api, &transport, &clock);
}

/// One answer. The statuses that mean something come more often than the rest.
fn reply(bytes: &[u8]) -> Reply {
    const STATUSES: [u16; 16] =
        [200, 204, 206, 302, 307, 400, 401, 403, 404, 405, 409, 413, 416, 429, 500, 200];
    let Some((status, rest)) = bytes.split_first() else { return Reply::new(503, "") };
    let end = rest.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((&[][..], rest), |end| (&rest[..end], &rest[end + 2..]));
    let mut reply = Reply::new(STATUSES[usize::from(*status) % STATUSES.len()], body);
    for line in String::from_utf8_lossy(head).lines() {
        if let Some((name, value)) = line.split_once(": ") {
            reply = reply.header(name, value);
        }
    }
    reply
}

fn ask(question: u8, mut api: Api, transport: &ScriptedTransport, clock: &VirtualClock) {
    let id = DeploymentId::parse("d:1").expect("an id with a colon");
    let provides = [("artifact_name", "release-1"), ("device_type", "testbox")];
    let provides = provides.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    match question {
        0 => check(api.authenticate()),
        1 => {
            let poll = api.next(&provides);
            if let Ok(Some(offer)) = poll.as_ref().map(|poll| &poll.offer) {
                // What was accepted is accepted again.
                assert_eq!(DeploymentId::parse(offer.id.as_str()).as_ref(), Ok(&offer.id));
                assert_eq!(address_problem(offer.source.url()), None, "an address that cannot be asked");
            }
            check(poll);
        }
        2 => check(api.report(&id, Report::Committing, Some("a remark"))),
        3 => check(
            api.upload_log(&id, br#"{"timestamp":"2026-11-27T00:00:00Z","level":"info","message":"x"}"#),
        ),
        4 => {
            let value = AttributeValue::One("value".to_owned());
            check(api.send_inventory(&[Attribute { name: "name".to_owned(), value }]));
        }
        _ => download(api, transport, clock),
    }
}

fn check<T>(answer: Result<T, ServerError>) {
    if let Err(error) = answer {
        assert!(!error.to_string().is_empty(), "an error without words");
    }
}

/// Whatever the server says, a download ends, and hands out no more than it was told to take.
fn download(api: Api, transport: &ScriptedTransport, clock: &VirtualClock) {
    let settings = DownloadSettings {
        attempts_max: 3,
        budget_bytes: Some(DOWNLOAD_BYTES),
        ..DownloadSettings::default()
    };
    let id = DeploymentId::parse("d:1").expect("an id with a colon");
    let source = Source::public("https://files.example.com/artifact");
    let offer = Offer { id, source, artifact_name: None, device_types: Vec::new() };
    // With a server that can be asked for another address.
    let server = Arc::new(Mutex::new(api));
    let provides = [("artifact_name".to_owned(), "release-1".to_owned())].into();
    let opened = Download::of_offer(&offer, &provides, server, transport.boxed(), clock.shared(), settings);
    let mut download = match opened {
        Ok(download) => download,
        Err(error) => return check::<()>(Err(error)),
    };
    let mut content = Vec::new();
    if let Err(error) = (&mut download).take(2 * DOWNLOAD_BYTES).read_to_end(&mut content) {
        assert!(!error.to_string().is_empty(), "an error without words");
    }
    assert!(content.len() as u64 <= DOWNLOAD_BYTES, "more than the budget");
    // In a corpus each version of a file has a sign of its own: what is handed out is of one of them.
    let signs = [b'1', b'2'].into_iter().filter(|sign| content.contains(sign)).count();
    assert!(signs < 2 || !content.iter().all(|byte| b"12".contains(byte)), "two versions of one file");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_the_corpus_reach_what_they_are_for() {
        let token = b"\x00content-type: application/jwt\n\nhead.body.sign";
        let offer = br#"{"id":"d:1","artifact":{"source":{"uri":"https://files.example.com/a"}}}"#;
        let transport = ScriptedTransport::list([reply(token), reply(&[b"\x00\n\n", &offer[..]].concat())]);
        let settings =
            Settings { servers: vec!["https://updates.example.com".to_owned()], ..Settings::default() };
        let clock = VirtualClock::new(1);
        let mut api =
            Api::new(transport.boxed(), Box::new(TestCredentials::default()), clock.shared(), settings);
        let provides = [("artifact_name".to_owned(), "a".to_owned())].into();
        assert_eq!(api.next(&provides).unwrap().offer.unwrap().id.as_str(), "d:1");
    }
}

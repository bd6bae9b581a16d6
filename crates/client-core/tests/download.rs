//! Downloads over a network that does what it likes.

// A broken assumption of a test stops it, also in what several tests share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_core::artifact::{self, Compression, Limits, Trust};
use client_core::clock::Clock;
use client_core::deploy::{DeploymentId, Report};
use client_core::server::{
    Attribute, Download, DownloadSettings, DownloadStatistics, Offer, Poll, ReportAnswer, ServerError,
    Source, Transport, UpdateServer,
};
use server_mender::{Api, Settings};
use testkit::choice::{Generator, seed, so_many};
use testkit::clock::VirtualClock;
use testkit::server::{Endpoint, Failure, Matcher, SERVER, ServerModel, TestCredentials};
use testkit::transport::{Reply, ScriptedTransport, Sent};

const URL: &str = "https://storage.test/a?signature=secret";

fn patience() -> DownloadSettings {
    DownloadSettings {
        attempts_max: 10,
        longest_wait: Duration::from_secs(60),
        first_wait: Duration::from_secs(1),
        least_bytes_per_second: 100,
        rate_window: Duration::from_secs(60),
        abort_check_every: None,
        budget_bytes: None,
        begin_within: None,
        begin_with: None,
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A storage that honours ranges.
fn serve(bytes: &[u8], sent: &Sent) -> Reply {
    let start = sent.header("range").map_or(0, |range| {
        range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
    });
    let reply = if start == 0 {
        Reply::new(200, bytes)
    } else {
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        Reply::new(206, &bytes[start..]).header("content-range", range)
    };
    reply.sized().header("etag", "\"v1\"")
}

struct Outcome {
    result: Result<Vec<u8>, String>,
    statistics: Option<Arc<DownloadStatistics>>,
    clock: VirtualClock,
    sent: Vec<Sent>,
}

fn fetch_with(transport: &ScriptedTransport, clock: &VirtualClock, settings: DownloadSettings) -> Outcome {
    let transport = transport.clone().with_clock(clock);
    let mut statistics = None;
    let result = Download::open(URL, transport.boxed(), clock.shared(), settings)
        .map_err(|error| error.to_string())
        .and_then(|mut download| {
            statistics = Some(download.statistics());
            let mut bytes = Vec::new();
            download.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            assert_eq!(download.total(), Some(bytes.len() as u64));
            Ok(bytes)
        });
    Outcome { result, statistics, clock: clock.clone(), sent: transport.take_sent() }
}

fn fetch(replies: impl IntoIterator<Item = Reply>) -> Outcome {
    fetch_with(&ScriptedTransport::list(replies), &VirtualClock::new(1), patience())
}

fn part(first: usize, last: usize, total: usize, bytes: &[u8]) -> Reply {
    Reply::new(206, &bytes[first..=last])
        .sized()
        .header("content-range", format!("bytes {first}-{last}/{total}"))
}

#[track_caller]
fn check_refused(replies: impl IntoIterator<Item = Reply>, text: &str) {
    let outcome = fetch(replies);
    let error = outcome.result.unwrap_err();
    assert!(error.contains(text), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_cut_at_any_byte_costs_not_one_byte_twice() {
    let bytes = content(12 * 1024);
    let clock = VirtualClock::new(1);
    for cut in 0..=bytes.len() {
        for breaks in [false, true] {
            let (served, mut first) = (bytes.clone(), true);
            let transport = ScriptedTransport::answering(move |sent| {
                let reply = serve(&served, sent);
                match (std::mem::take(&mut first), breaks) {
                    (true, true) => reply.breaking_after(cut),
                    (true, false) => reply.ending_after(cut),
                    (false, _) => reply,
                }
            });
            let outcome = fetch_with(&transport, &clock, patience());
            assert!(outcome.result.unwrap() == bytes, "cut at {cut}");
            let statistics = outcome.statistics.unwrap();
            assert_eq!((statistics.discarded(), statistics.received()), (0, bytes.len() as u64), "{cut}");
            let whole = cut == bytes.len();
            assert_eq!(outcome.sent.len(), if whole { 1 } else { 2 }, "cut at {cut}");
        }
    }
}

#[test]
fn a_link_that_breaks_again_and_again_brings_everything_once() {
    let bytes = content(100_000);
    for step in [1000, 1001, 1009, 4096, 65_537] {
        let served = bytes.clone();
        let transport = ScriptedTransport::answering(move |sent| serve(&served, sent).breaking_after(step));
        let outcome = fetch_with(&transport, &VirtualClock::new(1), patience());
        assert!(outcome.result.unwrap() == bytes);
        let statistics = outcome.statistics.unwrap();
        assert_eq!((statistics.discarded(), statistics.received()), (0, bytes.len() as u64));
        assert_eq!(statistics.resumes(), (bytes.len() as u64 - 1) / step as u64);
        // Every attempt made progress, so no wait is longer than the first.
        assert!(outcome.clock.take_pauses().iter().all(|wait| *wait <= Duration::from_secs(1)));
    }
}

#[test]
fn the_rest_is_asked_for_with_the_validator_and_nothing_else() {
    let bytes = content(10);
    let outcome = fetch([
        Reply::new(200, &bytes).sized().header("etag", "\"v1\"").breaking_after(4),
        part(4, 9, 10, &bytes),
    ]);
    assert_eq!(outcome.result.unwrap(), bytes);
    let first = vec![("accept-encoding", "identity".to_owned())];
    assert_eq!(outcome.sent[0].headers, first);
    let rest = vec![("range", "bytes=4-".to_owned()), ("if-range", "\"v1\"".to_owned())];
    assert_eq!(outcome.sent[1].headers, [first, rest].concat());
    assert!(outcome.sent.iter().all(|sent| sent.method == "GET" && sent.url == URL && sent.is_download));
}

#[test]
fn without_a_tag_the_date_guards_the_rest_and_without_a_date_the_length() {
    let bytes = content(10);
    let dated = fetch([
        Reply::new(200, &bytes).sized().header("last-modified", "yesterday").breaking_after(4),
        part(4, 9, 10, &bytes),
    ]);
    assert_eq!(dated.result.unwrap(), bytes);
    assert_eq!(dated.sent[1].header("if-range"), Some("yesterday"));
    let weak = fetch([
        Reply::new(200, &bytes).sized().header("etag", "W/\"v1\"").breaking_after(4),
        part(4, 9, 10, &bytes),
    ]);
    assert_eq!(weak.result.unwrap(), bytes);
    assert_eq!(weak.sent[1].header("if-range"), None);
}

#[test]
fn a_server_that_sends_everything_again_is_skipped_through() {
    let bytes = content(10);
    let outcome = fetch([
        Reply::new(200, &bytes).sized().breaking_after(4),
        Reply::new(200, &bytes).sized().breaking_after(2),
        Reply::new(200, &bytes).sized(),
    ]);
    assert_eq!(outcome.result.unwrap(), bytes);
    let statistics = outcome.statistics.unwrap();
    assert_eq!((statistics.discarded(), statistics.received()), (6, 16));
}

#[test]
fn a_range_that_begins_earlier_is_skipped_to_its_place() {
    let bytes = content(10);
    let outcome = fetch([Reply::new(200, &bytes).sized().breaking_after(4), part(1, 9, 10, &bytes)]);
    assert_eq!(outcome.result.unwrap(), bytes);
    assert_eq!(outcome.statistics.unwrap().discarded(), 3);
}

#[test]
fn ranges_in_pieces_are_put_together_and_surplus_is_not_read() {
    let bytes = content(10);
    let outcome = fetch([
        Reply::new(200, &bytes).sized().breaking_after(4),
        part(4, 5, 10, &bytes),
        Reply::new(206, [&bytes[6..], b"surplus"].concat()).header("content-range", "bytes 6-9/10"),
    ]);
    assert_eq!(outcome.result.unwrap(), bytes);
}

#[test]
fn bytes_behind_the_end_of_a_range_or_of_the_whole_are_never_handed_on() {
    let bytes = content(10);
    let first = || Reply::new(200, content(10)).sized().header("etag", "\"v1\"").breaking_after(4);
    let long_part = Reply::new(206, b"\x00\x00garbage").header("content-range", "bytes 4-5/10");
    let mut replies = vec![first(), long_part, part(6, 9, 10, &bytes)];
    let mut expected = bytes.clone();
    expected[4..6].fill(0);
    assert_eq!(fetch(replies).result.unwrap(), expected);
    let surplus = [&bytes[..], b"surplus"].concat();
    replies = vec![first(), Reply::new(200, surplus).header("etag", "\"v1\"")];
    assert_eq!(fetch(replies).result.unwrap(), bytes);
}

#[test]
fn a_connection_that_was_fast_may_not_trickle_for_ever() {
    let bytes = content(1_000_000);
    let (served, mut first) = (bytes.clone(), true);
    let transport = ScriptedTransport::answering(move |sent| {
        let reply = serve(&served, sent);
        let slow = std::mem::take(&mut first);
        if slow { reply.slowly_from(900_000, Duration::from_secs(1), 10) } else { reply }
    });
    let outcome = fetch_with(&transport, &VirtualClock::new(1), patience());
    assert!(outcome.result.unwrap() == bytes);
    assert_eq!((outcome.sent.len(), outcome.statistics.unwrap().discarded()), (2, 0));
}

#[test]
fn an_answer_without_a_length_ends_where_it_ends() {
    assert_eq!(fetch([Reply::new(200, "0123")]).result.unwrap(), b"0123");
    assert_eq!(fetch([Reply::new(200, "").sized()]).result.unwrap(), b"");
    // Only its end was lost.
    let lost =
        [Reply::new(200, "0123").breaking_after(4), Reply::new(416, "").header("content-range", "bytes */4")];
    assert_eq!(fetch(lost).result.unwrap(), b"0123");
}

#[test]
fn content_that_changed_is_refused() {
    let bytes = content(10);
    let first = || Reply::new(200, content(10)).sized().header("etag", "\"v1\"").breaking_after(4);
    let changed = "changed during the transfer";
    check_refused([first(), Reply::new(200, &bytes).sized().header("etag", "\"v2\"")], changed);
    check_refused([first(), Reply::new(200, content(11)).sized()], changed);
    check_refused([first(), part(4, 10, 11, &content(11))], changed);
    check_refused([first(), part(4, 9, 10, &bytes).header("etag", "\"v2\"")], changed);
    check_refused([first(), Reply::new(416, "")], changed);
}

/// A storage that ignores `If-Range`, as servers of the S3 kind do: a range of whatever is there at the moment, with the
/// length and the tag of that.
#[derive(Clone)]
struct Careless {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// What it tells of itself.
    tag: Arc<Mutex<Option<&'static str>>>,
    tells_length: bool,
}

impl Careless {
    fn new(bytes: &[u8], tag: Option<&'static str>, tells_length: bool) -> Careless {
        let bytes = Arc::new(Mutex::new(bytes.to_vec()));
        Careless { bytes, tag: Arc::new(Mutex::new(tag)), tells_length }
    }

    fn answer(&self, sent: &Sent) -> Reply {
        let bytes = self.bytes.lock().unwrap();
        let start = sent.header("range").map_or(0, |range| {
            range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
        });
        let reply = if start == 0 {
            Reply::new(200, &*bytes)
        } else if start >= bytes.len() {
            return Reply::new(416, "");
        } else {
            let total = if self.tells_length { bytes.len().to_string() } else { "*".to_owned() };
            let range = format!("bytes {start}-{}/{total}", bytes.len() - 1);
            Reply::new(206, &bytes[start..]).header("content-range", range)
        };
        let reply = if self.tells_length { reply.sized() } else { reply };
        match *self.tag.lock().unwrap() {
            Some(tag) => reply.header("etag", tag),
            None => reply,
        }
    }

    /// Its first answer breaks after 400 bytes, and with it becomes what `then` makes of it.
    fn breaking_once(&self, then: impl FnOnce(&Careless) + Send + 'static) -> ScriptedTransport {
        let (storage, mut then) = (self.clone(), Some(then));
        ScriptedTransport::answering(move |sent| {
            let reply = storage.answer(sent);
            match then.take() {
                Some(then) => {
                    then(&storage);
                    reply.breaking_after(400)
                }
                None => reply,
            }
        })
    }
}

fn fetch_careless(storage: &Careless, then: impl FnOnce(&Careless) + Send + 'static) -> Outcome {
    fetch_with(&storage.breaking_once(then), &VirtualClock::new(1), patience())
}

#[test]
fn a_part_is_believed_only_when_it_shows_the_same_object() {
    let (bytes, mut other) = (content(1000), content(1000));
    other[0] ^= 1;
    let longer = content(1001);
    for (tag, tells_length) in
        [(Some("\"v1\""), true), (Some("\"v1\""), false), (Some("W/\"v1\""), true), (None, true)]
    {
        let storage = Careless::new(&bytes, tag, tells_length);
        let outcome = fetch_careless(&storage, |_| {});
        assert!(outcome.result.unwrap() == bytes, "{tag:?} {tells_length}");
        assert_eq!((outcome.sent.len(), outcome.statistics.unwrap().discarded()), (2, 0));
        // Replaced in the middle: other bytes, and where there is a tag another tag.
        for (replaced, new_tag) in [(&other, tag.map(|_| "\"v2\"")), (&longer, tag.map(|_| "W/\"v2\""))] {
            if tag.is_none() && replaced.len() == bytes.len() {
                // Nothing but the content differs: the digests of the artifact have the last word.
                continue;
            }
            let storage = Careless::new(&bytes, tag, tells_length);
            let replaced = replaced.clone();
            let outcome = fetch_careless(&storage, move |storage| {
                *storage.bytes.lock().unwrap() = replaced;
                *storage.tag.lock().unwrap() = new_tag;
            });
            let error = outcome.result.unwrap_err();
            assert!(error.contains("changed during the transfer"), "{tag:?} {new_tag:?}: {error}");
            assert_eq!(outcome.sent.len(), 2);
        }
        // Replaced by something shorter than what is here already.
        let outcome = fetch_careless(&Careless::new(&bytes, tag, tells_length), |storage| {
            storage.bytes.lock().unwrap().truncate(300);
        });
        assert!(outcome.result.unwrap_err().contains("changed during the transfer"));
    }
}

#[test]
fn a_tag_that_is_lost_leaves_the_length_to_decide() {
    let bytes = content(1000);
    let lose = |storage: &Careless| *storage.tag.lock().unwrap() = None;
    let outcome = fetch_careless(&Careless::new(&bytes, Some("\"v1\""), true), lose);
    assert!(outcome.result.unwrap() == bytes);
    // Without a length either, a part shows nothing, and a whole neither.
    let outcome = fetch_careless(&Careless::new(&bytes, Some("\"v1\""), false), lose);
    assert!(outcome.result.unwrap_err().contains("nothing shows"));
    assert_eq!(outcome.sent.iter().filter(|sent| sent.header("range").is_none()).count(), 2);
}

#[test]
fn what_tells_neither_tag_nor_length_is_begun_again_and_its_beginning_compared() {
    let bytes = content(1000);
    let storage = Careless::new(&bytes, None, false);
    let outcome = fetch_careless(&storage, |_| {});
    assert!(outcome.result.unwrap() == bytes);
    let statistics = outcome.statistics.unwrap();
    assert_eq!((statistics.discarded(), statistics.received()), (400, 1400));
    let ranges: Vec<bool> = outcome.sent.iter().map(|sent| sent.header("range").is_some()).collect();
    assert_eq!(ranges, [false, true, false]);
    // A beginning that is another one by a single bit.
    for at in [0, 200, 399] {
        let outcome = fetch_careless(&storage, move |storage| storage.bytes.lock().unwrap()[at] ^= 1);
        let error = outcome.result.unwrap_err();
        assert!(error.contains("it begins with other bytes"), "{error}");
        *storage.bytes.lock().unwrap() = bytes.clone();
    }
    // A server that knows no ranges is the same.
    let outcome = fetch([
        Reply::new(200, &bytes).breaking_after(400),
        Reply::new(200, &bytes).breaking_after(200),
        Reply::new(200, &bytes).breaking_after(600),
        Reply::new(200, &bytes),
    ]);
    assert!(outcome.result.unwrap() == bytes);
    assert_eq!(outcome.statistics.unwrap().discarded(), 400 + 200 - 400 + 400 + 600);
}

#[test]
fn beginning_again_has_an_end() {
    let bytes = content(100_000);
    let (served, mut length) = (bytes.clone(), 0);
    let transport = ScriptedTransport::answering(move |_| {
        // A little further each time: never without progress.
        length += 100;
        Reply::new(200, &served).breaking_after(length)
    });
    let outcome = fetch_with(&transport, &VirtualClock::new(1), patience());
    let error = outcome.result.unwrap_err();
    assert!(error.contains("begun anew 10 times"), "{error}");
    assert_eq!(outcome.sent.len(), 12);
    // It may not cost more than it may cost.
    let settings = DownloadSettings { budget_bytes: Some(1200), ..patience() };
    let transport = Careless::new(&content(1000), None, false).breaking_once(|_| {});
    let error = fetch_with(&transport, &VirtualClock::new(1), settings).result.unwrap_err();
    assert!(error.contains("budget"), "{error}");
}

#[test]
fn a_length_that_is_learned_on_the_way_guards_the_rest() {
    let bytes = content(1000);
    let outcome = fetch([
        Reply::new(200, &bytes).breaking_after(400),
        part(400, 999, 1000, &bytes),
        Reply::new(200, &bytes).sized().breaking_after(700),
        part(700, 999, 1000, &bytes),
    ]);
    assert!(outcome.result.unwrap() == bytes);
    assert_eq!(outcome.statistics.unwrap().discarded(), 400);
}

#[test]
fn a_part_that_nobody_asked_for_is_taken_when_it_is_the_first() {
    let bytes = content(1000);
    let outcome = fetch([part(0, 399, 1000, &bytes), part(400, 999, 1000, &bytes)]);
    assert!(outcome.result.unwrap() == bytes);
    check_refused([part(1, 999, 1000, &bytes)], "answered 206");
}

#[test]
fn somebody_who_waits_is_answered_soon_until_the_first_byte_came() {
    let settings = || DownloadSettings { begin_within: Some(Duration::from_secs(10)), ..patience() };
    for dead in [
        Reply::no_answer("connection refused"),
        Reply::new(503, ""),
        Reply::new(429, "").header("retry-after", "600"),
    ] {
        let transport = ScriptedTransport::answering(move |_| dead.clone());
        let outcome = fetch_with(&transport, &VirtualClock::new(1), settings());
        let error = outcome.result.unwrap_err();
        assert!(error.contains("giving up"), "{error}");
        let waited: Duration = outcome.clock.take_pauses().iter().sum();
        assert!(waited <= Duration::from_secs(10) && outcome.sent.len() < 6, "{waited:?}: {error}");
    }
    // Once bytes have come the patience is the usual one.
    let bytes = content(10);
    let (served, mut count) = (bytes.clone(), 0);
    let transport = ScriptedTransport::answering(move |sent| {
        count += 1;
        match count {
            1 => serve(&served, sent).breaking_after(4),
            2..=8 => Reply::no_answer("connection refused"),
            _ => serve(&served, sent),
        }
    });
    let outcome = fetch_with(&transport, &VirtualClock::new(1), settings());
    assert_eq!(outcome.result.unwrap(), bytes);
    assert!(outcome.clock.take_pauses().iter().sum::<Duration>() > Duration::from_secs(30));
}

#[test]
fn answers_that_do_not_fit_are_tried_again() {
    let bytes = content(10);
    let outcome = fetch([
        Reply::new(200, &bytes).sized().header("etag", "\"v1\"").breaking_after(4),
        part(5, 9, 10, &bytes),
        part(0, 3, 10, &bytes),
        Reply::new(206, &bytes[4..]),
        Reply::new(206, &bytes[4..]).header("content-range", "bytes 4-99999999999999999999/10"),
        Reply::new(200, "<html>pay</html>").header("content-type", "text/html"),
        Reply::new(503, ""),
        Reply::no_answer("timeout"),
        part(4, 9, 10, &bytes),
    ]);
    assert_eq!(outcome.result.unwrap(), bytes);
}

#[test]
fn what_cannot_pass_is_not_waited_for() {
    for status in [400, 401, 403, 404, 405, 410, 418, 206, 204, 304, 100] {
        check_refused([Reply::new(status, "")], &format!("answered {status}"));
    }
    check_refused([Reply::no_trust(&format!("the certificate of {URL} is not accepted"))], "certificate");
    check_refused([Reply::new(200, "x").header("content-encoding", "gzip")], "gzip");
    check_refused([Reply::new(200, " <html>").header("content-type", "text/html")], "captive portal");
}

#[test]
fn a_transfer_without_progress_is_given_up_with_growing_waits() {
    let transport = ScriptedTransport::answering(|_| Reply::new(500, ""));
    let outcome = fetch_with(&transport, &VirtualClock::new(5), patience());
    let error = outcome.result.unwrap_err();
    assert!(error.contains("after 10 attempts") && error.contains("500"), "{error}");
    assert_eq!(outcome.sent.len(), 10);
    let pauses = outcome.clock.take_pauses();
    for (pause, most) in pauses.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
        let most = Duration::from_secs(most);
        assert!(*pause >= most / 2 && *pause <= most, "{pauses:?}");
    }
    assert_eq!(pauses.len(), 9);
}

#[test]
fn retry_after_is_honoured_within_bounds() {
    let bytes = content(10);
    let check = |status: u16, text: &str, least: u64, most: u64| {
        let outcome =
            fetch([Reply::new(status, "").header("retry-after", text), Reply::new(200, &bytes).sized()]);
        assert!(outcome.result.is_ok());
        let pause = outcome.clock.take_pauses()[0];
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        assert!(range.contains(&pause), "{status} {text}: {pause:?}");
    };
    check(503, "120", 120_000, 132_000);
    check(429, "120", 120_000, 132_000);
    check(500, "120", 500, 1000);
    check(503, "99999999999999999999", 86_400_000, 95_040_000);
    for garbage in ["-5", "soon", "", "1e9", "\u{1}"] {
        check(503, garbage, 500, 1000);
    }
}

#[test]
fn bytes_that_trickle_are_a_stall_and_give_up_in_the_end() {
    let bytes = content(1_000_000);
    let trickling = |served: Vec<u8>, times: usize| {
        let mut count = 0;
        ScriptedTransport::answering(move |sent| {
            count += 1;
            let reply = serve(&served, sent);
            if count > times { reply } else { reply.slowly(Duration::from_secs(1), 10) }
        })
    };
    let outcome = fetch_with(&trickling(bytes.clone(), 3), &VirtualClock::new(1), patience());
    assert!(outcome.result.unwrap() == bytes);
    assert_eq!((outcome.statistics.unwrap().discarded(), outcome.sent.len()), (0, 4));
    let outcome = fetch_with(&trickling(bytes, usize::MAX), &VirtualClock::new(1), patience());
    let error = outcome.result.unwrap_err();
    assert!(error.contains("only") && outcome.sent.len() == 10, "{error}");
    assert!(outcome.clock.now() < Duration::from_secs(3600));
}

#[test]
fn a_slow_reader_is_no_slow_network() {
    let (bytes, clock) = (content(5000), VirtualClock::new(1));
    let served = bytes.clone();
    let transport = ScriptedTransport::answering(move |sent| serve(&served, sent));
    let mut download = Download::open(URL, transport.boxed(), clock.shared(), patience()).unwrap();
    let mut read = Vec::new();
    let mut one = [0];
    while download.read(&mut one).unwrap() == 1 {
        clock.advance(Duration::from_secs(1));
        read.push(one[0]);
    }
    assert!(read == bytes);
    assert_eq!(transport.take_sent().len(), 1);
}

#[test]
fn redirects_are_followed_with_the_range_and_never_from_https_to_http() {
    let bytes = content(10);
    let to = |status, location: &str| Reply::new(status, "").header("location", location);
    let outcome = fetch([
        to(302, "https://other.test/b"),
        to(307, "../c?x"),
        Reply::new(200, &bytes).sized().header("etag", "\"v1\"").breaking_after(4),
        to(303, "https://other.test/d"),
        part(4, 9, 10, &bytes),
    ]);
    assert_eq!(outcome.result.unwrap(), bytes);
    assert_eq!(outcome.sent[2].url, "https://other.test/../c?x");
    assert_eq!(outcome.sent[3].url, URL);
    assert_eq!(outcome.sent[4].header("range"), Some("bytes=4-"));
    check_refused([to(302, "http://storage.test/a")], "from https to http");
    check_refused([to(302, "file:///etc/passwd")], "redirected to nowhere");
    check_refused([Reply::new(301, "")], "redirected to nowhere");
    check_refused((0..6).map(|at| to(308, &format!("/{at}"))), "too many redirects");
}

#[test]
fn a_stop_ends_a_transfer_and_a_wait() {
    let clock = VirtualClock::new(1);
    clock.stop_in(Duration::from_millis(100));
    let transport = ScriptedTransport::answering(|_| Reply::new(500, ""));
    let result = Download::open(URL, transport.boxed(), clock.shared(), patience());
    assert!(matches!(result, Err(ServerError::Stopped)));

    let clock = VirtualClock::new(1);
    let bytes = content(10);
    let transport = ScriptedTransport::answering(move |sent| serve(&bytes, sent));
    let mut download = Download::open(URL, transport.boxed(), clock.shared(), patience()).unwrap();
    clock.stop();
    let error = download.read(&mut [0; 4]).unwrap_err();
    assert!(matches!(Download::cause(&error), Some(ServerError::Stopped)));
    assert!(!is_abort(&error));
}

/// A deployment `d1` of `artifact` with everything that is needed to download it.
/// Whether `error`, at some depth, says that the server aborted the deployment.
fn is_abort(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(Download::cause(error), Some(ServerError::Aborted { .. }))
}

struct Order {
    model: ServerModel,
    clock: VirtualClock,
    api: Arc<Mutex<Api>>,
    provides: BTreeMap<String, String>,
    offer: Offer,
}

fn order(artifact: &[u8]) -> Order {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    model.deploy("d1", "release-2", "testbox", artifact);
    let settings = Settings { servers: vec![SERVER.to_owned()], ..Settings::default() };
    let mut api = Api::new(model.transport(), Box::new(TestCredentials::default()), clock.shared(), settings);
    let provides = [("artifact_name", "release-1"), ("device_type", "testbox")];
    let provides = provides.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let offer = api.next_deployment(&provides).unwrap().unwrap();
    Order { model, clock, api: Arc::new(Mutex::new(api)), provides, offer }
}

impl Order {
    fn download(&self, abort_check_every: Option<Duration>) -> Result<Download, ServerError> {
        let settings = DownloadSettings { abort_check_every, ..patience() };
        let api = Arc::clone(&self.api);
        let transport: Box<dyn Transport> = self.model.transport();
        Download::of_offer(&self.offer, &self.provides, api, transport, self.clock.shared(), settings)
    }
}

#[test]
fn an_expired_link_is_replaced_at_every_phase_and_the_transfer_goes_on() {
    let bytes = content(1000);
    for read_before in [0, 1, 500, 999] {
        for status in [401, 403, 404, 410] {
            let order = order(&bytes);
            if read_before > 0 {
                order.model.fail_next(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(read_before));
            }
            if status == 403 {
                // The real thing; the others are only said.
                if read_before == 0 {
                    order.model.expire_links("d1");
                }
            } else if read_before == 0 {
                order.model.fail_next(Matcher::Of(Endpoint::Artifact), Failure::Status(status));
                order.model.expire_links("d1");
            }
            let mut download = order.download(None).unwrap();
            if read_before > 0 {
                if status != 403 {
                    order.model.fail_next(Matcher::Of(Endpoint::Artifact), Failure::Status(status));
                }
                order.model.expire_links("d1");
            }
            let mut read = Vec::new();
            download.read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{status} after {read_before}");
            assert_eq!(download.statistics().discarded(), 0);
            let asked = order.model.take_sent();
            assert_eq!(asked.iter().filter(|sent| sent.path().ends_with("/next")).count(), 2);
        }
    }
}

#[test]
fn behind_a_new_link_other_content_is_refused() {
    let bytes = content(1000);
    let check = |artifact: &[u8], etag: Option<&str>, expected: bool| {
        let order = order(&bytes);
        order.model.fail_next(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(500));
        let mut download = order.download(None).unwrap();
        order.model.expire_links("d1");
        order.model.replace_artifact("d1", artifact, etag);
        let mut read = Vec::new();
        let result = download.read_to_end(&mut read);
        assert_eq!(result.is_ok(), expected, "{result:?}");
        if expected {
            assert!(read == bytes);
        }
    };
    check(&bytes, Some("\"d1-1\""), true);
    // Another storage, the same length: the signature has the last word.
    check(&bytes, Some("\"other\""), true);
    check(&bytes, None, true);
    check(&content(1001), Some("\"other\""), false);
    check(&content(1001), None, false);
}

#[test]
fn links_that_are_never_good_are_given_up() {
    let order = order(&content(1000));
    order.model.fail_always(Matcher::Of(Endpoint::Artifact), Failure::Status(403));
    let error = order.download(None).err().unwrap();
    assert!(matches!(error, ServerError::Status { status: 403, .. }), "{error}");
    assert!(order.model.take_sent().len() < 12);
    // The same address again is not asked again at once.
    assert!(order.clock.take_pauses().len() >= 2);
}

#[test]
fn a_link_without_a_deployment_behind_it_is_an_abort() {
    for other in [false, true] {
        let order = order(&content(1000));
        order.model.fail_next(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(500));
        let mut download = order.download(None).unwrap();
        order.model.expire_links("d1");
        order.model.abort("d1");
        if other {
            order.model.deploy("d2", "release-3", "testbox", b"x");
        }
        let error = download.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(is_abort(&error), "{error}");
    }
}

#[test]
fn a_server_that_is_away_when_the_link_expires_is_waited_for() {
    let bytes = content(1000);
    let order = order(&bytes);
    order.model.fail_next(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(500));
    let mut download = order.download(None).unwrap();
    order.model.expire_links("d1");
    for failure in [Failure::Status(503), Failure::LostAnswer, Failure::NotReached, Failure::CaptivePortal] {
        order.model.fail_next(Matcher::Of(Endpoint::Next), failure);
    }
    let mut read = Vec::new();
    download.read_to_end(&mut read).unwrap();
    assert!(read == bytes && download.statistics().discarded() == 0);
}

#[test]
fn an_abort_is_noticed_in_the_middle_and_found_at_any_depth() {
    // More than is read ahead, so that the server is asked again behind the abort.
    let image = content(3_000_000);
    let order = order(&testkit::artifacts::rootfs("release-2", &image));
    let every = Some(Duration::from_secs(30));
    let download = order.download(every).unwrap();
    let trust = Trust::DangerUnsigned;
    let mut artifact = artifact::open(download, &trust, &Limits::default()).unwrap();
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    let mut start = [0; 1000];
    file.read_exact(&mut start).unwrap();
    assert!(start[..] == image[..1000]);
    order.model.abort("d1");
    order.clock.advance(Duration::from_secs(31));
    let mut rest = Vec::new();
    let error = file.read_to_end(&mut rest).unwrap_err();
    assert!(is_abort(&error), "{error:?}");
    assert!(start.len() + rest.len() < image.len(), "{} bytes", rest.len());
}

#[test]
fn an_abort_before_the_header_is_found_inside_the_error_of_the_artifact() {
    let order = order(&testkit::artifacts::rootfs("release-2", &content(1000)));
    let download = order.download(Some(Duration::from_secs(30))).unwrap();
    order.model.abort("d1");
    order.clock.advance(Duration::from_secs(31));
    let trust = Trust::DangerUnsigned;
    let error = artifact::open(download, &trust, &Limits::default()).err().unwrap();
    assert!(is_abort(&error), "{error:?}");
    let wrapped = io::Error::other(error);
    assert!(is_abort(&wrapped));
    assert!(!is_abort(&io::Error::other("else")));
}

#[test]
fn an_abort_is_found_through_the_thread_that_decompresses() {
    let spec = testkit::artifacts::rootfs_spec("release-2", Compression::Gzip);
    let noise: Vec<u8> = {
        let clock = VirtualClock::new(9);
        (0..300_000).map(|_| clock.random() as u8).collect()
    };
    let file = testkit::artifacts::MemoryFile { name: "rootfs.img".into(), content: noise };
    let bytes = testkit::artifacts::build(&spec, &[file], None);
    let order = order(&bytes);
    // Time passes only in the wait after the connection broke, in the payload: there the server is asked.
    order.model.fail_next(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(bytes.len() / 2));
    let download = order.download(Some(Duration::from_millis(1))).unwrap();
    order.model.abort("d1");
    let trust = Trust::DangerUnsigned;
    let mut artifact = artifact::open(download, &trust, &Limits::default()).unwrap();
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    let error = file.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(is_abort(&error), "{error:?}");
}

#[test]
fn asking_about_an_abort_does_not_disturb_the_transfer() {
    let bytes = content(100_000);
    let order = order(&bytes);
    for failure in [Failure::Status(500), Failure::LostAnswer, Failure::NotReached, Failure::Status(404)] {
        order.model.fail_next(Matcher::Of(Endpoint::Status), failure);
    }
    let mut download = order.download(Some(Duration::from_secs(30))).unwrap();
    let mut read = Vec::new();
    let mut chunk = [0; 10_000];
    loop {
        let count = download.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        read.extend_from_slice(&chunk[..count]);
        order.clock.advance(Duration::from_secs(16));
    }
    assert!(read == bytes);
    let reports = order.model.reports("d1");
    assert!(!reports.is_empty() && reports.iter().all(|status| status == "downloading"), "{reports:?}");
}

#[test]
fn an_address_that_is_none_is_refused_without_a_request() {
    for url in ["", "file:///etc/passwd", "https://", "https://h/\r\nx: y", "h/a", "http://h/my file"] {
        let transport = ScriptedTransport::list([]);
        let clock = VirtualClock::new(1);
        let result = Download::open(url, transport.boxed(), clock.shared(), patience());
        let error = result.err().unwrap();
        assert!(matches!(error, ServerError::Address { .. }), "{error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
}

#[test]
fn the_error_has_a_source_that_can_be_walked() {
    let error = ServerError::Aborted { id: "d1".into() };
    let boxed: Box<dyn Error> = Box::new(error);
    assert!(is_abort(&*boxed));
}

/// A network that does anything, drawn from `clock`, with a storage that only ever has `bytes`.
fn anything(bytes: &[u8], sent: &Sent, clock: &VirtualClock) -> Reply {
    let draw = |n: usize| clock.random() as usize % n;
    let start = sent.header("range").map_or(0, |range| {
        range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
    });
    let (length, last) = (bytes.len(), bytes.len() - 1);
    let range = |first: usize, last: usize| format!("bytes {first}-{last}/{length}");
    let reply = match draw(12) {
        0 => return Reply::no_answer("no route"),
        1 => Reply::new([408, 429, 500, 502, 503, 504][draw(6)], "").header("retry-after", "1"),
        2 => Reply::new(302, "").header("location", "/elsewhere"),
        3 => Reply::new(200, bytes).sized(),
        4 if start > 0 => {
            let first = draw(start + 1);
            Reply::new(206, &bytes[first..]).header("content-range", range(first, last))
        }
        5 if start > 0 => {
            let end = start + draw(length - start);
            Reply::new(206, &bytes[start..=end]).sized().header("content-range", range(start, end))
        }
        6 if start > 0 => Reply::new(206, b"garbage").header("content-range", "bytes x-y/z"),
        7 if start > 0 => Reply::new(200, "<html>").header("content-type", "text/html"),
        _ => serve(bytes, sent),
    };
    match draw(4) {
        0 => reply.breaking_after(draw(length)),
        1 => reply.ending_after(draw(length)),
        2 => reply.slowly(Duration::from_millis(draw(3000) as u64), 1 + draw(1000)),
        _ => reply,
    }
}

#[test]
fn whatever_the_network_does_what_arrives_is_the_beginning_of_the_artifact() {
    let bytes = content(3000);
    let (mut whole, mut received, mut discarded) = (0, 0, 0);
    let runs = so_many(3000);
    let mut seeds = Generator::new(seed());
    for _ in 0..runs {
        let seed = seeds.next_word();
        let clock = VirtualClock::new(seed);
        let (served, faults) = (bytes.clone(), clock.clone());
        let transport = ScriptedTransport::answering(move |sent| anything(&served, sent, &faults));
        let transport = transport.with_clock(&clock);
        let settings = DownloadSettings { attempts_max: 30, ..patience() };
        let Ok(mut download) = Download::open(URL, transport.boxed(), clock.shared(), settings) else {
            continue;
        };
        let mut read = Vec::new();
        let result = download.read_to_end(&mut read);
        assert!(bytes.starts_with(&read), "seed {seed}");
        if result.is_ok() {
            assert!(read.len() == bytes.len(), "seed {seed}: {} bytes", read.len());
            whole += 1;
        }
        received += download.statistics().received();
        discarded += download.statistics().discarded();
        assert!(
            download.statistics().received() - download.statistics().discarded() == read.len() as u64,
            "seed {seed}"
        );
    }
    assert!(whole > runs / 30 * 29, "{whole} whole, {received} received, {discarded} discarded");
}

#[test]
fn links_may_expire_as_often_as_they_like_while_bytes_come() {
    let bytes = content(1000);
    let order = order(&bytes);
    order.model.fail_always(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(100));
    let mut download = order.download(None).unwrap();
    let mut read = Vec::new();
    let mut chunk = [0; 100];
    while read.len() < bytes.len() {
        let count = download.read(&mut chunk).unwrap();
        read.extend_from_slice(&chunk[..count]);
        order.model.expire_links("d1");
    }
    assert!(read == bytes && download.statistics().discarded() == 0);
}

#[test]
fn a_new_link_is_as_encrypted_as_the_old_one() {
    let clock = VirtualClock::new(1);
    let next = r#"{"id":"d1","artifact":{"source":{"uri":"http://storage.test/b"}}}"#;
    let server = ScriptedTransport::list([Reply::new(200, "a.b.c"), Reply::new(200, next)]);
    let settings = Settings { servers: vec![SERVER.to_owned()], ..Settings::default() };
    let api = Api::new(server.boxed(), Box::new(TestCredentials::default()), clock.shared(), settings);
    let offer = Offer {
        id: DeploymentId::parse("d1").unwrap(),
        source: Source::public(URL),
        artifact_name: None,
        device_types: Vec::new(),
    };
    let storage = ScriptedTransport::list([Reply::new(403, "")]);
    let api = Arc::new(Mutex::new(api));
    let nothing = BTreeMap::new();
    let result = Download::of_offer(&offer, &nothing, api, storage.boxed(), clock.shared(), patience());
    let error = result.err().unwrap();
    assert!(error.to_string().contains("not encrypted"), "{error}");
}

#[test]
fn the_server_is_asked_about_an_abort_as_often_as_configured() {
    let order = order(&content(1000));
    let mut download = order.download(Some(Duration::from_secs(30))).unwrap();
    for _ in 0..100 {
        download.read_exact(&mut [0; 10]).unwrap();
        order.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(order.model.reports("d1").len(), 33);
}

/// A server whose artifacts are for those who log in, and whose addresses are good once.
struct LoginServer(Vec<Source>);

impl UpdateServer for LoginServer {
    fn next(&mut self, _: &BTreeMap<String, String>) -> Result<Poll, ServerError> {
        Ok(Poll::default())
    }
    fn refresh(
        &mut self,
        _: &DeploymentId,
        _: &BTreeMap<String, String>,
    ) -> Result<Option<Source>, ServerError> {
        Ok(self.0.pop())
    }
    fn report(&mut self, _: &DeploymentId, _: Report, _: Option<&str>) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Accepted)
    }
    fn upload_log(&mut self, _: &DeploymentId, _: &[u8]) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Accepted)
    }
    fn send_inventory(&mut self, _: &[Attribute]) -> Result<(), ServerError> {
        Ok(())
    }
    fn forget_sent_inventory(&mut self) {}
    fn forget_token(&mut self) {}
    fn is_authorized(&self) -> bool {
        true
    }
    fn server(&self) -> Option<&str> {
        None
    }
}

/// Downloads from `source`, and from `later` once it is refused: each address asked, with what was said to it.
fn said_to(source: Source, later: Vec<Source>, replies: Vec<Reply>) -> Vec<(String, Option<String>)> {
    let (clock, storage) = (VirtualClock::new(1), ScriptedTransport::list(replies));
    let id = DeploymentId::parse("1:2").unwrap();
    let offer = Offer { id, source, artifact_name: None, device_types: Vec::new() };
    let server = Arc::new(Mutex::new(LoginServer(later)));
    let nothing = BTreeMap::new();
    let mut download =
        Download::of_offer(&offer, &nothing, server, storage.boxed(), clock.shared(), patience()).unwrap();
    download.read_to_end(&mut Vec::new()).unwrap();
    let sent = storage.take_sent();
    sent.iter().map(|sent| (sent.url.clone(), sent.header("authorization").map(str::to_owned))).collect()
}

#[test]
fn what_is_said_to_one_origin_is_said_to_no_other() {
    let source = |url: &str, secret: &str| {
        Source::public(url).with_headers(vec![("authorization", secret.to_owned())])
    };
    let to = |place: &str| Reply::new(302, "").header("location", place);
    let heard = |url: &str, secret: Option<&str>| (url.to_owned(), secret.map(str::to_owned));
    let places =
        ["https://h.test/b", "https://H.test:443/c", "https://h.test:8443/d", "https://h.test.evil/e"];
    let replies = places.map(to).into_iter().chain([Reply::new(200, "x").sized()]).collect();
    assert_eq!(
        said_to(source("https://h.test/a", "s"), Vec::new(), replies),
        [
            heard("https://h.test/a", Some("s")),
            heard("https://h.test/b", Some("s")),
            heard("https://H.test:443/c", Some("s")),
            heard("https://h.test:8443/d", None),
            heard("https://h.test.evil/e", None),
        ]
    );
    // An origin is its scheme too.
    let replies = vec![to("https://h.test/b"), Reply::new(200, "x").sized()];
    assert_eq!(said_to(source("http://h.test/a", "s"), Vec::new(), replies)[1].1, None);
    // A later address has its own headers, and none of the earlier one.
    let replies = vec![Reply::new(403, ""), Reply::new(403, ""), Reply::new(200, "x").sized()];
    let later = vec![source("https://h.test/c", "t"), Source::public("https://h.test/b")];
    assert_eq!(
        said_to(source("https://h.test/a", "s"), later, replies),
        [
            heard("https://h.test/a", Some("s")),
            heard("https://h.test/b", None),
            heard("https://h.test/c", Some("t"))
        ]
    );
}

#[test]
fn an_artifact_that_is_known_to_be_too_long_is_not_asked_for() {
    let (clock, storage) = (VirtualClock::new(1), ScriptedTransport::list([]));
    let id = DeploymentId::parse("d1").unwrap();
    let source = Source::public(URL).of_size(1001);
    let offer = Offer { id, source, artifact_name: None, device_types: Vec::new() };
    let server = Arc::new(Mutex::new(LoginServer(Vec::new())));
    let settings = DownloadSettings { budget_bytes: Some(1000), ..patience() };
    let result =
        Download::of_offer(&offer, &BTreeMap::new(), server, storage.boxed(), clock.shared(), settings);
    assert!(matches!(result.err(), Some(ServerError::OverBudget { wanted_bytes: 1001, .. })));
    assert!(storage.take_sent().is_empty());
}

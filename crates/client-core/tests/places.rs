//! Artifacts over the network by place: the head first, then what is wanted.

// A broken assumption of a test stops it, also in what several tests share.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use client_core::artifact::{
    self, Artifact, Compression, HEAD_BYTES, Limits, PayloadReader, Places, Reading, Trust,
};
use client_core::clock::Clock;
use client_core::server::{Download, DownloadSettings, DownloadStatistics, ServerError};
use testkit::artifacts::{MemoryFile, build, rootfs_spec};
use testkit::clock::VirtualClock;
use testkit::transport::{Reply, ScriptedTransport, Sent};

const URL: &str = "https://storage.test/a";

fn image(length: usize) -> Vec<u8> {
    let clock = VirtualClock::new(7);
    (0..length).map(|_| clock.random() as u8).collect()
}

fn made(image: &[u8], compression: Compression) -> Vec<u8> {
    let file = MemoryFile { name: "rootfs.img".into(), content: image.to_vec() };
    build(&rootfs_spec("release-2", compression), &[file], None)
}

/// The part of `bytes` that is asked for.
fn asked(bytes: &[u8], sent: &Sent) -> Option<(usize, usize)> {
    let (first, last) = sent.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    let end = if last.is_empty() { bytes.len() } else { last.parse::<usize>().unwrap() + 1 };
    Some((first.parse().unwrap(), end.min(bytes.len())))
}

/// A storage that gives parts.
fn part(bytes: &[u8], sent: &Sent) -> Reply {
    let Some((first, end)) = asked(bytes, sent) else {
        return Reply::new(200, bytes).sized().header("etag", "\"v1\"");
    };
    if first >= bytes.len() {
        return Reply::new(416, "").header("content-range", format!("bytes */{}", bytes.len()));
    }
    let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
    Reply::new(206, &bytes[first..end]).sized().header("content-range", range).header("etag", "\"v1\"")
}

struct Opened {
    places: Box<dyn Places>,
    statistics: Arc<DownloadStatistics>,
    transport: ScriptedTransport,
    clock: VirtualClock,
}

fn begin(answer: impl FnMut(&Sent) -> Reply + Send + 'static) -> Opened {
    begin_within(None, answer)
}

fn begin_within(budget_bytes: Option<u64>, answer: impl FnMut(&Sent) -> Reply + Send + 'static) -> Opened {
    let clock = VirtualClock::new(1);
    let transport = ScriptedTransport::answering(answer).with_clock(&clock);
    let begin_with = Some(HEAD_BYTES);
    let settings = DownloadSettings { begin_with, budget_bytes, ..DownloadSettings::default() };
    let download = Download::open(URL, transport.boxed(), clock.shared(), settings).unwrap();
    let statistics = download.statistics();
    Opened { places: download.into_places(), statistics, transport, clock }
}

impl Opened {
    fn ranges(&self) -> Vec<String> {
        let sent = self.transport.take_sent();
        sent.iter().map(|sent| sent.header("range").unwrap_or_default().to_owned()).collect()
    }
}

/// What asks for nothing in the background, so that what was asked for can be counted at any time.
fn in_turn() -> Limits {
    let mut limits = Limits::default();
    limits.reading = Reading::InTurn;
    limits
}

fn all(payload: &mut PayloadReader) -> Vec<u8> {
    let mut read = Vec::new();
    payload.next_file().unwrap().unwrap().read_to_end(&mut read).unwrap();
    assert!(payload.next_file().unwrap().is_none());
    read
}

#[test]
fn the_head_comes_first_and_the_rest_when_it_is_wanted() {
    let image = image(300_000);
    for compression in Compression::ALL {
        for limits in [Limits::default(), in_turn()] {
            let bytes = made(&image, compression);
            let length = bytes.len() as u64;
            let Opened { places, statistics, transport, clock } = begin(move |sent| part(&bytes, sent));
            let Artifact { mut payload, .. } =
                artifact::open_at_places(places, &Trust::DangerUnsigned, &limits).unwrap();
            let sent = transport.take_sent();
            assert_eq!((sent.len(), sent[0].header("range")), (1, Some("bytes=0-65535")), "{compression}");
            assert_eq!((sent[0].header("if-range"), statistics.received()), (None, HEAD_BYTES));
            assert!(all(&mut payload) == image);
            assert_eq!((statistics.received(), statistics.discarded()), (length, 0), "{compression}");
            assert_eq!((statistics.resumes(), clock.take_pauses().len()), (0, 0), "nothing went wrong");
            let guarded = transport.take_sent();
            assert!(guarded.iter().all(|sent| sent.header("if-range") == Some("\"v1\"")));
        }
    }
}

#[test]
fn a_server_without_parts_is_read_on() {
    let image = image(300_000);
    let bytes = made(&image, Compression::None);
    let length = bytes.len() as u64;
    let Opened { places, statistics, transport, .. } = begin(move |_| Reply::new(200, &bytes).sized());
    let mut artifact = artifact::open_at_places(places, &Trust::DangerUnsigned, &in_turn()).unwrap();
    assert_eq!(statistics.received(), HEAD_BYTES, "what was not read was not transferred");
    assert!(!artifact.payload.next_file().unwrap().unwrap().can_jump());
    drop(artifact);
    // The same to its end.
    let bytes = made(&image, Compression::None);
    let Opened { places, statistics, transport: again, .. } = begin(move |_| Reply::new(200, &bytes).sized());
    let mut artifact = artifact::open_at_places(places, &Trust::DangerUnsigned, &Limits::default()).unwrap();
    assert!(all(&mut artifact.payload) == image);
    assert_eq!((statistics.received(), again.take_sent().len(), transport.take_sent().len()), (length, 1, 1));
}

#[test]
fn what_is_jumped_over_is_not_transferred() {
    let image = image(2_000_000);
    let bytes = made(&image, Compression::None);
    let total = bytes.len();
    let opened = begin(move |sent| part(&bytes, sent));
    let (statistics, transport) = (Arc::clone(&opened.statistics), opened.transport.clone());
    let mut artifact =
        artifact::open_at_places(opened.places, &Trust::DangerUnsigned, &Limits::default()).unwrap();
    let mut file = artifact.payload.next_file().unwrap().unwrap();
    assert!(file.can_jump());
    file.jump_to(1_900_000).unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert!(read == image[1_900_000..]);
    assert!(artifact.payload.next_file().unwrap().is_none());
    let ranges: Vec<_> =
        transport.take_sent().iter().map(|sent| sent.header("range").unwrap().to_owned()).collect();
    let start = total - 100_000;
    assert_eq!(ranges.len(), 2);
    let asked: usize = ranges[1].trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    // Behind the file are its padding, and the ends of two archives.
    assert!(asked <= start && start - asked < 8192, "{asked} of {total}");
    assert_eq!(statistics.received(), HEAD_BYTES + (total - asked) as u64);
}

#[test]
fn a_budget_is_for_what_comes_and_not_for_what_is_jumped_over() {
    let image = image(2_000_000);
    let bytes = made(&image, Compression::None);
    for (from, budget, is_enough) in [(1_900_000, 180_000, true), (1_000_000, 180_000, false)] {
        let served = bytes.clone();
        let opened = begin_within(Some(budget), move |sent| part(&served, sent));
        let statistics = Arc::clone(&opened.statistics);
        let mut artifact =
            artifact::open_at_places(opened.places, &Trust::DangerUnsigned, &in_turn()).unwrap();
        assert_eq!(artifact.payload.received_bytes(), Some(HEAD_BYTES));
        let mut file = artifact.payload.next_file().unwrap().unwrap();
        assert!(file.stored_bytes().unwrap() > 2_000_000);
        // A plan may ask first.
        let member = file.member().unwrap();
        assert!(member.check_affordable(budget - HEAD_BYTES).is_ok());
        assert!(member.check_affordable(budget - HEAD_BYTES + 1).is_err());
        file.jump_to(from).unwrap();
        let read = file.read_to_end(&mut Vec::new());
        assert_eq!(read.is_ok(), is_enough, "{read:?}");
        if let Err(error) = read {
            let cause = Download::cause(&error);
            assert!(matches!(cause, Some(ServerError::OverBudget { .. })), "{error}");
            assert_eq!(statistics.received(), HEAD_BYTES, "what is too much is not begun");
        }
    }
}

#[test]
fn a_reader_ends_where_it_was_told_and_the_next_begins_where_it_was_told() {
    let bytes = image(500_000);
    let served = bytes.clone();
    let mut opened = begin(move |sent| part(&served, sent));
    let read = |offset: usize, end: Option<usize>, places: &mut Box<dyn Places>| {
        let mut read = Vec::new();
        let end_at = end.map(|end| end as u64);
        places.open_at(offset as u64, end_at).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes[offset.min(bytes.len())..end.unwrap_or(bytes.len()).min(bytes.len())]);
    };
    read(0, Some(65_536), &mut opened.places);
    read(400_000, Some(400_100), &mut opened.places);
    read(100, Some(200), &mut opened.places);
    read(0, Some(1), &mut opened.places);
    read(499_990, None, &mut opened.places);
    read(500_000, None, &mut opened.places);
    assert!(opened.places.can_jump());
    assert_eq!(opened.places.total_bytes(), Some(500_000));
    assert_eq!(
        opened.ranges(),
        ["bytes=0-65535", "bytes=400000-400099", "bytes=100-199", "bytes=0-0", "bytes=499990-"]
    );
    assert_eq!(opened.statistics.received(), 65_536 + 100 + 100 + 1 + 10);
    assert!(opened.clock.take_pauses().is_empty());
}

#[test]
fn a_reader_that_was_overtaken_or_dropped_transfers_nothing_more() {
    let served = image(500_000);
    let mut opened = begin(move |sent| part(&served, sent));
    let mut first = opened.places.open_at(0, None).unwrap();
    first.read_exact(&mut [0; 10]).unwrap();
    let mut second = opened.places.open_at(300_000, None).unwrap();
    assert!(first.read(&mut [0; 10]).is_err(), "somebody reads elsewhere");
    second.read_exact(&mut [0; 10]).unwrap();
    drop(opened.places);
    assert!(second.read(&mut [0; 10]).is_err(), "nobody wants it any more");
    assert_eq!(opened.statistics.received(), 20);
}

#[test]
fn parts_survive_a_network_that_breaks_at_any_byte() {
    let bytes = image(9000);
    for cut in (0..3000).step_by(7) {
        let (served, mut first) = (bytes.clone(), true);
        let mut opened = begin(move |sent| {
            let reply = part(&served, sent);
            if std::mem::take(&mut first) { reply.breaking_after(cut) } else { reply }
        });
        for (offset, end) in [(0, Some(3000)), (5000, Some(6000)), (6000, None)] {
            let mut read = Vec::new();
            opened.places.open_at(offset, end).unwrap().read_to_end(&mut read).unwrap();
            let range = usize::try_from(offset).unwrap()..usize::try_from(end.unwrap_or(9000)).unwrap();
            assert!(read == bytes[range]);
        }
        // The first answer is for the head of 64 KiB, of which there are 9000 bytes.
        assert_eq!((opened.statistics.received(), opened.statistics.discarded()), (7000, 0), "{cut}");
    }
}

#[test]
fn content_that_changes_between_two_readers_is_refused() {
    let (old, new) = (image(200_000), vec![1; 200_000]);
    let mut count = 0;
    let mut opened = begin(move |sent| {
        count += 1;
        if count == 1 { part(&old, sent) } else { part(&new, sent).header("x", "y") }
    });
    let other = |sent: &Sent| sent.header("if-range").is_some();
    let mut read = [0; 1];
    opened.places.open_at(0, Some(65_536)).unwrap().read_exact(&mut read).unwrap();
    // The same tag: believed here, and refused by the digests of the artifact.
    opened.places.open_at(100_000, None).unwrap().read_exact(&mut read).unwrap();
    assert!(opened.transport.take_sent().iter().skip(1).all(other));
    let bytes = image(200_000);
    let mut count = 0;
    let mut opened = begin(move |sent| {
        count += 1;
        let Some((first, end)) = asked(&bytes, sent) else { panic!("everything was asked for") };
        let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
        let tag = format!("\"v{count}\"");
        Reply::new(206, &bytes[first..end]).sized().header("content-range", range).header("etag", tag)
    });
    let error = opened.places.open_at(100_000, None).unwrap().read(&mut read).unwrap_err().to_string();
    assert!(error.contains("entity tag"), "{error}");
}

#[test]
fn an_answer_that_is_of_no_use_for_a_part_leads_to_the_whole() {
    for odd in [
        Reply::new(416, "").header("content-range", "bytes */10"),
        Reply::new(206, "x").header("content-range", "bytes 0-0/*"),
        Reply::new(206, "x"),
        Reply::new(400, "no ranges here"),
    ] {
        let mut opened = begin(move |sent| match sent.header("range") {
            Some(_) => odd.clone(),
            None => Reply::new(200, "0123456789").sized(),
        });
        let mut text = String::new();
        opened.places.open_at(0, None).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), opened.places.can_jump()), ("0123456789", false));
        assert_eq!(opened.ranges(), ["bytes=0-65535", ""]);
        assert!(opened.clock.take_pauses().iter().all(|pause| *pause < Duration::from_secs(1)));
    }
}

/// What some storages behind a redirect do: the first part comes, and then everything whatever is asked for.
#[test]
fn a_server_that_gives_no_more_parts_is_read_through_once_whatever_is_jumped_to() {
    let bytes = image(500_000);
    let (served, mut first) = (bytes.clone(), true);
    let mut opened = begin(move |sent| match std::mem::take(&mut first) {
        true => part(&served, sent),
        false => Reply::new(200, &served).sized().header("etag", "\"v1\""),
    });
    for (start, end) in [(100_000, 100_100), (200_000, 200_100), (300_000, 300_100), (499_990, 500_000)] {
        let mut read = Vec::new();
        opened.places.open_at(start, Some(end)).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes[start as usize..end as usize], "{start}");
    }
    assert_eq!(opened.transport.take_sent().len(), 2);
    assert!(opened.statistics.received() <= HEAD_BYTES + 500_000, "{}", opened.statistics.received());
    // Backwards there is nothing but to begin again.
    let mut read = Vec::new();
    opened.places.open_at(7, Some(9)).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == bytes[7..9]);
}

#[test]
fn a_server_that_refuses_all_parts_but_the_first_is_asked_for_everything() {
    let image = image(300_000);
    let bytes = made(&image, Compression::None);
    let length = bytes.len() as u64;
    let Opened { places, statistics, transport, clock } = begin(move |sent| match asked(&bytes, sent) {
        Some((first, _)) if first > 0 => {
            Reply::new(416, "").header("content-range", format!("bytes */{}", bytes.len()))
        }
        Some(_) | None => part(&bytes, sent),
    });
    let mut artifact = artifact::open_at_places(places, &Trust::DangerUnsigned, &in_turn()).unwrap();
    assert!(all(&mut artifact.payload) == image);
    assert_eq!((statistics.received(), statistics.discarded()), (length + HEAD_BYTES, HEAD_BYTES));
    assert_eq!((transport.take_sent().len(), clock.take_pauses().len()), (3, 0));
}

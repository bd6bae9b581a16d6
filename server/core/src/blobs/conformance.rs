//! What every place for blobs does. Each test runs over the folder, and over a real S3 server where there is one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use hyper::body::Bytes;

use super::{BlobError, Blobs, Folder, Name, S3, S3Options, Shelf, Span, Verb};
use crate::domain::id;

#[path = "../../../tests/common/s3.rs"]
mod s3_server;

pub(crate) use s3_server::S3Server;
use s3_server::{BUCKET, KEYS};

pub(crate) fn s3_options(server: &S3Server) -> S3Options {
    let options =
        S3Options::default().bucket(BUCKET).prefix("/a/b/").endpoint(server.url()).region("us-east-1");
    options.credentials(KEYS.0, KEYS.1).allow_http(true)
}

/// Runs `case` over every place, empty each time.
async fn everywhere(case: impl AsyncFn(Arc<dyn Blobs>)) {
    let folder = tempfile::tempdir().unwrap();
    case(Arc::new(Folder::open(folder.path()).unwrap())).await;
    if let Some(server) = S3Server::start() {
        case(Arc::new(S3::open(&s3_options(&server)).unwrap())).await;
    }
}

fn name() -> Name {
    Name::artifact(&id::uuid().unwrap()).unwrap()
}

/// Bytes that differ wherever one looks.
fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    (0..size).map(|_| next()).collect()
}

async fn write(blobs: &dyn Blobs, name: &Name, content: &[u8], piece: usize) -> Box<dyn super::Upload> {
    let mut upload = blobs.create(name).await.unwrap();
    for piece in content.chunks(piece) {
        upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    upload
}

async fn put(blobs: &dyn Blobs, name: &Name, content: &[u8]) {
    let kept = write(blobs, name, content, 100_003).await.keep().await.unwrap();
    assert_eq!(kept, content.len() as u64);
}

async fn read(blobs: &dyn Blobs, name: &Name, span: Span) -> Result<Vec<u8>, BlobError> {
    let pieces: Vec<Bytes> = blobs.read(name, span).await?.try_collect().await?;
    Ok(pieces.concat())
}

async fn names(blobs: &dyn Blobs, shelf: Shelf) -> Vec<Name> {
    blobs.list(shelf).await.unwrap().blobs.into_iter().map(|found| found.name).collect()
}

#[tokio::test]
async fn what_is_kept_is_there_and_what_is_discarded_is_not() {
    everywhere(async |blobs| {
        let (kept, discarded, dropped) = (name(), name(), name());
        let bytes = content(300_000, 1);
        let upload = write(&*blobs, &kept, &bytes, 4096).await;
        assert_eq!(blobs.size(&kept).await.unwrap(), None, "it is not kept yet");
        assert_eq!(names(&*blobs, Shelf::Artifacts).await, []);
        assert_eq!(upload.keep().await.unwrap(), 300_000);
        write(&*blobs, &discarded, &bytes, 4096).await.discard().await;
        drop(write(&*blobs, &dropped, &bytes, 4096).await);
        assert_eq!(blobs.size(&kept).await.unwrap(), Some(300_000));
        assert_eq!(blobs.size(&discarded).await.unwrap(), None);
        assert_eq!(blobs.size(&dropped).await.unwrap(), None);
        assert_eq!(names(&*blobs, Shelf::Artifacts).await, std::slice::from_ref(&kept));
        assert_eq!(read(&*blobs, &kept, Span::all(300_000)).await.unwrap(), bytes);
        blobs.probe().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_removed_is_gone_and_may_be_removed_again() {
    everywhere(async |blobs| {
        let (gone, other) = (name(), name());
        put(&*blobs, &gone, b"gone").await;
        put(&*blobs, &other, b"other").await;
        blobs.remove(&gone).await.unwrap();
        blobs.remove(&gone).await.unwrap();
        assert_eq!(blobs.size(&gone).await.unwrap(), None);
        let missing = read(&*blobs, &gone, Span::all(4)).await;
        assert!(matches!(missing, Err(BlobError::Missing { name }) if name == gone));
        assert_eq!(names(&*blobs, Shelf::Artifacts).await, [other]);
    })
    .await;
}

#[tokio::test]
async fn every_range_has_its_bytes() {
    everywhere(async |blobs| {
        let (name, total) = (name(), 200_000);
        let bytes = content(200_000, 2);
        put(&*blobs, &name, &bytes).await;
        for (start, length) in [
            (0, 200_000),
            (0, 1),
            (199_999, 1),
            (65_535, 2),
            (1, 199_999),
            (100_000, 100_000),
            (0, 0),
            (7, 0),
        ] {
            let span = Span { total, start, length };
            let from = usize::try_from(start).unwrap();
            let wanted = &bytes[from..from + usize::try_from(length).unwrap()];
            assert_eq!(read(&*blobs, &name, span).await.unwrap(), wanted, "{span:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_blob_of_another_size_than_its_record_is_not_read() {
    everywhere(async |blobs| {
        let name = name();
        put(&*blobs, &name, &content(1000, 3)).await;
        for span in [
            Span::all(999),
            Span::all(1001),
            Span { total: 2000, start: 10, length: 10 },
            Span { total: 2000, start: 1500, length: 10 },
            Span { total: 2000, start: 0, length: 0 },
        ] {
            let error = read(&*blobs, &name, span).await.unwrap_err();
            let is_named = matches!(
                error,
                BlobError::Damaged { size_bytes: 1000, .. }
                    | BlobError::Lies { lie: super::Lie::Total { told_bytes: 1000, .. }, .. }
            );
            assert!(is_named, "{span:?}: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    everywhere(async |blobs| {
        let name = name();
        put(&*blobs, &name, b"").await;
        assert_eq!(blobs.size(&name).await.unwrap(), Some(0));
        assert_eq!(read(&*blobs, &name, Span::all(0)).await.unwrap(), b"");
    })
    .await;
}

#[tokio::test]
async fn what_is_larger_than_a_part_is_there_to_the_last_byte() {
    everywhere(async |blobs| {
        const SIZE: usize = 24 * 1024 * 1024;
        let (name, gone) = (name(), name_of_direct());
        let bytes = content(SIZE, 4);
        put(&*blobs, &name, &bytes).await;
        assert_eq!(read(&*blobs, &name, Span::all(SIZE as u64)).await.unwrap(), bytes);
        // Over the end of the first part.
        let span = Span { total: SIZE as u64, start: 8 * 1024 * 1024 - 5, length: 10 };
        assert_eq!(read(&*blobs, &name, span).await.unwrap(), &bytes[8 * 1024 * 1024 - 5..][..10]);
        write(&*blobs, &gone, &bytes[..10 * 1024 * 1024], 1024 * 1024).await.discard().await;
        assert_eq!(blobs.size(&gone).await.unwrap(), None);
    })
    .await;
}

fn name_of_direct() -> Name {
    Name::direct(&id::uuid().unwrap()).unwrap()
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_nothing_to_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Folder::open(folder.path()).unwrap();
    // Nothing runs after a kill.
    std::mem::forget(write(&blobs, &name(), &content(100_000, 5), 10_000).await);
    std::fs::write(folder.path().join("incoming/notes.txt"), "somebody's").unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 2);
    let blobs = Folder::open(folder.path()).unwrap();
    assert_eq!(names(&blobs, Shelf::Artifacts).await, []);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("incoming")).unwrap().collect();
    assert_eq!(left.len(), 1, "what was not made here stays");

    if let Some(server) = S3Server::start() {
        let name = name();
        let blobs = S3::open(&s3_options(&server)).unwrap();
        std::mem::forget(write(&blobs, &name, &content(17 * 1024 * 1024, 5), 1024 * 1024).await);
        let blobs = S3::open(&s3_options(&server)).unwrap();
        assert_eq!(blobs.size(&name).await.unwrap(), None);
        assert_eq!(blobs.list(Shelf::Artifacts).await.unwrap(), super::Listing::default());
        put(&blobs, &name, b"again").await;
        assert_eq!(read(&blobs, &name, Span::all(5)).await.unwrap(), b"again");
    }
}

#[tokio::test]
async fn two_uploads_of_one_name_do_not_mix() {
    everywhere(async |blobs| {
        let name = name();
        let (one, two) = (content(9 * 1024 * 1024, 6), content(9 * 1024 * 1024, 7));
        let mut first = blobs.create(&name).await.unwrap();
        let mut second = blobs.create(&name).await.unwrap();
        for (a, b) in one.chunks(1024 * 1024).zip(two.chunks(1024 * 1024)) {
            first.write(Bytes::copy_from_slice(a)).await.unwrap();
            second.write(Bytes::copy_from_slice(b)).await.unwrap();
        }
        let (a, b) = tokio::join!(first.keep(), second.keep());
        assert_eq!((a.unwrap(), b.unwrap()), (one.len() as u64, two.len() as u64));
        let kept = read(&*blobs, &name, Span::all(one.len() as u64)).await.unwrap();
        assert!(kept == one || kept == two, "it is one of the two, whole");
    })
    .await;
}

#[tokio::test]
async fn many_at_once_do_not_disturb_each_other() {
    everywhere(async |blobs| {
        let tasks = (0..8).map(|seed| {
            let blobs = blobs.clone();
            tokio::spawn(async move {
                let (name, bytes) = (name(), content(70_000 + usize::try_from(seed).unwrap(), seed));
                put(&*blobs, &name, &bytes).await;
                assert_eq!(read(&*blobs, &name, Span::all(bytes.len() as u64)).await.unwrap(), bytes);
                name
            })
        });
        let mut made = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            made.push(task.await.unwrap());
        }
        made.sort();
        let mut found = names(&*blobs, Shelf::Artifacts).await;
        found.sort();
        assert_eq!(found, made);
    })
    .await;
}

#[tokio::test]
async fn shelves_are_apart_and_strange_names_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Folder::open(folder.path()).unwrap();
    let id = id::uuid().unwrap();
    let (artifact, direct) = (Name::artifact(&id).unwrap(), Name::direct(&id).unwrap());
    let check = async |blobs: &dyn Blobs| {
        put(blobs, &artifact, b"artifact").await;
        put(blobs, &direct, b"direct").await;
        assert_eq!(names(blobs, Shelf::Artifacts).await, std::slice::from_ref(&artifact));
        assert_eq!(names(blobs, Shelf::Direct).await, std::slice::from_ref(&direct));
        let found = &blobs.list(Shelf::Direct).await.unwrap().blobs[0];
        let now = crate::model::time::Timestamp::now().seconds();
        assert_eq!(found.size, 6);
        assert!(now.abs_diff(found.modified.seconds()) < 600, "{found:?}");
    };
    check(&blobs).await;
    std::fs::write(folder.path().join("artifacts/holiday.jpg"), "").unwrap();
    assert_eq!(blobs.list(Shelf::Artifacts).await.unwrap().strange.len(), 1);
    if let Some(server) = S3Server::start() {
        check(&S3::open(&s3_options(&server)).unwrap()).await;
        assert_eq!(server.objects(), [format!("a/b/artifacts/{id}.mender"), format!("a/b/direct/{id}")]);
    }
    assert_eq!(Name::artifact("../../etc/passwd"), None);
    assert_eq!(Name::direct(""), None);
}

/// Status and body of a request without any header of ours.
async fn http(
    method: &'static str,
    url: &str,
    range: Option<&'static str>,
    body: &'static [u8],
) -> (u16, Vec<u8>) {
    let url = url.to_owned();
    let request = tokio::task::spawn_blocking(move || {
        let mut builder = ureq::http::Request::builder().method(method).uri(&url);
        if let Some(range) = range {
            builder = builder.header("Range", range);
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let mut answer = ureq::Agent::new_with_config(config).run(builder.body(body).unwrap()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
    });
    request.await.unwrap()
}

#[tokio::test]
async fn links_of_s3_open_what_they_name_and_nothing_else() {
    let Some(server) = S3Server::start() else { return };
    let blobs = S3::open(&s3_options(&server)).unwrap();
    let (one, other, direct) = (name(), name(), name_of_direct());
    put(&blobs, &one, b"0123456789").await;
    put(&blobs, &other, b"other").await;
    let link = async |verb, name, seconds| {
        blobs.link(verb, name, Duration::from_secs(seconds)).await.unwrap().unwrap()
    };
    let get = link(Verb::Get, &one, 60).await;
    assert_eq!(http("GET", &get, None, b"").await, (200, b"0123456789".to_vec()));
    assert_eq!(http("GET", &get, Some("bytes=3-5"), b"").await, (206, b"345".to_vec()));
    for bad in [get.replace(one.id(), other.id()), get.replace("X-Amz-Expires=60", "X-Amz-Expires=61")] {
        assert_ne!(bad, get);
        assert_eq!(http("GET", &bad, None, b"").await.0, 403, "{bad}");
    }
    assert_eq!(http("PUT", &get, None, b"mine").await.0, 403);
    let expired = link(Verb::Get, &one, 0).await;
    assert_eq!(http("GET", &expired, None, b"").await.0, 403);
    assert!(!get.contains(KEYS.1), "the secret is not in a link");
    let longest = link(Verb::Get, &one, 30 * 24 * 3600).await;
    assert!(longest.contains("X-Amz-Expires=604800"), "{longest}");

    let to = link(Verb::Put, &direct, 60).await;
    assert_eq!(http("PUT", &to, None, b"straight in").await.0, 200);
    assert_eq!(read(&blobs, &direct, Span::all(11)).await.unwrap(), b"straight in");

    let through = S3::open(&s3_options(&server).through_server(true)).unwrap();
    assert_eq!(through.link(Verb::Get, &one, Duration::from_secs(60)).await.unwrap(), None);
    let outside = S3::open(&s3_options(&server).public_endpoint("https://s3.example.com:8443")).unwrap();
    let url = outside.link(Verb::Get, &one, Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(url.starts_with(&format!("https://s3.example.com:8443/{BUCKET}/a/b/artifacts/")), "{url}");
    put(&outside, &one, b"through the inner address").await;
}

#[tokio::test]
async fn wrong_keys_are_told_apart_from_a_server_that_is_gone() {
    let Some(mut server) = S3Server::start() else { return };
    let wrong_key = S3::open(&s3_options(&server).credentials(KEYS.0, "wrong")).unwrap();
    assert!(matches!(wrong_key.probe().await, Err(BlobError::Refused { .. })));
    assert!(matches!(wrong_key.size(&name()).await, Err(BlobError::Refused { .. })));
    let blobs = S3::open(&s3_options(&server)).unwrap();
    let upload = write(&blobs, &name(), b"abc", 3).await;
    server.stop();
    assert!(matches!(upload.keep().await, Err(BlobError::Unreachable { .. })));
    assert!(matches!(blobs.probe().await, Err(BlobError::Unreachable { .. })));
}

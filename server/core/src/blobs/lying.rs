//! S3 servers that are slow, break, or lie. What they say is in the test; what comes of it has a name.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use hyper::body::Bytes;

use super::{BlobError, Blobs, Lie, Name, S3, S3Options, Span};

const TAG: &str = "\"one\"";

/// What a server does with a request.
enum Act {
    /// Answers with these bytes and closes.
    Say(String),
    /// Answers with these bytes, and then never anything.
    Stall(String),
    /// Closes.
    Hang,
}

/// A server that does with the n-th request what `acts` says.
struct Liar {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    fn start(acts: impl Fn(usize, &str) -> Act + Send + 'static) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        // It ends with the test program; a stream that stalls is kept until then.
        std::thread::spawn(move || {
            let mut stalled = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read_request(&mut stream) else { continue };
                let count = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                // Whoever has asked may have gone.
                match acts(count, &request) {
                    Act::Say(text) => drop(stream.write_all(text.as_bytes())),
                    Act::Stall(text) => {
                        drop(stream.write_all(text.as_bytes()));
                        stalled.push(stream);
                    }
                    Act::Hang => {}
                }
            }
        });
        Liar { url, asked }
    }

    fn open(&self) -> S3 {
        let options =
            S3Options::default().bucket("b").endpoint(&self.url).region("r").credentials("id", "secret");
        S3::open(&options.allow_http(true).patience(Duration::from_millis(400))).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The first line of a request, with its range; its body is read.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    let mut range = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        } else if let Some(value) = lower.strip_prefix("range: ") {
            range = format!(" {value}");
        } else if first.is_empty() {
            first = line;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    Some(first.trim_end_matches(" HTTP/1.1").to_owned() + &range)
}

/// The head of an answer with `length` bytes, which are `range` of an object.
fn partial(tag: &str, range: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 206 Partial Content\r\nETag: {tag}\r\nLast-Modified: Sat, 28 Nov 2026 02:00:00 GMT\r\n\
         Content-Range: bytes {range}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

fn whole(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nETag: {TAG}\r\nLast-Modified: Sat, 28 Nov 2026 02:00:00 GMT\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn status(line: &str, body: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn name() -> Name {
    Name::artifact("6e1b1a37-6fd4-4c3b-9d53-1f0a7c3a2b11").unwrap()
}

/// What comes of the ten bytes of an object: the bytes before the error, and the error.
async fn read(liar: &Liar) -> (String, Option<BlobError>) {
    let mut pieces = match liar.open().read(&name(), Span::all(10)).await {
        Ok(pieces) => pieces,
        Err(error) => return (String::new(), Some(error)),
    };
    let mut came = String::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(bytes) => came += std::str::from_utf8(&bytes).unwrap(),
            Err(error) => return (came, Some(error)),
        }
    }
    (came, None)
}

/// Reads from a server that always says the same, and returns how it lies. No answer may come more than once.
async fn lie_of(answer: String) -> (String, Lie) {
    let liar = Liar::start(move |_, _| Act::Say(answer.clone()));
    let (came, error) = read(&liar).await;
    let Some(BlobError::Lies { lie, .. }) = error else { panic!("{came:?}, then {error:?}") };
    assert_eq!(liar.asked().len(), 1, "{:?}", liar.asked());
    (came, lie)
}

#[tokio::test]
async fn an_honest_answer_is_read() {
    let answer = partial(TAG, "0-9/10", 10) + "0123456789";
    let liar = Liar::start(move |_, _| Act::Say(answer.clone()));
    let (came, error) = read(&liar).await;
    assert_eq!((came.as_str(), error.is_none()), ("0123456789", true));
    assert_eq!(liar.asked(), [format!("GET /b/artifacts/{}.mender bytes=0-9", name().id())]);
}

#[tokio::test]
async fn an_answer_that_is_no_range_is_a_lie() {
    for answer in [
        whole("0123456789"),
        partial(TAG, "1-10/10", 10) + "0123456789",
        partial(TAG, "0-8/10", 9) + "012345678",
        partial(TAG, "0-9/*", 10) + "0123456789",
        partial(TAG, "0-9/10", 10).replace("Content-Range", "Content-Rage") + "0123456789",
    ] {
        let (came, lie) = lie_of(answer.clone()).await;
        assert!(came.is_empty() && matches!(lie, Lie::NotTheRange { .. }), "{answer}: {came}, {lie:?}");
    }
}

#[tokio::test]
async fn a_wrong_total_is_a_lie() {
    let (came, lie) = lie_of(partial(TAG, "0-9/11", 10) + "0123456789").await;
    assert_eq!((came.as_str(), lie), ("", Lie::Total { told_bytes: 11, expected_bytes: 10 }));
    let (came, lie) = lie_of(partial(TAG, "0-4/5", 5) + "01234").await;
    assert_eq!((came.as_str(), lie), ("", Lie::Total { told_bytes: 5, expected_bytes: 10 }));
}

#[tokio::test]
async fn a_short_answer_is_a_lie() {
    let (came, lie) = lie_of(partial(TAG, "0-9/10", 4) + "0123").await;
    assert_eq!((came.as_str(), lie), ("0123", Lie::Short { came_bytes: 4, asked_bytes: 10 }));
}

#[tokio::test]
async fn a_long_answer_is_a_lie_before_its_last_bytes_are_passed_on() {
    let (came, lie) = lie_of(partial(TAG, "0-9/10", 12) + "0123456789AB").await;
    assert_eq!((came.len() < 10, lie), (true, Lie::Long { asked_bytes: 10 }));
}

#[tokio::test]
async fn an_answer_that_breaks_is_asked_for_from_where_it_broke() {
    let liar = Liar::start(|count, _| match count {
        0 => Act::Say(partial(TAG, "0-9/10", 10) + "0123"),
        1 => Act::Say(status("503 Slow Down", "")),
        2 => Act::Stall(partial(TAG, "4-9/10", 6) + "45"),
        _ => Act::Say(partial(TAG, "6-9/10", 4) + "6789"),
    });
    let (came, error) = read(&liar).await;
    assert_eq!((came.as_str(), error.is_none()), ("0123456789", true), "{error:?}");
    let ranges: Vec<String> =
        liar.asked().iter().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(ranges, ["bytes=0-9", "bytes=4-9", "bytes=4-9", "bytes=6-9"]);
}

#[tokio::test]
async fn what_is_asked_for_again_has_to_be_the_same_object() {
    for (second, wanted) in [
        (partial("\"two\"", "4-9/10", 6) + "456789", "tag"),
        (partial(TAG, "4-9/12", 6) + "456789", "12 bytes"),
        (whole("0123456789"), "not the range"),
        (partial(TAG, "3-8/10", 6) + "345678", "not the range"),
    ] {
        let liar = Liar::start(move |count, _| match count {
            0 => Act::Say(partial(TAG, "0-9/10", 10) + "0123"),
            _ => Act::Say(second.clone()),
        });
        let (came, error) = read(&liar).await;
        let error = error.unwrap();
        assert!(matches!(error, BlobError::Lies { .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(came, "0123");
        assert_eq!(liar.asked().len(), 2);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_long() {
    for act in [|| Act::Stall(String::new()), || Act::Hang] {
        let liar = Liar::start(move |_, _| act());
        let (came, error) = read(&liar).await;
        assert!(matches!(error, Some(BlobError::Unreachable { .. })), "{came}, {error:?}");
        assert_eq!(liar.asked().len(), 4, "it is asked again three times");
    }
    let liar = Liar::start(move |_, _| Act::Say(status("500 Internal Server Error", "<Error/>")));
    let (_, error) = read(&liar).await;
    assert!(matches!(error, Some(BlobError::Unreachable { .. })), "{error:?}");
}

#[tokio::test]
async fn a_refusal_is_not_asked_again() {
    for (line, code) in [
        ("403 Forbidden", "AccessDenied"),
        ("401 Unauthorized", "AccessDenied"),
        ("404 Not Found", "NoSuchBucket"),
    ] {
        let answer = status(line, &format!("<Error><Code>{code}</Code></Error>"));
        let liar = Liar::start(move |_, _| Act::Say(answer.clone()));
        let (_, error) = read(&liar).await;
        assert!(matches!(error, Some(BlobError::Refused { .. })), "{error:?}");
        assert!(matches!(liar.open().probe().await, Err(BlobError::Refused { .. })));
        assert_eq!(liar.asked().len(), 2);
    }
}

async fn keep(liar: &Liar, size: usize) -> Result<u64, BlobError> {
    let mut upload = liar.open().create(&name()).await?;
    upload.write(Bytes::from(vec![b'x'; size])).await?;
    upload.keep().await
}

/// The answer of a server whose object has `size` bytes.
fn has(size: usize) -> String {
    whole("").replace("Content-Length: 0", &format!("Content-Length: {size}"))
}

#[tokio::test]
async fn an_object_that_is_not_what_was_sent_is_not_kept() {
    let liar = Liar::start(|_, request| match request {
        _ if request.starts_with("HEAD") => Act::Say(has(9)),
        _ => Act::Say(whole("")),
    });
    let kept = keep(&liar, 10).await;
    assert!(
        matches!(kept, Err(BlobError::Lies { lie: Lie::Total { told_bytes: 9, expected_bytes: 10 }, .. })),
        "{kept:?}"
    );
    let nothing = Liar::start(|_, request| match request {
        _ if request.starts_with("HEAD") => Act::Say(status("404 Not Found", "")),
        _ => Act::Say(whole("")),
    });
    assert!(matches!(keep(&nothing, 10).await, Err(BlobError::Missing { .. })));
}

#[tokio::test]
async fn an_upload_whose_last_answer_was_lost_is_kept() {
    const PART: usize = 9 * 1024 * 1024;
    let liar = Liar::start(|_, request| {
        let begun = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
        match request {
            _ if request.starts_with("HEAD") => Act::Say(has(PART)),
            _ if request.starts_with("PUT") => Act::Say(whole("")),
            _ if request.contains("uploads") => Act::Say(whole(begun)),
            _ => Act::Say(status("404 Not Found", "<Error><Code>NoSuchUpload</Code></Error>")),
        }
    });
    let kept = keep(&liar, PART).await;
    assert_eq!(kept.ok(), Some(PART as u64), "{:?}", liar.asked());
    let verbs: Vec<String> =
        liar.asked().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(verbs, ["POST", "PUT", "PUT", "POST", "HEAD"]);
}

#[tokio::test]
async fn a_part_that_does_not_go_ends_the_upload_and_its_parts_are_removed() {
    let liar = Liar::start(|_, request| match request {
        _ if request.starts_with("POST") => Act::Say(whole(
            "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
        )),
        _ if request.starts_with("DELETE") => Act::Say(status("204 No Content", "")),
        _ => Act::Say(status("507 Insufficient Storage", "")),
    });
    let mut upload = liar.open().create(&name()).await.unwrap();
    let mut written = Ok(());
    for _ in 0..4 {
        written = upload.write(Bytes::from(vec![0; 8 * 1024 * 1024])).await;
        if written.is_err() {
            break;
        }
    }
    assert!(matches!(written, Err(BlobError::Unreachable { .. })), "{written:?}");
    upload.discard().await;
    let last = liar.asked().pop().unwrap();
    assert!(last.starts_with("DELETE") && last.contains("uploadId=u"), "{last}");
}

#[test]
fn without_tls_only_when_it_is_asked_for() {
    let open = |options: S3Options| S3::open(&options.region("r").credentials("id", "secret"));
    let plain = || S3Options::default().bucket("b").endpoint("http://127.0.0.1:1");
    for options in [
        plain(),
        S3Options::default()
            .bucket("b")
            .endpoint("https://127.0.0.1:1")
            .public_endpoint("http://127.0.0.1:1"),
        S3Options::default().bucket("b").endpoint("127.0.0.1:1"),
    ] {
        assert!(matches!(open(options), Err(BlobError::Settings { .. })));
    }
    assert!(open(plain().allow_http(true)).is_ok());
}

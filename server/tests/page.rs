//! The page that people open: its files, and what a browser is told about them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;

use crate::common::{Answer, error, request, server};
use server_core::{Options, Server, StartError};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// What stands in the head of every file.
#[track_caller]
fn is_guarded(answer: &Answer) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-cache"),
        ("vary", "Accept-Encoding"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{}", answer.head);
    }
    assert_eq!(answer.head.matches("Security-Policy").count(), 1, "{}", answer.head);
}

#[test]
fn the_page_is_there_for_everybody_and_guarded() {
    let (running, _, _folder) = server(|options| options);
    let index = request(&running, "GET", "/", &[], b"");
    assert_eq!((index.status, index.header("content-type")), (200, Some("text/html; charset=utf-8")));
    is_guarded(&index);
    let text = index.text();
    assert!(text.contains("page/main.js") && !text.contains("style=") && !text.contains("onclick"), "{text}");
    let script = request(&running, "GET", "/page/main.js?x=y", &[], b"");
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    is_guarded(&script);
    let same = request(&running, "GET", "/page/index.html", &[], b"");
    assert_eq!((same.status, &same.body), (200, &index.body));
}

#[test]
fn a_file_that_a_browser_has_is_not_sent_again() {
    let (running, _, _folder) = server(|options| options);
    let first = request(&running, "GET", "/", &[], b"");
    let tag = first.header("etag").unwrap();
    let again = request(&running, "GET", "/", &[("If-None-Match", tag)], b"");
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag)));
    is_guarded(&again);
    assert_eq!(request(&running, "GET", "/", &[("If-None-Match", "\"other\"")], b"").status, 200);

    let packed = request(&running, "GET", "/", &[("Accept-Encoding", "gzip, br")], b"");
    assert_eq!((packed.status, packed.header("content-encoding")), (200, Some("gzip")));
    is_guarded(&packed);
    let mut read = Vec::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_end(&mut read).unwrap();
    assert_eq!(read, first.body);
    // What is packed is not what is not.
    let other = packed.header("etag").unwrap();
    assert_ne!(other, tag);
    let headers = [("Accept-Encoding", "gzip"), ("If-None-Match", other)];
    let again = request(&running, "GET", "/", &headers, b"");
    assert_eq!((again.status, again.header("content-encoding")), (304, None));
}

#[test]
fn the_head_of_a_file_says_what_the_file_has() {
    let (running, _, _folder) = server(|options| options);
    let (get, head) = (request(&running, "GET", "/", &[], b""), request(&running, "HEAD", "/", &[], b""));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    is_guarded(&head);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = request(&running, method, "/", &[], b"");
        assert_eq!((error(&answer), answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[test]
fn nothing_but_the_page_is_served() {
    let (running, _, _folder) = server(|options| options);
    for path in [
        "/page",
        "/page/",
        "/page/none.js",
        "/page/lib",
        "/page/lib/",
        "/page/../Cargo.toml",
        "/page/..%2fCargo.toml",
        "/page/%2e%2e/Cargo.toml",
        "/page//etc/passwd",
        "/page/lib/README.md",
        "/index.html",
        "//",
        "/favicon.ico",
    ] {
        assert_eq!(error(&request(&running, "GET", path, &[], b"")), 404, "{path}");
    }
}

#[test]
fn who_changes_the_page_sees_it_at_once_and_only_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page");
    std::fs::create_dir(&page).unwrap();
    std::fs::write(page.join("index.html"), "one").unwrap();
    std::fs::write(folder.path().join("secret.js"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret.js", page.join("link.js")).unwrap();
    let (running, _, _folder) = server(|options| options.page(&page));
    assert_eq!(request(&running, "GET", "/", &[], b"").text(), "one");
    std::fs::write(page.join("index.html"), "two").unwrap();
    let second = request(&running, "GET", "/", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!((second.text(), second.header("content-encoding")), ("two".to_owned(), None));
    is_guarded(&second);
    let absolute = format!("/page/{}", folder.path().join("secret.js").display());
    for path in [
        "/page/link.js",
        "/page/../secret.js",
        "/page/..%2Fsecret.js",
        "/page/lib/../../secret.js",
        &absolute,
    ] {
        assert_eq!(error(&request(&running, "GET", path, &[], b"")), 404, "{path}");
    }
    // What is in the program is not what is in the folder.
    assert_eq!(error(&request(&running, "GET", "/page/main.js", &[], b"")), 404);
}

#[test]
fn a_folder_without_a_page_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Server::start(Options::new(folder.path().join("data")).page(folder.path().join("none")));
    let error = refused.unwrap_err();
    assert!(matches!(error, StartError::Page { .. }), "{error}");
    assert!(error.to_string().contains("none"), "{error}");
}

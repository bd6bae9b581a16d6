//! Links, ranges, and what does not open anything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{Answer, Device, accepted, artifact, artifact_with, error, manage, request, server};
use serde_json::{Value, json};
use server_core::client::Management;
use server_core::{Options, Running};

/// A server with one artifact: the path of its link, and its bytes.
fn with_link(change: impl FnOnce(Options) -> Options) -> (Running, tempfile::TempDir, String, Vec<u8>) {
    let (running, management, folder) = server(change);
    let file = artifact("release-2", "testdev");
    let id = management.upload_artifact(file.path()).unwrap();
    let path = format!("/api/management/v1/deployments/artifacts/{id}/download");
    let link: serde_json::Value =
        serde_json::from_str(&management.ask("GET", &path, None).unwrap().1).unwrap();
    let path = link["uri"].as_str().unwrap().split_once("/download/").unwrap().1;
    (running, folder, format!("/download/{path}"), std::fs::read(file.path()).unwrap())
}

fn get(running: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(running, "GET", path, headers, b"")
}

#[test]
fn a_whole_artifact_is_sent_with_what_is_needed_to_resume() {
    let (running, _folder, path, bytes) = with_link(|options| options);
    let answer = get(&running, &path, &[]);
    assert_eq!((answer.status, answer.body.len()), (200, bytes.len()));
    assert_eq!(answer.body, bytes);
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
    let etag = answer.header("etag").unwrap();
    assert!(etag.starts_with('"') && etag.len() == 66, "{etag}");
    let head = request(&running, "HEAD", &path, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), answer.header("content-length"));
    assert_eq!(head.header("etag"), answer.header("etag"));
}

#[test]
fn ranges_are_answered_as_the_standard_says() {
    let (running, _folder, path, bytes) = with_link(|options| options);
    let size = bytes.len();
    let check = |range: &str, status: u16, content_range: Option<String>, from: usize, to: usize| {
        let answer = get(&running, &path, &[("Range", range)]);
        assert_eq!(answer.status, status, "{range}");
        assert_eq!(answer.header("content-range").map(str::to_owned), content_range, "{range}");
        assert_eq!(answer.body, bytes[from..to], "{range}");
    };
    let at = |from: usize, to: usize| Some(format!("bytes {from}-{}/{size}", to - 1));
    check("bytes=0-", 206, at(0, size), 0, size);
    check("bytes=100-", 206, at(100, size), 100, size);
    check(&format!("bytes=100-{}", size - 1), 206, at(100, size), 100, size);
    check("bytes=0-0", 206, at(0, 1), 0, 1);
    check(&format!("bytes={}-", size - 1), 206, at(size - 1, size), size - 1, size);
    check("bytes=-7", 206, at(size - 7, size), size - 7, size);
    check("bytes=5-99999999999", 206, at(5, size), 5, size);
    check(&format!("bytes={size}-"), 416, Some(format!("bytes */{size}")), 0, 0);
    check("bytes=-0", 416, Some(format!("bytes */{size}")), 0, 0);
    check("bytes=9-5", 200, None, 0, size);
    check("bytes=0-1,3-4", 200, None, 0, size);
    check("nonsense", 200, None, 0, size);
}

#[test]
fn a_range_of_something_else_is_all_of_this() {
    let (running, _folder, path, bytes) = with_link(|options| options);
    let etag = get(&running, &path, &[]).header("etag").unwrap().to_owned();
    let with = |tag: &str| get(&running, &path, &[("Range", "bytes=10-"), ("If-Range", tag)]);
    assert_eq!((with(&etag).status, with(&etag).body.len()), (206, bytes.len() - 10));
    for other in ["\"other\"", &format!("W/{etag}"), "Sat, 21 Nov 2026 00:00:00 GMT"] {
        assert_eq!((with(other).status, with(other).body.len()), (200, bytes.len()), "{other}");
    }
}

#[test]
fn links_that_are_forged_or_too_old_are_403() {
    let (running, _folder, path, _) = with_link(|options| options);
    let (plain, query) = path.split_once('?').unwrap();
    let later = query.replacen("expire=", "expire=9", 1);
    for bad in [
        plain.to_owned(),
        format!("{plain}?"),
        format!("{plain}?{later}"),
        format!("{plain}x?{query}"),
        path.replace("signature=", "signature=A"),
    ] {
        assert_eq!(error(&get(&running, &bad, &[])), 403, "{bad}");
    }
    let (running, _folder, path, _) = with_link(|options| options.link_lifetime_seconds(0));
    assert_eq!(error(&get(&running, &path, &[])), 403);
}

#[test]
fn paths_do_not_leave_their_folder() {
    let (running, _folder, path, _) = with_link(|options| options);
    let query = path.split_once('?').unwrap().1;
    for bad in [
        "/download/../management-token",
        "/download/..%2Fmanagement-token",
        "/download/%2e%2e/fleet.sqlite",
        "/download//etc/passwd",
        "/download/",
        "/download",
    ] {
        for path in [bad.to_owned(), format!("{bad}?{query}")] {
            let status = error(&get(&running, &path, &[]));
            assert!([403, 404].contains(&status), "{path}: {status}");
        }
    }
}

#[test]
fn links_begin_with_the_host_that_was_asked_or_the_public_url() {
    let begin = |change: fn(Options) -> Options, host: &str| {
        let (running, management, _folder) = server(change);
        let (device, id) = accepted(&running, "a");
        management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
        management.deploy("first", "release-2", &[id]).unwrap();
        let token = format!("Bearer {}", device.token);
        let path = "/api/devices/v1/deployments/device/deployments/next?artifact_name=a&device_type=testdev";
        let answer = request(&running, "GET", path, &[("Host", host), ("Authorization", &token)], b"");
        let uri = answer.json()["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
        uri.split_once("/download/").unwrap().0.to_owned()
    };
    assert_eq!(begin(|options| options, "updates.example:8443"), "http://updates.example:8443");
    assert_eq!(begin(|options| options.public_url("https://cdn.example/"), "other"), "https://cdn.example");
}

#[test]
fn a_large_artifact_arrives_as_it_is() {
    let (running, management, _folder) = server(|options| options);
    let file = artifact_with("big", "testdev", 3_000_000, |_| {});
    let id = management.upload_artifact(file.path()).unwrap();
    let path = format!("/api/management/v1/deployments/artifacts/{id}/download");
    let link: serde_json::Value =
        serde_json::from_str(&management.ask("GET", &path, None).unwrap().1).unwrap();
    let path = link["uri"].as_str().unwrap().strip_prefix(running.url()).unwrap();
    assert!(get(&running, path, &[]).body == std::fs::read(file.path()).unwrap());
}

#[test]
fn the_link_of_a_device_ends_with_its_right() {
    type End = fn(&Running, &Management, &str, &str);
    let ends: [(&str, End); 4] = [
        ("rejected", |_, management, id, _| management.reject(id).unwrap()),
        ("decommissioned", |_, management, id, _| management.decommission(id).unwrap()),
        ("revoked", |running, _, _, set| {
            let path = format!("/api/management/v2/devauth/tokens/{set}");
            assert_eq!(manage(running, "DELETE", &path, Value::Null).status, 204);
        }),
        ("another key", |running, _, _, _| {
            let mut newer = Device::new("a");
            let body = json!({ "identity_data": newer.identity, "pubkey": newer.pem(), "force": true });
            assert_eq!(manage(running, "POST", "/api/management/v2/devauth/devices", body).status, 201);
            assert_eq!(newer.authenticate(running).status, 200);
        }),
    ];
    for (how, end) in ends {
        let (running, management, _folder) = server(|options| options);
        let (device, id) = accepted(&running, "a");
        let (other, other_id) = accepted(&running, "b");
        let artifact_id = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
        management.deploy("first", "release-2", &[id.clone(), other_id]).unwrap();
        let path_of = |uri: &str| uri.strip_prefix(running.url()).unwrap().to_owned();
        let link = |device: &Device| {
            path_of(device.next(&running).json()["artifact"]["source"]["uri"].as_str().unwrap())
        };
        let (own, others) = (link(&device), link(&other));
        let path = format!("/api/management/v1/deployments/artifacts/{artifact_id}/download");
        let persons = path_of(manage(&running, "GET", &path, Value::Null).json()["uri"].as_str().unwrap());
        assert_eq!(get(&running, &own, &[]).status, 200);
        let devices = management.devices().unwrap();
        let set = devices.iter().find(|device| device.id == id).unwrap().auth_sets[0].id.clone();
        end(&running, &management, &id, &set);
        assert_eq!(error(&get(&running, &own, &[])), 403, "{how}");
        assert_eq!(get(&running, &own, &[("Range", "bytes=5-")]).status, 403, "{how}");
        for link in [&others, &persons] {
            assert_eq!(get(&running, link, &[]).status, 200, "{how}");
        }
        // Of another's link and its own it cannot make one.
        let holder = own.split('&').find(|pair| pair.starts_with("for=")).unwrap();
        let mixed = others.split('&').map(|pair| if pair.starts_with("for=") { holder } else { pair });
        assert_eq!(get(&running, &mixed.collect::<Vec<_>>().join("&"), &[]).status, 403, "{how}");
    }
}

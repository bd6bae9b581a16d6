//! Artifacts, releases, and what is made of files: with artifacts in the data folder, and in S3 where there is an S3 server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::common::s3::{BUCKET, KEYS, S3Server};
use crate::common::{
    Answer, accepted, artifact, artifact_with, error, manage, parse, request, request_bytes, server, until,
};
use serde_json::{Value, json};
use server_core::client::Management;
use server_core::{Options, Running};
use tempfile::TempDir;

/// A server and where its artifacts are.
struct Place {
    running: Running,
    management: Management,
    folder: TempDir,
    s3: Option<S3Server>,
}

impl Place {
    /// The names of everything that is kept of artifacts, parts of uploads too.
    fn kept(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.s3 {
            Some(s3) => {
                s3.objects().into_iter().map(|key| key.rsplit('/').next().unwrap().to_owned()).collect()
            }
            None => ["artifacts", "direct", "incoming"]
                .iter()
                .flat_map(|name| fs::read_dir(self.folder.path().join(name)).unwrap())
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect(),
        };
        names.sort();
        names
    }
}

/// Runs `case` on a server with its artifacts in the data folder, and on one with them in S3.
fn everywhere(case: impl Fn(&Place)) {
    everywhere_with(|options| options, case);
}

fn everywhere_with(change: impl Fn(Options) -> Options, case: impl Fn(&Place)) {
    let (running, management, folder) = server(&change);
    case(&Place { running, management, folder, s3: None });
    let Some(s3) = S3Server::start() else { return };
    let (running, management, folder) = server(|options| change(in_s3(options, &s3)));
    case(&Place { running, management, folder, s3: Some(s3) });
}

fn in_s3(options: Options, server: &S3Server) -> Options {
    let url = server.url().to_owned();
    options.s3(|s3| {
        let s3 = s3.bucket(BUCKET).prefix("rota").endpoint(&url).region("us-east-1").allow_http(true);
        s3.credentials(KEYS.0, KEYS.1)
    })
}

const ARTIFACTS: &str = "/api/management/v1/deployments/artifacts";
const RELEASES: &str = "/api/management/v2/deployments/deployments/releases";

fn get(running: &Running, path: &str) -> Value {
    let answer = manage(running, "GET", path, Value::Null);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// A request to any address of this machine, without a token.
fn to(url: &str, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let headers: Vec<(&str, &str)> = [("Host", host)].into_iter().chain(headers.iter().copied()).collect();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(&request_bytes(method, &format!("/{path}"), &headers, body)).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut bytes).unwrap();
    parse(&bytes).expect("an answer")
}

/// A form: names, names of files, and contents.
fn form(running: &Running, path: &str, fields: &[(&str, Option<&str>, &[u8])]) -> Answer {
    let mut body = Vec::new();
    for (name, file, content) in fields {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend(format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    let token = format!("Bearer {}", running.management_token());
    let headers = [("Authorization", token.as_str()), ("Content-Type", "multipart/form-data; boundary=B")];
    to(&format!("{}{path}", running.url()), "POST", &headers, &body)
}

fn location(answer: &Answer) -> String {
    answer.header("location").unwrap().rsplit('/').next().unwrap().to_owned()
}

#[test]
fn an_artifact_goes_in_and_comes_out_by_its_link() {
    everywhere(|place| {
        let running = &place.running;
        // More than two parts of an upload to S3.
        let file = artifact_with("release-2", "testdev", 18 * 1024 * 1024, |_| {});
        let bytes = fs::read(file.path()).unwrap();
        let id = place.management.upload_artifact(file.path()).unwrap();
        assert_eq!(place.kept(), [format!("{id}.mender")]);
        let link = get(running, &format!("{ARTIFACTS}/{id}/download"))["uri"].as_str().unwrap().to_owned();
        assert_eq!(place.s3.is_some(), !link.starts_with(running.url()), "{link}");
        let answer = to(&link, "GET", &[], b"");
        assert_eq!((answer.status, answer.body == bytes), (200, true));
        let part = to(&link, "GET", &[("Range", "bytes=8388600-8388615")], b"");
        assert_eq!((part.status, part.body.as_slice()), (206, &bytes[8_388_600..8_388_616]));
        assert_eq!(manage(running, "DELETE", &format!("{ARTIFACTS}/{id}"), Value::Null).status, 204);
        assert_eq!(place.kept(), [""; 0]);
        assert!([403, 404].contains(&to(&link, "GET", &[], b"").status));
    });
}

#[test]
fn of_what_is_no_artifact_nothing_is_kept() {
    everywhere(|place| {
        let good = fs::read(artifact_with("release-2", "testdev", 9 * 1024 * 1024, |_| {}).path()).unwrap();
        let mut changed = good.clone();
        changed[good.len() - 100_000] ^= 1;
        for bad in [&good[..good.len() / 2], &changed, b"no artifact"] {
            let answer = form(&place.running, ARTIFACTS, &[("artifact", Some("a.mender"), bad)]);
            assert_eq!(error(&answer), 400, "{}", answer.text());
            assert_eq!(place.kept(), [""; 0]);
        }
        // Whoever sends goes away in the middle.
        let head = format!(
            "POST {ARTIFACTS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\
             Content-Type: multipart/form-data; boundary=B\r\n\r\n\
             --B\r\nContent-Disposition: form-data; name=\"artifact\"; filename=\"a\"\r\n\r\n",
            place.running.management_token(),
            good.len() + 1000
        );
        let mut stream = TcpStream::connect(("127.0.0.1", place.running.port())).unwrap();
        stream.write_all(&[head.as_bytes(), &good[..good.len() - 10]].concat()).unwrap();
        drop(stream);
        // The next one is taken all the same, and is alone.
        let id = place.management.upload_artifact(artifact("release-3", "testdev").path()).unwrap();
        until(|| place.kept() == [format!("{id}.mender")]);
        assert_eq!(get(&place.running, ARTIFACTS).as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_device_is_sent_to_where_its_artifact_is() {
    everywhere(|place| {
        let (device, id) = accepted(&place.running, "a");
        let file = artifact("release-2", "testdev");
        place.management.upload_artifact(file.path()).unwrap();
        place.management.deploy("first", "release-2", &[id]).unwrap();
        let offer = device.next(&place.running);
        assert_eq!(offer.status, 200, "{}", offer.text());
        let uri = offer.json()["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
        assert_eq!(place.s3.is_some(), !uri.starts_with(place.running.url()), "{uri}");
        assert_eq!(to(&uri, "GET", &[], b"").body, fs::read(file.path()).unwrap());
        // What is deployed stays.
        let artifacts = get(&place.running, ARTIFACTS);
        let path = format!("{ARTIFACTS}/{}", artifacts[0]["id"].as_str().unwrap());
        assert_eq!(error(&manage(&place.running, "DELETE", &path, Value::Null)), 409);
        let answer = manage(&place.running, "DELETE", &format!("{RELEASES}?name=release-2"), Value::Null);
        assert_eq!((answer.status, answer.json()["active_deployments"].as_array().unwrap().len()), (409, 1));
        assert_eq!(place.kept().len(), 1);
    });
}

#[test]
fn s3_that_is_gone_is_a_503_and_the_rest_goes_on() {
    let Some(mut s3) = S3Server::start() else { return };
    let change = |options: Options| in_s3(options, &s3).s3(|s3| s3.through_server(true));
    let (running, management, folder) = server(change);
    let id = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let link = get(&running, &format!("{ARTIFACTS}/{id}/download"))["uri"].as_str().unwrap().to_owned();
    assert!(link.starts_with(running.url()), "{link}");
    assert_eq!(to(&link, "GET", &[], b"").status, 200);
    s3.stop();
    assert_eq!(error(&to(&link, "GET", &[], b"")), 503);
    let good = fs::read(artifact("release-3", "testdev").path()).unwrap();
    let answer = form(&running, ARTIFACTS, &[("artifact", Some("a.mender"), &good)]);
    assert_eq!(error(&answer), 503, "{}", answer.text());
    assert!(answer.json()["error"].as_str().unwrap().contains("does not answer"), "{}", answer.text());
    assert_eq!(get(&running, ARTIFACTS).as_array().unwrap().len(), 1, "nothing is half kept");
    let (_device, _) = accepted(&running, "a");
    // The record goes; what is left of it is said at each start.
    assert_eq!(manage(&running, "DELETE", &format!("{ARTIFACTS}/{id}"), Value::Null).status, 204);
    running.stop();
    // A start does not wait for S3.
    let (again, _) = crate::common::server_in(folder.path(), |options| in_s3(options, &s3));
    assert_eq!(get(&again, ARTIFACTS), json!([]));
}

#[test]
fn a_fleet_is_moved_with_its_artifacts_into_s3_and_back() {
    let Some(s3) = S3Server::start() else { return };
    let (running, management, folder) = server(|options| options);
    let file = artifact("release-2", "testdev");
    let id = management.upload_artifact(file.path()).unwrap();
    management.upload_artifact(artifact("release-3", "testdev").path()).unwrap();
    running.stop();
    let folders = tempfile::tempdir().unwrap();
    let path = |name: &str| folders.path().join(name).display().to_string();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        command.args(words).args(["--s3-allow-http", "--s3-region", "us-east-1", "--s3-endpoint", s3.url()]);
        command.env("AWS_ACCESS_KEY_ID", KEYS.0).env("AWS_SECRET_ACCESS_KEY", KEYS.1);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let place = format!("s3://{BUCKET}/rota");
    let data = folder.path().display().to_string();
    let moved = run(&["move", "--from", &data, "--to", &path("one"), "--to-artifacts", &place]);
    assert!(moved.0 == Some(0) && moved.1.contains("2 artifacts"), "{moved:?}");
    assert_eq!(s3.objects().len(), 2);
    // It is served from there, and a backup brings everything into a folder.
    let (again, _) = crate::common::server_in(Path::new(&path("one")), |options| in_s3(options, &s3));
    let link = get(&again, &format!("{ARTIFACTS}/{id}/download"))["uri"].as_str().unwrap().to_owned();
    assert_eq!(to(&link, "GET", &[], b"").body, fs::read(file.path()).unwrap());
    let copied = run(&["backup", "--data", &path("one"), "--from-artifacts", &place, "--to", &path("two")]);
    assert!(copied.0 == Some(0) && copied.1.contains("2 artifacts"), "{copied:?}");
    again.stop();
    let kept = Path::new(&path("two")).join(format!("artifacts/{id}.mender"));
    assert_eq!(fs::read(&kept).unwrap(), fs::read(file.path()).unwrap());
    // What is missing is said, by its id and by what the program ends with.
    fs::remove_file(kept).unwrap();
    let moved = run(&["move", "--from", &path("two"), "--to", &path("three")]);
    assert!(moved.0 == Some(5) && moved.1.contains(&format!("not there: artifact {id}")), "{moved:?}");
    assert!(moved.1.contains("missing or damaged: 1"), "{moved:?}");
}

#[test]
fn a_release_is_all_artifacts_of_one_name_with_what_people_say() {
    let (running, management, _folder) = server(|options| options);
    for (name, kind) in [("beta", "one"), ("beta", "two"), ("alpha", "one")] {
        management.upload_artifact(artifact(name, kind).path()).unwrap();
    }
    let patch = manage(&running, "PATCH", &format!("{RELEASES}/beta"), json!({ "notes": "for the summer" }));
    assert_eq!(patch.status, 204, "{}", patch.text());
    assert_eq!(manage(&running, "PUT", &format!("{RELEASES}/beta/tags"), json!(["b", "a", "b"])).status, 204);
    assert_eq!(manage(&running, "PUT", &format!("{RELEASES}/alpha/tags"), json!(["c"])).status, 204);

    let beta = get(&running, &format!("{RELEASES}/beta"));
    assert_eq!((&beta["notes"], &beta["tags"]), (&json!("for the summer"), &json!(["a", "b"])));
    assert_eq!(beta["artifacts"].as_array().unwrap().len(), 2);
    assert!(beta["modified"].as_str().unwrap() >= beta["artifacts"][1]["modified"].as_str().unwrap());
    let names = |path: &str, field: &str| -> Vec<String> {
        let found = get(&running, path);
        found.as_array().unwrap().iter().map(|one| one[field].as_str().unwrap().to_owned()).collect()
    };
    for (query, wanted) in [
        ("", &["alpha", "beta"][..]),
        ("?sort=name:desc", &["beta", "alpha"]),
        ("?sort=artifacts_count:desc", &["beta", "alpha"]),
        ("?sort=tags:desc", &["alpha", "beta"]),
        ("?name=ETA", &["beta"]),
        ("?tag=a&tag=c", &["alpha", "beta"]),
        ("?tag=b", &["beta"]),
        ("?tag=nobody", &[]),
        ("?update_type=rootfs-image", &["alpha", "beta"]),
        ("?update_type=other", &[]),
        ("?page=2&per_page=1", &["beta"]),
    ] {
        assert_eq!(names(&format!("{RELEASES}{query}"), "name"), wanted, "{query}");
    }
    let times: Vec<String> = get(&running, &format!("{RELEASES}?sort=modified:desc"))
        .as_array()
        .unwrap()
        .iter()
        .map(|release| release["modified"].as_str().unwrap().to_owned())
        .collect();
    assert!(times[0] >= times[1], "{times:?}");
    let first = manage(&running, "GET", &format!("{RELEASES}?per_page=1"), Value::Null);
    assert_eq!(first.header("x-total-count"), Some("2"));
    assert_eq!(first.json()[0]["artifacts_count"], 1);
    assert_eq!(error(&manage(&running, "GET", &format!("{RELEASES}?sort=colour"), Value::Null)), 400);
    let v1 = "/api/management/v1/deployments/deployments/releases";
    assert_eq!(names(v1, "Name"), ["alpha", "beta"]);
    assert_eq!(names(&format!("{v1}/list?device_type=two"), "Name"), ["beta"]);
    assert_eq!(get(&running, v1)[1]["ArtifactsCount"], 2);
    assert_eq!(get(&running, "/api/management/v2/deployments/releases/all/tags"), json!(["a", "b", "c"]));
    assert_eq!(get(&running, "/api/management/v2/deployments/releases/all/types"), json!(["rootfs-image"]));
    let software = "/api/management/v1alpha1/deployments/software";
    assert_eq!(names(&format!("{software}?name_prefix=be&kind=release"), "name"), ["beta"]);
    assert_eq!(get(&running, software)[1]["compatible_types"], json!(["one", "two"]));
    assert_eq!(get(&running, &format!("{software}/tags")), json!(["a", "b", "c"]));
    assert_eq!(get(&running, &format!("{software}?kind=manifest")), json!([]));

    // They go with the last artifact.
    assert_eq!(manage(&running, "DELETE", &format!("{RELEASES}?name=beta"), Value::Null).status, 204);
    assert_eq!(error(&manage(&running, "GET", &format!("{RELEASES}/beta"), Value::Null)), 404);
    assert_eq!(get(&running, ARTIFACTS).as_array().unwrap().len(), 1);
    management.upload_artifact(artifact("beta", "one").path()).unwrap();
    assert_eq!(get(&running, &format!("{RELEASES}/beta"))["notes"], "");
}

#[test]
fn what_people_say_about_a_release_has_limits() {
    let (running, management, _folder) = server(|options| options);
    management.upload_artifact(artifact("a", "one").path()).unwrap();
    let tags = |tags: Value| manage(&running, "PUT", &format!("{RELEASES}/a/tags"), tags);
    for (what, bad) in [
        ("many", json!((0..21).map(|n| n.to_string()).collect::<Vec<_>>())),
        ("space", json!(["a b"])),
        ("empty", json!([""])),
        ("long", json!(["x".repeat(1025)])),
        ("no list", json!({ "a": 1 })),
    ] {
        assert_eq!(error(&tags(bad)), 400, "{what}");
    }
    let notes = |notes: Value| manage(&running, "PATCH", &format!("{RELEASES}/a"), json!({ "notes": notes }));
    assert_eq!(error(&notes(json!("x".repeat(1025)))), 400);
    assert_eq!(error(&notes(json!(5))), 400);
    assert_eq!(notes(json!("ü".repeat(1024))).status, 204);
    assert_eq!(error(&manage(&running, "PUT", &format!("{RELEASES}/none/tags"), json!(["a"]))), 404);
    assert_eq!(error(&manage(&running, "DELETE", RELEASES, Value::Null)), 400);
}

#[test]
fn an_artifact_is_made_of_one_file() {
    everywhere(|place| {
        let args = json!({ "filename": "settings", "dest_dir": "/etc/app" }).to_string();
        let fields: [(&str, Option<&str>, &[u8]); 6] = [
            ("name", None, b"settings-3"),
            ("description", None, b"made here"),
            ("device_types_compatible", None, b"one,two"),
            ("type", None, b"single_file"),
            ("args", None, args.as_bytes()),
            ("file", Some("upload.bin"), &[7; 100_000]),
        ];
        let generate = format!("{ARTIFACTS}/generate");
        let answer = form(&place.running, &generate, &fields);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let made = get(&place.running, &format!("{ARTIFACTS}/{}", location(&answer)));
        assert_eq!((&made["name"], &made["description"]), (&json!("settings-3"), &json!("made here")));
        assert_eq!(made["device_types_compatible"], json!(["one", "two"]));
        assert_eq!(made["updates"][0]["type_info"]["type"], "single-file");
        let files: Vec<&str> = made["updates"][0]["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["name"].as_str().unwrap())
            .collect();
        assert_eq!(files, ["dest_dir", "filename", "permissions", "settings"]);
        assert_eq!(made["artifact_provides"]["rootfs-image.single-file.version"], "settings-3");
        for (what, at, bad) in [
            ("type", 3, &b"docker"[..]),
            ("name", 0, b"a\nb"),
            ("kinds", 2, b""),
            ("args", 4, b"{"),
            ("path", 4, br#"{"filename":"f","dest_dir":"etc"}"#),
            ("file name", 4, br#"{"filename":"../f","dest_dir":"/etc"}"#),
            ("reserved", 4, br#"{"filename":"dest_dir","dest_dir":"/etc"}"#),
        ] {
            let mut fields = fields;
            fields[at].2 = bad;
            assert_eq!(error(&form(&place.running, &generate, &fields)), 400, "{what}");
        }
        assert_eq!(error(&form(&place.running, &generate, &fields[..5])), 400, "no file");
        assert_eq!(error(&form(&place.running, &generate, &fields)), 409, "it is there");
        assert_eq!(place.kept().len(), 1);
    });
}

#[test]
fn a_direct_upload_goes_past_the_api_and_is_read_when_it_is_there() {
    everywhere(|place| {
        let running = &place.running;
        let begin = || {
            let answer = manage(running, "POST", &format!("{ARTIFACTS}/directupload"), Value::Null);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let begun = answer.json();
            assert!(begun["expire"].is_string(), "{begun}");
            (begun["id"].as_str().unwrap().to_owned(), begun["uri"].as_str().unwrap().to_owned())
        };
        let complete = |id: &str| {
            manage(running, "POST", &format!("{ARTIFACTS}/directupload/{id}/complete"), Value::Null)
        };
        let (id, uri) = begin();
        assert_eq!(place.s3.is_some(), !uri.starts_with(running.url()), "{uri}");
        assert_eq!(error(&complete(&id)), 409, "nothing is there");
        let good = fs::read(artifact("release-2", "testdev").path()).unwrap();
        let put = to(&uri, "PUT", &[], &good);
        assert_eq!(put.status, 200, "{}", put.text());
        assert_eq!(get(running, ARTIFACTS), json!([]), "nobody has read it");
        let done = complete(&id);
        assert_eq!(done.status, 202, "{}", done.text());
        assert_eq!(get(running, &format!("{ARTIFACTS}/{id}"))["name"], "release-2");
        assert_eq!(place.kept(), [format!("{id}.mender")], "only where the link does not lead");
        assert_eq!(error(&complete(&id)), 404, "it is completed once");

        let (bad, uri) = begin();
        assert_eq!(to(&uri, "PUT", &[], b"no artifact").status, 200);
        assert_eq!(error(&complete(&bad)), 400);
        assert_eq!(error(&complete(&bad)), 404);
        assert_eq!(place.kept().len(), 1);
        assert_eq!(error(&complete("6e1b1a37-6fd4-4c3b-9d53-1f0a7c3a2b11")), 404);
        assert_eq!(error(&complete("not-an-id")), 400);
        let changed = uri.replace("ignature=", "ignature=0");
        assert!([400, 403].contains(&to(&changed, "PUT", &[], &good).status));
    });
}

#[test]
fn the_link_of_a_direct_upload_is_for_that_alone() {
    let (running, _management, _folder) = server(|options| options.max_artifact_bytes(30_000));
    let begun = manage(&running, "POST", &format!("{ARTIFACTS}/directupload"), Value::Null).json();
    let uri = begun["uri"].as_str().unwrap().to_owned();
    for (method, url, wanted) in [
        ("GET", uri.clone(), 405),
        ("PUT", uri.replace("/upload/", "/download/"), 405),
        ("GET", uri.replace("/upload/", "/download/"), 403),
        ("PUT", uri.split_once('?').unwrap().0.to_owned(), 403),
    ] {
        assert_eq!(to(&url, method, &[], b"x").status, wanted, "{method} {url}");
    }
    assert_eq!(to(&uri, "PUT", &[], &vec![0; 40_000]).status, 413);
    let nothing = format!("{ARTIFACTS}/directupload/{}/complete", begun["id"].as_str().unwrap());
    assert_eq!(error(&manage(&running, "POST", &nothing, Value::Null)), 409);
    assert_eq!(request(&running, "POST", &format!("{ARTIFACTS}/directupload"), &[], b"").status, 401);
}

#[test]
fn files_of_others_in_the_folders_stay() {
    let folder = tempfile::tempdir().unwrap();
    let make = |path: &Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "somebody's").unwrap();
    };
    let paths =
        ["artifacts/holiday.jpg", "incoming/notes.txt", "direct/x"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| make(path));
    let stale = folder.path().join("incoming/6e1b1a37-6fd4-4c3b-9d53-1f0a7c3a2b11");
    make(&stale);
    let (running, management) = crate::common::server_in(folder.path(), |options| options);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    running.stop();
    assert!(paths.iter().all(|path| path.is_file()));
    assert!(!stale.exists(), "what was not completed goes at the next start");
}

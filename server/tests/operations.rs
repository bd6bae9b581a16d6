//! What whoever runs the server needs: numbers, health, ids of requests, a log for programs, certificates that are renewed, and
//! limits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use server_core::Running;

use crate::common::{self, Answer, Device, accepted, manage, parse, request, request_bytes, server, until};
use crate::tls::fixture;

/// What is at the place for whoever watches the server.
fn watched(running: &Running, path: &str) -> Answer {
    let url = running.metrics_url().unwrap().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(url).unwrap();
    stream.write_all(&request_bytes("GET", path, &[], b"")).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    parse(&answer).unwrap()
}

/// The value of one series.
pub(crate) fn metric(running: &Running, series: &str) -> Option<f64> {
    let text = watched(running, "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

pub(crate) fn on_any_port() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn what_happened_is_in_the_metrics_and_only_there() {
    let (running, management, _folder) = server(|options| options.metrics(on_any_port()));
    let (device, id) = accepted(&running, "a");
    assert_eq!(device.next(&running).status, 204);
    management.upload_artifact(common::artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("a \"name\"", "release-2", &[id]).unwrap();
    let offer = device.next(&running);
    let uri = offer.json()["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
    let path = uri.split_once(&format!(":{}", running.port())).unwrap().1.to_owned();
    let artifact = request(&running, "GET", &path, &[], b"");
    assert_eq!(artifact.status, 200);
    device.report(&running, &deployment, "downloading");

    let answer = watched(&running, "/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let mut families = BTreeSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => assert!(families.insert(family.split(' ').next().unwrap().to_owned()), "{line}"),
            None if line.starts_with("# HELP ") => {}
            None => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = series.split('{').next().unwrap();
                let is_of = |family: &String| {
                    ["", "_bucket", "_sum", "_count"].iter().any(|end| name == format!("{family}{end}"))
                };
                assert!(families.iter().any(is_of), "{line}");
            }
        }
    }
    let is =
        |series: &str, value: f64| assert_eq!(metric(&running, series), Some(value), "{series} in\n{text}");
    is("rust_ota_server_polls_total{result=\"nothing\"}", 1.0);
    is("rust_ota_server_polls_total{result=\"update\"}", 1.0);
    is("rust_ota_server_requests_total{class=\"poll\",status=\"204\"}", 1.0);
    is("rust_ota_server_requests_total{class=\"status\",status=\"204\"}", 1.0);
    is("rust_ota_server_devices{status=\"accepted\"}", 1.0);
    is("rust_ota_server_downloaded_bytes_total", artifact.body.len() as f64);
    is("rust_ota_server_changes_waiting", 0.0);
    is("rust_ota_server_deployments_active", 1.0);
    is(
        &format!(
            "rust_ota_server_deployment_devices{{deployment=\"{deployment}\",name=\"a \\\"name\\\"\",status=\"downloading\"}}"
        ),
        1.0,
    );
    assert!(metric(&running, "rust_ota_server_commit_jobs_count").unwrap() > 2.0, "{text}");
    // Not for everybody.
    assert_eq!(request(&running, "GET", "/metrics", &[], b"").status, 404);
    assert_eq!(watched(&running, "/api/management/v2/devauth/devices").status, 404);
}

#[test]
fn a_server_is_ready_until_a_part_of_it_does_not_work() {
    let (running, _, folder) = server(|options| options.metrics(on_any_port()));
    let get = |path: &str| request(&running, "GET", path, &[], b"");
    assert_eq!((get("/health").status, get("/health/live").status), (204, 204));
    let ready = get("/health/ready");
    assert_eq!((ready.status, ready.json()), (200, json!({ "ready": true, "reasons": [] })));
    std::fs::remove_dir_all(folder.path().join("artifacts")).unwrap();
    // What was found out holds for a second.
    let ready = loop {
        let ready = get("/health/ready");
        if ready.status != 200 {
            break ready;
        }
    };
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reasons"][0]["part"], "artifacts", "{}", ready.text());
    assert_eq!(watched(&running, "/health/ready").status, 503);
    assert_eq!(metric(&running, "rust_ota_server_ready"), Some(0.0));
    assert_eq!((get("/health/live").status, watched(&running, "/health/live").status), (204, 204));
}

#[test]
fn each_answer_has_the_id_of_its_request_and_an_error_says_it() {
    let (running, _, _folder) = server(|options| options);
    let ask = |name: &str, id: &str| request(&running, "GET", "/nothing", &[(name, id)], b"");
    for name in ["X-MEN-RequestID", "X-Request-ID"] {
        let answer = ask(name, "abc-1");
        assert_eq!(answer.header("X-MEN-RequestID"), Some("abc-1"));
        assert_eq!(answer.json()["request_id"], "abc-1");
    }
    let made = |answer: &Answer| {
        let id = answer.json()["request_id"].as_str().unwrap().to_owned();
        assert_eq!(answer.header("X-MEN-RequestID"), Some(&*id));
        id
    };
    let (one, other) = (ask("X-Request-ID", "a b"), ask("X-Request-ID", "\" OR 1"));
    assert!(made(&one).len() == 36 && made(&one) != made(&other), "{one:?} {other:?}");
    let health = request(&running, "GET", "/health", &[], b"");
    assert_eq!(health.header("X-MEN-RequestID").map(str::len), Some(36));
}

/// A server in a process of its own, with its lines.
struct Program {
    child: std::process::Child,
    out: BufReader<std::process::ChildStdout>,
    log: BufReader<std::process::ChildStderr>,
    url: String,
}

impl Program {
    fn start(folder: &Path, words: &[&str], change: impl FnOnce(&mut Command)) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.join("data")).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut program = Program { child, out, log, url: String::new() };
        let mut line = String::new();
        program.out.read_line(&mut line).unwrap();
        program.url = line.trim().strip_prefix("listening on ").expect("it listens").to_owned();
        program
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// The next line of the log that has this in it.
    fn logged(&mut self, part: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "{part} is not in\n{all}");
            if line.contains(part) {
                return line;
            }
            all += &line;
        }
    }

    /// The answer to a request without anything special, once more without TLS.
    fn get(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.url.split_once("//").unwrap().1).unwrap();
        stream.write_all(&request_bytes("GET", path, &[("X-Request-ID", "mine")], b"")).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_log_for_programs_has_an_object_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--log-format", "json", "--verbose"];
    let mut program = Program::start(folder.path(), &words, |_| {});
    program.get("/nothing");
    let line = program.logged("/nothing");
    let value: Value = serde_json::from_str(&line).unwrap();
    for (name, expected) in [
        ("level", json!("info")),
        ("request_id", json!("mine")),
        ("method", json!("GET")),
        ("status", json!(404)),
        ("address", json!("127.0.0.1")),
    ] {
        assert_eq!(value[name], expected, "{line}");
    }
    assert!(value["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");
    assert!(value["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    program.get("/health/live");
    let line = program.logged("/health/live");
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["level"], "debug", "{line}");
    program.stop();
}

#[test]
fn a_renewed_certificate_is_used_after_a_signal_and_the_service_manager_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let put = |from: &str, to: &str| std::fs::copy(fixture(from), file(to)).unwrap();
    put("tls-server.pem", "cert");
    put("tls-server.key", "key");
    let socket = file("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let heard = || {
        let mut buffer = [0; 200];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let (certificate, key) = (file("cert").display().to_string(), file("key").display().to_string());
    let words = ["--tls-cert", &certificate, "--tls-key", &key];
    let mut program = Program::start(folder.path(), &words, |command| {
        command.env("NOTIFY_SOCKET", &socket);
    });
    assert_eq!(heard(), "READY=1");
    let trusts = |program: &Program, ca: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        command.args(["devices", "--server", &program.url, "--ca"]).arg(fixture(ca));
        command.arg("--token-file").arg(file("data/management-token")).env("XDG_CONFIG_HOME", file("none"));
        command.output().unwrap().status.success()
    };
    assert!(trusts(&program, "tls-ca.pem") && !trusts(&program, "tls-self.pem"));
    let reload = |program: &mut Program, part: &str| {
        program.signal("-HUP");
        assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        program.logged(part);
        assert_eq!(heard(), "READY=1");
    };
    // Half of a renewal: the old one stays.
    put("tls-self.pem", "cert");
    reload(&mut program, "the old one stays");
    assert!(trusts(&program, "tls-ca.pem"));
    put("tls-self.key", "key");
    reload(&mut program, "was read anew");
    assert!(trusts(&program, "tls-self.pem") && !trusts(&program, "tls-ca.pem"));
    program.signal("-TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn a_device_that_asks_too_often_is_told_when_to_come_and_others_are_served() {
    let (running, _, _folder) = server(|options| options.device_rate(1).metrics(on_any_port()));
    let (often, _) = accepted(&running, "often");
    let (other, _) = accepted(&running, "other");
    let answers: Vec<Answer> = (0..40).map(|_| often.next(&running)).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((1..=30).contains(&refused.len()), "{}", refused.len());
    for answer in &refused {
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=6).contains(&after), "{after}");
        assert_eq!(answer.json()["error"], "the device asks too often");
    }
    assert_eq!(other.next(&running).status, 204);
    assert_eq!(manage(&running, "GET", "/api/management/v2/devauth/devices", Value::Null).status, 200);
    let series = "rust_ota_server_requests_refused_total{class=\"poll\",reason=\"device\"}";
    assert_eq!(metric(&running, series), Some(refused.len() as f64));
}

#[test]
fn an_address_that_asks_too_often_is_turned_away_and_health_still_answers() {
    let (running, _, _folder) = server(|options| options.address_rate(1));
    let answers: Vec<Answer> = (0..40).map(|_| request(&running, "GET", "/nothing", &[], b"")).collect();
    assert!(answers.iter().any(|answer| answer.status == 429));
    assert_eq!(answers[0].status, 404);
    assert_eq!(request(&running, "GET", "/health/live", &[], b"").status, 204);
}

/// A request of a device whose last byte does not come yet: it has its place until then.
fn begun(running: &Running, device: &Device) -> TcpStream {
    let body = poll_body();
    let mut stream = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    let token = format!("Bearer {}", device.token);
    let bytes = request_bytes("POST", NEXT, &[("Authorization", &token)], &body);
    stream.write_all(&bytes[..bytes.len() - 1]).unwrap();
    stream
}

const NEXT: &str = "/api/devices/v2/deployments/device/deployments/next";

fn poll_body() -> Vec<u8> {
    json!({ "device_provides": { "artifact_name": "a", "device_type": "testdev" } }).to_string().into_bytes()
}

#[test]
fn bodies_of_strangers_that_do_not_come_take_nobodys_place() {
    let (running, management, _folder) =
        server(|options| options.device_requests(2).people_requests(1).downloads(1).metrics(on_any_port()));
    let (device, id) = accepted(&running, "one");
    management.upload_artifact(common::artifact("release-2", "testdev").path()).unwrap();
    management.deploy("d", "release-2", &[id]).unwrap();
    let offer = device.next(&running).json();
    let link = offer["artifact"]["source"]["uri"].as_str().unwrap();
    let path = link.split_once(&running.port().to_string()).unwrap().1;
    let basic = ("Authorization", "Basic YTpi");
    let mut held = Vec::new();
    for (method, path, headers) in [
        ("POST", "/api/devices/v1/authentication/auth_requests", &[][..]),
        ("PUT", "/api/devices/v1/inventory/device/attributes", &[("Authorization", "Bearer no.to.ken")]),
        ("POST", "/api/management/v1/useradm/auth/login", &[basic]),
        ("POST", "/api/management/v1/useradm/auth/login", &[]),
        ("POST", "/api/management/v1/deployments/deployments", &[]),
        ("POST", "/", &[]),
        ("PUT", "/upload/x", &[]),
        ("GET", "/download/x", &[]),
    ] {
        for _ in 0..3 {
            let bytes = request_bytes(method, path, headers, b"{}");
            let mut stream = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
            stream.write_all(&bytes[..bytes.len() - 1]).unwrap();
            held.push(stream);
            // As long as it is found out who it is, it has a place, and another one would be turned away.
            until(|| metric(&running, "rust_ota_server_bodies_awaited") == Some(held.len() as f64));
        }
    }
    for share in ["devices", "people", "downloads"] {
        let series = format!("rust_ota_server_requests_under_way{{share=\"{share}\"}}");
        assert_eq!(metric(&running, &series), Some(0.0), "{share}");
    }
    assert_eq!(device.next(&running).status, 200);
    assert_eq!(manage(&running, "GET", "/api/management/v2/devauth/devices", Value::Null).status, 200);
    assert_eq!(request(&running, "POST", "/api/management/v1/useradm/auth/login", &[basic], b"").status, 401);
    assert_eq!(request(&running, "GET", path, &[], b"").status, 200);
    accepted(&running, "two");
    // When the body comes, there is an answer.
    for mut stream in held {
        stream.write_all(b"}").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let status = parse(&answer).unwrap().status;
        assert!([400, 401, 403, 404, 405].contains(&status), "{status}");
    }
    until(|| metric(&running, "rust_ota_server_bodies_awaited") == Some(0.0));
}

#[test]
fn a_herd_is_told_to_come_again_at_different_times_while_people_and_health_are_answered() {
    let (running, _, _folder) = server(|options| options.device_requests(4).metrics(on_any_port()));
    let devices: Vec<Device> = (0..24).map(|n| accepted(&running, &format!("device-{n}")).0).collect();
    let held: Vec<TcpStream> = devices[..4].iter().map(|device| begun(&running, device)).collect();
    until(|| metric(&running, "rust_ota_server_requests_under_way{share=\"devices\"}") == Some(4.0));

    let herd = &devices[4..];
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asking: Vec<_> = herd.iter().map(|device| scope.spawn(|| device.next(&running))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let after: BTreeSet<u64> = answers
        .iter()
        .map(|answer| {
            assert_eq!((answer.status, &answer.json()["error"]), (429, &json!("the server is busy")));
            answer.header("retry-after").unwrap().parse().unwrap()
        })
        .collect();
    assert!(after.len() > 5 && after.iter().all(|seconds| (10..70).contains(seconds)), "{after:?}");
    assert_eq!(manage(&running, "GET", "/api/management/v2/devauth/devices", Value::Null).status, 200);
    assert_eq!(request(&running, "GET", "/health/ready", &[], b"").status, 200);
    let series = "rust_ota_server_requests_refused_total{class=\"poll\",reason=\"busy\"}";
    assert_eq!(metric(&running, series), Some(20.0));

    // Those that had a place are answered, and then there are places for the others.
    for mut stream in held {
        stream.write_all(b"}").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(parse(&answer).unwrap().status, 204);
    }
    until(|| metric(&running, "rust_ota_server_requests_under_way{share=\"devices\"}") == Some(0.0));
    for device in herd {
        assert_eq!(device.next(&running).status, 204);
    }
}

#[test]
fn a_download_has_its_place_until_its_last_byte_or_until_its_client_has_gone() {
    let (running, management, _folder) = server(|options| options.downloads(1).metrics(on_any_port()));
    let (device, id) = accepted(&running, "a");
    let file = common::artifact_with("release-2", "testdev", 16 << 20, |_| {});
    management.upload_artifact(file.path()).unwrap();
    management.deploy("first", "release-2", &[id]).unwrap();
    let uri = device.next(&running).json()["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
    let path = uri.split_once(&format!(":{}", running.port())).unwrap().1.to_owned();
    let mut stream = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    stream.write_all(&request_bytes("GET", &path, &[], b"")).unwrap();
    // It has begun, and more of it is left than any buffer on the way takes.
    stream.read_exact(&mut [0; 1000]).unwrap();
    let second = request(&running, "GET", &path, &[], b"");
    assert_eq!(second.status, 429, "{}", second.text());
    assert!(second.header("retry-after").is_some());
    drop(stream);
    until(|| metric(&running, "rust_ota_server_requests_under_way{share=\"downloads\"}") == Some(0.0));
    assert_eq!(request(&running, "HEAD", &path, &[], b"").status, 200);
}
